//! What everyone who holds a topic shares: the registry, its handles, deliveries and consumers.
//!
//! Changed by the registry, one change at a time, but for the sticky partition, which producers move; read by
//! all, from any thread. Settings and partitions change by way of the methods here, which count the changes, so
//! that a producer asks one atomic for each record and looks again only after a change.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
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
    /// How many partitions there are. Stored with Release behind the change it counts, loaded with Acquire.
    partition_count: AtomicU32,
    /// A number that no other settings in this process have. Stored and loaded like the count.
    settings_version: AtomicU64,
    pub(crate) is_deleted: AtomicBool,
    /// It is being deleted: nobody is to put anything on record of it. Stored with Release, loaded with Acquire.
    is_going: AtomicBool,
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
    pub(crate) fn new(
        name: TopicName,
        id: TopicId,
        settings: Settings,
        partitions: Arc<[Slot]>,
    ) -> TopicState {
        TopicState {
            // Most deliveries carry the name.
            name: name.kept(),
            id,
            settings: RwLock::new(settings),
            partition_count: AtomicU32::new(partitions.len() as u32),
            partitions: RwLock::new(partitions),
            settings_version: AtomicU64::new(next_version()),
            is_deleted: AtomicBool::new(false),
            is_going: AtomicBool::new(false),
            sticky: AtomicU64::new(0),
        }
    }

    /// Puts other partitions in place of those there are; there are never fewer.
    pub(crate) fn replace_partitions(&self, partitions: Arc<[Slot]>) {
        let mut current = self.partitions.write();
        self.partition_count.store(partitions.len() as u32, Ordering::Release);
        *current = partitions;
    }

    pub(crate) fn replace_settings(&self, settings: Settings) {
        let mut current = self.settings.write();
        *current = settings;
        self.settings_version.store(next_version(), Ordering::Release);
    }

    #[inline]
    pub(crate) fn partition_count(&self) -> u32 {
        self.partition_count.load(Ordering::Acquire)
    }

    /// Gives a number that is another one once the settings were replaced, and for every other topic.
    #[inline]
    pub(crate) fn settings_version(&self) -> u64 {
        self.settings_version.load(Ordering::Acquire)
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

    /// Says that it is being deleted, or that the deletion has failed.
    pub(crate) fn set_going(&self, is_going: bool) {
        self.is_going.store(is_going, Ordering::Release);
    }

    /// As [`refuse_if_deleted`](Self::refuse_if_deleted), and also while it is being deleted.
    pub(crate) fn refuse_if_going(&self) -> Result<()> {
        if self.is_going.load(Ordering::Acquire) {
            return Err(Error::TopicDeleted { name: self.name.to_string() });
        }
        self.refuse_if_deleted()
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

fn next_version() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // Relaxed: a number that orders nothing.
    NEXT.fetch_add(1, Ordering::Relaxed)
}
