//! Opening a data directory, finding topics in it, closing it.
//!
//! A [`Store`] and everything made from it share one `Shared`. The directory stays open until the last of
//! them is gone or somebody calls [`Store::close`].

use std::collections::hash_map::RandomState;
use std::fmt;
use std::fs;
use std::hash::BuildHasher;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::accumulator::Accumulators;
use crate::config::Durability;
use crate::config::TopicConfig;
use crate::consumer_builder::ConsumerBuilder;
use crate::consumer_group::ConsumerGroup;
use crate::coordinator;
use crate::coordinator::Coordinator;
use crate::error::Error;
use crate::error::Result;
use crate::health::Health;
use crate::maintenance::Maintenance;
use crate::name;
use crate::partition::live_tails::LiveTails;
use crate::partition::removing::Patience;
use crate::producer::Producer;
use crate::producer::ProducerBuilder;
use crate::request::claims::Claims;
use crate::request::requester_builder::RequesterBuilder;
use crate::request::responder::ResponderBuilder;
use crate::storage::disk;
use crate::storage::file_name;
use crate::store::builder::BYTES_MAX_MIN;
use crate::store::builder::CHECKPOINT_INTERVAL;
use crate::store::builder::RETENTION_INTERVAL;
use crate::store::builder::StoreBuilder;
use crate::store::builder::UNWAITED_WITHIN;
use crate::topic::KeepOpen;
use crate::topic::Topic;
use crate::topic_state::TopicState;
use crate::topics::Topics;
use crate::topics::retaining::Retained;

pub(crate) mod builder;

/// An open data directory. Cloning it is cheap; all clones, and every handle made from them, keep it open.
///
/// One process at a time opens a directory for writing, any number read it beside.
///
/// ```
/// use ottla::{Record, Store, TopicConfig};
///
/// # let directory = tempfile::tempdir().map_err(|_| ottla::Error::Closed)?;
/// # let path = directory.path().join("data");
/// let store = Store::open(&path)?;
/// let orders = store.create_topic("orders", TopicConfig::new())?;
/// store.producer().send(&orders, Record::new("paid"))?.wait()?;
/// drop(orders);
/// store.close()?;
///
/// let store = Store::open(&path)?;
/// assert_eq!(store.topic("orders")?.partition(0)?.watermarks()?, (0, 1));
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

/// What all handles of one open directory share.
struct Shared {
    topics: Arc<Topics>,
    coordinator: Arc<Coordinator>,
    /// Where producers stage records.
    accumulators: Arc<Accumulators>,
    /// What requesters have to themselves.
    claims: Arc<Claims>,
    maintenance: Mutex<Option<Maintenance>>,
    durability: Durability,
    checkpoint_interval: Duration,
    /// A synced record that nobody waits for is on stable storage about so much later.
    unwaited_within: Duration,
    remove_at_end: bool,
}

impl Store {
    /// Opens a data directory for writing, making it if need be.
    ///
    /// After a crash this puts the directory in order without help: torn tails are cut, indexes rebuilt.
    /// After a clean close it reads nothing but the ends of the logs.
    ///
    /// # Errors
    ///
    /// * [`Error::Locked`] if another process or another `Store` has it open for writing.
    /// * [`Error::NotADataDirectory`] if the path is something else.
    /// * [`Error::Corrupt`] if the list of topics is damaged; a damaged *partition* is no error here, see
    ///   [`health`](Self::health).
    /// * [`Error::Io`], [`Error::OutOfSpace`].
    pub fn open(root: impl AsRef<Path>) -> Result<Store> {
        Store::builder(root).open()
    }

    /// Begins to set up a store.
    pub fn builder(root: impl AsRef<Path>) -> StoreBuilder {
        StoreBuilder::new(root.as_ref())
    }

    /// Opens a new directory among the system's temporary files; it is removed with the last handle.
    ///
    /// # Errors
    ///
    /// * [`Error::Io`], [`Error::OutOfSpace`].
    pub fn temporary() -> Result<Store> {
        Store::builder_temporary().open()
    }

    /// Begins to set up a store in a temporary directory.
    pub fn builder_temporary() -> StoreBuilder {
        let unique = RandomState::new().hash_one(0);
        let name = format!("ottla-{}-{unique:016x}", std::process::id());
        let mut builder = Store::builder(std::env::temp_dir().join(name));
        builder.is_temporary = true;
        builder
    }

    /// Opens a directory for reading, while another process, or this one, may be writing to it.
    ///
    /// Takes no lock and writes nothing. What the writer appends is seen as it comes.
    ///
    /// # Errors
    ///
    /// * [`Error::NotADataDirectory`] if there is none. [`Error::Io`], [`Error::Corrupt`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use ottla::{Record, Store, TopicConfig};
    ///
    /// let writer = Store::temporary()?;
    /// let topic = writer.create_topic("t", TopicConfig::new())?;
    /// writer.producer().send(&topic, Record::new("seen elsewhere"))?.wait()?;
    ///
    /// let reader = Store::open_read_only(writer.path())?;
    /// let mut consumer = reader.consumer().assign(reader.topic("t")?.partitions())?;
    /// assert_eq!(consumer.poll(Duration::from_secs(5))?.count(), 1);
    /// assert!(reader.create_topic("no", TopicConfig::new()).is_err());
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn open_read_only(root: impl AsRef<Path>) -> Result<Store> {
        Store::read_only(Store::builder(root))
    }

    pub(crate) fn read_only(builder: StoreBuilder) -> Result<Store> {
        let root = disk::absolute(&builder.root)?;
        builder.disk.refuse_if_not_directory(&root)?;
        let (attention, asked) = crossbeam_channel::unbounded();
        let topics = Topics::open_read_only(&root, builder.disk, builder.clock, attention)?;
        let topics = Arc::new(topics);
        let (record, retain) = (CHECKPOINT_INTERVAL, RETENTION_INTERVAL);
        let maintenance = Maintenance::start(&topics, asked, record, builder.cleaner, retain)?;
        Ok(Store {
            shared: Arc::new(Shared {
                coordinator: Arc::new(Coordinator::new(Arc::clone(&topics), UNWAITED_WITHIN)),
                topics,
                accumulators: Arc::default(),
                claims: Arc::default(),
                maintenance: Mutex::new(Some(maintenance)),
                durability: Durability::Buffered,
                checkpoint_interval: CHECKPOINT_INTERVAL,
                unwaited_within: UNWAITED_WITHIN,
                remove_at_end: false,
            }),
        })
    }

    /// Gives the data directory.
    pub fn path(&self) -> &Path {
        self.shared.topics.root()
    }

    /// Creates a topic; once this returns it survives a power cut.
    ///
    /// # Errors
    ///
    /// Nothing is left behind in either case.
    ///
    /// * [`Error::InvalidTopic`] if Kafka would refuse the name, or another topic's differs from it only
    ///   in `.` and `_`.
    /// * [`Error::InternalTopic`] if groups or transactions keep their papers under that name.
    /// * [`Error::TopicExists`], [`Error::InvalidPartitions`], [`Error::InvalidConfig`].
    /// * [`Error::ReadOnly`], [`Error::Closed`], [`Error::OutOfSpace`], [`Error::Io`].
    pub fn create_topic(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        name::refuse_internal(name)?;
        let state = self.shared.topics.create(name, config)?;
        Ok(self.handle(state))
    }

    /// Gives a topic, creating it if there is none of this name.
    ///
    /// # Errors
    ///
    /// * As [`create_topic`](Self::create_topic), except that an existing topic is no error; its
    ///   configuration stays as it is.
    pub fn topic_or_create(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        match self.create_topic(name, config) {
            Err(Error::TopicExists { .. }) => self.topic(name),
            other => other,
        }
    }

    /// Gives a topic by its name.
    ///
    /// # Errors
    ///
    /// * [`Error::UnknownTopic`], [`Error::Closed`].
    pub fn topic(&self, name: &str) -> Result<Topic> {
        Ok(self.handle(self.shared.topics.find(name)?))
    }

    /// Lists all topics in the order of their names.
    ///
    /// # Errors
    ///
    /// * [`Error::Closed`]; where the store is read-only, also [`Error::Io`], [`Error::Corrupt`].
    pub fn topics(&self) -> Result<Vec<Topic>> {
        let states = self.shared.topics.all()?;
        Ok(states.into_iter().map(|state| self.handle(state)).collect())
    }

    /// Deletes a topic and its records. Nobody finds it once this returns, and a topic of the same name
    /// may be created at once; records that somebody still holds stay readable to them.
    ///
    /// # Errors
    ///
    /// * [`Error::UnknownTopic`], [`Error::InternalTopic`], [`Error::ReadOnly`], [`Error::Closed`]: nothing was deleted.
    /// * [`Error::Unavailable`] if what groups committed of it may lie where nothing can be read; [`Error::Latched`] if
    ///   it could not be made durable that they have forgotten it. The topic is there.
    /// * [`Error::Io`], [`Error::OutOfSpace`]: if the topic is not listed any more, the next open finishes
    ///   the deletion.
    ///
    /// ```
    /// let store = ottla::Store::temporary()?;
    /// let topic = store.create_topic("t", ottla::TopicConfig::new())?;
    /// store.delete_topic("t")?;
    /// assert!(store.producer().send(&topic, "too late").is_err());
    /// assert!(store.topics()?.is_empty());
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        name::refuse_internal(name)?;
        self.shared.coordinator.delete_topic(name)
    }

    /// Makes a producer with the store's durability.
    pub fn producer(&self) -> Producer {
        self.producer_builder().build()
    }

    /// Begins to set up a producer.
    pub fn producer_builder(&self) -> ProducerBuilder {
        ProducerBuilder::new(
            Arc::clone(&self.shared.topics),
            self.keep_open(),
            Arc::clone(&self.shared.accumulators),
            self.shared.durability,
            self.shared.checkpoint_interval,
            self.shared.unwaited_within,
        )
    }

    /// Begins to set up a consumer.
    pub fn consumer(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(Arc::clone(&self.shared.coordinator), self.keep_open())
    }

    /// Begins to set up a requester: requests go to this topic, and their replies come to the one who asked.
    pub fn requester(&self, requests: &Topic) -> RequesterBuilder {
        RequesterBuilder::new(
            Arc::clone(&self.shared.coordinator),
            self.keep_open(),
            Arc::clone(&self.shared.claims),
            self.producer_builder(),
            self.consumer(),
            requests,
        )
    }

    /// Begins to set up a responder: the requests in this topic are shared among all responders of the group.
    pub fn responder(&self, requests: &Topic, group: &str) -> ResponderBuilder {
        ResponderBuilder::new(
            Arc::clone(&self.shared.coordinator),
            self.keep_open(),
            self.producer_builder(),
            self.consumer(),
            requests,
            group,
        )
    }

    /// Lists the groups that have members or anything on record, by id.
    ///
    /// # Errors
    ///
    /// * [`Error::Closed`]; [`Error::Io`] if their papers cannot be read.
    pub fn groups(&self) -> Result<Vec<ConsumerGroup>> {
        let groups = self.shared.coordinator.all()?;
        groups.iter().map(|group| self.group(group.id())).collect()
    }

    /// Gives a handle to a group, to look at it and to change what it committed. It need not exist.
    ///
    /// # Errors
    ///
    /// * [`Error::InvalidGroup`], [`Error::Closed`].
    pub fn group(&self, id: &str) -> Result<ConsumerGroup> {
        coordinator::check_group_id(id)?;
        self.shared.topics.refuse_if_closed()?;
        Ok(ConsumerGroup::new(id, Arc::clone(&self.shared.coordinator), self.keep_open()))
    }

    /// Blocks until everything that was sent before is on stable storage, whoever sent it; what producers
    /// [stage](crate::ProducerBuilder::linger) is appended first.
    ///
    /// # Errors
    ///
    /// * [`Error::Latched`] if a partition could not be synchronised; the others were. What was refused of that
    ///   which was staged, the producer's next [`flush`](Producer::flush) reports.
    pub fn sync(&self) -> Result<()> {
        self.shared.topics.refuse_if_closed()?;
        self.shared.accumulators.flush();
        let mut first_error = None;
        let mut open = self.shared.topics.all_open();
        open.retain(|(_, _, partition)| !partition.is_followed());
        // The syncs overlap: this thread leads the first, the background has begun the others.
        open.iter().skip(1).for_each(|(_, _, other)| other.hasten());
        for (_, _, partition) in open {
            if let Err(error) = partition.wait_durable(partition.watermarks().log_end()) {
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Applies retention now, as the background does once an interval
    /// ([`retention_check_interval`](StoreBuilder::retention_check_interval)): `retention.ms`, `retention.bytes`. Says
    /// what went. Then segments that are older than `segment.ms` are closed, also those that nothing was appended to
    /// since the store was opened.
    ///
    /// The rules are Kafka's, with one difference: the age of a segment is the time since its greatest record timestamp
    /// *or* since its file was changed last, whichever is shorter; and a wall clock that leaps ahead by more than an hour
    /// is believed only after it has been ahead for an hour ([`Health::clock_ahead_ms`]). Blocks while what goes is sealed, is put on record
    /// and removed, and while a compaction of a partition is under way.
    ///
    /// # Errors
    ///
    /// * [`Error::ReadOnly`], [`Error::Closed`]: nothing went.
    /// * [`Error::Io`], [`Error::OutOfSpace`], and others: the first that went wrong; other partitions were seen to
    ///   nevertheless, and what is left goes with the next attempt.
    pub fn apply_retention(&self) -> Result<Retained> {
        let topics = &self.shared.topics;
        topics.refuse_writing("apply retention")?;
        topics.retain(&topics.all_open(), Patience::Wait)
    }

    /// Tells what recovery did when the store was opened, what has failed since, what the store takes, what retention
    /// lets go of next, and which groups it has overtaken. Looks at the files of every partition.
    pub fn health(&self) -> Health {
        Health::of(&self.shared.topics, &self.shared.coordinator)
    }

    /// Closes the directory: what is staged appended, everything durable, files as Kafka leaves them, the next
    /// open quick.
    ///
    /// Other handles get [`Error::Closed`] from now on; the directory stays locked until the last of
    /// them is gone. Dropping the last handle closes as well, but cannot report errors.
    ///
    /// # Errors
    ///
    /// * The first thing that went wrong; then the next open recovers as after a crash, and everything
    ///   that was acknowledged is there.
    /// * Whatever kept staged records from the log, now or earlier, unless a flush has reported it; then the
    ///   directory was closed all the same.
    pub fn close(self) -> Result<()> {
        self.shared.close()
    }

    #[cfg(test)]
    pub(crate) fn topics_for_test(&self) -> &Arc<Topics> {
        &self.shared.topics
    }

    #[cfg(test)]
    pub(crate) fn coordinator_for_test(&self) -> &Arc<Coordinator> {
        &self.shared.coordinator
    }

    fn handle(&self, state: Arc<TopicState>) -> Topic {
        Topic::new(state, Arc::clone(&self.shared.topics), self.keep_open())
    }

    fn keep_open(&self) -> KeepOpen {
        Arc::clone(&self.shared) as KeepOpen
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl StoreBuilder {
    /// Opens the directory for writing.
    ///
    /// # Errors
    ///
    /// * As [`Store::open`]; [`Error::InvalidArgument`] if [`bytes_max`](Self::bytes_max) is below 64 KiB.
    pub fn open(self) -> Result<Store> {
        let root = disk::absolute(&self.root)?;
        if self.create && !self.disk.exists(&root)? {
            self.disk.create_directories(&root)?;
        }
        self.disk.refuse_if_not_directory(&root)?;
        if !self.disk.exists(&root.join(file_name::TOPICS))? {
            // The first life here, or one that follows on another which ended before the directory had a durable name.
            self.disk.sync_name(&root)?;
        }
        let (attention, asked) = crossbeam_channel::unbounded();
        let mut live_tails = LiveTails::default();
        #[cfg(test)]
        if let Some(count_max) = self.live_tails_max {
            live_tails = LiveTails::new(count_max);
        }
        if let Some(bytes) = self.unsynced_bytes_max {
            live_tails = live_tails.with_unsealed_bytes_max(bytes);
        }
        if self.limit.is_some_and(|limit| limit.bytes_max < BYTES_MAX_MIN) {
            let reason = "a store needs 64 KiB at least";
            return Err(Error::InvalidArgument { argument: "bytes_max", reason });
        }
        let (limits, disk, clock) = ((self.cleaning, self.limit), self.disk, self.clock);
        let topics = Topics::open(&root, disk, clock, attention, live_tails, limits)?;
        let topics = Arc::new(topics);
        topics.serve_budget();
        // From here on a leap of the clock is noticed.
        topics.retention_ms();
        let (record, retain) = (self.checkpoint_interval, self.retention_interval);
        #[cfg(test)]
        let is_left_alone = self.is_left_alone;
        #[cfg(not(test))]
        let is_left_alone = false;
        let maintenance = match is_left_alone {
            true => None,
            false => Some(Maintenance::start(&topics, asked, record, self.cleaner, retain)?),
        };
        Ok(Store {
            shared: Arc::new(Shared {
                coordinator: Arc::new(Coordinator::new(Arc::clone(&topics), self.unwaited_within)),
                topics,
                accumulators: Arc::default(),
                claims: Arc::default(),
                maintenance: Mutex::new(maintenance),
                durability: self.durability,
                checkpoint_interval: self.checkpoint_interval,
                unwaited_within: self.unwaited_within,
                remove_at_end: self.is_temporary,
            }),
        })
    }
}

impl Shared {
    fn close(&self) -> Result<()> {
        if let Some(mut maintenance) = self.maintenance.lock().take() {
            maintenance.stop();
        }
        // While partitions still take appends, and though some may not.
        let refused = self.accumulators.close();
        let recorded = self.coordinator.close();
        self.topics.close().and(refused).and(recorded)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Nobody is left to tell; what did not get durable is found by the next open.
        drop(self.close());
        if self.remove_at_end {
            drop(fs::remove_dir_all(self.topics.root()));
        }
    }
}
