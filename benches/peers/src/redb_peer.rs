//! redb: a copy-on-write tree; records under consecutive numbers.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use redb::Database;
use redb::Durability;
use redb::ReadOnlyTable;
use redb::ReadableDatabase;
use redb::ReadableTable;
use redb::TableDefinition;

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

pub(crate) struct Redb;

struct RedbLog {
    database: Database,
    next: AtomicU64,
}

impl Subject for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn guarantee(&self) -> &'static str {
        "commit with Durability::None: nothing until a later durable one; Immediate: power loss; reading: unchecked"
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
        let database = Database::create(setup.dir.join("redb"))?;
        let transaction = database.begin_write()?;
        transaction.open_table(RECORDS)?;
        transaction.commit()?;
        let next = {
            let table = database.begin_read()?.open_table(RECORDS)?;
            table.last()?.map_or(0, |(key, _)| key.value() + 1)
        };
        Ok(Box::new(RedbLog { database, next: AtomicU64::new(next) }))
    }
}

impl RedbLog {
    fn write<'v>(&self, values: impl Iterator<Item = &'v [u8]>, durability: Durability) -> Outcome {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(durability)?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            for value in values {
                // Relaxed: one transaction at a time.
                table.insert(self.next.fetch_add(1, Ordering::Relaxed), value)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Log for RedbLog {
    fn send(&self, value: &[u8]) -> Outcome {
        self.write(std::iter::once(value), Durability::None)
    }

    fn append_batch(&self, values: Values<'_>) -> Outcome {
        self.write(values, Durability::None)
    }

    fn send_synced(&self, value: &[u8], _thread: u32) -> Outcome {
        self.write(std::iter::once(value), Durability::Immediate)
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        Ok(Box::new(RedbScan { table, next: 0 }))
    }

    fn points(&self) -> Outcome<Box<dyn Points + '_>> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        Ok(Box::new(RedbScan { table, next: 0 }))
    }

    fn close(self: Box<Self>) -> Outcome {
        self.write(std::iter::empty(), Durability::Immediate)
    }
}

struct RedbScan {
    table: ReadOnlyTable<u64, &'static [u8]>,
    next: u64,
}

impl Scan for RedbScan {
    fn next(&mut self, touch: &mut Touch) -> Outcome<bool> {
        let mut count = 0;
        for entry in self.table.range(self.next..)?.take(PIECE_RECORDS) {
            touch.take(entry?.1.value());
            count += 1;
        }
        self.next += count;
        Ok(count > 0)
    }
}

impl Points for RedbScan {
    fn read(&mut self, index: u64, touch: &mut Touch) -> Outcome {
        match self.table.get(index)? {
            Some(value) => touch.take(value.value()),
            None => return failed(format!("there is no record {index}")),
        }
        Ok(())
    }
}

const RECORDS: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("records");
const PIECE_RECORDS: usize = 10_000;
