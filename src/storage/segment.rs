//! One segment as readers see it.
//!
//! A segment is *cold* (a file that no longer grows, mapped while somebody reads it) or *live* (the
//! last one of its partition, appended to through its [`Tail`](crate::storage::map::Tail)). Readers see
//! no difference: both are an [`OpenSegment`] whose published end only grows.

use std::io;
use std::ops::Range;
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
use crate::format::decode;
use crate::format::header;
use crate::format::header::BatchHeader;
use crate::format::header::Front;
use crate::os_error;
use crate::storage::brought::Brought;
use crate::storage::disk::Access;
use crate::storage::file_name::OffsetFile;
use crate::storage::indexes::INDEX_LEN_MAX;
use crate::storage::indexes::Indexes;
use crate::storage::map::Mapping;
use crate::storage::map::View;
use crate::storage::marks::Marks;
use crate::storage::offset_index::IndexedBatch;
use crate::storage::offset_index::OffsetIndex;
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
    brought: Brought,
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
            brought: Brought::new(end),
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
            brought: Brought::new(end),
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

    /// Tells whether the indexes may not know of all that is there.
    pub(super) fn grows(&self) -> bool {
        self.grows
    }

    pub(super) fn index_interval_bytes(&self) -> u32 {
        self.context.index_interval_bytes
    }

    /// Offsets below may be missing.
    pub(super) fn gaps_below(&self) -> i64 {
        self.context.gaps.below()
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

    /// Has a range of a view of the segment in memory, before it is touched (invariant (brought first)).
    ///
    /// # Errors
    ///
    /// * [`Error::Io`] if the disk cannot read it, or the file was cut by somebody.
    #[inline]
    pub(crate) fn bring(&self, view: &View, range: Range<u64>) -> Result<()> {
        if self.brought.holds(&range) { Ok(()) } else { self.bring_missing(view, &range) }
    }

    /// As [`bring`](Self::bring), of the batch that begins at `position`, with the header of the one behind it.
    #[inline]
    pub(crate) fn bring_batch(&self, view: &View, position: u64) -> Result<()> {
        self.bring_header(view, position)?;
        let len = Front::at(view.from(position)).and_then(|front| front.len()).unwrap_or(0) as u64;
        let end = position.saturating_add(len).saturating_add(header::LEN as u64);
        // A length that cannot be true is not followed.
        if Brought::is_one_stretch(position, end) || end - header::LEN as u64 > view.end() {
            return Ok(());
        }
        self.bring(view, position..end)
    }

    /// As [`bring`](Self::bring), of a header.
    #[inline]
    pub(crate) fn bring_header(&self, view: &View, position: u64) -> Result<()> {
        self.bring(view, position..position.saturating_add(header::LEN as u64))
    }

    #[cold]
    fn bring_missing(&self, view: &View, range: &Range<u64>) -> Result<()> {
        for stretch in self.brought.missing(range) {
            self.context.disk.access_of_pages(&self.path)?;
            if view.bring(&stretch).is_err() {
                self.read_aside(&stretch)?;
                // It can be read now, or there is no telling from its name.
                view.bring(&stretch).map_err(|_| {
                    let cause = io::Error::other("its pages cannot be brought into memory");
                    Error::io("read", &self.path, cause)
                })?;
            }
            self.brought.note(&stretch);
        }
        Ok(())
    }

    /// Reads a stretch past the mapping, which tells how the disk fails.
    fn read_aside(&self, stretch: &Range<u64>) -> Result<()> {
        let file = match self.context.disk.open(&self.path, Access::Read) {
            Err(error) if error.is_not_found() => return Ok(()),
            file => file?,
        };
        // Another file may have the name by now; that of a live segment is its own.
        if self.inode != 0 && file.inode()? != self.inode {
            return Ok(());
        }
        let mut bytes = vec![0; (stretch.end - stretch.start) as usize];
        file.read_up_to(&mut bytes, stretch.start).map(drop)
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

    /// Gives the indexes as they would be continued: what a segment needs to become live.
    pub(crate) fn indexes_to_continue(&self, interval: u32) -> Result<Indexes> {
        let read = self.indexes()?.read().clone();
        let mut times = read.times;
        times.push_if_later(read.latest);
        Ok(Indexes::resume(interval, read.offsets, times, self.base_offset))
    }

    pub(super) fn indexes(&self) -> Result<&RwLock<Indexes>> {
        if let Some(indexes) = self.indexes.get() {
            return Ok(indexes);
        }
        let loaded = self.load_indexes()?;
        Ok(self.indexes.get_or_init(|| RwLock::new(loaded)))
    }

    /// Reads the index files. They are advice: whatever is missing, cannot be read or cannot be true is
    /// rebuilt, in memory, from the log.
    fn load_indexes(&self) -> Result<Indexes> {
        let disk = &self.context.disk;
        let end = self.end();
        let read = |kind: OffsetFile| match disk.read_small(&kind.beside(&self.path), INDEX_LEN_MAX)
        {
            Err(error) if error.is_not_found() || matches!(error, Error::Corrupt { .. }) => {
                Ok(None)
            }
            // The disk cannot read it. What may be better in a moment, as a lack of descriptors, is told.
            Err(Error::Io { source, .. }) if !os_error::is_passing(&source) => Ok(None),
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
            if self.indexes_are_plausible(&indexes)? {
                return Ok(indexes);
            }
        }
        self.rebuild_indexes()
    }

    /// Checks what a look-up will rely on: each indexed position is the start of the batch that ends at
    /// the indexed offset, and a segment with timestamps has one on record.
    fn indexes_are_plausible(&self, indexes: &Indexes) -> Result<bool> {
        let Some(view) = self.view() else {
            // Entries of an offset index beyond the segment's end were refused before.
            return Ok(indexes.latest.timestamp_ms < 0);
        };
        self.bring_header(&view, 0)?;
        let first = decode::header_at(view.from(0)).ok();
        let has_times = first.is_some_and(|header| header.max_timestamp_ms >= 0);
        if has_times && indexes.latest.timestamp_ms < 0 {
            return Ok(false);
        }
        // Every entry would cost a page each; the last one shows a truncated or foreign index.
        let Some(batch) = indexes.offsets.last() else {
            return Ok(true);
        };
        self.bring_header(&view, batch.position)?;
        // Kafka notes the last offset of a whole append, which may hold several batches.
        Ok(decode::header_at(view.from(batch.position))
            .is_ok_and(|header| header.base_offset <= batch.last_offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TimestampType;
    use crate::format::encode::BatchBuilder;
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

    /// Appends a batch of so many records that are alike.
    fn append(tail: &mut Tail, offset: i64, count: usize, record: &Record<'_>, timestamp_ms: i64) {
        let mut builder = BatchBuilder::default();
        for _ in 0..count {
            builder.push(record, timestamp_ms).unwrap();
        }
        let mut batch = builder.seal(TimestampType::CreateTime);
        let front = batch.front(offset, 0);
        tail.append(front, batch.bytes_mut(), Door::Store).unwrap();
    }

    /// A cold segment from offset 100 of 200 single-record batches, timestamps 1000, 1010, …
    fn segment(directory: &Path) -> OpenSegment {
        let context = context(directory);
        let file = create_files(&context, 100).unwrap();
        let mut tail = Tail::open(file, 0, 1 << 20, None).unwrap();
        let mut indexes = Indexes::new(100, 300);
        for n in 0..200 {
            indexes.note(tail.end(), 100 + n, 1000 + 10 * n);
            append(&mut tail, 100 + n, 1, &Record::new(&[n as u8; 30]), 1000 + 10 * n);
        }
        tail.trim().unwrap();
        write_indexes(&context.disk, &context.log_path(100), &indexes).unwrap();
        OpenSegment::cold(context, 100, None).unwrap()
    }

    /// The files of a segment from offset 100 of batches of so many records with values so long.
    fn tail_of(context: &SegmentContext, batches: &[(usize, usize)]) -> Tail {
        let file = create_files(context, 100).unwrap();
        let mut tail = Tail::open(file, 0, 4 << 20, None).unwrap();
        let mut next = 100;
        for (count, len) in batches {
            append(&mut tail, next, *count, &Record::new(&vec![7; *len]), 1000);
            next += *count as i64;
        }
        tail
    }

    /// What the system tells of the mapping of a segment, in the line that begins with a word.
    #[cfg(target_os = "linux")]
    fn told_of_mapping(segment: &OpenSegment, word: &str) -> String {
        let begin = format!("{:x}-", segment.view().unwrap().from(0).as_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut of_it = maps.lines().skip_while(|line| !line.starts_with(&begin));
        of_it.find(|line| line.starts_with(word)).unwrap().to_owned()
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

    /// What a log was seen to hold is not there any more, or a segment is longer than positions can say.
    #[test]
    fn a_segment_that_is_shorter_than_it_must_be_or_longer_than_it_may_be_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = segment(directory.path()).path().to_path_buf();
        let len = std::fs::metadata(&path).unwrap().len();
        let cold = |end| OpenSegment::cold(context(directory.path()), 100, end);
        assert_eq!(cold(Some(len)).unwrap().end(), len);
        match cold(Some(len + 1)) {
            Err(Error::Corrupt { position, .. }) => assert_eq!(position, len),
            other => panic!("{other:?}"),
        }
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(1 << 31).unwrap();
        assert!(matches!(cold(None), Err(Error::Corrupt { .. })));
        file.set_len((1 << 31) - 1).unwrap();
        assert_eq!(cold(None).unwrap().end(), (1 << 31) - 1);
    }

    /// A time index without an entry, beside batches that have times, would make a segment pass for timeless.
    #[test]
    fn indexes_that_leave_out_the_times_or_lead_astray_at_the_end_are_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = segment(directory.path()).path().to_path_buf();
        let offsets = std::fs::read(OffsetFile::OffsetIndex.beside(&path)).unwrap();
        let open = || OpenSegment::cold(context(directory.path()), 100, None).unwrap();
        // As long as it is not asked, nothing is read.
        assert_eq!(open().index_len(), 0);
        let times = std::fs::read(OffsetFile::TimeIndex.beside(&path)).unwrap();
        std::fs::write(OffsetFile::TimeIndex.beside(&path), "").unwrap();
        assert_eq!(open().largest_timestamp_ms().unwrap(), 2990);
        std::fs::write(OffsetFile::TimeIndex.beside(&path), &times).unwrap();
        // The last entry says that a batch ends before it begins.
        let last = offsets.len() - 8;
        let before_last = i32::from_be_bytes(offsets[last - 8..last - 4].try_into().unwrap());
        let mut lie = offsets.clone();
        lie[last..last + 4].copy_from_slice(&(before_last + 1).to_be_bytes());
        std::fs::write(OffsetFile::OffsetIndex.beside(&path), &lie).unwrap();
        let segment = open();
        let indexes = segment.indexes().unwrap().read();
        assert_eq!(indexes.offsets.to_bytes(), offsets);
        assert_eq!(segment.index_len(), offsets.len() + indexes.times.to_bytes().len());
    }

    #[test]
    fn what_was_brought_into_memory_is_not_brought_again() {
        let directory = tempfile::tempdir().unwrap();
        segment(directory.path());
        let disk = Disk::failing_once(u64::MAX, 0);
        let context = SegmentContext { disk: disk.clone(), ..context(directory.path()) };
        let segment = OpenSegment::cold(context, 100, None).unwrap();
        let brought = || {
            let trace = disk.script().access_trace();
            trace.iter().filter(|access| access.starts_with("bring")).count()
        };
        assert_look_ups_agree_with_a_scan(&segment);
        // It is shorter than what is brought at a time.
        assert_eq!(brought(), 1);
    }

    /// The name of a segment stands for another file by now: what that one says of the disk is nothing about the one that
    /// is mapped. A segment that is appended to is the only one that has its name.
    #[test]
    fn a_disk_that_fails_is_heard_of_through_the_file_that_is_mapped_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = segment(directory.path()).path().to_path_buf();
        let failing = Disk::failing_once(u64::MAX, 0);
        let context = SegmentContext { disk: failing.clone(), ..context(directory.path()) };
        let cold = OpenSegment::cold(context.clone(), 100, None).unwrap();
        let read = |segment: &OpenSegment| {
            failing.script().arm_access_to("read 00000000000000000100.log", 1);
            segment.read_aside(&(0..100))
        };
        assert!(read(&cold).is_err());
        failing.script().arm_access_to("open 00000000000000000100.log", 1);
        assert!(cold.read_aside(&(0..100)).is_err());
        std::fs::rename(&path, directory.path().join("another")).unwrap();
        assert!(read(&cold).is_ok());
        std::fs::copy(directory.path().join("another"), &path).unwrap();
        assert!(read(&cold).is_ok());
        let file = context.disk.open(&path, Access::Write).unwrap();
        let end = file.len().unwrap();
        let tail = Tail::open(file, end, 1 << 20, None).unwrap();
        let mapping = Arc::clone(tail.mapping());
        let live = OpenSegment::live(context, 100, mapping, end, Indexes::new(100, 300));
        assert!(read(&live).is_err());
    }

    /// The process has no descriptor left for the moment, or the disk cannot read an index. The one is told, for it passes,
    /// and nothing is made of it; the other is made up for.
    #[test]
    fn an_index_that_cannot_be_opened_for_a_moment_is_not_taken_for_one_that_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        segment(directory.path());
        for (errno, is_told) in [(libc::EMFILE, true), (libc::EIO, false)] {
            let mut told = 0;
            for n in 1..=4 {
                let disk = Disk::failing_once(u64::MAX, 0);
                let context = SegmentContext { disk: disk.clone(), ..context(directory.path()) };
                let segment = OpenSegment::cold(context, 100, None).unwrap();
                disk.script().arm_access(n, errno);
                told += i32::from(segment.load().is_err());
                assert_look_ups_agree_with_a_scan(&segment);
            }
            assert_eq!(told > 0, is_told, "{errno}: {told}");
        }
    }

    /// What others go by: whether two openings show the same file, how much of it is mapped, and whether anybody reads it.
    #[test]
    fn a_segment_tells_what_it_shows_and_whether_anybody_still_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let segment = segment(directory.path()).of_edition(7);
        assert_eq!(segment.edition(), 7);
        let len = std::fs::metadata(segment.path()).unwrap().len();
        assert_eq!((segment.mapped_len() as u64, segment.end()), (len, len));
        let mapping = segment.mapping().unwrap();
        let view = segment.view();
        drop(segment);
        assert!(mapping.upgrade().is_some());
        drop(view);
        assert!(mapping.upgrade().is_none());
    }

    /// The next sync would take the right to write away from each of its pages by itself.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_segment_lets_go_of_the_pages_that_were_stored_to() {
        let directory = tempfile::tempdir().unwrap();
        let context = context(directory.path());
        let tail = tail_of(&context, &[(1, 30_000)]);
        let (mapping, end) = (Arc::clone(tail.mapping()), tail.end());
        let segment = OpenSegment::live(context, 100, mapping, end, Indexes::new(100, 300));
        let is_in_memory = || !told_of_mapping(&segment, "Rss:").contains(" 0 kB");
        assert!(is_in_memory());
        segment.unmap_pages();
        assert!(!is_in_memory());
        assert_eq!(segment.view().unwrap().from(0).len() as u64, end);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_segment_that_is_read_in_order_asks_for_large_pages() {
        if !Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let context = context(directory.path());
        drop(tail_of(&context, &[(1, 3 << 20)]));
        let segment = OpenSegment::cold(context, 100, None).unwrap();
        let asks = || told_of_mapping(&segment, "VmFlags:").contains(" hg");
        assert!(!asks());
        segment.read_in_order();
        assert!(asks());
    }

    #[test]
    fn what_a_read_of_one_record_has_learnt_of_a_large_batch_stays_for_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let context = context(directory.path());
        drop(tail_of(&context, &[(1000, 100)]));
        let segment = OpenSegment::cold(context, 100, None).unwrap();
        segment.load().unwrap();
        let before = segment.index_len();
        assert!(segment.marks().find(0).is_none());
        assert!(segment.point(700).unwrap().is_some());
        assert!(segment.marks().find(0).is_some());
        // Marks are memory.
        assert!(segment.index_len() > before, "{before}");
    }

    /// Of those that nobody holds, one that was read is let go later than one that was not.
    #[test]
    fn whether_a_segment_was_read_is_told_once_for_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let segment = segment(directory.path());
        assert!(segment.take_was_read() && !segment.take_was_read());
        segment.was_read();
        segment.was_read();
        assert!(segment.take_was_read() && !segment.take_was_read());
    }

    #[test]
    fn an_index_that_is_longer_than_any_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = segment(directory.path()).path().to_path_buf();
        for kind in [OffsetFile::OffsetIndex, OffsetFile::TimeIndex] {
            let index = std::fs::File::options().write(true).open(kind.beside(&path)).unwrap();
            index.set_len(INDEX_LEN_MAX as u64 + 12).unwrap();
            let segment = OpenSegment::cold(context(directory.path()), 100, None).unwrap();
            assert_look_ups_agree_with_a_scan(&segment);
        }
    }

    /// The rest of a segment is read from the disk for whoever believes any length.
    #[test]
    fn a_batch_is_brought_whole_and_for_one_that_claims_too_much_only_its_header() {
        let directory = tempfile::tempdir().unwrap();
        let path = context(directory.path()).log_path(100);
        tail_of(&context(directory.path()), &[(1, 30), (1, 600_000)]).trim().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let whole = OpenSegment::cold(context(directory.path()), 100, None).unwrap();
        let second = whole.locate(101).unwrap().unwrap().position;
        let brought_for = |claimed: Option<u64>, position: u64| {
            let mut bytes = bytes.clone();
            if let Some(len) = claimed {
                bytes[8..12].copy_from_slice(&(len as u32 - 12).to_be_bytes());
            }
            std::fs::write(&path, bytes).unwrap();
            let disk = Disk::failing_once(u64::MAX, 0);
            let context = SegmentContext { disk: disk.clone(), ..context(directory.path()) };
            let segment = OpenSegment::cold(context, 100, None).unwrap();
            segment.bring_batch(&segment.view().unwrap(), position).unwrap();
            let trace = disk.script().access_trace();
            trace.iter().filter(|access| access.starts_with("bring")).count()
        };
        let end = bytes.len() as u64;
        assert_eq!((brought_for(None, 0), brought_for(None, second)), (1, 5));
        assert_eq!(brought_for(Some(end), 0), 5);
        assert_eq!(brought_for(Some(end + 1), 0), 1);
        assert_eq!(brought_for(Some(1 << 31), 0), 1);
    }

    #[test]
    fn an_empty_segment_has_nothing_to_map_read_or_let_go_of() {
        let directory = tempfile::tempdir().unwrap();
        create_files(&context(directory.path()), 100).unwrap();
        let segment = OpenSegment::cold(context(directory.path()), 100, None).unwrap();
        segment.unmap_pages();
        segment.read_in_order();
        assert!(segment.view().is_none() && segment.mapping().is_none());
        assert_eq!((segment.mapped_len(), segment.largest_timestamp_ms().unwrap()), (0, -1));
        // An index that speaks of a segment without batches is somebody else's.
        let path = segment.path().to_path_buf();
        let entries: [(OffsetFile, &[u8]); 3] = [
            (OffsetFile::OffsetIndex, &[0; 8]),
            (OffsetFile::TimeIndex, &[0; 12]),
            (OffsetFile::TimeIndex, &[0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0]),
        ];
        for (kind, entry) in entries {
            std::fs::write(kind.beside(&path), entry).unwrap();
            let segment = OpenSegment::cold(context(directory.path()), 100, None).unwrap();
            assert_eq!(segment.indexes().unwrap().read().offsets.len(), 0);
            assert_eq!(segment.largest_timestamp_ms().unwrap(), -1);
            std::fs::write(kind.beside(&path), []).unwrap();
        }
    }
}
