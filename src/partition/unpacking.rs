//! Where records lie that were read: in a segment's mapping, or in memory of their own once they were unpacked.
//!
//! A reader keeps the buffers it unpacked into and takes them again as soon as nobody holds the records any more, so
//! that reading on and on allocates nothing.

use std::ops::Range;
use std::sync::Arc;

use crate::format::compression::Unpacked;
use crate::format::compression::Unpacker;
use crate::storage::map::View;

/// Bytes that records are borrowed from; they do not change as long as they are held.
#[derive(Clone, Debug)]
pub(crate) enum Memory {
    Mapped(View),
    Unpacked(Arc<Unpacked>),
}

/// What a reader unpacks batches with.
#[derive(Debug, Default)]
pub(crate) struct Unpacking {
    pub(crate) unpacker: Unpacker,
    /// Buffers that were handed out; whoever is the only holder of one may use it again.
    buffers: Vec<Arc<Unpacked>>,
}

impl Memory {
    #[inline]
    pub(crate) fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        match self {
            Memory::Mapped(view) => view.bytes(range),
            Memory::Unpacked(unpacked) => unpacked.bytes().get(range),
        }
    }

    /// Tells where bytes lie that were borrowed from this.
    #[inline]
    pub(crate) fn range_of(&self, bytes: &[u8]) -> Range<usize> {
        match self {
            Memory::Mapped(view) => view.range_of(bytes),
            Memory::Unpacked(unpacked) => {
                let start = unpacked.bytes().as_ptr() as usize;
                let at = (bytes.as_ptr() as usize).wrapping_sub(start);
                at..at.wrapping_add(bytes.len())
            }
        }
    }
}

impl Unpacking {
    /// Makes one that refuses batches of which more than so many bytes come out.
    pub(crate) fn within(len_max: Option<usize>) -> Unpacking {
        Unpacking { unpacker: Unpacker::default().within(len_max), ..Unpacking::default() }
    }

    /// Gives an empty buffer that nobody else holds.
    pub(crate) fn take(&mut self) -> Unpacked {
        let free = self.buffers.iter().position(|buffer| Arc::strong_count(buffer) == 1);
        let buffer = free.map(|index| self.buffers.swap_remove(index));
        let mut buffer = buffer.and_then(Arc::into_inner).unwrap_or_default();
        buffer.clear();
        buffer
    }

    /// Takes a buffer back for use again.
    pub(crate) fn put_back(&mut self, buffer: Unpacked) {
        self.keep(&Arc::new(buffer));
    }

    /// Gives a filled buffer to those who read, and notes it for use again.
    pub(crate) fn hand_out(&mut self, buffer: Unpacked) -> Arc<Unpacked> {
        let buffer = Arc::new(buffer);
        self.keep(&buffer);
        buffer
    }

    fn keep(&mut self, buffer: &Arc<Unpacked>) {
        if self.buffers.len() == BUFFERS_MAX {
            // Those who hold the oldest one keep it, but it is not used again.
            self.buffers.remove(0);
        }
        self.buffers.push(Arc::clone(buffer));
    }
}

/// A reader that became quiet does not keep more buffers than this.
const BUFFERS_MAX: usize = 4;
