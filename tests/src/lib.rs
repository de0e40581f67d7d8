//! What the tests share: a ledger in this process behind its routers, and the real server as a child process.
//!
//! Everything here panics when it cannot go on: it is a test that fails.

mod process;
mod service;

pub use process::{Server, binary, python, repository};
pub use service::{Answer, Service, event, token_of};
