//! The hot functions, one by one, through the public face: `cargo bench --bench hot_paths`.
//!
//! Quick, and good for comparing two versions of the code; what a whole workload does is measured by `workloads`.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark may stop where something fails"
)]

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use divan::Bencher;
use divan::black_box;
use divan::counter::BytesCount;
use divan::counter::ItemsCount;
use ottla::Durability;
use ottla::Record;
use ottla::Start;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;

fn main() {
    divan::main();
}

/// Lengths of a value, in bytes.
const SIZES: [usize; 5] = [10, 100, 1_000, 10_000, 65_536];
/// What readers find in the log, about.
const LOG_LEN: usize = 32 << 20;
const BATCH_LEN: usize = 64 << 10;

fn store() -> (Store, Topic) {
    let store = Store::builder_temporary().durability(Durability::Buffered).open().unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    (store, topic)
}

/// Bytes that no compressor and no branch predictor likes.
fn value(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A store with batches of about 64 KiB, and how many records there are.
fn filled(len: usize) -> (Store, Topic, i64) {
    let (store, topic) = store();
    let partition = topic.partition(0).unwrap();
    let producer = store.producer();
    let value = value(len);
    let in_batch = (BATCH_LEN / len).max(1);
    let mut count = 0;
    while count * len < LOG_LEN {
        let records = (0..in_batch).map(|_| Record::new(&value));
        drop(producer.send_batch(&partition, records).unwrap());
        count += in_batch;
    }
    (store, topic, i64::try_from(count).unwrap())
}

#[divan::bench(args = SIZES, sample_count = 40, sample_size = 250)]
fn send(bencher: Bencher<'_, '_>, len: usize) {
    let (store, topic) = store();
    let producer = store.producer();
    let value = value(len);
    bencher
        .counter(BytesCount::new(len))
        .bench(|| drop(producer.send(&topic, Record::new(&value)).unwrap()));
}

/// Records per second and not per call: a batch of about 64 KiB.
#[divan::bench(args = SIZES, sample_count = 40, sample_size = 20)]
fn send_batch(bencher: Bencher<'_, '_>, len: usize) {
    let (store, topic) = store();
    let partition = topic.partition(0).unwrap();
    let producer = store.producer();
    let value = value(len);
    let in_batch = (BATCH_LEN / len).max(1);
    bencher.counter(ItemsCount::new(in_batch)).bench(|| {
        let records = (0..in_batch).map(|_| Record::new(&value));
        drop(producer.send_batch(&partition, records).unwrap());
    });
}

#[divan::bench(args = SIZES, sample_count = 40, sample_size = 250)]
fn send_lingering(bencher: Bencher<'_, '_>, len: usize) {
    let (store, topic) = store();
    let producer =
        store.producer_builder().linger(Duration::from_millis(100)).batch_bytes(BATCH_LEN).build();
    let value = value(len);
    bencher
        .counter(BytesCount::new(len))
        .bench(|| drop(producer.send(&topic, Record::new(&value)).unwrap()));
    producer.flush().unwrap();
}

/// One poll of up to 1 MiB, and a walk through its records.
#[divan::bench(args = SIZES, sample_count = 40, sample_size = 10)]
fn poll_and_iterate(bencher: Bencher<'_, '_>, len: usize) {
    let (store, topic, end) = filled(len);
    let partition = topic.partition(0).unwrap();
    let mut consumer = store.consumer().max_poll_records(1_000_000).assign([&partition]).unwrap();
    let per_poll = consumer.poll(Duration::ZERO).unwrap().count();
    bencher.counter(ItemsCount::new(per_poll)).bench_local(|| {
        if consumer.position(&partition).unwrap() + i64::try_from(per_poll).unwrap() > end {
            consumer.seek(&partition, 0).unwrap();
        }
        let records = consumer.poll(Duration::ZERO).unwrap();
        let mut sum = 0;
        for message in &records {
            sum += message.value().map_or(0, |value| value.len() + usize::from(value[0]));
        }
        black_box(sum)
    });
}

/// One record, somewhere.
#[divan::bench(args = SIZES, sample_count = 40, sample_size = 50)]
fn point_read(bencher: Bencher<'_, '_>, len: usize) {
    let (_store, topic, end) = filled(len);
    let partition = topic.partition(0).unwrap();
    let mut offset = 0;
    bencher.bench_local(|| {
        // A step without a common divisor goes everywhere.
        offset = (offset + 7_919) % end;
        let message = partition.read(offset).unwrap();
        black_box(message.and_then(|message| message.value().map(|value| value[0])))
    });
}

/// The same with a consumer.
#[divan::bench(args = SIZES, sample_count = 40, sample_size = 50)]
fn seek_and_poll(bencher: Bencher<'_, '_>, len: usize) {
    let (store, topic, end) = filled(len);
    let partition = topic.partition(0).unwrap();
    let mut consumer = store.consumer().max_poll_records(1).assign([&partition]).unwrap();
    let mut offset = 0;
    bencher.bench_local(|| {
        offset = (offset + 7_919) % end;
        consumer.seek(&partition, offset).unwrap();
        let records = consumer.poll(Duration::ZERO).unwrap();
        let value = records.iter().next().and_then(|message| message.value()).map(|value| value[0]);
        black_box(value)
    });
}

/// There and back between two threads that sleep at once when they have nothing to do.
#[divan::bench(sample_count = 40, sample_size = 100)]
fn wake_up_round_trip(bencher: Bencher<'_, '_>) {
    let (store, there) = store();
    let back = store.create_topic("back", TopicConfig::new()).unwrap();
    let consumer = |topic: &Topic| {
        let builder = store.consumer().spin(Duration::ZERO).start(Start::Latest);
        builder.assign(topic.partitions()).unwrap()
    };
    let (mut asked, mut answered) = (consumer(&there), consumer(&back));
    let producer = store.producer();
    let value = value(100);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for message in &asked.poll(Duration::from_millis(100)).unwrap() {
                    drop(producer.send(&back, Record::new(message.value().unwrap())).unwrap());
                }
            }
        });
        bencher.bench_local(|| {
            drop(producer.send(&there, Record::new(&value)).unwrap());
            while answered.poll(Duration::from_secs(5)).unwrap().is_empty() {}
        });
        is_over.store(true, Ordering::Relaxed);
    });
}
