//! Records in, a sealed batch out.
//!
//! A [`BatchBuilder`] is reused: it keeps its buffer. Everything that costs time (varints, copying,
//! the checksum) happens here, before any lock is taken; what the log assigns afterwards (base
//! offset, leader epoch) lies outside the checksum.

use std::fmt;

use crate::config::TimestampType;
use crate::error::Error;
use crate::error::Result;
use crate::format::compression::Codec;
use crate::format::compression::Packer;
use crate::format::header;
use crate::format::header::Attributes;
use crate::format::header::BatchHeader;
use crate::format::header::field;
use crate::format::varint;
use crate::record::Header;
use crate::record::Record;

/// Collects records into one batch.
pub(crate) struct BatchBuilder {
    /// [`LEAD`] bytes, the header's, then the records encoded so far. What lies behind `end` was written
    /// before and counts for nothing; it is there so that a record is written without growing anything.
    bytes: Vec<u8>,
    end: usize,
    record_count: i32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    /// Set once the records were replaced by a codec's stream of them.
    codec: Option<Codec>,
    /// What the header in `bytes` says; `None` if it is not known.
    written: Option<Written>,
}

/// What in a header differs from batch to batch, but for length and checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Varying {
    timestamp_type: TimestampType,
    codec: Option<Codec>,
    record_count: i32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

/// A header that was written, and the checksum of the part that belongs to it.
#[derive(Clone, Copy, Debug)]
struct Written {
    varying: Varying,
    checksum: u32,
}

/// A finished batch in a builder's buffer: everything but its [front](EncodedBatch::front) is in place.
pub(crate) struct EncodedBatch<'b> {
    bytes: &'b mut [u8],
    /// The builder's; it counts on the header as it was written.
    written: &'b mut Option<Written>,
    record_count: i32,
    max_timestamp_ms: i64,
}

impl fmt::Debug for BatchBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a batch of {} records so far", self.record_count)
    }
}

impl fmt::Debug for EncodedBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a batch of {} records", self.record_count)
    }
}

impl BatchBuilder {
    /// Makes a builder that holds batches of up to `len` bytes without growing.
    pub(crate) fn with_room(len: usize) -> BatchBuilder {
        BatchBuilder { bytes: vec![0; LEAD + len + SLACK], ..BatchBuilder::default() }
    }

    /// Forgets the records, keeps the buffer unless it has grown beyond what is usual.
    pub(crate) fn clear(&mut self) {
        if self.bytes.len() > BUFFER_KEPT {
            self.bytes.truncate(BUFFER_KEPT);
            self.bytes.shrink_to_fit();
        }
        self.restart();
    }

    /// Forgets the records, keeps the buffer as it is.
    pub(crate) fn restart(&mut self) {
        self.end = FIRST;
        self.record_count = 0;
        self.codec = None;
    }

    /// Adds a record behind the others.
    ///
    /// # Errors
    ///
    /// * [`Error::InvalidRecord`] if a part does not fit Kafka's 32-bit lengths; nothing was added.
    pub(crate) fn push(&mut self, record: &Record<'_>, timestamp_ms: i64) -> Result<()> {
        if self.push_within(record, timestamp_ms, BATCH_LEN_MAX)? {
            return Ok(());
        }
        Err(Error::InvalidRecord { reason: "the batch exceeds 2 GiB" })
    }

    /// Adds a record behind the others unless the batch would then be longer than `len_max`; says whether it
    /// did. Of a record that is refused, or whose encoding panics, nothing is in the batch.
    ///
    /// # Errors
    ///
    /// * As [`push`](Self::push).
    #[inline]
    pub(crate) fn push_within(
        &mut self,
        record: &Record<'_>,
        timestamp_ms: i64,
        len_max: usize,
    ) -> Result<bool> {
        if self.push_if_fits(record, timestamp_ms, len_max) {
            return Ok(true);
        }
        // If anything makes it impossible, its length alone does.
        len_alone(record).map(|_| false)
    }

    /// Adds a record behind the others; false if the batch would then be longer than `len_max`, or the record is
    /// impossible.
    #[inline]
    pub(crate) fn push_if_fits(
        &mut self,
        record: &Record<'_>,
        timestamp_ms: i64,
        len_max: usize,
    ) -> bool {
        let start = self.end;
        if self.record_count == 0 {
            self.base_timestamp_ms = timestamp_ms;
            self.max_timestamp_ms = timestamp_ms;
        }
        let timestamp_delta = timestamp_ms.wrapping_sub(self.base_timestamp_ms);
        let offset_delta = self.record_count;
        let Some(len) = body_len(record, timestamp_delta, offset_delta) else {
            return false;
        };
        let whole_len = varint::len_i32(len as i32) + len;
        if start - LEAD + whole_len > len_max.min(BATCH_LEN_MAX) {
            return false;
        }
        // Some more than is needed, so that a word of fixed length can be written.
        if self.bytes.len() < start + whole_len + SLACK {
            self.grow(start + whole_len + SLACK);
        }
        let mut out = Cursor { room: &mut self.bytes[start..start + whole_len + SLACK], at: 0 };
        out.write_front(len, timestamp_delta, offset_delta, record);
        out.write(record.value.unwrap_or_default());
        if record.headers.is_empty() {
            out.write(&[0]);
        } else {
            out.write_headers(&record.headers);
        }
        debug_assert_eq!(out.at, whole_len);

        self.end = start + whole_len;
        self.record_count += 1;
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        true
    }

    /// Lets the batch carry this time as its greatest, if it is later.
    pub(crate) fn raise_timestamp(&mut self, timestamp_ms: i64) {
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
    }

    #[cold]
    fn grow(&mut self, len: usize) {
        self.bytes.resize(len.max(2 * self.bytes.len()).max(GROWN_MIN), 0);
    }

    pub(crate) fn record_count(&self) -> i32 {
        self.record_count
    }

    /// Gives the length of the batch so far.
    pub(crate) fn len(&self) -> usize {
        self.end - LEAD
    }

    /// Has the records take fewer bytes, if a codec can make that so. No record may follow.
    pub(crate) fn pack(&mut self, packer: &mut Packer, codec: Codec, level: i32) {
        debug_assert!(self.record_count > 0 && self.codec.is_none());
        let Some(packed) = packer.pack(codec, level, &self.bytes[FIRST..self.end]) else {
            return;
        };
        self.end = FIRST + packed.len();
        self.bytes[FIRST..self.end].copy_from_slice(packed);
        self.codec = Some(codec);
    }

    /// Writes the header in front of the records. The batch must hold at least one.
    pub(crate) fn seal(&mut self, timestamp_type: TimestampType) -> EncodedBatch<'_> {
        debug_assert!(self.record_count > 0);
        let varying = Varying {
            timestamp_type,
            codec: self.codec,
            record_count: self.record_count,
            base_timestamp_ms: self.base_timestamp_ms,
            max_timestamp_ms: self.max_timestamp_ms,
        };
        let (_, bytes) = self.bytes[..self.end].split_at_mut(LEAD);
        let front = bytes.first_chunk_mut().expect("push made room for a header");
        let front_checksum = match self.written {
            // One record after the other, sent alone in the same millisecond: nothing is to be written again.
            Some(written) if written.varying == varying => written.checksum,
            _ => varying.write(front),
        };
        let checksum = crc32c::crc32c_append(front_checksum, &bytes[header::LEN..]);
        bytes[field::CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
        self.written = Some(Written { varying, checksum: front_checksum });
        EncodedBatch {
            bytes,
            written: &mut self.written,
            record_count: self.record_count,
            max_timestamp_ms: self.max_timestamp_ms,
        }
    }
}

impl Default for BatchBuilder {
    fn default() -> BatchBuilder {
        BatchBuilder {
            bytes: Vec::new(),
            end: FIRST,
            record_count: 0,
            base_timestamp_ms: 0,
            max_timestamp_ms: 0,
            codec: None,
            written: None,
        }
    }
}

impl Varying {
    /// Writes a header; gives the checksum of what of it has one.
    fn write(&self, front: &mut [u8; header::LEN]) -> u32 {
        let attributes = match self.timestamp_type {
            TimestampType::CreateTime => Attributes::default(),
            TimestampType::LogAppendTime => Attributes(Attributes::LOG_APPEND_TIME),
        };
        let codec = self.codec.map_or(0, |codec| codec as i16);
        let attributes = Attributes(attributes.0 | codec);
        let header = BatchHeader {
            base_offset: 0,
            length: 0,
            leader_epoch: 0,
            magic: header::MAGIC,
            checksum: 0,
            attributes,
            last_offset_delta: self.record_count - 1,
            base_timestamp_ms: self.base_timestamp_ms,
            max_timestamp_ms: self.max_timestamp_ms,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: self.record_count,
        };
        header.write(front);
        crc32c::crc32c(&front[field::CHECKSUM.end..])
    }
}

impl EncodedBatch<'_> {
    /// Gives the batch's first bytes with what the log assigns; all of them lie outside the checksum.
    #[inline]
    pub(crate) fn front(&self, base_offset: i64, leader_epoch: i32) -> [u8; header::FRONT_LEN] {
        let length = (self.bytes.len() - header::LENGTH_EXCLUDES) as u32;
        let word = u128::from(base_offset as u64) << 64
            | u128::from(length) << 32
            | u128::from(leader_epoch as u32);
        word.to_be_bytes()
    }

    /// Puts the batch's first bytes in place.
    #[cfg(test)]
    pub(crate) fn stamp(&mut self, base_offset: i64, leader_epoch: i32) {
        let front = self.front(base_offset, leader_epoch);
        self.bytes[..header::FRONT_LEN].copy_from_slice(&front);
    }

    /// Replaces the batch's append time; costs a checksum.
    pub(crate) fn set_append_time(&mut self, max_timestamp_ms: i64) {
        self.bytes[field::MAX_TIMESTAMP].copy_from_slice(&max_timestamp_ms.to_be_bytes());
        self.max_timestamp_ms = max_timestamp_ms;
        *self.written = None;
        self.write_checksum();
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Gives the batch's bytes; what [`front`](Self::front) tells is not among them.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn record_count(&self) -> i32 {
        self.record_count
    }

    pub(crate) fn max_timestamp_ms(&self) -> i64 {
        self.max_timestamp_ms
    }

    fn write_checksum(&mut self) {
        let checksum = crc32c::crc32c(&self.bytes[field::CHECKSUM.end..]);
        self.bytes[field::CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// A builder that once held a huge batch does not hold on to its memory.
const BUFFER_KEPT: usize = (1 << 20) + (64 << 10);
/// Positions in a segment are 32-bit in Kafka's index, so no batch can be larger.
const BATCH_LEN_MAX: usize = i32::MAX as usize - 64;

/// The room a batch is given when it first needs any.
const GROWN_MIN: usize = 512;

/// In front of the header, so that the records begin where a word does and are summed word by word.
const LEAD: usize = 3;
/// Where the first record begins.
const FIRST: usize = LEAD + header::LEN;
const _: () = assert!(FIRST % 8 == 0);
/// Behind the last record, for the words that are written where fewer bytes are needed.
const SLACK: usize = WORD_LEN;
const WORD_LEN: usize = 8;
/// The length of a part that is null: −1.
const NULL: u8 = 1;

/// Small fields, gathered in a register: bytes that were written one by one are slow to be read together.
#[derive(Clone, Copy, Default)]
struct Word {
    bytes: u64,
    len: usize,
}

impl Word {
    /// Adds a varint of at most three bytes: a number from 0 up to [`SMALL`].
    #[inline]
    fn number(self, number: u64) -> Word {
        let zigzag = number << 1;
        let (bytes, len) = if zigzag < 1 << 7 {
            (zigzag, 1)
        } else if zigzag < 1 << 14 {
            (zigzag & 0x7f | 0x80 | zigzag << 1 & 0x7f00, 2)
        } else {
            (zigzag & 0x7f | 0x80 | (zigzag << 1 & 0x7f00 | 0x8000) | zigzag << 2 & 0x7f_0000, 3)
        };
        Word { bytes: self.bytes | bytes << (8 * self.len), len: self.len + len }
    }

    /// Adds the length of a part that is shorter than [`SMALL`], or may be null.
    #[inline]
    fn len_of(self, bytes: Option<&[u8]>) -> Word {
        match bytes {
            Some(bytes) => self.number(bytes.len() as u64),
            None => self.byte(NULL),
        }
    }

    #[inline]
    fn byte(self, byte: u8) -> Word {
        Word { bytes: self.bytes | u64::from(byte) << (8 * self.len), len: self.len + 1 }
    }

    #[inline]
    fn followed_by(self, other: Word) -> Word {
        Word { bytes: self.bytes | other.bytes << (8 * self.len), len: self.len + other.len }
    }
}

/// Numbers below this take at most three bytes.
const SMALL: u64 = 1 << 20;

/// Writes into the room of one record, of which [`SLACK`] bytes are left over in the end.
struct Cursor<'b> {
    room: &'b mut [u8],
    at: usize,
}

impl Cursor<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.room[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// Writes a whole word, of which only the beginning counts.
    #[inline]
    fn write_word(&mut self, word: Word) {
        self.room[self.at..self.at + WORD_LEN].copy_from_slice(&word.bytes.to_le_bytes());
        self.at += word.len;
    }

    /// Writes everything up to the value.
    #[inline]
    fn write_front(
        &mut self,
        len: usize,
        timestamp_delta: i64,
        offset_delta: i32,
        record: &Record<'_>,
    ) {
        let Record { key, value, .. } = record;
        // A negative delta is a large number.
        if (len as u64 | timestamp_delta as u64 | offset_delta as u64) >= SMALL {
            return self.write_large_front(len, timestamp_delta, offset_delta, record);
        }
        let first = Word::default().number(len as u64).byte(0).number(timestamp_delta as u64);
        let second = Word::default().number(offset_delta as u64).len_of(*key);
        let Some(key) = key else {
            let second = second.len_of(*value);
            if first.len + second.len <= WORD_LEN {
                return self.write_word(first.followed_by(second));
            }
            self.write_word(first);
            return self.write_word(second);
        };
        self.write_word(first);
        self.write_word(second);
        self.write(key);
        self.write_word(Word::default().len_of(*value));
    }

    /// The same, for numbers of any size.
    #[cold]
    fn write_large_front(
        &mut self,
        len: usize,
        timestamp_delta: i64,
        offset_delta: i32,
        record: &Record<'_>,
    ) {
        self.write_i32(len as i32);
        self.write(&[0]);
        varint::write_i64(self.room, &mut self.at, timestamp_delta);
        self.write_i32(offset_delta);
        self.write_bytes(record.key);
        self.write_i32(record.value.map_or(-1, |value| value.len() as i32));
    }

    fn write_headers(&mut self, headers: &[Header<'_>]) {
        self.write_i32(headers.len() as i32);
        for header in headers {
            self.write_bytes(Some(header.key.as_bytes()));
            self.write_bytes(header.value);
        }
    }

    fn write_i32(&mut self, value: i32) {
        varint::write_i32(self.room, &mut self.at, value);
    }

    fn write_bytes(&mut self, bytes: Option<&[u8]>) {
        self.write_i32(bytes.map_or(-1, |bytes| bytes.len() as i32));
        self.write(bytes.unwrap_or_default());
    }
}

/// Gives the length of a batch that holds nothing but this record.
///
/// # Errors
///
/// * As [`BatchBuilder::push`].
pub(crate) fn len_alone(record: &Record<'_>) -> Result<usize> {
    let reason = "a key, value or header exceeds 2 GiB";
    let len = body_len(record, 0, 0).ok_or(Error::InvalidRecord { reason })?;
    Ok(header::LEN + varint::len_i32(len as i32) + len)
}

/// Gives the length that the record's length field will state; `None` if a part or the whole is too long.
#[inline(always)]
fn body_len(record: &Record<'_>, timestamp_delta: i64, offset_delta: i32) -> Option<usize> {
    let mut len = 1 + varint::len_i64(timestamp_delta) + varint::len_i32(offset_delta);
    len += bytes_len(record.key)? + bytes_len(record.value)?;
    if record.headers.is_empty() {
        len += 1;
    } else {
        len += headers_len(&record.headers)?;
    }
    (len <= BATCH_LEN_MAX).then_some(len)
}

fn headers_len(headers: &[Header<'_>]) -> Option<usize> {
    let mut len = varint::len_i32(i32::try_from(headers.len()).ok()?);
    for header in headers {
        len += bytes_len(Some(header.key.as_bytes()))? + bytes_len(header.value)?;
        if len > BATCH_LEN_MAX {
            return None;
        }
    }
    Some(len)
}

#[inline]
fn bytes_len(bytes: Option<&[u8]>) -> Option<usize> {
    match bytes {
        Some(bytes) if bytes.len() <= BATCH_LEN_MAX => {
            Some(varint::len_i32(bytes.len() as i32) + bytes.len())
        }
        Some(_) => None,
        None => Some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The golden batch of three records, checked against Kafka's own encoder.
    const GOLDEN: &str = "\
        0000000000000000 00000058 00000000 02 94c2a565 0000 00000002 \
        0000018bcfe56800 0000018bcfe56805 ffffffffffffffff ffff ffffffff 00000003 \
        14 00 00 00 04 6b31 04 7631 00 \
        24 00 0a 02 01 0a 68656c6c6f 04 02 68 02 01 02 6e 01 \
        10 00 13 04 04 6b33 01 00";

    pub(crate) fn golden_bytes() -> Vec<u8> {
        let digits: Vec<u8> = GOLDEN.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn the_golden_batch_is_written_byte_for_byte() {
        let mut builder = BatchBuilder::default();
        let records = [
            (Record::new("v1").key("k1"), 1_700_000_000_000),
            (Record::new("hello").header("h", b"\x01").null_header("n"), 1_700_000_000_005),
            (Record::tombstone("k3"), 1_699_999_999_990),
        ];
        for (record, timestamp) in &records {
            builder.push(record, *timestamp).unwrap();
        }
        let mut batch = builder.seal(TimestampType::CreateTime);
        batch.stamp(0, 0);
        assert_eq!(batch.bytes(), golden_bytes());
    }

    #[test]
    fn stamping_leaves_the_checksum_valid() {
        let mut builder = BatchBuilder::default();
        builder.push(&Record::new("v"), 5).unwrap();
        let mut batch = builder.seal(TimestampType::CreateTime);
        let before = batch.bytes()[field::CHECKSUM].to_vec();
        batch.stamp(i64::MAX - 1, 77);
        batch.write_checksum();
        assert_eq!(batch.bytes()[field::CHECKSUM], before);
    }

    #[test]
    fn a_header_that_the_log_changed_is_written_anew() {
        let mut builder = BatchBuilder::default();
        let mut sealed_of = |change: fn(&mut EncodedBatch<'_>)| {
            builder.clear();
            builder.push(&Record::new("v"), 5).unwrap();
            let mut batch = builder.seal(TimestampType::CreateTime);
            change(&mut batch);
            batch.bytes()[header::FRONT_LEN..].to_vec()
        };
        let as_it_was = sealed_of(|_| {});
        assert_ne!(sealed_of(|batch| batch.set_append_time(7)), as_it_was);
        assert_eq!(sealed_of(|batch| batch.stamp(9, 9)), as_it_was);
        assert_eq!(sealed_of(|_| {}), as_it_was);
    }

    #[cfg(feature = "gzip")]
    #[test]
    fn a_header_knows_whether_its_records_are_packed() {
        let mut builder = BatchBuilder::default();
        let value = [b'v'; 500];
        let attributes = [false, true, true, false].map(|is_packed| {
            builder.clear();
            builder.push(&Record::new(&value), 5).unwrap();
            if is_packed {
                builder.pack(&mut Packer::default(), Codec::Gzip, 6);
            }
            let batch = builder.seal(TimestampType::CreateTime);
            let checksum = crc32c::crc32c(&batch.bytes()[field::CHECKSUM.end..]);
            assert_eq!(batch.bytes()[field::CHECKSUM], checksum.to_be_bytes());
            batch.bytes()[field::ATTRIBUTES].to_vec()
        });
        assert_eq!(attributes, [[0, 0], [0, 1], [0, 1], [0, 0]]);
    }

    #[test]
    fn small_numbers_and_large_ones_are_written_alike() {
        let sizes = [0, 1, 55, 56, 57, 62, 63, 64, 8183, 8191, 8192, 1 << 20, (1 << 20) + 1];
        let bytes = vec![7; 2 << 20];
        let parts = || sizes.into_iter().map(|len| Some(&bytes[..len])).chain([None]);
        let mut rooms = [vec![0; 5 << 20], vec![0; 5 << 20]];
        for (key, value) in parts().flat_map(|key| parts().map(move |value| (key, value))) {
            let record = Record::default().key_or_null(key).value_or_null(value);
            for timestamp_delta in [0, 63, 64, 8191, 8192, (1 << 20) - 1, 1 << 20, -1, i64::MIN] {
                for offset_delta in [0, 63, 64, 8192, (1 << 20) - 1, 1 << 20, i32::MAX] {
                    let len = body_len(&record, timestamp_delta, offset_delta).unwrap();
                    let [fast, slow] = rooms.each_mut().map(|room| Cursor { room, at: 0 });
                    let (mut fast, mut slow) = (fast, slow);
                    fast.write_front(len, timestamp_delta, offset_delta, &record);
                    slow.write_large_front(len, timestamp_delta, offset_delta, &record);
                    assert_eq!(fast.at, slow.at);
                    let front_len = fast.at - key.map_or(0, <[u8]>::len);
                    assert_eq!(fast.room[..front_len.min(40)], slow.room[..front_len.min(40)]);
                    assert_eq!(fast.room[fast.at - 3..fast.at], slow.room[fast.at - 3..fast.at]);
                }
            }
        }
    }

    #[test]
    fn a_cleared_builder_starts_over() {
        let mut builder = BatchBuilder::default();
        builder.push(&Record::new("first"), 5).unwrap();
        let first = builder.seal(TimestampType::CreateTime).bytes().to_vec();
        builder.clear();
        builder.push(&Record::new("first"), 5).unwrap();
        assert_eq!(builder.seal(TimestampType::CreateTime).bytes(), first);
    }
}
