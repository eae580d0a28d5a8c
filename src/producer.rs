//! Appending: `send`, `send_batch`, `flush`.
//!
//! Without a linger a send runs on the caller's thread from end to end: choose the partition, encode and
//! checksum into a buffer the thread keeps, append under the partition's lock. With one, the record is encoded
//! into its partition's stage, and appended with the others there; see [`accumulator`](crate::accumulator).

use std::cell::Cell;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::accumulator::Accumulator;
use crate::accumulator::Accumulators;
use crate::appender::Appender;
use crate::appender::accepted_timestamp;
use crate::config::Compression;
use crate::config::ConfigEntry;
use crate::config::Durability;
use crate::config::LogConfig;
use crate::delivery::AppendedBatch;
use crate::delivery::Delivery;
use crate::delivery::RecordMetadata;
use crate::delivery::Route;
use crate::error::Error;
use crate::error::Result;
use crate::format::encode::BatchBuilder;
use crate::name;
use crate::partitioner;
use crate::per_partition::PerPartition;
use crate::producer_config::ProducerConfig;
use crate::record::Record;
use crate::stage::Patience;
use crate::topic::KeepOpen;
use crate::topic::Topic;
use crate::topic::TopicPartition;
use crate::topic_state::TopicState;
use crate::topics::Topics;

/// Sends records. Cloning it is cheap, and all clones are one producer; use it from any thread.
///
/// ```
/// use ottla::{Record, Store, TopicConfig};
///
/// let store = Store::temporary()?;
/// let orders = store.create_topic("orders", TopicConfig::new())?;
/// let producer = store.producer();
/// for n in 0..100 {
///     let value = format!("order {n}");
///     let _delivery = producer.send(&orders, Record::new(&value).key("customer-7"))?;
/// }
/// producer.flush()?; // all hundred are on stable storage
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Debug)]
pub struct Producer {
    shared: Arc<ProducerState>,
    /// How many refusals of staged batches this clone's flushes have reported: each clone reports each once.
    failures_told: AtomicU64,
}

/// Sets up a [`Producer`].
///
/// ```
/// use ottla::{Durability, Store};
///
/// let store = Store::temporary()?;
/// let producer = store.producer_builder().durability(Durability::Buffered).build();
/// assert_eq!(producer.durability(), Durability::Buffered);
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct ProducerBuilder {
    topics: Arc<Topics>,
    keep_open: Keep,
    accumulators: Arc<Accumulators>,
    config: ProducerConfig,
    durability: Durability,
    checkpoint_interval: Duration,
    unwaited_within: Duration,
}

#[derive(Debug)]
struct ProducerState {
    topics: Arc<Topics>,
    appender: Arc<Appender>,
    /// `None` where every record is appended at once.
    accumulator: Option<Arc<Accumulator>>,
    routes: PerPartition<Route>,
    /// Let go last: what is staged is appended before the store closes.
    keep_open: Keep,
}

struct Keep(KeepOpen);

impl std::fmt::Debug for Keep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("store")
    }
}

impl ProducerBuilder {
    pub(crate) fn new(
        topics: Arc<Topics>,
        keep_open: KeepOpen,
        accumulators: Arc<Accumulators>,
        durability: Durability,
        checkpoint_interval: Duration,
        unwaited_within: Duration,
    ) -> ProducerBuilder {
        ProducerBuilder {
            topics,
            keep_open: Keep(keep_open),
            accumulators,
            config: ProducerConfig::default(),
            durability,
            checkpoint_interval,
            unwaited_within,
        }
    }

    /// Sets when deliveries complete; without it, the store's level.
    pub fn durability(mut self, durability: Durability) -> ProducerBuilder {
        self.durability = durability;
        self
    }

    /// Sets how long a record may wait for company (`linger.ms`); default zero, which appends each record at
    /// once. With more than zero, records are *staged*.
    ///
    /// A staged record is encoded into its partition's open batch, in this process's memory: no consumer sees
    /// it, it has no offset, and **it is lost if the process is killed or aborts**. It shares header, checksum,
    /// lock and append with the others in its batch, which makes a send of a small record several times as fast
    /// and its place in the file smaller. A batch is *sealed*, and then appended as a whole,
    ///
    /// * when the next record does not fit [`batch_bytes`](Self::batch_bytes);
    /// * when its first record was staged this long ago;
    /// * when somebody waits for one of its deliveries: the linger is for records that nobody waits for;
    /// * at a [`flush`](Producer::flush), a [`Store::sync`](crate::Store::sync) or a
    ///   [`Store::close`](crate::Store::close), when the last clone of the producer is dropped, and in front of a
    ///   [`send_batch`](Producer::send_batch) to the same partition;
    /// * when [`buffer_memory`](Self::buffer_memory) is needed for others.
    ///
    /// The order of a partition's records is that of their sends. Under
    /// [`Durability::Synced`](crate::Durability::Synced) a record is on stable storage some 10 ms after its batch
    /// was appended, waited for or not.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ottla::{Record, Store, TopicConfig};
    ///
    /// let store = Store::temporary()?;
    /// let clicks = store.create_topic("clicks", TopicConfig::new())?;
    /// let producer = store.producer_builder().linger(Duration::from_secs(60)).build();
    /// let deliveries = ["a", "b", "c"].map(|click| producer.send(&clicks, Record::new(click)));
    /// assert_eq!(clicks.partition(0)?.watermarks()?, (0, 0)); // nobody sees them yet
    /// producer.flush()?;
    /// assert_eq!(clicks.partition(0)?.watermarks()?, (0, 3));
    /// for (offset, delivery) in (0..).zip(deliveries) {
    ///     assert_eq!(delivery?.wait()?.offset(), offset);
    /// }
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn linger(mut self, linger: Duration) -> ProducerBuilder {
        self.config.set_linger(linger);
        self
    }

    /// Sets how many bytes, as encoded, a batch of staged records may have (`batch.size`); default 16 KiB. A
    /// batch is never longer than `max.message.bytes` and `segment.bytes` of its topic allow; a record that is
    /// longer than a batch goes in one of its own.
    ///
    /// Setting it makes the producer stage, as [`linger`](Self::linger) does. Without a linger, records are then
    /// staged for at most 5 ms. Zero makes each record a batch of its own, appended at once, whatever the linger.
    ///
    /// ```
    /// use ottla::{Record, Store, TopicConfig};
    ///
    /// let store = Store::temporary()?;
    /// let topic = store.create_topic("t", TopicConfig::new())?;
    /// let producer = store.producer_builder().batch_bytes(64 << 10).build();
    /// let delivery = producer.send(&topic, Record::new("waited for, so appended at once"))?;
    /// assert_eq!(delivery.wait()?.offset(), 0);
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn batch_bytes(mut self, bytes: usize) -> ProducerBuilder {
        self.config.set_batch_bytes(bytes);
        self
    }

    /// Sets how many bytes of memory staged records may take (`buffer.memory`); default 32 MiB. Each partition
    /// with staged records takes [`batch_bytes`](Self::batch_bytes) of it until its batch is in the log. Where it
    /// is used up, a send has the oldest batch sealed; where all of it is being appended by other threads, it
    /// waits, see [`max_block`](Self::max_block).
    ///
    /// ```
    /// use ottla::{Error, Record, Store, TopicConfig};
    ///
    /// let store = Store::temporary()?;
    /// let topic = store.create_topic("t", TopicConfig::new())?;
    /// let producer = store.producer_builder().batch_bytes(1024).buffer_memory(4096).build();
    /// let refused = producer.send(&topic, Record::new(&[0; 5000])).unwrap_err();
    /// assert!(matches!(refused, Error::RecordTooLarge { key: "buffer.memory", .. }));
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn buffer_memory(mut self, bytes: usize) -> ProducerBuilder {
        self.config.set_buffer_memory(bytes);
        self
    }

    /// Sets how long a send waits for memory (`max.block.ms`); default one minute.
    /// [`try_send`](Producer::try_send) does not wait.
    pub fn max_block(mut self, max_block: Duration) -> ProducerBuilder {
        self.config.set_max_block(max_block);
        self
    }

    /// Sets how batches are compressed (`compression.type`), in topics that leave it to the producer; default not at
    /// all. How hard it is tried is set by Kafka's names, see [`Compression`].
    ///
    /// The thread that appends a batch compresses it first. What does not become shorter is stored as it is, so a
    /// codec pays for batches of many records: with a [`linger`](Self::linger), or in
    /// [`send_batch`](Producer::send_batch). `max.message.bytes` is asked of what is stored, as in Kafka's broker; a
    /// staged record that does not fit it unpacked goes into a batch of its own, and if it does not fit it packed
    /// either, its delivery says so.
    ///
    /// # Errors
    ///
    /// * [`Error::InvalidConfig`] if this build does not have the codec; it names the feature.
    pub fn compression(self, compression: Compression) -> Result<ProducerBuilder> {
        self.set("compression.type", compression.name())
    }

    /// Sets a property by Kafka's name and in Kafka's spelling. Which of them do something,
    /// [`configs`](Self::configs) tells; `linger.ms`, `batch.size`, `buffer.memory`, `max.block.ms` and
    /// `compression.type` do.
    /// Properties that begin with `ssl.` or `sasl.` are accepted and forgotten.
    ///
    /// # Errors
    ///
    /// * [`Error::UnknownConfig`] if Kafka has no producer property of this name.
    /// * [`Error::InvalidConfig`] if the value is outside the property's range.
    ///
    /// ```
    /// let store = ottla::Store::temporary()?;
    /// let builder = store.producer_builder().set("linger.ms", "5")?.set("acks", "all")?;
    /// assert!(store.producer_builder().set("linger", "5").is_err());
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn set(mut self, key: &str, value: &str) -> Result<ProducerBuilder> {
        self.config.set(key, value)?;
        Ok(self)
    }

    /// Lists Kafka's producer properties in the order of their names: values as set or by default, and whether
    /// they do something here.
    ///
    /// ```
    /// use ottla::ConfigEffect;
    ///
    /// let store = ottla::Store::temporary()?;
    /// let configs = store.producer_builder().set("request.timeout.ms", "100")?.configs();
    /// let effect_of = |name| configs.iter().find(|config| config.name == name).map(|c| c.effect);
    /// assert_eq!(effect_of("linger.ms"), Some(ConfigEffect::InForce));
    /// assert_eq!(effect_of("request.timeout.ms"), Some(ConfigEffect::NoNetwork));
    /// assert_eq!(effect_of("acks"), Some(ConfigEffect::KeptOnly));
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn configs(&self) -> Vec<ConfigEntry> {
        self.config.entries()
    }

    /// Makes the producer.
    pub fn build(self) -> Producer {
        let sync_within = match self.durability {
            Durability::Every(interval) => interval.min(self.checkpoint_interval),
            Durability::Synced => self.unwaited_within.min(self.checkpoint_interval),
            Durability::Buffered => self.checkpoint_interval,
        };
        let appender = Arc::new(Appender::new(self.durability, sync_within, self.config.packing()));
        let accumulator = self.config.staging().map(|staging| {
            let (topics, appender) = (Arc::clone(&self.topics), Arc::clone(&appender));
            let accumulator = Arc::new(Accumulator::new(topics, appender, staging));
            self.accumulators.register(&accumulator);
            accumulator
        });
        let shared = ProducerState {
            topics: self.topics,
            appender,
            accumulator,
            routes: PerPartition::new(),
            keep_open: self.keep_open,
        };
        Producer { shared: Arc::new(shared), failures_told: AtomicU64::new(0) }
    }
}

impl Clone for Producer {
    fn clone(&self) -> Producer {
        // Relaxed: a number that orders nothing.
        let told = self.failures_told.load(Ordering::Relaxed);
        Producer { shared: Arc::clone(&self.shared), failures_told: AtomicU64::new(told) }
    }
}

impl Drop for ProducerState {
    fn drop(&mut self) {
        if let Some(accumulator) = &self.accumulator {
            // Nobody is left to tell; what was refused shows in the store's health.
            accumulator.close().unwrap_or_default();
        }
    }
}

impl Producer {
    /// Appends a record and returns the promise of its durability.
    ///
    /// On return the record has its place in the log, consumers see it, and it survives the death of the
    /// process; whether it survives a power cut is what the [`Delivery`] tells. Blocks while another
    /// thread appends to the same partition, never for a sync unless a segment has to be closed.
    ///
    /// If the producer [stages](ProducerBuilder::linger), the record is in a batch in memory instead, and what is
    /// said above holds once the batch was sealed. A send that finds a batch full appends it. If there is no memory
    /// left, it blocks until there is, at most [`max_block`](ProducerBuilder::max_block).
    ///
    /// # Errors
    ///
    /// In each case nothing was appended and later sends are unaffected, unless said otherwise.
    ///
    /// * [`Error::RecordTooLarge`] if the encoded batch exceeds `max.message.bytes` or `segment.bytes`.
    /// * [`Error::InvalidTimestamp`] if it is negative or outside what the topic accepts.
    /// * [`Error::InvalidRecord`] if the topic is compacted and the key is null.
    /// * [`Error::UnknownPartition`] if the record names one that the topic does not have.
    /// * [`Error::OutOfSpace`]: may succeed once there is space again.
    /// * [`Error::InternalTopic`] if groups or transactions keep their papers in it.
    /// * [`Error::TopicDeleted`], [`Error::ReadOnly`], [`Error::Closed`], [`Error::Unavailable`].
    /// * [`Error::Latched`] after a failed write or sync, now or earlier: reopen the store.
    /// * If the producer stages: [`Error::BufferFull`] if no memory came free in time. What concerns the disk is
    ///   then found out when the batch is appended, and reported by its deliveries, the next flush and the close.
    #[inline]
    pub fn send<'r>(&self, topic: &Topic, record: impl Into<Record<'r>>) -> Result<Delivery> {
        self.send_record(topic, &record.into(), Patience::Waits)
    }

    /// As [`send`](Self::send), but does not wait for memory where the producer [stages](ProducerBuilder::linger).
    ///
    /// # Errors
    ///
    /// * [`Error::BufferFull`] if there is no memory now; the record was not taken.
    /// * As [`send`](Self::send).
    ///
    /// ```
    /// use std::time::Duration;
    /// use ottla::{Error, Record, Store, TopicConfig};
    ///
    /// let store = Store::temporary()?;
    /// let topic = store.create_topic("t", TopicConfig::new())?;
    /// let producer = store.producer_builder().linger(Duration::from_millis(5)).build();
    /// match producer.try_send(&topic, Record::new("metric")) {
    ///     Ok(_delivery) => {}
    ///     Err(Error::BufferFull { .. }) => println!("one metric less"),
    ///     Err(other) => return Err(other),
    /// }
    /// # Ok::<(), ottla::Error>(())
    /// ```
    #[inline]
    pub fn try_send<'r>(&self, topic: &Topic, record: impl Into<Record<'r>>) -> Result<Delivery> {
        self.send_record(topic, &record.into(), Patience::DoesNotWait)
    }

    fn send_record(
        &self,
        topic: &Topic,
        record: &Record<'_>,
        patience: Patience,
    ) -> Result<Delivery> {
        self.check(topic)?;
        match &self.shared.accumulator {
            Some(accumulator) => accumulator.send(&topic.state, record, patience),
            None => self.send_alone(topic, record),
        }
    }

    #[inline]
    fn send_alone(&self, topic: &Topic, record: &Record<'_>) -> Result<Delivery> {
        let count = topic.partition_count();
        let number = partitioner::partition_for(record, count, &topic.state.sticky);
        let mut borrowed = Borrowed::take();
        let scratch = borrowed.scratch(&topic.state);
        let now_ms = self.shared.topics.clock().recent_ms();
        let timestamp_ms = accepted_timestamp(record, &scratch.rules, now_ms)?;
        scratch.builder.push(record, timestamp_ms)?;
        let made;
        let route = match self.shared.routes.get(&topic.state, number) {
            Some(route) => route,
            None => {
                made = self.find_or_make_route(topic, number)?;
                &made
            }
        };
        match self.append(route, scratch) {
            Ok(delivery) => {
                let len = scratch.builder.len();
                partitioner::note_sticky(record, count, &topic.state.sticky, len);
                Ok(delivery)
            }
            Err(error) => Err(*error),
        }
    }

    /// Appends records to one partition as one batch: all of them, with consecutive offsets, or none.
    ///
    /// # Errors
    ///
    /// * [`Error::InvalidRecord`] if there is no record, or one names another partition.
    /// * As [`send`](Self::send), for the batch as a whole; one bad record refuses it.
    ///
    /// ```
    /// use ottla::{Record, Store, TopicConfig};
    ///
    /// let store = Store::temporary()?;
    /// let orders = store.create_topic("orders", TopicConfig::new())?;
    /// let batch = [Record::new("paid").key("a"), Record::new("shipped").key("a")];
    /// let sent = store.producer().send_batch(&orders.partition(0)?, batch)?.wait()?;
    /// assert_eq!(sent.offsets(), 0..2);
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn send_batch<'r, R>(
        &self,
        partition: &TopicPartition,
        records: impl IntoIterator<Item = R>,
    ) -> Result<Delivery>
    where
        R: Into<Record<'r>>,
    {
        let topic = partition.topic();
        self.check(topic)?;
        let number = partition.partition();
        let route = self.find_or_make_route(topic, number)?;
        let now_ms = self.shared.topics.clock().recent_ms();
        let mut borrowed = Borrowed::take();
        let scratch = borrowed.scratch(&topic.state);
        for record in records {
            let record = record.into();
            if record.partition.is_some_and(|named| named != number) {
                return Err(Error::InvalidRecord {
                    reason: "it names another partition than its batch",
                });
            }
            let timestamp_ms = accepted_timestamp(&record, &scratch.rules, now_ms)?;
            scratch.builder.push(&record, timestamp_ms)?;
        }
        if scratch.builder.record_count() == 0 {
            return Err(Error::InvalidRecord { reason: "the batch has no records" });
        }
        if let Some(accumulator) = &self.shared.accumulator {
            accumulator.flush_partition(&topic.state, number);
        }
        self.append(&route, scratch).map_err(|error| *error)
    }

    /// Blocks until everything this producer sent before is as durable as its level promises; what is staged is
    /// appended first.
    ///
    /// # Errors
    ///
    /// * [`Error::Latched`] if a sync failed; the other partitions were synchronised all the same.
    /// * If the producer stages, also what kept a batch from the log since the last flush of this clone, whether
    ///   or not a delivery has told it; see [`Delivery::wait`]. Everything else was appended all the same.
    pub fn flush(&self) -> Result<()> {
        let mut refused = Ok(());
        if let Some(accumulator) = &self.shared.accumulator {
            accumulator.flush();
            // Relaxed: each clone counts for itself, and the failures are under a lock.
            let told = self.failures_told.load(Ordering::Relaxed);
            if let Some((count, error)) = accumulator.failure_since(told) {
                self.failures_told.fetch_max(count, Ordering::Relaxed);
                refused = Err(error);
            }
        }
        self.shared.appender.wait_durable().and(refused)
    }

    /// Gives the producer's level.
    pub fn durability(&self) -> Durability {
        self.shared.appender.durability()
    }

    #[inline]
    fn check(&self, topic: &Topic) -> Result<()> {
        let topics = &self.shared.topics;
        if topics.takes_records() && !topic.state.is_deleted() && topic.belongs_to(topics) {
            return Ok(());
        }
        self.refuse(topic)
    }

    #[cold]
    fn refuse(&self, topic: &Topic) -> Result<()> {
        self.shared.topics.refuse_writing("send a record")?;
        topic.state.refuse_if_deleted()?;
        if !topic.belongs_to(&self.shared.topics) {
            let reason = "it belongs to another store";
            return Err(Error::InvalidArgument { argument: "topic", reason });
        }
        Ok(())
    }

    #[cold]
    fn find_or_make_route(&self, topic: &Topic, number: u32) -> Result<Arc<Route>> {
        let make = || {
            name::refuse_internal(topic.name())?;
            Ok(Route {
                topic: Arc::clone(&topic.state),
                partition: topic.state.open_partition(number)?,
                number,
                _keep_open: Arc::clone(&self.shared.keep_open.0),
            })
        };
        // A route keeps its topic, so that is asked whether it was deleted.
        let is_over = |topic: &Weak<TopicState>| topic.upgrade().is_none_or(|t| t.is_deleted());
        self.shared.routes.find_or_make(&topic.state, number, make, is_over)
    }

    /// Boxes the error: a result as large as one would be put together in memory, and read from there.
    #[inline]
    fn append(&self, route: &Arc<Route>, scratch: &mut Scratch) -> Result<Delivery, Box<Error>> {
        let Scratch { builder, rules, .. } = scratch;
        self.shared.appender.pack(rules.packing, builder);
        let mut batch = builder.seal(rules.timestamp_type);
        let (len, limit) = (batch.len(), rules.batch_bytes_max);
        if len > limit {
            let key = "max.message.bytes";
            return Err(Box::new(Error::RecordTooLarge { len, limit, key }));
        }
        let appender = &self.shared.appender;
        let appended = appender.append(&route.topic, &route.partition, &mut batch)?;
        let offsets = appended.offsets;
        let timestamp_ms = appended.append_time_ms.unwrap_or(batch.max_timestamp_ms());
        Ok(if appender.waits_for_sync() {
            Delivery::appended(AppendedBatch { route: Arc::clone(route), offsets, timestamp_ms })
        } else {
            let (topic, partition) = (route.topic.topic_name().clone(), route.number);
            Delivery::done(RecordMetadata { topic, partition, offsets, timestamp_ms })
        })
    }
}

/// What a thread keeps between its sends.
#[derive(Default)]
struct Scratch {
    builder: BatchBuilder,
    /// The rules of the topic that was sent to last, and their version.
    rules: LogConfig,
    rules_version: u64,
}

/// A thread's scratch, borrowed from it; whatever the caller's iterators do meanwhile, including sending,
/// finds the thread's slot empty and makes another.
struct Borrowed(Option<Box<Scratch>>);

impl Borrowed {
    #[inline]
    fn take() -> Borrowed {
        Borrowed(Some(SCRATCH.try_with(Cell::take).ok().flatten().unwrap_or_default()))
    }

    #[inline]
    fn scratch(&mut self, topic: &TopicState) -> &mut Scratch {
        let scratch = self.0.get_or_insert_default();
        scratch.builder.clear();
        let version = topic.settings_version();
        if version != scratch.rules_version {
            scratch.rules = *topic.log_config();
            scratch.rules_version = version;
        }
        scratch
    }
}

impl Drop for Borrowed {
    #[inline]
    fn drop(&mut self) {
        // A thread that is ending has no slot any more; then the buffer goes too.
        SCRATCH.try_with(|slot| slot.set(self.0.take())).unwrap_or_default();
    }
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}
