//! `delete_records`: what goes, what stays, what it costs on the disk, and who is told.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ottla::Error;
use ottla::OffsetReset;
use ottla::Start;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;
use ottla::TopicPartition;

use crate::consuming::read_all;
use crate::consuming::send_numbers;
use crate::consuming::store_with_topic;
use crate::model::copy_tree;
use crate::retention::base_offsets;
use crate::waiting::LONG;
use crate::waiting::SOON;

/// The bytes that the files of a directory take on the disk.
pub(crate) fn allocated_len(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    // A file may go between the listing and the look at it.
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.blocks() * 512).sum()
}

fn names_of_what_goes(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string());
    names.map(Result::unwrap).filter(|name| name.ends_with(".deleted")).collect()
}

/// A topic in segments of some twenty records each, and its partition.
fn in_segments(count: i64) -> (Store, Topic, TopicPartition) {
    // The records are of long ago: no look closes a segment or lets go of it for that.
    let config = TopicConfig::new().segment_ms(i64::MAX as u64).retention_ms(-1);
    let (store, topic) = store_with_topic(config.segment_bytes(1500));
    send_numbers(&store, &topic, 0..count);
    let partition = topic.partition(0).unwrap();
    (store, topic, partition)
}

#[test]
fn records_below_an_offset_are_gone_for_readers_and_whole_segments_from_the_disk() {
    let (store, topic, partition) = in_segments(200);
    let directory = store.path().join("t-0");
    let before = base_offsets(&directory);
    assert!(before.len() > 5, "{before:?}");
    // Within a segment: it stays, with what lies below in it.
    let offset = before[3] + 1;
    assert_eq!(partition.delete_records(offset).unwrap(), offset);
    assert_eq!(partition.watermarks().unwrap(), (offset, 200));
    assert_eq!(base_offsets(&directory), before[3..]);
    assert!(names_of_what_goes(&directory).is_empty());
    assert!(matches!(partition.read(offset - 1), Err(Error::OffsetOutOfRange { .. })));
    let mut consumer = store.consumer().start(Start::Earliest).assign([&partition]).unwrap();
    let seen: Vec<i64> = read_all(&mut consumer).iter().map(|seen| seen.offset).collect();
    assert_eq!(seen, (offset..200).collect::<Vec<_>>());
    // By time, too.
    let found = partition.offset_for_time(0).unwrap();
    assert_eq!(found, Some((offset, 1000 + 10 * offset)));
    // What is below already stays so, and nothing can be deleted that is not there.
    assert_eq!(partition.delete_records(5).unwrap(), offset);
    assert_eq!(partition.delete_records(offset).unwrap(), offset);
    for wrong in [201, -2, i64::MIN, i64::MAX] {
        let error = partition.delete_records(wrong).unwrap_err();
        assert!(
            matches!(error, Error::OffsetOutOfRange { start, end: 200, .. } if start == offset)
        );
        assert_eq!(error.kafka_code(), Some(1));
    }
    // At a boundary.
    assert_eq!(partition.delete_records(before[5]).unwrap(), before[5]);
    assert_eq!(base_offsets(&directory), before[5..]);
    assert!(store.health().is_good(), "{:?}", store.health());
    drop(topic);
}

#[test]
fn everything_can_be_deleted_and_the_space_of_the_last_segment_comes_free() {
    let (store, topic, partition) = in_segments(150);
    let directory = store.path().join("t-0");
    assert_eq!(partition.delete_records(-1).unwrap(), 150);
    assert_eq!(partition.watermarks().unwrap(), (150, 150));
    assert_eq!(base_offsets(&directory), [150]);
    assert_eq!(topic.describe().unwrap().partitions[0].len, 0);
    assert_eq!(partition.delete_records(-1).unwrap(), 150);
    send_numbers(&store, &topic, 150..160);
    let mut consumer = store.consumer().start(Start::Earliest).assign([&partition]).unwrap();
    let seen: Vec<i64> = read_all(&mut consumer).iter().map(|seen| seen.offset).collect();
    assert_eq!(seen, (150..160).collect::<Vec<_>>());
}

#[test]
fn what_was_deleted_stays_deleted_and_offsets_are_not_given_out_twice() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    let store = Store::open(&root).unwrap();
    let topic = store.create_topic("t", TopicConfig::new().segment_bytes(1500)).unwrap();
    send_numbers(&store, &topic, 0..100);
    let partition = topic.partition(0).unwrap();
    partition.delete_records(77).unwrap();
    drop((topic, partition));
    store.close().unwrap();
    for round in 0..3 {
        let store = Store::open(&root).unwrap();
        let topic = store.topic("t").unwrap();
        let partition = topic.partition(0).unwrap();
        assert_eq!(partition.watermarks().unwrap(), (77, 100 + round));
        send_numbers(&store, &topic, 100 + round..101 + round);
        drop((topic, partition));
        store.close().unwrap();
    }
    assert!(ottla::inspect::check(&root).unwrap().problems.is_empty());
    let store = Store::open(&root).unwrap();
    store.topic("t").unwrap().partition(0).unwrap().delete_records(-1).unwrap();
    store.close().unwrap();
    let store = Store::open(&root).unwrap();
    assert_eq!(store.topic("t").unwrap().partition(0).unwrap().watermarks().unwrap(), (103, 103));
}

/// The record of where logs begin is kept by name: a topic that was created anew would have begun with the offset at
/// which its predecessor's did, and so without its first records.
#[test]
fn a_topic_that_is_created_anew_begins_at_its_beginning() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    let store = Store::open(&root).unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    send_numbers(&store, &topic, 0..50);
    topic.partition(0).unwrap().delete_records(30).unwrap();
    store.delete_topic("t").unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    send_numbers(&store, &topic, 0..50);
    store.sync().unwrap();
    // As after a crash: nothing is written by a close.
    let copy = directory.path().join("copy");
    copy_tree(&root, &copy);
    let after = Store::open(&copy).unwrap();
    let partition = after.topic("t").unwrap().partition(0).unwrap();
    assert_eq!(partition.watermarks().unwrap(), (0, 50));
}

#[test]
fn the_space_on_the_disk_comes_free_though_a_slow_reader_holds_records() {
    let config = TopicConfig::new().segment_bytes(256 << 10);
    let (store, topic) = store_with_topic(config);
    let producer = store.producer();
    for n in 0..1000_i64 {
        let value = [n.to_be_bytes().as_slice(), &[7; 4000]].concat();
        producer.send(&topic, ottla::Record::new(&value).partition(0)).unwrap();
    }
    store.sync().unwrap();
    let partition = topic.partition(0).unwrap();
    let directory = store.path().join("t-0");
    let mut slow = store.consumer().start(Start::Earliest).assign([&partition]).unwrap();
    let held = slow.poll(Duration::ZERO).unwrap();
    assert!(!held.is_empty());
    let before = allocated_len(&directory);
    assert!(before > 4_000_000, "{before}");

    partition.delete_records(900).unwrap();
    let after = allocated_len(&directory);
    assert!(after < 1_400_000, "{after} of {before} bytes are left");
    // The reader's segment has no name any more, but its space until nobody reads it, which is told.
    let described = || topic.describe().unwrap().partitions[0].clone();
    assert!((200_000..300_000).contains(&described().held_len), "{:?}", described());
    for (n, message) in held.iter().enumerate() {
        assert_eq!(message.offset(), n as i64);
        assert_eq!(message.value().unwrap()[..8], (n as i64).to_be_bytes());
        assert!(message.value().unwrap()[8..].iter().all(|byte| *byte == 7));
    }
    drop(held);
    assert_eq!(described().held_len, 0);
    if cfg!(target_os = "linux") {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let directory = directory.to_str().unwrap();
        let is_deleted = |line: &&str| line.contains(directory) && line.ends_with("(deleted)");
        assert_eq!(maps.lines().filter(is_deleted).count(), 0);
    }
    // It goes on where its policy says.
    let next = slow.poll(SOON).unwrap();
    let first = next.iter().next().unwrap().offset();
    assert!(first >= 900, "{first}");
}

#[test]
fn a_consumer_below_the_new_start_gets_its_reset_policy() {
    let (store, topic, partition) = in_segments(100);
    let consumer = |reset| {
        let builder = store.consumer().start(Start::Earliest).reset(reset).max_poll_records(5);
        let mut consumer = builder.assign([&partition]).unwrap();
        assert_eq!(consumer.poll(Duration::ZERO).unwrap().count(), 5);
        consumer
    };
    let mut earliest = consumer(OffsetReset::Earliest);
    let mut latest = consumer(OffsetReset::Latest);
    let mut strict = consumer(OffsetReset::Error);
    partition.delete_records(60).unwrap();
    let begun = Instant::now();
    assert_eq!(earliest.poll(LONG).unwrap().iter().next().unwrap().offset(), 60);
    assert!(latest.poll(Duration::ZERO).unwrap().is_empty());
    assert_eq!(latest.position(&partition).unwrap(), 100);
    let error = strict.poll(LONG).unwrap_err();
    assert!(
        matches!(error, Error::OffsetOutOfRange { offset: 5, start: 60, end: 100, .. }),
        "{error}"
    );
    assert!(begun.elapsed() < SOON);
    drop(topic);
}

#[test]
fn nobody_skips_what_was_deleted_unawares_while_it_is_being_deleted() {
    let (store, topic, partition) = in_segments(3000);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let builder = store.consumer().start(Start::Earliest);
                let (is_over, partition) = (&is_over, partition.clone());
                let mut reader = builder
                    .reset(OffsetReset::Error)
                    .max_poll_records(7)
                    .assign([&partition])
                    .unwrap();
                scope.spawn(move || {
                    let (mut expected, mut told) = (0, 0);
                    while expected < 3000 {
                        // Now and then it stands still until it is overtaken.
                        let is_overtaken = || partition.watermarks().unwrap().0 > expected;
                        while expected % 5 == 0 && !is_overtaken() && !is_over.load(SeqCst) {
                            thread::yield_now();
                        }
                        match reader.poll(Duration::ZERO) {
                            Ok(records) => {
                                for message in &records {
                                    assert_eq!(message.offset(), expected, "skipped unawares");
                                    expected += 1;
                                }
                            }
                            Err(Error::OffsetOutOfRange { start, .. }) => {
                                assert!(start > expected);
                                told += 1;
                                expected = start;
                                let source = reader.assignment().next().unwrap().clone();
                                reader.seek(&source, start).unwrap();
                            }
                            Err(other) => panic!("{other}"),
                        }
                    }
                    told
                })
            })
            .collect();
        for before in (0..2900).step_by(45) {
            partition.delete_records(before).unwrap();
        }
        is_over.store(true, SeqCst);
        let told: i32 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(told > 0, "nobody was overtaken");
    });
    assert_eq!(partition.watermarks().unwrap(), (2880, 3000));
    drop(topic);
}

#[test]
fn what_a_group_had_yet_to_read_of_what_was_deleted_is_told() {
    let (store, topic, partition) = in_segments(100);
    let group = store.group("g").unwrap();
    group.alter_offsets([(&partition, 20)]).unwrap();
    let described = || group.describe().unwrap().partitions[0].clone();
    assert_eq!((described().lag, described().deleted_unread), (Some(80), Some(0)));
    partition.delete_records(50).unwrap();
    assert_eq!((described().lag, described().deleted_unread), (Some(50), Some(30)));
    let builder = store.consumer().reset(OffsetReset::Earliest);
    let mut member = builder.subscribe("g", [&topic]).unwrap();
    let records = member.poll(SOON).unwrap();
    assert_eq!(records.iter().next().unwrap().offset(), 50);
}

#[test]
fn records_of_a_compacted_topic_are_not_deleted_by_offset() {
    let store = Store::temporary().unwrap();
    let compacted = TopicConfig::new().set("cleanup.policy", "compact").unwrap();
    let topic = store.create_topic("c", compacted).unwrap();
    let error = topic.partition(0).unwrap().delete_records(-1).unwrap_err();
    assert!(matches!(&error, Error::PolicyViolation { topic, .. } if topic == "c"), "{error}");
    assert_eq!(error.kafka_code(), Some(44));
    let both = TopicConfig::new().set("cleanup.policy", "compact,delete").unwrap();
    let topic = store.create_topic("b", both).unwrap();
    assert_eq!(topic.partition(0).unwrap().delete_records(-1).unwrap(), 0);
    let reader = Store::open_read_only(store.path()).unwrap();
    let partition = reader.topic("b").unwrap().partition(0).unwrap();
    assert!(matches!(partition.delete_records(0), Err(Error::ReadOnly { .. })));
}

#[test]
fn a_reader_of_another_store_sees_that_the_beginning_was_deleted() {
    let (store, topic, partition) = in_segments(200);
    let reader = Store::open_read_only(store.path()).unwrap();
    let seen = reader.topic("t").unwrap().partition(0).unwrap();
    let begin = || reader.consumer().start(Start::Earliest).max_poll_records(3);
    let mut strict = begin().reset(OffsetReset::Error).assign([&seen]).unwrap();
    let mut waiting = begin().assign([&seen]).unwrap();
    assert_eq!(strict.poll(SOON).unwrap().count(), 3);
    assert_eq!(waiting.poll(SOON).unwrap().count(), 3);
    partition.delete_records(100).unwrap();
    assert_eq!(seen.watermarks().unwrap(), (100, 200));
    assert!(matches!(strict.poll(SOON), Err(Error::OffsetOutOfRange { start: 100, .. })));
    assert_eq!(waiting.poll(SOON).unwrap().iter().next().unwrap().offset(), 100);
    // One who looks at the directory later knows, too.
    let late = Store::open_read_only(store.path()).unwrap();
    assert_eq!(late.topic("t").unwrap().partition(0).unwrap().watermarks().unwrap(), (100, 200));
    send_numbers(&store, &topic, 200..260);
    assert_eq!(seen.watermarks().unwrap(), (100, 260));
    partition.delete_records(-1).unwrap();
    assert_eq!(seen.watermarks().unwrap(), (260, 260));
}

/// The checkpoint is a text file without a checksum: what it says must not cost anybody a log.
#[test]
fn nothing_goes_on_the_word_of_a_checkpoint_that_cannot_be_true() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    let store = Store::open(&root).unwrap();
    // The records are of long ago: no look closes a segment for that.
    let config = TopicConfig::new().segment_bytes(1500).segment_ms(i64::MAX as u64);
    let topic = store.create_topic("t", config).unwrap();
    send_numbers(&store, &topic, 0..100);
    drop(topic);
    store.close().unwrap();
    let before = base_offsets(&root.join("t-0"));
    for text in ["0\n1\nt 0 101\n", "0\n1\nt 0 9223372036854775807\n", "0\n1\nt 0\n", "?"] {
        fs::write(root.join("log-start-offset-checkpoint"), text).unwrap();
        let store = Store::open(&root).unwrap();
        assert!(!store.health().findings.is_empty(), "{text:?} went unnoticed");
        let partition = store.topic("t").unwrap().partition(0).unwrap();
        assert_eq!(partition.watermarks().unwrap(), (0, 100), "{text:?}");
        let mut consumer = store.consumer().start(Start::Earliest).assign([&partition]).unwrap();
        assert_eq!(read_all(&mut consumer).len(), 100);
        assert_eq!(store.apply_retention().unwrap().segments, 0);
        drop((partition, consumer));
        store.close().unwrap();
        assert_eq!(base_offsets(&root.join("t-0")), before, "{text:?}");
    }
}

/// Were its start forgotten at the close, what was deleted would be there again.
#[test]
fn a_partition_that_cannot_be_opened_for_a_while_begins_afterwards_where_it_began() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    let store = Store::open(&root).unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    send_numbers(&store, &topic, 0..10);
    assert_eq!(topic.partition(0).unwrap().delete_records(7).unwrap(), 7);
    drop(topic);
    store.close().unwrap();

    fs::rename(root.join("t-0"), directory.path().join("away")).unwrap();
    for _ in 0..2 {
        let store = Store::open(&root).unwrap();
        assert!(store.topic("t").unwrap().partition(0).unwrap().watermarks().is_err());
        store.close().unwrap();
    }
    fs::rename(directory.path().join("away"), root.join("t-0")).unwrap();
    let store = Store::open(&root).unwrap();
    let partition = store.topic("t").unwrap().partition(0).unwrap();
    assert_eq!(partition.watermarks().unwrap(), (7, 10));
}

#[test]
fn files_of_deleted_segments_are_kept_for_as_long_as_the_topic_says() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    let open = || {
        let builder = Store::builder(&root).retention_check_interval(Duration::from_secs(3600));
        builder.open().unwrap()
    };
    let store = open();
    // The records are of long ago: no look closes a segment for that.
    let config = TopicConfig::new().segment_bytes(1500).segment_ms(i64::MAX as u64);
    let config = config.set("file.delete.delay.ms", "3600000");
    let topic = store.create_topic("t", config.unwrap()).unwrap();
    send_numbers(&store, &topic, 0..200);
    let partition = topic.partition(0).unwrap();
    let log = root.join("t-0");
    let bases = base_offsets(&log);
    let first = fs::read(log.join("00000000000000000000.log")).unwrap();
    partition.delete_records(bases[3]).unwrap();
    let logs = |names: Vec<String>| names.iter().filter(|name| name.contains(".log.")).count();
    let described = || topic.describe().unwrap().partitions[0].clone();
    // Nobody reads what was deleted; what is kept is what was there, and is told.
    assert_eq!(
        (partition.watermarks().unwrap().0, base_offsets(&log)),
        (bases[3], bases[3..].to_vec())
    );
    assert_eq!(logs(names_of_what_goes(&log)), 3);
    let kept = fs::read(log.join("00000000000000000000.log.deleted")).unwrap();
    // Space that was reserved behind the batches may have been given back.
    assert!(kept.len() > 1000 && first.starts_with(&kept));
    assert!(described().deleted_len > 3 * 1000, "{:?}", described());
    assert_eq!(store.health().deleted_bytes, described().deleted_len);
    assert!(described().allocated_len > described().deleted_len);
    let reader = Store::open_read_only(&root).unwrap();
    let seen = reader.topic("t").unwrap().describe().unwrap().partitions[0].clone();
    assert_eq!(seen.deleted_len, described().deleted_len);
    drop(reader);
    // No look takes them before their time, and more come to them.
    store.apply_retention().unwrap();
    partition.delete_records(bases[5]).unwrap();
    assert_eq!(logs(names_of_what_goes(&log)), 5);

    // The next open does, whatever is left of it.
    drop((topic, partition));
    store.close().unwrap();
    assert_eq!(logs(names_of_what_goes(&log)), 5);
    assert!(ottla::inspect::check(&root).unwrap().problems.is_empty());
    let store = open();
    let topic = store.topic("t").unwrap();
    let partition = topic.partition(0).unwrap();
    assert!(names_of_what_goes(&log).is_empty());
    assert_eq!(partition.watermarks().unwrap(), (bases[5], 200));

    // What is changed applies to those that wait.
    partition.delete_records(bases[6]).unwrap();
    assert_eq!(logs(names_of_what_goes(&log)), 1);
    topic.alter("file.delete.delay.ms", Some("0")).unwrap();
    wait_until_all_went(&log);
    assert_eq!(topic.describe().unwrap().partitions[0].deleted_len, 0);
    partition.delete_records(bases[7]).unwrap();
    assert!(names_of_what_goes(&log).is_empty());

    // And their time ends by itself.
    topic.alter("file.delete.delay.ms", Some("30")).unwrap();
    partition.delete_records(-1).unwrap();
    wait_until_all_went(&log);
    assert!(store.health().is_good(), "{:?}", store.health());
    // A topic's that is deleted are not kept.
    topic.alter("file.delete.delay.ms", Some("3600000")).unwrap();
    send_numbers(&store, &topic, 200..300);
    partition.delete_records(-1).unwrap();
    assert!(!names_of_what_goes(&log).is_empty());
    store.delete_topic("t").unwrap();
    assert!(!log.exists());
}

fn wait_until_all_went(directory: &Path) {
    let begun = Instant::now();
    while !names_of_what_goes(directory).is_empty() {
        assert!(begun.elapsed() < LONG, "{:?}", names_of_what_goes(directory));
        thread::sleep(Duration::from_millis(1));
    }
}
