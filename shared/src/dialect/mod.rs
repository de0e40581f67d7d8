//! The public APIs that are spoken, one file each: how it names things, what it refuses.

pub mod agentlens;
pub mod intake;
pub mod native;
pub mod render;
