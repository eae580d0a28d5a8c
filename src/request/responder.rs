//! Answering: a group reads requests, a handler answers them.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use crate::assignment::Start;
use crate::config::Durability;
use crate::consumer_builder::ConsumerBuilder;
use crate::coordinator::Coordinator;
use crate::error::Error;
use crate::error::Result;
use crate::producer::ProducerBuilder;
use crate::records::Message;
use crate::request::answering::Answering;
use crate::request::names::ReplyHeaders;
use crate::request::progress::Progress;
use crate::request::reply::Reply;
use crate::request::responder_state::EndOnDrop;
use crate::request::responder_state::ResponderState;
use crate::topic::KeepOpen;
use crate::topic::Topic;
use crate::wakeup::Wakeup;

/// Sets up a [`Responder`].
///
/// ```
/// use std::time::Duration;
/// use ottla::{Reply, Store, TopicConfig};
///
/// let store = Store::temporary()?;
/// let jobs = store.create_topic("jobs", TopicConfig::new().partitions(4))?;
/// let responder = store
///     .responder(&jobs, "workers")
///     .threads(4)
///     .commit_interval(Duration::from_millis(50))
///     .start(|_| Ok::<_, ottla::Error>(Reply::null()))?;
/// responder.close()?;
/// # Ok::<(), ottla::Error>(())
/// ```
#[must_use]
pub struct ResponderBuilder {
    coordinator: Arc<Coordinator>,
    keep_open: KeepOpen,
    producer: ProducerBuilder,
    consumer: ConsumerBuilder,
    requests: Topic,
    group: String,
    names: ReplyHeaders,
    thread_count: usize,
    commit_interval: Duration,
}

/// Answers requests on threads of its own, until it is closed or dropped.
///
/// Its threads are members of a consumer group: together with every other responder of the group they share the
/// requests, partition by partition. Requests that nobody answered yet are answered, also those of an earlier run of
/// the process.
///
/// Every request is dealt with **at least once**: its offset is committed only after its reply is in the log and
/// durable, so a crash in between repeats it, and never loses an answer. The one who asked hears the first reply.
///
/// A handler that fails or panics answers with an error, which the one who asked gets as
/// [`Error::RequestFailed`]; the responder lives on.
pub struct Responder {
    shared: Arc<ResponderState>,
    group: String,
    requests: Topic,
    coordinator: Arc<Coordinator>,
    threads: Vec<JoinHandle<()>>,
    wakeups: Vec<Wakeup>,
}

/// What a responder has done since it was started, all its threads together.
///
/// ```
/// # let store = ottla::Store::temporary()?;
/// # let topic = store.create_topic("t", ottla::TopicConfig::new())?;
/// let responder = store.responder(&topic, "g").start(|_| Ok::<_, ottla::Error>(ottla::Reply::null()))?;
/// store.producer().send(&topic, "nobody wants a reply")?;
/// assert!(responder.wait_idle(std::time::Duration::from_secs(10))?);
/// assert_eq!((responder.status().not_asked, responder.status().answered), (1, 0));
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResponderStatus {
    /// Requests whose answer was appended.
    pub answered: u64,
    /// Requests whose reply says that the handler failed or panicked, or that the answer was too large.
    pub failed: u64,
    /// How often the handler panicked; each counts among the failed, too, if a reply was wanted.
    pub panicked: u64,
    /// Requests that were dealt with and wanted no reply.
    pub not_asked: u64,
    /// Requests that were dealt with, and whose headers do not say where the reply should go.
    pub malformed: u64,
    /// Requests that were dealt with, and whose replies could not be appended: there is no such topic or partition, or
    /// it takes no such record.
    pub undeliverable: u64,
    /// Replies without a correlation id, because the request had none; they count among the others, too.
    pub uncorrelated: u64,
    /// Damaged or unreadable batches among the requests, which were passed over.
    pub unreadable: u64,
    /// How often an append had to be tried again, as on a full disk.
    pub retries: u64,
    /// How many of its threads are at work; fewer than were started if some have failed, see [`Responder::close`].
    pub threads: usize,
}

impl ResponderBuilder {
    pub(crate) fn new(
        coordinator: Arc<Coordinator>,
        keep_open: KeepOpen,
        producer: ProducerBuilder,
        consumer: ConsumerBuilder,
        requests: &Topic,
        group: &str,
    ) -> ResponderBuilder {
        ResponderBuilder {
            coordinator,
            keep_open,
            producer,
            consumer,
            requests: requests.clone(),
            group: group.to_owned(),
            names: ReplyHeaders::default(),
            thread_count: 1,
            commit_interval: Duration::from_millis(100),
        }
    }

    /// Sets on how many threads requests are answered; default 1, at least 1. More than the topic has partitions have
    /// nothing to do.
    pub fn threads(mut self, count: usize) -> ResponderBuilder {
        self.thread_count = count.max(1);
        self
    }

    /// Sets the names of the headers.
    pub fn headers(mut self, names: ReplyHeaders) -> ResponderBuilder {
        self.names = names;
        self
    }

    /// Sets when a request counts and a reply does; without it, the store's level. Under [`Durability::Synced`] a
    /// request is handled only once it is on stable storage, and the replies of what was read together are brought
    /// there together. In any case an offset is committed only after that.
    pub fn durability(mut self, durability: Durability) -> ResponderBuilder {
        self.producer = self.producer.durability(durability);
        self
    }

    /// Sets how often it is put on record what was answered; default 100 ms. It bounds how many requests are answered
    /// twice after a crash; no answer waits for it.
    pub fn commit_interval(mut self, interval: Duration) -> ResponderBuilder {
        self.commit_interval = interval;
        self
    }

    /// Sets where a group begins that has committed nothing yet; default with the first request there is.
    pub fn begin_at(mut self, start: Start) -> ResponderBuilder {
        self.consumer = self.consumer.start(start);
        self
    }

    /// Sets how many requests are read at a time; default 500. Under [`Durability::Synced`] so many share two syncs.
    pub fn max_poll_records(mut self, count: usize) -> ResponderBuilder {
        self.consumer = self.consumer.max_poll_records(count);
        self
    }

    /// Sets how long a thread stays awake for the next request; see [`ConsumerBuilder::spin`].
    pub fn spin(mut self, spin: Duration) -> ResponderBuilder {
        self.consumer = self.consumer.spin(spin);
        self
    }

    /// Starts to answer. The handler is called on the responder's threads, under no lock, for one request of a
    /// partition at a time.
    ///
    /// What it returns is appended to the topic, and the partition, that the request's headers name. An error of it, or
    /// a panic, becomes a reply with an error. Its error is any type that can be shown.
    ///
    /// # Errors
    ///
    /// Nothing was started.
    ///
    /// * As [`ConsumerBuilder::subscribe`]; [`Error::TopicDeleted`]; [`Error::InvalidArgument`] if the topic is of another
    ///   store; [`Error::Io`] if there is no thread to be had.
    pub fn start<H, E>(self, handler: H) -> Result<Responder>
    where
        H: Fn(&Message<'_>) -> Result<Reply, E> + Send + Sync + 'static,
        E: fmt::Display,
    {
        let topics = Arc::clone(self.coordinator.topics());
        topics.refuse_writing("answer requests")?;
        self.requests.state.refuse_if_deleted()?;
        if !self.requests.belongs_to(&topics) {
            let reason = "it belongs to another store";
            return Err(Error::InvalidArgument { argument: "topic", reason });
        }
        let handler = Arc::new(handler);
        let producer = self.producer.build();
        let shared = Arc::new(ResponderState::new());
        let mut answering = Vec::with_capacity(self.thread_count);
        for _ in 0..self.thread_count {
            let progress = Arc::new(Mutex::new(Progress::default()));
            let consumer = with_listeners(self.consumer.clone(), &progress)
                .client_id("ottla-responder")
                .subscribe(&self.group, &self.requests)?;
            answering.push(Answering::new(
                consumer,
                producer.clone(),
                Arc::clone(&handler),
                self.names.clone(),
                Arc::clone(&shared),
                progress,
                (Arc::clone(&topics), Arc::clone(&self.keep_open)),
                self.commit_interval,
            ));
        }
        let mut responder = Responder {
            shared,
            group: self.group,
            requests: self.requests,
            coordinator: self.coordinator,
            threads: Vec::new(),
            wakeups: answering.iter().map(Answering::wakeup).collect(),
        };
        for (number, answering) in answering.into_iter().enumerate() {
            let shared = Arc::clone(&responder.shared);
            // Counted here: whoever asks at once finds all of them.
            shared.ends.lock().running += 1;
            let run = move || {
                let end = EndOnDrop(shared);
                let ended = answering.run();
                end.0.note_end(ended);
            };
            let spawned = thread::Builder::new().name(format!("ottla-respond-{number}")).spawn(run);
            match spawned {
                Ok(thread) => responder.threads.push(thread),
                // Those that run are stopped by the drop of the handle.
                Err(error) => return Err(no_thread(error)),
            }
        }
        Ok(responder)
    }
}

fn no_thread(source: io::Error) -> Error {
    Error::Io { action: "start a thread for", path: PathBuf::from("a responder"), source }
}

/// Has what was answered committed before its partition goes to another member.
fn with_listeners(consumer: ConsumerBuilder, progress: &Arc<Mutex<Progress>>) -> ConsumerBuilder {
    let (revoked, lost) = (Arc::clone(progress), Arc::clone(progress));
    consumer
        .on_revoked(move |rebalance, _| {
            let all = revoked.lock().take_all();
            if all.is_empty() {
                return Ok(());
            }
            all.wait()?;
            rebalance.commit_offsets(all.offsets())
        })
        .on_lost(move |_, partitions| {
            lost.lock().forget(|partition| partitions.contains(partition));
            Ok(())
        })
}

impl Responder {
    /// Blocks until every request that is in the topic now was dealt with by the group, and that is durably on record; `false`
    /// if the time is up, or no thread of this responder is at work any more.
    ///
    /// # Errors
    ///
    /// * [`Error::Closed`], [`Error::TopicDeleted`].
    pub fn wait_idle(&self, timeout: Duration) -> Result<bool> {
        let deadline = Instant::now().checked_add(timeout);
        self.requests.state.refuse_if_deleted()?;
        let open = self.requests.state.open_partitions();
        let ends = open.into_iter().map(|(number, log)| {
            let marks = log.watermarks();
            (number, marks.log_start(), marks.log_end())
        });
        let ends: Vec<(u32, i64, i64)> = ends.collect();
        self.shared.hurrying.fetch_add(1, Ordering::Release);
        self.wake();
        let is_idle = self.wait_for(&ends, deadline);
        self.shared.hurrying.fetch_sub(1, Ordering::Release);
        is_idle
    }

    /// Tells what it has done.
    pub fn status(&self) -> ResponderStatus {
        let counts = &self.shared.counts;
        ResponderStatus {
            answered: counts.answered.load(Ordering::Relaxed),
            failed: counts.failed.load(Ordering::Relaxed),
            panicked: counts.panicked.load(Ordering::Relaxed),
            not_asked: counts.not_asked.load(Ordering::Relaxed),
            malformed: counts.malformed.load(Ordering::Relaxed),
            undeliverable: counts.undeliverable.load(Ordering::Relaxed),
            uncorrelated: counts.uncorrelated.load(Ordering::Relaxed),
            unreadable: counts.unreadable.load(Ordering::Relaxed),
            retries: counts.retries.load(Ordering::Relaxed),
            threads: self.shared.ends.lock().running,
        }
    }

    /// Ends it: what is being answered is answered, what was answered is put on record, the group's other members take
    /// over. Blocks until then, at most as long as the handler takes for one request, and two syncs. Gives what it has
    /// done in all.
    ///
    /// Dropping does the same, but cannot report errors.
    ///
    /// # Errors
    ///
    /// * Whatever ended one of its threads before: [`Error::Latched`] where a reply or a commit could not be written,
    ///   whatever keeps the requests from being read. What was not committed is answered again.
    /// * As a commit.
    pub fn close(mut self) -> Result<ResponderStatus> {
        self.stop();
        let first_error = self.shared.ends.lock().first_error.take();
        first_error.map_or_else(|| Ok(self.status()), Err)
    }

    fn wait_for(&self, ends: &[(u32, i64, i64)], deadline: Option<Instant>) -> Result<bool> {
        loop {
            // Locked before the look: a commit that comes behind the look rings behind the sleep.
            let mut state = self.shared.ends.lock();
            let (running, group) = (state.running, self.group.as_str());
            let is_done = parking_lot::MutexGuard::unlocked(&mut state, || -> Result<bool> {
                self.requests.state.refuse_if_deleted()?;
                let group = self.coordinator.group(group)?;
                let name = &self.requests.state.name;
                Ok(ends.iter().all(|(number, start, end)| {
                    let committed = group.committed(name, *number);
                    committed.map_or(*start, |noted| noted.offset()) >= *end
                }))
            })?;
            if is_done || running == 0 {
                return Ok(is_done);
            }
            let soon = Instant::now() + LOOK_AGAIN_AFTER;
            let until = deadline.map_or(soon, |deadline| deadline.min(soon));
            self.shared.has_changed.wait_until(&mut state, until);
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
        }
    }

    fn wake(&self) {
        self.wakeups.iter().for_each(Wakeup::wake);
    }

    fn stop(&mut self) {
        {
            let _ends = self.shared.ends.lock();
            self.shared.is_stopping.store(true, Ordering::Release);
            self.shared.has_changed.notify_all();
        }
        self.wake();
        let this = thread::current().id();
        for thread in self.threads.drain(..) {
            // A handler that drops its own responder cannot wait for itself.
            if thread.thread().id() != this {
                // It catches the handler's panics; one of its own is a bug, and has been shown by its thread.
                drop(thread.join());
            }
        }
    }
}

/// Other responders of the group commit, too, and do not ring here.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder")
            .field("requests", &self.requests.name())
            .field("group", &self.group)
            .field("status", &self.status())
            .finish()
    }
}

impl fmt::Debug for ResponderBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponderBuilder")
            .field("requests", &self.requests.name())
            .field("group", &self.group)
            .field("thread_count", &self.thread_count)
            .finish_non_exhaustive()
    }
}
