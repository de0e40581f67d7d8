//! A gate before which a call waits: a process that sleeps for as long as a test wants.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// A gate, closed at first. Clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate {
    reached: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { reached: Arc::new(Semaphore::new(0)), open: Arc::new(Semaphore::new(0)) }
    }
}

impl Gate {
    /// Waits until somebody stands before it.
    pub async fn reached(&self) {
        if let Ok(permit) = self.reached.acquire().await {
            permit.forget();
        }
    }

    /// Opens it for good.
    pub fn open(&self) {
        self.open.close();
    }

    /// Stands before it until it opens.
    pub(crate) async fn pass(&self) {
        self.reached.add_permits(1);
        // Closed is open: nobody ever gets a permit.
        let _ = self.open.acquire().await;
    }
}
