//! One log as it is: which of its segments are to be changed, and how.

use std::path::Path;

use crate::error::Error;
use crate::error::Result;
use crate::inspect::check::segment::transaction_findings;
use crate::inspect::check::segment_offsets;
use crate::inspect::file_kind::FILE_LEN_MAX;
use crate::inspect::producer_snapshot::snapshot_entries;
use crate::repair::epochs_look::EpochsLook;
use crate::repair::known::Known;
use crate::repair::segment_look::Place;
use crate::repair::segment_look::SegmentLook;
use crate::storage::catalog;
use crate::storage::catalog::TopicId;
use crate::storage::disk::Access;
use crate::storage::disk::Disk;
use crate::storage::disk::Entry;
use crate::storage::file_name;
use crate::storage::file_name::OffsetFile;
use crate::storage::gaps;
use crate::storage::scan::Continuity;
use crate::storage::scan::Depth;
use crate::storage::scan::Scan;
use crate::storage::scan::Scanned;

/// A log as it is, and what is to become of it.
#[derive(Debug)]
pub(crate) struct LogLook {
    pub(crate) segments: Vec<SegmentLook>,
    /// A segment under the name of another; everything else is looked at once it has its own.
    pub(crate) misplaced: Option<Misplaced>,
    pub(crate) epochs: EpochsLook,
    /// What `ottla.compacted` is to say.
    pub(crate) mark: Option<i64>,
    pub(crate) mark_damage: Option<&'static str>,
    /// The log has to go on here, or offsets would be given out again.
    pub(crate) skips_to: Option<i64>,
    /// What the log is said to begin at cannot be.
    pub(crate) start_is_false: bool,
    /// Where the log ends afterwards.
    pub(crate) end: i64,
    /// What is wrong with `partition.metadata`.
    pub(crate) metadata: Option<&'static str>,
    /// Producer snapshots that are damaged, and how.
    pub(crate) snapshots: Vec<(i64, &'static str)>,
    /// Segments whose transaction index is damaged, and how.
    pub(crate) transactions: Vec<(i64, String)>,
}

/// What is to be done with a segment that has another's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Misplaced {
    /// It and the one it is named after have each other's names.
    Exchange(i64, i64),
    Rename(i64, i64),
}

impl LogLook {
    pub(crate) fn at(disk: &Disk, known: &Known) -> Result<LogLook> {
        let look = LogLook::from(disk, known, known.on_record.log_start)?;
        if look.start_is_false {
            // Nothing counts as deleted on the word of a checkpoint that cannot be true.
            return LogLook::from(disk, known, 0);
        }
        Ok(look)
    }

    fn from(disk: &Disk, known: &Known, log_start: i64) -> Result<LogLook> {
        let directory = &*known.directory;
        let on_record = &known.on_record;
        let entries = disk.entries(directory)?;
        let mut base_offsets = segment_offsets(&entries);
        let deleted = base_offsets.partition_point(|base| *base <= log_start);
        // What lies below the start is deleted; the next open removes what is left of it.
        base_offsets.drain(..deleted.saturating_sub(1));

        let (mark, mark_damage) = match gaps::read_mark(disk, directory) {
            Ok(mark) => (mark, None),
            Err(Error::Corrupt { reason, .. }) => (0, Some(reason)),
            Err(other) => return Err(other),
        };
        let gaps_below = match mark_damage {
            // Gaps may be anywhere, as far as anybody knows.
            Some(_) => i64::MAX,
            None => mark.max(on_record.cleaned),
        };
        let epochs = EpochsLook::at(disk, directory.join(file_name::LEADER_EPOCHS))?;
        let mut look = LogLook {
            segments: Vec::new(),
            misplaced: misplaced(disk, directory, &base_offsets, gaps_below)?,
            epochs,
            mark: None,
            mark_damage,
            skips_to: None,
            start_is_false: false,
            end: base_offsets.first().copied().unwrap_or(0),
            metadata: metadata(disk, directory, known.id)?,
            snapshots: Vec::new(),
            transactions: Vec::new(),
        };
        if look.misplaced.is_some() {
            return Ok(look);
        }
        let recovery_point = on_record.recovery_point.max(mark);
        let mut gap_below = None;
        for (index, base_offset) in base_offsets.iter().enumerate() {
            let next_base = base_offsets.get(index + 1).copied();
            let place = Place {
                base_offset: *base_offset,
                next_base,
                gaps_below,
                gaps_known_below: mark.max(on_record.cleaned),
                is_trusted: known.is_clean || next_base.is_some_and(|next| next <= recovery_point),
                index_interval_bytes: known.index_interval_bytes,
            };
            let segment = SegmentLook::at(disk, directory, place, &mut look.epochs)?;
            if !segment.is_nothing_but_damage() {
                if *base_offset > look.end {
                    gap_below = Some(*base_offset);
                }
                gap_below = gap_below.max(segment.gap_below);
                look.end = segment.end_offset;
            }
            look.segments.push(segment);
        }
        if look.epochs.file_is_wrong() {
            look.segments.iter_mut().for_each(|segment| segment.epochs.clear());
        }
        look.start_is_false = on_record.log_start > look.end;
        look.find_end(known, recovery_point);
        let needed = gap_below.max(look.skips_to).unwrap_or(0);
        if mark_damage.is_some() || needed > gaps_below {
            look.mark = Some(needed.max(mark));
        }
        look.settle_indexes();
        look.small_files(disk, directory, &entries)?;
        Ok(look)
    }

    /// Decides where the log goes on: behind every offset that may have been given out for good.
    fn find_end(&mut self, known: &Known, recovery_point: i64) {
        let on_record = &known.on_record;
        let last = self.segments.last();
        let mut given_out = vec![
            recovery_point,
            on_record.log_start,
            on_record.high_watermark,
            self.epochs.entries.last().map_or(0, |(_, start)| *start),
            last.map_or(0, |last| last.base_offset),
        ];
        let is_torn = |last: &&SegmentLook| {
            last.damaged.last().is_some_and(|damaged| damaged.range.start >= last.end)
        };
        if let Some(last) = last.filter(is_torn) {
            // What a crash tore nobody was told of. What was durable before is on record somewhere.
            let was_durable = known.is_clean
                || on_record.is_incomplete
                || last.end_offset < recovery_point
                || last.damaged.len() > 1;
            if was_durable {
                given_out.push(last.claimed_end);
            }
            given_out.push(on_record.committed);
        }
        let sane = given_out.into_iter().filter(|offset| *offset <= OFFSET_MAX);
        let next = sane.max().unwrap_or(0);
        if next > self.end {
            self.skips_to = Some(next);
            self.end = next;
        }
    }

    /// Decides which indexes are to be made anew. Those that the next open looks at anyway need not be: but it will
    /// believe those of what another segment follows, and of all that lies below the mark that is to be.
    fn settle_indexes(&mut self) {
        let bases = self.segments.iter().map(|segment| segment.base_offset);
        let nexts: Vec<_> = bases.skip(1).map(Some).chain([self.skips_to]).collect();
        let last = self.segments.len().saturating_sub(1);
        for (index, (segment, next)) in self.segments.iter_mut().zip(nexts).enumerate() {
            let is_believed = next.is_some_and(|next| index == last || Some(next) <= self.mark);
            if segment.indexes_can_wait && !is_believed {
                segment.indexes = None;
            }
        }
    }

    /// Tells whether nothing is left of a segment. One that is emptied and begins where the log goes on stays.
    pub(crate) fn goes(&self, segment: &SegmentLook) -> bool {
        segment.is_nothing_but_damage() && segment.base_offset != self.end
    }

    fn small_files(&mut self, disk: &Disk, directory: &Path, entries: &[Entry]) -> Result<()> {
        let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        names.sort_unstable();
        for name in names {
            match OffsetFile::parse(name) {
                Some((OffsetFile::ProducerSnapshot, offset)) => {
                    let bytes = disk.read_small(&directory.join(name), FILE_LEN_MAX)?;
                    if let Err((_, reason)) = snapshot_entries(&bytes) {
                        self.snapshots.push((offset, reason));
                    }
                }
                Some((OffsetFile::TransactionIndex, base_offset)) => {
                    let bytes = disk.read_small(&directory.join(name), FILE_LEN_MAX)?;
                    let finding = transaction_findings(&bytes, base_offset).into_iter().next();
                    self.transactions.extend(finding.map(|(_, what)| (base_offset, what)));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Offsets beyond this are nothing but damage: no log ever comes so far.
pub(crate) const OFFSET_MAX: i64 = i64::MAX / 2;

fn metadata(disk: &Disk, directory: &Path, id: Option<TopicId>) -> Result<Option<&'static str>> {
    let path = directory.join(file_name::PARTITION_METADATA);
    if id.is_none() {
        return Ok(None);
    }
    match catalog::read_partition_metadata(disk, &path) {
        // That it names another topic nobody can decide but the one who put it there.
        Ok(Some(_)) => Ok(None),
        Ok(None) => Ok(Some("it is missing")),
        Err(Error::Corrupt { reason, .. }) => Ok(Some(reason)),
        Err(other) => Err(other),
    }
}

/// What a file's batches say where it belongs.
struct Content {
    first: i64,
    end: i64,
}

/// Finds a segment whose batches say that it is another.
fn misplaced(
    disk: &Disk,
    directory: &Path,
    base_offsets: &[i64],
    gaps_below: i64,
) -> Result<Option<Misplaced>> {
    let mut contents = Vec::new();
    for base_offset in base_offsets {
        contents.push(content(disk, directory, *base_offset)?);
    }
    if contents
        .iter()
        .zip(base_offsets)
        .all(|(c, base)| c.as_ref().is_none_or(|c| c.first == *base))
    {
        return Ok(None);
    }
    for (content, base_offset) in contents.iter_mut().zip(base_offsets) {
        if let Some(content) = content {
            content.end = end_of_headers(disk, directory, *base_offset)?;
        }
    }
    let is_wrong = |index: usize| {
        let base = base_offsets[index];
        contents[index].as_ref().is_some_and(|content| {
            let may_begin_late = content.first > base
                && content.first <= gaps_below
                && base_offsets.get(index + 1).is_none_or(|next| content.end <= *next);
            content.first != base && !may_begin_late
        })
    };
    for index in (0..base_offsets.len()).filter(|index| is_wrong(*index)) {
        let Some(content) = &contents[index] else {
            continue;
        };
        let (base, first, end) = (base_offsets[index], content.first, content.end);
        match base_offsets.binary_search(&first) {
            Ok(other) if is_wrong(other) => return Ok(Some(Misplaced::Exchange(base, first))),
            Ok(_) => {}
            Err(_) => {
                let others = contents.iter().enumerate().filter(|(other, _)| *other != index);
                let mut others = others.filter_map(|(_, content)| content.as_ref());
                let is_free = others.all(|other| other.end <= first || other.first >= end);
                if is_free {
                    return Ok(Some(Misplaced::Rename(base, first)));
                }
            }
        }
    }
    Ok(None)
}

/// Looks at where the batches of a file begin and end. One batch alone proves nothing: its base offset may be what is
/// damaged. So two are needed that follow one another.
fn content(disk: &Disk, directory: &Path, base_offset: i64) -> Result<Option<Content>> {
    let path = OffsetFile::Log.path(directory, base_offset);
    let file = disk.open(&path, Access::Read)?;
    let anywhere = Continuity { expected: 0, gaps_below: i64::MAX };
    let mut scan = Scan::new(&file, 0, anywhere, Depth::Checksums)?;
    let Scanned::Batch { header: first, .. } = scan.next()? else {
        return Ok(None);
    };
    let Scanned::Batch { header: second, .. } = scan.next()? else {
        return Ok(None);
    };
    if second.base_offset != first.last_offset() + 1 {
        return Ok(None);
    }
    Ok(Some(Content { first: first.base_offset, end: second.last_offset() + 1 }))
}

/// Gives the offset behind the batches of a file whose headers follow one another.
fn end_of_headers(disk: &Disk, directory: &Path, base_offset: i64) -> Result<i64> {
    let file = disk.open(&OffsetFile::Log.path(directory, base_offset), Access::Read)?;
    let anywhere = Continuity { expected: 0, gaps_below: i64::MAX };
    let mut scan = Scan::new(&file, 0, anywhere, Depth::Headers)?;
    while let Scanned::Batch { .. } = scan.next()? {}
    Ok(scan.expected())
}
