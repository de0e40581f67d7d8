//! The Quipu ledger: the event, its chain, the stores, the proofs. ARCHITECTURE.md is the map.

#[cfg(feature = "archive")]
pub mod archive;
pub mod auth;
#[cfg(feature = "aws")]
pub mod aws;
pub mod bundle;
pub mod chain;
pub mod clock;
pub mod codec;
pub mod config;
pub mod dialect;
pub mod erasure;
pub mod error;
pub mod event;
pub mod http;
pub mod ids;
pub mod json;
pub mod kinds;
pub mod ledger;
pub mod limits;
pub mod log;
pub mod note;
pub mod objects;
pub mod random;
pub mod segment;
mod sha256;
pub mod statement;
pub mod store;
pub mod summary;
pub mod time;
pub mod verify;
