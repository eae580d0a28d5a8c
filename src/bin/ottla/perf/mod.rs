//! `ottla perf`: how many records and bytes a second, and how soon a consumer has them.
//!
//! Every command prepares its bytes before it looks at the clock, reads back what it wrote and compares, and
//! removes what it made.

mod consume;
mod latency;
mod open;
mod payload;
mod place;
mod produce;
mod read;
mod report;
mod usage;

use std::path::Path;

use crate::args::PerfCommand;
use crate::failure::Failure;
use crate::perf::place::Place;
use crate::perf::report::Report;

pub(crate) fn run(root: Option<&Path>, command: &PerfCommand) -> Result<(), Failure> {
    let (what, shared) = match command {
        PerfCommand::Produce(args) => ("produce", &args.shared),
        PerfCommand::Consume(args) => ("consume", &args.shared),
        PerfCommand::Read(args) => ("read", &args.shared),
        PerfCommand::Latency(args) => ("latency", &args.shared),
        PerfCommand::Open(args) => ("open", args),
    };
    let place = Place::new(root, shared)?;
    let mut report = Report::of(what, shared);
    let measured = match command {
        PerfCommand::Produce(args) => produce::measure(&place, args, &mut report),
        PerfCommand::Consume(args) => consume::measure(&place, args, &mut report),
        PerfCommand::Read(args) => read::measure(&place, args, &mut report),
        PerfCommand::Latency(args) => latency::measure(&place, args, &mut report),
        PerfCommand::Open(args) => open::measure(&place, args, &mut report),
    };
    report.memory();
    let cleared = place.clear();
    measured?;
    cleared?;
    report.print(shared.json)
}
