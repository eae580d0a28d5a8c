//! Who waits for which reply.
//!
//! A request is entered before it is sent, so that its reply finds it. Whoever takes an entry out, because the reply
//! came or because nobody waits any more, does so under the lock: one of them has it, the others find nothing.
//!
//! **Invariant (once).** Every entry leaves the table once: answered, forgotten, or with the table's end; and only who
//! took it out completes it. So a reply reaches at most one waiter, and a waiter hears at most one thing.
//!
//! **Invariant (bounded).** There are never more entries than the table was made for, and none once it has ended.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::OnceLock;
use std::task::Waker;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::partition::watermarks::Doorbell;
use crate::schedules::between_steps;

/// What a waiter hears of its request; `T` is the reply, `E` why there will be none.
#[derive(Clone, Debug)]
pub(crate) enum Outcome<T, E> {
    Answered(T),
    /// The responder says why there is no answer.
    Refused(Arc<str>),
    /// Nobody is left who would tell.
    Over(E),
}

/// Where one waiter hears of its request.
#[derive(Debug)]
pub(crate) struct Slot<T, E> {
    outcome: OnceLock<Outcome<T, E>>,
    bell: Doorbell,
}

/// What a request is entered under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// A number of this requester's.
    Number(u64),
    /// A correlation id that the application chose.
    Given(Box<[u8]>),
}

/// What a request was entered under, and where its waiter hears of it.
pub(crate) type Entered<T, E> = (Key, Arc<Slot<T, E>>);

/// All that one requester waits for.
#[derive(Debug)]
pub(crate) struct PendingTable<T, E> {
    /// Lock rank 8: one entry, one look.
    entries: Mutex<Entries<T, E>>,
    /// Rung when an entry has left, if somebody waits for room.
    room: Condvar,
    count_max: usize,
}

#[derive(Debug)]
struct Entries<T, E> {
    numbered: HashMap<u64, Arc<Slot<T, E>>, BuildHasherDefault<NumberHasher>>,
    given: HashMap<Box<[u8]>, Arc<Slot<T, E>>>,
    next: u64,
    waiting_for_room: usize,
    end: Option<E>,
}

/// Spreads numbers that were given out one by one; nobody outside chooses them.
#[derive(Clone, Copy, Debug, Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        // The table looks at the lowest bits and the highest; a product has its best in the middle and above.
        self.0.rotate_left(32)
    }
}

/// Why a request was not entered.
#[derive(Debug)]
pub(crate) enum Refusal<E> {
    /// There was no room for so long.
    Full(Duration),
    /// One with the same id is in the table.
    Twice,
    Over(E),
}

impl<T, E: Clone> PendingTable<T, E> {
    pub(crate) fn new(count_max: usize) -> PendingTable<T, E> {
        let entries = Entries {
            numbered: HashMap::default(),
            given: HashMap::new(),
            next: 0,
            waiting_for_room: 0,
            end: None,
        };
        PendingTable { entries: Mutex::new(entries), room: Condvar::new(), count_max }
    }

    /// Enters a request, under an id that was given or else the next number; waits for room for so long.
    pub(crate) fn enter(
        &self,
        given: Option<&[u8]>,
        patience: Duration,
    ) -> Result<Entered<T, E>, Refusal<E>> {
        let slot = Arc::new(Slot { outcome: OnceLock::new(), bell: Doorbell::default() });
        between_steps();
        let mut entries = self.entries.lock();
        if entries.len() >= self.count_max && entries.end.is_none() {
            if patience.is_zero() {
                return Err(Refusal::Full(patience));
            }
            let deadline = Instant::now().checked_add(patience);
            while entries.len() >= self.count_max && entries.end.is_none() {
                entries.waiting_for_room += 1;
                let is_over = match deadline {
                    Some(deadline) => self.room.wait_until(&mut entries, deadline).timed_out(),
                    None => {
                        self.room.wait(&mut entries);
                        false
                    }
                };
                entries.waiting_for_room -= 1;
                if is_over && entries.len() >= self.count_max {
                    return Err(Refusal::Full(patience));
                }
            }
        }
        if let Some(end) = &entries.end {
            return Err(Refusal::Over(end.clone()));
        }
        match given {
            Some(id) if entries.given.contains_key(id) => Err(Refusal::Twice),
            Some(id) => {
                entries.given.insert(id.into(), Arc::clone(&slot));
                Ok((Key::Given(id.into()), slot))
            }
            None => {
                let number = entries.next;
                entries.next += 1;
                entries.numbered.insert(number, Arc::clone(&slot));
                Ok((Key::Number(number), slot))
            }
        }
    }

    /// Takes out whoever waits under a number, to be completed.
    pub(crate) fn take(&self, number: u64) -> Option<Arc<Slot<T, E>>> {
        between_steps();
        let mut entries = self.entries.lock();
        let slot = entries.numbered.remove(&number);
        self.tell_of_room(&entries, slot.is_some());
        slot
    }

    /// Takes out whoever waits under an id that was given, to be completed.
    pub(crate) fn take_given(&self, id: &[u8]) -> Option<Arc<Slot<T, E>>> {
        between_steps();
        let mut entries = self.entries.lock();
        let slot = entries.given.remove(id);
        self.tell_of_room(&entries, slot.is_some());
        slot
    }

    /// Takes out one who does not wait any more, if it is there.
    pub(crate) fn forget(&self, key: &Key) {
        let taken = match key {
            Key::Number(number) => self.take(*number),
            Key::Given(id) => self.take_given(id),
        };
        drop(taken);
    }

    /// Takes everyone out, and nobody in any more. The caller completes them.
    #[must_use]
    pub(crate) fn end(&self, why: E) -> Vec<Arc<Slot<T, E>>> {
        between_steps();
        let mut entries = self.entries.lock();
        entries.end.get_or_insert(why);
        let numbered = std::mem::take(&mut entries.numbered);
        let given = std::mem::take(&mut entries.given);
        self.room.notify_all();
        drop(entries);
        numbered.into_values().chain(given.into_values()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.lock().len()
    }

    pub(crate) fn count_max(&self) -> usize {
        self.count_max
    }

    #[cfg(test)]
    pub(crate) fn peek(&self, number: u64) -> Option<Arc<Slot<T, E>>> {
        self.entries.lock().numbered.get(&number).cloned()
    }

    #[cfg(test)]
    pub(crate) fn next_number(&self) -> u64 {
        self.entries.lock().next
    }

    fn tell_of_room(&self, entries: &Entries<T, E>, has_left: bool) {
        if has_left && entries.waiting_for_room > 0 {
            self.room.notify_one();
        }
    }
}

impl<T, E> Entries<T, E> {
    fn len(&self) -> usize {
        self.numbered.len() + self.given.len()
    }
}

impl<T, E> Slot<T, E> {
    /// Tells the one who waits. Called once, by who took the slot out of the table. What it wakes may be the
    /// application's code.
    pub(crate) fn complete(&self, outcome: Outcome<T, E>) {
        let is_first = self.outcome.set(outcome).is_ok();
        debug_assert!(is_first, "a slot is taken out of the table once");
        between_steps();
        self.bell.ring();
    }

    pub(crate) fn outcome(&self) -> Option<&Outcome<T, E>> {
        self.outcome.get()
    }

    /// Sleeps until there is an outcome; `None` if time was up.
    pub(crate) fn wait_until(&self, deadline: Option<Instant>) -> Option<&Outcome<T, E>> {
        loop {
            self.bell.reset();
            if let Some(outcome) = self.outcome.get() {
                return Some(outcome);
            }
            self.bell.wait_until(deadline);
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return self.outcome.get();
            }
        }
    }

    /// Gives the outcome, or has the task woken once there is one.
    pub(crate) fn poll(&self, waker: &Waker) -> Option<&Outcome<T, E>> {
        loop {
            if let Some(outcome) = self.outcome.get() {
                return Some(outcome);
            }
            between_steps();
            self.bell.reset();
            between_steps();
            if self.bell.wake_task(waker) {
                between_steps();
                // Set before the reset: that ring is forgotten, and what it was for is here.
                return self.outcome.get();
            }
        }
    }
}
