//! Trying again, with patience and within bounds.

use std::time::{Duration, Instant};

use super::{ApiFailure, Client, Reply, Request, SendError};

/// First wait; it doubles.
const WAIT_MIN: Duration = Duration::from_millis(250);
/// Longest wait, also where the server asks for longer.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// How long to try.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    /// After this long without an answer that counts, give up.
    pub(crate) patience: Duration,
}

/// How a request ended that was sent until an answer counted.
pub(crate) enum Answer {
    /// A 2xx.
    Accepted(Reply),
    /// Refused, and sending it again would not help.
    Refused(ApiFailure),
}

/// Sends a request until an answer counts. The request must be one that may be sent twice: it reads, or it has an
/// idempotency key. `tell` is given a line whenever it has to wait.
pub(crate) fn send_patiently(
    client: &Client,
    request: &Request<'_>,
    retry: Retry,
    tell: &dyn Fn(&str),
) -> anyhow::Result<Answer> {
    let give_up = Instant::now() + retry.patience;
    let mut wait = WAIT_MIN;
    loop {
        let (error, asked): (anyhow::Error, _) = match client.send(request) {
            Ok(reply) if (200..300).contains(&reply.status) => return Ok(Answer::Accepted(reply)),
            Ok(reply) => {
                let failure = reply.failure();
                if !failure.is_retryable() {
                    return Ok(Answer::Refused(failure));
                }
                let asked = failure.retry_after;
                (failure.into(), asked)
            }
            Err(SendError::Unsendable(error)) => return Err(error),
            Err(SendError::Lost(error)) => (error, None),
        };
        let pause = asked.unwrap_or(wait).min(WAIT_MAX);
        if Instant::now() + pause > give_up {
            return Err(error.context(format!("gave up after {} s", retry.patience.as_secs())));
        }
        tell(&format!("{error:#}; trying again in {:.1} s", pause.as_secs_f64()));
        std::thread::sleep(pause);
        wait = (wait * 2).min(WAIT_MAX);
    }
}
