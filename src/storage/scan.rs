//! Walks a segment file from the disk, believing nothing.
//!
//! Recovery and inspection read with [`Scan`]: through `pread`, so that a failing disk is an error, and
//! with memory for one batch at a time. Every length is checked against the bytes that are there before
//! it is used.

use crate::error::Result;
use crate::format::decode;
use crate::format::decode::BatchFault;
use crate::format::header;
use crate::format::header::BatchHeader;
use crate::format::header::HeaderFault;
use crate::storage::disk::DiskFile;
use crate::storage::planted::Planted;

/// How thoroughly batches are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Headers and the continuity of offsets.
    Headers,
    /// Also the checksum of every batch.
    Checksums,
}

/// A walk over the batches of one file.
#[derive(Debug)]
pub(crate) struct Scan<'f> {
    file: &'f DiskFile,
    /// The file's length when the walk began, or where it is to stop.
    len: u64,
    depth: Depth,
    position: u64,
    continuity: Continuity,
    buffer: Vec<u8>,
    buffer_start: u64,
}

/// What the walk met next.
#[derive(Debug)]
pub(crate) enum Scanned<'s> {
    /// A batch that passed the checks; its bytes are there only at depth `Checksums`.
    Batch { position: u64, header: BatchHeader, bytes: &'s [u8] },
    /// Something that is no batch; the walk stays where it is.
    Fault { position: u64, fault: BatchFault },
    /// The end of the file, on a batch's boundary.
    End,
}

/// Which base offset the next batch may have.
///
/// Neither checksum nor length protects a batch's base offset, so its value is checked: offsets follow
/// one another without a gap, except where compaction removed records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Continuity {
    /// The least offset the next batch may have; without gaps the only one.
    pub(crate) expected: i64,
    /// Compaction worked below this offset, and may have left gaps there.
    pub(crate) gaps_below: i64,
}

impl Continuity {
    #[inline]
    pub(crate) fn check(&self, header: &BatchHeader) -> Result<(), BatchFault> {
        let continues = header.base_offset == self.expected
            || (header.base_offset > self.expected && header.base_offset <= self.gaps_below);
        if continues { Ok(()) } else { Err(BatchFault::Header(HeaderFault::Offsets)) }
    }

    #[inline]
    pub(crate) fn advance(&mut self, header: &BatchHeader) {
        self.expected = header.last_offset() + 1;
    }
}

impl<'f> Scan<'f> {
    pub(crate) fn new(
        file: &'f DiskFile,
        position: u64,
        continuity: Continuity,
        depth: Depth,
    ) -> Result<Scan<'f>> {
        let len = file.len()?;
        Ok(Scan { file, len, depth, position, continuity, buffer: Vec::new(), buffer_start: 0 })
    }

    /// Looks at what lies at the current position and, if it is a batch, steps over it.
    pub(crate) fn next(&mut self) -> Result<Scanned<'_>> {
        let position = self.position;
        let available = self.len.saturating_sub(position);
        if available == 0 {
            return Ok(Scanned::End);
        }
        let fault = |fault| Ok(Scanned::Fault { position, fault });
        if available < header::LEN as u64 {
            return fault(BatchFault::Header(HeaderFault::CutOff));
        }
        let Some(front) = self.fill(position, header::LEN)?.first_chunk() else {
            return fault(BatchFault::Header(HeaderFault::CutOff));
        };
        let header = BatchHeader::read(front);
        if let Err(why) = header.check(available) {
            return fault(BatchFault::Header(why));
        }
        if let Err(why) = self.continuity.check(&header) {
            if !self.file.disk().has(Planted::OffsetsIgnored) {
                return fault(why);
            }
        }
        if self.depth == Depth::Checksums {
            let bytes = self.fill(position, header.len())?;
            if bytes.len() < header.len() {
                return fault(BatchFault::Header(HeaderFault::CutOff));
            }
            if !decode::checksum_holds(&header, bytes) {
                return fault(BatchFault::Checksum);
            }
        }
        self.position += header.len() as u64;
        self.continuity.advance(&header);
        let bytes = match self.depth {
            Depth::Headers => &[],
            Depth::Checksums => {
                let start = (position - self.buffer_start) as usize;
                &self.buffer[start..start + header.len()]
            }
        };
        Ok(Scanned::Batch { position, header, bytes })
    }

    /// Gives the offset that the next batch is expected to have.
    pub(crate) fn expected(&self) -> i64 {
        self.continuity.expected
    }

    /// Gives the position of the next batch.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Goes on at another position, where the next batch may have any offset from `expected` up.
    pub(crate) fn resume_at(&mut self, position: u64, expected: i64) {
        self.position = position;
        self.continuity.expected = expected;
    }

    /// Finds the first place behind `from` where a whole batch lies whose checksum holds and whose base
    /// offset is at least `offset_min`; gives its position and header.
    pub(crate) fn resync(
        &mut self,
        from: u64,
        offset_min: i64,
    ) -> Result<Option<(u64, BatchHeader)>> {
        // A fault in a batch's body leaves its length and offsets intact: the next batch then starts right
        // behind it. Asked first, so that a batch stored as a value inside another is not taken for one.
        let front = self.fill(from, header::LEN)?;
        if let Some(damaged) = front.first_chunk().map(BatchHeader::read) {
            if damaged.check(self.len - from).is_ok() {
                let behind = from + damaged.len() as u64;
                let found = self.whole_batch_at(behind, offset_min)?;
                if let Some(header) = found.filter(|h| h.base_offset == damaged.last_offset() + 1) {
                    return Ok(Some((behind, header)));
                }
            }
        }
        let mut position = from + 1;
        while position + header::LEN as u64 <= self.len {
            let window = self.fill(position, RESYNC_WINDOW)?;
            let candidate = window.windows(header::LEN).position(|front| {
                front[header::field::MAGIC.start] == header::MAGIC as u8
                    && front[header::field::BASE_OFFSET.start] & 0x80 == 0
                    && front[header::field::LENGTH.start] & 0x80 == 0
            });
            let Some(step) = candidate else {
                position += (window.len() - header::LEN + 1) as u64;
                continue;
            };
            position += step as u64;
            if let Some(header) = self.whole_batch_at(position, offset_min)? {
                return Ok(Some((position, header)));
            }
            position += 1;
        }
        Ok(None)
    }

    /// Tells whether everything from a position to the end is zeros: reserved space, never written.
    pub(crate) fn is_zero_from(&mut self, mut position: u64) -> Result<bool> {
        while position < self.len {
            let bytes = self.fill(position, RESYNC_WINDOW)?;
            if bytes.is_empty() {
                return Ok(true);
            }
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            position += bytes.len() as u64;
        }
        Ok(true)
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    fn whole_batch_at(&mut self, position: u64, offset_min: i64) -> Result<Option<BatchHeader>> {
        let available = self.len.saturating_sub(position);
        let front = self.fill(position, header::LEN)?;
        let Some(header) = front.first_chunk().map(BatchHeader::read) else {
            return Ok(None);
        };
        if header.check(available).is_err() || header.base_offset < offset_min {
            return Ok(None);
        }
        // Positions and relative offsets are 32-bit, so a segment spans no more than that.
        if header.base_offset - offset_min > i64::from(i32::MAX) {
            return Ok(None);
        }
        let bytes = self.fill(position, header.len())?;
        let holds = bytes.len() == header.len() && decode::checksum_holds(&header, bytes);
        Ok(holds.then_some(header))
    }

    /// Gives up to `len` bytes from a position; fewer only at the end of the file.
    fn fill(&mut self, position: u64, len: usize) -> Result<&[u8]> {
        let available = self.len.saturating_sub(position);
        let len = len.min(usize::try_from(available).unwrap_or(usize::MAX));
        let held = self.buffer_start..self.buffer_start + self.buffer.len() as u64;
        if position < held.start || position + len as u64 > held.end {
            let ahead = usize::try_from(available).unwrap_or(usize::MAX).min(READ_AHEAD).max(len);
            self.buffer.resize(ahead, 0);
            let filled = self.file.read_up_to(&mut self.buffer, position)?;
            self.buffer.truncate(filled);
            self.buffer_start = position;
        }
        let start = (position - self.buffer_start) as usize;
        let end = (start + len).min(self.buffer.len());
        Ok(&self.buffer[start..end])
    }
}

const READ_AHEAD: usize = 256 << 10;
const RESYNC_WINDOW: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TimestampType;
    use crate::format::encode::BatchBuilder;
    use crate::record::Record;
    use crate::storage::disk::Access;
    use crate::storage::disk::Disk;

    fn batch(base_offset: i64, value: &[u8]) -> Vec<u8> {
        let mut builder = BatchBuilder::default();
        builder.push(&Record::new(value), 1).unwrap();
        let mut batch = builder.seal(TimestampType::CreateTime);
        batch.stamp(base_offset, 0);
        batch.bytes().to_vec()
    }

    fn file(bytes: &[u8]) -> (tempfile::TempDir, DiskFile) {
        let directory = tempfile::tempdir().unwrap();
        let file = Disk::default().open(&directory.path().join("f"), Access::CreateNew).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        (directory, file)
    }

    const FROM_ZERO: Continuity = Continuity { expected: 0, gaps_below: 0 };

    #[test]
    fn a_walk_meets_every_batch_and_the_end() {
        let bytes: Vec<u8> = (0..5000).flat_map(|n| batch(n, &[7; 300])).collect();
        let (_directory, file) = file(&bytes);
        for depth in [Depth::Headers, Depth::Checksums] {
            let mut scan = Scan::new(&file, 0, FROM_ZERO, depth).unwrap();
            let mut count = 0;
            while let Scanned::Batch { header, .. } = scan.next().unwrap() {
                assert_eq!(header.base_offset, count);
                count += 1;
            }
            assert_eq!(count, 5000);
            assert!(matches!(scan.next().unwrap(), Scanned::End));
        }
    }

    #[test]
    fn a_gap_is_a_fault_unless_compaction_worked_there() {
        let (_directory, file) = file(&[batch(0, b"a"), batch(5, b"b")].concat());
        let second = |gaps_below| {
            let continuity = Continuity { expected: 0, gaps_below };
            let mut scan = Scan::new(&file, 0, continuity, Depth::Checksums).unwrap();
            scan.next().unwrap();
            matches!(scan.next().unwrap(), Scanned::Batch { .. })
        };
        assert!(!second(0));
        assert!(!second(4));
        assert!(second(5));
    }

    #[test]
    fn the_next_whole_batch_is_found_behind_damage_of_either_kind() {
        let good = [batch(0, b"aaaa"), batch(1, &[3; 500]), batch(2, b"cccc")];
        let start = good[0].len();
        let third = (start + good[1].len()) as u64;
        for damaged in [start + 3, start + 9, start + 16, start + 20, start + 100] {
            let mut bytes = good.concat();
            bytes[damaged] ^= 0x41;
            let (_directory, file) = file(&bytes);
            let mut scan = Scan::new(&file, 0, FROM_ZERO, Depth::Checksums).unwrap();
            scan.next().unwrap();
            assert!(matches!(scan.next().unwrap(), Scanned::Fault { .. }), "byte {damaged}");
            let found = scan.resync(start as u64, 1).unwrap();
            assert_eq!(found.map(|(position, h)| (position, h.base_offset)), Some((third, 2)));
        }
    }

    #[test]
    fn a_batch_inside_a_value_is_not_taken_for_one() {
        let inner = batch(1, b"inner");
        let mut bytes = [batch(0, &inner), batch(1, b"real")].concat();
        let outer = batch(0, &inner).len() as u64;
        bytes[outer as usize - 1] ^= 1;
        let (_directory, file) = file(&bytes);
        let mut scan = Scan::new(&file, 0, FROM_ZERO, Depth::Checksums).unwrap();
        assert!(matches!(scan.next().unwrap(), Scanned::Fault { position: 0, .. }));
        assert_eq!(scan.resync(0, 0).unwrap().map(|(position, _)| position), Some(outer));
    }
}
