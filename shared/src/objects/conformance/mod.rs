//! The suite that every [`ObjectStore`] must pass: plain functions, each of which checks the guarantees that its
//! documentation names and panics where one is broken. A backend's test is a list of calls.
//!
//! Every function works under a prefix of its own with a random name, so all may share one store, at once too. How
//! many race, and how much they write, is an argument where backends differ in speed.

mod lists;
mod races;
mod writes;

pub use lists::*;
pub use races::*;
pub use writes::*;

use bytes::Bytes;

use super::{Condition, Object, ObjectError, ObjectStore, Tag};
use crate::{ids, random};

/// A prefix that nobody else uses: `conformance-…/`.
fn fresh_prefix() -> String {
    format!("conformance-{}/", ids::hex(&random::bytes::<8>()))
}

/// What the suite expects to go well, did; or the test ends here.
#[track_caller]
fn ok<T>(result: Result<T, ObjectError>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}

#[track_caller]
fn conflict<T: std::fmt::Debug>(result: Result<T, ObjectError>, key: &str, what: &str) {
    match result {
        Err(ObjectError::Conflict { key: named }) => assert_eq!(named, key, "{what}: names another key"),
        other => panic!("{what}: expected a conflict, got {other:?}"),
    }
}

#[track_caller]
fn not_found<T: std::fmt::Debug>(result: Result<T, ObjectError>, key: &str, what: &str) {
    match result {
        Err(ObjectError::NotFound { key: named }) => assert_eq!(named, key, "{what}: names another key"),
        other => panic!("{what}: expected that it is not there, got {other:?}"),
    }
}

async fn create(store: &dyn ObjectStore, key: &str, bytes: impl Into<Bytes>) -> Tag {
    ok(store.put(key, bytes.into(), Condition::Absent).await, "put")
}

async fn read(store: &dyn ObjectStore, key: &str) -> Object {
    ok(store.get(key).await, "get")
}

/// Bytes without a pattern that two places could share; the same for the same seed.
fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // Knuth's MMIX generator; its high bits are good.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state >> 32).to_le_bytes()[..4]);
    }
    bytes.truncate(length);
    bytes.into()
}
