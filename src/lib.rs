//! The embedded log: Apache Kafka's producers, consumers, topics and partitions inside your own process.
//!
//! No broker, no port, nothing to operate: link it, open a data directory, produce and consume. The files
//! are Kafka's own, byte for byte.
//!
//! ```
//! use std::time::Duration;
//! use ottla::{Record, Store, TopicConfig};
//!
//! # fn main() -> ottla::Result<()> {
//! # let directory = tempfile::tempdir().map_err(|_| ottla::Error::Closed)?;
//! # let data = directory.path().join("data");
//! let store = Store::open(&data)?;
//! let orders = store.create_topic("orders", TopicConfig::new().partitions(3))?;
//!
//! let producer = store.producer();                            // Clone + Send + Sync
//! let delivery = producer.send(&orders, Record::new("paid").key("order-42"))?; // visible, survives kill -9
//! let metadata = delivery.wait()?;                            // on stable storage (or `.await`)
//! assert_eq!(metadata.offset(), 0);
//!
//! let mut consumer = store.consumer().assign(orders.partitions())?;
//! let records = consumer.poll(Duration::from_millis(100))?;
//! for message in &records {
//!     println!("{}@{} {:?}", message.partition(), message.offset(), message.value());
//! }
//! assert_eq!(records.count(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! What an acknowledgement means: see [`Durability`] and [`documentation::guarantees`]. Everything else in
//! long form: [`documentation`].

mod accumulator;
mod appender;
mod assignment;
mod buffer_pool;
#[cfg(test)]
mod chance;
mod cleaner;
mod client_config;
mod clock;
mod compaction_config;
mod config;
mod consumer;
mod consumer_builder;
mod consumer_config;
mod consumer_group;
mod coordinator;
mod delivery;
pub mod documentation;
mod due;
mod error;
mod error_texts;
#[cfg(test)]
mod explorer;
mod format;
#[cfg(test)]
pub mod fuzzed;
mod group_description;
mod handed_out;
mod health;
pub mod inspect;
mod maintenance;
mod name;
mod os_error;
mod partition;
mod partitioner;
mod per_partition;
mod point_read;
mod producer;
mod producer_config;
mod record;
mod records;
pub mod repair;
mod request;
mod retainer;
mod retention_config;
mod schedules;
mod spin;
mod stage;
mod stage_context;
mod steady_clock;
mod storage;
mod store;
mod sync_workers;
mod topic;
mod topic_state;
mod topics;
mod wakeup;

pub use crate::assignment::Assignment;
pub use crate::assignment::Isolation;
pub use crate::assignment::OffsetReset;
pub use crate::assignment::Start;
pub use crate::config::Compression;
pub use crate::config::ConfigEffect;
pub use crate::config::ConfigEntry;
pub use crate::config::Durability;
pub use crate::config::TimestampType;
pub use crate::config::TopicConfig;
pub use crate::consumer::Consumer;
pub use crate::consumer::Rebalance;
pub use crate::consumer::commits::Consumed;
pub use crate::consumer::iter::ConsumerIter;
pub use crate::consumer_builder::ConsumerBuilder;
pub use crate::consumer_group::ConsumerGroup;
pub use crate::consumer_group::OffsetChange;
pub use crate::consumer_group::ResetTo;
pub use crate::coordinator::assignor::AssignmentMember;
pub use crate::coordinator::assignor::AssignmentRequest;
pub use crate::coordinator::assignor::Assignor;
pub use crate::coordinator::assignor::CustomAssignor;
pub use crate::coordinator::assignor::Given;
pub use crate::coordinator::committed::OffsetAndMetadata;
pub use crate::coordinator::subscription::Subscription;
pub use crate::delivery::Delivery;
pub use crate::delivery::RecordMetadata;
pub use crate::error::Error;
pub use crate::error::Result;
pub use crate::group_description::GroupDescription;
pub use crate::group_description::GroupPartitionDescription;
pub use crate::group_description::GroupStatus;
pub use crate::group_description::MemberDescription;
pub use crate::health::Health;
pub use crate::health::OvertakenGroup;
pub use crate::partition::compaction_progress::CompactionCounts;
pub use crate::partition::compaction_progress::CompactionProgress;
pub use crate::partition::finding::Finding;
pub use crate::partition::retention::RetentionOutlook;
pub use crate::producer::Producer;
pub use crate::producer::ProducerBuilder;
pub use crate::record::Header;
pub use crate::record::Record;
pub use crate::records::Message;
pub use crate::records::Messages;
pub use crate::records::OwnedMessage;
pub use crate::records::Records;
pub use crate::request::names::ReplyHeaders;
pub use crate::request::pending::Pending;
pub use crate::request::reply::Reply;
pub use crate::request::requester::Requester;
pub use crate::request::requester::RequesterStatus;
pub use crate::request::requester_builder::RequesterBuilder;
pub use crate::request::responder::Responder;
pub use crate::request::responder::ResponderBuilder;
pub use crate::request::responder::ResponderStatus;
pub use crate::request::resumed::Resumed;
pub use crate::retention_config::BudgetPolicy;
pub use crate::storage::catalog::TopicId;
pub use crate::store::Store;
pub use crate::store::builder::StoreBuilder;
pub use crate::topic::CompactionReport;
pub use crate::topic::OffsetAndTimestamp;
pub use crate::topic::PartitionDescription;
pub use crate::topic::Topic;
pub use crate::topic::TopicDescription;
pub use crate::topic::TopicPartition;
pub use crate::topics::retaining::Retained;
pub use crate::wakeup::Wakeup;

/// Which handles may go to other threads, held to at compile time.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    const fn is_send<T: Send>() {}
    const fn is_static<T: 'static>() {}
    is_send_and_sync::<Store>();
    is_send_and_sync::<Topic>();
    is_send_and_sync::<TopicPartition>();
    is_send_and_sync::<Producer>();
    is_send_and_sync::<Delivery>();
    is_send_and_sync::<Records>();
    is_send_and_sync::<OwnedMessage>();
    is_send_and_sync::<Wakeup>();
    is_send_and_sync::<Error>();
    is_send_and_sync::<Requester>();
    is_send_and_sync::<Pending>();
    is_send_and_sync::<Responder>();
    is_send::<Consumer>();
    is_send::<Resumed>();
    is_static::<Pending>();
    is_static::<OwnedMessage>();
};
