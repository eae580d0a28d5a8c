//! How far the space ahead of an appender was made ready, by several threads in pieces.

use std::ops::Range;

use crate::storage::large_pages;

/// How far the space ahead of an appender is.
#[derive(Debug)]
pub(super) struct Front {
    /// Appends may go so far.
    pub(super) ready: u64,
    /// So far somebody is at it, or it is ready. [`CUT`] once nothing is to be made ready any more.
    pub(super) claimed: u64,
    /// Pieces that were finished before one in front of them.
    finished: Vec<Range<u64>>,
    has_large_batches: bool,
}

impl Front {
    pub(super) fn at(end: u64) -> Front {
        Front { ready: end, claimed: end, finished: Vec::new(), has_large_batches: false }
    }

    /// Has zeros written in such pieces as suit batches of this length.
    pub(super) fn suit(&mut self, batch_len: u64) {
        self.has_large_batches = batch_len >= LARGE_BATCH_LEN;
    }

    /// How much is made ready at a time.
    pub(super) fn piece_len(&self) -> u64 {
        if self.has_large_batches { LARGE_PAGE_LEN } else { PIECE_LEN }
    }

    /// How many of a piece's zeros one call writes: the system keeps in one piece what one call writes, where it can.
    pub(super) fn call_len(&self, piece: &Range<u64>) -> u64 {
        let is_large_page = piece.start % LARGE_PAGE_LEN == 0
            && piece.end.saturating_sub(piece.start) == LARGE_PAGE_LEN;
        if self.has_large_batches && !is_large_page { SMALL_CALL_LEN } else { PIECE_LEN_MAX }
    }

    pub(super) fn is_being_worked_at(&self) -> bool {
        self.claimed != CUT && self.claimed > self.ready
    }

    pub(super) fn finish(&mut self, piece: Range<u64>) {
        self.finished.push(piece);
        while let Some(next) = self.finished.iter().position(|piece| piece.start == self.ready) {
            self.ready = self.finished.swap_remove(next).end;
        }
    }
}

/// As far as nothing ever is: nothing is to be made ready any more.
pub(super) const CUT: u64 = u64::MAX;

/// How much is made ready at a time for small batches: an appender may have to wait for one piece.
pub(super) const PIECE_LEN: u64 = 1 << 20;

/// What the processor maps by one entry, if it lies in one piece in memory and in the file.
pub(super) const LARGE_PAGE_LEN: u64 = large_pages::LARGE_PAGE_LEN as u64;

const PIECE_LEN_MAX: u64 = LARGE_PAGE_LEN;

/// Whoever appends batches from this length on is through a mebibyte of zeros so quickly that the faults of the stores
/// count. Those cost the more the larger the pieces are that the page cache was filled in, unless the processor maps a
/// piece as a whole: then there is one fault for all of it, and scans have none either. So it is a whole large page or
/// small pieces. Single records gain by what lies between.
const LARGE_BATCH_LEN: u64 = 4 << 10;

const SMALL_CALL_LEN: u64 = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_batches_get_whole_large_pages_or_small_pieces() {
        let mut front = Front::at(0);
        assert_eq!(front.piece_len(), PIECE_LEN);
        assert!(front.call_len(&(0..PIECE_LEN)) >= PIECE_LEN);
        front.suit(LARGE_BATCH_LEN);
        assert_eq!(front.piece_len(), LARGE_PAGE_LEN);
        let whole = 3 * LARGE_PAGE_LEN..4 * LARGE_PAGE_LEN;
        assert_eq!(front.call_len(&whole), LARGE_PAGE_LEN);
        for part in [whole.start + 1..whole.end, whole.start..whole.end - 1] {
            assert_eq!(front.call_len(&part), SMALL_CALL_LEN);
        }
        let shifted = whole.start + PIECE_LEN..whole.end + PIECE_LEN;
        assert_eq!(front.call_len(&shifted), SMALL_CALL_LEN);
        front.suit(LARGE_BATCH_LEN - 1);
        assert_eq!(front.piece_len(), PIECE_LEN);
    }
}
