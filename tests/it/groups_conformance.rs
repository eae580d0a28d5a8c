//! What Kafka's own clients do for consumers and groups, line by line of the conformance list (Appendix E of the
//! semantics). Lines 15 and 19 have their tests elsewhere: look-ups by time in `reading`, the assignors' golden results
//! beside the assignors, one owner of everything in `groups_model`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails should say where")]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use ottla::Assignor;
use ottla::Consumer;
use ottla::Durability;
use ottla::Error;
use ottla::GroupStatus;
use ottla::OffsetReset;
use ottla::Rebalance;
use ottla::Record;
use ottla::ResetTo;
use ottla::Start;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;
use ottla::TopicPartition;

use crate::golden;
use crate::read_only::Helper;
use crate::read_only::orders;
use crate::read_only::tell;
use crate::read_only::wait_for_parent;

const NOW: Duration = Duration::ZERO;
const SOON: Duration = Duration::from_secs(20);

fn store_with(partitions: u32, records: usize) -> (Store, Topic) {
    let store = Store::temporary().unwrap();
    let topic = store.create_topic("t", TopicConfig::new().partitions(partitions)).unwrap();
    fill(&store, &topic, records);
    (store, topic)
}

/// Puts `count` records into each partition.
fn fill(store: &Store, topic: &Topic, count: usize) {
    let producer = store.producer_builder().durability(Durability::Buffered).build();
    for partition in topic.partitions() {
        for _ in 0..count {
            drop(producer.send_batch(&partition, ["v"].map(Record::new)).unwrap());
        }
    }
}

fn names<'p>(partitions: impl IntoIterator<Item = &'p TopicPartition>) -> Vec<String> {
    let mut names: Vec<String> = partitions.into_iter().map(ToString::to_string).collect();
    names.sort();
    names
}

fn on_record(store: &Store, group: &str) -> Vec<i64> {
    let offsets = store.group(group).unwrap().offsets().unwrap();
    offsets.into_iter().map(|(_, _, noted)| noted.offset()).collect()
}

/// Line 13: the position after a poll is one behind the last record, or further where control records are passed over,
/// and `next_offsets` says the same; committed, it leaves no lag behind control records.
#[test]
fn positions_stand_behind_what_was_returned_and_behind_control_records() {
    let (_directory, data) = golden::clean();
    let store = Store::open(&data).unwrap();
    let topic = store.topic("txn").unwrap();
    let mut consumer = store.consumer().max_poll_records(1).subscribe("g", &topic).unwrap();
    let mut count = 0;
    loop {
        let records = consumer.poll(NOW).unwrap();
        if records.is_empty() {
            break;
        }
        let mut last: BTreeMap<String, i64> = BTreeMap::new();
        for message in &records {
            last.insert(message.topic_partition().to_string(), message.offset());
        }
        for (partition, next) in records.next_offsets() {
            assert_eq!(next, last[&partition.to_string()] + 1);
            assert_eq!(consumer.position(partition).unwrap(), next);
        }
        count += records.count() as i64;
    }
    let mut ends = 0;
    for partition in topic.partitions() {
        let end = partition.watermarks().unwrap().1;
        assert_eq!(consumer.position(&partition).unwrap(), end, "behind the last marker");
        ends += end;
    }
    consumer.commit().unwrap();
    let seen = store.group("g").unwrap().describe().unwrap();
    assert!(seen.partitions.iter().all(|partition| partition.lag == Some(0)), "{seen:?}");
    assert!(0 < count && count < ends, "there are control records");
}

/// Line 16: what a member seeks, pauses and resumes; a pause outlives a rebalance for what is kept, and no longer; a
/// wake-up before the poll ends it, once, and the member takes part all the same.
#[test]
fn members_seek_pause_resume_and_are_woken() {
    let (store, topic) = store_with(2, 4);
    let [zero, one] = [topic.partition(0).unwrap(), topic.partition(1).unwrap()];
    let mut a = store.consumer().client_id("a").subscribe("g", &topic).unwrap();
    assert!(a.seek(&zero, 1).is_err(), "it does not have it yet");
    assert_eq!(a.poll(NOW).unwrap().count(), 8);
    a.seek(&zero, 2).unwrap();
    a.seek(&one, 3).unwrap();
    a.pause([&zero, &one]).unwrap();
    assert_eq!(a.poll(NOW).unwrap().count(), 0);
    assert_eq!((a.position(&zero).unwrap(), a.position(&one).unwrap()), (2, 3));
    a.resume([&one]).unwrap();
    let records = a.poll(NOW).unwrap();
    assert_eq!(records.iter().map(|m| (m.partition(), m.offset())).collect::<Vec<_>>(), [(1, 3)]);
    drop(records);
    a.pause([&one]).unwrap();
    // A sought position is where the group goes on, once it is committed.
    a.commit().unwrap();
    assert_eq!(on_record(&store, "g"), [2, 4]);
    let mut b = store.consumer().client_id("b").subscribe("g", &topic).unwrap();
    a.poll(NOW).unwrap();
    b.poll(NOW).unwrap();
    let kept = a.assignment().next().unwrap().clone();
    assert_eq!(names(a.paused()), [kept.to_string()], "it is kept, and so is the pause");
    assert_eq!(b.paused().count(), 0, "what is given to another is not paused");
    b.close().unwrap();
    a.poll(NOW).unwrap();
    assert_eq!(a.assignment().count(), 2);
    assert_eq!(names(a.paused()), [kept.to_string()], "what has come back is not paused");
    a.resume([&kept]).unwrap();

    let mut woken = store.consumer().subscribe("h", &topic).unwrap();
    woken.wakeup_handle().wake();
    woken.wakeup_handle().wake();
    assert!(matches!(woken.poll(SOON), Err(Error::Wakeup)));
    assert_eq!(woken.poll(NOW).unwrap().count(), 8, "it takes part and misses nothing");
}

type Told = Arc<Mutex<Vec<(&'static str, Vec<String>, Vec<Option<i64>>)>>>;

/// Notes what a member is told, and what is on record at that moment.
fn teller(
    told: &Told,
    what: &'static str,
) -> impl Fn(&mut Rebalance<'_>, &[TopicPartition]) -> Result<(), Error> + Send + Sync + use<> {
    let told = Arc::clone(told);
    move |rebalance, partitions| {
        let committed = |partition| {
            Ok(rebalance
                .committed(partition)?
                .map(|noted: ottla::OffsetAndMetadata| noted.offset()))
        };
        let committed = partitions.iter().map(committed).collect::<Result<_, Error>>()?;
        told.lock().unwrap().push((what, names(partitions), committed));
        Ok(())
    }
}

/// Line 18: what comes is told once it is had, what goes while it is had still; what a member commits by itself is on
/// record before it is told; one that is put out is told of a loss, for which nothing is committed; whoever closes is
/// told what goes. With assignors that are eager in Kafka it is the same: what stays is told to nobody.
#[test]
fn listeners_hear_in_order_and_what_commits_itself_is_on_record_before() {
    for assignor in [Assignor::CooperativeSticky, Assignor::Range, Assignor::Uniform] {
        let (store, topic) = store_with(2, 3);
        let told = Told::default();
        let builder = store.consumer().assignor(assignor.clone());
        let mut a = builder
            .clone()
            .client_id("a")
            .auto_commit(Duration::from_secs(3600))
            .on_assigned(teller(&told, "assigned"))
            .on_revoked(teller(&told, "revoked"))
            .on_lost(teller(&told, "lost"))
            .subscribe("g", &topic)
            .unwrap();
        assert_eq!(a.poll(NOW).unwrap().count(), 6);
        let take = || std::mem::take(&mut *told.lock().unwrap());
        let both = vec!["t-0".to_owned(), "t-1".to_owned()];
        assert_eq!(take(), [("assigned", both.clone(), vec![None, None])], "{assignor:?}");

        let mut b = builder.client_id("b").subscribe("g", &topic).unwrap();
        a.poll(NOW).unwrap();
        let kept = names(a.assignment());
        let gone: Vec<String> = both.iter().filter(|name| !kept.contains(name)).cloned().collect();
        assert_eq!((kept.len(), gone.len()), (1, 1));
        assert_eq!(take(), [("revoked", gone.clone(), vec![Some(3)])], "{assignor:?}");
        assert_eq!(b.poll(NOW).unwrap().count(), 0, "it was committed before it went");

        // Put out, with a record that nobody will commit.
        fill(&store, &topic, 1);
        assert_eq!(a.poll(NOW).unwrap().count(), 1);
        let id = a.member_id().unwrap().to_owned();
        assert_eq!(store.group("g").unwrap().remove_members(&[&id]).unwrap(), 1);
        b.poll(NOW).unwrap();
        a.poll(NOW).unwrap();
        let heard = take();
        assert_eq!(heard[0].0, "lost", "{assignor:?}: {heard:?}");
        assert_eq!(heard[0].1, kept);
        assert_ne!(heard[0].2, [Some(4)], "nothing is committed of what is lost");

        b.close().unwrap();
        a.poll(NOW).unwrap();
        a.poll(NOW).unwrap();
        assert_eq!(names(a.assignment()), both);
        let heard = take();
        assert!(heard.iter().all(|(what, _, _)| *what == "assigned"), "{heard:?}");
        a.close().unwrap();
        assert_eq!(take(), [("revoked", both, vec![Some(4), Some(4)])], "{assignor:?}");
    }
}

/// Line 20: a commit by a member that lost the partition is refused, and neither what is on record changes by it nor
/// the partitions that it has still.
#[test]
fn a_commit_by_one_that_lost_the_partition_changes_nothing() {
    let (store, topic) = store_with(2, 3);
    let mut a = store.consumer().client_id("a").subscribe("g", &topic).unwrap();
    let records = a.poll(NOW).unwrap();
    let messages: Vec<_> = records.iter().map(|message| message.detach()).collect();
    drop(records);
    let id = a.member_id().unwrap().to_owned();
    store.group("g").unwrap().remove_members(&[&id]).unwrap();
    let mut b = store.consumer().client_id("b").subscribe("g", &topic).unwrap();
    assert_eq!(b.poll(NOW).unwrap().count(), 6);
    b.commit_offsets(topic.partitions().iter().map(|partition| (partition, 2))).unwrap();
    for _ in 0..2 {
        assert!(matches!(a.commit(), Err(Error::CommitRefused { .. })));
        assert!(matches!(a.commit_async(), Err(Error::CommitRefused { .. })));
        let last = messages.last().unwrap();
        assert!(matches!(a.commit_message(last), Err(Error::CommitRefused { .. })));
        let offsets = [(topic.partition(0).unwrap(), 3)];
        assert!(matches!(a.commit_offsets(offsets), Err(Error::CommitRefused { .. })));
        assert_eq!(on_record(&store, "g"), [2, 2]);
    }
    // Back among the members, it commits what it has, and of both or none of what it does not all have.
    a.poll(NOW).unwrap();
    b.poll(NOW).unwrap();
    a.poll(NOW).unwrap();
    let both = topic.partitions();
    let refused = a.commit_offsets(both.iter().map(|partition| (partition, 1)));
    assert!(matches!(refused, Err(Error::CommitRefused { .. })), "{refused:?}");
    assert_eq!(on_record(&store, "g"), [2, 2]);
    let has = a.assignment().next().unwrap().clone();
    a.commit_offsets([(&has, 3)]).unwrap();
    assert_eq!(a.committed(&has).unwrap().unwrap().offset(), 3);
}

/// Line 21: what was put into an added partition before anybody noticed it is read, wherever the group began.
#[test]
fn an_added_partition_is_read_from_its_beginning_wherever_the_group_began() {
    for start in [Start::Latest, Start::Last(1), Start::Timestamp(i64::MAX), Start::Committed] {
        let (store, topic) = store_with(1, 3);
        if start == Start::Committed {
            store.group("g").unwrap().reset_offsets(ResetTo::Latest, topic.partitions()).unwrap();
        }
        let builder = store.consumer().start(start);
        let mut member = builder.subscribe("g", &topic).unwrap();
        member.poll(NOW).unwrap();
        topic.add_partitions(3).unwrap();
        for partition in &topic.partitions()[1..] {
            for _ in 0..5 {
                store.producer().send_batch(partition, ["v"].map(Record::new)).unwrap();
            }
        }
        let mut came: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
        for _ in 0..4 {
            match member.poll(NOW) {
                Ok(records) => {
                    for message in &records {
                        came.entry(message.partition()).or_default().push(message.offset());
                    }
                }
                // One that asked for what is committed, and nothing else, is told of each that has nothing.
                Err(Error::NoOffset { partition, .. }) if start == Start::Committed => {
                    assert!(partition > 0);
                }
                Err(other) => panic!("{start:?}: {other}"),
            }
        }
        for partition in [1, 2] {
            assert_eq!(came.get(&partition), Some(&vec![0, 1, 2, 3, 4]), "{start:?} {partition}");
        }
    }
}

/// Line 14, the last part, and that it leaves no trace: a group without offsets whose member insists on them.
#[test]
fn a_subscription_that_fails_leaves_no_group() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    fill(&store, &topic, 3);
    let insists = store.consumer().start(Start::Committed);
    assert!(matches!(insists.subscribe("none", &topic), Err(Error::NoOffset { .. })));
    let beyond = store.consumer().start(Start::Offset(9)).reset(OffsetReset::Error);
    assert!(matches!(beyond.subscribe("beyond", &topic), Err(Error::OffsetOutOfRange { .. })));
    let odd = store.consumer().instance_id("not a name").subscribe("odd", &topic);
    assert!(matches!(odd, Err(Error::InvalidArgument { .. })));
    assert_eq!(store.groups().unwrap().len(), 0);
    // The group goes on being none where a member of another one subscribes anew, in vain.
    let mut member = store
        .consumer()
        .start(Start::Committed)
        .group("later")
        .assign([] as [&TopicPartition; 0])
        .unwrap();
    assert!(matches!(member.subscribe(&topic), Err(Error::NoOffset { .. })));
    drop((member, topic));
    assert_eq!(store.groups().unwrap().len(), 0);
    for group in ["none", "beyond", "odd", "later"] {
        let described = store.group(group).unwrap().describe();
        assert!(matches!(described, Err(Error::UnknownGroup { .. })), "{group}");
    }
    store.close().unwrap();
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.groups().unwrap().len(), 0, "nor is one on record");
}

#[test]
fn whoever_commits_after_the_close_is_told_so() {
    let (store, topic) = store_with(1, 3);
    let partition = topic.partition(0).unwrap();
    let mut member = store.consumer().subscribe("g", &topic).unwrap();
    let mut outsider = store.consumer().group("h").assign([&partition]).unwrap();
    let mut idle = store.consumer().subscribe("i", &topic).unwrap();
    let group = store.group("h").unwrap();
    for consumer in [&mut member, &mut outsider] {
        assert_eq!(consumer.poll(NOW).unwrap().count(), 3);
    }
    store.close().unwrap();
    let closed =
        |outcome: Result<(), Error>| assert!(matches!(outcome, Err(Error::Closed)), "{outcome:?}");
    for consumer in [&mut member, &mut outsider, &mut idle] {
        closed(consumer.commit());
        closed(consumer.commit_async());
        closed(consumer.commit_offsets([(&partition, 1)]));
        closed(consumer.poll(NOW).map(drop));
    }
    closed(group.reset_offsets(ResetTo::Earliest, [&partition]).map(drop));
    closed(group.alter_offsets([(&partition, 0)]));
    closed(group.delete_offsets([&partition]));
    closed(group.delete());
    closed(group.describe().map(drop));
}

/// What is in an internal topic is what groups rely on: nobody else writes to it.
#[test]
fn nobody_produces_to_an_internal_topic_by_hand() {
    let (_directory, data) = golden::clean();
    let store = Store::open(&data).unwrap();
    for internal in ["__consumer_offsets", "__transaction_state"] {
        let topic = store.topic(internal).unwrap();
        let ends = || -> Vec<i64> {
            topic.partitions().iter().map(|p| p.watermarks().map_or(0, |marks| marks.1)).collect()
        };
        let before = ends();
        let here: Vec<TopicPartition> =
            topic.partitions().into_iter().filter(|p| p.watermarks().is_ok()).collect();
        let number = here[0].partition();
        let record = || Record::new("v").key("k").partition(number);
        let plain = store.producer();
        let staging = store.producer_builder().linger(Duration::from_millis(1)).build();
        for producer in [&plain, &staging] {
            for outcome in [
                producer.send(&topic, record()),
                producer.try_send(&topic, record()),
                producer.send_batch(&here[0], [record()]),
            ] {
                let Err(Error::InternalTopic { name }) = outcome else { panic!("{outcome:?}") };
                assert_eq!(name, internal);
            }
            producer.flush().unwrap();
        }
        assert_eq!(ends(), before);
        for outcome in [
            store.create_topic(internal, TopicConfig::new()).map(drop),
            store.delete_topic(internal),
            topic.add_partitions(topic.partition_count() + 1),
        ] {
            let Err(error @ Error::InternalTopic { .. }) = outcome else { panic!("{outcome:?}") };
            assert_eq!(error.kafka_code(), Some(17));
            assert!(error.to_string().contains("is internal"), "{error}");
        }
        // It can be read all the same.
        let mut consumer = store.consumer().assign(&here).unwrap();
        assert!(consumer.poll(NOW).unwrap().count() > 0);
    }
}

#[test]
#[allow(
    clippy::mutable_key_type,
    reason = "name, number and address, which make the key, never change"
)]
fn partitions_are_keys_and_have_an_order() {
    let (store, a) = store_with(3, 0);
    let b = store.create_topic("a", TopicConfig::new().partitions(2)).unwrap();
    let all: Vec<TopicPartition> = a.partitions().into_iter().chain(b.partitions()).collect();
    let ordered: BTreeSet<TopicPartition> = all.iter().rev().cloned().collect();
    let names: Vec<String> = ordered.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a-0", "a-1", "t-0", "t-1", "t-2"]);
    let lags: HashMap<TopicPartition, usize> = all.iter().cloned().zip(0..).collect();
    for (at, partition) in all.iter().enumerate() {
        // Another handle of the same partition is the same key.
        let again = store.topic(partition.topic().name()).unwrap();
        assert_eq!(lags[&again.partition(partition.partition()).unwrap()], at);
    }
    // One of the same name that came after it is another.
    store.delete_topic("t").unwrap();
    let t = store.create_topic("t", TopicConfig::new()).unwrap();
    let newer = t.partition(0).unwrap();
    assert!(!lags.contains_key(&newer) && !ordered.contains(&newer));
    assert_ne!(all[0].cmp(&newer), std::cmp::Ordering::Equal);
    assert_eq!(all[0].cmp(&newer), newer.cmp(&all[0]).reverse());
}

/// What a group committed of a topic that is not there, as where Kafka's directory came without it.
#[test]
fn offsets_of_a_vanished_topic_are_deleted_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let partitions = |name: &str| -> Vec<TopicPartition> {
        store.create_topic(name, TopicConfig::new().partitions(2)).unwrap().partitions()
    };
    let (kept, vanishing) = (partitions("kept"), partitions("vanishing"));
    let group = store.group("g").unwrap();
    group.alter_offsets(kept.iter().chain(&vanishing).map(|partition| (partition, 0))).unwrap();
    drop((kept, vanishing, group));
    store.close().unwrap();
    let vanished = |name: &str| std::fs::remove_dir_all(directory.path().join(name)).unwrap();
    vanished("vanishing-0");
    vanished("vanishing-1");
    std::fs::remove_file(directory.path().join("ottla.topics")).unwrap();

    let store = Store::open(directory.path()).unwrap();
    assert!(store.topic("vanishing").is_err());
    let group = store.group("g").unwrap();
    let left = || -> Vec<(String, u32)> {
        group.offsets().unwrap().into_iter().map(|(topic, number, _)| (topic, number)).collect()
    };
    assert_eq!(left().len(), 4);
    group
        .delete_offsets_named(
            [("vanishing", 1), ("never there", 7)].map(|(n, p)| (n.replace(' ', "-"), p)),
        )
        .unwrap();
    assert_eq!(left().len(), 3);
    group.delete_offsets_named([("vanishing", 0)]).unwrap();
    assert_eq!(left(), [("kept".to_owned(), 0), ("kept".to_owned(), 1)]);
    let odd = group.delete_offsets_named([("no/topic", 0)]);
    assert!(matches!(odd, Err(Error::InvalidTopic { .. })), "{odd:?}");
    let member = store.consumer().subscribe("g", &store.topic("kept").unwrap()).unwrap();
    let read = group.delete_offsets_named([("kept", 0)]);
    assert!(matches!(read, Err(Error::GroupSubscribed { .. })), "{read:?}");
    drop((member, group));
    store.close().unwrap();
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.group("g").unwrap().offsets().unwrap().len(), 2);
}

/// What the next test's child runs.
#[test]
fn child_with_members_that_is_killed() {
    let Some((data, _)) = orders() else { return };
    let store = Store::open(data).unwrap();
    let topic = store.create_topic("t", TopicConfig::new().partitions(4)).unwrap();
    fill(&store, &topic, 3);
    let mut members: Vec<Consumer> = ["x", "y"]
        .map(|id| store.consumer().instance_id(id).subscribe("g", &topic).unwrap())
        .into();
    for _ in 0..3 {
        members.iter_mut().for_each(|member| drop(member.poll(NOW).unwrap()));
    }
    members[0].commit().unwrap();
    tell("ready");
    wait_for_parent();
}

#[test]
fn a_reader_sees_no_members_once_the_writer_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let test = "groups_conformance::child_with_members_that_is_killed";
    let mut child = Helper::start(test, directory.path(), "be killed");
    assert_eq!(child.hear(), "ready");
    let reader = Store::open_read_only(directory.path()).unwrap();
    let look = |reader: &Store| reader.group("g").unwrap().describe().unwrap();
    let seen = look(&reader);
    assert_eq!((seen.status, seen.members.len()), (GroupStatus::Stable, 2));
    let ids: BTreeSet<&str> =
        seen.members.iter().filter_map(|m| m.instance_id.as_deref()).collect();
    assert_eq!(ids, BTreeSet::from(["x", "y"]));
    assert!(seen.members.iter().all(|member| member.assignment.len() == 2), "{seen:?}");
    child.kill();
    // The reader that was there, and one that comes.
    for reader in [&reader, &Store::open_read_only(directory.path()).unwrap()] {
        let seen = look(reader);
        assert_eq!((seen.status, seen.members.len()), (GroupStatus::Empty, 0));
        let committed: Vec<_> =
            seen.partitions.iter().filter_map(|p| p.committed.clone()).collect();
        assert_eq!(committed.len(), 2, "{seen:?}");
        assert!(committed.iter().all(|noted| noted.offset() == 3), "{seen:?}");
    }
    // A writer that takes over has none either, until they come back and find what they had.
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(look(&store).members.len(), 0);
    let topic = store.topic("t").unwrap();
    let mut x = store.consumer().instance_id("x").subscribe("g", &topic).unwrap();
    x.poll(NOW).unwrap();
    let had = seen.members.iter().find(|m| m.instance_id.as_deref() == Some("x")).unwrap();
    let has: Vec<(String, u32)> =
        x.assignment().map(|p| (p.topic().name().to_owned(), p.partition())).collect();
    assert!(had.assignment.iter().all(|place| has.contains(place)), "{had:?} {has:?}");
    let seen = look(&reader);
    assert_eq!(seen.members.len(), 1, "{seen:?}");
}
