//! Room in a directory that may not take more than so many bytes: the oldest segments of all logs go.
//!
//! Of all logs whose topics delete, the one that takes most loses its oldest full segment, until there is room. Where no
//! full segment is left, the largest one that is being appended to is followed by another, and goes. Before any of them
//! those go that are deleted already, whose files are kept for `file.delete.delay.ms`.

use std::sync::Arc;
use std::sync::Weak;

use crate::error::Error;
use crate::error::Result;
use crate::partition::Attention;
use crate::partition::budget::Budget;
use crate::partition::budget::MakesRoom;
use crate::partition::removing::Patience;
use crate::partition::removing::Waiting;
use crate::partition::retention::Kept;
use crate::topics::Topics;
use crate::topics::retaining::Named;

/// A log that may be let go of, and how far that is planned.
struct Candidate {
    named: Named,
    kept: Vec<Kept>,
    /// So many segments are to go.
    count: usize,
    /// What is left of it then.
    len: u64,
}

impl Topics {
    /// Has appends that meet the bound come here.
    pub(crate) fn serve_budget(self: &Arc<Self>) {
        let this: Weak<Topics> = Arc::downgrade(self);
        self.budget.serve(this);
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Lets the oldest segments go until `wanted` bytes more fit the budget, with a margin. Returns at once if they do.
    ///
    /// # Errors
    ///
    /// * As [`retain`](Self::retain).
    pub(crate) fn make_room_for(&self, wanted: u64) -> Result<()> {
        let _turn = self.lets_go.lock();
        self.budget.begin_to_look();
        let excess = self.budget.excess(wanted);
        if excess == 0 {
            return Ok(());
        }
        // The first to go, and if that is enough, the last.
        self.remove_doomed()?;
        let mut candidates = self.candidates();
        // Compaction has freed what it has freed.
        let excess = self.budget.excess(wanted);
        let mut freed = plan(&mut candidates, excess);
        let needed = self.budget.shortfall(wanted);
        while freed < needed {
            // What is being appended to, and the largest first; nothing is left of that log then.
            let largest = candidates.iter_mut().max_by_key(|candidate| candidate.len);
            let Some(largest) = largest.filter(|candidate| candidate.len > 0) else { break };
            let (_, _, open) = &largest.named;
            open.roll_now()?;
            largest.kept = open.kept()?;
            largest.count = largest.kept.len() - 1;
            freed += largest.len;
            largest.len = 0;
        }
        let mut failed = None;
        let mut plans = Vec::new();
        for Candidate { named, kept, count, .. } in &candidates {
            if *count == 0 {
                continue;
            }
            match named.2.prepare_to_let_go(kept, *count) {
                Ok(plan) => plans.push((named, plan)),
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        self.let_go(&plans, Patience::Wait, &mut failed)?;
        // What went for the sake of room makes some at once.
        self.remove_doomed()?;
        failed.map_or(Ok(()), Err)
    }

    /// Gives the logs that may be let go of, charged anew. One that cannot be looked at is left alone, and told of.
    fn candidates(&self) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for named in self.all_open() {
            let (_, _, open) = &named;
            let may_go = open.is_charged()
                && open.policy().deletes
                && !open.is_deleted()
                && open.latch_reason().is_none();
            if !may_go {
                continue;
            }
            let kept = match open.recharge().and_then(|()| open.kept()) {
                Ok(kept) => kept,
                Err(_) if open.is_deleted() => continue,
                Err(error) => {
                    self.note_once("making room", &error);
                    continue;
                }
            };
            let len = kept.iter().map(|segment| segment.extent.len).sum();
            candidates.push(Candidate { named, kept, count: 0, len });
        }
        candidates
    }
}

/// Plans to let full segments go, each of the log that has most by then; gives how many bytes that frees.
fn plan(candidates: &mut [Candidate], excess: u64) -> u64 {
    let mut freed = 0;
    while freed < excess {
        let has_full = |candidate: &&mut Candidate| candidate.count + 1 < candidate.kept.len();
        let largest = candidates.iter_mut().filter(has_full).max_by_key(|candidate| candidate.len);
        let Some(largest) = largest else { break };
        let len = largest.kept[largest.count].extent.len;
        largest.count += 1;
        largest.len -= len;
        freed += len;
    }
    freed
}

impl MakesRoom for Topics {
    fn make_room(&self, wanted: u64) -> Result<()> {
        match self.make_room_for(wanted) {
            // Being closed: so is the log that is appended to.
            Err(Error::Closed) => Ok(()),
            made => made,
        }
    }

    fn remove_doomed(&self) -> Result<u64> {
        let mut len = 0;
        for (_, _, open) in self.all_open() {
            match open.remove_doomed(Waiting::All) {
                // It is being closed or deleted.
                Err(Error::Closed) => {}
                removed => len += removed?,
            }
        }
        Ok(len)
    }

    fn ask_for_room(&self) {
        self.ask(Attention::Room);
    }
}
