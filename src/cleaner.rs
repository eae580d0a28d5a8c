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
#[cfg(test)]
use std::sync::atomic::AtomicU64;
#[cfg(test)]
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use crossbeam_channel::TrySendError;
use crossbeam_channel::select;

use crate::compaction_config::CompactionConfig;
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
    /// How often the thread has looked.
    #[cfg(test)]
    looks: Arc<AtomicU64>,
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
        Cleaner {
            config,
            topics: Arc::downgrade(topics),
            running: None,
            #[cfg(test)]
            looks: Arc::default(),
        }
    }

    /// Has the thread look, soon; starts it if there is a topic that is compacted.
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
        if !topics.listed().iter().any(|topic| rules_of(topic).is_some()) {
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
            #[cfg(test)]
            looks: Arc::clone(&self.looks),
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
    #[cfg(test)]
    looks: Arc<AtomicU64>,
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
            let (due, wait) = self.look(topics);
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

    /// Looks at every log of compacted topics; gives those that are due, the dirtiest first, and when to look again.
    fn look(&mut self, topics: &Arc<Topics>) -> (Vec<Due>, Option<Duration>) {
        #[cfg(test)]
        self.looks.fetch_add(1, Ordering::Relaxed);
        let (now, now_ms) = (Instant::now(), topics.clock().now_ms());
        let (mut found, mut waits) = (Vec::new(), Vec::new());
        let mut known = std::mem::take(&mut self.attempts);
        for topic in topics.listed() {
            let Some(config) = rules_of(&topic) else { continue };
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
                } else if let Some(due_ms) = cleanable.due_ms(&config, now_ms) {
                    // The wall clock may be set while we sleep: look again after a while at the latest.
                    let wait_ms = due_ms.saturating_sub(now_ms).clamp(1, WAIT_MS_MAX);
                    waits.push(Duration::from_millis(wait_ms as u64));
                }
            }
        }
        found.sort_by(|a, b| b.dirty_ratio.total_cmp(&a.dirty_ratio));
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

/// Gives the rules by which the thread compacts a topic; `None` if it does not.
fn rules_of(topic: &TopicState) -> Option<CompactionConfig> {
    let is_left_alone = coordinator::offsets_log::NAME == topic.name.as_str();
    topic.log_config().compaction.filter(|_| !is_left_alone)
}

/// Kafka's default.
const BACKOFF: Duration = Duration::from_secs(15);
/// What failed is tried again after so long.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);
const WAIT_MS_MAX: i64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Durability;
    use crate::Record;
    use crate::Store;
    use crate::Topic;
    use crate::TopicConfig;
    use crate::partition::compaction_survey::WhyLeft;
    use std::fs;

    /// A store that is left alone.
    fn store() -> Store {
        let builder = Store::builder_temporary().durability(Durability::Buffered);
        builder.cleaner_enable(false).open().unwrap()
    }

    fn topic(store: &Store, name: &str, key_count: i64, segments: usize) -> Topic {
        let config = TopicConfig::new().segment_bytes(1024).set("cleanup.policy", "compact");
        let topic = store.create_topic(name, config.unwrap()).unwrap();
        fill(store, &topic, key_count, segments);
        topic
    }

    /// Fills so many segments more, and closes them.
    fn fill(store: &Store, topic: &Topic, key_count: i64, segments: usize) {
        let open = topic.state.open_partition(0).unwrap();
        let end = open.segment_count() + segments;
        for n in 0.. {
            if open.segment_count() >= end {
                break;
            }
            let key = format!("key {}", n % key_count);
            drop(store.producer().send(topic, Record::new("value").key(&key)).unwrap());
        }
        open.roll_now().unwrap();
        open.checkpoint().unwrap();
        open.seal_followed().unwrap();
    }

    fn round(store: &Store) -> Round {
        Round {
            topics: Arc::downgrade(store.topics_for_test()),
            backoff: Duration::from_millis(1),
            woken: crossbeam_channel::never(),
            stop: CompactionProgress::new(),
            attempts: HashMap::new(),
            looks: Arc::default(),
        }
    }

    fn names(due: &[Due]) -> Vec<&str> {
        due.iter().map(|due| due.topic.name.as_str()).collect()
    }

    #[test]
    fn the_dirtiest_log_comes_first_and_one_that_is_clean_not_at_all() {
        let store = store();
        let topics = store.topics_for_test();
        let mut round = round(&store);
        // Nothing is superseded there, so after its first compaction it is long, and clean.
        let long = topic(&store, "long", i64::MAX, 4);
        round.clean(topics);
        assert!(names(&round.look(topics).0).is_empty());
        topic(&store, "short", 3, 2);
        fill(&store, &long, i64::MAX, 7);
        topic(&store, "other", 3, 3).alter("cleanup.policy", None).unwrap();
        let (due, wait) = round.look(topics);
        assert_eq!((names(&due), wait), (vec!["short", "long"], None));
        assert!(due[0].dirty_ratio == 1.0 && due[1].dirty_ratio < 0.8);
        round.clean(topics);
        assert!(names(&round.look(topics).0).is_empty());
    }

    #[test]
    fn what_cannot_be_compacted_is_not_tried_again_before_there_is_more() {
        let store = store();
        let topics = store.topics_for_test();
        let mut round = round(&store);
        let topic = topic(&store, "t", 3, 3);
        let log = store.path().join("t-0/00000000000000000000.log");
        let mut bytes = fs::read(&log).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&log, &bytes).unwrap();
        assert_eq!(names(&round.look(topics).0), ["t"]);
        round.clean(topics);
        assert_eq!(store.health().findings.len(), 1, "damage is told");
        let looks = round.looks.load(Ordering::Relaxed);
        round.clean(topics);
        assert_eq!(round.looks.load(Ordering::Relaxed), looks + 1, "and left at that");
        fill(&store, &topic, 3, 5);
        assert_eq!(names(&round.look(topics).0), ["t"]);
        let how = topics.compaction_of(&topic.state).unwrap();
        let left = topics.compact(&topic.state, 0, &how, &round.stop).unwrap().left;
        assert!(matches!(
            left[..],
            [crate::partition::compaction_survey::Left { why: WhyLeft::Damaged(_), .. }]
        ));
    }

    #[test]
    fn a_failure_is_told_and_put_off() {
        let store = store();
        let topics = store.topics_for_test();
        let mut round = round(&store);
        let topic = topic(&store, "t", 3, 3);
        // Nothing can be written under this name.
        let blocked = store.path().join("t-0/00000000000000000000.log.cleaned");
        fs::create_dir_all(blocked.join("something")).unwrap();
        let wait = round.clean(topics);
        assert!(wait.is_some_and(|wait| wait > RETRY_INTERVAL / 2), "{wait:?}");
        assert!(!store.health().is_good());
        fs::remove_dir_all(&blocked).unwrap();
        round.attempts.clear();
        round.clean(topics);
        assert!(topic.describe().unwrap().partitions[0].len < 1500);
    }

    #[test]
    fn the_thread_looks_when_it_is_told_and_otherwise_sleeps() {
        let store = store();
        let topics = store.topics_for_test();
        let config = CleanerConfig { is_enabled: true, backoff: Duration::from_millis(1) };
        let mut cleaner = Cleaner::new(topics, config);
        let topic = topic(&store, "t", 3, 5);
        let len = || topic.describe().unwrap().partitions[0].len;
        let before = len();
        let wait_for = |cleaner: &mut Cleaner, len_max: u64| {
            cleaner.wake(topics);
            let deadline = Instant::now() + Duration::from_secs(60);
            while len() > len_max {
                assert!(Instant::now() < deadline, "it was told, and did nothing");
                thread::sleep(Duration::from_millis(1));
            }
        };
        wait_for(&mut cleaner, before / 2);
        let settled = |cleaner: &Cleaner| {
            thread::sleep(Duration::from_millis(200));
            cleaner.looks.load(Ordering::Relaxed)
        };
        let once = settled(&cleaner);
        assert_eq!(settled(&cleaner), once, "nothing was closed since");
        fill(&store, &topic, 3, 5);
        assert_eq!(settled(&cleaner), once, "nobody told it");
        wait_for(&mut cleaner, before / 2);
        assert!(cleaner.looks.load(Ordering::Relaxed) > once);
    }
}
