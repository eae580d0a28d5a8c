//! `ottla request`: the lines of standard input become requests, their replies are printed.
//!
//! A directory has one writer at a time, and whoever answers must write. So the command holds the directory only while
//! it sends; then it lets go, and reads the replies beside whoever writes them.

use std::collections::HashMap;
use std::io;
use std::io::BufRead;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ottla::Error;
use ottla::OwnedMessage;
use ottla::Record;
use ottla::ReplyHeaders;
use ottla::Start;
use ottla::Store;
use ottla::TopicPartition;

use crate::args::RequestArgs;
use crate::failure::Failure;
use crate::terminal;

pub(crate) fn run(root: &Path, args: &RequestArgs) -> Result<(), Failure> {
    let lines = lines_of_input();
    let mut out = terminal::output();
    let (mut count, mut failed) = (0, 0);
    while let Ok(first) = lines.recv() {
        // What is there is sent together; who types gets an answer for each line.
        let more = std::iter::from_fn(|| lines.try_recv().ok()).take(TOGETHER_MAX - 1);
        let batch: Vec<Vec<u8>> = std::iter::once(first).chain(more).collect::<io::Result<_>>()?;
        let sent = send(root, args, &batch)?;
        let answers = Answers { headers: ReplyHeaders::new(), came: HashMap::new() };
        failed += answers.print(root, args, &sent, count, &mut out)?;
        count += batch.len();
    }
    out.flush()?;
    if failed > 0 {
        terminal::tell(format_args!("ottla: {failed} of {count} requests have no reply"));
        return Err(Failure::Told);
    }
    Ok(())
}

/// So many lines are sent at a time at most.
const TOGETHER_MAX: usize = 1000;

/// Reads lines on a thread of their own, so that one can tell whether there are more.
fn lines_of_input() -> Receiver<io::Result<Vec<u8>>> {
    let (sender, lines) = mpsc::sync_channel(TOGETHER_MAX);
    thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let read = input.read_until(b'\n', &mut line);
            if matches!(read, Ok(0)) {
                return;
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            let is_over = read.is_err();
            if sender.send(read.map(|_| line)).is_err() || is_over {
                return;
            }
        }
    });
    lines
}

/// Requests that were sent.
struct Sent {
    /// The correlation id of each, and when it was sent.
    requests: Vec<(Vec<u8>, Instant)>,
    topic: String,
    partition: u32,
    /// Where their replies begin at the earliest.
    begin: i64,
}

fn send(root: &Path, args: &RequestArgs, batch: &[Vec<u8>]) -> Result<Sent, Failure> {
    let store = open_in_turn(root, args.timeout())?;
    let topic = store.topic(&args.topic).map_err(|error| unknown(error, &args.topic))?;
    let requester = store.requester(&topic).max_in_flight(TOGETHER_MAX).build()?;
    let to: TopicPartition = requester.reply_partition().clone();
    let (_, begin) = to.watermarks()?;
    let mut pending = Vec::with_capacity(batch.len());
    let mut requests = Vec::with_capacity(batch.len());
    // One after the other, so that as many can be answered at a time as there are partitions.
    let partitions = (0..topic.partition_count()).cycle();
    for (line, partition) in batch.iter().zip(partitions) {
        let asked = requester.request(Record::new(line).partition(partition))?;
        requests.push((asked.correlation_id(), Instant::now()));
        pending.push(asked);
    }
    for asked in pending {
        asked.delivery().clone().wait()?;
    }
    let sent =
        Sent { requests, topic: to.topic().name().to_owned(), partition: to.partition(), begin };
    drop((requester, topic, to));
    store.close()?;
    Ok(sent)
}

/// The replies that came, by their correlation ids, and when.
struct Answers {
    headers: ReplyHeaders,
    came: HashMap<Vec<u8>, (OwnedMessage, Instant)>,
}

impl Answers {
    /// Prints the replies in the order of their requests, each as soon as those before it are there; gives how many
    /// there are not.
    fn print(
        mut self,
        root: &Path,
        args: &RequestArgs,
        sent: &Sent,
        lines_before: usize,
        out: &mut impl Write,
    ) -> Result<usize, Failure> {
        let store = Store::open_read_only(root)?;
        let partition = store.topic(&sent.topic)?.partition(sent.partition)?;
        let begin = Start::Offset(sent.begin);
        let mut consumer = store.consumer().assign([(partition, begin)])?;
        let mut failed = 0;
        for (index, (id, sent_at)) in sent.requests.iter().enumerate() {
            let deadline = *sent_at + args.timeout();
            while !self.came.contains_key(id) {
                let left = deadline.saturating_duration_since(Instant::now());
                let records = consumer.poll(left)?;
                let now = Instant::now();
                for message in &records {
                    self.note(message.detach(), now);
                }
                if records.is_empty() && now >= deadline {
                    break;
                }
            }
            let number = lines_before + index + 1;
            let problem = match self.came.remove(id) {
                None => Some(format!("no reply within {} ms", args.timeout().as_millis())),
                Some((reply, at)) => match self.error_of(&reply) {
                    None => {
                        let latency = at.saturating_duration_since(*sent_at);
                        write!(out, "{:.3}\t", latency.as_secs_f64() * 1e3)?;
                        out.write_all(reply.value().unwrap_or_default())?;
                        out.write_all(b"\n")?;
                        // Whoever reads along sees it now.
                        out.flush()?;
                        None
                    }
                    Some(reason) => Some(format!("the request failed: {reason}")),
                },
            };
            if let Some(problem) = problem {
                failed += 1;
                terminal::tell(format_args!("ottla: line {number}: {problem}"));
            }
        }
        Ok(failed)
    }

    fn note(&mut self, message: OwnedMessage, at: Instant) {
        let name = self.headers.correlation_id_name();
        let ids = message.headers().filter(|header| header.key == name);
        let id = ids.last().and_then(|header| header.value).map(<[u8]>::to_vec);
        if let Some(id) = id {
            // The first of several counts.
            self.came.entry(id).or_insert((message, at));
        }
    }

    fn error_of(&self, message: &OwnedMessage) -> Option<String> {
        let mut headers = message.headers();
        let error = headers.find(|header| header.key == self.headers.error_name())?;
        Some(String::from_utf8_lossy(error.value.unwrap_or_default()).into_owned())
    }
}

/// Opens a directory for writing, once its other writers have let go of it; waits for so long.
pub(crate) fn open_in_turn(root: &Path, patience: Duration) -> Result<Store, Failure> {
    let deadline = Instant::now() + patience;
    loop {
        match Store::builder(root).create(false).open() {
            Err(Error::Locked { .. }) if Instant::now() < deadline => thread::sleep(AGAIN_AFTER),
            Err(error @ Error::Locked { .. }) => {
                let waited = patience.as_millis();
                return Err(Failure::Other(format!(
                    "{error}, and was so for {waited} ms; requests and replies are written by one \
                     process at a time"
                )));
            }
            opened => return Ok(opened?),
        }
    }
}

const AGAIN_AFTER: Duration = Duration::from_millis(10);

pub(crate) fn unknown(error: Error, topic: &str) -> Failure {
    match error {
        Error::UnknownTopic { .. } => {
            Failure::Other(format!("{error}; create it with `ottla topic create {topic}`"))
        }
        other => other.into(),
    }
}
