//! Tests only: members that hand partitions over on threads of their own, their steps in every order.
//!
//! The group is the real one, with its signals and bells; a member does here what `consumer/member.rs` does, without
//! logs. Between any two steps of theirs a scheduler chooses who goes on, thousands of times. A schedule that fails
//! is printed, and [`shuttle::replay`] plays it again.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Wake;
use std::task::Waker;

use parking_lot::Mutex;
use shuttle::rand::Rng;
use shuttle::scheduler::RandomScheduler;

use crate::chance::Chance;
use crate::chance::told;
use crate::coordinator::assignor::Assignor;
use crate::coordinator::assignors::Place;
use crate::coordinator::group::Group;
use crate::coordinator::group::Shared;
use crate::coordinator::group_state::GroupPartition;
use crate::coordinator::group_state::MemberKey;
use crate::coordinator::group_state::NewMember;
use crate::coordinator::signal::Polls;
use crate::coordinator::signal::Signal;
use crate::coordinator::subscription::Subscription;
use crate::coordinator::universe::GroupTopic;
use crate::coordinator::universe::IsInternal;
use crate::coordinator::universe::Universe;
use crate::name::TopicName;
use crate::partition::watermarks::Doorbell;
use crate::schedules;
use crate::schedules::between_steps;
use crate::storage::catalog::TopicId;

/// What a member does wrong, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    None,
    /// Reads what it was to take, whether or not it got it.
    TakesUnasked,
    /// Goes on reading for a moment what it has let go of.
    ReadsOn,
    /// Does not have the group assigned anew when it lets go.
    ReleasesSilently,
    /// Rings the others before it leaves, and not after.
    MarksBeforeTheChange,
    /// Takes its mark off after it has looked.
    TakesTheMarkLate,
    /// Says that it was told of everything it lost, whatever it was told.
    ForgetsLosses,
    /// Sleeps without another look behind the bell's reset.
    SleepsWithoutALook,
}

struct Play {
    group: Group,
    assignor: Assignor,
    plant: Plant,
    /// Behind the list, as in the registry.
    version: AtomicU64,
    topics: Mutex<Vec<GroupTopic>>,
    universe: Mutex<Arc<Universe>>,
    bells: Mutex<Vec<Arc<Doorbell>>>,
    /// Who reads what at this moment.
    readers: Mutex<BTreeMap<(String, u32), (TopicId, MemberKey)>>,
    /// Nobody does anything of his own accord any more.
    is_calm: AtomicBool,
    is_over: AtomicBool,
    sleepers: shuttle::sync::Mutex<Sleepers>,
    /// Somebody fell asleep, was woken, or left.
    has_moved: shuttle::sync::Condvar,
}

/// Who sleeps; one who was rung for does not, though it may not run yet.
#[derive(Default)]
struct Sleepers {
    here: usize,
    next: u64,
    asleep: BTreeSet<u64>,
    rung: BTreeSet<u64>,
}

/// Wakes a scheduled thread, as a task's waker does.
struct Alarm {
    play: Arc<Play>,
    sleep: u64,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        let mut sleepers = self.play.sleepers.lock().unwrap();
        if !sleepers.asleep.remove(&self.sleep) {
            sleepers.rung.insert(self.sleep);
        }
        drop(sleepers);
        self.play.has_moved.notify_all();
    }
}

fn topic_id(number: u8) -> TopicId {
    TopicId::from_random([number + 1; 16]).unwrap()
}

impl Play {
    fn universe(&self) -> Arc<Universe> {
        between_steps();
        let mut universe = self.universe.lock();
        let version = self.version.load(Ordering::Acquire);
        if universe.version < version {
            let mut topics = self.topics.lock().clone();
            topics.sort_by(|a, b| a.name.cmp(&b.name));
            let topics = topics.into_iter().map(|topic| (topic, IsInternal::No)).collect();
            *universe = Arc::new(Universe { version, topics });
        }
        Arc::clone(&universe)
    }

    fn change_topics(&self, change: impl FnOnce(&mut Vec<GroupTopic>)) {
        between_steps();
        change(&mut self.topics.lock());
        between_steps();
        self.version.fetch_add(1, Ordering::Release);
        self.ring_all();
    }

    fn ring_all(&self) {
        let bells = self.bells.lock().clone();
        for bell in bells {
            between_steps();
            bell.ring();
        }
    }

    fn settle(&self) {
        self.group.settle(|| self.universe());
    }

    /// Waits until everybody sleeps whom nobody has rung for.
    fn wait_for_rest(&self) {
        let mut sleepers = self.sleepers.lock().unwrap();
        while sleepers.asleep.len() < sleepers.here {
            sleepers = self.has_moved.wait(sleepers).unwrap();
        }
    }

    /// Everybody sleeps: then everybody has what it is to have, and all is read.
    fn check_rest(&self) {
        let universe = self.universe();
        let owned = self.group.look(|shared| {
            assert!(shared.state.is_at_rest(), "everybody sleeps, and {:?}", shared.state);
            assert_eq!(shared.state.with_work(), [], "sleeps with work to do: {:?}", shared.state);
            shared.state.check_one_owner();
            assert!(shared.state.unaware(universe.version).is_empty());
            let owned = shared.state.members().flat_map(|(key, member)| {
                let held = shared.state.held_by(member);
                held.into_iter().map(move |p| ((p.topic.to_string(), p.place.number), (p.id, key)))
            });
            owned.collect::<BTreeMap<_, _>>()
        });
        assert_eq!(*self.readers.lock(), owned, "what is held is what is read");
        if self.group.look(|shared| shared.state.is_empty()) {
            return;
        }
        let wanted: usize = universe.topics.iter().map(|(t, _)| t.partition_count as usize).sum();
        assert_eq!(
            owned.len(),
            wanted,
            "all is read: {universe:?} {:?}",
            self.group.look(|s| format!("{:?}", s.state))
        );
    }
}

/// One member's thread.
struct Member {
    play: Arc<Play>,
    name: String,
    instance_id: Option<Arc<str>>,
    bell: Arc<Doorbell>,
    signal: Arc<Signal>,
    key: MemberKey,
    seen_version: u64,
    reading: Vec<GroupPartition>,
    /// How many more looks find a partition in the application's hands.
    in_hands: BTreeMap<Place, usize>,
    chance: Chance,
}

fn everything() -> Arc<Subscription> {
    Arc::new(Subscription::matching(|_| true))
}

fn join(
    play: &Play,
    name: &str,
    instance_id: Option<&Arc<str>>,
    signal: &Arc<Signal>,
) -> MemberKey {
    let new = NewMember {
        id: name.into(),
        instance_id: instance_id.cloned(),
        client_id: "".into(),
        subscription: everything(),
    };
    let key = play.group.join(new, &play.assignor, signal).unwrap().unwrap();
    play.settle();
    key
}

impl Member {
    fn live(mut self) {
        let mut looks_left = 1 + self.chance.below(6);
        let stays = self.chance.below(3) > 0;
        loop {
            self.take_part();
            let is_calm = self.play.is_calm.load(Ordering::SeqCst);
            let leaves = !stays && !is_calm && looks_left == 0;
            if leaves || self.play.is_over.load(Ordering::SeqCst) {
                break;
            }
            looks_left = looks_left.saturating_sub(1);
            let asks_anew = !is_calm && self.chance.below(16) == 0;
            if asks_anew && self.play.group.resubscribe(self.key, everything()) {
                self.play.settle();
            }
            if looks_left == 0 || self.chance.below(2) == 0 {
                self.sleep();
            }
        }
        self.stop_reading(|_| true);
        if self.play.plant == Plant::MarksBeforeTheChange {
            self.play.group.ring_those_with_work();
            self.play.group.leave(self.key);
        } else {
            self.play.group.leave(self.key);
            self.play.settle();
        }
        self.play.sleepers.lock().unwrap().here -= 1;
        self.play.has_moved.notify_all();
    }

    fn take_part(&mut self) {
        let version = self.play.version.load(Ordering::Acquire);
        if self.seen_version != version {
            self.seen_version = version;
            self.play.settle();
        }
        between_steps();
        let is_late = self.play.plant == Plant::TakesTheMarkLate;
        let has_news = if is_late { self.signal.is_pending() } else { self.signal.take() };
        let is_dropped = self.in_hands.values().any(|looks| *looks == 0);
        if has_news || is_dropped {
            self.reconcile();
        }
        if is_late {
            between_steps();
            self.signal.take();
        }
    }

    fn reconcile(&mut self) {
        let play = Arc::clone(&self.play);
        self.in_hands.retain(|_, looks| *looks > 0);
        loop {
            let Some(plan) = play.group.plan(self.key) else {
                self.stop_reading(|_| true);
                self.signal = signal_for(&self.bell);
                self.key = join(&play, &self.name, self.instance_id.as_ref(), &self.signal);
                continue;
            };
            if !plan.lost.is_empty() {
                self.stop_reading(|p| plan.lost.iter().any(|lost| lost.place == p.place));
                let mut told = plan.lost.clone();
                if play.plant == Plant::ForgetsLosses {
                    told = play.group.plan(self.key).map_or(told, |plan| plan.lost);
                }
                play.group.acknowledge_lost(self.key, &told);
                continue;
            }
            let is_ready = |p: &GroupPartition| !self.in_hands.contains_key(&p.place);
            let ready: Vec<GroupPartition> = plan.revoke.into_iter().filter(is_ready).collect();
            if !ready.is_empty() {
                let places: Vec<Place> = ready.iter().map(|p| p.place).collect();
                let goes = |p: &GroupPartition| places.contains(&p.place);
                if play.plant != Plant::ReadsOn {
                    self.stop_reading(goes);
                }
                if play.group.release(self.key, &places) && play.plant != Plant::ReleasesSilently {
                    play.settle();
                } else {
                    play.group.ring_those_with_work();
                }
                self.stop_reading(goes);
                continue;
            }
            if plan.take.is_empty() {
                return;
            }
            let taken = play.group.take(self.key, &plan.take);
            let begun = if play.plant == Plant::TakesUnasked { &plan.take } else { &taken };
            for partition in begun {
                self.begin(partition);
            }
        }
    }

    fn begin(&mut self, partition: &GroupPartition) {
        between_steps();
        let topics = self.play.topics.lock();
        if !topics.iter().any(|topic| topic.id == partition.id) {
            return;
        }
        let key = (partition.topic.to_string(), partition.place.number);
        let before = self.play.readers.lock().insert(key, (partition.id, self.key));
        drop(topics);
        if let Some((id, other)) = before {
            // One that was put out, or whose topic was deleted, has not heard of it yet.
            let reads_on = self.play.group.look(|shared| shared.state.member(other).is_some());
            assert!(other == self.key || id != partition.id || !reads_on, "read by two");
        }
        self.reading.push(partition.clone());
        if self.chance.below(4) == 0 {
            self.in_hands.insert(partition.place, 1 + self.chance.below(3) as usize);
        }
    }

    fn stop_reading(&mut self, is_meant: impl Fn(&GroupPartition) -> bool) {
        let mut readers = self.play.readers.lock();
        self.reading.retain(|partition| {
            if is_meant(partition) {
                let key = (partition.topic.to_string(), partition.place.number);
                if readers.get(&key) == Some(&(partition.id, self.key)) {
                    readers.remove(&key);
                }
                self.in_hands.remove(&partition.place);
            }
            !is_meant(partition)
        });
    }

    fn has_news(&self) -> bool {
        self.signal.is_pending()
            || self.seen_version != self.play.version.load(Ordering::Acquire)
            || self.play.is_over.load(Ordering::SeqCst)
    }

    fn sleep(&mut self) {
        // The application drops what it holds, some time.
        for looks in self.in_hands.values_mut() {
            *looks -= 1;
        }
        if !self.in_hands.is_empty() {
            self.bell.ring();
            return;
        }
        if self.play.plant == Plant::SleepsWithoutALook && self.has_news() {
            return;
        }
        between_steps();
        self.bell.reset();
        between_steps();
        if self.play.plant != Plant::SleepsWithoutALook && self.has_news() {
            return;
        }
        let mut sleepers = self.play.sleepers.lock().unwrap();
        sleepers.next += 1;
        let sleep = sleepers.next;
        drop(sleepers);
        let alarm = Arc::new(Alarm { play: Arc::clone(&self.play), sleep });
        if !self.bell.wake_task(&Waker::from(alarm)) {
            return;
        }
        let mut sleepers = self.play.sleepers.lock().unwrap();
        if !sleepers.rung.remove(&sleep) {
            sleepers.asleep.insert(sleep);
            self.play.has_moved.notify_all();
            while sleepers.asleep.contains(&sleep) {
                sleepers = self.play.has_moved.wait(sleepers).unwrap();
            }
        }
    }
}

fn signal_for(bell: &Arc<Doorbell>) -> Arc<Signal> {
    Arc::new(Signal::new(Arc::clone(bell), Arc::new(Polls::new(None))))
}

/// Three members come, and some go, while topics change and members are put out; then all is to come to rest.
fn play(plant: Plant, assignor: Assignor) {
    let mut chance = Chance(shuttle::rand::thread_rng().r#gen::<u64>() | 1);
    let topic = |number: u8, partition_count| GroupTopic {
        name: TopicName::new(&format!("t{}", number % 2)).unwrap(),
        id: topic_id(number),
        partition_count,
    };
    let play = Arc::new(Play {
        group: Group::new("g".into(), Shared::default()),
        assignor,
        plant,
        version: AtomicU64::new(1),
        topics: Mutex::new(vec![topic(0, 2), topic(1, 1)]),
        universe: Mutex::default(),
        bells: Mutex::default(),
        readers: Mutex::default(),
        is_calm: AtomicBool::new(false),
        is_over: AtomicBool::new(false),
        sleepers: shuttle::sync::Mutex::new(Sleepers::default()),
        has_moved: shuttle::sync::Condvar::new(),
    });
    let mut threads = Vec::new();
    for number in 0..3_u64 {
        let play = Arc::clone(&play);
        let chance = Chance(chance.below(u64::MAX) | 1);
        let name = format!("m{number}");
        let instance_id = (number == 0).then(|| "static".into());
        play.sleepers.lock().unwrap().here += 1;
        threads.push(shuttle::thread::spawn(move || {
            let bell = Arc::new(Doorbell::default());
            play.bells.lock().push(Arc::clone(&bell));
            let signal = signal_for(&bell);
            let seen_version = play.version.load(Ordering::Acquire);
            let key = join(&play, &name, instance_id.as_ref(), &signal);
            let (reading, in_hands) = (Vec::new(), BTreeMap::new());
            let member = Member {
                play,
                name,
                instance_id,
                bell,
                signal,
                key,
                seen_version,
                reading,
                in_hands,
                chance,
            };
            member.live();
        }));
    }
    let mut next_topic = 2;
    for _ in 0..chance.below(5) {
        match chance.below(6) {
            0 => {
                play.change_topics(|topics| topics.iter_mut().for_each(|t| t.partition_count += 1))
            }
            1 | 2 => play.change_topics(|topics| drop(topics.pop())),
            3 => {
                let (new, count) = (topic(next_topic, 1 + chance.below(2) as u32), next_topic);
                next_topic = count + 1;
                play.change_topics(|topics| {
                    topics.retain(|old| old.name != new.name);
                    topics.push(new);
                });
            }
            4 => {
                let whom = format!("m{}", chance.below(3));
                play.group.put_out(|id, _| id == whom);
                play.settle();
            }
            _ => play.wait_for_rest(),
        }
    }
    play.wait_for_rest();
    play.check_rest();
    // Woken for nothing, a group at rest moves nothing.
    play.is_calm.store(true, Ordering::SeqCst);
    let generation = play.group.look(|shared| shared.state.generation());
    play.ring_all();
    play.wait_for_rest();
    play.check_rest();
    assert_eq!(play.group.look(|shared| shared.state.generation()), generation);
    play.is_over.store(true, Ordering::SeqCst);
    play.ring_all();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(play.readers.lock().is_empty());
}

fn schedules(plant: Plant, assignor: &Assignor, scheduler: RandomScheduler) {
    let assignor = assignor.clone();
    schedules::run(scheduler, move || play(plant, assignor.clone()));
}

#[test]
fn in_whatever_order_members_step_nothing_is_read_by_two_and_nobody_sleeps_with_work_to_do() {
    let count = told("OTTLA_SCHEDULES").map_or(400, |count| count as usize);
    for assignor in [
        Assignor::Uniform,
        Assignor::Range,
        Assignor::RoundRobin,
        Assignor::Sticky,
        Assignor::CooperativeSticky,
    ] {
        schedules(Plant::None, &assignor, RandomScheduler::new(count));
    }
}

#[test]
fn members_that_do_it_wrong_are_found_out() {
    // A test of the test: each of these is a line of the hand-over gone wrong. The rarest shows once in some 2,000
    // schedules. With schedules drawn anew each time it went unnoticed once; so they are the same ones each time, and many
    // times more than are needed.
    for plant in [
        Plant::TakesUnasked,
        Plant::ReadsOn,
        Plant::ReleasesSilently,
        Plant::MarksBeforeTheChange,
        Plant::TakesTheMarkLate,
        Plant::ForgetsLosses,
        Plant::SleepsWithoutALook,
    ] {
        let scheduler = RandomScheduler::new_from_seed(20, 100_000);
        let played = catch_unwind(|| schedules(plant, &Assignor::CooperativeSticky, scheduler));
        assert!(played.is_err(), "{plant:?} was not noticed");
    }
}
