//! The progress bar of an import. On standard error, and only if that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::source::Source;

/// How often the bar moves by itself, so that a wait does not look like an end.
const TICK: Duration = Duration::from_millis(200);

/// How far it has come.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Nothing yet.
    pub(super) fn new(source: &Source, is_quiet: bool) -> Self {
        let (bar, template) = match source.length {
            Some(length) => {
                (ProgressBar::new(length), "{bar:30} {bytes}/{total_bytes}  {msg}  {elapsed}, {eta} left")
            }
            None => (ProgressBar::new_spinner(), "{spinner} {msg}  {elapsed}"),
        };
        if is_quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// So much was read, and so many events are stored.
    pub(super) fn advance(&self, position: u64, events: u64) {
        self.0.set_position(position);
        self.0.set_message(crate::output::count(events, "event"));
    }

    /// Says something without disturbing the bar.
    pub(super) fn tell(&self, line: &str) {
        self.0.suspend(|| eprintln!("warning: {line}"));
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
