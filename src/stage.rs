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

    /// Encodes a record into the open batch, or opens the next if it does not fit. Never blocks but for the
    /// lock, and refuses whatever can be known now to be refused.
    #[inline]
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
        let timestamp_type = staging.rules.config.timestamp_type;
        let OpenBatch { buffer, batch, .. } = open;
        staging.line.push_back(SealedBatch { buffer, batch, timestamp_type });
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
        let SealedBatch { mut buffer, batch, timestamp_type } = sealed;
        if timestamp_type == TimestampType::LogAppendTime {
            buffer.raise_timestamp(self.context.topics().clock().now_ms());
        }
        let mut encoded = buffer.seal(timestamp_type);
        self.context.appender().append(&batch.topic, &batch.partition, &mut encoded)
    }

    fn refuse_too_large(&self, len: usize, config: &LogConfig) -> Result<()> {
        let limits = [
            (config.batch_bytes_max, "max.message.bytes"),
            (config.segment_bytes as usize, "segment.bytes"),
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
