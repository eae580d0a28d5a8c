//! A bare hand-off in memory: a ring, a flag that somebody sleeps, a futex.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use rustix::io::Errno;
use rustix::thread::futex;
use rustix::thread::futex::Flags;
use rustix::thread::futex::Timespec;

use crate::latency;
use crate::raw;
use crate::subject::Log;
use crate::subject::Outcome;
use crate::subject::Scan;
use crate::subject::Setup;
use crate::subject::Subject;
use crate::subject::Tail;
use crate::subject::Variant;
use crate::subject::Work;
use crate::subject::failed;

pub(crate) struct RawFutex;

/// **Invariant (no lost wake-up).** The producer publishes, then looks whether somebody sleeps; the consumer says that it
/// sleeps, then looks whether something was published. All four are SeqCst, so at least one sees the other.
struct Ring {
    /// Slots are behind a lock that nobody contends for: the two take turns.
    slots: Vec<Mutex<Vec<u8>>>,
    /// How many records were published; stored by the producer.
    published: AtomicU64,
    /// How many were taken; stored by the consumer.
    taken: AtomicU64,
    /// 1 while the consumer sleeps or is about to; the futex's word.
    sleeps: AtomicU32,
}

impl Subject for RawFutex {
    fn name(&self) -> &'static str {
        "raw-futex"
    }

    fn guarantee(&self) -> &'static str {
        "nothing: a slot in memory, a flag, and a futex when somebody sleeps"
    }

    fn variants(&self, work: Work) -> Vec<Variant> {
        raw::only(work == Work::Tail)
    }

    fn open(&self, setup: &Setup<'_>) -> Outcome<Box<dyn Log>> {
        let slot = || Mutex::new(vec![0; setup.payload.value_len()]);
        Ok(Box::new(Ring {
            slots: (0..SLOTS).map(|_| slot()).collect(),
            published: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            sleeps: AtomicU32::new(0),
        }))
    }
}

impl Ring {
    fn slot(&self, index: u64) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.slots[(index % SLOTS) as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Ring {
    fn send(&self, value: &[u8]) -> Outcome {
        let index = self.published.load(Ordering::Relaxed);
        while index - self.taken.load(Ordering::Acquire) == SLOTS {
            std::thread::yield_now();
        }
        self.slot(index).copy_from_slice(value);
        self.published.store(index + 1, Ordering::SeqCst);
        if self.sleeps.load(Ordering::SeqCst) == 1 {
            self.sleeps.store(0, Ordering::SeqCst);
            futex::wake(&self.sleeps, Flags::PRIVATE, 1)?;
        }
        Ok(())
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        failed("nothing is kept")
    }

    fn tail(&self) -> Outcome<Box<dyn Tail + Send + '_>> {
        Ok(Box::new(RingTail { ring: self, next: 0 }))
    }

    fn close(self: Box<Self>) -> Outcome {
        Ok(())
    }
}

struct RingTail<'r> {
    ring: &'r Ring,
    next: u64,
}

impl Tail for RingTail<'_> {
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> Outcome {
        let ring = self.ring;
        while ring.published.load(Ordering::SeqCst) == self.next {
            ring.sleeps.store(1, Ordering::SeqCst);
            if ring.published.load(Ordering::SeqCst) != self.next {
                ring.sleeps.store(0, Ordering::SeqCst);
                break;
            }
            let patience = Timespec { tv_sec: latency::LOST_AFTER.as_secs() as i64, tv_nsec: 0 };
            match futex::wait(&ring.sleeps, Flags::PRIVATE, 1, Some(&patience)) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::TIMEDOUT) => return Err(latency::lost()),
                Err(error) => return Err(error.into()),
            }
        }
        let published = ring.published.load(Ordering::Acquire);
        while self.next < published {
            each(&ring.slot(self.next));
            self.next += 1;
            ring.taken.store(self.next, Ordering::Release);
        }
        Ok(())
    }
}

const SLOTS: u64 = 1024;
