//! The Quipu ledger: the event, its chain, the stores, the proofs. ARCHITECTURE.md is the map.

pub mod chain;
pub mod clock;
pub mod codec;
pub mod event;
pub mod ids;
pub mod json;
pub mod kinds;
pub mod limits;
pub mod note;
pub mod random;
pub mod segment;
pub mod statement;
pub mod summary;
pub mod time;
