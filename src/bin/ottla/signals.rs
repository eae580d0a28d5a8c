//! Being asked to stop: the terminal's interrupt, and what `kill` sends.

#![allow(unsafe_code, reason = "the standard library knows no signals")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

/// Tells whether somebody has asked the command to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Takes interrupts and terminations for wishes from now on: the first is noted, the second ends the process.
    ///
    /// There is no handler, which could do next to nothing: the signals are blocked and one thread waits for them.
    /// Threads that are started later inherit that they are blocked, so this is called before all others. Signals
    /// that whoever started the process has it ignore stay ignored.
    pub(crate) fn on_signals() -> io::Result<Stop> {
        let stop = Stop::default();
        let wanted: Vec<i32> = [libc::SIGINT, libc::SIGTERM]
            .into_iter()
            .filter(|signal| !is_ignored(*signal))
            .collect();
        if wanted.is_empty() {
            return Ok(stop);
        }
        let signals = set_of(&wanted);
        mask(libc::SIG_BLOCK, &signals)?;
        let asked = stop.clone();
        let wait = move || {
            let mut signal = 0;
            // SAFETY: both point to values of this thread's that live until the call returns.
            let waited = unsafe { libc::sigwait(&signals, &mut signal) };
            if waited == 0 {
                asked.ask();
            }
            // This thread takes the next one, whose effect is then the usual one.
            mask(libc::SIG_UNBLOCK, &signals)?;
            loop {
                thread::park();
            }
        };
        // Nobody waits for it: it ends with the process.
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || -> io::Result<()> { wait() })?;
        Ok(stop)
    }

    pub(crate) fn ask(&self) {
        // Relaxed: it is a wish, nothing else is read because of it.
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: a set of signals is a plain array of bits, for which zeros are a value.
    let mut set = unsafe { std::mem::zeroed::<libc::sigset_t>() };
    // SAFETY: it points to a set of this function's.
    unsafe { libc::sigemptyset(&mut set) };
    for signal in signals {
        // SAFETY: as above; a number that is no signal would be refused.
        unsafe { libc::sigaddset(&mut set, *signal) };
    }
    set
}

/// Changes which signals the calling thread, and those it starts, let wait.
fn mask(how: i32, signals: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set outlives the call; a null pointer says that nobody wants to know what was blocked before.
    let failed = unsafe { libc::pthread_sigmask(how, signals, std::ptr::null_mut()) };
    if failed != 0 {
        return Err(io::Error::from_raw_os_error(failed));
    }
    Ok(())
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: numbers, bits and null pointers, for all of which zeros are a value.
    let mut action = unsafe { std::mem::zeroed::<libc::sigaction>() };
    // SAFETY: a null pointer changes nothing; the other points to a value of this function's.
    let failed = unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
    failed == 0 && action.sa_sigaction == libc::SIG_IGN
}
