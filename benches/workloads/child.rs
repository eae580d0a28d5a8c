//! A second process that appends until it is killed.
//!
//! The child writes how many records were acknowledged into a mapped file, so that the parent knows the number to
//! the record however the child dies.

use std::fs::OpenOptions;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use memmap2::MmapMut;

use crate::payload::Payload;
use crate::reopen::CHILD_PATIENCE;
use crate::runner::Cell;
use crate::subject::Outcome;
use crate::subject::Setup;
use crate::subject::Subject;
use crate::subject::Variant;
use crate::subject::Work;
use crate::subject::failed;

/// The first argument of a process that is a child.
pub(crate) const ARGUMENT: &str = "--child";

/// Runs a child that appends until it is killed, kills it, and gives how many records were acknowledged.
pub(crate) fn appended_and_killed(cell: &Cell<'_>) -> Outcome<u64> {
    let counter_path = counter_path(cell.setup.dir);
    let counter = Counter::open(&counter_path)?;
    let mut child = command(cell)?.stdout(Stdio::null()).spawn()?;
    let begun = Instant::now();
    let patience = cell.patience;
    let mut begun_appending = None;
    let ended = loop {
        let count = counter.load();
        if count > 0 && begun_appending.is_none() {
            begun_appending = Some(Instant::now());
        }
        let is_long_enough = begun_appending.is_some_and(|at| at.elapsed() > patience);
        if count >= cell.setup.records || is_long_enough {
            break Ok(());
        }
        if let Some(status) = child.try_wait()? {
            break failed(format!("the child ended by itself: {status}"));
        }
        if begun.elapsed() > CHILD_PATIENCE + patience {
            break failed("the child did not append");
        }
        thread::sleep(Duration::from_micros(200));
    };
    child.kill()?;
    child.wait()?;
    ended?;
    let acknowledged = counter.load();
    drop(counter);
    std::fs::remove_file(&counter_path)?;
    Ok(acknowledged)
}

/// What the child does; `words` are the arguments behind `--child`.
pub(crate) fn run(subjects: &[&dyn Subject], words: &[String]) -> Outcome {
    let [name, dir, seed, value_len, records] = words else {
        return failed("a child is given other arguments");
    };
    let Some(subject) = subjects.iter().find(|subject| subject.name() == name) else {
        return failed(format!("no subject is named {name}"));
    };
    let payload = Arc::new(Payload::new(seed.parse()?, value_len.parse()?));
    let setup = Setup {
        dir: Path::new(dir),
        payload: &payload,
        records: records.parse()?,
        work: Work::Kill,
        partitions: 1,
        variant: Variant::PLAIN,
    };
    let counter = Counter::open(&counter_path(setup.dir))?;
    let log = subject.open(&setup)?;
    // A parent that died would leave the child appending until the disk is full.
    for (value, count) in setup.payload.values(0, setup.records * 8).zip(1..) {
        log.send(value)?;
        counter.store(count);
    }
    failed("nobody killed the child")
}

fn command(cell: &Cell<'_>) -> Outcome<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([ARGUMENT, cell.subject.name()]).arg(cell.setup.dir);
    command.arg(cell.seed.to_string());
    command.arg(cell.setup.payload.value_len().to_string());
    command.arg(cell.setup.records.to_string());
    command.stdin(Stdio::null());
    Ok(command)
}

/// Beside the directory: some subjects do not suffer a foreign file in it.
fn counter_path(dir: &Path) -> PathBuf {
    dir.with_extension("acknowledged")
}

/// A number in a file that two processes have mapped.
struct Counter {
    map: MmapMut,
}

impl Counter {
    fn open(path: &Path) -> Outcome<Counter> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        file.set_len(8)?;
        #[expect(unsafe_code, reason = "a mapping can only be made so")]
        // SAFETY: nobody truncates the file while parent and child have it mapped.
        let map = unsafe { MmapMut::map_mut(&file) }?;
        Ok(Counter { map })
    }

    fn load(&self) -> u64 {
        self.number().load(Ordering::Acquire)
    }

    fn store(&self, number: u64) {
        self.number().store(number, Ordering::Release);
    }

    fn number(&self) -> &AtomicU64 {
        #[expect(unsafe_code, reason = "the bytes are shared with another process")]
        // SAFETY: the mapping is page-aligned, 8 bytes long at least, lives as long as `self`, and is accessed
        // through this atomic only.
        unsafe {
            AtomicU64::from_ptr(self.map.as_ptr().cast_mut().cast())
        }
    }
}
