//! What is stored may be anybody's secret: who may read the files, what is left of what was deleted, and what errors and
//! logs say of records.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use ottla::Error;
use ottla::Header;
use ottla::Record;
use ottla::Reply;
use ottla::Store;
use ottla::TopicConfig;
use ottla::inspect;
use ottla::repair;

use crate::golden::files;

const NEEDLE: &str = "NEEDLE";

/// The permissions of everything below a directory, and of itself.
fn modes(root: &Path) -> Vec<(String, bool, u32)> {
    let mode = |path: &Path| Some(fs::metadata(path).ok()?.permissions().mode() & 0o777);
    let mut found = vec![(root.display().to_string(), true, mode(root).unwrap())];
    for entry in fs::read_dir(root).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(modes(&path));
        } else if let Some(mode) = mode(&path) {
            // One that is not there any more got another name.
            found.push((path.display().to_string(), false, mode));
        }
    }
    found
}

/// Lets a store make every kind of file.
fn make_files(store: &Store) {
    let config = TopicConfig::new().segment_bytes(1024).set("cleanup.policy", "compact,delete");
    let topic = store.create_topic("compacted", config.unwrap()).unwrap();
    for n in 0..40 {
        let record = Record::new("some value").key(["a", "b"][n % 2]);
        store.producer().send(&topic, record).unwrap().wait().unwrap();
    }
    topic.compact().unwrap();
    let mut consumer = store.consumer().subscribe("g", &topic).unwrap();
    drop(consumer.poll(Duration::ZERO).unwrap());
    consumer.commit().unwrap();
    topic.partition(0).unwrap().delete_records(10).unwrap();
}

#[test]
fn files_are_the_owners_alone_unless_told_otherwise() {
    let directory = tempfile::tempdir().unwrap();
    for (name, asked, file, below) in [
        ("default", None, 0o600, 0o700),
        ("group", Some(0o640), 0o640, 0o750),
        ("odd", Some(0o7111), 0o600, 0o700),
    ] {
        let root = directory.path().join(name).join("data");
        let builder = Store::builder(&root);
        let builder = match asked {
            Some(mode) => builder.file_mode(mode),
            None => builder,
        };
        let store = builder.open().unwrap();
        make_files(&store);
        let before = modes(&root);
        store.close().unwrap();
        let found = [before, modes(&root)].concat();
        assert!(found.len() > 40, "{found:?}");
        for (path, is_directory, mode) in found {
            let expected = if is_directory { below } else { file };
            // The umask may take away more.
            assert_eq!(mode & !expected, 0, "{path}: {mode:o}");
            assert_eq!(mode & 0o700, expected & 0o700, "{path}: {mode:o}");
        }
        let segment = root.join("compacted-0/ottla.compacted");
        fs::write(segment, "rubbish").unwrap();
        repair::apply(&root).unwrap();
        let kept =
            modes(&root).into_iter().find(|(path, ..)| path.contains("ottla.damaged-")).unwrap();
        assert_eq!(kept.2, 0o600);
    }
}

/// The files in which the needle is.
fn found_in(root: &Path) -> Vec<String> {
    let has = |bytes: &[u8]| bytes.windows(NEEDLE.len()).any(|window| window == NEEDLE.as_bytes());
    files(root).into_iter().filter(|(_, bytes)| has(bytes)).map(|(name, _)| name).collect()
}

#[test]
fn what_was_deleted_is_in_no_file_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    let store =
        Store::builder(&root).retention_check_interval(Duration::from_secs(3600)).open().unwrap();
    let config = || TopicConfig::new().segment_bytes(1024);
    let secret =
        |n: usize| Record::new(NEEDLE).key(if n % 2 == 0 { "a" } else { "b" }).header("h", NEEDLE);

    let deleted = store.create_topic("deleted", config()).unwrap();
    (0..50).for_each(|n| drop(store.producer().send(&deleted, secret(n)).unwrap().wait().unwrap()));
    assert!(found_in(&root).len() >= 4);
    let partition = deleted.partition(0).unwrap();
    // Within the first segment: what is left of it stays until all of it may go.
    partition.delete_records(1).unwrap();
    partition.delete_records(-1).unwrap();
    assert_eq!(found_in(&root), Vec::<String>::new());
    store.producer().send(&deleted, "harmless").unwrap().wait().unwrap();

    let retained = store.create_topic("retained", config().retention_ms(1)).unwrap();
    (0..50).for_each(|n| {
        let record = secret(n).timestamp(1_000);
        drop(store.producer().send(&retained, record).unwrap().wait().unwrap());
    });
    assert!(!found_in(&root).is_empty());
    while !found_in(&root).is_empty() {
        // A segment's age is also that of its file.
        store.apply_retention().unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }

    let compacted = config().set("cleanup.policy", "compact").unwrap();
    let compacted = store.create_topic("compacted", compacted).unwrap();
    (0..50)
        .for_each(|n| drop(store.producer().send(&compacted, secret(n)).unwrap().wait().unwrap()));
    for key in ["a", "b"] {
        store
            .producer()
            .send(&compacted, Record::new("harmless").key(key))
            .unwrap()
            .wait()
            .unwrap();
    }
    compacted.compact().unwrap();
    assert_eq!(found_in(&root), Vec::<String>::new());

    let dropped = store.create_topic("dropped", config()).unwrap();
    (0..50).for_each(|n| drop(store.producer().send(&dropped, secret(n)).unwrap().wait().unwrap()));
    drop(dropped);
    store.delete_topic("dropped").unwrap();
    assert_eq!(found_in(&root), Vec::<String>::new());
    drop((deleted, partition, retained, compacted));
    store.close().unwrap();
    assert_eq!(found_in(&root), Vec::<String>::new());
}

/// Fails if the needle is in what something says of itself, as text or as numbers.
fn assert_says_nothing(what: &str, shown: &dyn Debug) {
    let numbers = NEEDLE.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    let hex = NEEDLE.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    for text in [format!("{shown:?}"), format!("{shown:#?}").replace(",\n", ", ").replace("  ", "")]
    {
        for needle in [NEEDLE, &numbers, &hex] {
            assert!(!text.contains(needle), "{what} says {text}");
        }
    }
}

fn assert_error_says_nothing(error: &Error) {
    assert_says_nothing("an error", error);
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        assert!(!error.to_string().contains(NEEDLE), "{error}");
        source = error.source();
    }
}

#[test]
fn nothing_of_a_record_is_in_an_error_or_a_debug_output() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    let store = Store::open(&root).unwrap();
    let config = TopicConfig::new().set("max.message.bytes", "2000").unwrap();
    let topic = store.create_topic("t", config).unwrap();
    let partition = topic.partition(0).unwrap();
    let record = || Record::new(NEEDLE).key(NEEDLE).header(NEEDLE, NEEDLE).timestamp(1_000);
    let staging = store.producer_builder().linger(Duration::from_secs(3600)).build();

    let header = Header { key: NEEDLE, value: Some(NEEDLE.as_bytes()) };
    let reply = Reply::new(NEEDLE).key(NEEDLE).header(NEEDLE, NEEDLE);
    let staged = staging.send(&topic, record()).unwrap();
    for (what, shown) in [
        ("a record", &record() as &dyn Debug),
        ("a header", &header),
        ("a reply", &reply),
        ("a producer", &staging),
        ("a delivery", &staged),
    ] {
        assert_says_nothing(what, shown);
    }
    staging.flush().unwrap();
    let delivery = store.producer().send(&topic, record()).unwrap();
    assert_says_nothing("what was sent", &delivery.wait().unwrap());

    // Refused for their size, their time, their partition.
    let large = NEEDLE.repeat(1_000);
    for refused in [
        store.producer().send(&topic, Record::new(&large).key(NEEDLE)),
        store.producer().send(&topic, record().timestamp(i64::MAX)),
        store.producer().send(&topic, record().partition(77)),
        store.producer().send(&topic, record().timestamp(-5)),
    ] {
        assert_error_says_nothing(&refused.err().unwrap());
    }

    let mut consumer = store.consumer().subscribe("g", &topic).unwrap();
    let records = consumer.poll(Duration::ZERO).unwrap();
    let message = records.iter().next().unwrap();
    assert_eq!(message.value(), Some(NEEDLE.as_bytes()));
    let single = partition.read(0).unwrap().unwrap();
    for (what, shown) in [
        ("records", &records as &dyn Debug),
        ("a message", &message),
        ("a detached message", &message.detach()),
        ("a single record", &single),
        ("a consumer", &consumer),
        ("a store", &store),
        ("a topic", &topic),
        ("its description", &topic.describe().unwrap()),
        ("health", &store.health()),
        ("a group", &store.group("g").unwrap().describe().unwrap()),
    ] {
        assert_says_nothing(what, shown);
    }
    drop((message, single));
    drop((records, consumer, staged, topic, partition, staging));
    store.close().unwrap();

    let segment = root.join("t-0/00000000000000000000.log");
    let mut dump = inspect::dump_log(&segment).unwrap();
    assert_says_nothing("a dump", &dump);
    let batch = dump.next_batch().unwrap().unwrap();
    assert_says_nothing("a dumped batch", &batch);
    if let inspect::DumpedRecords::Plain(mut records) = batch.records {
        assert_says_nothing("a dumped record", &records.next().unwrap());
    }
    assert_says_nothing("a dump in use", &dump);

    // Whatever byte is damaged: what the check, the readers and the repair say of it.
    let good = fs::read(&segment).unwrap();
    for position in (0..good.len()).step_by(3) {
        let mut bad = good.clone();
        bad[position] ^= 0x81;
        fs::write(&segment, bad).unwrap();
        assert_says_nothing("a check", &inspect::check(&root).unwrap());
        assert_says_nothing("a plan", &repair::plan(&root).unwrap());
        if let Ok(mut dump) = inspect::dump_log(&segment) {
            drop(dump.next_batch().map_err(|error| assert_error_says_nothing(&error)));
        }
        let store = Store::open_read_only(&root).unwrap();
        assert_says_nothing("health", &store.health());
        let partition = store.topic("t").unwrap().partition(0).unwrap();
        drop(partition.read(0).map_err(|error| assert_error_says_nothing(&error)));
        let mut consumer = store.consumer().assign([&partition]).unwrap();
        drop(consumer.poll(Duration::ZERO).map_err(|error| assert_error_says_nothing(&error)));
    }
}
