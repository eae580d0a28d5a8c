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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;
    use std::path::PathBuf;

    use crate::config::TimestampType;
    use crate::format::encode::BatchBuilder;
    use crate::format::header;
    use crate::format::header::BatchHeader;
    use crate::format::header::field;
    use crate::record::Record;
    use crate::storage::disk::Disk;
    use crate::storage::file_name::OffsetFile;
    use crate::storage::indexes::write_indexes;
    use crate::storage::offset_index::OffsetIndex;
    use crate::storage::segment_files::SegmentContext;
    use crate::storage::time_index::TimeIndex;

    const BASE: i64 = 100;

    /// A segment in a directory of its own, which can be changed and opened again.
    struct Bench {
        directory: tempfile::TempDir,
        /// Where each batch begins.
        positions: Vec<usize>,
        bytes: Vec<u8>,
        indexes: Indexes,
    }

    impl Bench {
        /// Batches of three records each. Timestamps ascend by ten from record to record, where none is given.
        fn new(batch_count: i64, timestamp: Option<fn(i64) -> i64>) -> Bench {
            let timestamp = timestamp.unwrap_or(|n| 1000 + 10 * n);
            let mut bench = Bench {
                directory: tempfile::tempdir().unwrap(),
                positions: Vec::new(),
                bytes: Vec::new(),
                indexes: Indexes::new(BASE, 300),
            };
            for batch in 0..batch_count {
                let values = [3 * batch, 3 * batch + 1, 3 * batch + 2];
                bench.push(values.map(|n| (timestamp(n), vec![n as u8; 30])), 0);
            }
            bench.write();
            bench
        }

        /// Appends a batch of records, with attributes.
        fn push(&mut self, records: impl IntoIterator<Item = (i64, Vec<u8>)>, attributes: i16) {
            let base_offset = self.end();
            let mut builder = BatchBuilder::default();
            for (timestamp_ms, value) in records {
                builder.push(&Record::new(&value), timestamp_ms).unwrap();
            }
            let mut batch = builder.seal(TimestampType::CreateTime);
            batch.stamp(base_offset, 0);
            let mut bytes = batch.bytes().to_vec();
            bytes[field::ATTRIBUTES].copy_from_slice(&attributes.to_be_bytes());
            sign(&mut bytes);
            let header = decode::header_at(&bytes).unwrap();
            let position = self.bytes.len();
            self.indexes.note(position as u64, header.last_offset(), header.max_timestamp_ms);
            self.positions.push(position);
            self.bytes.extend(bytes);
        }

        /// The offset behind the last record.
        fn end(&self) -> i64 {
            let last =
                self.positions.last().map(|position| decode::header_at(&self.bytes[*position..]));
            last.map_or(BASE, |header| header.unwrap().last_offset() + 1)
        }

        fn context(&self) -> SegmentContext {
            SegmentContext {
                disk: Disk::default(),
                directory: self.directory.path().into(),
                lock: None,
                index_interval_bytes: 300,
                gaps: Default::default(),
            }
        }

        fn log(&self) -> PathBuf {
            self.context().log_path(BASE)
        }

        fn index(&self, kind: OffsetFile) -> PathBuf {
            kind.beside(&self.log())
        }

        /// Writes all files anew.
        fn write(&self) {
            fs::write(self.log(), &self.bytes).unwrap();
            write_indexes(&Disk::default(), &self.log(), &self.indexes).unwrap();
        }

        fn open(&self) -> OpenSegment {
            OpenSegment::cold(self.context(), BASE, None).unwrap()
        }
    }

    /// Gives a batch the checksum that fits.
    fn sign(batch: &mut [u8]) {
        let checksum = crc32c::crc32c(&batch[field::ATTRIBUTES.start..]);
        batch[field::CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
    }

    fn base_of(found: Result<Option<Located>>) -> i64 {
        found.unwrap().unwrap().header.base_offset
    }

    /// The header of one batch claims the offsets of those behind it: they are found all the same, and it is refused.
    #[test]
    fn a_batch_that_claims_the_offsets_of_others_is_not_believed() {
        for hurt in [0, 7, 18] {
            let mut bench = Bench::new(20, None);
            let at = bench.positions[hurt] + field::LAST_OFFSET_DELTA.end - 1;
            bench.bytes[at] = 5;
            bench.write();
            let segment = bench.open();
            let hurt_base = BASE + 3 * hurt as i64;
            for offset in (BASE..bench.end()).filter(|o| !(hurt_base..hurt_base + 3).contains(o)) {
                assert_eq!(base_of(segment.locate(offset)), offset - (offset - BASE) % 3);
            }
            for offset in hurt_base + 1..hurt_base + 3 {
                match segment.locate(offset) {
                    Err(Error::Corrupt { position, resume, .. }) => {
                        assert_eq!(position as usize, bench.positions[hurt]);
                        assert_eq!(resume, Some(hurt_base + 3));
                    }
                    other => panic!("{offset}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_time_is_sought_from_an_offset_on_even_in_the_middle_of_a_batch() {
        let bench = Bench::new(20, None);
        let segment = bench.open();
        let timestamp = |offset: i64| 1000 + 10 * (offset - BASE);
        for offset_min in BASE..bench.end() {
            for wanted in [-1, 0, 1005, 1010, 1305, timestamp(offset_min)] {
                let expected =
                    (offset_min..bench.end()).find(|offset| timestamp(*offset) >= wanted);
                let expected = expected.map(|offset| (offset, timestamp(offset)));
                let found = segment.find_timestamp(wanted, offset_min).unwrap();
                assert_eq!(found, expected, "{wanted} from {offset_min}");
            }
        }
    }

    /// What is not asked for need not be whole.
    #[test]
    fn damage_in_front_of_where_a_time_is_sought_does_not_matter() {
        for hurt in 0..19 {
            let mut bench = Bench::new(20, None);
            let at = bench.positions[hurt] + header::LEN + 5;
            bench.bytes[at] ^= 1;
            bench.write();
            let behind = BASE + 3 * (hurt as i64 + 1);
            let found = bench.open().find_timestamp(0, behind).unwrap();
            assert_eq!(found.map(|(offset, _)| offset), Some(behind));
        }
    }

    #[test]
    fn control_records_have_no_time_that_anybody_seeks() {
        const CONTROL: i16 = 1 << 5;
        let mut bench = Bench::new(2, None);
        bench.push([(5000, vec![0; 6])], CONTROL);
        bench.push([(6000, vec![1; 6])], 0);
        bench.write();
        let (control, behind) = (BASE + 6, BASE + 7);
        let segment = bench.open();
        assert_eq!(segment.find_timestamp(5000, BASE).unwrap(), Some((behind, 6000)));
        assert_eq!(segment.find_timestamp(0, control).unwrap(), Some((behind, 6000)));
    }

    /// That a time is later than all of a segment's is known from its index, once the log has confirmed that entry.
    #[test]
    fn a_time_behind_all_of_a_segment_is_answered_without_a_walk_through_it() {
        // The latest comes first.
        let mut bench = Bench::new(60, Some(|n| 9000 - 10 * n));
        let at = bench.positions[30];
        bench.bytes[at + field::MAGIC.start] = 9;
        bench.write();
        assert_eq!(bench.open().find_timestamp(9001, BASE).unwrap(), None);
        // A walk would have met this.
        let behind = BASE + 3 * 40;
        let latest = bench.open().find_timestamp(9000 - 10 * (behind - BASE), BASE);
        assert_eq!(latest.unwrap(), Some((BASE, 9000)));
        assert!(bench.open().locate(BASE + 3 * 30).is_err());
    }

    /// An index is advice: entries that say what is not so change no answer.
    #[test]
    fn entries_of_a_time_index_that_lie_lead_nobody_past_what_he_seeks() {
        let bench = Bench::new(60, None);
        let right = bench.open();
        let expected: Vec<_> =
            (900..3000).step_by(5).map(|ms| right.find_timestamp(ms, BASE).unwrap()).collect();
        let entry = |timestamp_ms: i64, last_offset: i64| {
            [&timestamp_ms.to_be_bytes()[..], &((last_offset - BASE) as i32).to_be_bytes()].concat()
        };
        let last = bench.end() - 1;
        let latest = 1000 + 10 * (last - BASE);
        for lie in [
            // A record further back is said to be so early; the end is said to be early; a record that is not there.
            [entry(1005, BASE + 101), entry(latest, last)].concat(),
            entry(1100, BASE + 10),
            entry(1500, last),
            entry(1500, last + 50),
            entry(1000, last),
        ] {
            fs::write(bench.index(OffsetFile::TimeIndex), &lie).unwrap();
            let segment = bench.open();
            assert!(TimeIndex::parse(BASE, &lie).is_ok(), "it could be true");
            let found: Vec<_> = (900..3000)
                .step_by(5)
                .map(|ms| segment.find_timestamp(ms, BASE).unwrap())
                .collect();
            assert!(found == expected, "{lie:?}");
        }
    }

    /// What looks like a batch lies in a record, and an index leads there.
    #[test]
    fn entries_of_an_offset_index_that_lead_into_a_record_change_no_answer() {
        // A header that says so much of itself as a real one, and of how it goes on: nowhere.
        let fake = |base_offset: i64, len: usize| {
            let header = BatchHeader {
                base_offset,
                length: (len - header::LENGTH_EXCLUDES) as i32,
                leader_epoch: 0,
                magic: header::MAGIC,
                checksum: 0,
                attributes: header::Attributes(0),
                last_offset_delta: 0,
                base_timestamp_ms: 1000,
                max_timestamp_ms: 1000,
                producer_id: -1,
                producer_epoch: -1,
                base_sequence: -1,
                record_count: 1,
            };
            let mut bytes = [0; header::LEN];
            header.write(&mut bytes);
            bytes.to_vec()
        };
        let hurt = BASE + 30;
        for (base_offset, len) in
            [(hurt, 80), (hurt - 5, 80), (hurt - 5, 200), (BASE, 90), (hurt + 1, 80)]
        {
            let mut bench = Bench::new(10, None);
            bench.push([(2000, [fake(base_offset, len), vec![3; 100]].concat())], 0);
            for n in 0..30 {
                bench.push([(2010 + n, vec![n as u8; 40])], 0);
            }
            bench.write();
            let needle = fake(base_offset, len);
            let position =
                bench.bytes.windows(header::LEN).position(|window| window == needle).unwrap();
            let mut lie = OffsetIndex::new(BASE);
            lie.push(IndexedBatch { last_offset: hurt, position: position as u64 });
            fs::write(bench.index(OffsetFile::OffsetIndex), lie.to_bytes()).unwrap();
            let segment = bench.open();
            let bases: Vec<i64> = bench
                .positions
                .iter()
                .map(|p| decode::header_at(&bench.bytes[*p..]).unwrap().base_offset)
                .collect();
            for offset in BASE..bench.end() {
                let expected = bases[bases.partition_point(|base| *base <= offset) - 1];
                assert_eq!(
                    base_of(segment.locate(offset)),
                    expected,
                    "{offset}: fake {base_offset}, {len}"
                );
            }
            assert!(segment.locate(bench.end()).unwrap().is_none());
            assert_eq!(segment.find_timestamp(2005, BASE).unwrap(), Some((hurt + 1, 2010)));
        }
    }

    /// An entry names the beginning of a batch, but of one further on than it says.
    #[test]
    fn entries_of_an_offset_index_that_lead_too_far_hide_nothing() {
        let bench = Bench::new(40, None);
        let last = bench.indexes.offsets.last().unwrap();
        for named in [1, 5, 20] {
            let mut lie = OffsetIndex::new(BASE);
            let position = bench.positions[20] as u64;
            lie.push(IndexedBatch { last_offset: BASE + 3 * named - 1, position });
            lie.push(last);
            fs::write(bench.index(OffsetFile::OffsetIndex), lie.to_bytes()).unwrap();
            let segment = bench.open();
            for offset in BASE..bench.end() {
                let expected = offset - (offset - BASE) % 3;
                assert_eq!(base_of(segment.locate(offset)), expected, "{offset}, {named}");
            }
        }
    }

    /// A header's length leads astray: that batch is the damage, not what lies where it led.
    #[test]
    fn damage_begins_with_the_batch_whose_length_led_astray() {
        for hurt in [0, 1, 9, 18] {
            for by in [1_i32, -1, 64] {
                let mut bench = Bench::new(20, None);
                let at = bench.positions[hurt] + field::LENGTH.start;
                let length = i32::from_be_bytes(bench.bytes[at..at + 4].try_into().unwrap());
                bench.bytes[at..at + 4].copy_from_slice(&(length + by).to_be_bytes());
                bench.write();
                let hurt_base = BASE + 3 * hurt as i64;
                match bench.open().locate(hurt_base + 1) {
                    Err(Error::Corrupt { position, resume, .. }) => {
                        assert_eq!(position as usize, bench.positions[hurt], "{hurt} by {by}");
                        assert_eq!(resume, Some(hurt_base + 3), "{hurt} by {by}");
                    }
                    other => panic!("{hurt} by {by}: {other:?}"),
                }
                assert_eq!(base_of(bench.open().locate(hurt_base + 3)), hurt_base + 3);
            }
        }
    }

    #[test]
    fn an_empty_segment_holds_nothing_and_says_so() {
        let bench = Bench::new(0, None);
        let segment = bench.open();
        assert!(segment.locate(BASE).unwrap().is_none());
        assert_eq!(segment.find_timestamp(0, BASE).unwrap(), None);
        assert_eq!(segment.rebuild_indexes().unwrap().offsets.len(), 0);
        assert!(Path::new(segment.path()).exists());
    }
}
