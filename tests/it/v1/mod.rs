//! The native API.

mod auth;
mod events;
mod sessions;
