//! Three workers share a topic; one leaves in order, one dies in the middle of its work.
//!
//! `cargo run --release --example consumer_group`
//!
//! Orders of forty customers are handled by a group of three. Each customer's orders lie in one partition, so one
//! worker has them at a time, in order. One worker goes home early: it has committed what it did, and the others go on
//! behind it. One panics with a batch half done: nobody knows how far it was, so the others get that batch again from
//! its last commit. At the end every order was handled, each customer's in order, and exactly those twice that the
//! dead worker had handled and not committed.

#![allow(clippy::print_stdout, clippy::panic, reason = "an example shows what it does")]

use std::collections::HashMap;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use ottla::Consumer;
use ottla::Record;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What becomes of a worker.
#[derive(Clone, Copy)]
enum Fate {
    Stays,
    LeavesAfter(usize),
    PanicsAt(usize),
}

/// What the workers do to the world outside: here they write it down.
#[derive(Default)]
struct Ledger {
    /// Who handled which order of which customer, as it happened.
    entries: Vec<(&'static str, String, u32)>,
    /// How many different orders that makes.
    different: usize,
    last_of: HashMap<String, u32>,
}

fn main() -> Outcome<()> {
    let store = Store::temporary()?;
    let orders = store.create_topic("orders", TopicConfig::new().partitions(6))?;
    send_orders(&store, &orders)?;

    // All of them join before anybody begins, so each starts with two partitions.
    let join = || store.consumer().max_poll_records(BATCH).subscribe("workers", &orders);
    let (steady, leaving, careless) = (join()?, join()?, join()?);
    let ledger = Mutex::new(Ledger::default());
    let died = thread::scope(|scope| {
        let steady = scope.spawn(|| work("steady", steady, &ledger, Fate::Stays));
        let leaving = scope.spawn(|| work("leaving", leaving, &ledger, Fate::LeavesAfter(100)));
        let careless = scope.spawn(|| work("careless", careless, &ledger, Fate::PanicsAt(77)));
        let died = careless.join().is_err();
        for other in [steady, leaving] {
            other.join().map_err(|_| "a worker panicked that should not have")??;
        }
        Outcome::Ok(died)
    })?;
    assert!(died, "the careless worker should have panicked: that is the message above");

    let ledger = ledger.into_inner()?;
    // Every order was handled …
    assert_eq!(ledger.different, (CUSTOMERS * ORDERS_EACH) as usize);
    // … those twice that the careless worker did since its last commit, and no others …
    let twice = ledger.entries.len() - ledger.different;
    assert_eq!(twice, 77 % BATCH);
    // … each customer's first to last: whoever went back went back to a commit, and on from there.
    let mut last_of: HashMap<&str, u32> = HashMap::new();
    let mut steps_back = 0;
    for (_, customer, number) in &ledger.entries {
        let due = last_of.get(customer.as_str()).map_or(0, |last| last + 1);
        assert!(*number <= due, "{customer}: order {number} came when {due} was due");
        steps_back += usize::from(*number < due);
        last_of.insert(customer, *number);
    }
    println!("{} orders handled, {twice} of them twice, none skipped", ledger.different);
    println!("{steps_back} customers had some of their orders handled again");
    for worker in ["steady", "leaving", "careless"] {
        let count = ledger.entries.iter().filter(|(who, ..)| *who == worker).count();
        println!("{worker}: {count}");
    }

    // Nobody is left in the group, and nothing is left to do.
    let group = store.group("workers")?.describe()?;
    assert!(group.members.is_empty() && group.partitions.iter().all(|p| p.lag == Some(0)));
    Ok(())
}

fn send_orders(store: &Store, orders: &Topic) -> Outcome<()> {
    let producer = store.producer();
    for number in 0..ORDERS_EACH {
        for customer in 0..CUSTOMERS {
            let key = format!("customer {customer}");
            producer.send(orders, Record::new(&number.to_string()).key(&key))?;
        }
    }
    producer.flush()?;
    Ok(())
}

/// Handles orders until all are done, or its fate comes.
fn work(
    name: &'static str,
    mut consumer: Consumer,
    ledger: &Mutex<Ledger>,
    fate: Fate,
) -> Outcome<()> {
    let mut count = 0;
    while ledger.lock().map_err(|_| "the ledger is lost")?.different
        < (CUSTOMERS * ORDERS_EACH) as usize
    {
        // Partitions come and go within this call. Those whose records are in hand never go.
        let records = consumer.poll(Duration::from_millis(20))?;
        for message in &records {
            if matches!(fate, Fate::PanicsAt(limit) if count == limit) {
                panic!("{name} stumbles in the middle of a batch, after {count} orders");
            }
            let customer = String::from_utf8_lossy(message.key().unwrap_or_default());
            let number = String::from_utf8_lossy(message.value().unwrap_or_default());
            handle(name, &customer, number.parse()?, ledger)?;
            count += 1;
        }
        // Committed once it is done, and not before: that is what makes it at least once. If this thread panics
        // before, `consumer` is dropped by the unwinding: it leaves the group and commits nothing.
        consumer.commit()?;
        if matches!(fate, Fate::LeavesAfter(limit) if count >= limit) {
            break;
        }
    }
    // Its partitions go to the others at once, who wake up if they wait for something to do.
    consumer.close()?;
    Ok(())
}

/// Handles one order: what is done twice must not do harm, as here, where only what is new counts.
fn handle(name: &'static str, customer: &str, number: u32, ledger: &Mutex<Ledger>) -> Outcome<()> {
    let mut ledger = ledger.lock().map_err(|_| "the ledger is lost")?;
    ledger.entries.push((name, customer.to_owned(), number));
    let is_new = ledger.last_of.get(customer).is_none_or(|last| number > *last);
    if is_new {
        ledger.last_of.insert(customer.to_owned(), number);
        ledger.different += 1;
    }
    Ok(())
}

const BATCH: usize = 50;
const CUSTOMERS: u32 = 40;
const ORDERS_EACH: u32 = 60;
