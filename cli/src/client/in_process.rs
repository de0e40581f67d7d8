//! Asking a data directory that is opened in this process: the same router as the server's, without a port.

use std::io::{self, Read};

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::http;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use quipu_core::auth::AuthMode;
use quipu_core::store::embedded::DataDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tower::ServiceExt as _;

use super::{Reply, Request, SendError};
use crate::local::{self, Admission};
use crate::settings::{self, FileSettings};

/// Parts of a body that may wait to be read.
const FRAMES_WAITING: usize = 4;

/// The ledger of a directory. Fields are dropped in this order: the store before the lock on the directory.
pub(super) struct InProcess {
    router: Router,
    runtime: Runtime,
    _dir: DataDir,
}

impl InProcess {
    /// Opens it. Whoever can open the files needs no token; one that is given must be good all the same.
    pub(super) fn new(dir: DataDir) -> anyhow::Result<Self> {
        let runtime = Runtime::new().context("cannot start the runtime")?;
        let admission = Admission { mode: AuthMode::Loopback, operator: None, bootstrap_secret: None };
        let settings = settings::archive(&settings::environment, &FileSettings::read(None)?)?.settings;
        let open = runtime.block_on(local::open(&dir, admission, settings))?;
        Ok(Self { router: local::router(&open), runtime, _dir: dir })
    }

    /// Sends one request.
    pub(super) fn send(&self, request: &Request<'_>, token: Option<&str>) -> Result<Reply, SendError> {
        let mut builder = http::Request::builder()
            .method(request.method.clone())
            .uri(&request.target)
            .header(HOST, "localhost");
        if let Some(token) = token {
            builder = builder.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(key) = &request.idempotency_key {
            builder = builder.header("idempotency-key", key);
        }
        let made = match request.body {
            Some((content_type, body)) => {
                builder.header(CONTENT_TYPE, content_type).body(Body::from(Bytes::copy_from_slice(body)))
            }
            None => builder.body(Body::empty()),
        };
        let made = made
            .map_err(|e| SendError::Unsendable(anyhow::Error::new(e).context("cannot make the request")))?;
        let answered = self.runtime.block_on(self.router.clone().oneshot(made));
        let (head, mut body) = answered.unwrap_or_else(|never| match never {}).into_parts();
        let (sender, frames) = mpsc::channel(FRAMES_WAITING);
        self.runtime.spawn(async move {
            while let Some(frame) = body.frame().await {
                let part = match frame {
                    Ok(frame) => frame.into_data().map_err(|_| None),
                    Err(error) => Err(Some(error)),
                };
                let part = match part {
                    Ok(data) => Ok(data),
                    // Trailers hold nothing that is read here.
                    Err(None) => continue,
                    Err(Some(error)) => Err(io::Error::other(error)),
                };
                // A reader that went away ends the work.
                if sender.send(part).await.is_err() {
                    return;
                }
            }
        });
        let body = Frames { frames, current: Bytes::new() };
        Ok(Reply { status: head.status.as_u16(), headers: head.headers, body: Box::new(body) })
    }
}

/// A body's parts, read by a thread that may block.
struct Frames {
    frames: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for Frames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.frames.blocking_recv() {
                Some(part) => self.current = part?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}
