//! Real file systems that fill up, fail, and lose their power.
//!
//! What needs root, Linux, or a program that is not there is skipped, and says so; `.ci/run` counts what was. A *writer*
//! is this test binary run again: it appends, waits, and tells on its standard output what was acknowledged, which is
//! collected outside of the disk that is about to go.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that fails should say where"
)]
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ottla::Durability;
use ottla::Error;
use ottla::Finding;
use ottla::Record;
use ottla::Store;
use ottla::TopicConfig;
use ottla::inspect;
use parking_lot::Mutex;

use crate::chance::told;
use crate::killing::values_of;
use crate::mounted::Kind;
use crate::mounted::Mounted;
use crate::mounted::runs;
use crate::mounted::skipped;

const WRITER: &str = "real_disks::child_that_writes_to_a_disk_that_may_go";

/// What the tests below run in a process of its own; does nothing in an ordinary run.
#[test]
fn child_that_writes_to_a_disk_that_may_go() {
    let Ok(root) = std::env::var("OTTLA_REAL_DISK") else { return };
    let level = match std::env::var("OTTLA_REAL_LEVEL").as_deref() {
        Ok("buffered") => Durability::Buffered,
        _ => Durability::Synced,
    };
    let store = match Store::open(&root) {
        Ok(store) => store,
        Err(error) => return println!("@error {error}"),
    };
    let config = TopicConfig::new().partitions(2).segment_bytes(64 << 10);
    let topic = match store.topic_or_create("t", config) {
        Ok(topic) => topic,
        Err(error) => return println!("@error {error}"),
    };
    // Through the map, or by writes.
    let producer = store.producer_builder().durability(level).build();
    for n in 0..told("OTTLA_REAL_COUNT").unwrap_or(u64::MAX) {
        let number = (n % 2) as u32;
        let value = format!("{n}.{}", "v".repeat((n % 700) as usize));
        let sent = producer.send(&topic, Record::new(&value).partition(number));
        let sent = match (sent, level) {
            (Ok(delivery), Durability::Synced) => delivery.wait().map(|told| Some(told.offset())),
            // Many share a sync, and are durable once it returns.
            (Ok(_), _) if n % 50 == 49 => store
                .sync()
                .map(|()| Some(topic.partition(number).unwrap().watermarks().unwrap().1 - 1)),
            (Ok(_), _) => Ok(None),
            (Err(error), _) => Err(error),
        };
        match sent {
            Ok(Some(offset)) => {
                // One write each, so that a line is whole or not there.
                let line = format!("@{number} {offset} {n}\n");
                std::io::stdout().write_all(line.as_bytes()).unwrap();
            }
            Ok(None) => {}
            Err(error) => {
                println!("@error {error}");
                break;
            }
        }
    }
    if let Err(error) = store.close() {
        println!("@error {error}");
    }
}

/// What a writer has told: of each partition the last offset that was acknowledged, and what lies there; and errors.
#[derive(Clone, Debug, Default)]
struct Told {
    acknowledged: BTreeMap<u32, BTreeMap<i64, u64>>,
    errors: Vec<String>,
}

impl Told {
    fn note(&mut self, line: &str) {
        let Some((_, told)) = line.trim_end().split_once('@') else { return };
        if let Some(error) = told.strip_prefix("error ") {
            return self.errors.push(error.to_owned());
        }
        let numbers: Vec<u64> = told.split(' ').filter_map(|n| n.parse().ok()).collect();
        if let [partition, offset, n] = numbers[..] {
            let log = self.acknowledged.entry(partition as u32).or_default();
            log.insert(offset as i64, n);
        }
    }

    fn count(&self) -> usize {
        self.acknowledged.values().map(BTreeMap::len).sum()
    }
}

fn writer(root: &Path, level: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", WRITER, "--nocapture"])
        .env("OTTLA_REAL_DISK", root)
        .env("OTTLA_REAL_LEVEL", level)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

fn each_line(stdout: impl std::io::Read, mut note: impl FnMut(&str)) {
    let mut lines = BufReader::new(stdout);
    let mut line = String::new();
    // A line without its end was never written whole.
    while lines.read_line(&mut line).unwrap_or(0) > 0 && line.ends_with('\n') {
        note(&line);
        line.clear();
    }
}

fn collect(stdout: impl std::io::Read, told: &mut Told) {
    each_line(stdout, |line| told.note(line));
}

/// Opens what is left: everything acknowledged is there, offsets follow one another, and it goes on.
fn check(root: &Path, told: &Told, what: &str) {
    let store = Store::open(root).unwrap_or_else(|error| panic!("{what}: {error}"));
    let is_wrong = |finding: &&Finding| !matches!(finding, Finding::Cut { .. });
    assert_eq!(store.health().findings.iter().find(is_wrong), None, "{what}");
    let Ok(topic) = store.topic("t") else {
        assert_eq!(told.count(), 0, "{what}: the topic is gone");
        return;
    };
    for partition in topic.partitions() {
        let found = values_of(&store, &partition, what);
        for (offset, n) in told.acknowledged.get(&partition.partition()).into_iter().flatten() {
            let value = found.get(*offset as usize);
            let is_there = value.is_some_and(|value| value.starts_with(format!("{n}.").as_bytes()));
            assert!(is_there, "{what}: {} at {offset} is not {n}", partition.partition());
        }
    }
    let producer = store.producer();
    producer.send(&topic, Record::new("more").partition(0)).unwrap().wait().unwrap();
    drop((topic, producer));
    store.close().unwrap();
    let report = inspect::check(root).unwrap();
    assert!(report.problems.is_empty(), "{what}: {:?}", report.problems);
}

fn cuts() -> usize {
    told("OTTLA_CUTS").map_or(4, |cuts| cuts as usize)
}

/// Somebody who writes, and what he has told so far.
struct Running {
    child: Child,
    told: Arc<Mutex<Told>>,
    reader: thread::JoinHandle<()>,
}

impl Running {
    fn start(root: &Path, level: &str) -> Running {
        let mut child = writer(root, level).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let told = Arc::new(Mutex::new(Told::default()));
        let noted = Arc::clone(&told);
        let reader = thread::spawn(move || each_line(stdout, |line| noted.lock().note(line)));
        Running { child, told, reader }
    }

    fn told(&self) -> Told {
        self.told.lock().clone()
    }

    fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Gives all that was told until it was killed.
    fn kill(mut self) -> Told {
        drop((self.child.kill(), self.child.wait()));
        self.reader.join().unwrap();
        self.told.lock().clone()
    }
}

#[test]
fn a_file_system_that_is_shut_down_under_a_writer_keeps_what_was_acknowledged() {
    for kind in [Kind::Ext4, Kind::Xfs] {
        let Some(mounted) = Mounted::new(kind) else { continue };
        let (cuts, mut count, mut chance) = (cuts(), 0, 7_u64);
        for cut in 0..cuts {
            let root = mounted.path().join(format!("data-{}", cut % 3));
            let level = ["synced", "buffered"][cut % 2];
            drop(fs::remove_dir_all(&root));
            let running = Running::start(&root, level);
            // At any moment, not at a certain one.
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            thread::sleep(Duration::from_millis(20 + (chance >> 33) % 150));
            // What is told later does not count: a sync that is under way when the journal is given up may find it
            // clean and return as if all were well, which no power cut does.
            let told = running.told();
            if let Err(error) = mounted.shut_down() {
                drop(running.kill());
                return skipped(&format!("this kernel cannot shut {kind:?} down: {error}"));
            }
            // It goes on until it is told that the disk has failed, if it is not killed before.
            thread::sleep(Duration::from_millis(20));
            drop(running.kill());
            assert!(mounted.unmount() && mounted.mount(), "it cannot be mounted again");
            count += told.count();
            check_if_there(&root, &told, &format!("{kind:?}, cut {cut}, {level}"));
        }
        println!("{kind:?}: {cuts} power cuts, {count} acknowledgements, none lost");
    }
}

fn check_if_there(root: &Path, told: &Told, what: &str) {
    if root.exists() {
        check(root, told, what);
    } else {
        assert_eq!(told.count(), 0, "{what}: the directory is gone");
    }
}

/// As [`check_if_there`], where writes may have failed for a while: pages that the kernel gave up are gone from the midst
/// of what was never durable, and with whole batches behind them that is damage, not a torn end. It is told by the first
/// opening, whose account is kept in `damage`, and by each read afterwards, at those places and no others.
fn check_with_damage(root: &Path, told: &Told, damage: &mut Vec<(PathBuf, u64)>, what: &str) {
    if !root.exists() {
        return check_if_there(root, told, what);
    }
    let store = Store::open(root).unwrap_or_else(|error| panic!("{what}: {error}"));
    damage.extend(store.health().findings.iter().filter_map(|finding| match finding {
        Finding::Damage { path, position, .. } => Some((path.clone(), *position)),
        _ => None,
    }));
    if damage.is_empty() {
        drop(store);
        return check(root, told, what);
    }
    let topic = store.topic("t").unwrap_or_else(|error| panic!("{what}: {error}"));
    for partition in topic.partitions() {
        let acknowledged = told.acknowledged.get(&partition.partition());
        for offset in 0..partition.watermarks().unwrap().1 {
            let n = acknowledged.and_then(|log| log.get(&offset));
            let is_right =
                |value: &[u8]| n.is_none_or(|n| value.starts_with(format!("{n}.").as_bytes()));
            let is_fine = match partition.read(offset) {
                Ok(Some(record)) => record.value().is_some_and(is_right),
                Err(Error::Corrupt { path, position, .. }) => {
                    n.is_none() && damage.contains(&(path, position))
                }
                Ok(None) | Err(_) => false,
            };
            assert!(is_fine, "{what}: {} at {offset}, acknowledged: {n:?}", partition.partition());
        }
    }
    let producer = store.producer();
    producer.send(&topic, Record::new("more").partition(0)).unwrap().wait().unwrap();
    store.close().unwrap();
}

/// Writes do not reach the device any more, and a sync is told so once: afterwards the cache shows as clean what is
/// nowhere. Whatever was acknowledged, also while it failed, is there for the next process, and behind the next mount.
#[test]
fn a_device_that_takes_no_writes_any_more_loses_nothing_that_was_acknowledged() {
    for kind in Kind::ALL {
        let Some(mounted) = Mounted::failing(kind) else { continue };
        let (cuts, mut count, mut chance) = (cuts(), 0, 9_u64);
        let (mut errors, mut mounts, mut damages) = (0, 0, 0);
        for cut in 0..cuts {
            let root = mounted.path().join(format!("data-{}", cut % 3));
            let level = ["synced", "buffered"][cut % 2];
            drop(fs::remove_dir_all(&root));
            let mut running = Running::start(&root, level);
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            thread::sleep(Duration::from_millis(30 + (chance >> 33) % 150));
            mounted.fail(true);
            // Short, so that as a rule only the data are hit, and the file system does not give up; or until all ends.
            for _ in 0..[1, 5, 100][cut % 3] {
                thread::sleep(Duration::from_millis(2));
                if running.is_over() {
                    break;
                }
            }
            mounted.fail(false);
            thread::sleep(Duration::from_millis(20));
            let told = running.kill();
            let what = format!("{kind:?}, failure {cut}, {level}");
            let is_writable = fs::write(mounted.path().join("probe"), "").is_ok();
            let mut damage = Vec::new();
            if is_writable {
                // In the same cache, which may show what is not on the device.
                check_with_damage(&root, &told, &mut damage, &what);
            }
            assert!(mounted.unmount() && mounted.mount(), "{what}: it cannot be mounted again");
            check_with_damage(&root, &told, &mut damage, &what);
            count += told.count();
            errors += usize::from(!told.errors.is_empty());
            mounts += usize::from(!is_writable);
            damages += usize::from(!damage.is_empty());
        }
        println!(
            "{kind:?}: {cuts} times no writes, told to the writer {errors} times, to the file system {mounts} times, \
             {count} acknowledgements, none lost; {damages} times something else was"
        );
    }
}

const READER: &str = "real_disks::child_that_reads_from_a_disk_that_fails_for_a_while";

/// What the test below runs in a process of its own, which a signal might end; does nothing in an ordinary run.
#[test]
fn child_that_reads_from_a_disk_that_fails_for_a_while() {
    let Ok(root) = std::env::var("OTTLA_REAL_READS") else { return };
    let wait = || drop(std::io::stdin().read_line(&mut String::new()));
    let store = Store::open(&root).unwrap();
    let topic = store.topic("t").unwrap();
    let (cold, live) = (topic.partition(0).unwrap(), topic.partition(1).unwrap());
    let producer = store.producer();
    let send = || producer.send(&topic, Record::new("live").partition(1)).unwrap().wait().unwrap();
    send();
    let end = cold.watermarks().unwrap().1;
    println!("@ready");
    wait();
    // Nothing can be read. Each way to read says so, once and again.
    let mut consumer = store.consumer().assign([&cold]).unwrap();
    let mut told = Vec::new();
    for _ in 0..2 {
        told.push(("poll", consumer.poll(Duration::ZERO).map(drop)));
        for n in 1..8 {
            told.push(("read", cold.read(end * n / 8).map(drop)));
        }
        told.push(("offset_for_time", cold.offset_for_time(1 << 60).map(drop)));
    }
    for (what, outcome) in told {
        match outcome {
            Ok(()) => println!("@read"),
            Err(Error::Io { path, .. }) if path.starts_with(&root) => println!("@failed {what}"),
            Err(other) => println!("@odd {what}: {other}"),
        }
    }
    // What needs nothing of the disk but writes goes on, and what was just sent is read from memory.
    let sent = send().offset();
    let read = live.read(sent).unwrap().unwrap();
    assert_eq!(read.value(), Some(&b"live"[..]));
    println!("@done");
    wait();
    let mut count = 0;
    loop {
        let records = consumer.poll(Duration::ZERO).unwrap();
        if records.is_empty() {
            break;
        }
        for message in &records {
            assert_eq!(message.offset(), count);
            let value = message.value().unwrap();
            assert!(value.starts_with(format!("{count}.").as_bytes()));
            count += 1;
        }
    }
    assert_eq!(count, end);
    send();
    assert!(store.health().is_good(), "{:?}", store.health());
    drop((topic, cold, live, producer, consumer));
    store.close().unwrap();
    println!("@closed");
}

/// A consumer came to segments that the device could not read for a while. They are mapped, so the touch of the first
/// page was a SIGBUS, and took the whole process with it, whatever else that did.
#[test]
fn a_device_that_cannot_read_for_a_while_is_an_error_and_no_signal() {
    for kind in Kind::ALL {
        let Some(mounted) = Mounted::failing(kind) else { continue };
        let root = mounted.path().join("data");
        {
            let store = Store::open(&root).unwrap();
            let config = TopicConfig::new().partitions(2).segment_bytes(256 << 10);
            let topic = store.create_topic("t", config).unwrap();
            let producer = store.producer_builder().durability(Durability::Buffered).build();
            for n in 0..8000 {
                let value = format!("{n}.{}", "v".repeat(1000));
                producer.send(&topic, Record::new(&value).partition(0)).unwrap();
            }
            drop((topic, producer));
            store.close().unwrap();
        }
        // Or it would all come from memory.
        assert!(mounted.unmount() && mounted.mount(), "it cannot be mounted again");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", READER, "--nocapture"])
            .env("OTTLA_REAL_READS", &root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut go_on = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told_until = |end: &str| -> Vec<String> {
            let lines = lines.by_ref().map_while(Result::ok);
            let told = lines.filter_map(|line| Some(line.split_once('@')?.1.to_owned()));
            told.take_while(|line| line != end).collect()
        };
        assert_eq!(told_until("ready"), Vec::<String>::new(), "{kind:?}");
        // Then it is the bytes that are missing, not what the file system knows of the files.
        for entry in fs::read_dir(root.join("t-0")).unwrap() {
            entry.unwrap().metadata().unwrap();
        }
        mounted.fail_reads(true);
        go_on.write_all(b"\n").unwrap();
        let told = told_until("done");
        mounted.fail_reads(false);
        go_on.write_all(b"\n").unwrap();
        let closed = told_until("closed");
        let status = child.wait().unwrap();
        assert!(status.success(), "{kind:?}: {status:?}, told {told:?}");
        assert_eq!(closed, Vec::<String>::new(), "{kind:?}");
        let failed =
            |what: &str| told.iter().filter(|line| **line == format!("failed {what}")).count();
        // Some of it was read ahead.
        let are_known = told.iter().all(|line| line == "read" || line.starts_with("failed "));
        assert!(are_known, "{kind:?}: {told:?}");
        assert!(failed("poll") + failed("read") >= 8, "{kind:?}: {told:?}");
        let count = told.iter().filter(|line| line.starts_with("failed ")).count();
        println!("{kind:?}: {count} reads of {} failed, and all is there again", told.len());
    }
}

#[test]
fn a_full_file_system_is_an_error_and_appends_go_on_once_there_is_space() {
    for kind in Kind::ALL {
        let Some(mounted) = Mounted::new(kind) else { continue };
        let root = mounted.path().join("data");
        let store = Store::open(&root).unwrap();
        let topic = store.create_topic("t", TopicConfig::new().segment_bytes(256 << 10)).unwrap();
        let mut ballast = mounted.fill(3);
        let mut sent = 0;
        for level in [Durability::Synced, Durability::Buffered] {
            let producer = store.producer_builder().durability(level).build();
            let before = sent;
            let refused = (0..100_000).find_map(|_| {
                let value = format!("{sent}.{}", "v".repeat(3000));
                let outcome = producer.send(&topic, Record::new(&value)).and_then(|d| d.wait());
                sent += i32::from(outcome.is_ok());
                outcome.err()
            });
            assert!(matches!(refused, Some(Error::OutOfSpace { .. })), "{kind:?}: {refused:?}");
            assert!(sent > before, "{kind:?}: nothing could be sent");
            if level == Durability::Synced {
                ballast.drain(..4).for_each(|file| fs::remove_file(file).unwrap());
            }
        }
        drop(topic);
        // What a close needs may not fit either; then the next open recovers.
        drop(store.close());
        let store = Store::open_read_only(&root).unwrap();
        let end = store.topic("t").unwrap().partition(0).unwrap().watermarks().unwrap().1;
        assert_eq!(end, i64::from(sent), "{kind:?}");
    }
}

#[test]
fn a_limit_on_the_length_of_files_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    // Ignored, or it kills: a host that sets a limit knows that. Inherited by the writer.
    let script = "trap '' XFSZ; ulimit -f 96; exec \"$0\" --exact \"$1\" --nocapture";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(WRITER)
        .env("OTTLA_REAL_DISK", &root)
        .env("OTTLA_REAL_LEVEL", "synced")
        .output();
    let Ok(output) = output else { return skipped("there is no shell") };
    let mut told = Told::default();
    collect(&output.stdout[..], &mut told);
    assert!(output.status.success(), "{:?}", output.status);
    // A segment of 64 KiB fits into 96 blocks of 512 or 1024 bytes, or does not; either way nothing is lost.
    check_if_there(&root, &told, "file limit");
}

/// Each call at each of its times, with each error: no panic, no signal, an error that is told, nothing lost.
#[test]
fn whichever_call_to_the_system_fails_nothing_acknowledged_is_lost() {
    if !runs("strace", &["-o", "/dev/null", "true"]) {
        return skipped("strace cannot be used here");
    }
    let directory = tempfile::tempdir().unwrap();
    let times = std::env::var("OTTLA_TIMES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_u32);
    let (mut runs_done, mut told_of) = (0, 0);
    for (calls, errors) in [
        ("pwrite64", &["EIO", "ENOSPC", "EINTR"][..]),
        ("fdatasync", &["EIO", "ENOSPC", "EINTR"]),
        ("fsync", &["EIO", "EINTR"]),
        ("ftruncate", &["EIO", "EINTR"]),
        ("fallocate", &["ENOSPC", "EINTR"]),
        ("rename,renameat,renameat2", &["EIO", "ENOSPC"]),
        ("unlink,unlinkat", &["EIO"]),
        ("mkdir,mkdirat", &["ENOSPC"]),
    ] {
        for (error, time) in errors.iter().flat_map(|e| (0..times).map(move |t| (e, 1 + 3 * t))) {
            let what = format!("{calls}: {error} at {time}");
            let root = directory.path().join(format!("data-{runs_done}"));
            let level = ["synced", "buffered"][runs_done % 2];
            let output = Command::new("strace")
                .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")])
                .args(["-e", &format!("inject={calls}:error={error}:when={time}")])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", WRITER, "--nocapture"])
                .env("OTTLA_REAL_DISK", &root)
                .env("OTTLA_REAL_LEVEL", level)
                .env("OTTLA_REAL_COUNT", "200")
                .output()
                .unwrap();
            let mut told = Told::default();
            collect(&output.stdout[..], &mut told);
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{what}: {:?} {text}", output.status);
            told_of += usize::from(!told.errors.is_empty());
            if *error == "EINTR" {
                assert!(told.errors.is_empty(), "{what}: {:?}", told.errors);
            }
            check_if_there(&root, &told, &what);
            fs::remove_dir_all(&root).unwrap_or_default();
            runs_done += 1;
        }
    }
    println!("{runs_done} runs, {told_of} of them told of an error, nothing lost");
    assert!(told_of * 4 > runs_done, "the calls hardly failed: {told_of}");
}
