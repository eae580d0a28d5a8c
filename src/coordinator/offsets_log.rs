//! The internal topic in which groups keep their papers: Kafka's `__consumer_offsets`.
//!
//! Created with the first paper, with one partition: all groups then share one sync. A topic that Kafka wrote has
//! as many partitions as Kafka gave it, and a group's papers lie where Kafka puts them. It is compacted in the
//! background when most of it is out of date.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::TimestampType;
use crate::config::TopicConfig;
use crate::coordinator::committed::OffsetAndMetadata;
use crate::error::Error;
use crate::error::Result;
use crate::format::encode::BatchBuilder;
use crate::format::group_records;
use crate::format::group_records::OffsetValue;
use crate::name::TopicName;
use crate::partition::Partition;
use crate::partition::compaction_plan::Compaction;
use crate::partition::compaction_progress::CompactionProgress;
use crate::record::Record;
use crate::storage::map::Door;
use crate::topic_state::TopicState;
use crate::topics::Topics;

/// Where groups keep their papers.
#[derive(Debug)]
pub(crate) struct OffsetsLog {
    topics: Arc<Topics>,
    /// How long papers may stay unsynchronised that nobody waits for.
    sync_within: Duration,
    /// `None` until there is one. Lock rank 1: held while the topic is being created.
    topic: Mutex<Option<Arc<TopicState>>>,
    /// Bytes appended since it was compacted last. Relaxed, as is the other: they are estimates.
    appended_len: AtomicU64,
    /// Bytes that the last compaction left.
    kept_len: AtomicU64,
    /// The thread that compacts it, or has. Lock rank 9: held to begin and to end one.
    compacting: Mutex<Compacting>,
}

#[derive(Debug, Default)]
struct Compacting {
    thread: Option<JoinHandle<()>>,
    is_closed: bool,
}

/// One paper: a key, and what is now on record under it.
#[derive(Debug)]
pub(crate) struct Entry {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

/// Papers that were written, and are durable once this was waited for.
#[derive(Clone, Debug)]
#[must_use]
pub(crate) struct Written {
    partition: Arc<Partition>,
    end: i64,
}

impl Written {
    /// Blocks until the papers are on stable storage.
    ///
    /// # Errors
    ///
    /// * [`Error::Latched`](crate::Error::Latched).
    pub(crate) fn wait(self) -> Result<()> {
        self.partition.wait_durable(self.end)
    }
}

impl Entry {
    pub(crate) fn offset(
        group: &str,
        topic: &TopicName,
        partition: u32,
        noted: &OffsetAndMetadata,
        commit_timestamp_ms: i64,
    ) -> Entry {
        let mut value = Vec::with_capacity(32 + noted.metadata().len());
        let written = OffsetValue {
            offset: noted.offset(),
            leader_epoch: noted.leader_epoch(),
            metadata: noted.metadata(),
            commit_timestamp_ms,
            expire_timestamp_ms: None,
        };
        group_records::encode_offset_value(&mut value, &written);
        Entry { value: Some(value), ..Entry::removal(group, topic, partition) }
    }

    pub(crate) fn removal(group: &str, topic: &TopicName, partition: u32) -> Entry {
        let mut key = Vec::with_capacity(16 + group.len() + topic.as_str().len());
        group_records::encode_offset_key(&mut key, group, topic.as_str(), partition as i32);
        Entry { key, value: None }
    }

    pub(crate) fn group(group: &str, value: Vec<u8>) -> Entry {
        Entry { value: Some(value), ..Entry::group_removal(group) }
    }

    pub(crate) fn group_removal(group: &str) -> Entry {
        let mut key = Vec::new();
        group_records::encode_group_key(&mut key, group);
        Entry { key, value: None }
    }
}

impl OffsetsLog {
    pub(crate) fn new(topics: Arc<Topics>, sync_within: Duration) -> OffsetsLog {
        OffsetsLog {
            topics,
            sync_within,
            topic: Mutex::new(None),
            appended_len: AtomicU64::new(0),
            kept_len: AtomicU64::new(0),
            compacting: Mutex::default(),
        }
    }

    /// Notes how long the log was when its papers were read.
    pub(crate) fn note_loaded(&self, len: u64) {
        self.appended_len.store(len, Ordering::Relaxed);
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.topics.clock().now_ms()
    }

    /// Gives the topic if there is one.
    ///
    /// # Errors
    ///
    /// * [`Error::Closed`](crate::Error::Closed).
    pub(crate) fn topic(&self) -> Result<Option<Arc<TopicState>>> {
        let mut topic = self.topic.lock();
        if topic.is_none() {
            *topic = match self.topics.find(NAME) {
                Ok(found) => Some(found),
                Err(Error::UnknownTopic { .. }) => None,
                Err(other) => return Err(other),
            };
        }
        Ok(topic.clone())
    }

    /// Refuses a group whose papers lie where nothing can be read: what it has on record is not known.
    ///
    /// # Errors
    ///
    /// * [`Error::Unavailable`](crate::Error::Unavailable), [`Error::Closed`](crate::Error::Closed).
    pub(crate) fn refuse_if_unreadable(&self, group: &str) -> Result<()> {
        let Some(topic) = self.topic()? else { return Ok(()) };
        let number = group_records::group_partition(group, topic.partition_count());
        topic.open_partition(number).map(drop)
    }

    /// As [`refuse_if_unreadable`](Self::refuse_if_unreadable), for what concerns all groups.
    ///
    /// # Errors
    ///
    /// * As there.
    pub(crate) fn refuse_if_any_is_unreadable(&self) -> Result<()> {
        let Some(topic) = self.topic()? else { return Ok(()) };
        (0..topic.partition_count()).try_for_each(|number| topic.open_partition(number).map(drop))
    }

    /// Gives all that was put on record where a group's papers lie; `None` if nothing is.
    ///
    /// # Errors
    ///
    /// * As [`refuse_if_unreadable`](Self::refuse_if_unreadable).
    pub(crate) fn written_so_far(&self, group: &str) -> Result<Option<Written>> {
        let Some(topic) = self.topic()? else { return Ok(None) };
        let number = group_records::group_partition(group, topic.partition_count());
        let partition = topic.open_partition(number)?;
        let end = partition.watermarks().log_end();
        Ok(Some(Written { partition, end }))
    }

    /// Blocks until everything that any group has put on record is on stable storage.
    ///
    /// # Errors
    ///
    /// * [`Error::Latched`](crate::Error::Latched), [`Error::Closed`](crate::Error::Closed).
    pub(crate) fn wait_for_all(&self) -> Result<()> {
        let Some(topic) = self.topic()? else { return Ok(()) };
        topic.open_partitions().into_iter().try_for_each(|(_, partition)| {
            let end = partition.watermarks().log_end();
            Written { partition, end }.wait()
        })
    }

    /// Appends papers of one group; one batch, unless they are very many.
    ///
    /// # Errors
    ///
    /// * As [`Partition::append`], and as the creation of a topic. Of several batches the first may be there.
    pub(crate) fn append(self: &Arc<Self>, group: &str, entries: Vec<Entry>) -> Result<Written> {
        let topic = self.topic_or_create()?;
        let number = group_records::group_partition(group, topic.partition_count());
        let partition = topic.open_partition(number)?;
        let now_ms = self.now_ms();
        let mut batch = BatchBuilder::default();
        let mut end = 0;
        let mut append = |batch: &mut BatchBuilder| -> Result<()> {
            let mut sealed = batch.seal(TimestampType::CreateTime);
            self.appended_len.fetch_add(sealed.len() as u64, Ordering::Relaxed);
            let appended = partition.append(&mut sealed, Door::Write, self.sync_within);
            end = appended.map_err(|error| *error)?.offsets.end;
            batch.restart();
            Ok(())
        };
        for entry in &entries {
            let record = Record::tombstone(&entry.key).value_or_null(entry.value.as_deref());
            if !batch.push_within(&record, now_ms, BATCH_LEN_MAX)? {
                append(&mut batch)?;
                batch.push(&record, now_ms)?;
            }
        }
        append(&mut batch)?;
        if self.is_mostly_outdated() {
            self.begin_to_compact();
        }
        Ok(Written { partition, end })
    }

    /// Ends compacting, for good: waits for the thread that is at it.
    pub(crate) fn close(&self) {
        let mut compacting = self.compacting.lock();
        compacting.is_closed = true;
        let thread = compacting.thread.take();
        drop(compacting);
        if let Some(thread) = thread {
            // Its panics were caught and noted where they happened.
            drop(thread.join());
        }
    }

    fn is_mostly_outdated(&self) -> bool {
        let kept_len = self.kept_len.load(Ordering::Relaxed);
        self.appended_len.load(Ordering::Relaxed) > COMPACTED_LEN_MIN.max(2 * kept_len)
    }

    /// Has a thread compact the topic, unless one is at it.
    fn begin_to_compact(self: &Arc<Self>) {
        let mut compacting = self.compacting.lock();
        let is_at_it = compacting.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        if is_at_it || compacting.is_closed {
            return;
        }
        // Taken back if it fails: the next append tries again, and no sooner than after as much again.
        self.appended_len.store(0, Ordering::Relaxed);
        let log = Arc::clone(self);
        let compact = move || {
            let compacted = catch_unwind(AssertUnwindSafe(|| log.compact()));
            match compacted {
                Ok(Ok(())) | Ok(Err(Error::Closed | Error::Latched { .. })) => {}
                Ok(Err(error)) => log.topics.note_once("compacting __consumer_offsets", &error),
                Err(_) => log.topics.note_panic(),
            }
        };
        match thread::Builder::new().name("ottla-compact".into()).spawn(compact) {
            Ok(thread) => compacting.thread = Some(thread),
            Err(error) => {
                let error = Error::io("start a thread for", self.topics.root(), error);
                self.topics.note_once("compacting __consumer_offsets", &error);
            }
        }
    }

    /// Leaves one paper of each key, but for what is appended meanwhile.
    pub(crate) fn compact(&self) -> Result<()> {
        let Some(topic) = self.topic()? else { return Ok(()) };
        let how = Compaction::of(&topic.log_config(), self.now_ms());
        let progress = CompactionProgress::new();
        let mut kept_len = 0;
        for (number, partition) in topic.open_partitions() {
            partition.roll_now()?;
            kept_len += self.topics.compact(&topic, number, &how, &progress)?.after.bytes;
        }
        self.kept_len.store(kept_len, Ordering::Relaxed);
        Ok(())
    }

    fn topic_or_create(&self) -> Result<Arc<TopicState>> {
        if let Some(topic) = self.topic()? {
            return Ok(topic);
        }
        self.topics.refuse_writing("commit offsets")?;
        let mut topic = self.topic.lock();
        if let Some(topic) = &*topic {
            return Ok(Arc::clone(topic));
        }
        let config = TopicConfig::new()
            .set("cleanup.policy", "compact")?
            .set("compression.type", "producer")?
            .segment_bytes(SEGMENT_BYTES);
        let created = match self.topics.create(NAME, config) {
            Err(Error::TopicExists { .. }) => self.topics.find(NAME)?,
            created => created?,
        };
        *topic = Some(Arc::clone(&created));
        Ok(created)
    }
}

/// Kafka's name for it.
pub(crate) const NAME: &str = "__consumer_offsets";
/// Kafka's default is 100 MiB; this one is to stay small.
const SEGMENT_BYTES: u32 = 4 << 20;
/// So much is appended before the topic is compacted at the least.
const COMPACTED_LEN_MIN: u64 = 1 << 20;
const BATCH_LEN_MAX: usize = 512 << 10;
