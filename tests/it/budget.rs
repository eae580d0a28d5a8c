//! A store that may not take more than so many bytes: what goes, or who is refused, and what is on the disk.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ottla::BudgetPolicy;
use ottla::Durability;
use ottla::Error;
use ottla::Record;
use ottla::Start;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;

use crate::consuming::read_all;
use crate::waiting::LONG;

const LIMIT: u64 = 1 << 20;

fn open(root: &Path, policy: BudgetPolicy) -> Store {
    Store::builder(root)
        .durability(Durability::Buffered)
        .retention_check_interval(Duration::from_secs(3600))
        .bytes_max(LIMIT, policy)
        .open()
        .unwrap()
}

fn send(store: &Store, topic: &Topic, partition: u32, value: &[u8]) -> Result<i64, Error> {
    let record = Record::new(value).partition(partition);
    store.producer().send(topic, record)?.wait().map(|sent| sent.offset())
}

/// The bytes that the logs of a store take on the disk, those that are about to go included.
fn logs_len(root: &Path) -> u64 {
    let directories = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let files = directories
        .filter(|path| path.is_dir())
        .flat_map(|path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap()));
    let logs = files.filter(|file| file.file_name().to_string_lossy().contains(".log"));
    logs.filter_map(|log| log.metadata().ok()).map(|metadata| metadata.blocks() * 512).sum()
}

fn len(topic: &Topic) -> Vec<u64> {
    topic.describe().unwrap().partitions.iter().map(|partition| partition.len).collect()
}

#[test]
fn with_drop_oldest_the_oldest_segments_go_and_nobody_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    let store = open(&root, BudgetPolicy::DropOldest);
    let config = TopicConfig::new().partitions(3).segment_bytes(64 << 10);
    let topic = store.create_topic("t", config).unwrap();
    // Ten times the limit, most of it in one partition.
    let value = [7; 4000];
    let mut most = 0;
    for n in 0..2700_u32 {
        let partition = if n % 10 < 8 { 0 } else { 1 + n % 2 };
        send(&store, &topic, partition, &value).unwrap();
        if n % 50 == 0 {
            most = most.max(logs_len(&root));
        }
    }
    // On top come files that are about to go, and what file systems round up.
    assert!(most < LIMIT + LIMIT / 4, "{most} bytes were on the disk");
    let lens = len(&topic);
    let total: u64 = lens.iter().sum();
    assert!(total <= LIMIT, "{lens:?}");
    assert!(total > LIMIT / 2, "more went than had to: {lens:?}");
    // The one that has most loses first, so the others are left alone until they have as much.
    assert!(lens[0] + (64 << 10) >= lens[1].max(lens[2]), "{lens:?}");
    for partition in topic.partitions() {
        let (start, end) = partition.watermarks().unwrap();
        let mut consumer = store.consumer().start(Start::Earliest).assign([&partition]).unwrap();
        let seen: Vec<i64> = read_all(&mut consumer).iter().map(|seen| seen.offset).collect();
        // The background may have let go of another segment in between: it was asked to while the last were sent.
        let first = seen[0];
        assert!(first >= start, "{first} lies below {start}");
        assert_eq!(seen, (first..end).collect::<Vec<_>>());
    }
    assert!(topic.partition(0).unwrap().watermarks().unwrap().0 > 0);
    assert!(store.health().is_good(), "{:?}", store.health());
    drop(topic);
    store.close().unwrap();
    assert!(ottla::inspect::check(&root).unwrap().problems.is_empty());
    assert!(logs_len(&root) < LIMIT + LIMIT / 16);
    // It is counted anew when it is opened.
    let store = open(&root, BudgetPolicy::DropOldest);
    let topic = store.topic("t").unwrap();
    let again: u64 = len(&topic).iter().sum();
    assert!(again <= total && again > LIMIT / 2, "{again} of {total}");
    for _ in 0..100 {
        send(&store, &topic, 2, &value).unwrap();
    }
    assert!(len(&topic).iter().sum::<u64>() <= LIMIT);
}

#[test]
fn where_no_full_segment_is_left_the_largest_that_is_appended_to_goes() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("data"), BudgetPolicy::DropOldest);
    let topic = store.create_topic("t", TopicConfig::new().partitions(2)).unwrap();
    for n in 0..1000_u32 {
        send(&store, &topic, n % 2, &[7; 4000]).unwrap();
    }
    assert!(len(&topic).iter().sum::<u64>() <= LIMIT);
    let described = topic.describe().unwrap();
    assert!(described.partitions.iter().all(|p| p.log_end == 500 && p.log_start > 0));
}

#[test]
fn with_back_pressure_appends_are_refused_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    let store = open(&root, BudgetPolicy::BackPressure);
    let config = TopicConfig::new().partitions(2).segment_bytes(128 << 10);
    let topic = store.create_topic("t", config).unwrap();
    let mut sent = 0;
    let refused = loop {
        match send(&store, &topic, sent % 2, &[7; 4000]) {
            Ok(offset) => assert_eq!(offset, i64::from(sent / 2)),
            Err(refused) => break refused,
        }
        sent += 1;
        assert!(sent < 1000);
    };
    assert!(refused.is_retriable() && !refused.is_fatal(), "{refused}");
    assert!(matches!(refused, Error::StoreFull { used, limit: LIMIT } if used <= LIMIT));
    assert_eq!(refused.kafka_code(), Some(89));
    assert!(logs_len(&root) < LIMIT + LIMIT / 16, "{}", logs_len(&root));
    // Nearly all of it was used, and every record that was taken is there.
    assert!(sent > 240, "{sent}");
    let mut consumer = store.consumer().start(Start::Earliest).assign(topic.partitions()).unwrap();
    assert_eq!(read_all(&mut consumer).len(), sent as usize);
    // A batch is refused whole, a record that still fits is taken.
    let batch: Vec<_> = (0..20).map(|_| Record::new(&[7; 4000])).collect();
    let producer = store.producer();
    assert!(matches!(
        producer.send_batch(&topic.partition(0).unwrap(), batch),
        Err(Error::StoreFull { .. })
    ));
    // What was read makes room for as much.
    topic.partition(0).unwrap().delete_records(100).unwrap();
    for _ in 0..60 {
        send(&store, &topic, 1, &[7; 4000]).unwrap();
    }
    assert!(store.health().is_good(), "{:?}", store.health());
    // Groups go on all the same.
    let group = store.group("g").unwrap();
    group.alter_offsets([(topic.partition(1).unwrap(), 5)]).unwrap();
}

#[test]
fn who_is_refused_has_retention_applied_and_a_staging_producer_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("data"), BudgetPolicy::BackPressure);
    let config = TopicConfig::new().segment_bytes(64 << 10);
    let topic = store.create_topic("t", config).unwrap();
    let producer = store.producer_builder().linger(Duration::from_millis(1)).build();
    let mut refused = 0;
    for _ in 0..400 {
        let delivery = producer.send(&topic, Record::new(&[7; 4000])).unwrap();
        match delivery.wait() {
            Ok(_) => {}
            Err(Error::StoreFull { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 100 && refused < 200, "{refused}");
    // What the topic need not keep goes in the background, though the interval is an hour.
    topic.alter("retention.bytes", Some("100000")).unwrap();
    let begun = Instant::now();
    while send(&store, &topic, 0, &[7; 4000]).is_err() {
        assert!(begun.elapsed() < LONG);
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn many_who_send_at_once_stay_within_the_budget() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    let store = open(&root, BudgetPolicy::DropOldest);
    let config = TopicConfig::new().partitions(4).segment_bytes(32 << 10);
    let topic = store.create_topic("t", config).unwrap();
    thread::scope(|scope| {
        for partition in 0..4 {
            let (store, topic) = (&store, &topic);
            scope.spawn(move || {
                for n in 0..800 {
                    assert_eq!(send(store, topic, partition, &[7; 3000]).unwrap(), n);
                }
            });
        }
    });
    assert!(len(&topic).iter().sum::<u64>() <= LIMIT);
    assert!(store.health().is_good(), "{:?}", store.health());
}

#[test]
fn what_is_kept_by_key_is_not_dropped_and_a_budget_that_is_too_small_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("data"), BudgetPolicy::DropOldest);
    let config = TopicConfig::new().segment_bytes(64 << 10).set("cleanup.policy", "compact");
    let topic = store.create_topic("c", config.unwrap()).unwrap();
    let record = || Record::new(&[7; 4000]).key("k");
    let producer = store.producer();
    let refused = loop {
        if let Err(refused) = producer.send(&topic, record()) {
            break refused;
        }
    };
    assert!(matches!(refused, Error::StoreFull { .. }), "{refused}");
    assert_eq!(topic.partition(0).unwrap().watermarks().unwrap().0, 0);
    let small = Store::builder_temporary().bytes_max(1000, BudgetPolicy::DropOldest).open();
    assert!(matches!(small, Err(Error::InvalidArgument { argument: "bytes_max", .. })));
}

/// A delay is for people who deleted too much. A bound on the disk is for everybody.
#[test]
fn files_that_are_kept_for_a_while_count_and_go_first_when_there_is_no_room() {
    for policy in [BudgetPolicy::DropOldest, BudgetPolicy::BackPressure] {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("data");
        let store = open(&root, policy);
        let config = TopicConfig::new().partitions(2).segment_bytes(64 << 10);
        let config = config.set("file.delete.delay.ms", "3600000").unwrap();
        let topic = store.create_topic("t", config).unwrap();
        let partition = topic.partition(0).unwrap();
        let mut most = 0;
        for round in 1..6 {
            for _ in 0..150 {
                send(&store, &topic, 0, &[7; 4000]).unwrap();
            }
            let end = partition.watermarks().unwrap().1;
            let used = store.health().budget_used;
            partition.delete_records(end - 10).unwrap();
            if round == 1 {
                // Nobody needs the room yet.
                let health = store.health();
                assert!(health.deleted_bytes > 400_000, "{policy:?}: {health:?}");
                assert!(health.budget_used + (128 << 10) > used, "{policy:?}: {used}, {health:?}");
            }
            most = most.max(logs_len(&root));
        }
        // What is not deleted is all there: nothing of it went for the sake of what was.
        let (start, end) = partition.watermarks().unwrap();
        assert_eq!((start, end), (5 * 150 - 10, 5 * 150), "{policy:?}");
        assert!(most < LIMIT + LIMIT / 4, "{policy:?}: {most} bytes were on the disk");
        assert!(store.health().is_good(), "{:?}", store.health());
    }
}
