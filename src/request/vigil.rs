//! Who reads what arrives, when nobody is there only to read.
//!
//! One who waits and is awake reads by itself. One who sleeps is counted, and then a bell is armed, and whoever rings it
//! reads for it. So an arrival costs those who bring it nothing while somebody is awake, and one reading for each
//! sleeper to be woken otherwise.
//!
//! **Invariant (armed).** Whenever somebody sleeps and nobody is at the reading, the bell is armed, and was armed before
//! the last look at what there is: what arrives from then on rings.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Waker;

use crate::partition::watermarks::Doorbell;
use crate::request::turn::Turn;
use crate::schedules::between_steps;

/// What is watched.
pub(crate) trait Watched {
    /// Reads all there is and tells those whom it concerns.
    fn read_all(&self);
    /// Asks for a ring at the next arrival; it counts for what is looked at afterwards.
    fn arm(&self);
    /// Tells whether there is anything to read.
    fn has_news(&self) -> bool;
}

/// Sees to it that what arrives is read.
#[derive(Debug)]
pub(crate) struct Vigil {
    turn: Turn,
    /// How many sleep, or are about to. Changed before the call that arms for it; AcqRel, and the call itself orders it
    /// for whoever has the turn.
    sleeper_count: AtomicUsize,
    bell: Arc<Doorbell>,
    /// What the bell wakes: it attends again.
    waker: Waker,
}

impl Vigil {
    pub(crate) fn new(waker: Waker) -> Vigil {
        let (turn, bell) = (Turn::default(), Arc::new(Doorbell::default()));
        Vigil { turn, sleeper_count: AtomicUsize::new(0), bell, waker }
    }

    pub(crate) fn bell(&self) -> &Arc<Doorbell> {
        &self.bell
    }

    /// Has everything read that is there, by this thread or by the one who is at it, and the bell armed if somebody
    /// sleeps.
    pub(crate) fn attend(&self, watched: &impl Watched) {
        self.turn.call(|| {
            loop {
                watched.read_all();
                between_steps();
                if self.sleeper_count.load(Ordering::Acquire) == 0 {
                    return;
                }
                self.bell.reset();
                between_steps();
                if !self.bell.wake_task(&self.waker) {
                    continue;
                }
                between_steps();
                watched.arm();
                between_steps();
                if !watched.has_news() {
                    return;
                }
            }
        });
    }

    /// Counts one who is about to sleep; it attends before it does.
    pub(crate) fn fall_asleep(&self) {
        between_steps();
        self.sleeper_count.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts one who is awake again.
    pub(crate) fn wake_up(&self) {
        between_steps();
        self.sleeper_count.fetch_sub(1, Ordering::AcqRel);
    }
}
