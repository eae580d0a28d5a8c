//! One group, shared by its members: their state behind a lock, what they committed, whom to ring.
//!
//! Members call in from their own threads; there is no thread of the group's. Whoever changes something also has
//! it assigned anew and rings those who have something to do.
//!
//! **Invariant (told).** A member that has something to do is marked and rung: marking comes behind the change,
//! and a member takes its mark off before it looks. So a member that goes to sleep unmarked has nothing to do.
//!
//! **Invariant (one order).** What is on record of a group stands in memory in the order of the log: both are
//! written under [`Group::papers`].
//!
//! **Invariant (never ahead).** A commit is appended only after everything below its offset is durable. So no
//! power cut leaves a group behind records that are gone, whose offsets others will get.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::coordinator::assignor::Assignor;
use crate::coordinator::assignors::Place;
use crate::coordinator::committed::Committed;
use crate::coordinator::committed::OffsetAndMetadata;
use crate::coordinator::committed::Offsets;
use crate::coordinator::group_state::GroupPartition;
use crate::coordinator::group_state::GroupState;
use crate::coordinator::group_state::MemberKey;
use crate::coordinator::group_state::NewMember;
use crate::coordinator::group_state::Plan;
use crate::coordinator::group_state::Wanted;
use crate::coordinator::offsets_log::Entry;
use crate::coordinator::offsets_log::OffsetsLog;
use crate::coordinator::offsets_log::Written;
use crate::coordinator::papers;
use crate::coordinator::signal::Signal;
use crate::coordinator::subscription::Subscription;
use crate::coordinator::universe::Universe;
use crate::error::Error;
use crate::error::Result;
use crate::format::group_records::GroupValue;
use crate::name::TopicName;
use crate::partition::Partition;
use crate::schedules::between_steps;
use crate::topic_state::TopicState;

/// One group.
#[derive(Debug)]
pub(crate) struct Group {
    id: Arc<str>,
    /// Held while something is put on record, the append included, and no sync but that of a full segment.
    /// Lock rank 1.
    papers: Mutex<Papers>,
    /// Lock rank 2: held for one step of [`GroupState`], or one look.
    shared: Mutex<Shared>,
}

#[derive(Debug, Default)]
struct Papers {
    /// The generation whose members are on record.
    recorded: Option<i32>,
}

/// What the members of a group share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) state: GroupState,
    pub(crate) assignor: Option<Assignor>,
    pub(crate) offsets: Offsets,
    signals: HashMap<MemberKey, Arc<Signal>>,
    /// The last commit, which may not be durable yet.
    last_written: Option<Written>,
    /// It was deleted, or is being: who finds it so makes a new one.
    is_gone: bool,
    /// Since when it has been as it is, for the record.
    pub(crate) since_ms: i64,
    /// Its members as they were put on record by an earlier life, or by another process.
    pub(crate) on_record: Option<GroupValue>,
}

/// Who commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committer {
    Member(MemberKey),
    /// One who was a member, and could not become one again.
    PutOut,
    /// One who is no member: allowed while there are none.
    Outsider,
}

/// One commit to be made.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    pub(crate) topic: Arc<TopicState>,
    pub(crate) number: u32,
    pub(crate) log: Arc<Partition>,
    pub(crate) noted: OffsetAndMetadata,
}

impl Group {
    pub(crate) fn new(id: Arc<str>, shared: Shared) -> Group {
        Group { id, papers: Mutex::default(), shared: Mutex::new(shared) }
    }

    pub(crate) fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Looks at the state.
    pub(crate) fn look<Seen>(&self, look: impl FnOnce(&Shared) -> Seen) -> Seen {
        look(&self.shared.lock())
    }

    /// Takes a member in; `None` if the group was deleted meanwhile.
    ///
    /// # Errors
    ///
    /// * [`Error::InstanceInUse`], [`Error::InconsistentAssignor`]: the group is as it was.
    pub(crate) fn join(
        &self,
        new: NewMember,
        assignor: &Assignor,
        signal: &Arc<Signal>,
    ) -> Result<Option<MemberKey>> {
        between_steps();
        let mut shared = self.shared.lock();
        if shared.is_gone {
            return Ok(None);
        }
        if let Some(wanted) = &new.instance_id {
            if shared.state.members().any(|(_, m)| m.instance_id.as_ref() == Some(wanted)) {
                let (group, instance) = (self.id.to_string(), wanted.to_string());
                return Err(Error::InstanceInUse { group, instance });
            }
        }
        match &shared.assignor {
            Some(used) if !shared.state.is_empty() && !used.is_same_as(assignor) => {
                let (group, used) = (self.id.to_string(), used.name().to_owned());
                let asked = assignor.name().to_owned();
                return Err(Error::InconsistentAssignor { group, used, asked });
            }
            _ => shared.assignor = Some(assignor.clone()),
        }
        let key = shared.state.join(new);
        shared.signals.insert(key, Arc::clone(signal));
        Ok(Some(key))
    }

    /// Lets a member want other topics.
    pub(crate) fn resubscribe(&self, key: MemberKey, subscription: Arc<Subscription>) -> bool {
        between_steps();
        self.shared.lock().state.resubscribe(key, subscription)
    }

    /// Takes a member out and frees what it held; what is to follow is up to [`settle`](Self::settle).
    pub(crate) fn leave(&self, key: MemberKey) {
        between_steps();
        let mut shared = self.shared.lock();
        let signal = shared.signals.remove(&key);
        shared.state.leave(key);
        drop(shared);
        drop(signal);
    }

    /// Shows the group the topics there are, has it assigned what is not, and rings those who have something
    /// to do. Regular expressions, functions and assignors run without a lock.
    pub(crate) fn settle(&self, universe: impl Fn() -> Arc<Universe>) {
        loop {
            let universe = universe();
            between_steps();
            let unaware = self.shared.lock().state.unaware(universe.version);
            if !unaware.is_empty() {
                let wanted: Vec<Wanted> = unaware
                    .into_iter()
                    .map(|(key, subscription)| {
                        let indexes = universe.wanted_by(&subscription);
                        Wanted { key, subscription, indexes }
                    })
                    .collect();
                between_steps();
                // There may be more to show by now, or others to show it to.
                self.shared.lock().state.see(&universe, &wanted);
                continue;
            }
            between_steps();
            let (question, assignor) = {
                let shared = self.shared.lock();
                (shared.state.question(), shared.assignor.clone().unwrap_or_default())
            };
            let Some(question) = question else { break };
            let answer = assignor.answer(&question);
            between_steps();
            // If the group has changed meanwhile, or something is to be given in a second round, there is more to ask.
            self.shared.lock().state.adopt(&question, &answer);
        }
        self.ring_those_with_work();
    }

    /// Says what a member has to do; `None` if it is no member any more.
    pub(crate) fn plan(&self, key: MemberKey) -> Option<Plan> {
        between_steps();
        self.shared.lock().state.plan(key)
    }

    /// Frees what a member lets go of. True if it is now to be assigned anew.
    pub(crate) fn release(&self, key: MemberKey, places: &[Place]) -> bool {
        between_steps();
        let mut shared = self.shared.lock();
        shared.state.release(key, places);
        shared.state.is_unassigned()
    }

    /// Gives a member what it is to have and nobody holds.
    pub(crate) fn take(&self, key: MemberKey, wanted: &[GroupPartition]) -> Vec<GroupPartition> {
        between_steps();
        self.shared.lock().state.take(key, wanted)
    }

    /// Notes that a member was told what it lost.
    pub(crate) fn acknowledge_lost(&self, key: MemberKey, told: &[GroupPartition]) {
        between_steps();
        self.shared.lock().state.acknowledge_lost(key, told);
    }

    /// Rings every member that has something to do and was not rung for it.
    pub(crate) fn ring_those_with_work(&self) {
        between_steps();
        let shared = self.shared.lock();
        let keys = shared.state.with_work();
        let signals = keys.iter().filter_map(|key| shared.signals.get(key));
        let rung: Vec<_> = signals.filter(|signal| signal.mark()).cloned().collect();
        drop(shared);
        for signal in rung {
            between_steps();
            // It may have a task's waker, which is the user's code.
            signal.ring();
        }
    }

    /// Puts out members that hold what another is waiting for and have not polled for longer than they may. Says
    /// when to look again, if somebody may come to be put out.
    pub(crate) fn put_out_the_silent(&self, waiting: MemberKey) -> (bool, Option<Duration>) {
        between_steps();
        let mut shared = self.shared.lock();
        let Some(member) = shared.state.member(waiting) else { return (false, None) };
        if !member.has_work_left() {
            return (false, None);
        }
        let left = |signal: &Arc<Signal>| signal.patience_left();
        let silent: Vec<(MemberKey, Duration)> = shared
            .state
            .members()
            .filter(|(key, member)| *key != waiting && member.has_work_left())
            .filter_map(|(key, _)| Some((key, left(shared.signals.get(&key)?)?)))
            .collect();
        let mut put_out = Vec::new();
        let mut next = None;
        for (key, left) in silent {
            if left.is_zero() {
                put_out.extend(shared.signals.remove(&key));
                shared.state.leave(key);
            } else {
                next = Some(next.map_or(left, |next: Duration| next.min(left)));
            }
        }
        drop(shared);
        let has_put_out = !put_out.is_empty();
        tell(put_out);
        (has_put_out, next)
    }

    /// Takes members out at somebody's request; gives how many there were.
    pub(crate) fn put_out(&self, is_meant: impl Fn(&str, Option<&str>) -> bool) -> usize {
        between_steps();
        let mut shared = self.shared.lock();
        let meant: Vec<MemberKey> = shared
            .state
            .members()
            .filter(|(_, member)| is_meant(&member.id, member.instance_id.as_deref()))
            .map(|(key, _)| key)
            .collect();
        let mut signals = Vec::new();
        for key in &meant {
            signals.extend(shared.signals.remove(key));
            shared.state.leave(*key);
        }
        drop(shared);
        tell(signals);
        meant.len()
    }

    /// Gives what is on record of a partition.
    pub(crate) fn committed(&self, topic: &TopicName, number: u32) -> Option<OffsetAndMetadata> {
        let shared = self.shared.lock();
        shared.offsets.get(topic, number).map(|committed| committed.noted.clone())
    }

    /// Puts commits on record, in one batch. They are visible on return, and durable once what is returned was
    /// waited for.
    ///
    /// Blocks until everything below the commits is durable: see the invariant (never ahead).
    ///
    /// # Errors
    ///
    /// Nothing was committed in any of these cases.
    ///
    /// * [`Error::CommitRefused`] if the committer does not hold a partition, or is no member where there are some.
    /// * [`Error::TopicDeleted`] if a topic is deleted, or being deleted.
    /// * [`Error::Latched`] if a partition cannot be made durable; and as an append.
    pub(crate) fn commit(
        &self,
        log: &Arc<OffsetsLog>,
        by: Committer,
        commits: &[Commit],
    ) -> Result<Option<Written>> {
        commits.iter().try_for_each(|commit| commit.noted.check())?;
        self.refuse_unless_theirs(by, commits)?;
        if commits.is_empty() {
            return Ok(None);
        }
        make_durable_below(commits)?;
        let mut papers = self.papers.lock();
        // Asked again under the lock under which groups are deleted, and made to forget topics that are.
        self.refuse_unless_theirs(by, commits)?;
        self.put_on_record(&mut papers, log, commits).map(Some)
    }

    /// As [`commit`](Self::commit) by an outsider, for those of a topic's partitions of which the group knows
    /// nothing; by whoever comes first, and for none if it knows one of the topic.
    pub(crate) fn commit_first(
        &self,
        log: &Arc<OffsetsLog>,
        topic: &TopicState,
        commits: &[Commit],
    ) -> Result<Option<Written>> {
        make_durable_below(commits)?;
        let mut papers = self.papers.lock();
        topic.refuse_if_going()?;
        let is_late = |shared: &Shared| shared.is_gone || shared.offsets.knows(&topic.name);
        if commits.is_empty() || is_late(&self.shared.lock()) {
            return Ok(None);
        }
        self.put_on_record(&mut papers, log, commits).map(Some)
    }

    /// Takes entries off the record.
    ///
    /// # Errors
    ///
    /// * As an append; nothing was removed.
    pub(crate) fn remove_offsets(
        &self,
        log: &Arc<OffsetsLog>,
        is_meant: impl Fn(&TopicName, u32) -> bool,
    ) -> Result<Option<Written>> {
        let _papers = self.papers.lock();
        let meant = self.on_record(is_meant);
        if meant.is_empty() {
            return Ok(None);
        }
        let entries = meant.iter().map(|(t, n)| Entry::removal(&self.id, t, *n)).collect();
        let written = log.append(&self.id, entries)?;
        let mut shared = self.shared.lock();
        for (topic, number) in &meant {
            shared.offsets.remove(topic, *number);
        }
        Ok(Some(written))
    }

    /// Deletes an empty group: everything of it is taken off the record.
    ///
    /// # Errors
    ///
    /// * [`Error::GroupNotEmpty`]; as an append. Nothing was removed.
    pub(crate) fn delete(&self, log: &Arc<OffsetsLog>) -> Result<Written> {
        let _papers = self.papers.lock();
        let refuse_if_in_use = |shared: &Shared| match shared.state.is_empty() {
            true => Ok(()),
            false => Err(Error::GroupNotEmpty { group: self.id.to_string() }),
        };
        refuse_if_in_use(&self.shared.lock())?;
        let meant = self.on_record(|_, _| true);
        let removals = meant.iter().map(|(t, n)| Entry::removal(&self.id, t, *n));
        let entries = removals.chain([Entry::group_removal(&self.id)]).collect();
        let mut shared = self.shared.lock();
        refuse_if_in_use(&shared)?;
        // From here on nobody joins; whoever held the group makes a new one.
        shared.is_gone = true;
        drop(shared);
        let written = log.append(&self.id, entries).inspect_err(|_| {
            self.shared.lock().is_gone = false;
        })?;
        self.shared.lock().offsets = Offsets::default();
        Ok(written)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.shared.lock().is_gone
    }

    /// Tells whether it was deleted, once a deletion that is under way has ended: what a new group puts on record
    /// must not be wiped out by it.
    pub(crate) fn is_gone_for_good(&self) -> bool {
        self.is_gone() && {
            let _papers = self.papers.lock();
            self.is_gone()
        }
    }

    /// Gives the last commit, for those who wait until it is durable, whoever made it.
    pub(crate) fn last_written(&self) -> Option<Written> {
        self.shared.lock().last_written.clone()
    }

    /// Puts members and assignment on record, if the group has come to rest in a way that is not there yet.
    ///
    /// # Errors
    ///
    /// * As an append: the record is behind, which costs static members their place after a restart.
    pub(crate) fn record_members(&self, log: &Arc<OffsetsLog>) -> Result<()> {
        let mut papers = self.papers.lock();
        let (generation, value) = {
            let mut shared = self.shared.lock();
            let generation = shared.state.generation();
            // A group that never had a member leaves no paper but what it commits.
            let is_news = papers.recorded != Some(generation) && generation > 0;
            if !is_news || shared.is_gone || !shared.state.is_at_rest() {
                return Ok(());
            }
            shared.since_ms = log.now_ms();
            let value = papers::encode(&shared.state, shared.assignor.as_ref(), shared.since_ms);
            (generation, value)
        };
        drop(log.append(&self.id, vec![Entry::group(&self.id, value)])?);
        papers.recorded = Some(generation);
        Ok(())
    }

    fn on_record(&self, is_meant: impl Fn(&TopicName, u32) -> bool) -> Vec<(TopicName, u32)> {
        let shared = self.shared.lock();
        let known = shared.offsets.iter().filter(|(topic, number, _)| is_meant(topic, *number));
        known.map(|(topic, number, _)| (topic.clone(), number)).collect()
    }

    fn refuse_unless_theirs(&self, by: Committer, commits: &[Commit]) -> Result<()> {
        let shared = self.shared.lock();
        let refuse = |commit: &Commit, reason| {
            let (topic, partition) = (commit.topic.name.to_string(), commit.number);
            Err(Error::CommitRefused { group: self.id.to_string(), topic, partition, reason })
        };
        let Some(first) = commits.first() else { return Ok(()) };
        commits.iter().try_for_each(|commit| commit.topic.refuse_if_going())?;
        match by {
            _ if shared.is_gone => refuse(first, "the group was deleted"),
            Committer::Outsider if !shared.state.is_empty() => {
                refuse(first, "the group has members, and the commit is not by one of them")
            }
            Committer::Outsider => Ok(()),
            Committer::Member(key) if shared.state.member(key).is_some() => {
                let is_theirs = |c: &&Commit| !shared.state.holds(key, &c.topic.name, c.number);
                match commits.iter().find(is_theirs) {
                    Some(other) => refuse(other, "the partition is not the consumer's"),
                    None => Ok(()),
                }
            }
            Committer::Member(_) | Committer::PutOut => {
                refuse(first, "the consumer is no member of the group any more")
            }
        }
    }

    fn put_on_record(
        &self,
        _papers: &mut Papers,
        log: &Arc<OffsetsLog>,
        commits: &[Commit],
    ) -> Result<Written> {
        let timestamp_ms = log.now_ms();
        let entry =
            |c: &Commit| Entry::offset(&self.id, &c.topic.name, c.number, &c.noted, timestamp_ms);
        let written = log.append(&self.id, commits.iter().map(entry).collect())?;
        let mut shared = self.shared.lock();
        for commit in commits {
            let committed = Committed { noted: commit.noted.clone(), timestamp_ms };
            shared.offsets.set(commit.topic.name.clone(), commit.number, committed);
        }
        shared.last_written = Some(written.clone());
        Ok(written)
    }
}

/// Tells members that they are none any more; one that polls at this moment may be about to sleep.
fn tell(put_out: Vec<Arc<Signal>>) {
    for signal in put_out {
        between_steps();
        signal.mark();
        signal.ring();
    }
}

/// Has everything below the commits made durable; the syncs overlap.
fn make_durable_below(commits: &[Commit]) -> Result<()> {
    #[cfg(test)]
    if crate::coordinator::power::is_careless() {
        return Ok(());
    }
    let is_behind = |commit: &&Commit| {
        let marks = commit.log.watermarks();
        marks.durable_end() < commit.noted.offset().min(marks.log_end())
    };
    let behind: Vec<&Commit> = commits.iter().filter(is_behind).collect();
    behind.iter().skip(1).for_each(|commit| commit.log.hasten());
    for commit in behind {
        let end = commit.noted.offset().min(commit.log.watermarks().log_end());
        commit.log.wait_durable(end)?;
    }
    Ok(())
}
