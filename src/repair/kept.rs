//! Bytes that are taken out of a file, kept in one beside it.
//!
//! A copy is whole before it has its name, and one that is there already, because an earlier repair was cut short, is
//! not made again.

use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;

use crate::error::Result;
use crate::inspect::file_kind::FILE_LEN_MAX;
use crate::storage::disk;
use crate::storage::disk::Access;
use crate::storage::disk::Disk;
use crate::storage::disk::DiskFile;
use crate::storage::file_name::TEMPORARY_SUFFIX;

/// Where a stretch of a file is kept, or will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    from: PathBuf,
    range: Range<u64>,
    pub(crate) path: PathBuf,
    is_there: bool,
}

impl Kept {
    /// Finds a name that begins with `stem` for a stretch of a file: a free one, or that of an equal copy.
    pub(crate) fn find(disk: &Disk, from: &Path, range: Range<u64>, stem: &str) -> Result<Kept> {
        let source = disk.open(from, Access::Read)?;
        for number in 0_u64.. {
            let path = disk::parent(from).join(format!("{stem}-{number}"));
            let is_there = disk.exists(&path)?;
            if !is_there || is_same(disk, &source, &range, &path)? {
                return Ok(Kept { from: from.to_path_buf(), range, path, is_there });
            }
        }
        unreachable!("there are more numbers than files")
    }

    /// As [`find`](Self::find), for all of a small file. Of one that is larger than any, it is the front.
    pub(crate) fn whole(disk: &Disk, from: &Path, stem: &str) -> Result<Kept> {
        let len = disk.open(from, Access::Read)?.len()?.min(FILE_LEN_MAX as u64);
        Kept::find(disk, from, 0..len, stem)
    }

    /// Makes the copy, durably.
    pub(crate) fn copy(&self, disk: &Disk) -> Result<()> {
        if self.is_there {
            return Ok(());
        }
        let mut temporary = self.path.as_os_str().to_owned();
        temporary.push(TEMPORARY_SUFFIX);
        let temporary = PathBuf::from(temporary);
        let source = disk.open(&self.from, Access::Read)?;
        let target = disk.open(&temporary, Access::CreateOrKeep)?;
        target.set_len(0)?;
        copy_range(&source, self.range.clone(), &target, 0)?;
        target.sync_all()?;
        disk.rename(&temporary, &self.path)?;
        disk.sync_directory(disk::parent(&self.path))
    }
}

/// Copies a stretch of one file into another; gives where it ends there.
pub(crate) fn copy_range(
    source: &DiskFile,
    range: Range<u64>,
    target: &DiskFile,
    at: u64,
) -> Result<u64> {
    let mut buffer = vec![0; BUFFER_LEN];
    let mut position = range.start;
    while position < range.end {
        let wanted = (range.end - position).min(BUFFER_LEN as u64) as usize;
        let count = source.read_up_to(&mut buffer[..wanted], position)?;
        if count == 0 {
            break;
        }
        target.write_all_at(&buffer[..count], at + (position - range.start))?;
        position += count as u64;
    }
    Ok(at + (position - range.start))
}

fn is_same(disk: &Disk, source: &DiskFile, range: &Range<u64>, path: &Path) -> Result<bool> {
    let Ok(other) = disk.open(path, Access::Read) else {
        // Not a file, or not ours to read: another name is found.
        return Ok(false);
    };
    if other.len()? != range.end - range.start {
        return Ok(false);
    }
    let (mut ours, mut theirs) = (vec![0; BUFFER_LEN], vec![0; BUFFER_LEN]);
    let mut position = range.start;
    while position < range.end {
        let wanted = (range.end - position).min(BUFFER_LEN as u64) as usize;
        let count = source.read_up_to(&mut ours[..wanted], position)?;
        let there = other.read_up_to(&mut theirs[..wanted], position - range.start)?;
        if count != there || ours[..count] != theirs[..count] {
            return Ok(false);
        }
        if count == 0 {
            break;
        }
        position += count as u64;
    }
    Ok(true)
}

const BUFFER_LEN: usize = 1 << 20;
