//! Which partition a record goes to.
//!
//! As in Kafka's Java client: the partition the record names; else, if it has a key, the murmur2 hash of
//! the key; else the one the topic currently *sticks* to, which changes after a batch's worth of bytes
//! (KIP-480, KIP-794).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::record::Record;

/// Gives the partition for a record of a topic with `count` partitions, which must not be 0. A partition
/// that the record names is given back unchecked.
#[inline]
pub(crate) fn partition_for(record: &Record<'_>, count: u32, sticky: &AtomicU64) -> u32 {
    match (record.partition, record.key) {
        (Some(partition), _) => partition,
        (None, _) if count == 1 => 0,
        (None, Some(key)) => (murmur2(key) & 0x7fff_ffff) % count,
        (None, None) => Sticky::unpack(sticky.load(Ordering::Relaxed)).partition % count,
    }
}

/// Notes that an unkeyed record's bytes went to the sticky partition, and moves on once they are enough.
pub(crate) fn note_sticky(record: &Record<'_>, count: u32, sticky: &AtomicU64, len: usize) {
    if count == 1 || record.partition.is_some() || record.key.is_some() {
        return;
    }
    // Relaxed: a lost race costs some bytes on the old partition, nothing else.
    let mut now = Sticky::unpack(sticky.load(Ordering::Relaxed));
    now.len = now.len.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
    if now.len >= STICKY_LEN {
        now = Sticky::any(count);
    }
    sticky.store(now.pack(), Ordering::Relaxed);
}

/// Moves on if the topic sticks to this partition: a batch of its unkeyed records has been sealed.
pub(crate) fn leave_sticky(partition: u32, count: u32, sticky: &AtomicU64) {
    // Relaxed: a lost race costs some bytes on the old partition, nothing else.
    let now = Sticky::unpack(sticky.load(Ordering::Relaxed));
    if count > 1 && now.partition % count == partition {
        sticky.store(Sticky::any(count).pack(), Ordering::Relaxed);
    }
}

/// The hash of Kafka's Java client: murmur2, 32 bits, its own seed.
pub(crate) fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    const SEED: u32 = 0x9747_b28c;
    let mut hash = SEED ^ bytes.len() as u32;
    let words = bytes.chunks_exact(4);
    let tail = words.remainder();
    for word in words {
        let word = word.try_into().expect("chunks have four bytes");
        let mut k = u32::from_le_bytes(word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// Kafka's default `batch.size`: after so many bytes an unkeyed topic moves on.
const STICKY_LEN: u32 = 16384;

/// A topic's sticky partition and the bytes it got since it became that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sticky {
    partition: u32,
    len: u32,
}

impl Sticky {
    /// Any of the partitions with the same chance, as in Kafka; it may be the same one.
    fn any(count: u32) -> Sticky {
        let chance = RandomState::new().hash_one(count);
        Sticky { partition: (chance % u64::from(count)) as u32, len: 0 }
    }

    fn unpack(packed: u64) -> Sticky {
        Sticky { partition: (packed >> 32) as u32, len: packed as u32 }
    }

    fn pack(self) -> u64 {
        u64::from(self.partition) << 32 | u64::from(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hash_as_in_kafkas_java_client() {
        let golden: &[(&[u8], i32)] = &[
            (b"", 275_646_681),
            (b"a", -1_563_381_124),
            (b"ab", 316_155_434),
            (b"abc", 479_470_107),
            (b"abcd", -1_323_649_548),
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("你好".as_bytes(), 183_567_948),
            (b"\xff\xfe\xfd\xfc\xfb", 524_068_735),
        ];
        for (key, hash) in golden {
            assert_eq!(murmur2(key) as i32, *hash, "{key:?}");
        }
    }

    #[test]
    fn keyed_records_go_where_kafkas_go() {
        let golden: &[(&str, [u32; 4])] = &[
            ("", [0, 3, 9, 81]),
            ("a", [1, 4, 4, 24]),
            ("abcd", [2, 2, 8, 0]),
            ("foobar", [0, 0, 6, 66]),
            ("a-little-bit-longer-string", [2, 5, 11, 19]),
        ];
        let sticky = AtomicU64::new(0);
        for (key, partitions) in golden {
            for (count, partition) in [3, 6, 12, 100].into_iter().zip(partitions) {
                let record = Record::tombstone(*key);
                assert_eq!(partition_for(&record, count, &sticky), *partition, "{key} of {count}");
            }
        }
        assert_eq!(partition_for(&Record::new("v").key("a").partition(7), 3, &sticky), 7);
        assert_eq!(partition_for(&Record::new("v").key("a"), 1, &sticky), 0);
    }

    #[test]
    fn unkeyed_records_stay_for_a_batch_of_bytes_and_reach_every_partition() {
        let sticky = AtomicU64::new(0);
        let record = Record::new("v");
        let mut seen = [0_u32; 4];
        let mut run = (0, 0_u32);
        for _ in 0..20_000 {
            let partition = partition_for(&record, 4, &sticky);
            seen[partition as usize] += 1;
            if partition != run.0 {
                assert!(run.1 == 0 || run.1 >= STICKY_LEN, "left after {} bytes", run.1);
                run = (partition, 0);
            }
            run.1 += 200;
            note_sticky(&record, 4, &sticky, 200);
        }
        assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    }
}
