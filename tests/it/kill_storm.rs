//! A process with everything going on at once, killed at random moments, again and again.
//!
//! The child is this test binary. One thread for each level of durability appends, each record to one of several
//! partitions that roll all the time; another keeps writing the same few keys to a topic that two more roll and
//! compact; two members of a group read and commit in every way there is. Everything that was acknowledged is told
//! through a pipe before the next thing is done. The parent kills the child, opens the directory, and compares:
//!
//! * what was acknowledged is there, at its offset, byte for byte; what was there before is unchanged;
//! * of each thread the records of a life are there in order, each once, without a hole;
//! * of each key the latest record that was acknowledged is there, or a later one; nothing is there that was not sent;
//! * no commit is behind an acknowledged one, ahead of its log, or beyond a record that nobody was handed;
//! * a check of the directory finds nothing.
//!
//! The seed is printed; `OTTLA_SEED` plays it again as far as threads do, `OTTLA_KILLS` sets how often. A directory
//! lives through twenty-five kills, then another takes its place. Where it lies `TMPDIR` says.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that fails should say where"
)]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ottla::Durability;
use ottla::Error;
use ottla::Finding;
use ottla::Record;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;
use ottla::TopicPartition;
use ottla::inspect;

use crate::chance;
use crate::chance::Chance;
use crate::chance::told;
use crate::killed_child::positions;
use crate::killed_child::tell;
use crate::killed_child::told_before_it_was_killed;
use crate::killing::values_of;

const PARTITIONS: u32 = 3;
const KEYS: u64 = 7;
const GROUP: &str = "g";
const KILLS: u64 = 10;
const KILLS_OF_ONE_DIRECTORY: u64 = 25;

/// Each thread that appends has a level of its own; the last one stages.
const LEVELS: [Durability; 4] = [
    Durability::Buffered,
    Durability::Every(Duration::from_millis(2)),
    Durability::Synced,
    Durability::Buffered,
];
const STAGES: usize = 3;

fn open(root: &Path) -> ottla::Result<Store> {
    // Compaction is asked for.
    Store::builder(root).cleaner_enable(false).open()
}

/// What the child runs; does nothing in an ordinary run of the tests.
#[test]
fn child_that_does_everything_until_it_is_killed() {
    let Ok(directory) = std::env::var("OTTLA_STORM_CHILD") else { return };
    let seed: u64 = std::env::var("OTTLA_STORM_SEED").unwrap().parse().unwrap();
    let life: u64 = std::env::var("OTTLA_STORM_LIFE").unwrap().parse().unwrap();
    let store = open(Path::new(&directory)).unwrap();
    let config = TopicConfig::new().partitions(PARTITIONS).segment_bytes(16 << 10);
    let plain = store.topic_or_create("plain", config).unwrap();
    let config = TopicConfig::new().segment_bytes(4 << 10).set("cleanup.policy", "compact");
    let keyed = store.topic_or_create("keyed", config.unwrap()).unwrap();
    thread::scope(|scope| {
        let (store, plain, keyed) = (&store, &plain, &keyed);
        for writer in 0..LEVELS.len() {
            scope.spawn(move || append(store, plain, writer, life));
        }
        scope.spawn(move || write_keys(store, keyed, life));
        scope.spawn(move || {
            loop {
                match keyed.compact() {
                    Ok(_) => thread::sleep(Duration::from_micros(500)),
                    Err(error) => panic!("{error}"),
                }
            }
        });
        for number in 0..2_u64 {
            scope.spawn(move || {
                let mut chance = Chance(seed.wrapping_add(number * 7919) | 1);
                loop {
                    be_a_member(store, plain, &mut chance);
                }
            });
        }
    });
}

fn append(store: &Store, topic: &Topic, writer: usize, life: u64) {
    let builder = store.producer_builder().durability(LEVELS[writer]);
    let stages = writer == STAGES;
    let producer = if stages {
        builder.linger(Duration::from_micros(300)).batch_bytes(900).build()
    } else {
        builder.build()
    };
    let mut pending = Vec::new();
    for n in 0_u64.. {
        // Lengths vary, so that batches meet page and segment borders everywhere.
        let value = format!("{life}:{writer}:{n}:{}", "x".repeat((n * 7 % 300) as usize));
        let record = Record::new(&value).partition((n % u64::from(PARTITIONS)) as u32);
        pending.push((n, producer.send(topic, record).unwrap()));
        if stages && n % 17 != 16 {
            continue;
        }
        if stages && n % 2 == 0 {
            producer.flush().unwrap();
        }
        for (n, delivery) in pending.drain(..) {
            let sent = delivery.wait().unwrap();
            tell(&format!("a {} {} {writer} {n}", sent.partition(), sent.offset()));
        }
    }
}

fn write_keys(store: &Store, topic: &Topic, life: u64) {
    let producer = store.producer();
    for n in 0_u64.. {
        let (key, value) = (format!("k{}", n * n % KEYS), format!("{life}:{n}"));
        let record = Record::new(&value).key(key.as_str());
        let sent = producer.send(topic, record).unwrap().wait().unwrap();
        tell(&format!("k {} {} {life} {n}", sent.offset(), n * n % KEYS));
    }
}

/// One membership, from its beginning to its end.
fn be_a_member(store: &Store, topic: &Topic, chance: &mut Chance) {
    let mut builder = store
        .consumer()
        .max_poll_records(1 + chance.below(60) as usize)
        .commit_on_close(chance.below(2) == 0);
    if chance.below(4) == 0 {
        builder = builder.auto_commit(Duration::from_millis(1));
    }
    let mut consumer = builder.subscribe(GROUP, topic).unwrap();
    for _ in 0..chance.below(80) {
        let records = consumer.poll(Duration::from_millis(1)).unwrap();
        let mut handed_out: BTreeMap<u32, (i64, i64)> = BTreeMap::new();
        for message in &records {
            let offset = message.offset();
            let range = handed_out.entry(message.partition()).or_insert((offset, offset));
            assert!(range.0 == offset || range.1 == offset, "{offset} behind {range:?}");
            range.1 = offset + 1;
        }
        for (partition, (from, end)) in handed_out {
            tell(&format!("d {partition} {from} {end} 0"));
        }
        drop(records);
        match chance.below(6) {
            0 => {
                let positions = positions(&consumer);
                consumer.commit().unwrap();
                positions.iter().for_each(|(p, offset)| tell(&format!("c {p} {offset} 0 0")));
            }
            1..=2 => consumer.commit_async().unwrap(),
            _ => {}
        }
    }
    if chance.below(2) == 0 {
        consumer.close().unwrap();
    }
}

/// What one life said of itself.
#[derive(Default)]
struct Told {
    /// By partition and offset: writer and number.
    appended: BTreeMap<(u32, i64), (u64, u64)>,
    /// By offset: key and number.
    keyed: BTreeMap<i64, (u64, u64)>,
    handed_out: Vec<(u32, i64, i64)>,
    committed: Vec<(u32, i64)>,
}

/// Runs a child for a while, kills it, and gives what it said.
fn killed_life(directory: &Path, seed: u64, life: u64, micros: u64) -> Told {
    let environment = [
        ("OTTLA_STORM_CHILD", directory.to_str().unwrap().to_owned()),
        ("OTTLA_STORM_SEED", seed.to_string()),
        ("OTTLA_STORM_LIFE", life.to_string()),
    ];
    let child = "kill_storm::child_that_does_everything_until_it_is_killed";
    let mut told = Told::default();
    for (kind, n) in told_before_it_was_killed(child, &environment, micros) {
        match kind.as_str() {
            "a" => {
                let sent = (n[2] as u64, n[3] as u64);
                let before = told.appended.insert((n[0] as u32, n[1]), sent);
                assert!(before.is_none(), "{kind} {n:?} was given out twice");
            }
            "k" => {
                let before = told.keyed.insert(n[0], (n[1] as u64, n[3] as u64));
                assert!(before.is_none(), "{kind} {n:?} was given out twice");
            }
            "d" => told.handed_out.push((n[0] as u32, n[1], n[2])),
            _ => told.committed.push((n[0] as u32, n[1])),
        }
    }
    told
}

/// What is known of one directory from outside.
#[derive(Default)]
struct Known {
    /// What was found in each partition; it stays for ever.
    kept: BTreeMap<u32, Vec<Vec<u8>>>,
    /// The records with keys that were found or acknowledged, by offset: key and value.
    keyed: BTreeMap<i64, (String, String)>,
    /// So far the log of them reached.
    keyed_end: i64,
    /// Of each partition, which offsets some member was handed, and the greatest commit that was acknowledged.
    handed_out: BTreeMap<u32, BTreeSet<i64>>,
    committed: BTreeMap<u32, i64>,
}

#[derive(Default)]
struct Counts {
    appended: usize,
    keyed: usize,
    commits: usize,
    slowest_open: Duration,
}

impl Known {
    fn take(&mut self, told: &Told, life: u64) {
        for (offset, (key, n)) in &told.keyed {
            self.keyed.insert(*offset, (format!("k{key}"), format!("{life}:{n}")));
        }
        for (partition, from, end) in &told.handed_out {
            self.handed_out.entry(*partition).or_default().extend(*from..*end);
        }
        for (partition, offset) in &told.committed {
            let latest = self.committed.entry(*partition).or_default();
            *latest = (*latest).max(*offset);
        }
    }

    fn check(&mut self, store: &Store, told: &Told, life: u64, what: &str) {
        let damage = |finding: &&Finding| !matches!(finding, Finding::Cut { .. });
        assert_eq!(store.health().findings.iter().find(damage), None, "{what}");
        match store.topic("plain") {
            Ok(topic) => {
                for partition in topic.partitions() {
                    self.check_appended(store, &partition, told, life, what);
                }
            }
            Err(_) => assert!(told.appended.is_empty() && self.kept.is_empty(), "{what}: gone"),
        }
        match store.topic("keyed") {
            Ok(topic) => self.check_keyed(store, &topic.partition(0).unwrap(), life, what),
            Err(_) => assert!(self.keyed.is_empty(), "{what}: the topic with keys is gone"),
        }
        self.check_commits(store, what);
        // What is on record of a group has been looked at only now.
        assert_eq!(store.health().findings.iter().find(damage), None, "{what}");
    }

    fn check_appended(
        &mut self,
        store: &Store,
        partition: &TopicPartition,
        told: &Told,
        life: u64,
        what: &str,
    ) {
        let number = partition.partition();
        let kept = self.kept.entry(number).or_default();
        let found = values_of(store, partition, what);
        assert!(found.len() >= kept.len(), "{what}: the log got shorter");
        assert!(found[..kept.len()] == kept[..], "{what}: the past has changed");
        for ((_, offset), (writer, n)) in told.appended.range((number, 0)..=(number, i64::MAX)) {
            let prefix = format!("{life}:{writer}:{n}:");
            let value = found.get(*offset as usize);
            let is_there = value.is_some_and(|value| value.starts_with(prefix.as_bytes()));
            assert!(is_there, "{what}: {number}@{offset} should be {prefix}, not {value:?}");
        }
        let mut latest: BTreeMap<u64, u64> = BTreeMap::new();
        for value in &found[kept.len()..] {
            let text = std::str::from_utf8(value).unwrap();
            let mut fields = text.split(':');
            let mut number_of = || fields.next().unwrap().parse::<u64>().unwrap();
            let (of_life, writer, n) = (number_of(), number_of(), number_of());
            assert_eq!(of_life, life, "{what}: {number} shows a record of another life");
            let rest = fields.next().unwrap();
            assert!(rest.len() == (n * 7 % 300) as usize && rest.bytes().all(|b| b == b'x'));
            let before = latest.insert(writer, n);
            let expected = before.map_or(u64::from(number), |n| n + u64::from(PARTITIONS));
            // No hole, and none twice: what a kill takes is what was sent last.
            assert_eq!(n, expected, "{what}: {before:?} before {n} of {writer}");
        }
        *kept = found;
    }

    fn check_keyed(&mut self, store: &Store, partition: &TopicPartition, life: u64, what: &str) {
        let (_, end) = partition.watermarks().unwrap();
        assert!(end >= self.keyed_end, "{what}: the log of keys got shorter");
        let acknowledged = self.keyed.keys().next_back().map_or(0, |offset| offset + 1);
        assert!(end >= acknowledged, "{what}: {acknowledged} acknowledged, it ends at {end}");
        let mut consumer = store.consumer().max_poll_records(100_000).assign([partition]).unwrap();
        let mut found: BTreeMap<i64, (String, String)> = BTreeMap::new();
        loop {
            let records = consumer.poll(Duration::ZERO).unwrap();
            if records.is_empty() {
                break;
            }
            for message in &records {
                let text = |bytes: Option<&[u8]>| {
                    String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap()
                };
                let record = (text(message.key()), text(message.value()));
                let later = found.keys().next_back().is_none_or(|last| *last < message.offset());
                assert!(later && message.offset() < end, "{what}: offsets do not ascend");
                found.insert(message.offset(), record);
            }
        }
        let order = |value: &str| {
            let (life, n) = value.split_once(':').unwrap();
            (life.parse::<u64>().unwrap(), n.parse::<u64>().unwrap())
        };
        let mut latest: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (offset, record @ (key, value)) in &found {
            let is_new = *offset >= self.keyed_end && order(value).0 == life;
            let known = self.keyed.get(offset);
            let is_known = known.map_or(is_new, |known| known == record);
            assert!(is_known, "{what}: {record:?} at {offset}, where {known:?} was");
            let before = latest.insert(key, order(value));
            assert!(before < Some(order(value)), "{what}: {record:?} behind {before:?}");
        }
        // Of each key the latest that was acknowledged is there, or one that came later.
        for (offset, (key, value)) in &self.keyed {
            let is_there = found.contains_key(offset);
            let superseded = latest.get(key.as_str()).is_some_and(|found| *found > order(value));
            assert!(is_there || superseded, "{what}: {key}={value} at {offset} is missing");
        }
        self.keyed_end = end;
        self.keyed = found;
    }

    fn check_commits(&self, store: &Store, what: &str) {
        let on_record = match store.group(GROUP).unwrap().offsets() {
            Ok(offsets) => offsets,
            Err(Error::UnknownGroup { .. }) => Vec::new(),
            Err(other) => panic!("{what}: {other}"),
        };
        let mut left = self.committed.clone();
        for (topic, partition, noted) in on_record {
            let offset = noted.offset();
            let acknowledged = left.remove(&partition).unwrap_or(0);
            assert!(offset >= acknowledged, "{what}: {partition} at {offset}, not {acknowledged}");
            let partition = store.topic(&topic).unwrap().partition(partition).unwrap();
            let end = partition.watermarks().unwrap().1;
            assert!(offset <= end, "{what}: committed {offset}, ahead of {end}");
            let handed_out = self.handed_out.get(&partition.partition());
            let is_passed = |at: &i64| !handed_out.is_some_and(|offsets| offsets.contains(at));
            let passed = (0..offset).find(is_passed);
            assert_eq!(passed, None, "{what}: a commit of {offset} skips a record");
        }
        left.retain(|_, offset| *offset > 0);
        assert!(left.is_empty(), "{what}: commits of {left:?} are gone");
    }
}

/// So many kills of one directory, or fewer.
fn storm(chance: &mut Chance, kills: u64, slowness: &mut u64, counts: &mut Counts, what: &str) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    let mut known = Known::default();
    for life in 0..kills {
        let micros = (5_000 + chance.below(60_000)) * *slowness;
        let told = killed_life(&root, chance.below(u64::MAX), life, micros);
        // A machine with other things to do: a life in which nothing was done is followed by one that may last longer.
        let is_idle = told.appended.is_empty() || told.keyed.is_empty();
        *slowness = if is_idle { (2 * *slowness).min(64) } else { (*slowness / 2).max(1) };
        counts.appended += told.appended.len();
        counts.keyed += told.keyed.len();
        counts.commits += told.committed.len();
        let what = format!("{what}, life {life}");
        known.take(&told, life);
        let begun = Instant::now();
        let store = open(&root).unwrap_or_else(|error| panic!("{what}: {error}"));
        counts.slowest_open = counts.slowest_open.max(begun.elapsed());
        known.check(&store, &told, life, &what);
        store.close().unwrap();
        let problems = inspect::check(&root).unwrap().problems;
        assert!(problems.is_empty(), "{what}: {problems:?}");
    }
}

#[test]
fn kills_lose_nothing_when_everything_goes_on_at_once() {
    let seed = chance::seed();
    println!("OTTLA_SEED={seed}");
    let kills = told("OTTLA_KILLS").unwrap_or(KILLS);
    let mut chance = Chance(seed | 1);
    let (mut counts, mut slowness, mut done) = (Counts::default(), 1, 0);
    // On a machine that is busy the first lives may be too short for anything.
    while done < kills || counts.appended == 0 || counts.keyed == 0 {
        let next = (kills.saturating_sub(done)).clamp(1, KILLS_OF_ONE_DIRECTORY);
        let what = format!("OTTLA_SEED={seed}, kills from {done} on");
        storm(&mut chance, next, &mut slowness, &mut counts, &what);
        done += next;
    }
    let Counts { appended, keyed, commits, slowest_open } = counts;
    println!(
        "{done} kills: {appended} records, {keyed} with keys, {commits} commits acknowledged, none lost; \
         opened in {slowest_open:?} at most"
    );
}
