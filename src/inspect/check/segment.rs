//! The check of one segment: its batches, one by one, and what its indexes say of them.

use std::path::Path;
use std::thread;

use crate::error::Result;
use crate::format::compression::Unpacked;
use crate::format::compression::Unpacker;
use crate::format::decode::BatchFault;
use crate::format::header::BatchHeader;
use crate::inspect::check::Check;
use crate::inspect::check::Log;
use crate::inspect::check::Place;
use crate::inspect::check::TRIES;
use crate::inspect::check::TRY_INTERVAL;
use crate::inspect::check::index_walk::OffsetWalk;
use crate::inspect::check::index_walk::TimeWalk;
use crate::inspect::check::report::Progress;
use crate::inspect::file_kind::FILE_LEN_MAX;
use crate::inspect::index_entries::TRANSACTION_ENTRY_LEN;
use crate::inspect::index_entries::transaction_entry;
use crate::storage::disk::Access;
use crate::storage::disk::DiskFile;
use crate::storage::file_name;
use crate::storage::file_name::OffsetFile;
use crate::storage::file_name::SWAP_SUFFIX;
use crate::storage::scan::Continuity;
use crate::storage::scan::Depth;
use crate::storage::scan::Scan;
use crate::storage::scan::Scanned;

impl<P: FnMut(Progress<'_>)> Check<'_, P> {
    pub(super) fn segment(&mut self, log: &mut Log, place: Place) {
        let path = OffsetFile::Log.path(&log.directory, place.base_offset);
        let begins_well = place.base_offset == log.expected
            || (place.base_offset > log.expected && place.base_offset <= log.gaps_below);
        if !begins_well && !log.is_cut_short {
            let expected = log.expected;
            self.problem(
                path.clone(),
                Some(0),
                format!("the segment should begin at offset {expected}"),
            );
        }
        log.expected = place.base_offset;
        log.is_cut_short = false;
        self.report.counts.segments += 1;
        let bytes = self.index_bytes(&path, OffsetFile::OffsetIndex, place);
        let mut offsets = OffsetWalk::new(bytes.as_deref(), place.base_offset);
        let bytes = self.index_bytes(&path, OffsetFile::TimeIndex, place);
        let mut times = TimeWalk::new(bytes.as_deref(), place.base_offset);

        let done_before = self.bytes_done;
        match self.disk.open(&path, Access::Read) {
            Ok(file) => {
                if let Err(error) = self.batches(&file, log, place, &mut offsets, &mut times) {
                    self.problem_of(error);
                    log.is_cut_short = true;
                }
                self.bytes_done = done_before + file.len().unwrap_or(0);
            }
            Err(error) => {
                self.problem_of(error);
                log.is_cut_short = true;
            }
        }
        if !log.is_cut_short {
            offsets.finish(log.expected);
            times.finish();
        }
        for (kind, findings) in [
            (OffsetFile::OffsetIndex, offsets.walk.findings),
            (OffsetFile::TimeIndex, times.walk.findings),
        ] {
            let index = kind.beside(&path);
            self.index_findings(&index, findings, place);
        }
        self.transaction_index(&OffsetFile::TransactionIndex.beside(&path), place);
        let (bytes_done, bytes_total) = (self.bytes_done, self.bytes_total);
        (self.progress)(Progress { path: &path, bytes_done, bytes_total });
    }

    /// Walks the batches of one segment; goes on behind damage where that is possible.
    fn batches(
        &mut self,
        file: &DiskFile,
        log: &mut Log,
        place: Place,
        offsets: &mut OffsetWalk,
        times: &mut TimeWalk,
    ) -> Result<()> {
        let continuity = Continuity { expected: log.expected, gaps_below: log.gaps_below };
        let mut scan = Scan::new(file, 0, continuity, Depth::Checksums)?;
        let (mut unpacker, mut unpacked) = (Unpacker::default(), Unpacked::default());
        let mut tries = 0;
        let mut told = 0;
        loop {
            let expected = scan.expected();
            let (position, fault) = match scan.next()? {
                Scanned::Batch { position, header, bytes } => {
                    unpacked.clear();
                    let structure = unpacker.verify(bytes, &mut unpacked);
                    let structure = structure.err();
                    self.batch(file.path(), log, position, &header, structure);
                    offsets.note(position, header.last_offset());
                    times.note(header.last_offset(), header.max_timestamp_ms);
                    log.expected = header.last_offset() + 1;
                    tries = 0;
                    self.bytes_done += header.len() as u64;
                    if position >= told + PROGRESS_INTERVAL {
                        told = position;
                        let (bytes_done, bytes_total) = (self.bytes_done, self.bytes_total);
                        (self.progress)(Progress { path: file.path(), bytes_done, bytes_total });
                    }
                    continue;
                }
                Scanned::End => return Ok(()),
                Scanned::Fault { position, fault } => (position, fault),
            };
            let len_behind = scan.len() - position;
            if scan.is_zero_from(position)? {
                self.reserved(file.path(), place, position, len_behind);
                return Ok(());
            }
            if place.is_last && !self.is_clean && tries < TRIES {
                // A writer may be in the middle of this very batch.
                tries += 1;
                thread::sleep(TRY_INTERVAL);
                let continuity = Continuity { expected, gaps_below: log.gaps_below };
                scan = Scan::new(file, position, continuity, Depth::Checksums)?;
                continue;
            }
            let found = scan.resync(position, expected)?;
            let outlook = match found {
                Some((_, header)) => format!("readable again from offset {}", header.base_offset),
                None if place.is_last && !self.is_clean && expected >= log.recovery_point => {
                    "nothing whole behind it, as after a crash; the next open cuts it off".into()
                }
                None => format!("nothing whole in the {len_behind} bytes from here"),
            };
            self.problem(
                file.path().to_path_buf(),
                Some(position),
                format!("{}; offset {expected} expected; {outlook}", fault.text()),
            );
            let Some((position, header)) = found else {
                log.is_cut_short = true;
                return Ok(());
            };
            scan.resume_at(position, header.base_offset);
            log.expected = header.base_offset;
            offsets.skip_below(position);
            times.skip_below(header.base_offset);
        }
    }

    /// Notes a batch whose checksum holds.
    fn batch(
        &mut self,
        path: &Path,
        log: &mut Log,
        position: u64,
        header: &BatchHeader,
        structure: Option<BatchFault>,
    ) {
        let counts = &mut self.report.counts;
        counts.batches += 1;
        counts.records += u64::from(header.record_count.unsigned_abs());
        counts.bytes += header.len() as u64;
        match structure {
            None | Some(BatchFault::Compressed(_)) => {}
            Some(fault) => self.problem(path.to_path_buf(), Some(position), fault.text()),
        }
        let epoch = header.leader_epoch;
        if epoch < 0 {
            return;
        }
        let of_offset = log
            .epochs
            .partition_point(|(_, start)| *start <= header.base_offset)
            .checked_sub(1)
            .map(|index| log.epochs[index].0);
        if epoch < log.latest_epoch {
            let latest = log.latest_epoch;
            self.problem(
                path.to_path_buf(),
                Some(position),
                format!("leader epoch {epoch} follows {latest}"),
            );
        } else if of_offset.is_some_and(|of_offset| of_offset != epoch) {
            let of_offset = of_offset.unwrap_or(-1);
            self.problem(
                path.to_path_buf(),
                Some(position),
                format!("leader epoch {epoch}, but {of_offset} by {}", file_name::LEADER_EPOCHS),
            );
        }
        log.latest_epoch = log.latest_epoch.max(epoch);
    }

    /// Notes the zeros behind the last batch.
    fn reserved(&mut self, path: &Path, place: Place, position: u64, len: u64) {
        let path = path.to_path_buf();
        if self.is_clean {
            self.problem(
                path,
                Some(position),
                format!(
                    "{len} bytes of reserved space, although the directory is marked as closed cleanly"
                ),
            );
        } else if place.is_last {
            self.note_at(path, position, format!("{len} bytes of reserved space"));
        } else {
            self.note_at(
                path,
                position,
                format!("{len} bytes of reserved space that was not given back"),
            );
        }
    }

    fn index_bytes(&mut self, log: &Path, kind: OffsetFile, place: Place) -> Option<Vec<u8>> {
        let path = kind.beside(log);
        match self.disk.read_small(&path, FILE_LEN_MAX) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.is_not_found() => {
                // A compaction that was cut short has yet to give it its name.
                let swap =
                    kind.suffixed(path.parent().unwrap_or(log), place.base_offset, SWAP_SUFFIX);
                if self.disk.exists(&swap).unwrap_or(false) {
                    return self.disk.read_small(&swap, FILE_LEN_MAX).ok();
                }
                // Kafka rebuilds a segment whose offset index is missing, but not its time index.
                if kind == OffsetFile::TimeIndex && place.is_trusted {
                    self.problem(path, None, "the file is missing");
                } else {
                    self.note(path, "the file is missing; it will be rebuilt");
                }
                None
            }
            Err(error) => {
                self.problem_of(error);
                None
            }
        }
    }

    fn index_findings(&mut self, path: &Path, findings: Vec<(u64, String)>, place: Place) {
        if place.is_trusted {
            for (position, what) in findings {
                self.problem(path.to_path_buf(), Some(position), what);
            }
        } else if let Some((position, what)) = findings.into_iter().next() {
            let what = format!("{what}; the index will be rebuilt");
            self.note_at(path.to_path_buf(), position, what);
        }
    }

    fn transaction_index(&mut self, path: &Path, place: Place) {
        let bytes = match self.disk.read_small(path, FILE_LEN_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return,
            Err(error) => return self.problem_of(error),
        };
        let findings = transaction_findings(&bytes, place.base_offset);
        self.index_findings(path, findings, place);
    }
}

/// Says what is wrong with a transaction index, and at which byte.
pub(crate) fn transaction_findings(bytes: &[u8], base_offset: i64) -> Vec<(u64, String)> {
    let mut findings = Vec::new();
    let mut last_offset = base_offset - 1;
    let entries = bytes.chunks_exact(TRANSACTION_ENTRY_LEN);
    let whole_len = bytes.len() - entries.remainder().len();
    for (index, entry) in entries.map(transaction_entry).enumerate() {
        let position = (index * TRANSACTION_ENTRY_LEN) as u64;
        if entry.version != 0 {
            findings.push((position, "an entry of an unknown version".to_owned()));
        } else if entry.last_offset <= last_offset || entry.first_offset > entry.last_offset {
            findings.push((position, "entries do not ascend".to_owned()));
        }
        last_offset = entry.last_offset;
    }
    if whole_len < bytes.len() {
        findings.push((whole_len as u64, "an entry is cut off".to_owned()));
    }
    findings
}

const PROGRESS_INTERVAL: u64 = 4 << 20;
