//! How many bytes a second compaction may read and write, all logs of a store together.

use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

/// What was let through, and when it will have been paid for.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    /// `None`: there is no limit.
    bytes_per_second: Option<u64>,
    /// Held for one look, under a compaction's turn; lock rank 4.
    paid_at: Mutex<Option<Instant>>,
}

impl Throttle {
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Throttle {
        Throttle { bytes_per_second, paid_at: Mutex::new(None) }
    }

    /// Notes so many bytes, and gives how long to wait until they are paid for. Time in which nothing is read or
    /// written is not saved up.
    pub(crate) fn note(&self, bytes: u64, now: Instant) -> Duration {
        let Some(rate) = self.bytes_per_second else {
            return Duration::ZERO;
        };
        let cost = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let mut paid_at = self.paid_at.lock();
        let from = paid_at.map_or(now, |at| at.max(now));
        let at = from + cost;
        *paid_at = Some(at);
        at - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_share_a_limit_pay_for_each_other_and_nothing_is_saved_up() {
        let throttle = Throttle::new(Some(1000));
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(throttle.note(500, start), Duration::from_millis(500));
        assert_eq!(throttle.note(250, after(100)), Duration::from_millis(650));
        assert_eq!(throttle.note(10, after(60_000)), Duration::from_millis(10));
        assert_eq!(Throttle::new(None).note(u64::MAX, start), Duration::ZERO);
    }
}
