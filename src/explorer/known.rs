//! What is known from outside of a directory whose machine may stop at any moment, and the check of what is found.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::Error;
use crate::Store;
use crate::TopicPartition;
use crate::storage::medium::Medium;

/// The topics: one that stays, one that is compacted, one that comes, grows and goes.
pub(super) const NAMES: [&str; 3] = ["plain", "compacted", "passing"];
pub(super) const COMPACTED: usize = 1;
pub(super) const PASSING: usize = 2;
pub(super) const GROUP: &str = "g";
const NOW: Duration = Duration::ZERO;

pub(super) type Place = (usize, u32);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Vec<u8>,
}

/// What is known of one partition's log.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// What was sent, by offset, from 0: what the last recovery showed, and what came since.
    pub(super) sent: Vec<Sent>,
    /// So many at the front were acknowledged as durable, or shown by a recovery that was through.
    pub(super) acknowledged: usize,
    /// The record whose send failed last: the disk may have taken it all the same.
    pub(super) maybe: Option<Sent>,
    /// Where the log begins for whoever has looked; and where it may begin by what was tried.
    pub(super) start: i64,
    pub(super) start_max: i64,
    /// Below this offset records may be missing of which there are later ones.
    pub(super) compacted_below: i64,
}

/// Whether a topic is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Presence {
    #[default]
    Absent,
    Present,
    /// Its creation or its deletion has failed.
    Either,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Topic {
    pub(super) presence: Presence,
    pub(super) logs: Vec<Log>,
    /// So many partitions are there at least; more if their creation failed half-way.
    pub(super) count_min: usize,
}

/// What a group has on record for one partition: as acknowledged, and what was tried since.
#[derive(Clone, Debug, Default)]
pub(super) struct Commit {
    pub(super) acknowledged: Option<i64>,
    pub(super) tried: Vec<Option<i64>>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) topics: [Topic; NAMES.len()],
    pub(super) commits: BTreeMap<Place, Commit>,
}

/// How the last life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// What is left is on the device.
    PowerCut,
    /// Only the process died, and everything that was sent is in the cache; what else is there may never have reached
    /// the device, until an opening is through.
    Kill,
}

/// One partition as it was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) records: Vec<(i64, Sent)>,
    pub(super) errors: Vec<String>,
}

pub(super) type FoundLogs = BTreeMap<Place, Found>;

fn place_of(partition: &TopicPartition) -> Place {
    let name = partition.topic().name();
    let topic = NAMES.iter().position(|known| *known == name);
    (topic.unwrap_or(NAMES.len()), partition.partition())
}

/// Reads everything that can be read.
pub(super) fn read_all(store: &Store) -> Result<FoundLogs, String> {
    let topics = NAMES.iter().filter_map(|name| store.topic(name).ok());
    let partitions: Vec<TopicPartition> = topics.flat_map(|topic| topic.partitions()).collect();
    let mut logs = FoundLogs::new();
    if partitions.is_empty() {
        return Ok(logs);
    }
    let mut ends = 0;
    for partition in &partitions {
        let (start, end) = partition
            .watermarks()
            .map_err(|error| format!("{:?} cannot be looked at: {error}", place_of(partition)))?;
        ends += end - start;
        logs.insert(place_of(partition), Found { start, end, ..Found::default() });
    }
    if ends == 0 {
        return Ok(logs);
    }
    let consumer = store.consumer().max_poll_records(10_000).assign(&partitions);
    let mut consumer = consumer.map_err(|error| error.to_string())?;
    loop {
        match consumer.poll(NOW) {
            Ok(records) if records.is_empty() => return Ok(logs),
            Ok(records) => {
                for message in &records {
                    let sent = Sent {
                        key: message.key().map(<[u8]>::to_vec),
                        value: message.value().unwrap_or_default().to_vec(),
                    };
                    let found = logs.entry(place_of(message.topic_partition())).or_default();
                    found.records.push((message.offset(), sent));
                }
            }
            Err(Error::Corrupt { path, position, reason, resume }) => {
                let hurt = partitions.iter().find(|partition| {
                    let directory =
                        format!("{}-{}", partition.topic().name(), partition.partition());
                    path.parent().is_some_and(|parent| parent.ends_with(&directory))
                });
                let Some(hurt) = hurt else { return Err(format!("whose is {path:?}?")) };
                let found = logs.entry(place_of(hurt)).or_default();
                found.errors.push(format!("{path:?}, byte {position}: {reason}"));
                let at = consumer.position(hurt).map_err(|error| error.to_string())?;
                let next = resume.filter(|offset| *offset > at).unwrap_or(found.end);
                if next <= at {
                    return Err(format!("stuck at {at} of {path:?}"));
                }
                consumer.seek(hurt, next).map_err(|error| error.to_string())?;
            }
            Err(other) => return Err(other.to_string()),
        }
    }
}

/// What the group has on record.
pub(super) fn read_commits(store: &Store) -> Result<BTreeMap<Place, i64>, String> {
    let group = store.group(GROUP).map_err(|error| error.to_string())?;
    match group.offsets() {
        Ok(offsets) => {
            let place = |name: &str| NAMES.iter().position(|known| *known == name);
            let offsets = offsets.into_iter();
            Ok(offsets
                .map(|(name, number, noted)| {
                    ((place(&name).unwrap_or(NAMES.len()), number), noted.offset())
                })
                .collect())
        }
        Err(Error::UnknownGroup { .. }) => Ok(BTreeMap::new()),
        Err(other) => Err(other.to_string()),
    }
}

impl Log {
    /// Says what is wrong with what was found; takes it over if nothing is.
    fn check(&mut self, found: Found, end: End) -> Result<(), String> {
        if let Some(error) = found.errors.first() {
            return Err(format!("cannot be read: {error}"));
        }
        if let Some(maybe) = self.maybe.take() {
            if found.end > self.sent.len() as i64 {
                self.sent.push(maybe);
            }
        }
        let (start, log_end) = (found.start, found.end);
        if log_end < self.acknowledged as i64 {
            return Err(format!("{} acknowledged, it ends at {log_end}", self.acknowledged));
        }
        if log_end > self.sent.len() as i64 {
            return Err(format!("{} sent, it ends at {log_end}", self.sent.len()));
        }
        if end == End::Kill && log_end < self.sent.len() as i64 {
            return Err(format!("a kill: {} sent, it ends at {log_end}", self.sent.len()));
        }
        if start < self.start || start > self.start_max.max(self.start) {
            let (min, max) = (self.start, self.start_max);
            return Err(format!("it begins at {start}, not in {min}..={max}"));
        }
        self.check_records(&found).map_err(|wrong| {
            let offsets: Vec<i64> = found.records.iter().map(|(offset, _)| *offset).collect();
            format!("{wrong} ({end:?}, {start}..{log_end}, found {offsets:?})")
        })?;
        self.sent.truncate(log_end as usize);
        if end == End::PowerCut {
            // It is all on the device.
            self.acknowledged = log_end as usize;
            (self.start, self.start_max) = (start, start);
        }
        Ok(())
    }

    fn check_records(&self, found: &Found) -> Result<(), String> {
        let mut expected = found.start;
        for (offset, sent) in &found.records {
            if *offset < expected || *offset >= found.end {
                return Err(format!("offset {offset} where {expected} should be"));
            }
            if self.sent.get(*offset as usize) != Some(sent) {
                let shown = String::from_utf8_lossy(&sent.value);
                return Err(format!("at {offset} lies {shown}, which was not sent there"));
            }
            for missing in expected..*offset {
                self.check_missing(missing, found.end)?;
            }
            expected = offset + 1;
        }
        for missing in expected..found.end {
            self.check_missing(missing, found.end)?;
        }
        Ok(())
    }

    /// A record may be missing if there is a later one of its key.
    fn check_missing(&self, offset: i64, end: i64) -> Result<(), String> {
        let (at, end) = (offset as usize, end as usize);
        let key = &self.sent[at].key;
        let is_superseded =
            key.is_some() && self.sent[at + 1..end].iter().any(|later| later.key == *key);
        if offset < self.compacted_below && is_superseded {
            Ok(())
        } else {
            Err(format!("offset {offset} is missing"))
        }
    }

    /// After a failed sync and a new start in the same machine there may be holes where nothing was acknowledged,
    /// as long as they are told of; nothing else may be wrong.
    fn check_doubtful(&self, found: &Found) -> Result<(), String> {
        if (found.end as usize) < self.acknowledged {
            return Err(format!("{} acknowledged, it ends at {}", self.acknowledged, found.end));
        }
        let mut sent = self.sent.clone();
        sent.extend(self.maybe.clone());
        let mut at = found.records.iter();
        for (offset, record) in at.by_ref() {
            if sent.get(*offset as usize) != Some(record) {
                return Err(format!("at {offset} lies what was not sent there"));
            }
        }
        let is_there = |offset: &i64| found.records.iter().any(|(found, _)| found == offset);
        for offset in (found.start..self.acknowledged as i64).filter(|offset| !is_there(offset)) {
            self.check_missing(offset, self.acknowledged as i64)?;
        }
        let has_hole = (found.start..found.end.min(sent.len() as i64))
            .any(|offset| !is_there(&offset) && self.compacted_below <= offset);
        if has_hole && found.errors.is_empty() {
            return Err("a hole that nobody is told of".into());
        }
        Ok(())
    }
}

impl Known {
    /// Says what is wrong with what a recovery shows; takes it over if nothing is.
    pub(super) fn check(&mut self, store: &Store, end: End) -> Result<(), String> {
        let mut logs = read_all(store)?;
        let ends: BTreeMap<Place, i64> = logs.iter().map(|(at, found)| (*at, found.end)).collect();
        for (index, topic) in self.topics.iter_mut().enumerate() {
            let name = NAMES[index];
            let count = logs.keys().filter(|(topic, _)| *topic == index).count();
            let is_there = count > 0;
            match topic.presence {
                Presence::Absent if is_there => return Err(format!("{name} is back")),
                Presence::Present if !is_there => return Err(format!("{name} is gone")),
                _ => {}
            }
            if end == End::PowerCut {
                topic.presence = if is_there { Presence::Present } else { Presence::Absent };
            }
            if !is_there {
                if end == End::PowerCut {
                    *topic = Topic::default();
                }
                continue;
            }
            if count != topic.count_min && count != topic.logs.len() {
                return Err(format!("{name} has {count} partitions"));
            }
            if end == End::PowerCut {
                topic.logs.truncate(count);
                topic.count_min = count;
            }
            for (number, log) in topic.logs.iter_mut().enumerate().take(count) {
                let found = logs.remove(&(index, number as u32)).unwrap_or_default();
                log.check(found, end).map_err(|wrong| format!("{name}-{number}: {wrong}"))?;
            }
        }
        self.check_commits(store, &ends, end)
    }

    fn check_commits(
        &mut self,
        store: &Store,
        ends: &BTreeMap<Place, i64>,
        end: End,
    ) -> Result<(), String> {
        let found = read_commits(store)?;
        for (place, offset) in &found {
            let Some(end) = ends.get(place) else {
                return Err(format!("{place:?} is on record and does not exist"));
            };
            if offset > end {
                return Err(format!("{place:?}: committed {offset}, ahead of its end {end}"));
            }
        }
        for place in found.keys() {
            self.commits.entry(*place).or_default();
        }
        for (place, commit) in &mut self.commits {
            let on_record = found.get(place).copied();
            if on_record != commit.acknowledged && !commit.tried.contains(&on_record) {
                return Err(format!("{place:?}: {on_record:?} is on record, not {commit:?}"));
            }
            if end == End::PowerCut {
                *commit = Commit { acknowledged: on_record, tried: Vec::new() };
            }
        }
        Ok(())
    }

    /// Takes over what an opening has shown that is through: all of it is on the device.
    pub(super) fn settle(&mut self, store: &Store) -> Result<(), String> {
        for (index, topic) in self.topics.iter_mut().enumerate() {
            let Ok(opened) = store.topic(NAMES[index]) else {
                if topic.presence == Presence::Present {
                    return Err(format!("{} is gone", NAMES[index]));
                }
                *topic = Topic::default();
                continue;
            };
            topic.presence = Presence::Present;
            topic.count_min = opened.partition_count() as usize;
            topic.logs.truncate(topic.count_min);
            for (number, log) in topic.logs.iter_mut().enumerate() {
                let marks = opened.partition(number as u32).and_then(|p| p.watermarks());
                // On a disk that fails a partition may not open.
                let Ok((start, end)) = marks else { continue };
                let (sent, min, max) = (log.sent.len(), log.start, log.start_max.max(log.start));
                if end != sent as i64 || start < min || start > max {
                    return Err(format!("a copy had {min}..{sent}, now it is {start}..{end}"));
                }
            }
        }
        if let Ok(on_record) = read_commits(store) {
            for (place, commit) in &mut self.commits {
                let acknowledged = on_record.get(place).copied();
                *commit = Commit { acknowledged, tried: Vec::new() };
            }
        }
        Ok(())
    }

    /// What holds after a sync that failed, and lost something that the cache goes on to show.
    pub(super) fn check_doubtful(&self, store: &Store) -> Result<(), String> {
        let logs = read_all(store)?;
        for (index, topic) in self.topics.iter().enumerate() {
            for (number, log) in topic.logs.iter().enumerate() {
                let Some(found) = logs.get(&(index, number as u32)) else {
                    if topic.presence == Presence::Present && number < topic.count_min {
                        return Err(format!("{}-{number} is gone", NAMES[index]));
                    }
                    continue;
                };
                let checked = log.check_doubtful(found);
                checked.map_err(|wrong| format!("{}-{number}: {wrong}", NAMES[index]))?;
            }
        }
        Ok(())
    }
}

/// The bytes of every segment, to see whether an open changes something.
pub(super) fn segments(medium: &Medium, root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    medium.find_files(root, &mut |path, _| {
        if path.extension().is_some_and(|kind| kind == "log") {
            all.insert(path.to_path_buf(), medium.read(path).unwrap());
        }
    });
    all
}
