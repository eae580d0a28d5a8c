//! Real file systems in files, which fill up, fail, and lose their power: root, Linux, and their tools only.
//!
//! What cannot be done here is said to be skipped, and `.ci/run` counts what was.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that fails should say where")]
use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

/// Which file system, and how large the smallest is that its tools make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ext4,
    Xfs,
    Btrfs,
}

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::Ext4, Kind::Xfs, Kind::Btrfs];

    pub(crate) fn mkfs(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Kind::Ext4 => ("mkfs.ext4", &["-q", "-F"]),
            Kind::Xfs => ("mkfs.xfs", &["-q", "-f"]),
            Kind::Btrfs => ("mkfs.btrfs", &["-q", "-f"]),
        }
    }

    pub(crate) fn len(self) -> u64 {
        match self {
            Kind::Ext4 => 64 << 20,
            Kind::Xfs => 300 << 20,
            Kind::Btrfs => 128 << 20,
        }
    }
}

pub(crate) fn runs(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

pub(crate) fn skipped(why: &str) {
    println!("SKIPPED: {why}");
}

/// A file system in a file, mounted until it is dropped.
pub(crate) struct Mounted {
    // Goes before the directory it is mounted in.
    device: Option<FailingDevice>,
    directory: tempfile::TempDir,
}

impl Mounted {
    /// `None` where this cannot be done, having said so.
    pub(crate) fn new(kind: Kind) -> Option<Mounted> {
        Mounted::of_len(kind, kind.len())
    }

    pub(crate) fn of_len(kind: Kind, len: u64) -> Option<Mounted> {
        let directory = tempfile::tempdir().unwrap();
        fs::File::create(directory.path().join("image")).unwrap().set_len(len).unwrap();
        Mounted::made(kind, directory, None)
    }

    /// On a device that takes no writes while it [fails](Self::fail), and gives nothing while it
    /// [does not read](Self::fail_reads).
    pub(crate) fn failing(kind: Kind) -> Option<Mounted> {
        let directory = tempfile::tempdir().unwrap();
        let device = FailingDevice::start(directory.path(), kind.len())?;
        Mounted::made(kind, directory, Some(device))
    }

    fn made(
        kind: Kind,
        directory: tempfile::TempDir,
        device: Option<FailingDevice>,
    ) -> Option<Mounted> {
        let mounted = Mounted { device, directory };
        fs::create_dir(mounted.path()).unwrap();
        let (program, arguments) = kind.mkfs();
        let image = mounted.image();
        if !runs(program, &[arguments, &[image.to_str().unwrap()]].concat()) {
            skipped(&format!("{program} is missing, or fails"));
            return None;
        }
        if !mounted.mount() {
            skipped(&format!("{kind:?} cannot be mounted from a file here, as root only"));
            return None;
        }
        Some(mounted)
    }

    fn image(&self) -> PathBuf {
        match &self.device {
            Some(device) => device.file.path(),
            None => self.directory.path().join("image"),
        }
    }

    pub(crate) fn mount(&self) -> bool {
        let image = self.image();
        runs("mount", &["-o", "loop", image.to_str().unwrap(), self.path().to_str().unwrap()])
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("m")
    }

    pub(crate) fn unmount(&self) -> bool {
        unmount(&self.path())
    }

    /// Cuts the power: what is not on the device is not written any more.
    #[allow(unsafe_code, reason = "there is no safe wrapper for this")]
    pub(crate) fn shut_down(&self) -> std::io::Result<()> {
        // Without writing the journal out, as `_IOR('X', 125, __u32)` is to be told; ext4 took it over from XFS.
        const SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
        const NO_LOG_FLUSH: u32 = 2;
        let directory = fs::File::open(self.path())?;
        let how = NO_LOG_FLUSH;
        // SAFETY: the kernel reads one `u32` through the pointer, which outlives the call.
        let outcome = unsafe { libc::ioctl(directory.as_raw_fd(), SHUTDOWN, &how) };
        if outcome == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    }

    /// From now on no write reaches the device, or all do again.
    pub(crate) fn fail(&self, fails: bool) {
        set(&self.device.as_ref().unwrap().no_writes, fails);
    }

    /// From now on nothing is read from the device, or everything is again. What is in memory is not asked for.
    pub(crate) fn fail_reads(&self, fails: bool) {
        set(&self.device.as_ref().unwrap().no_reads, fails);
    }

    /// Fills it but for some MiB, and gives what to remove to have space again.
    pub(crate) fn fill(&self, left: usize) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for n in 0.. {
            let file = self.path().join(format!("ballast-{n}"));
            let is_full = fs::write(&file, vec![1; 1 << 20]).is_err();
            files.push(file);
            if is_full {
                break;
            }
        }
        for _ in 0..=left.min(files.len() - 1) {
            fs::remove_file(files.pop().unwrap()).unwrap();
        }
        // Or the space of what was removed is given back by and by.
        runs("sync", &["-f", self.path().to_str().unwrap()]);
        files
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.device.is_some() {
            // Or what is dirty cannot be written, and the unmounting waits for ever.
            self.fail(false);
            self.fail_reads(false);
        }
        self.unmount();
    }
}

fn set(flag: &Path, is_set: bool) {
    if is_set {
        fs::write(flag, "").unwrap();
    } else {
        fs::remove_file(flag).unwrap_or_default();
    }
}

pub(crate) fn unmount(path: &Path) -> bool {
    // Somebody who looks at all there is, an indexer, may have it open for a moment.
    (0..50).any(|attempt| {
        thread::sleep(Duration::from_millis(20 * attempt.min(5)));
        runs("umount", &[path.to_str().unwrap()])
    })
}

/// A block device that `nbdfuse` shows as a file, until it is dropped.
pub(crate) struct NbdFile {
    mounted: PathBuf,
    client: Child,
}

impl NbdFile {
    /// `None` where this cannot be done, having said so. The arguments say what to show.
    pub(crate) fn start(directory: &Path, arguments: &[&str]) -> Option<NbdFile> {
        if !runs("nbdfuse", &["--version"]) {
            skipped("nbdfuse is missing");
            return None;
        }
        let mounted = directory.join("d");
        fs::create_dir(&mounted).unwrap();
        let client = Command::new("nbdfuse")
            .arg(&mounted)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(client) = client else {
            skipped("nbdfuse cannot be run");
            return None;
        };
        let file = NbdFile { mounted, client };
        for _ in 0..200 {
            if file.path().exists() {
                return Some(file);
            }
            thread::sleep(Duration::from_millis(20));
        }
        skipped("nbdfuse shows no device here");
        None
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.mounted.join("nbd")
    }
}

impl Drop for NbdFile {
    fn drop(&mut self) {
        unmount(&self.mounted);
        drop((self.client.kill(), self.client.wait()));
    }
}

/// A block device in memory whose writes fail as long as a file is there, and its reads as long as another is: `nbdkit`.
struct FailingDevice {
    file: NbdFile,
    no_writes: PathBuf,
    no_reads: PathBuf,
}

impl FailingDevice {
    fn start(directory: &Path, len: u64) -> Option<FailingDevice> {
        if !runs("nbdkit", &["--version"]) {
            skipped("nbdkit is missing");
            return None;
        }
        let [no_writes, no_reads] = ["no-writes", "no-reads"].map(|name| directory.join(name));
        let (len, pwrite, pread) = (
            len.to_string(),
            format!("error-pwrite-file={}", no_writes.display()),
            format!("error-pread-file={}", no_reads.display()),
        );
        let server = ["--socket-activation", "nbdkit", "--filter=error", "memory", &len];
        let errors = ["error=EIO", "error-rate=0%", "error-pwrite-rate=100%"];
        let files = ["error-pread-rate=100%", &pwrite, &pread];
        let file = NbdFile::start(directory, &[&server[..], &errors, &files].concat())?;
        Some(FailingDevice { file, no_writes, no_reads })
    }
}
