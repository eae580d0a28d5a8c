//! What happens to the last segment: opened for appending, sealed, followed by the next, closed.
//!
//! All of it goes through [`change_tail`](Partition::change_tail): the tail is taken out of the writer,
//! changed without the lock while appends wait, and put back.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::panic::resume_unwind;
use std::sync::Arc;

use parking_lot::MutexGuard;

use crate::error::Result;
use crate::format::decode;
use crate::partition::Partition;
use crate::partition::producer_snapshot;
use crate::partition::writer::LiveTail;
use crate::partition::writer::Phase;
use crate::partition::writer::Writer;
use crate::storage::disk::Access;
use crate::storage::disk::DiskFile;
use crate::storage::indexes;
use crate::storage::indexes::Indexes;
use crate::storage::map::Tail;
use crate::storage::segment;
use crate::storage::segment::OpenSegment;

impl Partition {
    /// Runs `change` on the live tail without the lock, while appends wait; then puts back what it
    /// returns. A failed change leaves the partition as it was, unless it latched.
    pub(super) fn change_tail(
        &self,
        writer: &mut MutexGuard<'_, Writer>,
        change: impl FnOnce(&Partition, Option<LiveTail>) -> (Option<LiveTail>, Result<()>),
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

    /// Opens the last segment for appending.
    pub(super) fn warm(&self) -> (Option<LiveTail>, Result<()>) {
        let warmed = (|| {
            let last = self.segments.last();
            let cold = last.open(&self.context)?;
            let first = cold.view().and_then(|view| decode::header_at(view.from(0)).ok());
            let interval = self.writer.lock().config.index_interval_bytes;
            let indexes = cold.indexes_to_continue(interval)?;
            self.begin_epoch(indexes.largest_timestamp_ms())?;
            let file = self.context.disk.open(cold.path(), Access::Write)?;
            let live = self.live_tail(
                file,
                last.base_offset(),
                cold.end(),
                indexes,
                first.map_or(-1, |header| header.max_timestamp_ms),
            )?;
            self.segments.warm_last(Arc::clone(&live.open), Arc::clone(live.tail.file()));
            Ok(live)
        })();
        match warmed {
            Ok(live) => (Some(live), Ok(())),
            Err(error) => (None, Err(error)),
        }
    }

    /// Seals the last segment and begins the next.
    pub(super) fn rolled(&self, live: Option<LiveTail>) -> (Option<LiveTail>, Result<()>) {
        let Some(mut live) = live else {
            return (None, Ok(()));
        };
        let next = self.watermarks.log_end();
        if live.open.base_offset() == next {
            // Empty, and yet too small: `segment.bytes` was raised. The same file gets a larger tail.
            drop(live);
            return self.warm();
        }
        let begun = self.seal(&mut live).and_then(|()| {
            let snapshot = self.writer.lock().producer_snapshot.clone();
            self.write_snapshot(next, snapshot.as_deref())?;
            let file = segment::create_files(&self.context, next)?;
            // A created file counts only once its directory entry is durable.
            self.context.disk.sync_directory(&self.context.directory)?;
            let interval = self.writer.lock().config.index_interval_bytes;
            let indexes = Indexes::new(next, interval);
            self.live_tail(file, next, 0, indexes, -1)
        });
        match begun {
            Ok(begun) => {
                self.segments.roll(Arc::clone(&begun.open), Arc::clone(begun.tail.file()));
                (Some(begun), Ok(()))
            }
            // Sealed but not rolled: the old segment is still the last, and still takes nothing, so
            // the next append tries again.
            Err(error) => (Some(live), Err(error)),
        }
    }

    /// Begins a new leader epoch, durably, if the last life ended without a clean close.
    fn begin_epoch(&self, append_time_ms: i64) -> Result<()> {
        let mut writer = self.writer.lock();
        writer.append_time_ms = writer.append_time_ms.max(append_time_ms);
        if writer.raise_epoch {
            let mut epochs = writer.epochs.clone();
            drop(writer);
            epochs.raise(self.watermarks.log_end())?;
            writer = self.writer.lock();
            writer.epochs = epochs;
            writer.raise_epoch = false;
        }
        Ok(())
    }

    /// Seals the last segment for good.
    pub(super) fn cooled(&self, live: Option<LiveTail>) -> (Option<LiveTail>, Result<()>) {
        let Some(mut live) = live else {
            return (None, Ok(()));
        };
        let snapshot = self.writer.lock().producer_snapshot.clone();
        let end = self.watermarks.log_end();
        match self.seal(&mut live).and_then(|()| self.write_snapshot(end, snapshot.as_deref())) {
            Ok(()) => {
                self.segments.cool_last();
                (None, Ok(()))
            }
            Err(error) => (Some(live), Err(error)),
        }
    }

    fn live_tail(
        &self,
        file: DiskFile,
        base_offset: i64,
        end: u64,
        indexes: Indexes,
        first_timestamp_ms: i64,
    ) -> Result<LiveTail> {
        let config = Arc::clone(&self.writer.lock().config);
        let is_index_full = indexes.is_full(config.segment_index_bytes);
        let capacity = u64::from(config.segment_bytes);
        let tail = Tail::open(file, end, capacity, self.context.lock.clone())?;
        let mapping = Arc::clone(tail.mapping());
        let open = OpenSegment::live(self.context.clone(), base_offset, mapping, end, indexes);
        let created_ms = self.clock.now_ms();
        Ok(LiveTail { tail, open: Arc::new(open), first_timestamp_ms, created_ms, is_index_full })
    }

    /// Makes a segment what it will be for ever: trimmed, durable, with its indexes.
    fn seal(&self, live: &mut LiveTail) -> Result<()> {
        let end = self.watermarks.log_end();
        live.tail.trim()?;
        if let Err(error) = live.tail.file().sync_all() {
            return Err(self.latch(&format!("a sync failed: {error}")));
        }
        self.watermarks.note_durable(end);
        self.gate.note_durable(end);
        self.doorbells.ring();
        let indexes = live.open.indexes_of_live().read().clone();
        indexes::write_indexes(&self.context.disk, live.open.path(), &indexes)
    }

    fn write_snapshot(&self, end: i64, snapshot: Option<&[u8]>) -> Result<()> {
        let Some(snapshot) = snapshot else {
            return Ok(());
        };
        producer_snapshot::write(&self.context, &self.segments, end, snapshot)
    }
}
