//! Kafka's `.snapshot` files, carried along: read at open, written again at each roll and close.
//!
//! What is in them is Kafka's: this crate's own batches do not change producer state, so the newest snapshot
//! stays true while nobody else appends.

use std::sync::Arc;

use crate::error::Error;
use crate::error::Result;
use crate::partition::segments::Segments;
use crate::storage::file_name::OffsetFile;
use crate::storage::file_name::TEMPORARY_SUFFIX;
use crate::storage::segment_files::SegmentContext;

/// Gives the bytes of the newest producer snapshot at or below the log's end. Where there is none, no
/// producer is known; whether that may be written down depends on whether the whole log was seen.
///
/// `None` if what the state is cannot be said: then none is written, and Kafka works it out from an older
/// snapshot and the log.
pub(crate) fn newest(
    context: &SegmentContext,
    snapshots: &[i64],
    log_end: i64,
    seen: LogSeen,
) -> Result<Option<Arc<[u8]>>> {
    let newest = snapshots.iter().rev().find(|offset| **offset <= log_end);
    let Some(&offset) = newest else {
        return Ok((seen == LogSeen::Whole).then(|| EMPTY_SNAPSHOT.into()));
    };
    let path = OffsetFile::ProducerSnapshot.path(&context.directory, offset);
    let bytes = match context.disk.read_small(&path, SNAPSHOT_LEN_MAX) {
        Err(Error::Corrupt { .. }) => return Ok(None),
        other => other?,
    };
    let is_whole = bytes.len() >= EMPTY_SNAPSHOT.len()
        && bytes[..2] == [0, 1]
        && bytes[2..6] == crc32c::crc32c(&bytes[6..]).to_be_bytes();
    // A damaged one is left to Kafka, which falls back to an older one and replays the log.
    Ok(is_whole.then(|| bytes.into()))
}

/// Writes the snapshot of a log that ends here. The caller makes its name durable. A crash leaves no part of one under
/// its name: it would stay as long as its segment, and nobody would know the producers any more.
pub(crate) fn write(context: &SegmentContext, end: i64, snapshot: &[u8]) -> Result<()> {
    let kind = OffsetFile::ProducerSnapshot;
    let temporary = kind.suffixed(&context.directory, end, TEMPORARY_SUFFIX);
    context.disk.write_synced(&temporary, snapshot)?;
    context.disk.rename(&temporary, &kind.path(&context.directory, end))
}

/// Removes the snapshots that nobody needs any more: Kafka keeps one for each segment and one for the log's
/// end.
pub(crate) fn remove_old(context: &SegmentContext, segments: &Segments, end: i64) -> Result<()> {
    let disk = &context.disk;
    let directory = &context.directory;
    let segments = segments.snapshot();
    let mut is_changed = false;
    for entry in disk.entries(directory)? {
        let Some((OffsetFile::ProducerSnapshot, offset)) = OffsetFile::parse(&entry.name) else {
            continue;
        };
        let belongs = offset == end
            || segments.binary_search_by_key(&offset, |segment| segment.base_offset()).is_ok();
        if !belongs {
            disk.remove_file(&directory.join(&entry.name))?;
            is_changed = true;
        }
    }
    if is_changed { disk.sync_directory(directory) } else { Ok(()) }
}

/// Removes the snapshots of segments that are no more, but for the newest of all: whoever works out what became of
/// the producers begins with that.
pub(crate) fn remove_replaced(context: &SegmentContext, base_offsets: &[i64]) -> Result<()> {
    let entries = context.disk.entries(&context.directory)?;
    let snapshots = entries.iter().filter_map(|entry| match OffsetFile::parse(&entry.name) {
        Some((OffsetFile::ProducerSnapshot, offset)) => Some(offset),
        _ => None,
    });
    let mut snapshots: Vec<i64> = snapshots.collect();
    snapshots.sort_unstable();
    snapshots.pop();
    for offset in snapshots.into_iter().filter(|offset| base_offsets.contains(offset)) {
        context.disk.remove_file(&OffsetFile::ProducerSnapshot.path(&context.directory, offset))?;
    }
    Ok(())
}

/// How much of a log was looked at for batches of idempotent producers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogSeen {
    /// All of it, and there were none.
    Whole,
    Part,
}

/// The snapshot of a log that no idempotent producer ever wrote to.
const EMPTY_SNAPSHOT: &[u8] = &[0x00, 0x01, 0x48, 0x67, 0x4b, 0xc7, 0, 0, 0, 0];

const SNAPSHOT_LEN_MAX: usize = 256 << 20;
