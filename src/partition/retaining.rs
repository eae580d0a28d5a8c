//! What retention knows of one log, and how far it lets go of it.
//!
//! The rules are in `partition/retention.rs`; that the log's start moves is put on record by the floor above.

use std::sync::Arc;

use crate::error::Error;
use crate::error::Result;
use crate::partition::Partition;
use crate::partition::retention;
use crate::partition::retention::Kept;
use crate::partition::retention::RetentionOutlook;
use crate::partition::segments::Segment;
use crate::partition::writer::Phase;
use crate::retention_config::RetentionPolicy;
use crate::storage::extent;
use crate::storage::extent::Extent;

/// How far a log is to be let go of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LettingGo {
    /// Where the log is to begin then.
    pub(crate) start: i64,
    /// What goes with it.
    pub(crate) segments: usize,
    pub(crate) bytes: u64,
}

/// What a log takes, how old what is in it is, and what goes next.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) segments: usize,
    pub(crate) len: u64,
    pub(crate) oldest_ms: Option<i64>,
    pub(crate) newest_ms: Option<i64>,
    pub(crate) outlook: RetentionOutlook,
}

impl Partition {
    /// Says what the log takes, and what retention lets go of next. Looks at files, and may open some.
    pub(crate) fn look_at_usage(&self, now_ms: i64) -> Result<Usage> {
        self.despite_compaction(|| {
            let kept = self.kept()?;
            let log_start = self.watermarks().log_start();
            let newest_ms = kept.iter().map(|segment| segment.extent.largest_timestamp_ms).max();
            Ok(Usage {
                segments: kept.len(),
                len: kept.iter().map(|segment| segment.extent.len).sum(),
                oldest_ms: self.oldest_ms()?,
                newest_ms: newest_ms.filter(|newest_ms| *newest_ms >= 0),
                outlook: retention::outlook(&kept, log_start, self.policy(), now_ms),
            })
        })
    }

    /// Gives the time of the first record, as its batch says; `None` if there is none, or it says nothing, or cannot be
    /// read.
    fn oldest_ms(&self) -> Result<Option<i64>> {
        let start = self.watermarks().log_start();
        let segments = self.segments.snapshot();
        let holding = segments.partition_point(|segment| segment.base_offset() <= start);
        for segment in &segments[holding.saturating_sub(1)..] {
            let located = match self.open_segment(segment)?.locate(start) {
                // Whoever reads it is told.
                Err(Error::Corrupt { .. }) => return Ok(None),
                located => located?,
            };
            let Some(first) = located else { continue };
            let is_base_told = !first.header.attributes.is_log_append_time()
                && !first.header.attributes.has_delete_horizon();
            let header = &first.header;
            let told =
                if is_base_told { header.base_timestamp_ms } else { header.max_timestamp_ms };
            return Ok(Some(told).filter(|told| *told >= 0));
        }
        Ok(None)
    }

    /// Gives the topic's policy as it is in force.
    pub(crate) fn policy(&self) -> RetentionPolicy {
        self.writer.lock().config.retention
    }

    /// Says how far retention lets go of the log now, and seals what is to go. If that is all of it, the last segment is
    /// followed by another before; blocks meanwhile.
    ///
    /// # Errors
    ///
    /// * A segment's files cannot be looked at, or the last segment not be followed by another; as
    ///   [`roll_now`](Self::roll_now).
    /// * As [`prepare_to_let_go`](Self::prepare_to_let_go).
    pub(crate) fn plan_to_let_go(self: &Arc<Self>, now_ms: i64) -> Result<LettingGo> {
        let log_start = self.watermarks().log_start();
        let mut kept = self.kept()?;
        let mut expired = retention::expired(&kept, log_start, self.policy(), now_ms);
        if expired.count == kept.len() {
            self.roll_now()?;
            // What was appended meanwhile may have made it young.
            kept = self.kept()?;
            expired = retention::expired(&kept, log_start, self.policy(), now_ms);
            // Appends and clocks go on; the next look takes the rest.
            expired.count = expired.count.min(kept.len() - 1);
        }
        self.prepare_to_let_go(&kept, expired.count)
    }

    /// Seals the first `count` of the segments, so that what is let go of was durable: see the invariant (deleted stays
    /// deleted). Gives the plan to let go of them; where the disk is too full to seal them, of those that are sealed.
    /// Blocks meanwhile.
    ///
    /// # Errors
    ///
    /// * As [`seal_below`](Self::seal_below), and [`Error::OutOfSpace`] if not one is sealed. Nothing is let go of.
    pub(crate) fn prepare_to_let_go(&self, kept: &[Kept], count: usize) -> Result<LettingGo> {
        let count = match self.seal_below(kept[count].base_offset) {
            Ok(()) => count,
            Err(error @ Error::OutOfSpace { .. }) => {
                let unsealed = self.unsealed.queue.lock().oldest().unwrap_or(i64::MAX);
                let is_sealed = |segment: &&Kept| segment.base_offset < unsealed;
                match kept[..count].iter().take_while(is_sealed).count() {
                    0 => return Err(error),
                    sealed => sealed,
                }
            }
            Err(other) => return Err(other),
        };
        Ok(LettingGo {
            start: kept[count].base_offset,
            segments: count,
            bytes: kept[..count].iter().map(|segment| segment.extent.len).sum(),
        })
    }

    /// Gives all segments, the oldest first: where they begin, how long they are and how old.
    pub(crate) fn kept(&self) -> Result<Vec<Kept>> {
        loop {
            let segments = self.segments.snapshot();
            let kept = segments.iter().map(|segment| {
                Ok(Kept { base_offset: segment.base_offset(), extent: self.extent_of(segment)? })
            });
            match kept.collect() {
                // It went, or was compacted, meanwhile.
                Err::<Vec<Kept>, Error>(error)
                    if error.is_not_found()
                        && !Arc::ptr_eq(&segments, &self.segments.snapshot()) => {}
                kept => return kept,
            }
        }
    }

    pub(super) fn extent_of(&self, segment: &Arc<Segment>) -> Result<Extent> {
        if let Some(known) = segment.known().get() {
            return Ok(*known);
        }
        match (self.extent_by_name(segment), segment.if_open()) {
            // While compaction renames its file, the segment is open; and it is about to be another.
            (Err(error), Some(open)) if error.is_not_found() => Ok(Extent {
                len: open.end(),
                largest_timestamp_ms: open.largest_timestamp_ms()?,
                modified_ms: self.clock.now_ms(),
            }),
            (extent, _) => extent,
        }
    }

    fn extent_by_name(&self, segment: &Arc<Segment>) -> Result<Extent> {
        let modified_ms = || {
            let path = self.context.log_path(segment.base_offset());
            Ok::<_, Error>(self.context.disk.len_and_modified(&path)?.1)
        };
        if let Some(open) = segment.live_open() {
            // In this order: the indexes are caught up with before the writer lets go of the segment.
            let noted_ms = self.noted_timestamp_ms(segment.base_offset());
            let largest_timestamp_ms = open.largest_timestamp_ms()?.max(noted_ms);
            return Ok(Extent {
                len: open.end(),
                largest_timestamp_ms,
                modified_ms: modified_ms()?,
            });
        }
        let parked = {
            let writer = self.writer.lock();
            let is_last = self.segments.last().base_offset() == segment.base_offset();
            let parked = writer.parked.as_ref().filter(|_| is_last);
            parked.map(|parked| (parked.end, parked.indexes.largest_timestamp_ms()))
        };
        let extent = match (parked, segment.shown_end()) {
            (Some((len, largest_timestamp_ms)), _) => {
                Extent { len, largest_timestamp_ms, modified_ms: modified_ms()? }
            }
            (None, None) => match extent::of_sealed(&self.context, segment.base_offset())? {
                Some(extent) => extent,
                None => self.extent_by_opening(segment, modified_ms()?)?,
            },
            (None, Some(0)) => {
                Extent { len: 0, largest_timestamp_ms: -1, modified_ms: modified_ms()? }
            }
            (None, Some(_)) => self.extent_by_opening(segment, modified_ms()?)?,
        };
        if segment.is_still() { Ok(*segment.known().get_or_init(|| extent)) } else { Ok(extent) }
    }

    fn extent_by_opening(&self, segment: &Arc<Segment>, modified_ms: i64) -> Result<Extent> {
        let open = self.open_segment(segment)?;
        let largest_timestamp_ms = open.largest_timestamp_ms()?;
        Ok(Extent { len: open.end(), largest_timestamp_ms, modified_ms })
    }

    /// Gives the greatest timestamp of the segment that is being appended to, which its indexes may not know of yet.
    fn noted_timestamp_ms(&self, base_offset: i64) -> i64 {
        let mut writer = self.writer.lock();
        while writer.phase == Phase::Busy {
            self.idle.wait(&mut writer);
        }
        let live = writer.live.as_ref().filter(|live| live.open.base_offset() == base_offset);
        live.map_or(-1, |live| live.noting.largest_timestamp_ms())
    }
}
