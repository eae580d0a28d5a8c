//! Topics and their partitions: create, open, alter, delete.
//!
//! [`Topics`] is the registry of one data directory. Changes to the list of topics are made one at a
//! time; what each has to be after a crash is decided by the catalog (`ottla.topics`), which says what is
//! half done before it is begun.
//!
//! **Invariant (roll back, roll on).** A creation that had not returned is undone by the next open, a
//! deletion that had begun is finished by it.

use std::any::Any;
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crossbeam_channel::Sender;
use parking_lot::Mutex;
use parking_lot::RwLock;

use crate::clock::Clock;
use crate::config::ConfigEntry;
use crate::config::LogConfig;
use crate::config::Overrides;
use crate::config::TopicConfig;
use crate::error::Error;
use crate::error::Result;
use crate::name::TopicName;
use crate::partition::Attention;
use crate::partition::Opening;
use crate::partition::Partition;
use crate::partition::recovery::Circumstances;
use crate::partition::recovery::Finding;
use crate::partition::watermarks::Doorbells;
use crate::storage::catalog;
use crate::storage::catalog::Catalog;
use crate::storage::catalog::CatalogEntry;
use crate::storage::catalog::TopicId;
use crate::storage::checkpoint::OffsetCheckpoint;
use crate::storage::disk::Disk;
use crate::storage::file_name;
use crate::storage::file_name::RootDirectory;
use crate::storage::lock::DirectoryLock;
use crate::storage::lock::LastBoot;
use crate::storage::segment::SegmentContext;

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
#[derive(Clone, Debug)]
pub struct TopicPartition {
    topic: Topic,
    partition: u32,
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
    /// Why the partition takes no appends, or cannot be read at all.
    pub failure: Option<String>,
}

/// What everyone who holds a topic shares.
#[derive(Debug)]
pub(crate) struct TopicState {
    name: TopicName,
    id: TopicId,
    settings: RwLock<Settings>,
    partitions: RwLock<Arc<[Slot]>>,
    is_deleted: AtomicBool,
    /// The partition that unkeyed records go to, and the bytes it got since it became that.
    pub(crate) sticky: AtomicU64,
}

#[derive(Debug)]
struct Settings {
    overrides: Overrides,
    log: Arc<LogConfig>,
}

/// A partition's place in its topic.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    Open(Arc<Partition>),
    /// It could not be opened, or is not in this directory; the others are unaffected.
    Unavailable(PathBuf, Arc<str>),
}

/// The registry of one data directory.
#[derive(Debug)]
pub(crate) struct Topics {
    root: PathBuf,
    disk: Disk,
    clock: Clock,
    /// Whom partitions tell that they need something.
    attention: Sender<Attention>,
    /// `None` where the directory is read only.
    writing: Option<Writing>,
    /// Held for a whole change to the list of topics; lock rank 1.
    changes: Mutex<()>,
    list: RwLock<BTreeMap<TopicName, Arc<TopicState>>>,
    findings: Mutex<Vec<Finding>>,
    is_closed: AtomicBool,
    /// Rung when the store is closed, for those who wait for no partition.
    closing: Doorbells,
}

#[derive(Debug)]
struct Writing {
    lock: Arc<DirectoryLock>,
    catalog: Mutex<Catalog>,
    recovery_points: Mutex<OffsetCheckpoint>,
}

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
        Ok(TopicPartition { topic: self.clone(), partition })
    }

    /// Gives all partitions, in order.
    pub fn partitions(&self) -> Vec<TopicPartition> {
        (0..self.partition_count())
            .map(|partition| TopicPartition { topic: self.clone(), partition })
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
        let describe = |(number, slot): (usize, &Slot)| -> Result<PartitionDescription> {
            let partition = number as u32;
            match slot {
                Slot::Open(open) => {
                    open.refresh()?;
                    let marks = open.watermarks();
                    Ok(PartitionDescription {
                        partition,
                        log_start: marks.log_start(),
                        durable_end: marks.durable_end(),
                        log_end: marks.log_end(),
                        segment_count: open.segment_count(),
                        len: open.len()?,
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
    /// * [`Error::ReadOnly`], [`Error::TopicDeleted`], [`Error::OutOfSpace`], [`Error::Io`]: likewise.
    pub fn add_partitions(&self, count: u32) -> Result<()> {
        self.topics.add_partitions(&self.state, count)
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

impl TopicPartition {
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
        open.refresh()?;
        Ok((open.watermarks().log_start(), open.watermarks().log_end()))
    }

    /// Gives the first record whose timestamp is at least `timestamp_ms`, as its offset and timestamp;
    /// `None` if there is none.
    ///
    /// # Errors
    ///
    /// * [`Error::TopicDeleted`], [`Error::Unavailable`]; [`Error::Corrupt`] if damage is in the way.
    pub fn offset_for_time(&self, timestamp_ms: i64) -> Result<Option<(i64, i64)>> {
        let open = self.open()?;
        open.refresh()?;
        open.offset_for_time(timestamp_ms)
    }

    pub(crate) fn open(&self) -> Result<Arc<Partition>> {
        self.topic.state.refuse_if_deleted()?;
        self.topic.state.open_partition(self.partition)
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

impl TopicDescription {
    /// Gives one property by Kafka's name.
    pub fn config(&self, name: &str) -> Option<&ConfigEntry> {
        self.configs.iter().find(|entry| entry.name == name)
    }
}

impl TopicState {
    pub(crate) fn partition_count(&self) -> u32 {
        self.partitions.read().len() as u32
    }

    pub(crate) fn log_config(&self) -> Arc<LogConfig> {
        Arc::clone(&self.settings.read().log)
    }

    pub(crate) fn name(&self) -> &str {
        self.name.as_str()
    }

    pub(crate) fn topic_name(&self) -> &TopicName {
        &self.name
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.is_deleted.load(Ordering::Acquire)
    }

    pub(crate) fn refuse_if_deleted(&self) -> Result<()> {
        if self.is_deleted() {
            return Err(Error::TopicDeleted { name: self.name.to_string() });
        }
        Ok(())
    }

    pub(crate) fn open_partition(&self, partition: u32) -> Result<Arc<Partition>> {
        match self.slot(partition)? {
            Slot::Open(open) => Ok(open),
            Slot::Unavailable(path, reason) => Err(Error::Unavailable { path, reason }),
        }
    }

    fn slot(&self, partition: u32) -> Result<Slot> {
        let partitions = self.partitions.read();
        partitions.get(partition as usize).cloned().ok_or_else(|| Error::UnknownPartition {
            topic: self.name.to_string(),
            partition,
            count: partitions.len() as u32,
        })
    }

    fn open_partitions(&self) -> Vec<(u32, Arc<Partition>)> {
        let partitions = self.partitions.read();
        let open = |(number, slot): (usize, &Slot)| match slot {
            Slot::Open(open) => Some((number as u32, Arc::clone(open))),
            Slot::Unavailable(..) => None,
        };
        partitions.iter().enumerate().filter_map(open).collect()
    }
}

/// What a directory says about itself when it is opened.
#[derive(Debug)]
struct Surroundings {
    clean: bool,
    last_boot: LastBoot,
    recovery_points: OffsetCheckpoint,
    log_starts: OffsetCheckpoint,
    /// Below these offsets compaction may have left gaps.
    cleaned: OffsetCheckpoint,
}

impl Topics {
    /// Opens a data directory for writing: finishes what was interrupted, recovers what was torn.
    pub(crate) fn open(
        root: &Path,
        disk: Disk,
        clock: Clock,
        attention: Sender<Attention>,
    ) -> Result<Topics> {
        let (lock, last_boot) = DirectoryLock::acquire(&disk, root)?;
        let marker = root.join(file_name::CLEAN_SHUTDOWN);
        let clean = disk.exists(&marker)?;
        if clean {
            // Whatever happens from here on, the directory is not what the marker says it is.
            disk.remove_file(&marker)?;
            disk.sync_directory(root)?;
        }
        let mut findings = Vec::new();
        let surroundings = Surroundings::read(&disk, root, clean, last_boot, &mut findings);
        let catalog = Catalog::read(&disk, &root.join(file_name::TOPICS))?;
        let topics = Topics {
            root: root.to_path_buf(),
            disk,
            clock,
            attention,
            writing: Some(Writing {
                lock: Arc::new(lock),
                catalog: Mutex::new(catalog),
                recovery_points: Mutex::new(surroundings.recovery_points.clone()),
            }),
            changes: Mutex::new(()),
            list: RwLock::default(),
            findings: Mutex::new(findings),
            is_closed: AtomicBool::new(false),
            closing: Doorbells::default(),
        };
        topics.finish_interrupted()?;
        topics.adopt_and_open(&surroundings)?;
        if !clean {
            topics.note_recovery_points(&topics.all_open())?;
        }
        topics.writing()?.lock.confirm_boot()?;
        Ok(topics)
    }

    /// Opens a data directory for reading, while another process may be writing to it.
    pub(crate) fn open_read_only(
        root: &Path,
        disk: Disk,
        clock: Clock,
        attention: Sender<Attention>,
    ) -> Result<Topics> {
        let topics = Topics {
            root: root.to_path_buf(),
            disk,
            clock,
            attention,
            writing: None,
            changes: Mutex::new(()),
            list: RwLock::default(),
            findings: Mutex::default(),
            is_closed: AtomicBool::new(false),
            closing: Doorbells::default(),
        };
        topics.look_again()?;
        Ok(topics)
    }

    /// Creates a topic; durable once this returns.
    pub(crate) fn create(&self, name: &str, config: TopicConfig) -> Result<Arc<TopicState>> {
        let name = TopicName::new(name)?;
        if name.as_str() == file_name::CLUSTER_METADATA {
            let reason = "it is the name of Kafka's own metadata log".to_owned();
            return Err(Error::InvalidTopic { name: name.to_string(), reason });
        }
        let count = config.partition_count();
        let overrides = config.into_overrides();
        let log = Arc::new(LogConfig::resolve(&overrides)?);
        let writing = self.writing_for("create a topic")?;
        if count == 0 || count > i32::MAX as u32 {
            let reason = "at least one is needed, and at most 2147483647";
            let topic = name.to_string();
            return Err(Error::InvalidPartitions { topic, requested: count, reason });
        }
        let _change = self.changes.lock();
        self.refuse_if_closed()?;
        {
            let list = self.list.read();
            if list.contains_key(&name) {
                return Err(Error::TopicExists { name: name.to_string() });
            }
            if let Some(other) = list.keys().find(|other| other.collides_with(&name)) {
                let reason = format!("it differs from `{other}` only in `.` and `_`");
                return Err(Error::InvalidTopic { name: name.to_string(), reason });
            }
        }
        let id = new_topic_id();
        let entry = CatalogEntry {
            id,
            partition_count: 0,
            partition_count_target: count,
            is_deleting: false,
            overrides: overrides.clone(),
        };
        self.change_catalog(writing, |catalog| {
            catalog.topics.insert(name.clone(), entry);
        })?;
        let created = self.create_partitions(&name, id, 0..count, &log).and_then(|slots| {
            self.change_catalog(writing, |catalog| {
                catalog.topics.get_mut(&name).expect("inserted above").partition_count = count;
            })?;
            Ok(slots)
        });
        let slots = created.inspect_err(|_| self.undo_creation(writing, &name, 0..count))?;
        let state = TopicState {
            name: name.clone(),
            id,
            settings: RwLock::new(Settings { overrides, log: Arc::clone(&log) }),
            partitions: RwLock::new(slots.into()),
            is_deleted: AtomicBool::new(false),
            sticky: AtomicU64::new(0),
        };
        let state = Arc::new(state);
        self.list.write().insert(name, Arc::clone(&state));
        Ok(state)
    }

    /// Deletes a topic: nobody finds it once this returns, and its files are gone. Readers that hold
    /// records of it keep them.
    pub(crate) fn delete(&self, name: &str) -> Result<()> {
        let writing = self.writing_for("delete a topic")?;
        let _change = self.changes.lock();
        self.refuse_if_closed()?;
        let state = self.find(name)?;
        let name = state.name.clone();
        self.change_catalog(writing, |catalog| {
            catalog.topics.get_mut(&name).expect("every open topic is listed").is_deleting = true;
        })?;
        // From here on there is no way back: what fails now is finished by the next open.
        state.is_deleted.store(true, Ordering::Release);
        self.list.write().remove(&name);
        for (_, partition) in state.open_partitions() {
            partition.mark_deleted();
        }
        self.finish_deletion(writing, &name)
    }

    pub(crate) fn alter(
        &self,
        state: &Arc<TopicState>,
        changes: &[(&str, Option<&str>)],
    ) -> Result<()> {
        let writing = self.writing_for("alter a topic")?;
        let _change = self.changes.lock();
        self.refuse_if_closed()?;
        state.refuse_if_deleted()?;
        let mut overrides = state.settings.read().overrides.clone();
        for (key, value) in changes {
            overrides.apply(key, *value)?;
        }
        let log = Arc::new(LogConfig::resolve(&overrides)?);
        self.change_catalog(writing, |catalog| {
            let entry = catalog.topics.get_mut(&state.name).expect("every open topic is listed");
            entry.overrides = overrides.clone();
        })?;
        *state.settings.write() = Settings { overrides, log: Arc::clone(&log) };
        for (_, partition) in state.open_partitions() {
            partition.reconfigure(Arc::clone(&log));
        }
        Ok(())
    }

    pub(crate) fn add_partitions(&self, state: &Arc<TopicState>, count: u32) -> Result<()> {
        let writing = self.writing_for("add partitions")?;
        let _change = self.changes.lock();
        self.refuse_if_closed()?;
        state.refuse_if_deleted()?;
        let present = state.partition_count();
        if count <= present || count > i32::MAX as u32 {
            let reason = "the number of partitions can only grow";
            let topic = state.name.to_string();
            return Err(Error::InvalidPartitions { topic, requested: count, reason });
        }
        let set = |present: u32, target: u32| {
            self.change_catalog(writing, |catalog| {
                let entry =
                    catalog.topics.get_mut(&state.name).expect("every open topic is listed");
                entry.partition_count = present;
                entry.partition_count_target = target;
            })
        };
        set(present, count)?;
        let fresh = self
            .create_partitions(&state.name, state.id, present..count, &state.log_config())
            .and_then(|slots| set(count, count).map(|()| slots))
            .inspect_err(|_| self.undo_creation(writing, &state.name, present..count))?;
        let mut partitions = state.partitions.write();
        *partitions = partitions.iter().cloned().chain(fresh).collect();
        Ok(())
    }

    /// Finds an open topic.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<TopicState>> {
        let found = || {
            let name = TopicName::new(name).ok()?;
            self.list.read().get(&name).cloned()
        };
        self.refuse_if_closed()?;
        if self.writing.is_none() {
            // It may have been deleted or created anew meanwhile.
            self.look_again()?;
        }
        found().ok_or_else(|| Error::UnknownTopic { name: name.to_owned() })
    }

    /// Lists the topics in the order of their names.
    pub(crate) fn all(&self) -> Result<Vec<Arc<TopicState>>> {
        self.refuse_if_closed()?;
        if self.writing.is_none() {
            self.look_again()?;
        }
        Ok(self.list.read().values().cloned().collect())
    }

    /// Gives every partition that is open, with its topic's name and its number.
    pub(crate) fn all_open(&self) -> Vec<(TopicName, u32, Arc<Partition>)> {
        let topics: Vec<_> = self.list.read().values().cloned().collect();
        let partitions = topics.iter().flat_map(|topic| {
            let name = topic.name.clone();
            topic.open_partitions().into_iter().map(move |(n, open)| (name.clone(), n, open))
        });
        partitions.collect()
    }

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
            points.set(topic, *number, partition.watermarks().durable_end());
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

    /// Closes every partition and, if all of them are in order, says so with Kafka's marker.
    ///
    /// # Errors
    ///
    /// * The first failure; then there is no marker and the next open recovers.
    pub(crate) fn close(&self) -> Result<()> {
        let _change = self.changes.lock();
        if self.is_closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.closing.ring_for_the_last_time();
        if self.writing.is_none() {
            for (_, _, partition) in self.all_open() {
                partition.doorbells().ring_for_the_last_time();
            }
            return Ok(());
        }
        let mut first_error = None;
        let open = self.all_open();
        for (_, _, partition) in &open {
            if let Err(error) = partition.close() {
                first_error.get_or_insert(error);
            }
            partition.doorbells().ring_for_the_last_time();
        }
        if let Some(error) = first_error {
            return Err(error);
        }
        let root = &self.root;
        self.note_recovery_points(&open)?;
        let mut starts = OffsetCheckpoint::default();
        let mut high_watermarks = OffsetCheckpoint::default();
        for (topic, number, partition) in &open {
            let marks = partition.watermarks();
            high_watermarks.set(topic, *number, marks.log_end());
            if marks.log_start() > partition.segments().first().base_offset() {
                starts.set(topic, *number, marks.log_start());
            }
        }
        starts.write(&self.disk, &root.join(file_name::LOG_STARTS))?;
        high_watermarks.write(&self.disk, &root.join(file_name::HIGH_WATERMARKS))?;
        let is_whole = |topic: &Arc<TopicState>| {
            topic.partitions.read().iter().all(|slot| matches!(slot, Slot::Open(_)))
        };
        if self.list.read().values().all(is_whole) {
            self.disk.write_synced(&root.join(file_name::CLEAN_SHUTDOWN), MARKER)?;
            self.disk.sync_directory(root)?;
        }
        Ok(())
    }

    pub(crate) fn refuse_if_closed(&self) -> Result<()> {
        if self.is_closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    pub(crate) fn closing(&self) -> &Doorbells {
        &self.closing
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = self.findings.lock().clone();
        for (_, _, partition) in self.all_open() {
            let path = partition.directory().to_path_buf();
            let is_told = |f: &Finding| matches!(f, Finding::Latched { path: p, .. } if *p == path);
            if let Some(reason) = partition.latch_reason() {
                if !findings.iter().any(is_told) {
                    findings.push(Finding::Latched { path, reason: reason.to_string() });
                }
            }
        }
        findings
    }

    pub(crate) fn note(&self, finding: Finding) {
        self.findings.lock().push(finding);
    }

    /// Notes a chore's failure, unless the same one is on record.
    pub(crate) fn note_once(&self, what: &str, error: &Error) {
        let reason = format!("{what}: {error}");
        let finding = Finding::Nuisance { path: self.root.clone(), reason };
        let mut findings = self.findings.lock();
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }

    pub(crate) fn refuse_writing(&self, action: &'static str) -> Result<()> {
        self.writing_for(action).map(|_| ())
    }

    fn writing_for(&self, action: &'static str) -> Result<&Writing> {
        self.refuse_if_closed()?;
        self.writing.as_ref().ok_or(Error::ReadOnly { action })
    }

    fn writing(&self) -> Result<&Writing> {
        self.writing.as_ref().ok_or(Error::ReadOnly { action: "write" })
    }

    fn change_catalog(&self, writing: &Writing, change: impl FnOnce(&mut Catalog)) -> Result<()> {
        let mut catalog = writing.catalog.lock();
        let mut changed = catalog.clone();
        change(&mut changed);
        changed.write(&self.disk, &self.root.join(file_name::TOPICS))?;
        *catalog = changed;
        Ok(())
    }

    /// Makes the directories and first segments of new partitions, durably, and opens them.
    fn create_partitions(
        &self,
        name: &TopicName,
        id: TopicId,
        numbers: Range<u32>,
        log: &Arc<LogConfig>,
    ) -> Result<Vec<Slot>> {
        let surroundings = Surroundings::of_a_new_directory();
        let mut slots = Vec::new();
        for number in numbers {
            let directory = self.root.join(file_name::partition_directory(name, number));
            self.disk.create_directory(&directory)?;
            let metadata = directory.join(file_name::PARTITION_METADATA);
            catalog::write_partition_metadata(&self.disk, &metadata, id)?;
            // Synchronises the directory once its first segment is there.
            let (partition, _) = self.open_log(name, number, log, &surroundings)?;
            slots.push(Slot::Open(partition));
        }
        self.disk.sync_directory(&self.root)?;
        Ok(slots)
    }

    /// Takes back a creation that failed half-way. Best effort: what cannot be taken back now, because
    /// the disk is full or failing, is taken back by the next open, which finds it in the catalog.
    fn undo_creation(&self, writing: &Writing, name: &TopicName, numbers: Range<u32>) {
        let undone = self
            .remove_partitions(name, numbers.clone())
            .and_then(|()| self.change_catalog(writing, |catalog| forget_creation(catalog, name)));
        if let Err(error) = undone {
            let path = self.root.join(file_name::TOPICS);
            let reason = format!("undoing a creation of `{name}`: {error}");
            self.note(Finding::Nuisance { path, reason });
        }
    }

    fn finish_deletion(&self, writing: &Writing, name: &TopicName) -> Result<()> {
        let count = writing
            .catalog
            .lock()
            .topics
            .get(name)
            .map_or(0, |e| e.partition_count.max(e.partition_count_target));
        self.remove_partitions(name, 0..count)?;
        let mut points = writing.recovery_points.lock();
        let kept: Vec<_> = points.iter().filter(|(t, ..)| *t != name).map(owned).collect();
        *points = OffsetCheckpoint::default();
        for (topic, number, offset) in kept {
            points.set(&topic, number, offset);
        }
        // A topic that is created anew under this name must not inherit them.
        points.write(&self.disk, &self.root.join(file_name::RECOVERY_POINTS))?;
        drop(points);
        self.change_catalog(writing, |catalog| {
            catalog.topics.remove(name);
        })
    }

    /// Renames partition directories to names that say they are being deleted, then empties them.
    fn remove_partitions(&self, name: &TopicName, numbers: Range<u32>) -> Result<()> {
        let mut renamed = Vec::new();
        for number in numbers {
            let directory = self.root.join(file_name::partition_directory(name, number));
            if self.disk.exists(&directory)? {
                let doomed = file_name::deletion_directory(name, number, random_u128());
                let doomed = self.root.join(doomed);
                self.disk.rename(&directory, &doomed)?;
                renamed.push(doomed);
            }
        }
        self.disk.sync_directory(&self.root)?;
        for doomed in renamed {
            self.disk.remove_tree(&doomed)?;
        }
        Ok(())
    }

    /// Undoes creations and finishes deletions that a crash cut short.
    fn finish_interrupted(&self) -> Result<()> {
        let writing = self.writing()?;
        for entry in self.disk.entries(&self.root)? {
            if entry.is_directory && RootDirectory::parse(&entry.name) == RootDirectory::Deleted {
                self.disk.remove_tree(&self.root.join(&entry.name))?;
            }
            if !entry.is_directory && entry.name.ends_with(file_name::TEMPORARY_SUFFIX) {
                self.disk.remove_file(&self.root.join(&entry.name))?;
            }
        }
        let entries = writing.catalog.lock().topics.clone();
        for (name, entry) in entries {
            if entry.is_deleting {
                self.finish_deletion(writing, &name)?;
            } else if entry.partition_count != entry.partition_count_target {
                let begun = entry.partition_count..entry.partition_count_target;
                self.remove_partitions(&name, begun)?;
                self.change_catalog(writing, |catalog| forget_creation(catalog, &name))?;
            }
        }
        Ok(())
    }

    /// Opens every partition directory; topics that the catalog does not know, because Kafka wrote them,
    /// are added to it.
    fn adopt_and_open(&self, surroundings: &Surroundings) -> Result<()> {
        let writing = self.writing()?;
        let found = self.partition_directories()?;
        let mut catalog = writing.catalog.lock().clone();
        let mut adopted = false;
        for (name, count) in found {
            if catalog.topics.contains_key(&name) {
                continue;
            }
            let id = (0..count)
                .find_map(|number| self.id_of(&name, number))
                .unwrap_or_else(new_topic_id);
            let entry = CatalogEntry {
                id,
                partition_count: count,
                partition_count_target: count,
                is_deleting: false,
                overrides: Overrides::default(),
            };
            catalog.topics.insert(name, entry);
            adopted = true;
        }
        for (name, entry) in &catalog.topics {
            let log = Arc::new(LogConfig::resolve(&entry.overrides)?);
            let slots = (0..entry.partition_count)
                .map(|number| self.open_known(name, number, entry.id, &log, surroundings));
            let state = TopicState {
                name: name.clone(),
                id: entry.id,
                partitions: RwLock::new(slots.collect()),
                settings: RwLock::new(Settings { overrides: entry.overrides.clone(), log }),
                is_deleted: AtomicBool::new(false),
                sticky: AtomicU64::new(0),
            };
            self.list.write().insert(name.clone(), Arc::new(state));
        }
        if adopted {
            self.change_catalog(writing, |current| *current = catalog)?;
        }
        Ok(())
    }

    /// Opens a partition that the catalog lists: its directory must be there and belong to the topic.
    fn open_known(
        &self,
        name: &TopicName,
        number: u32,
        id: TopicId,
        log: &Arc<LogConfig>,
        surroundings: &Surroundings,
    ) -> Slot {
        let directory = self.root.join(file_name::partition_directory(name, number));
        let metadata = directory.join(file_name::PARTITION_METADATA);
        let checked = (|| {
            if !self.disk.exists(&directory)? {
                return Ok(Some("the directory is missing".into()));
            }
            match catalog::read_partition_metadata(&self.disk, &metadata)? {
                Some(found) if found != id => {
                    Ok(Some(format!("it belongs to the topic with id {found}, not {id}")))
                }
                Some(_) => Ok(None),
                None if self.writing.is_some() => {
                    catalog::write_partition_metadata(&self.disk, &metadata, id)?;
                    Ok(None)
                }
                None => Ok(None),
            }
        })();
        let reason = match checked {
            Ok(None) => return self.open_partition(name, number, log, surroundings),
            Ok(Some(reason)) => reason,
            Err::<_, Error>(error) => error.to_string(),
        };
        self.unavailable(directory, reason)
    }

    fn open_partition(
        &self,
        name: &TopicName,
        number: u32,
        log: &Arc<LogConfig>,
        surroundings: &Surroundings,
    ) -> Slot {
        match self.open_log(name, number, log, surroundings) {
            Ok((partition, findings)) => {
                self.findings.lock().extend(findings);
                Slot::Open(partition)
            }
            Err(error) => {
                let directory = self.root.join(file_name::partition_directory(name, number));
                self.unavailable(directory, error.to_string())
            }
        }
    }

    fn open_log(
        &self,
        name: &TopicName,
        number: u32,
        log: &Arc<LogConfig>,
        surroundings: &Surroundings,
    ) -> Result<(Arc<Partition>, Vec<Finding>)> {
        let directory = self.root.join(file_name::partition_directory(name, number));
        let opening = Opening {
            context: SegmentContext {
                disk: self.disk.clone(),
                directory: directory.into(),
                lock: self.writing.as_ref().map(|writing| Arc::clone(&writing.lock)),
                index_interval_bytes: log.index_interval_bytes,
                gaps_below: surroundings.cleaned.of(name, number).unwrap_or(0),
            },
            config: Arc::clone(log),
            clock: self.clock.clone(),
            circumstances: Circumstances {
                clean: surroundings.clean,
                last_boot: surroundings.last_boot,
                recovery_point: surroundings.recovery_points.of(name, number).unwrap_or(0),
            },
            log_start: surroundings.log_starts.of(name, number).unwrap_or(0),
            attention: Some(self.attention.clone()),
        };
        match &self.writing {
            Some(_) => Partition::open(opening),
            None => Partition::open_to_follow(opening).map(|partition| (partition, Vec::new())),
        }
    }

    fn unavailable(&self, path: PathBuf, reason: String) -> Slot {
        self.note(Finding::Unavailable { path: path.clone(), reason: reason.clone() });
        Slot::Unavailable(path, reason.into())
    }

    /// Looks for topics that another process created, grew or deleted.
    fn look_again(&self) -> Result<()> {
        let _change = self.changes.lock();
        let mut ignored = Vec::new();
        let surroundings =
            Surroundings::read(&self.disk, &self.root, false, LastBoot::Other, &mut ignored);
        let catalog = Catalog::read(&self.disk, &self.root.join(file_name::TOPICS))?;
        let found = self.partition_directories()?;
        let mut seen = BTreeMap::new();
        for (name, mut count) in found {
            let listed = catalog.topics.get(&name);
            if let Some(entry) = listed {
                if entry.is_deleting || entry.partition_count == 0 {
                    continue;
                }
                count = entry.partition_count;
            }
            let id = listed
                .map(|entry| entry.id)
                .or_else(|| (0..count).find_map(|number| self.id_of(&name, number)))
                .unwrap_or_else(new_topic_id);
            let overrides = listed.map(|entry| entry.overrides.clone()).unwrap_or_default();
            let log = Arc::new(LogConfig::resolve(&overrides)?);
            let known = self.list.read().get(&name).filter(|state| state.id == id).cloned();
            let slots_known = known.as_ref().map(|state| state.partitions.read().clone());
            let open = |number: u32| match slots_known.as_ref().and_then(|s| s.get(number as usize))
            {
                Some(Slot::Open(partition)) => Slot::Open(Arc::clone(partition)),
                _ => self.open_known(&name, number, id, &log, &surroundings),
            };
            let slots: Arc<[Slot]> = (0..count).map(open).collect();
            let state = match known {
                Some(state) => {
                    *state.partitions.write() = slots;
                    *state.settings.write() = Settings { overrides, log };
                    state
                }
                None => Arc::new(TopicState {
                    name: name.clone(),
                    id,
                    settings: RwLock::new(Settings { overrides, log }),
                    partitions: RwLock::new(slots),
                    is_deleted: AtomicBool::new(false),
                    sticky: AtomicU64::new(0),
                }),
            };
            for (number, partition) in state.open_partitions() {
                let point = surroundings.recovery_points.of(&name, number).unwrap_or(0);
                partition.note_durable_elsewhere(point);
            }
            seen.insert(name, state);
        }
        let gone = std::mem::replace(&mut *self.list.write(), seen);
        for (name, state) in gone {
            let is_listed = self.list.read().get(&name).is_some_and(|now| Arc::ptr_eq(now, &state));
            if !is_listed {
                state.is_deleted.store(true, Ordering::Release);
            }
        }
        Ok(())
    }

    /// Takes up the recovery points that another process put on record.
    pub(crate) fn refresh_durable_ends(&self) -> Result<()> {
        let path = self.root.join(file_name::RECOVERY_POINTS);
        let points = OffsetCheckpoint::read(&self.disk, &path)?;
        for (topic, number, partition) in self.all_open() {
            partition.note_durable_elsewhere(points.of(&topic, number).unwrap_or(0));
        }
        Ok(())
    }

    /// Gives the topics that have partition directories, with their counts as far as those tell.
    fn partition_directories(&self) -> Result<BTreeMap<TopicName, u32>> {
        let mut found: BTreeMap<TopicName, u32> = BTreeMap::new();
        for entry in self.disk.entries(&self.root)?.into_iter().filter(|e| e.is_directory) {
            if let RootDirectory::Partition(topic, number) = RootDirectory::parse(&entry.name) {
                let count = found.entry(topic).or_default();
                *count = (*count).max(number + 1);
            }
        }
        Ok(found)
    }

    fn id_of(&self, name: &TopicName, number: u32) -> Option<TopicId> {
        let directory = self.root.join(file_name::partition_directory(name, number));
        let path = directory.join(file_name::PARTITION_METADATA);
        catalog::read_partition_metadata(&self.disk, &path).ok().flatten()
    }
}

impl Surroundings {
    /// Reads what can be derived again if it is damaged; damage is noted and counts as absence.
    fn read(
        disk: &Disk,
        root: &Path,
        clean: bool,
        last_boot: LastBoot,
        findings: &mut Vec<Finding>,
    ) -> Surroundings {
        let mut read = |name: &str| {
            let path = root.join(name);
            OffsetCheckpoint::read(disk, &path).unwrap_or_else(|error| {
                findings.push(Finding::Nuisance { path, reason: error.to_string() });
                OffsetCheckpoint::default()
            })
        };
        Surroundings {
            clean,
            last_boot,
            recovery_points: read(file_name::RECOVERY_POINTS),
            log_starts: read(file_name::LOG_STARTS),
            cleaned: read(file_name::CLEANED),
        }
    }

    fn of_a_new_directory() -> Surroundings {
        Surroundings {
            clean: true,
            last_boot: LastBoot::Same,
            recovery_points: OffsetCheckpoint::default(),
            log_starts: OffsetCheckpoint::default(),
            cleaned: OffsetCheckpoint::default(),
        }
    }
}

/// What Kafka writes; −1 says that no broker was there.
const MARKER: &[u8] = br#"{"version":0,"brokerEpoch":-1}"#;

fn forget_creation(catalog: &mut Catalog, name: &TopicName) {
    if let Some(entry) = catalog.topics.get_mut(name) {
        entry.partition_count_target = entry.partition_count;
        if entry.partition_count == 0 {
            catalog.topics.remove(name);
        }
    }
}

fn owned((topic, number, offset): (&TopicName, u32, i64)) -> (TopicName, u32, i64) {
    (topic.clone(), number, offset)
}

fn new_topic_id() -> TopicId {
    loop {
        if let Some(id) = TopicId::from_random(random_u128().to_be_bytes()) {
            return id;
        }
    }
}

/// Uniqueness is what is needed here, not secrecy: the standard library seeds each hasher at random.
fn random_u128() -> u128 {
    let half = || u128::from(RandomState::new().hash_one(0));
    half() << 64 | half()
}
