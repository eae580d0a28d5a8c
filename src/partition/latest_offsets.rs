//! Key → the offset of its latest record, in a bounded piece of memory.
//!
//! Keys are known by 96 bits of a hash whose seed is chosen at random for each compaction: keys that collide cannot
//! be made up, and among the six million keys that fit the default memory two collide by chance once in 10¹⁵
//! compactions. An entry takes 16 bytes however long its key is, so that four of them share a cache line.
//!
//! A large table lies in one stretch of memory that is as long as it may become, and grows where it lies: what was not
//! touched yet costs nothing, and to clear what is touched for the first time costs as much as to fill it.

use std::hint::black_box;

use crate::partition::key_hash::KeyHash;
use crate::partition::key_hash::KeyHasher;
use crate::partition::known_fates::KnownFates;
use crate::storage::large_pages::LargePages;

/// The latest offset of each key below [`end`](Self::end).
#[derive(Debug)]
pub(crate) struct LatestOffsets {
    hasher: KeyHasher,
    /// See [`entry`]; zeros where there is none, which is how fresh memory comes.
    slots: Slots,
    slots_max: usize,
    count: usize,
    /// The least offset that may be noted.
    start: i64,
    end: i64,
    known: KnownFates,
}

/// Entries at places counted from zero.
#[derive(Debug)]
struct Slots {
    /// There may be more of it than is in use; that is zeros.
    memory: LargePages,
    len: usize,
}

/// What is noted of a record: its key's hash, and its offset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Note([u64; 2]);

impl LatestOffsets {
    /// Makes an empty map that takes no more than `bytes_max` bytes, or what a few entries need, for records from
    /// `start` on.
    pub(crate) fn within(bytes_max: usize, start: i64) -> LatestOffsets {
        let known_max = bytes_max / KNOWN_PART;
        let slots_max = ((bytes_max - known_max) / ENTRY_LEN).max(SLOTS_MIN);
        LatestOffsets {
            hasher: KeyHasher::random(),
            slots: Slots::small(),
            slots_max,
            count: 0,
            start,
            end: start,
            known: KnownFates::within(known_max, start),
        }
    }

    /// Gives what its keys are to be hashed with.
    pub(crate) fn hasher(&self) -> KeyHasher {
        self.hasher
    }

    /// Has the processor fetch the entries of some keys, all at once: most are not in its caches, and a look at one
    /// after the other would wait for each of them.
    pub(crate) fn fetch(&self, hashes: impl Iterator<Item = KeyHash>) {
        let sum = hashes.fold(0, |sum, hash| sum ^ self.slots.at(self.home(hash.0[0]))[1]);
        black_box(sum);
    }

    /// Gives what is noted of a record; `None` if it lies too far behind the first one.
    #[inline]
    pub(crate) fn note(&self, key: &[u8], offset: i64) -> Option<Note> {
        self.entry(self.hasher.hash(key), offset).map(Note)
    }

    /// Takes note of some records; records come in the order of their offsets. Gives the offset of the first for which
    /// there is no room; nothing is known of those behind it.
    pub(crate) fn put(&mut self, notes: &[Note]) -> Option<i64> {
        self.fetch(notes.iter().map(|note| KeyHash(note.0)));
        let refused = notes.iter().find(|note| !self.put_one(note.0));
        refused.map(|note| self.offset_of(note.0))
    }

    #[inline]
    fn put_one(&mut self, entry: [u64; 2]) -> bool {
        let mut index = self.find(entry);
        let found = self.slots.at(index);
        if found == EMPTY {
            let len = self.slots.len();
            if self.count >= len / 2 && (self.grow() || self.count >= full_at(len)) {
                if self.slots.len() == len {
                    return false;
                }
                index = self.find(entry);
            }
            self.count += 1;
        } else {
            self.known.note_gone(self.offset_of(found));
        }
        self.slots.set(index, entry);
        true
    }

    /// Takes note of a record without a key.
    pub(crate) fn put_keyless(&mut self, offset: i64) {
        self.known.note_gone(offset);
    }

    /// Takes note, beside all else, that a record has no value.
    pub(crate) fn put_tombstone(&mut self, offset: i64) {
        self.known.note_tombstone(offset);
    }

    /// Gives the offset of a key's latest record; `None` if no record of it was noted.
    #[inline]
    pub(crate) fn of(&self, hash: KeyHash) -> Option<i64> {
        let slot = self.slots.at(self.find(self.entry(hash, self.start)?));
        (slot != EMPTY).then(|| self.offset_of(slot))
    }

    /// Gives what became known of the records that were noted.
    pub(crate) fn known(&self) -> &KnownFates {
        &self.known
    }

    /// Nothing is known of records from here on.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    pub(crate) fn set_end(&mut self, end: i64) {
        self.end = end;
    }

    /// Gives what stands for a record: one half of its key's hash, a quarter, and how far behind the start it lies,
    /// counted from one. `None` if that is too far.
    #[inline]
    fn entry(&self, hash: KeyHash, offset: i64) -> Option<[u64; 2]> {
        let distance = offset.checked_sub(self.start)?.checked_add(1)?;
        let distance = u32::try_from(distance).ok().filter(|distance| *distance > 0)?;
        Some([hash.0[0], hash.0[1] << 32 | u64::from(distance)])
    }

    #[inline]
    fn offset_of(&self, entry: [u64; 2]) -> i64 {
        self.start + i64::from(entry[1] as u32) - 1
    }

    /// Gives where a hash is looked for first: at the beginning of a cache line, since most that are not there are then
    /// in the same one.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        let lines = (self.slots.len() / LINE_SLOTS) as u128;
        ((u128::from(hash) * lines) >> 64) as usize * LINE_SLOTS
    }

    /// Gives the slot of an entry's key, or the empty one it would take; there is always an empty one.
    #[inline]
    fn find(&self, entry: [u64; 2]) -> usize {
        let mut index = self.home(entry[0]);
        loop {
            let slot = self.slots.at(index);
            let is_same = slot[0] == entry[0] && (slot[1] ^ entry[1]) >> 32 == 0;
            if is_same || slot == EMPTY {
                return index;
            }
            index = if index + 1 == self.slots.len() { 0 } else { index + 1 };
        }
    }

    /// Makes room.
    fn grow(&mut self) -> bool {
        let len = self.slots.len();
        let grown = self.slots.capacity().min(2 * len);
        // Less is not worth the work.
        if grown >= len + len / 8 {
            self.spread(grown);
            return true;
        }
        // Both tables count while one is copied to the other.
        let room = self.slots_max.saturating_sub(len);
        let grown = room.min(2 * len);
        let Some(slots) = (grown > len).then(|| Slots::empty(grown, room)).flatten() else {
            return false;
        };
        let old = std::mem::replace(&mut self.slots, slots);
        for slot in (0..old.len()).map(|index| old.at(index)).filter(|slot| *slot != EMPTY) {
            let index = self.find(slot);
            self.slots.set(index, slot);
        }
        true
    }

    /// Makes the table longer where it lies.
    ///
    /// Homes move up, in the order they had. So entries are taken from the top: most find a place above all that were
    /// not taken yet, and what is on the way there stays. The few others, near the beginning, are put back at the end.
    fn spread(&mut self, len: usize) {
        let len_before = std::mem::replace(&mut self.slots.len, len);
        let mut left = Vec::new();
        for index in (0..len_before).rev() {
            let slot = self.slots.at(index);
            if slot == EMPTY {
                continue;
            }
            self.slots.set(index, EMPTY);
            let home = self.home(slot[0]);
            let mut above = if home > index { home..len } else { 0..0 };
            match above.find(|index| self.slots.at(*index) == EMPTY) {
                Some(free) => self.slots.set(free, slot),
                None => left.push(slot),
            }
        }
        for slot in left {
            let index = self.find(slot);
            self.slots.set(index, slot);
        }
    }
}

impl Slots {
    /// Makes the first few.
    fn small() -> Slots {
        Slots::empty(SLOTS_MIN, SLOTS_MIN).expect("so few lie on the heap")
    }

    /// Makes empty ones, that may become up to `count_max` if the system has room; `None` if there is no memory for so
    /// many.
    fn empty(count: usize, count_max: usize) -> Option<Slots> {
        let mut capacity = if count * ENTRY_LEN < LARGE_LEN { count } else { count_max };
        loop {
            match LargePages::zeroed(capacity * ENTRY_LEN) {
                Some(memory) => return Some(Slots { memory, len: count }),
                None if capacity == count => return None,
                None => capacity = (capacity / 2).max(count),
            }
        }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.len
    }

    fn capacity(&self) -> usize {
        self.memory.len() / ENTRY_LEN
    }

    #[inline(always)]
    fn at(&self, index: usize) -> [u64; 2] {
        let bytes = &self.memory[index * ENTRY_LEN..][..ENTRY_LEN];
        let half = |at| u64::from_ne_bytes(*bytes[at..].first_chunk().expect("it has two"));
        [half(0), half(8)]
    }

    #[inline(always)]
    fn set(&mut self, index: usize, [hash, rest]: [u64; 2]) {
        let bytes = &mut self.memory[index * ENTRY_LEN..][..ENTRY_LEN];
        bytes[..8].copy_from_slice(&hash.to_ne_bytes());
        bytes[8..].copy_from_slice(&rest.to_ne_bytes());
    }
}

/// Beyond that a search gets long: for a key that is not there it is some fifteen slots, in four cache lines. Where there
/// is room for a larger table, one is taken as soon as every other slot is in use.
fn full_at(slots: usize) -> usize {
    slots / 16 * 13
}

const SLOTS_MIN: usize = 16;
/// Smaller tables are copied when they grow.
const LARGE_LEN: usize = 2 << 20;
/// How many of them share a cache line.
const LINE_SLOTS: usize = 4;
const ENTRY_LEN: usize = size_of::<[u64; 2]>();
const EMPTY: [u64; 2] = [0; 2];
/// Of the memory this part is for what is known of single offsets, so that it lasts for three times as many records
/// as there can be keys.
const KNOWN_PART: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    impl LatestOffsets {
        fn put_key(&mut self, key: &[u8], offset: i64) -> bool {
            let note = self.note(key, offset);
            note.is_some_and(|note| self.put(&[note]).is_none())
        }

        fn of_key(&self, key: &[u8]) -> Option<i64> {
            self.of(self.hasher.hash(key))
        }
    }

    #[test]
    fn it_answers_like_a_map_of_keys() {
        let mut latest = LatestOffsets::within(1 << 20, 0);
        let mut model = std::collections::HashMap::new();
        let mut superseded = std::collections::BTreeSet::new();
        for offset in 0..20_000_i64 {
            let key = format!("key {}", offset * 7919 % 5000);
            assert!(latest.put_key(key.as_bytes(), offset));
            superseded.extend(model.insert(key, offset));
        }
        for offset in 0..20_000 {
            assert_eq!(latest.known().is_gone(offset), superseded.contains(&offset), "{offset}");
        }
        for (key, offset) in &model {
            assert_eq!(latest.of_key(key.as_bytes()), Some(*offset));
        }
        assert_eq!(latest.of_key(b"key 5000"), None);
    }

    #[test]
    fn it_stays_within_its_memory_and_says_when_it_is_full() {
        for bytes_max in [0, 1000, 100_000, 1_000_000, 6_000_000] {
            let mut latest = LatestOffsets::within(bytes_max, 0);
            let count = (0..).find(|n: &i64| !latest.put_key(&n.to_be_bytes(), *n)).unwrap();
            assert!(latest.slots.capacity() * 16 <= bytes_max.max(16 * 16));
            // Half of the memory is used at the worst, were it not for the room in a table.
            assert!(count as usize >= full_at(bytes_max / 17 / 3), "{count} in {bytes_max}");
            // Of a large one all is in use, but for what the table had when it was copied for the last time, and for less
            // than an eighth that is not worth the work.
            let large = (bytes_max / 17).saturating_sub(LARGE_LEN / 16 / 2);
            assert!(
                bytes_max < 2 * LARGE_LEN || count as usize >= full_at(large / 9 * 8),
                "{count}"
            );
            // What is known can still be brought up to date.
            assert!(latest.put_key(&0_i64.to_be_bytes(), 1 << 30));
            assert_eq!(latest.of_key(&0_i64.to_be_bytes()), Some(1 << 30));
        }
    }

    /// Of tables of all fillings, made longer by a little and by much, some with entries that went round the end.
    #[test]
    fn no_key_is_lost_when_the_table_becomes_longer_where_it_lies() {
        let mut went_round = 0;
        for len in (16..400).step_by(7) {
            for (count, longer) in [(len - 1, 9), (len / 2, 16), (len * 13 / 16, 12), (3, 16)] {
                let mut latest = LatestOffsets::within(1 << 20, 0);
                latest.slots = Slots { memory: LargePages::zeroed(1 << 16).unwrap(), len };
                let keys: Vec<[u8; 8]> = (0..count as i64).map(i64::to_be_bytes).collect();
                for (key, offset) in keys.iter().zip(0..) {
                    let entry = latest.note(key, offset).unwrap().0;
                    let index = latest.find(entry);
                    went_round += usize::from(index < latest.home(entry[0]));
                    latest.slots.set(index, entry);
                }
                latest.spread(len * longer / 8);
                for (key, offset) in keys.iter().zip(0..) {
                    assert_eq!(latest.of_key(key), Some(offset), "{count} of {len}, {longer}");
                }
                let used = (0..latest.slots.capacity()).filter(|at| latest.slots.at(*at) != EMPTY);
                assert_eq!(used.count(), count);
            }
        }
        assert!(went_round > 100);
    }

    #[test]
    fn what_is_too_far_behind_the_first_record_has_no_room() {
        let mut latest = LatestOffsets::within(1 << 20, 1000);
        let last = 1000 + i64::from(u32::MAX) - 1;
        assert!(latest.put_key(b"near", 1000) && latest.put_key(b"far", last));
        assert!(!latest.put_key(b"beyond", last + 1) && !latest.put_key(b"beyond", 999));
        assert_eq!(latest.of_key(b"near"), Some(1000));
        assert_eq!(latest.of_key(b"far"), Some(last));
        assert_eq!(latest.of_key(b"beyond"), None);
    }
}
