//! Which cold segments stay open though nobody is reading them at this moment.
//!
//! One for each store. A cold segment is opened by the read that needs it and stays so until others have
//! taken its place, so that neither a reader that takes turns between segments nor one that jumps about
//! maps and unmaps a file each time. What is held is bounded, far below the mappings a process may have;
//! whoever holds [`Records`](crate::Records) keeps their mapping beside that.
//!
//! **Invariant (bounded).** No more than `COUNT_MAX` segments are held, nor, looked at whenever one is
//! added, indexes of more than `INDEX_LEN_MAX` bytes in all; none of a deleted topic, and none once the
//! store is closed: what is added late is refused under the same lock under which the others were let go.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::storage::segment::OpenSegment;

/// The open cold segments of one store.
#[derive(Debug)]
pub(crate) struct OpenSegments {
    count_max: usize,
    /// Lock rank 6, taken only when a segment is opened or many are let go; nothing is unmapped under it.
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    segments: Vec<Arc<OpenSegment>>,
    /// Where the search for one to let go begins: all are asked in turn.
    hand: usize,
    is_closed: bool,
}

impl Default for OpenSegments {
    fn default() -> OpenSegments {
        OpenSegments::new(COUNT_MAX)
    }
}

impl OpenSegments {
    fn new(count_max: usize) -> OpenSegments {
        OpenSegments { count_max, held: Mutex::default() }
    }

    /// Keeps a segment that was just opened, in the place of one that was not read for long if need be.
    pub(crate) fn hold(&self, segment: &Arc<OpenSegment>, is_wanted: impl FnOnce() -> bool) {
        let mut let_go = Vec::new();
        let mut held = self.held.lock();
        // Asked under the lock; see the invariant (bounded).
        if held.is_closed || !is_wanted() {
            return;
        }
        let mut index_len: usize = held.segments.iter().map(|other| other.index_len()).sum();
        while held.segments.len() >= self.count_max || index_len > INDEX_LEN_MAX {
            let Some(idle) = held.take_idle() else { break };
            index_len -= idle.index_len().min(index_len);
            let_go.push(idle);
        }
        held.segments.push(Arc::clone(segment));
        drop(held);
        // Unmapped here, if nobody reads them.
        drop(let_go);
    }

    /// Lets go of all segments of one partition, because its topic is being deleted.
    pub(crate) fn let_go_of(&self, directory: &Path) {
        let mut held = self.held.lock();
        let (gone, kept) = std::mem::take(&mut held.segments)
            .into_iter()
            .partition::<Vec<_>, _>(|segment| segment.path().parent() == Some(directory));
        held.segments = kept;
        drop(held);
        drop(gone);
    }

    /// Lets go of segments whose files were replaced.
    pub(crate) fn let_go_of_these(&self, replaced: &[Arc<OpenSegment>]) {
        let is_replaced = |held: &Arc<OpenSegment>| replaced.iter().any(|r| Arc::ptr_eq(r, held));
        let mut held = self.held.lock();
        let (gone, kept) = std::mem::take(&mut held.segments)
            .into_iter()
            .partition::<Vec<_>, _>(|segment| is_replaced(segment));
        held.segments = kept;
        drop(held);
        drop(gone);
    }

    /// Lets go of all segments: the system has no room for another mapping. `false` if none was held.
    pub(crate) fn let_go(&self) -> bool {
        let gone = std::mem::take(&mut self.held.lock().segments);
        !gone.is_empty()
    }

    /// Lets go of all, for good: the store is being closed.
    pub(crate) fn close(&self) {
        self.held.lock().is_closed = true;
        self.let_go();
    }
}

impl Held {
    /// Takes one that was not read since it was asked last. If all were, the first that is asked again goes.
    fn take_idle(&mut self) -> Option<Arc<OpenSegment>> {
        for _ in 0..=self.segments.len() {
            if self.hand >= self.segments.len() {
                self.hand = 0;
            }
            let asked = self.segments.get(self.hand)?;
            if !asked.take_was_read() {
                break;
            }
            self.hand += 1;
        }
        (self.hand < self.segments.len()).then(|| self.segments.swap_remove(self.hand))
    }
}

/// A process may have 65,530 mappings by default, and its host needs most of them.
const COUNT_MAX: usize = 1024;
/// The offset index of a full segment of 64 MiB is 128 KiB.
const INDEX_LEN_MAX: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering;
    use std::thread;

    use super::*;
    use crate::config::TimestampType;
    use crate::format::encode::BatchBuilder;
    use crate::partition::segments::Segments;
    use crate::record::Record;
    use crate::storage::disk::Disk;
    use crate::storage::segment_files::SegmentContext;

    const SEGMENTS: i64 = 100;

    /// A partition of one record for each segment.
    struct Small {
        directory: tempfile::TempDir,
        context: SegmentContext,
        segments: Segments,
        held: Arc<OpenSegments>,
    }

    impl Small {
        fn new(count_max: usize) -> Small {
            let directory = tempfile::tempdir().unwrap();
            let context = SegmentContext {
                disk: Disk::default(),
                directory: directory.path().into(),
                lock: None,
                index_interval_bytes: 4096,
                gaps: Default::default(),
            };
            let mut builder = BatchBuilder::default();
            let mut len = 0;
            for offset in 0..SEGMENTS {
                builder.clear();
                builder.push(&Record::new(&offset.to_be_bytes()), 0).unwrap();
                let mut batch = builder.seal(TimestampType::CreateTime);
                batch.stamp(offset, 0);
                fs::write(context.log_path(offset), batch.bytes()).unwrap();
                len = batch.bytes().len() as u64;
            }
            let held = Arc::new(OpenSegments::new(count_max));
            let segments = Segments::new(0..SEGMENTS, len, Arc::clone(&held));
            Small { directory, context, segments, held }
        }

        fn open(&self, offset: i64) -> Arc<OpenSegment> {
            let open = self.segments.open(&self.segments.holding(offset), &self.context).unwrap();
            let found = open.locate(offset).unwrap().unwrap();
            assert_eq!(found.header.base_offset, offset);
            open
        }

        fn held(&self) -> Vec<i64> {
            self.held.held.lock().segments.iter().map(|segment| segment.base_offset()).collect()
        }

        /// Counts the files of the directory that this process has mapped.
        fn mapped(&self) -> usize {
            let maps = fs::read_to_string("/proc/self/maps").unwrap();
            let directory = self.directory.path().to_str().unwrap().to_owned();
            maps.lines().filter(|line| line.contains(&directory)).count()
        }
    }

    #[test]
    fn no_more_are_held_than_allowed_and_the_one_not_read_for_longest_goes_first() {
        let small = Small::new(8);
        for offset in 0..8 {
            drop(small.open(offset));
        }
        assert_eq!(small.held(), (0..8).collect::<Vec<_>>());
        // All were read, so the first goes; by then the others have been asked.
        drop(small.open(8));
        assert!(!small.held().contains(&0));
        for offset in 9..30 {
            for hot in [2, 5] {
                drop(small.open(hot));
            }
            drop(small.open(offset));
        }
        let mut held = small.held();
        held.sort_unstable();
        assert_eq!(held.len(), 8);
        assert!(held[..2] == [2, 5] && held[2] > 15, "{held:?}");
        if cfg!(target_os = "linux") {
            assert_eq!(small.mapped(), 8);
        }
        let kept = small.open(29);
        small.held.let_go();
        if cfg!(target_os = "linux") {
            assert_eq!(small.mapped(), 1, "what somebody reads stays");
        }
        // It is not opened a second time.
        assert!(Arc::ptr_eq(&kept, &small.open(29)));
    }

    #[test]
    fn nothing_is_held_of_a_deleted_partition_nor_of_a_closed_store() {
        let (doomed, other) = (Small::new(8), Small::new(8));
        let shared = Segments::new(0..SEGMENTS, 0, Arc::clone(&doomed.held));
        drop(doomed.open(1));
        drop(shared.open(&shared.holding(2), &other.context).unwrap());
        doomed.segments.retire(doomed.directory.path());
        assert_eq!(doomed.held(), [2]);
        drop(doomed.open(3));
        assert_eq!(doomed.held(), [2], "a late reader of the deleted one");
        doomed.held.close();
        drop(shared.open(&shared.holding(4), &other.context).unwrap());
        assert!(doomed.held().is_empty());
    }

    #[test]
    fn readers_of_all_threads_stay_within_the_bound_and_read_what_is_there() {
        let small = Small::new(8);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut most = 0;
                while !is_over.load(Ordering::Relaxed) {
                    most = most.max(small.held().len());
                    thread::yield_now();
                }
                most
            });
            let readers: Vec<_> = (1..4_u64)
                .map(|seed| {
                    let small = &small;
                    scope.spawn(move || {
                        let mut random = seed;
                        for _ in 0..3000 {
                            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                            let offset = (random >> 33) as i64 % SEGMENTS;
                            let open = small.open(offset);
                            let bytes = open.view().unwrap().from(0).to_vec();
                            assert!(bytes.windows(8).any(|w| *w == offset.to_be_bytes()));
                        }
                    })
                })
                .collect();
            for reader in readers {
                reader.join().unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(watcher.join().unwrap(), 8);
        });
        if cfg!(target_os = "linux") {
            assert_eq!(small.mapped(), 8);
        }
    }
}
