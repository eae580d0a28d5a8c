//! Requests and replies when something is wrong: headers, topics, sizes, ends. Each is a clear error or is counted;
//! nobody waits for ever, and nothing is kept.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ottla::Error;
use ottla::Pending;
use ottla::Record;
use ottla::Reply;
use ottla::Store;
use ottla::TopicConfig;

use crate::request_reply::answer_to;
use crate::request_reply::header;
use crate::request_reply::records_of;
use crate::request_reply::shout;
use crate::request_reply::shouting;
use crate::request_reply::store_with_questions;
use crate::request_reply::text;
use crate::request_reply::until;
use crate::waiting::LONG;
use crate::waiting::block_on;

const ID: &str = "kafka_correlationId";
const TOPIC: &str = "kafka_replyTopic";
const PARTITION: &str = "kafka_replyPartition";

#[test]
fn requests_with_odd_headers_are_handled_counted_and_hold_up_nobody() {
    let (store, topic) = store_with_questions(1);
    let replies = store.create_topic("r", TopicConfig::new()).unwrap();
    let compacted = TopicConfig::new().set("cleanup.policy", "compact").unwrap();
    store.create_topic("compacted", compacted).unwrap();
    let responder = shouting(&store, &topic);
    let malformed = [
        Record::new("m").header(ID, "c").null_header(TOPIC),
        Record::new("m").header(ID, "c").header(TOPIC, ""),
        Record::new("m").header(ID, "c").header(TOPIC, &[0xff, 0xfe]),
        Record::new("m").header(ID, "c").header(TOPIC, "r").header(PARTITION, "0"),
        Record::new("m").header(ID, "c").header(TOPIC, "r").header(PARTITION, &[255; 4]),
        Record::new("m").header(ID, "c").header(TOPIC, "r").null_header(PARTITION),
    ];
    let undeliverable = [
        Record::new("u").header(ID, "c").header(TOPIC, "nowhere"),
        Record::new("u").header(ID, "c").header(TOPIC, "not a topic's name"),
        Record::new("u").header(ID, "c").header(TOPIC, "r").header(PARTITION, &[0, 0, 0, 1]),
        Record::new("u").header(ID, "c").header(TOPIC, "r").header(PARTITION, &[0x7f; 4]),
        // It takes no record without a key.
        Record::new("u").header(ID, "c").header(TOPIC, "compacted"),
    ];
    let (malformed_count, undeliverable_count) = (malformed.len(), undeliverable.len());
    let producer = store.producer();
    for record in malformed.into_iter().chain(undeliverable) {
        producer.send(&topic, record).unwrap();
    }
    // Whose replies these are nobody will know; they are where they were wanted.
    producer.send(&topic, Record::new("1").header(TOPIC, "r")).unwrap();
    producer.send(&topic, Record::new("2").header(TOPIC, "r").null_header(ID)).unwrap();
    producer.send(&topic, Record::new("3").header(TOPIC, "r").header(ID, "")).unwrap();
    assert!(responder.wait_idle(LONG).unwrap());
    let status = responder.status();
    assert_eq!(status.malformed, malformed_count as u64);
    assert_eq!(status.undeliverable, undeliverable_count as u64);
    assert_eq!((status.uncorrelated, status.answered, status.threads), (2, 3, 1));
    let there = records_of(&store, &replies);
    assert_eq!(there.iter().map(text).collect::<Vec<_>>(), ["1!", "2!", "3!"]);
    assert_eq!(header(&there[0], ID), None);
    assert_eq!(header(&there[2], ID), Some(Vec::new()));
    let requester = store.requester(&topic).build().unwrap();
    assert_eq!(answer_to(&requester, "still there?"), "still there?!");
    responder.close().unwrap();
}

#[test]
fn a_topic_for_replies_that_comes_or_is_made_anew_is_found() {
    let (store, topic) = store_with_questions(1);
    let responder = shouting(&store, &topic);
    let ask = || {
        let record = Record::new("q").header(ID, "c").header(TOPIC, "r");
        store.producer().send(&topic, record).unwrap();
        assert!(responder.wait_idle(LONG).unwrap());
    };
    ask();
    assert_eq!(responder.status().undeliverable, 1);
    for _ in 0..2 {
        let replies = store.create_topic("r", TopicConfig::new()).unwrap();
        ask();
        assert_eq!(records_of(&store, &replies).len(), 1);
        store.delete_topic("r").unwrap();
    }
    ask();
    assert_eq!((responder.status().undeliverable, responder.status().answered), (2, 2));
}

#[test]
fn a_reply_that_its_topic_does_not_take_becomes_an_error_for_the_one_who_asked() {
    let (store, topic) = store_with_questions(1);
    let config = TopicConfig::new().set("max.message.bytes", "1000").unwrap();
    let narrow = store.create_topic("narrow", config).unwrap();
    let requester = store.requester(&topic).replies(&narrow).build().unwrap();
    let responder = store
        .responder(&topic, "g")
        .start(|request| match request.value() {
            Some(b"small") => Ok(Reply::new("fits")),
            Some(b"large") => Ok(Reply::new(vec![1; 2_000])),
            _ => Err("x".repeat(2_000)),
        })
        .unwrap();
    assert_eq!(answer_to(&requester, "small"), "fits");
    let refused = requester.request("large").unwrap().wait_timeout(LONG).unwrap_err();
    let Error::RequestFailed { reason } = &refused else { panic!("{refused}") };
    assert!(reason.starts_with("the reply is too large: a batch of 2"), "{reason}");
    assert!(reason.ends_with("exceeds max.message.bytes, 1000 bytes"), "{reason}");
    // Not even the error fits: nothing can be told, and it is counted.
    let mut pending = requester.request("error").unwrap();
    assert!(responder.wait_idle(LONG).unwrap());
    let status = responder.status();
    assert_eq!((status.answered, status.failed, status.undeliverable), (1, 1, 1));
    assert!(matches!(pending.wait_timeout(Duration::ZERO), Err(Error::Timeout { .. })));
    // A request that is too large is refused before it is sent, and nobody waits for it.
    let in_flight = requester.status().in_flight;
    let too_large = requester.request(&vec![0; 2 << 20]).unwrap_err();
    assert!(matches!(too_large, Error::RecordTooLarge { .. }));
    assert_eq!(requester.status().in_flight, in_flight);
}

/// Has a thread and a task wait for replies that never come, ends it all somehow, and gives what they were told.
fn told_when(store: &Store, asked: Vec<Pending>, end: impl FnOnce(&Store)) -> Vec<Error> {
    let waiting: Vec<_> = asked
        .into_iter()
        .enumerate()
        .map(|(n, pending)| match n % 2 {
            0 => thread::spawn(move || pending.wait().unwrap_err()),
            _ => thread::spawn(move || block_on(pending).unwrap_err()),
        })
        .collect();
    // Most likely asleep by now; nothing depends on it.
    thread::sleep(Duration::from_millis(30));
    end(store);
    waiting.into_iter().map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn whoever_waits_is_told_when_a_topic_is_deleted() {
    for name in ["questions", "questions.replies"] {
        let (store, topic) = store_with_questions(2);
        let requester = store.requester(&topic).build().unwrap();
        let asked = (0..4).map(|_| requester.request("?").unwrap()).collect();
        let late = requester.request("?").unwrap();
        let told = told_when(&store, asked, |store| store.delete_topic(name).unwrap());
        for error in told.iter().chain([&late.wait().unwrap_err()]) {
            assert!(matches!(error, Error::TopicDeleted { name: deleted } if deleted == name));
        }
        let refused = requester.request("?").unwrap_err();
        assert!(matches!(refused, Error::TopicDeleted { .. }), "{refused}");
        assert_eq!(requester.status().in_flight, 0);
        // A topic of the same name is another one.
        let topic = store.topic_or_create("questions", TopicConfig::new()).unwrap();
        assert!(requester.request("?").is_err());
        let requester = store.requester(&topic).build().unwrap();
        let _responder = shouting(&store, &topic);
        assert_eq!(answer_to(&requester, "again"), "again!");
    }
}

#[test]
fn a_responder_whose_topic_is_deleted_answers_in_one_of_the_same_name() {
    let (store, topic) = store_with_questions(2);
    let responder = shouting(&store, &topic);
    let requester = store.requester(&topic).build().unwrap();
    assert_eq!(answer_to(&requester, "1"), "1!");
    store.delete_topic("questions").unwrap();
    drop(requester);
    let topic = store.create_topic("questions", TopicConfig::new()).unwrap();
    let requester = store.requester(&topic).build().unwrap();
    assert_eq!(answer_to(&requester, "2"), "2!");
    assert_eq!((responder.status().answered, responder.status().threads), (2, 1));
    responder.close().unwrap();
}

#[test]
fn whoever_waits_is_told_when_the_requester_or_the_store_ends() {
    let (store, topic) = store_with_questions(1);
    let requester = store.requester(&topic).build().unwrap();
    let clone = requester.clone();
    let asked: Vec<_> = (0..4).map(|_| requester.request("?").unwrap()).collect();
    drop(clone);
    assert_eq!(requester.status().in_flight, 4, "a clone is left");
    let told = told_when(&store, asked, |_| drop(requester));
    assert!(told.iter().all(|error| matches!(error, Error::RequesterClosed)), "{told:?}");

    let requester = store.requester(&topic).build().unwrap();
    let clone = requester.clone();
    let asked = requester.request("?").unwrap();
    requester.close().unwrap();
    assert!(matches!(asked.wait(), Err(Error::RequesterClosed)));
    assert!(matches!(clone.request("?"), Err(Error::RequesterClosed)));

    let requester = store.requester(&topic).build().unwrap();
    let asked: Vec<_> = (0..4).map(|_| requester.request("?").unwrap()).collect();
    let blocked = store.requester(&topic).max_in_flight(1).max_block(LONG).build().unwrap();
    let held = blocked.request("?").unwrap();
    let blocked = thread::spawn(move || blocked.request("?").map(drop).unwrap_err());
    let told = told_when(&store, asked, |store| store.clone().close().unwrap());
    assert!(told.iter().all(|error| matches!(error, Error::Closed)), "{told:?}");
    assert!(matches!(blocked.join().unwrap(), Error::Closed));
    assert!(matches!(held.wait(), Err(Error::Closed)));
    assert!(matches!(requester.request("?"), Err(Error::Closed)));
}

#[test]
fn a_responder_ends_with_the_store_and_what_it_answered_is_answered_again_at_worst() {
    let (store, topic) = store_with_questions(1);
    let responder = shouting(&store, &topic);
    let requester = store.requester(&topic).build().unwrap();
    assert_eq!(answer_to(&requester, "1"), "1!");
    store.close().unwrap();
    until("its thread has ended", || responder.status().threads == 0);
    responder.close().unwrap();
}

#[test]
fn replies_that_nobody_asked_for_are_counted_and_the_first_of_several_counts() {
    let (store, topic) = store_with_questions(1);
    let requester = store.requester(&topic).build().unwrap();
    let to = requester.reply_partition().clone();
    let reply = |record: Record<'_>| {
        let record = record.partition(to.partition());
        store.producer().send(to.topic(), record).unwrap();
    };
    let asked = requester.request("q").unwrap();
    let id = asked.correlation_id();
    reply(Record::new("no id"));
    reply(Record::new("null id").null_header(ID));
    reply(Record::new("foreign").header(ID, "someone's"));
    reply(Record::new("foreign").header(ID, &[7; 16]));
    // The last header of its name counts.
    reply(Record::new("last counts").header(ID, &id).header(ID, "someone's"));
    reply(Record::new("first").header(ID, "someone's").header(ID, &id));
    reply(Record::new("second").header(ID, &id));
    reply(Record::new("third").header(ID, &id).header("ottla_replyError", "late"));
    assert_eq!(text(&asked.wait().unwrap()), "first");
    let status = requester.status();
    assert_eq!((status.answered, status.late, status.others, status.uncorrelated), (1, 2, 3, 2));
    // An error without a text, and one that is no text.
    for (value, expected) in [(None, ""), (Some(&b"a\xff"[..]), "a\u{fffd}")] {
        let asked = requester.request("q").unwrap();
        let id = asked.correlation_id();
        let record = Record::default().header(ID, &id);
        reply(match value {
            None => record.null_header("ottla_replyError"),
            Some(value) => record.header("ottla_replyError", value),
        });
        let refused = asked.wait().unwrap_err();
        assert!(matches!(refused, Error::RequestFailed { reason } if &*reason == expected));
    }
    assert_eq!(requester.status().in_flight, 0);
}

#[test]
fn an_application_may_choose_its_own_correlation_ids_but_none_twice_at_a_time() {
    let (store, topic) = store_with_questions(1);
    let requester = store.requester(&topic).build().unwrap();
    let record = || Record::new("q").header(ID, "order-42");
    let first = requester.request(record()).unwrap();
    assert_eq!(first.correlation_id(), b"order-42");
    let refused = requester.request(record()).unwrap_err();
    assert!(matches!(refused, Error::InvalidArgument { argument: "record", .. }));
    assert_eq!(topic.partition(0).unwrap().watermarks().unwrap(), (0, 1), "it was not sent");
    let foreign = requester.request(Record::new("q").header(ID, &[3; 16])).unwrap();
    let _responder = shouting(&store, &topic);
    assert_eq!(text(&first.wait().unwrap()), "q!");
    assert_eq!(text(&foreign.wait().unwrap()), "q!");
    assert_eq!(text(&requester.request(record()).unwrap().wait().unwrap()), "q!");
    drop(requester.request(record()).unwrap());
    for record in [
        Record::new("q").null_header(ID),
        Record::new("q").header(TOPIC, "elsewhere"),
        Record::new("q").null_header(TOPIC),
        Record::new("q").header(PARTITION, &[0, 0, 0, 9]),
        Record::new("q").header(PARTITION, "0"),
    ] {
        let refused = requester.request(record).unwrap_err();
        assert!(matches!(refused, Error::InvalidArgument { argument: "record", .. }));
    }
    // The same as the requester's is no contradiction.
    let agreeing = Record::new("q").header(TOPIC, "questions.replies").header(PARTITION, &[0; 4]);
    assert_eq!(text(&requester.request(agreeing).unwrap().wait().unwrap()), "q!");
    assert_eq!(requester.status().in_flight, 0);
}

#[test]
fn what_cannot_be_set_up_says_why_and_takes_nothing() {
    let (store, topic) = store_with_questions(1);
    let (other_store, other_topic) = store_with_questions(1);
    let same = store.requester(&topic).replies(&topic).build().unwrap_err();
    assert!(matches!(same, Error::InvalidArgument { argument: "replies", .. }));
    for foreign in [
        store.requester(&other_topic).build().map(drop),
        store.requester(&topic).replies(&other_topic).build().map(drop),
        store.responder(&other_topic, "g").start(shout).map(drop),
    ] {
        assert!(matches!(foreign, Err(Error::InvalidArgument { argument: "topic", .. })));
    }
    let no_name = store.requester(&topic).identity("").build().unwrap_err();
    assert!(matches!(no_name, Error::InvalidGroup { .. }));
    let no_group = store.responder(&topic, "").start(shout).unwrap_err();
    assert!(matches!(no_group, Error::InvalidGroup { .. }));
    let long = store.create_topic(&"q".repeat(245), TopicConfig::new()).unwrap();
    let too_long = store.requester(&long).build().unwrap_err();
    assert!(matches!(too_long, Error::InvalidTopic { .. }));

    let desk = store.requester(&topic).identity("desk").build().unwrap();
    let twice = store.requester(&topic).identity("desk").build().unwrap_err();
    assert!(matches!(&twice, Error::RequesterInUse { identity } if identity == "desk"));
    let nameless = store.requester(&topic).build().unwrap();
    let nothing = nameless.resume().unwrap_err();
    assert!(matches!(nothing, Error::InvalidArgument { argument: "identity", .. }));
    nameless.commit().unwrap();
    drop(desk);
    store.requester(&topic).identity("desk").build().unwrap();
    let _member = store.consumer().subscribe("busy", &topic).unwrap();
    let busy = store.requester(&topic).identity("busy").build().unwrap_err();
    assert!(matches!(busy, Error::CommitRefused { .. }));

    let reader = Store::open_read_only(store.path()).unwrap();
    let seen = reader.topic("questions").unwrap();
    let refused = reader.requester(&seen).build().unwrap_err();
    assert!(matches!(refused, Error::ReadOnly { action: "make a requester" }));
    let refused = reader.responder(&seen, "g").start(shout).unwrap_err();
    assert!(matches!(refused, Error::ReadOnly { action: "answer requests" }));

    store.delete_topic("questions").unwrap();
    let gone = store.requester(&topic).build().unwrap_err();
    assert!(matches!(gone, Error::TopicDeleted { .. }));
    let gone = store.responder(&topic, "g").start(shout).unwrap_err();
    assert!(matches!(gone, Error::TopicDeleted { .. }));
    drop(other_store);
}

#[test]
fn a_waker_that_panics_hangs_nobody_who_waits_for_another_reply() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker's panic");
        }
    }
    let (store, topic) = store_with_questions(1);
    let requester = store.requester(&topic).build().unwrap();
    let mut careless = Box::pin(requester.request("careless").unwrap());
    let waker = std::task::Waker::from(Arc::new(Panics));
    let mut context = std::task::Context::from_waker(&waker);
    assert!(careless.as_mut().poll(&mut context).is_pending());
    let others: Vec<_> = (0..3).map(|_| requester.request("other").unwrap()).collect();
    let ids: Vec<_> = others.iter().map(Pending::correlation_id).collect();
    let waiting: Vec<_> =
        others.into_iter().map(|pending| thread::spawn(move || pending.wait().unwrap())).collect();
    thread::sleep(Duration::from_millis(30));
    // The panic reaches the thread that appended the reply, and its record is in the log.
    let to = requester.reply_partition().clone();
    let records = [careless.correlation_id()].into_iter().chain(ids);
    let thread = thread::spawn(move || {
        for id in records {
            let record = Record::new("answer").header(ID, &id).partition(to.partition());
            let sent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                store.producer().send(to.topic(), record).map(drop)
            }));
            drop(sent);
        }
        store
    });
    let _store = thread.join().unwrap();
    for waiting in waiting {
        assert_eq!(text(&waiting.join().unwrap()), "answer");
    }
    assert!(careless.is_ready());
    assert_eq!(requester.status().in_flight, 0);
}
