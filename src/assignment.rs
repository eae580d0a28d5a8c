//! What a consumer is told before it reads: which partitions, from where, and which of their records.

use std::time::Duration;

use crate::partition::Partition;
use crate::topic::TopicPartition;

/// Where a consumer begins to read a partition.
///
/// ```
/// # use std::time::Duration;
/// # use ottla::{Record, Start, Store, TopicConfig};
/// # let store = Store::temporary()?;
/// # let topic = store.create_topic("t", TopicConfig::new())?;
/// # for n in 0..5 { store.producer().send(&topic, &format!("{n}"))?.wait()?; }
/// let partition = topic.partition(0)?;
/// let mut consumer = store.consumer().assign([(partition, Start::Last(2))])?;
/// let records = consumer.poll(Duration::from_secs(1))?;
/// assert_eq!(records.iter().map(|m| m.offset()).collect::<Vec<_>>(), [3, 4]);
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// At the first record there is.
    #[default]
    Earliest,
    /// Behind the last record there is now.
    Latest,
    /// At this offset; the reset policy applies if it is out of range.
    Offset(i64),
    /// At the first record with this timestamp (milliseconds since 1970) or a later one; behind the last
    /// record if there is none.
    Timestamp(i64),
    /// So many offsets before the end.
    Last(u64),
    /// At the first record that is no older than this (KIP-1106); behind the last record if all are.
    ByDuration(Duration),
    /// Where the consumer's group stopped. If it has committed nothing of a partition that is an
    /// [`Error::NoOffset`](crate::Error::NoOffset) (Kafka's `none`).
    Committed,
}

/// What a consumer does when its position is below the log's start or above its end
/// (`auto.offset.reset`).
///
/// ```
/// # use std::time::Duration;
/// # use ottla::{Error, OffsetReset, Start, Store, TopicConfig};
/// # let store = Store::temporary()?;
/// # let topic = store.create_topic("t", TopicConfig::new())?;
/// let mut consumer = store
///     .consumer()
///     .reset(OffsetReset::Error)
///     .assign([(topic.partition(0)?, Start::Offset(1_000))])?;
/// let error = consumer.poll(Duration::ZERO).unwrap_err();
/// assert!(matches!(error, Error::OffsetOutOfRange { offset: 1_000, end: 0, .. }));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OffsetReset {
    /// Goes to the first record there is.
    #[default]
    Earliest,
    /// Goes behind the last record there is.
    Latest,
    /// Goes to the first record that is no older (KIP-1106); behind the last if all are.
    ByDuration(Duration),
    /// Raises [`Error::OffsetOutOfRange`](crate::Error::OffsetOutOfRange).
    Error,
}

/// Which records a consumer sees.
///
/// ```
/// # use std::time::Duration;
/// # use ottla::{Durability, Isolation, Record, Store, TopicConfig};
/// # let store = Store::builder_temporary().durability(Durability::Buffered).open()?;
/// # let topic = store.create_topic("t", TopicConfig::new())?;
/// let mut careful = store.consumer().isolation(Isolation::Durable).assign(topic.partitions())?;
/// let _unsynced = store.producer().send(&topic, Record::new("v"))?;
/// store.sync()?;
/// assert_eq!(careful.poll(Duration::from_secs(5))?.count(), 1);
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isolation {
    /// Everything that was appended. A power cut may take back what was not yet durable.
    #[default]
    ReadUncommitted,
    /// Only what is on stable storage: what a consumer acts upon then cannot be taken back.
    Durable,
}

impl Isolation {
    /// Gives the end of what is seen of a log.
    #[inline]
    pub(crate) fn bound(self, open: &Partition) -> i64 {
        match self {
            Isolation::ReadUncommitted => open.watermarks().log_end(),
            Isolation::Durable => open.watermarks().durable_end(),
        }
    }
}

/// A partition to be read, and where to begin.
///
/// ```
/// # use ottla::{Assignment, Start, Store, TopicConfig};
/// # let store = Store::temporary()?;
/// # let topic = store.create_topic("t", TopicConfig::new())?;
/// let assignment: Assignment = (topic.partition(0)?, Start::Latest).into();
/// let consumer = store.consumer().assign([assignment])?;
/// assert_eq!(consumer.assignment().count(), 1);
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Assignment {
    pub(crate) partition: TopicPartition,
    pub(crate) start: Option<Start>,
}

impl From<TopicPartition> for Assignment {
    fn from(partition: TopicPartition) -> Assignment {
        Assignment { partition, start: None }
    }
}

impl From<&TopicPartition> for Assignment {
    fn from(partition: &TopicPartition) -> Assignment {
        partition.clone().into()
    }
}

impl From<(TopicPartition, Start)> for Assignment {
    fn from((partition, start): (TopicPartition, Start)) -> Assignment {
        Assignment { partition, start: Some(start) }
    }
}
