//! Retention: what goes by age, what by size, when, and what never does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::fs;
use std::fs::File;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use ottla::ConfigEffect;
use ottla::Durability;
use ottla::OffsetReset;
use ottla::Record;
use ottla::Start;
use ottla::Store;
use ottla::StoreBuilder;
use ottla::Topic;
use ottla::TopicConfig;

use crate::consuming::read_all;
use crate::deleting::allocated_len;
use crate::waiting::LONG;
use crate::waiting::SOON;

const HOUR_MS: i64 = 3_600_000;

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn small_segments() -> TopicConfig {
    TopicConfig::new().segment_bytes(4096)
}

fn builder(root: &Path) -> StoreBuilder {
    Store::builder(root)
        .durability(Durability::Buffered)
        .retention_check_interval(Duration::from_secs(3600))
}

/// Sends records of 400 bytes with one timestamp until another segment has begun.
fn fill_segment(store: &Store, topic: &Topic, timestamp_ms: i64) {
    let segments = || topic.describe().unwrap().partitions[0].segment_count;
    let before = segments();
    while segments() == before {
        let record = Record::new(&[7; 400]).partition(0).timestamp(timestamp_ms);
        store.producer().send(topic, record).unwrap();
    }
}

/// The base offsets of the segments in a directory.
pub(crate) fn base_offsets(directory: &Path) -> Vec<i64> {
    let names = fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string());
    let parse = |name: String| name.strip_suffix(".log")?.parse().ok();
    let mut found: Vec<i64> = names.filter_map(|name| parse(name.unwrap())).collect();
    found.sort_unstable();
    found
}

/// Lets the file of a segment say that it was changed so long ago.
fn set_age(directory: &Path, base_offset: i64, age_ms: i64) {
    let path = directory.join(format!("{base_offset:020}.log"));
    let time = SystemTime::now() - Duration::from_millis(age_ms as u64);
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// A closed directory whose topic `t` has full segments with records and files of the ages given, in hours, and a last
/// one with a record of its own; and where they begin.
fn aged(root: &Path, config: TopicConfig, ages: &[(i64, i64)]) -> Vec<i64> {
    let store = builder(root).open().unwrap();
    let topic = store.create_topic("t", config).unwrap();
    let now_ms = now_ms();
    for (record_age, _) in ages {
        fill_segment(&store, &topic, now_ms - record_age * HOUR_MS);
    }
    drop(topic);
    store.close().unwrap();
    let directory = root.join("t-0");
    let begun = base_offsets(&directory);
    assert_eq!(begun.len(), ages.len() + 1);
    for (base_offset, (_, file_age)) in begun.iter().zip(ages) {
        set_age(&directory, *base_offset, file_age * HOUR_MS);
    }
    begun
}

#[test]
fn segments_go_by_age_from_the_oldest_on_and_up_to_the_first_young_one() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    let config = small_segments().retention_ms(10 * HOUR_MS);
    let begun = aged(&root, config, &[(30, 30), (20, 20), (11, 11), (9, 9), (40, 40)]);
    let store = builder(&root).open().unwrap();
    let partition = store.topic("t").unwrap().partition(0).unwrap();
    let retained = store.apply_retention().unwrap();
    assert_eq!(retained.segments, 3);
    assert_eq!(retained.records, begun[3] as u64);
    assert!(retained.bytes > 3 * 3500 && retained.bytes < 3 * 4096, "{retained:?}");
    // The fifth is old, but stands behind a young one.
    assert_eq!(partition.watermarks().unwrap().0, begun[3]);
    assert_eq!(base_offsets(&root.join("t-0")), begun[3..]);
    assert_eq!(store.apply_retention().unwrap().segments, 0);
    assert!(store.health().is_good());
    drop(partition);
    store.close().unwrap();
    assert!(ottla::inspect::check(&root).unwrap().problems.is_empty());
}

/// Kafka goes by the records alone: what was sent with times of long ago it deletes minutes after it was written.
#[test]
fn neither_records_of_long_ago_nor_a_file_of_long_ago_alone_make_a_segment_old() {
    let directory = tempfile::tempdir().unwrap();
    for (name, ages, goes) in [
        ("records", [(1000, 0), (1000, 0)], 0),
        ("files", [(0, 1000), (0, 1000)], 0),
        ("future", [(-1, 1000), (1000, 1000)], 0),
        ("both", [(1000, 1000), (1000, 0)], 1),
    ] {
        let root = directory.path().join(name);
        aged(&root, small_segments().retention_ms(10 * HOUR_MS), &ages);
        let store = builder(&root).open().unwrap();
        assert_eq!(store.apply_retention().unwrap().segments, goes, "{name}");
    }
}

#[test]
fn the_last_segment_ages_too_and_offsets_go_on_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    let config = small_segments().retention_ms(10 * HOUR_MS);
    let begun = aged(&root, config, &[(20, 20), (20, 20)]);
    let last = *begun.last().unwrap();
    let store = builder(&root).open().unwrap();
    let topic = store.topic("t").unwrap();
    let partition = topic.partition(0).unwrap();
    // What is in the last one was sent with an old time, by the test, but the file is young.
    assert_eq!(store.apply_retention().unwrap().segments, 2);
    let (start, end) = partition.watermarks().unwrap();
    assert_eq!((start, end > start), (last, true));
    drop((topic, partition));
    store.close().unwrap();
    set_age(&root.join("t-0"), last, 20 * HOUR_MS);
    let store = builder(&root).open().unwrap();
    let topic = store.topic("t").unwrap();
    let partition = topic.partition(0).unwrap();
    assert_eq!(store.apply_retention().unwrap().segments, 1);
    assert_eq!(partition.watermarks().unwrap(), (end, end));
    assert_eq!(base_offsets(&root.join("t-0")), [end]);
    // An empty one is left alone.
    set_age(&root.join("t-0"), end, 20 * HOUR_MS);
    assert_eq!(store.apply_retention().unwrap().segments, 0);
    let sent = store.producer().send(&topic, Record::new("next")).unwrap().wait().unwrap();
    assert_eq!(sent.offset(), end);
}

#[test]
fn at_least_retention_bytes_are_kept_and_less_than_a_segment_more() {
    let directory = tempfile::tempdir().unwrap();
    let store = builder(&directory.path().join("data")).open().unwrap();
    let limit = 20_000;
    let topic = store.create_topic("t", small_segments().retention_bytes(limit)).unwrap();
    let len = || topic.describe().unwrap().partitions[0].len as i64;
    for round in 0..40 {
        fill_segment(&store, &topic, 1000);
        let before = len();
        // The background may have done so already.
        store.apply_retention().unwrap();
        assert!(len() >= limit.min(before), "round {round}: {} bytes are left", len());
        assert!(len() < limit + 4096, "round {round}: {} bytes are left", len());
    }
    let mut consumer = store.consumer().start(Start::Earliest).assign(topic.partitions()).unwrap();
    let (start, end) = topic.partition(0).unwrap().watermarks().unwrap();
    let seen: Vec<i64> = read_all(&mut consumer).iter().map(|seen| seen.offset).collect();
    assert_eq!(seen, (start..end).collect::<Vec<_>>());
    // And at once, when the limit is lowered.
    topic.alter("retention.bytes", Some("0")).unwrap();
    store.apply_retention().unwrap();
    assert_eq!(len(), 0);
    assert_eq!(topic.partition(0).unwrap().watermarks().unwrap(), (end, end));
}

#[test]
fn what_is_kept_for_ever_or_by_key_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    for (policy, goes) in
        [("compact", false), ("", false), ("compact,delete", true), ("delete", true)]
    {
        let root = directory.path().join(format!("of {policy}"));
        let store = builder(&root).open().unwrap();
        let config = small_segments().retention_bytes(0).set("cleanup.policy", policy).unwrap();
        let topic = store.create_topic("t", config).unwrap();
        for _ in 0..20 {
            let record = Record::new(&[7; 400]).key("k").partition(0).timestamp(1000);
            store.producer().send(&topic, record).unwrap();
        }
        // The background may have let go of full ones by now. The last one goes, too.
        store.apply_retention().unwrap();
        let start = if goes { 20 } else { 0 };
        assert_eq!(topic.partition(0).unwrap().watermarks().unwrap(), (start, 20), "`{policy}`");
        let segments = topic.describe().unwrap().partitions[0].segment_count;
        assert!(if goes { segments == 1 } else { segments > 2 }, "`{policy}`: {segments}");
    }
}

/// A segment that is closed because all of a log goes is one the background looks at: it and the caller both took what
/// went for theirs, or one of them the segments and the other the records.
#[test]
fn what_went_is_told_once_however_many_look() {
    let store = Store::temporary().unwrap();
    let topic = store.create_topic("t", TopicConfig::new().retention_ms(0)).unwrap();
    let partition = topic.partition(0).unwrap();
    for sent in 1..=100 {
        let record = Record::new("short-lived").timestamp(1000);
        store.producer().send(&topic, record).unwrap().wait().unwrap();
        // It goes when it is older than its millisecond.
        while partition.watermarks().unwrap() != (sent, sent) {
            let told: Vec<_> = std::thread::scope(|scope| {
                let look = || store.apply_retention().unwrap();
                let looks: Vec<_> = (0..3).map(|_| scope.spawn(look)).collect();
                looks.into_iter().map(|look| look.join().unwrap()).collect()
            });
            let told: Vec<_> =
                told.iter().filter(|told| told.segments > 0 || told.records > 0).collect();
            assert!(told.len() <= 1, "{told:?}");
            assert!(told.iter().all(|told| (told.segments, told.records) == (1, 1)), "{told:?}");
        }
    }
}

#[test]
fn a_partition_that_fills_segments_is_looked_at_without_being_asked() {
    let directory = tempfile::tempdir().unwrap();
    let store = builder(&directory.path().join("data")).open().unwrap();
    let limit = 64 << 10;
    let config = TopicConfig::new().segment_bytes(16 << 10).retention_bytes(limit);
    let topic = store.create_topic("t", config).unwrap();
    let producer = store.producer();
    for _ in 0..2000 {
        producer.send(&topic, Record::new(&[7; 1000]).partition(0)).unwrap();
    }
    let is_within = || {
        let described = topic.describe().unwrap().partitions[0].clone();
        described.len < limit as u64 + (32 << 10) && described.len >= limit as u64
    };
    store.sync().unwrap();
    let begun = Instant::now();
    // Files go behind segments. Nothing is reserved beyond a segment's size.
    let allocated = || allocated_len(&store.path().join("t-0"));
    while !is_within() || allocated() > 256 << 10 {
        assert!(begun.elapsed() < LONG, "{:?}", topic.describe().unwrap().partitions);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(store.health().is_good(), "{:?}", store.health());
}

#[test]
fn the_background_applies_retention_once_an_interval() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    aged(&root, small_segments().retention_ms(10 * HOUR_MS), &[(20, 20), (20, 20)]);
    let store = builder(&root).retention_check_interval(Duration::from_millis(5)).open().unwrap();
    let topic = store.topic("t").unwrap();
    let begun = Instant::now();
    while topic.describe().unwrap().partitions[0].segment_count > 1 {
        assert!(begun.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(store.health().is_good(), "{:?}", store.health());
}

#[test]
fn a_consumer_that_retention_overtakes_goes_on_by_its_policy_and_never_hangs() {
    let directory = tempfile::tempdir().unwrap();
    let store = builder(&directory.path().join("data")).open().unwrap();
    let topic = store.create_topic("t", small_segments().retention_bytes(4096)).unwrap();
    fill_segment(&store, &topic, 1000);
    let consumer = |reset| {
        let builder = store.consumer().start(Start::Earliest).reset(reset).max_poll_records(1);
        let mut consumer = builder.assign(topic.partitions()).unwrap();
        assert_eq!(consumer.poll(SOON).unwrap().count(), 1);
        consumer
    };
    let (mut earliest, mut latest) =
        (consumer(OffsetReset::Earliest), consumer(OffsetReset::Latest));
    for _ in 0..4 {
        fill_segment(&store, &topic, 1000);
    }
    store.apply_retention().unwrap();
    let (start, end) = topic.partition(0).unwrap().watermarks().unwrap();
    assert!(start > 1);
    assert_eq!(earliest.poll(LONG).unwrap().iter().next().unwrap().offset(), start);
    assert!(latest.poll(Duration::ZERO).unwrap().is_empty());
    store.producer().send(&topic, Record::new("new").partition(0)).unwrap();
    assert_eq!(latest.poll(LONG).unwrap().iter().next().unwrap().offset(), end);
}

#[test]
fn retention_is_in_force_and_says_so() {
    let store = Store::temporary().unwrap();
    let config = TopicConfig::new().retention_ms(1000).retention_bytes(-1);
    let topic = store.create_topic("t", config).unwrap();
    let described = topic.describe().unwrap();
    for (name, value) in [("retention.ms", "1000"), ("retention.bytes", "-1")] {
        let entry = described.config(name).unwrap();
        assert_eq!((&*entry.value, entry.effect), (value, ConfigEffect::InForce));
    }
    let refused = store.create_topic("u", TopicConfig::new().retention_ms(-2)).unwrap_err();
    assert!(matches!(refused, ottla::Error::InvalidConfig { .. }), "{refused}");
    let reader = Store::open_read_only(store.path()).unwrap();
    assert!(matches!(reader.apply_retention(), Err(ottla::Error::ReadOnly { .. })));
}

#[test]
fn look_ups_by_time_find_what_a_scan_finds_though_clocks_step_back_and_the_beginning_goes() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    let mut store = builder(&root).open().unwrap();
    store.create_topic("t", small_segments().set("index.interval.bytes", "300").unwrap()).unwrap();
    let mut random = 7_u64;
    let mut below = |limit: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % limit
    };
    let (mut times, mut clock) = (Vec::new(), 50_000_i64);
    for round in 0..8 {
        let topic = store.topic("t").unwrap();
        for _ in 0..60 {
            // Mostly onwards; now and then far back, for long, or far ahead for one record.
            clock += below(20) as i64;
            if below(40) == 0 {
                clock -= below(5000) as i64;
            }
            let ahead = if below(50) == 0 { 10_000 } else { 0 };
            times.push(clock + ahead);
            let record = Record::new(&[7; 100]).timestamp(clock + ahead);
            store.producer().send(&topic, record).unwrap();
        }
        let partition = topic.partition(0).unwrap();
        partition.delete_records(40 * round).unwrap();
        let (start, end) = partition.watermarks().unwrap();
        assert_eq!((start, end), (40 * round, times.len() as i64));
        for wanted in (0..200).map(|n| 40_000 + 150 * n).chain(times.iter().copied()) {
            let mut scanned = times.iter().enumerate().skip(start as usize);
            let expected = scanned.find(|(_, time)| **time >= wanted);
            let expected = expected.map(|(offset, time)| (offset as i64, *time));
            assert_eq!(partition.offset_for_time(wanted).unwrap(), expected, "{wanted}");
        }
        drop((topic, partition));
        if round % 2 == 0 {
            store.close().unwrap();
            store = builder(&root).open().unwrap();
        }
    }
}

#[test]
fn what_a_topic_takes_how_old_it_is_and_what_goes_next_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    let config = small_segments().retention_ms(10 * HOUR_MS).retention_bytes(10_000);
    let begun = aged(&root, config, &[(20, 20), (6, 6), (3, 3)]);
    let now_ms = now_ms();
    let store = builder(&root).open().unwrap();
    let topic = store.topic("t").unwrap();
    let described = topic.describe().unwrap().partitions[0].clone();
    let is_hours_ago =
        |ms: Option<i64>, hours: i64| (ms.unwrap() - (now_ms - hours * HOUR_MS)).abs() < 60_000;
    assert!(is_hours_ago(described.oldest_ms, 20), "{described:?}");
    assert!(is_hours_ago(described.newest_ms, 3), "{described:?}");
    assert_eq!(described.segment_count, begun.len());
    assert!(described.allocated_len >= described.len);
    let outlook = described.retention;
    assert_eq!(outlook.due_segments, 1);
    assert!(is_hours_ago(outlook.next_at_ms.map(|ms| ms - 10 * HOUR_MS), 6), "{outlook:?}");
    let more = outlook.next_after_bytes.unwrap();
    assert!(more > 0 && more < 10_000, "{outlook:?}");
    let health = store.health();
    assert_eq!((health.bytes, health.segments, health.partitions), (described.len, begun.len(), 1));
    assert_eq!((health.oldest_ms, health.newest_ms), (described.oldest_ms, described.newest_ms));
    assert_eq!((health.due_bytes, health.clock_ahead_ms), (outlook.due_bytes, 0));
    // What was told comes true.
    assert_eq!(store.apply_retention().unwrap().bytes, outlook.due_bytes);
    let health = store.health();
    assert_eq!((health.segments, health.due_bytes), (begun.len() - 1, 0));
    // The last record of each fill has begun the next segment.
    assert!(is_hours_ago(health.oldest_ms, 20));
    assert_eq!(health.oldest_ms, topic.describe().unwrap().partitions[0].oldest_ms);
}

/// Kafka closes a segment by age only with the next append: what is in the last one of a log that went quiet stays out of
/// every compaction.
#[test]
fn a_segment_that_an_earlier_life_left_is_closed_by_age_though_nothing_is_appended() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    let store = builder(&root).open().unwrap();
    let config = TopicConfig::new().partitions(3).segment_ms(10 * HOUR_MS as u64);
    let topic = store.create_topic("t", config).unwrap();
    // Kafka goes by the first record; that of the second partition is young. The third stays empty.
    for (number, hours) in [(0, 11), (0, 2), (1, 9), (1, 30)] {
        let record = Record::new("v").partition(number).timestamp(now_ms() - hours * HOUR_MS);
        // One by one: a batch goes by its latest record.
        store.producer().send(&topic, record).unwrap();
    }
    drop(topic);
    store.close().unwrap();

    let store = builder(&root).open().unwrap();
    let topic = store.topic("t").unwrap();
    let counts = || {
        let partitions = topic.describe().unwrap().partitions;
        partitions.iter().map(|partition| partition.segment_count).collect::<Vec<_>>()
    };
    assert_eq!(counts(), [1, 1, 1]);
    assert_eq!(store.apply_retention().unwrap().segments, 0);
    assert_eq!(counts(), [2, 1, 1]);
    // Once: an empty segment has no age.
    store.apply_retention().unwrap();
    assert_eq!(counts(), [2, 1, 1]);
    // And what is changed later is in force without an append, too.
    topic.alter("segment.ms", Some("1000")).unwrap();
    store.apply_retention().unwrap();
    assert_eq!(counts(), [2, 2, 1]);
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    assert_eq!(read_all(&mut consumer).len(), 4);
    for number in 0..2 {
        let record = Record::new("next").partition(number);
        assert_eq!(store.producer().send(&topic, record).unwrap().wait().unwrap().offset(), 2);
    }
    assert!(store.health().is_good(), "{:?}", store.health());
    drop((consumer, topic));
    store.close().unwrap();
    assert!(ottla::inspect::check(&root).unwrap().problems.is_empty());
}
