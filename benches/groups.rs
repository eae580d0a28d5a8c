//! Groups: how long a rebalance takes, how many commits a second, what a poll through a group costs.
//!
//! `cargo bench --bench groups`. Each figure is the median of interleaved rounds, minimum and maximum beside it; what
//! it is compared with runs in the same round. Offsets are read back and compared.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints what it measured, and ends where it cannot"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ottla::Consumer;
use ottla::Record;
use ottla::Store;
use ottla::TopicConfig;

const ROUNDS: usize = 5;
const NOW: Duration = Duration::ZERO;

fn main() {
    let directory = tempfile::tempdir_in(".").unwrap();
    rebalance(directory.path());
    for threads in [1, 64] {
        commits(directory.path(), threads);
    }
    poll(directory.path());
}

/// One member joins 99 others over 1,000 partitions, and leaves again: until every member has what it is to have.
fn rebalance(directory: &Path) {
    let store = Store::open(directory.join("rebalance")).unwrap();
    let topic = store.create_topic("t", TopicConfig::new().partitions(1000)).unwrap();
    let join = || store.consumer().subscribe("g", &topic).unwrap();
    let mut members: Vec<Consumer> = (0..99).map(|_| join()).collect();
    settle(&mut members, 1000);
    let (mut joins, mut leaves) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        members.push(join());
        settle(&mut members, 1000);
        joins.push(begun.elapsed().as_secs_f64() * 1e3);
        let begun = Instant::now();
        drop(members.pop());
        settle(&mut members, 1000);
        leaves.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    show("rebalance of 100 members over 1,000 partitions, one joins, ms", &mut joins, None);
    show("rebalance of 100 members over 1,000 partitions, one leaves, ms", &mut leaves, None);
}

/// Polls each member in turn until all partitions are held and nothing moved in a whole round.
fn settle(members: &mut [Consumer], partitions: usize) {
    let mut before = usize::MAX;
    loop {
        let mut held = 0;
        let mut smallest = usize::MAX;
        for member in &mut *members {
            member.poll(NOW).unwrap();
            let count = member.assignment().count();
            held += count;
            smallest = smallest.min(count);
        }
        let is_even = smallest >= partitions / members.len();
        if held == partitions && is_even && before == held {
            return;
        }
        before = held;
    }
}

/// Members of one group, each on a thread of its own, commit again and again; beside them the same number of threads
/// that write as much and share syncs.
fn commits(directory: &Path, threads: u32) {
    let store = Store::open(directory.join(format!("commits-{threads}"))).unwrap();
    let topic = store.create_topic("t", TopicConfig::new().partitions(threads)).unwrap();
    for partition in topic.partitions() {
        let records = (0..1000).map(|_| Record::new("v"));
        store.producer().send_batch(&partition, records).unwrap().wait().unwrap();
    }
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let group = format!("g{round}");
        let done = on_threads(threads, |thread, until| {
            let partition = topic.partition(thread).unwrap();
            let mut member = store.consumer().group(&group).assign([&partition]).unwrap();
            let mut count = 0;
            while Instant::now() < until {
                member.commit_offsets([(&partition, count % 1000)]).unwrap();
                count += 1;
            }
            let committed = member.committed(&partition).unwrap().unwrap();
            assert_eq!(committed.offset(), (count - 1) % 1000);
            count
        });
        ours.push(done);
        let raw_log = RawLog::new(&directory.join(format!("raw-{threads}-{round}")));
        raw.push(on_threads(threads, |_, until| {
            let mut count = 0;
            while Instant::now() < until {
                raw_log.append_and_wait();
                count += 1;
            }
            count
        }));
    }
    show(&format!("commits/s, {threads} threads"), &mut ours, Some(&mut raw));
}

const SPAN: Duration = Duration::from_millis(500);

fn on_threads(threads: u32, work: impl Fn(u32, Instant) -> i64 + Sync) -> f64 {
    let begun = Instant::now();
    let until = begun + SPAN;
    let work = &work;
    let done: i64 = thread::scope(|scope| {
        let spawned: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || work(thread, until))).collect();
        spawned.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    done as f64 / begun.elapsed().as_secs_f64()
}

/// A bare log whose writers share syncs: the first who waits synchronises for all who wrote before.
struct RawLog {
    file: File,
    state: Mutex<RawState>,
    turn: Condvar,
}

#[derive(Default)]
struct RawState {
    end: u64,
    durable_end: u64,
    is_syncing: bool,
}

impl RawLog {
    fn new(path: &Path) -> Arc<RawLog> {
        let file = File::create(path).unwrap();
        // Blocks that were written before: a sync has nothing to record but the bytes.
        file.write_all_at(&vec![0; RAW_LEN as usize], 0).unwrap();
        file.sync_all().unwrap();
        Arc::new(RawLog { file, state: Mutex::default(), turn: Condvar::new() })
    }

    fn append_and_wait(&self) {
        let mut state = self.state.lock().unwrap();
        self.file.write_all_at(&[7; COMMIT_LEN as usize], state.end % (RAW_LEN - 4096)).unwrap();
        state.end += COMMIT_LEN;
        let end = state.end;
        while state.durable_end < end {
            if state.is_syncing {
                state = self.turn.wait(state).unwrap();
                continue;
            }
            state.is_syncing = true;
            let upto = state.end;
            drop(state);
            self.file.sync_data().unwrap();
            state = self.state.lock().unwrap();
            state.is_syncing = false;
            state.durable_end = upto;
            self.turn.notify_all();
        }
    }
}

const RAW_LEN: u64 = 64 << 20;
/// What a commit of one offset takes in `__consumer_offsets`.
const COMMIT_LEN: u64 = 110;

/// Reads the same partition to its end through a group and as an assigned consumer.
fn poll(directory: &Path) {
    let store = Store::open(directory.join("poll")).unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    let partition = topic.partition(0).unwrap();
    let value = [7; 100];
    for _ in 0..1000 {
        let records = (0..1000).map(|_| Record::new(&value));
        store.producer().send_batch(&partition, records).unwrap();
    }
    store.sync().unwrap();
    let read = |mut consumer: Consumer| {
        let (mut count, mut sum) = (0_usize, 0_usize);
        let begun = Instant::now();
        while count < 1_000_000 {
            let records = consumer.poll(NOW).unwrap();
            sum += records.iter().map(|m| m.value().map_or(0, <[u8]>::len)).sum::<usize>();
            count += records.count();
        }
        assert_eq!(sum, 100_000_000);
        1.0 / begun.elapsed().as_secs_f64()
    };
    let (mut through_group, mut assigned) = (Vec::new(), Vec::new());
    for round in 0..2 * ROUNDS + 1 {
        let mut group = 0.0;
        let mut alone = 0.0;
        // In turns, whoever is first finds the memory as the other left it.
        for step in 0..2 {
            if (round + step) % 2 == 0 {
                group = read(store.consumer().subscribe(&format!("g{round}"), &topic).unwrap());
            } else {
                alone = read(store.consumer().assign([&partition]).unwrap());
            }
        }
        // The first round warms the memory.
        if round > 0 {
            through_group.push(group);
            assigned.push(alone);
        }
    }
    show("poll through a group, M records/s of 100 B", &mut through_group, Some(&mut assigned));
}

fn show(what: &str, ours: &mut [f64], beside: Option<&mut [f64]>) {
    let median = |figures: &mut [f64]| {
        figures.sort_by(f64::total_cmp);
        (figures[0], figures[figures.len() / 2], figures[figures.len() - 1])
    };
    let (least, middle, most) = median(ours);
    print!("{what}: {middle:.2} ({least:.2}..{most:.2})");
    match beside {
        Some(beside) => {
            let (least, other, most) = median(beside);
            println!("; beside it {other:.2} ({least:.2}..{most:.2}): {:.2} x", middle / other);
        }
        None => println!(),
    }
}
