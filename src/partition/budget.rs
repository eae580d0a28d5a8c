//! What all logs of a store together may take on the disk, and who makes room when it is taken.
//!
//! A tail is *granted* space in steps before it reserves any, so the bound is kept by what is on the disk, not by what
//! is counted afterwards; an append that stays within what was granted pays nothing for it. What a log is charged is
//! worked out anew whenever its segments change, so that nothing adds up that is not there.

use std::sync::OnceLock;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::error::Error;
use crate::error::Result;
use crate::retention_config::BudgetPolicy;

/// The bytes that a store may take, and does.
#[derive(Debug)]
pub(crate) struct Budget {
    /// `None` for any number; then nothing is counted.
    limit: Option<Limit>,
    /// What all logs are charged together. Relaxed: each change is one step, and orders nothing.
    used: AtomicU64,
    /// Room was asked for, and nobody has looked yet. Relaxed: it is advice.
    is_asked: AtomicBool,
    /// Who lets go of the oldest segments.
    makes_room: OnceLock<Weak<dyn MakesRoom>>,
}

/// What is allowed, and what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) bytes_max: u64,
    pub(crate) policy: BudgetPolicy,
}

/// One who lets go of old segments of all logs.
pub(crate) trait MakesRoom: Send + Sync + std::fmt::Debug {
    /// Makes room for `wanted` bytes at once, on the caller's thread.
    fn make_room(&self, wanted: u64) -> Result<()>;

    /// Removes files at once that are not any log's any more and would have been kept for a while; gives how many bytes
    /// of batches were in them.
    fn remove_doomed(&self) -> Result<u64>;

    /// Has room made in the background.
    fn ask_for_room(&self);
}

/// What one log is charged.
#[derive(Debug, Default)]
pub(crate) struct Charged {
    /// Held for one look and one change of the sum; lock rank 6.
    state: Mutex<Charge>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Charge {
    total: u64,
    /// Where the segment begins that was granted space, and how much it was.
    tail: i64,
    granted: u64,
    /// The log is deleted: nothing is charged any more.
    is_over: bool,
}

impl Budget {
    pub(crate) fn new(limit: Option<Limit>) -> Budget {
        Budget {
            limit,
            used: AtomicU64::new(0),
            is_asked: AtomicBool::new(false),
            makes_room: OnceLock::new(),
        }
    }

    /// Names who makes room; once.
    pub(crate) fn serve(&self, makes_room: Weak<dyn MakesRoom>) {
        self.makes_room.get_or_init(|| makes_room);
    }

    pub(crate) fn limit(&self) -> Option<Limit> {
        self.limit
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Notes that somebody looks for room: whoever finds too little from now on asks again.
    pub(crate) fn begin_to_look(&self) {
        self.is_asked.store(false, Ordering::Relaxed);
    }

    /// Gives how much is to be let go of so that `wanted` bytes more fit, with a margin that keeps appenders from
    /// meeting the limit.
    pub(crate) fn excess(&self, wanted: u64) -> u64 {
        let Some(limit) = self.limit else { return 0 };
        let target = limit.bytes_max - limit.margin();
        self.used().saturating_add(wanted).saturating_sub(target)
    }

    /// Gives how much is to be let go of at the least so that `wanted` bytes more fit.
    pub(crate) fn shortfall(&self, wanted: u64) -> u64 {
        let Some(limit) = self.limit else { return 0 };
        self.used().saturating_add(wanted).saturating_sub(limit.bytes_max)
    }

    /// Does what there is to do about an append that was refused: removes files that are kept only for a while, and makes
    /// room, if that is the policy.
    ///
    /// # Errors
    ///
    /// * [`Error::StoreFull`]: it is refused for good.
    /// * What kept old segments from going.
    pub(crate) fn relieve(&self, wanted: usize) -> Result<()> {
        let makes_room = self.makes_room.get().and_then(Weak::upgrade);
        let Some(makes_room) = makes_room else { return Err(self.is_full()) };
        match self.limit.map(|limit| limit.policy) {
            Some(BudgetPolicy::DropOldest) => makes_room.make_room(wanted as u64),
            Some(BudgetPolicy::BackPressure) | None => match makes_room.remove_doomed()? {
                0 => Err(self.is_full()),
                _ => Ok(()),
            },
        }
    }

    pub(crate) fn is_full(&self) -> Error {
        let limit = self.limit.map_or(u64::MAX, |limit| limit.bytes_max);
        Error::StoreFull { used: self.used(), limit }
    }

    /// Asks for room to be made in the background, unless somebody did.
    fn ask(&self) {
        if !self.is_asked.swap(true, Ordering::Relaxed) {
            if let Some(makes_room) = self.makes_room.get().and_then(Weak::upgrade) {
                makes_room.ask_for_room();
            }
        }
    }

    /// Adds to what is used, if that stays within the limit.
    fn take(&self, limit: Limit, bytes: u64) -> bool {
        let within = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit.bytes_max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
    }

    fn change(&self, before: u64, after: u64) {
        if after >= before {
            self.used.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(before - after, Ordering::Relaxed);
        }
    }
}

impl Limit {
    /// So much is kept free while old segments may go.
    fn margin(self) -> u64 {
        self.bytes_max / 16
    }

    /// What a tail is granted at once: little enough for many tails, and enough for one to seldom ask.
    fn step(self) -> u64 {
        (self.bytes_max / 4096).clamp(STEP_MIN, STEP_MAX)
    }
}

impl Charged {
    /// Grants the segment that begins at `tail` space up to `needed` at least, and gives up to where.
    ///
    /// # Errors
    ///
    /// * [`Error::StoreFull`]: nothing was granted.
    pub(crate) fn grant(&self, budget: &Budget, tail: i64, needed: u64) -> Result<u64> {
        let Some(limit) = budget.limit else { return Ok(u64::MAX) };
        let mut charge = self.state.lock();
        let before = if charge.tail == tail { charge.granted } else { 0 };
        let generous = needed.max(before.saturating_add(limit.step()));
        let granted = [generous, needed]
            .into_iter()
            .map(|upto| upto.max(before))
            .find(|upto| budget.take(limit, upto - before));
        if let Some(granted) = granted {
            charge.total += granted - before;
            (charge.tail, charge.granted) = (tail, granted);
        }
        drop(charge);
        if granted.is_none() || budget.used() > limit.bytes_max - limit.margin() {
            budget.ask();
        }
        granted.ok_or_else(|| budget.is_full())
    }

    /// Charges a log anew: for its full segments, and for the last one, which begins at `tail` and ends at `end`, what
    /// it was granted. What is there is charged even beyond the limit.
    pub(crate) fn charge(&self, budget: &Budget, full: u64, tail: i64, end: u64, use_of: Tail) {
        let mut charge = self.state.lock();
        if charge.is_over {
            return;
        }
        let granted = match use_of {
            Tail::Open if charge.tail == tail => charge.granted.max(end),
            Tail::Open | Tail::Closed => end,
        };
        let total = full.saturating_add(granted);
        budget.change(charge.total, total);
        *charge = Charge { total, tail, granted, is_over: false };
    }

    /// Gives everything back: the log is deleted.
    pub(crate) fn clear(&self, budget: &Budget) {
        let over = Charge { is_over: true, ..Charge::default() };
        let charge = std::mem::replace(&mut *self.state.lock(), over);
        budget.change(charge.total, 0);
    }
}

/// Whether a last segment keeps what it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    Open,
    Closed,
}

const STEP_MIN: u64 = 4 << 10;
const STEP_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(bytes_max: u64) -> Budget {
        Budget::new(Some(Limit { bytes_max, policy: BudgetPolicy::BackPressure }))
    }

    #[test]
    fn grants_come_in_steps_and_in_less_where_there_is_less() {
        let budget = budget(10_000);
        let (a, b) = (Charged::default(), Charged::default());
        assert_eq!(a.grant(&budget, 0, 100).unwrap(), 4096);
        assert_eq!(b.grant(&budget, 0, 5000).unwrap(), 5000);
        assert_eq!(budget.used(), 9096);
        assert_eq!(a.grant(&budget, 0, 4500).unwrap(), 4500, "what is needed, and no step");
        assert!(matches!(
            a.grant(&budget, 0, 5001),
            Err(Error::StoreFull { used: 9500, limit: 10_000 })
        ));
        assert_eq!(budget.used(), 9500);
        b.clear(&budget);
        assert_eq!(budget.used(), 4500);
    }

    #[test]
    fn what_a_log_is_charged_follows_what_is_there() {
        let budget = budget(100_000);
        let log = Charged::default();
        let granted = log.grant(&budget, 0, 10).unwrap();
        log.charge(&budget, 0, 0, 10, Tail::Open);
        assert_eq!(budget.used(), granted, "an open tail keeps what it was granted");
        log.charge(&budget, 3000, 50, 0, Tail::Open);
        assert_eq!(budget.used(), 3000, "another segment was granted nothing yet");
        log.charge(&budget, 3000, 50, 700, Tail::Closed);
        assert_eq!(budget.used(), 3700);
        log.charge(&budget, 200_000, 50, 700, Tail::Closed);
        assert_eq!(budget.used(), 200_700, "an open finds what it finds");
        assert!(log.grant(&budget, 50, 701).is_err());
        log.clear(&budget);
        log.charge(&budget, 3000, 50, 700, Tail::Closed);
        assert_eq!(budget.used(), 0, "worked out before it was deleted, and charged late");
    }
}
