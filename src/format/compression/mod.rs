//! Records as one compressed block, and back.
//!
//! Everything behind a batch's header is one stream of its codec; the header stays as it is, so offsets and the latest
//! timestamp are known without unpacking anything. A codec has a file of its own, which is there only if its feature
//! is; without it the codec still has its name.
//!
//! **Invariant (bounded unpacking).** What a batch says of its own size is never believed: room is made for what has
//! come out so far, doubled, and no batch comes out longer than the reader was told it may, or [`unpacked_len_max`]
//! if it was not told. A bomb is an error, and so is
//! whatever else a codec refuses. What comes out is checked like records that were never compressed.

#![cfg_attr(
    not(all(feature = "gzip", feature = "lz4", feature = "snappy", feature = "zstd")),
    allow(
        dead_code,
        unused_variables,
        unused_mut,
        reason = "each codec needs a part of what is here"
    )
)]

use std::fmt;

use crate::config::Compression;
use crate::format::decode;
use crate::format::decode::Batch;
use crate::format::decode::BatchFault;
use crate::format::header;
use crate::format::header::Attributes;
use crate::format::header::BatchHeader;

#[cfg(feature = "gzip")]
mod gzip;
#[cfg(feature = "lz4")]
mod lz4;
#[cfg(feature = "snappy")]
mod snappy;
#[cfg(test)]
mod tests;
#[cfg(feature = "zstd")]
mod zstandard;

/// How the records of a batch are compressed; the numbers are those of the attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

/// Unpacks batches. Keeps what the codecs need for the next one.
#[derive(Default)]
pub(crate) struct Unpacker {
    /// How long the records of a batch may be; `None` leaves it to how long they are packed.
    len_max: Option<usize>,
    #[cfg(feature = "gzip")]
    gzip: gzip::Unpacker,
    #[cfg(feature = "zstd")]
    zstd: zstandard::Unpacker,
}

/// Packs batches. Keeps what the codecs need for the next one.
#[derive(Default)]
pub(crate) struct Packer {
    #[cfg(feature = "gzip")]
    gzip: gzip::Packer,
    #[cfg(feature = "snappy")]
    snappy: snappy::Packer,
    #[cfg(feature = "lz4")]
    lz4: lz4::Packer,
    #[cfg(feature = "zstd")]
    zstd: zstandard::Packer,
    /// What was written last at its front, and behind that what was written before: room is not cleared for every
    /// batch.
    packed: Vec<u8>,
}

/// Batches that were unpacked, back to back. Each looks as if it had never been compressed, except that its checksum
/// is that of the packed one.
#[derive(Default)]
pub(crate) struct Unpacked {
    /// What lies behind `end` was written before and counts for nothing; it is there so that room is not cleared for
    /// every batch.
    bytes: Vec<u8>,
    end: usize,
}

impl std::fmt::Debug for Unpacked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, unpacked", self.end)
    }
}

/// Where a codec writes.
struct Room<'u> {
    bytes: &'u mut Vec<u8>,
    start: usize,
    end: usize,
    /// Nothing may be written from here on.
    limit: usize,
}

/// What a codec says of a stream that it cannot unpack.
type Refused = &'static str;

impl Codec {
    /// Gives the codec of a producer's or a topic's choice; `None` if that is none.
    pub(crate) fn chosen(compression: Compression) -> Option<Codec> {
        match compression {
            Compression::None => None,
            Compression::Gzip => Some(Codec::Gzip),
            Compression::Snappy => Some(Codec::Snappy),
            Compression::Lz4 => Some(Codec::Lz4),
            Compression::Zstd => Some(Codec::Zstd),
        }
    }

    /// Gives Kafka's default of how hard it tries.
    pub(crate) fn default_level(self) -> i32 {
        match self {
            Codec::Gzip => -1,
            Codec::Zstd => 3,
            Codec::Snappy | Codec::Lz4 => 0,
        }
    }

    /// Gives the codec of a batch; `None` if it is not compressed, or in a way that nobody knows.
    pub(crate) fn of(attributes: Attributes) -> Option<Codec> {
        match attributes.codec() {
            1 => Some(Codec::Gzip),
            2 => Some(Codec::Snappy),
            3 => Some(Codec::Lz4),
            4 => Some(Codec::Zstd),
            _ => None,
        }
    }
}

impl Unpacker {
    /// Refuses batches of which more than so many bytes come out.
    pub(crate) fn within(mut self, len_max: Option<usize>) -> Unpacker {
        self.len_max = len_max;
        self
    }

    /// As [`Batch::verify`], also of a compressed batch: its records are unpacked behind what is in `unpacked`.
    pub(crate) fn verify<'a>(
        &mut self,
        bytes: &'a [u8],
        unpacked: &'a mut Unpacked,
    ) -> Result<Batch<'a>, BatchFault> {
        match Batch::verify(bytes) {
            // Its checksum holds.
            Err(BatchFault::Compressed(codec)) => {
                let packed = decode::header_at(bytes).map_err(BatchFault::Header)?;
                let start = unpacked.len();
                self.unpack(&packed, bytes, unpacked)?;
                let bytes = &unpacked.bytes()[start..];
                let header = decode::header_at(bytes).map_err(BatchFault::Header)?;
                decode::check_structure(&header, bytes)?;
                Batch::verified(bytes).ok_or(BatchFault::Compressed(codec))
            }
            other => other,
        }
    }

    /// Unpacks the batch at the front of `bytes`, whose header was checked, behind what is there already. Its records
    /// are still to be checked.
    ///
    /// # Errors
    ///
    /// * [`BatchFault::Compressed`] if this build does not have the codec; [`BatchFault::Record`] if the stream is
    ///   damaged or too long. Nothing was added.
    pub(crate) fn unpack(
        &mut self,
        header: &BatchHeader,
        bytes: &[u8],
        into: &mut Unpacked,
    ) -> Result<(), BatchFault> {
        let name = header.attributes.compression().unwrap_or("none");
        let packed = &bytes[header::LEN..header.len()];
        let records_start = into.end + header::LEN;
        let len_max = self.len_max.map_or_else(
            || unpacked_len_max(packed.len()),
            |len_max| len_max.min(UNPACKED_LEN_LIMIT),
        );
        let mut room = Room {
            limit: records_start.saturating_add(len_max),
            bytes: &mut into.bytes,
            start: records_start,
            end: records_start,
        };
        let unpacked = match Codec::of(header.attributes) {
            #[cfg(feature = "gzip")]
            Some(Codec::Gzip) => self.gzip.unpack(packed, &mut room),
            #[cfg(feature = "snappy")]
            Some(Codec::Snappy) => snappy::unpack(packed, &mut room),
            #[cfg(feature = "lz4")]
            Some(Codec::Lz4) => lz4::unpack(packed, &mut room),
            #[cfg(feature = "zstd")]
            Some(Codec::Zstd) => self.zstd.unpack(packed, &mut room),
            #[allow(
                unreachable_patterns,
                reason = "with all features only unknown codecs are left"
            )]
            _ => Err(ABSENT),
        };
        unpacked.map_err(|refused| match refused {
            ABSENT => BatchFault::Compressed(name),
            refused => BatchFault::Record(refused),
        })?;
        let end = room.end;
        room.reserve_upto(end).map_err(BatchFault::Record)?;
        let plain = BatchHeader {
            length: (header::LEN + end - records_start - header::LENGTH_EXCLUDES) as i32,
            attributes: header.attributes.without_codec(),
            ..*header
        };
        let front = into.bytes[into.end..].first_chunk_mut();
        plain.write(front.expect("room was made behind it"));
        into.end = end;
        Ok(())
    }
}

impl Packer {
    /// Packs records at a level of the codec's own; gives `None` if that does not make them shorter, if the reader
    /// would take them for a bomb, or if this build does not have the codec.
    pub(crate) fn pack(&mut self, codec: Codec, level: i32, records: &[u8]) -> Option<&[u8]> {
        let packed = &mut self.packed;
        if packed.capacity() > BUFFER_KEPT {
            *packed = Vec::new();
        }
        let written = match codec {
            #[cfg(feature = "gzip")]
            Codec::Gzip => self.gzip.pack(level, records, packed),
            #[cfg(feature = "snappy")]
            Codec::Snappy => self.snappy.pack(records, packed),
            #[cfg(feature = "lz4")]
            Codec::Lz4 => self.lz4.pack(records, packed),
            #[cfg(feature = "zstd")]
            Codec::Zstd => self.zstd.pack(level, records, packed),
            #[allow(unreachable_patterns, reason = "with all features none is left")]
            _ => None,
        };
        let packed = &self.packed[..written?];
        let pays = packed.len() < records.len();
        (pays && records.len() <= unpacked_len_max(packed.len())).then_some(packed)
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

impl Unpacked {
    /// Forgets the batches; keeps the memory unless it is more than is usual.
    pub(crate) fn clear(&mut self) {
        self.end = 0;
        if self.bytes.len() > BUFFER_KEPT {
            self.bytes = Vec::new();
        }
    }

    /// Gives the batches.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.end]
    }

    pub(crate) fn len(&self) -> usize {
        self.end
    }

    /// Forgets what lies behind the first `len` bytes.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.end = self.end.min(len);
    }
}

impl Room<'_> {
    /// Gives room to go on writing in: `wanted` bytes or more if there may be so much, at least one.
    ///
    /// # Errors
    ///
    /// * As much was written as may be.
    fn spare(&mut self, wanted: usize) -> Result<&mut [u8], Refused> {
        // One more than may be written, so that what fits exactly can be seen to end.
        let wanted = wanted.clamp(1, (self.limit + 1).saturating_sub(self.end).max(1));
        self.reserve_upto(self.end + wanted)?;
        let upto = self.bytes.len().min(self.limit + 1);
        Ok(&mut self.bytes[self.end..upto])
    }

    /// Gives room for exactly `len` bytes.
    ///
    /// # Errors
    ///
    /// * So much may not be written.
    fn exactly(&mut self, len: usize) -> Result<&mut [u8], Refused> {
        if len > self.limit - self.end {
            return Err(TOO_LONG);
        }
        self.reserve_upto(self.end + len)?;
        Ok(&mut self.bytes[self.end..self.end + len])
    }

    /// Counts bytes that were written.
    fn advance(&mut self, len: usize) -> Result<(), Refused> {
        self.end += len;
        if self.end > self.limit { Err(TOO_LONG) } else { Ok(()) }
    }

    /// Gives how much was written.
    fn written(&self) -> usize {
        self.end - self.start
    }

    fn reserve_upto(&mut self, end: usize) -> Result<(), Refused> {
        if end > self.limit + 1 {
            return Err(TOO_LONG);
        }
        if self.bytes.len() < end {
            let doubled = (2 * self.bytes.len()).min(self.limit + 1);
            self.bytes.resize(end.max(doubled).max(GROWN_MIN), 0);
        }
        Ok(())
    }
}

/// Gives the first `len` bytes, made if they are not there, whatever is in them.
fn room_for(bytes: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if bytes.len() < len {
        bytes.resize(len.max(2 * bytes.len()), 0);
    }
    &mut bytes[..len]
}

/// Gives how long the records of a batch may be that take `packed_len` bytes when they are compressed.
///
/// Kafka's limits are on what is stored. A megabyte of them that unpacks to more than a hundred times as much is
/// taken for an attack on the reader's memory.
pub(crate) fn unpacked_len_max(packed_len: usize) -> usize {
    packed_len.saturating_mul(8).clamp(UNPACKED_LEN_MAX, UNPACKED_LEN_LIMIT)
}

/// A batch's length is 32-bit.
const UNPACKED_LEN_LIMIT: usize = i32::MAX as usize - (1 << 10);

const UNPACKED_LEN_MAX: usize = 128 << 20;
const TOO_LONG: Refused = "the compressed records are longer than may be";
const ABSENT: Refused = "the codec is not compiled in";
const CUT_OFF: Refused = "the compressed records are cut off";

/// A buffer that once held huge batches does not hold on to its memory.
const BUFFER_KEPT: usize = 2 << 20;
/// The room that is made when there is none.
const GROWN_MIN: usize = 4 << 10;
