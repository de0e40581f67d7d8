//! SHA-256 of many messages at once: in lanes of the processor's vectors, or several in flight through its SHA unit,
//! whichever it has (crate `tape-sha256`). One message alone is left to `sha2`.

use sha2::{Digest as _, Sha256};
pub(crate) use tape_sha256::Message;

/// Fewer messages than this are not worth a call of [`each`]. With the 16 lanes of AVX-512, messages of 480 bytes are
/// hashed 0.9, 1.8, 3.7 and 9.2 times as fast as one by one if there are 1, 2, 4 and 16 of them.
pub(crate) const FEW: usize = 2;

/// SHA-256 of each message, in their order.
pub(crate) fn each(messages: &[Message<'_>]) -> Vec<[u8; 32]> {
    if messages.len() < FEW {
        return messages.iter().map(one).collect();
    }
    let mut digests = vec![[0; 32]; messages.len()];
    let mut order: Vec<usize> = (0..messages.len()).collect();
    // Lanes run until the longest message ends: those of like length go together.
    order.sort_unstable_by_key(|place| blocks(&messages[*place]));
    let lanes = tape_sha256::lane_width();
    let mut group = Vec::with_capacity(lanes);
    let mut out = vec![[0; 32]; lanes];
    for places in order.chunks(lanes) {
        group.clear();
        group.extend(places.iter().map(|place| messages[*place]));
        let longest = group.iter().map(blocks).max().unwrap_or(0);
        let sum: usize = group.iter().map(blocks).sum();
        // Not so for one that is much longer than the others.
        if 4 * sum < 5 * longest {
            for place in places {
                digests[*place] = one(&messages[*place]);
            }
            continue;
        }
        let out = &mut out[..group.len()];
        tape_sha256::hash_messages(&group, out);
        for (place, digest) in places.iter().zip(out) {
            digests[*place] = *digest;
        }
    }
    digests
}

/// Blocks of 64 bytes, with the padding: a one bit, and the length in 8 bytes.
fn blocks(message: &Message<'_>) -> usize {
    (message.prefix.len() + message.body.len() + message.tail.len() + 9).div_ceil(64)
}

fn one(message: &Message<'_>) -> [u8; 32] {
    let sha = Sha256::new().chain_update(message.prefix);
    sha.chain_update(message.body).chain_update(message.tail).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// All lengths around the ends of blocks, few messages and many, one long among them.
        #[test]
        fn every_message_has_the_hash_that_it_has_alone(
            lengths in proptest::collection::vec((0usize..140, 0usize..300, 0usize..140), 0..70),
            long in proptest::option::of(1000usize..100_000),
        ) {
            let bytes: Vec<u8> = (0..100_000u32).map(|n| (n * 31 + n / 251) as u8).collect();
            let messages = lengths.iter().map(|(prefix, body, tail)| Message {
                prefix: &bytes[..*prefix],
                body: &bytes[1..=*body],
                tail: &bytes[2..2 + *tail],
            });
            let messages: Vec<_> = messages.chain(long.map(|long| Message::new(&bytes[..long]))).collect();
            let alone: Vec<[u8; 32]> = messages.iter().map(one).collect();
            prop_assert_eq!(each(&messages), alone);
        }
    }
}
