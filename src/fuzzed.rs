//! Tests only: what is fuzzed that users cannot reach by themselves. Each function takes any bytes, and must neither
//! panic, hang, nor take memory without bound.
//!
//! Decoders are called in memory here, a hundred thousand times a second and more; what users reach, through files,
//! stands in `tests/it/fuzz_targets.rs`. Whatever is accepted must also be what it seems to be: written again it is
//! read as the same, and another decoder agrees. The last target plays a machine's history (`explorer.rs`) in which
//! every choice is taken from the bytes.
//!
//! The package in `tests/fuzz/` feeds them what a fuzzer thinks of; the test below what it thought of before.

#[cfg(test)]
#[path = "../tests/it/corpus.rs"]
#[allow(dead_code, reason = "a fuzzer has a corpus of its own")]
mod corpus;

use std::cell::RefCell;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::path::PathBuf;

use bytes::Bytes;
use kafka_protocol::records::RecordBatchDecoder;

use crate::explorer;
use crate::format::compression::Codec;
use crate::format::compression::Packer;
use crate::format::compression::Unpacked;
use crate::format::compression::Unpacker;
use crate::format::consumer_protocol::decode_assignment;
use crate::format::consumer_protocol::decode_subscription;
use crate::format::consumer_protocol::encode_assignment;
use crate::format::consumer_protocol::encode_subscription;
use crate::format::decode;
use crate::format::decode::Batch;
use crate::format::decode::RawRecord;
use crate::format::decode::RawRecords;
use crate::format::fields::TEXT_LEN_MAX;
use crate::format::group_records::GroupKey;
use crate::format::group_records::decode_group_value;
use crate::format::group_records::decode_key;
use crate::format::group_records::decode_offset_value;
use crate::format::group_records::encode_group_key;
use crate::format::group_records::encode_group_value;
use crate::format::group_records::encode_offset_key;
use crate::format::group_records::encode_offset_value;
use crate::format::header;
use crate::format::header::field;
use crate::format::rewrite::Judgement;
use crate::format::rewrite::Rewriter;
use crate::inspect::producer_snapshot::snapshot_entries;
use crate::name::TopicName;
use crate::storage::catalog;
use crate::storage::catalog::Catalog;
use crate::storage::catalog::TopicId;
use crate::storage::checkpoint;
use crate::storage::checkpoint::OffsetCheckpoint;
use crate::storage::disk::Disk;
use crate::storage::file_name::OffsetFile;
use crate::storage::file_name::RootDirectory;
use crate::storage::offset_index;
use crate::storage::offset_index::OffsetIndex;
use crate::storage::time_index::TimeIndex;
use crate::storage::transaction_index;

/// A target: its name, which is also that of its corpus, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// Every target of this file.
pub const TARGETS: [Target; 6] = [
    ("records", records),
    ("codecs", codecs),
    ("group_records", group_records),
    ("entries", entries),
    ("texts", texts),
    ("lives", lives),
];

/// The bytes are a batch; and what the checksum of a batch covers.
pub fn records(bytes: &[u8]) {
    black_box(Batch::verify(bytes).is_ok());
    // Safety does not rest on anything that was checked.
    if let Some((records, behind)) = RawRecords::split(bytes) {
        assert!(behind.len() < bytes.len());
        assert!(walked(records) <= records.left());
    }
    let sealed = sealed(bytes);
    let Ok(batch) = Batch::verify(&sealed) else { return };
    check_walk(&batch);
    check_agreement(&batch, &sealed);
    check_rewriting(&batch);
}

/// Lengths and checksum are made to be right.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut batch = vec![0; field::CHECKSUM.end];
    batch.extend_from_slice(bytes);
    batch.resize(batch.len().max(header::LEN), 0);
    let len = (batch.len() - header::LENGTH_EXCLUDES) as i32;
    batch[field::LENGTH].copy_from_slice(&len.to_be_bytes());
    batch[field::MAGIC.start] = header::MAGIC as u8;
    let checksum = crc32c::crc32c(&batch[field::CHECKSUM.end..]);
    batch[field::CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
    batch
}

/// Walks over records with all that is in them; gives how many there were.
fn walked(records: RawRecords<'_>) -> usize {
    let mut count = 0;
    for record in records {
        black_box(record.headers.iter().count());
        count += 1;
    }
    count
}

/// Of a batch that was accepted every record is there, in order, whichever way one comes to it.
fn check_walk(batch: &Batch<'_>) {
    let header = batch.header();
    let all: Vec<RawRecord<'_>> = batch.records().collect();
    assert_eq!(all.len(), header.record_count as usize);
    assert!(all.iter().map(|record| record.offset).is_sorted_by(|one, next| one < next));
    for record in &all {
        assert!((header.base_offset..=header.last_offset()).contains(&record.offset));
        let mut count = record.headers.bytes;
        let count = crate::format::varint::read_i32(&mut count).unwrap();
        assert_eq!(record.headers.iter().count(), count as usize, "headers");
    }
    for count in [1, all.len() / 2, all.len()] {
        let mut rest = batch.records();
        rest.pass(count);
        assert!(rest.eq(all.iter().skip(count).copied()), "{count} passed");
        assert!(batch.records().limited(count).eq(all.iter().take(count).copied()));
        let mut resumed = batch.records();
        resumed.pass(count);
        let resumed = batch.records().resumed(resumed.left(), resumed.bytes().len());
        assert!(resumed.eq(all.iter().skip(count).copied()), "{count} resumed");
    }
    if let Some(middle) = all.get(all.len() / 2) {
        let mut rest = batch.records();
        rest.pass_below(middle.offset);
        assert_eq!(rest.next(), Some(*middle));
    }
}

/// Another decoder reads the same. Theirs believes counts and sizes, and is asked only about what has passed.
fn check_agreement(batch: &Batch<'_>, bytes: &[u8]) {
    // Times that they would add up to more than fits are left out.
    let sane = -(1_i64 << 41)..1 << 41;
    let header = batch.header();
    if header.attributes.codec() != 0
        || !(0..1 << 40).contains(&header.base_timestamp_ms)
        || !batch.records().all(|record| sane.contains(&record.timestamp_ms))
    {
        return;
    }
    let Ok(set) = RecordBatchDecoder::decode(&mut Bytes::copy_from_slice(bytes)) else { return };
    let theirs = set.records.iter().map(|record| {
        (record.offset, record.key.as_deref(), record.value.as_deref(), record.headers.len())
    });
    // Names of headers that are there twice count once for them.
    let ours = batch.records().map(|record| {
        let mut names: Vec<&str> = record.headers.iter().map(|header| header.key).collect();
        names.sort_unstable();
        names.dedup();
        (record.offset, record.key, record.value, names.len())
    });
    assert!(ours.eq(theirs), "another decoder reads something else");
}

/// What is left of a batch when records were taken out is a batch, and holds exactly the others.
fn check_rewriting(batch: &Batch<'_>) {
    let mut rewriter = Rewriter::default();
    let stays = |record: &RawRecord<'_>| record.offset % 2 == 0;
    let left: Vec<RawRecord<'_>> = batch.records().filter(stays).collect();
    let written = match rewriter.judge(batch, stays) {
        Judgement::Unchanged => return,
        Judgement::Rewritten => rewriter.rewritten(batch, 1_700_000_000_000, None).unwrap(),
        Judgement::Emptied => rewriter.emptied(batch),
    };
    let rewritten = Batch::verify(written).unwrap();
    assert_eq!(rewritten.header().last_offset(), batch.header().last_offset());
    assert!(rewritten.records().eq(left), "something else is left");
}

thread_local! {
    /// As a reader keeps them from batch to batch.
    static CODECS: RefCell<(Unpacker, Unpacked, Packer)> = RefCell::default();
}

/// Behind a byte that says which codec: what it is to unpack, and to pack.
pub fn codecs(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let codec = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd][usize::from(which & 3)];
    CODECS.with_borrow_mut(|(unpacker, unpacked, packer)| {
        let taken = std::mem::take(unpacker);
        // A stream of a few bytes may say that it is long.
        *unpacker = taken.within(Some(1 << 20));
        let first = unpack(unpacker, unpacked, codec, bytes);
        if which & 4 != 0 {
            let mut fresh = Unpacker::default().within(Some(1 << 20));
            let second = unpack(&mut fresh, unpacked, codec, bytes);
            assert!(first == second, "what was unpacked before has changed what comes out");
        }
        if let Some(packed) = packer.pack(codec, codec.default_level(), bytes) {
            assert!(packed.len() < bytes.len());
            let back = unpack(unpacker, unpacked, codec, packed);
            assert!(back.as_deref() == Some(bytes), "{codec:?}: not what was packed");
        }
    });
}

/// Gives the records, of whatever they consist, that come out of a stream.
fn unpack(
    unpacker: &mut Unpacker,
    unpacked: &mut Unpacked,
    codec: Codec,
    stream: &[u8],
) -> Option<Vec<u8>> {
    let mut checked = vec![0; header::LEN - field::CHECKSUM.end];
    checked[1] = codec as u8;
    checked[39] = 1;
    checked.extend_from_slice(stream);
    let sealed = sealed(&checked);
    let header = decode::header_at(&sealed).unwrap();
    unpacked.clear();
    unpacker.unpack(&header, &sealed, unpacked).ok()?;
    let bytes = unpacked.bytes();
    let plain = decode::header_at(bytes).unwrap();
    assert_eq!(plain.len(), bytes.len());
    assert!(bytes.len() <= header::LEN + (1 << 20));
    black_box(Batch::verified(bytes).is_some());
    Some(bytes[header::LEN..].to_vec())
}

/// Behind a byte that says what it is: a key or a value of `__consumer_offsets`, or what members say in it.
pub fn group_records(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    // Longer texts are read in the flexible style only, and written in the other.
    let bytes = &bytes[..bytes.len().min(TEXT_LEN_MAX)];
    let mut written = Vec::new();
    match which % 5 {
        0 => {
            let Ok(key) = decode_key(bytes) else { return };
            match key {
                GroupKey::Offset { group, topic, partition } => {
                    encode_offset_key(&mut written, group, topic, partition);
                }
                GroupKey::Group { group } => encode_group_key(&mut written, group),
                GroupKey::Other { .. } => return,
            }
            assert_eq!(decode_key(&written), Ok(key));
        }
        1 => {
            let Ok(mut value) = decode_offset_value(bytes) else { return };
            encode_offset_value(&mut written, &value);
            value.expire_timestamp_ms = None;
            assert_eq!(decode_offset_value(&written), Ok(value));
        }
        2 => {
            let Ok(value) = decode_group_value(bytes) else { return };
            assert!(value.members.len() <= bytes.len() / 15);
            encode_group_value(&mut written, &value);
            assert_eq!(decode_group_value(&written), Ok(value));
        }
        3 => {
            let Ok(value) = decode_subscription(bytes) else { return };
            assert!(value.topics.len() + value.owned.len() <= bytes.len() / 2);
            encode_subscription(&mut written, &value);
            assert_eq!(decode_subscription(&written), Ok(value));
        }
        _ => {
            let Ok(value) = decode_assignment(bytes) else { return };
            assert!(value.given.len() <= bytes.len() / 6);
            encode_assignment(&mut written, &value);
            assert_eq!(decode_assignment(&written), Ok(value));
        }
    }
}

/// Behind a segment's first offset and length: its indexes, or a snapshot of its producers.
pub fn entries(bytes: &[u8]) {
    let Some((base_offset, rest)) = bytes.split_first_chunk::<8>() else { return };
    let Some((log_len, bytes)) = rest.split_first_chunk::<4>() else { return };
    // As in a file's name.
    let base_offset = i64::from_be_bytes(*base_offset) & i64::MAX;
    let log_len = u64::from(u32::from_be_bytes(*log_len));
    if let Ok(index) = OffsetIndex::parse(base_offset, bytes, log_len) {
        assert_eq!(index.to_bytes(), bytes);
        assert_eq!(index.len() * offset_index::ENTRY_LEN, bytes.len());
        if let Some(last) = index.last() {
            assert!(last.position < log_len);
            assert_eq!(index.floor(i64::MAX), Some(last));
            assert_eq!(index.floor(last.last_offset), Some(last));
        }
        assert_eq!(index.floor(-1), None);
    }
    if let Ok(index) = TimeIndex::parse(base_offset, bytes) {
        assert_eq!(index.to_bytes(), bytes);
        assert_eq!(index.floor(i64::MAX), index.last());
        assert!(index.last().is_none_or(|last| last.last_offset >= base_offset));
    }
    let left = transaction_index::without(bytes, |marker| marker % 2 == 0);
    // Whole entries go, and what is none stays.
    assert_eq!((bytes.len() - left.len()) % 34, 0);
    assert_eq!(transaction_index::without(&left, |marker| marker % 2 == 0), left);
    black_box(snapshot_entries(bytes).is_ok());
    if bytes.len() >= 10 {
        let mut sealed = bytes.to_vec();
        sealed[..2].copy_from_slice(&1_i16.to_be_bytes());
        let checksum = crc32c::crc32c(&sealed[6..]);
        sealed[2..6].copy_from_slice(&checksum.to_be_bytes());
        black_box(snapshot_entries(&sealed).is_ok());
    }
}

/// Gives the path of a file that is written again and again, in memory where there is a place for that. A fuzzer says
/// where: it ends without clearing up.
fn scratch_file() -> PathBuf {
    thread_local! {
        static SCRATCH: tempfile::TempDir = {
            let told = std::env::var_os("OTTLA_SCRATCH").map(PathBuf::from);
            let memory = told.unwrap_or_else(|| PathBuf::from("/dev/shm"));
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
        };
    }
    SCRATCH.with(|scratch| scratch.path().join("file"))
}

/// The bytes are a small file of text, or a name.
pub fn texts(bytes: &[u8]) {
    let (disk, path) = (Disk::default(), scratch_file());
    fs::write(&path, bytes).unwrap();
    if let Ok(read) = OffsetCheckpoint::read(&disk, &path) {
        read.write(&disk, &path).unwrap();
        assert_eq!(OffsetCheckpoint::read(&disk, &path).unwrap(), read);
        fs::write(&path, bytes).unwrap();
    }
    if let Ok(epochs) = checkpoint::read_epochs(&disk, &path) {
        checkpoint::write_epochs(&disk, &path, &epochs).unwrap();
        assert_eq!(checkpoint::read_epochs(&disk, &path).unwrap(), epochs);
        fs::write(&path, bytes).unwrap();
    }
    if let Ok(offset) = checkpoint::read_offset(&disk, &path) {
        checkpoint::write_offset(&disk, &path, offset).unwrap();
        assert_eq!(checkpoint::read_offset(&disk, &path).unwrap(), offset);
        fs::write(&path, bytes).unwrap();
    }
    if let Ok(Some(id)) = catalog::read_partition_metadata(&disk, &path) {
        assert_eq!(TopicId::parse(&id.to_string()), Some(id));
    }
    drop(Catalog::salvage(bytes));
    // With the seal that it should have.
    let mut sealed = bytes.to_vec();
    if sealed.last() != Some(&b'\n') {
        sealed.push(b'\n');
    }
    let seal = format!("crc32c {:08x}\n", crc32c::crc32c(&sealed));
    sealed.extend_from_slice(seal.as_bytes());
    fs::write(&path, &sealed).unwrap();
    if let Ok(catalog) = Catalog::read(&disk, &path) {
        catalog.write(&disk, &path).unwrap();
        assert_eq!(Catalog::read(&disk, &path).unwrap(), catalog);
        assert!(sealed.contains(&b'\r') || Catalog::salvage(&sealed) == catalog);
    }
    if let Ok(name) = std::str::from_utf8(bytes) {
        if let Some((kind, offset)) = OffsetFile::parse(name) {
            assert_eq!(kind.path(Path::new(""), offset), Path::new(name));
        }
        if let RootDirectory::Partition(topic, partition) = RootDirectory::parse(name) {
            assert_eq!(format!("{topic}-{partition}"), name);
        }
        if let Ok(topic) = TopicName::new(name) {
            assert!(!name.contains(['/', '\0']) && topic.as_str() == name);
        }
    }
}

/// The bytes are the choices in a machine's history: what is done in each life, at which effect it ends, and how, and
/// which of the states is found that a power cut may leave.
pub fn lives(bytes: &[u8]) {
    explorer::play_chosen(bytes).unwrap();
}

#[test]
fn nothing_in_the_corpus_makes_its_target_fail() {
    corpus::replay(&TARGETS);
}
