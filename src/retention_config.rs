//! How long records are kept: what a topic says about it, by Kafka's names, and what a store does when it is full.

/// What a topic says about how long it keeps records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RetentionPolicy {
    /// `cleanup.policy` has `delete`; without it records go only by `delete_records`, or by compaction.
    pub(crate) deletes: bool,
    /// `retention.ms`; −1 for ever.
    pub(crate) retention_ms: i64,
    /// `retention.bytes`; −1 for any number.
    pub(crate) retention_bytes: i64,
}

/// What a store does about an append that would make it larger than it may be
/// ([`StoreBuilder::bytes_max`](crate::StoreBuilder::bytes_max)).
///
/// ```
/// use ottla::{BudgetPolicy, Error, Record, Store, TopicConfig};
///
/// let store = Store::builder_temporary().bytes_max(64 << 10, BudgetPolicy::BackPressure).open()?;
/// let topic = store.create_topic("t", TopicConfig::new().segment_bytes(16 << 10))?;
/// let producer = store.producer();
/// let refused = loop {
///     if let Err(refused) = producer.send(&topic, Record::new(&[0; 1000])) {
///         break refused;
///     }
/// };
/// assert!(matches!(refused, Error::StoreFull { limit: 65_536, .. }) && refused.is_retriable());
/// // Whoever has read what is there makes room.
/// topic.partition(0)?.delete_records(-1)?;
/// producer.send(&topic, Record::new(&[0; 1000]))?;
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BudgetPolicy {
    /// The oldest segment of the partition that has most goes, and the next, until there is room, whether or not
    /// anybody has read it. Only of topics whose `cleanup.policy` has `delete`. If no full segment is left, the largest
    /// one that is being appended to goes, too: `segment.bytes` should be a small part of the budget.
    DropOldest,
    /// The append is refused with [`Error::StoreFull`](crate::Error::StoreFull), which is retriable, until retention or
    /// [`delete_records`](crate::TopicPartition::delete_records) has made room.
    BackPressure,
}
