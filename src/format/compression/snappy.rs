//! Snappy: bare, or in the frame that its Java library puts around it.
//!
//! ```text
//! framed = 82 "SNAPPY" 00 · version i32 · compatible version i32 · (length i32 · block)*
//! bare   = block
//! block  = length uvarint · literals and copies
//! ```
//!
//! Java's clients write the frame with blocks of 32 KiB, others a single bare block. The frame's integers are
//! big-endian.

use snap::raw::Decoder;
use snap::raw::Encoder;
use snap::raw::decompress_len;
use snap::raw::max_compress_len;

use super::CUT_OFF;
use super::Refused;
use super::Room;
use super::room_for;

pub(super) fn unpack(packed: &[u8], room: &mut Room<'_>) -> Result<(), Refused> {
    let Some(mut blocks) = packed.strip_prefix(MAGIC) else {
        return unpack_block(packed, room);
    };
    blocks = blocks.get(VERSIONS.len()..).ok_or(CUT_OFF)?;
    while !blocks.is_empty() {
        let (len, rest) = blocks.split_first_chunk::<4>().ok_or(CUT_OFF)?;
        // Streams that were joined carry the frame's beginning again.
        if let Some(rest) = blocks.strip_prefix(MAGIC) {
            blocks = rest.get(VERSIONS.len()..).ok_or(CUT_OFF)?;
            continue;
        }
        let len = u32::from_be_bytes(*len) as usize;
        let (block, behind) = rest.split_at_checked(len).ok_or(CUT_OFF)?;
        unpack_block(block, room)?;
        blocks = behind;
    }
    Ok(())
}

/// The tables of a compression, used again and again.
#[derive(Default)]
pub(super) struct Packer {
    encoder: Option<Encoder>,
}

impl Packer {
    /// Writes the frame of Java's clients.
    pub(super) fn pack(&mut self, records: &[u8], into: &mut Vec<u8>) -> Option<usize> {
        let encoder = self.encoder.get_or_insert_with(Encoder::new);
        let mut end = MAGIC.len() + VERSIONS.len();
        let (magic, versions) = room_for(into, end).split_at_mut(MAGIC.len());
        magic.copy_from_slice(MAGIC);
        versions.copy_from_slice(&VERSIONS);
        for block in records.chunks(BLOCK_LEN) {
            let start = end + 4;
            let target = &mut room_for(into, start + max_compress_len(block.len()))[start..];
            let len = encoder.compress(block, target).ok()?;
            into[end..start].copy_from_slice(&(len as u32).to_be_bytes());
            end = start + len;
        }
        Some(end)
    }
}

fn unpack_block(block: &[u8], room: &mut Room<'_>) -> Result<(), Refused> {
    let len = decompress_len(block).map_err(|_| DAMAGED)?;
    // Three bytes make sixty-four at most: what claims more is a lie, and no room is made for it.
    if len / 32 > block.len() {
        return Err(DAMAGED);
    }
    let written = Decoder::new().decompress(block, room.exactly(len)?).map_err(|_| DAMAGED)?;
    room.advance(written)
}

const MAGIC: &[u8] = b"\x82SNAPPY\0";
const VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
/// What Java's clients put into a block.
const BLOCK_LEN: usize = 32 << 10;
const DAMAGED: Refused = "the compressed records are damaged Snappy";
