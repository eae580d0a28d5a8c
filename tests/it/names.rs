//! Topic names by Kafka's rules, and what a refused one leaves behind: nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::fs;
use std::path::Path;

use ottla::Durability;
use ottla::Error;
use ottla::Store;
use ottla::TopicConfig;
use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest::test_runner::TestRunner;
use tempfile::TempDir;

use crate::golden::files;

/// A store two levels below a directory of ours, so that an escape would land where we look.
fn store() -> (TempDir, Store) {
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("deep/data");
    let store = Store::builder(data).durability(Durability::Buffered).open().unwrap();
    (directory, store)
}

/// Everything below `root`: directories, and files with their bytes.
fn listing(root: &Path) -> Vec<(String, Option<Vec<u8>>)> {
    fn directories(at: &Path, found: &mut Vec<(String, Option<Vec<u8>>)>) {
        for entry in fs::read_dir(at).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                found.push((entry.path().to_str().unwrap().to_owned(), None));
                directories(&entry.path(), found);
            }
        }
    }
    let mut found: Vec<(String, Option<Vec<u8>>)> =
        files(root).into_iter().map(|(name, bytes)| (name, Some(bytes))).collect();
    directories(root, &mut found);
    found.sort();
    found
}

#[test]
fn an_illegal_name_is_refused_clearly_and_leaves_no_trace() {
    let (directory, store) = store();
    let long = "x".repeat(250);
    let longer = "ü".repeat(10_000);
    for name in [
        "",
        ".",
        "..",
        "../x",
        "../../x",
        "/",
        "/x",
        "a/b",
        "a/../b",
        "./a",
        "a\\b",
        "a\0",
        "\0",
        "a\n",
        "a b",
        " ",
        "ä",
        "你好",
        "a\u{202e}b",
        "a:b",
        "a*",
        "~",
        "$HOME",
        "a,b",
        "a\u{7f}",
        &long,
        &longer,
    ] {
        let before = listing(directory.path());
        let error = store.create_topic(name, TopicConfig::new()).unwrap_err();
        let Error::InvalidTopic { name: named, reason } = &error else {
            panic!("{name:?}: {error}");
        };
        assert!(name.starts_with(named.trim_end_matches('…')), "{named:?}");
        assert!(!reason.is_empty());
        assert!(error.to_string().len() < 2_000, "a message must not be as long as the name");
        assert!(listing(directory.path()) == before, "{name:?} left something");
        assert!(matches!(store.topic(name), Err(Error::UnknownTopic { .. })), "{name:?}");
        assert!(matches!(store.delete_topic(name), Err(Error::UnknownTopic { .. })), "{name:?}");
        assert!(listing(directory.path()) == before, "{name:?} left something");
    }
}

#[test]
fn every_legal_name_is_accepted_and_survives_reopening() {
    let (directory, store) = store();
    let long = "x".repeat(249);
    let names = [
        "a",
        "A",
        "0",
        "-",
        "_",
        "...",
        "a.b.c",
        "a-0",
        "a-0-0",
        "-1",
        "orders-1-delete",
        "a.0123456789abcdef0123456789abcdef-delete",
        "x.log",
        "ottla.topics",
        &long,
    ];
    for name in names {
        store.create_topic(name, TopicConfig::new()).unwrap();
    }
    store.close().unwrap();
    let data = directory.path().join("deep/data");
    for store in [Store::open(&data).unwrap(), Store::open_read_only(&data).unwrap()] {
        let mut sorted = names.to_vec();
        sorted.sort_unstable();
        let topics = store.topics().unwrap();
        assert_eq!(topics.iter().map(|topic| topic.name()).collect::<Vec<_>>(), sorted);
        for topic in topics {
            assert_eq!(topic.partition(0).unwrap().watermarks().unwrap(), (0, 0));
        }
    }
}

#[test]
fn names_that_differ_only_in_dots_and_underscores_are_refused() {
    let (directory, store) = store();
    let topic = store.create_topic("a.b_c", TopicConfig::new()).unwrap();
    for name in ["a.b.c", "a_b_c", "a_b.c"] {
        let before = listing(directory.path());
        let error = store.create_topic(name, TopicConfig::new()).unwrap_err();
        assert!(matches!(&error, Error::InvalidTopic { .. }), "{error}");
        assert!(error.to_string().contains("a.b_c"), "{error}");
        assert!(listing(directory.path()) == before, "{name:?} left something");
    }
    let exists = store.create_topic("a.b_c", TopicConfig::new()).unwrap_err();
    assert!(matches!(exists, Error::TopicExists { .. }), "{exists}");
    drop(topic);
    store.delete_topic("a.b_c").unwrap();
    store.create_topic("a_b_c", TopicConfig::new()).unwrap();
}

#[test]
fn kafkas_own_metadata_topic_cannot_be_created() {
    // Kafka answers "Creation of internal topic __cluster_metadata is prohibited".
    let (_directory, store) = store();
    let error = store.create_topic("__cluster_metadata", TopicConfig::new()).unwrap_err();
    assert!(matches!(error, Error::InvalidTopic { .. }), "{error}");
}

#[test]
fn whatever_name_a_writer_may_use_a_reader_finds() {
    let (directory, store) = store();
    if store.create_topic("__cluster_metadata", TopicConfig::new()).is_ok() {
        let reader = Store::open_read_only(directory.path().join("deep/data")).unwrap();
        reader.topic("__cluster_metadata").unwrap();
    }
}

/// The rule, written down a second time.
fn is_legal(name: &str) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    (1..=249).contains(&name.len())
        && name.as_bytes().iter().all(is_allowed)
        && name != "."
        && name != ".."
}

#[test]
fn nothing_is_ever_created_outside_the_root_or_deeper_than_one_level() {
    let (directory, store) = store();
    let strategy = prop_oneof![
        any::<String>(),
        "[a-zA-Z0-9._/\\\\-]{0,12}",
        "(\\.\\./){0,3}[a-z.]{0,4}(/[a-z.]{0,3}){0,2}",
        "[a-z.]{240,260}",
    ];
    let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&strategy, |name| {
        // Left by a failure that is being narrowed down.
        drop(store.delete_topic(&name));
        let before = listing(directory.path());
        let created = store.create_topic(&name, TopicConfig::new());
        if name == "__cluster_metadata" {
            return Ok(());
        }
        prop_assert_eq!(created.is_ok(), is_legal(&name), "{:?}", created);
        if created.is_err() {
            prop_assert!(listing(directory.path()) == before);
            return Ok(());
        }
        let partition = directory.path().join("deep/data").join(format!("{name}-0"));
        for (path, bytes) in listing(directory.path()) {
            let is_known =
                before.iter().any(|(known, _)| *known == path) || path == "deep/data/ottla.topics";
            match bytes {
                None => prop_assert!(is_known || Path::new(&path) == partition, "{}", path),
                Some(_) => {
                    let parent = directory.path().join(&path).parent().map(Path::to_path_buf);
                    prop_assert!(is_known || parent.as_deref() == Some(&*partition), "{}", path);
                }
            }
        }
        drop(created);
        store.delete_topic(&name).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(!partition.exists());
        Ok(())
    });
    outcome.unwrap();
}
