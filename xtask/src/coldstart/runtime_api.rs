//! The Lambda runtime API as one function sees it: it asks for the next event and posts what came of it. Times are
//! taken here, when a request has arrived and before an event is handed out.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use quipu_core::clock::{Clock as _, SystemClock};

/// How long a function may take for anything before the run is given up.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What the function said, and when.
#[derive(Debug)]
pub(crate) enum Said {
    /// `GET …/invocation/next`: it is ready.
    Next(Instant),
    /// An event went out to it.
    HandedOut(Instant),
    /// `POST …/invocation/ID/response`.
    Response(Instant, Vec<u8>),
    /// `POST …/error`, of an invocation or of its init.
    Error(String),
}

/// The API for one process.
pub(crate) struct RuntimeApi {
    address: SocketAddr,
    events: Sender<Vec<u8>>,
    said: Receiver<Said>,
    stopped: Arc<AtomicBool>,
}

impl RuntimeApi {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a free port")?;
        let address = listener.local_addr()?;
        let (events, waiting) = mpsc::channel();
        let (tell, said) = mpsc::channel();
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = stopped.clone();
        std::thread::spawn(move || {
            let waiting = Arc::new(Mutex::new(waiting));
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let (waiting, tell) = (waiting.clone(), tell.clone());
                // A connection ends with its process, or with us.
                std::thread::spawn(move || serve(stream, &waiting, &tell));
            }
        });
        Ok(Self { address, events, said, stopped })
    }

    /// What `AWS_LAMBDA_RUNTIME_API` says.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// When the function asked for its next event.
    pub(crate) fn ready(&self) -> anyhow::Result<Instant> {
        match self.hear()? {
            Said::Next(at) => Ok(at),
            other => bail!("not a function that is ready: {other:?}"),
        }
    }

    /// Hands out an event to the function, which must be ready, and waits until it is ready again: how long the
    /// answer took, and the answer.
    pub(crate) fn invoke(&self, event: &serde_json::Value) -> anyhow::Result<(Duration, serde_json::Value)> {
        self.events.send(event.to_string().into_bytes())?;
        let handed_out = match self.hear()? {
            Said::HandedOut(at) => at,
            other => bail!("no event went out: {other:?}"),
        };
        let (at, answer) = match self.hear()? {
            Said::Response(at, answer) => (at, answer),
            other => bail!("no answer: {other:?}"),
        };
        self.ready()?;
        Ok((at - handed_out, serde_json::from_slice(&answer).context("an answer that is not JSON")?))
    }

    fn hear(&self) -> anyhow::Result<Said> {
        match self.said.recv_timeout(WAIT_MAX) {
            Ok(Said::Error(why)) => bail!("the function reported an error: {why}"),
            Ok(said) => Ok(said),
            Err(RecvTimeoutError::Timeout) => bail!("nothing from the function in {WAIT_MAX:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("the runtime API ended"),
        }
    }
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: TcpStream, events: &Mutex<Receiver<Vec<u8>>>, tell: &Sender<Said>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let Some((path, body)) = read_request(&mut reader)? else { return Ok(()) };
        let at = Instant::now();
        let accepted = b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{\"status\":\"OK\"}";
        match path.rsplit('/').next() {
            Some("next") => {
                tell.send(Said::Next(at))?;
                let event = events.lock().unwrap_or_else(PoisonError::into_inner).recv()?;
                let deadline = SystemClock.now().unix_ms() + 30_000;
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                     lambda-runtime-aws-request-id: 8476a536-e9f4-11e8-9739-2dfe598c3fcd\r\n\
                     lambda-runtime-deadline-ms: {deadline}\r\n\
                     lambda-runtime-invoked-function-arn: arn:aws:lambda:us-east-1:123456789012:function:quipu\r\n\
                     lambda-runtime-trace-id: Root=1-692123ab-0123456789abcdef01234567;Sampled=0\r\n\r\n",
                    event.len()
                );
                tell.send(Said::HandedOut(Instant::now()))?;
                writer.write_all(&[head.into_bytes(), event].concat())?;
            }
            Some("response") => {
                tell.send(Said::Response(at, body))?;
                writer.write_all(accepted)?;
            }
            _ => {
                tell.send(Said::Error(format!("{path}: {}", String::from_utf8_lossy(&body))))?;
                writer.write_all(accepted)?;
            }
        }
    }
}

/// Path and body of a request; `None` at the connection's end.
fn read_request(reader: &mut BufReader<TcpStream>) -> anyhow::Result<Option<(String, Vec<u8>)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).context("a request line")?.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().context("a length")?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            bail!("{path}: a body of unknown length, from a function that does not stream");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some((path, body)))
}
