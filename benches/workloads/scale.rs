//! W10: ten thousand partitions, and one partition of ten thousand segments.

use std::time::Duration;
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
    let count = runner.arguments.sized(10_000, 1_000);
    let case = Case {
        id: "W10.partitions".to_owned(),
        title: format!(
            "{count} partitions, a record of 100 B to each, and again; all read, before and after reopening"
        ),
        work: Work::ManyPartitions,
        value_len: 100,
        records: 2 * count,
        partitions: count as u32,
        rounds: 3,
        keeps_directory: false,
    };
    runner.run(&case, partitions)?;
    let case = Case {
        id: "W10.segments".to_owned(),
        title: format!(
            "one partition of {count} segments, one record of 900 B in each; all read, before and after reopening"
        ),
        work: Work::ManySegments,
        value_len: 900,
        records: count,
        partitions: 1,
        rounds: 3,
        keeps_directory: false,
    };
    runner.run(&case, segments)
}

fn partitions(cell: &Cell<'_>) -> Outcome<Measured> {
    let count = u64::from(cell.setup.partitions);
    let before = machine::anonymous_len()?;
    let begun = Instant::now();
    let log = cell.open()?;
    let mut measured = Measured::of("us to create each", per(count, begun.elapsed()));
    let payload = cell.setup.payload;
    for (pass, name) in [(0, "us for the first append to each"), (1, "us for the second")] {
        let begun = Instant::now();
        log.append_to_each(payload.values(pass * count, (pass + 1) * count))?;
        measured.add(name, per(count, begun.elapsed()));
    }
    let memory = machine::anonymous_len()?.saturating_sub(before);
    measured.add("KiB of memory for each", memory as f64 / 1024.0 / count as f64);
    reopened_and_read(cell, log, 2 * count, measured)
}

fn segments(cell: &Cell<'_>) -> Outcome<Measured> {
    let count = cell.setup.records;
    let log = cell.open()?;
    let before = machine::anonymous_len()?;
    let begun = Instant::now();
    log.append_each(cell.setup.payload.values(0, count))?;
    let mut measured = Measured::of("us for each, appending", per(count, begun.elapsed()));
    let memory = machine::anonymous_len()?.saturating_sub(before);
    measured.add("KiB of memory for each", memory as f64 / 1024.0 / count as f64);
    reopened_and_read(cell, log, count, measured)
}

/// Reads all, closes, opens, reads all again.
fn reopened_and_read(
    cell: &Cell<'_>,
    log: Box<dyn Log>,
    records: u64,
    mut measured: Measured,
) -> Outcome<Measured> {
    read_all(cell, &*log, records, "us for each record, read", &mut measured)?;
    let begun = Instant::now();
    log.close()?;
    measured.add("ms to close", begun.elapsed().as_secs_f64() * 1000.0);
    let begun = Instant::now();
    let log = cell.open()?;
    measured.add("ms to reopen", begun.elapsed().as_secs_f64() * 1000.0);
    read_all(cell, &*log, records, "us for each, read after reopening", &mut measured)?;
    log.close()?;
    Ok(measured)
}

fn read_all(
    cell: &Cell<'_>,
    log: &dyn Log,
    records: u64,
    name: &'static str,
    measured: &mut Measured,
) -> Outcome {
    let (touch, took, is_whole) = cell.read(&mut *log.scan()?)?;
    let expected = cell.values(0, records).touch();
    // Partitions come in any order.
    if !is_whole || (touch.count, touch.sum) != (expected.count, expected.sum) {
        return failed(format!(
            "{records} records were appended, {} came back, or others",
            touch.count
        ));
    }
    measured.add(name, per(records, took));
    Ok(())
}

fn per(count: u64, took: Duration) -> f64 {
    took.as_secs_f64() * 1e6 / count as f64
}
