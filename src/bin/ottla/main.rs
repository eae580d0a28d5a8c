//! The `ottla` command: topics, records, groups and files of a data directory, from a shell.
//!
//! Data goes to stdout; counts, progress and errors go to stderr. It exits with 0 if all went well, 1 if
//! something failed, 2 if it was called wrongly. Commands that only look work while an application holds
//! the directory open.

mod args;
mod calendar;
mod compact;
mod consume;
mod du;
mod failure;
mod group;
mod group_args;
mod inspect;
mod layout;
mod member;
mod offsets;
mod perf;
mod produce;
mod reply;
mod request;
mod signals;
mod table;
mod terminal;
mod text;
mod topic;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;
use crate::args::Command;
use crate::failure::Failure;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(usage) => {
            // Help that was asked for goes to stdout and is no failure; clap knows which it is.
            drop(usage.print());
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Topic(command) => topic::run(args.directory()?, command),
        Command::Produce(produce) => produce::run(args.directory()?, produce),
        Command::Consume(consume) => consume::run(args.directory()?, consume),
        Command::Group(command) => group::run(args.directory()?, command),
        Command::Request(request) => request::run(args.directory()?, request),
        Command::Reply(reply) => reply::run(args.directory()?, reply),
        Command::Offsets(offsets) => offsets::run(args.directory()?, offsets),
        Command::Compact(compact) => compact::run(args.directory()?, compact),
        Command::Dump(dump) => inspect::dump(dump),
        Command::Check => inspect::check(args.directory()?),
        Command::Repair(repair) => inspect::repair(args.directory()?, *repair),
        Command::DeleteRecords(records) => topic::delete_records(args.directory()?, records),
        Command::Du(du) => du::run(args.directory()?, du),
        Command::Perf(perf) => perf::run(args.directory.as_deref(), perf),
    }
}
