//! What happens when the process runs out of file descriptors or address space: errors, and nothing lost.
//!
//! Each test runs itself again under a shell's `ulimit`, which the rest of the suite must not suffer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails should say where")]

use std::process::Command;
use std::time::Duration;

use ottla::Durability;
use ottla::Error;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;

fn run_again_under(limit: &str, inner: &str) {
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

fn is_limited() -> bool {
    std::env::var_os("OTTLA_LIMITED").is_some()
}

/// Sends to one topic after the other, each of which needs a descriptor and a mapping of its own, until
/// that fails; then checks that what was sent is there and that all goes on once resources are back.
fn exhaust(store: &Store, topics: &[Topic], is_expected: impl Fn(&Error) -> bool) {
    let producer = store.producer_builder().durability(Durability::Buffered).build();
    let mut sent = vec![0; topics.len()];
    let mut refused = 0;
    for (index, topic) in topics.iter().enumerate() {
        match producer.send(topic, "value") {
            Ok(_) => sent[index] += 1,
            Err(error) => {
                assert!(is_expected(&error), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && sent.iter().sum::<usize>() > 0, "{refused} refused, {sent:?} sent");
    // Those that have what they need are unaffected.
    for (index, topic) in topics.iter().enumerate().filter(|(index, _)| sent[*index] > 0).take(3) {
        producer.send(topic, "more").unwrap();
        let (_, end) = topic.partition(0).unwrap().watermarks().unwrap();
        assert_eq!(end, sent[index] as i64 + 1, "{}", topic.name());
    }
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
    let counts = {
        let store = Store::open(directory.path()).unwrap();
        let topics: Vec<Topic> = (0..60)
            .map(|n| store.create_topic(&format!("t{n}"), TopicConfig::new()).unwrap())
            .collect();
        exhaust(&store, &topics, |error| matches!(error, Error::Io { .. }));
        topics.iter().map(|t| t.partition(0).unwrap().watermarks().unwrap()).collect::<Vec<_>>()
    };
    // Closing needed descriptors that were not there, or did not: in either case all of it is back.
    let store = Store::open(directory.path()).unwrap();
    for (n, (start, end)) in counts.into_iter().enumerate() {
        let topic = store.topic(&format!("t{n}")).unwrap();
        assert_eq!(topic.partition(0).unwrap().watermarks().unwrap(), (start, end), "t{n}");
        let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
        assert_eq!(consumer.poll(Duration::ZERO).unwrap().count() as i64, end - start, "t{n}");
    }
}

#[test]
fn running_out_of_address_space_is_an_error_and_loses_nothing() {
    run_again_under("-v 3000000", "limits::inner_without_address_space");
}

#[test]
fn inner_without_address_space() {
    if !is_limited() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    // A live segment maps its whole size ahead of time, written or not.
    let config = || TopicConfig::new().segment_bytes(512 << 20);
    let topics: Vec<Topic> =
        (0..10).map(|n| store.create_topic(&format!("t{n}"), config()).unwrap()).collect();
    exhaust(&store, &topics, |error| matches!(error, Error::Io { action: "map", .. }));
}
