//! The bytes that are sent: random, reproducible by a seed, and checked when they come back.

/// Values of one length, each given by its number.
pub(crate) struct Payload {
    pool: Vec<u8>,
    value_len: usize,
    /// The places in the pool at which a value can begin.
    places: u64,
}

/// Consecutive values.
#[derive(Clone)]
pub(crate) struct Values<'p> {
    payload: &'p Payload,
    next: u64,
    end: u64,
    period: u64,
}

/// What a reader saw: how many values, and their content in this order and in any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Touch {
    pub(crate) count: u64,
    /// Independent of the order: what several threads appended comes as it likes.
    pub(crate) sum: u64,
    /// Changes with the order.
    pub(crate) chain: u64,
}

impl Payload {
    pub(crate) fn new(seed: u64, value_len: usize) -> Payload {
        let mut state = seed;
        let words = (POOL_LEN + value_len).div_ceil(8);
        let mut pool = Vec::with_capacity(words * 8);
        for _ in 0..words {
            state = state.wrapping_add(GOLDEN);
            pool.extend_from_slice(&mixed(state).to_le_bytes());
        }
        Payload { pool, value_len, places: POOL_LEN as u64 }
    }

    pub(crate) fn value_len(&self) -> usize {
        self.value_len
    }

    #[inline]
    pub(crate) fn value(&self, index: u64) -> &[u8] {
        // The upper bits of a product spread evenly whatever the number of places.
        let spread = index.wrapping_mul(GOLDEN);
        let spread = (spread ^ (spread >> 32)).wrapping_mul(GOLDEN);
        let at = ((u128::from(spread) * u128::from(self.places)) >> 64) as usize;
        &self.pool[at..at + self.value_len]
    }

    pub(crate) fn values(&self, begin: u64, end: u64) -> Values<'_> {
        Values { payload: self, next: begin, end, period: u64::MAX }
    }

    /// As [`values`](Self::values), but the content repeats after `period` values.
    pub(crate) fn repeating(&self, begin: u64, end: u64, period: Option<u64>) -> Values<'_> {
        Values { period: period.unwrap_or(u64::MAX), ..self.values(begin, end) }
    }
}

impl<'p> Values<'p> {
    /// Gives what a reader of exactly these values sees.
    pub(crate) fn touch(self) -> Touch {
        let mut touch = Touch::default();
        for value in self {
            touch.take(value);
        }
        touch
    }
}

impl<'p> Iterator for Values<'p> {
    type Item = &'p [u8];

    #[inline]
    fn next(&mut self) -> Option<&'p [u8]> {
        if self.next >= self.end {
            return None;
        }
        let index = self.next;
        self.next += 1;
        let is_first_pass = index < self.period;
        Some(self.payload.value(if is_first_pass { index } else { index % self.period }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end.saturating_sub(self.next) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Values<'_> {}

impl Touch {
    /// Adds up the value's 8-byte words: every byte is loaded, and the compiler may use its widest registers.
    #[inline]
    pub(crate) fn take(&mut self, value: &[u8]) {
        let mut sum = value.len() as u64;
        for word in value.chunks_exact(8) {
            let word = word.first_chunk().copied().unwrap_or_default();
            sum = sum.wrapping_add(u64::from_le_bytes(word));
        }
        // The last word once more, shifted: covers the bytes behind the last whole one.
        if let Some(last) = value.last_chunk::<8>() {
            sum = sum.wrapping_add(u64::from_le_bytes(*last).rotate_left(13));
        }
        self.count += 1;
        self.sum = self.sum.wrapping_add(sum);
        self.chain = self.chain.wrapping_mul(GOLDEN).wrapping_add(sum);
    }
}

fn mixed(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Small enough to stay in a cache of the processor: reading the source must not be the cost.
const POOL_LEN: usize = 1 << 20;
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
