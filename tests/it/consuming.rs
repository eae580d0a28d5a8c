//! Where a consumer begins, how it moves, what it sees and how much at once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use ottla::Consumer;
use ottla::Durability;
use ottla::Error;
use ottla::Isolation;
use ottla::Message;
use ottla::OffsetReset;
use ottla::OwnedMessage;
use ottla::Record;
use ottla::Records;
use ottla::Start;
use ottla::Store;
use ottla::TimestampType;
use ottla::Topic;
use ottla::TopicConfig;
use ottla::TopicPartition;
use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::waiting::block_on;

/// A record as it was read, owned and comparable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) timestamp_type: TimestampType,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl From<&OwnedMessage> for Seen {
    fn from(message: &OwnedMessage) -> Seen {
        Seen {
            offset: message.offset(),
            timestamp: message.timestamp(),
            timestamp_type: message.timestamp_type(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.value().map(<[u8]>::to_vec),
            headers: message
                .headers()
                .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                .collect(),
        }
    }
}

impl From<Message<'_>> for Seen {
    fn from(message: Message<'_>) -> Seen {
        Seen {
            offset: message.offset(),
            timestamp: message.timestamp(),
            timestamp_type: message.timestamp_type(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.value().map(<[u8]>::to_vec),
            headers: message
                .headers()
                .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                .collect(),
        }
    }
}

/// Reads what is there; a detached message must be the message it was detached from.
pub(crate) fn read_all(consumer: &mut Consumer) -> Vec<Seen> {
    let mut all = Vec::new();
    loop {
        let records = consumer.poll(Duration::ZERO).unwrap();
        if records.is_empty() {
            return all;
        }
        for message in &records {
            let seen = Seen::from(message);
            assert_eq!(Seen::from(&message.detach()), seen);
            all.push(seen);
        }
    }
}

/// A store that does not wait for the disk, with a topic whose segments hold a few records each.
pub(crate) fn store_with_topic(config: TopicConfig) -> (Store, Topic) {
    let store = Store::builder_temporary().durability(Durability::Buffered).open().unwrap();
    let topic = store.create_topic("t", config).unwrap();
    (store, topic)
}

/// Sends `0`, `1`, … to partition 0, with timestamps 1000, 1010, …
pub(crate) fn send_numbers(store: &Store, topic: &Topic, numbers: std::ops::Range<i64>) {
    let producer = store.producer();
    for n in numbers {
        let value = n.to_string();
        let record = Record::new(&value).partition(0).timestamp(1000 + 10 * n);
        drop(producer.send(topic, record).unwrap());
    }
}

fn offsets(records: &Records) -> Vec<i64> {
    records.iter().map(|message| message.offset()).collect()
}

fn first_offset(consumer: &mut Consumer) -> Option<i64> {
    offsets(&consumer.poll(Duration::ZERO).unwrap()).first().copied()
}

fn consumer_from(store: &Store, partition: &TopicPartition, start: Start) -> Consumer {
    store.consumer().assign([(partition.clone(), start)]).unwrap()
}

#[test]
fn every_start_begins_where_it_says() {
    let (store, topic) = store_with_topic(TopicConfig::new().segment_bytes(1024));
    send_numbers(&store, &topic, 0..100);
    let partition = topic.partition(0).unwrap();
    for (start, offset) in [
        (Start::Earliest, 0),
        (Start::Latest, 100),
        (Start::Offset(0), 0),
        (Start::Offset(42), 42),
        (Start::Offset(100), 100),
        (Start::Timestamp(0), 0),
        (Start::Timestamp(1000), 0),
        (Start::Timestamp(1421), 43),
        (Start::Timestamp(1990), 99),
        (Start::Timestamp(1991), 100),
        (Start::Last(0), 100),
        (Start::Last(1), 99),
        (Start::Last(100), 0),
        (Start::Last(101), 0),
        (Start::Last(u64::MAX), 0),
    ] {
        let mut consumer = consumer_from(&store, &partition, start);
        assert_eq!(consumer.position(&partition).unwrap(), offset, "{start:?}");
        assert_eq!(first_offset(&mut consumer), (offset < 100).then_some(offset), "{start:?}");

        let mut moved = consumer_from(&store, &partition, Start::Offset(7));
        moved.seek_to(&partition, start).unwrap();
        assert_eq!(moved.position(&partition).unwrap(), offset, "seek_to {start:?}");
        assert_eq!(first_offset(&mut moved), (offset < 100).then_some(offset), "{start:?}");
    }
}

#[test]
fn a_partition_without_a_start_of_its_own_begins_where_the_builder_says() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(2));
    send_numbers(&store, &topic, 0..5);
    let [own, built] = [topic.partition(1).unwrap(), topic.partition(0).unwrap()];
    let consumer = store.consumer().start(Start::Last(2)).assign([&built]).unwrap();
    assert_eq!(consumer.position(&built).unwrap(), 3);
    let mixed = store
        .consumer()
        .start(Start::Latest)
        .assign([(own.clone(), Start::Earliest), (built.clone(), Start::Offset(1))])
        .unwrap();
    assert_eq!((mixed.position(&own).unwrap(), mixed.position(&built).unwrap()), (0, 1));
}

#[test]
fn an_assignment_that_has_no_meaning_is_refused_and_the_old_one_stays() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(2));
    let [zero, one] = [topic.partition(0).unwrap(), topic.partition(1).unwrap()];
    let mut consumer = store.consumer().assign([&zero]).unwrap();
    let twice = consumer.assign([&one, &one]).unwrap_err();
    assert!(matches!(twice, Error::InvalidArgument { .. }), "{twice}");
    let negative = consumer.assign([(one.clone(), Start::Offset(-1))]).unwrap_err();
    assert!(matches!(negative, Error::InvalidArgument { .. }), "{negative}");
    assert_eq!(consumer.assignment().collect::<Vec<_>>(), [&zero]);
    let elsewhere = consumer.seek(&one, 0).unwrap_err();
    assert!(matches!(elsewhere, Error::NotAssigned { partition: 1, .. }), "{elsewhere}");
    assert!(matches!(consumer.position(&one), Err(Error::NotAssigned { .. })));
    assert!(matches!(consumer.lag(&one), Err(Error::NotAssigned { .. })));
    assert!(matches!(consumer.pause([&zero, &one]), Err(Error::NotAssigned { .. })));
    assert_eq!(consumer.paused().count(), 0, "none is paused if one cannot be");
    assert!(matches!(consumer.seek(&zero, -1), Err(Error::InvalidArgument { .. })));
    assert_eq!(consumer.position(&zero).unwrap(), 0);
}

#[test]
fn a_seek_takes_effect_with_the_next_poll_and_touches_no_other_partition() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(2));
    let [zero, one] = [topic.partition(0).unwrap(), topic.partition(1).unwrap()];
    for partition in [&zero, &one] {
        let batch = (0..10).map(|_| "v").collect::<Vec<_>>();
        drop(store.producer().send_batch(partition, batch).unwrap());
    }
    let mut consumer = store.consumer().assign([&zero, &one]).unwrap();
    // Half of it is read ahead when the seek comes.
    let first = (&mut consumer).into_iter().next().unwrap().unwrap();
    assert_eq!((first.partition(), first.offset()), (0, 0));
    consumer.seek(&zero, 8).unwrap();
    assert_eq!(consumer.position(&zero).unwrap(), 8);
    assert_eq!(consumer.position(&one).unwrap(), 0);
    let mut rest: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
    loop {
        let records = consumer.poll(Duration::ZERO).unwrap();
        if records.is_empty() {
            break;
        }
        for message in &records {
            rest.entry(message.partition()).or_default().push(message.offset());
        }
    }
    assert_eq!(rest[&0], [8, 9]);
    assert_eq!(rest[&1], (0..10).collect::<Vec<_>>());
}

#[test]
fn positions_next_offsets_and_lag_agree() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(2).segment_bytes(1024));
    send_numbers(&store, &topic, 0..50);
    let partition = topic.partition(0).unwrap();
    let mut consumer = store.consumer().max_poll_records(7).assign(topic.partitions()).unwrap();
    let mut read = 0;
    assert_eq!(consumer.lag(&partition).unwrap(), 50);
    loop {
        let records = consumer.poll(Duration::ZERO).unwrap();
        if records.is_empty() {
            break;
        }
        assert!(records.count() <= 7);
        assert_eq!(records.count(), records.iter().count());
        read += records.count() as i64;
        let nexts: Vec<(u32, i64)> =
            records.next_offsets().map(|(source, next)| (source.partition(), next)).collect();
        assert_eq!(nexts, [(0, read)]);
        assert_eq!(consumer.position(&partition).unwrap(), read);
        assert_eq!(consumer.lag(&partition).unwrap(), 50 - read);
        assert_eq!(records.partitions().collect::<Vec<_>>(), [&partition]);
        assert_eq!(records.of(&partition).count(), records.count());
        assert_eq!(records.of(&topic.partition(1).unwrap()).count(), 0);
    }
    assert_eq!(read, 50);
}

#[test]
fn a_paused_partition_returns_nothing_and_keeps_its_position() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(2));
    let [zero, one] = [topic.partition(0).unwrap(), topic.partition(1).unwrap()];
    for partition in [&zero, &one] {
        drop(store.producer().send_batch(partition, ["a", "b", "c"]).unwrap());
    }
    let mut consumer = store.consumer().max_poll_records(1).assign([&zero, &one]).unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().count(), 1);
    consumer.pause([&zero]).unwrap();
    assert_eq!(consumer.paused().collect::<Vec<_>>(), [&zero]);
    let seen = read_all(&mut consumer);
    assert_eq!(seen.len(), 3);
    assert_eq!(consumer.position(&zero).unwrap(), 1);
    consumer.resume([&zero]).unwrap();
    let seen: Vec<i64> = read_all(&mut consumer).iter().map(|seen| seen.offset).collect();
    assert_eq!(seen, [1, 2]);
}

#[test]
fn records_read_ahead_of_a_pause_come_after_the_resume() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    send_numbers(&store, &topic, 0..5);
    let partition = topic.partition(0).unwrap();
    let mut consumer =
        store.consumer().iterator_timeout(Duration::ZERO).assign([&partition]).unwrap();
    assert_eq!((&mut consumer).into_iter().next().unwrap().unwrap().offset(), 0);
    consumer.pause([&partition]).unwrap();
    assert!((&mut consumer).into_iter().next().is_none());
    assert_eq!(consumer.position(&partition).unwrap(), 1);
    consumer.resume([&partition]).unwrap();
    let rest: Vec<i64> = (&mut consumer).into_iter().map(|m| m.unwrap().offset()).collect();
    assert_eq!(rest, [1, 2, 3, 4]);
}

#[test]
fn a_position_out_of_range_is_reset_as_the_policy_says() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let partition = topic.partition(0).unwrap();
    send_numbers(&store, &topic, 0..10);
    drop(store.producer().send(&topic, Record::new("now")).unwrap());
    for (reset, position) in [
        (OffsetReset::Earliest, 0),
        (OffsetReset::Latest, 11),
        (OffsetReset::ByDuration(Duration::from_secs(3600)), 10),
        (OffsetReset::ByDuration(Duration::MAX), 0),
    ] {
        let builder = store.consumer().reset(reset);
        let mut consumer = builder.assign([(partition.clone(), Start::Offset(12))]).unwrap();
        assert_eq!(consumer.position(&partition).unwrap(), 12, "not before the poll");
        let read: Vec<i64> = read_all(&mut consumer).iter().map(|seen| seen.offset).collect();
        assert_eq!(read, (position..11).collect::<Vec<_>>(), "{reset:?}");
    }
    let builder = store.consumer().reset(OffsetReset::Error);
    let mut consumer = builder.assign([(partition.clone(), Start::Offset(12))]).unwrap();
    for _ in 0..2 {
        let error = consumer.poll(Duration::ZERO).unwrap_err();
        let Error::OffsetOutOfRange { topic, partition: 0, offset: 12, start: 0, end: 11 } = error
        else {
            panic!("{error}");
        };
        assert_eq!(topic, "t");
        assert_eq!(consumer.position(&partition).unwrap(), 12, "the position is unchanged");
    }
    consumer.seek(&partition, 11).unwrap();
    assert!(consumer.poll(Duration::ZERO).unwrap().is_empty(), "the end itself is in range");
}

#[test]
fn by_duration_begins_behind_the_end_when_everything_is_too_old() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    send_numbers(&store, &topic, 0..10);
    let partition = topic.partition(0).unwrap();
    let reset = OffsetReset::ByDuration(Duration::from_secs(60));
    let builder = store.consumer().reset(reset);
    let mut consumer = builder.assign([(partition.clone(), Start::Offset(99))]).unwrap();
    assert!(consumer.poll(Duration::ZERO).unwrap().is_empty());
    assert_eq!(consumer.position(&partition).unwrap(), 10);
}

#[test]
fn a_poll_returns_no_more_records_than_asked_for_even_out_of_one_batch() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let partition = topic.partition(0).unwrap();
    let values: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    drop(store.producer().send_batch(&partition, &values).unwrap());
    for limit in [1, 7, 499, 1000, 1001] {
        let mut consumer = store.consumer().max_poll_records(limit).assign([&partition]).unwrap();
        let mut next = 0;
        while next < 1000 {
            let records = consumer.poll(Duration::ZERO).unwrap();
            assert_eq!(records.count(), limit.min(1000 - next as usize));
            for message in &records {
                assert_eq!(message.offset(), next);
                assert_eq!(message.value().unwrap(), values[next as usize].as_bytes());
                next += 1;
            }
        }
    }
    let mut consumer = store.consumer().assign([&partition]).unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().count(), 500, "Kafka's default");
}

#[test]
fn a_poll_stays_within_its_byte_limits() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(3));
    let value = vec![b'v'; 1000];
    for partition in topic.partitions() {
        for _ in 0..20 {
            drop(store.producer().send_batch(&partition, [&value]).unwrap());
        }
    }
    let len = |records: &Records| -> usize {
        records.iter().map(|message| message.value().unwrap().len()).sum()
    };
    let mut consumer =
        store.consumer().max_partition_fetch_bytes(5_000).assign(topic.partitions()).unwrap();
    let records = consumer.poll(Duration::ZERO).unwrap();
    for partition in topic.partitions() {
        assert_eq!(records.of(&partition).count(), 4, "{partition}");
    }
    let mut consumer = store.consumer().fetch_max_bytes(5_000).assign(topic.partitions()).unwrap();
    for _ in 0..12 {
        let records = consumer.poll(Duration::ZERO).unwrap();
        assert!(len(&records) <= 5_000, "{}", len(&records));
        assert!(!records.is_empty());
    }
}

#[test]
fn a_batch_larger_than_every_limit_is_delivered_whole() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(2));
    let value = vec![7; 600_000];
    for partition in topic.partitions() {
        drop(store.producer().send_batch(&partition, [&value]).unwrap());
    }
    let builder = store.consumer().fetch_max_bytes(0).max_partition_fetch_bytes(0);
    let mut consumer = builder.assign(topic.partitions()).unwrap();
    for _ in 0..2 {
        let records = consumer.poll(Duration::ZERO).unwrap();
        assert_eq!(records.count(), 1);
        assert_eq!(records.iter().next().unwrap().value().unwrap(), value);
    }
}

#[test]
fn a_full_partition_starves_no_other() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(4));
    send_numbers(&store, &topic, 0..1000);
    for partition in topic.partitions().iter().skip(1) {
        drop(store.producer().send_batch(partition, ["a", "b"]).unwrap());
    }
    let mut consumer = store.consumer().max_poll_records(10).assign(topic.partitions()).unwrap();
    let mut seen: BTreeMap<u32, usize> = BTreeMap::new();
    for _ in 0..4 {
        for message in &consumer.poll(Duration::ZERO).unwrap() {
            *seen.entry(message.partition()).or_default() += 1;
        }
    }
    for small in 1..4 {
        assert_eq!(seen.get(&small), Some(&2), "{seen:?}");
    }
}

#[test]
fn reading_crosses_many_small_segments_without_a_gap() {
    let (store, topic) = store_with_topic(TopicConfig::new().segment_bytes(1024));
    send_numbers(&store, &topic, 0..2000);
    assert!(topic.describe().unwrap().partitions[0].segment_count > 100);
    let partition = topic.partition(0).unwrap();
    let seen = read_all(&mut store.consumer().assign([&partition]).unwrap());
    assert_eq!(seen.len(), 2000);
    for (n, seen) in seen.iter().enumerate() {
        assert_eq!(seen.offset, n as i64);
        assert_eq!(seen.value.as_deref(), Some(n.to_string().as_bytes()));
    }
    for offset in (0..2000).step_by(13) {
        let mut consumer = consumer_from(&store, &partition, Start::Offset(offset));
        assert_eq!(first_offset(&mut consumer), Some(offset));
    }
}

/// The consumer has read all of a log that was opened and not yet appended to. Before it polls again the
/// last segment is appended to and rolled: nothing of it may be skipped.
#[test]
fn a_consumer_that_read_everything_before_the_first_append_skips_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let topic = store.create_topic("t", TopicConfig::new().segment_bytes(2048)).unwrap();
    send_numbers(&store, &topic, 0..10);
    drop(topic);
    store.close().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let topic = store.topic("t").unwrap();
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    assert_eq!(read_all(&mut consumer).len(), 10);
    send_numbers(&store, &topic, 10..200);
    let offsets: Vec<i64> = read_all(&mut consumer).iter().map(|seen| seen.offset).collect();
    assert_eq!(offsets, (10..200).collect::<Vec<_>>());
}

#[test]
fn records_outlive_their_consumer_their_store_and_their_topic() {
    let (store, topic) = store_with_topic(TopicConfig::new().segment_bytes(1024));
    send_numbers(&store, &topic, 0..200);
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    let records = consumer.poll(Duration::ZERO).unwrap();
    let wanted: Vec<Seen> = records.iter().map(Seen::from).collect();
    assert!(wanted.len() >= 10);
    let owned: Vec<OwnedMessage> = records.iter().map(|message| message.detach()).collect();
    drop(consumer);
    store.delete_topic("t").unwrap();
    drop(topic);
    store.close().unwrap();
    assert_eq!(records.iter().map(Seen::from).collect::<Vec<_>>(), wanted);
    drop(records);
    assert_eq!(owned.iter().map(Seen::from).collect::<Vec<_>>(), wanted);
}

#[test]
fn an_iterator_ends_when_nothing_came_for_its_timeout() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    send_numbers(&store, &topic, 0..5);
    let timeout = Duration::from_millis(120);
    let mut consumer =
        store.consumer().iterator_timeout(timeout).assign(topic.partitions()).unwrap();
    let begun = Instant::now();
    assert_eq!((&mut consumer).into_iter().count(), 5);
    assert!(begun.elapsed() >= timeout);
    assert!(begun.elapsed() < timeout * 20);
    // It is not over for good.
    send_numbers(&store, &topic, 5..7);
    assert_eq!((&mut consumer).into_iter().count(), 2);
}

#[test]
fn poll_iterator_and_recv_may_be_mixed_without_loss_or_repetition() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(3).segment_bytes(2048));
    for n in 0..3_000_i64 {
        let value = n.to_string();
        let record = Record::new(&value).partition(n as u32 % 3);
        drop(store.producer().send(&topic, record).unwrap());
    }
    let mut consumer = store
        .consumer()
        .max_poll_records(17)
        .iterator_timeout(Duration::ZERO)
        .assign(topic.partitions())
        .unwrap();
    let mut seen = [0_i64; 3];
    let mut total = 0;
    let mut take = |message: &OwnedMessage| {
        let partition = message.partition() as usize;
        assert_eq!(message.offset(), seen[partition], "partition {partition}");
        let value = (message.offset() * 3 + partition as i64).to_string();
        assert_eq!(message.value(), Some(value.as_bytes()));
        seen[partition] += 1;
        total += 1;
    };
    let mut step = 0_usize;
    loop {
        step += 1;
        let mut came = 0;
        match step % 3 {
            0 => {
                for message in &consumer.poll(Duration::ZERO).unwrap() {
                    take(&message.detach());
                    came += 1;
                }
            }
            1 => {
                for message in (&mut consumer).into_iter().take(step % 7 + 1) {
                    take(&message.unwrap());
                    came += 1;
                }
            }
            _ if topic.partitions().iter().any(|p| consumer.lag(p).unwrap() > 0) => {
                take(&block_on(consumer.recv()).unwrap());
                came += 1;
            }
            _ => {}
        }
        if came == 0 {
            break;
        }
    }
    assert_eq!(total, 3_000);
}

#[test]
fn a_careful_consumer_sees_nothing_that_a_power_cut_could_take() {
    let store = Store::builder_temporary()
        .durability(Durability::Buffered)
        .checkpoint_interval(Duration::from_secs(3600))
        .open()
        .unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    let partition = topic.partition(0).unwrap();
    let mut careful = store.consumer().isolation(Isolation::Durable).assign([&partition]).unwrap();
    let mut careless = store.consumer().assign([&partition]).unwrap();
    send_numbers(&store, &topic, 0..5);
    assert_eq!(careless.poll(Duration::ZERO).unwrap().count(), 5);
    assert!(careful.poll(Duration::from_millis(50)).unwrap().is_empty());
    assert_eq!(careful.lag(&partition).unwrap(), 0);
    let late = store.consumer().isolation(Isolation::Durable).start(Start::Latest);
    assert_eq!(late.assign([&partition]).unwrap().position(&partition).unwrap(), 0);

    store.sync().unwrap();
    assert_eq!(careful.poll(Duration::from_secs(10)).unwrap().count(), 5);
    send_numbers(&store, &topic, 5..6);
    assert!(careful.poll(Duration::from_millis(50)).unwrap().is_empty());
    assert_eq!(careful.position(&partition).unwrap(), 5);
}

#[test]
fn a_careful_consumer_that_waits_is_woken_by_the_sync() {
    let store = Store::builder_temporary()
        .durability(Durability::Buffered)
        .checkpoint_interval(Duration::from_secs(3600))
        .open()
        .unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    let builder = store.consumer().isolation(Isolation::Durable);
    let mut careful = builder.assign(topic.partitions()).unwrap();
    let waiter = std::thread::spawn(move || careful.poll(Duration::from_secs(30)).unwrap().count());
    send_numbers(&store, &topic, 0..1);
    store.sync().unwrap();
    let begun = Instant::now();
    assert_eq!(waiter.join().unwrap(), 1);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn offsets_for_times_refuses_a_negative_time_and_needs_no_assignment() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(2));
    send_numbers(&store, &topic, 0..10);
    let [zero, one] = [topic.partition(0).unwrap(), topic.partition(1).unwrap()];
    let consumer = store.consumer().assign([&one]).unwrap();
    let found = consumer.offsets_for_times([(zero.clone(), 1005), (one.clone(), 0)]).unwrap();
    assert_eq!(found, [(zero.clone(), Some((1, 1010))), (one, None)]);
    let error = consumer.offsets_for_times([(zero, -1)]).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
}

proptest! {
    #![proptest_config(Config { cases: 10, failure_persistence: None, ..Config::default() })]

    #[test]
    fn offsets_for_times_agrees_with_a_scan_however_timestamps_are_ordered(
        batches in prop::collection::vec(prop::collection::vec(0..200_i64, 1..6), 1..60),
        interval in prop::sample::select(vec![0_u32, 100, 4096]),
        reopen in any::<bool>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut store =
            Store::builder(directory.path()).durability(Durability::Buffered).open().unwrap();
        let config = TopicConfig::new().segment_bytes(1024).index_interval_bytes(interval);
        let mut topic = store.create_topic("t", config).unwrap();
        let mut log: Vec<(i64, i64)> = Vec::new();
        for batch in &batches {
            let records = batch.iter().map(|time| Record::new("value").timestamp(*time));
            drop(store.producer().send_batch(&topic.partition(0).unwrap(), records).unwrap());
            for time in batch {
                log.push((log.len() as i64, *time));
            }
        }
        if reopen {
            drop(topic);
            store.close().unwrap();
            store = Store::open(directory.path()).unwrap();
            topic = store.topic("t").unwrap();
        }
        let partition = topic.partition(0).unwrap();
        for time in 0..=200 {
            let scanned = log.iter().find(|(_, at)| *at >= time).copied();
            prop_assert_eq!(partition.offset_for_time(time).unwrap(), scanned, "time {}", time);
        }
    }
}
