//! What the tests share: a ledger in this process behind its routers, and the real server as a child process.
//!
//! Everything here panics when it cannot go on: it is a test that fails.

pub mod archiving;
mod dynamo;
pub mod emulator;
pub mod fault_proxy;
mod process;
mod service;

pub use dynamo::{connection, fresh_store, store_at, store_with_clock};
pub use emulator::Emulator;
pub use fault_proxy::{FaultProxy, WireFault};
pub use process::{Server, binary, python, repository};
pub use service::{Answer, Backend, Service, event, ledger_on, token_of};
