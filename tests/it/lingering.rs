//! Producers that stage: what seals a batch, what becomes of it, and that nothing is left behind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails should say where")]

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use ottla::Delivery;
use ottla::Durability;
use ottla::Error;
use ottla::Isolation;
use ottla::Producer;
use ottla::Record;
use ottla::Store;
use ottla::TimestampType;
use ottla::Topic;
use ottla::TopicConfig;
use ottla::inspect;

use crate::consuming::Seen;
use crate::consuming::read_all;
use crate::consuming::store_with_topic;
use crate::waiting::LONG;
use crate::waiting::SOON;
use crate::waiting::block_on;

/// Longer than any test: nothing is sealed because its time is up.
const NEVER: Duration = Duration::from_secs(3600);
/// What a record takes beside its key and value while a batch is small, and the header of a batch.
const RECORD_OVERHEAD: usize = 8;
const HEADER_LEN: usize = 61;

/// A producer that seals nothing by itself but full batches of this size.
fn patient(store: &Store, batch_bytes: usize) -> Producer {
    store.producer_builder().linger(NEVER).batch_bytes(batch_bytes).build()
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn log_end(topic: &Topic, partition: u32) -> i64 {
    topic.partition(partition).unwrap().watermarks().unwrap().1
}

fn everything(store: &Store, topic: &Topic) -> Vec<Seen> {
    read_all(&mut store.consumer().assign(topic.partitions()).unwrap())
}

fn values(seen: &[Seen]) -> Vec<String> {
    seen.iter().map(|seen| String::from_utf8(seen.value.clone().unwrap()).unwrap()).collect()
}

/// Each batch's length and record count, in order, of all segments of a partition.
fn batches(store: &Store, partition: u32) -> Vec<(usize, i32)> {
    let directory = store.path().join(format!("t-{partition}"));
    let mut logs: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    logs.sort();
    let mut all = Vec::new();
    for log in logs {
        let mut dump = inspect::dump_log(log).unwrap();
        while let Some(batch) = dump.next_batch().unwrap() {
            assert!(batch.header.is_valid);
            all.push((batch.header.len as usize, batch.header.record_count));
        }
    }
    all
}

fn checked(root: &Path) {
    let report = inspect::check(root).unwrap();
    assert!(report.is_good(), "{:?}", report.problems);
}

#[test]
fn staged_records_are_seen_once_they_are_flushed_and_in_one_batch() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let producer = patient(&store, 16 << 10);
    let deliveries: Vec<_> =
        (0..10).map(|n| producer.send(&topic, &n.to_string()).unwrap()).collect();
    assert_eq!(log_end(&topic, 0), 0);
    producer.flush().unwrap();
    assert_eq!(log_end(&topic, 0), 10);
    assert_eq!(batches(&store, 0).len(), 1);
    for (offset, delivery) in (0..).zip(deliveries) {
        let sent = delivery.wait().unwrap();
        assert_eq!((sent.topic(), sent.partition(), sent.offset()), ("t", 0, offset));
        assert_eq!(sent.offsets(), offset..offset + 1);
        assert!(sent.timestamp() > 1_600_000_000_000);
    }
    producer.flush().unwrap();
    assert_eq!(log_end(&topic, 0), 10, "there was nothing left to flush");
}

#[test]
fn a_record_carries_everything_it_was_given() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let producer = patient(&store, 4096);
    // The same records appended one by one are the measure.
    let (other_store, other_topic) = store_with_topic(TopicConfig::new());
    let long = vec![b'l'; 300];
    let records = [
        Record::new("v").key("k").timestamp(5000),
        Record::tombstone("k").timestamp(4000),
        Record::new("").key("").header("a", "1").null_header("b").header("a", "").timestamp(9000),
        Record::default().timestamp(0),
        Record::new(&long).key(&long).timestamp(1_700_000_000_000),
    ];
    for record in &records {
        let delivery = producer.send(&topic, record.clone()).unwrap();
        let alone = other_store.producer().send(&other_topic, record.clone()).unwrap();
        drop((delivery, alone));
    }
    producer.flush().unwrap();
    assert_eq!(everything(&store, &topic), everything(&other_store, &other_topic));
    assert_eq!(batches(&store, 0).len(), 1);
}

#[test]
fn a_full_batch_is_sealed_and_no_batch_is_longer_than_it_may_be() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let producer = patient(&store, 1000);
    let mut sent = Vec::new();
    for n in 0..500 {
        let value = format!("{n}-{}", "x".repeat(n % 90));
        drop(producer.send(&topic, &value).unwrap());
        sent.push(value);
    }
    let appended = log_end(&topic, 0);
    assert!(appended > 480, "what is full is appended without anybody's asking: {appended}");
    producer.flush().unwrap();
    assert_eq!(values(&everything(&store, &topic)), sent);
    let batches = batches(&store, 0);
    let (last, full) = batches.split_last().unwrap();
    for (len, _) in full {
        assert!((1000 - 100 - RECORD_OVERHEAD..=1000).contains(len), "{batches:?}");
    }
    assert!(last.0 <= 1000);
}

#[test]
fn a_record_longer_than_a_batch_goes_in_one_of_its_own_in_its_turn() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let producer = patient(&store, 1000);
    let large = "l".repeat(5000);
    for value in ["a", "b", &large, "c", &large, &large] {
        drop(producer.send(&topic, value).unwrap());
    }
    assert_eq!(log_end(&topic, 0), 6, "it is full by itself");
    drop(producer.send(&topic, "d").unwrap());
    producer.flush().unwrap();
    let read = values(&everything(&store, &topic));
    assert_eq!(read, ["a", "b", &large, "c", &large, &large, "d"]);
    let counts: Vec<i32> = batches(&store, 0).iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [2, 1, 1, 1, 1, 1]);
}

#[test]
fn a_batch_stays_within_what_its_topic_allows() {
    for (config, limit) in [
        (TopicConfig::new().max_message_bytes(700), 700),
        (TopicConfig::new().segment_bytes(1024), 1024),
    ] {
        let (store, topic) = store_with_topic(config);
        let producer = patient(&store, 16 << 10);
        for n in 0..200 {
            let value = format!("{n:050}");
            drop(producer.send(&topic, &value).unwrap());
        }
        producer.flush().unwrap();
        assert_eq!(everything(&store, &topic).len(), 200);
        let batches = batches(&store, 0);
        assert!(batches.iter().all(|(len, _)| *len <= limit), "{batches:?}");
        assert!(batches[0].0 > limit - 50 - 2 * RECORD_OVERHEAD, "{batches:?}");
    }
}

#[test]
fn a_batch_is_sealed_when_its_time_is_up() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(3));
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    let by_time = store.producer_builder().linger(Duration::from_millis(20)).build();
    let by_size = store.producer_builder().batch_bytes(4096).build();
    let in_kafkas_words = store
        .producer_builder()
        .set("linger.ms", "20")
        .and_then(|builder| builder.set("batch.size", "4096"))
        .unwrap()
        .build();
    // Again and again: the background thread must not lose count.
    for round in 0..20 {
        for producer in [&by_time, &by_size, &in_kafkas_words] {
            for partition in 0..3 {
                let value = round.to_string();
                let record = Record::new(&value).partition(partition);
                drop(producer.send(&topic, record).unwrap());
            }
        }
        let mut count = 0;
        while count < 9 {
            let records = consumer.poll(LONG).unwrap();
            assert!(!records.is_empty(), "round {round}: only {count} of 9 came");
            for message in &records {
                assert_eq!(message.value(), Some(round.to_string().as_bytes()));
            }
            count += records.count();
        }
    }
}

#[test]
fn until_its_time_is_up_a_batch_stays_open() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let producer = store.producer_builder().linger(Duration::from_millis(300)).build();
    let begun = Instant::now();
    drop(producer.send(&topic, "a").unwrap());
    drop(producer.send(&topic, "b").unwrap());
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    assert_eq!(consumer.poll(LONG).unwrap().count(), 2);
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
}

#[test]
fn a_batch_that_was_begun_while_another_was_due_has_its_own_time() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let linger = Duration::from_millis(40);
    let producer = store.producer_builder().linger(linger).batch_bytes(200).build();
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    let value = "v".repeat(100);
    for _ in 0..5 {
        let mut count = 0;
        drop(producer.send(&topic, &value).unwrap());
        // When the background thread comes for the first batch it finds the second one, which is not due.
        thread::sleep(Duration::from_millis(15));
        let begun = Instant::now();
        drop(producer.send(&topic, &value).unwrap());
        while count < 2 {
            let records = consumer.poll(LONG).unwrap();
            assert!(!records.is_empty(), "the second batch was forgotten");
            count += records.count();
        }
        assert!(begun.elapsed() >= linger);
    }
}

#[test]
fn once_everybody_has_come_back_nothing_stands_in_line() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    // Each record is a full batch, so there is nothing that time would seal.
    let producer = patient(&store, 100);
    let value = "v".repeat(200);
    let mut total = 0;
    for round in 0..400 {
        thread::scope(|scope| {
            for thread in 0..4 {
                let (producer, topic, value) = (&producer, &topic, &value);
                scope.spawn(move || {
                    for n in 0..10 {
                        let delivery = producer.send(topic, value).unwrap();
                        if (n + thread) % 3 == 0 {
                            drop(delivery.wait().unwrap());
                        }
                    }
                });
            }
        });
        total += 40;
        assert_eq!(log_end(&topic, 0), total, "round {round}");
    }
}

#[test]
fn whoever_waits_for_a_delivery_has_its_batch_sealed() {
    for level in [Durability::Buffered, Durability::Synced] {
        let (store, topic) = store_with_topic(TopicConfig::new().partitions(2));
        let producer = store.producer_builder().durability(level).linger(NEVER).build();
        let send = |value: &str| producer.send(&topic, Record::new(value).partition(0)).unwrap();
        let elsewhere = producer.send(&topic, Record::new("x").partition(1)).unwrap();

        let (first, second) = (send("a"), send("b"));
        assert_eq!(second.wait().unwrap().offset(), 1);
        assert_eq!(first.wait().unwrap().offset(), 0, "it is through with the other");

        let (mut third, mut fourth) = (send("c"), send("d"));
        assert_eq!(fourth.wait_timeout(SOON).unwrap().offset(), 3);
        assert_eq!(third.wait_timeout(SOON).unwrap().offset(), 2);

        let (fifth, sixth) = (send("e"), send("f"));
        assert_eq!(block_on(fifth.clone()).unwrap().offset(), 4);
        assert_eq!(block_on(sixth).unwrap().offset(), 5);
        assert_eq!(fifth.wait().unwrap().offset(), 4, "a clone completes too");

        let mut seventh = send("g");
        match seventh.wait_timeout(Duration::ZERO) {
            Ok(sent) => assert_eq!(sent.offset(), 6),
            Err(Error::Timeout { .. }) => {
                assert_eq!(seventh.wait_timeout(SOON).unwrap().offset(), 6);
            }
            Err(other) => panic!("{other}"),
        }
        assert_eq!(log_end(&topic, 1), 0, "nobody waited for what is elsewhere");
        assert_eq!(elsewhere.wait().unwrap().partition(), 1);
        let durable = topic.describe().unwrap().partitions[0].durable_end;
        assert_eq!(durable, if level == Durability::Synced { 7 } else { 0 }, "{level:?}");
    }
}

#[test]
fn a_wait_that_nothing_but_the_background_thread_ends() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let producer = patient(&store, 4096);
    // One after the other, each of them the first of its batch.
    for offset in 0..200 {
        let mut delivery = producer.send(&topic, "v").unwrap();
        assert_eq!(delivery.wait_timeout(LONG).unwrap().offset(), offset);
    }
}

#[test]
fn what_a_send_can_know_it_refuses() {
    let config = TopicConfig::new().max_message_bytes(1000).partitions(2);
    let (store, topic) = store_with_topic(config.set("cleanup.policy", "compact").unwrap());
    let producer =
        store.producer_builder().linger(NEVER).buffer_memory(900).batch_bytes(500).build();
    let kept = producer.send(&topic, Record::new("kept").key("k").partition(0)).unwrap();
    let refused = |record: Record<'_>| producer.send(&topic, record).unwrap_err();
    let large = vec![0; 1000];
    let error = refused(Record::new(&large).key("k"));
    assert!(matches!(error, Error::RecordTooLarge { key: "max.message.bytes", .. }), "{error}");
    let error = refused(Record::new(&large[..850]).key("k"));
    assert!(matches!(error, Error::RecordTooLarge { key: "buffer.memory", .. }), "{error}");
    assert!(matches!(refused(Record::new("v")), Error::InvalidRecord { .. }));
    let error = refused(Record::new("v").key("k").timestamp(-1));
    assert!(matches!(error, Error::InvalidTimestamp { timestamp: -1, .. }));
    let error = refused(Record::new("v").key("k").partition(2));
    assert!(matches!(error, Error::UnknownPartition { partition: 2, count: 2, .. }));
    let (_other_store, other) = store_with_topic(TopicConfig::new());
    let error = producer.send(&other, "v").unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { argument: "topic", .. }));

    assert_eq!(kept.wait().unwrap().offset(), 0);
    producer.flush().unwrap();
    assert_eq!(everything(&store, &topic).len(), 1, "of what was refused nothing is there");

    store.create_topic("gone", TopicConfig::new()).unwrap();
    let gone = store.topic("gone").unwrap();
    store.delete_topic("gone").unwrap();
    assert!(matches!(producer.send(&gone, "v"), Err(Error::TopicDeleted { .. })));
    store.close().unwrap();
    assert!(matches!(producer.send(&topic, Record::new("v").key("k")), Err(Error::Closed)));
    assert!(matches!(producer.try_send(&topic, Record::new("v").key("k")), Err(Error::Closed)));
}

#[test]
fn changed_settings_hold_from_the_next_record_on() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let producer = patient(&store, 4096);
    let before = producer.send(&topic, Record::new("before").timestamp(5)).unwrap();
    topic.alter("message.timestamp.type", Some("LogAppendTime")).unwrap();
    let after = producer.send(&topic, Record::new("after").timestamp(6)).unwrap();
    topic.alter("max.message.bytes", Some("100")).unwrap();
    let error = producer.send(&topic, &[0; 100]).unwrap_err();
    assert!(matches!(error, Error::RecordTooLarge { key: "max.message.bytes", .. }), "{error}");
    assert_eq!(before.wait().unwrap().timestamp(), 5);
    assert!(after.wait().unwrap().timestamp() > 1_600_000_000_000);
    let seen = everything(&store, &topic);
    assert_eq!(values(&seen), ["before", "after"]);
    assert_eq!(seen[0].timestamp_type, TimestampType::CreateTime);
    assert_eq!(seen[1].timestamp_type, TimestampType::LogAppendTime);
}

#[test]
fn an_append_time_is_the_time_of_the_append() {
    let config = TopicConfig::new().timestamp_type(TimestampType::LogAppendTime);
    let (store, topic) = store_with_topic(config);
    let producer = patient(&store, 4096);
    let staged = producer.send(&topic, "staged").unwrap();
    thread::sleep(Duration::from_millis(30));
    let sealed_from = now_ms();
    let staged = staged.wait().unwrap();
    assert!((sealed_from..=now_ms()).contains(&staged.timestamp()));
    // The log never goes back in time, whatever its clock says.
    let inline = store.producer().send(&topic, "inline").unwrap().wait().unwrap();
    assert!(inline.timestamp() >= staged.timestamp());
    let seen = everything(&store, &topic);
    assert_eq!(seen[0].timestamp, staged.timestamp());
}

#[test]
fn a_batch_that_is_sent_comes_behind_what_is_staged() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(2));
    let producer = patient(&store, 4096);
    let partition = topic.partition(0).unwrap();
    let mut expected = Vec::new();
    for n in 0..50 {
        let staged = format!("staged {n}");
        drop(producer.send(&topic, Record::new(&staged).partition(0)).unwrap());
        let batch = [format!("first {n}"), format!("second {n}")];
        // Through another clone, and from another thread: all clones are one producer.
        thread::scope(|scope| {
            let (clone, partition, batch) = (producer.clone(), &partition, &batch);
            let sent = scope.spawn(move || clone.send_batch(partition, batch).map(|_| ()));
            sent.join().unwrap().unwrap();
        });
        expected.push(staged);
        expected.extend(batch);
    }
    drop(producer.send(&topic, Record::new("elsewhere").partition(1)).unwrap());
    assert_eq!(values(&everything(&store, &topic)), expected);
}

#[test]
fn a_hand_over_between_threads_keeps_the_order() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let producer = patient(&store, 200);
    // A token goes round; whoever has it sends the next number.
    let turn = std::sync::atomic::AtomicU64::new(0);
    const ROUNDS: u64 = 3000;
    thread::scope(|scope| {
        for thread in 0..3 {
            let (producer, topic, turn) = (&producer, &topic, &turn);
            scope.spawn(move || {
                loop {
                    let now = turn.load(Ordering::Acquire);
                    if now >= ROUNDS {
                        break;
                    }
                    if now % 3 == thread {
                        drop(producer.send(topic, &now.to_string()).unwrap());
                        turn.store(now + 1, Ordering::Release);
                    } else {
                        thread::yield_now();
                    }
                }
            });
        }
    });
    producer.flush().unwrap();
    let expected: Vec<String> = (0..ROUNDS).map(|n| n.to_string()).collect();
    assert_eq!(values(&everything(&store, &topic)), expected);
}

/// Sends from many threads, waits for some deliveries in every way there is, and compares all of them with what
/// is read.
fn many_threads(
    store: &Store,
    producer: &Producer,
    topic: &Topic,
    each: u64,
    also: impl Fn(u64) + Sync,
) {
    const THREADS: u64 = 6;
    let placed: Vec<Vec<(u32, i64, String)>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (producer, also) = (producer.clone(), &also);
                scope.spawn(move || {
                    let mut deliveries: Vec<(String, Delivery)> = Vec::new();
                    for n in 0..each {
                        let value = format!("{thread}:{n}:{}", "x".repeat((n % 40) as usize));
                        let partition = (n % u64::from(topic.partition_count())) as u32;
                        let record = Record::new(&value).partition(partition);
                        let mut delivery = producer.send(topic, record).unwrap();
                        match n % 97 {
                            11 => drop(delivery.clone().wait().unwrap()),
                            31 => drop(delivery.wait_timeout(LONG).unwrap()),
                            53 => drop(block_on(delivery.clone()).unwrap()),
                            71 => drop(delivery.wait_timeout(Duration::ZERO)),
                            _ => {}
                        }
                        deliveries.push((value, delivery));
                        also(n);
                    }
                    let place = |(value, delivery): (String, Delivery)| {
                        let sent = delivery.wait().unwrap();
                        (sent.partition(), sent.offset(), value)
                    };
                    deliveries.into_iter().map(place).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut expected: BTreeMap<u32, BTreeMap<i64, String>> = BTreeMap::new();
    for of_thread in placed {
        let mut latest = BTreeMap::new();
        for (partition, offset, value) in of_thread {
            let before = latest.insert(partition, offset);
            assert!(before.is_none_or(|before| before < offset), "a thread's order is kept");
            let other = expected.entry(partition).or_default().insert(offset, value);
            assert_eq!(other, None, "{partition}@{offset} was given out twice");
        }
    }
    for partition in topic.partitions() {
        let mut consumer = store.consumer().max_poll_records(5000).assign([&partition]).unwrap();
        let seen = read_all(&mut consumer);
        let expected = expected.remove(&partition.partition()).unwrap_or_default();
        assert_eq!(seen.len(), expected.len());
        for (seen, (offset, value)) in seen.iter().zip(expected) {
            assert_eq!((seen.offset, seen.value.as_deref()), (offset, Some(value.as_bytes())));
        }
    }
}

#[test]
fn many_threads_keep_their_order_and_every_delivery_tells_the_right_offset() {
    for level in [Durability::Buffered, Durability::Every(Duration::from_millis(1))] {
        let (store, topic) = store_with_topic(TopicConfig::new().partitions(2));
        // Batches of two or three records: whoever sends also appends, all the time.
        let producer =
            store.producer_builder().durability(level).linger(NEVER).batch_bytes(150).build();
        many_threads(&store, &producer, &topic, 3000, |_| {});
        checked(store.path());
    }
}

#[test]
fn many_threads_share_one_partition_a_small_buffer_and_small_segments() {
    let (store, topic) = store_with_topic(TopicConfig::new().segment_bytes(4096));
    let producer = store
        .producer_builder()
        .linger(Duration::from_millis(1))
        .batch_bytes(300)
        .buffer_memory(900)
        .build();
    many_threads(&store, &producer, &topic, 2000, |_| {});
}

#[test]
fn flushes_race_with_sends_and_each_covers_what_was_sent_before() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(2));
    let producer = patient(&store, 400);
    let flushing = producer.clone();
    many_threads(&store, &producer, &topic, 1500, |n| {
        if n % 50 == 0 {
            flushing.flush().unwrap();
        }
    });

    // What one thread sent and flushed is there, however many others send meanwhile.
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    drop(producer.send(&topic, Record::new("noise").partition(0)).unwrap());
                }
            });
        }
        let mut consumer = store.consumer().assign([topic.partition(1).unwrap()]).unwrap();
        read_all(&mut consumer);
        for n in 0..200 {
            drop(producer.send(&topic, Record::new(&n.to_string()).partition(1)).unwrap());
            drop(producer.send(&topic, Record::new("also").partition(0)).unwrap());
            producer.flush().unwrap();
            assert_eq!(values(&read_all(&mut consumer)), [n.to_string()]);
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_close_races_with_sends_and_every_record_is_there_or_was_refused() {
    for round in 0..30 {
        let directory = tempfile::tempdir().unwrap();
        let store =
            Store::builder(directory.path()).durability(Durability::Buffered).open().unwrap();
        let topic = store.create_topic("t", TopicConfig::new().partitions(2)).unwrap();
        let producer = patient(&store, 300);
        let barrier = Arc::new(Barrier::new(5));
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                let (producer, topic) = (producer.clone(), topic.clone());
                let barrier = Arc::clone(&barrier);
                thread::spawn(move || {
                    barrier.wait();
                    let mut sent = Vec::new();
                    for n in 0.. {
                        let value = format!("{sender}:{n}");
                        match producer.send(&topic, Record::new(&value).partition(n % 2)) {
                            Ok(delivery) => sent.push((value, delivery)),
                            Err(Error::Closed) => break,
                            Err(other) => panic!("{other}"),
                        }
                    }
                    sent
                })
            })
            .collect();
        barrier.wait();
        thread::sleep(Duration::from_micros(100 * round));
        store.close().unwrap();
        let mut sent = Vec::new();
        for sender in senders {
            for (value, delivery) in sender.join().unwrap() {
                let place = delivery.wait().unwrap();
                sent.push((place.partition(), place.offset(), value));
            }
        }
        drop((producer, topic));
        let store = Store::open(directory.path()).unwrap();
        let topic = store.topic("t").unwrap();
        sent.sort();
        let mut found = Vec::new();
        for partition in topic.partitions() {
            let seen = read_all(&mut store.consumer().assign([&partition]).unwrap());
            for (seen, value) in seen.iter().zip(values(&seen)) {
                found.push((partition.partition(), seen.offset, value));
            }
        }
        assert!(sent == found, "round {round}: {} sent, {} found", sent.len(), found.len());
    }
}

#[test]
fn what_is_staged_survives_the_drop_of_the_last_clone() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let producer = patient(&store, 4096);
    let clone = producer.clone();
    let delivery = producer.send(&topic, "a").unwrap();
    drop(producer);
    assert_eq!(log_end(&topic, 0), 0, "a clone is left");
    drop(clone);
    assert_eq!(log_end(&topic, 0), 1);
    assert_eq!(delivery.wait().unwrap().offset(), 0);
}

#[test]
fn what_is_staged_survives_the_drop_of_everything() {
    let directory = tempfile::tempdir().unwrap();
    for order in 0..6 {
        let store = Store::open(directory.path()).unwrap();
        let topic = store.topic_or_create("t", TopicConfig::new()).unwrap();
        let producer = patient(&store, 4096);
        let delivery = producer.send(&topic, &order.to_string()).unwrap();
        match order {
            0 => drop((store, topic, producer)),
            1 => drop((producer, topic, store)),
            2 => drop((topic, producer, store)),
            3 => {
                drop(store);
                drop((topic, producer));
            }
            4 => {
                // The delivery waits, last of all.
                drop((store, topic, producer));
                assert_eq!(delivery.wait().unwrap().offset(), 4);
                continue;
            }
            _ => {
                drop((topic, store));
                thread::spawn(move || drop(producer)).join().unwrap();
            }
        }
        drop(delivery);
    }
    let store = Store::open(directory.path()).unwrap();
    let topic = store.topic("t").unwrap();
    assert_eq!(values(&everything(&store, &topic)), ["0", "1", "2", "3", "4", "5"]);
}

#[test]
fn what_is_staged_survives_the_close() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let topic = store.create_topic("t", TopicConfig::new().partitions(20)).unwrap();
    let producers: Vec<_> = (0..3).map(|_| patient(&store, 4096)).collect();
    let mut deliveries = Vec::new();
    for (n, producer) in producers.iter().enumerate() {
        for partition in 0..20 {
            let value = n.to_string();
            let record = Record::new(&value).partition(partition);
            deliveries.push(producer.send(&topic, record).unwrap());
        }
    }
    store.close().unwrap();
    for delivery in deliveries {
        assert!(delivery.wait().unwrap().offset() < 3);
    }
    drop((topic, producers));
    assert!(directory.path().join(".kafka_cleanshutdown").exists());
    checked(directory.path());
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(everything(&store, &store.topic("t").unwrap()).len(), 60);
}

#[test]
fn a_panic_in_one_sending_thread_harms_nobody_else() {
    struct Bomb;
    impl From<Bomb> for Record<'static> {
        fn from(_: Bomb) -> Record<'static> {
            panic!("on purpose")
        }
    }
    let (store, topic) = store_with_topic(TopicConfig::new());
    let producer = patient(&store, 4096);
    let partition = topic.partition(0).unwrap();
    let before = producer.send(&topic, "before").unwrap();
    thread::scope(|scope| {
        let (producer, topic, partition) = (&producer, &topic, &partition);
        let panicking = [
            scope.spawn(move || drop(producer.send(topic, Bomb))),
            scope.spawn(move || {
                let records = (0..9).map(|n| if n < 5 { Record::new("no") } else { panic!("too") });
                drop(producer.send_batch(partition, records));
            }),
            scope.spawn(move || {
                drop(producer.send(topic, "also before").unwrap());
                panic!("with a record staged");
            }),
        ];
        for thread in panicking {
            assert!(thread.join().is_err());
        }
    });
    drop(producer.send(&topic, "after").unwrap());
    producer.flush().unwrap();
    assert_eq!(before.wait().unwrap().offset(), 0);
    let read = values(&everything(&store, &topic));
    assert_eq!(read, ["before", "also before", "after"]);
    assert_eq!(batches(&store, 0).len(), 1, "one batch, whole");

    // A panic that unwinds past every handle still leaves nothing behind.
    let path = store.path().to_path_buf();
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let other = Store::open(path.join("other")).unwrap();
        let topic = other.create_topic("t", TopicConfig::new()).unwrap();
        drop(patient(&other, 4096).send(&topic, "staged").unwrap());
        panic!("on purpose");
    }));
    assert!(unwound.is_err());
    let other = Store::open(path.join("other")).unwrap();
    assert_eq!(everything(&other, &other.topic("t").unwrap()).len(), 1);
}

#[test]
fn many_partitions_share_the_memory_and_nobody_waits() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(200));
    let producer = store
        .producer_builder()
        .linger(NEVER)
        .batch_bytes(1024)
        .buffer_memory(8 * 1024)
        .max_block(Duration::ZERO)
        .build();
    for n in 0..2000_u32 {
        let value = n.to_string();
        let record = Record::new(&value).partition(n % 200);
        drop(producer.send(&topic, record).unwrap());
        let staged = i64::from(n + 1) - everything_appended(&topic);
        assert!(staged <= 8, "{staged} batches are open in memory for 8");
    }
    producer.flush().unwrap();
    for partition in topic.partitions() {
        let seen = read_all(&mut store.consumer().assign([&partition]).unwrap());
        let expected: Vec<String> =
            (0..10).map(|n| (n * 200 + partition.partition()).to_string()).collect();
        assert_eq!(values(&seen), expected);
    }
}

fn everything_appended(topic: &Topic) -> i64 {
    (0..topic.partition_count()).map(|partition| log_end(topic, partition)).sum()
}

#[test]
fn unkeyed_records_fill_a_batch_then_move_on() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(4));
    let producer = patient(&store, 1000);
    let value = "v".repeat(40);
    let count: i32 = 20_000;
    for _ in 0..count {
        drop(producer.send(&topic, &value).unwrap());
    }
    producer.flush().unwrap();
    let each: Vec<_> = (0..4).map(|partition| batches(&store, partition)).collect();
    assert!(each.iter().all(|batches| batches.len() > 20), "every partition has its share");
    let all: Vec<_> = each.into_iter().flatten().collect();
    assert_eq!(all.iter().map(|(_, count)| count).sum::<i32>(), count);
    let fractions = all.iter().filter(|(len, _)| *len < 900).count();
    assert!(fractions <= 4, "{fractions} batches of {} are not full", all.len());
}

#[test]
fn keyed_records_stay_with_their_key_and_in_its_order() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(5));
    let (other_store, other) = store_with_topic(TopicConfig::new().partitions(5));
    let (staging, inline) = (patient(&store, 500), other_store.producer());
    for n in 0..2000 {
        let (key, value) = (format!("key {}", n % 37), n.to_string());
        let record = Record::new(&value).key(&key).timestamp(n);
        drop(staging.send(&topic, record.clone()).unwrap());
        drop(inline.send(&other, record).unwrap());
    }
    staging.flush().unwrap();
    for (staged, appended) in topic.partitions().iter().zip(other.partitions()) {
        let staged = read_all(&mut store.consumer().assign([staged]).unwrap());
        let appended = read_all(&mut other_store.consumer().assign([appended]).unwrap());
        assert_eq!(staged, appended);
    }
}

#[test]
fn what_is_staged_for_a_deleted_topic_goes_with_it() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let kept = store.create_topic("kept", TopicConfig::new()).unwrap();
    let producer = patient(&store, 4096);
    let lost = [producer.send(&topic, "a").unwrap(), producer.send(&topic, "b").unwrap()];
    let safe = producer.send(&kept, "c").unwrap();
    store.delete_topic("t").unwrap();
    for delivery in lost {
        assert!(matches!(delivery.wait(), Err(Error::TopicDeleted { .. })));
    }
    producer.flush().unwrap();
    assert_eq!(safe.wait().unwrap().offset(), 0);
    assert!(store.health().is_good());

    // Its name may be used again at once, and nothing of the past gets there.
    let again = store.create_topic("t", TopicConfig::new()).unwrap();
    assert_eq!(producer.send(&again, "d").unwrap().wait().unwrap().offset(), 0);
    assert_eq!(values(&everything(&store, &again)), ["d"]);
    drop(producer.send(&again, "e").unwrap());
    store.delete_topic("t").unwrap();
    drop(producer);
    store.close().unwrap();
}

#[test]
fn topics_come_and_go_under_one_producer() {
    let (store, _) = store_with_topic(TopicConfig::new());
    let producer = patient(&store, 4096);
    let lasting: Vec<_> = (0..12)
        .map(|n| store.create_topic(&format!("lasting-{n}"), TopicConfig::new()).unwrap())
        .collect();
    for n in 0..40 {
        let passing = store.create_topic("passing", TopicConfig::new().partitions(2)).unwrap();
        drop(producer.send(&passing, Record::new("v").partition(1)).unwrap());
        for topic in &lasting {
            drop(producer.send(topic, &n.to_string()).unwrap());
        }
        if n == 20 {
            lasting[11].add_partitions(70).unwrap();
        }
        if n > 20 {
            drop(producer.send(&lasting[11], Record::new("more").partition(69)).unwrap());
        }
        let sent = producer.send(&passing, Record::new("v").partition(1)).unwrap();
        assert_eq!(sent.wait().unwrap().offset(), 1);
        store.delete_topic("passing").unwrap();
    }
    producer.flush().unwrap();
    let expected: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    for topic in &lasting[..11] {
        assert_eq!(values(&everything(&store, topic)), expected);
    }
    assert_eq!(log_end(&lasting[11], 69), 19);
}

#[test]
fn a_staged_record_that_nobody_waits_for_becomes_durable_on_its_own() {
    let store = Store::builder_temporary().checkpoint_interval(NEVER).open().unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    let mut careful =
        store.consumer().isolation(Isolation::Durable).assign(topic.partitions()).unwrap();
    let producer = store.producer_builder().linger(Duration::from_millis(2)).build();
    for _ in 0..5 {
        drop(producer.send(&topic, "value").unwrap());
        assert_eq!(careful.poll(LONG).unwrap().count(), 1);
    }
}

#[test]
fn a_flush_makes_durable_what_it_appends() {
    let store = Store::builder_temporary().checkpoint_interval(NEVER).open().unwrap();
    let topic = store.create_topic("t", TopicConfig::new().partitions(2)).unwrap();
    let producer = patient(&store, 4096);
    for n in 0..100 {
        drop(producer.send(&topic, Record::new("v").partition(n % 2)).unwrap());
    }
    producer.flush().unwrap();
    let ends: Vec<i64> =
        topic.describe().unwrap().partitions.iter().map(|one| one.durable_end).collect();
    assert_eq!(ends, [50, 50]);

    let buffered = store.producer_builder().durability(Durability::Buffered).linger(NEVER).build();
    drop(buffered.send(&topic, Record::new("v").partition(0)).unwrap());
    store.sync().unwrap();
    assert_eq!(topic.describe().unwrap().partitions[0].durable_end, 51);
}

#[test]
fn a_producer_without_a_linger_appends_at_once() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    for builder in [
        store.producer_builder(),
        store.producer_builder().linger(Duration::ZERO).buffer_memory(1).max_block(Duration::ZERO),
        store.producer_builder().linger(NEVER).batch_bytes(0),
        store.producer_builder().set("batch.size", "0").unwrap(),
    ] {
        let before = log_end(&topic, 0);
        let producer = builder.build();
        drop(producer.send(&topic, "a").unwrap());
        drop(producer.try_send(&topic, "b").unwrap());
        assert_eq!(log_end(&topic, 0), before + 2);
    }
}

#[test]
fn kafkas_names_are_accepted_and_unknown_ones_refused() {
    let (store, _) = store_with_topic(TopicConfig::new());
    let unknown = store.producer_builder().set("linger", "5").unwrap_err();
    assert_eq!(unknown.to_string(), "linger is not a property of a producer");
    for (key, value) in [
        ("linger.ms", "-1"),
        ("linger.ms", "soon"),
        ("batch.size", "2147483648"),
        ("buffer.memory", ""),
        ("acks", "2"),
        ("enable.idempotence", "yes"),
    ] {
        let error = store.producer_builder().set(key, value).unwrap_err();
        assert!(matches!(&error, Error::InvalidConfig { key: k, .. } if k == key), "{error}");
    }
    let builder = store
        .producer_builder()
        .set("acks", "0")
        .and_then(|builder| builder.set("sasl.jaas.config", "secret"))
        .and_then(|builder| builder.set("bootstrap.servers", "localhost:9092"))
        .unwrap()
        .linger(Duration::from_millis(7));
    let configs = builder.configs();
    let of = |name: &str| configs.iter().find(|config| config.name == name).unwrap().clone();
    assert_eq!((of("linger.ms").value.as_str(), of("linger.ms").is_default), ("7", false));
    assert_eq!((of("batch.size").value.as_str(), of("batch.size").is_default), ("16384", true));
    assert_eq!(of("acks").effect, ottla::ConfigEffect::KeptOnly);
    assert_eq!(of("bootstrap.servers").effect, ottla::ConfigEffect::NoNetwork);
    assert!(!format!("{builder:?}").contains("secret"));
}

#[test]
fn a_batch_of_one_record_is_the_batch_of_an_inline_send() {
    let record = || Record::new("value").key("key").header("h", "1").timestamp(77);
    let bytes = |build: fn(&Store) -> Producer| {
        let (store, topic) = store_with_topic(TopicConfig::new());
        let producer = build(&store);
        drop(producer.send(&topic, record()).unwrap());
        drop((producer, topic));
        let path = store.path().join("t-0/00000000000000000000.log");
        store.sync().unwrap();
        let mut bytes = std::fs::read(path).unwrap();
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1);
        bytes
    };
    let staged = bytes(|store| patient(store, 4096));
    assert!(staged.len() > HEADER_LEN);
    assert_eq!(staged, bytes(Store::producer));
}
