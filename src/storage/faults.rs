//! Disks that fail on command, for tests.
//!
//! A [`Script`] stands behind a [`Disk`]: it lets effects fail, lets nothing take effect any more, and keeps
//! account of what was changed and not yet synchronised, so that a power cut can take it back. What a power
//! cut takes: of every file, any of the 512-byte sectors changed since its last sync, or none, or all, and
//! its length or the one before; of every directory, any suffix of what was created, renamed and removed in
//! it since *its* last sync. Nothing ties one file to another.

use std::collections::HashMap;
use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use crate::storage::disk;
use crate::storage::disk::Disk;

/// Which effects fail, how, and what a power cut would take.
#[derive(Debug)]
pub(crate) struct Script {
    state: Mutex<State>,
    device: Mutex<Device>,
}

#[derive(Debug)]
struct State {
    count: u64,
    fail_at: u64,
    errno: i32,
    persistent: bool,
    trace: Vec<String>,
}

/// What the device holds of what differs from the cache.
#[derive(Debug, Default)]
struct Device {
    /// The bytes of changed files as of their last sync, by inode.
    files: HashMap<u64, Vec<u8>>,
    /// What happened in directories since their last sync, in order.
    names: Vec<Naming>,
    /// Segments that were closed before what was written to them was durable.
    closed_unsynced: Vec<PathBuf>,
}

#[derive(Debug)]
enum Naming {
    Created(PathBuf),
    /// Also what the new name stood for before.
    Renamed(PathBuf, PathBuf, Option<Vec<u8>>),
    Removed(PathBuf, Vec<u8>),
    Exchanged(PathBuf, PathBuf),
}

impl Naming {
    fn directory(&self) -> &Path {
        match self {
            Naming::Created(path)
            | Naming::Renamed(path, _, _)
            | Naming::Removed(path, _)
            | Naming::Exchanged(path, _) => disk::parent(path),
        }
    }
}

impl Disk {
    /// A disk whose `fail_at`-th effect fails once with `errno`.
    pub(crate) fn failing_once(fail_at: u64, errno: i32) -> Disk {
        Disk::scripted(fail_at, errno, false)
    }

    /// A disk on which nothing takes effect from the `fail_at`-th on: the process has died there.
    pub(crate) fn dying(fail_at: u64) -> Disk {
        Disk::dying_of(fail_at, libc::EIO)
    }

    /// As [`dying`](Self::dying), with an error number of one's choice: a disk that is full from then on.
    pub(crate) fn dying_of(fail_at: u64, errno: i32) -> Disk {
        Disk::scripted(fail_at, errno, true)
    }

    fn scripted(fail_at: u64, errno: i32, persistent: bool) -> Disk {
        let state = State { count: 0, fail_at, errno, persistent, trace: Vec::new() };
        let script = Script { state: Mutex::new(state), device: Mutex::default() };
        Disk { script: Some(Arc::new(script)), ..Disk::default() }
    }

    pub(crate) fn script(&self) -> &Script {
        self.script.as_deref().unwrap()
    }
}

impl Script {
    /// In place of an error number: the effect panics.
    pub(crate) const PANIC: i32 = -1;
    /// In place of an error number: the effect takes its time, and succeeds.
    pub(crate) const SLOW: i32 = -2;

    pub(crate) fn next(&self, action: &'static str, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.count += 1;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        state.trace.push(format!("{action} {name}"));
        let fails =
            state.count == state.fail_at || (state.persistent && state.count > state.fail_at);
        if fails && state.errno == Script::PANIC {
            drop(state);
            panic!("on purpose");
        }
        if fails && state.errno == Script::SLOW {
            drop(state);
            std::thread::sleep(std::time::Duration::from_millis(2));
            return Ok(());
        }
        if fails { Err(io::Error::from_raw_os_error(state.errno)) } else { Ok(()) }
    }

    /// How many effects were asked for so far.
    pub(crate) fn count(&self) -> u64 {
        self.state.lock().unwrap().count
    }

    /// Arms the script anew: the n-th effect from now on fails.
    pub(crate) fn arm(&self, from_now: u64, errno: i32, persistent: bool) {
        let mut state = self.state.lock().unwrap();
        state.fail_at = state.count + from_now;
        state.errno = errno;
        state.persistent = persistent;
    }

    pub(crate) fn disarm(&self) {
        self.state.lock().unwrap().fail_at = u64::MAX;
    }

    pub(crate) fn trace(&self) -> Vec<String> {
        self.state.lock().unwrap().trace.clone()
    }

    pub(crate) fn will_change(&self, file: &File) {
        let metadata = file.metadata().unwrap();
        let mut device = self.device.lock().unwrap();
        device.files.entry(metadata.ino()).or_insert_with(|| {
            let mut bytes = vec![0; metadata.len() as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        });
    }

    pub(crate) fn file_is_durable(&self, file: &File) {
        self.device.lock().unwrap().files.remove(&file.metadata().unwrap().ino());
    }

    /// A failed sync is told only to descriptors that were open before: a segment's is to be closed after a sync.
    pub(crate) fn will_close(&self, file: &File, path: &Path) {
        let state = self.state.lock().unwrap();
        let has_died = state.persistent && state.count >= state.fail_at;
        drop(state);
        let metadata = file.metadata().unwrap();
        let is_segment = path.extension().is_some_and(|e| e == "log") && metadata.nlink() > 0;
        let mut device = self.device.lock().unwrap();
        let Some(durable) = device.files.get(&metadata.ino()).filter(|_| is_segment && !has_died)
        else {
            return;
        };
        let mut cached = vec![0; metadata.len() as usize];
        file.read_exact_at(&mut cached, 0).unwrap();
        // Where only zeros differ, nothing can be lost but reserved space.
        let (shared, rest) = cached.split_at(cached.len().min(durable.len()));
        let is_lost = shared != &durable[..shared.len()] || rest.iter().any(|byte| *byte != 0);
        if is_lost {
            device.closed_unsynced.push(path.to_path_buf());
        }
    }

    pub(crate) fn closed_unsynced(&self) -> Vec<PathBuf> {
        self.device.lock().unwrap().closed_unsynced.clone()
    }

    pub(crate) fn will_create(&self, path: &Path) {
        if !path.exists() {
            self.device.lock().unwrap().names.push(Naming::Created(path.to_path_buf()));
        }
    }

    pub(crate) fn will_rename(&self, from: &Path, to: &Path) {
        let replaced = self.durable_bytes(to);
        let renamed = Naming::Renamed(from.to_path_buf(), to.to_path_buf(), replaced);
        self.device.lock().unwrap().names.push(renamed);
    }

    pub(crate) fn will_exchange(&self, one: &Path, other: &Path) {
        let exchanged = Naming::Exchanged(one.to_path_buf(), other.to_path_buf());
        self.device.lock().unwrap().names.push(exchanged);
    }

    pub(crate) fn will_remove(&self, path: &Path) {
        if let Some(bytes) = self.durable_bytes(path) {
            self.device.lock().unwrap().names.push(Naming::Removed(path.to_path_buf(), bytes));
        }
    }

    pub(crate) fn directory_is_durable(&self, path: &Path) {
        self.device.lock().unwrap().names.retain(|naming| naming.directory() != path);
    }

    /// Takes back what a power cut takes, `chance` giving numbers below its argument.
    pub(crate) fn cut_power(&self, root: &Path, chance: &mut impl FnMut(u64) -> u64) {
        let device = std::mem::take(&mut *self.device.lock().unwrap());
        if !root.exists() {
            return;
        }
        let mut changed = Vec::new();
        find_files(root, &mut |path, inode| {
            if let Some(durable) = device.files.get(&inode) {
                changed.push((path.to_path_buf(), durable.clone()));
            }
        });
        changed.sort();
        for (path, durable) in changed {
            let cached = fs::read(&path).unwrap();
            fs::write(&path, survivors(&cached, &durable, chance)).unwrap();
        }
        // Each directory keeps a prefix of what happened in it.
        let mut directories: Vec<PathBuf> =
            device.names.iter().map(|naming| naming.directory().to_path_buf()).collect();
        directories.sort();
        directories.dedup();
        for directory in directories {
            let happened: Vec<&Naming> =
                device.names.iter().filter(|naming| naming.directory() == directory).collect();
            let kept = chance(happened.len() as u64 + 1) as usize;
            for naming in happened[kept..].iter().rev() {
                take_back(naming);
            }
        }
    }

    fn durable_bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let inode = fs::metadata(path).ok().filter(fs::Metadata::is_file)?.ino();
        let durable = self.device.lock().unwrap().files.get(&inode).cloned();
        durable.or_else(|| fs::read(path).ok())
    }
}

/// Gives the bytes of a file after a power cut, from those in the cache and those on the device.
fn survivors(cached: &[u8], durable: &[u8], chance: &mut impl FnMut(u64) -> u64) -> Vec<u8> {
    let len = if chance(2) == 0 { cached.len() } else { durable.len() };
    let style = chance(4);
    let sectors = cached.len().max(durable.len()).div_ceil(SECTOR_LEN);
    let prefix = chance(sectors as u64 + 1) as usize;
    let mut bytes = durable.to_vec();
    bytes.resize(cached.len().max(durable.len()), 0);
    for sector in 0..sectors {
        let survives = match style {
            0 => false,
            1 => sector < prefix,
            2 => chance(2) == 0,
            _ => chance(8) != 0,
        };
        let start = sector * SECTOR_LEN;
        let mut end = (start + SECTOR_LEN).min(cached.len());
        if !survives || start >= end {
            continue;
        }
        if chance(16) == 0 {
            // A sector that is torn itself.
            end = start + chance((end - start) as u64 + 1) as usize;
        }
        bytes[start..end].copy_from_slice(&cached[start..end]);
    }
    bytes.truncate(len);
    bytes
}

fn take_back(naming: &Naming) {
    match naming {
        Naming::Created(path) if path.is_dir() => fs::remove_dir_all(path).unwrap(),
        Naming::Created(path) => fs::remove_file(path).unwrap_or_default(),
        Naming::Renamed(from, to, replaced) => {
            if to.exists() && disk::parent(from).exists() {
                fs::rename(to, from).unwrap();
            }
            if let Some(bytes) = replaced.as_ref().filter(|_| disk::parent(to).exists()) {
                fs::write(to, bytes).unwrap();
            }
        }
        Naming::Exchanged(one, other) => {
            let between = one.with_extension("between");
            fs::rename(one, &between).unwrap();
            fs::rename(other, one).unwrap();
            fs::rename(between, other).unwrap();
        }
        Naming::Removed(path, bytes) => {
            if disk::parent(path).exists() {
                fs::write(path, bytes).unwrap();
            }
        }
    }
}

/// Copies a directory with everything in it, for a look that must change nothing.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Copies a directory beside itself, in place of what was there under that name.
pub(crate) fn fresh_copy(from: &Path, name: &str) -> PathBuf {
    let to = from.parent().unwrap().join(name);
    drop(fs::remove_dir_all(&to));
    copy_tree(from, &to);
    to
}

fn find_files(directory: &Path, found: &mut impl FnMut(&Path, u64)) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            find_files(&entry.path(), found);
        } else {
            found(&entry.path(), metadata.ino());
        }
    }
}

const SECTOR_LEN: usize = 512;
