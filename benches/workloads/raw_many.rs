//! Many files, nothing but frames: what the file system takes for making, opening, writing, reading and listing them.

use std::fs;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::payload::Touch;
use crate::payload::Values;
use crate::raw;
use crate::subject::Log;
use crate::subject::Outcome;
use crate::subject::Scan;
use crate::subject::Setup;
use crate::subject::Subject;
use crate::subject::Variant;
use crate::subject::Work;

/// A file of its own for each partition, in a directory of its own, opened for each append; or one for each record.
pub(crate) struct RawFiles;

struct FilesLog {
    paths: Vec<PathBuf>,
    /// The file that the next single record makes.
    next: AtomicU64,
}

struct FilesScan<'l> {
    left: &'l [PathBuf],
}

impl Subject for RawFiles {
    fn name(&self) -> &'static str {
        "raw-files"
    }

    fn guarantee(&self) -> &'static str {
        "open, write(2), close for each record: kill -9"
    }

    fn variants(&self, work: Work) -> Vec<Variant> {
        raw::only(matches!(work, Work::ManyPartitions | Work::ManySegments))
    }

    fn open(&self, setup: &Setup<'_>) -> Outcome<Box<dyn Log>> {
        let has_directories = setup.work == Work::ManyPartitions;
        let count = if has_directories { u64::from(setup.partitions) } else { setup.records };
        let mut paths = Vec::new();
        for number in 0..count {
            let dir = setup.dir.join(number.to_string());
            paths.push(raw::data_path(if has_directories { &dir } else { setup.dir }));
            if !has_directories {
                paths[number as usize].set_extension(number.to_string());
            } else if !dir.is_dir() {
                fs::create_dir(&dir)?;
                fs::File::create(&paths[number as usize])?;
            } else {
                // What a log that is opened must know of a file, at the least.
                fs::metadata(&paths[number as usize])?;
            }
        }
        Ok(Box::new(FilesLog { paths, next: AtomicU64::new(0) }))
    }
}

impl Log for FilesLog {
    fn send(&self, value: &[u8]) -> Outcome {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        append(&self.paths[number as usize], value)
    }

    fn append_to_each(&self, values: Values<'_>) -> Outcome {
        for (path, value) in self.paths.iter().zip(values) {
            append(path, value)?;
        }
        Ok(())
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        Ok(Box::new(FilesScan { left: &self.paths }))
    }

    fn close(self: Box<Self>) -> Outcome {
        Ok(())
    }
}

impl Scan for FilesScan<'_> {
    fn next(&mut self, touch: &mut Touch) -> Outcome<bool> {
        let Some((path, left)) = self.left.split_first() else { return Ok(false) };
        self.left = left;
        let bytes = fs::read(path)?;
        let mut rest = &bytes[..];
        while let Some((value, behind)) = raw::split_frame(rest) {
            touch.take(value);
            rest = behind;
        }
        Ok(true)
    }
}

fn append(path: &Path, value: &[u8]) -> Outcome {
    let mut frame = Vec::with_capacity(raw::PREFIX_LEN + value.len());
    raw::push_frame(&mut frame, value);
    OpenOptions::new().append(true).create(true).open(path)?.write_all(&frame)?;
    Ok(())
}
