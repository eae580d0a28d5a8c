//! Power cuts at every moment of a life on a real file system, of which every write to the device is on record.
//!
//! A *writer* is this test binary run again: it does everything at once on a file system whose device [is
//! recorded](crate::block_log), and tells on its standard output what was acknowledged, and how far the record was at
//! that moment. Afterwards the device is had as a power cut at some moment may have left it, mounted, which replays the
//! file system's journal, and opened: everything that was told before is there. Some lives begin with what such a cut
//! left of the life before, so that recoveries are on record, too.
//!
//! What needs root, Linux, or a program that is not there is skipped, and says so; `.ci/run` counts what was. `OTTLA_CUTS`
//! sets how many cuts each file system gets, `OTTLA_SEED` where. No two lives are alike all the same.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that fails should say where"
)]
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use ottla::Durability;
use ottla::Finding;
use ottla::Record;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;
use ottla::inspect;

use crate::block_log::BlockLog;
use crate::block_log::Event;
use crate::block_log::Image;
use crate::block_log::Kept;
use crate::block_log::SECTOR;
use crate::block_log::Written;
use crate::chance::Chance;
use crate::chance::told;
use crate::consuming::read_all;
use crate::killed_child::tell;
use crate::mounted::Kind;
use crate::mounted::NbdFile;
use crate::mounted::runs;
use crate::mounted::skipped;
use crate::mounted::unmount;
use crate::scratch::scratch;

const WRITER: &str = "real_disks_recorded::child_that_writes_to_a_recorded_disk";
const ROUNDS: i64 = 24;
const KEYS: u64 = 5;

/// What is at an offset: nothing else ever is, and no other life puts the same there.
fn value(partition: usize, offset: i64, life: u64) -> String {
    let mut chance = Chance((offset as u64 + 1) * 1_000_003 + (partition as u64) * 101 + life + 1);
    let filler = format!("{:016x}", chance.below(u64::MAX));
    format!("{partition}.{offset}.{life}.{}", filler.repeat(chance.index(100)))
}

/// A writer's pen.
struct Pen {
    count: PathBuf,
    life: u64,
}

impl Pen {
    /// Tells that something was acknowledged, or is about to be done, and how much is on record.
    fn note(&self, what: &str) {
        let count = fs::metadata(&self.count).unwrap().len();
        tell(&format!("{count} {what}"));
    }

    /// One partition, each record waited for; and a group that reads it.
    fn wait_for_each(&self, store: &Store, topic: &Topic, mut end: i64) {
        let producer = store.producer();
        let mut consumer = store.consumer().subscribe("g", topic).unwrap();
        for round in 0..ROUNDS {
            self.note(&format!("sending 0 {}", end + 1));
            let record = value(0, end, self.life);
            let sent = producer.send(topic, Record::new(&record).partition(0)).unwrap();
            assert_eq!(sent.wait().unwrap().offset(), end);
            end += 1;
            self.note(&format!("appended 0 {end}"));
            if round % 4 == 3 {
                drop(consumer.poll(Duration::ZERO).unwrap());
                consumer.commit().unwrap();
                for partition in topic.partitions() {
                    if let Some(committed) = consumer.committed(&partition).unwrap() {
                        let (number, offset) = (partition.partition(), committed.offset());
                        self.note(&format!("committed {number} {offset}"));
                    }
                }
            }
        }
    }

    /// One whose records are durable together, through a map where there may be one; its beginning is deleted.
    fn sync_now_and_then(&self, store: &Store, topic: &Topic, mut end: i64) {
        let producer = store.producer_builder().durability(Durability::Buffered).build();
        for round in 0..ROUNDS {
            for _ in 0..10 {
                let record = value(1, end, self.life);
                drop(producer.send(topic, Record::new(&record).partition(1)).unwrap());
                end += 1;
            }
            // What is said to be durable is, though nobody has waited for it.
            let durable_end = topic.describe().unwrap().partitions[1].durable_end;
            self.note(&format!("appended 1 {durable_end}"));
            store.sync().unwrap();
            self.note(&format!("appended 1 {end}"));
            if round % 6 == 5 {
                let before = end - 30;
                self.note(&format!("deleting 1 {before}"));
                topic.partition(1).unwrap().delete_records(before).unwrap();
                self.note(&format!("deleted 1 {before}"));
            }
        }
    }

    /// One that gets compressed batches, the last record of each waited for.
    fn send_batches(&self, store: &Store, topic: &Topic, mut end: i64) {
        let builder = store.producer_builder().linger(Duration::from_millis(1));
        let builder = builder.set("compression.type", "lz4");
        // A build without the codec sends them as they are.
        let producer = builder.unwrap_or_else(|_| store.producer_builder()).build();
        for _ in 0..ROUNDS {
            let mut last = None;
            for _ in 0..8 {
                let record = value(2, end, self.life);
                last = Some(producer.send(topic, Record::new(&record).partition(2)).unwrap());
                end += 1;
            }
            assert_eq!(last.unwrap().wait().unwrap().offset(), end - 1);
            self.note(&format!("appended 2 {end}"));
        }
    }

    /// Topics come and go, and one is compacted.
    fn change_topics(&self, store: &Store, keyed: &Topic) {
        let producer = store.producer();
        for round in 0..ROUNDS as u64 {
            let version = self.life * 1_000_000 + round;
            let (key, value) = (format!("{}", round % KEYS), format!("{version}.{:0700}", 0));
            let sent = producer.send(keyed, Record::new(&value).key(&key)).unwrap();
            sent.wait().unwrap();
            self.note(&format!("keyed {} {version}", round % KEYS));
            if round % 8 == 7 {
                keyed.compact().unwrap();
            }
            if round % 8 == 3 {
                let bytes = 2_000_000 + self.life * 100 + round;
                keyed.alter("max.message.bytes", Some(&bytes.to_string())).unwrap();
                self.note(&format!("altered {bytes}"));
            }
            if round % 4 == 2 {
                let name = format!("x-{}-{round}", self.life);
                self.note(&format!("creating {name}"));
                let topic = store.create_topic(&name, TopicConfig::new()).unwrap();
                self.note(&format!("created {name}"));
                producer.send(&topic, "x").unwrap().wait().unwrap();
                self.note(&format!("filled {name}"));
                if round % 8 == 2 {
                    self.note(&format!("removing {name}"));
                    store.delete_topic(&name).unwrap();
                    self.note(&format!("removed {name}"));
                }
            }
        }
    }
}

/// What the tests below run in a process of its own; does nothing in an ordinary run.
#[test]
fn child_that_writes_to_a_recorded_disk() {
    let Ok(root) = std::env::var("OTTLA_RECORDED_DISK") else { return };
    let life = std::env::var("OTTLA_RECORDED_LIFE").unwrap().parse().unwrap();
    let pen = Pen { count: std::env::var_os("OTTLA_RECORDED_COUNT").unwrap().into(), life };
    begin_another_boot(Path::new(&root));
    let store = quiet(Path::new(&root)).unwrap();
    let config = TopicConfig::new().segment_bytes(16 << 10);
    let topic = store.topic_or_create("t", config.clone().partitions(3)).unwrap();
    let config = config.segment_bytes(4096).set("cleanup.policy", "compact").unwrap();
    let keyed = store.topic_or_create("keyed", config).unwrap();
    let ends: Vec<i64> =
        topic.partitions().iter().map(|partition| partition.watermarks().unwrap().1).collect();
    pen.note(&format!("opened {life} {} {} {}", ends[0], ends[1], ends[2]));
    thread::scope(|scope| {
        scope.spawn(|| pen.wait_for_each(&store, &topic, ends[0]));
        scope.spawn(|| pen.sync_now_and_then(&store, &topic, ends[1]));
        scope.spawn(|| pen.send_batches(&store, &topic, ends[2]));
        scope.spawn(|| pen.change_topics(&store, &keyed));
    });
    drop((topic, keyed));
    store.close().unwrap();
    pen.note("closed");
}

/// A store that compacts only when it is asked to.
fn quiet(root: &Path) -> ottla::Result<Store> {
    Store::builder(root).cleaner_enable(false).open()
}

/// The machine has not been started anew, though it looks as if its power had gone.
fn begin_another_boot(root: &Path) {
    let lock = root.join(".lock");
    if lock.exists() {
        fs::write(lock, "pid=1\nboot=another\n").unwrap();
    }
}

/// What was told of a partition.
#[derive(Clone, Debug, Default)]
struct Log {
    /// Everything below is durable.
    end: i64,
    /// Everything below is deleted; and what nobody has begun to delete begins here.
    start: (i64, i64),
    committed: i64,
    /// From which offset on which life wrote it.
    lives: Vec<(i64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Unknown,
    Created,
    Filled,
    Removed,
}

/// What has to be there, as far as a writer has told.
#[derive(Clone, Debug, Default)]
struct Told {
    is_open: bool,
    logs: [Log; 3],
    topics: BTreeMap<String, Fate>,
    versions: [u64; KEYS as usize],
    altered: i64,
}

impl Told {
    fn note(&mut self, what: &str) -> Result<(), String> {
        let (word, rest) = what.split_once(' ').unwrap_or((what, ""));
        let numbers: Vec<i64> = rest.split(' ').filter_map(|n| n.parse().ok()).collect();
        let mut fate = |fate| _ = self.topics.insert(rest.to_owned(), fate);
        match (word, &numbers[..]) {
            ("opened", &[life, ref ends @ ..]) => {
                self.is_open = true;
                for (log, end) in self.logs.iter_mut().zip(ends) {
                    if *end < log.end {
                        return Err(format!("life {life} found {end}, not {}", log.end));
                    }
                    // What an opening shows is durable.
                    log.end = *end;
                    log.lives.retain(|(from, _)| from < end);
                    log.lives.push((*end, life as u64));
                }
            }
            ("appended", &[partition, end]) => {
                let log = &mut self.logs[partition as usize];
                log.end = log.end.max(end);
            }
            ("altered", &[bytes]) => self.altered = bytes,
            ("committed", &[partition, offset]) => self.logs[partition as usize].committed = offset,
            ("deleting", &[partition, offset]) => self.logs[partition as usize].start.1 = offset,
            ("deleted", &[partition, offset]) => self.logs[partition as usize].start.0 = offset,
            ("keyed", &[key, version]) => self.versions[key as usize] = version as u64,
            ("creating" | "removing", _) => fate(Fate::Unknown),
            ("created", _) => fate(Fate::Created),
            ("filled", _) => fate(Fate::Filled),
            ("removed", _) => fate(Fate::Removed),
            ("sending" | "closed", _) => {}
            _ => return Err(format!("what is {what:?}?")),
        }
        Ok(())
    }

    /// Opens what is left, and gives what is there.
    fn look(&self, root: &Path) -> Result<BTreeMap<String, Vec<String>>, String> {
        let fail = |error: ottla::Error| error.to_string();
        let store = quiet(root).map_err(fail)?;
        let is_wrong = |finding: &&Finding| !matches!(finding, Finding::Cut { .. });
        if let Some(finding) = store.health().findings.iter().find(is_wrong) {
            return Err(format!("{finding:?}"));
        }
        let mut found = BTreeMap::new();
        // What groups write by themselves is not compared, only what they have committed.
        let topics = store.topics().map_err(fail)?;
        for topic in topics.iter().filter(|topic| !topic.name().starts_with('_')) {
            for partition in topic.partitions() {
                let mut consumer = store.consumer().assign([&partition]).map_err(fail)?;
                let (start, end) = partition.watermarks().map_err(fail)?;
                let mut lines = vec![format!("{start} {end}")];
                let seen = read_all(&mut consumer);
                lines.extend(seen.into_iter().map(|seen| {
                    let text = |bytes: Option<Vec<u8>>| {
                        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
                    };
                    format!("{} {} {}", seen.offset, text(seen.key), text(seen.value))
                }));
                found.insert(partition.to_string(), lines);
            }
        }
        if let Ok(keyed) = store.topic("keyed") {
            let config = keyed.describe().map_err(fail)?;
            let altered = config.config("max.message.bytes").unwrap().value.clone();
            found.insert("altered".into(), vec![altered]);
        }
        let committed = match store.group("g").and_then(|group| group.offsets()) {
            Ok(offsets) => offsets,
            Err(ottla::Error::UnknownGroup { .. }) => Vec::new(),
            Err(error) => return Err(error.to_string()),
        };
        for (topic, partition, noted) in committed {
            found.insert(format!("g/{topic}-{partition}"), vec![noted.offset().to_string()]);
        }
        store.close().map_err(fail)?;
        Ok(found)
    }

    /// Everything that was told is there, and nothing that was never sent, or is not where it belongs.
    fn agrees(&self, found: &BTreeMap<String, Vec<String>>) -> Result<(), String> {
        for (number, log) in self.logs.iter().enumerate() {
            let name = format!("t-{number}");
            let Some(lines) = found.get(&name) else {
                if self.is_open {
                    return Err(format!("{name} is gone"));
                }
                continue;
            };
            let (start, end) = lines[0].split_once(' ').unwrap();
            let (start, end): (i64, i64) = (start.parse().unwrap(), end.parse().unwrap());
            if end < log.end || start < log.start.0 || start > log.start.1 {
                return Err(format!("{name} has {start}..{end}, told: {log:?}"));
            }
            if lines.len() as i64 != 1 + end - start {
                return Err(format!("{name} has {} records in {start}..{end}", lines.len() - 1));
            }
            for (offset, line) in (start..).zip(&lines[1..]) {
                let life = log.lives.iter().rev().find(|(from, _)| *from <= offset);
                let life = life.map_or(0, |(_, life)| *life);
                if *line != format!("{offset}  {}", value(number, offset, life)) {
                    let line = &line[..line.len().min(60)];
                    return Err(format!(
                        "{name} has {line:?} at {offset}, of life {life}: {log:?}"
                    ));
                }
            }
            let committed = found.get(&format!("g/{name}")).map_or(0, |c| c[0].parse().unwrap());
            if committed < log.committed || committed > end {
                return Err(format!("{name}: committed {committed} of {end}, told: {log:?}"));
            }
        }
        for (name, fate) in &self.topics {
            let lines = found.get(&format!("{name}-0"));
            let is_right = match fate {
                Fate::Unknown => true,
                Fate::Created => lines.is_some(),
                Fate::Filled => lines.is_some_and(|lines| lines[1..] == ["0  x"]),
                Fate::Removed => lines.is_none(),
            };
            if !is_right {
                return Err(format!("{name}: {fate:?}, found {lines:?}"));
            }
        }
        let altered = found.get("altered").and_then(|lines| lines[0].parse().ok());
        if altered.unwrap_or(0) < self.altered {
            return Err(format!("altered to {}, found {altered:?}", self.altered));
        }
        for (key, version) in self.versions.iter().enumerate() {
            let lines = found.get("keyed-0").into_iter().flatten().skip(1);
            let of_key = lines.filter_map(|line| {
                let (_, line) = line.split_once(' ')?;
                line.strip_prefix(&format!("{key} "))?.split('.').next()
            });
            let last = of_key.last().map_or(0, |version| version.parse().unwrap());
            if last < *version {
                return Err(format!("key {key}: {last} is the last, told: {version}"));
            }
        }
        Ok(())
    }

    /// Opens what is left twice, goes on with it, and has it checked.
    fn check(&self, root: &Path) -> Result<(), String> {
        begin_another_boot(root);
        let found = self.look(root)?;
        self.agrees(&found)?;
        let again = self.look(root)?;
        if again != found {
            let differs =
                |(name, _): &(&String, &Vec<String>)| again.get(*name) != found.get(*name);
            let (name, _) = found.iter().chain(&again).find(differs).unwrap();
            let texts = [&found, &again].map(|found| {
                let lines = found.get(name).into_iter().flatten();
                lines.map(|line| line[..line.len().min(40)].to_owned()).collect::<Vec<_>>()
            });
            return Err(format!("{name}: a second open finds {:?}, not {:?}", texts[1], texts[0]));
        }
        let more = || -> ottla::Result<()> {
            let store = quiet(root)?;
            for topic in store.topics()?.iter().filter(|topic| !topic.name().starts_with('_')) {
                store.producer().send(topic, Record::new("more").key("more"))?.wait()?;
            }
            store.close()
        };
        more().map_err(|error| error.to_string())?;
        let report = inspect::check(root).map_err(|error| error.to_string())?;
        if report.problems.is_empty() { Ok(()) } else { Err(format!("{:?}", report.problems)) }
    }
}

/// A mount, until it is dropped.
struct At(PathBuf);

impl At {
    fn mount(image: &Path, at: PathBuf, options: &str) -> Option<At> {
        fs::create_dir_all(&at).unwrap();
        let is_mounted =
            runs("mount", &["-o", options, image.to_str().unwrap(), at.to_str().unwrap()]);
        is_mounted.then_some(At(at))
    }
}

impl Drop for At {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// A life on a recorded device: what was written to it, and what was told, after how many writes.
struct Life {
    written: Written,
    told: Vec<(usize, String)>,
}

/// Has a device recorded while something is done to it; `None` where this cannot be done, having said so.
fn recorded<T>(
    kind: Kind,
    first: Image,
    act: impl FnOnce(&Path, &BlockLog, &Path) -> Option<T>,
) -> Option<(Written, T)> {
    let directory = scratch();
    let log = BlockLog::start(directory.path(), first.clone(), kind.len());
    let socket = log.socket().to_str().unwrap().to_owned();
    let outcome = {
        let file = NbdFile::start(directory.path(), &["--unix", &socket])?;
        act(&file.path(), &log, directory.path())?
    };
    Some((log.written(first), outcome))
}

fn formatted(kind: Kind) -> Option<Image> {
    let (written, ()) = recorded(kind, Image::default(), |device, _, _| {
        let (program, arguments) = kind.mkfs();
        if !runs(program, &[arguments, &[device.to_str().unwrap()]].concat()) {
            skipped(&format!("{program} is missing, or fails"));
            return None;
        }
        Some(())
    })?;
    Some(written.cut(written.events.len(), Kept::All, &mut Chance(1)))
}

/// Stands for the store's directory, where a program is to be told.
const ROOT: &str = "ROOT";

/// Has a writer live on a device that begins as the image, under another program if one is given.
fn live(kind: Kind, first: Image, life: u64, under: &[&str]) -> Option<Life> {
    let (written, told) = recorded(kind, first, |device, log, directory| {
        let Some(at) = At::mount(device, directory.join("m"), "loop,discard") else {
            skipped(&format!("{kind:?} cannot be mounted from a file here, as root only"));
            return None;
        };
        let (binary, root) = (std::env::current_exe().unwrap(), at.0.join("data"));
        let [binary, root] = [&binary, &root].map(|path| path.to_str().unwrap());
        let mut command = [under, &[binary, "--exact", WRITER, "--nocapture"]].concat();
        command.iter_mut().filter(|word| **word == ROOT).for_each(|word| *word = root);
        let child = Command::new(command[0])
            .args(&command[1..])
            .env("OTTLA_RECORDED_DISK", root)
            .env("OTTLA_RECORDED_COUNT", log.count())
            .env("OTTLA_RECORDED_LIFE", life.to_string())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let told = lines.filter_map(|line| {
            let (count, what) = line.split_once('@')?.1.split_once(' ')?;
            Some((count.parse().unwrap(), what.to_owned()))
        });
        let mut told: Vec<(usize, String)> = told.collect();
        assert!(child.wait().unwrap().success(), "{kind:?}: the writer failed in life {life}");
        // Threads may tell a little later than what they tell of.
        told.sort_by_key(|(count, _)| *count);
        Some(told)
    })?;
    Some(Life { written, told })
}

impl Life {
    /// Gives what was told before the device was written to for so many times.
    fn told(&self, before: &Told, count: usize) -> Result<Told, String> {
        let mut told = before.clone();
        for (at, what) in &self.told {
            if *at <= count {
                told.note(what)?;
            }
        }
        Ok(told)
    }

    /// Each record that was waited for brought the device a flush, or the record shows less than happened.
    fn has_its_flushes(&self) -> bool {
        let waits = self.told.iter().filter_map(|(at, what)| {
            let is_end = |end: &&(usize, String)| {
                end.1.strip_prefix("appended") == what.strip_prefix("sending")
            };
            what.starts_with("sending").then(|| (*at, self.told.iter().find(is_end).unwrap().0))
        });
        let mut waits = waits.peekable();
        let is_flush = |event: &Event| matches!(event, Event::Flush);
        waits.peek().is_some()
            && waits.all(|(from, to)| self.written.events[from..to].iter().any(is_flush))
    }
}

/// Mounts an image and checks what is there. Gives whether it could be mounted.
fn holds(kind: Kind, image: &Image, place: &Path, told: &Told) -> Result<bool, String> {
    let file = place.join("image");
    image.save(&file, kind.len());
    let Some(at) = At::mount(&file, place.join("r"), "loop") else { return Ok(false) };
    let root = at.0.join("data");
    if root.exists() {
        told.check(&root)?;
    } else if told.is_open {
        return Err("the directory is gone".into());
    }
    Ok(true)
}

fn cut_everywhere(kind: Kind) {
    const CUTS_PER_LIFE: u64 = 14;
    const LIVES_PER_DEVICE: u64 = 8;
    const KEPT: [Kept; 7] = [
        Kept::Nothing,
        Kept::Some(50),
        Kept::Torn(4096),
        Kept::All,
        Kept::Some(10),
        Kept::Torn(SECTOR),
        Kept::Some(90),
    ];
    let (cuts, seed) = (told("OTTLA_CUTS").unwrap_or(4), told("OTTLA_SEED").unwrap_or(1));
    println!("{kind:?}: OTTLA_SEED={seed}");
    let mut chance = Chance(seed * 2_654_435_761 + 1);
    let place = scratch();
    let Some(empty) = formatted(kind) else { return };
    let (mut image, mut before) = (empty.clone(), Told::default());
    let (mut lives, mut writes, mut acknowledged, mut not_mounted) = (0, 0, 0, 0);
    for cut in 0..cuts {
        if cut % CUTS_PER_LIFE != 0 {
            continue;
        }
        if lives % LIVES_PER_DEVICE == 0 {
            // Or it is full some day.
            (image, before) = (empty.clone(), Told::default());
        }
        let Some(life) = live(kind, image.clone(), lives, &[]) else { return };
        assert!(life.has_its_flushes(), "{kind:?}: a sync brought no flush");
        let (len, flushes) = (life.written.events.len(), life.written.flushes());
        let mut next = None;
        for cut in cut..cuts.min(cut + CUTS_PER_LIFE) {
            let kept = match KEPT[(cut % 7) as usize] {
                // It takes a block whose first sector is new for new as a whole, and may not be mounted.
                Kept::Torn(_) if kind == Kind::Xfs => Kept::Torn(4096),
                kept => kept,
            };
            let count = match chance.below(5) {
                // While it recovers from the cut before, or makes itself at home.
                0 => chance.index(life.told[0].0 + 1),
                // When something was told; right behind a flush; at any other moment.
                1 => life.told[chance.index(life.told.len())].0,
                2 => flushes[chance.index(flushes.len())],
                _ => chance.index(len + 1),
            };
            let after = life.written.cut(count, kept, &mut chance);
            let told = life.told(&before, count);
            let outcome = told.and_then(|told| {
                let is_mounted = holds(kind, &after, place.path(), &told)?;
                Ok((told, is_mounted))
            });
            let (told, is_mounted) = outcome.unwrap_or_else(|error| {
                // No two lives are alike, so this is all there is to look at.
                let file =
                    std::env::temp_dir().join(format!("ottla-{kind:?}-{}", std::process::id()));
                after.save(&file, kind.len());
                let what =
                    format!("{kind:?}, life {lives}, cut at {count} of {len}, {kept:?} kept");
                panic!("{what}: {error}; see {}", file.display());
            });
            if is_mounted {
                next = Some((after, told));
            } else {
                // Drives may tear what a file system takes for whole. That is not what is tested here.
                assert_eq!(kept, Kept::Torn(SECTOR), "{kind:?} cannot be mounted, cut at {count}");
                not_mounted += 1;
            }
        }
        // The next life begins with what the last cut left, as a rule.
        if let Some(next) = next {
            (image, before) = next;
        }
        lives += 1;
        writes += len;
        acknowledged += life.told.len();
    }
    println!(
        "{kind:?}: {cuts} power cuts in {lives} lives, {writes} writes and flushes, {acknowledged} things told, nothing \
         lost; {not_mounted} times the file system was"
    );
}

#[test]
fn whatever_a_power_cut_leaves_of_a_recorded_ext_four_what_was_acknowledged_is_there() {
    cut_everywhere(Kind::Ext4);
}

#[test]
fn whatever_a_power_cut_leaves_of_a_recorded_xfs_what_was_acknowledged_is_there() {
    cut_everywhere(Kind::Xfs);
}

#[test]
fn whatever_a_power_cut_leaves_of_a_recorded_btrfs_what_was_acknowledged_is_there() {
    cut_everywhere(Kind::Btrfs);
}

/// Or the tests above show nothing. On one file system only, unless cuts are asked for.
#[test]
fn syncs_that_do_nothing_are_found_out_on_recorded_disks() {
    if !runs("strace", &["-f", "--seccomp-bpf", "-o", "/dev/null", "true"]) {
        return skipped("strace cannot be used here");
    }
    let place = scratch();
    let kinds = if told("OTTLA_CUTS").is_some_and(|cuts| cuts > 0) {
        &Kind::ALL[..]
    } else {
        &Kind::ALL[..1]
    };
    for &kind in kinds {
        // Of records; of a directory, after a file in it was replaced.
        for (call, only, promise) in
            [("fdatasync", None, "appended"), ("fsync", Some(ROOT), "altered")]
        {
            let Some(image) = formatted(kind) else { continue };
            let inject = format!("inject={call}:retval=0");
            let trace = format!("trace={call}");
            let mut under = vec!["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null"];
            under.extend(["-e", &trace, "-e", &inject]);
            under.extend(only.into_iter().flat_map(|root| ["-P", root]));
            let Some(life) = live(kind, image, 0, &under) else { continue };
            let mut promises = life.told.iter().filter(|(_, what)| what.starts_with(promise));
            let found = promises.find_map(|(count, _)| {
                let told = life.told(&Told::default(), *count).unwrap();
                let after = life.written.cut(*count, Kept::Nothing, &mut Chance(1));
                holds(kind, &after, place.path(), &told).err()
            });
            let found = found.unwrap_or_else(|| panic!("{kind:?}: no {call} was missed"));
            println!("{kind:?} without {call}: {found}");
        }
    }
}
