//! The 61 bytes in front of every batch: field positions once, read and written side by side.

use std::ops::Range;

/// The first 61 bytes of a batch, decoded. `base_offset` and `leader_epoch` lie outside the checksum:
/// the log assigns them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) base_offset: i64,
    /// Bytes behind the length field; 12 less than the whole batch.
    pub(crate) length: i32,
    pub(crate) leader_epoch: i32,
    pub(crate) magic: i8,
    pub(crate) checksum: u32,
    pub(crate) attributes: Attributes,
    pub(crate) last_offset_delta: i32,
    pub(crate) base_timestamp_ms: i64,
    pub(crate) max_timestamp_ms: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) record_count: i32,
}

/// The first 61 bytes of a batch where they lie: each field is read when it is asked for, and believed by nobody
/// before [`BatchHeader::check`] was.
#[derive(Clone, Copy)]
pub(crate) struct Front<'a>(&'a [u8; LEN]);

impl<'a> Front<'a> {
    /// Gives the front of the batch at the front of `bytes`; `None` if it is cut off.
    #[inline]
    pub(crate) fn at(bytes: &'a [u8]) -> Option<Front<'a>> {
        bytes.first_chunk().map(Front)
    }

    #[inline]
    pub(crate) fn base_offset(self) -> i64 {
        i64::from_be_bytes(at(self.0, field::BASE_OFFSET))
    }

    #[inline]
    pub(crate) fn length(self) -> i32 {
        i32::from_be_bytes(at(self.0, field::LENGTH))
    }

    #[inline]
    pub(crate) fn leader_epoch(self) -> i32 {
        i32::from_be_bytes(at(self.0, field::LEADER_EPOCH))
    }

    #[inline]
    pub(crate) fn magic(self) -> i8 {
        i8::from_be_bytes(at(self.0, field::MAGIC))
    }

    #[inline]
    pub(crate) fn checksum(self) -> u32 {
        u32::from_be_bytes(at(self.0, field::CHECKSUM))
    }

    #[inline]
    pub(crate) fn attributes(self) -> Attributes {
        Attributes(i16::from_be_bytes(at(self.0, field::ATTRIBUTES)))
    }

    #[inline]
    pub(crate) fn last_offset_delta(self) -> i32 {
        i32::from_be_bytes(at(self.0, field::LAST_OFFSET_DELTA))
    }

    #[inline]
    pub(crate) fn base_timestamp_ms(self) -> i64 {
        i64::from_be_bytes(at(self.0, field::BASE_TIMESTAMP))
    }

    #[inline]
    pub(crate) fn max_timestamp_ms(self) -> i64 {
        i64::from_be_bytes(at(self.0, field::MAX_TIMESTAMP))
    }

    #[inline]
    pub(crate) fn record_count(self) -> i32 {
        i32::from_be_bytes(at(self.0, field::RECORD_COUNT))
    }

    /// As [`BatchHeader::is_dense`].
    #[inline]
    pub(crate) fn is_dense(self) -> bool {
        self.record_count() == self.last_offset_delta().wrapping_add(1)
    }

    /// Gives the size of the whole batch in bytes; `None` if it cannot be one.
    #[inline]
    pub(crate) fn len(self) -> Option<usize> {
        let length = self.length();
        // Not before it is known to be positive.
        (length >= LENGTH_MIN).then(|| length as usize + LENGTH_EXCLUDES)
    }
}

impl Default for Front<'_> {
    fn default() -> Self {
        Front(&[0; LEN])
    }
}

impl std::fmt::Debug for Front<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        BatchHeader::read(self.0).fmt(f)
    }
}

impl BatchHeader {
    #[inline]
    pub(crate) fn read(bytes: &[u8; LEN]) -> BatchHeader {
        let front = Front(bytes);
        BatchHeader {
            base_offset: front.base_offset(),
            length: front.length(),
            leader_epoch: front.leader_epoch(),
            magic: front.magic(),
            checksum: front.checksum(),
            attributes: front.attributes(),
            last_offset_delta: front.last_offset_delta(),
            base_timestamp_ms: front.base_timestamp_ms(),
            max_timestamp_ms: front.max_timestamp_ms(),
            producer_id: i64::from_be_bytes(at(bytes, field::PRODUCER_ID)),
            producer_epoch: i16::from_be_bytes(at(bytes, field::PRODUCER_EPOCH)),
            base_sequence: i32::from_be_bytes(at(bytes, field::BASE_SEQUENCE)),
            record_count: front.record_count(),
        }
    }

    pub(crate) fn write(&self, bytes: &mut [u8; LEN]) {
        bytes[field::BASE_OFFSET].copy_from_slice(&self.base_offset.to_be_bytes());
        bytes[field::LENGTH].copy_from_slice(&self.length.to_be_bytes());
        bytes[field::LEADER_EPOCH].copy_from_slice(&self.leader_epoch.to_be_bytes());
        bytes[field::MAGIC].copy_from_slice(&self.magic.to_be_bytes());
        bytes[field::CHECKSUM].copy_from_slice(&self.checksum.to_be_bytes());
        bytes[field::ATTRIBUTES].copy_from_slice(&self.attributes.0.to_be_bytes());
        bytes[field::LAST_OFFSET_DELTA].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        bytes[field::BASE_TIMESTAMP].copy_from_slice(&self.base_timestamp_ms.to_be_bytes());
        bytes[field::MAX_TIMESTAMP].copy_from_slice(&self.max_timestamp_ms.to_be_bytes());
        bytes[field::PRODUCER_ID].copy_from_slice(&self.producer_id.to_be_bytes());
        bytes[field::PRODUCER_EPOCH].copy_from_slice(&self.producer_epoch.to_be_bytes());
        bytes[field::BASE_SEQUENCE].copy_from_slice(&self.base_sequence.to_be_bytes());
        bytes[field::RECORD_COUNT].copy_from_slice(&self.record_count.to_be_bytes());
    }

    /// Checks what must hold of every header before any of it is believed, `available` being the
    /// bytes from its start to the end of what there is.
    #[inline]
    pub(crate) fn check(&self, available: u64) -> Result<(), HeaderFault> {
        if self.length < LENGTH_MIN {
            return Err(HeaderFault::Length);
        }
        if self.magic != MAGIC {
            return Err(HeaderFault::Magic);
        }
        if self.len() as u64 > available {
            return Err(HeaderFault::CutOff);
        }
        let last = self.base_offset.checked_add(i64::from(self.last_offset_delta));
        if self.base_offset < 0 || self.last_offset_delta < 0 || last.is_none_or(|l| l == i64::MAX)
        {
            return Err(HeaderFault::Offsets);
        }
        if self.record_count < 0 {
            return Err(HeaderFault::Count);
        }
        Ok(())
    }

    /// Gives the size of the whole batch in bytes; meaningful once [`check`](Self::check) passed.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.length as usize + LENGTH_EXCLUDES
    }

    /// Gives the offset of the batch's last record; meaningful once [`check`](Self::check) passed.
    #[inline]
    pub(crate) fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// Tells whether every offset from the first to the last has a record, in a batch whose offsets ascend.
    #[inline]
    pub(crate) fn is_dense(&self) -> bool {
        self.record_count == self.last_offset_delta.wrapping_add(1)
    }

    /// Tells whether there are records that must be unpacked. Kafka's compaction leaves empty batches without payload,
    /// whatever their codec was.
    #[inline]
    pub(crate) fn is_packed(&self) -> bool {
        self.attributes.codec() != 0 && self.record_count > 0
    }

    pub(crate) fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return self.base_sequence;
        }
        let sequence = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (sequence % (i64::from(i32::MAX) + 1)) as i32
    }
}

/// Why a header cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Length,
    Magic,
    CutOff,
    Offsets,
    Count,
}

impl HeaderFault {
    pub(crate) fn text(self) -> &'static str {
        match self {
            HeaderFault::Length => "impossible batch length",
            HeaderFault::Magic => "not a version 2 record batch",
            HeaderFault::CutOff => "the batch is cut off",
            HeaderFault::Offsets => "impossible batch offsets",
            HeaderFault::Count => "negative record count",
        }
    }
}

/// The attribute bits of a batch; unused ones are ignored on read and written as 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes(pub(crate) i16);

impl Attributes {
    const CODEC: i16 = 0b111;
    pub(crate) const LOG_APPEND_TIME: i16 = 1 << 3;
    const TRANSACTIONAL: i16 = 1 << 4;
    const CONTROL: i16 = 1 << 5;
    const DELETE_HORIZON: i16 = 1 << 6;

    /// Gives the name of the codec, `None` if the records are not compressed.
    #[inline]
    pub(crate) fn compression(self) -> Option<&'static str> {
        match self.codec() {
            0 => None,
            1 => Some("gzip"),
            2 => Some("snappy"),
            3 => Some("lz4"),
            4 => Some("zstd"),
            _ => Some("an unknown codec"),
        }
    }

    /// Gives the number of the codec, 0 if the records are not compressed.
    #[inline]
    pub(crate) fn codec(self) -> u8 {
        (self.0 & Self::CODEC) as u8
    }

    /// Gives the attributes of the same batch with its records unpacked.
    pub(crate) fn without_codec(self) -> Attributes {
        Attributes(self.0 & !Self::CODEC)
    }

    /// Gives the attributes of the same batch with its records packed.
    pub(crate) fn with_codec(self, codec: u8) -> Attributes {
        Attributes(self.0 & !Self::CODEC | i16::from(codec) & Self::CODEC)
    }

    /// Tells whether the records lie there as they are, and are for readers.
    #[inline]
    pub(crate) fn is_plain(self) -> bool {
        self.0 & (Self::CODEC | Self::CONTROL) == 0
    }

    #[inline]
    pub(crate) fn is_log_append_time(self) -> bool {
        self.0 & Self::LOG_APPEND_TIME != 0
    }

    pub(crate) fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    #[inline]
    pub(crate) fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Gives what a batch carries whose records were encoded anew: it is not compressed, and bits without a
    /// meaning are gone.
    pub(crate) fn rewritten(self, has_delete_horizon: bool) -> Attributes {
        let kept = Self::LOG_APPEND_TIME | Self::TRANSACTIONAL | Self::CONTROL;
        let horizon = if has_delete_horizon { Self::DELETE_HORIZON } else { 0 };
        Attributes(self.0 & kept | horizon)
    }

    pub(crate) fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }
}

/// Where each field lies.
pub(crate) mod field {
    use super::Range;

    pub(crate) const BASE_OFFSET: Range<usize> = 0..8;
    pub(crate) const LENGTH: Range<usize> = 8..12;
    pub(crate) const LEADER_EPOCH: Range<usize> = 12..16;
    pub(crate) const MAGIC: Range<usize> = 16..17;
    pub(crate) const CHECKSUM: Range<usize> = 17..21;
    pub(crate) const ATTRIBUTES: Range<usize> = 21..23;
    pub(crate) const LAST_OFFSET_DELTA: Range<usize> = 23..27;
    pub(crate) const BASE_TIMESTAMP: Range<usize> = 27..35;
    pub(crate) const MAX_TIMESTAMP: Range<usize> = 35..43;
    pub(crate) const PRODUCER_ID: Range<usize> = 43..51;
    pub(crate) const PRODUCER_EPOCH: Range<usize> = 51..53;
    pub(crate) const BASE_SEQUENCE: Range<usize> = 53..57;
    pub(crate) const RECORD_COUNT: Range<usize> = 57..61;
}

/// The size of a header.
pub(crate) const LEN: usize = 61;
/// The only batch version written and read: 2, since Kafka 0.11.
pub(crate) const MAGIC: i8 = 2;
/// The base offset and the length field itself are not counted by the length field.
pub(crate) const LENGTH_EXCLUDES: usize = field::LENGTH.end;
/// What the log assigns, and the length between: a batch's first bytes, none of them under its checksum.
pub(crate) const FRONT_LEN: usize = field::LEADER_EPOCH.end;
const LENGTH_MIN: i32 = (LEN - LENGTH_EXCLUDES) as i32;

const _: () = assert!(field::RECORD_COUNT.end == LEN);
const _: () = assert!(field::LENGTH.end == field::LEADER_EPOCH.start);
const _: () = assert!(field::CHECKSUM.end == field::ATTRIBUTES.start);

#[inline]
fn at<const N: usize>(bytes: &[u8; LEN], range: Range<usize>) -> [u8; N] {
    bytes[range].try_into().expect("every field constant has the width of its type")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> BatchHeader {
        BatchHeader {
            base_offset: 0x0102_0304_0506_0708,
            length: 88,
            leader_epoch: 7,
            magic: 2,
            checksum: 0x94c2_a565,
            attributes: Attributes(0x30),
            last_offset_delta: 2,
            base_timestamp_ms: 1_700_000_000_000,
            max_timestamp_ms: 1_700_000_000_005,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: 3,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = [0; LEN];
        header().write(&mut bytes);
        assert_eq!(BatchHeader::read(&bytes), header());
        assert_eq!(&bytes[..8], &[1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn impossible_headers_are_named() {
        let faulty = |change: fn(&mut BatchHeader)| {
            let mut header = header();
            change(&mut header);
            header.check(100).unwrap_err()
        };
        assert_eq!(header().check(100), Ok(()));
        assert_eq!(header().check(99), Err(HeaderFault::CutOff));
        assert_eq!(faulty(|h| h.length = 48), HeaderFault::Length);
        assert_eq!(faulty(|h| h.length = -1), HeaderFault::Length);
        assert_eq!(faulty(|h| h.length = i32::MAX), HeaderFault::CutOff);
        assert_eq!(faulty(|h| h.magic = 3), HeaderFault::Magic);
        assert_eq!(faulty(|h| h.base_offset = -1), HeaderFault::Offsets);
        assert_eq!(faulty(|h| h.base_offset = i64::MAX - 2), HeaderFault::Offsets);
        assert_eq!(faulty(|h| h.last_offset_delta = -1), HeaderFault::Offsets);
        assert_eq!(faulty(|h| h.record_count = -1), HeaderFault::Count);
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let header = BatchHeader { base_sequence: i32::MAX, last_offset_delta: 1, ..header() };
        assert_eq!(header.last_sequence(), 0);
    }
}
