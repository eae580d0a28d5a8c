//! A consumer's place in a group: what it was told, and what it holds on to.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::coordinator::Coordinator;
use crate::coordinator::assignor::Assignor;
use crate::coordinator::group::Committer;
use crate::coordinator::group::Group;
use crate::coordinator::group_state::MemberKey;
use crate::coordinator::signal::Polls;
use crate::coordinator::signal::Signal;
use crate::coordinator::subscription::Subscription;
use crate::due::Due;
use crate::error::Error;
use crate::error::Result;
use crate::partition::watermarks::Doorbell;

/// What a consumer that belongs to a group was told by its builder.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupSettings {
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) client_id: Arc<str>,
    pub(crate) assignor: Assignor,
    pub(crate) auto_commit: Option<Duration>,
    pub(crate) commits_on_close: bool,
    pub(crate) max_poll_interval: Option<Duration>,
}

/// A consumer's place in a group.
pub(crate) struct Membership {
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) group: Arc<Group>,
    pub(crate) settings: GroupSettings,
    /// What it subscribes to, if it does: then it is to be a member.
    pub(crate) subscription: Option<Arc<Subscription>>,
    /// `None` while it is no member.
    pub(crate) joined: Option<Joined>,
    pub(crate) polls: Arc<Polls>,
    /// When to commit by itself next.
    pub(crate) commit_due: Option<Instant>,
    pub(crate) alarm: Arc<Alarm>,
}

/// Rings a task's bell when something is due; a thread sees to it itself.
#[derive(Debug)]
pub(crate) struct Alarm(Arc<Doorbell>);

impl Due for Alarm {
    fn do_what_is_due(&self, _: Instant) -> Option<Instant> {
        self.0.ring();
        None
    }
}

/// A membership that holds.
pub(crate) struct Joined {
    pub(crate) key: MemberKey,
    pub(crate) id: Arc<str>,
    pub(crate) signal: Arc<Signal>,
    /// The version of the topics that it had the group shown last.
    pub(crate) seen_version: u64,
    pub(crate) generation: i32,
    /// Whoever holds what this one waits for may be put out at this time.
    pub(crate) look_again: Option<Instant>,
}

/// How a membership ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// In order: committed if that was asked for, told, let go of.
    Orderly,
    /// The thread is unwinding: what is held is given to others, and nothing is said of how far it was dealt with.
    Unwinding,
}

impl GroupSettings {
    /// Refuses what Kafka would refuse, and what its records cannot hold.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |argument, reason| Err(Error::InvalidArgument { argument, reason });
        let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        match &self.instance_id {
            Some(id) if id.is_empty() || id.len() > ID_LEN_MAX => {
                refuse("group.instance.id", "it is not 1 to 249 bytes long")
            }
            Some(id) if !id.chars().all(is_legal) => {
                refuse("group.instance.id", "it has others than a-z A-Z 0-9 . _ -")
            }
            _ if self.client_id.len() > ID_LEN_MAX => {
                refuse("client.id", "it is longer than 249 bytes")
            }
            _ => match &self.assignor {
                Assignor::Custom(_) if self.assignor.name().len() > ID_LEN_MAX => {
                    refuse("assignor", "its name is longer than 249 bytes")
                }
                _ => Ok(()),
            },
        }
    }
}

/// Kafka's limit for names.
const ID_LEN_MAX: usize = 249;

impl Membership {
    pub(crate) fn new(
        coordinator: Arc<Coordinator>,
        group: &str,
        settings: GroupSettings,
        bell: &Arc<Doorbell>,
    ) -> Result<Membership> {
        let group = coordinator.group(group)?;
        let commit_due = settings.auto_commit.and_then(|every| Instant::now().checked_add(every));
        let alarm = Arc::new(Alarm(Arc::clone(bell)));
        let polls = Arc::new(Polls::new(settings.max_poll_interval));
        let (subscription, joined) = (None, None);
        Ok(Membership {
            coordinator,
            group,
            settings,
            subscription,
            joined,
            polls,
            commit_due,
            alarm,
        })
    }

    pub(crate) fn committer(&self) -> Committer {
        match (&self.joined, &self.subscription) {
            (Some(joined), _) => Committer::Member(joined.key),
            (None, Some(_)) => Committer::PutOut,
            (None, None) => Committer::Outsider,
        }
    }

    /// Lets one who is no member, and whose group was deleted, commit to the one that takes its place.
    ///
    /// # Errors
    ///
    /// * As [`Coordinator::group`].
    pub(crate) fn find_group_again(&mut self) -> Result<()> {
        if self.committer() == Committer::Outsider && self.group.is_gone() {
            self.group = self.coordinator.group(self.group.id())?;
        }
        Ok(())
    }

    /// Tells whether a look at the group might bring something.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.joined.as_ref().is_some_and(|joined| {
            joined.signal.is_pending() || joined.seen_version != self.coordinator.topics().version()
        })
    }

    /// Gives when it has something to do though nobody rings.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let look_again = self.joined.as_ref().and_then(|joined| joined.look_again);
        [self.commit_due, look_again].into_iter().flatten().min()
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").field("group", &self.group.id()).finish_non_exhaustive()
    }
}
