//! What a group has committed of a partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Error;
use crate::error::Result;
use crate::name::TopicName;

/// How far a group has come in a partition: the offset of the next record it is to read, and what it noted beside.
///
/// ```
/// use ottla::OffsetAndMetadata;
/// let noted = OffsetAndMetadata::new(42).with_metadata("file 7, line 3");
/// assert_eq!((noted.offset(), noted.metadata()), (42, "file 7, line 3"));
/// assert_eq!(OffsetAndMetadata::from(42).metadata(), "");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetAndMetadata {
    offset: i64,
    leader_epoch: i32,
    metadata: Arc<str>,
}

impl OffsetAndMetadata {
    /// Notes an offset: that of the next record to be read, which is one behind the last that is done with.
    pub fn new(offset: i64) -> OffsetAndMetadata {
        OffsetAndMetadata { offset, leader_epoch: -1, metadata: "".into() }
    }

    /// Notes a text beside the offset; at most 4,096 bytes are accepted (`offset.metadata.max.bytes`).
    #[must_use]
    pub fn with_metadata(mut self, metadata: &str) -> OffsetAndMetadata {
        self.metadata = metadata.into();
        self
    }

    /// Notes the leader epoch of the last record that is done with; −1 is none.
    #[must_use]
    pub fn with_leader_epoch(mut self, leader_epoch: i32) -> OffsetAndMetadata {
        self.leader_epoch = leader_epoch.max(-1);
        self
    }

    /// Gives the offset of the next record to be read.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Gives the text; empty if there is none.
    pub fn metadata(&self) -> &str {
        &self.metadata
    }

    /// Gives the leader epoch of the last record that is done with; −1 if none is on record.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// Refuses what Kafka would refuse.
    pub(crate) fn check(&self) -> Result<()> {
        if self.offset < 0 {
            return Err(Error::InvalidArgument { argument: "offset", reason: "it is negative" });
        }
        if self.metadata.len() > METADATA_LEN_MAX {
            let (len, limit) = (self.metadata.len(), METADATA_LEN_MAX);
            return Err(Error::MetadataTooLarge { len, limit });
        }
        Ok(())
    }
}

impl From<i64> for OffsetAndMetadata {
    fn from(offset: i64) -> OffsetAndMetadata {
        OffsetAndMetadata::new(offset)
    }
}

/// Kafka's `offset.metadata.max.bytes`.
const METADATA_LEN_MAX: usize = 4096;

/// An entry on record.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    pub(crate) noted: OffsetAndMetadata,
    pub(crate) timestamp_ms: i64,
}

/// All that one group has committed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offsets {
    entries: BTreeMap<(TopicName, u32), Committed>,
}

impl Offsets {
    pub(crate) fn set(&mut self, topic: TopicName, partition: u32, committed: Committed) {
        self.entries.insert((topic, partition), committed);
    }

    pub(crate) fn remove(&mut self, topic: &TopicName, partition: u32) {
        self.entries.remove(&(topic.clone(), partition));
    }

    pub(crate) fn get(&self, topic: &TopicName, partition: u32) -> Option<&Committed> {
        self.entries.get(&(topic.clone(), partition))
    }

    /// Tells whether anything is on record of a topic.
    pub(crate) fn knows(&self, topic: &TopicName) -> bool {
        let range = (topic.clone(), 0)..=(topic.clone(), u32::MAX);
        self.entries.range(range).next().is_some()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TopicName, u32, &Committed)> {
        self.entries.iter().map(|((topic, partition), committed)| (topic, *partition, committed))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
