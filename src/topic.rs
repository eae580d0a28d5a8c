//! The handles: a topic, one of its partitions, and what they say about themselves.
//!
//! A handle is cheap to clone, may go to any thread, and keeps the store open as long as it lives.

use std::any::Any;
use std::cmp::Ordering;
use std::fmt;
use std::hash::Hash;
use std::hash::Hasher;
use std::ops::Range;
use std::sync::Arc;
use std::sync::OnceLock;

use crate::config::ConfigEntry;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::partition::Partition;
use crate::partition::compaction_progress::CompactionCounts;
use crate::partition::compaction_progress::CompactionProgress;
use crate::partition::finding::Finding;
use crate::partition::retention::RetentionOutlook;
use crate::storage::catalog::TopicId;
use crate::topic_state::Slot;
use crate::topic_state::TopicState;
use crate::topics::Topics;

/// A topic, open. Cloning it is cheap; it keeps the store open.
///
/// ```
/// use ottla::{Store, TopicConfig};
///
/// let store = Store::temporary()?;
/// let orders = store.create_topic("orders", TopicConfig::new().partitions(3))?;
/// assert_eq!((orders.name(), orders.partition_count()), ("orders", 3));
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone)]
pub struct Topic {
    pub(crate) state: Arc<TopicState>,
    topics: Arc<Topics>,
    /// Whoever closes the directory does so when the last handle is gone.
    _keep_open: KeepOpen,
}

/// One partition of a topic.
///
/// ```
/// let store = ottla::Store::temporary()?;
/// let orders = store.create_topic("orders", ottla::TopicConfig::new().partitions(2))?;
/// assert_eq!(orders.partition(1)?.to_string(), "orders-1");
/// assert!(orders.partition(2).is_err());
/// # Ok::<(), ottla::Error>(())
/// ```
pub struct TopicPartition {
    topic: Topic,
    partition: u32,
    /// Made by the first read of a single record.
    reading: OnceLock<Reading>,
}

/// What each read of a single record through one handle needs.
struct Reading {
    /// Counted by itself: every record that is kept holds it.
    source: Arc<TopicPartition>,
    open: Arc<Partition>,
}

/// What a topic is like: its id, its configuration, the state of its partitions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TopicDescription {
    /// The topic's name.
    pub name: String,
    /// Its id, the same in every partition's `partition.metadata`.
    pub id: TopicId,
    /// Every property in force.
    pub configs: Vec<ConfigEntry>,
    /// One entry for each partition, in order.
    pub partitions: Vec<PartitionDescription>,
}

/// The state of one partition. Offsets count records; ends are exclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionDescription {
    /// Its number.
    pub partition: u32,
    /// The first offset that can be read.
    pub log_start: i64,
    /// The offset the next record will get.
    pub log_end: i64,
    /// Everything below is on stable storage.
    pub durable_end: i64,
    /// How many segment files there are.
    pub segment_count: usize,
    /// The bytes of all batches.
    pub len: u64,
    /// The bytes of deleted segments whose space is not free because somebody holds records of them.
    pub held_len: u64,
    /// The bytes of files of deleted segments that are kept for `file.delete.delay.ms`.
    pub deleted_len: u64,
    /// The bytes that the files of its directory take on the disk: batches, indexes, space reserved ahead, and files that
    /// are about to be removed.
    pub allocated_len: u64,
    /// The time of the first record, in milliseconds since 1970, as its batch says; `None` if there is none with a time.
    pub oldest_ms: Option<i64>,
    /// The greatest time of a record, in milliseconds since 1970.
    pub newest_ms: Option<i64>,
    /// What retention lets go of next.
    pub retention: RetentionOutlook,
    /// Why the partition takes no appends, or cannot be read at all.
    pub failure: Option<String>,
}

/// What [`Topic::compact`] came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionReport {
    /// How much was read, written, kept and dropped, in all partitions together.
    pub counts: CompactionCounts,
    /// What was left as it is: segments that are compressed with a codec that this build does not have, and damage,
    /// behind which nothing is compacted. [`Store::health`](crate::Store::health) tells it, too.
    pub left: Vec<Finding>,
}

/// A record's offset and its timestamp in milliseconds since 1970.
pub type OffsetAndTimestamp = (i64, i64);

/// Keeps the store open for as long as a handle lives.
pub(crate) type KeepOpen = Arc<dyn Any + Send + Sync>;

impl Topic {
    pub(crate) fn new(state: Arc<TopicState>, topics: Arc<Topics>, keep_open: KeepOpen) -> Topic {
        Topic { state, topics, _keep_open: keep_open }
    }

    /// Gives the topic's name.
    pub fn name(&self) -> &str {
        self.state.name.as_str()
    }

    /// Gives the topic's id.
    pub fn id(&self) -> TopicId {
        self.state.id
    }

    /// Gives the number of partitions.
    pub fn partition_count(&self) -> u32 {
        self.state.partition_count()
    }

    /// Gives one partition.
    ///
    /// # Errors
    ///
    /// * [`Error::UnknownPartition`] if there is none of this number.
    pub fn partition(&self, partition: u32) -> Result<TopicPartition> {
        self.state.slot(partition)?;
        Ok(TopicPartition::of(self.clone(), partition))
    }

    /// Gives all partitions, in order.
    pub fn partitions(&self) -> Vec<TopicPartition> {
        (0..self.partition_count())
            .map(|partition| TopicPartition::of(self.clone(), partition))
            .collect()
    }

    /// Describes the topic as it is now.
    ///
    /// # Errors
    ///
    /// * [`Error::TopicDeleted`]; [`Error::Io`] if a segment's size cannot be found out.
    pub fn describe(&self) -> Result<TopicDescription> {
        self.state.refuse_if_deleted()?;
        let partitions = self.state.partitions.read().clone();
        let (now_ms, _) = self.topics.retention_ms();
        let describe = |(number, slot): (usize, &Slot)| -> Result<PartitionDescription> {
            let partition = number as u32;
            match slot {
                Slot::Open(open) => {
                    self.topics.refresh(open)?;
                    let marks = open.watermarks();
                    let usage = open.look_at_usage(now_ms)?;
                    Ok(PartitionDescription {
                        partition,
                        log_start: marks.log_start(),
                        durable_end: marks.durable_end(),
                        log_end: marks.log_end(),
                        segment_count: usage.segments,
                        len: usage.len,
                        held_len: open.held_len(),
                        deleted_len: open.deleted_len()?,
                        allocated_len: open.allocated_len()?,
                        oldest_ms: usage.oldest_ms,
                        newest_ms: usage.newest_ms,
                        retention: usage.outlook,
                        failure: open.latch_reason().map(ToString::to_string),
                    })
                }
                Slot::Unavailable(_, reason) => Ok(PartitionDescription {
                    partition,
                    log_start: 0,
                    log_end: 0,
                    durable_end: 0,
                    segment_count: 0,
                    len: 0,
                    held_len: 0,
                    deleted_len: 0,
                    allocated_len: 0,
                    oldest_ms: None,
                    newest_ms: None,
                    retention: RetentionOutlook::default(),
                    failure: Some(reason.to_string()),
                }),
            }
        };
        Ok(TopicDescription {
            name: self.name().to_owned(),
            id: self.id(),
            configs: self.state.settings.read().overrides.entries(),
            partitions: partitions.iter().enumerate().map(describe).collect::<Result<_>>()?,
        })
    }

    /// Changes one property, or with `None` returns it to its default. Durable once this returns; what
    /// shapes segments applies from the next roll.
    ///
    /// # Errors
    ///
    /// * [`Error::UnknownConfig`], [`Error::InvalidConfig`]: nothing was changed.
    /// * [`Error::ReadOnly`], [`Error::TopicDeleted`], [`Error::OutOfSpace`], [`Error::Io`]: likewise.
    ///
    /// ```
    /// let store = ottla::Store::temporary()?;
    /// let topic = store.create_topic("t", ottla::TopicConfig::new())?;
    /// topic.alter("segment.bytes", Some("1048576"))?;
    /// assert!(topic.alter("segment.bytes", Some("-1")).is_err());
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn alter(&self, key: &str, value: Option<&str>) -> Result<()> {
        self.topics.alter(&self.state, &[(key, value)])
    }

    /// Changes several properties at once: all of them, or on an error none.
    ///
    /// # Errors
    ///
    /// * As [`alter`](Self::alter).
    pub fn alter_all(&self, changes: &[(&str, Option<&str>)]) -> Result<()> {
        self.topics.alter(&self.state, changes)
    }

    /// Raises the number of partitions to `count`. New records with a key may go to another partition
    /// than older ones with the same key.
    ///
    /// # Errors
    ///
    /// * [`Error::InvalidPartitions`] if there are that many already; nothing was changed.
    /// * [`Error::InternalTopic`] if groups or transactions keep their papers in it, which would not be found again.
    /// * [`Error::ReadOnly`], [`Error::TopicDeleted`], [`Error::OutOfSpace`], [`Error::Io`]: likewise.
    pub fn add_partitions(&self, count: u32) -> Result<()> {
        self.topics.add_partitions(&self.state, count)
    }

    /// Compacts all partitions now: of every key the latest record stays.
    ///
    /// A topic with `cleanup.policy=compact` is compacted in the background when enough of it is out of date
    /// (`min.cleanable.dirty.ratio`); this does it regardless, with everything that was appended before, except what
    /// `min.compaction.lag.ms` protects. Records that stay keep their offsets, timestamps and order. A tombstone (a
    /// record with a null value) stays for `delete.retention.ms` behind the compaction that first meets it.
    ///
    /// Blocks while it works, and while another compaction of the partition does; as fast as the store's
    /// [limit](crate::StoreBuilder::cleaner_io_max_bytes_per_second) allows. Appends and reads go on meanwhile, and
    /// whoever holds records keeps them. What it came to is durable, and safe from a crash at any point. While it looks
    /// for keys in 8 MiB or more of what is new, a thread of its own notes them, if there is a second processor; the
    /// background does without.
    ///
    /// # Errors
    ///
    /// * [`Error::NotCompacted`] if the topic's `cleanup.policy` does not have `compact` in it;
    ///   [`Error::ReadOnly`], [`Error::TopicDeleted`]: nothing was changed.
    /// * [`Error::Closed`] if the store is closed meanwhile, [`Error::OutOfSpace`], [`Error::Io`]: what was not
    ///   compacted yet is as it was, and the call may be repeated. The other partitions were compacted.
    /// * [`Error::Latched`], [`Error::Unavailable`]: the partition was not; the others were.
    ///
    /// ```
    /// use ottla::{Record, Store, TopicConfig};
    ///
    /// let store = Store::temporary()?;
    /// let topic = store.create_topic("t", TopicConfig::new().set("cleanup.policy", "compact")?)?;
    /// for value in ["first", "second", "third"] {
    ///     store.producer().send(&topic, Record::new(value).key("k"))?;
    /// }
    /// let counts = topic.compact()?.counts;
    /// assert_eq!((counts.records_kept, counts.records_dropped), (1, 2));
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn compact(&self) -> Result<CompactionReport> {
        self.compact_watched(&CompactionProgress::new())
    }

    /// As [`compact`](Self::compact), and lets other threads see how far it is.
    ///
    /// # Errors
    ///
    /// * As [`compact`](Self::compact).
    pub fn compact_watched(&self, progress: &CompactionProgress) -> Result<CompactionReport> {
        self.compact_these(0..self.partition_count(), progress)
    }

    fn compact_these(
        &self,
        partitions: Range<u32>,
        progress: &CompactionProgress,
    ) -> Result<CompactionReport> {
        let left = self.topics.compact_now(&self.state, partitions, progress)?;
        Ok(CompactionReport { counts: progress.counts(), left })
    }

    pub(crate) fn belongs_to(&self, topics: &Arc<Topics>) -> bool {
        Arc::ptr_eq(&self.topics, topics)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic").field("name", &self.name()).field("id", &self.id()).finish()
    }
}

impl PartialEq for Topic {
    fn eq(&self, other: &Topic) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }
}

impl Eq for Topic {}

impl Hash for Topic {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl TopicPartition {
    pub(crate) fn new(
        state: Arc<TopicState>,
        topics: Arc<Topics>,
        keep_open: KeepOpen,
        partition: u32,
    ) -> TopicPartition {
        TopicPartition::of(Topic::new(state, topics, keep_open), partition)
    }

    fn of(topic: Topic, partition: u32) -> TopicPartition {
        TopicPartition { topic, partition, reading: OnceLock::new() }
    }

    /// Gives the topic.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Gives the partition's number.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Gives the first offset that can be read and the offset the next record will get.
    ///
    /// # Errors
    ///
    /// * [`Error::TopicDeleted`], [`Error::Unavailable`].
    pub fn watermarks(&self) -> Result<(i64, i64)> {
        let open = self.open()?;
        self.topic.topics.refresh(&open)?;
        Ok((open.watermarks().log_start(), open.watermarks().log_end()))
    }

    /// Gives the first record whose timestamp is at least `timestamp_ms`, as its offset and timestamp;
    /// `None` if there is none.
    ///
    /// # Errors
    ///
    /// * [`Error::TopicDeleted`], [`Error::Unavailable`]; [`Error::Corrupt`] if damage is in the way, [`Error::Io`] if the
    ///   disk cannot read a segment.
    pub fn offset_for_time(&self, timestamp_ms: i64) -> Result<Option<OffsetAndTimestamp>> {
        let open = self.open()?;
        open.refresh()?;
        open.offset_for_time(timestamp_ms)
    }

    /// Compacts this partition now, as [`Topic::compact`] does all of them; `progress` shows other threads how far it
    /// is.
    ///
    /// # Errors
    ///
    /// * As [`Topic::compact`].
    pub fn compact_watched(&self, progress: &CompactionProgress) -> Result<CompactionReport> {
        self.topic.compact_these(self.partition..self.partition + 1, progress)
    }

    /// Deletes the records below offset `before`, −1 standing for the end of the log (Kafka's `DeleteRecords`), and
    /// gives the first offset that can be read then. Nothing happens to a log that begins at or behind `before`.
    ///
    /// Once this returns, nobody reads them any more, and no crash or power cut brings them back. Whole segments below
    /// `before` are removed from the disk, after `file.delete.delay.ms` if that is set; of the one that it lies in, the
    /// space comes free with the rest of it.
    /// Records that somebody has in hand stay readable, and hold the space of their segment on the disk until they are
    /// dropped ([`PartitionDescription::held_len`]). A consumer that stands below gets its
    /// [`OffsetReset`](crate::OffsetReset).
    ///
    /// Blocks until what is deleted was on stable storage, and for a sync of the record of it.
    ///
    /// # Errors
    ///
    /// * [`Error::OffsetOutOfRange`] if `before` lies behind the log's end or is negative otherwise.
    /// * [`Error::PolicyViolation`] if the topic is compacted, and not `compact,delete`.
    /// * [`Error::ReadOnly`], [`Error::TopicDeleted`], [`Error::Unavailable`], [`Error::Latched`],
    ///   [`Error::OutOfSpace`], [`Error::Io`]: likewise, nothing was deleted. Files that cannot be removed are no error:
    ///   [`Store::health`](crate::Store::health) tells of them, and they are removed later.
    ///
    /// ```
    /// use ottla::{Error, Record, Store, TopicConfig};
    ///
    /// let store = Store::temporary()?;
    /// let topic = store.create_topic("t", TopicConfig::new())?;
    /// for value in ["a", "b", "c"] {
    ///     store.producer().send(&topic, Record::new(value))?;
    /// }
    /// let partition = topic.partition(0)?;
    /// assert_eq!(partition.delete_records(2)?, 2);
    /// assert_eq!(partition.watermarks()?, (2, 3));
    /// assert!(matches!(partition.delete_records(4), Err(Error::OffsetOutOfRange { .. })));
    /// assert_eq!(partition.delete_records(-1)?, 3);
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn delete_records(&self, before: i64) -> Result<i64> {
        self.topic.topics.delete_records(&self.topic.state, self.partition, before)
    }

    /// Gives the log to a read of a single record, and what its message holds; found once for each handle.
    #[inline]
    pub(crate) fn for_reading(&self) -> Result<(&Arc<TopicPartition>, &Partition)> {
        self.topic.topics.refuse_if_closed()?;
        self.topic.state.refuse_if_deleted()?;
        let reading = match self.reading.get() {
            Some(reading) => reading,
            None => {
                let open = self.open()?;
                self.reading.get_or_init(|| Reading { source: Arc::new(self.clone()), open })
            }
        };
        Ok((&reading.source, &reading.open))
    }

    pub(crate) fn open(&self) -> Result<Arc<Partition>> {
        self.topic.state.refuse_if_deleted()?;
        self.topic.state.open_partition(self.partition)
    }
}

impl Clone for TopicPartition {
    fn clone(&self) -> TopicPartition {
        // What is read through each handle is counted by itself.
        TopicPartition::of(self.topic.clone(), self.partition)
    }
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicPartition")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .finish()
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic.name(), self.partition)
    }
}

impl PartialEq for TopicPartition {
    fn eq(&self, other: &TopicPartition) -> bool {
        self.partition == other.partition && self.topic == other.topic
    }
}

impl Eq for TopicPartition {}

/// By the topic's name and the number, which never change: Clippy's `mutable_key_type`, which sees the topic's shared
/// state behind the handle, may be allowed where partitions are keys.
impl Hash for TopicPartition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.topic.name(), self.partition).hash(state);
    }
}

/// By the topic's name, then the number. Partitions of topics that have but the name in common, one of them deleted or in
/// another store, come in some order that does not change while the handles live.
impl Ord for TopicPartition {
    fn cmp(&self, other: &TopicPartition) -> Ordering {
        let named = (self.topic.name(), self.partition).cmp(&(other.topic.name(), other.partition));
        let address = |partition: &TopicPartition| Arc::as_ptr(&partition.topic.state).addr();
        named.then_with(|| address(self).cmp(&address(other)))
    }
}

impl PartialOrd for TopicPartition {
    fn partial_cmp(&self, other: &TopicPartition) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl TopicDescription {
    /// Gives one property by Kafka's name.
    pub fn config(&self, name: &str) -> Option<&ConfigEntry> {
        self.configs.iter().find(|entry| entry.name == name)
    }
}
