//! Directories written by Apache Kafka 3.9 (`tests/golden/kafka-3.9/README.md`): what we read of them is
//! what a Kafka client reads, and what we leave of them is what Kafka left.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ottla::Error;
use ottla::Record;
use ottla::Store;
use ottla::TimestampType;
use ottla::TopicPartition;
use serde_json::Value;
use tempfile::TempDir;

use crate::consuming::Seen;
use crate::consuming::read_all;
use crate::points::assert_points_are;

const UNCOMPRESSED: [&str; 5] = ["appendtime", "c-none", "compact", "plain", "txn"];
const COMPRESSED: [&str; 4] = ["gzip", "lz4", "snappy", "zstd"];
/// The codecs that this build has.
fn built() -> Vec<&'static str> {
    let is_built = |codec: &&str| match *codec {
        "gzip" => cfg!(feature = "gzip"),
        "lz4" => cfg!(feature = "lz4"),
        "snappy" => cfg!(feature = "snappy"),
        _ => cfg!(feature = "zstd"),
    };
    COMPRESSED.into_iter().filter(is_built).collect()
}

/// The topics whose records this build can show.
fn readable() -> Vec<String> {
    let compressed = built().into_iter().map(|codec| format!("c-{codec}"));
    UNCOMPRESSED.into_iter().map(str::to_owned).chain(compressed).collect()
}

const INTERNAL: [&str; 2] = ["__consumer_offsets", "__transaction_state"];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/kafka-3.9")
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::write(target, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

/// A directory that Kafka stopped cleanly.
pub(crate) fn clean() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("data");
    copy_tree(&golden().join("clean"), &data);
    (directory, data)
}

/// A directory that was copied while Kafka ran.
fn unclean() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let status = Command::new("tar")
        .arg("-xzf")
        .arg(golden().join("unclean.tar.gz"))
        .arg("-C")
        .arg(directory.path())
        .status()
        .unwrap();
    assert!(status.success());
    let data = directory.path().join("unclean");
    (directory, data)
}

/// Every file below `root`, by its path from there. In a directory in use a file may get another name, or go, between
/// two looks; then all of it is looked at again.
pub(crate) fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, at: &Path, found: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
        for entry in fs::read_dir(at)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                walk(root, &path, found)?;
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                found.insert(name.to_owned(), fs::read(&path)?);
            }
        }
        Ok(())
    }
    loop {
        let mut found = BTreeMap::new();
        match walk(root, root, &mut found) {
            Ok(()) => return found,
            Err(error) if error.kind() == io::ErrorKind::NotFound && root.exists() => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// What a Kafka client read of the same directory, by topic and partition.
fn as_kafka_reads() -> BTreeMap<(String, u32), Vec<Seen>> {
    let decoded = |value: &Value| value.as_str().map(|text| STANDARD.decode(text).unwrap());
    let mut topics: BTreeMap<(String, u32), Vec<Seen>> = BTreeMap::new();
    let text = fs::read_to_string(golden().join("clean.read_uncommitted.jsonl")).unwrap();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let source = (
            line["topic"].as_str().unwrap().to_owned(),
            line["partition"].as_u64().unwrap() as u32,
        );
        let headers = line["headers"].as_array().unwrap().iter();
        topics.entry(source).or_default().push(Seen {
            offset: line["offset"].as_i64().unwrap(),
            timestamp: line["ts"].as_i64().unwrap(),
            timestamp_type: match line["tstype"].as_i64().unwrap() {
                1 => TimestampType::CreateTime,
                2 => TimestampType::LogAppendTime,
                other => panic!("timestamp type {other}"),
            },
            key: decoded(&line["key"]),
            value: decoded(&line["value"]),
            headers: headers
                .map(|header| (header[0].as_str().unwrap().to_owned(), decoded(&header[1])))
                .collect(),
        });
    }
    topics
}

fn partitions_of(store: &Store, topic: &str) -> Vec<TopicPartition> {
    store.topic(topic).unwrap().partitions()
}

fn assert_reads_as_kafka(store: &Store) {
    let expected = as_kafka_reads();
    let mut compared = 0;
    for topic in readable() {
        for partition in partitions_of(store, &topic) {
            let mut consumer = store.consumer().assign([&partition]).unwrap();
            let seen = read_all(&mut consumer);
            let wanted = &expected[&(topic.clone(), partition.partition())];
            assert_eq!(seen.len(), wanted.len(), "{partition}");
            for (seen, wanted) in seen.iter().zip(wanted) {
                assert_eq!(seen, wanted, "{partition}");
            }
            compared += seen.len();
        }
    }
    assert_eq!(compared, 500 + 500 + 50 + 20 + 219 + 121 + 50 * built().len());
}

/// Every offset of every partition: what a Kafka client read there, nothing where it read nothing, an error where it
/// lies in a batch that cannot be read.
#[test]
fn single_records_are_what_a_kafka_client_reads_and_nothing_where_it_reads_nothing() {
    let expected = as_kafka_reads();
    for (_directory, data) in [clean(), unclean()] {
        for store in [Store::open_read_only(&data).unwrap(), Store::open(&data).unwrap()] {
            let (mut found, mut holes) = (0, 0);
            for topic in readable() {
                for partition in partitions_of(&store, &topic) {
                    let wanted = &expected[&(topic.clone(), partition.partition())];
                    let wanted: BTreeMap<i64, Seen> =
                        wanted.iter().map(|seen| (seen.offset, seen.clone())).collect();
                    assert_points_are(&partition, &wanted);
                    let (start, end) = partition.watermarks().unwrap();
                    found += wanted.len();
                    holes += (end - start) as usize - wanted.len();
                }
            }
            // What compaction removed, and the markers of transactions.
            assert_eq!(found, 500 + 500 + 50 + 20 + 219 + 121 + 50 * built().len());
            assert!(holes > 100, "{holes}");
            for codec in COMPRESSED.into_iter().filter(|codec| !built().contains(codec)) {
                let partition = partitions_of(&store, &format!("c-{codec}")).remove(0);
                for offset in [0, 7, 49] {
                    let error = partition.read(offset).unwrap_err();
                    assert!(matches!(error, Error::UnsupportedCompression { .. }), "{error}");
                }
                assert!(partition.read(50).unwrap().is_none());
            }
        }
    }
}

/// The lines of a checkpoint file below its two lines of heading.
fn checkpoint(data: &Path, name: &str) -> Vec<String> {
    let text = fs::read_to_string(data.join(name)).unwrap();
    let mut lines: Vec<String> = text.lines().skip(2).map(str::to_owned).collect();
    lines.sort();
    lines
}

const MARKER: &str = ".kafka_cleanshutdown";

#[test]
fn a_writer_reads_a_cleanly_stopped_kafka_directory_as_a_kafka_client_does() {
    let (_directory, data) = clean();
    let store = Store::open(&data).unwrap();
    assert_reads_as_kafka(&store);
    assert_eq!(store.health().findings, []);
}

#[test]
fn a_read_only_store_reads_a_cleanly_stopped_kafka_directory_as_a_kafka_client_does() {
    let (_directory, data) = clean();
    let before = files(&data);
    let store = Store::open_read_only(&data).unwrap();
    assert_reads_as_kafka(&store);
    drop(store);
    assert!(files(&data) == before, "a reader changed the directory");
}

#[test]
fn a_directory_copied_while_kafka_ran_reads_as_a_kafka_client_reads_it() {
    let (_directory, data) = unclean();
    let reader = Store::open_read_only(&data).unwrap();
    assert_reads_as_kafka(&reader);
    drop(reader);

    let before = files(&data);
    let store = Store::open(&data).unwrap();
    assert_reads_as_kafka(&store);
    assert!(store.health().is_good(), "{:?}", store.health());
    store.close().unwrap();
    // Nothing was torn: whatever Kafka had appended is there, byte for byte.
    let after = files(&data);
    for (name, bytes) in before.iter().filter(|(name, _)| name.ends_with(".log")) {
        assert!(after[name] == *bytes, "{name} changed");
    }
    // What was padded with zeros is now what a clean stop of Kafka would have left.
    let stopped = files(&golden().join("clean"));
    for (name, bytes) in stopped.iter().filter(|(name, _)| {
        name.contains("index") && !name.contains("plain") && !name.ends_with(".deleted")
    }) {
        assert!(after[name] == *bytes, "{name} differs");
    }
}

#[test]
fn a_compressed_batch_is_refused_by_name_and_holds_up_no_other_partition() {
    let (_directory, data) = clean();
    // What this build can read becomes something that nobody knows.
    for codec in built() {
        let path = data.join(format!("c-{codec}-0/00000000000000000000.log"));
        let mut bytes = fs::read(&path).unwrap();
        let mut start = 0;
        while start < bytes.len() {
            let len = u32::from_be_bytes(bytes[start + 8..start + 12].try_into().unwrap());
            let end = start + 12 + len as usize;
            bytes[start + 22] |= 7;
            let checksum = crc32c::crc32c(&bytes[start + 21..end]);
            bytes[start + 17..start + 21].copy_from_slice(&checksum.to_be_bytes());
            start = end;
        }
        fs::write(path, bytes).unwrap();
    }
    let store = Store::open(&data).unwrap();
    for codec in COMPRESSED {
        let expected = if built().contains(&codec) { "an unknown codec" } else { codec };
        let compressed = partitions_of(&store, &format!("c-{codec}")).remove(0);
        let readable = partitions_of(&store, "c-none").remove(0);
        let mut consumer = store.consumer().assign([&compressed, &readable]).unwrap();
        let mut refusals = 0;
        let mut read = 0;
        for _ in 0..6 {
            match consumer.poll(Duration::ZERO) {
                Ok(records) => read += records.count(),
                Err(Error::UnsupportedCompression { codec: named, offset: 0, path, resume }) => {
                    assert_eq!(named, expected);
                    if !built().contains(&codec) {
                        let said = Error::UnsupportedCompression {
                            codec: named,
                            offset: 0,
                            path: path.clone(),
                            resume,
                        };
                        assert!(said.to_string().contains(&format!("feature `{codec}`")));
                    }
                    let directory = data.join(format!("c-{codec}-0"));
                    assert_eq!(path, directory.join("00000000000000000000.log"));
                    refusals += 1;
                }
                Err(other) => panic!("{codec}: {other}"),
            }
            assert_eq!(consumer.position(&compressed).unwrap(), 0);
        }
        assert_eq!(read, 50, "{codec}");
        assert!(refusals >= 1, "{codec}");
        // Behind what cannot be read, reading goes on.
        consumer.seek(&compressed, 50).unwrap();
        assert_eq!(consumer.poll(Duration::ZERO).unwrap().count(), 0);
    }
}

#[test]
fn every_position_in_a_compressed_batch_can_be_read_from_in_steps_of_any_size() {
    let (_directory, data) = clean();
    let store = Store::open(&data).unwrap();
    for codec in built() {
        let partition = partitions_of(&store, &format!("c-{codec}")).remove(0);
        let whole = read_all(&mut store.consumer().assign([&partition]).unwrap());
        for step in [1, 3, 7, 50] {
            let consumer = store.consumer().max_poll_records(step);
            let mut consumer = consumer.assign([&partition]).unwrap();
            for start in 0..whole.len() {
                consumer.seek(&partition, start as i64).unwrap();
                // Kept, so that no buffer is free when the next is unpacked; then dropped all at once.
                let mut polled = Vec::new();
                let mut detached = Vec::new();
                loop {
                    let records = consumer.poll(Duration::ZERO).unwrap();
                    if records.is_empty() {
                        break;
                    }
                    assert!(records.count() <= step);
                    detached.extend(records.iter().map(|message| message.detach()));
                    polled.push(records);
                }
                let seen: Vec<_> = polled.iter().flatten().map(Seen::from).collect();
                assert!(seen == whole[start..], "{codec} from {start} by {step}");
                drop(polled);
                let values = detached.iter().map(|message| (message.offset(), message.value()));
                let wanted = whole[start..].iter().map(|seen| (seen.offset, seen.value.as_deref()));
                assert!(values.eq(wanted), "{codec} from {start} by {step}");
            }
        }
    }
}

#[test]
fn topic_ids_are_the_ones_kafka_gave() {
    let (_directory, data) = clean();
    let writer = Store::open(&data).unwrap();
    let reader = Store::open_read_only(&data).unwrap();
    let metadata = |topic: &str| {
        let path = golden().join(format!("clean/{topic}-0/partition.metadata"));
        let text = fs::read_to_string(path).unwrap();
        let id = text.lines().find_map(|line| line.strip_prefix("topic_id: "));
        id.unwrap().to_owned()
    };
    let names: Vec<String> = writer.topics().unwrap().iter().map(|t| t.name().to_owned()).collect();
    let compressed = COMPRESSED.map(|codec| format!("c-{codec}"));
    let mut wanted: Vec<&str> = UNCOMPRESSED.into_iter().chain(INTERNAL).collect();
    wanted.extend(compressed.iter().map(String::as_str));
    wanted.sort_unstable();
    assert_eq!(names, wanted);
    for topic in wanted {
        assert_eq!(writer.topic(topic).unwrap().id().to_string(), metadata(topic), "{topic}");
        assert_eq!(reader.topic(topic).unwrap().id().to_string(), metadata(topic), "{topic}");
    }
}

#[test]
fn offsets_for_times_answers_like_a_scan_of_kafkas_records() {
    let (_directory, data) = clean();
    let store = Store::open(&data).unwrap();
    for ((topic, number), records) in as_kafka_reads() {
        if !readable().contains(&topic) {
            continue;
        }
        let partition = store.topic(&topic).unwrap().partition(number).unwrap();
        let mut times: Vec<i64> = records
            .iter()
            .flat_map(|record| [record.timestamp - 1, record.timestamp, record.timestamp + 1])
            .collect();
        times.extend([0, 1, i64::MAX]);
        for time in times {
            let scanned = records
                .iter()
                .find(|record| record.timestamp >= time)
                .map(|record| (record.offset, record.timestamp));
            assert_eq!(partition.offset_for_time(time).unwrap(), scanned, "{partition} at {time}");
        }
    }
}

#[test]
fn opening_and_closing_a_kafka_directory_leaves_kafkas_bytes() {
    let (_directory, data) = clean();
    let before = files(&data);
    let store = Store::open(&data).unwrap();
    assert!(!data.join(MARKER).exists(), "the marker must be gone while the directory is open");
    store.close().unwrap();

    let after = files(&data);
    let is_checkpoint = |name: &str| name.ends_with("-offset-checkpoint");
    for (name, bytes) in &before {
        if name.ends_with(".deleted") {
            assert!(!after.contains_key(name), "{name} was not swept");
        } else if name != MARKER && !is_checkpoint(name) {
            assert!(after.get(name) == Some(bytes), "{name} changed");
        }
    }
    for name in before.keys().filter(|name| is_checkpoint(name)) {
        assert_eq!(checkpoint(&data, name), checkpoint(&golden().join("clean"), name), "{name}");
    }
    let marker: Value = serde_json::from_slice(&after[MARKER]).unwrap();
    assert_eq!(marker["version"], 0);
    let added: Vec<&String> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    assert_eq!(added, [".lock", "ottla.topics"]);
}

#[test]
fn control_records_are_passed_over_and_leave_no_lag() {
    let (_directory, data) = clean();
    // Without its last segment the log ends with a transaction's marker, at offset 131.
    for (name, _) in files(&data).iter().filter(|(name, _)| {
        name.starts_with("txn-0/000000000000000001") && !name.ends_with("132.snapshot")
    }) {
        fs::remove_file(data.join(name)).unwrap();
    }
    let expected = as_kafka_reads().remove(&("txn".to_owned(), 0)).unwrap();
    let store = Store::open(&data).unwrap();
    let partition = store.topic("txn").unwrap().partition(0).unwrap();
    assert_eq!(partition.watermarks().unwrap(), (0, 132));
    let mut consumer = store.consumer().max_poll_records(7).assign([&partition]).unwrap();
    let seen = read_all(&mut consumer);
    assert_eq!(seen, expected[..120]);
    assert_eq!(seen.last().map(|seen| seen.offset), Some(130));
    assert_eq!(consumer.position(&partition).unwrap(), 132);
    assert_eq!(consumer.lag(&partition).unwrap(), 0);
    // Beginning at a marker is beginning behind it.
    consumer.seek(&partition, 131).unwrap();
    assert!(consumer.poll(Duration::ZERO).unwrap().is_empty());
    assert_eq!(consumer.position(&partition).unwrap(), 132);
}

/// Kafka's directory, ours to write to, with the configuration that `plain` had there.
fn configured() -> (TempDir, PathBuf) {
    let (directory, data) = clean();
    let store = Store::open(&data).unwrap();
    let plain = store.topic("plain").unwrap();
    plain.alter("index.interval.bytes", Some("512")).unwrap();
    plain.alter("segment.index.bytes", Some("4096")).unwrap();
    plain.alter("segment.bytes", Some("20000")).unwrap();
    drop(plain);
    store.close().unwrap();
    (directory, data)
}

fn remove_indexes(data: &Path) {
    for name in files(data).keys() {
        if name.ends_with(".index") || name.ends_with(".timeindex") {
            fs::remove_file(data.join(name)).unwrap();
        }
    }
}

#[test]
fn rebuilt_indexes_are_the_bytes_kafka_wrote() {
    let (_directory, data) = configured();
    remove_indexes(&data);
    fs::remove_file(data.join(MARKER)).unwrap();
    fs::remove_file(data.join("recovery-point-offset-checkpoint")).unwrap();
    let store = Store::open(&data).unwrap();
    assert!(store.health().is_good(), "{:?}", store.health());
    store.close().unwrap();

    let rebuilt = files(&data);
    let mut compared = 0;
    for (name, bytes) in files(&golden().join("clean")) {
        if name.ends_with(".index") || name.ends_with(".timeindex") {
            assert_eq!(rebuilt.get(&name), Some(&bytes), "{name}");
            compared += usize::from(!bytes.is_empty());
        }
    }
    assert!(compared >= 20, "{compared} files with entries were compared");
}

#[test]
fn a_clean_directory_without_its_indexes_reads_the_same() {
    let (_directory, data) = configured();
    remove_indexes(&data);
    let store = Store::open(&data).unwrap();
    assert_reads_as_kafka(&store);
}

#[test]
fn what_is_appended_to_kafkas_partitions_follows_what_kafka_wrote() {
    let (_directory, data) = configured();
    let snapshot = |offset: i64| data.join(format!("plain-0/{offset:020}.snapshot"));
    let carried = fs::read(snapshot(500)).unwrap();
    let store = Store::open(&data).unwrap();
    let targets: Vec<TopicPartition> =
        ["plain", "c-none"].iter().flat_map(|topic| partitions_of(&store, topic)).collect();
    let producer = store.producer();
    for partition in &targets {
        let batch = ["new 0", "new 1", "new 2"]
            .map(|value| Record::new(value).timestamp(1_700_000_500_000));
        producer.send_batch(partition, batch).unwrap().wait().unwrap();
    }
    drop((producer, targets));
    store.close().unwrap();

    let store = Store::open(&data).unwrap();
    assert_eq!(store.health().findings, []);
    let expected = as_kafka_reads();
    for partition in ["plain", "c-none"].iter().flat_map(|topic| partitions_of(&store, topic)) {
        let mut consumer = store.consumer().assign([&partition]).unwrap();
        let seen = read_all(&mut consumer);
        let old = &expected[&(partition.topic().name().to_owned(), partition.partition())];
        assert_eq!(seen[..old.len()], old[..], "{partition}");
        let new: Vec<(i64, Option<Vec<u8>>)> =
            seen[old.len()..].iter().map(|seen| (seen.offset, seen.value.clone())).collect();
        let end = old.len() as i64;
        let wanted = |n: i64| (end + n, Some(format!("new {n}").into_bytes()));
        assert_eq!(new, [wanted(0), wanted(1), wanted(2)], "{partition}");
    }
    // Our batches are not an idempotent producer's: the state Kafka left is the state at the new end.
    assert_eq!(fs::read(snapshot(503)).unwrap(), carried);
    assert!(!snapshot(500).exists());
    assert!(snapshot(296).exists(), "a segment's own snapshot stays");
}

#[test]
fn indexes_that_grew_on_kafkas_are_the_ones_a_rebuild_gives() {
    let (_directory, data) = configured();
    for _ in 0..3 {
        let store = Store::open(&data).unwrap();
        let partition = store.topic("plain").unwrap().partition(0).unwrap();
        let producer = store.producer();
        for n in 0..40_i64 {
            let value = vec![b'x'; 90];
            let record = Record::new(&value).timestamp(1_700_001_000_000 + n * 7 % 50);
            drop(producer.send_batch(&partition, [record]).unwrap());
        }
        drop((producer, partition));
        store.close().unwrap();
    }
    let grown = files(&data.join("plain-0"));
    assert!(grown.keys().filter(|name| name.ends_with(".log")).count() >= 3);
    remove_indexes(&data);
    fs::remove_file(data.join(MARKER)).unwrap();
    fs::remove_file(data.join("recovery-point-offset-checkpoint")).unwrap();
    Store::open(&data).unwrap().close().unwrap();
    let rebuilt = files(&data.join("plain-0"));
    for (name, bytes) in grown.iter().filter(|(name, _)| name.contains("index")) {
        assert_eq!(rebuilt.get(name), Some(bytes), "{name}");
    }
}
