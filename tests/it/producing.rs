//! What a send does: where the record goes, what it carries, what is refused, when it is durable.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use ottla::Durability;
use ottla::Error;
use ottla::Producer;
use ottla::Record;
use ottla::Store;
use ottla::TimestampType;
use ottla::Topic;
use ottla::TopicConfig;

use crate::consuming::Seen;
use crate::consuming::read_all;
use crate::consuming::send_numbers;
use crate::consuming::store_with_topic;
use crate::waiting::SOON;
use crate::waiting::block_on;

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn everything(store: &Store, topic: &Topic) -> Vec<Seen> {
    read_all(&mut store.consumer().assign(topic.partitions()).unwrap())
}

/// Sends without waiting.
fn send<'r>(
    producer: &Producer,
    topic: &Topic,
    record: impl Into<Record<'r>>,
) -> ottla::Result<i64> {
    producer.send(topic, record).and_then(|delivery| delivery.wait()).map(|sent| sent.offset())
}

#[test]
fn null_and_empty_keys_and_values_stay_apart() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let producer = store.producer();
    let empty: &[u8] = b"";
    let pairs =
        [(None, None), (None, Some(empty)), (Some(empty), None), (Some(empty), Some(empty))];
    for (key, value) in pairs {
        send(&producer, &topic, Record::default().key_or_null(key).value_or_null(value)).unwrap();
    }
    let seen = everything(&store, &topic);
    let read: Vec<_> = seen.iter().map(|s| (s.key.as_deref(), s.value.as_deref())).collect();
    assert_eq!(read, pairs);
}

#[test]
fn headers_keep_their_order_their_duplicates_and_their_nulls() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let record = Record::new("v")
        .header("b", "1")
        .null_header("a")
        .header("b", "2")
        .header("", "")
        .header("ключ", &[0xff, 0])
        .header("b", "1");
    send(&store.producer(), &topic, record).unwrap();
    let owned = |name: &str, value: Option<&[u8]>| (name.to_owned(), value.map(<[u8]>::to_vec));
    let wanted = vec![
        owned("b", Some(b"1")),
        owned("a", None),
        owned("b", Some(b"2")),
        owned("", Some(b"")),
        owned("ключ", Some(&[0xff, 0])),
        owned("b", Some(b"1")),
    ];
    assert_eq!(everything(&store, &topic)[0].headers, wanted);
}

#[test]
fn a_record_carries_its_own_timestamp_or_the_time_of_the_send() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let producer = store.producer();
    let own = producer.send(&topic, Record::new("own").timestamp(0)).unwrap().wait().unwrap();
    let before = now_ms();
    let given = producer.send(&topic, Record::new("given")).unwrap().wait().unwrap();
    let after = now_ms();
    let seen = everything(&store, &topic);
    assert_eq!((seen[0].timestamp, own.timestamp()), (0, 0));
    assert_eq!(seen[1].timestamp, given.timestamp());
    assert!((before..=after).contains(&seen[1].timestamp));
    assert!(seen.iter().all(|seen| seen.timestamp_type == TimestampType::CreateTime));
    let batch = [7, 9, 8].map(|time| Record::new("v").timestamp(time));
    let sent = producer.send_batch(&topic.partition(0).unwrap(), batch).unwrap().wait().unwrap();
    assert_eq!(sent.timestamp(), 9, "of a batch, the greatest");
}

#[test]
fn a_timestamp_that_the_topic_does_not_accept_is_refused() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let producer = store.producer();
    let refused = |timestamp: i64| {
        let error = send(&producer, &topic, Record::new("v").timestamp(timestamp)).unwrap_err();
        let is_told =
            matches!(error, Error::InvalidTimestamp { timestamp: named, .. } if named == timestamp);
        assert!(is_told, "{timestamp}: {error}");
        assert_eq!(error.kafka_code(), Some(32));
    };
    refused(-1);
    refused(i64::MIN);
    refused(i64::MAX);
    refused(now_ms() + 3_600_000 + 60_000);
    send(&producer, &topic, Record::new("v").timestamp(now_ms() + 3_600_000 - 60_000)).unwrap();
    send(&producer, &topic, Record::new("v").timestamp(0)).unwrap();
    topic.alter("message.timestamp.before.max.ms", Some("60000")).unwrap();
    refused(0);
    refused(now_ms() - 120_000);
    send(&producer, &topic, Record::new("v").timestamp(now_ms() - 10_000)).unwrap();
    topic.alter("message.timestamp.after.max.ms", Some("9223372036854775807")).unwrap();
    send(&producer, &topic, Record::new("v").timestamp(i64::MAX)).unwrap();
    assert_eq!(topic.partition(0).unwrap().watermarks().unwrap(), (0, 4));
}

#[test]
fn an_append_time_overrides_what_the_record_says_and_never_decreases() {
    let config =
        TopicConfig::new().timestamp_type(TimestampType::LogAppendTime).segment_bytes(2048);
    let (store, topic) = store_with_topic(config);
    let before = now_ms();
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let (producer, topic) = (store.producer(), topic.clone());
            thread::spawn(move || {
                for n in 0..200 {
                    let record = Record::new("v").timestamp(n);
                    let sent = producer.send(&topic, record).unwrap().wait().unwrap();
                    assert!(sent.timestamp() > 1_000);
                }
            })
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    let batch = [5, 6].map(|time| Record::new("v").timestamp(time));
    let producer = store.producer();
    let sent = producer.send_batch(&topic.partition(0).unwrap(), batch).unwrap().wait().unwrap();
    let seen = everything(&store, &topic);
    assert_eq!(seen.len(), 802);
    assert!(seen.iter().all(|seen| seen.timestamp_type == TimestampType::LogAppendTime));
    assert!(seen.windows(2).all(|pair| pair[0].timestamp <= pair[1].timestamp));
    assert!(seen[0].timestamp >= before && seen[801].timestamp <= now_ms());
    assert_eq!((seen[800].timestamp, seen[801].timestamp), (sent.timestamp(), sent.timestamp()));
}

#[test]
fn an_oversized_record_fails_alone() {
    let (store, topic) = store_with_topic(TopicConfig::new().max_message_bytes(1000));
    let producer = store.producer();
    let (small, large) = (vec![1; 500], vec![2; 1000]);
    for offset in 0..3 {
        let error = send(&producer, &topic, &large).unwrap_err();
        let Error::RecordTooLarge { len, limit: 1000, key: "max.message.bytes" } = error else {
            panic!("{error}");
        };
        assert!(len > 1000 && len < 1100);
        assert_eq!(send(&producer, &topic, &small).unwrap(), offset);
    }
    let seen = everything(&store, &topic);
    assert!(seen.iter().all(|seen| seen.value.as_deref() == Some(&small[..])));
}

#[test]
fn a_batch_of_exactly_the_limit_is_accepted_and_one_byte_more_is_not() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let producer = store.producer();
    let value = vec![1; 5_000];
    send(&producer, &topic, Record::new(&value).timestamp(5)).unwrap();
    let len = topic.describe().unwrap().partitions[0].len as u32;
    topic.alter("max.message.bytes", Some(&len.to_string())).unwrap();
    send(&producer, &topic, Record::new(&value).timestamp(5)).unwrap();
    topic.alter("max.message.bytes", Some(&(len - 1).to_string())).unwrap();
    assert!(send(&producer, &topic, Record::new(&value).timestamp(5)).is_err());
}

#[test]
fn a_batch_that_no_segment_can_hold_is_refused() {
    let (store, topic) = store_with_topic(TopicConfig::new().segment_bytes(1024));
    let producer = store.producer();
    send(&producer, &topic, "before").unwrap();
    let error = send(&producer, &topic, &vec![0; 2000]).unwrap_err();
    let is_told = matches!(error, Error::RecordTooLarge { limit: 1024, key: "segment.bytes", .. });
    assert!(is_told, "{error}");
    assert_eq!(error.kafka_code(), Some(18));
    assert_eq!(send(&producer, &topic, "after").unwrap(), 1);
    assert_eq!(topic.describe().unwrap().partitions[0].segment_count, 1, "it rolled nothing");
}

#[test]
fn a_batch_gets_consecutive_offsets_or_is_not_appended_at_all() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(2));
    let partition = topic.partition(1).unwrap();
    let producer = store.producer();
    let good = || ["a", "b", "c"].map(Record::new);
    let sent = producer.send_batch(&partition, good()).unwrap().wait().unwrap();
    assert_eq!((sent.partition(), sent.offset(), sent.offsets()), (1, 0, 0..3));

    let spoilt = |last: Record<'static>| -> Vec<Record<'static>> {
        good().into_iter().chain([last]).collect()
    };
    let elsewhere = producer.send_batch(&partition, spoilt(Record::new("d").partition(0)));
    assert!(matches!(elsewhere, Err(Error::InvalidRecord { .. })));
    let untimely = producer.send_batch(&partition, spoilt(Record::new("d").timestamp(-5)));
    assert!(matches!(untimely, Err(Error::InvalidTimestamp { timestamp: -5, .. })));
    let nothing = producer.send_batch(&partition, Vec::<Record<'_>>::new());
    assert!(matches!(nothing, Err(Error::InvalidRecord { .. })));
    let value = vec![0; 400_000];
    let large = producer.send_batch(&partition, [&value, &value, &value]);
    assert!(matches!(large, Err(Error::RecordTooLarge { .. })));
    assert_eq!(partition.watermarks().unwrap(), (0, 3));

    // The record may name its own partition; its key does not matter.
    let named = spoilt(Record::new("d").partition(1).key("a"));
    let sent = producer.send_batch(&partition, named).unwrap().wait().unwrap();
    assert_eq!(sent.offsets(), 3..7);
}

#[test]
fn concurrent_batches_never_interleave() {
    let (store, topic) = store_with_topic(TopicConfig::new().segment_bytes(8192));
    let partition = topic.partition(0).unwrap();
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let (producer, partition) = (store.producer(), partition.clone());
            thread::spawn(move || {
                for n in 0..200 {
                    let values: Vec<String> = (0..5).map(|k| format!("{sender} {n} {k}")).collect();
                    let sent = producer.send_batch(&partition, &values).unwrap().wait().unwrap();
                    assert_eq!(sent.offsets().end - sent.offset(), 5);
                }
            })
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    let seen = everything(&store, &topic);
    assert_eq!(seen.len(), 4_000);
    for batch in seen.chunks(5) {
        let texts: Vec<String> = batch
            .iter()
            .map(|seen| String::from_utf8(seen.value.clone().unwrap()).unwrap())
            .collect();
        let front = texts[0].strip_suffix('0').unwrap();
        assert_eq!(texts, (0..5).map(|k| format!("{front}{k}")).collect::<Vec<_>>());
    }
}

#[test]
fn a_partition_that_does_not_exist_is_refused() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(3));
    for number in [3, 4, u32::MAX] {
        let error =
            send(&store.producer(), &topic, Record::new("v").partition(number)).unwrap_err();
        let is_told = matches!(error, Error::UnknownPartition { partition, count: 3, .. } if partition == number);
        assert!(is_told, "{error}");
    }
    assert!(everything(&store, &topic).is_empty());
}

#[test]
fn keyed_records_go_where_kafkas_java_client_sends_them() {
    // Kafka's own test vectors, positive(murmur2(key)) modulo 3, 6, 12 and 100.
    let golden: [(&[u8], [u32; 4]); 12] = [
        (b"", [0, 3, 9, 81]),
        (b"a", [1, 4, 4, 24]),
        (b"ab", [2, 2, 2, 34]),
        (b"abc", [0, 3, 3, 7]),
        (b"abcd", [2, 2, 8, 0]),
        (b"21", [0, 0, 0, 40]),
        (b"foobar", [0, 0, 6, 66]),
        (b"a-little-bit-long-string", [2, 2, 8, 12]),
        (b"a-little-bit-longer-string", [2, 5, 11, 19]),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", [2, 5, 5, 77]),
        ("你好".as_bytes(), [0, 0, 0, 48]),
        (b"\xff\xfe\xfd\xfc\xfb", [1, 1, 7, 35]),
    ];
    let store = Store::builder_temporary().durability(Durability::Buffered).open().unwrap();
    let producer = store.producer();
    for (column, count) in [3, 6, 12, 100].into_iter().enumerate() {
        let config = TopicConfig::new().partitions(count);
        let topic = store.create_topic(&format!("t{count}"), config).unwrap();
        for (key, partitions) in golden {
            for record in [Record::new("v").key(key), Record::tombstone(key)] {
                let sent = producer.send(&topic, record).unwrap().wait().unwrap();
                assert_eq!(sent.partition(), partitions[column], "{key:?} of {count}");
                assert_eq!(sent.topic(), topic.name());
            }
            let named = Record::new("v").key(key).partition(count - 1);
            let sent = producer.send(&topic, named).unwrap().wait().unwrap();
            assert_eq!(sent.partition(), count - 1, "what the record names comes first");
        }
    }
}

#[test]
fn unkeyed_records_stay_on_a_partition_for_a_batch_of_bytes_and_then_move() {
    const BATCH_SIZE: u64 = 16_384;
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(64));
    let producer = store.producer();
    // Runs of sends to one partition, as the bytes appended there.
    let mut runs: Vec<(u32, u64)> = Vec::new();
    for n in 0..12_000_usize {
        let value = vec![0; n % 200];
        let sent = producer.send(&topic, Record::new(&value)).unwrap().wait().unwrap();
        // 61 bytes of batch, 6 or more of record: what exactly does not matter to the bounds.
        let len = 67 + value.len() as u64;
        match runs.last_mut() {
            Some((partition, run)) if *partition == sent.partition() => *run += len,
            _ => runs.push((sent.partition(), len)),
        }
    }
    runs.pop();
    assert!(runs.len() > 80, "{}", runs.len());
    for (partition, run) in &runs {
        assert!(*run > BATCH_SIZE * 9 / 10, "left partition {partition} after {run} bytes");
    }
    // The next partition is drawn at random and may be the same one, which lengthens a run.
    let long = runs.iter().filter(|(_, run)| *run > 2 * BATCH_SIZE).count();
    assert!(long < 12, "{long} of {} runs", runs.len());
    let mut reached: Vec<u32> = runs.iter().map(|(partition, _)| *partition).collect();
    reached.sort_unstable();
    reached.dedup();
    assert!(reached.len() > 32, "{reached:?}");
}

#[test]
fn keyed_records_do_not_move_the_unkeyed_ones() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(64));
    let producer = store.producer();
    let value = vec![0; 1000];
    let first = producer.send(&topic, "v").unwrap().wait().unwrap().partition();
    for n in 0..200 {
        let key = format!("{n}");
        send(&producer, &topic, Record::new(&value).key(&key)).unwrap();
        send(&producer, &topic, Record::new(&value).partition(n % 64)).unwrap();
    }
    assert_eq!(producer.send(&topic, "v").unwrap().wait().unwrap().partition(), first);
}

#[test]
fn offsets_increase_for_each_thread_on_each_partition() {
    const THREADS: usize = 8;
    const PARTITIONS: u32 = 4;
    let config = TopicConfig::new().partitions(PARTITIONS).segment_bytes(4096);
    let (store, topic) = store_with_topic(config);
    let start = Arc::new(Barrier::new(THREADS));
    let producer = store.producer();
    let senders: Vec<_> = (0..THREADS)
        .map(|sender| {
            let (producer, topic, start) = (producer.clone(), topic.clone(), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                let mut latest = [-1; PARTITIONS as usize];
                for n in 0..500_u32 {
                    let value = format!("{sender} {n}");
                    let record = Record::new(&value).partition(n % PARTITIONS);
                    let sent = producer.send(&topic, record).unwrap().wait().unwrap();
                    let latest = &mut latest[sent.partition() as usize];
                    assert!(sent.offset() > *latest);
                    *latest = sent.offset();
                }
            })
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    for partition in topic.partitions() {
        let seen = read_all(&mut store.consumer().assign([&partition]).unwrap());
        assert_eq!(seen.len(), THREADS * 500 / PARTITIONS as usize);
        let mut latest: BTreeMap<usize, u32> = BTreeMap::new();
        for (n, seen) in seen.iter().enumerate() {
            assert_eq!(seen.offset, n as i64, "offsets have no holes");
            let text = String::from_utf8(seen.value.clone().unwrap()).unwrap();
            let (sender, n) = text.split_once(' ').unwrap();
            let (sender, n) = (sender.parse().unwrap(), n.parse().unwrap());
            assert!(latest.insert(sender, n).is_none_or(|before| before < n));
        }
    }
}

/// A store that synchronises nothing unless it is asked to.
fn lazy_store(durability: Durability) -> (Store, Topic) {
    let store = Store::builder_temporary()
        .durability(durability)
        .checkpoint_interval(Duration::from_secs(3600))
        .open()
        .unwrap();
    let topic = store.create_topic("t", TopicConfig::new().partitions(3)).unwrap();
    (store, topic)
}

fn durable_ends(topic: &Topic) -> Vec<i64> {
    topic.describe().unwrap().partitions.iter().map(|partition| partition.durable_end).collect()
}

#[test]
fn a_flush_covers_everything_sent_before() {
    let (store, topic) = lazy_store(Durability::Synced);
    let producer = store.producer();
    for n in 0..30 {
        drop(producer.send(&topic, Record::new("v").partition(n % 3)).unwrap());
    }
    producer.flush().unwrap();
    assert_eq!(durable_ends(&topic), [10, 10, 10]);
    producer.flush().unwrap();
}

#[test]
fn a_flush_covers_what_was_sent_before_while_others_flush_too() {
    let (store, topic) = lazy_store(Durability::Synced);
    let producer = store.producer();
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let (producer, topic) = (producer.clone(), topic.clone());
            thread::spawn(move || {
                for n in 0..300 {
                    let sent = producer.send(&topic, Record::new("v").partition(n % 3)).unwrap();
                    producer.flush().unwrap();
                    let durable = durable_ends(&topic)[n as usize % 3];
                    // Waiting tells the offset; it is asked for behind the look at the durable end.
                    let offset = sent.wait().unwrap().offset();
                    assert!(durable > offset, "offset {offset}, durable up to {durable}");
                }
            })
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
}

#[test]
fn a_synced_delivery_completes_once_its_record_is_durable() {
    let (store, topic) = lazy_store(Durability::Synced);
    let producer = store.producer();
    let record = || Record::new("v").partition(0);
    let first = producer.send(&topic, record()).unwrap();
    assert_eq!(durable_ends(&topic)[0], 0, "nothing is synchronised before anybody waits");
    assert_eq!(first.wait().unwrap().offset(), 0);
    assert_eq!(durable_ends(&topic)[0], 1);

    let mut second = producer.send(&topic, record()).unwrap();
    assert_eq!(second.wait_timeout(SOON).unwrap().offset(), 1);
    assert!(durable_ends(&topic)[0] >= 2);
    assert_eq!(second.wait_timeout(Duration::ZERO).unwrap().offset(), 1, "it may be asked again");

    let third = producer.send(&topic, record()).unwrap();
    assert_eq!(block_on(third.clone()).unwrap().offset(), 2);
    assert!(durable_ends(&topic)[0] >= 3);
    assert_eq!(block_on(third).unwrap().offset(), 2, "a clone completes too");

    let mut fourth = producer.send(&topic, record()).unwrap();
    match fourth.wait_timeout(Duration::ZERO) {
        Ok(sent) => assert_eq!(sent.offset(), 3),
        Err(Error::Timeout { .. }) => assert_eq!(fourth.wait().unwrap().offset(), 3),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn many_deliveries_are_awaited_by_many_tasks() {
    let (store, topic) = lazy_store(Durability::Synced);
    let producer = store.producer();
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let (producer, topic) = (producer.clone(), topic.clone());
            thread::spawn(move || {
                for _ in 0..50 {
                    let record = Record::new("v").partition(task % 3);
                    let sent = block_on(producer.send(&topic, record).unwrap()).unwrap();
                    assert!(durable_ends(&topic)[sent.partition() as usize] > sent.offset());
                }
            })
        })
        .collect();
    tasks.into_iter().for_each(|task| task.join().unwrap());
}

#[test]
fn deliveries_of_the_other_levels_complete_at_once() {
    for level in [Durability::Buffered, Durability::Every(Duration::from_secs(3000))] {
        let (store, topic) = lazy_store(level);
        let producer = store.producer();
        assert_eq!(producer.durability(), level);
        let record = || Record::new("v").partition(0);
        assert_eq!(producer.send(&topic, record()).unwrap().wait().unwrap().offset(), 0);
        let mut second = producer.send(&topic, record()).unwrap();
        assert_eq!(second.wait_timeout(Duration::ZERO).unwrap().offset(), 1);
        assert_eq!(block_on(producer.send(&topic, record()).unwrap()).unwrap().offset(), 2);
        producer.flush().unwrap();
        assert_eq!(durable_ends(&topic)[0], 0, "{level:?}: nobody asked for a sync");
        assert_eq!(everything(&store, &topic).len(), 3, "{level:?}: visible all the same");
    }
}

#[test]
fn every_interval_the_records_become_durable_though_nobody_waits() {
    let (store, topic) = lazy_store(Durability::Every(Duration::from_millis(20)));
    for sent in 1..4 {
        drop(store.producer().send(&topic, Record::new("v").partition(0)).unwrap());
        let begun = Instant::now();
        while durable_ends(&topic)[0] < sent {
            assert!(begun.elapsed() < SOON);
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_producer_may_have_a_level_of_its_own() {
    let (store, topic) = lazy_store(Durability::Buffered);
    let careful = store.producer_builder().durability(Durability::Synced).build();
    let _ = store.producer().send(&topic, Record::new("v").partition(1)).unwrap().wait().unwrap();
    assert_eq!(durable_ends(&topic), [0, 0, 0]);
    careful.send(&topic, Record::new("v").partition(1)).unwrap().wait().unwrap();
    assert_eq!(durable_ends(&topic), [0, 2, 0], "a sync covers what others sent before");
}

#[test]
fn a_compacted_topic_needs_keys() {
    let config = TopicConfig::new().set("cleanup.policy", "compact").unwrap();
    let (store, topic) = store_with_topic(config);
    let producer = store.producer();
    let refused = send(&producer, &topic, "no key").unwrap_err();
    assert!(matches!(refused, Error::InvalidRecord { .. }), "{refused}");
    assert_eq!(refused.kafka_code(), Some(87));
    let batch = [Record::new("v").key("k"), Record::new("v")];
    let refused = producer.send_batch(&topic.partition(0).unwrap(), batch).unwrap_err();
    assert!(matches!(refused, Error::InvalidRecord { .. }), "{refused}");
    send(&producer, &topic, Record::new("v").key("")).unwrap();
    send(&producer, &topic, Record::tombstone("k")).unwrap();
    assert_eq!(everything(&store, &topic).len(), 2);
    topic.alter("cleanup.policy", None).unwrap();
    send(&producer, &topic, "no key").unwrap();
}

#[test]
fn a_topic_of_another_store_is_refused() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let (other, _) = store_with_topic(TopicConfig::new());
    let error = send(&other.producer(), &topic, "v").unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { argument: "topic", .. }), "{error}");
    let error = other.producer().send_batch(&topic.partition(0).unwrap(), ["v"]).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { argument: "topic", .. }), "{error}");
    assert!(everything(&store, &topic).is_empty());
}

#[test]
fn after_the_close_every_handle_says_closed() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let (producer, held, partition) =
        (store.producer(), store.clone(), topic.partition(0).unwrap());
    let synced = store.producer_builder().durability(Durability::Synced).build();
    let mut consumer = store.consumer().assign([&partition]).unwrap();
    let delivery = synced.send(&topic, "before").unwrap();
    store.close().unwrap();
    assert!(matches!(producer.send(&topic, "late"), Err(Error::Closed)));
    assert!(matches!(producer.send_batch(&partition, ["late"]), Err(Error::Closed)));
    assert!(matches!(consumer.poll(Duration::ZERO), Err(Error::Closed)));
    assert!(matches!(held.topics(), Err(Error::Closed)));
    assert!(matches!(held.topic("t"), Err(Error::Closed)));
    assert!(matches!(held.create_topic("u", TopicConfig::new()), Err(Error::Closed)));
    assert!(matches!(held.delete_topic("t"), Err(Error::Closed)));
    assert!(matches!(held.sync(), Err(Error::Closed)));
    assert!(matches!(topic.alter("segment.ms", Some("1")), Err(Error::Closed)));
    assert!(matches!(topic.add_partitions(2), Err(Error::Closed)));
    assert!(matches!(held.consumer().assign([&partition]), Err(Error::Closed)));
    assert_eq!(delivery.wait().unwrap().offset(), 0, "the close made it durable");
    held.close().unwrap();
}

#[test]
fn a_batchs_own_iterator_may_send() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(2));
    let [outer, inner] = [topic.partition(0).unwrap(), topic.partition(1).unwrap()];
    let producer = store.producer();
    let records = (0..5).map(|n| {
        let value = format!("inner {n}");
        drop(producer.send_batch(&inner, [Record::new(&value)]).unwrap());
        Record::new("outer")
    });
    let sent = producer.send_batch(&outer, records).unwrap().wait().unwrap();
    assert_eq!(sent.offsets(), 0..5);
    let of = |partition| read_all(&mut store.consumer().assign([partition]).unwrap());
    assert!(of(&outer).iter().all(|seen| seen.value.as_deref() == Some(b"outer")));
    let values: Vec<_> = of(&inner).into_iter().map(|seen| seen.value.unwrap()).collect();
    assert_eq!(values, (0..5).map(|n| format!("inner {n}").into_bytes()).collect::<Vec<_>>());
}

#[test]
fn a_panicking_iterator_appends_nothing_and_breaks_nothing() {
    let (store, topic) = store_with_topic(TopicConfig::new());
    let partition = topic.partition(0).unwrap();
    let producer = store.producer();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let records = (0..5).map(|n| if n < 3 { Record::new("v") } else { panic!("on purpose") });
        drop(producer.send_batch(&partition, records));
    }));
    assert!(outcome.is_err());
    assert_eq!(partition.watermarks().unwrap(), (0, 0));
    send_numbers(&store, &topic, 0..3);
    assert_eq!(everything(&store, &topic).len(), 3);
}

#[test]
fn a_synced_record_that_nobody_waits_for_becomes_durable_on_its_own() {
    let store =
        Store::builder_temporary().checkpoint_interval(Duration::from_secs(3600)).open().unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    let mut careful =
        store.consumer().isolation(ottla::Isolation::Durable).assign(topic.partitions()).unwrap();
    drop(store.producer().send(&topic, Record::new("value")).unwrap());
    assert_eq!(careful.poll(Duration::from_secs(30)).unwrap().count(), 1);
}
