//! The only place that asks what time it is. Everything else is handed a [`Clock`].

use crate::time::Micros;

/// A source of the wall-clock time.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Micros;
}

/// The system's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    fn now(&self) -> Micros {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        Micros::new(micros).unwrap_or(Micros::MAX)
    }
}

/// A clock that stands still until it is moved; for tests.
#[derive(Debug)]
pub struct ManualClock(std::sync::atomic::AtomicI64);

impl ManualClock {
    /// Starts at a time.
    pub fn new(start: Micros) -> Self {
        Self(std::sync::atomic::AtomicI64::new(start.get()))
    }

    /// Moves it by milliseconds.
    pub fn advance_ms(&self, ms: i64) {
        self.0.fetch_add(ms * 1000, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Micros {
        Micros::new(self.0.load(std::sync::atomic::Ordering::SeqCst)).unwrap_or(Micros::MAX)
    }
}
