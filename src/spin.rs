//! Looking again for a moment before going to sleep.
//!
//! Waking a sleeping thread costs the one who wakes it some microseconds and the sleeper more, so while
//! records come thick and fast it pays to wait for the next one awake. When they do not, it is a waste, and
//! worse: a thread that never quite sleeps is woken on another core than it would be.
//!
//! **Invariant (never idle).** A moment is spent only after something was read, and less and less often
//! while nothing comes of it.

use std::hint;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// Whether it pays to stay awake, learnt from how it went.
#[derive(Debug, Default)]
pub(crate) struct Spin {
    moment: Duration,
    /// How often in a row nothing came of it.
    failure_count: u32,
    /// How many occasions are to be let pass.
    skip_count: u32,
}

impl Spin {
    /// Makes a spin that takes no longer than a moment; zero never spins.
    pub(crate) fn new(moment: Duration) -> Spin {
        Spin { moment, failure_count: 0, skip_count: 0 }
    }

    /// Asks again and again for a moment, if that has been of use lately; tells whether the answer was yes.
    pub(crate) fn until(&mut self, mut has_come: impl FnMut() -> bool) -> bool {
        if self.moment.is_zero() {
            return false;
        }
        if self.skip_count > 0 {
            self.skip_count -= 1;
            return false;
        }
        let begun = Instant::now();
        loop {
            // A look at the clock may take as long as several looks for what is to come.
            for _ in 0..LOOKS_PER_CLOCK {
                if has_come() {
                    self.failure_count = 0;
                    return true;
                }
                hint::spin_loop();
            }
            if begun.elapsed() >= self.moment {
                break;
            }
        }
        self.failure_count = (self.failure_count + 1).min(FAILURE_COUNT_MAX);
        self.skip_count = (1 << self.failure_count) - 1;
        // With more threads than cores the one that appends may be waiting for this one's turn.
        thread::yield_now();
        false
    }
}

const LOOKS_PER_CLOCK: u32 = 4;

/// One occasion in 64 is taken at least: at 20 µs each, a thousand waits a second cost 0.3 ms.
const FAILURE_COUNT_MAX: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_no_use_is_tried_ever_more_rarely_and_again_at_once_when_it_was() {
        let mut spin = Spin::new(Duration::from_micros(1));
        let mut tried_at = Vec::new();
        for occasion in 0..320 {
            let mut is_tried = false;
            let has_come = spin.until(|| {
                is_tried = true;
                false
            });
            assert!(!has_come);
            if is_tried {
                tried_at.push(occasion);
            }
        }
        assert_eq!(tried_at, [0, 2, 6, 14, 30, 62, 126, 190, 254, 318]);
        // The next occasion that is taken succeeds, and from then on every one is.
        let came = (0..62 + 10).filter(|_| spin.until(|| true)).count();
        assert_eq!(came, 10);
    }

    #[test]
    fn no_moment_is_never_spent() {
        let mut spin = Spin::new(Duration::ZERO);
        assert!(!spin.until(|| panic!("asked")));
    }
}
