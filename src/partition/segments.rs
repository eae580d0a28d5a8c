//! The snapshot of segments that readers use: find, replace, add.
//!
//! Readers clone one `Arc` under a short lock and search the list without it. A segment that was
//! replaced stays valid for whoever holds it; its mapping goes with the last holder. Cold segments are held
//! by the store's [`OpenSegments`] for a while after they were read. The list is changed in place unless somebody
//! is searching it: that a log has ten thousand segments makes no roll dearer.
//!
//! **Invariant (shown).** Of a file that may grow behind what is published, readers see no more than the end
//! that its segment shows: the last segment, while nobody has it open for appending, says how much of its file
//! it is. Who opens it late, when somebody appends again, must not take the file's length for the segment's.
//!
//! Compaction puts another file under the name of a segment, and takes others away; the first segments go when what is
//! in them is deleted.
//!
//! **Invariant (one file).** A [`Segment`] stands for one file, though names come to stand for others: it is *pinned*,
//! open and with its indexes in memory, from before its name is taken until the list has its successor, and
//! *replaced* from then on. Whoever opens a replaced segment gets the one that now holds its offsets, or, if they were
//! deleted, the first one; that the log's start was raised before, it can see. So what was
//! learnt of a position in an opening of one edition holds in every other of that edition, and in no other.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use parking_lot::RwLock;

use crate::error::Error;
use crate::error::Result;
use crate::partition::open_segments::OpenSegments;
use crate::storage::disk::DiskFile;
use crate::storage::extent;
use crate::storage::segment::OpenSegment;
use crate::storage::segment_files::SegmentContext;

/// All segments of one partition, oldest first. Never empty: opening creates the first.
#[derive(Debug)]
pub(crate) struct Segments {
    /// Lock rank 5: held for one clone or one replacement.
    list: RwLock<Arc<Vec<Arc<Segment>>>>,
    held: Arc<OpenSegments>,
    /// Set under the lock of `held`; from then on nothing of this partition is held.
    is_retired: AtomicBool,
}

/// One segment: where it starts, and its readers' side while somebody reads it.
#[derive(Debug)]
pub(crate) struct Segment {
    base_offset: i64,
    live: Option<Live>,
    /// Set where another process writes.
    foreign: Option<Foreign>,
    /// Set where the file may grow behind what is to be seen, because it is the last one: how many of its bytes are
    /// to be seen. See the invariant (shown).
    shown_end: Option<u64>,
    /// Another one for every file that took the name of an earlier one.
    edition: u64,
    /// Locked while the segment is being opened, so that this is done once; ranks with `Segments::list`, which
    /// is not held then.
    cold: Mutex<Cold>,
    /// It was taken off the list. Set before, and read under, the lock of `Segments::held`; then it is not held.
    is_taken: AtomicBool,
    /// What is known of a file that does not change any more.
    known: extent::Known,
}

/// What is known of a segment that another process writes, and may replace at any time.
#[derive(Debug)]
enum Foreign {
    /// The last one: of the file with this inode so many bytes have been seen whole so far.
    Growing {
        end: AtomicU64,
        inode: u64,
    },
    Whole,
}

/// The readers' side of a cold segment.
#[derive(Debug, Default)]
struct Cold {
    /// It is mapped while somebody holds it, and let go with the last holder.
    open: Weak<OpenSegment>,
    /// Set while its file is being replaced.
    pinned: Option<Arc<OpenSegment>>,
    /// Its name stands for another file, or none.
    is_replaced: bool,
}

/// The readers' side of a segment that is being appended to, and its one descriptor, which stays open
/// until the segment is sealed and synchronised: a failed sync is reported only once per descriptor.
#[derive(Debug)]
struct Live {
    open: Arc<OpenSegment>,
    file: Arc<DiskFile>,
}

/// A segment that was opened by somebody before, or just now.
enum Opened {
    Before(Arc<OpenSegment>),
    Anew(Arc<OpenSegment>),
    /// Not at all: its file was replaced.
    Replaced,
}

impl Segments {
    /// Makes the list from the base offsets of cold segments, ascending; there must be one. Of the last one
    /// `last_end` bytes are to be seen.
    pub(crate) fn new(
        base_offsets: impl IntoIterator<Item = i64>,
        last_end: u64,
        held: Arc<OpenSegments>,
    ) -> Segments {
        let mut list: Vec<_> =
            base_offsets.into_iter().map(|o| Arc::new(Segment::cold(o))).collect();
        let last = list.pop().expect("opening creates the first segment");
        list.push(Arc::new(Segment::showing(last.base_offset, last_end)));
        Segments { list: RwLock::new(Arc::new(list)), held, is_retired: AtomicBool::new(false) }
    }

    /// Gives a segment's readers' side, mapping the file if nobody holds it.
    ///
    /// # Errors
    ///
    /// * [`Error::Io`](crate::Error::Io) if the file cannot be opened or mapped.
    #[inline]
    pub(crate) fn open(
        &self,
        segment: &Segment,
        context: &SegmentContext,
    ) -> Result<Arc<OpenSegment>> {
        match &segment.live {
            Some(live) => Ok(Arc::clone(&live.open)),
            None => self.open_cold(segment, context),
        }
    }

    fn open_cold(&self, segment: &Segment, context: &SegmentContext) -> Result<Arc<OpenSegment>> {
        match segment.opened(context)? {
            Opened::Before(open) => Ok(open),
            Opened::Anew(open) => {
                // Relaxed: both sides hold the lock of `held`.
                let is_wanted = || {
                    !self.is_retired.load(Ordering::Relaxed)
                        && !segment.is_taken.load(Ordering::Relaxed)
                };
                self.held.hold(&open, is_wanted);
                Ok(open)
            }
            // The list has its successor; that one may be replaced before it is opened, but not for ever.
            Opened::Replaced => self.open(&self.holding(segment.base_offset), context),
        }
    }

    /// Keeps a cold segment open, so that its file may be renamed: see the invariant (one file).
    pub(crate) fn pin(&self, segment: &Segment, context: &SegmentContext) -> Result<()> {
        let open = self.open_cold(segment, context)?;
        open.load()?;
        segment.cold.lock().pinned = Some(open);
        Ok(())
    }

    /// Gives up the pins of segments whose files have their names.
    pub(crate) fn unpin(&self, segments: &[Arc<Segment>]) {
        for segment in segments {
            let pinned = segment.cold.lock().pinned.take();
            drop(pinned);
        }
    }

    /// Puts one cold segment in the place of some that are pinned and follow one another; it begins where the
    /// first of them does.
    pub(crate) fn replace(&self, replaced: &[Arc<Segment>], base_offset: i64) {
        let edition = replaced.iter().map(|segment| segment.edition).max().unwrap_or(0) + 1;
        let is_replaced = |other: &Arc<Segment>| replaced.iter().any(|r| Arc::ptr_eq(r, other));
        // What is in it is let go of below.
        self.change(|list| {
            let first = list.iter().position(is_replaced);
            list.retain(|segment| !is_replaced(segment));
            if let Some(index) = first {
                list.insert(index, Arc::new(Segment { edition, ..Segment::cold(base_offset) }));
            }
        });
        let mut let_go = Vec::new();
        for segment in replaced {
            let mut cold = segment.cold.lock();
            cold.is_replaced = true;
            let_go.extend(cold.pinned.take());
        }
        self.held.let_go_of_these(&let_go);
    }

    /// Takes the segments off the list that begin below `base_offset`, where one begins: the log's start has been
    /// raised, and their files are about to go. Gives them with what is open of them.
    pub(crate) fn take_below(&self, base_offset: i64) -> Vec<(i64, Option<Arc<OpenSegment>>)> {
        let taken = self.change(|list| {
            let count = list.partition_point(|segment| segment.base_offset < base_offset);
            let is_boundary = list.get(count).is_some_and(|kept| kept.base_offset == base_offset);
            list.drain(..if is_boundary { count } else { 0 }).collect::<Vec<_>>()
        });
        let taken: Vec<_> = taken
            .into_iter()
            .map(|segment| {
                let mut cold = segment.cold.lock();
                // Whoever has an older list opens what is now the first; see the invariant (one file).
                cold.is_replaced = true;
                segment.is_taken.store(true, Ordering::Relaxed);
                (segment.base_offset, cold.open.upgrade())
            })
            .collect();
        let open: Vec<_> = taken.iter().filter_map(|(_, open)| open.clone()).collect();
        if !open.is_empty() {
            self.held.let_go_of_these(&open);
        }
        taken
    }

    /// Lets go of what the store holds open though nobody reads it; `false` if there is nothing.
    pub(crate) fn let_go_of_idle(&self) -> bool {
        self.held.let_go()
    }

    /// Lets go of what is held of this partition, and holds nothing of it any more: it is being deleted.
    pub(crate) fn retire(&self, directory: &Path) {
        self.is_retired.store(true, Ordering::Relaxed);
        self.held.let_go_of(directory);
        let let_go = self.change(|list| {
            let mut let_go = Vec::new();
            for segment in list.iter_mut() {
                if let Some(live) = &segment.live {
                    let cold = Segment::showing(segment.base_offset, live.open.end());
                    let_go.push(std::mem::replace(segment, Arc::new(cold)));
                }
            }
            let_go
        });
        // Unmapped here, if nobody reads them.
        drop(let_go);
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.list.read().len()
    }

    pub(crate) fn snapshot(&self) -> Arc<Vec<Arc<Segment>>> {
        Arc::clone(&self.list.read())
    }

    /// Gives the segment in which `offset` lies, if it lies anywhere: the last one that starts at or
    /// below it.
    pub(crate) fn holding(&self, offset: i64) -> Arc<Segment> {
        let list = self.list.read();
        let after = list.partition_point(|segment| segment.base_offset <= offset);
        Arc::clone(&list[after.saturating_sub(1)])
    }

    /// Gives the readers' side of the segment in which `offset` lies, if it lies anywhere.
    ///
    /// # Errors
    ///
    /// * As [`open`](Self::open).
    #[inline]
    pub(crate) fn open_holding(
        &self,
        offset: i64,
        context: &SegmentContext,
    ) -> Result<Arc<OpenSegment>> {
        let segment = {
            let list = self.list.read();
            let after = list.partition_point(|segment| segment.base_offset <= offset);
            let segment = &list[after.saturating_sub(1)];
            match &segment.live {
                Some(live) => return Ok(Arc::clone(&live.open)),
                None => Arc::clone(segment),
            }
        };
        self.open_cold(&segment, context)
    }

    pub(crate) fn first(&self) -> Arc<Segment> {
        Arc::clone(&self.list.read()[0])
    }

    pub(crate) fn last(&self) -> Arc<Segment> {
        let list = self.list.read();
        Arc::clone(&list[list.len() - 1])
    }

    /// Puts the live form of the last segment in place of its cold one.
    pub(crate) fn warm_last(&self, open: Arc<OpenSegment>, file: Arc<DiskFile>) {
        self.replace_last(Segment::live(open, file));
    }

    /// Puts the cold form of the last segment, which ends here for the time being, in place of its live one.
    pub(crate) fn cool_last(&self, end: u64) {
        self.replace_last(Segment::showing(self.last().base_offset, end));
    }

    /// Adds a live segment behind the last, which stays live until it is cooled.
    pub(crate) fn push_live(&self, open: Arc<OpenSegment>, file: Arc<DiskFile>) {
        self.change(|list| list.push(Arc::new(Segment::live(open, file))));
    }

    /// Puts the cold form of a segment that will not grow again in place of its live one.
    pub(crate) fn cool(&self, base_offset: i64) {
        let cold = Arc::new(Segment::cold(base_offset));
        let live = self.change(|list| {
            let index = list.binary_search_by_key(&base_offset, |s| s.base_offset);
            index.map(|index| std::mem::replace(&mut list[index], cold))
        });
        // Unmapped here, if nobody reads it.
        drop(live);
    }

    /// Adds a segment behind the last: a reader of somebody else's log found it there.
    pub(crate) fn add_foreign(&self, base_offset: i64, inode: u64) {
        self.change(|list| {
            // It grows no more, and may be compacted now.
            if let Some(last) = list.pop() {
                list.push(Arc::new(Segment::foreign(last.base_offset)));
            }
            list.push(Arc::new(Segment::growing(base_offset, inode, 0)));
        });
    }

    /// Puts the segments of somebody else's log in the place of those that were there. The last one is `inode`,
    /// and readers see `end` bytes of it.
    pub(crate) fn replace_foreign(&self, base_offsets: &[i64], inode: u64, end: u64) {
        self.change(|list| {
            *list = base_offsets.iter().map(|o| Arc::new(Segment::foreign(*o))).collect();
            if let Some(last) = list.pop() {
                list.push(Arc::new(Segment::growing(last.base_offset, inode, end)));
            }
        });
    }

    /// Called by the only one who adds segments: the last one stays the last.
    fn replace_last(&self, segment: Segment) {
        let before = self.change(|list| {
            let last = list.last_mut().expect("segments are never empty");
            debug_assert_eq!(last.base_offset, segment.base_offset);
            std::mem::replace(last, Arc::new(segment))
        });
        // Unmapped here, if nobody reads it.
        drop(before);
    }

    /// Changes the list, or a copy of it that takes its place if somebody is searching it.
    fn change<R>(&self, change: impl FnOnce(&mut Vec<Arc<Segment>>) -> R) -> R {
        change(Arc::make_mut(&mut self.list.write()))
    }
}

impl Segment {
    fn cold(base_offset: i64) -> Segment {
        Segment {
            base_offset,
            live: None,
            foreign: None,
            shown_end: None,
            edition: 0,
            cold: Mutex::default(),
            is_taken: AtomicBool::new(false),
            known: extent::Known::new(),
        }
    }

    /// A cold segment of which no more than `end` bytes are to be seen.
    fn showing(base_offset: i64, end: u64) -> Segment {
        Segment { shown_end: Some(end), ..Segment::cold(base_offset) }
    }

    fn foreign(base_offset: i64) -> Segment {
        Segment { foreign: Some(Foreign::Whole), ..Segment::cold(base_offset) }
    }

    fn growing(base_offset: i64, inode: u64, end: u64) -> Segment {
        let foreign = Some(Foreign::Growing { end: AtomicU64::new(end), inode });
        Segment { foreign, edition: new_edition(), ..Segment::cold(base_offset) }
    }

    fn live(open: Arc<OpenSegment>, file: Arc<DiskFile>) -> Segment {
        let base_offset = open.base_offset();
        Segment { live: Some(Live { open, file }), ..Segment::cold(base_offset) }
    }

    pub(crate) fn base_offset(&self) -> i64 {
        self.base_offset
    }

    pub(crate) fn edition(&self) -> u64 {
        self.edition
    }

    /// Tells whether the segment's file stays what it is for as long as this stands for it.
    pub(crate) fn is_still(&self) -> bool {
        self.live.is_none() && self.foreign.is_none()
    }

    pub(crate) fn known(&self) -> &extent::Known {
        &self.known
    }

    /// Gives the readers' side of a cold segment if somebody holds it.
    pub(crate) fn if_open(&self) -> Option<Arc<OpenSegment>> {
        self.cold.lock().open.upgrade()
    }

    /// Gives a cold segment's readers' side, mapping the file if nobody holds it.
    fn opened(&self, context: &SegmentContext) -> Result<Opened> {
        let mut cold = self.cold.lock();
        let end = self.shown_end();
        if let Some(open) = cold.open.upgrade() {
            match end {
                None => {
                    open.was_read();
                    return Ok(Opened::Before(open));
                }
                Some(end) if end <= open.mapped_len() as u64 => {
                    open.publish(end);
                    open.was_read();
                    return Ok(Opened::Before(open));
                }
                // The file has outgrown the mapping.
                Some(_) => {}
            }
        }
        if cold.is_replaced {
            return Ok(Opened::Replaced);
        }
        let open = OpenSegment::cold(context.clone(), self.base_offset, end)?;
        let edition = match &self.foreign {
            // Nobody tells whether the file is still the one that was opened last.
            Some(Foreign::Whole) => new_edition(),
            Some(Foreign::Growing { inode, .. }) if *inode != open.inode() => {
                return Err(Error::io("open", open.path(), io::ErrorKind::NotFound.into()));
            }
            Some(Foreign::Growing { .. }) | None => self.edition,
        };
        let open = Arc::new(open.of_edition(edition));
        cold.open = Arc::downgrade(&open);
        Ok(Opened::Anew(open))
    }

    /// Shows readers the first `end` bytes of a segment that somebody else appends to.
    pub(crate) fn show_followed(&self, end: u64) {
        if let Some(Foreign::Growing { end: seen, .. }) = &self.foreign {
            seen.fetch_max(end, Ordering::Release);
        }
    }

    /// Gives the end of what is to be seen of a cold segment's file, if that is not all of it.
    pub(crate) fn shown_end(&self) -> Option<u64> {
        match &self.foreign {
            // Acquire: pairs with the Release in `show_followed`.
            Some(Foreign::Growing { end, .. }) => Some(end.load(Ordering::Acquire)),
            Some(Foreign::Whole) => None,
            None => self.shown_end,
        }
    }

    /// Gives the descriptor through which a live segment is synchronised.
    pub(crate) fn live_file(&self) -> Option<&Arc<DiskFile>> {
        self.live.as_ref().map(|live| &live.file)
    }

    pub(crate) fn live_open(&self) -> Option<&Arc<OpenSegment>> {
        self.live.as_ref().map(|live| &live.open)
    }
}

/// Gives an edition that no segment of another process's log has had in this one. Those of one's own log count
/// from 0 for each segment.
fn new_edition() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // Relaxed: a number that orders nothing.
    NEXT.fetch_add(1, Ordering::Relaxed)
}
