//! What was measured: names with units and numbers, the same for people and for programs.

use std::io::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use ottla::Durability;
use serde_json::Map;
use serde_json::Value;

use crate::args::PerfArgs;
use crate::failure::Failure;
use crate::perf::usage;
use crate::terminal;
use crate::text;

/// The figures of one command, in order.
#[derive(Debug)]
pub(crate) struct Report {
    figures: Map<String, Value>,
    /// Lines for people who do not want to read figures.
    lines: Vec<String>,
}

/// How long things took, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    histogram: Histogram<u64>,
}

impl Report {
    pub(crate) fn of(what: &str, args: &PerfArgs) -> Report {
        let mut report = Report { figures: Map::new(), lines: Vec::new() };
        let durability = match args.durability {
            Durability::Synced => "synced".to_owned(),
            Durability::Every(interval) => format!("every:{}", interval.as_millis()),
            _ => "buffered".to_owned(),
        };
        report.put("measured", what);
        report.put("durability", durability);
        report.put("size_bytes", args.size as u64);
        report.put("rounds", args.rounds);
        report
    }

    pub(crate) fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.to_owned(), value.into());
    }

    /// Adds one figure for each round: the median under its name, the least and the greatest behind it.
    pub(crate) fn series(&mut self, name: &str, mut values: Vec<f64>) {
        values.sort_unstable_by(f64::total_cmp);
        let (Some(least), Some(greatest)) = (values.first(), values.last()) else {
            return;
        };
        let median = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
        self.put(name, median);
        self.put(&format!("{name}_min"), *least);
        self.put(&format!("{name}_max"), *greatest);
    }

    /// Adds what a round of `records` with `bytes` took, each time. `prefix` tells several of them apart.
    pub(crate) fn throughput(
        &mut self,
        prefix: &str,
        records: u64,
        bytes: u64,
        times: &[Duration],
    ) {
        let each =
            |figure: &dyn Fn(Duration) -> f64| times.iter().map(|time| figure(*time)).collect();
        self.series(&format!("{prefix}seconds"), each(&|time| time.as_secs_f64()));
        self.series(&format!("{prefix}bytes_per_second"), each(&|time| text::rate(bytes, time)));
        self.series(
            &format!("{prefix}records_per_second"),
            each(&|time| text::rate(records, time)),
        );
        let median = |name: &str| self.figures[&format!("{prefix}{name}")].as_f64().unwrap_or(0.0);
        let (data, count) = (median("bytes_per_second"), median("records_per_second"));
        let prefix = prefix.trim_end_matches('_');
        let separator = if prefix.is_empty() { "" } else { ": " };
        self.lines.push(format!(
            "{prefix}{separator}D = {}/s, C = {count:.0} records/s",
            text::bytes(data)
        ));
    }

    /// Adds the processor seconds that a million records took, each time.
    pub(crate) fn cpu(&mut self, prefix: &str, records: u64, times: &[Duration]) {
        let millions = records.max(1) as f64 / 1e6;
        let seconds = times.iter().map(|time| time.as_secs_f64() / millions).collect();
        self.series(&format!("{prefix}cpu_seconds_per_million_records"), seconds);
    }

    pub(crate) fn percentiles(&mut self, times: &Times) {
        for (name, percentile) in [("p50", 50.0), ("p95", 95.0), ("p99", 99.0), ("p99.9", 99.9)] {
            let nanos = times.histogram.value_at_percentile(percentile);
            self.put(&format!("{name}_us"), nanos as f64 / NANOS_PER_MICRO);
        }
        self.put("max_us", times.histogram.max() as f64 / NANOS_PER_MICRO);
    }

    /// Adds the memory that is in use now, where the system tells.
    pub(crate) fn memory(&mut self) {
        if let Some(bytes) = usage::anonymous_bytes() {
            self.put("anonymous_bytes", bytes);
        }
    }

    pub(crate) fn print(&self, json: bool) -> Result<(), Failure> {
        let mut out = terminal::output();
        if json {
            writeln!(out, "{}", Value::Object(self.figures.clone()))?;
        } else {
            for (name, value) in &self.figures {
                writeln!(out, "{name:<width$} {}", shown(value), width = NAME_WIDTH)?;
            }
            for line in &self.lines {
                writeln!(out, "{line}")?;
            }
        }
        out.flush()?;
        Ok(())
    }
}

/// Shows a figure with the digits that mean something.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            if number >= 1000.0 { format!("{number:.0}") } else { format!("{number:.3}") }
        }
        other => other.to_string(),
    }
}

impl Times {
    pub(crate) fn new() -> Result<Times, Failure> {
        let histogram = Histogram::new_with_bounds(1, NANOS_MAX, 3).map_err(failure)?;
        Ok(Times { histogram })
    }

    pub(crate) fn note(&mut self, time: Duration) {
        self.note_nanos(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn note_nanos(&mut self, nanos: u64) {
        self.histogram.saturating_record(nanos);
    }

    pub(crate) fn p50_us(&self) -> f64 {
        self.histogram.value_at_percentile(50.0) as f64 / NANOS_PER_MICRO
    }

    pub(crate) fn add(&mut self, other: &Times) -> Result<(), Failure> {
        self.histogram.add(&other.histogram).map_err(failure)
    }
}

fn failure(error: impl std::fmt::Display) -> Failure {
    Failure::Other(error.to_string())
}

const NANOS_PER_MICRO: f64 = 1000.0;
/// A minute: what takes longer is counted as that long.
const NANOS_MAX: u64 = 60_000_000_000;
const NAME_WIDTH: usize = 44;
