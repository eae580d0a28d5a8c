//! Bugs that tests plant, to see that the explorer of crashes finds them.
//!
//! Each stands at the one place where a careless hand would have made it, as a question to the [`Disk`] that is
//! answered "no" by everything but a test's script: outside of tests nothing is left of it.
//!
//! [`Disk`]: crate::storage::disk::Disk

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// A file that replaces another is renamed before its bytes are durable.
    TemporaryNotSynced,
    /// A sync is taken to cover what was appended while it was under way.
    TargetReadAfterSync,
    /// A segment that another follows is called durable without a sync.
    SegmentNotSynced,
    /// A sync that failed is tried again, and believed.
    SyncRetried,
    /// After a failed sync and a new start, the page cache is believed.
    CacheTrusted,
    /// The entry of a new segment in its directory is not made durable.
    NameNotSynced,
    /// Recovery does not look at checksums.
    ChecksumIgnored,
    /// What is put on record as durable is what was appended.
    PointAhead,
    /// What recovery cuts off stays in the file, behind the end.
    TailKept,
    /// The marker of a clean shutdown is left where it is by an open.
    MarkerLeft,
    /// Whatever is damaged is cut, though it was durable.
    CutAnywhere,
    /// What recovery cuts off is not gone durably before the first append.
    CutNotSynced,
    /// Offsets need not follow one another.
    OffsetsIgnored,
    /// A write that took a part of what it was given is taken for all of it.
    RestForgotten,
}
