//! Where a requester's replies arrive.
//!
//! There is no thread for it. One who waits for a reply reads what has arrived, for itself and for all others, and stays
//! awake for a moment if that has been of use; before it sleeps it has a bell armed, and from then on the thread that
//! rings it, the one that appended a reply or made it durable, reads and wakes those whom it concerns. So a reply costs
//! its waiter one wake-up, as over a bare channel.
//!
//! **Invariant (holds nothing open).** The thread that rings may be one of the store's own, and must never be the last
//! to hold the store. So the inbox holds the partition, and not what keeps the directory open; what it hands out gets
//! that from the one who waits.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::slice;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Wake;
use std::task::Waker;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::assignment::Isolation;
use crate::error::Error;
use crate::name::TopicName;
use crate::partition::Partition;
use crate::partition::fetch::Cursor;
use crate::partition::fetch::Fetched;
use crate::partition::fetch::Limits;
use crate::partition::fetch::ReadOutcome;
use crate::partition::unpacking::Unpacking;
use crate::partition::watermarks;
use crate::records::Messages;
use crate::records::OwnedMessage;
use crate::records::Part;
use crate::request::correlation::Author;
use crate::request::correlation::Whose;
use crate::request::names::ReplyHeaders;
use crate::request::pending_table::Outcome;
use crate::request::pending_table::PendingTable;
use crate::request::pending_table::Slot;
use crate::request::vigil::Vigil;
use crate::request::vigil::Watched;
use crate::spin::Spin;
use crate::storage::verified::Checks;
use crate::topic::TopicPartition;
use crate::topic_state::TopicState;
use crate::topics::Topics;

/// Where a requester's replies arrive, and who waits for them.
pub(crate) struct Inbox {
    pub(crate) table: PendingTable<OwnedMessage, Ending>,
    pub(crate) author: Author,
    pub(crate) names: ReplyHeaders,
    pub(crate) counts: Counts,
    topics: Arc<Topics>,
    requests: Arc<TopicState>,
    replies: Arc<TopicState>,
    partition: Arc<Partition>,
    /// The partition for messages on their way, without what keeps the store open.
    source: Arc<TopicPartition>,
    isolation: Isolation,
    vigil: Vigil,
    /// Only who has the turn takes it. Lock rank 8: one look.
    reader: Mutex<Option<Reader>>,
    /// The first panic of a waker since one was told. Lock rank 8.
    panicked: Mutex<Panicked>,
    /// There is one. Stored with Release behind it, loaded with Acquire.
    has_panicked: AtomicBool,
    /// Everything below was dealt with. Stored with Release by who has the turn, loaded with Acquire.
    position: AtomicI64,
    /// Everything below this end was looked at, though no reader could have it yet: the end lay within a batch. Stored
    /// and loaded likewise.
    looked_to: AtomicI64,
    /// Nothing is read any more. Stored with Release, loaded with Acquire.
    is_over: AtomicBool,
    /// Whether it pays to stay awake for a reply; one waiter at a time does. Lock rank 9: tried only.
    spin: Mutex<Spin>,
}

pub(crate) type ReplySlot = Slot<OwnedMessage, Ending>;

/// Why nobody will answer any more.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    RequesterClosed,
    StoreClosed,
    TopicDeleted(TopicName),
    Unreadable(PathBuf, Arc<str>),
}

/// What has come of the replies. Relaxed throughout: numbers that order nothing.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) answered: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(crate) other_life: AtomicU64,
    pub(crate) others: AtomicU64,
    pub(crate) uncorrelated: AtomicU64,
    pub(crate) unreadable: AtomicU64,
}

/// What an inbox is made of.
pub(crate) struct Opening {
    pub(crate) topics: Arc<Topics>,
    pub(crate) requests: Arc<TopicState>,
    pub(crate) replies: Arc<TopicState>,
    pub(crate) partition: Arc<Partition>,
    pub(crate) number: u32,
    pub(crate) isolation: Isolation,
    pub(crate) author: Author,
    pub(crate) names: ReplyHeaders,
    pub(crate) in_flight_max: usize,
    pub(crate) spin: Duration,
}

struct Reader {
    cursor: Cursor,
    unpacking: Unpacking,
}

/// What the bell wakes.
struct Postman(Weak<Inbox>);

impl Wake for Postman {
    fn wake(self: Arc<Self>) {
        if let Some(inbox) = self.0.upgrade() {
            inbox.empty();
        }
    }
}

impl Ending {
    pub(crate) fn error(&self) -> Error {
        match self {
            Ending::RequesterClosed => Error::RequesterClosed,
            Ending::StoreClosed => Error::Closed,
            Ending::TopicDeleted(name) => Error::TopicDeleted { name: name.to_string() },
            Ending::Unreadable(path, reason) => {
                Error::Unavailable { path: path.clone(), reason: Arc::clone(reason) }
            }
        }
    }
}

impl Inbox {
    /// Makes an inbox that receives what is appended from now on.
    pub(crate) fn open(opening: Opening) -> Arc<Inbox> {
        let source = TopicPartition::new(
            Arc::clone(&opening.replies),
            Arc::clone(&opening.topics),
            Arc::new(()),
            opening.number,
        );
        let position = opening.partition.watermarks().log_end();
        let reader = Reader { cursor: Cursor::at(position), unpacking: Unpacking::default() };
        let inbox = Arc::new_cyclic(|inbox: &Weak<Inbox>| Inbox {
            table: PendingTable::new(opening.in_flight_max),
            author: opening.author,
            names: opening.names,
            counts: Counts::default(),
            topics: opening.topics,
            requests: opening.requests,
            replies: opening.replies,
            partition: opening.partition,
            source: Arc::new(source),
            isolation: opening.isolation,
            vigil: Vigil::new(Waker::from(Arc::new(Postman(inbox.clone())))),
            reader: Mutex::new(Some(reader)),
            panicked: Mutex::new(None),
            has_panicked: AtomicBool::new(false),
            position: AtomicI64::new(position),
            looked_to: AtomicI64::new(position),
            is_over: AtomicBool::new(false),
            spin: Mutex::new(Spin::new(opening.spin)),
        });
        inbox.partition.doorbells().hang(inbox.vigil.bell());
        inbox.topics.changing().hang(inbox.vigil.bell());
        inbox.topics.closing().hang(inbox.vigil.bell());
        inbox
    }

    /// Has everything read that is there, and whoever waits for it told; on any thread, under no lock.
    pub(crate) fn empty(&self) {
        self.vigil.attend(self);
        self.pass_on_panic();
    }

    #[cfg(test)]
    pub(crate) fn bell(&self) -> &Arc<crate::partition::watermarks::Doorbell> {
        self.vigil.bell()
    }

    /// Counts one who is about to sleep, and sees to it that it is woken.
    pub(crate) fn fall_asleep(&self) {
        self.vigil.fall_asleep();
        self.empty();
    }

    /// Counts one who is awake again.
    pub(crate) fn wake_up(&self) {
        self.vigil.wake_up();
    }

    /// Ends it: everyone who waits is told why, and nobody waits any more.
    pub(crate) fn end(&self, why: Ending) {
        // What has come has come.
        self.vigil.attend(self);
        self.is_over.store(true, Ordering::Release);
        self.end_table(&why);
        self.partition.doorbells().take_down(self.vigil.bell());
        self.topics.changing().take_down(self.vigil.bell());
        self.topics.closing().take_down(self.vigil.bell());
        self.pass_on_panic();
    }

    /// Everything below this offset was dealt with.
    pub(crate) fn position(&self) -> i64 {
        self.position.load(Ordering::Acquire)
    }

    /// Stays awake for a moment, if that pays and nobody else does; tells whether there is something to read, or the slot
    /// has its outcome.
    pub(crate) fn stay_awake(&self, slot: &ReplySlot) -> bool {
        let has_come = || slot.outcome().is_some() || self.has_news();
        let Some(mut spin) = self.spin.try_lock() else { return false };
        if spin.until(has_come) {
            return true;
        }
        drop(spin);
        // With more threads than cores the one who answers may be waiting for this one's turn, and then answers more
        // than one.
        thread::yield_now();
        has_come()
    }

    fn read(&self, reader: &mut Reader) {
        loop {
            if self.is_over.load(Ordering::Acquire) {
                return;
            }
            if let Some(why) = self.whether_over() {
                return self.give_up(&why);
            }
            let bound = self.isolation.bound(&self.partition);
            if reader.cursor.position.max(self.looked_to.load(Ordering::Acquire)) >= bound {
                return;
            }
            let limits = Limits { bytes: READ_LEN, records: usize::MAX };
            let (cursor, unpacking) = (&mut reader.cursor, &mut reader.unpacking);
            match self.partition.read(cursor, limits, bound, Checks::All, unpacking) {
                Ok(ReadOutcome::Records(fetched)) => self.hand_out(fetched),
                Ok(ReadOutcome::AtEnd) => self.looked_to.store(bound, Ordering::Release),
                // The front of the log went, and with it replies that nobody can have any more.
                Ok(ReadOutcome::OutOfRange) => {
                    reader.cursor = Cursor::at(self.partition.watermarks().log_start());
                }
                Err(Error::Corrupt { resume: Some(resume), .. })
                | Err(Error::UnsupportedCompression { resume, .. }) => {
                    self.counts.unreadable.fetch_add(1, Ordering::Relaxed);
                    reader.cursor = Cursor::at(resume);
                }
                Err(error) => {
                    let reason: Arc<str> = error.to_string().into();
                    // If it is because of the end of everything, that is what is to be told.
                    let unreadable =
                        || Ending::Unreadable(self.partition.directory().to_path_buf(), reason);
                    return self.give_up(&self.whether_over().unwrap_or_else(unreadable));
                }
            }
            self.position.store(reader.cursor.position, Ordering::Release);
        }
    }

    fn hand_out(&self, fetched: Fetched) {
        let part = Part { source: Arc::clone(&self.source), fetched, lease: None };
        for message in Messages::new(slice::from_ref(&part)) {
            let envelope = self.names.envelope_of(&message);
            let Some(slot) = self.waiting_for(envelope.correlation_id) else { continue };
            let outcome = match envelope.error {
                None => Outcome::Answered(message.detach()),
                Some(reason) => Outcome::Refused(String::from_utf8_lossy(reason).into()),
            };
            let count = match &outcome {
                Outcome::Answered(_) => &self.counts.answered,
                _ => &self.counts.refused,
            };
            count.fetch_add(1, Ordering::Relaxed);
            self.complete(&slot, outcome);
        }
    }

    /// Takes out whoever waits for a reply; counts it if nobody does.
    fn waiting_for(&self, correlation_id: Option<&[u8]>) -> Option<Arc<ReplySlot>> {
        let counts = &self.counts;
        let Some(id) = correlation_id else {
            counts.uncorrelated.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let (slot, count) = match self.author.whose(id) {
            Whose::Ours(number) => (self.table.take(number), &counts.late),
            Whose::OtherLife => (self.table.take_given(id), &counts.other_life),
            Whose::Others => (self.table.take_given(id), &counts.others),
        };
        if slot.is_none() {
            count.fetch_add(1, Ordering::Relaxed);
        }
        slot
    }

    fn whether_over(&self) -> Option<Ending> {
        if self.topics.refuse_if_closed().is_err() {
            return Some(Ending::StoreClosed);
        }
        let is_gone = |topic: &&Arc<TopicState>| topic.is_deleted();
        let gone = [&self.replies, &self.requests].into_iter().find(is_gone);
        if let Some(topic) = gone {
            return Some(Ending::TopicDeleted(topic.name.clone()));
        }
        let is_deleted = self.partition.is_deleted();
        is_deleted.then(|| Ending::TopicDeleted(self.replies.name.clone()))
    }

    fn give_up(&self, why: &Ending) {
        self.is_over.store(true, Ordering::Release);
        self.end_table(why);
    }

    fn end_table(&self, why: &Ending) {
        for slot in self.table.end(why.clone()) {
            self.complete(&slot, Outcome::Over(why.clone()));
        }
    }

    /// Completes a slot. What it wakes is the application's code: if that panics, the others are told all the same.
    fn complete(&self, slot: &ReplySlot, outcome: Outcome<OwnedMessage, Ending>) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| slot.complete(outcome))) {
            self.panicked.lock().get_or_insert(panic);
            self.has_panicked.store(true, Ordering::Release);
        }
    }

    /// A waker's panic goes to a thread that woke, as everywhere.
    fn pass_on_panic(&self) {
        if !self.has_panicked.load(Ordering::Acquire) {
            return;
        }
        let panicked = self.panicked.lock().take();
        if let Some(panic) = panicked.filter(|_| !thread::panicking()) {
            resume_unwind(panic);
        }
    }
}

impl Watched for Inbox {
    fn read_all(&self) {
        let Some(mut reader) = self.reader.lock().take() else { return };
        self.read(&mut reader);
        *self.reader.lock() = Some(reader);
    }

    fn arm(&self) {
        self.partition.doorbells().arm();
        self.topics.changing().arm();
        watermarks::armed();
        if self.isolation == Isolation::Durable {
            // Whoever appended it may not wait for it.
            self.partition.hasten();
        }
    }

    fn has_news(&self) -> bool {
        if self.is_over.load(Ordering::Acquire) {
            return false;
        }
        let is_behind = || {
            let seen = self.position().max(self.looked_to.load(Ordering::Acquire));
            seen < self.isolation.bound(&self.partition)
        };
        is_behind() || self.whether_over().is_some()
    }
}

/// What a waker panicked with.
type Panicked = Option<Box<dyn std::any::Any + Send>>;

/// How much is read at a time; one batch always comes whole.
const READ_LEN: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use crate::Record;
    use crate::Store;
    use crate::TopicConfig;
    use crate::request::names::Address;
    use crate::request::names::ReplyHeaders;
    use std::time::Duration;

    #[test]
    fn an_address_is_read_from_the_last_headers_of_their_names() {
        let store = Store::temporary().unwrap();
        let topic = store.create_topic("t", TopicConfig::new()).unwrap();
        let names = ReplyHeaders::new();
        let (id, topic_name, number) =
            ("kafka_correlationId", "kafka_replyTopic", "kafka_replyPartition");
        let two = [0, 0, 0, 2];
        let records = [
            Record::new("no header"),
            Record::new("all").header(id, "c").header(topic_name, "r").header(number, &two),
            Record::new("no partition").header(topic_name, "r").header(id, "c"),
            Record::new("no id").header(topic_name, "r"),
            Record::new("null topic").null_header(topic_name),
            Record::new("empty topic").header(topic_name, ""),
            Record::new("not UTF-8").header(topic_name, &[0xff]),
            Record::new("odd partition").header(topic_name, "r").header(number, "2"),
            Record::new("null partition").header(topic_name, "r").null_header(number),
            Record::new("twice").header(topic_name, "q").header(topic_name, "r").header(id, "c"),
        ];
        let to = |partition, correlation_id| Address::To { topic: "r", partition, correlation_id };
        let expected = [
            Address::Nowhere,
            to(Some(2), Some(&b"c"[..])),
            to(None, Some(&b"c"[..])),
            to(None, None),
            Address::Unclear,
            Address::Unclear,
            Address::Unclear,
            Address::Unclear,
            Address::Unclear,
            to(None, Some(&b"c"[..])),
        ];
        let partition = topic.partition(0).unwrap();
        store.producer().send_batch(&partition, records).unwrap();
        let mut consumer = store.consumer().assign([partition]).unwrap();
        let read = consumer.poll(Duration::from_secs(10)).unwrap();
        assert_eq!(read.count(), expected.len());
        for (message, expected) in read.iter().zip(expected) {
            assert_eq!(names.address_of(&message), expected, "{message:?}");
        }
    }
}
