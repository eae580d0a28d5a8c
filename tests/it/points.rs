//! Single records by their offsets: what a consumer would have brought from there, or nothing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that fails should say where"
)]

use std::collections::BTreeMap;
use std::fs;
use std::hash::BuildHasher;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::thread;

use ottla::Compression;
use ottla::Durability;
use ottla::Error;
use ottla::OwnedMessage;
use ottla::Record;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;
use ottla::TopicPartition;

use crate::chance::Chance;
use crate::consuming::Seen;
use crate::consuming::read_all;

fn open(root: &Path) -> (Store, Topic) {
    let store = Store::builder(root).durability(Durability::Buffered).open().unwrap();
    let config = TopicConfig::new().segment_bytes(300_000).index_interval_bytes(1000);
    let topic = store.topic_or_create("t", config).unwrap();
    (store, topic)
}

/// Sends batches of all sizes, from one record to many times what an index entry covers.
fn send_batches(store: &Store, topic: &Topic, chance: &mut Chance) {
    send_packed(store, topic, chance, &[Compression::None], 60);
}

/// As [`send_batches`], each batch with one of the codecs.
fn send_packed(
    store: &Store,
    topic: &Topic,
    chance: &mut Chance,
    codecs: &[Compression],
    batch_count: usize,
) {
    let partition = topic.partition(0).unwrap();
    for _ in 0..batch_count {
        let codec = codecs[chance.index(codecs.len())];
        let producer = store.producer_builder().compression(codec).unwrap().build();
        let count = [1, 1, 1, 2, 5, 30, 200, 500][chance.index(8)];
        let len_max = [3, 40, 150, 500][chance.index(4)];
        let is_uniform = chance.index(2) == 0;
        let mut records = Vec::new();
        for n in 0..count {
            let len = if is_uniform { len_max } else { chance.index(len_max) };
            records.push((vec![chance.index(256) as u8; len], (n % 11).to_string()));
        }
        let records = records.iter().map(|(value, key)| {
            let record =
                if value.len() % 7 == 3 { Record::tombstone(key) } else { Record::new(value) };
            let record = record.timestamp(1_000_000 + value.len() as i64);
            if key == "5" { record.key(key).header("h", "x") } else { record }
        });
        drop(producer.send_batch(&partition, records).unwrap());
    }
}

fn seen_by_a_consumer(store: &Store, partition: &TopicPartition) -> BTreeMap<i64, Seen> {
    let mut consumer = store.consumer().assign([partition]).unwrap();
    read_all(&mut consumer).into_iter().map(|seen| (seen.offset, seen)).collect()
}

fn read(partition: &TopicPartition, offset: i64) -> Option<Seen> {
    partition.read(offset).unwrap().as_ref().map(Seen::from)
}

/// Reads every offset, in an order that jumps about, and a few beyond.
pub(crate) fn assert_points_are(partition: &TopicPartition, wanted: &BTreeMap<i64, Seen>) {
    let (start, end) = partition.watermarks().unwrap();
    let count = end - start + 3;
    for n in 0..count {
        let offset = start + n * 7_919 % count;
        assert_eq!(read(partition, offset), wanted.get(&offset).cloned(), "{partition} {offset}");
    }
    for offset in [-1, i64::MIN, start - 1] {
        let error = partition.read(offset).unwrap_err();
        let Error::OffsetOutOfRange { offset: told, start: first, end: last, .. } = error else {
            panic!("{error}");
        };
        assert_eq!((told, first, last), (offset, start, end));
    }
    assert_eq!(read(partition, i64::MAX), None);
}

#[test]
fn every_record_is_found_at_its_offset_by_the_writer_and_by_whoever_opens_the_log() {
    let seed = std::env::var("OTTLA_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| std::hash::RandomState::new().hash_one(1) | 1);
    println!("OTTLA_SEED={seed}");
    let mut chance = Chance(seed);
    let directory = tempfile::tempdir().unwrap();
    let mut wanted = BTreeMap::new();
    for _ in 0..4 {
        let (store, topic) = open(directory.path());
        let partition = topic.partition(0).unwrap();
        // First what an earlier life left; then with what was added to the same segment.
        assert_points_are(&partition, &wanted);
        send_batches(&store, &topic, &mut chance);
        wanted = seen_by_a_consumer(&store, &partition);
        assert_eq!(wanted.len() as i64, partition.watermarks().unwrap().1);
        assert_points_are(&topic.partition(0).unwrap(), &wanted);
        assert_points_are(&partition, &wanted);
        let follower = Store::open_read_only(directory.path()).unwrap();
        assert_points_are(&follower.topic("t").unwrap().partition(0).unwrap(), &wanted);
        drop((topic, partition));
        store.close().unwrap();
    }
    // A directory without indexes, or with others, has the same records.
    for entry in fs::read_dir(directory.path().join("t-0")).unwrap().map(Result::unwrap) {
        if entry.path().extension().is_some_and(|extension| extension == "index") {
            fs::write(entry.path(), vec![chance.index(256) as u8; 8 * chance.index(20)]).unwrap();
        }
    }
    let (_store, topic) = open(directory.path());
    assert_points_are(&topic.partition(0).unwrap(), &wanted);
}

#[test]
fn records_are_found_while_others_are_appended() {
    let directory = tempfile::tempdir().unwrap();
    let (store, topic) = open(directory.path());
    let sent = AtomicI64::new(0);
    let (total, readers) = (if cfg!(debug_assertions) { 20_000 } else { 200_000 }, 3);
    thread::scope(|scope| {
        for reader in 0..readers {
            let (partition, sent) = (topic.partition(0).unwrap(), &sent);
            scope.spawn(move || {
                let mut chance = Chance(reader + 1);
                loop {
                    let end = sent.load(Ordering::Acquire);
                    let offset = chance.index(end as usize + 1) as i64;
                    match partition.read(offset).unwrap() {
                        Some(message) => {
                            let value =
                                u64::from_be_bytes(message.value().unwrap().try_into().unwrap());
                            assert_eq!((message.offset(), value), (offset, offset as u64));
                        }
                        None => assert_eq!(offset, end, "what was sent before is there"),
                    }
                    if end == total {
                        break;
                    }
                }
            });
        }
        let producer = store.producer();
        for n in 0..total {
            drop(producer.send(&topic, Record::new(&(n as u64).to_be_bytes())).unwrap());
            sent.store(n + 1, Ordering::Release);
        }
    });
}

fn first_segment(root: &Path) -> PathBuf {
    root.join("t-0/00000000000000000000.log")
}

/// Flips a bit of the first place that holds `text`.
fn flip(log: &Path, text: &str) {
    let bytes = fs::read(log).unwrap();
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    let file = fs::OpenOptions::new().write(true).open(log).unwrap();
    file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
}

fn value_of(n: i64) -> String {
    format!("the value of {n:0>100}")
}

/// Batches of 100 records each, of more than 8 KiB, and then single ones, in one segment.
fn closed_log() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (store, topic) = open(directory.path());
    let producer = store.producer();
    for batch in 0..10 {
        let values: Vec<String> = (batch * 100..batch * 100 + 100).map(value_of).collect();
        drop(
            producer
                .send_batch(&topic.partition(0).unwrap(), values.iter().map(Record::new))
                .unwrap(),
        );
    }
    for n in 1000..1100 {
        drop(producer.send(&topic, &value_of(n)).unwrap());
    }
    drop((topic, producer));
    store.close().unwrap();
    directory
}

fn assert_whole(message: Option<OwnedMessage>, offset: i64) {
    let message = message.unwrap();
    assert_eq!((message.offset(), message.value().unwrap()), (offset, value_of(offset).as_bytes()));
}

#[test]
fn damage_costs_the_records_of_its_batch_and_no_others() {
    let directory = closed_log();
    for damaged in [350, 999, 1050] {
        flip(&first_segment(directory.path()), &value_of(damaged));
    }
    let lost = |offset: i64| match offset {
        300..=399 => Some(400),
        900..=999 => Some(1000),
        1050 => Some(1051),
        _ => None,
    };
    let (store, topic) = open(directory.path());
    let partition = topic.partition(0).unwrap();
    for round in 0..3 {
        for offset in (0..1100).map(|n| n * 7 % 1100) {
            match (lost(offset), partition.read(offset)) {
                (None, found) => assert_whole(found.unwrap(), offset),
                (Some(behind), Err(Error::Corrupt { reason, resume, path, .. })) => {
                    assert_eq!((reason, resume), ("checksum mismatch", Some(behind)), "{offset}");
                    assert_eq!(path, first_segment(directory.path()));
                }
                (Some(_), other) => panic!("{offset}: {other:?}"),
            }
        }
        if round == 1 {
            // Neither what a consumer has read nor what it could not makes a difference.
            let mut consumer = store.consumer().check_crcs(false).assign([&partition]).unwrap();
            assert_eq!(read_all(&mut consumer).len(), 1100);
        }
    }
}

/// A header that claims offsets which others have is told apart by its checksum.
#[test]
fn a_damaged_header_does_not_hide_the_records_behind_it() {
    let directory = closed_log();
    let log = first_segment(directory.path());
    let whole = fs::read(&log).unwrap();
    let batch_of = |offset: i64| {
        let text = value_of(offset);
        let at = whole.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
        (0..at).rev().find(|at| whole[*at..*at + 8] == offset.to_be_bytes()).unwrap()
    };
    for offset in [500, 1020] {
        // The length, the magic byte, the last offset, the number of records.
        for byte in [8, 9, 10, 11, 16, 23, 24, 25, 26, 57, 58, 59, 60] {
            for bit in [0x01, 0x10, 0x80] {
                let mut bytes = whole.clone();
                bytes[batch_of(offset) + byte] ^= bit;
                fs::write(&log, &bytes).unwrap();
                let (_store, topic) = open(directory.path());
                let partition = topic.partition(0).unwrap();
                let last = if offset == 500 { 599 } else { 1020 };
                for at in [offset - 1, last + 1, last + 2, last + 70].into_iter().chain(0..1) {
                    assert_whole(partition.read(at).unwrap(), at);
                }
                let error = partition.read(offset).unwrap_err();
                let Error::Corrupt { resume, .. } = error else { panic!("{byte} {bit}: {error}") };
                assert_eq!(resume, Some(last + 1), "{byte} {bit}");
            }
        }
    }
}

#[test]
fn a_batch_is_summed_once_for_each_opening_and_only_where_it_was() {
    let directory = closed_log();
    let log = first_segment(directory.path());
    {
        let (_store, topic) = open(directory.path());
        let partition = topic.partition(0).unwrap();
        for offset in [150, 250] {
            assert_whole(partition.read(offset).unwrap(), offset);
        }
        flip(&log, &value_of(160));
        flip(&log, &value_of(360));
        // The one was read before and marked; the other was not.
        assert_whole(partition.read(150).unwrap(), 150);
        assert!(matches!(partition.read(350), Err(Error::Corrupt { resume: Some(400), .. })));
        // A small batch that an index leads to is summed each time.
        assert_whole(partition.read(1050).unwrap(), 1050);
        flip(&log, &value_of(1050));
        assert!(matches!(partition.read(1050), Err(Error::Corrupt { .. })));
        // That a reader of single records has checked a batch tells nobody anything about others.
        let mut consumer = topic_consumer(&_store, &topic);
        assert_eq!(consumer.poll(std::time::Duration::ZERO).unwrap().count(), 100);
        assert!(matches!(
            consumer.poll(std::time::Duration::ZERO),
            Err(Error::Corrupt { resume: Some(200), .. })
        ));
    }
    let (_store, topic) = open(directory.path());
    let partition = topic.partition(0).unwrap();
    assert!(matches!(partition.read(150), Err(Error::Corrupt { resume: Some(200), .. })));
}

fn topic_consumer(store: &Store, topic: &Topic) -> ottla::Consumer {
    store.consumer().max_poll_records(100).assign(topic.partitions()).unwrap()
}

/// What this process appended needs no sum; what lay there before does, though the segment goes on.
#[test]
fn what_lay_in_a_segment_before_it_was_continued_is_summed() {
    let directory = closed_log();
    flip(&first_segment(directory.path()), &value_of(1080));
    let (store, topic) = open(directory.path());
    let partition = topic.partition(0).unwrap();
    let producer = store.producer();
    for n in 1100..1200 {
        drop(producer.send(&topic, &value_of(n)).unwrap());
    }
    flip(&first_segment(directory.path()), &value_of(1180));
    assert_eq!(topic.describe().unwrap().partitions[0].segment_count, 1);
    for offset in (1000..1180).chain(1181..1200).filter(|offset| *offset != 1080) {
        assert_whole(partition.read(offset).unwrap(), offset);
    }
    assert!(matches!(partition.read(1080), Err(Error::Corrupt { resume: Some(1081), .. })));
    assert!(partition.read(1180).unwrap().is_some());
}

#[test]
fn a_message_outlives_the_handle_the_topic_and_the_store() {
    let directory = closed_log();
    let (store, topic) = open(directory.path());
    let partition = topic.partition(0).unwrap();
    let message = partition.read(777).unwrap().unwrap();
    assert_eq!(message.topic_partition(), &partition);
    store.delete_topic("t").unwrap();
    assert!(matches!(partition.read(777), Err(Error::TopicDeleted { .. })));
    drop((partition, topic, store));
    assert_whole(Some(message.clone()), 777);
    assert_eq!(message.topic(), "t");
}

#[test]
fn a_closed_store_reads_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (store, topic) = open(directory.path());
    let partition = topic.partition(0).unwrap();
    assert!(partition.read(0).unwrap().is_none());
    store.close().unwrap();
    assert!(matches!(partition.read(0), Err(Error::Closed)));
}

/// Every codec that there is, and none.
fn codecs() -> Vec<Compression> {
    let all = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    let built = all.into_iter().filter(|codec| codec.is_available());
    built.chain([Compression::None]).collect()
}

/// They were refused as if their codec were not compiled in; and once a consumer had read them, they were not there.
#[test]
fn records_of_compressed_batches_are_found_like_others() {
    let mut chance = Chance(77);
    let directory = tempfile::tempdir().unwrap();
    let mut wanted = BTreeMap::new();
    for life in 0..3 {
        let (store, topic) = open(directory.path());
        let partition = topic.partition(0).unwrap();
        assert_points_are(&partition, &wanted);
        send_packed(&store, &topic, &mut chance, &codecs(), 12);
        if life == 1 {
            // Before anybody else has read what was just sent.
            let (start, end) = (wanted.len() as i64, partition.watermarks().unwrap().1);
            assert!((start..end).all(|offset| read(&partition, offset).is_some()));
        }
        wanted = seen_by_a_consumer(&store, &partition);
        assert_points_are(&partition, &wanted);
        let follower = Store::open_read_only(directory.path()).unwrap();
        assert_points_are(&follower.topic("t").unwrap().partition(0).unwrap(), &wanted);
        drop((topic, partition));
        store.close().unwrap();
    }
    let (store, topic) = open(directory.path());
    let partition = topic.partition(0).unwrap();
    assert_points_are(&partition, &wanted);
    assert_eq!(seen_by_a_consumer(&store, &partition), wanted);
    assert_points_are(&partition, &wanted);
}

#[test]
fn records_of_compressed_batches_are_found_where_compaction_has_left_holes() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::builder(directory.path()).durability(Durability::Buffered);
    let store = store.cleaner_enable(false).open().unwrap();
    let config = TopicConfig::new().set("cleanup.policy", "compact").unwrap();
    let topic = store.create_topic("t", config).unwrap();
    let partition = topic.partition(0).unwrap();
    for codec in codecs() {
        let producer = store.producer_builder().compression(codec).unwrap().build();
        let keys: Vec<String> = (0..300).map(|n| format!("{codec:?} {}", n * n % 1009)).collect();
        let value = value_of(codec as i64);
        let records = keys.iter().map(|key| Record::new(value.as_str()).key(key.as_str()));
        drop(producer.send_batch(&partition, records.clone()).unwrap());
        // Some of it is superseded by the next one.
        drop(producer.send_batch(&partition, records.step_by(3)).unwrap());
    }
    topic.compact().unwrap();
    let wanted = seen_by_a_consumer(&store, &partition);
    assert_eq!(wanted.len() as i64, partition.watermarks().unwrap().1 / 4 * 3);
    assert_points_are(&partition, &wanted);
}

#[test]
fn many_threads_read_single_records_of_compressed_batches_and_keep_them() {
    let directory = tempfile::tempdir().unwrap();
    let (store, topic) = open(directory.path());
    let mut chance = Chance(5);
    send_packed(&store, &topic, &mut chance, &codecs(), 60);
    let partition = topic.partition(0).unwrap();
    let wanted = &seen_by_a_consumer(&store, &partition);
    thread::scope(|scope| {
        for reader in 0..3 {
            let partition = &partition;
            scope.spawn(move || {
                let mut chance = Chance(reader + 1);
                let mut kept = Vec::new();
                for _ in 0..300 {
                    let offset = chance.index(wanted.len()) as i64;
                    let message = partition.read(offset).unwrap().unwrap();
                    // Those of some reads are held while others are read, those of others are not.
                    if chance.index(2) == 0 {
                        kept.push(message);
                    } else {
                        assert_eq!(Seen::from(&message), wanted[&offset]);
                    }
                }
                for message in &kept {
                    assert_eq!(Seen::from(message), wanted[&message.offset()]);
                }
            });
        }
    });
}

/// Some of it is damage that the checksum tells of, some has a checksum that holds: the codec tells then.
#[test]
fn damage_in_a_compressed_batch_costs_its_records_and_no_others() {
    for codec in codecs().into_iter().filter(|codec| *codec != Compression::None) {
        let directory = tempfile::tempdir().unwrap();
        let (store, topic) = open(directory.path());
        let producer = store.producer_builder().compression(codec).unwrap().build();
        let partition = topic.partition(0).unwrap();
        for batch in 0..4 {
            let values: Vec<String> = (batch * 50..batch * 50 + 50).map(value_of).collect();
            drop(producer.send_batch(&partition, values.iter().map(Record::new)).unwrap());
        }
        drop((partition, topic, producer));
        store.close().unwrap();
        let log = first_segment(directory.path());
        let mut bytes = fs::read(&log).unwrap();
        let (mut start, mut damaged) = (0, Vec::new());
        for batch in 0..4 {
            let len = u32::from_be_bytes(bytes[start + 8..start + 12].try_into().unwrap());
            let end = start + 12 + len as usize;
            if batch == 1 {
                bytes[end - 10] ^= 1;
                damaged.push(start);
            }
            if batch == 2 {
                bytes[start + 61..start + 90].fill(0xff);
                let checksum = crc32c::crc32c(&bytes[start + 21..end]);
                bytes[start + 17..start + 21].copy_from_slice(&checksum.to_be_bytes());
                damaged.push(start);
            }
            start = end;
        }
        fs::write(&log, bytes).unwrap();
        let (_store, topic) = open(directory.path());
        let partition = topic.partition(0).unwrap();
        for _ in 0..2 {
            for offset in (0..200).map(|n| n * 7 % 200) {
                let batch = offset / 50;
                match partition.read(offset) {
                    Ok(found) if batch == 0 || batch == 3 => assert_whole(found, offset),
                    Err(Error::Corrupt { position, resume, path, .. }) => {
                        assert_eq!(position, damaged[batch as usize - 1] as u64, "{codec:?}");
                        assert_eq!((resume, &path), (Some(batch * 50 + 50), &log), "{codec:?}");
                    }
                    other => panic!("{codec:?} {offset}: {other:?}"),
                }
            }
        }
    }
}
