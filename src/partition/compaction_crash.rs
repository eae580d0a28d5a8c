//! Compactions on disks that fail or die at every effect, and in machines that lose their power.
//!
//! The log is prepared once, with all there is to do: superseded records, tombstones, segments to be joined and one
//! that nothing is left of. Whatever happens to its compaction, nothing may be missing that must be there, the next
//! open must find nothing wrong, and compacting again must come to what it would have come to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::Compression;
use crate::Durability;
use crate::Error;
use crate::Store;
use crate::StoreBuilder;
use crate::chance::Chance;
use crate::chance::told;
use crate::inspect;
use crate::partition::compaction_model::History;
use crate::partition::compaction_model::Sent;
use crate::partition::compaction_model::config;
use crate::partition::compaction_model::poll;
use crate::partition::compaction_model::read_all;
use crate::partition::compaction_model::scratch;
use crate::partition::compaction_model::send;
use crate::partition::compaction_model::send_by;
use crate::partition::compaction_plan::Compaction;
use crate::partition::compaction_plan::SegmentLimits;
use crate::storage::disk::Disk;
use crate::storage::faults::Script;
use crate::storage::faults::fresh_copy;

const NOW_MS: i64 = 2_000_000;

fn builder(root: &Path) -> StoreBuilder {
    // Syncs happen when they are asked for and not by the clock.
    Store::builder(root)
        .durability(Durability::Buffered)
        .checkpoint_interval(Duration::from_secs(3600))
}

fn how() -> Compaction {
    let segments = SegmentLimits { segment_bytes: 2100, segment_index_bytes: 4096 };
    Compaction { segments, delete_retention_ms: 1000, ..Compaction::at(NOW_MS) }
}

fn sent(key: u64, value: Option<&str>, n: i64) -> Sent {
    Sent {
        key: Some(format!("key {key}").into_bytes()),
        value: value.map(|value| value.repeat(12).into_bytes()),
        header: None,
        timestamp_ms: NOW_MS - 1000 + n,
    }
}

/// Writes a log of several segments, closed. If it was compacted before, some tombstones are past their horizon.
fn prepared(root: &Path, before: Before) -> History {
    let mut history = History::default();
    let store = builder(root).open().unwrap();
    let topic = store.create_topic("t", config()).unwrap();
    let partition = topic.partition(0).unwrap();
    let append = |history: &mut History, batch: Vec<Sent>| {
        // Some batches are compressed.
        let packs = Compression::Lz4.is_available() && batch.len() > 1;
        let codec = if packs { Compression::Lz4 } else { Compression::None };
        let producer = store.producer_builder().compression(codec).unwrap().build();
        send_by(&producer, &partition, &batch).unwrap();
        history.log.extend(batch);
    };
    for n in 0..10_i64 {
        append(
            &mut history,
            vec![sent(20 + n as u64, Some("kept"), n), sent(n as u64 % 3, Some("old"), n)],
        );
    }
    append(&mut history, vec![sent(21, None, 11), sent(1, None, 11)]);
    let open = topic.state.open_partition(0).unwrap();
    open.roll_now().unwrap();
    if before == Before::Compacted {
        let first = Compaction { delete_retention_ms: 0, ..how() };
        history.compacted_below = store.compact_for_test("t", &first).unwrap().first_dirty;
        history.note_compaction(&first, history.compacted_below);
    }
    for n in 12..60_i64 {
        let key = if n < 40 { n as u64 % 3 } else { n as u64 % 7 };
        append(&mut history, vec![sent(key, (n % 11 > 0).then_some("newer"), n)]);
    }
    open.roll_now().unwrap();
    append(&mut history, vec![sent(2, Some("last"), 61)]);
    let found = read_all(&partition, &store).unwrap();
    history.check(&found, NOW_MS, "prepared");
    drop((topic, partition, open));
    store.close().unwrap();
    history
}

/// The files of the partition, by name.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(root.join("t-0")).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

/// Opens, reads, closes; nothing may be lost or wrong. Gives what the history knows now.
fn check(root: &Path, history: &History, what: &str) -> History {
    let mut history = history.clone();
    let store = builder(root).open().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(store.health().findings.is_empty(), "{what}: {:?}", store.health());
    let partition = store.topic("t").unwrap().partition(0).unwrap();
    let found = read_all(&partition, &store).unwrap_or_else(|error| panic!("{what}: {error}"));
    history.check(&found, NOW_MS, what);
    drop(partition);
    store.close().unwrap();
    let report = inspect::check(root).unwrap();
    assert!(report.problems.is_empty(), "{what}: {:?}", report.problems);
    let names: Vec<String> = files(root).into_keys().collect();
    let is_leftover = |name: &String| {
        [".cleaned", ".swap", ".deleted", ".tmp"].iter().any(|suffix| name.ends_with(suffix))
    };
    assert!(!names.iter().any(is_leftover), "{what}: {names:?}");
    history
}

/// Checks what a crash left; then a second open must change nothing, and a compaction come to `compacted`.
fn check_after_crash(root: &Path, history: &History, compacted: &[(i64, Sent)], what: &str) {
    let mut history = check(root, history, what);
    let before = files(root);
    history = check(root, &history, &format!("{what}, the second time"));
    assert!(files(root) == before, "{what}: a second open changed something");
    let store = builder(root).open().unwrap();
    let done = store.compact_for_test("t", &how()).unwrap();
    history.compacted_below = done.first_dirty;
    history.note_compaction(&how(), done.first_dirty);
    let partition = store.topic("t").unwrap().partition(0).unwrap();
    let found = read_all(&partition, &store).unwrap();
    assert!(found == compacted, "{what}: compacting again came to something else");
    drop(partition);
    store.close().unwrap();
    check(root, &history, &format!("{what}, compacted"));
}

/// What was done to the log before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Compacted,
}

/// The prepared log, what compacting it comes to, and how many effects that has.
struct Case {
    directory: tempfile::TempDir,
    prepared: PathBuf,
    history: History,
    compacted: Vec<(i64, Sent)>,
    effects: u64,
    trace: Vec<String>,
}

fn case(before: Before) -> Case {
    let directory = scratch();
    let prepared_root = directory.path().join("prepared");
    let history = prepared(&prepared_root, before);
    let root = fresh_copy(&prepared_root, "whole");
    let disk = Disk::failing_once(u64::MAX, 0);
    let store = builder(&root).disk(disk.clone()).open().unwrap();
    let begun = disk.script().count();
    let compacted = store.compact_for_test("t", &how()).unwrap();
    let effects = disk.script().count() - begun;
    let trace = disk.script().trace()[begun as usize..].to_vec();
    assert!(compacted.left.is_empty());
    assert!(compacted.after.segments < compacted.before.segments, "{compacted:?}");
    assert!(compacted.after.records * 2 < compacted.before.records, "{compacted:?}");
    // Several groups, one of them of several segments.
    assert!(trace.iter().filter(|effect| effect.ends_with(".log.swap")).count() >= 3, "{trace:#?}");
    let partition = store.topic("t").unwrap().partition(0).unwrap();
    let compacted = read_all(&partition, &store).unwrap();
    Case { directory, prepared: prepared_root, history, compacted, effects, trace }
}

#[test]
fn wherever_a_compaction_dies_nothing_that_counts_is_lost_and_the_next_one_finishes() {
    for before in [Before::Nothing, Before::Compacted] {
        let case = case(before);
        assert!(case.effects > 60, "{}", case.effects);
        for n in 1..=case.effects {
            let root = fresh_copy(&case.prepared, "dying");
            let disk = Disk::failing_once(u64::MAX, 0);
            let store = builder(&root).disk(disk.clone()).open().unwrap();
            disk.script().arm(n, libc::EIO, true);
            store.compact_for_test("t", &how()).unwrap_err();
            drop(store);
            let effect = &case.trace[n as usize - 1];
            let what = format!("died at effect {n} of {} ({effect})", case.effects);
            if before == Before::Nothing {
                // Nor is what it left taken for damage.
                let report = inspect::check(&root).unwrap();
                assert!(report.problems.is_empty(), "{what}: {:?}", report.problems);
            }
            check_after_crash(&root, &case.history, &case.compacted, &what);
        }
    }
}

#[test]
fn wherever_the_recovery_of_a_compaction_dies_the_next_one_finishes() {
    let case = case(Before::Compacted);
    let mut lives = 0;
    for n in 1..=case.effects {
        let left = fresh_copy(&case.prepared, "left");
        let disk = Disk::failing_once(u64::MAX, 0);
        let store = builder(&left).disk(disk.clone()).open().unwrap();
        disk.script().arm(n, libc::EIO, true);
        store.compact_for_test("t", &how()).unwrap_err();
        drop(store);
        let is_swapping =
            files(&left).keys().any(|name| name.ends_with(".swap") || name.ends_with(".cleaned"));
        if !is_swapping {
            continue;
        }
        for m in 1.. {
            let root = fresh_copy(&left, "recovering");
            let disk = Disk::dying(m);
            let opened = builder(&root).disk(disk.clone()).open();
            let died = disk.script().count() >= m;
            drop(opened);
            let effect = &case.trace[n as usize - 1];
            let what = format!("died at effect {n} ({effect}), then at effect {m} of the open");
            check(&root, &case.history, &what);
            lives += 1;
            // What comes after the files of the compaction is other tests' business.
            if !died || m > 16 {
                break;
            }
        }
    }
    assert!(lives > 200, "{lives}");
}

#[test]
fn whichever_effect_of_a_compaction_fails_the_log_is_whole_and_goes_on() {
    let case = case(Before::Compacted);
    let mut latched = 0;
    for errno in [libc::EIO, libc::ENOSPC] {
        for n in 1..=case.effects {
            let root = fresh_copy(&case.prepared, "failing");
            let disk = Disk::failing_once(u64::MAX, 0);
            let store = builder(&root).disk(disk.clone()).open().unwrap();
            let topic = store.topic("t").unwrap();
            let partition = topic.partition(0).unwrap();
            let mut reader = store.consumer().max_poll_records(3).assign([&partition]).unwrap();
            let read = poll(&mut reader).unwrap();
            disk.script().arm(n, errno, false);
            let outcome = store.compact_for_test("t", &how());
            let effect = &case.trace[n as usize - 1];
            let what = format!("effect {n} of {} ({effect}), errno {errno}", case.effects);
            // Files that could not be removed are told of, and so is a record of it all that could not be written.
            let is_told = outcome.is_err()
                || outcome.as_ref().is_ok_and(|compacted| compacted.unremoved.is_some());
            assert!(is_told, "{what}: went unnoticed");
            latched += usize::from(matches!(outcome, Err(Error::Latched { .. })));
            let mut history = case.history.clone();
            let found = read_all(&partition, &store).unwrap_or_else(|e| panic!("{what}: {e}"));
            history.check(&found, NOW_MS, &what);
            // Whoever stood in the log reads on.
            let mut seen = read;
            while reader.position(&partition).unwrap() < history.log.len() as i64 {
                seen.extend(poll(&mut reader).unwrap_or_else(|e| panic!("{what}: {e}")));
            }
            for offset in history.latest(i64::MAX).into_values() {
                let sent = &history.log[offset as usize];
                let is_seen = seen.iter().any(|(at, _)| *at == offset);
                assert!(is_seen || sent.value.is_none(), "{what}: {offset} was missed");
            }
            let more = [sent(3, Some("more"), 90)];
            send(&partition, &store, &more).unwrap_or_else(|error| panic!("{what}: {error}"));
            history.log.extend(more);
            let again = store.compact_for_test("t", &how());
            let again = again.unwrap_or_else(|error| panic!("{what}: again: {error}"));
            history.compacted_below = again.first_dirty;
            history.note_compaction(&how(), again.first_dirty);
            let found = read_all(&partition, &store).unwrap();
            history.check(&found, NOW_MS, &what);
            assert!(
                found[..found.len() - 1] == case.compacted,
                "{what}: something else came of it"
            );
            drop((topic, partition, reader));
            store.close().unwrap();
            check(&root, &history, &what);
        }
    }
    assert_eq!(latched, 0, "one failure can be undone");
}

/// Where a swap fails and cannot be taken back either, readers go on in what they have, and an open puts it right.
#[test]
fn a_swap_that_can_be_neither_finished_nor_undone_loses_nothing() {
    let case = case(Before::Compacted);
    let (mut latched, mut refused) = (0, 0);
    for n in 1..=case.effects {
        let root = fresh_copy(&case.prepared, "stuck");
        let disk = Disk::failing_once(u64::MAX, 0);
        let store = builder(&root).disk(disk.clone()).open().unwrap();
        let partition = store.topic("t").unwrap().partition(0).unwrap();
        disk.script().arm(n, libc::EIO, true);
        let error = store.compact_for_test("t", &how()).unwrap_err();
        disk.script().disarm();
        let what = format!("effect {n} of {} ({})", case.effects, case.trace[n as usize - 1]);
        let mut history = case.history.clone();
        let found = read_all(&partition, &store).unwrap_or_else(|error| panic!("{what}: {error}"));
        history.check(&found, NOW_MS, &what);
        let is_latched = matches!(error, Error::Latched { .. });
        latched += usize::from(is_latched);
        if is_latched {
            assert!(send(&partition, &store, &[sent(0, None, 0)]).is_err(), "{what}");
        } else if let Err(error) = store.compact_for_test("t", &how()) {
            assert!(matches!(error, Error::Unavailable { .. }), "{what}: {error}");
            refused += 1;
        }
        drop((partition, store));
        check_after_crash(&root, &history, &case.compacted, &what);
    }
    assert!(latched > 10 && refused > 0, "{latched} latched, {refused} refused");
}

#[test]
fn a_compaction_that_panics_loses_nothing() {
    let case = case(Before::Compacted);
    for n in 1..=case.effects {
        let root = fresh_copy(&case.prepared, "panicking");
        let disk = Disk::failing_once(u64::MAX, 0);
        let store = builder(&root).disk(disk.clone()).open().unwrap();
        disk.script().arm(n, Script::PANIC, false);
        let compact = || store.compact_for_test("t", &how());
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(compact));
        let what = format!("effect {n} of {} ({})", case.effects, case.trace[n as usize - 1]);
        assert!(caught.is_err(), "{what}");
        let partition = store.topic("t").unwrap().partition(0).unwrap();
        let found = read_all(&partition, &store).unwrap_or_else(|error| panic!("{what}: {error}"));
        case.history.clone().check(&found, NOW_MS, &what);
        drop((partition, store));
        check_after_crash(&root, &case.history, &case.compacted, &what);
    }
}

#[test]
fn no_power_cut_during_a_compaction_takes_what_counts() {
    let case = case(Before::Compacted);
    let seeds = match told("OTTLA_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..told("OTTLA_LIVES").unwrap_or(4),
    };
    for seed in seeds {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for n in 1..=case.effects + 1 {
            let root = fresh_copy(&case.prepared, "cut");
            let disk = Disk::failing_once(u64::MAX, 0);
            let store = builder(&root).disk(disk.clone()).open().unwrap();
            let partition = store.topic("t").unwrap().partition(0).unwrap();
            let mut history = case.history.clone();
            // What is acknowledged while it is compacted survives, too.
            let more = [sent(5, Some("acknowledged"), 91)];
            send(&partition, &store, &more).unwrap();
            store.sync().unwrap();
            history.log.extend(more);
            disk.script().arm(n, libc::EIO, true);
            drop(store.compact_for_test("t", &how()));
            drop((partition, store));
            disk.script().cut_power(&root, &mut |limit| chance.below(limit));
            let what = format!("OTTLA_SEED={seed}, effect {n} of {}", case.effects);
            let mut history = check(&root, &history, &what);
            // A second one hits the recovery.
            if chance.below(2) == 0 {
                let disk = Disk::dying(1 + chance.below(20));
                drop(builder(&root).disk(disk.clone()).open());
                disk.script().cut_power(&root, &mut |limit| chance.below(limit));
                history = check(&root, &history, &format!("{what}, twice"));
            }
            let store = builder(&root).open().unwrap();
            let done = store.compact_for_test("t", &how()).unwrap();
            history.compacted_below = done.first_dirty;
            history.note_compaction(&how(), done.first_dirty);
            store.close().unwrap();
            check(&root, &history, &format!("{what}, compacted"));
        }
    }
    drop(case.directory);
}

/// Some of the segments have no names that a reader knows; what is in them must not look as if it were gone.
#[test]
fn a_reader_is_told_of_a_compaction_that_was_cut_short() {
    let case = case(Before::Nothing);
    let n = 1 + case.trace.iter().position(|effect| effect.ends_with(".log.swap")).unwrap();
    let root = fresh_copy(&case.prepared, "half");
    let disk = Disk::failing_once(u64::MAX, 0);
    let store = builder(&root).disk(disk.clone()).open().unwrap();
    disk.script().arm(n as u64, libc::EIO, true);
    store.compact_for_test("t", &how()).unwrap_err();
    drop(store);
    let reader = Store::open_read_only(&root).unwrap();
    let partition = reader.topic("t").unwrap().partition(0).unwrap();
    let told = partition.watermarks().unwrap_err();
    assert!(matches!(told, Error::Unavailable { .. }), "{told}");
    let mut history = check(&root, &case.history, "a writer puts it right");
    let partition = reader.topic("t").unwrap().partition(0).unwrap();
    history.check(&read_all(&partition, &reader).unwrap(), NOW_MS, "the reader");
}
