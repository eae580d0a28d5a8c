//! Zstandard: frames of RFC 8878, back to back.

use zstd::zstd_safe;
use zstd::zstd_safe::CCtx;
use zstd::zstd_safe::CParameter;
use zstd::zstd_safe::DCtx;
use zstd::zstd_safe::DParameter;
use zstd::zstd_safe::InBuffer;
use zstd::zstd_safe::OutBuffer;

use super::CUT_OFF;
use super::Refused;
use super::Room;

/// The state of a decompression, used again and again.
#[derive(Default)]
pub(super) struct Unpacker {
    context: Option<DCtx<'static>>,
}

impl Unpacker {
    pub(super) fn unpack(&mut self, packed: &[u8], room: &mut Room<'_>) -> Result<(), Refused> {
        // The frames' blocks tell how long they can be at most. If that is little, it all goes where it is to be, and
        // no window is needed.
        match zstd_safe::decompress_bound(packed) {
            Ok(bound) if bound <= AT_ONCE_MAX => {
                let context = match &mut self.context {
                    Some(context) => context,
                    none => none.insert(DCtx::try_create().ok_or(NO_MEMORY)?),
                };
                let spare = room.exactly(bound as usize)?;
                let written = context.decompress(spare, packed).map_err(|_| DAMAGED)?;
                room.advance(written)
            }
            Ok(_) => stream(packed, room),
            Err(_) => Err(DAMAGED),
        }
    }
}

/// The state of a compression, used again and again.
#[derive(Default)]
pub(super) struct Packer {
    context: Option<CCtx<'static>>,
}

impl Packer {
    /// Writes one frame.
    pub(super) fn pack(&mut self, level: i32, records: &[u8], into: &mut Vec<u8>) -> Option<usize> {
        let context = match &mut self.context {
            Some(context) => context,
            none => none.insert(CCtx::try_create()?),
        };
        context.set_parameter(CParameter::CompressionLevel(level)).ok()?;
        into.clear();
        into.reserve(zstd_safe::compress_bound(records.len()));
        context.compress2(into, records).ok()
    }
}

/// Unpacks piece by piece, through a window that is given back afterwards.
pub(super) fn stream(packed: &[u8], room: &mut Room<'_>) -> Result<(), Refused> {
    let mut context = DCtx::try_create().ok_or(NO_MEMORY)?;
    context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(|_| NO_MEMORY)?;
    let mut input = InBuffer::around(packed);
    let mut wanted = packed.len().saturating_mul(3);
    loop {
        let (before, written, left) = {
            let before = input.pos();
            let mut output = OutBuffer::around(room.spare(wanted)?);
            let left = context.decompress_stream(&mut output, &mut input).map_err(|_| DAMAGED)?;
            (before, output.pos(), left)
        };
        room.advance(written)?;
        // A frame has ended, and nothing is behind it.
        if left == 0 && input.pos() == packed.len() {
            return Ok(());
        }
        if written == 0 && input.pos() == before {
            return Err(CUT_OFF);
        }
        wanted = room.written();
    }
}

/// What is this long at most is unpacked at once.
const AT_ONCE_MAX: u64 = 8 << 20;
/// What Kafka's reader allows, and its highest level needs: 128 MiB.
const WINDOW_LOG_MAX: u32 = 27;
const NO_MEMORY: Refused = "no memory to unpack Zstandard";
const DAMAGED: Refused = "the compressed records are damaged Zstandard";
