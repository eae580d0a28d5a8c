//! The raw limits of the machine, as subjects: what is left when a log does nothing but move bytes.
//!
//! A frame is a 4-byte length and the value. Nothing is checked, nothing recovered.

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

use memmap2::Mmap;

use crate::payload::Touch;
use crate::subject::Outcome;
use crate::subject::Scan;
use crate::subject::Subject;
use crate::subject::Variant;
use crate::subject::failed;

pub(crate) const SUBJECTS: &[&dyn Subject] = &[
    &crate::raw_memory::RawMemcpy,
    &crate::raw_files::RawWrite,
    &crate::raw_files::RawReady,
    &crate::raw_files::RawMapping,
    &crate::raw_files::RawRead,
    &crate::raw_many::RawFiles,
    &crate::raw_sync::RawGroupCommit,
    &crate::raw_sync::RawSyncs,
    &crate::raw_futex::RawFutex,
];

pub(crate) const PREFIX_LEN: usize = 4;

/// Puts a frame at the end of `buffer`.
#[inline]
pub(crate) fn push_frame(buffer: &mut Vec<u8>, value: &[u8]) {
    buffer.extend_from_slice(&(value.len() as u32).to_le_bytes());
    buffer.extend_from_slice(value);
}

/// Reads the frame at the front of `bytes`: its value and what is behind it. A length of zero is the end.
#[inline]
pub(crate) fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX_LEN>()?;
    let len = u32::from_le_bytes(*prefix) as usize;
    if len == 0 {
        return None;
    }
    rest.split_at_checked(len)
}

pub(crate) fn data_path(dir: &Path) -> PathBuf {
    dir.join("data")
}

/// Takes part only in the works listed.
pub(crate) fn only(takes_part: bool) -> Vec<Variant> {
    if takes_part { vec![Variant::PLAIN] } else { Vec::new() }
}

pub(crate) fn mapped(path: &Path) -> Outcome<Mmap> {
    let file = File::open(path)?;
    #[expect(unsafe_code, reason = "a mapping can only be made so")]
    // SAFETY: the benchmark alone uses the file, and never truncates it while a mapping lives.
    let map = unsafe { Mmap::map(&file) }?;
    Ok(map)
}

/// Walks the frames of a mapping.
pub(crate) struct MappingScan<'m> {
    left: &'m [u8],
}

/// As [`MappingScan`], of a mapping of its own.
pub(crate) struct FileScan {
    map: Mmap,
    position: usize,
}

impl<'m> MappingScan<'m> {
    pub(crate) fn new(bytes: &'m [u8]) -> MappingScan<'m> {
        MappingScan { left: bytes }
    }
}

impl FileScan {
    pub(crate) fn open(path: &Path) -> Outcome<FileScan> {
        if std::fs::metadata(path)?.len() == 0 {
            return failed("the file is empty");
        }
        Ok(FileScan { map: mapped(path)?, position: 0 })
    }
}

impl Scan for MappingScan<'_> {
    fn next(&mut self, touch: &mut Touch) -> Outcome<bool> {
        let (mut sums, mut left) = (*touch, self.left);
        let stop = left.len().saturating_sub(PIECE_LEN);
        let mut is_more = false;
        while let Some((value, rest)) = split_frame(left) {
            sums.take(value);
            left = rest;
            if left.len() < stop {
                is_more = true;
                break;
            }
        }
        (*touch, self.left) = (sums, left);
        Ok(is_more)
    }
}

impl Scan for FileScan {
    fn next(&mut self, touch: &mut Touch) -> Outcome<bool> {
        let mut scan = MappingScan::new(&self.map[self.position..]);
        let is_more = scan.next(touch)?;
        self.position = self.map.len() - scan.left.len();
        Ok(is_more)
    }
}

/// Bytes between two looks at the clock.
const PIECE_LEN: usize = 1 << 20;
