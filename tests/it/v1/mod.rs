//! The native API.

mod auth;
mod erasures;
mod events;
mod sessions;
