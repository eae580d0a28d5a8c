//! A producer's knobs, by Kafka's names too.
//!
//! Those that shape staging do something. Of the others, some have a counterpart elsewhere or may get a meaning
//! one day, and some have none without a network; both kinds are accepted and shown for what they are.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client_config;
use crate::config;
use crate::config::COMPRESSION;
use crate::config::ConfigEntry;
use crate::config::Packing;
use crate::config::Property;
use crate::config::ValueRange;
use crate::config::in_force;
use crate::config::kept;
use crate::config::no_network;
use crate::error::Result;

/// A producer's configuration as it was set.
#[derive(Clone, Debug)]
pub(crate) struct ProducerConfig {
    linger: Duration,
    batch_bytes: Option<usize>,
    buffer_memory: usize,
    max_block: Duration,
    /// What was set, in Kafka's spelling, whether or not it does something.
    set: BTreeMap<&'static str, String>,
}

/// How records are to be staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Staging {
    pub(crate) linger: Duration,
    pub(crate) batch_bytes: usize,
    pub(crate) buffer_memory: usize,
    pub(crate) max_block: Duration,
}

impl Default for ProducerConfig {
    fn default() -> ProducerConfig {
        ProducerConfig {
            linger: Duration::ZERO,
            batch_bytes: None,
            buffer_memory: BUFFER_MEMORY,
            max_block: MAX_BLOCK,
            set: BTreeMap::new(),
        }
    }
}

impl ProducerConfig {
    pub(crate) fn set_linger(&mut self, linger: Duration) {
        self.linger = linger.min(FOREVER);
        self.set.insert(LINGER, self.linger.as_millis().to_string());
    }

    pub(crate) fn set_batch_bytes(&mut self, bytes: usize) {
        let bytes = bytes.min(BATCH_BYTES_MAX);
        self.batch_bytes = Some(bytes);
        self.set.insert(BATCH_SIZE, bytes.to_string());
    }

    pub(crate) fn set_buffer_memory(&mut self, bytes: usize) {
        self.buffer_memory = bytes;
        self.set.insert(BUFFER, bytes.to_string());
    }

    pub(crate) fn set_max_block(&mut self, max_block: Duration) {
        self.max_block = max_block.min(FOREVER);
        self.set.insert(BLOCK, self.max_block.as_millis().to_string());
    }

    /// Sets a property by Kafka's name and in Kafka's spelling.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<()> {
        if client_config::is_about_a_connection(key) {
            return Ok(());
        }
        let value = value.trim();
        let property = client_config::checked(PROPERTIES, "a producer", key, value)?;
        let number = || -> Result<u64> {
            value.parse().map_err(|_| property.refuse(value, "it is out of range".into()))
        };
        let bytes = || Ok(usize::try_from(number()?).unwrap_or(usize::MAX));
        match property.name() {
            LINGER => self.set_linger(Duration::from_millis(number()?)),
            BATCH_SIZE => self.set_batch_bytes(bytes()?),
            BUFFER => self.set_buffer_memory(bytes()?),
            BLOCK => self.set_max_block(Duration::from_millis(number()?)),
            name => drop(self.set.insert(name, value.to_owned())),
        }
        Ok(())
    }

    /// Gives how records are to be staged; `None` if they are to be appended at once.
    pub(crate) fn staging(&self) -> Option<Staging> {
        let is_wanted = !self.linger.is_zero() || self.batch_bytes.is_some();
        let batch_bytes = self.batch_bytes.unwrap_or(BATCH_BYTES);
        // As in Kafka: in batches of nothing every record is alone.
        if !is_wanted || batch_bytes == 0 {
            return None;
        }
        Some(Staging {
            linger: if self.linger.is_zero() { STAGED_AT_MOST } else { self.linger },
            batch_bytes,
            buffer_memory: self.buffer_memory,
            max_block: self.max_block,
        })
    }

    /// Gives how batches are to be compressed where the topic leaves it to the producer.
    pub(crate) fn packing(&self) -> Option<Packing> {
        let default =
            |name: &str| PROPERTIES.iter().find(|p| p.name() == name).map(|p| p.default());
        Packing::of(|name| self.set.get(name).map_or(default(name).unwrap_or_default(), |v| v))
    }

    /// Lists every property of a producer: its value, and whether it does something.
    pub(crate) fn entries(&self) -> Vec<ConfigEntry> {
        client_config::entries(PROPERTIES, &self.set)
    }
}

const LINGER: &str = "linger.ms";
const BATCH_SIZE: &str = "batch.size";
const BUFFER: &str = "buffer.memory";
const BLOCK: &str = "max.block.ms";

/// What is set if only a linger is: Kafka's default.
const BATCH_BYTES: usize = 16 << 10;
const BUFFER_MEMORY: usize = 32 << 20;
const MAX_BLOCK: Duration = Duration::from_secs(60);
/// How long records are staged if only a batch size is set: Kafka's default since 4.0.
const STAGED_AT_MOST: Duration = Duration::from_millis(5);
/// The longest batch that a position in Kafka's index can follow.
const BATCH_BYTES_MAX: usize = i32::MAX as usize / 2;
/// A hundred years: longer than any wait that makes sense, and within what an `Instant` can hold.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

const INT_MAX: i64 = i32::MAX as i64;
const ANY_NUMBER: ValueRange = ValueRange::Number(0, i64::MAX);

/// The producer properties of Kafka 3.9 and 4.x, but for the families above. Defaults are Kafka's, except
/// `linger.ms`: nothing has to travel, so nothing has to wait for company.
static PROPERTIES: &[Property] = &[
    kept("acks", "all", ValueRange::OneOf(&["all", "-1", "0", "1"])),
    in_force(BATCH_SIZE, "16384", ValueRange::Number(0, INT_MAX)),
    no_network("bootstrap.servers", "", ValueRange::Text),
    in_force(BUFFER, "33554432", ANY_NUMBER),
    no_network("client.dns.lookup", "use_all_dns_ips", ValueRange::Text),
    kept("client.id", "", ValueRange::Text),
    in_force(config::GZIP_LEVEL, "-1", config::GZIP_LEVELS),
    kept(config::LZ4_LEVEL, "9", config::LZ4_LEVELS),
    in_force(COMPRESSION, "none", ValueRange::OneOf(&["none", "gzip", "snappy", "lz4", "zstd"])),
    in_force(config::ZSTD_LEVEL, "3", config::ZSTD_LEVELS),
    kept("config.providers", "", ValueRange::Text),
    no_network("connections.max.idle.ms", "540000", ValueRange::Number(-1, i64::MAX)),
    kept("delivery.timeout.ms", "120000", ValueRange::Number(0, INT_MAX)),
    kept("enable.idempotence", "true", ValueRange::Flag),
    no_network("enable.metrics.push", "true", ValueRange::Flag),
    kept("interceptor.classes", "", ValueRange::Text),
    kept("key.serializer", "", ValueRange::Text),
    in_force(LINGER, "0", ANY_NUMBER),
    in_force(BLOCK, "60000", ANY_NUMBER),
    no_network("max.in.flight.requests.per.connection", "5", ValueRange::Number(1, INT_MAX)),
    kept("max.request.size", "1048576", ValueRange::Number(0, INT_MAX)),
    no_network("metadata.max.age.ms", "300000", ANY_NUMBER),
    no_network("metadata.max.idle.ms", "300000", ANY_NUMBER),
    no_network("metadata.recovery.rebootstrap.trigger.ms", "300000", ANY_NUMBER),
    no_network("metadata.recovery.strategy", "rebootstrap", ValueRange::Text),
    kept("metric.reporters", "", ValueRange::Text),
    kept("metrics.num.samples", "2", ValueRange::Number(1, INT_MAX)),
    kept("metrics.recording.level", "INFO", ValueRange::OneOf(&["INFO", "DEBUG", "TRACE"])),
    kept("metrics.sample.window.ms", "30000", ANY_NUMBER),
    kept("partitioner.adaptive.partitioning.enable", "true", ValueRange::Flag),
    no_network("partitioner.availability.timeout.ms", "0", ANY_NUMBER),
    kept("partitioner.class", "", ValueRange::Text),
    kept("partitioner.ignore.keys", "false", ValueRange::Flag),
    no_network("partitioner.rack.aware", "false", ValueRange::Flag),
    no_network("receive.buffer.bytes", "32768", ValueRange::Number(-1, INT_MAX)),
    no_network("reconnect.backoff.max.ms", "1000", ANY_NUMBER),
    no_network("reconnect.backoff.ms", "50", ANY_NUMBER),
    no_network("request.timeout.ms", "30000", ValueRange::Number(0, INT_MAX)),
    no_network("retries", "2147483647", ValueRange::Number(0, INT_MAX)),
    no_network("retry.backoff.max.ms", "1000", ANY_NUMBER),
    no_network("retry.backoff.ms", "100", ANY_NUMBER),
    no_network("security.protocol", "PLAINTEXT", ValueRange::Text),
    no_network("security.providers", "", ValueRange::Text),
    no_network("send.buffer.bytes", "131072", ValueRange::Number(-1, INT_MAX)),
    no_network("socket.connection.setup.timeout.max.ms", "30000", ANY_NUMBER),
    no_network("socket.connection.setup.timeout.ms", "10000", ANY_NUMBER),
    kept("transaction.timeout.ms", "60000", ValueRange::Number(0, INT_MAX)),
    kept("transaction.two.phase.commit.enable", "false", ValueRange::Flag),
    kept("transactional.id", "", ValueRange::Text),
    kept("value.serializer", "", ValueRange::Text),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_valid_and_what_is_in_force() {
        let mut config = ProducerConfig::default();
        let before = format!("{:?}", (config.linger, config.buffer_memory, config.max_block));
        for property in ProducerConfig::default().entries() {
            config.set(property.name, &property.value).unwrap();
        }
        assert_eq!(
            format!("{:?}", (config.linger, config.buffer_memory, config.max_block)),
            before
        );
        assert_eq!(config.batch_bytes, Some(BATCH_BYTES));
        assert!(PROPERTIES.is_sorted_by_key(|property| property.name()));
    }

    #[test]
    fn staging_begins_with_a_linger_or_a_batch_size_and_ends_with_a_batch_size_of_nothing() {
        let staging = |settings: &[(&str, &str)]| {
            let mut config = ProducerConfig::default();
            settings.iter().for_each(|(key, value)| config.set(key, value).unwrap());
            config.staging()
        };
        assert_eq!(staging(&[]), None);
        assert_eq!(staging(&[("buffer.memory", "1"), ("max.block.ms", "0")]), None);
        assert_eq!(staging(&[("linger.ms", "5"), ("batch.size", "0")]), None);
        let by_time = staging(&[("linger.ms", "20")]).unwrap();
        assert_eq!((by_time.linger, by_time.batch_bytes), (Duration::from_millis(20), 16384));
        let by_size = staging(&[("batch.size", "65536"), ("buffer.memory", "131072")]).unwrap();
        assert_eq!((by_size.linger, by_size.batch_bytes), (STAGED_AT_MOST, 65536));
        assert_eq!((by_size.buffer_memory, by_size.max_block), (131_072, MAX_BLOCK));
        // What an `Instant` cannot hold is as good as what it can.
        let for_ever = staging(&[("linger.ms", "9223372036854775807")]).unwrap();
        assert_eq!(for_ever.linger, FOREVER);
    }
}
