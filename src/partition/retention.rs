//! Which segments may go: Kafka's rules, as a pure function.
//!
//! Three rules in this order, each from the oldest segment on, each up to the first one that it does not hold for:
//!
//! | rule | a segment goes as long as |
//! | --- | --- |
//! | start | the next one begins at or below the log's start |
//! | size (`retention.bytes`) | what is left without it is at least `retention.bytes` |
//! | time (`retention.ms`) | it was written to more than `retention.ms` ago |
//!
//! So a log keeps at least `retention.bytes`, and up to a segment more. The last segment goes too, once it is old
//! enough: then another one follows it before. An empty last segment stays, there must be one.
//!
//! Kafka goes by the greatest timestamp of a segment's records alone. Here it is the greater one of that and the date of
//! its file ([`Extent::latest_ms`]), so that neither a clock that was wrong nor records with times of long ago delete
//! what was written a moment ago.

use crate::retention_config::RetentionPolicy;
use crate::storage::extent::Extent;

/// A segment's place in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) base_offset: i64,
    pub(crate) extent: Extent,
}

/// How many segments go, counted from the oldest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expired {
    /// All of them, the last one included if this is how many there are.
    pub(crate) count: usize,
    /// Those that go by size, and those that go by time.
    pub(crate) by_size: usize,
    pub(crate) by_time: usize,
}

/// Says which segments of a log may go; it has one at least.
pub(crate) fn expired(
    kept: &[Kept],
    log_start: i64,
    policy: RetentionPolicy,
    now_ms: i64,
) -> Expired {
    let below_start =
        kept.partition_point(|segment| segment.base_offset <= log_start).saturating_sub(1);
    let mut expired = Expired { count: below_start, ..Expired::default() };
    if !policy.deletes {
        return expired;
    }
    let is_empty_last = |index: usize| index + 1 == kept.len() && kept[index].extent.len == 0;
    if let Ok(limit) = u64::try_from(policy.retention_bytes) {
        let size: u64 = kept[below_start..].iter().map(|segment| segment.extent.len).sum();
        let mut surplus = size.saturating_sub(limit);
        while size >= limit && expired.count < kept.len() && !is_empty_last(expired.count) {
            let Some(rest) = surplus.checked_sub(kept[expired.count].extent.len) else { break };
            surplus = rest;
            expired.count += 1;
            expired.by_size += 1;
        }
    }
    if policy.retention_ms >= 0 {
        let is_old = |segment: &Kept| {
            now_ms.saturating_sub(segment.extent.latest_ms()) > policy.retention_ms
        };
        while expired.count < kept.len()
            && !is_empty_last(expired.count)
            && is_old(&kept[expired.count])
        {
            expired.count += 1;
            expired.by_time += 1;
        }
    }
    expired
}

/// What retention lets go of next.
///
/// ```
/// use ottla::{Record, Store, TopicConfig};
///
/// let store = Store::temporary()?;
/// let topic = store.create_topic("t", TopicConfig::new().retention_ms(60_000))?;
/// store.producer().send(&topic, Record::new("v"))?;
/// let outlook = &topic.describe()?.partitions[0].retention;
/// assert_eq!((outlook.due_segments, outlook.next_after_bytes), (0, None));
/// assert!(outlook.next_bytes > 0 && outlook.next_at_ms.is_some());
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetentionOutlook {
    /// How many segments go if retention is applied now.
    pub due_segments: usize,
    /// The bytes of batches in them.
    pub due_bytes: u64,
    /// The bytes of the segment that goes behind those; 0 if there is none with records.
    pub next_bytes: u64,
    /// When that segment goes by its age, in milliseconds since 1970, if it is not written to any more; `None` if never.
    pub next_at_ms: Option<i64>,
    /// After how many bytes more in the partition that segment goes by size; `None` if never.
    pub next_after_bytes: Option<u64>,
}

/// Says what goes now, and what next and when.
pub(crate) fn outlook(
    kept: &[Kept],
    log_start: i64,
    policy: RetentionPolicy,
    now_ms: i64,
) -> RetentionOutlook {
    let expired = expired(kept, log_start, policy, now_ms);
    let len = |segments: &[Kept]| segments.iter().map(|segment| segment.extent.len).sum::<u64>();
    let (due, left) = kept.split_at(expired.count);
    let next = left.first().filter(|next| next.extent.len > 0).map(|next| next.extent);
    let of_next = |is_limited: bool| next.filter(|_| policy.deletes && is_limited);
    RetentionOutlook {
        due_segments: due.len(),
        due_bytes: len(due),
        next_bytes: next.map_or(0, |next| next.len),
        next_at_ms: of_next(policy.retention_ms >= 0)
            .map(|next| next.latest_ms().saturating_add(policy.retention_ms).saturating_add(1)),
        next_after_bytes: of_next(policy.retention_bytes >= 0).map(|next| {
            let limit = u64::try_from(policy.retention_bytes).unwrap_or(0);
            limit.saturating_add(next.len).saturating_sub(len(left))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREVER: RetentionPolicy =
        RetentionPolicy { deletes: true, retention_ms: -1, retention_bytes: -1 };

    /// Segments that begin at 0, 10, 20, …, each with its length and the time it was written to last.
    fn log(segments: &[(u64, i64)]) -> Vec<Kept> {
        let kept = |(index, (len, ms)): (usize, &(u64, i64))| Kept {
            base_offset: 10 * index as i64,
            extent: Extent { len: *len, largest_timestamp_ms: *ms, modified_ms: 0 },
        };
        segments.iter().enumerate().map(kept).collect()
    }

    #[test]
    fn size_keeps_at_least_the_limit_and_at_most_a_segment_more() {
        let log = log(&[(100, 1), (100, 2), (100, 3), (50, 4)]);
        for (limit, goes) in [
            (0, 4),
            (1, 3),
            (49, 3),
            (50, 3),
            (51, 2),
            (149, 2),
            (150, 2),
            (151, 1),
            (250, 1),
            (251, 0),
            (350, 0),
            (i64::MAX, 0),
            (-1, 0),
        ] {
            let policy = RetentionPolicy { retention_bytes: limit, ..FOREVER };
            let expired = expired(&log, 0, policy, i64::MAX);
            assert_eq!((expired.count, expired.by_size), (goes, goes), "{limit}");
        }
    }

    #[test]
    fn time_goes_by_the_last_write_of_a_segment_and_stops_at_the_first_young_one() {
        // The third was written by a clock that was ahead, or with a time to come: what is behind it waits for it.
        let log = log(&[(9, 100), (9, 200), (9, 5000), (9, 300)]);
        for (now_ms, goes) in
            [(0, 0), (1100, 0), (1101, 1), (1200, 1), (1201, 2), (6000, 2), (6001, 4)]
        {
            let policy = RetentionPolicy { retention_ms: 1000, ..FOREVER };
            assert_eq!(expired(&log, 0, policy, now_ms).count, goes, "{now_ms}");
        }
        let at_once = RetentionPolicy { retention_ms: 0, ..FOREVER };
        assert_eq!(expired(&log, 0, at_once, 101).count, 1);
    }

    #[test]
    fn the_greater_one_of_record_time_and_file_time_counts() {
        let policy = RetentionPolicy { retention_ms: 1000, ..FOREVER };
        let of = |largest_timestamp_ms, modified_ms| {
            let extent = Extent { len: 1, largest_timestamp_ms, modified_ms };
            expired(&[Kept { base_offset: 0, extent }], 0, policy, 10_000).count
        };
        assert_eq!(of(1, 9500), 0, "records of long ago, written a moment ago");
        assert_eq!(of(9500, 1), 0, "a file that was copied, or written by a clock that was behind");
        assert_eq!(of(1, 1), 1);
        assert_eq!(of(-1, 8999), 1, "no timestamps: the file's date");
        assert_eq!(of(-1, 9000), 0);
        // Before 1970, and at the ends of time.
        assert_eq!(of(i64::MIN, i64::MIN), 1);
        assert_eq!(of(i64::MAX, 0), 0);
    }

    #[test]
    fn an_empty_last_segment_stays_and_one_with_records_goes() {
        let policy = RetentionPolicy { retention_ms: 10, retention_bytes: 0, deletes: true };
        assert_eq!(expired(&log(&[(5, 1), (5, 1)]), 0, policy, 100).count, 2);
        assert_eq!(expired(&log(&[(5, 1), (0, -1)]), 0, policy, 100).count, 1);
        assert_eq!(expired(&log(&[(0, -1)]), 0, policy, 100).count, 0);
        // Compaction leaves empty segments in front.
        assert_eq!(expired(&log(&[(0, -1), (5, 1), (5, 95)]), 0, policy, 100).count, 3);
    }

    #[test]
    fn the_outlook_says_what_goes_now_and_what_next() {
        let log = log(&[(100, 1000), (100, 2000), (50, 3000)]);
        let policy = RetentionPolicy { retention_ms: 500, retention_bytes: 120, deletes: true };
        let now = outlook(&log, 0, policy, 1600);
        assert_eq!((now.due_segments, now.due_bytes, now.next_bytes), (1, 100, 100));
        assert_eq!((now.next_at_ms, now.next_after_bytes), (Some(2501), Some(70)));
        // What it says comes true.
        assert_eq!(expired(&log, 0, policy, 2500).count, 1);
        assert_eq!(expired(&log, 0, policy, 2501).count, 2);
        let mut grown = log.clone();
        grown[2].extent.len += 69;
        assert_eq!(expired(&grown, 0, policy, 0).count, 1);
        grown[2].extent.len += 1;
        assert_eq!(expired(&grown, 0, policy, 0).count, 2);
        let keeps = RetentionPolicy { deletes: false, ..policy };
        let never = outlook(&log, 0, keeps, i64::MAX);
        assert_eq!((never.due_segments, never.next_at_ms, never.next_after_bytes), (0, None, None));
    }

    #[test]
    fn what_lies_below_the_start_goes_whatever_the_policy_and_does_not_count_for_size() {
        let log = log(&[(100, 1), (100, 2), (100, 3)]);
        let keeps = RetentionPolicy { deletes: false, retention_ms: 0, retention_bytes: 0 };
        for (start, goes) in [(0, 0), (9, 0), (10, 1), (19, 1), (20, 2), (29, 2), (30, 2)] {
            assert_eq!(expired(&log, start, keeps, i64::MAX).count, goes, "{start}");
        }
        let policy = RetentionPolicy { retention_bytes: 150, ..FOREVER };
        let behind = expired(&log, 10, policy, 0);
        assert_eq!((behind.count, behind.by_size), (1, 0));
    }
}
