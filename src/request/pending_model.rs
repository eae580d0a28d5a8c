//! Tests only: askers, sleepers and appenders on threads of their own, their steps in every order.
//!
//! Table, vigil, turn, bells and watermarks are the real ones; the log is a list of replies, and an asker does here what
//! `pending.rs` and `requester.rs` do. Between any two steps a scheduler chooses who goes on, from fixed seeds. Two
//! askers ask twice each, as one who waits awake or asleep, or as one who gives up; a responder answers each request,
//! some twice, and what nobody asked; at the end the table is ended under one who still waits.
//!
//! What must hold: every asker hears of its own request, once; nobody sleeps for ever; what came too late or twice is
//! counted, and nothing else; the table is empty.

use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Wake;
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use shuttle::rand::Rng;
use shuttle::scheduler::RandomScheduler;

use crate::chance::told;
use crate::partition::watermarks;
use crate::partition::watermarks::Doorbells;
use crate::partition::watermarks::Watermarks;
use crate::request::pending_table::Key;
use crate::request::pending_table::Outcome;
use crate::request::pending_table::PendingTable;
use crate::request::pending_table::Refusal;
use crate::request::pending_table::Slot;
use crate::request::vigil::Vigil;
use crate::request::vigil::Watched;
use crate::schedules;
use crate::schedules::between_steps;

/// What is done wrong, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    None,
    /// A request is entered after it was sent.
    EntersLate,
    /// One who sleeps is not counted.
    SleepsUncounted,
    /// One who sleeps is counted, and does not attend.
    SleepsUnattended,
    /// Behind the arming nobody looks again.
    ArmsWithoutALook,
    /// The look comes before the arming.
    LooksBeforeItArms,
    /// Two may read at the same time.
    ReadsOutOfTurn,
    /// A reply does not take its request out of the table.
    LeavesTheEntry,
    /// Who gives up does not take its request out of the table.
    ForgetsToForget,
    /// The table's end tells nobody.
    EndsSilently,
}

/// What an asker hears of a request: its number.
type ReplyTable = PendingTable<u64, ()>;

struct Play {
    plant: Plant,
    table: ReplyTable,
    vigil: Vigil,
    marks: Watermarks,
    doorbells: Doorbells,
    /// The replies in the log: which request each is to.
    log: Mutex<Vec<u64>>,
    position: AtomicI64,
    has_looked: AtomicBool,
    /// Requests that were sent and not answered.
    requests: Mutex<Vec<u64>>,
    answered: AtomicUsize,
    unmatched: AtomicUsize,
    given_up: AtomicUsize,
}

/// What the bell wakes.
struct Postman(Weak<Play>);

impl Wake for Postman {
    fn wake(self: Arc<Self>) {
        if let Some(play) = self.0.upgrade() {
            play.vigil.attend(&*play);
        }
    }
}

impl Watched for Play {
    fn read_all(&self) {
        loop {
            between_steps();
            let position = self.position.load(Ordering::SeqCst);
            if position >= self.marks.log_end() {
                return;
            }
            let number = self.log.lock()[position as usize];
            between_steps();
            let taken = match self.plant {
                Plant::LeavesTheEntry => self.table.peek(number),
                _ => self.table.take(number),
            };
            match taken {
                Some(slot) => {
                    self.answered.fetch_add(1, Ordering::SeqCst);
                    assert!(slot.outcome().is_none(), "it was told twice");
                    slot.complete(Outcome::Answered(number));
                }
                None => drop(self.unmatched.fetch_add(1, Ordering::SeqCst)),
            }
            self.position.store(position + 1, Ordering::SeqCst);
        }
    }

    fn arm(&self) {
        if self.plant == Plant::LooksBeforeItArms {
            self.has_looked.store(self.is_behind(), Ordering::SeqCst);
            between_steps();
        }
        self.doorbells.arm();
        watermarks::armed();
    }

    fn has_news(&self) -> bool {
        match self.plant {
            Plant::ArmsWithoutALook => false,
            Plant::LooksBeforeItArms => self.has_looked.load(Ordering::SeqCst),
            _ => self.is_behind(),
        }
    }
}

impl Play {
    fn is_behind(&self) -> bool {
        self.position.load(Ordering::SeqCst) < self.marks.log_end()
    }

    fn attend(&self) {
        match self.plant {
            Plant::ReadsOutOfTurn => self.read_all(),
            _ => self.vigil.attend(self),
        }
    }

    /// Appends a reply, as a producer does.
    fn append(&self, number: u64) {
        between_steps();
        let mut log = self.log.lock();
        log.push(number);
        let end = log.len() as i64;
        drop(log);
        self.marks.publish(end);
        between_steps();
        self.doorbells.ring();
    }

    fn enter(&self) -> (u64, Arc<Slot<u64, ()>>) {
        let (key, slot) = self.table.enter(None, Duration::ZERO).expect("there is room");
        let Key::Number(number) = key else { panic!("no id was given") };
        (number, slot)
    }

    /// Sends a request. Numbers are given out in order, so one that is entered late is foreseen.
    fn ask(&self) -> (u64, Arc<Slot<u64, ()>>) {
        if self.plant == Plant::EntersLate {
            let number = self.table.next_number();
            self.requests.lock().push(number);
            between_steps();
            let (entered, slot) = self.enter();
            if entered != number {
                // The other asker has the number; this request will have its own.
                self.requests.lock().push(entered);
            }
            return (entered, slot);
        }
        let (number, slot) = self.enter();
        between_steps();
        self.requests.lock().push(number);
        (number, slot)
    }

    /// Sleeps until there is an outcome.
    fn sleep(&self, slot: &Slot<u64, ()>) {
        let alarm = Arc::new(Alarm::default());
        let waker = Waker::from(Arc::clone(&alarm));
        if self.plant != Plant::SleepsUncounted {
            self.vigil.fall_asleep();
        }
        if slot.poll(&waker).is_none() {
            if self.plant != Plant::SleepsUnattended {
                self.attend();
            }
            while slot.poll(&waker).is_none() {
                alarm.wait();
            }
        }
        if self.plant != Plant::SleepsUncounted {
            self.vigil.wake_up();
        }
    }
}

/// Wakes a scheduled thread, as a task's waker does. If nobody does, the scheduler finds a deadlock.
#[derive(Default)]
struct Alarm {
    has_rung: shuttle::sync::Mutex<bool>,
    rang: shuttle::sync::Condvar,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        *self.has_rung.lock().unwrap() = true;
        self.rang.notify_all();
    }
}

impl Alarm {
    fn wait(&self) {
        let mut has_rung = self.has_rung.lock().unwrap();
        while !*has_rung {
            has_rung = self.rang.wait(has_rung).unwrap();
        }
        *has_rung = false;
    }
}

fn asker(play: &Play, mut chance: u64) {
    for _ in 0..2 {
        let (number, slot) = play.ask();
        let way = chance % 3;
        chance /= 3;
        match way {
            // One who is awake reads by itself, for a while.
            0 => {
                play.attend();
                if slot.outcome().is_none() {
                    play.sleep(&slot);
                }
            }
            1 => play.sleep(&slot),
            _ => {
                between_steps();
                if slot.outcome().is_none() {
                    if play.plant != Plant::ForgetsToForget {
                        play.table.forget(&Key::Number(number));
                    }
                    assert!(play.table.peek(number).is_none(), "it was given up and kept");
                    play.given_up.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
            }
        }
        match slot.outcome() {
            Some(Outcome::Answered(told)) => assert_eq!(*told, number, "it heard of another's"),
            other => panic!("it was told {other:?}"),
        }
    }
}

fn responder(play: &Play, count: usize, mut chance: u64) {
    let mut done = 0;
    while done < count {
        between_steps();
        let next = play.requests.lock().pop();
        match next {
            Some(number) => {
                play.append(number);
                done += 1;
                if chance % 4 == 0 {
                    play.append(number);
                }
                chance /= 4;
            }
            None => shuttle::thread::yield_now(),
        }
    }
    // Nobody asked for it.
    play.append(u64::MAX);
}

fn play(plant: Plant) {
    let chance = || shuttle::rand::thread_rng().r#gen::<u64>();
    let play = Arc::new_cyclic(|play: &Weak<Play>| Play {
        plant,
        table: PendingTable::new(5),
        vigil: Vigil::new(Waker::from(Arc::new(Postman(play.clone())))),
        marks: Watermarks::new(0, 0),
        doorbells: Doorbells::default(),
        log: Mutex::default(),
        position: AtomicI64::new(0),
        has_looked: AtomicBool::new(false),
        requests: Mutex::default(),
        answered: AtomicUsize::new(0),
        unmatched: AtomicUsize::new(0),
        given_up: AtomicUsize::new(0),
    });
    play.doorbells.hang(play.vigil.bell());
    let mut threads = Vec::new();
    for chance in [chance(), chance()] {
        let play = Arc::clone(&play);
        threads.push(shuttle::thread::spawn(move || asker(&play, chance)));
    }
    for chance in [chance(), chance()] {
        let play = Arc::clone(&play);
        threads.push(shuttle::thread::spawn(move || responder(&play, 2, chance)));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    // What nobody waits for is read when somebody looks.
    play.attend();
    let read = play.log.lock().len();
    let (answered, unmatched) =
        (play.answered.load(Ordering::SeqCst), play.unmatched.load(Ordering::SeqCst));
    assert_eq!(answered + unmatched, read, "every reply is read once");
    let given_up = play.given_up.load(Ordering::SeqCst);
    assert!(answered + given_up >= 4, "{answered} answered, {given_up} given up");
    assert_eq!(play.table.len(), 0, "somebody was left in the table");
    end(&play);
}

/// The table is ended while one waits.
fn end(play: &Arc<Play>) {
    let (number, slot) = play.enter();
    let waiting = {
        let (play, slot) = (Arc::clone(play), Arc::clone(&slot));
        shuttle::thread::spawn(move || play.sleep(&slot))
    };
    between_steps();
    for slot in play.table.end(()) {
        if play.plant != Plant::EndsSilently {
            slot.complete(Outcome::Over(()));
        }
    }
    waiting.join().unwrap();
    assert!(matches!(slot.outcome(), Some(Outcome::Over(()))));
    assert!(play.table.take(number).is_none());
    assert!(matches!(play.table.enter(None, Duration::ZERO), Err(Refusal::Over(()))));
}

/// Plays so many schedules; which ones, the seed says.
fn schedules(plant: Plant, seed: u64, count: usize) {
    schedules::run(RandomScheduler::new_from_seed(seed, count), move || play(plant));
}

#[test]
fn in_whatever_order_askers_and_appenders_step_everyone_hears_once_and_nobody_sleeps_for_ever() {
    let count = told("OTTLA_SCHEDULES").map_or(3_000, |count| count as usize);
    schedules(Plant::None, 7, count);
}

#[test]
fn a_table_that_is_used_wrongly_is_found_out() {
    // A test of the test: each of these is a line gone wrong. The seeds are fixed, so each is found every time.
    for plant in [
        Plant::EntersLate,
        Plant::SleepsUncounted,
        Plant::SleepsUnattended,
        Plant::ArmsWithoutALook,
        Plant::LooksBeforeItArms,
        Plant::ReadsOutOfTurn,
        Plant::LeavesTheEntry,
        Plant::ForgetsToForget,
        Plant::EndsSilently,
    ] {
        let played = catch_unwind(|| schedules(plant, 11, 5_000));
        assert!(played.is_err(), "{plant:?} was not noticed");
    }
}
