//! Who may do what: groups, their members and what they committed, in one process and without heartbeats.
//!
//! A member is alive as long as its consumer is. The coordinator has no thread; its papers lie in the internal topic
//! `__consumer_offsets`, in Kafka's formats, and are read when a group is asked for first.

#[cfg(test)]
mod all_orders;
pub(crate) mod assignor;
pub(crate) mod assignors;
pub(crate) mod committed;
#[cfg(test)]
mod crash;
pub(crate) mod group;
pub(crate) mod group_state;
#[cfg(test)]
pub(crate) mod hand_over;
pub(crate) mod load;
pub(crate) mod offsets_log;
pub(crate) mod papers;
#[cfg(test)]
pub(crate) mod power;
pub(crate) mod signal;
pub(crate) mod subscription;
pub(crate) mod universe;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;

use crate::coordinator::assignor::Assignor;
use crate::coordinator::committed::Offsets;
use crate::coordinator::group::Group;
use crate::coordinator::group::Shared;
use crate::coordinator::group_state::MemberKey;
use crate::coordinator::group_state::NewMember;
use crate::coordinator::load::LoadedGroup;
use crate::coordinator::offsets_log::OffsetsLog;
use crate::coordinator::signal::Signal;
use crate::coordinator::universe::GroupTopic;
use crate::coordinator::universe::IsInternal;
use crate::coordinator::universe::Universe;
use crate::error::Error;
use crate::error::Result;
use crate::name::TopicName;
use crate::topics::Topics;

/// The groups of one open directory.
#[derive(Debug)]
pub(crate) struct Coordinator {
    topics: Arc<Topics>,
    log: Arc<OffsetsLog>,
    /// `None` until the papers were read. Lock rank 1: held while they are, and for one look or entry.
    groups: Mutex<Option<HashMap<Arc<str>, Arc<Group>>>>,
    /// The topics as they were seen last. Lock rank 3.
    universe: Mutex<Arc<Universe>>,
    /// Set under the lock of the groups: none is found or made any more.
    is_closed: AtomicBool,
}

impl Coordinator {
    /// What groups put on record and nobody waits for is synchronised within the given time.
    pub(crate) fn new(topics: Arc<Topics>, sync_within: Duration) -> Coordinator {
        Coordinator {
            log: Arc::new(OffsetsLog::new(Arc::clone(&topics), sync_within)),
            topics,
            groups: Mutex::new(None),
            universe: Mutex::default(),
            is_closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn topics(&self) -> &Arc<Topics> {
        &self.topics
    }

    pub(crate) fn log(&self) -> &Arc<OffsetsLog> {
        &self.log
    }

    /// Gives a group, a new one if there is none.
    ///
    /// # Errors
    ///
    /// * [`Error::InvalidGroup`]; whatever keeps the papers from being read, such as [`Error::Unavailable`]: a group
    ///   that is not known is not taken for a new one.
    pub(crate) fn group(&self, id: &str) -> Result<Arc<Group>> {
        check_group_id(id)?;
        self.log.refuse_if_unreadable(id)?;
        self.with_groups(|groups| {
            if let Some(known) = groups.get(id).filter(|known| !known.is_gone_for_good()) {
                return Arc::clone(known);
            }
            let id: Arc<str> = id.into();
            let since_ms = self.topics.clock().now_ms();
            let mut shared = Shared::default();
            shared.since_ms = since_ms;
            let group = Arc::new(Group::new(Arc::clone(&id), shared));
            groups.insert(id, Arc::clone(&group));
            group
        })
    }

    /// Finds a group that has something on record, or members.
    ///
    /// # Errors
    ///
    /// * [`Error::UnknownGroup`]; whatever keeps the papers from being read.
    pub(crate) fn find(&self, id: &str) -> Result<Arc<Group>> {
        check_group_id(id)?;
        self.log.refuse_if_unreadable(id)?;
        let found = self.with_groups(|groups| groups.get(id).cloned())?;
        let found = found.filter(|group| is_something(group));
        found.ok_or_else(|| Error::UnknownGroup { group: id.to_owned() })
    }

    /// Lists the groups that have something on record, or members, by id.
    ///
    /// # Errors
    ///
    /// * Whatever keeps the papers from being read.
    pub(crate) fn all(&self) -> Result<Vec<Arc<Group>>> {
        let all = self.with_groups(|groups| groups.values().cloned().collect::<Vec<_>>())?;
        let mut all: Vec<_> = all.into_iter().filter(|group| is_something(group)).collect();
        all.sort_by(|a, b| a.id().cmp(b.id()));
        Ok(all)
    }

    /// Gives what groups have committed, for those who only look: nothing is taken up, so nothing will be put on record.
    ///
    /// # Errors
    ///
    /// * Whatever keeps the papers from being read.
    pub(crate) fn committed_offsets(&self) -> Result<Vec<(Arc<str>, Offsets)>> {
        self.topics.refuse_if_closed()?;
        // What a reader beside the writer has seen may not be so any more.
        let is_writer = self.topics.refuse_writing("commit").is_ok();
        if let Some(groups) = self.groups.lock().as_ref().filter(|_| is_writer) {
            let offsets = |(id, group): (&Arc<str>, &Arc<Group>)| {
                (Arc::clone(id), group.look(|shared| shared.offsets.clone()))
            };
            return Ok(groups.iter().map(offsets).collect());
        }
        let Some(topic) = self.log.topic()? else { return Ok(Vec::new()) };
        let loaded = load::load(&topic)?;
        Ok(loaded.groups.into_iter().map(|(id, group)| (id, group.offsets)).collect())
    }

    /// Takes a member into a group, making the group if need be.
    ///
    /// # Errors
    ///
    /// * As [`Group::join`] and [`group`](Self::group).
    pub(crate) fn join(
        &self,
        id: &str,
        new: impl Fn() -> NewMember,
        assignor: &Assignor,
        signal: &Arc<Signal>,
    ) -> Result<(Arc<Group>, MemberKey)> {
        loop {
            let group = self.group(id)?;
            // Otherwise it was deleted meanwhile, and the next one is new.
            if let Some(key) = group.join(new(), assignor, signal)? {
                self.settle(&group);
                return Ok((group, key));
            }
        }
    }

    /// Has a group shown the topics there are and assigned anew, and puts it on record if it has come to rest.
    pub(crate) fn settle(&self, group: &Group) {
        group.settle(|| self.universe());
        self.record(group);
    }

    /// Puts a group's members on record if it has come to rest.
    pub(crate) fn record(&self, group: &Group) {
        if let Err(error) = group.record_members(&self.log) {
            // Nothing that was promised is lost by it, and the next time it is tried again.
            if !matches!(error, Error::Closed) {
                self.topics.note_once("putting a group's members on record", &error);
            }
        }
    }

    /// Deletes a topic, and what groups committed of it.
    ///
    /// The commits go first, and from then on there are none: a topic of the same name may follow at once, also
    /// after a power cut amid this, and no group is to begin in its midst. If the deletion fails, they begin anew.
    ///
    /// # Errors
    ///
    /// * As an append, and as [`Topics::delete`]. [`Error::Unavailable`] if there may be commits of it that cannot be
    ///   read: they would outlive it.
    pub(crate) fn delete_topic(&self, name: &str) -> Result<()> {
        let topic = self.topics.find(name)?;
        topic.set_going(true);
        let deleted = self.forget_topic(name).and_then(|()| self.topics.delete(name));
        // Refused for good if it is deleted.
        topic.set_going(false);
        deleted
    }

    /// Lets every group forget what it committed of a topic that is being deleted.
    ///
    /// # Errors
    ///
    /// * As an append; some groups may have forgotten it.
    fn forget_topic(&self, name: &str) -> Result<()> {
        if self.log.topic()?.is_none() {
            return Ok(());
        }
        self.log.refuse_if_any_is_unreadable()?;
        // All: one that has nothing yet may be about to have something.
        for group in self.with_groups(|groups| groups.values().cloned().collect::<Vec<_>>())? {
            let is_meant = |topic: &TopicName, _| topic.as_str() == name;
            let _ = group.remove_offsets(&self.log, is_meant)?;
        }
        // Not only for these: an earlier attempt may have failed in this very wait.
        self.log.wait_for_all()
    }

    /// Gives the topics as they are now.
    pub(crate) fn universe(&self) -> Arc<Universe> {
        let mut universe = self.universe.lock();
        let version = self.topics.version();
        if universe.version < version {
            // Read behind the version: it may say more than the version does, never less.
            let topics = self.topics.listed();
            let topics = topics.iter().map(|topic| {
                let internal = topic.name.is_internal();
                let known = GroupTopic {
                    name: topic.name.clone(),
                    id: topic.id,
                    partition_count: topic.partition_count(),
                };
                (known, if internal { IsInternal::Yes } else { IsInternal::No })
            });
            *universe = Arc::new(Universe { version, topics: topics.collect() });
        }
        Arc::clone(&universe)
    }

    /// Puts on record of every group that has members that they are gone; nobody joins any more.
    ///
    /// # Errors
    ///
    /// * The first that could not be put on record; then its members seem to be there to those who look, until the
    ///   next life.
    pub(crate) fn close(&self) -> Result<()> {
        let groups = {
            let mut groups = self.groups.lock();
            self.is_closed.store(true, Ordering::Relaxed);
            groups.take().unwrap_or_default()
        };
        let mut first_error = Ok(());
        for group in groups.into_values() {
            if group.put_out(|_, _| true) > 0 {
                group.settle(|| self.universe());
            }
            first_error = first_error.and(group.record_members(&self.log));
        }
        self.log.close();
        first_error
    }

    fn with_groups<Seen>(
        &self,
        look: impl FnOnce(&mut HashMap<Arc<str>, Arc<Group>>) -> Seen,
    ) -> Result<Seen> {
        self.topics.refuse_if_closed()?;
        let mut groups = self.groups.lock();
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(Error::Closed);
        }
        // A reader beside the writer does not hear of what the writer commits: it reads anew.
        if groups.is_none() || self.topics.refuse_writing("commit").is_err() {
            *groups = Some(self.load()?);
        }
        Ok(look(groups.as_mut().expect("filled above")))
    }

    fn load(&self) -> Result<HashMap<Arc<str>, Arc<Group>>> {
        let Some(topic) = self.log.topic()? else {
            return Ok(HashMap::new());
        };
        let loaded = load::load(&topic)?;
        loaded.findings.into_iter().for_each(|finding| self.topics.note_finding_once(finding));
        self.log.note_loaded(loaded.len);
        let group = |(id, loaded): (Arc<str>, LoadedGroup)| {
            let group = Group::new(Arc::clone(&id), revive(loaded));
            (id, Arc::new(group))
        };
        Ok(loaded.groups.into_iter().map(group).collect())
    }
}

/// Makes of what is on record the state that a new life begins with: no members, but static ones find what they
/// had.
fn revive(loaded: LoadedGroup) -> Shared {
    let mut shared = Shared::default();
    shared.offsets = loaded.offsets;
    if let Some(value) = loaded.members {
        shared.since_ms = value.state_timestamp_ms;
        shared.state.resume_generation(value.generation);
        shared.assignor = value.protocol.as_deref().and_then(|name| name.parse().ok());
        for member in &value.members {
            // Checked when it was read.
            let had = papers::assignment_of(member).unwrap_or_default();
            if let Some(instance_id) = &member.instance_id {
                shared.state.remember(instance_id, had);
            }
        }
        shared.on_record = Some(value);
    }
    shared
}

fn is_something(group: &Group) -> bool {
    group.look(|shared| {
        let has_had_members = shared.state.generation() > 0 || shared.on_record.is_some();
        has_had_members || !shared.state.is_empty() || !shared.offsets.is_empty()
    }) && !group.is_gone()
}

pub(crate) fn check_group_id(id: &str) -> Result<()> {
    let reason = match id.len() {
        0 => "it is empty",
        len if len > GROUP_ID_LEN_MAX => "it is longer than 32,767 bytes",
        _ => return Ok(()),
    };
    let shown: String = id.chars().take(64).collect();
    Err(Error::InvalidGroup { group: shown, reason })
}

/// A string's length in Kafka's records is a 16-bit number.
const GROUP_ID_LEN_MAX: usize = i16::MAX as usize;
