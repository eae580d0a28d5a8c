//! What lies in a data directory: one module for each kind of file. No threads.
//!
//! ```text
//! <root>/.lock .kafka_cleanshutdown *-checkpoint ottla.topics
//! <root>/<topic>-<n>/<20 digits>.log .index .timeindex .snapshot
//! <root>/<topic>-<n>/leader-epoch-checkpoint partition.metadata ottla.compacted
//! ```

pub(crate) mod brought;
mod calls;
pub(crate) mod catalog;
pub(crate) mod checkpoint;
mod damage;
pub(crate) mod disk;
mod door;
pub(crate) mod extent;
#[cfg(test)]
pub(crate) mod faults;
pub(crate) mod file_name;
mod front;
pub(crate) mod gaps;
pub(crate) mod indexes;
pub(crate) mod large_pages;
pub(crate) mod lock;
mod look_up;
pub(crate) mod map;
pub(crate) mod marks;
pub(crate) mod medium;
#[cfg(test)]
pub(crate) mod memory;
pub(crate) mod offset_index;
#[cfg(test)]
pub(crate) mod outcomes;
pub(crate) mod parked_indexes;
pub(crate) mod planted;
pub(crate) mod point;
pub(crate) mod removal;
mod runway;
pub(crate) mod scan;
pub(crate) mod segment;
pub(crate) mod segment_files;
pub(crate) mod swap;
pub(crate) mod time_index;
pub(crate) mod transaction_index;
pub(crate) mod verified;
