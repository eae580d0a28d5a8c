//! The lock on a data directory. It also excludes a JVM broker.
//!
//! Kafka locks the file `.lock` with a POSIX record lock, which `flock` does not exclude. On Linux an
//! *open file description* lock is taken: it conflicts with the JVM's, also with a second one in the
//! same process, and, unlike a POSIX lock, it does not vanish when some other descriptor of the same
//! file is closed. Elsewhere it is a POSIX lock and a list of the directories this process holds.
//!
//! The file also says who holds the lock and which boot of the machine it was: after a crash,
//! recovery thereby knows whether the page cache survived.

#![allow(unsafe_code, reason = "no safe wrapper for open file description locks")]

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::error::Error;
use crate::error::Result;
use crate::storage::disk::Access;
use crate::storage::disk::Disk;
use crate::storage::disk::DiskFile;
use crate::storage::file_name;

/// Holds a data directory for writing until it is dropped.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    file: DiskFile,
    #[cfg(not(target_os = "linux"))]
    _entry: process_wide::Entry,
}

/// Whether the last writer ran since the machine was started last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastBoot {
    /// It did: what it wrote is in the page cache, so nothing of it is torn by a power cut.
    Same,
    /// It did not, or nobody knows.
    Other,
}

impl DirectoryLock {
    /// Takes the lock of the data directory `root`, or says who has it.
    pub(crate) fn acquire(disk: &Disk, root: &Path) -> Result<(DirectoryLock, LastBoot)> {
        let path = root.join(file_name::LOCK);
        let file = disk.open(&path, Access::CreateOrKeep)?;
        #[cfg(not(target_os = "linux"))]
        let entry = process_wide::Entry::claim(root)?;
        let claimed = claim(&file, libc::F_WRLCK);
        let text = disk.read_small(&path, TEXT_LEN_MAX).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        if let Err(source) = claimed {
            return Err(match source.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied => {
                    let holder = value_of(&text, "pid").and_then(|pid| pid.parse().ok());
                    Error::Locked { path: root.to_path_buf(), holder }
                }
                _ => Error::io("lock", &path, source),
            });
        }
        let last_boot = match (value_of(&text, "boot"), this_boot()) {
            (Some(last), Some(this)) if last == this => LastBoot::Same,
            _ => LastBoot::Other,
        };
        let lock = DirectoryLock {
            file,
            #[cfg(not(target_os = "linux"))]
            _entry: entry,
        };
        // The old boot stays on record until recovery is through: it may be cut short and start over.
        lock.sign(value_of(&text, "boot"))?;
        Ok((lock, last_boot))
    }

    /// Puts this boot on record; called once recovery is through.
    pub(crate) fn confirm_boot(&self) -> Result<()> {
        self.sign(this_boot().as_deref())
    }

    fn sign(&self, boot: Option<&str>) -> Result<()> {
        let mut text = format!("pid={}\n", std::process::id());
        if let Some(boot) = boot {
            text.push_str(&format!("boot={boot}\n"));
        }
        self.file.set_len(0)?;
        self.file.write_all_at(text.as_bytes(), 0)
    }
}

const TEXT_LEN_MAX: usize = 4096;

fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

fn this_boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing the descriptor is not enough: a child that was forked meanwhile holds a copy of it until
        // it executes something else. Nobody is left to tell of a failure.
        drop(claim(&self.file, libc::F_UNLCK));
    }
}

/// Locks the whole file, or lets it go, without waiting.
fn claim(file: &DiskFile, kind: libc::c_int) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    const COMMAND: libc::c_int = libc::F_OFD_SETLK;
    #[cfg(not(target_os = "linux"))]
    const COMMAND: libc::c_int = libc::F_SETLK;
    #[allow(clippy::cast_possible_truncation, reason = "the constants are 0, 1 or 2")]
    let range = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        // The kernel requires 0 here for open file description locks.
        l_pid: 0,
    };
    // SAFETY: `fcntl` reads one `flock` through the pointer, which points at a whole, initialised one
    // that outlives the call; the descriptor is open because `file` is borrowed.
    let outcome = unsafe { libc::fcntl(file.descriptor().as_raw_fd(), COMMAND, &raw const range) };
    if outcome == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Tells whether somebody has the data directory `root` open for writing.
pub(crate) fn is_held(disk: &Disk, root: &Path) -> Result<bool> {
    let path = root.join(file_name::LOCK);
    let file = match disk.open(&path, Access::Read) {
        Err(error) if error.is_not_found() => return Ok(false),
        other => other?,
    };
    #[cfg(target_os = "linux")]
    const COMMAND: libc::c_int = libc::F_OFD_GETLK;
    #[cfg(not(target_os = "linux"))]
    const COMMAND: libc::c_int = libc::F_GETLK;
    #[cfg(not(target_os = "linux"))]
    if process_wide::is_claimed(root) {
        return Ok(true);
    }
    #[allow(clippy::cast_possible_truncation, reason = "the constants are 0, 1 or 2")]
    let mut range = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: `fcntl` reads and writes one `flock` through the pointer, which points at a whole, initialised one
    // that is borrowed mutably for the call; the descriptor is open because `file` is borrowed.
    let outcome = unsafe { libc::fcntl(file.descriptor().as_raw_fd(), COMMAND, &raw mut range) };
    if outcome == -1 {
        return Err(Error::io("look at the lock of", &path, io::Error::last_os_error()));
    }
    #[allow(clippy::cast_possible_truncation, reason = "the constants are 0, 1 or 2")]
    let unlocked = libc::F_UNLCK as libc::c_short;
    Ok(range.l_type != unlocked)
}

#[cfg(not(target_os = "linux"))]
mod process_wide {
    //! A POSIX lock does not exclude its own process, so the process keeps a list.

    use std::path::Path;
    use std::path::PathBuf;

    use parking_lot::Mutex;

    use crate::error::Error;
    use crate::error::Result;

    static HELD: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

    #[derive(Debug)]
    pub(super) struct Entry(PathBuf);

    impl Entry {
        pub(super) fn claim(root: &Path) -> Result<Entry> {
            let path = root.canonicalize().map_err(|e| Error::io("open", root, e))?;
            let mut held = HELD.lock();
            if held.contains(&path) {
                return Err(Error::Locked { path, holder: Some(std::process::id()) });
            }
            held.push(path.clone());
            Ok(Entry(path))
        }
    }

    pub(super) fn is_claimed(root: &Path) -> bool {
        root.canonicalize().is_ok_and(|path| HELD.lock().contains(&path))
    }

    impl Drop for Entry {
        fn drop(&mut self) {
            HELD.lock().retain(|held| *held != self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_in_the_same_process_is_refused_and_names_the_holder() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let (lock, last_boot) = DirectoryLock::acquire(&disk, directory.path()).unwrap();
        assert_eq!(last_boot, LastBoot::Other);
        match DirectoryLock::acquire(&disk, directory.path()) {
            Err(Error::Locked { path, holder }) => {
                assert_eq!(path, directory.path());
                assert_eq!(holder, Some(std::process::id()));
            }
            other => panic!("{other:?}"),
        }
        // Closing another descriptor of the file must not let go of the lock, as POSIX locks would.
        drop(fs::File::open(directory.path().join(file_name::LOCK)).unwrap());
        assert!(DirectoryLock::acquire(&disk, directory.path()).is_err());
        lock.confirm_boot().unwrap();
        drop(lock);
        let (_lock, last_boot) = DirectoryLock::acquire(&disk, directory.path()).unwrap();
        assert_eq!(last_boot, LastBoot::Same);
    }

    #[test]
    fn the_boot_is_not_on_record_before_recovery_is_through() {
        let directory = tempfile::tempdir().unwrap();
        drop(DirectoryLock::acquire(&Disk::default(), directory.path()).unwrap());
        let (_lock, last_boot) =
            DirectoryLock::acquire(&Disk::default(), directory.path()).unwrap();
        assert_eq!(last_boot, LastBoot::Other);
    }
}
