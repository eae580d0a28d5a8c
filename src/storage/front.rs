//! How far the space ahead of an appender was made ready, by several threads in pieces.

use std::ops::Range;

/// How far the space ahead of an appender is.
#[derive(Debug)]
pub(super) struct Front {
    /// Appends may go so far.
    pub(super) ready: u64,
    /// So far somebody is at it, or it is ready. [`CUT`] once nothing is to be made ready any more.
    pub(super) claimed: u64,
    /// Pieces that were finished before one in front of them.
    finished: Vec<Range<u64>>,
    /// How many zeros one call writes: the system keeps in one piece what one call writes, where it can.
    pub(super) call_len: usize,
}

impl Front {
    pub(super) fn at(end: u64) -> Front {
        Front { ready: end, claimed: end, finished: Vec::new(), call_len: PIECE_LEN as usize }
    }

    /// Has zeros written in such pieces as suit batches of this length.
    pub(super) fn suit(&mut self, batch_len: u64) {
        self.call_len = if batch_len < LARGE_BATCH_LEN { PIECE_LEN as usize } else { 128 << 10 };
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

/// How much is made ready at a time: an appender may have to wait for one piece.
pub(super) const PIECE_LEN: u64 = 1 << 20;

/// Whoever appends batches from this length on is through a mebibyte of zeros so quickly that the faults of the stores
/// count, and those cost the more the larger the pieces are that the page cache was filled in: an appender of batches of
/// 1 MiB falls to a third of its rate once the log is beyond some hundred megabytes. Single records gain by large pieces.
const LARGE_BATCH_LEN: u64 = 4 << 10;
