//! Where logs begin, once their beginning was deleted: on record first, then for readers, then on the disk.

use std::sync::Arc;

use crate::error::Error;
use crate::error::Result;
use crate::name::TopicName;
use crate::partition::Partition;
use crate::partition::removing::Patience;
use crate::storage::checkpoint::OffsetCheckpoint;
use crate::storage::file_name;
use crate::storage::removal::Order;
use crate::topic_state::TopicState;
use crate::topics::Topics;
use crate::topics::Writing;

impl Topics {
    /// Deletes what lies below `before` in a partition, −1 standing for its end, and gives where it begins then.
    pub(crate) fn delete_records(
        &self,
        state: &Arc<TopicState>,
        partition: u32,
        before: i64,
    ) -> Result<i64> {
        let writing = self.writing_for("delete records")?;
        state.refuse_if_deleted()?;
        let config = state.log_config();
        if config.key_required && !config.retention.deletes {
            let reason = "its cleanup.policy is compact, without delete";
            return Err(Error::PolicyViolation { topic: state.name.to_string(), reason });
        }
        let open = state.open_partition(partition)?;
        let (start, end) = (open.watermarks().log_start(), open.watermarks().log_end());
        let before = match before {
            HIGH_WATERMARK => end,
            offset if (0..=end).contains(&offset) => offset,
            offset => {
                let topic = state.name.to_string();
                return Err(Error::OffsetOutOfRange { topic, partition, offset, start, end });
            }
        };
        if before > start {
            // What is given up was durable: see the invariant (deleted stays deleted).
            open.wait_durable(before)?;
            self.note_log_starts(writing, &[(&state.name, partition, &open, before)])?;
            open.raise_log_start(before);
        }
        let freed = (|| {
            if before == open.watermarks().log_end() {
                // Nothing is left, so the last segment goes, too.
                open.roll_now()?;
            }
            open.remove_below_start(Patience::Pass, Order::Any)
        })();
        if let Err(error) = freed {
            // They are deleted all the same, and the space comes free with the next attempt, or open.
            self.note_once("removing deleted segments", &error);
        }
        Ok(open.watermarks().log_start())
    }

    /// Looks for what another process appended to a partition, or deleted; does nothing where this one writes.
    pub(crate) fn refresh(&self, open: &Partition) -> Result<()> {
        if open.is_followed() {
            open.refresh()?;
            self.refresh_checkpoints()?;
        }
        Ok(())
    }

    /// Puts on record where logs are about to begin, durably, in one step for all of them.
    pub(super) fn note_log_starts(
        &self,
        writing: &Writing,
        starts: &[(&TopicName, u32, &Arc<Partition>, i64)],
    ) -> Result<()> {
        let mut noted = writing.log_starts.lock();
        // Asked under the lock: once the store is closed, nothing is written any more.
        self.refuse_if_closed()?;
        let mut changed = noted.known().clone();
        for (topic, number, partition, start) in starts {
            // Asked under the lock: a deletion takes the topic off the record under it.
            let known = noted.known().of(topic, *number).unwrap_or(0);
            if !partition.is_deleted() && *start > known {
                changed.set(topic, *number, *start);
            }
        }
        if changed == *noted.known() {
            return Ok(());
        }
        noted.write(&self.disk, &self.root.join(file_name::LOG_STARTS), changed)
    }

    /// Takes a topic off the record: one that is created anew under its name must not inherit it.
    pub(super) fn forget_log_starts(&self, writing: &Writing, name: &TopicName) -> Result<()> {
        let mut noted = writing.log_starts.lock();
        let mut changed = noted.known().clone();
        // A start of it may be on record that was never remembered.
        if !changed.forget(name) && !noted.is_doubtful() {
            return Ok(());
        }
        noted.write(&self.disk, &self.root.join(file_name::LOG_STARTS), changed)
    }

    /// Leaves on record what Kafka does when it closes: starts that lie within a segment, and high watermarks.
    pub(super) fn note_starts_and_ends(
        &self,
        writing: &Writing,
        open: &[(TopicName, u32, Arc<Partition>)],
    ) -> Result<()> {
        let mut noted = writing.log_starts.lock();
        // What is on record of partitions that could not be opened stays there.
        let mut starts = noted.known().clone();
        let mut high_watermarks = OffsetCheckpoint::default();
        for (topic, number, partition) in open {
            let marks = partition.watermarks();
            high_watermarks.set(topic, *number, marks.log_end());
            // Files that could not be removed would make it begin where they do.
            let is_within = marks.log_start() > partition.segments().first().base_offset();
            if is_within || partition.has_files_to_remove() {
                starts.set(topic, *number, marks.log_start());
            } else if starts.of(topic, *number).is_some() {
                // From here on nothing but their absence says that segments were deleted.
                self.disk.sync_directory(partition.directory())?;
                starts.remove(topic, *number);
            }
        }
        noted.write(&self.disk, &self.root.join(file_name::LOG_STARTS), starts)?;
        high_watermarks.write(&self.disk, &self.root.join(file_name::HIGH_WATERMARKS))
    }
}

/// Kafka's name for the end of what consumers can see.
const HIGH_WATERMARK: i64 = -1;
