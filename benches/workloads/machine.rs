//! What the system tells about this process and about files: processor time, memory, the page cache.

use std::fs;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Advice;
use rustix::time::ClockId;

use crate::subject::Outcome;
use crate::subject::failed;

/// User and system time of all threads so far, in seconds.
pub(crate) fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The process's memory that no file is behind, in bytes.
pub(crate) fn anonymous_len() -> Outcome<u64> {
    let text = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    match line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()) {
        Some(kib) => Ok(kib * 1024),
        None => failed("smaps_rollup does not tell the anonymous memory"),
    }
}

/// Waits until the disk has written all there is, and touches so much memory as far as a third of what is available.
pub(crate) fn settle(len: u64) -> Outcome {
    rustix::fs::sync();
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let Some(kib) = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok())
    else {
        return failed("meminfo does not tell the available memory");
    };
    let len = len.min(kib * 1024 / 3);
    drop(black_box(vec![1_u8; len as usize]));
    Ok(())
}

/// Writes the files out and takes their pages from the cache.
pub(crate) fn drop_from_cache(dir: &Path) -> Outcome {
    for path in files(dir)? {
        let file = File::open(path)?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// The bytes of all files below, holes left out.
pub(crate) fn files_len(dir: &Path) -> Outcome<u64> {
    let mut len = 0;
    for path in files(dir)? {
        let metadata = fs::metadata(path)?;
        len += metadata.len().min(metadata.blocks() * 512);
    }
    Ok(len)
}

/// The bytes of those files below whose names end like this.
pub(crate) fn files_len_of(dir: &Path, suffix: &str) -> Outcome<u64> {
    let mut len = 0;
    for path in files(dir)? {
        if path.to_string_lossy().ends_with(suffix) {
            len += fs::metadata(path)?.len();
        }
    }
    Ok(len)
}

fn files(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_path_buf()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                left.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}
