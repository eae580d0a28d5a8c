//! Where the records of large batches lie, of those batches that a read of a single record came to.
//!
//! An index leads to a batch. Whether that is whole only its checksum tells, and where in it a record lies only a
//! walk from its beginning. In a small batch both are cheap. A read that comes to a large one leaves marks, a few
//! bytes for each KiB, so that the next one that comes to it need do neither again.
//!
//! **Invariant (marked).** A batch that is marked passed every check at exactly its position, through this opening
//! of its segment, or was appended by it; its bytes are frozen, so it would pass again. Marks are never changed.

use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::format::decode::RawRecords;

/// The marks of one opening of a segment.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// One place for each stretch of [`MARKED_LEN_MIN`] bytes, in which no two such batches can begin; made chunk by
    /// chunk, when there is something to put there.
    chunks: OnceLock<Box<[OnceLock<Chunk>]>>,
    /// What all of it takes, in bytes. Relaxed: it is told to those who ask, and orders nothing.
    memory_len: AtomicUsize,
}

type Chunk = Box<[OnceLock<Marked>]>;

/// A batch that was checked, and where some of its records begin.
#[derive(Debug)]
pub(crate) struct Marked {
    position: u64,
    /// How many records lie between two marks.
    every: usize,
    /// Where records number `every`, 2 × `every`, … begin: bytes behind the header.
    places: Box<[u32]>,
}

impl Marks {
    /// Gives the marks of the batch that begins at `position`, if it has any.
    #[inline]
    pub(crate) fn find(&self, position: u64) -> Option<&Marked> {
        let (chunk, place) = place_of(position);
        let marked = self.chunks.get()?.get(chunk)?.get()?.get(place)?.get()?;
        (marked.position == position).then_some(marked)
    }

    /// Marks a batch of a segment of up to `segment_len` bytes, which begins at `position` and of which every record
    /// was checked. Small batches get no marks.
    pub(crate) fn mark(&self, segment_len: usize, position: u64, records: RawRecords<'_>) {
        if records.bytes().len() < MARKED_LEN_MIN {
            return;
        }
        let (chunk, place) = place_of(position);
        let chunk_count = place_of(segment_len as u64).0 + 1;
        let chunks = self.chunks.get_or_init(|| self.counted(empty(chunk_count)));
        let Some(chunk) = chunks.get(chunk) else { return };
        let chunk = chunk.get_or_init(|| self.counted(empty(CHUNK_COUNT)));
        if let Some(place) = chunk.get(place) {
            place.get_or_init(|| {
                let marked = Marked::of(position, records);
                self.count(size_of_val(&*marked.places));
                marked
            });
        }
    }

    /// Gives the bytes of memory that the marks take.
    pub(crate) fn memory_len(&self) -> usize {
        self.memory_len.load(Ordering::Relaxed)
    }

    fn counted<T>(&self, made: Box<[T]>) -> Box<[T]> {
        self.count(size_of_val(&*made));
        made
    }

    fn count(&self, len: usize) {
        self.memory_len.fetch_add(len, Ordering::Relaxed);
    }
}

impl Marked {
    fn of(position: u64, mut records: RawRecords<'_>) -> Marked {
        let (count, len) = (records.left(), records.bytes().len());
        let every = (count * MARK_EVERY_LEN / len.max(1)).clamp(1, MARK_EVERY_MAX);
        let mut places = Vec::with_capacity(count / every);
        while records.left() > every {
            records.pass(every);
            places.push((len - records.bytes().len()) as u32);
        }
        Marked { position, every, places: places.into() }
    }

    /// Steps over the first `count` of all records of the batch.
    #[inline]
    pub(crate) fn pass<'b>(&self, records: RawRecords<'b>, count: usize) -> RawRecords<'b> {
        let before = (count / self.every).min(self.places.len());
        let mut records = match before.checked_sub(1).and_then(|mark| self.places.get(mark)) {
            Some(place) => {
                let left = records.left().saturating_sub(before * self.every);
                records.resumed(left, records.bytes().len().saturating_sub(*place as usize))
            }
            None => records,
        };
        records.pass(count - before * self.every);
        records
    }
}

fn empty<T>(count: usize) -> Box<[OnceLock<T>]> {
    (0..count).map(|_| OnceLock::new()).collect()
}

fn place_of(position: u64) -> (usize, usize) {
    let stretch = position as usize / MARKED_LEN_MIN;
    (stretch / CHUNK_COUNT, stretch % CHUNK_COUNT)
}

/// A smaller batch is checked and walked in less time than a microsecond.
const MARKED_LEN_MIN: usize = 8 << 10;
const CHUNK_COUNT: usize = 64;
/// How many bytes lie between two marks, about: as much as is walked in the time that memory takes to answer.
const MARK_EVERY_LEN: usize = 1 << 10;
/// Tiny records take more time than their bytes.
const MARK_EVERY_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TimestampType;
    use crate::format::encode::BatchBuilder;
    use crate::record::Record;

    fn batch_of(values: impl IntoIterator<Item = usize>) -> Vec<u8> {
        let mut builder = BatchBuilder::default();
        for len in values {
            builder.push(&Record::new(&vec![7; len]), 0).unwrap();
        }
        let mut batch = builder.seal(TimestampType::CreateTime);
        batch.stamp(1000, 0);
        batch.bytes().to_vec()
    }

    #[test]
    fn passing_by_marks_is_passing_one_by_one() {
        let alike = vec![100; 600];
        let unlike = (0..3000).map(|n| n * n % 97).collect();
        let tiny = vec![0; 5000];
        let large = vec![5000; 20];
        for values in [alike, unlike, tiny, large, vec![9000]] {
            let count = values.len();
            let bytes = batch_of(values);
            let (records, _) = RawRecords::split(&bytes).unwrap();
            let marks = Marks::default();
            marks.mark(1 << 20, 0, records);
            let marked = marks.find(0).unwrap();
            assert!(marked.places.len() * 4 < bytes.len() / 50, "{marked:?}");
            for index in 0..count {
                let mut walked = records;
                walked.pass(index);
                let mut passed = marked.pass(records, index);
                assert_eq!((passed.left(), passed.bytes()), (walked.left(), walked.bytes()));
                assert_eq!(passed.next().unwrap().offset, 1000 + index as i64);
            }
            assert_eq!(marked.pass(records, count).next(), None);
            assert_eq!(marked.pass(records, count + 7).next(), None);
        }
    }

    #[test]
    fn marks_are_of_one_position_only_and_small_batches_get_none() {
        let large = batch_of([100; 200]);
        let (large, _) = RawRecords::split(&large).unwrap();
        let small = batch_of([100; 20]);
        let (small, _) = RawRecords::split(&small).unwrap();
        let marks = Marks::default();
        assert_eq!(marks.memory_len(), 0);
        marks.mark(1 << 20, 100, small);
        assert!(marks.find(100).is_none());
        marks.mark(1 << 20, 100, large);
        for position in [0, 99, 101, 8192, 1 << 20, u64::from(u32::MAX)] {
            assert!(marks.find(position).is_none(), "{position}");
        }
        assert!(marks.find(100).is_some());
        // Where another was marked before, as after an index that lied, there is no second.
        marks.mark(1 << 20, 300, large);
        assert!(marks.find(300).is_none());
        // At the very end, and beyond, which cannot be.
        marks.mark(1 << 20, 1 << 20, large);
        assert!(marks.find(1 << 20).is_some());
        marks.mark(1 << 20, 1 << 40, large);
        assert!(marks.find(1 << 40).is_none());
        assert!(marks.memory_len() > 0 && marks.memory_len() < 10 << 10);
    }
}
