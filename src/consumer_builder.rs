//! Setting up a consumer: limits, isolation, what to do out of range, and at last the partitions.

use std::sync::Arc;
use std::time::Duration;

use crate::assignment::Assignment;
use crate::assignment::Isolation;
use crate::assignment::OffsetReset;
use crate::assignment::Start;
use crate::config::ConfigEntry;
use crate::consumer::Consumer;
use crate::consumer::Listeners;
use crate::consumer::Rebalance;
use crate::consumer::Settings;
use crate::consumer::membership::GroupSettings;
use crate::consumer_config::AutoOffsetReset;
use crate::consumer_config::ConsumerConfig;
use crate::consumer_config::ConsumerSetting;
use crate::coordinator::Coordinator;
use crate::coordinator::assignor::Assignor;
use crate::coordinator::subscription::Subscription;
use crate::error::Error;
use crate::error::Result;
use crate::storage::verified::Checks;
use crate::topic::KeepOpen;
use crate::topic::TopicPartition;

/// Sets up a [`Consumer`].
///
/// ```
/// use ottla::{OffsetReset, Start, Store, TopicConfig};
///
/// let store = Store::temporary()?;
/// let orders = store.create_topic("orders", TopicConfig::new())?;
/// let consumer = store
///     .consumer()
///     .start(Start::Latest)
///     .max_poll_records(100)
///     .reset(OffsetReset::Latest)
///     .assign(orders.partitions())?;
/// assert_eq!(consumer.position(&orders.partition(0)?)?, 0);
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct ConsumerBuilder {
    coordinator: Arc<Coordinator>,
    keep_open: KeepOpen,
    settings: Settings,
    group: Option<Arc<str>>,
    group_settings: GroupSettings,
    listeners: Listeners,
    config: ConsumerConfig,
    /// As Kafka's properties have it: an interval counts only where it commits by itself.
    commit_interval: Duration,
}

impl ConsumerBuilder {
    pub(crate) fn new(coordinator: Arc<Coordinator>, keep_open: KeepOpen) -> ConsumerBuilder {
        let settings = Settings {
            start: Start::Earliest,
            reset: OffsetReset::Earliest,
            isolation: Isolation::ReadUncommitted,
            records_max: 500,
            bytes_max: 50 << 20,
            partition_bytes_max: 1 << 20,
            unpacked_bytes_max: None,
            checks: Checks::All,
            spin: Duration::from_micros(20),
            iterator_timeout: None,
        };
        ConsumerBuilder {
            coordinator,
            keep_open,
            settings,
            group: None,
            group_settings: GroupSettings::default(),
            listeners: Listeners::default(),
            config: ConsumerConfig::default(),
            commit_interval: Duration::from_secs(5),
        }
    }

    /// Sets where to begin in partitions that are assigned without a start of their own.
    pub fn start(mut self, start: Start) -> ConsumerBuilder {
        self.settings.start = start;
        self
    }

    /// Sets what to do when a position is out of range.
    pub fn reset(mut self, reset: OffsetReset) -> ConsumerBuilder {
        self.settings.reset = reset;
        self
    }

    /// Sets which records are seen.
    pub fn isolation(mut self, isolation: Isolation) -> ConsumerBuilder {
        self.settings.isolation = isolation;
        self
    }

    /// Sets how many records one poll returns at most; default 500, at least 1.
    pub fn max_poll_records(mut self, records: usize) -> ConsumerBuilder {
        self.settings.records_max = records.max(1);
        self
    }

    /// Sets how many bytes one poll returns at most; default 50 MiB. One batch always comes whole.
    pub fn fetch_max_bytes(mut self, bytes: usize) -> ConsumerBuilder {
        self.settings.bytes_max = bytes;
        self
    }

    /// Sets how many bytes of one partition one poll returns at most; default 1 MiB. One batch always
    /// comes whole.
    pub fn max_partition_fetch_bytes(mut self, bytes: usize) -> ConsumerBuilder {
        self.settings.partition_bytes_max = bytes;
        self
    }

    /// Sets how many bytes may come out of one compressed batch; default 128 MiB, or eight times the batch's size if
    /// that is more. A batch of which more comes out is [`Error::Corrupt`], with the offset behind it to go on from, and
    /// no more memory than this was taken for it.
    pub fn unpacked_batch_bytes_max(mut self, bytes: usize) -> ConsumerBuilder {
        self.settings.unpacked_bytes_max = Some(bytes);
        self
    }

    /// Sets whether the checksum of a batch is summed before its records are returned; default true. Kafka's
    /// `check.crcs`.
    ///
    /// A batch is summed once for each time its segment is opened, and not at all if this store has appended
    /// it to the segment that is still being appended to; `false` leaves that out as well. What keeps the
    /// reader safe is checked in either case: lengths, counts and offsets of the records. So a flipped bit in
    /// a key or a value goes unnoticed, one in a batch's structure is still [`Error::Corrupt`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let store = ottla::Store::temporary()?;
    /// # let topic = store.create_topic("t", ottla::TopicConfig::new())?;
    /// # store.producer().send(&topic, "v")?.wait()?;
    /// let mut consumer = store.consumer().check_crcs(false).assign(topic.partitions())?;
    /// assert_eq!(consumer.poll(Duration::from_secs(1))?.count(), 1);
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn check_crcs(mut self, check: bool) -> ConsumerBuilder {
        self.settings.checks = if check { Checks::All } else { Checks::Structure };
        self
    }

    /// Sets how long a poll that follows one with records looks again before it sleeps; default 20 µs, 0
    /// sleeps at once.
    ///
    /// Waking a sleeping thread costs the producer some microseconds, and the consumer more. A consumer whose
    /// records come further apart than this gives up looking again, but for one poll in 64.
    pub fn spin(mut self, spin: Duration) -> ConsumerBuilder {
        self.settings.spin = spin;
        self
    }

    /// Ends a `for` loop over the consumer once nothing came for so long; default never.
    pub fn iterator_timeout(mut self, timeout: Duration) -> ConsumerBuilder {
        self.settings.iterator_timeout = Some(timeout);
        self
    }

    /// Sets a property by Kafka's name and in Kafka's spelling. Which of them do something,
    /// [`configs`](Self::configs) tells. Properties that begin with `ssl.` or `sasl.` are accepted and forgotten.
    ///
    /// `auto.offset.reset` says both where to [begin](Self::start) and what to do [out of range](Self::reset). Of
    /// several assignors the first counts.
    ///
    /// # Errors
    ///
    /// * [`Error::UnknownConfig`] if Kafka has no consumer property of this name.
    /// * [`Error::InvalidConfig`] if the value is outside the property's range.
    ///
    /// ```
    /// # let store = ottla::Store::temporary()?;
    /// # let topic = store.create_topic("t", ottla::TopicConfig::new())?;
    /// let builder = store.consumer().set("group.id", "g")?.set("auto.offset.reset", "latest")?;
    /// assert!(store.consumer().set("auto.offset.reset", "newest").is_err());
    /// let consumer = builder.assign(topic.partitions())?;
    /// assert_eq!(consumer.group_id(), Some("g"));
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn set(mut self, key: &str, value: &str) -> Result<ConsumerBuilder> {
        match self.config.set(key, value)? {
            ConsumerSetting::Nothing => {}
            ConsumerSetting::GroupId(id) => self = self.group(&id),
            ConsumerSetting::InstanceId(id) => self = self.instance_id(&id),
            ConsumerSetting::ClientId(id) => self = self.client_id(&id),
            ConsumerSetting::Assignors(names) => {
                let first = names.first().map_or(Ok(Assignor::default()), |name| name.parse())?;
                self = self.assignor(first);
            }
            ConsumerSetting::AutoCommit(false) => self.group_settings.auto_commit = None,
            ConsumerSetting::AutoCommit(true) => {
                self.group_settings.auto_commit = Some(self.commit_interval);
            }
            ConsumerSetting::AutoCommitInterval(interval) => {
                self.commit_interval = interval;
                if let Some(every) = &mut self.group_settings.auto_commit {
                    *every = interval;
                }
            }
            ConsumerSetting::AutoOffsetReset(reset) => {
                let (start, reset) = match reset {
                    AutoOffsetReset::Earliest => (Start::Earliest, OffsetReset::Earliest),
                    AutoOffsetReset::Latest => (Start::Latest, OffsetReset::Latest),
                    AutoOffsetReset::None => (Start::Committed, OffsetReset::Error),
                    AutoOffsetReset::ByDuration(age) => {
                        (Start::ByDuration(age), OffsetReset::ByDuration(age))
                    }
                };
                self = self.start(start).reset(reset);
            }
            ConsumerSetting::MaxPollRecords(count) => self = self.max_poll_records(count),
            ConsumerSetting::MaxPollInterval(interval) => self = self.max_poll_interval(interval),
            ConsumerSetting::FetchMaxBytes(bytes) => self = self.fetch_max_bytes(bytes),
            ConsumerSetting::MaxPartitionFetchBytes(bytes) => {
                self = self.max_partition_fetch_bytes(bytes);
            }
            ConsumerSetting::CheckCrcs(check) => self = self.check_crcs(check),
        }
        Ok(self)
    }

    /// Lists Kafka's consumer properties in the order of their names: values as [`set`](Self::set) or by default, and
    /// whether they do something here.
    ///
    /// ```
    /// use ottla::ConfigEffect;
    ///
    /// let store = ottla::Store::temporary()?;
    /// let configs = store.consumer().set("session.timeout.ms", "100")?.configs();
    /// let effect_of = |name| configs.iter().find(|config| config.name == name).map(|c| c.effect);
    /// assert_eq!(effect_of("max.poll.records"), Some(ConfigEffect::InForce));
    /// assert_eq!(effect_of("session.timeout.ms"), Some(ConfigEffect::NoNetwork));
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn configs(&self) -> Vec<ConfigEntry> {
        self.config.entries()
    }

    /// Names the group that the consumer commits to (`group.id`). An [assigned](Self::assign) consumer then begins
    /// where the group stopped, and may commit as long as the group has no members.
    pub fn group(mut self, group: &str) -> ConsumerBuilder {
        self.group = Some(group.into());
        self
    }

    /// Makes the member a static one (`group.instance.id`, KIP-345): one that comes back under the same id, also after
    /// a restart, gets what it had. While it is away, others read it.
    pub fn instance_id(mut self, instance_id: &str) -> ConsumerBuilder {
        self.group_settings.instance_id = Some(instance_id.into());
        self
    }

    /// Sets a name that member ids begin with, for those who look at the group (`client.id`).
    pub fn client_id(mut self, client_id: &str) -> ConsumerBuilder {
        self.group_settings.client_id = client_id.into();
        self
    }

    /// Sets how the group shares out its partitions; default [`Assignor::Uniform`]. All members must say the same.
    pub fn assignor(mut self, assignor: Assignor) -> ConsumerBuilder {
        self.group_settings.assignor = assignor;
        self
    }

    /// Has the consumer commit by itself, so often at most, what the application has done with: records that it has
    /// dropped, every copy of them (`enable.auto.commit`, `auto.commit.interval.ms`; off unless set).
    ///
    /// It is done within a poll, before partitions are let go of, and on close. What an unwinding thread drops
    /// does not count as done with: from there on nothing of that partition is committed until it is sought, or
    /// given anew, which reads it again. Between the times, only what is durable is committed, so that no poll waits
    /// for a sync.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let store = ottla::Store::temporary()?;
    /// # let topic = store.create_topic("t", ottla::TopicConfig::new())?;
    /// # store.producer().send(&topic, "v")?.wait()?;
    /// let builder = store.consumer().auto_commit(Duration::from_secs(1));
    /// let mut consumer = builder.clone().subscribe("g", &topic)?;
    /// assert_eq!(consumer.poll(Duration::from_secs(1))?.count(), 1); // and dropped
    /// consumer.close()?;
    /// let mut consumer = builder.subscribe("g", &topic)?;
    /// assert_eq!(consumer.poll(Duration::ZERO)?.count(), 0);
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn auto_commit(mut self, interval: Duration) -> ConsumerBuilder {
        self.commit_interval = interval;
        self.group_settings.auto_commit = Some(interval);
        self
    }

    /// Sets whether what the application has done with is committed when the consumer ends in order; default false,
    /// true with [`auto_commit`](Self::auto_commit).
    pub fn commit_on_close(mut self, commit: bool) -> ConsumerBuilder {
        self.group_settings.commits_on_close = commit;
        self
    }

    /// Lets the group take a member's partitions away if another one waits for them and it has not polled for so
    /// long (`max.poll.interval.ms`); default never. Its next poll tells it what it lost and joins again, and what
    /// it commits before is refused.
    pub fn max_poll_interval(mut self, interval: Duration) -> ConsumerBuilder {
        self.group_settings.max_poll_interval = Some(interval);
        self
    }

    /// Sets what is called when partitions have come: after they were taken, before anything of them is read.
    ///
    /// It is called on the thread that polls, under no lock. An error of it is returned by that poll; the partitions
    /// have come all the same. The same is true of [`on_revoked`](Self::on_revoked) and [`on_lost`](Self::on_lost).
    pub fn on_assigned(
        mut self,
        listener: impl Fn(&mut Rebalance<'_>, &[TopicPartition]) -> Result<()> + Send + Sync + 'static,
    ) -> ConsumerBuilder {
        self.listeners.assigned = Some(Arc::new(listener));
        self
    }

    /// Sets what is called before partitions go, while they are still this member's: the place to commit what was
    /// done. Once it has returned they go, whether or not records of them are still held somewhere.
    pub fn on_revoked(
        mut self,
        listener: impl Fn(&mut Rebalance<'_>, &[TopicPartition]) -> Result<()> + Send + Sync + 'static,
    ) -> ConsumerBuilder {
        self.listeners.revoked = Some(Arc::new(listener));
        self
    }

    /// Sets what is called when partitions are gone without having been let go of: their topic was deleted, or the
    /// member was put out. Nothing can be committed any more. Without it, [`on_revoked`](Self::on_revoked) is called.
    pub fn on_lost(
        mut self,
        listener: impl Fn(&mut Rebalance<'_>, &[TopicPartition]) -> Result<()> + Send + Sync + 'static,
    ) -> ConsumerBuilder {
        self.listeners.lost = Some(Arc::new(listener));
        self
    }

    /// Makes a consumer of exactly these partitions.
    ///
    /// # Errors
    ///
    /// * [`Error::TopicDeleted`], [`Error::Unavailable`], [`Error::Closed`].
    /// * [`Error::InvalidArgument`] for a negative offset, or a partition given twice.
    /// * [`Error::NoOffset`] if it is to begin where its group stopped, and that is nowhere.
    /// * [`Error::InvalidGroup`], if a group was named.
    pub fn assign<A: Into<Assignment>>(
        self,
        partitions: impl IntoIterator<Item = A>,
    ) -> Result<Consumer> {
        let mut consumer = self.build()?;
        consumer.assign(partitions)?;
        Ok(consumer)
    }

    /// Makes a consumer that is a member of a group: the group's partitions are shared out among its members, and
    /// each is read by one of them at a time, from where the group stopped.
    ///
    /// Members may be on any threads. They hand over among themselves, within their polls: when a member comes or
    /// goes, topics are created or deleted, or partitions added, those partitions move that must, at once where
    /// nobody has records of them in hand, and nothing else moves. A member goes on until it is closed, dropped, or
    /// its thread panics.
    ///
    /// Where a group that has committed nothing begins is set by [`start`](Self::start), for the whole topic and
    /// durably, when this returns; partitions that are added later are read from their beginning.
    ///
    /// # Errors
    ///
    /// Nobody has joined in any of these cases.
    ///
    /// * [`Error::InvalidGroup`], [`Error::InconsistentAssignor`], [`Error::InstanceInUse`].
    /// * [`Error::InvalidArgument`] if nothing is subscribed to.
    /// * [`Error::NoOffset`] if it is to begin where the group stopped, and that is nowhere;
    ///   [`Error::OffsetOutOfRange`] if it is to begin at an offset out of range, and the reset policy says so.
    /// * [`Error::ReadOnly`], [`Error::Closed`]; whatever keeps the group's papers from being read or written.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ottla::{Record, Store, TopicConfig};
    ///
    /// let store = Store::temporary()?;
    /// let jobs = store.create_topic("jobs", TopicConfig::new().partitions(2))?;
    /// for n in 0..10 {
    ///     store.producer().send(&jobs, Record::new("job").key(&[n]))?;
    /// }
    /// let done: usize = std::thread::scope(|scope| {
    ///     let workers: Vec<_> = (0..2)
    ///         .map(|_| {
    ///             let mut worker = store.consumer().subscribe("workers", &jobs)?;
    ///             Ok(scope.spawn(move || -> ottla::Result<usize> {
    ///                 let mut done = 0;
    ///                 while let records = worker.poll(Duration::from_millis(50))? && !records.is_empty() {
    ///                     done += records.count();
    ///                     drop(records);
    ///                     worker.commit()?;
    ///                 }
    ///                 Ok(done)
    ///             }))
    ///         })
    ///         .collect::<ottla::Result<_>>()?;
    ///     workers.into_iter().map(|worker| worker.join().expect("it does not panic")).sum::<ottla::Result<usize>>()
    /// })?;
    /// assert_eq!(done, 10);
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn subscribe(self, group: &str, topics: impl Into<Subscription>) -> Result<Consumer> {
        let subscription = topics.into();
        if subscription.is_empty() {
            let reason = "nothing is subscribed to";
            return Err(Error::InvalidArgument { argument: "topics", reason });
        }
        let mut consumer = self.group(group).build()?;
        consumer.subscribe(subscription)?;
        Ok(consumer)
    }

    fn build(self) -> Result<Consumer> {
        let topics = Arc::clone(self.coordinator.topics());
        let group = self.group.map(|group| (self.coordinator, group, self.group_settings));
        Consumer::new(topics, self.keep_open, self.settings, group, self.listeners)
    }
}

impl std::fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsumerBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}
