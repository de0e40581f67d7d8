//! Load: threads that append prepared batches over connections of their own.
//!
//! Bodies are prepared before the clock starts, so that the client costs as little as a client can: on two cores it
//! would otherwise be what is measured.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::server::Server;
use crate::sample::{Mode, SampleConfig, generate};

/// What to send.
pub(crate) struct Load {
    pub(crate) batch: usize,
    pub(crate) connections: usize,
    /// For so long…
    pub(crate) seconds: Option<u64>,
    /// … or so many events.
    pub(crate) events: Option<usize>,
    pub(crate) seed: u64,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) appends: usize,
    pub(crate) events: usize,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) sent_bytes: u64,
    /// Latency of each append, ms, sorted.
    latencies: Vec<f64>,
    /// Ids and session of the first connection's events, for reads.
    pub(crate) ids: Vec<String>,
    pub(crate) session: String,
}

impl Done {
    pub(crate) fn percentile(&self, p: f64) -> f64 {
        percentile(&self.latencies, p)
    }
}

/// The value below which `p` percent of the sorted values lie.
pub(crate) fn percentile(sorted: &[f64], p: f64) -> f64 {
    let index = (sorted.len() as f64 * p / 100.0) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// Bytes of bodies that one connection keeps ready, at most; then it starts over with the same.
const PREPARED_BYTES_MAX: usize = 16 << 20;

/// First event's time; a fixed day, so that runs are alike.
const START_US: i64 = 1_767_600_000_000_000;

/// One body and the bytes of its events alone.
struct Body {
    request: Vec<u8>,
    events: usize,
    event_bytes: u64,
    session: String,
}

impl Load {
    fn prepare(&self, connection: usize, count: usize) -> Vec<Body> {
        let seed = self.seed + connection as u64;
        let config = SampleConfig { seed, events: count, mode: Mode::Bench, start_us: START_US };
        let mut bodies = Vec::new();
        let mut events = generate(&config).peekable();
        let mut bytes = 0;
        while events.peek().is_some() && bytes < PREPARED_BYTES_MAX {
            let (mut json, mut session) = (String::from("{\"events\":["), String::new());
            let (mut count, mut event_bytes) = (0, 0);
            for (index, event) in events.by_ref().take(self.batch).enumerate() {
                if index > 0 {
                    json.push(',');
                }
                count += 1;
                event_bytes += event.json.len() as u64;
                json.push_str(&event.json);
                session = event.session_id;
            }
            json.push_str("]}");
            let head = format!(
                "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                json.len()
            );
            bytes += json.len();
            bodies.push(Body {
                request: [head.into_bytes(), json.into_bytes()].concat(),
                events: count,
                event_bytes,
                session,
            });
        }
        bodies
    }

    pub(crate) fn run(&self, server: &Server) -> anyhow::Result<Done> {
        let each = self.events.map(|events| events.div_ceil(self.connections));
        // Enough for the fastest that was seen, or as many as are asked for.
        let count = each.unwrap_or(self.batch * 2000 * self.seconds.unwrap_or(1) as usize);
        let prepared: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..self.connections).map(|c| scope.spawn(move || self.prepare(c, count))).collect();
            threads.into_iter().map(|t| t.join().unwrap_or_default()).collect()
        });
        let cpu = server.cpu_seconds()?;
        let started = Instant::now();
        let deadline = self.seconds.map(|s| started + Duration::from_secs(s));
        let results: Vec<anyhow::Result<Done>> = std::thread::scope(|scope| {
            let threads: Vec<_> = prepared
                .iter()
                .enumerate()
                .map(|(c, bodies)| scope.spawn(move || self.drive(server, bodies, deadline, each, c == 0)))
                .collect();
            let panicked = || Err(anyhow::anyhow!("a client panicked"));
            threads.into_iter().map(|t| t.join().unwrap_or_else(|_| panicked())).collect()
        });
        let mut all = Done { seconds: started.elapsed().as_secs_f64(), ..Done::default() };
        all.cpu_seconds = server.cpu_seconds()? - cpu;
        for result in results {
            let one = result?;
            all.appends += one.appends;
            all.events += one.events;
            all.sent_bytes += one.sent_bytes;
            all.latencies.extend(one.latencies);
            if !one.ids.is_empty() {
                (all.ids, all.session) = (one.ids, one.session);
            }
        }
        all.latencies.sort_by(f64::total_cmp);
        Ok(all)
    }

    fn drive(
        &self,
        server: &Server,
        bodies: &[Body],
        deadline: Option<Instant>,
        events: Option<usize>,
        keep_ids: bool,
    ) -> anyhow::Result<Done> {
        let mut connection = Connection::open(server)?;
        let mut done = Done::default();
        for body in bodies.iter().cycle() {
            if deadline.is_some_and(|d| Instant::now() >= d) || events.is_some_and(|e| done.events >= e) {
                break;
            }
            let started = Instant::now();
            let (status, answer) = connection.ask(&body.request)?;
            done.latencies.push(started.elapsed().as_secs_f64() * 1e3);
            if status != 201 {
                bail!("{status}: {}", String::from_utf8_lossy(&answer));
            }
            done.appends += 1;
            done.events += body.events;
            done.sent_bytes += body.event_bytes;
            if keep_ids && done.ids.len() < 10_000 {
                let text = String::from_utf8_lossy(&answer);
                done.ids.extend(
                    text.split("\"event_id\":\"").skip(1).filter_map(|t| t.get(..36)).map(str::to_owned),
                );
                done.session.clone_from(&body.session);
            }
        }
        Ok(done)
    }
}

/// One connection that is kept open.
pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
    body: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(server: &Server) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(&server.address).context("connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { reader: BufReader::with_capacity(1 << 16, stream), body: Vec::new() })
    }

    /// Sends a request and reads the answer: its status and its body.
    pub(crate) fn ask(&mut self, request: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
        self.reader.get_mut().write_all(request)?;
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).context("a status line")?;
        let mut length = 0;
        loop {
            line.clear();
            self.reader.read_line(&mut line)?;
            if line.trim_ascii().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().context("a length")?;
            }
        }
        self.body.resize(length, 0);
        self.reader.read_exact(&mut self.body)?;
        Ok((status, self.body.clone()))
    }
}
