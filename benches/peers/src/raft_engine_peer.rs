//! raft-engine: TiKV's log, entries with consecutive indexes in regions, a write queue with group commit.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use protobuf::descriptor::UninterpretedOption;
use raft_engine::Config;
use raft_engine::Engine;
use raft_engine::LogBatch;
use raft_engine::MessageExt;
use raft_engine::ReadableSize;

use crate::payload::Touch;
use crate::payload::Values;
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

pub(crate) struct RaftEngine;

/// A message with a number and bytes, as a Raft entry is one.
struct Entries;

impl MessageExt for Entries {
    type Entry = UninterpretedOption;

    fn index(entry: &UninterpretedOption) -> u64 {
        entry.get_positive_int_value()
    }
}

struct RaftLog {
    engine: Engine,
    /// The next index of each region.
    next: Vec<Mutex<u64>>,
}

impl Subject for RaftEngine {
    fn name(&self) -> &'static str {
        "raft-engine"
    }

    fn guarantee(&self) -> &'static str {
        "write: kill -9; write with sync: power loss; reading: CRC-32 of each batch when opened"
    }

    fn variants(&self, work: Work) -> Vec<Variant> {
        match work {
            Work::Linger | Work::Commit => vec![],
            _ => vec![Variant::PLAIN],
        }
    }

    fn open(&self, setup: &Setup<'_>) -> Outcome<Box<dyn Log>> {
        if setup.work == Work::Tail {
            return unsupported("has nothing to wait for a record with");
        }
        let config = Config {
            dir: setup.dir.to_string_lossy().into_owned(),
            // Random bytes do not compress.
            batch_compression_threshold: ReadableSize(0),
            purge_threshold: ReadableSize::gb(100),
            ..Config::default()
        };
        let engine = Engine::open(config)?;
        // Where threads wait for syncs each has a region, as in TiKV.
        let regions = if setup.work == Work::Synced { 64 } else { 1 };
        let next = (0..regions)
            .map(|region| Mutex::new(engine.last_index(region + 1).map_or(1, |last| last + 1)))
            .collect();
        Ok(Box::new(RaftLog { engine, next }))
    }
}

impl RaftLog {
    fn next_of(&self, thread: u32) -> (u64, MutexGuard<'_, u64>) {
        let region = thread as usize % self.next.len();
        let next = self.next[region].lock().unwrap_or_else(PoisonError::into_inner);
        (region as u64 + 1, next)
    }

    fn write<'v>(
        &self,
        values: impl ExactSizeIterator<Item = &'v [u8]>,
        thread: u32,
        is_synced: bool,
    ) -> Outcome {
        let (region, mut next) = self.next_of(thread);
        let mut entries = Vec::with_capacity(values.len());
        for value in values {
            let mut entry = UninterpretedOption::new();
            entry.set_positive_int_value(*next);
            entry.set_string_value(value.to_vec());
            entries.push(entry);
            *next += 1;
        }
        let mut batch = LogBatch::with_capacity(entries.len());
        batch.add_entries::<Entries>(region, &entries)?;
        self.engine.write(&mut batch, is_synced)?;
        Ok(())
    }
}

impl Log for RaftLog {
    fn send(&self, value: &[u8]) -> Outcome {
        self.write(std::iter::once(value), 0, false)
    }

    fn append_batch(&self, values: Values<'_>) -> Outcome {
        self.write(values, 0, false)
    }

    fn send_synced(&self, value: &[u8], thread: u32) -> Outcome {
        self.write(std::iter::once(value), thread, true)
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        Ok(Box::new(RaftScan { log: self, region: 1, next: 1, entries: Vec::new() }))
    }

    fn points(&self) -> Outcome<Box<dyn Points + '_>> {
        Ok(Box::new(RaftScan { log: self, region: 1, next: 1, entries: Vec::new() }))
    }

    fn close(self: Box<Self>) -> Outcome {
        self.engine.sync()?;
        Ok(())
    }
}

struct RaftScan<'l> {
    log: &'l RaftLog,
    region: u64,
    next: u64,
    entries: Vec<UninterpretedOption>,
}

impl Scan for RaftScan<'_> {
    fn next(&mut self, touch: &mut Touch) -> Outcome<bool> {
        let engine = &self.log.engine;
        let end = engine.last_index(self.region).map_or(1, |last| last + 1);
        if self.next >= end {
            (self.region, self.next) = (self.region + 1, 1);
            return Ok(self.region <= self.log.next.len() as u64);
        }
        self.entries.clear();
        let end = end.min(self.next + PIECE_RECORDS);
        engine.fetch_entries_to::<Entries>(self.region, self.next, end, None, &mut self.entries)?;
        for entry in &self.entries {
            touch.take(entry.get_string_value());
        }
        self.next = end;
        Ok(true)
    }
}

impl Points for RaftScan<'_> {
    fn read(&mut self, index: u64, touch: &mut Touch) -> Outcome {
        match self.log.engine.get_entry::<Entries>(1, index + 1)? {
            Some(entry) => touch.take(entry.get_string_value()),
            None => return failed(format!("there is no record {index}")),
        }
        Ok(())
    }
}

const PIECE_RECORDS: u64 = 1000;
