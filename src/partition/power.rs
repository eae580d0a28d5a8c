//! Lives that end in a power cut, one after the other on the same directory.
//!
//! Each life opens the directory on a disk that keeps account of what was synchronised, appends records of
//! few distinct sizes, waits for some of them, and ends at some effect, often within the first ones of the
//! opening itself. Then the power cut takes what was not durable. What the next life finds must be a prefix
//! of what was appended, hold everything acknowledged, and never bring back what an earlier recovery dropped.
//!
//! `OTTLA_SEED` plays one lineage again, `OTTLA_LIVES` sets how many are played.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::Durability;
use crate::Error;
use crate::Record;
use crate::Store;
use crate::TopicConfig;
use crate::chance::Chance;
use crate::storage::disk::Disk;
use crate::storage::file_name;

/// What is known of the topic from outside.
#[derive(Default)]
struct Known {
    created: bool,
    logs: [Log; PARTITIONS],
}

/// What is known of one partition's log.
#[derive(Default)]
struct Log {
    /// What the last recovery showed, and what was sent since, in order.
    sent: Vec<Vec<u8>>,
    /// So many records at the front were acknowledged as durable, or shown by a recovery.
    acknowledged: usize,
    /// The record whose send failed last: the disk may have taken it all the same.
    maybe: Option<Vec<u8>>,
}

const GENERATIONS: u32 = 6;
const PARTITIONS: usize = 2;

fn lineage(root: &Path, seed: u64) {
    let mut chance = Chance(seed | 1);
    let mut known = Known::default();
    for generation in 0..GENERATIONS {
        // Some lives end within the opening, some somewhere later, some with a clean close.
        let latest = [12, 120, 1200][chance.below(3) as usize];
        let ends_at = 1 + chance.below(latest);
        let disk = Disk::dying(ends_at);
        let what = format!("OTTLA_SEED={seed}, generation {generation}");
        live(root, &disk, &mut known, &mut chance, generation);
        if chance.below(4) == 0 {
            // Only the process died: the cache survives, and so does everything that was sent.
            check(root, &mut known, true, &what);
        } else {
            disk.script().cut_power(root, &mut |limit| chance.below(limit));
            let lock = root.join(file_name::LOCK);
            if lock.exists() {
                fs::write(lock, "pid=1\nboot=another\n").unwrap();
            }
            check(root, &mut known, false, &what);
        }
    }
}

fn live(root: &Path, disk: &Disk, known: &mut Known, chance: &mut Chance, generation: u32) {
    // With room for one tail, each partition is parked whenever another is appended to.
    let tails = [1, 1, 100][chance.below(3) as usize];
    let opened = Store::builder(root)
        .durability(Durability::Synced)
        .checkpoint_interval(Duration::from_secs(3600))
        .disk(disk.clone())
        .live_tails_max(tails)
        .open();
    let Ok(store) = opened else { return };
    let topic = if known.created {
        let Ok(topic) = store.topic("t") else { return };
        topic
    } else {
        let config = TopicConfig::new()
            .partitions(PARTITIONS as u32)
            .segment_bytes(2048)
            .index_interval_bytes(200);
        match store.topic_or_create("t", config) {
            Ok(topic) => {
                known.created = true;
                topic
            }
            Err(_) => return,
        }
    };
    let producer = store.producer();
    let mut number = 0;
    for n in 0..chance.below(60) {
        if chance.below(4) == 0 {
            number = chance.below(PARTITIONS as u64) as usize;
        }
        let log = &mut known.logs[number];
        // Few distinct sizes: equal batches line up with what an earlier life left behind.
        let mut value = format!("{generation}.{n}.").into_bytes();
        value.resize(20 + 100 * chance.below(3) as usize, b'.');
        match producer
            .send(&topic, Record::new(&value).timestamp(n as i64).partition(number as u32))
        {
            Ok(delivery) => {
                log.sent.push(value);
                let end = log.sent.len();
                if chance.below(4) == 0 && delivery.wait().is_ok() {
                    log.acknowledged = end;
                }
            }
            Err(Error::Latched { .. }) if log.maybe.is_none() => log.maybe = Some(value),
            Err(_) => {}
        }
        if chance.below(10) == 0 && store.sync().is_ok() {
            let topics = store.topics_for_test();
            drop(topics.note_recovery_points(&topics.all_open()));
        }
        // What is called durable, because it was waited for, sealed or parked, is as good as acknowledged.
        for (number, log) in known.logs.iter_mut().enumerate() {
            let open = topic.state.open_partition(number as u32).unwrap();
            log.acknowledged = log.acknowledged.max(open.watermarks().durable_end() as usize);
        }
    }
    drop((topic, producer));
    if store.close().is_ok() {
        assert_eq!(disk.script().closed_unsynced(), Vec::<PathBuf>::new());
        known.logs.iter_mut().for_each(|log| log.acknowledged = log.sent.len());
    }
}

/// Opens the directory on a good disk and compares; what it shows is what the next life builds on.
fn check(root: &Path, known: &mut Known, only_killed: bool, what: &str) {
    if !root.exists() {
        assert!(!known.created, "{what}: the directory is gone");
        return;
    }
    let store = Store::open(root).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(store.health().is_good(), "{what}: {:?}", store.health());
    let topic = store.topic("t");
    assert!(topic.is_ok() || !known.created, "{what}: the topic is gone");
    known.created = topic.is_ok();
    for (number, log) in known.logs.iter_mut().enumerate() {
        let what = format!("{what}, partition {number}");
        let found = topic.as_ref().map_or(Vec::new(), |topic| {
            let partition = topic.partition(number as u32).unwrap();
            let mut consumer = store.consumer().assign([&partition]).unwrap();
            let mut found = Vec::new();
            loop {
                let polled = consumer.poll(Duration::ZERO);
                let records = polled.unwrap_or_else(|error| panic!("{what}: {error}"));
                if records.is_empty() {
                    return found;
                }
                for message in &records {
                    assert_eq!(message.offset(), found.len() as i64, "{what}");
                    found.push(message.value().unwrap().to_vec());
                }
            }
        });
        let mut appended = log.sent.clone();
        appended.extend(log.maybe.take());
        let shown: Vec<String> =
            found.iter().map(|v| String::from_utf8_lossy(v).into_owned()).collect();
        assert!(appended.starts_with(&found), "{what}: not a prefix of what was sent: {shown:?}");
        assert!(
            found.len() >= log.acknowledged,
            "{what}: {} acknowledged, {} found",
            log.acknowledged,
            found.len()
        );
        assert!(!only_killed || found.len() >= log.sent.len(), "{what}: a kill lost what was sent");
        // What recovery exposes, it has made durable.
        log.acknowledged = found.len();
        log.sent = found;
    }
}

#[test]
fn no_power_cut_takes_what_was_acknowledged_or_brings_back_what_was_dropped() {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let play = |seed| {
        let directory = tempfile::tempdir_in(&place).unwrap();
        lineage(&directory.path().join("data"), seed);
    };
    if let Some(seed) = number("OTTLA_SEED") {
        return play(seed);
    }
    for seed in 0..number("OTTLA_LIVES").unwrap_or(250) {
        play(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1);
    }
}
