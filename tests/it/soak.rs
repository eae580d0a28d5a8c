//! A log that runs for long in a fixed space. Not part of an ordinary run:
//!
//! ```text
//! cargo test --release --all-features --test it -- --ignored --nocapture soak
//! ```
//!
//! `OTTLA_SOAK_SECONDS` sets for how long, three minutes by default.

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
        let begun = Instant::now();
        while begun.elapsed() < duration || written < 10 * limit {
            let value = [n as u8; 1000];
            let record = Record::new(&value).partition(n as u32 % PARTITIONS);
            store.producer().send(&topic, record).unwrap();
            written += 1000;
            n += 1;
            if n % 100 == 0 {
                // Some 20 MB/s: as fast as it goes is the benchmarks' business.
                thread::sleep(Duration::from_millis(5));
            }
            if n % 5000 == 0 {
                samples.push((written, Taken::now(&root)));
            }
        }
        is_over.store(true, SeqCst);
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
    let disk_max = limit + u64::from(PARTITIONS) * 3 * SEGMENT_BYTES;
    for taken in &thirds {
        assert!(taken.disk <= disk_max, "{} bytes on the disk, {disk_max} allowed", taken.disk);
    }
    assert!(
        last.memory < thirds[0].memory + thirds[0].memory / 5 + 2048,
        "memory grows: {thirds:?}"
    );
    assert!(last.descriptors <= thirds[0].descriptors + 8, "descriptors grow: {thirds:?}");
    assert!(last.mappings <= thirds[0].mappings + 64, "mappings grow: {thirds:?}");
    assert!(store.health().is_good(), "{:?}", store.health());
}
