//! From the log of papers to the groups, once for each life of a store.
//!
//! What cannot be understood is stepped over and told; a group is never lost for it. Commits in a transaction count
//! once its marker says that it was committed.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::coordinator::committed::Committed;
use crate::coordinator::committed::OffsetAndMetadata;
use crate::coordinator::committed::Offsets;
use crate::coordinator::papers;
use crate::error::Error;
use crate::error::Result;
use crate::format::decode::Batch;
use crate::format::decode::RawRecord;
use crate::format::group_records;
use crate::format::group_records::GroupKey;
use crate::format::group_records::GroupValue;
use crate::name::TopicName;
use crate::partition::finding::Finding;
use crate::partition::walk::Walked;
use crate::topic_state::TopicState;

/// What the log says of all groups.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) groups: HashMap<Arc<str>, LoadedGroup>,
    /// What was stepped over.
    pub(crate) findings: Vec<Finding>,
    /// Bytes of all batches that were read.
    pub(crate) len: u64,
}

/// What the log says of one group.
#[derive(Debug, Default)]
pub(crate) struct LoadedGroup {
    pub(crate) offsets: Offsets,
    pub(crate) members: Option<GroupValue>,
}

impl LoadedGroup {
    fn is_empty(&self) -> bool {
        self.offsets.is_empty() && self.members.is_none()
    }
}

/// A paper of a transaction that is not decided yet.
struct Undecided {
    offset: i64,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

/// Reads all of the log.
///
/// # Errors
///
/// * A segment could not be opened: [`Error::Io`](crate::Error::Io).
pub(crate) fn load(topic: &TopicState) -> Result<Loaded> {
    let mut loaded = Loaded::default();
    for (_, partition) in topic.open_partitions() {
        let directory = partition.directory().to_path_buf();
        let mut undecided: HashMap<i64, Vec<Undecided>> = HashMap::new();
        partition.refresh()?;
        partition.walk(|walked| match walked {
            Walked::Batch(batch) => loaded.take_batch(&directory, &batch, &mut undecided),
            Walked::Unreadable(error) => loaded.note(error_path(&error, &directory), &error),
        })?;
    }
    loaded.groups.retain(|_, group| !group.is_empty());
    Ok(loaded)
}

impl Loaded {
    fn take_batch(
        &mut self,
        directory: &Path,
        batch: &Batch<'_>,
        undecided: &mut HashMap<i64, Vec<Undecided>>,
    ) {
        let header = batch.header();
        self.len += header.len() as u64;
        if header.attributes.is_control() {
            let marker = batch.records().next().and_then(|record| record.key);
            // A control record's key: a version and a type, 0 for abort and 1 for commit.
            let is_commit = marker.is_some_and(|key| key.get(2..4) == Some(&[0, 1]));
            let decided = undecided.remove(&header.producer_id).unwrap_or_default();
            for paper in decided.into_iter().filter(|_| is_commit) {
                self.take(directory, paper.offset, Some(&paper.key), paper.value.as_deref());
            }
            return;
        }
        for record in batch.records() {
            let RawRecord { offset, key, value, .. } = record;
            match key {
                Some(key) if header.attributes.is_transactional() => {
                    let (key, value) = (key.to_vec(), value.map(<[u8]>::to_vec));
                    let paper = Undecided { offset, key, value };
                    undecided.entry(header.producer_id).or_default().push(paper);
                }
                key => self.take(directory, offset, key, value),
            }
        }
    }

    fn take(&mut self, directory: &Path, offset: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        if let Err(reason) = self.understand(key, value) {
            let path = directory.to_path_buf();
            let reason = format!("the record at offset {offset} is passed over: {reason}");
            self.findings.push(Finding::Nuisance { path, reason });
        }
    }

    fn understand(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), String> {
        let key = group_records::decode_key(key.ok_or("it has no key")?)?;
        match (key, value) {
            (GroupKey::Offset { group, topic, partition }, value) => {
                let topic = TopicName::new(topic).map_err(|_| "it names what is no topic")?;
                let partition = u32::try_from(partition).map_err(|_| "a partition is negative")?;
                let Some(value) = value else {
                    if let Some(known) = self.groups.get_mut(group) {
                        known.offsets.remove(&topic, partition);
                    }
                    return Ok(());
                };
                let value = group_records::decode_offset_value(value)?;
                if value.offset < 0 {
                    return Err("an offset is negative".to_owned());
                }
                let noted = OffsetAndMetadata::new(value.offset)
                    .with_metadata(value.metadata)
                    .with_leader_epoch(value.leader_epoch);
                let timestamp_ms = value.commit_timestamp_ms;
                self.group(group).offsets.set(topic, partition, Committed { noted, timestamp_ms });
            }
            (GroupKey::Group { group }, None) => {
                if let Some(known) = self.groups.get_mut(group) {
                    known.members = None;
                }
            }
            (GroupKey::Group { group }, Some(value)) => {
                let value = group_records::decode_group_value(value)?;
                for member in &value.members {
                    papers::assignment_of(member)?;
                    papers::topics_of(member)?;
                }
                self.group(group).members = Some(value);
            }
            (GroupKey::Other { version }, _) => {
                return Err(format!("its key has version {version}"));
            }
        }
        Ok(())
    }

    fn group(&mut self, id: &str) -> &mut LoadedGroup {
        if !self.groups.contains_key(id) {
            self.groups.insert(id.into(), LoadedGroup::default());
        }
        self.groups.get_mut(id).expect("inserted above")
    }

    fn note(&mut self, path: std::path::PathBuf, error: &Error) {
        self.findings.push(Finding::Nuisance { path, reason: error.to_string() });
    }
}

fn error_path(error: &Error, directory: &Path) -> std::path::PathBuf {
    match error {
        Error::Corrupt { path, .. } | Error::UnsupportedCompression { path, .. } => path.clone(),
        _ => directory.to_path_buf(),
    }
}
