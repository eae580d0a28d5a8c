//! Requests and replies: how long a round trip takes, beside bare channels with the same hand-offs.
//!
//! `cargo bench --bench request_reply`. One thread asks, another answers. Beside it two bare channels, one for each
//! way, with the same threads and the same number in flight; and where requests and replies are synced, two raw syncs
//! of as many bytes. All take turns, round after round; each figure is the median of the rounds' percentiles, minimum
//! and maximum beside it. Every reply is compared with what was asked.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints what it measured, and ends where it cannot"
)]

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ottla::Durability;
use ottla::Pending;
use ottla::Record;
use ottla::Reply;
use ottla::Requester;
use ottla::Store;
use ottla::TopicConfig;

const ROUNDS: usize = 7;
const SPAN: Duration = Duration::from_millis(700);
const VALUE_LEN: usize = 100;

fn main() {
    let directory = tempfile::tempdir_in(".").unwrap();
    for in_flight in [1, 64] {
        round_trips(&directory.path().join(format!("buffered-{in_flight}")), in_flight);
    }
    synced(directory.path());
}

/// One asker keeps so many requests in flight, and takes the replies in order.
fn round_trips(directory: &Path, in_flight: usize) {
    let store = Store::builder(directory).durability(Durability::Buffered).open().unwrap();
    let requests = store.create_topic("requests", TopicConfig::new()).unwrap();
    let _responder = echo(&store, &requests);
    let requester = store.requester(&requests).build().unwrap();
    let ask = || ask(&requester, in_flight);
    let (mut ours, mut channels) = in_turns(ask, || over_channels(in_flight));
    let title = format!("round trip, buffered, {in_flight} in flight");
    show(&title, &mut ours, "two bare channels", &mut channels);
}

/// Runs both sides round after round, in turns first and last.
fn in_turns(ask: impl Fn() -> Vec<u64>, bare: impl Fn() -> Vec<u64>) -> (Figures, Figures) {
    let mut figures = (Figures::default(), Figures::default());
    for round in 0..=ROUNDS {
        let mut sides = [Vec::new(), Vec::new()];
        for step in 0..2 {
            let side = (round + step) % 2;
            sides[side] = if side == 0 { ask() } else { bare() };
        }
        // The first round warms the memory.
        if round > 0 {
            let [our, bare] = sides;
            figures.0.note(our);
            figures.1.note(bare);
        }
    }
    figures
}

fn echo(store: &Store, requests: &ottla::Topic) -> ottla::Responder {
    let answer = |request: &ottla::Message<'_>| {
        Ok::<_, ottla::Error>(Reply::new(request.value().unwrap_or_default()))
    };
    store.responder(requests, "echo").start(answer).unwrap()
}

fn value_of(number: u64) -> [u8; VALUE_LEN] {
    let mut value = [7; VALUE_LEN];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

/// Gives the times of the round trips, in ns.
fn ask(requester: &Requester, in_flight: usize) -> Vec<u64> {
    let mut times = Vec::with_capacity(1 << 20);
    let mut waiting: VecDeque<(Instant, u64, Pending)> = VecDeque::new();
    let until = Instant::now() + SPAN;
    let mut number = 0;
    loop {
        let is_over = Instant::now() >= until;
        while !is_over && waiting.len() < in_flight {
            let begun = Instant::now();
            let pending = requester.request(Record::new(&value_of(number))).unwrap();
            waiting.push_back((begun, number, pending));
            number += 1;
        }
        let Some((begun, number, pending)) = waiting.pop_front() else { return times };
        let reply = pending.wait().unwrap();
        times.push(begun.elapsed().as_nanos() as u64);
        assert_eq!(reply.value(), Some(&value_of(number)[..]));
    }
}

fn over_channels(in_flight: usize) -> Vec<u64> {
    let mut times = Vec::with_capacity(1 << 20);
    let (ask, asked) = crossbeam_channel::unbounded::<Vec<u8>>();
    let (answer, answered) = crossbeam_channel::unbounded::<Vec<u8>>();
    let responder = thread::spawn(move || {
        for value in asked {
            answer.send(value.clone()).unwrap();
        }
    });
    let mut waiting: VecDeque<(Instant, u64)> = VecDeque::new();
    let until = Instant::now() + SPAN;
    let mut number = 0;
    loop {
        let is_over = Instant::now() >= until;
        while !is_over && waiting.len() < in_flight {
            let begun = Instant::now();
            ask.send(value_of(number).to_vec()).unwrap();
            waiting.push_back((begun, number));
            number += 1;
        }
        let Some((begun, number)) = waiting.pop_front() else { break };
        let value = answered.recv().unwrap();
        times.push(begun.elapsed().as_nanos() as u64);
        assert_eq!(value, value_of(number));
    }
    drop(ask);
    responder.join().unwrap();
    times
}

/// One asker with one request in flight, synced both ways, beside two syncs in a row of as many bytes.
fn synced(directory: &Path) {
    let store = Store::open(directory.join("synced")).unwrap();
    let requests = store.create_topic("requests", TopicConfig::new()).unwrap();
    let _responder = echo(&store, &requests);
    let requester = store.requester(&requests).build().unwrap();
    let raw = [0, 1].map(|number| RawLog::new(&directory.join(format!("raw-{number}"))));
    let (mut ours, mut syncs) = in_turns(|| ask(&requester, 1), || two_syncs(&raw));
    show("round trip, synced, 1 in flight", &mut ours, "two raw syncs", &mut syncs);
}

fn two_syncs(logs: &[RawLog; 2]) -> Vec<u64> {
    let mut times = Vec::new();
    let until = Instant::now() + SPAN;
    let mut position = 0;
    while Instant::now() < until {
        let begun = Instant::now();
        for log in logs {
            log.write_and_sync(position);
        }
        position += RECORD_LEN;
        times.push(begun.elapsed().as_nanos() as u64);
    }
    times
}

/// A file whose blocks were written before: a sync has nothing to record but the bytes.
struct RawLog(File);

impl RawLog {
    fn new(path: &Path) -> RawLog {
        let file = File::create(path).unwrap();
        file.write_all_at(&vec![0; RAW_LEN as usize], 0).unwrap();
        file.sync_all().unwrap();
        RawLog(file)
    }

    fn write_and_sync(&self, position: u64) {
        self.0.write_all_at(&[7; RECORD_LEN as usize], position % (RAW_LEN - RECORD_LEN)).unwrap();
        self.0.sync_data().unwrap();
    }
}

const RAW_LEN: u64 = 16 << 20;
/// What a request takes in its log: header, value, three headers of its own.
const RECORD_LEN: u64 = 280;

/// The percentiles of each round, in µs.
#[derive(Default)]
struct Figures {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Figures {
    fn note(&mut self, mut times: Vec<u64>) {
        times.sort_unstable();
        let at = |part: usize| times[(times.len() - 1) * part / 100] as f64 / 1e3;
        self.p50.push(at(50));
        self.p99.push(at(99));
    }
}

fn show(what: &str, ours: &mut Figures, beside: &str, others: &mut Figures) {
    for (name, our, other) in
        [("p50", &mut ours.p50, &mut others.p50), ("p99", &mut ours.p99, &mut others.p99)]
    {
        let (least, middle, most) = median(our);
        let (other_least, other_middle, other_most) = median(other);
        println!(
            "{what}, {name}, µs: {middle:.2} ({least:.2}..{most:.2}); {beside}: {other_middle:.2} \
             ({other_least:.2}..{other_most:.2}): {:.2} x",
            middle / other_middle
        );
    }
}

fn median(figures: &mut [f64]) -> (f64, f64, f64) {
    figures.sort_by(f64::total_cmp);
    (figures[0], figures[figures.len() / 2], figures[figures.len() - 1])
}
