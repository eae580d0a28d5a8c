//! Memory for a large table that is looked into at random.
//!
//! Fresh memory comes page by page, each with a fault, and each page that is looked into wants an entry in the
//! processor's short list of them. In pages of 2 MiB, where the system has them, both cost next to nothing.

use std::ops::Deref;
use std::ops::DerefMut;

use memmap2::MmapMut;

/// Bytes that were zeros when they came.
#[derive(Debug)]
pub(crate) struct LargePages(Memory);

#[derive(Debug)]
enum Memory {
    /// Less than a large page.
    Heap(Vec<u8>),
    Mapped(MmapMut),
}

impl LargePages {
    /// Makes some; `None` if the system refuses as much as a large page or more.
    pub(crate) fn zeroed(len: usize) -> Option<LargePages> {
        if len < LARGE_PAGE_LEN {
            return Some(LargePages(Memory::Heap(vec![0; len])));
        }
        let mapped = MmapMut::map_anon(len).ok()?;
        #[cfg(target_os = "linux")]
        // Advice: where it is not taken, the pages are small.
        mapped.advise(memmap2::Advice::HugePage).unwrap_or_default();
        Some(LargePages(Memory::Mapped(mapped)))
    }
}

impl Deref for LargePages {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Memory::Heap(bytes) => bytes,
            Memory::Mapped(bytes) => bytes,
        }
    }
}

impl DerefMut for LargePages {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::Heap(bytes) => bytes,
            Memory::Mapped(bytes) => bytes,
        }
    }
}

pub(super) const LARGE_PAGE_LEN: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_zeros_of_any_length_and_keeps_what_is_put_there() {
        for len in [0, 1, 4096, LARGE_PAGE_LEN - 1, LARGE_PAGE_LEN, 2 * LARGE_PAGE_LEN + 48] {
            let mut bytes = LargePages::zeroed(len).unwrap();
            assert_eq!(matches!(bytes.0, Memory::Mapped(_)), len >= LARGE_PAGE_LEN);
            assert_eq!(bytes.len(), len);
            assert!(bytes.iter().all(|byte| *byte == 0));
            for at in (0..len).step_by(4097) {
                bytes[at] = at as u8 | 1;
            }
            assert!((0..len).step_by(4097).all(|at| bytes[at] == at as u8 | 1));
        }
    }

    #[test]
    fn what_no_system_has_is_refused() {
        assert!(LargePages::zeroed(isize::MAX as usize - (1 << 20)).is_none());
    }
}
