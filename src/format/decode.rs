//! Bytes in, a verified batch and its records out.
//!
//! **Invariant (verified).** A [`Batch`] comes only from [`Batch::verify`], which has checked the
//! checksum and walked every record: lengths, counts and offsets stay inside the bytes, header names
//! are UTF-8. Iterating a batch therefore cannot fail, and the iterators have no error to report.

use crate::format::header;
use crate::format::header::BatchHeader;
use crate::format::header::HeaderFault;
use crate::format::header::field;
use crate::format::varint;
use crate::record::Header;

/// A batch whose checksum and structure hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    header: BatchHeader,
    records: &'a [u8],
}

/// One record of a batch, borrowed from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawRecord<'a> {
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: RawHeaders<'a>,
}

/// The headers of one record, still encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawHeaders<'a> {
    pub(crate) count: i32,
    pub(crate) bytes: &'a [u8],
}

/// Why bytes are not a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchFault {
    Header(HeaderFault),
    Checksum,
    Compressed(&'static str),
    Record(&'static str),
}

impl BatchFault {
    pub(crate) fn text(self) -> &'static str {
        match self {
            BatchFault::Header(fault) => fault.text(),
            BatchFault::Checksum => "checksum mismatch",
            BatchFault::Compressed(_) => "compressed",
            BatchFault::Record(text) => text,
        }
    }
}

/// Reads and checks the header at the front of `bytes`, which may hold more behind the batch.
#[inline]
pub(crate) fn header_at(bytes: &[u8]) -> Result<BatchHeader, HeaderFault> {
    let front = bytes.first_chunk::<{ header::LEN }>().ok_or(HeaderFault::CutOff)?;
    let header = BatchHeader::read(front);
    header.check(bytes.len() as u64)?;
    Ok(header)
}

/// Tells whether the checksum of the batch at the front of `bytes` holds.
#[inline]
pub(crate) fn checksum_holds(header: &BatchHeader, bytes: &[u8]) -> bool {
    crc32c::crc32c(&bytes[field::CHECKSUM.end..header.len()]) == header.checksum
}

impl<'a> Batch<'a> {
    /// Checks the batch at the front of `bytes`: header, checksum, every record.
    ///
    /// Costs one pass for the checksum and one over the records. A control batch is checked like any
    /// other; a compressed one is refused, its records cannot be seen.
    pub(crate) fn verify(bytes: &'a [u8]) -> Result<Batch<'a>, BatchFault> {
        let header = header_at(bytes).map_err(BatchFault::Header)?;
        if !checksum_holds(&header, bytes) {
            return Err(BatchFault::Checksum);
        }
        if let Some(codec) = header.attributes.compression() {
            // Kafka's compaction leaves empty batches without payload, whatever their codec was.
            if header.record_count > 0 {
                return Err(BatchFault::Compressed(codec));
            }
        }
        let batch = Batch { header, records: &bytes[header::LEN..header.len()] };
        batch.check_records().map_err(BatchFault::Record)?;
        Ok(batch)
    }

    /// Gives a batch over bytes that [`verify`](Self::verify) accepted before.
    #[inline]
    pub(crate) fn verified(bytes: &'a [u8]) -> Batch<'a> {
        let front = bytes.first_chunk().expect("a verified batch has a header");
        let header = BatchHeader::read(front);
        Batch { header, records: &bytes[header::LEN..header.len()] }
    }

    #[inline]
    pub(crate) fn header(&self) -> &BatchHeader {
        &self.header
    }

    #[inline]
    pub(crate) fn records(&self) -> RawRecords<'a> {
        RawRecords {
            left: self.header.record_count,
            bytes: self.records,
            base_offset: self.header.base_offset,
            base_timestamp_ms: self.header.base_timestamp_ms,
            append_time_ms: self
                .header
                .attributes
                .is_log_append_time()
                .then_some(self.header.max_timestamp_ms),
        }
    }

    fn check_records(&self) -> Result<(), &'static str> {
        let mut bytes = self.records;
        let mut delta_min = 0_i64;
        for _ in 0..self.header.record_count {
            let record = take_record(&mut bytes).ok_or("a record is cut off or overlong")?;
            let delta = i64::from(record.offset_delta);
            if delta < delta_min || delta > i64::from(self.header.last_offset_delta) {
                return Err("record offsets do not ascend within the batch");
            }
            delta_min = delta + 1;
            let mut headers = record.headers.bytes;
            for _ in 0..record.headers.count {
                let (name, _) = take_header(&mut headers).ok_or("a header is cut off")?;
                std::str::from_utf8(name).map_err(|_| "a header name is not UTF-8")?;
            }
            if !headers.is_empty() {
                return Err("bytes are left behind the headers");
            }
        }
        if bytes.is_empty() { Ok(()) } else { Err("bytes are left behind the records") }
    }
}

/// The records of a verified batch, in offset order.
#[derive(Clone, Debug)]
pub(crate) struct RawRecords<'a> {
    left: i32,
    bytes: &'a [u8],
    base_offset: i64,
    base_timestamp_ms: i64,
    append_time_ms: Option<i64>,
}

impl<'a> Iterator for RawRecords<'a> {
    type Item = RawRecord<'a>;

    #[inline]
    fn next(&mut self) -> Option<RawRecord<'a>> {
        if self.left <= 0 {
            return None;
        }
        self.left -= 1;
        // By the invariant (verified) every record is whole.
        let record = take_record(&mut self.bytes)?;
        Some(RawRecord {
            offset: self.base_offset + i64::from(record.offset_delta),
            timestamp_ms: self
                .append_time_ms
                .unwrap_or_else(|| self.base_timestamp_ms.wrapping_add(record.timestamp_delta)),
            key: record.key,
            value: record.value,
            headers: record.headers,
        })
    }
}

impl<'a> RawHeaders<'a> {
    pub(crate) fn iter(self) -> impl Iterator<Item = Header<'a>> {
        let mut bytes = self.bytes;
        (0..self.count).map_while(move |_| {
            let (name, value) = take_header(&mut bytes)?;
            // By the invariant (verified) every name is UTF-8.
            Some(Header { key: std::str::from_utf8(name).ok()?, value })
        })
    }
}

struct EncodedRecord<'a> {
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: RawHeaders<'a>,
}

#[inline]
fn take_record<'a>(bytes: &mut &'a [u8]) -> Option<EncodedRecord<'a>> {
    let len = usize::try_from(varint::read_i32(bytes)?).ok()?;
    let (mut body, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    let (_attributes, tail) = body.split_first()?;
    body = tail;
    let timestamp_delta = varint::read_i64(&mut body)?;
    let offset_delta = varint::read_i32(&mut body)?;
    let key = take_bytes(&mut body)?;
    let value = take_bytes(&mut body)?;
    let count = varint::read_i32(&mut body)?;
    // Every header takes at least two bytes, so a huge count is a lie.
    if count < 0 || count as usize > body.len() / 2 || (count == 0 && !body.is_empty()) {
        return None;
    }
    let headers = RawHeaders { count, bytes: body };
    Some(EncodedRecord { timestamp_delta, offset_delta, key, value, headers })
}

/// Takes a nullable byte string: the outer `None` is a fault, the inner one null.
#[inline]
#[allow(clippy::option_option, reason = "null and malformed differ, and both are common here")]
fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let len = varint::read_i32(bytes)?;
    if len == -1 {
        return Some(None);
    }
    let (taken, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
    *bytes = rest;
    Some(Some(taken))
}

fn take_header<'a>(bytes: &mut &'a [u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let name = take_bytes(bytes)??;
    let value = take_bytes(bytes)?;
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TimestampType;
    use crate::format::encode::BatchBuilder;
    use crate::record::Record;

    fn batch_of_three() -> Vec<u8> {
        let mut builder = BatchBuilder::default();
        builder.push(&Record::new("v1").key("k1"), 100).unwrap();
        builder.push(&Record::new("").header("h", "x").null_header("n"), 90).unwrap();
        builder.push(&Record::tombstone(""), 110).unwrap();
        let mut batch = builder.seal(TimestampType::CreateTime);
        batch.stamp(40, 3);
        batch.bytes().to_vec()
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let bytes = batch_of_three();
        let batch = Batch::verify(&bytes).unwrap();
        let records: Vec<RawRecord<'_>> = batch.records().collect();
        assert_eq!(records.iter().map(|r| r.offset).collect::<Vec<_>>(), [40, 41, 42]);
        assert_eq!(records.iter().map(|r| r.timestamp_ms).collect::<Vec<_>>(), [100, 90, 110]);
        assert_eq!(records[0].key, Some(&b"k1"[..]));
        assert_eq!(records[1].key, None);
        assert_eq!(records[1].value, Some(&b""[..]));
        assert_eq!(records[2].key, Some(&b""[..]));
        assert_eq!(records[2].value, None);
        let headers: Vec<_> = records[1].headers.iter().collect();
        assert_eq!(
            headers,
            [Header { key: "h", value: Some(b"x") }, Header { key: "n", value: None }]
        );
        assert_eq!(batch.header().max_timestamp_ms, 110);
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = batch_of_three();
        for len in 0..bytes.len() {
            assert!(Batch::verify(&bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn every_flipped_bit_is_refused_or_lies_in_an_unchecked_field() {
        let bytes = batch_of_three();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let byte = bit / 8;
            // Kafka's checksum covers neither base offset nor leader epoch; the log checks continuity.
            let unchecked =
                field::BASE_OFFSET.contains(&byte) || field::LEADER_EPOCH.contains(&byte);
            match Batch::verify(&flipped) {
                Ok(_) => assert!(unchecked, "bit {bit} went unnoticed"),
                Err(_) => assert!(!unchecked || byte == 0, "bit {bit}"),
            }
        }
    }

    #[test]
    fn hostile_records_under_a_valid_checksum_are_refused() {
        let good = batch_of_three();
        for position in header::LEN..good.len() {
            for byte in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[position] = byte;
                let checksum = crc32c::crc32c(&bytes[field::CHECKSUM.end..]);
                bytes[field::CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
                // Accepted or not, whatever is accepted can be walked to its end.
                if let Ok(batch) = Batch::verify(&bytes) {
                    let headers: usize = batch.records().map(|r| r.headers.iter().count()).sum();
                    assert!(batch.records().count() == 3 && headers <= bytes.len());
                }
            }
        }
    }

    #[test]
    fn a_record_count_bomb_costs_nothing() {
        let mut bytes = batch_of_three();
        bytes[field::RECORD_COUNT].copy_from_slice(&i32::MAX.to_be_bytes());
        let checksum = crc32c::crc32c(&bytes[field::CHECKSUM.end..]);
        bytes[field::CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
        assert!(matches!(Batch::verify(&bytes), Err(BatchFault::Record(_))));
    }

    #[test]
    fn append_time_stands_for_every_record() {
        let mut builder = BatchBuilder::default();
        builder.push(&Record::new("a"), 1).unwrap();
        builder.push(&Record::new("b"), 2).unwrap();
        let mut batch = builder.seal(TimestampType::LogAppendTime);
        batch.set_append_time(500);
        batch.stamp(0, 0);
        let bytes = batch.bytes().to_vec();
        let times: Vec<i64> =
            Batch::verify(&bytes).unwrap().records().map(|r| r.timestamp_ms).collect();
        assert_eq!(times, [500, 500]);
    }
}
