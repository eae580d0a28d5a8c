//! `ottla compact`: of every key the latest record stays, now.

use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;

use ottla::CompactionProgress;
use ottla::CompactionReport;
use ottla::Finding;
use ottla::Store;
use ottla::TopicPartition;
use serde_json::json;

use crate::args::CompactArgs;
use crate::failure::Failure;
use crate::group_args::Output;
use crate::table;
use crate::terminal;
use crate::text;

pub(crate) fn run(root: &Path, args: &CompactArgs) -> Result<(), Failure> {
    let mut builder = Store::builder(root).create(false).cleaner_enable(false);
    if let Some(bytes) = args.bytes_per_second {
        builder = builder.cleaner_io_max_bytes_per_second(bytes);
    }
    if let Some(bytes) = args.key_buffer_bytes {
        builder = builder.cleaner_dedupe_buffer_size(bytes);
    }
    let store = builder.open()?;
    let topic = store.topic(&args.topic)?;
    let partitions = match args.partition {
        Some(number) => vec![topic.partition(number)?],
        None => topic.partitions(),
    };
    let mut out = terminal::output();
    let head = ["partition", "kept", "dropped", "segments", "bytes", "read", "written"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut is_damaged = false;
    for partition in &partitions {
        let report = compact(partition)?;
        for finding in &report.left {
            is_damaged |= matches!(finding, Finding::Damage { .. });
            terminal::tell(format_args!("ottla: {}", in_words(finding)));
        }
        let counts = &report.counts;
        if args.output.output == Output::Json {
            let object = json!({
                "topic": topic.name(),
                "partition": partition.partition(),
                "records_kept": counts.records_kept,
                "records_dropped": counts.records_dropped,
                "segments_before": counts.segments_before,
                "segments_after": counts.segments_after,
                "bytes_before": counts.bytes_before,
                "bytes_after": counts.bytes_after,
                "bytes_read": counts.bytes_read,
                "bytes_written": counts.bytes_written,
                "left": report.left.iter().map(in_words).collect::<Vec<_>>(),
            });
            writeln!(out, "{object}")?;
            continue;
        }
        let len = |bytes: u64| text::bytes(bytes as f64);
        rows.push(vec![
            partition.partition().to_string(),
            counts.records_kept.to_string(),
            counts.records_dropped.to_string(),
            format!("{} -> {}", counts.segments_before, counts.segments_after),
            format!("{} -> {}", len(counts.bytes_before), len(counts.bytes_after)),
            len(counts.bytes_read),
            len(counts.bytes_written),
        ]);
    }
    if args.output.output == Output::Table {
        table::write(&mut out, &rows)?;
    }
    out.flush()?;
    drop((partitions, topic));
    store.close()?;
    if is_damaged { Err(Failure::Told) } else { Ok(()) }
}

/// Compacts a partition, and shows on a terminal how far that is.
fn compact(partition: &TopicPartition) -> Result<CompactionReport, Failure> {
    let progress = CompactionProgress::new();
    let description = partition.topic().describe()?;
    let len = description.partitions.get(partition.partition() as usize).map_or(0, |p| p.len);
    let bar = terminal::progress_bar(len.saturating_mul(READS));
    let compacted = thread::scope(|scope| {
        let compacting = scope.spawn(|| partition.compact_watched(&progress));
        while !compacting.is_finished() {
            bar.set_position(progress.counts().bytes_read);
            thread::park_timeout(STEP);
        }
        compacting.join()
    });
    bar.finish_and_clear();
    match compacted {
        Ok(report) => Ok(report?),
        Err(_) => Err(Failure::Other("the compaction panicked".into())),
    }
}

fn in_words(finding: &Finding) -> String {
    match finding {
        Finding::Damage { path, position, reason, .. } => {
            format!("damage at byte {position} of {}: {reason}", path.display())
        }
        Finding::Nuisance { path, reason } => format!("{} {reason}", path.display()),
        other => format!("{other:?}"),
    }
}

/// Each byte is read to check it, to learn the keys, and to copy it.
const READS: u64 = 3;
const STEP: Duration = Duration::from_millis(20);
