//! A walk over the batches of one segment file, and what it shows of each: header, records, markers.

use std::fmt;
use std::path::Path;

use crate::config::TimestampType;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::format::compression::Unpacked;
use crate::format::compression::Unpacker;
use crate::format::decode::BatchFault;
use crate::format::decode::RawHeaders;
use crate::format::decode::RawRecords;
use crate::format::header;
use crate::format::header::BatchHeader;
use crate::inspect::file_kind::corrupt;
use crate::inspect::file_kind::field;
use crate::inspect::file_kind::offset_in_name;
use crate::inspect::producer_snapshot::SEQUENCES;
use crate::record::Header;
use crate::record::Unshown;
use crate::storage::disk::Access;
use crate::storage::disk::Disk;
use crate::storage::disk::DiskFile;
use crate::storage::file_name::OffsetFile;

/// A walk over the batches of one segment file, with memory for one batch at a time.
///
/// ```
/// use ottla::{Record, Store, TopicConfig, inspect};
/// use ottla::inspect::DumpedRecords;
///
/// let store = Store::temporary()?;
/// let topic = store.create_topic("t", TopicConfig::new())?;
/// store.producer().send(&topic, Record::new("value").key("key"))?.wait()?;
///
/// let path = store.path().join("t-0/00000000000000000000.log");
/// let mut dump = inspect::dump_log(&path)?;
/// let mut values = Vec::new();
/// while let Some(batch) = dump.next_batch()? {
///     if let DumpedRecords::Plain(records) = batch.records {
///         values.extend(records.filter_map(|record| record.value.map(<[u8]>::to_vec)));
///     }
/// }
/// assert_eq!(values, [b"value"]);
/// # Ok::<(), ottla::Error>(())
/// ```
pub struct LogDump {
    file: DiskFile,
    base_offset: i64,
    len: u64,
    position: u64,
    buffer: Vec<u8>,
    buffer_start: u64,
    unpacker: Unpacker,
    unpacked: Unpacked,
}

/// One batch of a [`LogDump`].
#[derive(Debug)]
#[non_exhaustive]
pub struct DumpedBatch<'d> {
    /// What its header says.
    pub header: DumpedHeader,
    /// What is in it.
    pub records: DumpedRecords<'d>,
}

/// The header of a batch, field by field under Kafka's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DumpedHeader {
    /// The byte of the file where the batch begins.
    pub position: u64,
    /// Its size in bytes, header included.
    pub len: u64,
    /// The offset of its first record, as it was appended.
    pub base_offset: i64,
    /// The offset of its last record, as it was appended.
    pub last_offset: i64,
    /// How many records are in it.
    pub record_count: i32,
    /// The sequence number of the first record; −1 if there is none.
    pub base_sequence: i32,
    /// The sequence number of the last record; −1 if there is none.
    pub last_sequence: i32,
    /// The idempotent producer; −1 if there is none.
    pub producer_id: i64,
    /// The producer's epoch; −1 if there is none.
    pub producer_epoch: i16,
    /// The epoch of the leader that appended the batch; −1 if there is none.
    pub leader_epoch: i32,
    /// It belongs to a transaction.
    pub is_transactional: bool,
    /// It holds no records for consumers, but a transaction's marker or the like.
    pub is_control: bool,
    /// From when on compaction may remove its tombstones, in milliseconds since 1970.
    pub delete_horizon_ms: Option<i64>,
    /// Who set the timestamps.
    pub timestamp_type: TimestampType,
    /// The greatest timestamp, in milliseconds since 1970; −1 if there is none.
    pub max_timestamp_ms: i64,
    /// The version of the format, 2.
    pub magic: i8,
    /// The codec's Kafka name, `none` if it is not compressed.
    pub compression: &'static str,
    /// The checksum that it carries.
    pub checksum: u32,
    /// The checksum that it carries is that of its bytes.
    pub is_valid: bool,
}

/// The records of a dumped batch, if they can be seen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DumpedRecords<'d> {
    /// They can, unpacked if they are compressed; this iterates over them.
    Plain(DumpedRecordIter<'d>),
    /// They are compressed with this codec, which this build does not have.
    Compressed(&'static str),
    /// They are damaged, in this way.
    Damaged(&'static str),
}

/// Iterates over the records of a [`DumpedBatch`].
#[derive(Clone, Debug)]
pub struct DumpedRecordIter<'d> {
    records: RawRecords<'d>,
    batch: BatchHeader,
}

/// One record of a [`DumpedBatch`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DumpedRecord<'d> {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in milliseconds since 1970; −1 if it has none.
    pub timestamp_ms: i64,
    /// Its sequence number; −1 if it has none.
    pub sequence: i32,
    /// Its key; `None` if it is null.
    pub key: Option<&'d [u8]>,
    /// Its value; `None` if it is null.
    pub value: Option<&'d [u8]>,
    /// What it says, if it belongs to a control batch.
    pub control: Option<ControlRecord>,
    headers: RawHeaders<'d>,
}

impl fmt::Debug for DumpedRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DumpedRecord")
            .field("offset", &self.offset)
            .field("timestamp_ms", &self.timestamp_ms)
            .field("sequence", &self.sequence)
            .field("key", &Unshown::of(self.key))
            .field("value", &Unshown::of(self.value))
            .field("control", &self.control)
            .finish()
    }
}

/// What a record of a control batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlRecord {
    /// The producer's transaction was aborted.
    Abort {
        /// The epoch of the coordinator that decided it.
        coordinator_epoch: i32,
    },
    /// The producer's transaction was committed.
    Commit {
        /// The epoch of the coordinator that decided it.
        coordinator_epoch: i32,
    },
    /// Something else, by its number in Kafka's format.
    Other {
        /// The number; −1 if it cannot be read.
        kind: i16,
    },
}

/// Opens a segment file to walk over its batches.
///
/// # Errors
///
/// * [`Error::InvalidArgument`] if the name is not a segment's. [`Error::Io`].
pub fn dump_log(path: impl AsRef<Path>) -> Result<LogDump> {
    let path = path.as_ref();
    let base_offset = offset_in_name(path, OffsetFile::Log)?;
    let file = Disk::default().open(path, Access::Read)?;
    Ok(LogDump {
        len: file.len()?,
        file,
        base_offset,
        position: 0,
        buffer: Vec::new(),
        unpacker: Unpacker::default(),
        unpacked: Unpacked::default(),
        buffer_start: 0,
    })
}

impl fmt::Debug for LogDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogDump")
            .field("path", &self.file.path())
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl LogDump {
    /// Gives the offset in the file's name.
    pub fn base_offset(&self) -> i64 {
        self.base_offset
    }

    /// Gives the byte where the next batch is expected.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Gives how many bytes lie behind the batches met so far. At the end that is space that a writer has
    /// reserved, all of it zeros.
    pub fn len_behind(&self) -> u64 {
        self.len.saturating_sub(self.position)
    }

    /// Gives the next batch, `None` at the end. A batch whose checksum is wrong is given all the same, as
    /// [`DumpedRecords::Damaged`].
    ///
    /// # Errors
    ///
    /// * [`Error::Corrupt`] if what lies there is no batch; the walk cannot go on. [`Error::Io`].
    pub fn next_batch(&mut self) -> Result<Option<DumpedBatch<'_>>> {
        let position = self.position;
        let available = self.len.saturating_sub(position);
        let front = self.fill(position, header::LEN)?.first_chunk();
        let checked = match front.map(BatchHeader::read) {
            Some(header) => header.check(available).map(|()| header).map_err(|fault| fault.text()),
            None => Err("the batch is cut off"),
        };
        let header = match checked {
            Ok(header) => header,
            // An end without reserved space has nothing but zeros behind it, too.
            Err(_) if self.is_zero_from(position)? => return Ok(None),
            Err(reason) => return Err(corrupt(self.file.path(), position, reason)),
        };
        self.position = position + header.len() as u64;
        self.fill(position, header.len())?;
        let start = (position - self.buffer_start) as usize;
        let bytes = self.buffer.get(start..).unwrap_or_default();
        self.unpacked.clear();
        let verified = self.unpacker.verify(bytes, &mut self.unpacked);
        let is_valid = !matches!(verified, Err(BatchFault::Checksum | BatchFault::Header(_)));
        let records = match verified {
            Ok(batch) => {
                DumpedRecords::Plain(DumpedRecordIter { records: batch.records(), batch: header })
            }
            Err(BatchFault::Compressed(codec)) => DumpedRecords::Compressed(codec),
            Err(fault) => DumpedRecords::Damaged(fault.text()),
        };
        Ok(Some(DumpedBatch { header: dumped_header(&header, position, is_valid), records }))
    }

    fn is_zero_from(&mut self, mut position: u64) -> Result<bool> {
        while position < self.len {
            let bytes = self.fill(position, READ_AHEAD)?;
            if bytes.is_empty() {
                break;
            }
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            position += bytes.len() as u64;
        }
        Ok(true)
    }

    /// Gives up to `len` bytes from a position; fewer only at the end of the file.
    fn fill(&mut self, position: u64, len: usize) -> Result<&[u8]> {
        let left = usize::try_from(self.len.saturating_sub(position)).unwrap_or(usize::MAX);
        let len = len.min(left);
        let held = self.buffer_start..self.buffer_start + self.buffer.len() as u64;
        if position < held.start || position + len as u64 > held.end {
            self.buffer.resize(left.min(READ_AHEAD.max(len)), 0);
            let filled = self.file.read_up_to(&mut self.buffer, position)?;
            self.buffer.truncate(filled);
            self.buffer_start = position;
        }
        let start = (position - self.buffer_start) as usize;
        Ok(&self.buffer[start..(start + len).min(self.buffer.len())])
    }
}

impl<'d> Iterator for DumpedRecordIter<'d> {
    type Item = DumpedRecord<'d>;

    fn next(&mut self) -> Option<DumpedRecord<'d>> {
        let raw = self.records.next()?;
        let control =
            self.batch.attributes.is_control().then(|| control_record(raw.key, raw.value));
        Some(DumpedRecord {
            offset: raw.offset,
            timestamp_ms: raw.timestamp_ms,
            sequence: sequence_at(&self.batch, raw.offset - self.batch.base_offset),
            key: raw.key,
            value: raw.value,
            control,
            headers: raw.headers,
        })
    }
}

impl<'d> DumpedRecord<'d> {
    /// Iterates over the headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = Header<'d>> + use<'d> {
        self.headers.iter()
    }
}

const READ_AHEAD: usize = 256 << 10;

fn sequence_at(batch: &BatchHeader, offset_delta: i64) -> i32 {
    if batch.base_sequence < 0 {
        return -1;
    }
    ((i64::from(batch.base_sequence) + offset_delta) % SEQUENCES) as i32
}

fn control_record(key: Option<&[u8]>, value: Option<&[u8]>) -> ControlRecord {
    let Some(kind) = key.filter(|key| key.len() >= 4) else {
        return ControlRecord::Other { kind: -1 };
    };
    let kind = i16::from_be_bytes(field(kind, 2));
    let coordinator_epoch =
        value.filter(|value| value.len() >= 6).map(|value| i32::from_be_bytes(field(value, 2)));
    match (kind, coordinator_epoch) {
        (0, Some(coordinator_epoch)) => ControlRecord::Abort { coordinator_epoch },
        (1, Some(coordinator_epoch)) => ControlRecord::Commit { coordinator_epoch },
        (kind, _) => ControlRecord::Other { kind },
    }
}

fn dumped_header(header: &BatchHeader, position: u64, is_valid: bool) -> DumpedHeader {
    let attributes = header.attributes;
    DumpedHeader {
        position,
        len: header.len() as u64,
        base_offset: header.base_offset,
        last_offset: header.last_offset(),
        record_count: header.record_count,
        base_sequence: header.base_sequence,
        last_sequence: header.last_sequence(),
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        leader_epoch: header.leader_epoch,
        is_transactional: attributes.is_transactional(),
        is_control: attributes.is_control(),
        delete_horizon_ms: attributes.has_delete_horizon().then_some(header.base_timestamp_ms),
        timestamp_type: if attributes.is_log_append_time() {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        },
        max_timestamp_ms: header.max_timestamp_ms,
        magic: header.magic,
        compression: attributes.compression().unwrap_or("none"),
        checksum: header.checksum,
        is_valid,
    }
}
