//! Who of a group reads what: members, what each is to have, what each holds. Pure: no lock, no clock, no log.
//!
//! Every change goes through here in three steps, each of which may be made by another thread:
//!
//! 1. Something changes: a member joins or leaves, topics come, grow or go. An assignor says anew what each
//!    member is to have, its *target*.
//! 2. A member that holds more than its target lets go of the rest, when it has done with it.
//! 3. A member whose target is larger than what it holds takes what nobody holds.
//!
//! **Invariant (one owner).** At every moment a partition is held by at most one member: it is taken only while
//! nobody holds it, and it becomes free only when its holder lets go of it, leaves or is put out.
//!
//! **Invariant (comes to rest).** When every member has let go of what its target lacks and taken what it can,
//! each holds its target, and nothing moves until something changes.
//!
//! **Invariant (no needless move).** What a member holds and is to keep it never lets go of.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use crate::coordinator::assignors::Input;
use crate::coordinator::assignors::MemberInput;
use crate::coordinator::assignors::Place;
use crate::coordinator::assignors::TopicShape;
use crate::coordinator::assignors::member_order;
use crate::coordinator::subscription::Subscription;
use crate::coordinator::universe::GroupTopic;
use crate::coordinator::universe::Universe;
use crate::name::TopicName;
use crate::storage::catalog::TopicId;

/// A group's members and what they have.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct GroupState {
    /// Counts what members and assignments went through; Kafka's group epoch.
    generation: i32,
    /// Counts every change, so that who computed without the lock can tell whether it still holds.
    revision: u64,
    /// Topics by the number that [`Place`]s carry; those that nobody wants any more are used again.
    topics: Vec<Option<GroupTopic>>,
    numbers: HashMap<TopicName, u32>,
    members: BTreeMap<MemberKey, Member>,
    next_key: u64,
    owners: HashMap<Place, MemberKey>,
    /// What static members had when they left, by instance id.
    remembered: BTreeMap<Arc<str>, Vec<(TopicName, u32)>>,
    is_unassigned: bool,
    /// The version of the topics that the group was shown last.
    seen_version: u64,
}

/// A member, for as long as it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MemberKey(u64);

/// A partition as the group knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupPartition {
    pub(crate) place: Place,
    pub(crate) topic: TopicName,
    pub(crate) id: TopicId,
}

/// One member.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Member {
    pub(crate) id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) client_id: Arc<str>,
    pub(crate) subscription: Arc<Subscription>,
    /// The list of topics, by its version, that `wanted` was told from; 0 if none.
    seen_version: u64,
    wanted: BTreeSet<u32>,
    owned: BTreeSet<Place>,
    target: BTreeSet<Place>,
    /// Taken away with its topic, and not told yet.
    lost: Vec<GroupPartition>,
    /// Its target has changed since it looked last: what it was about to let go of it may be to keep.
    is_to_look: bool,
    /// What a static member had in its former life.
    home: BTreeSet<Place>,
    /// The generation of its target.
    generation: i32,
}

/// What is asked of one who joins.
#[derive(Debug)]
pub(crate) struct NewMember {
    pub(crate) id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) client_id: Arc<str>,
    pub(crate) subscription: Arc<Subscription>,
}

/// Which topics a member wants, by their place in a [`Universe`].
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) key: MemberKey,
    /// What it was told from.
    pub(crate) subscription: Arc<Subscription>,
    pub(crate) indexes: Vec<usize>,
}

/// What one member has to do to get where it is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Gone with their topics.
    pub(crate) lost: Vec<GroupPartition>,
    /// To be let go of.
    pub(crate) revoke: Vec<GroupPartition>,
    /// To be taken: nobody holds them.
    pub(crate) take: Vec<GroupPartition>,
    /// The generation of the target.
    pub(crate) generation: i32,
}

/// What an assignor is given, on its own.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) revision: u64,
    /// In the order of their names.
    pub(crate) topics: Vec<GroupTopic>,
    pub(crate) members: Vec<QuestionMember>,
    /// From positions in `topics` to the numbers that places carry here.
    numbers: Vec<u32>,
}

/// One member in a [`Question`], in member order.
#[derive(Debug)]
pub(crate) struct QuestionMember {
    key: MemberKey,
    pub(crate) id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) subscribed: Vec<u32>,
    pub(crate) owned: Vec<Place>,
    pub(crate) home: Vec<Place>,
    pub(crate) generation: i32,
}

impl GroupState {
    /// Takes a member in. It has nothing yet, and wants nothing until it was shown the topics.
    pub(crate) fn join(&mut self, new: NewMember) -> MemberKey {
        let NewMember { id, instance_id, client_id, subscription } = new;
        self.next_key += 1;
        let key = MemberKey(self.next_key);
        let member = Member {
            id,
            instance_id,
            client_id,
            subscription,
            seen_version: 0,
            wanted: BTreeSet::new(),
            owned: BTreeSet::new(),
            target: BTreeSet::new(),
            lost: Vec::new(),
            is_to_look: false,
            home: BTreeSet::new(),
            generation: -1,
        };
        self.members.insert(key, member);
        self.changed();
        key
    }

    /// Lets a member want other topics; it is shown them next.
    pub(crate) fn resubscribe(&mut self, key: MemberKey, subscription: Arc<Subscription>) -> bool {
        let Some(member) = self.members.get_mut(&key) else { return false };
        member.subscription = subscription;
        member.seen_version = 0;
        self.changed();
        true
    }

    /// Takes a member out, and frees what it held. False if it was none any more.
    pub(crate) fn leave(&mut self, key: MemberKey) -> bool {
        let Some(member) = self.members.remove(&key) else { return false };
        if let Some(instance_id) = member.instance_id {
            // One that leaves before it had anything still has its home.
            let had = if member.owned.is_empty() { &member.home } else { &member.owned };
            let had = had.iter().filter_map(|place| self.named(*place));
            let had = had.map(|partition| (partition.topic, partition.place.number)).collect();
            self.remembered.insert(instance_id, had);
            if self.remembered.len() > REMEMBERED_MAX {
                self.remembered.pop_first();
            }
        }
        for place in &member.owned {
            self.owners.remove(place);
        }
        self.changed();
        true
    }

    /// Recalls what a static member of an earlier life had.
    pub(crate) fn remember(&mut self, instance_id: &str, had: Vec<(TopicName, u32)>) {
        self.remembered.insert(instance_id.into(), had);
    }

    /// Gives what static members had that are not here now.
    pub(crate) fn remembered(&self) -> impl Iterator<Item = (&Arc<str>, &[(TopicName, u32)])> {
        self.remembered.iter().map(|(instance_id, had)| (instance_id, &had[..]))
    }

    /// Gives the members that have not been shown this version of the topics.
    pub(crate) fn unaware(&self, version: u64) -> Vec<(MemberKey, Arc<Subscription>)> {
        let unaware = self.members.iter().filter(|(_, member)| member.seen_version < version);
        unaware.map(|(key, member)| (*key, Arc::clone(&member.subscription))).collect()
    }

    /// Shows the group the topics there are; `wanted` says which of them, by their place in the list, each of
    /// the members wants that have not been shown them before, by which subscription.
    /// Nothing happens if somebody else has shown a later list, nor for a member that wants something else by now:
    /// it is still unaware then.
    pub(crate) fn see(&mut self, universe: &Universe, wanted: &[Wanted]) {
        if universe.version < self.seen_version {
            return;
        }
        self.seen_version = universe.version;
        let found = |name: &TopicName| {
            let index = universe.topics.binary_search_by(|(topic, _)| topic.name.cmp(name)).ok()?;
            Some(&universe.topics[index].0)
        };
        for number in 0..self.topics.len() as u32 {
            let Some(known) = self.topics[number as usize].clone() else { continue };
            match found(&known.name) {
                Some(topic) if topic.id == known.id => {
                    if topic.partition_count != known.partition_count {
                        self.topics[number as usize] = Some(topic.clone());
                        self.changed();
                    }
                }
                _ => self.forget_topic(number),
            }
        }
        for Wanted { key, subscription, indexes } in wanted {
            let is_it = |member: &Member| Arc::ptr_eq(&member.subscription, subscription);
            if !self.members.get(key).is_some_and(is_it) {
                continue;
            }
            let numbers = indexes.iter().map(|index| self.number_of(&universe.topics[*index].0));
            let numbers: BTreeSet<u32> = numbers.collect();
            let Some(member) = self.members.get_mut(key) else { continue };
            member.seen_version = universe.version;
            if member.wanted != numbers {
                member.wanted = numbers;
                self.changed();
            }
        }
        let is_wanted = |number: u32| self.members.values().any(|m| m.wanted.contains(&number));
        let unwanted: Vec<u32> = (0..self.topics.len() as u32)
            .filter(|number| self.topics[*number as usize].is_some() && !is_wanted(*number))
            // Somebody may still hold a part of it, and must be able to name it.
            .filter(|number| !self.owners.keys().any(|place| place.topic == *number))
            .collect();
        for number in unwanted {
            self.drop_number(number);
        }
        for wanted in wanted {
            self.bring_home(wanted.key);
        }
    }

    /// Gives what an assignor is to answer, if there is something new to ask.
    pub(crate) fn question(&self) -> Option<Question> {
        if !self.is_unassigned {
            return None;
        }
        let mut numbers: Vec<u32> = self.members.values().flat_map(|m| m.wanted.clone()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut topics: Vec<(u32, GroupTopic)> =
            numbers.into_iter().filter_map(|n| Some((n, self.topic(n)?.clone()))).collect();
        topics.sort_unstable_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        let positions: HashMap<u32, u32> =
            topics.iter().enumerate().map(|(at, (number, _))| (*number, at as u32)).collect();
        let mut members: Vec<QuestionMember> = self
            .members
            .iter()
            .map(|(key, member)| {
                let renumbered = |places: &BTreeSet<Place>| {
                    let renumbered = places.iter().filter_map(|place| {
                        let topic = *positions.get(&place.topic)?;
                        Some(Place { topic, number: place.number })
                    });
                    let mut renumbered: Vec<Place> = renumbered.collect();
                    renumbered.sort_unstable();
                    renumbered
                };
                let mut subscribed: Vec<u32> =
                    member.wanted.iter().filter_map(|n| positions.get(n).copied()).collect();
                subscribed.sort_unstable();
                QuestionMember {
                    key: *key,
                    id: Arc::clone(&member.id),
                    instance_id: member.instance_id.clone(),
                    subscribed,
                    // What it is to have, rather than what it holds: who is on the way stays on the way.
                    owned: renumbered(&member.target),
                    home: renumbered(&member.home),
                    generation: self.generation,
                }
            })
            .collect();
        members.sort_by(|a, b| {
            member_order((&a.id, a.instance_id.as_deref()), (&b.id, b.instance_id.as_deref()))
        });
        let (numbers, topics) = topics.into_iter().unzip();
        Some(Question { revision: self.revision, topics, members, numbers })
    }

    /// Takes an assignor's answer: for each member of the question what it is to have. Nothing happens if the group
    /// has changed since it was asked; then it is to be asked anew.
    pub(crate) fn adopt(&mut self, question: &Question, answer: &[Vec<Place>]) {
        if question.revision != self.revision {
            return;
        }
        let meant_before = self.meant();
        self.generation = self.generation.wrapping_add(1).max(1);
        for (asked, places) in question.members.iter().zip(answer) {
            let renumbered = places.iter().filter_map(|place| {
                let topic = *question.numbers.get(place.topic as usize)?;
                Some(Place { topic, number: place.number })
            });
            let target = renumbered.collect();
            if let Some(member) = self.members.get_mut(&asked.key) {
                member.is_to_look |= member.target != target;
                member.target = target;
                member.generation = self.generation;
                if let Some(instance_id) = &member.instance_id {
                    self.remembered.remove(instance_id);
                }
            }
        }
        // Some assignors give to nobody what is still held, until its holder has let go of it. What a member was to
        // have and had not taken yet nobody will let go of: it can be given now.
        let meant = self.meant();
        let is_forgotten = |p: &Place| !meant.contains(p) && !self.owners.contains_key(p);
        self.is_unassigned = meant_before.iter().any(is_forgotten);
        self.revision += 1;
    }

    /// Says what a member has to do, which it looks at now; `None` if it is no member any more.
    pub(crate) fn plan(&mut self, key: MemberKey) -> Option<Plan> {
        self.members.get_mut(&key)?.is_to_look = false;
        let member = self.members.get(&key)?;
        let named = |place: &Place| self.named(*place);
        let free = |place: &&Place| !self.owners.contains_key(place);
        Some(Plan {
            lost: member.lost.clone(),
            revoke: member.owned.difference(&member.target).filter_map(named).collect(),
            take: member.target.difference(&member.owned).filter(free).filter_map(named).collect(),
            generation: member.generation,
        })
    }

    /// Notes that a member was told what it lost; more may be lost by now.
    pub(crate) fn acknowledge_lost(&mut self, key: MemberKey, told: &[GroupPartition]) {
        if let Some(member) = self.members.get_mut(&key) {
            member.lost.retain(|lost| !told.contains(lost));
        }
    }

    /// Frees what a member lets go of.
    pub(crate) fn release(&mut self, key: MemberKey, places: &[Place]) {
        let Some(member) = self.members.get_mut(&key) else { return };
        let freed: Vec<Place> =
            places.iter().copied().filter(|place| member.owned.remove(place)).collect();
        for place in &freed {
            self.owners.remove(place);
        }
        // Some assignors give to nobody what is still held: now it can be given.
        let is_meant = |place: &Place| self.members.values().any(|m| m.target.contains(place));
        self.is_unassigned |= !freed.iter().all(is_meant);
        self.revision += 1;
    }

    /// Gives a member those of the partitions that it is to have and nobody holds.
    pub(crate) fn take(
        &mut self,
        key: MemberKey,
        wanted: &[GroupPartition],
    ) -> Vec<GroupPartition> {
        let Some(member) = self.members.get_mut(&key) else { return Vec::new() };
        let mut taken = Vec::with_capacity(wanted.len());
        for partition in wanted {
            let place = partition.place;
            // The number may stand for another topic by now: what was planned is looked at, not what is there.
            let topic = self.topics.get(place.topic as usize).and_then(Option::as_ref);
            let is_it = topic.is_some_and(|topic| topic.id == partition.id);
            if is_it && member.target.contains(&place) && !self.owners.contains_key(&place) {
                self.owners.insert(place, key);
                member.owned.insert(place);
                taken.push(partition.clone());
            }
        }
        self.revision += 1;
        taken
    }
}

impl GroupState {
    /// Tells whether a member holds a partition.
    pub(crate) fn holds(&self, key: MemberKey, topic: &TopicName, number: u32) -> bool {
        let place = self.numbers.get(topic).map(|topic| Place { topic: *topic, number });
        place.is_some_and(|place| self.owners.get(&place) == Some(&key))
    }

    /// Gives the members that have something to do and can do it now.
    pub(crate) fn with_work(&self) -> Vec<MemberKey> {
        let has_work = |member: &Member| {
            member.is_to_look
                || !member.lost.is_empty()
                || !member.owned.is_subset(&member.target)
                || member.target.difference(&member.owned).any(|p| !self.owners.contains_key(p))
        };
        self.members.iter().filter(|(_, member)| has_work(member)).map(|(key, _)| *key).collect()
    }

    /// Tells whether every member has what it is to have, and nothing is waiting to be assigned.
    pub(crate) fn is_at_rest(&self) -> bool {
        !self.is_unassigned
            && self.members.values().all(|m| m.lost.is_empty() && m.owned == m.target)
    }

    pub(crate) fn is_unassigned(&self) -> bool {
        self.is_unassigned
    }

    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    /// Goes on behind the generations of an earlier life.
    pub(crate) fn resume_generation(&mut self, generation: i32) {
        self.generation = self.generation.max(generation);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = (MemberKey, &Member)> {
        self.members.iter().map(|(key, member)| (*key, member))
    }

    pub(crate) fn member(&self, key: MemberKey) -> Option<&Member> {
        self.members.get(&key)
    }

    /// Tells whether a member wants a topic.
    pub(crate) fn is_wanted(&self, topic: &TopicName) -> bool {
        let number = self.numbers.get(topic);
        number.is_some_and(|number| self.members.values().any(|m| m.wanted.contains(number)))
    }

    /// Gives what a member holds.
    pub(crate) fn held_by(&self, member: &Member) -> Vec<GroupPartition> {
        member.owned.iter().filter_map(|place| self.named(*place)).collect()
    }

    /// Gives the topics that a member wants.
    pub(crate) fn wanted_by(&self, member: &Member) -> Vec<TopicName> {
        member.wanted.iter().filter_map(|n| Some(self.topic(*n)?.name.clone())).collect()
    }

    fn changed(&mut self) {
        self.revision += 1;
        self.is_unassigned = true;
    }

    /// Gives all that anybody is to have.
    fn meant(&self) -> HashSet<Place> {
        self.members.values().flat_map(|member| member.target.iter().copied()).collect()
    }

    fn topic(&self, number: u32) -> Option<&GroupTopic> {
        self.topics.get(number as usize)?.as_ref()
    }

    fn named(&self, place: Place) -> Option<GroupPartition> {
        let topic = self.topic(place.topic)?;
        Some(GroupPartition { place, topic: topic.name.clone(), id: topic.id })
    }

    fn number_of(&mut self, topic: &GroupTopic) -> u32 {
        if let Some(number) = self.numbers.get(&topic.name) {
            return *number;
        }
        let unused = self.topics.iter().position(Option::is_none);
        let number = unused.unwrap_or(self.topics.len());
        match unused {
            Some(number) => self.topics[number] = Some(topic.clone()),
            None => self.topics.push(Some(topic.clone())),
        }
        self.numbers.insert(topic.name.clone(), number as u32);
        number as u32
    }

    fn drop_number(&mut self, number: u32) {
        if let Some(topic) = self.topics[number as usize].take() {
            self.numbers.remove(&topic.name);
        }
    }

    /// Takes away from everybody what they hold of a topic that is gone.
    fn forget_topic(&mut self, number: u32) {
        let Some(topic) = self.topic(number).cloned() else { return };
        for member in self.members.values_mut() {
            let is_of_it = |place: &&Place| place.topic == number;
            let lost: Vec<Place> = member.owned.iter().filter(is_of_it).copied().collect();
            for place in lost {
                member.owned.remove(&place);
                self.owners.remove(&place);
                let (topic, id) = (topic.name.clone(), topic.id);
                member.lost.push(GroupPartition { place, topic, id });
            }
            member.target.retain(|place| place.topic != number);
            member.home.retain(|place| place.topic != number);
            member.wanted.remove(&number);
            // One of the same name may be there already: it is looked at anew.
            member.seen_version = 0;
        }
        self.drop_number(number);
        self.changed();
    }

    /// Recalls what a static member that is back had.
    fn bring_home(&mut self, key: MemberKey) {
        let Some(member) = self.members.get_mut(&key) else { return };
        let had = member.instance_id.as_ref().and_then(|id| self.remembered.get(id));
        let is_new = member.owned.is_empty() && member.target.is_empty();
        let Some(had) = had.filter(|_| is_new) else { return };
        let place = |(topic, number): &(TopicName, u32)| {
            let topic = *self.numbers.get(topic)?;
            Some(Place { topic, number: *number })
        };
        member.home = had.iter().filter_map(place).collect();
    }
}

/// So many static members that are away are remembered.
const REMEMBERED_MAX: usize = 1024;

impl Member {
    pub(crate) fn has_work_left(&self) -> bool {
        self.owned != self.target
    }
}

impl Question {
    /// Gives the question as assignors take it.
    pub(crate) fn ask<Answer>(&self, assignor: impl FnOnce(&Input<'_>) -> Answer) -> Answer {
        let topics: Vec<TopicShape<'_>> = self
            .topics
            .iter()
            .map(|t| TopicShape { name: t.name.as_str(), partition_count: t.partition_count })
            .collect();
        let members: Vec<MemberInput<'_>> = self
            .members
            .iter()
            .map(|member| MemberInput {
                id: &member.id,
                instance_id: member.instance_id.as_deref(),
                subscribed: &member.subscribed,
                owned: &member.owned,
                generation: member.generation,
            })
            .collect();
        assignor(&Input { topics: &topics, members: &members })
    }
}

#[cfg(test)]
impl GroupState {
    /// Checks the invariant (one owner): what members hold and who holds it are the same.
    pub(crate) fn check_one_owner(&self) {
        let held = self.members.iter().flat_map(|(key, m)| m.owned.iter().map(|p| (*p, *key)));
        let held: Vec<(Place, MemberKey)> = held.collect();
        assert_eq!(held.len(), self.owners.len(), "{self:?}");
        for (place, key) in held {
            assert_eq!(self.owners.get(&place), Some(&key), "{place:?} of {self:?}");
            assert!(self.named(place).is_some(), "{place:?} of {self:?}");
        }
    }

    /// Tells everything that matters, counters aside; `named` gives members the same name in states that are alike.
    pub(crate) fn essence(&self, named: impl Fn(MemberKey) -> usize) -> String {
        let members = self.members.iter().map(|(key, m)| {
            let is_aware = m.seen_version == self.seen_version;
            let sets = (&m.wanted, &m.owned, &m.target, &m.home);
            (named(*key), is_aware, sets, &m.lost, m.is_to_look)
        });
        let mut members: Vec<_> = members.collect();
        members.sort_by_key(|(name, ..)| *name);
        format!("{members:?} {:?} {:?} {}", self.topics, self.remembered, self.is_unassigned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::universe::IsInternal;

    fn topic(name: &str, id: u8) -> (GroupTopic, IsInternal) {
        let (name, id) = (TopicName::new(name).unwrap(), TopicId::from_random([id; 16]).unwrap());
        (GroupTopic { name, id, partition_count: 1 }, IsInternal::No)
    }

    fn universe(version: u64, topics: Vec<(GroupTopic, IsInternal)>) -> Universe {
        Universe { version, topics }
    }

    fn joined(state: &mut GroupState) -> MemberKey {
        let subscription = Arc::new(Subscription::matching(|_| true));
        let (instance_id, client_id) = (None, "".into());
        state.join(NewMember { id: "m".into(), instance_id, client_id, subscription })
    }

    fn show(state: &mut GroupState, universe: &Universe) {
        let unaware = state.unaware(universe.version).into_iter();
        let wanted = unaware.map(|(key, subscription)| {
            let indexes = universe.wanted_by(&subscription);
            Wanted { key, subscription, indexes }
        });
        let wanted: Vec<Wanted> = wanted.collect();
        state.see(universe, &wanted);
        while let Some(question) = state.question() {
            let answer = question.ask(crate::coordinator::assignors::uniform);
            state.adopt(&question, &answer);
        }
    }

    #[test]
    fn a_subscription_that_changes_while_it_is_looked_at_is_looked_at_again() {
        // What a member had wanted was noted as what it wants, and as seen: its new subscription never took effect.
        let mut state = GroupState::default();
        let key = joined(&mut state);
        let universe = universe(1, vec![topic("t", 1)]);
        let (key_seen, subscription) = state.unaware(1).remove(0);
        assert_eq!(key_seen, key);
        assert!(state.resubscribe(key, Arc::new(Subscription::matching(|_| false))));
        state.see(&universe, &[Wanted { key, subscription, indexes: vec![0] }]);
        assert_eq!(state.unaware(1).len(), 1);
        show(&mut state, &universe);
        assert!(state.wanted_by(state.member(key).unwrap()).is_empty());
    }

    #[test]
    fn what_was_planned_of_a_topic_is_not_taken_of_the_one_in_its_place() {
        // A topic's number is used again. A member that had planned to take a partition of the old one got that of
        // the new one, and looked for the old one in vain: the new one was read by nobody.
        let mut state = GroupState::default();
        let key = joined(&mut state);
        show(&mut state, &universe(1, vec![topic("t", 1)]));
        let plan = state.plan(key).unwrap();
        show(&mut state, &universe(2, vec![topic("u", 2)]));
        assert!(state.take(key, &plan.take).is_empty());
        let plan = state.plan(key).unwrap();
        assert_eq!(state.take(key, &plan.take).len(), 1);
    }

    #[test]
    fn what_is_lost_while_a_member_is_told_is_told_next() {
        // All losses were struck out once some were told: a later one was never heard of, and every poll said that
        // its topic is deleted.
        let mut state = GroupState::default();
        let key = joined(&mut state);
        show(&mut state, &universe(1, vec![topic("t", 1), topic("u", 2)]));
        let plan = state.plan(key).unwrap();
        assert_eq!(state.take(key, &plan.take).len(), 2);
        show(&mut state, &universe(2, vec![topic("u", 2)]));
        let told = state.plan(key).unwrap().lost;
        assert_eq!(told.len(), 1);
        show(&mut state, &universe(3, Vec::new()));
        state.acknowledge_lost(key, &told);
        let next = state.plan(key).unwrap().lost;
        assert_eq!((next.len(), next[0].topic.as_str()), (1, "u"));
        assert_eq!(state.with_work(), [key]);
    }
}
