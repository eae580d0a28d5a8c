//! From what lies in a data directory to the registry's list of topics.
//!
//! The one who writes does this once, at open: it finishes what a crash cut short, adopts the topics that
//! Kafka wrote, opens every partition. A reader does it again and again, because another process may create,
//! grow and delete topics meanwhile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::LogConfig;
use crate::config::Overrides;
use crate::error::Error;
use crate::error::Result;
use crate::name::TopicName;
use crate::partition::Opening;
use crate::partition::Partition;
use crate::partition::budget::Budget;
use crate::partition::finding::Finding;
use crate::partition::recovery::Circumstances;
use crate::storage::catalog;
use crate::storage::catalog::Catalog;
use crate::storage::catalog::CatalogEntry;
use crate::storage::catalog::TopicId;
use crate::storage::checkpoint::OffsetCheckpoint;
use crate::storage::file_name;
use crate::storage::file_name::RootDirectory;
use crate::storage::gaps::Gaps;
use crate::storage::lock::LastBoot;
use crate::storage::segment_files::SegmentContext;
use crate::topic_state::Settings;
use crate::topic_state::Slot;
use crate::topic_state::TopicState;
use crate::topics::Topics;
use crate::topics::at_once;
use crate::topics::forget_creation;
use crate::topics::new_topic_id;
use crate::topics::surroundings::Surroundings;

impl Topics {
    /// Undoes creations and finishes deletions that a crash cut short.
    pub(super) fn finish_interrupted(&self) -> Result<()> {
        let writing = self.writing()?;
        for entry in self.disk.entries(&self.root)? {
            if entry.is_directory && RootDirectory::parse(&entry.name) == RootDirectory::Deleted {
                self.disk.remove_tree(&self.root.join(&entry.name))?;
            }
            if !entry.is_directory && entry.name.ends_with(file_name::TEMPORARY_SUFFIX) {
                self.disk.remove_file(&self.root.join(&entry.name))?;
            }
        }
        let entries = writing.catalog.lock().topics.clone();
        for (name, entry) in entries {
            if entry.is_deleting {
                self.finish_deletion(writing, &name)?;
            } else if entry.partition_count != entry.partition_count_target {
                let begun = entry.partition_count..entry.partition_count_target;
                self.remove_partitions(&name, begun)?;
                self.change_catalog(writing, |catalog| forget_creation(catalog, &name))?;
            }
        }
        Ok(())
    }

    /// Opens every partition directory; topics that the catalog does not know, because Kafka wrote them,
    /// are added to it.
    pub(super) fn adopt_and_open(&self, surroundings: &Surroundings) -> Result<()> {
        let writing = self.writing()?;
        let found = self.partition_directories()?;
        let mut catalog = writing.catalog.lock().clone();
        let mut adopted = false;
        for (name, count) in found {
            if catalog.topics.contains_key(&name) {
                continue;
            }
            let id = (0..count)
                .find_map(|number| self.id_of(&name, number))
                .unwrap_or_else(new_topic_id);
            let entry = CatalogEntry {
                id,
                partition_count: count,
                partition_count_target: count,
                is_deleting: false,
                overrides: Overrides::default(),
            };
            catalog.topics.insert(name, entry);
            adopted = true;
        }
        let mut topics = Vec::new();
        for (name, entry) in &catalog.topics {
            topics.push((name, entry, Arc::new(LogConfig::resolve(&entry.overrides)?)));
        }
        let numbered = |topic| {
            let (_, entry, _): &(&TopicName, &CatalogEntry, Arc<LogConfig>) = topic;
            (0..entry.partition_count).map(move |number| (topic, number))
        };
        let partitions: Vec<_> = topics.iter().flat_map(numbered).collect();
        let open = |((name, entry, log), number): &(&(&TopicName, &CatalogEntry, _), u32)| {
            self.open_known(name, *number, entry.id, log, surroundings)
        };
        let mut slots = at_once::each(&partitions, self.threads_max(), open).into_iter();
        for (name, entry, log) in topics {
            let slots = slots.by_ref().take(entry.partition_count as usize).collect();
            let settings = Settings { overrides: entry.overrides.clone(), log };
            let state = TopicState::new(name.clone(), entry.id, settings, slots);
            self.list.write().insert(name.clone(), Arc::new(state));
        }
        if adopted {
            self.change_catalog(writing, |current| *current = catalog)?;
        }
        Ok(())
    }

    /// Opens a partition that the catalog lists: its directory must be there and belong to the topic.
    fn open_known(
        &self,
        name: &TopicName,
        number: u32,
        id: TopicId,
        log: &Arc<LogConfig>,
        surroundings: &Surroundings,
    ) -> Slot {
        let directory = self.root.join(file_name::partition_directory(name, number));
        let metadata = directory.join(file_name::PARTITION_METADATA);
        let checked = (|| {
            if !self.disk.exists(&directory)? {
                return Ok(Some("the directory is missing".into()));
            }
            if !self.disk.is_directory(&directory)? {
                // A link could lead anywhere.
                return Ok(Some("it is not a directory".into()));
            }
            match catalog::read_partition_metadata(&self.disk, &metadata)? {
                Some(found) if found != id => {
                    Ok(Some(format!("it belongs to the topic with id {found}, not {id}")))
                }
                Some(_) => Ok(None),
                None if self.writing.is_some() => {
                    catalog::write_partition_metadata(&self.disk, &metadata, id)?;
                    Ok(None)
                }
                None => Ok(None),
            }
        })();
        let reason = match checked {
            Ok(None) => return self.open_partition(name, number, log, surroundings),
            Ok(Some(reason)) => reason,
            Err::<_, Error>(error) => error.to_string(),
        };
        self.unavailable(directory, reason)
    }

    fn open_partition(
        &self,
        name: &TopicName,
        number: u32,
        log: &Arc<LogConfig>,
        surroundings: &Surroundings,
    ) -> Slot {
        match self.open_log(name, number, log, surroundings) {
            Ok((partition, findings)) => {
                self.findings.lock().extend(findings);
                Slot::Open(partition)
            }
            Err(error) => {
                let directory = self.root.join(file_name::partition_directory(name, number));
                self.unavailable(directory, error.to_string())
            }
        }
    }

    pub(super) fn open_log(
        &self,
        name: &TopicName,
        number: u32,
        log: &Arc<LogConfig>,
        surroundings: &Surroundings,
    ) -> Result<(Arc<Partition>, Vec<Finding>)> {
        let directory = self.root.join(file_name::partition_directory(name, number));
        let on_record = surroundings.recovery_points.of(name, number).unwrap_or(0);
        let opening = Opening {
            context: SegmentContext {
                disk: self.disk.clone(),
                directory: directory.into(),
                lock: self.writing.as_ref().map(|writing| Arc::clone(&writing.lock)),
                index_interval_bytes: log.index_interval_bytes,
                gaps: Gaps::below_offset(surroundings.cleaned.of(name, number).unwrap_or(0)),
            },
            config: Arc::clone(log),
            clock: self.clock.clone(),
            circumstances: Circumstances {
                clean: surroundings.clean,
                last_boot: surroundings.last_boot,
                recovery_point: on_record,
                indexed_below: on_record,
            },
            log_start: surroundings.log_starts.of(name, number).unwrap_or(0),
            attention: self.attention.clone(),
            open_segments: Arc::clone(&self.open_segments),
            live_tails: Arc::clone(&self.live_tails),
            // What coordinators put on record is small, compacted, and not refused.
            budget: match name.is_internal() {
                true => Arc::new(Budget::new(None)),
                false => Arc::clone(&self.budget),
            },
        };
        match &self.writing {
            Some(_) => Partition::open(opening),
            None => Partition::open_to_follow(opening).map(|partition| (partition, Vec::new())),
        }
    }

    fn unavailable(&self, path: PathBuf, reason: String) -> Slot {
        self.note(Finding::Unavailable { path: path.clone(), reason: reason.clone() });
        Slot::Unavailable(path, reason.into())
    }

    /// Looks for topics that another process created, grew or deleted.
    pub(super) fn look_again(&self) -> Result<()> {
        let _change = self.changes.lock();
        // Looked at first: a writer that comes takes the marker away before it changes anything.
        let clean = self.disk.exists(&self.root.join(file_name::CLEAN_SHUTDOWN))?;
        let mut ignored = Vec::new();
        let surroundings =
            Surroundings::read(&self.disk, &self.root, clean, LastBoot::Other, &mut ignored);
        let catalog = Catalog::read(&self.disk, &self.root.join(file_name::TOPICS))?;
        let found = self.partition_directories()?;
        let mut seen = BTreeMap::new();
        for (name, mut count) in found {
            let listed = catalog.topics.get(&name);
            if let Some(entry) = listed {
                if entry.is_deleting || entry.partition_count == 0 {
                    continue;
                }
                count = entry.partition_count;
            }
            let id = listed
                .map(|entry| entry.id)
                .or_else(|| (0..count).find_map(|number| self.id_of(&name, number)))
                .unwrap_or_else(new_topic_id);
            let overrides = listed.map(|entry| entry.overrides.clone()).unwrap_or_default();
            let log = Arc::new(LogConfig::resolve(&overrides)?);
            let known = self.list.read().get(&name).filter(|state| state.id == id).cloned();
            let slots_known = known.as_ref().map(|state| state.partitions.read().clone());
            let open = |number: u32| match slots_known.as_ref().and_then(|s| s.get(number as usize))
            {
                Some(Slot::Open(partition)) => Slot::Open(Arc::clone(partition)),
                _ => self.open_known(&name, number, id, &log, &surroundings),
            };
            let slots: Arc<[Slot]> = (0..count).map(open).collect();
            let state = match known {
                Some(state) => {
                    state.replace_partitions(slots);
                    state.replace_settings(Settings { overrides, log });
                    state
                }
                None => {
                    let settings = Settings { overrides, log };
                    Arc::new(TopicState::new(name.clone(), id, settings, slots))
                }
            };
            for (number, partition) in state.open_partitions() {
                let point = surroundings.recovery_points.of(&name, number).unwrap_or(0);
                partition.note_durable_elsewhere(point);
                partition
                    .note_start_elsewhere(surroundings.log_starts.of(&name, number).unwrap_or(0));
            }
            seen.insert(name, state);
        }
        let gone = std::mem::replace(&mut *self.list.write(), seen);
        for (name, state) in gone {
            let is_listed = self.list.read().get(&name).is_some_and(|now| Arc::ptr_eq(now, &state));
            if !is_listed {
                state.is_deleted.store(true, Ordering::Release);
                // Consumers ask their partitions.
                for (_, partition) in state.open_partitions() {
                    partition.mark_deleted();
                }
            }
        }
        Ok(())
    }

    /// Takes up the recovery points, and where logs begin, that another process put on record.
    pub(crate) fn refresh_checkpoints(&self) -> Result<()> {
        let read = |name| OffsetCheckpoint::read(&self.disk, &self.root.join(name));
        let (points, starts) = (read(file_name::RECOVERY_POINTS)?, read(file_name::LOG_STARTS)?);
        for (topic, number, partition) in self.all_open() {
            partition.note_durable_elsewhere(points.of(&topic, number).unwrap_or(0));
            partition.note_start_elsewhere(starts.of(&topic, number).unwrap_or(0));
        }
        Ok(())
    }

    /// Gives the topics that have partition directories, with their counts as far as those tell.
    fn partition_directories(&self) -> Result<BTreeMap<TopicName, u32>> {
        let mut found: BTreeMap<TopicName, u32> = BTreeMap::new();
        for entry in self.disk.entries(&self.root)?.into_iter().filter(|e| e.is_directory) {
            if let RootDirectory::Partition(topic, number) = RootDirectory::parse(&entry.name) {
                let count = found.entry(topic).or_default();
                *count = (*count).max(number + 1);
            }
        }
        Ok(found)
    }

    fn id_of(&self, name: &TopicName, number: u32) -> Option<TopicId> {
        let directory = self.root.join(file_name::partition_directory(name, number));
        let path = directory.join(file_name::PARTITION_METADATA);
        catalog::read_partition_metadata(&self.disk, &path).ok().flatten()
    }
}
