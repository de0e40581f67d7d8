//! The tamper matrix and what holds of every verdict.

mod bundles;
mod vectors;
