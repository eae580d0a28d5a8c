//! Copying framed records in memory, and nothing else.

use std::sync::Mutex;
use std::sync::PoisonError;

use crate::payload::Touch;
use crate::payload::Values;
use crate::raw;
use crate::raw::PREFIX_LEN;
use crate::subject::Log;
use crate::subject::Outcome;
use crate::subject::Scan;
use crate::subject::Setup;
use crate::subject::Subject;
use crate::subject::Variant;
use crate::subject::Work;

pub(crate) struct RawMemcpy;

/// A ring of frames; the latest stay.
struct Ring {
    state: Mutex<State>,
}

struct State {
    bytes: Vec<u8>,
    frame_len: usize,
    position: usize,
    count: u64,
}

impl Subject for RawMemcpy {
    fn name(&self) -> &'static str {
        "raw-memcpy"
    }

    fn guarantee(&self) -> &'static str {
        "nothing: framed records copied into memory that is there already"
    }

    fn variants(&self, work: Work) -> Vec<Variant> {
        raw::only(matches!(work, Work::Inline | Work::Linger))
    }

    fn open(&self, setup: &Setup<'_>) -> Outcome<Box<dyn Log>> {
        let frame_len = PREFIX_LEN + setup.payload.value_len();
        let frames = (setup.records as usize).min(RING_LEN / frame_len);
        // Not zeros: those would be pages that are not there yet.
        let bytes = vec![1; frames * frame_len];
        Ok(Box::new(Ring { state: Mutex::new(State { bytes, frame_len, position: 0, count: 0 }) }))
    }
}

impl State {
    #[inline]
    fn push(&mut self, value: &[u8]) {
        if self.position == self.bytes.len() {
            self.position = 0;
        }
        let frame = &mut self.bytes[self.position..self.position + self.frame_len];
        frame[..PREFIX_LEN].copy_from_slice(&(value.len() as u32).to_le_bytes());
        frame[PREFIX_LEN..].copy_from_slice(value);
        self.position += self.frame_len;
        self.count += 1;
    }
}

impl Log for Ring {
    fn send(&self, value: &[u8]) -> Outcome {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).push(value);
        Ok(())
    }

    fn append_each(&self, values: Values<'_>) -> Outcome {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for value in values {
            state.push(value);
        }
        Ok(())
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let frames = (state.bytes.len() / state.frame_len) as u64;
        let first = state.count.saturating_sub(frames);
        Ok(Box::new(RingScan { ring: self, next: first, first }))
    }

    fn close(self: Box<Self>) -> Outcome {
        Ok(())
    }
}

struct RingScan<'r> {
    ring: &'r Ring,
    first: u64,
    next: u64,
}

impl Scan for RingScan<'_> {
    fn next(&mut self, touch: &mut Touch) -> Outcome<bool> {
        let state = self.ring.state.lock().unwrap_or_else(PoisonError::into_inner);
        let frames = state.bytes.len() / state.frame_len;
        let end = state.count.min(self.next + 4096);
        for index in self.next..end {
            let at = (index as usize % frames) * state.frame_len;
            touch.take(&state.bytes[at + PREFIX_LEN..at + state.frame_len]);
        }
        self.next = end;
        Ok(end < state.count)
    }

    fn first(&self) -> u64 {
        self.first
    }
}

const RING_LEN: usize = 256 << 20;
