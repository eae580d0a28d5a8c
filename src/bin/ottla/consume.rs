//! `ottla consume`: records to standard output. With a group see `member`.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use ottla::Consumer;
use ottla::Error;
use ottla::OffsetReset;
use ottla::Start;
use ottla::Store;
use ottla::TopicPartition;

use crate::args::ConsumeArgs;
use crate::failure::Failure;
use crate::layout::Layout;
use crate::member;
use crate::terminal;

pub(crate) fn run(root: &Path, args: &ConsumeArgs) -> Result<(), Failure> {
    let layout = Layout::of(args)?;
    if let Some(group) = &args.group {
        return member::run(root, args, group, &layout);
    }
    let [name] = &args.topics[..] else {
        return Err(Failure::Usage("several topics are read with -g GROUP only".into()));
    };
    let store = Store::open_read_only(root)?;
    let topic = store.topic(name)?;
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
                topic: name.clone(),
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

pub(crate) const POLL_RECORDS: usize = 5000;
/// How long nothing comes although the log's end says that there is more.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(2);
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(3600);
