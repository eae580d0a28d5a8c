//! Which partitions a consumer reads, and where it stands in each.

use std::sync::Arc;

use crate::assignment::Assignment;
use crate::assignment::OffsetReset;
use crate::assignment::Start;
use crate::consumer::Assigned;
use crate::consumer::Consumer;
use crate::error::Error;
use crate::error::Result;
use crate::handed_out::HandedOut;
use crate::partition::Partition;
use crate::partition::fetch::Cursor;
use crate::records::OwnedMessage;
use crate::topic::TopicPartition;

impl Consumer {
    /// Reads these partitions from now on, and no others. Partitions that stay keep neither position nor
    /// pause.
    ///
    /// # Errors
    ///
    /// * As [`ConsumerBuilder::assign`](crate::ConsumerBuilder::assign); the old assignment stays.
    pub fn assign<A: Into<Assignment>>(
        &mut self,
        partitions: impl IntoIterator<Item = A>,
    ) -> Result<()> {
        self.topics.refuse_if_closed()?;
        if self.membership.as_ref().is_some_and(|membership| membership.subscription.is_some()) {
            let reason = "the consumer subscribes to topics; it must unsubscribe first";
            return Err(Error::InvalidArgument { argument: "partitions", reason });
        }
        let mut assigned: Vec<Assigned> = Vec::new();
        for assignment in partitions {
            let Assignment { partition: source, start } = assignment.into();
            if assigned.iter().any(|other| *other.source == source) {
                let reason = "a partition is given twice";
                return Err(Error::InvalidArgument { argument: "partitions", reason });
            }
            let open = source.open()?;
            open.refresh()?;
            let position = self.begin_position(&source, &open, start)?;
            assigned.push(Assigned {
                source: Arc::new(source),
                open,
                cursor: Cursor::at(position),
                is_paused: false,
                is_leaving: false,
                place: None,
                handed_out: self.hands(),
            });
        }
        for old in &self.assigned {
            old.open.doorbells().take_down(&self.bell);
        }
        for new in &assigned {
            new.open.doorbells().hang(&self.bell);
        }
        self.topics.closing().hang(&self.bell);
        self.assigned = assigned;
        self.next = 0;
        self.buffer.clear();
        Ok(())
    }

    /// Goes on at another offset of a partition with the next poll. Whether it is in range shows then.
    ///
    /// # Errors
    ///
    /// * [`Error::NotAssigned`]; [`Error::InvalidArgument`] if the offset is negative.
    pub fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Result<()> {
        self.seek_to(partition, Start::Offset(offset))
    }

    /// Goes on elsewhere in a partition with the next poll.
    ///
    /// # Errors
    ///
    /// * As [`seek`](Self::seek); [`Error::Corrupt`] if damage hides a timestamp.
    pub fn seek_to(&mut self, partition: &TopicPartition, start: Start) -> Result<()> {
        let index = self.index_of(partition)?;
        self.assigned[index].open.refresh()?;
        let position = self.start_position(&self.assigned[index].open, start)?;
        self.buffer.retain(|message| message.topic_partition() != partition);
        self.assigned[index].cursor = Cursor::at(position);
        if let Some(handed_out) = &self.assigned[index].handed_out {
            handed_out.forgive();
        }
        Ok(())
    }

    /// Gives the offset of the next record to be handed out of a partition.
    ///
    /// # Errors
    ///
    /// * [`Error::NotAssigned`].
    pub fn position(&self, partition: &TopicPartition) -> Result<i64> {
        let index = self.index_of(partition)?;
        let buffered = self.buffer.iter().find(|m| m.topic_partition() == partition);
        Ok(buffered.map_or(self.assigned[index].cursor.position, OwnedMessage::offset))
    }

    /// Gives the number of offsets between the position and the end that this consumer can see.
    ///
    /// # Errors
    ///
    /// * [`Error::NotAssigned`].
    pub fn lag(&self, partition: &TopicPartition) -> Result<i64> {
        let assigned = &self.assigned[self.index_of(partition)?];
        Ok((self.bound(&assigned.open) - self.position(partition)?).max(0))
    }

    /// Gives where to begin in a partition: where it was said, else where the group stopped, else where readers
    /// begin.
    fn begin_position(
        &self,
        source: &TopicPartition,
        open: &Partition,
        start: Option<Start>,
    ) -> Result<i64> {
        let begin = start.unwrap_or(self.settings.start);
        let is_told = start.is_some_and(|start| start != Start::Committed);
        let Some(membership) = self.membership.as_ref().filter(|_| !is_told) else {
            return self.start_position(open, begin);
        };
        let (topic, partition) = (&source.topic().state.name, source.partition());
        match (membership.group.committed(topic, partition), begin) {
            (Some(noted), _) => Ok(noted.offset()),
            (None, Start::Committed) => {
                let (group, topic) = (membership.group.id().to_string(), topic.to_string());
                Err(Error::NoOffset { group, topic, partition })
            }
            (None, begin) => self.start_position(open, begin),
        }
    }

    /// Counts what is handed out of a partition, where somebody asks for it.
    fn hands(&self) -> Option<Arc<HandedOut>> {
        self.membership.as_ref().map(|_| Arc::new(HandedOut::new(Arc::clone(&self.bell))))
    }

    pub(super) fn start_position(&self, open: &Partition, start: Start) -> Result<i64> {
        let log_start = open.watermarks().log_start();
        let end = self.bound(open).max(log_start);
        Ok(match start {
            Start::Earliest => log_start,
            Start::Latest => end,
            Start::Offset(offset) if offset < 0 => {
                let reason = "it is negative";
                return Err(Error::InvalidArgument { argument: "offset", reason });
            }
            Start::Offset(offset) => offset,
            Start::Timestamp(timestamp_ms) => {
                open.offset_for_time(timestamp_ms)?.map_or(end, |(offset, _)| offset)
            }
            Start::ByDuration(age) => open
                .offset_for_time(self.topics.clock().ms_before(age))?
                .map_or(end, |(offset, _)| offset),
            Start::Committed => {
                let reason = "it begins where a group stopped, and has no group";
                return Err(Error::InvalidArgument { argument: "start", reason });
            }
            Start::Last(count) => {
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                end.saturating_sub(count).max(log_start)
            }
        })
    }

    /// Gives where to go on by the reset policy, from an offset that is out of range.
    pub(super) fn reset_position(
        &self,
        topic: &str,
        partition: u32,
        open: &Partition,
        offset: i64,
    ) -> Result<i64> {
        let marks = open.watermarks();
        let (start, end) = (marks.log_start(), marks.log_end());
        match self.settings.reset {
            OffsetReset::Earliest => Ok(start),
            OffsetReset::Latest => Ok(end),
            OffsetReset::ByDuration(age) => {
                let found = open.offset_for_time(self.topics.clock().ms_before(age))?;
                Ok(found.map_or(end, |(offset, _)| offset))
            }
            OffsetReset::Error => {
                let topic = topic.to_owned();
                Err(Error::OffsetOutOfRange { topic, partition, offset, start, end })
            }
        }
    }
}
