//! Tests only: what crashes may leave of a whole store, explored by lives that end anywhere.
//!
//! A *lineage* is a machine's history: one life after the other on the same directory. In each, records are sent to
//! several partitions through both doors, waited for or not, segments are rolled, parked, compacted and retained,
//! records deleted, topics made, grown and deleted, offsets committed, until an effect beyond which nothing takes
//! effect any more, often within the first ones of the opening itself, or a clean close. Some effects before it fail, as
//! a full disk or a failing one lets them; some reads and writes come short, and are gone on with; a failed sync loses a part of what it was to save, and the cache goes on to
//! show it. Then only the process has died, and the cache is what the next life finds, with everything in it that is
//! not on the device yet; or the power was cut, and several of the states are looked at that the device may be in.
//!
//! A *recovery* is the opening of a directory that was left in that way. What it shows is compared with what is known
//! from outside (`explorer/known.rs`): everything acknowledged is there, at its offset, byte for byte; what is there is
//! a prefix of what was sent; what an earlier recovery dropped is not back; the beginning of a log, and where a group
//! stopped, are as acknowledged or as something tried since; no commit is ahead of its log. Of some recoveries a second
//! opening is seen to change nothing, and of some [`inspect::check`] finds nothing wrong. Half of the states are looked
//! at in a copy, so that the next life is the one that recovers, and may end within that. At the end of some lineages a
//! bit of what is durable is flipped: no record may come of that, no other one be missing, and nothing be cut.
//!
//! All of it lies in memory (`storage/memory.rs`). A state that this cut has left already is not opened again.
//!
//! `OTTLA_SEED` plays one lineage again, `OTTLA_RECOVERIES` sets how many recoveries are explored, by all processors;
//! `OTTLA_FIRST` has them begin with another lineage than the first. `OTTLA_EVERY` is for one of so many processes, each of
//! which plays every so many lineages on one thread: `.ci/explore` runs them.

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod found_out;
#[cfg(test)]
mod known;
#[cfg(test)]
mod lineage;
#[cfg(test)]
#[path = "../tests/it/mounted.rs"]
#[allow(dead_code, reason = "the tests of real disks use the rest")]
mod mounted;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Instant;

use crate::chance;
use crate::chance::told;
use crate::explorer::lineage::Lineage;

/// What was done so far, by all who explore.
#[derive(Debug, Default)]
struct Tally {
    recoveries: AtomicU64,
    /// Directories that a power cut may leave.
    states: AtomicU64,
    /// Of these, how many were as one that the same cut had left already, and were not opened.
    repeated: AtomicU64,
}

fn seed(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1
}

/// Plays a lineage in which everything is chosen by bytes; says what is wrong, if something is.
pub(crate) fn play_chosen(choices: &[u8]) -> Result<(), String> {
    chance::choose(Some(choices));
    let tally = Tally::default();
    let played = Lineage::new(1, None, &tally).play();
    chance::choose(None);
    played
}

/// In an ordinary run. A machine with two processors that does nothing else does about fifteen hundred a second.
const RECOVERIES: u64 = 20_000;

#[test]
fn whatever_a_crash_leaves_of_a_store_nothing_acknowledged_is_lost_and_nothing_dropped_comes_back()
{
    if let Some(seed) = told("OTTLA_SEED") {
        let tally = Tally::default();
        Lineage::new(seed, None, &tally).play().unwrap();
        return;
    }
    let wanted = told("OTTLA_RECOVERIES").unwrap_or(RECOVERIES);
    let (begun, tally) = (Instant::now(), Tally::default());
    // Where others have not been, for a long run.
    let first = told("OTTLA_FIRST").unwrap_or(0);
    let next = AtomicU64::new(first);
    let among = told("OTTLA_EVERY");
    let every = among.unwrap_or(1);
    thread::scope(|scope| {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..among.map_or(processors, |_| 1) {
            scope.spawn(|| {
                while tally.recoveries.load(Relaxed) < wanted {
                    let seed = seed(next.fetch_add(every, Relaxed));
                    Lineage::new(seed, None, &tally).play().unwrap();
                }
            });
        }
    });
    let Tally { recoveries, states, repeated } = tally;
    let (count, seconds) = (recoveries.into_inner(), begun.elapsed().as_secs_f64());
    println!(
        "{count} recoveries in {} lineages, {:.0} a second; power cuts left {} states, and {} again; nothing wrong",
        (next.into_inner() - first) / every,
        count as f64 / seconds,
        states.into_inner() - repeated.load(Relaxed),
        repeated.into_inner(),
    );
    assert!(count >= wanted);
}

/// What fails in a lineage must be found again by its seed.
#[test]
fn a_lineage_is_the_same_each_time_it_is_played() {
    for n in 0..10 {
        let traces = [0, 1].map(|_| {
            let tally = Tally::default();
            let mut lineage = Lineage::new(seed(n), None, &tally);
            lineage.play().unwrap();
            (lineage.into_trace(), tally.recoveries.into_inner())
        });
        assert!(traces[0].0.len() > 20);
        let differ = (0..traces[0].0.len()).find(|at| traces[0].0.get(*at) != traces[1].0.get(*at));
        let around = differ.map(|at| {
            let from = at.saturating_sub(8);
            [0, 1].map(|n: usize| traces[n].0[from..(at + 2).min(traces[n].0.len())].to_vec())
        });
        assert!(traces[0] == traces[1], "lineage {n} was another one the second time: {around:#?}");
    }
}
