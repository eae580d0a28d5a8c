//! SQLite: one table, write-ahead log, statements prepared once.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use rusqlite::Connection;
use rusqlite::OptionalExtension;

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

pub(crate) struct Sqlite;

struct SqliteLog {
    connection: Mutex<Connection>,
}

impl Subject for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn guarantee(&self) -> &'static str {
        "WAL, synchronous=OFF: kill -9; FULL: power loss; reading: unchecked"
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
        let connection = Connection::open(setup.dir.join("sqlite"))?;
        let synchronous = if setup.work == Work::Synced { "FULL" } else { "OFF" };
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.pragma_update(None, "mmap_size", 4_i64 << 30)?;
        connection.execute(
            "CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, value BLOB NOT NULL)",
            (),
        )?;
        Ok(Box::new(SqliteLog { connection: Mutex::new(connection) }))
    }
}

impl SqliteLog {
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for SqliteLog {
    fn send(&self, value: &[u8]) -> Outcome {
        self.lock().prepare_cached(INSERT)?.execute((value,))?;
        Ok(())
    }

    fn append_each(&self, values: Values<'_>) -> Outcome {
        let connection = self.lock();
        let mut insert = connection.prepare_cached(INSERT)?;
        for value in values {
            insert.execute((value,))?;
        }
        Ok(())
    }

    fn append_batch(&self, values: Values<'_>) -> Outcome {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            for value in values {
                insert.execute((value,))?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn send_synced(&self, value: &[u8], _thread: u32) -> Outcome {
        self.send(value)
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        Ok(Box::new(SqliteReads { log: self, next: 0 }))
    }

    fn points(&self) -> Outcome<Box<dyn Points + '_>> {
        Ok(Box::new(SqliteReads { log: self, next: 0 }))
    }

    fn close(self: Box<Self>) -> Outcome {
        let connection = self.connection.into_inner().unwrap_or_else(PoisonError::into_inner);
        connection.close().map_err(|(_, error)| error)?;
        Ok(())
    }
}

struct SqliteReads<'l> {
    log: &'l SqliteLog,
    next: i64,
}

impl Scan for SqliteReads<'_> {
    fn next(&mut self, touch: &mut Touch) -> Outcome<bool> {
        let connection = self.log.lock();
        let mut select = connection.prepare_cached(
            "SELECT id, value FROM records WHERE id > ?1 ORDER BY id LIMIT 20000",
        )?;
        let mut rows = select.query((self.next,))?;
        let mut is_more = false;
        while let Some(row) = rows.next()? {
            touch.take(row.get_ref(1)?.as_blob()?);
            self.next = row.get(0)?;
            is_more = true;
        }
        Ok(is_more)
    }
}

impl Points for SqliteReads<'_> {
    fn read(&mut self, index: u64, touch: &mut Touch) -> Outcome {
        let connection = self.log.lock();
        let mut select = connection.prepare_cached("SELECT value FROM records WHERE id = ?1")?;
        let id = i64::try_from(index)? + 1;
        let found = select.query_row((id,), |row| {
            touch.take(row.get_ref(0)?.as_blob()?);
            Ok(())
        });
        match found.optional()? {
            Some(()) => Ok(()),
            None => failed(format!("there is no record {index}")),
        }
    }
}

const INSERT: &str = "INSERT INTO records (value) VALUES (?1)";
