//! What changes under the partition's lock, and the order in which it changes.
//!
//! The append ladder; the order of effects is the argument for correctness:
//!
//! | rung | effect | if it fails |
//! | --- | --- | --- |
//! | 1 | take the lock, *then* ask whether the partition is latched | nothing happened |
//! | 2 | check size and offset space | nothing happened; the caller's error |
//! | 3 | roll when full: create the new segment's files; the old one is sealed in the background. Where the store has a budget, be granted space | nothing visible; may be tried again |
//! | 4 | write the bytes behind the log end | nothing visible; clean or latched, as the [`Tail`] says |
//! | 5 | index entries (memory) | rebuilt from the log anyway |
//! | 6 | publish the log end: one release store | cannot fail |
//! | 7 | unlock; ring the doorbells | cannot fail |
//! | 8 | the delivery waits at the sync gate, if its level asks for it | visible but not acknowledged: latched |

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use parking_lot::MutexGuard;

use crate::clock::Clock;
use crate::config::LogConfig;
use crate::error::Error;
use crate::error::Result;
use crate::format::encode::EncodedBatch;
use crate::partition::leader_epochs::LeaderEpochs;
use crate::partition::live_tails::Place;
use crate::storage::indexes::Noting;
use crate::storage::map::AppendError;
use crate::storage::map::ColdStretch;
use crate::storage::map::Door;
use crate::storage::map::Tail;
use crate::storage::parked_indexes::ParkedIndexes;
use crate::storage::parked_indexes::Written;
use crate::storage::segment::OpenSegment;

/// The appending side of one partition, behind its lock.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) phase: Phase,
    /// `None` until the first append, and while it is parked: an idle partition costs no descriptor and no
    /// mapping.
    pub(crate) live: Option<LiveTail>,
    /// What is needed to go on with a tail that was parked.
    pub(crate) parked: Option<Box<Parked>>,
    /// What an earlier life left as the last segment, if that was looked at before the first append.
    pub(crate) found: Option<Found>,
    pub(crate) config: Arc<LogConfig>,
    pub(crate) epochs: LeaderEpochs,
    /// A new epoch begins before the first append after an unclean open.
    pub(crate) raise_epoch: bool,
    /// The latest time the log itself stamped on a batch.
    pub(crate) append_time_ms: i64,
    /// Bytes appended since the last sync that was asked for.
    pub(crate) unsynced_len: u64,
    /// The newest producer snapshot, carried along: our own batches do not change producer state.
    /// `None` if it is not known, and then none is written.
    pub(crate) producer_snapshot: Option<Arc<[u8]>>,
}

/// What the writer is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// Somebody opens, rolls or seals a segment and has let go of the lock meanwhile.
    Busy,
    /// No more appends: closed or deleted.
    Closed,
}

/// The segment that is being appended to.
#[derive(Debug)]
pub(crate) struct LiveTail {
    pub(crate) tail: Tail,
    pub(crate) open: Arc<OpenSegment>,
    pub(crate) state: TailState,
    /// What the live indexes will be caught up with.
    pub(crate) noting: Noting,
    /// Asked whenever an entry was added, so that an append need not.
    pub(crate) is_index_full: bool,
    /// Declared last: it is free once the tail is closed.
    pub(crate) _place: Place,
}

/// The last segment while nobody has it open for appending.
#[derive(Debug)]
pub(crate) struct Parked {
    /// Where it ends, and its file too.
    pub(crate) end: u64,
    pub(crate) indexes: ParkedIndexes,
    pub(crate) state: TailState,
}

/// The last segment as an earlier life left it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) end: u64,
    pub(crate) state: TailState,
}

/// What is to be known of the last segment beside its bytes and its indexes, open or parked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TailState {
    /// The greatest timestamp of the segment's first batch; −1 if it has none.
    pub(crate) first_timestamp_ms: i64,
    pub(crate) created_ms: i64,
    /// Drawn for each segment: which part of `segment.jitter.ms` it is closed earlier by.
    pub(crate) draw: u64,
    /// A roll was begun, and failed.
    pub(crate) is_over: bool,
    /// It had batches when this life began, or its indexes were spilled while it was parked, and so its index
    /// files have entries on disk.
    pub(crate) was_taken_over: bool,
    /// What of the indexes is in the files.
    pub(crate) written: Written,
}

/// Whether an append may go ahead, and if not, what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    /// Wait until whoever is busy is done.
    Busy,
    /// The last segment must be opened for appending.
    Cold,
    /// The last segment is full.
    Full,
    /// The last segment was not granted so much space.
    Ungranted,
}

/// Takes a writer's lock for an append.
///
/// Where more threads append than there are processors, whoever holds the lock may have lost its own; giving up ours a
/// few times more than the lock does by itself brings it back sooner than going to sleep.
#[inline]
pub(crate) fn lock(writer: &Mutex<Writer>) -> MutexGuard<'_, Writer> {
    writer.try_lock().unwrap_or_else(|| lock_held(writer))
}

#[cold]
fn lock_held(writer: &Mutex<Writer>) -> MutexGuard<'_, Writer> {
    for _ in 0..YIELDS_MAX {
        thread::yield_now();
        if let Some(writer) = writer.try_lock() {
            return writer;
        }
    }
    writer.lock()
}

const YIELDS_MAX: u32 = 10;

impl Writer {
    /// Gives what was reserved ahead since this was asked last.
    #[inline]
    pub(crate) fn cold_stretch(&mut self) -> Option<ColdStretch> {
        self.live.as_mut()?.tail.take_cold()
    }

    /// Gives the time at which an idle segment is to be rolled; `None` while it is empty, and where nobody has appended
    /// to it nor looked at it in this life.
    pub(crate) fn due_ms(&self) -> Option<i64> {
        match (&self.live, &self.parked) {
            (Some(live), _) => live.state.due_ms(live.tail.end(), &self.config),
            (None, Some(parked)) => parked.state.due_ms(parked.end, &self.config),
            (None, None) => {
                self.found.and_then(|found| found.state.due_ms(found.end, &self.config))
            }
        }
    }

    /// Tells whether [`readiness`](Self::readiness) would say [`Readiness::Ready`].
    #[inline]
    pub(crate) fn is_ready(&self, batch: &EncodedBatch<'_>, log_end: i64, clock: &Clock) -> bool {
        let (Phase::Open, Some(live)) = (self.phase, &self.live) else {
            return false;
        };
        // A batch that no segment could hold is one that this segment is full for.
        log_end < i64::MAX - i64::from(batch.record_count())
            && !live.is_full_for(batch, log_end, &self.config)
            && live.is_granted(batch)
            && !live.is_over_age(batch.max_timestamp_ms(), clock, &self.config)
    }

    /// Says what an append of `batch` at `log_end` needs first.
    ///
    /// # Errors
    ///
    /// * [`Error::RecordTooLarge`] if no segment could hold the batch.
    /// * [`Error::Closed`] once the partition takes no more appends.
    pub(crate) fn readiness(
        &self,
        batch: &EncodedBatch<'_>,
        log_end: i64,
        clock: &Clock,
    ) -> Result<Readiness> {
        match self.phase {
            Phase::Open => {}
            Phase::Busy => return Ok(Readiness::Busy),
            Phase::Closed => return Err(Error::Closed),
        }
        let limit = self.config.segment_bytes as usize;
        if batch.len() > limit {
            return Err(Error::RecordTooLarge { len: batch.len(), limit, key: "segment.bytes" });
        }
        if log_end > i64::MAX - i64::from(batch.record_count()) - 1 {
            return Err(Error::InvalidRecord { reason: "the partition's offsets are used up" });
        }
        let Some(live) = &self.live else {
            return Ok(Readiness::Cold);
        };
        let is_full = live.is_full_for(batch, log_end, &self.config)
            || live.is_over_age(batch.max_timestamp_ms(), clock, &self.config);
        Ok(match is_full {
            true => Readiness::Full,
            false if live.is_granted(batch) => Readiness::Ready,
            false => Readiness::Ungranted,
        })
    }

    /// Puts `batch` behind `log_end`: rungs 4 and 5. Nobody sees it until the caller publishes.
    #[inline]
    pub(crate) fn append(
        &mut self,
        batch: &mut EncodedBatch<'_>,
        log_end: i64,
        door: Door,
    ) -> Result<(), AppendError> {
        let live = self.live.as_mut().expect("readiness said Ready");
        let front = batch.front(log_end, self.epochs.latest());
        let position = live.tail.end();
        live.tail.append(front, batch.bytes_mut(), door)?;
        let last_offset = log_end + i64::from(batch.record_count()) - 1;
        if live.noting.note(position, last_offset, batch.max_timestamp_ms()) {
            let mut indexes = live.open.indexes_of_live().write();
            indexes.add(&live.noting, position, last_offset);
            live.is_index_full = indexes.is_full(self.config.segment_index_bytes);
        }
        if position == 0 {
            live.state.first_timestamp_ms = batch.max_timestamp_ms();
        }
        live.open.publish(live.tail.end());
        self.unsynced_len += batch.len() as u64;
        Ok(())
    }
}

impl LiveTail {
    #[inline]
    fn is_full_for(&self, batch: &EncodedBatch<'_>, log_end: i64, config: &LogConfig) -> bool {
        let end = self.tail.end();
        let last_offset = log_end + i64::from(batch.record_count()) - 1;
        let limit = u64::from(config.segment_bytes).min(self.tail.capacity());
        end + batch.len() as u64 > limit
            || last_offset - self.open.base_offset() > i64::from(i32::MAX)
            || self.is_index_full
            || self.state.is_over
    }

    #[inline]
    fn is_granted(&self, batch: &EncodedBatch<'_>) -> bool {
        self.tail.end() + batch.len() as u64 <= self.tail.granted()
    }

    /// Kafka's rule: the age is the span between the first batch's timestamp and the incoming one's, or,
    /// where records carry none, the time since the segment was made.
    #[inline]
    fn is_over_age(&self, incoming_ms: i64, clock: &Clock, config: &LogConfig) -> bool {
        if self.tail.end() == 0 {
            return false;
        }
        let TailState { first_timestamp_ms, created_ms, .. } = self.state;
        let age_ms = if first_timestamp_ms >= 0 && incoming_ms >= 0 {
            incoming_ms.saturating_sub(first_timestamp_ms)
        } else {
            clock.now_ms().saturating_sub(created_ms)
        };
        age_ms > self.state.age_max_ms(config)
    }
}

impl TailState {
    /// An empty segment's.
    pub(crate) fn new(created_ms: i64) -> TailState {
        TailState {
            first_timestamp_ms: -1,
            created_ms,
            // Each hasher of the standard library's has a seed of its own, from the system's randomness.
            draw: RandomState::new().hash_one(0),
            is_over: false,
            was_taken_over: false,
            written: Written::default(),
        }
    }

    fn due_ms(&self, end: u64, config: &LogConfig) -> Option<i64> {
        let begun =
            if self.first_timestamp_ms >= 0 { self.first_timestamp_ms } else { self.created_ms };
        (end > 0).then(|| begun.saturating_add(self.age_max_ms(config)))
    }

    /// Gives the age at which the segment is closed: as in Kafka up to `segment.jitter.ms` before `segment.ms`, so that
    /// logs that were begun together are not all closed at once.
    #[inline]
    fn age_max_ms(&self, config: &LogConfig) -> i64 {
        match config.segment_jitter_ms.min(config.segment_ms) {
            0 => config.segment_ms,
            span => config.segment_ms - (self.draw % span.unsigned_abs()) as i64,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::TailState;
    use crate::Record;
    use crate::Store;
    use crate::TimestampType;
    use crate::TopicConfig;
    use crate::clock::Clock;
    use crate::config::LogConfig;

    #[test]
    fn append_times_never_decrease_though_the_clock_is_set_back() {
        let (clock, now) = Clock::fixed(1_000_000);
        let store = Store::builder_temporary().clock(clock).open().unwrap();
        let config =
            TopicConfig::new().segment_bytes(1024).timestamp_type(TimestampType::LogAppendTime);
        let topic = store.create_topic("t", config).unwrap();
        for step in [0, 5, -500_000, -1, 7, 600_000] {
            now.fetch_add(step, Ordering::Relaxed);
            for _ in 0..10 {
                store.producer().send(&topic, Record::new(&[0; 100])).unwrap();
            }
        }
        let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
        let mut times = Vec::new();
        loop {
            let records = consumer.poll(Duration::ZERO).unwrap();
            if records.is_empty() {
                break;
            }
            times.extend(records.iter().map(|message| message.timestamp()));
        }
        assert_eq!(times.len(), 60);
        assert!(times.is_sorted(), "{times:?}");
        assert_eq!(times.last(), Some(&1_100_011));
        assert!(topic.describe().unwrap().partitions[0].segment_count > 3);
    }

    #[test]
    fn a_segment_is_rolled_by_age_with_the_next_append_and_without_one() {
        let (clock, now) = Clock::fixed(1_000_000);
        let store = Store::builder_temporary()
            .clock(clock)
            .checkpoint_interval(Duration::from_millis(1))
            .open()
            .unwrap();
        let topic = store.create_topic("t", TopicConfig::new().segment_ms(1000)).unwrap();
        let segments = || topic.describe().unwrap().partitions[0].segment_count;
        let producer = store.producer();
        producer.send(&topic, "a").unwrap();
        now.fetch_add(1000, Ordering::Relaxed);
        producer.send(&topic, "b").unwrap();
        assert_eq!(segments(), 1);
        now.fetch_add(1, Ordering::Relaxed);
        producer.send(&topic, "c").unwrap();
        assert_eq!(segments(), 2);

        let partition = topic.state.open_partition(0).unwrap();
        now.fetch_add(1001, Ordering::Relaxed);
        partition.roll_if_due(now.load(Ordering::Relaxed)).unwrap();
        assert_eq!(segments(), 3);
        // An empty segment has no age.
        now.fetch_add(5000, Ordering::Relaxed);
        partition.roll_if_due(now.load(Ordering::Relaxed)).unwrap();
        assert_eq!(segments(), 3);
    }

    #[test]
    fn segments_are_closed_earlier_by_parts_of_the_jitter_that_differ() {
        let (clock, now) = Clock::fixed(1_000_000);
        let store = Store::builder_temporary().clock(clock).open().unwrap();
        let config = TopicConfig::new().partitions(40).segment_ms(1000);
        let topic = store.create_topic("t", config.set("segment.jitter.ms", "600").unwrap());
        let topic = topic.unwrap();
        let rolled_after = |ms: i64| {
            now.store(1_000_000 + ms, Ordering::Relaxed);
            for n in 0..40 {
                store.producer().send(&topic, Record::new("v").partition(n)).unwrap();
            }
            let partitions = topic.describe().unwrap().partitions;
            partitions.iter().filter(|partition| partition.segment_count == 2).count()
        };
        assert_eq!(rolled_after(0), 0);
        assert_eq!(rolled_after(400), 0, "none is closed before its time less the jitter");
        let some = rolled_after(700);
        assert!((1..40).contains(&some), "of 40 segments {some} were closed");
        assert_eq!(rolled_after(1001), 40);
    }

    #[test]
    fn a_jitter_longer_than_the_age_is_as_long_as_it() {
        let config = |segment_ms, segment_jitter_ms| LogConfig {
            segment_ms,
            segment_jitter_ms,
            ..LogConfig::default()
        };
        for draw in [0, 1, 999, 1000, u64::MAX] {
            let state = TailState { draw, ..TailState::new(0) };
            assert_eq!(state.age_max_ms(&config(1000, 0)), 1000);
            assert!((1..=1000).contains(&state.age_max_ms(&config(1000, i64::MAX))));
            assert!((401..=1000).contains(&state.age_max_ms(&config(1000, 600))));
        }
    }
}
