//! The tamper matrix and what holds of every verdict.

mod bundles;
#[cfg(feature = "embedded")]
mod directories;
#[cfg(feature = "embedded")]
mod exports;
#[cfg(feature = "embedded")]
mod fixture;
mod vectors;
