//! LZ4 in its frame: blocks of up to 4 MiB, of which none depends on another.
//!
//! ```text
//! frame = magic u32 · flags u8 · block size u8 · [content size u64] · checksum u8 · block* · 0 u32 · [checksum u32]
//! block = length u32, the highest bit set if it is stored as it is · bytes · [checksum u32]
//! ```
//!
//! Integers are little-endian. Like Kafka's reader this one stops at the end of the first frame.

use std::io::Read;

use lz4_flex::block::CompressTable;
use lz4_flex::block::compress_into_with_table;
use lz4_flex::block::decompress_into;
use lz4_flex::block::get_maximum_output_size;
use lz4_flex::frame::FrameDecoder;

use super::CUT_OFF;
use super::Refused;
use super::Room;
use super::TOO_LONG;
use super::room_for;

pub(super) fn unpack(packed: &[u8], room: &mut Room<'_>) -> Result<(), Refused> {
    if let Some(blocks) = packed.strip_prefix(&USUAL) {
        return unpack_blocks(blocks, room);
    }
    // Older frames have other magics; Kafka reads none of them.
    if !packed.starts_with(&USUAL[..4]) {
        return Err("the compressed records are not LZ4's");
    }
    let mut frame = FrameDecoder::new(packed);
    let mut wanted = packed.len().saturating_mul(3);
    loop {
        match frame.read(room.spare(wanted)?) {
            Ok(0) => return Ok(()),
            Ok(written) => room.advance(written)?,
            Err(_) => return Err(DAMAGED),
        }
        wanted = room.written();
    }
}

/// Unpacks the blocks of a frame without checksums: the batch has one. Each goes where it is to be at once.
fn unpack_blocks(mut blocks: &[u8], room: &mut Room<'_>) -> Result<(), Refused> {
    loop {
        let (len, rest) = blocks.split_first_chunk::<4>().ok_or(CUT_OFF)?;
        let len = u32::from_le_bytes(*len);
        if len == 0 {
            return Ok(());
        }
        let is_stored = len & STORED != 0;
        let len = (len & !STORED) as usize;
        if len > BLOCK_LEN_MAX {
            return Err(DAMAGED);
        }
        let (block, behind) = rest.split_at_checked(len).ok_or(CUT_OFF)?;
        if is_stored {
            room.exactly(len)?.copy_from_slice(block);
            room.advance(len)?;
        } else {
            let spare = room.spare(BLOCK_LEN_MAX)?;
            let upto = spare.len().min(BLOCK_LEN_MAX);
            // What does not fit may be whole all the same.
            let refused = if upto < BLOCK_LEN_MAX { TOO_LONG } else { DAMAGED };
            let written = unpack_block(block, &mut spare[..upto]).ok_or(refused)?;
            room.advance(written)?;
        }
        blocks = behind;
    }
}

/// Not inlined, so that the crate's copies of fixed length are, and not called one by one.
#[inline(never)]
fn unpack_block(block: &[u8], into: &mut [u8]) -> Option<usize> {
    decompress_into(block, into).ok()
}

/// The table of a compression, used again and again.
#[derive(Default)]
pub(super) struct Packer {
    table: CompressTable,
}

impl Packer {
    /// Writes a frame as Kafka's clients do. There is one level: the fast one, which is Kafka's default.
    pub(super) fn pack(&mut self, records: &[u8], into: &mut Vec<u8>) -> Option<usize> {
        room_for(into, USUAL.len()).copy_from_slice(&USUAL);
        let mut end = USUAL.len();
        for block in records.chunks(BLOCK_LEN_MAX) {
            let start = end + 4;
            let target = &mut room_for(into, start + get_maximum_output_size(block.len()))[start..];
            let mut len = compress_into_with_table(block, target, &mut self.table).ok()?;
            let mut flag = 0;
            if len >= block.len() {
                len = block.len();
                target[..len].copy_from_slice(block);
                flag = STORED;
            }
            into[end..start].copy_from_slice(&(len as u32 | flag).to_le_bytes());
            end = start + len;
        }
        room_for(into, end + 4)[end..].copy_from_slice(&[0; 4]);
        Some(end + 4)
    }
}

/// How most frames begin: independent blocks of 64 KiB, neither checksums nor a content size.
const USUAL: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
const BLOCK_LEN_MAX: usize = 64 << 10;
const STORED: u32 = 1 << 31;
const DAMAGED: Refused = "the compressed records are damaged LZ4";
