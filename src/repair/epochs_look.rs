//! Whether batches and `leader-epoch-checkpoint` agree on who wrote what, and which of them is believed.
//!
//! Nothing protects a batch's epoch from a flipped bit, so where a few batches differ from the file, they are wrong.
//! Where most do, it is the file.

use std::path::PathBuf;

use crate::error::Error;
use crate::error::Result;
use crate::storage::checkpoint;
use crate::storage::disk::Disk;

/// The file of a partition, and what its batches say.
#[derive(Debug)]
pub(crate) struct EpochsLook {
    pub(crate) path: PathBuf,
    /// What the file says; nothing if it is missing or damaged.
    pub(crate) entries: Vec<(i32, i64)>,
    /// What is wrong with the file.
    pub(crate) damage: Option<&'static str>,
    observed: Vec<(i32, i64)>,
    latest: i32,
    batch_count: u64,
    wrong_count: u64,
}

impl EpochsLook {
    pub(crate) fn at(disk: &Disk, path: PathBuf) -> Result<EpochsLook> {
        let (entries, damage) = match checkpoint::read_epochs(disk, &path) {
            Ok(entries) => (entries, None),
            Err(Error::Corrupt { reason, .. }) => (Vec::new(), Some(reason)),
            Err(other) => return Err(other),
        };
        Ok(EpochsLook {
            path,
            entries,
            damage,
            observed: Vec::new(),
            latest: -1,
            batch_count: 0,
            wrong_count: 0,
        })
    }

    /// Notes a batch; batches come in order. Gives the epoch it should have, if that is another.
    pub(crate) fn judge(&mut self, epoch: i32, base_offset: i64) -> Option<i32> {
        if epoch < 0 {
            return None;
        }
        if self.observed.last().is_none_or(|(last, _)| epoch > *last) {
            self.observed.push((epoch, base_offset));
        }
        let after = self.entries.partition_point(|(_, start)| *start <= base_offset);
        let of_offset = after.checked_sub(1).map(|index| self.entries[index].0);
        let wanted = of_offset.unwrap_or(epoch.max(self.latest));
        self.latest = self.latest.max(wanted);
        self.batch_count += 1;
        self.wrong_count += u64::from(wanted != epoch);
        (wanted != epoch).then_some(wanted)
    }

    /// Tells whether the batches are believed, and not the file.
    pub(crate) fn file_is_wrong(&self) -> bool {
        self.damage.is_some()
            || (!self.entries.is_empty() && self.wrong_count * 2 > self.batch_count)
    }

    /// Gives what the file is to say of a log that ends at `end`, and why; `None` if it says so.
    pub(crate) fn wanted(&self, end: i64) -> Option<(Vec<(i32, i64)>, &'static str)> {
        if self.file_is_wrong() {
            let reason = self.damage.unwrap_or("most batches say otherwise");
            return Some((self.observed.clone(), reason));
        }
        let count = self.entries.partition_point(|(_, start)| *start <= end);
        (count < self.entries.len())
            .then(|| (self.entries[..count].to_vec(), "an epoch begins behind the log's end"))
    }
}
