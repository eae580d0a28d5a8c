//! Retention over all logs of a directory: what is to go is put on record for all of them in one step, then goes.

use std::sync::Arc;

use crate::error::Error;
use crate::error::Result;
use crate::name::TopicName;
use crate::partition::Partition;
use crate::partition::removing::Patience;
use crate::partition::retaining::LettingGo;
use crate::storage::removal::Order;
use crate::topics::Topics;

/// What a check of retention has let go of.
///
/// ```
/// use ottla::{Record, Store, TopicConfig};
///
/// let store = Store::temporary()?;
/// let topic = store.create_topic("t", TopicConfig::new().retention_bytes(0))?;
/// store.producer().send(&topic, Record::new("short-lived"))?;
/// let retained = store.apply_retention()?;
/// assert_eq!((retained.segments, retained.records), (1, 1));
/// assert_eq!(topic.partition(0)?.watermarks()?, (1, 1));
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retained {
    /// How many segments went.
    pub segments: usize,
    /// The bytes of batches in them.
    pub bytes: u64,
    /// How far the starts of logs moved, in offsets, all together.
    pub records: u64,
}

/// A partition with its topic's name and its number, as the registry lists them.
pub(crate) type Named = (TopicName, u32, Arc<Partition>);

impl Topics {
    /// Lets go of what retention says may go of some partitions, and closes segments that are older than `segment.ms`;
    /// gives the first error, the others are done nevertheless.
    ///
    /// # Errors
    ///
    /// * As [`Partition::plan_to_let_go`] and [`Partition::remove_below_start`].
    /// * [`Error::Io`] if it could not be put on record; then nothing went.
    pub(crate) fn retain(&self, partitions: &[Named], patience: Patience) -> Result<Retained> {
        self.writing_for("apply retention")?;
        let (now_ms, _) = self.retention_ms();
        let mut failed = None;
        // Whoever else looks, in the background or for room, finds what is left, and counts nothing that is counted here.
        let turn = self.lets_go.lock();
        let mut plans = Vec::new();
        for named in partitions {
            let (_, _, open) = named;
            if open.is_followed() || open.is_deleted() || open.latch_reason().is_some() {
                continue;
            }
            // Compaction may have made it smaller.
            match open.recharge().and_then(|()| open.plan_to_let_go(now_ms)) {
                Ok(plan) => plans.push((named, plan)),
                // It is being closed or deleted.
                Err(Error::Closed) => {}
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        let retained = self.let_go(&plans, patience, &mut failed)?;
        drop(turn);
        // Behind that, for it takes room. Nobody else looks at a log that is not appended to in this life; and what
        // `segment.ms` was changed to is to be in force for the others, too.
        for (_, _, open) in partitions {
            match open.roll_if_due(now_ms) {
                Ok(_) | Err(Error::Closed) => {}
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        failed.map_or(Ok(retained), Err)
    }

    /// Puts plans on record, and carries them out. They were made with `lets_go` held, and it still is.
    pub(super) fn let_go(
        &self,
        plans: &[(&Named, LettingGo)],
        patience: Patience,
        failed: &mut Option<Error>,
    ) -> Result<Retained> {
        let writing = self.writing()?;
        let starts: Vec<_> = plans
            .iter()
            .filter(|((_, _, open), plan)| plan.start > open.watermarks().log_start())
            .map(|((topic, number, open), plan)| (topic, *number, open, plan.start))
            .collect();
        let order = match self.note_log_starts(writing, &starts) {
            Ok(()) => Order::Any,
            // There is no room for the record of it before it has made room.
            Err(Error::OutOfSpace { .. }) => Order::OldestFirst,
            Err(other) => return Err(other),
        };
        let mut retained = Retained::default();
        for ((_, _, open), plan) in plans {
            let before = open.watermarks().log_start();
            open.raise_log_start(plan.start);
            match open.remove_below_start(patience, order) {
                Ok(()) => {}
                Err(Error::Closed) => continue,
                Err(error) => drop(failed.get_or_insert(error)),
            }
            let moved = open.watermarks().log_start().saturating_sub(before);
            retained.segments += plan.segments;
            retained.bytes += plan.bytes;
            retained.records += u64::try_from(moved).unwrap_or(0);
        }
        if order == Order::OldestFirst && !starts.is_empty() {
            self.note_log_starts(writing, &starts)?;
        }
        Ok(retained)
    }

    /// Gives the time that retention goes by, and how far the wall clock is ahead of it.
    pub(crate) fn retention_ms(&self) -> (i64, i64) {
        let wall_ms = self.clock.now_ms();
        self.steady_clock.lock().now_ms(wall_ms, self.opened_at.elapsed())
    }

    /// Tells whether retention runs by itself.
    pub(crate) fn retains_by_itself(&self) -> bool {
        // A disk with a script counts effects: nothing may happen in the background.
        #[cfg(test)]
        if self.disk.script.is_some() {
            return false;
        }
        self.writing.is_some()
    }
}
