//! A child of a test: it tells line by line what it did, until it is killed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that fails should say where"
)]

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use ottla::Consumer;
use ottla::TopicPartition;

/// One write of one line, a word and numbers: a pipe takes it whole.
pub(crate) fn tell(line: &str) {
    std::io::stdout().write_all(format!("@{line}\n").as_bytes()).unwrap();
}

/// Where a member goes on in each partition it has.
pub(crate) fn positions(consumer: &Consumer) -> Vec<(u32, i64)> {
    let position = |p: &TopicPartition| (p.partition(), consumer.position(p).unwrap());
    consumer.assignment().map(position).collect()
}

/// Runs a test of this binary as a child for a while, kills it, and gives what it told.
pub(crate) fn told_before_it_was_killed(
    test: &str,
    environment: &[(&str, String)],
    micros: u64,
) -> Vec<(String, Vec<i64>)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let stderr = child.stderr.take().unwrap();
    let complaints = thread::spawn(move || std::io::read_to_string(stderr).unwrap());
    let reader = thread::spawn(move || {
        let mut told = Vec::new();
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        // A line without its end was never written whole: the child died in it.
        while stdout.read_line(&mut line).unwrap_or(0) > 0 && line.ends_with('\n') {
            if let Some((_, fields)) = line.trim_end().rsplit_once('@') {
                let (kind, numbers) = fields.split_once(' ').unwrap();
                let numbers = numbers.split(' ').map(|n| n.parse().unwrap()).collect();
                told.push((kind.to_owned(), numbers));
            }
            line.clear();
        }
        told
    });
    thread::sleep(Duration::from_micros(micros));
    child.kill().unwrap();
    child.wait().unwrap();
    // A thread that panicked would do nothing more, unseen.
    let complaints = complaints.join().unwrap();
    assert!(!complaints.contains("panicked"), "{complaints}");
    reader.join().unwrap()
}
