//! Tests only: requests and replies in lives that end in a power cut, one after the other on the same directory.
//!
//! Each life opens the directory on a disk that keeps account of what was synchronised. A requester asks, a responder
//! of two threads answers and commits, in half of the lives without waiting for the disk; at some effect nothing takes
//! effect any more, and the power cut takes what was not durable. What the next life finds: every request that was
//! acknowledged as durable, every reply that somebody was given who wanted it durable, and for every offset on record
//! the replies to all requests below it. Then it answers what is left, and whoever comes back is given those replies.
//!
//! Threads take turns as they like, so a seed plays alike lives again, not the same. `OTTLA_SEED` and `OTTLA_LIVES` are
//! as elsewhere.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use crate::Durability;
use crate::Error;
use crate::Message;
use crate::Pending;
use crate::Record;
use crate::Reply;
use crate::Requester;
use crate::Responder;
use crate::Result;
use crate::Store;
use crate::StoreBuilder;
use crate::Topic;
use crate::TopicConfig;
use crate::chance::Chance;
use crate::chance::told;
use crate::storage::disk::Disk;
use crate::storage::faults::fresh_copy;

const GENERATIONS: u32 = 5;
const GROUP: &str = "answerers";
const IDENTITY: &str = "desk";
const PARTITIONS: u32 = 2;
const ID: &str = "kafka_correlationId";
/// Longer than anything takes; a test that waits so long has failed.
const LONG: Duration = Duration::from_secs(60);
/// A look at whether the disk has died.
const MOMENT: Duration = Duration::from_millis(1);

/// What is known from outside, by the requests' values: no two are the same.
#[derive(Default)]
struct Known {
    /// Requests whose delivery succeeded, or that a recovery showed.
    requests: BTreeSet<Vec<u8>>,
    /// Requests whose replies somebody was given, or that a recovery showed.
    replies: BTreeSet<Vec<u8>>,
}

/// What a directory holds.
struct Found {
    /// By partition, in order.
    requests: BTreeMap<u32, Vec<Vec<u8>>>,
    /// What the replies are to.
    replies: BTreeSet<Vec<u8>>,
    /// By partition of the requests.
    committed: BTreeMap<u32, i64>,
}

fn builder(root: &Path) -> StoreBuilder {
    // Syncs happen when they are asked for and not by the clock.
    Store::builder(root).checkpoint_interval(Duration::from_secs(3600))
}

fn topics(store: &Store) -> Result<(Topic, Topic)> {
    let config = TopicConfig::new().segment_bytes(4096);
    let requests = store.topic_or_create("requests", config.clone().partitions(PARTITIONS))?;
    Ok((requests, store.topic_or_create("replies", config)?))
}

fn answering(store: &Store, requests: &Topic) -> Result<Responder> {
    let answer = |request: &Message<'_>| {
        let mut value = request.value().unwrap_or_default().to_vec();
        value.push(b'!');
        Ok::<_, Error>(Reply::new(value))
    };
    let builder = store.responder(requests, GROUP).threads(2).max_poll_records(3);
    builder.commit_interval(MOMENT).start(answer)
}

fn asking(store: &Store, requests: &Topic, replies: &Topic) -> Result<Requester> {
    store.requester(requests).replies(replies).identity(IDENTITY).build()
}

fn read_all(store: &Store, topic: &Topic) -> Result<BTreeMap<u32, Vec<Vec<u8>>>> {
    let mut consumer = store.consumer().assign(topic.partitions())?;
    let mut all: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
    loop {
        let records = consumer.poll(Duration::ZERO)?;
        if records.is_empty() {
            return Ok(all);
        }
        for message in &records {
            let value = message.value().unwrap_or_default().to_vec();
            all.entry(message.partition()).or_default().push(value);
        }
    }
}

fn asked(reply: &[u8]) -> Vec<u8> {
    reply.strip_suffix(b"!").unwrap().to_vec()
}

/// Asks on a disk that dies at some effect, until it has.
fn live(root: &Path, disk: &Disk, ends_at: u64, known: &mut Known, chance: &mut Chance, life: u32) {
    let has_died = || disk.script().count() >= ends_at;
    let is_synced = chance.below(2) == 0;
    let level = if is_synced { Durability::Synced } else { Durability::Buffered };
    let opened = builder(root).durability(level).disk(disk.clone()).open();
    let Ok(store) = opened else { return };
    let Ok((requests, replies)) = topics(&store) else { return };
    let Ok(responder) = answering(&store, &requests) else { return };
    let Ok(requester) = asking(&store, &requests, &replies) else { return };
    for number in 0..60 {
        let mut asked: Vec<(Vec<u8>, Pending)> = Vec::new();
        for part in 0..=chance.below(4) {
            let mut value = format!("{life}.{number}.{part}.").into_bytes();
            value.resize(20 + 100 * chance.below(3) as usize, b'.');
            match requester.request(Record::new(&value)) {
                Ok(pending) => asked.push((value, pending)),
                Err(error) => assert!(has_died(), "refused on a good disk: {error}"),
            }
        }
        if chance.below(8) == 0 {
            // What was not read is resumed by the next life, or not at all.
            continue;
        }
        for (value, mut pending) in asked {
            if is_synced && pending.delivery().clone().wait().is_ok() && !has_died() {
                known.requests.insert(value.clone());
            }
            let begun = Instant::now();
            loop {
                match pending.wait_timeout(MOMENT) {
                    Ok(_) => {
                        // Also where the disk died since: it was given because it was durable.
                        if is_synced {
                            known.replies.insert(value.clone());
                        }
                        break;
                    }
                    Err(_) if has_died() => return,
                    Err(Error::Timeout { .. }) if begun.elapsed() < LONG => {}
                    Err(error) => panic!("no reply on a good disk: {error}"),
                }
            }
        }
        let done = match chance.below(12) {
            0..=1 => requester.commit(),
            2 => store.sync(),
            // The responder puts on record how far it is, whatever else there is to do.
            3 => responder.wait_idle(LONG).map(|_| ()),
            _ => Ok(()),
        };
        if has_died() {
            return;
        }
        done.unwrap();
    }
}

fn found(store: &Store, requests: &Topic, replies: &Topic) -> Result<Found> {
    let committed = match store.group(GROUP)?.offsets() {
        Ok(all) => all.into_iter().map(|(_, number, noted)| (number, noted.offset())).collect(),
        Err(Error::UnknownGroup { .. }) => BTreeMap::new(),
        Err(other) => return Err(other),
    };
    let replies = read_all(store, replies)?.into_values().flatten();
    Ok(Found {
        requests: read_all(store, requests)?,
        replies: replies.map(|reply| asked(&reply)).collect(),
        committed,
    })
}

/// Says what is wrong with what a life left; what it shows is what the next life builds on.
fn check(root: &Path, known: &mut Known) -> Result<(), String> {
    if !root.exists() {
        return if known.requests.is_empty() { Ok(()) } else { Err("it is gone".into()) };
    }
    let failed = |error: Error| error.to_string();
    let store = builder(root).open().map_err(failed)?;
    let (requests, replies) = topics(&store).map_err(failed)?;
    let seen = found(&store, &requests, &replies).map_err(failed)?;
    let text = |value: &Vec<u8>| String::from_utf8_lossy(value).into_owned();
    let all: BTreeSet<Vec<u8>> = seen.requests.values().flatten().cloned().collect();
    if let Some(lost) = known.requests.difference(&all).next() {
        return Err(format!("the request {} was acknowledged and is lost", text(lost)));
    }
    if let Some(lost) = known.replies.difference(&seen.replies).next() {
        return Err(format!("the reply to {} was given and is lost", text(lost)));
    }
    for (number, offset) in &seen.committed {
        let log = seen.requests.get(number).map_or(&[][..], Vec::as_slice);
        let Some(below) = log.get(..*offset as usize) else {
            return Err(format!("{number} is on record at {offset}, ahead of its end"));
        };
        if let Some(value) = below.iter().find(|value| !seen.replies.contains(*value)) {
            return Err(format!("{number} at {offset}: no answer to {}", text(value)));
        }
    }
    // Whoever comes back is given the replies it did not have, and nothing waits for ever.
    let requester = asking(&store, &requests, &replies).map_err(failed)?;
    let mut resumed = requester.resume().map_err(failed)?;
    let responder = answering(&store, &requests).map_err(failed)?;
    if !responder.wait_idle(LONG).map_err(failed)? {
        return Err("not everything was answered".into());
    }
    let mut given = BTreeSet::new();
    while let Some(reply) = resumed.next_reply(Duration::ZERO).map_err(failed)? {
        if !reply.headers().any(|header| header.key == ID) {
            return Err("a reply without an id".into());
        }
        given.insert(asked(reply.value().unwrap_or_default()));
    }
    let answered = found(&store, &requests, &replies).map_err(failed)?.replies;
    if let Some(value) = all.difference(&answered).next() {
        return Err(format!("{} is not answered", text(value)));
    }
    let due = all.iter().filter(|value| !seen.replies.contains(*value));
    if let Some(value) = due.into_iter().find(|value| !given.contains(*value)) {
        return Err(format!("the late reply to {} was not given", text(value)));
    }
    drop(requester);
    responder.close().map_err(failed)?;
    (known.requests, known.replies) = (all, answered);
    Ok(())
}

fn lineage(root: &Path, seed: u64) -> Result<(), String> {
    let mut chance = Chance(seed | 1);
    let mut known = Known::default();
    for generation in 0..GENERATIONS {
        let latest = [40, 200, 600][chance.below(3) as usize];
        let ends_at = 1 + chance.below(latest);
        let disk = Disk::dying(ends_at);
        live(root, &disk, ends_at, &mut known, &mut chance, generation);
        if chance.below(4) > 0 {
            disk.script().cut_power(root, &mut |limit| chance.below(limit));
        }
        // Where a copy is looked at, the next life is the one that recovers, and may end within that.
        let is_looked_at_aside = chance.below(2) == 0 && root.exists();
        let seen = if is_looked_at_aside { fresh_copy(root, "copy") } else { root.to_path_buf() };
        let before = (known.requests.clone(), known.replies.clone());
        check(&seen, &mut known)
            .map_err(|wrong| format!("OTTLA_SEED={seed}, generation {generation}: {wrong}"))?;
        if is_looked_at_aside {
            (known.requests, known.replies) = before;
        }
    }
    Ok(())
}

fn play(seed: u64) -> Result<(), String> {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let directory = tempfile::tempdir_in(&place).unwrap();
    lineage(&directory.path().join("data"), seed)
}

#[test]
fn no_power_cut_takes_a_request_or_an_answer_that_somebody_was_told_of() {
    if let Some(seed) = told("OTTLA_SEED") {
        play(seed).unwrap();
        return;
    }
    for n in 0..told("OTTLA_LIVES").unwrap_or(40) {
        play(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1).unwrap();
    }
}
