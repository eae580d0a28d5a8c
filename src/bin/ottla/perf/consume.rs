//! `ottla perf consume`: reading everything, touching every byte.

use std::time::Duration;
use std::time::Instant;

use crate::args::PerfConsumeArgs;
use crate::failure::Failure;
use crate::perf::place::Field;
use crate::perf::place::Place;
use crate::perf::report::Report;
use crate::perf::usage;

pub(crate) fn measure(
    place: &Place<'_>,
    args: &PerfConsumeArgs,
    report: &mut Report,
) -> Result<(), Failure> {
    let records = args.shared.records.unwrap_or(RECORDS);
    let field = place.enter()?;
    let starts = field.ends()?;
    let sent = field.fill_if_empty(&args.shared, records, args.shared.batch)?;
    let is_filled = sent.is_some();
    match sent {
        Some(sent) => field.verify(starts, [sent])?,
        // They keep the directory open.
        None => drop(starts),
    }
    field.leave()?;
    let (mut first, mut second) = (Scans::default(), Scans::default());
    let mut all = None;
    for _ in 0..args.shared.rounds {
        // A store that has just been opened has read nothing: the first scan sums every checksum.
        let field = place.enter()?;
        for scans in [&mut first, &mut second] {
            let scanned = scans.scan(&field)?;
            if *all.get_or_insert(scanned) != scanned {
                let reason = format!("scans differ: {all:?} and {scanned:?}");
                return Err(Failure::Other(reason));
            }
        }
        field.leave()?;
    }
    let scanned = all.unwrap_or_default();
    report.put("records", scanned.count);
    report.put("bytes", scanned.len);
    report.put("byte_sum", scanned.sum);
    for (prefix, scans) in [("", &first), ("second_", &second)] {
        report.throughput(prefix, scanned.count, scanned.len, &scans.times);
        report.cpu(prefix, scanned.count, &scans.cpu);
    }
    report.put("is_verified", is_filled);
    Ok(())
}

#[derive(Debug, Default)]
struct Scans {
    times: Vec<Duration>,
    cpu: Vec<Duration>,
}

/// What a scan saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Scanned {
    count: u64,
    len: u64,
    /// Of all bytes of keys and values.
    sum: u64,
}

impl Scans {
    fn scan(&mut self, field: &Field) -> Result<Scanned, Failure> {
        let mut consumer = field
            .store
            .consumer()
            .max_poll_records(POLL_RECORDS)
            .assign(field.topic.partitions())?;
        let mut scanned = Scanned::default();
        let (cpu_begun, begun) = (usage::cpu_time(), Instant::now());
        loop {
            let records = consumer.poll(Duration::ZERO)?;
            if records.is_empty() {
                break;
            }
            for message in &records {
                for bytes in [message.key(), message.value()].into_iter().flatten() {
                    scanned.len += bytes.len() as u64;
                    // Every byte is looked at, so that every page of it has to be there.
                    scanned.sum += sum(bytes);
                }
            }
            scanned.count += records.count() as u64;
        }
        self.times.push(begun.elapsed());
        self.cpu.push(usage::cpu_time() - cpu_begun);
        Ok(scanned)
    }
}

/// Adds bytes up, many at a time: it is the log that is measured.
fn sum(bytes: &[u8]) -> u64 {
    let mut total = 0;
    for block in bytes.chunks(ROWS * LANES) {
        let mut lanes = [0_u16; LANES];
        let rows = block.chunks_exact(LANES);
        total += rows.remainder().iter().map(|byte| u64::from(*byte)).sum::<u64>();
        for row in rows {
            for (lane, byte) in lanes.iter_mut().zip(row) {
                *lane += u16::from(*byte);
            }
        }
        total += lanes.iter().map(|lane| u64::from(*lane)).sum::<u64>();
    }
    total
}

const LANES: usize = 32;
/// So many bytes fit one lane, all of them the greatest.
const ROWS: usize = 257;
const RECORDS: u64 = 1_000_000;
const POLL_RECORDS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_added_up_whatever_their_number() {
        for len in
            [0, 1, LANES - 1, LANES, 100, ROWS * LANES, ROWS * LANES + 1, 3 * ROWS * LANES + 77]
        {
            assert_eq!(sum(&vec![255; len]), 255 * len as u64);
            let bytes: Vec<u8> = (0..len).map(|n| (n * 7) as u8).collect();
            assert_eq!(sum(&bytes), bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>());
        }
    }
}
