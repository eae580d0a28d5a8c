//! Where names and bytes are: in the file systems of the machine, and for some tests in memory.
//!
//! Each function is about one system call. What fails says only how: [`Disk`](crate::storage::disk::Disk) knows what
//! it was done for, and with which path.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
#[cfg(target_os = "linux")]
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
#[cfg(test)]
use std::sync::Arc;
use std::time::SystemTime;

#[cfg(test)]
use crate::storage::memory::Memory;
#[cfg(test)]
use crate::storage::memory::MemoryFile;

/// Where names are.
#[derive(Clone, Debug, Default)]
pub(crate) enum Medium {
    #[default]
    System,
    #[cfg(test)]
    Memory(Arc<Memory>),
}

/// An open file, and where its bytes are.
#[derive(Debug)]
pub(crate) enum OpenFile {
    System(File),
    #[cfg(test)]
    Memory(Arc<MemoryFile>),
}

/// How a file is to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    /// Reads and writes a file that is there.
    Write,
    /// Reads and writes a file that must not be there yet.
    CreateNew,
    /// Reads and writes; makes the file if need be, keeps what is in it.
    CreateOrKeep,
}

/// What a name in a directory stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) is_directory: bool,
}

/// What is known of a file or a directory without looking into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) kind: Kind,
    pub(crate) device: u64,
    /// Tells it from everything else that is on its device at the same time.
    pub(crate) inode: u64,
    pub(crate) len: u64,
    /// What it takes on the device.
    pub(crate) allocated_len: u64,
    pub(crate) modified: SystemTime,
    /// It has a name.
    #[cfg(test)]
    pub(crate) is_linked: bool,
}

/// What a name can stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    /// A symbolic link, a device, a pipe: nothing of ours.
    Other,
}

/// What `stat` counts in, whatever the file system does.
const BLOCK_LEN: u64 = 512;

impl Facts {
    fn of(metadata: &fs::Metadata) -> io::Result<Facts> {
        let kind = if metadata.is_file() {
            Kind::File
        } else if metadata.is_dir() {
            Kind::Directory
        } else {
            Kind::Other
        };
        Ok(Facts {
            kind,
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            allocated_len: metadata.blocks() * BLOCK_LEN,
            modified: metadata.modified()?,
            #[cfg(test)]
            is_linked: metadata.nlink() > 0,
        })
    }

    /// When it was changed last, in milliseconds since 1970.
    pub(crate) fn modified_ms(&self) -> i64 {
        let ms = |nanoseconds: u128| i64::try_from(nanoseconds / 1_000_000).unwrap_or(i64::MAX);
        match self.modified.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => ms(since.as_nanos()),
            Err(before) => -ms(before.duration().as_nanos().saturating_add(999_999)),
        }
    }
}

impl Medium {
    /// Opens a file, or whatever else has that name: nothing is waited for, and no symbolic link followed. `mode` says
    /// who may do what with one that is made.
    pub(crate) fn open(&self, path: &Path, access: Access, mode: u32) -> io::Result<OpenFile> {
        match self {
            Medium::System => {
                let mut options = OpenOptions::new();
                // A symbolic link inside the data directory could lead anywhere, and opening a FIFO would block.
                // Miri, under which some tests run, knows no FIFO.
                let not_blocking = if cfg!(miri) { 0 } else { libc::O_NONBLOCK };
                options.read(true).mode(mode).custom_flags(libc::O_NOFOLLOW | not_blocking);
                let options = match access {
                    Access::Read => &mut options,
                    Access::Write => options.write(true),
                    Access::CreateNew => options.write(true).create_new(true),
                    Access::CreateOrKeep => options.write(true).create(true).truncate(false),
                };
                options.open(path).map(OpenFile::System)
            }
            #[cfg(test)]
            Medium::Memory(memory) => memory.open(path, access).map(OpenFile::Memory),
        }
    }

    /// Tells what a name stands for; a symbolic link stands for itself.
    pub(crate) fn facts(&self, path: &Path) -> io::Result<Facts> {
        match self {
            Medium::System => Facts::of(&fs::symlink_metadata(path)?),
            #[cfg(test)]
            Medium::Memory(memory) => memory.facts(path),
        }
    }

    /// As [`facts`](Self::facts), of what a symbolic link leads to.
    pub(crate) fn facts_through_links(&self, path: &Path) -> io::Result<Facts> {
        match self {
            Medium::System => Facts::of(&fs::metadata(path)?),
            #[cfg(test)]
            Medium::Memory(memory) => memory.facts(path),
        }
    }

    /// Lists a directory. Names that are not UTF-8 are left out.
    pub(crate) fn entries(&self, path: &Path) -> io::Result<Vec<Entry>> {
        match self {
            Medium::System => {
                let mut entries = Vec::new();
                for entry in fs::read_dir(path)? {
                    let entry = entry?;
                    if let Ok(name) = entry.file_name().into_string() {
                        entries.push(Entry { name, is_directory: entry.file_type()?.is_dir() });
                    }
                }
                Ok(entries)
            }
            #[cfg(test)]
            Medium::Memory(memory) => memory.entries(path),
        }
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self {
            Medium::System => fs::rename(from, to),
            #[cfg(test)]
            Medium::Memory(memory) => memory.rename(from, to),
        }
    }

    /// Gives two files each other's names, both at once.
    pub(crate) fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        match self {
            Medium::System => exchange(one, other),
            #[cfg(test)]
            Medium::Memory(memory) => memory.exchange(one, other),
        }
    }

    pub(crate) fn remove_file(&self, path: &Path) -> io::Result<()> {
        match self {
            Medium::System => fs::remove_file(path),
            #[cfg(test)]
            Medium::Memory(memory) => memory.remove_file(path),
        }
    }

    /// Removes a directory with everything in it.
    pub(crate) fn remove_tree(&self, path: &Path) -> io::Result<()> {
        match self {
            Medium::System => fs::remove_dir_all(path),
            #[cfg(test)]
            Medium::Memory(memory) => memory.remove_tree(path),
        }
    }

    pub(crate) fn create_directory(&self, path: &Path, mode: u32) -> io::Result<()> {
        match self {
            Medium::System => fs::DirBuilder::new().mode(mode).create(path),
            #[cfg(test)]
            Medium::Memory(memory) => memory.create_directory(path),
        }
    }

    /// Opens a directory, to hold it or to synchronise it; in memory there is nothing to be opened.
    pub(crate) fn open_directory(&self, path: &Path) -> io::Result<Option<File>> {
        match self {
            Medium::System => File::open(path).map(Some),
            #[cfg(test)]
            Medium::Memory(memory) => memory.facts(path).map(|_| None),
        }
    }

    /// Tells what is known of a directory that was opened, whatever its name stands for now.
    pub(crate) fn facts_of_directory(&self, open: Option<&File>, path: &Path) -> io::Result<Facts> {
        match open {
            Some(file) => Facts::of(&file.metadata()?),
            None => self.facts(path),
        }
    }
}

impl OpenFile {
    pub(crate) fn facts(&self) -> io::Result<Facts> {
        match self {
            OpenFile::System(file) => Facts::of(&file.metadata()?),
            #[cfg(test)]
            OpenFile::Memory(file) => Ok(file.facts()),
        }
    }

    /// Gives what can be mapped and locked.
    pub(crate) fn descriptor(&self) -> &File {
        match self {
            OpenFile::System(file) => file,
            #[cfg(test)]
            OpenFile::Memory(file) => file.descriptor(),
        }
    }

    /// Reads what there is, possibly less than asked for; 0 bytes only at the end of the file.
    pub(crate) fn read_at(&self, bytes: &mut [u8], position: u64) -> io::Result<usize> {
        match self {
            OpenFile::System(file) => file.read_at(bytes, position),
            #[cfg(test)]
            OpenFile::Memory(file) => file.read_at(bytes, position),
        }
    }

    /// Writes a part of `bytes`, possibly less than all of them.
    pub(crate) fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        match self {
            OpenFile::System(file) => file.write_at(bytes, position),
            #[cfg(test)]
            OpenFile::Memory(file) => file.write_all_at(bytes, position).map(|()| bytes.len()),
        }
    }

    /// Writes several stretches one behind the other, possibly less than all of them.
    pub(crate) fn write_vectored_at(
        &self,
        slices: &[io::IoSlice<'_>],
        position: u64,
    ) -> io::Result<usize> {
        match self {
            OpenFile::System(file) => Ok(rustix::io::pwritev(file, slices, position)?),
            #[cfg(test)]
            OpenFile::Memory(file) => {
                let slices: Vec<&[u8]> = slices.iter().map(|slice| &**slice).collect();
                let bytes = slices.concat();
                file.write_all_at(&bytes, position).map(|()| bytes.len())
            }
        }
    }

    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        match self {
            OpenFile::System(file) => file.set_len(len),
            #[cfg(test)]
            OpenFile::Memory(file) => file.set_len(len),
        }
    }

    /// Reserves real space behind `start`, as zeros where there is nothing yet; all of it or, it may be, nothing.
    pub(crate) fn allocate(&self, start: u64, len: u64) -> io::Result<()> {
        match self {
            OpenFile::System(file) => allocate(file, start, len),
            #[cfg(test)]
            OpenFile::Memory(file) => file.lengthen(start + len),
        }
    }

    pub(crate) fn sync_data(&self) -> io::Result<()> {
        match self {
            OpenFile::System(file) => file.sync_data(),
            #[cfg(test)]
            OpenFile::Memory(_) => Ok(()),
        }
    }

    pub(crate) fn sync_all(&self) -> io::Result<()> {
        match self {
            OpenFile::System(file) => file.sync_all(),
            #[cfg(test)]
            OpenFile::Memory(_) => Ok(()),
        }
    }

    pub(crate) fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        match self {
            OpenFile::System(file) => file.set_modified(time),
            #[cfg(test)]
            OpenFile::Memory(file) => {
                file.set_modified(time);
                Ok(())
            }
        }
    }

    /// Lets go of cached pages that are not dirty, where the system takes advice.
    pub(crate) fn drop_clean_pages(&self) {
        match self {
            #[cfg(target_os = "linux")]
            OpenFile::System(file) => {
                rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)
                    .unwrap_or_default();
            }
            #[cfg(not(target_os = "linux"))]
            OpenFile::System(_) => {}
            #[cfg(test)]
            OpenFile::Memory(_) => {}
        }
    }

    /// Has the system begin to write out a range, where it takes advice: pages that are dirty or on their way to the
    /// device stay in the cache.
    #[cfg_attr(not(target_os = "linux"), allow(unused_variables, reason = "there is no advice"))]
    pub(crate) fn write_out_soon(&self, range: Range<u64>) {
        match self {
            #[cfg(target_os = "linux")]
            OpenFile::System(file) => {
                if let Some(len) = NonZero::new(range.end.saturating_sub(range.start)) {
                    let advice = rustix::fs::Advice::DontNeed;
                    rustix::fs::fadvise(file, range.start, Some(len), advice).unwrap_or_default();
                }
            }
            #[cfg(not(target_os = "linux"))]
            OpenFile::System(_) => {}
            #[cfg(test)]
            OpenFile::Memory(_) => {}
        }
    }

    /// Tells whether a writable mapping keeps its word: space that was reserved stays reserved, and a store into it
    /// cannot fail. That is known of ext4 and tmpfs; on others a copied block may be shared, and a store into it would
    /// need space that is not there.
    pub(crate) fn maps_are_dependable(&self) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            OpenFile::System(file) => {
                const EXT4: u64 = 0xef53;
                const TMPFS: u64 = 0x0102_1994;
                #[allow(
                    clippy::cast_lossless,
                    clippy::unnecessary_cast,
                    reason = "its width varies"
                )]
                let kind = rustix::fs::fstatfs(file).map(|statfs| statfs.f_type as u64);
                matches!(kind, Ok(EXT4 | TMPFS))
            }
            #[cfg(not(target_os = "linux"))]
            OpenFile::System(_) => false,
            #[cfg(test)]
            OpenFile::Memory(_) => cfg!(target_os = "linux"),
        }
    }
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::CWD;
    Ok(rustix::fs::renameat_with(CWD, one, CWD, other, rustix::fs::RenameFlags::EXCHANGE)?)
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn exchange(_one: &Path, _other: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
fn allocate(file: &File, start: u64, len: u64) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), start, len)?)
}

#[cfg(not(target_os = "linux"))]
fn allocate(_file: &File, _start: u64, _len: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
