//! Our batches as an independent implementation of the format reads them, and its batches as we read them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::fs;
use std::path::Path;

use bytes::Bytes;
use bytes::BytesMut;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::Compression;
use kafka_protocol::records::NO_PRODUCER_EPOCH;
use kafka_protocol::records::NO_PRODUCER_ID;
use kafka_protocol::records::NO_SEQUENCE;
use kafka_protocol::records::Record as Theirs;
use kafka_protocol::records::RecordBatchDecoder;
use kafka_protocol::records::RecordBatchEncoder;
use kafka_protocol::records::RecordEncodeOptions;
use kafka_protocol::records::TimestampType as TheirTimestampType;
use ottla::Durability;
use ottla::Record;
use ottla::Store;
use ottla::TimestampType;
use ottla::TopicConfig;
use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::consuming::Seen;
use crate::consuming::read_all;

/// What a record is made of, without its place in the log.
#[derive(Clone, Debug)]
struct Shape {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Shape {
    fn record(&self) -> Record<'_> {
        let record = Record::default()
            .key_or_null(self.key.as_deref())
            .value_or_null(self.value.as_deref())
            .timestamp(self.timestamp);
        self.headers.iter().fold(record, |record, (name, value)| match value {
            Some(value) => record.header(name, value),
            None => record.null_header(name),
        })
    }

    fn seen(&self, offset: i64) -> Seen {
        Seen {
            offset,
            timestamp: self.timestamp,
            timestamp_type: TimestampType::CreateTime,
            key: self.key.clone(),
            value: self.value.clone(),
            headers: self.headers.clone(),
        }
    }
}

fn bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(Vec::new())),
        4 => prop::collection::vec(any::<u8>(), 1..200).prop_map(Some),
    ]
}

fn header_name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("dup".to_owned()),
        Just("Ü-größe-你好".to_owned()),
        any::<String>()
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    let timestamp = prop_oneof![Just(0), 0..2_000_i64, 1_600_000_000_000..1_700_000_000_000_i64];
    let headers = prop::collection::vec((header_name(), bytes()), 0..4);
    (timestamp, bytes(), bytes(), headers).prop_map(|(timestamp, key, value, headers)| Shape {
        timestamp,
        key,
        value,
        headers,
    })
}

fn batches() -> impl Strategy<Value = Vec<Vec<Shape>>> {
    let len = prop_oneof![4 => 1..4_usize, 2 => 1..40_usize, 1 => 200..=500_usize];
    prop::collection::vec(len.prop_flat_map(|len| prop::collection::vec(shape(), len)), 1..8)
}

/// Their decoder keeps headers in a map: of headers with the same name the first one's place, the last
/// one's value.
fn merged(headers: &[(String, Option<Vec<u8>>)]) -> Vec<(String, Option<Vec<u8>>)> {
    let mut merged: Vec<(String, Option<Vec<u8>>)> = Vec::new();
    for (name, value) in headers {
        match merged.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => known.clone_from(value),
            None => merged.push((name.clone(), value.clone())),
        }
    }
    merged
}

fn as_they_read(record: &Theirs) -> Seen {
    Seen {
        offset: record.offset,
        timestamp: record.timestamp,
        timestamp_type: match record.timestamp_type {
            TheirTimestampType::Creation => TimestampType::CreateTime,
            TheirTimestampType::LogAppend => TimestampType::LogAppendTime,
        },
        key: record.key.as_ref().map(|bytes| bytes.to_vec()),
        value: record.value.as_ref().map(|bytes| bytes.to_vec()),
        headers: record
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_ref().map(|bytes| bytes.to_vec())))
            .collect(),
    }
}

/// All batches of a partition, as the bytes of its files.
fn log_bytes(partition: &Path) -> Bytes {
    let mut paths: Vec<_> = fs::read_dir(partition)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    paths.sort();
    paths.iter().flat_map(|path| fs::read(path).unwrap()).collect()
}

fn assert_they_read_what_we_write(batches: &[Vec<Shape>], compression: Compression) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::builder(directory.path()).durability(Durability::Buffered).open().unwrap();
    let config = TopicConfig::new().segment_bytes(4 << 20).max_message_bytes(4 << 20);
    let topic = store.create_topic("t", config).unwrap();
    let partition = topic.partition(0).unwrap();
    let codec = format!("{compression:?}").to_lowercase();
    let producer = store.producer_builder().set("compression.type", &codec).unwrap().build();
    let mut wanted = Vec::new();
    let mut bases = Vec::new();
    for batch in batches {
        let base = wanted.len() as i64;
        let sent = producer.send_batch(&partition, batch.iter().map(Shape::record));
        assert_eq!(sent.unwrap().wait().unwrap().offsets(), base..base + batch.len() as i64);
        bases.push((base, batch.len() as i32));
        wanted.extend(batch.iter().zip(base..).map(|(shape, offset)| shape.seen(offset)));
    }
    let ours = read_all(&mut store.consumer().assign([&partition]).unwrap());
    assert_eq!(ours, wanted);
    drop((partition, topic, producer));
    store.close().unwrap();

    let bytes = log_bytes(&directory.path().join("t-0"));
    let infos = RecordBatchDecoder::decode_batch_info(&mut bytes.clone()).unwrap();
    let found: Vec<(i64, i32)> =
        infos.iter().map(|info| (info.min_offset, info.record_count)).collect();
    assert_eq!(found, bases);
    for info in &infos {
        // A batch that would not shrink is stored as it is.
        assert_eq!(info.version, 2);
        assert!(matches!(info.compression, Compression::None) || info.compression == compression);
        assert_eq!((info.producer_id, info.producer_epoch), (NO_PRODUCER_ID, NO_PRODUCER_EPOCH));
        assert_eq!((info.base_sequence, info.partition_leader_epoch), (NO_SEQUENCE, 0));
        assert!(!info.transactional && !info.control && !info.delete_horizon);
    }
    let sets = RecordBatchDecoder::decode_all(&mut bytes.clone()).unwrap();
    let theirs: Vec<Seen> = sets.iter().flat_map(|set| &set.records).map(as_they_read).collect();
    assert_eq!(theirs.len(), wanted.len());
    for (theirs, mut wanted) in theirs.into_iter().zip(wanted) {
        wanted.headers = merged(&wanted.headers);
        assert_eq!(theirs, wanted);
    }
}

/// Whether their producer says who it is; only then does their encoder put several records into a batch.
#[derive(Clone, Copy, Debug)]
struct Author {
    id: i64,
    epoch: i16,
    leader_epoch: i32,
}

const NOBODY: Author = Author { id: NO_PRODUCER_ID, epoch: NO_PRODUCER_EPOCH, leader_epoch: 0 };

fn their_batch(base: i64, batch: &[Shape], author: Author, compression: Compression) -> Bytes {
    let records: Vec<Theirs> = batch
        .iter()
        .zip(base..)
        .map(|(shape, offset)| Theirs {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: author.leader_epoch,
            producer_id: author.id,
            producer_epoch: author.epoch,
            timestamp_type: TheirTimestampType::Creation,
            offset,
            sequence: if author.id < 0 { NO_SEQUENCE } else { offset as i32 },
            timestamp: shape.timestamp,
            key: shape.key.clone().map(Bytes::from),
            value: shape.value.clone().map(Bytes::from),
            headers: shape
                .headers
                .iter()
                .map(|(name, value)| {
                    (StrBytes::from_string(name.clone()), value.clone().map(Bytes::from))
                })
                .collect(),
        })
        .collect();
    let options = RecordEncodeOptions { version: 2, compression };
    let mut bytes = BytesMut::new();
    RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    bytes.freeze()
}

/// What both sides can compress with, and nothing.
fn codecs() -> Vec<Compression> {
    let mut codecs = vec![Compression::None];
    codecs.extend(cfg!(feature = "gzip").then_some(Compression::Gzip));
    codecs.extend(cfg!(feature = "snappy").then_some(Compression::Snappy));
    codecs.extend(cfg!(feature = "lz4").then_some(Compression::Lz4));
    codecs.extend(cfg!(feature = "zstd").then_some(Compression::Zstd));
    codecs
}

fn directory_with_log(bytes: &[u8]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let partition = directory.path().join("theirs-0");
    fs::create_dir(&partition).unwrap();
    fs::write(partition.join("00000000000000000000.log"), bytes).unwrap();
    directory
}

fn assert_we_read_what_they_write(
    batches: &[Vec<Shape>],
    author: Author,
    compression: Compression,
) {
    let mut log = Vec::new();
    let mut wanted = Vec::new();
    for batch in batches {
        let base = wanted.len() as i64;
        log.extend_from_slice(&their_batch(base, batch, author, compression));
        for (shape, offset) in batch.iter().zip(base..) {
            let mut seen = shape.seen(offset);
            seen.headers = merged(&seen.headers);
            wanted.push(seen);
        }
    }
    let directory = directory_with_log(&log);
    let reader = Store::open_read_only(directory.path()).unwrap();
    let partitions = reader.topic("theirs").unwrap().partitions();
    assert_eq!(read_all(&mut reader.consumer().assign(partitions).unwrap()), wanted);
    drop(reader);

    for round in 0..2 {
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.health().findings, [], "round {round}");
        let partitions = store.topic("theirs").unwrap().partitions();
        let ours = read_all(&mut store.consumer().assign(partitions).unwrap());
        assert_eq!(ours, wanted, "round {round}");
        store.close().unwrap();
    }
    let kept = fs::read(directory.path().join("theirs-0/00000000000000000000.log")).unwrap();
    assert!(kept == log, "the log was rewritten");
}

fn big(len: usize, timestamp: i64) -> Shape {
    Shape {
        timestamp,
        key: Some(vec![b'k'; len / 4]),
        value: Some((0..len).map(|n| n as u8).collect()),
        headers: vec![("h".repeat(len / 100), Some(vec![0; len / 10]))],
    }
}

#[test]
fn large_records_are_read_by_an_independent_decoder_as_they_were_sent() {
    for compression in codecs() {
        let batches = [
            vec![big(1_000_000, 5)],
            vec![big(127, 1), big(128, 2), big(16_383, 0), big(16_384, 9)],
            vec![big(2_000_000, 1_700_000_000_000)],
        ];
        assert_they_read_what_we_write(&batches, compression);
    }
}

#[test]
fn large_records_of_an_independent_encoder_are_adopted() {
    for compression in codecs() {
        let batches = [vec![big(1_000_000, 5)], vec![big(2_000_000, 3)]];
        assert_we_read_what_they_write(&batches, NOBODY, compression);
    }
}

#[test]
fn the_append_time_of_an_adopted_batch_is_the_time_of_each_of_its_records() {
    let shapes: Vec<Shape> = [10, 30, 20].map(|timestamp| big(8, timestamp)).to_vec();
    let author = Author { id: 7, epoch: 0, ..NOBODY };
    let mut batch = their_batch(0, &shapes, author, Compression::None).to_vec();
    // What a broker does to a batch of a topic with LogAppendTime: one bit, and the checksum anew.
    batch[22] |= 0x08;
    let checksum = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&checksum.to_be_bytes());
    let directory = directory_with_log(&batch);
    let store = Store::open(directory.path()).unwrap();
    let partition = store.topic("theirs").unwrap().partition(0).unwrap();
    let seen = read_all(&mut store.consumer().assign([&partition]).unwrap());
    let times: Vec<_> = seen.iter().map(|seen| (seen.timestamp, seen.timestamp_type)).collect();
    assert_eq!(times, [(30, TimestampType::LogAppendTime); 3]);
    assert_eq!(partition.offset_for_time(15).unwrap(), Some((0, 30)));
}

#[test]
fn a_batch_is_written_byte_for_byte_as_the_format_prescribes() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    let batch = [
        Record::new("v1").key("k1").timestamp(1_700_000_000_000),
        Record::new("hello").header("h", &[1]).null_header("n").timestamp(1_700_000_000_005),
        Record::tombstone("k3").timestamp(1_699_999_999_990),
    ];
    store.producer().send_batch(&topic.partition(0).unwrap(), batch).unwrap().wait().unwrap();
    drop(topic);
    store.close().unwrap();
    // Computed by an independent implementation; the checksum is 94c2a565.
    let wanted = "0000000000000000000000580000000002\
        94c2a565000000000002\
        0000018bcfe568000000018bcfe56805ffffffffffffffffffffffffffff00000003\
        14000000046b3104763100\
        24000a02010a68656c6c6f04026802010 26e01\
        1000130404 6b330100";
    let wanted: String = wanted.split_whitespace().collect();
    let bytes = log_bytes(&directory.path().join("t-0"));
    let found: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(found, wanted);
}

proptest! {
    #![proptest_config(Config { cases: 24, failure_persistence: None, ..Config::default() })]

    #[test]
    fn an_independent_decoder_reads_what_we_write(
        batches in batches(),
        compression in prop::sample::select(codecs()),
    ) {
        assert_they_read_what_we_write(&batches, compression);
    }

    #[test]
    fn batches_of_an_independent_encoder_are_adopted(
        batches in batches(),
        id in prop_oneof![Just(NO_PRODUCER_ID), 0..i64::MAX],
        leader_epoch in prop_oneof![Just(0), 1..i32::MAX],
        compression in prop::sample::select(codecs()),
    ) {
        let epoch = if id < 0 { NO_PRODUCER_EPOCH } else { 3 };
        let author = Author { id, epoch, leader_epoch };
        assert_we_read_what_they_write(&batches, author, compression);
    }
}
