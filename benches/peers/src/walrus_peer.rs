//! walrus: a log per topic with one persisted read cursor, in its mapped mode, which is the quicker one here.
//!
//! It takes its directory from the environment or else puts `wal_files` into the current one; the environment must not
//! change while its threads read it, so the current directory does.

use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use walrus_rust::FsyncSchedule;
use walrus_rust::ReadConsistency;

use crate::latency;
use crate::payload::Touch;
use crate::payload::Values;
use crate::subject::Log;
use crate::subject::Outcome;
use crate::subject::Scan;
use crate::subject::Setup;
use crate::subject::Subject;
use crate::subject::Tail;
use crate::subject::Variant;
use crate::subject::Work;
use crate::subject::unsupported;

pub(crate) struct Walrus;

struct WalrusLog {
    log: walrus_rust::Walrus,
    dir: PathBuf,
    schedule: FsyncSchedule,
}

/// Keeps it from printing; to be called before there are other threads.
pub(crate) fn silence() {
    // SAFETY: `main` calls this first, while its thread is the only one.
    unsafe { std::env::set_var("WALRUS_QUIET", "1") };
    walrus_rust::disable_fd_backend();
}

impl Subject for Walrus {
    fn name(&self) -> &'static str {
        "walrus-rust"
    }

    fn guarantee(&self) -> &'static str {
        "append: kill -9; SyncEach: power loss; failed writes are ignored in its other mode; reading: FNV-1a of each record"
    }

    fn variants(&self, work: Work) -> Vec<Variant> {
        match work {
            Work::Linger | Work::Commit => vec![],
            _ => vec![Variant::PLAIN],
        }
    }

    fn open(&self, setup: &Setup<'_>) -> Outcome<Box<dyn Log>> {
        if setup.work == Work::Points {
            return unsupported("has no reads by position");
        }
        let schedule = match setup.work {
            Work::Synced => FsyncSchedule::SyncEach,
            _ => FsyncSchedule::NoFsync,
        };
        let log = opened(setup.dir, schedule)?;
        let dir = setup.dir.to_path_buf();
        Ok(Box::new(WalrusLog { log, dir, schedule }))
    }
}

/// Opens the directory with the cursor at the beginning.
fn opened(dir: &Path, schedule: FsyncSchedule) -> Outcome<walrus_rust::Walrus> {
    std::env::set_current_dir(dir)?;
    let cursor = dir.join("wal_files").join(KEY).join("read_offset_idx_index.db");
    if cursor.exists() {
        std::fs::remove_file(cursor)?;
    }
    // The cursor is hardly ever persisted: once in so many reads.
    let consistency = ReadConsistency::AtLeastOnce { persist_every: u32::MAX };
    Ok(walrus_rust::Walrus::with_consistency_and_schedule_for_key(KEY, consistency, schedule)?)
}

impl Log for WalrusLog {
    fn send(&self, value: &[u8]) -> Outcome {
        self.log.append_for_topic(TOPIC, value)?;
        Ok(())
    }

    fn append_batch(&self, values: Values<'_>) -> Outcome {
        let values: Vec<&[u8]> = values.collect();
        self.log.batch_append_for_topic(TOPIC, &values)?;
        Ok(())
    }

    fn send_synced(&self, value: &[u8], _thread: u32) -> Outcome {
        self.send(value)
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        // There is one cursor for all readers, so to read again is to open again. Besides, a reader beside a writer skips
        // what is left of a block if a read ends within it.
        Ok(Box::new(WalrusScan { log: opened(&self.dir, self.schedule)? }))
    }

    fn tail(&self) -> Outcome<Box<dyn Tail + Send + '_>> {
        Ok(Box::new(WalrusTail { log: &self.log }))
    }

    fn close(self: Box<Self>) -> Outcome {
        Ok(())
    }
}

impl Drop for WalrusLog {
    fn drop(&mut self) {
        // The directory is about to be removed, and others ask for the current one. The root is always there.
        std::env::set_current_dir("/").unwrap_or_default();
    }
}

struct WalrusScan {
    log: walrus_rust::Walrus,
}

impl Scan for WalrusScan {
    fn next(&mut self, touch: &mut Touch) -> Outcome<bool> {
        let entries = self.log.batch_read_for_topic(TOPIC, SCAN_LEN, true)?;
        for entry in &entries {
            touch.take(&entry.data);
        }
        Ok(!entries.is_empty())
    }
}

struct WalrusTail<'l> {
    log: &'l walrus_rust::Walrus,
}

impl Tail for WalrusTail<'_> {
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> Outcome {
        let begun = Instant::now();
        loop {
            let entries = self.log.batch_read_for_topic(TOPIC, SCAN_LEN, true)?;
            for entry in &entries {
                each(&entry.data);
            }
            if !entries.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > latency::LOST_AFTER {
                return Err(latency::lost());
            }
            // There is nothing to wait for: its users poll.
            thread::sleep(Duration::from_micros(50));
        }
    }
}

const KEY: &str = "k";
const TOPIC: &str = "t";
const SCAN_LEN: usize = 1 << 20;
