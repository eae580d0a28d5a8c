//! Reading a log that another process appends to.
//!
//! There is no published end to go by, so the end is found by walking: a batch counts once its length,
//! checksum and offset hold. The writer stores a batch's first twelve bytes last, so what is not there
//! yet looks like zeros or fails its checksum, and is looked at again later. Walking reads through
//! `pread`: beyond the end of the whole batches the writer may cut its file at any time, and a mapped read
//! there would be a signal.
//!
//! The writer may delete the beginning of its log: the first segments are gone then, and what they held is not looked
//! for any more.
//!
//! The writer may also compact. Files below the last one are then replaced by others of the same name, or are gone;
//! readers keep what they have open. Whoever opens a file anew takes nothing for granted that was learnt of an
//! earlier one, and whoever finds one missing, or an offset, lists the segments again. The mark below which offsets
//! may be missing is read behind the opening of what may have gaps: it was raised before.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::error::Error;
use crate::error::Result;
use crate::partition::open_segments::OpenSegments;
use crate::partition::recovery;
use crate::partition::segments::Segments;
use crate::storage::disk;
use crate::storage::disk::Access;
use crate::storage::disk::DiskDirectory;
use crate::storage::disk::DiskFile;
use crate::storage::file_name;
use crate::storage::file_name::OffsetFile;
use crate::storage::gaps;
use crate::storage::lock;
use crate::storage::scan::Continuity;
use crate::storage::scan::Depth;
use crate::storage::scan::Scan;
use crate::storage::scan::Scanned;
use crate::storage::segment_files::SegmentContext;

/// How far somebody else's log has been seen.
#[derive(Debug)]
pub(crate) struct Follow {
    /// Kept open: another directory that gets its name is another log.
    directory: DiskDirectory,
    base_offsets: Vec<i64>,
    file: DiskFile,
    /// Where the whole batches of the last segment end, and the offset expected there.
    end: u64,
    log_end: i64,
    log_start: i64,
}

impl Follow {
    /// Begins to follow. A directory that was closed cleanly is believed, and nothing is walked.
    pub(crate) fn start(
        context: &SegmentContext,
        log_start: i64,
        is_clean: bool,
        held: Arc<OpenSegments>,
    ) -> Result<(Follow, Segments)> {
        let directory = context.disk.open_directory(&context.directory)?;
        let seen = look(context)?;
        let last = seen.last();
        let mut follow = Follow {
            directory,
            log_start: log_start.max(seen.base_offsets[0]),
            base_offsets: seen.base_offsets,
            file: seen.file,
            end: 0,
            log_end: last,
        };
        let clean_end = if is_clean { recovery::clean_end(context, last)? } else { None };
        if let Some((log_end, end)) = clean_end {
            follow.log_end = log_end;
            follow.end = end;
        }
        follow.walk(context)?;
        follow.log_start = follow.log_start.min(follow.log_end);
        let segments = Segments::new(follow.base_offsets.iter().copied(), follow.end, held);
        follow.show(&segments)?;
        Ok((follow, segments))
    }

    pub(crate) fn log_start(&self) -> i64 {
        self.log_start
    }

    pub(crate) fn log_end(&self) -> i64 {
        self.log_end
    }

    /// Looks for more; gives the log's end. Segments that the writer began are added to the list.
    pub(crate) fn advance(&mut self, context: &SegmentContext, segments: &Segments) -> Result<i64> {
        loop {
            let before = self.log_end;
            self.walk(context)?;
            if self.log_end > before {
                segments.last().show_followed(self.end);
            }
            let last = self.base_offsets.last().copied().unwrap_or_default();
            let next = context.log_path(self.log_end);
            if self.log_end != last && context.disk.exists(&next)? {
                // The writer rolled. Its last batches may have been written since the walk above, but a
                // segment is whole before the next exists: nothing is behind the end now.
                let seen = look(context)?;
                match seen.base_offsets.split_last() {
                    Some((last, others))
                        if (*last, others) == (self.log_end, &self.base_offsets) =>
                    {
                        segments.add_foreign(*last, seen.file.inode()?);
                        self.base_offsets = seen.base_offsets;
                        self.file = seen.file;
                        self.end = 0;
                    }
                    // More than once, or it compacted what was before.
                    _ => self.start_over(seen, context, segments)?,
                }
                continue;
            }
            let inode = context.disk.inode(&context.log_path(last))?;
            if self.is_gone(context)? {
                return Ok(self.log_end);
            }
            if inode == Some(self.file.inode()?) {
                self.look_for_deletion(context, segments)?;
                return Ok(self.log_end);
            }
            // It is not the last any more: it was compacted.
            self.start_over(look(context)?, context, segments)?;
        }
    }

    /// Tells whether the log was deleted.
    pub(crate) fn is_gone(&self, context: &SegmentContext) -> Result<bool> {
        Ok(!self.directory.is_at(&context.directory)?)
    }

    /// Looks whether the writer has compacted its log; if so, the list of segments is made anew.
    pub(crate) fn look_for_compaction(
        &mut self,
        context: &SegmentContext,
        segments: &Segments,
    ) -> Result<bool> {
        let gaps_before = context.gaps.below();
        let seen = look(context)?;
        let is_changed = context.gaps.below() > gaps_before
            || !seen.base_offsets.starts_with(&self.base_offsets);
        if is_changed {
            self.start_over(seen, context, segments)?;
        }
        Ok(is_changed)
    }

    /// Looks whether the writer has deleted the first segments; if so, they leave the list.
    fn look_for_deletion(&mut self, context: &SegmentContext, segments: &Segments) -> Result<()> {
        let first = self.base_offsets.first().copied().unwrap_or_default();
        if context.disk.inode(&context.log_path(first))?.is_some() {
            return Ok(());
        }
        let seen = look(context)?;
        if seen.base_offsets.last() != self.base_offsets.last() {
            // It rolled meanwhile, or compacted: seen next time.
            return Ok(());
        }
        // A file that took the name of the last one was looked for before.
        self.base_offsets = seen.base_offsets;
        self.log_start = self.log_start.max(self.base_offsets[0]);
        self.show(segments)
    }

    /// Finds the segments and the end of the log as if it were seen for the first time.
    fn start_over(
        &mut self,
        seen: Seen,
        context: &SegmentContext,
        segments: &Segments,
    ) -> Result<()> {
        self.log_end = seen.last();
        self.end = 0;
        self.log_start = self.log_start.max(seen.base_offsets[0]);
        self.base_offsets = seen.base_offsets;
        self.file = seen.file;
        self.walk(context)?;
        self.show(segments)
    }

    /// Shows readers the segments as they are known now.
    fn show(&self, segments: &Segments) -> Result<()> {
        segments.replace_foreign(&self.base_offsets, self.file.inode()?, self.end);
        Ok(())
    }

    fn walk(&mut self, context: &SegmentContext) -> Result<()> {
        let continuity = Continuity { expected: self.log_end, gaps_below: context.gaps.below() };
        let mut scan = Scan::new(&self.file, self.end, continuity, Depth::Checksums)?;
        loop {
            match scan.next()? {
                Scanned::Batch { position, header, .. } => {
                    self.end = position + header.len() as u64;
                    self.log_end = header.last_offset() + 1;
                }
                // Damage looks like what is not there yet; if the log goes on behind it, whoever opens
                // it for writing will say so.
                Scanned::Fault { .. } | Scanned::End => return Ok(()),
            }
        }
    }
}

/// The segments of a log at one moment.
struct Seen {
    /// There is one at least.
    base_offsets: Vec<i64>,
    /// The last one. It was the last when it was opened, so nothing was compacted in it.
    file: DiskFile,
}

impl Seen {
    fn last(&self) -> i64 {
        self.base_offsets[self.base_offsets.len() - 1]
    }
}

/// Looks at the segments of a log at a moment at which none are being replaced.
///
/// While a writer replaces segments, some of their files have no names that a reader knows. That takes it a few
/// syncs of a directory, and is waited for. If it died, only an open for writing can put it right: where nobody holds
/// the lock of the data directory, nobody is waited for.
fn look(context: &SegmentContext) -> Result<Seen> {
    look_waiting(context, || thread::sleep(TRY_INTERVAL))
}

fn look_waiting(context: &SegmentContext, mut wait: impl FnMut()) -> Result<Seen> {
    let mut was_abandoned = false;
    for _ in 0..TRIES {
        let is_abandoned = match look_once(context)? {
            Looked::Settled(seen) => {
                take_up_mark(context)?;
                return Ok(seen);
            }
            Looked::Replacing => !may_have_a_writer(context),
            Looked::Changing => false,
        };
        // The writer may have finished, and let go of the lock, behind the first look.
        if is_abandoned && was_abandoned {
            break;
        }
        was_abandoned = is_abandoned;
        if !is_abandoned {
            wait();
        }
    }
    let path = context.directory.to_path_buf();
    let reason = "a compaction was cut short; open the directory for writing once".into();
    Err(Error::Unavailable { path, reason })
}

/// Tells whether somebody has the data directory open for writing, or that cannot be told.
fn may_have_a_writer(context: &SegmentContext) -> bool {
    lock::is_held(&context.disk, disk::parent(&context.directory)).unwrap_or(true)
}

/// What one look at the segments of a log finds.
enum Looked {
    Settled(Seen),
    /// Some of them are being replaced.
    Replacing,
    /// Something else changed meanwhile.
    Changing,
}

fn look_once(context: &SegmentContext) -> Result<Looked> {
    let Some(base_offsets) = list(context)? else {
        return Ok(Looked::Replacing);
    };
    let Some(last) = base_offsets.last() else {
        let path = context.directory.to_path_buf();
        let reason = "the partition has no segment";
        return Err(Error::Corrupt { path, position: 0, reason, resume: None });
    };
    let file = match context.disk.open(&context.log_path(*last), Access::Read) {
        Err(error) if error.is_not_found() => return Ok(Looked::Changing),
        file => file?,
    };
    // A directory that changes while it is listed may show neither a file's old name nor its new one, and the
    // file opened may have been another's by then. What was the same before and after was so in between.
    let is_same = list(context)?.as_ref() == Some(&base_offsets);
    Ok(if is_same { Looked::Settled(Seen { base_offsets, file }) } else { Looked::Changing })
}

/// Lists the segments; `None` while some are being replaced.
fn list(context: &SegmentContext) -> Result<Option<Vec<i64>>> {
    let mut base_offsets = Vec::new();
    for entry in context.disk.entries(&context.directory)? {
        if is_swap(&entry.name) {
            return Ok(None);
        }
        if let Some((OffsetFile::Log, base_offset)) = OffsetFile::parse(&entry.name) {
            base_offsets.push(base_offset);
        }
    }
    base_offsets.sort_unstable();
    Ok(Some(base_offsets))
}

fn is_swap(name: &str) -> bool {
    let stem = name.strip_suffix(file_name::SWAP_SUFFIX);
    matches!(stem.and_then(OffsetFile::parse), Some((OffsetFile::Log, _)))
}

/// Takes up how far the writer says that there may be gaps.
fn take_up_mark(context: &SegmentContext) -> Result<()> {
    match gaps::read_mark(&context.disk, &context.directory) {
        Ok(mark) => context.gaps.raise(mark),
        // The writer will say so when it opens the log.
        Err(Error::Corrupt { .. }) => context.gaps.raise(i64::MAX),
        Err(other) => return Err(other),
    }
    Ok(())
}

/// Two seconds: more than a directory's sync takes on a disk that works.
const TRIES: u32 = 1000;
const TRY_INTERVAL: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use crate::clock::Clock;
    use crate::config::Durability;
    use crate::config::TopicConfig;
    use crate::record::Record;
    use crate::storage::disk::Disk;
    use crate::storage::gaps::Gaps;
    use crate::storage::lock::DirectoryLock;
    use crate::store::Store;
    use crate::topics::Topics;

    const PARTITIONS: u32 = 3;

    /// A data directory in whose every partition a compaction was cut short.
    fn abandoned(root: &Path) {
        let store = Store::open(root).unwrap();
        let topic = store.create_topic("t", TopicConfig::new().partitions(PARTITIONS)).unwrap();
        for number in 0..PARTITIONS {
            let record = Record::new("v").partition(number);
            store.producer().send(&topic, record).unwrap().wait().unwrap();
        }
        drop(topic);
        store.close().unwrap();
        for number in 0..PARTITIONS {
            let directory = root.join(format!("t-{number}"));
            fs::copy(directory.join(LOG), directory.join(SWAP)).unwrap();
        }
    }

    const LOG: &str = "00000000000000000000.log";
    const SWAP: &str = "00000000000000000000.log.swap";

    fn context(root: &Path) -> SegmentContext {
        SegmentContext {
            disk: Disk::default(),
            directory: root.join("t-0").into(),
            lock: None,
            index_interval_bytes: 4096,
            gaps: Gaps::default(),
        }
    }

    #[test]
    fn a_swap_that_nobody_is_at_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        abandoned(directory.path());
        let disk = Disk::failing_once(u64::MAX, 0);
        let (attention, _asked) = crossbeam_channel::unbounded();
        let (root, clock) = (directory.path(), Clock::default());
        let topics = Topics::open_read_only(root, disk.clone(), clock, attention).unwrap();
        assert_eq!(topics.findings().len(), PARTITIONS as usize);
        let trace = disk.script().access_trace();
        for number in 0..PARTITIONS {
            let listing = format!("list t-{number}");
            let looks = trace.iter().filter(|access| **access == listing).count();
            assert_eq!(looks, 2, "{trace:?}");
        }
        let mut waits = 0;
        let looked = look_waiting(&context(directory.path()), || waits += 1);
        assert!(matches!(looked, Err(Error::Unavailable { .. })));
        assert_eq!(waits, 0);
    }

    /// A segment that another one follows has reserved space behind its last batch until the writer gives that back.
    #[test]
    fn space_that_a_writer_has_yet_to_give_back_is_no_damage_to_a_reader() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::builder(directory.path()).left_alone();
        let store = store.durability(Durability::Buffered).open().unwrap();
        let config = TopicConfig::new().segment_bytes(1 << 20);
        let topic = store.create_topic("t", config).unwrap();
        let lens = [1000; 900].into_iter().chain([200_000, 10]);
        let values: Vec<Vec<u8>> = lens.map(|len| vec![7; len]).collect();
        for value in &values {
            store.producer().send(&topic, value).unwrap();
        }
        let first = directory.path().join("t-0").join(LOG);
        let bytes = fs::read(first).unwrap();
        assert!(bytes.ends_with(&[0; 1000]), "{}", bytes.len());
        let reader = Store::open_read_only(directory.path()).unwrap();
        let topic = reader.topic("t").unwrap();
        let mut consumer = reader.consumer().assign(topic.partitions()).unwrap();
        let mut found = Vec::new();
        while found.len() < values.len() {
            let records = consumer.poll(Duration::ZERO).unwrap();
            assert!(!records.is_empty(), "{} of {}", found.len(), values.len());
            found.extend(records.iter().map(|message| message.value().unwrap().to_vec()));
        }
        assert!(found == values);
    }

    #[test]
    fn the_swap_of_a_writer_is_waited_for_and_the_one_it_dies_at_is_not() {
        let directory = tempfile::tempdir().unwrap();
        abandoned(directory.path());
        let context = context(directory.path());
        let acquire = || DirectoryLock::acquire(&Disk::default(), directory.path()).unwrap().0;
        let mut held = Some(acquire());
        let mut waits = 0;
        let looked = look_waiting(&context, || {
            waits += 1;
            if waits == 5 {
                held = None;
            }
        });
        assert!(matches!(looked, Err(Error::Unavailable { .. })));
        assert_eq!(waits, 5, "waits until the writer is gone, and not longer");

        let held = acquire();
        let mut waits = 0;
        let looked = look_waiting(&context, || {
            waits += 1;
            if waits == 5 {
                fs::rename(context.directory.join(SWAP), context.log_path(0)).unwrap();
            }
        });
        assert_eq!(looked.unwrap().base_offsets, [0]);
        assert_eq!(waits, 5);
        drop(held);
    }
}
