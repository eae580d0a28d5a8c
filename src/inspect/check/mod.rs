//! The check of a data directory: its small files, its partitions, and whether they agree.
//!
//! **Invariant (one cause, one problem).** What follows from damage that was reported already (an index
//! entry that points into it, a gap behind it) is not reported again.

pub(crate) mod index_walk;
pub(crate) mod report;
pub(crate) mod segment;

use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::error::Error;
use crate::error::Result;
use crate::inspect::check::report::CheckReport;
use crate::inspect::check::report::Problem;
use crate::inspect::check::report::Progress;
use crate::inspect::file_kind::FILE_LEN_MAX;
use crate::inspect::producer_snapshot::snapshot_entries;
use crate::name::TopicName;
use crate::storage::catalog;
use crate::storage::catalog::Catalog;
use crate::storage::catalog::TopicId;
use crate::storage::checkpoint;
use crate::storage::checkpoint::OffsetCheckpoint;
use crate::storage::disk::Disk;
use crate::storage::disk::Entry;
use crate::storage::file_name;
use crate::storage::file_name::OffsetFile;
use crate::storage::file_name::RootDirectory;
use crate::storage::gaps;

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
    check_through(&Disk::default(), root.as_ref(), progress)
}

/// As [`check`], on a disk of one's choice.
pub(crate) fn check_on(disk: &Disk, root: &Path) -> Result<CheckReport> {
    check_through(disk, root, |_| {})
}

fn check_through(
    disk: &Disk,
    root: &Path,
    progress: impl FnMut(Progress<'_>),
) -> Result<CheckReport> {
    let disk = disk.clone();
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

    /// Checks a partition; again, if a writer compacted it meanwhile.
    fn partition(&mut self, topic: &TopicName, number: u32, surroundings: &Surroundings) {
        let directory = self.directory_of(topic, number);
        let (before, bytes_done) = (self.report.clone(), self.bytes_done);
        for tries in 0.. {
            let seen = Sight::of(&self.disk, &directory);
            self.partition_once(topic, number, surroundings);
            let is_same = seen == Sight::of(&self.disk, &directory) && !seen.is_swapping;
            if is_same || (self.report.problems == before.problems && !seen.is_swapping) {
                return;
            }
            if tries == TRIES {
                if seen.is_swapping {
                    self.note(directory, "a compaction was cut short; the next open sees to it");
                }
                return;
            }
            self.report.clone_from(&before);
            self.bytes_done = bytes_done;
            thread::sleep(TRY_INTERVAL);
        }
    }

    fn partition_once(&mut self, topic: &TopicName, number: u32, surroundings: &Surroundings) {
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
        let (gaps_below, durable_below) = match gaps::read_mark(&self.disk, &directory) {
            Ok(mark) => (mark, mark),
            Err(error) => {
                self.problem_of(error);
                (i64::MAX, 0)
            }
        };
        let mut segments = segments_of(&entries);
        // What lies below the start is deleted, perhaps in part: the next open removes the rest.
        let start = surroundings.log_starts.of(topic, number).unwrap_or(0);
        let deleted = segments.partition_point(|(_, base_offset)| *base_offset <= start);
        for (_, base_offset) in segments.drain(..deleted.saturating_sub(1)) {
            let path = OffsetFile::Log.path(&directory, base_offset);
            self.note(path, "is deleted; the next open removes it");
        }
        let mut log = Log {
            gaps_below: surroundings.cleaned.of(topic, number).unwrap_or(0).max(gaps_below),
            recovery_point: surroundings
                .recovery_points
                .of(topic, number)
                .unwrap_or(0)
                .max(durable_below),
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
                // A crash leaves it so: segments go sooner than Kafka puts that on record.
                self.note(
                    path,
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
                self.note(path, "bytes that an earlier recovery cut off, or a repair set aside");
                continue;
            }
            if name.starts_with(file_name::DAMAGED_PREFIX) {
                self.note(path, "a damaged file that a repair set aside");
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

/// What changes in a partition's directory when it is compacted.
#[derive(PartialEq, Eq)]
struct Sight {
    segments: Vec<String>,
    gaps_below: Option<i64>,
    /// Segments are being replaced.
    is_swapping: bool,
}

impl Sight {
    fn of(disk: &Disk, directory: &Path) -> Sight {
        // What cannot be read is told of by the check.
        let entries = disk.entries(directory).unwrap_or_default();
        let is_swap = |entry: &Entry| entry.name.ends_with(file_name::SWAP_SUFFIX);
        let is_swapping = entries.iter().any(is_swap);
        let names = entries.into_iter().map(|entry| entry.name);
        let mut segments: Vec<String> = names.filter(|name| name.ends_with(".log")).collect();
        segments.sort_unstable();
        Sight { segments, gaps_below: gaps::read_mark(disk, directory).ok(), is_swapping }
    }
}

/// How often, and how far apart, something is looked at again that a writer may be in the middle of.
const TRIES: u32 = 10;
const TRY_INTERVAL: Duration = Duration::from_millis(5);

pub(crate) fn refuse_what_is_no_root(disk: &Disk, root: &Path) -> Result<()> {
    let refuse = |reason| Err(Error::NotADataDirectory { path: root.to_path_buf(), reason });
    disk.refuse_if_not_directory(root)?;
    if !segments_of(&disk.entries(root)?).is_empty() {
        return refuse("it is a partition's directory; the data directory is the one above");
    }
    Ok(())
}

/// Gives the base offsets of the segments in a partition directory, in order.
pub(crate) fn segment_offsets(entries: &[Entry]) -> Vec<i64> {
    segments_of(entries).into_iter().map(|(_, base_offset)| base_offset).collect()
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
