//! Where an offset or a time is in a segment: an index leads near, a walk over headers checks that offsets continue.

use crate::error::Error;
use crate::error::Result;
use crate::format::compression::Unpacked;
use crate::format::compression::Unpacker;
use crate::format::decode;
use crate::format::decode::BatchFault;
use crate::storage::indexes::Indexes;
use crate::storage::map::View;
use crate::storage::offset_index::IndexedBatch;
use crate::storage::scan::Continuity;
use crate::storage::segment::Located;
use crate::storage::segment::OpenSegment;
use crate::storage::time_index::TimeEntry;

impl OpenSegment {
    /// Finds the first batch that ends at or behind `offset`; `None` if the segment ends before.
    ///
    /// One look-up in the index, then a short walk over headers. Damage on the way is stepped over if
    /// a whole batch at or below `offset` is found behind it.
    ///
    /// # Errors
    ///
    /// * [`Error::Corrupt`] if damage lies where the offset must be.
    pub(crate) fn locate(&self, offset: i64) -> Result<Option<Located>> {
        let Some(view) = self.view() else {
            return Ok(None);
        };
        let start = self.index_floor(offset)?;
        let mut walk = Walk::new(self, &view);
        if let Some(indexed) = start {
            walk.start_at_indexed(indexed)?;
        }
        while let Some(found) = walk.step(offset)? {
            // A header that claims an offset further on must be believed only if the batch is whole.
            let claims = found.header.last_offset() >= offset;
            if claims && found.header.base_offset < offset && !self.is_whole(&view, found)? {
                walk.refuse(found, offset)?;
            } else if claims {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Finds the first record at or behind `offset_min` whose timestamp is at least `timestamp_ms`.
    pub(crate) fn find_timestamp(
        &self,
        timestamp_ms: i64,
        offset_min: i64,
    ) -> Result<Option<(i64, i64)>> {
        let Some(view) = self.view() else {
            return Ok(None);
        };
        let (latest, floor) = {
            let indexes = self.indexes()?.read();
            (indexes.latest, indexes.times.floor(timestamp_ms))
        };
        // An index is advice: what the answer rests on is checked against the log.
        let is_late = latest.timestamp_ms < timestamp_ms && !self.grows();
        if is_late && self.time_entry_holds(latest)? {
            return Ok(None);
        }
        let floor = match floor {
            Some(entry) if self.time_entry_holds(entry)? => entry.last_offset,
            _ => offset_min,
        };
        let start = self.indexes()?.read().offsets.floor(floor.max(offset_min));
        let mut walk = Walk::new(self, &view);
        if let Some(indexed) = start {
            walk.start_at_indexed(indexed)?;
        }
        let (mut unpacker, mut unpacked) = (Unpacker::default(), Unpacked::default());
        while let Some(found) = walk.step(offset_min)? {
            let header = found.header;
            let is_candidate = header.max_timestamp_ms >= timestamp_ms
                && header.last_offset() >= offset_min
                && !header.attributes.is_control();
            if !is_candidate {
                continue;
            }
            unpacked.clear();
            self.bring_batch(&view, found.position)?;
            let bytes = view.from(found.position);
            let batch = unpacker
                .verify(bytes, &mut unpacked)
                .map_err(|fault| self.fault_error(found.position, fault, header.base_offset))?;
            let wanted = |r: &decode::RawRecord<'_>| {
                r.timestamp_ms >= timestamp_ms && r.offset >= offset_min
            };
            if let Some(record) = batch.records().find(wanted) {
                return Ok(Some((record.offset, record.timestamp_ms)));
            }
        }
        Ok(None)
    }

    /// Tells whether the batch that a time entry names has the timestamp it states.
    fn time_entry_holds(&self, entry: TimeEntry) -> Result<bool> {
        if entry.timestamp_ms < 0 {
            return Ok(true);
        }
        let named = self.locate(entry.last_offset)?;
        Ok(named.is_some_and(|batch| batch.header.max_timestamp_ms == entry.timestamp_ms))
    }

    /// Gives the indexes as the log itself says they are.
    pub(crate) fn rebuild_indexes(&self) -> Result<Indexes> {
        let mut indexes = Indexes::new(self.base_offset(), self.index_interval_bytes());
        let Some(view) = self.view() else {
            return Ok(indexes);
        };
        let mut walk = Walk::new(self, &view);
        let mut crossed_damage = false;
        loop {
            walk.bring()?;
            match walk.next() {
                Ok(Some(Located { position, header, .. })) if crossed_damage => {
                    indexes.note_behind_damage(position, &header);
                    crossed_damage = false;
                }
                Ok(Some(Located { position, header, .. })) => {
                    indexes.note(position, header.last_offset(), header.max_timestamp_ms);
                }
                Ok(None) => return Ok(indexes),
                Err(_) => {
                    let (_, found) = walk.resync()?;
                    let Some(found) = found else { return Ok(indexes) };
                    walk.go_to(found);
                    crossed_damage = true;
                }
            }
        }
    }
}

/// A walk over the headers of a view.
struct Walk<'s> {
    segment: &'s OpenSegment,
    view: &'s View,
    position: u64,
    continuity: Continuity,
    /// The batch stepped over last: where the walk goes astray, its header may be the liar.
    previous: Option<Located>,
    /// Set when the walk started from an index entry, which is advice.
    is_indexed: bool,
    /// Set when the walk did not come all the way from the beginning.
    is_led: bool,
}

impl<'s> Walk<'s> {
    fn new(segment: &'s OpenSegment, view: &'s View) -> Walk<'s> {
        let gaps_below = segment.gaps_below();
        let continuity = Continuity { expected: segment.base_offset(), gaps_below };
        Walk {
            segment,
            view,
            position: 0,
            continuity,
            previous: None,
            is_indexed: false,
            is_led: false,
        }
    }

    /// Begins at an indexed batch if that fits its entry; else at the beginning.
    fn start_at_indexed(&mut self, indexed: IndexedBatch) -> Result<()> {
        self.segment.bring_header(self.view, indexed.position)?;
        let Ok(header) = decode::header_at(self.view.from(indexed.position)) else {
            return Ok(());
        };
        let fits = header.base_offset >= self.segment.base_offset()
            && header.last_offset() <= indexed.last_offset;
        if fits {
            self.position = indexed.position;
            self.continuity.expected = header.base_offset;
            self.is_indexed = true;
            self.is_led = true;
        }
        Ok(())
    }

    /// Has in memory what is looked at next.
    fn bring(&self) -> Result<()> {
        self.segment.bring_header(self.view, self.position)
    }

    /// Steps over one batch and gives it; `None` at the end of the view.
    fn next(&mut self) -> Result<Option<Located>, BatchFault> {
        if self.position >= self.view.end() {
            return Ok(None);
        }
        let header =
            decode::header_at(self.view.from(self.position)).map_err(BatchFault::Header)?;
        self.continuity.check(&header)?;
        let is_led = self.is_led;
        let located = Located { position: self.position, header, is_led };
        self.go_behind(located);
        Ok(Some(located))
    }

    /// As [`next`](Self::next), but crosses damage as long as that can still lead to `offset`.
    fn step(&mut self, offset: i64) -> Result<Option<Located>> {
        self.bring()?;
        match self.next() {
            Ok(found) => Ok(found),
            Err(_) if self.is_indexed => {
                // The index led here: walk from the beginning before calling it damage.
                *self = Walk::new(self.segment, self.view);
                self.step(offset)
            }
            Err(fault) => {
                let (damaged, found) = self.resync()?;
                self.cross(damaged, fault, found, offset)?;
                Ok(found)
            }
        }
    }

    /// Steps back over a batch that turned out not to be whole, and goes on behind the damage as long as
    /// that can still lead to `offset`.
    fn refuse(&mut self, damaged: Located, offset: i64) -> Result<()> {
        let expected = damaged.header.base_offset + 1;
        let found = self.segment.resync(self.view, damaged.position, expected)?;
        self.cross(damaged.position, BatchFault::Checksum, found, offset)?;
        if let Some(found) = found {
            self.go_to(found);
        }
        Ok(())
    }

    /// Finds where the walk can go on after a fault, and where the damage begins: at the position, or at
    /// the batch before if that one is not whole, for then its header led astray.
    fn resync(&self) -> Result<(u64, Option<Located>)> {
        let (from, offset_min) = match self.previous {
            Some(previous) if !self.segment.is_whole(self.view, previous)? => {
                (previous.position, previous.header.base_offset + 1)
            }
            _ => (self.position, self.continuity.expected),
        };
        Ok((from, self.segment.resync(self.view, from, offset_min)?))
    }

    fn cross(
        &mut self,
        damaged: u64,
        fault: BatchFault,
        found: Option<Located>,
        offset: i64,
    ) -> Result<()> {
        match found {
            Some(found) if found.header.base_offset <= offset => {
                self.go_behind(found);
                self.is_led = true;
                Ok(())
            }
            found => Err(Error::Corrupt {
                path: self.segment.path().to_path_buf(),
                position: damaged,
                reason: fault.text(),
                resume: found.map(|found| found.header.base_offset),
            }),
        }
    }

    fn go_to(&mut self, found: Located) {
        self.position = found.position;
        self.continuity.expected = found.header.base_offset;
        self.previous = None;
        self.is_led = true;
    }

    fn go_behind(&mut self, found: Located) {
        self.position = found.position + found.header.len() as u64;
        self.continuity.advance(&found.header);
        self.previous = Some(found);
    }
}
