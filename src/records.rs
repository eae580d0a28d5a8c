//! What `poll` returns: records, borrowed from the log's own memory.
//!
//! Nothing is copied: a [`Message`] points into the mapped segment. Every batch was verified before it was
//! handed out, so iterating cannot fail. [`Records`] keep their memory: they outlive the next poll, the
//! consumer and even the segment, which may be deleted meanwhile.

use std::fmt;
use std::ops::Range;

use crate::config::TimestampType;
use crate::format::decode::Batch;
use crate::format::decode::RawHeaders;
use crate::format::decode::RawRecord;
use crate::format::decode::RawRecords;
use crate::partition::fetch::Fetched;
use crate::record::Header;
use crate::storage::map::View;
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
    pub(crate) source: TopicPartition,
    pub(crate) fetched: Fetched,
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
/// It keeps the segment's memory and the store open until it is dropped.
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
    source: TopicPartition,
    view: View,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Range<usize>,
    header_count: i32,
    offset: i64,
    timestamp_ms: i64,
    timestamp_type: TimestampType,
    leader_epoch: i32,
}

impl Records {
    /// Iterates over all records: partition by partition, each in offset order.
    pub fn iter(&self) -> Messages<'_> {
        Messages { parts: self.parts.iter(), current: None }
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
        self.parts.iter().map(|part| &part.source)
    }

    /// Iterates over the records of one partition.
    pub fn of(&self, partition: &TopicPartition) -> Messages<'_> {
        let index = self.parts.iter().position(|part| part.source == *partition);
        let parts = index.map_or(&self.parts[..0], |index| &self.parts[index..=index]);
        Messages { parts: parts.iter(), current: None }
    }

    /// Gives for each partition the offset to go on at once these records are dealt with. It may lie
    /// further than one behind the last record: offsets have holes.
    pub fn next_offsets(&self) -> impl Iterator<Item = (&TopicPartition, i64)> {
        self.parts.iter().map(|part| (&part.source, part.fetched.offsets.end))
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
    current: Option<Walk<'r>>,
}

/// A walk through one part.
#[derive(Clone)]
struct Walk<'r> {
    part: &'r Part,
    /// Batches not looked at yet.
    bytes: &'r [u8],
    records: Option<RawRecords<'r>>,
    timestamp_type: TimestampType,
    leader_epoch: i32,
}

impl<'r> Iterator for Messages<'r> {
    type Item = Message<'r>;

    #[inline]
    fn next(&mut self) -> Option<Message<'r>> {
        loop {
            if let Some(message) = self.current.as_mut().and_then(Walk::next) {
                return Some(message);
            }
            let part = self.parts.next()?;
            let bytes = part.fetched.view.bytes(part.fetched.range.clone()).unwrap_or_default();
            let timestamp_type = TimestampType::CreateTime;
            self.current =
                Some(Walk { part, bytes, records: None, timestamp_type, leader_epoch: -1 });
        }
    }
}

impl<'r> Walk<'r> {
    #[inline]
    fn next(&mut self) -> Option<Message<'r>> {
        let wanted = &self.part.fetched.offsets;
        loop {
            if let Some(raw) = self.records.as_mut().and_then(Iterator::next) {
                if raw.offset < wanted.start {
                    continue;
                }
                if raw.offset >= wanted.end {
                    self.bytes = &[];
                    self.records = None;
                    return None;
                }
                return Some(Message {
                    part: self.part,
                    raw,
                    timestamp_type: self.timestamp_type,
                    leader_epoch: self.leader_epoch,
                });
            }
            if self.bytes.is_empty() {
                return None;
            }
            // The read that brought these bytes has verified every batch.
            let batch = Batch::verified(self.bytes);
            let header = batch.header();
            self.bytes = &self.bytes[header.len()..];
            self.timestamp_type = if header.attributes.is_log_append_time() {
                TimestampType::LogAppendTime
            } else {
                TimestampType::CreateTime
            };
            self.leader_epoch = header.leader_epoch;
            self.records = (!header.attributes.is_control()).then(|| batch.records());
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
        let view = &self.part.fetched.view;
        let start = view.from(0).as_ptr() as usize;
        let range = |bytes: &[u8]| {
            let at = bytes.as_ptr() as usize - start;
            at..at + bytes.len()
        };
        OwnedMessage {
            source: self.part.source.clone(),
            view: view.clone(),
            key: self.raw.key.map(range),
            value: self.raw.value.map(range),
            headers: range(self.raw.headers.bytes),
            header_count: self.raw.headers.count,
            offset: self.raw.offset,
            timestamp_ms: self.raw.timestamp_ms,
            timestamp_type: self.timestamp_type,
            leader_epoch: self.leader_epoch,
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
        self.key.clone().and_then(|range| self.view.bytes(range))
    }

    /// Gives the value; `None` if it is null.
    pub fn value(&self) -> Option<&[u8]> {
        self.value.clone().and_then(|range| self.view.bytes(range))
    }

    /// Iterates over the headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = Header<'_>> {
        let bytes = self.view.bytes(self.headers.clone()).unwrap_or_default();
        RawHeaders { count: self.header_count, bytes }.iter()
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
