//! Groups under random joins, leaves, deaths, slow members and changing topics, against a small model of what each
//! record of each partition has been through.
//!
//! The seed is printed; `OTTLA_SEED=… cargo test groups_model` plays it again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that fails should say where"
)]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::time::Duration;

use ottla::AssignmentRequest;
use ottla::Assignor;
use ottla::Consumer;
use ottla::Durability;
use ottla::Error;
use ottla::Given;
use ottla::GroupStatus;
use ottla::Record;
use ottla::Records;
use ottla::Store;
use ottla::Subscription;
use ottla::TopicConfig;

use crate::chance;
use crate::chance::Chance;
use crate::chance::told;
use crate::scratch::scratch;

const NOW: Duration = Duration::ZERO;

type Place = (String, u32);

/// What the model knows of one partition.
#[derive(Clone, Debug, Default)]
struct Log {
    end: i64,
    /// Offsets below are delivered, each at least once.
    delivered: i64,
    /// What the group has on record; 0 if nothing, for it begins at the start.
    committed: i64,
}

struct Member {
    consumer: Consumer,
    commits_by_itself: bool,
    /// It was put out, and has not polled since.
    is_out: bool,
    /// Wants all topics, or only the first.
    wants_all: bool,
    /// Where it goes on, of what it has polled since it was given the partition.
    positions: BTreeMap<Place, i64>,
    held: Vec<Records>,
}

struct Play {
    directory: tempfile::TempDir,
    store: Option<Store>,
    assignor: Assignor,
    durability: Durability,
    chance: Chance,
    logs: BTreeMap<Place, Log>,
    members: Vec<Member>,
    /// How many there have been.
    joined: u32,
}

const GROUP: &str = "g";
const NAMES: [&str; 3] = ["log-a", "log-b", "log-c"];

impl Play {
    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn open(&mut self) {
        let root = self.directory.path().join("data");
        let store = Store::builder(root).durability(self.durability).open().unwrap();
        assert!(store.health().is_good(), "{:?}", store.health());
        self.store = Some(store);
    }

    fn some_member(&mut self) -> Option<usize> {
        let count = self.members.len() as u64;
        (count > 0).then(|| self.chance.below(count.max(1)) as usize)
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..=24 => self.send(),
            25..=59 => {
                if let Some(member) = self.some_member() {
                    self.poll(member);
                }
            }
            60..=69 => {
                if let Some(member) = self.some_member() {
                    self.commit(member);
                }
            }
            70..=75 => {
                if let Some(member) = self.some_member() {
                    self.members[member].held.clear();
                }
            }
            76..=80 if self.members.len() < 4 => self.join(),
            76..=82 => self.part(),
            83..=84 => self.create(),
            85 => self.delete(),
            86..=87 => self.grow(),
            88..=90 => self.resubscribe(),
            91 => self.reopen(),
            92 => self.put_out(),
            _ => self.rest(),
        }
        self.check_owners();
    }

    fn subscription(wants_all: bool) -> Subscription {
        if wants_all {
            Subscription::matching(|name| name.starts_with("log-"))
        } else {
            Subscription::named([NAMES[0]]).unwrap()
        }
    }

    fn join(&mut self) {
        self.joined += 1;
        let commits_by_itself = self.chance.below(3) == 0;
        let wants_all = self.chance.below(4) > 0;
        let mut builder = self
            .store()
            .consumer()
            .assignor(self.assignor.clone())
            // Member ids begin with it, so that their order is the same each time.
            .client_id(&format!("m{:04}", self.joined))
            .max_poll_records(1 + self.chance.below(20) as usize);
        if commits_by_itself {
            builder = builder.auto_commit(NOW);
        }
        let free = ["x", "y"][self.chance.below(2) as usize];
        let is_static = self.chance.below(3) == 0;
        if is_static {
            builder = builder.instance_id(free);
        }
        match builder.subscribe(GROUP, Play::subscription(wants_all)) {
            Ok(consumer) => self.members.push(Member {
                consumer,
                commits_by_itself,
                is_out: false,
                wants_all,
                positions: BTreeMap::new(),
                held: Vec::new(),
            }),
            Err(Error::InstanceInUse { .. }) => assert!(is_static),
            Err(other) => panic!("{other}"),
        }
    }

    /// One leaves: in order, by being dropped, or amid a panic.
    fn part(&mut self) {
        let Some(at) = self.some_member() else { return };
        let mut member = self.members.swap_remove(at);
        match self.chance.below(3) {
            0 => {
                member.held.clear();
                match member.consumer.close() {
                    Ok(()) => {}
                    Err(Error::CommitRefused { .. }) => assert!(member.is_out),
                    Err(other) => panic!("{other}"),
                }
            }
            1 => drop(member),
            _ => {
                let died = catch_unwind(AssertUnwindSafe(move || {
                    let _member = member;
                    std::panic::resume_unwind(Box::new("amid the work"));
                }));
                assert!(died.is_err());
            }
        }
        self.look_at_commits();
    }

    fn send(&mut self) {
        let places: Vec<Place> = self.logs.keys().cloned().collect();
        if places.is_empty() {
            return;
        }
        let place = places[self.chance.below(places.len() as u64) as usize].clone();
        let topic = self.store().topic(&place.0).unwrap();
        let partition = topic.partition(place.1).unwrap();
        let count = 1 + self.chance.below(6);
        let producer = self.store().producer();
        drop(producer.send_batch(&partition, (0..count).map(|_| Record::new("v"))).unwrap());
        self.logs.get_mut(&place).unwrap().end += count as i64;
    }

    /// Polls, and looks whether what came is what was to come: from where the group stopped when the partition was
    /// given, and then without a hole or a repetition.
    fn poll(&mut self, at: usize) {
        let member = &mut self.members[at];
        member.is_out = false;
        let records = match member.consumer.poll(NOW) {
            Ok(records) => records,
            // It was put out, and another took its name meanwhile.
            Err(Error::InstanceInUse { .. }) => {
                member.positions.clear();
                return;
            }
            Err(other) => panic!("{other}"),
        };
        let has: BTreeSet<Place> = places(&member.consumer);
        member.positions.retain(|place, _| has.contains(place));
        let mut came: BTreeMap<Place, Vec<i64>> = BTreeMap::new();
        for message in &records {
            let place = (message.topic().to_owned(), message.partition());
            came.entry(place).or_default().push(message.offset());
        }
        for (place, offsets) in came {
            assert!(has.contains(&place), "{place:?} is not its own");
            let log = self.logs.get_mut(&place).unwrap();
            let from = *member.positions.entry(place.clone()).or_insert(log.committed);
            let expected: Vec<i64> = (from..from + offsets.len() as i64).collect();
            assert_eq!(offsets, expected, "{place:?} of {log:?}");
            let end = from + offsets.len() as i64;
            assert!(end <= log.end);
            log.delivered = log.delivered.max(end);
            member.positions.insert(place, end);
        }
        member.held.push(records);
        if self.chance.below(3) > 0 {
            member.held.clear();
        }
        self.look_at_commits();
    }

    /// What is on record is never beyond what was handed out, and what the group goes on from.
    fn look_at_commits(&mut self) {
        let on_record = match self.store().group(GROUP).unwrap().offsets() {
            Ok(offsets) => offsets,
            Err(Error::UnknownGroup { .. }) => Vec::new(),
            Err(other) => panic!("{other}"),
        };
        for log in self.logs.values_mut() {
            log.committed = 0;
        }
        for (topic, partition, noted) in on_record {
            let log = self.logs.get_mut(&(topic.clone(), partition));
            let log = log.unwrap_or_else(|| panic!("{topic}-{partition} is gone"));
            assert!(noted.offset() <= log.delivered, "{noted:?} of {log:?}");
            log.committed = noted.offset();
        }
    }

    fn commit(&mut self, at: usize) {
        let kind = self.chance.below(3);
        let member = &mut self.members[at];
        let committed = match kind {
            0 => member.consumer.commit(),
            1 => match member.held.last().and_then(|records| records.iter().last()) {
                Some(last) => member.consumer.commit_message(&last),
                None => member.consumer.commit_async(),
            },
            _ => {
                let first = member.consumer.assignment().next().cloned();
                let offset = first.as_ref().and_then(|partition| {
                    let place = (partition.topic().name().to_owned(), partition.partition());
                    member.positions.get(&place).copied()
                });
                match (first, offset) {
                    (Some(partition), Some(offset)) => {
                        member.consumer.commit_offsets([(partition, offset)])
                    }
                    _ => Ok(()),
                }
            }
        };
        match committed {
            // Of what is another's by now, or of a topic that is gone.
            Ok(()) | Err(Error::CommitRefused { .. } | Error::TopicDeleted { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        self.look_at_commits();
    }

    fn create(&mut self) {
        let name = NAMES[self.chance.below(3) as usize];
        let count = 1 + self.chance.below(3) as u32;
        match self.store().create_topic(name, TopicConfig::new().partitions(count)) {
            Ok(_) => {
                for partition in 0..count {
                    let before = self.logs.insert((name.to_owned(), partition), Log::default());
                    assert!(before.is_none());
                }
            }
            Err(Error::TopicExists { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn delete(&mut self) {
        let name = NAMES[self.chance.below(3) as usize];
        match self.store().delete_topic(name) {
            Ok(()) => {
                self.logs.retain(|(topic, _), _| topic != name);
                for member in &mut self.members {
                    member.positions.retain(|(topic, _), _| topic != name);
                }
            }
            Err(Error::UnknownTopic { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        self.look_at_commits();
    }

    fn grow(&mut self) {
        let name = NAMES[self.chance.below(3) as usize];
        let Ok(topic) = self.store().topic(name) else { return };
        let count = topic.partition_count();
        if count < 6 {
            topic.add_partitions(count + 1).unwrap();
            self.logs.insert((name.to_owned(), count), Log::default());
        }
    }

    fn resubscribe(&mut self) {
        let Some(at) = self.some_member() else { return };
        let member = &mut self.members[at];
        member.wants_all = self.chance.below(2) == 0;
        match member.consumer.subscribe(Play::subscription(member.wants_all)) {
            Ok(()) | Err(Error::InstanceInUse { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn put_out(&mut self) {
        let Some(at) = self.some_member() else { return };
        let Some(id) = self.members[at].consumer.member_id().map(str::to_owned) else { return };
        match self.store().group(GROUP).unwrap().remove_members(&[&id]) {
            // Its records may be delivered again.
            Ok(_) | Err(Error::UnknownGroup { .. }) => {
                self.members[at].positions.clear();
                self.members[at].is_out = true;
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn reopen(&mut self) {
        let is_orderly = self.chance.below(2) == 0;
        if is_orderly {
            self.members.clear();
        }
        self.look_at_commits();
        let before: Vec<i64> = self.logs.values().map(|log| log.committed).collect();
        self.store.take().unwrap().close().unwrap();
        self.members.clear();
        self.open();
        self.look_at_commits();
        let after: Vec<i64> = self.logs.values().map(|log| log.committed).collect();
        assert_eq!(after, before, "what was committed is there in the next life");
    }

    /// At every moment a partition is held by at most one member.
    fn check_owners(&self) {
        let group = self.store().group(GROUP).unwrap();
        let Ok(seen) = group.describe() else { return };
        let mut owned = BTreeSet::new();
        for place in seen.members.iter().flat_map(|member| &member.assignment) {
            assert!(owned.insert(place), "{place:?} is held by two");
        }
    }

    /// Everybody drops what he holds and polls: then the group is stable, everything that is wanted has one owner,
    /// and further polls move nothing.
    fn rest(&mut self) {
        if self.members.is_empty() {
            return;
        }
        for member in &mut self.members {
            member.held.clear();
        }
        for _ in 0..8 {
            for at in 0..self.members.len() {
                self.poll(at);
                self.members[at].held.clear();
            }
        }
        let is_in = |member: &&Member| member.consumer.member_id().is_some();
        let wanted = |place: &&Place| {
            let wants = |m: &Member| m.wants_all || place.0 == NAMES[0];
            self.members.iter().filter(is_in).any(wants)
        };
        let wanted: BTreeSet<Place> = self.logs.keys().filter(wanted).cloned().collect();
        let owned: Vec<Place> = self.members.iter().flat_map(|m| places(&m.consumer)).collect();
        assert_eq!(owned.len(), wanted.len(), "{owned:?} {wanted:?}");
        assert_eq!(owned.iter().cloned().collect::<BTreeSet<_>>(), wanted);
        let seen = self.store().group(GROUP).unwrap().describe().unwrap();
        assert_eq!(seen.status, GroupStatus::Stable);
        let generation = seen.generation;
        let before: Vec<_> = self.members.iter().map(|m| places(&m.consumer)).collect();
        for at in 0..self.members.len() {
            self.poll(at);
        }
        let after: Vec<_> = self.members.iter().map(|m| places(&m.consumer)).collect();
        let seen = self.store().group(GROUP).unwrap().describe().unwrap();
        assert_eq!((after, seen.generation), (before, generation), "a stable group moves nothing");
    }

    /// The last one standing reads everything there is.
    fn finish(&mut self) {
        self.members.clear();
        self.look_at_commits();
        self.create();
        while self.members.is_empty() {
            self.join();
        }
        self.members[0].wants_all = true;
        self.members[0].consumer.subscribe(Play::subscription(true)).unwrap();
        for _ in 0..2_000 {
            self.poll(0);
            self.members[0].held.clear();
            let positions = &self.members[0].positions;
            let at = |(place, log): (&Place, &Log)| {
                positions.get(place).copied().unwrap_or(log.committed) == log.end
            };
            if self.logs.iter().all(at) {
                break;
            }
        }
        for (place, log) in &self.logs {
            assert_eq!(log.delivered, log.end, "{place:?} was not read to its end");
        }
        self.members[0].consumer.commit().unwrap();
        self.look_at_commits();
        let is_auto = self.members[0].commits_by_itself;
        for (place, log) in &self.logs {
            assert_eq!(log.committed, log.end, "{place:?}, by itself: {is_auto}");
        }
    }
}

fn places(consumer: &Consumer) -> BTreeSet<Place> {
    consumer.assignment().map(|p| (p.topic().name().to_owned(), p.partition())).collect()
}

/// An assignor of one's own, by which of those who want it a partition goes to.
fn one_s_own(request: &AssignmentRequest<'_>, which: impl Fn(usize, usize) -> usize) -> Vec<Given> {
    let mut given = Vec::new();
    for (topic, (_, count)) in request.topics.iter().enumerate() {
        let wants = |member: &usize| request.members[*member].topics.contains(&topic);
        let wanting: Vec<usize> = (0..request.members.len()).filter(wants).collect();
        for partition in (0..*count).filter(|_| !wanting.is_empty()) {
            let member = wanting[which(topic, partition as usize) % wanting.len()];
            given.push(Given { member, topic, partition });
        }
    }
    given
}

fn play(seed: u64, steps: u32) {
    println!("OTTLA_SEED={seed}");
    let mut chance = Chance(seed | 1);
    let assignor = [
        Assignor::Uniform,
        Assignor::Range,
        Assignor::RoundRobin,
        Assignor::Sticky,
        Assignor::CooperativeSticky,
        Assignor::custom("first", |request| one_s_own(request, |_, _| 0)),
        Assignor::custom("spread", |request| one_s_own(request, |topic, number| topic + number)),
        Assignor::custom("panics", |_| std::panic::resume_unwind(Box::new("on purpose"))),
    ][chance.below(8) as usize]
        .clone();
    let durability = [Durability::Synced, Durability::Buffered][chance.below(2) as usize];
    let mut play = Play {
        directory: scratch(),
        store: None,
        assignor,
        durability,
        chance,
        logs: BTreeMap::new(),
        members: Vec::new(),
        joined: 0,
    };
    play.open();
    play.create();
    for _ in 0..steps {
        play.step();
    }
    play.finish();
}

/// Line 19 of the conformance list.
#[test]
fn a_group_delivers_everything_in_order_and_each_partition_to_one_member() {
    if let Some(seed) = told("OTTLA_SEED") {
        return play(seed, 400);
    }
    for seed in 1..=20 {
        play(seed * 7919, 200);
    }
    play(std::hash::RandomState::new().hash_one(0), 400);
}

/// Members on threads that come and go while records are sent; one that goes does so in order, so that everything
/// comes exactly once.
#[test]
fn between_threads_that_hand_over_in_order_everything_comes_exactly_once() {
    const RECORDS: i64 = 1_500;
    const PARTITIONS: u32 = 4;
    let seed = chance::seed();
    println!("OTTLA_SEED={seed}");
    let directory = scratch();
    let builder = Store::builder(directory.path().join("data")).durability(Durability::Buffered);
    let store = builder.open().unwrap();
    let topic = store.create_topic("t", TopicConfig::new().partitions(PARTITIONS)).unwrap();
    let came: Vec<Mutex<Vec<i64>>> = (0..PARTITIONS).map(|_| Mutex::default()).collect();
    let all = RECORDS as usize * PARTITIONS as usize;
    let count = || came.iter().map(|log| log.lock().unwrap().len()).sum::<usize>();
    std::thread::scope(|scope| {
        let (store, topic, came, count) = (&store, &topic, &came, &count);
        scope.spawn(move || {
            let producer = store.producer();
            for _ in 0..RECORDS {
                for partition in topic.partitions() {
                    drop(producer.send_batch(&partition, [Record::new("v")]).unwrap());
                }
            }
        });
        for number in 0..4_u64 {
            scope.spawn(move || {
                let mut chance = Chance(seed.wrapping_add(number * 7919) | 1);
                while count() < all {
                    let builder = store.consumer().auto_commit(NOW);
                    let max = 1 + chance.below(50) as usize;
                    let builder = builder.max_poll_records(max);
                    let mut consumer = builder.subscribe(GROUP, topic).unwrap();
                    for _ in 0..chance.below(200) {
                        let records = consumer.poll(Duration::from_millis(2)).unwrap();
                        for message in &records {
                            came[message.partition() as usize]
                                .lock()
                                .unwrap()
                                .push(message.offset());
                        }
                        if count() >= all {
                            break;
                        }
                    }
                    consumer.close().unwrap();
                }
            });
        }
    });
    for log in came {
        assert!(log.into_inner().unwrap().into_iter().eq(0..RECORDS), "each once, and in order");
    }
}
