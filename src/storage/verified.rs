//! What of a segment has been checked since it was opened, so that it is not checked again.
//!
//! **Invariant (checked once).** A batch that begins in a [`Span`] lies in a run of whole batches each of
//! which passed the check that the span stands for, in this process and through this opening of the segment;
//! its bytes are frozen, so it would pass again. Nothing that was found damaged, and nothing that was not
//! looked at, is ever in it: a run ends in front of damage, and two runs are joined only where they touch.
//! What was appended through the segment's own tail since it was opened was sealed by this process and is
//! counted as checked. A new opening of the segment begins with nothing.

use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// How much of each batch a reader has checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checks {
    /// The checksum, and the structure of its records.
    All,
    /// Only the structure: the lengths, counts and offsets of its records.
    Structure,
}

/// What of one opening of a segment has been checked.
#[derive(Debug)]
pub(crate) struct Verified {
    /// From here on everything was appended by this process; `u64::MAX` if nothing is.
    born_from: u64,
    all: Span,
    structure: Span,
}

/// One run of batches, from one batch's beginning to another's end.
///
/// Stored and loaded by readers of all threads. Relaxed is enough: what it speaks of is a fact about bytes
/// that whoever asks can see already, and publishes none.
#[derive(Debug, Default)]
struct Span(AtomicU64);

impl Verified {
    /// Nothing is checked of what lies below `born_from`.
    pub(crate) fn new(born_from: u64) -> Verified {
        Verified { born_from, all: Span::default(), structure: Span::default() }
    }

    /// Gives the range in which a batch that begins there need not be checked.
    #[inline]
    pub(crate) fn known(&self, checks: Checks) -> Known {
        let all = self.all.get();
        let span = match checks {
            Checks::Structure if all.is_empty() => self.structure.get(),
            _ => all,
        };
        Known { born_from: self.born_from, span }
    }

    /// Tells whether what lies at `position` was appended since the segment was opened.
    #[inline]
    pub(crate) fn is_born(&self, position: u64) -> bool {
        position >= self.born_from
    }

    /// Notes a run of whole batches that were checked, one after the other without a gap.
    pub(crate) fn note(&self, run: Range<u64>, checks: Checks) {
        match checks {
            Checks::All => self.all.note(run),
            Checks::Structure => self.structure.note(run),
        }
    }
}

/// What was checked, at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    born_from: u64,
    span: Range<u64>,
}

impl Known {
    /// Tells whether the batch that begins at `position` was checked.
    #[inline]
    pub(crate) fn holds(&self, position: u64) -> bool {
        position >= self.born_from || self.span.contains(&position)
    }
}

impl Span {
    #[inline]
    fn get(&self) -> Range<u64> {
        unpacked(self.0.load(Ordering::Relaxed))
    }

    fn note(&self, run: Range<u64>) {
        let Some(packed_run) = packed(&run) else { return };
        let grown = |packed_span: u64| {
            let span = unpacked(packed_span);
            let touches = run.start <= span.end && span.start <= run.end;
            if touches && !span.is_empty() {
                packed(&(span.start.min(run.start)..span.end.max(run.end)))
            } else {
                // One run is remembered: the longer one, which saves more.
                (run.end - run.start > span.end - span.start).then_some(packed_run)
            }
        };
        // An error says that the span stays as it is.
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).unwrap_or_default();
    }
}

/// A segment is shorter than 2 GiB, so both ends fit.
fn packed(range: &Range<u64>) -> Option<u64> {
    let start = u32::try_from(range.start).ok()?;
    let end = u32::try_from(range.end).ok()?;
    (start < end).then_some(u64::from(start) << 32 | u64::from(end))
}

fn unpacked(packed: u64) -> Range<u64> {
    packed >> 32..packed & u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span_after(runs: &[Range<u64>]) -> Range<u64> {
        let verified = Verified::new(u64::MAX);
        for run in runs {
            verified.note(run.clone(), Checks::All);
        }
        verified.all.get()
    }

    #[test]
    fn runs_that_touch_are_joined_and_of_others_the_longer_stays() {
        assert_eq!(span_after(&[]), 0..0);
        assert_eq!(span_after(&[100..200, 200..300]), 100..300);
        assert_eq!(span_after(&[100..200, 50..100]), 50..200);
        assert_eq!(span_after(&[100..200, 120..150]), 100..200);
        assert_eq!(span_after(&[100..200, 50..250]), 50..250);
        assert_eq!(span_after(&[100..200, 201..250]), 100..200);
        assert_eq!(span_after(&[100..200, 201..400]), 201..400);
        assert_eq!(span_after(&[0..1, 1..u64::from(u32::MAX)]), 0..u64::from(u32::MAX));
        assert_eq!(span_after(&[5..5, 0..u64::MAX]), 0..0);
    }

    #[test]
    fn what_was_checked_less_does_not_count_as_checked_more() {
        let verified = Verified::new(1000);
        verified.note(0..500, Checks::Structure);
        assert!(verified.known(Checks::Structure).holds(499));
        assert!(!verified.known(Checks::All).holds(499));
        assert!(!verified.known(Checks::Structure).holds(500));
        // What was checked more counts as checked less.
        verified.note(100..900, Checks::All);
        assert!(verified.known(Checks::Structure).holds(899));
        assert!(!verified.known(Checks::All).holds(99));
        assert!(verified.known(Checks::All).holds(1000));
    }
}
