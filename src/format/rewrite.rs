//! A batch without some of its records: what compaction leaves of it.
//!
//! By Kafka's rules. A batch that keeps all its records is copied as it is. Of any other the header stays what it
//! was, first and last offset, producer, sequence and leader epoch included, so that offsets and sequences mean what
//! they meant; what changes is the number of records, their bytes, the timestamps the header derives from them, and
//! the checksum.
//!
//! A tombstone must outlive its key's older records, and be there long enough for every reader to see it. When a
//! batch is first left with tombstones it gets a *delete horizon*, the time from which they may go: it takes the
//! place of the base timestamp, which is nothing but what the records' timestamps are relative to. A transaction's
//! marker gets one, too, when nothing is left of its transaction.

use crate::format::compression::Codec;
use crate::format::compression::Packer;
use crate::format::decode::Batch;
use crate::format::decode::RawRecord;
use crate::format::header;
use crate::format::header::BatchHeader;
use crate::format::header::field;
use crate::format::varint;

/// Takes records out of batches, one batch after the other; keeps its buffers.
#[derive(Debug, Default)]
pub(crate) struct Rewriter {
    /// For each record of the batch that was judged last, whether it stays.
    kept: Vec<bool>,
    /// The batch gets a delete horizon, whatever its records are.
    is_marker: bool,
    bytes: Vec<u8>,
    packer: Packer,
}

/// What is to become of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It stays as it is, and may be copied.
    Unchanged,
    /// Some of its records stay, or all of them, and the batch gets the delete horizon that it has not.
    Rewritten,
    /// None of its records stay.
    Emptied,
}

impl Rewriter {
    /// Asks of every record, in order, whether it stays, and says what that makes of the batch.
    pub(crate) fn judge(
        &mut self,
        batch: &Batch<'_>,
        mut stays: impl FnMut(&RawRecord<'_>) -> bool,
    ) -> Judgement {
        self.kept.clear();
        self.is_marker = false;
        let mut kept_count = 0;
        let mut keeps_tombstones = false;
        for record in batch.records() {
            let stays = stays(&record);
            self.kept.push(stays);
            kept_count += usize::from(stays);
            keeps_tombstones |= stays && record.value.is_none();
        }
        let needs_horizon = keeps_tombstones && !batch.header().attributes.has_delete_horizon();
        if kept_count == 0 {
            // One that was emptied before has nothing more to lose.
            Judgement::Emptied
        } else if kept_count == self.kept.len() && !needs_horizon {
            Judgement::Unchanged
        } else {
            Judgement::Rewritten
        }
    }

    /// Lets all records of a control batch stay, and has it get the delete horizon that it has not.
    pub(crate) fn give_horizon(&mut self, batch: &Batch<'_>) {
        self.kept.clear();
        self.kept.extend(batch.records().map(|_| true));
        self.is_marker = true;
    }

    /// Writes what stays of the batch that was judged last; `horizon_ms` is for tombstones that have none yet. The
    /// records are packed with `codec`, at its default level, unless that makes them longer.
    ///
    /// `None` if it would exceed what a batch can be, which only one of nearly 2 GiB could.
    pub(crate) fn rewritten(
        &mut self,
        batch: &Batch<'_>,
        horizon_ms: i64,
        codec: Option<Codec>,
    ) -> Option<&[u8]> {
        let header = batch.header();
        let (mut count, mut first_ms, mut latest_ms) = (0, None, -1);
        let mut has_tombstones = self.is_marker;
        for record in self.kept(batch) {
            count += 1;
            first_ms.get_or_insert(record.timestamp_ms);
            latest_ms = latest_ms.max(record.timestamp_ms);
            has_tombstones |= record.value.is_none();
        }
        let has_horizon = header.attributes.has_delete_horizon() || has_tombstones;
        let base_timestamp_ms = match first_ms {
            _ if header.attributes.has_delete_horizon() => header.base_timestamp_ms,
            _ if has_tombstones => horizon_ms,
            first => first.unwrap_or(-1),
        };
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        bytes.resize(header::LEN, 0);
        for record in self.kept(batch) {
            push_record(&mut bytes, header, base_timestamp_ms, &record);
        }
        self.bytes = bytes;
        let mut attributes = header.attributes.rewritten(has_horizon);
        if let Some(codec) = codec {
            let packed = self.packer.pack(codec, codec.default_level(), &self.bytes[header::LEN..]);
            if let Some(packed) = packed {
                self.bytes.truncate(header::LEN);
                self.bytes.extend_from_slice(packed);
                attributes = attributes.with_codec(codec as u8);
            }
        }
        let of_append_time = header.attributes.is_log_append_time();
        let written = BatchHeader {
            length: i32::try_from(self.bytes.len() - header::LENGTH_EXCLUDES).ok()?,
            attributes,
            base_timestamp_ms,
            max_timestamp_ms: if of_append_time { header.max_timestamp_ms } else { latest_ms },
            record_count: count,
            ..*header
        };
        Some(self.sealed(&written))
    }

    /// Writes the header of a batch without its records: it keeps a producer's last sequence on record.
    pub(crate) fn emptied(&mut self, batch: &Batch<'_>) -> &[u8] {
        let header = batch.header();
        self.bytes.clear();
        self.bytes.resize(header::LEN, 0);
        let written = BatchHeader {
            length: (header::LEN - header::LENGTH_EXCLUDES) as i32,
            attributes: header.attributes.rewritten(false),
            base_timestamp_ms: -1,
            record_count: 0,
            ..*header
        };
        self.sealed(&written)
    }

    fn kept<'b>(&self, batch: &Batch<'b>) -> impl Iterator<Item = RawRecord<'b>> {
        batch.records().zip(&self.kept).filter(|(_, kept)| **kept).map(|(record, _)| record)
    }

    fn sealed(&mut self, written: &BatchHeader) -> &[u8] {
        if let Some(front) = self.bytes.first_chunk_mut() {
            written.write(front);
        }
        let checksum = crc32c::crc32c(&self.bytes[field::CHECKSUM.end..]);
        self.bytes[field::CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
        &self.bytes
    }
}

fn push_record(
    bytes: &mut Vec<u8>,
    header: &BatchHeader,
    base_timestamp_ms: i64,
    record: &RawRecord<'_>,
) {
    let timestamp_delta = record.timestamp_ms.wrapping_sub(base_timestamp_ms);
    // Both lie within the batch, whose last offset delta is 32-bit.
    let offset_delta = (record.offset - header.base_offset) as i32;
    let len = 1
        + varint::len_i64(timestamp_delta)
        + varint::len_i32(offset_delta)
        + nullable_len(record.key)
        + nullable_len(record.value)
        + record.headers.bytes.len();
    push_i32(bytes, len as i32);
    bytes.push(0);
    let (mut delta, mut at) = ([0; 10], 0);
    varint::write_i64(&mut delta, &mut at, timestamp_delta);
    bytes.extend_from_slice(&delta[..at]);
    push_i32(bytes, offset_delta);
    push_nullable(bytes, record.key);
    push_nullable(bytes, record.value);
    bytes.extend_from_slice(record.headers.bytes);
}

fn push_i32(bytes: &mut Vec<u8>, value: i32) {
    let (mut encoded, mut at) = ([0; 5], 0);
    varint::write_i32(&mut encoded, &mut at, value);
    bytes.extend_from_slice(&encoded[..at]);
}

fn nullable_len(part: Option<&[u8]>) -> usize {
    part.map_or(1, |part| varint::len_i32(part.len() as i32) + part.len())
}

fn push_nullable(bytes: &mut Vec<u8>, part: Option<&[u8]>) {
    push_i32(bytes, part.map_or(-1, |part| part.len() as i32));
    bytes.extend_from_slice(part.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TimestampType;
    use crate::format::encode::BatchBuilder;
    use crate::format::header::Attributes;
    use crate::record::Record;
    use bytes::Bytes;
    use kafka_protocol::records::RecordBatchDecoder;
    use proptest::prelude::*;
    use proptest::test_runner::Config;

    const HORIZON_MS: i64 = 1_700_000_086_400;

    /// A record as a test writes and reads it; the last one is a header's value.
    type Plain = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>);

    fn plain(batch: &Batch<'_>) -> Vec<Plain> {
        let owned = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
        let records = batch.records().map(|record| {
            let header = record.headers.iter().next().and_then(|header| owned(header.value));
            (record.offset, record.timestamp_ms, owned(record.key), owned(record.value), header)
        });
        records.collect()
    }

    fn encoded(records: &[Plain], kind: TimestampType, base_offset: i64) -> Vec<u8> {
        let mut builder = BatchBuilder::default();
        for (_, timestamp_ms, key, value, header) in records {
            let record = Record::tombstone("").key_or_null(key.as_deref());
            let record = record.value_or_null(value.as_deref());
            let record = match header {
                Some(value) => record.header("ö", value).null_header("n"),
                None => record,
            };
            builder.push(&record, *timestamp_ms).unwrap();
        }
        let mut batch = builder.seal(kind);
        batch.stamp(base_offset, 7);
        let mut bytes = batch.bytes().to_vec();
        bytes[field::PRODUCER_ID].copy_from_slice(&42_i64.to_be_bytes());
        bytes[field::PRODUCER_EPOCH].copy_from_slice(&3_i16.to_be_bytes());
        bytes[field::BASE_SEQUENCE].copy_from_slice(&1000_i32.to_be_bytes());
        let checksum = crc32c::crc32c(&bytes[field::CHECKSUM.end..]);
        bytes[field::CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    fn as_they_read(bytes: &[u8]) -> Vec<Plain> {
        let mut bytes = Bytes::copy_from_slice(bytes);
        let set = RecordBatchDecoder::decode(&mut bytes).unwrap();
        let owned = |part: &Option<Bytes>| part.as_ref().map(|part| part.to_vec());
        let records = set.records.iter().map(|record| {
            assert_eq!((record.producer_id, record.producer_epoch), (42, 3));
            assert_eq!(record.partition_leader_epoch, 7);
            let header = record.headers.first().and_then(|(_, value)| owned(value));
            (record.offset, record.timestamp, owned(&record.key), owned(&record.value), header)
        });
        records.collect()
    }

    prop_compose! {
        fn any_plain()(
            timestamp_ms in prop_oneof![1_700_000_000_000..1_700_000_000_100_i64, Just(-1), -(1_i64 << 60)..1_i64 << 60],
            key in prop::option::of(prop::collection::vec(any::<u8>(), 0..70)),
            value in prop::option::weighted(0.8, prop::collection::vec(any::<u8>(), 0..200)),
            header in prop::option::of(prop::collection::vec(any::<u8>(), 0..5)),
        ) -> Plain {
            (0, timestamp_ms, key, value, header)
        }
    }

    proptest! {
        #![proptest_config(Config { cases: 400, failure_persistence: None, ..Config::default() })]

        /// What stays is what was there, at its offset and time; taking away in two steps is taking away in one.
        #[test]
        fn what_stays_of_a_batch_is_what_was_there(
            records in prop::collection::vec(any_plain(), 1..60),
            stays in prop::collection::vec((any::<bool>(), any::<bool>()), 60),
            is_append_time in any::<bool>(),
            base_offset in prop_oneof![Just(0_i64), 0..i64::MAX / 2],
        ) {
            let kind = if is_append_time { TimestampType::LogAppendTime } else { TimestampType::CreateTime };
            let bytes = encoded(&records, kind, base_offset);
            let before = Batch::verify(&bytes).unwrap();
            let whole = plain(&before);
            let mut rewriter = Rewriter::default();
            let at = |record: &RawRecord<'_>| (record.offset - base_offset) as usize;

            let once = rewriter.judge(&before, |record| stays[at(record)].0);
            let expected: Vec<Plain> =
                whole.iter().enumerate().filter(|(n, _)| stays[*n].0).map(|(_, r)| r.clone()).collect();
            let keeps_tombstones = expected.iter().any(|record| record.3.is_none());
            if expected.is_empty() {
                prop_assert_eq!(once, Judgement::Emptied);
                let emptied = Batch::verify(rewriter.emptied(&before)).unwrap();
                prop_assert_eq!(emptied.records().count(), 0);
                let header = emptied.header();
                prop_assert_eq!(header.last_offset(), before.header().last_offset());
                prop_assert_eq!(header.last_sequence(), before.header().last_sequence());
                prop_assert_eq!(header.max_timestamp_ms, before.header().max_timestamp_ms);
                return Ok(());
            }
            let is_whole = expected.len() == whole.len() && !keeps_tombstones;
            prop_assert_eq!(once == Judgement::Unchanged, is_whole);
            let first = rewriter.rewritten(&before, HORIZON_MS, None).unwrap().to_vec();
            let after = Batch::verify(&first).unwrap();
            prop_assert_eq!(&plain(&after), &expected);
            prop_assert_eq!(&as_they_read(&first), &expected);
            let (old, new) = (before.header(), after.header());
            prop_assert_eq!(new.attributes.has_delete_horizon(), keeps_tombstones);
            prop_assert_eq!(new.attributes.is_log_append_time(), is_append_time);
            if keeps_tombstones {
                prop_assert_eq!(new.base_timestamp_ms, HORIZON_MS);
            }
            let latest = expected.iter().map(|record| record.1).max().unwrap().max(-1);
            prop_assert_eq!(new.max_timestamp_ms, if is_append_time { old.max_timestamp_ms } else { latest });
            let kept = |h: &BatchHeader| {
                (h.base_offset, h.last_offset_delta, h.leader_epoch, h.producer_id, h.producer_epoch, h.base_sequence)
            };
            prop_assert_eq!(kept(new), kept(old));
            // With the log's own time, what the producer's was is lost; readers never saw it. Before 1970 there are no
            // times, and a batch that is written anew has none then.
            let has_times = expected.iter().any(|record| record.1 >= -1);
            if is_whole && !is_append_time && has_times {
                prop_assert_eq!(&first, &bytes, "a batch that keeps everything is encoded as it was");
            }

            // A horizon that was set stays, whatever is asked for later.
            let twice = rewriter.judge(&after, |record| stays[at(record)].1);
            let left: Vec<Plain> =
                expected.iter().filter(|r| stays[(r.0 - base_offset) as usize].1).cloned().collect();
            match twice {
                Judgement::Unchanged => prop_assert_eq!(left, expected),
                Judgement::Emptied => prop_assert!(left.is_empty()),
                Judgement::Rewritten => {
                    let second = rewriter.rewritten(&after, HORIZON_MS + 5, None).unwrap().to_vec();
                    let second = Batch::verify(&second).unwrap();
                    prop_assert_eq!(plain(&second), left);
                    if keeps_tombstones {
                        prop_assert_eq!(second.header().base_timestamp_ms, HORIZON_MS);
                    }
                }
            }
        }
    }

    #[test]
    fn bits_without_a_meaning_are_gone_and_the_others_stay() {
        let bits = |bits: i16, horizon| Attributes(bits).rewritten(horizon).0;
        assert_eq!(bits(0x7f80_u16 as i16 | 0x38, false), 0x38);
        assert_eq!(bits(0x10, true), 0x50);
        assert_eq!(bits(0x41, false), 0);
    }
}
