//! `ottla perf produce`: appending as fast as it goes.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ottla::Producer;
use ottla::Record;
use ottla::Start;
use ottla::Topic;
use ottla::TopicPartition;

use crate::args::PerfProduceArgs;
use crate::args::Wait;
use crate::failure::Failure;
use crate::perf::payload::Payload;
use crate::perf::place::Field;
use crate::perf::place::Place;
use crate::perf::report::Report;
use crate::perf::report::Times;
use crate::perf::usage;

pub(crate) fn measure(
    place: &Place<'_>,
    args: &PerfProduceArgs,
    report: &mut Report,
) -> Result<(), Failure> {
    let records = args.shared.records.unwrap_or(RECORDS);
    let (mut times, mut cpu) = (Vec::new(), Vec::new());
    let mut latencies = Times::new()?;
    for _ in 0..args.shared.rounds {
        let field = place.enter()?;
        let round = Round::run(&field, args, records)?;
        times.push(round.elapsed);
        cpu.push(round.cpu);
        latencies.add(&round.latencies)?;
        field.verify(round.begun_at, round.payloads)?;
        field.leave_nothing(&args.shared)?;
    }
    report.put("threads", args.threads);
    report.put("batch_records", in_batch(args) as u64);
    report.put("linger_ms", args.staging.linger_ms);
    report.put("batch_bytes", args.staging.batch_bytes);
    report.put("wait", if args.wait == Wait::Each { "each" } else { "end" });
    let bytes = records * args.shared.size as u64;
    report.put("records", records);
    report.put("bytes", bytes);
    report.throughput("", records, bytes, &times);
    report.cpu("", records, &cpu);
    if args.latencies {
        report.percentiles(&latencies);
    }
    report.put("is_verified", true);
    Ok(())
}

/// What one round sent, and how long it took.
struct Round {
    elapsed: Duration,
    cpu: Duration,
    latencies: Times,
    /// What each thread has sent.
    payloads: Vec<Payload>,
    /// Where each partition ended before.
    begun_at: Vec<(TopicPartition, Start)>,
}

impl Round {
    fn run(field: &Field, args: &PerfProduceArgs, records: u64) -> Result<Round, Failure> {
        let producer = args.staging.producer(&field.store)?;
        let threads = u64::from(args.threads);
        // The first threads take what does not divide.
        let share = |thread: u64| records / threads + u64::from(thread < records % threads);
        let mut senders = Vec::new();
        for thread in 0..threads {
            let payload = Payload::new(thread as u16, args.shared.size, in_batch(args));
            senders.push(Sender { producer: &producer, topic: &field.topic, args, payload });
        }
        let mut begun_at = Vec::new();
        let start = Barrier::new(senders.len() + 1);
        let warmed = Barrier::new(senders.len() + 1);
        let warm_up = args.warm_up.unwrap_or(records / 10) / threads;
        let (sent, elapsed, cpu) = thread::scope(|scope| {
            let handles: Vec<_> = senders
                .into_iter()
                .zip(0..)
                .map(|(mut sender, thread)| {
                    let (start, warmed) = (&start, &warmed);
                    scope.spawn(move || {
                        let warming = sender.warm_up(warm_up);
                        warmed.wait();
                        start.wait();
                        warming?;
                        let latencies = sender.send(share(thread))?;
                        Ok((sender.payload, latencies))
                    })
                })
                .collect();
            warmed.wait();
            // What lingers is appended before the ends are noted; a failure shows in what is sent afterwards, too.
            let warming = producer.flush();
            let ends = field.ends();
            let (cpu_begun, begun) = (usage::cpu_time(), Instant::now());
            start.wait();
            let sent: Vec<Result<_, Failure>> = handles.into_iter().map(joined).collect();
            let flushed = producer.flush();
            let (elapsed, cpu) = (begun.elapsed(), usage::cpu_time() - cpu_begun);
            warming?;
            begun_at = ends?;
            flushed?;
            Ok::<_, Failure>((sent, elapsed, cpu))
        })?;
        let mut latencies = Times::new()?;
        let mut payloads = Vec::new();
        for sent in sent {
            let (payload, times) = sent?;
            latencies.add(&times)?;
            payloads.push(payload);
        }
        Ok(Round { elapsed, cpu, latencies, payloads, begun_at })
    }
}

struct Sender<'a> {
    producer: &'a Producer,
    topic: &'a Topic,
    args: &'a PerfProduceArgs,
    payload: Payload,
}

impl Sender<'_> {
    /// Sends as it will be measured, with values of another sender.
    fn warm_up(&mut self, count: u64) -> Result<(), Failure> {
        let other = Payload::new(WARMING, self.args.shared.size, in_batch(self.args));
        let payload = std::mem::replace(&mut self.payload, other);
        self.send(count)?;
        self.payload = payload;
        Ok(())
    }

    fn send(&mut self, count: u64) -> Result<Times, Failure> {
        let mut times = Times::new()?;
        let waits = self.args.wait == Wait::Each;
        // A loop for each kind, so that none pays for what it does not do.
        match (in_batch(self.args), self.args.latencies) {
            (1, false) => {
                for _ in 0..count {
                    let record = Record::new(self.payload.next_value());
                    let delivery = self.producer.send(self.topic, record)?;
                    if waits {
                        delivery.wait()?;
                    }
                }
            }
            (1, true) => {
                for _ in 0..count {
                    let record = Record::new(self.payload.next_value());
                    let begun = Instant::now();
                    let delivery = self.producer.send(self.topic, record)?;
                    if waits {
                        delivery.wait()?;
                    }
                    times.note(begun.elapsed());
                }
            }
            (in_batch, _) => {
                let mut left = count;
                let partitions = self.topic.partitions();
                for partition in partitions.iter().cycle() {
                    if left == 0 {
                        break;
                    }
                    let count = left.min(in_batch as u64);
                    let batch = self.payload.next_batch(count as usize);
                    let begun = self.args.latencies.then(Instant::now);
                    let delivery = self.producer.send_batch(partition, batch)?;
                    if waits {
                        delivery.wait()?;
                    }
                    if let Some(begun) = begun {
                        times.note(begun.elapsed());
                    }
                    left -= count;
                }
            }
        }
        Ok(times)
    }
}

fn in_batch(args: &PerfProduceArgs) -> usize {
    args.shared.batch.unwrap_or(1)
}

pub(crate) fn joined<T>(
    handle: thread::ScopedJoinHandle<'_, Result<T, Failure>>,
) -> Result<T, Failure> {
    let ended = handle.join();
    ended.unwrap_or_else(|_| Err(Failure::Other("a thread panicked".into())))
}

const RECORDS: u64 = 1_000_000;
/// Who sends what is not measured.
const WARMING: u16 = u16::MAX;
