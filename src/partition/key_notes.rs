//! What is noted of records while a compaction walks over them: by the thread that walks, or by another beside it.
//!
//! A look into the table of keys waits for memory, most times. Beside a long walk that somebody waits for, a thread
//! notes what the walk brings, in bundles: keys one behind the other, copied, so that nothing is shared. It touches no
//! file, goes no faster than the walk does, and ends before the compaction does.

use std::panic::resume_unwind;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::thread::JoinHandle;

use crate::partition::latest_offsets::LatestOffsets;
use crate::partition::latest_offsets::Note;

/// Notes records that come in the order of their offsets.
#[derive(Debug)]
pub(super) struct KeyNotes {
    latest: LatestOffsets,
    /// Of some records with keys; they are still to be put.
    pending: Vec<Note>,
    /// There was no room for the record at this offset.
    full_at: Option<i64>,
}

/// What counts of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'k> {
    pub(super) offset: i64,
    pub(super) key: Option<&'k [u8]>,
    pub(super) is_tombstone: bool,
}

/// Has records noted by a thread of its own.
#[derive(Debug)]
pub(super) struct KeyNotesBeside {
    bundle: Bundle,
    /// `None` once nothing more is to be noted.
    filled: Option<SyncSender<Bundle>>,
    emptied: Receiver<Bundle>,
    thread: Option<JoinHandle<KeyNotes>>,
}

/// Some records: their keys one behind the other, and how long each is.
#[derive(Debug, Default)]
struct Bundle {
    keys: Vec<u8>,
    records: Vec<Bundled>,
}

#[derive(Clone, Copy, Debug)]
struct Bundled {
    offset: i64,
    /// Negative if there is no key, as in Kafka's formats.
    key_len: i32,
    is_tombstone: bool,
}

impl KeyNotes {
    /// Makes one that has noted nothing, for records from an offset on, in so much memory.
    pub(super) fn within(bytes_max: usize, from: i64) -> KeyNotes {
        let latest = LatestOffsets::within(bytes_max, from);
        KeyNotes { latest, pending: Vec::with_capacity(FETCHED_MAX), full_at: None }
    }

    /// Takes note of the next record, unless there was no room for one before.
    #[inline]
    pub(super) fn take(&mut self, record: Seen<'_>) {
        if self.full_at.is_some() {
            return;
        }
        match record.key.map(|key| self.latest.note(key, record.offset)) {
            Some(Some(note)) => self.pending.push(note),
            Some(None) => self.full_at = Some(record.offset),
            None => self.latest.put_keyless(record.offset),
        }
        if record.is_tombstone {
            self.latest.put_tombstone(record.offset);
        }
        if self.pending.len() == FETCHED_MAX {
            self.put_pending();
        }
    }

    /// Tells whether there was no room for a record; of the last few that may not be known yet.
    pub(super) fn is_full(&self) -> bool {
        self.full_at.is_some()
    }

    /// Gives what was noted, and the offset of the first record for which there was no room.
    pub(super) fn done(mut self) -> (LatestOffsets, Option<i64>) {
        self.put_pending();
        (self.latest, self.full_at)
    }

    fn put_pending(&mut self) {
        self.full_at = self.latest.put(&self.pending).or(self.full_at);
        self.pending.clear();
    }

    fn take_all(&mut self, bundle: &Bundle) {
        let mut keys = &bundle.keys[..];
        for record in &bundle.records {
            let key = usize::try_from(record.key_len).ok().map(|len| {
                let (key, behind) = keys.split_at(len);
                keys = behind;
                key
            });
            self.take(Seen { offset: record.offset, key, is_tombstone: record.is_tombstone });
        }
    }
}

impl KeyNotesBeside {
    /// Has a thread note what is brought; `None` if there is no thread to be had. As [`KeyNotes::within`].
    pub(super) fn begin(bytes_max: usize, from: i64) -> Option<KeyNotesBeside> {
        let (filled, bundles) = mpsc::sync_channel(BUNDLES_AHEAD);
        let (back, emptied) = mpsc::channel();
        let note = move || note_all(KeyNotes::within(bytes_max, from), &bundles, &back);
        let thread = thread::Builder::new().name("ottla-keys".into()).spawn(note).ok()?;
        let bundle = Bundle::default();
        Some(KeyNotesBeside { bundle, filled: Some(filled), emptied, thread: Some(thread) })
    }

    /// Has the next record noted. Waits if the thread is far behind.
    #[inline]
    pub(super) fn take(&mut self, record: Seen<'_>) {
        let Bundle { keys, records } = &mut self.bundle;
        let key_len = record.key.map_or(-1, |key| key.len() as i32);
        keys.extend_from_slice(record.key.unwrap_or_default());
        let Seen { offset, is_tombstone, .. } = record;
        records.push(Bundled { offset, key_len, is_tombstone });
        if records.len() >= BUNDLE_RECORDS || keys.len() >= BUNDLE_KEYS_LEN {
            self.send();
        }
    }

    /// Tells whether nothing more is noted, since there was no room for a record; that is known some records later.
    pub(super) fn is_full(&self) -> bool {
        self.filled.is_none()
    }

    /// Gives the notes, once all of what was brought is in them.
    pub(super) fn done(mut self) -> KeyNotes {
        self.send();
        self.filled = None;
        let thread = self.thread.take().expect("only this and the drop take it");
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn send(&mut self) {
        let Some(filled) = &self.filled else {
            self.bundle.clear();
            return;
        };
        let mut next = self.emptied.try_recv().unwrap_or_default();
        next.clear();
        if filled.send(std::mem::replace(&mut self.bundle, next)).is_err() {
            self.filled = None;
        }
    }
}

impl Drop for KeyNotesBeside {
    fn drop(&mut self) {
        self.filled = None;
        if let Some(thread) = self.thread.take() {
            // Nobody asks for what it has noted.
            drop(thread.join());
        }
    }
}

impl Bundle {
    /// Forgets the records; keeps the memory unless some key was huge.
    fn clear(&mut self) {
        if self.keys.capacity() > 4 * BUNDLE_KEYS_LEN {
            self.keys = Vec::new();
        }
        self.keys.clear();
        self.records.clear();
    }
}

/// What the thread does: notes what comes until nothing comes any more, or there is no room.
fn note_all(mut notes: KeyNotes, bundles: &Receiver<Bundle>, back: &Sender<Bundle>) -> KeyNotes {
    for bundle in bundles {
        notes.take_all(&bundle);
        if notes.is_full() {
            break;
        }
        // Nobody may want it any more.
        drop(back.send(bundle));
    }
    notes
}

/// The entries of so many records are fetched before the first of them is changed: some kilobytes of cache lines.
const FETCHED_MAX: usize = 256;
/// Large enough that handing over costs nothing, small enough to stay in a processor's cache.
const BUNDLE_RECORDS: usize = 8 << 10;
const BUNDLE_KEYS_LEN: usize = 256 << 10;
/// How many bundles may wait for the thread.
const BUNDLES_AHEAD: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    /// Some of many keys, some records without one, tombstones, and now and then a key that fills a bundle.
    fn records(count: i64, chance: &mut Chance) -> Vec<(i64, Option<Vec<u8>>, bool)> {
        let key = |chance: &mut Chance| match chance.below(5000) {
            0 => Some(vec![7; 2 * BUNDLE_KEYS_LEN]),
            1..=99 => None,
            _ => Some(format!("key {}", chance.below(4000)).into_bytes()),
        };
        (0..count).map(|n| (10 + 2 * n, key(chance), chance.below(9) == 0)).collect()
    }

    #[test]
    fn what_is_noted_beside_is_what_would_have_been_noted_here() {
        let mut chance = Chance(11);
        let many = 3 * BUNDLE_RECORDS as i64;
        // Also where there is room for some of the keys only, and for none.
        for (count, bytes_max) in
            [(0, 1 << 20), (100, 1 << 20), (many, 1 << 20), (many, 40_000), (many, 0)]
        {
            let records = records(count, &mut chance);
            let mut here = KeyNotes::within(bytes_max, 10);
            let mut beside = KeyNotesBeside::begin(bytes_max, 10).unwrap();
            for (offset, key, is_tombstone) in &records {
                let seen =
                    Seen { offset: *offset, key: key.as_deref(), is_tombstone: *is_tombstone };
                here.take(seen);
                beside.take(seen);
            }
            let (here, full_at) = here.done();
            let (beside, beside_full_at) = beside.done().done();
            assert_eq!(beside_full_at, full_at);
            assert_eq!(full_at.is_some(), count == many && bytes_max < 1 << 20);
            let end = full_at.unwrap_or(i64::MAX);
            for (offset, key, _) in records.iter().filter(|record| record.0 < end) {
                let latest = |notes: &LatestOffsets| {
                    let hash = |key: &Vec<u8>| notes.of(notes.hasher().hash(key));
                    key.as_ref().and_then(hash)
                };
                assert_eq!(latest(&beside), latest(&here), "offset {offset}");
                assert_eq!(beside.known().is_gone(*offset), here.known().is_gone(*offset));
                let has_tombstones =
                    |notes: &LatestOffsets| notes.known().has_tombstones(*offset, *offset);
                assert_eq!(has_tombstones(&beside), has_tombstones(&here));
            }
        }
    }

    #[test]
    fn who_brings_records_learns_that_there_is_no_room_and_never_waits_for_it() {
        let mut beside = KeyNotesBeside::begin(0, 0).unwrap();
        let mut offset = 0;
        // The thread has ended by then, or will have.
        while !beside.is_full() {
            let key = i64::to_be_bytes(offset);
            beside.take(Seen { offset, key: Some(&key), is_tombstone: false });
            offset += 1;
        }
        beside.take(Seen { offset, key: Some(b"more"), is_tombstone: false });
        let (_, full_at) = beside.done().done();
        assert!(full_at.is_some_and(|full_at| full_at < offset));
    }

    #[test]
    fn its_thread_ends_though_nobody_asks_for_what_it_noted() {
        let mut beside = KeyNotesBeside::begin(1 << 20, 0).unwrap();
        for offset in 0..2 * BUNDLE_RECORDS as i64 {
            beside.take(Seen { offset, key: Some(b"k"), is_tombstone: false });
        }
        // Joins it.
        drop(beside);
    }
}
