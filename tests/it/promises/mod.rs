//! The promises of the design, each by its number.

mod p1_durable;
mod p1_p3_faults;
mod p2_one_line;
mod p5_verdicts;
mod p7_as_sent;
