//! The tree, its tiles and its proofs, against published vectors and two other implementations.

mod double;
mod header;
mod proofs;
mod reference;
mod rotation;
mod tiles;
mod vectors;
