//! `ottla dump`, `ottla check` and `ottla repair`.

use std::fs;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use ottla::Error;
use ottla::TimestampType;
use ottla::inspect;
use ottla::inspect::ControlRecord;
use ottla::inspect::DumpedHeader;
use ottla::inspect::DumpedRecord;
use ottla::inspect::DumpedRecords;
use ottla::inspect::FileKind;
use ottla::repair;

use crate::args::DumpArgs;
use crate::args::RepairArgs;
use crate::failure::Failure;
use crate::terminal;
use crate::text;

/// Verifies a data directory and prints what is wrong.
pub(crate) fn check(root: &Path) -> Result<(), Failure> {
    let bar = terminal::progress_bar(0);
    let report = inspect::check_with(root, |progress| {
        bar.set_length(progress.bytes_total);
        bar.set_position(progress.bytes_done);
    })?;
    bar.finish_and_clear();
    let mut out = terminal::output();
    for problem in &report.problems {
        writeln!(out, "{problem}")?;
    }
    out.flush()?;
    for note in &report.notes {
        terminal::tell(format_args!("note: {note}"));
    }
    let counts = report.counts;
    terminal::tell(format_args!(
        "{} partitions, {} segments, {} batches, {} records, {}: {}",
        counts.partitions,
        counts.segments,
        counts.batches,
        counts.records,
        text::bytes(counts.bytes as f64),
        match report.problems.len() {
            0 => "all is well".to_owned(),
            1 => "1 problem".to_owned(),
            count => format!("{count} problems"),
        },
    ));
    if report.is_good() { Ok(()) } else { Err(Failure::Told) }
}

/// Shows what would put a data directory in order, or does it.
pub(crate) fn repair(root: &Path, args: RepairArgs) -> Result<(), Failure> {
    let report = if args.apply { repair::apply(root)? } else { repair::plan(root)? };
    let mut out = terminal::output();
    for step in &report.steps {
        writeln!(out, "{step}")?;
    }
    out.flush()?;
    for problem in &report.problems {
        let when = if args.apply { "left" } else { "found" };
        terminal::tell(format_args!("{when}: {problem}"));
    }
    let count = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    let (steps, problems) =
        (count(report.steps.len(), "step"), count(report.problems.len(), "problem"));
    let summary = match (report.is_good(), args.apply) {
        (true, true) => format!("{steps} done: all is well"),
        (true, false) => format!("{steps} to do: all is well"),
        (false, true) => format!("{steps} done: {problems} left"),
        (false, false) => format!("{problems}: {steps} to do, with --apply"),
    };
    terminal::tell(format_args!("{summary}"));
    if report.is_good() { Ok(()) } else { Err(Failure::Told) }
}

/// Prints files in the words of Kafka's dump tool.
pub(crate) fn dump(args: &DumpArgs) -> Result<(), Failure> {
    let mut files = Vec::new();
    let is_directory = fs::metadata(&args.path)
        .map_err(|error| Failure::Other(format!("{}: {error}", args.path.display())))?
        .is_dir();
    if is_directory {
        collect(&args.path, &mut files)
            .map_err(|error| Failure::Other(format!("{}: {error}", args.path.display())))?;
    } else {
        files.push(args.path.clone());
    }
    let mut out = terminal::output();
    let mut is_damaged = false;
    for path in &files {
        let dumped = dump_file(path, &mut out);
        out.flush()?;
        match dumped {
            Ok(()) => {}
            Err(Failure::Store(error)) => {
                // One damaged file does not hide the others.
                terminal::tell(format_args!("ottla: {error}"));
                is_damaged = true;
            }
            Err(other) => return Err(other),
        }
    }
    if is_damaged { Err(Failure::Told) } else { Ok(()) }
}

/// Lists the files that can be dumped, those of a directory in the order of their names.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        paths.push((entry.path(), entry.file_type()?.is_dir()));
    }
    paths.sort();
    for (path, is_directory) in paths {
        if is_directory {
            collect(&path, files)?;
        } else if FileKind::of(&path).is_some() {
            files.push(path);
        }
    }
    Ok(())
}

fn dump_file(path: &Path, out: &mut impl Write) -> Result<(), Failure> {
    let Some(kind) = FileKind::of(path) else {
        return Err(Failure::Store(Error::InvalidArgument {
            argument: "PATH",
            reason: "it is not a .log, .index, .timeindex, .txnindex or .snapshot file",
        }));
    };
    writeln!(out, "Dumping {}", path.display())?;
    match kind {
        FileKind::Log => dump_log(path, out)?,
        FileKind::OffsetIndex => {
            for entry in inspect::dump_offset_index(path)? {
                writeln!(out, "offset: {} position: {}", entry.offset, entry.position)?;
            }
        }
        FileKind::TimeIndex => {
            for entry in inspect::dump_time_index(path)? {
                let (timestamp, offset) = (entry.timestamp_ms, entry.offset);
                writeln!(out, "timestamp: {timestamp} offset: {offset}")?;
            }
        }
        FileKind::TransactionIndex => {
            for entry in inspect::dump_transaction_index(path)? {
                writeln!(
                    out,
                    "version: {} producerId: {} firstOffset: {} lastOffset: {} lastStableOffset: {}",
                    entry.version,
                    entry.producer_id,
                    entry.first_offset,
                    entry.last_offset,
                    entry.last_stable_offset,
                )?;
            }
        }
        FileKind::ProducerSnapshot => dump_snapshot(path, out)?,
        _ => {}
    }
    Ok(())
}

fn dump_log(path: &Path, out: &mut impl Write) -> Result<(), Failure> {
    let mut dump = inspect::dump_log(path)?;
    writeln!(out, "Log starting offset: {}", dump.base_offset())?;
    while let Some(batch) = dump.next_batch()? {
        write_header(&batch.header, out)?;
        match batch.records {
            DumpedRecords::Plain(records) => {
                for record in records {
                    write_record(&record, batch.header.timestamp_type, out)?;
                }
            }
            DumpedRecords::Compressed(codec) => {
                writeln!(
                    out,
                    "| records are compressed with {codec}, which this build cannot show"
                )?;
            }
            DumpedRecords::Damaged(reason) => {
                writeln!(out, "| records cannot be shown: {reason}")?;
            }
            _ => {}
        }
    }
    if dump.len_behind() > 0 {
        let (len, position) = (dump.len_behind(), dump.position());
        let path = path.display();
        terminal::tell(format_args!(
            "note: {path}: {len} bytes of reserved space from byte {position} on"
        ));
    }
    Ok(())
}

fn write_header(header: &DumpedHeader, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {} producerId: {} \
         producerEpoch: {} partitionLeaderEpoch: {} isTransactional: {} isControl: {} \
         deleteHorizonMs: {} position: {} {}: {} size: {} magic: {} compresscodec: {} crc: {} \
         isvalid: {}",
        header.base_offset,
        header.last_offset,
        header.record_count,
        header.base_sequence,
        header.last_sequence,
        header.producer_id,
        header.producer_epoch,
        header.leader_epoch,
        header.is_transactional,
        header.is_control,
        optional_long(header.delete_horizon_ms),
        header.position,
        timestamp_name(header.timestamp_type),
        header.max_timestamp_ms,
        header.len,
        header.magic,
        header.compression,
        header.checksum,
        header.is_valid,
    )
}

fn write_record(
    record: &DumpedRecord<'_>,
    timestamp_type: TimestampType,
    out: &mut impl Write,
) -> io::Result<()> {
    let len = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| bytes.len() as i64);
    write!(
        out,
        "| offset: {} {}: {} keySize: {} valueSize: {} sequence: {} headerKeys: [",
        record.offset,
        timestamp_name(timestamp_type),
        record.timestamp_ms,
        len(record.key),
        len(record.value),
        record.sequence,
    )?;
    for (index, header) in record.headers().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        write!(out, "{comma}{}", header.key)?;
    }
    write!(out, "]")?;
    match record.control {
        Some(ControlRecord::Abort { coordinator_epoch }) => {
            write!(out, " endTxnMarker: ABORT coordinatorEpoch: {coordinator_epoch}")?
        }
        Some(ControlRecord::Commit { coordinator_epoch }) => {
            write!(out, " endTxnMarker: COMMIT coordinatorEpoch: {coordinator_epoch}")?
        }
        Some(ControlRecord::Other { kind }) => write!(out, " controlType: {kind}")?,
        Some(_) => {}
        None => {
            // Kafka's tool, too, puts U+FFFD where bytes are not UTF-8.
            if let Some(key) = record.key {
                write!(out, " key: {}", String::from_utf8_lossy(key))?;
            }
            if let Some(value) = record.value {
                write!(out, " payload: {}", String::from_utf8_lossy(value))?;
            }
        }
    }
    writeln!(out)
}

fn dump_snapshot(path: &Path, out: &mut impl Write) -> Result<(), Failure> {
    for entry in inspect::dump_producer_snapshot(path)? {
        write!(
            out,
            "producerId: {} producerEpoch: {} coordinatorEpoch: {} currentTxnFirstOffset: {} \
             lastTimestamp: {} ",
            entry.producer_id,
            entry.producer_epoch,
            entry.coordinator_epoch,
            optional_long(entry.current_transaction_first_offset),
            entry.last_timestamp_ms,
        )?;
        if let Some(batch) = entry.last_batch {
            write!(
                out,
                "firstSequence: {} lastSequence: {} lastOffset: {} offsetDelta: {} timestamp: {}",
                batch.first_sequence,
                batch.last_sequence,
                batch.last_offset,
                batch.offset_delta,
                entry.last_timestamp_ms,
            )?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Shows what Java shows of an `OptionalLong`.
fn optional_long(value: Option<i64>) -> String {
    value.map_or_else(|| "OptionalLong.empty".to_owned(), |value| format!("OptionalLong[{value}]"))
}

fn timestamp_name(timestamp_type: TimestampType) -> &'static str {
    match timestamp_type {
        TimestampType::LogAppendTime => "LogAppendTime",
        _ => "CreateTime",
    }
}
