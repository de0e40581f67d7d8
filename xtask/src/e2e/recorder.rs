//! Stands between one function and the emulator, passes every byte on as it is, and keeps what was asked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Context as _;
use serde_json::Value;

/// One call of AWS's JSON protocol.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// `x-amz-target`: `DynamoDB_20120810.PutItem`, `TrentService.Sign`.
    pub(super) target: String,
    /// Its body.
    pub(super) body: Value,
}

type Calls = Arc<Mutex<Vec<Call>>>;

/// Listens for one function.
pub(super) struct Recorder {
    listener: TcpListener,
    port: u16,
    calls: Calls,
}

impl Recorder {
    /// Takes a free port.
    pub(super) fn bind() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a port for a recorder")?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port, calls: Calls::default() })
    }

    /// Where it listens.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Passes on to the emulator from now on, until this process ends.
    pub(super) fn forward_to(&self, emulator: u16) -> anyhow::Result<()> {
        let (listener, calls) = (self.listener.try_clone()?, self.calls.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let calls = calls.clone();
                // A connection that breaks is the function's to notice, and its failure is the run's.
                thread::spawn(move || drop(pass(&client, emulator, &calls)));
            }
        });
        Ok(())
    }

    /// What was asked so far.
    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One connection, to its end.
fn pass(client: &TcpStream, emulator: u16, calls: &Calls) -> anyhow::Result<()> {
    let upstream = TcpStream::connect(("127.0.0.1", emulator))?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (mut answers, mut back) = (upstream.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        // Whichever side ends first ends the other.
        let _ = std::io::copy(&mut answers, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let passed = requests(client, &upstream, calls);
    let _ = upstream.shutdown(Shutdown::Both);
    passed
}

fn requests(client: &TcpStream, mut upstream: &TcpStream, calls: &Calls) -> anyhow::Result<()> {
    let mut reader = BufReader::new(client);
    loop {
        let mut bytes = Vec::new();
        let (mut length, mut target) = (0, String::new());
        loop {
            let start = bytes.len();
            if reader.read_until(b'\n', &mut bytes)? == 0 {
                return Ok(());
            }
            let line = String::from_utf8_lossy(&bytes[start..]);
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => length = value.trim().parse().context("content-length")?,
                    "x-amz-target" => value.trim().clone_into(&mut target),
                    _ => {}
                }
            }
        }
        let start = bytes.len();
        bytes.resize(start + length, 0);
        reader.read_exact(&mut bytes[start..])?;
        let body = serde_json::from_slice(&bytes[start..]).unwrap_or_default();
        // Kept before it is passed on: what was answered was recorded.
        calls.lock().unwrap_or_else(PoisonError::into_inner).push(Call { target, body });
        upstream.write_all(&bytes)?;
    }
}
