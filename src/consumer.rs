//! Reading: assign, poll, seek, wait.
//!
//! A [`Consumer`] is one reader's position in some partitions. It belongs to one thread at a time, which
//! the compiler sees to; [`Wakeup`] is the one thing others may hold.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use crate::assignment::Assignment;
use crate::assignment::Isolation;
use crate::assignment::OffsetReset;
use crate::assignment::Start;
use crate::error::Error;
use crate::error::Result;
use crate::partition::Partition;
use crate::partition::fetch::Cursor;
use crate::partition::fetch::Limits;
use crate::partition::fetch::ReadOutcome;
use crate::partition::watermarks;
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
    _keep_open: KeepOpen,
    settings: Settings,
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
}

#[derive(Debug)]
struct Assigned {
    /// Counted by itself: every poll and every record that is kept holds it.
    source: Arc<TopicPartition>,
    open: Arc<Partition>,
    cursor: Cursor,
    is_paused: bool,
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
    pub(crate) checks: Checks,
    pub(crate) spin: Duration,
    pub(crate) iterator_timeout: Option<Duration>,
}

impl Consumer {
    /// Makes a consumer that reads nothing yet.
    pub(crate) fn new(topics: Arc<Topics>, keep_open: KeepOpen, settings: Settings) -> Consumer {
        Consumer {
            topics,
            _keep_open: keep_open,
            settings,
            assigned: Vec::new(),
            next: 0,
            has_just_read: false,
            spin: Spin::new(settings.spin),
            bell: Arc::new(Doorbell::default()),
            wakeup: Arc::new(AtomicBool::new(false)),
            buffer: VecDeque::new(),
        }
    }

    /// Reads these partitions from now on, and no others. Partitions that stay keep neither position nor
    /// pause.
    ///
    /// # Errors
    ///
    /// * As [`ConsumerBuilder::assign`](crate::ConsumerBuilder::assign); the old assignment stays.
    pub fn assign<A: Into<Assignment>>(
        &mut self,
        partitions: impl IntoIterator<Item = A>,
    ) -> Result<()> {
        self.topics.refuse_if_closed()?;
        let mut assigned: Vec<Assigned> = Vec::new();
        for assignment in partitions {
            let Assignment { partition: source, start } = assignment.into();
            if assigned.iter().any(|other| *other.source == source) {
                let reason = "a partition is given twice";
                return Err(Error::InvalidArgument { argument: "partitions", reason });
            }
            let open = source.open()?;
            open.refresh()?;
            let position = self.start_position(&open, start.unwrap_or(self.settings.start))?;
            assigned.push(Assigned {
                source: Arc::new(source),
                open,
                cursor: Cursor::at(position),
                is_paused: false,
            });
        }
        for old in &self.assigned {
            old.open.doorbells().take_down(&self.bell);
        }
        for new in &assigned {
            new.open.doorbells().hang(&self.bell);
        }
        self.topics.closing().hang(&self.bell);
        self.assigned = assigned;
        self.next = 0;
        self.buffer.clear();
        Ok(())
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
    /// * [`Error::OffsetOutOfRange`] if the reset policy says so.
    /// * [`Error::Wakeup`] after [`Wakeup::wake`]; nothing was read.
    /// * [`Error::TopicDeleted`], [`Error::Closed`].
    pub fn poll(&mut self, timeout: Duration) -> Result<Records> {
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

    /// Returns the next record as soon as there is one, for tasks of any runtime.
    ///
    /// Cancel safe: a future that is dropped has taken nothing. Reading from the disk happens on the
    /// polling thread.
    ///
    /// # Errors
    ///
    /// * As [`poll`](Self::poll).
    pub async fn recv(&mut self) -> Result<OwnedMessage> {
        poll_fn(|context| {
            loop {
                match self.next_buffered() {
                    Ok(Some(message)) => return Poll::Ready(Ok(message)),
                    Err(error) => return Poll::Ready(Err(error)),
                    Ok(None) => {}
                }
                self.bell.reset();
                if !self.bell.wake_task(context.waker()) {
                    continue;
                }
                self.arm();
                if !self.has_news() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Goes on at another offset of a partition with the next poll. Whether it is in range shows then.
    ///
    /// # Errors
    ///
    /// * [`Error::NotAssigned`]; [`Error::InvalidArgument`] if the offset is negative.
    pub fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Result<()> {
        self.seek_to(partition, Start::Offset(offset))
    }

    /// Goes on elsewhere in a partition with the next poll.
    ///
    /// # Errors
    ///
    /// * As [`seek`](Self::seek); [`Error::Corrupt`] if damage hides a timestamp.
    pub fn seek_to(&mut self, partition: &TopicPartition, start: Start) -> Result<()> {
        let index = self.index_of(partition)?;
        self.assigned[index].open.refresh()?;
        let position = self.start_position(&self.assigned[index].open, start)?;
        self.buffer.retain(|message| message.topic_partition() != partition);
        self.assigned[index].cursor = Cursor::at(position);
        Ok(())
    }

    /// Gives the offset of the next record to be handed out of a partition.
    ///
    /// # Errors
    ///
    /// * [`Error::NotAssigned`].
    pub fn position(&self, partition: &TopicPartition) -> Result<i64> {
        let index = self.index_of(partition)?;
        let buffered = self.buffer.iter().find(|m| m.topic_partition() == partition);
        Ok(buffered.map_or(self.assigned[index].cursor.position, OwnedMessage::offset))
    }

    /// Gives the number of offsets between the position and the end that this consumer can see.
    ///
    /// # Errors
    ///
    /// * [`Error::NotAssigned`].
    pub fn lag(&self, partition: &TopicPartition) -> Result<i64> {
        let assigned = &self.assigned[self.index_of(partition)?];
        Ok((self.bound(&assigned.open) - self.position(partition)?).max(0))
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
            if self.assigned[index].is_paused {
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
        let assigned = &mut self.assigned[index];
        assigned.open.refresh()?;
        if assigned.open.is_deleted() {
            let name = assigned.source.topic().name().to_owned();
            return Err(Error::TopicDeleted { name });
        }
        if self.settings.isolation == Isolation::Durable && assigned.open.is_followed() {
            self.topics.refresh_durable_ends()?;
        }
        loop {
            let bound = self.settings.isolation.bound(&assigned.open);
            match assigned.open.read(&mut assigned.cursor, limits, bound, self.settings.checks)? {
                ReadOutcome::Records(fetched) => {
                    return Ok(Some(Part { source: assigned.source.clone(), fetched }));
                }
                ReadOutcome::AtEnd => return Ok(None),
                ReadOutcome::OutOfRange { start, end } => {
                    let offset = assigned.cursor.position;
                    let position = match self.settings.reset {
                        OffsetReset::Earliest => start,
                        OffsetReset::Latest => end,
                        OffsetReset::ByDuration(age) => {
                            let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
                            let since_ms = self.topics.clock().now_ms().saturating_sub(age_ms);
                            assigned.open.offset_for_time(since_ms)?.map_or(end, |(o, _)| o)
                        }
                        OffsetReset::Error => {
                            return Err(Error::OffsetOutOfRange {
                                topic: assigned.source.topic().name().to_owned(),
                                partition: assigned.source.partition(),
                                offset,
                                start,
                                end,
                            });
                        }
                    };
                    assigned.cursor = Cursor::at(position);
                }
            }
        }
    }

    fn next_buffered(&mut self) -> Result<Option<OwnedMessage>> {
        self.refuse_if_woken()?;
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

    /// Waits for the bell: looks again for a moment if records have just come, then sleeps.
    fn wait(&mut self, deadline: Option<Instant>) {
        if std::mem::take(&mut self.has_just_read) {
            let mut spin = std::mem::take(&mut self.spin);
            let has_news = spin.until(|| self.has_news());
            self.spin = spin;
            if has_news {
                return;
            }
        }
        self.bell.reset();
        self.arm();
        if !self.has_news() {
            self.bell.wait_until(deadline);
        }
    }

    fn arm(&self) {
        let unpaused = || self.assigned.iter().filter(|assigned| !assigned.is_paused);
        for assigned in unpaused() {
            assigned.open.doorbells().arm();
        }
        watermarks::armed();
        // Where another process appends, it does so to all partitions of the store.
        if self.assigned.first().is_some_and(|assigned| assigned.open.is_followed()) {
            for assigned in unpaused() {
                assigned.open.watch();
            }
        }
    }

    /// Tells whether a read would bring something, or an error.
    fn has_news(&self) -> bool {
        // SeqCst: pairs with `Wakeup::wake`.
        self.wakeup.load(Ordering::SeqCst)
            || self.topics.refuse_if_closed().is_err()
            || self.assigned.iter().filter(|a| !a.is_paused).any(|assigned| {
                assigned.cursor.position < self.bound(&assigned.open) || assigned.open.is_deleted()
            })
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

    fn start_position(&self, open: &Partition, start: Start) -> Result<i64> {
        let log_start = open.watermarks().log_start();
        let end = self.bound(open).max(log_start);
        Ok(match start {
            Start::Earliest => log_start,
            Start::Latest => end,
            Start::Offset(offset) if offset < 0 => {
                let reason = "it is negative";
                return Err(Error::InvalidArgument { argument: "offset", reason });
            }
            Start::Offset(offset) => offset,
            Start::Timestamp(timestamp_ms) => {
                open.offset_for_time(timestamp_ms)?.map_or(end, |(offset, _)| offset)
            }
            Start::Last(count) => {
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                end.saturating_sub(count).max(log_start)
            }
        })
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
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

impl<'c> IntoIterator for &'c mut Consumer {
    type Item = Result<OwnedMessage>;
    type IntoIter = ConsumerIter<'c>;

    fn into_iter(self) -> ConsumerIter<'c> {
        ConsumerIter { consumer: self }
    }
}

/// Iterates over records as they come, waiting for more.
///
/// Ends when nothing came for [`iterator_timeout`](crate::ConsumerBuilder::iterator_timeout); by default it does
/// not end. Errors are items, and iterating may go on after them.
#[derive(Debug)]
pub struct ConsumerIter<'c> {
    consumer: &'c mut Consumer,
}

impl Iterator for ConsumerIter<'_> {
    type Item = Result<OwnedMessage>;

    fn next(&mut self) -> Option<Result<OwnedMessage>> {
        let timeout = self.consumer.settings.iterator_timeout;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            match self.consumer.next_buffered() {
                Ok(Some(message)) => return Some(Ok(message)),
                Err(error) => return Some(Err(error)),
                Ok(None) => {}
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return None;
            }
            self.consumer.wait(deadline);
        }
    }
}
