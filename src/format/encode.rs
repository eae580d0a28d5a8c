//! Records in, a sealed batch out.
//!
//! A [`BatchBuilder`] is reused: it keeps its buffer. Everything that costs time (varints, copying,
//! the checksum) happens here, before any lock is taken; what the log assigns afterwards (base
//! offset, leader epoch) lies outside the checksum.

use crate::config::TimestampType;
use crate::error::Error;
use crate::error::Result;
use crate::format::header;
use crate::format::header::Attributes;
use crate::format::header::BatchHeader;
use crate::format::header::field;
use crate::format::varint;
use crate::record::Record;

/// Collects records into one batch.
#[derive(Debug, Default)]
pub(crate) struct BatchBuilder {
    /// Room for the header, then the records encoded so far.
    bytes: Vec<u8>,
    record_count: i32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

/// A finished batch in a builder's buffer: everything but base offset and leader epoch is in place.
#[derive(Debug)]
pub(crate) struct EncodedBatch<'b> {
    bytes: &'b mut [u8],
    record_count: i32,
    max_timestamp_ms: i64,
}

impl BatchBuilder {
    /// Forgets the records, keeps the buffer unless it has grown beyond what is usual.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(BUFFER_KEPT);
        self.bytes.resize(header::LEN, 0);
        self.record_count = 0;
    }

    /// Adds a record behind the others.
    ///
    /// # Errors
    ///
    /// * [`Error::InvalidRecord`] if a part does not fit Kafka's 32-bit lengths; nothing was added.
    pub(crate) fn push(&mut self, record: &Record<'_>, timestamp_ms: i64) -> Result<()> {
        if self.bytes.is_empty() {
            self.clear();
        }
        if self.record_count == 0 {
            self.base_timestamp_ms = timestamp_ms;
            self.max_timestamp_ms = timestamp_ms;
        }
        let timestamp_delta = timestamp_ms.wrapping_sub(self.base_timestamp_ms);
        let offset_delta = self.record_count;
        let len = body_len(record, timestamp_delta, offset_delta)?;
        if self.bytes.len() + len > BATCH_LEN_MAX {
            return Err(Error::InvalidRecord { reason: "the batch exceeds 2 GiB" });
        }

        let out = &mut self.bytes;
        out.reserve(len + 5);
        varint::write_i32(out, len as i32);
        let start = out.len();
        out.push(0);
        varint::write_i64(out, timestamp_delta);
        varint::write_i32(out, offset_delta);
        write_bytes(out, record.key);
        write_bytes(out, record.value);
        varint::write_i32(out, record.headers.len() as i32);
        for header in &record.headers {
            write_bytes(out, Some(header.key.as_bytes()));
            write_bytes(out, header.value);
        }
        debug_assert_eq!(out.len() - start, len);

        self.record_count += 1;
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        Ok(())
    }

    pub(crate) fn record_count(&self) -> i32 {
        self.record_count
    }

    /// Writes the header in front of the records. The batch must hold at least one.
    pub(crate) fn seal(&mut self, timestamp_type: TimestampType) -> EncodedBatch<'_> {
        debug_assert!(self.record_count > 0);
        let attributes = match timestamp_type {
            TimestampType::CreateTime => Attributes::default(),
            TimestampType::LogAppendTime => Attributes(Attributes::LOG_APPEND_TIME),
        };
        let written = BatchHeader {
            base_offset: 0,
            length: (self.bytes.len() - header::LENGTH_EXCLUDES) as i32,
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
        let (front, _) = self.bytes.split_first_chunk_mut().expect("clear made room for a header");
        written.write(front);
        let mut batch = EncodedBatch {
            bytes: &mut self.bytes,
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
const BUFFER_KEPT: usize = 256 << 10;
/// Positions in a segment are 32-bit in Kafka's index, so no batch can be larger.
const BATCH_LEN_MAX: usize = i32::MAX as usize - 64;

fn write_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            varint::write_i32(out, bytes.len() as i32);
            out.extend_from_slice(bytes);
        }
        None => varint::write_i32(out, -1),
    }
}

/// Gives the length that the record's length field will state.
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

fn bytes_len(bytes: Option<&[u8]>) -> Result<usize> {
    match bytes {
        Some(bytes) => {
            let len = i32::try_from(bytes.len()).map_err(|_| too_long())?;
            Ok(varint::len_i32(len) + bytes.len())
        }
        None => Ok(1),
    }
}

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
