//! How long it takes to open a directory: after a clean close that must not grow with the bytes in it, and
//! barely with the segments; after a crash it is bounded by what lies above the recovery point.
//!
//! `cargo bench --bench opening`. The sizes take turns, so that what else the machine does hits all alike.

#![allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use ottla::Durability;
use ottla::Record;
use ottla::Store;
use ottla::TopicConfig;

const ROUNDS: usize = 21;

struct Case {
    what: &'static str,
    bytes: u64,
    segment_bytes: u32,
}

const CASES: [Case; 4] = [
    Case { what: "16 MiB in 1 segment", bytes: 16 << 20, segment_bytes: 64 << 20 },
    Case { what: "1 GiB in 16 segments", bytes: 1 << 30, segment_bytes: 64 << 20 },
    Case { what: "1 GiB in 128 segments", bytes: 1 << 30, segment_bytes: 8 << 20 },
    Case { what: "1 GiB in 1024 segments", bytes: 1 << 30, segment_bytes: 1 << 20 },
];

fn main() -> ottla::Result<()> {
    let root = std::env::temp_dir().join(format!("ottla-bench-opening-{}", std::process::id()));
    let directories: Vec<PathBuf> = (0..CASES.len()).map(|n| root.join(n.to_string())).collect();
    for (case, directory) in CASES.iter().zip(&directories) {
        fill(directory, case)?;
    }
    let mut clean: [Vec<Duration>; CASES.len()] = Default::default();
    let mut killed: [Vec<Duration>; CASES.len()] = Default::default();
    for _ in 0..ROUNDS {
        for (index, directory) in directories.iter().enumerate() {
            clean[index].push(timed_open(directory)?);
        }
    }
    for _ in 0..3 {
        for (index, directory) in directories.iter().enumerate() {
            // Without the marker the directory is what a killed process leaves.
            std::fs::remove_file(directory.join(".kafka_cleanshutdown")).unwrap_or_default();
            killed[index].push(timed_open(directory)?);
        }
    }
    for (index, case) in CASES.iter().enumerate() {
        let (clean, killed) = (spread(&mut clean[index]), spread(&mut killed[index]));
        println!("{:24} after a close {clean:>36}   after a crash {killed:>36}", case.what);
    }
    std::fs::remove_dir_all(&root).unwrap_or_default();
    Ok(())
}

fn fill(directory: &Path, case: &Case) -> ottla::Result<()> {
    let store = Store::builder(directory).durability(Durability::Buffered).open()?;
    let config = TopicConfig::new().segment_bytes(case.segment_bytes);
    let topic = store.create_topic("t", config)?;
    let partition = topic.partition(0)?;
    let producer = store.producer();
    let value = vec![7; 1024];
    for _ in 0..case.bytes / (100 * 1024) {
        producer.send_batch(&partition, (0..100).map(|_| Record::new(&value)))?;
    }
    drop((topic, partition));
    store.close()
}

/// Times an open until the first append is possible, checks that everything is there, and closes.
fn timed_open(directory: &Path) -> ottla::Result<Duration> {
    let begun = Instant::now();
    let store = Store::open(directory)?;
    let took = begun.elapsed();
    let (start, end) = store.topic("t")?.partition(0)?.watermarks()?;
    assert!(start == 0 && end > 16_000);
    store.close()?;
    Ok(took)
}

fn spread(times: &mut [Duration]) -> String {
    times.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let (min, median, max) = (times[0], times[times.len() / 2], times[times.len() - 1]);
    format!("{:.2} ms ({:.2}..{:.2})", ms(median), ms(min), ms(max))
}
