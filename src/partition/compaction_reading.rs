//! What a compaction reads segments with: batch after batch from the disk, unpacked where they are compressed.
//!
//! Memory for one batch at a time, packed and unpacked; how far it may be unpacked is bounded like everywhere.

use crate::error::Error;
use crate::error::Result;
use crate::format::compression::Unpacked;
use crate::format::compression::Unpacker;
use crate::format::decode;
use crate::format::decode::Batch;
use crate::format::decode::BatchFault;
use crate::format::header::BatchHeader;
use crate::partition::Partition;
use crate::partition::compaction_progress::Pace;
use crate::storage::disk::Access;
use crate::storage::disk::DiskFile;
use crate::storage::scan::Continuity;
use crate::storage::scan::Depth;
use crate::storage::scan::Scan;
use crate::storage::scan::Scanned;

/// Reads the segments of one log.
pub(super) struct Reading<'p> {
    pub(super) partition: &'p Partition,
    pub(super) pace: Pace<'p>,
    unpacker: Unpacker,
    unpacked: Unpacked,
}

/// What lies next in a segment that is looked at for the first time.
pub(super) enum Next<'s> {
    /// Its records can be looked at.
    Batch(Batch<'s>),
    /// This build does not have its codec. What its header says is known.
    Locked {
        position: u64,
        batch: Batch<'s>,
        codec: &'static str,
    },
    Damage {
        position: u64,
        reason: &'static str,
    },
    End,
}

/// A batch of a segment that was found whole before, as it lies there; of its bytes only the first ones were looked
/// at again.
pub(super) struct Lying<'s> {
    position: u64,
    pub(super) header: BatchHeader,
    pub(super) bytes: &'s [u8],
}

impl<'p> Reading<'p> {
    pub(super) fn of(partition: &'p Partition, pace: Pace<'p>) -> Reading<'p> {
        Reading { partition, pace, unpacker: Unpacker::default(), unpacked: Unpacked::default() }
    }

    pub(super) fn log_file(&self, base_offset: i64) -> Result<DiskFile> {
        let context = &self.partition.context;
        context.disk.open(&context.log_path(base_offset), Access::Read)
    }

    pub(super) fn scan<'f>(&self, file: &'f DiskFile, base_offset: i64) -> Result<Scan<'f>> {
        let gaps_below = self.partition.gaps_below();
        Scan::new(file, 0, Continuity { expected: base_offset, gaps_below }, Depth::Checksums)
    }

    /// As [`scan`](Self::scan), for [`next_lying`](Self::next_lying).
    pub(super) fn scan_again<'f>(&self, file: &'f DiskFile, base_offset: i64) -> Result<Scan<'f>> {
        let gaps_below = self.partition.gaps_below();
        Scan::new(file, 0, Continuity { expected: base_offset, gaps_below }, Depth::Lengths)
    }

    /// Looks at what lies next: every length, count and offset of it.
    pub(super) fn next<'s>(&'s mut self, scan: &'s mut Scan<'_>) -> Result<Next<'s>> {
        self.pace.go_on()?;
        let damage =
            |position, fault: BatchFault| Ok(Next::Damage { position, reason: fault.text() });
        let (position, header, bytes) = match scan.next()? {
            Scanned::Batch { position, header, bytes } => (position, header, bytes),
            Scanned::Fault { position, fault } => return damage(position, fault),
            Scanned::End => return Ok(Next::End),
        };
        self.pace.read(bytes.len())?;
        let records = match decode::check_structure(&header, bytes) {
            Ok(()) => bytes,
            Err(BatchFault::Compressed(_)) if !header.attributes.is_control() => {
                self.unpacked.clear();
                match self.unpacker.unpack(&header, bytes, &mut self.unpacked) {
                    Ok(()) => {}
                    Err(BatchFault::Compressed(codec)) => {
                        return match Batch::verified(bytes) {
                            Some(batch) => Ok(Next::Locked { position, batch, codec }),
                            None => damage(position, BatchFault::Compressed(codec)),
                        };
                    }
                    Err(fault) => return damage(position, fault),
                }
                let plain = self.unpacked.bytes();
                let checked = decode::header_at(plain)
                    .map_err(BatchFault::Header)
                    .and_then(|header| decode::check_structure(&header, plain));
                match checked {
                    Ok(()) => plain,
                    Err(fault) => return damage(position, fault),
                }
            }
            Err(fault) => return damage(position, fault),
        };
        match Batch::verified(records) {
            Some(batch) => Ok(Next::Batch(batch)),
            None => Ok(Next::Damage { position, reason: NO_BATCH }),
        }
    }

    /// Gives the next batch of a segment that was found whole before; `None` at its end.
    ///
    /// # Errors
    ///
    /// * [`Error::Corrupt`] if it is not whole any more.
    pub(super) fn next_again<'s>(
        &'s mut self,
        scan: &'s mut Scan<'_>,
        file: &DiskFile,
    ) -> Result<Option<Batch<'s>>> {
        match self.next_lying(scan, file)? {
            Some(lying) => self.unpacked(&lying, file).map(Some),
            None => Ok(None),
        }
    }

    /// As [`next_again`](Self::next_again), from a scan that looks at lengths only, and looks no closer.
    pub(super) fn next_lying<'s>(
        &self,
        scan: &'s mut Scan<'_>,
        file: &DiskFile,
    ) -> Result<Option<Lying<'s>>> {
        self.pace.go_on()?;
        match scan.next()? {
            Scanned::Batch { position, header, bytes } => {
                self.pace.read(bytes.len())?;
                Ok(Some(Lying { position, header, bytes }))
            }
            Scanned::Fault { position, fault } => Err(corrupt(file, position, fault.text())),
            Scanned::End => Ok(None),
        }
    }

    /// Looks closer at what lies in a segment.
    pub(super) fn whole<'s>(&'s mut self, lying: &Lying<'s>, file: &DiskFile) -> Result<Batch<'s>> {
        if !decode::checksum_holds(&lying.header, lying.bytes) {
            return Err(corrupt(file, lying.position, BatchFault::Checksum.text()));
        }
        self.unpacked(lying, file)
    }

    /// Gives a batch whose checksum holds.
    fn unpacked<'s>(&'s mut self, lying: &Lying<'s>, file: &DiskFile) -> Result<Batch<'s>> {
        let mut records = lying.bytes;
        if lying.header.is_packed() {
            self.unpacked.clear();
            self.unpacker
                .unpack(&lying.header, lying.bytes, &mut self.unpacked)
                .map_err(|fault| corrupt(file, lying.position, fault.text()))?;
            records = self.unpacked.bytes();
        }
        Batch::verified(records).ok_or_else(|| corrupt(file, lying.position, NO_BATCH))
    }
}

fn corrupt(file: &DiskFile, position: u64, reason: &'static str) -> Error {
    Error::Corrupt { path: file.path().to_path_buf(), position, reason, resume: None }
}

const NO_BATCH: &str = "not a batch";
