//! What all compactions of one store share: the record, the limits.

use parking_lot::Mutex;

use crate::partition::compaction_plan;
use crate::partition::throttle::Throttle;
use crate::storage::checkpoint::OffsetCheckpoint;

/// What the compactions of one store share.
#[derive(Debug)]
pub(super) struct Cleaning {
    /// How far each partition was compacted. Lock rank 3.
    pub(super) record: Mutex<OffsetCheckpoint>,
    pub(super) throttle: Throttle,
    pub(super) key_map_bytes_max: usize,
}

/// What the compactions of one store may take together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CleaningLimits {
    /// `None`: as fast as it goes (`log.cleaner.io.max.bytes.per.second`).
    pub(crate) bytes_per_second: Option<u64>,
    /// Memory for the keys of one compaction (`log.cleaner.dedupe.buffer.size`).
    pub(crate) key_map_bytes_max: usize,
}

impl Default for CleaningLimits {
    fn default() -> CleaningLimits {
        CleaningLimits {
            bytes_per_second: None,
            key_map_bytes_max: compaction_plan::KEY_MAP_BYTES_MAX,
        }
    }
}

impl Cleaning {
    pub(super) fn new(record: OffsetCheckpoint, limits: CleaningLimits) -> Cleaning {
        Cleaning {
            record: Mutex::new(record),
            throttle: Throttle::new(limits.bytes_per_second),
            key_map_bytes_max: limits.key_map_bytes_max,
        }
    }
}
