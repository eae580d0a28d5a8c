//! The files of one segment: where they are, made, removed.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;
use crate::storage::disk::Access;
use crate::storage::disk::Disk;
use crate::storage::disk::DiskFile;
use crate::storage::file_name::OffsetFile;
use crate::storage::gaps::Gaps;
use crate::storage::lock::DirectoryLock;
use crate::storage::scan::Continuity;
use crate::storage::scan::Depth;
use crate::storage::scan::Scan;
use crate::storage::scan::Scanned;

/// What a segment needs to know about its surroundings.
#[derive(Clone, Debug)]
pub(crate) struct SegmentContext {
    pub(crate) disk: Disk,
    pub(crate) directory: Arc<Path>,
    pub(crate) lock: Option<Arc<DirectoryLock>>,
    pub(crate) index_interval_bytes: u32,
    /// Where offsets may be missing.
    pub(crate) gaps: Gaps,
}

impl SegmentContext {
    pub(crate) fn log_path(&self, base_offset: i64) -> PathBuf {
        OffsetFile::Log.path(&self.directory, base_offset)
    }

    /// Tells whether a segment's index files have no entries, as they are made, or are not there, as a power cut may
    /// leave them of which nothing was durable: it is the last one, or not sealed yet.
    pub(crate) fn is_unsealed(&self, base_offset: i64) -> Result<bool> {
        for kind in [OffsetFile::OffsetIndex, OffsetFile::TimeIndex] {
            let path = kind.path(&self.directory, base_offset);
            if self.disk.exists(&path)? && self.disk.len(&path)? != 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Tells whether the last of what a seal leaves is missing: the time index, which has an entry for every segment that
    /// has a record. A crash between the two index files leaves a sealed segment without.
    pub(crate) fn is_unindexed(&self, base_offset: i64) -> Result<bool> {
        let path = OffsetFile::TimeIndex.path(&self.directory, base_offset);
        Ok(!self.disk.exists(&path)? || self.disk.len(&path)? == 0)
    }
}

/// Gives where the batches of a file end that has reserved space behind them.
pub(super) fn end_of_batches(
    context: &SegmentContext,
    file: &DiskFile,
    base_offset: i64,
) -> Result<u64> {
    let continuity = Continuity { expected: base_offset, gaps_below: context.gaps.below() };
    let mut scan = Scan::new(file, 0, continuity, Depth::Headers)?;
    while let Scanned::Batch { .. } = scan.next()? {}
    // Anything but zeros is damage, and whoever reads it is to be told.
    if scan.is_zero_from(scan.position())? { Ok(scan.position()) } else { file.len() }
}

/// Makes the files of a new segment; the caller synchronises the directory before it uses them.
pub(crate) fn create_files(context: &SegmentContext, base_offset: i64) -> Result<DiskFile> {
    let path = context.log_path(base_offset);
    let created = (|| {
        // What a failed attempt left here holds no data: the log never went beyond this offset.
        context.disk.remove_file(&path)?;
        let file = context.disk.open(&path, Access::CreateNew)?;
        for kind in [OffsetFile::OffsetIndex, OffsetFile::TimeIndex] {
            context.disk.open(&kind.beside(&path), Access::CreateOrKeep)?.set_len(0)?;
        }
        Ok(file)
    })();
    if created.is_err() {
        remove_files(context, base_offset);
    }
    created
}

/// Removes the files of a segment that was never used.
pub(crate) fn remove_files(context: &SegmentContext, base_offset: i64) {
    for kind in [OffsetFile::Log, OffsetFile::OffsetIndex, OffsetFile::TimeIndex] {
        // Best effort: an empty segment at the log's end is taken up by the next open.
        drop(context.disk.remove_file(&kind.path(&context.directory, base_offset)));
    }
}
