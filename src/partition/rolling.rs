//! What happens to the last segment: opened for appending, sealed, followed by the next, closed. That it may be
//! parked in between is told in `partition/parking.rs`.
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
use crate::partition::Attention;
use crate::partition::Partition;
use crate::partition::live_tails::Place;
use crate::partition::producer_snapshot;
use crate::partition::segments::Segment;
use crate::partition::writer::Found;
use crate::partition::writer::LiveTail;
use crate::partition::writer::Parked;
use crate::partition::writer::Phase;
use crate::partition::writer::TailState;
use crate::partition::writer::Writer;
use crate::storage::disk::Access;
use crate::storage::indexes::Indexes;
use crate::storage::map::Tail;
use crate::storage::parked_indexes::Written;
use crate::storage::planted::Planted;
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

    /// Closes the last segment if it is older than `segment.ms`, whether or not anybody has appended to it in this life;
    /// says when to look again.
    pub(crate) fn roll_if_due(self: &Arc<Self>, now_ms: i64) -> Result<Option<i64>> {
        self.look_at_idle_tail()?;
        let mut writer = self.writer.lock();
        while writer.phase == Phase::Busy {
            self.idle.wait(&mut writer);
        }
        if writer.phase == Phase::Closed || self.latch.get().is_some() {
            return Ok(None);
        }
        match writer.due_ms() {
            Some(due) if due < now_ms => {
                if writer.live.is_none() {
                    self.change_tail(&mut writer, |p, _| p.warm(), None)?;
                }
                self.change_tail(&mut writer, Self::rolled, None)?;
                Ok(None)
            }
            due => Ok(due),
        }
    }

    /// Finds out how old the last segment is where an earlier life left it; once, and with no lock held.
    fn look_at_idle_tail(&self) -> Result<()> {
        let is_idle = |writer: &Writer| {
            writer.phase == Phase::Open && writer.live.is_none() && writer.parked.is_none()
        };
        let is_unknown = |writer: &Writer| is_idle(writer) && writer.found.is_none();
        if !is_unknown(&self.writer.lock()) {
            return Ok(());
        }
        let last = self.segments.last();
        let found = self.found(&last, &*self.segments.open(&last, &self.context)?)?;
        let mut writer = self.writer.lock();
        // Whoever has appended meanwhile knows better.
        if is_idle(&writer) && self.segments.last().base_offset() == last.base_offset() {
            writer.found = Some(found);
        }
        Ok(())
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

    /// Opens the last segment for appending: where it was parked, or as an earlier life left it.
    pub(super) fn warm(self: &Arc<Self>) -> (Option<LiveTail>, Result<()>) {
        let place = self.live_tails.admit();
        let (parked, found) = {
            let mut writer = self.writer.lock();
            (writer.parked.take(), writer.found.take())
        };
        let warmed = (|| {
            let last = self.segments.last();
            let (end, state, indexes) = match &parked {
                Some(parked) => self.making_room(|| self.as_parked(parked, &last))?,
                None => self.making_room(|| self.as_found(&last, found))?,
            };
            self.making_room(|| self.begin_epoch(indexes.largest_timestamp_ms()))?;
            let path = self.context.log_path(last.base_offset());
            let tail = self.making_room(|| {
                let file = self.context.disk.open(&path, Access::Write)?;
                let len = file.len()?;
                if len != end && !self.context.disk.has(Planted::TailKept) {
                    let reason = "the segment has not the length it must have";
                    let position = len.min(end);
                    return Err(Error::Corrupt {
                        path: path.clone(),
                        position,
                        reason,
                        resume: None,
                    });
                }
                Tail::open(file, end, self.capacity(), self.context.lock.clone())
            })?;
            let live = self.live_tail(tail, last.base_offset(), state, indexes, place);
            self.segments.warm_last(Arc::clone(&live.open), Arc::clone(live.tail.file()));
            Ok(live)
        })();
        match warmed {
            Ok(live) => {
                self.live_tails.list(self.as_parkable());
                (Some(live), Ok(()))
            }
            Err(error) => {
                self.writer.lock().parked = parked;
                (None, Err(error))
            }
        }
    }

    /// Gives the last segment as an earlier life left it, and what is to be known of it; `found` if that was looked at.
    fn as_found(&self, last: &Segment, found: Option<Found>) -> Result<(u64, TailState, Indexes)> {
        let cold = self.segments.open(last, &self.context)?;
        let interval = self.writer.lock().config.index_interval_bytes;
        let Found { end, state } = found.map_or_else(|| self.found(last, &cold), Ok)?;
        // There is nothing to be known of an empty segment's.
        let indexes = match end {
            0 => Indexes::new(last.base_offset(), interval),
            _ => cold.indexes_to_continue(interval)?,
        };
        Ok((end, state, indexes))
    }

    fn found(&self, last: &Segment, cold: &OpenSegment) -> Result<Found> {
        let end = cold.end();
        let first = match cold.view() {
            Some(view) => {
                cold.bring_header(&view, 0)?;
                decode::header_at(view.from(0)).ok()
            }
            None => None,
        };
        let first_timestamp_ms = first.map_or(-1, |header| header.max_timestamp_ms);
        // Where records have no times a segment ages from when it was written to last: nothing says when it was made.
        let begun_ms = if end > 0 && first_timestamp_ms < 0 {
            self.context.disk.len_and_modified(&self.context.log_path(last.base_offset()))?.1
        } else {
            self.clock.now_ms()
        };
        let state =
            TailState { first_timestamp_ms, was_taken_over: end > 0, ..TailState::new(begun_ms) };
        Ok(Found { end, state })
    }

    /// Gives the last segment as it was when it was parked.
    fn as_parked(&self, parked: &Parked, last: &Segment) -> Result<(u64, TailState, Indexes)> {
        let path = self.context.log_path(last.base_offset());
        if let Some(indexes) = parked.indexes.resumed(&self.context.disk, &path)? {
            return Ok((parked.end, parked.state, indexes));
        }
        // Somebody else wrote to the index files: the log itself says what they are.
        let state = TailState { written: Written::default(), ..parked.state };
        Ok((parked.end, state, self.segments.open(last, &self.context)?.rebuild_indexes()?))
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
        let ready = if live.state.was_taken_over {
            self.seal(&mut live, next)
        } else {
            self.make_room_to_seal()
        };
        let begun = match ready.and_then(|()| self.begun(&live, next)) {
            Ok(begun) => begun,
            // The old segment is still the last, and takes nothing, not even a shorter batch than the one
            // that met its end: the next segment's file may be there already, and it says where this one
            // ends. So the next append tries again.
            Err(error) => {
                live.state.is_over = true;
                return (Some(live), Err(error));
            }
        };
        let (open, file) = (Arc::clone(&begun.open), Arc::clone(begun.tail.file()));
        if live.state.was_taken_over {
            self.segments.cool(live.open.base_offset());
            self.segments.push_live(open, file);
            // It was sealed here, so no one else says that there may be something to compact.
            if self.is_compacted() {
                drop(self.attention.send(Attention::Clean));
            }
        } else {
            // Before anybody sees the new segment: who does must find the old one among the unsealed.
            self.leave_to_be_sealed(live, next);
            self.segments.push_live(open, file);
            self.ask_to_seal();
        }
        // The old segment gives back what it was granted and did not need.
        let charged = self.recharge();
        (Some(begun), charged)
    }

    /// Makes the files of a segment that begins at `next`, and its tail.
    fn begun(&self, before: &LiveTail, next: i64) -> Result<LiveTail> {
        let place = self.live_tails.admit();
        let tail = self.making_room(|| {
            let file = segment_files::create_files(&self.context, next)?;
            let tail = (|| {
                // What is in a created file counts only once its directory entry is durable. For one that
                // follows an unsealed segment, that is part of sealing it.
                let disk = &self.context.disk;
                if before.state.was_taken_over && !disk.has(Planted::NameNotSynced) {
                    disk.sync_directory(&self.context.directory)?;
                }
                let lock = self.context.lock.clone();
                Tail::open_behind(&before.tail, file, self.capacity(), lock)
            })();
            tail.inspect_err(|_| segment_files::remove_files(&self.context, next))
        })?;
        let interval = self.writer.lock().config.index_interval_bytes;
        let state = TailState::new(self.clock.now_ms());
        Ok(self.live_tail(tail, next, state, Indexes::new(next, interval), place))
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
        let end = self.shown.watermarks.log_end();
        let Some(mut live) = live else {
            // Nothing was appended, or the last segment could not be opened behind others that were, or it is
            // parked.
            let parked = self.writer.lock().parked.take();
            let finished = self.seal_followed().and_then(|()| match &parked {
                Some(parked) => {
                    self.finish_parked(parked, end).and_then(|()| self.remove_old_snapshots(end))
                }
                None => Ok(()),
            });
            if finished.is_err() {
                self.writer.lock().parked = parked;
            }
            return (None, finished);
        };
        let base_offset = live.open.base_offset();
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
        state: TailState,
        indexes: Indexes,
        place: Place,
    ) -> LiveTail {
        let mut tail = tail;
        if self.is_charged() {
            // The first append asks.
            tail.grant(tail.end());
        }
        let is_index_full = indexes.is_full(self.writer.lock().config.segment_index_bytes);
        let noting = indexes.noting();
        let (mapping, end) = (Arc::clone(tail.mapping()), tail.end());
        let open = OpenSegment::live(self.context.clone(), base_offset, mapping, end, indexes);
        LiveTail { tail, open: Arc::new(open), state, noting, is_index_full, _place: place }
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
