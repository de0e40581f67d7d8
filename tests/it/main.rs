//! Tests that cross crates. A route's tests stand where its URL says; a promise's bear its number.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod api;
mod archive_readers;
mod authorization;
mod aws_serve;
mod cli;
mod closed;
mod cold;
mod deploy;
mod dynamo;
mod emulator;
mod fault_proxy;
mod keys;
mod lambda;
mod localstack;
mod objects;
mod promises;
mod real_archive;
mod rebuild;
mod sql;
mod v1;
