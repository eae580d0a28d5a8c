//! One segment: read at an offset, look up a time.
//!
//! A segment is *cold* (a file that no longer grows, mapped while somebody reads it) or *live* (the
//! last one of its partition, appended to through its [`Tail`](crate::storage::map::Tail)). Readers see
//! no difference: both are an [`OpenSegment`] whose published end only grows.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;

use crate::error::Error;
use crate::error::Result;
use crate::format::compression::Unpacked;
use crate::format::compression::Unpacker;
use crate::format::decode;
use crate::format::decode::BatchFault;
use crate::format::header::BatchHeader;
use crate::storage::disk::Access;
use crate::storage::file_name::OffsetFile;
use crate::storage::indexes::INDEX_LEN_MAX;
use crate::storage::indexes::Indexes;
use crate::storage::map::Mapping;
use crate::storage::map::View;
use crate::storage::marks::Marks;
use crate::storage::offset_index::IndexedBatch;
use crate::storage::offset_index::OffsetIndex;
use crate::storage::scan::Continuity;
use crate::storage::segment_files::SegmentContext;
use crate::storage::segment_files::end_of_batches;
use crate::storage::time_index::TimeEntry;
use crate::storage::time_index::TimeIndex;
use crate::storage::verified::Verified;

/// A segment as readers see it.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    context: SegmentContext,
    base_offset: i64,
    /// Two openings of the same base offset and edition show the same file.
    edition: u64,
    inode: u64,
    path: PathBuf,
    /// `None` for an empty file: nothing can be mapped of it.
    mapping: Option<Arc<Mapping>>,
    /// Stored with Release by the one who appends, after the bytes; loaded with Acquire by readers.
    end: AtomicU64,
    /// Batches are appended, here or by another process, that the indexes do not know of.
    grows: bool,
    /// Filled by whoever needs them first; of a live segment, from the start.
    indexes: OnceLock<RwLock<Indexes>>,
    verified: Verified,
    marks: Marks,
    /// Set by the first who reads from the beginning. Relaxed: it is advice.
    is_read_in_order: AtomicBool,
    /// Set by readers, taken by whoever looks for a segment to let go. Relaxed: it is advice.
    was_read: AtomicBool,
}

/// Where a batch starts, and its header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Located {
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
    /// Found through an index, or behind damage: not by walking from the segment's beginning.
    pub(crate) is_led: bool,
}

impl OpenSegment {
    /// Opens a segment that no longer grows, or of which no more than `end` bytes are to be seen. The
    /// file is closed again, its mapping stays.
    pub(crate) fn cold(
        context: SegmentContext,
        base_offset: i64,
        end: Option<u64>,
    ) -> Result<OpenSegment> {
        let path = context.log_path(base_offset);
        let file = context.disk.open(&path, Access::Read)?;
        let grows = end.is_some();
        let end = match end {
            Some(end) => Some(end),
            // Another process has yet to give back the space behind the last batch.
            None if context.lock.is_none() && context.is_unsealed(base_offset)? => {
                Some(end_of_batches(&context, &file, base_offset)?)
            }
            None => None,
        };
        // Asked last: what is sealed was trimmed before.
        let len = file.len()?;
        let end = end.unwrap_or(len);
        if end > len || end > i64::from(i32::MAX) as u64 {
            let reason = "the segment has not the length it must have";
            return Err(Error::Corrupt { path, position: len.min(end), reason, resume: None });
        }
        let mapping = match usize::try_from(len).unwrap_or(usize::MAX) {
            0 => None,
            len => Some(Arc::new(Mapping::read_only(&file, len, context.lock.clone())?)),
        };
        Ok(OpenSegment {
            context,
            base_offset,
            edition: 0,
            inode: file.inode()?,
            path,
            mapping,
            end: AtomicU64::new(end),
            grows,
            indexes: OnceLock::new(),
            verified: Verified::new(u64::MAX),
            marks: Marks::default(),
            is_read_in_order: AtomicBool::new(false),
            was_read: AtomicBool::new(true),
        })
    }

    /// Makes the readers' side of a segment that is being appended to.
    pub(crate) fn live(
        context: SegmentContext,
        base_offset: i64,
        mapping: Arc<Mapping>,
        end: u64,
        indexes: Indexes,
    ) -> OpenSegment {
        let path = context.log_path(base_offset);
        OpenSegment {
            context,
            base_offset,
            edition: 0,
            inode: 0,
            path,
            mapping: Some(mapping),
            end: AtomicU64::new(end),
            grows: true,
            indexes: OnceLock::from(RwLock::new(indexes)),
            verified: Verified::new(end),
            marks: Marks::default(),
            // What is appended is in memory.
            is_read_in_order: AtomicBool::new(true),
            was_read: AtomicBool::new(true),
        }
    }

    /// Names the edition of a segment that was just opened.
    pub(crate) fn of_edition(self, edition: u64) -> OpenSegment {
        OpenSegment { edition, ..self }
    }

    pub(crate) fn edition(&self) -> u64 {
        self.edition
    }

    /// Gives what tells the file of a cold segment from others that have its name one after the other.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// Gives the greatest timestamp of the records that the indexes know of; −1 if none carries one.
    pub(crate) fn largest_timestamp_ms(&self) -> Result<i64> {
        Ok(self.indexes()?.read().largest_timestamp_ms())
    }

    /// Loads what is otherwise loaded from the segment's files when it is needed.
    pub(crate) fn load(&self) -> Result<()> {
        self.indexes().map(drop)
    }

    /// Shows readers the bytes up to `end`.
    #[inline]
    pub(crate) fn publish(&self, end: u64) {
        // Release: pairs with the Acquire in `end`; the bytes are in place before.
        self.end.store(end, Ordering::Release);
    }

    pub(crate) fn base_offset(&self) -> i64 {
        self.base_offset
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    #[inline]
    pub(crate) fn end(&self) -> u64 {
        // Acquire: pairs with the Release in `publish`.
        self.end.load(Ordering::Acquire)
    }

    /// See [`Mapping::unmap_pages`].
    pub(crate) fn unmap_pages(&self) {
        if let Some(mapping) = &self.mapping {
            mapping.unmap_pages();
        }
    }

    /// Gives what tells whether anybody reads the segment; `None` where nothing can be read.
    pub(crate) fn mapping(&self) -> Option<Weak<Mapping>> {
        self.mapping.as_ref().map(Arc::downgrade)
    }

    pub(crate) fn mapped_len(&self) -> usize {
        self.mapping.as_ref().map_or(0, |mapping| mapping.len())
    }

    /// Gives everything published so far; `None` if that is nothing.
    #[inline]
    pub(crate) fn view(&self) -> Option<View> {
        self.mapping.as_ref().map(|mapping| mapping.view(self.end()))
    }

    pub(crate) fn verified(&self) -> &Verified {
        &self.verified
    }

    pub(crate) fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Notes that somebody reads from the segment's beginning, and so probably all of it.
    pub(crate) fn read_in_order(&self) {
        if !self.is_read_in_order.swap(true, Ordering::Relaxed) {
            if let Some(mapping) = &self.mapping {
                mapping.read_in_order();
            }
        }
    }

    /// Notes that somebody reads the segment: it is not the one to be let go.
    #[inline]
    pub(crate) fn was_read(&self) {
        // Readers of all threads come by: the line stays shared unless there is something to change.
        if !self.was_read.load(Ordering::Relaxed) {
            self.was_read.store(true, Ordering::Relaxed);
        }
    }

    /// Tells whether the segment was read since this was asked last.
    pub(crate) fn take_was_read(&self) -> bool {
        self.was_read.swap(false, Ordering::Relaxed)
    }

    /// Gives the bytes of memory that indexes and marks take.
    pub(crate) fn index_len(&self) -> usize {
        let indexes_len = self.indexes.get().map_or(0, |indexes| indexes.read().len_in_memory());
        indexes_len + self.marks.memory_len()
    }

    /// Gives the last indexed batch that ends at or below `offset`; `None` if the walk to it begins at the beginning.
    #[inline]
    pub(super) fn index_floor(&self, offset: i64) -> Result<Option<IndexedBatch>> {
        // The first offset is at the beginning: who reads on from the segment before needs no index.
        if offset <= self.base_offset {
            return Ok(None);
        }
        Ok(self.indexes()?.read().offsets.floor(offset))
    }

    /// Gives the indexes of a live segment to the one who appends.
    pub(crate) fn indexes_of_live(&self) -> &RwLock<Indexes> {
        self.indexes.get().expect("a live segment is made with its indexes")
    }

    /// Finds the first batch that ends at or behind `offset`; `None` if the segment ends before.
    ///
    /// One look-up in the index, then a short walk over headers. Damage on the way is stepped over if
    /// a whole batch at or below `offset` is found behind it.
    ///
    /// # Errors
    ///
    /// * [`Error::Corrupt`] if damage lies where the offset must be.
    pub(crate) fn locate(&self, offset: i64) -> Result<Option<Located>> {
        let Some(view) = self.view() else {
            return Ok(None);
        };
        let start = self.index_floor(offset)?;
        let mut walk = Walk::new(self, &view);
        if let Some(indexed) = start {
            walk.start_at_indexed(indexed);
        }
        while let Some(found) = walk.step(offset)? {
            // A header that claims an offset further on must be believed only if the batch is whole.
            let claims = found.header.last_offset() >= offset;
            if claims && found.header.base_offset < offset && !is_whole(&view, found) {
                walk.refuse(found, offset)?;
            } else if claims {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Finds the first record at or behind `offset_min` whose timestamp is at least `timestamp_ms`.
    pub(crate) fn find_timestamp(
        &self,
        timestamp_ms: i64,
        offset_min: i64,
    ) -> Result<Option<(i64, i64)>> {
        let Some(view) = self.view() else {
            return Ok(None);
        };
        let (latest, floor) = {
            let indexes = self.indexes()?.read();
            (indexes.latest, indexes.times.floor(timestamp_ms))
        };
        // An index is advice: what the answer rests on is checked against the log.
        let is_late = latest.timestamp_ms < timestamp_ms && !self.grows;
        if is_late && self.time_entry_holds(latest)? {
            return Ok(None);
        }
        let floor = match floor {
            Some(entry) if self.time_entry_holds(entry)? => entry.last_offset,
            _ => offset_min,
        };
        let start = self.indexes()?.read().offsets.floor(floor.max(offset_min));
        let mut walk = Walk::new(self, &view);
        if let Some(indexed) = start {
            walk.start_at_indexed(indexed);
        }
        let (mut unpacker, mut unpacked) = (Unpacker::default(), Unpacked::default());
        while let Some(found) = walk.step(offset_min)? {
            let header = found.header;
            let is_candidate = header.max_timestamp_ms >= timestamp_ms
                && header.last_offset() >= offset_min
                && !header.attributes.is_control();
            if !is_candidate {
                continue;
            }
            unpacked.clear();
            let bytes = view.from(found.position);
            let batch = unpacker
                .verify(bytes, &mut unpacked)
                .map_err(|fault| self.fault_error(found.position, fault, header.base_offset))?;
            let wanted = |r: &decode::RawRecord<'_>| {
                r.timestamp_ms >= timestamp_ms && r.offset >= offset_min
            };
            if let Some(record) = batch.records().find(wanted) {
                return Ok(Some((record.offset, record.timestamp_ms)));
            }
        }
        Ok(None)
    }

    /// Tells whether the batch that a time entry names has the timestamp it states.
    fn time_entry_holds(&self, entry: TimeEntry) -> Result<bool> {
        if entry.timestamp_ms < 0 {
            return Ok(true);
        }
        let named = self.locate(entry.last_offset)?;
        Ok(named.is_some_and(|batch| batch.header.max_timestamp_ms == entry.timestamp_ms))
    }

    /// Gives the indexes as they would be continued: what a segment needs to become live.
    pub(crate) fn indexes_to_continue(&self, interval: u32) -> Result<Indexes> {
        let read = self.indexes()?.read().clone();
        let mut times = read.times;
        times.push_if_later(read.latest);
        Ok(Indexes::resume(interval, read.offsets, times, self.base_offset))
    }

    fn indexes(&self) -> Result<&RwLock<Indexes>> {
        if let Some(indexes) = self.indexes.get() {
            return Ok(indexes);
        }
        let loaded = self.load_indexes()?;
        Ok(self.indexes.get_or_init(|| RwLock::new(loaded)))
    }

    /// Reads the index files. They are advice: whatever is missing or cannot be true is rebuilt, in
    /// memory, from the log.
    fn load_indexes(&self) -> Result<Indexes> {
        let disk = &self.context.disk;
        let end = self.end();
        let read = |kind: OffsetFile| match disk.read_small(&kind.beside(&self.path), INDEX_LEN_MAX)
        {
            Err(error) if error.is_not_found() || matches!(error, Error::Corrupt { .. }) => {
                Ok(None)
            }
            other => other.map(Some),
        };
        let offsets = read(OffsetFile::OffsetIndex)?
            .and_then(|bytes| OffsetIndex::parse(self.base_offset, &bytes, end).ok());
        let times = read(OffsetFile::TimeIndex)?
            .and_then(|bytes| TimeIndex::parse(self.base_offset, &bytes).ok());
        if let (Some(offsets), Some(times)) = (offsets, times) {
            let indexes = Indexes {
                interval: self.context.index_interval_bytes,
                latest: times
                    .last()
                    .unwrap_or(TimeEntry { timestamp_ms: -1, last_offset: self.base_offset }),
                offsets,
                times,
            };
            if self.indexes_are_plausible(&indexes) {
                return Ok(indexes);
            }
        }
        Ok(self.rebuild_indexes())
    }

    /// Checks what a look-up will rely on: each indexed position is the start of the batch that ends at
    /// the indexed offset, and a segment with timestamps has one on record.
    fn indexes_are_plausible(&self, indexes: &Indexes) -> bool {
        let Some(view) = self.view() else {
            return indexes.offsets.len() == 0;
        };
        let first = decode::header_at(view.from(0)).ok();
        let has_times = first.is_some_and(|header| header.max_timestamp_ms >= 0);
        if has_times && indexes.latest.timestamp_ms < 0 {
            return false;
        }
        let holds = |batch: IndexedBatch| {
            // Kafka notes the last offset of a whole append, which may hold several batches.
            decode::header_at(view.from(batch.position))
                .is_ok_and(|header| header.base_offset <= batch.last_offset)
        };
        // Every entry would cost a page each; the last one shows a truncated or foreign index.
        indexes.offsets.last().is_none_or(holds)
    }

    /// Gives the indexes as the log itself says they are.
    pub(crate) fn rebuild_indexes(&self) -> Indexes {
        let mut indexes = Indexes::new(self.base_offset, self.context.index_interval_bytes);
        let Some(view) = self.view() else {
            return indexes;
        };
        let mut walk = Walk::new(self, &view);
        let mut crossed_damage = false;
        loop {
            match walk.next() {
                Ok(Some(Located { position, header, .. })) if crossed_damage => {
                    indexes.note_behind_damage(position, &header);
                    crossed_damage = false;
                }
                Ok(Some(Located { position, header, .. })) => {
                    indexes.note(position, header.last_offset(), header.max_timestamp_ms);
                }
                Ok(None) => return indexes,
                Err(_) => {
                    let (_, found) = walk.resync();
                    let Some(found) = found else { return indexes };
                    walk.go_to(found);
                    crossed_damage = true;
                }
            }
        }
    }
}

/// A walk over the headers of a view, checking that offsets continue.
struct Walk<'s> {
    segment: &'s OpenSegment,
    view: &'s View,
    position: u64,
    continuity: Continuity,
    /// The batch stepped over last: where the walk goes astray, its header may be the liar.
    previous: Option<Located>,
    /// Set when the walk started from an index entry, which is advice.
    is_indexed: bool,
    /// Set when the walk did not come all the way from the beginning.
    is_led: bool,
}

impl<'s> Walk<'s> {
    fn new(segment: &'s OpenSegment, view: &'s View) -> Walk<'s> {
        let gaps_below = segment.context.gaps.below();
        let continuity = Continuity { expected: segment.base_offset, gaps_below };
        Walk {
            segment,
            view,
            position: 0,
            continuity,
            previous: None,
            is_indexed: false,
            is_led: false,
        }
    }

    /// Begins at an indexed batch if that fits its entry; else at the beginning.
    fn start_at_indexed(&mut self, indexed: IndexedBatch) {
        let Ok(header) = decode::header_at(self.view.from(indexed.position)) else { return };
        let fits = header.base_offset >= self.segment.base_offset
            && header.last_offset() <= indexed.last_offset;
        if fits {
            self.position = indexed.position;
            self.continuity.expected = header.base_offset;
            self.is_indexed = true;
            self.is_led = true;
        }
    }

    /// Steps over one batch and gives it; `None` at the end of the view.
    fn next(&mut self) -> Result<Option<Located>, BatchFault> {
        if self.position >= self.view.end() {
            return Ok(None);
        }
        let header =
            decode::header_at(self.view.from(self.position)).map_err(BatchFault::Header)?;
        self.continuity.check(&header)?;
        let is_led = self.is_led;
        let located = Located { position: self.position, header, is_led };
        self.go_behind(located);
        Ok(Some(located))
    }

    /// As [`next`](Self::next), but crosses damage as long as that can still lead to `offset`.
    fn step(&mut self, offset: i64) -> Result<Option<Located>> {
        match self.next() {
            Ok(found) => Ok(found),
            Err(_) if self.is_indexed => {
                // The index led here: walk from the beginning before calling it damage.
                *self = Walk::new(self.segment, self.view);
                self.step(offset)
            }
            Err(fault) => {
                let (damaged, found) = self.resync();
                self.cross(damaged, fault, found, offset)?;
                Ok(found)
            }
        }
    }

    /// Steps back over a batch that turned out not to be whole, and goes on behind the damage as long as
    /// that can still lead to `offset`.
    fn refuse(&mut self, damaged: Located, offset: i64) -> Result<()> {
        let expected = damaged.header.base_offset + 1;
        let found = self.segment.resync(self.view, damaged.position, expected);
        self.cross(damaged.position, BatchFault::Checksum, found, offset)?;
        if let Some(found) = found {
            self.go_to(found);
        }
        Ok(())
    }

    /// Finds where the walk can go on after a fault, and where the damage begins: at the position, or at
    /// the batch before if that one is not whole, for then its header led astray.
    fn resync(&self) -> (u64, Option<Located>) {
        let (from, offset_min) = match self.previous {
            Some(previous) if !is_whole(self.view, previous) => {
                (previous.position, previous.header.base_offset + 1)
            }
            _ => (self.position, self.continuity.expected),
        };
        (from, self.segment.resync(self.view, from, offset_min))
    }

    fn cross(
        &mut self,
        damaged: u64,
        fault: BatchFault,
        found: Option<Located>,
        offset: i64,
    ) -> Result<()> {
        match found {
            Some(found) if found.header.base_offset <= offset => {
                self.go_behind(found);
                self.is_led = true;
                Ok(())
            }
            found => Err(Error::Corrupt {
                path: self.segment.path.clone(),
                position: damaged,
                reason: fault.text(),
                resume: found.map(|found| found.header.base_offset),
            }),
        }
    }

    fn go_to(&mut self, found: Located) {
        self.position = found.position;
        self.continuity.expected = found.header.base_offset;
        self.previous = None;
        self.is_led = true;
    }

    fn go_behind(&mut self, found: Located) {
        self.position = found.position + found.header.len() as u64;
        self.continuity.advance(&found.header);
        self.previous = Some(found);
    }
}

pub(super) fn is_whole(view: &View, batch: Located) -> bool {
    decode::checksum_holds(&batch.header, view.from(batch.position))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TimestampType;
    use crate::format::encode::BatchBuilder;
    use crate::format::header;
    use crate::record::Record;
    use crate::storage::disk::Disk;
    use crate::storage::indexes::write_indexes;
    use crate::storage::map::Door;
    use crate::storage::map::Tail;
    use crate::storage::segment_files::create_files;

    fn context(directory: &Path) -> SegmentContext {
        SegmentContext {
            disk: Disk::default(),
            directory: directory.into(),
            lock: None,
            index_interval_bytes: 300,
            gaps: Default::default(),
        }
    }

    /// A cold segment from offset 100 of 200 single-record batches, timestamps 1000, 1010, …
    fn segment(directory: &Path) -> OpenSegment {
        let context = context(directory);
        let file = create_files(&context, 100).unwrap();
        let mut tail = Tail::open(file, 0, 1 << 20, None).unwrap();
        let mut indexes = Indexes::new(100, 300);
        let mut builder = BatchBuilder::default();
        for n in 0..200 {
            builder.clear();
            builder.push(&Record::new(&[n as u8; 30]), 1000 + 10 * n).unwrap();
            let mut batch = builder.seal(TimestampType::CreateTime);
            indexes.note(tail.end(), 100 + n, 1000 + 10 * n);
            let front = batch.front(100 + n, 0);
            tail.append(front, batch.bytes_mut(), Door::Store).unwrap();
        }
        tail.trim().unwrap();
        write_indexes(&context.disk, &context.log_path(100), &indexes).unwrap();
        OpenSegment::cold(context, 100, None).unwrap()
    }

    fn assert_look_ups_agree_with_a_scan(segment: &OpenSegment) {
        for offset in 100..300 {
            let found = segment.locate(offset).unwrap().unwrap();
            assert_eq!(found.header.base_offset, offset);
            let timestamp = 1000 + 10 * (offset - 100);
            let by_time = segment.find_timestamp(timestamp - 5, 100).unwrap();
            assert_eq!(by_time, Some((offset, timestamp)));
        }
        assert!(segment.locate(300).unwrap().is_none());
        assert_eq!(segment.find_timestamp(2991, 100).unwrap(), None);
        assert_eq!(segment.find_timestamp(0, 150).unwrap(), Some((150, 1500)));
    }

    #[test]
    fn look_ups_agree_with_a_scan() {
        let directory = tempfile::tempdir().unwrap();
        assert_look_ups_agree_with_a_scan(&segment(directory.path()));
    }

    #[test]
    fn damaged_or_missing_indexes_change_no_answer() {
        let directory = tempfile::tempdir().unwrap();
        let log = segment(directory.path()).path().to_path_buf();
        for kind in [OffsetFile::OffsetIndex, OffsetFile::TimeIndex] {
            let path = kind.beside(&log);
            let good = std::fs::read(&path).unwrap();
            assert!(good.len() > 100);
            let mut variants = vec![Vec::new(), vec![0; 4096], vec![0xff; 24]];
            variants.extend([1, 7, 8, 11, 12].map(|cut| good[..good.len() - cut].to_vec()));
            variants.extend((0..good.len()).step_by(5).map(|byte| {
                let mut bytes = good.clone();
                bytes[byte] ^= 1 << (byte % 8);
                bytes
            }));
            for bytes in variants {
                std::fs::write(&path, &bytes).unwrap();
                let segment = OpenSegment::cold(context(directory.path()), 100, None).unwrap();
                for offset in (100..300).step_by(7) {
                    let found = segment.locate(offset).unwrap().unwrap();
                    assert_eq!(found.header.base_offset, offset);
                }
            }
            std::fs::remove_file(&path).unwrap();
            let segment = OpenSegment::cold(context(directory.path()), 100, None).unwrap();
            assert_look_ups_agree_with_a_scan(&segment);
            std::fs::write(&path, &good).unwrap();
        }
    }

    #[test]
    fn damage_hides_only_its_own_records() {
        let directory = tempfile::tempdir().unwrap();
        let whole = segment(directory.path());
        let hurt = whole.locate(150).unwrap().unwrap();
        let path = whole.path().to_path_buf();
        drop(whole);
        let good = std::fs::read(&path).unwrap();
        for byte in 0..header::field::MAGIC.end {
            if header::field::LEADER_EPOCH.contains(&byte) {
                continue;
            }
            let mut bytes = good.clone();
            bytes[hurt.position as usize + byte] ^= 0x55;
            std::fs::write(&path, &bytes).unwrap();
            let segment = OpenSegment::cold(context(directory.path()), 100, None).unwrap();
            for offset in (100..300).filter(|offset| *offset != 150) {
                let found = segment.locate(offset).unwrap().unwrap();
                assert_eq!(found.header.base_offset, offset, "byte {byte}");
            }
            match segment.locate(150) {
                Err(Error::Corrupt { position, resume, .. }) => {
                    assert_eq!((position, resume), (hurt.position, Some(151)), "byte {byte}");
                }
                other => panic!("byte {byte}: {other:?}"),
            }
        }
    }
}
