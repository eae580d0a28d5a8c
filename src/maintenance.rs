//! The background thread and its closed list of chores.
//!
//! * **Sync**, **seal**: a partition asked to be made durable within some time, or to have its full segments
//!   sealed; [`SyncWorkers`] do it, several at a time.
//! * **Checkpoint**: how far partitions are durable is put on record, at most once an interval, so that
//!   recovery has little to scan.
//! * **Warm**: the space an appender will reach next gets its pages.
//! * **Watch**: where another process appends, look for more while somebody waits for it.
//! * **Linger**: batches that a producer stages are sealed and appended when their time is up.
//! * **Roll**: a segment older than `segment.ms` is closed, though nothing is being appended.
//! * **Clean**: a [`Cleaner`] is told when there may be something to compact.
//! * **Remove**: [`Retainer`] removes files of deleted segments that were kept for a while.
//! * **Retain**: [`Retainer`] looks at all partitions once an interval, and at one that has filled a segment.
//!
//! The thread sleeps until something asks or is due; it holds the registry weakly, so that it never keeps
//! a store open.

use std::collections::BTreeSet;
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
use crossbeam_channel::select;

use crate::cleaner::Cleaner;
use crate::cleaner::CleanerConfig;
use crate::due::Due;
use crate::error::Error;
use crate::error::Result;
use crate::partition::Attention;
use crate::partition::Partition;
use crate::retainer::Look;
use crate::retainer::Retainer;
use crate::retention_config::BudgetPolicy;
use crate::sync_workers::Done;
use crate::sync_workers::SyncWorkers;
use crate::sync_workers::Task;
use crate::topics::Topics;

/// The running thread; stopping it waits for the chore at hand.
#[derive(Debug)]
pub(crate) struct Maintenance {
    /// Dropped to stop the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Maintenance {
    pub(crate) fn start(
        topics: &Arc<Topics>,
        attention: Receiver<Attention>,
        checkpoint_interval: Duration,
        cleaner: CleanerConfig,
        retention_interval: Duration,
    ) -> Result<Maintenance> {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let (workers, done) = SyncWorkers::new();
        let mut cleaner = Cleaner::new(topics, cleaner);
        cleaner.wake(topics);
        let round = Round {
            topics: Arc::downgrade(topics),
            cleaner,
            attention,
            stopped,
            checkpoint_interval,
            syncs: Agenda::new(),
            rolls: Agenda::new(),
            removals: Agenda::new(),
            calls: Vec::new(),
            unrecorded: HashMap::new(),
            recorded_at: None,
            has_sealed: false,
            workers,
            done,
            retention_interval,
            retain_at: Instant::now() + retention_interval.min(RETENTION_DELAY),
            retainer: Retainer::new(Arc::downgrade(topics)),
        };
        let thread = thread::Builder::new()
            .name("ottla-maintenance".into())
            .spawn(move || round.run())
            .map_err(|e| Error::io("start a thread for", topics.root(), e))?;
        Ok(Maintenance { stop: Some(stop), thread: Some(thread) })
    }

    /// Ends the thread and waits for it.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else {
            return;
        };
        // The last handle may be dropped by a chore itself, and a thread cannot wait for its own end.
        if thread.thread().id() != thread::current().id() {
            // Its panics were caught and noted where they happened.
            drop(thread.join());
        }
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What is to be done, and when.
struct Round {
    topics: Weak<Topics>,
    cleaner: Cleaner,
    attention: Receiver<Attention>,
    stopped: Receiver<()>,
    checkpoint_interval: Duration,
    /// When a partition is to be synchronised.
    syncs: Agenda<Instant>,
    /// When, by the wall clock, to look at a partition's last segment again.
    rolls: Agenda<i64>,
    /// When files of a partition's are to be removed.
    removals: Agenda<Instant>,
    /// Whom to call, and when; each at most once.
    calls: Vec<(Instant, Weak<dyn Due>)>,
    /// Synchronised since the recovery points were put on record last.
    unrecorded: HashMap<usize, Weak<Partition>>,
    recorded_at: Option<Instant>,
    /// A segment was sealed since then.
    has_sealed: bool,
    workers: SyncWorkers,
    done: Receiver<Done>,
    retention_interval: Duration,
    /// When to look at all partitions next.
    retain_at: Instant,
    retainer: Retainer,
}

/// What ends the thread's sleep.
enum Woken {
    Asked(Attention),
    Done(Done),
    Due,
    Stopped,
}

/// At most one date for each partition, found by its address; the earliest first, however many there are.
struct Agenda<Date> {
    dates: HashMap<usize, (Date, Weak<Partition>)>,
    order: BTreeSet<(Date, usize)>,
}

impl<Date: Copy + Ord> Agenda<Date> {
    fn new() -> Agenda<Date> {
        Agenda { dates: HashMap::new(), order: BTreeSet::new() }
    }

    /// Puts a partition down for a date, unless it is for an earlier one.
    fn note(&mut self, partition: Weak<Partition>, date: Date) {
        let address = address(&partition);
        if let Some((known, _)) = self.dates.get(&address) {
            if *known <= date {
                return;
            }
            self.order.remove(&(*known, address));
        }
        self.dates.insert(address, (date, partition));
        self.order.insert((date, address));
    }

    fn knows(&self, partition: &Weak<Partition>) -> bool {
        self.dates.contains_key(&address(partition))
    }

    fn earliest(&self) -> Option<Date> {
        self.order.first().map(|(date, _)| *date)
    }

    /// Takes the partitions off whose date has come.
    fn take_due(&mut self, is_due: impl Fn(&Date) -> bool) -> Vec<Weak<Partition>> {
        let mut due = Vec::new();
        while let Some((date, address)) = self.order.first().copied() {
            if !is_due(&date) {
                break;
            }
            self.order.pop_first();
            due.extend(self.dates.remove(&address).map(|(_, partition)| partition));
        }
        due
    }
}

impl Round {
    fn run(mut self) {
        loop {
            let woken = self.sleep();
            if matches!(woken, Woken::Stopped) {
                return;
            }
            let Some(topics) = self.topics.upgrade() else {
                return;
            };
            let chores = AssertUnwindSafe(|| {
                match woken {
                    Woken::Asked(asked) => self.take_up(&topics, asked),
                    Woken::Done(done) => self.note_done(&topics, done),
                    Woken::Due | Woken::Stopped => {}
                }
                while let Ok(asked) = self.attention.try_recv() {
                    self.take_up(&topics, asked);
                }
                self.call_who_is_due();
                self.sync_what_is_due(&topics);
                self.record_what_is_durable(&topics);
                self.roll_what_is_due(&topics);
                self.remove_what_is_due(&topics);
                self.retain_if_due(&topics);
            });
            if catch_unwind(chores).is_err() {
                topics.note_panic();
            }
        }
    }

    fn sleep(&self) -> Woken {
        let due = match self.wait_until_due() {
            Some(wait) => crossbeam_channel::after(wait),
            None => crossbeam_channel::never(),
        };
        select! {
            recv(self.stopped) -> _ => Woken::Stopped,
            recv(self.attention) -> asked => asked.map_or(Woken::Due, Woken::Asked),
            recv(self.done) -> done => done.map_or(Woken::Due, Woken::Done),
            recv(due) -> _ => Woken::Due,
        }
    }

    /// Gives the time until the next chore; `None` if there is none.
    fn wait_until_due(&self) -> Option<Duration> {
        let now = Instant::now();
        let sync = self.syncs.earliest().map(|due| due.saturating_duration_since(now));
        let call = self.calls.iter().map(|(at, _)| at.saturating_duration_since(now)).min();
        let record = (!self.unrecorded.is_empty()).then(|| match self.recorded_at {
            Some(at) => (at + self.record_interval()).saturating_duration_since(now),
            None => Duration::ZERO,
        });
        let roll = self.rolls.earliest().and_then(|due_ms| {
            let now_ms = self.topics.upgrade()?.clock().now_ms();
            // The wall clock may be set while we sleep: look again after a while at the latest.
            let wait_ms = due_ms.saturating_sub(now_ms).clamp(0, ROLL_WAIT_MS_MAX - 1) + 1;
            Some(Duration::from_millis(wait_ms as u64))
        });
        let remove = self.removals.earliest().map(|due| due.saturating_duration_since(now));
        let retain = Some(self.retain_at.saturating_duration_since(now));
        [sync, call, record, roll, remove, retain].into_iter().flatten().min()
    }

    /// Sees to it that old segments go: by the store's policy, or, where that is not to drop them, by retention's.
    fn make_room(&mut self, topics: &Topics) {
        match topics.budget().limit().map(|limit| limit.policy) {
            Some(BudgetPolicy::DropOldest) => self.retainer.ask(topics, Look::ForRoom),
            // Whoever is refused may try again at once, and again.
            _ => self.retain_at = self.retain_at.min(Instant::now() + ROOM_INTERVAL),
        }
    }

    fn take_up(&mut self, topics: &Arc<Topics>, asked: Attention) {
        match asked {
            Attention::Sync { partition, within } => self.schedule_sync(partition, within),
            Attention::Seal { partition } => self.workers.take_on(partition, Task::Seal),
            // At once: the appender is on its way there.
            Attention::Warm(stretch) => stretch.warm(),
            Attention::Call { whom, at } => self.schedule_call(whom, at),
            Attention::Clean => self.cleaner.wake(topics),
            Attention::Remove { partition, within } => {
                // One that is too far ahead never comes.
                if let Some(due) = Instant::now().checked_add(within) {
                    self.removals.note(partition, due);
                }
            }
            Attention::Room => self.make_room(topics),
        }
    }

    fn schedule_call(&mut self, whom: Weak<dyn Due>, at: Instant) {
        match self.calls.iter_mut().find(|(_, known)| Weak::ptr_eq(known, &whom)) {
            Some((known_at, _)) => *known_at = at.min(*known_at),
            None => self.calls.push((at, whom)),
        }
    }

    fn call_who_is_due(&mut self) {
        let now = Instant::now();
        // One by one: the panic of one takes no other off the list.
        while let Some(index) = self.calls.iter().position(|(at, _)| *at <= now) {
            let (_, whom) = self.calls.swap_remove(index);
            if let Some(at) = whom.upgrade().and_then(|due| due.do_what_is_due(now)) {
                debug_assert!(at > now, "what is due by now is done");
                self.schedule_call(whom, at);
            }
        }
    }

    fn schedule_sync(&mut self, partition: Weak<Partition>, within: Duration) {
        let due = Instant::now() + within.min(self.checkpoint_interval);
        self.syncs.note(partition, due);
    }

    fn sync_what_is_due(&mut self, topics: &Topics) {
        let now = Instant::now();
        for partition in self.syncs.take_due(|due| *due <= now) {
            let Some(open) = partition.upgrade() else { continue };
            if open.is_followed() {
                self.watch(topics, &open);
                continue;
            }
            self.workers.take_on(partition, Task::Sync);
        }
    }

    /// Takes note of what a worker has done.
    fn note_done(&mut self, topics: &Arc<Topics>, done: Done) {
        self.workers.settle(&done);
        let Done { partition, task, outcome } = done;
        match outcome {
            Some(Ok(())) => {
                self.unrecorded.insert(address(&partition), Weak::clone(&partition));
                if task == Task::Seal {
                    // As much as a segment holds: recovery need not scan it again.
                    self.has_sealed = true;
                    // What is sealed may be compacted.
                    if partition.upgrade().is_some_and(|open| open.is_compacted()) {
                        self.cleaner.wake(topics);
                    }
                    if partition.upgrade().is_some_and(|open| open.policy().retention_bytes >= 0) {
                        self.retainer.ask(topics, Look::At(Weak::clone(&partition)));
                    }
                }
                if task == Task::Sync {
                    // Looked at when its time has come, which is found out by looking once.
                    if !self.rolls.knows(&partition) {
                        self.rolls.note(partition, i64::MIN);
                    }
                }
            }
            // It is latched, which tells everyone who waits for it, and shows in the store's health.
            Some(Err(Error::Latched { .. } | Error::Closed)) => {}
            Some(Err(error)) => {
                topics.note_once("making a partition durable", &error);
                self.schedule_sync(partition, RETRY_INTERVAL);
            }
            None => topics.note_panic(),
        }
    }

    /// Looks for what another process appended, and looks again soon while somebody waits.
    fn watch(&mut self, topics: &Topics, open: &Arc<Partition>) {
        // A file that is being replaced, or a partition that is being deleted: seen next time.
        let looked = open.look_again(|| topics.refresh_checkpoints());
        match looked {
            Ok(false) => {}
            Ok(true) => {
                self.schedule_sync(Arc::downgrade(open), WATCH_INTERVAL);
            }
            Err(error) => {
                topics.note_once("following a partition", &error);
                open.doorbells().ring_for_the_last_time();
            }
        }
    }

    fn record_what_is_durable(&mut self, topics: &Topics) {
        let is_due = self.recorded_at.is_none_or(|at| at.elapsed() >= self.record_interval());
        if self.unrecorded.is_empty() || !is_due {
            return;
        }
        let named = |partition: &Weak<Partition>| {
            let open = partition.upgrade()?;
            let (topic, number) = topics.named(&open)?;
            Some((topic, number, open))
        };
        let partitions: Vec<_> = self.unrecorded.values().filter_map(named).collect();
        self.recorded_at = Some(Instant::now());
        self.has_sealed = false;
        match topics.note_recovery_points(&partitions) {
            Ok(()) => self.unrecorded.clear(),
            // The old file is intact, and recovery merely scans more: tried again next time.
            Err(error) => topics.note_once("recovery points", &error),
        }
    }

    /// Gives how often recovery points are put on record at most.
    fn record_interval(&self) -> Duration {
        let interval = self.checkpoint_interval;
        if self.has_sealed { interval.min(SEALED_RECORD_INTERVAL) } else { interval }
    }

    fn retain_if_due(&mut self, topics: &Topics) {
        let now = Instant::now();
        if self.retain_at <= now {
            self.retain_at = now + self.retention_interval;
            self.retainer.ask(topics, Look::All);
        }
    }

    fn remove_what_is_due(&mut self, topics: &Topics) {
        let now = Instant::now();
        for partition in self.removals.take_due(|due| *due <= now) {
            self.retainer.ask(topics, Look::AtDeleted(partition));
        }
    }

    fn roll_what_is_due(&mut self, topics: &Topics) {
        let now_ms = topics.clock().now_ms();
        for partition in self.rolls.take_due(|due_ms| *due_ms < now_ms) {
            let Some(open) = partition.upgrade() else { continue };
            let next_ms = match open.roll_if_due(now_ms) {
                Ok(next_ms) => next_ms,
                Err(error) => {
                    topics.note_once("rolling a segment", &error);
                    Some(now_ms + ROLL_WAIT_MS_MAX)
                }
            };
            if let Some(next_ms) = next_ms {
                self.rolls.note(partition, next_ms);
            }
        }
    }
}

fn address(partition: &Weak<Partition>) -> usize {
    partition.as_ptr() as usize
}

/// How often a log that another process appends to is looked at while somebody waits for it.
const WATCH_INTERVAL: Duration = Duration::from_millis(5);
/// How soon what a full disk held up is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How often recovery points are put on record at most while segments fill up quickly.
const SEALED_RECORD_INTERVAL: Duration = Duration::from_millis(50);
/// How often retention is applied at most because the store is full.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);
/// How soon all partitions are looked at behind an open; Kafka's initial delay.
const RETENTION_DELAY: Duration = Duration::from_secs(30);
const ROLL_WAIT_MS_MAX: i64 = 60_000;
