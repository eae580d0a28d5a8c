//! Tests only: a responder whose replies cannot be appended, for a while or for good.

use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use crate::Durability;
use crate::Error;
use crate::Message;
use crate::Record;
use crate::Reply;
use crate::Responder;
use crate::Store;
use crate::Topic;
use crate::TopicConfig;
use crate::storage::disk::Disk;

/// Longer than anything takes; a test that waits so long has failed.
const LONG: Duration = Duration::from_secs(60);

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn open(root: &Path, disk: Disk, durability: Durability) -> (Store, Topic) {
    let builder = Store::builder(root).durability(durability);
    let store = builder.checkpoint_interval(Duration::from_secs(3600)).disk(disk).open().unwrap();
    let topic = store.topic_or_create("requests", TopicConfig::new()).unwrap();
    (store, topic)
}

/// Answers; on the request `now`, the disk begins to fail before the reply is appended.
fn answering(store: &Store, topic: &Topic, disk: &Disk, errno: i32) -> Responder {
    let disk = disk.clone();
    let answer = move |request: &Message<'_>| {
        let value = request.value().unwrap_or_default();
        if value == b"now" {
            disk.script().arm(1, errno, true);
        }
        Ok::<_, Error>(Reply::new([value, b"!"].concat()))
    };
    store.responder(topic, "g").commit_interval(Duration::from_millis(1)).start(answer).unwrap()
}

#[test]
fn a_responder_on_a_full_disk_answers_as_soon_as_there_is_room() {
    for durability in [Durability::Buffered, Durability::Synced] {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("data");
        let disk = Disk::failing_once(u64::MAX, libc::EIO);
        let (store, topic) = open(&root, disk.clone(), durability);
        let replies =
            store.create_topic("replies", TopicConfig::new().segment_bytes(4096)).unwrap();
        let responder = answering(&store, &topic, &disk, libc::ENOSPC);
        let requester = store.requester(&topic).replies(&replies).build().unwrap();
        let reply = requester.request("before").unwrap().wait().unwrap();
        assert_eq!(reply.value(), Some(&b"before!"[..]));
        // The reply's segment is full, so that its append needs room on the disk, whatever was reserved before.
        let filler = vec![0; 3900];
        let filling = store.producer().send(&replies, Record::new(&filler)).unwrap();
        filling.wait().unwrap();
        let mut pending = requester.request("now").unwrap();
        until("it tries again", || responder.status().retries >= 3);
        assert!(matches!(
            pending.wait_timeout(Duration::from_millis(1)),
            Err(Error::Timeout { .. })
        ));
        assert_eq!((responder.status().answered, responder.status().threads), (1, 1));
        disk.script().disarm();
        assert_eq!(pending.wait_timeout(LONG).unwrap().value(), Some(&b"now!"[..]));
        let reply = requester.request("after").unwrap().wait().unwrap();
        assert_eq!(reply.value(), Some(&b"after!"[..]));
        assert!(responder.wait_idle(LONG).unwrap());
        let status = responder.close().unwrap();
        assert_eq!((status.answered, status.failed, status.undeliverable), (3, 0, 0));
        assert_eq!(requester.status().late, 0, "one request, one reply");
    }
}

#[test]
fn a_responder_whose_replies_cannot_be_written_says_so_and_the_next_life_answers() {
    for durability in [Durability::Buffered, Durability::Synced] {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("data");
        let disk = Disk::failing_once(u64::MAX, libc::EIO);
        let (store, topic) = open(&root, disk.clone(), durability);
        let responder = answering(&store, &topic, &disk, libc::EIO);
        let requester = store.requester(&topic).identity("desk").build().unwrap();
        requester.request("before").unwrap().wait().unwrap();
        assert!(responder.wait_idle(LONG).unwrap());
        let mut pending = requester.request("now").unwrap();
        until("the responder gives up", || responder.status().threads == 0);
        // Nobody will answer in this life; how long to wait is the caller's to say.
        assert!(matches!(
            pending.wait_timeout(Duration::from_millis(20)),
            Err(Error::Timeout { .. } | Error::Latched { .. })
        ));
        assert!(!responder.wait_idle(Duration::from_millis(20)).unwrap());
        let error = responder.close().unwrap_err();
        assert!(matches!(error, Error::Latched { .. } | Error::Io { .. }), "{error}");
        drop((pending, requester, topic));
        drop(store.close());

        let (store, topic) = open(&root, Disk::default(), durability);
        let requester = store.requester(&topic).identity("desk").build().unwrap();
        let mut resumed = requester.resume().unwrap();
        let responder = answering(&store, &topic, &Disk::failing_once(u64::MAX, 0), libc::EIO);
        assert!(responder.wait_idle(LONG).unwrap());
        let values: Vec<Vec<u8>> =
            std::iter::from_fn(|| resumed.next_reply(Duration::ZERO).unwrap())
                .map(|reply| reply.value().unwrap().to_vec())
                .collect();
        assert!(values.contains(&b"now!".to_vec()), "{values:?}");
        responder.close().unwrap();
    }
}
