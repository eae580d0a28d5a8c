//! The registry of one data directory: create, open, alter, delete, close.
//!
//! Changes to the list of topics are made one at a time; what each has to be after a crash is decided by
//! the catalog (`ottla.topics`), which says what is half done before it is begun.
//!
//! **Invariant (roll back, roll on).** A creation that had not returned is undone by the next open, a
//! deletion that had begun is finished by it.

mod altering;
mod at_once;
pub(crate) mod cleaning;
pub(crate) mod cleaning_limits;
pub(crate) mod findings;
pub(crate) mod loading;
pub(crate) mod log_starts;
mod recording;
pub(crate) mod retaining;
mod room;
mod starts_on_record;
pub(crate) mod surroundings;

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_channel::Sender;
use parking_lot::Mutex;
use parking_lot::RwLock;

use crate::clock::Clock;
use crate::config::LogConfig;
use crate::config::TopicConfig;
use crate::error::Error;
use crate::error::Result;
use crate::name::TopicName;
use crate::partition::Attention;
use crate::partition::Partition;
use crate::partition::budget::Budget;
use crate::partition::budget::Limit;
use crate::partition::finding::Finding;
use crate::partition::live_tails::LiveTails;
use crate::partition::open_segments::OpenSegments;
use crate::partition::watermarks::Doorbells;
use crate::steady_clock::SteadyClock;
use crate::storage::catalog;
use crate::storage::catalog::Catalog;
use crate::storage::catalog::CatalogEntry;
use crate::storage::catalog::TopicId;
use crate::storage::checkpoint::OffsetCheckpoint;
use crate::storage::disk::Disk;
use crate::storage::file_name;
use crate::storage::lock;
use crate::storage::lock::DirectoryLock;
use crate::storage::planted::Planted;
use crate::topic_state::Settings;
use crate::topic_state::Slot;
use crate::topic_state::TopicState;
use crate::topics::cleaning_limits::Cleaning;
use crate::topics::cleaning_limits::CleaningLimits;
use crate::topics::starts_on_record::StartsOnRecord;
use crate::topics::surroundings::Surroundings;

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
    /// The cold segments that are kept open.
    open_segments: Arc<OpenSegments>,
    /// The partitions that are open for appending.
    live_tails: Arc<LiveTails>,
    /// What all partitions together may take, but for internal topics.
    budget: Arc<Budget>,
    /// What retention goes by; looked at in one step each time, lock rank 9.
    steady_clock: Mutex<SteadyClock>,
    opened_at: Instant,
    /// Held from the look at what has to go until it went, syncs included; lock rank 1.
    lets_go: Mutex<()>,
    is_closed: AtomicBool,
    /// Rung when the store is closed, for those who wait for no partition.
    closing: Doorbells,
    /// Grows with every change to the list, behind the change. Stored with Release, loaded with Acquire.
    version: AtomicU64,
    /// Rung behind every change to the list, for those who wait for a topic or a partition to come.
    changing: Doorbells,
}

#[derive(Debug)]
struct Writing {
    lock: Arc<DirectoryLock>,
    catalog: Mutex<Catalog>,
    recovery_points: Mutex<OffsetCheckpoint>,
    cleaning: Cleaning,
    /// Where logs begin whose beginning was deleted.
    log_starts: Mutex<StartsOnRecord>,
}

impl Topics {
    /// Opens a data directory for writing: finishes what was interrupted, recovers what was torn.
    pub(crate) fn open(
        root: &Path,
        disk: Disk,
        clock: Clock,
        attention: Sender<Attention>,
        live_tails: LiveTails,
        (limits, limit): (CleaningLimits, Option<Limit>),
    ) -> Result<Topics> {
        let (lock, last_boot) = DirectoryLock::acquire(&disk, root)?;
        let marker = root.join(file_name::CLEAN_SHUTDOWN);
        let clean = disk.exists(&marker)?;
        if !disk.has(Planted::MarkerLeft) {
            // Whatever happens from here on, the directory is not what the marker says it is.
            if clean {
                disk.remove_file(&marker)?;
            }
            // Also where it is gone already: the life that took it away may have died before that was durable, and
            // a power cut would bring it back, with whatever is written now behind it.
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
                cleaning: Cleaning::new(surroundings.cleaned.clone(), limits),
                log_starts: Mutex::new(StartsOnRecord::new(surroundings.log_starts.clone())),
            }),
            changes: Mutex::new(()),
            list: RwLock::default(),
            findings: Mutex::new(findings),
            open_segments: Arc::default(),
            live_tails: Arc::new(live_tails),
            budget: Arc::new(Budget::new(limit)),
            lets_go: Mutex::default(),
            steady_clock: Mutex::default(),
            opened_at: Instant::now(),
            is_closed: AtomicBool::new(false),
            closing: Doorbells::default(),
            version: AtomicU64::new(1),
            changing: Doorbells::default(),
        };
        topics.finish_interrupted()?;
        topics.adopt_and_open(&surroundings)?;
        if !clean {
            topics.note_recovery_points(&topics.all_open())?;
        }
        // As long as something is not put in order, the next recovery has to know that the machine was started anew
        // since it was written.
        if topics.are_all_in_order() {
            topics.writing()?.lock.confirm_boot()?;
        }
        Ok(topics)
    }

    /// Tells whether every partition could be opened, and takes appends.
    fn are_all_in_order(&self) -> bool {
        let is_in_order = |slot: &Slot| match slot {
            Slot::Open(partition) => partition.refuse_if_latched().is_ok(),
            _ => false,
        };
        self.list.read().values().all(|topic| topic.partitions.read().iter().all(is_in_order))
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
            open_segments: Arc::default(),
            live_tails: Arc::default(),
            budget: Arc::new(Budget::new(None)),
            lets_go: Mutex::default(),
            steady_clock: Mutex::default(),
            opened_at: Instant::now(),
            is_closed: AtomicBool::new(false),
            closing: Doorbells::default(),
            version: AtomicU64::new(1),
            changing: Doorbells::default(),
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
        let settings = Settings { overrides, log: Arc::clone(&log) };
        let state = Arc::new(TopicState::new(name.clone(), id, settings, slots.into()));
        self.list.write().insert(name, Arc::clone(&state));
        self.announce_change();
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
        self.announce_change();
        self.finish_deletion(writing, &name)
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

    /// Tells whether anybody, this one or another process, has the directory open for writing.
    pub(crate) fn has_a_writer(&self) -> Result<bool> {
        Ok(self.writing.is_some() || lock::is_held(&self.disk, &self.root)?)
    }

    /// Lists the topics as they are known, in the order of their names.
    pub(crate) fn listed(&self) -> Vec<Arc<TopicState>> {
        self.list.read().values().cloned().collect()
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
        self.open_segments.close();
        if self.writing.is_none() {
            for (_, _, partition) in self.all_open() {
                partition.doorbells().ring_for_the_last_time();
            }
            return Ok(());
        }
        let mut first_error = None;
        let open = self.all_open();
        let closed = at_once::each(&open, self.threads_max(), |(_, _, partition)| {
            let closed = partition.close();
            partition.doorbells().ring_for_the_last_time();
            closed
        });
        for error in closed.into_iter().filter_map(Result::err) {
            first_error.get_or_insert(error);
        }
        if let Some(error) = first_error {
            return Err(error);
        }
        let root = &self.root;
        self.note_recovery_points(&open)?;
        self.note_starts_and_ends(self.writing()?, &open)?;
        let is_whole = |topic: &Arc<TopicState>| {
            let partitions = topic.partitions.read();
            partitions.iter().all(|slot| matches!(slot, Slot::Open(open) if open.is_indexed()))
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

    /// Gives a number that is another one once topics or partitions have come or gone.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Gives the doorbells of those who wait for topics or partitions to come or go.
    pub(crate) fn changing(&self) -> &Doorbells {
        &self.changing
    }

    fn announce_change(&self) {
        self.version.fetch_add(1, Ordering::Release);
        self.changing.ring();
    }

    /// Asks the background thread for something.
    pub(crate) fn ask(&self, attention: Attention) {
        // It is gone only once the store is closing, and then nothing is left to its care.
        drop(self.attention.send(attention));
    }

    #[cfg(test)]
    pub(crate) fn disk_for_test(&self) -> &Disk {
        &self.disk
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

    /// Tells whether [`refuse_writing`](Self::refuse_writing) would not refuse.
    #[inline]
    pub(crate) fn takes_records(&self) -> bool {
        self.writing.is_some() && !self.is_closed.load(Ordering::Acquire)
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
        let numbers: Vec<u32> = numbers.collect();
        let created = at_once::each(&numbers, self.threads_max(), |&number| {
            let directory = self.root.join(file_name::partition_directory(name, number));
            self.disk.create_directory(&directory)?;
            let metadata = directory.join(file_name::PARTITION_METADATA);
            catalog::write_partition_metadata(&self.disk, &metadata, id)?;
            // Synchronises the directory once its first segment is there.
            let (partition, _) = self.open_log(name, number, log, &surroundings)?;
            Ok(Slot::Open(partition))
        });
        let slots = created.into_iter().collect::<Result<_>>()?;
        self.disk.sync_directory(&self.root)?;
        Ok(slots)
    }

    /// Gives how many partitions are worked at at the same time.
    pub(super) fn threads_max(&self) -> usize {
        // A disk with a script counts effects, in an order that must be the same each time.
        #[cfg(test)]
        if self.disk.script.is_some() {
            return 1;
        }
        THREADS_MAX
    }

    /// Takes back a creation that failed half-way. Best effort: what cannot be taken back now, because
    /// the disk is full or failing, is taken back by the next open, which finds it in the catalog.
    fn undo_creation(&self, writing: &Writing, name: &TopicName, numbers: Range<u32>) {
        let path = self.root.join(file_name::TOPICS);
        let says_it_is_there = || match Catalog::read(&self.disk, &path) {
            Ok(there) => there.topics.get(name).is_some_and(|e| e.partition_count >= numbers.end),
            Err(_) => true,
        };
        let undone = (|| {
            if says_it_is_there() {
                // All but the last sync has succeeded. Nothing is removed as long as a power cut may leave it so.
                self.change_catalog(writing, |_| {})?;
            }
            self.remove_partitions(name, numbers.clone())?;
            self.change_catalog(writing, |catalog| forget_creation(catalog, name))
        })();
        if let Err(error) = undone {
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
        points.forget(name);
        // A topic that is created anew under this name must not inherit them.
        points.write(&self.disk, &self.root.join(file_name::RECOVERY_POINTS))?;
        drop(points);
        self.forget_cleaned(writing, name)?;
        self.forget_log_starts(writing, name)?;
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
}

/// More syncs at the same time than this are no faster on any disk that was measured.
const THREADS_MAX: usize = 8;

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
