//! How far a responder's thread has come, and what of it may be committed.
//!
//! **Invariant (answered first).** An offset is committed only once the replies to all requests below it are appended,
//! and durable, or it is certain that there will be none. So whatever is cut off, a kill or a power cut, takes no answer
//! with it: at worst a request is dealt with twice.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use crate::error::Result;
use crate::partition::Partition;
use crate::topic::TopicPartition;

/// What was dealt with and is not committed.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Since the mark.
    latest: Stretch,
    /// What waits to become durable, to be committed as a whole.
    mark: Option<Stretch>,
    /// Where the latest reply went and ended: most go where the one before went. Not among the others yet.
    latest_reply: Option<(Arc<Partition>, i64)>,
}

/// Requests that were dealt with, and where their replies end.
#[derive(Debug, Default)]
pub(crate) struct Stretch {
    requests: Vec<Reached>,
    /// By the partition's address: it is held, so nobody else has it.
    replies: HashMap<usize, (Arc<Partition>, i64)>,
}

/// How far a partition of the requests was dealt with.
#[derive(Debug)]
struct Reached {
    partition: TopicPartition,
    log: Arc<Partition>,
    next: i64,
}

impl Progress {
    /// Notes that everything below `next` was dealt with.
    pub(crate) fn note_request(&mut self, partition: &TopicPartition, next: i64) -> Result<()> {
        let known = self.latest.requests.iter_mut().find(|known| known.partition == *partition);
        match known {
            Some(known) => known.next = next,
            None => {
                let log = partition.open()?;
                self.latest.requests.push(Reached { partition: partition.clone(), log, next });
            }
        }
        Ok(())
    }

    /// Notes a reply; called before its request is noted.
    #[inline]
    pub(crate) fn note_reply(&mut self, log: &Arc<Partition>, end: i64) {
        match &mut self.latest_reply {
            Some((known, known_end)) if Arc::ptr_eq(known, log) => *known_end = end.max(*known_end),
            latest => {
                let before = latest.replace((Arc::clone(log), end));
                self.settle_reply(before);
            }
        }
    }

    /// Puts a reply among the others.
    fn settle_reply(&mut self, reply: Option<(Arc<Partition>, i64)>) {
        let Some((log, end)) = reply else { return };
        let entry = self.latest.replies.entry(Arc::as_ptr(&log) as usize);
        let (_, known) = entry.or_insert((log, end));
        *known = end.max(*known);
    }

    /// Forgets partitions that are another member's by now.
    pub(crate) fn forget(&mut self, is_meant: impl Fn(&TopicPartition) -> bool) {
        for stretch in [Some(&mut self.latest), self.mark.as_mut()].into_iter().flatten() {
            stretch.requests.retain(|reached| !is_meant(&reached.partition));
        }
        if self.mark.as_ref().is_some_and(|mark| mark.requests.is_empty()) {
            self.mark = None;
        }
    }

    pub(crate) fn is_committed(&self) -> bool {
        self.latest.requests.is_empty() && self.mark.is_none()
    }

    /// Gives the replies that were appended since the mark, and where they end.
    pub(crate) fn latest_replies(&mut self) -> Vec<(Arc<Partition>, i64)> {
        let latest = self.latest_reply.take();
        self.settle_reply(latest);
        self.latest.replies.values().cloned().collect()
    }

    /// Gives what can be committed without waiting for a sync; what came since waits for the next time.
    pub(crate) fn take_durable(&mut self) -> Option<Stretch> {
        if self.mark.is_none() && !self.latest.requests.is_empty() {
            let latest = self.latest_reply.take();
            self.settle_reply(latest);
            self.mark = Some(mem::take(&mut self.latest));
        }
        self.mark.take_if(|mark| mark.is_durable())
    }

    /// Gives everything; the caller waits until it is durable.
    pub(crate) fn take_all(&mut self) -> Stretch {
        let latest = self.latest_reply.take();
        self.settle_reply(latest);
        let mut all = self.mark.take().unwrap_or_default();
        let Stretch { requests, replies } = mem::take(&mut self.latest);
        for reached in requests {
            all.requests.retain(|older| older.partition != reached.partition);
            all.requests.push(reached);
        }
        for (key, (log, end)) in replies {
            let (_, known) = all.replies.entry(key).or_insert((log, end));
            *known = end.max(*known);
        }
        all
    }

    /// Takes back what could not be committed.
    pub(crate) fn put_back(&mut self, stretch: Stretch) {
        debug_assert!(self.mark.is_none(), "a stretch is taken when there is no other mark");
        let newer = mem::replace(&mut self.latest, stretch);
        for reached in newer.requests {
            self.latest.requests.retain(|older| older.partition != reached.partition);
            self.latest.requests.push(reached);
        }
        for (log, end) in newer.replies.into_values() {
            self.note_reply(&log, end);
        }
    }
}

impl Stretch {
    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    fn is_durable(&self) -> bool {
        let is_behind = |log: &Partition, end| log.watermarks().durable_end() >= end;
        self.requests.iter().all(|reached| is_behind(&reached.log, reached.next))
            && self.replies.values().all(|(log, end)| log.is_deleted() || is_behind(log, *end))
    }

    /// Blocks until all replies are durable; those in topics that were deleted are nobody's any more.
    pub(crate) fn wait(&self) -> Result<()> {
        self.replies.values().try_for_each(|(log, end)| wait_durable(log, *end))
    }

    /// Gives the offsets to commit.
    pub(crate) fn offsets(&self) -> Vec<(TopicPartition, i64)> {
        self.requests.iter().map(|reached| (reached.partition.clone(), reached.next)).collect()
    }
}

/// Blocks until a log is durable up to `end`, or was deleted.
pub(crate) fn wait_durable(log: &Arc<Partition>, end: i64) -> Result<()> {
    match log.wait_durable(end) {
        Err(_) if log.is_deleted() => Ok(()),
        waited => waited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Durability;
    use crate::Record;
    use crate::Store;
    use crate::TopicConfig;

    #[test]
    fn nothing_is_committed_before_its_replies_are_durable_and_then_as_far_as_they_are() {
        let store = Store::builder_temporary().durability(Durability::Buffered).open().unwrap();
        let requests = store.create_topic("requests", TopicConfig::new()).unwrap();
        let replies = store.create_topic("replies", TopicConfig::new()).unwrap();
        let (request_log, reply_log) =
            (requests.state.open_partition(0).unwrap(), replies.state.open_partition(0).unwrap());
        let producer = store.producer();
        let partition = requests.partition(0).unwrap();
        let mut progress = Progress::default();
        let deal_with = |progress: &mut Progress| {
            producer.send(&requests, Record::new("q")).unwrap();
            producer.send(&replies, Record::new("a")).unwrap();
            progress.note_reply(&reply_log, reply_log.watermarks().log_end());
            let next = request_log.watermarks().log_end();
            progress.note_request(&partition, next).unwrap();
        };
        let offsets = |stretch: Option<Stretch>| stretch.map(|stretch| stretch.offsets()[0].1);
        deal_with(&mut progress);
        request_log.wait_durable(1).unwrap();
        assert_eq!(offsets(progress.take_durable()), None, "the reply is not durable");
        deal_with(&mut progress);
        reply_log.wait_durable(1).unwrap();
        // One sync makes durable what came meanwhile, too; it is not looked at before it is marked.
        assert_eq!(offsets(progress.take_durable()), Some(1));
        assert!(!progress.is_committed());
        assert_eq!(offsets(progress.take_durable()), None, "the request is not durable");
        request_log.wait_durable(2).unwrap();
        reply_log.wait_durable(2).unwrap();
        let taken = progress.take_durable().unwrap();
        assert!(progress.is_committed());
        progress.put_back(taken);
        deal_with(&mut progress);
        let all = progress.take_all();
        assert_eq!(all.offsets(), [(partition.clone(), 3)]);
        all.wait().unwrap();
        assert_eq!(reply_log.watermarks().durable_end(), 3);
        deal_with(&mut progress);
        progress.forget(|forgotten| *forgotten == partition);
        assert!(progress.is_committed());
    }
}
