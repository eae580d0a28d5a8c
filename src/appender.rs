//! From an encoded batch to the log, at one producer's level of durability; and what a flush has to wait for.
//!
//! Inline sends and staged batches come through here alike.

use std::cell::Cell;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::Durability;
use crate::config::LogConfig;
use crate::config::Packing;
use crate::config::TimestampType;
use crate::error::Error;
use crate::error::Result;
use crate::format::compression::Codec;
use crate::format::compression::Packer;
use crate::format::encode::BatchBuilder;
use crate::format::encode::EncodedBatch;
use crate::partition::Appended;
use crate::partition::Partition;
use crate::record::Record;
use crate::storage::map::Door;
use crate::topic_state::TopicState;

/// Appends at one producer's level.
#[derive(Debug)]
pub(crate) struct Appender {
    durability: Durability,
    /// An append is on stable storage this much later even if nobody waits for it.
    sync_within: Duration,
    /// How batches are compressed where the topic does not say.
    packing: Option<Packing>,
    /// What `flush` has to wait for: partitions that got records, and up to where. An entry leaves only
    /// once that is durable, so that every flush waits for everything sent before it.
    touched: Mutex<Vec<Touched>>,
}

#[derive(Clone, Debug)]
struct Touched {
    partition: Arc<Partition>,
    end: i64,
}

impl Appender {
    pub(crate) fn new(
        durability: Durability,
        sync_within: Duration,
        packing: Option<Packing>,
    ) -> Appender {
        Appender { durability, sync_within, packing, touched: Mutex::default() }
    }

    /// Compresses a batch that is about to be sealed, if the topic or else the producer wants that and it becomes
    /// shorter by it. Runs before any lock is taken.
    #[inline]
    pub(crate) fn pack(&self, of_topic: Option<Packing>, batch: &mut BatchBuilder) {
        if let Some(packing) = of_topic.or(self.packing) {
            if let Some(codec) = Codec::chosen(packing.compression) {
                pack(batch, codec, packing.level);
            }
        }
    }

    /// Tells whether [`pack`](Self::pack) would try.
    pub(crate) fn packs(&self, of_topic: Option<Packing>) -> bool {
        let packing = of_topic.or(self.packing);
        packing.is_some_and(|packing| Codec::chosen(packing.compression).is_some())
    }

    /// Appends a batch; blocks as the partition's own append does.
    ///
    /// # Errors
    ///
    /// * As [`Partition::append`], and [`Error::TopicDeleted`] where that is the cause.
    #[inline]
    pub(crate) fn append(
        &self,
        topic: &TopicState,
        partition: &Arc<Partition>,
        batch: &mut EncodedBatch<'_>,
    ) -> Result<Appended, Box<Error>> {
        let waits_for_sync = self.waits_for_sync();
        let door = match (waits_for_sync, batch.len() >= STORE_LEN_MAX) {
            // A page that was stored to costs far more to synchronise than one that was written.
            (true, _) => Door::Write,
            // Space is made ready by another processor, and only that makes it worth while.
            (false, true) if has_more_than_one_processor() => Door::Either,
            (false, true) => Door::Write,
            (false, false) => Door::Store,
        };
        let appended = partition
            .append(batch, door, self.sync_within)
            .or_else(|error| self.relieved(error, partition, batch, door))
            .map_err(|error| topic.refuse_if_deleted().err().map_or(error, Box::new))?;
        if waits_for_sync {
            self.touch(partition, appended.offsets.end);
        }
        Ok(appended)
    }

    /// Appends a batch for which the store had no room, once there is some.
    #[cold]
    fn relieved(
        &self,
        refusal: Box<Error>,
        partition: &Arc<Partition>,
        batch: &mut EncodedBatch<'_>,
        door: Door,
    ) -> Result<Appended, Box<Error>> {
        let mut refusal = refusal;
        for _ in 0..RELIEFS_MAX {
            if !matches!(*refusal, Error::StoreFull { .. }) {
                break;
            }
            partition.relieve(batch.len()).map_err(Box::new)?;
            match partition.append(batch, door, self.sync_within) {
                Err(again) => refusal = again,
                appended => return appended,
            }
        }
        Err(refusal)
    }

    /// Waits until everything that was appended is as durable as the level promises.
    ///
    /// # Errors
    ///
    /// * [`Error::Latched`] if a sync failed; the other partitions were synchronised all the same.
    pub(crate) fn wait_durable(&self) -> Result<()> {
        let touched = self.touched.lock().clone();
        let mut first_error = None;
        // The syncs overlap: this thread leads the first, the background has begun the others.
        touched.iter().skip(1).for_each(|other| other.partition.hasten());
        for Touched { partition, end } in &touched {
            if let Err(error) = partition.wait_durable(*end) {
                if !partition.is_deleted() {
                    first_error.get_or_insert(error);
                }
            }
            let is_settled =
                |other: &Touched| Arc::ptr_eq(&other.partition, partition) && other.end <= *end;
            self.touched.lock().retain(|other| !is_settled(other));
        }
        first_error.map_or(Ok(()), Err)
    }

    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    /// Tells whether the level promises more than what holds once an append has returned.
    #[inline]
    pub(crate) fn waits_for_sync(&self) -> bool {
        self.durability == Durability::Synced
    }

    fn touch(&self, partition: &Arc<Partition>, end: i64) {
        let mut touched = self.touched.lock();
        match touched.iter_mut().find(|known| Arc::ptr_eq(&known.partition, partition)) {
            Some(known) => known.end = known.end.max(end),
            None => touched.push(Touched { partition: Arc::clone(partition), end }),
        }
    }
}

#[inline(never)]
fn pack(batch: &mut BatchBuilder, codec: Codec, level: i32) {
    let mut packer = PACKER.try_with(Cell::take).ok().flatten().unwrap_or_default();
    batch.pack(&mut packer, codec, level);
    // A thread that is ending has no slot any more; then the tables go too.
    PACKER.try_with(|slot| slot.set(Some(packer))).unwrap_or_default();
}

thread_local! {
    /// The tables of the codecs that the thread has used.
    static PACKER: Cell<Option<Box<Packer>>> = const { Cell::new(None) };
}

/// How often room is made for one batch: others may take what was made.
const RELIEFS_MAX: u32 = 8;

/// From this size on, one `write` is faster than faulting the pages in one by one, where nobody has done so.
const STORE_LEN_MAX: usize = 4 << 10;

fn has_more_than_one_processor() -> bool {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| thread::available_parallelism().map_or(1, NonZero::get)) > 1
}

/// Gives the timestamp that a record is to carry, by the topic's rules.
///
/// # Errors
///
/// * [`Error::InvalidRecord`] if the topic is compacted and the key is null.
/// * [`Error::InvalidTimestamp`] if it is negative or outside what the topic accepts.
#[inline]
pub(crate) fn accepted_timestamp(
    record: &Record<'_>,
    config: &LogConfig,
    now_ms: i64,
) -> Result<i64> {
    if record.timestamp_ms.is_none() && !config.key_required {
        return Ok(now_ms);
    }
    judged_timestamp(record, config, now_ms)
}

fn judged_timestamp(record: &Record<'_>, config: &LogConfig, now_ms: i64) -> Result<i64> {
    if config.key_required && record.key.is_none() {
        return Err(Error::InvalidRecord { reason: "a compacted topic needs a key" });
    }
    let Some(timestamp) = record.timestamp_ms else {
        return Ok(now_ms);
    };
    let refuse = |reason| Err(Error::InvalidTimestamp { timestamp, reason });
    if timestamp < 0 {
        return refuse("it is negative");
    }
    if config.timestamp_type == TimestampType::LogAppendTime {
        return Ok(now_ms);
    }
    if timestamp < now_ms.saturating_sub(config.timestamp_before_max_ms) {
        return refuse("it is older than message.timestamp.before.max.ms allows");
    }
    if timestamp > now_ms.saturating_add(config.timestamp_after_max_ms) {
        return refuse("it is further in the future than message.timestamp.after.max.ms allows");
    }
    Ok(timestamp)
}
