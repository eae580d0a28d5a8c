//! `ottla perf latency`: from a send to the waking of the consumer that waits for it.

use std::hint;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ottla::Consumer;
use ottla::Durability;
use ottla::Record;
use ottla::Start;

use crate::args::Pace;
use crate::args::PerfLatencyArgs;
use crate::failure::Failure;
use crate::perf::payload::Payload;
use crate::perf::payload::number_of;
use crate::perf::place::Field;
use crate::perf::place::Place;
use crate::perf::produce::joined;
use crate::perf::report::Report;
use crate::perf::report::Times;
use crate::perf::usage;

pub(crate) fn measure(
    place: &Place<'_>,
    args: &PerfLatencyArgs,
    report: &mut Report,
) -> Result<(), Failure> {
    let records = args.shared.records.unwrap_or(u64::from(args.rate) * SECONDS);
    let (mut times, mut cpu) = (Vec::new(), Vec::new());
    let mut latencies = Times::new()?;
    let (mut p50, mut behind_max, mut late) = (Vec::new(), 0, 0);
    for _ in 0..args.shared.rounds {
        let field = place.enter()?;
        let round = Round::run(&field, args, records)?;
        times.push(round.elapsed);
        cpu.push(round.cpu);
        p50.push(round.latencies.p50_us());
        latencies.add(&round.latencies)?;
        behind_max = behind_max.max(round.behind_max);
        late += round.late;
        field.leave_nothing(&args.shared)?;
    }
    report.put("spin_us", args.spin_us);
    report.put("pace", if args.pace == Pace::Spin { "spin" } else { "sleep" });
    report.put("is_busy", args.busy);
    report.put("target_records_per_second", args.rate);
    let bytes = records * args.shared.size as u64;
    report.put("records", records);
    report.put("bytes", bytes);
    report.throughput("", records, bytes, &times);
    report.cpu("", records, &cpu);
    report.put("late_records", late);
    report.put("pile_up_records_max", behind_max);
    report.percentiles(&latencies);
    report.series("p50_us", p50);
    Ok(())
}

struct Round {
    elapsed: Duration,
    cpu: Duration,
    latencies: Times,
    /// How many records one poll brought at most: so many had piled up.
    behind_max: u64,
    /// How many records were sent more than an interval after they were due.
    late: u64,
}

impl Round {
    fn run(field: &Field, args: &PerfLatencyArgs, records: u64) -> Result<Round, Failure> {
        let mut consumer = field
            .store
            .consumer()
            .start(Start::Latest)
            .spin(Duration::from_micros(args.spin_us))
            .assign(field.topic.partitions())?;
        let epoch = Instant::now();
        thread::scope(|scope| {
            let sender = scope.spawn(move || send(field, args, records, epoch));
            let received = receive(&mut consumer, args, records, epoch);
            let sent = joined(sender)?;
            let (latencies, behind_max, ended) = received?;
            let elapsed = ended.saturating_sub(sent.begun);
            let cpu = usage::cpu_time() - sent.cpu_begun;
            Ok(Round { elapsed, cpu, latencies, behind_max, late: sent.late })
        })
    }
}

struct Sent {
    begun: Duration,
    cpu_begun: Duration,
    late: u64,
}

/// Sends at the rate that was asked for. The number at the front of each value gives way to the time.
fn send(
    field: &Field,
    args: &PerfLatencyArgs,
    records: u64,
    epoch: Instant,
) -> Result<Sent, Failure> {
    let producer = field.store.producer();
    let waits = producer.durability() == Durability::Synced;
    let mut payload = Payload::new(0, args.shared.size, 1);
    let mut value = vec![0; args.shared.size];
    let interval = Duration::from_secs(1) / args.rate;
    // The consumer shall be asleep before the first.
    thread::sleep(Duration::from_millis(20));
    let (begun, cpu_begun) = (epoch.elapsed(), usage::cpu_time());
    let mut late = 0;
    for n in 0..records {
        let due = begun + Duration::from_nanos(n.saturating_mul(nanos(interval)));
        // Before the wait: no work between the time that is noted and the send.
        value.copy_from_slice(payload.next_value());
        let mut now = epoch.elapsed();
        late += u64::from(now > due + interval);
        while now < due {
            match args.pace {
                Pace::Spin => hint::spin_loop(),
                Pace::Sleep => thread::sleep(due - now),
            }
            now = epoch.elapsed();
        }
        value[..STAMP_LEN].copy_from_slice(&nanos(now).to_le_bytes());
        let delivery = producer.send(&field.topic, Record::new(&value))?;
        if waits {
            delivery.wait()?;
        }
    }
    Ok(Sent { begun, cpu_begun, late })
}

/// Waits for each record and compares the time with the one it carries. Gives the greatest number that came
/// at once, and when the last came.
fn receive(
    consumer: &mut Consumer,
    args: &PerfLatencyArgs,
    records: u64,
    epoch: Instant,
) -> Result<(Times, u64, Duration), Failure> {
    let mut times = Times::new()?;
    let timeout = if args.busy { Duration::ZERO } else { LOST_AFTER };
    let (mut received, mut behind_max) = (0, 0);
    let mut heard_at = Duration::ZERO;
    let mut sent_last = 0;
    while received < records {
        let batch = consumer.poll(timeout)?;
        let now = epoch.elapsed();
        if batch.is_empty() {
            if now > heard_at + LOST_AFTER {
                let missing = records - received;
                return Err(Failure::Other(format!("{missing} records did not arrive")));
            }
            continue;
        }
        heard_at = now;
        let mut count = 0;
        for message in &batch {
            let value = message.value().unwrap_or_default();
            let sent = number_of(value).filter(|_| value.len() == args.shared.size);
            let sent = sent.ok_or_else(|| Failure::Other("a record of somebody else".into()))?;
            times.note_nanos(nanos(now).saturating_sub(sent));
            if sent < sent_last && args.shared.partitions == 1 && args.shared.topic.is_none() {
                return Err(Failure::Other("a record came before an earlier one".into()));
            }
            sent_last = sent;
            count += 1;
        }
        received += count;
        behind_max = behind_max.max(count);
    }
    Ok((times, behind_max, heard_at))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The bytes of the time of sending, at the front of each value.
const STAMP_LEN: usize = 8;
/// How long the consumer waits for a record before it counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// How long a round takes by default.
const SECONDS: u64 = 5;
