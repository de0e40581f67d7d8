//! The DynamoDB store, on emulators.

mod archive;
mod calls;
mod conformance;
