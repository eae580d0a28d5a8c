//! What a caller is told when the files are not what they should be, and what still works then.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails should say where")]

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use ottla::Consumer;
use ottla::Error;
use ottla::Finding;
use ottla::Record;
use ottla::Store;
use ottla::TopicConfig;
use tempfile::TempDir;

const LOG: &str = "00000000000000000000.log";

/// A directory that was closed properly: topic `t` with two partitions, five durable records in each.
fn closed_directory() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let root = directory.path().join("data");
    let store = Store::open(&root).unwrap();
    let topic = store.create_topic("t", TopicConfig::new().partitions(2)).unwrap();
    let producer = store.producer();
    for n in 0..10 {
        let value = format!("value {n}");
        producer.send(&topic, Record::new(&value).partition(n % 2)).unwrap().wait().unwrap();
    }
    drop((producer, topic));
    store.close().unwrap();
    (directory, root)
}

/// As after a crash: the directory does not say that it was closed.
fn without_marker(root: &Path) {
    fs::remove_file(root.join(".kafka_cleanshutdown")).unwrap();
}

fn consumer_of(store: &Store, partition: u32) -> Consumer {
    let partition = store.topic("t").unwrap().partition(partition).unwrap();
    store.consumer().assign([partition]).unwrap()
}

#[test]
fn a_partition_that_cannot_be_opened_holds_up_no_other() {
    let (_directory, root) = closed_directory();
    fs::remove_dir_all(root.join("t-0")).unwrap();
    let store = Store::open(&root).unwrap();
    let topic = store.topic("t").unwrap();
    let producer = store.producer();

    let missing = topic.partition(0).unwrap();
    let refused = producer.send(&topic, Record::new("v").partition(0)).unwrap_err();
    assert!(matches!(&refused, Error::Unavailable { path, .. } if *path == root.join("t-0")));
    assert!(refused.is_fatal() && !refused.is_retriable());
    assert!(matches!(store.consumer().assign([&missing]), Err(Error::Unavailable { .. })));
    assert!(matches!(missing.watermarks(), Err(Error::Unavailable { .. })));
    assert!(topic.describe().unwrap().partitions[0].failure.is_some());
    assert!(matches!(&store.health().findings[..], [Finding::Unavailable { .. }]));

    producer.send(&topic, Record::new("more").partition(1)).unwrap().wait().unwrap();
    assert_eq!(consumer_of(&store, 1).poll(Duration::from_secs(5)).unwrap().count(), 6);
    drop((producer, topic, missing));
    store.close().unwrap();
    assert!(!root.join(".kafka_cleanshutdown").exists(), "not all of it is in order");
}

#[test]
fn a_damaged_record_is_named_with_its_byte_and_where_to_go_on() {
    let (_directory, root) = closed_directory();
    let path = root.join("t-1").join(LOG);
    let mut bytes = fs::read(&path).unwrap();
    let batch_len = bytes.len() / 5;
    bytes[2 * batch_len + 70] ^= 1;
    fs::write(&path, bytes).unwrap();

    let store = Store::open(&root).unwrap();
    let mut consumer = consumer_of(&store, 1);
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().count(), 2);
    let error = consumer.poll(Duration::ZERO).unwrap_err();
    let Error::Corrupt { path: named, position, resume, .. } = &error else { panic!("{error}") };
    assert_eq!((named, *position, *resume), (&path, 2 * batch_len as u64, Some(3)));
    assert_eq!(error.kafka_code(), Some(2));
    let partition = store.topic("t").unwrap().partition(1).unwrap();
    assert_eq!(consumer.position(&partition).unwrap(), 2, "it stays in front of the damage");
    consumer.seek(&partition, 3).unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().count(), 2);
    assert_eq!(consumer_of(&store, 0).poll(Duration::ZERO).unwrap().count(), 5);
}

#[test]
fn a_log_that_lost_durable_records_is_readable_and_latched() {
    let (_directory, root) = closed_directory();
    without_marker(&root);
    let path = root.join("t-0").join(LOG);
    let len = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len / 5 * 3).unwrap();

    let store = Store::open(&root).unwrap();
    assert!(!store.health().is_good());
    let topic = store.topic("t").unwrap();
    let producer = store.producer();
    let refused = producer.send(&topic, Record::new("v").partition(0)).unwrap_err();
    assert!(matches!(&refused, Error::Latched { path, .. } if *path == root.join("t-0")));
    assert!(refused.is_fatal() && !refused.is_retriable());
    assert_eq!(refused.kafka_code(), Some(56));
    assert_eq!(consumer_of(&store, 0).poll(Duration::ZERO).unwrap().count(), 3);
    producer.send(&topic, Record::new("more").partition(1)).unwrap().wait().unwrap();
    drop((producer, topic));
    assert!(matches!(store.close(), Err(Error::Latched { .. })));
}

#[test]
fn a_damaged_list_of_topics_is_never_replaced_by_a_guess() {
    let (_directory, root) = closed_directory();
    let path = root.join("ottla.topics");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replace("topic t", "topic u")).unwrap();
    match Store::open(&root) {
        Err(Error::Corrupt { path: named, reason, .. }) => {
            assert_eq!((named, reason), (path.clone(), "checksum mismatch"));
        }
        other => panic!("{other:?}"),
    }
    fs::write(&path, &good).unwrap();
    let store = Store::open(&root).unwrap();
    assert_eq!(consumer_of(&store, 0).poll(Duration::ZERO).unwrap().count(), 5);
}

#[test]
fn a_directory_of_a_later_version_is_left_alone() {
    let (_directory, root) = closed_directory();
    let path = root.join("ottla.topics");
    fs::write(&path, "ottla.topics 2\nwhatever comes then\n").unwrap();
    for opened in [Store::open(&root), Store::open_read_only(&root)] {
        match opened {
            Err(Error::FormatTooNew { path: named, found, supported }) => {
                assert_eq!((named, found, supported), (path.clone(), 2, 1));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "ottla.topics 2\nwhatever comes then\n");
}
