//! Linger: one producer's records gather in stages, one for each partition, and are appended batch by batch.
//!
//! All clones of a producer share one accumulator. A batch is sealed when it is full, when its time is up, when
//! somebody waits for one of its deliveries, when the memory is needed, at a flush, at a close, and when the last
//! clone is dropped. It is appended by the thread that sealed it; by the background thread if its time was up.
//!
//! **Invariant (nothing left behind).** What was staged is appended, or refused with an error, before a close
//! returns: closing sets a flag and then takes every stage's lock, staging takes that lock and then looks at the
//! flag; and stages are made under a lock under which the flag is set.

use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use crate::appender::Appender;
use crate::buffer_pool::BufferPool;
use crate::delivery::Delivery;
use crate::error::Error;
use crate::error::Result;
use crate::name;
use crate::partitioner;
use crate::per_partition::PerPartition;
use crate::producer_config::Staging;
use crate::record::Record;
use crate::stage::Patience;
use crate::stage::Pushed;
use crate::stage::Stage;
use crate::stage_context::StageContext;
use crate::topic_state::TopicState;
use crate::topics::Topics;

/// One producer's stages.
#[derive(Debug)]
pub(crate) struct Accumulator {
    context: Arc<StageContext<Stage>>,
    stages: PerPartition<Stage>,
    max_block: Duration,
}

/// Every accumulator of a store, so that a close finds what was staged.
#[derive(Debug, Default)]
pub(crate) struct Accumulators {
    /// Lock rank 1.
    registered: Mutex<Registered>,
}

#[derive(Debug, Default)]
struct Registered {
    is_closed: bool,
    list: Vec<Weak<Accumulator>>,
    /// The list's length at which to look for those that are gone.
    prune_at: usize,
}

impl Accumulator {
    pub(crate) fn new(
        topics: Arc<Topics>,
        appender: Arc<Appender>,
        staging: Staging,
    ) -> Accumulator {
        let Staging { linger, batch_bytes, buffer_memory, max_block } = staging;
        let batch_len_max = batch_bytes.min(buffer_memory);
        let pool = Arc::new(BufferPool::new(buffer_memory, batch_len_max));
        let context = StageContext::new(topics, appender, pool, linger, batch_len_max);
        Accumulator { context: Arc::new(context), stages: PerPartition::new(), max_block }
    }

    /// Stages a record. Waits for memory, if there is none, as long as `patience` says.
    #[inline]
    pub(crate) fn send(
        &self,
        topic: &Arc<TopicState>,
        record: &Record<'_>,
        patience: Patience,
    ) -> Result<Delivery> {
        record.fetch_value();
        let count = topic.partition_count();
        let number = partitioner::partition_for(record, count, &topic.sticky);
        let now_ms = self.context.topics().clock().recent_ms();
        if let Some(stage) = self.stages.get(topic, number) {
            if let Some(staged) = stage.push_into_open(topic, record, now_ms) {
                return Ok(Delivery::staged(staged));
            }
            return self.push(stage, topic, record, now_ms, patience);
        }
        let stage = self.find_or_make(topic, number)?;
        self.push(&stage, topic, record, now_ms, patience)
    }

    #[cold]
    fn push(
        &self,
        stage: &Arc<Stage>,
        topic: &Arc<TopicState>,
        record: &Record<'_>,
        now_ms: i64,
        patience: Patience,
    ) -> Result<Delivery> {
        let mut begun = None;
        loop {
            match stage.push(topic, record, now_ms)? {
                Pushed::Staged(staged) => return Ok(Delivery::staged(staged)),
                Pushed::Opened(staged, call_at) => {
                    if let Some(at) = call_at {
                        stage.call_at(at);
                    }
                    stage.append_sealed(patience);
                    return Ok(Delivery::staged(staged));
                }
                Pushed::NoRoom(len) => {
                    let begun = *begun.get_or_insert_with(Instant::now);
                    self.make_room(stage, len, begun, patience)?;
                }
            }
        }
    }

    /// Appends something that takes memory, or, where all of that is being appended by others, waits for one of
    /// them.
    #[cold]
    fn make_room(
        &self,
        stage: &Arc<Stage>,
        len: usize,
        begun: Instant,
        patience: Patience,
    ) -> Result<()> {
        if stage.append_sealed(Patience::DoesNotWait) {
            return Ok(());
        }
        while let Some((at, oldest)) = self.context.take_first() {
            if oldest.seal_listed(at) {
                oldest.append_sealed(Patience::DoesNotWait);
                return Ok(());
            }
        }
        let max_block = match patience {
            Patience::Waits => self.max_block,
            Patience::DoesNotWait => Duration::ZERO,
        };
        let pool = self.context.pool();
        if max_block.is_zero() || !pool.wait_for(len, begun + max_block) {
            let blocked = if max_block.is_zero() { Duration::ZERO } else { begun.elapsed() };
            return Err(Error::BufferFull { limit: pool.limit(), blocked });
        }
        Ok(())
    }

    /// Appends what is staged for one partition, so that what is appended there next comes behind it.
    pub(crate) fn flush_partition(&self, topic: &Arc<TopicState>, number: u32) {
        if let Some(stage) = self.stages.find(topic, number) {
            stage.flush();
        }
    }

    /// Appends everything that was staged before.
    pub(crate) fn flush(&self) {
        for stage in self.stages.all() {
            stage.flush();
        }
    }

    /// Appends everything, and lets nothing be staged any more.
    ///
    /// # Errors
    ///
    /// * What the log refused, unless a flush has reported it.
    pub(crate) fn close(&self) -> Result<()> {
        {
            let _held = self.stages.hold();
            self.context.mark_closed();
        }
        self.flush();
        self.context.pool().wake_all();
        self.context.failure_untold().map_or(Ok(()), Err)
    }

    /// Gives what the log refused behind the first `known` failures, and how many there are now.
    pub(crate) fn failure_since(&self, known: u64) -> Option<(u64, Error)> {
        self.context.failure_since(known)
    }

    #[cold]
    fn find_or_make(&self, topic: &Arc<TopicState>, number: u32) -> Result<Arc<Stage>> {
        let make = || {
            name::refuse_internal(topic.name.as_str())?;
            let partition = topic.open_partition(number)?;
            self.context.refuse_if_closed()?;
            Ok(Stage::new(Arc::clone(&self.context), topic, &partition, number))
        };
        // A staged batch keeps its topic: where there is no topic, nothing is staged either.
        self.stages.find_or_make(topic, number, make, |topic| topic.strong_count() == 0)
    }
}

impl Accumulators {
    /// Makes an accumulator one of those that a close finds; after the close it takes nothing.
    pub(crate) fn register(&self, accumulator: &Arc<Accumulator>) {
        let mut registered = self.registered.lock();
        if registered.is_closed {
            drop(registered);
            // It is empty, so there is nothing that could have been refused.
            accumulator.close().unwrap_or_default();
            return;
        }
        if registered.list.len() >= registered.prune_at {
            registered.list.retain(|other| other.strong_count() > 0);
            registered.prune_at = 2 * registered.list.len() + PRUNE_AT_MIN;
        }
        registered.list.push(Arc::downgrade(accumulator));
    }

    /// Appends everything that any producer has staged.
    pub(crate) fn flush(&self) {
        for accumulator in self.all() {
            accumulator.flush();
        }
    }

    /// Closes all, for good.
    ///
    /// # Errors
    ///
    /// * The first thing that the log refused and no flush has reported.
    pub(crate) fn close(&self) -> Result<()> {
        self.registered.lock().is_closed = true;
        let mut first_error = None;
        for accumulator in self.all() {
            if let Err(error) = accumulator.close() {
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    fn all(&self) -> Vec<Arc<Accumulator>> {
        self.registered.lock().list.iter().filter_map(Weak::upgrade).collect()
    }
}

const PRUNE_AT_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Durability;
    use crate::Record;
    use crate::Store;
    use crate::TopicConfig;
    use std::thread;

    /// A store whose producers of four batches of 1 KiB stage for as long as nobody asks.
    fn accumulator_of(store: &Store, max_block: Duration) -> (Arc<Accumulator>, Arc<TopicState>) {
        let topics = store.topics_for_test();
        let topic = store.topic_or_create("t", TopicConfig::new().partitions(3)).unwrap();
        let appender =
            Arc::new(Appender::new(Durability::Buffered, Duration::from_secs(3600), None));
        let linger = Duration::from_secs(3600);
        let staging = Staging { linger, batch_bytes: 1024, buffer_memory: 4096, max_block };
        let accumulator = Arc::new(Accumulator::new(Arc::clone(topics), appender, staging));
        (accumulator, Arc::clone(&topic.state))
    }

    #[test]
    fn where_others_hold_all_memory_a_send_waits_so_long_and_no_longer() {
        let store = Store::temporary().unwrap();
        let (accumulator, topic) = accumulator_of(&store, Duration::from_millis(30));
        let pool = accumulator.context.pool();
        let record = Record::new("v");
        // As if other threads were appending all of it.
        let held: Vec<_> = std::iter::from_fn(|| pool.take(0)).collect();
        assert_eq!(held.len(), 4);
        let refused = accumulator.send(&topic, &record, Patience::DoesNotWait).unwrap_err();
        assert!(refused.is_retriable());
        assert_eq!(refused.kafka_code(), Some(7));
        assert_eq!(
            refused.to_string(),
            "the producer's buffer of 4096 bytes (buffer.memory) is full"
        );
        let begun = Instant::now();
        let refused = accumulator.send(&topic, &record, Patience::Waits).unwrap_err();
        let Error::BufferFull { limit: 4096, blocked } = refused else { panic!("{refused}") };
        assert!(blocked >= Duration::from_millis(30) && blocked <= begun.elapsed());
        assert!(refused.to_string().ends_with(" ms (max.block.ms)"), "{refused}");

        drop(held);
        accumulator.send(&topic, &record, Patience::DoesNotWait).unwrap();
        accumulator.flush();
        let end = topic.open_partition(0).unwrap().watermarks().log_end();
        assert_eq!(end, 1, "what was refused was not staged");
    }

    #[test]
    fn memory_that_comes_free_ends_the_wait() {
        let store = Store::temporary().unwrap();
        let (accumulator, topic) = accumulator_of(&store, Duration::from_secs(3600));
        let pool = accumulator.context.pool();
        let mut held: Vec<_> = std::iter::from_fn(|| pool.take(0)).collect();
        thread::scope(|scope| {
            let sender = scope.spawn(|| {
                accumulator.send(&topic, &Record::new("v"), Patience::Waits).unwrap().wait()
            });
            // Most likely it waits by now; nothing depends on it.
            thread::sleep(Duration::from_millis(20));
            held.pop();
            assert_eq!(sender.join().unwrap().unwrap().offset(), 0);
        });
    }

    #[test]
    fn a_close_ends_the_wait_for_memory() {
        let store = Store::temporary().unwrap();
        let (accumulator, topic) = accumulator_of(&store, Duration::from_secs(3600));
        let pool = accumulator.context.pool();
        let held: Vec<_> = std::iter::from_fn(|| pool.take(0)).collect();
        let record = Record::new("v");
        thread::scope(|scope| {
            let sender =
                scope.spawn(|| accumulator.send(&topic, &record, Patience::Waits).map(|_| ()));
            thread::sleep(Duration::from_millis(20));
            accumulator.close().unwrap();
            assert!(matches!(sender.join().unwrap(), Err(Error::Closed)));
        });
        drop(held);
    }
}
