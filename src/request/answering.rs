//! A responder's thread: it reads, has the request handled, appends the reply, and commits later.
//!
//! | step | if the process ends behind it |
//! | --- | --- |
//! | the request is read | it is read again |
//! | it was handled | it is handled again |
//! | the reply is appended | it is handled again, and there are two replies: the one who asked hears the first |
//! | the offset is committed | done; the reply is durable |

use std::any::Any;
use std::collections::HashMap;
use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use crate::config::Durability;
use crate::consumer::Consumer;
use crate::error::Error;
use crate::error::Result;
use crate::partition::Partition;
use crate::producer::Producer;
use crate::record::Header;
use crate::record::Record;
use crate::records::Message;
use crate::records::Records;
use crate::request::names::Address;
use crate::request::names::ReplyHeaders;
use crate::request::progress;
use crate::request::progress::Progress;
use crate::request::progress::Stretch;
use crate::request::reply::Reply;
use crate::request::responder_state::ResponderState;
use crate::topic::KeepOpen;
use crate::topic::Topic;
use crate::topics::Topics;
use crate::wakeup::Wakeup;

/// One thread's part of a responder.
pub(crate) struct Answering<H> {
    consumer: Consumer,
    producer: Producer,
    handler: Arc<H>,
    names: ReplyHeaders,
    shared: Arc<ResponderState>,
    progress: Arc<Mutex<Progress>>,
    topics: Arc<Topics>,
    keep_open: KeepOpen,
    /// Topics that replies went to.
    known: HashMap<String, Topic>,
    /// The topic that the latest reply went to, and its partition there.
    latest: Option<Topic>,
    log: Option<(u32, Arc<Partition>)>,
    commit_interval: Duration,
    commit_due: Instant,
}

/// What a request comes to.
enum Answer {
    Reply(Reply),
    /// There is none, and why.
    Error(String),
}

/// What became of an answer.
enum Sent {
    /// It is in the log, or it is certain that it never will be.
    Done,
    /// The end was asked for before it could be appended.
    Stopped,
}

impl<H, E> Answering<H>
where
    H: Fn(&Message<'_>) -> Result<Reply, E>,
    E: Display,
{
    #[expect(clippy::too_many_arguments, reason = "it is made in one place, of what lies there")]
    pub(crate) fn new(
        consumer: Consumer,
        producer: Producer,
        handler: Arc<H>,
        names: ReplyHeaders,
        shared: Arc<ResponderState>,
        progress: Arc<Mutex<Progress>>,
        (topics, keep_open): (Arc<Topics>, KeepOpen),
        commit_interval: Duration,
    ) -> Answering<H> {
        Answering {
            consumer,
            producer,
            handler,
            names,
            shared,
            progress,
            topics,
            keep_open,
            known: HashMap::new(),
            latest: None,
            log: None,
            commit_interval,
            commit_due: later(commit_interval),
        }
    }

    pub(crate) fn wakeup(&self) -> Wakeup {
        self.consumer.wakeup_handle()
    }

    /// Answers until the end is asked for, or the store is closed.
    ///
    /// # Errors
    ///
    /// * What cannot be got over; what was answered and could be committed is.
    pub(crate) fn run(mut self) -> Result<()> {
        let ended = match self.answer_all() {
            // The store's end is an end like others.
            Err(Error::Closed) => Ok(()),
            ended => ended,
        };
        let closed = match self.consumer.close() {
            // What was not committed is answered again.
            Err(Error::Closed | Error::CommitRefused { .. } | Error::TopicDeleted { .. }) => Ok(()),
            closed => closed,
        };
        self.shared.note_commit();
        ended.and(closed)
    }

    fn answer_all(&mut self) -> Result<()> {
        while !self.shared.is_stopping() {
            match self.consumer.poll(self.patience()) {
                Ok(records) => {
                    match self.answer(&records) {
                        // The requests' topic went; one of the same name may follow.
                        Err(Error::TopicDeleted { .. }) => {}
                        answered => answered?,
                    }
                    drop(records);
                    self.commit()?;
                }
                Err(Error::Wakeup) => self.commit()?,
                Err(error) => self.get_over(error)?,
            }
        }
        Ok(())
    }

    /// Gives how long to wait for requests: for ever, unless something waits to be committed.
    fn patience(&self) -> Duration {
        let is_committed = self.progress.lock().is_committed();
        if is_committed { Duration::MAX } else { self.commit_interval.max(LOOK_AGAIN_AFTER) }
    }

    fn answer(&mut self, records: &Records) -> Result<()> {
        let is_synced = self.producer.durability() == Durability::Synced;
        if is_synced {
            // Nobody acts on what a power cut may take back. The first who waits synchronises for all.
            for (partition, next) in records.next_offsets() {
                progress::wait_durable(&partition.open()?, next)?;
            }
        }
        for message in records {
            if self.shared.is_stopping() {
                return Ok(());
            }
            match self.answer_one(&message)? {
                Sent::Stopped => return Ok(()),
                Sent::Done => {
                    let next = message.offset() + 1;
                    self.progress.lock().note_request(message.topic_partition(), next)?;
                }
            }
        }
        // Offsets have holes.
        for (partition, next) in records.next_offsets() {
            self.progress.lock().note_request(partition, next)?;
        }
        if is_synced {
            let latest = self.progress.lock().latest_replies();
            latest.iter().try_for_each(|(log, end)| progress::wait_durable(log, *end))?;
        }
        Ok(())
    }

    fn answer_one(&mut self, message: &Message<'_>) -> Result<Sent> {
        let answer = self.handled(message);
        let counts = &self.shared.counts;
        match self.names.address_of(message) {
            Address::Nowhere => {
                counts.not_asked.fetch_add(1, Ordering::Relaxed);
                Ok(Sent::Done)
            }
            Address::Unclear => {
                counts.malformed.fetch_add(1, Ordering::Relaxed);
                Ok(Sent::Done)
            }
            Address::To { topic, partition, correlation_id } => {
                if correlation_id.is_none() {
                    counts.uncorrelated.fetch_add(1, Ordering::Relaxed);
                }
                self.send(message, answer, topic, partition, correlation_id)
            }
        }
    }

    fn handled(&self, message: &Message<'_>) -> Answer {
        match catch_unwind(AssertUnwindSafe(|| (self.handler)(message))) {
            Ok(Ok(reply)) => Answer::Reply(reply),
            Ok(Err(error)) => Answer::Error(shortened(error.to_string())),
            Err(panic) => {
                self.shared.counts.panicked.fetch_add(1, Ordering::Relaxed);
                let text = panic_text(&*panic);
                Answer::Error(shortened(format!("the handler panicked: {text}")))
            }
        }
    }

    /// Appends the reply. What the topic does not take becomes an error reply; what cannot be appended anywhere is
    /// counted; what may be appended later is tried again.
    fn send(
        &mut self,
        request: &Message<'_>,
        mut answer: Answer,
        topic: &str,
        partition: Option<u32>,
        correlation_id: Option<&[u8]>,
    ) -> Result<Sent> {
        let shared = Arc::clone(&self.shared);
        let counts = &shared.counts;
        loop {
            let sent = self.append(request, &answer, topic, partition, correlation_id);
            match (sent, &answer) {
                (Ok(()), Answer::Reply(_)) => counts.answered.fetch_add(1, Ordering::Relaxed),
                (Ok(()), Answer::Error(_)) => counts.failed.fetch_add(1, Ordering::Relaxed),
                (Err(error), _) if error.is_retriable() => {
                    counts.retries.fetch_add(1, Ordering::Relaxed);
                    shared.rest();
                    if shared.is_stopping() {
                        return Ok(Sent::Stopped);
                    }
                    continue;
                }
                (Err(error), _) if error.is_fatal() || matches!(error, Error::Io { .. }) => {
                    return Err(error);
                }
                (Err(error @ Error::RecordTooLarge { .. }), Answer::Reply(_)) => {
                    answer = Answer::Error(format!("the reply is too large: {error}"));
                    continue;
                }
                // There is no such topic or partition, or it takes no such record.
                (Err(_), _) => counts.undeliverable.fetch_add(1, Ordering::Relaxed),
            };
            return Ok(Sent::Done);
        }
    }

    fn append(
        &mut self,
        request: &Message<'_>,
        answer: &Answer,
        topic: &str,
        partition: Option<u32>,
        correlation_id: Option<&[u8]>,
    ) -> Result<()> {
        // Most replies go where the one before went.
        let is_latest = self
            .latest
            .as_ref()
            .is_some_and(|latest| latest.name() == topic && !latest.state.is_deleted());
        if !is_latest {
            self.latest = Some(self.find(topic)?);
        }
        let mut record = match answer {
            Answer::Reply(reply) => reply.record(request.key()),
            Answer::Error(reason) => {
                let record = Record::default().key_or_null(request.key());
                record.header(self.names.error_name(), reason)
            }
        };
        if let Some(id) = correlation_id {
            let key = self.names.correlation_id_name();
            record.headers.push(Header { key, value: Some(id) });
        }
        record.partition = partition;
        let target = self.latest.as_ref().expect("it was found above");
        let delivery = self.producer.send(target, record)?;
        let (number, end) = delivery.appended_to().expect("a responder's producer has no linger");
        let is_same = self.log.as_ref().is_some_and(|log| log.0 == number && is_latest);
        if !is_same {
            self.log = Some((number, target.state.open_partition(number)?));
        }
        let (_, log) = self.log.as_ref().expect("it was found above");
        self.progress.lock().note_reply(log, end);
        Ok(())
    }

    fn find(&mut self, topic: &str) -> Result<Topic> {
        if let Some(known) = self.known.get(topic).filter(|known| !known.state.is_deleted()) {
            return Ok(known.clone());
        }
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let state = self.topics.find(topic)?;
        let found = Topic::new(state, Arc::clone(&self.topics), Arc::clone(&self.keep_open));
        self.known.insert(topic.to_owned(), found.clone());
        Ok(found)
    }

    /// Commits what can be committed without waiting, if it is time; everything if somebody waits for that.
    fn commit(&mut self) -> Result<()> {
        let is_hurried = self.shared.is_hurried();
        if self.progress.lock().is_committed() {
            if is_hurried {
                self.shared.note_commit();
            }
            return Ok(());
        }
        if !is_hurried && Instant::now() < self.commit_due {
            return Ok(());
        }
        self.commit_due = later(self.commit_interval);
        let stretch = if is_hurried {
            let all = self.progress.lock().take_all();
            all.wait()?;
            Some(all)
        } else {
            self.progress.lock().take_durable()
        };
        let Some(stretch) = stretch.filter(|stretch| !stretch.is_empty()) else { return Ok(()) };
        let committed = match is_hurried {
            true => self.consumer.commit_offsets(stretch.offsets()),
            false => self.consumer.commit_unwaited(stretch.offsets()),
        };
        self.got_over(committed, stretch)?;
        self.shared.note_commit();
        Ok(())
    }

    fn got_over(&mut self, committed: Result<()>, stretch: Stretch) -> Result<()> {
        match committed {
            // Its partition is another's by now, or gone: whoever has it answers again.
            Err(Error::CommitRefused { .. } | Error::TopicDeleted { .. }) => Ok(()),
            Err(error) if error.is_retriable() => {
                self.shared.counts.retries.fetch_add(1, Ordering::Relaxed);
                self.progress.lock().put_back(stretch);
                Ok(())
            }
            other => other,
        }
    }

    /// Goes on behind what cannot be read, and tries again what may be possible later.
    fn get_over(&mut self, error: Error) -> Result<()> {
        if let Error::Corrupt { path, .. } | Error::UnsupportedCompression { path, .. } = &error {
            let assigned: Vec<_> = self.consumer.assignment().cloned().collect();
            let damaged = assigned.into_iter().find(|partition| {
                partition.open().is_ok_and(|log| path.parent() == Some(log.directory()))
            });
            if let Some(partition) = damaged {
                self.shared.counts.unreadable.fetch_add(1, Ordering::Relaxed);
                return match error.resume_offset() {
                    Some(resume) => self.consumer.seek(&partition, resume),
                    // Nothing is known to follow; the others are read on.
                    None => self.consumer.pause([&partition]),
                };
            }
        }
        match error {
            Error::CommitRefused { .. } | Error::TopicDeleted { .. } => Ok(()),
            error if error.is_retriable() => {
                self.shared.counts.retries.fetch_add(1, Ordering::Relaxed);
                self.shared.rest();
                Ok(())
            }
            error => Err(error),
        }
    }
}

/// What waits to become durable is not looked at more often while there is nothing else to do.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// Gives the time so much later; far away if it is further than time can be told.
fn later(interval: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(interval).unwrap_or(now + FAR)
}

/// A year.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// So many topics for replies are kept at hand.
const KNOWN_MAX: usize = 1024;

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}

/// Cuts what is too long for a header.
fn shortened(mut text: String) -> String {
    if text.len() > ERROR_LEN_MAX {
        let end = (0..=ERROR_LEN_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

const ERROR_LEN_MAX: usize = 4096;
