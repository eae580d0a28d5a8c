//! Reading one record by its offset, without a consumer.

use std::sync::Arc;

use crate::error::Error;
use crate::error::Result;
use crate::partition::point::Point;
use crate::records::OwnedMessage;
use crate::topic::TopicPartition;

impl TopicPartition {
    /// Reads the record at `offset`; `None` if no record has this offset.
    ///
    /// Needs no consumer and moves no position. One look-up in the segment's sparse index and a short walk; nothing is
    /// copied, and nothing allocated unless something is read for the first time: this handle, the segment, or a
    /// batch of 8 KiB or more. May read from the disk. Any number of threads may read at the same time; each does so
    /// a little faster with a handle of its own.
    ///
    /// A compressed batch is unpacked whole for any of its records, within the bounds of every reader: into memory that
    /// the message keeps, and that the thread uses again once no message does. The last one that a thread has read,
    /// unless it takes more than a mebibyte, stays unpacked for the next read.
    ///
    /// A record is there as soon as its send has returned, durable or not, as for a consumer with
    /// [`Isolation::ReadUncommitted`](crate::Isolation::ReadUncommitted). There is none, so that this returns `None`:
    ///
    /// * at the log end and behind it: not yet;
    /// * where compaction has removed it;
    /// * at the offset of a transaction's marker, which is no record for readers.
    ///
    /// # Errors
    ///
    /// * [`Error::OffsetOutOfRange`] if the offset lies in front of the log's start, so also if it is negative: what was
    ///   there has been deleted.
    /// * [`Error::Corrupt`]: the batch that holds the offset cannot be read; others can. Its checksum is verified unless
    ///   that was done before, as by a consumer. [`Error::UnsupportedCompression`] if its codec is not compiled in.
    /// * [`Error::TopicDeleted`], [`Error::Unavailable`], [`Error::Closed`]; [`Error::Io`] if the segment cannot be opened
    ///   or read.
    ///
    /// ```
    /// use ottla::{Record, Store, TopicConfig};
    ///
    /// let store = Store::temporary()?;
    /// let orders = store.create_topic("orders", TopicConfig::new())?;
    /// let delivery = store.producer().send(&orders, Record::new("paid").key("order-42"))?;
    ///
    /// let partition = orders.partition(0)?;
    /// let message = partition.read(0)?;
    /// assert_eq!(message.as_ref().and_then(|message| message.value()), Some(&b"paid"[..]));
    /// assert!(partition.read(1)?.is_none());
    /// assert!(partition.read(-1).is_err());
    /// # delivery.wait()?;
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn read(&self, offset: i64) -> Result<Option<OwnedMessage>> {
        let (source, open) = self.for_reading()?;
        open.refresh()?;
        match open.point(offset)? {
            Point::Found(found) => Ok(OwnedMessage::at(Arc::clone(source), &found)),
            Point::Nothing => Ok(None),
            Point::OutOfRange { start, end } => Err(Error::OffsetOutOfRange {
                topic: self.topic().name().to_owned(),
                partition: self.partition(),
                offset,
                start,
                end,
            }),
        }
    }
}
