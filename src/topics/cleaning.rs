//! Compaction of a topic's partitions, and how far each of them was compacted.

use std::sync::Arc;

use crate::error::Result;
use crate::name::TopicName;
use crate::partition::compaction::Compacted;
use crate::partition::compaction::Compaction;
use crate::partition::compaction::WhyLeft;
use crate::partition::recovery::Finding;
use crate::storage::file_name;
use crate::topic_state::TopicState;
use crate::topics::Topics;
use crate::topics::Writing;

impl Topics {
    /// Compacts what is below the last segment of a partition, and puts on record how far that went.
    ///
    /// Where it begins to look for keys is what the record says, whatever `how` does. What was left as it is shows
    /// in the findings.
    ///
    /// # Errors
    ///
    /// * As [`Partition::compact`](crate::partition::Partition::compact).
    /// * What kept the record from being written: the next compaction does some of this one's work again.
    pub(crate) fn compact(
        &self,
        state: &Arc<TopicState>,
        partition: u32,
        how: &Compaction,
    ) -> Result<Compacted> {
        let writing = self.writing_for("compact a topic")?;
        state.refuse_if_deleted()?;
        let open = state.open_partition(partition)?;
        let recorded = writing.cleaned.lock().of(&state.name, partition);
        let how = Compaction { first_dirty: recorded.unwrap_or(0), ..*how };
        let compacted = open.compact(&how)?;
        for left in &compacted.left {
            let path = left.path.clone();
            self.note_finding_once(match left.why {
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
            });
        }
        if let Some(error) = &compacted.unremoved {
            self.note_once("removing files that were compacted", error);
        }
        let mut cleaned = writing.cleaned.lock();
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
        let mut cleaned = writing.cleaned.lock();
        if cleaned.forget(name) {
            cleaned.write(&self.disk, &self.root.join(file_name::CLEANED))?;
        }
        Ok(())
    }
}
