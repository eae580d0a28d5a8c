//! What a store has to tell about its state: what went wrong, what it takes, what goes next, and who was overtaken.

use std::collections::HashMap;

use crate::coordinator::Coordinator;
use crate::error::Error;
use crate::error::Result;
#[cfg(doc)]
use crate::group_description::GroupPartitionDescription;
use crate::partition::finding::Finding;
use crate::topics::Topics;
use crate::topics::retaining::Named;

/// What a store has to tell about its state.
///
/// ```
/// use ottla::{Record, Store, TopicConfig};
///
/// let store = Store::temporary()?;
/// assert!(store.health().is_good());
/// let topic = store.create_topic("t", TopicConfig::new().retention_bytes(0))?;
/// store.producer().send(&topic, Record::new("v").timestamp(1_000))?;
/// let health = store.health();
/// assert_eq!((health.partitions, health.segments, health.newest_ms), (1, 1, Some(1_000)));
/// // The next look at retention lets go of it.
/// assert_eq!(health.due_bytes, health.bytes);
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// What recovery did and found when the store was opened, and what has failed since.
    pub findings: Vec<Finding>,
    /// How many partitions are open.
    pub partitions: usize,
    /// How many segment files they have.
    pub segments: usize,
    /// The bytes of all batches, internal topics included.
    pub bytes: u64,
    /// The bytes of segments that were deleted and whose space is not free because somebody holds records of them.
    pub held_bytes: u64,
    /// The bytes of files of deleted segments that are kept for `file.delete.delay.ms`.
    pub deleted_bytes: u64,
    /// The time of the oldest record, in milliseconds since 1970, as its batch says; `None` if there is none with a
    /// time.
    pub oldest_ms: Option<i64>,
    /// The greatest time of a record, in milliseconds since 1970.
    pub newest_ms: Option<i64>,
    /// The bytes that retention would let go of if it were applied now.
    pub due_bytes: u64,
    /// How far the wall clock has leapt ahead, in milliseconds, if retention by time does not believe it yet; else 0.
    pub clock_ahead_ms: i64,
    /// What is counted against [`bytes_max`](crate::StoreBuilder::bytes_max): batches, and space set aside for those
    /// that are appended to; 0 where there is no bound.
    pub budget_used: u64,
    /// The bound, if there is one.
    pub budget_bytes: Option<u64>,
    /// Groups of which records were deleted that they had yet to read.
    pub overtaken: Vec<OvertakenGroup>,
}

/// A group that committed an offset which lies below the log's start now. Its member that begins there gets its
/// [`OffsetReset`](crate::OffsetReset).
///
/// See also [`GroupPartitionDescription::deleted_unread`].
///
/// ```
/// use ottla::{Record, Store, TopicConfig};
///
/// let store = Store::temporary()?;
/// let topic = store.create_topic("t", TopicConfig::new())?;
/// for value in ["a", "b", "c"] {
///     store.producer().send(&topic, Record::new(value))?;
/// }
/// store.group("billing")?.alter_offsets([(topic.partition(0)?, 1)])?;
/// assert!(store.health().overtaken.is_empty());
/// topic.partition(0)?.delete_records(2)?;
/// let overtaken = &store.health().overtaken[0];
/// assert_eq!((&*overtaken.group, overtaken.committed, overtaken.log_start), ("billing", 1, 2));
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OvertakenGroup {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// What it committed: the next offset that it is to read.
    pub committed: i64,
    /// The first offset that can be read.
    pub log_start: i64,
}

impl Health {
    /// Tells whether there is nothing to report but torn tails that were cut, as after any crash.
    pub fn is_good(&self) -> bool {
        self.findings.iter().all(|finding| matches!(finding, Finding::Cut { .. }))
    }

    /// Looks at everything. What cannot be looked at is among the findings.
    pub(crate) fn of(topics: &Topics, coordinator: &Coordinator) -> Health {
        let limit = topics.budget().limit();
        let mut health = Health {
            findings: topics.findings(),
            budget_used: topics.budget().used(),
            budget_bytes: limit.map(|limit| limit.bytes_max),
            ..Health::default()
        };
        let (now_ms, ahead_ms) = topics.retention_ms();
        health.clock_ahead_ms = ahead_ms;
        let open = topics.all_open();
        for named in &open {
            if let Err(error) = health.add(named, now_ms) {
                health.note(topics, "looking at a partition", &error);
            }
        }
        match overtaken(&open, coordinator) {
            Ok(overtaken) => health.overtaken = overtaken,
            Err(Error::Closed) => {}
            Err(error) => health.note(topics, "looking at groups", &error),
        }
        health
    }

    fn add(&mut self, (_, _, open): &Named, now_ms: i64) -> Result<()> {
        let look = open.look_at_usage(now_ms)?;
        self.partitions += 1;
        self.segments += look.segments;
        self.bytes += look.len;
        self.held_bytes += open.held_len();
        self.deleted_bytes += open.deleted_len()?;
        self.due_bytes += look.outlook.due_bytes;
        self.newest_ms = self.newest_ms.max(look.newest_ms);
        let oldest = [self.oldest_ms, look.oldest_ms];
        self.oldest_ms = oldest.into_iter().flatten().min();
        Ok(())
    }

    fn note(&mut self, topics: &Topics, what: &str, error: &Error) {
        let reason = format!("{what}: {error}");
        self.findings.push(Finding::Nuisance { path: topics.root().to_path_buf(), reason });
    }
}

/// Gives the groups that were overtaken, by id, topic and partition.
fn overtaken(open: &[Named], coordinator: &Coordinator) -> Result<Vec<OvertakenGroup>> {
    let starts: HashMap<_, _> = open
        .iter()
        .map(|(topic, number, open)| ((topic.clone(), *number), open.watermarks().log_start()))
        .collect();
    let mut overtaken = Vec::new();
    for (group, offsets) in coordinator.committed_offsets()? {
        for (topic, partition, committed) in offsets.iter() {
            let committed = committed.noted.offset();
            let start = starts.get(&(topic.clone(), partition));
            if let Some(log_start) = start.copied().filter(|start| committed < *start) {
                let (group, topic) = (group.to_string(), topic.to_string());
                overtaken.push(OvertakenGroup { group, topic, partition, committed, log_start });
            }
        }
    }
    overtaken
        .sort_by(|a, b| (&a.group, &a.topic, a.partition).cmp(&(&b.group, &b.topic, b.partition)));
    Ok(overtaken)
}
