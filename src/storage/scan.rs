//! Walks a segment file from the disk, believing nothing.
//!
//! Recovery and inspection read with [`Scan`]: through `pread`, so that a failing disk is an error, and
//! with memory for one batch at a time. Every length is checked against the bytes that are there before
//! it is used.

use std::io;

use crate::error::Error;
use crate::error::Result;
use crate::format::decode;
use crate::format::decode::BatchFault;
use crate::format::decode::Checksum;
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
    /// The same, and the bytes are handed out as they are.
    Lengths,
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
    /// How many bytes were summed in search of a whole batch behind damage.
    searched_len: u64,
}

/// What the walk met next.
#[derive(Debug)]
pub(crate) enum Scanned<'s> {
    /// A batch that passed the checks; at depth `Headers` without its bytes.
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
        if len > SEGMENT_LEN_MAX {
            // Positions are 32-bit. Most likely nothing but holes, and nobody lives to see the end of them.
            let (path, reason) = (file.path().to_path_buf(), "the file is larger than it can be");
            return Err(Error::Corrupt { path, position: SEGMENT_LEN_MAX, reason, resume: None });
        }
        Ok(Scan {
            file,
            len,
            depth,
            position,
            continuity,
            buffer: Vec::new(),
            buffer_start: 0,
            searched_len: 0,
        })
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
        let depth = self.depth;
        if depth != Depth::Headers {
            // What only claims to be large costs no memory.
            if header.len() > READ_AHEAD && !self.sum_holds(position, &header)? {
                return fault(BatchFault::Checksum);
            }
            let bytes = self.fill(position, header.len())?;
            if bytes.len() < header.len() {
                return fault(BatchFault::Header(HeaderFault::CutOff));
            }
            if depth == Depth::Checksums && !decode::checksum_holds(&header, bytes) {
                return fault(BatchFault::Checksum);
            }
        }
        self.position += header.len() as u64;
        self.continuity.advance(&header);
        let bytes = match self.depth {
            Depth::Headers => &[],
            Depth::Lengths | Depth::Checksums => {
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
            let Some(step) = candidate(window) else {
                position += (window.len().saturating_sub(header::LEN) + 1) as u64;
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
            if !is_zero(bytes) {
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
        // A file can be made so that a batch seems to begin everywhere, each of which reaches to the end. Whoever made
        // that is not worth more than a few passes over the file.
        self.searched_len += header.len() as u64;
        if self.searched_len > self.len.saturating_mul(SEARCH_PASSES) + SEARCH_LEN_MIN {
            return Ok(None);
        }
        Ok(self.sum_holds(position, &header)?.then_some(header))
    }

    /// Tells whether the checksum of a batch holds, with memory for a part of it at a time.
    fn sum_holds(&mut self, position: u64, header: &BatchHeader) -> Result<bool> {
        let end = position + header.len() as u64;
        let mut sum = Checksum::default();
        let mut from = position;
        while from < end {
            let wanted = (end - from).min(READ_AHEAD as u64) as usize;
            let piece = self.fill(from, wanted)?;
            let skipped = if from == position { header::field::CHECKSUM.end } else { 0 };
            if piece.len() < wanted {
                return Ok(false);
            }
            sum.add(&piece[skipped..]);
            from += wanted as u64;
        }
        Ok(sum.value() == header.checksum)
    }

    /// Gives up to `len` bytes from a position; fewer only at the end of the file.
    fn fill(&mut self, position: u64, len: usize) -> Result<&[u8]> {
        let available = self.len.saturating_sub(position);
        let len = len.min(usize::try_from(available).unwrap_or(usize::MAX));
        let held = self.buffer_start..self.buffer_start + self.buffer.len() as u64;
        if position < held.start || position + len as u64 > held.end {
            let ahead = usize::try_from(available).unwrap_or(usize::MAX).min(READ_AHEAD).max(len);
            let more = ahead.saturating_sub(self.buffer.len());
            self.buffer.try_reserve_exact(more).map_err(|_| {
                Error::io("read", self.file.path(), io::ErrorKind::OutOfMemory.into())
            })?;
            // The beginning of it may be there: what was read ahead ends within a batch.
            let mut kept = 0;
            if held.contains(&position) {
                let from = (position - held.start) as usize;
                kept = self.buffer.len() - from;
                self.buffer.copy_within(from.., 0);
            }
            self.buffer.resize(ahead, 0);
            let filled = self.file.read_up_to(&mut self.buffer[kept..], position + kept as u64);
            self.buffer.truncate(kept + filled.as_ref().copied().unwrap_or_default());
            self.buffer_start = position;
            filled?;
        }
        let start = (position - self.buffer_start) as usize;
        let end = (start + len).min(self.buffer.len());
        Ok(&self.buffer[start..end])
    }
}

/// Finds the first place where a batch's header may begin, and is there as a whole.
fn candidate(window: &[u8]) -> Option<usize> {
    let (magic, base_offset, len) =
        (header::field::MAGIC.start, header::field::BASE_OFFSET.start, header::field::LENGTH.start);
    let starts = window.len().checked_sub(header::LEN)? + 1;
    let magics = &window[magic..magic + starts];
    let mut place = 0;
    // Most of what is looked through are values, or zeros: whole stretches have no such byte.
    for stretch in magics.chunks(STRETCH) {
        if stretch.iter().fold(false, |seen, byte| seen | (*byte == header::MAGIC as u8)) {
            let found = (place..place + stretch.len()).find(|start| {
                magics[*start] == header::MAGIC as u8
                    && window[start + base_offset] & 0x80 == 0
                    && window[start + len] & 0x80 == 0
            });
            if found.is_some() {
                return found;
            }
        }
        place += stretch.len();
    }
    None
}

/// Tells whether there are only zeros, a stretch at a time: a loop that ends at the first byte takes one at a time.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(STRETCH).all(|stretch| stretch.iter().fold(0, |all, byte| all | byte) == 0)
}

const STRETCH: usize = 256;
const READ_AHEAD: usize = 256 << 10;
/// Longer than any segment: appenders, here and in Kafka, end one before its positions need 32 bits.
const SEGMENT_LEN_MAX: u64 = 4 << 30;
/// How often a file is summed, all in all, in search of whole batches.
const SEARCH_PASSES: u64 = 8;
const SEARCH_LEN_MIN: u64 = 64 << 20;
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
        // Of changing lengths, so that what is read ahead ends anywhere in a batch.
        let whole: Vec<u8> =
            (0..5000).flat_map(|n| batch(n, &vec![n as u8; 300 + n as usize % 7])).collect();
        let (_directory, file) = file(&whole);
        for depth in [Depth::Headers, Depth::Lengths, Depth::Checksums] {
            let mut scan = Scan::new(&file, 0, FROM_ZERO, depth).unwrap();
            let mut count = 0;
            while let Scanned::Batch { position, header, bytes } = scan.next().unwrap() {
                assert_eq!(header.base_offset, count);
                let lying = &whole[position as usize..][..header.len()];
                assert!(depth == Depth::Headers || bytes == lying, "batch {count}");
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
    fn a_place_where_a_header_may_begin_is_found_wherever_it_is() {
        let header = &batch(7, b"v")[..header::LEN];
        for at in [0, 1, 200, STRETCH - 17, STRETCH - 16, STRETCH, 3 * STRETCH + 5] {
            for behind in [0, 1, 1000] {
                let mut window = vec![0; at + header.len() + behind];
                window[at..at + header.len()].copy_from_slice(header);
                assert_eq!(candidate(&window), Some(at), "{behind}");
                assert!(!is_zero(&window));
                let cut_off = &window[..at + header.len() - 1];
                assert_eq!(candidate(cut_off), None, "{at}");
                // An offset or a length below zero is none.
                for field in [header::field::BASE_OFFSET.start, header::field::LENGTH.start] {
                    let mut window = window.clone();
                    window[at + field] |= 0x80;
                    assert_eq!(candidate(&window), None, "{at}");
                }
            }
        }
        assert!(candidate(&[]).is_none() && is_zero(&[]) && is_zero(&[0; 1000]));
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
