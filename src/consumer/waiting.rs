//! How a consumer waits: it looks again for a moment, then sleeps until a bell rings; as a thread or as a task.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

use crate::consumer::Consumer;
use crate::coordinator::signal::Polls;
use crate::due::Due;
use crate::error::Result;
use crate::partition::Attention;
use crate::partition::watermarks;
use crate::records::OwnedMessage;

impl Consumer {
    /// Returns the next record as soon as there is one, for tasks of any runtime.
    ///
    /// Cancel safe: a future that is dropped has taken nothing. Reading from the disk happens on the
    /// polling thread.
    ///
    /// # Errors
    ///
    /// * As [`poll`](Self::poll).
    pub async fn recv(&mut self) -> Result<OwnedMessage> {
        let _polling = self.polling();
        poll_fn(|context| {
            loop {
                match self.next_buffered() {
                    Ok(Some(message)) => return Poll::Ready(Ok(message)),
                    Err(error) => return Poll::Ready(Err(error)),
                    Ok(None) => {}
                }
                self.bell.reset();
                if !self.bell.wake_task(context.waker()) {
                    continue;
                }
                self.arm();
                if !self.has_news() {
                    self.ask_to_be_rung_when_due();
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Waits for the bell: looks again for a moment if records have just come, then sleeps.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) {
        if std::mem::take(&mut self.has_just_read) {
            let mut spin = std::mem::take(&mut self.spin);
            let has_news = spin.until(|| self.has_news());
            self.spin = spin;
            if has_news {
                return;
            }
        }
        self.bell.reset();
        self.arm();
        if !self.has_news() {
            let due = self.membership.as_ref().and_then(|membership| membership.next_due());
            self.bell.wait_until([deadline, due].into_iter().flatten().min());
        }
    }

    /// Has a task's bell rung when the membership has something to do though nothing comes.
    fn ask_to_be_rung_when_due(&self) {
        let Some(membership) = &self.membership else { return };
        if let Some(at) = membership.next_due() {
            let alarm: Arc<dyn Due> = membership.alarm.clone();
            self.topics.ask(Attention::Call { whom: Arc::downgrade(&alarm), at });
        }
    }

    /// Notes that the application polls, until what is returned is dropped.
    pub(super) fn polling(&self) -> Option<Polling> {
        let polls = &self.membership.as_ref()?.polls;
        polls.matter().then(|| {
            polls.begin();
            Polling(Arc::clone(polls))
        })
    }

    fn arm(&self) {
        let unpaused = || self.assigned.iter().filter(|assigned| assigned.is_read());
        for assigned in unpaused() {
            assigned.open.doorbells().arm();
        }
        if self.membership.is_some() {
            self.topics.changing().arm();
        }
        watermarks::armed();
        // Where another process appends, it does so to all partitions of the store.
        if self.assigned.first().is_some_and(|assigned| assigned.open.is_followed()) {
            for assigned in unpaused() {
                assigned.open.watch();
            }
        }
    }

    /// Tells whether a read would bring something, or an error.
    pub(super) fn has_news(&self) -> bool {
        // SeqCst: pairs with `Wakeup::wake`.
        self.wakeup.load(Ordering::SeqCst)
            || self.topics.refuse_if_closed().is_err()
            || self.membership.as_ref().is_some_and(|membership| membership.has_news())
            || self.assigned.iter().any(|a| a.is_leaving && !a.is_in_hands())
            || self.assigned.iter().filter(|a| a.is_read()).any(|assigned| {
                let is_gone = assigned.place.is_none() && assigned.open.is_deleted();
                assigned.cursor.position < self.bound(&assigned.open) || is_gone
            })
    }
}

/// The application polls as long as this lives.
pub(super) struct Polling(Arc<Polls>);

impl Drop for Polling {
    fn drop(&mut self) {
        self.0.end();
    }
}
