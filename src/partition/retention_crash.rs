//! Deletions on disks that fail or die at every effect, and in machines that lose their power; and a log that is
//! appended to, deleted from, reopened and read at random, beside a model of it.
//!
//! `OTTLA_SEED` plays one life again, `OTTLA_LIVES` sets how many are played.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use crate::BudgetPolicy;
use crate::Durability;
use crate::Error;
use crate::Finding;
use crate::OffsetReset;
use crate::Record;
use crate::Start;
use crate::Store;
use crate::StoreBuilder;
use crate::TopicConfig;
use crate::TopicPartition;
use crate::chance::Chance;
use crate::chance::told;
use crate::clock::Clock;
use crate::inspect;
use crate::partition::compaction_model::scratch;
use crate::storage::disk::Disk;
use crate::storage::faults::Script;
use crate::storage::faults::copy_tree;
use crate::storage::file_name;

const RECORDS: i64 = 60;

fn builder(root: &Path) -> StoreBuilder {
    // Syncs and deletions happen when they are asked for: not by the clock, and not in the background.
    Store::builder(root)
        .durability(Durability::Buffered)
        .checkpoint_interval(Duration::from_secs(3600))
        .disk(Disk::failing_once(u64::MAX, 0))
}

fn value(offset: i64) -> Vec<u8> {
    format!("{offset:>60}").into_bytes()
}

fn append(store: &Store, offsets: std::ops::Range<i64>) {
    let topic = store.topic("t").unwrap();
    for offset in offsets {
        let sent = store.producer().send(&topic, Record::new(&value(offset))).unwrap();
        assert_eq!(sent.wait().unwrap().offset(), offset);
    }
}

/// Writes a log of several segments, the last one begun, closed.
fn prepared(root: &Path, delay_ms: &str) {
    let store = builder(root).open().unwrap();
    let config = TopicConfig::new().segment_bytes(1024).retention_bytes(3000);
    store.create_topic("t", config.set("file.delete.delay.ms", delay_ms).unwrap()).unwrap();
    append(&store, 0..RECORDS);
    store.close().unwrap();
}

fn fresh_copy(from: &Path, name: &str) -> PathBuf {
    let to = from.parent().unwrap().join(name);
    drop(fs::remove_dir_all(&to));
    copy_tree(from, &to);
    to
}

fn names(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root.join("t-0")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn partition(store: &Store) -> TopicPartition {
    store.topic("t").unwrap().partition(0).unwrap()
}

/// Reads all of the log, which must be whole; gives its start and end.
fn read(store: &Store, what: &str) -> (i64, i64) {
    let partition = partition(store);
    let (start, end) = partition.watermarks().unwrap();
    let builder = store.consumer().start(Start::Earliest).reset(OffsetReset::Error);
    let mut consumer = builder.assign([&partition]).unwrap();
    let mut expected = start;
    while consumer.position(&partition).unwrap() < end {
        let records = consumer.poll(Duration::ZERO);
        for message in &records.unwrap_or_else(|error| panic!("{what}: {error}")) {
            assert_eq!(message.offset(), expected, "{what}");
            assert_eq!(message.value(), Some(&*value(expected)), "{what}");
            expected += 1;
        }
    }
    assert_eq!(expected, end, "{what}");
    (start, end)
}

/// Opens, reads, closes: nothing may be wrong or left over. Gives where the log starts and ends.
fn check(root: &Path, what: &str) -> (i64, i64) {
    let store = builder(root).open().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(store.health().is_good(), "{what}: {:?}", store.health().findings);
    let (start, end) = read(&store, what);
    store.close().unwrap();
    let report = inspect::check(root).unwrap();
    assert!(report.problems.is_empty(), "{what}: {:?}", report.problems);
    let names = names(root);
    let is_left = |name: &&String| name.ends_with(".deleted") || name.ends_with(".tmp");
    assert!(!names.iter().any(|name| is_left(&name)), "{what}: {names:?}");
    // No segment lies below the start.
    let bases = names.iter().filter_map(|name| name.strip_suffix(".log")?.parse::<i64>().ok());
    assert!(bases.filter(|base| *base <= start).count() <= 1, "{what}: {start} of {names:?}");
    (start, end)
}

/// What is done to the log, and how far its start moves by it.
#[derive(Clone, Copy, Debug)]
enum Deletion {
    Records(i64),
    Retention,
    /// As `Records`, of a topic that keeps the files for an hour.
    KeepingFiles(i64),
}

impl Deletion {
    const ALL: [Deletion; 5] = [
        // Within a segment, at the end, and by the rules.
        Deletion::Records(25),
        Deletion::Records(-1),
        Deletion::Records(RECORDS - 1),
        Deletion::Retention,
        Deletion::KeepingFiles(45),
    ];

    fn delay_ms(self) -> &'static str {
        if matches!(self, Deletion::KeepingFiles(_)) { "3600000" } else { "0" }
    }

    fn run(self, store: &Store) -> crate::Result<i64> {
        match self {
            Deletion::Records(before) | Deletion::KeepingFiles(before) => {
                partition(store).delete_records(before)
            }
            Deletion::Retention => {
                store.apply_retention()?;
                Ok(partition(store).watermarks()?.0)
            }
        }
    }
}

/// The prepared log, where it starts behind a deletion, and the effects that has.
struct Case {
    _directory: tempfile::TempDir,
    prepared: PathBuf,
    start: i64,
    trace: Vec<String>,
}

fn case(deletion: Deletion) -> Case {
    let directory = scratch();
    let root = directory.path().join("prepared");
    prepared(&root, deletion.delay_ms());
    let whole = fresh_copy(&root, "whole");
    let disk = Disk::failing_once(u64::MAX, 0);
    let store = builder(&whole).disk(disk.clone()).open().unwrap();
    let begun = disk.script().count() as usize;
    let start = deletion.run(&store).unwrap();
    assert!(start > 20, "{deletion:?}: {start}");
    let trace = disk.script().trace()[begun..].to_vec();
    // A rename goes by the name before it, so this is about removals.
    let removes = trace.iter().any(|effect| effect.ends_with(".log.deleted"));
    assert_eq!(removes, deletion.delay_ms() == "0", "{trace:#?}");
    Case { _directory: directory, prepared: root, start, trace }
}

/// A log whose last segments are not synced, and retention keeps none; beside it one that is empty, in a store that takes
/// 64 KiB; with a disk that counts.
fn unsynced(root: &Path) -> (Store, Disk) {
    let disk = Disk::failing_once(u64::MAX, 0);
    let builder = builder(root).disk(disk.clone());
    let store = builder.bytes_max(64 << 10, BudgetPolicy::DropOldest).open().unwrap();
    store.create_topic("large", TopicConfig::new()).unwrap();
    store.create_topic("t", TopicConfig::new().segment_bytes(1024).retention_bytes(0)).unwrap();
    append(&store, 0..RECORDS);
    (store, disk)
}

/// Retention put a start on record before what lay below was synced: a power cut in between left a log that ended below
/// its start, and so with its old beginning and offsets that were given out a second time.
#[test]
fn retention_lets_go_of_what_is_durable_only() {
    // Whoever makes room for an append does the same on its thread.
    no_cut_leaves_a_start_behind_the_end(|store| drop(store.apply_retention()));
    no_cut_leaves_a_start_behind_the_end(|store| {
        let large = store.topic("large").unwrap();
        drop(store.producer().send(&large, Record::new(&[0; 60_000])));
    });
}

fn no_cut_leaves_a_start_behind_the_end(lets_go: impl Fn(&Store)) {
    let (mut n, mut moved, mut lost) = (1, 0, 0);
    loop {
        let directory = scratch();
        let root = directory.path().join("live");
        let (store, disk) = unsynced(&root);
        assert_eq!(partition(&store).watermarks().unwrap(), (0, RECORDS));
        let before = disk.script().count();
        disk.script().arm(n, libc::EIO, true);
        lets_go(&store);
        let seen = partition(&store).watermarks().unwrap().0;
        let is_through = disk.script().count() - before < n;
        drop(store);
        // All is lost that may be.
        disk.script().cut_power(&root, &mut |_| 0);
        let what = format!("died at effect {n}");
        let (start, end) = check(&root, &what);
        assert!(end >= start && start >= seen, "{what}: {start}, {end}; seen to start at {seen}");
        moved += usize::from(start > 0);
        lost += usize::from(end < RECORDS);
        if is_through {
            assert!(seen > 0);
            break;
        }
        n += 1;
    }
    assert!(moved > 0 && lost > 0 && n > 20, "{n} effects, {moved} starts moved, {lost} ends lost");
}

#[test]
fn on_a_full_disk_retention_lets_go_of_what_is_sealed() {
    for sealed in [0, 2] {
        let (mut n, mut stopped) = (1, 0);
        loop {
            let what = format!("{sealed} sealed, no room for effect {n}");
            let directory = scratch();
            let root = directory.path().join("live");
            let (store, disk) = unsynced(&root);
            let state = store.topic("t").unwrap().state.open_partition(0).unwrap();
            let first_unsealed = state.kept().unwrap()[sealed].base_offset;
            state.seal_below(first_unsealed).unwrap();
            let before = disk.script().count();
            disk.script().arm(n, libc::ENOSPC, false);
            let outcome = store.apply_retention();
            let is_through = disk.script().count() - before < n;
            disk.script().disarm();
            let start = partition(&store).watermarks().unwrap().0;
            assert!(start >= first_unsealed || outcome.is_err(), "{what}: went unnoticed");
            // A sync that failed is another story.
            if state.latch_reason().is_none() {
                stopped += usize::from(start == first_unsealed);
                store.apply_retention().unwrap_or_else(|error| panic!("{what}, again: {error}"));
                let (start, _) = partition(&store).watermarks().unwrap();
                assert!(start > first_unsealed, "{what}, there is room again");
                drop(state);
                store.close().unwrap();
                assert_eq!(check(&root, &what), (start, RECORDS));
            }
            if is_through {
                break;
            }
            n += 1;
        }
        assert!(stopped > 0, "{sealed} sealed, {n} effects");
    }
}

/// A start on record is damaged, or comes from another time. Nothing is deleted on the word of that.
#[test]
fn a_start_on_record_behind_the_end_is_told_of_and_deletes_nothing() {
    let directory = scratch();
    let root = directory.path().join("closed");
    prepared(&root, "0");
    let start = RECORDS + 5;
    fs::write(root.join(file_name::LOG_STARTS), format!("0\n1\nt 0 {start}\n")).unwrap();
    let store = builder(&root).open().unwrap();
    let told = format!("it cannot begin at {start}, it ends at {RECORDS}");
    let findings = store.health().findings;
    let tells =
        |finding: &Finding| matches!(finding, Finding::Nuisance { reason, .. } if *reason == told);
    assert!(findings.iter().any(tells), "{findings:?}");
    assert_eq!(read(&store, "opened"), (0, RECORDS));
    store.close().unwrap();
    assert_eq!(check(&root, "opened again"), (0, RECORDS));
}

/// The files of a deleted segment came back with a power cut, and the next open could not remove them. It forgot them, so
/// that a close took the start off the record, and what was deleted was there again (seed 15171539484386924761).
#[test]
fn what_an_open_cannot_remove_stays_deleted() {
    let directory = scratch();
    let closed = directory.path().join("closed");
    prepared(&closed, "0");
    let is_log = |name: &String| name.ends_with(".log");
    let third: i64 =
        names(&closed).into_iter().filter(is_log).nth(2).unwrap()[..20].parse().unwrap();
    fs::write(closed.join(file_name::LOG_STARTS), format!("0\n1\nt 0 {third}\n")).unwrap();
    let (mut n, mut failed) = (1, 0);
    loop {
        let what = format!("effect {n} fails");
        let root = fresh_copy(&closed, "opened");
        let disk = Disk::failing_once(n, libc::EIO);
        let opened = builder(&root).disk(disk.clone()).open();
        let is_through = disk.script().count() < n;
        if let Ok(store) = opened {
            disk.script().disarm();
            failed += usize::from(!store.health().is_good());
            assert_eq!(partition(&store).watermarks().unwrap().0, third, "{what}");
            store.close().unwrap();
        }
        assert_eq!(check(&root, &what), (third, RECORDS), "{what}");
        if is_through {
            break;
        }
        n += 1;
    }
    assert!(failed >= 6, "{failed} opens could not remove a file");
}

/// A start that was put on record by a call that failed was not remembered, and stayed there when its topic was deleted:
/// the next topic of that name was to begin behind its end (seed 17313099145418565852).
#[test]
fn a_topic_inherits_no_start_from_one_of_its_name() {
    let directory = scratch();
    let mut n = 1;
    loop {
        let what = format!("effect {n} fails");
        let root = directory.path().join(format!("live-{n}"));
        let disk = Disk::failing_once(u64::MAX, 0);
        let store = builder(&root).disk(disk.clone()).open().unwrap();
        store.create_topic("t", TopicConfig::new()).unwrap();
        append(&store, 0..2);
        let before = disk.script().count();
        disk.script().arm(n, libc::EIO, false);
        drop(partition(&store).delete_records(2));
        let is_through = disk.script().count() - before < n;
        disk.script().disarm();
        store.delete_topic("t").unwrap();
        store.create_topic("t", TopicConfig::new()).unwrap();
        append(&store, 0..1);
        let killed = fresh_copy(&root, "killed");
        assert_eq!(check(&killed, &what), (0, 1), "{what}");
        if is_through {
            break;
        }
        n += 1;
    }
    assert!(n > 6, "{n} effects");
}

#[test]
fn wherever_a_deletion_dies_the_log_is_whole_and_what_was_deleted_stays_so() {
    for deletion in Deletion::ALL {
        let case = case(deletion);
        let mut unmoved = 0;
        for n in 1..=case.trace.len() as u64 {
            let root = fresh_copy(&case.prepared, "dying");
            let disk = Disk::failing_once(u64::MAX, 0);
            let store = builder(&root).disk(disk.clone()).open().unwrap();
            disk.script().arm(n, libc::EIO, true);
            let told = deletion.run(&store);
            let seen = partition(&store).watermarks().unwrap().0;
            drop(store);
            let effect = &case.trace[n as usize - 1];
            let what = format!("{deletion:?}, died at effect {n} ({effect})");
            let (start, end) = check(&root, &what);
            assert_eq!(end, RECORDS, "{what}");
            assert!(start == 0 || start == case.start, "{what}: {start}");
            assert!(start >= seen, "{what}: what was seen deleted is back");
            if let Ok(told) = told {
                assert_eq!(start, told, "{what}");
            }
            unmoved += usize::from(start == 0);
            assert_eq!(check(&root, &what), (start, end), "{what}, a second time");
            let store = builder(&root).open().unwrap();
            assert_eq!(deletion.run(&store).unwrap(), case.start, "{what}, done again");
            append(&store, RECORDS..RECORDS + 30);
            store.close().unwrap();
            assert_eq!(check(&root, &what), (case.start, RECORDS + 30));
        }
        assert!(unmoved > 0 && unmoved < case.trace.len(), "{deletion:?}");
    }
}

#[test]
fn whichever_effect_of_a_deletion_fails_the_log_goes_on_and_the_next_attempt_finishes() {
    for (deletion, errno) in
        Deletion::ALL.into_iter().flat_map(|d| [(d, libc::EIO), (d, libc::ENOSPC)])
    {
        let case = case(deletion);
        for n in 1..=case.trace.len() as u64 {
            let root = fresh_copy(&case.prepared, "failing");
            let disk = Disk::failing_once(u64::MAX, 0);
            let store = builder(&root).disk(disk.clone()).open().unwrap();
            disk.script().arm(n, errno, false);
            let effect = &case.trace[n as usize - 1];
            let what = format!("{deletion:?}, effect {n} ({effect}) failed with {errno}");
            let outcome = deletion.run(&store);
            // What did not go is told, at once or in the store's health; but a full disk does not keep retention
            // from making room.
            let is_told = outcome.is_err() || !store.health().is_good();
            let start = read(&store, &what).0;
            assert!(is_told || start == case.start, "{what}: went unnoticed");
            if outcome.is_ok() {
                assert_eq!(start, case.start, "{what}");
            }
            let sent =
                store.producer().send(&store.topic("t").unwrap(), Record::new(&value(RECORDS)));
            if let Err(error) = sent {
                assert!(matches!(error, Error::Latched { .. }), "{what}: {error}");
                drop(store);
                check(&root, &what);
                continue;
            }
            let again = deletion.run(&store);
            let again = again.unwrap_or_else(|error| panic!("{what}, again: {error}"));
            assert!(again >= case.start, "{what}");
            let bases = names(&root).into_iter().filter(|name| name.ends_with(".log.deleted"));
            let is_kept = matches!(deletion, Deletion::KeepingFiles(_));
            assert_eq!(bases.count() > 0, is_kept, "{what}: {:?}", names(&root));
            store.close().unwrap();
            assert_eq!(check(&root, &what), (again, RECORDS + 1));
        }
    }
}

/// The record of where a log begins has to be written before anything goes, and there is no room for it.
#[test]
fn a_full_disk_does_not_keep_retention_from_making_room() {
    let case = case(Deletion::Retention);
    let is_record = |effect: &String| effect.contains(file_name::LOG_STARTS);
    let count = case.trace.iter().filter(|effect| is_record(effect)).count();
    assert!(count > 2, "{:#?}", case.trace);
    let first = 1 + case.trace.iter().position(is_record).unwrap();
    let root = fresh_copy(&case.prepared, "full");
    let disk = Disk::failing_once(u64::MAX, 0);
    let store = builder(&root).disk(disk.clone()).open().unwrap();
    disk.script().arm(first as u64, libc::ENOSPC, false);
    assert_eq!(Deletion::Retention.run(&store).unwrap(), case.start);
    drop(store);
    assert_eq!(check(&root, "full").0, case.start);
}

#[test]
fn a_deletion_that_panics_loses_nothing() {
    for deletion in Deletion::ALL {
        let case = case(deletion);
        for n in 1..=case.trace.len() as u64 {
            let root = fresh_copy(&case.prepared, "panicking");
            let disk = Disk::failing_once(u64::MAX, 0);
            let store = builder(&root).disk(disk.clone()).open().unwrap();
            disk.script().arm(n, Script::PANIC, false);
            let run = std::panic::AssertUnwindSafe(|| deletion.run(&store));
            let what = format!("{deletion:?}, panicked at effect {n}");
            assert!(std::panic::catch_unwind(run).is_err(), "{what}");
            read(&store, &what);
            drop(store);
            let (start, end) = check(&root, &what);
            assert!((start == 0 || start == case.start) && end == RECORDS, "{what}: {start}");
        }
    }
}

fn seeds(lives: u64) -> std::ops::Range<u64> {
    match told("OTTLA_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..told("OTTLA_LIVES").unwrap_or(lives),
    }
}

fn chance_of(seed: u64) -> Chance {
    Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
}

#[test]
fn no_power_cut_brings_back_what_was_deleted_nor_takes_what_was_not() {
    for (deletion, seed) in Deletion::ALL.into_iter().flat_map(|d| seeds(3).map(move |s| (d, s))) {
        let case = case(deletion);
        let mut chance = chance_of(seed);
        for n in 1..=case.trace.len() as u64 + 1 {
            let root = fresh_copy(&case.prepared, "cut");
            let disk = Disk::failing_once(u64::MAX, 0);
            let store = builder(&root).disk(disk.clone()).open().unwrap();
            disk.script().arm(n, libc::EIO, true);
            let told = deletion.run(&store).ok();
            drop(store);
            disk.script().cut_power(&root, &mut |limit| chance.below(limit));
            let what = format!("OTTLA_SEED={seed}, {deletion:?}, effect {n}");
            let (start, end) = check(&root, &what);
            assert_eq!(end, RECORDS, "{what}: it was durable");
            assert!(start == 0 || start == case.start, "{what}: {start}");
            assert!(told.is_none_or(|told| start == told), "{what}: what was deleted is back");
            // A second one hits the recovery.
            let disk = Disk::dying(1 + chance.below(20));
            drop(builder(&root).disk(disk.clone()).open());
            disk.script().cut_power(&root, &mut |limit| chance.below(limit));
            assert_eq!(check(&root, &format!("{what}, twice")), (start, end));
        }
    }
}

/// A partition that could not be opened, because of a damaged file that was put right later, was left out when the store
/// wrote where its logs begin as it closed: what had been deleted of it was back.
#[test]
fn a_log_that_could_not_be_opened_once_begins_where_it_did() {
    let directory = scratch();
    let root = directory.path().join("data");
    prepared(&root, "0");
    let store = builder(&root).open().unwrap();
    assert_eq!(Deletion::Records(25).run(&store).unwrap(), 25);
    store.close().unwrap();
    let metadata = root.join("t-0").join(file_name::PARTITION_METADATA);
    let whole = fs::read(&metadata).unwrap();
    fs::write(&metadata, "damaged").unwrap();
    let store = builder(&root).open().unwrap();
    assert!(matches!(partition(&store).watermarks(), Err(Error::Unavailable { .. })));
    store.close().unwrap();
    fs::write(&metadata, whole).unwrap();
    assert_eq!(check(&root, "put right"), (25, RECORDS));
}

/// What was deleted from a log that nobody appended to had no names any more, but that was not durable when the store
/// closed, and took it off its record where the log begins, for the files said it: a power cut brought all of it back.
#[test]
fn no_power_cut_behind_a_clean_close_brings_back_what_was_deleted() {
    for deletion in Deletion::ALL {
        let case = case(deletion);
        for seed in seeds(20) {
            let root = fresh_copy(&case.prepared, "closed");
            let disk = Disk::failing_once(u64::MAX, 0);
            let store = builder(&root).disk(disk.clone()).open().unwrap();
            let start = deletion.run(&store).unwrap();
            store.close().unwrap();
            let mut chance = chance_of(seed);
            disk.script().cut_power(&root, &mut |limit| chance.below(limit));
            let what = format!("OTTLA_SEED={seed}, {deletion:?}");
            assert_eq!(check(&root, &what), (start, RECORDS));
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// What must hold of a log that is deleted from by all rules at random.
struct Model {
    /// The time that each record was sent with.
    times: Vec<i64>,
    start: i64,
    retention_ms: i64,
    retention_bytes: i64,
}

impl Model {
    /// Checks what an applied retention has left.
    fn check_retention(&mut self, store: &Store, now_ms: i64, what: &str) {
        let (start, end) = read(store, what);
        assert_eq!(end, self.times.len() as i64, "{what}");
        assert!(start >= self.start, "{what}: the start went back");
        let described = store.topic("t").unwrap().describe().unwrap().partitions[0].clone();
        if start > self.start && self.retention_bytes < 0 {
            // By age alone: nothing young went.
            let oldest_gone = self.times[self.start as usize..start as usize].iter().max();
            let age = now_ms - oldest_gone.copied().unwrap_or(i64::MIN);
            assert!(age > self.retention_ms, "{what}: {age} ms old, and gone");
        }
        if self.retention_bytes >= 0 {
            let most = self.retention_bytes as u64 + 1024;
            assert!(described.len < most, "{what}: {} bytes are left", described.len);
        }
        if start > self.start && self.retention_ms < 0 {
            assert!(described.len >= self.retention_bytes as u64, "{what}: {}", described.len);
        }
        assert_eq!(described.retention.due_segments, 0, "{what}: {:?}", described.retention);
        self.start = start;
    }
}

fn life(root: &Path, seed: u64) {
    let mut chance = chance_of(seed);
    let (clock, now) = Clock::fixed(now_ms());
    let open = |disk: Disk| builder(root).clock(clock.clone()).disk(disk).open();
    let quiet = || Disk::failing_once(u64::MAX, 0);
    let mut store = open(quiet()).unwrap();
    store.create_topic("t", TopicConfig::new().segment_bytes(1024).retention_ms(-1)).unwrap();
    let mut model = Model { times: Vec::new(), start: 0, retention_ms: -1, retention_bytes: -1 };
    for step in 0..120 {
        let what = format!("OTTLA_SEED={seed}, step {step}");
        match chance.below(10) {
            0..=3 => {
                for _ in 0..chance.below(20) {
                    append(&store, model.times.len() as i64..model.times.len() as i64 + 1);
                    model.times.push(now.load(Ordering::Relaxed));
                }
            }
            4 => drop(now.fetch_add(chance.below(5000) as i64, Ordering::Relaxed)),
            5 => {
                model.retention_ms = [-1, 0, 3000, 20_000][chance.below(4) as usize];
                model.retention_bytes = [-1, -1, 0, 2000, 5000][chance.below(5) as usize];
                let (ms, bytes) =
                    (model.retention_ms.to_string(), model.retention_bytes.to_string());
                let changes = [("retention.ms", Some(&*ms)), ("retention.bytes", Some(&*bytes))];
                store.topic("t").unwrap().alter_all(&changes).unwrap();
            }
            6 => {
                store.apply_retention().unwrap();
                model.check_retention(&store, now.load(Ordering::Relaxed), &what);
            }
            7 => {
                let end = model.times.len() as i64;
                let before = chance.below(end as u64 + 1) as i64;
                model.start = model.start.max(before);
                assert_eq!(
                    partition(&store).delete_records(before).unwrap(),
                    model.start,
                    "{what}"
                );
            }
            8 => {
                store.close().unwrap();
                store = open(quiet()).unwrap();
            }
            _ => {
                // It dies somewhere in a deletion.
                store.sync().unwrap();
                drop(store);
                let disk = quiet();
                store = open(disk.clone()).unwrap();
                disk.script().arm(1 + chance.below(30), libc::EIO, true);
                let died = match chance.below(2) {
                    0 => store.apply_retention().map(drop),
                    _ => partition(&store).delete_records(-1).map(drop),
                };
                drop(died);
                drop(store);
                store = open(quiet()).unwrap();
                let start = read(&store, &what).0;
                assert!(start >= model.start, "{what}: what was deleted is back");
                model.start = start;
            }
        }
        assert_eq!(read(&store, &what), (model.start, model.times.len() as i64), "{what}");
    }
    store.close().unwrap();
    check(root, &format!("OTTLA_SEED={seed}"));
}

#[test]
fn the_log_is_what_the_model_says_however_it_is_deleted_from() {
    for seed in seeds(12) {
        let directory = scratch();
        life(&directory.path().join("data"), seed);
    }
}
