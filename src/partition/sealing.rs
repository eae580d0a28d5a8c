//! How a log becomes durable: segments are sealed one after the other, then the last one is synchronised.
//!
//! A roll only creates the next segment's files, so that no append waits for a disk. The segment it leaves
//! behind stays live, its descriptor open, until it is *sealed*: its reserved space given back, its bytes
//! synchronised, its successor's directory entry durable, its indexes written. A background thread does that,
//! or whoever waits for durability, or a roll that finds too much unsealed.
//!
//! **Invariant (sealed in order).** Nothing in a segment is called durable before every segment before it is
//! sealed. So what survives a power cut and was acknowledged is never behind a hole.
//!
//! **Invariant (sealed shows).** A segment's index files are empty on disk until it is durable and its
//! successor has a durable name; after that they are not. Recovery tells by it whether damage in a segment
//! that is not the last is damage, or the end of what survived. A segment that was taken over from an earlier
//! life has entries already, and is therefore sealed before its successor is created.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;
use std::time::Instant;

use crate::error::Result;
use crate::partition::Attention;
use crate::partition::LatchOnUnwind;
use crate::partition::Partition;
use crate::partition::producer_snapshot;
use crate::partition::sync::Synced;
use crate::partition::sync::Waited;
use crate::partition::unsealed::Followed;
use crate::partition::unsealed::Queue;
use crate::partition::writer::LiveTail;
use crate::storage::indexes;
use crate::storage::planted::Planted;

impl Partition {
    /// Waits until everything below `end` is on stable storage, synchronising if nobody else does.
    pub(crate) fn wait_durable(&self, end: i64) -> Result<()> {
        match self.gate.wait(end, || self.sync_files())? {
            // Those who read only what is durable may go on. Time is never up for who waits as long as it takes.
            Waited::Durable | Waited::TimedOut => self.shown.doorbells.ring(),
            Waited::Failed(reason) => return Err(self.latched(reason)),
        }
        Ok(())
    }

    /// Has what was appended so far made durable at once, in the background, for somebody who is about to
    /// wait for it.
    pub(crate) fn hasten(self: &Arc<Self>) {
        // A disk with a script counts effects: nothing may happen in the background.
        #[cfg(test)]
        if self.context.disk.script.is_some() {
            return;
        }
        if self.shown.watermarks.durable_end() < self.shown.watermarks.log_end() {
            self.ask_for_sync(Duration::ZERO);
        }
    }

    /// Waits no longer than the deadline; the keeper synchronises. `false` if time was up.
    pub(crate) fn wait_durable_until(
        self: &Arc<Self>,
        end: i64,
        deadline: Instant,
    ) -> Result<bool> {
        if self.shown.watermarks.durable_end() >= end {
            return Ok(true);
        }
        self.ask_for_sync(Duration::ZERO);
        match self.gate.wait_until(end, deadline) {
            Waited::Durable => Ok(true),
            Waited::TimedOut => Ok(false),
            Waited::Failed(reason) => Err(self.latched(reason)),
        }
    }

    /// Has a task woken when everything below `end` is durable; `true` if it is already.
    pub(crate) fn poll_durable(self: &Arc<Self>, end: i64, waker: &Waker) -> Result<bool> {
        match self.gate.wake_task(end, waker) {
            Some(Waited::Durable) => Ok(true),
            Some(Waited::Failed(reason)) => Err(self.latched(reason)),
            Some(Waited::TimedOut) | None => {
                self.ask_for_sync(Duration::ZERO);
                Ok(false)
            }
        }
    }

    /// Synchronises everything appended so far, for the keeper: marks the request as taken up first, so
    /// that an append from now on asks anew.
    pub(crate) fn checkpoint(&self) -> Result<i64> {
        self.asked_within_ms.store(u64::MAX, Ordering::SeqCst);
        let end = self.shown.watermarks.log_end();
        self.wait_durable(end)?;
        Ok(self.shown.watermarks.durable_end())
    }

    /// Makes everything appended so far durable and returns the log end as it was before.
    pub(super) fn sync_files(&self) -> Result<Synced> {
        // Read before the sync begins (invariant (honest) of the gate), and before the list: what lies below
        // this end lies in a segment of the list, sealed or among the unsealed or the last.
        let end = self.shown.watermarks.log_end();
        let last = self.segments.last();
        let sealed = self.seal_below(last.base_offset());
        // Latched before, or by that: what failed is told to everyone who waits.
        if let Some(reason) = self.latch.get() {
            return Ok(Synced::Failed(Arc::clone(reason)));
        }
        sealed?;
        if let (Some(file), Some(open)) = (last.live_file(), last.live_open()) {
            open.unmap_pages();
            if let Err(error) = file.sync_data() {
                self.latch(&format!("a sync failed: {error}"));
                return Ok(Synced::Failed(Arc::clone(
                    self.latch.get().expect("latched on the line above"),
                )));
            }
        }
        let end = match self.context.disk.has(Planted::TargetReadAfterSync) {
            true => self.shown.watermarks.log_end(),
            false => end,
        };
        self.shown.watermarks.note_durable(end);
        Ok(Synced::Upto(end))
    }

    /// Gives the offset below which recovery need not look: everything there is durable, in segments whose indexes
    /// are, too, or in the last one.
    pub(crate) fn recovery_point(&self) -> i64 {
        // Asked first: whatever is durable by now is in a segment that is sealed, or in the list below.
        let durable_end = self.shown.watermarks.durable_end();
        let oldest = self.unsealed.queue.lock().oldest();
        [oldest, self.unindexed].into_iter().flatten().fold(durable_end, i64::min)
    }

    /// Tells whether recovery could write all the indexes it had to.
    pub(crate) fn is_indexed(&self) -> bool {
        self.unindexed.is_none()
    }

    /// Seals what was followed by another segment.
    pub(crate) fn seal_followed(&self) -> Result<()> {
        self.seal_below(i64::MAX)
    }

    /// Seals every segment that begins below `base_offset` and is not sealed yet.
    ///
    /// # Errors
    ///
    /// * [`Error::Latched`](crate::Error::Latched) if a sync failed.
    /// * Others: it stays unsealed, and may be sealed later.
    pub(super) fn seal_below(&self, base_offset: i64) -> Result<()> {
        self.seal_while(|queue| queue.oldest().is_some_and(|oldest| oldest < base_offset))
    }

    /// Waits, sealing, until the next segment may be left unsealed: what a power cut can take from a
    /// producer that does not wait is bounded, and so are what recovery has to scan and the descriptors that
    /// unsealed segments hold.
    pub(super) fn make_room_to_seal(&self) -> Result<()> {
        let count_max = self.live_tails.backlog_max();
        let bytes_max = self.live_tails.unsealed_bytes_max();
        self.seal_while(|queue| queue.len() > bytes_max || queue.followed.len() >= count_max)
    }

    /// Takes a segment that `next` is about to follow, and asks for it to be sealed.
    pub(super) fn leave_to_be_sealed(&self, live: LiveTail, next: i64) {
        // From here on nobody asks the writer how young it is.
        live.open.indexes_of_live().write().catch_up(&live.noting);
        self.unsealed.queue.lock().followed.push_back(Followed { live, next });
    }

    /// Leaves everything unsealed for ever, once the seal at hand is through.
    pub(super) fn forget_unsealed(&self) {
        let _turn = self.unsealed.turn.lock();
        self.unsealed.queue.lock().followed.clear();
    }

    /// Seals unsealed segments, the oldest first, as long as there is one and the queue is as asked for.
    fn seal_while(&self, is_due: impl Fn(&Queue) -> bool) -> Result<()> {
        // Without the turn where there is nothing to do.
        if !is_due(&self.unsealed.queue.lock()) {
            return Ok(());
        }
        let _turn = self.unsealed.turn.lock();
        loop {
            let mut queue = self.unsealed.queue.lock();
            let next = if is_due(&queue) {
                self.refuse_if_latched()?;
                queue.take_oldest()
            } else {
                None
            };
            drop(queue);
            let Some(oldest) = next else {
                return Ok(());
            };
            self.seal_taken(oldest)?;
        }
    }

    /// Seals a segment that was taken off the queue; puts it back where that fails. The caller has the turn.
    fn seal_taken(&self, mut oldest: Followed) -> Result<()> {
        let base_offset = oldest.live.open.base_offset();
        // Latched if it unwinds: then nothing is called durable any more, sealed or not.
        let guard = LatchOnUnwind::of(self, "sealing a segment panicked");
        let sealed = self.seal(&mut oldest.live, oldest.next);
        guard.defuse();
        if sealed.is_ok() {
            self.segments.cool(base_offset);
        }
        let mut queue = self.unsealed.queue.lock();
        queue.being_sealed = None;
        if sealed.is_err() {
            queue.followed.push_front(oldest);
        }
        sealed
    }

    /// Makes a segment that ends below `next` what it will be for ever: trimmed, durable, with its indexes.
    pub(super) fn seal(&self, live: &mut LiveTail, next: i64) -> Result<()> {
        live.tail.trim()?;
        live.tail.mapping().unmap_pages();
        if !self.context.disk.has(Planted::SegmentNotSynced) {
            if let Err(error) = live.tail.file().sync_all() {
                return Err(self.latch(&format!("a sync failed: {error}")));
            }
        }
        self.note_durable(next);
        self.make_names_durable(next)?;
        // Last: see the invariant (sealed shows).
        let mut indexes = live.open.indexes_of_live().read().clone();
        indexes.catch_up(&live.noting);
        indexes::write_indexes(&self.context.disk, live.open.path(), &indexes)
    }

    /// Tells everyone who waits that a sync has made everything below `end` durable.
    pub(super) fn note_durable(&self, end: i64) {
        self.shown.watermarks.note_durable(end);
        self.gate.note_durable(end);
        self.shown.doorbells.ring();
    }

    /// Writes the producer snapshot of a segment that ends below `next`, and makes the directory's names durable.
    pub(super) fn make_names_durable(&self, next: i64) -> Result<()> {
        let snapshot = self.writer.lock().producer_snapshot.clone();
        if let Some(snapshot) = snapshot {
            producer_snapshot::write(&self.context, next, &snapshot)?;
        }
        if self.context.disk.has(Planted::NameNotSynced) {
            return Ok(());
        }
        self.context.disk.sync_directory(&self.context.directory)
    }

    pub(super) fn ask_to_seal(self: &Arc<Self>) {
        // A disk with a script counts effects: nothing may happen in the background.
        #[cfg(test)]
        if self.context.disk.script.is_some() {
            return;
        }
        // The keeper is gone only once the store is closing, which seals everything itself.
        drop(self.attention.send(Attention::Seal { partition: Arc::downgrade(self) }));
    }

    #[inline]
    pub(super) fn ask_for_sync(self: &Arc<Self>, within: Duration) {
        let within_ms = within.as_millis().try_into().unwrap_or(u64::MAX - 1);
        if within_ms >= self.asked_within_ms.load(Ordering::Relaxed) {
            return;
        }
        if self.asked_within_ms.fetch_min(within_ms, Ordering::SeqCst) > within_ms {
            let asked = Attention::Sync { partition: Arc::downgrade(self), within };
            // The keeper is gone only once the store is closing, which synchronises everything itself.
            drop(self.attention.send(asked));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Durability;
    use crate::Error;
    use crate::Record;
    use crate::Store;
    use crate::StoreBuilder;
    use crate::Topic;
    use crate::TopicConfig;
    use crate::partition::watermarks;
    use crate::partition::watermarks::Doorbell;
    use crate::storage::disk::Disk;
    use crate::storage::faults::Meanwhile;
    use crate::storage::file_name::OffsetFile;
    use std::fs;
    use std::path::Path;
    use std::sync::atomic::AtomicU64;
    use std::sync::mpsc;

    /// A store that does nothing in the background, and a topic in segments of 2 KiB of which some are full.
    fn with_full_segments(count: usize) -> (Store, Topic, Arc<Partition>) {
        with_full_segments_in(Store::builder_temporary(), count)
    }

    fn with_full_segments_in(
        builder: StoreBuilder,
        count: usize,
    ) -> (Store, Topic, Arc<Partition>) {
        // Nobody asks for a sync either, but the test.
        let builder = builder
            .durability(Durability::Buffered)
            .checkpoint_interval(Duration::from_secs(3600))
            .disk(Disk::failing_once(u64::MAX, 0));
        let store = builder.open().unwrap();
        let topic = store.create_topic("t", TopicConfig::new().segment_bytes(2048)).unwrap();
        let partition = topic.state.open_partition(0).unwrap();
        while partition.segment_count() <= count {
            store.producer().send(&topic, Record::new(&[7; 100])).unwrap();
        }
        (store, topic, partition)
    }

    fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    /// The queue of a deleted log named files by paths: sealed later, it would have written its indexes into the
    /// directory of a topic that was created anew, whose first segment would then have passed for sealed.
    #[test]
    fn a_deleted_log_writes_nothing_into_the_directory_of_its_successor() {
        let (store, _topic, old) = with_full_segments(2);
        assert!(old.unsealed.queue.lock().oldest().is_some());
        store.delete_topic("t").unwrap();
        let topic = store.create_topic("t", TopicConfig::new()).unwrap();
        store.producer().send(&topic, Record::new("new")).unwrap();
        let before = files(&store.path().join("t-0"));
        old.seal_followed().unwrap();
        assert_eq!(files(&store.path().join("t-0")), before);
    }

    /// A segment was durable, and on record as such, and its indexes were being written when the power was cut: a time
    /// index of the right length and full of zeros was left, which no recovery looked at any more. The next clean close
    /// vouched for it, and Kafka, which goes by the last entry, would have taken the segment for one of 1970 and
    /// deleted it. Now a segment stays above the recovery point until its indexes are durable.
    #[test]
    fn what_is_on_record_as_durable_never_goes_beyond_a_segment_whose_indexes_are_not_written() {
        let mut failed = 0;
        for n in 1.. {
            let (store, _topic, partition) = with_full_segments(2);
            let second = partition.segments.snapshot()[1].base_offset();
            let script = store.topics_for_test().disk_for_test();
            script.script().arm(n, libc::ENOSPC, false);
            let sealed = partition.seal_followed();
            script.script().disarm();
            let topics = store.topics_for_test();
            topics.note_recovery_points(&topics.all_open()).unwrap();
            let path = store.path().join(crate::storage::file_name::RECOVERY_POINTS);
            let points = crate::storage::checkpoint::OffsetCheckpoint::read(script, &path).unwrap();
            let point = points.of(&crate::name::TopicName::new("t").unwrap(), 0).unwrap();
            let has_indexes = partition.unsealed.queue.lock().oldest() != Some(0);
            assert!(has_indexes || point == 0, "effect {n}: {point} is on record");
            assert!(!has_indexes || point >= second);
            failed += usize::from(!has_indexes);
            if sealed.is_ok() {
                break;
            }
        }
        assert!(failed > 6, "{failed}");
    }

    #[test]
    fn a_close_seals_what_was_followed_though_the_last_segment_is_not_open() {
        let (store, topic, partition) = with_full_segments(2);
        // As after a roll of an empty segment whose file could not be opened again.
        partition.writer.lock().live = None;
        partition.close().unwrap();
        assert!(partition.unsealed.queue.lock().oldest().is_none());
        let sealed = files(partition.directory());
        let index = |name: &str| sealed.iter().find(|(n, _)| n == name).unwrap().1.len();
        assert!(index("00000000000000000000.timeindex") > 0);
        drop((topic, store));
    }

    #[test]
    fn no_more_is_left_unsealed_than_a_roll_waits_for() {
        for (bytes_max, least) in [(0, 1), (6 << 10, 3 << 11), (20 << 10, 9 << 11)] {
            let builder = Store::builder_temporary().unsynced_bytes_max(bytes_max);
            let (_store, _topic, partition) = with_full_segments_in(builder, 20);
            let len = partition.unsealed.queue.lock().len();
            assert!((least..=bytes_max + 2048).contains(&len), "{bytes_max}: {len}");
        }
    }

    #[test]
    fn nor_are_more_segments_left_unsealed_than_there_are_descriptors_for() {
        // Of so many tails a quarter.
        for (tails, most) in [(4, 1), (12, 3), (40, 10)] {
            let builder =
                Store::builder_temporary().unsynced_bytes_max(1 << 30).live_tails_max(tails);
            let (_store, _topic, partition) = with_full_segments_in(builder, 20);
            assert_eq!(partition.unsealed.queue.lock().followed.len(), most, "{tails}");
        }
    }

    #[test]
    fn only_what_begins_below_is_sealed_and_then_it_is_cold() {
        let (_store, _topic, partition) = with_full_segments(2);
        let base_offsets: Vec<i64> =
            partition.segments.snapshot().iter().map(|segment| segment.base_offset()).collect();
        let oldest = || partition.unsealed.queue.lock().oldest();
        let live = || {
            let segments = partition.segments.snapshot();
            segments.iter().map(|segment| segment.live_file().is_some()).collect::<Vec<_>>()
        };
        for (sealed, below) in [(0, 0), (1, base_offsets[1]), (2, base_offsets[2]), (2, i64::MAX)] {
            partition.seal_below(below).unwrap();
            let expected = (sealed < 2).then_some(base_offsets[sealed]);
            assert_eq!(oldest(), expected, "below {below}");
            let expected: Vec<bool> = (0..3).map(|index| index >= sealed).collect();
            assert_eq!(live(), expected, "below {below}");
            // Kafka begins with a snapshot where a segment begins, and takes its producers from there.
            for (index, next) in base_offsets.iter().enumerate().skip(1) {
                let snapshot = OffsetFile::ProducerSnapshot.path(partition.directory(), *next);
                assert_eq!(snapshot.exists(), index <= sealed, "{index}, below {below}");
            }
        }
    }

    /// Behind a failed sync nobody knows what of a file is on the disk: nothing is called sealed or durable any more.
    #[test]
    fn a_log_that_latched_seals_nothing_and_tells_everyone_who_waits() {
        let (_store, topic, partition) = with_full_segments(2);
        let durable_end = partition.watermarks().durable_end();
        let end = partition.watermarks().log_end();
        let task = Arc::new(Count(AtomicU64::new(0)));
        let waker = Waker::from(Arc::clone(&task));
        assert_eq!(partition.gate.wake_task(end, &waker), None);
        partition.latch("broken");
        assert_eq!(task.0.load(Ordering::SeqCst), 1);
        let before = files(partition.directory());
        let is_latched =
            |error: Error| matches!(error, Error::Latched { reason, .. } if &*reason == "broken");
        let far = Instant::now() + Duration::from_secs(3600);
        assert!(is_latched(partition.seal_followed().unwrap_err()));
        assert!(is_latched(partition.wait_durable(end).unwrap_err()));
        assert!(is_latched(partition.wait_durable_until(end, far).unwrap_err()));
        assert!(is_latched(partition.poll_durable(end, &waker).unwrap_err()));
        assert!(is_latched(partition.checkpoint().unwrap_err()));
        assert_eq!(partition.sync_files().unwrap(), Synced::Failed("broken".into()));
        assert_eq!(partition.unsealed.queue.lock().oldest(), Some(0));
        assert_eq!(partition.watermarks().durable_end(), durable_end);
        assert!(files(partition.directory()) == before, "something was written");
        drop(topic);
    }

    /// A sync that failed is not tried again: the next one would succeed, and what it should have saved be lost.
    #[test]
    fn a_seal_whose_sync_fails_latches_its_log_for_good() {
        let (store, _topic, partition) = with_full_segments(2);
        let script = store.topics_for_test().disk_for_test();
        script.script().arm_sync_of_log(1);
        assert!(matches!(partition.seal_followed(), Err(Error::Latched { .. })));
        script.script().disarm();
        let end = partition.watermarks().log_end();
        for _ in 0..2 {
            assert!(matches!(partition.seal_followed(), Err(Error::Latched { .. })));
            assert!(matches!(partition.wait_durable(end), Err(Error::Latched { .. })));
        }
        assert_eq!(partition.unsealed.queue.lock().oldest(), Some(0));
        assert_eq!(partition.watermarks().durable_end(), 0);
    }

    /// The recovery point is put on record by another thread than the one that seals, at any time.
    #[test]
    fn a_segment_that_is_being_sealed_holds_the_recovery_point_back() {
        let (store, _topic, partition) = with_full_segments(2);
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let script = store.topics_for_test().disk_for_test();
        let (weak, noted) = (Arc::downgrade(&partition), Arc::clone(&seen));
        script.script().during_syncs(Some(Meanwhile(Arc::new(move |path: &Path| {
            if let Some(partition) = weak.upgrade() {
                noted.lock().unwrap().push((path.to_path_buf(), partition.recovery_point()));
            }
        }))));
        partition.seal_followed().unwrap();
        script.script().during_syncs(None);
        let seen = seen.lock().unwrap();
        let segments = partition.segments.snapshot();
        for (index, segment) in segments[..2].iter().enumerate() {
            let base = segment.base_offset();
            // Its bytes are durable, and on record as such, before its indexes are.
            for kind in [OffsetFile::Log, OffsetFile::OffsetIndex] {
                let path = kind.path(partition.directory(), base);
                assert!(seen.contains(&(path, base)), "segment {index}: {seen:?}");
            }
        }
        // Everything is sealed: what is durable is what is on record.
        assert_eq!(partition.recovery_point(), segments[2].base_offset());
    }

    /// A log that nobody appends to has no tail open, and a sync of it nothing to do.
    #[test]
    fn a_log_without_an_open_tail_is_as_durable_as_it_is_long() {
        let (store, topic, partition) = with_full_segments(1);
        let end = partition.watermarks().log_end();
        let path = store.path().to_path_buf();
        partition.close().unwrap();
        assert_eq!(partition.sync_files().unwrap(), Synced::Upto(end));
        let copy = crate::storage::faults::fresh_copy(&path, "copy");
        let again = Store::builder(&copy).disk(Disk::failing_once(u64::MAX, 0)).open().unwrap();
        let opened = again.topic("t").unwrap().state.open_partition(0).unwrap();
        assert_eq!(opened.sync_files().unwrap(), Synced::Upto(end));
        assert_eq!(opened.recovery_point(), end);
        drop(topic);
    }

    #[test]
    fn whoever_reads_only_what_is_durable_is_woken_by_a_sync() {
        let (store, topic, partition) = with_full_segments(0);
        store.producer().send(&topic, Record::new("a")).unwrap();
        let end = partition.watermarks().log_end();
        let bell = Arc::new(Doorbell::default());
        partition.doorbells().hang(&bell);
        bell.reset();
        partition.doorbells().arm();
        watermarks::armed();
        partition.wait_durable(end).unwrap();
        assert!(!bell.wake_task(Waker::noop()), "nobody rang");
    }

    #[test]
    fn a_sync_takes_up_what_was_asked_for_before_it_began_and_no_more() {
        let (store, topic, partition) = with_full_segments(1);
        let asked = || partition.asked_within_ms.load(Ordering::SeqCst);
        for (within, expected) in [(2000, 2000), (3000, 2000), (1000, 1000)] {
            partition.ask_for_sync(Duration::from_secs(within));
            assert_eq!(asked(), expected * 1000, "the sooner one counts");
        }
        let taken = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (weak, noted) = (Arc::downgrade(&partition), Arc::clone(&taken));
        let script = store.topics_for_test().disk_for_test();
        script.script().during_syncs(Some(Meanwhile(Arc::new(move |_: &Path| {
            if let Some(partition) = weak.upgrade() {
                let asked = partition.asked_within_ms.swap(7, Ordering::SeqCst);
                noted.lock().unwrap().push(asked);
            }
        }))));
        let end = partition.watermarks().log_end();
        assert_eq!(partition.checkpoint().unwrap(), end);
        script.script().during_syncs(None);
        let taken = taken.lock().unwrap();
        assert_eq!(taken.first(), Some(&u64::MAX), "asked for before the first sync began");
        assert!(taken[1..].iter().all(|asked| *asked == 7), "{taken:?}");
        assert_eq!(asked(), 7, "asked for meanwhile");
        drop(topic);
    }

    #[test]
    fn a_wait_that_is_bounded_has_it_made_durable_in_the_background() {
        let store = Store::temporary().unwrap();
        let topic = store.create_topic("t", TopicConfig::new()).unwrap();
        let partition = topic.state.open_partition(0).unwrap();
        let producer = store.producer_builder().durability(Durability::Buffered).build();
        let far = || Instant::now() + Duration::from_secs(60);
        for end in 1..4 {
            producer.send(&topic, Record::new("a")).unwrap();
            if end == 2 {
                partition.hasten();
            }
            assert!(partition.wait_durable_until(end, far()).unwrap());
            assert!(partition.watermarks().durable_end() >= end);
            // It is already: no time is needed.
            partition.hasten();
            assert!(partition.wait_durable_until(end, Instant::now()).unwrap());
            assert!(partition.poll_durable(end, Waker::noop()).unwrap());
        }
        // Where nobody synchronises, time is up.
        let (_store, _topic, partition) = with_full_segments(1);
        let end = partition.watermarks().log_end();
        partition.hasten();
        partition.asked_within_ms.store(0, Ordering::SeqCst);
        assert!(!partition.wait_durable_until(end, Instant::now()).unwrap());
    }

    /// A task does not synchronise on the thread that polls it, and nobody else asks for a sync.
    #[test]
    fn a_task_that_waits_has_it_made_durable_in_the_background_and_is_woken() {
        let builder = Store::builder_temporary().durability(Durability::Buffered);
        let store = builder.checkpoint_interval(Duration::from_secs(3600)).open().unwrap();
        let topic = store.create_topic("t", TopicConfig::new()).unwrap();
        let partition = topic.state.open_partition(0).unwrap();
        let (sender, woken) = mpsc::channel();
        let waker = Waker::from(Arc::new(Told(sender)));
        store.producer().send(&topic, Record::new("a")).unwrap();
        assert!(!partition.poll_durable(1, &waker).unwrap());
        woken.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(partition.poll_durable(1, &waker).unwrap());
        assert_eq!(partition.watermarks().durable_end(), 1);
    }

    /// A seal panicked: nobody knows what of the segment is on the disk.
    #[test]
    fn a_seal_that_panics_latches_its_log() {
        let (store, _topic, partition) = with_full_segments(2);
        let script = store.topics_for_test().disk_for_test();
        script.script().during_syncs(Some(Meanwhile(Arc::new(|_: &Path| panic!("in the sync")))));
        let end = partition.watermarks().log_end();
        let sealing = std::panic::AssertUnwindSafe(|| partition.wait_durable(end));
        assert!(std::panic::catch_unwind(sealing).is_err());
        script.script().during_syncs(None);
        match partition.wait_durable(end) {
            Err(Error::Latched { reason, .. }) => {
                assert!(reason.contains("sealing a segment panicked"), "{reason}")
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(partition.watermarks().durable_end(), 0);
    }

    struct Told(mpsc::Sender<()>);

    impl std::task::Wake for Told {
        fn wake(self: Arc<Self>) {
            // Nobody listens any more where the test has failed.
            self.0.send(()).unwrap_or_default();
        }
    }

    struct Count(AtomicU64);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}
