//! Errors as the command line shows them: what happened, why, and a line that says how to mend it.

use std::fmt;
use std::io::ErrorKind;
use std::process::ExitCode;

/// An error, or a context of one, with advice.
#[derive(Debug)]
pub(crate) struct Hinted {
    message: String,
    hint: String,
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Hinted {}

#[cfg(all(test, feature = "aws"))]
impl Hinted {
    pub(crate) fn hint(&self) -> &str {
        &self.hint
    }
}

/// An error with advice. Also good as a context of another error.
pub(crate) fn hinted(message: impl Into<String>, hint: impl Into<String>) -> Hinted {
    Hinted { message: message.into(), hint: hint.into() }
}

/// Whoever read our standard output has gone (`quipu query | head`): no error, but a reason to stop.
#[derive(Debug)]
pub(crate) struct StdoutClosed;

impl fmt::Display for StdoutClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output was closed")
    }
}

impl std::error::Error for StdoutClosed {}

/// What a failed write to standard output means. Only there is a broken pipe no error.
pub(crate) fn stdout_error(error: std::io::Error) -> anyhow::Error {
    if error.kind() == ErrorKind::BrokenPipe {
        anyhow::Error::new(StdoutClosed)
    } else {
        anyhow::Error::new(error).context("cannot write to standard output")
    }
}

/// Prints an error to standard error; the exit code that it means.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<StdoutClosed>().is_some() {
        return ExitCode::SUCCESS;
    }
    use std::io::Write as _;
    let mut text = format!("error: {error}");
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Libraries often repeat their cause in their own words.
        if !last.contains(&cause) {
            text.push_str(&format!(": {cause}"));
        }
        last = cause;
    }
    text.push('\n');
    if let Some(hinted) = error.downcast_ref::<Hinted>() {
        text.push_str(&format!("hint: {}\n", hinted.hint));
    }
    // If standard error is gone as well, nobody is left to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn a_hint_is_found_beneath_contexts() {
        let error = Err::<(), _>(hinted("a", "do b")).context("c").unwrap_err();
        assert_eq!(error.downcast_ref::<Hinted>().unwrap().hint, "do b");
        let error = anyhow::anyhow!("root").context(hinted("a", "do b")).context("c");
        assert_eq!(error.downcast_ref::<Hinted>().unwrap().hint, "do b");
    }

    #[test]
    fn only_a_broken_pipe_of_standard_output_is_fine() {
        let broken = || std::io::Error::from(ErrorKind::BrokenPipe);
        assert!(stdout_error(broken()).downcast_ref::<StdoutClosed>().is_some());
        assert!(anyhow::Error::new(broken()).downcast_ref::<StdoutClosed>().is_none());
    }
}
