//! `ottla perf`: how many records and bytes a second, and how soon a consumer has them.

use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use hdrhistogram::Histogram;
use ottla::Delivery;
use ottla::Durability;
use ottla::Record;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;
use serde_json::Map;
use serde_json::Value;

use crate::args::PerfArgs;
use crate::args::PerfCommand;
use crate::args::PerfLatencyArgs;
use crate::args::PerfProduceArgs;
use crate::args::Wait;
use crate::failure::Failure;
use crate::terminal;
use crate::text;

pub(crate) fn run(root: Option<&Path>, command: &PerfCommand) -> Result<(), Failure> {
    let shared = match command {
        PerfCommand::Produce(args) => &args.shared,
        PerfCommand::Consume(args) => args,
        PerfCommand::Latency(args) => &args.shared,
    };
    let bench = Bench::set_up(root, shared)?;
    let measured = match command {
        PerfCommand::Produce(args) => produce(&bench, args),
        PerfCommand::Consume(args) => consume(&bench, args),
        PerfCommand::Latency(args) => latency(&bench, args),
    };
    let removed = bench.tear_down();
    let report = measured?;
    removed?;
    report.print(shared.json)
}

/// The topic that is measured.
struct Bench {
    store: Store,
    topic: Topic,
    is_fresh: bool,
}

impl Bench {
    fn set_up(root: Option<&Path>, args: &PerfArgs) -> Result<Bench, Failure> {
        let store = match root {
            Some(root) => Store::builder(root),
            None => Store::builder_temporary(),
        };
        let store = store.durability(args.durability).open()?;
        let (topic, is_fresh) = match &args.topic {
            Some(name) => (store.topic(name)?, false),
            None => {
                let name = format!("ottla-perf-{}", std::process::id());
                let config = TopicConfig::new().partitions(args.partitions);
                (store.create_topic(&name, config)?, true)
            }
        };
        Ok(Bench { store, topic, is_fresh })
    }

    fn tear_down(self) -> Result<(), Failure> {
        if self.is_fresh {
            self.store.delete_topic(self.topic.name())?;
        }
        drop(self.topic);
        Ok(self.store.close()?)
    }
}

/// What was measured: lines for people, names and numbers for programs.
struct Report {
    lines: Vec<String>,
    numbers: Map<String, Value>,
}

impl Report {
    fn of(what: &str, args: &PerfArgs) -> Report {
        let mut report = Report { lines: Vec::new(), numbers: Map::new() };
        let durability = match args.durability {
            Durability::Synced => "synced".to_owned(),
            Durability::Every(interval) => format!("every:{}", interval.as_millis()),
            _ => "buffered".to_owned(),
        };
        report.put("measured", what);
        report.put("durability", durability.as_str());
        report.put("size_bytes", args.size as u64);
        report.lines.push(format!("{what}, values of {} bytes, {durability}", args.size));
        report
    }

    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.numbers.insert(name.to_owned(), value.into());
    }

    /// D is data a second, C is records a second.
    fn throughput(&mut self, count: u64, len: u64, elapsed: Duration) {
        let (data, records) = (text::rate(len, elapsed), text::rate(count, elapsed));
        self.put("records", count);
        self.put("bytes", len);
        self.put("seconds", elapsed.as_secs_f64());
        self.put("bytes_per_second", data);
        self.put("records_per_second", records);
        self.lines.push(format!(
            "{count} records, {} in {:.3} s",
            text::bytes(len as f64),
            elapsed.as_secs_f64()
        ));
        self.lines.push(format!("D = {}/s", text::bytes(data)));
        self.lines.push(format!("C = {records:.0} records/s"));
    }

    /// Adds percentiles of a histogram of nanoseconds, in microseconds.
    fn percentiles(&mut self, what: &str, histogram: &Histogram<u64>) {
        let mut line = format!("{what} (µs):");
        for (name, percentile) in [("p50", 50.0), ("p95", 95.0), ("p99", 99.0), ("p99.9", 99.9)] {
            let micros = histogram.value_at_percentile(percentile) as f64 / NANOS_PER_MICRO;
            line.push_str(&format!(" {name} {micros:.1}"));
            self.put(&format!("{name}_us"), micros);
        }
        let max = histogram.max() as f64 / NANOS_PER_MICRO;
        line.push_str(&format!(" max {max:.1}"));
        self.put("max_us", max);
        self.lines.push(line);
    }

    fn print(&self, json: bool) -> Result<(), Failure> {
        let mut out = terminal::output();
        if json {
            writeln!(out, "{}", Value::Object(self.numbers.clone()))?;
        } else {
            for line in &self.lines {
                writeln!(out, "{line}")?;
            }
        }
        out.flush()?;
        Ok(())
    }
}

fn produce(bench: &Bench, args: &PerfProduceArgs) -> Result<Report, Failure> {
    let producer = args.staging.producer(&bench.store);
    let value = vec![b'x'; args.shared.size];
    let threads = u64::from(args.threads);
    let share = |thread: u64| {
        // The first threads take what does not divide.
        args.shared.records / threads + u64::from(thread < args.shared.records % threads)
    };
    let send = |count: u64| -> Result<Histogram<u64>, Failure> {
        let mut histogram = histogram()?;
        for _ in 0..count {
            let begun = Instant::now();
            let delivery: Delivery = producer.send(&bench.topic, Record::new(&value))?;
            if args.wait == Wait::Each {
                delivery.wait()?;
            }
            histogram.saturating_record(nanos(begun.elapsed()));
        }
        Ok(histogram)
    };
    let begun = Instant::now();
    let sent: Vec<Result<Histogram<u64>, Failure>> = thread::scope(|scope| {
        let handles: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || send(share(thread)))).collect();
        handles.into_iter().map(joined).collect()
    });
    producer.flush()?;
    let elapsed = begun.elapsed();
    let mut all = histogram()?;
    for histogram in sent {
        all.add(histogram?).map_err(|error| Failure::Other(error.to_string()))?;
    }
    let mut report = Report::of("produce", &args.shared);
    let wait = match args.wait {
        Wait::Each => "each",
        Wait::End => "end",
    };
    report.put("threads", threads);
    report.put("wait", wait);
    report.put("linger_ms", args.staging.linger_ms);
    report.put("batch_bytes", args.staging.batch_bytes);
    report.lines.push(format!("{threads} threads, waiting for durability: {wait}"));
    let len = args.shared.records * args.shared.size as u64;
    report.throughput(args.shared.records, len, elapsed);
    report.percentiles("send", &all);
    Ok(report)
}

fn consume(bench: &Bench, args: &PerfArgs) -> Result<Report, Failure> {
    let mut offsets = 0;
    for partition in bench.topic.partitions() {
        let (start, end) = partition.watermarks()?;
        offsets += end - start;
    }
    if offsets == 0 {
        fill(bench, args)?;
    }
    let mut ends = Vec::new();
    for partition in bench.topic.partitions() {
        ends.push((partition.clone(), partition.watermarks()?.1));
    }
    let mut consumer =
        bench.store.consumer().max_poll_records(POLL_RECORDS).assign(bench.topic.partitions())?;
    let (mut count, mut len, mut sum) = (0_u64, 0_u64, 0_u64);
    let begun = Instant::now();
    loop {
        let records = consumer.poll(Duration::ZERO)?;
        for message in &records {
            for bytes in [message.key(), message.value()].into_iter().flatten() {
                len += bytes.len() as u64;
                // Every byte is looked at, so that every page of it has to be there.
                sum = bytes.iter().fold(sum, |sum, byte| sum + u64::from(*byte));
            }
        }
        count += records.count() as u64;
        if records.is_empty() {
            let mut is_through = true;
            for (partition, end) in &ends {
                is_through &= consumer.position(partition)? >= *end;
            }
            if is_through {
                break;
            }
        }
    }
    let elapsed = begun.elapsed();
    let mut report = Report::of("consume", args);
    report.put("byte_sum", sum);
    report.throughput(count, len, elapsed);
    Ok(report)
}

/// Appends the records to be read, in batches.
fn fill(bench: &Bench, args: &PerfArgs) -> Result<(), Failure> {
    let producer = bench.store.producer();
    let value = vec![b'x'; args.size];
    let partitions = bench.topic.partitions();
    // Well below the default `max.message.bytes`; at least one record goes into a batch.
    let in_batch = (BATCH_LEN / (args.size + RECORD_OVERHEAD)).max(1) as u64;
    let bar = terminal::progress_bar(args.records);
    let mut left = args.records;
    for partition in partitions.iter().cycle() {
        if left == 0 {
            break;
        }
        let count = left.min(in_batch);
        let records = (0..count).map(|_| Record::new(&value));
        // Waited for all at once below.
        drop(producer.send_batch(partition, records)?);
        left -= count;
        bar.inc(count);
    }
    bar.finish_and_clear();
    Ok(producer.flush()?)
}

fn latency(bench: &Bench, args: &PerfLatencyArgs) -> Result<Report, Failure> {
    let records = args.shared.records.min(RECORDS_TIMED_MAX);
    let epoch = Instant::now();
    let size = args.shared.size.max(STAMP_LEN);
    let mut consumer =
        bench.store.consumer().start(ottla::Start::Latest).assign(bench.topic.partitions())?;
    let producer = bench.store.producer();
    let waits = bench.store.producer().durability() == Durability::Synced;
    let interval = Duration::from_secs(1) / args.rate;
    let (sent, received) = thread::scope(|scope| {
        let sender = scope.spawn(move || -> Result<(), Failure> {
            let mut value = vec![b'x'; size];
            let begun = Instant::now();
            for n in 0..records {
                let due = interval.saturating_mul(u32::try_from(n).unwrap_or(u32::MAX));
                if let Some(early) = due.checked_sub(begun.elapsed()) {
                    thread::sleep(early);
                }
                let stamp = nanos(epoch.elapsed());
                value[..STAMP_LEN].copy_from_slice(&stamp.to_be_bytes());
                let delivery = producer.send(&bench.topic, Record::new(&value))?;
                if waits {
                    delivery.wait()?;
                }
            }
            Ok(())
        });
        let received = receive(&mut consumer, records, epoch);
        (joined(sender), received)
    });
    sent?;
    let (histogram, elapsed) = received?;
    let mut report = Report::of("latency", &args.shared);
    report.put("rate", args.rate);
    report.lines.push(format!("{} records/s asked for", args.rate));
    report.throughput(records, records * size as u64, elapsed);
    report.percentiles("send to receive", &histogram);
    Ok(report)
}

/// Waits for each record and compares the time with the one it carries.
fn receive(
    consumer: &mut ottla::Consumer,
    records: u64,
    epoch: Instant,
) -> Result<(Histogram<u64>, Duration), Failure> {
    let mut histogram = histogram()?;
    let mut left = records;
    while left > 0 {
        let batch = consumer.poll(LOST_AFTER)?;
        let now = nanos(epoch.elapsed());
        if batch.is_empty() {
            return Err(Failure::Other(format!("{left} records did not arrive")));
        }
        for message in &batch {
            let stamp = message.value().and_then(<[u8]>::first_chunk);
            if let Some(stamp) = stamp {
                histogram.saturating_record(now.saturating_sub(u64::from_be_bytes(*stamp)));
                left = left.saturating_sub(1);
            }
        }
    }
    Ok((histogram, epoch.elapsed()))
}

fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, NANOS_MAX, 3).map_err(|error| Failure::Other(error.to_string()))
}

fn joined<T>(handle: thread::ScopedJoinHandle<'_, Result<T, Failure>>) -> Result<T, Failure> {
    let ended = handle.join();
    ended.unwrap_or_else(|_| Err(Failure::Other("a thread panicked".into())))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

const NANOS_PER_MICRO: f64 = 1000.0;
/// A minute: what takes longer is counted as that long.
const NANOS_MAX: u64 = 60_000_000_000;
/// The bytes of the time of sending, at the front of each value.
const STAMP_LEN: usize = 8;
const POLL_RECORDS: usize = 10_000;
const BATCH_LEN: usize = 256 << 10;
/// At least what a record without key and headers takes beside its value.
const RECORD_OVERHEAD: usize = 16;
/// How long the consumer waits for a record before it counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// At the default rate a million records would take a quarter of an hour.
const RECORDS_TIMED_MAX: u64 = 10_000;
