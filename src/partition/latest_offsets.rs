//! Key → the offset of its latest record, in a bounded piece of memory.
//!
//! Keys are known by 128 bits of a hash whose seed is chosen at random for each compaction: keys that collide cannot
//! be made up, and among a billion keys two collide by chance once in 10²⁰ compactions. An entry takes 24 bytes
//! however long its key is.

use std::hint::black_box;

use crate::partition::key_hash::KeyHash;
use crate::partition::key_hash::KeyHasher;

/// The latest offset of each key below [`end`](Self::end).
#[derive(Debug)]
pub(crate) struct LatestOffsets {
    hasher: KeyHasher,
    slots: Vec<Slot>,
    slots_max: usize,
    count: usize,
    end: i64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: KeyHash,
    /// −1 where there is no entry.
    offset: i64,
}

impl LatestOffsets {
    /// Makes an empty map that takes no more than `bytes_max` bytes, or what a few entries need.
    pub(crate) fn within(bytes_max: usize) -> LatestOffsets {
        let slots_max = (bytes_max / size_of::<Slot>()).max(SLOTS_MIN);
        LatestOffsets {
            hasher: KeyHasher::random(),
            slots: vec![EMPTY; SLOTS_MIN],
            slots_max,
            count: 0,
            end: 0,
        }
    }

    /// Gives what its keys are to be hashed with.
    pub(crate) fn hasher(&self) -> KeyHasher {
        self.hasher
    }

    /// Has the processor fetch the entries of some keys, all at once: most are not in its caches, and a look at one
    /// after the other would wait for each of them.
    pub(crate) fn fetch(&self, hashes: &[KeyHash]) {
        let sum = hashes.iter().fold(0, |sum, hash| sum ^ self.slots[self.home(*hash)].offset);
        black_box(sum);
    }

    /// Takes note of a record; records come in the order of their offsets. `false` if there is no room.
    #[inline]
    pub(crate) fn put(&mut self, hash: KeyHash, offset: i64) -> bool {
        let mut index = self.find(hash);
        if self.slots[index].offset < 0 {
            if self.count >= full_at(self.slots.len()) {
                if !self.grow() {
                    return false;
                }
                index = self.find(hash);
            }
            self.count += 1;
        }
        self.slots[index] = Slot { hash, offset };
        true
    }

    /// Gives the offset of a key's latest record; `None` if no record of it was noted.
    #[inline]
    pub(crate) fn of(&self, hash: KeyHash) -> Option<i64> {
        let slot = self.slots[self.find(hash)];
        (slot.offset >= 0).then_some(slot.offset)
    }

    /// Nothing is known of records from here on.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    pub(crate) fn set_end(&mut self, end: i64) {
        self.end = end;
    }

    /// Gives where a hash is looked for first.
    #[inline]
    fn home(&self, hash: KeyHash) -> usize {
        ((u128::from(hash.0[0]) * self.slots.len() as u128) >> 64) as usize
    }

    /// Gives the slot of a hash, or the empty one it would take; there is always an empty one.
    #[inline]
    fn find(&self, hash: KeyHash) -> usize {
        let mut index = self.home(hash);
        loop {
            let slot = &self.slots[index];
            if slot.offset < 0 || slot.hash == hash {
                return index;
            }
            index = if index + 1 == self.slots.len() { 0 } else { index + 1 };
        }
    }

    /// Makes room; both tables count while one is copied to the other.
    fn grow(&mut self) -> bool {
        let room = self.slots_max.saturating_sub(self.slots.len());
        let len = room.min(2 * self.slots.len());
        if len <= self.slots.len() {
            return false;
        }
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; len]);
        for slot in old.into_iter().filter(|slot| slot.offset >= 0) {
            let index = self.find(slot.hash);
            self.slots[index] = slot;
        }
        true
    }
}

/// Beyond three quarters a search gets long.
fn full_at(slots: usize) -> usize {
    slots / 4 * 3
}

const SLOTS_MIN: usize = 16;
const EMPTY: Slot = Slot { hash: KeyHash([0; 2]), offset: -1 };

#[cfg(test)]
mod tests {
    use super::*;

    impl LatestOffsets {
        fn put_key(&mut self, key: &[u8], offset: i64) -> bool {
            self.put(self.hasher.hash(key), offset)
        }

        fn of_key(&self, key: &[u8]) -> Option<i64> {
            self.of(self.hasher.hash(key))
        }
    }

    #[test]
    fn it_answers_like_a_map_of_keys() {
        let mut latest = LatestOffsets::within(1 << 20);
        let mut model = std::collections::HashMap::new();
        for offset in 0..20_000_i64 {
            let key = format!("key {}", offset * 7919 % 5000);
            assert!(latest.put_key(key.as_bytes(), offset));
            model.insert(key, offset);
        }
        for (key, offset) in &model {
            assert_eq!(latest.of_key(key.as_bytes()), Some(*offset));
        }
        assert_eq!(latest.of_key(b"key 5000"), None);
    }

    #[test]
    fn it_stays_within_its_memory_and_says_when_it_is_full() {
        for bytes_max in [0, 1000, 100_000, 1_000_000] {
            let mut latest = LatestOffsets::within(bytes_max);
            let count = (0..).find(|n: &i64| !latest.put_key(&n.to_be_bytes(), *n)).unwrap();
            assert!(latest.slots.len() * 24 <= bytes_max.max(16 * 24));
            // Half of the memory is used at the worst, were it not for the room in a table.
            assert!(count as usize >= full_at(bytes_max / 24 / 3), "{count} in {bytes_max}");
            // What is known can still be brought up to date.
            assert!(latest.put_key(&0_i64.to_be_bytes(), 1 << 40));
            assert_eq!(latest.of_key(&0_i64.to_be_bytes()), Some(1 << 40));
        }
    }
}
