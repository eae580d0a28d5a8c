//! What happens to the last segment: opened for appending, sealed, followed by the next, closed.
//!
//! All of it goes through [`change_tail`](Partition::change_tail): the tail is taken out of the writer,
//! changed without the lock while appends wait, and put back.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::panic::resume_unwind;
use std::sync::Arc;

use parking_lot::MutexGuard;

use crate::error::Error;
use crate::error::Result;
use crate::format::decode;
use crate::partition::Partition;
use crate::partition::producer_snapshot;
use crate::partition::writer::LiveTail;
use crate::partition::writer::Phase;
use crate::partition::writer::Writer;
use crate::storage::disk::Access;
use crate::storage::indexes::Indexes;
use crate::storage::map::Tail;
use crate::storage::segment::OpenSegment;
use crate::storage::segment_files;

impl Partition {
    /// Runs `change` on the live tail without the lock, while appends wait; then puts back what it
    /// returns. A failed change leaves the partition as it was, unless it latched.
    pub(super) fn change_tail(
        self: &Arc<Self>,
        writer: &mut MutexGuard<'_, Writer>,
        change: impl FnOnce(&Arc<Partition>, Option<LiveTail>) -> (Option<LiveTail>, Result<()>),
        phase_after: Option<Phase>,
    ) -> Result<()> {
        writer.phase = Phase::Busy;
        let live = writer.live.take();
        let outcome =
            MutexGuard::unlocked(writer, || catch_unwind(AssertUnwindSafe(|| change(self, live))));
        writer.phase = Phase::Open;
        self.idle.notify_all();
        let (live, result) = outcome.unwrap_or_else(|panic| {
            self.latch("changing segments panicked");
            resume_unwind(panic)
        });
        writer.live = live;
        if let (Ok(()), Some(phase)) = (&result, phase_after) {
            writer.phase = phase;
        }
        result
    }

    /// Closes the last segment, if there is anything in it, so that a compaction can take it in.
    pub(crate) fn roll_now(self: &Arc<Self>) -> Result<()> {
        let mut writer = self.writer.lock();
        loop {
            self.refuse_if_latched()?;
            match writer.phase {
                Phase::Open => break,
                Phase::Busy => self.idle.wait(&mut writer),
                Phase::Closed => return Err(Error::Closed),
            }
        }
        if self.segments.last().base_offset() == self.shown.watermarks.log_end() {
            return Ok(());
        }
        if writer.live.is_none() {
            self.change_tail(&mut writer, |p, _| p.warm(), None)?;
        }
        self.change_tail(&mut writer, Self::rolled, None)
    }

    /// Opens the last segment for appending.
    pub(super) fn warm(&self) -> (Option<LiveTail>, Result<()>) {
        let warmed = (|| {
            let last = self.segments.last();
            let cold = self.segments.open(&last, &self.context)?;
            let first = cold.view().and_then(|view| decode::header_at(view.from(0)).ok());
            let interval = self.writer.lock().config.index_interval_bytes;
            let indexes = cold.indexes_to_continue(interval)?;
            self.begin_epoch(indexes.largest_timestamp_ms())?;
            let file = self.context.disk.open(cold.path(), Access::Write)?;
            let lock = self.context.lock.clone();
            let tail = Tail::open(file, cold.end(), self.capacity(), lock)?;
            let first_timestamp_ms = first.map_or(-1, |header| header.max_timestamp_ms);
            let live = self.live_tail(tail, last.base_offset(), indexes, first_timestamp_ms);
            self.segments.warm_last(Arc::clone(&live.open), Arc::clone(live.tail.file()));
            Ok(live)
        })();
        match warmed {
            Ok(live) => (Some(live), Ok(())),
            Err(error) => (None, Err(error)),
        }
    }

    /// Begins the next segment. The last one is left to be sealed in the background, unless this life took
    /// it over from an earlier one: see the invariant (sealed shows).
    pub(super) fn rolled(
        self: &Arc<Self>,
        live: Option<LiveTail>,
    ) -> (Option<LiveTail>, Result<()>) {
        let Some(mut live) = live else {
            return (None, Ok(()));
        };
        let next = self.shown.watermarks.log_end();
        if live.open.base_offset() == next {
            // Empty, and yet too small: `segment.bytes` was raised. The same file gets a larger tail. Nothing
            // was reserved in it yet, so nobody is writing zeros there.
            drop(live);
            return self.warm();
        }
        let ready =
            if live.was_taken_over { self.seal(&mut live, next) } else { self.make_room_to_seal() };
        let begun = match ready.and_then(|()| self.begun(&live, next)) {
            Ok(begun) => begun,
            // The old segment is still the last, and takes nothing, not even a shorter batch than the one
            // that met its end: the next segment's file may be there already, and it says where this one
            // ends. So the next append tries again.
            Err(error) => {
                live.is_over = true;
                return (Some(live), Err(error));
            }
        };
        let (open, file) = (Arc::clone(&begun.open), Arc::clone(begun.tail.file()));
        if live.was_taken_over {
            self.segments.cool(live.open.base_offset());
            self.segments.push_live(open, file);
        } else {
            // Before anybody sees the new segment: who does must find the old one among the unsealed.
            self.leave_to_be_sealed(live, next);
            self.segments.push_live(open, file);
            self.ask_to_seal();
        }
        (Some(begun), Ok(()))
    }

    /// Makes the files of a segment that begins at `next`, and its tail.
    fn begun(&self, before: &LiveTail, next: i64) -> Result<LiveTail> {
        let file = segment_files::create_files(&self.context, next)?;
        let tail = (|| {
            // What is in a created file counts only once its directory entry is durable. For one that
            // follows an unsealed segment, that is part of sealing it.
            if before.was_taken_over {
                self.context.disk.sync_directory(&self.context.directory)?;
            }
            Tail::open_behind(&before.tail, file, self.capacity(), self.context.lock.clone())
        })();
        let tail = tail.inspect_err(|_| segment_files::remove_files(&self.context, next))?;
        let interval = self.writer.lock().config.index_interval_bytes;
        Ok(self.live_tail(tail, next, Indexes::new(next, interval), -1))
    }

    /// Begins a new leader epoch, durably, if the last life ended without a clean close.
    fn begin_epoch(&self, append_time_ms: i64) -> Result<()> {
        let mut writer = self.writer.lock();
        writer.append_time_ms = writer.append_time_ms.max(append_time_ms);
        if writer.raise_epoch {
            let mut epochs = writer.epochs.clone();
            drop(writer);
            epochs.raise(self.shown.watermarks.log_end())?;
            writer = self.writer.lock();
            writer.epochs = epochs;
            writer.raise_epoch = false;
        }
        Ok(())
    }

    /// Seals the last segment for good, and those before it.
    pub(super) fn cooled(
        self: &Arc<Self>,
        live: Option<LiveTail>,
    ) -> (Option<LiveTail>, Result<()>) {
        let Some(mut live) = live else {
            // Nothing was appended, or the last segment could not be opened behind others that were.
            return (None, self.seal_followed());
        };
        let base_offset = live.open.base_offset();
        let end = self.shown.watermarks.log_end();
        let sealed = self
            .seal_below(base_offset)
            .and_then(|()| self.seal(&mut live, end))
            .and_then(|()| self.remove_old_snapshots(end));
        match sealed {
            Ok(()) => {
                self.segments.cool(base_offset);
                (None, Ok(()))
            }
            Err(error) => (Some(live), Err(error)),
        }
    }

    fn live_tail(
        &self,
        tail: Tail,
        base_offset: i64,
        indexes: Indexes,
        first_timestamp_ms: i64,
    ) -> LiveTail {
        let is_index_full = indexes.is_full(self.writer.lock().config.segment_index_bytes);
        let noting = indexes.noting();
        let (mapping, end) = (Arc::clone(tail.mapping()), tail.end());
        let open = OpenSegment::live(self.context.clone(), base_offset, mapping, end, indexes);
        LiveTail {
            tail,
            open: Arc::new(open),
            first_timestamp_ms,
            created_ms: self.clock.now_ms(),
            noting,
            is_index_full,
            is_over: false,
            was_taken_over: end > 0,
        }
    }

    fn capacity(&self) -> u64 {
        u64::from(self.writer.lock().config.segment_bytes)
    }

    fn remove_old_snapshots(&self, end: i64) -> Result<()> {
        let is_known = self.writer.lock().producer_snapshot.is_some();
        if is_known {
            producer_snapshot::remove_old(&self.context, &self.segments, end)
        } else {
            Ok(())
        }
    }
}
