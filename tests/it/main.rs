//! Tests that cross crates. A route's tests stand where its URL says; a promise's bear its number.

mod api;
mod authorization;
mod promises;
mod v1;
