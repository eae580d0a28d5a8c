//! What the background thread can be asked to look after without knowing what it is.

use std::fmt::Debug;
use std::time::Instant;

/// Something that has work to do at a time it knows itself.
pub(crate) trait Due: Debug + Send + Sync {
    /// Does what is due by now, and says when to come again; `None` if it will ask.
    fn do_what_is_due(&self, now: Instant) -> Option<Instant>;
}
