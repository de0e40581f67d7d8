//! Reads: by id, and pages of a session, at random places.

use std::time::Instant;

use anyhow::ensure;

use super::load::{Connection, Done, percentile};
use super::server::Server;

/// How often each is asked.
const ASKED: usize = 2000;

/// A row of the table: p50 and p99 of each kind of read, ms.
pub(crate) fn measure(server: &Server, subject: &Done) -> anyhow::Result<String> {
    let mut connection = Connection::open(server)?;
    let session = &subject.session;
    let count = subject.ids.len();
    // A walk with a large odd step visits every place without a pattern that a cache could like.
    let place = |asked: usize| asked.wrapping_mul(7919) % count;
    let mut cells = Vec::new();
    let by_id = |n: usize| format!("/v1/events/{}", subject.ids[place(n)]);
    let by_sequence = |n: usize| {
        format!("/v1/sessions/{session}/events?limit=100&from_sequence={}", place(n).min(count - 100))
    };
    let by_time = |_: usize| format!("/v1/events?session_id={session}&limit=100");
    let kinds: [&dyn Fn(usize) -> String; 3] = [&by_id, &by_sequence, &by_time];
    for path in kinds {
        let mut times = Vec::with_capacity(ASKED);
        for asked in 0..ASKED {
            let request = format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", path(asked));
            let started = Instant::now();
            let (status, answer) = connection.ask(request.as_bytes())?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
            ensure!(status == 200, "{request}: {status} {}", String::from_utf8_lossy(&answer));
        }
        times.sort_by(f64::total_cmp);
        cells.push(format!("{:.3} | {:.3}", percentile(&times, 50.0), percentile(&times, 99.0)));
    }
    Ok(cells.join(" | "))
}
