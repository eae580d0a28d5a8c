//! What members of a group can rely on.

#![allow(clippy::unwrap_used, reason = "a test that fails should say where")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use ottla::Assignor;
use ottla::Consumer;
use ottla::Error;
use ottla::GroupStatus;
use ottla::OffsetAndMetadata;
use ottla::OffsetReset;
use ottla::Record;
use ottla::ResetTo;
use ottla::Start;
use ottla::Store;
use ottla::Subscription;
use ottla::Topic;
use ottla::TopicConfig;

use crate::groups_papers::their_batch;

const NOW: Duration = Duration::ZERO;
const SOON: Duration = Duration::from_secs(20);

fn store_with(partitions: u32) -> (Store, Topic) {
    let store = Store::temporary().unwrap();
    let topic = store.create_topic("t", TopicConfig::new().partitions(partitions)).unwrap();
    (store, topic)
}

/// Puts `count` records into each partition; the values tell which and where.
fn fill(store: &Store, topic: &Topic, count: usize) {
    let producer = store.producer();
    for partition in topic.partitions() {
        for _ in 0..count {
            producer.send_batch(&partition, [Record::new("v")]).unwrap().wait().unwrap();
        }
    }
}

fn has(consumer: &Consumer) -> Vec<String> {
    let mut has: Vec<String> = consumer.assignment().map(ToString::to_string).collect();
    has.sort();
    has
}

/// Has all of them poll until nothing moves any more.
fn settle(consumers: &mut [&mut Consumer]) {
    for _ in 0..4 {
        for consumer in &mut *consumers {
            consumer.poll(NOW).unwrap();
        }
    }
}

#[test]
fn members_share_the_partitions_and_hand_over_only_what_must_move() {
    let (store, topic) = store_with(6);
    let mut a = store.consumer().subscribe("g", &topic).unwrap();
    a.poll(NOW).unwrap();
    assert_eq!(has(&a).len(), 6);
    let mut b = store.consumer().subscribe("g", &topic).unwrap();
    b.poll(NOW).unwrap();
    assert_eq!(has(&b).len(), 0, "nothing is read by two");
    let before: BTreeSet<String> = has(&a).into_iter().collect();
    settle(&mut [&mut a, &mut b]);
    assert_eq!((has(&a).len(), has(&b).len()), (3, 3));
    let both: BTreeSet<String> = has(&a).into_iter().chain(has(&b)).collect();
    assert_eq!(both, before);
    let kept = has(&a);
    let generation = a.generation();
    settle(&mut [&mut a, &mut b]);
    assert_eq!((has(&a), a.generation()), (kept, generation), "a stable group moves nothing");
    drop(b);
    a.poll(NOW).unwrap();
    assert_eq!(has(&a).len(), 6);
}

#[test]
fn a_sleeping_member_takes_over_at_once_what_a_leaving_one_held() {
    let (store, topic) = store_with(1);
    let mut a = store.consumer().subscribe("g", &topic).unwrap();
    a.poll(NOW).unwrap();
    let mut b = store.consumer().subscribe("g", &topic).unwrap();
    fill(&store, &topic, 1);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| b.poll(SOON).map(|records| records.count()));
        drop(a);
        assert_eq!(waiting.join().unwrap().unwrap(), 1);
    });
}

#[test]
fn a_panicking_member_is_replaced_and_nothing_it_was_at_is_skipped() {
    let (store, topic) = store_with(2);
    fill(&store, &topic, 10);
    let builder = store.consumer().auto_commit(Duration::ZERO);
    let mut a = builder.clone().subscribe("g", &topic).unwrap();
    let died = std::thread::scope(|scope| {
        let dying = scope.spawn(move || {
            let records = a.poll(NOW).unwrap();
            assert_eq!(records.count(), 20);
            std::panic::resume_unwind(Box::new("amid the work"));
        });
        dying.join()
    });
    assert!(died.is_err());
    let mut b = builder.subscribe("g", &topic).unwrap();
    assert_eq!(b.poll(NOW).unwrap().count(), 20);
    // What was dropped in order is not read again.
    b.close().unwrap();
    let mut c = store.consumer().subscribe("g", &topic).unwrap();
    assert_eq!(c.poll(NOW).unwrap().count(), 0);
}

#[test]
fn a_partition_stays_with_its_member_until_its_records_are_dropped() {
    let (store, topic) = store_with(2);
    fill(&store, &topic, 3);
    let mut a = store.consumer().subscribe("g", &topic).unwrap();
    let held = a.poll(NOW).unwrap();
    assert_eq!(held.count(), 6);
    let owned = held.iter().last().unwrap().detach();
    let mut b = store.consumer().subscribe("g", &topic).unwrap();
    settle(&mut [&mut a, &mut b]);
    assert_eq!((has(&a).len(), has(&b).len()), (2, 0));
    drop(held);
    settle(&mut [&mut a, &mut b]);
    assert_eq!((has(&a).len(), has(&b).len()), (2, 0), "a message that was detached counts");
    drop(owned);
    settle(&mut [&mut a, &mut b]);
    assert_eq!((has(&a).len(), has(&b).len()), (1, 1));
}

/// Line 18 of the conformance list; more of it in `groups_conformance`.
#[test]
fn listeners_hear_in_kafkas_order_and_may_commit_what_goes() {
    let (store, topic) = store_with(2);
    fill(&store, &topic, 3);
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = |what: &'static str| {
        let told = Arc::clone(&told);
        move |rebalance: &mut ottla::Rebalance<'_>, partitions: &[ottla::TopicPartition]| {
            let names: Vec<String> = partitions.iter().map(ToString::to_string).collect();
            for partition in partitions {
                assert!(rebalance.assignment().any(|other| other == partition));
            }
            if what == "revoked" {
                rebalance.commit()?;
            }
            told.lock().unwrap().push((what, names));
            Ok(())
        }
    };
    let mut a = store
        .consumer()
        .on_assigned(tell("assigned"))
        .on_revoked(tell("revoked"))
        .on_lost(tell("lost"))
        .subscribe("g", &topic)
        .unwrap();
    // Records are in hand: a listener that has returned is enough.
    let held = a.poll(NOW).unwrap();
    assert_eq!(held.count(), 6);
    let mut b = store.consumer().subscribe("g", &topic).unwrap();
    a.poll(NOW).unwrap();
    assert_eq!(b.poll(NOW).unwrap().count(), 0, "it was committed before it went");
    assert_eq!(has(&b).len(), 1);
    store.delete_topic("t").unwrap();
    a.poll(NOW).unwrap();
    a.close().unwrap();
    let told = std::mem::take(&mut *told.lock().unwrap());
    let what: Vec<&str> = told.iter().map(|(what, _)| *what).collect();
    assert_eq!(what, ["assigned", "revoked", "lost"]);
    assert_eq!((told[0].1.len(), told[1].1.len(), told[2].1.len()), (2, 1, 1));
}

#[test]
fn what_a_listener_returns_comes_out_of_the_poll_and_undoes_nothing() {
    let (store, topic) = store_with(1);
    let mut a = store
        .consumer()
        .on_assigned(|_, _| Err(Error::Timeout { what: "the listener" }))
        .subscribe("g", &topic)
        .unwrap();
    assert!(matches!(a.poll(NOW), Err(Error::Timeout { .. })));
    assert_eq!(has(&a).len(), 1);
    a.poll(NOW).unwrap();
}

/// Line 14 of the conformance list, the first part.
#[test]
fn commits_survive_the_process_and_are_where_the_group_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let store = Store::open(&path).unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    fill(&store, &topic, 10);
    let partition = topic.partition(0).unwrap();
    let mut a = store.consumer().max_poll_records(4).subscribe("g", &topic).unwrap();
    assert_eq!(a.committed(&partition).unwrap(), None);
    assert_eq!(a.poll(NOW).unwrap().count(), 4);
    a.commit().unwrap();
    let fifth = a.poll(NOW).unwrap();
    a.commit_message(&fifth.iter().next().unwrap()).unwrap();
    assert_eq!(a.committed(&partition).unwrap().unwrap().offset(), 5);
    drop((a, fifth, partition, topic));
    store.close().unwrap();

    let store = Store::open(&path).unwrap();
    let topic = store.topic("t").unwrap();
    let partition = topic.partition(0).unwrap();
    let mut a = store.consumer().subscribe("g", &topic).unwrap();
    let records = a.poll(NOW).unwrap();
    assert_eq!(records.iter().next().unwrap().offset(), 5);
    drop(records);
    let noted = OffsetAndMetadata::new(7).with_metadata("seven").with_leader_epoch(3);
    a.commit_offsets([(partition.clone(), noted.clone())]).unwrap();
    assert_eq!(a.committed(&partition).unwrap(), Some(noted.clone()));
    drop((a, topic, partition, store));

    let store = Store::open(&path).unwrap();
    let partition = store.topic("t").unwrap().partition(0).unwrap();
    let a = store.consumer().group("g").assign([&partition]).unwrap();
    assert_eq!(
        (a.position(&partition).unwrap(), a.committed(&partition).unwrap()),
        (7, Some(noted))
    );
}

/// Line 20 of the conformance list; more of it in `groups_conformance`.
#[test]
fn nobody_commits_what_is_not_his() {
    let (store, topic) = store_with(2);
    fill(&store, &topic, 2);
    let mut a = store.consumer().subscribe("g", &topic).unwrap();
    a.poll(NOW).unwrap();
    let partitions = topic.partitions();
    let mut outsider = store.consumer().group("g").assign(&partitions).unwrap();
    outsider.poll(NOW).unwrap();
    assert!(matches!(outsider.commit(), Err(Error::CommitRefused { .. })));
    let mut b = store.consumer().subscribe("g", &topic).unwrap();
    settle(&mut [&mut a, &mut b]);
    let given = b.assignment().next().unwrap().clone();
    let refused = a.commit_offsets([(given.clone(), 1)]);
    assert!(matches!(refused, Err(Error::CommitRefused { .. })), "{refused:?}");
    b.commit_offsets([(given, 1)]).unwrap();
    drop((a, b));
    outsider.commit().unwrap();
    let mut alone = store.consumer().assign(&partitions).unwrap();
    assert!(matches!(alone.commit(), Err(Error::NoGroup)));
    assert!(matches!(alone.subscribe(&topic), Err(Error::NoGroup)));
}

#[test]
fn a_member_that_was_put_out_is_told_and_joins_again() {
    let (store, topic) = store_with(2);
    fill(&store, &topic, 2);
    let lost = Arc::new(Mutex::new(0));
    let count = Arc::clone(&lost);
    let mut a = store
        .consumer()
        .on_lost(move |rebalance, partitions| {
            *count.lock().unwrap() += partitions.len();
            assert!(matches!(rebalance.commit(), Err(Error::CommitRefused { .. })));
            Ok(())
        })
        .subscribe("g", &topic)
        .unwrap();
    let held = a.poll(NOW).unwrap();
    let first = a.member_id().unwrap().to_owned();
    assert_eq!(store.group("g").unwrap().remove_members(&[&first]).unwrap(), 1);
    assert!(matches!(a.commit(), Err(Error::CommitRefused { .. })));
    a.poll(NOW).unwrap();
    assert_eq!((*lost.lock().unwrap(), has(&a).len()), (2, 2));
    assert_ne!(a.member_id().unwrap(), first);
    drop(held);
}

#[test]
fn a_member_that_does_not_poll_loses_what_others_wait_for_if_it_was_told_so() {
    let (store, topic) = store_with(2);
    fill(&store, &topic, 1);
    let builder = store.consumer().max_poll_interval(Duration::from_millis(30));
    let mut a = builder.clone().subscribe("g", &topic).unwrap();
    let held = a.poll(NOW).unwrap();
    assert_eq!(held.count(), 2);
    let mut b = builder.subscribe("g", &topic).unwrap();
    // It wakes by itself when the other's time is up.
    assert!(b.poll(SOON).unwrap().count() > 0);
    assert!(matches!(a.commit(), Err(Error::CommitRefused { .. })));
    drop(held);
    settle(&mut [&mut a, &mut b]);
    assert_eq!((has(&a).len(), has(&b).len()), (1, 1));
}

#[test]
fn partitions_and_topics_are_noticed_as_they_come_and_go() {
    let store = Store::temporary().unwrap();
    let fits = Subscription::matching(|name| name.starts_with("log-"));
    let mut a = store.consumer().subscribe("g", fits).unwrap();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut values = BTreeSet::new();
            while values.len() < 3 {
                for message in &a.poll(SOON).unwrap() {
                    values.insert(String::from_utf8(message.value().unwrap().to_vec()).unwrap());
                }
            }
            values
        });
        let other = store.create_topic("other", TopicConfig::new()).unwrap();
        let first = store.create_topic("log-1", TopicConfig::new()).unwrap();
        let producer = store.producer();
        producer.send(&other, "other").unwrap();
        producer.send(&first, "first").unwrap();
        first.add_partitions(2).unwrap();
        let added = first.partition(1).unwrap();
        producer.send_batch(&added, [Record::new("added")]).unwrap();
        let second = store.create_topic("log-2", TopicConfig::new()).unwrap();
        producer.send(&second, "second").unwrap();
        let read: Vec<String> = reading.join().unwrap().into_iter().collect();
        assert_eq!(read, ["added", "first", "second"]);
    });
    store.delete_topic("log-1").unwrap();
    a.poll(NOW).unwrap();
    assert_eq!(has(&a), ["log-2-0"]);
}

/// Line 14 of the conformance list, where nothing is committed, and line 21.
#[test]
fn where_a_new_group_begins_is_fixed_by_the_subscription() {
    let (store, topic) = store_with(1);
    fill(&store, &topic, 3);
    let latest = store.consumer().start(Start::Latest);
    let a = latest.clone().subscribe("g", &topic).unwrap();
    fill(&store, &topic, 2);
    drop(a);
    // Nobody has polled, and yet the two records are not skipped.
    let mut b = latest.subscribe("g", &topic).unwrap();
    fill(&store, &topic, 1);
    assert_eq!(b.poll(NOW).unwrap().iter().map(|m| m.offset()).collect::<Vec<_>>(), [3, 4, 5]);
    topic.add_partitions(2).unwrap();
    store.producer().send(&topic, Record::new("v").partition(1)).unwrap();
    assert_eq!(b.poll(SOON).unwrap().count(), 1, "an added partition is read from its beginning");

    let by_time = store.consumer().start(Start::ByDuration(Duration::from_secs(3600)));
    assert_eq!(by_time.subscribe("young", &topic).unwrap().poll(NOW).unwrap().count(), 7);
    let last = store.consumer().start(Start::Last(2));
    assert_eq!(last.subscribe("last", &topic).unwrap().poll(NOW).unwrap().count(), 3);
    let nowhere = store.consumer().start(Start::Committed).subscribe("none", &topic);
    assert!(matches!(nowhere, Err(Error::NoOffset { .. })));
    let none = store.group("none").unwrap().describe();
    assert!(matches!(none, Err(Error::UnknownGroup { .. })));
    let mut somewhere = store.consumer().start(Start::Committed).subscribe("last", &topic).unwrap();
    somewhere.poll(NOW).unwrap();
}

#[test]
fn committed_offsets_out_of_range_follow_the_reset_policy() {
    let (store, topic) = store_with(1);
    let partition = topic.partition(0).unwrap();
    let mut a = store.consumer().group("g").assign([&partition]).unwrap();
    for offset in [1, -1] {
        let error = a.commit_offsets([(partition.clone(), offset)]).unwrap_err();
        let is_named =
            matches!(error, Error::OffsetOutOfRange { .. } | Error::InvalidArgument { .. });
        assert!(is_named, "{error}");
    }
    let long = OffsetAndMetadata::new(0).with_metadata(&"x".repeat(4097));
    let error = a.commit_offsets([(partition.clone(), long)]).unwrap_err();
    assert!(matches!(error, Error::MetadataTooLarge { len: 4097, limit: 4096 }));
    let fits = OffsetAndMetadata::new(0).with_metadata(&"x".repeat(4096));
    a.commit_offsets([(partition, fits)]).unwrap();
}

#[test]
fn a_new_group_is_never_put_on_record_behind_the_end_of_a_log() {
    let (store, topic) = store_with(2);
    fill(&store, &topic, 3);
    store.producer().send_batch(&topic.partition(0).unwrap(), [Record::new("v")]).unwrap();
    let at = |reset| store.consumer().start(Start::Offset(4)).reset(reset);
    let refused = at(OffsetReset::Error).subscribe("strict", &topic);
    assert!(matches!(refused, Err(Error::OffsetOutOfRange { partition: 1, offset: 4, .. })));
    let strict = store.group("strict").unwrap().describe();
    assert!(matches!(strict, Err(Error::UnknownGroup { .. })), "{strict:?}");
    for (group, reset, begins) in
        [("early", OffsetReset::Earliest, 0), ("late", OffsetReset::Latest, 3)]
    {
        let mut member = at(reset).subscribe(group, &topic).unwrap();
        let committed = |number| {
            let partition = topic.partition(number).unwrap();
            member.committed(&partition).unwrap().unwrap().offset()
        };
        assert_eq!((committed(0), committed(1)), (4, begins), "{group}");
        assert_eq!(member.poll(NOW).unwrap().count(), 3 - begins as usize, "{group}");
    }
}

#[test]
fn odd_groups_are_refused_by_name() {
    let (store, topic) = store_with(1);
    assert!(matches!(store.consumer().subscribe("", &topic), Err(Error::InvalidGroup { .. })));
    let long = "g".repeat(40_000);
    assert!(matches!(store.group(&long), Err(Error::InvalidGroup { .. })));
    let odd = "ü ".repeat(512);
    let mut a = store.consumer().subscribe(&odd, &topic).unwrap();
    fill(&store, &topic, 1);
    a.poll(NOW).unwrap();
    a.commit().unwrap();
    assert_eq!(store.groups().unwrap()[0].id(), odd);
    assert!(matches!(store.group("x").unwrap().describe(), Err(Error::UnknownGroup { .. })));
    assert!(matches!(store.group("x").unwrap().delete(), Err(Error::UnknownGroup { .. })));
    let nothing: [&Topic; 0] = [];
    assert!(matches!(store.consumer().subscribe("g", nothing), Err(Error::InvalidArgument { .. })));
    let other = store.consumer().assignor(Assignor::Range).subscribe(&odd, &topic);
    assert!(matches!(other, Err(Error::InconsistentAssignor { .. })));
    let one = store.consumer().instance_id("i").subscribe("s", &topic).unwrap();
    let other = store.consumer().instance_id("i").subscribe("s", &topic);
    assert!(matches!(other, Err(Error::InstanceInUse { .. })));
    drop(one);
    store.consumer().instance_id("i").subscribe("s", &topic).unwrap();
    for odd in ["", "a b", &"i".repeat(250)] {
        let refused = store.consumer().instance_id(odd).subscribe("s", &topic);
        assert!(matches!(refused, Err(Error::InvalidArgument { .. })), "{odd}");
    }
    for internal in ["__consumer_offsets", "__transaction_state"] {
        let refused = store.create_topic(internal, TopicConfig::new());
        assert!(matches!(refused, Err(Error::InternalTopic { .. })));
        assert!(store.delete_topic(internal).is_err());
    }
    let reader = Store::open_read_only(store.path()).unwrap();
    let refused = reader.consumer().subscribe("g", &reader.topic("t").unwrap());
    assert!(matches!(refused, Err(Error::ReadOnly { .. })));
}

#[test]
fn static_members_get_back_what_they_had_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let mut had = Vec::new();
    for life in 0..3 {
        let store = Store::open(&path).unwrap();
        let topic = store.topic_or_create("t", TopicConfig::new().partitions(6)).unwrap();
        // They come back in another order each time.
        let mut names = ["one", "two", "three"];
        names.rotate_left(life);
        let mut members: Vec<(&str, Consumer)> = names
            .iter()
            .map(|name| {
                let builder = store.consumer().instance_id(name);
                let mut member = builder.subscribe("g", &topic).unwrap();
                member.poll(NOW).unwrap();
                (*name, member)
            })
            .collect();
        for _ in 0..4 {
            members.iter_mut().for_each(|(_, member)| drop(member.poll(NOW).unwrap()));
        }
        let mut has_now: Vec<(&str, Vec<String>)> =
            members.iter().map(|(name, member)| (*name, has(member))).collect();
        has_now.sort();
        assert!(has_now.iter().all(|(_, has)| has.len() == 2), "{has_now:?}");
        if life > 0 {
            assert_eq!(has_now, had);
        }
        had = has_now;
        if life == 0 {
            drop(members);
        }
    }
}

#[test]
fn groups_are_described_reset_and_deleted_only_without_members() {
    let (store, topic) = store_with(2);
    fill(&store, &topic, 5);
    let group = store.group("g").unwrap();
    let mut a = store.consumer().client_id("worker").subscribe("g", &topic).unwrap();
    a.poll(NOW).unwrap();
    a.commit().unwrap();
    fill(&store, &topic, 1);
    let seen = group.describe().unwrap();
    assert_eq!((seen.status, seen.assignor.as_deref()), (GroupStatus::Stable, Some("uniform")));
    assert_eq!((seen.members.len(), seen.members[0].assignment.len()), (1, 2));
    assert!(seen.members[0].member_id.starts_with("worker-"));
    let lags: Vec<Option<i64>> = seen.partitions.iter().map(|p| p.lag).collect();
    assert_eq!(lags, [Some(1), Some(1)]);
    assert!(seen.partitions.iter().all(|p| p.oldest_unread_ms.is_some() && p.member_id.is_some()));
    let partitions = topic.partitions();
    for refused in [
        group.reset_offsets(ResetTo::Earliest, partitions.clone()).map(drop),
        group.delete(),
        group.delete_offsets(&partitions),
    ] {
        let refused = refused.unwrap_err();
        let is_said =
            matches!(refused, Error::GroupNotEmpty { .. } | Error::GroupSubscribed { .. });
        assert!(is_said, "{refused}");
    }
    let planned = group.plan_reset(ResetTo::Offset(2), partitions.clone()).unwrap();
    assert_eq!((planned[0].from, planned[0].to), (Some(5), 2));
    drop(a);
    assert_eq!(group.describe().unwrap().status, GroupStatus::Empty);
    let reset = |to| {
        let changes = group.reset_offsets(to, partitions.clone()).unwrap();
        let offsets = group.offsets().unwrap();
        assert!(offsets.iter().zip(&changes).all(|(at, c)| at.2.offset() == c.to));
        changes[1].to
    };
    assert_eq!(reset(ResetTo::Earliest), 0);
    assert_eq!(reset(ResetTo::Latest), 6);
    assert_eq!(reset(ResetTo::Shift(-2)), 4);
    assert_eq!(reset(ResetTo::Shift(-20)), 0);
    assert_eq!(reset(ResetTo::Offset(3)), 3);
    assert_eq!(reset(ResetTo::Timestamp(0)), 0);
    assert_eq!(reset(ResetTo::Timestamp(i64::MAX)), 6);
    assert_eq!(reset(ResetTo::ByDuration(Duration::from_secs(3600))), 0);
    group.alter_offsets(partitions.iter().map(|partition| (partition, 2))).unwrap();
    assert_eq!(group.plan_reset(ResetTo::Shift(1), &partitions).unwrap()[1].to, 3);
    let beyond = group.reset_offsets(ResetTo::Offset(7), partitions.clone());
    assert!(matches!(beyond, Err(Error::OffsetOutOfRange { .. })));
    let twice = [partitions[0].clone(), partitions[0].clone()];
    assert!(group.reset_offsets(ResetTo::Earliest, twice).is_err());
    let nothing = store.group("new").unwrap();
    let shifted = nothing.reset_offsets(ResetTo::Shift(1), partitions.clone());
    assert!(matches!(shifted, Err(Error::NoOffset { .. })));
    assert!(store.groups().unwrap().len() == 1);
    group.delete_offsets(&partitions[..1]).unwrap();
    assert_eq!(group.offsets().unwrap().len(), 1);
    group.delete().unwrap();
    assert!(store.groups().unwrap().is_empty());
    let mut again = store.consumer().subscribe("g", &topic).unwrap();
    assert_eq!(again.poll(NOW).unwrap().count(), 12);
}

#[test]
fn a_deleted_topics_offsets_go_with_it() {
    let (store, topic) = store_with(1);
    fill(&store, &topic, 3);
    let mut a = store.consumer().subscribe("g", &topic).unwrap();
    a.poll(NOW).unwrap();
    a.commit().unwrap();
    store.delete_topic("t").unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    fill(&store, &topic, 2);
    assert_eq!(a.poll(SOON).unwrap().count(), 2, "a topic of the same name is a new one");
}

#[test]
fn a_reader_beside_the_writer_sees_its_groups() {
    let (store, topic) = store_with(2);
    fill(&store, &topic, 3);
    let mut a = store.consumer().instance_id("i").subscribe("g", &topic).unwrap();
    a.poll(NOW).unwrap();
    a.commit().unwrap();
    let reader = Store::open_read_only(store.path()).unwrap();
    let seen = reader.group("g").unwrap().describe().unwrap();
    assert_eq!((seen.status, seen.members.len()), (GroupStatus::Stable, 1));
    assert_eq!(seen.members[0].instance_id.as_deref(), Some("i"));
    assert_eq!(seen.members[0].assignment.len(), 2);
    assert!(seen.partitions.iter().all(|p| p.lag == Some(0)), "{seen:?}");
    assert!(matches!(reader.group("g").unwrap().delete(), Err(Error::ReadOnly { .. })));
    drop(a);
    let seen = reader.group("g").unwrap().describe().unwrap();
    assert_eq!((seen.status, seen.members.len()), (GroupStatus::Empty, 0));
}

#[test]
fn an_iterator_and_a_task_take_part_too() {
    let (store, topic) = store_with(2);
    fill(&store, &topic, 5);
    let builder = store.consumer().auto_commit(Duration::ZERO).iterator_timeout(NOW);
    let mut a = builder.clone().subscribe("g", &topic).unwrap();
    let first: Vec<_> = (&mut a).into_iter().take(3).map(|m| m.unwrap().offset()).collect();
    assert_eq!(first, [0, 1, 2]);
    // What was read ahead and not handed out is not committed.
    a.close().unwrap();
    let mut b = builder.subscribe("g", &topic).unwrap();
    assert_eq!((&mut b).into_iter().count(), 7);
}

#[test]
fn what_groups_have_on_record_stays_small_however_often_they_commit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let store = Store::open(&path).unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    let partition = topic.partition(0).unwrap();
    fill(&store, &topic, 2);
    let long = "x".repeat(4000);
    let mut quiet = store.consumer().group("quiet").assign([&partition]).unwrap();
    let noted = OffsetAndMetadata::new(1).with_metadata("early");
    quiet.commit_offsets([(partition.clone(), noted.clone())]).unwrap();
    let mut busy = store.consumer().group("busy").assign([&partition]).unwrap();
    let len = || -> u64 {
        let files = std::fs::read_dir(path.join("__consumer_offsets-0")).unwrap();
        files.map(|file| file.unwrap().metadata().map_or(0, |metadata| metadata.len())).sum()
    };
    let deadline = std::time::Instant::now() + SOON;
    // 8 MiB, and on until a compaction has shown.
    for round in 0.. {
        let offset = OffsetAndMetadata::new(round % 2).with_metadata(&long);
        busy.commit_offsets([(partition.clone(), offset)]).unwrap();
        if round >= 2000 && len() < 4 << 20 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{} bytes", len());
    }
    assert!(store.health().is_good(), "{:?}", store.health());
    drop((quiet, busy, partition, topic));
    store.close().unwrap();
    assert!(ottla::inspect::check(&path).unwrap().problems.is_empty());
    let store = Store::open(&path).unwrap();
    let offsets = store.group("quiet").unwrap().offsets().unwrap();
    assert_eq!(offsets, [("t".to_owned(), 0, noted)]);
    assert_eq!(store.group("busy").unwrap().offsets().unwrap()[0].2.metadata(), long);
}

#[test]
fn a_member_whose_partition_is_to_stay_after_all_goes_on_reading_it() {
    // What was about to be let go of, and then was not, stayed unread until the member had dropped all it held:
    // nobody rang for a target that lacks nothing. For one who keeps records at hand that is for ever.
    let (store, topic) = store_with(2);
    fill(&store, &topic, 1);
    let mut a = store.consumer().subscribe("g", &topic).unwrap();
    let held = a.poll(NOW).unwrap();
    let b = store.consumer().subscribe("g", &topic).unwrap();
    a.poll(NOW).unwrap();
    drop(b);
    fill(&store, &topic, 1);
    assert_eq!(a.poll(NOW).unwrap().count(), 2);
    drop(held);
}

#[test]
fn a_member_that_panics_while_it_is_told_leaves_all_the_same() {
    // A panic in what was called on close, or when the consumer was dropped, left a member that nobody could end:
    // its partitions were read by nobody until the store was closed.
    let (store, topic) = store_with(1);
    fill(&store, &topic, 1);
    for ends_by_close in [true, false] {
        let mut a = store
            .consumer()
            .on_revoked(|_, _| std::panic::resume_unwind(Box::new("the listener")))
            .subscribe("g", &topic)
            .unwrap();
        assert_eq!(a.poll(NOW).unwrap().count(), 1);
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            if ends_by_close {
                drop(a.close());
            } else {
                drop(a);
            }
        }));
        assert!(ended.is_err());
        let mut b = store.consumer().subscribe("g", &topic).unwrap();
        assert_eq!(b.poll(NOW).unwrap().count(), 1);
    }
}

#[test]
fn a_member_that_panics_while_it_is_told_of_a_loss_is_told_again() {
    // The loss was noted as told before it was: what was lost stayed assigned, and every later poll said that the
    // topic is deleted.
    let (store, topic) = store_with(1);
    let times = Arc::new(Mutex::new(0));
    let count = Arc::clone(&times);
    let mut a = store
        .consumer()
        .on_lost(move |_, _| {
            let mut times = count.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *times += 1;
            if *times == 1 {
                std::panic::resume_unwind(Box::new("the listener"));
            }
            Ok(())
        })
        .subscribe("g", &topic)
        .unwrap();
    a.poll(NOW).unwrap();
    store.delete_topic("t").unwrap();
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| a.poll(NOW).map(drop)));
    assert!(told.is_err());
    a.poll(NOW).unwrap();
    assert_eq!(has(&a).len(), 0);
}

#[test]
fn one_who_iterates_or_awaits_polls() {
    // Only `poll` counted as polling: a member that iterated was put out once its interval was over, however busy
    // it was.
    let (store, topic) = store_with(2);
    let interval = Duration::from_millis(40);
    let builder = store.consumer().max_poll_interval(interval).iterator_timeout(interval / 4);
    let mut a = builder.clone().subscribe("g", &topic).unwrap();
    fill(&store, &topic, 1);
    let held = (&mut a).into_iter().take(2).collect::<Result<Vec<_>, _>>().unwrap();
    let mut b = builder.subscribe("g", &topic).unwrap();
    let first = a.member_id().unwrap().to_owned();
    for _ in 0..20 {
        assert!((&mut a).into_iter().next().is_none());
        b.poll(NOW).unwrap();
    }
    assert_eq!(a.member_id(), Some(&*first), "it polls all the time");
    assert_eq!(has(&b).len(), 0);
    drop(held);
}

#[test]
fn one_that_falls_silent_after_a_poll_is_put_out_too() {
    // Who held what another waited for, and was in a poll when the other looked, was never looked at again: the
    // other slept for as long as the first went on with its record.
    let (store, topic) = store_with(2);
    fill(&store, &topic, 1);
    let builder = store.consumer().max_poll_interval(Duration::from_millis(50));
    let mut a = builder.clone().subscribe("g", &topic).unwrap();
    let held = a.poll(NOW).unwrap();
    std::thread::scope(|scope| {
        let (go, gone) = std::sync::mpsc::channel();
        let topic = &topic;
        let waiting = scope.spawn(move || {
            gone.recv().unwrap();
            builder.subscribe("g", topic).unwrap().poll(SOON).unwrap().count()
        });
        go.send(()).unwrap();
        // In a poll while the other comes and looks, silent from then on.
        a.poll(Duration::from_millis(100)).unwrap();
        assert!(waiting.join().unwrap() > 0);
    });
    drop(held);
}

#[test]
fn one_that_was_put_out_and_cannot_join_again_says_so_with_every_poll() {
    // It said so once, and from then on polls brought nothing and no error.
    let (store, topic) = store_with(1);
    fill(&store, &topic, 1);
    let builder = store.consumer().instance_id("i");
    let mut a = builder.clone().subscribe("g", &topic).unwrap();
    assert_eq!(a.poll(NOW).unwrap().count(), 1);
    assert_eq!(store.group("g").unwrap().remove_members(&["i"]).unwrap(), 1);
    let b = builder.subscribe("g", &topic).unwrap();
    for _ in 0..3 {
        assert!(matches!(a.poll(NOW), Err(Error::InstanceInUse { .. })));
        let refused = a.commit_offsets([(topic.partition(0).unwrap(), 1)]);
        assert!(matches!(refused, Err(Error::CommitRefused { .. })), "{refused:?}");
    }
    drop(b);
    let refused = a.commit_offsets([(topic.partition(0).unwrap(), 1)]);
    assert!(matches!(refused, Err(Error::CommitRefused { .. })), "it is no outsider: {refused:?}");
    assert_eq!(a.poll(NOW).unwrap().count(), 1);
}

#[test]
fn a_store_that_is_closed_leaves_no_members_on_record() {
    // Members that were there when the store was closed stayed on record: another process saw them until the next
    // one came.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let store = Store::open(&path).unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    let mut a = store.consumer().instance_id("i").subscribe("g", &topic).unwrap();
    a.poll(NOW).unwrap();
    store.close().unwrap();
    drop((a, topic));
    let _writer = Store::open(&path).unwrap();
    let reader = Store::open_read_only(&path).unwrap();
    let seen = reader.group("g").unwrap().describe().unwrap();
    assert_eq!((seen.status, seen.members.len()), (GroupStatus::Empty, 0), "{seen:?}");
}

#[test]
fn an_outsider_commits_on_after_its_group_was_deleted() {
    // It held on to the group that was gone, and was refused for ever.
    let (store, topic) = store_with(1);
    fill(&store, &topic, 2);
    let partition = topic.partition(0).unwrap();
    let mut a = store.consumer().group("g").assign([&partition]).unwrap();
    a.poll(NOW).unwrap();
    a.commit().unwrap();
    store.group("g").unwrap().delete().unwrap();
    a.commit().unwrap();
    assert_eq!(store.group("g").unwrap().offsets().unwrap()[0].2.offset(), 2);
}

#[test]
fn a_commit_is_never_durable_before_what_lies_below_it() {
    let (store, topic) = store_with(1);
    let partition = topic.partition(0).unwrap();
    let careless = store.producer_builder().durability(ottla::Durability::Buffered).build();
    let mut a = store.consumer().subscribe("g", &topic).unwrap();
    for round in 1..20 {
        careless.send(&topic, "not waited for").unwrap();
        assert_eq!(a.poll(NOW).unwrap().count(), 1);
        a.commit().unwrap();
        assert_eq!(a.committed(&partition).unwrap().unwrap().offset(), round);
        let durable_end = topic.describe().unwrap().partitions[0].durable_end;
        assert!(durable_end >= round, "{durable_end} of {round}");
    }
}

#[test]
fn what_cannot_be_understood_on_record_is_passed_over_and_shown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let store = Store::open(&path).unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    fill(&store, &topic, 5);
    let partition = topic.partition(0).unwrap();
    let commit = |group: &str, offset: i64| {
        let mut consumer = store.consumer().group(group).assign([&partition]).unwrap();
        consumer.commit_offsets([(&partition, offset)]).unwrap();
    };
    commit("before", 2);
    let papers = store.topic("__consumer_offsets").unwrap();
    let mut offset = papers.partition(0).unwrap().watermarks().unwrap().1;
    drop((partition, papers, topic));
    store.close().unwrap();
    // Nobody writes there by hand while the store is open.
    let log = path.join("__consumer_offsets-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&log).unwrap();
    let offset_key = |group: &[u8]| {
        let mut key = vec![0, 1, 0, group.len() as u8];
        key.extend_from_slice(group);
        key.extend_from_slice(&[0, 1, b't', 0, 0, 0, 0]);
        key
    };
    let mut odd = 0;
    let mut put = |key: &[u8], value: &[u8]| {
        let paper = (Some(key.to_vec()), Some(value.to_vec()));
        bytes.extend_from_slice(&their_batch(offset, &[paper]));
        offset += 1;
        odd += 1;
    };
    for version in 3..16 {
        put(&[0, version, 0, 1, b'g'], b"a later Kafka's");
    }
    put(&[], b"no key to speak of");
    put(&[0, 1, 0x7f, 0xff], b"cut off");
    put(&offset_key(b"\xff\xfe"), b"not a text");
    put(&offset_key(b"short"), &[0, 3, 0]);
    put(&offset_key(b"future"), &[0x7f, 0xff, 0, 0, 0, 0]);
    let negative = [&[0, 3][..], &(-5_i64).to_be_bytes(), &[0; 14]].concat();
    put(&offset_key(b"negative"), &negative);
    put(&[0, 2, 0, 1, b'g'], &[0, 3, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]);
    std::fs::write(&log, &bytes).unwrap();
    let store = Store::open(&path).unwrap();
    let partition = store.topic("t").unwrap().partition(0).unwrap();
    store.group("behind").unwrap().alter_offsets([(partition, 3)]).unwrap();
    store.close().unwrap();

    // And one byte of the disk's own.
    let mut bytes = std::fs::read(&log).unwrap();
    let at = bytes.windows(6).position(|window| window == b"no key").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&log, &bytes).unwrap();

    let store = Store::open(&path).unwrap();
    for (group, offset) in [("before", 2), ("behind", 3)] {
        let offsets = store.group(group).unwrap().offsets().unwrap();
        assert_eq!(offsets[0].2.offset(), offset, "{group}");
    }
    assert_eq!(store.groups().unwrap().len(), 2);
    let findings = store.health().findings;
    assert_eq!(findings.len(), odd, "{findings:?}");
    let topic = store.topic("t").unwrap();
    let mut a = store.consumer().subscribe("behind", &topic).unwrap();
    assert_eq!(a.poll(NOW).unwrap().count(), 2);
    a.commit().unwrap();
}
