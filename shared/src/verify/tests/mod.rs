//! The tamper matrix and what holds of every verdict.

#[cfg(all(feature = "embedded", feature = "archive"))]
mod archived;
#[cfg(all(feature = "embedded", feature = "archive"))]
mod archives;
mod bundles;
#[cfg(feature = "embedded")]
mod directories;
#[cfg(feature = "embedded")]
mod exports;
#[cfg(feature = "embedded")]
mod fixture;
mod vectors;
