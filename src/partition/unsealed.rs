//! The queue of segments that another has followed and that are not sealed yet.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::partition::writer::LiveTail;

/// The segments between the last sealed one and the last, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Unsealed {
    /// Held while segments are sealed, syncs included: by those who wait for durability anyway. Taken before
    /// the queue.
    pub(super) turn: Mutex<()>,
    /// Held for one look.
    pub(super) queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) followed: VecDeque<Followed>,
    /// The one that whoever has the turn has taken off the queue.
    pub(super) being_sealed: Option<i64>,
}

/// A segment that was followed by another.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) live: LiveTail,
    /// Where the next one begins.
    pub(super) next: i64,
}

impl Queue {
    /// Takes the oldest off, to be sealed. Until [`being_sealed`](Self::being_sealed) is reset it is still the oldest.
    pub(super) fn take_oldest(&mut self) -> Option<Followed> {
        let oldest = self.followed.pop_front()?;
        self.being_sealed = Some(oldest.live.open.base_offset());
        Some(oldest)
    }

    /// Gives the base offset of the oldest.
    pub(super) fn oldest(&self) -> Option<i64> {
        let waiting = self.followed.front().map(|oldest| oldest.live.open.base_offset());
        self.being_sealed.or(waiting)
    }

    pub(super) fn len(&self) -> u64 {
        self.followed.iter().map(|followed| followed.live.tail.end()).sum()
    }
}
