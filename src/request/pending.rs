//! The reply that is not there yet.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use crate::delivery::Delivery;
use crate::error::Error;
use crate::error::Result;
use crate::records::OwnedMessage;
use crate::request::correlation::ID_LEN;
use crate::request::inbox::Ending;
use crate::request::inbox::Inbox;
use crate::request::inbox::ReplySlot;
use crate::request::pending_table::Key;
use crate::request::pending_table::Outcome;
use crate::request::vigil::Watched;
use crate::topic::TopicPartition;

/// The promise of a reply. Wait for it on a thread, or `.await` it in a task of any runtime.
///
/// Dropping it forgets the request: what was sent is answered all the same, and the reply is counted as late. How long
/// to wait is the caller's to say; without a limit, waiting for a reply that never comes never ends, unless a topic is
/// deleted, or the requester or the store is closed.
///
/// Under [`Durability::Synced`](crate::Durability::Synced) it completes once the request and the reply are on stable
/// storage, under the other levels as soon as the reply is in the log.
///
/// ```
/// use std::time::Duration;
/// use ottla::{Error, Reply, Store, TopicConfig};
///
/// let store = Store::temporary()?;
/// let questions = store.create_topic("questions", TopicConfig::new())?;
/// let requester = store.requester(&questions).build()?;
/// let mut pending = requester.request("6 * 7")?;
/// let early = pending.wait_timeout(Duration::from_millis(1));
/// assert!(matches!(early, Err(Error::Timeout { .. }))); // nobody answers yet; it may be waited for again
///
/// let _answering = store.responder(&questions, "g").start(|_| Ok::<_, Error>(Reply::new("42")))?;
/// assert_eq!(pending.wait()?.value(), Some(&b"42"[..]));
/// # Ok::<(), Error>(())
/// ```
pub struct Pending {
    ticket: Ticket,
    delivery: Delivery,
    /// The reply's partition, with what keeps the store open.
    source: Arc<TopicPartition>,
    is_delivered: bool,
    /// It is a task that waits, and is counted among the sleepers.
    is_asleep: bool,
}

/// A place in the table, given back when it is dropped.
pub(crate) struct Ticket {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) key: Key,
    pub(crate) slot: Arc<ReplySlot>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.slot.outcome().is_none() {
            self.inbox.table.forget(&self.key);
        }
    }
}

impl Pending {
    pub(crate) fn new(ticket: Ticket, delivery: Delivery, source: Arc<TopicPartition>) -> Pending {
        let is_delivered = delivery.is_done();
        Pending { ticket, delivery, source, is_delivered, is_asleep: false }
    }

    /// Blocks until the reply is there.
    ///
    /// # Errors
    ///
    /// * [`Error::RequestFailed`] if the responder says that there is no answer: its handler failed or panicked, or
    ///   what it answered was too large.
    /// * [`Error::RequesterClosed`], [`Error::Closed`], [`Error::TopicDeleted`]: nobody is left who would tell.
    /// * [`Error::Latched`] if the request did not become durable.
    /// * [`Error::Unavailable`] if the reply partition cannot be read.
    pub fn wait(mut self) -> Result<OwnedMessage> {
        if !self.is_delivered {
            self.delivery.clone().wait()?;
            self.is_delivered = true;
        }
        match self.wait_until(None) {
            Some(reply) => reply,
            None => Err(Error::Timeout { what: WHAT }),
        }
    }

    /// As [`wait`](Self::wait), but no longer than `timeout`. The reply may be asked for again, also when it was given.
    ///
    /// # Errors
    ///
    /// * [`Error::Timeout`] if time was up. It says nothing of whether the request was or will be dealt with.
    /// * As [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<OwnedMessage> {
        let deadline = Instant::now().checked_add(timeout);
        if !self.is_delivered {
            self.delivery.wait_timeout(timeout)?;
            self.is_delivered = true;
        }
        self.wait_until(deadline).unwrap_or(Err(Error::Timeout { what: WHAT }))
    }

    /// Gives the promise that the request itself becomes durable; where it was written, it tells, too.
    pub fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// Gives the correlation id that the request carries, and its reply will.
    pub fn correlation_id(&self) -> Vec<u8> {
        self.ticket.id().to_vec()
    }

    /// Tells whether waiting would return at once.
    pub fn is_ready(&self) -> bool {
        if self.ticket.slot.outcome().is_none() {
            self.ticket.inbox.empty();
        }
        self.ticket.slot.outcome().is_some()
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Option<Result<OwnedMessage>> {
        let Ticket { inbox, slot, .. } = &self.ticket;
        while slot.outcome().is_none() {
            if inbox.has_news() {
                inbox.empty();
            }
            if slot.outcome().is_none() && !inbox.stay_awake(slot) {
                let _asleep = Asleep::of(inbox);
                let outcome = slot.wait_until(deadline);
                return outcome.map(|outcome| self.unpack(outcome));
            }
        }
        slot.outcome().map(|outcome| self.unpack(outcome))
    }

    fn unpack(&self, outcome: &Outcome<OwnedMessage, Ending>) -> Result<OwnedMessage> {
        match outcome {
            Outcome::Answered(message) => Ok(message.clone().with_source(&self.source)),
            Outcome::Refused(reason) => Err(Error::RequestFailed { reason: Arc::clone(reason) }),
            Outcome::Over(why) => Err(why.error()),
        }
    }
}

/// A thread that sleeps.
pub(crate) struct Asleep<'i>(&'i Inbox);

impl<'i> Asleep<'i> {
    pub(crate) fn of(inbox: &'i Inbox) -> Asleep<'i> {
        // Counted by the guard: what is read on falling asleep may panic, in somebody's waker.
        let asleep = Asleep(inbox);
        inbox.fall_asleep();
        asleep
    }
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        self.0.wake_up();
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.is_asleep {
            self.ticket.inbox.wake_up();
        }
    }
}

const WHAT: &str = "a reply";

impl Future for Pending {
    type Output = Result<OwnedMessage>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.is_delivered {
            match Pin::new(&mut self.delivery).poll(context) {
                Poll::Ready(Ok(_)) => self.is_delivered = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        let pending = &mut *self;
        let Ticket { inbox, slot, .. } = &pending.ticket;
        if slot.poll(context.waker()).is_none() {
            match std::mem::replace(&mut pending.is_asleep, true) {
                true => inbox.empty(),
                false => inbox.fall_asleep(),
            }
        }
        if slot.outcome().is_some() && std::mem::take(&mut pending.is_asleep) {
            inbox.wake_up();
        }
        match slot.outcome() {
            Some(outcome) => Poll::Ready(pending.unpack(outcome)),
            None => Poll::Pending,
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("key", &self.ticket.key)
            .field("is_ready", &self.is_ready())
            .finish_non_exhaustive()
    }
}

impl Ticket {
    /// Gives the correlation id, whoever chose it.
    pub(crate) fn id(&self) -> CorrelationId<'_> {
        match &self.key {
            Key::Number(number) => CorrelationId::Ours(self.inbox.author.id(*number)),
            Key::Given(id) => CorrelationId::Given(id),
        }
    }
}

pub(crate) enum CorrelationId<'t> {
    Ours([u8; ID_LEN]),
    Given(&'t [u8]),
}

impl std::ops::Deref for CorrelationId<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            CorrelationId::Ours(id) => id,
            CorrelationId::Given(id) => id,
        }
    }
}
