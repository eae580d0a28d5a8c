//! How far partitions are durable, put on record: what recovery need not scan again.

use std::sync::Arc;

use crate::error::Result;
use crate::name::TopicName;
use crate::partition::Partition;
use crate::storage::file_name;
use crate::storage::file_name::RootDirectory;
use crate::storage::planted::Planted;
use crate::topics::Topics;

impl Topics {
    /// Puts on record how far the given partitions are durable.
    pub(crate) fn note_recovery_points(
        &self,
        partitions: &[(TopicName, u32, Arc<Partition>)],
    ) -> Result<()> {
        let writing = self.writing()?;
        let mut points = writing.recovery_points.lock();
        for (topic, number, partition) in partitions {
            // Asked under the lock: a deletion takes its points off the record under it.
            if partition.is_deleted() {
                continue;
            }
            let point = match self.disk.has(Planted::PointAhead) {
                true => partition.watermarks().log_end(),
                false => partition.recovery_point(),
            };
            points.set(topic, *number, point);
        }
        points.write(&self.disk, &self.root.join(file_name::RECOVERY_POINTS))
    }

    /// Looks up which topic and number a partition has, for those still listed.
    pub(crate) fn named(&self, partition: &Arc<Partition>) -> Option<(TopicName, u32)> {
        let name = partition.directory().file_name()?.to_str()?;
        match RootDirectory::parse(name) {
            RootDirectory::Partition(topic, number) => {
                self.list.read().contains_key(&topic).then_some((topic, number))
            }
            _ => None,
        }
    }
}
