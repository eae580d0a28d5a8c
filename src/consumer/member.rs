//! A consumer as a member of a group: it joins, lets go, takes, and leaves.
//!
//! All of it happens on the consumer's own thread, within a poll or what ends the consumer, in Kafka's order: what
//! goes is committed if the consumer commits by itself, then the application is told, then it goes; what comes is
//! taken, then the application is told. The application's functions run under no lock.
//!
//! **Invariant (kept until done).** A partition is let go of only when the application has done with it: when the
//! function that it gave for the purpose has returned, or, if it gave none, when it has dropped all records of it.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Instant;

use crate::assignment::Start;
use crate::consumer::Assigned;
use crate::consumer::Consumer;
use crate::consumer::Rebalance;
use crate::consumer::member_id;
use crate::consumer::membership::Ending;
use crate::consumer::membership::Joined;
use crate::coordinator::Coordinator;
use crate::coordinator::assignors::Place;
use crate::coordinator::group::Commit;
use crate::coordinator::group::Group;
use crate::coordinator::group_state::GroupPartition;
use crate::coordinator::group_state::MemberKey;
use crate::coordinator::group_state::NewMember;
use crate::coordinator::signal::Signal;
use crate::coordinator::subscription::Subscription;
use crate::error::Error;
use crate::error::Result;
use crate::handed_out::HandedOut;
use crate::partition::Partition;
use crate::partition::fetch::Cursor;
use crate::topic::TopicPartition;
use crate::topic_state::TopicState;

impl Consumer {
    /// Reads topics as a member of the group, instead of what was read before.
    ///
    /// The group must have been named by [`ConsumerBuilder::group`](crate::ConsumerBuilder::group) or
    /// [`ConsumerBuilder::subscribe`](crate::ConsumerBuilder::subscribe). A member that subscribes to other topics
    /// keeps what it has of those that it goes on to want; what is to go, goes with the next poll.
    ///
    /// # Errors
    ///
    /// * As [`ConsumerBuilder::subscribe`](crate::ConsumerBuilder::subscribe); a member has left by it.
    pub fn subscribe(&mut self, topics: impl Into<Subscription>) -> Result<()> {
        let subscription = topics.into();
        let membership = self.membership.as_mut().ok_or(Error::NoGroup)?;
        if subscription.is_empty() {
            return self.unsubscribe();
        }
        let subscription = Arc::new(subscription);
        if membership.joined.is_none() {
            membership.subscription = None;
            self.assign(std::iter::empty::<TopicPartition>())?;
        }
        // Planned before anybody joins: a subscription that fails leaves no trace of a group that there was not.
        let fixed = self.plan_start(&subscription).and_then(|begins| {
            self.enter(subscription)?;
            self.fix_start(&begins)
        });
        if fixed.is_err() {
            // The first error is what the caller is told.
            drop(self.end_membership(Ending::Orderly));
        }
        fixed
    }

    /// Joins, or has the group know that its member wants other topics.
    fn enter(&mut self, subscription: Arc<Subscription>) -> Result<()> {
        let membership = self.membership.as_mut().ok_or(Error::NoGroup)?;
        if let Some(joined) = &mut membership.joined {
            membership.subscription = Some(Arc::clone(&subscription));
            // Put out meanwhile: it joins again with the next poll.
            if membership.group.resubscribe(joined.key, subscription) {
                membership.coordinator.settle(&membership.group);
            }
            return Ok(());
        }
        self.join(&subscription)?;
        if let Some(membership) = &mut self.membership {
            membership.subscription = Some(subscription);
        }
        Ok(())
    }

    /// Leaves the group; nothing is read any more. What was dealt with is committed if the consumer commits by
    /// itself, and the application is told what goes.
    ///
    /// # Errors
    ///
    /// * As a commit, and what the application's function returned. The consumer has left in any case.
    pub fn unsubscribe(&mut self) -> Result<()> {
        self.put_back_buffer();
        self.end_membership(Ending::Orderly)
    }

    /// Ends the consumer: commits what was dealt with, if it commits by itself or on close, tells the application
    /// what goes, and leaves the group, which shares out its partitions at once.
    ///
    /// Dropping does the same, but cannot report errors; and if the thread is unwinding it only leaves.
    ///
    /// # Errors
    ///
    /// * As a commit, and what the application's function returned. The consumer has left in any case.
    pub fn close(mut self) -> Result<()> {
        self.unsubscribe()
    }

    /// Gives the id of this member, which is new for each; `None` if it is no member.
    pub fn member_id(&self) -> Option<&str> {
        Some(&self.membership.as_ref()?.joined.as_ref()?.id)
    }

    /// Gives the group, if one was named.
    pub fn group_id(&self) -> Option<&str> {
        self.membership.as_ref().map(|membership| &**membership.group.id())
    }

    /// Gives the generation of the assignment that this member has; −1 if it is no member or has none yet.
    pub fn generation(&self) -> i32 {
        let joined = self.membership.as_ref().and_then(|membership| membership.joined.as_ref());
        joined.map_or(-1, |joined| joined.generation)
    }

    fn join(&mut self, subscription: &Arc<Subscription>) -> Result<()> {
        let bell = Arc::clone(&self.bell);
        let membership = self.membership.as_mut().ok_or(Error::NoGroup)?;
        let coordinator = &membership.coordinator;
        coordinator.topics().refuse_writing("join a group")?;
        let settings = &membership.settings;
        settings.check()?;
        let signal = Arc::new(Signal::new(Arc::clone(&bell), Arc::clone(&membership.polls)));
        let front = settings.instance_id.as_ref().unwrap_or(&settings.client_id);
        let id: Arc<str> = member_id::new(front).into();
        let new = || NewMember {
            id: Arc::clone(&id),
            instance_id: settings.instance_id.clone(),
            client_id: Arc::clone(&settings.client_id),
            subscription: Arc::clone(subscription),
        };
        let seen_version = coordinator.topics().version();
        let group_id = Arc::clone(membership.group.id());
        membership.polls.begin_anew();
        let (group, key) = coordinator.join(&group_id, new, &settings.assignor, &signal)?;
        coordinator.topics().changing().hang(&bell);
        membership.group = group;
        membership.joined =
            Some(Joined { key, id, signal, seen_version, generation: -1, look_again: None });
        Ok(())
    }

    /// Finds out where the group begins in those topics of a subscription of which it knows nothing.
    fn plan_start(&self, subscription: &Subscription) -> Result<Vec<Beginning>> {
        // The log's start stays what it is by itself.
        if self.settings.start == Start::Earliest {
            return Ok(Vec::new());
        }
        let coordinator = &self.membership.as_ref().ok_or(Error::NoGroup)?.coordinator;
        coordinator.topics().refuse_writing("join a group")?;
        let group = coordinator.group(self.group_id().ok_or(Error::NoGroup)?)?;
        let universe = coordinator.universe();
        let mut begins = Vec::new();
        for index in universe.wanted_by(subscription) {
            let topic = &universe.topics[index].0.name;
            let Ok(state) = coordinator.topics().find(topic.as_str()) else { continue };
            if group.look(|shared| shared.offsets.knows(topic)) {
                continue;
            }
            if self.settings.start == Start::Committed {
                let (group, topic) = (group.id().to_string(), topic.to_string());
                return Err(Error::NoOffset { group, topic, partition: 0 });
            }
            let begin = |(number, log): (u32, Arc<Partition>)| {
                let mut offset = self.start_position(&log, self.settings.start)?;
                // Asked behind it: the end only grows, so what was the end is still within.
                let marks = log.watermarks();
                if !(marks.log_start()..=marks.log_end()).contains(&offset) {
                    // On record it would be where the log comes to be one day, and all before it skipped.
                    offset = self.reset_position(topic.as_str(), number, &log, offset)?;
                }
                Ok(Commit { topic: Arc::clone(&state), number, log, noted: offset.into() })
            };
            let commits = state.open_partitions().into_iter().map(begin);
            begins.push((Arc::clone(&state), commits.collect::<Result<Vec<_>>>()?));
        }
        Ok(begins)
    }

    /// Puts on record where the group begins, so that it is fixed by the subscription and not by who polls when.
    fn fix_start(&self, begins: &[Beginning]) -> Result<()> {
        let membership = self.membership.as_ref().ok_or(Error::NoGroup)?;
        let mut written = Vec::new();
        for (state, commits) in begins {
            let log = membership.coordinator.log();
            match membership.group.commit_first(log, state, commits) {
                Ok(first) => written.extend(first),
                Err(Error::TopicDeleted { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        written.into_iter().try_for_each(|written| written.wait())
    }

    /// Does what the group asks of its member, and commits by itself if it is time.
    ///
    /// # Errors
    ///
    /// * The first error of a commit, of a partition that cannot be opened, or of the application's functions; what
    ///   was to be done was done in any case.
    pub(crate) fn take_part(&mut self) -> Result<()> {
        let Some(membership) = &mut self.membership else { return Ok(()) };
        if let (None, Some(subscription)) = (&membership.joined, membership.subscription.clone()) {
            self.join(&subscription)?;
        }
        let Some(membership) = &mut self.membership else { return Ok(()) };
        if let Some(joined) = &mut membership.joined {
            let version = membership.coordinator.topics().version();
            if joined.seen_version != version {
                joined.seen_version = version;
                membership.coordinator.settle(&membership.group);
            }
            let is_leaving_done = || {
                let mut leaving = self.assigned.iter().filter(|assigned| assigned.is_leaving);
                leaving.any(|assigned| !assigned.is_in_hands())
            };
            let is_due = joined.look_again.is_some_and(|at| at <= Instant::now());
            if joined.signal.take() || is_due || is_leaving_done() {
                self.reconcile()?;
            }
        }
        self.commit_if_due()
    }

    /// Lets go of what is to go and takes what is to come, until nothing more can be done.
    fn reconcile(&mut self) -> Result<()> {
        let Some((group, coordinator, key, _remark)) = self.joined_parts() else { return Ok(()) };
        let listeners = self.listeners.clone();
        let mut first_error: Result<()> = Ok(());
        let mut note = |result: Result<()>| {
            if first_error.is_ok() {
                first_error = result;
            }
        };
        let mut key = key;
        let mut group = group;
        loop {
            let Some(plan) = group.plan(key) else {
                // Put out: what it had may be others' by now.
                let all: Vec<_> = self.assigned.iter().map(|a| (*a.source).clone()).collect();
                if !all.is_empty() {
                    note(listeners.lost(&mut Rebalance { consumer: self }, &all));
                }
                self.drop_assigned(|_| true);
                let Some(membership) = &mut self.membership else { break };
                membership.joined = None;
                // If it cannot, it tries again with every poll, and says so.
                if let Some(subscription) = membership.subscription.clone() {
                    self.join(&subscription)?;
                }
                let Some(parts) = self.joined_parts() else { break };
                (group, _, key, _) = parts;
                continue;
            };
            if let Some(joined) = self.membership.as_mut().and_then(|m| m.joined.as_mut()) {
                joined.generation = plan.generation;
            }
            if !plan.lost.is_empty() {
                let lost = self.handles_of(&plan.lost);
                if !lost.is_empty() {
                    note(listeners.lost(&mut Rebalance { consumer: self }, &lost));
                }
                self.drop_assigned(|assigned| lost.contains(&assigned.source));
                group.acknowledge_lost(key, &plan.lost);
                continue;
            }
            for assigned in &mut self.assigned {
                assigned.is_leaving = assigned.place.is_some_and(|place| {
                    plan.revoke.iter().any(|partition| partition.place == place)
                });
            }
            let ready: Vec<GroupPartition> = plan
                .revoke
                .into_iter()
                .filter(|partition| listeners.hears_revoked() || !self.is_in_hands(partition.place))
                .collect();
            if !ready.is_empty() {
                let going = self.handles_of(&ready);
                if self.membership.as_ref().is_some_and(|m| m.settings.auto_commit.is_some()) {
                    note(self.commit_finished(|assigned| going.contains(&assigned.source)));
                }
                if !going.is_empty() {
                    note(listeners.revoked(&mut Rebalance { consumer: self }, &going));
                }
                let places: Vec<Place> = ready.iter().map(|partition| partition.place).collect();
                self.drop_assigned(|a| a.place.is_some_and(|place| places.contains(&place)));
                if group.release(key, &places) {
                    coordinator.settle(&group);
                } else {
                    group.ring_those_with_work();
                }
                continue;
            }
            if plan.take.is_empty() {
                break;
            }
            let taken = group.take(key, &plan.take);
            let mut come = Vec::with_capacity(taken.len());
            for partition in &taken {
                match self.begin(&group, partition) {
                    Ok(handle) => come.extend(handle),
                    Err(error) => note(Err(error)),
                }
            }
            if !come.is_empty() {
                note(listeners.assigned(&mut Rebalance { consumer: self }, &come));
            }
        }
        coordinator.record(&group);
        self.look_for_the_silent(&group, &coordinator, key);
        first_error
    }

    /// Sees to it that a member which holds what this one waits for, and does not poll, is put out in time.
    fn look_for_the_silent(&mut self, group: &Group, coordinator: &Coordinator, key: MemberKey) {
        let (has_put_out, next) = group.put_out_the_silent(key);
        if has_put_out {
            coordinator.settle(group);
        }
        if let Some(joined) = self.membership.as_mut().and_then(|m| m.joined.as_mut()) {
            joined.look_again = next.and_then(|next| Instant::now().checked_add(next));
        }
    }

    /// Begins to read a partition that the group gave: where it stopped, or at the partition's start. `None` if its
    /// topic is gone, which the group is about to say.
    fn begin(
        &mut self,
        group: &Group,
        partition: &GroupPartition,
    ) -> Result<Option<TopicPartition>> {
        let topics = Arc::clone(&self.topics);
        // One of the same name that came after it is another topic, and may be another member's.
        let state = match topics.find(partition.topic.as_str()) {
            Ok(state) if state.id == partition.id => state,
            Ok(_) | Err(Error::UnknownTopic { .. }) => return Ok(None),
            Err(other) => return Err(other),
        };
        let number = partition.place.number;
        let source = TopicPartition::new(state, topics, Arc::clone(&self.keep_open), number);
        let open = match source.open() {
            Err(Error::TopicDeleted { .. }) => return Ok(None),
            opened => opened?,
        };
        let committed = group.committed(&partition.topic, number);
        let start = open.watermarks().log_start();
        let position = committed.as_ref().map_or(start, |noted| noted.offset());
        open.doorbells().hang(&self.bell);
        self.assigned.push(Assigned {
            source: Arc::new(source.clone()),
            open,
            cursor: Cursor::at(position),
            is_paused: false,
            is_leaving: false,
            place: Some(partition.place),
            handed_out: Some(Arc::new(HandedOut::new(Arc::clone(&self.bell)))),
        });
        if committed.is_none() && self.settings.start == Start::Committed {
            let (group, topic) = (group.id().to_string(), partition.topic.to_string());
            return Err(Error::NoOffset { group, topic, partition: number });
        }
        Ok(Some(source))
    }

    /// Leaves the group.
    pub(crate) fn end_membership(&mut self, ending: Ending) -> Result<()> {
        if let Some(membership) = &mut self.membership {
            membership.subscription = None;
        }
        let Some((group, coordinator, key, _)) = self.joined_parts() else {
            if self.membership.is_some() {
                self.topics.changing().take_down(&self.bell);
                let committed = self.commit_at_the_end(ending);
                self.drop_assigned(|_| true);
                return committed;
            }
            return Ok(());
        };
        let mut first_error = self.commit_at_the_end(ending);
        let going: Vec<_> = self.assigned.iter().map(|a| (*a.source).clone()).collect();
        let mut panicked = None;
        if ending == Ending::Orderly && !going.is_empty() {
            let listeners = self.listeners.clone();
            let is_member = group.plan(key).is_some();
            let mut rebalance = Rebalance { consumer: self };
            let tell = || match is_member {
                true => listeners.revoked(&mut rebalance, &going),
                false => listeners.lost(&mut rebalance, &going),
            };
            match catch_unwind(AssertUnwindSafe(tell)) {
                Ok(told) => first_error = first_error.and(told),
                // It leaves all the same: its partitions would be nobody's for ever.
                Err(panic) => panicked = Some(panic),
            }
        }
        self.topics.changing().take_down(&self.bell);
        self.drop_assigned(|_| true);
        if let Some(membership) = &mut self.membership {
            membership.joined = None;
        }
        group.leave(key);
        coordinator.settle(&group);
        if let Some(panic) = panicked {
            resume_unwind(panic);
        }
        first_error
    }

    fn commit_at_the_end(&mut self, ending: Ending) -> Result<()> {
        let Some(membership) = &self.membership else { return Ok(()) };
        let settings = &membership.settings;
        let commits = settings.auto_commit.is_some() || settings.commits_on_close;
        if ending == Ending::Unwinding || !commits || self.assigned.is_empty() {
            return Ok(());
        }
        self.commit_finished(|_| true)
    }

    /// Commits by itself what was dealt with, if it is time.
    fn commit_if_due(&mut self) -> Result<()> {
        let Some(membership) = &mut self.membership else { return Ok(()) };
        let (Some(due), Some(every)) = (membership.commit_due, membership.settings.auto_commit)
        else {
            return Ok(());
        };
        let now = Instant::now();
        if now < due {
            return Ok(());
        }
        membership.commit_due = now.checked_add(every);
        self.commit_durable_finished()
    }

    fn joined_parts(&self) -> Option<(Arc<Group>, Arc<Coordinator>, MemberKey, MarkAtEnd)> {
        let membership = self.membership.as_ref()?;
        let joined = membership.joined.as_ref()?;
        let (group, coordinator) =
            (Arc::clone(&membership.group), Arc::clone(&membership.coordinator));
        Some((group, coordinator, joined.key, MarkAtEnd(Arc::clone(&joined.signal))))
    }

    /// Gives the handles of those partitions that are being read.
    fn handles_of(&self, partitions: &[GroupPartition]) -> Vec<TopicPartition> {
        let is_one = |assigned: &&Assigned| {
            partitions.iter().any(|partition| assigned.place == Some(partition.place))
        };
        self.assigned.iter().filter(is_one).map(|a| (*a.source).clone()).collect()
    }

    fn is_in_hands(&self, place: Place) -> bool {
        let assigned = self.assigned.iter().find(|assigned| assigned.place == Some(place));
        assigned.is_some_and(Assigned::is_in_hands)
    }

    /// Stops reading partitions.
    fn drop_assigned(&mut self, is_meant: impl Fn(&Assigned) -> bool) {
        let bell = Arc::clone(&self.bell);
        let buffer = &mut self.buffer;
        self.assigned.retain(|assigned| {
            if !is_meant(assigned) {
                return true;
            }
            assigned.open.doorbells().take_down(&bell);
            buffer.retain(|message| *message.topic_partition() != *assigned.source);
            false
        });
        self.next = 0;
    }
}

/// A topic of which a group knows nothing, and where it begins in each of its partitions.
type Beginning = (Arc<TopicState>, Vec<Commit>);

/// Marks the member again if the application's function unwinds: what was to be done is not.
struct MarkAtEnd(Arc<Signal>);

impl Drop for MarkAtEnd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.mark();
        }
    }
}
