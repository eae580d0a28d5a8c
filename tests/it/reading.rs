//! How records come off the disk: each once, whole or not at all, however much is asked for at a time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use ottla::Compression;
use ottla::Durability;
use ottla::Error;
use ottla::Record;
use ottla::Start;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;

use crate::consuming::read_all;

/// Batches of these many records each, whose values are `0`, `1`, … padded to different lengths.
fn send_batches(store: &Store, topic: &Topic, sizes: &[usize]) {
    let producer = store.producer();
    let mut n = 0;
    for size in sizes {
        let values: Vec<String> = (n..n + size).map(value_of).collect();
        let records: Vec<_> = values.iter().map(Record::new).collect();
        drop(producer.send_batch(&topic.partition(0).unwrap(), records).unwrap());
        n += size;
    }
}

fn value_of(n: usize) -> String {
    // Some records are as long as the one before, others are not.
    format!("{n:>width$}", width = 10 + n / 7 % 90)
}

fn open(root: &Path) -> (Store, Topic) {
    let store = Store::builder(root).durability(Durability::Buffered).open().unwrap();
    let topic = store.topic_or_create("t", TopicConfig::new().segment_bytes(40_000)).unwrap();
    (store, topic)
}

/// A closed directory with batches of several sizes in several segments.
fn closed_directory(sizes: &[usize]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (store, topic) = open(directory.path());
    send_batches(&store, &topic, sizes);
    assert!(topic.describe().unwrap().partitions[0].segment_count > 1);
    drop(topic);
    store.close().unwrap();
    directory
}

fn first_segment(root: &Path) -> PathBuf {
    root.join("t-0/00000000000000000000.log")
}

/// Flips a bit of the first value of the first segment that holds `text`.
fn flip_in_value(log: &Path, text: &str) {
    let bytes = fs::read(log).unwrap();
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    let file = fs::OpenOptions::new().write(true).open(log).unwrap();
    file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
}

const SIZES: &[usize] = &[1, 1, 7, 600, 2, 64, 65, 1, 130, 3, 3, 90, 200, 1, 1];

#[test]
fn every_record_comes_exactly_once_however_many_a_poll_may_bring() {
    let directory = closed_directory(SIZES);
    let (store, topic) = open(directory.path());
    let total: usize = SIZES.iter().sum();
    let wanted: Vec<(i64, String)> = (0..total).map(|n| (n as i64, value_of(n))).collect();
    let limits = (1..12).chain([63, 64, 65, 66, 500, 599, 600, 601, 10_000]);
    for limit in limits {
        for bytes in [1, 3000, 1 << 20] {
            let builder = store.consumer().max_poll_records(limit).max_partition_fetch_bytes(bytes);
            let mut consumer = builder.assign(topic.partitions()).unwrap();
            let mut seen = Vec::new();
            loop {
                let records = consumer.poll(Duration::ZERO).unwrap();
                if records.is_empty() {
                    break;
                }
                assert!(records.count() <= limit);
                let before = seen.len();
                for message in &records {
                    let text = String::from_utf8(message.value().unwrap().to_vec()).unwrap();
                    seen.push((message.offset(), text));
                }
                assert_eq!(seen.len() - before, records.count(), "limit {limit}");
                // Folding is another way through the same records.
                let folded = records.iter().fold(0, |sum, message| sum + message.offset());
                assert_eq!(folded, seen[before..].iter().map(|(offset, _)| offset).sum::<i64>());
                let next: Vec<i64> = records.next_offsets().map(|(_, next)| next).collect();
                assert_eq!(next, [seen.len() as i64]);
            }
            assert_eq!(seen, wanted, "limit {limit}");
        }
    }
}

#[test]
fn a_seek_into_the_midst_of_a_batch_begins_there() {
    let directory = closed_directory(SIZES);
    let (store, topic) = open(directory.path());
    let partition = topic.partition(0).unwrap();
    let total: i64 = SIZES.iter().sum::<usize>() as i64;
    let mut consumer = store.consumer().max_poll_records(3).assign([&partition]).unwrap();
    for offset in 0..=total {
        consumer.seek(&partition, offset).unwrap();
        let mut wanted = offset..total;
        // A poll may end with a segment, so it brings up to three.
        for _ in 0..3 {
            let records = consumer.poll(Duration::ZERO).unwrap();
            assert_eq!(records.is_empty(), wanted.is_empty());
            for message in &records {
                assert_eq!(Some(message.offset()), wanted.next());
            }
        }
    }
}

#[test]
fn damage_is_found_by_the_first_read_of_every_opening_and_stays_found() {
    let directory = closed_directory(SIZES);
    flip_in_value(&first_segment(directory.path()), "   100");
    for _ in 0..2 {
        let (store, topic) = open(directory.path());
        let partition = topic.partition(0).unwrap();
        for _ in 0..3 {
            let mut consumer = store.consumer().assign([&partition]).unwrap();
            // What lies before and behind is read, and counts as checked from then on; the damage does not.
            assert_eq!(consumer.poll(Duration::ZERO).unwrap().count(), 9);
            let error = consumer.poll(Duration::ZERO).unwrap_err();
            let Error::Corrupt { reason: "checksum mismatch", resume: Some(609), .. } = error
            else {
                panic!("{error}");
            };
            assert_eq!(consumer.position(&partition).unwrap(), 9);
            consumer.seek(&partition, 609).unwrap();
            assert_eq!(read_all(&mut consumer).len() + 609, SIZES.iter().sum::<usize>());
        }
    }
}

#[test]
fn damage_is_found_by_a_reader_that_an_index_leads_there() {
    let directory = closed_directory(SIZES);
    let damaged = directory.path().join("t-0/00000000000000000611.log");
    let index = fs::read(damaged.with_extension("index")).unwrap();
    assert!(!index.is_empty());
    flip_in_value(&damaged, "   750");
    let (store, topic) = open(directory.path());
    let partition = topic.partition(0).unwrap();
    for offset in [741, 750, 870] {
        let mut consumer =
            store.consumer().assign([(partition.clone(), Start::Offset(offset))]).unwrap();
        let error = consumer.poll(Duration::ZERO).unwrap_err();
        assert!(matches!(error, Error::Corrupt { resume: Some(871), .. }), "{error}");
    }
}

#[test]
fn a_batch_is_summed_once_for_each_opening_of_its_segment() {
    let directory = closed_directory(SIZES);
    let log = first_segment(directory.path());
    let (store, topic) = open(directory.path());
    let total: usize = SIZES.iter().sum();
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    assert_eq!(read_all(&mut consumer).len(), total);
    flip_in_value(&log, "   100");
    // The bytes were whole when they were read; what happens to them since is not looked for again.
    let mut again = store.consumer().assign(topic.partitions()).unwrap();
    assert_eq!(read_all(&mut again).len(), total);
    drop((again, consumer, topic, store));

    let (store, topic) = open(directory.path());
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().count(), 9);
    assert!(matches!(consumer.poll(Duration::ZERO), Err(Error::Corrupt { .. })));
}

#[test]
fn a_reader_that_sums_nothing_spares_no_other_reader_the_sum() {
    let directory = closed_directory(SIZES);
    flip_in_value(&first_segment(directory.path()), "   100");
    let (store, topic) = open(directory.path());
    let total: usize = SIZES.iter().sum();
    let mut careless = store.consumer().check_crcs(false).assign(topic.partitions()).unwrap();
    assert_eq!(read_all(&mut careless).len(), total);
    let mut careful = store.consumer().assign(topic.partitions()).unwrap();
    assert_eq!(careful.poll(Duration::ZERO).unwrap().count(), 9);
    assert!(matches!(careful.poll(Duration::ZERO), Err(Error::Corrupt { .. })));
}

#[test]
fn a_reader_that_sums_nothing_still_refuses_a_batch_that_cannot_be_walked() {
    let directory = closed_directory(SIZES);
    let log = first_segment(directory.path());
    let bytes = fs::read(&log).unwrap();
    // The length of the first record of the batch of seven.
    let first = bytes.windows(10).position(|window| window == b"         2").unwrap();
    let file = fs::OpenOptions::new().write(true).open(&log).unwrap();
    file.write_all_at(&[bytes[first - 6] ^ 0x40], (first - 6) as u64).unwrap();
    let (store, topic) = open(directory.path());
    let partition = topic.partition(0).unwrap();
    let mut consumer = store.consumer().check_crcs(false).assign([&partition]).unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().count(), 2);
    let error = consumer.poll(Duration::ZERO).unwrap_err();
    assert!(matches!(error, Error::Corrupt { resume: Some(9), .. }), "{error}");
    consumer.seek(&partition, 9).unwrap();
    assert_eq!(read_all(&mut consumer).len() + 9, SIZES.iter().sum::<usize>());
}

#[test]
fn what_another_process_appended_is_summed_when_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, topic) = open(directory.path());
    send_batches(&writer, &topic, &[5, 5]);
    let reader = Store::open_read_only(directory.path()).unwrap();
    let partition = reader.topic("t").unwrap().partition(0).unwrap();
    assert_eq!(partition.watermarks().unwrap(), (0, 10));
    // The reader has walked over it to find the end, which is not the same as having read it.
    flip_in_value(&first_segment(directory.path()), "     7");
    let mut consumer = reader.consumer().assign([&partition]).unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().count(), 5);
    assert!(matches!(consumer.poll(Duration::ZERO), Err(Error::Corrupt { .. })));
    // The one who appended it does not sum it again.
    let mut own = writer.consumer().assign(topic.partitions()).unwrap();
    assert_eq!(read_all(&mut own).len(), 10);
}

#[test]
fn what_lay_in_a_segment_before_it_was_continued_is_summed() {
    let directory = tempfile::tempdir().unwrap();
    let (store, topic) = open(directory.path());
    send_batches(&store, &topic, &[5]);
    drop(topic);
    store.close().unwrap();
    flip_in_value(&first_segment(directory.path()), "     3");
    let (store, topic) = open(directory.path());
    send_batches(&store, &topic, &[5]);
    let partition = topic.partition(0).unwrap();
    let mut consumer = store.consumer().assign([&partition]).unwrap();
    assert!(matches!(consumer.poll(Duration::ZERO), Err(Error::Corrupt { .. })));
    let mut behind = store.consumer().assign([(partition, Start::Offset(5))]).unwrap();
    assert_eq!(read_all(&mut behind).len(), 5);
}

#[test]
fn a_poll_ends_in_front_of_a_compressed_batch_that_it_has_no_room_for() {
    let codecs = [Compression::Lz4, Compression::Snappy, Compression::Gzip, Compression::Zstd];
    for codec in codecs.into_iter().filter(|codec| codec.is_available()) {
        let store = Store::temporary().unwrap();
        let topic = store.create_topic("t", TopicConfig::new()).unwrap();
        let partition = topic.partition(0).unwrap();
        let producer = store.producer_builder().compression(codec).unwrap().build();
        let sizes = [300, 300, 100, 1200, 100];
        let mut n = 0;
        for size in sizes {
            let values: Vec<String> = (n..n + size).map(value_of).collect();
            drop(producer.send_batch(&partition, values.iter().map(Record::new)).unwrap());
            n += size;
        }
        let mut consumer = store.consumer().max_poll_records(500).assign([&partition]).unwrap();
        let (mut counts, mut next) = (Vec::new(), 0);
        while next < n {
            let records = consumer.poll(Duration::ZERO).unwrap();
            for message in &records {
                assert_eq!(message.value(), Some(value_of(next).as_bytes()), "{codec:?}");
                next += 1;
            }
            counts.push(records.count());
        }
        // Only one that fits into no poll is handed out in parts.
        assert_eq!(counts, [300, 400, 500, 500, 200, 100], "{codec:?}");
    }
}
