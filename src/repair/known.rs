//! What a repair knows of a partition before it looks at its directory.

use std::path::PathBuf;

use crate::storage::catalog::TopicId;

/// What a repair knows of a partition before it looks at its directory.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) directory: PathBuf,
    pub(crate) id: Option<TopicId>,
    pub(crate) index_interval_bytes: u32,
    pub(crate) is_clean: bool,
    pub(crate) on_record: OnRecord,
}

/// What is on record of one partition elsewhere than in its directory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OnRecord {
    pub(crate) recovery_point: i64,
    pub(crate) log_start: i64,
    pub(crate) high_watermark: i64,
    pub(crate) cleaned: i64,
    pub(crate) committed: i64,
    /// How far it was durable cannot be read.
    pub(crate) is_incomplete: bool,
}
