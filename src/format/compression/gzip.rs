//! gzip: members of RFC 1952, back to back.

use flate2::Compress;
use flate2::Compression;
use flate2::Crc;
use flate2::Decompress;
use flate2::FlushCompress;
use flate2::FlushDecompress;
use flate2::Status;

use super::CUT_OFF;
use super::Refused;
use super::Room;

/// The state of an inflation, used again and again.
#[derive(Default)]
pub(super) struct Unpacker {
    inflate: Option<Decompress>,
}

impl Unpacker {
    /// Unpacks one member after the other. Like Java's reader it ends where no other member begins, whatever lies
    /// there.
    pub(super) fn unpack(&mut self, mut packed: &[u8], room: &mut Room<'_>) -> Result<(), Refused> {
        loop {
            let body = skip_header(packed).ok_or("the compressed records are not gzip's")?;
            packed = self.inflate_member(body, room)?;
            if !packed.starts_with(&MAGIC) {
                return Ok(());
            }
        }
    }

    /// Unpacks one member from behind its header on; gives what lies behind it.
    fn inflate_member<'p>(
        &mut self,
        packed: &'p [u8],
        room: &mut Room<'_>,
    ) -> Result<&'p [u8], Refused> {
        let inflate = self.inflate.get_or_insert_with(|| Decompress::new(false));
        inflate.reset(false);
        let start = room.end;
        let mut wanted = packed.len().saturating_mul(3);
        loop {
            let (taken, given) = (inflate.total_in() as usize, inflate.total_out());
            let rest = packed.get(taken..).unwrap_or_default();
            let status = inflate
                .decompress(rest, room.spare(wanted)?, FlushDecompress::None)
                .map_err(|_| DAMAGED)?;
            let written = (inflate.total_out() - given) as usize;
            room.advance(written)?;
            match status {
                Status::StreamEnd => break,
                // There was room, and yet it got no further: there is no more of it.
                Status::BufError => return Err(CUT_OFF),
                Status::Ok if written == 0 && inflate.total_in() as usize == taken => {
                    return Err(CUT_OFF);
                }
                Status::Ok => wanted = room.written().max(1),
            }
        }
        let behind = packed.get(inflate.total_in() as usize..).unwrap_or_default();
        let (trailer, behind) = behind.split_first_chunk::<8>().ok_or(CUT_OFF)?;
        let unpacked = &room.bytes[start..room.end];
        let mut checksum = Crc::new();
        checksum.update(unpacked);
        let mut stated = [0; 8];
        stated[..4].copy_from_slice(&checksum.sum().to_le_bytes());
        stated[4..].copy_from_slice(&(unpacked.len() as u32).to_le_bytes());
        if *trailer == stated { Ok(behind) } else { Err(DAMAGED) }
    }
}

/// The state of a deflation, used again and again, and its level.
#[derive(Default)]
pub(super) struct Packer {
    deflate: Option<(i32, Compress)>,
}

impl Packer {
    /// Writes one member; −1 stands for the level that zlib thinks best.
    pub(super) fn pack(&mut self, level: i32, records: &[u8], into: &mut Vec<u8>) -> Option<usize> {
        let deflate = match &mut self.deflate {
            Some((known, deflate)) if *known == level => {
                deflate.reset();
                deflate
            }
            other => {
                let strength =
                    u32::try_from(level).map_or_else(|_| Compression::default(), Compression::new);
                &mut other.insert((level, Compress::new(strength, false))).1
            }
        };
        into.clear();
        into.extend_from_slice(&MAGIC);
        into.extend_from_slice(&[0; 7]);
        // What does not fit into as much as there was does not pay.
        into.reserve(records.len());
        match deflate.compress_vec(records, into, FlushCompress::Finish) {
            Ok(Status::StreamEnd) => {}
            _ => return None,
        }
        let mut checksum = Crc::new();
        checksum.update(records);
        into.extend_from_slice(&checksum.sum().to_le_bytes());
        into.extend_from_slice(&(records.len() as u32).to_le_bytes());
        Some(into.len())
    }
}

/// Gives what lies behind a member's header.
fn skip_header(packed: &[u8]) -> Option<&[u8]> {
    let (fixed, mut rest) = packed.split_first_chunk::<10>()?;
    let flags = fixed[3];
    if !fixed.starts_with(&MAGIC) || flags & RESERVED != 0 {
        return None;
    }
    if flags & EXTRA != 0 {
        let (len, behind) = rest.split_first_chunk::<2>()?;
        rest = behind.get(usize::from(u16::from_le_bytes(*len))..)?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let end = rest.iter().position(|byte| *byte == 0)?;
            rest = &rest[end + 1..];
        }
    }
    if flags & HEADER_CHECKSUM != 0 {
        rest = rest.get(2..)?;
    }
    Some(rest)
}

/// The two bytes that every member begins with, and the only method there is.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
const HEADER_CHECKSUM: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

const DAMAGED: Refused = "the compressed records are damaged gzip";
