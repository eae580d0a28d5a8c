//! 128 bits that stand for a key: SipHash-1-3 with 128 bits of output, under a key of its own for each compaction.
//!
//! The standard library has the function with 64 bits of output only, which is too little for keys by the billion, and
//! taking it twice costs twice as much.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// What a key is known by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyHash(pub(crate) [u64; 2]);

/// Hashes keys, each time it is made in another way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyHasher {
    seed: [u64; 2],
}

impl KeyHasher {
    pub(crate) fn random() -> KeyHasher {
        // Each hasher of the standard library's has a seed of its own, from the system's randomness.
        KeyHasher { seed: [RandomState::new().hash_one(0), RandomState::new().hash_one(1)] }
    }

    #[inline(always)]
    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash(sip_128::<1, 3>(self.seed, key))
    }
}

struct State([u64; 4]);

impl State {
    #[inline(always)]
    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.0;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.0 = [a, b, c, d];
    }

    #[inline(always)]
    fn take<const ROUNDS: usize>(&mut self, word: u64) {
        self.0[3] ^= word;
        for _ in 0..ROUNDS {
            self.round();
        }
        self.0[0] ^= word;
    }

    #[inline(always)]
    fn given<const ROUNDS: usize>(&mut self) -> u64 {
        for _ in 0..ROUNDS {
            self.round();
        }
        self.0.iter().fold(0, |sum, word| sum ^ word)
    }
}

#[inline(always)]
fn sip_128<const TAKING: usize, const GIVING: usize>(seed: [u64; 2], bytes: &[u8]) -> [u64; 2] {
    let [low, high] = seed;
    let mut state = State([
        low ^ 0x736f_6d65_7073_6575,
        high ^ 0x646f_7261_6e64_6f6d ^ 0xee,
        low ^ 0x6c79_6765_6e65_7261,
        high ^ 0x7465_6462_7974_6573,
    ]);
    let mut rest = bytes;
    while let Some((word, behind)) = rest.split_first_chunk() {
        state.take::<TAKING>(u64::from_le_bytes(*word));
        rest = behind;
    }
    state.take::<TAKING>(few(rest) | (bytes.len() as u64) << 56);
    state.0[2] ^= 0xee;
    let first = state.given::<GIVING>();
    state.0[1] ^= 0xdd;
    [first, state.given::<GIVING>()]
}

/// Gives fewer than eight bytes as a number, the first the lowest: read in pieces that overlap, which is many times as
/// fast as a copy of so many bytes as there are.
#[inline(always)]
fn few(bytes: &[u8]) -> u64 {
    let shifted = |value: u64, at: usize| value << (8 * at);
    if let (Some(front), Some(back)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let (front, back) = (u32::from_le_bytes(*front), u32::from_le_bytes(*back));
        return u64::from(front) | shifted(u64::from(back), bytes.len() - 4);
    }
    let Some(last) = bytes.len().checked_sub(1) else {
        return 0;
    };
    [0, bytes.len() / 2, last].iter().fold(0, |sum, at| sum | shifted(u64::from(bytes[*at]), *at))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of SipHash-2-4 with 128 bits, as its reference implementation and OpenSSL have it: the key counts up, and so does
    /// the input.
    #[test]
    fn it_is_the_function_that_its_authors_published() {
        let counting: Vec<u8> = (0..16).collect();
        let half = |at: usize| u64::from_le_bytes(counting[at..at + 8].try_into().unwrap());
        let hash = |len: usize| {
            let [low, high] = sip_128::<2, 4>([half(0), half(8)], &counting[..len]);
            [low.to_le_bytes(), high.to_le_bytes()].concat()
        };
        let expected = [
            (0, "a3817f04ba25a8e66df67214c7550293"),
            (1, "da87c1d86b99af44347659119b22fc45"),
            (2, "8177228da4a45dc7fca38bdef60affe4"),
            (8, "3b62a9ba6258f5610f83e264f31497b4"),
            (15, "5493e99933b0a8117e08ec0f97cfc3d9"),
            (16, "6ee2a4ca67b054bbfd3315bf85230577"),
        ];
        for (len, text) in expected {
            let found: String = hash(len).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, text, "{len} bytes");
        }
    }

    #[test]
    fn every_hasher_hashes_in_another_way_and_always_in_the_same() {
        let (one, other) = (KeyHasher::random(), KeyHasher::random());
        assert_ne!(one.hash(b"key"), other.hash(b"key"));
        assert_eq!(one.hash(b"key"), one.hash(b"key"));
        assert_ne!(one.hash(b"key"), one.hash(b"key\0"));
        assert_ne!(one.hash(b""), one.hash(b"\0"));
    }
}
