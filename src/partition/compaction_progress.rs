//! How far a compaction is: counted by the thread that compacts, looked at by any other.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::error::Error;
use crate::error::Result;
use crate::partition::compacting::Compacting;
use crate::partition::throttle::Throttle;

/// Shows how far a compaction is, from any thread, while [`Topic::compact_watched`](crate::Topic::compact_watched) is
/// at it on another. Cloning it is cheap; clones show the same.
///
/// ```
/// use ottla::{CompactionProgress, Record, Store, TopicConfig};
///
/// let store = Store::temporary()?;
/// let topic = store.create_topic("t", TopicConfig::new().set("cleanup.policy", "compact")?)?;
/// for value in ["old", "new"] {
///     store.producer().send(&topic, Record::new(value).key("k"))?;
/// }
/// let progress = CompactionProgress::new();
/// std::thread::scope(|scope| {
///     let compacting = scope.spawn(|| topic.compact_watched(&progress));
///     while !compacting.is_finished() {
///         let _so_far = progress.counts().bytes_read;
///         std::thread::yield_now();
///     }
///     compacting.join().expect("it does not panic").map(drop)
/// })?;
/// assert_eq!(progress.counts().records_kept, 1);
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct CompactionProgress {
    counters: Arc<Counters>,
}

/// What a compaction has done so far, or came to.
///
/// What is said of before and after is about the segments that took part: the last segment of a log never does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionCounts {
    /// Bytes that were read from segments, each time they were: to check them and learn their keys, and to copy what
    /// stays, where anything does.
    pub bytes_read: u64,
    /// Bytes that were written to new segments.
    pub bytes_written: u64,
    /// How many records were found and stay.
    pub records_kept: u64,
    /// How many records are gone: superseded by a later one of their key, tombstones past their time, records without
    /// a key or of an aborted transaction.
    pub records_dropped: u64,
    /// How many segments took part.
    pub segments_before: u64,
    /// How many are left of them.
    pub segments_after: u64,
    /// The bytes of those that took part.
    pub bytes_before: u64,
    /// The bytes of those that are left.
    pub bytes_after: u64,
}

/// Relaxed, all but the last: they are shown, and order nothing.
#[derive(Debug, Default)]
struct Counters {
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    found: Amounts,
    gone: Amounts,
    /// Stored with Release by whoever wants it to end, loaded with Acquire.
    is_stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct Amounts {
    segments: AtomicU64,
    bytes: AtomicU64,
    records: AtomicU64,
}

/// So much lies in some segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) segments: usize,
    pub(crate) bytes: u64,
    pub(crate) records: u64,
}

/// What a compaction asks before each step: whether to go on, and how fast.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace<'a> {
    pub(super) progress: &'a CompactionProgress,
    pub(super) throttle: &'a Throttle,
    pub(super) compacting: &'a Compacting,
}

impl CompactionProgress {
    /// Makes one that shows nothing yet.
    pub fn new() -> CompactionProgress {
        CompactionProgress::default()
    }

    /// Gives what was done so far; of all compactions that were given this or a clone of it.
    pub fn counts(&self) -> CompactionCounts {
        let counters = &*self.counters;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (segments, bytes, records) = counters.found.all();
        let (segments_gone, bytes_gone, records_gone) = counters.gone.all();
        CompactionCounts {
            bytes_read: of(&counters.bytes_read),
            bytes_written: of(&counters.bytes_written),
            records_kept: records.saturating_sub(records_gone),
            records_dropped: records_gone,
            segments_before: segments,
            segments_after: segments.saturating_sub(segments_gone),
            bytes_before: bytes,
            // Batches of records that did not shrink when they were packed anew may have grown.
            bytes_after: bytes.wrapping_sub(bytes_gone),
        }
    }

    /// Has the compaction end with [`Error::Closed`], soon.
    pub(crate) fn stop(&self) {
        self.counters.is_stopped.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.counters.is_stopped.load(Ordering::Acquire)
    }

    /// Notes what takes part.
    pub(super) fn found(&self, amount: &Amount) {
        self.counters.found.add(amount.segments as u64, amount.bytes, amount.records);
    }

    /// Notes that something has become something less.
    pub(super) fn replaced(&self, before: &Amount, after: &Amount) {
        let segments = before.segments.wrapping_sub(after.segments) as u64;
        let bytes = before.bytes.wrapping_sub(after.bytes);
        self.counters.gone.add(segments, bytes, before.records.wrapping_sub(after.records));
    }
}

impl Amounts {
    fn add(&self, segments: u64, bytes: u64, records: u64) {
        self.segments.fetch_add(segments, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    fn all(&self) -> (u64, u64, u64) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (of(&self.segments), of(&self.bytes), of(&self.records))
    }
}

impl Pace<'_> {
    /// Asked again and again by the one who compacts.
    pub(super) fn go_on(&self) -> Result<()> {
        if self.progress.is_stopped() {
            return Err(Error::Closed);
        }
        self.compacting.go_on()
    }

    /// Notes bytes that were read, and waits if they were too many.
    pub(super) fn read(&self, bytes: usize) -> Result<()> {
        self.progress.counters.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
        self.wait_for(bytes)
    }

    /// Notes bytes that were written, and waits if they were too many.
    pub(super) fn wrote(&self, bytes: usize) -> Result<()> {
        self.progress.counters.bytes_written.fetch_add(bytes as u64, Ordering::Relaxed);
        self.wait_for(bytes)
    }

    fn wait_for(&self, bytes: usize) -> Result<()> {
        let wait = self.throttle.note(bytes as u64, Instant::now());
        if wait < WAIT_MIN {
            return Ok(());
        }
        let until = Instant::now() + wait;
        loop {
            self.go_on()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            // In steps: who closes the log waits for this one.
            thread::sleep(left.min(WAIT_STEP));
        }
    }
}

/// Shorter waits are put together.
const WAIT_MIN: Duration = Duration::from_millis(10);
const WAIT_STEP: Duration = Duration::from_millis(50);
