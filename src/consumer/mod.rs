//! Reading: assign, poll, seek, wait.
//!
//! A [`Consumer`] is one reader's position in some partitions. It belongs to one thread at a time, which
//! the compiler sees to; [`Wakeup`] is the one thing others may hold.

pub(crate) mod commits;
pub(crate) mod iter;
mod member;
mod member_id;
pub(crate) mod membership;
mod positions;
mod rebalance;
mod waiting;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::assignment::Isolation;
use crate::assignment::OffsetReset;
use crate::assignment::Start;
use crate::consumer::membership::Ending;
use crate::consumer::membership::GroupSettings;
use crate::consumer::membership::Membership;
use crate::coordinator::Coordinator;
use crate::coordinator::assignors::Place;
use crate::error::Error;
use crate::error::Result;
use crate::handed_out::HandedOut;
use crate::partition::Partition;
use crate::partition::fetch::Cursor;
use crate::partition::fetch::Limits;
use crate::partition::fetch::ReadOutcome;
use crate::partition::unpacking::Unpacking;
use crate::partition::watermarks::Doorbell;
use crate::records::OwnedMessage;
use crate::records::Part;
use crate::records::Records;
use crate::spin::Spin;
use crate::storage::verified::Checks;
use crate::topic::KeepOpen;
use crate::topic::OffsetAndTimestamp;
use crate::topic::TopicPartition;
use crate::topics::Topics;
use crate::wakeup::Wakeup;

/// Reads partitions, each from a position of its own.
///
/// `Send`, and used through `&mut`: one thread at a time. There are three ways to read, which may be
/// mixed: [`poll`](Self::poll) for batches without a copy, a `for` loop over `&mut consumer`, and
/// [`recv`](Self::recv) in a task.
///
/// ```
/// use std::time::Duration;
/// use ottla::{Record, Store, TopicConfig};
///
/// let store = Store::temporary()?;
/// let orders = store.create_topic("orders", TopicConfig::new())?;
/// let producer = store.producer();
/// for value in ["a", "b", "c"] {
///     producer.send(&orders, Record::new(value))?.wait()?;
/// }
/// let mut consumer = store
///     .consumer()
///     .iterator_timeout(Duration::ZERO)
///     .assign(orders.partitions())?;
/// let mut values = Vec::new();
/// for message in &mut consumer {
///     values.extend_from_slice(message?.value().unwrap_or_default());
/// }
/// assert_eq!(values, b"abc");
/// # Ok::<(), ottla::Error>(())
/// ```
pub struct Consumer {
    topics: Arc<Topics>,
    keep_open: KeepOpen,
    settings: Settings,
    /// Its place in a group, if it has one.
    membership: Option<Box<Membership>>,
    listeners: Listeners,
    assigned: Vec<Assigned>,
    /// Which partition the next poll asks first.
    next: usize,
    /// Records came since the last wait: more may follow at once.
    has_just_read: bool,
    spin: Spin,
    bell: Arc<Doorbell>,
    wakeup: Arc<AtomicBool>,
    /// Read ahead for the iterator and `recv`; positions count what was handed out, not what is here.
    buffer: VecDeque<OwnedMessage>,
    unpacking: Unpacking,
}

#[derive(Debug)]
struct Assigned {
    /// Counted by itself: every poll and every record that is kept holds it.
    source: Arc<TopicPartition>,
    open: Arc<Partition>,
    cursor: Cursor,
    is_paused: bool,
    /// The group wants it back; no more is handed out.
    is_leaving: bool,
    /// Where it stands in the group that gave it.
    place: Option<Place>,
    /// What the application has of it, where that counts.
    handed_out: Option<Arc<HandedOut>>,
}

impl Assigned {
    fn is_in_hands(&self) -> bool {
        self.handed_out.as_ref().is_some_and(|handed_out| handed_out.is_out())
    }

    fn is_read(&self) -> bool {
        !self.is_paused && !self.is_leaving
    }
}

/// A function of the application's that is told of partitions.
pub(crate) type Listener =
    Arc<dyn Fn(&mut Rebalance<'_>, &[TopicPartition]) -> Result<()> + Send + Sync>;

/// Whom to tell when partitions come and go.
#[derive(Clone, Default)]
pub(crate) struct Listeners {
    pub(crate) assigned: Option<Listener>,
    pub(crate) revoked: Option<Listener>,
    pub(crate) lost: Option<Listener>,
}

/// The consumer, as far as it may be used while partitions come and go: everything but reading.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::Mutex;
/// use ottla::{Store, TopicConfig};
///
/// let store = Store::temporary()?;
/// let topic = store.create_topic("t", TopicConfig::new().partitions(2))?;
/// let told = Arc::new(Mutex::new(Vec::new()));
/// let tell = Arc::clone(&told);
/// let mut consumer = store
///     .consumer()
///     .on_assigned(move |rebalance, partitions| {
///         let positions = partitions.iter().map(|partition| rebalance.position(partition));
///         tell.lock().unwrap().extend(positions.collect::<ottla::Result<Vec<_>>>()?);
///         Ok(())
///     })
///     .on_revoked(|rebalance, _| rebalance.commit())
///     .subscribe("g", &topic)?;
/// consumer.poll(std::time::Duration::ZERO)?;
/// assert_eq!(*told.lock().unwrap(), [0, 0]);
/// # Ok::<(), ottla::Error>(())
/// ```
pub struct Rebalance<'c> {
    pub(crate) consumer: &'c mut Consumer,
}

/// How a consumer reads, as its builder was told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) start: Start,
    pub(crate) reset: OffsetReset,
    pub(crate) isolation: Isolation,
    pub(crate) records_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) partition_bytes_max: usize,
    /// How much may come out of one compressed batch.
    pub(crate) unpacked_bytes_max: Option<usize>,
    pub(crate) checks: Checks,
    pub(crate) spin: Duration,
    pub(crate) iterator_timeout: Option<Duration>,
}

impl Consumer {
    /// Makes a consumer that reads nothing yet.
    pub(crate) fn new(
        topics: Arc<Topics>,
        keep_open: KeepOpen,
        settings: Settings,
        group: Option<(Arc<Coordinator>, Arc<str>, GroupSettings)>,
        listeners: Listeners,
    ) -> Result<Consumer> {
        let bell = Arc::new(Doorbell::default());
        let membership = match group {
            Some((coordinator, group, settings)) => {
                Some(Box::new(Membership::new(coordinator, &group, settings, &bell)?))
            }
            None => None,
        };
        Ok(Consumer {
            topics,
            keep_open,
            settings,
            membership,
            listeners,
            assigned: Vec::new(),
            next: 0,
            has_just_read: false,
            spin: Spin::new(settings.spin),
            bell,
            wakeup: Arc::new(AtomicBool::new(false)),
            buffer: VecDeque::new(),
            unpacking: Unpacking::within(settings.unpacked_bytes_max),
        })
    }

    /// Gives the partitions that are read.
    pub fn assignment(&self) -> impl Iterator<Item = &TopicPartition> {
        self.assigned.iter().map(|assigned| &*assigned.source)
    }

    /// Returns records, at once if there are any, else as soon as there are, or none when the time is up.
    ///
    /// Waiting takes no processor time. Partitions take turns: one that has just been read is asked last.
    /// Positions move as records are handed out.
    ///
    /// # Errors
    ///
    /// * [`Error::Corrupt`], [`Error::UnsupportedCompression`]: the next batch of a partition cannot be
    ///   read. Its position stays in front of it, [`seek`](Self::seek) to go on behind; other partitions
    ///   are read by the next poll.
    /// * [`Error::Io`] if the disk cannot read a segment, or no descriptor is left to open it with: likewise, and
    ///   later polls try again.
    /// * [`Error::OffsetOutOfRange`] if the reset policy says so.
    /// * [`Error::Wakeup`] after [`Wakeup::wake`]; nothing was read.
    /// * [`Error::TopicDeleted`], [`Error::Closed`].
    pub fn poll(&mut self, timeout: Duration) -> Result<Records> {
        let _polling = self.polling();
        self.put_back_buffer();
        let records = self.look()?;
        if !records.is_empty() || timeout.is_zero() {
            return Ok(records);
        }
        // No deadline if it is further than time can be told.
        let deadline = Instant::now().checked_add(timeout);
        loop {
            self.wait(deadline);
            let records = self.look()?;
            let is_over = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if !records.is_empty() || is_over() {
                return Ok(records);
            }
        }
    }

    /// Stops returning records of these partitions; they stay assigned and keep their positions.
    ///
    /// # Errors
    ///
    /// * [`Error::NotAssigned`]; none was paused.
    pub fn pause<'p>(
        &mut self,
        partitions: impl IntoIterator<Item = &'p TopicPartition>,
    ) -> Result<()> {
        self.set_paused(partitions, true)
    }

    /// Returns records of these partitions again.
    ///
    /// # Errors
    ///
    /// * [`Error::NotAssigned`]; none was resumed.
    pub fn resume<'p>(
        &mut self,
        partitions: impl IntoIterator<Item = &'p TopicPartition>,
    ) -> Result<()> {
        self.set_paused(partitions, false)
    }

    /// Gives the partitions that are paused.
    pub fn paused(&self) -> impl Iterator<Item = &TopicPartition> {
        self.assigned.iter().filter(|a| a.is_paused).map(|a| &*a.source)
    }

    /// Gives for each partition the first record with the timestamp (milliseconds since 1970) or a later
    /// one, as offset and timestamp. The partitions need not be assigned.
    ///
    /// # Errors
    ///
    /// * [`Error::InvalidArgument`] if a timestamp is negative.
    /// * As [`TopicPartition::offset_for_time`].
    pub fn offsets_for_times(
        &self,
        times: impl IntoIterator<Item = (TopicPartition, i64)>,
    ) -> Result<Vec<(TopicPartition, Option<OffsetAndTimestamp>)>> {
        let look_up = |(partition, timestamp_ms): (TopicPartition, i64)| {
            if timestamp_ms < 0 {
                let reason = "a timestamp is negative";
                return Err(Error::InvalidArgument { argument: "times", reason });
            }
            let found = partition.offset_for_time(timestamp_ms)?;
            Ok((partition, found))
        };
        times.into_iter().map(look_up).collect()
    }

    /// Gives what wakes this consumer from another thread.
    pub fn wakeup_handle(&self) -> Wakeup {
        Wakeup { bell: Arc::clone(&self.bell), flag: Arc::clone(&self.wakeup) }
    }

    /// Reads what is there, unless the consumer was woken up.
    fn look(&mut self) -> Result<Records> {
        self.refuse_if_woken()?;
        if self.membership.is_some() {
            self.take_part()?;
        }
        let records = self.collect()?;
        self.has_just_read |= !records.is_empty();
        Ok(records)
    }

    /// Reads what is there, partition by partition, within the limits of one poll.
    fn collect(&mut self) -> Result<Records> {
        self.topics.refuse_if_closed()?;
        let mut parts = Vec::new();
        let mut room =
            Limits { bytes: self.settings.bytes_max, records: self.settings.records_max };
        let count = self.assigned.len();
        let first = self.next;
        for index in (0..count).map(|step| (first + step) % count) {
            if !self.assigned[index].is_read() {
                continue;
            }
            if room.records == 0 || (room.bytes == 0 && !parts.is_empty()) {
                break;
            }
            let limits = Limits {
                bytes: room.bytes.min(self.settings.partition_bytes_max),
                records: room.records,
            };
            match self.read_one(index, limits) {
                Ok(Some(part)) => {
                    room.records -= part.fetched.record_count.min(room.records);
                    room.bytes = room.bytes.saturating_sub(part.fetched.len());
                    parts.push(part);
                    self.next = (index + 1) % count;
                }
                Ok(None) => {}
                // Others were read already: they go out first, and the next poll begins with the error.
                Err(_) if !parts.is_empty() => {
                    self.next = index;
                    break;
                }
                Err(error) => {
                    self.next = (index + 1) % count;
                    return Err(error);
                }
            }
        }
        Ok(Records { parts })
    }

    fn read_one(&mut self, index: usize, limits: Limits) -> Result<Option<Part>> {
        let assigned = &self.assigned[index];
        assigned.open.refresh()?;
        if assigned.open.is_deleted() {
            // One that the group gave, the group takes away.
            if assigned.place.is_some() {
                return Ok(None);
            }
            let name = assigned.source.topic().name().to_owned();
            return Err(Error::TopicDeleted { name });
        }
        if self.settings.isolation == Isolation::Durable && assigned.open.is_followed() {
            self.topics.refresh_checkpoints()?;
        }
        loop {
            let assigned = &mut self.assigned[index];
            let bound = self.settings.isolation.bound(&assigned.open);
            let first = assigned.cursor.position;
            match assigned.open.read(
                &mut assigned.cursor,
                limits,
                bound,
                self.settings.checks,
                &mut self.unpacking,
            )? {
                ReadOutcome::Records(fetched) => {
                    let lease = assigned.handed_out.as_ref().map(|out| out.lease(first));
                    return Ok(Some(Part { source: assigned.source.clone(), fetched, lease }));
                }
                ReadOutcome::AtEnd => return Ok(None),
                ReadOutcome::OutOfRange => {
                    let assigned = &self.assigned[index];
                    let (source, offset) = (&assigned.source, assigned.cursor.position);
                    let (topic, number) = (source.topic().name(), source.partition());
                    let position = self.reset_position(topic, number, &assigned.open, offset)?;
                    self.assigned[index].cursor = Cursor::at(position);
                }
            }
        }
    }

    fn next_buffered(&mut self) -> Result<Option<OwnedMessage>> {
        self.refuse_if_woken()?;
        if self.membership.as_ref().is_some_and(|membership| membership.has_news()) {
            // What is here may be another's by now.
            self.put_back_buffer();
        }
        if self.buffer.is_empty() {
            let records = self.look()?;
            self.buffer.extend(records.iter().map(|message| message.detach()));
        }
        Ok(self.buffer.pop_front())
    }

    /// Lets positions tell again what was handed out, and nothing else.
    fn put_back_buffer(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let buffer = std::mem::take(&mut self.buffer);
        // Backwards, so that the first buffered record of each partition has the last word.
        for message in buffer.iter().rev() {
            let source = message.topic_partition();
            if let Some(assigned) = self.assigned.iter_mut().find(|a| *a.source == *source) {
                assigned.cursor = Cursor::at(message.offset());
            }
        }
    }

    fn bound(&self, open: &Partition) -> i64 {
        self.settings.isolation.bound(open)
    }

    fn refuse_if_woken(&self) -> Result<()> {
        // A flag that is set after this look is seen by the one before going to sleep.
        let is_woken = self.wakeup.load(Ordering::Relaxed);
        if is_woken && self.wakeup.swap(false, Ordering::SeqCst) {
            return Err(Error::Wakeup);
        }
        Ok(())
    }

    fn index_of(&self, partition: &TopicPartition) -> Result<usize> {
        self.assigned.iter().position(|a| *a.source == *partition).ok_or_else(|| {
            Error::NotAssigned {
                topic: partition.topic().name().to_owned(),
                partition: partition.partition(),
            }
        })
    }

    fn set_paused<'p>(
        &mut self,
        partitions: impl IntoIterator<Item = &'p TopicPartition>,
        is_paused: bool,
    ) -> Result<()> {
        let indexes = partitions.into_iter().map(|partition| self.index_of(partition));
        let indexes = indexes.collect::<Result<Vec<usize>>>()?;
        self.put_back_buffer();
        for index in indexes {
            self.assigned[index].is_paused = is_paused;
        }
        Ok(())
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if self.membership.is_some() {
            self.put_back_buffer();
            let is_unwinding = std::thread::panicking();
            let ending = if is_unwinding { Ending::Unwinding } else { Ending::Orderly };
            // Nobody is left to tell: what was not committed is read again.
            drop(self.end_membership(ending));
        }
        self.topics.closing().take_down(&self.bell);
        for assigned in &self.assigned {
            assigned.open.doorbells().take_down(&self.bell);
        }
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let positions = self.assigned.iter().map(|a| format!("{}@{}", a.source, a.cursor.position));
        f.debug_list().entries(positions).finish()
    }
}
