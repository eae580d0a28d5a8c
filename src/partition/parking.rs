//! How a log lets go of its tail without being closed, because too many are open.
//!
//! A tail is *parked*: what is before it sealed, its reserved space given back, its bytes durable, its
//! descriptor and mapping closed. The next append takes it up again where it was, from what is kept in memory,
//! without reading the segment.
//!
//! What parking has to do with the invariants:
//!
//! * *latched*, *once*: the sync is one like any other. If it fails, the log is latched, and nothing of it is
//!   synchronised again; a log that is latched has no more use for a descriptor, and is let go of as well.
//! * *honest*: appends wait while a log is parked, so all of it is in the file before the sync begins. Who waits
//!   at the gate is told by it; the descriptor is closed only then. What is appended later is synchronised
//!   through another one, and needs nothing of this one: all before is durable.
//! * *sealed in order*: what is before the tail is sealed first.
//! * *sealed shows*: as long as the indexes of a parked segment are kept in memory, its index files stay empty,
//!   and it is to recovery what it would be had it stayed open. Once they are spilled into the files, which is
//!   after the segment became durable, it has entries on disk and is one that was *taken over*: when it goes on,
//!   it is sealed before its successor is created. So where entries are on disk, either the segment is the last,
//!   of which recovery does not ask, or it was sealed.
//! * *frozen*, *shown*: the file is cut at the published end, and nobody sees more of it while it is parked.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::Weak;

use crate::error::Result;
use crate::partition::Partition;
use crate::partition::live_tails::Parking;
use crate::partition::live_tails::Parks;
use crate::partition::segments::Segment;
use crate::partition::writer::LiveTail;
use crate::partition::writer::Parked;
use crate::partition::writer::Phase;
use crate::storage::parked_indexes::ParkedIndexes;
use crate::storage::segment::OpenSegment;

impl Parks for Partition {
    fn log_end(&self) -> i64 {
        self.shown.watermarks.log_end()
    }

    fn is_durable(&self) -> bool {
        self.shown.watermarks.durable_end() >= self.shown.watermarks.log_end()
    }

    fn prepare_to_park(self: Arc<Self>) {
        self.hasten();
    }

    fn park(self: Arc<Self>) -> Parking {
        // Never waits for the lock; see the invariant (no circle).
        let Some(mut writer) = self.writer.try_lock() else { return Parking::Refused };
        match (writer.phase, &writer.live) {
            (Phase::Busy, _) => return Parking::Refused,
            (Phase::Closed, _) | (Phase::Open, None) => return Parking::Nothing,
            (Phase::Open, Some(_)) => {}
        }
        // A panic latches this log; it is none of the one for which room is made.
        let parked =
            catch_unwind(AssertUnwindSafe(|| self.change_tail(&mut writer, Self::parked, None)));
        match parked {
            Ok(Ok(())) => Parking::Parked,
            // If it is latched, which everyone is told who waits for it, its tail goes next time.
            Ok(Err(_)) | Err(_) => Parking::Refused,
        }
    }
}

impl Partition {
    /// Makes the live tail durable and closes it, keeping what is needed to go on.
    pub(super) fn parked(
        self: &Arc<Self>,
        live: Option<LiveTail>,
    ) -> (Option<LiveTail>, Result<()>) {
        let Some(mut live) = live else { return (None, Ok(())) };
        if self.latch.get().is_none() {
            if let Err(error) = self.settle(&mut live) {
                return (Some(live), Err(error));
            }
        }
        let parked = self.what_to_keep(&live);
        self.segments.cool_last(parked.end);
        self.writer.lock().parked = Some(Box::new(parked));
        // Here, the descriptor and, unless somebody reads there, the mapping are closed.
        drop(live);
        (None, self.recharge())
    }

    /// Makes all of the log durable and gives back the space behind its end.
    fn settle(&self, live: &mut LiveTail) -> Result<()> {
        let end = self.shown.watermarks.log_end();
        self.seal_below(live.open.base_offset())?;
        live.tail.trim()?;
        // If it is durable already, the cut takes nothing that a later sync would have to save: recovery knows
        // zeros behind the end, and the same bytes written again are the same.
        if self.shown.watermarks.durable_end() < end {
            live.tail.mapping().unmap_pages();
            if let Err(error) = live.tail.file().sync_data() {
                return Err(self.latch(&format!("a sync failed: {error}")));
            }
            self.note_durable(end);
        }
        Ok(())
    }

    fn what_to_keep(&self, live: &LiveTail) -> Parked {
        let mut state = live.state;
        let mut indexes = {
            let mut indexes = live.open.indexes_of_live().write();
            indexes.catch_up(&live.noting);
            ParkedIndexes::new(&indexes, state.written)
        };
        if indexes.is_large() && self.latch.get().is_none() {
            // Before the attempt: even one that fails may leave entries in the files.
            state.was_taken_over = true;
            // What cannot be written is kept, and tried again the next time.
            indexes.spill(&self.context.disk, live.open.path()).unwrap_or_default();
        }
        state.written = indexes.written();
        Parked { end: live.tail.end(), indexes, state }
    }

    /// Puts the files of a parked tail in the order in which a clean close leaves them.
    pub(super) fn finish_parked(&self, parked: &Parked, end: i64) -> Result<()> {
        self.make_names_durable(end)?;
        let path = self.context.log_path(self.segments.last().base_offset());
        // Last: see the invariant (sealed shows).
        parked.indexes.finish(&self.context.disk, &path)
    }

    /// Gives a segment's readers' side, making room if the system has none.
    ///
    /// # Errors
    ///
    /// * [`Error::Io`] if the file cannot be opened or mapped. Where the system has no descriptor or no room for
    ///   another mapping, only after everything idle was let go; then it may be tried again later.
    #[inline]
    pub(crate) fn open_segment(&self, segment: &Segment) -> Result<Arc<OpenSegment>> {
        match self.segments.open(segment, &self.context) {
            Err(error) if error.is_exhaustion() => {
                self.making_room(|| self.segments.open(segment, &self.context))
            }
            other => other,
        }
    }

    /// Opens something; where the system has no descriptor or no room for another mapping, lets go of what is
    /// idle, and tries again.
    pub(super) fn making_room<T>(&self, open: impl Fn() -> Result<T>) -> Result<T> {
        let mut tries = TRIES_MAX;
        loop {
            match open() {
                Err(error) if error.is_exhaustion() && tries > 0 => {
                    tries -= 1;
                    let is_room = self.segments.let_go_of_idle() | self.live_tails.make_room();
                    if !is_room {
                        return Err(error);
                    }
                }
                other => return other,
            }
        }
    }

    pub(super) fn as_parkable(self: &Arc<Self>) -> Weak<dyn Parks> {
        let this: Weak<Partition> = Arc::downgrade(self);
        this
    }
}

/// Others may take what was let go of.
const TRIES_MAX: u32 = 4;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;
    use std::task::Wake;
    use std::task::Waker;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::Durability;
    use crate::Error;
    use crate::Finding;
    use crate::Record;
    use crate::Store;
    use crate::Topic;
    use crate::TopicConfig;
    use crate::clock::Clock;
    use crate::storage::disk::Disk;

    /// A store that does nothing in the background, with room for one tail, and a topic of two partitions.
    fn with_room_for_one() -> (Disk, Store, Topic) {
        let disk = Disk::failing_once(u64::MAX, 0);
        let store = Store::builder_temporary().disk(disk.clone()).live_tails_max(1).open().unwrap();
        let config = TopicConfig::new().partitions(2).index_interval_bytes(100);
        let topic = store.create_topic("t", config).unwrap();
        (disk, store, topic)
    }

    fn is_parked(partition: &Partition) -> bool {
        let writer = partition.writer.lock();
        assert!(writer.live.is_none() || writer.parked.is_none());
        writer.parked.is_some() && partition.segments.last().live_file().is_none()
    }

    fn values(store: &Store, topic: &Topic, number: u32) -> Vec<Vec<u8>> {
        let partition = topic.partition(number).unwrap();
        let mut consumer = store.consumer().assign([&partition]).unwrap();
        let mut values = Vec::new();
        loop {
            let records = consumer.poll(Duration::ZERO).unwrap();
            if records.is_empty() {
                return values;
            }
            values.extend(records.iter().map(|message| message.value().unwrap().to_vec()));
        }
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn who_waits_for_a_record_is_told_that_parking_made_it_durable() {
        let (_disk, store, topic) = with_room_for_one();
        let producer = store.producer();
        producer.send(&topic, Record::new("a").partition(0)).unwrap();
        let first = topic.state.open_partition(0).unwrap();
        assert_eq!(first.watermarks().durable_end(), 0);
        let woken = Arc::new(Woken::default());
        assert_eq!(first.gate.wake_task(1, &Waker::from(Arc::clone(&woken))), None);
        assert!(!is_parked(&first));

        producer.send(&topic, Record::new("b").partition(1)).unwrap();
        assert!(is_parked(&first));
        assert!(woken.0.load(Ordering::SeqCst));
        assert_eq!(first.watermarks().durable_end(), 1);
        // And it goes on.
        producer.send(&topic, Record::new("c").partition(0)).unwrap();
        assert!(!is_parked(&first));
        assert_eq!(values(&store, &topic, 0), [b"a", b"c"]);
        assert_eq!(values(&store, &topic, 1), [b"b"]);
    }

    #[test]
    fn a_sync_that_fails_while_a_log_is_parked_latches_that_log_and_no_other() {
        let (disk, store, topic) = with_room_for_one();
        let producer = store.producer();
        let doomed = producer.send(&topic, Record::new("a").partition(0)).unwrap();
        // The cut of the reserved space is the first effect, the sync the second.
        disk.script().arm(2, libc::EIO, false);
        producer.send(&topic, Record::new("b").partition(1)).unwrap().wait().unwrap();
        assert!(disk.script().trace().iter().any(|effect| effect.starts_with("synchronise")));
        assert!(matches!(doomed.wait(), Err(Error::Latched { .. })));
        let refused = producer.send(&topic, Record::new("c").partition(0));
        assert!(matches!(refused, Err(Error::Latched { .. })));
        assert_eq!(values(&store, &topic, 0), [b"a"], "reads go on");
        assert_eq!(values(&store, &topic, 1), [b"b"]);
        let latched = |f: &Finding| matches!(f, Finding::Latched { .. });
        assert_eq!(store.health().findings.iter().filter(|f| latched(f)).count(), 1);
        // Its descriptor is of no more use.
        let first = topic.state.open_partition(0).unwrap();
        assert!(matches!(first.park(), Parking::Parked));
        assert_eq!(values(&store, &topic, 0), [b"a"]);
    }

    #[test]
    fn what_a_close_leaves_does_not_tell_whether_logs_were_parked() {
        let run = |root: &Path, room: usize| {
            let (clock, _) = Clock::fixed(1_000_000);
            let store = Store::builder(root).clock(clock).live_tails_max(room).open().unwrap();
            let config =
                TopicConfig::new().partitions(3).segment_bytes(8 << 10).index_interval_bytes(200);
            let topic = store.create_topic("t", config).unwrap();
            let producer = store.producer_builder().durability(Durability::Buffered).build();
            let mut parked = 0;
            for n in 0..600_u32 {
                let value = vec![n as u8; 50 + (n % 100) as usize];
                let time = i64::from(1000 + n - 10 * (n % 3));
                producer
                    .send(&topic, Record::new(&value).timestamp(time).partition(n % 3))
                    .unwrap();
                let others = (0..3).map(|n| topic.state.open_partition(n).unwrap());
                parked += others.filter(|other| is_parked(other)).count();
            }
            assert_eq!(parked > 500, room == 1, "{parked}");
            drop(topic);
            store.close().unwrap();
            (0..3).map(|n| root.join(format!("t-{n}"))).map(|path| files(&path)).collect::<Vec<_>>()
        };
        let directory = tempfile::tempdir().unwrap();
        let [parked, open] =
            [1, 100].map(|room| run(&directory.path().join(room.to_string()), room));
        assert!(parked[0].len() > 10);
        assert!(parked == open);
    }

    /// All files of a partition but the one that names its topic.
    fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
            })
            .filter(|(name, _)| name != "partition.metadata")
            .collect();
        files.sort();
        files
    }

    #[test]
    fn a_parked_segment_is_rolled_by_age_and_its_times_are_found() {
        let (clock, now) = Clock::fixed(1_000_000);
        let store = Store::builder_temporary()
            .clock(clock)
            .live_tails_max(1)
            .checkpoint_interval(Duration::from_secs(3600))
            .open()
            .unwrap();
        let config = TopicConfig::new().partitions(2).segment_ms(1000).index_interval_bytes(100);
        let topic = store.create_topic("t", config).unwrap();
        let producer = store.producer_builder().durability(Durability::Buffered).build();
        for n in 0..50 {
            for number in 0..2 {
                let record = Record::new(&[0; 40]).timestamp(1_000_000 + n);
                producer.send(&topic, record.partition(number)).unwrap();
            }
            let first = topic.partition(0).unwrap();
            for time in 0..=n {
                let found = first.offset_for_time(1_000_000 + time).unwrap().unwrap();
                assert_eq!(found.0, time);
            }
        }
        let first = topic.state.open_partition(0).unwrap();
        assert!(is_parked(&first));
        assert_eq!(first.roll_if_due(now.load(Ordering::Relaxed)).unwrap(), Some(1_001_000));
        now.fetch_add(1001, Ordering::Relaxed);
        first.roll_if_due(now.load(Ordering::Relaxed)).unwrap();
        assert_eq!(first.segment_count(), 2);
        producer.send(&topic, Record::new("next").partition(0)).unwrap();
        assert_eq!(values(&store, &topic, 0).len(), 51);
    }

    /// A reader that took a cold last segment off the list and opened it only when somebody appended again took
    /// the file's length, reserved space included, for the segment's: it met zeros, or half a batch.
    #[test]
    fn who_opens_the_last_segment_late_sees_no_more_than_was_published() {
        let (_disk, store, topic) = with_room_for_one();
        let producer = store.producer();
        producer.send(&topic, Record::new("a").partition(0)).unwrap();
        producer.send(&topic, Record::new("b").partition(1)).unwrap();
        let first = topic.state.open_partition(0).unwrap();
        let cold = first.segments.last();
        producer.send(&topic, Record::new("c").partition(0)).unwrap();
        let open = first.open_segment(&cold).unwrap();
        assert_eq!(Some(open.end()), cold.shown_end());
        assert!(open.locate(0).unwrap().is_some());
        assert!(open.locate(1).unwrap().is_none());
        assert_eq!(values(&store, &topic, 0), [b"a", b"c"]);
    }

    #[test]
    fn appends_reads_and_waits_of_all_threads_go_on_while_logs_are_parked_under_them() {
        const PARTITIONS: u32 = 5;
        const APPENDS: u32 = 400;
        let store = Store::builder_temporary()
            .live_tails_max(2)
            .checkpoint_interval(Duration::from_millis(2))
            .open()
            .unwrap();
        let config = TopicConfig::new()
            .partitions(PARTITIONS)
            .segment_bytes(4 << 10)
            .index_interval_bytes(100);
        let topic = store.create_topic("t", config).unwrap();
        let appenders_left = AtomicUsize::new(3);
        thread::scope(|scope| {
            for thread in 0..3_u32 {
                let (store, topic, left) = (&store, &topic, &appenders_left);
                scope.spawn(move || {
                    let producer = store.producer();
                    let mut random = thread.wrapping_mul(0x9e37_79b9) | 1;
                    for n in 0..APPENDS {
                        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let number = (random >> 16) % PARTITIONS;
                        let value = format!("{thread} {n} {}", ".".repeat((n % 90) as usize));
                        let sent = producer.send(topic, Record::new(&value).partition(number));
                        let delivery = sent.unwrap();
                        if n % 8 == 0 {
                            let open = topic.state.open_partition(number).unwrap();
                            let offset = delivery.wait().unwrap().offset();
                            assert!(open.watermarks().durable_end() > offset);
                        }
                    }
                    left.fetch_sub(1, Ordering::SeqCst);
                });
            }
            // Reads all there is, again and again: in order, of every thread.
            let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
            let mut seen: Vec<Vec<String>> = vec![Vec::new(); PARTITIONS as usize];
            loop {
                let is_over = appenders_left.load(Ordering::SeqCst) == 0;
                let records = consumer.poll(Duration::from_millis(1)).unwrap();
                for message in &records {
                    let log = &mut seen[message.partition() as usize];
                    assert_eq!(message.offset(), log.len() as i64);
                    log.push(String::from_utf8(message.value().unwrap().to_vec()).unwrap());
                }
                if records.is_empty() && is_over {
                    break;
                }
            }
            let mut last = vec![vec![-1; 3]; PARTITIONS as usize];
            for (log, last) in seen.iter().zip(&mut last) {
                for value in log {
                    let mut words = value.split(' ');
                    let thread: usize = words.next().unwrap().parse().unwrap();
                    let n: i64 = words.next().unwrap().parse().unwrap();
                    assert!(n > last[thread], "out of order: {value}");
                    last[thread] = n;
                }
            }
            let count: usize = seen.iter().map(Vec::len).sum();
            assert_eq!(count, 3 * APPENDS as usize);
        });
        let (path, health) = (store.path().to_path_buf(), store.health());
        assert!(health.is_good(), "{health:?}");
        drop((path, topic));
        store.close().unwrap();
    }
}
