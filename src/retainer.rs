//! The thread that applies retention in the background, so that no one who appends, and no sync, waits for it.
//!
//! It is started when there is something for it to do, sleeps otherwise, and holds the registry weakly. It looks at all
//! partitions once an interval, and at one whenever a segment of it is full: by then it may have more than it may keep.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::Weak;
use std::thread;
use std::thread::JoinHandle;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;

use crate::error::Error;
use crate::partition::Partition;
use crate::partition::removing::Patience;
use crate::partition::removing::Waiting;
use crate::topics::Topics;
use crate::topics::retaining::Named;

/// The thread, and what it is asked for.
#[derive(Debug)]
pub(crate) struct Retainer {
    topics: Weak<Topics>,
    /// Dropped to stop the thread.
    asked: Option<Sender<Look>>,
    thread: Option<JoinHandle<()>>,
}

/// What to look at.
#[derive(Debug)]
pub(crate) enum Look {
    All,
    At(Weak<Partition>),
    /// At files of one that are kept for a while.
    AtDeleted(Weak<Partition>),
    /// At what takes most, for the store has nearly as much as it may have.
    ForRoom,
}

impl Retainer {
    pub(crate) fn new(topics: Weak<Topics>) -> Retainer {
        Retainer { topics, asked: None, thread: None }
    }

    /// Has the thread look.
    pub(crate) fn ask(&mut self, topics: &Topics, look: Look) {
        if !topics.retains_by_itself() {
            return;
        }
        if self.thread.is_none() {
            let (asked, heard) = crossbeam_channel::unbounded();
            let weak = Weak::clone(&self.topics);
            let named = thread::Builder::new().name("ottla-retention".into());
            match named.spawn(move || run(&weak, &heard)) {
                Ok(thread) => {
                    self.thread = Some(thread);
                    self.asked = Some(asked);
                }
                Err(error) => {
                    let error = Error::io("start a thread for", topics.root(), error);
                    return topics.note_once("applying retention", &error);
                }
            }
        }
        if let Some(asked) = &self.asked {
            // The thread holds the other end as long as the registry is there.
            drop(asked.send(look));
        }
    }
}

impl Drop for Retainer {
    fn drop(&mut self) {
        drop(self.asked.take());
        if let Some(thread) = self.thread.take() {
            // The last handle may be dropped by this very thread, and a thread cannot wait for its own end.
            if thread.thread().id() != thread::current().id() {
                // Its panics were caught and noted where they happened.
                drop(thread.join());
            }
        }
    }
}

fn run(topics: &Weak<Topics>, heard: &Receiver<Look>) {
    while let Ok(first) = heard.recv() {
        let Some(topics) = topics.upgrade() else { return };
        // Whatever else was asked for meanwhile is looked at in one go.
        let looks: Vec<Look> = std::iter::once(first).chain(heard.try_iter()).collect();
        let look = AssertUnwindSafe(|| look_at(&topics, &looks));
        if catch_unwind(look).is_err() {
            topics.note_panic();
        }
    }
}

fn look_at(topics: &Arc<Topics>, looks: &[Look]) {
    if looks.iter().any(|look| matches!(look, Look::ForRoom)) {
        match topics.make_room_for(0) {
            Ok(()) | Err(Error::Closed | Error::Latched { .. }) => {}
            Err(error) => topics.note_once("making room", &error),
        }
    }
    for look in looks {
        let Look::AtDeleted(partition) = look else { continue };
        let removed = partition.upgrade().map(|open| open.remove_doomed(Waiting::Over));
        match removed {
            None | Some(Ok(_) | Err(Error::Closed | Error::Latched { .. })) => {}
            // Tried again with the next look at all.
            Some(Err(error)) => topics.note_once("removing deleted segments", &error),
        }
    }
    let partitions: Vec<Named> = if looks.iter().any(|look| matches!(look, Look::All)) {
        topics.budget().begin_to_look();
        topics.all_open()
    } else {
        let mut full: HashMap<usize, Arc<Partition>> = HashMap::new();
        for look in looks {
            if let Look::At(partition) = look {
                full.extend(partition.upgrade().map(|open| (partition.as_ptr() as usize, open)));
            }
        }
        let named = |open: Arc<Partition>| {
            let (topic, number) = topics.named(&open)?;
            Some((topic, number, open))
        };
        full.into_values().filter_map(named).collect()
    };
    if partitions.is_empty() {
        return;
    }
    match topics.retain(&partitions, Patience::Pass) {
        Ok(_) | Err(Error::Closed | Error::Latched { .. }) => {}
        // Tried again with the next look.
        Err(error) => topics.note_once("applying retention", &error),
    }
}
