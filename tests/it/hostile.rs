//! Directories that somebody made to do harm, or that accidents made look so: an error with a path or a healthy rest,
//! in bounded memory and time, and nothing outside of the directory touched.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::fs;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ottla::Error;
use ottla::Finding;
use ottla::Record;
use ottla::Store;
use ottla::TopicConfig;
use ottla::inspect;
use ottla::repair;
use tempfile::TempDir;

use crate::golden;
use crate::limits::is_limited;
use crate::limits::run_again_under;
use crate::scratch::scratch;

const SEGMENT: &str = "harmed-0/00000000000000000000.log";

/// A store with two topics, one of which comes to harm.
fn directory() -> (TempDir, PathBuf) {
    let directory = scratch();
    let root = directory.path().join("data");
    let store = Store::open(&root).unwrap();
    for name in ["harmed", "sound"] {
        let topic = store.create_topic(name, TopicConfig::new()).unwrap();
        for n in 0..5 {
            store.producer().send(&topic, &format!("{name} {n}")).unwrap().wait().unwrap();
        }
    }
    store.close().unwrap();
    (directory, root)
}

/// Does everything there is to do with a directory. Errors are as good as anything else here, as long as they come.
fn use_everything(root: &Path) {
    let begun = Instant::now();
    if let Ok(report) = inspect::check(root) {
        for problem in report.problems {
            assert!(problem.path.starts_with(root), "{problem}");
        }
    }
    drop(repair::plan(root));
    for store in [Store::open_read_only(root), Store::open(root)] {
        let Ok(store) = store else {
            continue;
        };
        for topic in store.topics().unwrap() {
            for partition in topic.partitions() {
                drop(partition.read(0));
                drop(partition.offset_for_time(0));
                if let Ok(mut consumer) = store.consumer().assign([&partition]) {
                    drop(consumer.poll(Duration::ZERO));
                }
            }
            drop(topic.describe());
        }
        drop(store.groups());
        if let Ok(topic) = store.topic("sound") {
            // Its neighbour's harm is not its own.
            let partition = topic.partition(0).unwrap();
            assert_eq!(partition.read(4).unwrap().unwrap().value(), Some(&b"sound 4"[..]));
        }
        drop(store.close());
    }
    drop(repair::apply(root));
    // Generous: the machine may be busy. What it guards against takes hours.
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

fn unavailable(store: &Store) -> Vec<PathBuf> {
    let findings = store.health().findings.into_iter();
    let paths = findings.filter_map(|finding| match finding {
        Finding::Unavailable { path, .. } => Some(path),
        _ => None,
    });
    paths.collect()
}

#[test]
fn what_is_no_regular_file_where_one_belongs_is_refused_by_name_at_once() {
    let (_directory, root) = directory();
    let names: Vec<String> = golden::files(&root).into_keys().collect();
    assert!(names.len() > 10, "{names:?}");
    type Plant = fn(&Path);
    let plants: [(&str, Plant); 4] = [
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a pipe", |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success())),
        ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
        ("a link", |path| symlink("/etc/hostname", path).unwrap()),
    ];
    for name in names {
        let path = root.join(&name);
        let Ok(good) = fs::read(&path) else {
            // The marker of a clean shutdown is gone with the first open.
            continue;
        };
        for (what, plant) in plants {
            drop(fs::remove_file(&path));
            plant(&path);
            let begun = Instant::now();
            let found = inspect::check(&root).map(|report| report.problems);
            let store = Store::open(&root);
            let says_so = match &store {
                Err(error) => error.to_string().contains(root.to_str().unwrap()),
                Ok(store) => {
                    let is_told = !store.health().findings.is_empty();
                    // What nobody needs, or can be derived, may be passed over.
                    is_told || !name.ends_with(".log")
                }
            };
            assert!(says_so, "{name} is {what}: {:?} {found:?}", store.err());
            if let (Ok(store), false) = (&store, name.starts_with("sound")) {
                let sound = store.topic("sound").unwrap().partition(0).unwrap();
                assert_eq!(sound.read(0).unwrap().unwrap().value(), Some(&b"sound 0"[..]));
            }
            drop(store);
            assert!(begun.elapsed() < Duration::from_secs(30), "{name} is {what}");
            if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
                fs::remove_dir(&path).unwrap();
            } else {
                drop(fs::remove_file(&path));
            }
            fs::write(&path, &good).unwrap();
        }
    }
    assert_eq!(Store::open(&root).unwrap().topics().unwrap().len(), 2);
}

#[test]
fn a_linked_partition_is_not_followed_and_a_linked_root_is() {
    let (directory, root) = directory();
    let elsewhere = directory.path().join("elsewhere");
    fs::rename(root.join("harmed-0"), &elsewhere).unwrap();
    symlink(&elsewhere, root.join("harmed-0")).unwrap();
    let before = golden::files(&elsewhere);
    for store in [Store::open(&root).unwrap(), Store::open_read_only(&root).unwrap()] {
        let is_reader = store.create_topic("new", TopicConfig::new()).is_err();
        let expected = if is_reader { vec![] } else { vec![root.join("harmed-0")] };
        assert_eq!(unavailable(&store), expected);
        if is_reader {
            // It lists what has a directory.
            assert!(matches!(store.topic("harmed"), Err(Error::UnknownTopic { .. })));
            continue;
        }
        let harmed = store.topic("harmed").unwrap();
        assert!(matches!(harmed.partition(0).unwrap().read(0), Err(Error::Unavailable { .. })));
    }
    drop(repair::apply(&root));
    assert!(golden::files(&elsewhere) == before, "something was written through a link");
    assert!(inspect::check(&root).unwrap().problems.iter().any(|p| p.path.ends_with("harmed-0")));

    fs::remove_file(root.join("harmed-0")).unwrap();
    fs::rename(&elsewhere, root.join("harmed-0")).unwrap();
    let linked = directory.path().join("linked");
    symlink(&root, &linked).unwrap();
    assert_eq!(Store::open(&linked).unwrap().topics().unwrap().len(), 3);
}

#[test]
fn what_may_not_be_read_or_written_is_refused_by_name() {
    let (_directory, root) = directory();
    let is_almighty = {
        let probe = root.join("probe");
        fs::write(&probe, "").unwrap();
        fs::set_permissions(&probe, fs::Permissions::from_mode(0o0)).unwrap();
        let opened = File::open(&probe).is_ok();
        fs::remove_file(&probe).unwrap();
        opened
    };
    if is_almighty {
        println!("SKIPPED: this user may read everything");
        return;
    }
    let path = root.join(SEGMENT);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
    let store = Store::open(&root).unwrap();
    assert_eq!(unavailable(&store), [root.join("harmed-0")]);
    store.close().unwrap();
    use_everything(&root);
}

#[test]
fn names_of_other_encodings_and_of_thousands_of_others_are_left_alone() {
    let (_directory, root) = directory();
    for name in
        [&b"\xff\xfe-0"[..], b"caf\xe9-0", b"orders-\xc0\xaf", b"-0", b"a b-0", b".-0", b"x-01"]
    {
        let name = std::ffi::OsStr::from_bytes(name);
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join("harmed-0").join(name), "foreign").unwrap();
    }
    for n in 0..3_000 {
        fs::create_dir(root.join(format!("foreign.{n}"))).unwrap();
    }
    let begun = Instant::now();
    assert!(inspect::check(&root).unwrap().is_good());
    let store = Store::open(&root).unwrap();
    assert_eq!(store.topics().unwrap().len(), 2);
    store.close().unwrap();
    assert!(repair::apply(&root).unwrap().steps.is_empty());
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert!(root.join("foreign.2999").is_dir());
}

#[test]
fn a_file_of_holes_costs_neither_memory_nor_time() {
    run_again_under("-v 1500000", "hostile::files_of_holes_within_little_memory");
}

#[test]
fn files_of_holes_within_little_memory() {
    if !is_limited() {
        return;
    }
    let (_directory, root) = directory();
    let names: Vec<String> = golden::files(&root).into_keys().collect();
    let (mut planted, mut tried) = (0, 0);
    for name in names.iter().filter(|name| !name.starts_with("sound") && *name != ".lock") {
        let path = root.join(name);
        let good = fs::read(&path).unwrap();
        // The largest file that this file system has, below 2^62.
        tried += 1;
        let file = File::options().write(true).open(&path).unwrap();
        if (40..=62).rev().any(|power| file.set_len(1 << power).is_ok()) {
            planted += 1;
            let begun = Instant::now();
            use_everything(&root);
            println!("{name}: {:?}, peak {} KiB", begun.elapsed(), peak_memory_kib());
        }
        drop(fs::remove_file(&path));
        fs::write(&path, good).unwrap();
        drop(fs::remove_file(root.join(".kafka_cleanshutdown")));
    }
    assert!(planted > 5, "{planted} of {tried}");
    let peak = peak_memory_kib();
    assert!(peak < 600 << 10, "{peak} KiB");
}

/// The most memory that this process has had at a time.
fn peak_memory_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|peak| peak.trim().trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0)
}

/// A batch's front, with a checksum that is right if there is nothing behind it.
fn front(base: i64, length: i32, delta: i32, count: i32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(base.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend(0_i32.to_be_bytes());
    bytes.push(2);
    let mut checked = 0_i16.to_be_bytes().to_vec();
    checked.extend(delta.to_be_bytes());
    checked.extend(1_000_i64.to_be_bytes());
    checked.extend(1_000_i64.to_be_bytes());
    checked.extend((-1_i64).to_be_bytes());
    checked.extend((-1_i16).to_be_bytes());
    checked.extend((-1_i32).to_be_bytes());
    checked.extend(count.to_be_bytes());
    bytes.extend(crc32c::crc32c(&checked).to_be_bytes());
    bytes.extend(checked);
    bytes
}

#[test]
fn fronts_that_lie_about_lengths_counts_and_offsets_cost_nothing() {
    run_again_under("-v 1500000", "hostile::lying_fronts_within_little_memory");
}

#[test]
fn lying_fronts_within_little_memory() {
    if !is_limited() {
        return;
    }
    let numbers = [i32::MIN, -1, 0, 1, 48, 49, 50, i32::MAX - 12, i32::MAX - 11, i32::MAX];
    let (_directory, root) = directory();
    let path = root.join(SEGMENT);
    let mut fronts = Vec::new();
    for number in numbers {
        fronts.push(front(0, number, 0, 1));
        fronts.push(front(0, 49, number, 1));
        fronts.push(front(0, 49, 0, number));
        fronts.push(front(0, 49, number, number));
    }
    for base in [i64::MIN, -1, i64::MAX, i64::MAX - 1, i64::MAX - i64::from(i32::MAX)] {
        fronts.push(front(base, 49, 0, 0));
        fronts.push(front(base, 49, i32::MAX, i32::MAX));
    }
    let behind = [&[][..], &[0xff; 10], &[0x80; 200], &[0xfe, 0xff, 0xff, 0xff, 0x0f]];
    for (index, mut bytes) in fronts.into_iter().enumerate() {
        bytes.extend(behind[index % behind.len()]);
        fs::write(&path, &bytes).unwrap();
        drop(fs::remove_file(root.join(".kafka_cleanshutdown")));
        use_everything(&root);
    }
    // Two gigabytes of holes behind a front that claims them.
    fs::write(&path, front(0, i32::MAX - 12, 0, 1)).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(i32::MAX as u64).unwrap();
    drop(fs::remove_file(root.join(".kafka_cleanshutdown")));
    assert!(!inspect::check(&root).unwrap().is_good());
    drop(Store::open(&root).unwrap());
    let peak = peak_memory_kib();
    assert!(peak < 200 << 10, "{peak} KiB");
}

/// Before the search behind damage had a bound, this took minutes, and a gigabyte of it would have taken weeks: at every
/// seventeenth byte a batch seems to begin that reaches through half of the file, and each was summed.
#[test]
fn a_file_in_which_a_batch_seems_to_begin_everywhere_is_searched_in_bounded_time() {
    let (_directory, root) = directory();
    let path = root.join(SEGMENT);
    const LEN: usize = 24 << 20;
    let mut pattern = [0; 17];
    pattern[8..12].copy_from_slice(&(LEN as i32 / 2).to_be_bytes());
    pattern[16] = 2;
    let mut bytes: Vec<u8> = pattern.iter().copied().cycle().take(LEN).collect();
    // The first one is no batch at all.
    bytes[..17].fill(0xff);
    fs::write(&path, bytes).unwrap();
    // On a thread of its own: a search without a bound is not waited for, but found out.
    let (ended, ends) = mpsc::channel();
    let searching = thread::spawn(move || {
        assert!(!inspect::check(&root).unwrap().is_good());
        let reader = Store::open_read_only(&root).unwrap();
        let partition = reader.topic("harmed").unwrap().partition(0).unwrap();
        assert!(!matches!(partition.read(0), Ok(Some(_))));
        drop((partition, reader));
        drop(fs::remove_file(root.join(".kafka_cleanshutdown")));
        drop(Store::open(&root).unwrap());
        // Nobody may be waiting any more.
        ended.send(()).unwrap_or_default();
    });
    let outcome = ends.recv_timeout(Duration::from_secs(60));
    assert_ne!(outcome, Err(RecvTimeoutError::Timeout), "it is searched for more than a minute");
    searching.join().unwrap();
}

#[test]
fn checkpoints_that_point_anywhere_are_not_followed() {
    let (_directory, root) = directory();
    for offset in [6, 1 << 40, i64::MAX - 1, i64::MAX] {
        for name in [
            "recovery-point-offset-checkpoint",
            "log-start-offset-checkpoint",
            "replication-offset-checkpoint",
            "cleaner-offset-checkpoint",
        ] {
            let path = root.join(name);
            let good = fs::read(&path).ok();
            fs::write(&path, format!("0\n1\nharmed 0 {offset}\n")).unwrap();
            for round in 0..2 {
                let store = Store::open(&root).unwrap();
                let harmed = store.topic("harmed").unwrap();
                let read = harmed.partition(0).unwrap().read(0).unwrap();
                assert_eq!(
                    read.unwrap().value(),
                    Some(&b"harmed 0"[..]),
                    "{name} {offset} {round}"
                );
                drop(harmed);
                drop(store.close());
            }
            match good {
                Some(good) => fs::write(&path, good).unwrap(),
                None => drop(fs::remove_file(&path)),
            }
        }
    }
}

#[test]
fn segments_and_indexes_of_others_yield_no_wrong_record() {
    let (_directory, root) = directory();
    let sound = fs::read(root.join("sound-0/00000000000000000000.log")).unwrap();
    fs::write(root.join("harmed-0/00000000000000000900.log"), sound).unwrap();
    let file = File::options().write(true).open(root.join("harmed-0/00000000000000000000.index"));
    file.unwrap().write_all_at(&[0, 0, 0, 3, 0, 0, 0, 7], 0).unwrap();
    let report = inspect::check(&root).unwrap();
    assert!(!report.is_good());
    let store = Store::open(&root).unwrap();
    let partition = store.topic("harmed").unwrap().partition(0).unwrap();
    for offset in 0..5 {
        let value = format!("harmed {offset}");
        let found = partition.read(offset).unwrap().unwrap();
        assert_eq!(found.value(), Some(value.as_bytes()));
    }
    assert!(!matches!(partition.read(900), Ok(Some(_))));
    drop((partition, store));
    use_everything(&root);
    drop(Record::new("nothing"));
}
