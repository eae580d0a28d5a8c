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
}

impl Front {
    pub(super) fn at(end: u64) -> Front {
        Front { ready: end, claimed: end, finished: Vec::new() }
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
