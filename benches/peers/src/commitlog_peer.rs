//! commitlog: segments and an index with an entry for every message, behind a mutex of ours.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use commitlog::CommitLog;
use commitlog::LogOptions;
use commitlog::ReadLimit;
use commitlog::message::MessageBuf;
use commitlog::message::MessageError;
use commitlog::message::MessageSet;
use commitlog::reader::LogSliceReader;

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

pub(crate) struct Commitlog;

struct CommitlogLog {
    log: Mutex<CommitLog>,
    checks_crcs: bool,
}

impl Subject for Commitlog {
    fn name(&self) -> &'static str {
        "commitlog"
    }

    fn guarantee(&self) -> &'static str {
        "append: kill -9; never power loss, its flush is none; reading: CRC-32C of each message by its own reader"
    }

    fn variants(&self, work: Work) -> Vec<Variant> {
        match work {
            Work::Linger | Work::Commit => vec![],
            Work::Scan => {
                vec![
                    Variant::PLAIN,
                    Variant { label: "unchecked", checks_crcs: false, ..Variant::PLAIN },
                ]
            }
            _ => vec![Variant::PLAIN],
        }
    }

    fn open(&self, setup: &Setup<'_>) -> Outcome<Box<dyn Log>> {
        match setup.work {
            Work::Synced => return unsupported("cannot make an append durable"),
            Work::Tail => {
                return unsupported("has nothing to wait for a record with");
            }
            _ => {}
        }
        let mut options = LogOptions::new(setup.dir);
        options.message_max_bytes(8 << 20);
        let log = Mutex::new(CommitLog::new(options)?);
        Ok(Box::new(CommitlogLog { log, checks_crcs: setup.variant.checks_crcs }))
    }
}

impl CommitlogLog {
    fn lock(&self) -> MutexGuard<'_, CommitLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for CommitlogLog {
    fn send(&self, value: &[u8]) -> Outcome {
        self.lock().append_msg(value)?;
        Ok(())
    }

    fn append_each(&self, values: Values<'_>) -> Outcome {
        let mut log = self.lock();
        for value in values {
            log.append_msg(value)?;
        }
        Ok(())
    }

    fn append_batch(&self, values: Values<'_>) -> Outcome {
        let mut batch: MessageBuf = values.collect();
        self.lock().append(&mut batch)?;
        Ok(())
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        Ok(Box::new(CommitlogScan { log: self, next: 0 }))
    }

    fn points(&self) -> Outcome<Box<dyn Points + '_>> {
        Ok(Box::new(CommitlogScan { log: self, next: 0 }))
    }

    fn close(self: Box<Self>) -> Outcome {
        self.lock().flush()?;
        Ok(())
    }
}

struct CommitlogScan<'l> {
    log: &'l CommitlogLog,
    next: u64,
}

/// Messages as they come from the file, without the check that [`MessageBuf`] makes.
struct Unchecked(Vec<u8>);

struct UncheckedReader;

impl MessageSet for Unchecked {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl LogSliceReader for UncheckedReader {
    type Result = Unchecked;

    fn read_from(
        &mut self,
        file: &File,
        position: u32,
        len: usize,
    ) -> Result<Unchecked, MessageError> {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, u64::from(position)).map_err(MessageError::IoError)?;
        Ok(Unchecked(bytes))
    }
}

fn taken(messages: &impl MessageSet, touch: &mut Touch) -> u64 {
    let (mut sums, mut count) = (*touch, 0);
    for message in messages.iter() {
        sums.take(message.payload());
        count += 1;
    }
    *touch = sums;
    count
}

impl Scan for CommitlogScan<'_> {
    fn next(&mut self, touch: &mut Touch) -> Outcome<bool> {
        let log = self.log.lock();
        let limit = ReadLimit::max_bytes(SCAN_LEN);
        let count = if self.log.checks_crcs {
            taken(&log.read(self.next, limit)?, touch)
        } else {
            match log.reader(&mut UncheckedReader, self.next, limit)? {
                Some(messages) => taken(&messages, touch),
                None => 0,
            }
        };
        self.next += count;
        Ok(count > 0)
    }
}

impl Points for CommitlogScan<'_> {
    fn read(&mut self, index: u64, touch: &mut Touch) -> Outcome {
        let messages = self.log.lock().read(index, ReadLimit::max_bytes(POINT_LEN))?;
        match messages.iter().next() {
            Some(message) if message.offset() == index => touch.take(message.payload()),
            _ => return failed(format!("there is no record {index}")),
        }
        Ok(())
    }
}

/// As much as stays in a cache of the processor.
const SCAN_LEN: usize = 256 << 10;
/// One message of 1 KiB with its header.
const POINT_LEN: usize = 1100;
