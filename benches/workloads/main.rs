//! Whole workloads, ours beside the machine's raw limits, interleaved in one run, everything read back and compared.
//!
//! `cargo bench --bench workloads -- [--only W1,W5] [--quick] [--rounds N] [--json FILE] [--dir DIR]`; what each row
//! means stands in `benches/README.md`. The peers run the same in `benches/peers`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints what it measured"
)]

use std::process::ExitCode;

use crate::subject::Subject;

mod append;
mod arguments;
mod child;
mod latency;
mod machine;
mod ours;
mod payload;
mod points;
mod process;
mod raw;
mod raw_files;
mod raw_futex;
mod raw_many;
mod raw_memory;
mod raw_sync;
mod reopen;
mod report;
mod resources;
mod runner;
mod scale;
mod scan;
mod subject;
mod suite;
mod synced;
mod threads;

fn main() -> ExitCode {
    let mut subjects: Vec<&dyn Subject> = vec![&ours::Ottla];
    subjects.extend(raw::SUBJECTS);
    suite::main(&subjects)
}
