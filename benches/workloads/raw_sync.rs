//! `pwrite` and `fdatasync` into blocks that were written before: one sync for all who wait, and one after the other.

use std::fs::File;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::payload::Touch;
use crate::payload::Values;
use crate::raw;
use crate::raw::FileScan;
use crate::subject::Log;
use crate::subject::Outcome;
use crate::subject::Scan;
use crate::subject::Setup;
use crate::subject::Subject;
use crate::subject::Variant;
use crate::subject::Work;
use crate::subject::failed;

/// The first who waits syncs for all who have written before.
pub(crate) struct RawGroupCommit;
/// One `fdatasync` for each partition, in a row.
pub(crate) struct RawSyncs;

/// Makes a file whose blocks are written, all zeros.
fn prepared(path: &Path, len: usize) -> Outcome<File> {
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..len.div_ceil(zeros.len()) {
        file.write_all(&zeros)?;
    }
    file.sync_all()?;
    Ok(file)
}

impl Subject for RawGroupCommit {
    fn name(&self) -> &'static str {
        "raw-group-commit"
    }

    fn guarantee(&self) -> &'static str {
        "pwrite + one fdatasync for all who wait, into prepared blocks: power loss"
    }

    fn variants(&self, work: Work) -> Vec<Variant> {
        raw::only(work == Work::Synced)
    }

    fn open(&self, setup: &Setup<'_>) -> Outcome<Box<dyn Log>> {
        let path = raw::data_path(setup.dir);
        let frame_len = raw::PREFIX_LEN + setup.payload.value_len();
        let file = prepared(&path, setup.records as usize * frame_len)?;
        let state = State { frame: Vec::new(), written: 0, synced: 0, is_syncing: false };
        Ok(Box::new(GroupLog { file, state: Mutex::new(state), moved: Condvar::new(), path }))
    }
}

struct GroupLog {
    file: File,
    state: Mutex<State>,
    moved: Condvar,
    path: PathBuf,
}

/// **Invariant (one leader).** `is_syncing` is set by the thread that syncs and by no other, and unset by it.
struct State {
    frame: Vec<u8>,
    written: u64,
    synced: u64,
    is_syncing: bool,
}

impl GroupLog {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for GroupLog {
    fn send(&self, value: &[u8]) -> Outcome {
        self.send_synced(value, 0)
    }

    fn send_synced(&self, value: &[u8], _thread: u32) -> Outcome {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.frame.clear();
        raw::push_frame(&mut state.frame, value);
        self.file.write_all_at(&state.frame, state.written)?;
        state.written += state.frame.len() as u64;
        let mine = state.written;
        while guard.synced < mine {
            if guard.is_syncing {
                guard = self.moved.wait(guard).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            guard.is_syncing = true;
            let upto = guard.written;
            drop(guard);
            let ended = self.file.sync_data();
            guard = self.lock();
            guard.is_syncing = false;
            ended?;
            guard.synced = upto;
            self.moved.notify_all();
        }
        Ok(())
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        Ok(Box::new(FileScan::open(&self.path)?))
    }

    fn close(self: Box<Self>) -> Outcome {
        Ok(())
    }
}

impl Subject for RawSyncs {
    fn name(&self) -> &'static str {
        "raw-syncs-in-a-row"
    }

    fn guarantee(&self) -> &'static str {
        "pwrite + fdatasync, file by file, into prepared blocks: power loss"
    }

    fn variants(&self, work: Work) -> Vec<Variant> {
        raw::only(work == Work::Commit)
    }

    fn open(&self, setup: &Setup<'_>) -> Outcome<Box<dyn Log>> {
        let frame_len = raw::PREFIX_LEN + setup.payload.value_len();
        let per_file = setup.records as usize / setup.partitions as usize;
        let mut files = Vec::new();
        for number in 0..setup.partitions {
            let path = setup.dir.join(number.to_string());
            files.push((prepared(&path, per_file * frame_len)?, path));
        }
        Ok(Box::new(SyncsLog { files, state: Mutex::new((Vec::new(), 0)) }))
    }
}

struct SyncsLog {
    files: Vec<(File, PathBuf)>,
    state: Mutex<(Vec<u8>, u64)>,
}

impl Log for SyncsLog {
    fn send(&self, _value: &[u8]) -> Outcome {
        failed("only commits")
    }

    fn commit(&self, values: Values<'_>) -> Outcome {
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (frame, position) = &mut *guard;
        for (value, (file, _)) in values.zip(&self.files) {
            frame.clear();
            raw::push_frame(frame, value);
            file.write_all_at(frame, *position)?;
        }
        for (file, _) in &self.files {
            file.sync_data()?;
        }
        *position += frame.len() as u64;
        Ok(())
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        let mut scans = Vec::new();
        for (_, path) in &self.files {
            scans.push(FileScan::open(path)?);
        }
        Ok(Box::new(SyncsScan { scans }))
    }

    fn close(self: Box<Self>) -> Outcome {
        Ok(())
    }
}

struct SyncsScan {
    scans: Vec<FileScan>,
}

impl Scan for SyncsScan {
    fn next(&mut self, touch: &mut Touch) -> Outcome<bool> {
        let mut is_more = false;
        for scan in &mut self.scans {
            is_more |= scan.next(touch)?;
        }
        Ok(is_more)
    }
}
