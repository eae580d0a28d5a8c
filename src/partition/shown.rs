//! What a partition shows to those who look at it again and again.
//!
//! A consumer that does not sleep looks at the log end millions of times a second, and with each look takes the
//! cache line it lies in from the appender. So what is looked at lies in one line, and what appenders write
//! besides (their lock, the count of the partition's holders) in others.

use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

use crate::partition::follow::Follow;
use crate::partition::watermarks::Doorbells;
use crate::partition::watermarks::Watermarks;

/// What consumers look at while they wait, all of it in one place.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Shown {
    pub(crate) watermarks: Watermarks,
    pub(crate) doorbells: Doorbells,
    /// Stored with Release by the one who deletes, loaded with Acquire by all others.
    pub(crate) is_deleted: AtomicBool,
    /// Set where another process appends.
    pub(crate) follow: Option<Box<Mutex<Follow>>>,
}

impl Shown {
    pub(crate) fn new(watermarks: Watermarks, follow: Option<Follow>) -> Shown {
        Shown {
            watermarks,
            doorbells: Doorbells::default(),
            is_deleted: AtomicBool::new(false),
            follow: follow.map(|follow| Box::new(Mutex::new(follow))),
        }
    }
}

const _: () = assert!(size_of::<Shown>() == 128);
