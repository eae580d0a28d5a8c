//! How a segment that compaction wrote takes the place of those it was made from, in Kafka's steps.
//!
//! | step | effects | a crash during it, or behind it |
//! | --- | --- | --- |
//! | 1 | the new files are written with `.cleaned` behind their names; they and their names are made durable | undone: `.cleaned` is removed |
//! | 2 | they are renamed to `.swap`, the names made durable | undone as long as one is still `.cleaned`; finished from then on |
//! | 3 | the old files are renamed to `.deleted`, the names made durable | finished: old files that are left are removed |
//! | 4 | `.swap` is taken off the new log's name, that is made durable; then off its indexes' | finished |
//! | 5 | the old files are removed, once `file.delete.delay.ms` is over | `.deleted` is removed |
//!
//! What an open makes of it stands in `partition/leftovers.rs`, and is what Kafka does. A step that fails is taken
//! back together with those before it, rename by rename, the last one first: whatever part of that a crash leaves
//! is again one of the states above.
//!
//! **Invariant (one swap).** There are never files of two swaps in a directory, nor `.cleaned` files beside those of
//! a swap that are not its own: an open tells an unfinished swap by them.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::error::Error;
use crate::error::Result;
use crate::format::header::BatchHeader;
use crate::storage::disk::Access;
use crate::storage::disk::DiskFile;
use crate::storage::file_name::CLEANED_SUFFIX;
use crate::storage::file_name::DELETED_SUFFIX;
use crate::storage::file_name::OffsetFile;
use crate::storage::file_name::SWAP_SUFFIX;
use crate::storage::indexes::Indexes;
use crate::storage::segment_files::SegmentContext;

/// A segment that is being written.
#[derive(Debug)]
pub(crate) struct CleanedSegment<'c> {
    context: &'c SegmentContext,
    base_offset: i64,
    file: DiskFile,
    /// What is written before `buffer` is.
    flushed: u64,
    buffer: Vec<u8>,
    indexes: Indexes,
    transactions: Vec<u8>,
}

/// A segment that was written, durably, and has replaced nothing yet.
#[derive(Debug)]
pub(crate) struct Cleaned<'c> {
    context: &'c SegmentContext,
    base_offset: i64,
    kinds: Vec<OffsetFile>,
    pub(crate) len: u64,
    pub(crate) index_len: u64,
    pub(crate) time_index_len: u64,
}

/// Why a swap did not happen.
#[derive(Debug)]
pub(crate) enum SwapError {
    /// Everything is as it was.
    Undone(Error),
    /// It could not be undone. The next open undoes or finishes it.
    Stuck {
        error: Error,
        /// Some of the old files are not where they were.
        is_input_moved: bool,
    },
}

impl<'c> CleanedSegment<'c> {
    pub(crate) fn create(context: &'c SegmentContext, base_offset: i64) -> Result<Self> {
        let path = OffsetFile::Log.suffixed(&context.directory, base_offset, CLEANED_SUFFIX);
        Ok(CleanedSegment {
            context,
            base_offset,
            file: context.disk.open(&path, Access::CreateNew)?,
            flushed: 0,
            buffer: Vec::new(),
            indexes: Indexes::new(base_offset, context.index_interval_bytes),
            transactions: Vec::new(),
        })
    }

    /// Puts a batch behind the others; says whether it fits, for positions are 32-bit.
    pub(crate) fn push(&mut self, header: &BatchHeader, bytes: &[u8]) -> Result<bool> {
        let position = self.len();
        if position + bytes.len() as u64 > i32::MAX as u64 {
            return Ok(false);
        }
        self.indexes.note(position, header.last_offset(), header.max_timestamp_ms);
        if self.buffer.len() + bytes.len() > BUFFER_LEN {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(true)
    }

    /// Puts entries of a transaction index behind the others.
    pub(crate) fn push_transactions(&mut self, entries: &[u8]) {
        self.transactions.extend_from_slice(entries);
    }

    pub(crate) fn len(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    /// Makes the segment and its indexes durable, names included. Their files say that they were changed at
    /// `modified`: Kafka tells by it how old a segment without timestamps is.
    pub(crate) fn finish(mut self, modified: SystemTime) -> Result<Cleaned<'c>> {
        self.flush()?;
        let (offsets, times) = self.indexes.finished();
        let mut cleaned = Cleaned {
            context: self.context,
            base_offset: self.base_offset,
            kinds: vec![OffsetFile::Log],
            len: self.flushed,
            index_len: offsets.len() as u64,
            time_index_len: times.len() as u64,
        };
        let mut indexes = vec![(OffsetFile::OffsetIndex, offsets), (OffsetFile::TimeIndex, times)];
        if !self.transactions.is_empty() {
            indexes.push((OffsetFile::TransactionIndex, self.transactions));
        }
        let mut files = vec![self.file];
        for (kind, bytes) in indexes {
            let file =
                self.context.disk.open(&cleaned.path(kind, CLEANED_SUFFIX), Access::CreateNew)?;
            file.write_all_at(&bytes, 0)?;
            file.write_out_soon(0..bytes.len() as u64);
            files.push(file);
            cleaned.kinds.push(kind);
        }
        // Written all of them before one is synchronised: what the file system has to put on record then goes at once.
        files.iter().try_for_each(|file| file.set_modified(modified))?;
        files.iter().try_for_each(DiskFile::sync_all)?;
        self.context.disk.sync_directory(&self.context.directory)?;
        Ok(cleaned)
    }

    fn flush(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.file.write_all_at(&self.buffer, self.flushed)?;
            let written = self.flushed..self.flushed + self.buffer.len() as u64;
            // The device works while the next batches are read, and the sync in the end waits for the last ones only.
            self.file.write_out_soon(written.clone());
            self.flushed = written.end;
            self.buffer.clear();
        }
        Ok(())
    }
}

impl Cleaned<'_> {
    /// Puts the segment in the place of those that begin at `replaced`, its own base offset among them.
    ///
    /// # Errors
    ///
    /// * [`SwapError::Undone`]: the directory is as it was.
    /// * [`SwapError::Stuck`]: only an open can put the directory in order.
    pub(crate) fn swap(&self, replaced: &[i64]) -> Result<(), SwapError> {
        let mut renames = Renames { context: self.context, done: Vec::new(), moves_input: false };
        self.rename_all(&mut renames, replaced).map_err(|error| renames.undo(error))
    }

    fn rename_all(&self, renames: &mut Renames<'_>, replaced: &[i64]) -> Result<()> {
        for kind in &self.kinds {
            renames.rename(self.path(*kind, CLEANED_SUFFIX), self.path(*kind, SWAP_SUFFIX))?;
        }
        renames.make_durable()?;
        renames.moves_input = true;
        let directory = &self.context.directory;
        for base_offset in replaced {
            for kind in SEGMENT_FILES {
                let path = kind.path(directory, *base_offset);
                if self.context.disk.exists(&path)? {
                    let doomed = kind.suffixed(directory, *base_offset, DELETED_SUFFIX);
                    renames.rename(path, doomed)?;
                }
            }
        }
        renames.make_durable()?;
        for kind in &self.kinds {
            renames.rename(self.path(*kind, SWAP_SUFFIX), self.path(*kind, ""))?;
            if *kind == OffsetFile::Log {
                // An open that finds a new index beside a log that is not in its place takes it for an old one.
                renames.make_durable()?;
            }
        }
        renames.make_durable()
    }

    fn path(&self, kind: OffsetFile, suffix: &str) -> PathBuf {
        kind.suffixed(&self.context.directory, self.base_offset, suffix)
    }
}

/// What a swap has done so far.
struct Renames<'c> {
    context: &'c SegmentContext,
    done: Vec<(PathBuf, PathBuf)>,
    moves_input: bool,
}

impl Renames<'_> {
    fn rename(&mut self, from: PathBuf, to: PathBuf) -> Result<()> {
        self.context.disk.rename(&from, &to)?;
        self.done.push((from, to));
        Ok(())
    }

    fn make_durable(&self) -> Result<()> {
        self.context.disk.sync_directory(&self.context.directory)
    }

    /// Takes everything back, the last rename first.
    fn undo(&mut self, error: Error) -> SwapError {
        while let Some((from, to)) = self.done.pop() {
            if self.context.disk.rename(&to, &from).is_err() {
                return SwapError::Stuck { error, is_input_moved: self.moves_input };
            }
        }
        SwapError::Undone(error)
    }
}

/// Removes the files that were replaced; gives the first error, and leaves the rest to the next open.
pub(crate) fn remove_replaced(context: &SegmentContext, replaced: &[i64]) -> Result<()> {
    for base_offset in replaced {
        for kind in SEGMENT_FILES {
            let doomed = kind.suffixed(&context.directory, *base_offset, DELETED_SUFFIX);
            if context.disk.exists(&doomed)? {
                context.disk.remove_file(&doomed)?;
            }
        }
    }
    Ok(())
}

/// Removes what a compaction that failed has left behind; see the invariant (one swap).
pub(crate) fn sweep(context: &SegmentContext) -> Result<()> {
    for entry in context.disk.entries(&context.directory)? {
        let stem = entry.name.strip_suffix(CLEANED_SUFFIX);
        if stem.and_then(OffsetFile::parse).is_some() {
            context.disk.remove_file(&context.directory.join(&entry.name))?;
        }
    }
    Ok(())
}

/// In Kafka's order. The log comes first: where it has got its name, its indexes follow.
pub(crate) const SEGMENT_FILES: [OffsetFile; 4] =
    [OffsetFile::Log, OffsetFile::OffsetIndex, OffsetFile::TimeIndex, OffsetFile::TransactionIndex];

const BUFFER_LEN: usize = 1 << 20;
