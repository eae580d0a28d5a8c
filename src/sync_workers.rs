//! The threads that make partitions durable in the background.
//!
//! A sync may take as long as the disk likes. Here it holds up neither the maintenance thread, which has to
//! be ahead of those who append, nor the sync of another partition: several overlap, and a disk that can do
//! better than one at a time does. Threads are started when there is something for them to do, at most
//! [`THREADS_MAX`], and sleep otherwise.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Weak;
use std::thread;
use std::thread::JoinHandle;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;

use crate::error::Result;
use crate::partition::Partition;

/// The threads, and what they are at.
#[derive(Debug)]
pub(crate) struct SyncWorkers {
    /// Dropped to stop the threads.
    jobs: Option<Sender<Job>>,
    queue: Receiver<Job>,
    done: Sender<Done>,
    threads: Vec<JoinHandle<()>>,
    /// The partitions somebody is at, by address, and what they were asked for again meanwhile.
    under_way: HashMap<usize, Option<Task>>,
}

/// What a partition needs. The later ones include the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Task {
    /// Segments that were followed by others are sealed.
    Seal,
    /// Everything that was appended becomes durable.
    Sync,
}

#[derive(Debug)]
struct Job {
    partition: Weak<Partition>,
    task: Task,
}

/// How a task ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) partition: Weak<Partition>,
    pub(crate) task: Task,
    /// `None` if it panicked.
    pub(crate) outcome: Option<Result<()>>,
}

impl SyncWorkers {
    /// Makes a team that has no threads yet, and the end from which to hear what it has done.
    pub(crate) fn new() -> (SyncWorkers, Receiver<Done>) {
        let (jobs, queue) = crossbeam_channel::unbounded();
        let (done, heard) = crossbeam_channel::unbounded();
        let workers = SyncWorkers {
            jobs: Some(jobs),
            queue,
            done,
            threads: Vec::new(),
            under_way: HashMap::new(),
        };
        (workers, heard)
    }

    /// Has a task done; if somebody is at the partition already, once more after that.
    pub(crate) fn take_on(&mut self, partition: Weak<Partition>, task: Task) {
        if let Some(again) = self.under_way.get_mut(&address(&partition)) {
            *again = (*again).max(Some(task));
            return;
        }
        self.under_way.insert(address(&partition), None);
        let job = Job { partition, task };
        if self.under_way.len() > self.threads.len() && self.threads.len() < THREADS_MAX {
            self.start_thread();
        }
        match &self.jobs {
            Some(jobs) if !self.threads.is_empty() => {
                // The queue's other end is held by `self`.
                drop(jobs.send(job));
            }
            // The system has no thread to give: later is better than never.
            _ => drop(self.done.send(job.run())),
        }
    }

    /// Notes that a task is done, and begins what the partition was asked for meanwhile.
    pub(crate) fn settle(&mut self, done: &Done) {
        if let Some(Some(again)) = self.under_way.remove(&address(&done.partition)) {
            self.take_on(Weak::clone(&done.partition), again);
        }
    }

    fn start_thread(&mut self) {
        let (queue, done) = (self.queue.clone(), self.done.clone());
        let name = format!("ottla-sync-{}", self.threads.len());
        let started = thread::Builder::new().name(name).spawn(move || {
            for job in queue {
                // Nobody listens any more once the store is closing.
                drop(done.send(job.run()));
            }
        });
        self.threads.extend(started);
    }
}

impl Job {
    fn run(self) -> Done {
        let Job { partition, task } = self;
        let run = AssertUnwindSafe(|| match (partition.upgrade(), task) {
            (None, _) => Ok(()),
            (Some(open), Task::Seal) => open.seal_followed(),
            (Some(open), Task::Sync) => open.checkpoint().map(|_| ()),
        });
        let outcome = catch_unwind(run).ok();
        Done { partition, task, outcome }
    }
}

impl Drop for SyncWorkers {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // What nobody has begun is left: the close makes everything durable itself.
        while self.queue.try_recv().is_ok() {}
        for thread in self.threads.drain(..) {
            // A job's panic was caught where it happened.
            drop(thread.join());
        }
    }
}

fn address(partition: &Weak<Partition>) -> usize {
    partition.as_ptr() as usize
}

/// More syncs at the same time than this are no faster on any disk that was measured.
const THREADS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Durability;
    use crate::Record;
    use crate::Store;
    use crate::TopicConfig;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn several_partitions_are_synchronised_and_what_is_asked_again_is_done_again() {
        let store = Store::builder_temporary()
            .durability(Durability::Buffered)
            .checkpoint_interval(Duration::from_secs(3600))
            .open()
            .unwrap();
        let topic = store.create_topic("t", TopicConfig::new().partitions(20)).unwrap();
        let (mut workers, heard) = SyncWorkers::new();
        let open: Vec<_> = (0..20).map(|n| topic.state.open_partition(n).unwrap()).collect();
        for round in 1..=3 {
            for (number, partition) in open.iter().enumerate() {
                let record = Record::new("v").partition(number as u32);
                store.producer().send(&topic, record).unwrap();
                workers.take_on(Arc::downgrade(partition), Task::Seal);
                // Asked while it may be under way.
                workers.take_on(Arc::downgrade(partition), Task::Sync);
            }
            while !workers.under_way.is_empty() {
                let done = heard.recv_timeout(Duration::from_secs(60)).unwrap();
                assert!(matches!(done.outcome, Some(Ok(()))), "{done:?}");
                workers.settle(&done);
            }
            assert!(open.iter().all(|p| p.watermarks().durable_end() == round), "{round}");
            assert_eq!(workers.threads.len(), THREADS_MAX);
        }
    }
}
