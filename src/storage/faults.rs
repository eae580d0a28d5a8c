//! Disks that fail on command, for tests.
//!
//! A [`Script`] stands behind a [`Disk`]: it lets effects fail, lets nothing take effect any more, and keeps
//! account of what was changed and not yet synchronised, so that a power cut can take it back. What a power
//! cut takes: of every file, any of the 512-byte sectors changed since its last sync, or none, or all, some of
//! them torn at a byte, or as they were before the file was cut, and of its lengths since then all but one; of every directory, any suffix of what was created,
//! renamed and removed in it since *its* last sync, or any part of it in which nothing depends on what is lost; but
//! where files of a compaction or a deletion are among them, their order is kept.
//! Nothing ties one file to another.
//!
//! A script that [loses](Script::lose_at_failed_syncs) at failed syncs does what kernels do: a part of the changed
//! sectors reaches the device, the rest counts as clean from then on, so that a later sync succeeds and leaves it out,
//! and reads show it until clean pages are dropped.
//!
//! Beside effects, what is opened, read, listed and mapped is counted, and can be let fail by its own number.
//!
//! An effect or a read may take several calls to the system. A script that [falters](Script::falter) lets some of these
//! take less than they are given, or nothing because a signal came; and one can be told what becomes of the calls of one
//! effect: see [`Script::SHORT`].

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use crate::chance::Chance;
use crate::storage::disk;
use crate::storage::disk::Disk;
use crate::storage::file_name;
use crate::storage::medium::Kind;
use crate::storage::medium::Medium;
use crate::storage::medium::OpenFile;
use crate::storage::planted::Planted;

/// Which effects fail, how, and what a power cut would take.
#[derive(Debug)]
pub(crate) struct Script {
    medium: Medium,
    state: Mutex<State>,
    device: Mutex<Device>,
    meanwhile: Mutex<Option<Meanwhile>>,
}

/// What somebody does while a file is being synchronised, whose path it is told.
#[derive(Clone)]
pub(crate) struct Meanwhile(pub(crate) Arc<dyn Fn(&Path) + Send + Sync>);

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

#[derive(Debug)]
struct State {
    count: u64,
    fail_at: u64,
    errno: i32,
    persistent: bool,
    trace: Vec<String>,
    /// Effects that fail once, and how.
    faults: Vec<(u64, i32)>,
    /// So many syncs of segments from now, one fails; 0 if none does.
    log_syncs_left: u64,
    /// What accesses are called of which one fails, and after how many that is; 0 if none does.
    doomed: (&'static str, u64),
    /// Opens, reads, lists and maps so far; the one that fails, and how.
    access_count: u64,
    access_fails_at: u64,
    access_errno: i32,
    access_trace: Vec<String>,
    /// Set where it decides what a failing write or sync leaves.
    chance: Option<Chance>,
    planted: Option<Planted>,
    /// What becomes of the next calls of this effect or read, the last one first.
    calls: Vec<Call>,
    /// So many calls have not done what they were to do.
    cut_short: u64,
    /// Set where calls come short now and then. Not a [`Chance`], which may be somebody's choices.
    faltering: Option<u64>,
}

/// What becomes of a call to the system.
#[derive(Clone, Copy, Debug)]
enum Call {
    TakesPart,
    TakesNothing,
    Fails(i32),
}

/// What the device holds of what differs from the cache.
#[derive(Debug, Default)]
struct Device {
    /// The bytes of changed files as of their last sync, by inode.
    files: HashMap<u64, Unsynced>,
    /// What happened in directories since their last sync, in order.
    names: Vec<Naming>,
    /// Segments that were closed before what was written to them was durable.
    closed_unsynced: Vec<PathBuf>,
}

/// A file of which the cache shows more than the device holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Unsynced {
    pub(super) durable: Vec<u8>,
    /// How it looked before it was cut or lengthened, since then: somebody else's sync may have made that durable.
    pub(super) between: Vec<Vec<u8>>,
    /// How long it was at some time since then.
    pub(super) lengths: BTreeSet<usize>,
    /// Sectors that a failed sync has lost and that count as clean.
    lost: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
pub(super) enum Naming {
    Created(PathBuf),
    /// Also what the new name stood for before.
    Renamed(PathBuf, PathBuf, Option<Vec<u8>>),
    Removed(PathBuf, Vec<u8>),
    Exchanged(PathBuf, PathBuf),
    /// A directory, with what was in it.
    TreeRemoved(PathBuf, Vec<(PathBuf, Vec<u8>)>),
}

impl Device {
    /// Notes that a file is about to be written to: what it holds until then is durable, unless it differs already.
    ///
    /// In one step with whatever else is noted of it: somebody else's sync ends what is known of the file.
    fn begin_write(&mut self, file: &OpenFile, position: u64, len: usize) -> &mut Unsynced {
        let facts = file.facts().unwrap();
        let unsynced = self
            .files
            .entry(facts.inode)
            .or_insert_with(|| Unsynced { durable: file.bytes(), ..Unsynced::default() });
        unsynced.lengths.insert(facts.len as usize);
        if !unsynced.lost.is_empty() {
            let first = position as usize / SECTOR_LEN;
            let end = (position as usize).saturating_add(len).div_ceil(SECTOR_LEN);
            unsynced.lost.retain(|sector| !(first..end).contains(sector));
        }
        unsynced
    }
}

impl Naming {
    pub(super) fn directory(&self) -> &Path {
        match self {
            Naming::Created(path)
            | Naming::Renamed(path, _, _)
            | Naming::Removed(path, _)
            | Naming::Exchanged(path, _)
            | Naming::TreeRemoved(path, _) => disk::parent(path),
        }
    }

    /// The names it is about.
    pub(super) fn paths(&self) -> Vec<&Path> {
        match self {
            Naming::Created(path) | Naming::Removed(path, _) | Naming::TreeRemoved(path, _) => {
                vec![path]
            }
            Naming::Renamed(from, to, _) | Naming::Exchanged(from, to) => vec![from, to],
        }
    }

    /// The same in another directory than `root`.
    fn moved(&self, root: &Path, target: &Path) -> Naming {
        let moved = |path: &Path| target.join(path.strip_prefix(root).unwrap());
        match self {
            Naming::Created(path) => Naming::Created(moved(path)),
            Naming::Renamed(from, to, bytes) => {
                Naming::Renamed(moved(from), moved(to), bytes.clone())
            }
            Naming::Removed(path, bytes) => Naming::Removed(moved(path), bytes.clone()),
            Naming::Exchanged(one, other) => Naming::Exchanged(moved(one), moved(other)),
            Naming::TreeRemoved(path, files) => Naming::TreeRemoved(moved(path), files.clone()),
        }
    }
}

impl Disk {
    /// A disk whose `fail_at`-th effect fails once with `errno`.
    pub(crate) fn failing_once(fail_at: u64, errno: i32) -> Disk {
        Disk::scripted(fail_at, errno, false, Medium::System)
    }

    /// A disk of which nothing fails yet.
    pub(crate) fn on(medium: &Medium) -> Disk {
        Disk::scripted(u64::MAX, 0, false, medium.clone())
    }

    /// A disk on which nothing takes effect from the `fail_at`-th on: the process has died there.
    pub(crate) fn dying(fail_at: u64) -> Disk {
        Disk::dying_of(fail_at, libc::EIO)
    }

    /// As [`dying`](Self::dying), with an error number of one's choice: a disk that is full from then on.
    pub(crate) fn dying_of(fail_at: u64, errno: i32) -> Disk {
        Disk::scripted(fail_at, errno, true, Medium::System)
    }

    fn scripted(fail_at: u64, errno: i32, persistent: bool, medium: Medium) -> Disk {
        let state = State {
            count: 0,
            fail_at,
            errno,
            persistent,
            trace: Vec::new(),
            faults: Vec::new(),
            log_syncs_left: 0,
            doomed: ("", 0),
            access_count: 0,
            access_fails_at: u64::MAX,
            access_errno: 0,
            access_trace: Vec::new(),
            chance: None,
            planted: None,
            calls: Vec::new(),
            cut_short: 0,
            faltering: None,
        };
        let script = Script {
            medium: medium.clone(),
            state: Mutex::new(state),
            device: Mutex::default(),
            meanwhile: Mutex::default(),
        };
        Disk { script: Some(Arc::new(script)), medium, ..Disk::default() }
    }

    pub(crate) fn script(&self) -> &Script {
        self.script.as_deref().unwrap()
    }
}

impl State {
    fn has_died(&self) -> bool {
        self.persistent && self.errno > 0 && self.count >= self.fail_at
    }

    /// Lets an effect or a read fail, or decides what becomes of its calls.
    fn fail(&mut self, errno: i32) -> io::Result<()> {
        let end = match errno {
            Script::SHORT => None,
            Script::SHORT_AND_FULL => Some(Call::Fails(libc::ENOSPC)),
            Script::SHORT_AND_FAILING => Some(Call::Fails(libc::EIO)),
            Script::SHORT_AND_IDLE => Some(Call::TakesNothing),
            errno => return Err(io::Error::from_raw_os_error(errno)),
        };
        let interrupted = Call::Fails(libc::EINTR);
        self.calls.extend(end);
        self.calls.extend([Call::TakesPart, interrupted, Call::TakesPart, interrupted]);
        Ok(())
    }

    fn falters(&mut self) -> Option<Call> {
        let word = self.faltering.as_mut()?;
        *word ^= *word << 13;
        *word ^= *word >> 7;
        *word ^= *word << 17;
        match *word % 16 {
            0..4 => Some(Call::TakesPart),
            4 => Some(Call::Fails(libc::EINTR)),
            _ => None,
        }
    }
}

impl Script {
    /// In place of an error number: the effect panics.
    pub(crate) const PANIC: i32 = -1;
    /// In place of an error number: the effect takes its time, and succeeds.
    pub(crate) const SLOW: i32 = -2;
    /// In place of an error number: a signal comes, a part is taken, a signal comes, a part of the rest is taken; and
    /// then everything.
    pub(crate) const SHORT: i32 = -3;
    /// As [`SHORT`](Self::SHORT), and then the disk is full.
    pub(crate) const SHORT_AND_FULL: i32 = -4;
    /// As [`SHORT`](Self::SHORT), and then the disk fails.
    pub(crate) const SHORT_AND_FAILING: i32 = -5;
    /// As [`SHORT`](Self::SHORT), and then nothing is taken any more.
    pub(crate) const SHORT_AND_IDLE: i32 = -6;

    pub(crate) fn next(&self, action: &'static str, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.count += 1;
        state.calls.clear();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        state.trace.push(format!("{action} {name}"));
        let fails =
            state.count == state.fail_at || (state.persistent && state.count > state.fail_at);
        let count = state.count;
        let is_of_log = path.extension().is_some_and(|kind| kind == "log");
        if state.log_syncs_left > 0 && action == "synchronise" && is_of_log {
            state.log_syncs_left -= 1;
            if state.log_syncs_left == 0 {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
        }
        if let Some((_, errno)) = state.faults.iter().find(|(at, _)| *at == count) {
            return Err(io::Error::from_raw_os_error(*errno));
        }
        if fails && state.errno == Script::PANIC {
            drop(state);
            panic!("on purpose");
        }
        if fails && state.errno == Script::SLOW {
            drop(state);
            std::thread::sleep(std::time::Duration::from_millis(2));
            return Ok(());
        }
        let errno = state.errno;
        if fails { state.fail(errno) } else { Ok(()) }
    }

    /// Gives what the next call of an effect or a read takes of what it is given.
    pub(crate) fn part(&self, whole: Range<usize>) -> io::Result<Range<usize>> {
        let mut state = self.state.lock().unwrap();
        let call = state.calls.pop().or_else(|| state.falters());
        state.cut_short += u64::from(call.is_some());
        match call {
            None => Ok(whole),
            Some(Call::TakesPart) => Ok(whole.start..whole.start + whole.len().div_ceil(2)),
            Some(Call::TakesNothing) => Ok(whole.start..whole.start),
            Some(Call::Fails(errno)) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// How many calls did not do what they were to do.
    pub(crate) fn cut_short(&self) -> u64 {
        self.state.lock().unwrap().cut_short
    }

    /// Lets calls come short now and then.
    pub(crate) fn falter(&self, seed: u64) {
        self.state.lock().unwrap().faltering = Some(seed | 1);
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

    /// Has one more effect fail, once: the n-th from now on.
    pub(crate) fn arm_once_more(&self, from_now: u64, errno: i32) {
        let mut state = self.state.lock().unwrap();
        let at = state.count + from_now;
        state.faults.push((at, errno));
    }

    /// Has the n-th sync of a segment from now on fail, once.
    pub(crate) fn arm_sync_of_log(&self, from_now: u64) {
        self.state.lock().unwrap().log_syncs_left = from_now;
    }

    /// Puts something between the effects in the trace.
    pub(crate) fn note(&self, what: String) {
        self.state.lock().unwrap().trace.push(what);
    }

    /// Tells whether nothing takes effect any more.
    pub(crate) fn has_died(&self) -> bool {
        self.state.lock().unwrap().has_died()
    }

    /// Forgets what was armed, for another life on the same disk.
    pub(crate) fn revive(&self) {
        let mut state = self.state.lock().unwrap();
        state.fail_at = u64::MAX;
        state.persistent = false;
        state.faults.clear();
        self.device.lock().unwrap().closed_unsynced.clear();
        state.log_syncs_left = 0;
        state.trace.clear();
        state.access_trace.clear();
    }

    /// Has a part of what was changed lost for good when a sync fails, and writes that fail torn anywhere.
    pub(crate) fn lose_at_failed_syncs(&self, seed: u64) {
        self.state.lock().unwrap().chance = Some(Chance(seed | 1));
    }

    pub(crate) fn plant(&self, bug: Option<Planted>) {
        self.state.lock().unwrap().planted = bug;
    }

    pub(crate) fn has(&self, bug: Planted) -> bool {
        self.state.lock().unwrap().planted == Some(bug)
    }

    pub(crate) fn next_access(&self, action: &'static str, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.access_count += 1;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        state.access_trace.push(format!("{action} {name}"));
        state.calls.clear();
        let (doomed, left) = state.doomed;
        if left > 0 && state.access_trace.last().is_some_and(|access| access.contains(doomed)) {
            state.doomed.1 -= 1;
            if left == 1 {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
        }
        let fails = state.access_count == state.access_fails_at;
        let errno = state.access_errno;
        if fails { state.fail(errno) } else { Ok(()) }
    }

    /// Lets the n-th access from now on fail, once, of those in whose name something occurs.
    pub(crate) fn arm_access_to(&self, what: &'static str, from_now: u64) {
        self.state.lock().unwrap().doomed = (what, from_now);
    }

    /// How much was opened, read, listed and mapped so far.
    pub(crate) fn access_count(&self) -> u64 {
        self.state.lock().unwrap().access_count
    }

    pub(crate) fn access_trace(&self) -> Vec<String> {
        self.state.lock().unwrap().access_trace.clone()
    }

    /// Lets the n-th access from now on fail, once.
    pub(crate) fn arm_access(&self, from_now: u64, errno: i32) {
        let mut state = self.state.lock().unwrap();
        state.access_fails_at = state.access_count + from_now;
        state.access_errno = errno;
    }

    /// Gives how much of a write that fails gets into the file.
    pub(crate) fn torn_len(&self, len: usize) -> usize {
        match &mut self.state.lock().unwrap().chance {
            Some(chance) => chance.below(len as u64 + 1) as usize,
            None => len / 2,
        }
    }

    /// Leaves a part of a store that was cut short.
    pub(crate) fn tear_store(&self, file: &OpenFile, bytes: &[u8], position: u64) {
        let is_by_chance = self.state.lock().unwrap().chance.is_some();
        if is_by_chance {
            let torn = &bytes[..self.torn_len(bytes.len())];
            file.write_all_at(torn, position).unwrap_or_default();
        }
    }

    pub(crate) fn trace(&self) -> Vec<String> {
        self.state.lock().unwrap().trace.clone()
    }

    pub(crate) fn will_change(&self, file: &OpenFile) {
        let mut device = self.device.lock().unwrap();
        let unsynced = device.begin_write(file, 0, usize::MAX);
        let bytes = file.bytes();
        if unsynced.durable != bytes && unsynced.between.last() != Some(&bytes) {
            unsynced.between.push(bytes);
        }
    }

    pub(crate) fn will_write(&self, file: &OpenFile, position: u64, len: usize) {
        self.device.lock().unwrap().begin_write(file, position, len);
    }

    /// What the cache shows now is durable once the sync is through, which it will be; what somebody changes
    /// meanwhile is not.
    pub(crate) fn sync_begins(&self, file: &OpenFile, path: &Path) {
        let facts = file.facts().unwrap();
        let mut device = self.device.lock().unwrap();
        if let Some(unsynced) = device.files.get_mut(&facts.inode) {
            if unsynced.lost.is_empty() {
                device.files.remove(&facts.inode);
            } else {
                let cached = file.bytes();
                let lost = unsynced.lost.clone();
                write_back(&mut unsynced.durable, &cached, |sector| !lost.contains(&sector));
                unsynced.between.clear();
                unsynced.lengths.clear();
            }
        }
        drop(device);
        let meanwhile = self.meanwhile.lock().unwrap().clone();
        if let Some(meanwhile) = meanwhile {
            meanwhile.0(path);
        }
    }

    /// Sets what somebody does while a file is being synchronised.
    pub(crate) fn during_syncs(&self, meanwhile: Option<Meanwhile>) {
        *self.meanwhile.lock().unwrap() = meanwhile;
    }

    /// A part of what was changed is on the device, the rest counts as clean.
    pub(crate) fn sync_has_failed(&self, file: &OpenFile) {
        let mut state = self.state.lock().unwrap();
        let has_died = state.has_died();
        let Some(chance) = state.chance.as_mut().filter(|_| !has_died) else { return };
        let facts = file.facts().unwrap();
        let mut device = self.device.lock().unwrap();
        if let Some(Unsynced { durable, between, lost, .. }) = device.files.get_mut(&facts.inode) {
            between.clear();
            let cached = file.bytes();
            write_back(durable, &cached, |sector| {
                let is_written = !lost.contains(&sector) && chance.below(2) == 0;
                if !is_written {
                    lost.insert(sector);
                }
                is_written
            });
        }
    }

    /// Tells whether a failed sync has lost something that the cache still shows.
    pub(crate) fn has_lost(&self) -> bool {
        self.device.lock().unwrap().files.values().any(|unsynced| !unsynced.lost.is_empty())
    }

    /// What the cache shows of what was lost is shown no more.
    pub(crate) fn will_drop_clean(&self, file: &OpenFile) {
        let facts = file.facts().unwrap();
        let mut device = self.device.lock().unwrap();
        let Some(unsynced) = device.files.get_mut(&facts.inode) else { return };
        for sector in std::mem::take(&mut unsynced.lost) {
            let start = sector * SECTOR_LEN;
            let end = (start + SECTOR_LEN).min(unsynced.durable.len()).min(facts.len as usize);
            if start < end {
                file.write_all_at(&unsynced.durable[start..end], start as u64).unwrap_or_default();
            }
        }
    }

    /// A failed sync is told only to descriptors that were open before: a segment's is to be closed after a sync.
    pub(crate) fn will_close(&self, file: &OpenFile, path: &Path) {
        let state = self.state.lock().unwrap();
        let has_died = state.has_died();
        drop(state);
        let facts = file.facts().unwrap();
        let is_segment = path.extension().is_some_and(|e| e == "log") && facts.is_linked;
        let mut device = self.device.lock().unwrap();
        let unsynced = device.files.get(&facts.inode).filter(|_| is_segment && !has_died);
        let Some(Unsynced { durable, .. }) = unsynced else { return };
        let cached = file.bytes();
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
        if !self.medium.exists(path) {
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

    pub(crate) fn will_remove_tree(&self, path: &Path) {
        let mut files = Vec::new();
        if self.medium.is_directory(path) {
            self.medium.find_files(path, &mut |path, _| {
                let bytes = self.durable_bytes(path).unwrap_or_default();
                files.push((path.file_name().unwrap().into(), bytes));
            });
            self.device.lock().unwrap().names.push(Naming::TreeRemoved(path.to_path_buf(), files));
        }
    }

    pub(crate) fn directory_is_durable(&self, path: &Path) {
        self.device.lock().unwrap().names.retain(|naming| naming.directory() != path);
    }

    /// Takes back what a power cut takes, `chance` giving numbers below its argument. The machine starts anew afterwards.
    pub(crate) fn cut_power(&self, root: &Path, chance: &mut impl FnMut(u64) -> u64) {
        self.cut_power_into(root, root, chance);
        *self.device.lock().unwrap() = Device::default();
    }

    /// Puts into `target` what a power cut would leave of `root`, which stays as it is. The machine starts anew afterwards.
    pub(crate) fn cut_power_into(
        &self,
        root: &Path,
        target: &Path,
        chance: &mut impl FnMut(u64) -> u64,
    ) {
        let device = self.device.lock().unwrap();
        if !self.medium.exists(root) {
            return;
        }
        let is_elsewhere = root != target;
        let mut changed = Vec::new();
        self.medium.find_files(root, &mut |path, inode| changed.push((inode, path.to_path_buf())));
        // In the order in which they were made, where inodes are numbered so: some names are made up at random.
        changed.sort();
        if is_elsewhere {
            copy_directories(&self.medium, root, target);
        }
        for (inode, path) in changed {
            let to = target.join(path.strip_prefix(root).unwrap());
            match device.files.get(&inode) {
                Some(unsynced) => {
                    let Unsynced { durable, lost, .. } = unsynced;
                    let mut cached = self.medium.read(&path).unwrap();
                    // What counts as clean is not written any more.
                    for sector in lost {
                        let start = (sector * SECTOR_LEN).min(cached.len());
                        let end = (start + SECTOR_LEN).min(cached.len()).min(durable.len());
                        if start < end {
                            cached[start..end].copy_from_slice(&durable[start..end]);
                        }
                    }
                    let survivors = survivors(&cached, unsynced, chance);
                    self.medium.write(&to, survivors).unwrap();
                }
                None if is_elsewhere => self.medium.copy_file(&path, &to).unwrap(),
                None => {}
            }
        }
        let mut directories: Vec<&Path> = Vec::new();
        for directory in device.names.iter().map(|naming| naming.directory()) {
            if !directories.contains(&directory) {
                directories.push(directory);
            }
        }
        for directory in directories {
            let happened =
                device.names.iter().filter(|naming| naming.directory() == directory).collect();
            for naming in lost_names(happened, chance).into_iter().rev() {
                take_back(&self.medium, naming.moved(root, target));
            }
        }
        let lock = target.join(file_name::LOCK);
        if self.medium.exists(&lock) {
            self.medium.write(&lock, b"pid=1\nboot=another\n".to_vec()).unwrap();
        }
    }

    /// What happened in directories since their last sync.
    pub(super) fn names(&self) -> Vec<Naming> {
        self.device.lock().unwrap().names.clone()
    }

    /// What there is to know of a file of which the cache shows more than the device holds; by inode.
    pub(super) fn unsynced(&self, inode: u64) -> Option<Unsynced> {
        self.device.lock().unwrap().files.get(&inode).cloned()
    }

    fn durable_bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let facts = self.medium.facts(path).ok();
        let inode = facts.filter(|facts| facts.kind == Kind::File)?.inode;
        let device = self.device.lock().unwrap();
        let durable = device.files.get(&inode).map(|unsynced| unsynced.durable.clone());
        drop(device);
        durable.or_else(|| self.medium.read(path).ok())
    }
}

/// Brings the device up to the cache, but for the sectors that are not written.
fn write_back(durable: &mut Vec<u8>, cached: &[u8], mut is_written: impl FnMut(usize) -> bool) {
    durable.resize(cached.len(), 0);
    for (sector, bytes) in durable.chunks_mut(SECTOR_LEN).enumerate() {
        let start = sector * SECTOR_LEN;
        let cached = &cached[start..start + bytes.len()];
        if bytes != cached && is_written(sector) {
            bytes.copy_from_slice(cached);
        }
    }
}

/// Gives what a power cut loses of what happened in one directory: all from some point on, or any of it together
/// with all that depends on it, having to do with the same names.
fn lost_names<'n>(
    happened: Vec<&'n Naming>,
    chance: &mut impl FnMut(u64) -> u64,
) -> Vec<&'n Naming> {
    if chance(2) == 0 || is_swapping(&happened) {
        let kept = chance(happened.len() as u64 + 1) as usize;
        return happened[kept..].to_vec();
    }
    let mut lost: Vec<&Naming> = Vec::new();
    for naming in happened {
        let paths = naming.paths();
        let depends = lost.iter().any(|lost| lost.paths().iter().any(|path| paths.contains(path)));
        if depends || chance(2) == 0 {
            lost.push(naming);
        }
    }
    lost
}

/// The steps of a swap rely on the order of the names in one directory.
pub(super) fn is_swapping(happened: &[&Naming]) -> bool {
    let is_swap = |path: &&Path| {
        let kind = path.extension().and_then(|kind| kind.to_str());
        kind.is_some_and(|kind| ["cleaned", "swap", "deleted"].contains(&kind))
    };
    happened.iter().any(|naming| naming.paths().iter().any(is_swap))
}

/// Gives the bytes of a file after a power cut, from those in the cache and those on the device.
fn survivors(cached: &[u8], unsynced: &Unsynced, chance: &mut impl FnMut(u64) -> u64) -> Vec<u8> {
    let Unsynced { durable, between, lengths, .. } = unsynced;
    let len = match chance(4) {
        0 | 1 => cached.len(),
        3 if !lengths.is_empty() => {
            *lengths.iter().nth(chance(lengths.len() as u64) as usize).unwrap_or(&durable.len())
        }
        _ => durable.len(),
    };
    let style = chance(4);
    let sectors = len.div_ceil(SECTOR_LEN);
    let prefix = chance(sectors as u64 + 1) as usize;
    let mut bytes = durable.clone();
    bytes.resize(len.max(durable.len()), 0);
    for sector in 0..sectors {
        let survives = match style {
            0 => false,
            1 => sector < prefix,
            2 => chance(2) == 0,
            _ => chance(8) != 0,
        };
        let later = match chance(8) {
            0 if !between.is_empty() => &between[chance(between.len() as u64) as usize],
            _ => cached,
        };
        let start = sector * SECTOR_LEN;
        let mut end = (start + SECTOR_LEN).min(later.len()).min(bytes.len());
        if !survives || start >= end {
            continue;
        }
        if chance(16) == 0 {
            // A sector that is torn itself.
            end = start + chance((end - start) as u64 + 1) as usize;
        }
        bytes[start..end].copy_from_slice(&later[start..end]);
    }
    bytes.truncate(len);
    bytes
}

fn take_back(medium: &Medium, naming: Naming) {
    match naming {
        Naming::Created(path) if medium.is_directory(&path) => medium.remove_tree(&path).unwrap(),
        Naming::Created(path) => medium.remove_file(&path).unwrap_or_default(),
        Naming::Renamed(from, to, replaced) => {
            if medium.exists(&to) && medium.exists(disk::parent(&from)) {
                medium.rename(&to, &from).unwrap();
            }
            if let Some(bytes) = replaced.filter(|_| medium.exists(disk::parent(&to))) {
                medium.write(&to, bytes).unwrap();
            }
        }
        Naming::Exchanged(one, other) => medium.exchange(&one, &other).unwrap(),
        Naming::Removed(path, bytes) => {
            if medium.exists(disk::parent(&path)) {
                medium.write(&path, bytes).unwrap();
            }
        }
        Naming::TreeRemoved(path, files) => {
            if medium.exists(disk::parent(&path)) && !medium.exists(&path) {
                medium.create_directories(&path);
                for (name, bytes) in files {
                    medium.write(&path.join(name), bytes).unwrap();
                }
            }
        }
    }
}

fn copy_directories(medium: &Medium, from: &Path, to: &Path) {
    medium.create_directories(to);
    for entry in medium.entries(from).unwrap() {
        if entry.is_directory {
            copy_directories(medium, &from.join(&entry.name), &to.join(&entry.name));
        }
    }
}

/// Copies a directory with everything in it, which may be in use, for a look that must change nothing.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    Medium::System.copy_tree(from, to);
}

/// Copies a directory beside itself, in place of what was there under that name.
pub(crate) fn fresh_copy(from: &Path, name: &str) -> PathBuf {
    Medium::System.fresh_copy(from, name)
}

pub(super) const SECTOR_LEN: usize = 512;

/// What is known of a file and what is noted of it next were two steps. A sync between them left a file of which nothing
/// was taken for durable, and the next power cut took what had been so for lives: in a few of ten thousand lineages on a
/// busy machine, and it looked like a loss of the store's.
#[test]
fn a_sync_beside_a_change_does_not_make_what_is_durable_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.log");
    std::fs::write(&path, [7; 4 * SECTOR_LEN]).unwrap();
    let disk = Disk::failing_once(u64::MAX, 0);
    let file = OpenFile::System(std::fs::File::open(&path).unwrap());
    let rounds = 20_000;
    std::thread::scope(|scope| {
        scope.spawn(|| (0..rounds).for_each(|_| disk.script().will_change(&file)));
        scope.spawn(|| (0..rounds).for_each(|_| disk.script().sync_begins(&file, &path)));
        let inode = file.facts().unwrap().inode;
        for _ in 0..rounds {
            let known = disk.script().unsynced(inode);
            assert!(known.is_none_or(|known| known.durable == [7; 4 * SECTOR_LEN]));
        }
    });
}
