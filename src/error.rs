//! What went wrong, and what the caller can do about it.
//!
//! One enum for the whole library. Each variant names the thing it is about (a path, a byte, an
//! offset, a key) and says in its documentation what is true afterwards.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error_texts::blocked_text;
use crate::error_texts::codec_text;
use crate::error_texts::holder_text;
use crate::error_texts::resume_text;
use crate::os_error;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
///
/// ```
/// let store = ottla::Store::temporary()?;
/// let error = store.topic("orders").unwrap_err();
/// assert!(matches!(error, ottla::Error::UnknownTopic { .. }));
/// assert_eq!(error.to_string(), "no topic is named `orders`");
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused. Nothing that was acknowledged is affected.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `open`, `rename`, `synchronise` …
        action: &'static str,
        /// The file or directory it was tried on.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },

    /// No space is left for what was to be written. Nothing of it is visible, everything
    /// acknowledged is intact, and the call may be repeated once there is space again.
    #[error("no space left to {action} {}", path.display())]
    OutOfSpace {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file that could not grow.
        path: PathBuf,
    },

    /// The store has as many bytes as it may have ([`StoreBuilder::bytes_max`](crate::StoreBuilder::bytes_max)), and
    /// its policy refuses more, or nothing is left that may go. Nothing was appended; once something was deleted it
    /// may be tried again.
    #[error("the store is full: {used} of {limit} bytes are taken")]
    StoreFull {
        /// The bytes that its logs take, and that were set aside for those being appended to.
        used: u64,
        /// The bytes it may take.
        limit: u64,
    },

    /// Another process, or another `Store` of this one, holds the directory for writing.
    #[error("{} is in use by another writer{}", path.display(), holder_text(*holder))]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// The process that says it holds the lock, if it said so.
        holder: Option<u32>,
    },

    /// The path is not a directory of partitions, or does not exist and may not be created.
    #[error("{} is not a data directory: {reason}", path.display())]
    NotADataDirectory {
        /// The path that was to be opened.
        path: PathBuf,
        /// What is there instead.
        reason: &'static str,
    },

    /// A file of this library was written by a later version of it.
    #[error("{} has format version {found}, this version reads up to {supported}", path.display())]
    FormatTooNew {
        /// The file.
        path: PathBuf,
        /// The version it declares.
        found: u32,
        /// The latest version this build understands.
        supported: u32,
    },

    /// The store was opened read-only.
    #[error("cannot {action}: the store is open read-only")]
    ReadOnly {
        /// What was asked for.
        action: &'static str,
    },

    /// The store was closed while a handle to it was still held.
    #[error("the store is closed")]
    Closed,

    /// Bytes on disk are not what was written there. The undamaged rest stays readable; nothing
    /// was removed. Where reading can go on, `resume` says at which offset.
    #[error("corrupt data at byte {position} of {}: {reason}{}", path.display(), resume_text(*resume))]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// The position of the first byte of the damaged batch or line.
        position: u64,
        /// Which check failed.
        reason: &'static str,
        /// The first offset behind the damage that can be read, where that is known.
        resume: Option<i64>,
    },

    /// A batch is compressed with a codec that this build does not have: the feature of the codec's name is off, or
    /// nobody knows the codec. The batch can be passed over, and everything else be read.
    #[error("the batch at offset {offset} of {} is compressed with {codec}{}{}", path.display(), codec_text(codec), resume_text(Some(*resume)))]
    UnsupportedCompression {
        /// The codec's Kafka name, which is its feature's name too; `an unknown codec` if it has none.
        codec: &'static str,
        /// The base offset of the batch.
        offset: i64,
        /// The segment file.
        path: PathBuf,
        /// The first offset behind the batch.
        resume: i64,
    },

    /// An earlier write or sync of this partition failed, so its end is unknown. Reads go on;
    /// appends and waits fail until the store is opened again.
    #[error("{} is latched: {reason}", path.display())]
    Latched {
        /// The partition's directory.
        path: PathBuf,
        /// The failure that latched it.
        reason: Arc<str>,
    },

    /// The partition could not be opened; all others are unaffected.
    #[error("{} is not available: {reason}", path.display())]
    Unavailable {
        /// The partition's directory.
        path: PathBuf,
        /// What happened when it was opened.
        reason: Arc<str>,
    },

    /// No topic has this name.
    #[error("no topic is named `{name}`")]
    UnknownTopic {
        /// The name that was looked up.
        name: String,
    },

    /// The topic has no partition of this number.
    #[error("topic `{topic}` has {count} partitions, there is no partition {partition}")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The number that was asked for.
        partition: u32,
        /// How many partitions there are.
        count: u32,
    },

    /// A topic of this name exists already; nothing was changed.
    #[error("a topic named `{name}` exists already")]
    TopicExists {
        /// The name.
        name: String,
    },

    /// The topic behind the handle was deleted.
    #[error("topic `{name}` was deleted")]
    TopicDeleted {
        /// Its name.
        name: String,
    },

    /// The topic's `cleanup.policy` does not have `compact` in it; nothing was changed.
    #[error("topic `{topic}` is not compacted: its cleanup.policy is without `compact`")]
    NotCompacted {
        /// The topic.
        topic: String,
    },

    /// Not a legal topic name by Kafka's rules; nothing was created.
    #[error("`{name}` is not a topic name: {reason}")]
    InvalidTopic {
        /// The name, as given.
        name: String,
        /// The rule it breaks.
        reason: String,
    },

    /// A topic in which groups or transactions keep their papers: nobody makes, deletes or writes to it by hand.
    #[error("topic `{name}` is internal: groups and transactions keep their papers in it")]
    InternalTopic {
        /// The topic.
        name: String,
    },

    /// A partition count that Kafka would refuse; nothing was changed.
    #[error("{requested} partitions cannot be had for topic `{topic}`: {reason}")]
    InvalidPartitions {
        /// The topic.
        topic: String,
        /// The count that was asked for.
        requested: u32,
        /// The rule it breaks.
        reason: &'static str,
    },

    /// A configuration value that is not allowed; nothing was changed.
    #[error("`{value}` is not a value for {key}: {reason}")]
    InvalidConfig {
        /// The property, by Kafka's name.
        key: String,
        /// The value, as given.
        value: String,
        /// What is allowed.
        reason: String,
    },

    /// A configuration property that neither Kafka nor this library knows.
    #[error("{key} is not a property of {of}")]
    UnknownConfig {
        /// The property, as given.
        key: String,
        /// What was being configured.
        of: &'static str,
    },

    /// The record's batch exceeds `max.message.bytes`, or what one segment can hold; it was not appended, others are unaffected.
    #[error("a batch of {len} bytes exceeds {key}, {limit} bytes")]
    RecordTooLarge {
        /// The size of the encoded batch.
        len: usize,
        /// The limit it exceeds.
        limit: usize,
        /// The property that sets the limit.
        key: &'static str,
    },

    /// The record breaks a rule of its topic; it was not appended.
    #[error("the record is refused: {reason}")]
    InvalidRecord {
        /// The rule.
        reason: &'static str,
    },

    /// The record's timestamp is outside what its topic accepts; it was not appended.
    #[error("timestamp {timestamp} ms is refused: {reason}")]
    InvalidTimestamp {
        /// The timestamp, in milliseconds since 1970.
        timestamp: i64,
        /// The limit it breaks.
        reason: &'static str,
    },

    /// A position below the log's start or above its end, and the consumer's reset policy is
    /// [`OffsetReset::Error`](crate::OffsetReset::Error). The position is unchanged: seek.
    #[error("offset {offset} of {topic}-{partition} is out of range, {start} to {end} can be read")]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The position.
        offset: i64,
        /// The first readable offset.
        start: i64,
        /// The end of the log (exclusive).
        end: i64,
    },

    /// What was asked for is not done to a topic of this kind; nothing was changed.
    #[error("topic `{topic}` does not allow it: {reason}")]
    PolicyViolation {
        /// The topic.
        topic: String,
        /// The rule.
        reason: &'static str,
    },

    /// The partition is not assigned to this consumer.
    #[error("{topic}-{partition} is not assigned to this consumer")]
    NotAssigned {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
    },

    /// The consumer was given no group to commit to.
    #[error("the consumer has no group")]
    NoGroup,

    /// Not a group id; nothing was done.
    #[error("`{group}` is not a group id: {reason}")]
    InvalidGroup {
        /// The id, or how it begins.
        group: String,
        /// The rule it breaks.
        reason: &'static str,
    },

    /// The group has neither members nor anything on record.
    #[error("there is no group `{group}`")]
    UnknownGroup {
        /// The id that was looked up.
        group: String,
    },

    /// The group has members, and what was asked for is done only without; nothing was changed.
    #[error("group `{group}` has members")]
    GroupNotEmpty {
        /// The group.
        group: String,
    },

    /// Members of the group read the topic, so what it committed of it stays; nothing was changed.
    #[error("members of group `{group}` subscribe to topic `{topic}`")]
    GroupSubscribed {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
    },

    /// A live member of the group has this instance id; the new one was not taken in.
    #[error("group `{group}` has a member with the instance id `{instance}`")]
    InstanceInUse {
        /// The group.
        group: String,
        /// The instance id.
        instance: String,
    },

    /// The group's members use another assignor; the new one was not taken in.
    #[error("group `{group}` uses the assignor {used}, not {asked}")]
    InconsistentAssignor {
        /// The group.
        group: String,
        /// The assignor that its members use.
        used: String,
        /// The one that was asked for.
        asked: String,
    },

    /// The commit is not by whoever reads the partition for the group, so nothing of it was committed. Records that
    /// were not committed are read again, by another member or by this one.
    #[error("the commit of {topic}-{partition} for group `{group}` is refused: {reason}")]
    CommitRefused {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// Why.
        reason: &'static str,
    },

    /// The group has committed nothing of the partition, and was to begin where it stopped
    /// ([`Start::Committed`](crate::Start::Committed)).
    #[error("group `{group}` has no offset for {topic}-{partition}")]
    NoOffset {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
    },

    /// The text beside an offset is too long; nothing was committed.
    #[error("the metadata of {len} bytes exceeds offset.metadata.max.bytes, {limit} bytes")]
    MetadataTooLarge {
        /// Its size.
        len: usize,
        /// The limit.
        limit: usize,
    },

    /// An argument that has no meaning.
    #[error("{argument} is invalid: {reason}")]
    InvalidArgument {
        /// The parameter.
        argument: &'static str,
        /// The rule it breaks.
        reason: &'static str,
    },

    /// The memory for records that a producer stages (`buffer.memory`) is taken, and none of it came free within
    /// `max.block.ms`, or at once where the call does not wait. The record was not staged; send it again later.
    #[error("the producer's buffer of {limit} bytes (buffer.memory) is full{}", blocked_text(*blocked))]
    BufferFull {
        /// The size of the buffer.
        limit: usize,
        /// How long the call waited for room.
        blocked: Duration,
    },

    /// The responder says that there is no answer to the request: its handler failed or panicked, or what it answered
    /// could not be appended.
    #[error("the request failed: {reason}")]
    RequestFailed {
        /// What the responder says.
        reason: Arc<str>,
    },

    /// The requester was closed or dropped before the reply came. The request is in the log all the same.
    #[error("the requester is closed")]
    RequesterClosed,

    /// A live requester of this store has this identity; the new one was not made.
    #[error("a requester with the identity `{identity}` is there already")]
    RequesterInUse {
        /// The identity.
        identity: String,
    },

    /// As many requests are in flight as the requester allows, and none of them was answered or given up in time.
    /// The request was not sent; send it again later.
    #[error("{limit} requests are in flight, no more are allowed{}", blocked_text(*blocked))]
    TooManyRequests {
        /// How many may be in flight.
        limit: usize,
        /// How long the call waited for room.
        blocked: Duration,
    },

    /// A bounded wait ended before its outcome was known. What was waited for may still happen.
    #[error("timed out waiting for {what}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
    },

    /// [`Wakeup::wake`](crate::Wakeup::wake) was called. Raised once; nothing else changed.
    #[error("woken up")]
    Wakeup,
}

impl Error {
    /// Tells whether the same call may succeed later without anybody changing its arguments: space, memory,
    /// descriptors or locks may have become free by then.
    ///
    /// ```
    /// let store = ottla::Store::temporary()?;
    /// assert!(!store.topic("missing").unwrap_err().is_retriable());
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn is_retriable(&self) -> bool {
        matches!(
            self,
            Error::OutOfSpace { .. }
                | Error::StoreFull { .. }
                | Error::Locked { .. }
                | Error::BufferFull { .. }
                | Error::TooManyRequests { .. }
                | Error::Timeout { .. }
                | Error::Wakeup
        ) || matches!(self, Error::Io { source, .. } if os_error::is_passing(source))
    }

    /// Gives the offset at which reading can go on behind what cannot be read, where that is known.
    pub(crate) fn resume_offset(&self) -> Option<i64> {
        match self {
            Error::Corrupt { resume, .. } => *resume,
            Error::UnsupportedCompression { resume, .. } => Some(*resume),
            _ => None,
        }
    }

    /// Tells whether the partition or store must be opened again before it can be written to.
    ///
    /// ```
    /// let store = ottla::Store::temporary()?;
    /// let producer = store.producer();
    /// let topic = store.create_topic("t", ottla::TopicConfig::new())?;
    /// store.close()?;
    /// assert!(producer.send(&topic, ottla::Record::new("late")).unwrap_err().is_fatal());
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn is_fatal(&self) -> bool {
        matches!(self, Error::Latched { .. } | Error::Unavailable { .. } | Error::Closed)
    }

    /// Gives Kafka's error code, where Kafka has one for this.
    ///
    /// ```
    /// let store = ottla::Store::temporary()?;
    /// assert_eq!(store.topic("missing").unwrap_err().kafka_code(), Some(3));
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn kafka_code(&self) -> Option<i16> {
        Some(match self {
            Error::OffsetOutOfRange { .. } => 1,
            Error::Corrupt { .. } => 2,
            Error::UnknownTopic { .. } | Error::UnknownPartition { .. } => 3,
            Error::Timeout { .. } | Error::BufferFull { .. } => 7,
            Error::RecordTooLarge { key: "segment.bytes", .. } => 18,
            Error::RecordTooLarge { .. } => 10,
            Error::MetadataTooLarge { .. } => 12,
            Error::InvalidTopic { .. } | Error::InternalTopic { .. } => 17,
            Error::CommitRefused { .. } => 22,
            Error::InconsistentAssignor { .. } => 23,
            Error::NoGroup | Error::InvalidGroup { .. } => 24,
            Error::InvalidTimestamp { .. } => 32,
            Error::TopicExists { .. } => 36,
            Error::InvalidPartitions { .. } => 37,
            Error::InvalidConfig { .. } | Error::UnknownConfig { .. } => 40,
            Error::PolicyViolation { .. } => 44,
            Error::Io { .. }
            | Error::OutOfSpace { .. }
            | Error::Latched { .. }
            | Error::Unavailable { .. } => 56,
            Error::NotCompacted { .. } => 44,
            Error::GroupNotEmpty { .. } => 68,
            Error::UnknownGroup { .. } => 69,
            Error::UnsupportedCompression { .. } => 76,
            Error::GroupSubscribed { .. } => 86,
            Error::InvalidRecord { .. } => 87,
            Error::StoreFull { .. } => 89,
            Error::TopicDeleted { .. } => 100,
            Error::InstanceInUse { .. } => 111,
            _ => return None,
        })
    }

    /// Names the failed action and path; a full disk or quota becomes [`Error::OutOfSpace`].
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Error::OutOfSpace { action, path: path.to_path_buf() },
            _ => Error::Io { action, path: path.to_path_buf(), source },
        }
    }

    /// Gives the same error again, for those who share what became of one append.
    pub(crate) fn again(&self) -> Error {
        match self {
            Error::OutOfSpace { action, path } => Error::OutOfSpace { action, path: path.clone() },
            Error::Latched { path, reason } => {
                Error::Latched { path: path.clone(), reason: Arc::clone(reason) }
            }
            Error::TopicDeleted { name } => Error::TopicDeleted { name: name.clone() },
            Error::Closed => Error::Closed,
            Error::StoreFull { used, limit } => Error::StoreFull { used: *used, limit: *limit },
            Error::RecordTooLarge { len, limit, key } => {
                Error::RecordTooLarge { len: *len, limit: *limit, key }
            }
            Error::InvalidRecord { reason } => Error::InvalidRecord { reason },
            Error::Io { action, path, source } => {
                let again = source.raw_os_error().map_or_else(
                    || io::Error::new(source.kind(), source.to_string()),
                    io::Error::from_raw_os_error,
                );
                Error::Io { action, path: path.clone(), source: again }
            }
            other => {
                let source = io::Error::other(other.to_string());
                Error::Io { action: "append to", path: PathBuf::new(), source }
            }
        }
    }

    /// Tells whether this is the operating system saying that it has no descriptor left, or no room for another
    /// mapping.
    pub(crate) fn is_exhaustion(&self) -> bool {
        let Error::Io { source, .. } = self else { return false };
        source.kind() == io::ErrorKind::OutOfMemory || os_error::is_out_of_descriptors(source)
    }

    /// Tells whether this is the operating system saying that the file is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

// An error travels by value through every append: it stays within two cache lines.
const _: () = assert!(std::mem::size_of::<Error>() <= 128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_from_other_failures() {
        let full =
            Error::io("append to", Path::new("x"), io::Error::from_raw_os_error(libc::ENOSPC));
        let broken =
            Error::io("append to", Path::new("x"), io::Error::from_raw_os_error(libc::EIO));
        assert!(matches!(full, Error::OutOfSpace { .. }));
        assert!(matches!(broken, Error::Io { .. }));
    }

    #[test]
    fn messages_carry_the_facts_and_no_full_stop() {
        let error = Error::Corrupt {
            path: "orders-2/00000000000000000042.log".into(),
            position: 4096,
            reason: "checksum mismatch",
            resume: Some(77),
        };
        assert_eq!(
            error.to_string(),
            "corrupt data at byte 4096 of orders-2/00000000000000000042.log: checksum mismatch; \
             reading can go on at offset 77"
        );
    }
}
