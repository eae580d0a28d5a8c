//! A consumer's knobs by Kafka's names.
//!
//! What they mean is said here, what is done about it by the builder. Those that do nothing are accepted and shown
//! for what they are.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client_config;
use crate::config::ConfigEntry;
use crate::config::Property;
use crate::config::ValueRange;
use crate::config::in_force;
use crate::config::kept;
use crate::config::no_network;
use crate::error::Result;

/// A consumer's properties as they were set, in Kafka's spelling.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConsumerConfig {
    set: BTreeMap<&'static str, String>,
}

/// What one property asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ConsumerSetting {
    GroupId(String),
    InstanceId(String),
    ClientId(String),
    /// Names of assignors, the preferred one first.
    Assignors(Vec<String>),
    AutoCommit(bool),
    AutoCommitInterval(Duration),
    AutoOffsetReset(AutoOffsetReset),
    MaxPollRecords(usize),
    MaxPollInterval(Duration),
    FetchMaxBytes(usize),
    MaxPartitionFetchBytes(usize),
    CheckCrcs(bool),
    /// It does nothing here.
    Nothing,
}

/// Where to begin without an offset, or with one that is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AutoOffsetReset {
    Earliest,
    Latest,
    ByDuration(Duration),
    None,
}

impl ConsumerConfig {
    /// Takes a property by Kafka's name and says what it asks for.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<ConsumerSetting> {
        if client_config::is_about_a_connection(key) {
            return Ok(ConsumerSetting::Nothing);
        }
        let value = value.trim();
        let property = client_config::checked(PROPERTIES, "a consumer", key, value)?;
        let number = || -> Result<u64> {
            value.parse().map_err(|_| property.refuse(value, "it is out of range".into()))
        };
        let count = || Ok(usize::try_from(number()?).unwrap_or(usize::MAX));
        let setting = match property.name() {
            GROUP_ID => ConsumerSetting::GroupId(value.to_owned()),
            INSTANCE_ID => ConsumerSetting::InstanceId(value.to_owned()),
            CLIENT_ID => ConsumerSetting::ClientId(value.to_owned()),
            ASSIGNOR | STRATEGY => {
                let names = value.split(',').map(|name| short_name(name.trim()).to_owned());
                ConsumerSetting::Assignors(names.filter(|name| !name.is_empty()).collect())
            }
            AUTO_COMMIT => ConsumerSetting::AutoCommit(value == "true"),
            AUTO_COMMIT_INTERVAL => {
                ConsumerSetting::AutoCommitInterval(Duration::from_millis(number()?))
            }
            AUTO_OFFSET_RESET => {
                let reset = parse_reset(value).ok_or_else(|| {
                    let reason = "it is not one of earliest, latest, none, by_duration:PnDTnHnMnS";
                    property.refuse(value, reason.into())
                })?;
                ConsumerSetting::AutoOffsetReset(reset)
            }
            MAX_POLL_RECORDS => ConsumerSetting::MaxPollRecords(count()?),
            MAX_POLL_INTERVAL => ConsumerSetting::MaxPollInterval(Duration::from_millis(number()?)),
            FETCH_MAX_BYTES => ConsumerSetting::FetchMaxBytes(count()?),
            MAX_PARTITION_FETCH_BYTES => ConsumerSetting::MaxPartitionFetchBytes(count()?),
            CHECK_CRCS => ConsumerSetting::CheckCrcs(value == "true"),
            _ => ConsumerSetting::Nothing,
        };
        self.set.insert(property.name(), value.to_owned());
        Ok(setting)
    }

    /// Lists every property of a consumer: its value, and whether it does something.
    pub(crate) fn entries(&self) -> Vec<ConfigEntry> {
        client_config::entries(PROPERTIES, &self.set)
    }
}

/// Kafka's classes are known by their short names.
fn short_name(name: &str) -> &str {
    match name.rsplit('.').next().unwrap_or(name) {
        "RangeAssignor" => "range",
        "RoundRobinAssignor" => "roundrobin",
        "StickyAssignor" => "sticky",
        "CooperativeStickyAssignor" => "cooperative-sticky",
        _ => name,
    }
}

fn parse_reset(value: &str) -> Option<AutoOffsetReset> {
    Some(match value {
        "earliest" => AutoOffsetReset::Earliest,
        "latest" => AutoOffsetReset::Latest,
        "none" => AutoOffsetReset::None,
        other => AutoOffsetReset::ByDuration(parse_duration(other.strip_prefix("by_duration:")?)?),
    })
}

/// Reads a duration as Java writes it: `P2DT3H4M5.6S`, each part but the first letter optional.
fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('P')?;
    let (days, time) = match text.split_once('T') {
        Some((days, time)) => (days, Some(time).filter(|time| !time.is_empty())?),
        None => (text, ""),
    };
    let mut millis = 0_u64;
    let mut has_some = false;
    let mut take = |rest: &mut &str, unit: char, millis_each: u64| -> Option<()> {
        let Some((number, behind)) = rest.split_once(unit) else { return Some(()) };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let is_fraction_allowed = unit == 'S' || fraction.is_empty();
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_fraction_allowed || !is_number(whole) || !is_number(fraction) {
            return None;
        }
        let fraction = format!("{fraction:0<3}");
        let below: u64 = if unit == 'S' { fraction.get(..3)?.parse().ok()? } else { 0 };
        let whole = whole.parse::<u64>().ok()?.checked_mul(millis_each)?;
        millis = millis.checked_add(whole)?.checked_add(below)?;
        has_some = true;
        *rest = behind;
        Some(())
    };
    let mut rest = days;
    take(&mut rest, 'D', 24 * 3600 * 1000)?;
    if !rest.is_empty() {
        return None;
    }
    rest = time;
    take(&mut rest, 'H', 3600 * 1000)?;
    take(&mut rest, 'M', 60 * 1000)?;
    take(&mut rest, 'S', 1000)?;
    (rest.is_empty() && has_some).then(|| Duration::from_millis(millis))
}

const GROUP_ID: &str = "group.id";
const INSTANCE_ID: &str = "group.instance.id";
const CLIENT_ID: &str = "client.id";
const ASSIGNOR: &str = "group.remote.assignor";
const STRATEGY: &str = "partition.assignment.strategy";
const AUTO_COMMIT: &str = "enable.auto.commit";
const AUTO_COMMIT_INTERVAL: &str = "auto.commit.interval.ms";
const AUTO_OFFSET_RESET: &str = "auto.offset.reset";
const MAX_POLL_RECORDS: &str = "max.poll.records";
const MAX_POLL_INTERVAL: &str = "max.poll.interval.ms";
const FETCH_MAX_BYTES: &str = "fetch.max.bytes";
const MAX_PARTITION_FETCH_BYTES: &str = "max.partition.fetch.bytes";
const CHECK_CRCS: &str = "check.crcs";

const INT_MAX: i64 = i32::MAX as i64;
const ANY_NUMBER: ValueRange = ValueRange::Number(0, i64::MAX);

/// The consumer properties of Kafka 3.9 and 4.x, but for the families above. Defaults are Kafka's, but for
/// `enable.auto.commit`, `auto.offset.reset` and `max.poll.interval.ms`: commits are explicit, a new group misses
/// nothing, and nobody is put out for being slow.
static PROPERTIES: &[Property] = &[
    no_network("allow.auto.create.topics", "false", ValueRange::Flag),
    in_force(AUTO_COMMIT_INTERVAL, "5000", ValueRange::Number(0, INT_MAX)),
    in_force(AUTO_OFFSET_RESET, "earliest", ValueRange::Text),
    no_network("bootstrap.servers", "", ValueRange::Text),
    in_force(CHECK_CRCS, "true", ValueRange::Flag),
    no_network("client.dns.lookup", "use_all_dns_ips", ValueRange::Text),
    in_force(CLIENT_ID, "", ValueRange::Text),
    no_network("client.rack", "", ValueRange::Text),
    kept("config.providers", "", ValueRange::Text),
    no_network("connections.max.idle.ms", "540000", ValueRange::Number(-1, i64::MAX)),
    no_network("default.api.timeout.ms", "60000", ValueRange::Number(0, INT_MAX)),
    in_force(AUTO_COMMIT, "false", ValueRange::Flag),
    no_network("enable.metrics.push", "true", ValueRange::Flag),
    kept("exclude.internal.topics", "true", ValueRange::Flag),
    in_force(FETCH_MAX_BYTES, "52428800", ValueRange::Number(0, INT_MAX)),
    no_network("fetch.max.wait.ms", "500", ValueRange::Number(0, INT_MAX)),
    no_network("fetch.min.bytes", "1", ValueRange::Number(0, INT_MAX)),
    in_force(GROUP_ID, "", ValueRange::Text),
    in_force(INSTANCE_ID, "", ValueRange::Text),
    no_network("group.protocol", "consumer", ValueRange::OneOf(&["classic", "consumer"])),
    in_force(ASSIGNOR, "uniform", ValueRange::Text),
    no_network("heartbeat.interval.ms", "3000", ValueRange::Number(0, INT_MAX)),
    kept("interceptor.classes", "", ValueRange::Text),
    kept(
        "isolation.level",
        "read_uncommitted",
        ValueRange::OneOf(&["read_uncommitted", "read_committed"]),
    ),
    kept("key.deserializer", "", ValueRange::Text),
    in_force(MAX_PARTITION_FETCH_BYTES, "1048576", ValueRange::Number(0, INT_MAX)),
    in_force(MAX_POLL_INTERVAL, "", ValueRange::Number(1, INT_MAX)),
    in_force(MAX_POLL_RECORDS, "500", ValueRange::Number(1, INT_MAX)),
    no_network("metadata.max.age.ms", "300000", ANY_NUMBER),
    no_network("metadata.recovery.rebootstrap.trigger.ms", "300000", ANY_NUMBER),
    no_network("metadata.recovery.strategy", "rebootstrap", ValueRange::Text),
    kept("metric.reporters", "", ValueRange::Text),
    kept("metrics.num.samples", "2", ValueRange::Number(1, INT_MAX)),
    kept("metrics.recording.level", "INFO", ValueRange::OneOf(&["INFO", "DEBUG", "TRACE"])),
    kept("metrics.sample.window.ms", "30000", ANY_NUMBER),
    in_force(STRATEGY, "uniform", ValueRange::Text),
    no_network("receive.buffer.bytes", "65536", ValueRange::Number(-1, INT_MAX)),
    no_network("reconnect.backoff.max.ms", "1000", ANY_NUMBER),
    no_network("reconnect.backoff.ms", "50", ANY_NUMBER),
    no_network("request.timeout.ms", "30000", ValueRange::Number(0, INT_MAX)),
    no_network("retry.backoff.max.ms", "1000", ANY_NUMBER),
    no_network("retry.backoff.ms", "100", ANY_NUMBER),
    no_network("security.protocol", "PLAINTEXT", ValueRange::Text),
    no_network("security.providers", "", ValueRange::Text),
    no_network("send.buffer.bytes", "131072", ValueRange::Number(-1, INT_MAX)),
    no_network("session.timeout.ms", "45000", ValueRange::Number(0, INT_MAX)),
    no_network("socket.connection.setup.timeout.max.ms", "30000", ANY_NUMBER),
    no_network("socket.connection.setup.timeout.ms", "10000", ANY_NUMBER),
    kept("value.deserializer", "", ValueRange::Text),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn durations_are_read_as_java_writes_them() {
        for (text, millis) in [
            ("P1D", 86_400_000),
            ("PT1H", 3_600_000),
            ("P1DT2H3M4.5S", 93_784_500),
            ("PT0.001S", 1),
            ("PT0S", 0),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "P", "PT", "P1", "1D", "P1M", "PT1D", "P-1D", "P1.5D", "PT1S1H", "P1DT", "PTxS"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(parse_duration("P99999999999999999999D"), None);
    }

    #[test]
    fn properties_say_what_they_ask_for_or_are_refused_by_name() {
        let mut config = ConsumerConfig::default();
        let reset = config.set("auto.offset.reset", "by_duration:PT1M").unwrap();
        let age = Duration::from_secs(60);
        let asked = ConsumerSetting::AutoOffsetReset(AutoOffsetReset::ByDuration(age));
        assert_eq!(reset, asked);
        let strategy = "org.apache.kafka.clients.consumer.RangeAssignor,cooperative-sticky";
        assert_eq!(
            config.set("partition.assignment.strategy", strategy).unwrap(),
            ConsumerSetting::Assignors(vec!["range".into(), "cooperative-sticky".into()])
        );
        assert_eq!(config.set("session.timeout.ms", "10").unwrap(), ConsumerSetting::Nothing);
        assert_eq!(config.set("sasl.jaas.config", "secret").unwrap(), ConsumerSetting::Nothing);
        assert!(!format!("{config:?}").contains("secret"));
        assert!(matches!(config.set("grup.id", "g"), Err(Error::UnknownConfig { .. })));
        for (key, value) in
            [("auto.offset.reset", "newest"), ("max.poll.records", "0"), ("check.crcs", "yes")]
        {
            assert!(matches!(config.set(key, value), Err(Error::InvalidConfig { .. })), "{key}");
        }
        let set = config.entries().into_iter().filter(|entry| !entry.is_default).count();
        assert_eq!(set, 3);
        assert!(PROPERTIES.is_sorted_by_key(Property::name));
    }
}
