//! W3: several threads append to one partition, record by record.

use std::fs;
use std::thread;
use std::time::Instant;

use crate::payload::Touch;
use crate::report::Measured;
use crate::runner::Case;
use crate::runner::Cell;
use crate::runner::Runner;
use crate::subject::Outcome;
use crate::subject::Work;
use crate::subject::failed;
use crate::subject::timings;

pub(crate) fn run(runner: &mut Runner<'_>) -> Outcome {
    let case = Case {
        id: "W3.threads.100B".to_owned(),
        title: "threads appending to one partition, one record per call, 100 B; times of a send"
            .to_owned(),
        work: Work::Threads,
        value_len: 100,
        records: runner.arguments.sized(4_000_000, 500_000),
        partitions: 1,
        rounds: 5,
        keeps_directory: false,
    };
    runner.run(&case, cell)
}

fn cell(cell: &Cell<'_>) -> Outcome<Measured> {
    let mut measured = Measured::default();
    for (threads, rate, p99) in [
        (1, "records/s, 1 thread", "p99 us, 1 thread"),
        (2, "records/s, 2 threads", "p99 us, 2 threads"),
        (4, "records/s, 4 threads", "p99 us, 4 threads"),
        (8, "records/s, 8 threads", "p99 us, 8 threads"),
    ] {
        let (per_second, notes) = rate_of(cell, threads)?;
        measured.add(rate, per_second);
        measured.notes.extend(notes);
        measured.add(p99, p99_of(cell, threads)?);
    }
    Ok(measured)
}

/// Appends as fast as it goes, without looking at the clock.
fn rate_of(cell: &Cell<'_>, threads: u64) -> Outcome<(f64, Option<String>)> {
    let dir = cell.setup.dir.join(format!("rate-{threads}"));
    let (count, seconds, is_read_back) = appended(cell, &dir, threads, None)?;
    let note = || format!("{threads} threads: not read back to the end");
    Ok((count as f64 / seconds, (!is_read_back).then(note)))
}

fn p99_of(cell: &Cell<'_>, threads: u64) -> Outcome<f64> {
    let dir = cell.setup.dir.join(format!("times-{threads}"));
    let mut histogram = timings()?;
    appended(cell, &dir, threads, Some(&mut histogram))?;
    Ok(histogram.value_at_quantile(0.99) as f64 / 1000.0)
}

fn appended(
    cell: &Cell<'_>,
    dir: &std::path::Path,
    threads: u64,
    timed: Option<&mut hdrhistogram::Histogram<u64>>,
) -> Outcome<(u64, f64, bool)> {
    fs::create_dir_all(dir)?;
    let setup = cell.setup_in(dir);
    let log = cell.subject.open(&setup)?;
    let payload = cell.setup.payload;
    let per_thread = cell.setup.records / threads;
    // A cell opens eight logs.
    let patience = cell.patience / 8;
    let is_timed = timed.is_some();
    let begun = Instant::now();
    let worker = |thread: u64| -> Outcome<(u64, hdrhistogram::Histogram<u64>)> {
        let mut histogram = timings()?;
        let first = thread * per_thread;
        let mut done = 0;
        while done < per_thread && begun.elapsed() < patience {
            let end = (done + PIECE_RECORDS).min(per_thread);
            let values = payload.values(first + done, first + end);
            log.append_shared(values, is_timed.then_some(&mut histogram))?;
            done = end;
        }
        Ok((done, histogram))
    };
    let worker = &worker;
    let ended: Vec<_> = thread::scope(|scope| {
        let handles: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || worker(thread))).collect();
        handles.into_iter().map(|handle| handle.join()).collect()
    });
    let seconds = begun.elapsed().as_secs_f64();
    log.finish()?;
    let mut expected = Touch::default();
    let mut all = timings()?;
    for (thread, ended) in (0..threads).zip(ended) {
        let Ok(ended) = ended else { return failed("a thread panicked") };
        let (done, histogram) = ended?;
        let first = thread * per_thread;
        let touch = payload.values(first, first + done).touch();
        expected.count += touch.count;
        expected.sum = expected.sum.wrapping_add(touch.sum);
        all.add(&histogram)?;
    }
    if let Some(timed) = timed {
        timed.add(&all)?;
    }
    let (touch, _, is_whole) = cell.read(&mut *log.scan()?)?;
    if is_whole && (touch.count, touch.sum) != (expected.count, expected.sum) {
        let (count, found) = (expected.count, touch.count);
        return failed(format!(
            "{count} records of {threads} threads, {found} came back, or others"
        ));
    }
    log.close()?;
    fs::remove_dir_all(dir)?;
    Ok((expected.count, seconds, is_whole))
}

const PIECE_RECORDS: u64 = 1000;
