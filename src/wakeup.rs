//! The one thing of a consumer that other threads may hold: what ends its wait.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::partition::watermarks::Doorbell;

/// Wakes a consumer from another thread.
///
/// ```
/// # use std::time::Duration;
/// # use ottla::{Error, Store, TopicConfig};
/// # let store = Store::temporary()?;
/// # let topic = store.create_topic("t", TopicConfig::new())?;
/// let mut consumer = store.consumer().assign(topic.partitions())?;
/// let wakeup = consumer.wakeup_handle();
/// std::thread::spawn(move || wakeup.wake());
/// assert!(matches!(consumer.poll(Duration::from_secs(60)), Err(Error::Wakeup)));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Wakeup {
    pub(crate) bell: Arc<Doorbell>,
    pub(crate) flag: Arc<AtomicBool>,
}

impl Wakeup {
    /// Makes the current or the next wait of the consumer fail with
    /// [`Error::Wakeup`](crate::Error::Wakeup), exactly once. It is never lost, and several before that
    /// count as one.
    pub fn wake(&self) {
        // SeqCst, before the ring: a consumer that resets its bell after this sees the flag.
        self.flag.store(true, Ordering::SeqCst);
        self.bell.ring();
    }
}
