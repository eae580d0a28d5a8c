//! `ottla du`: what partitions take on the disk, and what goes next.

use std::io::Write;
use std::path::Path;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use ottla::PartitionDescription;
use ottla::Store;
use ottla::Topic;
use serde_json::json;

use crate::args::DuArgs;
use crate::failure::Failure;
use crate::table;
use crate::terminal;
use crate::text;

const NONE: &str = "-";

pub(crate) fn run(root: &Path, du: &DuArgs) -> Result<(), Failure> {
    let store = Store::open_read_only(root)?;
    let topics: Vec<Topic> = match &du.topic {
        Some(name) => vec![store.topic(name)?],
        None => store.topics()?,
    };
    let mut partitions = Vec::new();
    for topic in &topics {
        let described = topic.describe()?.partitions;
        partitions.extend(described.into_iter().map(|p| (topic.name().to_owned(), p)));
    }
    if du.json { write_json(&partitions) } else { write_table(&partitions) }
}

fn write_table(partitions: &[(String, PartitionDescription)]) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
    let head = ["PARTITION", "DISK", "BYTES", "SEGMENTS", "AGE", "LAST", "DUE", "NEXT"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let bytes = |count: u64| text::bytes(count as f64);
    let age = |ms: Option<i64>| {
        // A record may say that it is of the future.
        let age = ms.map(|ms| u64::try_from(now_ms.saturating_sub(ms)).unwrap_or(0));
        age.map_or(NONE.to_owned(), text::span)
    };
    let (mut disk, mut log, mut segments, mut due) = (0, 0, 0, 0);
    for (topic, partition) in partitions {
        let outlook = &partition.retention;
        let mut row = vec![
            format!("{}-{}", text::name(topic), partition.partition),
            bytes(partition.allocated_len),
            bytes(partition.len),
            partition.segment_count.to_string(),
            age(partition.oldest_ms),
            age(partition.newest_ms),
            bytes(outlook.due_bytes),
            next(partition, now_ms),
        ];
        row.extend(partition.failure.clone());
        rows.push(row);
        disk += partition.allocated_len;
        log += partition.len;
        segments += partition.segment_count;
        due += outlook.due_bytes;
    }
    let all = [bytes(disk), bytes(log), segments.to_string()];
    let mut total = vec!["total".to_owned()];
    total.extend(all);
    total.extend([NONE.to_owned(), NONE.to_owned(), bytes(due), NONE.to_owned()]);
    rows.push(total);
    let mut out = terminal::output();
    table::write(&mut out, &rows)?;
    out.flush()?;
    Ok(())
}

/// Says when the next segment goes: in so much time, or behind so many bytes, whatever comes first.
fn next(partition: &PartitionDescription, now_ms: i64) -> String {
    let outlook = &partition.retention;
    let at = outlook.next_at_ms.map(|at| u64::try_from(at.saturating_sub(now_ms)).unwrap_or(0));
    let at =
        at.map(|ms| format!("{} in {}", text::bytes(outlook.next_bytes as f64), text::span(ms)));
    let after = outlook.next_after_bytes.map(|more| {
        let next = text::bytes(outlook.next_bytes as f64);
        format!("{next} after {}", text::bytes(more as f64))
    });
    match (at, after) {
        (Some(at), Some(after)) => format!("{at} or {after}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => NONE.to_owned(),
    }
}

fn write_json(partitions: &[(String, PartitionDescription)]) -> Result<(), Failure> {
    let mut out = terminal::output();
    for (topic, partition) in partitions {
        let outlook = &partition.retention;
        let object = json!({
            "topic": topic,
            "partition": partition.partition,
            "disk_bytes": partition.allocated_len,
            "bytes": partition.len,
            "deleted_bytes": partition.deleted_len,
            "segments": partition.segment_count,
            "oldest_ms": partition.oldest_ms,
            "newest_ms": partition.newest_ms,
            "due_segments": outlook.due_segments,
            "due_bytes": outlook.due_bytes,
            "next_bytes": outlook.next_bytes,
            "next_at_ms": outlook.next_at_ms,
            "next_after_bytes": outlook.next_after_bytes,
            "failure": partition.failure,
        });
        writeln!(out, "{object}")?;
    }
    out.flush()?;
    Ok(())
}
