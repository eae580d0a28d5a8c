//! A read-only look at what lies in a data directory: [`check`] it, or dump one file.
//!
//! Nothing here takes a lock or writes a byte, so all of it works while another process holds the directory
//! open, and on a directory that Kafka wrote. Memory is bounded by one batch, or one index.
//!
//! **Invariant (one cause, one problem).** What follows from damage that was reported already (an index
//! entry that points into it, a gap behind it) is not reported again.

use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::config::TimestampType;
use crate::error::Error;
use crate::error::Result;
use crate::format::decode::Batch;
use crate::format::decode::BatchFault;
use crate::format::decode::RawHeaders;
use crate::format::decode::RawRecords;
use crate::format::header;
use crate::format::header::BatchHeader;
use crate::name::TopicName;
use crate::record::Header;
use crate::storage::catalog;
use crate::storage::catalog::Catalog;
use crate::storage::catalog::TopicId;
use crate::storage::checkpoint;
use crate::storage::checkpoint::OffsetCheckpoint;
use crate::storage::disk::Access;
use crate::storage::disk::Disk;
use crate::storage::disk::DiskFile;
use crate::storage::disk::Entry;
use crate::storage::file_name;
use crate::storage::file_name::OffsetFile;
use crate::storage::file_name::RootDirectory;
use crate::storage::offset_index;
use crate::storage::scan::Continuity;
use crate::storage::scan::Depth;
use crate::storage::scan::Scan;
use crate::storage::scan::Scanned;
use crate::storage::time_index;

/// What [`check`] found.
///
/// ```
/// let store = ottla::Store::temporary()?;
/// let report = ottla::inspect::check(store.path())?;
/// assert!(report.is_good());
/// assert_eq!(report.counts.partitions, 0);
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// What is wrong, in the order it was met.
    pub problems: Vec<Problem>,
    /// What is worth knowing but as it should be: space that a writer reserved, an index that the next open
    /// rebuilds.
    pub notes: Vec<Problem>,
    /// How much was looked at.
    pub counts: CheckCounts,
}

/// One thing about one place of one file. Shows itself in one line: the path, the byte, what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The file or directory.
    pub path: PathBuf,
    /// The byte where it begins; `None` where it is about the file as a whole.
    pub position: Option<u64>,
    /// What it is.
    pub what: String,
}

/// How much a check has looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckCounts {
    /// Partition directories.
    pub partitions: u64,
    /// Segment files.
    pub segments: u64,
    /// Batches whose checksums hold.
    pub batches: u64,
    /// The records those batches say they have.
    pub records: u64,
    /// The bytes of those batches.
    pub bytes: u64,
}

/// How far a check has come.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress<'p> {
    /// The segment file being read.
    pub path: &'p Path,
    /// The bytes of segment files dealt with.
    pub bytes_done: u64,
    /// The bytes of all segment files, as far as they were there at the start.
    pub bytes_total: u64,
}

impl CheckReport {
    /// Tells whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        if let Some(position) = self.position {
            write!(f, "byte {position}: ")?;
        }
        f.write_str(&self.what)
    }
}

/// Checks everything in a data directory: every checksum of every batch, the order of offsets, indexes,
/// snapshots, checkpoints and the list of topics.
///
/// Opens nothing for writing and takes no lock; another process may be at work in the directory meanwhile.
/// A clean-shutdown marker makes this stricter: it says that Kafka may trust tails and indexes.
///
/// # Errors
///
/// * [`Error::NotADataDirectory`] if the path is something else.
/// * [`Error::Io`] if the directory cannot be listed. What goes wrong below it is a [`Problem`].
///
/// ```
/// use ottla::{Record, Store, TopicConfig, inspect};
///
/// let store = Store::temporary()?;
/// let topic = store.create_topic("orders", TopicConfig::new())?;
/// store.producer().send(&topic, Record::new("paid"))?.wait()?;
/// let report = inspect::check(store.path())?;
/// assert_eq!((report.problems.len(), report.counts.records), (0, 1));
/// # Ok::<(), ottla::Error>(())
/// ```
pub fn check(root: impl AsRef<Path>) -> Result<CheckReport> {
    check_with(root, |_| {})
}

/// As [`check`], telling how far it has come, every few megabytes.
///
/// # Errors
///
/// * As [`check`].
///
/// ```
/// # let store = ottla::Store::temporary()?;
/// # let topic = store.create_topic("orders", ottla::TopicConfig::new())?;
/// let mut seen = 0;
/// ottla::inspect::check_with(store.path(), |progress| seen = progress.bytes_done)?;
/// assert_eq!(seen, 0);
/// # Ok::<(), ottla::Error>(())
/// ```
pub fn check_with(
    root: impl AsRef<Path>,
    progress: impl FnMut(Progress<'_>),
) -> Result<CheckReport> {
    let root = root.as_ref();
    let disk = Disk::default();
    refuse_what_is_no_root(&disk, root)?;
    let mut check = Check {
        is_clean: disk.exists(&root.join(file_name::CLEAN_SHUTDOWN))?,
        disk,
        root,
        progress,
        report: CheckReport::default(),
        bytes_done: 0,
        bytes_total: 0,
    };
    check.run()?;
    Ok(check.report)
}

/// A kind of file that can be dumped, told by its name.
///
/// ```
/// use std::path::Path;
/// use ottla::inspect::FileKind;
///
/// let log = Path::new("orders-0/00000000000000000042.log");
/// assert_eq!(FileKind::of(log), Some(FileKind::Log));
/// assert_eq!(FileKind::of(Path::new("notes.log")), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// A segment: [`dump_log`].
    Log,
    /// Offsets and positions: [`dump_offset_index`].
    OffsetIndex,
    /// Timestamps and offsets: [`dump_time_index`].
    TimeIndex,
    /// Aborted transactions: [`dump_transaction_index`].
    TransactionIndex,
    /// The state of idempotent producers: [`dump_producer_snapshot`].
    ProducerSnapshot,
}

impl FileKind {
    /// Tells what the file at a path is, by its name alone.
    pub fn of(path: &Path) -> Option<FileKind> {
        let (kind, _) = OffsetFile::parse(path.file_name()?.to_str()?)?;
        Some(match kind {
            OffsetFile::Log => FileKind::Log,
            OffsetFile::OffsetIndex => FileKind::OffsetIndex,
            OffsetFile::TimeIndex => FileKind::TimeIndex,
            OffsetFile::TransactionIndex => FileKind::TransactionIndex,
            OffsetFile::ProducerSnapshot => FileKind::ProducerSnapshot,
        })
    }
}

/// A walk over the batches of one segment file, with memory for one batch at a time.
///
/// ```
/// use ottla::{Record, Store, TopicConfig, inspect};
/// use ottla::inspect::DumpedRecords;
///
/// let store = Store::temporary()?;
/// let topic = store.create_topic("t", TopicConfig::new())?;
/// store.producer().send(&topic, Record::new("value").key("key"))?.wait()?;
///
/// let path = store.path().join("t-0/00000000000000000000.log");
/// let mut dump = inspect::dump_log(&path)?;
/// let mut values = Vec::new();
/// while let Some(batch) = dump.next_batch()? {
///     if let DumpedRecords::Plain(records) = batch.records {
///         values.extend(records.filter_map(|record| record.value.map(<[u8]>::to_vec)));
///     }
/// }
/// assert_eq!(values, [b"value"]);
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Debug)]
pub struct LogDump {
    file: DiskFile,
    base_offset: i64,
    len: u64,
    position: u64,
    buffer: Vec<u8>,
    buffer_start: u64,
}

/// One batch of a [`LogDump`].
#[derive(Debug)]
#[non_exhaustive]
pub struct DumpedBatch<'d> {
    /// What its header says.
    pub header: DumpedHeader,
    /// What is in it.
    pub records: DumpedRecords<'d>,
}

/// The header of a batch, field by field under Kafka's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DumpedHeader {
    /// The byte of the file where the batch begins.
    pub position: u64,
    /// Its size in bytes, header included.
    pub len: u64,
    /// The offset of its first record, as it was appended.
    pub base_offset: i64,
    /// The offset of its last record, as it was appended.
    pub last_offset: i64,
    /// How many records are in it.
    pub record_count: i32,
    /// The sequence number of the first record; −1 if there is none.
    pub base_sequence: i32,
    /// The sequence number of the last record; −1 if there is none.
    pub last_sequence: i32,
    /// The idempotent producer; −1 if there is none.
    pub producer_id: i64,
    /// The producer's epoch; −1 if there is none.
    pub producer_epoch: i16,
    /// The epoch of the leader that appended the batch; −1 if there is none.
    pub leader_epoch: i32,
    /// It belongs to a transaction.
    pub is_transactional: bool,
    /// It holds no records for consumers, but a transaction's marker or the like.
    pub is_control: bool,
    /// From when on compaction may remove its tombstones, in milliseconds since 1970.
    pub delete_horizon_ms: Option<i64>,
    /// Who set the timestamps.
    pub timestamp_type: TimestampType,
    /// The greatest timestamp, in milliseconds since 1970; −1 if there is none.
    pub max_timestamp_ms: i64,
    /// The version of the format, 2.
    pub magic: i8,
    /// The codec's Kafka name, `none` if it is not compressed.
    pub compression: &'static str,
    /// The checksum that it carries.
    pub checksum: u32,
    /// The checksum that it carries is that of its bytes.
    pub is_valid: bool,
}

/// The records of a dumped batch, if they can be seen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DumpedRecords<'d> {
    /// They can; this iterates over them.
    Plain(DumpedRecordIter<'d>),
    /// They are compressed with this codec.
    Compressed(&'static str),
    /// They are damaged, in this way.
    Damaged(&'static str),
}

/// Iterates over the records of a [`DumpedBatch`].
#[derive(Clone, Debug)]
pub struct DumpedRecordIter<'d> {
    records: RawRecords<'d>,
    batch: BatchHeader,
}

/// One record of a [`DumpedBatch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DumpedRecord<'d> {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in milliseconds since 1970; −1 if it has none.
    pub timestamp_ms: i64,
    /// Its sequence number; −1 if it has none.
    pub sequence: i32,
    /// Its key; `None` if it is null.
    pub key: Option<&'d [u8]>,
    /// Its value; `None` if it is null.
    pub value: Option<&'d [u8]>,
    /// What it says, if it belongs to a control batch.
    pub control: Option<ControlRecord>,
    headers: RawHeaders<'d>,
}

/// What a record of a control batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlRecord {
    /// The producer's transaction was aborted.
    Abort {
        /// The epoch of the coordinator that decided it.
        coordinator_epoch: i32,
    },
    /// The producer's transaction was committed.
    Commit {
        /// The epoch of the coordinator that decided it.
        coordinator_epoch: i32,
    },
    /// Something else, by its number in Kafka's format.
    Other {
        /// The number; −1 if it cannot be read.
        kind: i16,
    },
}

/// An entry of an `.index` file: the last offset of the batch that starts at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OffsetIndexEntry {
    /// The last offset of the batch.
    pub offset: i64,
    /// The byte of the log where the batch begins.
    pub position: u32,
}

/// An entry of a `.timeindex` file: no batch up to the one that ends at the offset is later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimeIndexEntry {
    /// The greatest timestamp so far, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The last offset of the batch that has it.
    pub offset: i64,
}

/// An entry of a `.txnindex` file: a transaction that was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionIndexEntry {
    /// The version of the entry, 0.
    pub version: i16,
    /// Whose transaction it was.
    pub producer_id: i64,
    /// The first offset of the transaction.
    pub first_offset: i64,
    /// The offset of the marker that ended it.
    pub last_offset: i64,
    /// Below this offset every transaction was decided then.
    pub last_stable_offset: i64,
}

/// An entry of a `.snapshot` file: what is known of one idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerSnapshotEntry {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// The epoch of the coordinator that ended its last transaction; −1 if there was none.
    pub coordinator_epoch: i32,
    /// Where its open transaction begins, if it has one.
    pub current_transaction_first_offset: Option<i64>,
    /// When it was last heard of, in milliseconds since 1970.
    pub last_timestamp_ms: i64,
    /// Its last batch of data, if there was one.
    pub last_batch: Option<ProducerBatch>,
}

/// The last batch of an idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerBatch {
    /// The sequence number of its first record.
    pub first_sequence: i32,
    /// The sequence number of its last record.
    pub last_sequence: i32,
    /// The offset of its last record.
    pub last_offset: i64,
    /// How far the first record's offset lies below.
    pub offset_delta: i32,
}

/// Opens a segment file to walk over its batches.
///
/// # Errors
///
/// * [`Error::InvalidArgument`] if the name is not a segment's. [`Error::Io`].
pub fn dump_log(path: impl AsRef<Path>) -> Result<LogDump> {
    let path = path.as_ref();
    let base_offset = offset_in_name(path, OffsetFile::Log)?;
    let file = Disk::default().open(path, Access::Read)?;
    Ok(LogDump {
        len: file.len()?,
        file,
        base_offset,
        position: 0,
        buffer: Vec::new(),
        buffer_start: 0,
    })
}

/// Reads an `.index` file. The zeros with which Kafka pads the file of a live segment are left out.
///
/// # Errors
///
/// * [`Error::InvalidArgument`] if the name is not an offset index's. [`Error::Io`].
/// * [`Error::Corrupt`] if the file ends within an entry.
///
/// ```
/// # let store = ottla::Store::temporary()?;
/// # let topic = store.create_topic("t", ottla::TopicConfig::new())?;
/// # store.producer().send(&topic, "v")?.wait()?;
/// let index = store.path().join("t-0/00000000000000000000.index");
/// assert!(ottla::inspect::dump_offset_index(index)?.is_empty());
/// # Ok::<(), ottla::Error>(())
/// ```
pub fn dump_offset_index(path: impl AsRef<Path>) -> Result<Vec<OffsetIndexEntry>> {
    let path = path.as_ref();
    let base_offset = offset_in_name(path, OffsetFile::OffsetIndex)?;
    let bytes = read_entries(path, offset_index::ENTRY_LEN)?;
    let used = without_padding(&bytes, offset_index::ENTRY_LEN);
    let entries = used.chunks_exact(offset_index::ENTRY_LEN);
    Ok(entries.map(|entry| offset_entry(base_offset, entry)).collect())
}

/// Reads a `.timeindex` file. The zeros with which Kafka pads the file of a live segment are left out.
///
/// # Errors
///
/// * As [`dump_offset_index`].
pub fn dump_time_index(path: impl AsRef<Path>) -> Result<Vec<TimeIndexEntry>> {
    let path = path.as_ref();
    let base_offset = offset_in_name(path, OffsetFile::TimeIndex)?;
    let bytes = read_entries(path, time_index::ENTRY_LEN)?;
    let used = without_padding(&bytes, time_index::ENTRY_LEN);
    let entries = used.chunks_exact(time_index::ENTRY_LEN);
    Ok(entries.map(|entry| time_entry(base_offset, entry)).collect())
}

/// Reads a `.txnindex` file.
///
/// # Errors
///
/// * As [`dump_offset_index`].
pub fn dump_transaction_index(path: impl AsRef<Path>) -> Result<Vec<TransactionIndexEntry>> {
    let path = path.as_ref();
    offset_in_name(path, OffsetFile::TransactionIndex)?;
    let bytes = read_entries(path, TRANSACTION_ENTRY_LEN)?;
    let entries = bytes.chunks_exact(TRANSACTION_ENTRY_LEN);
    Ok(entries.map(transaction_entry).collect())
}

/// Reads a `.snapshot` file.
///
/// # Errors
///
/// * [`Error::InvalidArgument`] if the name is not a snapshot's. [`Error::Io`].
/// * [`Error::Corrupt`] if its version, checksum or length is wrong.
pub fn dump_producer_snapshot(path: impl AsRef<Path>) -> Result<Vec<ProducerSnapshotEntry>> {
    let path = path.as_ref();
    offset_in_name(path, OffsetFile::ProducerSnapshot)?;
    let bytes = Disk::default().read_small(path, FILE_LEN_MAX)?;
    let entries = snapshot_entries(&bytes)
        .map_err(|(position, reason)| corrupt(path, position as u64, reason))?;
    Ok(entries.chunks_exact(SNAPSHOT_ENTRY_LEN).map(snapshot_entry).collect())
}

impl LogDump {
    /// Gives the offset in the file's name.
    pub fn base_offset(&self) -> i64 {
        self.base_offset
    }

    /// Gives the byte where the next batch is expected.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Gives how many bytes lie behind the batches met so far. At the end that is space that a writer has
    /// reserved, all of it zeros.
    pub fn len_behind(&self) -> u64 {
        self.len.saturating_sub(self.position)
    }

    /// Gives the next batch, `None` at the end. A batch whose checksum is wrong is given all the same, as
    /// [`DumpedRecords::Damaged`].
    ///
    /// # Errors
    ///
    /// * [`Error::Corrupt`] if what lies there is no batch; the walk cannot go on. [`Error::Io`].
    pub fn next_batch(&mut self) -> Result<Option<DumpedBatch<'_>>> {
        let position = self.position;
        let available = self.len.saturating_sub(position);
        let front = self.fill(position, header::LEN)?.first_chunk();
        let checked = match front.map(BatchHeader::read) {
            Some(header) => header.check(available).map(|()| header).map_err(|fault| fault.text()),
            None => Err("the batch is cut off"),
        };
        let header = match checked {
            Ok(header) => header,
            // An end without reserved space has nothing but zeros behind it, too.
            Err(_) if self.is_zero_from(position)? => return Ok(None),
            Err(reason) => return Err(corrupt(self.file.path(), position, reason)),
        };
        self.position = position + header.len() as u64;
        let bytes = self.fill(position, header.len())?;
        let verified = Batch::verify(bytes);
        let is_valid = !matches!(verified, Err(BatchFault::Checksum | BatchFault::Header(_)));
        let records = match verified {
            Ok(batch) => {
                DumpedRecords::Plain(DumpedRecordIter { records: batch.records(), batch: header })
            }
            Err(BatchFault::Compressed(codec)) => DumpedRecords::Compressed(codec),
            Err(fault) => DumpedRecords::Damaged(fault.text()),
        };
        Ok(Some(DumpedBatch { header: dumped_header(&header, position, is_valid), records }))
    }

    fn is_zero_from(&mut self, mut position: u64) -> Result<bool> {
        while position < self.len {
            let bytes = self.fill(position, READ_AHEAD)?;
            if bytes.is_empty() {
                break;
            }
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            position += bytes.len() as u64;
        }
        Ok(true)
    }

    /// Gives up to `len` bytes from a position; fewer only at the end of the file.
    fn fill(&mut self, position: u64, len: usize) -> Result<&[u8]> {
        let left = usize::try_from(self.len.saturating_sub(position)).unwrap_or(usize::MAX);
        let len = len.min(left);
        let held = self.buffer_start..self.buffer_start + self.buffer.len() as u64;
        if position < held.start || position + len as u64 > held.end {
            self.buffer.resize(left.min(READ_AHEAD.max(len)), 0);
            let filled = self.file.read_up_to(&mut self.buffer, position)?;
            self.buffer.truncate(filled);
            self.buffer_start = position;
        }
        let start = (position - self.buffer_start) as usize;
        Ok(&self.buffer[start..(start + len).min(self.buffer.len())])
    }
}

impl<'d> Iterator for DumpedRecordIter<'d> {
    type Item = DumpedRecord<'d>;

    fn next(&mut self) -> Option<DumpedRecord<'d>> {
        let raw = self.records.next()?;
        let control =
            self.batch.attributes.is_control().then(|| control_record(raw.key, raw.value));
        Some(DumpedRecord {
            offset: raw.offset,
            timestamp_ms: raw.timestamp_ms,
            sequence: sequence_at(&self.batch, raw.offset - self.batch.base_offset),
            key: raw.key,
            value: raw.value,
            control,
            headers: raw.headers,
        })
    }
}

impl<'d> DumpedRecord<'d> {
    /// Iterates over the headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = Header<'d>> + use<'d> {
        self.headers.iter()
    }
}

/// A check under way.
struct Check<'c, P> {
    disk: Disk,
    root: &'c Path,
    /// The last writer said that tails and indexes can be trusted.
    is_clean: bool,
    progress: P,
    report: CheckReport,
    bytes_done: u64,
    bytes_total: u64,
}

/// The small files of the data root.
struct Surroundings {
    recovery_points: OffsetCheckpoint,
    log_starts: OffsetCheckpoint,
    high_watermarks: OffsetCheckpoint,
    cleaned: OffsetCheckpoint,
    /// `None` if the file is missing or damaged.
    catalog: Option<Catalog>,
}

/// One partition while its segments are walked.
struct Log {
    directory: PathBuf,
    gaps_below: i64,
    recovery_point: i64,
    /// The offset that the next batch should have.
    expected: i64,
    /// The last segment met could not be read to its end, so where it ends is not known.
    is_cut_short: bool,
    epochs: Vec<(i32, i64)>,
    latest_epoch: i32,
}

/// One segment's place among the others.
#[derive(Clone, Copy)]
struct Place {
    base_offset: i64,
    is_last: bool,
    /// Whoever opens the directory next believes the indexes.
    is_trusted: bool,
}

impl<P: FnMut(Progress<'_>)> Check<'_, P> {
    fn run(&mut self) -> Result<()> {
        let surroundings = self.surroundings()?;
        let mut partitions = Vec::new();
        for entry in self.disk.entries(self.root)? {
            if !entry.is_directory {
                continue;
            }
            match RootDirectory::parse(&entry.name) {
                RootDirectory::Partition(topic, number) => partitions.push((topic, number)),
                RootDirectory::Deleted => self.note(
                    self.root.join(&entry.name),
                    "is being deleted; the next open finishes it",
                ),
                RootDirectory::Foreign => {}
            }
        }
        partitions.sort();
        for (topic, number) in &partitions {
            let directory = self.directory_of(topic, *number);
            let Ok(entries) = self.disk.entries(&directory) else {
                continue;
            };
            for (_, base_offset) in segments_of(&entries) {
                // A file that went away meanwhile counts for nothing.
                let log = OffsetFile::Log.path(&directory, base_offset);
                self.bytes_total += self.disk.len(&log).unwrap_or(0);
            }
        }
        for (topic, number) in &partitions {
            self.partition(topic, *number, &surroundings);
        }
        self.missing_partitions(&partitions, &surroundings);
        Ok(())
    }

    fn surroundings(&mut self) -> Result<Surroundings> {
        let catalog_path = self.root.join(file_name::TOPICS);
        let catalog = match self.disk.exists(&catalog_path)? {
            true => Catalog::read(&self.disk, &catalog_path)
                .map_err(|error| self.problem_of(error))
                .ok(),
            false => None,
        };
        Ok(Surroundings {
            recovery_points: self.checkpoint(file_name::RECOVERY_POINTS),
            log_starts: self.checkpoint(file_name::LOG_STARTS),
            high_watermarks: self.checkpoint(file_name::HIGH_WATERMARKS),
            cleaned: self.checkpoint(file_name::CLEANED),
            catalog,
        })
    }

    fn checkpoint(&mut self, name: &str) -> OffsetCheckpoint {
        match OffsetCheckpoint::read(&self.disk, &self.root.join(name)) {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                self.problem_of(error);
                OffsetCheckpoint::default()
            }
        }
    }

    fn missing_partitions(&mut self, found: &[(TopicName, u32)], surroundings: &Surroundings) {
        let Some(catalog) = &surroundings.catalog else {
            return;
        };
        for (topic, entry) in &catalog.topics {
            if entry.is_deleting || entry.partition_count != entry.partition_count_target {
                let path = self.root.join(file_name::TOPICS);
                self.note(path, format!("`{topic}` is being changed"));
                continue;
            }
            for number in 0..entry.partition_count {
                if found.binary_search(&(topic.clone(), number)).is_err() {
                    let directory = self.directory_of(topic, number);
                    self.problem(directory, None, "the partition's directory is missing");
                }
            }
        }
    }

    fn partition(&mut self, topic: &TopicName, number: u32, surroundings: &Surroundings) {
        let directory = self.directory_of(topic, number);
        let entries = match self.disk.entries(&directory) {
            Ok(entries) => entries,
            // Deleted between the listing and now.
            Err(error) if error.is_not_found() => return,
            Err(error) => return self.problem_of(error),
        };
        self.report.counts.partitions += 1;
        let id = surroundings
            .catalog
            .as_ref()
            .and_then(|catalog| catalog.topics.get(topic))
            .map(|entry| entry.id);
        if surroundings.catalog.is_some() && id.is_none() {
            let path = directory.clone();
            self.note(path, "is not in the list of topics; the next open adopts it");
        }
        self.metadata(&directory, id);
        self.odd_files(&directory, &entries);

        let epochs_path = directory.join(file_name::LEADER_EPOCHS);
        let epochs = match checkpoint::read_epochs(&self.disk, &epochs_path) {
            Ok(epochs) => epochs,
            Err(error) => {
                self.problem_of(error);
                Vec::new()
            }
        };
        let segments = segments_of(&entries);
        let mut log = Log {
            gaps_below: surroundings.cleaned.of(topic, number).unwrap_or(0),
            recovery_point: surroundings.recovery_points.of(topic, number).unwrap_or(0),
            expected: segments.first().map_or(0, |(_, base_offset)| *base_offset),
            is_cut_short: false,
            epochs,
            latest_epoch: -1,
            directory,
        };
        let log_start = log.expected;
        for (index, (_, base_offset)) in segments.iter().enumerate() {
            let next = segments.get(index + 1).map(|(_, base_offset)| *base_offset);
            let place = Place {
                base_offset: *base_offset,
                is_last: next.is_none(),
                is_trusted: self.is_clean || next.is_some_and(|next| next <= log.recovery_point),
            };
            self.segment(&mut log, place);
        }
        if segments.is_empty() {
            let path = log.directory.clone();
            self.note(path, "has no segment yet");
        }
        self.offsets_on_record(topic, number, surroundings, &log, log_start);
    }

    /// Compares what the data root says about a partition with the partition.
    fn offsets_on_record(
        &mut self,
        topic: &TopicName,
        number: u32,
        surroundings: &Surroundings,
        log: &Log,
        log_start: i64,
    ) {
        let end = log.expected;
        let on_record = [
            (file_name::RECOVERY_POINTS, &surroundings.recovery_points),
            (file_name::LOG_STARTS, &surroundings.log_starts),
            (file_name::HIGH_WATERMARKS, &surroundings.high_watermarks),
        ];
        for (name, offsets) in on_record {
            let Some(offset) = offsets.of(topic, number) else {
                continue;
            };
            let path = self.root.join(name);
            if offset > end && !log.is_cut_short {
                self.problem(
                    path,
                    None,
                    format!("offset {offset} of {topic}-{number} lies behind the log's end, {end}"),
                );
            } else if name == file_name::LOG_STARTS && offset < log_start {
                self.problem(
                    path,
                    None,
                    format!(
                        "offset {offset} of {topic}-{number} lies below the first segment, {log_start}"
                    ),
                );
            }
        }
        let last_epoch = log.epochs.last().copied();
        if let Some((epoch, start)) =
            last_epoch.filter(|(_, start)| *start > end && !log.is_cut_short)
        {
            let path = log.directory.join(file_name::LEADER_EPOCHS);
            self.problem(
                path,
                None,
                format!("epoch {epoch} begins at offset {start}, behind the log's end, {end}"),
            );
        }
    }

    fn metadata(&mut self, directory: &Path, id: Option<TopicId>) {
        let path = directory.join(file_name::PARTITION_METADATA);
        match (catalog::read_partition_metadata(&self.disk, &path), id) {
            (Ok(Some(found)), Some(id)) if found != id => self.problem(
                path,
                None,
                format!("the topic's id is {found}, the list of topics says {id}"),
            ),
            (Ok(Some(_)), _) => {}
            (Ok(None), Some(_)) => self.problem(path, None, "the file is missing"),
            (Ok(None), None) => {
                self.note(path, "the file is missing; Kafka would put the partition aside");
            }
            (Err(error), _) => self.problem_of(error),
        }
    }

    /// Looks at the files that belong to no segment.
    fn odd_files(&mut self, directory: &Path, entries: &[Entry]) {
        let segments = segments_of(entries);
        let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        names.sort_unstable();
        for name in names {
            let path = directory.join(name);
            if name.starts_with(file_name::QUARANTINE_PREFIX) {
                self.note(path, "bytes that an earlier recovery cut off");
                continue;
            }
            let has_log = |offset: i64| segments.iter().any(|(_, base)| *base == offset);
            match OffsetFile::parse(name) {
                Some((OffsetFile::ProducerSnapshot, _)) => self.snapshot(path),
                Some((OffsetFile::Log, _)) | None => {}
                Some((_, offset)) if has_log(offset) => {}
                Some(_) => self.note(path, "belongs to no segment"),
            }
        }
    }

    fn snapshot(&mut self, path: PathBuf) {
        let bytes = match self.disk.read_small(&path, FILE_LEN_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return,
            Err(error) => return self.problem_of(error),
        };
        if let Err((position, reason)) = snapshot_entries(&bytes) {
            self.problem(path, Some(position as u64), reason);
        }
    }

    fn segment(&mut self, log: &mut Log, place: Place) {
        let path = OffsetFile::Log.path(&log.directory, place.base_offset);
        let begins_well = place.base_offset == log.expected
            || (place.base_offset > log.expected && place.base_offset <= log.gaps_below);
        if !begins_well && !log.is_cut_short {
            let expected = log.expected;
            self.problem(
                path.clone(),
                Some(0),
                format!("the segment should begin at offset {expected}"),
            );
        }
        log.expected = place.base_offset;
        log.is_cut_short = false;
        self.report.counts.segments += 1;
        let bytes = self.index_bytes(&path, OffsetFile::OffsetIndex, place);
        let mut offsets = OffsetWalk::new(bytes.as_deref(), place.base_offset);
        let bytes = self.index_bytes(&path, OffsetFile::TimeIndex, place);
        let mut times = TimeWalk::new(bytes.as_deref(), place.base_offset);

        let done_before = self.bytes_done;
        match self.disk.open(&path, Access::Read) {
            Ok(file) => {
                if let Err(error) = self.batches(&file, log, place, &mut offsets, &mut times) {
                    self.problem_of(error);
                    log.is_cut_short = true;
                }
                self.bytes_done = done_before + file.len().unwrap_or(0);
            }
            Err(error) => {
                self.problem_of(error);
                log.is_cut_short = true;
            }
        }
        if !log.is_cut_short {
            offsets.finish(log.expected);
            times.finish();
        }
        for (kind, findings) in [
            (OffsetFile::OffsetIndex, offsets.walk.findings),
            (OffsetFile::TimeIndex, times.walk.findings),
        ] {
            let index = kind.beside(&path);
            self.index_findings(&index, findings, place);
        }
        self.transaction_index(&OffsetFile::TransactionIndex.beside(&path), place);
        let (bytes_done, bytes_total) = (self.bytes_done, self.bytes_total);
        (self.progress)(Progress { path: &path, bytes_done, bytes_total });
    }

    /// Walks the batches of one segment; goes on behind damage where that is possible.
    fn batches(
        &mut self,
        file: &DiskFile,
        log: &mut Log,
        place: Place,
        offsets: &mut OffsetWalk,
        times: &mut TimeWalk,
    ) -> Result<()> {
        let continuity = Continuity { expected: log.expected, gaps_below: log.gaps_below };
        let mut scan = Scan::new(file, 0, continuity, Depth::Checksums)?;
        let mut tries = 0;
        let mut told = 0;
        loop {
            let expected = scan.expected();
            let (position, fault) = match scan.next()? {
                Scanned::Batch { position, header, bytes } => {
                    let structure = Batch::verify(bytes).err();
                    self.batch(file.path(), log, position, &header, structure);
                    offsets.note(position, header.last_offset());
                    times.note(header.last_offset(), header.max_timestamp_ms);
                    log.expected = header.last_offset() + 1;
                    tries = 0;
                    self.bytes_done += header.len() as u64;
                    if position >= told + PROGRESS_INTERVAL {
                        told = position;
                        let (bytes_done, bytes_total) = (self.bytes_done, self.bytes_total);
                        (self.progress)(Progress { path: file.path(), bytes_done, bytes_total });
                    }
                    continue;
                }
                Scanned::End { .. } => return Ok(()),
                Scanned::Fault { position, fault } => (position, fault),
            };
            let len_behind = scan.len() - position;
            if scan.is_zero_from(position)? {
                self.reserved(file.path(), place, position, len_behind);
                return Ok(());
            }
            if place.is_last && !self.is_clean && tries < TRIES {
                // A writer may be in the middle of this very batch.
                tries += 1;
                thread::sleep(TRY_INTERVAL);
                let continuity = Continuity { expected, gaps_below: log.gaps_below };
                scan = Scan::new(file, position, continuity, Depth::Checksums)?;
                continue;
            }
            let found = scan.resync(position, expected)?;
            let outlook = match found {
                Some((_, header)) => format!("readable again from offset {}", header.base_offset),
                None if place.is_last && !self.is_clean && expected >= log.recovery_point => {
                    "nothing whole behind it, as after a crash; the next open cuts it off".into()
                }
                None => format!("nothing whole in the {len_behind} bytes from here"),
            };
            self.problem(
                file.path().to_path_buf(),
                Some(position),
                format!("{}; offset {expected} expected; {outlook}", fault.text()),
            );
            let Some((position, header)) = found else {
                log.is_cut_short = true;
                return Ok(());
            };
            scan.resume_at(position, header.base_offset);
            log.expected = header.base_offset;
            offsets.skip_below(position);
            times.skip_below(header.base_offset);
        }
    }

    /// Notes a batch whose checksum holds.
    fn batch(
        &mut self,
        path: &Path,
        log: &mut Log,
        position: u64,
        header: &BatchHeader,
        structure: Option<BatchFault>,
    ) {
        let counts = &mut self.report.counts;
        counts.batches += 1;
        counts.records += u64::from(header.record_count.unsigned_abs());
        counts.bytes += header.len() as u64;
        match structure {
            None | Some(BatchFault::Compressed(_)) => {}
            Some(fault) => self.problem(path.to_path_buf(), Some(position), fault.text()),
        }
        let epoch = header.leader_epoch;
        if epoch < 0 {
            return;
        }
        let of_offset = log
            .epochs
            .partition_point(|(_, start)| *start <= header.base_offset)
            .checked_sub(1)
            .map(|index| log.epochs[index].0);
        if epoch < log.latest_epoch {
            let latest = log.latest_epoch;
            self.problem(
                path.to_path_buf(),
                Some(position),
                format!("leader epoch {epoch} follows {latest}"),
            );
        } else if of_offset.is_some_and(|of_offset| of_offset != epoch) {
            let of_offset = of_offset.unwrap_or(-1);
            self.problem(
                path.to_path_buf(),
                Some(position),
                format!("leader epoch {epoch}, but {of_offset} by {}", file_name::LEADER_EPOCHS),
            );
        }
        log.latest_epoch = log.latest_epoch.max(epoch);
    }

    /// Notes the zeros behind the last batch.
    fn reserved(&mut self, path: &Path, place: Place, position: u64, len: u64) {
        let path = path.to_path_buf();
        if self.is_clean {
            self.problem(
                path,
                Some(position),
                format!(
                    "{len} bytes of reserved space, although the directory is marked as closed cleanly"
                ),
            );
        } else if place.is_last {
            self.note_at(path, position, format!("{len} bytes of reserved space"));
        } else {
            self.note_at(
                path,
                position,
                format!("{len} bytes of reserved space that was not given back"),
            );
        }
    }

    fn index_bytes(&mut self, log: &Path, kind: OffsetFile, place: Place) -> Option<Vec<u8>> {
        let path = kind.beside(log);
        match self.disk.read_small(&path, FILE_LEN_MAX) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.is_not_found() => {
                // Kafka rebuilds a segment whose offset index is missing, but not its time index.
                if kind == OffsetFile::TimeIndex && place.is_trusted {
                    self.problem(path, None, "the file is missing");
                } else {
                    self.note(path, "the file is missing; it will be rebuilt");
                }
                None
            }
            Err(error) => {
                self.problem_of(error);
                None
            }
        }
    }

    fn index_findings(&mut self, path: &Path, findings: Vec<(u64, String)>, place: Place) {
        if place.is_trusted {
            for (position, what) in findings {
                self.problem(path.to_path_buf(), Some(position), what);
            }
        } else if let Some((position, what)) = findings.into_iter().next() {
            let what = format!("{what}; the index will be rebuilt");
            self.note_at(path.to_path_buf(), position, what);
        }
    }

    fn transaction_index(&mut self, path: &Path, place: Place) {
        let bytes = match self.disk.read_small(path, FILE_LEN_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return,
            Err(error) => return self.problem_of(error),
        };
        let mut findings = Vec::new();
        let mut last_offset = place.base_offset - 1;
        let entries = bytes.chunks_exact(TRANSACTION_ENTRY_LEN);
        let whole_len = bytes.len() - entries.remainder().len();
        for (index, entry) in entries.map(transaction_entry).enumerate() {
            let position = (index * TRANSACTION_ENTRY_LEN) as u64;
            if entry.version != 0 {
                findings.push((position, "an entry of an unknown version".to_owned()));
            } else if entry.last_offset <= last_offset || entry.first_offset > entry.last_offset {
                findings.push((position, "entries do not ascend".to_owned()));
            }
            last_offset = entry.last_offset;
        }
        if whole_len < bytes.len() {
            findings.push((whole_len as u64, "an entry is cut off".to_owned()));
        }
        self.index_findings(path, findings, place);
    }

    fn directory_of(&self, topic: &TopicName, number: u32) -> PathBuf {
        self.root.join(file_name::partition_directory(topic, number))
    }

    fn problem(&mut self, path: PathBuf, position: Option<u64>, what: impl Into<String>) {
        let what = what.into();
        self.report.problems.push(Problem { path, position, what });
    }

    /// Turns an error about a file into a problem.
    fn problem_of(&mut self, error: Error) {
        match error {
            Error::Corrupt { path, position, reason, .. } => {
                self.problem(path, Some(position), reason)
            }
            Error::Io { action, path, source } => {
                self.problem(path, None, format!("cannot {action} it: {source}"))
            }
            other => self.problem(self.root.to_path_buf(), None, other.to_string()),
        }
    }

    fn note(&mut self, path: PathBuf, what: impl Into<String>) {
        let what = what.into();
        self.report.notes.push(Problem { path, position: None, what });
    }

    fn note_at(&mut self, path: PathBuf, position: u64, what: String) {
        self.report.notes.push(Problem { path, position: Some(position), what });
    }
}

/// What the walks over the entries of both indexes have in common.
#[derive(Default)]
struct IndexWalk {
    findings: Vec<(u64, String)>,
    /// The index of the entry to be met next.
    next: usize,
}

impl IndexWalk {
    /// Gives the bytes of whole entries; notes what is cut off and what is padding.
    fn entries<'b>(
        &mut self,
        bytes: &'b [u8],
        entry_len: usize,
    ) -> std::slice::ChunksExact<'b, u8> {
        let whole = &bytes[..bytes.len() - bytes.len() % entry_len];
        if whole.len() < bytes.len() {
            let what = format!("the length is not a multiple of {entry_len}");
            self.findings.push((whole.len() as u64, what));
        }
        let used = without_padding(whole, entry_len);
        if used.len() < whole.len() {
            let what = format!("{} bytes of padding", whole.len() - used.len());
            self.findings.push((used.len() as u64, what));
        }
        used.chunks_exact(entry_len)
    }
}

/// Compares an offset index with the batches as they are met.
struct OffsetWalk {
    walk: IndexWalk,
    entries: Vec<OffsetIndexEntry>,
}

impl OffsetWalk {
    fn new(bytes: Option<&[u8]>, base_offset: i64) -> OffsetWalk {
        let mut walk = IndexWalk::default();
        let entries: Vec<_> = walk
            .entries(bytes.unwrap_or_default(), offset_index::ENTRY_LEN)
            .map(|entry| offset_entry(base_offset, entry))
            .collect();
        let ascends = |pair: &[OffsetIndexEntry]| {
            pair[0].offset < pair[1].offset && pair[0].position < pair[1].position
        };
        if let Some(index) = entries.windows(2).position(|pair| !ascends(pair)) {
            let position = ((index + 1) * offset_index::ENTRY_LEN) as u64;
            walk.findings.push((position, "entries do not ascend".into()));
            // What is compared below relies on the order.
            walk.next = entries.len();
        }
        OffsetWalk { walk, entries }
    }

    fn note(&mut self, position: u64, last_offset: i64) {
        while let Some(entry) = self.entries.get(self.walk.next).copied() {
            if u64::from(entry.position) > position {
                return;
            }
            if u64::from(entry.position) < position {
                self.find(format!("no batch starts at byte {}", entry.position));
            } else if entry.offset < last_offset {
                // Of an append of several batches Kafka indexes the first position and the last offset.
                self.find(format!(
                    "offset {} for the batch at byte {position}, which ends at {last_offset}",
                    entry.offset
                ));
            }
            self.walk.next += 1;
        }
    }

    fn skip_below(&mut self, position: u64) {
        while self
            .entries
            .get(self.walk.next)
            .is_some_and(|entry| u64::from(entry.position) < position)
        {
            self.walk.next += 1;
        }
    }

    fn finish(&mut self, end: i64) {
        if let Some(entry) = self.entries.get(self.walk.next).copied() {
            self.find(format!("byte {} lies behind the log's end", entry.position));
        } else if self
            .entries
            .last()
            .is_some_and(|entry| entry.offset >= end && self.walk.findings.is_empty())
        {
            self.walk.next = self.entries.len() - 1;
            self.find(format!("the offset lies behind the log's end, {end}"));
        }
    }

    fn find(&mut self, what: String) {
        let position = (self.walk.next * offset_index::ENTRY_LEN) as u64;
        self.walk.findings.push((position, what));
    }
}

/// Compares a time index with the batches as they are met.
struct TimeWalk {
    walk: IndexWalk,
    entries: Vec<TimeIndexEntry>,
    max_timestamp_ms: i64,
    /// Damage lies in the segment: whose timestamp is greatest cannot be told.
    is_incomplete: bool,
}

impl TimeWalk {
    fn new(bytes: Option<&[u8]>, base_offset: i64) -> TimeWalk {
        let mut walk = IndexWalk::default();
        let entries: Vec<_> = walk
            .entries(bytes.unwrap_or_default(), time_index::ENTRY_LEN)
            .map(|entry| time_entry(base_offset, entry))
            .collect();
        let ascends = |pair: &[TimeIndexEntry]| {
            pair[0].timestamp_ms < pair[1].timestamp_ms && pair[0].offset <= pair[1].offset
        };
        // That the file is missing is reported elsewhere.
        let mut is_incomplete = bytes.is_none();
        if let Some(index) = entries.windows(2).position(|pair| !ascends(pair)) {
            let position = ((index + 1) * time_index::ENTRY_LEN) as u64;
            walk.findings.push((position, "entries do not ascend".into()));
            walk.next = entries.len();
            is_incomplete = true;
        }
        TimeWalk { walk, entries, max_timestamp_ms: -1, is_incomplete }
    }

    fn note(&mut self, last_offset: i64, max_timestamp_ms: i64) {
        self.max_timestamp_ms = self.max_timestamp_ms.max(max_timestamp_ms);
        while let Some(entry) = self.entries.get(self.walk.next).copied() {
            if entry.offset > last_offset {
                return;
            }
            if entry.offset < last_offset {
                self.find(format!("no batch ends at offset {}", entry.offset));
            } else if self.max_timestamp_ms > entry.timestamp_ms {
                self.find(format!(
                    "timestamp {} for offset {}, but there is {} up to it",
                    entry.timestamp_ms, entry.offset, self.max_timestamp_ms
                ));
            }
            self.walk.next += 1;
        }
    }

    fn skip_below(&mut self, offset: i64) {
        self.is_incomplete = true;
        while self.entries.get(self.walk.next).is_some_and(|entry| entry.offset < offset) {
            self.walk.next += 1;
        }
    }

    fn finish(&mut self) {
        if let Some(entry) = self.entries.get(self.walk.next).copied() {
            self.find(format!("offset {} lies behind the log's end", entry.offset));
        } else if !self.is_incomplete {
            let indexed = self.entries.last().map_or(-1, |entry| entry.timestamp_ms);
            if indexed != self.max_timestamp_ms {
                let greatest = self.max_timestamp_ms;
                self.walk.next = self.entries.len().saturating_sub(1);
                self.find(format!("the last timestamp is not the greatest, {greatest}"));
            }
        }
    }

    fn find(&mut self, what: String) {
        let position = (self.walk.next * time_index::ENTRY_LEN) as u64;
        self.walk.findings.push((position, what));
    }
}

/// How often, and how far apart, a batch is looked at again that somebody may be writing.
const TRIES: u32 = 10;
const TRY_INTERVAL: Duration = Duration::from_millis(5);

const PROGRESS_INTERVAL: u64 = 4 << 20;
const READ_AHEAD: usize = 256 << 10;
/// More than any index or snapshot needs: positions in a segment are 32-bit.
const FILE_LEN_MAX: usize = 1 << 30;
const TRANSACTION_ENTRY_LEN: usize = 34;
const SNAPSHOT_ENTRY_LEN: usize = 46;
/// Version, checksum and count in front of a snapshot's entries.
const SNAPSHOT_FRONT_LEN: usize = 10;
/// What the checksum covers begins behind it.
const SNAPSHOT_CHECKED_FROM: usize = 6;

fn refuse_what_is_no_root(disk: &Disk, root: &Path) -> Result<()> {
    let refuse = |reason| Err(Error::NotADataDirectory { path: root.to_path_buf(), reason });
    if !root.exists() {
        return refuse("it does not exist");
    }
    if !root.is_dir() {
        return refuse("it is a file");
    }
    if !segments_of(&disk.entries(root)?).is_empty() {
        return refuse("it is a partition's directory; the data directory is the one above");
    }
    Ok(())
}

/// Gives the segments of a partition directory in the order of their offsets.
fn segments_of(entries: &[Entry]) -> Vec<(OffsetFile, i64)> {
    let mut segments: Vec<_> = entries
        .iter()
        .filter_map(|entry| OffsetFile::parse(&entry.name))
        .filter(|(kind, _)| *kind == OffsetFile::Log)
        .collect();
    segments.sort_unstable_by_key(|(_, base_offset)| *base_offset);
    segments
}

fn offset_in_name(path: &Path, kind: OffsetFile) -> Result<i64> {
    let name = path.file_name().and_then(|name| name.to_str());
    match name.and_then(OffsetFile::parse) {
        Some((found, offset)) if found == kind => Ok(offset),
        _ => Err(Error::InvalidArgument {
            argument: "path",
            reason: "the file's name is not twenty digits and the extension of its kind",
        }),
    }
}

fn corrupt(path: &Path, position: u64, reason: &'static str) -> Error {
    Error::Corrupt { path: path.to_path_buf(), position, reason, resume: None }
}

fn read_entries(path: &Path, entry_len: usize) -> Result<Vec<u8>> {
    let bytes = Disk::default().read_small(path, FILE_LEN_MAX)?;
    let rest = bytes.len() % entry_len;
    if rest > 0 {
        let position = bytes.len() - rest;
        return Err(corrupt(path, position as u64, "an entry is cut off"));
    }
    Ok(bytes)
}

/// Leaves out the zero entries at the end. A single one may be an entry: timestamp 0, first offset.
fn without_padding(bytes: &[u8], entry_len: usize) -> &[u8] {
    let used = bytes
        .chunks_exact(entry_len)
        .rposition(|entry| entry.iter().any(|byte| *byte != 0))
        .map_or(0, |last| (last + 1) * entry_len);
    if used == 0 && bytes.len() == entry_len {
        return bytes;
    }
    &bytes[..used]
}

fn offset_entry(base_offset: i64, entry: &[u8]) -> OffsetIndexEntry {
    OffsetIndexEntry {
        offset: base_offset.saturating_add(i64::from(i32::from_be_bytes(field(entry, 0)))),
        position: u32::from_be_bytes(field(entry, 4)),
    }
}

fn time_entry(base_offset: i64, entry: &[u8]) -> TimeIndexEntry {
    TimeIndexEntry {
        timestamp_ms: i64::from_be_bytes(field(entry, 0)),
        offset: base_offset.saturating_add(i64::from(i32::from_be_bytes(field(entry, 8)))),
    }
}

fn transaction_entry(entry: &[u8]) -> TransactionIndexEntry {
    TransactionIndexEntry {
        version: i16::from_be_bytes(field(entry, 0)),
        producer_id: i64::from_be_bytes(field(entry, 2)),
        first_offset: i64::from_be_bytes(field(entry, 10)),
        last_offset: i64::from_be_bytes(field(entry, 18)),
        last_stable_offset: i64::from_be_bytes(field(entry, 26)),
    }
}

/// Gives the bytes of a snapshot's entries, or says at which byte it is wrong.
fn snapshot_entries(bytes: &[u8]) -> Result<&[u8], (usize, &'static str)> {
    let Some((front, entries)) = bytes.split_at_checked(SNAPSHOT_FRONT_LEN) else {
        return Err((bytes.len(), "the snapshot is cut off"));
    };
    if i16::from_be_bytes(field(front, 0)) != 1 {
        return Err((0, "not a producer snapshot of version 1"));
    }
    let checksum = u32::from_be_bytes(field(front, 2));
    if crc32c::crc32c(&bytes[SNAPSHOT_CHECKED_FROM..]) != checksum {
        return Err((2, "checksum mismatch"));
    }
    let count = i32::from_be_bytes(field(front, SNAPSHOT_CHECKED_FROM));
    let len = usize::try_from(count).ok().and_then(|count| count.checked_mul(SNAPSHOT_ENTRY_LEN));
    if len != Some(entries.len()) {
        return Err((SNAPSHOT_CHECKED_FROM, "the number of entries is not the one stated"));
    }
    Ok(entries)
}

fn snapshot_entry(entry: &[u8]) -> ProducerSnapshotEntry {
    let last_sequence = i32::from_be_bytes(field(entry, 10));
    let last_offset = i64::from_be_bytes(field(entry, 14));
    let offset_delta = i32::from_be_bytes(field(entry, 22));
    let first_offset = i64::from_be_bytes(field(entry, 38));
    ProducerSnapshotEntry {
        producer_id: i64::from_be_bytes(field(entry, 0)),
        producer_epoch: i16::from_be_bytes(field(entry, 8)),
        coordinator_epoch: i32::from_be_bytes(field(entry, 34)),
        current_transaction_first_offset: (first_offset >= 0).then_some(first_offset),
        last_timestamp_ms: i64::from_be_bytes(field(entry, 26)),
        last_batch: (last_offset >= 0).then(|| ProducerBatch {
            // Sequence numbers wrap behind the greatest 32-bit one.
            first_sequence: (i64::from(last_sequence) - i64::from(offset_delta))
                .rem_euclid(SEQUENCES) as i32,
            last_sequence,
            last_offset,
            offset_delta,
        }),
    }
}

/// How many sequence numbers there are.
const SEQUENCES: i64 = 1 << 31;

fn sequence_at(batch: &BatchHeader, offset_delta: i64) -> i32 {
    if batch.base_sequence < 0 {
        return -1;
    }
    ((i64::from(batch.base_sequence) + offset_delta) % SEQUENCES) as i32
}

fn control_record(key: Option<&[u8]>, value: Option<&[u8]>) -> ControlRecord {
    let Some(kind) = key.filter(|key| key.len() >= 4) else {
        return ControlRecord::Other { kind: -1 };
    };
    let kind = i16::from_be_bytes(field(kind, 2));
    let coordinator_epoch =
        value.filter(|value| value.len() >= 6).map(|value| i32::from_be_bytes(field(value, 2)));
    match (kind, coordinator_epoch) {
        (0, Some(coordinator_epoch)) => ControlRecord::Abort { coordinator_epoch },
        (1, Some(coordinator_epoch)) => ControlRecord::Commit { coordinator_epoch },
        (kind, _) => ControlRecord::Other { kind },
    }
}

fn dumped_header(header: &BatchHeader, position: u64, is_valid: bool) -> DumpedHeader {
    let attributes = header.attributes;
    DumpedHeader {
        position,
        len: header.len() as u64,
        base_offset: header.base_offset,
        last_offset: header.last_offset(),
        record_count: header.record_count,
        base_sequence: header.base_sequence,
        last_sequence: header.last_sequence(),
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        leader_epoch: header.leader_epoch,
        is_transactional: attributes.is_transactional(),
        is_control: attributes.is_control(),
        delete_horizon_ms: attributes.has_delete_horizon().then_some(header.base_timestamp_ms),
        timestamp_type: if attributes.is_log_append_time() {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        },
        max_timestamp_ms: header.max_timestamp_ms,
        magic: header.magic,
        compression: attributes.compression().unwrap_or("none"),
        checksum: header.checksum,
        is_valid,
    }
}

/// Takes a fixed number of bytes out of an entry, which has the length of its kind.
fn field<const N: usize>(entry: &[u8], start: usize) -> [u8; N] {
    entry[start..start + N].try_into().expect("a range of N bytes has N bytes")
}
