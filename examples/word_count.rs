//! Counts the words of real texts as they stream by, through three lives of the program.
//!
//! `cargo run --release --example word_count`
//!
//! Lines go into one topic; a group takes them apart and sends each word, under itself as the key, to a second; another
//! group counts, and sends each new count to a third, where the latest of each word is the one that holds. The program
//! is stopped in the middle in an orderly way, and then once more at the worst moment: when results are written and the
//! commit behind them is not. Each time it goes on from what its groups have committed.
//!
//! Groups deliver at least once. That the counts are exact all the same is due to two habits: commit last, and let a
//! result say what it is made of. Each word carries the place it was read at, each count the place of the last word that
//! is in it, and what lies at or before that place is in already.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use ottla::Record;
use ottla::Store;
use ottla::TopicConfig;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Where a word was read: the offset of its line, and which word of the line it is.
type Place = (i64, usize);

/// For each word how often it came, and where it came last.
type Table = BTreeMap<String, (u64, Place)>;

/// When a life ends, counted in batches of a worker's.
#[derive(Clone, Copy)]
enum End {
    AllIsDone,
    InOrder(usize),
    BeforeTheCommit(usize),
}

impl End {
    fn is_now(self, batches: usize) -> bool {
        matches!(self, End::InOrder(end) | End::BeforeTheCommit(end) if batches == end)
    }
}

fn main() -> Outcome<()> {
    let directory = std::env::temp_dir().join(format!("ottla-word-count-{}", std::process::id()));
    let store = Store::open(&directory)?;
    let lines = store.create_topic("lines", TopicConfig::new())?;
    store.create_topic("words", TopicConfig::new().partitions(3))?;
    let compacted = TopicConfig::new().partitions(3).set("cleanup.policy", "compact")?;
    store.create_topic("counts", compacted)?;
    let producer = store.producer();
    for line in TEXTS.iter().flat_map(|text| text.lines()) {
        producer.send(&lines, line)?;
    }
    drop((producer, lines));
    store.close()?;

    let first = live(&directory, End::InOrder(3))?;
    let second = live(&directory, End::BeforeTheCommit(3))?;
    let third = live(&directory, End::AllIsDone)?;
    for (number, life) in [&first, &second, &third].into_iter().enumerate() {
        let (lines, words, again) = (&life.lines, life.words, life.again);
        println!("life {}: lines {lines:?}, {words} words, {again} of them once more", number + 1);
    }

    // The second life went on right behind the first, the third went back to the second's last commit.
    assert_eq!((first.again, second.again), (0, 0));
    assert_eq!(second.lines.start, first.lines.end);
    assert!(second.lines.contains(&third.lines.start));
    assert!(third.again > 0);
    // And the result is that of counting the texts in one go.
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for word in TEXTS.iter().flat_map(|text| text.lines()).flat_map(words_of) {
        *expected.entry(word).or_default() += 1;
    }
    let counted = third.table.iter().map(|(word, (count, _))| (word.clone(), *count));
    assert_eq!(counted.collect::<BTreeMap<_, _>>(), expected);

    // Who reads the third topic from its beginning has the table, too.
    let store = Store::open(&directory)?;
    assert_eq!(table_of(&store)?, third.table);
    store.close()?;
    let mut by_count: Vec<_> = expected.into_iter().collect();
    by_count.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (word, count) in &by_count[..5] {
        println!("{count:5} {word}");
    }
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}

/// What was done in one life of the program.
struct Life {
    /// The offsets of the lines that were taken apart.
    lines: std::ops::Range<i64>,
    words: usize,
    /// How many words came that were counted before.
    again: usize,
    table: Table,
}

/// Opens the directory, works until the end, and closes it.
fn live(directory: &Path, end: End) -> Outcome<Life> {
    let store = Store::open(directory)?;
    let is_split = AtomicBool::new(false);
    let (lines, counted) = thread::scope(|scope| {
        let splitter = scope.spawn(|| {
            let lines = split(&store, end);
            is_split.store(true, Ordering::Release);
            lines
        });
        let counter = scope.spawn(|| count(&store, &is_split, end));
        (splitter.join(), counter.join())
    });
    let lines = lines.map_err(|_| "the splitter panicked")??;
    let (table, words, again) = counted.map_err(|_| "the counter panicked")??;
    store.close()?;
    Ok(Life { lines, words, again, table })
}

/// Takes lines apart, until none is left or the end comes; gives their offsets.
fn split(store: &Store, end: End) -> Outcome<std::ops::Range<i64>> {
    let (lines, words) = (store.topic("lines")?, store.topic("words")?);
    let mut consumer = store.consumer().max_poll_records(40).subscribe("splitter", &lines)?;
    let producer = store.producer();
    let mut done: Option<std::ops::Range<i64>> = None;
    for batch in 1.. {
        let records = consumer.poll(Duration::from_millis(100))?;
        if records.is_empty() {
            break;
        }
        for message in &records {
            let line = std::str::from_utf8(message.value().unwrap_or_default())?;
            for (index, word) in words_of(line).enumerate() {
                let place = format!("{} {index}", message.offset());
                producer.send(&words, Record::new(&place).key(&word))?;
            }
            let begin = done.map_or(message.offset(), |done| done.start);
            done = Some(begin..message.offset() + 1);
        }
        if matches!(end, End::BeforeTheCommit(_)) && end.is_now(batch) {
            break;
        }
        // On return the lines are dealt with for good, a power cut included, and so are the words: a commit
        // covers what lies below it in `lines`, and `flush` what was made of it.
        producer.flush()?;
        consumer.commit()?;
        if end.is_now(batch) {
            break;
        }
    }
    consumer.close()?;
    Ok(done.unwrap_or_default())
}

/// Counts words, until none is left or the end comes; gives the table, how many words came, and how many again.
fn count(store: &Store, is_split: &AtomicBool, end: End) -> Outcome<(Table, usize, usize)> {
    let (words, counts) = (store.topic("words")?, store.topic("counts")?);
    // Read before the first word is: what an earlier life has counted.
    let mut table = table_of(store)?;
    let mut consumer = store.consumer().max_poll_records(300).subscribe("counter", &words)?;
    let producer = store.producer();
    let (mut came, mut again, mut batch) = (0, 0, 0);
    loop {
        // Asked before reading: what is read afterwards is then the whole rest.
        let is_last_look = is_split.load(Ordering::Acquire);
        let records = consumer.poll(Duration::from_millis(10))?;
        if records.is_empty() && is_last_look {
            break;
        }
        let mut changed = BTreeSet::new();
        for message in &records {
            let word = std::str::from_utf8(message.key().unwrap_or_default())?;
            let place = place_of(std::str::from_utf8(message.value().unwrap_or_default())?)?;
            let (count, last) = table.entry(word.to_owned()).or_insert((0, NOWHERE));
            // All of one word comes through one partition, in the order of the lines.
            if place > *last {
                (*count, *last) = (*count + 1, place);
                changed.insert(word);
            } else {
                again += 1;
            }
        }
        came += records.count();
        for word in changed {
            let (count, (line, index)) = table[word];
            let value = format!("{count} {line} {index}");
            producer.send(&counts, Record::new(&value).key(word))?;
        }
        batch += usize::from(!records.is_empty());
        if matches!(end, End::BeforeTheCommit(_)) && end.is_now(batch) {
            break;
        }
        producer.flush()?;
        consumer.commit()?;
        if end.is_now(batch) {
            break;
        }
    }
    consumer.close()?;
    Ok((table, came, again))
}

/// Reads the counts: of each word the latest.
fn table_of(store: &Store) -> Outcome<Table> {
    let counts = store.topic("counts")?;
    let mut consumer = store.consumer().assign(counts.partitions())?;
    let mut table = Table::new();
    loop {
        let records = consumer.poll(Duration::ZERO)?;
        if records.is_empty() {
            return Ok(table);
        }
        for message in &records {
            let word = String::from_utf8(message.key().unwrap_or_default().to_vec())?;
            let value = std::str::from_utf8(message.value().unwrap_or_default())?;
            let (count, place) = value.split_once(' ').ok_or("a count without a place")?;
            table.insert(word, (count.parse()?, place_of(place)?));
        }
    }
}

fn place_of(text: &str) -> Outcome<Place> {
    let (line, index) = text.split_once(' ').ok_or("a place without an index")?;
    Ok((line.parse()?, index.parse()?))
}

fn words_of(line: &str) -> impl Iterator<Item = String> {
    let words = line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase)
}

/// Before every place.
const NOWHERE: Place = (-1, 0);
const TEXTS: [&str; 3] = [
    include_str!("../README.md"),
    include_str!("../LICENSE-APACHE"),
    include_str!("../LICENSE-MIT"),
];
