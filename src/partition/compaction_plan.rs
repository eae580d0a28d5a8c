//! What a compaction is to do, and which segments it makes into one.

use std::thread;

use crate::config::LogConfig;

/// How a log is to be compacted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compaction {
    /// Below this offset an earlier compaction has left one record of each key: what it returned.
    pub(crate) first_dirty: i64,
    pub(crate) now_ms: i64,
    /// Segments with younger records are not compacted, nor is what is behind them.
    pub(crate) lag_min_ms: i64,
    /// How long a tombstone stays behind the compaction that first meets it, and the marker of a transaction of which
    /// nothing is left.
    pub(crate) delete_retention_ms: i64,
    /// Memory for the keys of what is compacted for the first time; with little of it there are more passes.
    pub(crate) key_map_bytes_max: usize,
    /// From so many bytes on that are compacted for the first time, a thread of its own notes their keys.
    pub(crate) keys_beside_from: u64,
    pub(crate) segments: SegmentLimits,
}

impl Compaction {
    /// As a topic's properties say, or Kafka's defaults, for a log of which nothing was compacted.
    pub(crate) fn of(config: &LogConfig, now_ms: i64) -> Compaction {
        let compaction = config.compaction;
        Compaction {
            first_dirty: 0,
            now_ms,
            lag_min_ms: compaction.map_or(0, |compaction| compaction.lag_min_ms),
            delete_retention_ms: compaction
                .map_or(DELETE_RETENTION_MS, |compaction| compaction.delete_retention_ms),
            key_map_bytes_max: KEY_MAP_BYTES_MAX,
            keys_beside_from: u64::MAX,
            segments: SegmentLimits {
                segment_bytes: config.segment_bytes,
                segment_index_bytes: config.segment_index_bytes,
            },
        }
    }

    /// The same, for somebody who waits for it: with a second processor, if there is one and enough for it to do.
    pub(crate) fn awaited(self) -> Compaction {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let keys_beside_from = if processors > 1 { KEYS_BESIDE_FROM } else { u64::MAX };
        Compaction { keys_beside_from, ..self }
    }
}

/// Less takes some milliseconds, and a thread is not worth its while.
const KEYS_BESIDE_FROM: u64 = 8 << 20;
const DELETE_RETENTION_MS: i64 = 24 * 60 * 60 * 1000;
/// Kafka's default of `log.cleaner.dedupe.buffer.size`.
pub(crate) const KEY_MAP_BYTES_MAX: usize = 128 << 20;

/// What counts of a segment for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) base_offset: i64,
    /// Where the next segment begins.
    pub(crate) next: i64,
    pub(crate) len: u64,
    pub(crate) index_len: u64,
    pub(crate) time_index_len: u64,
    /// Every record in it can be looked at.
    pub(crate) is_readable: bool,
}

/// How large a segment may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentLimits {
    pub(crate) segment_bytes: u32,
    pub(crate) segment_index_bytes: u32,
}

/// Gives how many of the segments at the front become one; 0 if the first stays as it is.
///
/// As in Kafka, their sizes as they are count, not as they will be: what has shrunk is joined by a later compaction.
pub(crate) fn group_len(segments: &[Extent], limits: SegmentLimits) -> usize {
    let Some(first) = segments.first().filter(|first| first.is_readable) else {
        return 0;
    };
    let mut sum = *first;
    let mut count = 1;
    for segment in &segments[1..] {
        sum.len += segment.len;
        sum.index_len += segment.index_len;
        sum.time_index_len += segment.time_index_len;
        let fits = segment.is_readable
            && sum.len <= u64::from(limits.segment_bytes)
            && sum.index_len <= u64::from(limits.segment_index_bytes)
            && sum.time_index_len <= u64::from(limits.segment_index_bytes)
            // An empty one has no offsets; were it not let in, it would stay for ever.
            && (segment.len == 0 || segment.next - 1 - first.base_offset <= i64::from(i32::MAX));
        if !fits || count == GROUP_LEN_MAX {
            break;
        }
        count += 1;
    }
    count
}

/// All of them are mapped while they are replaced.
const GROUP_LEN_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(base_offset: i64, next: i64, len: u64) -> Extent {
        Extent {
            base_offset,
            next,
            len,
            index_len: len / 10,
            time_index_len: 12,
            is_readable: true,
        }
    }

    #[test]
    fn neighbours_are_joined_while_they_fit() {
        let limits = SegmentLimits { segment_bytes: 1000, segment_index_bytes: 90 };
        let far = i64::from(i32::MAX);
        let unreadable = |base| Extent { is_readable: false, ..extent(base, base + 10, 10) };
        let cases: &[(&str, Vec<Extent>, usize)] = &[
            ("nothing", vec![], 0),
            ("one", vec![extent(0, 10, 2000)], 1),
            (
                "up to the limit",
                vec![
                    extent(0, 10, 400),
                    extent(10, 20, 400),
                    extent(20, 30, 100),
                    extent(30, 40, 101),
                ],
                3,
            ),
            (
                "the indexes count",
                vec![extent(0, 10, 500), Extent { index_len: 41, ..extent(10, 20, 1) }],
                1,
            ),
            (
                "both of them",
                vec![extent(0, 10, 500), Extent { time_index_len: 79, ..extent(10, 20, 1) }],
                1,
            ),
            (
                "offsets are 32-bit",
                vec![extent(0, 10, 10), extent(10, far + 1, 10), extent(far + 1, far + 2, 10)],
                2,
            ),
            (
                "but not those of an empty one",
                vec![extent(0, 10, 10), extent(10, far + 5, 0), extent(far + 5, far + 6, 1)],
                2,
            ),
            ("what cannot be read stays", vec![unreadable(0), extent(10, 20, 10)], 0),
            (
                "and keeps others apart",
                vec![extent(0, 10, 10), unreadable(10), extent(20, 30, 10)],
                1,
            ),
            ("not too many at once", vec![extent(0, 1, 0); 500], GROUP_LEN_MAX),
        ];
        for (what, segments, len) in cases {
            let mut segments = segments.clone();
            if *len == GROUP_LEN_MAX {
                segments.iter_mut().for_each(|s| s.time_index_len = 0);
            }
            assert_eq!(group_len(&segments, limits), *len, "{what}");
        }
    }
}
