//! What one read brings: whole, verified batches of one segment, borrowed from its mapping; or, if they are compressed,
//! from the buffer they were unpacked into. One read brings either the one kind or the other.

use std::ops::Range;
use std::sync::Arc;
use std::sync::Weak;

use crate::error::Error;
use crate::error::Result;
use crate::format::decode;
use crate::format::decode::Batch;
use crate::format::decode::BatchFault;
use crate::format::decode::RawRecords;
use crate::format::header;
use crate::format::header::BatchHeader;
use crate::format::header::Front;
use crate::partition::Partition;
use crate::partition::unpacking::Memory;
use crate::partition::unpacking::Unpacking;
use crate::storage::map::View;
use crate::storage::scan::Continuity;
use crate::storage::segment::OpenSegment;
use crate::storage::verified::Checks;
use crate::storage::verified::Known;

mod packed;

/// Where a reader stands: an offset, and the place in the file if it is known.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    pub(crate) position: i64,
    place: Option<Place>,
}

/// A batch in a segment, and how far it was read.
#[derive(Debug)]
struct Place {
    /// Whoever stands in a segment does not keep it open: ten thousand partitions may be read in turn.
    segment: Weak<OpenSegment>,
    base_offset: i64,
    edition: u64,
    byte_position: u64,
    /// The base offset of the batch there.
    expected: i64,
    /// Set if the reader has had some of the batch's records.
    rest: Option<Rest>,
    /// Set if the reader has had some of a compressed batch's records: the batch, unpacked.
    unpacked: Option<packed::Held>,
    standing: Standing,
}

/// What is left of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    count: usize,
    /// Counted back from the end of the batch.
    len: usize,
    /// How many of `count` the reader has had since.
    passed: usize,
}

/// What may be believed of the batch at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It follows a batch that was checked: what is known of the segment holds for it.
    Walked,
    /// An index led here, or another opening of the segment: it is checked whatever is known.
    Led,
    /// It was checked by the read that took its first records.
    Checked,
}

impl Cursor {
    pub(crate) fn at(position: i64) -> Cursor {
        Cursor { position, place: None }
    }
}

/// How much one read may bring; the first batch always comes whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) bytes: usize,
    pub(crate) records: usize,
}

/// Verified batches, and which of their records were asked for.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    memory: Memory,
    /// Where the batches lie in the memory; the first has records that were asked for.
    range: Range<usize>,
    /// What was asked for of the first batch.
    first: Rest,
    pub(crate) record_count: usize,
    /// The offset to go on at.
    pub(crate) next_offset: i64,
}

/// The answer to a read.
#[derive(Debug)]
pub(crate) enum ReadOutcome {
    Records(Fetched),
    /// Nothing is there yet; the cursor may have moved over batches without records for the reader.
    AtEnd,
    /// The cursor is below the log's start or above its end.
    OutOfRange,
}

impl Fetched {
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Gives the batches.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.memory.bytes(self.range.clone()).unwrap_or_default()
    }

    /// Gives the size of the batches.
    pub(crate) fn len(&self) -> usize {
        self.range.len()
    }

    /// Gives offset and timestamp of the first record that was asked for.
    pub(crate) fn first_record(&self) -> Option<(i64, i64)> {
        let (first, _) = RawRecords::split(self.bytes())?;
        let first = self.rest_of_first(first).next()?;
        Some((first.offset, first.timestamp_ms))
    }

    /// Gives the records of the first batch that were asked for; those behind the last one are not cut off.
    pub(crate) fn rest_of_first<'b>(&self, first: RawRecords<'b>) -> RawRecords<'b> {
        first.resumed(self.first.count, self.first.len)
    }
}

impl Partition {
    /// Brings what lies at the cursor and below `bound`, and moves the cursor behind it.
    ///
    /// Control batches and empty ones are stepped over. Of every batch it is checked that its offsets
    /// continue; its checksum, if that is asked for, and its structure are checked unless they were before
    /// (invariant (checked once)).
    ///
    /// # Errors
    ///
    /// * [`Error::Corrupt`](crate::Error::Corrupt),
    ///   [`Error::UnsupportedCompression`](crate::Error::UnsupportedCompression) if the next batch cannot
    ///   be read. The cursor stays in front of it; what lay before has been brought by earlier reads.
    pub(crate) fn read(
        &self,
        cursor: &mut Cursor,
        limits: Limits,
        bound: i64,
        checks: Checks,
        unpacking: &mut Unpacking,
    ) -> Result<ReadOutcome> {
        let read =
            self.despite_compaction(|| self.read_at_once(cursor, limits, bound, checks, unpacking));
        read.map_err(|error| self.resumable(error, cursor.position))
    }

    /// Says of damage at the end of a segment that reading can go on with the next one.
    #[cold]
    fn resumable(&self, error: Error, at: i64) -> Error {
        match error {
            Error::Corrupt { path, position, reason, resume: None } => {
                let list = self.segments().snapshot();
                let next = list.partition_point(|segment| segment.base_offset() <= at);
                let resume = list.get(next).map(|segment| segment.base_offset());
                Error::Corrupt { path, position, reason, resume }
            }
            other => other,
        }
    }

    fn read_at_once(
        &self,
        cursor: &mut Cursor,
        limits: Limits,
        bound: i64,
        checks: Checks,
        unpacking: &mut Unpacking,
    ) -> Result<ReadOutcome> {
        let (start, end) = (self.watermarks().log_start(), self.watermarks().log_end());
        if cursor.position < start || cursor.position > end {
            cursor.place = None;
            return Ok(ReadOutcome::OutOfRange);
        }
        let bound = bound.min(end);
        while cursor.position < bound {
            let found = self.place_of(cursor)?;
            // The log's beginning may have been deleted behind the look above; what was found then lies behind it.
            if cursor.position < self.watermarks().log_start() {
                cursor.place = None;
                return Ok(ReadOutcome::OutOfRange);
            }
            let Some((mut place, open)) = found else {
                // What was below the bound before the search, and was not found, compaction took out.
                cursor.position = cursor.position.max(bound.min(self.gaps_below()));
                return Ok(ReadOutcome::AtEnd);
            };
            let request = Request { limits, bound, gaps_below: self.gaps_below(), checks };
            let before = cursor.position;
            let fetched = place.fetch(&open, &mut cursor.position, &request, unpacking)?;
            cursor.place = Some(place);
            match fetched {
                Some(fetched) => return Ok(ReadOutcome::Records(fetched)),
                // The bound lies within the next batch.
                None if cursor.position == before => break,
                None => {}
            }
        }
        Ok(ReadOutcome::AtEnd)
    }

    /// Finds the first record at or behind the log's start whose timestamp is at least `timestamp_ms`.
    pub(crate) fn offset_for_time(&self, timestamp_ms: i64) -> Result<Option<(i64, i64)>> {
        self.despite_compaction(|| self.offset_for_time_at_once(timestamp_ms))
    }

    fn offset_for_time_at_once(&self, timestamp_ms: i64) -> Result<Option<(i64, i64)>> {
        let start = self.watermarks().log_start();
        let bound = self.watermarks().log_end();
        for segment in self.segments().snapshot().iter() {
            let found = self.open_segment(segment)?;
            let found = found.find_timestamp(timestamp_ms, start)?;
            if let Some(found) = found.filter(|(offset, _)| *offset < bound) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Takes the cursor's place out of it, or finds it: where the batch that holds its position begins.
    fn place_of(&self, cursor: &mut Cursor) -> Result<Option<(Place, Arc<OpenSegment>)>> {
        let mut known = cursor.place.take().filter(|place| place.expected <= cursor.position);
        if let Some(place) = &known {
            if let Some(open) = place.segment.upgrade() {
                if place.byte_position < open.end() {
                    return Ok(known.take().map(|place| (place, open)));
                }
            }
        }
        // One list for the whole search: between two lists compaction may put what lies behind a segment into it.
        let list = self.segments().snapshot();
        let holding = |offset: i64| {
            list.partition_point(|segment| segment.base_offset() <= offset).saturating_sub(1)
        };
        let mut index = holding(cursor.position);
        if let Some(mut place) = known {
            // The segment was let go meanwhile, or what was held is an older view of one that has grown
            // since: ask again before going on to the next one.
            let same = holding(place.base_offset);
            if place.is_in(list[same].base_offset(), list[same].edition()) {
                let open = self.open_segment(&list[same])?;
                if place.is_in(open.base_offset(), open.edition()) {
                    if place.byte_position < open.end() {
                        place.reopen(&open);
                        return Ok(Some((place, open)));
                    }
                    index = same + 1;
                }
            }
        }
        while let Some(segment) = list.get(index) {
            let open = self.open_segment(segment)?;
            if cursor.position <= segment.base_offset() {
                open.read_in_order();
            }
            if let Some(found) = open.locate(cursor.position)? {
                let place = Place {
                    segment: Arc::downgrade(&open),
                    base_offset: open.base_offset(),
                    edition: open.edition(),
                    byte_position: found.position,
                    expected: found.header.base_offset,
                    rest: None,
                    unpacked: None,
                    standing: if found.is_led { Standing::Led } else { Standing::Walked },
                };
                return Ok(Some((place, open)));
            }
            index += 1;
        }
        Ok(None)
    }
}

/// What a read has taken so far.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    /// The first batch with records for the reader: where it begins and what is wanted of it.
    first: Option<(usize, Rest)>,
    /// Where the last one ends.
    end: usize,
    record_count: usize,
}

/// What a read asks of the place it begins at.
struct Request {
    limits: Limits,
    bound: i64,
    gaps_below: i64,
    checks: Checks,
}

impl Place {
    /// Tells whether the place is in the file of a segment, and not in one that had its name before.
    fn is_in(&self, base_offset: i64, edition: u64) -> bool {
        (self.base_offset, self.edition) == (base_offset, edition)
    }

    /// Takes up another opening of the same segment.
    fn reopen(&mut self, open: &Arc<OpenSegment>) {
        let reopened = Arc::downgrade(open);
        if !Weak::ptr_eq(&self.segment, &reopened) {
            self.segment = reopened;
            self.unpacked = None;
            self.standing = Standing::Led;
        }
    }

    /// Brings batches from here on and moves behind them; `None` if none of them held a record for the
    /// reader, but the position may have moved.
    fn fetch(
        &mut self,
        open: &OpenSegment,
        position: &mut i64,
        request: &Request,
        unpacking: &mut Unpacking,
    ) -> Result<Option<Fetched>> {
        let Some(view) = open.view() else {
            return Ok(None);
        };
        let first_wanted = *position;
        let mut run = Run::begin(open, request.checks, self.byte_position);
        let mut taken = Taken::default();
        let mut fault = None;
        loop {
            if self.standing == Standing::Walked && self.rest.is_none() {
                let before = taken.record_count;
                self.take_plain(&view, &mut run, first_wanted, request, &mut taken);
                if taken.record_count > before {
                    *position = self.expected;
                }
            }
            let bytes = view.from(self.byte_position);
            if bytes.is_empty() || taken.record_count == request.limits.records {
                break;
            }
            match run.bring(&view, self.byte_position, self.standing) {
                // What was met before is brought first, as with a fault.
                Err(_) if taken.record_count > 0 => break,
                Err(error) => {
                    run.note();
                    return Err(error);
                }
                Ok(()) => {}
            }
            let continuity = Continuity { expected: self.expected, gaps_below: request.gaps_below };
            // The header stays where it was read to: passed on as a result it would be copied, and what was just written
            // field by field is slow to be read in one piece.
            let header = match decode::header_at(bytes) {
                Ok(header) => header,
                Err(met) => {
                    fault = Some(BatchFault::Header(met));
                    break;
                }
            };
            if header.is_packed() && !header.attributes.is_control() {
                // What is unpacked lies elsewhere, so it is the next read's. It is checked there, and only there.
                if taken.record_count > 0 {
                    break;
                }
                run.note();
                return self.fetch_packed(open, &view, position, request, unpacking);
            }
            let checked = run.check(self.byte_position, bytes, &header, &continuity, self.standing);
            if let Err(met) = checked {
                fault = Some(met);
                break;
            }
            let batch_start = self.byte_position as usize;
            let batch_end = batch_start + header.len();
            run.end = batch_end as u64;
            let len = taken.first.map_or(0, |(start, _)| batch_end - start);
            if header.last_offset() >= request.bound || len > request.limits.bytes {
                break;
            }
            if let Some(rest) = self.rest_of(&header, bytes, first_wanted) {
                taken.first.get_or_insert((batch_start, rest));
                taken.end = batch_end;
                let room = request.limits.records - taken.record_count;
                if rest.count > room {
                    // What is left of this batch is the next read's, so its place stays here.
                    taken.record_count += room;
                    *position = self.pass(header, bytes, rest, room);
                    break;
                }
                taken.record_count += rest.count;
            }
            *position = header.last_offset() + 1;
            self.byte_position = batch_end as u64;
            self.expected = *position;
            self.rest = None;
            self.standing = Standing::Walked;
        }
        run.note();
        if let Some(fault) = fault.filter(|_| taken.record_count == 0) {
            return Err(open.fault_error(self.byte_position, fault, self.expected));
        }
        // What was met before a fault is brought first; the next read meets it again.
        let Taken { first, end, record_count } = taken;
        let fetched = first.filter(|_| record_count > 0).map(|(start, first)| Fetched {
            memory: Memory::Mapped(view),
            range: start..end,
            first,
            record_count,
            next_offset: *position,
        });
        Ok(fetched)
    }

    /// Takes batches as long as they are like most: checked before, all of their records wanted, none missing
    /// between or in them, and within the limits. Stays in front of the first that is not.
    ///
    /// Nothing is done here that [`fetch`](Self::fetch) would not do; but a batch of one record costs as much here
    /// as its record does.
    fn take_plain(
        &mut self,
        view: &View,
        run: &mut Run<'_>,
        first_wanted: i64,
        request: &Request,
        taken: &mut Taken,
    ) {
        let Limits { bytes: bytes_max, records: records_max } = request.limits;
        let (mut byte_position, mut expected) = (self.byte_position, self.expected);
        let Taken { mut first, mut end, mut record_count } = *taken;
        while run.known.holds(byte_position) && expected >= first_wanted {
            let bytes = view.from(byte_position);
            let Some(front) = Front::at(bytes) else { break };
            let Some(len) = front.len().filter(|len| *len <= bytes.len()) else { break };
            let count = i64::from(front.record_count());
            let is_plain = front.magic() == header::MAGIC
                && front.base_offset() == expected
                && count > 0
                && count == i64::from(front.last_offset_delta()) + 1
                && front.attributes().is_plain();
            let batch_start = byte_position as usize;
            let (start, rest) = first.unwrap_or_else(|| {
                let rest = Rest { count: count as usize, len: len - header::LEN, passed: 0 };
                (batch_start, rest)
            });
            let is_within = count <= request.bound - expected
                && count as usize <= records_max - record_count
                && (first.is_none() || batch_start + len - start <= bytes_max);
            if !is_plain || !is_within {
                break;
            }
            first = Some((start, rest));
            record_count += count as usize;
            end = batch_start + len;
            byte_position = end as u64;
            expected += count;
        }
        run.end = run.end.max(byte_position);
        (self.byte_position, self.expected) = (byte_position, expected);
        *taken = Taken { first, end, record_count };
    }

    /// Gives what a batch holds for a reader from `first_wanted` on; `None` if that is nothing.
    #[inline]
    fn rest_of(&self, header: &BatchHeader, bytes: &[u8], first_wanted: i64) -> Option<Rest> {
        if header.attributes.is_control() {
            return None;
        }
        let rest = match self.rest {
            Some(rest) if rest.passed == 0 => rest,
            Some(rest) => {
                let records = Batch::verified(bytes)?.records();
                let mut records = records.resumed(rest.count, rest.len);
                records.pass(rest.passed);
                Rest::of(&records)
            }
            None if header.base_offset >= first_wanted => {
                let count = header.record_count as usize;
                Rest { count, len: header.len() - header::LEN, passed: 0 }
            }
            None => {
                let mut records = Batch::verified(bytes)?.records();
                match first_wanted - header.base_offset {
                    index if header.is_dense() => records.pass(index as usize),
                    _ => records.pass_below(first_wanted),
                }
                Rest::of(&records)
            }
        };
        (rest.count > 0).then_some(rest)
    }

    /// Moves over the first `count` records of what is left of the batch here, gives the offset behind them.
    fn pass(&mut self, header: BatchHeader, bytes: &[u8], rest: Rest, count: usize) -> i64 {
        self.standing = Standing::Checked;
        if header.is_dense() {
            // The reader is about to walk over them; after that they are near, and the next read's walk costs
            // a fraction of what it would cost now.
            self.rest = Some(Rest { passed: count, ..rest });
            let index = (header.record_count as usize).saturating_sub(rest.count);
            return header.base_offset.saturating_add((index + count) as i64);
        }
        let mut last_offset = header.last_offset();
        if let Some(batch) = Batch::verified(bytes) {
            let mut records = batch.records().resumed(rest.count, rest.len);
            records.pass(count - 1);
            last_offset = records.next().map_or(last_offset, |record| record.offset);
            self.rest = Some(Rest::of(&records));
        }
        last_offset + 1
    }
}

impl Rest {
    fn of(records: &RawRecords<'_>) -> Rest {
        Rest { count: records.left(), len: records.bytes().len(), passed: 0 }
    }
}

/// A run of batches that are being checked, and what was known before.
struct Run<'s> {
    open: &'s OpenSegment,
    checks: Checks,
    known: Known,
    start: u64,
    /// Batches up to here have passed.
    end: u64,
    has_news: bool,
}

impl<'s> Run<'s> {
    fn begin(open: &'s OpenSegment, checks: Checks, start: u64) -> Run<'s> {
        let known = open.verified().known(checks);
        Run { open, checks, known, start, end: start, has_news: false }
    }

    /// Checks the batch at the front of `bytes`, as far as that is not known, and that it continues the one
    /// before.
    #[inline]
    fn check(
        &mut self,
        position: u64,
        bytes: &[u8],
        header: &BatchHeader,
        continuity: &Continuity,
        standing: Standing,
    ) -> Result<(), BatchFault> {
        continuity.check(header)?;
        if !self.is_known(position, standing) {
            if self.checks == Checks::All && !decode::checksum_holds(header, bytes) {
                return Err(BatchFault::Checksum);
            }
            // What is packed is checked once it is unpacked. The batches of coordinators are not for readers.
            if !header.is_packed() {
                decode::check_structure(header, bytes)?;
            }
            self.has_news = true;
        }
        Ok(())
    }

    /// Has the batch at a position in memory, unless it was checked, for which it was.
    #[inline]
    fn bring(&self, view: &View, position: u64, standing: Standing) -> Result<()> {
        if self.is_known(position, standing) {
            return Ok(());
        }
        self.open.bring_batch(view, position)
    }

    fn is_known(&self, position: u64, standing: Standing) -> bool {
        match standing {
            Standing::Walked => self.known.holds(position),
            Standing::Led => false,
            Standing::Checked => true,
        }
    }

    /// Lets later reads know.
    fn note(&self) {
        if self.has_news && self.end > self.start {
            self.open.verified().note(self.start..self.end, self.checks);
        }
    }
}
