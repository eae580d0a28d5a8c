//! One segment, batch by batch: what is whole, what can be made whole, what has to go.
//!
//! A batch whose checksum holds once its base offset, its length and its version are what they must be is *restored*:
//! none of the three is covered by the checksum. Whatever else is no batch is *damaged*.

use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;

use crate::error::Result;
use crate::format::compression::Unpacked;
use crate::format::compression::Unpacker;
use crate::format::decode::BatchFault;
use crate::format::header;
use crate::format::header::BatchHeader;
use crate::inspect::check::index_walk::OffsetWalk;
use crate::inspect::check::index_walk::TimeWalk;
use crate::repair::epochs_look::EpochsLook;
use crate::storage::disk::Access;
use crate::storage::disk::Disk;
use crate::storage::disk::DiskFile;
use crate::storage::file_name::OffsetFile;
use crate::storage::indexes::INDEX_LEN_MAX;
use crate::storage::indexes::Indexes;
use crate::storage::scan::Continuity;
use crate::storage::scan::Depth;
use crate::storage::scan::Scan;
use crate::storage::scan::Scanned;

/// A segment's place in its log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) base_offset: i64,
    /// Where the next segment begins.
    pub(crate) next_base: Option<i64>,
    /// Below this offset records may be missing.
    pub(crate) gaps_below: i64,
    /// Below this one something says so; where the mark is damaged they may be anywhere, and nothing does.
    pub(crate) gaps_known_below: i64,
    /// Whoever opens the directory next believes the indexes.
    pub(crate) is_trusted: bool,
    pub(crate) index_interval_bytes: u32,
}

/// A segment as it is, and what is to become of it.
#[derive(Debug)]
pub(crate) struct SegmentLook {
    pub(crate) path: PathBuf,
    pub(crate) base_offset: i64,
    /// Stretches that are no batches; none touches the next.
    pub(crate) damaged: Vec<Damaged>,
    /// Batches to be restored: where, and with which header.
    pub(crate) restored: Vec<(u64, BatchHeader)>,
    /// Batches whose leader epoch is to be another.
    pub(crate) epochs: Vec<(u64, i32)>,
    /// Where the last batch ends.
    pub(crate) end: u64,
    /// How many zeros lie there, which a writer reserved.
    pub(crate) reserved_len: u64,
    pub(crate) batch_count: u64,
    /// The offset behind the last batch.
    pub(crate) end_offset: i64,
    /// The first offset behind the last gap that nothing accounts for so far.
    pub(crate) gap_below: Option<i64>,
    /// The offset behind those that damage at the end speaks of, or may.
    pub(crate) claimed_end: i64,
    /// What the indexes are to be, if they are not.
    pub(crate) indexes: Option<Indexes>,
    pub(crate) index_reason: String,
    /// The next open looks at the indexes anyway.
    pub(crate) indexes_can_wait: bool,
}

/// A stretch that is no batch.
#[derive(Clone, Debug)]
pub(crate) struct Damaged {
    pub(crate) range: Range<u64>,
    pub(crate) offsets: Range<i64>,
    pub(crate) reason: &'static str,
}

impl SegmentLook {
    pub(crate) fn at(
        disk: &Disk,
        directory: &Path,
        place: Place,
        epochs: &mut EpochsLook,
    ) -> Result<SegmentLook> {
        let path = OffsetFile::Log.path(directory, place.base_offset);
        let file = disk.open(&path, Access::Read)?;
        let index = |kind: OffsetFile| disk.read_small(&kind.beside(&path), INDEX_LEN_MAX);
        let (offsets, times) = (index(OffsetFile::OffsetIndex), index(OffsetFile::TimeIndex));
        let is_readable =
            |index: &Result<Vec<u8>>| index.as_ref().err().is_none_or(|error| error.is_not_found());
        let indexes_are_readable = is_readable(&offsets) && is_readable(&times);
        let time_index_is_missing = times.is_err();
        let mut walker = Walker {
            look: SegmentLook {
                path: path.clone(),
                base_offset: place.base_offset,
                damaged: Vec::new(),
                restored: Vec::new(),
                epochs: Vec::new(),
                end: 0,
                reserved_len: 0,
                batch_count: 0,
                end_offset: place.base_offset,
                gap_below: None,
                claimed_end: place.base_offset,
                indexes: None,
                index_reason: String::new(),
                indexes_can_wait: false,
            },
            place,
            indexes: Indexes::new(place.base_offset, place.index_interval_bytes),
            offsets: OffsetWalk::new(offsets.as_deref().ok(), place.base_offset),
            times: TimeWalk::new(times.as_deref().ok(), place.base_offset),
            gone_len: 0,
        };
        walker.walk(&file, epochs)?;
        let Walker { mut look, indexes, mut offsets, mut times, .. } = walker;
        offsets.finish(look.end_offset);
        times.finish();
        let finding = offsets.walk.findings.into_iter().chain(times.walk.findings).next();
        let reason = if look.moves_batches() {
            Some("batches lie elsewhere now".to_owned())
        } else if !indexes_are_readable {
            Some("it cannot be read".to_owned())
        } else if time_index_is_missing {
            Some("it is missing".to_owned())
        } else {
            finding.map(|(position, what)| format!("byte {position}: {what}"))
        };
        look.indexes_can_wait = !look.moves_batches() && indexes_are_readable && !place.is_trusted;
        if let Some(reason) = reason {
            look.indexes = Some(indexes);
            look.index_reason = reason;
        }
        Ok(look)
    }

    /// Tells whether what is damaged cannot just be cut off the end.
    pub(crate) fn needs_rewriting(&self) -> bool {
        self.damaged.first().is_some_and(|first| first.range.start < self.end)
    }

    fn moves_batches(&self) -> bool {
        !self.damaged.is_empty() && self.batch_count > 0
    }

    /// Tells whether there is no batch, and something else.
    pub(crate) fn is_nothing_but_damage(&self) -> bool {
        self.batch_count == 0 && !self.damaged.is_empty()
    }
}

struct Walker {
    look: SegmentLook,
    place: Place,
    /// As they have to be once what is damaged is gone.
    indexes: Indexes,
    offsets: OffsetWalk,
    times: TimeWalk,
    /// How many bytes go in front of here.
    gone_len: u64,
}

impl Walker {
    fn walk(&mut self, file: &DiskFile, epochs: &mut EpochsLook) -> Result<()> {
        let Place { base_offset, gaps_below, .. } = self.place;
        let continuity = Continuity { expected: base_offset, gaps_below };
        let mut scan = Scan::new(file, 0, continuity, Depth::Checksums)?;
        let (mut unpacker, mut unpacked) = (Unpacker::default(), Unpacked::default());
        loop {
            let expected = scan.expected();
            let (position, reason) = match scan.next()? {
                Scanned::End => return Ok(()),
                Scanned::Fault { position, fault } => (position, fault.text()),
                Scanned::Batch { position, header, .. } if self.overlaps(&header) => {
                    (position, "offsets of the next segment")
                }
                Scanned::Batch { position, header, bytes } => {
                    unpacked.clear();
                    match unpacker.verify(bytes, &mut unpacked) {
                        Ok(_) | Err(BatchFault::Compressed(_)) => {
                            self.keep(position, &header, epochs);
                        }
                        Err(fault) => {
                            let range = position..position + header.len() as u64;
                            self.lose(range, expected..header.last_offset() + 1, fault.text());
                        }
                    }
                    continue;
                }
            };
            if scan.is_zero_from(position)? {
                self.look.reserved_len = scan.len() - position;
                return Ok(());
            }
            let behind = self.find_behind(&mut scan, position, expected)?;
            let end = behind.map_or(scan.len(), |(position, _)| position);
            if let Some(header) = self.restorable(file, position..end, expected, behind)? {
                self.look.restored.push((position, header));
                self.keep(position, &header, epochs);
                scan.resume_at(position + header.len() as u64, header.last_offset() + 1);
                continue;
            }
            match behind {
                Some((found, header)) => {
                    self.lose(position..found, expected..header.base_offset, reason);
                    self.offsets.skip_below(found);
                    self.times.skip_below(header.base_offset);
                    scan.resume_at(found, header.base_offset);
                }
                None => {
                    let end = end_of_content(file, position, end)?;
                    let claimed = claimed_end(file, position..end, expected)?;
                    // There was one record at least.
                    let end_offset = self.place.next_base.unwrap_or(claimed.max(expected + 1));
                    self.lose(position..end, expected..end_offset, reason);
                    return Ok(());
                }
            }
        }
    }

    fn overlaps(&self, header: &BatchHeader) -> bool {
        self.place.next_base.is_some_and(|next| header.last_offset() >= next)
    }

    fn keep(&mut self, position: u64, header: &BatchHeader, epochs: &mut EpochsLook) {
        let look = &mut self.look;
        if header.base_offset > look.end_offset && header.base_offset > self.place.gaps_known_below
        {
            look.gap_below = Some(header.base_offset);
        }
        if let Some(epoch) = epochs.judge(header.leader_epoch, header.base_offset) {
            look.epochs.push((position, epoch));
        }
        let (last_offset, time) = (header.last_offset(), header.max_timestamp_ms);
        self.indexes.note(position - self.gone_len, last_offset, time);
        self.offsets.note(position, last_offset);
        self.times.note(last_offset, time);
        look.batch_count += 1;
        look.end = position + header.len() as u64;
        look.end_offset = last_offset + 1;
        look.claimed_end = look.end_offset;
    }

    fn lose(&mut self, range: Range<u64>, offsets: Range<i64>, reason: &'static str) {
        self.gone_len += range.end - range.start;
        self.look.claimed_end = self.look.claimed_end.max(offsets.end);
        match self.look.damaged.last_mut() {
            Some(last) if last.range.end == range.start => {
                last.range.end = range.end;
                last.offsets.end = offsets.end;
            }
            _ => self.look.damaged.push(Damaged { range, offsets, reason }),
        }
    }

    /// Finds the first whole batch behind damage that does not reach into the next segment.
    fn find_behind(
        &self,
        scan: &mut Scan<'_>,
        mut from: u64,
        expected: i64,
    ) -> Result<Option<(u64, BatchHeader)>> {
        loop {
            match scan.resync(from, expected)? {
                Some((position, header)) if self.overlaps(&header) => from = position,
                other => return Ok(other),
            }
        }
    }

    /// Gives the header that makes a whole batch of what begins at the front of a damaged stretch, if there is one.
    fn restorable(
        &self,
        file: &DiskFile,
        stretch: Range<u64>,
        expected: i64,
        behind: Option<(u64, BatchHeader)>,
    ) -> Result<Option<BatchHeader>> {
        let stretch_len = stretch.end - stretch.start;
        if stretch_len < header::LEN as u64 {
            return Ok(None);
        }
        let mut front = [0; header::LEN];
        file.read_exact_at(&mut front, stretch.start)?;
        let found = BatchHeader::read(&front);
        let stated_len = u64::try_from(i64::from(found.length) + LENGTH_EXCLUDES).unwrap_or(0);
        for len in [stated_len, stretch_len] {
            let is_possible = (header::LEN as u64..=stretch_len).contains(&len);
            let Some(length) =
                i32::try_from(len as i64 - LENGTH_EXCLUDES).ok().filter(|_| is_possible)
            else {
                continue;
            };
            let header =
                BatchHeader { base_offset: expected, length, magic: header::MAGIC, ..found };
            if header.check(len).is_err() || self.overlaps(&header) {
                continue;
            }
            // Where offsets may be missing, only what lies behind can say which ones these are.
            let is_certain = expected >= self.place.gaps_below
                || behind.is_some_and(|(position, next)| {
                    position == stretch.start + len && next.base_offset == header.last_offset() + 1
                });
            if !is_certain {
                continue;
            }
            let mut bytes = Vec::new();
            if bytes.try_reserve_exact(header.len()).is_err() {
                continue;
            }
            bytes.resize(header.len(), 0);
            file.read_exact_at(&mut bytes, stretch.start)?;
            header.write(bytes.first_chunk_mut().expect("a batch is longer than its header"));
            let is_whole = matches!(
                Unpacker::default().verify(&bytes, &mut Unpacked::default()),
                Ok(_) | Err(BatchFault::Compressed(_))
            );
            if is_whole {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }
}

/// What a batch's length field does not count.
const LENGTH_EXCLUDES: i64 = 12;

/// Gives where a file's last byte lies that is not zero, in a range; a writer reserves space as zeros.
fn end_of_content(file: &DiskFile, from: u64, mut to: u64) -> Result<u64> {
    let mut buffer = vec![0; BUFFER_LEN];
    while to > from {
        let start = to.saturating_sub(BUFFER_LEN as u64).max(from);
        let count = file.read_up_to(&mut buffer[..(to - start) as usize], start)?;
        if let Some(last) = buffer[..count].iter().rposition(|byte| *byte != 0) {
            return Ok(start + last as u64 + 1);
        }
        to = start;
    }
    Ok(from)
}

const BUFFER_LEN: usize = 1 << 20;

/// Gives the offset behind those that damaged batches speak of, as far as their headers follow one another.
fn claimed_end(file: &DiskFile, range: Range<u64>, expected: i64) -> Result<i64> {
    let (mut position, mut claimed) = (range.start, expected);
    let mut front = [0; header::LEN];
    while position + header::LEN as u64 <= range.end {
        file.read_exact_at(&mut front, position)?;
        let header = BatchHeader::read(&front);
        let is_plausible = header.check(u64::MAX).is_ok() && header.is_dense();
        if !is_plausible || header.base_offset != claimed {
            break;
        }
        claimed = header.last_offset() + 1;
        position += header.len() as u64;
    }
    Ok(claimed)
}
