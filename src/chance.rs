//! Tests only: numbers that look random, the same ones for the same seed; numbers that somebody thought of; and those
//! that whoever runs a test has told it.

use std::cell::RefCell;

thread_local! {
    /// What the numbers of this thread are taken from, instead of from seeds: the rest of it, its end first.
    static CHOSEN: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Has the numbers of this thread taken from bytes until `None` is given; when those are used up, they are 0.
#[allow(dead_code, reason = "for fuzzers only")]
pub(crate) fn choose(choices: Option<&[u8]>) {
    CHOSEN.set(choices.map(|bytes| bytes.iter().rev().copied().collect()));
}

/// Gives the number below the limit that was thought of. Not seeds, which would use up a lot and mean nothing.
fn chosen(limit: u64) -> Option<u64> {
    CHOSEN.with_borrow_mut(|chosen| {
        let bytes = chosen.as_mut().filter(|_| limit <= 1 << 16)?;
        let mut next = || u64::from(bytes.pop().unwrap_or(0));
        let number = if limit <= 1 << 8 { next() } else { next() << 8 | next() };
        Some(number % limit)
    })
}

/// Gives the number that whoever runs the test has set, as in `OTTLA_LIVES=1000`. One that cannot be read is not ignored.
pub(crate) fn told(name: &str) -> Option<u64> {
    let text = std::env::var_os(name)?;
    let number = text.to_str().and_then(|text| text.parse().ok());
    assert!(number.is_some(), "{name} is {text:?}, which is no number");
    number
}

/// Gives the seed of `OTTLA_SEED`, or one that nobody has seen before.
#[allow(dead_code, reason = "for tests in processes of their own")]
pub(crate) fn seed() -> u64 {
    use std::hash::BuildHasher;
    told("OTTLA_SEED").unwrap_or_else(|| std::hash::RandomState::new().hash_one(0))
}

/// A seed other than 0, and what has become of it.
#[derive(Debug)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// Gives a number below the limit, which is not 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        if let Some(number) = chosen(limit) {
            return number;
        }
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// Gives an index into so many.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }
}
