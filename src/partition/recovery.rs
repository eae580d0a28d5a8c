//! Facts → decision → repaired directory.
//!
//! After a clean close nothing is scanned: the end of the log is found behind the last index entry. After
//! anything else, every segment from the one that holds the recovery point is synchronised, dropped from
//! the cache, and walked with every check. Where the walk meets something that is no batch, [`decide`]
//! says what it is from five facts:
//!
//! | below the recovery point | the segment | only zeros behind | whole batch behind | same boot | so it is |
//! | --- | --- | --- | --- | --- | --- |
//! | yes | | | | | damage: it was durable |
//! | no | the last | yes | | | the end |
//! | no | followed by one that continues | yes | | | the end: reserved space that was not given back |
//! | no | sealed | otherwise | | | damage: it was durable before anything behind it was acknowledged |
//! | no | unsealed or the last | otherwise | yes | yes | damage: no power cut tore this |
//! | no | unsealed or the last | otherwise | otherwise | | a tail that a power cut tore: cut |
//!
//! A segment is *sealed* if another follows and its index files have entries: by the invariant (sealed shows)
//! it was durable then. Behind an unsealed one nothing was ever acknowledged, so where it is cut, the log ends,
//! and the segments behind it are set aside; for the table, a segment behind counts as a whole batch behind.
//!
//! Damage behind the recovery point and in the same boot is as a rule a page that the kernel could not write and gave
//! up: it was never durable, the writer was told by a failed sync, and what lies behind it may have been written.
//! Nothing was acknowledged as durable there, so it could be cut as well; but batches behind it are whole, and what
//! survives a killed process (a buffered send) is not thrown away for a hole before it.
//!
//! What is cut is kept beside the log unless it was zeros. Damage is never cut: reads that touch it fail
//! with path and byte, the rest stays readable.
//!
//! **Invariant (no resurrection).** What was cut is durably gone before the first append, so that old
//! bytes behind a new batch can never line up with it again.
//!
//! **Invariant (repeatable).** Every step can be cut short and done again from the start.

use std::path::Path;
use std::path::PathBuf;

use crate::error::Result;
use crate::format::header::BatchHeader;
use crate::partition::finding::Finding;
use crate::partition::leader_epochs::LeaderEpochs;
use crate::storage::disk::Access;
use crate::storage::disk::DiskFile;
use crate::storage::file_name;
use crate::storage::file_name::OffsetFile;
use crate::storage::indexes;
use crate::storage::indexes::Indexes;
use crate::storage::lock::LastBoot;
use crate::storage::offset_index::OffsetIndex;
use crate::storage::planted::Planted;
use crate::storage::scan::Continuity;
use crate::storage::scan::Depth;
use crate::storage::scan::Scan;
use crate::storage::scan::Scanned;
use crate::storage::segment_files::SegmentContext;

/// What is known about the place where a scan met something that is no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) below_recovery_point: bool,
    pub(crate) standing: Standing,
    /// The next segment starts at the very offset that is expected here.
    pub(crate) next_continues: bool,
    pub(crate) only_zeros_behind: bool,
    pub(crate) whole_batch_behind: bool,
    pub(crate) last_boot: LastBoot,
}

/// Where a segment stands in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Another follows, and it was durable before anything in that one was acknowledged.
    Sealed,
    /// Another follows, and nothing in that one was acknowledged.
    Unsealed,
    Last,
}

/// What is to be done there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The segment ends here; give back what is behind.
    End,
    /// Cut, and keep what was cut.
    Cut,
    /// Leave it, and go on behind it if that is possible.
    Damage,
}

/// The table at the top of this file.
pub(crate) fn decide(facts: Facts) -> Decision {
    match facts {
        Facts { below_recovery_point: true, .. } => Decision::Damage,
        Facts { only_zeros_behind: true, standing: Standing::Last, .. } => Decision::End,
        Facts { only_zeros_behind: true, next_continues: true, .. } => Decision::End,
        Facts { standing: Standing::Sealed, .. } => Decision::Damage,
        Facts { whole_batch_behind: true, last_boot: LastBoot::Same, .. } => Decision::Damage,
        Facts { .. } => Decision::Cut,
    }
}

/// What opening a partition knows before it looks at its segments.
#[derive(Debug)]
pub(crate) struct Circumstances {
    /// The last writer closed the directory and said so.
    pub(crate) clean: bool,
    pub(crate) last_boot: LastBoot,
    /// Everything below was durable when it was noted.
    pub(crate) recovery_point: i64,
    /// So far the indexes were, too: what is on record, where the mark of a compaction says more of the log.
    pub(crate) indexed_below: i64,
}

/// A log after recovery: all its segments end on a batch's boundary, with their indexes on disk.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) log_end: i64,
    /// Why nothing may be appended, if so.
    pub(crate) latch: Option<String>,
    pub(crate) findings: Vec<Finding>,
    /// Batches of idempotent producers were met whose state is not in the newest snapshot.
    pub(crate) met_producers: bool,
    /// The scan began with the first segment.
    pub(crate) saw_whole_log: bool,
    pub(crate) was_unclean: bool,
    /// The first segment whose indexes could not be written.
    pub(crate) unindexed: Option<i64>,
}

impl Recovered {
    fn without_findings(log_end: i64, was_unclean: bool) -> Recovered {
        Recovered {
            log_end,
            latch: None,
            findings: Vec::new(),
            met_producers: false,
            saw_whole_log: false,
            was_unclean,
            unindexed: None,
        }
    }
}

/// Finds the end of a log whose segments start at `base_offsets`, and repairs what needs it; takes those off
/// the list that turn out to lie behind the end.
pub(crate) fn recover(
    context: &SegmentContext,
    base_offsets: &mut Vec<i64>,
    circumstances: &Circumstances,
    epochs: &mut LeaderEpochs,
) -> Result<Recovered> {
    let last = *base_offsets.last().expect("opening creates the first segment");
    if circumstances.clean {
        if let Some((log_end, _)) = clean_end(context, last)? {
            let saw_whole_log = base_offsets.len() == 1 && log_end == last;
            return Ok(Recovered { saw_whole_log, ..Recovered::without_findings(log_end, false) });
        }
    }
    Recovery {
        context,
        circumstances,
        epochs,
        recovered: Recovered::without_findings(last, true),
        ends_here: false,
        holding: last,
    }
    .run(base_offsets)
}

/// Finds the log's end, and where in the file it is, behind the last index entry of the last segment,
/// reading headers only. `None` if the file does not end on a batch's boundary: then it is not what a
/// clean close leaves.
pub(crate) fn clean_end(context: &SegmentContext, base_offset: i64) -> Result<Option<(i64, u64)>> {
    let path = context.log_path(base_offset);
    let file = context.disk.open(&path, Access::Read)?;
    let index = context
        .disk
        .read_small(&OffsetFile::OffsetIndex.beside(&path), INDEX_LEN_MAX)
        .ok()
        .and_then(|bytes| OffsetIndex::parse(base_offset, &bytes, file.len().ok()?).ok());
    let indexed = index.as_ref().and_then(OffsetIndex::last);
    let scan_from = |position, gaps_below| {
        let continuity = Continuity { expected: base_offset, gaps_below };
        Scan::new(&file, position, continuity, Depth::Headers)
    };
    let mut scan = scan_from(0, context.gaps.below())?;
    if let Some(indexed) = indexed {
        // The indexed batch itself says where it begins; its last offset must be the one indexed.
        let mut probe = scan_from(indexed.position, i64::MAX)?;
        if let Scanned::Batch { header, .. } = probe.next()? {
            if header.last_offset() <= indexed.last_offset {
                scan.resume_at(indexed.position, header.base_offset);
            }
        }
    }
    loop {
        match scan.next()? {
            Scanned::Batch { .. } => {}
            Scanned::End => return Ok(Some((scan.expected(), scan.position()))),
            Scanned::Fault { .. } => return Ok(None),
        }
    }
}

struct Recovery<'r> {
    context: &'r SegmentContext,
    circumstances: &'r Circumstances,
    epochs: &'r mut LeaderEpochs,
    recovered: Recovered,
    /// The log was cut in a segment that was not the last.
    ends_here: bool,
    /// Recovery goes back to segments below this one only as long as each has no time index.
    holding: i64,
}

/// One segment as the scan leaves it.
struct Walked {
    indexes: Indexes,
    /// Where the whole batches end.
    end: u64,
    /// The offset expected there.
    expected: i64,
    /// Where the first batch at or above the recovery point starts.
    fresh_from: Option<u64>,
    cut: Option<Decision>,
}

impl Recovery<'_> {
    fn run(mut self, base_offsets: &mut Vec<i64>) -> Result<Recovered> {
        let point = self.circumstances.recovery_point;
        let holding_of =
            |offset| base_offsets.partition_point(|base| *base <= offset).saturating_sub(1);
        let mut holding = holding_of(point);
        // A compaction vouches for what it read, not for indexes that an earlier recovery could not write.
        let on_record = holding_of(self.circumstances.indexed_below);
        for (index, base_offset) in base_offsets.iter().enumerate().take(holding).skip(on_record) {
            if self.context.is_unindexed(*base_offset)? {
                holding = index;
                break;
            }
        }
        self.holding = base_offsets[holding];
        // What was synchronised while it was the last, and then followed, is not put in order yet.
        while holding > 0 && self.context.is_unindexed(base_offsets[holding - 1])? {
            holding -= 1;
        }
        self.recovered.saw_whole_log = holding == 0;
        // An index that is written below says that the next segment has a durable name.
        self.context.disk.sync_directory(&self.context.directory)?;
        let mut index = holding;
        while let Some(base_offset) = base_offsets.get(index).copied() {
            index += 1;
            self.recover_segment(base_offset, &base_offsets[index..])?;
            if self.ends_here {
                base_offsets.truncate(index);
            }
        }
        let log_end = self.recovered.log_end;
        if log_end < point && self.recovered.latch.is_none() {
            // Offsets that were durable must not be given out again.
            self.latch(format!("the log ends at {log_end}, but was durable up to {point}"));
        }
        Ok(self.recovered)
    }

    fn recover_segment(&mut self, base_offset: i64, behind: &[i64]) -> Result<()> {
        let path = self.context.log_path(base_offset);
        let next = behind.first().copied();
        let standing = match next {
            None => Standing::Last,
            Some(_) if self.context.is_unsealed(base_offset)? => Standing::Unsealed,
            Some(_) => Standing::Sealed,
        };
        let file = self.context.disk.open(&path, Access::Write)?;
        // First let the kernel say what it could not write, then look at what the device holds: after
        // a failed sync the page cache shows bytes that are not on the disk.
        file.sync_data()?;
        if !self.context.disk.has(Planted::CacheTrusted) {
            file.drop_clean_pages();
        }

        let walked = self.walk(&file, base_offset, standing, next)?;
        if walked.cut == Some(Decision::Cut) && !behind.is_empty() {
            // Before the cut: as long as one of them is there, this segment's end says the same again.
            self.set_aside(behind, walked.expected)?;
            self.ends_here = true;
        }
        let settled = self.settle(&file, &walked);
        self.recovered.log_end = walked.expected;
        match settled {
            Ok(()) => self.index(&path, base_offset, &walked.indexes),
            Err(error) => {
                // The log is readable up to here, but its tail could not be put in order; nor is it called sealed.
                self.latch(error.to_string());
                self.leave_unindexed(&path, base_offset)
            }
        }
    }

    /// Writes a segment's indexes.
    ///
    /// **Invariant (found again).** Until a lower recovery point is on record, every segment without indexes is one that
    /// the next recovery comes to. It begins at the one that holds the point on record and goes back while the time
    /// index is missing or empty; so below that one, indexes are written oldest first, and where those of one cannot be,
    /// those behind it are left as they are.
    fn index(&mut self, path: &Path, base_offset: i64, indexes: &Indexes) -> Result<()> {
        if base_offset < self.holding && self.recovered.unindexed.is_some() {
            return Ok(());
        }
        let Err(error) = indexes::write_indexes(&self.context.disk, path, indexes) else {
            return Ok(());
        };
        // Readers rebuild an index that is missing, in memory.
        let file = path.to_path_buf();
        self.recovered.findings.push(Finding::Nuisance { path: file, reason: error.to_string() });
        self.leave_unindexed(path, base_offset)
    }

    /// Has the next recovery come back to a segment.
    fn leave_unindexed(&mut self, path: &Path, base_offset: i64) -> Result<()> {
        self.recovered.unindexed.get_or_insert(base_offset);
        if base_offset >= self.holding {
            // Those of an earlier life may say less than there is by now.
            for kind in [OffsetFile::OffsetIndex, OffsetFile::TimeIndex] {
                self.context.disk.remove_file(&kind.beside(path))?;
            }
        }
        Ok(())
    }

    /// Takes the segments behind the end out of the log, the last one first, and keeps what is in them.
    fn set_aside(&mut self, behind: &[i64], log_end: i64) -> Result<()> {
        let disk = &self.context.disk;
        for base_offset in behind.iter().rev() {
            let path = self.context.log_path(*base_offset);
            let file = disk.open(&path, Access::Read)?;
            let continuity = Continuity { expected: *base_offset, gaps_below: 0 };
            if Scan::new(&file, 0, continuity, Depth::Headers)?.is_zero_from(0)? {
                disk.remove_file(&path)?;
            } else {
                let kept = self.quarantine_path(log_end)?;
                let len = file.len()?;
                disk.rename(&path, &kept)?;
                self.recovered.findings.push(Finding::Cut {
                    path: path.clone(),
                    position: 0,
                    len,
                    kept,
                });
            }
            for kind in [OffsetFile::OffsetIndex, OffsetFile::TimeIndex] {
                disk.remove_file(&kind.beside(&path))?;
            }
            // One after the other, durably: a gap among those that are left would be something else.
            disk.sync_directory(&self.context.directory)?;
        }
        Ok(())
    }

    fn walk(
        &mut self,
        file: &DiskFile,
        base_offset: i64,
        standing: Standing,
        next: Option<i64>,
    ) -> Result<Walked> {
        let point = self.circumstances.recovery_point;
        let continuity =
            Continuity { expected: base_offset, gaps_below: self.context.gaps.below() };
        let depth = match self.context.disk.has(Planted::ChecksumIgnored) {
            true => Depth::Headers,
            false => Depth::Checksums,
        };
        let mut scan = Scan::new(file, 0, continuity, depth)?;
        let mut walked = Walked {
            indexes: Indexes::new(base_offset, self.context.index_interval_bytes),
            end: 0,
            expected: base_offset,
            fresh_from: None,
            cut: None,
        };
        let mut crossed_damage = false;
        loop {
            match scan.next()? {
                Scanned::Batch { position, header, .. } => {
                    if crossed_damage {
                        walked.indexes.note_behind_damage(position, &header);
                        crossed_damage = false;
                    } else {
                        let last_offset = header.last_offset();
                        walked.indexes.note(position, last_offset, header.max_timestamp_ms);
                    }
                    self.observe(&header);
                    if header.last_offset() >= point && walked.fresh_from.is_none() {
                        walked.fresh_from = Some(position);
                    }
                    walked.end = position + header.len() as u64;
                    walked.expected = header.last_offset() + 1;
                }
                Scanned::End => {
                    let is_short = |next| next > walked.expected.max(self.context.gaps.below());
                    if !next.is_some_and(is_short) {
                        return Ok(walked);
                    }
                    let is_torn = standing == Standing::Unsealed
                        && self.circumstances.last_boot == LastBoot::Other
                        && walked.expected >= point;
                    if is_torn {
                        walked.cut = Some(Decision::Cut);
                    } else {
                        self.note_damage(
                            file.path(),
                            walked.end,
                            "the segment ends too early",
                            next,
                        );
                    }
                    return Ok(walked);
                }
                Scanned::Fault { position, fault } => {
                    let expected = scan.expected();
                    // Reserved space, as a rule; that is seen faster than a search through it ends.
                    let only_zeros_behind = scan.is_zero_from(position)?;
                    let behind = match only_zeros_behind {
                        true => None,
                        false => scan.resync(position, expected)?,
                    };
                    let facts = Facts {
                        below_recovery_point: expected < point,
                        standing,
                        next_continues: next == Some(expected),
                        only_zeros_behind,
                        whole_batch_behind: behind.is_some() || standing == Standing::Unsealed,
                        last_boot: self.circumstances.last_boot,
                    };
                    let mut decision = decide(facts);
                    if self.context.disk.has(Planted::CutAnywhere) {
                        decision = Decision::Cut;
                    }
                    if decision != Decision::Damage {
                        walked.cut = Some(decision);
                        return Ok(walked);
                    }
                    let resume = behind.map(|(_, header)| header.base_offset).or(next);
                    self.note_damage(file.path(), position, fault.text(), resume);
                    let Some((position, header)) = behind else {
                        if next.is_none() {
                            self.latch(format!(
                                "the end of the log is damaged at byte {position} of {}",
                                file.path().display()
                            ));
                        }
                        return Ok(walked);
                    };
                    scan.resume_at(position, header.base_offset);
                    crossed_damage = true;
                }
            }
        }
    }

    /// Puts the end of a segment in order, durably.
    fn settle(&mut self, file: &DiskFile, walked: &Walked) -> Result<()> {
        let disk = &self.context.disk;
        let cut = || match disk.has(Planted::TailKept) {
            true => Ok(()),
            false => file.set_len(walked.end),
        };
        let sync = || match disk.has(Planted::CutNotSynced) {
            true => Ok(()),
            false => file.sync_all(),
        };
        match walked.cut {
            Some(Decision::Cut) if file.len()? == walked.end => sync()?,
            Some(Decision::Cut) => {
                let len = file.len()? - walked.end;
                let kept = self.quarantine(file, walked.end, walked.expected)?;
                cut()?;
                sync()?;
                self.recovered.findings.push(Finding::Cut {
                    path: file.path().to_path_buf(),
                    position: walked.end,
                    len,
                    kept,
                });
            }
            Some(Decision::End) => {
                cut()?;
                sync()?;
            }
            Some(Decision::Damage) | None => {}
        }
        // The last life may have ended in a failed sync, after which the kernel takes lost pages for
        // clean ones. Writing the same bytes again makes them durable wherever the cache was wrong.
        let is_careless = disk.has(Planted::CacheTrusted) || disk.has(Planted::CutNotSynced);
        let fresh_from = walked.fresh_from.filter(|_| !is_careless);
        if let Some(from) = fresh_from.filter(|from| walked.end - from <= REWRITE_LEN_MAX) {
            let mut bytes = vec![0; (walked.end - from) as usize];
            file.read_exact_at(&mut bytes, from)?;
            file.write_all_at(&bytes, from)?;
            file.sync_data()?;
        }
        Ok(())
    }

    /// Keeps what is about to be cut in a file of its own beside the log.
    fn quarantine(&self, file: &DiskFile, from: u64, expected: i64) -> Result<PathBuf> {
        let disk = &self.context.disk;
        let path = self.quarantine_path(expected)?;
        let kept = disk.open(&path, Access::CreateNew)?;
        let mut buffer = vec![0; 1 << 20];
        let len = file.len()?;
        for position in (from..len).step_by(buffer.len()) {
            let count = buffer.len().min((len - position) as usize);
            file.read_exact_at(&mut buffer[..count], position)?;
            kept.write_all_at(&buffer[..count], position - from)?;
        }
        kept.sync_all()?;
        disk.sync_directory(&self.context.directory)?;
        Ok(path)
    }

    /// Gives a name that is free for what lay behind an offset.
    fn quarantine_path(&self, expected: i64) -> Result<PathBuf> {
        let mut number = 0;
        loop {
            let name = format!("{}{expected:020}-{number}", file_name::QUARANTINE_PREFIX);
            let path = self.context.directory.join(name);
            if !self.context.disk.exists(&path)? {
                return Ok(path);
            }
            number += 1;
        }
    }

    fn observe(&mut self, header: &BatchHeader) {
        self.epochs.observe(header.leader_epoch, header.base_offset);
        self.recovered.met_producers |= header.producer_id >= 0;
    }

    fn note_damage(
        &mut self,
        path: &Path,
        position: u64,
        reason: &'static str,
        resume: Option<i64>,
    ) {
        let path = path.to_path_buf();
        self.recovered.findings.push(Finding::Damage { path, position, reason, resume });
    }

    fn latch(&mut self, reason: String) {
        let path = self.context.directory.to_path_buf();
        self.recovered.findings.push(Finding::Latched { path, reason: reason.clone() });
        self.recovered.latch.get_or_insert(reason);
    }
}

/// Beyond this, rewriting costs more than it is worth: the cache was dropped before the scan already.
const REWRITE_LEN_MAX: u64 = 4 << 20;
const INDEX_LEN_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::Disk;
    use crate::storage::gaps::Gaps;
    use Standing::Last;
    use Standing::Sealed;
    use Standing::Unsealed;

    /// Each row of the table in the module's documentation: a pattern over the facts (`None` = either).
    struct Case {
        below: Option<bool>,
        standing: &'static [Standing],
        next_continues: Option<bool>,
        zeros: Option<bool>,
        whole: Option<bool>,
        same_boot: Option<bool>,
        decision: Decision,
    }

    const ANY: &[Standing] = &[Sealed, Unsealed, Last];

    #[rustfmt::skip]
    const CASES: &[Case] = &[
        Case { below: Some(true), standing: ANY, next_continues: None, zeros: None, whole: None, same_boot: None, decision: Decision::Damage },
        Case { below: Some(false), standing: &[Last], next_continues: None, zeros: Some(true), whole: None, same_boot: None, decision: Decision::End },
        Case { below: Some(false), standing: &[Sealed, Unsealed], next_continues: Some(true), zeros: Some(true), whole: None, same_boot: None, decision: Decision::End },
        Case { below: Some(false), standing: &[Sealed], next_continues: Some(false), zeros: Some(true), whole: None, same_boot: None, decision: Decision::Damage },
        Case { below: Some(false), standing: &[Sealed], next_continues: None, zeros: Some(false), whole: None, same_boot: None, decision: Decision::Damage },
        Case { below: Some(false), standing: &[Unsealed], next_continues: Some(false), zeros: Some(true), whole: Some(true), same_boot: Some(true), decision: Decision::Damage },
        Case { below: Some(false), standing: &[Unsealed], next_continues: Some(false), zeros: Some(true), whole: Some(true), same_boot: Some(false), decision: Decision::Cut },
        Case { below: Some(false), standing: &[Unsealed], next_continues: Some(false), zeros: Some(true), whole: Some(false), same_boot: None, decision: Decision::Cut },
        Case { below: Some(false), standing: &[Unsealed, Last], next_continues: None, zeros: Some(false), whole: Some(false), same_boot: None, decision: Decision::Cut },
        Case { below: Some(false), standing: &[Unsealed, Last], next_continues: None, zeros: Some(false), whole: Some(true), same_boot: Some(false), decision: Decision::Cut },
        Case { below: Some(false), standing: &[Unsealed, Last], next_continues: None, zeros: Some(false), whole: Some(true), same_boot: Some(true), decision: Decision::Damage },
    ];

    /// All that was not known to be durable is written anew, and nothing else: the kernel may take any of it for clean.
    /// Where it is more than that is worth, none of it.
    #[test]
    fn what_is_written_anew_begins_at_the_recovery_point() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("data");
        let store = crate::Store::open(&root).unwrap();
        let topic = store.create_topic("t", crate::TopicConfig::new()).unwrap();
        let value = vec![7; 900_000];
        (0..5).for_each(|_| drop(store.producer().send(&topic, &value).unwrap()));
        drop(topic);
        store.close().unwrap();
        let disk = Disk::failing_once(u64::MAX, 0);
        let context = SegmentContext {
            disk: disk.clone(),
            directory: root.join("t-0").into(),
            lock: None,
            index_interval_bytes: 4096,
            gaps: Gaps::default(),
        };
        let file = disk.open(&context.log_path(0), Access::Write).unwrap();
        let batch_len = file.len().unwrap() / 5;
        for (recovery_point, from) in
            [(0, Some(0)), (1, Some(1)), (3, Some(3)), (4, Some(4)), (5, None)]
        {
            let circumstances = Circumstances {
                clean: false,
                last_boot: LastBoot::Same,
                recovery_point,
                indexed_below: recovery_point,
            };
            let mut recovery = Recovery {
                context: &context,
                circumstances: &circumstances,
                epochs: &mut LeaderEpochs::empty(&disk, root.join("epochs")),
                recovered: Recovered::without_findings(0, true),
                ends_here: false,
                holding: 0,
            };
            let walked = recovery.walk(&file, 0, Standing::Last, None).unwrap();
            assert_eq!(walked.fresh_from, from.map(|n: u64| n * batch_len), "{recovery_point}");
            assert_eq!((walked.end, walked.expected), (5 * batch_len, 5));
            let before = disk.script().trace().len();
            recovery.settle(&file, &walked).unwrap();
            let is_written = disk.script().trace().len() > before;
            assert_eq!(is_written, (1..5).contains(&recovery_point), "{recovery_point}");
        }
    }

    #[test]
    fn recovery_decides_every_combination_exactly_once() {
        for (bits, standing) in (0..64_u32).flat_map(|bits| ANY.iter().map(move |s| (bits, *s))) {
            let bit = |n: u32| bits & (1 << n) != 0;
            let facts = Facts {
                below_recovery_point: bit(0),
                standing,
                next_continues: bit(2),
                only_zeros_behind: bit(3),
                whole_batch_behind: bit(4),
                last_boot: if bit(5) { LastBoot::Same } else { LastBoot::Other },
            };
            let fits = |wanted: Option<bool>, is: bool| wanted.is_none_or(|wanted| wanted == is);
            let cases: Vec<&Case> = CASES
                .iter()
                .filter(|case| {
                    fits(case.below, facts.below_recovery_point)
                        && case.standing.contains(&facts.standing)
                        && fits(case.next_continues, facts.next_continues)
                        && fits(case.zeros, facts.only_zeros_behind)
                        && fits(case.whole, facts.whole_batch_behind)
                        && fits(case.same_boot, bit(5))
                })
                .collect();
            assert_eq!(cases.len(), 1, "{facts:?}");
            assert_eq!(decide(facts), cases[0].decision, "{facts:?}");
        }
    }
}
