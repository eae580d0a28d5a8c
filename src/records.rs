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
use crate::format::decode::Batch;
use crate::format::decode::RawHeaders;
use crate::format::decode::RawRecord;
use crate::format::decode::RawRecords;
use crate::handed_out::Lease;
use crate::partition::fetch::Fetched;
use crate::partition::unpacking::Memory;
use crate::record::Header;
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
    raw: RawRecord<'r>,
    timestamp_type: TimestampType,
    leader_epoch: i32,
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
    walk: Walk<'r>,
}

/// Where an iteration stands: in one batch of one part.
#[derive(Clone, Copy)]
struct Walk<'r> {
    part: Option<&'r Part>,
    /// What is left of the batch, as far as it was asked for.
    records: RawRecords<'r>,
    timestamp_type: TimestampType,
    leader_epoch: i32,
    /// Batches of the part that were not looked at yet, and how many of their records were asked for.
    ahead: &'r [u8],
    count_ahead: usize,
}

impl<'r> Messages<'r> {
    fn new(parts: &'r [Part]) -> Messages<'r> {
        let walk = Walk {
            part: None,
            records: RawRecords::default(),
            timestamp_type: TimestampType::CreateTime,
            leader_epoch: -1,
            ahead: &[],
            count_ahead: 0,
        };
        Messages { parts: parts.iter(), walk }
    }

    /// Goes on to the next batch that has records for the reader. Takes and returns the iterator by value,
    /// so that a loop over it keeps its state in registers.
    #[inline(never)]
    fn in_next_batch(mut self) -> Option<Messages<'r>> {
        loop {
            while let Some(batch) = self.next_batch() {
                let header = batch.header();
                self.walk.timestamp_type = if header.attributes.is_log_append_time() {
                    TimestampType::LogAppendTime
                } else {
                    TimestampType::CreateTime
                };
                self.walk.leader_epoch = header.leader_epoch;
                if header.attributes.is_control() {
                    continue;
                }
                let records = match self.walk.part {
                    // The first batch may begin in its midst.
                    Some(part) if self.walk.count_ahead == part.fetched.record_count => {
                        part.fetched.records_of_first(&batch)
                    }
                    _ => batch.records(),
                };
                self.walk.records = records.limited(self.walk.count_ahead);
                self.walk.count_ahead -= self.walk.records.left();
                if self.walk.records.left() > 0 {
                    return Some(self);
                }
            }
            let part = self.parts.next()?;
            self.walk.part = Some(part);
            self.walk.ahead = part.fetched.bytes();
            self.walk.count_ahead = part.fetched.record_count;
        }
    }

    fn next_batch(&mut self) -> Option<Batch<'r>> {
        if self.walk.count_ahead == 0 {
            return None;
        }
        // The read that brought these bytes has checked every batch.
        let batch = Batch::verified(self.walk.ahead)?;
        self.walk.ahead = &self.walk.ahead[batch.header().len()..];
        Some(batch)
    }
}

impl<'r> Walk<'r> {
    #[inline]
    fn message(&self, raw: RawRecord<'r>) -> Option<Message<'r>> {
        let (timestamp_type, leader_epoch) = (self.timestamp_type, self.leader_epoch);
        self.part.map(|part| Message { part, raw, timestamp_type, leader_epoch })
    }
}

impl<'r> Iterator for Messages<'r> {
    type Item = Message<'r>;

    #[inline]
    fn next(&mut self) -> Option<Message<'r>> {
        loop {
            if let Some(raw) = self.walk.records.next() {
                return self.walk.message(raw);
            }
            *self = self.clone().in_next_batch()?;
        }
    }

    #[inline]
    fn fold<B, F: FnMut(B, Message<'r>) -> B>(mut self, init: B, mut fold: F) -> B {
        let mut folded = init;
        loop {
            let walk = self.walk;
            let message = |raw| walk.message(raw);
            folded = walk.records.filter_map(message).fold(folded, &mut fold);
            match self.in_next_batch() {
                Some(next) => self = next,
                None => return folded,
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
        self.timestamp_type
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
        self.leader_epoch
    }

    /// Makes a message of its own that keeps the memory it points into.
    pub fn detach(&self) -> OwnedMessage {
        let memory = self.part.fetched.memory();
        let start = memory.all().as_ptr() as usize;
        let range = |bytes: &[u8]| {
            let at = bytes.as_ptr() as usize - start;
            at..at + bytes.len()
        };
        OwnedMessage {
            source: Arc::clone(&self.part.source),
            memory: memory.clone(),
            key: self.raw.key.map(range),
            value: self.raw.value.map(range),
            headers: range(self.raw.headers.bytes),
            offset: self.raw.offset,
            timestamp_ms: self.raw.timestamp_ms,
            timestamp_type: self.timestamp_type,
            leader_epoch: self.leader_epoch,
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

fn show(
    f: &mut fmt::Formatter<'_>,
    source: &TopicPartition,
    offset: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> fmt::Result {
    let text = |bytes: Option<&[u8]>| bytes.map(|b| String::from_utf8_lossy(b).into_owned());
    f.debug_struct("Message")
        .field("source", &format_args!("{source}@{offset}"))
        .field("key", &text(key))
        .field("value", &text(value))
        .finish()
}
