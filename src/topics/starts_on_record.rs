//! Where logs begin, as it is on record; and whether the record may say something else.

use std::path::Path;

use crate::error::Result;
use crate::storage::checkpoint::OffsetCheckpoint;
use crate::storage::disk::Disk;

/// Where logs begin, as it is on record.
#[derive(Debug)]
pub(super) struct StartsOnRecord {
    known: OffsetCheckpoint,
    /// A write failed: the record may be what was tried.
    is_doubtful: bool,
}

impl StartsOnRecord {
    pub(super) fn new(known: OffsetCheckpoint) -> StartsOnRecord {
        StartsOnRecord { known, is_doubtful: false }
    }

    pub(super) fn known(&self) -> &OffsetCheckpoint {
        &self.known
    }

    pub(super) fn is_doubtful(&self) -> bool {
        self.is_doubtful
    }

    /// Puts `starts` on record, durably; where that fails only what was known is remembered.
    pub(super) fn write(
        &mut self,
        disk: &Disk,
        path: &Path,
        starts: OffsetCheckpoint,
    ) -> Result<()> {
        self.is_doubtful = true;
        starts.write(disk, path)?;
        *self = StartsOnRecord::new(starts);
        Ok(())
    }
}
