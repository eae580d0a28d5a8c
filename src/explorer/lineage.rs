//! One machine's history: lives, how they end, and what is found afterwards.

#[cfg(target_os = "linux")]
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::Durability;
use crate::Error;
use crate::Producer;
use crate::Record;
use crate::Result;
use crate::Store;
use crate::StoreBuilder;
use crate::TopicConfig;
use crate::TopicPartition;
use crate::chance::Chance;
use crate::explorer::Tally;
use crate::explorer::known;
use crate::explorer::known::COMPACTED;
use crate::explorer::known::Commit;
use crate::explorer::known::End;
use crate::explorer::known::GROUP;
use crate::explorer::known::Known;
use crate::explorer::known::Log;
use crate::explorer::known::NAMES;
use crate::explorer::known::PASSING;
use crate::explorer::known::Place;
use crate::explorer::known::Presence;
use crate::explorer::known::Sent;
use crate::explorer::known::Topic;
#[cfg(target_os = "linux")]
use crate::explorer::mounted::Mounted;
use crate::inspect::check::check_on;
use crate::storage::disk::Disk;
use crate::storage::faults::Meanwhile;
use crate::storage::file_name;
use crate::storage::medium::Medium;
use crate::storage::memory::Memory;
use crate::storage::memory::PLACE;
use crate::storage::planted::Planted;

const GENERATIONS: u64 = 6;
/// So many outcomes of one power cut are looked at.
const OUTCOMES: u64 = 3;
const LAST_EFFECTS: usize = 900;
/// In the lock file of a machine that was started anew since.
const ANOTHER_BOOT: &[u8] = b"pid=1\nboot=another\n";

/// One machine's history.
pub(super) struct Lineage<'c> {
    seed: u64,
    chance: Chance,
    planted: Option<Planted>,
    tally: &'c Tally,
    /// Where its directories are.
    medium: Medium,
    place: PathBuf,
    known: Known,
    /// What effects there were, in all lives; names of directories that are made up at random are left out.
    trace: Vec<String>,
}

/// One life on a disk.
struct Life<'l> {
    store: Store,
    disk: &'l Disk,
    known: &'l mut Known,
    chance: &'l mut Chance,
    producers: [Producer; 2],
    generation: u64,
    sent: u64,
    /// Topics of which something failed: what they are is known only to the next life.
    is_unclear: [bool; NAMES.len()],
    intruder: Arc<Intruder>,
}

/// Who appends while somebody else's sync is under way.
#[derive(Default)]
struct Intruder {
    is_let_in: AtomicBool,
    sent: Mutex<Vec<Sent>>,
}

fn builder(root: &Path, disk: &Disk) -> StoreBuilder {
    // Syncs, compactions and deletions happen when they are asked for, not by the clock.
    Store::builder(root)
        .left_alone()
        .durability(Durability::Synced)
        .checkpoint_interval(Duration::from_secs(3600))
        .cleaner_enable(false)
        .disk(disk.clone())
}

fn config(topic: usize) -> TopicConfig {
    let config = TopicConfig::new().segment_bytes(1024).index_interval_bytes(100).retention_ms(-1);
    match topic {
        COMPACTED => config.set("cleanup.policy", "compact").unwrap(),
        PASSING => config.retention_bytes(2000),
        _ => config.partitions(2),
    }
}

/// Some names are made up at random.
fn is_repeatable(effect: &&String) -> bool {
    !effect.contains("-delete") && !effect.contains(".tmp")
}

impl<'c> Lineage<'c> {
    pub(super) fn new(seed: u64, planted: Option<Planted>, tally: &'c Tally) -> Self {
        Lineage {
            seed,
            chance: Chance(seed | 1),
            planted,
            tally,
            medium: Medium::Memory(Arc::new(Memory::new())),
            place: PLACE.into(),
            known: Known::default(),
            trace: Vec::new(),
        }
    }

    pub(super) fn into_trace(self) -> Vec<String> {
        self.trace
    }

    /// Plays it to its end; says what is wrong, if something is.
    pub(super) fn play(&mut self) -> std::result::Result<(), String> {
        let mut root = self.place.join("0");
        let mut disk = self.disk();
        let seed = self.seed;
        for generation in 0..GENERATIONS {
            let lived = self.live(&root, &disk, generation);
            let mut trace = disk.script().trace();
            if std::env::var_os("OTTLA_SEED").is_some() {
                trace.splice(..0, self.trace.iter().cloned());
            }
            trace.push(format!("END of {generation}"));
            // What is wrong, and what the last life did.
            let within = |wrong: String| {
                let last = &trace[trace.len().saturating_sub(LAST_EFFECTS)..];
                format!("OTTLA_SEED={seed}, generation {generation}: {wrong}; behind {last:?}")
            };
            lived.map_err(within)?;
            self.trace
                .extend(disk.script().trace().into_iter().filter(|effect| is_repeatable(&effect)));
            let has_lost = disk.script().has_lost();
            disk.script().revive();
            if !self.medium.exists(&root) {
                continue;
            }
            if self.chance.below(4) > u64::from(has_lost) * 2 {
                (root, disk) = self.cut_power(&root, &disk, generation).map_err(within)?;
            } else if has_lost {
                // The cache shows what is not on the device.
                return self.check_doubtful(&root, &disk).map_err(within);
            } else {
                let copy = self.medium.fresh_copy(&root, "copy");
                self.check(&copy, End::Kill).map_err(within)?;
            }
        }
        let is_of_rot = matches!(
            self.planted,
            Some(Planted::CutAnywhere | Planted::OffsetsIgnored | Planted::ChecksumIgnored)
        );
        if is_of_rot || self.chance.below(4) == 0 {
            self.rot(&root).map_err(|wrong| format!("OTTLA_SEED={seed}, rot: {wrong}"))?;
        }
        Ok(())
    }

    /// Plays it on a file system whose power is cut for real, and compares what is left with what is foreseen.
    #[cfg(target_os = "linux")]
    pub(super) fn play_for_real(
        &mut self,
        mounted: &Mounted,
        number: u64,
    ) -> std::result::Result<(), String> {
        let scratch = tempfile::tempdir().unwrap();
        (self.medium, self.place) = (Medium::System, scratch.path().to_path_buf());
        let root = mounted.path().join(number.to_string());
        for generation in 0..GENERATIONS {
            // Without what failed syncs lose: here nothing is lost by them.
            let disk = Disk::failing_once(u64::MAX, 0);
            self.live(&root, &disk, generation)?;
            let trace = disk.script().trace();
            let within = |wrong: String| {
                let last = &trace[trace.len().saturating_sub(LAST_EFFECTS)..];
                format!("lineage {number}, generation {generation}: {wrong}; behind {last:?}")
            };
            let outcomes = root.exists().then(|| disk.script().outcomes(&root));
            mounted.shut_down().map_err(|error| error.to_string())?;
            drop(disk);
            if !mounted.unmount() || !mounted.mount() {
                return Err("it cannot be mounted again".into());
            }
            let Some(outcomes) = outcomes else { continue };
            outcomes.contain(&root).map_err(within)?;
            if root.exists() {
                // The machine has not been started anew.
                let lock = root.join(file_name::LOCK);
                fs::write(&lock, ANOTHER_BOOT).unwrap();
                fs::File::open(lock).and_then(|file| file.sync_all()).unwrap();
                let copy = self.place.join("copy");
                drop(fs::remove_dir_all(&copy));
                self.medium.copy_tree(&root, &copy);
                self.check(&copy, End::PowerCut).map_err(within)?;
            } else {
                self.known = Known::default();
            }
        }
        drop(fs::remove_dir_all(&root));
        Ok(())
    }

    fn disk(&mut self) -> Disk {
        let disk = Disk::on(&self.medium);
        let seed = self.chance.below(u64::MAX);
        disk.script().lose_at_failed_syncs(seed);
        disk.script().falter(!seed);
        disk.script().plant(self.planted);
        disk
    }

    /// Looks at some of the states that a power cut may leave, and gives the last one to be lived on in.
    fn cut_power(
        &mut self,
        root: &Path,
        disk: &Disk,
        generation: u64,
    ) -> std::result::Result<(PathBuf, Disk), String> {
        let before = self.known.clone();
        // What is known behind each state that was looked at.
        let mut seen: Vec<(u64, Known)> = Vec::new();
        for outcome in 0..OUTCOMES {
            let is_last = outcome + 1 == OUTCOMES;
            let target = self.place.join(format!("{}-{outcome}", generation + 1));
            let chance = &mut self.chance;
            disk.script().cut_power_into(root, &target, &mut |limit| chance.below(limit));
            self.tally.states.fetch_add(1, Ordering::Relaxed);
            self.known = before.clone();
            if !self.medium.exists(&target) {
                // Its own name in the directory above was not durable.
                if self.known.topics.iter().any(|topic| topic.presence == Presence::Present) {
                    return Err("the directory is gone".into());
                }
                self.known = Known::default();
                if is_last {
                    return Ok((target, self.disk()));
                }
                continue;
            }
            let digest = self.medium.digest(&target);
            if let Some((_, known)) = seen.iter().find(|(other, _)| *other == digest) {
                self.known = known.clone();
                self.tally.repeated.fetch_add(1, Ordering::Relaxed);
            } else {
                let seen_aside = is_last && self.chance.below(2) == 0;
                let copy = seen_aside.then(|| self.medium.fresh_copy(&target, "copy"));
                self.check(copy.as_ref().unwrap_or(&target), End::PowerCut)?;
                seen.push((digest, self.known.clone()));
            }
            if is_last {
                self.medium.remove_tree(root).unwrap();
                return Ok((target, self.disk()));
            }
            self.medium.remove_tree(&target).unwrap();
        }
        unreachable!()
    }

    fn check(&mut self, root: &Path, end: End) -> std::result::Result<(), String> {
        let disk = self.disk();
        self.tally.recoveries.fetch_add(1, Ordering::Relaxed);
        let opened = builder(root, &disk).open();
        let store = opened.map_err(|error| format!("cannot be opened: {error}"))?;
        self.known.check(&store, end)?;
        let health = store.health();
        if !health.is_good() {
            return Err(format!("not in order: {:?}", health.findings));
        }
        store.close().map_err(|error| format!("cannot be closed: {error}"))?;
        if self.chance.below(4) == 0 {
            // By an eye in which no bug is planted.
            let disk = Disk { medium: self.medium.clone(), ..Disk::default() };
            let report = check_on(&disk, root).map_err(|error| error.to_string())?;
            if !report.problems.is_empty() {
                return Err(format!("a check finds {:?}", report.problems));
            }
        }
        if self.chance.below(4) == 0 {
            if self.chance.below(2) == 0 {
                // As if the close had not been through.
                self.medium.remove_file(&root.join(file_name::CLEAN_SHUTDOWN)).unwrap();
            }
            self.tally.recoveries.fetch_add(1, Ordering::Relaxed);
            let before = known::segments(&self.medium, root);
            let opened = builder(root, &disk).open();
            let store = opened.map_err(|error| format!("cannot be opened twice: {error}"))?;
            let seen = self.known.check(&store, End::Kill);
            seen.map_err(|wrong| format!("opened a second time: {wrong}"))?;
            store.close().map_err(|error| format!("cannot be closed twice: {error}"))?;
            if known::segments(&self.medium, root) != before {
                return Err("a second opening has changed something".into());
            }
        }
        Ok(())
    }

    fn check_doubtful(&mut self, root: &Path, disk: &Disk) -> std::result::Result<(), String> {
        self.tally.recoveries.fetch_add(1, Ordering::Relaxed);
        let opened = builder(root, disk).open();
        let store = opened.map_err(|error| format!("cannot be opened: {error}"))?;
        self.known.check_doubtful(&store)?;
        // What this life shows is durable: a power cut takes nothing of it.
        let shown = known::read_all(&store)?;
        let chance = &mut self.chance;
        let target = self.place.join("doubtful");
        disk.script().cut_power_into(root, &target, &mut |limit| chance.below(limit));
        drop(store);
        let disk = self.disk();
        self.tally.recoveries.fetch_add(1, Ordering::Relaxed);
        let opened = builder(&target, &disk).open();
        let store = opened.map_err(|error| format!("cannot be opened behind a cut: {error}"))?;
        let after = known::read_all(&store)?;
        for (place, found) in &shown {
            let behind = after.get(place).map_or(&[][..], |found| &found.records);
            if !behind.starts_with(&found.records) {
                let (before, after) = (found.records.len(), behind.len());
                return Err(format!("{place:?}: {before} records were shown, {after} are left"));
            }
        }
        Ok(())
    }

    /// Flips a bit of what is durable.
    fn rot(&mut self, root: &Path) -> std::result::Result<(), String> {
        if !self.medium.exists(root) {
            return Ok(());
        }
        let disk = self.disk();
        let opened = builder(root, &disk).open();
        let store = opened.map_err(|error| format!("cannot be opened: {error}"))?;
        store.sync().map_err(|error| error.to_string())?;
        let before = known::read_all(&store)?;
        store.close().map_err(|error| error.to_string())?;
        let mut segments: Vec<(PathBuf, Vec<u8>)> =
            known::segments(&self.medium, root).into_iter().collect();
        // One that another follows, an empty one perhaps, is not looked at by a recovery.
        let followed: Vec<PathBuf> = segments
            .windows(2)
            .filter(|pair| pair[0].0.parent() == pair[1].0.parent())
            .map(|pair| pair[0].0.clone())
            .collect();
        segments
            .retain(|(path, bytes)| !bytes.is_empty() && path.to_string_lossy().contains("plain-"));
        if segments.is_empty() {
            return Ok(());
        }
        // The last of them more often than others: only there a recovery has to look.
        let at = match self.chance.below(2) {
            0 => segments.len() - 1,
            _ => self.chance.index(segments.len()),
        };
        let is_last = !followed.contains(&segments[at].0);
        let (path, mut bytes) = segments.swap_remove(at);
        let at = self.chance.index(bytes.len());
        bytes[at] ^= 1 << self.chance.below(8);
        let len = bytes.len() as u64;
        self.medium.write(&path, bytes).unwrap();
        self.medium.remove_file(&root.join(file_name::CLEAN_SHUTDOWN)).unwrap();
        if self.chance.below(2) == 0 {
            self.medium.write(&root.join(file_name::LOCK), ANOTHER_BOOT.to_vec()).unwrap();
        }
        let what = format!("byte {at} of {}", path.display());
        self.tally.recoveries.fetch_add(1, Ordering::Relaxed);
        let opened = builder(root, &disk).open();
        let store = opened.map_err(|error| format!("{what}: cannot be opened: {error}"))?;
        let after = known::read_all(&store).map_err(|wrong| format!("{what}: {wrong}"))?;
        for (place, found) in &before {
            let seen = after.get(place).ok_or_else(|| format!("{what}: {place:?} is gone"))?;
            let is_hurt = |record: &&(i64, Sent)| !seen.records.contains(record);
            let hurt = found.records.iter().filter(is_hurt).count();
            // At most the one batch; and what is there was there before.
            let is_new = seen.records.iter().any(|record| !found.records.contains(record));
            let is_told = !store.health().is_good() || (!is_last && !seen.errors.is_empty());
            if hurt > 1 || is_new || (hurt == 1 && !is_told) {
                let (health, errors) = (store.health().findings, &seen.errors);
                return Err(format!(
                    "{what}: {place:?}: {hurt} records are missing, told was {health:?}, {errors:?}"
                ));
            }
            if seen.end > found.end {
                let (end, before) = (seen.end, found.end);
                return Err(format!("{what}: {place:?} ended at {before}, and does at {end}"));
            }
        }
        if self.medium.facts(&path).unwrap().len < len {
            return Err(format!("{what}: what was durable was cut"));
        }
        Ok(())
    }

    fn live(
        &mut self,
        root: &Path,
        disk: &Disk,
        generation: u64,
    ) -> std::result::Result<(), String> {
        let chance = &mut self.chance;
        let latest = [15, 100, 800][chance.below(3) as usize];
        if chance.below(8) > 0 {
            disk.script().arm(1 + chance.below(latest), libc::EIO, true);
        }
        let has_faults = chance.below(3) == 0;
        if has_faults {
            for _ in 0..=chance.below(3) {
                let errno = [libc::EIO, libc::ENOSPC][chance.below(2) as usize];
                disk.script().arm_once_more(1 + chance.below(latest), errno);
            }
        }
        let is_losing = chance.below(4) == 0;
        if is_losing {
            disk.script().arm_sync_of_log(1 + chance.below(12));
        }
        // Where everything succeeds, nothing is closed before it is durable.
        let is_spotless = !has_faults && !is_losing && !disk.script().has_lost();
        if generation > 0 && !self.medium.exists(&root.join(file_name::CLEAN_SHUTDOWN)) {
            self.tally.recoveries.fetch_add(1, Ordering::Relaxed);
        }
        // With room for one tail, each partition is parked whenever another is appended to.
        let tails = [1, 100, 100][chance.below(3) as usize];
        let Ok(store) = builder(root, disk).live_tails_max(tails).open() else { return Ok(()) };
        let producer = |level| store.producer_builder().durability(level).build();
        let producers = [producer(Durability::Synced), producer(Durability::Buffered)];
        let mut life = Life {
            disk,
            known: &mut self.known,
            chance,
            producers,
            generation,
            sent: 0,
            is_unclear: [false; NAMES.len()],
            intruder: Arc::default(),
            store,
        };
        // What this life finds is what the last check has shown.
        life.known.settle(&life.store)?;
        life.take_over_acknowledged();
        life.let_in_intruder();
        for _ in 0..life.chance.below(60) {
            life.step()?;
            life.take_over_acknowledged();
            if disk.script().has_died() && life.chance.below(4) == 0 {
                break;
            }
        }
        disk.script().during_syncs(None);
        let Life { store, producers, known, .. } = life;
        // Not those that could not be opened.
        let open: Vec<(String, u32)> = store
            .topics_for_test()
            .all_open()
            .into_iter()
            .map(|(name, number, _)| (name.to_string(), number))
            .collect();
        drop(producers);
        if store.close().is_ok() {
            // What is deleted need not be durable.
            let mut unsynced = disk.script().closed_unsynced();
            unsynced.retain(|path| !path.to_string_lossy().contains(NAMES[PASSING]));
            if is_spotless && !unsynced.is_empty() {
                return Err(format!("closed before they were durable: {unsynced:?}"));
            }
            for (name, topic) in NAMES.iter().zip(&mut known.topics) {
                for (number, log) in topic.logs.iter_mut().enumerate() {
                    if open.contains(&((*name).to_owned(), number as u32)) {
                        log.acknowledged = log.sent.len();
                    }
                }
            }
        }
        Ok(())
    }
}

impl Life<'_> {
    fn step(&mut self) -> std::result::Result<(), String> {
        match self.chance.below(100) {
            0..=54 => self.send(),
            55..=59 => self.sync(),
            60..=66 => self.roll(),
            67..=70 => self.delete_records(),
            71..=73 => self.retain(),
            74..=78 => self.compact(),
            79..=83 => self.create_or_delete(),
            84..=85 => self.grow(),
            86..=92 => self.commit(),
            93..=95 => return self.read(),
            _ => self.alter(),
        }
        Ok(())
    }

    /// What is called durable, because it was waited for, sealed, parked or recovered, is as good as acknowledged.
    fn take_over_acknowledged(&mut self) {
        let sent = std::mem::take(&mut *self.intruder.sent.lock().unwrap());
        if let Some(log) = self.known.topics[0].logs.first_mut() {
            log.sent.extend(sent);
        }
        for (index, topic) in self.known.topics.iter_mut().enumerate() {
            let Ok(opened) = self.store.topic(NAMES[index]) else { continue };
            for (number, log) in topic.logs.iter_mut().enumerate() {
                if let Ok(open) = opened.state.open_partition(number as u32) {
                    let marks = open.watermarks();
                    log.acknowledged = log.acknowledged.max(marks.durable_end() as usize);
                    log.start = log.start.max(marks.log_start());
                }
            }
        }
    }

    /// While the first log is being synchronised, somebody appends to it, if that can be done without waiting.
    fn let_in_intruder(&mut self) {
        let Ok(topic) = self.store.topic(NAMES[0]) else { return };
        let Ok(open) = topic.state.open_partition(0) else { return };
        let (open, generation) = (Arc::downgrade(&open), self.generation);
        let (intruder, store) = (Arc::clone(&self.intruder), self.store.clone());
        let numbers = AtomicU64::new(0);
        self.disk.script().during_syncs(Some(Meanwhile(Arc::new(move |path: &Path| {
            let is_there = path.parent().is_some_and(|parent| parent.ends_with("plain-0"));
            let Some(open) = open.upgrade().filter(|_| is_there) else { return };
            if !intruder.is_let_in.load(Ordering::Relaxed) || !open.has_room_for_test(200) {
                return;
            }
            let number = numbers.fetch_add(1, Ordering::Relaxed);
            let value = format!("{generation}.i{number}.").into_bytes();
            let producer = store.producer_builder().durability(Durability::Buffered).build();
            let Ok(topic) = store.topic(NAMES[0]) else { return };
            if producer.send(&topic, Record::new(&value).timestamp(7).partition(0)).is_ok() {
                intruder.sent.lock().unwrap().push(Sent { key: None, value });
            }
        }))));
    }

    /// Some partition of those that are known to be there.
    fn some_place(&mut self) -> Option<(Place, TopicPartition)> {
        let mut places = Vec::new();
        for (index, topic) in self.known.topics.iter().enumerate() {
            if topic.presence == Presence::Present && !self.is_unclear[index] {
                places.extend((0..topic.count_min).map(|number| (index, number as u32)));
            }
        }
        if places.is_empty() {
            return None;
        }
        let place = places[self.chance.index(places.len())];
        let partition = self.store.topic(NAMES[place.0]).ok()?.partition(place.1).ok()?;
        Some((place, partition))
    }

    fn log(&mut self, (topic, number): Place) -> &mut Log {
        &mut self.known.topics[topic].logs[number as usize]
    }

    fn send(&mut self) {
        let Some((place, partition)) = self.some_place() else { return self.create_or_delete() };
        self.disk.script().note(format!("SEND {place:?}"));
        // Few distinct sizes: equal batches line up with what an earlier life left behind.
        let mut value = format!("{}.{}.", self.generation, self.sent).into_bytes();
        self.sent += 1;
        value.resize(20 + 99 * self.chance.below(3) as usize, b'.');
        let key = (place.0 == COMPACTED).then(|| vec![b'k', b'0' + self.chance.below(4) as u8]);
        let mut record = Record::new(&value).timestamp(self.sent as i64).partition(place.1);
        if let Some(key) = &key {
            record = record.key(key);
        }
        let producer = &self.producers[self.chance.below(2) as usize];
        let sent = Sent { key: key.clone(), value: value.clone() };
        match producer.send(partition.topic(), record) {
            Ok(delivery) => {
                self.log(place).sent.push(sent);
                if self.chance.below(4) == 0 {
                    let end = self.log(place).sent.len();
                    self.intruder.is_let_in.store(true, Ordering::Relaxed);
                    let is_durable = self.chance.below(4) > 0 || self.store.sync().is_ok();
                    if is_durable && partition_is_durable(delivery, &partition, end) {
                        let log = self.log(place);
                        log.acknowledged = log.acknowledged.max(end);
                    }
                    self.intruder.is_let_in.store(false, Ordering::Relaxed);
                }
            }
            Err(Error::Latched { .. }) if self.log(place).maybe.is_none() => {
                self.log(place).maybe = Some(sent);
            }
            Err(_) => {}
        }
    }

    fn sync(&mut self) {
        self.disk.script().note("SYNC".into());
        self.intruder.is_let_in.store(true, Ordering::Relaxed);
        let synced = self.store.sync();
        self.intruder.is_let_in.store(false, Ordering::Relaxed);
        let topics = self.store.topics_for_test();
        if synced.is_ok() || self.chance.below(2) == 0 {
            drop(topics.note_recovery_points(&topics.all_open()));
        }
    }

    fn roll(&mut self) {
        self.disk.script().note("ROLL".into());
        let all = self.store.topics_for_test().all_open();
        if !all.is_empty() {
            drop(all[self.chance.index(all.len())].2.roll_now());
        }
    }

    fn delete_records(&mut self) {
        let Some((place, partition)) = self.some_place() else { return };
        if place.0 == COMPACTED {
            return;
        }
        let Ok((start, end)) = partition.watermarks() else { return };
        let before = start + self.chance.below((end - start + 1) as u64) as i64;
        self.disk.script().note(format!("DELETE below {before} of {place:?}"));
        let log = self.log(place);
        log.start_max = log.start_max.max(before);
        drop(partition.delete_records(before));
    }

    fn retain(&mut self) {
        self.disk.script().note("RETAIN".into());
        for log in &mut self.known.topics[PASSING].logs {
            log.start_max = log.start_max.max(log.sent.len() as i64);
        }
        drop(self.store.apply_retention());
    }

    fn compact(&mut self) {
        self.disk.script().note("COMPACT".into());
        if let Ok(topic) = self.store.topic(NAMES[COMPACTED]) {
            for log in &mut self.known.topics[COMPACTED].logs {
                log.compacted_below = log.sent.len() as i64;
            }
            drop(topic.compact());
        }
        // What groups have on record, too.
        if self.chance.below(2) == 0 {
            drop(self.store.coordinator_for_test().log().compact());
        }
    }

    fn create_or_delete(&mut self) {
        let absent =
            (0..NAMES.len()).find(|index| self.known.topics[*index].presence == Presence::Absent);
        let index = absent.unwrap_or(PASSING);
        if self.is_unclear[index] {
            return;
        }
        if absent.is_some() {
            let created = self.store.create_topic(NAMES[index], config(index));
            let topic = &mut self.known.topics[index];
            let count = 1 + usize::from(index == 0);
            *topic = Topic {
                presence: Presence::Present,
                logs: vec![Log::default(); count],
                count_min: count,
            };
            if created.is_err() {
                topic.presence = Presence::Either;
                self.is_unclear[index] = true;
            } else if index == 0 {
                self.let_in_intruder();
            }
            return;
        }
        for (place, commit) in &mut self.known.commits {
            if place.0 == PASSING {
                commit.tried.push(None);
            }
        }
        if self.store.delete_topic(NAMES[PASSING]).is_ok() {
            self.known.topics[PASSING] = Topic::default();
            self.known.commits.retain(|place, _| place.0 != PASSING);
        } else {
            self.known.topics[PASSING].presence = Presence::Either;
            self.is_unclear[PASSING] = true;
        }
    }

    fn grow(&mut self) {
        let known = &mut self.known.topics[PASSING];
        let is_unclear = self.is_unclear[PASSING] || known.logs.len() != known.count_min;
        if known.presence != Presence::Present || is_unclear || known.logs.len() > 2 {
            return;
        }
        let Ok(topic) = self.store.topic(NAMES[PASSING]) else { return };
        known.logs.push(Log::default());
        if topic.add_partitions(known.logs.len() as u32).is_ok() {
            known.count_min = known.logs.len();
        }
    }

    fn commit(&mut self) {
        let Some((place, partition)) = self.some_place() else { return };
        let Ok((start, end)) = partition.watermarks() else { return };
        let offset = start + self.chance.below((end - start + 1) as u64) as i64;
        let commit: &mut Commit = self.known.commits.entry(place).or_default();
        commit.tried.push(Some(offset));
        self.disk.script().note(format!("COMMIT {offset} of {place:?}"));
        let done: Result<()> =
            self.store.group(GROUP).and_then(|group| group.alter_offsets([(&partition, offset)]));
        if done.is_ok() {
            *commit = Commit { acknowledged: Some(offset), tried: Vec::new() };
        }
    }

    fn alter(&mut self) {
        let Some((_, partition)) = self.some_place() else { return };
        let bytes = [Some("900"), Some("1500"), Some("1024")][self.chance.below(3) as usize];
        self.disk.script().note("ALTER".into());
        drop(partition.topic().alter("segment.bytes", bytes));
    }

    /// Reads go on, whatever has failed.
    fn read(&mut self) -> std::result::Result<(), String> {
        if self.disk.script().has_died() {
            return Ok(());
        }
        let found = known::read_all(&self.store).unwrap_or_default();
        for ((topic, number), found) in found {
            let Some(log) = self.known.topics[topic].logs.get(number as usize) else { continue };
            for (offset, sent) in &found.records {
                if log.sent.get(*offset as usize) != Some(sent) {
                    return Err(format!(
                        "{}-{number} shows another record at {offset}",
                        NAMES[topic]
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Waits for a delivery, or asks the log, where a sync has done it already.
fn partition_is_durable(delivery: crate::Delivery, partition: &TopicPartition, end: usize) -> bool {
    delivery.wait().is_ok()
        && partition.open().is_ok_and(|open| open.watermarks().durable_end() >= end as i64)
}
