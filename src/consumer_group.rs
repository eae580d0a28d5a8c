//! Looking at groups from outside, and changing what they committed.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::coordinator::Coordinator;
use crate::coordinator::committed::OffsetAndMetadata;
use crate::coordinator::group::Commit;
use crate::coordinator::group::Committer;
use crate::coordinator::group::Group;
use crate::coordinator::papers;
use crate::error::Error;
use crate::error::Result;
use crate::group_description::GroupDescription;
use crate::group_description::GroupPartitionDescription;
use crate::group_description::GroupStatus;
use crate::group_description::MemberDescription;
use crate::name::TopicName;
use crate::partition::Partition;
use crate::partition::fetch::Cursor;
use crate::partition::fetch::Limits;
use crate::partition::fetch::ReadOutcome;
use crate::partition::unpacking::Unpacking;
use crate::storage::verified::Checks;
use crate::topic::KeepOpen;
use crate::topic::TopicPartition;

/// A group, seen from outside: what it committed, who its members are, how far it is behind.
///
/// What changes it is refused while it has members, as in Kafka.
///
/// ```
/// use std::time::Duration;
/// use ottla::{GroupStatus, ResetTo, Store, TopicConfig};
///
/// let store = Store::temporary()?;
/// let topic = store.create_topic("t", TopicConfig::new())?;
/// store.producer().send_batch(&topic.partition(0)?, ["a", "b", "c"].map(ottla::Record::new))?.wait()?;
/// let mut consumer = store.consumer().subscribe("g", &topic)?;
/// consumer.poll(Duration::from_secs(1))?;
/// consumer.commit()?;
///
/// let group = store.group("g")?;
/// let description = group.describe()?;
/// assert_eq!((description.status, description.partitions[0].lag), (GroupStatus::Stable, Some(0)));
/// assert!(group.reset_offsets(ResetTo::Earliest, topic.partitions()).is_err()); // it has a member
/// consumer.close()?;
/// group.reset_offsets(ResetTo::Shift(-2), topic.partitions())?;
/// assert_eq!(group.describe()?.partitions[0].lag, Some(2));
/// group.delete()?;
/// assert!(store.groups()?.is_empty());
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone)]
pub struct ConsumerGroup {
    id: Arc<str>,
    coordinator: Arc<Coordinator>,
    keep_open: KeepOpen,
}

/// Where a group is to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetTo {
    /// At the first record there is.
    Earliest,
    /// Behind the last record there is.
    Latest,
    /// At this offset.
    Offset(i64),
    /// So many offsets further on, or back if it is negative; no further than the log goes.
    Shift(i64),
    /// At the first record with this timestamp (milliseconds since 1970) or a later one; behind the last if there is
    /// none.
    Timestamp(i64),
    /// At the first record that is no older; behind the last if all are.
    ByDuration(Duration),
}

/// What a reset does, or would do, to one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OffsetChange {
    /// The partition.
    pub partition: TopicPartition,
    /// What was on record; `None` if nothing was.
    pub from: Option<i64>,
    /// What is, or would be.
    pub to: i64,
}

impl ConsumerGroup {
    pub(crate) fn new(
        id: &str,
        coordinator: Arc<Coordinator>,
        keep_open: KeepOpen,
    ) -> ConsumerGroup {
        ConsumerGroup { id: id.into(), coordinator, keep_open }
    }

    /// Gives the group's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Describes the group as it is now.
    ///
    /// Where the store is read-only, members are those that the writer put on record when the group came to rest
    /// last, and there are none if nobody has the directory open for writing.
    ///
    /// # Errors
    ///
    /// * [`Error::UnknownGroup`] if it has neither members nor anything on record.
    /// * [`Error::Corrupt`], [`Error::Io`] if the group's papers or the next record of a partition cannot be read.
    pub fn describe(&self) -> Result<GroupDescription> {
        let group = self.coordinator.find(&self.id)?;
        let mut description = self.members(&group)?;
        let mut partitions: Vec<GroupPartitionDescription> = group.look(|shared| {
            let committed = shared.offsets.iter().map(|(topic, partition, committed)| {
                GroupPartitionDescription {
                    committed: Some(committed.noted.clone()),
                    commit_timestamp_ms: Some(committed.timestamp_ms),
                    ..GroupPartitionDescription::nothing(topic.as_str(), partition)
                }
            });
            committed.collect()
        });
        for member in &description.members {
            for (topic, partition) in &member.assignment {
                let is_it = |known: &&mut GroupPartitionDescription| {
                    known.topic == *topic && known.partition == *partition
                };
                match partitions.iter_mut().find(is_it) {
                    Some(known) => known.member_id = Some(member.member_id.clone()),
                    None => partitions.push(GroupPartitionDescription {
                        member_id: Some(member.member_id.clone()),
                        ..GroupPartitionDescription::nothing(topic, *partition)
                    }),
                }
            }
        }
        partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        for partition in &mut partitions {
            self.measure(partition)?;
        }
        description.partitions = partitions;
        Ok(description)
    }

    /// Says what [`reset_offsets`](Self::reset_offsets) would do now, and does nothing.
    ///
    /// # Errors
    ///
    /// * As there, but that the group may have members.
    pub fn plan_reset(
        &self,
        to: ResetTo,
        partitions: impl IntoIterator<Item = impl Borrow<TopicPartition>>,
    ) -> Result<Vec<OffsetChange>> {
        let group = self.coordinator.group(&self.id)?;
        let mut seen: Vec<TopicPartition> = Vec::new();
        let mut plan = |partition: TopicPartition| {
            if seen.contains(&partition) {
                let reason = "a partition is given twice";
                return Err(Error::InvalidArgument { argument: "partitions", reason });
            }
            seen.push(partition.clone());
            let open = partition.open()?;
            open.refresh()?;
            let (topic, number) = (&partition.topic().state.name, partition.partition());
            let from = group.committed(topic, number).map(|noted| noted.offset());
            let to = self.target(&partition, &open, from, to)?;
            Ok(OffsetChange { partition, from, to })
        };
        partitions.into_iter().map(|partition| plan(partition.borrow().clone())).collect()
    }

    /// Has the group go on elsewhere in these partitions; durable on return. A group that has nothing on record comes
    /// into being by it.
    ///
    /// # Errors
    ///
    /// Nothing was changed in any of these cases, but for what is said of [`Error::Latched`] at
    /// [`Consumer::commit`](crate::Consumer::commit).
    ///
    /// * [`Error::GroupNotEmpty`].
    /// * [`Error::OffsetOutOfRange`] if an offset lies outside its partition; [`Error::NoOffset`] if one is to be
    ///   shifted that is not on record; [`Error::InvalidArgument`] if a partition is given twice.
    /// * [`Error::ReadOnly`], [`Error::TopicDeleted`], [`Error::Closed`], and as a commit.
    pub fn reset_offsets(
        &self,
        to: ResetTo,
        partitions: impl IntoIterator<Item = impl Borrow<TopicPartition>>,
    ) -> Result<Vec<OffsetChange>> {
        self.coordinator.topics().refuse_writing("reset offsets")?;
        let changes = self.plan_reset(to, partitions)?;
        let offsets = changes.iter().map(|change| (change.partition.clone(), change.to.into()));
        self.commit(offsets.collect())?;
        Ok(changes)
    }

    /// Puts offsets on record for a group without members, as they are given; durable on return.
    ///
    /// # Errors
    ///
    /// * As [`reset_offsets`](Self::reset_offsets); [`Error::MetadataTooLarge`].
    pub fn alter_offsets(
        &self,
        offsets: impl IntoIterator<Item = (impl Borrow<TopicPartition>, impl Into<OffsetAndMetadata>)>,
    ) -> Result<()> {
        self.coordinator.topics().refuse_writing("alter offsets")?;
        let offsets = offsets.into_iter().map(|(p, noted)| (p.borrow().clone(), noted.into()));
        let offsets: Vec<(TopicPartition, OffsetAndMetadata)> = offsets.collect();
        for (partition, noted) in &offsets {
            noted.check()?;
            let open = partition.open()?;
            refuse_if_out_of_range(partition, &open, noted.offset())?;
        }
        self.commit(offsets)
    }

    /// Gives everything that is on record: topic, partition, offset.
    ///
    /// # Errors
    ///
    /// * [`Error::UnknownGroup`].
    pub fn offsets(&self) -> Result<Vec<(String, u32, OffsetAndMetadata)>> {
        let group = self.coordinator.find(&self.id)?;
        Ok(group.look(|shared| {
            let entries = shared.offsets.iter();
            entries.map(|(t, p, committed)| (t.to_string(), p, committed.noted.clone())).collect()
        }))
    }

    /// Deletes the group and all it committed; durable on return.
    ///
    /// # Errors
    ///
    /// Nothing was deleted in any of these cases but the last.
    ///
    /// * [`Error::UnknownGroup`], [`Error::GroupNotEmpty`].
    /// * [`Error::ReadOnly`], [`Error::Closed`], [`Error::OutOfSpace`], [`Error::Io`], [`Error::Unavailable`].
    /// * [`Error::Latched`] if the deletion cannot be made durable: the group may or may not be there when the store is
    ///   opened again.
    pub fn delete(&self) -> Result<()> {
        self.coordinator.topics().refuse_writing("delete a group")?;
        self.find_to_delete()?.delete(self.coordinator.log())?.wait()
    }

    /// Deletes what the group committed of these partitions; durable on return. What is not on record is passed over.
    ///
    /// # Errors
    ///
    /// Nothing was deleted in any of these cases but the last.
    ///
    /// * [`Error::UnknownGroup`]; [`Error::GroupSubscribed`] if a member reads one of the topics.
    /// * [`Error::ReadOnly`], [`Error::Closed`], [`Error::OutOfSpace`], [`Error::Io`], [`Error::Unavailable`].
    /// * [`Error::Latched`] if the deletion cannot be made durable: the offsets may or may not be there when the store
    ///   is opened again.
    pub fn delete_offsets(
        &self,
        partitions: impl IntoIterator<Item = impl Borrow<TopicPartition>>,
    ) -> Result<()> {
        let named = |p: &TopicPartition| (p.topic().state.name.clone(), p.partition());
        let meant: Vec<_> = partitions.into_iter().map(|p| named(p.borrow())).collect();
        self.delete_offsets_at(&meant)
    }

    /// As [`delete_offsets`](Self::delete_offsets), by the names of topics and the numbers of partitions: also of a topic
    /// that is not there any more, of which nobody has a handle.
    ///
    /// # Errors
    ///
    /// * As there. [`Error::InvalidTopic`] if a name is none.
    ///
    /// ```
    /// # let store = ottla::Store::temporary()?;
    /// # let topic = store.create_topic("t", ottla::TopicConfig::new().partitions(2))?;
    /// let group = store.group("g")?;
    /// group.alter_offsets([(topic.partition(0)?, 0), (topic.partition(1)?, 0)])?;
    /// group.delete_offsets_named([("t", 0), ("gone", 7)])?;
    /// assert_eq!(group.offsets()?.len(), 1);
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn delete_offsets_named<N: AsRef<str>>(
        &self,
        partitions: impl IntoIterator<Item = (N, u32)>,
    ) -> Result<()> {
        let named = |(name, number): (N, u32)| Ok((TopicName::new(name.as_ref())?, number));
        self.delete_offsets_at(&partitions.into_iter().map(named).collect::<Result<Vec<_>>>()?)
    }

    fn delete_offsets_at(&self, meant: &[(TopicName, u32)]) -> Result<()> {
        self.coordinator.topics().refuse_writing("delete offsets")?;
        let group = self.find_to_delete()?;
        let is_wanted = |topic: &TopicName| group.look(|shared| shared.state.is_wanted(topic));
        if let Some((topic, _)) = meant.iter().find(|(topic, _)| is_wanted(topic)) {
            let (group, topic) = (self.id.to_string(), topic.to_string());
            return Err(Error::GroupSubscribed { group, topic });
        }
        let is_meant = |topic: &TopicName, partition| {
            meant.iter().any(|(name, number)| name == topic && *number == partition)
        };
        match group.remove_offsets(self.coordinator.log(), is_meant)? {
            Some(written) => written.wait(),
            None => self.wait_for_earlier(),
        }
    }

    /// Puts members out: those with one of these member or instance ids, or all if none is named. Their partitions
    /// go to others at once; they are told at their next poll, and join again with it unless they are closed. Gives
    /// how many there were.
    ///
    /// # Errors
    ///
    /// * [`Error::UnknownGroup`], [`Error::Closed`].
    pub fn remove_members(&self, ids: &[&str]) -> Result<usize> {
        let group = self.coordinator.find(&self.id)?;
        let is_meant = |id: &str, instance: Option<&str>| {
            ids.is_empty() || ids.contains(&id) || instance.is_some_and(|i| ids.contains(&i))
        };
        let count = group.put_out(is_meant);
        self.coordinator.settle(&group);
        Ok(count)
    }

    /// Finds the group, to delete something of it.
    fn find_to_delete(&self) -> Result<Arc<Group>> {
        let found = self.coordinator.find(&self.id);
        if matches!(found, Err(Error::UnknownGroup { .. })) {
            self.wait_for_earlier()?;
        }
        found
    }

    /// What is off the record already may have been taken off by a deletion that could not be made durable: whoever
    /// tries again is not told that all is well.
    fn wait_for_earlier(&self) -> Result<()> {
        match self.coordinator.log().written_so_far(&self.id)? {
            Some(written) => written.wait(),
            None => Ok(()),
        }
    }

    fn commit(&self, offsets: Vec<(TopicPartition, OffsetAndMetadata)>) -> Result<()> {
        let mut commits: Vec<Commit> = Vec::with_capacity(offsets.len());
        for (partition, noted) in offsets {
            let (topic, number) = (Arc::clone(&partition.topic().state), partition.partition());
            if commits.iter().any(|c| c.topic.name == topic.name && c.number == number) {
                let reason = "a partition is given twice";
                return Err(Error::InvalidArgument { argument: "partitions", reason });
            }
            commits.push(Commit { topic, number, log: partition.open()?, noted });
        }
        let group = self.coordinator.group(&self.id)?;
        match group.commit(self.coordinator.log(), Committer::Outsider, &commits) {
            Ok(Some(written)) => written.wait(),
            Ok(None) => Ok(()),
            Err(Error::CommitRefused { group, .. }) => Err(Error::GroupNotEmpty { group }),
            Err(other) => Err(other),
        }
    }

    fn target(
        &self,
        partition: &TopicPartition,
        open: &Partition,
        from: Option<i64>,
        to: ResetTo,
    ) -> Result<i64> {
        let marks = open.watermarks();
        let (start, end) = (marks.log_start(), marks.log_end());
        let first_since = |timestamp_ms: i64| {
            let found = open.offset_for_time(timestamp_ms)?;
            Ok(found.map_or(end, |(offset, _)| offset))
        };
        match to {
            ResetTo::Earliest => Ok(start),
            ResetTo::Latest => Ok(end),
            ResetTo::Offset(offset) => refuse_if_out_of_range(partition, open, offset),
            ResetTo::Shift(by) => match from {
                Some(from) => Ok(from.saturating_add(by).clamp(start, end)),
                None => Err(Error::NoOffset {
                    group: self.id.to_string(),
                    topic: partition.topic().name().to_owned(),
                    partition: partition.partition(),
                }),
            },
            ResetTo::Timestamp(timestamp_ms) => first_since(timestamp_ms),
            ResetTo::ByDuration(age) => {
                first_since(self.coordinator.topics().clock().ms_before(age))
            }
        }
    }

    /// Describes all but the partitions.
    fn members(&self, group: &Group) -> Result<GroupDescription> {
        let has_a_writer = self.coordinator.topics().has_a_writer()?;
        let is_writer = self.coordinator.topics().refuse_writing("look").is_ok();
        Ok(group.look(|shared| {
            let state = &shared.state;
            let described = |member: &crate::coordinator::group_state::Member| {
                let held = state.held_by(member).into_iter();
                MemberDescription {
                    member_id: member.id.to_string(),
                    instance_id: member.instance_id.as_ref().map(ToString::to_string),
                    client_id: member.client_id.to_string(),
                    topics: state.wanted_by(member).iter().map(ToString::to_string).collect(),
                    assignment: held.map(|p| (p.topic.to_string(), p.place.number)).collect(),
                }
            };
            let on_record = shared.on_record.as_ref().filter(|_| !is_writer);
            let members: Vec<MemberDescription> = match on_record {
                Some(value) if has_a_writer => {
                    let here = value.members.iter().filter(|member| !papers::is_away(member));
                    here.map(MemberDescription::on_record).collect()
                }
                Some(_) => Vec::new(),
                None => state.members().map(|(_, member)| described(member)).collect(),
            };
            let status = match () {
                () if members.is_empty() => GroupStatus::Empty,
                () if state.is_at_rest() || on_record.is_some() => GroupStatus::Stable,
                () => GroupStatus::Reconciling,
            };
            let assignor = shared.assignor.as_ref().map(|assignor| assignor.name().to_owned());
            GroupDescription {
                group: self.id.to_string(),
                status,
                assignor,
                generation: on_record.map_or(state.generation(), |value| value.generation),
                members,
                partitions: Vec::new(),
            }
        }))
    }

    /// Finds out how far the group is behind.
    fn measure(&self, partition: &mut GroupPartitionDescription) -> Result<()> {
        let topics = self.coordinator.topics();
        let found = topics.find(&partition.topic).and_then(|state| {
            let keep_open = Arc::clone(&self.keep_open);
            TopicPartition::new(state, Arc::clone(topics), keep_open, partition.partition).open()
        });
        let open = match found {
            Ok(open) => open,
            Err(Error::Closed) => return Err(Error::Closed),
            // It is gone, or cannot be opened; what was committed of it is still to be seen.
            Err(_) => return Ok(()),
        };
        open.refresh()?;
        let marks = open.watermarks();
        let (start, end) = (marks.log_start(), marks.log_end());
        (partition.log_start, partition.log_end) = (Some(start), Some(end));
        let Some(noted) = &partition.committed else { return Ok(()) };
        partition.deleted_unread = Some(start.saturating_sub(noted.offset()).max(0));
        let mut cursor = Cursor::at(noted.offset().clamp(start, end));
        let limits = Limits { bytes: 0, records: 1 };
        match open.read(&mut cursor, limits, end, Checks::All, &mut Unpacking::default()) {
            Ok(ReadOutcome::Records(fetched)) => {
                let first = fetched.first_record();
                let offset = first.map_or(noted.offset(), |(offset, _)| offset);
                partition.lag = Some(end.saturating_sub(offset));
                partition.oldest_unread_ms = first.map(|(_, timestamp_ms)| timestamp_ms);
            }
            Ok(ReadOutcome::AtEnd) => partition.lag = Some(0),
            // What lies below was deleted meanwhile.
            Ok(ReadOutcome::OutOfRange) => {
                partition.lag = Some(end.saturating_sub(marks.log_start()).max(0));
            }
            // It cannot be read, and so it will be for the group: how far it is behind is known all the same.
            Err(Error::Corrupt { .. } | Error::UnsupportedCompression { .. }) => {
                partition.lag = Some(end.saturating_sub(cursor.position));
            }
            Err(other) => return Err(other),
        }
        Ok(())
    }
}

fn refuse_if_out_of_range(
    partition: &TopicPartition,
    open: &Partition,
    offset: i64,
) -> Result<i64> {
    let (start, end) = (open.watermarks().log_start(), open.watermarks().log_end());
    if (start..=end).contains(&offset) {
        return Ok(offset);
    }
    Err(Error::OffsetOutOfRange {
        topic: partition.topic().name().to_owned(),
        partition: partition.partition(),
        offset,
        start,
        end,
    })
}

impl fmt::Debug for ConsumerGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerGroup").field("id", &self.id).finish_non_exhaustive()
    }
}
