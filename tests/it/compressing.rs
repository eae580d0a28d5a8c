//! Compressed batches: who decides, what it saves, what happens where it saves nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use ottla::Compression;
use ottla::Durability;
use ottla::Error;
use ottla::Producer;
use ottla::Record;
use ottla::Store;
use ottla::TimestampType;
use ottla::Topic;
use ottla::TopicConfig;

use crate::consuming::read_all;

const ALL: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn available() -> impl Iterator<Item = Compression> {
    ALL.into_iter().filter(|codec| codec.is_available())
}

fn store(directory: &Path) -> Store {
    Store::builder(directory).durability(Durability::Buffered).open().unwrap()
}

fn value(n: i64) -> String {
    format!("{{\"sensor\":\"north-{}\",\"state\":\"fine\",\"reading\":{n}}}", n % 7)
}

fn send(producer: &Producer, topic: &Topic, range: std::ops::Range<i64>) {
    for n in range {
        let value = value(n);
        let sent = producer.send(topic, Record::new(&value).key("k").timestamp(1000 + n)).unwrap();
        drop(sent);
    }
    producer.flush().unwrap();
}

/// The codecs of a closed partition's batches, and how long they are together.
fn codecs(directory: &Path) -> (Vec<u8>, usize) {
    let bytes = fs::read(directory.join("t-0/00000000000000000000.log")).unwrap();
    let mut codecs = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let len = u32::from_be_bytes(bytes[start + 8..start + 12].try_into().unwrap());
        codecs.push(bytes[start + 22] & 7);
        start += 12 + len as usize;
    }
    (codecs, bytes.len())
}

#[test]
fn staged_batches_shrink_and_read_as_they_were_sent() {
    for codec in available() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        let topic = store.create_topic("t", TopicConfig::new()).unwrap();
        let builder = store.producer_builder().linger(Duration::from_secs(60));
        let producer = builder.compression(codec).unwrap().build();
        send(&producer, &topic, 0..3000);
        let partition = topic.partition(0).unwrap();
        let seen = read_all(&mut store.consumer().assign([&partition]).unwrap());
        assert_eq!(seen.len(), 3000);
        for (seen, n) in seen.iter().zip(0..) {
            assert_eq!((seen.offset, seen.timestamp), (n, 1000 + n));
            assert_eq!(seen.value.as_deref(), Some(value(n).as_bytes()), "{codec:?}");
        }
        for n in [0, 1, 1234, 2999] {
            let found = partition.offset_for_time(1000 + n).unwrap();
            assert_eq!(found, Some((n, 1000 + n)), "{codec:?}");
        }
        assert_eq!(partition.offset_for_time(4000).unwrap(), None);
        drop((producer, topic, partition));
        store.close().unwrap();
        let (codecs, len) = codecs(directory.path());
        assert!(codecs.iter().all(|c| *c == codecs[0] && *c > 0), "{codecs:?}");
        assert!(len < 3000 * 30, "{codec:?}: {len}");
        let report = ottla::inspect::check(directory.path()).unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
    }
}

#[test]
fn the_topic_decides_unless_it_leaves_it_to_the_producer() {
    let number = |codec: Compression| ALL.iter().position(|c| *c == codec).unwrap() as u8 + 1;
    for codec in available() {
        for (of_topic, of_producer, expected) in [
            ("producer", codec, number(codec)),
            ("uncompressed", codec, 0),
            (codec.name(), Compression::None, number(codec)),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let store = store(directory.path());
            let config = TopicConfig::new().set("compression.type", of_topic).unwrap();
            let config = config.timestamp_type(TimestampType::LogAppendTime);
            let topic = store.create_topic("t", config).unwrap();
            let producer = store.producer_builder().compression(of_producer).unwrap().build();
            let values: Vec<String> = (0..200).map(value).collect();
            let records = values.iter().map(Record::new);
            producer.send_batch(&topic.partition(0).unwrap(), records).unwrap().wait().unwrap();
            // It changes with the topic's next batch.
            topic.alter("compression.type", Some("uncompressed")).unwrap();
            producer.send(&topic, Record::new(&"a".repeat(500))).unwrap().wait().unwrap();
            let partition = topic.partition(0).unwrap();
            let seen = read_all(&mut store.consumer().assign([&partition]).unwrap());
            assert_eq!(seen.len(), 201);
            assert!(seen.iter().all(|seen| seen.timestamp > 0));
            drop((producer, topic, partition));
            store.close().unwrap();
            assert_eq!(codecs(directory.path()).0, [expected, 0], "{of_topic} {of_producer:?}");
        }
    }
}

#[test]
fn what_does_not_shrink_is_stored_as_it_is() {
    for codec in available() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        let topic = store.create_topic("t", TopicConfig::new()).unwrap();
        let producer = store.producer_builder().compression(codec).unwrap().build();
        producer.send(&topic, Record::new("7")).unwrap().wait().unwrap();
        producer.send(&topic, Record::new(&"7".repeat(300))).unwrap().wait().unwrap();
        drop((producer, topic));
        store.close().unwrap();
        let (codecs, _) = codecs(directory.path());
        assert_eq!(codecs[0], 0, "{codec:?}");
        assert_ne!(codecs[1], 0, "{codec:?}");
    }
}

#[test]
fn a_batch_may_be_longer_than_the_limit_as_long_as_it_is_not_stored_so() {
    for codec in available() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        let topic = store.create_topic("t", TopicConfig::new().max_message_bytes(2000)).unwrap();
        let long = "7".repeat(5000);
        let plain = store.producer().send(&topic, Record::new(&long)).unwrap_err();
        assert!(matches!(plain, Error::RecordTooLarge { .. }), "{plain}");
        let producer = store.producer_builder().compression(codec).unwrap().build();
        producer.send(&topic, Record::new(&long)).unwrap().wait().unwrap();
        // Staged, it is not known before.
        let producer = store.producer_builder().compression(codec).unwrap();
        let producer = producer.linger(Duration::from_secs(60)).build();
        let mixed: Vec<u8> =
            (0..5000_u64).map(|n| (n.wrapping_mul(n * n + 7919) >> 7) as u8).collect();
        let noise: Vec<u8> = mixed
            .iter()
            .scan(1_u64, |s, b| {
                *s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(u64::from(*b) | 1);
                Some((*s >> 40) as u8)
            })
            .collect();
        let short = producer.send(&topic, Record::new("short")).unwrap();
        let staged = producer.send(&topic, Record::new(&long)).unwrap();
        let refused = producer.send(&topic, Record::new(&noise)).unwrap();
        let behind = producer.send(&topic, Record::new("behind")).unwrap();
        let flushed = producer.flush().unwrap_err();
        for error in [refused.wait().unwrap_err(), flushed] {
            let key_of = |error: &Error| match error {
                Error::RecordTooLarge { limit: 2000, key, len } if *len > 5000 => Some(*key),
                _ => None,
            };
            assert_eq!(key_of(&error), Some("max.message.bytes"), "{codec:?}: {error}");
        }
        let offsets = [short, staged, behind].map(|sent| sent.wait().unwrap().offset());
        assert_eq!(offsets, [1, 2, 3], "{codec:?}");
    }
}

#[test]
fn a_reader_says_how_much_may_come_out_of_a_batch() {
    for codec in available() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        let topic = store.create_topic("t", TopicConfig::new()).unwrap();
        let partition = topic.partition(0).unwrap();
        let producer = store.producer_builder().compression(codec).unwrap().build();
        for len in [1_000, 200_000, 1_000] {
            let value = "7".repeat(len);
            producer.send(&topic, Record::new(&value)).unwrap().wait().unwrap();
        }
        let careful = store.consumer().unpacked_batch_bytes_max(100_000);
        let mut careful = careful.assign([&partition]).unwrap();
        assert_eq!(careful.poll(Duration::ZERO).unwrap().count(), 1);
        let refused = careful.poll(Duration::ZERO).unwrap_err();
        let Error::Corrupt { reason, resume: Some(2), .. } = refused else {
            panic!("{codec:?}: {refused:?}")
        };
        assert_eq!(reason, "the compressed records are longer than may be");
        careful.seek(&partition, 2).unwrap();
        assert_eq!(careful.poll(Duration::ZERO).unwrap().count(), 1);
        assert_eq!(read_all(&mut store.consumer().assign([&partition]).unwrap()).len(), 3);
    }
}

#[test]
fn a_codec_that_is_not_there_cannot_be_chosen() {
    let store = Store::temporary().unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    for codec in ALL.into_iter().filter(|codec| !codec.is_available()) {
        let name = codec.name();
        let refusals = [
            store.producer_builder().compression(codec).unwrap_err(),
            TopicConfig::new().compression(codec).unwrap_err(),
            topic.alter("compression.type", Some(name)).unwrap_err(),
        ];
        for refusal in refusals {
            assert!(matches!(refusal, Error::InvalidConfig { .. }), "{refusal}");
            assert!(refusal.to_string().contains(&format!("feature `{name}`")), "{refusal}");
        }
    }
    let unknown = store.producer_builder().set("compression.type", "lzma").unwrap_err();
    assert!(matches!(unknown, Error::InvalidConfig { .. }), "{unknown}");
}
