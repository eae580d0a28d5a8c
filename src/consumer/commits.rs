//! How far a group has come: committing, and asking for what was committed.

use std::borrow::Borrow;
use std::sync::Arc;

use crate::consumer::Assigned;
use crate::consumer::Consumer;
use crate::coordinator::committed::OffsetAndMetadata;
use crate::coordinator::group::Commit;
use crate::coordinator::offsets_log::Written;
use crate::error::Error;
use crate::error::Result;
use crate::records::Message;
use crate::records::OwnedMessage;
use crate::topic::TopicPartition;

/// A record that was dealt with: what [`Consumer::commit_message`] takes, made of a reference to a message.
#[derive(Clone, Copy, Debug)]
pub struct Consumed<'m> {
    partition: &'m TopicPartition,
    offset: i64,
    leader_epoch: i32,
}

impl<'m> From<&'m Message<'_>> for Consumed<'m> {
    fn from(message: &'m Message<'_>) -> Consumed<'m> {
        Consumed {
            partition: message.topic_partition(),
            offset: message.offset(),
            leader_epoch: message.leader_epoch(),
        }
    }
}

impl<'m> From<&'m OwnedMessage> for Consumed<'m> {
    fn from(message: &'m OwnedMessage) -> Consumed<'m> {
        Consumed {
            partition: message.topic_partition(),
            offset: message.offset(),
            leader_epoch: message.leader_epoch(),
        }
    }
}

impl Consumer {
    /// Commits the positions of everything that is read: all that was handed out counts as dealt with.
    ///
    /// On return the commit is on stable storage, with everything below it: no power cut makes the group skip a
    /// record. It costs one append and one sync that is shared with everyone who commits at the same time; and one
    /// more for each partition whose records are not durable yet, as with `Buffered` producers. Positions that have
    /// not moved cost nothing.
    ///
    /// # Errors
    ///
    /// Nothing was committed in any of these cases but the last.
    ///
    /// * [`Error::NoGroup`].
    /// * [`Error::CommitRefused`] if a partition was given to another member meanwhile, as to one that did not poll
    ///   for too long, or if the consumer is no member and the group has some. Its records will be read again.
    /// * [`Error::OutOfSpace`], [`Error::Io`], [`Error::Closed`]; [`Error::Unavailable`] if what the group has on record
    ///   cannot be read.
    /// * [`Error::Latched`] if a partition cannot be made durable. If that is one of those that were read, nothing was
    ///   committed; if it is that of `__consumer_offsets`, the commit may or may not be there when the store is opened
    ///   again, and until then no further one succeeds.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ottla::{Store, TopicConfig};
    ///
    /// let store = Store::temporary()?;
    /// let topic = store.create_topic("t", TopicConfig::new())?;
    /// store.producer().send(&topic, "v")?.wait()?;
    /// let mut consumer = store.consumer().subscribe("g", &topic)?;
    /// assert_eq!(consumer.poll(Duration::from_secs(1))?.count(), 1);
    /// consumer.commit()?;
    /// let committed = consumer.committed(&topic.partition(0)?)?;
    /// assert_eq!(committed.map(|noted| noted.offset()), Some(1));
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn commit(&mut self) -> Result<()> {
        match self.commit_positions()? {
            Some(written) => written.wait(),
            None => Ok(()),
        }
    }

    /// As [`commit`](Self::commit), without waiting until the commit itself is durable, which it is some 10 ms later.
    /// It still blocks until the records below it are.
    ///
    /// # Errors
    ///
    /// * As [`commit`](Self::commit). If the sync fails later, the next commit says so.
    pub fn commit_async(&mut self) -> Result<()> {
        self.commit_positions().map(|_| ())
    }

    /// Commits that a record was dealt with, and all in front of it in its partition: its offset and one.
    ///
    /// # Errors
    ///
    /// * As [`commit`](Self::commit).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let store = ottla::Store::temporary()?;
    /// # let topic = store.create_topic("t", ottla::TopicConfig::new())?;
    /// # store.producer().send_batch(&topic.partition(0)?, ["a", "b", "c"].map(ottla::Record::new))?.wait()?;
    /// let mut consumer = store.consumer().subscribe("g", &topic)?;
    /// for message in &consumer.poll(Duration::from_secs(1))? {
    ///     if message.value() == Some(b"b") {
    ///         consumer.commit_message(&message)?;
    ///     }
    /// }
    /// let committed = consumer.committed(&topic.partition(0)?)?;
    /// assert_eq!(committed.map(|noted| noted.offset()), Some(2));
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn commit_message<'m>(&mut self, message: impl Into<Consumed<'m>>) -> Result<()> {
        let Consumed { partition, offset, leader_epoch } = message.into();
        let next = offset.saturating_add(1);
        let noted = OffsetAndMetadata::new(next).with_leader_epoch(leader_epoch);
        self.commit_all([(partition.clone(), noted)])
    }

    /// Commits offsets, each that of the next record to be read, with what is to be noted beside. It takes what
    /// [`Records::next_offsets`](crate::Records::next_offsets) gives.
    ///
    /// # Errors
    ///
    /// * As [`commit`](Self::commit).
    /// * [`Error::OffsetOutOfRange`] if an offset lies behind the end of its partition or in front of its start;
    ///   [`Error::InvalidArgument`] if it is negative; [`Error::MetadataTooLarge`].
    ///
    /// ```
    /// # let store = ottla::Store::temporary()?;
    /// # let topic = store.create_topic("t", ottla::TopicConfig::new())?;
    /// # store.producer().send(&topic, "v")?.wait()?;
    /// use ottla::OffsetAndMetadata;
    /// let partition = topic.partition(0)?;
    /// let mut consumer = store.consumer().group("g").assign([&partition])?;
    /// let noted = OffsetAndMetadata::new(1).with_metadata("done by hand");
    /// consumer.commit_offsets([(partition.clone(), noted.clone())])?;
    /// assert_eq!(consumer.committed(&partition)?, Some(noted));
    /// assert!(consumer.commit_offsets([(&partition, 2)]).is_err());
    ///
    /// let mut other = store.consumer().group("h").assign([&partition])?;
    /// let records = other.poll(std::time::Duration::from_secs(1))?;
    /// other.commit_offsets(records.next_offsets())?;
    /// assert_eq!(other.committed(&partition)?.map(|noted| noted.offset()), Some(1));
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn commit_offsets<P: Borrow<TopicPartition>, O: Into<OffsetAndMetadata>>(
        &mut self,
        offsets: impl IntoIterator<Item = (P, O)>,
    ) -> Result<()> {
        let offsets = offsets.into_iter().map(|(p, noted)| (p.borrow().clone(), noted.into()));
        let offsets: Vec<(TopicPartition, OffsetAndMetadata)> = offsets.collect();
        for (partition, noted) in &offsets {
            noted.check()?;
            let (start, end) = partition.watermarks()?;
            if noted.offset() < start || noted.offset() > end {
                return Err(Error::OffsetOutOfRange {
                    topic: partition.topic().name().to_owned(),
                    partition: partition.partition(),
                    offset: noted.offset(),
                    start,
                    end,
                });
            }
        }
        self.commit_all(offsets)
    }

    /// Gives what the group has committed of a partition; `None` if that is nothing.
    ///
    /// # Errors
    ///
    /// * [`Error::NoGroup`].
    pub fn committed(&self, partition: &TopicPartition) -> Result<Option<OffsetAndMetadata>> {
        let membership = self.membership.as_ref().ok_or(Error::NoGroup)?;
        let name = &partition.topic().state.name;
        Ok(membership.group.committed(name, partition.partition()))
    }

    /// As [`commit_offsets`](Self::commit_offsets) of offsets that were read, without waiting until the commit is
    /// durable.
    pub(crate) fn commit_unwaited(&mut self, offsets: Vec<(TopicPartition, i64)>) -> Result<()> {
        let offsets = offsets.into_iter().map(|(partition, offset)| (partition, offset.into()));
        let commits = commits_of(offsets)?;
        self.put_on_record(&commits).map(drop)
    }

    fn commit_all(
        &mut self,
        offsets: impl IntoIterator<Item = (TopicPartition, OffsetAndMetadata)>,
    ) -> Result<()> {
        let commits = commits_of(offsets)?;
        match self.put_on_record(&commits)? {
            Some(written) => written.wait(),
            None => Ok(()),
        }
    }

    /// Commits the positions that have moved. Gives the last commit that may not be durable yet.
    fn commit_positions(&mut self) -> Result<Option<Written>> {
        let position = |consumer: &Consumer, assigned: &Assigned| {
            let buffered = consumer.buffer.iter();
            let mut of_it = buffered.filter(|m| *m.topic_partition() == *assigned.source);
            of_it.next().map_or(assigned.cursor.position, OwnedMessage::offset)
        };
        match self.commit_each(|_| true, position)? {
            Some(written) => Ok(Some(written)),
            None => {
                // What is on record already may be another's commit that is not durable yet.
                let membership = self.membership.as_ref().ok_or(Error::NoGroup)?;
                Ok(membership.group.last_written())
            }
        }
    }

    /// Commits what was dealt with, of those partitions that are meant; durable on return.
    pub(super) fn commit_finished(&mut self, is_meant: impl Fn(&Assigned) -> bool) -> Result<()> {
        match self.commit_each(is_meant, |_, assigned| finished(assigned))? {
            Some(written) => written.wait(),
            None => Ok(()),
        }
    }

    /// Commits what was dealt with as far as it is durable already: nobody waits for a sync.
    pub(super) fn commit_durable_finished(&mut self) -> Result<()> {
        let durable = |_: &Consumer, assigned: &Assigned| {
            finished(assigned).min(assigned.open.watermarks().durable_end())
        };
        self.commit_each(|_| true, durable).map(|_| ())
    }

    /// Commits an offset of each of those partitions that are meant, where it is another than the one on record.
    fn commit_each(
        &mut self,
        is_meant: impl Fn(&Assigned) -> bool,
        offset: impl Fn(&Consumer, &Assigned) -> i64,
    ) -> Result<Option<Written>> {
        loop {
            let commits = self.commits(&is_meant, &offset)?;
            let is_gone = |commit: &Commit| commit.topic.refuse_if_going().is_err();
            match self.put_on_record(&commits) {
                // It was there a moment ago; the others are committed without it.
                Err(Error::TopicDeleted { .. }) if commits.iter().any(is_gone) => {}
                committed => return committed,
            }
        }
    }

    /// Makes commits of those partitions for which the offset is another than the one on record.
    fn commits(
        &self,
        is_meant: impl Fn(&Assigned) -> bool,
        offset: impl Fn(&Consumer, &Assigned) -> i64,
    ) -> Result<Vec<Commit>> {
        let membership = self.membership.as_ref().ok_or(Error::NoGroup)?;
        let mut commits = Vec::new();
        for assigned in self.assigned.iter().filter(|assigned| is_meant(assigned)) {
            let (topic, number) = (&assigned.source.topic().state, assigned.source.partition());
            let offset = offset(self, assigned);
            // A position out of range is none: the next poll resets it.
            if offset > assigned.open.watermarks().log_end() || topic.refuse_if_going().is_err() {
                continue;
            }
            let known = membership.group.committed(&topic.name, number).map(|noted| noted.offset());
            if known != Some(offset) {
                let (topic, log) = (Arc::clone(topic), assigned.open.clone());
                commits.push(Commit { topic, number, log, noted: offset.into() });
            }
        }
        Ok(commits)
    }

    fn put_on_record(&mut self, commits: &[Commit]) -> Result<Option<Written>> {
        self.topics.refuse_writing("commit offsets")?;
        let membership = self.membership.as_mut().ok_or(Error::NoGroup)?;
        membership.find_group_again()?;
        let (log, by) = (membership.coordinator.log(), membership.committer());
        membership.group.commit(log, by, commits)
    }
}

fn commits_of(
    offsets: impl IntoIterator<Item = (TopicPartition, OffsetAndMetadata)>,
) -> Result<Vec<Commit>> {
    let commit = |(partition, noted): (TopicPartition, OffsetAndMetadata)| {
        let log = partition.open()?;
        let topic = Arc::clone(&partition.topic().state);
        Ok(Commit { topic, number: partition.partition(), log, noted })
    };
    offsets.into_iter().map(commit).collect()
}

/// Gives the offset below which the application has done with everything.
fn finished(assigned: &Assigned) -> i64 {
    let position = assigned.cursor.position;
    assigned.handed_out.as_ref().map_or(position, |out| out.finished(position))
}
