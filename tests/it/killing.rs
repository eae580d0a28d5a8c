//! A real process, killed for real, again and again: nothing it was told is lost.
//!
//! The child is this test binary. It appends on several threads and reports every offset it was given
//! through a pipe, one line a record, before it appends the next. The parent kills it at a random moment,
//! opens the directory, and compares.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that fails should say where"
)]

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use ottla::Durability;
use ottla::Finding;
use ottla::Record;
use ottla::Store;
use ottla::TopicConfig;

const THREADS: u32 = 3;
const PARTITIONS: u32 = 2;
const CYCLES: u32 = 100;

/// What the child runs; does nothing in an ordinary run of the tests.
#[test]
fn child_that_appends_until_it_is_killed() {
    let Ok(directory) = std::env::var("OTTLA_KILLED_CHILD") else { return };
    let durability = match std::env::var("OTTLA_KILLED_DURABILITY").as_deref() {
        Ok("synced") => Durability::Synced,
        Ok("every") => Durability::Every(Duration::from_millis(2)),
        _ => Durability::Buffered,
    };
    let store = Store::open(directory).unwrap();
    let config = TopicConfig::new().partitions(PARTITIONS).segment_bytes(32 << 10);
    let topic = store.topic_or_create("t", config).unwrap();
    let producer = store.producer_builder().durability(durability).build();
    thread::scope(|scope| {
        for writer in 0..THREADS {
            let (topic, producer) = (&topic, &producer);
            scope.spawn(move || {
                for n in 0_u64.. {
                    // Lengths vary, so that batches meet page and segment borders everywhere.
                    let value = format!("{writer}:{n}:{}", "x".repeat((n % 300) as usize));
                    let record = Record::new(&value).partition((n % u64::from(PARTITIONS)) as u32);
                    let sent = producer.send(topic, record).unwrap().wait().unwrap();
                    // One write of one line: a pipe takes it whole, and before the next append.
                    let line = format!("@{} {} {writer} {n}\n", sent.partition(), sent.offset());
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                }
            });
        }
    });
}

type Reported = BTreeMap<(u32, i64), (u32, u64)>;

/// Runs a child for a while, kills it, and gives what it said it had appended.
fn killed_life(directory: &std::path::Path, durability: &str, micros: u64) -> Reported {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killing::child_that_appends_until_it_is_killed", "--nocapture"])
        .env("OTTLA_KILLED_CHILD", directory)
        .env("OTTLA_KILLED_DURABILITY", durability)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let mut reported = Reported::new();
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        // A line without its end was never written whole: the child died in it.
        while stdout.read_line(&mut line).unwrap_or(0) > 0 && line.ends_with('\n') {
            if let Some((_, fields)) = line.trim_end().rsplit_once('@') {
                let numbers: Vec<u64> = fields.split(' ').map(|n| n.parse().unwrap()).collect();
                let place = (numbers[0] as u32, numbers[1] as i64);
                let before = reported.insert(place, (numbers[2] as u32, numbers[3]));
                assert!(before.is_none(), "{place:?} was given out twice");
            }
            line.clear();
        }
        reported
    });
    thread::sleep(Duration::from_micros(micros));
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

fn storm(durability: &str, cycles: u32) {
    let seed = std::env::var("OTTLA_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| std::hash::RandomState::new().hash_one(0));
    println!("OTTLA_SEED={seed}");
    let mut chance = seed;
    let directory = tempfile::tempdir().unwrap();
    // Everything any life reported, by its place; a place keeps its record for ever.
    let mut kept: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
    let mut reported_count = 0;
    for cycle in 0..cycles {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let reported = killed_life(directory.path(), durability, 5_000 + (chance >> 33) % 60_000);
        reported_count += reported.len();
        let what = format!("OTTLA_SEED={seed} {durability} cycle {cycle}");

        let store = Store::open(directory.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let damage = |finding: &&Finding| !matches!(finding, Finding::Cut { .. });
        let findings = store.health().findings;
        assert_eq!(findings.iter().find(damage), None, "{what}");
        let Ok(topic) = store.topic("t") else {
            assert!(reported.is_empty(), "{what}: the topic is gone");
            continue;
        };
        for partition in topic.partitions() {
            let number = partition.partition();
            let kept = kept.entry(number).or_default();
            let mut consumer =
                store.consumer().max_poll_records(10_000).assign([&partition]).unwrap();
            let mut found = Vec::new();
            loop {
                let records = consumer.poll(Duration::ZERO).unwrap();
                if records.is_empty() {
                    break;
                }
                for message in &records {
                    assert_eq!(message.offset(), found.len() as i64, "{what}: a hole");
                    found.push(message.value().unwrap().to_vec());
                }
            }
            assert!(found.len() >= kept.len(), "{what}: the log got shorter");
            assert!(found[..kept.len()] == kept[..], "{what}: the past has changed");
            for ((_, offset), (writer, n)) in reported.range((number, 0)..=(number, i64::MAX)) {
                let prefix = format!("{writer}:{n}:");
                let value = found.get(*offset as usize);
                let is_there = value.is_some_and(|value| value.starts_with(prefix.as_bytes()));
                assert!(is_there, "{what}: {number}@{offset} should be {prefix}, not {value:?}");
            }
            // Each thread's records of this life, in the order it sent them, each once.
            let mut latest: BTreeMap<&[u8], u64> = BTreeMap::new();
            for value in &found[kept.len()..] {
                let mut fields = value.split(|byte| *byte == b':');
                let writer = fields.next().unwrap();
                let n = std::str::from_utf8(fields.next().unwrap()).unwrap().parse().unwrap();
                if let Some(before) = latest.insert(writer, n) {
                    assert!(before < n, "{what}: {before} before {n}");
                }
            }
            *kept = found;
        }
    }
    println!("{durability}: {cycles} kills, {reported_count} records reported, none lost");
    assert!(reported_count > cycles as usize, "the children hardly ran: {reported_count}");
}

#[test]
fn a_hundred_kills_lose_nothing_that_send_returned() {
    storm("buffered", CYCLES);
}

#[test]
fn kills_lose_nothing_that_was_acknowledged_as_durable() {
    storm("synced", CYCLES / 4);
}

#[test]
fn kills_lose_nothing_while_the_store_syncs_every_few_milliseconds() {
    storm("every", CYCLES / 4);
}
