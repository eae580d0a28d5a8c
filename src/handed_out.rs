//! What of a partition a group's member has in its hands: records that were handed out and are not dropped yet.
//!
//! A partition that is to move waits for it, and what is committed by itself never goes beyond it.
//!
//! **Invariant (finished).** Below [`HandedOut::finished`] no record is in anybody's hands: every poll's records
//! are held by a [`Lease`] from before they leave the poll until their last copy is dropped. Records that are
//! dropped by a panic were not dealt with, and stay unfinished.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

use crate::partition::watermarks::Doorbell;

/// What of one partition is in the application's hands.
#[derive(Debug)]
pub(crate) struct HandedOut {
    /// Lock rank 8: held for one entry or look.
    hands: Mutex<Hands>,
    /// Rung when nothing is out any more, if somebody waits for that.
    bell: Arc<Doorbell>,
}

#[derive(Debug, Default)]
struct Hands {
    /// Where the leases begin that are out, in the order in which they went out. Most come back in that order, too.
    out: VecDeque<i64>,
    /// The first offset that was dropped by a panic.
    abandoned: Option<i64>,
    is_awaited: bool,
}

/// Holds one poll's records of one partition; shared by their copies.
#[derive(Debug)]
pub(crate) struct Lease {
    from: Arc<HandedOut>,
    start: i64,
}

impl HandedOut {
    pub(crate) fn new(bell: Arc<Doorbell>) -> HandedOut {
        HandedOut { hands: Mutex::default(), bell }
    }

    /// Hands out what begins at `start`.
    pub(crate) fn lease(self: &Arc<Self>, start: i64) -> Arc<Lease> {
        self.hands.lock().out.push_back(start);
        Arc::new(Lease { from: Arc::clone(self), start })
    }

    /// Gives the offset below which everything was dealt with, where `position` is the next to be handed out.
    pub(crate) fn finished(&self, position: i64) -> i64 {
        let hands = self.hands.lock();
        let first_out = hands.out.iter().min().copied();
        [first_out, hands.abandoned].into_iter().flatten().fold(position, i64::min)
    }

    /// Tells whether anything is out; if so, the bell rings when nothing is any more.
    pub(crate) fn is_out(&self) -> bool {
        let mut hands = self.hands.lock();
        hands.is_awaited = !hands.out.is_empty();
        hands.is_awaited
    }

    /// Takes back that something was dropped by a panic: the reader has gone elsewhere since.
    pub(crate) fn forgive(&self) {
        self.hands.lock().abandoned = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut hands = self.from.hands.lock();
        if let Some(index) = hands.out.iter().position(|start| *start == self.start) {
            hands.out.remove(index);
        }
        if thread::panicking() {
            let abandoned = hands.abandoned.map_or(self.start, |known| known.min(self.start));
            hands.abandoned = Some(abandoned);
        }
        let is_over = hands.out.is_empty() && std::mem::take(&mut hands.is_awaited);
        drop(hands);
        if is_over {
            self.from.bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finished_is_what_nobody_holds_and_nobody_dropped_in_a_panic() {
        let out = Arc::new(HandedOut::new(Arc::default()));
        assert_eq!(out.finished(0), 0);
        let (first, second) = (out.lease(0), out.lease(10));
        assert_eq!(out.finished(20), 0);
        let copy = Arc::clone(&first);
        drop(first);
        assert_eq!(out.finished(20), 0);
        assert!(out.is_out());
        drop(copy);
        assert_eq!(out.finished(20), 10);
        drop(second);
        assert_eq!(out.finished(20), 20);
        assert!(!out.is_out());
        // Put back: the position is what was handed out, not what was read.
        assert_eq!(out.finished(15), 15);
        let lease = out.lease(20);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = lease;
            std::panic::resume_unwind(Box::new("the application"));
        }));
        assert!(panicked.is_err());
        assert!(!out.is_out());
        assert_eq!(out.finished(30), 20);
        out.forgive();
        assert_eq!(out.finished(30), 30);
    }
}
