//! The file `ottla.topics`: what Kafka keeps in its metadata log.
//!
//! Names, ids, partition counts and configurations of topics, as text with a checksum, replaced
//! atomically. It is the commit point of every change to the list of topics: what it says is, and what
//! is half done says so here first.
//!
//! ```text
//! ottla.topics 1
//! topic orders C0i83-aGRiy3PKeeXzsc6g 3 3 kept
//! set segment.bytes 1048576
//! topic old 8IpZNi4pRse8Cs_QxZSQIQ 1 1 deleting
//! crc32c 1a2b3c4d
//! ```
//!
//! A topic's two counts are the partitions it has and those it is about to have; they differ only while
//! partitions are being created.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write;
use std::path::Path;

use crate::config::Overrides;
use crate::error::Error;
use crate::error::Result;
use crate::name::TopicName;
use crate::storage::disk::Disk;

/// Every topic of a data directory, as the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Catalog {
    pub(crate) topics: BTreeMap<TopicName, CatalogEntry>,
}

/// One topic's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CatalogEntry {
    pub(crate) id: TopicId,
    /// The partitions that exist.
    pub(crate) partition_count: u32,
    /// The partitions there will be when the creation under way is through.
    pub(crate) partition_count_target: u32,
    pub(crate) is_deleting: bool,
    pub(crate) overrides: Overrides,
}

impl Catalog {
    /// Reads the file; one that is missing has no topics.
    ///
    /// # Errors
    ///
    /// * [`Error::Corrupt`], [`Error::FormatTooNew`]: a configuration cannot be derived from anything
    ///   else, so it is never replaced by defaults.
    pub(crate) fn read(disk: &Disk, path: &Path) -> Result<Catalog> {
        let bytes = match disk.read_small(path, FILE_LEN_MAX) {
            Err(error) if error.is_not_found() => return Ok(Catalog::default()),
            other => other?,
        };
        let corrupt = |position: usize, reason| Error::Corrupt {
            path: path.to_path_buf(),
            position: position as u64,
            reason,
            resume: None,
        };
        let text =
            std::str::from_utf8(&bytes).map_err(|e| corrupt(e.valid_up_to(), "not UTF-8"))?;
        let heading = text.lines().next().unwrap_or_default();
        let version = heading.strip_prefix("ottla.topics ").and_then(|v| v.parse::<u32>().ok());
        match version {
            Some(VERSION) => {}
            Some(found) => {
                let path = path.to_path_buf();
                return Err(Error::FormatTooNew { path, found, supported: VERSION });
            }
            None => return Err(corrupt(0, "not a list of topics")),
        }
        let sealed = text.trim_end().rfind('\n').map(|end| text.split_at(end + 1));
        let (body, seal) = sealed.ok_or_else(|| corrupt(text.len(), "the checksum is missing"))?;
        if seal.trim_end() != seal_line(body) {
            return Err(corrupt(body.len(), "checksum mismatch"));
        }

        let mut catalog = Catalog::default();
        let mut current: Option<TopicName> = None;
        let mut position = heading.len() + 1;
        for line in body.lines().skip(1) {
            let malformed = || corrupt(position, "a line that is neither a topic nor a setting");
            if let Some(rest) = line.strip_prefix("topic ") {
                let (name, entry) = parse_topic(rest).ok_or_else(malformed)?;
                current = Some(name.clone());
                catalog.topics.insert(name, entry);
            } else {
                let (key, value) = line
                    .strip_prefix("set ")
                    .map(|rest| rest.split_once(' ').unwrap_or((rest, "")))
                    .ok_or_else(malformed)?;
                let entry = current.as_ref().and_then(|name| catalog.topics.get_mut(name));
                entry.ok_or_else(malformed)?.overrides.apply(key, Some(value))?;
            }
            position += line.len() + 1;
        }
        Ok(catalog)
    }

    /// Reads what can be made out of a file that is damaged, line by line. Nothing says that it is true.
    pub(crate) fn salvage(bytes: &[u8]) -> Catalog {
        let mut catalog = Catalog::default();
        let mut current: Option<TopicName> = None;
        for line in bytes.split(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(line);
            if let Some(rest) = line.strip_prefix("set ") {
                let (key, value) = rest.split_once(' ').unwrap_or((rest, ""));
                let entry = current.as_ref().and_then(|name| catalog.topics.get_mut(name));
                if let Some(entry) = entry {
                    // A setting that cannot be one is what was damaged.
                    entry.overrides.apply(key, Some(value)).unwrap_or_default();
                }
                continue;
            }
            // The settings behind a topic that cannot be read are nobody's.
            current = line.strip_prefix("topic ").and_then(parse_topic).map(|(name, entry)| {
                catalog.topics.insert(name.clone(), entry);
                name
            });
        }
        catalog
    }

    pub(crate) fn write(&self, disk: &Disk, path: &Path) -> Result<()> {
        let mut text = format!("ottla.topics {VERSION}\n");
        for (name, entry) in &self.topics {
            let state = if entry.is_deleting { "deleting" } else { "kept" };
            writeln!(
                text,
                "topic {name} {} {} {} {state}",
                entry.id, entry.partition_count, entry.partition_count_target
            )
            .expect("a string takes everything");
            for (key, value) in entry.overrides.iter() {
                writeln!(text, "set {key} {value}").expect("a string takes everything");
            }
        }
        let seal = seal_line(&text);
        writeln!(text, "{seal}").expect("a string takes everything");
        disk.replace(path, text.as_bytes())
    }
}

/// A topic's id, as in `partition.metadata`: 16 bytes, shown as 22 characters of URL-safe base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TopicId([u8; 16]);

impl TopicId {
    /// Makes an id from 16 random bytes; `None` if it is one that Kafka reserves or avoids.
    pub(crate) fn from_random(mut bytes: [u8; 16]) -> Option<TopicId> {
        // A version 4 UUID, as Kafka's.
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let id = TopicId(bytes);
        // One that starts with a dash would be taken for an option by command lines.
        (!id.to_string().starts_with('-')).then_some(id)
    }

    pub(crate) fn parse(text: &str) -> Option<TopicId> {
        if text.len() != 22 {
            return None;
        }
        let mut value = 0_u128;
        let mut spare = 0;
        for (index, c) in text.bytes().enumerate() {
            let digit = DIGITS.iter().position(|d| *d == c)? as u128;
            if index < 21 {
                value = value << 6 | digit;
            } else {
                value = value << 2 | digit >> 4;
                spare = digit & 0x0f;
            }
        }
        (spare == 0 && value != 0).then(|| TopicId(value.to_be_bytes()))
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = u128::from_be_bytes(self.0);
        for index in 0..21 {
            f.write_char(char::from(DIGITS[(value >> (122 - 6 * index)) as usize & 0x3f]))?;
        }
        f.write_char(char::from(DIGITS[((value & 3) << 4) as usize]))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads a partition's `partition.metadata`; `None` if the file is missing.
pub(crate) fn read_partition_metadata(disk: &Disk, path: &Path) -> Result<Option<TopicId>> {
    let bytes = match disk.read_small(path, METADATA_LEN_MAX) {
        Err(error) if error.is_not_found() => return Ok(None),
        other => other?,
    };
    let text = String::from_utf8_lossy(&bytes);
    let value = |key: &str| {
        text.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim()))
    };
    match (value("version"), value("topic_id").and_then(TopicId::parse)) {
        (Some("0"), Some(id)) => Ok(Some(id)),
        _ => Err(Error::Corrupt {
            path: path.to_path_buf(),
            position: 0,
            reason: "not a partition's metadata",
            resume: None,
        }),
    }
}

/// Writes `partition.metadata` as Kafka does: two lines, the last one without an end.
pub(crate) fn write_partition_metadata(disk: &Disk, path: &Path, id: TopicId) -> Result<()> {
    disk.write_synced(path, format!("version: 0\ntopic_id: {id}").as_bytes())
}

const VERSION: u32 = 1;
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const FILE_LEN_MAX: usize = 256 << 20;
const METADATA_LEN_MAX: usize = 4096;

fn seal_line(body: &str) -> String {
    format!("crc32c {:08x}", crc32c::crc32c(body.as_bytes()))
}

fn parse_topic(rest: &str) -> Option<(TopicName, CatalogEntry)> {
    let mut fields = rest.split(' ');
    let name = TopicName::new(fields.next()?).ok()?;
    let entry = CatalogEntry {
        id: TopicId::parse(fields.next()?)?,
        partition_count: fields.next()?.parse().ok()?,
        partition_count_target: fields.next()?.parse().ok()?,
        is_deleting: match fields.next()? {
            "kept" => false,
            "deleting" => true,
            _ => return None,
        },
        overrides: Overrides::default(),
    };
    fields.next().is_none().then_some((name, entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        let mut catalog = Catalog::default();
        let id = TopicId::parse("C0i83-aGRiy3PKeeXzsc6g").unwrap();
        for (name, deleting) in [("orders", false), ("old", true), ("plain", false)] {
            let mut overrides = Overrides::default();
            if name == "orders" {
                overrides.apply("segment.bytes", Some("1048576")).unwrap();
                overrides.apply("cleanup.policy", Some("")).unwrap();
            }
            let entry = CatalogEntry {
                id,
                partition_count: 3,
                partition_count_target: 4,
                is_deleting: deleting,
                overrides,
            };
            catalog.topics.insert(TopicName::new(name).unwrap(), entry);
        }
        catalog
    }

    #[test]
    fn topic_ids_read_as_kafka_writes_them() {
        for text in ["C0i83-aGRiy3PKeeXzsc6g", "8IpZNi4pRse8Cs_QxZSQIQ", "AAAAAAAAAAAAAAAAAAAAAQ"] {
            assert_eq!(TopicId::parse(text).unwrap().to_string(), text);
        }
        for text in
            ["", "C0i83-aGRiy3PKeeXzsc6", "C0i83-aGRiy3PKeeXzsc6h", "AAAAAAAAAAAAAAAAAAAAAA"]
        {
            assert_eq!(TopicId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_file_makes_the_round_trip_and_every_flipped_bit_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ottla.topics");
        let disk = Disk::default();
        assert_eq!(Catalog::read(&disk, &path).unwrap(), Catalog::default());
        catalog().write(&disk, &path).unwrap();
        assert_eq!(Catalog::read(&disk, &path).unwrap(), catalog());
        let good = std::fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(read) = Catalog::read(&disk, &path) {
                // Only white space behind the checksum can be told from nothing.
                assert_eq!((bit / 8, &read), (good.len() - 1, &catalog()));
            }
        }
        for len in 0..good.len() - 1 {
            std::fs::write(&path, &good[..len]).unwrap();
            assert!(Catalog::read(&disk, &path).is_err(), "{len}");
        }
    }

    #[test]
    fn a_later_version_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ottla.topics");
        std::fs::write(&path, "ottla.topics 2\n").unwrap();
        let error = Catalog::read(&Disk::default(), &path).unwrap_err();
        assert!(matches!(error, Error::FormatTooNew { found: 2, supported: 1, .. }), "{error}");
    }
}
