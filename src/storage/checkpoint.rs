//! Small files that are replaced atomically, in Kafka's checkpoint text format.
//!
//! Line 1 is the version `0`, line 2 the number of entries, then one entry a line, its fields separated
//! by a space. An empty file has no entries. A malformed one would take the directory offline in Kafka,
//! so a file is written beside, synchronised and renamed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use crate::error::Error;
use crate::error::Result;
use crate::name::TopicName;
use crate::storage::disk::Disk;

/// One offset for each partition, as in `recovery-point-offset-checkpoint`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OffsetCheckpoint {
    offsets: BTreeMap<(TopicName, u32), i64>,
}

impl OffsetCheckpoint {
    /// Reads the file; one that is missing has no entries.
    ///
    /// # Errors
    ///
    /// * [`Error::Corrupt`] if it is not a checkpoint. What it says can be derived by scanning.
    pub(crate) fn read(disk: &Disk, path: &Path) -> Result<OffsetCheckpoint> {
        let mut checkpoint = OffsetCheckpoint::default();
        entries(disk, path, |line, position| {
            let mut fields = line.split_whitespace();
            let entry = (|| {
                let topic = TopicName::new(fields.next()?).ok()?;
                let partition = fields.next()?.parse::<u32>().ok()?;
                let offset = fields.next()?.parse::<i64>().ok().filter(|offset| *offset >= 0)?;
                fields.next().is_none().then_some(((topic, partition), offset))
            })();
            let (key, offset) =
                entry.ok_or_else(|| malformed(path, position, "not `topic partition offset`"))?;
            checkpoint.offsets.insert(key, offset);
            Ok(())
        })?;
        Ok(checkpoint)
    }

    pub(crate) fn write(&self, disk: &Disk, path: &Path) -> Result<()> {
        let mut text = heading(self.offsets.len());
        for ((topic, partition), offset) in &self.offsets {
            writeln!(text, "{topic} {partition} {offset}").expect("a string takes everything");
        }
        disk.replace(path, text.as_bytes())
    }

    pub(crate) fn set(&mut self, topic: &TopicName, partition: u32, offset: i64) {
        self.offsets.insert((topic.clone(), partition), offset);
    }

    pub(crate) fn remove(&mut self, topic: &TopicName, partition: u32) {
        self.offsets.remove(&(topic.clone(), partition));
    }

    /// Takes a topic off the record; says whether it was on it.
    pub(crate) fn forget(&mut self, topic: &TopicName) -> bool {
        let before = self.offsets.len();
        self.offsets.retain(|(other, _), _| other != topic);
        self.offsets.len() < before
    }

    /// Takes one partition off the record.
    pub(crate) fn forget_partition(&mut self, topic: &TopicName, partition: u32) {
        self.offsets.remove(&(topic.clone(), partition));
    }

    pub(crate) fn of(&self, topic: &TopicName, partition: u32) -> Option<i64> {
        self.offsets.get(&(topic.clone(), partition)).copied()
    }
}

/// Reads pairs of numbers, as in `leader-epoch-checkpoint`; both must ascend.
pub(crate) fn read_epochs(disk: &Disk, path: &Path) -> Result<Vec<(i32, i64)>> {
    let mut epochs: Vec<(i32, i64)> = Vec::new();
    entries(disk, path, |line, position| {
        let pair = line.split_once(char::is_whitespace).and_then(|(epoch, start)| {
            Some((epoch.parse::<i32>().ok()?, start.trim().parse::<i64>().ok()?))
        });
        let ascends = |(epoch, start): &(i32, i64)| {
            *epoch >= 0 && *start >= 0 && epochs.last().is_none_or(|(e, s)| epoch > e && start >= s)
        };
        let pair = pair
            .filter(ascends)
            .ok_or_else(|| malformed(path, position, "not an ascending `epoch offset`"))?;
        epochs.push(pair);
        Ok(())
    })?;
    Ok(epochs)
}

pub(crate) fn write_epochs(disk: &Disk, path: &Path, epochs: &[(i32, i64)]) -> Result<()> {
    let mut text = heading(epochs.len());
    for (epoch, start) in epochs {
        writeln!(text, "{epoch} {start}").expect("a string takes everything");
    }
    disk.replace(path, text.as_bytes())
}

/// Reads a file that holds one offset; one that is missing holds 0.
pub(crate) fn read_offset(disk: &Disk, path: &Path) -> Result<i64> {
    if !disk.exists(path)? {
        return Ok(0);
    }
    let (mut found, mut count) = (None, 0);
    entries(disk, path, |line, position| {
        let offset = line.parse::<i64>().ok().filter(|offset| *offset >= 0);
        found = Some(offset.ok_or_else(|| malformed(path, position, "not an offset"))?);
        count += 1;
        Ok(())
    })?;
    found.filter(|_| count == 1).ok_or_else(|| malformed(path, 0, "not one offset"))
}

pub(crate) fn write_offset(disk: &Disk, path: &Path, offset: i64) -> Result<()> {
    disk.replace(path, format!("{}{offset}\n", heading(1)).as_bytes())
}

/// More than any directory needs: at some 30 bytes a partition, two million partitions.
const FILE_LEN_MAX: usize = 64 << 20;

fn heading(count: usize) -> String {
    format!("0\n{count}\n")
}

/// Gives each entry line to `take`, with the byte position it starts at.
fn entries(disk: &Disk, path: &Path, mut take: impl FnMut(&str, u64) -> Result<()>) -> Result<()> {
    let bytes = match disk.read_small(path, FILE_LEN_MAX) {
        Err(error) if error.is_not_found() => return Ok(()),
        other => other?,
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| malformed(path, 0, "not UTF-8"))?;
    if text.is_empty() {
        return Ok(());
    }
    let mut position = 0;
    let mut lines = text.split_inclusive('\n').map(|line| {
        let start = position;
        position += line.len() as u64;
        (line.trim_end(), start)
    });
    match lines.next() {
        Some(("0", _)) => {}
        _ => return Err(malformed(path, 0, "not version 0")),
    }
    let count = lines.next().and_then(|(line, _)| line.parse::<usize>().ok());
    let behind = text.lines().skip(2).filter(|line| !line.trim_end().is_empty());
    if count != Some(behind.count()) {
        return Err(malformed(path, 2, "the number of entries is not the one stated"));
    }
    for (line, start) in lines.filter(|(line, _)| !line.is_empty()) {
        take(line, start)?;
    }
    Ok(())
}

fn malformed(path: &Path, position: u64, reason: &'static str) -> Error {
    Error::Corrupt { path: path.to_path_buf(), position, reason, resume: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(directory: &tempfile::TempDir) -> std::path::PathBuf {
        directory.path().join("checkpoint")
    }

    #[test]
    fn offsets_make_the_round_trip_in_kafkas_words() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let topic = TopicName::new("orders").unwrap();
        let mut checkpoint = OffsetCheckpoint::default();
        checkpoint.set(&topic, 0, 42);
        checkpoint.set(&topic, 11, i64::MAX);
        checkpoint.write(&disk, &path(&directory)).unwrap();
        let text = std::fs::read_to_string(path(&directory)).unwrap();
        assert_eq!(text, "0\n2\norders 0 42\norders 11 9223372036854775807\n");
        assert_eq!(OffsetCheckpoint::read(&disk, &path(&directory)).unwrap(), checkpoint);
        assert_eq!(checkpoint.of(&topic, 11), Some(i64::MAX));
        assert_eq!(checkpoint.of(&topic, 1), None);
    }

    #[test]
    fn missing_and_empty_files_have_no_entries() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        assert_eq!(
            OffsetCheckpoint::read(&disk, &path(&directory)).unwrap(),
            OffsetCheckpoint::default()
        );
        std::fs::write(path(&directory), "").unwrap();
        assert_eq!(
            OffsetCheckpoint::read(&disk, &path(&directory)).unwrap(),
            OffsetCheckpoint::default()
        );
    }

    #[test]
    fn malformed_files_are_named_with_the_byte() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let disk = &disk;
        for (text, at) in [
            ("1\n0\n", 0),
            ("0\n2\na 0 1\n", 2),
            ("0\n1\na 0 x\n", 4),
            ("0\n2\na 0 1\na 0 -1\n", 10),
            ("0\n1\na/b 0 1\n", 4),
            ("0\n1\na 0 1 2\n", 4),
            ("0\n1\na -1 1\n", 4),
            ("0\n1\na 0\n", 4),
            ("0\n1\na\n", 4),
            ("0\n0\na 0 1\n", 2),
            ("0\nx\na 0 1\n", 2),
            ("0\n", 2),
            ("\n", 0),
            ("00\n0\n", 0),
        ] {
            std::fs::write(path(&directory), text).unwrap();
            match OffsetCheckpoint::read(disk, &path(&directory)) {
                Err(Error::Corrupt { position, .. }) => assert_eq!(position, at, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn epochs_make_the_round_trip_and_must_ascend() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let epochs = [(0, 0), (3, 17)];
        write_epochs(&disk, &path(&directory), &epochs).unwrap();
        assert_eq!(std::fs::read_to_string(path(&directory)).unwrap(), "0\n2\n0 0\n3 17\n");
        assert_eq!(read_epochs(&disk, &path(&directory)).unwrap(), epochs);
        // An epoch that nobody wrote in is there, and ends where the next begins.
        std::fs::write(path(&directory), "0\n3\n0 0\n1  17\n2 17\n").unwrap();
        assert_eq!(read_epochs(&disk, &path(&directory)).unwrap(), [(0, 0), (1, 17), (2, 17)]);
        for (text, at) in [
            ("0\n2\n3 17\n2 18\n", 9),
            ("0\n2\n3 17\n3 18\n", 9),
            ("0\n2\n3 17\n4 16\n", 9),
            ("0\n1\n-1 0\n", 4),
            ("0\n1\n0 -1\n", 4),
            ("0\n1\n0\n", 4),
            ("0\n1\nx 0\n", 4),
            ("0\n1\n0 x\n", 4),
            ("0\n1\n0 0 0\n", 4),
        ] {
            std::fs::write(path(&directory), text).unwrap();
            match read_epochs(&disk, &path(&directory)) {
                Err(Error::Corrupt { position, .. }) => assert_eq!(position, at, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_file_of_one_offset_holds_one_or_is_malformed() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        assert_eq!(read_offset(&disk, &path(&directory)).unwrap(), 0);
        for offset in [0, 1, i64::MAX] {
            write_offset(&disk, &path(&directory), offset).unwrap();
            assert_eq!(read_offset(&disk, &path(&directory)).unwrap(), offset);
        }
        for (text, at) in [
            ("", 0),
            ("0\n0\n", 0),
            ("0\n2\n1\n2\n", 0),
            ("0\n1\n-1\n", 4),
            ("0\n1\nx\n", 4),
            ("0\n1\n1 2\n", 4),
        ] {
            std::fs::write(path(&directory), text).unwrap();
            match read_offset(&disk, &path(&directory)) {
                Err(Error::Corrupt { position, .. }) => assert_eq!(position, at, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_taken_off_the_record_is_and_nothing_else() {
        let [a, b] = ["a", "b"].map(|name| TopicName::new(name).unwrap());
        let mut checkpoint = OffsetCheckpoint::default();
        for (topic, partition) in [(&a, 0), (&a, 1), (&a, 2), (&b, 0)] {
            checkpoint.set(topic, partition, 7);
        }
        checkpoint.remove(&a, 0);
        checkpoint.forget_partition(&a, 1);
        assert_eq!([0, 1, 2].map(|partition| checkpoint.of(&a, partition)), [None, None, Some(7)]);
        assert!(checkpoint.forget(&a));
        assert!(!checkpoint.forget(&a), "it was not on it any more");
        assert_eq!((checkpoint.of(&a, 2), checkpoint.of(&b, 0)), (None, Some(7)));
    }

    /// What a disk cannot read is not taken for a file that says nothing.
    #[test]
    fn a_file_that_cannot_be_read_is_not_one_that_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        std::fs::create_dir(path(&directory)).unwrap();
        assert!(OffsetCheckpoint::read(&disk, &path(&directory)).is_err());
        assert!(read_epochs(&disk, &path(&directory)).is_err());
        assert!(read_offset(&disk, &path(&directory)).is_err());
    }
}
