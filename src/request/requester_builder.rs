//! Setting up a requester: where its replies go, who it is, how much may be in flight.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use crate::assignment::Isolation;
use crate::config::Durability;
use crate::config::TopicConfig;
use crate::consumer_builder::ConsumerBuilder;
use crate::coordinator;
use crate::coordinator::Coordinator;
use crate::error::Error;
use crate::error::Result;
use crate::partition::Partition;
use crate::producer::ProducerBuilder;
use crate::request::claims::Claims;
use crate::request::claims::Company;
use crate::request::claims::IdentityClaim;
use crate::request::claims::PartitionClaim;
use crate::request::inbox::Inbox;
use crate::request::inbox::Opening;
use crate::request::names::ReplyHeaders;
use crate::request::requester;
use crate::request::requester::Identity;
use crate::request::requester::Requester;
use crate::request::requester::RequesterState;
use crate::topic::KeepOpen;
use crate::topic::Topic;
use crate::topic_state::TopicState;
use crate::topics::Topics;

/// Sets up a [`Requester`].
///
/// ```
/// use std::time::Duration;
/// use ottla::{Durability, Store, TopicConfig};
///
/// let store = Store::temporary()?;
/// let questions = store.create_topic("questions", TopicConfig::new())?;
/// let answers = store.create_topic("answers", TopicConfig::new().partitions(4))?;
/// let requester = store
///     .requester(&questions)
///     .replies(&answers)
///     .durability(Durability::Buffered)
///     .max_in_flight(1_000)
///     .max_block(Duration::from_secs(1))
///     .build()?;
/// assert_eq!(requester.reply_partition().to_string(), "answers-0");
/// # Ok::<(), ottla::Error>(())
/// ```
#[must_use]
pub struct RequesterBuilder {
    coordinator: Arc<Coordinator>,
    keep_open: KeepOpen,
    claims: Arc<Claims>,
    producer: ProducerBuilder,
    consumer: ConsumerBuilder,
    requests: Topic,
    replies: Option<Topic>,
    partition: Option<u32>,
    identity: Option<Arc<str>>,
    names: ReplyHeaders,
    in_flight_max: usize,
    max_block: Duration,
    spin: Duration,
}

impl RequesterBuilder {
    pub(crate) fn new(
        coordinator: Arc<Coordinator>,
        keep_open: KeepOpen,
        claims: Arc<Claims>,
        producer: ProducerBuilder,
        consumer: ConsumerBuilder,
        requests: &Topic,
    ) -> RequesterBuilder {
        RequesterBuilder {
            coordinator,
            keep_open,
            claims,
            producer,
            consumer,
            requests: requests.clone(),
            replies: None,
            partition: None,
            identity: None,
            names: ReplyHeaders::default(),
            in_flight_max: 65_536,
            max_block: Duration::ZERO,
            spin: Duration::from_micros(20),
        }
    }

    /// Sets the topic that replies go to. Several requesters may share one: each takes a partition that no other live
    /// requester has, as long as there are such, and reads no other requester's replies then. Where they share a
    /// partition, each passes over what is the others'.
    ///
    /// Without it, it is the topic named like that of the requests with `.replies` behind, which is created if need
    /// be, and gets another partition whenever all of its (up to 64) are taken.
    pub fn replies(mut self, topic: &Topic) -> RequesterBuilder {
        self.replies = Some(topic.clone());
        self
    }

    /// Sets the partition that replies go to, whoever else has it.
    pub fn reply_partition(mut self, partition: u32) -> RequesterBuilder {
        self.partition = Some(partition);
        self
    }

    /// Gives the requester a name, under which it can come back after a restart and [resume](Requester::resume) the
    /// replies that arrived meanwhile. One live requester of a store has it at a time.
    ///
    /// How far it has come is kept as what the consumer group of this name has committed of the reply partition; so
    /// the name must not be that of a group with members. It comes back to the same partition.
    pub fn identity(mut self, identity: &str) -> RequesterBuilder {
        self.identity = Some(identity.into());
        self
    }

    /// Sets the names of the headers.
    pub fn headers(mut self, names: ReplyHeaders) -> RequesterBuilder {
        self.names = names;
        self
    }

    /// Sets when a reply counts; without it, the store's level. Under [`Durability::Synced`] it is when request and
    /// reply are on stable storage.
    pub fn durability(mut self, durability: Durability) -> RequesterBuilder {
        self.producer = self.producer.durability(durability);
        self
    }

    /// Sets how many requests may be in flight; default 65,536, at least 1.
    pub fn max_in_flight(mut self, requests: usize) -> RequesterBuilder {
        self.in_flight_max = requests.max(1);
        self
    }

    /// Sets how long a request waits for room while so many are in flight; by default it is refused at once
    /// ([`Error::TooManyRequests`]).
    pub fn max_block(mut self, max_block: Duration) -> RequesterBuilder {
        self.max_block = max_block;
        self
    }

    /// Sets how long a thread that waits for a reply stays awake for it before it sleeps; default 20 µs, 0 sleeps at
    /// once. One thread at a time does so, and not for long where it is of no use, see
    /// [`ConsumerBuilder::spin`](crate::ConsumerBuilder::spin).
    pub fn spin(mut self, spin: Duration) -> RequesterBuilder {
        self.spin = spin;
        self
    }

    /// Makes the requester. From now on no reply is missed: where replies begin is settled before anything is sent.
    ///
    /// With an identity this puts on record that a new life begins, and is durable on return.
    ///
    /// # Errors
    ///
    /// * [`Error::RequesterInUse`]; [`Error::InvalidGroup`] if the identity is no name for a group;
    ///   [`Error::CommitRefused`] if it is that of a group with members.
    /// * [`Error::InvalidArgument`] if a topic is of another store, or both are the same.
    /// * [`Error::UnknownPartition`]; [`Error::InvalidTopic`] if the name of the topic for replies would be too long.
    /// * [`Error::TopicDeleted`], [`Error::Unavailable`], [`Error::ReadOnly`], [`Error::Closed`], [`Error::OutOfSpace`],
    ///   [`Error::Io`].
    pub fn build(self) -> Result<Requester> {
        let topics = Arc::clone(self.coordinator.topics());
        topics.refuse_writing("make a requester")?;
        self.check(&topics)?;
        let replies = match &self.replies {
            Some(topic) => topic.clone(),
            None => self.default_replies(&topics)?,
        };
        replies.state.refuse_if_deleted()?;
        let identity_claim = self.claim_identity()?;
        let known = self.known_of(&replies)?;
        let claim = self.claim_partition(&topics, &replies, known.map(|(number, ..)| number))?;
        let partition: Arc<Partition> = replies.state.open_partition(claim.partition)?;
        let life = known.map_or(1, |(_, _, life)| life + 1);
        let author = requester::author(self.identity.as_deref().map(|identity| (identity, life)));
        let producer = self.producer.build();
        let isolation = match producer.durability() {
            Durability::Synced => Isolation::Durable,
            _ => Isolation::ReadUncommitted,
        };
        let inbox = Inbox::open(Opening {
            topics: Arc::clone(&topics),
            requests: Arc::clone(&self.requests.state),
            replies: Arc::clone(&replies.state),
            partition: Arc::clone(&partition),
            number: claim.partition,
            isolation,
            author,
            names: self.names,
            in_flight_max: self.in_flight_max,
            spin: self.spin,
        });
        let source = replies.partition(claim.partition)?;
        let identity = identity_claim.map(|claim| Identity {
            coordinator: self.coordinator,
            name: self.identity.unwrap_or_default(),
            life,
            // What is on record may be of another partition; then there is nothing to resume here.
            resumes_at: known
                .filter(|(number, ..)| *number == source.partition())
                .map_or(inbox.position(), |(_, offset, _)| offset),
            resumed: Arc::new(AtomicI64::new(i64::MAX)),
            _claim: claim,
        });
        if let Some(identity) = &identity {
            identity.put_on_record(&source, &partition, identity.resumes_at)?;
        }
        Ok(Requester::new(RequesterState {
            inbox,
            producer,
            requests: self.requests,
            source: Arc::new(source),
            partition,
            max_block: self.max_block,
            consumer: self.consumer.isolation(isolation),
            identity,
            _partition_claim: claim,
        }))
    }

    fn check(&self, topics: &Arc<Topics>) -> Result<()> {
        self.requests.state.refuse_if_deleted()?;
        for topic in [Some(&self.requests), self.replies.as_ref()].into_iter().flatten() {
            if !topic.belongs_to(topics) {
                let reason = "it belongs to another store";
                return Err(Error::InvalidArgument { argument: "topic", reason });
            }
        }
        if self.replies.as_ref() == Some(&self.requests) {
            let reason = "it is the topic of the requests: their responder would read it as such";
            return Err(Error::InvalidArgument { argument: "replies", reason });
        }
        Ok(())
    }

    fn default_replies(&self, topics: &Arc<Topics>) -> Result<Topic> {
        let name = format!("{}.replies", self.requests.name());
        let state: Arc<TopicState> = match topics.create(&name, TopicConfig::new()) {
            Err(Error::TopicExists { .. }) => topics.find(&name)?,
            created => created?,
        };
        Ok(Topic::new(state, Arc::clone(topics), Arc::clone(&self.keep_open)))
    }

    fn claim_identity(&self) -> Result<Option<IdentityClaim>> {
        let Some(identity) = &self.identity else { return Ok(None) };
        coordinator::check_group_id(identity)?;
        match self.claims.identity(identity) {
            Some(claim) => Ok(Some(claim)),
            None => Err(Error::RequesterInUse { identity: identity.to_string() }),
        }
    }

    /// Gives what is on record of the identity's last life: partition, offset, the number of the life.
    fn known_of(&self, replies: &Topic) -> Result<Option<(u32, i64, u64)>> {
        let Some(identity) = &self.identity else { return Ok(None) };
        let group = self.coordinator.group(identity)?;
        Ok(group.look(|shared| {
            let of_replies =
                shared.offsets.iter().filter(|(topic, ..)| **topic == replies.state.name);
            let entries = of_replies.map(|(_, number, committed)| {
                let noted = &committed.noted;
                (number, noted.offset(), requester::life_from(noted.metadata()))
            });
            // Where it lived last; another builder may have said another partition before.
            entries.max_by_key(|(.., life)| *life)
        }))
    }

    fn claim_partition(
        &self,
        topics: &Arc<Topics>,
        replies: &Topic,
        known: Option<u32>,
    ) -> Result<PartitionClaim> {
        let (claims, topic) = (&self.claims, replies.id());
        if let Some(number) = self.partition.or(known) {
            replies.state.slot(number)?;
            return Ok(claims.partition(topic, number));
        }
        loop {
            let count = replies.partition_count();
            if let Some(claim) = claims.quietest(topic, count, Company::Alone) {
                return Ok(claim);
            }
            let is_ours = self.replies.is_none() && count < PARTITIONS_MAX;
            if !is_ours {
                let shared = claims.quietest(topic, count, Company::Shares);
                return Ok(shared.unwrap_or_else(|| claims.partition(topic, 0)));
            }
            match topics.add_partitions(&replies.state, count + 1) {
                // Another requester was quicker; it has taken that one, or will.
                Ok(()) | Err(Error::InvalidPartitions { .. }) => {}
                Err(other) => return Err(other),
            }
        }
    }
}

/// The topic for replies that nobody named gets no more partitions than this.
const PARTITIONS_MAX: u32 = 64;

impl fmt::Debug for RequesterBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequesterBuilder")
            .field("requests", &self.requests.name())
            .field("replies", &self.replies.as_ref().map(Topic::name))
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
