//! Tests only: repairs that die, fail or lose power at every effect.
//!
//! One directory with a little of everything in it is repaired again and again, and each time something happens at
//! the next effect. Whatever comes of that, the next repair finishes; and who opens the directory between the two gets
//! no offset that was given out before.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::Record;
use crate::Store;
use crate::TopicConfig;
use crate::chance::Chance;
use crate::error::Error;
use crate::inspect;
use crate::repair::apply_on;
use crate::storage::disk::Disk;
use crate::storage::faults::fresh_copy;

const COUNT: i64 = 100;

/// A directory in memory where there is one: what is tested here is what is in the files, not how long a
/// disk takes to keep it.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// A directory that was closed cleanly, and was then damaged in many ways; and the records that are left.
fn damaged(directory: &Path) -> (PathBuf, BTreeMap<i64, Vec<u8>>) {
    let root = directory.join("damaged");
    let store = Store::open(&root).unwrap();
    let config = TopicConfig::new().segment_bytes(1024).set("retention.ms", "-1").unwrap();
    let config = config.set("index.interval.bytes", "100").unwrap();
    let orders = store.create_topic("orders", config).unwrap();
    store.create_topic("gone", TopicConfig::new()).unwrap();
    for n in 0..COUNT {
        store.producer().send(&orders, Record::new(&value(n))).unwrap().wait().unwrap();
    }
    drop(orders);
    store.close().unwrap();

    let mut segments: Vec<PathBuf> = fs::read_dir(root.join("orders-0"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    assert!(segments.len() >= 7, "{segments:?}");
    let bases: Vec<i64> = segments
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap().parse().unwrap())
        .collect();
    let mut left: BTreeMap<i64, Vec<u8>> = (0..COUNT).map(|n| (n, value(n))).collect();
    let flip = |path: &Path, position: usize| {
        let mut bytes = fs::read(path).unwrap();
        let position = position.min(bytes.len() - 2);
        bytes[position] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    // The first two have each other's names.
    let between = segments[0].with_extension("between");
    fs::rename(&segments[0], &between).unwrap();
    fs::rename(&segments[1], &segments[0]).unwrap();
    fs::rename(between, &segments[1]).unwrap();
    // In the third a batch in the middle, in the fourth the front of one, in the fifth everything.
    let len = fs::metadata(&segments[2]).unwrap().len() as usize;
    let count = (bases[3] - bases[2]) as usize;
    flip(&segments[2], len / count * (count / 2) + 40);
    left.remove(&(bases[2] + count as i64 / 2));
    flip(&segments[3], 7);
    let len = fs::metadata(&segments[4]).unwrap().len() as usize;
    fs::write(&segments[4], vec![0xa5; len]).unwrap();
    left.retain(|n, _| !(bases[4]..bases[5]).contains(n));
    // The end, an index, and of the small files most.
    flip(segments.last().unwrap(), usize::MAX);
    left.remove(&(COUNT - 1));
    fs::write(segments[5].with_extension("timeindex"), [7; 24]).unwrap();
    fs::remove_file(root.join("gone-0/partition.metadata")).unwrap();
    fs::write(root.join("orders-0/leader-epoch-checkpoint"), "rubbish").unwrap();
    fs::write(root.join("orders-0/00000000000000000003.snapshot"), "rubbish").unwrap();
    fs::write(root.join("log-start-offset-checkpoint"), "0\n1\norders 0 4000\n").unwrap();
    fs::write(root.join("replication-offset-checkpoint"), "rubbish").unwrap();
    flip(&root.join("ottla.topics"), usize::MAX);
    (root, left)
}

/// All of the same length.
fn value(n: i64) -> Vec<u8> {
    format!("{n:03}").into_bytes()
}

fn read_all(store: &Store) -> BTreeMap<i64, Vec<u8>> {
    let topic = store.topic("orders").unwrap();
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    let mut found = BTreeMap::new();
    loop {
        let records = consumer.poll(Duration::ZERO).unwrap();
        if records.is_empty() {
            return found;
        }
        for message in &records {
            found.insert(message.offset(), message.value().unwrap().to_vec());
        }
    }
}

/// Repairs, to the end this time, and looks at what is left.
fn assert_finishes(root: &Path, left: &BTreeMap<i64, Vec<u8>>, what: &str) {
    let report = apply_on(&Disk::default(), root).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(report.is_good(), "{what}: {report:#?}");
    let report = apply_on(&Disk::default(), root).unwrap();
    assert!(report.steps.is_empty(), "{what}: {report:#?}");
    let store = Store::open(root).unwrap();
    assert_eq!(store.health().findings, [], "{what}");
    assert_eq!(read_all(&store), *left, "{what}");
    let orders = store.topic("orders").unwrap();
    let offset = store.producer().send(&orders, "more").unwrap().wait().unwrap().offset();
    assert!(offset >= 4000, "{what}: {offset}");
    drop(orders);
    store.close().unwrap();
    assert_eq!(inspect::check(root).unwrap().problems, [], "{what}");
}

/// Opens what a repair left that was cut short, and appends if that is possible.
fn append_in_between(root: &Path, left: &mut BTreeMap<i64, Vec<u8>>, what: &str) {
    let store = match Store::open(root) {
        Ok(store) => store,
        // The list of topics is still damaged.
        Err(Error::Corrupt { .. }) => return,
        Err(other) => panic!("{what}: {other}"),
    };
    let orders = store.topic("orders").unwrap();
    let sent = store.producer().send(&orders, "between").and_then(|delivery| delivery.wait());
    match sent {
        Ok(sent) => {
            assert!(sent.offset() >= COUNT, "{what}: {} is given out twice", sent.offset());
            left.insert(sent.offset(), b"between".to_vec());
        }
        Err(Error::Latched { .. } | Error::Unavailable { .. }) => {}
        Err(other) => panic!("{what}: {other}"),
    }
    drop(orders);
    drop(store.close());
}

#[test]
fn a_repair_that_dies_anywhere_is_finished_by_the_next_and_gives_no_offset_out_twice() {
    let directory = scratch();
    let (damaged, left) = damaged(directory.path());
    let mut chance = Chance(7);
    let mut effects = 0;
    for n in 1.. {
        let what = format!("death at effect {n}");
        let root = fresh_copy(&damaged, "copy");
        let disk = Disk::dying(n);
        if apply_on(&disk, &root).is_ok() {
            break;
        }
        effects = n;
        let mut left = left.clone();
        match n % 3 {
            0 => {}
            1 => disk.script().cut_power(&root, &mut |below| chance.below(below)),
            _ => append_in_between(&root, &mut left, &what),
        }
        assert_finishes(&root, &left, &what);
    }
    assert!(effects > 60, "only {effects} effects");
}

#[test]
fn a_repair_whose_disk_fails_once_says_so_and_can_be_started_again() {
    let directory = scratch();
    let (damaged, left) = damaged(directory.path());
    for n in (1..).step_by(5) {
        let root = fresh_copy(&damaged, "copy");
        let errno = if n % 2 == 0 { libc::ENOSPC } else { libc::EIO };
        let disk = Disk::failing_once(n, errno);
        match apply_on(&disk, &root) {
            Ok(_) if disk.script().count() < n => return,
            // Nothing hung on it.
            Ok(_) => {}
            Err(Error::OutOfSpace { .. } | Error::Io { .. }) => {}
            Err(other) => panic!("effect {n}: {other}"),
        }
        assert_finishes(&root, &left, &format!("failure of effect {n}"));
    }
}

#[test]
fn a_repair_whose_reads_and_writes_come_short_is_finished_all_the_same() {
    let directory = scratch();
    let (damaged, left) = damaged(directory.path());
    for seed in 1..6 {
        let root = fresh_copy(&damaged, "copy");
        let disk = Disk::failing_once(u64::MAX, 0);
        disk.script().falter(seed << 32 | 12_345);
        apply_on(&disk, &root).unwrap();
        assert!(disk.script().cut_short() > 20, "only {}", disk.script().cut_short());
        assert_finishes(&root, &left, &format!("seed {seed}"));
    }
}
