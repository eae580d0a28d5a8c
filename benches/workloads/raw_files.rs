//! One file, nothing but frames: a system call per record, ready buffers, a mapping, large reads.

use std::fs::File;
use std::fs::OpenOptions;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use memmap2::Mmap;

use crate::payload::Payload;
use crate::payload::Touch;
use crate::payload::Values;
use crate::raw;
use crate::raw::FileScan;
use crate::raw::MappingScan;
use crate::raw::PREFIX_LEN;
use crate::subject::Log;
use crate::subject::Outcome;
use crate::subject::Points;
use crate::subject::Scan;
use crate::subject::Setup;
use crate::subject::Subject;
use crate::subject::Variant;
use crate::subject::Work;
use crate::subject::failed;
use crate::subject::unsupported;

/// One `write(2)` for each framed record.
pub(crate) struct RawWrite;
/// `write(2)` of buffers of 1 MiB that were filled before.
pub(crate) struct RawReady;
/// Walks a mapping, and finds records in it through the position of every 32nd.
pub(crate) struct RawMapping;
/// Reads a file in pieces of 1 MiB.
pub(crate) struct RawRead;

fn opened(dir: &Path) -> Outcome<File> {
    Ok(OpenOptions::new().append(true).create(true).open(raw::data_path(dir))?)
}

impl Subject for RawWrite {
    fn name(&self) -> &'static str {
        "raw-write"
    }

    fn guarantee(&self) -> &'static str {
        "one write(2) per framed record: kill -9"
    }

    fn variants(&self, work: Work) -> Vec<Variant> {
        raw::only(matches!(work, Work::Inline | Work::Threads | Work::Resources))
    }

    fn open(&self, setup: &Setup<'_>) -> Outcome<Box<dyn Log>> {
        let writer = Mutex::new((opened(setup.dir)?, Vec::new()));
        Ok(Box::new(WriteLog { writer, path: raw::data_path(setup.dir) }))
    }
}

struct WriteLog {
    writer: Mutex<(File, Vec<u8>)>,
    path: PathBuf,
}

impl Log for WriteLog {
    fn send(&self, value: &[u8]) -> Outcome {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, frame) = &mut *writer;
        frame.clear();
        raw::push_frame(frame, value);
        file.write_all(frame)?;
        Ok(())
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        Ok(Box::new(FileScan::open(&self.path)?))
    }

    fn close(self: Box<Self>) -> Outcome {
        Ok(())
    }
}

impl Subject for RawReady {
    fn name(&self) -> &'static str {
        "raw-write-1MiB"
    }

    fn guarantee(&self) -> &'static str {
        "write(2) of ready buffers of 1 MiB: kill -9"
    }

    fn variants(&self, work: Work) -> Vec<Variant> {
        raw::only(matches!(work, Work::Linger | Work::Batches))
    }

    fn open(&self, setup: &Setup<'_>) -> Outcome<Box<dyn Log>> {
        let payload = setup.payload;
        let per_buffer = records_per_buffer(payload.value_len());
        let mut buffers = Vec::new();
        for number in 0..BUFFERS {
            let mut buffer = Vec::with_capacity(BUFFER_LEN);
            for value in payload.values(number * per_buffer, (number + 1) * per_buffer) {
                raw::push_frame(&mut buffer, value);
            }
            buffers.push(buffer);
        }
        let state = ReadyState { file: opened(setup.dir)?, pending: 0, written: 0 };
        Ok(Box::new(ReadyLog {
            state: Mutex::new(state),
            buffers,
            per_buffer,
            frame_len: PREFIX_LEN + payload.value_len(),
            path: raw::data_path(setup.dir),
        }))
    }

    fn period(&self, value_len: usize) -> Option<u64> {
        Some(records_per_buffer(value_len) * BUFFERS)
    }
}

struct ReadyLog {
    state: Mutex<ReadyState>,
    buffers: Vec<Vec<u8>>,
    per_buffer: u64,
    frame_len: usize,
    path: PathBuf,
}

struct ReadyState {
    file: File,
    /// Records that were asked for and not written.
    pending: u64,
    written: u64,
}

impl ReadyLog {
    fn write(&self, state: &mut ReadyState, count: u64) -> Outcome {
        let buffer = &self.buffers[((state.written / self.per_buffer) % BUFFERS) as usize];
        state.file.write_all(&buffer[..count as usize * self.frame_len])?;
        state.pending -= count;
        state.written += count;
        Ok(())
    }
}

impl Log for ReadyLog {
    fn send(&self, _value: &[u8]) -> Outcome {
        unsupported("only whole buffers")
    }

    fn append_each(&self, values: Values<'_>) -> Outcome {
        self.append_batch(values)
    }

    fn append_batch(&self, values: Values<'_>) -> Outcome {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.pending += values.len() as u64;
        while state.pending >= self.per_buffer {
            self.write(&mut state, self.per_buffer)?;
        }
        Ok(())
    }

    fn finish(&self) -> Outcome {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let count = state.pending;
        self.write(&mut state, count)
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        Ok(Box::new(FileScan::open(&self.path)?))
    }

    fn close(self: Box<Self>) -> Outcome {
        Ok(())
    }
}

impl Subject for RawMapping {
    fn name(&self) -> &'static str {
        "raw-mapping"
    }

    fn guarantee(&self) -> &'static str {
        "walking frames in a mapping, nothing checked; found through every 32nd position"
    }

    fn variants(&self, work: Work) -> Vec<Variant> {
        raw::only(matches!(work, Work::Scan | Work::Points))
    }

    fn open(&self, setup: &Setup<'_>) -> Outcome<Box<dyn Log>> {
        Ok(Box::new(MappedLog::open(setup)?))
    }
}

/// A file written in large pieces, mapped once it is written.
struct MappedLog {
    writer: Mutex<(File, Vec<u8>)>,
    path: PathBuf,
    map: std::sync::OnceLock<Mmap>,
    _payload: Arc<Payload>,
}

impl MappedLog {
    fn open(setup: &Setup<'_>) -> Outcome<MappedLog> {
        Ok(MappedLog {
            writer: Mutex::new((opened(setup.dir)?, Vec::new())),
            path: raw::data_path(setup.dir),
            map: std::sync::OnceLock::new(),
            _payload: Arc::clone(setup.payload),
        })
    }

    /// Maps the file, once.
    fn bytes(&self) -> Outcome<&[u8]> {
        if self.map.get().is_none() {
            let map = raw::mapped(&self.path)?;
            return Ok(self.map.get_or_init(|| map));
        }
        match self.map.get() {
            Some(map) => Ok(map),
            None => failed("the file is not mapped"),
        }
    }
}

impl Log for MappedLog {
    fn send(&self, value: &[u8]) -> Outcome {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, buffer) = &mut *writer;
        raw::push_frame(buffer, value);
        if buffer.len() >= BUFFER_LEN {
            file.write_all(buffer)?;
            buffer.clear();
        }
        Ok(())
    }

    fn append_batch(&self, values: Values<'_>) -> Outcome {
        self.append_each(values)
    }

    fn finish(&self) -> Outcome {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, buffer) = &mut *writer;
        file.write_all(buffer)?;
        buffer.clear();
        Ok(())
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        Ok(Box::new(MappingScan::new(self.bytes()?)))
    }

    fn points(&self) -> Outcome<Box<dyn Points + '_>> {
        if std::fs::metadata(&self.path)?.len() == 0 {
            return Ok(Box::new(MappedPoints { bytes: &[], every: Vec::new() }));
        }
        let bytes = self.bytes()?;
        let mut every = Vec::new();
        let mut left = bytes;
        let mut index = 0_u64;
        loop {
            let since_noted = index % INDEX_EVERY;
            if since_noted == 0 {
                every.push(bytes.len() - left.len());
            }
            let Some((_, rest)) = raw::split_frame(left) else { break };
            left = rest;
            index += 1;
        }
        Ok(Box::new(MappedPoints { bytes, every }))
    }

    fn close(self: Box<Self>) -> Outcome {
        Ok(())
    }
}

struct MappedPoints<'m> {
    bytes: &'m [u8],
    every: Vec<usize>,
}

impl Points for MappedPoints<'_> {
    fn read(&mut self, index: u64, touch: &mut Touch) -> Outcome {
        let at = self.every.get((index / INDEX_EVERY) as usize).copied().unwrap_or_default();
        let mut left = &self.bytes[at..];
        for _ in 0..index % INDEX_EVERY {
            left = raw::split_frame(left).map_or(&[], |(_, rest)| rest);
        }
        match raw::split_frame(left) {
            Some((value, _)) => touch.take(value),
            None => return failed(format!("there is no record {index}")),
        }
        Ok(())
    }
}

impl Subject for RawRead {
    fn name(&self) -> &'static str {
        "raw-read-1MiB"
    }

    fn guarantee(&self) -> &'static str {
        "read(2) of 1 MiB pieces in order, nothing checked"
    }

    fn variants(&self, work: Work) -> Vec<Variant> {
        raw::only(work == Work::ColdScan)
    }

    fn open(&self, setup: &Setup<'_>) -> Outcome<Box<dyn Log>> {
        Ok(Box::new(ReadLog { log: MappedLog::open(setup)? }))
    }
}

struct ReadLog {
    log: MappedLog,
}

impl Log for ReadLog {
    fn send(&self, value: &[u8]) -> Outcome {
        self.log.send(value)
    }

    fn append_batch(&self, values: Values<'_>) -> Outcome {
        self.log.append_each(values)
    }

    fn finish(&self) -> Outcome {
        self.log.finish()
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        let file = File::open(&self.log.path)?;
        Ok(Box::new(ReadScan { file, buffer: vec![0; 2 * BUFFER_LEN], kept: 0 }))
    }

    fn close(self: Box<Self>) -> Outcome {
        Ok(())
    }
}

struct ReadScan {
    file: File,
    buffer: Vec<u8>,
    /// Bytes at the front that belong to a frame whose end is not there yet.
    kept: usize,
}

impl Scan for ReadScan {
    fn next(&mut self, touch: &mut Touch) -> Outcome<bool> {
        let len = self.file.read(&mut self.buffer[self.kept..self.kept + BUFFER_LEN])?;
        let end = self.kept + len;
        let (mut sums, mut left) = (*touch, &self.buffer[..end]);
        while let Some((value, rest)) = raw::split_frame(left) {
            sums.take(value);
            left = rest;
        }
        *touch = sums;
        self.kept = left.len();
        self.buffer.copy_within(end - self.kept..end, 0);
        Ok(len > 0)
    }
}

fn records_per_buffer(value_len: usize) -> u64 {
    (BUFFER_LEN / (PREFIX_LEN + value_len)) as u64
}

const BUFFER_LEN: usize = 1 << 20;
const BUFFERS: u64 = 16;
const INDEX_EVERY: u64 = 32;
