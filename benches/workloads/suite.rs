//! The whole of it: arguments, children, all families of workloads, the report.

use std::process::ExitCode;

use crate::append;
use crate::arguments::Arguments;
use crate::child;
use crate::latency;
use crate::points;
use crate::reopen;
use crate::report;
use crate::resources;
use crate::runner::Runner;
use crate::scale;
use crate::scan;
use crate::subject::Failure;
use crate::subject::Outcome;
use crate::subject::Subject;
use crate::synced;
use crate::threads;

pub(crate) fn main(subjects: &[&dyn Subject]) -> ExitCode {
    match run(subjects) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Unsupported(reason)) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
        Err(Failure::Failed(what)) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

fn run(subjects: &[&dyn Subject]) -> Outcome {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == child::ARGUMENT) {
        return child::run(subjects, &words[1..]);
    }
    let arguments = Arguments::parse(words.into_iter())?;
    let is_wanted = |subject: &&&dyn Subject| {
        let name = subject.name();
        arguments.subjects.is_empty()
            || name.starts_with(report::OURS)
            || name.starts_with("raw-")
            || arguments.subjects.iter().any(|wanted| wanted == name)
    };
    let wanted: Vec<&dyn Subject> = subjects.iter().filter(is_wanted).copied().collect();
    let mut runner = Runner::new(&arguments, &wanted);
    for family in [
        append::run,
        threads::run,
        synced::run,
        scan::run,
        latency::run,
        reopen::run,
        points::run,
        resources::run,
        scale::run,
    ] {
        family(&mut runner)?;
    }
    if arguments.cell.is_some() {
        return Ok(());
    }
    let cases = runner.into_cases();
    report::print_guarantees(&cases);
    Ok(())
}
