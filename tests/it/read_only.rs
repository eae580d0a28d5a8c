//! Reading a directory beside the process that writes to it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "these are tests")]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::path::Path;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use ottla::Consumer;
use ottla::Durability;
use ottla::Error;
use ottla::Isolation;
use ottla::Record;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;
use tempfile::TempDir;

use crate::consuming::read_all;
use crate::consuming::send_numbers;
use crate::waiting::LONG;
use crate::waiting::SOON;

/// This test binary again, running one test, which finds its orders in the environment.
pub(crate) struct Helper {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Helper {
    pub(crate) fn start(test: &str, data: &Path, orders: &str) -> Helper {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env("OTTLA_TEST_DATA", data)
            .env("OTTLA_TEST_ORDERS", orders)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Helper { child, lines }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Gives what the child tells next, among all that its test harness prints.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the child ended without a word");
            if let Some((_, told)) = line.split_once("@@") {
                return told.trim().to_owned();
            }
        }
    }

    /// Ends the child as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the child's end, however it ends.
    pub(crate) fn wait_for_the_end(mut self) {
        while self.lines.read_line(&mut String::new()).unwrap() > 0 {}
        self.child.wait().unwrap();
    }

    /// Lets the child go on, and waits for its end.
    pub(crate) fn finish(mut self) {
        drop(self.child.stdin.take());
        while self.lines.read_line(&mut String::new()).unwrap() > 0 {}
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // A test that failed leaves no process behind.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// In a child: what it was told to do; `None` in an ordinary run of the tests.
pub(crate) fn orders() -> Option<(std::path::PathBuf, String)> {
    Some((env::var_os("OTTLA_TEST_DATA")?.into(), env::var("OTTLA_TEST_ORDERS").ok()?))
}

/// In a child: tells the parent.
pub(crate) fn tell(what: &str) {
    println!("@@{what}");
    std::io::stdout().flush().unwrap();
}

/// In a child: waits until the parent lets it go on.
pub(crate) fn wait_for_parent() {
    let mut nothing = String::new();
    std::io::stdin().read_line(&mut nothing).unwrap();
}

const SMALL: u32 = 2048;

/// Reads numbers until `end`, each exactly once and in order.
fn expect_numbers(consumer: &mut Consumer, from: i64, end: i64) {
    let mut next = from;
    let begun = Instant::now();
    while next < end {
        assert!(begun.elapsed() < LONG, "nothing came behind {next}");
        for message in &consumer.poll(Duration::from_millis(500)).unwrap() {
            assert_eq!(message.offset(), next);
            assert_eq!(message.value().unwrap(), next.to_string().as_bytes());
            next += 1;
        }
    }
    assert_eq!(next, end);
}

fn reader_of(store: &Store) -> Consumer {
    store.consumer().assign(store.topic("t").unwrap().partitions()).unwrap()
}

fn writer(data: &Path) -> Store {
    Store::builder(data).durability(Durability::Buffered).open().unwrap()
}

fn writer_with_topic(data: &Path) -> (Store, Topic) {
    let store = writer(data);
    let topic = store.create_topic("t", TopicConfig::new().segment_bytes(SMALL)).unwrap();
    (store, topic)
}

/// Not a test of its own: the child that reads.
#[test]
fn child_reader() {
    let Some((data, orders)) = orders() else { return };
    let end = orders.parse().unwrap();
    let store = Store::open_read_only(data).unwrap();
    let mut consumer = reader_of(&store);
    tell("ready");
    expect_numbers(&mut consumer, 0, end);
    assert!(consumer.poll(Duration::from_millis(20)).unwrap().is_empty());
    tell("done");
}

/// Not a test of its own: the child that writes, and then waits to be killed or to close.
#[test]
fn child_writer() {
    let Some((data, orders)) = orders() else { return };
    let numbers: Vec<i64> = orders.split("..").map(|n| n.parse().unwrap()).collect();
    let store = writer(&data);
    let topic = store.topic("t").unwrap();
    send_numbers(&store, &topic, numbers[0]..numbers[1]);
    tell("written");
    wait_for_parent();
    drop(topic);
    store.close().unwrap();
}

/// Names, lengths and times of change of everything below a directory.
fn snapshot(root: &Path) -> BTreeMap<String, (u64, SystemTime)> {
    fn walk(at: &Path, found: &mut BTreeMap<String, (u64, SystemTime)>) {
        let metadata = fs::metadata(at).unwrap();
        let times = (metadata.len(), metadata.modified().unwrap());
        found.insert(at.to_str().unwrap().to_owned(), times);
        if metadata.is_dir() {
            for entry in fs::read_dir(at).unwrap() {
                walk(&entry.unwrap().path(), found);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, &mut found);
    found
}

#[test]
fn a_reader_in_the_same_process_follows_the_writer_over_many_segments() {
    let directory = TempDir::new().unwrap();
    let (store, topic) = writer_with_topic(directory.path());
    let reader = Store::open_read_only(directory.path()).unwrap();
    let mut consumer = reader_of(&reader);
    let following = thread::spawn(move || expect_numbers(&mut consumer, 0, 3_000));
    send_numbers(&store, &topic, 0..3_000);
    following.join().unwrap();
    assert!(topic.describe().unwrap().partitions[0].segment_count > 50);
    // Whoever comes late reads the same.
    expect_numbers(&mut reader_of(&reader), 0, 3_000);
    expect_numbers(&mut reader_of(&Store::open_read_only(directory.path()).unwrap()), 0, 3_000);
}

#[test]
fn a_reader_in_another_process_follows_the_writer_over_many_segments() {
    let directory = TempDir::new().unwrap();
    let (store, topic) = writer_with_topic(directory.path());
    let mut child = Helper::start("read_only::child_reader", directory.path(), "3000");
    assert_eq!(child.hear(), "ready");
    for from in (0..3_000).step_by(100) {
        send_numbers(&store, &topic, from..from + 100);
        thread::yield_now();
    }
    assert_eq!(child.hear(), "done");
    child.finish();
}

#[test]
fn a_waiting_reader_sees_a_record_soon() {
    let directory = TempDir::new().unwrap();
    let (store, topic) = writer_with_topic(directory.path());
    let reader = Store::open_read_only(directory.path()).unwrap();
    let mut consumer = reader_of(&reader);
    for n in 0..20 {
        let waiting = thread::spawn(move || {
            let records = consumer.poll(LONG).unwrap();
            assert_eq!(records.iter().map(|message| message.offset()).collect::<Vec<_>>(), [n]);
            (consumer, Instant::now())
        });
        send_numbers(&store, &topic, n..n + 1);
        let sent = Instant::now();
        let (returned, seen) = waiting.join().unwrap();
        consumer = returned;
        assert!(seen.saturating_duration_since(sent) < Duration::from_secs(2));
    }
}

#[test]
fn a_reader_changes_nothing_in_a_quiescent_directory() {
    let directory = TempDir::new().unwrap();
    let (store, topic) = writer_with_topic(directory.path());
    send_numbers(&store, &topic, 0..500);
    drop(topic);
    store.close().unwrap();
    let before = snapshot(directory.path());
    let reader = Store::open_read_only(directory.path()).unwrap();
    let mut consumer = reader_of(&reader);
    expect_numbers(&mut consumer, 0, 500);
    assert!(consumer.poll(Duration::from_millis(50)).unwrap().is_empty());
    let topic = reader.topic("t").unwrap();
    topic.describe().unwrap();
    assert_eq!(topic.partition(0).unwrap().offset_for_time(1005).unwrap(), Some((1, 1010)));
    reader.topics().unwrap();
    reader.sync().unwrap();
    drop((topic, consumer));
    reader.close().unwrap();
    assert_eq!(snapshot(directory.path()), before);
}

#[test]
fn a_reader_changes_nothing_in_a_directory_whose_writer_was_killed() {
    let directory = TempDir::new().unwrap();
    drop(writer_with_topic(directory.path()));
    let mut child = Helper::start("read_only::child_writer", directory.path(), "0..500");
    assert_eq!(child.hear(), "written");
    child.kill();
    let before = snapshot(directory.path());
    let reader = Store::open_read_only(directory.path()).unwrap();
    expect_numbers(&mut reader_of(&reader), 0, 500);
    drop(reader);
    assert_eq!(snapshot(directory.path()), before);
}

#[cfg(unix)]
#[test]
fn a_directory_that_nobody_may_write_to_can_be_read() {
    use std::os::unix::fs::PermissionsExt;

    let directory = TempDir::new().unwrap();
    let data = directory.path().join("data");
    let (store, topic) = writer_with_topic(&data);
    send_numbers(&store, &topic, 0..500);
    drop(topic);
    store.close().unwrap();
    let set = |mode: u32| {
        for path in snapshot(&data).keys() {
            let mode = if Path::new(path).is_dir() { mode } else { mode & 0o666 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    set(0o555);
    let reader = Store::open_read_only(&data).unwrap();
    expect_numbers(&mut reader_of(&reader), 0, 500);
    set(0o755);
}

#[test]
fn everything_that_writes_is_refused() {
    let directory = TempDir::new().unwrap();
    let (store, topic) = writer_with_topic(directory.path());
    send_numbers(&store, &topic, 0..3);
    let reader = Store::open_read_only(directory.path()).unwrap();
    let topic = reader.topic("t").unwrap();
    let refused = |outcome: ottla::Result<()>| match outcome {
        Err(Error::ReadOnly { action }) => assert!(!action.is_empty()),
        other => panic!("{other:?}"),
    };
    refused(reader.create_topic("u", TopicConfig::new()).map(drop));
    refused(reader.topic_or_create("u", TopicConfig::new()).map(drop));
    refused(reader.delete_topic("t"));
    refused(topic.alter("segment.ms", Some("1")));
    refused(topic.add_partitions(2));
    refused(reader.producer().send(&topic, Record::new("v")).map(drop));
    refused(reader.producer().send_batch(&topic.partition(0).unwrap(), ["v"]).map(drop));
    assert_eq!(store.topic("t").unwrap().partition(0).unwrap().watermarks().unwrap(), (0, 3));
}

#[test]
fn a_path_that_is_no_directory_is_refused() {
    let directory = TempDir::new().unwrap();
    let missing = directory.path().join("missing");
    let file = directory.path().join("file");
    fs::write(&file, "text").unwrap();
    let error = Store::open_read_only(&missing).unwrap_err();
    let is_told = matches!(&error, Error::NotADataDirectory { path, .. } if *path == missing);
    assert!(is_told, "{error:?}");
    assert!(!missing.exists());
    let error = Store::builder(&missing).create(false).open().unwrap_err();
    assert!(matches!(error, Error::NotADataDirectory { .. }), "{error}");
    let error = Store::open(&file).unwrap_err();
    assert!(matches!(error, Error::NotADataDirectory { .. }), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"text");
}

#[test]
fn a_file_is_no_data_directory_to_a_reader() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "text").unwrap();
    let error = Store::open_read_only(&file).unwrap_err();
    let is_told = matches!(&error, Error::NotADataDirectory { path, .. } if *path == file);
    assert!(is_told, "{error:?}");
}

/// The reader has read all there is. Before it looks again, the writer appends to the same segment and
/// goes on to another: nothing of either may be skipped.
#[test]
fn a_reader_that_looks_again_after_a_roll_skips_nothing() {
    let directory = TempDir::new().unwrap();
    let (store, topic) = writer_with_topic(directory.path());
    let reader = Store::open_read_only(directory.path()).unwrap();
    let mut consumer = reader_of(&reader);
    for from in (0..1_000).step_by(50) {
        send_numbers(&store, &topic, from..from + 50);
        expect_numbers(&mut consumer, from, from + 50);
    }
}

#[test]
fn topics_and_partitions_that_the_writer_makes_appear() {
    let directory = TempDir::new().unwrap();
    let (store, _topic) = writer_with_topic(directory.path());
    let reader = Store::open_read_only(directory.path()).unwrap();
    assert!(matches!(reader.topic("later"), Err(Error::UnknownTopic { .. })));
    let config = TopicConfig::new().partitions(2).segment_ms(77);
    let later = store.create_topic("later", config).unwrap();
    send_numbers(&store, &later, 0..5);
    let seen = reader.topic("later").unwrap();
    assert_eq!((seen.id(), seen.partition_count()), (later.id(), 2));
    assert_eq!(seen.describe().unwrap().config("segment.ms").unwrap().value, "77");
    assert_eq!(read_all(&mut reader.consumer().assign(seen.partitions()).unwrap()).len(), 5);
    later.add_partitions(3).unwrap();
    store.producer().send_batch(&later.partition(2).unwrap(), ["v"]).unwrap().wait().unwrap();
    let names: Vec<String> = reader.topics().unwrap().iter().map(|t| t.name().to_owned()).collect();
    assert_eq!(names, ["later", "t"]);
    assert_eq!(seen.partition_count(), 3);
    assert_eq!(read_all(&mut reader.consumer().assign(seen.partitions()).unwrap()).len(), 6);
}

#[test]
fn a_topic_that_the_writer_deleted_is_gone_for_the_reader() {
    let directory = TempDir::new().unwrap();
    let (store, topic) = writer_with_topic(directory.path());
    send_numbers(&store, &topic, 0..500);
    let reader = Store::open_read_only(directory.path()).unwrap();
    let mut consumer = reader_of(&reader);
    let records = consumer.poll(Duration::ZERO).unwrap();
    store.delete_topic("t").unwrap();
    assert!(reader.topics().unwrap().is_empty());
    assert!(matches!(reader.topic("t"), Err(Error::UnknownTopic { .. })));
    assert!(matches!(consumer.poll(Duration::ZERO), Err(Error::TopicDeleted { .. })));
    for (n, message) in records.iter().enumerate() {
        assert_eq!(message.value().unwrap(), n.to_string().as_bytes(), "held records stay");
    }
}

#[test]
fn looking_up_a_topic_that_the_writer_deleted_finds_none() {
    let directory = TempDir::new().unwrap();
    let (store, _topic) = writer_with_topic(directory.path());
    let reader = Store::open_read_only(directory.path()).unwrap();
    let old = reader.topic("t").unwrap();
    store.delete_topic("t").unwrap();
    let found = reader.topic("t");
    assert!(matches!(found, Err(Error::UnknownTopic { .. })), "{found:?}");
    let new = store.create_topic("t", TopicConfig::new()).unwrap();
    let found = reader.topic("t").unwrap();
    assert_ne!(found.id(), old.id());
    assert_eq!(found.id(), new.id());
}

#[test]
fn a_reader_that_waits_is_told_when_the_writer_deletes_the_topic() {
    let directory = TempDir::new().unwrap();
    let (store, _topic) = writer_with_topic(directory.path());
    let reader = Store::open_read_only(directory.path()).unwrap();
    let mut consumer = reader_of(&reader);
    store.delete_topic("t").unwrap();
    let outcome = consumer.poll(Duration::from_secs(3));
    assert!(matches!(outcome, Err(Error::TopicDeleted { .. })), "{outcome:?}");
}

#[test]
fn a_reader_survives_the_writers_close_and_reopening() {
    let directory = TempDir::new().unwrap();
    drop(writer_with_topic(directory.path()));
    let reader = Store::open_read_only(directory.path()).unwrap();
    let mut consumer = reader_of(&reader);
    for round in 0..5 {
        let store = writer(directory.path());
        let topic = store.topic("t").unwrap();
        let numbers = round * 150..(round + 1) * 150;
        send_numbers(&store, &topic, numbers.clone());
        if round % 2 == 0 {
            expect_numbers(&mut consumer, numbers.start, numbers.end);
        }
        drop(topic);
        store.close().unwrap();
        if round % 2 == 1 {
            expect_numbers(&mut consumer, numbers.start, numbers.end);
        }
    }
    expect_numbers(&mut reader_of(&reader), 0, 750);
}

#[test]
fn a_reader_survives_the_writers_death_and_sees_what_its_successor_writes() {
    let directory = TempDir::new().unwrap();
    drop(writer_with_topic(directory.path()));
    let reader = Store::open_read_only(directory.path()).unwrap();
    let mut consumer = reader_of(&reader);
    for round in 0..4 {
        let numbers = round * 130..(round + 1) * 130;
        let orders = format!("{}..{}", numbers.start, numbers.end);
        let mut child = Helper::start("read_only::child_writer", directory.path(), &orders);
        assert_eq!(child.hear(), "written");
        if round % 2 == 0 {
            expect_numbers(&mut consumer, numbers.start, numbers.end);
            child.kill();
        } else {
            child.kill();
            expect_numbers(&mut consumer, numbers.start, numbers.end);
        }
    }
    let mut child = Helper::start("read_only::child_writer", directory.path(), "520..600");
    assert_eq!(child.hear(), "written");
    child.finish();
    expect_numbers(&mut consumer, 520, 600);
    expect_numbers(&mut reader_of(&Store::open_read_only(directory.path()).unwrap()), 0, 600);
    assert!(writer(directory.path()).health().is_good());
}

#[test]
fn a_careful_reader_sees_only_what_the_writer_made_durable() {
    let directory = TempDir::new().unwrap();
    let store = Store::builder(directory.path())
        .durability(Durability::Buffered)
        .checkpoint_interval(Duration::from_secs(3600))
        .open()
        .unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    send_numbers(&store, &topic, 0..5);
    let reader = Store::open_read_only(directory.path()).unwrap();
    let mut careful = careful_reader_of(&reader);
    assert_eq!(reader_of(&reader).poll(SOON).unwrap().count(), 5);
    assert!(careful.poll(Duration::from_millis(100)).unwrap().is_empty());
    drop(topic);
    store.close().unwrap();
    let begun = Instant::now();
    loop {
        let records = careful.poll(Duration::from_millis(20)).unwrap();
        if !records.is_empty() {
            assert_eq!(records.count(), 5);
            break;
        }
        assert!(begun.elapsed() < SOON);
    }
}

fn careful_reader_of(reader: &Store) -> Consumer {
    let builder = reader.consumer().isolation(Isolation::Durable);
    builder.assign(reader.topic("t").unwrap().partitions()).unwrap()
}

#[test]
fn a_careful_reader_that_waits_is_woken_once_the_writer_made_something_durable() {
    let directory = TempDir::new().unwrap();
    let (store, topic) = writer_with_topic(directory.path());
    let reader = Store::open_read_only(directory.path()).unwrap();
    let mut careful = careful_reader_of(&reader);
    let waiting = thread::spawn(move || {
        let begun = Instant::now();
        (careful.poll(Duration::from_secs(5)).unwrap().count(), begun.elapsed())
    });
    send_numbers(&store, &topic, 0..5);
    drop(topic);
    store.close().unwrap();
    let (count, elapsed) = waiting.join().unwrap();
    assert!(count > 0);
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
}

#[test]
fn a_careful_reader_that_never_waits_sees_what_became_durable() {
    let directory = TempDir::new().unwrap();
    let (store, topic) = writer_with_topic(directory.path());
    let reader = Store::open_read_only(directory.path()).unwrap();
    let mut careful = careful_reader_of(&reader);
    send_numbers(&store, &topic, 0..5);
    drop(topic);
    store.close().unwrap();
    assert_eq!(careful.poll(Duration::ZERO).unwrap().count(), 5);
}

#[test]
fn a_wakeup_and_a_close_reach_a_consumer_of_a_reader() {
    let directory = TempDir::new().unwrap();
    let (_store, _topic) = writer_with_topic(directory.path());
    let reader = Store::open_read_only(directory.path()).unwrap();
    let mut consumer = reader_of(&reader);
    let wakeup = consumer.wakeup_handle();
    let waiting = thread::spawn(move || {
        assert!(matches!(consumer.poll(LONG), Err(Error::Wakeup)));
        consumer.poll(LONG)
    });
    thread::sleep(Duration::from_millis(30));
    wakeup.wake();
    thread::sleep(Duration::from_millis(30));
    reader.close().unwrap();
    assert!(matches!(waiting.join().unwrap(), Err(Error::Closed)));
}
