//! What a repair is at: each step is told, and done only if it is to be.

use std::path::Path;
use std::path::PathBuf;

use crate::error::Result;
use crate::repair::kept::Kept;
use crate::repair::report::RepairStep;
use crate::storage::checkpoint::OffsetCheckpoint;
use crate::storage::disk;
use crate::storage::disk::Disk;
use crate::storage::file_name;
use crate::storage::file_name::RootDirectory;

/// A repair under way.
pub(crate) struct Repair {
    pub(crate) disk: Disk,
    pub(crate) root: PathBuf,
    /// What is told is done, too.
    pub(crate) applies: bool,
    pub(crate) steps: Vec<RepairStep>,
}

impl Repair {
    pub(crate) fn tell(&mut self, step: RepairStep) {
        self.steps.push(step);
    }

    /// Writes a small file anew; keeps what is there, if there is something.
    pub(crate) fn rewrite(
        &mut self,
        path: &Path,
        what: String,
        write: impl FnOnce(&Disk) -> Result<()>,
    ) -> Result<()> {
        let mut step = RepairStep::new(path, what);
        if self.disk.exists(path)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let stem = format!("{}{name}", file_name::DAMAGED_PREFIX);
            let kept = Kept::whole(&self.disk, path, &stem)?;
            if self.applies {
                kept.copy(&self.disk)?;
            }
            step = step.keeping(&kept.path);
        }
        self.tell(step);
        if self.applies {
            write(&self.disk)?;
            self.disk.sync_directory(disk::parent(path))?;
        }
        Ok(())
    }

    /// Takes a log's start off the record, which cannot be where it begins.
    pub(crate) fn forget_log_start(&mut self, directory: &Path, start: i64) -> Result<()> {
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let RootDirectory::Partition(topic, number) = RootDirectory::parse(&name) else {
            return Ok(());
        };
        let path = self.root.join(file_name::LOG_STARTS);
        let what = format!("{name} cannot begin at offset {start}, behind all its records");
        let path_written = path.clone();
        self.rewrite(&path, what, |disk| {
            let mut starts = OffsetCheckpoint::read(disk, &path_written)?;
            starts.forget_partition(&topic, number);
            starts.write(disk, &path_written)
        })
    }
}
