//! Tests only: pages of mapped segments that the disk cannot give when they are touched for the first time.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::Compression;
use crate::Error;
use crate::Record;
use crate::Result;
use crate::Store;
use crate::TopicConfig;
use crate::chance::Chance;
use crate::partition::walk::Walked;
use crate::storage::disk::Disk;
use crate::storage::faults::fresh_copy;

type Found = Vec<(i64, Vec<u8>)>;
type Way = fn(&Store) -> Result<Found>;

const COUNT: i64 = 400;

fn value(n: i64) -> Vec<u8> {
    // Half of it can be compressed.
    let mut chance = Chance(n as u64 + 1);
    let mut value: Vec<u8> = (0..1000).map(|_| chance.below(256) as u8).collect();
    value.resize(2000, 0);
    value
}

/// A log of a few segments, each of several stretches, that was closed.
fn closed(root: &Path, compression: Compression) {
    let store = Store::open(root).unwrap();
    // Its records are from 1970: without this, they would be old enough for a roll, or for removal, at any moment.
    let config = TopicConfig::new().segment_bytes(400 << 10).segment_ms(1 << 50).retention_ms(-1);
    let topic = store.create_topic("t", config).unwrap();
    let producer = store.producer_builder().compression(compression).unwrap().build();
    for n in 0..COUNT {
        producer.send(&topic, Record::new(&value(n)).timestamp(1000 + n)).unwrap();
    }
    drop((topic, producer));
    store.close().unwrap();
}

fn segments(root: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(root.join("t-0")).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|kind| kind == "log")).collect();
    logs.sort();
    logs
}

fn poll(store: &Store) -> Result<Found> {
    let mut consumer = store.consumer().assign(store.topic("t")?.partitions())?;
    let mut found = Found::new();
    loop {
        let records = consumer.poll(Duration::ZERO)?;
        if records.is_empty() {
            return Ok(found);
        }
        found.extend(records.iter().map(|m| (m.offset(), m.value().unwrap().to_vec())));
    }
}

fn points(store: &Store) -> Result<Found> {
    let partition = store.topic("t")?.partition(0)?;
    // Not in order: each is led to by an index.
    (0..COUNT)
        .map(|n| n * 7 % COUNT)
        .map(|n| Ok((n, partition.read(n)?.unwrap().value().unwrap().to_vec())))
        .collect()
}

fn times(store: &Store) -> Result<Found> {
    let partition = store.topic("t")?.partition(0)?;
    (0..COUNT)
        .step_by(20)
        .map(|n| Ok((n, partition.offset_for_time(1000 + n)?.unwrap().0)))
        .map(|found: Result<_>| found.map(|(n, offset)| (offset, value(n))))
        .collect()
}

fn walk(store: &Store) -> Result<Found> {
    let mut found = Found::new();
    store.topic("t")?.state.open_partition(0)?.walk(|walked| match walked {
        Walked::Batch(batch) => {
            let records = batch.records();
            found.extend(records.map(|record| (record.offset, record.value.unwrap().to_vec())));
        }
        Walked::Unreadable(error) => panic!("{error}"),
    })?;
    Ok(found)
}

/// Each stretch in turn cannot be read once. Whoever meets it is told so, by an error with the path of the file, or has been
/// brought what lies before and gets the rest next time; nothing is called damaged, and nothing latches.
#[test]
fn whichever_page_of_a_segment_cannot_be_read_every_way_to_read_says_so_and_reads_it_later() {
    let ways: [(&str, Way); 4] =
        [("poll", poll), ("points", points), ("times", times), ("walk", walk)];
    let directory = tempfile::tempdir().unwrap();
    for (name, compression) in [("plain", Compression::None), ("packed", Compression::Lz4)] {
        let whole = directory.path().join(name);
        closed(&whole, compression);
        // As they are, and so that each segment has to be walked for its own.
        let bare = fresh_copy(&whole, &format!("{name}-bare"));
        for log in segments(&bare) {
            for kind in ["index", "timeindex"] {
                fs::write(log.with_extension(kind), "").unwrap();
            }
        }
        for (root, (way, read)) in [&whole, &bare].into_iter().flat_map(|r| ways.map(|w| (r, w))) {
            // A single record of a compressed batch is not read.
            if (name, way) == ("packed", "points") {
                continue;
            }
            let disk = Disk::failing_once(u64::MAX, 0);
            let store = Store::read_only(Store::builder(root).disk(disk.clone())).unwrap();
            let before = disk.script().access_count();
            let expected = read(&store).unwrap();
            assert!(expected.iter().all(|(n, found)| *found == value(*n)), "{name}, {way}");
            let mut brought = disk.script().access_trace().split_off(before as usize);
            brought.retain(|access| access.starts_with("bring"));
            let mut told = 0;
            for (n, access) in brought.iter().enumerate() {
                let what = format!("{name}, {way}, stretch {n}: {access}");
                let disk = Disk::failing_once(u64::MAX, 0);
                let store = Store::read_only(Store::builder(root).disk(disk.clone())).unwrap();
                disk.script().arm_access_to("bring", n as u64 + 1);
                let found = match read(&store) {
                    Err(Error::Io { path, .. }) => {
                        assert!(segments(root).contains(&path), "{what}: {path:?}");
                        told += 1;
                        read(&store).unwrap()
                    }
                    found => found.unwrap_or_else(|error| panic!("{what}: {error}")),
                };
                assert!(found == expected, "{what}");
                assert!(store.health().is_good(), "{what}: {:?}", store.health());
            }
            let count = brought.len();
            assert!(count >= segments(root).len() && told > 0, "{name}, {way}: {told} of {count}");
        }
    }
}

/// Where a batch is damaged, reading goes on as a rule with the next one. Once the rest of the segment was brought as well, so
/// that a page far behind that could not be read hid where reading may go on.
#[test]
fn damage_brings_no_more_of_its_segment_than_lies_before_what_follows_it() {
    const STRETCH_LEN: usize = 128 << 10;
    let directory = tempfile::tempdir().unwrap();
    closed(directory.path(), Compression::None);
    let first = &segments(directory.path())[0];
    let whole = fs::read(first).unwrap();
    assert!(whole.len() > 3 * STRETCH_LEN, "several stretches");
    let len = 12 + i32::from_be_bytes(whole[8..12].try_into().unwrap()) as usize;
    // A body, then a length: what follows is seen from the header, or has to be searched for. Then all of two
    // stretches and something more.
    for (hurt, resume, count) in
        [(1000..1001, 1, 1), (10..11, 1, 1), (0..2 * STRETCH_LEN + 7, 0, 3)]
    {
        let resume = resume.max(hurt.end.div_ceil(len)) as i64;
        let mut bytes = whole.clone();
        bytes[hurt].iter_mut().for_each(|byte| *byte ^= 1);
        fs::write(first, bytes).unwrap();
        let opened = || {
            let disk = Disk::failing_once(u64::MAX, 0);
            let store = Store::read_only(Store::builder(directory.path()).disk(disk.clone()));
            (store.unwrap(), disk)
        };
        let is_told = |found: Result<Found>| match found {
            Err(Error::Corrupt { position: 0, resume: Some(found), .. }) => found == resume,
            other => panic!("{resume}: {other:?}"),
        };
        let (store, disk) = opened();
        let before = disk.script().access_count();
        assert!(is_told(poll(&store)));
        let mut brought = disk.script().access_trace().split_off(before as usize);
        brought.retain(|access| access.starts_with("bring"));
        assert_eq!(brought.len(), count, "{resume}: {brought:?}");
        // What cannot be read on the way is not called damaged.
        for n in 0..brought.len() {
            let (store, disk) = opened();
            disk.script().arm_access_to("bring", n as u64 + 1);
            match poll(&store) {
                Err(Error::Io { path, .. }) => assert_eq!(path, *first),
                other => panic!("{resume}, stretch {n}: {other:?}"),
            }
            assert!(is_told(poll(&store)), "{resume}, stretch {n}");
        }
    }
}

/// An index is advice. One that the disk cannot read is made from the log, in memory, like one that is missing.
#[test]
fn an_index_that_cannot_be_read_holds_nobody_up() {
    let directory = tempfile::tempdir().unwrap();
    closed(directory.path(), Compression::None);
    for file in ["read 00000000000000000000.index", "read 00000000000000000000.timeindex"] {
        let disk = Disk::failing_once(u64::MAX, 0);
        let store = Store::read_only(Store::builder(directory.path()).disk(disk.clone())).unwrap();
        let before = disk.script().access_count();
        disk.script().arm_access_to(file, 1);
        let found = points(&store).unwrap();
        assert!(found.len() as i64 == COUNT && found.iter().all(|(n, v)| *v == value(*n)));
        let trace = disk.script().access_trace().split_off(before as usize);
        assert!(trace.iter().any(|access| access == file));
        assert!(store.health().is_good(), "{:?}", store.health());
    }
}

/// The file of a segment was cut while it was mapped. The first touch of what had been behind was a SIGBUS.
#[cfg(target_os = "linux")]
#[test]
fn a_segment_that_somebody_cuts_is_an_error_where_nobody_has_read_yet() {
    let directory = tempfile::tempdir().unwrap();
    closed(directory.path(), Compression::None);
    let store = Store::open_read_only(directory.path()).unwrap();
    let partition = store.topic("t").unwrap().partition(0).unwrap();
    // By the index, of which it was seen that it leads to batches.
    assert!(partition.read(1).unwrap().is_some());
    let first = &segments(directory.path())[0];
    fs::File::options().write(true).open(first).unwrap().set_len(140 << 10).unwrap();
    match partition.read(180) {
        Err(Error::Io { path, .. }) => assert_eq!(path, *first),
        other => panic!("{other:?}"),
    }
    // What is there is read, before and behind.
    for n in [1, COUNT - 1] {
        assert_eq!(partition.read(n).unwrap().unwrap().value(), Some(&value(n)[..]));
    }
}
