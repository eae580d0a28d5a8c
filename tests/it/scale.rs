//! Very many partitions, and very many segments, under the limits that systems set by default: 1,024 descriptors,
//! 65,530 mappings.
//!
//! The tests run themselves again under a shell's `ulimit`. Their data lie in memory where there is some: what is
//! counted here is descriptors, mappings and bytes, not time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails should say where")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use ottla::Durability;
use ottla::Record;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;

use crate::limits::is_limited;
use crate::limits::run_again_under;
use crate::scratch::scratch;

const COUNT: u32 = 10_000;
/// A quarter of 1,024 descriptors for tails; the lock, the threads' and the harness's come on top.
const DESCRIPTORS_MAX: usize = 300;
/// The same tails, 1,024 segments that are only read, and what the process has.
const MAPPINGS_MAX: usize = 1600;

fn assert_within_limits(when: &str) {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
    let mappings = fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    assert!(descriptors <= DESCRIPTORS_MAX, "{when}: {descriptors} descriptors");
    assert!(mappings <= MAPPINGS_MAX, "{when}: {mappings} mappings");
}

/// Reads a number from one of the files in which Linux tells of a process.
fn told(file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/self/{file}")).unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Gives the bytes of memory that are the process's own.
fn own_memory() -> u64 {
    told("status", "RssAnon:") << 10
}

/// Opens a directory that was closed properly; reads no segment for it.
fn reopen(path: &Path, bytes_max: u64) -> Store {
    let before = told("io", "rchar:");
    let store = Store::open(path).unwrap();
    let read = told("io", "rchar:") - before;
    assert!(read <= bytes_max, "{read} bytes were read");
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    assert!(!maps.contains(path.to_str().unwrap()), "a segment is mapped");
    assert!(store.health().findings.is_empty(), "{:?}", store.health());
    store
}

/// Reads all of a topic and gives how often each value was there.
fn read_all(store: &Store, topic: &Topic) -> Vec<u32> {
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    let mut counts = vec![0; COUNT as usize];
    loop {
        let records = consumer.poll(Duration::ZERO).unwrap();
        if records.is_empty() {
            return counts;
        }
        for message in &records {
            let value = message.value().unwrap().first_chunk().copied().unwrap();
            counts[u32::from_be_bytes(value) as usize] += 1;
        }
    }
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "Linux says what a process holds")]
fn ten_thousand_partitions_are_written_and_read_with_a_thousand_descriptors() {
    run_again_under("-n 1024", "scale::inner_ten_thousand_partitions");
}

#[test]
fn inner_ten_thousand_partitions() {
    if !is_limited() {
        return;
    }
    let directory = scratch();
    let path = directory.path().join("data");
    let store = Store::open(&path).unwrap();
    let topic = store.create_topic("t", TopicConfig::new().partitions(COUNT)).unwrap();
    let created = own_memory();
    assert_within_limits("created");
    let producer = store.producer_builder().durability(Durability::Buffered).build();
    let mut last = Vec::new();
    let append_to_all = |last: &mut Vec<_>| {
        for number in 0..COUNT {
            let mut value = [7; 100];
            value[..4].copy_from_slice(&number.to_be_bytes());
            let sent = producer.send(&topic, Record::new(&value).partition(number)).unwrap();
            if number % 100 == 0 {
                last.push(sent);
            }
        }
    };
    append_to_all(&mut last);
    assert_within_limits("appended");
    for _ in 0..2 {
        append_to_all(&mut last);
    }
    // What was parked meanwhile can be waited for as anything else.
    for delivery in last.drain(..) {
        assert!(delivery.wait().unwrap().offset() < 3);
    }
    producer.flush().unwrap();
    let after_three = own_memory();
    for _ in 0..3 {
        append_to_all(&mut last);
    }
    let after_six = own_memory();
    drop(last);
    assert_within_limits("appended again and again");
    // A few KiB each, and nothing for each record.
    let each = (after_six - created) / u64::from(COUNT);
    assert!(each < 4 << 10, "{each} bytes for each partition");
    let growth = after_six.saturating_sub(after_three) / u64::from(COUNT);
    assert!(growth < 300, "{growth} bytes more for each partition after three more records");
    assert_eq!(read_all(&store, &topic), vec![6; COUNT as usize]);
    assert_within_limits("read");
    drop((producer, topic));
    store.close().unwrap();

    let store = reopen(&path, u64::from(COUNT) * 2048);
    let topic = store.topic("t").unwrap();
    assert_eq!(read_all(&store, &topic), vec![6; COUNT as usize]);
    assert_within_limits("reopened and read");
    let producer = store.producer();
    for number in (0..COUNT).step_by(20) {
        let value = number.to_be_bytes();
        producer.send(&topic, Record::new(&value).partition(number)).unwrap().wait().unwrap();
    }
    assert_within_limits("reopened and appended");
    drop((producer, topic));
    store.close().unwrap();
    let store = reopen(&path, u64::from(COUNT) * 2048);
    let topic = store.topic("t").unwrap();
    let expected: Vec<u32> = (0..COUNT).map(|n| if n % 20 == 0 { 7 } else { 6 }).collect();
    assert_eq!(read_all(&store, &topic), expected);
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "Linux says what a process holds")]
fn ten_thousand_segments_are_written_and_read_with_a_thousand_descriptors() {
    run_again_under("-n 1024", "scale::inner_ten_thousand_segments");
}

#[test]
fn inner_ten_thousand_segments() {
    if !is_limited() {
        return;
    }
    let directory = scratch();
    let path = directory.path().join("data");
    let store = Store::open(&path).unwrap();
    let config = TopicConfig::new().segment_bytes(1024);
    let topic = store.create_topic("t", config).unwrap();
    let producer = store.producer_builder().durability(Durability::Buffered).build();
    let before = own_memory();
    for number in 0..COUNT {
        let mut value = [7; 900];
        value[..4].copy_from_slice(&number.to_be_bytes());
        producer.send(&topic, &value).unwrap();
        if number % 1000 == 0 {
            assert_within_limits("appended");
        }
    }
    // Before the description, which lists all segments for a moment: what is freed the allocator keeps.
    let each = own_memory().saturating_sub(before) / u64::from(COUNT);
    assert!(each < 400, "{each} bytes for each segment");
    assert_eq!(topic.describe().unwrap().partitions[0].segment_count, COUNT as usize);
    assert_eq!(read_all(&store, &topic), vec![1; COUNT as usize]);
    assert_within_limits("read");
    drop((producer, topic));
    store.close().unwrap();

    let store = reopen(&path, 64 << 10);
    let topic = store.topic("t").unwrap();
    assert_eq!(read_all(&store, &topic), vec![1; COUNT as usize]);
    assert_within_limits("reopened and read");
    let partition = topic.partition(0).unwrap();
    let producer = store.producer();
    let appended = producer.send(&topic, &COUNT.to_be_bytes()).unwrap().wait().unwrap();
    assert_eq!(appended.offset(), i64::from(COUNT));
    assert_eq!(partition.watermarks().unwrap(), (0, i64::from(COUNT) + 1));
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "Linux says what a process reads")]
fn opening_reads_no_segment_however_long() {
    let directory = scratch();
    let path = directory.path().join("data");
    let store = Store::open(&path).unwrap();
    let config = TopicConfig::new().segment_bytes(32 << 20);
    let topic = store.create_topic("t", config).unwrap();
    let producer = store.producer_builder().durability(Durability::Buffered).build();
    for _ in 0..40_000 {
        producer.send(&topic, &[7; 1000]).unwrap();
    }
    drop((producer, topic));
    store.close().unwrap();
    // This process reads other things too, in other tests: so it is not told by what it read, but by what it could
    // not have read.
    let log = path.join("t-0").join("00000000000000000000.log");
    let len = fs::metadata(&log).unwrap().len();
    assert!(len > 30 << 20);
    let file = fs::OpenOptions::new().write(true).open(&log).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0; len as usize / 2], 0).unwrap();
    let store = Store::open(&path).unwrap();
    assert!(store.health().findings.is_empty(), "{:?}", store.health());
    let ends = store.topic("t").unwrap().partition(0).unwrap().watermarks().unwrap();
    assert_eq!(ends, (0, 40_000));
}
