//! How consumers wait, and what wakes them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::task::Waker;
use std::thread;
use std::thread::Thread;
use std::time::Duration;
use std::time::Instant;

use ottla::Durability;
use ottla::Error;
use ottla::Record;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;

use crate::consuming::send_numbers;
use crate::consuming::store_with_topic;
use crate::read_only::Helper;
use crate::read_only::orders;
use crate::read_only::tell;

/// So long that a test which has to sit it out has failed.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// Well below [`LONG`], well above what a busy machine takes to wake a thread.
pub(crate) const SOON: Duration = Duration::from_secs(10);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let begun = Instant::now();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        assert!(begun.elapsed() < LONG, "nothing woke the task");
        thread::park_timeout(LONG);
    }
}

fn empty_topic() -> (Store, Topic) {
    store_with_topic(TopicConfig::new())
}

/// Returns once a consumer of the topic has most likely gone to sleep; nothing depends on it.
fn let_it_fall_asleep() {
    thread::sleep(Duration::from_millis(60));
}

#[test]
fn a_poll_returns_as_soon_as_another_thread_has_sent() {
    let (store, topic) = empty_topic();
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    let (sent_at, told) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let records = consumer.poll(LONG).unwrap();
        (records.count(), Instant::now())
    });
    let_it_fall_asleep();
    sent_at.send(Instant::now()).unwrap();
    send_numbers(&store, &topic, 0..1);
    let (count, returned_at) = waiter.join().unwrap();
    assert_eq!(count, 1);
    assert!(returned_at - told.recv().unwrap() < Duration::from_secs(1));
}

#[test]
fn a_poll_that_brings_nothing_takes_its_whole_timeout_and_no_longer() {
    let (store, topic) = empty_topic();
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    for timeout in [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(150)] {
        let begun = Instant::now();
        assert!(consumer.poll(timeout).unwrap().is_empty());
        assert!(begun.elapsed() >= timeout);
        assert!(begun.elapsed() < timeout + Duration::from_secs(2));
    }
}

/// The processor time this process has used, by all its threads, in clock ticks of 10 ms.
fn ticks_of(task: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{task}/stat")).unwrap();
    // The second field is a name in parentheses and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Not a test of its own: the child that waits, so that nothing else uses its processor time.
#[test]
fn child_waiter() {
    let Some((data, orders)) = orders() else { return };
    let store = match orders.as_str() {
        "reader" => Store::open_read_only(data).unwrap(),
        _ => Store::open(data).unwrap(),
    };
    let partitions = store.topic("t").unwrap().partitions();
    let mut consumer = store.consumer().assign(partitions).unwrap();
    // Having just read, it may spin for a moment before it sleeps.
    assert_eq!(consumer.poll(LONG).unwrap().count(), 10);
    let before = ticks_of("self");
    assert!(consumer.poll(Duration::from_secs(1)).unwrap().is_empty());
    tell(&(ticks_of("self") - before).to_string());
}

#[test]
fn waiting_uses_next_to_no_processor_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    send_numbers(&store, &topic, 0..10);
    drop(topic);
    store.close().unwrap();
    for orders in ["writer", "reader"] {
        let mut child = Helper::start("waiting::child_waiter", directory.path(), orders);
        let ticks: u64 = child.hear().parse().unwrap();
        assert!(ticks < 10, "a {orders} used {} ms of a second", ticks * 10);
        child.finish();
    }
}

#[test]
fn a_wakeup_before_the_poll_is_not_lost_and_raises_once() {
    let (store, topic) = empty_topic();
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    let wakeup = consumer.wakeup_handle();
    wakeup.wake();
    wakeup.wake();
    assert!(matches!(consumer.poll(LONG), Err(Error::Wakeup)));
    assert!(consumer.poll(Duration::from_millis(20)).unwrap().is_empty());
}

#[test]
fn a_wakeup_takes_no_records() {
    let (store, topic) = empty_topic();
    send_numbers(&store, &topic, 0..3);
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    consumer.wakeup_handle().wake();
    assert!(matches!(consumer.poll(LONG), Err(Error::Wakeup)));
    assert_eq!(consumer.position(&topic.partition(0).unwrap()).unwrap(), 0);
    assert_eq!(consumer.poll(LONG).unwrap().count(), 3);
}

#[test]
fn a_wakeup_during_the_poll_ends_it_and_raises_once() {
    let (store, topic) = empty_topic();
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    let wakeup = consumer.wakeup_handle();
    let waiter = thread::spawn(move || {
        let begun = Instant::now();
        let first = consumer.poll(LONG);
        assert!(matches!(first, Err(Error::Wakeup)), "{first:?}");
        assert!(begun.elapsed() < SOON);
        assert!(consumer.poll(Duration::from_millis(20)).unwrap().is_empty());
    });
    let_it_fall_asleep();
    wakeup.wake();
    waiter.join().unwrap();
}

#[test]
fn every_one_of_many_wakeups_in_turn_is_raised() {
    let (store, topic) = empty_topic();
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    let wakeup = consumer.wakeup_handle();
    let (raised, heard) = mpsc::channel();
    let waiter = thread::spawn(move || {
        for _ in 0..2_000 {
            assert!(matches!(consumer.poll(LONG), Err(Error::Wakeup)));
            raised.send(()).unwrap();
        }
    });
    for _ in 0..2_000 {
        wakeup.wake();
        heard.recv_timeout(SOON).unwrap();
    }
    waiter.join().unwrap();
}

#[test]
fn closing_the_store_wakes_a_blocked_consumer() {
    let (store, topic) = empty_topic();
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    let waiter = thread::spawn(move || {
        let begun = Instant::now();
        let outcome = consumer.poll(LONG);
        assert!(matches!(outcome, Err(Error::Closed)), "{outcome:?}");
        begun.elapsed()
    });
    let_it_fall_asleep();
    store.close().unwrap();
    assert!(waiter.join().unwrap() < SOON);
}

#[test]
fn closing_the_store_wakes_a_task_that_waits_in_recv() {
    let (store, topic) = empty_topic();
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    let waiter = thread::spawn(move || block_on(consumer.recv()).map(|_| ()));
    let_it_fall_asleep();
    store.close().unwrap();
    assert!(matches!(waiter.join().unwrap(), Err(Error::Closed)));
}

#[test]
fn closing_the_store_wakes_a_consumer_whose_partitions_are_paused() {
    let (store, topic) = empty_topic();
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    consumer.pause(&topic.partitions()).unwrap();
    let waiter = thread::spawn(move || {
        let begun = Instant::now();
        assert!(matches!(consumer.poll(LONG), Err(Error::Closed)));
        begun.elapsed()
    });
    let_it_fall_asleep();
    store.close().unwrap();
    assert!(waiter.join().unwrap() < SOON);
}

#[test]
fn closing_the_store_wakes_a_consumer_that_has_no_partitions() {
    let (store, _topic) = empty_topic();
    let mut consumer = store.consumer().assign(Vec::<ottla::TopicPartition>::new()).unwrap();
    let wait = Duration::from_secs(3);
    let waiter = thread::spawn(move || {
        let begun = Instant::now();
        (consumer.poll(wait), begun.elapsed())
    });
    let_it_fall_asleep();
    store.close().unwrap();
    let (outcome, elapsed) = waiter.join().unwrap();
    assert!(matches!(outcome, Err(Error::Closed)), "{outcome:?} after {elapsed:?}");
    assert!(elapsed < wait);
}

#[test]
fn deleting_the_topic_wakes_a_blocked_consumer() {
    let (store, topic) = empty_topic();
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    let waiter = thread::spawn(move || {
        let begun = Instant::now();
        let outcome = consumer.poll(LONG);
        assert!(matches!(outcome, Err(Error::TopicDeleted { .. })), "{outcome:?}");
        begun.elapsed()
    });
    let_it_fall_asleep();
    store.delete_topic("t").unwrap();
    assert!(waiter.join().unwrap() < SOON);
}

#[test]
fn a_task_that_waits_in_recv_is_woken_by_a_send() {
    let (store, topic) = empty_topic();
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    let (got, heard) = mpsc::channel();
    let task = thread::spawn(move || {
        for _ in 0..200 {
            let message = block_on(consumer.recv()).unwrap();
            got.send(message.offset()).unwrap();
        }
    });
    let_it_fall_asleep();
    for n in 0..200 {
        send_numbers(&store, &topic, n..n + 1);
        assert_eq!(heard.recv_timeout(SOON).unwrap(), n);
    }
    task.join().unwrap();
}

#[test]
fn a_wakeup_reaches_a_task_that_waits_in_recv() {
    let (store, topic) = empty_topic();
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    let wakeup = consumer.wakeup_handle();
    let task = thread::spawn(move || block_on(consumer.recv()).map(|_| ()));
    let_it_fall_asleep();
    wakeup.wake();
    assert!(matches!(task.join().unwrap(), Err(Error::Wakeup)));
}

#[test]
fn dropping_a_recv_future_loses_nothing() {
    let (store, topic) = empty_topic();
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    let waker = Waker::noop();
    for n in 0..50 {
        // Polled while nothing is there, then dropped: whatever comes afterwards must not be lost.
        for _ in 0..2 {
            let mut abandoned = pin!(consumer.recv());
            assert!(abandoned.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
        }
        send_numbers(&store, &topic, n..n + 1);
        if n % 3 == 0 {
            // Made, never polled.
            drop(consumer.recv());
        }
        assert_eq!(block_on(consumer.recv()).unwrap().offset(), n);
    }
}

#[test]
fn many_consumers_of_one_partition_each_see_everything() {
    let (store, topic) = store_with_topic(TopicConfig::new().segment_bytes(4096));
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
            thread::spawn(move || {
                let mut next = 0;
                while next < 2_000 {
                    let records = consumer.poll(SOON).unwrap();
                    assert!(!records.is_empty(), "nothing came behind {next}");
                    for message in &records {
                        assert_eq!(message.offset(), next);
                        assert_eq!(message.value().unwrap(), next.to_string().as_bytes());
                        next += 1;
                    }
                }
            })
        })
        .collect();
    send_numbers(&store, &topic, 0..2_000);
    for reader in readers {
        reader.join().unwrap();
    }
}

#[test]
fn no_record_is_ever_missed_between_looking_and_sleeping() {
    // One record at a time to and fro: every single one finds the other side about to sleep.
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(2));
    let [there, back] = [topic.partition(0).unwrap(), topic.partition(1).unwrap()];
    let mut echo = store.consumer().spin(Duration::ZERO).assign([&there]).unwrap();
    let producer = store.producer();
    let answers = producer.clone();
    let answer_to = back.clone();
    let echoing = thread::spawn(move || {
        for n in 0..2_000 {
            let records = echo.poll(SOON).unwrap();
            assert_eq!(records.iter().next().map(|m| m.offset()), Some(n));
            drop(answers.send_batch(&answer_to, [Record::new("pong")]).unwrap());
        }
    });
    let mut consumer = store.consumer().spin(Duration::ZERO).assign([&back]).unwrap();
    for n in 0..2_000 {
        drop(producer.send_batch(&there, [Record::new("ping")]).unwrap());
        let records = consumer.poll(SOON).unwrap();
        assert_eq!(records.iter().next().map(|m| m.offset()), Some(n));
    }
    echoing.join().unwrap();
}

#[test]
fn nobody_misses_anything_where_several_consumers_wait_for_several_partitions() {
    // In turns: no later record makes up for a wake-up that was lost, and no sync either.
    let store = Store::builder_temporary()
        .durability(Durability::Buffered)
        .checkpoint_interval(Duration::from_secs(3600))
        .open()
        .unwrap();
    let topic = store.create_topic("t", TopicConfig::new().partitions(4)).unwrap();
    let producer = store.producer();
    let (heard, hears) = mpsc::channel();
    let spins = [Duration::ZERO, Duration::from_micros(20), Duration::from_micros(200)];
    let mut wakeups = Vec::new();
    let readers: Vec<_> = spins
        .iter()
        .map(|spin| {
            let mut consumer = store.consumer().spin(*spin).assign(topic.partitions()).unwrap();
            wakeups.push(consumer.wakeup_handle());
            let heard = heard.clone();
            thread::spawn(move || {
                loop {
                    match consumer.poll(LONG) {
                        Ok(records) => {
                            let numbers: Vec<Vec<u8>> = records
                                .iter()
                                .map(|message| message.value().unwrap().to_vec())
                                .collect();
                            heard.send(format!("{numbers:?}")).unwrap();
                        }
                        Err(Error::Wakeup) => heard.send("woken".to_owned()).unwrap(),
                        Err(other) => return other,
                    }
                }
            })
        })
        .collect();
    let task = {
        let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
        wakeups.push(consumer.wakeup_handle());
        thread::spawn(move || {
            loop {
                match block_on(consumer.recv()) {
                    Ok(message) => {
                        let number = message.value().unwrap().to_vec();
                        heard.send(format!("{:?}", [number])).unwrap();
                    }
                    Err(Error::Wakeup) => heard.send("woken".to_owned()).unwrap(),
                    Err(other) => return other,
                }
            }
        })
    };
    let all_hear = |expected: &str| {
        for _ in 0..4 {
            assert_eq!(hears.recv_timeout(SOON).unwrap(), expected);
        }
    };
    for n in 0..1_500_u32 {
        let number = n.to_string();
        if n % 50 == 49 {
            for wakeup in &wakeups {
                wakeup.wake();
            }
            all_hear("woken");
        }
        let record = Record::new(&number).partition(n % 4);
        drop(producer.send(&topic, record).unwrap());
        all_hear(&format!("{:?}", [number.as_bytes()]));
    }
    store.delete_topic("t").unwrap();
    for reader in readers.into_iter().chain([task]) {
        assert!(matches!(reader.join().unwrap(), Error::TopicDeleted { .. }));
    }
}

#[test]
fn a_consumer_of_a_thousand_partitions_is_woken_by_each_that_is_not_paused() {
    let (store, topic) = store_with_topic(TopicConfig::new().partitions(1_000));
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    let paused = topic.partition(7).unwrap();
    consumer.pause([&paused]).unwrap();
    let producer = store.producer();
    let (got, heard) = mpsc::channel();
    let reader = thread::spawn(move || {
        for _ in 0..100 {
            let records = consumer.poll(LONG).unwrap();
            got.send(records.iter().map(|m| m.partition()).collect::<Vec<_>>()).unwrap();
        }
        consumer
    });
    for n in 0..100 {
        drop(producer.send(&topic, Record::new("unheard").partition(7)).unwrap());
        let partition = 999 - 10 * n;
        drop(producer.send(&topic, Record::new("heard").partition(partition)).unwrap());
        assert_eq!(heard.recv_timeout(SOON).unwrap(), [partition]);
    }
    let mut consumer = reader.join().unwrap();
    assert!(consumer.poll(Duration::from_millis(20)).unwrap().is_empty());
    consumer.resume([&paused]).unwrap();
    assert_eq!(consumer.poll(SOON).unwrap().count(), 100);
}

#[test]
fn a_consumer_that_only_looks_sees_each_record_with_the_next_look() {
    let (store, topic) = empty_topic();
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    for n in 0..100 {
        assert!(consumer.poll(Duration::ZERO).unwrap().is_empty());
        send_numbers(&store, &topic, n..n + 1);
        let records = consumer.poll(Duration::ZERO).unwrap();
        assert_eq!(records.iter().map(|m| m.offset()).collect::<Vec<_>>(), [n]);
    }
    consumer.wakeup_handle().wake();
    assert!(matches!(consumer.poll(Duration::ZERO), Err(Error::Wakeup)));
    store.close().unwrap();
    assert!(matches!(consumer.poll(Duration::ZERO), Err(Error::Closed)));
}
