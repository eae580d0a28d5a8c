//! Which reign began at which offset.
//!
//! One process writes, so an epoch counts unclean openings: it is raised before the first append after
//! each, which lets a batch of an earlier life be told from one of this.

use std::path::PathBuf;

use crate::error::Result;
use crate::storage::checkpoint;
use crate::storage::disk::Disk;

/// The `leader-epoch-checkpoint` of one partition, and the epoch in force.
#[derive(Clone, Debug)]
pub(crate) struct LeaderEpochs {
    disk: Disk,
    path: PathBuf,
    entries: Vec<(i32, i64)>,
}

impl LeaderEpochs {
    /// Reads the file; one that is missing has no entries. An unreadable one counts as missing where
    /// the caller rebuilds it from the log.
    pub(crate) fn read(disk: &Disk, path: PathBuf) -> Result<LeaderEpochs> {
        let entries = checkpoint::read_epochs(disk, &path)?;
        Ok(LeaderEpochs {
            disk: disk.clone(),
            path,
            entries,
        })
    }

    pub(crate) fn empty(disk: &Disk, path: PathBuf) -> LeaderEpochs {
        LeaderEpochs {
            disk: disk.clone(),
            path,
            entries: Vec::new(),
        }
    }

    /// Gives the epoch that appends are stamped with; −1 before the first was assigned.
    pub(crate) fn latest(&self) -> i32 {
        self.entries.last().map_or(-1, |(epoch, _)| *epoch)
    }

    /// Begins a new epoch at `start`, durably. Epochs in which nothing was appended vanish.
    pub(crate) fn raise(&mut self, start: i64) -> Result<()> {
        let raised = self.latest() + 1;
        let mut entries = self.entries.clone();
        entries.retain(|(_, begun)| *begun < start);
        entries.push((raised, start));
        checkpoint::write_epochs(&self.disk, &self.path, &entries)?;
        self.entries = entries;
        Ok(())
    }

    /// Notes the epoch of a batch met by a scan; does not touch the file.
    pub(crate) fn observe(&mut self, epoch: i32, base_offset: i64) {
        if epoch > self.latest() {
            self.entries.push((epoch, base_offset));
        }
    }

    /// Forgets what begins at or behind the log's end, and what ended before its start; does not touch
    /// the file.
    pub(crate) fn clip(&mut self, log_start: i64, log_end: i64) {
        self.entries
            .retain(|(_, start)| *start < log_end || *start == 0);
        let first = self
            .entries
            .partition_point(|(_, start)| *start <= log_start);
        if first > 0 {
            self.entries.drain(..first - 1);
            self.entries[0].1 = self.entries[0].1.max(log_start);
        }
    }

    pub(crate) fn write(&self) -> Result<()> {
        checkpoint::write_epochs(&self.disk, &self.path, &self.entries)
    }

    pub(crate) fn entries(&self) -> &[(i32, i64)] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_raised_durably_and_empty_ones_vanish() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leader-epoch-checkpoint");
        let mut epochs = LeaderEpochs::read(&Disk::default(), path.clone()).unwrap();
        assert_eq!(epochs.latest(), -1);
        epochs.raise(0).unwrap();
        epochs.raise(10).unwrap();
        epochs.raise(10).unwrap();
        let read = LeaderEpochs::read(&Disk::default(), path).unwrap();
        assert_eq!(read.entries(), [(0, 0), (2, 10)]);
        assert_eq!(read.latest(), 2);
    }

    #[test]
    fn clipping_keeps_what_covers_the_log() {
        let mut epochs = LeaderEpochs::empty(&Disk::default(), PathBuf::new());
        for (epoch, start) in [(0, 0), (2, 10), (3, 20), (7, 30)] {
            epochs.observe(epoch, start);
        }
        epochs.clip(15, 30);
        assert_eq!(epochs.entries(), [(2, 15), (3, 20)]);
    }
}
