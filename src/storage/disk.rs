//! The one door to the file system.
//!
//! Every effect on a disk passes a [`Disk`] or a [`DiskFile`] it opened. In tests the door can be
//! told to fail the n-th effect, or every one from the n-th on, as if the process had died there.
//! Reads and effects alike name the path they were about when they fail.
//!
//! **Invariant (told to all).** The system reports a failed sync once for each open file, to one of those who
//! synchronise it at the time; the next one would be told that all is well. So syncs of one [`DiskFile`] take
//! turns, and after one that failed all fail.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::error::Error;
use crate::error::Result;
use crate::os_error;
use crate::storage::calls::in_full;
use crate::storage::calls::in_pieces;
use crate::storage::calls::zeros;
use crate::storage::file_name;
pub(crate) use crate::storage::medium::Access;
pub(crate) use crate::storage::medium::Entry;
use crate::storage::medium::Facts;
use crate::storage::medium::Kind;
use crate::storage::medium::Medium;
use crate::storage::medium::OpenFile;
use crate::storage::planted::Planted;

/// A file system, or in tests one that fails on command.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    /// Of files that are made.
    pub(crate) file_mode: u32,
    pub(crate) medium: Medium,
    #[cfg(test)]
    pub(crate) script: Option<std::sync::Arc<crate::storage::faults::Script>>,
}

/// An open file of a [`Disk`]; knows its path.
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: OpenFile,
    path: PathBuf,
    disk: Disk,
    /// Held during a sync; see the invariant (told to all). Nothing is taken under it.
    has_failed_to_sync: Mutex<bool>,
}

/// An open directory: nothing else is taken for it while this is held, whatever happens to its name.
#[derive(Debug)]
pub(crate) struct DiskDirectory {
    facts: Facts,
    medium: Medium,
    /// Held, so that nothing else is given its inode; in memory none is given twice.
    _file: Option<File>,
}

impl Default for Disk {
    fn default() -> Disk {
        Disk {
            file_mode: FILE_MODE,
            medium: Medium::System,
            #[cfg(test)]
            script: None,
        }
    }
}

impl Disk {
    /// Lets others read or write files that are made; the owner always may. Directories may be entered by whoever may
    /// read files.
    pub(crate) fn with_file_mode(mut self, mode: u32) -> Disk {
        self.file_mode = FILE_MODE | (mode & 0o666);
        self
    }

    fn directory_mode(&self) -> u32 {
        self.file_mode | (self.file_mode & 0o444) >> 2
    }

    pub(crate) fn open(&self, path: &Path, access: Access) -> Result<DiskFile> {
        let action = match access {
            Access::Read | Access::Write => "open",
            Access::CreateNew | Access::CreateOrKeep => {
                self.effect("create", path)?;
                "create"
            }
        };
        self.access("open", path)?;
        #[cfg(test)]
        self.told(|script| script.will_create(path));
        let file = self.medium.open(path, access, self.file_mode);
        let file = file.map_err(|e| Error::io(action, path, e))?;
        let facts = file.facts().map_err(|e| Error::io("examine", path, e))?;
        if facts.kind != Kind::File {
            let odd = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
            return Err(Error::io("open", path, odd));
        }
        Ok(DiskFile {
            file,
            path: path.to_path_buf(),
            disk: self.clone(),
            has_failed_to_sync: Mutex::new(false),
        })
    }

    pub(crate) fn open_directory(&self, path: &Path) -> Result<DiskDirectory> {
        let file = self.medium.open_directory(path).map_err(|e| Error::io("open", path, e))?;
        let facts = self.medium.facts_of_directory(file.as_ref(), path);
        let facts = facts.map_err(|e| Error::io("examine", path, e))?;
        Ok(DiskDirectory { facts, medium: self.medium.clone(), _file: file })
    }

    /// Gives what tells a file from every other that is there at the same time; `None` if there is none.
    pub(crate) fn inode(&self, path: &Path) -> Result<Option<u64>> {
        match self.medium.facts(path) {
            Ok(facts) => Ok(Some(facts.inode)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("examine", path, e)),
        }
    }

    /// Reads a whole file that is expected to be small; one larger than `len_max` is refused unread.
    pub(crate) fn read_small(&self, path: &Path, len_max: usize) -> Result<Vec<u8>> {
        let file = self.open(path, Access::Read)?;
        let len = file.len()?;
        let len = usize::try_from(len).ok().filter(|len| *len <= len_max).ok_or_else(|| {
            Error::Corrupt {
                path: path.to_path_buf(),
                position: len_max as u64,
                reason: "the file is larger than it can be",
                resume: None,
            }
        })?;
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(len)
            .map_err(|_| Error::io("read", path, io::ErrorKind::OutOfMemory.into()))?;
        bytes.resize(len, 0);
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Writes a file whole, whatever was there, and synchronises its bytes.
    pub(crate) fn write_synced(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let file = self.open(path, Access::CreateOrKeep)?;
        file.set_len(0)?;
        file.write_all_at(bytes, 0)?;
        if self.has(Planted::TemporaryNotSynced) { Ok(()) } else { file.sync_all() }
    }

    /// Replaces a file atomically: after a crash at any point it holds the old bytes or the new ones.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(file_name::TEMPORARY_SUFFIX);
        let temporary = PathBuf::from(temporary);
        let written = self.write_synced(&temporary, bytes);
        if let Err(error) = written.and_then(|()| self.rename(&temporary, path)) {
            // Best effort: what is left behind is swept at the next open, and may hold the space
            // whose lack was the failure.
            drop(self.remove_file(&temporary));
            return Err(error);
        }
        self.sync_directory(parent(path))
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.effect("rename", from)?;
        #[cfg(test)]
        self.told(|script| script.will_rename(from, to));
        self.medium.rename(from, to).map_err(|e| Error::io("rename", from, e))
    }

    /// Gives two files each other's names, both at once.
    pub(crate) fn exchange(&self, one: &Path, other: &Path) -> Result<()> {
        self.effect("exchange", one)?;
        #[cfg(test)]
        self.told(|script| script.will_exchange(one, other));
        self.medium.exchange(one, other).map_err(|e| Error::io("exchange", one, e))
    }

    /// Removes a file; one that is not there counts as removed.
    pub(crate) fn remove_file(&self, path: &Path) -> Result<()> {
        self.effect("remove", path)?;
        #[cfg(test)]
        self.told(|script| script.will_remove(path));
        match self.medium.remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
            _ => Ok(()),
        }
    }

    /// Removes a directory with everything in it; one that is not there counts as removed.
    pub(crate) fn remove_tree(&self, path: &Path) -> Result<()> {
        self.effect("remove", path)?;
        #[cfg(test)]
        self.told(|script| script.will_remove_tree(path));
        match self.medium.remove_tree(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
            _ => Ok(()),
        }
    }

    pub(crate) fn create_directory(&self, path: &Path) -> Result<()> {
        self.effect("create", path)?;
        #[cfg(test)]
        self.told(|script| script.will_create(path));
        let created = self.medium.create_directory(path, self.directory_mode());
        created.map_err(|e| Error::io("create", path, e))
    }

    /// Makes a directory and those above it that are missing, durably.
    pub(crate) fn create_directories(&self, path: &Path) -> Result<()> {
        if self.exists(path)? {
            // Whoever made it may have ended before its name was durable.
            return self.sync_name(path);
        }
        let above = parent(path);
        self.create_directories(above)?;
        self.create_directory(path)?;
        self.sync_directory(above)
    }

    /// Makes the names in a directory durable: creations, renames and removals.
    pub(crate) fn sync_directory(&self, path: &Path) -> Result<()> {
        self.effect("synchronise", path)?;
        self.access("open", path)?;
        let directory = self.medium.open_directory(path).map_err(|e| Error::io("open", path, e))?;
        if let Some(directory) = directory {
            directory.sync_all().map_err(|e| Error::io("synchronise", path, e))?;
        }
        #[cfg(test)]
        self.told(|script| script.directory_is_durable(path));
        Ok(())
    }

    /// Makes the name of a directory durable that somebody has made, where the one above can be opened for that.
    pub(crate) fn sync_name(&self, path: &Path) -> Result<()> {
        match self.sync_directory(parent(path)) {
            Err(Error::Io { source, .. }) if os_error::is_none_of_ours(&source) => Ok(()),
            other => other,
        }
    }

    /// Lists a directory. Names that are not UTF-8 are not ours and are left out.
    pub(crate) fn entries(&self, path: &Path) -> Result<Vec<Entry>> {
        self.access("list", path)?;
        self.medium.entries(path).map_err(|e| Error::io("list", path, e))
    }

    /// Tells whether a name stands for a directory; a symbolic link to one is none.
    pub(crate) fn is_directory(&self, path: &Path) -> Result<bool> {
        match self.medium.facts(path) {
            Ok(facts) => Ok(facts.kind == Kind::Directory),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("examine", path, e)),
        }
    }

    pub(crate) fn len(&self, path: &Path) -> Result<u64> {
        Ok(self.medium.facts(path).map_err(|e| Error::io("examine", path, e))?.len)
    }

    /// Gives the length of a file, and when it says that it was changed last, in milliseconds since 1970.
    pub(crate) fn len_and_modified(&self, path: &Path) -> Result<(u64, i64)> {
        let facts = self.medium.facts(path).map_err(|e| Error::io("examine", path, e))?;
        Ok((facts.len, facts.modified_ms()))
    }

    /// Gives the bytes that the files in a directory take on the disk.
    pub(crate) fn allocated_len(&self, directory: &Path) -> Result<u64> {
        let mut len = 0;
        for entry in self.entries(directory)?.into_iter().filter(|entry| !entry.is_directory) {
            let path = directory.join(entry.name);
            match self.medium.facts(&path) {
                Ok(facts) => len += facts.allocated_len,
                // It went meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("examine", &path, e)),
            }
        }
        Ok(len)
    }

    /// Refuses what is not a directory to which a symbolic link may lead.
    pub(crate) fn refuse_if_not_directory(&self, root: &Path) -> Result<()> {
        let reason = match self.medium.facts_through_links(root) {
            Ok(facts) if facts.kind == Kind::Directory => return Ok(()),
            Ok(_) => "it is not a directory",
            Err(error) if error.kind() == io::ErrorKind::NotFound => "it does not exist",
            Err(error) => return Err(Error::io("open", root, error)),
        };
        Err(Error::NotADataDirectory { path: root.to_path_buf(), reason })
    }

    pub(crate) fn exists(&self, path: &Path) -> Result<bool> {
        match self.medium.facts(path) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("examine", path, e)),
        }
    }

    #[cfg(test)]
    fn told(&self, tell: impl FnOnce(&crate::storage::faults::Script)) {
        if let Some(script) = &self.script {
            tell(script);
        }
    }

    /// Tells whether a bug is planted here; never outside of tests.
    #[cfg_attr(not(test), allow(unused_variables, clippy::unused_self))]
    #[inline]
    pub(crate) fn has(&self, bug: Planted) -> bool {
        #[cfg(test)]
        if let Some(script) = &self.script {
            return script.has(bug);
        }
        false
    }

    /// Asks the test's script, if there is one, whether this may be opened, read or mapped.
    #[cfg_attr(not(test), allow(unused_variables, clippy::unused_self, clippy::unnecessary_wraps))]
    #[inline]
    fn access(&self, action: &'static str, path: &Path) -> Result<()> {
        #[cfg(test)]
        if let Some(script) = &self.script {
            return script.next_access(action, path).map_err(|e| Error::io(action, path, e));
        }
        Ok(())
    }

    /// Asks the test's script, if there is one, how much the next call to the system takes of what it is given.
    #[cfg_attr(not(test), allow(clippy::unused_self, clippy::unnecessary_wraps))]
    #[inline]
    fn part(&self, whole: Range<usize>) -> io::Result<Range<usize>> {
        #[cfg(test)]
        if let Some(script) = &self.script {
            return script.part(whole);
        }
        Ok(whole)
    }

    /// Asks the test's script, if there is one, whether pages of a mapping can be read.
    pub(crate) fn access_of_pages(&self, path: &Path) -> Result<()> {
        self.access("bring", path)
    }

    /// Asks the test's script, if there is one, whether this effect may happen.
    #[cfg_attr(not(test), allow(unused_variables, clippy::unused_self, clippy::unnecessary_wraps))]
    #[inline]
    fn effect(&self, action: &'static str, path: &Path) -> Result<()> {
        #[cfg(test)]
        if let Some(script) = &self.script {
            return script.next(action, path).map_err(|e| Error::io(action, path, e));
        }
        Ok(())
    }
}

impl DiskDirectory {
    /// Tells whether a path still leads here.
    pub(crate) fn is_at(&self, path: &Path) -> Result<bool> {
        let here = &self.facts;
        match self.medium.facts(path) {
            Ok(there) => Ok((there.device, there.inode) == (here.device, here.inode)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("examine", path, e)),
        }
    }
}

impl DiskFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives what can be mapped and locked.
    pub(crate) fn descriptor(&self) -> &File {
        self.file.descriptor()
    }

    pub(crate) fn len(&self) -> Result<u64> {
        Ok(self.file.facts().map_err(|e| Error::io("examine", &self.path, e))?.len)
    }

    /// Gives what tells the file from every other that is there at the same time.
    pub(crate) fn inode(&self) -> Result<u64> {
        Ok(self.file.facts().map_err(|e| Error::io("examine", &self.path, e))?.inode)
    }

    pub(crate) fn read_exact_at(&self, bytes: &mut [u8], position: u64) -> Result<()> {
        match self.read_up_to(bytes, position)? {
            count if count == bytes.len() => Ok(()),
            _ => Err(Error::io("read", &self.path, io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Reads what there is, up to the length of `bytes`; fewer only at the end of the file.
    pub(crate) fn read_up_to(&self, bytes: &mut [u8], position: u64) -> Result<usize> {
        self.disk.access("read", &self.path)?;
        let read = in_full(bytes.len(), |rest| {
            let part = self.disk.part(rest)?;
            self.file.read_at(&mut bytes[part.clone()], position + part.start as u64)
        });
        read.map_err(|e| Error::io("read", &self.path, e))
    }

    pub(crate) fn write_all_at(&self, bytes: &[u8], position: u64) -> Result<()> {
        #[cfg(test)]
        self.disk.told(|script| script.will_write(&self.file, position, bytes.len()));
        let may_happen = self.disk.effect("append to", &self.path);
        #[cfg(test)]
        if may_happen.is_err() {
            // A failing disk may have taken a part: the file is left torn, as a real one would be.
            self.disk.told(|script| {
                drop(self.file.write_all_at(&bytes[..script.torn_len(bytes.len())], position));
            });
        }
        may_happen?;
        self.write_in_full(bytes.len(), |part| {
            self.file.write_at(&bytes[part.clone()], position + part.start as u64)
        })
        .map_err(|e| Error::io("append to", &self.path, e))
    }

    /// Writes so many bytes by calls that may take less than they are given, which on a disk that is nearly full,
    /// or where a signal comes, they do.
    fn write_in_full(
        &self,
        len: usize,
        write: impl Fn(Range<usize>) -> io::Result<usize>,
    ) -> io::Result<()> {
        let done = in_full(len, |rest| {
            let written = write(self.disk.part(rest.clone())?)?;
            Ok(if self.disk.has(Planted::RestForgotten) { rest.len() } else { written })
        })?;
        if done == len { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    pub(crate) fn set_len(&self, len: u64) -> Result<()> {
        self.disk.effect("cut", &self.path)?;
        #[cfg(test)]
        self.disk.told(|script| script.will_change(&self.file));
        self.file.set_len(len).map_err(|e| Error::io("cut", &self.path, e))
    }

    /// Makes the bytes and what is needed to find them durable.
    pub(crate) fn sync_data(&self) -> Result<()> {
        self.synced(OpenFile::sync_data)
    }

    /// Makes the bytes durable, and all that the directory says of the file.
    pub(crate) fn sync_all(&self) -> Result<()> {
        self.synced(OpenFile::sync_all)
    }

    fn synced(&self, sync: impl FnOnce(&OpenFile) -> io::Result<()>) -> Result<()> {
        let failed = |e| Error::io("synchronise", &self.path, e);
        let mut has_failed = self.has_failed_to_sync.lock();
        if *has_failed {
            return Err(failed(io::Error::other("a sync of this file has failed before")));
        }
        *has_failed = true;
        if let Err(error) = self.disk.effect("synchronise", &self.path) {
            #[cfg(test)]
            self.disk.told(|script| script.sync_has_failed(&self.file));
            let is_retried = self.disk.has(Planted::SyncRetried);
            if !is_retried || self.disk.effect("synchronise", &self.path).is_err() {
                return Err(error);
            }
        }
        #[cfg(test)]
        self.disk.told(|script| script.sync_begins(&self.file, &self.path));
        sync(&self.file).map_err(failed)?;
        *has_failed = false;
        Ok(())
    }

    /// Gives the time at which the file says it was changed.
    pub(crate) fn modified(&self) -> Result<SystemTime> {
        Ok(self.file.facts().map_err(|e| Error::io("examine", &self.path, e))?.modified)
    }

    /// Lets the file say that it was changed at a time.
    pub(crate) fn set_modified(&self, time: SystemTime) -> Result<()> {
        self.disk.effect("date", &self.path)?;
        self.file.set_modified(time).map_err(|e| Error::io("date", &self.path, e))
    }

    /// Reserves real space up to `end`, as zeros behind what is there. On failure the file is as it was.
    pub(crate) fn reserve(&self, start: u64, end: u64) -> Result<()> {
        #[cfg(test)]
        self.disk.told(|script| script.will_change(&self.file));
        let reserved = self.disk.effect("grow", &self.path).and_then(|()| {
            let allocated = in_pieces(start..end, |position, len| {
                self.disk.part(0..1)?;
                self.file.allocate(position, len)
            });
            allocated.map_err(|e| Error::io("grow", &self.path, e))
        });
        if reserved.is_err() {
            // A failed reservation may have taken all the space there was; give it back. If even that
            // fails, a tail of zeros is left, which recovery accepts.
            drop(self.set_len(start));
        }
        reserved
    }

    /// Writes zeros into space that was reserved before: its pages are then in the cache and its blocks count
    /// as written. Each call writes up to `call_len` bytes of it: the system keeps in one piece what one call writes,
    /// where it can.
    pub(crate) fn write_zeros(&self, range: Range<u64>, call_len: usize) -> Result<()> {
        #[cfg(test)]
        self.disk.told(|script| script.will_change(&self.file));
        self.disk.effect("prepare", &self.path)?;
        self.write_in_full((range.end - range.start) as usize, |part| {
            self.file.write_vectored_at(
                &zeros(part.len().min(call_len)),
                range.start + part.start as u64,
            )
        })
        .map_err(|e| Error::io("prepare", &self.path, e))
    }

    /// Lets go of cached pages that are not dirty, so that reads show what the device holds.
    pub(crate) fn drop_clean_pages(&self) {
        #[cfg(test)]
        self.disk.told(|script| script.will_drop_clean(&self.file));
        // Advice only: where it is not taken, reads come from the cache as always.
        self.file.drop_clean_pages();
    }

    /// Has the system begin to write out bytes that were written just now, so that the sync that follows finds less to
    /// do. Promises nothing: what goes wrong is told by that sync.
    pub(crate) fn write_out_soon(&self, range: Range<u64>) {
        // Advice only.
        self.file.write_out_soon(range);
    }

    /// Tells whether a writable mapping of this file keeps its word: space that was reserved stays
    /// reserved, and a store into it cannot fail. That is known of ext4 and tmpfs; on others a copied
    /// block may be shared, and a store into it would need space that is not there.
    pub(crate) fn maps_are_dependable(&self) -> bool {
        self.file.maps_are_dependable()
    }

    /// Asks the test's script whether a store of `bytes` through a mapping of this file may happen; of one that
    /// may not, a part behind `front_len` may be there all the same.
    #[cfg_attr(not(test), allow(unused_variables))]
    #[inline]
    pub(crate) fn effect_of_store(
        &self,
        bytes: &[u8],
        position: u64,
        front_len: usize,
    ) -> Result<()> {
        #[cfg(test)]
        self.disk.told(|script| script.will_write(&self.file, position, bytes.len()));
        let stored = self.disk.effect("append to", &self.path);
        #[cfg(test)]
        if stored.is_err() {
            self.disk.told(|script| {
                script.tear_store(&self.file, &bytes[front_len..], position + front_len as u64)
            });
        }
        stored
    }

    /// Asks the test's script whether the file may be mapped.
    pub(crate) fn access_of_map(&self) -> Result<()> {
        self.disk.access("map", &self.path)
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }
}

#[cfg(test)]
impl Drop for DiskFile {
    fn drop(&mut self) {
        self.disk.told(|script| script.will_close(&self.file, &self.path));
    }
}

/// What is stored may be anybody's secret: the owner alone reads it.
const FILE_MODE: u32 = 0o600;

/// Gives how many descriptors this process may have; `None` if there is no limit, or none that is known.
pub(crate) fn descriptor_count_max() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The directory is named once and for all: the process may change its working directory later.
pub(crate) fn absolute(root: &Path) -> Result<PathBuf> {
    std::path::absolute(root).map_err(|e| Error::io("find", root, e))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_replaced_file_is_old_or_new_whatever_effect_fails() {
        let effects = {
            let disk = Disk::failing_once(u64::MAX, 0);
            let directory = tempfile::tempdir().unwrap();
            disk.replace(&directory.path().join("f"), b"new").unwrap();
            disk.script().count()
        };
        for n in 1..=effects {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("f");
            fs::write(&path, "old").unwrap();
            let error = Disk::failing_once(n, libc::ENOSPC).replace(&path, b"new").unwrap_err();
            assert!(matches!(error, Error::OutOfSpace { .. }), "{error}");
            let found = fs::read(&path).unwrap();
            assert!(found == b"old" || found == b"new", "effect {n}");
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "effect {n}");
        }
    }

    /// Of two who synchronise a file at the same time, the system tells one that it failed.
    #[test]
    fn a_sync_that_failed_is_told_to_everyone_who_synchronises_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::failing_once(3, libc::EIO);
        let file = disk.open(&directory.path().join("f"), Access::CreateNew).unwrap();
        file.sync_data().unwrap();
        assert!(file.sync_data().is_err());
        // The disk is well again, but what the sync was to save may be gone.
        assert!(file.sync_data().is_err());
        assert!(file.sync_all().is_err());
    }

    #[test]
    fn only_regular_files_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(Disk::default().open(&link, Access::Read).is_err());
        assert!(Disk::default().open(directory.path(), Access::Read).is_err());
    }

    #[test]
    fn a_failed_reservation_leaves_the_file_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::failing_once(3, libc::ENOSPC);
        let file = disk.open(&directory.path().join("f"), Access::CreateNew).unwrap();
        file.write_all_at(b"abc", 0).unwrap();
        assert!(matches!(file.reserve(3, 1 << 20), Err(Error::OutOfSpace { .. })));
        assert_eq!(file.len().unwrap(), 3);
    }
}
