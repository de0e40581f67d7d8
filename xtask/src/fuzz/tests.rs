//! The targets under a fixed sequence of mutations: no search, but on every run, and without libFuzzer.

/// The bodies of the targets, from the crate that links them with libFuzzer.
#[path = "../../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "there it is the public face of a library")]
mod bodies;

use super::{Target, seeds};
use crate::sample::Rng;

/// Mutated inputs for each target: seconds, in a debug build. A bundle costs several signatures.
const fn inputs(target: Target) -> usize {
    if matches!(target, Target::Bundle) { 2_000 } else { 20_000 }
}

/// Inputs grow by splices and tokens up to this, bytes.
const MUTANT_BYTES_MAX: usize = 8 * 1024;

fn body(target: Target) -> fn(&[u8]) -> bool {
    match target {
        Target::Request => bodies::request,
        Target::Segment => bodies::segment,
        Target::Bundle => bodies::bundle,
        Target::Note => bodies::note,
        Target::Log => bodies::log,
        Target::Time => bodies::time,
        Target::Json => bodies::json,
    }
}

/// One change, of the kinds that break parsers.
fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], tokens: &[&str], rng: &mut Rng) {
    let at = rng.index(input.len() + 1);
    let length = rng.octave(1, 64) as usize;
    let end = (at + length).min(input.len());
    let token = rng.pick(tokens).as_bytes();
    match rng.below(9) {
        0 if at < input.len() => input[at] ^= 1 << rng.below(8),
        1 if at < input.len() => {
            input[at] = rng.pick(&[0, 1, 0x7f, 0x80, 0xff, b'"', b'\\', b'\n', b'0', b'-'])
        }
        2 => input.truncate(at),
        3 => drop(input.drain(at..end)),
        4 => {
            let again = input[at..end].to_vec();
            drop(input.splice(at..at, again));
        }
        5 => drop(input.splice(at..at, token.iter().copied())),
        6 => drop(input.splice(at..end, token.iter().copied())),
        // The end of one input after the beginning of another.
        7 => {
            let other = &seeds[rng.index(seeds.len())];
            let from = rng.index(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        // One token for another, wherever it stands.
        _ => {
            let old = rng.pick(tokens).as_bytes();
            if let Some(found) = (0..input.len()).find(|from| input[*from..].starts_with(old)) {
                drop(input.splice(found..found + old.len(), token.iter().copied()));
            }
        }
    }
    input.truncate(MUTANT_BYTES_MAX);
}

fn drive(target: Target) {
    let (seeds, tokens) = (seeds::seeds(target).unwrap(), seeds::tokens(target));
    let run = body(target);
    let taken = seeds.iter().filter(|seed| run(seed)).count();
    assert!(taken * 2 > seeds.len(), "{taken} of {} seeds are taken", seeds.len());
    let small: Vec<_> = seeds.into_iter().filter(|seed| seed.len() <= MUTANT_BYTES_MAX).collect();
    let mut rng = Rng(0x5eed);
    let mut taken = 0;
    let inputs = inputs(target);
    for number in 0..inputs {
        let mut input = small[number % small.len()].clone();
        for _ in 0..rng.range(1, 4) {
            mutate(&mut input, &small, tokens, &mut rng);
        }
        match std::panic::catch_unwind(|| run(&input)) {
            Ok(was_taken) => taken += usize::from(was_taken),
            Err(_) => panic!("{target:?}, input {number}: {:?}", String::from_utf8_lossy(&input)),
        }
    }
    // Mutants that are all refused at the door try nothing.
    assert!(taken > inputs / 1000, "{taken} of {inputs} mutants are taken");
}

#[test]
fn mutated_requests() {
    drive(Target::Request);
}

#[test]
fn mutated_segments() {
    drive(Target::Segment);
}

#[test]
fn mutated_bundles() {
    drive(Target::Bundle);
}

#[test]
fn mutated_notes() {
    drive(Target::Note);
}

#[test]
fn mutated_logs() {
    drive(Target::Log);
}

#[test]
fn mutated_times() {
    drive(Target::Time);
}

#[test]
fn mutated_documents() {
    drive(Target::Json);
}
