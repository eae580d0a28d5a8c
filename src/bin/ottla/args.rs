//! What can be asked for: every command, option and help text; those of `group` lie in `group_args`.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as Options;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use ottla::Assignor;
use ottla::Durability;
use ottla::Start;

use crate::failure::Failure;
use crate::group_args::GroupCommand;
use crate::group_args::OutputArgs;
use crate::text;

/// Topics, records, groups and files of an ottla data directory.
///
/// Data goes to stdout; counts, progress and errors go to stderr. Exits with 0 if all went well, 1 if
/// something failed, 2 if it was called wrongly. `topic ls`, `topic describe`, `consume` without -g,
/// `offsets`, `group ls`, `group describe`, `dump` and `check` only look: they work while an application
/// holds the directory.
#[derive(Debug, Parser)]
#[command(name = "ottla", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Args {
    /// The data directory
    #[arg(short = 'd', long = "dir", env = "OTTLA_DIR", global = true, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    pub(crate) fn directory(&self) -> Result<&Path, Failure> {
        self.directory.as_deref().ok_or_else(|| {
            Failure::Usage("which data directory? name it with -d DIR or OTTLA_DIR".into())
        })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create, list, describe, alter and remove topics
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Append the lines of stdin to a topic
    ///
    /// Each line becomes a record, without its newline; a last line without newline counts too. Bytes are
    /// taken as they are and need not be UTF-8. The topic must exist. Ends after a flush, with all records on
    /// stable storage, and says on stderr how many there were.
    Produce(ProduceArgs),
    /// Print the records of a topic
    ///
    /// Without -f or -J prints the value of each record and a newline. Records of one partition come in
    /// order. Damage ends it with exit code 1.
    ///
    /// With -g it reads on where the group stopped, and commits what was printed: once stdout has taken it,
    /// and no more than that, whether it comes to the end, has printed COUNT, is interrupted, or the reader of
    /// stdout leaves. What a second interrupt or `kill -9` cuts off is printed again the next time, never
    /// skipped. It holds the directory for writing, so no application may have it open meanwhile.
    Consume(ConsumeArgs),
    /// See how far consumer groups are, and set them elsewhere
    #[command(subcommand)]
    Group(GroupCommand),
    /// Send the lines of stdin as requests, and print their replies
    ///
    /// Replies are printed in the order of the requests, one a line: how long it took in ms, a tab, the value. A request
    /// that failed, or was not answered in time, is told on stderr, and the exit code is 1.
    ///
    /// One process at a time writes to a directory. This one does so while it sends, and waits for its turn as long as
    /// for a reply; then it only reads, so that `ottla reply` can answer. Lines that are there at the same time are sent
    /// together. While an application holds the directory, the application must do both.
    Request(RequestArgs),
    /// Have a command answer the requests in a topic
    ///
    /// For each request the command is run: the request's value is its stdin, its stdout, without a last newline, is the
    /// reply. If it fails the one who asked gets an error. A request counts as answered once its reply is on stable
    /// storage: what ends this command has the request answered again, and loses none.
    ///
    /// Waits for more until it is interrupted, and then finishes what it has begun. It holds the directory for writing
    /// while there are requests to answer, and only looks while there are none.
    Reply(ReplyArgs),
    /// Print offsets of a topic's partitions, as topic:partition:offset
    ///
    /// One line for each partition; the offset is -1 where no record matches.
    Offsets(OffsetsArgs),
    /// Compact a topic now: of every key the latest record stays
    ///
    /// As the store does in the background when enough is out of date, but regardless of that, and with the last
    /// segment too. The topic needs cleanup.policy=compact. Offsets stay what they were; tombstones stay for
    /// delete.retention.ms, and what is younger than min.compaction.lag.ms stays. It may be interrupted at any time.
    /// What cannot be compacted is said on stderr; damage ends it with exit code 1.
    Compact(CompactArgs),
    /// Print what is in a file or directory, in the words of Kafka's dump tool
    ///
    /// As Kafka prints it with --deep-iteration and --print-data-log, so that the two can be compared. Files
    /// of a directory come in the order of their names.
    Dump(DumpArgs),
    /// Print what each partition takes on the disk, how old it is, and what retention lets go of next
    ///
    /// DISK counts everything in the partition's directory, indexes and reserved space included, BYTES the batches. AGE
    /// is that of the oldest record, LAST that of the newest. DUE is what retention would let go of now, NEXT when, or
    /// behind how many bytes more, it lets go of the segment behind that. Looks only; an application may be at work.
    Du(DuArgs),
    /// Delete the records of a partition below an offset
    ///
    /// Prints the first offset that is left. Whole segments below it are removed from the disk. It holds the directory
    /// for writing, so no application may have it open meanwhile.
    DeleteRecords(DeleteRecordsArgs),
    /// Verify everything in the data directory
    ///
    /// Every checksum of every batch, the order of offsets, indexes, snapshots, checkpoints. Prints one line
    /// for each thing that is wrong, and exits with 1 if there is any.
    Check,
    /// Show what would put a damaged data directory in order, or do it
    ///
    /// Prints one line for each step: cuts off a torn end, sets damaged stretches aside, restores what can be restored,
    /// makes indexes, snapshots and checkpoints anew. Every record that can be read stays, at its offset; what is taken
    /// out is kept in a file beside. Changes nothing without --apply. Exits with 1 if something is wrong: before, or
    /// with --apply still. No application may have the directory open meanwhile.
    Repair(RepairArgs),
    /// Measure this machine
    ///
    /// Without -d in a temporary directory, which is removed afterwards.
    #[command(subcommand)]
    Perf(PerfCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Create a topic; makes the data directory if need be
    Create {
        name: String,
        /// How many partitions it has
        #[arg(short, long, default_value_t = 1, value_name = "N")]
        partitions: u32,
        /// A property, by Kafka's name
        #[arg(short, long, value_name = "KEY=VALUE", value_parser = key_and_value)]
        config: Vec<(String, String)>,
    },
    /// List the topics
    Ls {
        /// Also print the number of partitions and of bytes
        #[arg(short, long)]
        long: bool,
    },
    /// Print a topic's partitions and properties
    Describe {
        name: String,
        /// Also print the properties that are at their default
        #[arg(long)]
        all: bool,
    },
    /// Change properties of a topic: all that are given, or none
    #[command(arg_required_else_help = true)]
    Alter {
        name: String,
        /// Set a property, by Kafka's name
        #[arg(short, long, value_name = "KEY=VALUE", value_parser = key_and_value)]
        config: Vec<(String, String)>,
        /// Return a property to its default
        #[arg(long, value_name = "KEY")]
        unset: Vec<String>,
    },
    /// Raise the number of partitions to COUNT
    AddPartitions {
        name: String,
        #[arg(value_name = "COUNT")]
        count: u32,
    },
    /// Delete a topic and its records
    Rm { name: String },
}

#[derive(Debug, Options)]
pub(crate) struct ProduceArgs {
    /// An existing topic
    pub(crate) topic: String,
    /// Append to this partition, whatever the key
    #[arg(short, long, value_name = "N")]
    pub(crate) partition: Option<u32>,
    /// Split each line at the first SEP: the key is in front of it, the value behind; a line without SEP has
    /// a null key. Escapes: \n \t \r \\ \xNN
    #[arg(short = 'K', long = "key-separator", value_name = "SEP", value_parser = separator)]
    pub(crate) key_separator: Option<Bytes>,
    /// Add a header to every record; without `=` its value is null
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE")]
    pub(crate) headers: Vec<String>,
    /// Each line begins with a timestamp, in milliseconds since 1970, and a tab
    #[arg(short = 't', long)]
    pub(crate) timestamps: bool,
    #[command(flatten)]
    pub(crate) staging: StagingArgs,
}

/// Whether records wait for company; either option makes them.
#[derive(Clone, Copy, Debug, Options)]
pub(crate) struct StagingArgs {
    /// Let records wait in memory for others to share a batch with, at most so long
    #[arg(long, value_name = "MS")]
    pub(crate) linger_ms: Option<u64>,
    /// Append records in batches of up to so many bytes
    #[arg(long, value_name = "BYTES")]
    pub(crate) batch_bytes: Option<usize>,
    /// Compress batches: none, gzip, snappy, lz4 or zstd; a topic with a compression.type of its own overrules it
    #[arg(long, value_name = "CODEC", value_parser = codec)]
    pub(crate) compression: Option<&'static str>,
}

fn codec(name: &str) -> Result<&'static str, String> {
    let known = ["none", "gzip", "snappy", "lz4", "zstd"];
    let found = known.into_iter().find(|codec| *codec == name);
    found.ok_or_else(|| format!("one of {} is needed", known.join(", ")))
}

impl StagingArgs {
    pub(crate) fn producer(self, store: &ottla::Store) -> ottla::Result<ottla::Producer> {
        let mut builder = store.producer_builder();
        if let Some(ms) = self.linger_ms {
            builder = builder.linger(Duration::from_millis(ms));
        }
        if let Some(bytes) = self.batch_bytes {
            builder = builder.batch_bytes(bytes);
        }
        if let Some(codec) = self.compression {
            builder = builder.set("compression.type", codec)?;
        }
        Ok(builder.build())
    }
}

#[derive(Debug, Options)]
pub(crate) struct ConsumeArgs {
    /// An existing topic; several with -g
    #[arg(value_name = "TOPIC", required_unless_present = "pattern")]
    pub(crate) topics: Vec<String>,
    /// Read on where this group stopped, and commit what was printed
    #[arg(short, long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Read the topics whose whole names match a regular expression, instead of named ones
    #[arg(long, value_name = "REGEX", requires = "group", conflicts_with = "topics")]
    pub(crate) pattern: Option<String>,
    /// The name of a static member
    #[arg(long, value_name = "ID", requires = "group")]
    pub(crate) instance_id: Option<String>,
    /// How the group shares out its partitions: uniform, range, roundrobin, sticky, cooperative-sticky
    #[arg(long, value_name = "NAME", requires = "group", value_parser = assignor)]
    pub(crate) assignor: Option<Assignor>,
    /// Read this partition only
    #[arg(short, long, value_name = "N", conflicts_with = "group")]
    pub(crate) partition: Option<u32>,
    /// Where to begin: `beginning`, `end`, an offset, -N for the last N offsets of each partition, or
    /// @MS for the first record with this timestamp (ms since 1970) or a later one. With -g only in topics
    /// of which the group has committed nothing
    #[arg(short, long, value_name = "START", default_value = "beginning", value_parser = start,
          allow_hyphen_values = true)]
    pub(crate) offset: Start,
    /// Stop after so many records
    #[arg(short, long, value_name = "COUNT")]
    pub(crate) count: Option<u64>,
    /// Stop at the end the topic has when the command starts; the default
    #[arg(short = 'e', long = "exit", conflicts_with = "follow")]
    pub(crate) exit: bool,
    /// Wait for more at the end
    #[arg(long)]
    pub(crate) follow: bool,
    /// %t topic, %p partition, %o offset, %k key, %s value, %T timestamp, %h headers (name=value,…),
    /// %K key length, %S value length (-1 if null), %%; escapes \n \t \r \\ \xNN
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) format: Option<String>,
    /// Print one JSON object a line
    #[arg(short = 'J', long)]
    pub(crate) json: bool,
}

#[derive(Debug, Options)]
pub(crate) struct RequestArgs {
    /// An existing topic; replies go to the topic TOPIC.replies, which is made if need be
    pub(crate) topic: String,
    /// How long to wait for each reply
    #[arg(long, default_value_t = 5000, value_name = "MS")]
    timeout: u32,
}

impl RequestArgs {
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.timeout))
    }
}

#[derive(Debug, Options)]
pub(crate) struct ReplyArgs {
    /// An existing topic
    pub(crate) topic: String,
    /// The group that shares the requests
    #[arg(short, long, value_name = "GROUP")]
    pub(crate) group: String,
    /// Stop once every request is answered
    #[arg(short = 'e', long = "exit")]
    pub(crate) exit: bool,
    /// How many commands may run at the same time, each for another partition
    #[arg(short = 'j', long, default_value_t = 1, value_name = "N")]
    pub(crate) threads: usize,
    /// The command and its arguments, behind `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Options)]
pub(crate) struct OffsetsArgs {
    /// An existing topic
    pub(crate) topic: String,
    /// `earliest`, `latest`, or a time in ms since 1970: the first record of that time or later
    #[arg(long, default_value = "latest", value_name = "TIME", value_parser = offset_time)]
    pub(crate) time: OffsetTime,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum OffsetTime {
    Earliest,
    Latest,
    At(i64),
}

#[derive(Debug, Options)]
pub(crate) struct CompactArgs {
    /// An existing topic
    pub(crate) topic: String,
    /// Compact this partition only
    #[arg(short, long, value_name = "N")]
    pub(crate) partition: Option<u32>,
    /// Read and write no more than so many bytes a second
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) bytes_per_second: Option<u64>,
    /// Take no more memory than this for keys, 24 bytes each; with little of it the log is gone over several times
    #[arg(long, value_name = "BYTES")]
    pub(crate) key_buffer_bytes: Option<usize>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Options)]
pub(crate) struct DuArgs {
    /// Only this topic
    pub(crate) topic: Option<String>,
    /// Print one JSON object a line, for each partition
    #[arg(short = 'J', long)]
    pub(crate) json: bool,
}

#[derive(Debug, Options)]
pub(crate) struct DeleteRecordsArgs {
    /// An existing topic
    pub(crate) topic: String,
    /// The number of the partition
    #[arg(short, long, default_value_t = 0, value_name = "N")]
    pub(crate) partition: u32,
    /// The first offset to keep; `end` deletes everything
    #[arg(long, value_name = "OFFSET", value_parser = first_kept)]
    pub(crate) before: i64,
}

/// Kafka's number for the end is -1, which looks like an option.
fn first_kept(text: &str) -> Result<i64, String> {
    match text {
        "end" => Ok(-1),
        number => match number.parse::<i64>() {
            Ok(offset) if offset >= 0 => Ok(offset),
            _ => Err("an offset, or `end`, is needed".into()),
        },
    }
}

#[derive(Clone, Copy, Debug, Options)]
pub(crate) struct RepairArgs {
    /// Do what is shown
    #[arg(long)]
    pub(crate) apply: bool,
}

#[derive(Debug, Options)]
pub(crate) struct DumpArgs {
    /// A .log, .index, .timeindex, .txnindex or .snapshot file, or a directory of them
    pub(crate) path: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PerfCommand {
    /// Append records as fast as it goes
    ///
    /// Values are random bytes, prepared before the clock runs. Afterwards everything is read back and
    /// compared: number, order, bytes.
    Produce(PerfProduceArgs),
    /// Read everything in a topic, touching every byte; fills it first if it is empty
    ///
    /// Each round opens the directory anew and reads it twice: checksums are summed in the first scan.
    Consume(PerfConsumeArgs),
    /// Read single records at random offsets; fills the topic first if it is empty
    Read(PerfReadArgs),
    /// Measure the time from a send to the waking of a waiting consumer
    Latency(PerfLatencyArgs),
    /// Measure how long it takes to open the directory after a clean close; fills the topic first if it is
    /// empty
    Open(PerfArgs),
}

/// What all measurements share.
#[derive(Debug, Options)]
pub(crate) struct PerfArgs {
    /// An existing topic; without it a fresh one, removed at the end
    #[arg(long)]
    pub(crate) topic: Option<String>,
    /// How many records, in each round; by default a million, for `latency` what five seconds take
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) records: Option<u64>,
    /// The size of a value, at least 8: each carries its number
    #[arg(long, default_value_t = 100, value_name = "BYTES", value_parser = value_size)]
    pub(crate) size: usize,
    /// How many records go into one batch; by default 1 for `produce` and `read`, else 256 KiB full
    #[arg(long, value_name = "N", value_parser = batch_count)]
    pub(crate) batch: Option<usize>,
    /// Of a fresh topic
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) partitions: u32,
    /// `synced`, `buffered`, or `every:MS`
    #[arg(long, default_value = "buffered", value_parser = durability)]
    pub(crate) durability: Durability,
    /// How often to measure; figures are medians, the least and the greatest stand behind as _min and _max
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Print one JSON object; names carry their units
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Options)]
pub(crate) struct PerfProduceArgs {
    #[command(flatten)]
    pub(crate) shared: PerfArgs,
    /// How many threads send
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..1000))]
    pub(crate) threads: u32,
    /// When each thread waits for durability: after each send, or once at the end
    #[arg(long, value_enum, default_value_t = Wait::End)]
    pub(crate) wait: Wait,
    #[command(flatten)]
    pub(crate) staging: StagingArgs,
    /// How many records are sent before the clock runs; by default a tenth
    #[arg(long, value_name = "N")]
    pub(crate) warm_up: Option<u64>,
    /// Time each send, too; looking at the clock takes about as long as a send
    #[arg(long)]
    pub(crate) latencies: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wait {
    Each,
    End,
}

#[derive(Debug, Options)]
pub(crate) struct PerfConsumeArgs {
    #[command(flatten)]
    pub(crate) shared: PerfArgs,
}

#[derive(Debug, Options)]
pub(crate) struct PerfReadArgs {
    #[command(flatten)]
    pub(crate) shared: PerfArgs,
    /// How many reads, in each round
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) reads: u64,
    /// What offsets are drawn from
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Time each read, too
    #[arg(long)]
    pub(crate) latencies: bool,
}

#[derive(Debug, Options)]
pub(crate) struct PerfLatencyArgs {
    #[command(flatten)]
    pub(crate) shared: PerfArgs,
    /// How many records are sent in a second
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: u32,
    /// How long the consumer looks again before it sleeps
    #[arg(long, default_value_t = 20, value_name = "US")]
    pub(crate) spin_us: u64,
    /// How the sender waits for the time of the next record: `spin` looks at the clock all the time
    #[arg(long, value_enum, default_value_t = Pace::Spin)]
    pub(crate) pace: Pace,
    /// The consumer never sleeps: it polls with a timeout of zero
    #[arg(long)]
    pub(crate) busy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pace {
    Spin,
    Sleep,
}

/// An argument's bytes; a type of its own, because clap takes a plain `Vec` for a list of arguments.
#[derive(Clone, Debug)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it should be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn separator(text: &str) -> Result<Bytes, String> {
    let bytes = text::unescape(text)?;
    if bytes.is_empty() {
        return Err("it is empty".into());
    }
    Ok(Bytes(bytes))
}

fn start(text: &str) -> Result<Start, String> {
    let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= 0);
    let start = match (text, text.strip_prefix('@'), text.strip_prefix('-')) {
        ("beginning", ..) => Some(Start::Earliest),
        ("end", ..) => Some(Start::Latest),
        (_, Some(time), _) => number(time).map(Start::Timestamp),
        (_, _, Some(last)) => number(last).map(|last| Start::Last(last.unsigned_abs())),
        _ => number(text).map(Start::Offset),
    };
    start.ok_or_else(|| "it should be `beginning`, `end`, N, -N or @TIMESTAMP_MS".into())
}

fn assignor(name: &str) -> Result<Assignor, String> {
    name.parse().map_err(|error: ottla::Error| error.to_string())
}

fn offset_time(text: &str) -> Result<OffsetTime, String> {
    match (text, text.parse()) {
        // Kafka's tools know both by these numbers, too.
        ("earliest" | "-2", _) => Ok(OffsetTime::Earliest),
        ("latest" | "-1", _) => Ok(OffsetTime::Latest),
        (_, Ok(time)) if time >= 0 => Ok(OffsetTime::At(time)),
        _ => Err("it should be `earliest`, `latest` or a number of milliseconds".into()),
    }
}

fn value_size(text: &str) -> Result<usize, String> {
    let size = text.parse().ok().filter(|size| *size >= 8);
    size.ok_or_else(|| "it should be a number of bytes, at least 8".into())
}

fn batch_count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=1_000_000).contains(count));
    count.ok_or_else(|| "it should be a number from 1 to 1000000".into())
}

fn durability(text: &str) -> Result<Durability, String> {
    let every = text.strip_prefix("every:").and_then(|ms| ms.parse().ok());
    match (text, every) {
        ("synced", _) => Ok(Durability::Synced),
        ("buffered", _) => Ok(Durability::Buffered),
        (_, Some(ms)) => Ok(Durability::Every(Duration::from_millis(ms))),
        _ => Err("it should be `synced`, `buffered` or `every:MS`".into()),
    }
}
