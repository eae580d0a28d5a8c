//! Tests only: lives of a group that end in a power cut, one after the other on the same directory.
//!
//! Each life opens the directory on a disk that keeps account of what was synchronised. Producers of both kinds
//! append, members come and go, poll, and commit in every way there is; segments are followed by others, what is on
//! record is compacted, a topic is deleted and made anew. At some effect nothing takes effect any more, and the power
//! cut takes what was not durable. What the next life finds on record must be what was on record at one moment, no
//! earlier than the last commit that was acknowledged; no offset may lie behind the end of its log; and below it no
//! record that was never handed out: the group would skip it.
//!
//! `OTTLA_SEED` plays one lineage again, `OTTLA_LIVES` sets how many are played.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashSet;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::Consumer;
use crate::Durability;
use crate::Error;
use crate::Producer;
use crate::Record;
use crate::ResetTo;
use crate::Result;
use crate::Start;
use crate::Store;
use crate::StoreBuilder;
use crate::Subscription;
use crate::TopicConfig;
use crate::TopicPartition;
use crate::chance::Chance;
use crate::chance::told;
use crate::coordinator::offsets_log;
use crate::storage::disk::Disk;
use crate::storage::faults::fresh_copy;

thread_local! {
    /// Set to have commits of this thread appended without regard to what lies below them.
    static IS_CARELESS: Cell<bool> = const { Cell::new(false) };
}

/// Tells whether commits are to break the invariant (never ahead), on purpose.
pub(crate) fn is_careless() -> bool {
    IS_CARELESS.get()
}

type Place = (String, u32);
/// What the group has on record: an offset of each partition of which it has one.
type Papers = BTreeMap<Place, i64>;

const GENERATIONS: u32 = 6;
const GROUP: &str = "g";
/// The first is never deleted.
const NAMES: [&str; 2] = ["kept", "passing"];
const PARTITIONS: u32 = 2;
const NOW: Duration = Duration::ZERO;

/// What is known from outside.
struct Known {
    /// What the last recovery showed on record, and what was on record since, in order.
    papers: Vec<Papers>,
    /// What is on record is one of those from this one on.
    acknowledged: usize,
    /// Offsets, or nothing, that may have come on record by what failed.
    maybe: BTreeMap<Place, BTreeSet<Option<i64>>>,
    /// The records that were handed to the group, or that it was told to pass over; no two are the same.
    handed_out: HashSet<Vec<u8>>,
    /// What was sent to each partition of the topic that is never deleted.
    sent: BTreeMap<Place, Vec<Vec<u8>>>,
}

/// What a check looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    Everything,
    /// Only whether a record is skipped.
    Skipping,
}

struct Member {
    consumer: Consumer,
    commits_by_itself: bool,
}

struct Life<'l> {
    store: Store,
    disk: &'l Disk,
    ends_at: u64,
    known: &'l mut Known,
    chance: &'l mut Chance,
    members: Vec<Member>,
    producers: [Producer; 2],
    generation: u32,
    sent: u32,
}

fn builder(root: &Path) -> StoreBuilder {
    // Syncs happen when they are asked for and not by the clock.
    Store::builder(root).checkpoint_interval(Duration::from_secs(3600))
}

fn on_record(store: &Store) -> Result<Papers> {
    match store.group(GROUP)?.offsets() {
        Ok(all) => Ok(all.into_iter().map(|(t, p, noted)| ((t, p), noted.offset())).collect()),
        Err(Error::UnknownGroup { .. }) => Ok(Papers::new()),
        Err(other) => Err(other),
    }
}

fn place(partition: &TopicPartition) -> Place {
    (partition.topic().name().to_owned(), partition.partition())
}

/// All partitions of the topics there are, those of groups' papers left out.
fn partitions(store: &Store) -> Vec<TopicPartition> {
    let topics = NAMES.iter().filter_map(|name| store.topic(name).ok());
    topics.flat_map(|topic| topic.partitions()).collect()
}

fn read_all(store: &Store, partition: &TopicPartition) -> Result<Vec<Vec<u8>>> {
    let mut consumer = store.consumer().assign([partition])?;
    let mut found = Vec::new();
    loop {
        let records = consumer.poll(NOW)?;
        if records.is_empty() {
            return Ok(found);
        }
        found.extend(records.iter().map(|message| message.value().unwrap_or_default().to_vec()));
    }
}

impl Life<'_> {
    fn step(&mut self) {
        match self.chance.below(100) {
            0..=34 => self.send(),
            35..=59 => self.poll(),
            60..=79 => self.commit(),
            80..=85 if self.members.len() < 2 => self.join(),
            80..=86 => self.leave(),
            87..=89 if self.members.is_empty() => self.change_from_outside(),
            90..=91 => {
                let compacted = self.store.coordinator_for_test().log().compact();
                self.is_done(compacted);
            }
            92 => self.roll(),
            93 => self.delete_or_create(),
            94 => {
                let synced = self.store.sync().and_then(|()| {
                    let topics = self.store.topics_for_test();
                    topics.note_recovery_points(&topics.all_open())
                });
                if self.is_done(synced) {
                    self.acknowledge();
                }
            }
            _ => {}
        }
    }

    /// Tells whether something was done. What was not must be the disk's fault.
    fn is_done<T>(&self, outcome: Result<T>) -> bool {
        let has_died = self.disk.script().count() >= self.ends_at;
        match outcome {
            Ok(_) => true,
            Err(error) => {
                assert!(has_died, "failed on a good disk: {error}");
                false
            }
        }
    }

    /// Does what may put something on record. True if it was done.
    fn attempt<T>(
        &mut self,
        intended: Vec<(Place, Option<i64>)>,
        what: impl FnOnce(&mut Self) -> Result<T>,
    ) -> bool {
        let outcome = what(self);
        if let Ok(papers) = on_record(&self.store) {
            if self.known.papers.last() != Some(&papers) {
                self.known.papers.push(papers);
            }
        }
        let is_done = self.is_done(outcome);
        if !is_done {
            for (place, offset) in intended {
                self.known.maybe.entry(place).or_default().insert(offset);
            }
        }
        is_done
    }

    /// What is on record now is there for good.
    fn acknowledge(&mut self) {
        // Once the disk is dead only those succeed who have nothing to do.
        if self.disk.script().count() >= self.ends_at {
            return;
        }
        self.known.acknowledged = self.known.papers.len() - 1;
    }

    /// The same, if something was put on record: who had nothing to put there waited for nothing.
    fn acknowledge_if(&mut self, is_done: bool, before: usize) {
        if is_done && self.known.papers.len() > before {
            self.acknowledge();
        }
    }

    fn send(&mut self) {
        let all = partitions(&self.store);
        if all.is_empty() {
            return;
        }
        let partition = &all[self.chance.index(all.len())];
        self.sent += 1;
        let mut value = format!("{}.{}.", self.generation, self.sent).into_bytes();
        // Few distinct sizes: equal batches line up with what an earlier life left behind.
        value.resize(20 + 100 * self.chance.below(3) as usize, b'.');
        // Most records become durable only because a commit needs them to be.
        let producer = &self.producers[usize::from(self.chance.below(8) == 0)];
        let record = Record::new(&value).timestamp(i64::from(self.sent));
        let sent = producer.send(partition.topic(), record.partition(partition.partition()));
        let waits = self.chance.below(2) == 0;
        // One that failed may be there all the same: nothing of this partition is sent behind it.
        self.known.sent.entry(place(partition)).or_default().push(value);
        let outcome =
            sent.and_then(|delivery| if waits { delivery.wait().map(|_| ()) } else { Ok(()) });
        self.is_done(outcome);
    }

    fn some_member(&mut self) -> Option<usize> {
        let count = self.members.len() as u64;
        (count > 0).then(|| self.chance.below(count.max(1)) as usize)
    }

    /// Where a member has come to, and how far of that it would commit by itself.
    fn positions(&self, at: usize) -> Vec<(Place, Option<i64>)> {
        let consumer = &self.members[at].consumer;
        let mut positions = Vec::new();
        for partition in consumer.assignment() {
            let position = consumer.position(partition).unwrap();
            let durable = partition.open().map_or(0, |open| open.watermarks().durable_end());
            positions.push((place(partition), Some(position)));
            positions.push((place(partition), Some(position.min(durable))));
        }
        positions
    }

    fn poll(&mut self) {
        let Some(at) = self.some_member() else { return };
        let commits = self.members[at].commits_by_itself;
        let intended = if commits { self.positions(at) } else { Vec::new() };
        self.attempt(intended, |life| {
            let records = life.members[at].consumer.poll(NOW)?;
            let values = records.iter().map(|message| message.value().unwrap_or_default().to_vec());
            life.known.handed_out.extend(values);
            Ok(())
        });
    }

    fn commit(&mut self) {
        let Some(at) = self.some_member() else { return };
        let kind = self.chance.below(3);
        let positions = self.positions(at);
        match kind {
            0 => {
                if self.attempt(positions, |life| life.members[at].consumer.commit()) {
                    self.acknowledge();
                }
            }
            1 => {
                self.attempt(positions, |life| life.members[at].consumer.commit_async());
            }
            _ => {
                let consumer = &self.members[at].consumer;
                let held: Vec<TopicPartition> = consumer.assignment().cloned().collect();
                let held: Vec<_> = held.into_iter().filter(|p| p.watermarks().is_ok()).collect();
                if held.is_empty() {
                    return;
                }
                let partition = held[self.chance.index(held.len())].clone();
                let position = consumer.position(&partition).unwrap();
                let end = partition.watermarks().unwrap().1;
                let offset = self.chance.below(position.min(end) as u64 + 1) as i64;
                let intended = vec![(place(&partition), Some(offset))];
                let commit = |life: &mut Self| {
                    life.members[at].consumer.commit_offsets([(&partition, offset)])
                };
                if self.attempt(intended, commit) {
                    self.acknowledge();
                }
            }
        }
    }

    fn join(&mut self) {
        let commits_by_itself = self.chance.below(3) == 0;
        let starts_behind = self.chance.below(6) == 0;
        let mut builder = self
            .store
            .consumer()
            .client_id(&format!("m{}", self.members.len()))
            .max_poll_records(1 + self.chance.below(8) as usize)
            .commit_on_close(self.chance.below(2) == 0);
        if commits_by_itself {
            builder = builder.auto_commit(NOW);
        }
        let mut intended = Vec::new();
        if starts_behind {
            builder = builder.start(Start::Latest);
            intended = self.pass_over();
        }
        let before = self.known.papers.len();
        let joined = self.attempt(intended, |life| {
            let names = Subscription::matching(|name| NAMES.contains(&name));
            let consumer = builder.subscribe(GROUP, names)?;
            life.members.push(Member { consumer, commits_by_itself });
            Ok(())
        });
        self.acknowledge_if(joined, before);
    }

    /// The group may be told to begin behind what there is: it is none of its business any more.
    fn pass_over(&mut self) -> Vec<(Place, Option<i64>)> {
        let mut ends = Vec::new();
        for partition in partitions(&self.store) {
            self.known.handed_out.extend(read_all(&self.store, &partition).unwrap());
            ends.push((place(&partition), Some(partition.watermarks().unwrap().1)));
        }
        ends
    }

    fn leave(&mut self) {
        let Some(at) = self.some_member() else { return };
        let intended = self.positions(at);
        if self.chance.below(2) == 0 {
            self.attempt(intended, |life| life.members.swap_remove(at).consumer.close());
        } else {
            // Whatever it could not do, nobody is told: that is the same as a failure.
            drop(self.members.swap_remove(at));
            let _is_dropped = self.attempt(Vec::new(), |_| Ok(()));
            if self.disk.script().count() >= self.ends_at {
                for (place, offset) in intended {
                    self.known.maybe.entry(place).or_default().insert(offset);
                }
            }
        }
    }

    fn change_from_outside(&mut self) {
        let all = partitions(&self.store);
        let Ok(group) = self.store.group(GROUP) else { return };
        let before = self.known.papers.len();
        let is_done = match self.chance.below(3) {
            0 => {
                let intended = self.pass_over();
                self.attempt(intended, |_| group.reset_offsets(ResetTo::Latest, &all))
            }
            1 => {
                let intended = all.iter().map(|partition| (place(partition), Some(0))).collect();
                self.attempt(intended, |_| group.reset_offsets(ResetTo::Earliest, &all))
            }
            _ => {
                let intended = all.iter().map(|partition| (place(partition), None)).collect();
                self.attempt(intended, |_| match group.delete_offsets(&all) {
                    Err(Error::UnknownGroup { .. }) => Ok(()),
                    other => other,
                })
            }
        };
        self.acknowledge_if(is_done, before);
    }

    fn roll(&mut self) {
        let topics = self.store.topics_for_test();
        let all = topics.all_open();
        if all.is_empty() {
            return;
        }
        let (_, _, partition) = &all[self.chance.index(all.len())];
        let rolled = partition.roll_now();
        self.is_done(rolled);
    }

    fn delete_or_create(&mut self) {
        let name = NAMES[1];
        if self.store.topic(name).is_err() {
            let created = self.store.create_topic(name, config());
            self.is_done(created);
            return;
        }
        let intended = (0..PARTITIONS).map(|number| ((name.to_owned(), number), None)).collect();
        let before = self.known.papers.len();
        let is_done = self.attempt(intended, |life| life.store.delete_topic(name));
        self.acknowledge_if(is_done, before);
    }
}

fn config() -> TopicConfig {
    TopicConfig::new().partitions(PARTITIONS).segment_bytes(2048).index_interval_bytes(200)
}

fn live(
    root: &Path,
    disk: &Disk,
    ends_at: u64,
    known: &mut Known,
    chance: &mut Chance,
    generation: u32,
) {
    // With room for one tail, each partition is made durable whenever another is appended to.
    let tails = [1, 100, 100][chance.below(3) as usize];
    let opened = builder(root).disk(disk.clone()).live_tails_max(tails).open();
    let Ok(store) = opened else { return };
    for name in NAMES {
        if store.topic_or_create(name, config()).is_err() {
            return;
        }
    }
    let producer = |level| store.producer_builder().durability(level).build();
    let producers = [producer(Durability::Buffered), producer(Durability::Synced)];
    let members = Vec::new();
    let mut life =
        Life { store, disk, ends_at, known, chance, members, producers, generation, sent: 0 };
    for _ in 0..life.chance.below(3) {
        life.join();
    }
    for _ in 0..life.chance.below(120) {
        life.step();
    }
    while !life.members.is_empty() {
        life.leave();
    }
    let Life { store, producers, .. } = life;
    drop(producers);
    if store.close().is_ok() {
        // What is deleted need not be durable.
        let mut unsynced = disk.script().closed_unsynced();
        unsynced.retain(|path| !path.to_string_lossy().contains(NAMES[1]));
        assert_eq!(unsynced, Vec::<PathBuf>::new());
        known.acknowledged = known.papers.len() - 1;
    }
}

/// Says what is wrong with what a life left; what it shows is what the next life builds on.
fn check(root: &Path, known: &mut Known, only_killed: bool, watch: Watch) -> Result<(), String> {
    if !root.exists() {
        return if known.acknowledged == 0 { Ok(()) } else { Err("the directory is gone".into()) };
    }
    let store = Store::open(root).map_err(|error| format!("cannot be opened: {error}"))?;
    let failed = |error: Error| error.to_string();
    let found = on_record(&store).map_err(failed)?;
    if !store.health().is_good() {
        return Err(format!("not in order: {:?}", store.health()));
    }
    let is_explained = |papers: &Papers| {
        let may_be = |place: &Place| {
            let offset = found.get(place).copied();
            let maybe = known.maybe.get(place).is_some_and(|maybe| maybe.contains(&offset));
            papers.get(place).copied() == offset || maybe
        };
        papers.keys().chain(found.keys()).all(may_be)
    };
    let first = if only_killed { known.papers.len() - 1 } else { known.acknowledged };
    if !known.papers[first..].iter().any(is_explained) {
        let (papers, maybe) = (&known.papers[first..], &known.maybe);
        return Err(format!("{found:?} is on record, not one of {papers:?}, nor {maybe:?}"));
    }
    let mut logs: BTreeMap<Place, Vec<Vec<u8>>> = BTreeMap::new();
    for partition in partitions(&store) {
        logs.insert(place(&partition), read_all(&store, &partition).map_err(failed)?);
    }
    for (place, offset) in &found {
        let Some(log) = logs.get(place) else {
            return Err(format!("{place:?} is on record and does not exist"));
        };
        let end = log.len() as i64;
        if *offset > end && watch == Watch::Everything {
            return Err(format!("{place:?} is on record at {offset}, ahead of its end {end}"));
        }
        let passed = &log[..(*offset).min(end) as usize];
        if let Some(value) = passed.iter().find(|value| !known.handed_out.contains(*value)) {
            let value = String::from_utf8_lossy(value);
            return Err(format!("{place:?} at {offset}: the group skips {value}"));
        }
    }
    for (place, sent) in &mut known.sent {
        if let Some(log) = logs.get(place).filter(|_| place.0 == NAMES[0]) {
            if !sent.starts_with(log) {
                return Err(format!("{place:?}: not a prefix of what was sent"));
            }
            sent.clone_from(log);
        }
    }
    if watch == Watch::Everything {
        go_on(&store, &found, &logs)?;
    }
    drop(store);
    known.papers = vec![found];
    known.acknowledged = 0;
    known.maybe.clear();
    Ok(())
}

/// The group takes up its work, and is handed everything from where it stopped, in order.
fn go_on(
    store: &Store,
    found: &Papers,
    logs: &BTreeMap<Place, Vec<Vec<u8>>>,
) -> Result<(), String> {
    let failed = |error: Error| error.to_string();
    let names = Subscription::matching(|name| NAMES.contains(&name));
    let mut consumer = store.consumer().subscribe(GROUP, names).map_err(failed)?;
    let mut came: BTreeMap<Place, Vec<Vec<u8>>> = BTreeMap::new();
    loop {
        let records = consumer.poll(NOW).map_err(failed)?;
        if records.is_empty() {
            break;
        }
        for message in &records {
            let place = place(message.topic_partition());
            came.entry(place).or_default().push(message.value().unwrap_or_default().to_vec());
        }
    }
    for (place, log) in logs {
        let from = found.get(place).copied().unwrap_or(0) as usize;
        let came = came.remove(place).unwrap_or_default();
        if came != log[from..] {
            let (count, left) = (came.len(), log.len() - from);
            return Err(format!("{place:?} from {from}: {count} of {left} records came"));
        }
    }
    Ok(())
}

fn lineage(root: &Path, seed: u64, watch: Watch) -> Result<(), String> {
    let mut chance = Chance(seed | 1);
    let mut known = Known {
        papers: vec![Papers::new()],
        acknowledged: 0,
        maybe: BTreeMap::new(),
        handed_out: HashSet::new(),
        sent: BTreeMap::new(),
    };
    for generation in 0..GENERATIONS {
        // Some lives end within the opening, some somewhere later, some with a clean close.
        let latest = [25, 200, 1500][chance.below(3) as usize];
        let ends_at = 1 + chance.below(latest);
        let disk = Disk::dying(ends_at);
        live(root, &disk, ends_at, &mut known, &mut chance, generation);
        // In a quarter of them only the process dies, and everything that was written is there.
        let only_killed = chance.below(4) == 0;
        if !only_killed {
            disk.script().cut_power(root, &mut |limit| chance.below(limit));
        }
        // Where a copy is looked at, the next life is the one that recovers, and may end within that.
        let is_looked_at_aside = chance.below(2) == 0 && root.exists();
        let seen = if is_looked_at_aside { fresh_copy(root, "copy") } else { root.to_path_buf() };
        let checked = check(&seen, &mut known, only_killed, watch);
        checked.map_err(|wrong| format!("OTTLA_SEED={seed}, generation {generation}: {wrong}"))?;
    }
    Ok(())
}

fn play(seed: u64, watch: Watch) -> Result<(), String> {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let directory = tempfile::tempdir_in(&place).unwrap();
    lineage(&directory.path().join("data"), seed, watch)
}

fn seeds(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1)
}

#[test]
fn no_power_cut_takes_a_commit_or_makes_a_group_skip_a_record() {
    assert_eq!(offsets_log::NAME, "__consumer_offsets");
    if let Some(seed) = told("OTTLA_SEED") {
        play(seed, Watch::Everything).unwrap();
        return;
    }
    for seed in seeds(told("OTTLA_LIVES").unwrap_or(150)) {
        play(seed, Watch::Everything).unwrap();
    }
}

/// The same lives, but commits do not wait for what lies below them: the check must see it.
#[test]
fn commits_that_do_not_wait_for_their_records_are_found_out() {
    struct Careful;
    impl Drop for Careful {
        fn drop(&mut self) {
            IS_CARELESS.set(false);
        }
    }
    let _careful = Careful;
    IS_CARELESS.set(true);
    // The first life that shows it is enough; which one that is changes with every effect that a segment's seal has.
    let is_found = |watch, what: &str| {
        seeds(600).filter_map(|seed| play(seed, watch).err()).any(|wrong| wrong.contains(what))
    };
    assert!(is_found(Watch::Everything, "ahead of its end"));
    assert!(is_found(Watch::Skipping, "the group skips"));
}
