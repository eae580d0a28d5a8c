//! Where the records of one producer for one partition gather before they are appended.
//!
//! A batch is *open* while records are encoded into it, one after the other under the stage's lock; then it is
//! *sealed* and stands in line; then it is checksummed and appended, without the lock, and has its *outcome*, which
//! all deliveries of its records share. Whoever seals a batch also appends it, and what stands in front of it,
//! unless another thread is at that already.
//!
//! **Invariant (in line).** Batches are opened, sealed and appended in the same order, one at a time. Whoever
//! appends goes on until nothing stands in line, or hands over to somebody who waits and goes on in his place. So
//! nothing ever stands in line with nobody at it.
//!
//! **Invariant (one outcome).** Every batch that was opened gets an outcome, once, even if its append panics. A
//! batch that was refused is noted for the next flush and in the store's health, whether or not anybody holds a
//! delivery.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::Weak;
use std::task::Waker;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;
use parking_lot::MutexGuard;

use crate::appender::accepted_timestamp;
use crate::buffer_pool::Buffer;
use crate::config::LogConfig;
use crate::config::Packing;
use crate::config::TimestampType;
use crate::due::Due;
use crate::error::Error;
use crate::error::Result;
use crate::format::encode;
use crate::partition::Appended;
use crate::partition::Attention;
use crate::partition::Partition;
use crate::partitioner;
use crate::record::Record;
use crate::stage_context::StageContext;
use crate::topic_state::TopicState;

/// Where one producer's records for one partition gather.
#[derive(Debug)]
pub(crate) struct Stage {
    context: Arc<StageContext<Stage>>,
    /// Weak: a deleted topic's files are let go though a producer once sent to it.
    partition: Weak<Partition>,
    number: u32,
    /// Lock rank 2: held while one record is encoded, never during an append.
    staging: Mutex<Staging>,
    /// Those who wait for a batch's outcome, or for their turn to append.
    turn: Condvar,
}

#[derive(Debug)]
struct Staging {
    open: Option<OpenBatch>,
    line: VecDeque<SealedBatch>,
    /// The sequence of the batch that is opened next.
    next: u64,
    /// Every batch with a lower sequence has its outcome.
    through: u64,
    /// Somebody is appending; see the invariant (in line).
    is_appending: bool,
    /// Those who wait and, if it comes to that, append.
    waiting: u32,
    /// Those who only want to know.
    watching: u32,
    /// When the agenda calls for this stage; an entry with another time is of the past.
    listed: Option<Instant>,
    rules: Rules,
}

/// The topic's settings as they were looked at last.
#[derive(Clone, Debug)]
struct Rules {
    config: Arc<LogConfig>,
    version: u64,
}

#[derive(Debug)]
struct OpenBatch {
    buffer: Buffer,
    batch: Arc<StagedBatch>,
    len_max: usize,
    due: Instant,
    /// Some of its records went where the topic sticks.
    has_unkeyed: bool,
}

#[derive(Debug)]
struct SealedBatch {
    buffer: Buffer,
    batch: Arc<StagedBatch>,
    timestamp_type: TimestampType,
    packing: Option<Packing>,
    /// The longest that may be stored.
    stored_len_max: usize,
}

/// A batch of staged records, as its deliveries know it.
#[derive(Debug)]
pub(crate) struct StagedBatch {
    stage: Arc<Stage>,
    pub(crate) topic: Arc<TopicState>,
    pub(crate) partition: Arc<Partition>,
    sequence: u64,
    outcome: OnceLock<Result<Appended>>,
    /// Tasks to be woken with the outcome. Lock rank 9: held for one look.
    tasks: Mutex<Vec<Waker>>,
}

/// A record's place in a batch.
#[derive(Clone, Debug)]
pub(crate) struct StagedRecord {
    pub(crate) batch: Arc<StagedBatch>,
    pub(crate) index: i32,
    pub(crate) timestamp_ms: i64,
}

/// What became of a record that was to be staged.
pub(crate) enum Pushed {
    /// It has its place, and there is nothing else to do.
    Staged(StagedRecord),
    /// It has its place in a new batch: batches stand in line, or the agenda is to be told of a time.
    Opened(StagedRecord, Option<Instant>),
    /// There is no memory for a batch of this length. Nothing happened, but that batches may stand in line.
    NoRoom(usize),
}

/// Whether a thread that may append waits while another is at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Waits,
    DoesNotWait,
}

impl Stage {
    pub(crate) fn new(
        context: Arc<StageContext<Stage>>,
        topic: &Arc<TopicState>,
        partition: &Arc<Partition>,
        number: u32,
    ) -> Stage {
        Stage {
            context,
            partition: Arc::downgrade(partition),
            number,
            staging: Mutex::new(Staging {
                open: None,
                line: VecDeque::new(),
                next: 0,
                through: 0,
                is_appending: false,
                waiting: 0,
                watching: 0,
                listed: None,
                rules: Rules::of(topic),
            }),
            turn: Condvar::new(),
        }
    }

    /// Encodes a record into the open batch; `None` where that is not all there is to do, and then nothing
    /// happened. Never blocks but for the lock.
    #[inline]
    pub(crate) fn push_into_open(
        &self,
        topic: &TopicState,
        record: &Record<'_>,
        now_ms: i64,
    ) -> Option<StagedRecord> {
        let mut staging = self.staging.lock();
        // Asked under the lock: whoever closes takes it afterwards, and finds what was staged.
        if self.context.is_closed() {
            return None;
        }
        let staging = &mut *staging;
        if staging.rules.version != topic.settings_version() {
            return None;
        }
        let open = staging.open.as_mut()?;
        let timestamp_ms = accepted_timestamp(record, &staging.rules.config, now_ms).ok()?;
        if !open.buffer.push_if_fits(record, timestamp_ms, open.len_max) {
            return None;
        }
        open.has_unkeyed |= is_unkeyed(record);
        Some(open.last_record(timestamp_ms))
    }

    /// Encodes a record into the open batch, or opens the next if it does not fit. Never blocks but for the
    /// lock, and refuses whatever can be known now to be refused.
    pub(crate) fn push(
        self: &Arc<Self>,
        topic: &Arc<TopicState>,
        record: &Record<'_>,
        now_ms: i64,
    ) -> Result<Pushed> {
        let mut staging = self.staging.lock();
        // Asked under the lock: whoever closes takes it afterwards, and finds what was staged.
        self.context.refuse_if_closed()?;
        let staging = &mut *staging;
        if staging.rules.version == topic.settings_version() {
            if let Some(open) = &mut staging.open {
                let timestamp_ms = accepted_timestamp(record, &staging.rules.config, now_ms)?;
                if open.buffer.push_within(record, timestamp_ms, open.len_max)? {
                    open.has_unkeyed |= is_unkeyed(record);
                    return Ok(Pushed::Staged(open.last_record(timestamp_ms)));
                }
            }
        }
        self.push_into_next(staging, topic, record, now_ms)
    }

    /// Begins a new batch with a record.
    fn push_into_next(
        self: &Arc<Self>,
        staging: &mut Staging,
        topic: &Arc<TopicState>,
        record: &Record<'_>,
        now_ms: i64,
    ) -> Result<Pushed> {
        let rules = Rules::of(topic);
        let timestamp_ms = accepted_timestamp(record, &rules.config, now_ms)?;
        let len = encode::len_alone(record)?;
        self.refuse_too_large(len, &rules.config)?;
        topic.refuse_if_deleted()?;
        let partition = self.partition.upgrade().ok_or(Error::Closed)?;
        partition.refuse_if_latched()?;
        // Nothing refuses the record any more, so what is open may go.
        self.seal(staging);
        staging.rules = rules;
        let Some(mut buffer) = self.context.pool().take(len) else {
            return Ok(Pushed::NoRoom(len));
        };
        let is_pushed = buffer.push_within(record, timestamp_ms, usize::MAX)?;
        debug_assert!(is_pushed, "nothing is longer than that");
        let batch = Arc::new(StagedBatch {
            stage: Arc::clone(self),
            topic: Arc::clone(topic),
            partition,
            sequence: staging.next,
            outcome: OnceLock::new(),
            tasks: Mutex::default(),
        });
        staging.next += 1;
        let config = &staging.rules.config;
        let len_max = (config.batch_bytes_max).min(config.segment_bytes as usize);
        let len_max = self.context.batch_len_max().min(len_max);
        let due = Instant::now() + self.context.linger();
        let open = OpenBatch { buffer, batch, len_max, due, has_unkeyed: is_unkeyed(record) };
        let staged = open.last_record(timestamp_ms);
        let is_full = open.buffer.len() >= len_max;
        staging.open = Some(open);
        let mut call_at = None;
        if is_full {
            self.seal(staging);
        } else if staging.listed.is_none() {
            staging.listed = Some(due);
            call_at = self.context.list(due, self);
        }
        Ok(Pushed::Opened(staged, call_at))
    }

    /// Appends what stands in line, unless another thread is at it. Where several batches are in front of the
    /// one that was sealed last, a patient caller waits a little for its turn, so that those who send do not run
    /// away from the one who appends. Says whether it appended anything.
    pub(crate) fn append_sealed(&self, patience: Patience) -> bool {
        let mut staging = self.staging.lock();
        if patience == Patience::Waits && staging.is_appending && staging.line.len() >= LINE_LEN {
            staging.waiting += 1;
            self.turn.wait_for(&mut staging, TURN_WAIT_MAX);
            staging.waiting -= 1;
        }
        // Asked after the wait: whoever gave up the role for those who wait relies on one of them.
        if staging.is_appending || staging.line.is_empty() {
            return false;
        }
        let upto = staging.next;
        self.append_line(staging, upto);
        true
    }

    /// Seals what is open and waits until everything staged so far has its outcome.
    pub(crate) fn flush(&self) {
        let mut staging = self.staging.lock();
        self.seal(&mut staging);
        let upto = staging.next;
        self.wait_through(staging, upto);
    }

    /// Seals the open batch if the agenda's entry of this time is about it; says whether it did.
    pub(crate) fn seal_listed(&self, at: Instant) -> bool {
        let mut staging = self.staging.lock();
        if staging.listed != Some(at) {
            return false;
        }
        staging.listed = None;
        self.seal(&mut staging)
    }

    /// Seals and appends the open batch if its time is up, asked because of the agenda's entry of the time `at`.
    pub(crate) fn do_what_is_due(self: &Arc<Self>, at: Instant, now: Instant) {
        let mut staging = self.staging.lock();
        if staging.listed != Some(at) {
            return;
        }
        staging.listed = None;
        match &staging.open {
            Some(open) if open.due > now => {
                let due = open.due;
                staging.listed = Some(due);
                // The background thread is about to look at the agenda: it need not be called.
                let _call_at = self.context.list(due, self);
            }
            Some(_) => {
                self.seal(&mut staging);
                drop(staging);
                self.append_sealed(Patience::DoesNotWait);
            }
            None => {}
        }
    }

    /// Has the background thread look at the agenda at a time.
    pub(crate) fn call_at(&self, at: Instant) {
        let whom: Weak<dyn Due> = Arc::downgrade(&self.context) as Weak<dyn Due>;
        self.context.topics().ask(Attention::Call { whom, at });
    }

    /// Puts the open batch in line; says whether there was one.
    fn seal(&self, staging: &mut Staging) -> bool {
        let Some(open) = staging.open.take() else {
            return false;
        };
        if open.has_unkeyed {
            let topic = &open.batch.topic;
            partitioner::leave_sticky(self.number, topic.partition_count(), &topic.sticky);
        }
        let LogConfig { timestamp_type, packing, batch_bytes_max, .. } = *staging.rules.config;
        let OpenBatch { buffer, batch, .. } = open;
        let stored_len_max = batch_bytes_max;
        let sealed = SealedBatch { buffer, batch, timestamp_type, packing, stored_len_max };
        staging.line.push_back(sealed);
        true
    }

    /// Waits until every batch with a lower sequence than `upto`, all of them sealed, has its outcome; appends
    /// if nobody else does.
    fn wait_through(&self, mut staging: MutexGuard<'_, Staging>, upto: u64) {
        while staging.through < upto && staging.is_appending {
            staging.waiting += 1;
            self.turn.wait(&mut staging);
            staging.waiting -= 1;
        }
        // Also where there is nothing left to wait for: whoever gave up the role relies on one of those who wait.
        if !staging.is_appending && !staging.line.is_empty() {
            self.append_line(staging, upto);
        }
    }

    /// Appends what stands in line, batch by batch, without the lock. Once everything below `upto` is through it
    /// hands over to somebody who waits, if anybody does.
    fn append_line(&self, mut staging: MutexGuard<'_, Staging>, upto: u64) {
        let mut tasks = Vec::new();
        let mut panicked = None;
        staging.is_appending = true;
        while let Some(sealed) = staging.line.pop_front() {
            let sequence = sealed.batch.sequence;
            MutexGuard::unlocked(&mut staging, || {
                let batch = Arc::clone(&sealed.batch);
                let appended = catch_unwind(AssertUnwindSafe(|| self.append(sealed)));
                let outcome = appended.unwrap_or_else(|panic| {
                    panicked = Some(panic);
                    // The log has latched, or nothing happened; nobody knows.
                    let reason = Arc::from("an append panicked");
                    Err(Error::Latched { path: batch.partition.directory().into(), reason })
                });
                if let Err(error) = &outcome {
                    self.context.note_failure(error);
                }
                tasks.extend(batch.complete(outcome));
            });
            staging.through = sequence + 1;
            if staging.waiting + staging.watching > 0 {
                self.turn.notify_all();
            }
            if staging.through >= upto && staging.waiting > 0 {
                break;
            }
        }
        staging.is_appending = false;
        drop(staging);
        // Wakers are the user's code: it runs without the lock and without the role.
        for task in tasks {
            task.wake();
        }
        if let Some(panic) = panicked {
            resume_unwind(panic);
        }
    }

    fn append(&self, sealed: SealedBatch) -> Result<Appended> {
        let SealedBatch { mut buffer, batch, timestamp_type, packing, stored_len_max } = sealed;
        if timestamp_type == TimestampType::LogAppendTime {
            buffer.raise_timestamp(self.context.topics().clock().now_ms());
        }
        self.context.appender().pack(packing, &mut buffer);
        let mut encoded = buffer.seal(timestamp_type);
        let (len, limit) = (encoded.len(), stored_len_max);
        if len > limit {
            return Err(Error::RecordTooLarge { len, limit, key: "max.message.bytes" });
        }
        let appender = self.context.appender();
        appender.append(&batch.topic, &batch.partition, &mut encoded).map_err(|error| *error)
    }

    fn refuse_too_large(&self, len: usize, config: &LogConfig) -> Result<()> {
        // Of what is compressed it is not known yet how long it will be.
        let of_stored = |limit| match self.context.appender().packs(config.packing) {
            true => usize::MAX,
            false => limit,
        };
        let limits = [
            (of_stored(config.batch_bytes_max), "max.message.bytes"),
            (of_stored(config.segment_bytes as usize), "segment.bytes"),
            (self.context.pool().limit(), "buffer.memory"),
        ];
        match limits.into_iter().find(|(limit, _)| len > *limit) {
            Some((limit, key)) => Err(Error::RecordTooLarge { len, limit, key }),
            None => Ok(()),
        }
    }
}

impl Due for StageContext<Stage> {
    fn do_what_is_due(&self, now: Instant) -> Option<Instant> {
        loop {
            match self.take_due(now) {
                Ok((at, stage)) => {
                    if let Some(stage) = stage.upgrade() {
                        stage.do_what_is_due(at, now);
                    }
                }
                Err(next_at) => return next_at,
            }
        }
    }
}

impl Rules {
    fn of(topic: &TopicState) -> Rules {
        // In this order: settings that are older than their version would never be looked at again.
        let version = topic.settings_version();
        Rules { config: topic.log_config(), version }
    }
}

impl OpenBatch {
    #[inline]
    fn last_record(&self, timestamp_ms: i64) -> StagedRecord {
        let index = self.buffer.record_count() - 1;
        StagedRecord { batch: Arc::clone(&self.batch), index, timestamp_ms }
    }
}

impl StagedBatch {
    pub(crate) fn number(&self) -> u32 {
        self.stage.number
    }

    pub(crate) fn waits_for_sync(&self) -> bool {
        self.stage.context.appender().waits_for_sync()
    }

    /// Gives the batch's outcome; seals and appends it first if need be, and waits while another thread does.
    pub(crate) fn wait(&self) -> Result<&Appended> {
        if self.outcome.get().is_none() {
            let mut staging = self.stage.staging.lock();
            self.seal(&mut staging);
            self.stage.wait_through(staging, self.sequence + 1);
        }
        self.known().expect("the batch is through")
    }

    /// Gives the batch's outcome; the background thread is asked to see to it, and waited for until the deadline.
    pub(crate) fn wait_until(&self, deadline: Instant) -> Option<Result<&Appended>> {
        if let Some(known) = self.known() {
            return Some(known);
        }
        let stage = &self.stage;
        let mut staging = stage.staging.lock();
        let now = Instant::now();
        let mut call_at = None;
        if let Some(open) = &mut staging.open {
            if open.batch.sequence == self.sequence && open.due > now {
                open.due = now;
                staging.listed = Some(now);
                call_at = stage.context.list(now, stage);
            }
        }
        if let Some(at) = call_at {
            MutexGuard::unlocked(&mut staging, || stage.call_at(at));
        }
        while staging.through <= self.sequence {
            staging.watching += 1;
            let waited = stage.turn.wait_until(&mut staging, deadline);
            staging.watching -= 1;
            if waited.timed_out() {
                break;
            }
        }
        drop(staging);
        self.known()
    }

    /// Gives the batch's outcome, or has a task woken with it. Seals and appends, but waits for nobody.
    pub(crate) fn poll(&self, waker: &Waker) -> Option<Result<&Appended>> {
        if let Some(known) = self.known() {
            return Some(known);
        }
        let is_sealed = self.seal(&mut self.stage.staging.lock());
        if is_sealed {
            self.stage.append_sealed(Patience::DoesNotWait);
        }
        let mut tasks = self.tasks.lock();
        // Under the lock: whoever sets the outcome takes the tasks afterwards.
        if self.outcome.get().is_none() && !tasks.iter().any(|task| task.will_wake(waker)) {
            tasks.push(waker.clone());
        }
        drop(tasks);
        self.known()
    }

    /// Seals the batch if it is the one that is open.
    fn seal(&self, staging: &mut Staging) -> bool {
        let is_open =
            staging.open.as_ref().is_some_and(|open| open.batch.sequence == self.sequence);
        is_open && self.stage.seal(staging)
    }

    fn known(&self) -> Option<Result<&Appended>> {
        Some(self.outcome.get()?.as_ref().map_err(Error::again))
    }

    /// Sets the outcome and gives the tasks to be woken.
    fn complete(&self, outcome: Result<Appended>) -> Vec<Waker> {
        let is_first = self.outcome.set(outcome).is_ok();
        debug_assert!(is_first, "a batch has one outcome");
        std::mem::take(&mut self.tasks.lock())
    }
}

#[inline]
fn is_unkeyed(record: &Record<'_>) -> bool {
    record.key.is_none() && record.partition.is_none()
}

/// So many batches in front of one's own are enough to wait for one's turn.
const LINE_LEN: usize = 2;
/// An append that takes longer than this does not hold up those who send: the buffer takes what they bring.
const TURN_WAIT_MAX: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::panic::catch_unwind;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering;
    use std::thread;
    use std::time::Duration;
    use std::time::Instant;

    use tempfile::TempDir;

    use crate::Delivery;
    use crate::Durability;
    use crate::Error;
    use crate::Finding;
    use crate::Producer;
    use crate::Record;
    use crate::Store;
    use crate::Topic;
    use crate::TopicConfig;
    use crate::storage::disk::Disk;
    use crate::storage::faults::Script;

    const NEVER: Duration = Duration::from_secs(3600);

    /// A store on a disk with a script, with two partitions, and a producer that seals nothing by itself.
    fn scripted() -> (TempDir, Disk, Store, Topic, Producer) {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::failing_once(u64::MAX, 0);
        let store = Store::builder(directory.path())
            .durability(Durability::Buffered)
            .checkpoint_interval(NEVER)
            .disk(disk.clone())
            .open()
            .unwrap();
        let topic = store.create_topic("t", TopicConfig::new().partitions(2)).unwrap();
        let producer = store.producer_builder().linger(NEVER).build();
        (directory, disk, store, topic, producer)
    }

    fn send(producer: &Producer, topic: &Topic, value: &str) -> Delivery {
        producer.send(topic, Record::new(value).partition(0)).unwrap()
    }

    fn read(store: &Store, topic: &Topic, partition: u32) -> Vec<String> {
        let partition = topic.partition(partition).unwrap();
        let mut consumer = store.consumer().assign([partition]).unwrap();
        let mut all = Vec::new();
        loop {
            let records = consumer.poll(Duration::ZERO).unwrap();
            if records.is_empty() {
                return all;
            }
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            all.extend(records.iter().map(|message| text(message.value().unwrap())));
        }
    }

    #[test]
    fn a_batch_that_finds_no_space_fails_every_delivery_and_is_told_by_flush_and_health() {
        let (_directory, disk, store, topic, producer) = scripted();
        let other = producer.clone();
        let mut lost: Vec<_> = (0..5).map(|n| send(&producer, &topic, &n.to_string())).collect();
        disk.script().arm(1, libc::ENOSPC, true);
        let forgotten = lost.pop();
        drop(forgotten);
        assert!(matches!(producer.flush(), Err(Error::OutOfSpace { .. })));
        disk.script().disarm();
        let is_told = |error: Error| {
            let Error::OutOfSpace { path, .. } = &error else { panic!("{error}") };
            assert!(path.starts_with(store.path()) && error.is_retriable(), "{error}");
        };
        let mut patient = lost.pop().unwrap();
        is_told(patient.wait_timeout(Duration::ZERO).unwrap_err());
        is_told(patient.wait_timeout(Duration::ZERO).unwrap_err());
        lost.into_iter().for_each(|delivery| is_told(delivery.wait().unwrap_err()));
        let findings = store.health().findings;
        let [Finding::Nuisance { reason, .. }] = &findings[..] else { panic!("{findings:?}") };
        assert!(reason.contains("staged") && reason.contains("no space left"), "{reason}");

        producer.flush().unwrap();
        // Whoever flushes through another clone has not heard of it yet.
        is_told(other.flush().unwrap_err());
        other.flush().unwrap();
        assert_eq!(send(&producer, &topic, "later").wait().unwrap().offset(), 0);
        assert_eq!(read(&store, &topic, 0), ["later"]);
        store.close().unwrap();
    }

    #[test]
    fn a_refusal_that_nobody_was_told_of_is_told_by_the_close() {
        let (_directory, disk, store, topic, producer) = scripted();
        drop(send(&producer, &topic, "lost"));
        let kept = producer.send(&topic, Record::new("kept").partition(1)).unwrap();
        disk.script().arm(1, libc::ENOSPC, true);
        drop(send(&producer, &topic, "also lost").wait().unwrap_err());
        disk.script().disarm();
        assert!(matches!(store.close(), Err(Error::OutOfSpace { .. })));
        assert_eq!(kept.wait().unwrap().offset(), 0, "the others were appended all the same");
        let marker = _directory.path().join(".kafka_cleanshutdown");
        assert!(marker.exists(), "the directory itself is in order");
    }

    #[test]
    fn a_failed_append_latches_and_what_stands_behind_it_is_refused() {
        let (_directory, disk, store, topic, producer) = scripted();
        assert_eq!(send(&producer, &topic, "before").wait().unwrap().offset(), 0);
        let lost = [send(&producer, &topic, "a"), send(&producer, &topic, "b")];
        disk.script().arm(1, libc::EIO, true);
        for delivery in lost {
            assert!(matches!(delivery.wait(), Err(Error::Latched { .. })));
        }
        disk.script().disarm();
        let refused = producer.send(&topic, Record::new("late").partition(0)).unwrap_err();
        assert!(matches!(refused, Error::Latched { .. }), "known before it is staged: {refused}");
        assert!(matches!(producer.flush(), Err(Error::Latched { .. })));
        let elsewhere = producer.send(&topic, Record::new("fine").partition(1)).unwrap();
        assert_eq!(elsewhere.wait().unwrap().offset(), 0);
        assert_eq!(read(&store, &topic, 0), ["before"]);
        assert!(!store.health().is_good());
    }

    #[test]
    fn an_append_that_panics_leaves_nobody_waiting() {
        let (_directory, disk, store, topic, producer) = scripted();
        assert_eq!(send(&producer, &topic, "before").wait().unwrap().offset(), 0);
        let (first, second) = (send(&producer, &topic, "a"), send(&producer, &topic, "b"));
        disk.script().arm(1, Script::PANIC, false);
        let unwound = catch_unwind(AssertUnwindSafe(|| first.wait()));
        assert!(unwound.is_err(), "the one who appends has the panic");
        assert!(matches!(second.wait(), Err(Error::Latched { .. })));
        let refused = producer.send(&topic, Record::new("late").partition(0)).unwrap_err();
        assert!(matches!(refused, Error::Latched { .. }));
        let elsewhere = producer.send(&topic, Record::new("fine").partition(1)).unwrap();
        assert_eq!(elsewhere.wait().unwrap().offset(), 0);
        assert!(matches!(producer.flush(), Err(Error::Latched { .. })));
        assert_eq!(read(&store, &topic, 0), ["before"]);
    }

    #[test]
    fn a_panic_on_the_background_thread_does_not_end_its_care_for_the_others() {
        let (_directory, disk, store, topic, _) = scripted();
        let producer = store.producer_builder().linger(Duration::from_millis(5)).build();
        disk.script().arm(1, Script::PANIC, false);
        let lost = send(&producer, &topic, "lost");
        // Found out without anybody's doing anything, but for the look.
        let begun = Instant::now();
        while store.health().is_good() {
            assert!(begun.elapsed() < Duration::from_secs(60));
            thread::sleep(Duration::from_millis(1));
        }
        assert!(matches!(lost.wait(), Err(Error::Latched { .. })));
        let mut consumer = store.consumer().assign([topic.partition(1).unwrap()]).unwrap();
        drop(producer.send(&topic, Record::new("fine").partition(1)).unwrap());
        assert_eq!(consumer.poll(Duration::from_secs(60)).unwrap().count(), 1);
    }

    /// Stages, waits and flushes; gives each record with what it was told.
    fn staged_life(directory: &TempDir, disk: &Disk) -> Vec<(String, Result<i64, Error>)> {
        let mut told = Vec::new();
        let store = Store::builder(directory.path())
            .durability(Durability::Buffered)
            .checkpoint_interval(NEVER)
            .disk(disk.clone())
            .open();
        let Ok(store) = store else { return told };
        let Ok(topic) = store.create_topic("t", TopicConfig::new().segment_bytes(1024)) else {
            return told;
        };
        let producer = store.producer_builder().linger(NEVER).batch_bytes(400).build();
        let mut pending = Vec::new();
        for n in 0..40 {
            let value = format!("{n}-{}", "x".repeat(60));
            match producer.send(&topic, &value) {
                Ok(delivery) => pending.push((value, delivery)),
                Err(error) => told.push((value, Err(error))),
            }
            if n % 13 == 12 {
                drop(producer.flush());
            }
        }
        drop((producer, topic));
        drop(store.close());
        for (value, delivery) in pending {
            told.push((value, delivery.wait().map(|sent| sent.offset())));
        }
        told
    }

    #[test]
    fn whichever_effect_fails_every_staged_record_is_told_the_truth() {
        let scratch = tempfile::tempdir().unwrap();
        let disk = Disk::failing_once(u64::MAX, 0);
        let told = staged_life(&scratch, &disk);
        assert!(told.iter().all(|(_, told)| told.is_ok()) && told.len() == 40);
        let effects = disk.script().count();
        assert!(effects > 50, "{effects}");
        let (mut refused_count, mut appended_count) = (0, 0);
        for errno in [libc::EIO, libc::ENOSPC] {
            for n in 1..=effects {
                let directory = tempfile::tempdir().unwrap();
                let disk = Disk::failing_once(n, errno);
                let told = staged_life(&directory, &disk);
                let trace = disk.script().trace();
                let what = format!("effect {n} ({}), errno {errno}", trace[n as usize - 1]);
                let store = Store::open(directory.path()).unwrap();
                let found = match store.topic("t") {
                    Ok(topic) => read(&store, &topic, 0),
                    Err(_) => Vec::new(),
                };
                for (value, told) in told {
                    match told {
                        Ok(offset) => {
                            appended_count += 1;
                            assert_eq!(found.get(offset as usize), Some(&value), "{what}");
                        }
                        // Nobody knows.
                        Err(Error::Latched { .. }) => {}
                        Err(error) => {
                            refused_count += 1;
                            assert!(!found.contains(&value), "{what}: {error}, yet it is there");
                        }
                    }
                }
            }
        }
        assert!(refused_count > 100 && appended_count > 1000, "{refused_count} {appended_count}");
    }

    #[test]
    fn whoever_appends_for_the_others_comes_back_to_his_own_work() {
        let (_directory, disk, store, topic, _) = scripted();
        let producer = store.producer_builder().linger(NEVER).batch_bytes(2000).build();
        // An append takes longer than a batch takes to fill, so something always stands in line.
        disk.script().arm(1, Script::SLOW, true);
        const THREADS: usize = 4;
        const EACH: u64 = 100;
        let sent: [AtomicU64; THREADS] = Default::default();
        let begun = Instant::now();
        let value = "v".repeat(1000);
        thread::scope(|scope| {
            for own in &sent {
                scope.spawn(|| {
                    // Everybody goes on until everybody is through: whoever is kept from it ends this badly.
                    while sent.iter().any(|sent| sent.load(Ordering::Relaxed) < EACH) {
                        assert!(begun.elapsed() < Duration::from_secs(60), "{sent:?}");
                        drop(send(&producer, &topic, &value));
                        own.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        disk.script().disarm();
        producer.flush().unwrap();
        let total: u64 = sent.iter().map(|sent| sent.load(Ordering::Relaxed)).sum();
        assert_eq!(topic.partition(0).unwrap().watermarks().unwrap(), (0, total as i64));
    }

    #[test]
    fn a_producer_does_not_hold_on_to_a_deleted_topic() {
        let store = Store::builder_temporary().durability(Durability::Buffered).open().unwrap();
        let producer = store.producer_builder().linger(NEVER).build();
        for n in 0..10 {
            let name = format!("t{n}");
            let topic = store.create_topic(&name, TopicConfig::new()).unwrap();
            let partition = std::sync::Arc::downgrade(&topic.state.open_partition(0).unwrap());
            drop(producer.send(&topic, "v").unwrap().wait().unwrap());
            assert!(partition.upgrade().is_some());
            store.delete_topic(&name).unwrap();
            drop(topic);
            assert!(partition.upgrade().is_none(), "its files are kept open");
        }
    }
}
