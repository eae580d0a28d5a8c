//! What `poll` returns: records, borrowed from the log's own memory.
//!
//! Nothing is copied: a [`Message`] points into the mapped segment, or, if its batch is compressed, into the memory
//! that it was unpacked into. Every batch was verified before it was
//! handed out, so iterating cannot fail. [`Records`] keep their memory: they outlive the next poll, the
//! consumer and even the segment, which may be deleted meanwhile.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::config::TimestampType;
use crate::format::decode::RawHeaders;
use crate::format::decode::RawRecord;
use crate::format::decode::RawRecords;
use crate::format::header::Front;
use crate::handed_out::Lease;
use crate::partition::fetch::Fetched;
use crate::partition::point::Found;
use crate::partition::unpacking::Memory;
use crate::record::Header;
use crate::record::Unshown;
use crate::topic::TopicPartition;

/// Records of one poll, grouped by partition, in offset order within each.
///
/// They keep the store open and its directory locked until they are dropped.
///
/// ```
/// use std::time::Duration;
/// use ottla::{Record, Start, Store, TopicConfig};
///
/// let store = Store::temporary()?;
/// let orders = store.create_topic("orders", TopicConfig::new())?;
/// store.producer().send(&orders, Record::new("paid").key("order-42"))?.wait()?;
///
/// let mut consumer = store.consumer().assign(orders.partitions())?;
/// let records = consumer.poll(Duration::from_secs(1))?;
/// for message in &records {
///     assert_eq!(message.key(), Some(&b"order-42"[..]));
/// }
/// assert_eq!(records.count(), 1);
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Records {
    pub(crate) parts: Vec<Part>,
}

/// What one poll brought of one partition.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) source: Arc<TopicPartition>,
    pub(crate) fetched: Fetched,
    /// Where somebody waits for these records to be dropped.
    pub(crate) lease: Option<Arc<Lease>>,
}

/// A record that was read, borrowed from its [`Records`].
#[derive(Clone, Copy)]
pub struct Message<'r> {
    part: &'r Part,
    front: Front<'r>,
    raw: RawRecord<'r>,
}

/// A record that was read, on its own: `'static`, `Send`, cheap to clone, still without a copy.
///
/// It keeps the memory of the segment, or of the batches that were unpacked with its own, and the store open until it is dropped.
///
/// ```
/// # use std::time::Duration;
/// # use ottla::{OwnedMessage, Record, Store, TopicConfig};
/// # let store = Store::temporary()?;
/// # let topic = store.create_topic("t", TopicConfig::new())?;
/// # store.producer().send(&topic, Record::new("v"))?.wait()?;
/// # let mut consumer = store.consumer().assign(topic.partitions())?;
/// let records = consumer.poll(Duration::from_secs(1))?;
/// let owned: Vec<OwnedMessage> = records.iter().map(|message| message.detach()).collect();
/// drop(records);
/// let worker = std::thread::spawn(move || owned[0].value().map(<[u8]>::len));
/// assert_eq!(worker.join().ok().flatten(), Some(1));
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone)]
pub struct OwnedMessage {
    source: Arc<TopicPartition>,
    memory: Memory,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Range<usize>,
    offset: i64,
    timestamp_ms: i64,
    timestamp_type: TimestampType,
    leader_epoch: i32,
    _lease: Option<Arc<Lease>>,
}

impl Records {
    /// Iterates over all records: partition by partition, each in offset order.
    pub fn iter(&self) -> Messages<'_> {
        Messages::new(&self.parts)
    }

    /// Gives the number of records.
    pub fn count(&self) -> usize {
        self.parts.iter().map(|part| part.fetched.record_count).sum()
    }

    /// Tells whether there are none: the poll's time was up.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Gives the partitions that records came from.
    pub fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.parts.iter().map(|part| &*part.source)
    }

    /// Iterates over the records of one partition.
    pub fn of(&self, partition: &TopicPartition) -> Messages<'_> {
        let index = self.parts.iter().position(|part| *part.source == *partition);
        let parts = index.map_or(&self.parts[..0], |index| &self.parts[index..=index]);
        Messages::new(parts)
    }

    /// Gives for each partition the offset to go on at once these records are dealt with. It may lie
    /// further than one behind the last record: offsets have holes.
    pub fn next_offsets(&self) -> impl Iterator<Item = (&TopicPartition, i64)> {
        self.parts.iter().map(|part| (&*part.source, part.fetched.next_offset))
    }
}

impl<'r> IntoIterator for &'r Records {
    type Item = Message<'r>;
    type IntoIter = Messages<'r>;

    fn into_iter(self) -> Messages<'r> {
        self.iter()
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Iterates over [`Records`].
#[derive(Clone)]
pub struct Messages<'r> {
    parts: std::slice::Iter<'r, Part>,
    part: Option<&'r Part>,
    /// What is left of the batch, as far as it was asked for.
    records: RawRecords<'r>,
    /// Batches of the part that were not looked at yet, and how many of their records were asked for.
    ahead: &'r [u8],
    count_ahead: usize,
}

impl<'r> Messages<'r> {
    pub(crate) fn new(parts: &'r [Part]) -> Messages<'r> {
        Messages {
            parts: parts.iter(),
            part: None,
            records: RawRecords::default(),
            ahead: &[],
            count_ahead: 0,
        }
    }

    /// Goes on to the next batch of the part; says whether there is one.
    ///
    /// Many a batch holds a single record, so this is as much a part of the loop as what is done for each record.
    #[inline(always)]
    fn enter_next_batch(&mut self) -> bool {
        if self.count_ahead == 0 {
            return false;
        }
        // The read that brought these bytes has checked every batch.
        let Some((records, behind)) = RawRecords::split(self.ahead) else {
            return false;
        };
        self.ahead = behind;
        if !records.front().attributes().is_control() {
            self.enter(records);
        }
        true
    }

    #[inline(always)]
    fn enter(&mut self, records: RawRecords<'r>) {
        self.records = records.limited(self.count_ahead);
        self.count_ahead -= self.records.left();
    }

    /// Goes on to the next part, and its first batch. Takes and returns the iterator by value, so that a loop over
    /// it keeps its state in registers.
    #[inline(never)]
    fn in_next_part(mut self) -> Option<Messages<'r>> {
        loop {
            let part = self.parts.next()?;
            self.part = Some(part);
            self.ahead = part.fetched.bytes();
            self.count_ahead = part.fetched.record_count;
            // The first batch has records for the reader, and may begin in its midst.
            if let Some((first, behind)) = RawRecords::split(self.ahead) {
                self.ahead = behind;
                self.enter(part.fetched.rest_of_first(first));
                return Some(self);
            }
        }
    }
}

impl<'r> Iterator for Messages<'r> {
    type Item = Message<'r>;

    #[inline(always)]
    fn next(&mut self) -> Option<Message<'r>> {
        loop {
            if let (Some(raw), Some(part)) = (self.records.next(), self.part) {
                return Some(Message { part, front: self.records.front(), raw });
            }
            if !self.enter_next_batch() {
                *self = self.clone().in_next_part()?;
            }
        }
    }
}

impl<'r> Message<'r> {
    /// Gives the topic's name.
    pub fn topic(&self) -> &'r str {
        self.part.source.topic().name()
    }

    /// Gives the partition's number.
    pub fn partition(&self) -> u32 {
        self.part.source.partition()
    }

    /// Gives the partition, as `seek` takes it.
    pub fn topic_partition(&self) -> &'r TopicPartition {
        &self.part.source
    }

    /// Gives the offset.
    pub fn offset(&self) -> i64 {
        self.raw.offset
    }

    /// Gives the timestamp in milliseconds since 1970; −1 if the record has none.
    pub fn timestamp(&self) -> i64 {
        self.raw.timestamp_ms
    }

    /// Tells who set the timestamp.
    pub fn timestamp_type(&self) -> TimestampType {
        timestamp_type(self.front)
    }

    /// Gives the key; `None` if it is null.
    pub fn key(&self) -> Option<&'r [u8]> {
        self.raw.key
    }

    /// Gives the value; `None` if it is null.
    pub fn value(&self) -> Option<&'r [u8]> {
        self.raw.value
    }

    /// Iterates over the headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = Header<'r>> + use<'r> {
        self.raw.headers.iter()
    }

    /// Gives the epoch of the leader that appended the record; −1 if none is on record.
    pub fn leader_epoch(&self) -> i32 {
        self.front.leader_epoch()
    }

    /// Makes a message of its own that keeps the memory it points into.
    pub fn detach(&self) -> OwnedMessage {
        let memory = self.part.fetched.memory();
        let range = |bytes: &[u8]| memory.range_of(bytes);
        OwnedMessage {
            source: Arc::clone(&self.part.source),
            memory: memory.clone(),
            key: self.raw.key.map(range),
            value: self.raw.value.map(range),
            headers: range(self.raw.headers.bytes),
            offset: self.raw.offset,
            timestamp_ms: self.raw.timestamp_ms,
            timestamp_type: self.timestamp_type(),
            leader_epoch: self.leader_epoch(),
            _lease: self.part.lease.clone(),
        }
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.topic_partition(), self.offset(), self.key(), self.value())
    }
}

impl OwnedMessage {
    /// Makes the message of a record that was found by its offset.
    #[inline]
    pub(crate) fn at(source: Arc<TopicPartition>, found: &Found) -> Option<OwnedMessage> {
        let memory = found.memory();
        let mut records = found.records()?;
        let front = records.front();
        let raw = records.next()?;
        Some(OwnedMessage {
            source,
            memory: memory.clone(),
            key: raw.key.map(|key| memory.range_of(key)),
            value: raw.value.map(|value| memory.range_of(value)),
            headers: memory.range_of(raw.headers.bytes),
            offset: raw.offset,
            timestamp_ms: raw.timestamp_ms,
            timestamp_type: timestamp_type(front),
            leader_epoch: front.leader_epoch(),
            _lease: None,
        })
    }

    /// Has it hold another handle of its partition.
    pub(crate) fn with_source(mut self, source: &Arc<TopicPartition>) -> OwnedMessage {
        self.source = Arc::clone(source);
        self
    }

    /// Gives the topic's name.
    pub fn topic(&self) -> &str {
        self.source.topic().name()
    }

    /// Gives the partition's number.
    pub fn partition(&self) -> u32 {
        self.source.partition()
    }

    /// Gives the partition, as `seek` takes it.
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.source
    }

    /// Gives the offset.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Gives the timestamp in milliseconds since 1970; −1 if the record has none.
    pub fn timestamp(&self) -> i64 {
        self.timestamp_ms
    }

    /// Tells who set the timestamp.
    pub fn timestamp_type(&self) -> TimestampType {
        self.timestamp_type
    }

    /// Gives the key; `None` if it is null.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.clone().and_then(|range| self.memory.bytes(range))
    }

    /// Gives the value; `None` if it is null.
    pub fn value(&self) -> Option<&[u8]> {
        self.value.clone().and_then(|range| self.memory.bytes(range))
    }

    /// Iterates over the headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = Header<'_>> {
        let bytes = self.memory.bytes(self.headers.clone()).unwrap_or_default();
        RawHeaders { bytes }.iter()
    }

    /// Gives the epoch of the leader that appended the record; −1 if none is on record.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }
}

impl fmt::Debug for OwnedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.topic_partition(), self.offset(), self.key(), self.value())
    }
}

fn timestamp_type(front: Front<'_>) -> TimestampType {
    if front.attributes().is_log_append_time() {
        TimestampType::LogAppendTime
    } else {
        TimestampType::CreateTime
    }
}

fn show(
    f: &mut fmt::Formatter<'_>,
    source: &TopicPartition,
    offset: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> fmt::Result {
    f.debug_struct("Message")
        .field("source", &format_args!("{source}@{offset}"))
        .field("key", &Unshown::of(key))
        .field("value", &Unshown::of(value))
        .finish()
}
