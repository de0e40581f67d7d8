//! Who asks, and what they may do: tokens, scopes, loopback mode (DESIGN section 8).
//!
//! A token is `qp_` and 32 random bytes, shown once and stored as its SHA-256. Nothing here logs one.

mod gate;
mod scope;
mod token;

pub use gate::{AuthError, AuthMode, Gate, Principal};
pub use scope::{Scope, Scopes};
pub use token::{Secret, TokenRecord};
