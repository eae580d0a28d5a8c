//! `ottla perf read`: single records at random offsets.

use std::time::Duration;
use std::time::Instant;

use crate::args::PerfReadArgs;
use crate::failure::Failure;
use crate::perf::payload::Random;
use crate::perf::place::Place;
use crate::perf::report::Report;
use crate::perf::report::Times;
use crate::perf::usage;

pub(crate) fn measure(
    place: &Place<'_>,
    args: &PerfReadArgs,
    report: &mut Report,
) -> Result<(), Failure> {
    let field = place.enter()?;
    let records = args.shared.records.unwrap_or(RECORDS);
    let in_batch = Some(args.shared.batch.unwrap_or(1));
    let is_filled = field.fill_if_empty(&args.shared, records, in_batch)?.is_some();
    field.leave()?;
    let field = place.enter()?;
    let mut ranges = Vec::new();
    for partition in field.topic.partitions() {
        let (start, end) = partition.watermarks()?;
        if start < end {
            ranges.push((partition, start, (end - start).unsigned_abs()));
        }
    }
    if ranges.is_empty() {
        return Err(Failure::Other("the topic is empty".into()));
    }
    let mut consumer =
        field.store.consumer().max_poll_records(1).assign(field.topic.partitions())?;
    let mut random = Random::new(args.seed);
    let (mut times, mut cpu) = (Vec::new(), Vec::new());
    let mut latencies = Times::new()?;
    let mut len = 0;
    for _ in 0..args.shared.rounds {
        // One partition a round, so that nothing but the one record is asked for.
        let (partition, start, count) = &ranges[random.below(ranges.len() as u64) as usize];
        let others = field.topic.partitions().into_iter().filter(|other| other != partition);
        let paused: Vec<_> = others.collect();
        consumer.pause(&paused)?;
        len = 0;
        let (cpu_begun, begun) = (usage::cpu_time(), Instant::now());
        for _ in 0..args.reads {
            let offset = start + i64::try_from(random.below(*count)).unwrap_or(0);
            let read_begun = args.latencies.then(Instant::now);
            consumer.seek(partition, offset)?;
            let found = consumer.poll(Duration::ZERO)?;
            let message = found.iter().next();
            // Offsets may have holes, where a topic was compacted; what was filled here has none.
            let message = message.filter(|message| {
                message.offset() == offset || (message.offset() > offset && !is_filled)
            });
            let message = message.ok_or_else(|| {
                Failure::Other(format!("no record at offset {offset} of {partition}"))
            })?;
            len += message.value().map_or(0, <[u8]>::len) as u64;
            if let Some(read_begun) = read_begun {
                latencies.note(read_begun.elapsed());
            }
        }
        times.push(begun.elapsed());
        cpu.push(usage::cpu_time() - cpu_begun);
        consumer.resume(&paused)?;
    }
    report.put("records", args.reads);
    report.put("bytes", len);
    report.put("is_verified", is_filled);
    report.throughput("", args.reads, len, &times);
    report.cpu("", args.reads, &cpu);
    if args.latencies {
        report.percentiles(&latencies);
    }
    drop(consumer);
    drop(ranges);
    field.leave()
}

const RECORDS: u64 = 1_000_000;
