//! Records in, a sealed batch out.
//!
//! A [`BatchBuilder`] is reused: it keeps its buffer. Everything that costs time (varints, copying,
//! the checksum) happens here, before any lock is taken; what the log assigns afterwards (base
//! offset, leader epoch) lies outside the checksum.

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
use crate::record::Record;

/// Collects records into one batch.
#[derive(Debug, Default)]
pub(crate) struct BatchBuilder {
    /// The batch: room for the header, then the records encoded so far. What lies behind `end` was written
    /// before and counts for nothing; it is there so that a record is written without growing anything.
    bytes: Vec<u8>,
    end: usize,
    record_count: i32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    /// Set once the records were replaced by a codec's stream of them.
    codec: Option<Codec>,
}

/// A finished batch in a builder's buffer: everything but base offset and leader epoch is in place.
#[derive(Debug)]
pub(crate) struct EncodedBatch<'b> {
    bytes: &'b mut [u8],
    record_count: i32,
    max_timestamp_ms: i64,
}

impl BatchBuilder {
    /// Makes a builder that holds batches of up to `len` bytes without growing.
    pub(crate) fn with_room(len: usize) -> BatchBuilder {
        let bytes = vec![0; len + FRONT_LEN];
        BatchBuilder { bytes, end: header::LEN, ..BatchBuilder::default() }
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
        self.end = header::LEN;
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
        let start = self.end.max(header::LEN);
        if self.record_count == 0 {
            self.base_timestamp_ms = timestamp_ms;
            self.max_timestamp_ms = timestamp_ms;
        }
        let timestamp_delta = timestamp_ms.wrapping_sub(self.base_timestamp_ms);
        let offset_delta = self.record_count;
        let len = body_len(record, timestamp_delta, offset_delta)?;
        let whole_len = varint::len_i32(len as i32) + len;
        if start + whole_len > len_max.min(BATCH_LEN_MAX) {
            return Ok(false);
        }
        // Some more than is needed, so that a front of fixed length can be copied.
        if self.bytes.len() < start + whole_len + FRONT_LEN {
            self.grow(start + whole_len + FRONT_LEN);
        }
        let mut out = Cursor::new(&mut self.bytes[start..start + whole_len + FRONT_LEN]);
        let mut front = Front::default();
        front.put_i32(len as i32);
        front.put(0);
        front.put_i64(timestamp_delta);
        front.put_i32(offset_delta);
        match record.key {
            None => front.put(NULL),
            Some(key) => {
                front.put_i32(key.len() as i32);
                out.write_front(&front);
                out.write(key);
                front = Front::default();
            }
        }
        match record.value {
            None => {
                front.put(NULL);
                out.write_front(&front);
            }
            Some(value) => {
                front.put_i32(value.len() as i32);
                out.write_front(&front);
                out.write(value);
            }
        }
        if record.headers.is_empty() {
            out.write(&[0]);
        } else {
            out.write_i32(record.headers.len() as i32);
            for header in &record.headers {
                out.write_bytes(Some(header.key.as_bytes()));
                out.write_bytes(header.value);
            }
        }
        debug_assert_eq!(out.at, whole_len);

        self.end = start + whole_len;
        self.record_count += 1;
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        Ok(true)
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
        self.end
    }

    /// Has the records take fewer bytes, if a codec can make that so. No record may follow.
    pub(crate) fn pack(&mut self, packer: &mut Packer, codec: Codec, level: i32) {
        debug_assert!(self.record_count > 0 && self.codec.is_none());
        let Some(packed) = packer.pack(codec, level, &self.bytes[header::LEN..self.end]) else {
            return;
        };
        self.end = header::LEN + packed.len();
        self.bytes[header::LEN..self.end].copy_from_slice(packed);
        self.codec = Some(codec);
    }

    /// Writes the header in front of the records. The batch must hold at least one.
    pub(crate) fn seal(&mut self, timestamp_type: TimestampType) -> EncodedBatch<'_> {
        debug_assert!(self.record_count > 0);
        let attributes = match timestamp_type {
            TimestampType::CreateTime => Attributes::default(),
            TimestampType::LogAppendTime => Attributes(Attributes::LOG_APPEND_TIME),
        };
        let codec = self.codec.map_or(0, |codec| codec as i16);
        let attributes = Attributes(attributes.0 | codec);
        let written = BatchHeader {
            base_offset: 0,
            length: (self.end - header::LENGTH_EXCLUDES) as i32,
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
        let (front, _) = self.bytes.split_first_chunk_mut().expect("push made room for a header");
        written.write(front);
        let mut batch = EncodedBatch {
            bytes: &mut self.bytes[..self.end],
            record_count: self.record_count,
            max_timestamp_ms: self.max_timestamp_ms,
        };
        batch.write_checksum();
        batch
    }
}

impl EncodedBatch<'_> {
    /// Writes what the log assigns. Both fields lie outside the checksum.
    #[inline]
    pub(crate) fn stamp(&mut self, base_offset: i64, leader_epoch: i32) {
        self.bytes[field::BASE_OFFSET].copy_from_slice(&base_offset.to_be_bytes());
        self.bytes[field::LEADER_EPOCH].copy_from_slice(&leader_epoch.to_be_bytes());
    }

    /// Replaces the batch's append time; costs a checksum.
    pub(crate) fn set_append_time(&mut self, max_timestamp_ms: i64) {
        self.bytes[field::MAX_TIMESTAMP].copy_from_slice(&max_timestamp_ms.to_be_bytes());
        self.max_timestamp_ms = max_timestamp_ms;
        self.write_checksum();
    }

    pub(crate) fn bytes(&self) -> &[u8] {
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

/// What stands in front of a record's key or value, at most: four varints, the attributes, a length.
const FRONT_LEN: usize = 40;
/// The length of a part that is null: −1.
const NULL: u8 = 1;

/// The small fields in front of a key or value, gathered so that they are copied at once.
struct Front {
    bytes: [u8; FRONT_LEN],
    len: usize,
}

impl Default for Front {
    #[inline]
    fn default() -> Front {
        Front { bytes: [0; FRONT_LEN], len: 0 }
    }
}

impl Front {
    #[inline]
    fn put(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    #[inline]
    fn put_i32(&mut self, value: i32) {
        varint::write_i32(&mut self.bytes, &mut self.len, value);
    }

    #[inline]
    fn put_i64(&mut self, value: i64) {
        varint::write_i64(&mut self.bytes, &mut self.len, value);
    }
}

/// Writes into the room of one record.
struct Cursor<'b> {
    room: &'b mut [u8],
    at: usize,
}

impl Cursor<'_> {
    #[inline]
    fn new(room: &mut [u8]) -> Cursor<'_> {
        Cursor { room, at: 0 }
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.room[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// Copies more than the fields, which is faster than to copy as many as there are; what follows them is
    /// written over.
    #[inline]
    fn write_front(&mut self, front: &Front) {
        self.room[self.at..self.at + FRONT_LEN].copy_from_slice(&front.bytes);
        self.at += front.len;
    }

    fn write_i32(&mut self, value: i32) {
        let mut front = Front::default();
        front.put_i32(value);
        self.write_front(&front);
    }

    fn write_bytes(&mut self, bytes: Option<&[u8]>) {
        self.write_i32(bytes.map_or(-1, |bytes| bytes.len() as i32));
        self.write(bytes.unwrap_or_default());
    }
}

/// Gives the length of a batch that holds nothing but this record.
pub(crate) fn len_alone(record: &Record<'_>) -> Result<usize> {
    let len = body_len(record, 0, 0)?;
    Ok(header::LEN + varint::len_i32(len as i32) + len)
}

/// Gives the length that the record's length field will state.
#[inline]
fn body_len(record: &Record<'_>, timestamp_delta: i64, offset_delta: i32) -> Result<usize> {
    let mut len = 1 + varint::len_i64(timestamp_delta) + varint::len_i32(offset_delta);
    len += bytes_len(record.key)? + bytes_len(record.value)?;
    let header_count = i32::try_from(record.headers.len()).map_err(|_| too_long())?;
    len += varint::len_i32(header_count);
    for header in &record.headers {
        len += bytes_len(Some(header.key.as_bytes()))? + bytes_len(header.value)?;
        if len > BATCH_LEN_MAX {
            return Err(too_long());
        }
    }
    if len > BATCH_LEN_MAX { Err(too_long()) } else { Ok(len) }
}

#[inline]
fn bytes_len(bytes: Option<&[u8]>) -> Result<usize> {
    match bytes {
        Some(bytes) => {
            let len = i32::try_from(bytes.len()).map_err(|_| too_long())?;
            Ok(varint::len_i32(len) + bytes.len())
        }
        None => Ok(1),
    }
}

#[cold]
fn too_long() -> Error {
    Error::InvalidRecord { reason: "a key, value or header exceeds 2 GiB" }
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
    fn a_cleared_builder_starts_over() {
        let mut builder = BatchBuilder::default();
        builder.push(&Record::new("first"), 5).unwrap();
        let first = builder.seal(TimestampType::CreateTime).bytes().to_vec();
        builder.clear();
        builder.push(&Record::new("first"), 5).unwrap();
        assert_eq!(builder.seal(TimestampType::CreateTime).bytes(), first);
    }
}
