//! Compaction of one log: of every key the latest record stays.
//!
//! Everything below the last segment takes part, once it is sealed. First all of it is looked at, and nothing
//! changed: a compaction ends in front of damage, and of a transaction that has not ended, and leaves segments as they
//! are that hold what this build cannot read. In the part that was not compacted before the latest offset of each key is
//! noted, the first time while it is looked at, in as many passes as the memory for that asks for; and in each pass every
//! segment from the first one on is written anew without what was superseded, neighbours together while they fit, and
//! takes the place of what it was made from (`storage/swap.rs`).
//!
//! Appends and reads go on: the writer's lock is not taken, readers keep the segments they are in, and find the new
//! ones by their offsets afterwards (invariants (one file), (gaps foretold)).
//!
//! **Invariant (latest stays).** A record is left out only if a later one of its key stays in the log below it was
//! known to be there and was not taken back, or if it is a tombstone past its delete horizon, or a record without a
//! key, or one of an aborted transaction. Segments are replaced the oldest first, so that a tombstone goes after
//! everything it stands for. Behind a segment that cannot be read no tombstone goes: what it stands for may be there.
//!
//! Compressed batches are unpacked to be looked at; one that loses records is packed anew with its codec at the codec's
//! own level, as Kafka does, and one that loses none is copied as it is. Of most batches that is known by their offsets
//! (`partition/known_fates.rs`), and they are not looked into again.
//!
//! A transaction's marker stays as long as a batch of its transaction was there when the compaction began. After that
//! it gets a delete horizon like a tombstone's, and goes once that has passed. A batch that held its producer's last
//! sequence stays without its records, and so does the last marker of a producer of which nothing else is left.

use std::sync::Arc;

use crate::error::Error;
use crate::error::Result;
use crate::format::compression::Codec;
use crate::format::decode;
use crate::format::decode::Batch;
use crate::format::header::BatchHeader;
use crate::format::rewrite::Judgement;
use crate::format::rewrite::Rewriter;
use crate::partition::LatchOnUnwind;
use crate::partition::Partition;
use crate::partition::compaction_keys::Keys;
use crate::partition::compaction_plan;
use crate::partition::compaction_plan::Compaction;
use crate::partition::compaction_plan::Extent;
use crate::partition::compaction_progress::Amount;
use crate::partition::compaction_progress::CompactionProgress;
use crate::partition::compaction_progress::Pace;
use crate::partition::compaction_reading::Reading;
use crate::partition::compaction_survey::Input;
use crate::partition::compaction_survey::Left;
use crate::partition::compaction_survey::Survey;
use crate::partition::compaction_survey::WhyLeft;
use crate::partition::compaction_survey::amount;
use crate::partition::fates::Fates;
use crate::partition::key_hash::KeyHash;
use crate::partition::latest_offsets::LatestOffsets;
use crate::partition::producer_snapshot;
use crate::partition::removing::Waiting;
use crate::partition::segments::Segment;
use crate::partition::throttle::Throttle;
use crate::storage::file_name::OffsetFile;
use crate::storage::gaps;
use crate::storage::indexes::INDEX_LEN_MAX;
use crate::storage::swap;
use crate::storage::swap::CleanedSegment;
use crate::storage::swap::SwapError;
use crate::storage::transaction_index;

/// What a compaction came to.
#[derive(Debug, Default)]
pub(crate) struct Compacted {
    pub(crate) before: Amount,
    pub(crate) after: Amount,
    /// Where the next compaction begins to look for keys.
    pub(crate) first_dirty: i64,
    /// What was left as it is.
    pub(crate) left: Vec<Left>,
    /// Why files that were replaced are still there; the next open removes them.
    pub(crate) unremoved: Option<Error>,
}

impl Partition {
    /// Compacts everything below the last segment, and says what that came to. Blocks while another thread does.
    ///
    /// # Errors
    ///
    /// * [`Error::Closed`] if the log is being closed or deleted; [`Error::ReadOnly`] where another process appends.
    /// * [`Error::Latched`]: the log takes no appends, and is not compacted either.
    /// * Others, as [`Error::OutOfSpace`]: some segments may be compacted, the others are as they were, and it may be
    ///   done again.
    pub(crate) fn compact(
        self: &Arc<Self>,
        how: &Compaction,
        progress: &CompactionProgress,
        throttle: &Throttle,
    ) -> Result<Compacted> {
        if self.is_followed() {
            return Err(Error::ReadOnly { action: "compact a topic" });
        }
        let mut turn = self.compacting.begin(&self.context.directory)?;
        self.refuse_if_latched()?;
        swap::sweep(&self.context)?;
        self.seal_below(self.segments.last().base_offset())?;
        let pace = Pace { progress, throttle, compacting: &self.compacting };
        let mut reading = Reading::of(self, pace);
        let mut cleaner = Cleaner {
            partition: self,
            how,
            pace,
            inputs: Vec::new(),
            end: self.segments.first().base_offset(),
            fates: Fates::default(),
            rewriter: Rewriter::default(),
            hashes: Vec::new(),
            is_foretold: false,
            stuck: None,
            compacted: Compacted::default(),
        };
        let outcome = cleaner.run(&mut reading);
        if outcome.is_err() && cleaner.stuck.is_none() {
            // Best effort: the next compaction does it before anything else, and so does an open.
            drop(swap::sweep(&self.context));
        }
        *turn = cleaner.stuck.take();
        // Whatever came of it: some segments may be smaller already.
        let charged = self.recharge();
        outcome.and(charged).map(|()| cleaner.compacted)
    }
}

/// A compaction under way.
struct Cleaner<'p> {
    partition: &'p Arc<Partition>,
    how: &'p Compaction,
    pace: Pace<'p>,
    /// The segments that take part, in order.
    inputs: Vec<Input>,
    /// Where they end.
    end: i64,
    fates: Fates,
    rewriter: Rewriter,
    /// Of the records of the batch that is decided on.
    hashes: Vec<KeyHash>,
    /// The mark says that there may be gaps below the end.
    is_foretold: bool,
    /// Why no other compaction may begin.
    stuck: Option<Arc<str>>,
    compacted: Compacted,
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Copy,
    /// Some of its records go, or it gets a delete horizon.
    Rewrite,
    /// Its header stays.
    Empty,
    Drop,
}

/// What decides on the records of a segment.
struct Pass<'k> {
    latest: &'k LatestOffsets,
    /// A segment in front of it cannot be read.
    is_behind_unreadable: bool,
}

impl Cleaner<'_> {
    fn run(&mut self, reading: &mut Reading<'_>) -> Result<()> {
        let survey = Survey::of(self.how, reading)?;
        (self.inputs, self.end, self.fates) = (survey.inputs, survey.end, survey.fates);
        self.compacted.left = survey.left;
        self.compacted.before = amount(&self.inputs);
        self.pace.progress.found(&self.compacted.before);
        self.compacted.first_dirty = self.end;
        if let Some(unreadable) = self.inputs.iter().find(|input| !input.extent.is_readable) {
            // Once it can be read, what it holds must be compared with what is behind it.
            self.compacted.first_dirty = unreadable.extent.base_offset;
        }
        let start = self.inputs.first().map_or(self.end, |first| first.extent.base_offset);
        let mut dirty = match self.how.first_dirty {
            // It was not about this log.
            beyond if beyond > self.partition.watermarks().log_end() => start,
            dirty => dirty.clamp(start, self.end),
        };
        let mut keys = survey.keys;
        while start < self.end {
            let extents: Vec<Extent> = self.inputs.iter().map(|input| input.extent).collect();
            let keys = keys.take().unwrap_or_else(|| Keys::of_nothing(self.how, dirty));
            let latest = keys.completed(&extents, self.end, &self.fates, reading)?;
            self.rewrite(&latest, reading)?;
            dirty = latest.end();
            if dirty >= self.end {
                break;
            }
        }
        self.compacted.after = amount(&self.inputs);
        Ok(())
    }

    /// Writes all segments anew of which something is known.
    fn rewrite(&mut self, latest: &LatestOffsets, reading: &mut Reading<'_>) -> Result<()> {
        let mut left = std::mem::take(&mut self.inputs);
        let mut pass = Pass { latest, is_behind_unreadable: false };
        while !left.is_empty() {
            let known = left.partition_point(|input| input.extent.base_offset < latest.end());
            let extents: Vec<Extent> = left[..known].iter().map(|input| input.extent).collect();
            let count = compaction_plan::group_len(&extents, self.how.segments);
            pass.is_behind_unreadable |= !left[0].extent.is_readable;
            let group: Vec<Input> = left.drain(..count.max(1)).collect();
            let replaced = if count == 0 { None } else { self.replace(&group, &pass, reading)? };
            match replaced {
                Some(input) => {
                    self.pace.progress.replaced(&amount(&group), &input.amount());
                    self.inputs.push(input);
                }
                None => self.inputs.extend(group),
            }
        }
        Ok(())
    }

    /// Puts one segment in the place of some; `None` if that changes nothing.
    fn replace(
        &mut self,
        group: &[Input],
        pass: &Pass<'_>,
        reading: &mut Reading<'_>,
    ) -> Result<Option<Input>> {
        if let [only] = group {
            if !self.is_changed(only, pass, reading)? {
                return Ok(None);
            }
        }
        let (first, last) = (&group[0].extent, &group[group.len() - 1]);
        let partition = self.partition;
        let mut target = CleanedSegment::create(&partition.context, first.base_offset)?;
        let mut records = 0;
        for input in group {
            match self.copy(input, pass, &mut target, reading)? {
                Some(kept) => records += kept,
                None => {
                    self.leave(first.base_offset, target.len(), WhyLeft::TooLarge);
                    swap::sweep(&partition.context)?;
                    return Ok(None);
                }
            }
        }
        let modified = reading.log_file(last.extent.base_offset)?.modified()?;
        let cleaned = target.finish(modified)?;
        self.foretell()?;
        let segments: Vec<_> = group.iter().map(|input| Arc::clone(&input.segment)).collect();
        self.swap(&cleaned, &segments)?;
        let extent = Extent {
            next: last.extent.next,
            len: cleaned.len,
            index_len: cleaned.index_len,
            time_index_len: cleaned.time_index_len,
            ..*first
        };
        let segment = partition.segments.holding(extent.base_offset);
        let is_plain = group.iter().all(|input| input.is_plain);
        Ok(Some(Input { segment, extent, records, is_plain }))
    }

    /// Raises the mark, before the first gap can be seen.
    fn foretell(&mut self) -> Result<()> {
        let context = &self.partition.context;
        if !self.is_foretold {
            // Written even if gaps may be there already: it may be Kafka's checkpoint that says so.
            gaps::write_mark(&context.disk, &context.directory, self.end)?;
            context.gaps.raise(self.end);
            self.is_foretold = true;
        }
        Ok(())
    }

    /// Lets a segment that was written take the place of others, on the disk and for readers.
    fn swap(&mut self, cleaned: &swap::Cleaned<'_>, segments: &[Arc<Segment>]) -> Result<()> {
        let partition = self.partition;
        let context = &partition.context;
        let base_offsets: Vec<i64> = segments.iter().map(|segment| segment.base_offset()).collect();
        let unwinding = LatchOnUnwind::of(partition, "a compaction panicked");
        let swapped = segments
            .iter()
            .try_for_each(|segment| partition.segments.pin(segment, context))
            .and_then(|()| partition.compacting.go_on())
            .map_err(SwapError::Undone)
            .and_then(|()| cleaned.swap(&base_offsets));
        unwinding.defuse();
        match swapped {
            Ok(()) => {}
            Err(SwapError::Undone(error)) => {
                partition.segments.unpin(segments);
                return Err(error);
            }
            Err(SwapError::Stuck { error, is_input_moved }) => {
                let reason = format!("a compaction could be neither finished nor undone: {error}");
                self.stuck = Some(reason.as_str().into());
                if is_input_moved {
                    // Readers go on in what is pinned.
                    return Err(partition.latch(&reason));
                }
                partition.segments.unpin(segments);
                return Err(error);
            }
        }
        partition.segments.replace(segments, base_offsets[0]);
        let removed = partition
            .doom(&base_offsets)
            .and_then(|()| partition.remove_waiting(Waiting::Over))
            .and_then(|_| producer_snapshot::remove_replaced(context, &base_offsets[1..]));
        if let Err(error) = removed {
            self.compacted.unremoved.get_or_insert(error);
        }
        Ok(())
    }

    fn is_changed(
        &mut self,
        input: &Input,
        pass: &Pass<'_>,
        reading: &mut Reading<'_>,
    ) -> Result<bool> {
        let (first, last) = (input.extent.base_offset, input.extent.next - 1);
        let known = pass.latest.known();
        if input.is_plain && last < pass.latest.end() && known.cover_all(first, last) {
            return Ok(known.gone_count(first, last) > 0 || known.has_tombstones(first, last));
        }
        let file = reading.log_file(first)?;
        let mut scan = reading.scan_again(&file, first)?;
        while let Some(lying) = reading.next_lying(&mut scan, &file)? {
            let fate = match self.fate_at_once(&lying.header, pass) {
                Some(fate) => fate,
                None => self.fate_of(&reading.whole(&lying, &file)?, pass),
            };
            if fate != Fate::Copy {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Copies what stays of a segment, and gives how many records that are; `None` if it does not fit.
    fn copy(
        &mut self,
        input: &Input,
        pass: &Pass<'_>,
        target: &mut CleanedSegment<'_>,
        reading: &mut Reading<'_>,
    ) -> Result<Option<u64>> {
        let base_offset = input.extent.base_offset;
        let records = match self.is_all_gone(input, pass) {
            true => Some(0),
            false => self.copy_batches(base_offset, pass, target, reading)?,
        };
        if records.is_none() {
            return Ok(None);
        }
        let context = &self.partition.context;
        let transactions = OffsetFile::TransactionIndex.path(&context.directory, base_offset);
        if context.disk.exists(&transactions)? {
            let entries = context.disk.read_small(&transactions, INDEX_LEN_MAX)?;
            target.push_transactions(&transaction_index::without(&entries, |marker| {
                self.fates.is_lone_marker(marker)
            }));
        }
        Ok(records)
    }

    /// Tells whether nothing of a segment stays, if that is known without a look at it.
    fn is_all_gone(&self, input: &Input, pass: &Pass<'_>) -> bool {
        let (first, last) = (input.extent.base_offset, input.extent.next - 1);
        let known = pass.latest.known();
        input.is_plain
            && self.fates.know_no_producer()
            && last < pass.latest.end()
            && known.cover_all(first, last)
            && u64::from(known.gone_count(first, last)) == input.records
    }

    fn copy_batches(
        &mut self,
        base_offset: i64,
        pass: &Pass<'_>,
        target: &mut CleanedSegment<'_>,
        reading: &mut Reading<'_>,
    ) -> Result<Option<u64>> {
        let file = reading.log_file(base_offset)?;
        let mut scan = reading.scan_again(&file, base_offset)?;
        let horizon_ms = self.how.now_ms.saturating_add(self.how.delete_retention_ms);
        let mut records = 0;
        while let Some(lying) = reading.next_lying(&mut scan, &file)? {
            let (header, bytes) = match self.fate_at_once(&lying.header, pass) {
                // Its checksum goes with it, and tells of damage there as it would here.
                Some(Fate::Copy) => (lying.header, lying.bytes),
                Some(Fate::Drop) => continue,
                _ => {
                    let batch = reading.whole(&lying, &file)?;
                    let codec = Codec::of(lying.header.attributes);
                    let written = match self.fate_of(&batch, pass) {
                        Fate::Copy => Some(lying.bytes),
                        Fate::Rewrite => self.rewriter.rewritten(&batch, horizon_ms, codec),
                        Fate::Empty => Some(self.rewriter.emptied(&batch)),
                        Fate::Drop => continue,
                    };
                    match written.and_then(|bytes| Some((decode::header_at(bytes).ok()?, bytes))) {
                        Some(written) => written,
                        None => return Ok(None),
                    }
                }
            };
            if !target.push(&header, bytes)? {
                return Ok(None);
            }
            self.pace.wrote(bytes.len())?;
            records += u64::from(header.record_count.unsigned_abs());
        }
        Ok(Some(records))
    }

    /// Decides on a batch of which all is known without a look at its records; `None` if it is not.
    fn fate_at_once(&self, header: &BatchHeader, pass: &Pass<'_>) -> Option<Fate> {
        let known = pass.latest.known();
        let (first, last) = (header.base_offset, header.last_offset());
        let is_known = last < pass.latest.end()
            && known.cover(header)
            && header.record_count > 0
            && !header.attributes.is_control()
            && !self.fates.is_aborted(header);
        if !is_known {
            return None;
        }
        match known.gone_count(first, last) {
            0 if known.has_tombstones(first, last) => None,
            0 => Some(Fate::Copy),
            all if all == header.record_count.unsigned_abs() => {
                (!self.fates.is_last_of_producer(header)).then_some(Fate::Drop)
            }
            _ => None,
        }
    }

    /// Decides on a batch: the invariant (latest stays).
    fn fate_of(&mut self, batch: &Batch<'_>, pass: &Pass<'_>) -> Fate {
        let header = batch.header();
        if header.attributes.is_control() {
            return self.fate_of_marker(batch);
        }
        let is_aborted = self.fates.is_aborted(header);
        let keeps_tombstones = pass.is_behind_unreadable
            || !header.attributes.has_delete_horizon()
            || self.how.now_ms < header.base_timestamp_ms;
        let latest = pass.latest;
        let is_known = latest.known().cover(header);
        self.hashes.clear();
        if !is_known && !is_aborted {
            let hasher = latest.hasher();
            self.hashes.reserve(batch.records().left());
            for record in batch.records() {
                self.hashes.push(record.key.map_or_else(KeyHash::default, |key| hasher.hash(key)));
            }
            latest.fetch(self.hashes.iter().copied());
        }
        let mut hashes = self.hashes.iter();
        let judgement = self.rewriter.judge(batch, |record| {
            let hash = hashes.next();
            if record.offset >= latest.end() {
                return true;
            }
            let is_superseded = || match hash {
                None => latest.known().is_gone(record.offset),
                Some(hash) => latest.of(*hash).is_some_and(|later| later > record.offset),
            };
            !is_aborted
                && record.key.is_some()
                && (record.value.is_some() || keeps_tombstones)
                && !is_superseded()
        });
        match judgement {
            Judgement::Unchanged => Fate::Copy,
            Judgement::Rewritten => Fate::Rewrite,
            Judgement::Emptied if !self.fates.is_last_of_producer(header) => Fate::Drop,
            Judgement::Emptied if header.record_count == 0 => Fate::Copy,
            Judgement::Emptied => Fate::Empty,
        }
    }

    /// Decides on a control batch.
    fn fate_of_marker(&mut self, batch: &Batch<'_>) -> Fate {
        let header = batch.header();
        let is_last = self.fates.is_last_of_producer(header);
        if header.record_count == 0 {
            return if is_last { Fate::Copy } else { Fate::Drop };
        }
        if !self.fates.is_lone_marker(header.base_offset) {
            return Fate::Copy;
        }
        if !header.attributes.has_delete_horizon() {
            self.rewriter.give_horizon(batch);
            return Fate::Rewrite;
        }
        match self.how.now_ms < header.base_timestamp_ms {
            true => Fate::Copy,
            false if is_last => Fate::Empty,
            false => Fate::Drop,
        }
    }

    fn leave(&mut self, base_offset: i64, position: u64, why: WhyLeft) {
        let path = self.partition.context.log_path(base_offset);
        let left = Left { path, position, why };
        if !self.compacted.left.contains(&left) {
            self.compacted.left.push(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Finding;
    use crate::Record;
    use crate::Store;
    use crate::TimestampType;
    use crate::Topic;
    use crate::TopicConfig;
    use crate::clock::Clock;
    use crate::format::encode::BatchBuilder;
    use crate::format::header::field;
    use crate::partition::compaction_plan::SegmentLimits;
    use crate::storage::file_name;
    use std::fs;
    use std::path::Path;
    use std::path::PathBuf;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    const DAY_MS: i64 = 24 * 60 * 60 * 1000;

    impl Compaction {
        pub(crate) fn at(now_ms: i64) -> Compaction {
            let segments = SegmentLimits { segment_bytes: 4000, segment_index_bytes: 4000 };
            let config = crate::config::LogConfig::resolve(&Default::default()).unwrap();
            Compaction { segments, ..Compaction::of(&config, now_ms) }
        }
    }

    impl Store {
        pub(crate) fn compact_for_test(&self, topic: &str, how: &Compaction) -> Result<Compacted> {
            let progress = CompactionProgress::new();
            self.topics_for_test().compact(&self.topic(topic)?.state, 0, how, &progress)
        }
    }

    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/kafka-3.9/clean").join(name)
    }

    fn copied(name: &str, root: &Path, rename: impl Fn(&str) -> Option<String>) {
        fs::create_dir(root.join(name)).unwrap();
        for entry in fs::read_dir(golden(name)).unwrap().map(|entry| entry.unwrap()) {
            let from = entry.file_name().into_string().unwrap();
            if let Some(to) = rename(&from) {
                fs::copy(entry.path(), root.join(name).join(to)).unwrap();
            }
        }
    }

    /// Kafka compacted this very log, and its input is still there beside its output.
    #[test]
    fn kafkas_input_becomes_kafkas_output_byte_for_byte() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("data");
        fs::create_dir(&root).unwrap();
        let is_output = |name: &str| {
            name.starts_with("00000000000000000000.") || name.starts_with("00000000000000000201.")
        };
        copied("compact-0", &root, |name| match name.strip_suffix(".deleted") {
            Some(before) => Some(before.to_owned()),
            None if is_output(name) && !name.ends_with(".snapshot") => None,
            None => Some(name.to_owned()),
        });
        let store = Store::open(&root).unwrap();
        assert!(store.health().is_good());
        // A day before the delete horizon that Kafka set.
        let how = Compaction::at(1_795_418_045_903 - DAY_MS);
        let compacted = store.compact_for_test("compact", &how).unwrap();
        assert_eq!(compacted.before, Amount { segments: 2, bytes: 3649 + 3686, records: 401 });
        assert_eq!(compacted.after, Amount { segments: 2, bytes: 425, records: 20 });
        assert_eq!(compacted.left, []);
        let cleaned = fs::read_to_string(root.join(file_name::CLEANED)).unwrap();
        assert_eq!(cleaned, fs::read_to_string(golden(file_name::CLEANED)).unwrap());
        store.close().unwrap();
        let mut compared = 0;
        for entry in fs::read_dir(golden("compact-0")).unwrap().map(|entry| entry.unwrap()) {
            let name = entry.file_name().into_string().unwrap();
            let ours = fs::read(root.join("compact-0").join(&name));
            if name.ends_with(".deleted") {
                assert!(ours.is_err(), "{name}");
            } else {
                assert!(ours.unwrap() == fs::read(entry.path()).unwrap(), "{name}");
                compared += 1;
            }
        }
        assert_eq!(compared, 14);
        assert_eq!(crate::inspect::check(&root).unwrap().problems, []);
    }

    /// A store on a log made of these segments, each of these batches, as somebody left it who was killed.
    fn store_of(root: &Path, segments: &[Vec<Vec<u8>>]) -> Store {
        let directory = root.join("t-0");
        fs::create_dir_all(&directory).unwrap();
        for batches in segments {
            let base_offset = decode::header_at(&batches[0]).unwrap().base_offset;
            let log = OffsetFile::Log.path(&directory, base_offset);
            fs::write(log, batches.concat()).unwrap();
        }
        Store::open(root).unwrap()
    }

    fn raw(base_offset: i64, records: &[(&str, Option<&str>)]) -> Raw {
        Raw {
            base_offset,
            records: records.iter().map(|(k, v)| (k.to_string(), v.map(str::to_owned))).collect(),
            producer_id: -1,
            attributes: 0,
        }
    }

    /// What goes into a batch that only a test makes.
    #[derive(Clone)]
    struct Raw {
        base_offset: i64,
        records: Vec<(String, Option<String>)>,
        producer_id: i64,
        attributes: i16,
    }

    impl Raw {
        fn of(self, producer_id: i64) -> Raw {
            Raw { producer_id, ..self }
        }

        fn transactional(self) -> Raw {
            Raw { attributes: self.attributes | 0x10, ..self }
        }

        fn bytes(&self) -> Vec<u8> {
            let mut builder = BatchBuilder::default();
            for (key, value) in &self.records {
                let record =
                    Record::tombstone(key).value_or_null(value.as_deref().map(str::as_bytes));
                builder.push(&record, 1_000 + self.base_offset).unwrap();
            }
            let mut batch = builder.seal(TimestampType::CreateTime);
            batch.stamp(self.base_offset, 0);
            sealed(batch.bytes().to_vec(), |bytes| {
                bytes[field::PRODUCER_ID].copy_from_slice(&self.producer_id.to_be_bytes());
                bytes[field::ATTRIBUTES].copy_from_slice(&self.attributes.to_be_bytes());
                if self.producer_id >= 0 {
                    bytes[field::PRODUCER_EPOCH].copy_from_slice(&0_i16.to_be_bytes());
                    bytes[field::BASE_SEQUENCE].copy_from_slice(&100_i32.to_be_bytes());
                }
            })
        }
    }

    fn sealed(mut bytes: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        change(&mut bytes);
        let checksum = crc32c::crc32c(&bytes[field::CHECKSUM.end..]);
        bytes[field::CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    fn marker(offset: i64, producer_id: i64, kind: u8) -> Vec<u8> {
        let mut builder = BatchBuilder::default();
        let key = [0, 0, 0, kind];
        builder.push(&Record::new(&[0; 6]).key(&key), 1_000 + offset).unwrap();
        let mut batch = builder.seal(TimestampType::CreateTime);
        batch.stamp(offset, 0);
        sealed(batch.bytes().to_vec(), |bytes| {
            bytes[field::PRODUCER_ID].copy_from_slice(&producer_id.to_be_bytes());
            bytes[field::PRODUCER_EPOCH].copy_from_slice(&0_i16.to_be_bytes());
            bytes[field::ATTRIBUTES].copy_from_slice(&0x30_i16.to_be_bytes());
        })
    }
    const ABORT: u8 = 0;
    const COMMIT: u8 = 1;

    /// What is read, as `offset key=value`; damage and what else cannot be read is stepped over.
    fn read(store: &Store) -> Vec<String> {
        let partition = store.topic("t").unwrap().partition(0).unwrap();
        let mut consumer = store.consumer().assign([&partition]).unwrap();
        let mut found = Vec::new();
        let end = partition.watermarks().unwrap().1;
        let text = |bytes: Option<&[u8]>| {
            bytes.map_or("-".into(), |b| String::from_utf8_lossy(b).into_owned())
        };
        while consumer.position(&partition).unwrap() < end {
            match consumer.poll(Duration::ZERO) {
                Ok(records) => found.extend(
                    records
                        .iter()
                        .map(|m| format!("{} {}={}", m.offset(), text(m.key()), text(m.value()))),
                ),
                Err(Error::Corrupt { resume, .. }) => {
                    found.push("damage".into());
                    consumer.seek(&partition, resume.unwrap()).unwrap();
                }
                Err(Error::UnsupportedCompression { resume, .. }) => {
                    found.push("compressed".into());
                    consumer.seek(&partition, resume).unwrap();
                }
                Err(other) => panic!("{other}"),
            }
        }
        found
    }

    fn batches_of(root: &Path, base_offset: i64) -> Vec<crate::format::header::BatchHeader> {
        let bytes = fs::read(OffsetFile::Log.path(&root.join("t-0"), base_offset)).unwrap();
        let mut headers = Vec::new();
        let mut position = 0;
        while let Ok(header) = decode::header_at(&bytes[position..]) {
            assert!(decode::checksum_holds(&header, &bytes[position..]));
            position += header.len();
            headers.push(header);
        }
        assert_eq!(position, bytes.len());
        headers
    }

    #[test]
    fn what_was_aborted_supersedes_nothing_and_goes_and_markers_stay() {
        let directory = tempfile::tempdir().unwrap();
        let segments = [
            vec![
                raw(0, &[("a", Some("committed")), ("b", Some("old"))]).bytes(),
                raw(2, &[("a", Some("aborted")), ("c", None)]).of(7).transactional().bytes(),
                raw(4, &[("b", Some("new"))]).of(8).transactional().bytes(),
                marker(5, 7, ABORT),
            ],
            vec![
                marker(6, 8, COMMIT),
                // Its marker lies in the last segment.
                raw(7, &[("c", Some("late")), ("a", Some("late"))]).of(7).transactional().bytes(),
            ],
            vec![marker(9, 7, ABORT), raw(10, &[("z", Some("last"))]).bytes()],
        ];
        let store = store_of(directory.path(), &segments);
        let compacted = store.compact_for_test("t", &Compaction::at(5_000)).unwrap();
        assert_eq!((compacted.first_dirty, compacted.left), (9, vec![]));
        assert_eq!(read(&store), ["0 a=committed", "4 b=new", "10 z=last"]);
        // Producer 7's last sequence is kept on record.
        let headers = batches_of(directory.path(), 0);
        let shown: Vec<_> = headers.iter().map(|h| (h.base_offset, h.record_count)).collect();
        assert_eq!(shown, [(0, 1), (4, 1), (5, 1), (6, 1), (7, 0)]);
        assert!(headers[2].attributes.is_control() && headers[3].attributes.is_control());
        store.close().unwrap();
        assert_eq!(crate::inspect::check(directory.path()).unwrap().problems, []);
    }

    #[test]
    fn a_segment_is_written_anew_for_an_aborted_transaction_alone() {
        let directory = tempfile::tempdir().unwrap();
        let segments = [
            vec![
                raw(0, &[("a", Some("kept"))]).bytes(),
                raw(1, &[("b", Some("aborted"))]).of(7).transactional().bytes(),
                marker(2, 7, ABORT),
            ],
            vec![raw(3, &[("z", Some("last"))]).bytes()],
        ];
        let store = store_of(directory.path(), &segments);
        store.compact_for_test("t", &Compaction::at(5_000)).unwrap();
        assert_eq!(read(&store), ["0 a=kept", "3 z=last"]);
    }

    #[test]
    fn a_marker_goes_once_nothing_is_left_of_its_transaction_and_its_time_has_passed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let segments = [
            vec![
                raw(0, &[("a", Some("aborted"))]).of(7).transactional().bytes(),
                raw(1, &[("b", Some("committed"))]).of(8).transactional().bytes(),
                marker(2, 7, ABORT),
                marker(3, 8, COMMIT),
                // What it ended was deleted with the segments in front of it.
                marker(4, 9, COMMIT),
            ],
            vec![raw(5, &[("a", Some("new")), ("c", Some("new"))]).of(7).transactional().bytes()],
            vec![marker(7, 7, COMMIT), raw(8, &[("z", Some("last"))]).bytes()],
        ];
        let transactions = OffsetFile::TransactionIndex.path(&root.join("t-0"), 0);
        let store = {
            fs::create_dir_all(root.join("t-0")).unwrap();
            let fields = [7_i64, 0, 2, 0].iter().flat_map(|field| field.to_be_bytes());
            fs::write(&transactions, [0, 0].into_iter().chain(fields).collect::<Vec<u8>>())
                .unwrap();
            store_of(root, &segments)
        };
        let shown = || {
            let headers = batches_of(root, 0);
            let shown = headers.iter().map(|header| {
                let horizon = header.attributes.has_delete_horizon();
                (
                    header.base_offset,
                    header.record_count,
                    horizon.then_some(header.base_timestamp_ms),
                )
            });
            shown.collect::<Vec<_>>()
        };
        let read_of_all = ["1 b=committed", "5 a=new", "6 c=new", "8 z=last"];
        let compact_at = |now_ms| {
            let compacted = store.compact_for_test("t", &Compaction::at(now_ms)).unwrap();
            assert_eq!(compacted.left, []);
            assert_eq!(read(&store), read_of_all);
        };
        compact_at(5_000);
        let first = Some(5_000 + DAY_MS);
        let left = [(1, 1, None), (2, 1, None), (3, 1, None), (4, 1, first), (5, 2, None)];
        assert_eq!(shown(), left, "what was aborted was there when it began");
        assert!(transactions.exists());
        compact_at(6_000);
        let second = Some(6_000 + DAY_MS);
        assert_eq!(shown()[1..4], [(2, 1, second), (3, 1, None), (4, 1, first)]);
        assert!(!transactions.exists(), "nothing is left that was aborted");
        compact_at(5_999 + DAY_MS);
        assert_eq!(shown()[1..4], [(2, 1, second), (3, 1, None), (4, 0, None)]);
        for _ in 0..2 {
            compact_at(6_000 + DAY_MS);
            // Nothing else tells that producer 9 was there.
            assert_eq!(shown(), [(1, 1, None), (3, 1, None), (4, 0, None), (5, 2, None)]);
        }
        store.close().unwrap();
        assert_eq!(crate::inspect::check(root).unwrap().problems, []);
    }

    #[test]
    fn a_transaction_that_has_not_ended_holds_up_what_is_behind_it() {
        let directory = tempfile::tempdir().unwrap();
        let segments = [
            vec![raw(0, &[("a", Some("old"))]).bytes(), raw(1, &[("a", Some("new"))]).bytes()],
            vec![raw(2, &[("b", Some("open"))]).of(7).transactional().bytes()],
            vec![raw(3, &[("b", Some("old")), ("b", Some("new"))]).bytes()],
            vec![raw(5, &[("z", Some("last"))]).bytes()],
        ];
        let store = store_of(directory.path(), &segments);
        let compacted = store.compact_for_test("t", &Compaction::at(5_000)).unwrap();
        assert_eq!((compacted.first_dirty, compacted.left), (2, vec![]));
        assert_eq!(read(&store), ["1 a=new", "2 b=open", "3 b=old", "4 b=new", "5 z=last"]);
    }

    #[test]
    fn a_control_record_of_an_unknown_kind_holds_up_everything_from_its_segment_on() {
        let directory = tempfile::tempdir().unwrap();
        let segments = [
            vec![raw(0, &[("a", Some("1"))]).bytes(), raw(1, &[("a", Some("2"))]).bytes()],
            vec![raw(2, &[("a", Some("3"))]).of(7).transactional().bytes(), marker(3, 7, 9)],
            vec![raw(4, &[("z", Some("last"))]).bytes()],
        ];
        let store = store_of(directory.path(), &segments);
        let compacted = store.compact_for_test("t", &Compaction::at(5_000)).unwrap();
        assert_eq!(compacted.first_dirty, 2);
        assert!(matches!(compacted.left[..], [Left { why: WhyLeft::Damaged(_), .. }]));
        assert_eq!(read(&store), ["1 a=2", "2 a=3", "4 z=last"]);
    }

    #[test]
    fn a_producers_last_sequence_stays_until_it_has_a_later_one() {
        let directory = tempfile::tempdir().unwrap();
        let segments = [
            vec![raw(0, &[("a", Some("1")), ("a", Some("2"))]).of(7).bytes()],
            vec![raw(2, &[("a", Some("3"))]).bytes()],
            vec![raw(3, &[("z", Some("last"))]).bytes()],
        ];
        let store = store_of(directory.path(), &segments);
        for _ in 0..2 {
            store.compact_for_test("t", &Compaction::at(5_000)).unwrap();
            let headers = batches_of(directory.path(), 0);
            assert_eq!((headers.len(), headers[0].producer_id, headers[0].record_count), (2, 7, 0));
            assert_eq!((headers[0].last_offset(), headers[0].last_sequence()), (1, 101));
            assert_eq!(headers[0].base_timestamp_ms, -1);
            assert_eq!(read(&store), ["2 a=3", "3 z=last"]);
        }
        drop(store);
        let later = raw(4, &[("y", Some("later"))]).of(7).bytes();
        let log = OffsetFile::Log.path(&directory.path().join("t-0"), 4);
        fs::write(log, later).unwrap();
        let log = OffsetFile::Log.path(&directory.path().join("t-0"), 5);
        fs::write(log, raw(5, &[("x", Some("x"))]).bytes()).unwrap();
        fs::remove_file(directory.path().join(".kafka_cleanshutdown")).unwrap();
        let store = Store::open(directory.path()).unwrap();
        store.compact_for_test("t", &Compaction::at(5_000)).unwrap();
        assert_eq!(batches_of(directory.path(), 0)[0].base_offset, 2);
    }

    /// The tombstone is past its horizon, but what it stands for may be in what cannot be read.
    #[test]
    fn what_is_compressed_is_left_and_no_tombstone_behind_it_goes() {
        let directory = tempfile::tempdir().unwrap();
        let packed = |raw: &Raw| sealed(raw.bytes(), |bytes| bytes[field::ATTRIBUTES.end - 1] |= 7);
        let segments = [
            vec![raw(0, &[("a", Some("1"))]).bytes(), raw(1, &[("a", Some("2"))]).bytes()],
            vec![packed(&raw(2, &[("a", Some("3"))])), raw(3, &[("b", Some("1"))]).bytes()],
            vec![raw(4, &[("a", None)]).bytes(), raw(5, &[("b", Some("2"))]).bytes()],
            vec![raw(6, &[("z", Some("last"))]).bytes()],
        ];
        let store = store_of(directory.path(), &segments);
        let middle = OffsetFile::Log.path(&directory.path().join("t-0"), 2);
        let before = fs::read(&middle).unwrap();
        for now_ms in [5_000, 5_000 + DAY_MS, 5_000 + 3 * DAY_MS] {
            let compacted = store.compact_for_test("t", &Compaction::at(now_ms)).unwrap();
            assert_eq!(compacted.first_dirty, 2, "what is behind is compared again one day");
            let left = Left {
                path: middle.clone(),
                position: 0,
                why: WhyLeft::Compressed("an unknown codec"),
            };
            assert_eq!(compacted.left, [left]);
            assert_eq!(read(&store), ["compressed", "3 b=1", "4 a=-", "5 b=2", "6 z=last"]);
        }
        assert_eq!(fs::read(&middle).unwrap(), before);
        assert_eq!(batches_of(directory.path(), 4)[0].base_timestamp_ms, 5_000 + DAY_MS);
        let told = store.health().findings;
        assert!(
            matches!(&told[..], [Finding::Nuisance { path, .. }] if *path == middle),
            "{told:?}"
        );
    }

    #[test]
    fn damage_ends_a_compaction_and_is_found_afterwards_as_before() {
        let flipped = |mut bytes: Vec<u8>| {
            bytes[65] ^= 1;
            bytes
        };
        let batch = |offset: i64, key: &str| raw(offset, &[(key, Some("v"))]).bytes();
        // A flipped bit; a batch that is missing in the middle, or at the end.
        let damaged = [
            vec![flipped(batch(2, "a")), batch(3, "a"), batch(4, "a"), batch(5, "a")],
            vec![batch(2, "a"), batch(4, "a"), batch(5, "a")],
            vec![batch(2, "a"), batch(3, "a"), batch(4, "a")],
        ];
        for middle in damaged {
            let directory = tempfile::tempdir().unwrap();
            let segments = [
                vec![batch(0, "a"), batch(1, "a")],
                middle,
                vec![batch(6, "a"), batch(7, "a")],
                vec![batch(8, "z")],
            ];
            // All of it was durable once.
            let point = directory.path().join("recovery-point-offset-checkpoint");
            fs::write(point, "0\n1\nt 0 8\n").unwrap();
            let store = store_of(directory.path(), &segments);
            let path = OffsetFile::Log.path(&directory.path().join("t-0"), 2);
            let (before, problems) = (
                fs::read(&path).unwrap(),
                crate::inspect::check(directory.path()).unwrap().problems,
            );
            assert_eq!(problems.len(), 1);
            let shown = read(&store);
            let compacted = store.compact_for_test("t", &Compaction::at(5_000)).unwrap();
            assert_eq!(compacted.first_dirty, 2);
            assert!(
                matches!(&compacted.left[..], [Left { path: p, why: WhyLeft::Damaged(_), .. }] if *p == path)
            );
            assert_eq!(read(&store), shown[1..], "the first a is superseded, and nothing else");
            assert_eq!(fs::read(&path).unwrap(), before);
            assert_eq!(crate::inspect::check(directory.path()).unwrap().problems, problems);
            assert!(store.health().findings.iter().any(|f| matches!(f, Finding::Damage { .. })));
        }
    }

    #[test]
    fn the_logs_own_time_and_the_files_age_stay() {
        let (clock, now) = Clock::fixed(1_000_000);
        let store = Store::builder_temporary().clock(clock).open().unwrap();
        let config = TopicConfig::new().timestamp_type(TimestampType::LogAppendTime);
        let topic = store.create_topic("t", config).unwrap();
        let batch = || ["a", "b", "a"].map(|key| Record::new("v").key(key).timestamp(3));
        drop(store.producer().send_batch(&topic.partition(0).unwrap(), batch()).unwrap());
        now.fetch_add(500, Ordering::Relaxed);
        let tombstone = Record::tombstone("b");
        drop(store.producer().send(&topic, tombstone).unwrap());
        topic.state.open_partition(0).unwrap().roll_now().unwrap();
        drop(store.producer().send(&topic, Record::new("v").key("z")).unwrap());
        store.sync().unwrap();
        let log = OffsetFile::Log.path(&store.path().join("t-0"), 0);
        let age = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
        fs::File::options().write(true).open(&log).unwrap().set_modified(age).unwrap();
        store.compact_for_test("t", &Compaction::at(2_000_000)).unwrap();
        let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
        let records = consumer.poll(Duration::ZERO).unwrap();
        let seen: Vec<_> =
            records.iter().map(|m| (m.offset(), m.timestamp(), m.timestamp_type())).collect();
        let appended = TimestampType::LogAppendTime;
        assert_eq!(seen[..2], [(2, 1_000_000, appended), (3, 1_000_500, appended)]);
        assert_eq!(fs::metadata(&log).unwrap().modified().unwrap(), age);
        let times = OffsetFile::TimeIndex.beside(&log);
        assert_eq!(fs::metadata(times).unwrap().modified().unwrap(), age);
    }

    #[test]
    fn rolling_now_closes_what_has_records_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let topic = store.create_topic("t", TopicConfig::new()).unwrap();
        let count = |topic: &Topic| topic.describe().unwrap().partitions[0].segment_count;
        let roll = |topic: &Topic| topic.state.open_partition(0).unwrap().roll_now().unwrap();
        roll(&topic);
        assert_eq!(count(&topic), 1);
        drop(store.producer().send(&topic, Record::new("v").key("a")).unwrap());
        roll(&topic);
        roll(&topic);
        assert_eq!(count(&topic), 2);
        drop(store.producer().send(&topic, Record::new("v").key("a")).unwrap());
        drop(topic);
        store.close().unwrap();
        // Of a log that nobody appended to yet in this life.
        let store = Store::open(directory.path()).unwrap();
        let topic = store.topic("t").unwrap();
        roll(&topic);
        assert_eq!(count(&topic), 3);
        // What is compacted away up to the end of the log is no lag.
        let compacted = store.compact_for_test("t", &Compaction::at(5_000)).unwrap();
        assert_eq!((compacted.first_dirty, compacted.after.records), (2, 1));
        assert_eq!(read(&store), ["1 a=v"]);
        let open = topic.state.open_partition(0).unwrap();
        store.close().unwrap();
        assert!(matches!(open.roll_now(), Err(Error::Closed)));
        let compacted =
            open.compact(&Compaction::at(5_000), &CompactionProgress::new(), &Throttle::default());
        assert!(matches!(compacted, Err(Error::Closed)));
    }

    /// A log whose last records were all superseded ends where it ended, and nobody waits for what is gone.
    #[test]
    fn a_hole_at_the_end_of_the_log_is_no_lag() {
        let directory = tempfile::tempdir().unwrap();
        let segments = [
            vec![raw(0, &[("a", Some("1"))]).bytes(), raw(1, &[("b", None)]).bytes()],
            vec![raw(2, &[("", None)]).bytes()],
        ];
        let store = store_of(directory.path(), &segments);
        let topic = store.topic("t").unwrap();
        topic.state.open_partition(0).unwrap().roll_now().unwrap();
        for now_ms in [5_000, 5_000 + DAY_MS] {
            store.compact_for_test("t", &Compaction::at(now_ms)).unwrap();
        }
        let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
        let records = consumer.poll(Duration::ZERO).unwrap();
        assert_eq!(records.count(), 1);
        assert!(consumer.poll(Duration::ZERO).unwrap().is_empty());
        let partition = topic.partition(0).unwrap();
        assert_eq!(partition.watermarks().unwrap(), (0, 3));
        assert_eq!(consumer.lag(&partition).unwrap(), 0);
        assert_eq!(consumer.position(&partition).unwrap(), 3);
        drop((records, topic, partition, consumer));
        store.close().unwrap();
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.topic("t").unwrap().partition(0).unwrap().watermarks().unwrap(), (0, 3));
        assert_eq!(read(&store), ["0 a=1"]);
    }
}
