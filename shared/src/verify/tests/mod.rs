//! The tamper matrix and what holds of every verdict.

#[cfg(feature = "embedded")]
mod archived;
#[cfg(feature = "embedded")]
mod archives;
mod bundles;
#[cfg(feature = "embedded")]
mod directories;
#[cfg(feature = "embedded")]
mod exports;
#[cfg(feature = "embedded")]
mod fixture;
mod vectors;
