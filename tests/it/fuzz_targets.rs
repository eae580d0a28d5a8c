//! What is fuzzed: each function takes any bytes and must neither panic, hang, nor take memory without bound.
//!
//! The package in `tests/fuzz/` feeds them what a fuzzer thinks of; `fuzzing.rs` what it thought of before, on every
//! `cargo test`. Only the public face is used: what lies in a directory is what a caller cannot vouch for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a target that fails should say where")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use ottla::Durability;
use ottla::Error;
use ottla::Record;
use ottla::Store;
use ottla::TopicConfig;
use ottla::inspect;
use ottla::inspect::DumpedRecords;
use ottla::repair;
use tempfile::TempDir;

/// A target: its name, which is also that of its corpus, and what it does.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Every target.
pub(crate) const TARGETS: [Target; 8] = [
    ("segment", segment),
    ("directory", directory),
    ("batch", batch),
    ("indexes", indexes),
    ("checkpoints", checkpoints),
    ("papers", papers),
    ("properties", properties),
    ("operations", operations),
];

const SEGMENT: &str = "00000000000000000000.log";

thread_local! {
    static SCRATCH: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// Gives an empty directory, in memory where there is one. A fuzzer says where: it ends without clearing up.
fn scratch() -> PathBuf {
    SCRATCH.with(|scratch| {
        let mut scratch = scratch.borrow_mut();
        let directory = scratch.get_or_insert_with(|| {
            let told = std::env::var_os("OTTLA_SCRATCH").map(PathBuf::from);
            let memory = told.unwrap_or_else(|| PathBuf::from("/dev/shm"));
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
                .unwrap()
        });
        let root = directory.path().join("data");
        drop(fs::remove_dir_all(&root));
        fs::create_dir(&root).unwrap();
        root
    })
}

/// Checks, reads, opens, repairs and checks again; what the repair leaves is in order.
fn use_everything(root: &Path) {
    let before = inspect::check(root).unwrap();
    let planned = repair::plan(root);
    read(&Store::open_read_only(root));
    if let Ok(report) = repair::apply(root) {
        let is_same =
            planned.is_ok_and(|planned| planned.steps.is_empty() == report.steps.is_empty());
        assert!(is_same, "the plan is not what is done");
        let again = repair::apply(root).unwrap();
        assert!(again.steps.is_empty(), "{before:?}\n{report:?}\n{again:?}");
    }
    let store = Store::open(root);
    read(&store);
    drop(store.map(Store::close));
}

fn read(store: &Result<Store, Error>) {
    let Ok(store) = store else {
        return;
    };
    for topic in store.topics().unwrap() {
        for partition in topic.partitions() {
            let Ok((start, end)) = partition.watermarks() else {
                continue;
            };
            for offset in [start, start.saturating_add(1), end.saturating_sub(1)] {
                drop(partition.read(offset.max(0)));
            }
            drop(partition.offset_for_time(0));
            let Ok(mut consumer) = store.consumer().assign([&partition]) else {
                continue;
            };
            let mut last = -1;
            for _ in 0..20 {
                match consumer.poll(Duration::ZERO) {
                    Ok(records) if records.is_empty() => break,
                    Ok(records) => {
                        for message in &records {
                            assert!(message.offset() > last, "offsets do not ascend");
                            last = message.offset();
                            assert!(message.headers().count() < 1 << 20);
                        }
                    }
                    Err(Error::Corrupt { resume: Some(resume), .. })
                    | Err(Error::UnsupportedCompression { resume, .. }) => {
                        assert!(resume > last, "reading does not get on");
                        if consumer.seek(&partition, resume).is_err() {
                            break;
                        }
                    }
                    Err(_) => break,
                }
            }
        }
    }
    drop(store.groups());
}

fn write(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// The bytes are a segment.
pub(crate) fn segment(bytes: &[u8]) {
    let root = scratch();
    write(&root, &format!("t-0/{SEGMENT}"), bytes);
    dump(&root.join("t-0").join(SEGMENT));
    use_everything(&root);
}

fn dump(path: &Path) {
    let mut dump = inspect::dump_log(path).unwrap();
    while let Ok(Some(batch)) = dump.next_batch() {
        if let DumpedRecords::Plain(records) = batch.records {
            for record in records {
                assert!(record.headers().count() < 1 << 24);
            }
        }
    }
}

/// The bytes are a batch from its attributes on; lengths and checksum are made to be right.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut checked = bytes.to_vec();
    checked.resize(checked.len().max(40), 0);
    let mut batch = vec![0; 21];
    batch[8..12].copy_from_slice(&(checked.len() as i32 + 9).to_be_bytes());
    batch[16] = 2;
    batch[17..21].copy_from_slice(&crc32c::crc32c(&checked).to_be_bytes());
    batch.extend(checked);
    batch
}

/// The bytes are what the checksum of a batch covers: attributes, codecs, records. What we read of it another decoder
/// reads, too.
pub(crate) fn batch(bytes: &[u8]) {
    let root = scratch();
    let batch = sealed(bytes);
    write(&root, &format!("t-0/{SEGMENT}"), &batch);
    let path = root.join("t-0").join(SEGMENT);
    let mut ours = None;
    if let Ok(Some(batch)) = inspect::dump_log(&path).unwrap().next_batch() {
        if let DumpedRecords::Plain(records) = batch.records {
            ours = Some(
                records
                    .filter(|record| record.control.is_none())
                    .map(|record| {
                        (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec))
                    })
                    .collect::<Vec<_>>(),
            );
        }
    }
    // Theirs believes counts and sizes, and is asked only about what has passed every check here.
    if let Some(ours) = ours.filter(|ours| !ours.is_empty()) {
        let mut theirs = bytes::Bytes::from(batch);
        let decoded = kafka_protocol::records::RecordBatchDecoder::decode(&mut theirs);
        if let Ok(set) = decoded {
            let of_record = |record: &kafka_protocol::records::Record| {
                (record.key.as_ref().map(|b| b.to_vec()), record.value.as_ref().map(|b| b.to_vec()))
            };
            let theirs: Vec<_> = set.records.iter().map(of_record).collect();
            assert_eq!(ours, theirs, "another decoder reads something else");
        }
    }
    use_everything(&root);
}

/// Cuts bytes into pieces, each behind two bytes of length.
fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk::<2>()?;
        let (piece, rest) = rest.split_at(usize::from(u16::from_be_bytes(*len)).min(rest.len()));
        bytes = rest;
        Some(piece)
    })
}

/// The pieces are the files of a directory, each behind a byte that says which; of some files several pieces, one behind
/// the other. Some are whole batches, whose offsets go on from the batch before.
pub(crate) fn directory(bytes: &[u8]) {
    let root = scratch();
    let mut files: BTreeMap<&str, (Vec<u8>, i64)> = BTreeMap::new();
    for piece in pieces(bytes).take(32) {
        let Some((which, piece)) = piece.split_first() else {
            continue;
        };
        let name = NAMES[usize::from(which & 0x3f) % NAMES.len()];
        let digits = name.split('/').nth(1).and_then(|file| file.get(..20));
        let starts_at = digits.and_then(|digits| digits.parse().ok());
        let file = files.entry(name).or_insert((Vec::new(), starts_at.unwrap_or(0)));
        if which & 0x80 == 0 {
            file.0.extend_from_slice(piece);
            continue;
        }
        let mut batch = sealed(piece);
        batch[..8].copy_from_slice(&file.1.to_be_bytes());
        let delta = batch[23..].first_chunk().map_or(0, |delta| i32::from_be_bytes(*delta));
        file.1 = file.1.saturating_add(i64::from(delta.max(0)) + 1);
        file.0.extend(batch);
    }
    for (name, (bytes, _)) in files {
        write(&root, name, &bytes);
    }
    use_everything(&root);
}

/// Files as Kafka or a crash leave them: two topics, two segments, what a compaction or a deletion was at.
const NAMES: [&str; 30] = [
    "t-0/00000000000000000000.log",
    "t-0/00000000000000000000.index",
    "t-0/00000000000000000000.timeindex",
    "t-0/00000000000000000003.log",
    "t-0/00000000000000000003.index",
    "t-0/00000000000000000003.timeindex",
    "t-0/00000000000000000000.log.cleaned",
    "t-0/00000000000000000000.log.swap",
    "t-0/00000000000000000000.log.deleted",
    "t-0/00000000000000000003.log.swap",
    "t-0/00000000000000000003.log.deleted",
    "t-0/00000000000000000003.txnindex",
    "t-0/00000000000000000003.snapshot",
    "t-0/leader-epoch-checkpoint",
    "t-0/ottla.compacted",
    "t-0/partition.metadata",
    "t-1/00000000000000000000.log",
    "t-0.0123456789abcdef0123456789abcdef-delete/00000000000000000000.log",
    "__consumer_offsets-0/00000000000000000000.log",
    "__consumer_offsets-0/00000000000000000003.log",
    "__consumer_offsets-1/00000000000000000000.log",
    "u-0/09223372036854775800.log",
    "u-0/09223372036854775800.index",
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    "replication-offset-checkpoint",
    "cleaner-offset-checkpoint",
    ".kafka_cleanshutdown",
    ".lock",
    "t-0/ottla.cut-00000000000000000001-0",
];

/// The pieces are the files beside a sound segment.
pub(crate) fn indexes(bytes: &[u8]) {
    let root = scratch();
    sound_segment(&root);
    let kinds = ["index", "timeindex", "txnindex", "snapshot"];
    for (kind, piece) in kinds.into_iter().zip(pieces(bytes)) {
        let mut piece = piece.to_vec();
        if kind == "snapshot" && piece.len() >= 10 {
            // What a snapshot says is looked at only if its checksum is right.
            let checksum = crc32c::crc32c(&piece[6..]);
            piece[2..6].copy_from_slice(&checksum.to_be_bytes());
        }
        write(&root, &format!("t-0/00000000000000000000.{kind}"), &piece);
    }
    let path = |kind: &str| root.join(format!("t-0/00000000000000000000.{kind}"));
    drop(inspect::dump_offset_index(path("index")));
    drop(inspect::dump_time_index(path("timeindex")));
    drop(inspect::dump_transaction_index(path("txnindex")));
    drop(inspect::dump_producer_snapshot(path("snapshot")));
    use_everything(&root);
}

/// The pieces are the small files of a directory.
pub(crate) fn checkpoints(bytes: &[u8]) {
    let root = scratch();
    sound_segment(&root);
    let names = [
        "recovery-point-offset-checkpoint",
        "log-start-offset-checkpoint",
        "replication-offset-checkpoint",
        "cleaner-offset-checkpoint",
        "t-0/leader-epoch-checkpoint",
        "t-0/ottla.compacted",
        "t-0/partition.metadata",
        "ottla.topics",
    ];
    for (name, piece) in names.into_iter().zip(pieces(bytes)) {
        let mut piece = piece.to_vec();
        if name == "ottla.topics" && !piece.is_empty() {
            // The same of the list of topics; its last line is written here.
            let end = piece.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            piece.truncate(end);
            let seal = format!("crc32c {:08x}\n", crc32c::crc32c(&piece));
            piece.extend_from_slice(seal.as_bytes());
        }
        if !piece.is_empty() {
            write(&root, name, &piece);
        }
    }
    use_everything(&root);
}

fn sound_segment(root: &Path) {
    // Three batches of one record each, `a`, `b` and `c`.
    let batches = (0..3_i64).flat_map(|n| {
        let mut checked = [0; 40].to_vec();
        checked[22..36].fill(0xff);
        checked[39] = 1;
        checked.extend([14, 0, 0, 0, 1, 2, b'a' + n as u8, 0]);
        let mut batch = sealed(&checked);
        batch[..8].copy_from_slice(&n.to_be_bytes());
        batch
    });
    write(root, &format!("t-0/{SEGMENT}"), &batches.collect::<Vec<u8>>());
}

/// The pieces are keys and values of `__consumer_offsets`, one after the other.
pub(crate) fn papers(bytes: &[u8]) {
    let root = scratch();
    sound_segment(&root);
    let mut records = Vec::new();
    let all: Vec<&[u8]> = pieces(bytes).take(64).collect();
    for (delta, pair) in all.chunks(2).enumerate() {
        let mut record = vec![0, 0];
        varint(&mut record, delta as i64);
        for part in [pair.first(), pair.get(1)] {
            match part {
                Some(part) => {
                    varint(&mut record, part.len() as i64);
                    record.extend(*part);
                }
                None => varint(&mut record, -1),
            }
        }
        record.push(0);
        varint(&mut records, record.len() as i64);
        records.extend(record);
    }
    let count = all.chunks(2).count() as i32;
    let mut checked = [0; 40].to_vec();
    checked[2..6].copy_from_slice(&(count - 1).max(0).to_be_bytes());
    checked[22..36].fill(0xff);
    checked[36..40].copy_from_slice(&count.to_be_bytes());
    checked.extend(records);
    write(&root, &format!("__consumer_offsets-0/{SEGMENT}"), &sealed(&checked));
    let Ok(store) = Store::open(&root) else {
        return;
    };
    for group in store.groups().unwrap_or_default() {
        drop(group.describe());
    }
    drop(store.close());
    drop(inspect::check(&root));
    drop(repair::plan(&root));
}

/// A signed number as Kafka writes it in records.
fn varint(into: &mut Vec<u8>, number: i64) {
    let mut left = ((number << 1) ^ (number >> 63)) as u64;
    while left >= 0x80 {
        into.push(left as u8 | 0x80);
        left >>= 7;
    }
    into.push(left as u8);
}

/// Each line is a property: what is taken can be shown and taken again.
pub(crate) fn properties(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut config = TopicConfig::new();
    for line in text.lines() {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        if let Ok(taken) = config.clone().set(key, value) {
            config = taken;
        }
        drop(line.parse::<ottla::Assignor>());
    }
}

/// Each byte is something that is done with a store; a map says what has to come of it.
pub(crate) fn operations(bytes: &[u8]) {
    let root = scratch();
    let open = || Store::builder(&root).durability(Durability::Buffered).open().unwrap();
    let mut store = open();
    let config = TopicConfig::new().segment_bytes(1024).set("index.interval.bytes", "64").unwrap();
    let config = config.set("retention.ms", "-1").unwrap().set("segment.ms", "9223372036854775807");
    let mut topic = store.create_topic("t", config.unwrap()).unwrap();
    let (mut model, mut end, mut start) = (BTreeMap::new(), 0_i64, 0_i64);
    for (step, byte) in bytes.iter().take(200).enumerate() {
        let partition = topic.partition(0).unwrap();
        match byte & 7 {
            0..=2 => {
                let count = i64::from(byte >> 6) + 1;
                let value = vec![step as u8; usize::from(byte >> 3) * 5];
                let records = (0..count).map(|_| Record::new(&value).key("k"));
                drop(store.producer().send_batch(&partition, records).unwrap());
                for _ in 0..count {
                    model.insert(end, value.clone());
                    end += 1;
                }
            }
            3 => {
                let before = start + (end - start) * i64::from(byte >> 3) / 31;
                partition.delete_records(before).unwrap();
                start = start.max(before);
                model.retain(|offset, _| *offset >= start);
            }
            4 => {
                let at = start + i64::from(byte >> 3);
                let found = partition.read(at);
                let found = found.ok().flatten().map(|message| message.value().unwrap().to_vec());
                assert_eq!(found.as_ref(), model.get(&at), "offset {at}");
            }
            5 => {
                drop((partition, topic));
                drop(store.close());
                if byte & 8 != 0 {
                    assert!(inspect::check(&root).unwrap().is_good());
                    assert!(repair::apply(&root).unwrap().steps.is_empty());
                }
                store = open();
                topic = store.topic("t").unwrap();
            }
            6 => {
                // Dropped, not closed: as if the process had ended.
                drop((partition, topic, store));
                store = open();
                topic = store.topic("t").unwrap();
            }
            _ => {
                let mut consumer = store.consumer().assign([&partition]).unwrap();
                let mut seen = BTreeMap::new();
                loop {
                    let records = consumer.poll(Duration::ZERO).unwrap();
                    if records.is_empty() {
                        break;
                    }
                    for message in &records {
                        seen.insert(message.offset(), message.value().unwrap().to_vec());
                    }
                }
                assert_eq!(seen, model);
            }
        }
        let found = topic.partition(0).unwrap().watermarks().unwrap();
        assert_eq!(found, (start, end), "after step {step}");
    }
    drop(topic);
    drop(store.close());
}
