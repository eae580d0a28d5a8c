//! Follows a growing text file into a topic, and tails that topic from another thread.
//!
//! `cargo run --release --example log_tail`
//!
//! Three threads: one appends lines to a file for a second, as some other program would; one follows the file
//! and sends each line that is complete; one tails the topic, waiting for what comes. At the end every line
//! has arrived exactly once and in order.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::fs::File;
use std::fs::OpenOptions;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ottla::Consumer;
use ottla::Durability;
use ottla::Producer;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let directory = std::env::temp_dir().join(format!("ottla-log-tail-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let path = directory.join("service.log");
    File::create(&path)?;

    // A tail wants to be quick and may lose its last moments to a power cut: the file has them still.
    let every = Durability::Every(Duration::from_millis(100));
    let store = Store::builder(directory.join("data")).durability(every).open()?;
    let topic = store.create_topic("service-log", TopicConfig::new().segment_bytes(256 << 10))?;
    let mut consumer = store.consumer().assign(topic.partitions())?;

    let is_written = AtomicBool::new(false);
    let (written, sent, tailed) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let written = write_for_a_second(&path);
            is_written.store(true, Ordering::Release);
            written
        });
        let follower = scope.spawn(|| follow(&path, &store.producer(), &topic, &is_written));
        let tail = scope.spawn(|| tail(&mut consumer));
        (writer.join(), follower.join(), tail.join())
    });
    let joined = |ended: thread::Result<Outcome<u64>>| ended.map_err(|_| "a thread panicked")?;
    let (written, sent, tailed) = (joined(written)?, joined(sent)?, joined(tailed)?);

    assert!(written > 0);
    assert_eq!((sent, tailed), (written, written));
    let partition = &topic.describe()?.partitions[0];
    assert_eq!(
        partition.log_end,
        i64::try_from(written)? + 1,
        "every line, and the mark at the end"
    );
    println!("{written} lines written, {sent} sent, {tailed} tailed in order");
    println!("{} bytes in {} segments", partition.len, partition.segment_count);

    drop((consumer, topic));
    store.close()?;
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}

/// Appends lines for a second, some of them in two writes, as a real program's buffer would.
fn write_for_a_second(path: &Path) -> Outcome<u64> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < Duration::from_secs(1) {
        for _ in 0..20 {
            let line = format!("line {count}: something happened\n");
            let (front, rest) = line.split_at(if count % 7 == 0 { 5 } else { 0 });
            file.write_all(front.as_bytes())?;
            file.write_all(rest.as_bytes())?;
            count += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(count)
}

/// Sends each complete line of the file, until the file is written and read to its end.
fn follow(
    path: &Path,
    producer: &Producer,
    topic: &Topic,
    is_written: &AtomicBool,
) -> Outcome<u64> {
    let mut file = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    let mut count = 0;
    loop {
        // Asked before reading: what is read afterwards is then the whole rest.
        let is_last_look = is_written.load(Ordering::Acquire);
        while file.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            line.pop();
            let _visible_at_once = producer.send(topic, &line)?;
            line.clear();
            count += 1;
        }
        // Half a line stays where it is; the rest of it comes behind.
        if is_last_look {
            assert!(line.is_empty(), "the file ends in the middle of a line");
            let _end = producer.send(topic, END)?;
            return Ok(count);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Receives lines as they come, until the mark at the end; each must be the one that is due.
fn tail(consumer: &mut Consumer) -> Outcome<u64> {
    let mut count = 0;
    loop {
        let records = consumer.poll(Duration::from_secs(10))?;
        assert!(!records.is_empty(), "nothing came for ten seconds, {count} lines so far");
        for message in &records {
            let line = message.value().unwrap_or_default();
            if line == END.as_bytes() {
                return Ok(count);
            }
            let due = format!("line {count}: something happened");
            assert_eq!(String::from_utf8_lossy(line), due, "offset {}", message.offset());
            count += 1;
        }
    }
}

/// No line of the file is empty, so an empty record can stand for its end.
const END: &str = "";
