//! The memory that one producer's staged records may take, and its buffers, used again and again.
//!
//! Memory is taken for a whole batch when its first record is staged, and given back when the batch is in the
//! log or was refused by it, so that a record costs no accounting of its own.
//!
//! **Invariant (bounded).** The buffers that are out never add up to more than the limit, whoever panics: a
//! [`Buffer`] gives itself back when it is dropped. What is kept for use again is a small part of the limit.

use std::ops::Deref;
use std::ops::DerefMut;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::format::encode::BatchBuilder;

/// What is left of `buffer.memory`. Its lock is the last in rank.
#[derive(Debug)]
pub(crate) struct BufferPool {
    state: Mutex<PoolState>,
    freed: Condvar,
    limit: usize,
    /// The length of an ordinary buffer.
    batch_bytes: usize,
}

#[derive(Debug)]
struct PoolState {
    available: usize,
    /// Ordinary buffers that were given back, none of them counted as taken.
    spare: Vec<BatchBuilder>,
    waiting: usize,
}

/// A builder with room that was taken from the pool.
#[derive(Debug)]
pub(crate) struct Buffer {
    builder: BatchBuilder,
    len: usize,
    pool: Arc<BufferPool>,
}

impl BufferPool {
    pub(crate) fn new(limit: usize, batch_bytes: usize) -> BufferPool {
        let state = PoolState { available: limit, spare: Vec::new(), waiting: 0 };
        BufferPool { state: Mutex::new(state), freed: Condvar::new(), limit, batch_bytes }
    }

    /// Takes room for a batch of at least `len` bytes; `None` if there is not enough left.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Option<Buffer> {
        let len = self.whole(len);
        let mut state = self.state.lock();
        state.available = state.available.checked_sub(len)?;
        let spare = if len == self.batch_bytes { state.spare.pop() } else { None };
        drop(state);
        let builder = spare.unwrap_or_else(|| BatchBuilder::with_room(len));
        Some(Buffer { builder, len, pool: Arc::clone(self) })
    }

    /// Waits until there is room for a batch of `len` bytes, or something was given back; `false` if time was up.
    pub(crate) fn wait_for(&self, len: usize, deadline: Instant) -> bool {
        let len = self.whole(len);
        let mut state = self.state.lock();
        if state.available >= len {
            return true;
        }
        state.waiting += 1;
        let waited = self.freed.wait_until(&mut state, deadline);
        state.waiting -= 1;
        state.available >= len || !waited.timed_out()
    }

    /// Lets everyone who waits look again.
    pub(crate) fn wake_all(&self) {
        let _state = self.state.lock();
        self.freed.notify_all();
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    fn whole(&self, len: usize) -> usize {
        // A pool smaller than a batch gives what it has to whoever needs no more.
        len.max(self.batch_bytes.min(self.limit))
    }
}

impl Deref for Buffer {
    type Target = BatchBuilder;

    fn deref(&self) -> &BatchBuilder {
        &self.builder
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut BatchBuilder {
        &mut self.builder
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut builder = std::mem::take(&mut self.builder);
        builder.restart();
        let pool = &self.pool;
        let mut state = pool.state.lock();
        state.available += self.len;
        let is_ordinary = self.len == pool.batch_bytes;
        let spare_max = (SPARE_BYTES_MAX.min(pool.limit) / pool.batch_bytes.max(1)).max(1);
        let mut excess = Some(builder);
        if is_ordinary && state.spare.len() < spare_max {
            state.spare.extend(excess.take());
        }
        if state.waiting > 0 {
            pool.freed.notify_all();
        }
        drop(state);
        // Its memory is released without the lock.
        drop(excess);
    }
}

/// Buffers of a producer that has become quiet do not keep more memory than this, or one of them.
const SPARE_BYTES_MAX: usize = 1 << 20;
