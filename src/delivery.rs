//! The pending result of a send.
//!
//! When `send` has returned, the record is in the log, visible, and survives the death of the process. The
//! [`Delivery`] is about the rest: it completes when the record is as durable as the producer's level
//! promises. Wait for it on a thread, `.await` it in a task of any runtime, or let it go.

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
use crate::partition::Partition;
use crate::topic::KeepOpen;
use crate::topic_state::TopicState;

/// The promise that a sent record, or batch of records, becomes durable.
///
/// Dropping it takes nothing back. Under [`Durability::Synced`](crate::Durability::Synced) the store
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
    pub(crate) topic: Arc<TopicState>,
    pub(crate) partition: Arc<Partition>,
    pub(crate) metadata: RecordMetadata,
    /// False where the level promises no more than what holds already.
    pub(crate) waits_for_sync: bool,
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
    /// Blocks until the record is as durable as its producer's level promises.
    ///
    /// Under [`Durability::Synced`](crate::Durability::Synced) that is an `fdatasync` shared with everyone
    /// who waits; under the other levels it returns at once.
    ///
    /// # Errors
    ///
    /// * [`Error::Latched`] if the sync failed, now or earlier: the record may or may not survive a power
    ///   cut. It is never tried again; reopen the store to see what is there.
    /// * [`Error::TopicDeleted`] if the topic was deleted meanwhile.
    pub fn wait(self) -> Result<RecordMetadata> {
        if self.waits_for_sync {
            let waited = self.partition.wait_durable(self.metadata.offsets.end);
            waited.map_err(|error| self.explain(error))?;
        }
        Ok(self.metadata)
    }

    /// As [`wait`](Self::wait), but no longer than `timeout`. The store's own thread synchronises, so that
    /// a disk that hangs does not hold up the caller.
    ///
    /// # Errors
    ///
    /// * [`Error::Timeout`] if time was up: the outcome is not known yet, wait again.
    /// * As [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<RecordMetadata> {
        if self.waits_for_sync {
            let end = self.metadata.offsets.end;
            let deadline = Instant::now().checked_add(timeout);
            let deadline = deadline.unwrap_or_else(|| Instant::now() + FOREVER);
            let waited = self.partition.wait_durable_until(end, deadline);
            if !waited.map_err(|error| self.explain(error))? {
                return Err(Error::Timeout { what: "a record to become durable" });
            }
        }
        Ok(self.metadata.clone())
    }

    fn explain(&self, error: Error) -> Error {
        match self.topic.refuse_if_deleted() {
            Err(deleted) => deleted,
            Ok(()) => error,
        }
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.waits_for_sync {
            return Poll::Ready(Ok(self.metadata.clone()));
        }
        match self.partition.poll_durable(self.metadata.offsets.end, context.waker()) {
            Ok(true) => Poll::Ready(Ok(self.metadata.clone())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(self.explain(error))),
        }
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("metadata", &self.metadata)
            .field("waits_for_sync", &self.waits_for_sync)
            .finish_non_exhaustive()
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
