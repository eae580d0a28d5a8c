//! What was measured: a table for people, JSON for programs.

use std::fs::File;
use std::path::Path;

use serde_json::Value;
use serde_json::json;

use crate::arguments::Arguments;
use crate::subject::Outcome;

/// What one run of one cell gave: numbers by name, and remarks.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) numbers: Vec<(String, f64)>,
    pub(crate) notes: Vec<String>,
}

/// One case with all who took part in it.
pub(crate) struct CaseReport {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) rows: Vec<Row>,
}

pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) guarantee: &'static str,
    /// Samples of each number, in the order of the rounds.
    pub(crate) samples: Vec<(String, Vec<f64>)>,
    pub(crate) notes: Vec<String>,
    /// Why there are no numbers.
    pub(crate) absence: Option<String>,
}

#[derive(Clone, Copy)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Measured {
    pub(crate) fn of(name: &str, number: f64) -> Measured {
        Measured { numbers: vec![(name.to_owned(), number)], notes: Vec::new() }
    }

    pub(crate) fn add(&mut self, name: &str, number: f64) {
        self.numbers.push((name.to_owned(), number));
    }
}

impl Row {
    pub(crate) fn take(&mut self, measured: Measured) {
        for (name, number) in measured.numbers {
            match self.samples.iter_mut().find(|(known, _)| *known == name) {
                Some((_, samples)) => samples.push(number),
                None => self.samples.push((name, vec![number])),
            }
        }
        for note in measured.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }

    fn spread(&self, name: &str) -> Option<Spread> {
        let (_, samples) = self.samples.iter().find(|(known, _)| *known == name)?;
        Some(Spread::of(samples))
    }
}

impl Spread {
    fn of(samples: &[f64]) -> Spread {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let last = sorted.len().saturating_sub(1);
        let median = f64::midpoint(at(last / 2), at(sorted.len() / 2));
        Spread { min: at(0), median, max: at(last) }
    }
}

impl CaseReport {
    /// Prints one line per subject and number, ours first among equals, with how many times better ours is.
    pub(crate) fn print(&self) {
        println!("\n{}  {}", self.id, self.title);
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.rows.iter().flat_map(|row| &row.samples) {
            if !names.contains(&name.as_str()) {
                names.push(name.as_str());
            }
        }
        let ours = self.rows.iter().find(|row| row.name.starts_with(OURS));
        for name in names {
            println!("  {name:<26} {:>9} {:>9} {:>9}  {:>8}", "min", "median", "max", "ours is");
            for row in &self.rows {
                let Some(spread) = row.spread(name) else { continue };
                let reference = ours.and_then(|ours| ours.spread(name));
                let better = reference.map(|reference| advantage(name, reference, spread));
                let better = better.filter(|b| b.is_finite() && *b > 0.0);
                println!(
                    "    {:<24} {:>9} {:>9} {:>9}  {:>8}",
                    row.name,
                    short(spread.min),
                    short(spread.median),
                    short(spread.max),
                    better.map_or(String::new(), |better| format!("{better:.2} x")),
                );
            }
        }
        for row in &self.rows {
            if let Some(absence) = &row.absence {
                println!("    {:<24}         -  {absence}", row.name);
            }
            for note in &row.notes {
                println!("    {:<24} note: {note}", row.name);
            }
        }
    }

    fn to_json(&self) -> Value {
        let row = |row: &Row| {
            let number = |(name, samples): &(String, Vec<f64>)| {
                let Spread { min, median, max } = Spread::of(samples);
                json!({ "name": name, "min": min, "median": median, "max": max, "samples": samples })
            };
            json!({
                "subject": row.name,
                "guarantee": row.guarantee,
                "numbers": row.samples.iter().map(number).collect::<Vec<Value>>(),
                "notes": row.notes,
                "absent": row.absence,
            })
        };
        let rows: Vec<Value> = self.rows.iter().map(row).collect();
        json!({ "case": self.id, "title": self.title, "rows": rows })
    }
}

/// Prints once for each subject what it promises.
pub(crate) fn print_guarantees(cases: &[CaseReport]) {
    let mut seen: Vec<&'static str> = Vec::new();
    println!("\nWhat an appended record survives, and what reading checks:");
    for row in cases.iter().flat_map(|case| &case.rows) {
        if !seen.contains(&row.guarantee) {
            seen.push(row.guarantee);
            let name = row.name.split(',').next().unwrap_or(&row.name);
            println!("  {name:<16} {}", row.guarantee);
        }
    }
}

pub(crate) fn write_json(path: &Path, arguments: &Arguments, cases: &[CaseReport]) -> Outcome {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let document = json!({
        "quick": arguments.is_quick,
        "seed": arguments.seed,
        "cpus": cpus,
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "version": env!("CARGO_PKG_VERSION"),
        "cases": cases.iter().map(CaseReport::to_json).collect::<Vec<Value>>(),
    });
    serde_json::to_writer_pretty(File::create(path)?, &document)?;
    Ok(())
}

/// Of rates more is better, of everything else less.
fn advantage(name: &str, ours: Spread, other: Spread) -> f64 {
    if name.contains("/s") { ours.median / other.median } else { other.median / ours.median }
}

/// Three digits and a letter.
fn short(number: f64) -> String {
    let (number, letter) = match number.abs() {
        n if n >= 1e9 => (number / 1e9, "G"),
        n if n >= 1e6 => (number / 1e6, "M"),
        n if n >= 1e3 => (number / 1e3, "k"),
        _ => (number, ""),
    };
    match number.abs() {
        n if n >= 100.0 => format!("{number:.0}{letter}"),
        n if n >= 10.0 => format!("{number:.1}{letter}"),
        n if n >= 0.1 || n == 0.0 => format!("{number:.2}{letter}"),
        _ => format!("{number:.4}{letter}"),
    }
}

pub(crate) const OURS: &str = "ottla";
