//! What everyone who holds a topic shares: the registry, its handles, deliveries and consumers.
//!
//! Changed by the registry, one change at a time, but for the sticky partition, which producers move; read by
//! all, from any thread.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;

use crate::config::LogConfig;
use crate::config::Overrides;
use crate::error::Error;
use crate::error::Result;
use crate::name::TopicName;
use crate::partition::Partition;
use crate::storage::catalog::TopicId;

/// What everyone who holds a topic shares.
#[derive(Debug)]
pub(crate) struct TopicState {
    pub(crate) name: TopicName,
    pub(crate) id: TopicId,
    pub(crate) settings: RwLock<Settings>,
    pub(crate) partitions: RwLock<Arc<[Slot]>>,
    pub(crate) is_deleted: AtomicBool,
    /// The partition that unkeyed records go to, and the bytes it got since it became that.
    pub(crate) sticky: AtomicU64,
}

/// A topic's configuration: what was set, and what is in force.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) overrides: Overrides,
    pub(crate) log: Arc<LogConfig>,
}

/// A partition's place in its topic.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    Open(Arc<Partition>),
    /// It could not be opened, or is not in this directory; the others are unaffected.
    Unavailable(PathBuf, Arc<str>),
}

impl TopicState {
    pub(crate) fn partition_count(&self) -> u32 {
        self.partitions.read().len() as u32
    }

    pub(crate) fn log_config(&self) -> Arc<LogConfig> {
        Arc::clone(&self.settings.read().log)
    }

    pub(crate) fn topic_name(&self) -> &TopicName {
        &self.name
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.is_deleted.load(Ordering::Acquire)
    }

    pub(crate) fn refuse_if_deleted(&self) -> Result<()> {
        if self.is_deleted() {
            return Err(Error::TopicDeleted { name: self.name.to_string() });
        }
        Ok(())
    }

    pub(crate) fn open_partition(&self, partition: u32) -> Result<Arc<Partition>> {
        match self.slot(partition)? {
            Slot::Open(open) => Ok(open),
            Slot::Unavailable(path, reason) => Err(Error::Unavailable { path, reason }),
        }
    }

    pub(crate) fn slot(&self, partition: u32) -> Result<Slot> {
        let partitions = self.partitions.read();
        partitions.get(partition as usize).cloned().ok_or_else(|| Error::UnknownPartition {
            topic: self.name.to_string(),
            partition,
            count: partitions.len() as u32,
        })
    }

    pub(crate) fn open_partitions(&self) -> Vec<(u32, Arc<Partition>)> {
        let partitions = self.partitions.read();
        let open = |(number, slot): (usize, &Slot)| match slot {
            Slot::Open(open) => Some((number as u32, Arc::clone(open))),
            Slot::Unavailable(..) => None,
        };
        partitions.iter().enumerate().filter_map(open).collect()
    }
}
