//! Ids of members: new for each, as Kafka's.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// Makes an id that no other member has: what it begins with, and a random UUID.
pub(crate) fn new(front: &str) -> String {
    let random = || RandomState::new().hash_one(0);
    let (high, low) = (random() & !0xf000 | 0x4000, random() & !(3 << 62) | 2 << 62);
    let front = if front.is_empty() { "ottla" } else { front };
    format!(
        "{front}-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_look_like_kafkas_and_differ() {
        let (one, other) = (super::new("c"), super::new("c"));
        assert_ne!(one, other);
        assert_eq!(one.len(), 2 + 36);
        assert_eq!(one.as_bytes()[16], b'4', "{one}");
        assert!(super::new("").starts_with("ottla-"));
    }
}
