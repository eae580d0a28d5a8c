//! `ottla produce`: the lines of standard input become records.

use std::io;
use std::io::BufRead;
use std::path::Path;
use std::time::Instant;

use ottla::Error;
use ottla::Record;

use crate::args::ProduceArgs;
use crate::failure::Failure;
use crate::terminal;
use crate::text;
use crate::topic;

pub(crate) fn run(root: &Path, args: &ProduceArgs) -> Result<(), Failure> {
    let store = topic::open(root)?;
    let topic = store.topic(&args.topic).map_err(|error| match error {
        Error::UnknownTopic { .. } => {
            let name = &args.topic;
            Failure::Other(format!("{error}; create it with `ottla topic create {name}`"))
        }
        other => other.into(),
    })?;
    if let Some(partition) = args.partition {
        topic.partition(partition)?;
    }
    let producer = args.staging.producer(&store)?;
    let begun = Instant::now();
    let mut count = 0_u64;
    let mut len = 0_u64;
    let mut line = Vec::new();
    let mut input = io::stdin().lock();
    let sent = loop {
        line.clear();
        match input.read_until(b'\n', &mut line) {
            Ok(0) => break Ok(()),
            Ok(_) => {}
            Err(error) => break Err(error.into()),
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let sent = record(&line, args)
            .and_then(|record| producer.send(&topic, record).map_err(Failure::from));
        if let Err(failure) = sent {
            let number = count + 1;
            break Err(Failure::Other(format!("line {number}: {failure}")));
        }
        count += 1;
        len += line.len() as u64;
    };
    // What was sent before a bad line is in the topic, so it is made durable and counted all the same.
    producer.flush()?;
    let elapsed = begun.elapsed();
    terminal::tell(format_args!(
        "{count} records, {} in {:.3} s, {:.0} records/s; all on stable storage",
        text::bytes(len as f64),
        elapsed.as_secs_f64(),
        text::rate(count, elapsed),
    ));
    drop((producer, topic));
    store.close()?;
    sent
}

/// Makes a record of a line.
fn record<'l>(line: &'l [u8], args: &'l ProduceArgs) -> Result<Record<'l>, Failure> {
    let mut rest = line;
    let mut record = Record::default();
    if args.timestamps {
        let (timestamp, behind) = split(rest, b"\t")
            .and_then(|(digits, behind)| {
                let digits = std::str::from_utf8(digits).ok()?;
                Some((digits.parse::<i64>().ok()?, behind))
            })
            .ok_or_else(|| Failure::Other("it does not begin with a timestamp and a tab".into()))?;
        record = record.timestamp(timestamp);
        rest = behind;
    }
    if let Some((key, value)) =
        args.key_separator.as_ref().and_then(|separator| split(rest, &separator.0))
    {
        record = record.key(key);
        rest = value;
    }
    record = record.value_or_null(Some(rest));
    for text in &args.headers {
        record = match text.split_once('=') {
            Some((key, value)) => record.header(key, value),
            None => record.null_header(text),
        };
    }
    Ok(match args.partition {
        Some(partition) => record.partition(partition),
        None => record,
    })
}

/// Splits at the first separator.
fn split<'b>(bytes: &'b [u8], separator: &[u8]) -> Option<(&'b [u8], &'b [u8])> {
    let at = bytes.windows(separator.len()).position(|window| window == separator)?;
    Some((&bytes[..at], &bytes[at + separator.len()..]))
}
