//! Requests and replies across restarts: ends in order, and kills between each pair of steps.
//!
//! The steps of a request are: it is appended, it is read, it is handled, its reply is appended, its offset is
//! committed, its reply is received. A child process does them and dies between two; the next life must find every
//! request answered, none lost, and answered twice only where the offset was not committed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that fails should say where"
)]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use ottla::Durability;
use ottla::Error;
use ottla::Record;
use ottla::Reply;
use ottla::Requester;
use ottla::Store;
use ottla::TopicConfig;

use crate::chance;
use crate::model::copy_tree;
use crate::read_only::Helper;
use crate::read_only::orders;
use crate::read_only::tell;
use crate::request_reply::answer_to;
use crate::request_reply::header;
use crate::request_reply::records_of;
use crate::request_reply::shout;
use crate::request_reply::shouting;
use crate::request_reply::text;
use crate::request_reply::until;
use crate::waiting::LONG;
use crate::waiting::SOON;

const ID: &str = "kafka_correlationId";
const NEVER: Duration = Duration::from_secs(3600);

fn open(path: &Path) -> Store {
    Store::builder(path).durability(Durability::Buffered).open().unwrap()
}

/// The values of all replies to earlier lives that there are.
fn resumed(requester: &Requester) -> Vec<String> {
    let mut resumed = requester.resume().unwrap();
    let mut all = Vec::new();
    while let Some(reply) = resumed.next_reply(Duration::ZERO).unwrap() {
        all.push(text(&reply));
    }
    all
}

#[test]
fn what_was_not_answered_is_answered_after_a_restart_and_picked_up_by_who_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let store = open(&path);
    let topic = store.create_topic("questions", TopicConfig::new().partitions(2)).unwrap();
    let requester = store.requester(&topic).identity("desk").build().unwrap();
    let _other = store.requester(&topic).identity("other desk").build().unwrap();
    let asked: Vec<_> = (0..5)
        .map(|n| requester.request(Record::new(&format!("{n}")).key(&format!("{n}"))).unwrap())
        .collect();
    let ids: BTreeSet<Vec<u8>> = asked.iter().map(|asked| asked.correlation_id()).collect();
    drop((asked, requester, _other, topic));
    store.close().unwrap();

    let store = open(&path);
    let topic = store.topic("questions").unwrap();
    let responder = shouting(&store, &topic);
    assert!(responder.wait_idle(LONG).unwrap());
    assert_eq!(responder.status().answered, 5);
    // Another life, which asks as well: it hears of its own only.
    let requester = store.requester(&topic).identity("desk").build().unwrap();
    assert_eq!(answer_to(&requester, "new"), "new!");
    let mut resumed_replies = requester.resume().unwrap();
    let mut found = BTreeSet::new();
    for _ in 0..5 {
        let reply = resumed_replies.next_reply(SOON).unwrap().unwrap();
        assert_eq!(text(&reply), format!("{}!", String::from_utf8_lossy(reply.key().unwrap())));
        assert!(found.insert(header(&reply, ID).unwrap()));
    }
    assert_eq!(found, ids);
    assert!(resumed_replies.next_reply(Duration::from_millis(5)).unwrap().is_none());
    drop((resumed_replies, requester));
    // All was dealt with: the next life finds nothing.
    let requester = store.requester(&topic).identity("desk").build().unwrap();
    assert_eq!(resumed(&requester), [""; 0]);
    let other = store.requester(&topic).identity("other desk").build().unwrap();
    assert_eq!(resumed(&other), [""; 0]);
    assert_ne!(other.reply_partition(), requester.reply_partition());
}

#[test]
fn replies_to_an_earlier_life_that_come_later_are_given_as_they_come() {
    let store = Store::temporary().unwrap();
    let topic = store.create_topic("questions", TopicConfig::new()).unwrap();
    let requester = store.requester(&topic).identity("desk").build().unwrap();
    drop(requester.request("early").unwrap());
    drop(requester);
    let requester = store.requester(&topic).identity("desk").build().unwrap();
    let mut resumed = requester.resume().unwrap();
    let waiting = thread::spawn(move || resumed.next_reply(LONG).unwrap().unwrap());
    thread::sleep(Duration::from_millis(20));
    let _responder = shouting(&store, &topic);
    assert_eq!(text(&waiting.join().unwrap()), "early!");
    assert_eq!(answer_to(&requester, "now"), "now!");
    let status = requester.status();
    assert_eq!((status.answered, status.earlier_lives, status.late), (1, 1, 0));
}

#[test]
fn who_comes_back_may_ignore_what_arrived_or_take_a_part_of_it() {
    let store = Store::temporary().unwrap();
    let topic = store.create_topic("questions", TopicConfig::new()).unwrap();
    let requester = store.requester(&topic).identity("desk").build().unwrap();
    let _responder = shouting(&store, &topic);
    let asked = ["a", "b", "c"].map(|question| requester.request(question).unwrap());
    until("all are answered", || asked.iter().all(ottla::Pending::is_ready));
    // What a kill would leave at this moment: nothing is committed behind the beginning.
    store.sync().unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_tree(store.path(), &copy.path().join("data"));

    let store = open(&copy.path().join("data"));
    let topic = store.topic("questions").unwrap();
    let life = || store.requester(&topic).identity("desk").build().unwrap();
    let requester = life();
    let mut part = requester.resume().unwrap();
    assert_eq!(text(&part.next_reply(SOON).unwrap().unwrap()), "a!");
    assert_eq!(text(&part.next_reply(SOON).unwrap().unwrap()), "b!");
    drop(part);
    drop(requester);
    // The one that was in hand when it ended is given again.
    let requester = life();
    assert_eq!(resumed(&requester), ["b!", "c!"]);
    drop(requester);
    assert_eq!(resumed(&life()), [""; 0]);
    let requester = life();
    requester.commit().unwrap();
    requester.close().unwrap();
}

#[test]
fn what_was_ignored_once_is_not_resumed_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    {
        let store = open(&path);
        let topic = store.create_topic("questions", TopicConfig::new()).unwrap();
        let requester = store.requester(&topic).identity("desk").build().unwrap();
        for question in ["a", "b"] {
            drop(requester.request(question).unwrap());
        }
    }
    let store = open(&path);
    let topic = store.topic("questions").unwrap();
    assert!(shouting(&store, &topic).wait_idle(LONG).unwrap());
    drop(store.requester(&topic).identity("desk").build().unwrap());
    let requester = store.requester(&topic).identity("desk").build().unwrap();
    assert_eq!(resumed(&requester), [""; 0]);
}

#[test]
fn damage_among_requests_and_replies_is_told_or_counted_and_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    {
        let store = open(&path);
        let topic = store.create_topic("questions", TopicConfig::new()).unwrap();
        let requester = store.requester(&topic).identity("desk").build().unwrap();
        for question in ["damaged", "whole"] {
            drop(requester.request(question).unwrap());
        }
        drop((requester, topic));
        store.close().unwrap();
    }
    flip(&path.join("questions-0"), 80);
    {
        let store = open(&path);
        let topic = store.topic("questions").unwrap();
        let responder = shouting(&store, &topic);
        until("the whole one is answered", || responder.status().answered == 1);
        assert_eq!((responder.status().unreadable, responder.status().threads), (1, 1));
        store.producer().send(&topic, "not asked").unwrap();
        assert!(responder.wait_idle(LONG).unwrap());
        // A second reply, so that something follows the damage.
        let to = store.topic("questions.replies").unwrap();
        let whole = header(&records_of(&store, &to)[0], ID).unwrap();
        store.producer().send(&to, Record::new("again").header(ID, &whole)).unwrap();
        responder.close().unwrap();
        drop((topic, to));
        store.close().unwrap();
    }
    flip(&path.join("questions.replies-0"), 80);
    let store = open(&path);
    let topic = store.topic("questions").unwrap();
    let requester = store.requester(&topic).identity("desk").build().unwrap();
    let mut resumed = requester.resume().unwrap();
    assert!(matches!(resumed.next_reply(SOON), Err(Error::Corrupt { .. })));
    assert_eq!(text(&resumed.next_reply(SOON).unwrap().unwrap()), "again");
}

fn flip(partition: &Path, position: usize) {
    let path = partition.join("00000000000000000000.log");
    let mut bytes = fs::read(&path).unwrap();
    bytes[position] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Where a child dies. Each is between two of the steps.
const DEATHS: [&str; 7] =
    ["requested", "read", "handled", "replied", "replied-synced", "committed", "received"];

const REQUESTS: usize = 10;
/// The request at which the child dies.
const FATAL: i64 = 4;

/// What the child runs; does nothing in an ordinary run of the tests.
#[test]
fn child_that_dies_between_two_steps() {
    let Some((path, death)) = orders() else { return };
    let is_synced = death.ends_with("-synced");
    let durability = if is_synced { Durability::Synced } else { Durability::Buffered };
    let store = Store::builder(path).durability(durability).open().unwrap();
    let topic = store.topic("questions").unwrap();
    let requester = store.requester(&topic).identity("desk").build().unwrap();
    let asked: Vec<_> =
        (0..REQUESTS).map(|n| requester.request(&format!("{n}")).unwrap()).collect();
    if death == "requested" {
        std::process::abort();
    }
    let at = death.clone();
    let interval = if death == "committed" { Duration::ZERO } else { NEVER };
    let _responder = store
        .responder(&topic, "g")
        .commit_interval(interval)
        .start(move |request| {
            let is_fatal = request.offset() == FATAL;
            if is_fatal && at == "read" {
                std::process::abort();
            }
            let reply = shout(request);
            if is_fatal && at == "handled" {
                std::process::abort();
            }
            reply
        })
        .unwrap();
    if death == "committed" {
        until("something is committed", || {
            let described = store.group("g").unwrap().describe().unwrap();
            described
                .partitions
                .iter()
                .any(|p| p.committed.as_ref().is_some_and(|c| c.offset() > FATAL))
        });
        std::process::abort();
    }
    if death == "received" {
        let fatal = asked.into_iter().nth(FATAL as usize).unwrap();
        assert_eq!(text(&fatal.wait().unwrap()), format!("{FATAL}!"));
        std::process::abort();
    }
    let to = requester.reply_partition();
    until("it is answered", || to.watermarks().unwrap().1 > FATAL);
    std::process::abort();
}

#[test]
fn whichever_two_steps_a_kill_comes_between_every_request_is_answered_and_found_by_who_asked() {
    for death in DEATHS {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let store = open(&path);
        store.create_topic("questions", TopicConfig::new()).unwrap();
        store.close().unwrap();
        let child = "request_restart::child_that_dies_between_two_steps";
        Helper::start(child, &path, death).wait_for_the_end();

        let store = open(&path);
        assert!(store.health().is_good(), "{death}");
        let topic = store.topic("questions").unwrap();
        assert_eq!(topic.partition(0).unwrap().watermarks().unwrap(), (0, REQUESTS as i64));
        let committed = store.group("g").unwrap().describe();
        let committed =
            committed.ok().and_then(|group| group.partitions.first()?.committed.clone());
        let committed = committed.map_or(0, |noted| noted.offset());
        let replies = store.topic("questions.replies").unwrap();
        let before = records_of(&store, &replies).len();
        let reached = match death {
            "requested" => 0..=0,
            // Of one batch the replies before the fatal request are in the log, and not committed.
            "read" | "handled" => FATAL as usize..=FATAL as usize,
            _ => FATAL as usize + 1..=REQUESTS,
        };
        assert!(reached.contains(&before), "{death}: {before} replies");
        match death {
            "committed" => assert!(committed > FATAL, "{death}: {committed}"),
            _ => assert_eq!(committed, 0, "{death}"),
        }
        assert!(committed <= before as i64, "{death}: committed what was not answered");

        let responder = shouting(&store, &topic);
        assert!(responder.wait_idle(LONG).unwrap(), "{death}");
        assert_eq!(responder.status().answered, REQUESTS as u64 - committed as u64, "{death}");
        let mut counts = BTreeMap::new();
        for reply in records_of(&store, &replies) {
            *counts.entry(text(&reply)).or_insert(0) += 1;
        }
        for n in 0..REQUESTS {
            let count = counts.get(&format!("{n}!")).copied().unwrap_or(0);
            let is_twice = n < before && n as i64 >= committed;
            assert_eq!(count, 1 + usize::from(is_twice), "{death}: replies to {n}");
        }
        let requester = store.requester(&topic).identity("desk").build().unwrap();
        let found: BTreeSet<String> = resumed(&requester).into_iter().collect();
        let all: BTreeSet<String> = (0..REQUESTS).map(|n| format!("{n}!")).collect();
        assert_eq!(found, all, "{death}: what the next life resumes");
        assert_eq!(answer_to(&requester, "alive"), "alive!", "{death}");
    }
}

/// What the child runs; does nothing in an ordinary run of the tests.
#[test]
fn child_that_asks_and_answers_until_it_is_killed() {
    let Some((path, _)) = orders() else { return };
    let store = open(&path);
    let topic = store.topic("questions").unwrap();
    let builder = store.responder(&topic, "g").threads(2);
    let _responder = builder.commit_interval(Duration::from_millis(1)).start(shout).unwrap();
    let requester = store.requester(&topic).build().unwrap();
    thread::scope(|scope| {
        for asker in 0..3 {
            let requester = &requester;
            scope.spawn(move || {
                for n in 0.. {
                    let question = format!("{asker}:{n}");
                    let reply = requester.request(Record::new(&question).key(&question)).unwrap();
                    assert_eq!(text(&reply.wait().unwrap()), question + "!");
                    if n == 0 {
                        tell("begun");
                    }
                }
            });
        }
    });
}

#[test]
fn kills_at_any_moment_lose_no_request_and_no_answer() {
    let seed = chance::seed();
    println!("OTTLA_SEED={seed}");
    let mut chance: u64 = seed;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let store = open(&path);
    store.create_topic("questions", TopicConfig::new().partitions(2)).unwrap();
    store.close().unwrap();
    for cycle in 0..12 {
        let what = format!("OTTLA_SEED={seed} cycle {cycle}");
        let child = "request_restart::child_that_asks_and_answers_until_it_is_killed";
        let mut child = Helper::start(child, &path, "-");
        while !child.hear().contains("begun") {}
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        thread::sleep(Duration::from_micros((chance >> 33) % 60_000));
        child.kill();

        let store = open(&path);
        assert!(store.health().is_good(), "{what}");
        let topic = store.topic("questions").unwrap();
        let replies = store.topic("questions.replies").unwrap();
        let answered = |replies: &[ottla::OwnedMessage]| -> BTreeSet<Vec<u8>> {
            replies.iter().map(|reply| header(reply, ID).unwrap()).collect()
        };
        // What is committed has its reply.
        let before = answered(&records_of(&store, &replies));
        let described = store.group("g").unwrap().describe().unwrap();
        for message in records_of(&store, &topic) {
            let of_it = described.partitions.iter().find(|p| p.partition == message.partition());
            let committed = of_it.and_then(|p| p.committed.as_ref()).map_or(0, |c| c.offset());
            let has_reply = before.contains(&header(&message, ID).unwrap());
            assert!(message.offset() >= committed || has_reply, "{what}: {message:?}");
        }
        let responder = store
            .responder(&topic, "g")
            .start(|request| -> Result<Reply, Error> { shout(request) });
        let responder = responder.unwrap();
        assert!(responder.wait_idle(LONG).unwrap(), "{what}");
        let after = answered(&records_of(&store, &replies));
        for message in records_of(&store, &topic) {
            assert!(after.contains(&header(&message, ID).unwrap()), "{what}: {message:?}");
        }
        responder.close().unwrap();
    }
}
