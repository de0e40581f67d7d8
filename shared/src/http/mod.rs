//! HTTP: what every router shares. Handlers are in `functions/`.

mod body;
mod params;
mod problem;
mod routes;

pub use body::{Payload, read_body};
pub use params::Params;
pub use problem::{ApiError, json_response};
pub use routes::{Access, Route, Routes, finish};

use std::sync::Arc;

use crate::auth::Gate;
use crate::ledger::Ledger;
use crate::objects::ObjectStore;

/// What every handler is given.
pub struct App {
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// Who may do what.
    pub gate: Gate,
    /// If set, the first token is made only for who presents this (as the bearer): on AWS, the secret of the stack.
    pub bootstrap_secret: Option<String>,
    /// Where the logs are, if this server knows.
    pub objects: Option<Arc<dyn ObjectStore>>,
}

/// Shared by all requests.
pub type SharedApp = Arc<App>;

/// The version that `/v1/health` answers.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
