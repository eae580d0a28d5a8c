//! The pending result of a send.
//!
//! When `send` has returned, the record is in the log, visible, and survives the death of the process, unless
//! the producer stages: then it is in the log once its batch is sealed. The [`Delivery`] is about the rest: it
//! completes when the record is in the log and as durable as the producer's level promises. Wait for it on a
//! thread, `.await` it in a task of any runtime, or let it go.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use crate::error::Error;
use crate::error::Result;
use crate::name::TopicName;
use crate::partition::Appended;
use crate::partition::Partition;
use crate::stage::StagedRecord;
use crate::topic::KeepOpen;
use crate::topic_state::TopicState;

/// The promise that a sent record, or batch of records, becomes durable.
///
/// Dropping it takes nothing back. If the producer [stages](crate::ProducerBuilder::linger), whoever waits has the
/// record's batch sealed at once: a linger is for records that nobody waits for. Under [`Durability::Synced`](crate::Durability::Synced) the store
/// synchronises on its own some 10 ms after the send, under the others within their interval.
///
/// ```
/// use std::time::Duration;
/// use ottla::{Record, Store, TopicConfig};
///
/// let store = Store::temporary()?;
/// let orders = store.create_topic("orders", TopicConfig::new())?;
/// let producer = store.producer();
/// let first = producer.send(&orders, Record::new("a"))?.wait()?;
/// let mut second = producer.send(&orders, Record::new("b"))?;
/// let second = second.wait_timeout(Duration::from_secs(10))?;
/// assert_eq!((first.offset(), second.offset()), (0, 1));
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone)]
pub struct Delivery {
    place: Place,
}

/// Where the record is.
#[derive(Clone)]
enum Place {
    /// In the log, and the level promises no more than that: there is nothing to wait for, nor to hold on to.
    Done(RecordMetadata),
    Appended(AppendedBatch),
    Staged(StagedRecord),
}

/// What was appended by the send itself and is to be synchronised.
#[derive(Clone)]
pub(crate) struct AppendedBatch {
    pub(crate) route: Arc<Route>,
    pub(crate) offsets: Range<i64>,
    pub(crate) timestamp_ms: i64,
}

/// What all deliveries of one producer for one partition share that wait for a sync, so that each costs one
/// reference.
pub(crate) struct Route {
    pub(crate) topic: Arc<TopicState>,
    pub(crate) partition: Arc<Partition>,
    pub(crate) number: u32,
    pub(crate) _keep_open: KeepOpen,
}

/// Where a record went: topic, partition, offset, timestamp.
#[derive(Clone, Debug)]
pub struct RecordMetadata {
    pub(crate) topic: TopicName,
    pub(crate) partition: u32,
    pub(crate) offsets: Range<i64>,
    pub(crate) timestamp_ms: i64,
}

impl Delivery {
    #[inline]
    pub(crate) fn done(metadata: RecordMetadata) -> Delivery {
        Delivery { place: Place::Done(metadata) }
    }

    #[inline]
    pub(crate) fn appended(batch: AppendedBatch) -> Delivery {
        Delivery { place: Place::Appended(batch) }
    }

    #[inline]
    pub(crate) fn staged(record: StagedRecord) -> Delivery {
        Delivery { place: Place::Staged(record) }
    }

    /// Tells whether there is nothing to wait for: the level promises no more than that the record is in the log.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.place, Place::Done(_))
    }

    /// Gives the partition and the offset behind the records, where they were appended by the send itself.
    pub(crate) fn appended_to(&self) -> Option<(u32, i64)> {
        match &self.place {
            Place::Done(metadata) => Some((metadata.partition, metadata.offsets.end)),
            Place::Appended(batch) => Some((batch.route.number, batch.offsets.end)),
            Place::Staged(_) => None,
        }
    }

    /// Blocks until the record is as durable as its producer's level promises.
    ///
    /// Under [`Durability::Synced`](crate::Durability::Synced) that is an `fdatasync` shared with everyone
    /// who waits; under the other levels it returns at once. If the record is staged, its batch is sealed and
    /// appended first, by this call if no other thread is at it.
    ///
    /// # Errors
    ///
    /// * [`Error::Latched`] if the sync failed, now or earlier: the record may or may not survive a power
    ///   cut. It is never tried again; reopen the store to see what is there.
    /// * [`Error::TopicDeleted`] if the topic was deleted meanwhile.
    /// * If the record was staged, also whatever kept its batch from the log; all deliveries of the batch get it,
    ///   and none of its records is there: [`Error::OutOfSpace`], [`Error::Io`]; [`Error::Latched`], with which
    ///   they may be there; [`Error::RecordTooLarge`] if the topic's limits were lowered meanwhile.
    pub fn wait(self) -> Result<RecordMetadata> {
        let placed = match &self.place {
            Place::Done(metadata) => return Ok(metadata.clone()),
            Place::Appended(batch) => Placed::of_batch(batch),
            Place::Staged(record) => Placed::of_record(record, record.batch.wait()?),
        };
        if placed.waits_for_sync {
            let waited = placed.partition.wait_durable(placed.offsets.end);
            waited.map_err(|error| placed.explain(error))?;
        }
        Ok(placed.metadata())
    }

    /// As [`wait`](Self::wait), but no longer than `timeout`. The store's own thread appends and synchronises, so
    /// that a disk that hangs does not hold up the caller.
    ///
    /// # Errors
    ///
    /// * [`Error::Timeout`] if time was up: the outcome is not known yet, wait again.
    /// * As [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<RecordMetadata> {
        let deadline = || {
            let deadline = Instant::now().checked_add(timeout);
            deadline.unwrap_or_else(|| Instant::now() + FOREVER)
        };
        let mut waits_until = None;
        let placed = match &self.place {
            Place::Done(metadata) => return Ok(metadata.clone()),
            Place::Appended(batch) => Placed::of_batch(batch),
            Place::Staged(record) => {
                let deadline = *waits_until.get_or_insert_with(deadline);
                let appended = record.batch.wait_until(deadline);
                let what = "a record to be appended";
                Placed::of_record(record, appended.ok_or(Error::Timeout { what })??)
            }
        };
        if placed.waits_for_sync {
            let deadline = waits_until.unwrap_or_else(deadline);
            let waited = placed.partition.wait_durable_until(placed.offsets.end, deadline);
            if !waited.map_err(|error| placed.explain(error))? {
                return Err(Error::Timeout { what: "a record to become durable" });
            }
        }
        Ok(placed.metadata())
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let placed = match &self.place {
            Place::Done(metadata) => return Poll::Ready(Ok(metadata.clone())),
            Place::Appended(batch) => Placed::of_batch(batch),
            Place::Staged(record) => match record.batch.poll(context.waker()) {
                None => return Poll::Pending,
                Some(Err(error)) => return Poll::Ready(Err(error)),
                Some(Ok(appended)) => Placed::of_record(record, appended),
            },
        };
        if !placed.waits_for_sync {
            return Poll::Ready(Ok(placed.metadata()));
        }
        match placed.partition.poll_durable(placed.offsets.end, context.waker()) {
            Ok(true) => Poll::Ready(Ok(placed.metadata())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(placed.explain(error))),
        }
    }
}

/// What has its place in the log, whichever way it came there.
struct Placed<'d> {
    topic: &'d TopicState,
    partition: &'d Arc<Partition>,
    number: u32,
    offsets: Range<i64>,
    timestamp_ms: i64,
    waits_for_sync: bool,
}

impl Placed<'_> {
    fn of_batch(batch: &AppendedBatch) -> Placed<'_> {
        Placed {
            topic: &batch.route.topic,
            partition: &batch.route.partition,
            number: batch.route.number,
            offsets: batch.offsets.clone(),
            timestamp_ms: batch.timestamp_ms,
            waits_for_sync: true,
        }
    }

    fn of_record<'d>(record: &'d StagedRecord, appended: &Appended) -> Placed<'d> {
        let offset = appended.offsets.start + i64::from(record.index);
        Placed {
            topic: &record.batch.topic,
            partition: &record.batch.partition,
            number: record.batch.number(),
            offsets: offset..offset + 1,
            timestamp_ms: appended.append_time_ms.unwrap_or(record.timestamp_ms),
            waits_for_sync: record.batch.waits_for_sync(),
        }
    }

    fn metadata(&self) -> RecordMetadata {
        RecordMetadata {
            topic: self.topic.topic_name().clone(),
            partition: self.number,
            offsets: self.offsets.clone(),
            timestamp_ms: self.timestamp_ms,
        }
    }

    fn explain(&self, error: Error) -> Error {
        match self.topic.refuse_if_deleted() {
            Err(deleted) => deleted,
            Ok(()) => error,
        }
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Delivery");
        match &self.place {
            Place::Done(metadata) => {
                shown.field("partition", &metadata.partition).field("offsets", &metadata.offsets)
            }
            Place::Appended(batch) => {
                shown.field("partition", &batch.route.number).field("offsets", &batch.offsets)
            }
            Place::Staged(record) => shown
                .field("partition", &record.batch.number())
                .field("index_in_batch", &record.index),
        };
        shown.finish_non_exhaustive()
    }
}

impl RecordMetadata {
    /// Gives the topic's name.
    pub fn topic(&self) -> &str {
        self.topic.as_str()
    }

    /// Gives the partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Gives the record's offset; of a batch, the first record's.
    pub fn offset(&self) -> i64 {
        self.offsets.start
    }

    /// Gives the offsets of all records that were sent together.
    pub fn offsets(&self) -> Range<i64> {
        self.offsets.clone()
    }

    /// Gives the timestamp the record carries, in milliseconds since 1970; of a batch, the greatest.
    pub fn timestamp(&self) -> i64 {
        self.timestamp_ms
    }
}

/// A hundred years: longer than any deadline that makes sense, and within what `Instant` can hold.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Route").field("number", &self.number).finish_non_exhaustive()
    }
}
