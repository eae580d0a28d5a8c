//! The snapshot of segments that readers use: find, replace, add.
//!
//! Readers clone one `Arc` under a short lock and search the list without it. A segment that was
//! replaced stays valid for whoever holds it; its mapping goes with the last holder. Cold segments are held
//! by the store's [`OpenSegments`] for a while after they were read.

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
    /// Set where another process appends: how many bytes have been seen whole so far.
    followed_end: Option<AtomicU64>,
    /// A cold segment is mapped while somebody holds it, and let go with the last holder. Locked while it is
    /// being opened, so that this is done once; ranks with `Segments::list`, which is not held then.
    opened: Mutex<Weak<OpenSegment>>,
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
}

impl Segments {
    /// Makes the list from the base offsets of cold segments, ascending; there must be one.
    pub(crate) fn new(
        base_offsets: impl IntoIterator<Item = i64>,
        held: Arc<OpenSegments>,
    ) -> Segments {
        let list: Vec<_> = base_offsets.into_iter().map(|o| Arc::new(Segment::cold(o))).collect();
        assert!(!list.is_empty(), "opening creates the first segment");
        Segments { list: RwLock::new(Arc::new(list)), held, is_retired: AtomicBool::new(false) }
    }

    /// Gives a segment's readers' side, mapping the file if nobody holds it.
    ///
    /// # Errors
    ///
    /// * [`Error::Io`] if the file cannot be opened or mapped; where the system has no room for another
    ///   mapping, after all that are idle were let go, and then it may be tried again later.
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
        let opened = match segment.opened(context) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::OutOfMemory => {
                self.held.let_go();
                segment.opened(context)?
            }
            other => other?,
        };
        if let Opened::Anew(open) = &opened {
            // Relaxed: both sides hold the lock of `held`.
            self.held.hold(open, || !self.is_retired.load(Ordering::Relaxed));
        }
        let (Opened::Before(open) | Opened::Anew(open)) = opened;
        Ok(open)
    }

    /// Lets go of what is held of this partition, and holds nothing of it any more: it is being deleted.
    pub(crate) fn retire(&self, directory: &Path) {
        self.is_retired.store(true, Ordering::Relaxed);
        self.held.let_go_of(directory);
        self.change(|list| {
            for segment in list.iter_mut().filter(|segment| segment.live.is_some()) {
                *segment = Arc::new(Segment::cold(segment.base_offset));
            }
        });
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

    /// Gives the first segment that starts behind `base_offset`.
    pub(crate) fn after(&self, base_offset: i64) -> Option<Arc<Segment>> {
        let list = self.list.read();
        let index = list.partition_point(|segment| segment.base_offset <= base_offset);
        list.get(index).map(Arc::clone)
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
        self.change(|list| {
            list.pop();
            list.push(Arc::new(Segment::live(open, file)));
        });
    }

    /// Adds a live segment behind the last, which stays live until it is cooled.
    pub(crate) fn push_live(&self, open: Arc<OpenSegment>, file: Arc<DiskFile>) {
        self.change(|list| list.push(Arc::new(Segment::live(open, file))));
    }

    /// Puts the cold form of a segment in place of its live one.
    pub(crate) fn cool(&self, base_offset: i64) {
        self.change(|list| {
            if let Ok(index) = list.binary_search_by_key(&base_offset, |s| s.base_offset) {
                list[index] = Arc::new(Segment::cold(base_offset));
            }
        });
    }

    /// Adds a segment behind the last: a reader of somebody else's log found it there.
    pub(crate) fn add_followed(&self, base_offset: i64) {
        self.change(|list| list.push(Arc::new(Segment::followed(base_offset))));
    }

    /// Makes the last of some cold segments one that somebody else appends to.
    pub(crate) fn follow_last(&self) {
        self.change(|list| {
            let last = list.pop().expect("segments are never empty");
            list.push(Arc::new(Segment::followed(last.base_offset)));
        });
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Segment>>)) {
        let mut list = self.list.write();
        let mut changed = Vec::with_capacity(list.len() + 1);
        changed.extend(list.iter().cloned());
        change(&mut changed);
        *list = Arc::new(changed);
    }
}

impl Segment {
    fn cold(base_offset: i64) -> Segment {
        Segment { base_offset, live: None, followed_end: None, opened: Mutex::new(Weak::new()) }
    }

    fn followed(base_offset: i64) -> Segment {
        Segment { followed_end: Some(AtomicU64::new(0)), ..Segment::cold(base_offset) }
    }

    fn live(open: Arc<OpenSegment>, file: Arc<DiskFile>) -> Segment {
        let base_offset = open.base_offset();
        Segment { live: Some(Live { open, file }), ..Segment::cold(base_offset) }
    }

    pub(crate) fn base_offset(&self) -> i64 {
        self.base_offset
    }

    /// Gives a cold segment's readers' side, mapping the file if nobody holds it.
    fn opened(&self, context: &SegmentContext) -> Result<Opened> {
        let mut opened = self.opened.lock();
        // Acquire: pairs with the Release in `show_followed`.
        let end = self.followed_end.as_ref().map(|end| end.load(Ordering::Acquire));
        if let Some(open) = opened.upgrade() {
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
        let open = Arc::new(OpenSegment::cold(context.clone(), self.base_offset, end)?);
        *opened = Arc::downgrade(&open);
        Ok(Opened::Anew(open))
    }

    /// Shows readers the first `end` bytes of a segment that somebody else appends to.
    pub(crate) fn show_followed(&self, end: u64) {
        if let Some(followed_end) = &self.followed_end {
            followed_end.fetch_max(end, Ordering::Release);
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
