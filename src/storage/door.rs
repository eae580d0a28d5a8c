//! How an append reaches the file, and where one that failed left it.

use crate::error::Error;

/// How an append reaches the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// A copy into the mapping.
    Store,
    /// A copy where the space is ready, else a `pwrite`: what is faster for a large batch.
    Either,
    /// A `pwrite`: cheaper to synchronise afterwards.
    Write,
}

/// Where a failed append left the file.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// As it was; the append may be repeated later.
    Clean(Error),
    /// Unknown bytes may lie behind the end.
    Torn(Error),
}
