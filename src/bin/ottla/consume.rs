//! `ottla consume`: records to standard output, as values, by a format, or as JSON.

use std::io;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ottla::Consumer;
use ottla::Error;
use ottla::Message;
use ottla::OffsetReset;
use ottla::Start;
use ottla::Store;
use ottla::TimestampType;
use ottla::TopicPartition;
use serde_json::Map;
use serde_json::Value;

use crate::args::ConsumeArgs;
use crate::failure::Failure;
use crate::terminal;
use crate::text;

pub(crate) fn run(root: &Path, args: &ConsumeArgs) -> Result<(), Failure> {
    let layout = Layout::of(args)?;
    let store = Store::open_read_only(root)?;
    let topic = store.topic(&args.topic)?;
    let partitions = match args.partition {
        Some(number) => vec![topic.partition(number)?],
        None => topic.partitions(),
    };
    let mut ends = Vec::with_capacity(partitions.len());
    for partition in &partitions {
        let (start, end) = partition.watermarks()?;
        // Asked here, because a partition that is read to its end is not polled beyond it.
        if let Some(offset) = offset_of(args.offset).filter(|at| *at < start || *at > end) {
            return Err(Failure::Store(Error::OffsetOutOfRange {
                topic: args.topic.clone(),
                partition: partition.partition(),
                offset,
                start,
                end,
            }));
        }
        ends.push((partition.clone(), end));
    }
    let assignment = partitions.into_iter().map(|p| (p, args.offset));
    let mut consumer = store
        .consumer()
        .max_poll_records(POLL_RECORDS)
        .reset(OffsetReset::Error)
        .assign(assignment)?;
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut out = terminal::output();
    let printed = if args.follow {
        follow(&mut consumer, &layout, &mut left, &mut out)
    } else {
        read_to(&ends, &mut consumer, &layout, &mut left, &mut out)
    };
    // What came before a failure is printed before the failure is told.
    out.flush()?;
    printed
}

fn offset_of(start: Start) -> Option<i64> {
    match start {
        Start::Offset(offset) => Some(offset),
        _ => None,
    }
}

fn follow(
    consumer: &mut Consumer,
    layout: &Layout,
    left: &mut u64,
    out: &mut impl Write,
) -> Result<(), Failure> {
    while *left > 0 {
        let records = consumer.poll(FOLLOW_TIMEOUT)?;
        for message in records.iter() {
            if *left == 0 {
                break;
            }
            layout.write(&message, out)?;
            *left -= 1;
        }
        // Whoever reads along sees it now.
        out.flush()?;
    }
    Ok(())
}

/// Reads every partition up to the end it had at the start.
fn read_to(
    ends: &[(TopicPartition, i64)],
    consumer: &mut Consumer,
    layout: &Layout,
    left: &mut u64,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let end_of = |number: u32| {
        let found = ends.iter().find(|(p, _)| p.partition() == number);
        found.map_or(i64::MAX, |(_, end)| *end)
    };
    let mut before = None;
    while *left > 0 {
        let mut positions = Vec::with_capacity(ends.len());
        for (partition, end) in ends {
            let position = consumer.position(partition)?;
            if position >= *end {
                consumer.pause([partition])?;
            }
            positions.push(position);
        }
        if positions.iter().zip(ends).all(|(at, (_, end))| at >= end) {
            return Ok(());
        }
        if before.as_ref() == Some(&positions) {
            let text = "the log says that there are more records, but none can be read";
            return Err(Failure::Other(text.into()));
        }
        let records = consumer.poll(STALLED_AFTER)?;
        for partition in records.partitions() {
            let end = end_of(partition.partition());
            let wanted = records.of(partition).take_while(|m| m.offset() < end);
            for message in wanted {
                if *left == 0 {
                    return Ok(());
                }
                layout.write(&message, out)?;
                *left -= 1;
            }
        }
        before = Some(positions);
    }
    Ok(())
}

/// How a record is printed.
enum Layout {
    Value,
    Json,
    Format(Vec<Piece>),
}

/// A part of a format: text, or a record's field.
enum Piece {
    Text(Vec<u8>),
    Field(char),
}

impl Layout {
    fn of(args: &ConsumeArgs) -> Result<Layout, Failure> {
        match &args.format {
            Some(format) => pieces(format)
                .map(Layout::Format)
                .map_err(|why| Failure::Usage(format!("-f {format}: {why}"))),
            None if args.json => Ok(Layout::Json),
            None => Ok(Layout::Value),
        }
    }

    fn write(&self, message: &Message<'_>, out: &mut impl Write) -> Result<(), Failure> {
        match self {
            Layout::Value => {
                out.write_all(message.value().unwrap_or_default())?;
                out.write_all(b"\n")?;
            }
            Layout::Json => {
                serde_json::to_writer(&mut *out, &json(message)).map_err(io::Error::from)?;
                out.write_all(b"\n")?;
            }
            Layout::Format(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => out.write_all(text)?,
                        Piece::Field(field) => write_field(*field, message, out)?,
                    }
                }
            }
        }
        Ok(())
    }
}

fn write_field(field: char, message: &Message<'_>, out: &mut impl Write) -> io::Result<()> {
    let len = |bytes: Option<&[u8]>| bytes.map_or(NULL_LEN, |bytes| bytes.len() as i64);
    match field {
        't' => write!(out, "{}", message.topic()),
        'p' => write!(out, "{}", message.partition()),
        'o' => write!(out, "{}", message.offset()),
        'k' => out.write_all(message.key().unwrap_or_default()),
        's' => out.write_all(message.value().unwrap_or_default()),
        'T' => write!(out, "{}", message.timestamp()),
        'K' => write!(out, "{}", len(message.key())),
        'S' => write!(out, "{}", len(message.value())),
        _ => {
            for (index, header) in message.headers().enumerate() {
                if index > 0 {
                    out.write_all(b",")?;
                }
                write!(out, "{}=", header.key)?;
                out.write_all(header.value.unwrap_or_default())?;
            }
            Ok(())
        }
    }
}

fn pieces(format: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut text = Vec::new();
    let mut rest = format;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let (byte, len) = text::escape(rest)?;
                text.push(byte);
                rest = &rest[len..];
            }
            '%' => {
                let field = rest.chars().next();
                match field {
                    Some('%') => text.push(b'%'),
                    Some(field) if FIELDS.contains(field) => {
                        pieces.push(Piece::Text(std::mem::take(&mut text)));
                        pieces.push(Piece::Field(field));
                    }
                    _ => {
                        let shown = field.map(String::from).unwrap_or_default();
                        return Err(format!("%{shown} is not a field"));
                    }
                }
                rest = &rest[1..];
            }
            other => text.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    pieces.push(Piece::Text(text));
    Ok(pieces)
}

fn json(message: &Message<'_>) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
    put("topic", message.topic().into());
    put("partition", message.partition().into());
    put("offset", message.offset().into());
    put("ts", message.timestamp().into());
    let kind = match message.timestamp_type() {
        TimestampType::LogAppendTime => "append",
        _ => "create",
    };
    put("tstype", kind.into());
    for (name, bytes) in [("key", message.key()), ("value", message.value())] {
        match bytes.map(std::str::from_utf8) {
            None => put(name, Value::Null),
            Some(Ok(text)) => put(name, text.into()),
            Some(Err(_)) => {
                let encoded = BASE64.encode(bytes.unwrap_or_default());
                put(&format!("{name}_base64"), encoded.into());
            }
        }
    }
    let headers = message.headers().map(|header| {
        let value = match header.value.map(std::str::from_utf8) {
            None => Value::Null,
            Some(Ok(text)) => text.into(),
            Some(Err(_)) => {
                let encoded = BASE64.encode(header.value.unwrap_or_default());
                Value::Object(Map::from_iter([("base64".to_owned(), encoded.into())]))
            }
        };
        Value::Array(vec![header.key.into(), value])
    });
    put("headers", Value::Array(headers.collect()));
    Value::Object(object)
}

/// The fields of a format; all of them are ASCII.
const FIELDS: &str = "tpoksThKS";
/// Printed as the length of a null key or value.
const NULL_LEN: i64 = -1;
const POLL_RECORDS: usize = 5000;
/// How long nothing comes although the log's end says that there is more.
const STALLED_AFTER: Duration = Duration::from_secs(2);
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(3600);
