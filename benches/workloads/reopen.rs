//! W7: from opening a directory to the first append it takes, after a clean close and after `kill -9`.

use std::time::Duration;
use std::time::Instant;

use crate::child;
use crate::machine;
use crate::report::Measured;
use crate::runner::Case;
use crate::runner::Cell;
use crate::runner::Runner;
use crate::scan;
use crate::subject::Outcome;
use crate::subject::Work;
use crate::subject::failed;

pub(crate) fn run(runner: &mut Runner<'_>) -> Outcome {
    let large = runner.arguments.sized(1 << 30, 128 << 20);
    for (id, bytes) in [("16MiB", 16 << 20), ("large", large)] {
        let case = Case {
            id: format!("W7.clean.{id}"),
            title: format!(
                "reopening {} MiB of 1 KiB records after a clean close, warm",
                bytes >> 20
            ),
            work: Work::Reopen,
            value_len: 1024,
            records: bytes / 1024,
            partitions: 1,
            rounds: 11,
            keeps_directory: true,
        };
        runner.run(&case, after_close)?;
    }
    for (id, bytes) in [("100B", 256 << 20), ("1KiB", 512 << 20)] {
        let value_len = if id == "100B" { 100 } else { 1024 };
        let bytes = if runner.arguments.is_quick { bytes / 8 } else { bytes };
        let case = Case {
            id: format!("W7.killed.{id}"),
            title: format!(
                "reopening after kill -9 in the midst of appends, {} MiB of {id}",
                bytes >> 20
            ),
            work: Work::Kill,
            value_len,
            records: bytes / value_len as u64,
            partitions: 1,
            rounds: 5,
            keeps_directory: false,
        };
        runner.run(&case, after_kill)?;
    }
    Ok(())
}

fn after_close(cell: &Cell<'_>) -> Outcome<Measured> {
    if cell.round == 0 {
        let log = cell.open()?;
        let filled = scan::filled(cell, &*log, BATCH_RECORDS)?;
        log.close()?;
        cell.note_filled(filled)?;
    }
    let mut measured = Measured::default();
    let filled = cell.filled(&mut measured)?;
    let values = cell.setup.payload;
    let begun = Instant::now();
    let log = cell.open()?;
    log.send(values.value(filled + cell.round as u64))?;
    let took = begun.elapsed();
    measured.add("ms", took.as_secs_f64() * 1000.0);
    log.finish()?;
    if cell.is_last_round {
        let (touch, _, is_whole) = cell.read(&mut *log.scan()?)?;
        let expected = filled + cell.round as u64 + 1;
        if is_whole && touch.count != expected {
            return failed(format!("{expected} records were appended, {} came back", touch.count));
        }
        if touch != cell.values(0, touch.count).touch() {
            return failed("what came back is not what was appended");
        }
    }
    log.close()?;
    Ok(measured)
}

fn after_kill(cell: &Cell<'_>) -> Outcome<Measured> {
    let acknowledged = child::appended_and_killed(cell)?;
    let recovery_point = cell.subject.recovery_point(cell.setup.dir);
    let begun = Instant::now();
    let log = cell.open()?;
    log.send(cell.setup.payload.value(MARKER))?;
    let took = begun.elapsed();
    log.finish()?;
    let mut measured = Measured::of("ms", took.as_secs_f64() * 1000.0);
    let (touch, _, is_whole) = cell.read(&mut *log.scan()?)?;
    log.close()?;
    if touch.count == 0 {
        return failed("not even the record appended after the restart came back");
    }
    // The last one was appended after the restart.
    let found = touch.count - 1;
    if is_whole {
        let mut expected = cell.values(0, found).touch();
        expected.take(cell.setup.payload.value(MARKER));
        if touch != expected {
            return failed("what came back is not what was appended before the kill");
        }
        measured.add("lost of the acknowledged", acknowledged.saturating_sub(found) as f64);
    } else {
        measured.notes.push("not read back to the end".to_owned());
    }
    if let Some(recovery_point) = recovery_point {
        let len = machine::files_len_of(cell.setup.dir, ".log")? as f64;
        let behind = len * found.saturating_sub(recovery_point) as f64 / touch.count as f64;
        measured.add("MiB behind the recovery point", behind / f64::from(1 << 20));
        measured.add("GB/s of them", behind / took.as_secs_f64() / 1e9);
    }
    Ok(measured)
}

const BATCH_RECORDS: u64 = 62;
/// The number of a value that no child appends.
const MARKER: u64 = 1 << 60;
/// How long a child may take to get to work.
pub(crate) const CHILD_PATIENCE: Duration = Duration::from_secs(60);
