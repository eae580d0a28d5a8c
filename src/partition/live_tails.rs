//! Which logs have their tail open, and which of them is to let go of it when there are too many.
//!
//! One for each store. A log that is appended to holds a descriptor and a mapping of its last segment, and of
//! each segment before it that is not sealed yet. So that a store may have any number of logs, only so many
//! tails are open at a time: before one more is opened, a log that was not appended to for long is *parked*.
//! Which one that is shows without the help of those who append: its end has not moved since it was looked at
//! last.
//!
//! **Invariant (few tails).** A store has no more than `count_max` tails open, those that wait to be sealed
//! included, and beyond that one for each thread that is opening one, unless none can be parked.
//!
//! **Invariant (no circle).** Who makes room never waits for another log's writer: a log at which somebody is
//! busy is passed over. It waits for the disk, and for the turn of the log that it parks, whose holder waits
//! for nothing but the disk.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::storage::disk;

/// The open tails of one store.
#[derive(Debug)]
pub(crate) struct LiveTails {
    count_max: usize,
    /// How many bytes of one log may wait to be sealed before a roll waits for the disk.
    unsealed_bytes_max: u64,
    /// How many are open. Relaxed: a number that orders nothing.
    count: AtomicUsize,
    /// Lock rank 6: held for one look at a few logs; nothing is closed under it.
    logs: Mutex<VecDeque<Listed>>,
}

/// A log with an open tail.
#[derive(Debug)]
struct Listed {
    log: Weak<dyn Parks>,
    /// Where it ended when it was looked at last.
    end_seen: i64,
}

/// What can be asked of a log that has its tail open.
pub(crate) trait Parks: Debug + Send + Sync {
    fn log_end(&self) -> i64;

    /// Tells whether all of it is on stable storage.
    fn is_durable(&self) -> bool;

    /// Has it made durable in the background: it is about to be parked.
    fn prepare_to_park(self: Arc<Self>);

    /// Makes it durable and closes its tail, unless somebody is at it.
    fn park(self: Arc<Self>) -> Parking;
}

/// What became of an attempt to park a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parking {
    Parked,
    /// It had no tail open.
    Nothing,
    /// Somebody is at it, or it could not be put in order: its tail is still open.
    Refused,
}

/// One tail's place among those that are open, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    tails: Arc<LiveTails>,
}

impl Default for LiveTails {
    fn default() -> LiveTails {
        LiveTails::new(count_max(disk::descriptor_count_max()))
    }
}

/// The default of [`StoreBuilder::unsynced_bytes_max`](crate::StoreBuilder::unsynced_bytes_max). Little in unit tests,
/// which reach it.
const UNSEALED_BYTES_MAX: u64 = if cfg!(test) { 6 << 10 } else { 4 << 30 };

impl LiveTails {
    pub(crate) fn new(count_max: usize) -> LiveTails {
        LiveTails {
            count_max,
            unsealed_bytes_max: UNSEALED_BYTES_MAX,
            count: AtomicUsize::new(0),
            logs: Mutex::default(),
        }
    }

    /// The same, with another bound for what waits to be sealed.
    pub(crate) fn with_unsealed_bytes_max(self, bytes: u64) -> LiveTails {
        LiveTails { unsealed_bytes_max: bytes, ..self }
    }

    /// Gives a place for a tail that is about to be opened, after parking others if there are too many.
    pub(crate) fn admit(self: &Arc<Self>) -> Place {
        self.count.fetch_add(1, Ordering::Relaxed);
        let place = Place { tails: Arc::clone(self) };
        while self.count.load(Ordering::Relaxed) > self.count_max && self.park_one() {}
        self.prepare_the_next();
        place
    }

    /// Parks some logs: the system has no descriptor or no room for a mapping left. `false` if none could be.
    pub(crate) fn make_room(&self) -> bool {
        let wanted = self.count.load(Ordering::Relaxed).div_ceil(4);
        (0..wanted).take_while(|_| self.park_one()).count() > 0
    }

    /// Gives how many segments of one log may wait to be sealed, each of which takes a place.
    pub(crate) fn backlog_max(&self) -> usize {
        (self.count_max / 4).clamp(1, BACKLOG_MAX)
    }

    /// Gives how many bytes of one log may wait to be sealed.
    pub(crate) fn unsealed_bytes_max(&self) -> u64 {
        self.unsealed_bytes_max
    }

    /// Lists a log that has its tail open.
    pub(crate) fn list(&self, log: Weak<dyn Parks>) {
        let mut logs = self.logs.lock();
        if !logs.iter().any(|listed| is_same(&listed.log, &log)) {
            // It is about to be appended to.
            logs.push_back(Listed { log, end_seen: i64::MIN });
        }
    }

    /// Takes a log off the list for good.
    pub(crate) fn forget(&self, log: &Weak<dyn Parks>) {
        self.logs.lock().retain(|listed| !is_same(&listed.log, log));
    }

    fn park_one(&self) -> bool {
        let tries = self.logs.lock().len();
        let mut refused = Vec::new();
        let mut is_parked = false;
        for _ in 0..tries {
            let Some(log) = self.take_idle() else { break };
            match Arc::clone(&log).park() {
                Parking::Parked => {
                    is_parked = true;
                    break;
                }
                Parking::Nothing => {}
                Parking::Refused => refused.push(log),
            }
        }
        // Only now, so that none is asked twice. Whoever opened its tail anew meanwhile has listed it.
        for log in refused {
            self.list(Arc::downgrade(&log));
        }
        is_parked
    }

    /// Takes the log off the list that is to be parked: of those that stand in front and were not appended to
    /// since they were looked at last, one that is durable, else the first.
    fn take_idle(&self) -> Option<Arc<dyn Parks>> {
        let mut logs = self.logs.lock();
        // Upgraded ones are dropped without the lock: it may be the last reference by then.
        let mut passed_over = Vec::new();
        let mut found = None;
        for _ in 0..=logs.len() {
            let Some(mut listed) = logs.pop_front() else { break };
            let Some(log) = listed.log.upgrade() else { continue };
            let end = log.log_end();
            if end == listed.end_seen {
                found = Some(log);
                break;
            }
            listed.end_seen = end;
            logs.push_back(listed);
            passed_over.push(log);
        }
        let first = found?;
        if first.is_durable() {
            return Some(first);
        }
        let durable = logs.iter().take(LOOK_AHEAD).enumerate().find_map(|(index, listed)| {
            let log = listed.log.upgrade()?;
            let is_better = log.log_end() == listed.end_seen && log.is_durable();
            passed_over.push(Arc::clone(&log));
            is_better.then_some((index, log))
        });
        let chosen = match durable {
            Some((index, durable)) => {
                logs.remove(index);
                let end_seen = first.log_end();
                logs.push_front(Listed { log: Arc::downgrade(&first), end_seen });
                passed_over.push(first);
                durable
            }
            None => first,
        };
        drop(logs);
        Some(chosen)
    }

    /// Has those made durable that will be parked next, so that nobody waits for it then.
    fn prepare_the_next(&self) {
        if self.count.load(Ordering::Relaxed) * 4 < self.count_max * 3 {
            return;
        }
        let next: Vec<_> = {
            let logs = self.logs.lock();
            let idle = |listed: &Listed| {
                let log = listed.log.upgrade()?;
                Some((log.log_end() == listed.end_seen && !log.is_durable(), log))
            };
            logs.iter().take(LOOK_AHEAD).filter_map(idle).collect()
        };
        for (_, log) in next.into_iter().filter(|(is_wanted, _)| *is_wanted) {
            log.prepare_to_park();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tails.count.fetch_sub(1, Ordering::Relaxed);
    }
}

fn is_same(one: &Weak<dyn Parks>, other: &Weak<dyn Parks>) -> bool {
    std::ptr::addr_eq(one.as_ptr(), other.as_ptr())
}

/// Most of a process's descriptors are its host's, and a store is seldom alone.
fn count_max(descriptor_count_max: Option<u64>) -> usize {
    let share = descriptor_count_max.map_or(COUNT_MAX, |count| count / 4);
    share.clamp(COUNT_MIN, COUNT_MAX) as usize
}

const COUNT_MIN: u64 = 8;
/// A tail takes a mapping too, of which a process may have 65,530 by default.
const COUNT_MAX: u64 = 4096;
/// A gigabyte in segments of 16 MiB.
const BACKLOG_MAX: usize = 64;
/// So many logs are made ready to be parked before it is their turn.
const LOOK_AHEAD: usize = 32;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::AtomicI64;

    use super::*;

    /// A log that holds a place while it is open.
    #[derive(Debug, Default)]
    struct Log {
        name: usize,
        place: Mutex<Option<Place>>,
        end: AtomicI64,
        is_dirty: AtomicBool,
        is_busy: AtomicBool,
        is_prepared: AtomicBool,
    }

    impl Parks for Log {
        fn log_end(&self) -> i64 {
            self.end.load(Ordering::Relaxed)
        }

        fn is_durable(&self) -> bool {
            !self.is_dirty.load(Ordering::Relaxed)
        }

        fn prepare_to_park(self: Arc<Self>) {
            self.is_prepared.store(true, Ordering::Relaxed);
        }

        fn park(self: Arc<Self>) -> Parking {
            if self.is_busy.load(Ordering::Relaxed) {
                return Parking::Refused;
            }
            self.place.lock().take().map_or(Parking::Nothing, |_| Parking::Parked)
        }
    }

    struct Logs {
        tails: Arc<LiveTails>,
        logs: Vec<Arc<Log>>,
    }

    impl Logs {
        fn new(count: usize, count_max: usize) -> Logs {
            let logs = (0..count).map(|name| Arc::new(Log { name, ..Log::default() })).collect();
            Logs { tails: Arc::new(LiveTails::new(count_max)), logs }
        }

        fn append(&self, number: usize) {
            let log = &self.logs[number];
            if log.place.lock().is_none() {
                let place = self.tails.admit();
                *log.place.lock() = Some(place);
                self.tails.list(weak(log));
            }
            log.end.fetch_add(1, Ordering::Relaxed);
        }

        fn open(&self) -> Vec<usize> {
            let open = self.logs.iter().filter(|log| log.place.lock().is_some());
            open.map(|log| log.name).collect()
        }
    }

    fn weak(log: &Arc<Log>) -> Weak<dyn Parks> {
        let weak: Weak<Log> = Arc::downgrade(log);
        weak
    }

    #[test]
    fn no_more_are_open_than_allowed_and_those_that_are_appended_to_stay() {
        let logs = Logs::new(100, 8);
        for round in 0..3 {
            for number in 0..100 {
                logs.append(number);
                // Two that are never idle for long.
                logs.append(17);
                logs.append(42);
                let open = logs.open();
                assert!(open.len() <= 8, "round {round}: {open:?}");
                assert!(open.contains(&17) && open.contains(&42) && open.contains(&number));
            }
        }
        assert_eq!(logs.open().len(), 8);
        assert_eq!(logs.tails.logs.lock().len(), 8, "each is listed once");
    }

    #[test]
    fn a_log_that_somebody_is_at_is_passed_over_and_asked_again_later() {
        let logs = Logs::new(4, 2);
        logs.logs[0].is_busy.store(true, Ordering::Relaxed);
        for number in 0..4 {
            logs.append(number);
        }
        assert_eq!(logs.open(), [0, 3]);
        logs.logs[3].is_busy.store(true, Ordering::Relaxed);
        // Nobody can be parked: one more than allowed rather than none at all.
        logs.append(1);
        assert_eq!(logs.open(), [0, 1, 3]);
        logs.logs[0].is_busy.store(false, Ordering::Relaxed);
        logs.append(2);
        assert_eq!(logs.open(), [2, 3]);
    }

    #[test]
    fn durable_logs_go_first_and_the_next_are_made_durable_before_it_is_their_turn() {
        let logs = Logs::new(5, 4);
        for number in 0..4 {
            logs.append(number);
            logs.logs[number].is_dirty.store(number != 2, Ordering::Relaxed);
        }
        logs.append(4);
        assert_eq!(logs.open(), [0, 1, 3, 4]);
        let prepared = |n: usize| logs.logs[n].is_prepared.load(Ordering::Relaxed);
        assert!(prepared(0) && prepared(1) && prepared(3) && !prepared(2));
        // Where none is, the one that was idle for longest goes.
        logs.append(2);
        assert_eq!(logs.open(), [1, 2, 3, 4]);
    }

    #[test]
    fn nothing_is_kept_of_logs_that_are_gone() {
        let mut logs = Logs::new(50, 8);
        (0..8).for_each(|number| logs.append(number));
        logs.tails.forget(&weak(&logs.logs[3]));
        assert_eq!(logs.tails.logs.lock().len(), 7);
        logs.logs.drain(..8);
        assert_eq!(logs.tails.count.load(Ordering::Relaxed), 0);
        assert!(!logs.tails.make_room());
        (0..20).for_each(|number| logs.append(number));
        assert_eq!(logs.tails.logs.lock().len(), 8);
    }

    #[test]
    fn the_host_keeps_most_of_its_descriptors() {
        assert_eq!(count_max(Some(1024)), 256);
        assert_eq!(count_max(Some(16)), 8);
        assert_eq!(count_max(Some(1 << 20)), 4096);
        assert_eq!(count_max(None), 4096);
    }
}
