//! Whether, when and how a topic is compacted, as its properties say.

use std::str::FromStr;

use crate::error::Error;
use crate::error::Result;

/// What is in force for a topic that is compacted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CompactionConfig {
    /// A log is compacted once more than this part of its bytes is dirty (`min.cleanable.dirty.ratio`).
    pub(crate) dirty_ratio_min: f64,
    /// Younger records are not compacted (`min.compaction.lag.ms`).
    pub(crate) lag_min_ms: i64,
    /// Records that are older and dirty have their log compacted, whatever the ratio (`max.compaction.lag.ms`).
    pub(crate) lag_max_ms: i64,
    /// Tombstones and markers stay so long behind the compaction that first meets them (`delete.retention.ms`).
    pub(crate) delete_retention_ms: i64,
}

impl CompactionConfig {
    /// Gives what a topic's properties come to, which `text` gives; `None` unless `cleanup.policy` has `compact` in it.
    ///
    /// # Errors
    ///
    /// * [`Error::InvalidConfig`] if records would have to be compacted before they may be.
    pub(crate) fn resolve<'t>(
        text: impl Fn(&'static str) -> Result<&'t str>,
    ) -> Result<Option<CompactionConfig>> {
        if !text(POLICY)?.split(',').any(|policy| policy.trim() == "compact") {
            return Ok(None);
        }
        let config = CompactionConfig {
            dirty_ratio_min: number(DIRTY_RATIO_MIN, &text)?,
            lag_min_ms: number(LAG_MIN, &text)?,
            lag_max_ms: number(LAG_MAX, &text)?,
            delete_retention_ms: number(DELETE_RETENTION, &text)?,
        };
        if config.lag_min_ms > config.lag_max_ms {
            let reason = format!("it exceeds {LAG_MAX}, {}", config.lag_max_ms);
            let (key, value) = (LAG_MIN.to_owned(), config.lag_min_ms.to_string());
            return Err(Error::InvalidConfig { key, value, reason });
        }
        Ok(Some(config))
    }

    /// Gives the age at which a segment is closed: one that is open is not compacted, so it may not be open for longer
    /// than a record may go without.
    pub(crate) fn segment_ms(compaction: Option<CompactionConfig>, segment_ms: i64) -> i64 {
        compaction.map_or(segment_ms, |compaction| segment_ms.min(compaction.lag_max_ms))
    }
}

fn number<'t, T: FromStr>(
    key: &'static str,
    text: impl Fn(&'static str) -> Result<&'t str>,
) -> Result<T> {
    let value = text(key)?;
    value.trim().parse().map_err(|_| {
        let reason = "it is not a number in range".to_owned();
        Error::InvalidConfig { key: key.to_owned(), value: value.to_owned(), reason }
    })
}

const POLICY: &str = "cleanup.policy";
const DIRTY_RATIO_MIN: &str = "min.cleanable.dirty.ratio";
const DELETE_RETENTION: &str = "delete.retention.ms";
const LAG_MIN: &str = "min.compaction.lag.ms";
const LAG_MAX: &str = "max.compaction.lag.ms";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogConfig;
    use crate::config::TopicConfig;

    fn resolved(set: &[(&str, &str)]) -> Result<LogConfig> {
        let config = set.iter().try_fold(TopicConfig::new(), |c, (key, value)| c.set(key, value));
        LogConfig::resolve(&config?.into_overrides())
    }

    #[test]
    fn only_a_compacted_topic_has_rules_of_compaction() {
        assert_eq!(resolved(&[(LAG_MAX, "5")]).unwrap().compaction, None);
        assert_eq!(resolved(&[(LAG_MAX, "5")]).unwrap().segment_ms, 604_800_000);
        let config = resolved(&[(POLICY, "compact,delete"), (LAG_MAX, "5000"), (LAG_MIN, "5000")]);
        let config = config.unwrap();
        let compaction = CompactionConfig {
            dirty_ratio_min: 0.5,
            lag_min_ms: 5_000,
            lag_max_ms: 5_000,
            delete_retention_ms: 24 * 60 * 60 * 1000,
        };
        assert_eq!(config.compaction, Some(compaction));
        assert_eq!(config.segment_ms, 5_000, "a record need not wait longer for its segment");
        let default = resolved(&[(POLICY, "compact")]).unwrap().compaction.unwrap();
        assert_eq!((default.lag_min_ms, default.lag_max_ms), (0, i64::MAX));
    }

    #[test]
    fn what_may_not_be_compacted_yet_need_not_be_compacted_either() {
        let refused = resolved(&[(POLICY, "compact"), (LAG_MIN, "6"), (LAG_MAX, "5")]);
        assert!(matches!(refused, Err(Error::InvalidConfig { key, .. }) if key == LAG_MIN));
        // It means nothing where nothing is compacted, and may be set before the policy is.
        assert!(resolved(&[(LAG_MIN, "6"), (LAG_MAX, "5")]).is_ok());
    }
}
