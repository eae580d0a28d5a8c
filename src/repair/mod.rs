//! Puts a damaged data directory in order: [`plan()`] shows what would be done, [`apply()`] does it.
//!
//! A repair does the least that makes [`inspect::check`](crate::inspect::check()) find nothing. Every batch that can be
//! read stays where it is, at its offset:
//!
//! | what is wrong | what is done |
//! | --- | --- |
//! | a batch whose base offset, length or version is wrong, and whose checksum is right with the right ones | restored in place |
//! | a batch whose leader epoch is not that of its offset | corrected in place |
//! | another stretch that is no batch | taken out of its segment |
//! | a torn or damaged end | cut off |
//! | segments under each other's names, or one under a wrong name | get their own |
//! | a segment in which nothing is whole, or that is gone | its offsets count as missing, the others stay |
//! | indexes, producer snapshots, transaction indexes, leader epochs | made anew from the batches |
//! | checkpoints | what cannot be true goes; the next open finds it out again |
//! | `partition.metadata` | made anew from the list of topics |
//! | `ottla.topics` | made anew from what can be read of it and what lies there; nothing that it says lets records go |
//! | the directory of a partition that is gone | made anew, empty |
//!
//! Whatever is taken out is kept in a file beside: `ottla.cut-<offset>-<n>` or `ottla.damaged-<name>-<n>`. No offset
//! that may have been acknowledged is given out again: the log goes on behind the greatest that anything speaks of.
//!
//! A repair holds the directory's lock. It can be cut short anywhere, by a kill or by a power cut, and started again;
//! one that is started on what a finished one left changes nothing. It needs room for a copy of each segment that has
//! damage in its middle. It goes by what a directory says of itself, not by what somebody else may know better: where
//! there is a copy of the damaged file, put that in its place instead.
//!
//! ```
//! use ottla::{Record, Store, TopicConfig, inspect, repair};
//!
//! # fn io<T>(r: std::io::Result<T>) -> ottla::Result<T> { r.map_err(|_| ottla::Error::Closed) }
//! # let directory = io(tempfile::tempdir())?;
//! # let path = directory.path().join("data");
//! let store = Store::open(&path)?;
//! let topic = store.create_topic("orders", TopicConfig::new())?;
//! for value in ["first", "second", "third"] {
//!     store.producer().send(&topic, Record::new(value))?.wait()?;
//! }
//! # drop(topic);
//! store.close()?;
//!
//! // Somebody flips a bit in the second batch.
//! let segment = path.join("orders-0/00000000000000000000.log");
//! let mut bytes = io(std::fs::read(&segment))?;
//! let middle = bytes.len() / 2;
//! bytes[middle] ^= 1;
//! io(std::fs::write(&segment, bytes))?;
//! assert!(!inspect::check(&path)?.is_good());
//!
//! let steps = repair::plan(&path)?.steps;
//! assert!(steps.iter().any(|step| step.offsets == Some(1..2)));
//! assert!(repair::apply(&path)?.is_good());
//! let store = Store::open(&path)?;
//! let partition = store.topic("orders")?.partition(0)?;
//! assert!(partition.read(0)?.is_some() && partition.read(1)?.is_none() && partition.read(2)?.is_some());
//! assert_eq!(store.producer().send(&store.topic("orders")?, Record::new("fourth"))?.wait()?.offset(), 3);
//! # Ok::<(), ottla::Error>(())
//! ```

#[cfg(test)]
mod crash;
pub(crate) mod epochs_look;
pub(crate) mod kept;
pub(crate) mod known;
pub(crate) mod log_look;
pub(crate) mod mend;
pub(crate) mod producers;
pub(crate) mod report;
pub(crate) mod root_look;
pub(crate) mod segment_look;
pub(crate) mod steps;

use std::path::Path;

use crate::error::Error;
use crate::error::Result;
use crate::inspect::check::check_on;
use crate::inspect::check::refuse_what_is_no_root;
use crate::name::TopicName;
use crate::partition::leftovers;
use crate::repair::log_look::LogLook;
pub use crate::repair::report::RepairReport;
pub use crate::repair::report::RepairStep;
use crate::repair::root_look::CheckpointLook;
use crate::repair::root_look::RootLook;
use crate::repair::steps::Repair;
use crate::storage::checkpoint::OffsetCheckpoint;
use crate::storage::disk::Disk;
use crate::storage::file_name;
use crate::storage::gaps::Gaps;
use crate::storage::lock;
use crate::storage::lock::DirectoryLock;
use crate::storage::segment_files::SegmentContext;

/// Shows what a repair of a data directory would do. Changes nothing.
///
/// Where segments have wrong names, or a compaction was cut short, only that is shown of a partition: what else there
/// is to do shows once that is done.
///
/// # Errors
///
/// * [`Error::Locked`] if somebody has the directory open for writing.
/// * [`Error::NotADataDirectory`] if the path is something else. [`Error::FormatTooNew`]. [`Error::Io`].
pub fn plan(root: impl AsRef<Path>) -> Result<RepairReport> {
    let (disk, root) = (Disk::default(), root.as_ref());
    refuse_what_is_no_root(&disk, root)?;
    if lock::is_held(&disk, root)? {
        return Err(Error::Locked { path: root.to_path_buf(), holder: None });
    }
    let mut report = run(&disk, root, false)?;
    report.problems = check_on(&disk, root)?.problems;
    Ok(report)
}

/// Repairs a data directory, durably.
///
/// # Errors
///
/// * [`Error::Locked`] if somebody has the directory open for writing; nothing was changed.
/// * [`Error::NotADataDirectory`] if the path is something else. [`Error::FormatTooNew`].
/// * [`Error::Io`], [`Error::OutOfSpace`]: the repair is not finished, and can be started again. Nothing that could be
///   read before is gone.
pub fn apply(root: impl AsRef<Path>) -> Result<RepairReport> {
    apply_on(&Disk::default(), root.as_ref())
}

pub(crate) fn apply_on(disk: &Disk, root: &Path) -> Result<RepairReport> {
    refuse_what_is_no_root(disk, root)?;
    let (lock, _) = DirectoryLock::acquire(disk, root)?;
    // A directory with nothing to repair keeps its marker of a clean shutdown.
    let mut report = match run(disk, root, false)?.steps.is_empty() {
        true => RepairReport::default(),
        false => run(disk, root, true)?,
    };
    report.problems = check_on(disk, root)?.problems;
    drop(lock);
    Ok(report)
}

/// Goes through a directory.
fn run(disk: &Disk, root: &Path, applies: bool) -> Result<RepairReport> {
    let look = RootLook::at(disk, root)?;
    let mut repair =
        Repair { disk: disk.clone(), root: root.to_path_buf(), applies, steps: Vec::new() };
    if applies {
        // From here on nothing can be trusted before it was looked at.
        disk.remove_file(&root.join(file_name::CLEAN_SHUTDOWN))?;
        disk.sync_directory(root)?;
    }
    catalog(&mut repair, &look)?;
    let mut ends = Vec::new();
    for (topic, number) in look.partitions() {
        let end = match look.found.contains(&(topic.clone(), number)) {
            true => partition(&mut repair, &look, &topic, number)?,
            false => Some(missing_partition(&mut repair, &look, &topic, number)?),
        };
        ends.extend(end.map(|end| (topic, number, end)));
    }
    for checkpoint in &look.checkpoints {
        checkpoint_file(&mut repair, checkpoint, &ends)?;
    }
    Ok(RepairReport { steps: repair.steps, problems: Vec::new() })
}

fn catalog(repair: &mut Repair, look: &RootLook) -> Result<()> {
    let (Some(reason), Some(catalog)) = (look.catalog_damage, &look.catalog) else {
        return Ok(());
    };
    let path = look.catalog_path();
    let what = format!(
        "is made anew from what can be read of it ({reason}): records of all topics are kept for ever until their \
         cleanup.policy, retention.ms and retention.bytes are set again"
    );
    repair.rewrite(&path, what, |disk| catalog.write(disk, &path))
}

/// Gives where the log ends afterwards; `None` if it could not be looked at.
fn partition(
    repair: &mut Repair,
    look: &RootLook,
    topic: &TopicName,
    number: u32,
) -> Result<Option<i64>> {
    let known = look.known(topic, number);
    let context = SegmentContext {
        disk: repair.disk.clone(),
        directory: known.directory.as_path().into(),
        lock: None,
        index_interval_bytes: known.index_interval_bytes,
        gaps: Gaps::default(),
    };
    if leftovers::is_swapping(&context)? {
        let what = "a compaction that was cut short is finished or undone";
        repair.tell(RepairStep::new(&known.directory, what));
        if !repair.applies {
            return Ok(None);
        }
    }
    if repair.applies {
        leftovers::tidy(&context)?;
    }
    loop {
        let log = match LogLook::at(&repair.disk, &known) {
            Ok(log) => log,
            // The check tells of it; others are none the worse for it.
            Err(Error::Io { .. } | Error::Corrupt { .. }) => return Ok(None),
            Err(other) => return Err(other),
        };
        let Some(misplaced) = &log.misplaced else {
            mend::mend(repair, &context, &known, &log)?;
            return Ok(Some(log.end));
        };
        mend::put_in_place(repair, &context, misplaced)?;
        if !repair.applies {
            return Ok(None);
        }
    }
}

/// Makes a partition anew whose directory is gone.
fn missing_partition(
    repair: &mut Repair,
    look: &RootLook,
    topic: &TopicName,
    number: u32,
) -> Result<i64> {
    let known = look.known(topic, number);
    repair.tell(RepairStep::new(&known.directory, "the directory is gone; it is made anew, empty"));
    if repair.applies {
        repair.disk.create_directory(&known.directory)?;
        repair.disk.sync_directory(&repair.root)?;
        return Ok(partition(repair, look, topic, number)?.unwrap_or(0));
    }
    let on_record = known.on_record;
    Ok(on_record.recovery_point.max(on_record.log_start).max(on_record.high_watermark))
}

fn checkpoint_file(
    repair: &mut Repair,
    look: &CheckpointLook,
    ends: &[(TopicName, u32, i64)],
) -> Result<()> {
    let path = look.path.clone();
    if let Some(reason) = look.damage {
        let what = format!("is removed, the next open finds out what it said: {reason}");
        return repair.rewrite(&path, what, |disk| disk.remove_file(&path));
    }
    if look.name == file_name::CLEANED || !repair.disk.exists(&path)? {
        return Ok(());
    }
    // Read again: a log's start may have been taken off the record.
    let mut offsets = OffsetCheckpoint::read(&repair.disk, &path)?;
    let mut is_changed = false;
    for (topic, number, end) in ends {
        if offsets.of(topic, *number).is_some_and(|offset| offset > *end) {
            offsets.forget_partition(topic, *number);
            is_changed = true;
        }
    }
    if !is_changed {
        return Ok(());
    }
    let what = "offsets behind the ends of their logs are taken off the record".to_owned();
    repair.rewrite(&path, what, |disk| offsets.write(disk, &path))
}
