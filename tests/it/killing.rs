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
use ottla::TopicPartition;

use crate::chance;
use crate::read_only::Helper;
use crate::read_only::orders;
use crate::read_only::tell;
use crate::read_only::wait_for_parent;

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
    let stages = std::env::var("OTTLA_KILLED_DURABILITY").as_deref() == Ok("staged");
    let builder = store.producer_builder().durability(durability);
    let producer = if stages {
        builder.linger(Duration::from_micros(300)).batch_bytes(900).build()
    } else {
        builder.build()
    };
    thread::scope(|scope| {
        for writer in 0..THREADS {
            let (topic, producer) = (&topic, &producer);
            scope.spawn(move || {
                let mut pending = Vec::new();
                for n in 0_u64.. {
                    // Lengths vary, so that batches meet page and segment borders everywhere.
                    let value = format!("{writer}:{n}:{}", "x".repeat((n % 300) as usize));
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
                        let (partition, offset) = (sent.partition(), sent.offset());
                        // One write of one line: a pipe takes it whole, and before the next append.
                        let line = format!("@{partition} {offset} {writer} {n}\n");
                        std::io::stdout().write_all(line.as_bytes()).unwrap();
                    }
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
    let seed = chance::seed();
    println!("OTTLA_SEED={seed}");
    let mut chance = seed;
    let directory = tempfile::tempdir().unwrap();
    // Everything any life reported, by its place; a place keeps its record for ever.
    let mut kept: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
    let mut reported_count = 0;
    // A machine with other things to do: a life in which nothing was reported is followed by one that may last longer.
    let mut slowness = 1;
    for cycle in 0..cycles {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let micros = (5_000 + (chance >> 33) % 60_000) * slowness;
        let reported = killed_life(directory.path(), durability, micros);
        slowness = if reported.is_empty() { (2 * slowness).min(64) } else { (slowness / 2).max(1) };
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
            let found = values_of(&store, &partition, &what);
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
                let before = latest.insert(writer, n);
                let expected = before.map_or(u64::from(number), |n| n + u64::from(PARTITIONS));
                // No hole: what a kill takes is what was sent last.
                assert_eq!(n, expected, "{what}: {before:?} before {n}");
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
fn kills_lose_nothing_of_what_was_staged_and_then_flushed_or_waited_for() {
    storm("staged", CYCLES / 2);
}

/// What the child of the next test runs: appends, flushes, stages, tells, and waits for its end.
#[test]
fn child_that_stages_until_it_is_killed() {
    let Some((data, orders)) = orders() else { return };
    let store = Store::open(data).unwrap();
    let topic = store.topic_or_create("t", TopicConfig::new().partitions(2)).unwrap();
    let never = Duration::from_secs(3600);
    let producer = store.producer_builder().linger(never).batch_bytes(1000).build();
    let send = |value: &str, partition: u32| {
        producer.send(&topic, Record::new(value).partition(partition)).unwrap()
    };
    let mut deliveries = Vec::new();
    for n in 0..5 {
        deliveries.push(send(&format!("flushed {n}"), 0));
        deliveries.push(send(&format!("flushed {n}"), 1));
    }
    producer.flush().unwrap();
    deliveries.push(send("waited for", 0));
    drop(deliveries.pop().unwrap().wait().unwrap());
    // Sealed because the next did not fit.
    deliveries.push(send(&format!("full {}", "x".repeat(920)), 1));
    for n in 0..5 {
        deliveries.push(send(&format!("staged {n}"), 0));
        deliveries.push(send(&format!("staged {n}"), 1));
    }
    #[allow(clippy::exit, reason = "a child whose end is what is tested")]
    match orders.as_str() {
        "be killed" => {
            tell("ready");
            wait_for_parent();
        }
        "abort" => std::process::abort(),
        // With threads, stores and all: nothing is dropped.
        "exit" => std::process::exit(0),
        _ => {}
    }
}

#[test]
fn a_kill_an_abort_or_an_exit_takes_exactly_what_is_staged() {
    for orders in ["be killed", "abort", "exit", "return"] {
        let directory = tempfile::tempdir().unwrap();
        let test = "killing::child_that_stages_until_it_is_killed";
        let mut child = Helper::start(test, directory.path(), orders);
        if orders == "be killed" {
            assert_eq!(child.hear(), "ready");
            child.kill();
        } else {
            child.wait_for_the_end();
        }
        let store = Store::open(directory.path()).unwrap();
        assert!(store.health().is_good());
        let topic = store.topic("t").unwrap();
        for partition in topic.partitions() {
            let number = partition.partition();
            let mut expected: Vec<String> = (0..5).map(|n| format!("flushed {n}")).collect();
            let last = if number == 0 { "waited for".to_owned() } else { "full".to_owned() };
            expected.push(last);
            if orders == "return" {
                expected.extend((0..5).map(|n| format!("staged {n}")));
            }
            let mut consumer = store.consumer().assign([&partition]).unwrap();
            let records = consumer.poll(Duration::ZERO).unwrap();
            let text = |bytes: &[u8]| {
                String::from_utf8_lossy(bytes).trim_end_matches(['x', ' ']).to_owned()
            };
            let found: Vec<String> =
                records.iter().map(|message| text(message.value().unwrap())).collect();
            assert_eq!(found, expected, "{orders}, partition {number}");
        }
    }
}

#[test]
fn kills_lose_nothing_while_the_store_syncs_every_few_milliseconds() {
    storm("every", CYCLES / 4);
}

/// The values in a partition, whose offsets follow one another from the first on.
pub(crate) fn values_of(store: &Store, partition: &TopicPartition, what: &str) -> Vec<Vec<u8>> {
    let mut consumer = store.consumer().max_poll_records(100_000).assign([partition]).unwrap();
    let mut found = Vec::new();
    loop {
        let records = consumer.poll(Duration::ZERO).unwrap();
        if records.is_empty() {
            return found;
        }
        for message in &records {
            assert_eq!(message.offset(), found.len() as i64, "{what}: a hole");
            found.push(message.value().unwrap().to_vec());
        }
    }
}
