//! A wall clock that is not believed at once when it leaps ahead: for those who delete by age.
//!
//! A clock that is set wrong makes everything old, and what was deleted for it does not come back when it is set right.
//! So a leap of more than an hour, against the time that has really passed, counts only once it has lasted for an hour.
//! Machines that sleep make such leaps, too, and so does a device that learns the date after it was started: then
//! retention by time is an hour late. A clock that is set back is believed: it makes nothing old.

use std::time::Duration;

/// What is known of the wall clock since it was looked at first.
#[derive(Debug, Default)]
pub(crate) struct SteadyClock {
    /// When it was believed last, by the time that has passed, and what it said then.
    believed: Option<(Duration, i64)>,
    /// Since when it has been ahead.
    ahead_since: Option<Duration>,
}

impl SteadyClock {
    /// Gives the time to go by, and how much further ahead the wall clock is. `passed` is a time that nobody can set.
    pub(crate) fn now_ms(&mut self, wall_ms: i64, passed: Duration) -> (i64, i64) {
        let Some((at, said_ms)) = self.believed else {
            self.believed = Some((passed, wall_ms));
            return (wall_ms, 0);
        };
        let since_ms = i64::try_from(passed.saturating_sub(at).as_millis()).unwrap_or(i64::MAX);
        let steady_ms = said_ms.saturating_add(since_ms);
        let ahead_ms = wall_ms.saturating_sub(steady_ms);
        if ahead_ms > LEAP_MS {
            let since = *self.ahead_since.get_or_insert(passed);
            if passed.saturating_sub(since) < LASTING {
                return (steady_ms, ahead_ms);
            }
        }
        *self = SteadyClock { believed: Some((passed, wall_ms)), ahead_since: None };
        (wall_ms, 0)
    }
}

const LEAP_MS: i64 = 3_600_000;
const LASTING: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn minutes(count: u64) -> Duration {
        Duration::from_secs(60 * count)
    }

    #[test]
    fn a_leap_ahead_counts_once_it_has_lasted() {
        let mut clock = SteadyClock::default();
        assert_eq!(clock.now_ms(1000, minutes(0)), (1000, 0));
        // As time passes, and a little faster.
        assert_eq!(clock.now_ms(1000 + HOUR_MS, minutes(30)), (1000 + HOUR_MS, 0));
        let leapt = 1000 + 1000 * HOUR_MS;
        assert_eq!(clock.now_ms(leapt, minutes(30)), (1000 + HOUR_MS, 999 * HOUR_MS));
        let later = clock.now_ms(leapt + HOUR_MS / 2, minutes(60));
        assert_eq!(later, (1000 + 3 * HOUR_MS / 2, 999 * HOUR_MS));
        assert_eq!(clock.now_ms(leapt + HOUR_MS, minutes(90)), (leapt + HOUR_MS, 0));
    }

    #[test]
    fn a_leap_that_is_taken_back_never_counted() {
        let mut clock = SteadyClock::default();
        clock.now_ms(1000, minutes(0));
        assert_eq!(clock.now_ms(100 * HOUR_MS, minutes(1)).0, 61_000);
        assert_eq!(clock.now_ms(121_000, minutes(2)), (121_000, 0));
        // And the next one begins anew.
        assert_eq!(clock.now_ms(100 * HOUR_MS, minutes(59)).0, 121_000 + 57 * 60_000);
        assert_eq!(clock.now_ms(100 * HOUR_MS, minutes(63)).0, 121_000 + 61 * 60_000);
    }

    #[test]
    fn a_clock_that_is_set_back_is_believed() {
        let mut clock = SteadyClock::default();
        clock.now_ms(100 * HOUR_MS, minutes(0));
        assert_eq!(clock.now_ms(5, minutes(1)), (5, 0));
        assert_eq!(clock.now_ms(60_005, minutes(2)), (60_005, 0));
        assert_eq!(clock.now_ms(i64::MIN, minutes(3)), (i64::MIN, 0));
    }
}
