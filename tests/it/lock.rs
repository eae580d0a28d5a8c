//! One writer at a time: among our own, and between us and a JVM.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "these are tests")]

use std::any::Any;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use ottla::Error;
use ottla::Record;
use ottla::Store;
use ottla::TopicConfig;
use tempfile::TempDir;

use crate::read_only::Helper;
use crate::read_only::orders;
use crate::read_only::tell;
use crate::read_only::wait_for_parent;
use crate::waiting::SOON;

fn assert_locked(path: &Path, by: Option<u32>) {
    match Store::open(path) {
        Err(Error::Locked { path: named, holder }) => {
            assert_eq!(named, path);
            if by.is_some() {
                assert_eq!(holder, by);
            }
            assert!(Error::Locked { path: named, holder }.is_retriable());
        }
        other => panic!("{other:?}"),
    }
}

/// Not a test of its own: the child that tries to open, and keeps what it got until it is let go.
#[test]
fn child_opener() {
    let Some((data, _)) = orders() else { return };
    match Store::open(data) {
        Ok(_store) => {
            tell("opened");
            wait_for_parent();
        }
        Err(Error::Locked { holder, .. }) => tell(&format!("locked by {}", holder.unwrap_or(0))),
        Err(other) => tell(&other.to_string()),
    }
}

#[test]
fn a_second_opener_in_the_same_process_is_refused_and_told_who_has_it() {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path()).unwrap();
    for _ in 0..3 {
        assert_locked(directory.path(), Some(std::process::id()));
    }
    let error = Store::open(directory.path()).unwrap_err().to_string();
    assert!(error.contains(directory.path().to_str().unwrap()), "{error}");
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    store.create_topic("t", TopicConfig::new()).unwrap();
    store.close().unwrap();
    Store::open(directory.path()).unwrap();
}

#[test]
fn the_same_directory_by_another_path_is_still_locked() {
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("data");
    let _store = Store::open(&data).unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&data, &link).unwrap();
    assert!(matches!(Store::open(&link), Err(Error::Locked { .. })));
    let roundabout = directory.path().join("data/../data");
    assert!(matches!(Store::open(roundabout), Err(Error::Locked { .. })));
}

#[test]
fn an_opener_in_another_process_is_refused_and_told_who_has_it() {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let mut child = Helper::start("lock::child_opener", directory.path(), "");
    assert_eq!(child.hear(), format!("locked by {}", std::process::id()));
    child.finish();
    store.close().unwrap();
    let mut child = Helper::start("lock::child_opener", directory.path(), "");
    assert_eq!(child.hear(), "opened");
    assert_locked(directory.path(), Some(child.id()));
    child.finish();
    Store::open(directory.path()).unwrap();
}

#[test]
fn the_lock_of_a_dead_process_is_no_obstacle() {
    let directory = TempDir::new().unwrap();
    let mut child = Helper::start("lock::child_opener", directory.path(), "");
    assert_eq!(child.hear(), "opened");
    let dead = child.id();
    assert_locked(directory.path(), Some(dead));
    child.kill();
    let text = fs::read_to_string(directory.path().join(".lock")).unwrap();
    assert!(text.contains(&dead.to_string()), "the file of the dead is still there: {text}");
    let _store = Store::open(directory.path()).unwrap();
    assert_locked(directory.path(), Some(std::process::id()));
}

#[test]
fn whatever_a_lock_file_says_it_is_no_obstacle() {
    for text in [&b""[..], b"pid=1\n", b"pid=99999999999\n", b"\0\xff\xfe", &[b'x'; 100_000]] {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join(".lock"), text).unwrap();
        let store = Store::open(directory.path()).unwrap();
        assert_locked(directory.path(), Some(std::process::id()));
        drop(store);
    }
}

#[test]
fn a_lock_that_was_refused_changes_nothing() {
    let directory = TempDir::new().unwrap();
    let _store = Store::open(directory.path()).unwrap();
    let before = crate::golden::files(directory.path());
    assert_locked(directory.path(), None);
    assert!(crate::golden::files(directory.path()) == before);
}

#[test]
fn the_lock_is_held_until_the_last_handle_is_gone() {
    type Handle = Box<dyn Any>;
    type Make = (&'static str, fn(&Store) -> Handle);
    let make: [Make; 9] = [
        ("store", |store| Box::new(store.clone())),
        ("topic", |store| Box::new(store.topic("t").unwrap())),
        ("partition", |store| Box::new(store.topic("t").unwrap().partition(0).unwrap())),
        ("producer", |store| Box::new(store.producer())),
        ("consumer", |store| {
            Box::new(store.consumer().assign(store.topic("t").unwrap().partitions()).unwrap())
        }),
        ("builder", |store| Box::new(store.consumer())),
        ("delivery", |store| {
            Box::new(store.producer().send(&store.topic("t").unwrap(), "v").unwrap())
        }),
        ("records", |store| {
            let partitions = store.topic("t").unwrap().partitions();
            let mut consumer = store.consumer().assign(partitions).unwrap();
            Box::new(consumer.poll(Duration::ZERO).unwrap())
        }),
        ("message", |store| {
            let partitions = store.topic("t").unwrap().partitions();
            let mut consumer = store.consumer().assign(partitions).unwrap();
            let records = consumer.poll(Duration::ZERO).unwrap();
            Box::new(records.iter().next().unwrap().detach())
        }),
    ];
    for is_closed in [false, true] {
        for (name, make) in make {
            let directory = TempDir::new().unwrap();
            let store = Store::open(directory.path()).unwrap();
            let topic = store.create_topic("t", TopicConfig::new()).unwrap();
            store.producer().send(&topic, Record::new("v")).unwrap().wait().unwrap();
            drop(topic);
            let handle = make(&store);
            if is_closed {
                store.close().unwrap();
            } else {
                drop(store);
            }
            assert!(
                matches!(Store::open(directory.path()), Err(Error::Locked { .. })),
                "a {name} is held, closed: {is_closed}"
            );
            drop(handle);
            // Other tests start programs, and `a_close_gives_the_lock_back_…` says what that may do.
            let begun = Instant::now();
            while let Err(error) = Store::open(directory.path()) {
                let is_over = begun.elapsed() > Duration::from_secs(2);
                assert!(!is_over, "a {name} was let go, closed: {is_closed}: {error}");
            }
        }
    }
}

#[test]
fn a_held_wakeup_or_metadata_keeps_nothing_locked() {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    let metadata = store.producer().send(&topic, Record::new("v")).unwrap().wait().unwrap();
    let wakeup = store.consumer().assign(topic.partitions()).unwrap().wakeup_handle();
    drop(topic);
    store.close().unwrap();
    Store::open(directory.path()).unwrap();
    wakeup.wake();
    assert_eq!((metadata.topic(), metadata.offset()), ("t", 0));
}

#[test]
fn a_temporary_stores_directory_goes_with_its_last_handle() {
    let store = Store::temporary().unwrap();
    let path = store.path().to_path_buf();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    store.producer().send(&topic, Record::new("v")).unwrap().wait().unwrap();
    store.close().unwrap();
    assert!(path.exists(), "a topic is still held");
    drop(topic);
    assert!(!path.exists());
}

/// Whoever starts a program has for a moment a child with copies of all its descriptors, the lock's among
/// them. An open file description lock lives as long as the last copy, unless it is given back by name.
#[test]
fn a_close_gives_the_lock_back_while_a_child_is_being_started() {
    let directory = TempDir::new().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    Command::new("true").status().unwrap();
                }
            });
        }
        let refusals = (0..300)
            .filter(|_| match Store::open(directory.path()) {
                Ok(store) => store.close().is_err(),
                Err(_) => true,
            })
            .count();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(refusals, 0, "of 300 openings in turn");
    });
}

#[test]
fn readers_need_no_lock_and_take_none() {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let _readers: Vec<Store> =
        (0..3).map(|_| Store::open_read_only(directory.path()).unwrap()).collect();
    store.close().unwrap();
    let _writer = Store::open(directory.path()).unwrap();
}

const PYTHON: &str = "
import fcntl, sys
file = open(sys.argv[1], 'a+b')
try:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    print('refused', flush=True)
else:
    print('held', flush=True)
    sys.stdin.read()
";

/// What Kafka's own `FileLock` does.
const JAVA: &str = "
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;

public class Locker {
    public static void main(String[] args) throws Exception {
        FileChannel channel = FileChannel.open(
            Path.of(args[0]), StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE);
        FileLock lock = channel.tryLock();
        System.out.println(lock == null ? \"refused\" : \"held\");
        if (lock != null) {
            while (System.in.read() >= 0) { }
        }
    }
}
";

/// A process that takes a POSIX record lock on a file, and what became of it.
struct Foreigner {
    child: Child,
    answer: String,
}

impl Foreigner {
    fn start(mut command: Command, file: &Path) -> Foreigner {
        let mut child =
            command.arg(file).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut answer = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut answer).unwrap();
        Foreigner { child, answer: answer.trim().to_owned() }
    }

    fn finish(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Foreigner {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn assert_locks_exclude_each_other(command: impl Fn() -> Command) {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path()).unwrap();
    store.create_topic("t", TopicConfig::new()).unwrap();
    let file = directory.path().join(".lock");
    let foreigner = Foreigner::start(command(), &file);
    assert_eq!(foreigner.answer, "refused", "while we hold the lock");
    foreigner.finish();
    assert_locked(directory.path(), Some(std::process::id()));
    store.close().unwrap();

    let foreigner = Foreigner::start(command(), &file);
    assert_eq!(foreigner.answer, "held", "after we let go of it");
    let begun = Instant::now();
    assert_locked(directory.path(), None);
    assert!(begun.elapsed() < SOON, "we do not wait for the lock");
    foreigner.finish();
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.topics().unwrap().len(), 1);
}

fn is_there(program: &str, version: &str) -> bool {
    let output = Command::new(program).arg(version).output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn a_posix_record_lock_excludes_us_and_we_exclude_it() {
    if !is_there("python3", "--version") {
        println!("SKIPPED: there is no python3 to take a POSIX lock with");
        return;
    }
    assert_locks_exclude_each_other(|| {
        let mut command = Command::new("python3");
        command.args(["-c", PYTHON]);
        command
    });
}

#[test]
fn a_jvm_excludes_us_and_we_exclude_it() {
    let source = TempDir::new().unwrap();
    let path = source.path().join("Locker.java");
    fs::write(&path, JAVA).unwrap();
    let compiled = Command::new("javac")
        .args(["-J-XX:TieredStopAtLevel=1", "-d"])
        .arg(source.path())
        .arg(&path)
        .output();
    if !compiled.is_ok_and(|output| output.status.success()) || !is_there("java", "-version") {
        println!("SKIPPED: there is no JDK to take Kafka's lock with");
        return;
    }
    assert_locks_exclude_each_other(|| {
        let mut command = Command::new("java");
        command
            .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"])
            .arg(source.path())
            .arg("Locker");
        command
    });
}
