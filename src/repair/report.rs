//! What a repair does, or would do.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::inspect::Problem;

/// What [`plan`](crate::repair::plan) would do, or [`apply`](crate::repair::apply) did.
///
/// ```
/// let store = ottla::Store::temporary()?;
/// let path = store.path().to_path_buf();
/// # let path = path.join("copy");
/// # std::fs::create_dir(&path).map_err(|_| ottla::Error::Closed)?;
/// let report = ottla::repair::plan(path)?;
/// assert!(report.steps.is_empty() && report.is_good());
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairReport {
    /// What is done, in this order.
    pub steps: Vec<RepairStep>,
    /// What [`inspect::check`](crate::inspect::check()) finds: in a plan, as things are; once it is applied, what is
    /// left. What is left nothing can be derived from, so somebody has to decide.
    pub problems: Vec<Problem>,
}

/// One change to one file. Shows itself in one line: the path, the byte, what is done, which offsets are lost, where
/// the bytes are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairStep {
    /// The file or directory.
    pub path: PathBuf,
    /// The byte where the change begins; `None` where it is about the file as a whole.
    pub position: Option<u64>,
    /// What is done, and why.
    pub what: String,
    /// The offsets whose records cannot be read any more afterwards. They could not be read before either.
    pub offsets: Option<Range<i64>>,
    /// Where the bytes are kept that are taken out, if any are.
    pub kept: Option<PathBuf>,
}

impl RepairReport {
    /// Tells whether nothing is wrong: in a plan, as things are; once it is applied, now.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}

impl RepairStep {
    pub(crate) fn new(path: impl Into<PathBuf>, what: impl Into<String>) -> RepairStep {
        let (path, what) = (path.into(), what.into());
        RepairStep { path, position: None, what, offsets: None, kept: None }
    }

    pub(crate) fn at(mut self, position: u64) -> RepairStep {
        self.position = Some(position);
        self
    }

    pub(crate) fn losing(mut self, offsets: Range<i64>) -> RepairStep {
        self.offsets = (!offsets.is_empty()).then_some(offsets);
        self
    }

    pub(crate) fn keeping(mut self, kept: impl Into<PathBuf>) -> RepairStep {
        self.kept = Some(kept.into());
        self
    }
}

impl fmt::Display for RepairStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        if let Some(position) = self.position {
            write!(f, "byte {position}: ")?;
        }
        f.write_str(&self.what)?;
        if let Some(offsets) = &self.offsets {
            write!(f, "; offsets {} to {} are lost", offsets.start, offsets.end - 1)?;
        }
        if let Some(kept) = &self.kept {
            write!(f, "; kept in {}", kept.display())?;
        }
        Ok(())
    }
}
