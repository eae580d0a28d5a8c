//! Topics: create, list, describe, alter, grow, delete, create again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::time::Duration;
use std::time::Instant;

use ottla::ConfigEffect;
use ottla::Durability;
use ottla::Error;
use ottla::Record;
use ottla::Store;
use ottla::TopicConfig;
use tempfile::TempDir;

use crate::consuming::Seen;
use crate::consuming::read_all;
use crate::consuming::send_numbers;
use crate::consuming::store_with_topic;
use crate::golden::files;
use crate::waiting::SOON;

#[test]
fn topics_are_listed_by_name_and_found_by_name() {
    let store = Store::temporary().unwrap();
    for name in ["b", "a", "c"] {
        store.create_topic(name, TopicConfig::new()).unwrap();
    }
    let names: Vec<String> = store.topics().unwrap().iter().map(|t| t.name().to_owned()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let missing = store.topic("d").unwrap_err();
    assert!(matches!(&missing, Error::UnknownTopic { name } if name == "d"), "{missing}");
    assert!(matches!(store.delete_topic("d"), Err(Error::UnknownTopic { .. })));
}

#[test]
fn creating_twice_is_refused_and_or_create_gives_the_one_there_is() {
    let store = Store::temporary().unwrap();
    let first = store.create_topic("t", TopicConfig::new().partitions(2)).unwrap();
    let twice = store.create_topic("t", TopicConfig::new().partitions(5)).unwrap_err();
    assert!(matches!(&twice, Error::TopicExists { name } if name == "t"), "{twice}");
    let same = store.topic_or_create("t", TopicConfig::new().partitions(5)).unwrap();
    assert_eq!(same, first);
    assert_eq!(same.partition_count(), 2);
    assert_eq!(
        store.topic_or_create("u", TopicConfig::new().partitions(5)).unwrap().partition_count(),
        5
    );
}

#[test]
fn a_topic_without_partitions_is_refused_and_leaves_no_trace() {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let before = files(directory.path());
    let error = store.create_topic("t", TopicConfig::new().partitions(0)).unwrap_err();
    assert!(matches!(error, Error::InvalidPartitions { requested: 0, .. }), "{error}");
    let error = store.create_topic("t", TopicConfig::new().segment_bytes(1)).unwrap_err();
    assert!(matches!(error, Error::InvalidConfig { .. }), "{error}");
    assert!(files(directory.path()) == before);
    assert!(store.topics().unwrap().is_empty());
}

#[test]
fn ids_configurations_and_partitions_survive_reopening() {
    let directory = TempDir::new().unwrap();
    let mut ids = Vec::new();
    for round in 0..3 {
        let store = Store::open(directory.path()).unwrap();
        if round == 0 {
            for n in 1..=3 {
                let config = TopicConfig::new()
                    .partitions(n)
                    .segment_bytes(2048 * n)
                    .set("retention.ms", &format!("{}", 1000 * n))
                    .unwrap();
                store.create_topic(&format!("t{n}"), config).unwrap();
            }
            store.topic("t3").unwrap().add_partitions(5).unwrap();
            store.topic("t2").unwrap().alter("segment.ms", Some("12345")).unwrap();
            store.topic("t1").unwrap().alter("segment.bytes", None).unwrap();
            ids = store.topics().unwrap().iter().map(|topic| topic.id()).collect();
        }
        let topics = store.topics().unwrap();
        assert_eq!(topics.iter().map(|topic| topic.id()).collect::<Vec<_>>(), ids);
        assert_eq!(
            topics.iter().map(|topic| topic.partition_count()).collect::<Vec<_>>(),
            [1, 2, 5]
        );
        let value = |topic: usize, name: &str| {
            let description = topics[topic].describe().unwrap();
            let entry = description.config(name).unwrap();
            (entry.value.clone(), entry.is_default)
        };
        assert_eq!(value(0, "segment.bytes"), ("67108864".to_owned(), true));
        assert_eq!(value(1, "segment.bytes"), ("4096".to_owned(), false));
        assert_eq!(value(1, "segment.ms"), ("12345".to_owned(), false));
        assert_eq!(value(2, "segment.ms"), ("604800000".to_owned(), true));
        assert_eq!(value(2, "retention.ms"), ("3000".to_owned(), false));
        drop(topics);
        if round == 1 {
            // Without a close: the last handle closes.
            drop(store);
        } else {
            store.close().unwrap();
        }
    }
    ids.dedup();
    assert_eq!(ids.len(), 3, "every topic has an id of its own");
}

#[test]
fn a_description_tells_what_is_there() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(2).segment_bytes(1024));
    send_numbers(&store, &topic, 0..100);
    store.sync().unwrap();
    let description = topic.describe().unwrap();
    assert_eq!((description.name.as_str(), description.id), ("t", topic.id()));
    let [full, empty] = &description.partitions[..] else { panic!() };
    assert_eq!((full.partition, full.log_start, full.log_end), (0, 0, 100));
    assert_eq!(full.durable_end, 100);
    assert_eq!(full.failure, None);
    assert!(full.segment_count > 3);
    assert_eq!((empty.partition, empty.log_start, empty.log_end, empty.len), (1, 0, 0, 0));
    assert_eq!(empty.segment_count, 1);
    let on_disk: usize = files(&store.path().join("t-0"))
        .iter()
        .filter(|(name, _)| name.ends_with(".log"))
        .map(|(_, bytes)| bytes.len())
        .sum();
    assert!(full.len > 0 && full.len <= on_disk as u64, "space may be reserved behind the end");
    assert_eq!(topic.partition(0).unwrap().watermarks().unwrap(), (0, 100));
    assert_eq!(topic.partition(0).unwrap().to_string(), "t-0");
    let unknown = topic.partition(2).unwrap_err();
    assert!(matches!(unknown, Error::UnknownPartition { partition: 2, count: 2, .. }), "{unknown}");
}

/// Every topic property of Kafka 3.9 and 4.x, with a value it accepts.
const KAFKA_PROPERTIES: &[(&str, &str)] = &[
    ("cleanup.policy", "compact,delete"),
    ("compression.gzip.level", "9"),
    ("compression.lz4.level", "17"),
    ("compression.type", "producer"),
    ("compression.zstd.level", "-5"),
    ("delete.retention.ms", "86400000"),
    ("file.delete.delay.ms", "60000"),
    ("flush.messages", "9223372036854775807"),
    ("flush.ms", "9223372036854775807"),
    ("follower.replication.throttled.replicas", "*"),
    ("index.interval.bytes", "512"),
    ("leader.replication.throttled.replicas", "0:1"),
    ("local.retention.bytes", "-2"),
    ("local.retention.ms", "-2"),
    ("max.compaction.lag.ms", "9223372036854775807"),
    ("max.message.bytes", "1048588"),
    ("message.downconversion.enable", "false"),
    ("message.format.version", "3.0-IV1"),
    ("message.timestamp.after.max.ms", "9223372036854775807"),
    ("message.timestamp.before.max.ms", "1000"),
    ("message.timestamp.type", "LogAppendTime"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("min.compaction.lag.ms", "0"),
    ("min.insync.replicas", "1"),
    ("preallocate", "false"),
    ("remote.log.copy.disable", "false"),
    ("remote.log.delete.on.disable", "false"),
    ("remote.storage.enable", "false"),
    ("retention.bytes", "-1"),
    ("retention.ms", "-1"),
    ("segment.bytes", "1048576"),
    ("segment.index.bytes", "10485760"),
    ("segment.jitter.ms", "0"),
    ("segment.ms", "1"),
    ("unclean.leader.election.enable", "false"),
];

#[test]
fn every_property_of_kafka_is_accepted_at_creation_and_later_and_is_kept() {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let config = KAFKA_PROPERTIES
        .iter()
        .fold(TopicConfig::new(), |config, (key, value)| config.set(key, value).unwrap());
    assert_eq!(config.overrides().count(), KAFKA_PROPERTIES.len());
    store.create_topic("created", config).unwrap();
    let altered = store.create_topic("altered", TopicConfig::new()).unwrap();
    let changes: Vec<(&str, Option<&str>)> =
        KAFKA_PROPERTIES.iter().map(|(key, value)| (*key, Some(*value))).collect();
    altered.alter_all(&changes).unwrap();
    drop(altered);
    store.close().unwrap();

    let store = Store::open(directory.path()).unwrap();
    for topic in store.topics().unwrap() {
        let description = topic.describe().unwrap();
        for (key, value) in KAFKA_PROPERTIES {
            let entry = description.config(key).unwrap();
            assert_eq!((entry.value.as_str(), entry.is_default), (*value, false), "{key}");
        }
    }
}

#[test]
fn a_property_that_does_nothing_says_so() {
    let store = Store::temporary().unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    let description = topic.describe().unwrap();
    let effect = |name| description.config(name).unwrap().effect;
    assert_eq!(effect("segment.bytes"), ConfigEffect::InForce);
    assert_eq!(effect("leader.replication.throttled.replicas"), ConfigEffect::NoNetwork);
    assert_eq!(description.config("segmnt.bytes"), None);
}

#[test]
fn an_unknown_property_or_a_bad_value_is_refused_and_changes_nothing() {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    let before = files(directory.path());
    for (key, value) in [("segmnt.bytes", Some("1")), ("", None), ("Segment.bytes", Some("4096"))] {
        let error = topic.alter(key, value).unwrap_err();
        assert!(
            matches!(&error, Error::UnknownConfig { key: named, .. } if named == key),
            "{error}"
        );
    }
    for value in ["", "0", "-1", "1e6", "99999999999999999999", "4096 bytes"] {
        let changes = [("segment.ms", Some("1000")), ("segment.bytes", Some(value))];
        let error = topic.alter_all(&changes).unwrap_err();
        assert!(
            matches!(&error, Error::InvalidConfig { key, .. } if key == "segment.bytes"),
            "{error}"
        );
    }
    assert!(topic.describe().unwrap().configs.iter().all(|entry| entry.is_default));
    assert!(files(directory.path()) == before);
}

#[test]
fn what_shapes_segments_applies_from_the_next_roll() {
    let (store, topic) = store_with_topic(TopicConfig::new().segment_bytes(1 << 20));
    send_numbers(&store, &topic, 0..100);
    topic.alter("segment.bytes", Some("1024")).unwrap();
    send_numbers(&store, &topic, 100..200);
    assert!(topic.describe().unwrap().partitions[0].segment_count > 3);
    topic.alter("segment.bytes", Some("1048576")).unwrap();
    let count = topic.describe().unwrap().partitions[0].segment_count;
    send_numbers(&store, &topic, 200..1000);
    assert!(topic.describe().unwrap().partitions[0].segment_count <= count + 1);
    let seen = read_all(&mut store.consumer().assign(topic.partitions()).unwrap());
    assert_eq!(seen.len(), 1000);
}

#[test]
fn a_changed_index_interval_applies_from_the_next_roll() {
    let config = TopicConfig::new().segment_bytes(16_384);
    let (store, topic) = store_with_topic(config);
    topic.alter("index.interval.bytes", Some("100")).unwrap();
    send_numbers(&store, &topic, 0..2_000);
    // Segments are sealed, and their indexes written, in the background or with a sync.
    store.sync().unwrap();
    let all = files(&store.path().join("t-0"));
    let indexes: Vec<usize> = all
        .iter()
        .filter(|(name, bytes)| name.ends_with(".index") && !bytes.is_empty())
        .map(|(_, bytes)| bytes.len() / 8)
        .collect();
    // 16 KiB of log with an entry every 100 to 200 bytes; with the default interval there are three.
    let last = *indexes.last().unwrap();
    assert!(last > 50, "{indexes:?} entries");
}

#[test]
fn a_segment_that_is_empty_when_it_must_make_way_is_replaced() {
    // The last segment was closed for its age, so its successor is empty, and made for 1024 bytes. Then
    // the topic comes to accept larger batches.
    let store = Store::builder_temporary()
        .durability(Durability::Buffered)
        .checkpoint_interval(Duration::from_millis(5))
        .open()
        .unwrap();
    let config = TopicConfig::new().segment_bytes(1024).segment_ms(1);
    let topic = store.create_topic("t", config).unwrap();
    send_numbers(&store, &topic, 0..1);
    let begun = Instant::now();
    while topic.describe().unwrap().partitions[0].segment_count < 2 {
        assert!(begun.elapsed() < SOON, "the segment is older than segment.ms");
        std::thread::sleep(Duration::from_millis(1));
    }
    topic.alter_all(&[("segment.bytes", Some("1048576")), ("segment.ms", None)]).unwrap();
    let large = vec![b'x'; 100_000];
    let producer = store.producer();
    let mut waiting = store.consumer().assign(topic.partitions()).unwrap();
    assert_eq!(read_all(&mut waiting).len(), 1);
    for offset in 1..4 {
        let sent = producer.send(&topic, Record::new(&large).timestamp(1000)).unwrap().wait();
        assert_eq!(sent.unwrap().offset(), offset);
        let came = read_all(&mut waiting);
        assert_eq!(came.len(), 1);
        assert_eq!((came[0].offset, came[0].value.as_deref()), (offset, Some(&large[..])));
    }
    assert_eq!(read_all(&mut store.consumer().assign(topic.partitions()).unwrap()).len(), 4);
    let partition = &topic.describe().unwrap().partitions[0];
    assert_eq!(partition.segment_count, 2);
    assert!(partition.len < 400_000, "{}", partition.len);
}

#[test]
fn partitions_can_only_be_added() {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let topic = store.create_topic("t", TopicConfig::new().partitions(3)).unwrap();
    let before = files(directory.path());
    for count in [0, 1, 2, 3] {
        let error = topic.add_partitions(count).unwrap_err();
        let is_told =
            matches!(&error, Error::InvalidPartitions { requested, .. } if *requested == count);
        assert!(is_told, "{error}");
    }
    assert!(files(directory.path()) == before);
    assert_eq!(topic.partition_count(), 3);

    let held = store.topic("t").unwrap();
    topic.add_partitions(5).unwrap();
    assert_eq!(held.partition_count(), 5, "every handle knows");
    store.producer().send_batch(&held.partition(4).unwrap(), ["v"]).unwrap().wait().unwrap();
    drop((topic, held));
    store.close().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let topic = store.topic("t").unwrap();
    assert_eq!(topic.partition_count(), 5);
    assert_eq!(topic.partition(4).unwrap().watermarks().unwrap(), (0, 1));
}

#[test]
fn a_deleted_topic_is_gone_for_everyone_who_holds_it() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(2));
    send_numbers(&store, &topic, 0..10);
    let partition = topic.partition(0).unwrap();
    let producer = store.producer();
    let synced = store.producer_builder().durability(Durability::Synced).build();
    let mut consumer = store.consumer().max_poll_records(3).assign([&partition]).unwrap();
    let records = consumer.poll(Duration::ZERO).unwrap();
    let wanted: Vec<Seen> = records.iter().map(Seen::from).collect();
    store.delete_topic("t").unwrap();

    fn assert_deleted<T: std::fmt::Debug>(outcome: ottla::Result<T>) {
        match outcome {
            Err(Error::TopicDeleted { name }) => assert_eq!(name, "t"),
            other => panic!("{other:?}"),
        }
    }
    assert_deleted(producer.send(&topic, "late"));
    assert_deleted(producer.send_batch(&partition, ["late"]));
    assert_deleted(synced.send(&topic, "late"));
    assert_deleted(consumer.poll(Duration::ZERO));
    assert_deleted(topic.describe());
    assert_deleted(topic.alter("segment.ms", Some("1")));
    assert_deleted(topic.add_partitions(9));
    assert_deleted(partition.watermarks());
    assert_deleted(partition.offset_for_time(0));
    assert_deleted(store.consumer().assign([&partition]));
    producer.flush().unwrap();
    synced.flush().unwrap();
    store.sync().unwrap();
    assert!(matches!(store.topic("t"), Err(Error::UnknownTopic { .. })));
    assert_eq!(records.iter().map(Seen::from).collect::<Vec<_>>(), wanted);
    let left = files(store.path());
    assert!(left.keys().all(|name| !name.starts_with("t-")), "{:?}", left.keys());
    assert!(
        left["ottla.topics"].windows(2).all(|w| w != b"t "),
        "the list of topics knows nothing of it"
    );
}

#[test]
fn a_topic_may_be_created_again_at_once_and_is_another_one() {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let mut ids = Vec::new();
    for _ in 0..5 {
        let topic = store.create_topic("t", TopicConfig::new().partitions(2)).unwrap();
        assert_eq!(topic.partition(0).unwrap().watermarks().unwrap(), (0, 0));
        let sent = store.producer().send(&topic, Record::new("v").partition(0)).unwrap().wait();
        assert_eq!(sent.unwrap().offset(), 0);
        ids.push(topic.id());
        store.delete_topic("t").unwrap();
    }
    let old = store.create_topic("t", TopicConfig::new()).unwrap();
    store.delete_topic("t").unwrap();
    let new = store.create_topic("t", TopicConfig::new()).unwrap();
    assert_ne!(old, new);
    assert!(matches!(store.producer().send(&old, "v"), Err(Error::TopicDeleted { .. })));
    store.producer().send(&new, "v").unwrap().wait().unwrap();
    ids.push(new.id());
    let id = new.id();
    drop((old, new));
    store.close().unwrap();
    ids.sort_by_key(ToString::to_string);
    ids.dedup();
    assert_eq!(ids.len(), 6);

    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.topic("t").unwrap().id(), id);
    assert_eq!(store.topic("t").unwrap().partition(0).unwrap().watermarks().unwrap(), (0, 1));
    assert_eq!(store.health().findings, []);
}

/// A producer may outlive many topics; what it keeps of them must not keep their space.
#[cfg(target_os = "linux")]
#[test]
fn a_deleted_topics_files_are_let_go_though_its_producer_lives() {
    let store = Store::builder_temporary().durability(Durability::Buffered).open().unwrap();
    let producer = store.producer();
    let config = TopicConfig::new().segment_bytes(4096);
    let topic = store.create_topic("doomed", config).unwrap();
    for n in 0..200 {
        producer.send(&topic, &format!("{n:0100}")).unwrap();
    }
    let root = store.path().to_str().unwrap().to_owned();
    let held = || {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
        let descriptors = descriptors.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        let mut held: Vec<String> =
            descriptors.map(|path| path.to_string_lossy().into_owned()).collect();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        held.extend(maps.lines().map(str::to_owned));
        held.retain(|name| name.contains(&root) && name.contains("doomed-0"));
        held
    };
    assert!(!held().is_empty());
    store.delete_topic("doomed").unwrap();
    assert_eq!(held(), Vec::<String>::new());
    assert!(matches!(producer.send(&topic, "late"), Err(Error::TopicDeleted { .. })));
}
