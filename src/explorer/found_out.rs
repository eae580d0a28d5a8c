//! Bugs that are planted, and after how many recoveries the explorer finds them.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::atomic::Ordering;

use crate::chance::told;
use crate::explorer::Tally;
use crate::explorer::lineage::Lineage;
use crate::explorer::seed;
use crate::storage::planted::Planted;

/// After so many recoveries each is to be found.
const BUGS: [(Planted, u64); 14] = [
    (Planted::TemporaryNotSynced, 1_000),
    (Planted::TargetReadAfterSync, 1_000),
    (Planted::SegmentNotSynced, 1_000),
    (Planted::SyncRetried, 20_000),
    (Planted::CacheTrusted, 20_000),
    (Planted::NameNotSynced, 1_000),
    (Planted::ChecksumIgnored, 1_000),
    (Planted::PointAhead, 1_000),
    (Planted::TailKept, 1_000),
    (Planted::MarkerLeft, 1_000),
    (Planted::CutAnywhere, 1_000),
    (Planted::CutNotSynced, 20_000),
    (Planted::OffsetsIgnored, 20_000),
    (Planted::RestForgotten, 1_000),
];

/// Explores until something is wrong; gives after how many recoveries that was, and what.
fn found(bug: Planted, within: u64) -> Option<(u64, String)> {
    let tally = Tally::default();
    for n in 0.. {
        let mut lineage = Lineage::new(seed(n), Some(bug), &tally);
        let played = catch_unwind(AssertUnwindSafe(|| lineage.play()));
        let played = played.unwrap_or_else(|_| Err("a panic".into()));
        let count = tally.recoveries.load(Ordering::Relaxed);
        match played {
            Err(wrong) => return Some((count, wrong)),
            Ok(()) if count >= within => return None,
            Ok(()) => {}
        }
    }
    None
}

#[test]
fn every_bug_that_is_planted_is_found_out() {
    let factor = told("OTTLA_PATIENCE").unwrap_or(1);
    let mut missed = Vec::new();
    for (bug, within) in BUGS {
        match found(bug, within * factor) {
            Some((count, wrong)) => println!("{bug:?}: found after {count} recoveries: {wrong}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
