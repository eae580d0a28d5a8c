//! Setting up a consumer: limits, isolation, what to do out of range, and at last the partitions.

use std::sync::Arc;
use std::time::Duration;

use crate::assignment::Assignment;
use crate::assignment::Isolation;
use crate::assignment::OffsetReset;
use crate::assignment::Start;
use crate::consumer::Consumer;
use crate::consumer::Settings;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::storage::verified::Checks;
use crate::topic::KeepOpen;
use crate::topics::Topics;

/// Sets up a [`Consumer`].
///
/// ```
/// use ottla::{OffsetReset, Start, Store, TopicConfig};
///
/// let store = Store::temporary()?;
/// let orders = store.create_topic("orders", TopicConfig::new())?;
/// let consumer = store
///     .consumer()
///     .start(Start::Latest)
///     .max_poll_records(100)
///     .reset(OffsetReset::Latest)
///     .assign(orders.partitions())?;
/// assert_eq!(consumer.position(&orders.partition(0)?)?, 0);
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct ConsumerBuilder {
    topics: Arc<Topics>,
    keep_open: KeepOpen,
    settings: Settings,
}

impl ConsumerBuilder {
    pub(crate) fn new(topics: Arc<Topics>, keep_open: KeepOpen) -> ConsumerBuilder {
        let settings = Settings {
            start: Start::Earliest,
            reset: OffsetReset::Earliest,
            isolation: Isolation::ReadUncommitted,
            records_max: 500,
            bytes_max: 50 << 20,
            partition_bytes_max: 1 << 20,
            checks: Checks::All,
            spin: Duration::from_micros(20),
            iterator_timeout: None,
        };
        ConsumerBuilder { topics, keep_open, settings }
    }

    /// Sets where to begin in partitions that are assigned without a start of their own.
    pub fn start(mut self, start: Start) -> ConsumerBuilder {
        self.settings.start = start;
        self
    }

    /// Sets what to do when a position is out of range.
    pub fn reset(mut self, reset: OffsetReset) -> ConsumerBuilder {
        self.settings.reset = reset;
        self
    }

    /// Sets which records are seen.
    pub fn isolation(mut self, isolation: Isolation) -> ConsumerBuilder {
        self.settings.isolation = isolation;
        self
    }

    /// Sets how many records one poll returns at most; default 500, at least 1.
    pub fn max_poll_records(mut self, records: usize) -> ConsumerBuilder {
        self.settings.records_max = records.max(1);
        self
    }

    /// Sets how many bytes one poll returns at most; default 50 MiB. One batch always comes whole.
    pub fn fetch_max_bytes(mut self, bytes: usize) -> ConsumerBuilder {
        self.settings.bytes_max = bytes;
        self
    }

    /// Sets how many bytes of one partition one poll returns at most; default 1 MiB. One batch always
    /// comes whole.
    pub fn max_partition_fetch_bytes(mut self, bytes: usize) -> ConsumerBuilder {
        self.settings.partition_bytes_max = bytes;
        self
    }

    /// Sets whether the checksum of a batch is summed before its records are returned; default true. Kafka's
    /// `check.crcs`.
    ///
    /// A batch is summed once for each time its segment is opened, and not at all if this store has appended
    /// it to the segment that is still being appended to; `false` leaves that out as well. What keeps the
    /// reader safe is checked in either case: lengths, counts and offsets of the records. So a flipped bit in
    /// a key or a value goes unnoticed, one in a batch's structure is still [`Error::Corrupt`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let store = ottla::Store::temporary()?;
    /// # let topic = store.create_topic("t", ottla::TopicConfig::new())?;
    /// # store.producer().send(&topic, "v")?.wait()?;
    /// let mut consumer = store.consumer().check_crcs(false).assign(topic.partitions())?;
    /// assert_eq!(consumer.poll(Duration::from_secs(1))?.count(), 1);
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn check_crcs(mut self, check: bool) -> ConsumerBuilder {
        self.settings.checks = if check { Checks::All } else { Checks::Structure };
        self
    }

    /// Sets how long a poll that follows one with records looks again before it sleeps; default 20 µs, 0
    /// sleeps at once.
    ///
    /// Waking a sleeping thread costs the producer some microseconds, and the consumer more. A consumer whose
    /// records come further apart than this gives up looking again, but for one poll in 64.
    pub fn spin(mut self, spin: Duration) -> ConsumerBuilder {
        self.settings.spin = spin;
        self
    }

    /// Ends a `for` loop over the consumer once nothing came for so long; default never.
    pub fn iterator_timeout(mut self, timeout: Duration) -> ConsumerBuilder {
        self.settings.iterator_timeout = Some(timeout);
        self
    }

    /// Makes a consumer of exactly these partitions.
    ///
    /// # Errors
    ///
    /// * [`Error::TopicDeleted`], [`Error::Unavailable`], [`Error::Closed`].
    /// * [`Error::InvalidArgument`] for a negative offset, or a partition given twice.
    pub fn assign<A: Into<Assignment>>(
        self,
        partitions: impl IntoIterator<Item = A>,
    ) -> Result<Consumer> {
        let mut consumer = Consumer::new(self.topics, self.keep_open, self.settings);
        consumer.assign(partitions)?;
        Ok(consumer)
    }
}

impl std::fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsumerBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}
