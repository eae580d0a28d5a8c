//! Which files can be dumped, told by their names, and what reading any of them needs.

use std::path::Path;

use crate::error::Error;
use crate::error::Result;
use crate::storage::file_name::OffsetFile;

/// A kind of file that can be dumped, told by its name.
///
/// ```
/// use std::path::Path;
/// use ottla::inspect::FileKind;
///
/// let log = Path::new("orders-0/00000000000000000042.log");
/// assert_eq!(FileKind::of(log), Some(FileKind::Log));
/// assert_eq!(FileKind::of(Path::new("notes.log")), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// A segment: [`dump_log`](crate::inspect::dump_log).
    Log,
    /// Offsets and positions: [`dump_offset_index`](crate::inspect::dump_offset_index).
    OffsetIndex,
    /// Timestamps and offsets: [`dump_time_index`](crate::inspect::dump_time_index).
    TimeIndex,
    /// Aborted transactions: [`dump_transaction_index`](crate::inspect::dump_transaction_index).
    TransactionIndex,
    /// The state of idempotent producers: [`dump_producer_snapshot`](crate::inspect::dump_producer_snapshot).
    ProducerSnapshot,
}

impl FileKind {
    /// Tells what the file at a path is, by its name alone.
    pub fn of(path: &Path) -> Option<FileKind> {
        let (kind, _) = OffsetFile::parse(path.file_name()?.to_str()?)?;
        Some(match kind {
            OffsetFile::Log => FileKind::Log,
            OffsetFile::OffsetIndex => FileKind::OffsetIndex,
            OffsetFile::TimeIndex => FileKind::TimeIndex,
            OffsetFile::TransactionIndex => FileKind::TransactionIndex,
            OffsetFile::ProducerSnapshot => FileKind::ProducerSnapshot,
        })
    }
}

/// More than any index or snapshot needs: seven times what Kafka gives an index, or 1.4 million producers.
pub(crate) const FILE_LEN_MAX: usize = 64 << 20;

pub(crate) fn offset_in_name(path: &Path, kind: OffsetFile) -> Result<i64> {
    let name = path.file_name().and_then(|name| name.to_str());
    match name.and_then(OffsetFile::parse) {
        Some((found, offset)) if found == kind => Ok(offset),
        _ => Err(Error::InvalidArgument {
            argument: "path",
            reason: "the file's name is not twenty digits and the extension of its kind",
        }),
    }
}

pub(crate) fn corrupt(path: &Path, position: u64, reason: &'static str) -> Error {
    Error::Corrupt { path: path.to_path_buf(), position, reason, resume: None }
}

/// Takes a fixed number of bytes out of an entry, which has the length of its kind.
pub(crate) fn field<const N: usize>(entry: &[u8], start: usize) -> [u8; N] {
    entry[start..start + N].try_into().expect("a range of N bytes has N bytes")
}
