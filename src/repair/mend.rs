//! How a log is put in order, step by step.
//!
//! | step | a crash during it, or behind it |
//! | --- | --- |
//! | 1 | what is taken out is copied beside, durably | a copy that is there is not made again |
//! | 2 | fields are restored in place | a batch is damaged as before, or whole |
//! | 3 | every segment is synchronised; then the mark says up to where records may be missing | the mark allows more than there is; where the log is to go on, it takes no appends before it does |
//! | 4 | segments are written without what is damaged in them, and renamed over the old ones | one or the other |
//! | 5 | ends are cut off, segments set aside, a new one made where the log goes on | each file is the old one or the new one |
//! | 6 | indexes, epochs, snapshots are written anew | each is derived again |
//!
//! **Invariant (nothing twice).** No step takes away what tells a later repair that an offset was given out: the mark
//! is on the disk before anything else goes.

use std::path::Path;

use crate::error::Result;
use crate::format::header;
use crate::inspect::check::segment_offsets;
use crate::repair::kept::Kept;
use crate::repair::kept::copy_range;
use crate::repair::known::Known;
use crate::repair::log_look::LogLook;
use crate::repair::log_look::Misplaced;
use crate::repair::producers::Producers;
use crate::repair::report::RepairStep;
use crate::repair::segment_look::SegmentLook;
use crate::repair::steps::Repair;
use crate::storage::catalog;
use crate::storage::checkpoint;
use crate::storage::disk::Access;
use crate::storage::disk::Disk;
use crate::storage::file_name;
use crate::storage::file_name::OffsetFile;
use crate::storage::file_name::TEMPORARY_SUFFIX;
use crate::storage::gaps;
use crate::storage::indexes;
use crate::storage::segment_files;
use crate::storage::segment_files::SegmentContext;

/// Does, or only tells, what a look at a log has found to be done.
pub(crate) fn mend(
    repair: &mut Repair,
    context: &SegmentContext,
    known: &Known,
    look: &LogLook,
) -> Result<()> {
    Mending { repair, context, known, look }.run()
}

/// Gives a segment its own name.
pub(crate) fn put_in_place(
    repair: &mut Repair,
    context: &SegmentContext,
    misplaced: &Misplaced,
) -> Result<()> {
    let (from, to) = match *misplaced {
        Misplaced::Exchange(from, to) | Misplaced::Rename(from, to) => (from, to),
    };
    let (path, target) = (context.log_path(from), context.log_path(to));
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let what = match misplaced {
        Misplaced::Exchange(..) => format!("it and {} have each other's names", name(&target)),
        Misplaced::Rename(..) => format!("its records say that it is {}", name(&target)),
    };
    repair.tell(RepairStep::new(&path, what));
    if !repair.applies {
        return Ok(());
    }
    // What is said of the one would be said of the other.
    for base_offset in [from, to] {
        for kind in [OffsetFile::OffsetIndex, OffsetFile::TimeIndex] {
            context.disk.remove_file(&kind.path(&context.directory, base_offset))?;
        }
    }
    context.disk.sync_directory(&context.directory)?;
    match misplaced {
        Misplaced::Exchange(..) => context.disk.exchange(&path, &target)?,
        Misplaced::Rename(..) => context.disk.rename(&path, &target)?,
    }
    context.disk.sync_directory(&context.directory)
}

struct Mending<'m> {
    repair: &'m mut Repair,
    context: &'m SegmentContext,
    known: &'m Known,
    look: &'m LogLook,
}

impl Mending<'_> {
    fn run(mut self) -> Result<()> {
        let look = self.look;
        self.metadata()?;
        let mut kept = Vec::new();
        for segment in &look.segments {
            let mut of_segment = Vec::new();
            for damaged in &segment.damaged {
                let stem = format!("{}{:020}", file_name::QUARANTINE_PREFIX, damaged.offsets.start);
                let range = damaged.range.clone();
                of_segment.push(Kept::find(&self.context.disk, &segment.path, range, &stem)?);
            }
            kept.push(of_segment);
        }
        if self.repair.applies {
            for kept in kept.iter().flatten() {
                kept.copy(&self.context.disk)?;
            }
        }
        for segment in &look.segments {
            self.restore(segment)?;
        }
        self.mark()?;
        self.start()?;
        for (segment, kept) in look.segments.iter().zip(&kept) {
            self.segment(segment, kept)?;
        }
        self.go_on()?;
        for segment in look.segments.iter().filter(|segment| !look.goes(segment)) {
            self.indexes(segment)?;
        }
        self.epochs()?;
        self.snapshots()?;
        if self.repair.applies {
            self.context.disk.sync_directory(&self.context.directory)?;
        }
        Ok(())
    }

    fn metadata(&mut self) -> Result<()> {
        let path = self.context.directory.join(file_name::PARTITION_METADATA);
        let (Some(reason), Some(id)) = (self.look.metadata, self.known.id) else {
            return Ok(());
        };
        self.repair.rewrite(&path, format!("the topic's id is written anew: {reason}"), |disk| {
            catalog::write_partition_metadata(disk, &path, id)
        })
    }

    /// Puts on record where records may be missing from now on.
    fn mark(&mut self) -> Result<()> {
        let Some(mark) = self.look.mark else {
            return Ok(());
        };
        let path = self.context.directory.join(file_name::COMPACTED);
        let reason = self.look.mark_damage.map_or(String::new(), |reason| format!(": {reason}"));
        let what = format!("says that records may be missing below offset {mark}{reason}");
        let (context, segments) = (self.context, &self.look.segments);
        self.repair.rewrite(&path, what, |disk| {
            // Everything below the mark counts as durable.
            for segment in segments {
                disk.open(&segment.path, Access::Write)?.sync_all()?;
            }
            disk.sync_directory(&context.directory)?;
            gaps::write_mark(disk, &context.directory, mark)
        })
    }

    /// Behind the mark, which says the same of offsets that were given out; before the log is there that makes it true.
    fn start(&mut self) -> Result<()> {
        let start = self.known.on_record.log_start;
        match self.look.start_is_false {
            true => self.repair.forget_log_start(&self.known.directory, start),
            false => Ok(()),
        }
    }

    /// In front of the mark: where records may be missing, a wrong base offset may pass for a right one.
    fn restore(&mut self, segment: &SegmentLook) -> Result<()> {
        for (position, header) in &segment.restored {
            let what = format!(
                "the front of the batch at offset {} is restored: what it says was wrong, its checksum is right",
                header.base_offset
            );
            self.repair.tell(RepairStep::new(&segment.path, what).at(*position));
            self.change(|disk| {
                let file = disk.open(&segment.path, Access::Write)?;
                let mut front = [0; header::LEN];
                file.read_exact_at(&mut front, *position)?;
                front[header::field::BASE_OFFSET]
                    .copy_from_slice(&header.base_offset.to_be_bytes());
                front[header::field::LENGTH].copy_from_slice(&header.length.to_be_bytes());
                front[header::field::MAGIC].copy_from_slice(&header.magic.to_be_bytes());
                file.write_all_at(&front, *position)?;
                file.sync_all()
            })?;
        }
        for (position, epoch) in &segment.epochs {
            let what = format!("the batch's leader epoch becomes {epoch}, as its offset says");
            self.repair.tell(RepairStep::new(&segment.path, what).at(*position));
            self.change(|disk| {
                let file = disk.open(&segment.path, Access::Write)?;
                let place = *position + header::field::LEADER_EPOCH.start as u64;
                file.write_all_at(&epoch.to_be_bytes(), place)?;
                file.sync_all()
            })?;
        }
        Ok(())
    }

    fn segment(&mut self, segment: &SegmentLook, kept: &[Kept]) -> Result<()> {
        if segment.damaged.is_empty() {
            return self.give_back(segment);
        }
        for (damaged, kept) in segment.damaged.iter().zip(kept) {
            let verb = if damaged.range.start >= segment.end { "cut off" } else { "set aside" };
            let what = format!(
                "{} bytes are {verb}: {}",
                damaged.range.end - damaged.range.start,
                damaged.reason
            );
            let step = RepairStep::new(&segment.path, what).at(damaged.range.start);
            self.repair.tell(step.losing(damaged.offsets.clone()).keeping(&kept.path));
        }
        if !self.repair.applies {
            return Ok(());
        }
        if self.look.goes(segment) {
            self.remove(segment)
        } else if segment.needs_rewriting() {
            self.rewrite(segment)
        } else {
            let file = self.context.disk.open(&segment.path, Access::Write)?;
            file.set_len(segment.end)?;
            file.sync_all()
        }
    }

    /// Cuts off the space that a writer had reserved, where records are missing behind it.
    fn give_back(&mut self, segment: &SegmentLook) -> Result<()> {
        let bases = self.look.segments.iter().map(|segment| segment.base_offset);
        let behind = bases.chain(self.look.skips_to).find(|base| *base > segment.base_offset);
        let is_short = behind.is_some_and(|base| base > segment.end_offset);
        if !is_short || segment.reserved_len == 0 {
            return Ok(());
        }
        let what = format!("{} bytes of reserved space are given back", segment.reserved_len);
        self.repair.tell(RepairStep::new(&segment.path, what).at(segment.end));
        self.change(|disk| {
            let file = disk.open(&segment.path, Access::Write)?;
            file.set_len(segment.end)?;
            file.sync_all()
        })
    }

    fn change(&self, change: impl FnOnce(&Disk) -> Result<()>) -> Result<()> {
        if self.repair.applies { change(&self.context.disk) } else { Ok(()) }
    }

    /// Removes the files of a segment in which nothing is whole; its bytes are kept by now.
    fn remove(&self, segment: &SegmentLook) -> Result<()> {
        let disk = &self.context.disk;
        for kind in [
            OffsetFile::OffsetIndex,
            OffsetFile::TimeIndex,
            OffsetFile::TransactionIndex,
            OffsetFile::Log,
        ] {
            disk.remove_file(&kind.beside(&segment.path))?;
        }
        disk.sync_directory(&self.context.directory)
    }

    /// Writes a segment without what is damaged in it.
    fn rewrite(&self, segment: &SegmentLook) -> Result<()> {
        let disk = &self.context.disk;
        // An index would point elsewhere. Without one, readers make their own.
        for kind in [OffsetFile::OffsetIndex, OffsetFile::TimeIndex] {
            disk.remove_file(&kind.beside(&segment.path))?;
        }
        disk.sync_directory(&self.context.directory)?;
        let kind = OffsetFile::Log;
        let temporary =
            kind.suffixed(&self.context.directory, segment.base_offset, TEMPORARY_SUFFIX);
        let source = disk.open(&segment.path, Access::Read)?;
        let target = disk.open(&temporary, Access::CreateOrKeep)?;
        target.set_len(0)?;
        let (mut from, mut end) = (0, 0);
        for damaged in &segment.damaged {
            end = copy_range(&source, from..damaged.range.start, &target, end)?;
            from = damaged.range.end;
        }
        copy_range(&source, from..segment.end.max(from), &target, end)?;
        // Kafka tells by it how old a segment without timestamps is.
        target.set_modified(source.modified()?)?;
        target.sync_all()?;
        disk.rename(&temporary, &segment.path)?;
        disk.sync_directory(&self.context.directory)
    }

    /// Makes the segment in which the log goes on, behind every offset that was given out.
    fn go_on(&mut self) -> Result<()> {
        let Some(next) = self.look.skips_to else {
            return Ok(());
        };
        if self.look.segments.iter().any(|segment| segment.base_offset == next) {
            return Ok(());
        }
        let what = format!("is made, so that no offset below {next} is given out again");
        self.repair.tell(RepairStep::new(self.context.log_path(next), what));
        if self.repair.applies {
            segment_files::create_files(self.context, next)?;
            self.context.disk.sync_directory(&self.context.directory)?;
        }
        Ok(())
    }

    fn indexes(&mut self, segment: &SegmentLook) -> Result<()> {
        let Some(indexes) = &segment.indexes else {
            return Ok(());
        };
        let path = OffsetFile::OffsetIndex.beside(&segment.path);
        let what = format!("is made anew with its time index: {}", segment.index_reason);
        self.repair.tell(RepairStep::new(path, what));
        if self.repair.applies {
            // Whoever finds index entries takes the segment for durable.
            self.context.disk.open(&segment.path, Access::Write)?.sync_all()?;
            indexes::write_indexes(&self.context.disk, &segment.path, indexes)?;
        }
        Ok(())
    }

    fn epochs(&mut self) -> Result<()> {
        let Some((entries, reason)) = self.look.epochs.wanted(self.look.end) else {
            return Ok(());
        };
        let path = self.look.epochs.path.clone();
        self.repair.rewrite(&path, format!("is made anew from the batches: {reason}"), |disk| {
            checkpoint::write_epochs(disk, &path, &entries)
        })
    }

    /// Makes producer snapshots and transaction indexes anew, from a log that is in order by now.
    fn snapshots(&mut self) -> Result<()> {
        let context = self.context;
        let directory = &*context.directory;
        let base_offsets = || Ok(segment_offsets(&context.disk.entries(directory)?));
        for (offset, reason) in &self.look.snapshots {
            let path = OffsetFile::ProducerSnapshot.path(directory, *offset);
            let end = self.look.end;
            if *offset > end {
                self.repair.rewrite(&path, format!("is removed: {reason}"), |disk| {
                    disk.remove_file(&path)
                })?;
                continue;
            }
            self.repair.rewrite(
                &path,
                format!("is made anew from the batches: {reason}"),
                |disk| {
                    let producers = Producers::below(context, &base_offsets()?, *offset)?;
                    disk.replace(&path, &producers.snapshot())
                },
            )?;
        }
        for (base_offset, reason) in &self.look.transactions {
            let path = OffsetFile::TransactionIndex.path(directory, *base_offset);
            self.repair.rewrite(
                &path,
                format!("is made anew from the batches: {reason}"),
                |disk| {
                    let producers = Producers::below(context, &base_offsets()?, i64::MAX)?;
                    disk.replace(&path, producers.aborted_in(*base_offset))
                },
            )?;
        }
        Ok(())
    }
}
