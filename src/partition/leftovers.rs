//! Which files a partition directory holds, once what a crash interrupted among them is finished.
//!
//! Kafka names files by what is being done to them: `.cleaned` while a compaction writes its output, `.swap`
//! once that is whole and about to replace its input, `.deleted` before removal. Whatever was under way is
//! undone or finished by Kafka's rules, so that its directories open like ours. Every step can be cut short
//! and done again.

use crate::error::Result;
use crate::storage::disk::Access;
use crate::storage::disk::Disk;
use crate::storage::file_name;
use crate::storage::file_name::OffsetFile;
use crate::storage::scan::Continuity;
use crate::storage::scan::Depth;
use crate::storage::scan::Scan;
use crate::storage::scan::Scanned;
use crate::storage::segment_files::SegmentContext;

/// The files of a partition that are named by an offset, in order.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Where the segments start.
    pub(crate) base_offsets: Vec<i64>,
    /// What the producer snapshots cover.
    pub(crate) snapshots: Vec<i64>,
    /// Index files of any kind.
    indexes: Vec<(OffsetFile, i64)>,
    /// Names that are none of the above: mostly other files, sometimes leftovers.
    others: Vec<String>,
}

/// Lists a partition directory, after putting it in order.
pub(crate) fn tidy(context: &SegmentContext) -> Result<Listing> {
    let disk = &context.disk;
    let directory = &*context.directory;
    let mut listing = Listing::read(disk, context)?;
    let mut changed = false;
    if listing
        .others
        .iter()
        .any(|name| is_leftover(name) || suffixed(name, file_name::SWAP_SUFFIX).is_some())
    {
        finish_compaction(context, &listing)?;
        listing = Listing::read(disk, context)?;
        changed = true;
    }
    for (kind, base_offset) in &listing.indexes {
        if listing.base_offsets.binary_search(base_offset).is_err() {
            disk.remove_file(&kind.path(directory, *base_offset))?;
            changed = true;
        }
    }
    if changed {
        disk.sync_directory(directory)?;
    }
    Ok(listing)
}

/// Tells whether segments were being replaced when something cut that short.
pub(crate) fn is_swapping(context: &SegmentContext) -> Result<bool> {
    let is_of_a_swap = |name: &str| {
        suffixed(name, file_name::SWAP_SUFFIX).is_some()
            || suffixed(name, file_name::CLEANED_SUFFIX).is_some()
    };
    Ok(Listing::read(&context.disk, context)?.others.iter().any(|name| is_of_a_swap(name)))
}

impl Listing {
    fn read(disk: &Disk, context: &SegmentContext) -> Result<Listing> {
        let mut listing = Listing::default();
        for entry in disk.entries(&context.directory)?.into_iter().filter(|e| !e.is_directory) {
            match OffsetFile::parse(&entry.name) {
                Some((OffsetFile::Log, offset)) => listing.base_offsets.push(offset),
                Some((OffsetFile::ProducerSnapshot, offset)) => listing.snapshots.push(offset),
                Some(index) => listing.indexes.push(index),
                None => listing.others.push(entry.name),
            }
        }
        listing.base_offsets.sort_unstable();
        listing.snapshots.sort_unstable();
        Ok(listing)
    }
}

fn suffixed(name: &str, suffix: &str) -> Option<(OffsetFile, i64)> {
    OffsetFile::parse(name.strip_suffix(suffix)?)
}

/// Tells whether a name says that the file is of no more use, or not of any use yet.
fn is_leftover(name: &str) -> bool {
    name.ends_with(file_name::DELETED_SUFFIX)
        || name.ends_with(file_name::TEMPORARY_SUFFIX)
        || suffixed(name, file_name::CLEANED_SUFFIX).is_some()
}

/// Removes what was still being written, and any swap that had not got all its files; then lets the whole
/// swaps replace the segments they were made from.
fn finish_compaction(context: &SegmentContext, listing: &Listing) -> Result<()> {
    let disk = &context.disk;
    let directory = &*context.directory;
    let names = &listing.others;
    let cleaned_min =
        names.iter().filter_map(|n| Some(suffixed(n, file_name::CLEANED_SUFFIX)?.1)).min();
    let mut swaps = Vec::new();
    for name in names {
        match suffixed(name, file_name::SWAP_SUFFIX) {
            Some((kind, offset)) if cleaned_min.is_none_or(|min| offset < min) => {
                swaps.push((offset, kind, directory.join(name)));
            }
            Some(_) => disk.remove_file(&directory.join(name))?,
            None => {}
        }
    }
    // Behind the swaps that they show to be unfinished.
    for name in names.iter().filter(|name| is_leftover(name)) {
        disk.remove_file(&directory.join(name))?;
    }
    // The log first: as long as it is not in its place, the indexes of its base offset are those it replaces.
    swaps.sort_unstable_by_key(|(offset, kind, _)| (*offset, *kind as usize));

    let logs = || swaps.iter().filter(|(_, kind, _)| *kind == OffsetFile::Log);
    let start = logs().map(|(base, _, _)| *base).min();
    let mut end = None;
    for (base, _, path) in logs() {
        let file = disk.open(path, Access::Read)?;
        let continuity = Continuity { expected: *base, gaps_below: i64::MAX };
        let mut scan = Scan::new(&file, 0, continuity, Depth::Headers)?;
        while let Scanned::Batch { .. } = scan.next()? {}
        end = end.max(Some(scan.expected()));
    }
    if let (Some(start), Some(end)) = (start, end) {
        let replaced = listing.base_offsets.iter().map(|base| (OffsetFile::Log, *base));
        for (kind, base) in replaced.chain(listing.indexes.iter().copied()) {
            if (start..end).contains(&base) {
                disk.remove_file(&kind.path(directory, base))?;
            }
        }
    }
    for (base, kind, path) in swaps {
        disk.rename(&path, &kind.path(directory, base))?;
        if kind == OffsetFile::Log {
            // Names need not reach the disk in order.
            disk.sync_directory(directory)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn context(directory: &Path) -> SegmentContext {
        SegmentContext {
            disk: Disk::default(),
            directory: directory.into(),
            lock: None,
            index_interval_bytes: 4096,
            gaps: Default::default(),
        }
    }

    /// A directory with files of these names, and what is left of them once it is tidied.
    fn tidied(names: &[&str]) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        for name in names {
            let name = name.replace('#', "000000000000000000");
            fs::write(directory.path().join(name), "").unwrap();
        }
        tidy(&context(directory.path())).unwrap();
        let mut left: Vec<String> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .map(|name| name.replace("000000000000000000", "#"))
            .collect();
        left.sort();
        left
    }

    #[test]
    fn leftovers_go_and_what_is_not_ours_stays() {
        let left = tidied(&[
            "#00.log",
            "#00.index",
            "#05.index",
            "#05.timeindex",
            "#07.snapshot",
            "#00.log.deleted",
            "leader-epoch-checkpoint.tmp",
            "partition.metadata",
            "notes.txt",
        ]);
        assert_eq!(
            left,
            ["#00.index", "#00.log", "#07.snapshot", "notes.txt", "partition.metadata"]
        );
    }

    #[test]
    fn a_compaction_that_was_still_writing_is_undone() {
        let names = ["#00.log", "#10.log", "#00.log.cleaned", "#00.index.cleaned"];
        assert_eq!(tidied(&names), ["#00.log", "#10.log"]);
    }

    #[test]
    fn a_swap_without_all_its_files_is_undone() {
        let names = ["#00.log", "#10.log", "#10.log.swap", "#05.log.cleaned", "#05.index.cleaned"];
        assert_eq!(tidied(&names), ["#00.log", "#10.log"]);
    }

    #[test]
    fn a_whole_swap_replaces_what_it_was_made_from() {
        // An empty output at 0: nothing but its own namesake is replaced by it.
        let names = ["#00.log", "#00.index", "#10.log", "#00.log.swap", "#00.index.swap"];
        assert_eq!(tidied(&names), ["#00.index", "#00.log", "#10.log"]);
    }
}
