//! What groups have on record: Kafka's read by us, ours read by an independent implementation, and damage of every
//! kind, which costs nobody but the one whose paper it hits.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Buf;
use bytes::Bytes;
use bytes::BytesMut;
use kafka_protocol::messages::ConsumerProtocolAssignment;
use kafka_protocol::messages::ConsumerProtocolSubscription;
use kafka_protocol::protocol::Decodable;
use kafka_protocol::records::Compression;
use kafka_protocol::records::NO_PRODUCER_EPOCH;
use kafka_protocol::records::NO_PRODUCER_ID;
use kafka_protocol::records::NO_SEQUENCE;
use kafka_protocol::records::Record as Theirs;
use kafka_protocol::records::RecordBatchDecoder;
use kafka_protocol::records::RecordBatchEncoder;
use kafka_protocol::records::RecordEncodeOptions;
use kafka_protocol::records::TimestampType;
use ottla::Error;
use ottla::GroupStatus;
use ottla::OffsetAndMetadata;
use ottla::OffsetReset;
use ottla::Record;
use ottla::Store;
use ottla::TopicConfig;

use crate::golden;
use crate::scratch::scratch;

const NOW: Duration = Duration::ZERO;
const LOG: &str = "__consumer_offsets-0/00000000000000000000.log";

fn offsets(store: &Store, group: &str) -> Vec<(String, u32, i64)> {
    let offsets = store.group(group).unwrap().offsets().unwrap();
    offsets.into_iter().map(|(topic, number, noted)| (topic, number, noted.offset())).collect()
}

#[test]
fn kafkas_groups_go_on_where_its_consumers_stopped() {
    let (_directory, data) = golden::clean();
    for is_reader in [true, false] {
        let store =
            if is_reader { Store::open_read_only(&data) } else { Store::open(&data) }.unwrap();
        let plain = |number: u32, offset: i64| ("plain".to_owned(), number, offset);
        // The first commit was overtaken by one in a transaction, which was committed.
        assert_eq!(offsets(&store, "g1"), [plain(0, 77), plain(1, 500)]);
        assert_eq!(offsets(&store, "g2"), [plain(1, 42)]);
        let seen = store.group("g1").unwrap().describe().unwrap();
        assert_eq!((seen.status, seen.members.len()), (GroupStatus::Empty, 0));
        let lags: Vec<Option<i64>> = seen.partitions.iter().map(|p| p.lag).collect();
        assert_eq!(lags, [Some(423), Some(0)]);
        assert!(store.health().is_good(), "{:?}", store.health());
    }
    let store = Store::open(&data).unwrap();
    let topic = store.topic("plain").unwrap();
    for (group, begins, count) in [("g1", [Some(77), None], 423), ("g2", [Some(0), Some(42)], 958)]
    {
        let builder = store.consumer().max_poll_records(10_000);
        let mut consumer = builder.subscribe(group, &topic).unwrap();
        let mut came: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
        while let records = consumer.poll(NOW).unwrap()
            && !records.is_empty()
        {
            for message in &records {
                came.entry(message.partition()).or_default().push(message.offset());
            }
        }
        assert_eq!(came.values().map(Vec::len).sum::<usize>(), count, "{group}");
        for (number, begin) in (0..).zip(begins) {
            let first = came.get(&number).map(|offsets| offsets[0]);
            assert_eq!(first, begin, "{group}, {number}");
        }
        consumer.commit().unwrap();
        consumer.close().unwrap();
        let at_end = [("plain".to_owned(), 0, 500), ("plain".to_owned(), 1, 500)];
        assert_eq!(offsets(&store, group), at_end);
    }
}

fn string(from: &mut Bytes) -> String {
    let len = usize::try_from(from.get_i16()).unwrap();
    String::from_utf8(from.split_to(len).to_vec()).unwrap()
}

fn nullable(from: &mut Bytes) -> Option<String> {
    let is_null = from[..2] == [0xff, 0xff];
    if is_null {
        from.advance(2);
        return None;
    }
    Some(string(from))
}

fn blob(from: &mut Bytes) -> Bytes {
    let len = usize::try_from(from.get_i32()).unwrap();
    from.split_to(len)
}

/// The latest value of each key, decoded by what stands in Kafka's schemas and by nothing of ours.
fn as_kafka_decodes(data: &Path) -> BTreeMap<String, String> {
    let bytes = fs::read(data.join(LOG)).unwrap();
    // Behind the last batch there is room for more.
    let mut end = 0;
    while let Some(len) = bytes.get(end + 8..end + 12) {
        match i32::from_be_bytes(len.try_into().unwrap()) {
            0 => break,
            len => end += 12 + len as usize,
        }
    }
    let mut bytes = Bytes::from(bytes).slice(..end);
    let mut latest = BTreeMap::new();
    while !bytes.is_empty() {
        for record in RecordBatchDecoder::decode(&mut bytes).unwrap().records {
            let mut key = record.key.unwrap();
            match key.get_i16() {
                1 => {
                    let (group, topic) = (string(&mut key), string(&mut key));
                    let name = format!("{group} {topic}-{}", key.get_i32());
                    assert!(key.is_empty());
                    let Some(mut value) = record.value else {
                        latest.remove(&name);
                        continue;
                    };
                    assert_eq!(value.get_i16(), 3);
                    let (offset, epoch) = (value.get_i64(), value.get_i32());
                    let metadata = string(&mut value);
                    assert!(value.get_i64() > 1_600_000_000_000);
                    assert!(value.is_empty());
                    latest.insert(name, format!("{offset} {epoch} {metadata}"));
                }
                2 => {
                    let name = string(&mut key);
                    let Some(mut value) = record.value else {
                        latest.remove(&name);
                        continue;
                    };
                    assert_eq!(value.get_i16(), 3);
                    assert_eq!(string(&mut value), "consumer");
                    assert!(value.get_i32() > 0);
                    let (protocol, leader) = (nullable(&mut value), nullable(&mut value));
                    assert!(value.get_i64() > 1_600_000_000_000);
                    let mut members = Vec::new();
                    for _ in 0..value.get_i32() {
                        let id = string(&mut value);
                        let instance = nullable(&mut value);
                        let (_client, _host) = (string(&mut value), string(&mut value));
                        let _timeouts = (value.get_i32(), value.get_i32());
                        let mut wants = blob(&mut value);
                        let version = wants.get_i16();
                        let wants = ConsumerProtocolSubscription::decode(&mut wants, version);
                        let mut has = blob(&mut value);
                        let version = has.get_i16();
                        let has = ConsumerProtocolAssignment::decode(&mut has, version).unwrap();
                        let has = has.assigned_partitions.iter().flat_map(|topic| {
                            topic.partitions.iter().map(|n| format!("{}-{n}", topic.topic.as_str()))
                        });
                        let mut has: Vec<String> = has.collect();
                        has.sort();
                        members.push((instance, wants.unwrap().topics.len(), has));
                        assert!(leader.is_some(), "{id} has a leader");
                    }
                    members.sort();
                    assert!(value.is_empty());
                    latest.insert(name, format!("{protocol:?} {members:?}"));
                }
                other => panic!("a key of version {other}"),
            }
        }
    }
    latest
}

#[test]
fn what_groups_put_on_record_an_independent_decoder_reads() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let store = Store::open(&data).unwrap();
    let topic = store.create_topic("t", TopicConfig::new().partitions(2)).unwrap();
    for partition in topic.partitions() {
        store.producer().send_batch(&partition, ["a", "b"].map(Record::new)).unwrap();
    }
    let builder = store.consumer();
    let mut a = builder.clone().instance_id("a").subscribe("g", &topic).unwrap();
    let mut b = builder.instance_id("b").subscribe("g", &topic).unwrap();
    for _ in 0..3 {
        a.poll(NOW).unwrap();
        b.poll(NOW).unwrap();
    }
    let (of_a, of_b) =
        (a.assignment().next().unwrap().clone(), b.assignment().next().unwrap().clone());
    let noted = OffsetAndMetadata::new(2).with_metadata("ü").with_leader_epoch(7);
    a.commit_offsets([(&of_a, noted)]).unwrap();
    b.commit_offsets([(&of_b, 1)]).unwrap();
    let mut simple = store.consumer().group("simple").assign([&of_a]).unwrap();
    simple.commit_offsets([(&of_a, 1)]).unwrap();
    simple.commit_offsets([(&of_a, 0)]).unwrap();
    store.sync().unwrap();
    let seen = as_kafka_decodes(&data);
    assert_eq!(seen[&format!("g {of_a}")], "2 7 ü");
    assert_eq!(seen[&format!("g {of_b}")], "1 -1 ");
    assert_eq!(seen[&format!("simple {of_a}")], "0 -1 ");
    let members = format!(
        "Some(\"uniform\") [(Some(\"a\"), 1, [\"{of_a}\"]), (Some(\"b\"), 1, [\"{of_b}\"])]"
    );
    assert_eq!(seen["g"], members);
    assert!(!seen.contains_key("simple"), "it never had members");
    a.close().unwrap();
    b.close().unwrap();
    store.group("simple").unwrap().delete().unwrap();
    store.close().unwrap();
    let seen = as_kafka_decodes(&data);
    assert!(!seen.contains_key(&format!("simple {of_a}")));
    assert_eq!(seen.len(), 3, "{seen:?}");
}

/// A directory that was closed in order, with three groups that have committed offset 1, 2 and 3.
fn with_three_groups(root: &Path) -> PathBuf {
    let data = root.join("whole");
    let store = Store::open(&data).unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    let partition = topic.partition(0).unwrap();
    store.producer().send_batch(&partition, ["a", "b", "c"].map(Record::new)).unwrap();
    for offset in 1..=3 {
        let name = format!("group-{offset}");
        let mut consumer = store.consumer().group(&name).assign([&partition]).unwrap();
        consumer.commit_offsets([(&partition, offset)]).unwrap();
    }
    store.close().unwrap();
    data
}

#[test]
fn a_flipped_byte_costs_nobody_but_the_group_whose_paper_it_hits() {
    let root = scratch();
    let whole = with_three_groups(root.path());
    let log = fs::read(whole.join(LOG)).unwrap();
    // Where each of the three batches begins.
    let mut begins = vec![0];
    for _ in 0..3 {
        let at = begins[begins.len() - 1];
        let len = i32::from_be_bytes(log[at + 8..at + 12].try_into().unwrap());
        begins.push(at + 12 + usize::try_from(len).unwrap());
    }
    let end = begins[3];
    let damaged = root.path().join("damaged");
    for at in 0..end {
        drop(fs::remove_dir_all(&damaged));
        golden::copy_tree(&whole, &damaged);
        let mut bytes = log.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(damaged.join(LOG), &bytes).unwrap();
        let hit = begins.iter().rposition(|begin| *begin <= at).unwrap();
        // Kafka's length of a batch is not summed: one that leads astray may take those behind it along.
        let leads_astray = (8..12).contains(&(at - begins[hit]));
        let store = Store::open(&damaged).unwrap();
        for number in 0..3 {
            let is_behind = number > hit && leads_astray;
            if number == hit || is_behind {
                continue;
            }
            let name = format!("group-{}", number + 1);
            let found = offsets(&store, &name);
            let expected = [("t".to_owned(), 0, number as i64 + 1)];
            assert_eq!(found, expected, "{name}, byte {at} of batch {hit}");
        }
        let is_there = match store.group(&format!("group-{}", hit + 1)).unwrap().offsets() {
            Ok(found) => found[0].2.offset() == hit as i64 + 1,
            Err(_) => false,
        };
        let findings = store.health().findings;
        assert!(is_there || !findings.is_empty(), "byte {at} of batch {hit} went without a word");
    }
}

/// A key and a value.
pub(crate) type Paper = (Option<Vec<u8>>, Option<Vec<u8>>);

pub(crate) fn their_batch(offset: i64, papers: &[Paper]) -> Bytes {
    their_batch_packed(offset, papers, Compression::None)
}

fn their_batch_packed(offset: i64, papers: &[Paper], compression: Compression) -> Bytes {
    let record = |(offset, (key, value)): (i64, &Paper)| Theirs {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence: NO_SEQUENCE,
        timestamp: 1_700_000_000_000,
        key: key.clone().map(Bytes::from),
        value: value.clone().map(Bytes::from),
        headers: Default::default(),
    };
    let records: Vec<Theirs> = (offset..).zip(papers).map(record).collect();
    let options = RecordEncodeOptions { version: 2, compression };
    let mut bytes = BytesMut::new();
    RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    bytes.freeze()
}

fn put(into: &mut Vec<u8>, text: &[u8]) {
    into.extend((text.len() as i16).to_be_bytes());
    into.extend(text);
}

fn offset_key(group: &[u8], partition: i32) -> Vec<u8> {
    let mut key = vec![0, 1];
    put(&mut key, group);
    put(&mut key, b"t");
    key.extend(partition.to_be_bytes());
    key
}

fn offset_value(offset: i64) -> Vec<u8> {
    let mut value = vec![0, 3];
    value.extend(offset.to_be_bytes());
    value.extend((-1_i32).to_be_bytes());
    put(&mut value, b"");
    value.extend(1_700_000_000_000_i64.to_be_bytes());
    value
}

#[test]
fn papers_that_cannot_be_understood_are_passed_over_and_told() {
    let mut papers = vec![(Some(offset_key(b"first", 0)), Some(offset_value(2)))];
    // Keys of versions that other coordinators write, and of none.
    for version in 3..=15_i16 {
        let mut key = version.to_be_bytes().to_vec();
        put(&mut key, b"other");
        papers.push((Some(key), Some(vec![0; 12])));
    }
    papers.push((None, Some(offset_value(1))));
    papers.push((Some(Vec::new()), None));
    // Cut off anywhere.
    let (key, value) = (offset_key(b"cut", 0), offset_value(1));
    for len in 0..key.len() {
        papers.push((Some(key[..len].to_vec()), Some(value.clone())));
    }
    for len in 0..value.len() {
        papers.push((Some(key.clone()), Some(value[..len].to_vec())));
    }
    // Numbers that cannot be.
    papers.push((Some(offset_key(b"negative", 0)), Some(offset_value(-1))));
    papers.push((Some(offset_key(b"negative", -1)), Some(offset_value(1))));
    papers.push((Some(offset_key(&[0xff, 0xfe], 0)), Some(offset_value(1))));
    let mut version = offset_value(1);
    version[1] = 99;
    papers.push((Some(offset_key(b"version", 0)), Some(version)));
    // A group with two thousand million members, none of which follows.
    let mut key = vec![0, 2];
    put(&mut key, b"crowd");
    let mut crowd = vec![0, 3];
    put(&mut crowd, b"consumer");
    crowd.extend(1_i32.to_be_bytes());
    crowd.extend([0xff; 4]);
    crowd.extend(0_i64.to_be_bytes());
    crowd.extend(i32::MAX.to_be_bytes());
    papers.push((Some(key.clone()), Some(crowd.clone())));
    let end = crowd.len();
    crowd[end - 4..].copy_from_slice(&(-5_i32).to_be_bytes());
    papers.push((Some(key), Some(crowd)));
    papers.push((Some(offset_key(b"last", 0)), Some(offset_value(3))));

    let directory = scratch();
    let data = directory.path();
    fs::create_dir(data.join("__consumer_offsets-0")).unwrap();
    let mut log = Vec::new();
    for (offset, paper) in (0..).zip(&papers) {
        log.extend_from_slice(&their_batch(offset, std::slice::from_ref(paper)));
    }
    fs::write(data.join(LOG), &log).unwrap();
    for _ in 0..2 {
        let store = Store::open(data).unwrap();
        let topic = store.topic_or_create("t", TopicConfig::new()).unwrap();
        let names: Vec<String> =
            store.groups().unwrap().iter().map(|group| group.id().to_owned()).collect();
        assert!(names.contains(&"first".to_owned()) && names.contains(&"last".to_owned()));
        assert!(!names.iter().any(|name| name == "cut" || name == "negative"), "{names:?}");
        assert_eq!(offsets(&store, "first"), [("t".to_owned(), 0, 2)]);
        assert_eq!(offsets(&store, "last"), [("t".to_owned(), 0, 3)]);
        assert!(!store.health().findings.is_empty(), "it is told");
        // And they go on.
        let partition = topic.partition(0).unwrap();
        let mut consumer = store.consumer().group("new").assign([&partition]).unwrap();
        consumer.commit_offsets([(&partition, 0)]).unwrap();
        store.close().unwrap();
    }
}

/// Kafka compresses what its coordinators write if it is told to (`offsets.topic.compression.codec`).
#[test]
fn papers_that_are_compressed_are_read_and_checked_like_others() {
    let codecs: Vec<Compression> = [
        (cfg!(feature = "gzip"), Compression::Gzip),
        (cfg!(feature = "lz4"), Compression::Lz4),
        (cfg!(feature = "snappy"), Compression::Snappy),
        (cfg!(feature = "zstd"), Compression::Zstd),
        (true, Compression::None),
    ]
    .into_iter()
    .filter_map(|(is_built, codec)| is_built.then_some(codec))
    .collect();
    let directory = scratch();
    let data = directory.path();
    fs::create_dir(data.join("__consumer_offsets-0")).unwrap();
    let mut log = Vec::new();
    let mut offset = 0;
    for (number, codec) in codecs.iter().enumerate() {
        let group = format!("group-{number}");
        // The later one counts, and so does what takes one off.
        let papers: Vec<Paper> = [1, 2]
            .map(|at| (Some(offset_key(group.as_bytes(), 0)), Some(offset_value(at))))
            .into_iter()
            .chain([(Some(offset_key(group.as_bytes(), 1)), Some(offset_value(7)))])
            .chain([(Some(offset_key(group.as_bytes(), 1)), None)])
            .collect();
        log.extend_from_slice(&their_batch_packed(offset, &papers, *codec));
        offset += papers.len() as i64;
    }
    fs::write(data.join(LOG), &log).unwrap();
    let check = || {
        let report = ottla::inspect::check(data).unwrap();
        assert!(report.is_good(), "{:?}", report.problems);
        assert!(report.counts.records >= 4 * codecs.len() as u64, "{:?}", report.counts);
    };
    for life in 0..2 {
        let store = Store::open(data).unwrap();
        let topic = store.topic_or_create("t", TopicConfig::new().partitions(2)).unwrap();
        for number in 0..codecs.len() {
            let group = format!("group-{number}");
            assert_eq!(offsets(&store, &group), [("t".to_owned(), 0, 2)], "{group}, life {life}");
        }
        assert!(store.health().is_good(), "{:?}", store.health());
        let partition = topic.partition(0).unwrap();
        let name = format!("of life {life}");
        store.group(&name).unwrap().alter_offsets([(partition, 0)]).unwrap();
        store.close().unwrap();
        check();
    }
}

/// Line 14 of the conformance list: a committed offset that is out of range applies the reset policy, and `none` raises.
#[test]
fn what_is_on_record_out_of_range_follows_the_reset_policy() {
    let directory = scratch();
    let data = directory.path();
    fs::create_dir(data.join("__consumer_offsets-0")).unwrap();
    let papers = [(Some(offset_key(b"g", 0)), Some(offset_value(99)))];
    fs::write(data.join(LOG), their_batch(0, &papers)).unwrap();
    let store = Store::open(data).unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    let partition = topic.partition(0).unwrap();
    store.producer().send_batch(&partition, ["a", "b", "c"].map(Record::new)).unwrap();
    assert_eq!(offsets(&store, "g"), [("t".to_owned(), 0, 99)]);
    for (reset, position) in [(OffsetReset::Earliest, 0), (OffsetReset::Latest, 3)] {
        let mut member = store.consumer().reset(reset).subscribe("g", &topic).unwrap();
        assert_eq!(member.poll(NOW).unwrap().count() as i64, 3 - position, "{reset:?}");
        assert_eq!(member.position(&partition).unwrap(), 3, "{reset:?}");
        assert_eq!(offsets(&store, "g"), [("t".to_owned(), 0, 99)], "a reset is no commit");
    }
    let mut member = store.consumer().reset(OffsetReset::Error).subscribe("g", &topic).unwrap();
    for _ in 0..2 {
        let error = member.poll(NOW).unwrap_err();
        assert!(matches!(error, Error::OffsetOutOfRange { offset: 99, end: 3, .. }), "{error}");
    }
    member.seek(&partition, 1).unwrap();
    assert_eq!(member.poll(NOW).unwrap().count(), 2);
    member.commit().unwrap();
    assert_eq!(offsets(&store, "g"), [("t".to_owned(), 0, 3)]);
}

#[test]
fn a_reader_of_a_damaged_first_batch_sees_the_groups_behind_it() {
    let root = scratch();
    let data = with_three_groups(root.path());
    let mut bytes = fs::read(data.join(LOG)).unwrap();
    bytes[70] ^= 1;
    fs::write(data.join(LOG), &bytes).unwrap();
    let reader = Store::open_read_only(&data).unwrap();
    for _ in 0..2 {
        assert_eq!(offsets(&reader, "group-2"), [("t".to_owned(), 0, 2)]);
        assert_eq!(offsets(&reader, "group-3"), [("t".to_owned(), 0, 3)]);
        let hit = reader.group("group-1").unwrap().describe();
        assert!(matches!(hit, Err(Error::UnknownGroup { .. })), "{hit:?}");
        assert_eq!(reader.groups().unwrap().len(), 2);
        // However often it looks, it is told once.
        let findings = reader.health().findings;
        assert_eq!(findings.len(), 1, "{findings:?}");
    }
    assert!(fs::read(data.join(LOG)).unwrap() == bytes, "a reader changes nothing");
}
