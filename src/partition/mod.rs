//! One log: all order, all durability, all truth.
//!
//! A [`Partition`] is shared by everyone who appends to it or reads it. Appends take turns under one
//! lock, which is never held during a sync; reads take no lock while they touch bytes.
//!
//! **Invariant (latched).** After a write or a sync whose outcome is unknown nothing is appended any more
//! and nobody is told that anything is durable, until the partition is opened again. Reads go on.

pub(crate) mod budget;
pub(crate) mod charging;
pub(crate) mod cleanable;
pub(crate) mod compacting;
pub(crate) mod compaction;
#[cfg(test)]
mod compaction_crash;
mod compaction_keys;
#[cfg(test)]
mod compaction_model;
pub(crate) mod compaction_plan;
pub(crate) mod compaction_progress;
mod compaction_reading;
pub(crate) mod compaction_survey;
#[cfg(test)]
mod crash;
pub(crate) mod fates;
pub(crate) mod fetch;
pub(crate) mod finding;
pub(crate) mod follow;
pub(crate) mod following;
pub(crate) mod key_hash;
mod key_notes;
mod known_fates;
pub(crate) mod latest_offsets;
pub(crate) mod leader_epochs;
pub(crate) mod leftovers;
pub(crate) mod live_tails;
pub(crate) mod open_segments;
pub(crate) mod parking;
pub(crate) mod point;
pub(crate) mod producer_snapshot;
pub(crate) mod recovery;
pub(crate) mod removed;
pub(crate) mod removing;
pub(crate) mod retaining;
pub(crate) mod retention;
#[cfg(test)]
mod retention_crash;
pub(crate) mod rolling;
pub(crate) mod sealing;
pub(crate) mod segments;
pub(crate) mod shown;
pub(crate) mod sync;
pub(crate) mod throttle;
pub(crate) mod unpacking;
#[cfg(test)]
mod unreadable;
pub(crate) mod unsealed;
pub(crate) mod walk;
pub(crate) mod watermarks;
pub(crate) mod writer;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::Sender;
use parking_lot::Condvar;
use parking_lot::Mutex;
use parking_lot::MutexGuard;

use crate::clock::Clock;
use crate::config::LogConfig;
use crate::config::TimestampType;
use crate::due::Due;
use crate::error::Error;
use crate::error::Result;
use crate::format::encode::EncodedBatch;
use crate::partition::budget::Budget;
use crate::partition::budget::Charged;
use crate::partition::compacting::Compacting;
use crate::partition::finding::Finding;
use crate::partition::follow::Follow;
use crate::partition::leader_epochs::LeaderEpochs;
use crate::partition::live_tails::LiveTails;
use crate::partition::open_segments::OpenSegments;
use crate::partition::producer_snapshot::LogSeen;
use crate::partition::recovery::Circumstances;
use crate::partition::removed::Removed;
use crate::partition::segments::Segments;
use crate::partition::shown::Shown;
use crate::partition::sync::SyncGate;
use crate::partition::unsealed::Unsealed;
use crate::partition::watermarks::Doorbells;
use crate::partition::watermarks::Watermarks;
use crate::partition::writer::Phase;
use crate::partition::writer::Readiness;
use crate::partition::writer::Writer;
use crate::storage::file_name;
use crate::storage::gaps;
use crate::storage::map::AppendError;
use crate::storage::map::ColdStretch;
use crate::storage::map::Door;
use crate::storage::removal;
use crate::storage::removal::Order;
use crate::storage::segment_files;
use crate::storage::segment_files::SegmentContext;

/// One log, open.
#[derive(Debug)]
pub(crate) struct Partition {
    context: SegmentContext,
    clock: Clock,
    /// Lock rank 4: held for one append or one look, never during a sync.
    writer: Mutex<Writer>,
    /// Those who wait for a busy writer.
    idle: Condvar,
    segments: Segments,
    /// The tails that are open in the store, this partition's among them.
    live_tails: Arc<LiveTails>,
    shown: Shown,
    gate: SyncGate,
    /// Segments that were followed by another and are not sealed yet.
    unsealed: Unsealed,
    compacting: Compacting,
    removed: Removed,
    /// What all logs of the store may take, and this one's part of it.
    budget: Arc<Budget>,
    charged: Charged,
    /// Set once; see the invariant (latched).
    latch: OnceLock<Arc<str>>,
    /// Whom to tell that a sync is due.
    attention: Sender<Attention>,
    /// The shortest interval, in milliseconds, that the keeper was asked to sync within since it last
    /// looked; `u64::MAX` if it was not. Keeps a busy partition from asking again and again.
    asked_within_ms: AtomicU64,
    /// The first segment whose indexes recovery could not write.
    unindexed: Option<i64>,
}

/// What a partition asks the keeper for.
#[derive(Debug)]
pub(crate) enum Attention {
    /// To be synchronised and checkpointed.
    Sync { partition: Weak<Partition>, within: Duration },
    /// To have segments sealed that others have followed.
    Seal { partition: Weak<Partition> },
    /// To have a stretch of its tail warmed before it appends there.
    Warm(ColdStretch),
    /// To have files removed that are not the log's any more.
    Remove { partition: Weak<Partition>, within: Duration },
    /// To have room made: the store has nearly as many bytes as it may have.
    Room,
    /// To be called at a time: a producer that stages records, not a partition.
    Call { whom: Weak<dyn Due>, at: Instant },
    /// To have topics compacted: there may be something to do.
    Clean,
}

/// What an append was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) offsets: Range<i64>,
    /// The time the log stamped, if it stamps; else what the producer set.
    pub(crate) append_time_ms: Option<i64>,
}

/// What opening a partition needs to know.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) context: SegmentContext,
    pub(crate) config: Arc<LogConfig>,
    pub(crate) clock: Clock,
    pub(crate) circumstances: Circumstances,
    pub(crate) log_start: i64,
    pub(crate) attention: Sender<Attention>,
    /// Where the store keeps cold segments open.
    pub(crate) open_segments: Arc<OpenSegments>,
    /// Which tails are open in the store.
    pub(crate) live_tails: Arc<LiveTails>,
    pub(crate) budget: Arc<Budget>,
}

impl Partition {
    /// Opens the log in a directory, repairing what a crash left, and says what it found.
    pub(crate) fn open(opening: Opening) -> Result<(Arc<Partition>, Vec<Finding>)> {
        let Opening { context, config, clock, circumstances, log_start, .. } = opening;
        let mut findings = Vec::new();
        let durable_below = match gaps::read_mark(&context.disk, &context.directory) {
            Ok(mark) => {
                context.gaps.raise(mark);
                mark
            }
            Err(Error::Corrupt { path, reason, .. }) => {
                // Gaps may be anywhere, and one that passed for damage could end the log there.
                findings.push(Finding::Nuisance { path, reason: reason.to_owned() });
                context.gaps.raise(i64::MAX);
                0
            }
            Err(other) => return Err(other),
        };
        let recovery_point = circumstances.recovery_point.max(durable_below);
        let circumstances = Circumstances { recovery_point, ..circumstances };
        let listing = leftovers::tidy(&context)?;
        let mut base_offsets = listing.base_offsets;
        // Behind a crash, or a checkpoint that Kafka wrote: what is below the start is deleted, in part or not yet.
        let kept = base_offsets.partition_point(|base| *base <= log_start).saturating_sub(1);
        let deleted: Vec<i64> = base_offsets.drain(..kept).collect();
        if base_offsets.is_empty() {
            segment_files::create_files(&context, log_start)?;
            context.disk.sync_directory(&context.directory)?;
            base_offsets.push(log_start);
        }
        let epochs_path = context.directory.join(file_name::LEADER_EPOCHS);
        let mut epochs = match LeaderEpochs::read(&context.disk, epochs_path.clone()) {
            Ok(epochs) => epochs,
            Err(Error::Corrupt { path, reason, .. }) => {
                // Epochs can be derived from the batches that carry them.
                findings.push(Finding::Nuisance { path, reason: reason.to_owned() });
                LeaderEpochs::empty(&context.disk, epochs_path)
            }
            Err(other) => return Err(other),
        };
        let mut recovered =
            recovery::recover(&context, &mut base_offsets, &circumstances, &mut epochs)?;
        let mut log_start = log_start;
        let mut unremoved = Vec::new();
        if log_start <= recovered.log_end {
            if let Err(error) = removal::remove(&context, &deleted, Order::Any) {
                let path = context.directory.to_path_buf();
                let reason = format!("removing deleted segments: {error}");
                findings.push(Finding::Nuisance { path, reason });
                // As long as they are there, the start stays on record.
                unremoved = deleted;
            }
        } else if recovered.latch.is_none() {
            // Nothing goes on the word of a checkpoint that cannot be true.
            let path = context.directory.to_path_buf();
            let reason =
                format!("it cannot begin at {log_start}, it ends at {}", recovered.log_end);
            findings.push(Finding::Nuisance { path, reason });
            log_start = 0;
            base_offsets.splice(..0, deleted);
            recovered =
                recovery::recover(&context, &mut base_offsets, &circumstances, &mut epochs)?;
        }
        findings.extend(recovered.findings);
        let log_end = recovered.log_end;
        let log_start = log_start.max(base_offsets[0]).min(log_end);
        if recovered.was_unclean {
            epochs.clip(log_start, log_end);
            epochs.write()?;
        }
        let producer_snapshot = if recovered.met_producers {
            None
        } else {
            let seen = if recovered.saw_whole_log { LogSeen::Whole } else { LogSeen::Part };
            producer_snapshot::newest(&context, &listing.snapshots, log_end, seen)?
        };
        let last = *base_offsets.last().expect("recovery leaves the first segment");
        let last_end = context.disk.len(&context.log_path(last))?;
        let latch = OnceLock::new();
        let gate = SyncGate::new(log_end);
        if let Some(reason) = recovered.latch {
            let reason: Arc<str> = reason.into();
            gate.fail(&reason);
            latch.get_or_init(|| reason);
        }
        let partition = Partition {
            writer: Mutex::new(Writer {
                phase: Phase::Open,
                live: None,
                parked: None,
                found: None,
                config,
                raise_epoch: recovered.was_unclean || epochs.latest() < 0,
                epochs,
                append_time_ms: -1,
                unsynced_len: 0,
                producer_snapshot,
            }),
            idle: Condvar::new(),
            segments: Segments::new(base_offsets, last_end, opening.open_segments),
            live_tails: opening.live_tails,
            shown: Shown::new(Watermarks::new(log_start, log_end), None),
            gate,
            unsealed: Unsealed::default(),
            compacting: Compacting::default(),
            removed: Removed::with_files(unremoved),
            budget: opening.budget,
            charged: Charged::default(),
            latch,
            attention: opening.attention,
            asked_within_ms: AtomicU64::new(u64::MAX),
            unindexed: recovered.unindexed,
            context,
            clock,
        };
        partition.recharge()?;
        Ok((Arc::new(partition), findings))
    }

    /// Tells whether a batch of this length can be appended at once: nobody is busy, and there is room.
    #[cfg(test)]
    pub(crate) fn has_room_for_test(&self, len: u64) -> bool {
        let writer = self.writer.try_lock();
        let is_ready = |writer: &Writer| {
            writer.phase == Phase::Open
                && writer.live.as_ref().is_some_and(|live| {
                    let is_full = live.state.is_over || live.is_index_full;
                    let limit = live.tail.capacity().min(u64::from(writer.config.segment_bytes));
                    !is_full && live.tail.end() + len <= limit
                })
        };
        self.latch.get().is_none() && writer.is_some_and(|writer| is_ready(&writer))
    }

    /// Opens a log that another process may be appending to, for reading.
    pub(crate) fn open_to_follow(opening: Opening) -> Result<Arc<Partition>> {
        let Opening { context, config, clock, circumstances, log_start, .. } = opening;
        let (follow, segments) =
            Follow::start(&context, log_start, circumstances.clean, opening.open_segments)?;
        let (log_start, log_end) = (follow.log_start(), follow.log_end());
        let watermarks = Watermarks::following(log_start, log_end, circumstances.recovery_point);
        let partition = Partition {
            writer: Mutex::new(Writer {
                phase: Phase::Closed,
                live: None,
                parked: None,
                found: None,
                config,
                raise_epoch: false,
                epochs: LeaderEpochs::empty(&context.disk, Default::default()),
                append_time_ms: -1,
                unsynced_len: 0,
                producer_snapshot: None,
            }),
            idle: Condvar::new(),
            segments,
            live_tails: opening.live_tails,
            shown: Shown::new(watermarks, Some(follow)),
            gate: SyncGate::new(log_end),
            unsealed: Unsealed::default(),
            compacting: Compacting::default(),
            removed: Removed::default(),
            budget: opening.budget,
            charged: Charged::default(),
            latch: OnceLock::new(),
            attention: opening.attention,
            asked_within_ms: AtomicU64::new(u64::MAX),
            unindexed: None,
            context,
            clock,
        };
        Ok(Arc::new(partition))
    }

    /// Appends `batch` and returns the offsets it was given.
    ///
    /// Blocks while another caller appends or the segment is being rolled. Readers see the batch once
    /// this returns, and possibly before. Nothing is synchronised; the keeper is asked to do so within
    /// `sync_within`.
    ///
    /// # Errors
    ///
    /// * [`Error::RecordTooLarge`], [`Error::OutOfSpace`]: nothing was appended, later appends may succeed.
    /// * [`Error::Latched`]: nothing is visible; reopen the store.
    /// * [`Error::Closed`]: the partition was closed or deleted.
    #[inline]
    pub(crate) fn append(
        self: &Arc<Self>,
        batch: &mut EncodedBatch<'_>,
        door: Door,
        sync_within: Duration,
    ) -> Result<Appended, Box<Error>> {
        let mut writer = writer::lock(&self.writer);
        let mut log_end = self.shown.watermarks.log_end();
        // Asked under the lock: a failure between check and write must not slip through.
        if self.latch.get().is_some() || !writer.is_ready(batch, log_end, &self.clock) {
            log_end = self.make_ready(&mut writer, batch)?;
        }
        let append_time_ms = stamp_time(&mut writer, batch);
        let unwinding = LatchOnUnwind::of(self, "an append panicked");
        let appended = writer.append(batch, log_end, door);
        let end = log_end + i64::from(batch.record_count());
        match appended {
            Ok(()) => self.shown.watermarks.publish(end),
            Err(error) => {
                unwinding.defuse();
                return Err(Box::new(self.refused(error)));
            }
        }
        unwinding.defuse();
        let cold = match door {
            Door::Store | Door::Either => writer.cold_stretch(),
            Door::Write => None,
        };
        let is_much = writer.unsynced_len >= UNSYNCED_LEN_MAX;
        if is_much {
            writer.unsynced_len = 0;
        }
        drop(writer);
        self.shown.doorbells.ring();
        if let Some(stretch) = cold {
            // The keeper is gone only once the store is closing.
            drop(self.attention.send(Attention::Warm(stretch)));
        }
        self.ask_for_sync(if is_much { Duration::ZERO } else { sync_within });
        Ok(Appended { offsets: log_end..end, append_time_ms })
    }

    /// Waits, opens, rolls until the writer is ready for a batch, or refuses it. Gives the log end.
    #[cold]
    fn make_ready(
        self: &Arc<Self>,
        writer: &mut MutexGuard<'_, Writer>,
        batch: &EncodedBatch<'_>,
    ) -> Result<i64> {
        loop {
            self.refuse_if_latched()?;
            let log_end = self.shown.watermarks.log_end();
            match writer.readiness(batch, log_end, &self.clock)? {
                Readiness::Ready => return Ok(log_end),
                Readiness::Busy => self.idle.wait(writer),
                Readiness::Cold => self.change_tail(writer, |p, _| p.warm(), None)?,
                Readiness::Full => self.change_tail(writer, Self::rolled, None)?,
                Readiness::Ungranted => self.grant(writer, batch.len())?,
            }
        }
    }

    /// Takes on a changed configuration; what shapes segments applies from the next roll.
    pub(crate) fn reconfigure(self: &Arc<Self>, config: Arc<LogConfig>) {
        self.writer.lock().config = config;
        self.look_at_waiting();
    }

    /// Ends appending and leaves the directory as Kafka leaves it after a clean close: everything
    /// durable, files trimmed, indexes and producer snapshot written.
    ///
    /// # Errors
    ///
    /// * Whatever kept the directory from getting there; then it must be opened as after a crash.
    pub(crate) fn close(self: &Arc<Self>) -> Result<()> {
        if self.shown.follow.is_some() {
            return Ok(());
        }
        self.compacting.end();
        let mut writer = self.writer.lock();
        while writer.phase == Phase::Busy {
            self.idle.wait(&mut writer);
        }
        if writer.phase == Phase::Closed {
            return Ok(());
        }
        self.refuse_if_latched()?;
        self.change_tail(&mut writer, Self::cooled, Some(Phase::Closed))
    }

    /// Ends appending for good, because the topic is being deleted; wakes everyone who waits.
    pub(crate) fn mark_deleted(self: &Arc<Self>) {
        self.compacting.end();
        let mut writer = self.writer.lock();
        while writer.phase == Phase::Busy {
            self.idle.wait(&mut writer);
        }
        writer.phase = Phase::Closed;
        self.shown.is_deleted.store(true, Ordering::Release);
        let live = writer.live.take();
        writer.parked = None;
        drop(writer);
        self.charged.clear(&self.budget);
        self.live_tails.forget(&self.as_parkable());
        // The directory's name may soon be another topic's, and whoever holds a handle may hold it for long:
        // nothing is written there any more, and nothing is held of it but what somebody reads.
        self.forget_unsealed();
        drop(live);
        self.segments.retire(&self.context.directory);
        self.gate.fail(&Arc::from("the topic was deleted"));
        self.shown.doorbells.ring_for_the_last_time();
    }

    /// Tells whether its topic is compacted.
    pub(crate) fn is_compacted(&self) -> bool {
        self.writer.lock().config.compaction.is_some()
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.shown.is_deleted.load(Ordering::Acquire)
    }

    pub(crate) fn watermarks(&self) -> &Watermarks {
        &self.shown.watermarks
    }

    pub(crate) fn doorbells(&self) -> &Doorbells {
        &self.shown.doorbells
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.context.directory
    }

    pub(crate) fn latch_reason(&self) -> Option<&Arc<str>> {
        self.latch.get()
    }

    #[cfg(test)]
    pub(crate) fn segment_count(&self) -> usize {
        self.segments.count()
    }

    pub(crate) fn segments(&self) -> &Segments {
        &self.segments
    }

    pub(crate) fn gaps_below(&self) -> i64 {
        self.context.gaps.below()
    }

    pub(crate) fn refuse_if_latched(&self) -> Result<()> {
        match self.latch.get() {
            Some(reason) => Err(self.latched(Arc::clone(reason))),
            None => Ok(()),
        }
    }

    /// Gives the error for a failed append; latches the partition if nobody knows what is in the file.
    #[cold]
    fn refused(&self, error: AppendError) -> Error {
        match error {
            AppendError::Clean(error) => error,
            AppendError::Torn(error) => self.latch(&format!("an append failed: {error}")),
        }
    }

    /// Latches the partition and gives the error that says so.
    fn latch(&self, reason: &str) -> Error {
        let reason = Arc::clone(self.latch.get_or_init(|| reason.into()));
        self.gate.fail(&reason);
        self.latched(reason)
    }

    fn latched(&self, reason: Arc<str>) -> Error {
        if self.is_deleted() {
            return Error::Closed;
        }
        Error::Latched { path: self.context.directory.to_path_buf(), reason }
    }
}

/// Makes the batch carry the append time where the topic says so. It never decreases within a partition,
/// so that looking up a time finds everything behind it.
#[inline]
fn stamp_time(writer: &mut Writer, batch: &mut EncodedBatch<'_>) -> Option<i64> {
    if writer.config.timestamp_type != TimestampType::LogAppendTime {
        return None;
    }
    if batch.max_timestamp_ms() < writer.append_time_ms {
        batch.set_append_time(writer.append_time_ms);
    }
    writer.append_time_ms = batch.max_timestamp_ms();
    Some(batch.max_timestamp_ms())
}

/// Latches the partition if what it guards unwinds: nobody knows what is in the files.
struct LatchOnUnwind<'p> {
    partition: &'p Partition,
    reason: Option<&'static str>,
}

impl<'p> LatchOnUnwind<'p> {
    fn of(partition: &'p Partition, reason: &'static str) -> LatchOnUnwind<'p> {
        LatchOnUnwind { partition, reason: Some(reason) }
    }

    fn defuse(mut self) {
        self.reason = None;
    }
}

impl Drop for LatchOnUnwind<'_> {
    fn drop(&mut self) {
        if let Some(reason) = self.reason {
            self.partition.latch(reason);
        }
    }
}

/// More than this is not left unsynchronised for longer than it takes: it bounds what recovery scans.
const UNSYNCED_LEN_MAX: u64 = 64 << 20;
