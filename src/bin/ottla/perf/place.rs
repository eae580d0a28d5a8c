//! Where a measurement takes place: a directory, opened as often as need be, and a topic in it.

use std::env;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process;
use std::time::Duration;

use ottla::Isolation;
use ottla::Start;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;
use ottla::TopicPartition;

use crate::args::PerfArgs;
use crate::failure::Failure;
use crate::perf::payload::Payload;
use crate::perf::payload::Verifier;
use crate::terminal;

/// The directory and the name of the topic that is measured.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    args: &'a PerfArgs,
    directory: PathBuf,
    /// Made for this measurement, and removed after it.
    is_own: bool,
    topic: String,
}

/// The topic, open.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) store: Store,
    pub(crate) topic: Topic,
}

impl<'a> Place<'a> {
    pub(crate) fn new(root: Option<&Path>, args: &'a PerfArgs) -> Result<Place<'a>, Failure> {
        let own = format!("ottla-perf-{}", process::id());
        let (directory, is_own) = match root {
            Some(root) => (root.to_path_buf(), false),
            None => (env::temp_dir().join(&own), true),
        };
        if is_own {
            fs::create_dir(&directory)?;
        }
        let topic = args.topic.clone().unwrap_or(own);
        Ok(Place { args, directory, is_own, topic })
    }

    /// Opens the directory, and the topic in it; makes it unless it is one that should exist.
    pub(crate) fn enter(&self) -> Result<Field, Failure> {
        let store = Store::builder(&self.directory).durability(self.args.durability).open()?;
        let topic = match store.topic(&self.topic) {
            Err(ottla::Error::UnknownTopic { .. }) if self.args.topic.is_none() => {
                let config = TopicConfig::new().partitions(self.args.partitions);
                store.create_topic(&self.topic, config)?
            }
            found => found?,
        };
        Ok(Field { store, topic })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Removes what was made: the topic, or the whole directory.
    pub(crate) fn clear(self) -> Result<(), Failure> {
        if self.is_own || self.args.topic.is_some() {
            return Ok(());
        }
        let store = Store::open(&self.directory)?;
        match store.delete_topic(&self.topic) {
            Ok(()) | Err(ottla::Error::UnknownTopic { .. }) => {}
            Err(other) => return Err(other.into()),
        }
        Ok(store.close()?)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.is_own {
            if let Err(error) = fs::remove_dir_all(&self.directory) {
                let path = self.directory.display();
                terminal::tell(format_args!("ottla: could not remove {path}: {error}"));
            }
        }
    }
}

impl Field {
    /// Closes the directory; what is opened next finds it as after any clean close.
    pub(crate) fn leave(self) -> Result<(), Failure> {
        let Field { store, topic } = self;
        drop(topic);
        Ok(store.close()?)
    }

    /// Removes the topic if it was made here, so that the next round begins with an empty one.
    pub(crate) fn leave_nothing(self, args: &PerfArgs) -> Result<(), Failure> {
        if args.topic.is_none() {
            self.store.delete_topic(self.topic.name())?;
        }
        self.leave()
    }

    /// Gives how many offsets there are to be read.
    pub(crate) fn offset_count(&self) -> Result<u64, Failure> {
        let mut count = 0;
        for partition in self.topic.partitions() {
            let (start, end) = partition.watermarks()?;
            count += (end - start).unsigned_abs();
        }
        Ok(count)
    }

    /// Reads everything from where each partition ended and compares it with what was sent since.
    pub(crate) fn verify(
        &self,
        starts: impl IntoIterator<Item = (TopicPartition, Start)>,
        sent: impl IntoIterator<Item = Payload>,
    ) -> Result<(), Failure> {
        let mut verifier = Verifier::new(sent);
        let consumer = self.store.consumer().isolation(Isolation::ReadUncommitted);
        let mut consumer = consumer.max_poll_records(usize::MAX).assign(starts)?;
        loop {
            let records = consumer.poll(Duration::ZERO)?;
            if records.is_empty() {
                return verifier.finish();
            }
            for message in &records {
                verifier.check(&message)?;
            }
        }
    }

    /// Gives where each partition ends.
    pub(crate) fn ends(&self) -> Result<Vec<(TopicPartition, Start)>, Failure> {
        let end = |partition: TopicPartition| {
            let end = partition.watermarks()?.1;
            Ok((partition, Start::Offset(end)))
        };
        self.topic.partitions().into_iter().map(end).collect()
    }

    /// Appends the records to be read if there are none: numbered, in batches, partition after partition.
    /// Gives what it appended, if it did.
    pub(crate) fn fill_if_empty(
        &self,
        args: &PerfArgs,
        records: u64,
        in_batch: Option<usize>,
    ) -> Result<Option<Payload>, Failure> {
        if self.offset_count()? > 0 {
            return Ok(None);
        }
        let producer = self.store.producer();
        let partitions = self.topic.partitions();
        // Well below the default `max.message.bytes`; at least one record goes into a batch.
        let full = (BATCH_LEN / (args.size + RECORD_OVERHEAD)).max(1);
        let in_batch = in_batch.unwrap_or(full);
        let mut payload = Payload::new(FILLER, args.size, in_batch);
        let bar = terminal::progress_bar(records);
        let mut left = records;
        for partition in partitions.iter().cycle() {
            if left == 0 {
                break;
            }
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(in_batch);
            // Waited for all at once below.
            drop(producer.send_batch(partition, payload.next_batch(count))?);
            left -= count as u64;
            bar.inc(count as u64);
        }
        bar.finish_and_clear();
        producer.flush()?;
        Ok(Some(payload))
    }
}

/// Who fills a topic to be read.
const FILLER: u16 = 0;
const BATCH_LEN: usize = 256 << 10;
/// At least what a record without key and headers takes beside its value.
const RECORD_OVERHEAD: usize = 16;
