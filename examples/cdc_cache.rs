//! A compacted topic as a table: changes go in, and the table is rebuilt from them at every start.
//!
//! `cargo run --release --example cdc_cache`
//!
//! An upstream database tells what changes in its accounts: a key, the new balance, or that the account is gone. Each
//! change is a record with the account as its key, a closed account a tombstone. Who wants the table reads the topic
//! from its beginning; then it has the last balance of every account, and goes on with what comes.
//!
//! The topic has `cleanup.policy=compact`, so it does not grow with the number of changes but with that of accounts:
//! the store takes out what was superseded, in the background. The program lives three lives. Each sends many changes,
//! keeps a table of its own beside them, and stops; the next one rebuilds the table from the topic and compares it.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use ottla::Consumer;
use ottla::Record;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
type Balances = BTreeMap<String, i64>;

const LIVES: u64 = 3;
const CHANGES: u64 = 40_000;
const ACCOUNTS: u64 = 500;

/// The accounts as the topic tells of them.
struct Cache {
    consumer: Consumer,
    balances: Balances,
}

impl Cache {
    /// Reads the topic from its beginning up to what is its end now.
    fn rebuild(store: &Store, topic: &Topic) -> Outcome<Cache> {
        let consumer = store.consumer().assign(topic.partitions())?;
        let mut cache = Cache { consumer, balances: Balances::new() };
        cache.catch_up(topic)?;
        Ok(cache)
    }

    /// Takes in what was sent so far.
    fn catch_up(&mut self, topic: &Topic) -> Outcome<()> {
        for partition in topic.partitions() {
            let end = partition.watermarks()?.1;
            while self.consumer.position(&partition)? < end {
                for message in &self.consumer.poll(Duration::ZERO)? {
                    let account =
                        std::str::from_utf8(message.key().unwrap_or_default())?.to_owned();
                    match message.value() {
                        Some(balance) => {
                            let balance = i64::from_be_bytes(balance.try_into()?);
                            self.balances.insert(account, balance);
                        }
                        // A tombstone. It may stand for something this reader has never seen.
                        None => drop(self.balances.remove(&account)),
                    }
                }
            }
        }
        Ok(())
    }
}

fn main() -> Outcome<()> {
    let directory = std::env::temp_dir().join(format!("ottla-cdc-cache-{}", std::process::id()));
    let mut upstream = Balances::new();
    for life in 1..=LIVES {
        live(&directory, life, &mut upstream)?;
    }
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}

/// One life of the program; `upstream` is the database, which outlives it.
fn live(directory: &Path, life: u64, upstream: &mut Balances) -> Outcome<()> {
    // Looks for something to compact more often than every 15 seconds, for it does not live that long.
    let store = Store::builder(directory).cleaner_backoff(Duration::from_millis(50)).open()?;
    let config = TopicConfig::new()
        .partitions(2)
        .segment_bytes(64 << 10)
        .set("cleanup.policy", "compact")?
        // A day is right where readers may be away for as long; this one reads at once.
        .set("delete.retention.ms", "0")?;
    let topic = store.topic_or_create("accounts", config)?;

    let begun = Instant::now();
    let mut cache = Cache::rebuild(&store, &topic)?;
    assert_eq!(cache.balances, *upstream, "the table is what it was when the last life ended");
    println!("life {life}: {} accounts, rebuilt in {:?}", cache.balances.len(), begun.elapsed());

    let producer = store.producer_builder().linger(Duration::from_millis(5)).build();
    let mut chance = life.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for _ in 0..CHANGES {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let account = format!("account {}", (chance >> 33) % ACCOUNTS);
        if (chance >> 20) % 50 == 0 {
            producer.send(&topic, Record::tombstone(&account))?;
            upstream.remove(&account);
        } else {
            let balance = (chance >> 40) as i64;
            producer.send(&topic, Record::new(&balance.to_be_bytes()).key(&account))?;
            upstream.insert(account, balance);
        }
    }
    producer.flush()?;
    cache.catch_up(&topic)?;
    assert_eq!(cache.balances, *upstream, "the table follows the changes");

    // The background has been at it; this does the rest, the last segments included.
    let counts = topic.compact()?.counts;
    assert!(counts.records_kept <= ACCOUNTS, "of each account one record, or a tombstone");
    let len: u64 = topic.describe()?.partitions.iter().map(|partition| partition.len).sum();
    assert!(len < 100_000, "{len} bytes are left of megabytes");
    println!(
        "life {life}: {CHANGES} changes more; {} records are left, {len} bytes",
        counts.records_kept
    );
    drop((cache, producer, topic));
    store.close()?;
    Ok(())
}
