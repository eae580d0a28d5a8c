//! A real file system that is really full.
//!
//! The test runs itself again in a user namespace of its own, where it may mount a small tmpfs; on machines
//! that allow that only to root, as root. Where neither is possible it says so.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that fails should say where"
)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ottla::Durability;
use ottla::Error;
use ottla::Record;
use ottla::Store;
use ottla::TopicConfig;

const INNER: &str = "disk_full::inner_life_on_a_small_file_system";

#[test]
fn a_full_file_system_is_an_error_and_nothing_acknowledged_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=2m none \"$OTTLA_SMALL\" && exec \"$OTTLA_TEST\" --exact \
                  \"$OTTLA_INNER\" --nocapture";
    for unshare in [&["-Urm"][..], &["-m"][..]] {
        let output = Command::new("unshare")
            .args(unshare)
            .args(["sh", "-c", script])
            .env("OTTLA_SMALL", directory.path())
            .env("OTTLA_TEST", std::env::current_exe().unwrap())
            .env("OTTLA_INNER", INNER)
            .output();
        let Ok(output) = output else { break };
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        if text.contains("running 1 test") {
            assert!(output.status.success(), "{text}");
            assert!(text.contains("the disk was full"), "{text}");
            return;
        }
    }
    println!("SKIPPED: this machine lets nobody mount a file system of their own");
}

/// What the test above runs inside; does nothing in an ordinary run.
#[test]
fn inner_life_on_a_small_file_system() {
    let Ok(small) = std::env::var("OTTLA_SMALL") else { return };
    let root = Path::new(&small).join("data");
    let ballast = Path::new(&small).join("ballast");
    fs::write(&ballast, vec![0; 256 << 10]).unwrap();

    let store = Store::open(&root).unwrap();
    let config = || TopicConfig::new().segment_bytes(256 << 10);
    let topic = store.create_topic("t", config()).unwrap();
    let mut sent = Vec::new();
    let mut refusals = 0;
    for (round, durability) in [Durability::Synced, Durability::Buffered].into_iter().enumerate() {
        let producer = store.producer_builder().durability(durability).build();
        for n in 0..10_000_u32 {
            let value = format!("{round}-{n:06}-{}", "v".repeat(500));
            let outcome = producer.send(&topic, Record::new(&value)).and_then(|d| d.wait());
            match outcome {
                Ok(metadata) => {
                    assert_eq!(metadata.offset(), sent.len() as i64);
                    sent.push(value);
                }
                Err(error @ Error::OutOfSpace { .. }) => {
                    assert!(error.is_retriable());
                    refusals += 1;
                    if refusals % 5 == 0 {
                        break;
                    }
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(refusals > 0, "2 MiB were not filled");
        // Reads go on, and so does everything that needs no space.
        assert_eq!(count(&store), sent.len());
        let refused = store.create_topic("another", config());
        if let Err(error) = refused {
            assert!(matches!(error, Error::OutOfSpace { .. }), "{error}");
            assert!(store.topic("another").is_err());
        }
        if round == 0 {
            // Once there is space again, appends work again, without reopening.
            fs::remove_file(&ballast).unwrap();
            let value = "after".to_owned();
            producer.send(&topic, Record::new(&value)).unwrap().wait().unwrap();
            sent.push(value);
        }
    }
    println!("the disk was full {refusals} times, {} records are there", sent.len());
    drop(topic);
    // Closing needs a little space for its checkpoints; without it, the next open recovers.
    drop(store.close());

    // A full disk does not keep anybody from opening what is there.
    let store = Store::open_read_only(&root).unwrap();
    assert_eq!(count(&store), sent.len());
    drop(store);
    // Opening to write needs some space, and says so.
    if let Err(error) = Store::open(&root) {
        assert!(matches!(error, Error::OutOfSpace { .. }), "{error}");
    }
    Command::new("mount")
        .args(["-o", "remount,size=4m", &small])
        .status()
        .map(|status| assert!(status.success()))
        .unwrap();
    let topic = {
        let store = Store::open(&root).unwrap();
        assert_eq!(count(&store), sent.len());
        store.topic("t").unwrap()
    };
    assert_eq!(topic.partition(0).unwrap().watermarks().unwrap().1, sent.len() as i64);
}

fn count(store: &Store) -> usize {
    let topic = store.topic("t").unwrap();
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    let mut count = 0;
    loop {
        let records = consumer.poll(Duration::ZERO).unwrap();
        if records.is_empty() {
            return count;
        }
        count += records.count();
    }
}
