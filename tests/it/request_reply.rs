//! Requests and their replies.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ottla::Durability;
use ottla::Error;
use ottla::Message;
use ottla::OwnedMessage;
use ottla::Record;
use ottla::Reply;
use ottla::ReplyHeaders;
use ottla::Requester;
use ottla::Responder;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;

use crate::waiting::LONG;
use crate::waiting::SOON;
use crate::waiting::block_on;

pub(crate) fn store_with_questions(partitions: u32) -> (Store, Topic) {
    let store = Store::builder_temporary().durability(Durability::Buffered).open().unwrap();
    let topic = store.create_topic("questions", TopicConfig::new().partitions(partitions)).unwrap();
    (store, topic)
}

/// Answers with the request's value and an exclamation mark.
pub(crate) fn shout(request: &Message<'_>) -> Result<Reply, Error> {
    Ok(Reply::new([request.value().unwrap_or_default(), b"!"].concat()))
}

pub(crate) fn shouting(store: &Store, topic: &Topic) -> Responder {
    store.responder(topic, "g").start(shout).unwrap()
}

pub(crate) fn answer_to(requester: &Requester, question: &str) -> String {
    text(&requester.request(question).unwrap().wait_timeout(LONG).unwrap())
}

pub(crate) fn text(message: &OwnedMessage) -> String {
    String::from_utf8(message.value().unwrap_or_default().to_vec()).unwrap()
}

/// All records of a topic, as they lie there.
pub(crate) fn records_of(store: &Store, topic: &Topic) -> Vec<OwnedMessage> {
    let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
    let mut all = Vec::new();
    loop {
        let records = consumer.poll(Duration::ZERO).unwrap();
        if records.is_empty() {
            return all;
        }
        all.extend(records.iter().map(|message| message.detach()));
    }
}

pub(crate) fn header(message: &OwnedMessage, name: &str) -> Option<Vec<u8>> {
    let found = message.headers().filter(|header| header.key == name).last()?;
    Some(found.value.unwrap().to_vec())
}

/// Waits until something that happens on another thread has happened.
pub(crate) fn until(what: &str, mut has_happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !has_happened() {
        assert!(begun.elapsed() < LONG, "it did not come to it: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn every_reply_reaches_the_one_who_asked_and_nobody_else_from_many_threads() {
    const ASKERS: usize = 8;
    const EACH: usize = 300;
    let (store, topic) = store_with_questions(4);
    let requester = store.requester(&topic).build().unwrap();
    let responder = store.responder(&topic, "g").threads(3).start(shout).unwrap();
    thread::scope(|scope| {
        for asker in 0..ASKERS {
            let requester = requester.clone();
            scope.spawn(move || {
                // Some wait at once, some keep many in flight, some are tasks.
                let mut pending = Vec::new();
                for n in 0..EACH {
                    let question = format!("{asker}:{n}");
                    let asked = requester.request(&question).unwrap();
                    pending.push((question, asked));
                    if pending.len() > (asker % 4) * 20 {
                        for (question, mut asked) in pending.drain(..) {
                            let reply = match asker % 2 {
                                0 => asked.wait_timeout(LONG).unwrap(),
                                _ => block_on(asked).unwrap(),
                            };
                            assert_eq!(text(&reply), question + "!");
                        }
                    }
                }
                for (question, asked) in pending {
                    assert_eq!(text(&asked.wait().unwrap()), question + "!");
                }
            });
        }
    });
    let status = requester.status();
    assert_eq!((status.in_flight, status.answered), (0, (ASKERS * EACH) as u64));
    assert_eq!((status.late, status.others, status.uncorrelated), (0, 0, 0));
    assert!(responder.wait_idle(LONG).unwrap());
    assert_eq!(responder.status().answered, (ASKERS * EACH) as u64);
    responder.close().unwrap();
    assert!(
        store.group("g").unwrap().describe().unwrap().partitions.iter().all(|p| p.lag == Some(0))
    );
}

#[test]
fn a_reply_may_be_awaited_by_a_task_that_begins_before_or_after_it_came() {
    let (store, topic) = store_with_questions(1);
    let requester = store.requester(&topic).build().unwrap();
    let early = requester.request("early").unwrap();
    let waiting = thread::spawn(move || block_on(early));
    // Most likely asleep by now; nothing depends on it.
    thread::sleep(Duration::from_millis(20));
    let _responder = shouting(&store, &topic);
    assert_eq!(text(&waiting.join().unwrap().unwrap()), "early!");
    let late = requester.request("late").unwrap();
    until("the reply is there", || late.is_ready());
    assert_eq!(text(&block_on(late).unwrap()), "late!");
}

#[test]
fn what_lies_in_the_topics_is_what_springs_template_would_understand() {
    let (store, topic) = store_with_questions(1);
    let requester = store.requester(&topic).build().unwrap();
    let responder = shouting(&store, &topic);
    let record = Record::new("who?").key("k").header("trace", "7");
    let asked = requester.request(record).unwrap();
    let id = asked.correlation_id();
    let sent = asked.delivery().clone().wait().unwrap();
    assert_eq!((sent.topic(), sent.offset()), ("questions", 0));
    let reply = asked.wait().unwrap();
    assert_eq!((reply.topic(), reply.partition()), ("questions.replies", 0));
    let request = &records_of(&store, &topic)[0];
    let names: Vec<String> = request.headers().map(|header| header.key.to_owned()).collect();
    let ours = ["kafka_correlationId", "kafka_replyTopic", "kafka_replyPartition"];
    assert_eq!(names, [&["trace"][..], &ours].concat());
    assert_eq!(header(request, ours[0]).unwrap(), id);
    assert_eq!(id.len(), 16);
    assert_eq!(header(request, ours[1]).unwrap(), b"questions.replies");
    assert_eq!(header(request, ours[2]).unwrap(), [0, 0, 0, 0]);
    assert_eq!(header(&reply, ours[0]).unwrap(), id);
    assert_eq!((reply.key(), text(&reply).as_str()), (Some(&b"k"[..]), "who?!"));
    responder.close().unwrap();

    // Names of one's own, and a reply with a key and headers of its own.
    let names = ReplyHeaders::new().correlation_id("a").reply_topic("b").reply_partition("c");
    let names = names.error("d");
    let requester = store.requester(&topic).headers(names.clone()).build().unwrap();
    let _responder = store
        .responder(&topic, "g")
        .headers(names)
        .start(|request| match request.key() {
            None => Err("no key"),
            Some(_) => Ok(Reply::new("v").key("own").header("unit", "kg")),
        })
        .unwrap();
    let reply = requester.request(Record::new("q").key("k")).unwrap().wait().unwrap();
    assert_eq!((reply.key(), header(&reply, "unit")), (Some(&b"own"[..]), Some(b"kg".to_vec())));
    assert!(header(&reply, "a").is_some() && header(&reply, "kafka_correlationId").is_none());
    let refused = requester.request("q").unwrap().wait().unwrap_err();
    assert!(matches!(&refused, Error::RequestFailed { reason } if &**reason == "no key"));
}

#[test]
fn a_request_of_springs_is_answered_where_it_says_and_a_foreign_responder_is_heard() {
    let (store, topic) = store_with_questions(1);
    let replies = store.create_topic("r", TopicConfig::new().partitions(3)).unwrap();
    let _responder = shouting(&store, &topic);
    // Without a partition the key decides, as for every record.
    let uuid = [9; 16];
    for partition in [None, Some([0, 0, 0, 2])] {
        let mut record = Record::new("foreign").key("k");
        record = record.header("kafka_correlationId", &uuid).header("kafka_replyTopic", "r");
        if let Some(bytes) = &partition {
            record = record.header("kafka_replyPartition", bytes);
        }
        store.producer().send(&topic, record).unwrap();
    }
    until("both are answered", || records_of(&store, &replies).len() == 2);
    let replies = records_of(&store, &replies);
    assert!(replies.iter().any(|reply| reply.partition() == 2));
    for reply in &replies {
        assert_eq!(header(reply, "kafka_correlationId").unwrap(), uuid);
        assert_eq!(text(reply), "foreign!");
    }

    // A responder that is no `Responder`.
    let other = store.create_topic("other", TopicConfig::new()).unwrap();
    let requester = store.requester(&other).build().unwrap();
    let asked = requester.request("by hand").unwrap();
    let request = &records_of(&store, &other)[0];
    let id = header(request, "kafka_correlationId").unwrap();
    let record = Record::new("done").header("kafka_correlationId", &id);
    let to = requester.reply_partition();
    store.producer().send(to.topic(), record.partition(to.partition())).unwrap();
    assert_eq!(text(&asked.wait().unwrap()), "done");
}

#[test]
fn how_long_to_wait_is_the_callers_and_what_comes_later_is_counted() {
    let (store, topic) = store_with_questions(1);
    let requester = store.requester(&topic).build().unwrap();
    let mut patient = requester.request("patient").unwrap();
    let mut impatient = requester.request("impatient").unwrap();
    for pending in [&mut patient, &mut impatient] {
        let begun = Instant::now();
        let early = pending.wait_timeout(Duration::from_millis(20));
        assert!(matches!(early, Err(Error::Timeout { what: "a reply" })));
        assert!(begun.elapsed() >= Duration::from_millis(20));
        assert!(early.unwrap_err().is_retriable());
    }
    assert_eq!(requester.status().in_flight, 2);
    drop(impatient);
    assert_eq!(requester.status().in_flight, 1);
    let _responder = shouting(&store, &topic);
    assert_eq!(text(&patient.wait_timeout(LONG).unwrap()), "patient!");
    assert_eq!(text(&patient.wait_timeout(Duration::ZERO).unwrap()), "patient!", "asked again");
    assert_eq!(text(&patient.wait().unwrap()), "patient!");
    until("the late one came", || requester.status().late == 1);
    let status = requester.status();
    assert_eq!((status.in_flight, status.answered, status.late), (0, 1, 1));
}

#[test]
fn no_more_are_in_flight_than_are_allowed_and_room_comes_with_a_reply_or_a_drop() {
    let (store, topic) = store_with_questions(1);
    let requester = store.requester(&topic).max_in_flight(2).build().unwrap();
    let first = requester.request("1").unwrap();
    let second = requester.request("2").unwrap();
    let refused = requester.request("3").unwrap_err();
    assert!(matches!(refused, Error::TooManyRequests { limit: 2, blocked: Duration::ZERO }));
    assert!(refused.is_retriable());
    assert_eq!(refused.to_string(), "2 requests are in flight, no more are allowed");
    assert_eq!(topic.partition(0).unwrap().watermarks().unwrap(), (0, 2), "it was not sent");
    drop(first);
    let third = requester.request("3").unwrap();
    drop((second, third));

    let (store, topic) = store_with_questions(1);
    let soon = Duration::from_millis(30);
    let requester = store.requester(&topic).max_in_flight(2).max_block(soon).build().unwrap();
    let first = requester.request("1").unwrap();
    let second = requester.request("2").unwrap();
    let refused = requester.request("3").unwrap_err();
    assert!(matches!(refused, Error::TooManyRequests { limit: 2, blocked } if blocked == soon));
    drop((first, second));
    let requester = store.requester(&topic).max_in_flight(2).max_block(LONG).build().unwrap();
    let held = [requester.request("1").unwrap(), requester.request("2").unwrap()];
    thread::scope(|scope| {
        let waiting = scope.spawn(|| requester.request("3").unwrap().wait().unwrap());
        thread::sleep(Duration::from_millis(20));
        // Nobody waits for the two: their replies make room all the same.
        let _responder = shouting(&store, &topic);
        assert_eq!(text(&waiting.join().unwrap()), "3!");
    });
    assert!(held.iter().all(ottla::Pending::is_ready));
    // One who was refused has read the replies that make room.
    let requester = store.requester(&topic).max_in_flight(1).build().unwrap();
    let _responder = shouting(&store, &topic);
    let one = requester.request("1").unwrap();
    until("there is room", || requester.request("2").is_ok());
    assert!(one.is_ready());
}

#[test]
fn requesters_have_partitions_of_their_own_as_long_as_there_are_some() {
    let (store, topic) = store_with_questions(1);
    let _responder = shouting(&store, &topic);
    let partition_of = |requester: &Requester| requester.reply_partition().to_string();
    let requesters: Vec<_> = (0..3).map(|_| store.requester(&topic).build().unwrap()).collect();
    let partitions: BTreeSet<_> = requesters.iter().map(partition_of).collect();
    assert_eq!(partitions.len(), 3);
    for (n, requester) in requesters.iter().enumerate() {
        assert_eq!(answer_to(requester, &n.to_string()), format!("{n}!"));
        assert_eq!(requester.status().others, 0);
    }
    let second = partition_of(&requesters[1]);
    drop(requesters);
    let again: Vec<_> = (0..2).map(|_| store.requester(&topic).build().unwrap()).collect();
    assert_eq!(partition_of(&again[1]), second, "one that came free is taken again");

    // Two share one: each passes over the other's.
    let shared = store.create_topic("shared", TopicConfig::new()).unwrap();
    let both = [0, 1].map(|_| store.requester(&topic).replies(&shared).build().unwrap());
    for n in 0..20 {
        for requester in &both {
            assert_eq!(answer_to(requester, &format!("{n}")), format!("{n}!"));
        }
    }
    for requester in &both {
        let status = requester.status();
        assert_eq!((status.answered, status.others, status.late), (20, 20, 0));
    }
    let chosen = store.requester(&topic).reply_partition(1).build().unwrap();
    assert_eq!(chosen.reply_partition().partition(), 1);
    let missing = store.requester(&topic).reply_partition(99).build().unwrap_err();
    assert!(matches!(missing, Error::UnknownPartition { partition: 99, .. }));
}

#[test]
fn a_requester_is_ready_before_its_first_request_however_soon_the_reply_comes() {
    let (store, topic) = store_with_questions(1);
    let _responder = shouting(&store, &topic);
    for n in 0..100 {
        let requester = store.requester(&topic).build().unwrap();
        assert_eq!(answer_to(&requester, &n.to_string()), format!("{n}!"));
    }
}

#[test]
fn synced_requests_and_replies_are_on_stable_storage_when_the_wait_returns() {
    let store = Store::temporary().unwrap();
    let topic = store.create_topic("questions", TopicConfig::new()).unwrap();
    let requester = store.requester(&topic).build().unwrap();
    let handled_at = Arc::new(Mutex::new(Vec::new()));
    let (noted, requests) = (Arc::clone(&handled_at), topic.clone());
    let _responder = store
        .responder(&topic, "g")
        .start(move |request| {
            let durable_end = requests.describe()?.partitions[0].durable_end;
            noted.lock().unwrap().push((request.offset(), durable_end));
            shout(request)
        })
        .unwrap();
    for n in 0..20 {
        let asked = requester.request(&n.to_string()).unwrap();
        let reply = if n % 2 == 0 { asked.wait().unwrap() } else { block_on(asked).unwrap() };
        assert_eq!(text(&reply), format!("{n}!"));
        let replies = requester.reply_partition().topic().describe().unwrap();
        assert!(replies.partitions[0].durable_end > reply.offset());
        assert!(topic.describe().unwrap().partitions[0].durable_end > n);
    }
    for (offset, durable_end) in handled_at.lock().unwrap().iter() {
        assert!(
            durable_end > offset,
            "request {offset} was handled when {durable_end} was durable"
        );
    }
    // A responder that does not sync does not keep one who wants it synced waiting for long.
    let other = store.create_topic("other", TopicConfig::new()).unwrap();
    let requester = store.requester(&other).build().unwrap();
    let builder = store.responder(&other, "g").durability(Durability::Buffered);
    let _responder = builder.start(shout).unwrap();
    assert_eq!(answer_to(&requester, "x"), "x!");
}

#[test]
fn an_error_or_a_panic_of_the_handler_is_told_to_the_one_who_asked_and_the_responder_lives_on() {
    let (store, topic) = store_with_questions(1);
    let requester = store.requester(&topic).build().unwrap();
    let responder = store
        .responder(&topic, "g")
        .start(|request| match request.value() {
            Some(b"text") => panic!("a panic with a text"),
            Some(b"formatted") => panic!("a panic with {}", 2),
            Some(b"other") => std::panic::panic_any(7),
            Some(b"long") => Err("é".repeat(5_000)),
            Some(b"error") => Err("an error".to_owned()),
            _ => Ok(Reply::null()),
        })
        .unwrap();
    for (question, expected) in [
        ("text", "the handler panicked: a panic with a text"),
        ("formatted", "the handler panicked: a panic with 2"),
        ("other", "the handler panicked: without a text"),
        ("error", "an error"),
    ] {
        let refused = requester.request(question).unwrap().wait_timeout(LONG).unwrap_err();
        assert_eq!(refused.to_string(), format!("the request failed: {expected}"));
        assert!(matches!(refused, Error::RequestFailed { .. }));
    }
    let long = block_on(requester.request("long").unwrap()).unwrap_err();
    assert!(matches!(long, Error::RequestFailed { reason } if *reason == *"é".repeat(2_048)));
    let reply = requester.request("null").unwrap().wait().unwrap();
    assert_eq!(reply.value(), None);
    let status = requester.status();
    assert_eq!((status.answered, status.refused, status.in_flight), (1, 5, 0));
    assert!(responder.wait_idle(LONG).unwrap());
    let status = responder.status();
    assert_eq!((status.answered, status.failed, status.panicked, status.threads), (1, 5, 3, 1));
    responder.close().unwrap();
}

#[test]
fn requests_that_want_no_reply_are_handled_and_not_answered() {
    let (store, topic) = store_with_questions(1);
    let responder = shouting(&store, &topic);
    for n in 0..10 {
        store.producer().send(&topic, &format!("{n}")).unwrap();
    }
    assert!(responder.wait_idle(LONG).unwrap());
    let status = responder.status();
    assert_eq!((status.not_asked, status.answered, status.failed), (10, 0, 0));
    assert_eq!(store.topics().unwrap().len(), 2, "the questions' and the groups'");
}

#[test]
fn responders_share_the_work_and_one_that_goes_leaves_the_rest_to_the_others() {
    let (store, topic) = store_with_questions(6);
    let requester = store.requester(&topic).build().unwrap();
    let start = || store.responder(&topic, "g").threads(2).start(shout).unwrap();
    let responders = [start(), start(), start()];
    let ask = |count: usize| {
        let asked: Vec<_> = (0..count)
            .map(|n| requester.request(Record::new(&format!("{n}")).key(&format!("{n}"))).unwrap())
            .collect();
        for (n, mut asked) in asked.into_iter().enumerate() {
            assert_eq!(text(&asked.wait_timeout(LONG).unwrap()), format!("{n}!"));
        }
    };
    ask(600);
    assert!(responders.iter().all(|responder| responder.status().answered > 0));
    let [first, second, third] = responders;
    drop(first);
    ask(300);
    second.close().unwrap();
    ask(300);
    assert!(third.wait_idle(LONG).unwrap());
    assert_eq!(requester.status().late, 0, "nothing was answered twice");
}

#[test]
fn a_responder_that_is_dropped_in_the_middle_of_a_batch_commits_what_it_answered_and_no_more() {
    let (store, topic) = store_with_questions(1);
    let requester = store.requester(&topic).build().unwrap();
    let asked: Vec<_> = (0..50).map(|n| requester.request(&format!("{n}")).unwrap()).collect();
    let (begin, begun) = std::sync::mpsc::channel();
    let (go, gone_on) = std::sync::mpsc::channel::<()>();
    let gone_on = Mutex::new(gone_on);
    let responder = store
        .responder(&topic, "g")
        .commit_interval(Duration::from_secs(3600))
        .start(move |request| {
            if request.offset() == 7 {
                begin.send(()).unwrap();
                gone_on.lock().unwrap().recv().unwrap();
            }
            shout(request)
        })
        .unwrap();
    begun.recv_timeout(LONG).unwrap();
    let dropping = thread::spawn(move || drop(responder));
    thread::sleep(Duration::from_millis(20));
    go.send(()).unwrap();
    dropping.join().unwrap();
    let committed = store.group("g").unwrap().describe().unwrap().partitions[0].clone();
    assert_eq!((committed.committed.unwrap().offset(), committed.lag), (8, Some(42)));
    assert_eq!(asked.iter().filter(|asked| asked.is_ready()).count(), 8);
    let _other = shouting(&store, &topic);
    for (n, mut asked) in asked.into_iter().enumerate() {
        assert_eq!(text(&asked.wait_timeout(LONG).unwrap()), format!("{n}!"));
    }
    assert_eq!(requester.status().late, 0);
}

#[test]
fn a_handler_may_ask_somebody_else_and_drop_its_own_responder() {
    let (store, topic) = store_with_questions(1);
    let inner_topic = store.create_topic("inner", TopicConfig::new()).unwrap();
    let _inner = shouting(&store, &inner_topic);
    let inner = store.requester(&inner_topic).build().unwrap();
    let own: Arc<Mutex<Option<Responder>>> = Arc::default();
    let to_drop = Arc::clone(&own);
    let responder = store
        .responder(&topic, "outer")
        .start(move |request| {
            if request.value() == Some(b"stop") {
                drop(to_drop.lock().unwrap().take());
            }
            let question = String::from_utf8_lossy(request.value().unwrap()).into_owned();
            Ok::<_, Error>(Reply::new(answer_to(&inner, &question)))
        })
        .unwrap();
    *own.lock().unwrap() = Some(responder);
    let requester = store.requester(&topic).build().unwrap();
    assert_eq!(answer_to(&requester, "a"), "a!");
    assert_eq!(answer_to(&requester, "stop"), "stop!");
    assert!(own.lock().unwrap().is_none());
}

#[test]
fn waiting_for_idleness_tells_when_there_is_nothing_left_to_do() {
    let (store, topic) = store_with_questions(2);
    let responder = store
        .responder(&topic, "g")
        .start(|request| match request.value() {
            Some(b"slow") => {
                thread::sleep(Duration::from_millis(100));
                shout(request)
            }
            _ => shout(request),
        })
        .unwrap();
    assert!(responder.wait_idle(SOON).unwrap(), "there was nothing to do");
    store.producer().send(&topic, "slow").unwrap();
    assert!(!responder.wait_idle(Duration::from_millis(5)).unwrap());
    assert!(responder.wait_idle(LONG).unwrap());
    store.delete_topic("questions").unwrap();
    assert!(matches!(responder.wait_idle(SOON), Err(Error::TopicDeleted { .. })));
}
