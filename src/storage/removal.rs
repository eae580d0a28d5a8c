//! How segments go whose records were deleted.
//!
//! Their files are renamed as Kafka renames what it is about to remove, then removed. Before that it is on record
//! that the log begins behind them, so whatever a crash leaves of them is removed by the next open, in whatever order
//! the names have reached the disk; where it could not be put on record because the disk is full, the order is kept.
//!
//! In between they stay for `file.delete.delay.ms`, as in Kafka, which waits for those who still have a file open. Here
//! nobody needs that, so it is 0 unless it is set: what is mapped stays readable without a name, and its space comes free
//! with the last one who reads it. While they wait, a person who deleted too much may copy them; the next open removes
//! them, whatever is left of their time.

use crate::error::Result;
use crate::storage::file_name::DELETED_SUFFIX;
use crate::storage::file_name::OffsetFile;
use crate::storage::segment_files::SegmentContext;
use crate::storage::swap;
use crate::storage::swap::SEGMENT_FILES;

/// Whether the names of segments that go have to reach the disk one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// It is on record that the log begins behind them.
    Any,
    OldestFirst,
}

/// Removes the files of segments, given oldest first; those that are gone already count as removed.
///
/// # Errors
///
/// * Some of them may be there still, under either name. It may be done again.
pub(crate) fn remove(context: &SegmentContext, base_offsets: &[i64], order: Order) -> Result<()> {
    rename(context, base_offsets, order)?;
    swap::remove_replaced(context, base_offsets)
}

/// Gives the files of segments the names of those that are about to be removed; does nothing where they have them.
///
/// # Errors
///
/// * Some of them may have their old names still. It may be done again.
pub(crate) fn rename(context: &SegmentContext, base_offsets: &[i64], order: Order) -> Result<()> {
    for base_offset in base_offsets {
        for kind in SEGMENT_FILES {
            let path = kind.path(&context.directory, *base_offset);
            if context.disk.exists(&path)? {
                let doomed = kind.suffixed(&context.directory, *base_offset, DELETED_SUFFIX);
                context.disk.rename(&path, &doomed)?;
            }
        }
        if order == Order::OldestFirst {
            context.disk.sync_directory(&context.directory)?;
        }
    }
    Ok(())
}

/// Gives the bytes of the log of a segment that was renamed; 0 if it is not there.
pub(crate) fn renamed_len(context: &SegmentContext, base_offset: i64) -> Result<u64> {
    let path = OffsetFile::Log.suffixed(&context.directory, base_offset, DELETED_SUFFIX);
    if context.disk.exists(&path)? { context.disk.len(&path) } else { Ok(0) }
}
