//! `ottla group`: how far groups are, and setting them elsewhere.
//!
//! What only looks opens the directory read-only, and so works beside whoever holds it.

use std::io;
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use ottla::ConsumerGroup;
use ottla::Error;
use ottla::GroupDescription;
use ottla::GroupPartitionDescription;
use ottla::GroupStatus;
use ottla::MemberDescription;
use ottla::OffsetAndMetadata;
use ottla::OffsetChange;
use ottla::ResetTo;
use ottla::Store;
use ottla::TopicPartition;
use serde_json::Value;
use serde_json::json;

use crate::failure::Failure;
use crate::group_args::GroupCommand;
use crate::group_args::Output;
use crate::group_args::ResetArgs;
use crate::group_args::Selection;
use crate::table;
use crate::terminal;
use crate::text;

pub(crate) fn run(root: &Path, command: &GroupCommand) -> Result<(), Failure> {
    match command {
        GroupCommand::Ls { long, output } => list(root, *long, output.output),
        GroupCommand::Describe { group, members, state, output } => {
            let store = Store::open_read_only(root)?;
            let description = store.group(group)?.describe()?;
            if output.output == Output::Json {
                return write_json([described(&description)]);
            }
            // As Kafka's tool does: those who only want the columns need not see it.
            if description.members.is_empty() {
                let shown = text::name(group);
                terminal::tell(format_args!("group `{shown}` has no active members"));
            }
            match (members, state) {
                (true, _) => write_table(&MEMBERS_HEAD, member_rows(&description)),
                (_, true) => write_table(&STATE_HEAD, vec![state_row(&description)]),
                _ => write_table(&OFFSETS_HEAD, offset_rows(&description)),
            }
        }
        GroupCommand::ResetOffsets(reset) => reset_offsets(root, reset),
        GroupCommand::Rm { group, output } => {
            let store = open_for_writing(root, group)?;
            store.group(group)?.delete()?;
            store.close()?;
            match output.output {
                Output::Json => write_json([json!({"group": group, "deleted": true})]),
                Output::Table => Ok(()),
            }
        }
        GroupCommand::DeleteOffsets { group, topics, output } => {
            delete_offsets(root, group, topics, output.output)
        }
    }
}

/// Opens a directory to change something of a group, or to be a member of it.
pub(crate) fn open_for_writing(root: &Path, group: &str) -> Result<Store, Failure> {
    Store::builder(root).create(false).open().map_err(|error| match error {
        // Whoever holds the directory has the group's members, too: they are what a user would have to stop.
        Error::Locked { .. } => match member_count(root, group) {
            0 => Failure::Store(error),
            count => {
                let members = if count == 1 { "a member" } else { "members" };
                let shown = text::name(group);
                Failure::Other(format!("group `{shown}` has {members}: {error}"))
            }
        },
        other => other.into(),
    })
}

/// Counts a group's members as far as one can tell from beside.
fn member_count(root: &Path, group: &str) -> usize {
    let look = || Store::open_read_only(root)?.group(group)?.describe();
    look().map_or(0, |description| description.members.len())
}

fn list(root: &Path, long: bool, output: Output) -> Result<(), Failure> {
    let store = Store::open_read_only(root)?;
    let mut out = terminal::output();
    for group in store.groups()? {
        if !long && output == Output::Table {
            writeln!(out, "{}", text::name(group.id()))?;
            continue;
        }
        let description = group.describe()?;
        let lag: i64 = description.partitions.iter().filter_map(|p| p.lag).sum();
        let (state, members) = (state_of(description.status), description.members.len());
        if output == Output::Json {
            let object = json!({
                "group": description.group,
                "state": state,
                "members": members,
                "lag": lag,
            });
            writeln!(out, "{object}")?;
        } else {
            writeln!(out, "{}\t{state}\t{members}\t{lag}", text::name(group.id()))?;
        }
    }
    out.flush()?;
    Ok(())
}

fn reset_offsets(root: &Path, args: &ResetArgs) -> Result<(), Failure> {
    let store = match args.dry_run {
        true => Store::open_read_only(root)?,
        false => open_for_writing(root, &args.group)?,
    };
    let group = store.group(&args.group)?;
    let partitions = match args.all_topics {
        true => on_record(&store, &group)?,
        false => selected(&store, &args.topics)?,
    };
    let changes = match (args.target(), args.dry_run) {
        (Some(to), true) => group.plan_reset(to, partitions)?,
        (Some(to), false) => group.reset_offsets(to, partitions)?,
        (None, is_dry) => {
            let (changes, offsets) = stay(&group, partitions)?;
            if !is_dry {
                group.alter_offsets(offsets)?;
            }
            changes
        }
    };
    let told = write_changes(&args.group, &changes, args.output.output);
    drop((changes, group));
    if !args.dry_run {
        store.close()?;
    }
    told
}

/// What is to be changed, and the offsets that do it, as they are put on record.
type Planned = (Vec<OffsetChange>, Vec<(TopicPartition, OffsetAndMetadata)>);

/// Plans to leave a group where it is, but within the log, and behind the last record where it is nowhere.
fn stay(group: &ConsumerGroup, partitions: Vec<TopicPartition>) -> Result<Planned, Failure> {
    let known = match group.offsets() {
        Err(Error::UnknownGroup { .. }) => Vec::new(),
        known => known?,
    };
    let noted = |partition: &TopicPartition| {
        let (topic, number) = (partition.topic().name(), partition.partition());
        known.iter().find(|(t, n, _)| t == topic && *n == number).map(|(.., noted)| noted)
    };
    let (here, nowhere): (Vec<_>, Vec<_>) =
        partitions.into_iter().partition(|partition| noted(partition).is_some());
    let mut changes = group.plan_reset(ResetTo::Shift(0), here)?;
    changes.extend(group.plan_reset(ResetTo::Latest, nowhere)?);
    changes.sort_by_key(|c| (c.partition.topic().name().to_owned(), c.partition.partition()));
    let offset = |change: &OffsetChange| {
        let metadata = noted(&change.partition).map_or("", OffsetAndMetadata::metadata);
        (change.partition.clone(), OffsetAndMetadata::new(change.to).with_metadata(metadata))
    };
    let offsets = changes.iter().map(offset).collect();
    Ok((changes, offsets))
}

fn delete_offsets(
    root: &Path,
    id: &str,
    topics: &[Selection],
    output: Output,
) -> Result<(), Failure> {
    let store = open_for_writing(root, id)?;
    let group = store.group(id)?;
    let known = group.offsets()?;
    for selection in topics {
        // A topic that is gone can be named as well, as long as something is on record of it.
        let is_known = known.iter().any(|(topic, _, _)| *topic == selection.topic);
        if !is_known || store.topic(&selection.topic).is_ok() {
            selected(&store, std::slice::from_ref(selection))?;
        }
    }
    let is_meant = |topic: &str, number: u32| {
        let of_it = topics.iter().filter(|selection| selection.topic == topic);
        let mut numbers = of_it.map(|selection| &selection.partitions);
        numbers.any(|numbers| numbers.is_empty() || numbers.contains(&number))
    };
    let meant: Vec<_> = known.into_iter().filter(|(t, n, _)| is_meant(t, *n)).collect();
    if meant.is_empty() {
        let text = format!("group `{}` has committed nothing of these partitions", text::name(id));
        return Err(Failure::Other(text));
    }
    group.delete_offsets_named(meant.iter().map(|(topic, number, _)| (topic, *number)))?;
    drop(group);
    store.close()?;
    if output == Output::Json {
        return write_json(meant.iter().map(|(topic, partition, noted)| {
            json!({
                "group": id,
                "topic": topic,
                "partition": partition,
                "old_offset": noted.offset(),
            })
        }));
    }
    let rows = meant.into_iter().map(|(topic, partition, noted)| {
        vec![text::name(id), topic, partition.to_string(), noted.offset().to_string()]
    });
    write_table(&["GROUP", "TOPIC", "PARTITION", "OLD-OFFSET"], rows.collect())
}

/// Gives the partitions that are named.
fn selected(store: &Store, selections: &[Selection]) -> Result<Vec<TopicPartition>, Failure> {
    let mut selected = Vec::new();
    for Selection { topic, partitions } in selections {
        let topic = store.topic(topic)?;
        if partitions.is_empty() {
            selected.extend(topic.partitions());
        }
        for number in partitions {
            selected.push(topic.partition(*number)?);
        }
    }
    Ok(selected)
}

/// Gives the partitions that a group has committed something of; those that are no more are told.
fn on_record(store: &Store, group: &ConsumerGroup) -> Result<Vec<TopicPartition>, Failure> {
    let mut found = Vec::new();
    for (topic, number, _) in group.offsets()? {
        match store.topic(&topic).and_then(|topic| topic.partition(number)) {
            Ok(partition) => found.push(partition),
            Err(error @ (Error::UnknownTopic { .. } | Error::UnknownPartition { .. })) => {
                terminal::tell(format_args!("{topic}-{number} is passed over: {error}"));
            }
            Err(other) => return Err(other.into()),
        }
    }
    if found.is_empty() {
        let id = text::name(group.id());
        let text = format!("group `{id}` has committed nothing; name topics with --topic");
        return Err(Failure::Other(text));
    }
    Ok(found)
}

fn write_changes(group: &str, changes: &[OffsetChange], output: Output) -> Result<(), Failure> {
    if output == Output::Json {
        return write_json(changes.iter().map(|change| {
            json!({
                "group": group,
                "topic": change.partition.topic().name(),
                "partition": change.partition.partition(),
                "new_offset": change.to,
                "old_offset": change.from,
            })
        }));
    }
    let rows = changes.iter().map(|change| {
        let (topic, number) = (change.partition.topic().name(), change.partition.partition());
        let (from, to) = (optional(change.from), change.to.to_string());
        vec![text::name(group), topic.to_owned(), number.to_string(), to, from]
    });
    write_table(&["GROUP", "TOPIC", "PARTITION", "NEW-OFFSET", "OLD-OFFSET"], rows.collect())
}

fn offset_rows(description: &GroupDescription) -> Vec<Vec<String>> {
    let now_ms = now_ms();
    let group = text::name(&description.group);
    let member = |id: Option<&str>| {
        let member = id.and_then(|id| description.members.iter().find(|m| m.member_id == id));
        member.map_or([NONE, NONE, NONE].map(str::to_owned), |member| {
            [text::name(&member.member_id), HOST.to_owned(), named(&member.client_id)]
        })
    };
    let of_partition = |partition: &GroupPartitionDescription| {
        let committed = partition.committed.as_ref().map(OffsetAndMetadata::offset);
        let mut row = vec![
            group.clone(),
            partition.topic.clone(),
            partition.partition.to_string(),
            optional(committed),
            optional(partition.log_end),
            optional(partition.lag),
        ];
        row.extend(member(partition.member_id.as_deref()));
        row.push(time_lag_ms(partition, now_ms).map_or(NONE.to_owned(), text::span));
        row
    };
    let mut rows: Vec<_> = description.partitions.iter().map(of_partition).collect();
    for idle in description.members.iter().filter(|member| member.assignment.is_empty()) {
        let mut row = vec![group.clone()];
        row.extend([NONE; 5].map(str::to_owned));
        row.extend(member(Some(&idle.member_id)));
        row.push(NONE.to_owned());
        rows.push(row);
    }
    rows
}

fn member_rows(description: &GroupDescription) -> Vec<Vec<String>> {
    let row = |member: &MemberDescription| {
        vec![
            text::name(&description.group),
            text::name(&member.member_id),
            member.instance_id.as_deref().map_or(NONE.to_owned(), named),
            HOST.to_owned(),
            named(&member.client_id),
            member.assignment.len().to_string(),
            assignment_text(&member.assignment),
        ]
    };
    description.members.iter().map(row).collect()
}

fn state_row(description: &GroupDescription) -> Vec<String> {
    vec![
        text::name(&description.group),
        description.assignor.as_deref().map_or(NONE.to_owned(), named),
        state_of(description.status).to_owned(),
        description.members.len().to_string(),
    ]
}

/// Shows an assignment as Kafka's tool does: `t(0,1), u(2)`.
fn assignment_text(assignment: &[(String, u32)]) -> String {
    let by_topic = assignment.chunk_by(|(one, _), (other, _)| one == other).map(|of_one| {
        let numbers: Vec<String> = of_one.iter().map(|(_, number)| number.to_string()).collect();
        format!("{}({})", of_one[0].0, numbers.join(","))
    });
    let all: Vec<String> = by_topic.collect();
    if all.is_empty() { NONE.to_owned() } else { all.join(", ") }
}

fn described(description: &GroupDescription) -> Value {
    let now_ms = now_ms();
    let members = description.members.iter().map(|member| {
        let assignment = member
            .assignment
            .iter()
            .map(|(topic, partition)| json!({"topic": topic, "partition": partition}));
        json!({
            "member_id": member.member_id,
            "instance_id": member.instance_id,
            "host": HOST,
            "client_id": member.client_id,
            "assignment": assignment.collect::<Vec<_>>(),
        })
    });
    let partitions = description.partitions.iter().map(|partition| {
        let committed = partition.committed.as_ref();
        json!({
            "topic": partition.topic,
            "partition": partition.partition,
            "current_offset": committed.map(OffsetAndMetadata::offset),
            "metadata": committed.map(OffsetAndMetadata::metadata),
            "commit_ms": partition.commit_timestamp_ms,
            "log_start_offset": partition.log_start,
            "log_end_offset": partition.log_end,
            "lag": partition.lag,
            "deleted_unread": partition.deleted_unread,
            "oldest_unread_ms": partition.oldest_unread_ms,
            "time_lag_ms": time_lag_ms(partition, now_ms),
            "member_id": partition.member_id,
        })
    });
    json!({
        "group": description.group,
        "state": state_of(description.status),
        "assignor": description.assignor,
        "generation": description.generation,
        "members": members.collect::<Vec<_>>(),
        "partitions": partitions.collect::<Vec<_>>(),
    })
}

/// Gives how old the oldest record is that a group has yet to read: 0 if there is none, `None` if nobody knows.
fn time_lag_ms(partition: &GroupPartitionDescription, now_ms: i64) -> Option<u64> {
    match (partition.oldest_unread_ms, partition.lag) {
        // A record may say that it is of the future.
        (Some(oldest_ms), _) => Some(u64::try_from(now_ms.saturating_sub(oldest_ms)).unwrap_or(0)),
        (None, Some(0)) => Some(0),
        (None, _) => None,
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn state_of(status: GroupStatus) -> &'static str {
    match status {
        GroupStatus::Empty => "Empty",
        GroupStatus::Reconciling => "Reconciling",
        GroupStatus::Stable => "Stable",
        _ => "Unknown",
    }
}

fn optional(number: Option<i64>) -> String {
    number.map_or(NONE.to_owned(), |number| number.to_string())
}

fn named(name: &str) -> String {
    if name.is_empty() { NONE.to_owned() } else { text::name(name) }
}

fn write_table(head: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    let mut out = terminal::output();
    let head = head.iter().map(|cell| (*cell).to_owned()).collect();
    table::write(&mut out, &[vec![head], rows].concat())?;
    out.flush()?;
    Ok(())
}

fn write_json(objects: impl IntoIterator<Item = Value>) -> Result<(), Failure> {
    let mut out = terminal::output();
    for object in objects {
        serde_json::to_writer(&mut out, &object).map_err(io::Error::from)?;
        writeln!(out)?;
    }
    out.flush()?;
    Ok(())
}

const OFFSETS_HEAD: [&str; 10] = [
    "GROUP",
    "TOPIC",
    "PARTITION",
    "CURRENT-OFFSET",
    "LOG-END-OFFSET",
    "LAG",
    "CONSUMER-ID",
    "HOST",
    "CLIENT-ID",
    "TIME-LAG",
];
const MEMBERS_HEAD: [&str; 7] =
    ["GROUP", "CONSUMER-ID", "GROUP-INSTANCE-ID", "HOST", "CLIENT-ID", "#PARTITIONS", "ASSIGNMENT"];
const STATE_HEAD: [&str; 4] = ["GROUP", "ASSIGNMENT-STRATEGY", "STATE", "#MEMBERS"];
/// Printed where there is nothing, as Kafka's tool does.
const NONE: &str = "-";
/// Members live in the process that holds the directory.
const HOST: &str = "/127.0.0.1";
