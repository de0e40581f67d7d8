//! The log of a function: plain lines, which CloudWatch stamps with their time.

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What is logged unless `QUIPU_LOG` says otherwise.
const DEFAULT: &str = "warn,quipu=info";

/// Logs as `QUIPU_LOG` says (`debug`, or `warn,quipu=debug`). Never tokens, never payloads: nothing hands them to the
/// log. A simple filter on purpose: the one with patterns brings a regular expression engine into every function.
pub fn init_log() {
    let wanted = std::env::var("QUIPU_LOG").ok().filter(|text| !text.is_empty());
    let (filter, misunderstood) = filter(wanted.as_deref());
    let lines = tracing_subscriber::fmt::layer().without_time().with_ansi(false);
    // Fails only if there is a log already.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    if let Some(text) = misunderstood {
        tracing::warn!("QUIPU_LOG={text} is not understood; using {DEFAULT}");
    }
}

fn filter(wanted: Option<&str>) -> (Targets, Option<&str>) {
    match wanted.map(str::parse) {
        Some(Ok(filter)) => (filter, None),
        refused => (DEFAULT.parse().expect("the default is a filter"), wanted.filter(|_| refused.is_some())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn the_filter_knows_our_crates_by_their_first_word() {
        let (default, misunderstood) = filter(None);
        assert_eq!(misunderstood, None);
        assert!(default.would_enable("quipu_core::http::routes", &Level::INFO));
        assert!(!default.would_enable("quipu_core::http::routes", &Level::DEBUG));
        assert!(!default.would_enable("hyper::client", &Level::INFO));
        assert!(default.would_enable("aws_smithy_runtime", &Level::WARN));
        let (debug, _) = filter(Some("debug"));
        assert!(debug.would_enable("quipu_ingest", &Level::DEBUG));
        assert_eq!(filter(Some("warn,quipu=loud")).1, Some("warn,quipu=loud"));
    }
}
