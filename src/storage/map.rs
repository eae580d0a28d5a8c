//! An append-only file, mapped: [`Tail`] grows it, [`View`] reads it.
//!
//! A tail has two doors into the same page cache: a store through the mapping, which costs no system
//! call, and `pwrite`, which is cheaper to synchronise and for large batches. A store is made only into
//! space that was reserved before, so that a full disk is an error here and never a signal. Where the
//! file system cannot promise that, every append takes the `pwrite` door.
//!
//! The space ahead of the end is a [`Runway`], written with zeros before an append gets there.
//!
//! **Invariant (frozen).** Bytes of a mapped file below a published end are never written again and
//! never truncated while a mapping of them exists in this process. Ends are published with a Release
//! store after the bytes are in place.
//!
//! **Invariant (backed).** A [`View`] ends at or below a published end, and a published end never
//! exceeds the length of the file. Bytes of a view are therefore always backed by the file.

#![allow(unsafe_code, reason = "slices over mapped memory")]

use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::atomic::fence;

use memmap2::MmapOptions;
use memmap2::MmapRaw;

use crate::error::Error;
use crate::error::Result;
use crate::format::header::FRONT_LEN;
use crate::format::header::LENGTH_EXCLUDES;
#[cfg(target_os = "linux")]
use crate::os_error;
use crate::storage::disk::DiskFile;
pub(crate) use crate::storage::door::AppendError;
pub(crate) use crate::storage::door::Door;
use crate::storage::front::CUT;
use crate::storage::front::LARGE_PAGE_LEN;
use crate::storage::front::PIECE_LEN;
use crate::storage::lock::DirectoryLock;
use crate::storage::runway::Runway;

/// Mapped memory of one file. It keeps the directory locked: another writer may cut the file.
///
/// Aligned away from the count of its holders, which readers change while an appender looks here.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Mapping {
    memory: MmapRaw,
    /// Something was stored since the pages were let go last. Relaxed on both sides: a stale look costs time.
    is_stored_to: AtomicBool,
    _lock: Option<Arc<DirectoryLock>>,
}

/// A stretch of a file's beginning that no longer changes.
#[derive(Clone, Debug)]
pub(crate) struct View {
    mapping: Arc<Mapping>,
    end: usize,
}

/// The end of a file that is being appended to.
#[derive(Debug)]
pub(crate) struct Tail {
    runway: Arc<Runway>,
    mapping: Arc<Mapping>,
    door: DoorsOpen,
    /// Bytes appended so far.
    end: u64,
    /// Space that is reserved, and the file's length; at least `end`.
    reserved: u64,
    capacity: u64,
    /// Space may be reserved up to here.
    granted: u64,
    /// How much the next reservation asks for.
    step: u64,
    /// The last reservation ahead of need failed.
    is_tight: bool,
    /// An append may go so far without asking the runway; never beyond `Front::ready`.
    ready: u64,
    /// So far the space was offered for warming.
    offered: u64,
}

/// Reserved space that an append will reach soon and that is not ready yet.
#[derive(Debug)]
pub(crate) struct ColdStretch {
    runway: Arc<Runway>,
    mapping: Arc<Mapping>,
    upto: u64,
}

/// Which doors a file system allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DoorsOpen {
    /// Space can be reserved: stores and writes.
    Both,
    /// Writes only, each of which may find the disk full.
    WriteOnly,
}

impl Mapping {
    /// Maps the first `len` bytes of a file for reading. Pages beyond the file's end may be mapped but
    /// not touched.
    pub(crate) fn read_only(
        file: &DiskFile,
        len: usize,
        lock: Option<Arc<DirectoryLock>>,
    ) -> Result<Mapping> {
        file.access_of_map()?;
        let memory = MmapOptions::new()
            .len(len)
            .map_raw_read_only(file.descriptor())
            .map_err(|e| Error::io("map", file.path(), e))?;
        Ok(Mapping { memory, is_stored_to: AtomicBool::new(false), _lock: lock })
    }

    fn writable(file: &DiskFile, len: usize, lock: Option<Arc<DirectoryLock>>) -> Result<Mapping> {
        file.access_of_map()?;
        let memory = MmapOptions::new()
            .len(len)
            .map_raw(file.descriptor())
            .map_err(|e| Error::io("map", file.path(), e))?;
        Ok(Mapping { memory, is_stored_to: AtomicBool::new(false), _lock: lock })
    }

    pub(crate) fn len(&self) -> usize {
        self.memory.len()
    }

    /// Makes the pages of a range present and writable without changing them. Where the file was cut
    /// meanwhile, or the system does not know how, nothing happens.
    fn populate(&self, range: &Range<u64>) {
        // Advice: an append that meets a page that is not there takes a fault, and nothing else.
        #[cfg(target_os = "linux")]
        self.advise(memmap2::Advice::PopulateWrite, range).unwrap_or_default();
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }

    #[cfg(target_os = "linux")]
    fn advise(&self, advice: memmap2::Advice, range: &Range<u64>) -> io::Result<()> {
        let within = |position| usize::try_from(position).unwrap_or(usize::MAX).min(self.len());
        let (start, end) = (within(range.start), within(range.end));
        self.memory.advise_range(advice, start, end - start)
    }

    /// Tells the system that the file will be read in order: what is not in memory is then read, and mapped, in
    /// stretches of 2 MiB, where the file system can. Otherwise nothing happens.
    pub(crate) fn read_in_order(&self) {
        #[cfg(target_os = "linux")]
        if self.len() as u64 >= LARGE_PAGE_LEN {
            // Advice: where it is not taken, pages come as they always do.
            self.memory.advise(memmap2::Advice::HugePage).unwrap_or_default();
        }
    }

    /// Lets go of the pages of this mapping, all at once; the next touch finds them in the page cache again.
    ///
    /// A sync takes the right to write away from every page that was stored to, and tells the other
    /// processors about each one by itself. That costs more than the sync, unless nothing is mapped.
    pub(crate) fn unmap_pages(&self) {
        #[cfg(target_os = "linux")]
        if self.is_stored_to.swap(false, Ordering::Relaxed) {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: what is let go of private memory is lost, but this mapping is shared with its file: its
            // bytes live in the page cache, dirty ones too, and every later touch reads them from there.
            let advised = unsafe { self.memory.unchecked_advise_range(advice, 0, self.len()) };
            // Advice: where it is not taken, the sync merely takes longer.
            advised.unwrap_or_default();
        }
    }

    /// Gives the mapping's bytes below `end`, which must be published (invariant (backed)).
    pub(crate) fn view(self: &Arc<Self>, end: u64) -> View {
        let end = usize::try_from(end).map_or(self.len(), |end| end.min(self.len()));
        View { mapping: Arc::clone(self), end }
    }
}

impl ColdStretch {
    /// Makes the space ready, piece by piece; the log's bytes do not change. Ends early where the appender is
    /// ahead already or the file was cut.
    pub(crate) fn warm(self) {
        let claim = || {
            let mut front = self.runway.front.lock();
            let piece_len = front.piece_len();
            self.runway.claim(&mut front, self.upto, piece_len)
        };
        while let Some(piece) = claim() {
            piece.write_zeros();
            let range = piece.range.clone();
            drop(piece);
            self.mapping.populate(&range);
        }
    }
}

impl View {
    /// Gives the bytes of a range, `None` if it reaches beyond the view.
    #[inline]
    pub(crate) fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        if range.start > range.end || range.end > self.end {
            return None;
        }
        // SAFETY: `end` is at most the mapping's length, asserted where the view was made, so the
        // pointer stays within one allocation.
        let start = unsafe { self.mapping.memory.as_ptr().add(range.start) };
        // SAFETY: the bytes lie below `end`; by invariant (backed) they are backed by the file and by
        // invariant (frozen) nobody writes them while the mapping lives, which the borrow of `self`
        // ensures. Any bit pattern is a `u8`.
        Some(unsafe { std::slice::from_raw_parts(start, range.end - range.start) })
    }

    /// Gives everything from a position to the view's end.
    #[inline]
    pub(crate) fn from(&self, position: u64) -> &[u8] {
        let start = usize::try_from(position).unwrap_or(usize::MAX);
        self.bytes(start..self.end).unwrap_or_default()
    }

    /// Has the bytes of a range of the view read into memory; where the system does not know how, nothing happens. An
    /// error says that the disk cannot read them, or the file was cut: a touch of them would end the process.
    pub(crate) fn bring(&self, range: &Range<u64>) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            let range = range.start..range.end.min(self.end());
            match self.mapping.advise(memmap2::Advice::PopulateRead, &range) {
                Err(error) if os_error::is_of_untouchable_pages(&error) => return Err(error),
                _ => {}
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = range;
        Ok(())
    }

    /// Tells where bytes lie that were borrowed from the view.
    #[inline]
    pub(crate) fn range_of(&self, bytes: &[u8]) -> Range<usize> {
        let at = (bytes.as_ptr() as usize).wrapping_sub(self.mapping.memory.as_ptr() as usize);
        at..at.wrapping_add(bytes.len())
    }

    pub(crate) fn end(&self) -> u64 {
        self.end as u64
    }
}

impl Tail {
    /// Continues a file of which `end` bytes are in use and anything behind them is of no value.
    /// The file never grows beyond `capacity` bytes.
    pub(crate) fn open(
        file: DiskFile,
        end: u64,
        capacity: u64,
        lock: Option<Arc<DirectoryLock>>,
    ) -> Result<Tail> {
        Tail::open_with(file, end, capacity, lock, STEP_MIN)
    }

    /// As [`open`](Self::open), for the file that follows the one of `before`: as busy as that one was.
    pub(crate) fn open_behind(
        before: &Tail,
        file: DiskFile,
        capacity: u64,
        lock: Option<Arc<DirectoryLock>>,
    ) -> Result<Tail> {
        Tail::open_with(file, 0, capacity, lock, before.step)
    }

    fn open_with(
        file: DiskFile,
        end: u64,
        capacity: u64,
        lock: Option<Arc<DirectoryLock>>,
        step: u64,
    ) -> Result<Tail> {
        let capacity = capacity.max(end).max(1);
        let len = usize::try_from(capacity).map_err(|_| Error::InvalidArgument {
            argument: "segment.bytes",
            reason: "the file does not fit this machine's address space",
        })?;
        let door = if file.maps_are_dependable() { DoorsOpen::Both } else { DoorsOpen::WriteOnly };
        let mapping = match door {
            DoorsOpen::Both => Mapping::writable(&file, len, lock)?,
            DoorsOpen::WriteOnly => Mapping::read_only(&file, len, lock)?,
        };
        Ok(Tail {
            runway: Arc::new(Runway::new(file, end)),
            mapping: Arc::new(mapping),
            door,
            end,
            reserved: end,
            capacity,
            granted: capacity,
            step,
            is_tight: false,
            ready: end,
            offered: end,
        })
    }

    /// Appends one batch, which begins with `front` whatever `batch` begins with. Its first 12 bytes (base offset
    /// and length) are stored last, so that a reader in another process meets zeros or a whole batch.
    ///
    /// The bytes are in the file when this returns, but not published: nobody reads them yet.
    #[inline]
    pub(crate) fn append(
        &mut self,
        front: [u8; FRONT_LEN],
        batch: &mut [u8],
        door: Door,
    ) -> Result<(), AppendError> {
        debug_assert!(batch.len() > FRONT_LEN);
        let upto = self.end + batch.len() as u64;
        assert!(upto <= self.capacity, "the writer rolls before a segment overflows");
        match self.door {
            DoorsOpen::Both => {
                self.reserve(upto).map_err(AppendError::Clean)?;
                let was_ready = upto <= self.ready || self.make_ready(upto, door);
                match door {
                    Door::Either if was_ready => {
                        self.store(front, batch).map_err(AppendError::Torn)?;
                    }
                    Door::Store => self.store(front, batch).map_err(AppendError::Torn)?,
                    Door::Either | Door::Write => {
                        batch[..FRONT_LEN].copy_from_slice(&front);
                        self.runway
                            .file
                            .write_all_at(batch, self.end)
                            .map_err(AppendError::Torn)?;
                    }
                }
            }
            DoorsOpen::WriteOnly => {
                batch[..FRONT_LEN].copy_from_slice(&front);
                if let Err(error) = self.runway.file.write_all_at(batch, self.end) {
                    // Whatever part was written lies behind the end: once cut, the file is as it was.
                    return Err(match self.runway.file.set_len(self.end) {
                        Ok(()) => AppendError::Clean(error),
                        Err(_) => AppendError::Torn(error),
                    });
                }
                self.reserved = upto;
            }
        }
        self.end = upto;
        Ok(())
    }

    /// Gives back the space behind the end. Readers never look there.
    pub(crate) fn trim(&mut self) -> Result<()> {
        if self.reserved > self.end {
            // With nobody at work, and nothing left to be made ready: zeros would lengthen the file again.
            let mut front = self.runway.front.lock();
            while front.is_being_worked_at() {
                self.runway.moved.wait(&mut front);
            }
            self.runway.file.set_len(self.end)?;
            front.claimed = CUT;
            self.reserved = self.end;
            self.ready = self.end;
        }
        Ok(())
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Lets space be reserved up to here, and no further; an append stays below.
    pub(crate) fn grant(&mut self, upto: u64) {
        self.granted = upto.min(self.capacity);
    }

    #[inline]
    pub(crate) fn granted(&self) -> u64 {
        self.granted
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(crate) fn file(&self) -> &Arc<DiskFile> {
        &self.runway.file
    }

    pub(crate) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// Gives the space that was reserved since this was asked last, for somebody to make ready before an
    /// append gets there.
    #[inline]
    pub(crate) fn take_cold(&mut self) -> Option<ColdStretch> {
        if self.offered == self.reserved {
            return None;
        }
        let from = self.offered.max(self.ready).max(self.end);
        self.offered = self.reserved;
        (self.reserved >= from + WARMED_LEN_MIN).then(|| ColdStretch {
            runway: Arc::clone(&self.runway),
            mapping: Arc::clone(&self.mapping),
            upto: self.reserved,
        })
    }

    /// Takes the space up to `upto` into use, which is reserved but was not ready when it was last asked. Tells
    /// whether it is ready in truth.
    #[cold]
    fn make_ready(&mut self, upto: u64, door: Door) -> bool {
        let (piece_len, len_min) = match door {
            Door::Store => (PIECE_LEN, WARMED_LEN_MIN),
            // Whoever can write at once need not write zeros before.
            Door::Either => (0, PIECE_LEN),
            // The next sync writes the zeros too, and somebody waits for it.
            Door::Write => (SYNCED_PIECE_LEN, SYNCED_PIECE_LEN),
        };
        // What is large is written by one call itself, and a short runway is not worth one.
        let is_small = upto - self.end < piece_len / 4;
        let mut front = self.runway.front.lock();
        while front.ready < upto
            && is_small
            && self.reserved >= front.claimed.saturating_add(len_min)
        {
            // Instead of waiting for a piece that somebody is at, the next one: where memory is slow to
            // come, two get it faster. Two writes to one file take turns; making pages present does not.
            let is_alone = !front.is_being_worked_at();
            let piece = self.runway.claim(&mut front, self.reserved, piece_len);
            drop(front);
            match piece {
                Some(piece) if is_alone => piece.write_zeros(),
                Some(piece) => self.mapping.populate(&piece.range),
                None => {}
            }
            front = self.runway.front.lock();
        }
        while front.ready < upto && front.is_being_worked_at() {
            self.runway.moved.wait(&mut front);
        }
        let is_ready = front.ready >= upto;
        if front.claimed != CUT && !is_ready {
            front.ready = upto;
            front.claimed = upto;
        }
        self.ready = front.ready.max(upto);
        is_ready
    }

    /// Reserves space in steps that start small, so that a thousand idle partitions cost little, and
    /// double, so that a busy one seldom pays. Half a step ahead of need, so that there is time to warm it.
    #[inline]
    fn reserve(&mut self, upto: u64) -> Result<()> {
        let is_needed = upto > self.reserved;
        let is_near = upto + self.step / 2 > self.reserved && self.reserved < self.granted;
        if !is_needed && (!is_near || self.is_tight) {
            return Ok(());
        }
        self.reserve_more(upto)
    }

    #[cold]
    fn reserve_more(&mut self, upto: u64) -> Result<()> {
        let is_needed = upto > self.reserved;
        self.runway.front.lock().suit(upto - self.end);
        let mut wanted = upto.max(self.reserved + self.step);
        if self.step >= LARGE_PAGE_LEN {
            // The space ends where a large page does, so that none is made ready in two parts.
            wanted = wanted.next_multiple_of(LARGE_PAGE_LEN);
        }
        let wanted = wanted.min(self.granted.max(upto));
        let reserved = match self.runway.file.reserve(self.reserved, wanted) {
            Ok(()) => {
                self.step = (self.step * 2).min(STEP_MAX);
                self.is_tight = false;
                wanted
            }
            Err(_) if !is_needed => {
                // Not needed yet: asked for again when it is, and not before.
                self.is_tight = true;
                return Ok(());
            }
            // The disk cannot hold the whole step; what is needed now may still fit.
            Err(Error::OutOfSpace { .. }) if wanted > upto => {
                self.runway.file.reserve(self.reserved, upto)?;
                upto
            }
            Err(other) => return Err(other),
        };
        self.reserved = reserved;
        Ok(())
    }

    #[inline]
    fn store(&mut self, front: [u8; FRONT_LEN], batch: &[u8]) -> Result<()> {
        self.runway.file.effect_of_store(batch, self.end, FRONT_LEN)?;
        let start = self.end as usize;
        assert!(
            self.door == DoorsOpen::Both
                && batch.len() >= FRONT_LEN
                && self.end + batch.len() as u64 <= self.reserved
                && start + batch.len() <= self.mapping.len()
        );
        let mapping = &self.mapping;
        if !mapping.is_stored_to.load(Ordering::Relaxed) {
            mapping.is_stored_to.store(true, Ordering::Relaxed);
        }
        let memory = mapping.memory.as_mut_ptr();
        // The front comes from registers: what was just written somewhere else would be slow to be read.
        let (first, epoch) = front.split_at(LENGTH_EXCLUDES);
        let rest = &batch[FRONT_LEN..];
        // SAFETY: `start` plus the batch's length is within the mapping, asserted above.
        let target = unsafe { memory.add(start) };
        // SAFETY: the same assertion covers the rest of the batch, which begins behind its front.
        let target_rest = unsafe { target.add(FRONT_LEN) };
        // SAFETY: the mapping is writable (`DoorsOpen::Both`) and the target lies below `reserved`, so
        // it is backed by space of the file's own. Nobody else writes there: there is one tail per file
        // and `self` is borrowed exclusively. Nobody reads there: it lies behind the published end. The
        // batch is ordinary memory and cannot overlap a mapping that is reached only through here.
        unsafe { ptr::copy_nonoverlapping(rest.as_ptr(), target_rest, rest.len()) };
        // SAFETY: as for the rest; the front's second part lies before it.
        let target_epoch = unsafe { target.add(LENGTH_EXCLUDES) };
        // SAFETY: as for the rest.
        unsafe { ptr::copy_nonoverlapping(epoch.as_ptr(), target_epoch, epoch.len()) };
        // Pairs with nothing in this process: it keeps the compiler from moving the first bytes before the
        // rest, for readers of the file in other processes.
        fence(Ordering::Release);
        // SAFETY: as for the rest; these are the bytes before all others.
        unsafe { ptr::copy_nonoverlapping(first.as_ptr(), target, first.len()) };
        Ok(())
    }
}

/// Less than this costs more to announce than to fault in.
const WARMED_LEN_MIN: u64 = 256 << 10;
const STEP_MIN: u64 = 64 << 10;
const STEP_MAX: u64 = 8 << 20;
const SYNCED_PIECE_LEN: u64 = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::Access;
    use crate::storage::disk::Disk;

    fn tail(disk: &Disk, directory: &std::path::Path, capacity: u64) -> Tail {
        let file = disk.open(&directory.join("f"), Access::CreateNew).unwrap();
        Tail::open(file, 0, capacity, None).unwrap()
    }

    fn append(tail: &mut Tail, batch: &[u8], door: Door) -> Result<(), AppendError> {
        let front = batch.first_chunk().copied().unwrap();
        // What stands in the batch instead of its front makes no difference.
        let mut batch = batch.to_vec();
        batch[..FRONT_LEN].fill(0xee);
        tail.append(front, &mut batch, door)
    }

    #[test]
    fn a_view_sees_exactly_what_was_appended_through_either_door() {
        let directory = tempfile::tempdir().unwrap();
        let mut tail = tail(&Disk::default(), directory.path(), 1 << 20);
        let mut expected = Vec::new();
        for round in 0..100_u8 {
            let batch = vec![round; 500 + usize::from(round)];
            let door = if round % 3 == 0 { Door::Write } else { Door::Store };
            append(&mut tail, &batch, door).unwrap();
            expected.extend_from_slice(&batch);
        }
        let view = tail.mapping().view(tail.end());
        assert_eq!(view.from(0), expected);
        assert_eq!(view.bytes(0..expected.len() + 1), None);
        tail.trim().unwrap();
        assert_eq!(view.from(0), expected);
        assert_eq!(std::fs::read(directory.path().join("f")).unwrap(), expected);
    }

    /// Over memory of its own instead of a file's, so that Miri can look on.
    #[test]
    fn what_is_stored_is_read_by_others_once_its_end_is_published() {
        const LEN: usize = 100;
        const CAPACITY: usize = 60 * LEN;
        let directory = tempfile::tempdir().unwrap();
        let file = Disk::default().open(&directory.path().join("f"), Access::CreateNew).unwrap();
        let memory = MmapRaw::from(MmapOptions::new().len(CAPACITY).map_anon().unwrap());
        let mapping = Mapping { memory, is_stored_to: AtomicBool::new(false), _lock: None };
        let mut tail = Tail {
            runway: Arc::new(Runway::new(file, 0)),
            mapping: Arc::new(mapping),
            door: DoorsOpen::Both,
            end: 0,
            reserved: CAPACITY as u64,
            capacity: CAPACITY as u64,
            granted: CAPACITY as u64,
            step: STEP_MIN,
            is_tight: false,
            ready: CAPACITY as u64,
            offered: CAPACITY as u64,
        };
        let mapping = Arc::clone(tail.mapping());
        // As watermarks do.
        let published = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut seen = 0;
                    while seen < CAPACITY {
                        let view = mapping.view(published.load(Ordering::Acquire));
                        for at in (seen..view.end).step_by(LEN) {
                            let batch = view.bytes(at..at + LEN).unwrap();
                            assert_eq!(batch, [(at / LEN) as u8; LEN]);
                        }
                        assert_eq!(view.bytes(0..view.end + 1), None);
                        seen = view.end;
                        std::thread::yield_now();
                    }
                });
            }
            for n in 0..(CAPACITY / LEN) as u8 {
                append(&mut tail, &[n; LEN], Door::Store).unwrap();
                published.store(tail.end(), Ordering::Release);
            }
        });
    }

    #[test]
    fn reserved_space_grows_in_doubling_steps_and_stops_at_the_capacity() {
        let directory = tempfile::tempdir().unwrap();
        let mut tail = tail(&Disk::default(), directory.path(), 300 << 10);
        let mut lengths = Vec::new();
        for _ in 0..300 {
            append(&mut tail, &[1; 1 << 10], Door::Store).unwrap();
            lengths.push(tail.file().len().unwrap());
        }
        lengths.dedup();
        assert_eq!(lengths, [64 << 10, 192 << 10, 300 << 10]);
    }

    /// A large page that is made ready in two parts is none.
    #[test]
    fn a_long_runway_ends_where_a_large_page_does() {
        let directory = tempfile::tempdir().unwrap();
        let mut tail = tail(&Disk::default(), directory.path(), (64 << 20) + 5);
        let mut large = 0;
        while tail.end() + (1 << 20) <= tail.capacity() {
            let before = tail.reserved;
            append(&mut tail, &vec![1; 1 << 20], Door::Write).unwrap();
            if tail.reserved != before && tail.step > LARGE_PAGE_LEN && tail.end() > 8 << 20 {
                large += 1;
                assert!(tail.reserved % LARGE_PAGE_LEN == 0 || tail.reserved == tail.capacity());
            }
        }
        assert!(large > 3, "{large}");
    }

    #[test]
    fn space_is_reserved_ahead_of_need_and_offered_for_warming_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut tail = tail(&Disk::default(), directory.path(), 64 << 20);
        let batch = vec![1; 10 << 10];
        let mut offered = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..2000 {
            append(&mut tail, &batch, Door::Store).unwrap();
            expected.extend_from_slice(&batch);
            if let Some(cold) = tail.take_cold() {
                assert!(cold.upto > tail.end(), "offered {} at {}", cold.upto, tail.end());
                offered.push(cold.upto);
                cold.warm();
            }
        }
        assert!(offered.len() > 3, "{offered:?}");
        assert!(offered.windows(2).all(|pair| pair[0] < pair[1]), "{offered:?}");
        // Warming changes no byte, and a file that was cut stays cut.
        assert_eq!(tail.mapping().view(tail.end()).from(0), expected);
        let late = ColdStretch {
            runway: Arc::clone(&tail.runway),
            mapping: Arc::clone(&tail.mapping),
            upto: 64 << 20,
        };
        tail.trim().unwrap();
        late.warm();
        tail.mapping().populate(&(0..64 << 20));
        assert_eq!(tail.file().len().unwrap(), expected.len() as u64);
    }

    /// Without the lock around the zeros, or with an append that goes beyond what is ready without moving
    /// it, zeros written ahead would wipe out batches.
    #[test]
    fn zeros_written_ahead_never_hit_a_batch() {
        let directory = tempfile::tempdir().unwrap();
        let mut tail = tail(&Disk::default(), directory.path(), 24 << 20);
        let (stretches, asked) = std::sync::mpsc::channel::<ColdStretch>();
        let warmer = std::thread::spawn(move || asked.into_iter().for_each(ColdStretch::warm));
        let mut expected = Vec::new();
        for n in 0_u32.. {
            let len =
                [100, 5000, 70_000, 300_000][(n.wrapping_mul(0x9e37_79b9) >> 28) as usize % 4];
            if tail.end() + len > tail.capacity() {
                break;
            }
            let batch = vec![n as u8 | 1; len as usize];
            let door = [Door::Write, Door::Store, Door::Either, Door::Either][n as usize % 4];
            append(&mut tail, &batch, door).unwrap();
            expected.extend_from_slice(&batch);
            if let Some(cold) = tail.take_cold() {
                stretches.send(cold).unwrap();
            }
        }
        drop(stretches);
        warmer.join().unwrap();
        assert!(tail.mapping().view(tail.end()).from(0) == expected, "zeros hit a batch");
    }

    #[test]
    fn a_large_batch_is_stored_where_space_is_ready_and_written_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        let mut tail = tail(&Disk::default(), directory.path(), 24 << 20);
        let is_stored_to = |tail: &Tail| tail.mapping().is_stored_to.load(Ordering::Relaxed);
        let mut expected = Vec::new();
        let mut append_large = |tail: &mut Tail, byte: u8| {
            append(tail, &[byte; 300 << 10], Door::Either).unwrap();
            expected.extend_from_slice(&[byte; 300 << 10]);
        };
        let cold = loop {
            append_large(&mut tail, 1);
            assert!(!is_stored_to(&tail), "nobody has made anything ready");
            if let Some(cold) = tail.take_cold().filter(|cold| cold.upto > tail.end() + (1 << 20)) {
                break cold;
            }
        };
        cold.warm();
        append_large(&mut tail, 2);
        assert!(is_stored_to(&tail));
        assert!(tail.mapping().view(tail.end()).from(0) == expected);
    }

    #[test]
    fn a_reservation_ahead_that_fails_is_no_failure_of_the_append() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::failing_once(u64::MAX, 0);
        let mut tail = tail(&disk, directory.path(), 1 << 20);
        append(&mut tail, &[7; 40 << 10], Door::Store).unwrap();
        // The next step is asked for ahead, in vain, and the append goes into what there is.
        disk.script().arm(1, libc::ENOSPC, false);
        append(&mut tail, &[8; 100], Door::Store).unwrap();
        assert_eq!(tail.file().len().unwrap(), 64 << 10);
        // It is not asked for again before it is needed.
        let before = disk.script().count();
        append(&mut tail, &[8; 100], Door::Store).unwrap();
        assert_eq!(disk.script().count(), before + 1);
        append(&mut tail, &[9; 40 << 10], Door::Store).unwrap();
        assert!(tail.file().len().unwrap() >= tail.end());
    }

    #[test]
    fn zeros_that_cannot_be_written_are_no_failure_of_the_append() {
        let run = |disk: &Disk| {
            let directory = tempfile::tempdir().unwrap();
            let mut tail = tail(disk, directory.path(), 4 << 20);
            let mut expected = Vec::new();
            for n in 0..200_u8 {
                append(&mut tail, &[n; 10 << 10], Door::Store).unwrap();
                expected.extend_from_slice(&[n; 10 << 10]);
            }
            assert!(tail.mapping().view(tail.end()).from(0) == expected);
        };
        let disk = Disk::failing_once(u64::MAX, 0);
        run(&disk);
        let trace = disk.script().trace();
        let prepares = (1..).zip(&trace).filter(|(_, effect)| effect.starts_with("prepare"));
        let prepares: Vec<u64> = prepares.map(|(n, _)| n).collect();
        assert!(prepares.len() > 2, "{prepares:?}");
        for n in prepares {
            run(&Disk::failing_once(n, libc::EIO));
        }
    }

    #[test]
    fn a_full_disk_is_an_error_that_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::failing_once(u64::MAX, 0);
        let mut tail = tail(&disk, directory.path(), 1 << 20);
        append(&mut tail, &[7; 100], Door::Store).unwrap();
        tail.trim().unwrap();
        disk.script().arm(1, libc::ENOSPC, true);
        for door in [Door::Store, Door::Either, Door::Write] {
            let refused = append(&mut tail, &[8; 100], door);
            assert!(matches!(refused, Err(AppendError::Clean(Error::OutOfSpace { .. }))));
        }
        disk.script().disarm();
        append(&mut tail, &[9; 100], Door::Store).unwrap();
        assert_eq!(tail.mapping().view(tail.end()).from(0), [[7; 100], [9; 100]].concat());
    }

    #[test]
    fn a_step_that_does_not_fit_shrinks_to_what_is_needed() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::failing_once(u64::MAX, 0);
        let mut tail = tail(&disk, directory.path(), 1 << 20);
        disk.script().arm(1, libc::ENOSPC, false);
        append(&mut tail, &[7; 100], Door::Store).unwrap();
        assert_eq!(tail.file().len().unwrap(), 100);
    }
}
