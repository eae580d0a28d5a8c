//! What can be asked for with `ottla group`.

use std::time::Duration;

use clap::ArgGroup;
use clap::Args as Options;
use clap::Subcommand;
use clap::ValueEnum;
use ottla::ResetTo;

use crate::calendar;

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// List the groups that have members or have committed something
    Ls {
        /// Also print each one's state, number of members, and lag in records
        #[arg(short, long)]
        long: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print how far a group is in each partition, and who reads it
    ///
    /// The columns are those of Kafka's kafka-consumer-groups, and behind them TIME-LAG: how old the oldest
    /// record is that the group has yet to read. JSON has everything in one object.
    Describe {
        group: String,
        /// Print its members and what each one reads
        #[arg(long, conflicts_with = "state")]
        members: bool,
        /// Print its state, and how its partitions are shared out
        #[arg(long)]
        state: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Have a group go on elsewhere; it must have no members
    ///
    /// Prints what was changed: all that is asked for, or nothing. A group that does not exist comes into
    /// being by it, with --topic.
    ResetOffsets(ResetArgs),
    /// Delete a group and all it committed; it must have no members
    Rm {
        group: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Delete what a group committed of some partitions, and print it
    DeleteOffsets {
        group: String,
        /// All partitions of a topic, or those that are named; may be given several times
        #[arg(long = "topic", required = true, value_name = "TOPIC[:N,N…]", value_parser = selection)]
        topics: Vec<Selection>,
        #[command(flatten)]
        output: OutputArgs,
    },
}

#[derive(Clone, Copy, Debug, Options)]
pub(crate) struct OutputArgs {
    /// Print aligned columns, or one JSON object a line
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

#[derive(Debug, Options)]
#[command(group = ArgGroup::new("partitions").required(true).args(["all_topics", "topics"]))]
#[command(group = ArgGroup::new("target").required(true))]
pub(crate) struct ResetArgs {
    pub(crate) group: String,
    /// Every partition that the group has committed something of
    #[arg(long)]
    pub(crate) all_topics: bool,
    /// All partitions of a topic, or those that are named; may be given several times
    #[arg(long = "topic", value_name = "TOPIC[:N,N…]", value_parser = selection)]
    pub(crate) topics: Vec<Selection>,
    /// To the first record there is
    #[arg(long, group = "target")]
    to_earliest: bool,
    /// Behind the last record
    #[arg(long, group = "target")]
    to_latest: bool,
    /// To where the group is, but within the log; behind the last record where it is nowhere
    #[arg(long, group = "target")]
    to_current: bool,
    /// To this offset
    #[arg(long, group = "target", value_name = "OFFSET", allow_hyphen_values = true)]
    to_offset: Option<i64>,
    /// So many offsets further on, or back if negative; no further than the log goes
    #[arg(long, group = "target", value_name = "N", allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// To the first record of this time or later: 2024-02-29T12:30:00.000+01:00, without a zone in UTC, or
    /// @MS in ms since 1970
    #[arg(long, group = "target", value_name = "TIME", value_parser = calendar::timestamp_ms)]
    to_datetime: Option<i64>,
    /// To the first record that is no older: 90s, 1d12h, or as Kafka has it, P1DT12H
    #[arg(long, group = "target", value_name = "DURATION", value_parser = calendar::duration)]
    by_duration: Option<Duration>,
    /// Only print what would be changed; works while an application holds the directory
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl ResetArgs {
    /// Gives where the group is to go on; `None` is where it is.
    pub(crate) fn target(&self) -> Option<ResetTo> {
        let by_flag = [
            self.to_earliest.then_some(ResetTo::Earliest),
            self.to_latest.then_some(ResetTo::Latest),
            self.to_offset.map(ResetTo::Offset),
            self.shift_by.map(ResetTo::Shift),
            self.to_datetime.map(ResetTo::Timestamp),
            self.by_duration.map(ResetTo::ByDuration),
        ];
        // One of them, or `--to-current`, was given: clap sees to it.
        by_flag.into_iter().flatten().next()
    }
}

/// A topic, and which of its partitions.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) topic: String,
    /// Empty for all of them.
    pub(crate) partitions: Vec<u32>,
}

fn selection(text: &str) -> Result<Selection, String> {
    let (topic, numbers) = match text.split_once(':') {
        None => (text, Vec::new()),
        Some((topic, numbers)) => {
            let numbers = numbers.split(',').map(|number| number.parse().ok());
            let numbers: Option<Vec<u32>> = numbers.collect();
            (topic, numbers.ok_or("it should be TOPIC or TOPIC:N,N…")?)
        }
    };
    Ok(Selection { topic: topic.to_owned(), partitions: numbers })
}
