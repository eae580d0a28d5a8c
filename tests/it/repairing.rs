//! Directories with planted damage: the check finds each, a repair puts it in order, and exactly those records are left
//! that can be.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use ottla::Error;
use ottla::Record;
use ottla::Store;
use ottla::TopicConfig;
use ottla::inspect;
use ottla::repair;
use ottla::repair::RepairReport;
use tempfile::TempDir;

use crate::consuming::read_all;
use crate::golden;
use crate::golden::copy_tree;
use crate::golden::files;
use crate::scratch::scratch;

/// A store that was closed cleanly: one topic with several segments, another one, a group.
struct Sound {
    directory: TempDir,
}

type Damage = Box<dyn Fn(&Path)>;

/// The records of one partition by their offsets.
type Log = BTreeMap<i64, Vec<u8>>;

const COUNT: i64 = 60;
/// Of the first record.
const TIME: i64 = 1_000;
/// What the group has committed.
const COMMITTED: i64 = 20;

impl Sound {
    fn new() -> Sound {
        let directory = scratch();
        let store = Store::open(directory.path().join("sound")).unwrap();
        let config = TopicConfig::new()
            .segment_bytes(1024)
            .set("index.interval.bytes", "100")
            .unwrap()
            .set("retention.ms", "-1")
            .unwrap()
            .set("segment.ms", &i64::MAX.to_string())
            .unwrap();
        let topic = store.create_topic("orders", config).unwrap();
        let other = store.create_topic("other", TopicConfig::new().partitions(2)).unwrap();
        for n in 0..COUNT {
            let value = value(n);
            let record = Record::new(&value).key("k").timestamp(TIME + n);
            store.producer().send(&topic, record).unwrap().wait().unwrap();
        }
        store.producer().send(&other, Record::new("untouched").key("k")).unwrap().wait().unwrap();
        let mut consumer = store.consumer().max_poll_records(1).subscribe("g", &topic).unwrap();
        for _ in 0..COMMITTED {
            assert_eq!(consumer.poll(Duration::ZERO).unwrap().count(), 1);
        }
        consumer.commit().unwrap();
        drop((consumer, topic, other));
        store.close().unwrap();
        Sound { directory }
    }

    /// A copy with damage in it.
    fn damaged(&self, name: &str, damage: impl FnOnce(&Path)) -> PathBuf {
        let copy = self.directory.path().join("copies").join(name);
        drop(fs::remove_dir_all(&copy));
        copy_tree(&self.directory.path().join("sound"), &copy);
        damage(&copy);
        copy
    }
}

fn value(n: i64) -> Vec<u8> {
    format!("value {n} {}", "x".repeat(n as usize % 7)).into_bytes()
}

fn sound_log() -> Log {
    (0..COUNT).map(|n| (n, value(n))).collect()
}

/// The segments of the topic, in order.
fn segments(root: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<PathBuf> = fs::read_dir(root.join("orders-0"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    segments
}

/// Where the batches of a segment begin and end, and the offset of each; all have one record.
fn batches(segment: &Path) -> Vec<(usize, usize, i64)> {
    let bytes = fs::read(segment).unwrap();
    let mut found = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let base = i64::from_be_bytes(bytes[start..start + 8].try_into().unwrap());
        let len = u32::from_be_bytes(bytes[start + 8..start + 12].try_into().unwrap()) as usize;
        found.push((start, start + 12 + len, base));
        start += 12 + len;
    }
    found
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn read_orders(store: &Store) -> Log {
    let partition = store.topic("orders").unwrap().partition(0).unwrap();
    let mut consumer = store.consumer().assign([&partition]).unwrap();
    let seen = read_all(&mut consumer);
    seen.into_iter().map(|seen| (seen.offset, seen.value.unwrap())).collect()
}

/// Repairs, and looks at what is left.
fn assert_leaves(root: &Path, left: &Log, what: &str) -> RepairReport {
    assert!(!inspect::check(root).unwrap().is_good(), "{what}: the check finds nothing");
    let applied = repair::apply(root).unwrap();
    assert!(applied.is_good(), "{what}: {applied:#?}");
    let reader = Store::open_read_only(root).unwrap();
    assert_eq!(read_orders(&reader), *left, "{what}");
    let partition = reader.topic("orders").unwrap().partition(0).unwrap();
    assert!(partition.watermarks().unwrap().1 >= COUNT, "{what}: offsets are given out twice");
    applied
}

/// Checks, plans, repairs, and opens what was repaired: every sentence that holds of every repair.
fn assert_repairs_to(root: &Path, left: &Log, what: &str) -> RepairReport {
    let found = inspect::check(root).unwrap();
    assert!(!found.is_good(), "{what}: the check finds nothing");
    let before = files(root);
    let planned = repair::plan(root).unwrap();
    assert!(files(root) == before, "{what}: a plan changed something");
    assert_eq!(planned.problems, found.problems, "{what}");
    assert!(!planned.steps.is_empty(), "{what}: nothing is planned against {:?}", found.problems);

    let applied = repair::apply(root).unwrap();
    assert!(applied.is_good(), "{what}: {:#?}", applied);
    assert_eq!(applied.steps[0].path, planned.steps[0].path, "{what}");
    let again = repair::apply(root).unwrap();
    assert_eq!(again.steps, [], "{what}: a second repair finds something to do");

    for kept in applied.steps.iter().filter_map(|step| step.kept.as_ref()) {
        assert!(kept.exists(), "{what}: {}", kept.display());
    }
    let reader = Store::open_read_only(root).unwrap();
    assert_eq!(read_orders(&reader), *left, "{what}");
    drop(reader);
    let store = Store::open(root).unwrap();
    assert_eq!(store.health().findings, [], "{what}");
    assert_eq!(read_orders(&store), *left, "{what}");
    let orders = store.topic("orders").unwrap();
    for (time, offset) in [(0, left.keys().next()), (TIME + COUNT, None)] {
        let found = orders.partition(0).unwrap().offset_for_time(time).unwrap();
        assert_eq!(found.map(|(offset, _)| offset), offset.copied(), "{what}");
    }
    let delivery = store.producer().send(&orders, Record::new("more").key("k")).unwrap();
    let offset = delivery.wait().unwrap().offset();
    assert!(offset >= COUNT, "{what}: offset {offset} is given out twice");
    let mut grown = left.clone();
    grown.insert(offset, b"more".to_vec());
    assert_eq!(read_orders(&store), grown, "{what}");
    drop(orders);
    store.close().unwrap();
    assert_eq!(inspect::check(root).unwrap().problems, [], "{what}");
    applied
}

#[test]
fn a_sound_directory_is_left_as_it_is() {
    let sound = Sound::new();
    let root = sound.damaged("none", |_| {});
    let before = files(&root);
    let planned = repair::plan(&root).unwrap();
    assert_eq!((planned.steps, planned.problems), (Vec::new(), Vec::new()));
    assert_eq!(repair::apply(&root).unwrap().steps, []);
    let mut after = files(&root);
    // Who held it last is on record there.
    after.insert(".lock".to_owned(), before[".lock"].clone());
    assert!(after == before);
}

#[test]
fn a_flipped_bit_anywhere_in_a_batch_costs_that_batch_at_most() {
    let sound = Sound::new();
    let segment_count = segments(&sound.directory.path().join("sound")).len();
    assert!(segment_count >= 4, "{segment_count} segments");
    // The first of the log, one in the middle, the last.
    for (segment, batch) in [(0, 0), (1, 3), (segment_count - 1, usize::MAX)] {
        let path = &segments(&sound.directory.path().join("sound"))[segment];
        let all = batches(path);
        let (start, end, offset) = all[batch.min(all.len() - 1)];
        for position in start..end {
            let what = format!("byte {} of the batch at offset {offset}", position - start);
            let root = sound.damaged("flipped", |root| {
                change(&segments(root)[segment], |bytes| bytes[position] ^= 1 << (position % 8));
            });
            let mut left = sound_log();
            // Base offset, length, epoch and version can be told from what is around them.
            if position - start >= 17 {
                left.remove(&offset).unwrap();
            }
            let report = match position % 16 {
                0 => assert_repairs_to(&root, &left, &what),
                _ => assert_leaves(&root, &left, &what),
            };
            let lost: Vec<_> = report.steps.iter().filter_map(|s| s.offsets.clone()).collect();
            let expected = (position - start >= 17).then_some(offset..offset + 1);
            assert_eq!(lost, Vec::from_iter(expected), "{what}");
        }
    }
}

#[test]
fn a_stretch_of_rubbish_is_set_aside_and_kept() {
    let sound = Sound::new();
    let mut taken = Vec::new();
    let root = sound.damaged("rubbish", |root| {
        let segment = &segments(root)[1];
        let all = batches(segment);
        let (start, end) = (all[2].0, all[4].1);
        change(segment, |bytes| {
            for (n, byte) in bytes[start..end].iter_mut().enumerate() {
                *byte = (n * 31) as u8 | 1;
            }
            taken = bytes[start..end].to_vec();
        });
    });
    let first = batches(&segments(&root)[1])[0].2;
    let mut left = sound_log();
    (first + 2..first + 5).for_each(|offset| assert!(left.remove(&offset).is_some()));
    let report = assert_repairs_to(&root, &left, "rubbish");
    let step = report.steps.iter().find(|step| step.offsets.is_some()).unwrap();
    assert_eq!(step.offsets, Some(first + 2..first + 5));
    assert_eq!(fs::read(step.kept.as_ref().unwrap()).unwrap(), taken);
    let line = step.to_string();
    assert!(line.contains("set aside") && line.contains("are lost; kept in "), "{line}");
}

#[test]
fn a_segment_cut_at_any_batch_or_within_one_keeps_what_is_in_front() {
    let sound = Sound::new();
    let count = segments(&sound.directory.path().join("sound")).len();
    for segment in [0, 1, count - 1] {
        let path = &segments(&sound.directory.path().join("sound"))[segment];
        let all = batches(path);
        for (start, end, offset) in all.iter().step_by(3) {
            for cut in [*start, *start + 1, *start + 30, *end - 1] {
                let what = format!("segment {segment} cut at byte {cut}");
                let root = sound.damaged("cut", |root| {
                    change(&segments(root)[segment], |bytes| bytes.truncate(cut));
                });
                let mut left = sound_log();
                left.retain(|n, _| n < offset || *n > all[all.len() - 1].2);
                if cut == *start + 30 {
                    assert_repairs_to(&root, &left, &what);
                } else {
                    assert_leaves(&root, &left, &what);
                }
            }
        }
    }
}

#[test]
fn segments_that_are_gone_or_nothing_but_rubbish_cost_their_own_records() {
    let sound = Sound::new();
    let count = segments(&sound.directory.path().join("sound")).len();
    for segment in 0..count {
        let path = &segments(&sound.directory.path().join("sound"))[segment];
        let all = batches(path);
        let mut left = sound_log();
        left.retain(|n, _| *n < all[0].2 || *n > all[all.len() - 1].2);
        let rubbish = sound.damaged("rubbish", |root| {
            change(&segments(root)[segment], |bytes| bytes.fill(0xa5));
        });
        assert_repairs_to(&rubbish, &left, &format!("rubbish in segment {segment}"));
        let gone = sound.damaged("gone", |root| fs::remove_file(&segments(root)[segment]).unwrap());
        // Where a log begins only itself says; what was in front was deleted, for all that anybody knows.
        if segment > 0 {
            assert_repairs_to(&gone, &left, &format!("segment {segment} is gone"));
        }
    }
}

#[test]
fn segments_under_each_others_names_get_their_own() {
    let sound = Sound::new();
    let swap = |one: &Path, other: &Path| {
        let between = one.with_extension("between");
        fs::rename(one, &between).unwrap();
        fs::rename(other, one).unwrap();
        fs::rename(between, other).unwrap();
    };
    for with_indexes in [false, true] {
        let root = sound.damaged("swapped", |root| {
            let segments = segments(root);
            swap(&segments[0], &segments[2]);
            if with_indexes {
                for kind in ["index", "timeindex"] {
                    let index = |path: &Path| path.with_extension(kind);
                    swap(&index(&segments[0]), &index(&segments[2]));
                }
            }
        });
        let report = assert_repairs_to(&root, &sound_log(), "two are swapped");
        assert!(report.steps[0].what.contains("each other's names"), "{}", report.steps[0]);
        let root = sound.damaged("in a circle", |root| {
            let segments = segments(root);
            swap(&segments[0], &segments[1]);
            swap(&segments[1], &segments[2]);
        });
        assert_repairs_to(&root, &sound_log(), "three are swapped in a circle");
    }
    let root = sound.damaged("renamed", |root| {
        let segments = segments(root);
        fs::rename(&segments[1], segments[1].with_file_name("00000000000000000001.log")).unwrap();
    });
    assert_repairs_to(&root, &sound_log(), "one has a wrong name");
}

#[test]
fn indexes_are_made_anew_from_the_log() {
    let sound = Sound::new();
    let index =
        |root: &Path, segment: usize, kind: &str| segments(root)[segment].with_extension(kind);
    let original = |segment: usize, kind: &str| {
        fs::read(index(&sound.directory.path().join("sound"), segment, kind)).unwrap()
    };
    let log = sound_log();
    for kind in ["index", "timeindex"] {
        let len = original(1, kind).len();
        assert!(len >= 3 * 12, "{kind} has {len} bytes");
        let damages: Vec<(&str, Damage)> = vec![
            ("of another segment", {
                let other = original(0, kind);
                Box::new(move |path| fs::write(path, &other).unwrap())
            }),
            ("cut off", Box::new(|path| change(path, |bytes| bytes.truncate(bytes.len() - 1)))),
            ("rubbish", Box::new(|path| change(path, |bytes| bytes.fill(0x11)))),
            ("longer", Box::new(|path| change(path, |bytes| bytes.extend([0x7f; 24])))),
        ];
        for (what, damage) in damages {
            let root = sound.damaged("index", |root| damage(&index(root, 1, kind)));
            assert_repairs_to(&root, &log, &format!("{kind}: {what}"));
            assert_eq!(
                fs::read(index(&root, 1, kind)).unwrap(),
                original(1, kind),
                "{kind}: {what}"
            );
        }
    }
    let root = sound.damaged("gone", |root| fs::remove_file(index(root, 1, "timeindex")).unwrap());
    assert_repairs_to(&root, &log, "the time index is gone");
}

/// What a repair puts on record makes the next open believe more than the last one did, indexes among it.
#[test]
fn indexes_that_are_believed_only_after_a_repair_are_made_anew_by_it() {
    let sound = Sound::new();
    let unclean = |root: &Path| {
        fs::remove_file(root.join(".kafka_cleanshutdown")).unwrap();
        fs::remove_file(root.join("recovery-point-offset-checkpoint")).unwrap();
    };
    let at = |root: &Path, segment: usize, kind: &str| segments(root)[segment].with_extension(kind);
    // The last batch of the first segment is gone, and with it where the segment and its indexes agree.
    let batch = *batches(&segments(&sound.directory.path().join("sound"))[0]).last().unwrap();
    let mut left = sound_log();
    left.remove(&batch.2);
    let root = sound.damaged("cut", |root| {
        unclean(root);
        change(&segments(root)[0], |bytes| bytes.truncate(batch.0));
        fs::remove_file(at(root, 0, "timeindex")).unwrap();
    });
    assert_repairs_to(&root, &left, "records are missing that nothing accounts for");
    // A compaction that was cut short leaves the same, with no index at all.
    let root = sound.damaged("swap", |root| {
        unclean(root);
        let bytes = fs::read(&segments(root)[0]).unwrap();
        fs::write(at(root, 0, "log.swap"), &bytes[..batch.0]).unwrap();
    });
    assert!(!repair::plan(&root).unwrap().steps.is_empty());
    let applied = repair::apply(&root).unwrap();
    let swap = applied.steps.iter().filter(|step| step.path.ends_with("orders-0"));
    assert_eq!(swap.count(), 1, "what was planned is done, and told");
    assert!(applied.is_good(), "{applied:#?}");
    assert_eq!(repair::apply(&root).unwrap().steps, []);
    let store = Store::open(&root).unwrap();
    assert_eq!((store.health().findings, read_orders(&store)), (vec![], left));
    store.close().unwrap();
    // The first record of a segment is gone.
    let first = batches(&segments(&sound.directory.path().join("sound"))[2])[0];
    let mut left = sound_log();
    left.remove(&first.2);
    for damage in [true, false] {
        let root = sound.damaged("front", |root| {
            unclean(root);
            if damage {
                fs::write(root.join("orders-0/ottla.compacted"), "rubbish").unwrap();
            }
            change(&segments(root)[2], |bytes| drop(bytes.drain(..first.1)));
            for kind in ["index", "timeindex"] {
                fs::remove_file(at(root, 2, kind)).unwrap();
            }
        });
        assert_repairs_to(&root, &left, &format!("a gap within a segment, {damage}"));
    }
}

#[test]
fn small_files_are_made_anew_or_go_and_are_kept() {
    let sound = Sound::new();
    let log = sound_log();
    let rubbish: [(&str, &[u8]); 4] = [
        ("binary", b"\x00\xff\x17garbage\n\n\n"),
        ("cut off", b"0\n3\norders 0 1"),
        ("of another version", b"7\n0\n"),
        ("out of order", b"0\n2\norders 0 x\nnot a line\n"),
    ];
    for name in [
        "recovery-point-offset-checkpoint",
        "log-start-offset-checkpoint",
        "orders-0/leader-epoch-checkpoint",
        "orders-0/partition.metadata",
        "orders-0/ottla.compacted",
    ] {
        for (what, bytes) in rubbish {
            let what = format!("{name}: {what}");
            let root = sound.damaged("small", |root| fs::write(root.join(name), bytes).unwrap());
            let report = assert_repairs_to(&root, &log, &what);
            let step = report.steps.iter().find(|step| step.path == root.join(name)).unwrap();
            assert_eq!(fs::read(step.kept.as_ref().unwrap()).unwrap(), bytes, "{what}");
        }
    }
    let root = sound.damaged("metadata", |root| {
        fs::remove_file(root.join("orders-0/partition.metadata")).unwrap();
    });
    assert_repairs_to(&root, &log, "partition.metadata is gone");
}

#[test]
fn what_is_on_record_behind_the_end_of_a_log_is_never_given_out_again() {
    let sound = Sound::new();
    let log = sound_log();
    for (name, end) in [
        ("recovery-point-offset-checkpoint", 900),
        ("log-start-offset-checkpoint", 900),
        ("replication-offset-checkpoint", 900),
        // Nothing ever comes so far: not believed.
        ("recovery-point-offset-checkpoint", i64::MAX),
    ] {
        let what = format!("{name}: {end}");
        let root = sound.damaged("behind", |root| {
            fs::write(root.join(name), format!("0\n1\norders 0 {end}\n")).unwrap();
        });
        assert_repairs_to(&root, &log, &what);
        let store = Store::open(&root).unwrap();
        let orders = store.topic("orders").unwrap();
        let (_, log_end) = orders.partition(0).unwrap().watermarks().unwrap();
        let expected = if end == i64::MAX { COUNT + 1 } else { end + 1 };
        assert_eq!(log_end, expected, "{what}");
    }
    let root = sound.damaged("epochs", |root| {
        fs::write(root.join("orders-0/leader-epoch-checkpoint"), "0\n2\n0 0\n1 700\n").unwrap();
    });
    assert_repairs_to(&root, &log, "an epoch begins behind the end");
}

#[test]
fn a_list_of_topics_is_made_anew_and_lets_no_record_go() {
    let sound = Sound::new();
    let catalog = fs::read(sound.directory.path().join("sound/ottla.topics")).unwrap();
    for position in (0..catalog.len()).step_by(5) {
        let what = format!("byte {position} of ottla.topics");
        let root = sound.damaged("catalog", |root| {
            change(&root.join("ottla.topics"), |bytes| bytes[position] ^= 0x10);
        });
        // A version that is not known may be one to come.
        if matches!(inspect::check(&root), Ok(report) if report.problems.iter().any(|p| p.what.contains("version")))
        {
            assert!(matches!(repair::apply(&root), Err(Error::FormatTooNew { .. })), "{what}");
            continue;
        }
        if position % 40 == 0 {
            assert_repairs_to(&root, &sound_log(), &what);
        } else {
            assert!(repair::apply(&root).unwrap().is_good(), "{what}");
        }
        let store = Store::open(&root).unwrap();
        for name in ["orders", "other"] {
            let configs = store.topic(name).unwrap().describe().unwrap().configs;
            let config = |key: &str| configs.iter().find(|c| c.name == key).unwrap().value.clone();
            assert_eq!(config("retention.ms"), "-1", "{what}");
            assert_eq!(config("cleanup.policy"), "delete", "{what}");
        }
        assert_eq!(store.topic("other").unwrap().partitions().len(), 2, "{what}");
        let committed = store.group("g").unwrap().describe().unwrap();
        let offset = committed.partitions[0].committed.as_ref().map(|committed| committed.offset());
        assert_eq!(offset, Some(COMMITTED), "{what}");
    }
}

#[test]
fn a_partition_whose_directory_is_gone_goes_on_behind_what_it_had() {
    let sound = Sound::new();
    let root = sound.damaged("gone", |root| fs::remove_dir_all(root.join("orders-0")).unwrap());
    assert_repairs_to(&root, &Log::new(), "the directory is gone");
}

#[test]
fn a_group_never_stands_behind_records_that_a_repair_lets_be_written_anew() {
    // Everything that says how far the log was durable is gone, but for what a group has committed.
    let sound = Sound::new();
    let root = sound.damaged("committed", |root| {
        let segments = segments(root);
        for path in &segments[1..] {
            fs::remove_file(path).unwrap();
        }
        change(&segments[0], |bytes| {
            let len = bytes.len();
            bytes[len - 5] ^= 1;
        });
        for name in [
            "recovery-point-offset-checkpoint",
            "replication-offset-checkpoint",
            ".kafka_cleanshutdown",
        ] {
            fs::remove_file(root.join(name)).unwrap();
        }
    });
    assert!(batches(&segments(&root)[0]).len() < COMMITTED as usize);
    assert!(repair::apply(&root).unwrap().is_good());
    let store = Store::open(&root).unwrap();
    let orders = store.topic("orders").unwrap();
    let offset =
        store.producer().send(&orders, Record::new("more")).unwrap().wait().unwrap().offset();
    assert_eq!(offset, COMMITTED);
}

#[test]
fn a_directory_in_use_is_refused() {
    let sound = Sound::new();
    let root = sound.damaged("in use", |_| {});
    let store = Store::open(&root).unwrap();
    for refused in [repair::plan(&root), repair::apply(&root)] {
        match refused {
            Err(Error::Locked { path, .. }) => assert_eq!(path, root),
            other => panic!("{other:?}"),
        }
    }
    store.close().unwrap();
    assert!(repair::apply(&root).unwrap().is_good());
    for (path, reason) in [(root.join("orders-0"), "partition"), (root.join("nowhere"), "exist")] {
        match repair::apply(&path) {
            Err(Error::NotADataDirectory { reason: found, .. }) => assert!(found.contains(reason)),
            other => panic!("{other:?}"),
        }
    }
}

/// Kafka's own snapshots and transaction indexes, flipped: what is made anew is what Kafka had written.
#[test]
fn what_kafka_keeps_of_producers_is_made_anew_as_kafka_had_it() {
    let (_directory, clean) = golden::clean();
    let original = files(&clean);
    let names: Vec<&String> = original
        .keys()
        .filter(|name| name.ends_with(".snapshot") || name.ends_with(".txnindex"))
        .filter(|name| !original[*name].is_empty())
        .collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        for damage in [
            |bytes: &mut Vec<u8>| bytes[1] ^= 4,
            |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 1),
        ] {
            let (_directory, data) = golden::clean();
            change(&data.join(name), damage);
            assert!(!inspect::check(&data).unwrap().is_good(), "{name}");
            let report = repair::apply(&data).unwrap();
            assert!(report.is_good(), "{name}: {report:?}");
            let after = files(&data);
            // A compacted log does not have the batches any more that its older snapshots were made from.
            let is_derivable = !name.starts_with("compact-0");
            assert!(!is_derivable || after[name] == original[name], "{name}");
            for (other, bytes) in original.iter().filter(|(other, _)| *other != name) {
                // Leftovers of a compaction go, as with any open, and so does the marker.
                let goes = other.ends_with(".deleted") || other == ".kafka_cleanshutdown";
                assert!(goes || after[other] == *bytes, "{name}: {other} has changed");
            }
        }
    }
}

/// Every segment and index that Kafka wrote, with a byte flipped in its middle.
#[test]
fn a_directory_of_kafkas_is_repaired_like_any_other() {
    let (_directory, clean) = golden::clean();
    let original = files(&clean);
    let names = original.keys().filter(|name| {
        name.ends_with(".log") || name.ends_with("index") || name.ends_with("checkpoint")
    });
    let mut repaired = 0;
    for name in names.filter(|name| !original[*name].is_empty()) {
        let (_directory, data) = golden::clean();
        change(&data.join(name), |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x20;
        });
        let found = inspect::check(&data).unwrap();
        let report = repair::apply(&data).unwrap();
        assert!(report.is_good(), "{name}: {report:#?}");
        assert!(found.is_good() || !report.steps.is_empty(), "{name}");
        repaired += usize::from(!found.is_good());
        let store = Store::open(&data).unwrap();
        assert!(store.health().findings.is_empty(), "{name}: {:?}", store.health().findings);
        store.close().unwrap();
    }
    assert!(repaired > 20, "{repaired}");
}
