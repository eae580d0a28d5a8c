//! Where a test's scheduler chooses which thread goes on.

#[cfg(test)]
use std::cell::Cell;
#[cfg(test)]
use std::panic::AssertUnwindSafe;
#[cfg(test)]
use std::panic::catch_unwind;
#[cfg(test)]
use std::panic::resume_unwind;
use std::thread;

#[cfg(test)]
use shuttle::scheduler::RandomScheduler;

#[cfg(test)]
thread_local! {
    /// Set while a scheduler runs the threads, all of them on this one.
    static IS_SCHEDULED: Cell<bool> = const { Cell::new(false) };
}

/// Another thread may come in here; in tests a scheduler sees to it that one does. Stands in front of every lock, mark
/// and bell of what is tested so.
#[inline]
pub(crate) fn between_steps() {
    #[cfg(test)]
    if IS_SCHEDULED.get() {
        shuttle::thread::yield_now();
    }
}

/// Sleeps until somebody unparks this thread, or for no reason; where a scheduler runs it, others step meanwhile.
pub(crate) fn park() {
    if is_scheduled() { between_steps() } else { thread::park() }
}

/// Tells whether a test's scheduler runs this thread, and others on the same one.
#[inline]
pub(crate) fn is_scheduled() -> bool {
    #[cfg(test)]
    return IS_SCHEDULED.get();
    #[cfg(not(test))]
    false
}

/// Plays a scene in as many orders of its threads' steps as the scheduler thinks of; panics as the scene does.
#[cfg(test)]
pub(crate) fn run(scheduler: RandomScheduler, play: impl Fn() + Send + Sync + 'static) {
    IS_SCHEDULED.set(true);
    let played = catch_unwind(AssertUnwindSafe(|| {
        shuttle::Runner::new(scheduler, shuttle::Config::new()).run(play);
    }));
    IS_SCHEDULED.set(false);
    if let Err(panic) = played {
        resume_unwind(panic);
    }
}
