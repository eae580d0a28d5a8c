//! A group whose process is killed, again and again, while its members read, commit, come and go.
//!
//! The child is this test binary. Its members report through a pipe what they were handed before they commit it, and
//! each commit after it returned. The parent kills it at a random moment, opens the directory, and compares: no commit
//! that was reported is gone, and what is on record never stands for a record that nobody was handed.
//!
//! The seed is printed; `OTTLA_SEED` plays it again as far as threads do, and `OTTLA_KILLS` sets how often.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that fails should say where"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::Duration;

use ottla::Durability;
use ottla::Finding;
use ottla::OffsetAndMetadata;
use ottla::Record;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;

use crate::chance;
use crate::chance::Chance;
use crate::chance::told;
use crate::killed_child::positions;
use crate::killed_child::tell;
use crate::killed_child::told_before_it_was_killed;

const GROUP: &str = "g";
const MEMBERS: u64 = 3;
const PARTITIONS: u32 = 4;
const KILLS: u32 = 20;

/// What the child runs; does nothing in an ordinary run of the tests.
#[test]
fn child_whose_members_work_until_it_is_killed() {
    let Ok(directory) = std::env::var("OTTLA_KILLED_GROUP") else { return };
    let seed: u64 = std::env::var("OTTLA_KILLED_SEED").unwrap().parse().unwrap();
    let store = Store::builder(directory).durability(Durability::Buffered).open().unwrap();
    let config = TopicConfig::new().partitions(PARTITIONS).segment_bytes(32 << 10);
    let topic = store.topic_or_create("t", config).unwrap();
    thread::scope(|scope| {
        let (store, topic) = (&store, &topic);
        scope.spawn(move || {
            let producer = store.producer();
            loop {
                for partition in topic.partitions() {
                    drop(producer.send_batch(&partition, ["v"; 5].map(Record::new)).unwrap());
                }
                thread::sleep(Duration::from_micros(300));
            }
        });
        for number in 0..MEMBERS {
            scope.spawn(move || {
                let mut chance = Chance(seed.wrapping_add(number * 7919) | 1);
                loop {
                    work(store, topic, number, &mut chance);
                }
            });
        }
    });
}

/// One membership, from its beginning to its end.
fn work(store: &Store, topic: &Topic, number: u64, chance: &mut Chance) {
    let mut builder = store
        .consumer()
        .max_poll_records(1 + chance.below(40) as usize)
        .commit_on_close(chance.below(2) == 0);
    if number == 0 {
        builder = builder.instance_id("static");
    }
    let commits_by_itself = chance.below(4) == 0;
    if commits_by_itself {
        builder = builder.auto_commit(Duration::from_millis(1));
    }
    let mut consumer = builder.subscribe(GROUP, topic).unwrap();
    for _ in 0..chance.below(60) {
        let records = consumer.poll(Duration::from_millis(1)).unwrap();
        let mut handed_out: BTreeMap<u32, (i64, i64)> = BTreeMap::new();
        for message in &records {
            let offset = message.offset();
            let range = handed_out.entry(message.partition()).or_insert((offset, offset));
            assert!(range.0 == offset || range.1 == offset, "{offset} behind {range:?}");
            range.1 = offset + 1;
        }
        for (partition, (from, end)) in handed_out {
            tell(&format!("d {partition} {from} {end}"));
        }
        drop(records);
        match chance.below(6) {
            0 => {
                let positions = positions(&consumer);
                consumer.commit().unwrap();
                positions.iter().for_each(|(p, offset)| tell(&format!("c {p} {offset} 0")));
            }
            1 => {
                let held: Vec<_> = consumer.assignment().cloned().collect();
                let positions = positions(&consumer);
                let note = "n".repeat(chance.below(1_000) as usize);
                let noted = held.iter().zip(&positions).map(|(partition, (_, offset))| {
                    (partition, OffsetAndMetadata::new(*offset).with_metadata(&note))
                });
                consumer.commit_offsets(noted).unwrap();
                positions.iter().for_each(|(p, offset)| tell(&format!("c {p} {offset} 0")));
            }
            2..=3 => consumer.commit_async().unwrap(),
            _ => {}
        }
    }
    if chance.below(2) == 0 {
        consumer.close().unwrap();
    }
}

/// What is known of a partition from outside.
#[derive(Default)]
struct Known {
    /// Whether each offset was handed out, by any life.
    handed_out: Vec<bool>,
    /// The greatest offset whose commit was reported.
    acknowledged: i64,
}

impl Known {
    fn note_handed_out(&mut self, from: i64, end: i64) {
        let len = self.handed_out.len().max(end as usize);
        self.handed_out.resize(len, false);
        self.handed_out[from as usize..end as usize].fill(true);
    }
}

/// Runs a child for a while, kills it, and notes what it reported.
fn killed_life(directory: &Path, known: &mut BTreeMap<u32, Known>, seed: u64, micros: u64) -> u32 {
    let environment = [
        ("OTTLA_KILLED_GROUP", directory.to_str().unwrap().to_owned()),
        ("OTTLA_KILLED_SEED", seed.to_string()),
    ];
    let child = "groups_killed::child_whose_members_work_until_it_is_killed";
    let mut commits = 0;
    for (kind, numbers) in told_before_it_was_killed(child, &environment, micros) {
        let known = known.entry(numbers[0] as u32).or_default();
        if kind == "c" {
            known.acknowledged = known.acknowledged.max(numbers[1]);
            commits += 1;
        } else {
            known.note_handed_out(numbers[1], numbers[2]);
        }
    }
    commits
}

/// Opens what a killed life left; gives what the group has on record of each partition.
fn check(store: &Store, known: &BTreeMap<u32, Known>, what: &str) -> Vec<i64> {
    let group = store.group(GROUP).unwrap();
    let is_damage = |finding: &&Finding| !matches!(finding, Finding::Cut { .. });
    let on_record = match group.offsets() {
        Ok(offsets) => offsets,
        Err(ottla::Error::UnknownGroup { .. }) => Vec::new(),
        Err(other) => panic!("{what}: {other}"),
    };
    let findings = store.health().findings;
    assert_eq!(findings.iter().find(is_damage), None, "{what}");
    let mut committed = vec![0; PARTITIONS as usize];
    for (_, partition, noted) in on_record {
        committed[partition as usize] = noted.offset();
    }
    let nothing = Known::default();
    for (partition, offset) in (0..).zip(&committed) {
        let known = known.get(&partition).unwrap_or(&nothing);
        let acknowledged = known.acknowledged;
        assert!(*offset >= acknowledged, "{what}: {partition} at {offset}, not {acknowledged}");
        let end = store.topic("t").unwrap().partition(partition).unwrap().watermarks().unwrap().1;
        assert!(*offset <= end, "{what}: {partition} at {offset}, ahead of {end}");
        let passed = (0..*offset as usize).find(|at| known.handed_out.get(*at) != Some(&true));
        assert_eq!(passed, None, "{what}: {partition} at {offset} skips a record");
    }
    committed
}

#[test]
fn kills_take_no_commit_that_had_returned_and_make_a_group_skip_nothing() {
    let seed = chance::seed();
    println!("OTTLA_SEED={seed}");
    let kills = told("OTTLA_KILLS").map_or(KILLS, |kills| kills as u32);
    let mut chance = Chance(seed | 1);
    let directory = tempfile::tempdir().unwrap();
    let mut known: BTreeMap<u32, Known> = BTreeMap::new();
    let mut commits = 0;
    // A machine with other things to do: a life without a commit is followed by one that may last longer.
    let mut slowness = 1;
    for kill in 0..kills {
        let micros = (5_000 + chance.below(90_000)) * slowness;
        let life = killed_life(directory.path(), &mut known, chance.below(u64::MAX), micros);
        slowness = if life == 0 { (2 * slowness).min(64) } else { (slowness / 2).max(1) };
        commits += life;
        let what = format!("OTTLA_SEED={seed}, kill {kill}");
        let store = Store::open(directory.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
        if store.topic("t").is_err() {
            assert!(known.is_empty(), "{what}: the topic is gone");
            continue;
        }
        check(&store, &known, &what);
    }
    assert!(commits > kills / 4, "the children hardly committed: {commits}");
    // The rest comes to one that is not killed: from where the group stopped, each once, to the end.
    let store = Store::open(directory.path()).unwrap();
    let topic = store.topic("t").unwrap();
    let committed = check(&store, &known, "at the end");
    let mut at = committed.clone();
    let mut consumer = store.consumer().max_poll_records(10_000).subscribe(GROUP, &topic).unwrap();
    loop {
        let records = consumer.poll(Duration::ZERO).unwrap();
        if records.is_empty() {
            break;
        }
        for message in &records {
            let next = &mut at[message.partition() as usize];
            assert_eq!(message.offset(), *next);
            *next += 1;
            let known = known.entry(message.partition()).or_default();
            known.note_handed_out(message.offset(), message.offset() + 1);
        }
    }
    for partition in topic.partitions() {
        let end = partition.watermarks().unwrap().1;
        let known = &known[&partition.partition()];
        assert_eq!(at[partition.partition() as usize], end);
        assert_eq!(known.handed_out.len() as i64, end);
        assert!(known.handed_out.iter().all(|was| *was), "a record was never handed out");
    }
    let sum: i64 = committed.iter().sum();
    println!("{kills} kills, {commits} commits reported, {sum} records committed, none lost");
}
