//! How `ottla consume` prints a record: its value, by a format, or as JSON.

use std::io;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ottla::Message;
use ottla::TimestampType;
use serde_json::Map;
use serde_json::Value;

use crate::args::ConsumeArgs;
use crate::failure::Failure;
use crate::text;

/// How a record is printed.
pub(crate) enum Layout {
    Value,
    Json,
    Format(Vec<Piece>),
}

/// A part of a format: text, or a record's field.
pub(crate) enum Piece {
    Text(Vec<u8>),
    Field(char),
}

impl Layout {
    pub(crate) fn of(args: &ConsumeArgs) -> Result<Layout, Failure> {
        match &args.format {
            Some(format) => pieces(format)
                .map(Layout::Format)
                .map_err(|why| Failure::Usage(format!("-f {format}: {why}"))),
            None if args.json => Ok(Layout::Json),
            None => Ok(Layout::Value),
        }
    }

    pub(crate) fn write(&self, message: &Message<'_>, out: &mut impl Write) -> Result<(), Failure> {
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
