//! A log that runs for long in a fixed space. Not part of an ordinary run:
//!
//! ```text
//! cargo test --release --all-features --test it -- --ignored --nocapture soak
//! ```
//!
//! `OTTLA_SOAK_SECONDS` sets for how long, three minutes by default.
//!
//! How much there may be at a moment follows from what was set and what was written, not from how fast the machine is:
//!
//! * a partition that retention has looked at keeps less than `retention.bytes` and a segment, and its last segment has no
//!   more space set aside than a segment may have;
//! * what was written since then comes on top, and no more, however long the thread that applies retention has to wait
//!   for a processor. So the writer waits now and then until retention has come after it, and that it does so at all is
//!   what a retention that is broken fails.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that fails should say where, and a long one what it does"
)]

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ottla::Durability;
use ottla::OffsetReset;
use ottla::Record;
use ottla::Start;
use ottla::Store;
use ottla::TopicConfig;

use crate::deleting::allocated_len;

const PARTITIONS: u32 = 4;
const SEGMENT_BYTES: u64 = 1 << 20;
const RETENTION_BYTES: u64 = 8 << 20;
/// So much is written between two looks.
const STRIDE_BYTES: u64 = 5 << 20;
const VALUE_LEN: usize = 1000;
/// For a record's frame and its batch's, for indexes, and for what a file system rounds up.
const OVERHEAD: f64 = 1.15;
/// How long the writer waits for retention before it is called broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// What retention leaves on the disk at the most.
fn settled_max() -> u64 {
    let batches = RETENTION_BYTES + SEGMENT_BYTES;
    (f64::from(PARTITIONS) * (batches + SEGMENT_BYTES) as f64 * OVERHEAD) as u64
}

/// How many segments there are at the most, those included that were written since retention looked.
fn segments_max() -> u64 {
    settled_max() / SEGMENT_BYTES + STRIDE_BYTES / SEGMENT_BYTES + u64::from(PARTITIONS)
}

/// What a process takes at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    disk: u64,
    /// Memory of its own, in KiB: what is mapped of files is the cache's.
    memory: u64,
    descriptors: u64,
    mappings: u64,
}

impl Taken {
    fn now(root: &Path) -> Taken {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        let partition = |number| allocated_len(&root.join(format!("t-{number}")));
        Taken {
            disk: (0..PARTITIONS).map(partition).sum(),
            memory: anonymous.trim().split(' ').next().unwrap().parse().unwrap(),
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count() as u64,
            mappings: fs::read_to_string("/proc/self/maps").unwrap().lines().count() as u64,
        }
    }

    fn max(self, other: Taken) -> Taken {
        Taken {
            disk: self.disk.max(other.disk),
            memory: self.memory.max(other.memory),
            descriptors: self.descriptors.max(other.descriptors),
            mappings: self.mappings.max(other.mappings),
        }
    }
}

#[test]
#[ignore = "takes minutes"]
fn soak_disk_memory_descriptors_and_mappings_stay_flat_over_ten_times_the_limit() {
    if !cfg!(target_os = "linux") {
        println!("SKIPPED: only Linux has /proc/self");
        return;
    }
    let seconds = std::env::var("OTTLA_SOAK_SECONDS").ok().and_then(|s| s.parse().ok());
    let duration = Duration::from_secs(seconds.unwrap_or(180));
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    let store = Store::builder(&root)
        .durability(Durability::Buffered)
        .retention_check_interval(Duration::from_secs(1))
        .open()
        .unwrap();
    let config = TopicConfig::new()
        .partitions(PARTITIONS)
        .segment_bytes(SEGMENT_BYTES as u32)
        .retention_bytes(RETENTION_BYTES as i64);
    let topic = store.create_topic("t", config).unwrap();
    let is_over = AtomicBool::new(false);
    let at_first = Taken::now(&root);
    let limit = u64::from(PARTITIONS) * RETENTION_BYTES;
    let (samples, written) = thread::scope(|scope| {
        // One who keeps up, and one whom retention overtakes again and again, holding what it has read.
        for pause in [Duration::ZERO, Duration::from_millis(700)] {
            let (store, topic, is_over) = (&store, &topic, &is_over);
            scope.spawn(move || {
                let builder = store.consumer().start(Start::Earliest).reset(OffsetReset::Earliest);
                let mut consumer = builder.assign(topic.partitions()).unwrap();
                while !is_over.load(SeqCst) {
                    let records = consumer.poll(Duration::from_millis(100)).unwrap();
                    for message in &records {
                        let value = message.value().unwrap();
                        assert!(value.iter().all(|byte| *byte == value[0]));
                    }
                    thread::sleep(pause);
                }
            });
        }
        let (mut samples, mut written, mut n) = (Vec::new(), 0_u64, 0_u64);
        let (mut next, mut waited, mut waited_most) = (STRIDE_BYTES, 0_u32, Duration::ZERO);
        let begun = Instant::now();
        while begun.elapsed() < duration || written < 10 * limit {
            let value = [n as u8; VALUE_LEN];
            let record = Record::new(&value).partition(n as u32 % PARTITIONS);
            store.producer().send(&topic, record).unwrap();
            written += VALUE_LEN as u64;
            n += 1;
            if n % 100 == 0 {
                // Some 20 MB/s: as fast as it goes is the benchmarks' business.
                thread::sleep(Duration::from_millis(5));
            }
            if written >= next {
                next += STRIDE_BYTES;
                samples.push((written, Taken::now(&root)));
                let looked = Instant::now();
                while Taken::now(&root).disk > settled_max() {
                    let late = looked.elapsed();
                    if late > PATIENCE {
                        is_over.store(true, SeqCst);
                        let described = topic.describe().unwrap().partitions;
                        panic!("nothing went within {late:?}: {described:?}, {:?}", store.health());
                    }
                    thread::sleep(Duration::from_millis(5));
                }
                let late = looked.elapsed();
                waited += u32::from(late >= Duration::from_millis(5));
                waited_most = waited_most.max(late);
            }
        }
        is_over.store(true, SeqCst);
        println!("waited for retention {waited} times, {waited_most:?} at the longest");
        (samples, written)
    });
    // The first quarter fills what is kept, caches and pools.
    let begins = samples.len() / 4;
    let most_of = |part: &[(u64, Taken)]| {
        part.iter().fold(Taken::default(), |most, (_, taken)| most.max(*taken))
    };
    let early = most_of(&samples[..begins.max(1)]);
    let thirds: Vec<Taken> =
        samples[begins..].chunks(samples[begins..].len().div_ceil(3)).map(most_of).collect();
    println!("{} MB written, {} kept at the least", written / 1_000_000, limit / 1_000_000);
    println!("first quarter: {early:?}");
    for third in &thirds {
        println!("a third of the rest: {third:?}");
    }
    let last = thirds.last().unwrap();
    assert!(samples[0].0 < limit && written >= 10 * limit);
    assert!(samples[begins].0 > limit, "the limit was reached late");
    assert!(samples.iter().any(|(_, taken)| taken.disk > limit), "the limit was never reached");
    let disk_max = settled_max() + (STRIDE_BYTES as f64 * OVERHEAD) as u64;
    println!("allowed: {disk_max} on the disk, {} segments", segments_max());
    for (written, taken) in &samples {
        let disk = taken.disk;
        assert!(disk <= disk_max, "{disk} bytes on the disk behind {written}, {disk_max} allowed");
        // No more than each segment that is there opened and mapped, by the log and by each of two readers; a segment
        // that went, and that somebody keeps for good, would be one of thousands.
        let most = 3 * segments_max();
        assert!(taken.descriptors <= at_first.descriptors + most, "{at_first:?}, {taken:?}");
        assert!(taken.mappings <= at_first.mappings + most, "{at_first:?}, {taken:?}");
    }
    assert!(written / SEGMENT_BYTES > 5 * segments_max(), "too little was written to tell");
    assert!(
        last.memory < thirds[0].memory + thirds[0].memory / 5 + 2048,
        "memory grows: {thirds:?}"
    );
    assert!(store.health().is_good(), "{:?}", store.health());
}
