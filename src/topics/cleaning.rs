//! Compaction of topics, and how far each partition was compacted.

use std::sync::Arc;

use crate::error::Error;
use crate::error::Result;
use crate::name::TopicName;
use crate::partition::Partition;
use crate::partition::cleanable::Cleanable;
use crate::partition::compaction::Compacted;
use crate::partition::compaction_plan::Compaction;
use crate::partition::compaction_progress::CompactionProgress;
use crate::partition::compaction_survey::Left;
use crate::partition::compaction_survey::WhyLeft;
use crate::partition::finding::Finding;
use crate::storage::file_name;
use crate::topic_state::TopicState;
use crate::topics::Topics;
use crate::topics::Writing;

impl Topics {
    /// Compacts partitions of a topic as it is configured, as far as records were appended before and are old enough;
    /// what was left as it is.
    ///
    /// # Errors
    ///
    /// * [`Error::NotCompacted`] unless `cleanup.policy` has `compact` in it.
    /// * The first that a partition had; the others were compacted.
    pub(crate) fn compact_now(
        &self,
        state: &Arc<TopicState>,
        partitions: impl IntoIterator<Item = u32>,
        progress: &CompactionProgress,
    ) -> Result<Vec<Finding>> {
        self.writing_for("compact a topic")?;
        state.refuse_if_deleted()?;
        let how = self.compaction_of(state)?.awaited();
        let (mut left, mut first_error) = (Vec::new(), None);
        for number in partitions {
            let compacted = state.open_partition(number).and_then(|open| {
                open.roll_now()?;
                self.compact(state, number, &how, progress)
            });
            match compacted {
                Ok(compacted) => left.extend(compacted.left.iter().map(finding)),
                Err(error @ (Error::Closed | Error::TopicDeleted { .. })) => return Err(error),
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        first_error.map_or(Ok(left), Err)
    }

    /// Gives how a topic is to be compacted now, by its configuration.
    ///
    /// # Errors
    ///
    /// * [`Error::NotCompacted`].
    pub(crate) fn compaction_of(&self, state: &TopicState) -> Result<Compaction> {
        let config = state.log_config();
        if config.compaction.is_none() {
            return Err(Error::NotCompacted { topic: state.name.to_string() });
        }
        let limit = self.writing.as_ref().map(|writing| writing.cleaning.key_map_bytes_max);
        let how = Compaction::of(&config, self.clock().now_ms());
        Ok(Compaction { key_map_bytes_max: limit.unwrap_or(how.key_map_bytes_max), ..how })
    }

    /// Looks how much there is to compact in a partition; `None` if its topic is not compacted.
    ///
    /// # Errors
    ///
    /// * As [`Partition::cleanable`].
    pub(crate) fn cleanable(
        &self,
        state: &TopicState,
        number: u32,
        partition: &Partition,
        attempted: i64,
    ) -> Result<Option<Cleanable>> {
        let writing = self.writing()?;
        let Some(config) = state.log_config().compaction else {
            return Ok(None);
        };
        let recorded = writing.cleaning.record.lock().of(&state.name, number);
        let first_dirty = recorded.unwrap_or(0).max(attempted);
        partition.cleanable(first_dirty, &config, self.clock().now_ms()).map(Some)
    }

    /// Tells whether topics are to be compacted when nobody asks.
    pub(crate) fn cleans_in_background(&self) -> bool {
        // A disk with a script counts effects: nothing may happen in the background.
        #[cfg(test)]
        if self.disk.script.is_some() {
            return false;
        }
        self.writing.is_some()
    }

    /// Compacts what is below the last segment of a partition, and puts on record how far that went.
    ///
    /// Where it begins to look for keys is what the record says, whatever `how` does. What was left as it is shows
    /// in the findings.
    ///
    /// # Errors
    ///
    /// * As [`Partition::compact`].
    /// * What kept the record from being written: the next compaction does some of this one's work again.
    pub(crate) fn compact(
        &self,
        state: &Arc<TopicState>,
        partition: u32,
        how: &Compaction,
        progress: &CompactionProgress,
    ) -> Result<Compacted> {
        let writing = self.writing_for("compact a topic")?;
        state.refuse_if_deleted()?;
        let open = state.open_partition(partition)?;
        let recorded = writing.cleaning.record.lock().of(&state.name, partition);
        let how = Compaction { first_dirty: recorded.unwrap_or(0), ..*how };
        let compacted = open.compact(&how, progress, &writing.cleaning.throttle)?;
        for left in &compacted.left {
            self.note_finding_once(finding(left));
        }
        if let Some(error) = &compacted.unremoved {
            self.note_once("removing files that were compacted", error);
        }
        let mut cleaned = writing.cleaning.record.lock();
        // Asked under the lock: a deletion takes the topic off the record under it. Once the store is closed,
        // nothing is written any more.
        let is_over = open.is_deleted() || self.refuse_if_closed().is_err();
        if !is_over && recorded != Some(compacted.first_dirty) {
            cleaned.set(&state.name, partition, compacted.first_dirty);
            cleaned.write(&self.disk, &self.root.join(file_name::CLEANED))?;
        }
        Ok(compacted)
    }

    /// Takes a topic off the record: one that is created anew under its name must not inherit it.
    pub(super) fn forget_cleaned(&self, writing: &Writing, name: &TopicName) -> Result<()> {
        let mut cleaned = writing.cleaning.record.lock();
        if cleaned.forget(name) {
            cleaned.write(&self.disk, &self.root.join(file_name::CLEANED))?;
        }
        Ok(())
    }
}

/// Gives what a store's health is to say of a segment that was left.
fn finding(left: &Left) -> Finding {
    let path = left.path.clone();
    match left.why {
        WhyLeft::Compressed(codec) => {
            let reason = format!("was not compacted: it is compressed with {codec}");
            Finding::Nuisance { path, reason }
        }
        WhyLeft::TooLarge => {
            let reason = "was not compacted: it would be too large".to_owned();
            Finding::Nuisance { path, reason }
        }
        WhyLeft::Damaged(reason) => {
            Finding::Damage { path, position: left.position, reason, resume: None }
        }
    }
}
