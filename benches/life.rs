//! The life of a topic: what compression, compaction and retention cost beside the least that they could.
//!
//! `cargo bench --bench life --all-features`, or only some of it: `-- compaction`. Each figure is the median of interleaved rounds, minimum and maximum
//! beside it; what it is compared with runs in the same round, in turns first and last. A ratio is ours by the other's,
//! both as rates: 1 would be as fast.
//!
//! * **Codecs**: batches are produced compressed and scanned, beside the codec's crate alone, which packs and unpacks
//!   the very same bytes, into room that is made once. What else we do (encoding, checksums, the log; walking the
//!   records) is in our figure only, but not the opening of the log: the first batch, for which it is opened, is timed
//!   for neither.
//! * **Compaction**: of a log of which half is superseded, beside reading the same files and writing what is left.
//! * **Appends**: while the background compacts or deletes, beside the same appends to a topic that is left alone.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints what it measured, and ends where it cannot"
)]

use std::fs;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use ottla::Compression;
use ottla::Durability;
use ottla::Record;
use ottla::Store;
use ottla::StoreBuilder;
use ottla::Topic;
use ottla::TopicConfig;

const ROUNDS: usize = 5;
const NOW: Duration = Duration::ZERO;
/// Records in a batch, and batches in a round: 16 MB.
const BATCH: usize = 256;
const BATCHES: usize = 400;

fn main() {
    let directory = tempfile::tempdir_in(".").unwrap();
    // Cargo adds an argument of its own.
    let asked: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let is_asked = |what: &str| asked.is_empty() || asked.iter().any(|asked| asked == what);
    if is_asked("codecs") {
        codecs(directory.path());
    }
    if is_asked("compaction") {
        for key_count in [1_000, 100_000] {
            compaction(directory.path(), key_count);
        }
    }
    if is_asked("appends") {
        appends(directory.path());
    }
}

fn builder(root: &Path) -> StoreBuilder {
    Store::builder(root).durability(Durability::Buffered)
}

fn value(n: usize) -> String {
    let mixed = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!(
        "{{\"order\":{n},\"customer\":\"{:08x}\",\"state\":\"{}\",\"amount\":{},\"note\":\"left at the door of number {}\"}}",
        mixed >> 32,
        ["new", "paid", "sent", "lost"][(mixed % 4) as usize],
        mixed % 100_000,
        mixed % 99,
    )
}

/// The records of every batch as they lie in a segment, unpacked or packed.
fn payloads(directory: &Path) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    for path in logs(directory) {
        let bytes = fs::read(path).unwrap();
        let mut rest = &bytes[..];
        while rest.len() > HEADER_LEN {
            let len = 12 + u32::from_be_bytes(rest[8..12].try_into().unwrap()) as usize;
            payloads.push(rest[HEADER_LEN..len].to_vec());
            rest = &rest[len..];
        }
    }
    payloads
}

const HEADER_LEN: usize = 61;

fn logs(directory: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    logs.sort();
    logs
}

/// A codec's crate as one would use it by hand, with its memory kept between batches. Each step writes to the front of
/// room that is there already, and gives how much it wrote.
struct Alone {
    pack: Step,
    unpack: Step,
}

type Step = Box<dyn FnMut(&[u8], &mut [u8]) -> usize>;

#[cfg(all(feature = "gzip", feature = "lz4", feature = "snappy", feature = "zstd"))]
fn alone(codec: Compression) -> Alone {
    match codec {
        Compression::Gzip => {
            let mut deflate = flate2::Compress::new(flate2::Compression::default(), false);
            let mut inflate = flate2::Decompress::new(false);
            Alone {
                pack: Box::new(move |from, into| {
                    deflate.reset();
                    deflate.compress(from, into, flate2::FlushCompress::Finish).unwrap();
                    let len = deflate.total_out() as usize;
                    let mut checksum = flate2::Crc::new();
                    checksum.update(from);
                    into[len..len + 4].copy_from_slice(&checksum.sum().to_le_bytes());
                    len + 4
                }),
                unpack: Box::new(move |from, into| {
                    inflate.reset(false);
                    // Behind the member's header, in front of its trailer.
                    let body = &from[10..from.len() - 8];
                    inflate.decompress(body, into, flate2::FlushDecompress::Finish).unwrap();
                    let len = inflate.total_out() as usize;
                    let mut checksum = flate2::Crc::new();
                    checksum.update(&into[..len]);
                    assert_eq!(checksum.sum().to_le_bytes(), from[from.len() - 8..from.len() - 4]);
                    len
                }),
            }
        }
        Compression::Snappy => {
            let (mut encoder, mut decoder) = (snap::raw::Encoder::new(), snap::raw::Decoder::new());
            Alone {
                pack: Box::new(move |from, into| {
                    from.chunks(32 << 10).fold(16, |end, block| {
                        let start = end + 4;
                        let len = encoder.compress(block, &mut into[start..]).unwrap();
                        into[end..start].copy_from_slice(&(len as u32).to_be_bytes());
                        start + len
                    })
                }),
                unpack: Box::new(move |from, into| {
                    // Behind the frame's front: lengths and blocks.
                    let (mut rest, mut end) = (&from[16..], 0);
                    while !rest.is_empty() {
                        let len = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
                        end += decoder.decompress(&rest[4..4 + len], &mut into[end..]).unwrap();
                        rest = &rest[4 + len..];
                    }
                    end
                }),
            }
        }
        Compression::Lz4 => {
            let mut table = lz4_flex::block::CompressTable::default();
            Alone {
                pack: Box::new(move |from, into| {
                    let end = from.chunks(64 << 10).fold(7, |end, block| {
                        let start = end + 4;
                        let target = &mut into[start..];
                        let len =
                            lz4_flex::block::compress_into_with_table(block, target, &mut table);
                        let len = len.unwrap();
                        into[end..start].copy_from_slice(&(len as u32).to_le_bytes());
                        start + len
                    });
                    into[end..end + 4].copy_from_slice(&[0; 4]);
                    end + 4
                }),
                unpack: Box::new(move |from, into| {
                    let (mut rest, mut end) = (&from[7..], 0);
                    loop {
                        let len = u32::from_le_bytes(rest[..4].try_into().unwrap());
                        if len == 0 {
                            return end;
                        }
                        let (is_stored, len) = (len >> 31 == 1, (len & !(1 << 31)) as usize);
                        let block = &rest[4..4 + len];
                        if is_stored {
                            into[end..end + len].copy_from_slice(block);
                            end += len;
                        } else {
                            let target = &mut into[end..end + (64 << 10)];
                            end += lz4_flex::block::decompress_into(block, target).unwrap();
                        }
                        rest = &rest[4 + len..];
                    }
                }),
            }
        }
        _ => {
            let mut packer = zstd::bulk::Compressor::new(3).unwrap();
            let mut unpacker = zstd::bulk::Decompressor::new().unwrap();
            Alone {
                pack: Box::new(move |from, into| packer.compress_to_buffer(from, into).unwrap()),
                unpack: Box::new(move |from, into| {
                    unpacker.decompress_to_buffer(from, into).unwrap()
                }),
            }
        }
    }
}

#[cfg(not(all(feature = "gzip", feature = "lz4", feature = "snappy", feature = "zstd")))]
fn alone(_: Compression) -> Alone {
    Alone { pack: Box::new(|_, _| 0), unpack: Box::new(|_, _| 0) }
}

const UNPACKED_MAX: usize = 1 << 20;

fn codecs(directory: &Path) {
    let all = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    if !all.iter().all(|codec| codec.is_available()) {
        println!("codecs: skipped, build with --all-features");
        return;
    }
    let values: Vec<String> = (0..BATCH * BATCHES).map(value).collect();
    let produce = |root: &Path, codec: Compression| -> f64 {
        let store = builder(root).open().unwrap();
        let topic = store.create_topic("t", TopicConfig::new()).unwrap();
        let partition = topic.partition(0).unwrap();
        let producer = store.producer_builder().compression(codec).unwrap().build();
        let send = |batch: &[String]| {
            drop(producer.send_batch(&partition, batch.iter().map(Record::new)).unwrap());
        };
        let (first, others) = values.split_at(BATCH);
        send(first);
        let begun = Instant::now();
        others.chunks(BATCH).for_each(send);
        let elapsed = begun.elapsed().as_secs_f64();
        drop((producer, partition, topic));
        store.close().unwrap();
        elapsed
    };
    let plain = directory.join("plain");
    produce(&plain, Compression::None);
    let unpacked = payloads(&plain.join("t-0"));
    let len = unpacked.iter().map(Vec::len).sum::<usize>() as f64 / 1e6;
    let len_produced = len - unpacked[0].len() as f64 / 1e6;
    for codec in all {
        let root = directory.join(codec.name());
        produce(&root, codec);
        let packed = payloads(&root.join("t-0"));
        let shrunk = packed.iter().map(Vec::len).sum::<usize>() as f64 / 1e6 / len;
        let mut crate_alone = alone(codec);
        let mut buffer = vec![0; UNPACKED_MAX];
        for (unpacked, packed) in unpacked.iter().zip(&packed) {
            let len = (crate_alone.unpack)(packed, &mut buffer);
            assert!(buffer[..len] == **unpacked, "both work on the same bytes");
        }
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        in_turns(&mut ours, &mut others, |round, is_ours| {
            if is_ours {
                let root = directory.join(format!("{}-{round}", codec.name()));
                let elapsed = produce(&root, codec);
                fs::remove_dir_all(root).unwrap();
                return len_produced / elapsed;
            }
            let begun = Instant::now();
            for batch in &unpacked[1..] {
                (crate_alone.pack)(batch, &mut buffer);
            }
            len_produced / begun.elapsed().as_secs_f64()
        });
        let name = codec.name();
        show(&format!("produce {name} (to {shrunk:.2} of it), MB/s"), &mut ours, &mut others);

        let store = builder(&root).open().unwrap();
        let topic = store.topic("t").unwrap();
        let mut crate_alone = alone(codec);
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        in_turns(&mut ours, &mut others, |_, is_ours| {
            let begun = Instant::now();
            if is_ours {
                assert_eq!(scan(&store, &topic), BATCH * BATCHES);
            } else {
                for batch in &packed {
                    (crate_alone.unpack)(batch, &mut buffer);
                }
            }
            len / begun.elapsed().as_secs_f64()
        });
        show(&format!("scan {name}, MB/s"), &mut ours, &mut others);
    }
}

fn scan(store: &Store, topic: &Topic) -> usize {
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    let (mut count, mut len) = (0, 0);
    loop {
        let records = consumer.poll(NOW).unwrap();
        if records.is_empty() {
            assert!(len > count);
            return count;
        }
        count += records.count();
        len += records.iter().map(|m| m.value().map_or(0, <[u8]>::len)).sum::<usize>();
    }
}

/// Compacts a log of which half is superseded, beside reading its files and writing as much as is left.
fn compaction(directory: &Path, key_count: usize) {
    let source = directory.join(format!("dirty-{key_count}"));
    let store = builder(&source).cleaner_enable(false).open().unwrap();
    let config =
        TopicConfig::new().segment_bytes(32 << 20).set("cleanup.policy", "compact").unwrap();
    let topic = store.create_topic("t", config).unwrap();
    let partition = topic.partition(0).unwrap();
    let count = COMPACTED / key_count * key_count;
    let values: Vec<String> = (0..count).map(value).collect();
    let keys: Vec<String> = (0..count)
        // The first half of the log is superseded by the second, whose keys nothing supersedes.
        .map(|n| (if n < count / 2 { n % key_count } else { n }).to_string())
        .collect();
    let entries: Vec<_> = keys.iter().zip(&values).collect();
    for batch in entries.chunks(BATCH) {
        let records =
            batch.iter().map(|(key, value)| Record::new(value.as_str()).key(key.as_str()));
        drop(store.producer().send_batch(&partition, records).unwrap());
    }
    drop((partition, topic));
    store.close().unwrap();
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    let mut left = 0;
    in_turns(&mut ours, &mut others, |round, is_ours| {
        let root = directory.join(format!("compacting-{key_count}-{round}"));
        copy_tree(&source, &root);
        let read =
            logs(&root.join("t-0")).iter().map(|p| fs::metadata(p).unwrap().len()).sum::<u64>();
        let elapsed = if is_ours || left == 0 {
            let store = builder(&root).cleaner_enable(false).open().unwrap();
            let topic = store.topic("t").unwrap();
            let begun = Instant::now();
            let counts = topic.compact().unwrap().counts;
            let elapsed = begun.elapsed();
            left = counts.bytes_after;
            drop(topic);
            store.close().unwrap();
            elapsed
        } else {
            let begun = Instant::now();
            read_and_write(&root, left);
            begun.elapsed()
        };
        fs::remove_dir_all(&root).unwrap();
        (read + left) as f64 / 1e6 / elapsed.as_secs_f64()
    });
    let what = format!("compaction, {key_count} keys superseded, MB/s read and written");
    show(&what, &mut ours, &mut others);
    fs::remove_dir_all(&source).unwrap();
}

const COMPACTED: usize = 800_000;

/// Reads all segments and writes so many bytes of them to one new file each, durably.
fn read_and_write(root: &Path, left: u64) {
    let logs = logs(&root.join("t-0"));
    let mut buffer = vec![0; 1 << 20];
    let each = left / logs.len() as u64;
    for path in &logs {
        let mut from = File::open(path).unwrap();
        let mut to = File::create(path.with_extension("copy")).unwrap();
        let mut written = 0;
        loop {
            let len = from.read(&mut buffer).unwrap();
            if len == 0 {
                break;
            }
            let wanted = len.min((each - written) as usize);
            to.write_all(&buffer[..wanted]).unwrap();
            written += wanted as u64;
        }
        to.sync_all().unwrap();
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            // What is to be read is no longer to be written, or the first sync would be about the copy.
            File::open(target).unwrap().sync_all().unwrap();
        }
    }
}

/// Appends to a topic that the background is at, beside one that it leaves alone.
fn appends(directory: &Path) {
    let values: Vec<String> = (0..BATCH * BATCHES).map(value).collect();
    let keys: Vec<String> = (0..values.len()).map(|n| format!("key {}", n % 5000)).collect();
    let segments = || TopicConfig::new().segment_bytes(1 << 20);
    let tended = [
        ("compaction", segments().set("cleanup.policy", "compact").unwrap()),
        ("retention", segments().set("retention.bytes", "4194304").unwrap()),
    ];
    for (what, config) in tended {
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        in_turns(&mut ours, &mut others, |round, is_tended| {
            let root = directory.join(format!("appends-{what}-{round}-{is_tended}"));
            let store = builder(&root).cleaner_backoff(Duration::from_millis(100)).open().unwrap();
            let config = if is_tended { config.clone() } else { segments() };
            let topic = store.create_topic("t", config).unwrap();
            let partition = topic.partition(0).unwrap();
            let entries: Vec<_> = keys.iter().zip(&values).collect();
            let producer = store.producer();
            let begun = Instant::now();
            // Smaller batches: what is measured takes long enough for the background to have its turns.
            for batch in entries.chunks(BATCH / 16) {
                let records =
                    batch.iter().map(|(key, value)| Record::new(value.as_str()).key(key.as_str()));
                drop(producer.send_batch(&partition, records).unwrap());
            }
            let elapsed = begun.elapsed().as_secs_f64();
            drop((producer, partition, topic));
            store.close().unwrap();
            fs::remove_dir_all(root).unwrap();
            values.len() as f64 / 1e6 / elapsed
        });
        show(&format!("appends during {what}, M records/s"), &mut ours, &mut others);
    }
}

/// Measures ours and the other in turn, each as often first as last; the first round warms the memory.
fn in_turns(
    ours: &mut Vec<f64>,
    others: &mut Vec<f64>,
    mut measure: impl FnMut(usize, bool) -> f64,
) {
    for round in 0..2 * ROUNDS + 1 {
        for step in 0..2 {
            let is_ours = (round + step) % 2 == 0;
            let figure = measure(round, is_ours);
            if round > 0 {
                (if is_ours { &mut *ours } else { &mut *others }).push(figure);
            }
        }
    }
}

fn show(what: &str, ours: &mut [f64], others: &mut [f64]) {
    let median = |figures: &mut [f64]| {
        figures.sort_by(f64::total_cmp);
        (figures[0], figures[figures.len() / 2], figures[figures.len() - 1])
    };
    let (least, middle, most) = median(ours);
    print!("{what}: {middle:.2} ({least:.2}..{most:.2})");
    let (least, other, most) = median(others);
    println!("; beside it {other:.2} ({least:.2}..{most:.2}): {:.2} x", middle / other);
}
