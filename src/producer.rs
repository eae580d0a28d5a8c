//! Appending: `send`, `send_batch`, `flush`.
//!
//! A send runs on the caller's thread from end to end: choose the partition, encode and checksum into a
//! buffer the thread keeps, append under the partition's lock. There is no queue and no second thread.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::Durability;
use crate::config::LogConfig;
use crate::config::TimestampType;
use crate::delivery::Delivery;
use crate::delivery::RecordMetadata;
use crate::error::Error;
use crate::error::Result;
use crate::format::encode::BatchBuilder;
use crate::partition::Partition;
use crate::partitioner;
use crate::record::Record;
use crate::storage::map::Door;
use crate::topic::KeepOpen;
use crate::topic::Topic;
use crate::topic::TopicPartition;
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
#[derive(Clone, Debug)]
pub struct Producer {
    shared: Arc<ProducerState>,
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
    durability: Durability,
    checkpoint_interval: Duration,
    unwaited_within: Duration,
}

#[derive(Debug)]
struct ProducerState {
    topics: Arc<Topics>,
    keep_open: Keep,
    durability: Durability,
    /// An append is on stable storage this much later even if nobody waits for it.
    sync_within: Duration,
    /// What `flush` has to wait for: partitions that got records, and up to where. An entry leaves only
    /// once that is durable, so that every flush waits for everything sent before it.
    touched: Mutex<Vec<Touched>>,
}

#[derive(Clone, Debug)]
struct Touched {
    partition: Arc<Partition>,
    end: i64,
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
        durability: Durability,
        checkpoint_interval: Duration,
        unwaited_within: Duration,
    ) -> ProducerBuilder {
        let keep_open = Keep(keep_open);
        ProducerBuilder { topics, keep_open, durability, checkpoint_interval, unwaited_within }
    }

    /// Sets when deliveries complete; without it, the store's level.
    pub fn durability(mut self, durability: Durability) -> ProducerBuilder {
        self.durability = durability;
        self
    }

    /// Makes the producer.
    pub fn build(self) -> Producer {
        let sync_within = match self.durability {
            Durability::Every(interval) => interval.min(self.checkpoint_interval),
            Durability::Synced => self.unwaited_within.min(self.checkpoint_interval),
            Durability::Buffered => self.checkpoint_interval,
        };
        Producer {
            shared: Arc::new(ProducerState {
                topics: self.topics,
                keep_open: self.keep_open,
                durability: self.durability,
                sync_within,
                touched: Mutex::default(),
            }),
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
    /// # Errors
    ///
    /// In each case nothing was appended and later sends are unaffected, unless said otherwise.
    ///
    /// * [`Error::RecordTooLarge`] if the encoded batch exceeds `max.message.bytes` or `segment.bytes`.
    /// * [`Error::InvalidTimestamp`] if it is negative or outside what the topic accepts.
    /// * [`Error::InvalidRecord`] if the topic is compacted and the key is null.
    /// * [`Error::UnknownPartition`] if the record names one that the topic does not have.
    /// * [`Error::OutOfSpace`]: may succeed once there is space again.
    /// * [`Error::TopicDeleted`], [`Error::ReadOnly`], [`Error::Closed`], [`Error::Unavailable`].
    /// * [`Error::Latched`] after a failed write or sync, now or earlier: reopen the store.
    pub fn send<'r>(&self, topic: &Topic, record: impl Into<Record<'r>>) -> Result<Delivery> {
        let record = record.into();
        self.check(topic)?;
        let count = topic.partition_count();
        let number = partitioner::partition_for(&record, count, &topic.state.sticky);
        let partition = topic.state.open_partition(number)?;
        let config = topic.state.log_config();
        let now_ms = self.shared.topics.clock().now_ms();
        let mut scratch = Scratch::take();
        let timestamp_ms = accepted_timestamp(&record, &config, now_ms)?;
        scratch.builder.push(&record, timestamp_ms)?;
        let (delivery, len) = self.append(topic, number, partition, &config, &mut scratch)?;
        partitioner::note_sticky(&record, count, &topic.state.sticky, len);
        Ok(delivery)
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
        let open = topic.state.open_partition(number)?;
        let config = topic.state.log_config();
        let now_ms = self.shared.topics.clock().now_ms();
        let mut scratch = Scratch::take();
        for record in records {
            let record = record.into();
            if record.partition.is_some_and(|named| named != number) {
                return Err(Error::InvalidRecord {
                    reason: "it names another partition than its batch",
                });
            }
            let timestamp_ms = accepted_timestamp(&record, &config, now_ms)?;
            scratch.builder.push(&record, timestamp_ms)?;
        }
        if scratch.builder.record_count() == 0 {
            return Err(Error::InvalidRecord { reason: "the batch has no records" });
        }
        let (delivery, _) = self.append(topic, number, open, &config, &mut scratch)?;
        Ok(delivery)
    }

    /// Blocks until everything this producer sent before is as durable as its level promises.
    ///
    /// # Errors
    ///
    /// * [`Error::Latched`] if a sync failed; the other partitions were synchronised all the same.
    pub fn flush(&self) -> Result<()> {
        let touched = self.shared.touched.lock().clone();
        let mut first_error = None;
        for Touched { partition, end } in &touched {
            if let Err(error) = partition.wait_durable(*end) {
                if !partition.is_deleted() {
                    first_error.get_or_insert(error);
                }
            }
            let is_settled =
                |other: &Touched| Arc::ptr_eq(&other.partition, partition) && other.end <= *end;
            self.shared.touched.lock().retain(|other| !is_settled(other));
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Gives the producer's level.
    pub fn durability(&self) -> Durability {
        self.shared.durability
    }

    fn check(&self, topic: &Topic) -> Result<()> {
        self.shared.topics.refuse_writing("send a record")?;
        topic.state.refuse_if_deleted()?;
        if !topic.belongs_to(&self.shared.topics) {
            let reason = "it belongs to another store";
            return Err(Error::InvalidArgument { argument: "topic", reason });
        }
        Ok(())
    }

    fn append(
        &self,
        topic: &Topic,
        number: u32,
        partition: Arc<Partition>,
        config: &LogConfig,
        scratch: &mut Scratch,
    ) -> Result<(Delivery, usize)> {
        let mut batch = scratch.builder.seal(config.timestamp_type);
        let len = batch.len();
        if len > config.batch_bytes_max {
            let limit = config.batch_bytes_max;
            return Err(Error::RecordTooLarge { len, limit, key: "max.message.bytes" });
        }
        let waits_for_sync = self.shared.durability == Durability::Synced;
        // A page that was stored to costs far more to synchronise than one that was written.
        let door = if waits_for_sync || len >= STORE_LEN_MAX { Door::Write } else { Door::Store };
        let appended = partition
            .append(&mut batch, door, self.shared.sync_within)
            .map_err(|error| topic.state.refuse_if_deleted().err().unwrap_or(error))?;
        let timestamp_ms = appended.append_time_ms.unwrap_or(batch.max_timestamp_ms());
        if waits_for_sync {
            self.touch(&partition, appended.offsets.end);
        }
        let metadata = RecordMetadata {
            topic: topic.state.topic_name().clone(),
            partition: number,
            offsets: appended.offsets,
            timestamp_ms,
        };
        let _keep_open = Arc::clone(&self.shared.keep_open.0);
        let topic = Arc::clone(&topic.state);
        Ok((Delivery { topic, partition, metadata, waits_for_sync, _keep_open }, len))
    }

    fn touch(&self, partition: &Arc<Partition>, end: i64) {
        let mut touched = self.shared.touched.lock();
        match touched.iter_mut().find(|known| Arc::ptr_eq(&known.partition, partition)) {
            Some(known) => known.end = known.end.max(end),
            None => touched.push(Touched { partition: Arc::clone(partition), end }),
        }
    }
}

/// A batch builder borrowed from its thread; whatever the caller's iterators do meanwhile, including
/// sending, finds the thread's slot empty and makes another.
struct Scratch {
    builder: BatchBuilder,
}

impl Scratch {
    fn take() -> Scratch {
        let mut builder = BUILDER.try_with(Cell::take).ok().flatten().unwrap_or_default();
        builder.clear();
        Scratch { builder }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let builder = std::mem::take(&mut self.builder);
        // A thread that is ending has no slot any more; then the buffer goes too.
        BUILDER.try_with(|slot| slot.set(Some(builder))).unwrap_or_default();
    }
}

thread_local! {
    static BUILDER: Cell<Option<BatchBuilder>> = const { Cell::new(None) };
}

/// From this size on, one `write` is faster than faulting the pages in one by one.
const STORE_LEN_MAX: usize = 64 << 10;

/// Gives the timestamp that a record is to carry, by the topic's rules.
fn accepted_timestamp(record: &Record<'_>, config: &LogConfig, now_ms: i64) -> Result<i64> {
    if config.key_required && record.key.is_none() {
        return Err(Error::InvalidRecord { reason: "a compacted topic needs a key" });
    }
    let Some(timestamp) = record.timestamp_ms else {
        return Ok(now_ms);
    };
    let refuse = |reason| Err(Error::InvalidTimestamp { timestamp, reason });
    if timestamp < 0 {
        return refuse("it is negative");
    }
    if config.timestamp_type == TimestampType::LogAppendTime {
        return Ok(now_ms);
    }
    if timestamp < now_ms.saturating_sub(config.timestamp_before_max_ms) {
        return refuse("it is older than message.timestamp.before.max.ms allows");
    }
    if timestamp > now_ms.saturating_add(config.timestamp_after_max_ms) {
        return refuse("it is further in the future than message.timestamp.after.max.ms allows");
    }
    Ok(timestamp)
}
