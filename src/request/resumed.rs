//! Replies to earlier lives.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::assignment::OffsetReset;
use crate::assignment::Start;
use crate::consumer::Consumer;
use crate::consumer_builder::ConsumerBuilder;
use crate::error::Result;
use crate::records::OwnedMessage;
use crate::request::correlation::Author;
use crate::request::correlation::Whose;
use crate::request::names::ReplyHeaders;
use crate::topic::TopicPartition;

/// The replies to requests of earlier lives of a requester's identity, in the order in which they came.
///
/// Which request each belongs to, its correlation id tells, and its key, which is the request's unless the responder
/// chose another. A reply that is an error has the header for that. Each counts as dealt with once the next one is
/// asked for; the requester's [commit](crate::Requester::commit) goes no further than that.
///
/// ```
/// use std::time::Duration;
/// use ottla::{Error, Record, Reply, Store, TopicConfig};
///
/// let store = Store::temporary()?;
/// let questions = store.create_topic("questions", TopicConfig::new())?;
/// let requester = store.requester(&questions).identity("front desk").build()?;
/// let _unanswered = requester.request(Record::new("6 * 7").key("first"))?;
/// drop(requester); // as if the process had ended
///
/// let _answering = store.responder(&questions, "g").start(|_| Ok::<_, Error>(Reply::new("42")))?;
/// let requester = store.requester(&questions).identity("front desk").build()?;
/// let mut resumed = requester.resume()?;
/// let reply = resumed.next_reply(Duration::from_secs(10))?.expect("it is answered now");
/// assert_eq!((reply.key(), reply.value()), (Some(&b"first"[..]), Some(&b"42"[..])));
/// assert!(resumed.next_reply(Duration::ZERO)?.is_none());
/// # Ok::<(), Error>(())
/// ```
pub struct Resumed {
    consumer: Consumer,
    partition: TopicPartition,
    author: Author,
    names: ReplyHeaders,
    buffer: VecDeque<OwnedMessage>,
    /// Everything in front was dealt with; shared with the requester.
    progress: Arc<AtomicI64>,
}

impl Resumed {
    pub(crate) fn new(
        consumer: ConsumerBuilder,
        (partition, offset): (TopicPartition, i64),
        author: Author,
        names: ReplyHeaders,
        progress: Arc<AtomicI64>,
    ) -> Result<Resumed> {
        let consumer = consumer.reset(OffsetReset::Earliest);
        let consumer = consumer.assign([(partition.clone(), Start::Offset(offset))])?;
        progress.store(offset, Ordering::Relaxed);
        Ok(Resumed { consumer, partition, author, names, buffer: VecDeque::new(), progress })
    }

    /// Gives the next reply to an earlier life, at once if there is one, else as soon as there is; `None` if the time is
    /// up.
    ///
    /// # Errors
    ///
    /// * As [`Consumer::poll`](crate::Consumer::poll). What is damaged is passed over by the next call, if anything is
    ///   known to follow it.
    pub fn next_reply(&mut self, timeout: Duration) -> Result<Option<OwnedMessage>> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if let Some(message) = self.buffer.pop_front() {
                self.progress.store(message.offset(), Ordering::Relaxed);
                if self.is_to_earlier_life(&message) {
                    return Ok(Some(message));
                }
                continue;
            }
            self.progress.store(self.consumer.position(&self.partition)?, Ordering::Relaxed);
            let left =
                deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            let records = match self.consumer.poll(left) {
                Ok(records) => records,
                Err(error) => {
                    if let Some(resume) = error.resume_offset() {
                        self.consumer.seek(&self.partition, resume)?;
                    }
                    return Err(error);
                }
            };
            if records.is_empty() {
                return Ok(None);
            }
            self.buffer.extend(records.iter().map(|message| message.detach()));
        }
    }

    fn is_to_earlier_life(&self, message: &OwnedMessage) -> bool {
        let ids = message.headers().filter(|h| h.key == self.names.correlation_id_name());
        let id = ids.last().and_then(|header| header.value);
        id.is_some_and(|id| self.author.whose(id) == Whose::OtherLife)
    }
}

impl fmt::Debug for Resumed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resumed").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}
