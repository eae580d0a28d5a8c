//! What the process used: processor time and memory.

use std::fs;
use std::time::Duration;

use rustix::time::ClockId;
use rustix::time::clock_gettime;

/// Gives the processor time of all threads so far, those that have ended included.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}

/// Gives the anonymous memory that is resident: not the log's own pages, which are the page cache's. `None`
/// where the system does not say.
pub(crate) fn anonymous_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
