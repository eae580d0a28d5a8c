//! What an application may do while partitions come and go, and how it is told.

use std::borrow::Borrow;
use std::fmt;

use crate::assignment::Start;
#[cfg(doc)]
use crate::consumer::Consumer;
use crate::consumer::Listeners;
use crate::consumer::Rebalance;
use crate::coordinator::committed::OffsetAndMetadata;
use crate::error::Result;
use crate::topic::TopicPartition;

impl Listeners {
    pub(crate) fn hears_revoked(&self) -> bool {
        self.revoked.is_some()
    }

    pub(crate) fn assigned(
        &self,
        rebalance: &mut Rebalance<'_>,
        partitions: &[TopicPartition],
    ) -> Result<()> {
        self.assigned.as_ref().map_or(Ok(()), |listener| listener(rebalance, partitions))
    }

    pub(crate) fn revoked(
        &self,
        rebalance: &mut Rebalance<'_>,
        partitions: &[TopicPartition],
    ) -> Result<()> {
        self.revoked.as_ref().map_or(Ok(()), |listener| listener(rebalance, partitions))
    }

    /// As in Kafka, one who does not say what is to be done about loss hears of it as of the rest.
    pub(crate) fn lost(
        &self,
        rebalance: &mut Rebalance<'_>,
        partitions: &[TopicPartition],
    ) -> Result<()> {
        match &self.lost {
            Some(listener) => listener(rebalance, partitions),
            None => self.revoked(rebalance, partitions),
        }
    }
}

impl Rebalance<'_> {
    /// Gives the partitions that are read at this moment: those that go are still among them, those that come are
    /// already.
    pub fn assignment(&self) -> impl Iterator<Item = &TopicPartition> {
        self.consumer.assignment()
    }

    /// As [`Consumer::position`].
    ///
    /// # Errors
    ///
    /// * As there.
    pub fn position(&self, partition: &TopicPartition) -> Result<i64> {
        self.consumer.position(partition)
    }

    /// As [`Consumer::committed`].
    ///
    /// # Errors
    ///
    /// * As there.
    pub fn committed(&self, partition: &TopicPartition) -> Result<Option<OffsetAndMetadata>> {
        self.consumer.committed(partition)
    }

    /// As [`Consumer::commit`].
    ///
    /// # Errors
    ///
    /// * As there.
    pub fn commit(&mut self) -> Result<()> {
        self.consumer.commit()
    }

    /// As [`Consumer::commit_offsets`].
    ///
    /// # Errors
    ///
    /// * As there.
    pub fn commit_offsets<P: Borrow<TopicPartition>, O: Into<OffsetAndMetadata>>(
        &mut self,
        offsets: impl IntoIterator<Item = (P, O)>,
    ) -> Result<()> {
        self.consumer.commit_offsets(offsets)
    }

    /// As [`Consumer::seek`].
    ///
    /// # Errors
    ///
    /// * As there.
    pub fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Result<()> {
        self.consumer.seek(partition, offset)
    }

    /// As [`Consumer::seek_to`].
    ///
    /// # Errors
    ///
    /// * As there.
    pub fn seek_to(&mut self, partition: &TopicPartition, start: Start) -> Result<()> {
        self.consumer.seek_to(partition, start)
    }

    /// As [`Consumer::pause`].
    ///
    /// # Errors
    ///
    /// * As there.
    pub fn pause<'p>(
        &mut self,
        partitions: impl IntoIterator<Item = &'p TopicPartition>,
    ) -> Result<()> {
        self.consumer.pause(partitions)
    }

    /// As [`Consumer::resume`].
    ///
    /// # Errors
    ///
    /// * As there.
    pub fn resume<'p>(
        &mut self,
        partitions: impl IntoIterator<Item = &'p TopicPartition>,
    ) -> Result<()> {
        self.consumer.resume(partitions)
    }
}

impl fmt::Debug for Rebalance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rebalance").field(&self.consumer).finish()
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners").finish_non_exhaustive()
    }
}
