//! What happens when the process runs out of file descriptors or address space: what is idle is let go of, and
//! where that is not enough, errors, and nothing lost.
//!
//! Each test runs itself again under a shell's `ulimit`, which the rest of the suite must not suffer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails should say where")]

use std::fs::File;
use std::process::Command;
use std::time::Duration;

use ottla::Durability;
use ottla::Error;
use ottla::Record;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;

pub(crate) fn run_again_under(limit: &str, inner: &str) {
    let output = Command::new("sh")
        .args([
            "-c",
            "ulimit $OTTLA_LIMIT && exec \"$OTTLA_TEST\" --exact \"$OTTLA_INNER\" --nocapture",
        ])
        .env("OTTLA_LIMIT", limit)
        .env("OTTLA_TEST", std::env::current_exe().unwrap())
        .env("OTTLA_INNER", inner)
        .env("OTTLA_LIMITED", "1")
        // One test thread: the limit is for what the test does, not for its harness.
        .env("RUST_TEST_THREADS", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

pub(crate) fn is_limited() -> bool {
    std::env::var_os("OTTLA_LIMITED").is_some()
}

/// Appends to one topic after the other, again and again, each of which needs a descriptor and a mapping of its
/// own, of which there are not enough for all; then checks that nothing was refused and all of it is there.
fn append_in_turn_and_read(store: &Store, topics: &[Topic]) {
    const ROUNDS: usize = 3;
    let producer = store.producer_builder().durability(Durability::Buffered).build();
    for round in 0..ROUNDS {
        for topic in topics {
            let sent = producer.send(topic, &format!("{} {round}", topic.name()));
            sent.unwrap_or_else(|error| panic!("{}, round {round}: {error}", topic.name()));
        }
    }
    for topic in topics {
        let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
        let records = consumer.poll(Duration::ZERO).unwrap();
        let found: Vec<_> = records.iter().map(|m| m.value().unwrap().to_vec()).collect();
        let sent: Vec<_> =
            (0..ROUNDS).map(|r| format!("{} {r}", topic.name()).into_bytes()).collect();
        assert_eq!(found, sent);
    }
    assert!(store.health().findings.is_empty(), "{:?}", store.health());
}

#[test]
fn more_logs_than_descriptors_are_appended_to_and_read() {
    run_again_under("-n 40", "limits::inner_with_few_descriptors");
}

#[test]
fn inner_with_few_descriptors() {
    if !is_limited() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for life in 0..2 {
        let store = Store::open(directory.path()).unwrap();
        let name = |n: u32| format!("t{life}-{n}");
        let topics: Vec<Topic> =
            (0..60).map(|n| store.create_topic(&name(n), TopicConfig::new()).unwrap()).collect();
        append_in_turn_and_read(&store, &topics);
        drop(topics);
        // Closing needs descriptors too.
        store.close().unwrap();
    }
    let store = Store::open(directory.path()).unwrap();
    assert!(store.health().findings.is_empty(), "{:?}", store.health());
    for topic in store.topics().unwrap() {
        assert_eq!(topic.partition(0).unwrap().watermarks().unwrap(), (0, 3), "{}", topic.name());
    }
}

#[test]
fn more_logs_than_the_address_space_has_room_for_are_appended_to_and_read() {
    run_again_under("-v 2000000", "limits::inner_with_little_address_space");
}

#[test]
fn inner_with_little_address_space() {
    if !is_limited() {
        return;
    }
    let store = Store::temporary().unwrap();
    // A live segment maps its whole size ahead of time, written or not.
    let config = |segment_bytes| TopicConfig::new().segment_bytes(segment_bytes);
    let create = |n: u32| store.create_topic(&format!("t{n}"), config(512 << 20)).unwrap();
    let topics: Vec<Topic> = (0..10).map(create).collect();
    append_in_turn_and_read(&store, &topics);
    // Where letting go of everything is not enough it is an error, and nothing is lost.
    let large: Vec<Topic> = (0..2)
        .map(|n| store.create_topic(&format!("large{n}"), config(2_000_000_000)).unwrap())
        .collect();
    let producer = store.producer();
    let kept = store.consumer().assign(topics[0].partitions()).unwrap().poll(Duration::ZERO);
    let refused: Vec<Error> =
        large.iter().cycle().take(4).filter_map(|t| producer.send(t, "large").err()).collect();
    for error in &refused {
        assert!(matches!(error, Error::Io { action: "map", .. }), "{error}");
        assert!(error.is_retriable());
    }
    assert_eq!(refused.len(), 4);
    assert_eq!(kept.unwrap().count(), 3);
    append_in_turn_and_read(&store, &(20..30).map(create).collect::<Vec<_>>());
}

#[test]
fn running_out_of_file_descriptors_is_an_error_and_loses_nothing() {
    run_again_under("-n 40", "limits::inner_without_descriptors");
}

#[test]
fn inner_without_descriptors() {
    if !is_limited() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    {
        let store = Store::open(directory.path()).unwrap();
        let topic = store.create_topic("t", TopicConfig::new().partitions(3)).unwrap();
        let producer = store.producer();
        let send = |number| producer.send(&topic, Record::new("value").partition(number));
        send(0).unwrap().wait().unwrap();
        // The host takes all there are.
        let mut taken: Vec<File> = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            taken.push(file);
        }
        assert!(taken.len() > 10, "{}", taken.len());
        // What is open goes on, and is waited for.
        send(0).unwrap().wait().unwrap();
        // What an idle log lets go of serves another.
        send(1).unwrap();
        send(0).unwrap();
        send(1).unwrap();
        // If the host takes that too, there is none.
        drop(store.sync());
        let error = loop {
            match send(2) {
                Err(error) => break error,
                Ok(_) => taken.extend(File::open("/dev/null")),
            }
            let other = send(0).err().or_else(|| send(1).err());
            taken.extend(File::open("/dev/null"));
            if let Some(error) = other {
                break error;
            }
        };
        assert!(matches!(error, Error::Io { .. }) && error.is_retriable(), "{error}");
        drop(taken);
        send(2).unwrap().wait().unwrap();
        let ends = (0..3).map(|n| topic.partition(n).unwrap().watermarks().unwrap().1);
        let counts: Vec<i64> = ends.collect();
        drop((producer, topic));
        store.close().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let topic = store.topic("t").unwrap();
        for (number, count) in counts.into_iter().enumerate() {
            let partition = topic.partition(number as u32).unwrap();
            assert_eq!(partition.watermarks().unwrap(), (0, count));
            let mut consumer = store.consumer().assign([&partition]).unwrap();
            assert_eq!(consumer.poll(Duration::ZERO).unwrap().count() as i64, count);
        }
    }
}
