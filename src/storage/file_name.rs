//! Every file name, spelled and parsed.

use std::path::Path;
use std::path::PathBuf;

use crate::name::TopicName;

/// In the data root.
pub(crate) const LOCK: &str = ".lock";
pub(crate) const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
pub(crate) const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
pub(crate) const LOG_STARTS: &str = "log-start-offset-checkpoint";
/// Written by Kafka: the first offset of each compacted partition that was not cleaned yet.
pub(crate) const CLEANED: &str = "cleaner-offset-checkpoint";
pub(crate) const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
/// What Kafka keeps in its metadata log: partition counts and topic configurations.
pub(crate) const TOPICS: &str = "ottla.topics";

/// The topic of a KRaft broker's metadata log; not one of ours.
pub(crate) const CLUSTER_METADATA: &str = "__cluster_metadata";

/// In a partition directory.
pub(crate) const PARTITION_METADATA: &str = "partition.metadata";
pub(crate) const LEADER_EPOCHS: &str = "leader-epoch-checkpoint";
/// Below which offset a compaction here may have left gaps.
pub(crate) const COMPACTED: &str = "ottla.compacted";
/// What recovery cut off, kept for inspection.
pub(crate) const QUARANTINE_PREFIX: &str = "ottla.cut-";
/// Here and in the data root: a small file that was damaged and is written anew by a repair, kept for inspection.
pub(crate) const DAMAGED_PREFIX: &str = "ottla.damaged-";

/// What Kafka puts behind a file's name while a compaction writes it, once it is whole and about to replace its
/// input, and before it is removed.
pub(crate) const CLEANED_SUFFIX: &str = ".cleaned";
pub(crate) const SWAP_SUFFIX: &str = ".swap";
pub(crate) const DELETED_SUFFIX: &str = ".deleted";

/// A file that is being written; it replaces its namesake once it is whole, and is swept at open.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// The kinds of file whose name is an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OffsetFile {
    Log,
    OffsetIndex,
    TimeIndex,
    TransactionIndex,
    ProducerSnapshot,
}

impl OffsetFile {
    const ALL: [(OffsetFile, &'static str); 5] = [
        (OffsetFile::Log, "log"),
        (OffsetFile::OffsetIndex, "index"),
        (OffsetFile::TimeIndex, "timeindex"),
        (OffsetFile::TransactionIndex, "txnindex"),
        (OffsetFile::ProducerSnapshot, "snapshot"),
    ];

    pub(crate) fn path(self, directory: &Path, offset: i64) -> PathBuf {
        directory.join(format!("{offset:020}.{}", self.extension()))
    }

    /// Gives the file of this kind that belongs to the same segment as `log`.
    pub(crate) fn beside(self, log: &Path) -> PathBuf {
        log.with_extension(self.extension())
    }

    /// Gives the path of a file of this kind with one of Kafka's suffixes behind its name.
    pub(crate) fn suffixed(self, directory: &Path, offset: i64, suffix: &str) -> PathBuf {
        directory.join(format!("{offset:020}.{}{suffix}", self.extension()))
    }

    /// Reads a file name; `None` if it is not one of ours, padding included.
    pub(crate) fn parse(name: &str) -> Option<(OffsetFile, i64)> {
        let (digits, extension) = name.split_once('.')?;
        let (kind, _) = *OffsetFile::ALL.iter().find(|(_, known)| *known == extension)?;
        let all_digits = digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
        Some((kind, all_digits.then(|| digits.parse().ok())??))
    }

    fn extension(self) -> &'static str {
        OffsetFile::ALL[self as usize].1
    }
}

/// What a directory in the data root is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RootDirectory {
    Partition(TopicName, u32),
    /// Renamed for deletion; to be removed.
    Deleted,
    /// Kafka's own business, or nothing we know: left alone.
    Foreign,
}

impl RootDirectory {
    pub(crate) fn parse(name: &str) -> RootDirectory {
        if is_deletion_name(name) {
            return RootDirectory::Deleted;
        }
        // A KRaft broker keeps its metadata log beside the partitions; it is not a topic.
        if name.strip_suffix("-0") == Some(CLUSTER_METADATA) {
            return RootDirectory::Foreign;
        }
        let parsed = name.rsplit_once('-').and_then(|(topic, partition)| {
            let plain = partition == "0" || !partition.starts_with('0');
            let digits = !partition.is_empty() && partition.bytes().all(|b| b.is_ascii_digit());
            let number = partition.parse().ok().filter(|n| *n <= i32::MAX as u32)?;
            Some((TopicName::new(topic).ok()?, (plain && digits).then_some(number)?))
        });
        match parsed {
            Some((topic, partition)) => RootDirectory::Partition(topic, partition),
            None => RootDirectory::Foreign,
        }
    }
}

pub(crate) fn partition_directory(topic: &TopicName, partition: u32) -> String {
    format!("{topic}-{partition}")
}

/// Gives the name a partition directory takes before it is emptied; Kafka finishes such a deletion too.
pub(crate) fn deletion_directory(topic: &TopicName, partition: u32, unique: u128) -> String {
    let suffix = format!("-{partition}.{unique:032x}{DELETION_SUFFIX}");
    let topic = topic.as_str();
    format!("{}{suffix}", &topic[..topic.len().min(NAME_LEN_MAX - suffix.len())])
}

const DIGITS: usize = 20;
const DELETION_SUFFIX: &str = "-delete";
const NAME_LEN_MAX: usize = 255;

// `extension` indexes the table by discriminant.
const _: () = assert!(OffsetFile::ProducerSnapshot as usize == OffsetFile::ALL.len() - 1);

fn is_deletion_name(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(DELETION_SUFFIX) else {
        return false;
    };
    let Some((front, unique)) = stem.rsplit_once('.') else {
        return false;
    };
    unique.len() == 32 && unique.bytes().all(|b| b.is_ascii_hexdigit()) && front.contains('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_files_make_the_round_trip() {
        for (kind, _) in OffsetFile::ALL {
            let path = kind.path(Path::new("d"), 42);
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(OffsetFile::parse(name), Some((kind, 42)), "{name}");
        }
        assert_eq!(
            OffsetFile::Log.path(Path::new("d"), 42),
            Path::new("d/00000000000000000042.log")
        );
    }

    #[test]
    fn foreign_names_are_left_alone() {
        for name in [
            "42.log",
            "00000000000000000042.log.deleted",
            "00000000000000000042",
            "0000000000000000004x.log",
            "99999999999999999999.log",
            "000000000000000000042.log",
            "leader-epoch-checkpoint",
        ] {
            assert_eq!(OffsetFile::parse(name), None, "{name}");
        }
    }

    #[test]
    fn directories_of_the_root_are_told_apart() {
        let topic = |s| TopicName::new(s).unwrap();
        let partition = |s, n| RootDirectory::Partition(topic(s), n);
        assert_eq!(RootDirectory::parse("orders-12"), partition("orders", 12));
        assert_eq!(RootDirectory::parse("a-b-0"), partition("a-b", 0));
        for foreign in [
            "orders",
            "orders-",
            "orders-01",
            "-3",
            "orders-x",
            "orders-0.stray",
            "orders-0.0123456789abcdef0123456789abcdef-stray",
            "__cluster_metadata-0",
            "x-4294967295",
        ] {
            assert_eq!(RootDirectory::parse(foreign), RootDirectory::Foreign, "{foreign}");
        }
        let long = topic(&"x".repeat(249));
        let deleted = deletion_directory(&long, 123, u128::MAX);
        assert_eq!(deleted.len(), 255);
        assert_eq!(RootDirectory::parse(&deleted), RootDirectory::Deleted);
    }
}
