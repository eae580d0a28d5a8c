//! One record of a log, found by its offset.
//!
//! If its batch is compressed, all of the batch is unpacked, by the thread that reads and into a buffer of that thread's.
//! The batch that a thread unpacked last stays unpacked, for the next read of a record of it, unless it is a large one.
//!
//! **Invariant (unpacked here).** A batch that a thread keeps unpacked passed every check at exactly its position,
//! through the opening of its segment that it is kept for, or was appended by it; its bytes are frozen, so it would pass
//! again.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Weak;

use crate::error::Result;
use crate::format::compression::Unpacked;
use crate::format::compression::Unpacker;
use crate::format::decode;
use crate::format::decode::BatchFault;
use crate::format::decode::RawRecords;
use crate::format::header::Front;
use crate::partition::Partition;
use crate::partition::unpacking::Memory;
use crate::storage::point::Place;
use crate::storage::segment::OpenSegment;

/// The answer to a read of one record.
#[derive(Debug)]
pub(crate) enum Point {
    Found(Found),
    /// No record has the offset: not yet, not any more, or it is not for readers.
    Nothing,
    /// The offset is below the log's start.
    OutOfRange {
        start: i64,
        end: i64,
    },
}

/// A record, and what it lies in.
#[derive(Debug)]
pub(crate) struct Found {
    memory: Memory,
    /// Where its batch lies.
    batch: Range<usize>,
    /// Where it begins itself: bytes before the end of its batch.
    len_to_end: usize,
}

/// What a thread unpacks batches with of which it reads single records.
#[derive(Default)]
struct PointUnpacking {
    unpacker: Unpacker,
    last: Option<Last>,
}

/// The batch that was unpacked last.
struct Last {
    segment: Weak<OpenSegment>,
    position: u64,
    unpacked: Arc<Unpacked>,
}

impl Partition {
    /// Finds the record at `offset`, durable or not.
    ///
    /// # Errors
    ///
    /// * As [`OpenSegment::point`], and if the segment cannot be opened.
    /// * [`Error::Corrupt`](crate::Error::Corrupt), [`Error::UnsupportedCompression`](crate::Error::UnsupportedCompression)
    ///   if the batch cannot be unpacked.
    pub(crate) fn point(&self, offset: i64) -> Result<Point> {
        self.despite_compaction(|| self.point_at_once(offset))
    }

    fn point_at_once(&self, offset: i64) -> Result<Point> {
        let marks = self.watermarks();
        let out_of_range = || Point::OutOfRange { start: marks.log_start(), end: marks.log_end() };
        if offset < marks.log_start() {
            return Ok(out_of_range());
        }
        // Asked before the list of segments: what lies below this end lies in one of them.
        if offset >= marks.log_end() {
            return Ok(Point::Nothing);
        }
        let open = self.segments().open_holding(offset, &self.context);
        match open.and_then(|open| found_in(&open, offset)) {
            Ok(Some(found)) => Ok(Point::Found(found)),
            // The log's beginning was deleted meanwhile.
            _ if offset < marks.log_start() => Ok(out_of_range()),
            Ok(None) => Ok(Point::Nothing),
            Err(error) => Err(error),
        }
    }
}

impl Found {
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Gives the records of its batch from this one on.
    #[inline]
    pub(crate) fn records(&self) -> Option<RawRecords<'_>> {
        let (records, _) = RawRecords::split(self.memory.bytes(self.batch.clone())?)?;
        Some(records.resumed(1, self.len_to_end))
    }
}

#[inline]
fn found_in(open: &Arc<OpenSegment>, offset: i64) -> Result<Option<Found>> {
    let Some(point) = open.point(offset)? else {
        return Ok(None);
    };
    let position = point.batch_position;
    match point.place {
        Place::Plain { len_to_end } => {
            let batch = position as usize..point.view.end() as usize;
            Ok(Some(Found { memory: Memory::Mapped(point.view), batch, len_to_end }))
        }
        Place::Packed { is_known } => {
            let bytes = point.view.from(position);
            found_packed(open, position, bytes, is_known, offset).map_err(|fault| {
                let expected = Front::at(bytes).map_or(offset, Front::base_offset);
                open.fault_error(position, fault, expected)
            })
        }
    }
}

/// Finds a record in the compressed batch at the front of `bytes`, which begins at `position` and is whole; its records
/// were checked before if that is known.
#[inline(never)]
fn found_packed(
    open: &Arc<OpenSegment>,
    position: u64,
    bytes: &[u8],
    is_known: bool,
    offset: i64,
) -> Result<Option<Found>, BatchFault> {
    // A thread that is ending has no slot any more; it unpacks all the same.
    let mut unpacking = UNPACKING.try_with(Cell::take).ok().flatten().unwrap_or_default();
    let unpacked = unpacking.batch(open, position, bytes, is_known);
    UNPACKING.try_with(|slot| slot.set(Some(unpacking))).unwrap_or_default();
    let unpacked = unpacked?;
    let Some((mut records, _)) = RawRecords::split(unpacked.bytes()) else {
        return Ok(None);
    };
    let front = records.front();
    if front.is_dense() {
        records.pass((offset - front.base_offset()) as usize);
    } else {
        records.pass_below(offset);
    }
    let len_to_end = records.bytes().len();
    let is_it = records.next().is_some_and(|record| record.offset == offset);
    let batch = 0..unpacked.len();
    Ok(is_it.then(|| Found { memory: Memory::Unpacked(unpacked), batch, len_to_end }))
}

thread_local! {
    static UNPACKING: Cell<Option<Box<PointUnpacking>>> = const { Cell::new(None) };
}

impl PointUnpacking {
    /// Gives the batch unpacked and checked: the one that was unpacked last, or from `bytes`.
    fn batch(
        &mut self,
        open: &Arc<OpenSegment>,
        position: u64,
        bytes: &[u8],
        is_known: bool,
    ) -> Result<Arc<Unpacked>, BatchFault> {
        if let Some(last) = self.last.as_ref().filter(|last| last.is_of(open, position)) {
            return Ok(Arc::clone(&last.unpacked));
        }
        let mut unpacked = self.last.take().map(|last| last.unpacked).unwrap_or_default();
        // Somebody may hold records of it still.
        let buffer = match Arc::get_mut(&mut unpacked) {
            Some(buffer) => buffer,
            None => {
                unpacked = Arc::default();
                Arc::get_mut(&mut unpacked).expect("nobody else has had it yet")
            }
        };
        buffer.clear();
        let packed = decode::header_at(bytes).map_err(BatchFault::Header)?;
        self.unpacker.unpack(&packed, bytes, buffer)?;
        if !is_known {
            let header = decode::header_at(buffer.bytes()).map_err(BatchFault::Header)?;
            decode::check_structure(&header, buffer.bytes())?;
        }
        if unpacked.len() <= LAST_LEN_MAX {
            let (segment, unpacked) = (Arc::downgrade(open), Arc::clone(&unpacked));
            self.last = Some(Last { segment, position, unpacked });
        }
        Ok(unpacked)
    }
}

impl Last {
    fn is_of(&self, open: &Arc<OpenSegment>, position: u64) -> bool {
        // No other segment is opened at the address of one that somebody has a weak reference to.
        self.position == position && self.segment.as_ptr() == Arc::as_ptr(open)
    }
}

/// A thread does not keep more than this between two reads.
const LAST_LEN_MAX: usize = 1 << 20;

#[cfg(test)]
#[cfg(feature = "lz4")]
mod tests {
    use super::*;
    use crate::Compression;
    use crate::Record;
    use crate::Store;
    use crate::TopicConfig;

    /// Of as many batches as lengths, each of ten records of that length.
    fn packed(lens: &[usize]) -> (Store, Arc<Partition>) {
        let store = Store::temporary().unwrap();
        let topic = store.create_topic("t", TopicConfig::new()).unwrap();
        let partition = topic.partition(0).unwrap();
        let producer = store.producer_builder().compression(Compression::Lz4).unwrap().build();
        for len in lens {
            let value = "7".repeat(*len);
            let records = (0..10).map(|_| Record::new(value.as_str()));
            drop(producer.send_batch(&partition, records).unwrap());
        }
        (store, partition.open().unwrap())
    }

    /// Reads a record, and gives what its batch was unpacked into.
    fn read(partition: &Partition, offset: i64) -> Arc<Unpacked> {
        match partition.point(offset).unwrap() {
            Point::Found(Found { memory: Memory::Unpacked(unpacked), .. }) => unpacked,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_batch_is_unpacked_once_for_reads_that_follow_each_other() {
        let (_store, partition) = packed(&[100, 100]);
        let unpacked = read(&partition, 3);
        assert!(Arc::ptr_eq(&unpacked, &read(&partition, 7)));
        let other = read(&partition, 17);
        assert!(!Arc::ptr_eq(&unpacked, &other));
        // Not the batch at the same place of another log.
        let (_store, another) = packed(&[100, 100]);
        assert!(!Arc::ptr_eq(&other, &read(&another, 17)));
    }

    #[test]
    fn a_buffer_is_used_again_once_nobody_holds_records_of_it() {
        let (_store, partition) = packed(&[100, 100, 100]);
        let first = Arc::as_ptr(&read(&partition, 3));
        let second = read(&partition, 13);
        assert_eq!(Arc::as_ptr(&second), first);
        // It is held now.
        let third = read(&partition, 23);
        assert_ne!(Arc::as_ptr(&third), first);
        assert!(
            RawRecords::split(second.bytes()).unwrap().0.all(|r| r.value == Some(&[b'7'; 100]))
        );
    }

    #[test]
    fn a_thread_keeps_no_large_batch() {
        let (_store, partition) = packed(&[LAST_LEN_MAX / 10, 100]);
        let large = Arc::downgrade(&read(&partition, 3));
        assert!(large.upgrade().is_none());
        let small = Arc::downgrade(&read(&partition, 13));
        assert!(small.upgrade().is_some());
    }
}
