//! A log that is appended to, compacted, reopened and read at random, beside a model of it; and all of it at once
//! from several threads.
//!
//! `OTTLA_SEED` plays one life again, `OTTLA_LIVES` sets how many are played.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::Compression;
use crate::Consumer;
use crate::Durability;
use crate::Producer;
use crate::Record;
use crate::Start;
use crate::Store;
use crate::TopicConfig;
use crate::TopicPartition;
use crate::chance::Chance;
use crate::chance::told;
use crate::clock::Clock;
use crate::inspect;
use crate::partition::compaction::Compacted;
use crate::partition::compaction_plan::Compaction;
use crate::partition::compaction_plan::SegmentLimits;
use crate::partition::compaction_progress::CompactionProgress;
use crate::storage::disk::Disk;
use crate::storage::faults::Script;

/// A record as it was sent, or as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) header: Option<Vec<u8>>,
    pub(super) timestamp_ms: i64,
}

/// Everything that was ever appended, and what must be left of it.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) log: Vec<Sent>,
    /// Below this offset of every key one record is left at the most.
    pub(super) compacted_below: i64,
    /// What was missing once must not come back.
    pub(super) missing: BTreeSet<i64>,
    /// For each tombstone that was met by a compaction, from when on it may be missing.
    pub(super) horizons: BTreeMap<i64, i64>,
    /// Tombstones that the last compaction has met past their horizon.
    pub(super) expired: BTreeSet<i64>,
}

impl History {
    pub(super) fn random(&self, chance: &mut Chance, now_ms: i64) -> Sent {
        let text = |n: u64, len: u64| format!("{n}.").repeat(1 + len as usize).into_bytes();
        let n = self.log.len() as u64;
        let key = format!("k{}", chance.below(30)).into_bytes();
        Sent {
            key: (chance.below(30) > 0).then_some(key),
            value: (chance.below(6) > 0).then(|| text(n, chance.below(20))),
            header: (chance.below(3) == 0).then(|| text(n, 1)),
            timestamp_ms: now_ms - chance.below(50) as i64,
        }
    }

    /// Gives the offset of the latest record of each key.
    pub(super) fn latest(&self, below: i64) -> BTreeMap<&[u8], i64> {
        let log = &self.log[..below.clamp(0, self.log.len() as i64) as usize];
        let keyed = log.iter().enumerate();
        keyed.filter_map(|(n, sent)| Some((sent.key.as_deref()?, n as i64))).collect()
    }

    /// Notes what a compaction may have done up to an offset.
    pub(super) fn note_compaction(&mut self, how: &Compaction, upto: i64) {
        let expired = self.horizons.range(..upto).filter(|(_, horizon)| **horizon <= how.now_ms);
        self.expired.extend(expired.map(|(offset, _)| *offset));
        for (n, sent) in self.log[..upto as usize].iter().enumerate() {
            if sent.value.is_none() {
                let horizon = how.now_ms + how.delete_retention_ms;
                self.horizons.entry(n as i64).or_insert(horizon);
            }
        }
    }

    /// Compares all that can be read with all that must be there.
    pub(super) fn check(&mut self, found: &[(i64, Sent)], now_ms: i64, what: &str) {
        assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "{what}: not in order");
        let found: BTreeMap<i64, &Sent> =
            found.iter().map(|(offset, sent)| (*offset, sent)).collect();
        let latest: BTreeSet<i64> = self.latest(i64::MAX).into_values().collect();
        let latest_below: BTreeSet<i64> = self.latest(self.compacted_below).into_values().collect();
        for (n, sent) in self.log.iter().enumerate() {
            let offset = n as i64;
            let Some(read) = found.get(&offset) else {
                assert!(
                    !latest.contains(&offset) || sent.value.is_none(),
                    "{what}: {offset} is lost: {sent:?}"
                );
                let is_tombstone = sent.key.is_some() && sent.value.is_none();
                if is_tombstone && latest.contains(&offset) {
                    let horizon = self.horizons.get(&offset);
                    assert!(
                        horizon.is_some_and(|horizon| *horizon <= now_ms),
                        "{what}: tombstone {offset} is gone before {horizon:?}"
                    );
                    let older = self.log[..n].iter().zip(0_i64..);
                    for (_, older) in older.filter(|(older, _)| older.key == sent.key) {
                        assert!(!found.contains_key(&older), "{what}: {older} came back to life");
                    }
                }
                self.missing.insert(offset);
                continue;
            };
            assert_eq!(*read, sent, "{what}: offset {offset}");
            assert!(!self.missing.contains(&offset), "{what}: {offset} came back");
            assert!(!self.expired.contains(&offset), "{what}: tombstone {offset} stayed");
            if offset < self.compacted_below {
                assert!(
                    latest_below.contains(&offset),
                    "{what}: {offset} was superseded and is there"
                );
            }
        }
        if let Some((last, _)) = found.last_key_value() {
            assert!(*last < self.log.len() as i64, "{what}: {last} was never appended");
        }
    }
}

pub(super) fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

pub(super) fn send(partition: &TopicPartition, store: &Store, batch: &[Sent]) -> crate::Result<()> {
    send_by(&store.producer(), partition, batch)
}

/// As [`send`], as a batch that is compressed somehow, if at all.
fn send_packed(
    partition: &TopicPartition,
    store: &Store,
    batch: &[Sent],
    chance: &mut Chance,
) -> crate::Result<()> {
    let codecs = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    let codec = codecs.get(chance.below(8) as usize).copied().filter(|codec| codec.is_available());
    let builder = store.producer_builder().compression(codec.unwrap_or_default())?;
    send_by(&builder.build(), partition, batch)
}

pub(super) fn send_by(
    producer: &Producer,
    partition: &TopicPartition,
    batch: &[Sent],
) -> crate::Result<()> {
    let records = batch.iter().map(|sent| {
        let record = Record::tombstone("").key_or_null(sent.key.as_deref());
        let record = record.value_or_null(sent.value.as_deref()).timestamp(sent.timestamp_ms);
        sent.header.iter().fold(record, |record, value| record.header("h", value))
    });
    // What was sent is there at once; that it is durable is another matter.
    drop(producer.send_batch(partition, records)?);
    Ok(())
}

pub(super) fn poll(consumer: &mut Consumer) -> crate::Result<Vec<(i64, Sent)>> {
    let records = consumer.poll(Duration::ZERO)?;
    let read = records.iter().map(|message| {
        let header = message.headers().next().and_then(|h| h.value.map(<[u8]>::to_vec));
        let sent = Sent {
            key: message.key().map(<[u8]>::to_vec),
            value: message.value().map(<[u8]>::to_vec),
            header,
            timestamp_ms: message.timestamp(),
        };
        (message.offset(), sent)
    });
    Ok(read.collect())
}

pub(super) fn read_all(
    partition: &TopicPartition,
    store: &Store,
) -> crate::Result<Vec<(i64, Sent)>> {
    let mut consumer = store.consumer().assign([partition])?;
    let mut found = Vec::new();
    let end = partition.watermarks()?.1;
    while consumer.position(partition)? < end {
        found.extend(poll(&mut consumer)?);
    }
    Ok(found)
}

pub(super) fn config() -> TopicConfig {
    TopicConfig::new().segment_bytes(1024).index_interval_bytes(100)
}

pub(super) fn how(now_ms: i64, chance: &mut Chance) -> Compaction {
    let segment_bytes = [1024, 2048, 8192][chance.below(3) as usize];
    Compaction {
        // Sometimes there is room for twelve keys, sometimes for all thirty.
        key_map_bytes_max: [0, 1000, 1 << 20][chance.below(3) as usize],
        delete_retention_ms: 1000,
        // With one of the sizes by a thread of its own, whatever there is.
        keys_beside_from: if segment_bytes == 2048 { 0 } else { u64::MAX },
        segments: SegmentLimits { segment_bytes, segment_index_bytes: segment_bytes },
        ..Compaction::at(now_ms)
    }
}

/// A consumer that stands somewhere, and reads on when it likes.
struct Reader {
    consumer: Consumer,
    position: i64,
}

impl Reader {
    /// Reads some, and checks that nothing was passed over that was there all the time.
    fn read(&mut self, history: &History, what: &str) {
        let found = poll(&mut self.consumer).unwrap_or_else(|error| panic!("{what}: {error}"));
        let partition = self.consumer.assignment().next().unwrap().clone();
        let position = self.consumer.position(&partition).unwrap();
        let mut expected = self.position;
        for (offset, sent) in &found {
            assert!(*offset >= expected, "{what}: offset {offset} at {expected}");
            assert_eq!(*sent, history.log[*offset as usize], "{what}: offset {offset}");
            expected = offset + 1;
        }
        let found: BTreeSet<i64> = found.iter().map(|(offset, _)| *offset).collect();
        for offset in history.latest(i64::MAX).into_values() {
            let is_passed = (self.position..position).contains(&offset);
            if is_passed && history.log[offset as usize].value.is_some() {
                assert!(found.contains(&offset), "{what}: a reader missed {offset}");
            }
        }
        self.position = position;
    }
}

fn play(seed: u64) {
    let directory = scratch();
    let root = directory.path().join("data");
    let chance = &mut Chance(seed | 1);
    let (clock, now) = Clock::fixed(1_000_000);
    let open = || {
        let builder = Store::builder(&root).durability(Durability::Buffered).clock(clock.clone());
        builder.checkpoint_interval(Duration::from_secs(3600)).open().unwrap()
    };
    let mut store = open();
    store.create_topic("t", config()).unwrap();
    let mut history = History::default();
    let mut readers: Vec<Reader> = Vec::new();
    for step in 0..120 {
        let what = format!("OTTLA_SEED={seed}, step {step}");
        let topic = store.topic("t").unwrap();
        let partition = topic.partition(0).unwrap();
        let now_ms = now.load(Ordering::Relaxed);
        match chance.below(16) {
            0..=5 => {
                for _ in 0..chance.below(8) {
                    let mut batch = Vec::new();
                    for _ in 0..1 + chance.below(5) {
                        let sent = history.random(chance, now_ms);
                        batch.push(sent);
                        history.log.push(batch[batch.len() - 1].clone());
                    }
                    send_packed(&partition, &store, &batch, chance).unwrap();
                }
            }
            6 => topic.state.open_partition(0).unwrap().roll_now().unwrap(),
            7..=8 => {
                let how = how(now_ms, chance);
                let compacted = store.compact_for_test("t", &how).unwrap();
                assert!(compacted.left.is_empty() && compacted.unremoved.is_none(), "{what}");
                assert!(compacted.after.records <= compacted.before.records, "{what}");
                assert!(compacted.first_dirty >= history.compacted_below, "{what}");
                history.compacted_below = compacted.first_dirty;
                history.note_compaction(&how, compacted.first_dirty);
            }
            9 => drop(now.fetch_add(chance.below(1500) as i64, Ordering::Relaxed)),
            10..=11 => {
                let end = history.log.len() as u64 + 1;
                let start = chance.below(end) as i64;
                let max = 1 + chance.below(9) as usize;
                let mut consumer = store.consumer().max_poll_records(max);
                if chance.below(2) == 0 {
                    consumer = consumer.max_partition_fetch_bytes(100);
                }
                let consumer =
                    consumer.assign([(partition.clone(), Start::Offset(start))]).unwrap();
                readers.push(Reader { consumer, position: start });
                if readers.len() > 6 {
                    readers.remove(0);
                }
            }
            12..=14 => {
                for reader in &mut readers {
                    for _ in 0..chance.below(4) {
                        reader.read(&history, &what);
                    }
                }
            }
            _ => {
                readers.clear();
                drop((topic, partition));
                store.close().unwrap();
                let report = inspect::check(&root).unwrap();
                assert!(report.problems.is_empty(), "{what}: {:?}", report.problems);
                store = open();
                assert!(store.health().findings.is_empty(), "{what}: {:?}", store.health());
                continue;
            }
        }
        history.check(&read_all(&partition, &store).unwrap(), now.load(Ordering::Relaxed), &what);
        // A look-up by time finds the first record that is there and as late.
        let found = read_all(&partition, &store).unwrap();
        let time = now_ms - chance.below(3000) as i64;
        let scanned =
            found.iter().find(|(_, sent)| sent.timestamp_ms >= time).map(|(offset, _)| *offset);
        let looked_up = partition.offset_for_time(time).unwrap().map(|found| found.0);
        assert_eq!(looked_up, scanned, "{what}: at {time}");
    }
}

#[test]
fn the_log_is_what_the_model_says_however_it_is_compacted() {
    if let Some(seed) = told("OTTLA_SEED") {
        return play(seed);
    }
    for seed in 0..told("OTTLA_LIVES").unwrap_or(60) {
        play(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1);
    }
}

/// Appends records whose values count up, each key's by itself.
fn append_counting(partition: &TopicPartition, store: &Store, sent: &[AtomicI64], rounds: i64) {
    append_counting_from(partition, store, sent, 1..rounds + 1);
}

fn append_counting_from(
    partition: &TopicPartition,
    store: &Store,
    sent: &[AtomicI64],
    rounds: std::ops::Range<i64>,
) {
    let mut chance = Chance(0x5eed + rounds.start as u64);
    for round in rounds {
        let key = chance.index(sent.len());
        let value = round.to_be_bytes();
        let name = format!("key {key}");
        let record = Record::new(&value).key(&name).timestamp(1_000 + round);
        drop(store.producer().send(partition.topic(), record).unwrap());
        sent[key].store(round, Ordering::Release);
    }
}

/// Appends while somebody compacts, neither getting far ahead of the other.
fn append_while_compacting(
    partition: &TopicPartition,
    store: &Store,
    sent: &[AtomicI64],
    compactions: &AtomicI64,
) {
    for n in 0..COMPACTIONS {
        append_counting_from(partition, store, sent, n * 1000 + 1..n * 1000 + 1001);
        while compactions.load(Ordering::Acquire) <= n {
            thread::yield_now();
        }
    }
}

const COMPACTIONS: i64 = 25;

/// Compacts until the log is not appended to any more.
fn compact_again_and_again(store: &Store, compactions: &AtomicI64) {
    let mut chance = Chance(7);
    while compactions.load(Ordering::Relaxed) < COMPACTIONS {
        let compacted = store.compact_for_test("t", &how(0, &mut chance)).unwrap();
        assert!(compacted.left.is_empty() && compacted.unremoved.is_none());
        compactions.fetch_add(1, Ordering::Release);
    }
}

/// Reads the log from its start, and checks that it shows at least what was sent before.
fn read_counting(partition: &TopicPartition, store: &Store, sent: &[AtomicI64], max: usize) {
    let before: Vec<i64> = sent.iter().map(|sent| sent.load(Ordering::Acquire)).collect();
    let mut seen = vec![0; sent.len()];
    let consumer = store.consumer().start(Start::Earliest).max_poll_records(max);
    let mut consumer = consumer.assign([partition]).unwrap();
    let mut expected = partition.watermarks().unwrap().0;
    // Up to the end as it is by then: what supersedes a record may be behind the end as it was.
    while consumer.position(partition).unwrap() < partition.watermarks().unwrap().1 {
        for (offset, sent) in poll(&mut consumer).unwrap() {
            assert!(offset >= expected, "{offset} at {expected}");
            expected = offset + 1;
            let key = String::from_utf8(sent.key.unwrap()).unwrap();
            let key: usize = key["key ".len()..].parse().unwrap();
            let value = i64::from_be_bytes(sent.value.unwrap().try_into().unwrap());
            assert!(value > seen[key], "key {key}: {value} behind {}", seen[key]);
            seen[key] = value;
        }
    }
    for (key, (seen, before)) in seen.iter().zip(&before).enumerate() {
        assert!(seen >= before, "key {key}: {seen} read, {before} sent before");
    }
}

#[test]
fn appends_reads_and_compactions_get_along() {
    let directory = scratch();
    let store = Store::builder(directory.path()).durability(Durability::Buffered).open().unwrap();
    let topic = store.create_topic("t", config()).unwrap();
    let partition = topic.partition(0).unwrap();
    let sent: Vec<AtomicI64> = (0..20).map(|_| AtomicI64::new(0)).collect();
    let (is_over, compactions) = (&AtomicBool::new(false), &AtomicI64::new(0));
    let (store, partition, sent) = (&store, &partition, &sent[..]);
    let going = || !is_over.load(Ordering::Relaxed);
    thread::scope(|scope| {
        let compacting = scope.spawn(move || compact_again_and_again(store, compactions));
        let readers = [1, 7, 500].map(|max| {
            scope.spawn(move || {
                let mut count = 0;
                while going() {
                    read_counting(partition, store, sent, max);
                    count += 1;
                }
                count
            })
        });
        let jumper = scope.spawn(move || {
            let mut chance = Chance(99);
            let mut consumer = store.consumer().max_poll_records(3).assign([partition]).unwrap();
            while going() {
                let end = partition.watermarks().unwrap().1;
                consumer.seek(partition, chance.below(end as u64 + 1) as i64).unwrap();
                for _ in 0..chance.below(5) {
                    drop(poll(&mut consumer).unwrap());
                }
                let found = partition.offset_for_time(1_000 + chance.below(25_000) as i64).unwrap();
                assert!(found.is_none_or(|(offset, _)| offset < 1000 * COMPACTIONS));
                assert!(topic.describe().unwrap().partitions[0].segment_count > 0);
            }
        });
        append_while_compacting(partition, store, sent, compactions);
        is_over.store(true, Ordering::Relaxed);
        compacting.join().unwrap();
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 0));
        jumper.join().unwrap();
    });
    partition.open().unwrap().roll_now().unwrap();
    let how = Compaction { delete_retention_ms: 0, ..Compaction::at(0) };
    let compacted = store.compact_for_test("t", &how).unwrap();
    assert_eq!(compacted.after.records, 20);
    read_counting(partition, store, sent, 100);
    let report = inspect::check(store.path()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

/// As another process reads it: through a store that is open for reading only, and has the writer's word for nothing.
#[test]
fn whoever_follows_a_log_that_is_compacted_misses_nothing() {
    let directory = scratch();
    let root = directory.path();
    let store = Store::builder(root).durability(Durability::Buffered).open().unwrap();
    let topic = store.create_topic("t", config()).unwrap();
    let partition = topic.partition(0).unwrap();
    let sent: Vec<AtomicI64> = (0..20).map(|_| AtomicI64::new(0)).collect();
    let (is_over, compactions) = (&AtomicBool::new(false), &AtomicI64::new(0));
    let (store, partition, sent) = (&store, &partition, &sent[..]);
    let going = || !is_over.load(Ordering::Relaxed);
    thread::scope(|scope| {
        let compacting = scope.spawn(move || compact_again_and_again(store, compactions));
        // One that opens anew again and again, one that stays, one that reads on where it is.
        let newcomer = scope.spawn(move || {
            let mut count = 0;
            while going() {
                let store = Store::open_read_only(root).unwrap();
                let partition = store.topic("t").unwrap().partition(0).unwrap();
                read_counting(&partition, &store, sent, 50);
                count += 1;
            }
            count
        });
        let regular = scope.spawn(move || {
            let store = Store::open_read_only(root).unwrap();
            let partition = store.topic("t").unwrap().partition(0).unwrap();
            let mut count = 0;
            while going() {
                read_counting(&partition, &store, sent, 7);
                assert!(partition.topic().describe().unwrap().partitions[0].segment_count > 0);
                count += 1;
            }
            count
        });
        let tail = scope.spawn(move || {
            let store = Store::open_read_only(root).unwrap();
            let partition = store.topic("t").unwrap().partition(0).unwrap();
            let mut consumer = store.consumer().max_poll_records(3).assign([&partition]).unwrap();
            let mut seen = vec![0; sent.len()];
            let mut is_last = false;
            while !is_last {
                // Looked at first: what was sent before must be read.
                is_last = !going();
                while consumer.position(&partition).unwrap() < partition.watermarks().unwrap().1 {
                    for (_, sent) in poll(&mut consumer).unwrap() {
                        let key = String::from_utf8(sent.key.unwrap()).unwrap();
                        let key: usize = key["key ".len()..].parse().unwrap();
                        let value = i64::from_be_bytes(sent.value.unwrap().try_into().unwrap());
                        assert!(value > seen[key], "key {key}: {value} behind {}", seen[key]);
                        seen[key] = value;
                    }
                }
                thread::sleep(Duration::from_micros(100));
            }
            seen
        });
        append_while_compacting(partition, store, sent, compactions);
        is_over.store(true, Ordering::Relaxed);
        compacting.join().unwrap();
        assert!(newcomer.join().unwrap() > 0 && regular.join().unwrap() > 0);
        let seen = tail.join().unwrap();
        let sent: Vec<i64> = sent.iter().map(|sent| sent.load(Ordering::Relaxed)).collect();
        assert_eq!(seen, sent);
    });
}

/// Compacts on a thread of its own, and does something else once that has come to its n-th effect.
fn in_the_middle(
    store: &Store,
    disk: &Disk,
    n: u64,
    act: impl FnOnce(),
) -> crate::Result<Compacted> {
    let topics = Arc::clone(store.topics_for_test());
    let state = Arc::clone(&store.topic("t").unwrap().state);
    let begun = disk.script().count();
    disk.script().arm(n, Script::SLOW, false);
    thread::scope(|scope| {
        let compaction = scope.spawn(move || {
            topics.compact(&state, 0, &Compaction::at(5_000), &CompactionProgress::new())
        });
        while disk.script().count() < begun + n && !compaction.is_finished() {
            thread::yield_now();
        }
        act();
        compaction.join().unwrap()
    })
}

#[test]
fn a_deletion_ends_a_compaction_wherever_it_is() {
    let mut ended = 0;
    for n in 1..80 {
        let directory = scratch();
        let disk = Disk::failing_once(u64::MAX, 0);
        let store = Store::builder(directory.path()).durability(Durability::Buffered);
        let store =
            store.checkpoint_interval(Duration::from_secs(3600)).disk(disk.clone()).open().unwrap();
        let topic = store.create_topic("t", config()).unwrap();
        let sent: Vec<AtomicI64> = (0..3).map(|_| AtomicI64::new(0)).collect();
        append_counting(&topic.partition(0).unwrap(), &store, &sent, 100);
        let files = || {
            let names = std::fs::read_dir(store.path().join("t-0")).unwrap();
            let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let mut created = Vec::new();
        let outcome = in_the_middle(&store, &disk, n, || {
            store.delete_topic("t").unwrap();
            store.create_topic("t", config()).unwrap();
            created = files();
        });
        ended += usize::from(matches!(outcome, Err(crate::Error::Closed)));
        assert!(matches!(outcome, Ok(_) | Err(crate::Error::Closed)), "effect {n}: {outcome:?}");
        assert_eq!(files(), created, "effect {n}: something came into the new topic's directory");
        let partition = store.topic("t").unwrap().partition(0).unwrap();
        drop(store.producer().send(partition.topic(), Record::new("v").key("k")).unwrap());
        assert_eq!(read_all(&partition, &store).unwrap().len(), 1);
        drop((topic, partition));
        let root = store.path().to_path_buf();
        store.close().unwrap();
        let cleaned = std::fs::read_to_string(root.join("cleaner-offset-checkpoint"));
        assert!(cleaned.is_err() || cleaned.unwrap() == "0\n0\n", "effect {n}");
    }
    assert!(ended > 20, "{ended}");
}

#[test]
fn a_close_ends_a_compaction_wherever_it_is() {
    let mut ended = 0;
    for n in 1..80 {
        let directory = scratch();
        let root = directory.path();
        let disk = Disk::failing_once(u64::MAX, 0);
        let store = Store::builder(root).durability(Durability::Buffered);
        let store =
            store.checkpoint_interval(Duration::from_secs(3600)).disk(disk.clone()).open().unwrap();
        let topic = store.create_topic("t", config()).unwrap();
        let sent: Vec<AtomicI64> = (0..3).map(|_| AtomicI64::new(0)).collect();
        append_counting(&topic.partition(0).unwrap(), &store, &sent, 100);
        drop(topic);
        let topics = Arc::clone(store.topics_for_test());
        let outcome = in_the_middle(&store, &disk, n, || topics.close().unwrap());
        ended += usize::from(matches!(outcome, Err(crate::Error::Closed)));
        assert!(matches!(outcome, Ok(_) | Err(crate::Error::Closed)), "effect {n}: {outcome:?}");
        drop((topics, store));
        let report = inspect::check(root).unwrap();
        assert!(report.problems.is_empty(), "effect {n}: {:?}", report.problems);
        let store = Store::open(root).unwrap();
        assert!(store.health().findings.is_empty(), "effect {n}: {:?}", store.health());
        read_counting(&store.topic("t").unwrap().partition(0).unwrap(), &store, &sent, 9);
    }
    assert!(ended > 20, "{ended}");
}
