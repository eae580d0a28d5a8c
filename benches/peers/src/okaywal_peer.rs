//! okaywal: every commit is durable, one sync for all who wait; it is read when it is recovered.

use std::io;
use std::io::Read;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use okaywal::Configuration;
use okaywal::Entry;
use okaywal::EntryId;
use okaywal::LogManager;
use okaywal::LogPosition;
use okaywal::SegmentReader;
use okaywal::WriteAheadLog;

use crate::payload::Touch;
use crate::subject::Log;
use crate::subject::Outcome;
use crate::subject::Scan;
use crate::subject::Setup;
use crate::subject::Subject;
use crate::subject::Variant;
use crate::subject::Work;
use crate::subject::unsupported;

pub(crate) struct Okaywal;

struct OkaywalLog {
    log: WriteAheadLog,
    positions: Mutex<Vec<LogPosition>>,
    recovered: Arc<Mutex<Vec<Vec<u8>>>>,
}

#[derive(Debug)]
struct Manager {
    recovered: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl LogManager for Manager {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        if let Some(chunks) = entry.read_all_chunks()? {
            locked(&self.recovered).extend(chunks);
        }
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _last: EntryId,
        _entries: &mut SegmentReader,
        _log: &WriteAheadLog,
    ) -> io::Result<()> {
        Ok(())
    }
}

impl Subject for Okaywal {
    fn name(&self) -> &'static str {
        "okaywal"
    }

    fn guarantee(&self) -> &'static str {
        "commit: power loss, always; reading: CRC-32C of each chunk"
    }

    fn variants(&self, work: Work) -> Vec<Variant> {
        match work {
            Work::Linger | Work::Commit | Work::ColdScan | Work::Resources => vec![],
            _ => vec![Variant::PLAIN],
        }
    }

    fn open(&self, setup: &Setup<'_>) -> Outcome<Box<dyn Log>> {
        match setup.work {
            Work::Synced | Work::Kill => {}
            Work::Inline | Work::Batches | Work::Threads => {
                return unsupported("every commit is a sync");
            }
            Work::Tail => {
                return unsupported("has nothing to wait for a record with");
            }
            _ => return unsupported("is read when it is recovered, and then let go"),
        }
        let recovered = Arc::new(Mutex::new(Vec::new()));
        let log = Configuration::default_for(setup.dir)
            .preallocate_bytes(SEGMENT_LEN)
            // Before the segment is full; what was checkpointed is gone.
            .checkpoint_after_bytes(u64::from(SEGMENT_LEN - (1 << 20)))
            .open(Manager { recovered: Arc::clone(&recovered) })?;
        Ok(Box::new(OkaywalLog { log, positions: Mutex::default(), recovered }))
    }
}

impl Log for OkaywalLog {
    fn send(&self, value: &[u8]) -> Outcome {
        let mut entry = self.log.begin_entry()?;
        let chunk = entry.write_chunk(value)?;
        entry.commit()?;
        locked(&self.positions).push(chunk.position);
        Ok(())
    }

    fn send_synced(&self, value: &[u8], _thread: u32) -> Outcome {
        self.send(value)
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        Ok(Box::new(OkaywalScan { log: self, is_begun: false }))
    }

    fn close(self: Box<Self>) -> Outcome {
        self.log.shutdown()?;
        Ok(())
    }
}

/// What was recovered, then what was appended since.
struct OkaywalScan<'l> {
    log: &'l OkaywalLog,
    is_begun: bool,
}

impl Scan for OkaywalScan<'_> {
    fn next(&mut self, touch: &mut Touch) -> Outcome<bool> {
        if self.is_begun {
            return Ok(false);
        }
        self.is_begun = true;
        for value in &*locked(&self.log.recovered) {
            touch.take(value);
        }
        let mut value = Vec::new();
        for position in &*locked(&self.log.positions) {
            value.clear();
            self.log.log.read_at(*position)?.read_to_end(&mut value)?;
            touch.take(&value);
        }
        Ok(true)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Enough for everything that a cell appends.
const SEGMENT_LEN: u32 = 128 << 20;
