//! Which records of a stretch of a log go, known by their offsets alone.
//!
//! While keys are collected, each record that turns out to be superseded is marked, and so is what has no key, and
//! every tombstone. A batch without marks then stays as it is and one full of them goes, and neither is looked into
//! again: not hashed, not looked up, not unpacked.

use crate::format::header::BatchHeader;

/// Two bits for each offset from a first one on, in a bounded piece of memory.
#[derive(Debug, Default)]
pub(crate) struct KnownFates {
    start: i64,
    /// How many offsets there is room for.
    offsets_max: u64,
    /// Superseded, or without a key. What lies behind the last word is not marked.
    goes: Vec<u64>,
    tombstones: Vec<u64>,
}

impl KnownFates {
    /// Makes one in which nothing is marked, that takes no more than `bytes_max` bytes.
    pub(crate) fn within(bytes_max: usize, start: i64) -> KnownFates {
        // Vectors double; while one does, it is there twice.
        let words_max = bytes_max / (2 * 3 * size_of::<u64>());
        KnownFates { start, offsets_max: words_max as u64 * 64, ..KnownFates::default() }
    }

    /// Notes that the record at an offset goes, if there is room for that.
    #[inline]
    pub(crate) fn note_gone(&mut self, offset: i64) {
        if let Some(index) = self.index(offset) {
            mark(&mut self.goes, index);
        }
    }

    /// Notes that the record at an offset has no value, if there is room for that.
    #[inline]
    pub(crate) fn note_tombstone(&mut self, offset: i64) {
        if let Some(index) = self.index(offset) {
            mark(&mut self.tombstones, index);
        }
    }

    /// Tells whether everything that was noted of a batch's records is known.
    #[inline]
    pub(crate) fn cover(&self, header: &BatchHeader) -> bool {
        self.cover_all(header.base_offset, header.last_offset())
    }

    /// As [`cover`](Self::cover), of all offsets from one to another.
    pub(crate) fn cover_all(&self, first: i64, last: i64) -> bool {
        self.index(first).is_some() && self.index(last).is_some()
    }

    /// Tells whether the record at an offset goes.
    #[inline]
    pub(crate) fn is_gone(&self, offset: i64) -> bool {
        let index = self.index(offset).unwrap_or(u64::MAX);
        let word = self.goes.get((index / 64) as usize);
        word.is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Counts the records that go, from an offset to another.
    pub(crate) fn gone_count(&self, first: i64, last: i64) -> u32 {
        self.count(&self.goes, first, last)
    }

    pub(crate) fn has_tombstones(&self, first: i64, last: i64) -> bool {
        self.count(&self.tombstones, first, last) > 0
    }

    #[inline]
    fn index(&self, offset: i64) -> Option<u64> {
        let index = u64::try_from(offset.checked_sub(self.start)?).ok()?;
        (index < self.offsets_max).then_some(index)
    }

    fn count(&self, words: &[u64], first: i64, last: i64) -> u32 {
        let (Some(first), Some(last)) = (self.index(first), self.index(last)) else {
            return 0;
        };
        let at = |index: u64| (index / 64) as usize;
        let upto = words.len().min(at(last) + 1);
        let mut count = 0;
        for (n, word) in words.iter().enumerate().take(upto).skip(at(first)) {
            let mut word = *word;
            if n == at(first) {
                word &= u64::MAX << (first % 64);
            }
            if n == at(last) {
                word &= u64::MAX >> (63 - last % 64);
            }
            count += word.count_ones();
        }
        count
    }
}

#[inline]
fn mark(words: &mut Vec<u64>, index: u64) {
    let at = (index / 64) as usize;
    if at >= words.len() {
        words.resize(at + 1, 0);
    }
    words[at] |= 1 << (index % 64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_stretch_is_counted_as_if_offsets_were_counted_one_by_one() {
        let mut known = KnownFates::within(1 << 10, 1000);
        let (mut gone, mut tombstones) = (BTreeSet::new(), BTreeSet::new());
        for n in 0..150_i64 {
            let offset = 1000 + n * n % 331;
            known.note_gone(offset);
            gone.insert(offset);
            if n % 11 == 0 {
                known.note_tombstone(offset);
                tombstones.insert(offset);
            }
        }
        for first in 1000..1400 {
            assert_eq!(known.is_gone(first), gone.contains(&first));
            for last in first..1400 {
                let count = gone.range(first..=last).count();
                assert_eq!(known.gone_count(first, last) as usize, count, "{first} to {last}");
                let has_tombstones = tombstones.range(first..=last).next().is_some();
                assert_eq!(known.has_tombstones(first, last), has_tombstones, "{first} to {last}");
            }
        }
    }

    #[test]
    fn what_there_is_no_room_for_is_not_covered() {
        let mut known = KnownFates::within(100, 50);
        let offsets: Vec<i64> = (0..1000).filter(|n| known.cover_all(*n, *n)).collect();
        assert_eq!(offsets, (50..178).collect::<Vec<_>>());
        assert!(!known.cover_all(49, 60) && !known.cover_all(60, 178));
        for offset in [i64::MIN, 49, 178, i64::MAX] {
            known.note_gone(offset);
            known.note_tombstone(offset);
            assert!(!known.is_gone(offset));
        }
        assert_eq!(known.goes.len() + known.tombstones.len(), 0);
        assert!(!KnownFates::within(0, 0).cover_all(0, 0));
    }
}
