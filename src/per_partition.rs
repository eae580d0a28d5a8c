//! What a producer keeps for each partition it sends to, found by topic and number without a lock.
//!
//! A table only grows while its topic lives, and what is in it never moves, so that a look-up is a few loads:
//! the topic's place among the first few, the partition's place in its chunk. Topics beyond the first few
//! cost a shared lock.

use std::array;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::Weak;

use parking_lot::Mutex;
use parking_lot::MutexGuard;
use parking_lot::RwLock;

use crate::error::Result;
use crate::topic_state::TopicState;

/// One `T` for each partition.
#[derive(Debug)]
pub(crate) struct PerPartition<T> {
    /// The first few topics, found without a lock.
    first: [OnceLock<OfTopic<T>>; FIRST_COUNT],
    /// All others, by the topic's address. Held for one look or one change.
    others: RwLock<HashMap<usize, Arc<OfTopic<T>>>>,
    /// Lock rank 1: entries are made one at a time.
    making: Mutex<()>,
}

/// One topic's entries. Weak: a deleted topic is let go.
#[derive(Debug)]
struct OfTopic<T> {
    topic: Weak<TopicState>,
    /// Chunk n has room for 2ⁿ partitions, from number 2ⁿ − 1 on, so that an entry never moves.
    chunks: [OnceLock<Chunk<T>>; CHUNK_COUNT],
}

type Chunk<T> = Box<[OnceLock<Arc<T>>]>;

impl<T> PerPartition<T> {
    pub(crate) fn new() -> PerPartition<T> {
        PerPartition {
            first: array::from_fn(|_| OnceLock::new()),
            others: RwLock::default(),
            making: Mutex::default(),
        }
    }

    /// Gives the entry of a partition if it is one of the first topics'.
    #[inline]
    pub(crate) fn get(&self, topic: &Arc<TopicState>, number: u32) -> Option<&Arc<T>> {
        self.first_of(topic)?.entry(number)
    }

    /// Gives the entry of a partition if there is one.
    pub(crate) fn find(&self, topic: &Arc<TopicState>, number: u32) -> Option<Arc<T>> {
        if let Some(entries) = self.first_of(topic) {
            return entries.entry(number).cloned();
        }
        let others = self.others.read();
        others.get(&address(topic)).and_then(|entries| entries.entry(number)).cloned()
    }

    /// Gives the entry of a partition, making it if need be, one at a time. What is kept of topics that
    /// `is_over` tells of is let go.
    ///
    /// # Errors
    ///
    /// * What `make` says; then there is no entry.
    pub(crate) fn find_or_make(
        &self,
        topic: &Arc<TopicState>,
        number: u32,
        make: impl FnOnce() -> Result<T>,
        is_over: impl Fn(&Weak<TopicState>) -> bool,
    ) -> Result<Arc<T>> {
        if let Some(found) = self.find(topic, number) {
            return Ok(found);
        }
        let _making = self.making.lock();
        if let Some(found) = self.find(topic, number) {
            return Ok(found);
        }
        let made = Arc::new(make()?);
        if let Some(entries) = self.first_of(topic) {
            return Ok(Arc::clone(entries.put(number, made)));
        }
        if let Some(free) = self.first.iter().find(|slot| slot.get().is_none()) {
            return Ok(Arc::clone(free.get_or_init(|| OfTopic::new(topic)).put(number, made)));
        }
        let mut others = self.others.write();
        others.retain(|_, entries| !is_over(&entries.topic));
        let entries = others.entry(address(topic)).or_insert_with(|| Arc::new(OfTopic::new(topic)));
        Ok(Arc::clone(entries.put(number, made)))
    }

    /// Lets nobody make an entry for so long.
    pub(crate) fn hold(&self) -> MutexGuard<'_, ()> {
        self.making.lock()
    }

    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        let first = self.first.iter().map_while(OnceLock::get);
        let mut all: Vec<_> = first.flat_map(OfTopic::all).cloned().collect();
        for entries in self.others.read().values() {
            all.extend(entries.all().cloned());
        }
        all
    }

    #[inline]
    fn first_of(&self, topic: &Arc<TopicState>) -> Option<&OfTopic<T>> {
        self.first.iter().map_while(OnceLock::get).find(|entries| entries.are_of(topic))
    }
}

impl<T> OfTopic<T> {
    fn new(topic: &Arc<TopicState>) -> OfTopic<T> {
        OfTopic { topic: Arc::downgrade(topic), chunks: array::from_fn(|_| OnceLock::new()) }
    }

    #[inline]
    fn are_of(&self, topic: &Arc<TopicState>) -> bool {
        // The weak reference keeps the address from being used again.
        std::ptr::eq(self.topic.as_ptr(), Arc::as_ptr(topic))
    }

    #[inline]
    fn entry(&self, number: u32) -> Option<&Arc<T>> {
        let (chunk, index) = place(number);
        self.chunks[chunk].get()?.get(index)?.get()
    }

    fn put(&self, number: u32, made: Arc<T>) -> &Arc<T> {
        let (chunk, index) = place(number);
        let entries = self.chunks[chunk]
            .get_or_init(|| (0..1_usize << chunk).map(|_| OnceLock::new()).collect());
        entries[index].get_or_init(|| made)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<T>> {
        let chunks = self.chunks.iter().filter_map(OnceLock::get);
        chunks.flat_map(|entries| entries.iter().filter_map(OnceLock::get))
    }
}

fn address(topic: &Arc<TopicState>) -> usize {
    Arc::as_ptr(topic) as usize
}

/// Gives the chunk and the index within it that a partition has.
#[inline]
fn place(number: u32) -> (usize, usize) {
    let nth = u64::from(number) + 1;
    let chunk = nth.ilog2();
    (chunk as usize, (nth - (1 << chunk)) as usize)
}

const FIRST_COUNT: usize = 4;
/// Enough for every number of a partition.
const CHUNK_COUNT: usize = 33;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::Store;
    use crate::TopicConfig;

    #[test]
    fn every_partition_has_a_place_of_its_own() {
        let mut before = (0, 0);
        assert_eq!(place(0), before);
        for number in 1..100_000 {
            let (chunk, index) = place(number);
            let is_next = (chunk, index) == (before.0, before.1 + 1)
                || (chunk, index) == (before.0 + 1, 0) && before.1 == (1 << before.0) - 1;
            assert!(is_next, "{number}");
            before = (chunk, index);
        }
        assert_eq!(place(u32::MAX).0, CHUNK_COUNT - 1);
    }

    #[test]
    fn each_partition_of_each_topic_has_one_entry() {
        let store = Store::temporary().unwrap();
        let table = PerPartition::new();
        let topics: Vec<_> = (0..7)
            .map(|n| {
                store.create_topic(&format!("t{n}"), TopicConfig::new().partitions(5)).unwrap()
            })
            .collect();
        for (n, topic) in topics.iter().enumerate() {
            for number in 0..5 {
                let refused = || Err(Error::Closed);
                assert!(table.find_or_make(&topic.state, number, refused, |_| false).is_err());
                assert!(table.find(&topic.state, number).is_none());
                let make = || Ok((n, number));
                table.find_or_make(&topic.state, number, make, |_| false).unwrap();
                // Made once only.
                let again = table.find_or_make(&topic.state, number, refused, |_| false);
                assert_eq!(*again.unwrap(), (n, number));
                assert_eq!(table.get(&topic.state, number).is_some(), n < FIRST_COUNT);
            }
        }
        assert_eq!(table.all().len(), 35);
        // What is over goes when the next one comes, but for the first few.
        let late = store.create_topic("late", TopicConfig::new()).unwrap();
        table.find_or_make(&late.state, 0, || Ok((9, 9)), |_| true).unwrap();
        assert_eq!(table.all().len(), FIRST_COUNT * 5 + 1);
    }
}
