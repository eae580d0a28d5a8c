//! W6: from the call that appends a record to the consumer that has it.

use std::hint;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use hdrhistogram::Histogram;

use crate::report::Measured;
use crate::runner::Case;
use crate::runner::Cell;
use crate::runner::Runner;
use crate::subject::Failure;
use crate::subject::Outcome;
use crate::subject::Work;
use crate::subject::failed;
use crate::subject::nanos;
use crate::subject::timings;

pub(crate) fn run(runner: &mut Runner<'_>) -> Outcome {
    let seconds = runner.arguments.sized(2, 1);
    for (id, rate) in [("10k", 10_000), ("100k", 100_000)] {
        let case = Case {
            id: format!("W6.latency.{id}"),
            title: format!("producer to waiting consumer, 100 B, {rate} a second, microseconds"),
            work: Work::Tail,
            value_len: 100,
            records: rate * seconds,
            partitions: 1,
            rounds: 5,
            keeps_directory: false,
        };
        runner.run(&case, |cell| latency(cell, rate))?;
    }
    Ok(())
}

fn latency(cell: &Cell<'_>, rate: u64) -> Outcome<Measured> {
    let log = cell.open()?;
    let mut tail = log.tail()?;
    let payload = cell.setup.payload;
    let records = cell.setup.records;
    let interval = Duration::from_nanos(1_000_000_000 / rate);
    let epoch = Instant::now();
    let produce = || -> Outcome<(u64, f64)> {
        // The consumer comes to rest first.
        thread::sleep(Duration::from_millis(20));
        let mut value = payload.value(0).to_vec();
        let mut late = 0;
        let begun = Instant::now();
        for index in 0..records {
            let due = interval * u32::try_from(index)?;
            let mut is_early = false;
            while begun.elapsed() < due {
                is_early = true;
                hint::spin_loop();
            }
            late += u64::from(!is_early);
            value.copy_from_slice(payload.value(index));
            value[..8].copy_from_slice(&nanos(epoch.elapsed()).to_le_bytes());
            log.send(&value)?;
        }
        Ok((late, begun.elapsed().as_secs_f64()))
    };
    let mut consume = || -> Outcome<Histogram<u64>> {
        let mut histogram = timings()?;
        let mut next = 0;
        let mut wrong = None;
        while next < records && wrong.is_none() {
            let mut each = |value: &[u8]| {
                let now = nanos(epoch.elapsed());
                let expected = payload.value(next);
                match value.split_first_chunk::<8>() {
                    Some((stamp, rest)) if rest == &expected[8..] => {
                        histogram.saturating_record(now.saturating_sub(u64::from_le_bytes(*stamp)));
                    }
                    _ => wrong = Some(next),
                }
                next += 1;
            };
            tail.receive(&mut each)?;
        }
        match wrong {
            Some(index) => failed(format!("record {index} is not the one that was sent")),
            None => Ok(histogram),
        }
    };
    let (produced, consumed) = thread::scope(|scope| {
        let producer = scope.spawn(produce);
        let consumed = consume();
        (producer.join(), consumed)
    });
    let Ok(produced) = produced else { return failed("the producer panicked") };
    let (late, seconds) = produced?;
    let histogram = consumed?;
    drop(tail);
    log.close()?;
    let mut measured = Measured::default();
    for (name, quantile) in
        [("p50 us", 0.5), ("p90 us", 0.9), ("p99 us", 0.99), ("p99.9 us", 0.999), ("max us", 1.0)]
    {
        measured.add(name, histogram.value_at_quantile(quantile) as f64 / 1000.0);
    }
    measured.add("% sent late", late as f64 * 100.0 / records as f64);
    let achieved = records as f64 / seconds;
    if achieved < 0.95 * rate as f64 {
        measured.notes.push(format!("only {achieved:.0} records a second were achieved"));
    }
    Ok(measured)
}

/// How long a consumer waits for a record before it counts as lost.
pub(crate) const LOST_AFTER: Duration = Duration::from_secs(10);

/// Says that a record did not come.
pub(crate) fn lost() -> Failure {
    Failure::Failed(format!("no record came for {} s", LOST_AFTER.as_secs()))
}
