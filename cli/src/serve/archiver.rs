//! The archiver of a server: a thread of its own, so that making a batch keeps no request waiting.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use quipu_core::archive::{Archiver, Close};
use quipu_core::clock::{Clock as _, SystemClock};
use quipu_core::time::Micros;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// Expired segments that are deleted in one transaction: a few milliseconds of the store's writer.
const EXPIRED_AT_ONCE: usize = 256;

/// The running thread.
pub(super) struct Schedule {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Schedule {
    /// Starts it. The first run is at once: what a kill has left unfinished is finished then.
    pub(super) fn start(archiver: Arc<Archiver>, every: Duration) -> anyhow::Result<Self> {
        let (stop, mut stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the archiver's runtime")?;
        let work = move || {
            runtime.block_on(async {
                let mut ticks = interval(every);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let runs = async {
                    loop {
                        ticks.tick().await;
                        run(&archiver).await;
                    }
                };
                // A run may be cut off anywhere; the next one goes on from there.
                tokio::select! {
                    () = runs => {}
                    _ = stopped.wait_for(|stop| *stop) => {}
                }
            });
        };
        let thread = std::thread::Builder::new()
            .name("archiver".to_owned())
            .spawn(work)
            .context("cannot start the archiver's thread")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Schedule {
    /// Stops it and waits until it has: it uses the store, which is closed next.
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the archiver panicked");
        }
    }
}

/// One round over all tenants, then over what has expired.
async fn run(archiver: &Archiver) {
    let store = archiver.ledger().store();
    let tenants = match store.tenants().await {
        Ok(tenants) => tenants,
        Err(error) => {
            tracing::error!(%error, "the archiver cannot read the tenants");
            return;
        }
    };
    for tenant in tenants {
        if let Err(error) = archiver.run(&tenant.tenant, Close::WhenDue, Micros::MAX).await {
            tracing::error!(tenant = %tenant.tenant, %error, "archiving failed; it is tried again");
        }
    }
    loop {
        match store.expire(SystemClock.now(), EXPIRED_AT_ONCE).await {
            Ok(deleted) if deleted >= EXPIRED_AT_ONCE => {}
            Ok(_) => return,
            Err(error) => {
                tracing::error!(%error, "expired segments could not be deleted; it is tried again");
                return;
            }
        }
    }
}
