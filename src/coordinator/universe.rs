//! The topics of a directory, as far as groups care.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use crate::coordinator::subscription::Subscription;
use crate::name::TopicName;
use crate::storage::catalog::TopicId;

/// The topics of a directory, as far as groups care.
#[derive(Debug, Default)]
pub(crate) struct Universe {
    /// Grows with every change.
    pub(crate) version: u64,
    /// In the order of their names.
    pub(crate) topics: Vec<(GroupTopic, IsInternal)>,
}

/// A topic that somebody of the group wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupTopic {
    pub(crate) name: TopicName,
    pub(crate) id: TopicId,
    pub(crate) partition_count: u32,
}

/// Whether a topic is one that clients keep their own papers in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IsInternal {
    Yes,
    No,
}

impl Universe {
    /// Tells which topics, by their place in the list, a subscription wants.
    pub(crate) fn wanted_by(&self, subscription: &Subscription) -> Vec<usize> {
        let wants = |(topic, is_internal): &(GroupTopic, IsInternal)| {
            // A function of the user's that panics wants nothing.
            let wants = || subscription.wants(&topic.name, *is_internal == IsInternal::Yes);
            catch_unwind(AssertUnwindSafe(wants)).unwrap_or(false)
        };
        (0..self.topics.len()).filter(|at| wants(&self.topics[*at])).collect()
    }
}
