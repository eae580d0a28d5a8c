//! The thread that compacts topics when nobody asks: Kafka's log cleaner.
//!
//! It looks at the logs of compacted topics when the store is opened, when a segment of one was closed, and when time
//! alone makes something due (`min.compaction.lag.ms`, `max.compaction.lag.ms`); it compacts those that are due, the
//! dirtiest first, and looks again, at most once in [`Cleaner::backoff`](CleanerConfig::backoff) while there is
//! nothing to do. In between it sleeps. It is started when there is a compacted topic.
//!
//! What cannot be compacted, because a segment is damaged or a transaction has not ended, is not tried again before
//! another segment was closed; what failed, not before a while has passed.
//!
//! The topic of groups is left to the coordinator, which knows how much of it is out of date.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::Weak;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use crossbeam_channel::TrySendError;
use crossbeam_channel::select;

use crate::coordinator;
use crate::error::Error;
use crate::error::Result;
use crate::partition::Partition;
use crate::partition::compaction_progress::CompactionProgress;
use crate::topic_state::TopicState;
use crate::topics::Topics;

/// Whether and how often to look for something to compact.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CleanerConfig {
    /// `log.cleaner.enable`.
    pub(crate) is_enabled: bool,
    /// `log.cleaner.backoff.ms`.
    pub(crate) backoff: Duration,
}

/// The thread, if it was started; dropping it ends the compaction at hand and waits for the thread.
#[derive(Debug)]
pub(crate) struct Cleaner {
    config: CleanerConfig,
    topics: Weak<Topics>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    /// Dropped to stop the thread.
    wake: Option<Sender<()>>,
    stop: CompactionProgress,
    thread: Option<JoinHandle<()>>,
}

impl Default for CleanerConfig {
    fn default() -> CleanerConfig {
        CleanerConfig { is_enabled: true, backoff: BACKOFF }
    }
}

impl Cleaner {
    pub(crate) fn new(topics: &Arc<Topics>, config: CleanerConfig) -> Cleaner {
        Cleaner { config, topics: Arc::downgrade(topics), running: None }
    }

    /// Has the thread look, soon; starts it if need be.
    pub(crate) fn wake(&mut self, topics: &Arc<Topics>) {
        if !self.config.is_enabled || !topics.cleans_in_background() {
            return;
        }
        if let Some(running) = &self.running {
            match running.wake.as_ref().map(|wake| wake.try_send(())) {
                // If it was told before, it is to look anyway.
                None
                | Some(Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(()))) => {}
            }
            return;
        }
        let (wake, woken) = crossbeam_channel::bounded(1);
        let stop = CompactionProgress::new();
        let round = Round {
            topics: Weak::clone(&self.topics),
            backoff: self.config.backoff,
            woken,
            stop: stop.clone(),
            attempts: HashMap::new(),
        };
        match thread::Builder::new().name("ottla-cleaner".into()).spawn(move || round.run()) {
            Ok(thread) => {
                self.running = Some(Running { wake: Some(wake), stop, thread: Some(thread) });
            }
            // Tried again when the next segment is closed.
            Err(error) => {
                let error = Error::io("start a thread for", topics.root(), error);
                topics.note_once("compacting topics", &error);
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.stop();
        drop(self.wake.take());
        if let Some(thread) = self.thread.take() {
            // Its panics were caught and noted where they happened.
            drop(thread.join());
        }
    }
}

/// What the thread knows.
struct Round {
    topics: Weak<Topics>,
    backoff: Duration,
    woken: Receiver<()>,
    stop: CompactionProgress,
    /// By the partition's address.
    attempts: HashMap<usize, Attempt>,
}

/// What became of the last compaction of a partition.
#[derive(Clone, Copy, Debug, Default)]
struct Attempt {
    /// It was tried up to here.
    upto: i64,
    /// It failed, and is not tried again before then.
    not_before: Option<Instant>,
}

/// A log that is to be compacted.
struct Due {
    dirty_ratio: f64,
    upto: i64,
    topic: Arc<TopicState>,
    number: u32,
    partition: Arc<Partition>,
}

impl Round {
    fn run(mut self) {
        let mut looked_at: Option<Instant> = None;
        let mut due = Some(Instant::now());
        loop {
            let timer = due.map_or_else(crossbeam_channel::never, crossbeam_channel::at);
            select! {
                recv(self.woken) -> woken => {
                    if woken.is_err() {
                        return;
                    }
                    let soon = looked_at.map_or_else(Instant::now, |at| at + self.backoff);
                    due = Some(due.map_or(soon, |due| due.min(soon)));
                    continue;
                }
                recv(timer) -> _ => {}
            }
            let Some(topics) = self.topics.upgrade() else {
                return;
            };
            let cleaned = catch_unwind(AssertUnwindSafe(|| self.clean(&topics)));
            looked_at = Some(Instant::now());
            let wait = cleaned.unwrap_or_else(|_| {
                topics.note_panic();
                Some(RETRY_INTERVAL)
            });
            due = wait.map(|wait| Instant::now() + wait.max(self.backoff));
        }
    }

    /// Compacts what is due until nothing is, and says when something will be though nothing is appended.
    fn clean(&mut self, topics: &Arc<Topics>) -> Option<Duration> {
        loop {
            let (mut due, wait) = self.look(topics);
            due.sort_by(|a, b| b.dirty_ratio.total_cmp(&a.dirty_ratio));
            if due.is_empty() {
                return wait;
            }
            for due in due {
                if self.stop.is_stopped() {
                    return None;
                }
                self.compact(topics, &due);
            }
        }
    }

    /// Looks at every log of compacted topics.
    fn look(&mut self, topics: &Arc<Topics>) -> (Vec<Due>, Option<Duration>) {
        let (now, now_ms) = (Instant::now(), topics.clock().now_ms());
        let (mut found, mut waits) = (Vec::new(), Vec::new());
        let mut known = std::mem::take(&mut self.attempts);
        for topic in topics.listed() {
            let Some(config) = topic.log_config().compaction else { continue };
            if coordinator::offsets_log::NAME == topic.name.as_str() {
                continue;
            }
            for (number, partition) in topic.open_partitions() {
                if self.stop.is_stopped() {
                    return (Vec::new(), None);
                }
                let address = Arc::as_ptr(&partition) as usize;
                let attempt = known.remove(&address).unwrap_or_default();
                self.attempts.insert(address, attempt);
                if partition.is_deleted() || partition.latch_reason().is_some() {
                    continue;
                }
                if let Some(at) = attempt.not_before.filter(|at| *at > now) {
                    waits.push(at - now);
                    continue;
                }
                let cleanable = match topics.cleanable(&topic, number, &partition, attempt.upto) {
                    Ok(Some(cleanable)) => cleanable,
                    Ok(None) | Err(Error::Closed) => continue,
                    // Replaced or deleted while it was looked at.
                    Err(error) if error.is_not_found() => {
                        waits.push(RETRY_INTERVAL);
                        continue;
                    }
                    Err(error) => {
                        self.note_failure(topics, address, &error);
                        waits.push(RETRY_INTERVAL);
                        continue;
                    }
                };
                if cleanable.is_due(&config, now_ms) {
                    let (topic, upto) = (Arc::clone(&topic), cleanable.upto);
                    let dirty_ratio = cleanable.dirty_ratio();
                    found.push(Due { dirty_ratio, upto, topic, number, partition });
                } else if let Some(due_ms) = cleanable.due_ms(&config) {
                    // The wall clock may be set while we sleep: look again after a while at the latest.
                    let wait_ms = due_ms.saturating_sub(now_ms).clamp(1, WAIT_MS_MAX);
                    waits.push(Duration::from_millis(wait_ms as u64));
                }
            }
        }
        (found, waits.into_iter().min())
    }

    fn compact(&mut self, topics: &Arc<Topics>, due: &Due) {
        let compacted: Result<_> = topics
            .compaction_of(&due.topic)
            .and_then(|how| topics.compact(&due.topic, due.number, &how, &self.stop));
        let address = Arc::as_ptr(&due.partition) as usize;
        match compacted {
            Ok(_) => {
                self.attempts.insert(address, Attempt { upto: due.upto, not_before: None });
            }
            // It is over with the log, the topic or the store, or the topic is compacted no longer.
            Err(
                error @ (Error::Closed
                | Error::Latched { .. }
                | Error::TopicDeleted { .. }
                | Error::NotCompacted { .. }),
            ) => {
                drop(error);
                self.put_off(address);
            }
            Err(error) => self.note_failure(topics, address, &error),
        }
    }

    fn note_failure(&mut self, topics: &Topics, address: usize, error: &Error) {
        topics.note_once("compacting a topic", error);
        self.put_off(address);
    }

    fn put_off(&mut self, address: usize) {
        let attempt = self.attempts.entry(address).or_default();
        attempt.not_before = Some(Instant::now() + RETRY_INTERVAL);
    }
}

/// Kafka's default.
const BACKOFF: Duration = Duration::from_secs(15);
/// What failed is tried again after so long.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);
const WAIT_MS_MAX: i64 = 60_000;
