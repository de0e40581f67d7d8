//! Connections: how many, how long one may take to send its head, and how they end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most open connections; further ones wait in the system's queue. Each takes some 10 KiB while idle.
const CONNECTIONS_MAX: usize = 10_000;
/// How long a head may take to arrive, and an idle connection may stay: what slow senders can hold is bounded.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);
/// Largest head of a request, bytes: the longest search text, thrice for its encoding, many times over.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long requests under way may take to finish once the server is told to stop.
pub(super) const DRAIN: Duration = Duration::from_secs(8);
/// How long to wait when the system has no more files to give.
const BREATHER: Duration = Duration::from_millis(100);

/// Serves until `stop` is ready, then lets what is under way finish.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).max_buf_size(HEAD_BYTES_MAX);
    tokio::pin!(stop);
    loop {
        let (stream, permit) = tokio::select! {
            biased;
            () = &mut stop => break,
            Some(accepted) = accept(&listener, &permits) => accepted,
            else => break,
        };
        tokio::spawn(connection(builder.clone(), stream, router.clone(), graceful.watcher(), permit));
    }
    // New connections are refused at once rather than left waiting.
    drop(listener);
    let open = graceful.count();
    tracing::info!(open, "stopping");
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were cut off: they took longer than {} s to finish", DRAIN.as_secs());
    }
}

/// The next connection; `None` only if there can be no more.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Some((stream, permit)),
            Err(error) => {
                // Either this one connection failed, or the system is out of files: neither is a reason to end.
                tracing::debug!(%error, "could not accept a connection");
                tokio::time::sleep(BREATHER).await;
            }
        }
    }
}

async fn connection(
    builder: http1::Builder,
    stream: TcpStream,
    router: Router,
    watcher: Watcher,
    permit: OwnedSemaphorePermit,
) {
    // Answers are small and whole: waiting to fill a packet only delays them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "could not set TCP_NODELAY");
    }
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        // Clients go away; that is theirs to tell.
        tracing::debug!(%error, "a connection ended");
    }
    drop(permit);
}
