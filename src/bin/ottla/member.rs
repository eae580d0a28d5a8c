//! `ottla consume -g`: a member of a group, which commits what standard output has taken.
//!
//! **Invariant (printed).** What is committed is what was printed: a record counts as printed once standard output
//! has taken the last byte of it, and only then is it committed. So whatever ends the command, nothing is skipped,
//! and nothing is printed twice but what was printed behind the last commit by a process that was then killed.

use std::fs::File;
use std::io;
use std::io::Write;
use std::iter;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use ottla::Consumer;
use ottla::OffsetReset;
use ottla::Records;
use ottla::Store;
use ottla::Subscription;
use ottla::TopicPartition;

use crate::args::ConsumeArgs;
use crate::consume::POLL_RECORDS;
use crate::failure::Failure;
use crate::group;
use crate::layout::Layout;
use crate::signals::Stop;

pub(crate) fn run(
    root: &Path,
    args: &ConsumeArgs,
    group: &str,
    layout: &Layout,
) -> Result<(), Failure> {
    if args.follow {
        let text = "--follow makes no sense with -g: while a group is read, nobody else can append";
        return Err(Failure::Usage(text.into()));
    }
    // Before the store has threads of its own, which would take the signals.
    let stop = Stop::on_signals()?;
    let store = group::open_for_writing(root, group)?;
    let printed = join(&store, args, group)
        .and_then(|mut member| {
            let printed = print_all(&mut member, layout, args.count, &stop);
            let left = member.close();
            printed?;
            Ok(left?)
        })
        .or_else(|failure| match failure {
            // Whoever read our output has enough; what it was given is committed.
            Failure::Stream(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => Err(other),
        });
    let closed = store.close();
    printed?;
    Ok(closed?)
}

fn join(store: &Store, args: &ConsumeArgs, group: &str) -> Result<Consumer, Failure> {
    let topics = match &args.pattern {
        Some(pattern) => Subscription::pattern(pattern)
            .map_err(|error| Failure::Usage(format!("--pattern {pattern}: {error}")))?,
        None => {
            // A subscription waits for topics to come; here they would come in vain.
            args.topics.iter().try_for_each(|name| store.topic(name).map(drop))?;
            Subscription::named(&args.topics)?
        }
    };
    let mut builder = store
        .consumer()
        .start(args.offset)
        .reset(OffsetReset::Error)
        .max_poll_records(POLL_RECORDS)
        .client_id("ottla-consume")
        .assignor(args.assignor.clone().unwrap_or_default());
    if let Some(instance_id) = &args.instance_id {
        builder = builder.instance_id(instance_id);
    }
    Ok(builder.subscribe(group, topics)?)
}

/// Prints and commits until everything is read, `count` records are printed, or somebody asks to stop.
fn print_all(
    member: &mut Consumer,
    layout: &Layout,
    count: Option<u64>,
    stop: &Stop,
) -> Result<(), Failure> {
    let mut out = unbuffered_output()?;
    let mut left = count.unwrap_or(u64::MAX);
    let mut page = Page::default();
    while left > 0 && !stop.is_asked() {
        let before = positions(member)?;
        let records = member.poll(Duration::ZERO)?;
        if records.is_empty() {
            let after = positions(member)?;
            if is_at_end(member)? {
                if after.is_empty() {
                    return Err(Failure::Other("no topic matches the pattern".into()));
                }
                return Ok(());
            }
            if after == before {
                let text = "the log says that there are more records, but none can be read";
                return Err(Failure::Other(text.into()));
            }
            continue;
        }
        page.fill(&records, layout, left)?;
        let (printed, outcome) = page.print(&mut out, stop);
        left -= printed as u64;
        member.commit_offsets(page.offsets(&records, printed))?;
        outcome?;
    }
    Ok(())
}

/// Gives standard output without the standard library's buffer: what it has not taken is not printed.
fn unbuffered_output() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

fn positions(member: &Consumer) -> Result<Vec<i64>, Failure> {
    Ok(member.assignment().map(|p| member.position(p)).collect::<ottla::Result<_>>()?)
}

fn is_at_end(member: &Consumer) -> Result<bool, Failure> {
    let mut lags = member.assignment().map(|partition| member.lag(partition));
    Ok(lags.try_fold(true, |at_end, lag| Ok::<_, ottla::Error>(at_end && lag? == 0))?)
}

/// The records of one poll as they are to be printed, and where each one ends.
#[derive(Default)]
struct Page {
    bytes: Vec<u8>,
    /// For each record, in order: its offset, and the end of its bytes.
    marks: Vec<(i64, usize)>,
}

impl Page {
    /// Fills itself with the first `count` of the records.
    fn fill(&mut self, records: &Records, layout: &Layout, count: u64) -> Result<(), Failure> {
        self.bytes.clear();
        self.marks.clear();
        for message in records.iter().take(usize::try_from(count).unwrap_or(usize::MAX)) {
            layout.write(&message, &mut self.bytes)?;
            self.marks.push((message.offset(), self.bytes.len()));
        }
        Ok(())
    }

    /// Prints, and gives how many records are out with their last byte. Somebody who asks to stop waits for the
    /// end of the record that is being printed.
    fn print(&self, out: &mut impl Write, stop: &Stop) -> (usize, io::Result<()>) {
        let mut written = 0;
        let mut end = self.bytes.len();
        let outcome = loop {
            if stop.is_asked() {
                let mut ends = iter::once(0).chain(self.marks.iter().map(|(_, end)| *end));
                end = ends.find(|end| *end >= written).unwrap_or(end);
            }
            if written >= end {
                break Ok(());
            }
            match out.write(&self.bytes[written..end.min(written + CHUNK_LEN)]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => written += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        (self.marks.partition_point(|(_, end)| *end <= written), outcome)
    }

    /// Gives where the group goes on once the first `printed` of the records are dealt with.
    fn offsets(&self, records: &Records, printed: usize) -> Vec<(TopicPartition, i64)> {
        let mut left = printed;
        let mut offsets = Vec::new();
        for (partition, next) in records.next_offsets() {
            let count = records.of(partition).count();
            let begin = printed - left;
            let reached = match left.min(count) {
                0 => break,
                // Holes behind the last record are read as well.
                all if all == count => next,
                some => self.marks[begin + some - 1].0 + 1,
            };
            offsets.push((partition.clone(), reached));
            left -= left.min(count);
        }
        offsets
    }
}

/// How much is written at a time: what a pipe holds.
const CHUNK_LEN: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use ottla::Record;
    use ottla::TopicConfig;

    use super::*;

    /// Takes so many bytes, three at a time, and fails then.
    struct Narrow(usize);

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let len = bytes.len().min(3).min(self.0);
            self.0 -= len;
            if len == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(len) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_committed_is_what_was_printed_to_the_last_byte() {
        let store = Store::temporary().unwrap();
        let topic = store.create_topic("t", TopicConfig::new().partitions(2)).unwrap();
        for partition in topic.partitions() {
            let records = ["aaa", "bb", "c", ""].map(Record::new);
            store.producer().send_batch(&partition, records).unwrap().wait().unwrap();
        }
        let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
        let records = consumer.poll(Duration::ZERO).unwrap();
        let mut page = Page::default();
        page.fill(&records, &Layout::Value, u64::MAX).unwrap();
        let lines = [4, 3, 2, 1, 4, 3, 2, 1];
        for room in 0..=20 {
            let mut total = 0;
            let whole = lines.iter().take_while(|len| {
                total += **len;
                total <= room
            });
            let whole = whole.count();
            let (printed, outcome) = page.print(&mut Narrow(room), &Stop::default());
            assert_eq!((printed, outcome.is_ok()), (whole, room == 20), "{room}");
            let offsets: Vec<i64> =
                page.offsets(&records, printed).into_iter().map(|(_, offset)| offset).collect();
            let expected: Vec<i64> = [whole.min(4) as i64, whole as i64 - 4].into();
            let expected: Vec<i64> = expected.into_iter().filter(|offset| *offset > 0).collect();
            assert_eq!(offsets, expected, "{room}");
        }
        page.fill(&records, &Layout::Value, 5).unwrap();
        let (printed, _) = page.print(&mut io::sink(), &Stop::default());
        assert_eq!((printed, page.offsets(&records, printed)[1].1), (5, 1));
    }

    #[test]
    fn who_asks_to_stop_waits_for_the_end_of_one_record() {
        /// Takes three bytes at a time, and is interrupted once it has so many.
        struct Interrupted(usize, Stop);

        impl Write for Interrupted {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let len = bytes.len().min(3);
                self.0 = self.0.saturating_sub(len);
                if self.0 == 0 {
                    self.1.ask();
                }
                Ok(len)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let page = Page { bytes: vec![b'x'; 10], marks: vec![(0, 3), (1, 8), (2, 10)] };
        for (after, printed) in [(1, 1), (3, 1), (4, 2), (6, 2), (7, 3)] {
            let stop = Stop::default();
            let mut out = Interrupted(after, stop.clone());
            assert_eq!(page.print(&mut out, &stop).0, printed, "{after}");
        }
        let stop = Stop::default();
        stop.ask();
        assert_eq!(page.print(&mut io::sink(), &stop).0, 0);
    }
}
