//! What a data root says of its topics, as far as it can be read.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;

use crate::config::LogConfig;
use crate::error::Error;
use crate::error::Result;
use crate::format::compression::Unpacked;
use crate::format::compression::Unpacker;
use crate::format::group_records;
use crate::format::group_records::GroupKey;
use crate::inspect::check::segment_offsets;
use crate::name::TopicName;
use crate::repair::known::Known;
use crate::repair::known::OnRecord;
use crate::storage::catalog;
use crate::storage::catalog::Catalog;
use crate::storage::catalog::CatalogEntry;
use crate::storage::checkpoint::OffsetCheckpoint;
use crate::storage::disk::Access;
use crate::storage::disk::Disk;
use crate::storage::file_name;
use crate::storage::file_name::OffsetFile;
use crate::storage::file_name::RootDirectory;
use crate::storage::scan::Continuity;
use crate::storage::scan::Depth;
use crate::storage::scan::Scan;
use crate::storage::scan::Scanned;

/// The small files of a data root, and which partitions there are.
#[derive(Debug)]
pub(crate) struct RootLook {
    root: PathBuf,
    /// The last writer said that everything can be trusted.
    pub(crate) is_clean: bool,
    /// What is wrong with `ottla.topics`.
    pub(crate) catalog_damage: Option<&'static str>,
    /// What it says, or is to say; `None` if there is no such file, as where Kafka wrote.
    pub(crate) catalog: Option<Catalog>,
    pub(crate) checkpoints: Vec<CheckpointLook>,
    /// Partitions that have a directory.
    pub(crate) found: BTreeSet<(TopicName, u32)>,
    /// Groups have committed up to here.
    committed: HashMap<(TopicName, u32), i64>,
}

/// One of Kafka's checkpoints.
#[derive(Debug)]
pub(crate) struct CheckpointLook {
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
    /// Nothing, if the file is damaged.
    pub(crate) offsets: OffsetCheckpoint,
    pub(crate) damage: Option<&'static str>,
}

impl RootLook {
    pub(crate) fn at(disk: &Disk, root: &Path) -> Result<RootLook> {
        let mut found = BTreeSet::new();
        for entry in disk.entries(root)?.into_iter().filter(|entry| entry.is_directory) {
            if let RootDirectory::Partition(topic, number) = RootDirectory::parse(&entry.name) {
                found.insert((topic, number));
            }
        }
        let mut checkpoints = Vec::new();
        for name in CHECKPOINTS {
            let path = root.join(name);
            let (offsets, damage) = match OffsetCheckpoint::read(disk, &path) {
                Ok(offsets) => (offsets, None),
                Err(Error::Corrupt { reason, .. }) => (OffsetCheckpoint::default(), Some(reason)),
                Err(other) => return Err(other),
            };
            checkpoints.push(CheckpointLook { name, path, offsets, damage });
        }
        let mut look = RootLook {
            root: root.to_path_buf(),
            is_clean: disk.exists(&root.join(file_name::CLEAN_SHUTDOWN))?,
            catalog_damage: None,
            catalog: None,
            checkpoints,
            committed: HashMap::new(),
            found,
        };
        look.read_catalog(disk)?;
        look.read_committed(disk);
        Ok(look)
    }

    pub(crate) fn catalog_path(&self) -> PathBuf {
        self.root.join(file_name::TOPICS)
    }

    /// Gives every partition that there is or should be.
    pub(crate) fn partitions(&self) -> BTreeSet<(TopicName, u32)> {
        let mut partitions = self.found.clone();
        for (topic, entry) in self.catalog.iter().flat_map(|catalog| &catalog.topics) {
            let is_settled = entry.partition_count == entry.partition_count_target;
            if entry.is_deleting || !is_settled {
                // The next open finishes it.
                partitions.retain(|(other, _)| other != topic);
                continue;
            }
            partitions.extend((0..entry.partition_count).map(|number| (topic.clone(), number)));
        }
        partitions
    }

    /// Gives what is known of a partition.
    pub(crate) fn known(&self, topic: &TopicName, number: u32) -> Known {
        let entry = self.catalog.as_ref().and_then(|catalog| catalog.topics.get(topic));
        let config = entry.and_then(|entry| LogConfig::resolve(&entry.overrides).ok());
        let config = config.or_else(|| LogConfig::resolve(&Default::default()).ok());
        let of = |name: &str| {
            let look = self.checkpoints.iter().find(|look| look.name == name);
            look.and_then(|look| look.offsets.of(topic, number)).unwrap_or(0)
        };
        let is_damaged = |look: &CheckpointLook| {
            look.name == file_name::RECOVERY_POINTS && look.damage.is_some()
        };
        Known {
            directory: self.root.join(file_name::partition_directory(topic, number)),
            id: entry.map(|entry| entry.id),
            index_interval_bytes: config.map_or(4096, |config| config.index_interval_bytes),
            is_clean: self.is_clean,
            on_record: OnRecord {
                recovery_point: of(file_name::RECOVERY_POINTS),
                log_start: of(file_name::LOG_STARTS),
                high_watermark: of(file_name::HIGH_WATERMARKS),
                cleaned: of(file_name::CLEANED),
                committed: self.committed.get(&(topic.clone(), number)).copied().unwrap_or(0),
                is_incomplete: self.checkpoints.iter().any(is_damaged),
            },
        }
    }

    fn read_catalog(&mut self, disk: &Disk) -> Result<()> {
        let path = self.catalog_path();
        if !disk.exists(&path)? {
            return Ok(());
        }
        match Catalog::read(disk, &path) {
            Ok(catalog) => self.catalog = Some(catalog),
            Err(Error::Corrupt { reason, .. }) => {
                let bytes = disk.read_small(&path, SALVAGE_LEN_MAX).unwrap_or_default();
                self.catalog_damage = Some(reason);
                self.catalog = Some(self.salvaged(disk, &bytes)?);
            }
            // A setting that this version does not know: another one does.
            Err(other) => return Err(other),
        }
        Ok(())
    }

    /// Makes a list of topics from what is left of one, and from what lies there.
    ///
    /// A setting that was damaged may still look like one. So none is believed that could let records go: they are
    /// kept until somebody says otherwise.
    fn salvaged(&self, disk: &Disk, bytes: &[u8]) -> Result<Catalog> {
        let mut catalog = Catalog::salvage(bytes);
        let is_found = |name: &TopicName| self.found.iter().any(|(topic, _)| topic == name);
        catalog.topics.retain(|name, entry| entry.is_deleting || is_found(name));
        for (topic, number) in &self.found {
            let directory = self.root.join(file_name::partition_directory(topic, *number));
            let metadata = directory.join(file_name::PARTITION_METADATA);
            let id = catalog::read_partition_metadata(disk, &metadata).ok().flatten();
            let Some(id) = id.or_else(|| catalog.topics.get(topic).map(|entry| entry.id)) else {
                // The next open gives it one.
                continue;
            };
            let entry = catalog.topics.entry(topic.clone()).or_insert_with(|| CatalogEntry {
                id,
                partition_count: 0,
                partition_count_target: 0,
                is_deleting: false,
                overrides: Default::default(),
            });
            if !entry.is_deleting {
                entry.id = id;
            }
        }
        for (name, entry) in catalog.topics.iter_mut().filter(|(_, entry)| !entry.is_deleting) {
            let numbers = self.found.iter().filter(|(topic, _)| topic == name);
            let count = numbers.map(|(_, number)| number + 1).max().unwrap_or(0);
            (entry.partition_count, entry.partition_count_target) = (count, count);
            let policy = if name.is_internal() { "compact" } else { "delete" };
            entry.overrides.apply("cleanup.policy", Some(policy))?;
            entry.overrides.apply("retention.ms", Some("-1"))?;
            entry.overrides.apply("retention.bytes", Some("-1"))?;
        }
        Ok(catalog)
    }

    /// Looks how far groups have committed, as far as that can be read.
    fn read_committed(&mut self, disk: &Disk) {
        for (topic, number) in &self.found {
            if topic.as_str() != OFFSETS_TOPIC {
                continue;
            }
            let directory = self.root.join(file_name::partition_directory(topic, *number));
            // What cannot be read says nothing here; it is looked at as a log, too.
            let entries = disk.entries(&directory).unwrap_or_default();
            for base_offset in segment_offsets(&entries) {
                let path = OffsetFile::Log.path(&directory, base_offset);
                read_commits(disk, &path, &mut self.committed).unwrap_or_default();
            }
        }
    }
}

fn read_commits(
    disk: &Disk,
    path: &Path,
    committed: &mut HashMap<(TopicName, u32), i64>,
) -> Result<()> {
    let file = disk.open(path, Access::Read)?;
    let anywhere = Continuity { expected: 0, gaps_below: i64::MAX };
    let mut scan = Scan::new(&file, 0, anywhere, Depth::Checksums)?;
    let (mut unpacker, mut unpacked) = (Unpacker::default(), Unpacked::default());
    loop {
        match scan.next()? {
            Scanned::End => return Ok(()),
            Scanned::Fault { position, .. } => {
                if scan.is_zero_from(position)? {
                    return Ok(());
                }
                let expected = scan.expected();
                let Some((found, header)) = scan.resync(position, expected)? else {
                    return Ok(());
                };
                scan.resume_at(found, header.base_offset);
            }
            Scanned::Batch { bytes, .. } => {
                unpacked.clear();
                let Ok(batch) = unpacker.verify(bytes, &mut unpacked) else {
                    continue;
                };
                if batch.header().attributes.is_control() {
                    continue;
                }
                for record in batch.records() {
                    let key = record.key.map(group_records::decode_key);
                    let value = record.value.map(group_records::decode_offset_value);
                    let (Some(Ok(GroupKey::Offset { topic, partition, .. })), Some(Ok(value))) =
                        (key, value)
                    else {
                        continue;
                    };
                    let (Ok(topic), Ok(partition)) =
                        (TopicName::new(topic), u32::try_from(partition))
                    else {
                        continue;
                    };
                    let known = committed.entry((topic, partition)).or_default();
                    *known = (*known).max(value.offset);
                }
            }
        }
    }
}

const OFFSETS_TOPIC: &str = "__consumer_offsets";
const CHECKPOINTS: [&str; 4] = [
    file_name::RECOVERY_POINTS,
    file_name::LOG_STARTS,
    file_name::HIGH_WATERMARKS,
    file_name::CLEANED,
];
const SALVAGE_LEN_MAX: usize = 256 << 20;
