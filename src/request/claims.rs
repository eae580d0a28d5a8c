//! Which identities and reply partitions the requesters of a store have.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::storage::catalog::TopicId;

/// What the live requesters of one store have claimed. Lock rank 9: one look, one entry.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// How many have their replies sent to a partition.
    partitions: HashMap<(TopicId, u32), usize>,
    identities: HashSet<Arc<str>>,
}

/// An identity that no other live requester of the store has; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct IdentityClaim {
    claims: Arc<Claims>,
    identity: Arc<str>,
}

/// A share in a partition, which may be the only one; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct PartitionClaim {
    claims: Arc<Claims>,
    topic: TopicId,
    pub(crate) partition: u32,
}

/// Whether a partition that others have is taken as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Company {
    Shares,
    Alone,
}

impl Claims {
    /// Claims an identity; `None` if a live requester has it.
    pub(crate) fn identity(self: &Arc<Self>, identity: &str) -> Option<IdentityClaim> {
        let identity: Arc<str> = identity.into();
        let is_new = self.taken.lock().identities.insert(Arc::clone(&identity));
        is_new.then(|| IdentityClaim { claims: Arc::clone(self), identity })
    }

    /// Claims a partition, whoever else has it.
    pub(crate) fn partition(self: &Arc<Self>, topic: TopicId, partition: u32) -> PartitionClaim {
        *self.taken.lock().partitions.entry((topic, partition)).or_default() += 1;
        PartitionClaim { claims: Arc::clone(self), topic, partition }
    }

    /// Claims that of the first `count` partitions which the fewest have.
    pub(crate) fn quietest(
        self: &Arc<Self>,
        topic: TopicId,
        count: u32,
        company: Company,
    ) -> Option<PartitionClaim> {
        let mut taken = self.taken.lock();
        let count_of = |partition| taken.partitions.get(&(topic, partition)).copied().unwrap_or(0);
        let partition = (0..count).min_by_key(|partition| count_of(*partition))?;
        if company == Company::Alone && count_of(partition) > 0 {
            return None;
        }
        *taken.partitions.entry((topic, partition)).or_default() += 1;
        Some(PartitionClaim { claims: Arc::clone(self), topic, partition })
    }
}

impl Drop for IdentityClaim {
    fn drop(&mut self) {
        self.claims.taken.lock().identities.remove(&self.identity);
    }
}

impl Drop for PartitionClaim {
    fn drop(&mut self) {
        let mut taken = self.claims.taken.lock();
        let key = (self.topic, self.partition);
        if let Some(count) = taken.partitions.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                taken.partitions.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_shared_only_when_none_is_free_and_everything_is_given_back() {
        let claims = Arc::new(Claims::default());
        let topic = TopicId::from_random([1; 16]).unwrap();
        let first = claims.partition(topic, 1);
        let second = claims.quietest(topic, 2, Company::Alone).unwrap();
        assert_eq!((first.partition, second.partition), (1, 0));
        assert!(claims.quietest(topic, 2, Company::Alone).is_none());
        let third = claims.quietest(topic, 2, Company::Shares).unwrap();
        assert_eq!(third.partition, 0);
        drop(first);
        assert_eq!(claims.quietest(topic, 2, Company::Alone).unwrap().partition, 1);
        drop((second, third));
        let desk = claims.identity("desk").unwrap();
        assert!(claims.identity("desk").is_none());
        drop(desk);
        assert!(claims.identity("desk").is_some());
        let taken = claims.taken.lock();
        assert!(taken.partitions.is_empty() && taken.identities.is_empty());
    }
}
