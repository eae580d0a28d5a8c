//! What a directory says about itself when it is opened: Kafka's checkpoints, and how the last life ended.

use std::path::Path;

use crate::partition::finding::Finding;
use crate::storage::checkpoint::OffsetCheckpoint;
use crate::storage::disk::Disk;
use crate::storage::file_name;
use crate::storage::lock::LastBoot;

/// What a directory says about itself when it is opened.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) clean: bool,
    pub(crate) last_boot: LastBoot,
    pub(crate) recovery_points: OffsetCheckpoint,
    pub(crate) log_starts: OffsetCheckpoint,
    /// Below these offsets compaction may have left gaps.
    pub(crate) cleaned: OffsetCheckpoint,
}

impl Surroundings {
    /// Reads what can be derived again if it is damaged; damage is noted and counts as absence.
    pub(crate) fn read(
        disk: &Disk,
        root: &Path,
        clean: bool,
        last_boot: LastBoot,
        findings: &mut Vec<Finding>,
    ) -> Surroundings {
        let mut read = |name: &str| {
            let path = root.join(name);
            OffsetCheckpoint::read(disk, &path).unwrap_or_else(|error| {
                findings.push(Finding::Nuisance { path, reason: error.to_string() });
                OffsetCheckpoint::default()
            })
        };
        Surroundings {
            clean,
            last_boot,
            recovery_points: read(file_name::RECOVERY_POINTS),
            log_starts: read(file_name::LOG_STARTS),
            cleaned: read(file_name::CLEANED),
        }
    }

    pub(crate) fn of_a_new_directory() -> Surroundings {
        Surroundings {
            clean: true,
            last_boot: LastBoot::Same,
            recovery_points: OffsetCheckpoint::default(),
            log_starts: OffsetCheckpoint::default(),
            cleaned: OffsetCheckpoint::default(),
        }
    }
}
