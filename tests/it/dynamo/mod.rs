//! The DynamoDB store, on emulators.

mod calls;
mod conformance;
