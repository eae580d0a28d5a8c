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
    /// There was nothing to read: the batches tell.
    is_rebuilt: bool,
    /// The entries differ from the file's.
    is_changed: bool,
}

impl LeaderEpochs {
    /// Reads the file; one that is missing has no entries. An unreadable one counts as missing where
    /// the caller rebuilds it from the log.
    pub(crate) fn read(disk: &Disk, path: PathBuf) -> Result<LeaderEpochs> {
        let entries = checkpoint::read_epochs(disk, &path)?;
        let is_rebuilt = entries.is_empty();
        Ok(LeaderEpochs { disk: disk.clone(), path, entries, is_rebuilt, is_changed: false })
    }

    pub(crate) fn empty(disk: &Disk, path: PathBuf) -> LeaderEpochs {
        let entries = Vec::new();
        LeaderEpochs { disk: disk.clone(), path, entries, is_rebuilt: true, is_changed: true }
    }

    /// Gives the epoch that appends are stamped with; −1 before the first was assigned.
    pub(crate) fn latest(&self) -> i32 {
        self.entries.last().map_or(-1, |(epoch, _)| *epoch)
    }

    /// Begins a new epoch at `start`, durably. Epochs in which nothing was appended vanish.
    pub(crate) fn raise(&mut self, start: i64) -> Result<()> {
        // An epoch that cannot be raised any more is kept: appends are told apart by offset all the same.
        let raised = self.latest().saturating_add(1);
        let mut entries = self.entries.clone();
        entries.retain(|(_, begun)| *begun < start);
        entries.push((raised, start));
        checkpoint::write_epochs(&self.disk, &self.path, &entries)?;
        self.entries = entries;
        self.is_changed = false;
        Ok(())
    }

    /// Notes the epoch of a batch met by a scan, where the file was missing or unreadable; does not touch
    /// it. Where there is a file it is believed: nothing protects a batch's epoch from a flipped bit.
    pub(crate) fn observe(&mut self, epoch: i32, base_offset: i64) {
        if self.is_rebuilt && epoch > self.latest() {
            self.entries.push((epoch, base_offset));
            self.is_changed = true;
        }
    }

    /// Forgets what begins at or behind the log's end, and what ended before its start; does not touch
    /// the file.
    pub(crate) fn clip(&mut self, log_start: i64, log_end: i64) {
        let before = self.entries.clone();
        // What a log without records begins with is kept: batches of that epoch may lie before its start.
        self.entries.retain(|(_, start)| *start < log_end || *start <= log_start);
        let first = self.entries.partition_point(|(_, start)| *start <= log_start);
        if first > 0 {
            self.entries.drain(..first - 1);
            self.entries[0].1 = self.entries[0].1.max(log_start);
        }
        self.is_changed |= self.entries != before;
    }

    /// Writes the file if it would say something new.
    pub(crate) fn write(&mut self) -> Result<()> {
        if self.is_changed {
            checkpoint::write_epochs(&self.disk, &self.path, &self.entries)?;
            self.is_changed = false;
        }
        Ok(())
    }

    #[cfg(test)]
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

    /// A log whose records had all been deleted forgot its epoch with the second crash after that, and began with 0
    /// again, behind batches of later epochs in the same segment.
    #[test]
    fn a_log_without_records_does_not_forget_its_epoch() {
        let mut epochs = LeaderEpochs::empty(&Disk::default(), PathBuf::new());
        for (epoch, start) in [(0, 0), (2, 10)] {
            epochs.observe(epoch, start);
        }
        for _ in 0..3 {
            epochs.clip(20, 20);
            assert_eq!(epochs.entries(), [(2, 20)]);
        }
    }
}
