//! How long a segment is and how old: what its files say, and what decides about when it goes.

use std::sync::OnceLock;

use crate::error::Error;
use crate::error::Result;
use crate::storage::disk::Access;
use crate::storage::file_name::OffsetFile;
use crate::storage::segment_files::SegmentContext;
use crate::storage::time_index;

/// The length of a segment, and when it was written to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The bytes of its batches.
    pub(crate) len: u64,
    /// The greatest timestamp of its records, in milliseconds since 1970; −1 if none carries one.
    pub(crate) largest_timestamp_ms: i64,
    /// When its file was changed last, by the clock that was in force then, in milliseconds since 1970.
    pub(crate) modified_ms: i64,
}

/// What is known of a file that does not change any more; filled by who asks first.
pub(crate) type Known = OnceLock<Extent>;

impl Extent {
    /// Gives the time since which nothing was written to the segment, as far as that can be told: the later one of
    /// what its records say and what its file says.
    ///
    /// A producer may send records of long ago, and a clock may have been wrong; neither makes a segment old whose file
    /// is young. Nor does the date of a file that was copied make old what is young by its records.
    pub(crate) fn latest_ms(&self) -> i64 {
        self.largest_timestamp_ms.max(self.modified_ms)
    }
}

/// Reads the length of a sealed segment, and how old it is, without opening it.
///
/// `None` if its index does not say what its greatest timestamp is: it was damaged, or is not written yet.
pub(crate) fn of_sealed(context: &SegmentContext, base_offset: i64) -> Result<Option<Extent>> {
    let log = context.log_path(base_offset);
    let (len, modified_ms) = context.disk.len_and_modified(&log)?;
    let path = OffsetFile::TimeIndex.beside(&log);
    let index = match context.disk.open(&path, Access::Read) {
        Err(error) if error.is_not_found() => return Ok(None),
        index => index?,
    };
    let index_len = index.len()?;
    let Some(last) = index_len.checked_sub(time_index::ENTRY_LEN as u64) else {
        return Ok(None);
    };
    if index_len % time_index::ENTRY_LEN as u64 != 0 {
        return Ok(None);
    }
    let mut timestamp = [0; 8];
    match index.read_exact_at(&mut timestamp, last) {
        // Cut meanwhile.
        Err(Error::Io { .. }) => return Ok(None),
        read => read?,
    }
    let largest_timestamp_ms = i64::from_be_bytes(timestamp).max(-1);
    Ok(Some(Extent { len, largest_timestamp_ms, modified_ms }))
}
