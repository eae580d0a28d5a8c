//! The space ahead of a file's end, made ready before an append gets there.
//!
//! It is reserved, and where it is long enough it is written with zeros. Zeros written in large pieces leave pages that
//! a store finds present, and blocks that a sync need not record anew; both cost several times more when they are made
//! page by page, on the way.
//!
//! **Invariant (ahead).** Zeros are written only to pieces that were claimed, each by one thread; what is
//! claimed lies at or behind `Front::ready`, and an append goes no further than that. What is ready is moved
//! over a piece once that is finished, and over unclaimed space only while nothing is claimed. So zeros never
//! hit a batch.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::storage::disk::DiskFile;
use crate::storage::front::Front;

/// The file of a tail, and how far the space ahead of its end is ready.
#[derive(Debug)]
pub(super) struct Runway {
    pub(super) file: Arc<DiskFile>,
    /// See the invariant (ahead). Held for one look or one change.
    pub(super) front: Mutex<Front>,
    /// A piece was finished.
    pub(super) moved: Condvar,
}

/// A piece that is being written; finished when this is dropped.
pub(super) struct Piece<'r> {
    runway: &'r Runway,
    pub(super) range: Range<u64>,
    call_len: u64,
}

impl Runway {
    pub(super) fn new(file: DiskFile, end: u64) -> Runway {
        Runway { file: Arc::new(file), front: Mutex::new(Front::at(end)), moved: Condvar::new() }
    }

    /// Claims the next piece below `upto`, if there is one.
    pub(super) fn claim(&self, front: &mut Front, upto: u64, piece_len: u64) -> Option<Piece<'_>> {
        let start = front.claimed;
        if start >= upto {
            return None;
        }
        front.claimed = upto.min((start / piece_len + 1) * piece_len);
        let range = start..front.claimed;
        let call_len = front.call_len(&range);
        Some(Piece { runway: self, range, call_len })
    }
}

impl Piece<'_> {
    pub(super) fn write_zeros(&self) {
        // Not an append: the space stays reserved, and reads as zeros either way. A store that meets a page
        // that is not there takes a fault, and a disk that fails says so at the next sync.
        let call_len = self.call_len as usize;
        self.runway.file.write_zeros(self.range.clone(), call_len).unwrap_or_default();
    }
}

impl Drop for Piece<'_> {
    fn drop(&mut self) {
        self.runway.front.lock().finish(self.range.clone());
        self.runway.moved.notify_all();
    }
}
