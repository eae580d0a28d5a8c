//! What of a mapped file was brought into memory by a call that can fail.
//!
//! A touch of a mapped page that the disk cannot give, or that somebody has cut off, is a signal and ends the process. So
//! whoever is about to touch bytes that nobody has touched has them brought first, and is told by an error. What was
//! brought once is not asked for again: as a rule it stays in memory, and asking would cost every read a call.
//!
//! **Invariant (brought first).** Of a segment that was opened, no byte below the end it had then is touched through its
//! mapping before its stretch was brought, through this opening of the segment. What lies behind was written since.

use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// Which stretches of one opening of a file were brought.
///
/// Relaxed on both sides: it speaks of pages, which whoever asks can touch already, and publishes nothing.
#[derive(Debug)]
pub(crate) struct Brought {
    end: u64,
    /// A bit for each stretch.
    stretches: Box<[AtomicU64]>,
}

impl Brought {
    /// Nothing is of what lies below `end`.
    pub(crate) fn new(end: u64) -> Brought {
        let words = end.div_ceil(STRETCH_LEN).div_ceil(u64::from(u64::BITS));
        Brought { end, stretches: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Tells whether all of a range may be touched.
    #[inline]
    pub(crate) fn holds(&self, range: &Range<u64>) -> bool {
        self.numbers(range).all(|number| self.holds_stretch(number))
    }

    /// Tells whether two positions lie in one stretch, which is brought or is not.
    #[inline]
    pub(crate) fn is_one_stretch(one: u64, other: u64) -> bool {
        one / STRETCH_LEN == other / STRETCH_LEN
    }

    /// Gives the stretches that a range lies in and that were not brought yet.
    pub(crate) fn missing(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
        self.numbers(range).filter(|number| !self.holds_stretch(*number)).map(|number| {
            let start = number * STRETCH_LEN;
            start..(start + STRETCH_LEN).min(self.end)
        })
    }

    /// Notes that a stretch was brought.
    pub(crate) fn note(&self, stretch: &Range<u64>) {
        let (word, bit) = place(stretch.start / STRETCH_LEN);
        if let Some(word) = self.stretches.get(word) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    #[inline]
    fn numbers(&self, range: &Range<u64>) -> Range<u64> {
        range.start / STRETCH_LEN..range.end.min(self.end).div_ceil(STRETCH_LEN)
    }

    #[inline]
    fn holds_stretch(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.stretches.get(word).is_none_or(|word| word.load(Ordering::Relaxed) & bit != 0)
    }
}

#[inline]
fn place(number: u64) -> (usize, u64) {
    ((number / u64::from(u64::BITS)) as usize, 1 << (number % u64::from(u64::BITS)))
}

/// What systems read ahead, unless told otherwise: the disk is not asked for more than it would be.
const STRETCH_LEN: u64 = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_brought_is_not_missing_any_more() {
        let end = 100 * STRETCH_LEN + 5;
        let brought = Brought::new(end);
        let range = STRETCH_LEN - 1..STRETCH_LEN * 2 + 1;
        let missing: Vec<Range<u64>> = brought.missing(&range).collect();
        assert_eq!(
            missing,
            [0..STRETCH_LEN, STRETCH_LEN..STRETCH_LEN * 2, STRETCH_LEN * 2..STRETCH_LEN * 3]
        );
        missing.iter().for_each(|stretch| assert!(!brought.holds(stretch)));
        brought.note(&missing[1]);
        assert!(brought.holds(&missing[1]) && !brought.holds(&missing[0]));
        assert!(!brought.holds(&range) && brought.missing(&range).count() == 2);
        // The last one ends where the file did; what lies behind was written since.
        let last = 100 * STRETCH_LEN..end;
        assert_eq!(brought.missing(&(end - 1..end + 100)).next(), Some(last.clone()));
        brought.note(&last);
        assert!(brought.holds(&(last.start..u64::MAX)) && brought.holds(&(end..end + 1)));
        assert!(Brought::is_one_stretch(0, STRETCH_LEN - 1));
        assert!(!Brought::is_one_stretch(STRETCH_LEN - 1, STRETCH_LEN));
        assert!(Brought::new(0).holds(&(0..100)));
    }
}
