//! The promises of the design, each by its number.

mod marks;
mod p10_apart;
mod p1_durable;
mod p1_p3_faults;
mod p1_p3_wire;
mod p2_expiry;
mod p2_one_line;
mod p2_processes;
mod p4_archives;
mod p4_erasure;
mod p5_verdicts;
mod p7_as_sent;
mod p8_archive;
