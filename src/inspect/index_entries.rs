//! The entries of the three kinds of index: offsets, times, aborted transactions.

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
use crate::storage::offset_index;
use crate::storage::time_index;

/// An entry of an `.index` file: the last offset of the batch that starts at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OffsetIndexEntry {
    /// The last offset of the batch.
    pub offset: i64,
    /// The byte of the log where the batch begins.
    pub position: u32,
}

/// An entry of a `.timeindex` file: no batch up to the one that ends at the offset is later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimeIndexEntry {
    /// The greatest timestamp so far, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The last offset of the batch that has it.
    pub offset: i64,
}

/// An entry of a `.txnindex` file: a transaction that was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionIndexEntry {
    /// The version of the entry, 0.
    pub version: i16,
    /// Whose transaction it was.
    pub producer_id: i64,
    /// The first offset of the transaction.
    pub first_offset: i64,
    /// The offset of the marker that ended it.
    pub last_offset: i64,
    /// Below this offset every transaction was decided then.
    pub last_stable_offset: i64,
}

/// Reads an `.index` file. The zeros with which Kafka pads the file of a live segment are left out.
///
/// # Errors
///
/// * [`Error::InvalidArgument`] if the name is not an offset index's. [`Error::Io`].
/// * [`Error::Corrupt`] if the file ends within an entry.
///
/// ```
/// # let store = ottla::Store::temporary()?;
/// # let topic = store.create_topic("t", ottla::TopicConfig::new())?;
/// # store.producer().send(&topic, "v")?.wait()?;
/// let index = store.path().join("t-0/00000000000000000000.index");
/// assert!(ottla::inspect::dump_offset_index(index)?.is_empty());
/// # Ok::<(), ottla::Error>(())
/// ```
pub fn dump_offset_index(path: impl AsRef<Path>) -> Result<Vec<OffsetIndexEntry>> {
    let path = path.as_ref();
    let base_offset = offset_in_name(path, OffsetFile::OffsetIndex)?;
    let bytes = read_entries(path, offset_index::ENTRY_LEN)?;
    let used = without_padding(&bytes, offset_index::ENTRY_LEN);
    let entries = used.chunks_exact(offset_index::ENTRY_LEN);
    Ok(entries.map(|entry| offset_entry(base_offset, entry)).collect())
}

/// Reads a `.timeindex` file. The zeros with which Kafka pads the file of a live segment are left out.
///
/// # Errors
///
/// * As [`dump_offset_index`].
pub fn dump_time_index(path: impl AsRef<Path>) -> Result<Vec<TimeIndexEntry>> {
    let path = path.as_ref();
    let base_offset = offset_in_name(path, OffsetFile::TimeIndex)?;
    let bytes = read_entries(path, time_index::ENTRY_LEN)?;
    let used = without_padding(&bytes, time_index::ENTRY_LEN);
    let entries = used.chunks_exact(time_index::ENTRY_LEN);
    Ok(entries.map(|entry| time_entry(base_offset, entry)).collect())
}

/// Reads a `.txnindex` file.
///
/// # Errors
///
/// * As [`dump_offset_index`].
pub fn dump_transaction_index(path: impl AsRef<Path>) -> Result<Vec<TransactionIndexEntry>> {
    let path = path.as_ref();
    offset_in_name(path, OffsetFile::TransactionIndex)?;
    let bytes = read_entries(path, TRANSACTION_ENTRY_LEN)?;
    let entries = bytes.chunks_exact(TRANSACTION_ENTRY_LEN);
    Ok(entries.map(transaction_entry).collect())
}

pub(crate) const TRANSACTION_ENTRY_LEN: usize = 34;

fn read_entries(path: &Path, entry_len: usize) -> Result<Vec<u8>> {
    let bytes = Disk::default().read_small(path, FILE_LEN_MAX)?;
    let rest = bytes.len() % entry_len;
    if rest > 0 {
        let position = bytes.len() - rest;
        return Err(corrupt(path, position as u64, "an entry is cut off"));
    }
    Ok(bytes)
}

/// Leaves out the zero entries at the end. A single one may be an entry: timestamp 0, first offset.
pub(crate) fn without_padding(bytes: &[u8], entry_len: usize) -> &[u8] {
    let used = bytes
        .chunks_exact(entry_len)
        .rposition(|entry| entry.iter().any(|byte| *byte != 0))
        .map_or(0, |last| (last + 1) * entry_len);
    if used == 0 && bytes.len() == entry_len {
        return bytes;
    }
    &bytes[..used]
}

pub(crate) fn offset_entry(base_offset: i64, entry: &[u8]) -> OffsetIndexEntry {
    OffsetIndexEntry {
        offset: base_offset.saturating_add(i64::from(i32::from_be_bytes(field(entry, 0)))),
        position: u32::from_be_bytes(field(entry, 4)),
    }
}

pub(crate) fn time_entry(base_offset: i64, entry: &[u8]) -> TimeIndexEntry {
    TimeIndexEntry {
        timestamp_ms: i64::from_be_bytes(field(entry, 0)),
        offset: base_offset.saturating_add(i64::from(i32::from_be_bytes(field(entry, 8)))),
    }
}

pub(crate) fn transaction_entry(entry: &[u8]) -> TransactionIndexEntry {
    TransactionIndexEntry {
        version: i16::from_be_bytes(field(entry, 0)),
        producer_id: i64::from_be_bytes(field(entry, 2)),
        first_offset: i64::from_be_bytes(field(entry, 10)),
        last_offset: i64::from_be_bytes(field(entry, 18)),
        last_stable_offset: i64::from_be_bytes(field(entry, 26)),
    }
}
