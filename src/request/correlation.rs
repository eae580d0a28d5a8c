//! What requests are called: sixteen bytes that say whose they are.
//!
//! ```text
//! bits     128        80  76         64  62        40             0
//!           +---------+---+----------+---+---------+--------------+
//!           | author  | 8 | author   | 2 | life    | number       |
//!           +---------+---+----------+---+---------+--------------+
//! ```
//!
//! That is the form of a UUID of version 8. The author is random, or made of the requester's identity; then the life
//! is another one each time it comes back. So a requester tells its own replies from others' without looking anything
//! up, and those to its earlier lives from those to this one.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// Who a request is from: 60 bits, and 22 bits that count lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Author {
    tag: u64,
    life: u32,
}

/// Whose a correlation id is, as an author sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Of this life: the number of the request.
    Ours(u64),
    /// Of another life of the same identity.
    OtherLife,
    Others,
}

pub(crate) const ID_LEN: usize = 16;

impl Author {
    /// Makes an author that nobody else is.
    pub(crate) fn random() -> Author {
        Author { tag: RandomState::new().hash_one(0) >> 4, life: 0 }
    }

    /// Makes the author that an identity stands for, in one of its lives.
    pub(crate) fn of_identity(identity: &str, life: u64) -> Author {
        // FNV-1a: it must be the same in every version of this library.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in identity.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Author { tag: (hash ^ hash << 4) >> 4, life: (life % LIFE_END) as u32 }
    }

    /// Gives the id of a request.
    pub(crate) fn id(self, number: u64) -> [u8; ID_LEN] {
        let front = (self.tag >> 12) << 16 | VERSION << 12 | self.tag & 0xfff;
        let back = VARIANT << 62 | u64::from(self.life) << NUMBER_BITS | (number % NUMBER_END);
        let mut id = [0; ID_LEN];
        id[..8].copy_from_slice(&front.to_be_bytes());
        id[8..].copy_from_slice(&back.to_be_bytes());
        id
    }

    /// Tells whose an id is.
    pub(crate) fn whose(self, id: &[u8]) -> Whose {
        let Some((front, back)) = halves(id) else { return Whose::Others };
        let is_uuid = front >> 12 & 0xf == VERSION && back >> 62 == VARIANT;
        let tag = (front >> 16) << 12 | front & 0xfff;
        if !is_uuid || tag != self.tag {
            return Whose::Others;
        }
        match (back >> NUMBER_BITS) % LIFE_END == u64::from(self.life) {
            true => Whose::Ours(back % NUMBER_END),
            false => Whose::OtherLife,
        }
    }
}

fn halves(id: &[u8]) -> Option<(u64, u64)> {
    let (front, back) = id.split_at_checked(8)?;
    Some((u64::from_be_bytes(front.try_into().ok()?), u64::from_be_bytes(back.try_into().ok()?)))
}

const VERSION: u64 = 8;
const VARIANT: u64 = 0b10;
const NUMBER_BITS: u32 = 40;
const NUMBER_END: u64 = 1 << NUMBER_BITS;
const LIFE_END: u64 = 1 << 22;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_knows_its_ids_and_those_of_its_other_lives_and_no_others() {
        let (first, second) = (Author::of_identity("desk", 1), Author::of_identity("desk", 2));
        let other = Author::of_identity("desk2", 1);
        for number in [0, 1, 77, NUMBER_END - 1] {
            let id = first.id(number);
            assert_eq!(first.whose(&id), Whose::Ours(number));
            assert_eq!(second.whose(&id), Whose::OtherLife);
            assert_eq!(other.whose(&id), Whose::Others);
            // A UUID's version and variant.
            assert_eq!((id[6] >> 4, id[8] >> 6), (8, 0b10));
        }
        assert_eq!(Author::of_identity("desk", 1), first, "the same in every run");
        assert_eq!(first.id(5)[..8], 0xfb45_8113_65b7_8e49_u64.to_be_bytes());
    }

    #[test]
    fn whatever_else_lies_in_the_header_is_others() {
        let author = Author::random();
        let id = author.id(3);
        for len in 0..ID_LEN {
            assert_eq!(author.whose(&id[..len]), Whose::Others, "{len}");
        }
        assert_eq!(author.whose(&[&id[..], &[0]].concat()), Whose::Others);
        for bit in 0..64 {
            let mut flipped = id;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(author.whose(&flipped), Whose::Others, "bit {bit}");
        }
        for bit in [64, 65] {
            let mut flipped = id;
            flipped[bit / 8] ^= 0x80 >> (bit % 8);
            assert_eq!(author.whose(&flipped), Whose::Others, "bit {bit}");
        }
        assert_ne!(Author::random(), author);
    }
}
