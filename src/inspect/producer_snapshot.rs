//! The entries of a producer snapshot: what is known of each idempotent producer.

use std::path::Path;

#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::inspect::file_kind::FILE_LEN_MAX;
use crate::inspect::file_kind::corrupt;
use crate::inspect::file_kind::field;
use crate::inspect::file_kind::offset_in_name;
use crate::storage::disk::Disk;
use crate::storage::file_name::OffsetFile;

/// An entry of a `.snapshot` file: what is known of one idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerSnapshotEntry {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// The epoch of the coordinator that ended its last transaction; −1 if there was none.
    pub coordinator_epoch: i32,
    /// Where its open transaction begins, if it has one.
    pub current_transaction_first_offset: Option<i64>,
    /// When it was last heard of, in milliseconds since 1970.
    pub last_timestamp_ms: i64,
    /// Its last batch of data, if there was one.
    pub last_batch: Option<ProducerBatch>,
}

/// The last batch of an idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerBatch {
    /// The sequence number of its first record.
    pub first_sequence: i32,
    /// The sequence number of its last record.
    pub last_sequence: i32,
    /// The offset of its last record.
    pub last_offset: i64,
    /// How far the first record's offset lies below.
    pub offset_delta: i32,
}

/// Reads a `.snapshot` file.
///
/// # Errors
///
/// * [`Error::InvalidArgument`] if the name is not a snapshot's. [`Error::Io`].
/// * [`Error::Corrupt`] if its version, checksum or length is wrong.
pub fn dump_producer_snapshot(path: impl AsRef<Path>) -> Result<Vec<ProducerSnapshotEntry>> {
    let path = path.as_ref();
    offset_in_name(path, OffsetFile::ProducerSnapshot)?;
    let bytes = Disk::default().read_small(path, FILE_LEN_MAX)?;
    let entries = snapshot_entries(&bytes)
        .map_err(|(position, reason)| corrupt(path, position as u64, reason))?;
    Ok(entries.chunks_exact(SNAPSHOT_ENTRY_LEN).map(snapshot_entry).collect())
}

const SNAPSHOT_ENTRY_LEN: usize = 46;
/// Version, checksum and count in front of a snapshot's entries.
const SNAPSHOT_FRONT_LEN: usize = 10;
/// What the checksum covers begins behind it.
const SNAPSHOT_CHECKED_FROM: usize = 6;

/// Gives the bytes of a snapshot's entries, or says at which byte it is wrong.
pub(crate) fn snapshot_entries(bytes: &[u8]) -> Result<&[u8], (usize, &'static str)> {
    let Some((front, entries)) = bytes.split_at_checked(SNAPSHOT_FRONT_LEN) else {
        return Err((bytes.len(), "the snapshot is cut off"));
    };
    if i16::from_be_bytes(field(front, 0)) != 1 {
        return Err((0, "not a producer snapshot of version 1"));
    }
    let checksum = u32::from_be_bytes(field(front, 2));
    if crc32c::crc32c(&bytes[SNAPSHOT_CHECKED_FROM..]) != checksum {
        return Err((2, "checksum mismatch"));
    }
    let count = i32::from_be_bytes(field(front, SNAPSHOT_CHECKED_FROM));
    let len = usize::try_from(count).ok().and_then(|count| count.checked_mul(SNAPSHOT_ENTRY_LEN));
    if len != Some(entries.len()) {
        return Err((SNAPSHOT_CHECKED_FROM, "the number of entries is not the one stated"));
    }
    Ok(entries)
}

fn snapshot_entry(entry: &[u8]) -> ProducerSnapshotEntry {
    let last_sequence = i32::from_be_bytes(field(entry, 10));
    let last_offset = i64::from_be_bytes(field(entry, 14));
    let offset_delta = i32::from_be_bytes(field(entry, 22));
    let first_offset = i64::from_be_bytes(field(entry, 38));
    ProducerSnapshotEntry {
        producer_id: i64::from_be_bytes(field(entry, 0)),
        producer_epoch: i16::from_be_bytes(field(entry, 8)),
        coordinator_epoch: i32::from_be_bytes(field(entry, 34)),
        current_transaction_first_offset: (first_offset >= 0).then_some(first_offset),
        last_timestamp_ms: i64::from_be_bytes(field(entry, 26)),
        last_batch: (last_offset >= 0).then(|| ProducerBatch {
            // Sequence numbers wrap behind the greatest 32-bit one.
            first_sequence: (i64::from(last_sequence) - i64::from(offset_delta))
                .rem_euclid(SEQUENCES) as i32,
            last_sequence,
            last_offset,
            offset_delta,
        }),
    }
}

/// What a snapshot has to say of one producer; −1 stands for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownProducer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    pub(crate) last_sequence: i32,
    pub(crate) last_offset: i64,
    pub(crate) offset_delta: i32,
    pub(crate) last_timestamp_ms: i64,
    pub(crate) coordinator_epoch: i32,
    /// Where its open transaction begins.
    pub(crate) open_from: i64,
}

impl KnownProducer {
    /// A producer of which nothing is known but its epoch.
    pub(crate) fn new(id: i64, epoch: i16) -> KnownProducer {
        KnownProducer {
            id,
            epoch,
            last_sequence: -1,
            last_offset: -1,
            offset_delta: 0,
            last_timestamp_ms: -1,
            coordinator_epoch: -1,
            open_from: -1,
        }
    }
}

/// Gives the bytes of a snapshot.
pub(crate) fn to_bytes<'p>(producers: impl Iterator<Item = &'p KnownProducer>) -> Vec<u8> {
    let mut entries = Vec::new();
    for producer in producers {
        entries.extend_from_slice(&producer.id.to_be_bytes());
        entries.extend_from_slice(&producer.epoch.to_be_bytes());
        entries.extend_from_slice(&producer.last_sequence.to_be_bytes());
        entries.extend_from_slice(&producer.last_offset.to_be_bytes());
        entries.extend_from_slice(&producer.offset_delta.to_be_bytes());
        entries.extend_from_slice(&producer.last_timestamp_ms.to_be_bytes());
        entries.extend_from_slice(&producer.coordinator_epoch.to_be_bytes());
        entries.extend_from_slice(&producer.open_from.to_be_bytes());
    }
    let count = (entries.len() / SNAPSHOT_ENTRY_LEN) as i32;
    let checked = [&count.to_be_bytes()[..], &entries].concat();
    let checksum = crc32c::crc32c(&checked);
    [&1_i16.to_be_bytes()[..], &checksum.to_be_bytes(), &checked].concat()
}

/// How many sequence numbers there are.
pub(crate) const SEQUENCES: i64 = 1 << 31;
