//! Every knob with its unit, default and effect; parses Kafka's own property names.
//!
//! A topic keeps only what was set for it (its overrides), as text under Kafka's names. What the
//! log works with is a [`LogConfig`], resolved from the overrides and the defaults in [`PROPERTIES`].

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use crate::compaction_config::CompactionConfig;
use crate::error::Error;
use crate::error::Result;
use crate::retention_config::RetentionPolicy;

/// When a [`Delivery`](crate::Delivery) completes, and what the record then survives.
///
/// Whatever the level, a record is visible to consumers and survives the death of the process
/// (`kill -9`, a panic, an abort) as soon as `send` has returned; if the producer
/// [stages](crate::ProducerBuilder::linger), as soon as its batch was appended, and its delivery does not complete
/// before.
///
/// | level | a delivery completes | the record then survives |
/// | --- | --- | --- |
/// | `Synced` | after an `fdatasync` that covers it, shared with everyone who waits | a power cut |
/// | `Every(d)` | at once; a sync begins at most `d` later | `kill -9` at once, a power cut once that sync is through |
/// | `Buffered` | at once | `kill -9` |
///
/// ```
/// use std::time::Duration;
/// use ottla::Durability;
///
/// let store = ottla::Store::temporary()?;
/// let level = Durability::Every(Duration::from_millis(50));
/// let producer = store.producer_builder().durability(level).build();
/// assert_eq!(producer.durability(), level);
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Completes when the record is on stable storage. If nobody waits, the store syncs some 10 ms later.
    #[default]
    Synced,
    /// Completes at once; a sync that covers the record begins at most this much later.
    Every(Duration),
    /// Completes at once; the operating system decides when the record reaches the disk, at the
    /// latest with the store's next checkpoint.
    Buffered,
}

/// Where a record's timestamp comes from (`message.timestamp.type`).
///
/// ```
/// use ottla::{TimestampType, TopicConfig};
/// let config = TopicConfig::new().timestamp_type(TimestampType::LogAppendTime);
/// assert_eq!(config.overrides().next(), Some(("message.timestamp.type", "LogAppendTime")));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimestampType {
    /// The producer's timestamp, or the time of the send.
    #[default]
    CreateTime,
    /// The time of the append; it never decreases within a partition.
    LogAppendTime,
}

/// How batches are compressed (`compression.type`).
///
/// Each has a feature of its name, without which it cannot be chosen; `lz4` is on by default. How hard they try is set by
/// Kafka's names: `compression.gzip.level`, `compression.zstd.level`. LZ4 has the one level that is Kafka's default.
///
/// ```
/// use ottla::{Compression, Store};
///
/// let store = Store::temporary()?;
/// let producer = store.producer_builder().compression(Compression::None)?;
/// assert_eq!(producer.configs().iter().find(|c| c.name == "compression.type").map(|c| &*c.value), Some("none"));
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip: half of Zstandard's speed, and larger.
    Gzip,
    /// Snappy: as LZ4, and no better.
    Snappy,
    /// LZ4: costs the least.
    Lz4,
    /// Zstandard: makes the smallest batches.
    Zstd,
}

/// How batches are compressed, and how hard it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packing {
    pub(crate) compression: Compression,
    pub(crate) level: i32,
}

impl Compression {
    /// Gives Kafka's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// Tells whether this build has it.
    pub fn is_available(self) -> bool {
        match self {
            Compression::None => true,
            Compression::Gzip => cfg!(feature = "gzip"),
            Compression::Snappy => cfg!(feature = "snappy"),
            Compression::Lz4 => cfg!(feature = "lz4"),
            Compression::Zstd => cfg!(feature = "zstd"),
        }
    }

    fn named(name: &str) -> Option<Compression> {
        use Compression::{Gzip, Lz4, Snappy, Zstd};
        [Compression::None, Gzip, Snappy, Lz4, Zstd].into_iter().find(|c| c.name() == name)
    }
}

impl Packing {
    /// Gives what `compression.type` stands for, with the level that is set for the codec; `None` for `producer`.
    pub(crate) fn of<'t>(text: impl Fn(&'static str) -> &'t str) -> Option<Packing> {
        let compression = match text(COMPRESSION) {
            "producer" => return None,
            "uncompressed" => Compression::None,
            name => Compression::named(name)?,
        };
        let level = match compression {
            Compression::Gzip => text(GZIP_LEVEL).parse().unwrap_or(-1),
            Compression::Zstd => text(ZSTD_LEVEL).parse().unwrap_or(3),
            _ => 0,
        };
        Some(Packing { compression, level })
    }
}

pub(crate) const COMPRESSION: &str = "compression.type";
pub(crate) const GZIP_LEVEL: &str = "compression.gzip.level";
pub(crate) const LZ4_LEVEL: &str = "compression.lz4.level";
pub(crate) const ZSTD_LEVEL: &str = "compression.zstd.level";
pub(crate) const GZIP_LEVELS: ValueRange = ValueRange::Number(-1, 9);
pub(crate) const LZ4_LEVELS: ValueRange = ValueRange::Number(1, 17);
pub(crate) const ZSTD_LEVELS: ValueRange = ValueRange::Number(-131_072, 22);

/// How a topic is to be created: its partition count and the properties that differ from the
/// defaults, by Kafka's names.
///
/// ```
/// use ottla::TopicConfig;
///
/// let config = TopicConfig::new().partitions(3).segment_bytes(1 << 20).set("segment.ms", "60000")?;
/// assert_eq!(config.overrides().count(), 2);
/// assert!(TopicConfig::new().set("segmnt.ms", "1").is_err());
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    partition_count: u32,
    overrides: BTreeMap<&'static str, String>,
}

impl Default for TopicConfig {
    fn default() -> TopicConfig {
        TopicConfig { partition_count: 1, overrides: BTreeMap::new() }
    }
}

impl TopicConfig {
    /// One partition, every property at its default.
    pub fn new() -> TopicConfig {
        TopicConfig::default()
    }

    /// Sets how many partitions the topic has.
    pub fn partitions(mut self, count: u32) -> TopicConfig {
        self.partition_count = count;
        self
    }

    /// Sets a property by Kafka's name and in Kafka's spelling.
    ///
    /// # Errors
    ///
    /// * [`Error::UnknownConfig`] if Kafka has no topic property of this name.
    /// * [`Error::InvalidConfig`] if the value is outside the property's range.
    pub fn set(mut self, key: &str, value: &str) -> Result<TopicConfig> {
        let property = Property::named(key)?;
        property.check(value)?;
        property.check_available(value)?;
        self.overrides.insert(property.name, value.trim().to_owned());
        Ok(self)
    }

    /// Sets the size, in bytes, beyond which a segment file is not grown (`segment.bytes`).
    pub fn segment_bytes(self, bytes: u32) -> TopicConfig {
        self.with("segment.bytes", bytes.to_string())
    }

    /// Sets the age, in milliseconds, at which a segment is closed (`segment.ms`), idle or not.
    pub fn segment_ms(self, ms: u64) -> TopicConfig {
        self.with("segment.ms", ms.to_string())
    }

    /// Sets how long records are kept at least, in milliseconds (`retention.ms`); −1 is for ever.
    pub fn retention_ms(self, ms: i64) -> TopicConfig {
        self.with("retention.ms", ms.to_string())
    }

    /// Sets how many bytes of each partition are kept at least (`retention.bytes`); −1 is any number.
    pub fn retention_bytes(self, bytes: i64) -> TopicConfig {
        self.with("retention.bytes", bytes.to_string())
    }

    /// Sets the largest batch accepted, in bytes as encoded (`max.message.bytes`).
    pub fn max_message_bytes(self, bytes: u32) -> TopicConfig {
        self.with("max.message.bytes", bytes.to_string())
    }

    /// Sets how many log bytes lie between two index entries (`index.interval.bytes`).
    pub fn index_interval_bytes(self, bytes: u32) -> TopicConfig {
        self.with("index.interval.bytes", bytes.to_string())
    }

    /// Sets how the topic's batches are compressed, whatever producers say (`compression.type`);
    /// [`Compression::None`] means not at all. Unless it is set, producers choose.
    ///
    /// # Errors
    ///
    /// * [`Error::InvalidConfig`] if this build does not have the codec.
    pub fn compression(self, compression: Compression) -> Result<TopicConfig> {
        let name = match compression {
            Compression::None => "uncompressed",
            other => other.name(),
        };
        self.set(COMPRESSION, name)
    }

    /// Sets where timestamps come from (`message.timestamp.type`).
    pub fn timestamp_type(self, timestamp_type: TimestampType) -> TopicConfig {
        let value = match timestamp_type {
            TimestampType::CreateTime => "CreateTime",
            TimestampType::LogAppendTime => "LogAppendTime",
        };
        self.with("message.timestamp.type", value.to_owned())
    }

    /// Lists the properties that were set, in the order of their names.
    pub fn overrides(&self) -> impl Iterator<Item = (&str, &str)> {
        self.overrides.iter().map(|(key, value)| (*key, value.as_str()))
    }

    pub(crate) fn partition_count(&self) -> u32 {
        self.partition_count
    }

    pub(crate) fn into_overrides(self) -> Overrides {
        Overrides(self.overrides)
    }

    /// Values are checked when the topic is created: a setter has no way to refuse.
    fn with(mut self, name: &'static str, value: String) -> TopicConfig {
        self.overrides.insert(name, value);
        self
    }
}

/// One property of a topic, or of a producer, as it is in force.
///
/// ```
/// let store = ottla::Store::temporary()?;
/// let topic = store.create_topic("t", ottla::TopicConfig::new())?;
/// let age = topic.describe()?.config("segment.ms").cloned().ok_or(ottla::Error::Closed)?;
/// assert_eq!(age.value, "604800000");
/// assert!(age.is_default);
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigEntry {
    /// Kafka's name of the property.
    pub name: &'static str,
    /// Its value, in Kafka's spelling.
    pub value: String,
    /// False if it was set.
    pub is_default: bool,
    /// Whether the property does something.
    pub effect: ConfigEffect,
}

/// Whether a property that is accepted also does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigEffect {
    /// It is in force.
    InForce,
    /// It is kept and shown, and a topic's is handed on with it, but this version does not act on it.
    KeptOnly,
    /// It has no meaning without a network; kept so that configurations carry over unchanged.
    NoNetwork,
}

/// What was set for a topic, by Kafka's names; every key is a known property.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overrides(BTreeMap<&'static str, String>);

impl Overrides {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(key, value)| (*key, value.as_str()))
    }

    /// Sets a property, or returns it to its default.
    pub(crate) fn apply(&mut self, key: &str, value: Option<&str>) -> Result<()> {
        let property = Property::named(key)?;
        match value {
            Some(value) => {
                property.check(value)?;
                self.0.insert(property.name, value.trim().to_owned());
            }
            None => drop(self.0.remove(property.name)),
        }
        Ok(())
    }

    /// As [`apply`](Self::apply), but refuses what this build cannot do. What another build wrote down is kept.
    pub(crate) fn alter(&mut self, key: &str, value: Option<&str>) -> Result<()> {
        if let Some(value) = value {
            Property::named(key)?.check_available(value)?;
        }
        self.apply(key, value)
    }

    pub(crate) fn entries(&self) -> Vec<ConfigEntry> {
        PROPERTIES
            .iter()
            .map(|property| {
                let is_default = !self.0.contains_key(property.name);
                property.entry(self.text(property).to_owned(), is_default)
            })
            .collect()
    }

    fn text(&self, property: &'static Property) -> &str {
        self.0.get(property.name).map_or(property.default, String::as_str)
    }

    fn number<T: FromStr>(&self, name: &'static str) -> Result<T> {
        let property = Property::named(name)?;
        let text = self.text(property);
        property.check(text)?;
        text.parse().map_err(|_| property.refuse(text, "it is out of range".into()))
    }
}

/// A topic's configuration as the log works with it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct LogConfig {
    pub(crate) segment_bytes: u32,
    pub(crate) segment_ms: i64,
    /// By so much a segment may be closed earlier; each by another part of it.
    pub(crate) segment_jitter_ms: i64,
    pub(crate) segment_index_bytes: u32,
    /// For so long the files of deleted segments stay.
    pub(crate) file_delete_delay_ms: i64,
    pub(crate) index_interval_bytes: u32,
    pub(crate) batch_bytes_max: usize,
    pub(crate) timestamp_type: TimestampType,
    pub(crate) timestamp_before_max_ms: i64,
    pub(crate) timestamp_after_max_ms: i64,
    /// `None` leaves it to the producer. A codec that this build does not have, because another set it, does nothing.
    pub(crate) packing: Option<Packing>,
    /// A compacted topic is kept by key, so every record needs one.
    pub(crate) key_required: bool,
    /// `None` unless `cleanup.policy` has `compact` in it.
    pub(crate) compaction: Option<CompactionConfig>,
    pub(crate) retention: RetentionPolicy,
}

impl LogConfig {
    pub(crate) fn resolve(overrides: &Overrides) -> Result<LogConfig> {
        for (key, value) in overrides.iter() {
            Property::named(key)?.check(value)?;
        }
        let text = |name| -> Result<&str> { Ok(overrides.text(Property::named(name)?)) };
        let compaction = CompactionConfig::resolve(text)?;
        Ok(LogConfig {
            segment_bytes: overrides.number("segment.bytes")?,
            segment_ms: CompactionConfig::segment_ms(compaction, overrides.number("segment.ms")?),
            segment_jitter_ms: overrides.number("segment.jitter.ms")?,
            segment_index_bytes: overrides.number("segment.index.bytes")?,
            file_delete_delay_ms: overrides.number("file.delete.delay.ms")?,
            index_interval_bytes: overrides.number("index.interval.bytes")?,
            batch_bytes_max: overrides.number("max.message.bytes")?,
            timestamp_type: match text("message.timestamp.type")? {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_max_ms: overrides.number("message.timestamp.before.max.ms")?,
            timestamp_after_max_ms: overrides.number("message.timestamp.after.max.ms")?,
            packing: Packing::of(|name| text(name).unwrap_or_default()),
            key_required: compaction.is_some(),
            compaction,
            retention: RetentionPolicy {
                deletes: text("cleanup.policy")?.split(',').any(|policy| policy.trim() == "delete"),
                retention_ms: overrides.number("retention.ms")?,
                retention_bytes: overrides.number("retention.bytes")?,
            },
        })
    }
}

/// One of Kafka's properties.
pub(crate) struct Property {
    name: &'static str,
    default: &'static str,
    range: ValueRange,
    effect: ConfigEffect,
}

pub(crate) enum ValueRange {
    /// A whole number between the two, both included.
    Number(i64, i64),
    /// A number between 0 and 1.
    Ratio,
    Flag,
    OneOf(&'static [&'static str]),
    /// Any of these, separated by commas; possibly none.
    ListOf(&'static [&'static str]),
    Text,
}

impl Property {
    fn named(key: &str) -> Result<&'static Property> {
        PROPERTIES
            .iter()
            .find(|property| property.name == key)
            .ok_or_else(|| Error::UnknownConfig { key: key.to_owned(), of: "a topic" })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn default(&self) -> &'static str {
        self.default
    }

    pub(crate) fn entry(&self, value: String, is_default: bool) -> ConfigEntry {
        ConfigEntry { name: self.name, value, is_default, effect: self.effect }
    }

    pub(crate) fn check(&self, value: &str) -> Result<()> {
        let value = value.trim();
        let reason = match self.range {
            ValueRange::Number(min, max) => match value.parse::<i64>() {
                Ok(number) if (min..=max).contains(&number) => return Ok(()),
                _ => format!("a whole number from {min} to {max} is needed"),
            },
            ValueRange::Ratio => match value.parse::<f64>() {
                Ok(number) if (0.0..=1.0).contains(&number) => return Ok(()),
                _ => "a number from 0 to 1 is needed".to_owned(),
            },
            ValueRange::Flag if matches!(value, "true" | "false") => return Ok(()),
            ValueRange::Flag => "`true` or `false` is needed".to_owned(),
            ValueRange::OneOf(allowed) if allowed.contains(&value) => return Ok(()),
            ValueRange::OneOf(allowed) => format!("one of {} is needed", allowed.join(", ")),
            ValueRange::ListOf(allowed) => {
                let mut words = value.split(',').map(str::trim).filter(|word| !word.is_empty());
                if words.all(|word| allowed.contains(&word)) {
                    return Ok(());
                }
                format!("a list of {} is needed", allowed.join(", "))
            }
            ValueRange::Text if value.chars().all(|c| !c.is_control()) => return Ok(()),
            ValueRange::Text => "it contains a control character".to_owned(),
        };
        Err(self.refuse(value, reason))
    }

    /// Refuses a codec that this build does not have.
    pub(crate) fn check_available(&self, value: &str) -> Result<()> {
        let value = value.trim();
        let is_missing = |codec: &Compression| self.name == COMPRESSION && !codec.is_available();
        match Compression::named(value).filter(is_missing) {
            Some(codec) => {
                let name = codec.name();
                let reason = format!("this build of ottla does not have the feature `{name}`");
                Err(self.refuse(value, reason))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn refuse(&self, value: &str, reason: String) -> Error {
        Error::InvalidConfig { key: self.name.to_owned(), value: value.to_owned(), reason }
    }
}

pub(crate) const fn in_force(
    name: &'static str,
    default: &'static str,
    range: ValueRange,
) -> Property {
    Property { name, default, range, effect: ConfigEffect::InForce }
}

pub(crate) const fn kept(name: &'static str, default: &'static str, range: ValueRange) -> Property {
    Property { name, default, range, effect: ConfigEffect::KeptOnly }
}

pub(crate) const fn no_network(
    name: &'static str,
    default: &'static str,
    range: ValueRange,
) -> Property {
    Property { name, default, range, effect: ConfigEffect::NoNetwork }
}

const INT_MAX: i64 = i32::MAX as i64;
const LONG_MAX: &str = "9223372036854775807";

/// Every topic property of Kafka 3.9 and 4.x. Defaults are Kafka's, except two. `segment.bytes`: smaller segments bound
/// recovery and are let go earlier. `file.delete.delay.ms`: no reader needs the name of a deleted file, and at the rate of
/// an embedded log what is deleted within a minute may be more than what is kept.
static PROPERTIES: &[Property] = &[
    in_force("cleanup.policy", "delete", ValueRange::ListOf(&["delete", "compact"])),
    in_force(GZIP_LEVEL, "-1", GZIP_LEVELS),
    kept(LZ4_LEVEL, "9", LZ4_LEVELS),
    in_force(
        COMPRESSION,
        "producer",
        ValueRange::OneOf(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
    ),
    in_force(ZSTD_LEVEL, "3", ZSTD_LEVELS),
    in_force("delete.retention.ms", "86400000", ValueRange::Number(0, i64::MAX)),
    kept("errors.deadletterqueue.group.enable", "false", ValueRange::Flag),
    in_force("file.delete.delay.ms", "0", ValueRange::Number(0, i64::MAX)),
    kept("flush.messages", LONG_MAX, ValueRange::Number(1, i64::MAX)),
    kept("flush.ms", LONG_MAX, ValueRange::Number(0, i64::MAX)),
    no_network("follower.replication.throttled.replicas", "", ValueRange::Text),
    in_force("index.interval.bytes", "4096", ValueRange::Number(0, INT_MAX)),
    no_network("leader.replication.throttled.replicas", "", ValueRange::Text),
    no_network("local.retention.bytes", "-2", ValueRange::Number(-2, i64::MAX)),
    no_network("local.retention.ms", "-2", ValueRange::Number(-2, i64::MAX)),
    in_force("max.compaction.lag.ms", LONG_MAX, ValueRange::Number(1, i64::MAX)),
    in_force("max.message.bytes", "1048588", ValueRange::Number(0, INT_MAX)),
    no_network("message.downconversion.enable", "true", ValueRange::Flag),
    no_network("message.format.version", "3.0-IV1", ValueRange::Text),
    in_force("message.timestamp.after.max.ms", "3600000", ValueRange::Number(0, i64::MAX)),
    in_force("message.timestamp.before.max.ms", LONG_MAX, ValueRange::Number(0, i64::MAX)),
    in_force(
        "message.timestamp.type",
        "CreateTime",
        ValueRange::OneOf(&["CreateTime", "LogAppendTime"]),
    ),
    in_force("min.cleanable.dirty.ratio", "0.5", ValueRange::Ratio),
    in_force("min.compaction.lag.ms", "0", ValueRange::Number(0, i64::MAX)),
    kept("min.insync.replicas", "1", ValueRange::Number(1, INT_MAX)),
    kept("preallocate", "false", ValueRange::Flag),
    no_network("remote.log.copy.disable", "false", ValueRange::Flag),
    no_network("remote.log.delete.on.disable", "false", ValueRange::Flag),
    no_network("remote.storage.enable", "false", ValueRange::Flag),
    in_force("retention.bytes", "-1", ValueRange::Number(-1, i64::MAX)),
    in_force("retention.ms", "604800000", ValueRange::Number(-1, i64::MAX)),
    in_force("segment.bytes", "67108864", ValueRange::Number(1024, INT_MAX)),
    in_force("segment.index.bytes", "10485760", ValueRange::Number(24, INT_MAX)),
    in_force("segment.jitter.ms", "0", ValueRange::Number(0, i64::MAX)),
    in_force("segment.ms", "604800000", ValueRange::Number(1, i64::MAX)),
    kept("unclean.leader.election.enable", "false", ValueRange::Flag),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_valid_and_resolves() {
        for property in PROPERTIES {
            property.check(property.default).unwrap();
        }
        let config = LogConfig::resolve(&Overrides::default()).unwrap();
        assert_eq!(config.segment_bytes, 64 << 20);
        assert_eq!(config.batch_bytes_max, (1 << 20) + 12);
        assert!(!config.key_required);
    }

    #[test]
    fn unknown_names_and_bad_values_are_refused_by_name() {
        let unknown = TopicConfig::new().set("segmnt.bytes", "1").unwrap_err();
        assert_eq!(unknown.to_string(), "segmnt.bytes is not a property of a topic");
        for (key, value) in [
            ("segment.bytes", "0"),
            ("segment.bytes", "2147483648"),
            ("segment.bytes", "many"),
            ("cleanup.policy", "delete,shred"),
            ("min.cleanable.dirty.ratio", "2"),
            ("preallocate", "yes"),
            ("message.timestamp.type", "createtime"),
            ("message.format.version", "a\nb"),
        ] {
            let error = TopicConfig::new().set(key, value).unwrap_err();
            assert!(matches!(&error, Error::InvalidConfig { key: k, .. } if k == key), "{error}");
        }
    }

    #[test]
    fn setters_are_checked_when_resolved() {
        let overrides = TopicConfig::new().segment_bytes(3).into_overrides();
        assert!(matches!(LogConfig::resolve(&overrides), Err(Error::InvalidConfig { .. })));
    }

    #[test]
    fn a_compacted_topic_requires_keys() {
        let overrides =
            TopicConfig::new().set("cleanup.policy", "delete, compact").unwrap().into_overrides();
        assert!(LogConfig::resolve(&overrides).unwrap().key_required);
    }
}
