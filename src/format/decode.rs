//! Bytes in, a verified batch and its records out.
//!
//! **Invariant (verified).** Bytes are handed to a reader only once the batch they belong to has passed
//! [`check_structure`], which walked every record: lengths, counts and offsets stay inside the bytes,
//! header names are UTF-8. Iterating a batch therefore cannot fail, and the iterators have no error to
//! report. They rely on it for what they say, never for safety: over any other bytes they end early.

use std::fmt;

use crate::format::header;
use crate::format::header::BatchHeader;
use crate::format::header::Front;
use crate::format::header::HeaderFault;
use crate::format::header::field;
use crate::format::varint;
use crate::record::Header;

/// A batch whose checksum and structure hold.
#[derive(Clone, Copy)]
pub(crate) struct Batch<'a> {
    header: BatchHeader,
    records: RawRecords<'a>,
}

/// One record of a batch, borrowed from its bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawRecord<'a> {
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: RawHeaders<'a>,
}

/// The headers of one record, still encoded, with their number in front.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawHeaders<'a> {
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
    checksum(&bytes[field::CHECKSUM.end..header.len()]) == header.checksum
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.header().fmt(f)
    }
}

impl fmt::Debug for RawRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the record at offset {}", self.offset)
    }
}

impl fmt::Debug for RawHeaders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "headers of {} bytes", self.bytes.len())
    }
}

impl fmt::Debug for RawRecords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records", self.left())
    }
}

/// The checksum of a batch that is not in memory as a whole.
#[derive(Debug, Default)]
pub(crate) struct Checksum(u32);

impl Checksum {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }

    pub(crate) fn value(&self) -> u32 {
        self.0
    }
}

/// Sums bytes that most likely lie in memory, not in a cache of the processor.
///
/// Long stretches would be summed at three places 8 KiB apart in turn, each of which runs into the end of a page at
/// the same time, where the processor stops fetching ahead. In pieces the three are close together: 1.4 times as fast.
#[inline]
fn checksum(bytes: &[u8]) -> u32 {
    if bytes.len() <= PIECE_LEN {
        return crc32c::crc32c(bytes);
    }
    // Pieces begin on whole words: the bytes in front of a word are summed one by one.
    let (front, rest) = bytes.split_at(bytes.as_ptr().align_offset(8).min(PIECE_LEN));
    let sum = crc32c::crc32c(front);
    rest.chunks(PIECE_LEN).fold(sum, crc32c::crc32c_append)
}

/// A multiple of what is summed at three places in turn, 768 bytes, and less than what is at places far apart.
const PIECE_LEN: usize = 8 * 768;

/// Checks the inside of the batch at the front of `bytes`, whose header was checked: every length, count
/// and offset of every record. One pass, without the checksum.
///
/// A control batch is checked like any other; a compressed one is refused, its records cannot be seen before it is
/// unpacked.
#[inline]
pub(crate) fn check_structure(header: &BatchHeader, bytes: &[u8]) -> Result<(), BatchFault> {
    if header.is_packed() {
        return Err(BatchFault::Compressed(header.attributes.compression().unwrap_or("none")));
    }
    let records = &bytes[header::LEN..header.len()];
    check_records(header.record_count, header.last_offset_delta, records)
        .map_err(BatchFault::Record)
}

fn check_records(count: i32, delta_max: i32, mut bytes: &[u8]) -> Result<(), &'static str> {
    let mut stride = 0;
    let mut delta_min = 0_i64;
    let delta_max = i64::from(delta_max);
    for _ in 0..count {
        let taken = take_short(bytes, Some(&mut stride)).or_else(|| take_any(bytes));
        let (record, behind) = taken.ok_or("a record is cut off or overlong")?;
        bytes = behind;
        let delta = i64::from(record.offset_delta);
        if delta < delta_min || delta > delta_max {
            return Err("record offsets do not ascend within the batch");
        }
        delta_min = delta + 1;
        // Most records have no headers, and then nothing but their number.
        if *record.headers.bytes != [0] {
            check_headers(record.headers)?;
        }
    }
    if bytes.is_empty() { Ok(()) } else { Err("bytes are left behind the records") }
}

fn check_headers(headers: RawHeaders<'_>) -> Result<(), &'static str> {
    let mut bytes = headers.bytes;
    let count = varint::read_i32(&mut bytes).ok_or("a record is cut off or overlong")?;
    // Every header takes at least two bytes, so a huge count is a lie.
    if count < 0 || count as usize > bytes.len() / 2 {
        return Err("a record is cut off or overlong");
    }
    for _ in 0..count {
        let (name, _) = take_header(&mut bytes).ok_or("a header is cut off")?;
        std::str::from_utf8(name).map_err(|_| "a header name is not UTF-8")?;
    }
    if bytes.is_empty() { Ok(()) } else { Err("bytes are left behind the headers") }
}

impl<'a> Batch<'a> {
    /// Checks the batch at the front of `bytes`: header, checksum, every record.
    ///
    /// Costs one pass for the checksum and one over the records.
    pub(crate) fn verify(bytes: &'a [u8]) -> Result<Batch<'a>, BatchFault> {
        let header = header_at(bytes).map_err(BatchFault::Header)?;
        if !checksum_holds(&header, bytes) {
            return Err(BatchFault::Checksum);
        }
        check_structure(&header, bytes)?;
        Batch::of(header, bytes).ok_or(BatchFault::Header(HeaderFault::CutOff))
    }

    /// Gives the batch at the front of bytes that were checked before; `None` where there is none.
    #[inline]
    pub(crate) fn verified(bytes: &'a [u8]) -> Option<Batch<'a>> {
        Batch::of(header_at(bytes).ok()?, bytes)
    }

    #[inline]
    fn of(header: BatchHeader, bytes: &'a [u8]) -> Option<Batch<'a>> {
        let (records, _) = RawRecords::split(bytes)?;
        Some(Batch { header, records })
    }

    #[inline]
    pub(crate) fn header(&self) -> &BatchHeader {
        &self.header
    }

    #[inline]
    pub(crate) fn records(&self) -> RawRecords<'a> {
        self.records
    }
}

/// The records of a verified batch, in offset order.
#[derive(Clone, Copy, Default)]
pub(crate) struct RawRecords<'a> {
    left: i32,
    bytes: &'a [u8],
    front: Front<'a>,
}

impl<'a> RawRecords<'a> {
    /// Gives the records of the batch at the front of bytes that were checked before, and what lies behind it; `None`
    /// where there is none. Of the header no more is read than that takes.
    #[inline(always)]
    pub(crate) fn split(bytes: &'a [u8]) -> Option<(RawRecords<'a>, &'a [u8])> {
        let front = Front::at(bytes)?;
        let (batch, behind) = bytes.split_at_checked(front.len()?)?;
        let records = batch.get(header::LEN..)?;
        Some((RawRecords { left: front.record_count(), bytes: records, front }, behind))
    }

    /// Gives how many records follow.
    #[inline]
    pub(crate) fn left(&self) -> usize {
        self.left.max(0) as usize
    }

    /// Gives the front of the batch.
    #[inline]
    pub(crate) fn front(&self) -> Front<'a> {
        self.front
    }

    /// Gives the bytes of the records that follow.
    #[inline]
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Goes on where a walk over the same batch stood, `len` bytes before the batch's end.
    #[inline]
    pub(crate) fn resumed(self, left: usize, len: usize) -> RawRecords<'a> {
        let start = self.bytes.len().saturating_sub(len);
        let left = i32::try_from(left).unwrap_or(i32::MAX).min(self.left);
        RawRecords { left, bytes: &self.bytes[start..], ..self }
    }

    /// Ends after `count` records, if not before.
    #[inline]
    pub(crate) fn limited(self, count: usize) -> RawRecords<'a> {
        let left = i32::try_from(count).unwrap_or(i32::MAX).min(self.left);
        RawRecords { left, ..self }
    }

    /// Steps over `count` records, looking at their lengths only.
    pub(crate) fn pass(&mut self, count: usize) {
        let mut bytes = self.bytes;
        let mut stride = 0;
        for _ in 0..count.min(self.left()) {
            if take_like(&mut bytes, &mut stride).is_none() {
                self.left = 0;
                return;
            }
            self.left -= 1;
        }
        self.bytes = bytes;
    }

    /// Steps over the records below `offset`.
    pub(crate) fn pass_below(&mut self, offset: i64) {
        let mut ahead = *self;
        while ahead.next().is_some_and(|record| record.offset < offset) {
            *self = ahead;
        }
    }
}

impl<'a> Iterator for RawRecords<'a> {
    type Item = RawRecord<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<RawRecord<'a>> {
        if self.left <= 0 {
            return None;
        }
        // By the invariant (verified) every record is whole; over anything else the walk ends here.
        let taken = take_short(self.bytes, None).or_else(|| take_any(self.bytes));
        let Some((record, behind)) = taken else {
            self.left = 0;
            return None;
        };
        self.bytes = behind;
        self.left -= 1;
        let front = self.front;
        Some(RawRecord {
            offset: front.base_offset().wrapping_add(i64::from(record.offset_delta)),
            timestamp_ms: if front.attributes().is_log_append_time() {
                front.max_timestamp_ms()
            } else {
                front.base_timestamp_ms().wrapping_add(record.timestamp_delta)
            },
            key: record.key,
            value: record.value,
            headers: record.headers,
        })
    }
}

impl<'a> RawHeaders<'a> {
    pub(crate) fn iter(self) -> impl Iterator<Item = Header<'a>> {
        let mut bytes = self.bytes;
        let count = varint::read_i32(&mut bytes).unwrap_or(0);
        (0..count).map_while(move |_| {
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

/// Takes a record as most are: no number in it takes more than two bytes, and it has a value.
///
/// Without a copy, and without a look at how many bytes are left but for the one at the front. With `stride`, the
/// length of the record before, as [`take_like`].
#[inline(always)]
fn take_short<'a>(
    bytes: &'a [u8],
    stride: Option<&mut usize>,
) -> Option<(EncodedRecord<'a>, &'a [u8])> {
    let window = bytes.first_chunk::<WINDOW_LEN>()?;
    let mut at = 0;
    let len = short(window, &mut at)?;
    let mut end = at + (len >> 1) as usize;
    if let Some(stride) = stride {
        stride_like(end, stride);
        end = *stride;
    }
    at += ATTRIBUTES_LEN;
    let timestamp_delta = short(window, &mut at)?;
    let offset_delta = short(window, &mut at)?;
    let key_len = short(window, &mut at)?;
    let (record, behind) = bytes.split_at_checked(end)?;
    let (key, value_len, value_at);
    if key_len == NULL {
        key = None;
        value_len = short(window, &mut at)?;
        value_at = at;
    } else {
        let key_end = at + (key_len >> 1) as usize;
        key = Some(record.get(at..key_end)?);
        at = 0;
        value_len = short(record.get(key_end..)?.first_chunk::<2>()?, &mut at)?;
        value_at = key_end + at;
    }
    // An odd number is negative.
    if (len | value_len) & 1 != 0 || (key_len & 1 != 0 && key_len != NULL) {
        return None;
    }
    let (value, headers) = record.get(value_at..)?.split_at_checked((value_len >> 1) as usize)?;
    let record = EncodedRecord {
        timestamp_delta: i64::from(varint::unzigzag(timestamp_delta)),
        offset_delta: varint::unzigzag(offset_delta),
        key,
        value: Some(value),
        headers: RawHeaders { bytes: headers },
    };
    Some((record, behind))
}

/// Reads a number of one or two bytes, still in zigzag, and moves `at` behind it; `None` if it is longer.
#[inline(always)]
fn short<const N: usize>(window: &[u8; N], at: &mut usize) -> Option<u32> {
    let first = u32::from(window[*at % N]);
    *at += 1;
    if first < 0x80 {
        return Some(first);
    }
    let second = u32::from(window[*at % N]);
    *at += 1;
    (second < 0x80).then_some(first & 0x7f | second << 7)
}

/// Takes any record. By value, so that a caller's loop keeps its state in registers.
#[inline(never)]
fn take_any(mut bytes: &[u8]) -> Option<(EncodedRecord<'_>, &[u8])> {
    let record = take_body(&mut bytes).and_then(fields)?;
    Some((record, bytes))
}

/// Length, attributes, two deltas, two more lengths, of up to two bytes each: no more than eleven.
const WINDOW_LEN: usize = 16;
const ATTRIBUTES_LEN: usize = 1;
/// The length that stands for null, as it is encoded.
const NULL: u32 = 1;

/// Takes a record, without the length in front of it.
#[inline(always)]
fn take_body<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(varint::read_i32(bytes)?).ok()?;
    let (body, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(body)
}

/// As [`take_body`], for walks that do little else: `stride` is the length of the record before.
///
/// Where the next record begins is known only once this one's length was loaded and decoded, and such a
/// walk would wait for that. Most records are as long as the one before: so the length is compared with
/// that, which the processor predicts, and the walk goes on from a number that is at hand.
#[inline(always)]
fn take_like<'a>(bytes: &mut &'a [u8], stride: &mut usize) -> Option<&'a [u8]> {
    let len = usize::try_from(varint::read_i32(bytes)?).ok()?;
    stride_like(len, stride);
    let (body, rest) = bytes.split_at_checked(*stride)?;
    *bytes = rest;
    Some(body)
}

/// Makes the stride what was found, by a comparison and not by a copy; see [`take_like`].
#[inline(always)]
pub(crate) fn stride_like(found: usize, stride: &mut usize) {
    if found != *stride {
        *stride = changed(found);
    }
}

/// Gives `len`, and keeps the compiler from seeing so: it would undo the comparison in [`take_like`].
#[cold]
#[inline(never)]
fn changed(len: usize) -> usize {
    std::hint::black_box(len)
}

#[inline(always)]
fn fields(body: &[u8]) -> Option<EncodedRecord<'_>> {
    let (_attributes, mut body) = body.split_first()?;
    let timestamp_delta = varint::read_i64(&mut body)?;
    let offset_delta = varint::read_i32(&mut body)?;
    let key = take_bytes(&mut body)?;
    let value = take_bytes(&mut body)?;
    let headers = RawHeaders { bytes: body };
    Some(EncodedRecord { timestamp_delta, offset_delta, key, value, headers })
}

/// Takes a nullable byte string: the outer `None` is a fault, the inner one null.
#[inline(always)]
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
    use proptest::prelude::*;
    use proptest::test_runner::Config;

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

    /// A second opinion: byte by byte, and nothing taken for granted.
    fn read_slowly(bytes: &[u8]) -> Option<Vec<SlowRecord>> {
        let field = |range: std::ops::Range<usize>| {
            bytes.get(range).map(|b| b.iter().fold(0_i128, |n, b| n << 8 | i128::from(*b)))
        };
        let signed = |range: std::ops::Range<usize>, bits: u32| {
            field(range).map(|n| if n >= 1 << (bits - 1) { n - (1_i128 << bits) } else { n })
        };
        let len = signed(field::LENGTH, 32)? + 12;
        let attributes = field(field::ATTRIBUTES)?;
        let base_offset = signed(field::BASE_OFFSET, 64)?;
        let last_delta = signed(field::LAST_OFFSET_DELTA, 32)?;
        let base_timestamp = signed(field::BASE_TIMESTAMP, 64)?;
        let count = signed(field::RECORD_COUNT, 32)?;
        let is_sound = len >= header::LEN as i128
            && len <= bytes.len() as i128
            && bytes[16] == 2
            && base_offset >= 0
            && last_delta >= 0
            && base_offset + last_delta < i128::from(i64::MAX)
            && count >= 0
            && (attributes & 7 == 0 || count == 0);
        if !is_sound {
            return None;
        }
        let mut at = header::LEN;
        let end = len as usize;
        let mut records = Vec::new();
        let mut next_delta = 0;
        for _ in 0..count {
            let body = slow_varint(bytes, &mut at, end, 5)?;
            let stop = at.checked_add(usize::try_from(body).ok()?).filter(|stop| *stop <= end)?;
            at += 1;
            let timestamp = slow_varint(bytes, &mut at, stop, 10)?;
            let delta = slow_varint(bytes, &mut at, stop, 5)?;
            if delta < next_delta || i128::from(delta) > last_delta {
                return None;
            }
            next_delta = delta + 1;
            let key = slow_bytes(bytes, &mut at, stop)?;
            let value = slow_bytes(bytes, &mut at, stop)?;
            let mut headers = Vec::new();
            for _ in 0..usize::try_from(slow_varint(bytes, &mut at, stop, 5)?).ok()? {
                let name = String::from_utf8(slow_bytes(bytes, &mut at, stop)??).ok()?;
                headers.push((name, slow_bytes(bytes, &mut at, stop)?));
            }
            if at != stop {
                return None;
            }
            let timestamp = if attributes & 8 != 0 {
                signed(field::MAX_TIMESTAMP, 64)? as i64
            } else {
                (base_timestamp as i64).wrapping_add(timestamp)
            };
            let offset = base_offset as i64 + delta;
            records.push((offset, timestamp, key, value, headers));
        }
        (at == end).then_some(records)
    }

    type SlowBytes = Option<Vec<u8>>;
    type SlowRecord = (i64, i64, SlowBytes, SlowBytes, Vec<(String, SlowBytes)>);

    fn slow_varint(bytes: &[u8], at: &mut usize, stop: usize, len_max: usize) -> Option<i64> {
        let mut raw = 0_u128;
        for index in 0..len_max {
            let byte = *bytes.get(*at).filter(|_| *at < stop)?;
            *at += 1;
            raw |= u128::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                let bits = if len_max == 5 { 32 } else { 64 };
                let magnitude = (raw >> 1) as i64;
                return (raw < 1 << bits).then_some(if raw & 1 == 1 {
                    !magnitude
                } else {
                    magnitude
                });
            }
        }
        None
    }

    #[allow(clippy::option_option, reason = "null and malformed differ")]
    fn slow_bytes(bytes: &[u8], at: &mut usize, stop: usize) -> Option<SlowBytes> {
        let len = slow_varint(bytes, at, stop, 5)?;
        if len == -1 {
            return Some(None);
        }
        let end = at.checked_add(usize::try_from(len).ok()?).filter(|end| *end <= stop)?;
        let taken = bytes[*at..end].to_vec();
        *at = end;
        Some(Some(taken))
    }

    fn read_fast(bytes: &[u8]) -> Option<Vec<SlowRecord>> {
        let header = header_at(bytes).ok()?;
        check_structure(&header, bytes).ok()?;
        let owned = |record: RawRecord<'_>| {
            let headers =
                record.headers.iter().map(|h| (h.key.into(), h.value.map(<[u8]>::to_vec)));
            let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
            (record.offset, record.timestamp_ms, key, value, headers.collect())
        };
        Some(Batch::verified(bytes)?.records().map(owned).collect())
    }

    prop_compose! {
        fn any_record()(
            key in prop::option::of(prop::collection::vec(any::<u8>(), 0..90)),
            value in prop::option::of(prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                // As often as not, records are of one size.
                Just(vec![7; 100]),
            ]),
            headers in prop::collection::vec(("[a-zö]{0,4}", prop::option::of(any::<[u8; 3]>())), 0..3),
            timestamp_ms in prop_oneof![Just(5_i64), any::<i64>()],
        ) -> (SlowBytes, SlowBytes, Vec<(String, Option<[u8; 3]>)>, i64) {
            (key, value, headers, timestamp_ms)
        }
    }

    proptest! {
        #![proptest_config(Config { cases: 300, failure_persistence: None, ..Config::default() })]

        /// The decoder that is in use and a slow one give the same answer to whatever bytes they are given,
        /// and a walk over what was refused ends, too.
        #[test]
        fn the_decoder_agrees_with_a_slow_one_on_whole_and_on_mutated_batches(
            records in prop::collection::vec(any_record(), 1..80),
            is_append_time in any::<bool>(),
            base_offset in prop_oneof![Just(0_i64), 0..i64::MAX / 2],
            mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in prop::option::of(any::<prop::sample::Index>()),
            passed in 0..100_usize,
        ) {
            let mut builder = BatchBuilder::default();
            for (key, value, headers, timestamp_ms) in &records {
                let record = Record::tombstone("").key_or_null(key.as_deref());
                let mut record = record.value_or_null(value.as_deref());
                for (name, value) in headers {
                    record = match value {
                        Some(value) => record.header(name, value),
                        None => record.null_header(name),
                    };
                }
                builder.push(&record, *timestamp_ms).unwrap();
            }
            let mut batch = builder.seal(if is_append_time {
                TimestampType::LogAppendTime
            } else {
                TimestampType::CreateTime
            });
            batch.stamp(base_offset, 0);
            let whole = batch.bytes().to_vec();
            let fast = read_fast(&whole);
            prop_assert_eq!(fast.as_ref().map(Vec::len), Some(records.len()));
            prop_assert_eq!(fast, read_slowly(&whole));

            let mut bytes = whole.clone();
            for (index, byte) in &mutations {
                // Most of a header's bytes decide alone; what is behind it is more interesting.
                let position = header::LEN - 4 + index.index(bytes.len() - header::LEN + 4);
                bytes[position] = *byte;
            }
            if let Some(cut) = cut {
                // The header says that this is all there is.
                let len = header::LEN + cut.index(bytes.len() - header::LEN);
                bytes.truncate(len);
                bytes[field::LENGTH].copy_from_slice(&(len as i32 - 12).to_be_bytes());
            }
            prop_assert_eq!(read_fast(&bytes), read_slowly(&bytes));

            if let Some(batch) = Batch::verified(&bytes) {
                // Nothing was checked of these records, and yet every walk stays inside and ends.
                let all = batch.records();
                let mut seen = 0;
                for record in all {
                    seen += 1;
                    prop_assert!(record.headers.iter().count() <= bytes.len());
                }
                prop_assert!(seen <= bytes.len());
                let mut behind = all;
                behind.pass(passed);
                prop_assert!(behind.bytes().len() <= all.bytes().len());
                let resumed = all.resumed(behind.left(), behind.bytes().len());
                prop_assert!(resumed.count() <= bytes.len());
                let mut from = all;
                from.pass_below(base_offset + passed as i64);
                prop_assert!(from.count() <= seen);
            }
            if let Some(records) = read_fast(&bytes) {
                // Passing over records by their lengths is passing over records.
                let mut behind = Batch::verified(&bytes).unwrap().records();
                behind.pass(passed);
                let offsets: Vec<i64> = behind.map(|record| record.offset).collect();
                let wanted: Vec<i64> = records.iter().skip(passed).map(|record| record.0).collect();
                prop_assert_eq!(offsets, wanted);
            }
        }
    }

    #[test]
    fn offsets_that_do_not_ascend_within_the_batch_are_refused() {
        let good = batch_of_three();
        let mut records = Batch::verify(&good).unwrap().records();
        records.pass(1);
        // The second record's offset delta lies behind its length, attributes and timestamp delta.
        let position = good.len() - records.bytes().len() + 3;
        assert_eq!(good[position], 0x02);
        for delta in [0x00, 0x01, 0x04, 0x06] {
            let mut bytes = good.clone();
            bytes[position] = delta;
            let header = header_at(&bytes).unwrap();
            assert!(check_structure(&header, &bytes).is_err(), "{delta}");
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
