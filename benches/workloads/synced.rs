//! W4: appends that are waited for until they are on stable storage.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::payload::Touch;
use crate::report::Measured;
use crate::runner::Case;
use crate::runner::Cell;
use crate::runner::Runner;
use crate::subject::Outcome;
use crate::subject::Work;
use crate::subject::failed;
use crate::subject::nanos;
use crate::subject::timings;

pub(crate) fn run(runner: &mut Runner<'_>) -> Outcome {
    let millis = runner.arguments.sized(2000, 500);
    for threads in [1, 8, 64] {
        let case = Case {
            id: format!("W4.synced.{threads}"),
            title: format!("{threads} threads, each waiting for each record to be durable, 100 B"),
            work: Work::Synced,
            value_len: 100,
            records: 400_000,
            partitions: 1,
            rounds: 5,
            keeps_directory: false,
        };
        runner.run(&case, |cell| synced(cell, threads, Duration::from_millis(millis)))?;
    }
    for partitions in [1, 8] {
        let case = Case {
            id: format!("W4.commit.{partitions}"),
            title: format!(
                "one thread, one record to each of {partitions} partitions, then all durable"
            ),
            work: Work::Commit,
            value_len: 100,
            records: 100_000,
            partitions,
            rounds: 5,
            keeps_directory: false,
        };
        runner.run(&case, |cell| committed(cell, Duration::from_millis(millis)))?;
    }
    Ok(())
}

fn synced(cell: &Cell<'_>, threads: u32, duration: Duration) -> Outcome<Measured> {
    let log = cell.open()?;
    let payload = cell.setup.payload;
    let worker = |thread: u32| -> Outcome<(u64, hdrhistogram::Histogram<u64>)> {
        let mut histogram = timings()?;
        let mut done = 0;
        let begun = Instant::now();
        while begun.elapsed() < duration && done < RECORDS_PER_THREAD {
            let before = Instant::now();
            log.send_synced(payload.value(first_of(thread) + done), thread)?;
            histogram.saturating_record(nanos(before.elapsed()));
            done += 1;
        }
        Ok((done, histogram))
    };
    let worker = &worker;
    let begun = Instant::now();
    let ended: Vec<_> = thread::scope(|scope| {
        let handles: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || worker(thread))).collect();
        handles.into_iter().map(|handle| handle.join()).collect()
    });
    let seconds = begun.elapsed().as_secs_f64();
    let mut expected = Touch::default();
    let mut all = timings()?;
    for (thread, ended) in (0..threads).zip(ended) {
        let Ok(ended) = ended else { return failed("a thread panicked") };
        let (done, histogram) = ended?;
        let touch = payload.values(first_of(thread), first_of(thread) + done).touch();
        expected.count += touch.count;
        expected.sum = expected.sum.wrapping_add(touch.sum);
        all.add(&histogram)?;
    }
    let (touch, _, is_whole) = cell.read(&mut *log.scan()?)?;
    if is_whole && (touch.count, touch.sum) != (expected.count, expected.sum) {
        let (count, found) = (expected.count, touch.count);
        return failed(format!("{count} records were acknowledged, {found} came back, or others"));
    }
    log.close()?;
    let mut measured = Measured::of("records/s", expected.count as f64 / seconds);
    if !is_whole {
        measured.notes.push("not read back to the end".to_owned());
    }
    measured.add("p50 us", all.value_at_quantile(0.5) as f64 / 1000.0);
    measured.add("p99 us", all.value_at_quantile(0.99) as f64 / 1000.0);
    Ok(measured)
}

fn committed(cell: &Cell<'_>, duration: Duration) -> Outcome<Measured> {
    let log = cell.open()?;
    let payload = cell.setup.payload;
    let width = u64::from(cell.setup.partitions);
    let mut histogram = timings()?;
    let mut commits = 0;
    let begun = Instant::now();
    while begun.elapsed() < duration && commits * width < cell.setup.records {
        let before = Instant::now();
        log.commit(payload.values(commits * width, (commits + 1) * width))?;
        histogram.saturating_record(nanos(before.elapsed()));
        commits += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let expected = payload.values(0, commits * width).touch();
    let (touch, _, _) = cell.read(&mut *log.scan()?)?;
    if (touch.count, touch.sum) != (expected.count, expected.sum) {
        let (count, found) = (expected.count, touch.count);
        return failed(format!("{count} records were committed, {found} came back, or others"));
    }
    log.close()?;
    let mut measured = Measured::of("commits/s", commits as f64 / seconds);
    measured.add("p50 us", histogram.value_at_quantile(0.5) as f64 / 1000.0);
    measured.add("p99 us", histogram.value_at_quantile(0.99) as f64 / 1000.0);
    Ok(measured)
}

/// Every thread has values of its own.
fn first_of(thread: u32) -> u64 {
    u64::from(thread) << 32
}

const RECORDS_PER_THREAD: u64 = 100_000;
