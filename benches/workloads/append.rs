//! W1, W2: one thread appends, in bursts and sustained, record by record, lingering, and in batches.

use crate::report::Measured;
use crate::runner::Case;
use crate::runner::Cell;
use crate::runner::Runner;
use crate::subject::Outcome;
use crate::subject::Work;

pub(crate) fn run(runner: &mut Runner<'_>) -> Outcome {
    let burst = runner.arguments.sized(256 << 20, 64 << 20);
    let sustained = runner.arguments.sized(4 << 30, 512 << 20);
    let sizes = [("100B", 100), ("1KiB", 1024)];
    for (work, id, title) in [
        (Work::Inline, "W1.inline", "one record per call, survives kill -9 on return"),
        (Work::Linger, "W1.linger", "one record per call, staged in user space"),
        (Work::Batches, "W2.batch", "batches of 1,000 records"),
    ] {
        for (size, value_len) in sizes {
            for (regime, bytes) in [("burst", burst), ("sustained", sustained)] {
                let is_asked_for = match work {
                    Work::Linger => value_len == 100,
                    _ => true,
                };
                if !is_asked_for {
                    continue;
                }
                let case = Case {
                    id: format!("{id}.{size}.{regime}"),
                    title: format!("{title}, {size}, {} MiB of payload", bytes >> 20),
                    work,
                    value_len,
                    records: bytes / value_len as u64,
                    partitions: 1,
                    rounds: if regime == "burst" { 5 } else { 3 },
                    keeps_directory: false,
                };
                runner.run(&case, cell)?;
            }
        }
    }
    for (size, value_len) in
        [("16B", 16), ("100B", 100), ("1KiB", 1024), ("16KiB", 16 << 10), ("64KiB", 64 << 10)]
    {
        let bytes = runner.arguments.sized(128 << 20, 32 << 20);
        let case = Case {
            id: format!("W1.sizes.{size}"),
            title: format!("one record per call, survives kill -9 on return, {size}"),
            work: Work::Inline,
            value_len,
            records: (bytes / value_len as u64).min(SMALL_RECORDS_MAX),
            partitions: 1,
            rounds: 3,
            keeps_directory: false,
        };
        runner.run(&case, cell)?;
    }
    Ok(())
}

fn cell(cell: &Cell<'_>) -> Outcome<Measured> {
    let log = cell.open()?;
    let is_batched = cell.setup.work == Work::Batches;
    let piece_len = if is_batched { BATCH_RECORDS } else { PIECE_RECORDS };
    let begun = std::time::Instant::now();
    let (count, _) = cell.append_for_a_time(piece_len, |values| {
        if is_batched { log.append_batch(values) } else { log.append_each(values) }
    })?;
    log.finish()?;
    let seconds = begun.elapsed().as_secs_f64();
    let mut measured = Measured::of("records/s", count as f64 / seconds);
    if count < cell.setup.records {
        let patience = cell.patience.as_secs();
        measured.notes.push(format!("stopped after {patience} s"));
    }
    cell.verify(&*log, count, &mut measured)?;
    log.close()?;
    Ok(measured)
}

const SMALL_RECORDS_MAX: u64 = 1_000_000;
const BATCH_RECORDS: u64 = 1000;
/// Records between two looks at the clock.
const PIECE_RECORDS: u64 = 4000;
