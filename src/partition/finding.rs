//! What recovery, and whoever looks at a log later, has to tell of it.

use std::path::PathBuf;

/// What recovery did to one place of a log, or found there.
///
/// ```
/// // A store that was closed properly has nothing to tell.
/// let store = ottla::Store::temporary()?;
/// assert!(store.health().findings.is_empty());
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// A torn tail was cut off; nothing acknowledged was in it.
    Cut {
        /// The segment file.
        path: PathBuf,
        /// Where it now ends.
        position: u64,
        /// How many bytes were cut.
        len: u64,
        /// Where they are kept.
        kept: PathBuf,
    },
    /// Bytes that were durable are damaged. Nothing was removed; reads that touch them fail.
    Damage {
        /// The segment file.
        path: PathBuf,
        /// The first damaged byte.
        position: u64,
        /// Which check failed.
        reason: &'static str,
        /// The first offset behind the damage that can be read, if there is one.
        resume: Option<i64>,
    },
    /// The partition takes no appends until the store is opened again; reads go on.
    Latched {
        /// The partition's directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A partition could not be opened.
    Unavailable {
        /// The partition's directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Something that can be derived again, or did not matter, could not be read or written.
    Nuisance {
        /// The file.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
}
