//! Asking: a request is entered, sent, and its reply comes to the one who asked.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::consumer_builder::ConsumerBuilder;
use crate::coordinator::Coordinator;
use crate::coordinator::committed::OffsetAndMetadata;
use crate::coordinator::group::Commit;
use crate::coordinator::group::Committer;
use crate::error::Error;
use crate::error::Result;
use crate::partition::Partition;
use crate::producer::Producer;
use crate::record::Header;
use crate::record::Record;
use crate::request::claims::IdentityClaim;
use crate::request::claims::PartitionClaim;
use crate::request::correlation::Author;
use crate::request::inbox::Ending;
use crate::request::inbox::Inbox;
use crate::request::inbox::ReplySlot;
use crate::request::names::ReplyHeaders;
use crate::request::names::partition_bytes;
use crate::request::names::partition_from;
use crate::request::pending::Asleep;
use crate::request::pending::Pending;
use crate::request::pending::Ticket;
use crate::request::pending_table::Key;
use crate::request::pending_table::Refusal;
use crate::request::resumed::Resumed;
use crate::topic::Topic;
use crate::topic::TopicPartition;

/// Sends requests and receives their replies. Cloning it is cheap, and all clones are one requester; use it from any
/// thread.
///
/// Replies arrive without a thread of their own: one who waits and is awake reads them, or else the thread that appends
/// them, and wakes the one who asked. Nothing is lost between a request and
/// the wait for its reply, however soon it comes; nothing is polled while nothing comes. When the last clone is
/// dropped, everyone who still waits is told ([`Error::RequesterClosed`]).
///
/// ```
/// use ottla::{Error, Record, Reply, Store, TopicConfig};
///
/// let store = Store::temporary()?;
/// let prices = store.create_topic("prices", TopicConfig::new().partitions(3))?;
/// let _pricing = store.responder(&prices, "pricing").start(|request| match request.key() {
///     Some(b"apple") => Ok(Reply::new("1.20")),
///     _ => Err("not in stock"),
/// })?;
///
/// let requester = store.requester(&prices).build()?;
/// let apple = requester.request(Record::new("what is it?").key("apple"))?;
/// let pear = requester.request(Record::new("what is it?").key("pear"))?; // both are in flight
/// assert_eq!(apple.wait()?.value(), Some(&b"1.20"[..]));
/// let refused = pear.wait().unwrap_err();
/// assert!(matches!(&refused, Error::RequestFailed { reason } if &**reason == "not in stock"));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Requester {
    shared: Arc<RequesterState>,
}

/// What all clones of a requester share.
pub(crate) struct RequesterState {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) producer: Producer,
    pub(crate) requests: Topic,
    /// Where replies are to go; keeps the store open.
    pub(crate) source: Arc<TopicPartition>,
    pub(crate) partition: Arc<Partition>,
    pub(crate) max_block: Duration,
    pub(crate) consumer: ConsumerBuilder,
    pub(crate) identity: Option<Identity>,
    pub(crate) _partition_claim: PartitionClaim,
}

/// What a requester with an identity has on record: how far it has come with its replies.
pub(crate) struct Identity {
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) name: Arc<str>,
    pub(crate) life: u64,
    /// Where replies begin that its earlier lives have not dealt with.
    pub(crate) resumes_at: i64,
    /// How far a resumption has come; behind everything while there is none. Relaxed: a number that orders nothing.
    pub(crate) resumed: Arc<AtomicI64>,
    pub(crate) _claim: IdentityClaim,
}

/// What has come of a requester's requests and replies, since it was built.
///
/// ```
/// # let store = ottla::Store::temporary()?;
/// # let topic = store.create_topic("t", ottla::TopicConfig::new())?;
/// let requester = store.requester(&topic).build()?;
/// let pending = requester.request("anybody there?")?;
/// assert_eq!(requester.status().in_flight, 1);
/// drop(pending);
/// assert_eq!(requester.status().in_flight, 0);
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequesterStatus {
    /// Requests that somebody waits for, or holds the [`Pending`] of, and that have no reply yet.
    pub in_flight: usize,
    /// Replies that reached the one who asked.
    pub answered: u64,
    /// Replies that said that there is no answer, and reached the one who asked.
    pub refused: u64,
    /// Replies that nobody waited for any more: their request was given up, or was answered before.
    pub late: u64,
    /// Replies to earlier lives of this identity; [`Requester::resume`] gives them.
    pub earlier_lives: u64,
    /// Replies that are not this requester's, in a partition that it shares with others.
    pub others: u64,
    /// Records without a correlation id among the replies.
    pub uncorrelated: u64,
    /// Damaged or unreadable batches among the replies, which were passed over.
    pub unreadable: u64,
}

impl Requester {
    pub(crate) fn new(shared: RequesterState) -> Requester {
        Requester { shared: Arc::new(shared) }
    }

    /// Sends a request and returns the promise of its reply.
    ///
    /// Blocks as [`Producer::send`](crate::Producer::send) does, and while as many requests are in flight as are
    /// allowed, if [`max_block`](crate::RequesterBuilder::max_block) says so. On return the request is in the log and
    /// survives the end of the process; a responder that comes later answers it.
    ///
    /// The headers for the reply are added. A correlation id that the record has already is kept, so that the
    /// application may choose its own.
    ///
    /// # Errors
    ///
    /// In each case nobody waits for a reply, and nothing was sent unless said otherwise.
    ///
    /// * [`Error::TooManyRequests`].
    /// * [`Error::InvalidArgument`] if the record's correlation id is null or in flight already, or if it wants its
    ///   reply elsewhere.
    /// * [`Error::TopicDeleted`] if either topic was deleted, [`Error::Unavailable`] if replies cannot be read.
    /// * As [`Producer::send`](crate::Producer::send).
    pub fn request<'r>(&self, record: impl Into<Record<'r>>) -> Result<Pending> {
        let shared = &*self.shared;
        let inbox = &shared.inbox;
        let record: Record<'r> = record.into();
        let given = self.given_id(&record)?;
        let (key, slot) = self.enter(given).map_err(|refusal| self.refused(refusal))?;
        // From here on whatever fails takes it out again.
        let ticket = Ticket { inbox: Arc::clone(inbox), key, slot };
        let number = partition_bytes(shared.source.partition());
        let names = &inbox.names;
        let delivery = {
            let id = ticket.id();
            let mut record: Record<'_> = record;
            record.headers.reserve(3);
            let mut add = |key, value| record.headers.push(Header { key, value: Some(value) });
            if given.is_none() {
                add(names.correlation_id_name(), &*id);
            }
            add(names.reply_topic_name(), shared.source.topic().name().as_bytes());
            add(names.reply_partition_name(), &number[..]);
            shared.producer.send(&shared.requests, record)?
        };
        Ok(Pending::new(ticket, delivery, Arc::clone(&shared.source)))
    }

    /// Gives the partition that replies are sent to.
    pub fn reply_partition(&self) -> &TopicPartition {
        &self.shared.source
    }

    /// Tells what has come of requests and replies.
    pub fn status(&self) -> RequesterStatus {
        self.shared.inbox.empty();
        let (table, counts) = (&self.shared.inbox.table, &self.shared.inbox.counts);
        RequesterStatus {
            in_flight: table.len(),
            answered: counts.answered.load(Ordering::Relaxed),
            refused: counts.refused.load(Ordering::Relaxed),
            late: counts.late.load(Ordering::Relaxed),
            earlier_lives: counts.other_life.load(Ordering::Relaxed),
            others: counts.others.load(Ordering::Relaxed),
            uncorrelated: counts.uncorrelated.load(Ordering::Relaxed),
            unreadable: counts.unreadable.load(Ordering::Relaxed),
        }
    }

    /// Begins to give the replies that came to earlier lives of this identity, and those that are still to come to
    /// them, from where those lives had [come to](Self::commit). Replies that they did receive, but not commit, are
    /// among them.
    ///
    /// # Errors
    ///
    /// * [`Error::InvalidArgument`] if the requester has no [identity](crate::RequesterBuilder::identity).
    /// * As [`ConsumerBuilder::assign`](crate::ConsumerBuilder::assign).
    pub fn resume(&self) -> Result<Resumed> {
        let shared = &*self.shared;
        let Some(identity) = &shared.identity else {
            let reason = "the requester has none, so nothing of an earlier life can be its own";
            return Err(Error::InvalidArgument { argument: "identity", reason });
        };
        let inbox = &shared.inbox;
        let consumer = shared.consumer.clone();
        let progress = Arc::clone(&identity.resumed);
        let begin = (shared.source.as_ref().clone(), identity.resumes_at);
        Resumed::new(consumer, begin, inbox.author, inbox.names.clone(), progress)
    }

    /// Puts on record that the replies which came so far were dealt with: a later life that
    /// [resumes](Self::resume) begins behind them, or where a resumption that was begun stands. Durable on return.
    ///
    /// Dropping the last clone does the same. Without an identity it does nothing.
    ///
    /// # Errors
    ///
    /// * As [`Consumer::commit`](crate::Consumer::commit); nothing was put on record.
    pub fn commit(&self) -> Result<()> {
        self.shared.commit()
    }

    /// Ends the requester for all its clones: everyone who waits is told, and how far it had come is put on record.
    ///
    /// # Errors
    ///
    /// * As [`commit`](Self::commit). It has ended in any case.
    pub fn close(self) -> Result<()> {
        self.shared.inbox.end(Ending::RequesterClosed);
        self.shared.commit()
    }

    /// Enters a request in the table, waiting for room if that was said.
    fn enter(&self, given: Option<&[u8]>) -> Result<(Key, Arc<ReplySlot>), Refusal<Ending>> {
        let (inbox, max_block) = (&self.shared.inbox, self.shared.max_block);
        match inbox.table.enter(given, Duration::ZERO) {
            Err(Refusal::Full(_)) => {}
            entered => return entered,
        }
        // Replies that nobody has read yet make room.
        inbox.empty();
        if max_block.is_zero() {
            return inbox.table.enter(given, Duration::ZERO);
        }
        let _asleep = Asleep::of(inbox);
        inbox.table.enter(given, max_block)
    }

    /// Gives the correlation id that the application chose, and checks what else it says.
    fn given_id<'r>(&self, record: &Record<'r>) -> Result<Option<&'r [u8]>> {
        let refuse = |reason| Err(Error::InvalidArgument { argument: "record", reason });
        let names: &ReplyHeaders = &self.shared.inbox.names;
        let source = &self.shared.source;
        let mut given = None;
        for Header { key, value } in &record.headers {
            if *key == names.correlation_id_name() {
                match value {
                    Some(id) => given = Some(*id),
                    None => return refuse("its correlation id is null"),
                }
            } else if *key == names.reply_topic_name() {
                if *value != Some(source.topic().name().as_bytes()) {
                    return refuse("it wants its reply in another topic than the requester reads");
                }
            } else if *key == names.reply_partition_name()
                && value.and_then(partition_from) != Some(source.partition())
            {
                return refuse("it wants its reply in another partition than the requester reads");
            }
        }
        Ok(given)
    }

    #[cold]
    fn refused(&self, refusal: Refusal<Ending>) -> Error {
        match refusal {
            Refusal::Full(blocked) => {
                let limit = self.shared.inbox.table.count_max();
                Error::TooManyRequests { limit, blocked }
            }
            Refusal::Twice => {
                let reason = "a request with its correlation id is in flight";
                Error::InvalidArgument { argument: "record", reason }
            }
            Refusal::Over(why) => why.error(),
        }
    }
}

impl RequesterState {
    fn commit(&self) -> Result<()> {
        let Some(identity) = &self.identity else { return Ok(()) };
        self.inbox.empty();
        let reached = self.inbox.position().min(identity.resumed.load(Ordering::Relaxed));
        identity.put_on_record(&self.source, &self.partition, reached)
    }
}

impl Identity {
    /// Puts on record how far this life has come; durable on return.
    pub(crate) fn put_on_record(
        &self,
        source: &TopicPartition,
        partition: &Arc<Partition>,
        reached: i64,
    ) -> Result<()> {
        let noted = OffsetAndMetadata::new(reached).with_metadata(&life_text(self.life));
        let topic = Arc::clone(&source.topic().state);
        let (number, log) = (source.partition(), Arc::clone(partition));
        let group = self.coordinator.group(&self.name)?;
        let commit = Commit { topic, number, log, noted };
        match group.commit(self.coordinator.log(), Committer::Outsider, &[commit])? {
            Some(written) => written.wait(),
            None => Ok(()),
        }
    }
}

/// Spells the number of a life, as it is noted beside the offset.
fn life_text(life: u64) -> String {
    format!("{LIFE_FRONT}{life}")
}

/// Reads the number of a life; none is the one before the first.
pub(crate) fn life_from(metadata: &str) -> u64 {
    metadata.strip_prefix(LIFE_FRONT).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

const LIFE_FRONT: &str = "ottla requester, life ";

impl Drop for RequesterState {
    fn drop(&mut self) {
        self.inbox.end(Ending::RequesterClosed);
        // Nobody is left to tell: what is not on record is given again to one who resumes.
        drop(self.commit());
    }
}

impl fmt::Debug for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requester")
            .field("requests", &self.shared.requests.name())
            .field("replies", &format_args!("{}", self.shared.source))
            .field("identity", &self.shared.identity.as_ref().map(|identity| &identity.name))
            .finish_non_exhaustive()
    }
}

/// Makes the author of a life.
pub(crate) fn author(identity: Option<(&str, u64)>) -> Author {
    identity.map_or_else(Author::random, |(name, life)| Author::of_identity(name, life))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;
    use crate::TopicConfig;
    use std::future::Future;
    use std::pin::Pin;
    use std::task::Context;
    use std::task::Waker;

    #[test]
    fn a_requester_that_goes_leaves_nothing_behind_and_neither_does_a_task_that_gave_up() {
        let store = Store::temporary().unwrap();
        let topic = store.create_topic("t", TopicConfig::new()).unwrap();
        let requester = store.requester(&topic).build().unwrap();
        let inbox = Arc::downgrade(&requester.shared.inbox);
        let bell = Arc::downgrade(requester.shared.inbox.bell());
        let mut pending: Vec<Pending> = (0..3).map(|_| requester.request("q").unwrap()).collect();
        for pending in &mut pending {
            pending.delivery().clone().wait().unwrap();
            let mut context = Context::from_waker(Waker::noop());
            assert!(Pin::new(pending).poll(&mut context).is_pending());
        }
        drop(pending.pop());
        assert_eq!(requester.status().in_flight, 2);
        // The bell hangs at the partition, and at the registry twice; the inbox has it, too.
        assert_eq!(bell.strong_count(), 4);
        drop(requester);
        assert_eq!(bell.strong_count(), 1);
        assert!(pending.iter().all(Pending::is_ready));
        drop(pending);
        assert_eq!((inbox.strong_count(), bell.strong_count()), (0, 0));
    }
}
