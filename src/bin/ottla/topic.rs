//! `ottla topic`: create, list, describe, alter, remove.

use std::io::Write;
use std::path::Path;

use ottla::ConfigEffect;
use ottla::Store;
use ottla::TopicConfig;
use ottla::TopicDescription;

use crate::args::DeleteRecordsArgs;
use crate::args::TopicCommand;
use crate::failure::Failure;
use crate::table;
use crate::terminal;
use crate::text;

pub(crate) fn run(root: &Path, command: &TopicCommand) -> Result<(), Failure> {
    match command {
        TopicCommand::Create { name, partitions, config } => {
            let mut topic = TopicConfig::new().partitions(*partitions);
            for (key, value) in config {
                topic = topic.set(key, value)?;
            }
            let store = Store::open(root)?;
            store.create_topic(name, topic)?;
            store.close()?;
            Ok(())
        }
        TopicCommand::Ls { long } => list(root, *long),
        TopicCommand::Describe { name, all } => {
            let store = Store::open_read_only(root)?;
            let description = store.topic(name)?.describe()?;
            describe(&description, *all)
        }
        TopicCommand::Alter { name, config, unset } => {
            let set = config.iter().map(|(key, value)| (key.as_str(), Some(value.as_str())));
            let changes: Vec<_> = set.chain(unset.iter().map(|key| (key.as_str(), None))).collect();
            if changes.is_empty() {
                let text = "nothing to change: give -c KEY=VALUE or --unset KEY";
                return Err(Failure::Usage(text.into()));
            }
            let store = open(root)?;
            store.topic(name)?.alter_all(&changes)?;
            store.close()?;
            Ok(())
        }
        TopicCommand::AddPartitions { name, count } => {
            let store = open(root)?;
            store.topic(name)?.add_partitions(*count)?;
            store.close()?;
            Ok(())
        }
        TopicCommand::Rm { name } => {
            let store = open(root)?;
            store.delete_topic(name)?;
            store.close()?;
            Ok(())
        }
    }
}

/// Deletes the beginning of a partition.
pub(crate) fn delete_records(root: &Path, records: &DeleteRecordsArgs) -> Result<(), Failure> {
    let store = open(root)?;
    let partition = store.topic(&records.topic)?.partition(records.partition)?;
    let start = partition.delete_records(records.before)?;
    drop(partition);
    store.close()?;
    let mut out = terminal::output();
    writeln!(out, "{}:{}:{start}", records.topic, records.partition)?;
    out.flush()?;
    Ok(())
}

/// Opens a data directory that exists, for writing.
pub(crate) fn open(root: &Path) -> Result<Store, Failure> {
    Ok(Store::builder(root).create(false).open()?)
}

fn list(root: &Path, long: bool) -> Result<(), Failure> {
    let store = Store::open_read_only(root)?;
    let mut out = terminal::output();
    for topic in store.topics()? {
        if !long {
            writeln!(out, "{}", topic.name())?;
            continue;
        }
        let description = topic.describe()?;
        let len: u64 = description.partitions.iter().map(|p| p.len).sum();
        let count = description.partitions.len();
        writeln!(out, "{}\t{count}\t{len}", topic.name())?;
    }
    out.flush()?;
    Ok(())
}

fn describe(topic: &TopicDescription, all: bool) -> Result<(), Failure> {
    let mut out = terminal::output();
    writeln!(out, "topic: {}", topic.name)?;
    writeln!(out, "id: {}", topic.id)?;
    let head = ["partition", "start", "end", "durable", "segments", "bytes"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for partition in &topic.partitions {
        let mut row = vec![
            partition.partition.to_string(),
            partition.log_start.to_string(),
            partition.log_end.to_string(),
            partition.durable_end.to_string(),
            partition.segment_count.to_string(),
            format!("{} ({})", partition.len, text::bytes(partition.len as f64)),
        ];
        row.extend(partition.failure.clone());
        rows.push(row);
    }
    table::write(&mut out, &rows)?;

    let shown = topic.configs.iter().filter(|entry| all || !entry.is_default);
    let rows: Vec<_> = shown
        .map(|entry| {
            let effect = match entry.effect {
                ConfigEffect::InForce => "in force",
                ConfigEffect::KeptOnly => "kept, but not acted upon by this version",
                ConfigEffect::NoNetwork => "without meaning here, kept for Kafka",
                _ => "kept",
            };
            let origin = if entry.is_default { "default" } else { "set" };
            let setting = format!("{}={}", entry.name, entry.value);
            vec![setting, origin.to_owned(), effect.to_owned()]
        })
        .collect();
    if !rows.is_empty() {
        writeln!(out)?;
        table::write(&mut out, &rows)?;
    }
    out.flush()?;
    Ok(())
}
