//! What a check found, and how far it has come.

use std::fmt;
use std::path::Path;
use std::path::PathBuf;

/// What [`check`](crate::inspect::check()) found.
///
/// ```
/// let store = ottla::Store::temporary()?;
/// let report = ottla::inspect::check(store.path())?;
/// assert!(report.is_good());
/// assert_eq!(report.counts.partitions, 0);
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// What is wrong, in the order it was met.
    pub problems: Vec<Problem>,
    /// What is worth knowing but as it should be: space that a writer reserved, an index that the next open
    /// rebuilds.
    pub notes: Vec<Problem>,
    /// How much was looked at.
    pub counts: CheckCounts,
}

/// One thing about one place of one file. Shows itself in one line: the path, the byte, what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The file or directory.
    pub path: PathBuf,
    /// The byte where it begins; `None` where it is about the file as a whole.
    pub position: Option<u64>,
    /// What it is.
    pub what: String,
}

/// How much a check has looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckCounts {
    /// Partition directories.
    pub partitions: u64,
    /// Segment files.
    pub segments: u64,
    /// Batches whose checksums hold.
    pub batches: u64,
    /// The records those batches say they have.
    pub records: u64,
    /// The bytes of those batches.
    pub bytes: u64,
}

/// How far a check has come.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress<'p> {
    /// The segment file being read.
    pub path: &'p Path,
    /// The bytes of segment files dealt with.
    pub bytes_done: u64,
    /// The bytes of all segment files, as far as they were there at the start.
    pub bytes_total: u64,
}

impl CheckReport {
    /// Tells whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        if let Some(position) = self.position {
            write!(f, "byte {position}: ")?;
        }
        f.write_str(&self.what)
    }
}
