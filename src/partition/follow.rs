//! Reading a log that another process appends to.
//!
//! There is no published end to go by, so the end is found by walking: a batch counts once its length,
//! checksum and offset hold. The writer stores a batch's first twelve bytes last, so what is not there
//! yet looks like zeros or fails its checksum, and is looked at again later. Walking reads through
//! `pread`: beyond the end of the whole batches the writer may cut its file at any time, and a mapped read
//! there would be a signal.

use std::sync::Arc;

use crate::error::Result;
use crate::partition::open_segments::OpenSegments;
use crate::partition::recovery;
use crate::partition::segments::Segments;
use crate::storage::disk::Access;
use crate::storage::disk::DiskFile;
use crate::storage::file_name::OffsetFile;
use crate::storage::scan::Continuity;
use crate::storage::scan::Depth;
use crate::storage::scan::Scan;
use crate::storage::scan::Scanned;
use crate::storage::segment_files::SegmentContext;

/// How far somebody else's log has been seen.
#[derive(Debug)]
pub(crate) struct Follow {
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
    ) -> Result<Follow> {
        let base_offsets = list(context)?;
        let (first, last) = match (base_offsets.first(), base_offsets.last()) {
            (Some(first), Some(last)) => (*first, *last),
            _ => {
                let path = context.log_path(log_start);
                let reason = "the partition has no segment";
                return Err(crate::Error::Corrupt { path, position: 0, reason, resume: None });
            }
        };
        let file = context.disk.open(&context.log_path(last), Access::Read)?;
        let log_start = log_start.max(first);
        let mut follow = Follow { base_offsets, file, end: 0, log_end: last, log_start };
        let clean_end = if is_clean { recovery::clean_end(context, last)? } else { None };
        if let Some((log_end, end)) = clean_end {
            follow.log_end = log_end;
            follow.end = end;
        }
        follow.walk(context)?;
        follow.log_start = follow.log_start.min(follow.log_end);
        Ok(follow)
    }

    pub(crate) fn segments(&self, held: Arc<OpenSegments>) -> Segments {
        let segments = Segments::new(self.base_offsets.iter().copied(), held);
        segments.follow_last();
        segments.last().show_followed(self.end);
        segments
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
            if self.log_end == last || !context.disk.exists(&next)? {
                return Ok(self.log_end);
            }
            // The writer rolled. Its last batches may have been written since the walk above, but a
            // segment is whole before the next exists: nothing is behind the end now.
            self.file = context.disk.open(&next, Access::Read)?;
            self.end = 0;
            self.base_offsets.push(self.log_end);
            segments.add_followed(self.log_end);
        }
    }

    /// Tells whether the file that was read last is gone from its directory: the topic was deleted.
    pub(crate) fn is_unlinked(&self) -> Result<bool> {
        self.file.is_unlinked()
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

fn list(context: &SegmentContext) -> Result<Vec<i64>> {
    let mut base_offsets: Vec<i64> = context
        .disk
        .entries(&context.directory)?
        .into_iter()
        .filter_map(|entry| match OffsetFile::parse(&entry.name)? {
            (OffsetFile::Log, base_offset) => Some(base_offset),
            _ => None,
        })
        .collect();
    base_offsets.sort_unstable();
    Ok(base_offsets)
}
