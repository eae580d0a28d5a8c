//! mrecordlog: many queues in one log, all of which is in memory; here for reading.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use mrecordlog::MultiRecordLog;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;

use crate::payload::Touch;
use crate::payload::Values;
use crate::subject::Log;
use crate::subject::Outcome;
use crate::subject::Scan;
use crate::subject::Setup;
use crate::subject::Subject;
use crate::subject::Variant;
use crate::subject::Work;

pub(crate) struct Mrecordlog;

struct MrecordlogLog {
    runtime: Runtime,
    log: Mutex<MultiRecordLog>,
}

impl Subject for Mrecordlog {
    fn name(&self) -> &'static str {
        "mrecordlog"
    }

    fn guarantee(&self) -> &'static str {
        "append: kill -9; never power loss, its sync is none; reading: from memory, checked when opened"
    }

    fn variants(&self, work: Work) -> Vec<Variant> {
        if work == Work::Scan { vec![Variant::PLAIN] } else { vec![] }
    }

    fn open(&self, setup: &Setup<'_>) -> Outcome<Box<dyn Log>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let log = runtime.block_on(async {
            let mut log = MultiRecordLog::open(setup.dir).await.map_err(failed)?;
            if !log.queue_exists(QUEUE) {
                log.create_queue(QUEUE).await.map_err(failed)?;
            }
            Outcome::Ok(log)
        })?;
        Ok(Box::new(MrecordlogLog { runtime, log: Mutex::new(log) }))
    }
}

fn failed(error: impl std::fmt::Debug) -> crate::subject::Failure {
    crate::subject::Failure::Failed(format!("{error:?}"))
}

impl MrecordlogLog {
    fn lock(&self) -> MutexGuard<'_, MultiRecordLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for MrecordlogLog {
    fn send(&self, value: &[u8]) -> Outcome {
        let mut log = self.lock();
        self.runtime.block_on(log.append_record(QUEUE, None, value)).map_err(failed)?;
        Ok(())
    }

    fn append_batch(&self, values: Values<'_>) -> Outcome {
        let mut log = self.lock();
        self.runtime.block_on(log.append_records(QUEUE, None, values)).map_err(failed)?;
        Ok(())
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        Ok(Box::new(MrecordlogScan { log: self, next: 0 }))
    }

    fn close(self: Box<Self>) -> Outcome {
        let mut log = self.lock();
        self.runtime.block_on(log.sync())?;
        Ok(())
    }
}

struct MrecordlogScan<'l> {
    log: &'l MrecordlogLog,
    next: u64,
}

impl Scan for MrecordlogScan<'_> {
    fn next(&mut self, touch: &mut Touch) -> Outcome<bool> {
        let log = self.log.lock();
        let (mut sums, mut count) = (*touch, 0);
        for (_, value) in log.range(QUEUE, self.next..).map_err(failed)?.take(PIECE_RECORDS) {
            sums.take(&value);
            count += 1;
        }
        *touch = sums;
        self.next += count;
        Ok(count > 0)
    }
}

const QUEUE: &str = "q";
const PIECE_RECORDS: usize = 10_000;
