//! W8: reading single records, somewhere.

use std::time::Duration;
use std::time::Instant;

use crate::payload::Touch;
use crate::report::Measured;
use crate::runner::Case;
use crate::runner::Cell;
use crate::runner::Runner;
use crate::scan;
use crate::subject::Outcome;
use crate::subject::Points;
use crate::subject::Work;
use crate::subject::failed;
use crate::subject::nanos;
use crate::subject::timings;

pub(crate) fn run(runner: &mut Runner<'_>) -> Outcome {
    let bytes = runner.arguments.sized(256 << 20, 64 << 20);
    for (id, title, value_len, batch) in [
        ("W8.points.100B", "100 B, each a batch of its own", 100, 1),
        ("W8.points.1KiB", "1 KiB, each a batch of its own", 1024, 1),
        ("W8.points.100B-batched", "100 B in batches of about 64 KiB", 100, 600),
    ] {
        let case = Case {
            id: id.to_owned(),
            title: format!("random reads by offset, {title}, {} MiB of payload", bytes >> 20),
            work: Work::Points,
            value_len,
            records: bytes / value_len as u64,
            partitions: 1,
            rounds: 5,
            keeps_directory: true,
        };
        runner.run(&case, |cell| points(cell, batch))?;
    }
    Ok(())
}

fn points(cell: &Cell<'_>, batch: u64) -> Outcome<Measured> {
    let log = cell.open()?;
    let mut measured = Measured::default();
    if cell.round == 0 {
        // Asked first: a subject that has no random reads need not be filled.
        drop(log.points()?);
        cell.note_filled(scan::filled(cell, &*log, batch)?)?;
    }
    let count = cell.filled(&mut measured)?;
    // Also brings the pages in.
    let (touch, _, is_whole) = cell.read(&mut *log.scan()?)?;
    if (is_whole && touch.count != count) || count == 0 {
        return failed(format!("{count} records were appended, {} came back", touch.count));
    }
    let mut points = log.points()?;
    let reads = READS;
    let (done, seconds) = read_some(cell, &mut *points, count, reads, None)?;
    measured.add("reads/s", done as f64 / seconds);
    let mut histogram = timings()?;
    read_some(cell, &mut *points, count, reads / 4, Some(&mut histogram))?;
    measured.add("p99 us", histogram.value_at_quantile(0.99) as f64 / 1000.0);
    drop(points);
    log.close()?;
    Ok(measured)
}

fn read_some(
    cell: &Cell<'_>,
    points: &mut dyn Points,
    count: u64,
    reads: u64,
    mut timings: Option<&mut hdrhistogram::Histogram<u64>>,
) -> Outcome<(u64, f64)> {
    let patience = cell.patience.min(READS_TIME_MAX);
    let mut state = cell.seed ^ cell.round as u64;
    let mut expected = Touch::default();
    let mut touch = Touch::default();
    let (mut done, mut seconds) = (0, 0.0);
    let started = Instant::now();
    while done < reads && started.elapsed() < patience {
        let indexes: Vec<u64> = (0..READS_PER_PIECE.min(reads - done))
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 20) % count
            })
            .collect();
        let begun = Instant::now();
        for index in &indexes {
            match timings.as_deref_mut() {
                None => points.read(*index, &mut touch)?,
                Some(timings) => {
                    let before = Instant::now();
                    points.read(*index, &mut touch)?;
                    timings.saturating_record(nanos(before.elapsed()));
                }
            }
        }
        seconds += begun.elapsed().as_secs_f64();
        done += indexes.len() as u64;
        // Outside the time: what should have come.
        for index in indexes {
            for value in cell.values(index, index + 1) {
                expected.take(value);
            }
        }
    }
    if touch != expected {
        return failed("a read gave another record than the one asked for");
    }
    Ok((done, seconds))
}

const READS: u64 = 400_000;
const READS_TIME_MAX: Duration = Duration::from_secs(2);
const READS_PER_PIECE: u64 = 2_000;
