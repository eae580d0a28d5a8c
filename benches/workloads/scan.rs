//! W5: reading a log from its beginning, from memory and from the disk.

use std::time::Instant;

use crate::machine;
use crate::report::Measured;
use crate::runner::Case;
use crate::runner::Cell;
use crate::runner::Runner;
use crate::subject::Log;
use crate::subject::Outcome;
use crate::subject::Work;
use crate::subject::failed;

pub(crate) fn run(runner: &mut Runner<'_>) -> Outcome {
    let bytes = runner.arguments.sized(256 << 20, 64 << 20);
    let bytes_1k = runner.arguments.sized(768 << 20, 128 << 20);
    for (id, title, value_len, bytes, batch) in [
        ("W5.warm.100B", "100 B in batches of about 64 KiB", 100, bytes, 600),
        ("W5.warm.1KiB", "1 KiB in batches of about 64 KiB", 1024, bytes_1k, 62),
        ("W5.warm.100B-single", "100 B, each record a batch of its own", 100, bytes, 1),
    ] {
        let case = Case {
            id: id.to_owned(),
            title: format!("warm scan, {title}, {} MiB of payload, all of it summed", bytes >> 20),
            work: Work::Scan,
            value_len,
            records: bytes / value_len as u64,
            partitions: 1,
            rounds: 5,
            keeps_directory: false,
        };
        runner.run(&case, |cell| warm(cell, batch))?;
    }
    for (id, title, value_len, batch) in [
        ("W5.cold.100B", "100 B in batches of about 64 KiB", 100, 600),
        ("W5.cold.1KiB", "1 KiB in batches of about 64 KiB", 1024, 62),
    ] {
        let case = Case {
            id: id.to_owned(),
            title: format!("scan after the page cache was dropped, {title}; bytes of files"),
            work: Work::ColdScan,
            value_len,
            records: bytes_1k / value_len as u64,
            partitions: 1,
            rounds: 5,
            keeps_directory: true,
        };
        runner.run(&case, |cell| cold(cell, batch))?;
    }
    Ok(())
}

/// Writes, scans what was just written, reopens, scans twice.
fn warm(cell: &Cell<'_>, batch: u64) -> Outcome<Measured> {
    let log = cell.open()?;
    let count = filled(cell, &*log, batch)?;
    let mut measured = Measured::default();
    scanned(cell, &*log, count, "records/s, by its writer", &mut measured)?;
    log.close()?;
    let log = cell.open()?;
    scanned(cell, &*log, count, "records/s, first after reopening", &mut measured)?;
    scanned(cell, &*log, count, "records/s, again", &mut measured)?;
    log.close()?;
    Ok(measured)
}

/// Appends the case's records in the quickest way the subject has.
pub(crate) fn filled(cell: &Cell<'_>, log: &dyn Log, batch: u64) -> Outcome<u64> {
    let is_single = batch == 1;
    let piece_len = if is_single { SINGLE_PIECE_RECORDS } else { batch };
    let (count, _) = cell.append_for_a_time(piece_len, |values| {
        if is_single {
            return log.append_each(values);
        }
        match log.append_batch(values.clone()) {
            Err(crate::subject::Failure::Unsupported(_)) => log.append_each(values),
            ended => ended,
        }
    })?;
    log.finish()?;
    Ok(count)
}

fn scanned(
    cell: &Cell<'_>,
    log: &dyn Log,
    count: u64,
    name: &'static str,
    measured: &mut Measured,
) -> Outcome {
    let mut scan = log.scan()?;
    let (touch, took, is_whole) = cell.read(&mut *scan)?;
    if is_whole && touch.count != count {
        return failed(format!("{count} records were appended, {} came back", touch.count));
    }
    if touch != cell.values(0, touch.count).touch() {
        return failed("what came back is not what was appended");
    }
    if !is_whole {
        let patience = cell.patience.as_secs();
        measured.notes.push(format!("a scan was stopped after {patience} s"));
    }
    measured.add(name, touch.count as f64 / took.as_secs_f64());
    Ok(())
}

fn cold(cell: &Cell<'_>, batch: u64) -> Outcome<Measured> {
    if cell.round == 0 {
        let log = cell.open()?;
        let count = filled(cell, &*log, batch)?;
        log.close()?;
        cell.note_filled(count)?;
    }
    let mut measured = Measured::default();
    let count = cell.filled(&mut measured)?;
    machine::drop_from_cache(cell.setup.dir)?;
    let len = machine::files_len(cell.setup.dir)?;
    let begun = Instant::now();
    let log = cell.open()?;
    let mut scan = log.scan()?;
    let (touch, _, is_whole) = cell.read(&mut *scan)?;
    let seconds = begun.elapsed().as_secs_f64();
    drop(scan);
    log.close()?;
    if touch != cell.values(0, touch.count).touch() {
        return failed("what came back is not what was appended");
    }
    if is_whole && touch.count != count {
        return failed(format!("{count} records were appended, {} came back", touch.count));
    }
    if !is_whole {
        let patience = cell.patience.as_secs();
        measured.notes.push(format!("stopped after {patience} s"));
    }
    if is_whole {
        measured.add("GB/s of files", len as f64 / seconds / 1e9);
    }
    measured.add("records/s", touch.count as f64 / seconds);
    Ok(measured)
}

const SINGLE_PIECE_RECORDS: u64 = 4000;
