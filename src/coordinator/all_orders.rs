//! Tests only: a small group in every order of everything that can happen to it.
//!
//! Two or three members and up to three partitions. Members join, look at what they are to do, do it a step at a
//! time though the group may have changed since they looked, and leave; the topic comes, grows, goes and comes again.
//! Every state that can be reached is looked at once; states that differ in nothing but counters are one.
//! `OTTLA_EXHAUSTIVE` lets three members see all of it, which takes a minute.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Arc;

use crate::coordinator::assignor::Assignor;
use crate::coordinator::group_state::GroupPartition;
use crate::coordinator::group_state::GroupState;
use crate::coordinator::group_state::MemberKey;
use crate::coordinator::group_state::NewMember;
use crate::coordinator::group_state::Plan;
use crate::coordinator::group_state::Wanted;
use crate::coordinator::subscription::Subscription;
use crate::coordinator::universe::GroupTopic;
use crate::coordinator::universe::IsInternal;
use crate::coordinator::universe::Universe;
use crate::name::TopicName;
use crate::storage::catalog::TopicId;

const MEMBERS: usize = 3;

/// What may happen.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// How often each member may join.
    lives: [usize; MEMBERS],
    /// What becomes of the topic, in this order: so many partitions, 0 is deleted.
    fate: &'static [u32],
}

const SMALL: [Bounds; 2] =
    [Bounds { lives: [1, 1, 1], fate: &[3] }, Bounds { lives: [2, 1, 0], fate: &[1, 3, 0, 2] }];
/// Half a million states: some ten seconds each.
const LARGE: [Bounds; 2] =
    [Bounds { lives: [2, 1, 1], fate: &[3] }, Bounds { lives: [2, 1, 1], fate: &[1, 3, 0, 2] }];

/// What a member does wrong, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    None,
    /// Reads what it planned to take, whether it got it or not.
    TakesUnasked,
    /// Lets go of what it planned to let go of, and reads on until it looks again.
    ReadsOn,
    /// Nobody is marked for what another does.
    NobodyIsMarked,
    /// Nobody has the group assigned anew when he lets go.
    ReleasesSilently,
}

/// A member as it sees itself.
#[derive(Clone, Debug, Default)]
struct Member {
    key: Option<MemberKey>,
    lives_left: usize,
    is_marked: bool,
    /// What it saw when it looked last, and has not done yet.
    plan: Option<Plan>,
    reading: Vec<GroupPartition>,
}

#[derive(Clone, Debug)]
struct World {
    state: GroupState,
    members: [Member; MEMBERS],
    /// What is still to become of the topic.
    fate: &'static [u32],
    universe: Arc<Universe>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Join(usize),
    Leave(usize),
    PutOut(usize),
    Look(usize),
    /// Does the next thing of what it saw.
    Do(usize),
    Fate,
}

/// The topic is there with so many partitions, or not at all; one that comes again is another.
fn universe(version: u64, count: u32) -> Arc<Universe> {
    let life = if version > 3 { 2 } else { 1 };
    let id = TopicId::from_random([life; 16]).unwrap();
    let name = TopicName::new("t").unwrap();
    let topic = GroupTopic { name, id, partition_count: count };
    let topics = (count > 0).then_some((topic, IsInternal::No));
    Arc::new(Universe { version, topics: topics.into_iter().collect() })
}

impl World {
    fn new(bounds: Bounds) -> World {
        let member = |lives_left| Member { lives_left, ..Member::default() };
        let (members, fate) = (bounds.lives.map(member), bounds.fate);
        World { state: GroupState::default(), members, fate, universe: universe(1, 0) }
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (number, member) in self.members.iter().enumerate() {
            match (&member.key, &member.plan) {
                (None, _) if member.lives_left > 0 => steps.push(Step::Join(number)),
                (None, _) => {}
                (Some(_), Some(_)) => steps.push(Step::Do(number)),
                (Some(_), None) => {
                    steps.push(Step::Leave(number));
                    if member.is_marked {
                        steps.push(Step::Look(number));
                    }
                }
            }
            // Whatever it is at; one of them is enough.
            if number == 0 && member.key.is_some_and(|key| self.state.member(key).is_some()) {
                steps.push(Step::PutOut(number));
            }
        }
        if !self.fate.is_empty() {
            steps.push(Step::Fate);
        }
        steps
    }

    fn take(&mut self, step: Step, assignor: &Assignor, plant: Plant) {
        match step {
            Step::Join(number) => self.join(number, assignor, plant),
            Step::Leave(number) => {
                let member = &mut self.members[number];
                member.reading.clear();
                member.is_marked = false;
                if let Some(key) = member.key.take() {
                    self.state.leave(key);
                }
                self.settle(assignor, plant);
            }
            Step::PutOut(number) => {
                if let Some(key) = self.members[number].key {
                    self.state.leave(key);
                }
                self.members[number].is_marked = true;
                self.settle(assignor, plant);
            }
            Step::Look(number) => {
                self.members[number].is_marked = false;
                self.look(number, assignor, plant);
            }
            Step::Do(number) => self.do_next(number, assignor, plant),
            Step::Fate => {
                let Some((count, rest)) = self.fate.split_first() else { return };
                self.fate = rest;
                self.universe = universe(self.universe.version + 1, *count);
                // Some member notices.
                self.settle(assignor, plant);
            }
        }
    }

    fn join(&mut self, number: usize, assignor: &Assignor, plant: Plant) {
        let new = NewMember {
            id: format!("m{number}").into(),
            instance_id: (number == 0).then(|| "i".into()),
            client_id: "".into(),
            subscription: Arc::new(Subscription::matching(|_| true)),
        };
        let key = self.state.join(new);
        let member = &mut self.members[number];
        member.key = Some(key);
        member.lives_left -= 1;
        member.is_marked = true;
        self.settle(assignor, plant);
    }

    /// As `Group::settle`, in one step.
    fn settle(&mut self, assignor: &Assignor, plant: Plant) {
        let wanted: Vec<Wanted> = self
            .state
            .unaware(self.universe.version)
            .into_iter()
            .map(|(key, subscription)| {
                let indexes = self.universe.wanted_by(&subscription);
                Wanted { key, subscription, indexes }
            })
            .collect();
        if !wanted.is_empty() {
            self.state.see(&self.universe, &wanted);
        }
        while let Some(question) = self.state.question() {
            let answer = assignor.answer(&question);
            self.state.adopt(&question, &answer);
        }
        self.mark(plant);
    }

    fn mark(&mut self, plant: Plant) {
        if plant == Plant::NobodyIsMarked {
            return;
        }
        let with_work = self.state.with_work();
        for member in &mut self.members {
            member.is_marked |= member.key.is_some_and(|key| with_work.contains(&key));
        }
    }

    fn look(&mut self, number: usize, assignor: &Assignor, plant: Plant) {
        let Some(key) = self.members[number].key else { return };
        match self.state.plan(key) {
            Some(plan) => {
                let is_done =
                    plan.lost.is_empty() && plan.revoke.is_empty() && plan.take.is_empty();
                self.members[number].plan = (!is_done).then_some(plan);
            }
            None => {
                // It was put out: it joins again, if it may.
                let member = &mut self.members[number];
                member.reading.clear();
                member.key = None;
                if member.lives_left > 0 {
                    self.join(number, assignor, plant);
                }
            }
        }
    }

    /// As the loop in `Consumer::reconcile`: one thing, then another look.
    fn do_next(&mut self, number: usize, assignor: &Assignor, plant: Plant) {
        let Some(key) = self.members[number].key else { return };
        let Some(plan) = self.members[number].plan.take() else { return };
        let member = &mut self.members[number];
        if !plan.lost.is_empty() {
            member.reading.retain(|p| plan.lost.iter().all(|lost| lost.place != p.place));
            self.state.acknowledge_lost(key, &plan.lost);
        } else if !plan.revoke.is_empty() {
            let places: Vec<_> = plan.revoke.iter().map(|p| p.place).collect();
            if plant != Plant::ReadsOn {
                member.reading.retain(|p| !places.contains(&p.place));
            }
            self.state.release(key, &places);
            if plant == Plant::ReleasesSilently {
                self.mark(plant);
            } else {
                self.settle(assignor, plant);
            }
        } else {
            let taken = self.state.take(key, &plan.take);
            let begun = if plant == Plant::TakesUnasked { plan.take } else { taken };
            let is_there = |id| self.universe.topics.iter().any(|(topic, _)| topic.id == id);
            member.reading.extend(begun.into_iter().filter(|p| is_there(p.id)));
        }
        self.look(number, assignor, plant);
    }

    /// Says what is wrong, if anything is.
    fn check(&self) -> Result<(), String> {
        self.state.check_one_owner();
        let mut readers = HashSet::new();
        for member in &self.members {
            // One that was put out reads on until it hears of it, and is refused its commits.
            if member.key.is_some_and(|key| self.state.member(key).is_some()) {
                for partition in &member.reading {
                    if !readers.insert((partition.id, partition.place.number)) {
                        return Err("a partition is read by two".to_owned());
                    }
                }
            }
        }
        let is_busy = |member: &Member| member.is_marked || member.plan.is_some();
        if self.members.iter().any(is_busy) {
            return Ok(());
        }
        if !self.state.with_work().is_empty() {
            return Err("somebody sleeps with work to do".to_owned());
        }
        if !self.state.is_at_rest() {
            return Err("nobody has anything to do, and it is not at rest".to_owned());
        }
        let wanted: u32 = self.universe.topics.iter().map(|(topic, _)| topic.partition_count).sum();
        let is_read = readers.len() as u32 == wanted || self.state.is_empty();
        if is_read { Ok(()) } else { Err("it is at rest, and not all is read".to_owned()) }
    }

    /// What the state is, counters aside.
    fn essence(&self) -> String {
        let named = |key: MemberKey| {
            self.members.iter().position(|member| member.key == Some(key)).unwrap_or(MEMBERS)
        };
        let members: Vec<_> = self
            .members
            .iter()
            .map(|m| {
                let plan = m.plan.as_ref().map(|p| (&p.lost, &p.revoke, &p.take));
                let is_in = m.key.map(|key| self.state.member(key).is_some());
                (is_in, m.lives_left, m.is_marked, plan, &m.reading)
            })
            .collect();
        format!("{:?} {members:?} {}", self.fate, self.state.essence(named))
    }
}

/// Looks at every state that can be reached; gives how many there are, or what is wrong with one.
fn explore(bounds: Bounds, assignor: &Assignor, plant: Plant) -> Result<usize, String> {
    // Two states of which one hash is the same would have to come up among a few hundred thousand.
    let hasher = RandomState::new();
    let mut seen = HashSet::new();
    let mut to_see = vec![World::new(bounds)];
    while let Some(world) = to_see.pop() {
        for step in world.steps() {
            let mut next = world.clone();
            next.take(step, assignor, plant);
            next.check().map_err(|wrong| format!("{wrong} after {step:?} of {world:#?}"))?;
            if seen.insert(hasher.hash_one(next.essence())) {
                to_see.push(next);
            }
        }
    }
    Ok(seen.len())
}

#[test]
fn in_all_orders_of_everything_a_small_group_keeps_its_promises() {
    for assignor in [Assignor::Uniform, Assignor::Range, Assignor::CooperativeSticky] {
        let is_large = std::env::var_os("OTTLA_EXHAUSTIVE").is_some();
        for bounds in if is_large { LARGE } else { SMALL } {
            let states = explore(bounds, &assignor, Plant::None);
            let states = states.unwrap_or_else(|wrong| panic!("{assignor:?}: {wrong}"));
            assert!(states > 1_000, "{assignor:?} {bounds:?}: only {states} states");
        }
    }
}

#[test]
fn whoever_breaks_a_rule_is_found_out() {
    for (plant, wrong) in [
        (Plant::TakesUnasked, "a partition is read by two"),
        (Plant::ReadsOn, "a partition is read by two"),
        (Plant::NobodyIsMarked, "somebody sleeps with work to do"),
        (Plant::ReleasesSilently, "nobody has anything to do, and it is not at rest"),
    ] {
        let found =
            explore(SMALL[1], &Assignor::CooperativeSticky, plant).expect_err("it was not noticed");
        assert!(found.starts_with(wrong), "{plant:?}: {found}");
    }
}
