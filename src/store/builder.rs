//! How a data directory is opened.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::cleaner::CleanerConfig;
use crate::clock::Clock;
use crate::config::Durability;
use crate::partition::budget::Limit;
use crate::retention_config::BudgetPolicy;
use crate::storage::disk::Disk;
use crate::topics::cleaning_limits::CleaningLimits;

/// Sets up a [`Store`](crate::Store).
///
/// ```
/// use std::time::Duration;
/// use ottla::{Durability, Store};
///
/// # let directory = tempfile::tempdir().map_err(|_| ottla::Error::Closed)?;
/// let store = Store::builder(directory.path().join("data"))
///     .durability(Durability::Every(Duration::from_millis(100)))
///     .open()?;
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct StoreBuilder {
    pub(super) root: PathBuf,
    pub(super) is_temporary: bool,
    pub(super) create: bool,
    pub(super) durability: Durability,
    pub(super) checkpoint_interval: Duration,
    pub(super) retention_interval: Duration,
    pub(super) limit: Option<Limit>,
    /// A synced record that nobody waits for is on stable storage about so much later.
    pub(super) unwaited_within: Duration,
    pub(super) unsynced_bytes_max: Option<u64>,
    pub(super) cleaner: CleanerConfig,
    pub(super) cleaning: CleaningLimits,
    pub(super) disk: Disk,
    pub(super) clock: Clock,
    #[cfg(test)]
    pub(super) live_tails_max: Option<usize>,
    #[cfg(test)]
    pub(super) is_left_alone: bool,
}

impl StoreBuilder {
    pub(super) fn new(root: &Path) -> StoreBuilder {
        StoreBuilder {
            root: root.to_path_buf(),
            is_temporary: false,
            create: true,
            durability: Durability::Synced,
            checkpoint_interval: CHECKPOINT_INTERVAL,
            retention_interval: RETENTION_INTERVAL,
            limit: None,
            unwaited_within: UNWAITED_WITHIN,
            unsynced_bytes_max: None,
            cleaner: CleanerConfig::default(),
            cleaning: CleaningLimits::default(),
            disk: Disk::default(),
            clock: Clock::system(),
            #[cfg(test)]
            live_tails_max: None,
            #[cfg(test)]
            is_left_alone: false,
        }
    }

    /// Sets when deliveries complete, for producers that do not say otherwise; default
    /// [`Durability::Synced`].
    pub fn durability(mut self, durability: Durability) -> StoreBuilder {
        self.durability = durability;
        self
    }

    /// Sets whether the directory may be created; default true. The directory above it must exist in any
    /// case or be creatable.
    pub fn create(mut self, create: bool) -> StoreBuilder {
        self.create = create;
        self
    }

    /// Sets how long an append may stay unsynchronised, and how often recovery points are put on record;
    /// default one second. It bounds what a power cut can take from a
    /// [`Durability::Buffered`] producer, and what recovery has to scan, as long as the disk keeps up: see
    /// [`unsynced_bytes_max`](Self::unsynced_bytes_max).
    pub fn checkpoint_interval(mut self, interval: Duration) -> StoreBuilder {
        self.checkpoint_interval = interval;
        self
    }

    /// Sets how many bytes of one partition may wait in full segments for a disk that is slower than its producers;
    /// default 4 GiB. It bounds, together with `segment.bytes`, what a power cut can take from a producer that waits
    /// for no sync, and what has to be scanned after a killed process.
    ///
    /// Full segments are synchronised in the background, at once and one after the other. An append that fills a segment
    /// while more than this is waiting blocks until enough of it is on stable storage: from then on producers go at
    /// the disk's pace. With 0 no more than one full segment ever waits. Kafka hands full segments to a background
    /// task as well and sets no bound; how far it may be ahead of the disk is up to the operating system.
    pub fn unsynced_bytes_max(mut self, bytes: u64) -> StoreBuilder {
        self.unsynced_bytes_max = Some(bytes);
        self
    }

    /// Sets whether topics with `cleanup.policy=compact` are compacted in the background (Kafka's
    /// `log.cleaner.enable`); default true. [`Topic::compact`](crate::Topic::compact) works in any case.
    pub fn cleaner_enable(mut self, is_enabled: bool) -> StoreBuilder {
        self.cleaner.is_enabled = is_enabled;
        self
    }

    /// Sets how often at most the background looks for something to compact while there is nothing (Kafka's
    /// `log.cleaner.backoff.ms`); default 15 seconds. It looks only when a segment of a compacted topic was closed
    /// since, or time has made something due: an idle store sleeps.
    pub fn cleaner_backoff(mut self, backoff: Duration) -> StoreBuilder {
        self.cleaner.backoff = backoff;
        self
    }

    /// Sets how many bytes a second compaction reads and writes at most, all topics together, in the background or
    /// when asked for (Kafka's `log.cleaner.io.max.bytes.per.second`); default no limit.
    pub fn cleaner_io_max_bytes_per_second(mut self, bytes: u64) -> StoreBuilder {
        self.cleaning.bytes_per_second = Some(bytes);
        self
    }

    /// Sets the memory, in bytes, for the keys of the records that a compaction meets for the first time, 16 bytes for
    /// each key however long it is (Kafka's `log.cleaner.dedupe.buffer.size`); default 128 MiB, of which no more is
    /// taken than there are keys. If it does not suffice, compaction goes over the log several times.
    pub fn cleaner_dedupe_buffer_size(mut self, bytes: usize) -> StoreBuilder {
        self.cleaning.key_map_bytes_max = bytes;
        self
    }

    /// Sets how often all partitions are looked at for what retention lets go (`log.retention.check.interval.ms`), and
    /// for segments older than `segment.ms` that nothing was appended to since the store was opened;
    /// default five minutes, the first time after thirty seconds at the latest. A partition that has filled a segment
    /// is looked at at once, for `retention.bytes`. At least a millisecond.
    pub fn retention_check_interval(mut self, interval: Duration) -> StoreBuilder {
        self.retention_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Bounds the bytes that all logs of the store take on the disk together, and says what happens to an append that
    /// would exceed them; by default they are not bounded. There is nothing like it in Kafka.
    ///
    /// Counted are the batches of all partitions, and the space set aside ahead of those that are appended to; files of
    /// deleted segments that are kept for `file.delete.delay.ms` count, too, and go first when there is no room; indexes
    /// come on top, some 0.3 percent, and what readers hold of segments that were let go
    /// ([`PartitionDescription::held_len`](crate::PartitionDescription::held_len)). Internal topics are neither counted
    /// nor refused. A store that has more when it is opened is brought below the bound by the first appends, or refuses
    /// them.
    pub fn bytes_max(mut self, bytes: u64, policy: BudgetPolicy) -> StoreBuilder {
        self.limit = Some(Limit { bytes_max: bytes, policy });
        self
    }

    /// Sets the permissions of files that are made, as for `chmod`; by default `0o600`: nobody but the owner reads what is
    /// stored. The owner may always read and write, nobody executes; directories may be entered by whoever may read
    /// files (`0o700`, or for example `0o750` with `0o640`). The process's `umask` takes away from that, as always. Files
    /// that are there keep theirs.
    ///
    /// ```
    /// use std::os::unix::fs::PermissionsExt;
    ///
    /// # fn io<T>(r: std::io::Result<T>) -> ottla::Result<T> { r.map_err(|_| ottla::Error::Closed) }
    /// # let directory = io(tempfile::tempdir())?;
    /// # let path = directory.path().join("data");
    /// let store = ottla::Store::builder(&path).file_mode(0o640).open()?;
    /// assert_eq!(io(std::fs::metadata(&path))?.permissions().mode() & 0o707, 0o700);
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn file_mode(mut self, mode: u32) -> StoreBuilder {
        self.disk = self.disk.with_file_mode(mode);
        self
    }

    #[cfg(test)]
    pub(crate) fn disk(mut self, disk: Disk) -> StoreBuilder {
        self.disk = disk;
        // A disk with a script counts effects: nothing may happen by the clock.
        self.unwaited_within = Duration::from_secs(3600);
        self
    }

    /// Sets how many tails are open before one is parked.
    #[cfg(test)]
    pub(crate) fn live_tails_max(mut self, count_max: usize) -> StoreBuilder {
        self.live_tails_max = Some(count_max);
        self
    }

    /// Has nothing done in the background: no thread is started.
    #[cfg(test)]
    pub(crate) fn left_alone(mut self) -> StoreBuilder {
        self.is_left_alone = true;
        self
    }

    #[cfg(test)]
    pub(crate) fn clock(mut self, clock: Clock) -> StoreBuilder {
        self.clock = clock;
        self
    }
}

pub(super) const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
pub(super) const UNWAITED_WITHIN: Duration = Duration::from_millis(10);
/// Less is not worth a segment.
pub(super) const BYTES_MAX_MIN: u64 = 64 << 10;
/// Kafka's default.
pub(super) const RETENTION_INTERVAL: Duration = Duration::from_secs(300);
