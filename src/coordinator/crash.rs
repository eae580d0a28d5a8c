//! Tests only: what groups do, on disks that fail or die at every effect of it.
//!
//! The directory is prepared once: records, three groups with something on record. Then, for each thing that groups do,
//! its n-th effect fails, for every n, in every way; whatever happens, the error says what is wrong, nobody panics, what
//! groups had on record is what it was before or what was to come of it, both after the failure and in the next life,
//! and all goes on from there.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::Consumer;
use crate::Durability;
use crate::Error;
use crate::Finding;
use crate::OffsetAndMetadata;
use crate::Record;
use crate::ResetTo;
use crate::Result;
use crate::Store;
use crate::StoreBuilder;
use crate::TopicConfig;
use crate::inspect;
use crate::storage::disk::Disk;
use crate::storage::faults::copy_tree;
use crate::storage::faults::fresh_copy;

const NOW: Duration = Duration::ZERO;

/// How a disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// One effect, once.
    Once(i32),
    /// One effect and all behind it, until somebody sees to it.
    UntilMended(i32),
    /// Likewise, and nobody does in this life: as if the process had died there.
    ForGood,
}

const FAULTS: [Fault; 5] = [
    Fault::Once(libc::EIO),
    Fault::Once(libc::ENOSPC),
    Fault::UntilMended(libc::EIO),
    Fault::UntilMended(libc::ENOSPC),
    Fault::ForGood,
];

/// What each group has on record: topic, partition, offset.
type OnRecord = BTreeMap<String, Vec<(String, u32, i64)>>;

/// One thing that groups do.
struct Scene {
    name: &'static str,
    /// What is to be there before the disk fails.
    begin: fn(&Store) -> Option<Consumer>,
    act: fn(&Store, &mut Option<Consumer>) -> Result<()>,
    /// Whether it can be done again where it has failed.
    again: Again,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    Can,
    Cannot,
}

fn builder(root: &Path) -> StoreBuilder {
    // Syncs happen when they are asked for and not by the clock.
    Store::builder(root)
        .durability(Durability::Buffered)
        .checkpoint_interval(Duration::from_secs(3600))
}

fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn send(store: &Store, count: usize) {
    let producer = store.producer();
    for partition in store.topic("t").unwrap().partitions() {
        for _ in 0..count {
            producer
                .send(partition.topic(), Record::new("v").partition(partition.partition()))
                .unwrap();
        }
    }
}

/// Prepares a directory, closed in order, and one of the same whose process was killed.
fn prepared(root: &Path) -> (PathBuf, PathBuf) {
    let (closed, killed) = (root.join("closed"), root.join("killed"));
    let store = builder(&closed).open().unwrap();
    let topic = store.create_topic("t", TopicConfig::new().partitions(2)).unwrap();
    send(&store, 10);
    for (group, offset) in [("g", 3), ("other", 5), ("third", 7)] {
        let group = store.group(group).unwrap();
        // Superseded at once, so that there is something to compact.
        for offset in [1, offset] {
            let noted = OffsetAndMetadata::new(offset).with_metadata("noted");
            group.alter_offsets(topic.partitions().iter().map(|p| (p, noted.clone()))).unwrap();
        }
    }
    let passing = store.create_topic("u", TopicConfig::new()).unwrap();
    store.group("other").unwrap().alter_offsets([(passing.partition(0).unwrap(), 0)]).unwrap();
    copy_tree(&closed, &killed);
    drop((topic, passing));
    store.close().unwrap();
    (closed, killed)
}

fn on_record(store: &Store) -> Result<OnRecord> {
    let mut all = OnRecord::new();
    for group in store.groups()? {
        let offsets = group.offsets()?;
        let offsets: Vec<_> = offsets.into_iter().map(|(t, p, o)| (t, p, o.offset())).collect();
        if !offsets.is_empty() {
            all.insert(group.id().to_owned(), offsets);
        }
    }
    Ok(all)
}

fn member(store: &Store) -> Option<Consumer> {
    send(store, 2);
    let topic = store.topic("t").unwrap();
    let mut consumer = store.consumer().commit_on_close(true).subscribe("g", &topic).unwrap();
    read_on(&mut consumer);
    Some(consumer)
}

fn nobody(_: &Store) -> Option<Consumer> {
    None
}

fn read_on(consumer: &mut Consumer) -> usize {
    let mut count = 0;
    loop {
        match consumer.poll(NOW).unwrap().count() {
            0 => return count,
            more => count += more,
        }
    }
}

fn join(store: &Store, consumer: &mut Option<Consumer>, group: &str) -> Result<()> {
    let topic = store.topic("t")?;
    let joined = store.consumer().instance_id("s").subscribe(group, &topic)?;
    consumer.insert(joined).poll(NOW).map(|_| ())
}

const SCENES: [Scene; 12] = [
    Scene {
        name: "commit",
        begin: member,
        act: |_, consumer| consumer.as_mut().map_or(Ok(()), Consumer::commit),
        again: Again::Can,
    },
    Scene {
        name: "commit without waiting",
        begin: member,
        act: |_, consumer| consumer.as_mut().map_or(Ok(()), Consumer::commit_async),
        again: Again::Can,
    },
    Scene {
        name: "commit of offsets",
        begin: member,
        act: |store, consumer| {
            let partitions = store.topic("t")?.partitions();
            let offsets = partitions.iter().map(|partition| (partition, 12));
            consumer.as_mut().map_or(Ok(()), |consumer| consumer.commit_offsets(offsets))
        },
        again: Again::Can,
    },
    Scene {
        name: "commit at the end",
        begin: member,
        act: |_, consumer| consumer.take().map_or(Ok(()), Consumer::close),
        again: Again::Cannot,
    },
    Scene {
        name: "join",
        begin: nobody,
        act: |store, consumer| join(store, consumer, "g"),
        again: Again::Can,
    },
    Scene {
        name: "join of a new group",
        begin: nobody,
        act: |store, consumer| join(store, consumer, "new"),
        again: Again::Can,
    },
    Scene {
        name: "reset",
        begin: nobody,
        act: |store, _| {
            let partitions = store.topic("t")?.partitions();
            store.group("g")?.reset_offsets(ResetTo::Latest, partitions).map(|_| ())
        },
        again: Again::Can,
    },
    Scene {
        name: "deletion of offsets",
        begin: nobody,
        act: |store, _| {
            match store.group("g")?.delete_offsets(store.topic("t")?.partitions()) {
                // There was nothing else of the group.
                Err(Error::UnknownGroup { .. }) => Ok(()),
                other => other,
            }
        },
        again: Again::Can,
    },
    Scene {
        name: "deletion of a group",
        begin: nobody,
        act: |store, _| match store.group("g")?.delete() {
            // It was deleted before, and only its durability had failed.
            Err(Error::UnknownGroup { .. }) => Ok(()),
            other => other,
        },
        again: Again::Can,
    },
    Scene {
        name: "deletion of a topic",
        begin: nobody,
        act: |store, _| match store.delete_topic("u") {
            // There was no way back, and the next open finishes it.
            Err(Error::UnknownTopic { .. }) => Ok(()),
            other => other,
        },
        again: Again::Can,
    },
    Scene {
        name: "compaction",
        begin: |store| {
            on_record(store).unwrap();
            None
        },
        act: |store, _| store.coordinator_for_test().log().compact(),
        again: Again::Can,
    },
    Scene {
        name: "close",
        begin: member,
        act: |store, _| {
            let coordinator = store.coordinator_for_test();
            coordinator.close()
        },
        again: Again::Cannot,
    },
];

/// An error that says what is wrong and where.
fn assert_is_clear(error: &Error, what: &str) {
    let names_what = match error {
        Error::Io { path, .. } | Error::OutOfSpace { path, .. } => !path.as_os_str().is_empty(),
        Error::Latched { reason, .. } | Error::Unavailable { reason, .. } => !reason.is_empty(),
        _ => false,
    };
    assert!(names_what, "{what}: {error:?}");
}

/// The next life: nothing is wrong, what is on record is one of `expected`, and all goes on.
fn check_next_life(root: &Path, expected: &[&OnRecord], what: &str) {
    let store = builder(root).open().unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = on_record(&store).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(expected.contains(&&found), "{what}: {found:?} is none of {expected:?}");
    let topic = store.topic("t").unwrap();
    let group = store.group("g").unwrap();
    let mut consumer = store.consumer().subscribe("g", &topic).unwrap();
    // From where it stopped, without a hole.
    let left: i64 = topic
        .partitions()
        .iter()
        .map(|partition| {
            let noted = consumer.committed(partition).unwrap();
            partition.watermarks().unwrap().1 - noted.map_or(0, |noted| noted.offset())
        })
        .sum();
    assert_eq!(read_on(&mut consumer) as i64, left, "{what}");
    consumer.commit().unwrap_or_else(|error| panic!("{what}: {error}"));
    consumer.close().unwrap();
    let health = store.health();
    assert!(health.is_good(), "{what}: {health:?}");
    drop((topic, group));
    store.close().unwrap();
    let report = inspect::check(root).unwrap();
    // An index that recovery could not write is built in memory and stays unwritten, and so does a snapshot that was
    // torn as a segment ended; a check says so, and groups need neither.
    let is_derived = |path: &Path| {
        path.extension().is_some_and(|kind| kind == "timeindex" || kind == "snapshot")
    };
    let problems: Vec<_> = report.problems.iter().filter(|p| !is_derived(&p.path)).collect();
    assert!(problems.is_empty(), "{what}: {problems:?}");
    let store = builder(root).open().unwrap();
    let ends = store.topic("t").unwrap().partitions();
    for (partition, (_, number, offset)) in ends.iter().zip(&on_record(&store).unwrap()["g"]) {
        assert_eq!((partition.partition(), partition.watermarks().unwrap().1), (*number, *offset));
    }
}

#[test]
fn whichever_effect_fails_groups_lose_nothing_and_go_on() {
    let directory = scratch();
    let (closed, _) = prepared(directory.path());
    let (mut latched, mut full, mut noted) = (0, 0, 0);
    for Scene { name, begin, act, again } in SCENES {
        let root = fresh_copy(&closed, "whole");
        let disk = Disk::failing_once(u64::MAX, 0);
        let store = builder(&root).disk(disk.clone()).open().unwrap();
        let mut consumer = begin(&store);
        let before = on_record(&store).unwrap();
        let begun = disk.script().count();
        act(&store, &mut consumer).unwrap();
        let trace = disk.script().trace()[begun as usize..].to_vec();
        drop((consumer, store));
        let after = on_record(&builder(&root).open().unwrap()).unwrap();
        assert!(!trace.is_empty(), "{name} has no effect");
        for fault in FAULTS {
            for (n, effect) in trace.iter().enumerate() {
                let what =
                    format!("{name}, {fault:?}, effect {} of {}: {effect}", n + 1, trace.len());
                let root = fresh_copy(&closed, "failing");
                let disk = Disk::failing_once(u64::MAX, 0);
                let store = builder(&root).disk(disk.clone()).open().unwrap();
                let mut consumer = begin(&store);
                match fault {
                    Fault::Once(errno) => disk.script().arm(n as u64 + 1, errno, false),
                    Fault::UntilMended(errno) => disk.script().arm(n as u64 + 1, errno, true),
                    Fault::ForGood => disk.script().arm(n as u64 + 1, libc::EIO, true),
                }
                let mut outcome = act(&store, &mut consumer);
                if let Err(error) = &outcome {
                    assert_is_clear(error, &what);
                    latched += usize::from(matches!(error, Error::Latched { .. }));
                    full += usize::from(matches!(error, Error::OutOfSpace { .. }));
                }
                let has_panicked = |finding: &Finding| format!("{finding:?}").contains("panic");
                let findings = store.health().findings;
                assert!(!findings.iter().any(has_panicked), "{what}: {findings:?}");
                noted += usize::from(!findings.is_empty());
                if fault != Fault::ForGood && again == Again::Can {
                    disk.script().disarm();
                    let now = on_record(&store).unwrap_or_else(|e| panic!("{what}: {e}"));
                    assert!(now == before || now == after, "{what}: {now:?}");
                    // Who reads, reads on, and what failed succeeds or says why it cannot.
                    if let Some(consumer) = &mut consumer {
                        read_on(consumer);
                    }
                    let was_latched = matches!(outcome, Err(Error::Latched { .. }));
                    if outcome.is_err() {
                        outcome = act(&store, &mut consumer);
                    }
                    // What could not be made durable is never said to be.
                    assert!(outcome.is_err() || !was_latched, "{what}: done the second time");
                    if let Err(error) = &outcome {
                        assert_is_clear(error, &what);
                    }
                }
                drop((consumer, store));
                match outcome {
                    Ok(()) if name != "commit without waiting" => {
                        check_next_life(&root, &[&after], &what);
                    }
                    _ => check_next_life(&root, &[&before, &after], &what),
                }
            }
        }
    }
    assert!(
        latched > 20 && full > 20 && noted > 20,
        "{latched} latched, {full} full, {noted} noted"
    );
}

/// The first paper of a directory has its topic made.
#[test]
fn whichever_effect_of_a_first_commit_fails_it_can_be_made_again() {
    let directory = scratch();
    let prepared = directory.path().join("prepared");
    let store = builder(&prepared).open().unwrap();
    drop(store.create_topic("t", TopicConfig::new().partitions(2)).unwrap());
    send(&store, 10);
    store.close().unwrap();
    let mut effects = u64::MAX;
    for fault in FAULTS {
        for n in 1.. {
            if n > effects {
                break;
            }
            let what = format!("{fault:?}, effect {n}");
            let root = fresh_copy(&prepared, "failing");
            let disk = Disk::failing_once(u64::MAX, 0);
            let store = builder(&root).disk(disk.clone()).open().unwrap();
            let partitions = store.topic("t").unwrap().partitions();
            let mut consumer = store.consumer().group("g").assign(&partitions).unwrap();
            read_on(&mut consumer);
            let begun = disk.script().count();
            match fault {
                Fault::Once(errno) => disk.script().arm(n, errno, false),
                Fault::UntilMended(errno) => disk.script().arm(n, errno, true),
                Fault::ForGood => disk.script().arm(n, libc::EIO, true),
            }
            let mut outcome = consumer.commit();
            if disk.script().count() - begun < n {
                outcome.unwrap();
                effects = n - 1;
                break;
            }
            if let Err(error) = &outcome {
                assert_is_clear(error, &what);
            }
            if fault != Fault::ForGood {
                disk.script().disarm();
                if outcome.is_err() {
                    outcome = consumer.commit();
                }
            }
            drop((partitions, consumer, store));
            let all = ("g".to_owned(), vec![("t".to_owned(), 0, 10), ("t".to_owned(), 1, 10)]);
            let (before, after) = (OnRecord::new(), OnRecord::from([all]));
            match outcome {
                Ok(()) => check_next_life(&root, &[&after], &what),
                Err(_) => check_next_life(&root, &[&before, &after], &what),
            }
        }
    }
    assert!(effects > 10 && effects < 100, "{effects}");
}

/// An open that fails says so; one that comes to be without what groups have on record does not say that there is
/// nothing: the groups would begin anew.
#[test]
fn whichever_effect_of_an_open_fails_no_group_forgets_where_it_stopped() {
    let directory = scratch();
    let (closed, killed) = prepared(directory.path());
    let (mut refused, mut unavailable) = (0, 0);
    for prepared in [closed, killed] {
        let expected = {
            let root = fresh_copy(&prepared, "whole");
            on_record(&builder(&root).open().unwrap()).unwrap()
        };
        assert_eq!(expected.len(), 3, "{expected:?}");
        let mut effects = u64::MAX;
        for fault in FAULTS {
            for n in 1.. {
                if n > effects {
                    break;
                }
                let root = fresh_copy(&prepared, "failing");
                let disk = match fault {
                    Fault::Once(errno) => Disk::failing_once(n, errno),
                    Fault::UntilMended(errno) => Disk::dying_of(n, errno),
                    Fault::ForGood => Disk::dying(n),
                };
                let opened = builder(&root).disk(disk.clone()).open();
                let trace = disk.script().trace();
                let Some(effect) = trace.get(n as usize - 1) else {
                    effects = n - 1;
                    break;
                };
                let what = format!("{}, {fault:?}, effect {n}: {effect}", prepared.display());
                match opened {
                    Err(error) => {
                        assert_is_clear(&error, &what);
                        refused += 1;
                    }
                    Ok(store) => {
                        for (id, offsets) in &expected {
                            let group = store.group(id).and_then(|group| group.offsets());
                            match group {
                                Ok(found) => {
                                    let found: Vec<_> = found
                                        .into_iter()
                                        .map(|(t, p, noted)| (t, p, noted.offset()))
                                        .collect();
                                    assert_eq!(found, *offsets, "{what}");
                                }
                                Err(error) => {
                                    assert_is_clear(&error, &what);
                                    unavailable += 1;
                                    // Nor does one who subscribes begin anew.
                                    let topic = store.topic("t").unwrap();
                                    let error = store.consumer().subscribe(id, &topic).unwrap_err();
                                    assert_is_clear(&error, &what);
                                }
                            }
                        }
                    }
                }
                check_next_life(&root, &[&expected], &what);
            }
        }
    }
    assert!(refused > 10 && unavailable > 2, "{refused} refused, {unavailable} unavailable");
}
