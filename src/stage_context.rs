//! What the stages of one producer share: how to append, the memory, when to seal, what went wrong.

use std::cmp::Ordering as Order;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use crate::appender::Appender;
use crate::buffer_pool::BufferPool;
use crate::error::Error;
use crate::error::Result;
use crate::topics::Topics;

/// What the stages of one producer share. Generic so that it need not know what a stage is.
#[derive(Debug)]
pub(crate) struct StageContext<S> {
    topics: Arc<Topics>,
    appender: Arc<Appender>,
    pool: Arc<BufferPool>,
    linger: Duration,
    batch_len_max: usize,
    /// Which stages are to be looked at, and when. Lock rank 3: held for one change.
    agenda: Mutex<Agenda<S>>,
    /// Lock rank 8: held for one look.
    failures: Mutex<Failures>,
    /// Stored once, with Release, before the one who closes takes any stage's lock; loaded with Acquire under a
    /// stage's lock.
    is_closed: AtomicBool,
}

#[derive(Debug)]
struct Agenda<S> {
    entries: BinaryHeap<Reverse<Entry<S>>>,
    /// When the background thread was told to come; `None` if it was not.
    called_at: Option<Instant>,
}

#[derive(Debug)]
struct Entry<S> {
    at: Instant,
    stage: Weak<S>,
}

/// What the log refused of what was staged.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    /// How many of them some flush has reported.
    told: u64,
    latest: Option<Error>,
}

impl<S> StageContext<S> {
    pub(crate) fn new(
        topics: Arc<Topics>,
        appender: Arc<Appender>,
        pool: Arc<BufferPool>,
        linger: Duration,
        batch_len_max: usize,
    ) -> StageContext<S> {
        StageContext {
            topics,
            appender,
            pool,
            linger,
            batch_len_max,
            agenda: Mutex::new(Agenda { entries: BinaryHeap::new(), called_at: None }),
            failures: Mutex::default(),
            is_closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn topics(&self) -> &Arc<Topics> {
        &self.topics
    }

    pub(crate) fn appender(&self) -> &Appender {
        &self.appender
    }

    pub(crate) fn pool(&self) -> &Arc<BufferPool> {
        &self.pool
    }

    pub(crate) fn linger(&self) -> Duration {
        self.linger
    }

    pub(crate) fn batch_len_max(&self) -> usize {
        self.batch_len_max
    }

    /// Puts a stage on the agenda. Gives a time at which the background thread must be called, if it is not to
    /// come by then anyway.
    pub(crate) fn list(&self, at: Instant, stage: &Arc<S>) -> Option<Instant> {
        let mut agenda = self.agenda.lock();
        agenda.entries.push(Reverse(Entry { at, stage: Arc::downgrade(stage) }));
        let first_at = agenda.entries.peek().map(|first| first.0.at)?;
        if agenda.called_at.is_some_and(|called_at| called_at <= first_at) {
            return None;
        }
        agenda.called_at = Some(first_at);
        Some(first_at)
    }

    /// Takes the earliest entry off the agenda, with its time.
    pub(crate) fn take_first(&self) -> Option<(Instant, Arc<S>)> {
        let mut agenda = self.agenda.lock();
        loop {
            let Reverse(Entry { at, stage }) = agenda.entries.pop()?;
            if let Some(stage) = stage.upgrade() {
                return Some((at, stage));
            }
        }
    }

    /// Takes the earliest entry if its time has come. Otherwise `Err` with the time of the earliest, at which
    /// the caller is to come again.
    pub(crate) fn take_due(&self, now: Instant) -> Result<(Instant, Weak<S>), Option<Instant>> {
        let mut agenda = self.agenda.lock();
        match agenda.entries.peek() {
            Some(Reverse(first)) if first.at <= now => {
                let Reverse(Entry { at, stage }) = agenda.entries.pop().expect("just seen");
                // Until the caller is through with the agenda nobody is to rely on it: it may panic.
                agenda.called_at = None;
                Ok((at, stage))
            }
            first => {
                let at = first.map(|first| first.0.at);
                agenda.called_at = at;
                Err(at)
            }
        }
    }

    /// Notes that a batch was refused: for the next flush, and in the store's health. What was staged for a topic
    /// that was deleted went with it, like everything else in it.
    #[cold]
    pub(crate) fn note_failure(&self, error: &Error) {
        if matches!(error, Error::TopicDeleted { .. }) {
            return;
        }
        let mut failures = self.failures.lock();
        failures.count += 1;
        failures.latest = Some(error.again());
        drop(failures);
        self.topics.note_once("appending what a producer staged", error);
    }

    /// Gives the latest failure if there was one behind the first `known`, and how many there are now.
    pub(crate) fn failure_since(&self, known: u64) -> Option<(u64, Error)> {
        let mut failures = self.failures.lock();
        if failures.count <= known {
            return None;
        }
        failures.told = failures.count;
        let latest = failures.latest.as_ref().map(Error::again)?;
        Some((failures.count, latest))
    }

    /// Gives the latest failure unless it was reported before.
    pub(crate) fn failure_untold(&self) -> Option<Error> {
        let told = self.failures.lock().told;
        self.failure_since(told).map(|(_, error)| error)
    }

    pub(crate) fn mark_closed(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    pub(crate) fn refuse_if_closed(&self) -> Result<()> {
        if self.is_closed() { Err(Error::Closed) } else { Ok(()) }
    }
}

impl<S> PartialEq for Entry<S> {
    fn eq(&self, other: &Entry<S>) -> bool {
        self.at == other.at
    }
}

impl<S> Eq for Entry<S> {}

impl<S> PartialOrd for Entry<S> {
    fn partial_cmp(&self, other: &Entry<S>) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl<S> Ord for Entry<S> {
    fn cmp(&self, other: &Entry<S>) -> Order {
        self.at.cmp(&other.at)
    }
}
