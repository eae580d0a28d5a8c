//! fjall: a log-structured tree; records under consecutive numbers, nothing compressed.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use fjall::Database;
use fjall::Keyspace;
use fjall::KeyspaceCreateOptions;
use fjall::PersistMode;
use fjall::config::CompressionPolicy;

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

pub(crate) struct Fjall;

struct FjallLog {
    database: Database,
    records: Keyspace,
    next: AtomicU64,
}

impl Subject for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn guarantee(&self) -> &'static str {
        "insert: kill -9; persist(SyncData): power loss; reading: checksum of each block from the disk"
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
        let database = Database::builder(setup.dir).open()?;
        let records = database.keyspace("records", || {
            KeyspaceCreateOptions::default()
                .data_block_compression_policy(CompressionPolicy::disabled())
        })?;
        let next = match records.last_key_value() {
            Some(last) => u64::from_be_bytes(last.key()?.as_ref().try_into()?) + 1,
            None => 0,
        };
        Ok(Box::new(FjallLog { database, records, next: AtomicU64::new(next) }))
    }
}

impl Log for FjallLog {
    fn send(&self, value: &[u8]) -> Outcome {
        // Relaxed: the number only has to be another one than all others.
        let key = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        self.records.insert(key, value)?;
        Ok(())
    }

    fn append_batch(&self, values: Values<'_>) -> Outcome {
        let mut batch = self.database.batch();
        for value in values {
            let key = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            batch.insert(&self.records, key, value);
        }
        batch.commit()?;
        Ok(())
    }

    fn send_synced(&self, value: &[u8], _thread: u32) -> Outcome {
        self.send(value)?;
        self.database.persist(PersistMode::SyncData)?;
        Ok(())
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        Ok(Box::new(FjallScan { iter: self.records.iter() }))
    }

    fn points(&self) -> Outcome<Box<dyn Points + '_>> {
        Ok(Box::new(FjallPoints { records: &self.records }))
    }

    fn close(self: Box<Self>) -> Outcome {
        self.database.persist(PersistMode::SyncAll)?;
        Ok(())
    }
}

struct FjallScan {
    iter: fjall::Iter,
}

impl Scan for FjallScan {
    fn next(&mut self, touch: &mut Touch) -> Outcome<bool> {
        for _ in 0..PIECE_RECORDS {
            match self.iter.next() {
                Some(entry) => touch.take(&entry.value()?),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

struct FjallPoints<'l> {
    records: &'l Keyspace,
}

impl Points for FjallPoints<'_> {
    fn read(&mut self, index: u64, touch: &mut Touch) -> Outcome {
        match self.records.get(index.to_be_bytes())? {
            Some(value) => touch.take(&value),
            None => return failed(format!("there is no record {index}")),
        }
        Ok(())
    }
}

const PIECE_RECORDS: usize = 4096;
