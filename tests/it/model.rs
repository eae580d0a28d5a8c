//! Random operations and crashes, against a small model of what a log is.
//!
//! The seed is printed; `OTTLA_SEED=… cargo test model` plays it again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that fails should say where"
)]

use std::collections::BTreeMap;
use std::fs;
use std::hash::BuildHasher;
use std::path::Path;
use std::time::Duration;

use ottla::Consumer;
use ottla::Durability;
use ottla::Error;
use ottla::Record;
use ottla::Start;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;

use crate::chance::Chance;
use crate::chance::told;
use crate::scratch::scratch;

impl Chance {
    fn bytes(&mut self) -> Option<Vec<u8>> {
        match self.below(8) {
            0 => None,
            1 => Some(Vec::new()),
            2 => Some(vec![self.below(256) as u8; self.below(3000) as usize]),
            _ => Some((0..self.below(40)).map(|_| self.below(256) as u8).collect()),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp: i64,
}

#[derive(Default)]
struct Model {
    topics: BTreeMap<String, Vec<Vec<Entry>>>,
}

struct Play {
    directory: tempfile::TempDir,
    generation: u32,
    store: Option<Store>,
    model: Model,
    chance: Chance,
    now: i64,
}

impl Play {
    fn root(&self) -> std::path::PathBuf {
        self.directory.path().join(format!("generation-{}", self.generation))
    }

    fn open(&mut self) {
        let durability = match self.chance.below(3) {
            0 => Durability::Synced,
            1 => Durability::Every(Duration::from_millis(1)),
            _ => Durability::Buffered,
        };
        let store = Store::builder(self.root())
            .durability(durability)
            .checkpoint_interval(Duration::from_millis(1 + self.chance.below(50)))
            .open()
            .unwrap();
        assert!(store.health().is_good(), "{:?}", store.health());
        self.store = Some(store);
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn some_topic(&mut self) -> Option<(String, Topic)> {
        let names: Vec<String> = self.model.topics.keys().cloned().collect();
        let name = names.get(self.chance.below(names.len().max(1) as u64) as usize)?.clone();
        let topic = self.store().topic(&name).unwrap();
        Some((name, topic))
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..=3 => self.create(),
            4 => self.delete(),
            5..=6 => self.add_partitions(),
            7..=8 => self.close_and_open(),
            9..=11 => self.crash_and_open(),
            12..=14 => self.alter(),
            15..=16 => self.store().sync().unwrap(),
            17..=25 => self.read_somewhere(),
            26..=35 => self.send_batch(),
            _ => self.send(),
        }
    }

    fn create(&mut self) {
        let name = format!("topic-{}", self.chance.below(4));
        let partitions = 1 + self.chance.below(3) as u32;
        let config = TopicConfig::new()
            .partitions(partitions)
            .segment_bytes(8192 + self.chance.below(8192) as u32)
            .index_interval_bytes(64 + self.chance.below(1000) as u32);
        match self.store().create_topic(&name, config) {
            Ok(_) => {
                let before = self.model.topics.insert(name, vec![Vec::new(); partitions as usize]);
                assert_eq!(before, None);
            }
            Err(Error::TopicExists { name }) => assert!(self.model.topics.contains_key(&name)),
            Err(other) => panic!("{other}"),
        }
    }

    fn delete(&mut self) {
        if let Some((name, topic)) = self.some_topic() {
            self.store().delete_topic(&name).unwrap();
            self.model.topics.remove(&name);
            assert!(matches!(
                self.store().producer().send(&topic, "late"),
                Err(Error::TopicDeleted { .. })
            ));
        }
    }

    fn add_partitions(&mut self) {
        if let Some((name, topic)) = self.some_topic() {
            let count = topic.partition_count() + 1;
            if count <= 5 {
                topic.add_partitions(count).unwrap();
                self.model.topics.get_mut(&name).unwrap().push(Vec::new());
            }
        }
    }

    fn alter(&mut self) {
        if let Some((_, topic)) = self.some_topic() {
            let bytes = (8192 + self.chance.below(8192)).to_string();
            topic.alter("segment.bytes", Some(&bytes)).unwrap();
        }
    }

    fn entry(&mut self) -> Entry {
        // Times go back and forth, within what a topic accepts.
        self.now += self.chance.below(2000) as i64 - 500;
        let headers =
            (0..self.chance.below(3)).map(|n| (format!("h{n}"), self.chance.bytes())).collect();
        let (key, value) = (self.chance.bytes(), self.chance.bytes());
        Entry { key, value, headers, timestamp: self.now }
    }

    fn send(&mut self) {
        let Some((name, topic)) = self.some_topic() else { return };
        let entry = self.entry();
        let sent = self.store().producer().send(&topic, record_of(&entry)).unwrap();
        let metadata = if self.chance.below(10) == 0 { Some(sent.wait().unwrap()) } else { None };
        // Which partition it went to shows in the log's end.
        let partitions = self.model.topics.get_mut(&name).unwrap();
        let grown: Vec<usize> = topic
            .partitions()
            .iter()
            .enumerate()
            .filter(|(n, p)| p.watermarks().unwrap().1 == partitions[*n].len() as i64 + 1)
            .map(|(n, _)| n)
            .collect();
        assert_eq!(grown.len(), 1);
        if let Some(metadata) = metadata {
            assert_eq!(metadata.partition() as usize, grown[0]);
            assert_eq!(metadata.offset(), partitions[grown[0]].len() as i64);
        }
        partitions[grown[0]].push(entry);
    }

    fn send_batch(&mut self) {
        let Some((name, topic)) = self.some_topic() else { return };
        let number = self.chance.below(u64::from(topic.partition_count())) as u32;
        let entries: Vec<Entry> = (0..1 + self.chance.below(20)).map(|_| self.entry()).collect();
        let partition = topic.partition(number).unwrap();
        let sent = self.store().producer().send_batch(&partition, entries.iter().map(record_of));
        let log = &mut self.model.topics.get_mut(&name).unwrap()[number as usize];
        match sent {
            Ok(delivery) => {
                let end = partition.watermarks().unwrap().1;
                assert_eq!(end, (log.len() + entries.len()) as i64);
                drop(delivery);
                log.extend(entries);
            }
            // A batch larger than a segment is refused whole.
            Err(Error::RecordTooLarge { key: "segment.bytes", .. }) => {
                assert_eq!(partition.watermarks().unwrap().1, log.len() as i64);
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn read_somewhere(&mut self) {
        let Some((name, topic)) = self.some_topic() else { return };
        let number = self.chance.below(u64::from(topic.partition_count())) as u32;
        let partition = topic.partition(number).unwrap();
        let log = self.model.topics[&name][number as usize].clone();
        let from = self.chance.below(log.len() as u64 + 1);
        let records_max = 1 + self.chance.below(50) as usize;
        let mut consumer = self
            .store()
            .consumer()
            .max_poll_records(records_max)
            .max_partition_fetch_bytes(1 + self.chance.below(5000) as usize)
            .assign([(partition.clone(), Start::Offset(from as i64))])
            .unwrap();
        let records = consumer.poll(Duration::ZERO).unwrap();
        let found: Vec<(i64, Entry)> = records.iter().map(|m| (m.offset(), entry_of(&m))).collect();
        assert!(found.len() <= records_max);
        assert_eq!(found.is_empty(), from as usize == log.len());
        let end = from as usize + found.len();
        assert_eq!(found, numbered(&log[from as usize..end], from as i64));
        assert_eq!(consumer.position(&partition).unwrap(), end as i64);

        let point = self.chance.below(log.len() as u64 + 2);
        let found = partition.read(point as i64).unwrap();
        let found = found.map(|message| (message.offset(), entry_of_owned(&message)));
        assert_eq!(found, log.get(point as usize).map(|entry| (point as i64, entry.clone())));

        let time = self.now - self.chance.below(5000) as i64;
        let expected = log
            .iter()
            .enumerate()
            .find(|(_, entry)| entry.timestamp >= time)
            .map(|(offset, entry)| (offset as i64, entry.timestamp));
        assert_eq!(partition.offset_for_time(time).unwrap(), expected);
    }

    fn close_and_open(&mut self) {
        self.store.take().unwrap().close().unwrap();
        assert!(self.root().join(".kafka_cleanshutdown").exists());
        self.open();
        self.check();
    }

    /// A copy of the directory while it is open is what a killed process leaves.
    fn crash_and_open(&mut self) {
        let from = self.root();
        self.generation += 1;
        copy_tree(&from, &self.root());
        self.store = None;
        fs::remove_dir_all(from).unwrap();
        self.open();
        self.check();
    }

    fn check(&self) {
        let names: Vec<String> =
            self.store().topics().unwrap().iter().map(|t| t.name().to_owned()).collect();
        assert_eq!(names, self.model.topics.keys().cloned().collect::<Vec<_>>());
        for (name, partitions) in &self.model.topics {
            let topic = self.store().topic(name).unwrap();
            assert_eq!(topic.partition_count() as usize, partitions.len());
            for (partition, log) in topic.partitions().into_iter().zip(partitions) {
                let mut consumer = self.store().consumer().assign([&partition]).unwrap();
                assert_eq!(drain(&mut consumer), numbered(log, 0), "{partition}");
            }
        }
    }
}

fn drain(consumer: &mut Consumer) -> Vec<(i64, Entry)> {
    let mut found = Vec::new();
    loop {
        let records = consumer.poll(Duration::ZERO).unwrap();
        if records.is_empty() {
            return found;
        }
        found.extend(records.iter().map(|m| (m.offset(), entry_of(&m))));
    }
}

fn numbered(log: &[Entry], from: i64) -> Vec<(i64, Entry)> {
    (from..).zip(log.iter().cloned()).collect()
}

fn record_of(entry: &Entry) -> Record<'_> {
    let mut record = Record::default()
        .key_or_null(entry.key.as_deref())
        .value_or_null(entry.value.as_deref())
        .timestamp(entry.timestamp);
    for (key, value) in &entry.headers {
        record = match value {
            Some(value) => record.header(key, value),
            None => record.null_header(key),
        };
    }
    record
}

fn entry_of(message: &ottla::Message<'_>) -> Entry {
    Entry {
        key: message.key().map(<[u8]>::to_vec),
        value: message.value().map(<[u8]>::to_vec),
        headers: message
            .headers()
            .map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec)))
            .collect(),
        timestamp: message.timestamp(),
    }
}

fn entry_of_owned(message: &ottla::OwnedMessage) -> Entry {
    Entry {
        key: message.key().map(<[u8]>::to_vec),
        value: message.value().map(<[u8]>::to_vec),
        headers: message
            .headers()
            .map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec)))
            .collect(),
        timestamp: message.timestamp(),
    }
}

/// Copies a directory that may be in use, as a kill would leave it.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            // A temporary file may have been renamed since it was listed, as in a crash between the two.
            match fs::copy(entry.path(), &target) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => drop(other.unwrap()),
            }
        }
    }
}

fn play(seed: u64, steps: u32) {
    println!("OTTLA_SEED={seed}");
    let directory = scratch();
    let mut play = Play {
        directory,
        generation: 0,
        store: None,
        model: Model::default(),
        chance: Chance(seed | 1),
        now: 1_700_000_000_000,
    };
    play.open();
    for _ in 0..steps {
        play.step();
    }
    play.check();
    play.close_and_open();
}

#[test]
fn the_log_is_what_the_model_says_whatever_is_done_to_it() {
    match told("OTTLA_SEED") {
        Some(seed) => play(seed, 2000),
        None => {
            for seed in 1..=8 {
                play(seed * 7919, 600);
            }
            play(std::hash::RandomState::new().hash_one(0), 1000);
        }
    }
}
