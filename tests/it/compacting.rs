//! Topics that are compacted: when, what is left of them, what it may cost, and who is told.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::collections::BTreeMap;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use kafka_protocol::records::RecordBatchDecoder;
use ottla::CompactionProgress;
use ottla::Compression;
use ottla::Durability;
use ottla::Error;
use ottla::Finding;
use ottla::Record;
use ottla::Store;
use ottla::StoreBuilder;
use ottla::Topic;
use ottla::TopicConfig;

use crate::chance;
use crate::consuming::Seen;
use crate::consuming::read_all;
use crate::waiting::LONG;
use crate::waiting::SOON;

fn compacted() -> TopicConfig {
    TopicConfig::new().segment_bytes(4096).set("cleanup.policy", "compact").unwrap()
}

/// A store that looks for something to compact whenever there may be, or never.
fn builder(root: &Path, is_enabled: bool) -> StoreBuilder {
    Store::builder(root)
        .durability(Durability::Buffered)
        .cleaner_enable(is_enabled)
        .cleaner_backoff(Duration::from_millis(1))
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Sends values that count up, with these keys in turn.
fn send(store: &Store, topic: &Topic, numbers: std::ops::Range<i64>, keys: i64) {
    let producer = store.producer();
    for n in numbers {
        let (key, value) = (format!("key {}", n % keys), format!("value {n}, {}", "-".repeat(50)));
        drop(producer.send(topic, Record::new(&value).key(&key)).unwrap());
    }
}

fn all(store: &Store, topic: &Topic) -> Vec<Seen> {
    read_all(&mut store.consumer().assign(topic.partitions()).unwrap())
}

/// The last value of each key, as a reader finds it who begins at the start.
fn view(store: &Store, topic: &Topic) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut view = BTreeMap::new();
    for seen in all(store, topic) {
        match seen.value {
            Some(value) => drop(view.insert(seen.key.unwrap(), value)),
            None => drop(view.remove(&seen.key.unwrap())),
        }
    }
    view
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {LONG:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_compacted_topic_is_compacted_in_the_background_and_others_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let store = builder(directory.path(), true).open().unwrap();
    let topic = store.create_topic("compacted", compacted()).unwrap();
    let other = store.create_topic("kept", TopicConfig::new().segment_bytes(4096)).unwrap();
    send(&store, &topic, 0..2000, 5);
    send(&store, &other, 0..2000, 5);
    // Some forty records fit a segment, and the last one is not compacted.
    wait_until("old values go", || all(&store, &topic).len() < 200);
    assert_eq!(all(&store, &other).len(), 2000);
    let found = all(&store, &topic);
    assert!(found.windows(2).all(|pair| pair[0].offset < pair[1].offset));
    for seen in &found {
        let text = String::from_utf8(seen.value.clone().unwrap()).unwrap();
        assert!(text.starts_with(&format!("value {},", seen.offset)), "{text} at {}", seen.offset);
    }
    let latest = view(&store, &topic);
    assert_eq!(latest.len(), 5);
    for n in 1995..2000 {
        let value = &latest[format!("key {}", n % 5).as_bytes()];
        assert!(value.starts_with(format!("value {n},").as_bytes()));
    }
    assert!(store.health().is_good());
    drop((topic, other));
    wait_until("it is on record", || directory.path().join("cleaner-offset-checkpoint").exists());
    store.close().unwrap();
    let record = fs::read_to_string(directory.path().join("cleaner-offset-checkpoint")).unwrap();
    let lines: Vec<&str> = record.lines().collect();
    assert_eq!(lines[..2], ["0", "1"], "as Kafka writes it");
    let offset = lines[2].strip_prefix("compacted 0 ").unwrap().parse::<i64>().unwrap();
    assert!((1..2000).contains(&offset), "{offset}");
    assert_eq!(ottla::inspect::check(directory.path()).unwrap().problems, []);
}

#[test]
fn a_log_waits_until_more_of_it_is_dirty_than_the_ratio_says() {
    let directory = tempfile::tempdir().unwrap();
    let store = builder(directory.path(), true).open().unwrap();
    let topic = store.create_topic("t", compacted()).unwrap();
    topic.alter("min.cleanable.dirty.ratio", Some("1")).unwrap();
    send(&store, &topic, 0..500, 5);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(all(&store, &topic).len(), 500, "no more than all of it is dirty");
    topic.alter("min.cleanable.dirty.ratio", Some("0.99")).unwrap();
    wait_until("a change is taken up", || all(&store, &topic).len() < 200);
}

#[test]
fn a_topic_that_becomes_compacted_is() {
    let directory = tempfile::tempdir().unwrap();
    let store = builder(directory.path(), true).open().unwrap();
    let topic = store.create_topic("t", TopicConfig::new().segment_bytes(4096)).unwrap();
    send(&store, &topic, 0..500, 5);
    assert!(matches!(topic.compact(), Err(Error::NotCompacted { topic }) if topic == "t"));
    assert_eq!(topic.compact().unwrap_err().kafka_code(), Some(44));
    topic.alter("cleanup.policy", Some("compact,delete")).unwrap();
    wait_until("old values go", || all(&store, &topic).len() < 200);
}

#[test]
fn records_that_have_waited_for_too_long_are_compacted_though_nothing_is_sent_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let store = builder(directory.path(), true).open().unwrap();
    let config = compacted().set("min.cleanable.dirty.ratio", "1").unwrap();
    let topic = store.create_topic("t", config.set("max.compaction.lag.ms", "300").unwrap());
    let topic = topic.unwrap();
    let begun = Instant::now();
    send(&store, &topic, 0..10, 1);
    let found = all(&store, &topic).len();
    assert!(found == 10 || begun.elapsed() >= Duration::from_millis(300), "{found}");
    wait_until("the segment is closed and compacted", || all(&store, &topic).len() == 1);
}

#[test]
fn records_of_an_earlier_life_that_have_waited_for_too_long_are_compacted_though_nothing_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    // Nothing is synchronised in the background before the close, so nobody looks at the segment's age.
    let builder = |is_enabled| {
        builder(directory.path(), is_enabled).checkpoint_interval(Duration::from_secs(3600))
    };
    let store = builder(false).open().unwrap();
    let config = compacted().set("max.compaction.lag.ms", "3600000").unwrap();
    let topic = store.create_topic("t", config).unwrap();
    for n in 0..10 {
        let value = format!("value {n}");
        let record = Record::new(&value).key("k").timestamp(now_ms() - 7_200_000);
        store.producer().send(&topic, record).unwrap();
    }
    drop(topic);
    store.close().unwrap();
    let store = builder(true).retention_check_interval(Duration::from_millis(100)).open().unwrap();
    let topic = store.topic("t").unwrap();
    wait_until("the segment is closed and compacted", || all(&store, &topic).len() == 1);
    assert_eq!(all(&store, &topic)[0].offset, 9);
}

#[test]
fn what_is_younger_than_the_least_lag_is_all_there() {
    let directory = tempfile::tempdir().unwrap();
    let store = builder(directory.path(), false).open().unwrap();
    let config = compacted().set("min.compaction.lag.ms", "3600000").unwrap();
    let topic = store.create_topic("t", config).unwrap();
    let producer = store.producer();
    let (old, young) = (now_ms() - 2 * 3_600_000, now_ms());
    for n in 0..600 {
        // The clock of the 300th was wrong.
        let timestamp = if (299..=500).contains(&n) { young } else { old };
        let value = format!("{n} {}", "-".repeat(50));
        drop(producer.send(&topic, Record::new(&value).key("k").timestamp(timestamp)).unwrap());
    }
    let counts = topic.compact().unwrap().counts;
    assert!(counts.records_dropped > 200, "{counts:?}");
    let found = all(&store, &topic);
    assert!(
        found.iter().filter(|seen| seen.offset >= 299).count() == 301,
        "young, or behind young"
    );
    assert!(found.len() < 301 + 60, "{}", found.len());
}

#[test]
fn a_compaction_that_is_asked_for_leaves_one_record_of_each_key_and_says_what_it_did() {
    let directory = tempfile::tempdir().unwrap();
    let store = builder(directory.path(), false).open().unwrap();
    let topic = store.create_topic("t", compacted().partitions(3)).unwrap();
    send(&store, &topic, 0..1000, 10);
    let before = view(&store, &topic);
    let len =
        |topic: &Topic| topic.describe().unwrap().partitions.iter().map(|p| p.len).sum::<u64>();
    let len_before = len(&topic);
    let report = topic.compact().unwrap();
    assert!(report.left.is_empty());
    let counts = report.counts;
    assert_eq!((counts.records_kept, counts.records_dropped), (10, 990));
    assert_eq!((counts.bytes_before, counts.bytes_after), (len_before, len(&topic)));
    assert_eq!(counts.bytes_written, counts.bytes_after);
    // Once to look at it, and once more where anything stays: of most segments nothing does.
    let read = counts.bytes_before..counts.bytes_before * 3 / 2;
    assert!(read.contains(&counts.bytes_read), "{counts:?}");
    assert!(counts.segments_before > 10, "{counts:?}");
    assert_eq!(view(&store, &topic), before);
    assert_eq!(all(&store, &topic).len(), 10);
    // What has shrunk is joined, as in Kafka by the next one; then nothing is left to do.
    let joined = topic.compact().unwrap().counts;
    assert_eq!((joined.segments_after, joined.records_dropped), (3, 0), "{joined:?}");
    let again = topic.compact().unwrap().counts;
    assert_eq!((again.records_kept, again.records_dropped, again.bytes_written), (10, 0, 0));
    // One partition, watched.
    send(&store, &topic, 1000..1100, 10);
    let progress = CompactionProgress::new();
    topic.partition(1).unwrap().compact_watched(&progress).unwrap();
    let one = progress.counts();
    assert!(one.records_dropped > 0 && one.records_kept < 10, "{one:?}");
    drop(topic);
    store.close().unwrap();
    assert_eq!(ottla::inspect::check(directory.path()).unwrap().problems, []);
}

#[test]
fn a_compaction_is_refused_where_nothing_may_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let store = builder(directory.path(), false).open().unwrap();
    let topic = store.create_topic("t", compacted()).unwrap();
    let doomed = store.create_topic("doomed", compacted()).unwrap();
    store.delete_topic("doomed").unwrap();
    assert!(matches!(doomed.compact(), Err(Error::TopicDeleted { .. })));
    let reader = Store::open_read_only(directory.path()).unwrap();
    let refused = reader.topic("t").unwrap().compact();
    assert!(matches!(refused, Err(Error::ReadOnly { action: "compact a topic" })), "{refused:?}");
    store.close().unwrap();
    assert!(matches!(topic.compact(), Err(Error::Closed)));
}

#[test]
fn a_tombstone_stays_for_its_time_and_then_goes_with_all_that_it_stands_for() {
    let directory = tempfile::tempdir().unwrap();
    let store = builder(directory.path(), false).open().unwrap();
    let config = compacted().set("delete.retention.ms", "86400000").unwrap();
    let topic = store.create_topic("t", config).unwrap();
    let producer = store.producer();
    send(&store, &topic, 0..10, 2);
    drop(producer.send(&topic, Record::tombstone("key 0")).unwrap());
    for _ in 0..2 {
        topic.compact().unwrap();
        let offsets: Vec<i64> = all(&store, &topic).iter().map(|seen| seen.offset).collect();
        assert_eq!(offsets, [9, 10]);
    }
    topic.alter("delete.retention.ms", Some("0")).unwrap();
    topic.compact().unwrap();
    assert_eq!(all(&store, &topic).len(), 2, "its time was set when it was met first");
    drop(producer.send(&topic, Record::tombstone("key 1")).unwrap());
    topic.compact().unwrap();
    assert_eq!(all(&store, &topic).len(), 2, "who reads now must see it");
    thread::sleep(Duration::from_millis(2));
    topic.compact().unwrap();
    let offsets: Vec<i64> = all(&store, &topic).iter().map(|seen| seen.offset).collect();
    assert_eq!(offsets, [10]);
}

/// Reads a partition's batches with another implementation: their codecs, their records' offsets and values.
fn as_others_read(directory: &Path) -> (Vec<u8>, Vec<(i64, Vec<u8>)>) {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    logs.sort();
    let (mut codecs, mut records) = (Vec::new(), Vec::new());
    for path in logs {
        let mut bytes = Bytes::from(fs::read(path).unwrap());
        while !bytes.is_empty() {
            let len = 12 + u32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize;
            let mut batch = bytes.split_to(len);
            codecs.push(batch[22] & 7);
            let set = RecordBatchDecoder::decode(&mut batch).unwrap();
            let plain = set.records.iter().map(|r| (r.offset, r.value.clone().unwrap().to_vec()));
            records.extend(plain);
        }
    }
    (codecs, records)
}

#[test]
fn compressed_batches_are_compacted_and_keep_their_codec() {
    let codecs = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    for (codec, number) in codecs.into_iter().zip(1..).filter(|(codec, _)| codec.is_available()) {
        let directory = tempfile::tempdir().unwrap();
        let store = builder(directory.path(), false).open().unwrap();
        let topic = store.create_topic("t", compacted()).unwrap();
        let partition = topic.partition(0).unwrap();
        let producer = store.producer_builder().compression(codec).unwrap().build();
        let value = |n: i64| format!("value {n}: {}", "abcdefgh".repeat(20));
        for batch in 0..30_i64 {
            // The even keys of each batch are superseded by the next one, the odd ones stay; the last key of all
            // is in batches that lose nothing.
            let entry = |n: i64| match batch % 10 {
                9 => (format!("whole {batch} {n}"), value(batch * 20 + n)),
                _ if n % 2 == 0 => (format!("even {n}"), value(batch * 20 + n)),
                _ => (format!("odd {batch} {n}"), value(batch * 20 + n)),
            };
            let entries: Vec<_> = (0..20).map(entry).collect();
            let records = entries.iter().map(|(key, value)| Record::new(value).key(key));
            drop(producer.send_batch(&partition, records).unwrap());
        }
        let before = view(&store, &topic);
        let counts = topic.compact().unwrap().counts;
        assert_eq!(counts.records_kept as usize, before.len(), "{codec:?}");
        assert_eq!(counts.records_kept + counts.records_dropped, 600, "{codec:?}");
        assert_eq!(view(&store, &topic), before, "{codec:?}");
        drop((producer, partition, topic));
        store.close().unwrap();
        let (codecs, records) = as_others_read(&directory.path().join("t-0"));
        assert!(codecs.len() == 30 && codecs.iter().all(|c| *c == number), "{codec:?}: {codecs:?}");
        assert_eq!(records.len(), before.len());
        for (offset, found) in records {
            assert_eq!(found, value(offset).as_bytes(), "{codec:?}");
        }
        assert_eq!(ottla::inspect::check(directory.path()).unwrap().problems, []);
    }
}

#[test]
fn a_small_key_map_makes_more_passes_and_the_same_log() {
    let read = |key_map_bytes: usize| {
        let directory = tempfile::tempdir().unwrap();
        let builder = builder(directory.path(), false).cleaner_dedupe_buffer_size(key_map_bytes);
        let store = builder.open().unwrap();
        let topic = store.create_topic("t", compacted()).unwrap();
        send(&store, &topic, 0..3000, 500);
        let counts = topic.compact().unwrap().counts;
        let left = all(&store, &topic).iter().map(|seen| seen.offset).collect::<Vec<_>>();
        (counts.bytes_read, left)
    };
    let (read_at_once, left) = read(1 << 20);
    assert_eq!(left, (2500..3000).collect::<Vec<_>>());
    let (read_in_passes, left_in_passes) = read(100 * 24);
    assert_eq!(left_in_passes, left);
    assert!(read_in_passes > 2 * read_at_once, "{read_in_passes} {read_at_once}");
}

#[test]
fn compaction_is_no_faster_than_it_may_be_and_a_close_does_not_wait_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = builder(directory.path(), false).open().unwrap();
    let topic = store.create_topic("t", compacted()).unwrap();
    send(&store, &topic, 0..1000, 5);
    drop(topic);
    store.close().unwrap();
    let limited = |rate| builder(directory.path(), false).cleaner_io_max_bytes_per_second(rate);
    // Read once, and in part once more: 100 KB and more.
    let store = limited(200_000).open().unwrap();
    let topic = store.topic("t").unwrap();
    let (begun, counts) = (Instant::now(), topic.compact().unwrap().counts);
    let least =
        Duration::from_secs_f64((counts.bytes_read + counts.bytes_written) as f64 / 200_000.0);
    assert!(
        begun.elapsed() + Duration::from_millis(100) > least,
        "{:?} {least:?}",
        begun.elapsed()
    );
    assert!(least > Duration::from_millis(500));
    send(&store, &topic, 1000..2000, 5);
    drop(topic);
    store.close().unwrap();
    // At a byte a second it would take a day. It is cancelled wherever it is, in the background or not.
    for in_background in [true, false] {
        let store = limited(1).cleaner_enable(in_background).open().unwrap();
        let topic = store.topic("t").unwrap();
        thread::scope(|scope| {
            let progress = CompactionProgress::new();
            let watched = progress.clone();
            let compacting = scope.spawn(move || match in_background {
                true => Err(Error::Closed),
                false => topic.compact_watched(&watched),
            });
            if !in_background {
                wait_until("it has begun", || progress.counts().bytes_read > 0);
            }
            thread::sleep(Duration::from_millis(100));
            let begun = Instant::now();
            store.close().unwrap();
            assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
            assert!(matches!(compacting.join().unwrap(), Err(Error::Closed)));
        });
    }
    let store = builder(directory.path(), false).open().unwrap();
    assert!(store.health().is_good());
    assert_eq!(view(&store, &store.topic("t").unwrap()).len(), 5);
}

#[test]
fn appends_and_reads_go_on_while_the_background_compacts() {
    let directory = tempfile::tempdir().unwrap();
    let store = builder(directory.path(), true).open().unwrap();
    let topic = store.create_topic("t", compacted()).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut rounds = 0;
            while !is_over.load(Ordering::Acquire) {
                let end = topic.partition(0).unwrap().watermarks().unwrap().1;
                let found = all(&store, &topic);
                assert!(found.windows(2).all(|pair| pair[0].offset < pair[1].offset));
                let last = found.last().map_or(0, |seen| seen.offset + 1);
                assert!(last >= end, "{last} was read, {end} was there");
                rounds += 1;
            }
            rounds
        });
        for n in 0..20 {
            send(&store, &topic, n * 500..(n + 1) * 500, 20);
            // What is closed is sealed and compacted while more comes.
            thread::sleep(Duration::from_millis(5));
        }
        is_over.store(true, Ordering::Release);
        assert!(reading.join().unwrap() > 0);
    });
    wait_until("old values go", || all(&store, &topic).len() < 500);
    assert_eq!(view(&store, &topic).len(), 20);
    assert!(store.health().is_good(), "{:?}", store.health());
}

/// Random keys and tombstones, a background that compacts, and restarts, beside a map.
#[test]
fn a_view_that_is_rebuilt_after_every_restart_is_what_the_map_says() {
    let directory = tempfile::tempdir().unwrap();
    let mut map: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut chance = |limit: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % limit
    };
    for life in 0..12_u64 {
        let builder = builder(directory.path(), chance(4) > 0);
        let store = builder.cleaner_dedupe_buffer_size(24 * 40).open().unwrap();
        let config = compacted().set("delete.retention.ms", "0").unwrap();
        let topic = store.topic_or_create("t", config).unwrap();
        assert_eq!(view(&store, &topic), map, "life {life}");
        for _ in 0..chance(60) {
            let codecs = [Compression::None, Compression::Lz4, Compression::Zstd];
            let codec = codecs[chance(3) as usize];
            let codec = if codec.is_available() { codec } else { Compression::None };
            let producer = store.producer_builder().compression(codec).unwrap().build();
            let mut batch = Vec::new();
            for _ in 0..1 + chance(20) {
                let key = format!("key {}", chance(100)).into_bytes();
                let value =
                    (chance(4) > 0).then(|| format!("{life} ").repeat(chance(40) as usize + 1));
                let value = value.map(String::into_bytes);
                match &value {
                    Some(value) => drop(map.insert(key.clone(), value.clone())),
                    None => drop(map.remove(&key)),
                }
                batch.push((key, value));
            }
            let records =
                batch.iter().map(|(k, v)| Record::tombstone(k).value_or_null(v.as_deref()));
            drop(producer.send_batch(&topic.partition(0).unwrap(), records).unwrap());
        }
        if chance(2) == 0 {
            topic.compact().unwrap();
            thread::sleep(Duration::from_millis(2));
            topic.compact().unwrap();
            let count = all(&store, &topic).len();
            assert_eq!(count, map.len(), "life {life}: tombstones are gone, too");
        }
        assert_eq!(view(&store, &topic), map, "life {life}");
        assert!(store.health().is_good(), "{:?}", store.health());
        drop(topic);
        store.close().unwrap();
        assert_eq!(ottla::inspect::check(directory.path()).unwrap().problems, []);
    }
}

/// What the child of the next test runs; does nothing in an ordinary run of the tests.
#[test]
fn child_that_appends_and_compacts_until_it_is_killed() {
    let Ok(directory) = std::env::var("OTTLA_COMPACTING_CHILD") else { return };
    let first: u64 = std::env::var("OTTLA_COMPACTING_FIRST").unwrap().parse().unwrap();
    let store = builder(Path::new(&directory), true).open().unwrap();
    let config = compacted().set("delete.retention.ms", "5").unwrap();
    let topic = store.topic_or_create("t", config).unwrap();
    let compression =
        if Compression::Lz4.is_available() { Compression::Lz4 } else { Compression::None };
    let producer = store.producer_builder().compression(compression).unwrap().build();
    for n in first.. {
        let entries: Vec<_> = (0..10)
            .map(|k| (format!("key {}", (n * 7 + k) % 40), format!("{n} {}", "-".repeat(20))))
            .collect();
        let records = entries.iter().map(|(key, value)| Record::new(value).key(key));
        drop(producer.send_batch(&topic.partition(0).unwrap(), records).unwrap());
        // One write of one line: a pipe takes it whole.
        std::io::stdout().write_all(format!("@{n}\n").as_bytes()).unwrap();
    }
}

#[test]
fn kills_amid_compactions_lose_nothing_that_counts() {
    let directory = tempfile::tempdir().unwrap();
    let seed = chance::seed();
    let (mut chance, mut first, mut gone) = (seed, 0, 0);
    // A machine with other things to do: a life that told of nothing is followed by one that may last longer.
    let mut slowness = 1;
    for cycle in 0..25 {
        let what = format!("OTTLA_SEED={seed} cycle {cycle}");
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "compacting::child_that_appends_and_compacts_until_it_is_killed"])
            .arg("--nocapture")
            .env("OTTLA_COMPACTING_CHILD", directory.path())
            .env("OTTLA_COMPACTING_FIRST", first.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let reading = thread::spawn(move || {
            let lines = stdout.lines().map_while(Result::ok);
            let numbers = lines.filter_map(|line| line.rsplit_once('@')?.1.parse::<u64>().ok());
            numbers.last()
        });
        thread::sleep(Duration::from_micros((30_000 + (chance >> 33) % 100_000) * slowness));
        child.kill().unwrap();
        child.wait().unwrap();
        let last = reading.join().unwrap();
        slowness = if last.is_none() { (2 * slowness).min(64) } else { (slowness / 2).max(1) };
        let store = builder(directory.path(), false).open().unwrap();
        let damage = |finding: &&Finding| !matches!(finding, Finding::Cut { .. });
        assert_eq!(store.health().findings.iter().find(damage), None, "{what}");
        let Ok(topic) = store.topic("t") else {
            assert_eq!(last, None, "{what}");
            continue;
        };
        let found = all(&store, &topic);
        assert!(found.windows(2).all(|pair| pair[0].offset < pair[1].offset), "{what}");
        gone += found.last().map_or(0, |seen| seen.offset + 1) - found.len() as i64;
        let latest = view(&store, &topic);
        let number = |value: &[u8]| {
            let text = String::from_utf8(value.to_vec()).unwrap();
            text.split(' ').next().unwrap().parse::<u64>().unwrap()
        };
        // The last number that was told of each key, or a later one.
        for told in last.map_or(0..0, |last| last.saturating_sub(40).max(first)..last + 1) {
            for k in 0..10 {
                let key = format!("key {}", (told * 7 + k) % 40);
                let value = latest.get(key.as_bytes()).map(|value| number(value));
                assert!(value.is_some_and(|value| value >= told), "{what}: {key} {told} {value:?}");
            }
        }
        first = latest.values().map(|value| number(value) + 1).max().unwrap_or(first);
        drop(topic);
        store.close().unwrap();
        let mut problems = ottla::inspect::check(directory.path()).unwrap().problems;
        // A kill amid the roll of a segment leaves the first bytes of a producer snapshot, if any; whoever needs it
        // takes an older one.
        problems.retain(|problem| problem.path.extension().is_none_or(|e| e != "snapshot"));
        assert_eq!(problems, [], "{what}");
    }
    assert!(gone > 1000, "compaction hardly ran: {gone}");
}

#[cfg(feature = "cli")]
mod command {
    use crate::cli::Shell;
    use crate::cli::errors;
    use serde_json::Value;

    #[test]
    fn the_command_compacts_and_says_what_it_did() {
        let shell = Shell::new();
        let create = ["topic", "create", "t", "-p", "2", "-c", "cleanup.policy=compact"];
        shell.ok(&create);
        let lines: String = (0..100).map(|n| format!("{}:{n}\n", n % 4)).collect();
        shell.produce(&["-K", ":"], lines.as_bytes());
        let printed = shell.text(&["compact", "t", "-o", "json"]);
        let rows: Vec<Value> =
            printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows.len(), 2);
        let sum = |name: &str| rows.iter().map(|row| row[name].as_u64().unwrap()).sum::<u64>();
        assert_eq!((sum("records_kept"), sum("records_dropped")), (4, 96));
        assert!(sum("bytes_before") > sum("bytes_after") && sum("bytes_read") > 0, "{printed}");
        let mut left: Vec<String> =
            shell.text(&["consume", "t"]).lines().map(str::to_owned).collect();
        left.sort();
        assert_eq!(left, ["96", "97", "98", "99"]);
        let table = shell.text(&["compact", "t", "-p", "1", "--bytes-per-second", "1000000"]);
        assert_eq!(table.lines().count(), 2, "{table}");
        assert!(table.starts_with("partition  kept  dropped  segments"), "{table}");
        shell.ok(&["check"]);
    }

    #[test]
    fn the_command_says_why_it_cannot() {
        let shell = Shell::with_topic(1);
        let refused = shell.run(&["compact", "t"]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(errors(&refused).contains("topic `t` is not compacted"), "{}", errors(&refused));
        let refused = shell.run(&["compact", "u"]);
        assert!(errors(&refused).contains("no topic is named `u`"), "{}", errors(&refused));
    }
}

#[test]
fn files_that_were_compacted_are_kept_for_as_long_as_the_topic_says() {
    let directory = tempfile::tempdir().unwrap();
    let store = builder(directory.path(), false).open().unwrap();
    let config = compacted().set("file.delete.delay.ms", "3600000").unwrap();
    let topic = store.create_topic("t", config).unwrap();
    let deleted = || topic.describe().unwrap().partitions[0].deleted_len;
    for round in 0..3 {
        send(&store, &topic, 500 * round..500 * (round + 1), 5);
        let latest = view(&store, &topic);
        topic.compact().unwrap();
        // Those of the first segment take the place of those it had before.
        assert!(deleted() > 10 * 4096, "{round}: {}", deleted());
        assert_eq!(view(&store, &topic), latest);
    }
    topic.alter("file.delete.delay.ms", Some("1")).unwrap();
    wait_until("they are removed", || deleted() == 0);
    assert_eq!(view(&store, &topic).len(), 5);
    drop(topic);
    store.close().unwrap();
    assert_eq!(ottla::inspect::check(directory.path()).unwrap().problems, []);
}

#[test]
fn what_compaction_frees_is_free_for_appends_at_once() {
    // The store's bound was told of it only when a segment was closed, or others were to go.
    let directory = tempfile::tempdir().unwrap();
    let store = Store::builder(directory.path())
        .cleaner_enable(false)
        .durability(ottla::Durability::Buffered)
        .bytes_max(1 << 20, ottla::BudgetPolicy::BackPressure)
        .open()
        .unwrap();
    let config = TopicConfig::new().segment_bytes(64 << 10).set("cleanup.policy", "compact");
    let topic = store.create_topic("t", config.unwrap()).unwrap();
    let producer = store.producer();
    let value = [7_u8; 1000];
    let send = || producer.send(&topic, Record::new(&value).key("the only one"));
    let refused = (0..2000).find_map(|_| send().err());
    assert!(matches!(refused, Some(ottla::Error::StoreFull { .. })), "{refused:?}");
    topic.compact().unwrap();
    for n in 0..500 {
        send().unwrap_or_else(|error| panic!("{n}: {error}"));
    }
}
