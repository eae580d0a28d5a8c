//! A dictionary: Kafka's words, and where they are found here.
//!
//! Names and values of properties are Kafka's. What has no meaning without a network is accepted and says so;
//! what Kafka does not know is an error.
//!
//! # Producer
//!
//! | Kafka | here |
//! | --- | --- |
//! | `KafkaProducer` | [`Producer`](crate::Producer): clone it, share it among threads |
//! | `ProducerRecord` | [`Record`](crate::Record), borrowed |
//! | `send(record)` → `Future<RecordMetadata>` | [`send`](crate::Producer::send) → [`Delivery`](crate::Delivery): `wait()`, `wait_timeout()` or `.await` |
//! | `flush()` | [`flush`](crate::Producer::flush) |
//! | `acks`, `flush.messages`, `flush.ms` | [`Durability`](crate::Durability) |
//! | `linger.ms`, `batch.size`, `buffer.memory`, `max.block.ms` | [`linger`](crate::ProducerBuilder::linger), [`batch_bytes`](crate::ProducerBuilder::batch_bytes) and so on; off unless set. [`send_batch`](crate::Producer::send_batch) makes one batch of many records, and appends all or none |
//! | `compression.type`, of a producer or a topic | the same; see [`Compression`](crate::Compression). Levels: `compression.gzip.level`, `compression.zstd.level` |
//! | `max.request.size` | the topic's `max.message.bytes` |
//! | `partitioner.class` | as Kafka's default: the record's partition, else the murmur2 hash of the key, else one partition for a batch of bytes, then another |
//! | `enable.idempotence`, `retries` | not needed: there is no answer that can be lost between `send` and the log |
//! | `transactional.id` | none yet |
//!
//! # Consumer
//!
//! | Kafka | here |
//! | --- | --- |
//! | `KafkaConsumer` | [`Consumer`](crate::Consumer); one thread at a time, which the compiler sees to |
//! | `assign` | [`ConsumerBuilder::assign`](crate::ConsumerBuilder::assign), with a [`Start`](crate::Start) for each partition if wanted |
//! | `poll` | [`poll`](crate::Consumer::poll); also a `for` loop over `&mut consumer`, and [`recv`](crate::Consumer::recv) for tasks |
//! | `seek`, `seekToBeginning`, `seekToEnd` | [`seek`](crate::Consumer::seek), [`seek_to`](crate::Consumer::seek_to) |
//! | `position`, `currentLag` | [`position`](crate::Consumer::position), [`lag`](crate::Consumer::lag) |
//! | `pause`, `resume`, `paused` | the same |
//! | `offsetsForTimes` | [`offsets_for_times`](crate::Consumer::offsets_for_times) |
//! | `beginningOffsets`, `endOffsets` | [`TopicPartition::watermarks`](crate::TopicPartition::watermarks) |
//! | `wakeup` | [`wakeup_handle`](crate::Consumer::wakeup_handle) |
//! | `auto.offset.reset` | [`OffsetReset`](crate::OffsetReset): earliest, latest, by duration, none (`Error`) |
//! | `isolation.level` | `read_uncommitted` is [`Isolation::ReadUncommitted`](crate::Isolation::ReadUncommitted). There is no `read_committed`. [`Isolation::Durable`](crate::Isolation::Durable) is ours |
//! | `max.poll.records`, `fetch.max.bytes`, `max.partition.fetch.bytes` | methods of the same names on [`ConsumerBuilder`](crate::ConsumerBuilder) |
//! | `fetch.min.bytes`, `fetch.max.wait.ms` | none: a poll returns as soon as there is a record |
//!
//! # Groups
//!
//! | Kafka | here |
//! | --- | --- |
//! | `subscribe(topics)`, `group.id` | [`ConsumerBuilder::subscribe`](crate::ConsumerBuilder::subscribe) |
//! | `subscribe(Pattern)` | [`Subscription::pattern`](crate::Subscription::pattern), [`Subscription::matching`](crate::Subscription::matching) |
//! | `unsubscribe`, `close` | [`unsubscribe`](crate::Consumer::unsubscribe), [`close`](crate::Consumer::close), or drop the consumer |
//! | `commitSync()`, `commitAsync()` | [`commit`](crate::Consumer::commit), [`commit_async`](crate::Consumer::commit_async) |
//! | `commitSync(Map)` | [`commit_offsets`](crate::Consumer::commit_offsets); [`commit_message`](crate::Consumer::commit_message) adds the one |
//! | `OffsetAndMetadata`, `committed` | [`OffsetAndMetadata`](crate::OffsetAndMetadata), [`committed`](crate::Consumer::committed) |
//! | `enable.auto.commit`, `auto.commit.interval.ms` | [`auto_commit`](crate::ConsumerBuilder::auto_commit): commits what the application has dropped, not what it was handed; off unless set |
//! | `auto.offset.reset` of a group without an offset | [`start`](crate::ConsumerBuilder::start), put on record when the group subscribes |
//! | `ConsumerRebalanceListener` | [`on_revoked`](crate::ConsumerBuilder::on_revoked), [`on_assigned`](crate::ConsumerBuilder::on_assigned), [`on_lost`](crate::ConsumerBuilder::on_lost) |
//! | `groupMetadata` | [`group_id`](crate::Consumer::group_id), [`member_id`](crate::Consumer::member_id), [`generation`](crate::Consumer::generation) |
//! | `partition.assignment.strategy`, `group.remote.assignor` | [`Assignor`](crate::Assignor) by the same names; `uniform` unless set |
//! | `ConsumerPartitionAssignor` | [`Assignor::custom`](crate::Assignor::custom) |
//! | `group.instance.id` | [`instance_id`](crate::ConsumerBuilder::instance_id); nobody waits for one that is away |
//! | `max.poll.interval.ms` | [`max_poll_interval`](crate::ConsumerBuilder::max_poll_interval): only if another member waits; off unless set |
//! | `session.timeout.ms`, `heartbeat.interval.ms`, `group.protocol`, `group.initial.rebalance.delay.ms` | none: a member is alive as long as its handle |
//! | `offsets.retention.minutes` | none: what was committed never expires |
//! | `listGroups`, `describeConsumerGroups` | [`Store::groups`](crate::Store::groups), [`ConsumerGroup::describe`](crate::ConsumerGroup::describe) |
//! | `listConsumerGroupOffsets`, `alterConsumerGroupOffsets` | [`offsets`](crate::ConsumerGroup::offsets), [`alter_offsets`](crate::ConsumerGroup::alter_offsets), [`reset_offsets`](crate::ConsumerGroup::reset_offsets) |
//! | `deleteConsumerGroups`, `deleteConsumerGroupOffsets` | [`delete`](crate::ConsumerGroup::delete), [`delete_offsets`](crate::ConsumerGroup::delete_offsets) |
//! | `removeMembersFromConsumerGroup` | [`remove_members`](crate::ConsumerGroup::remove_members) |
//! | consumer properties by name | [`ConsumerBuilder::set`](crate::ConsumerBuilder::set) |
//! | `kafka-consumer-groups` | `ottla group`; `--execute` is the default, `--dry-run` is not |
//! | `kafka-console-consumer --group` | `ottla consume -g`: commits what stdout has taken |
//!
//! # Request and reply
//!
//! Kafka itself has none; Spring's names and headers are understood.
//!
//! | Spring | here |
//! | --- | --- |
//! | `ReplyingKafkaTemplate` | [`Store::requester`](crate::Store::requester) → [`Requester`](crate::Requester) |
//! | `sendAndReceive(record, timeout)` → `RequestReplyFuture` | [`request`](crate::Requester::request) → [`Pending`](crate::Pending): `wait()`, `wait_timeout()` or `.await`. There is no time-out but the caller's |
//! | `RequestReplyFuture.getSendFuture()` | [`Pending::delivery`](crate::Pending::delivery) |
//! | `waitForAssignment` | not needed: a requester is ready when it is built |
//! | `setSharedReplyTopic`, a group for each instance | each requester takes a partition of its own, and passes over others' replies where it cannot |
//! | `kafka_correlationId`, `kafka_replyTopic`, `kafka_replyPartition` | the same, or other names: [`ReplyHeaders`](crate::ReplyHeaders) |
//! | `ReplyErrorChecker` | the header `ottla_replyError` makes a reply [`Error::RequestFailed`](crate::Error::RequestFailed) |
//! | `@KafkaListener` with `@SendTo` | [`Store::responder`](crate::Store::responder) → [`Responder`](crate::Responder). A request without a correlation id is answered without one, one without a reply topic is not answered |
//! | `AggregatingReplyingKafkaTemplate` | none |
//!
//! # Administration
//!
//! | Kafka | here |
//! | --- | --- |
//! | `createTopics` | [`Store::create_topic`](crate::Store::create_topic) with a [`TopicConfig`](crate::TopicConfig) |
//! | `deleteTopics` | [`Store::delete_topic`](crate::Store::delete_topic) |
//! | `describeTopics`, `describeConfigs`, `describeLogDirs` | [`Topic::describe`](crate::Topic::describe) |
//! | `incrementalAlterConfigs` | [`Topic::alter`](crate::Topic::alter), [`Topic::alter_all`](crate::Topic::alter_all) |
//! | `createPartitions` | [`Topic::add_partitions`](crate::Topic::add_partitions) |
//! | the log cleaner, on demand | [`Topic::compact`](crate::Topic::compact), `ottla compact` |
//! | `deleteRecords`, `kafka-delete-records` | [`TopicPartition::delete_records`](crate::TopicPartition::delete_records), `ottla delete-records` |
//! | `kafka-log-dirs` | `ottla du` |
//! | `log.retention.check.interval.ms` | [`retention_check_interval`](crate::StoreBuilder::retention_check_interval); [`apply_retention`](crate::Store::apply_retention) does it now |
//! | none | [`bytes_max`](crate::StoreBuilder::bytes_max): a bound for all partitions together |
//! | `kafka-dump-log` | `ottla dump`, [`inspect`](crate::inspect) |
//! | `kafka-get-offsets` | `ottla offsets` |
//! | `kafka-console-producer`, `kafka-console-consumer` | `ottla produce`, `ottla consume` |
//! | error codes | [`Error::kafka_code`](crate::Error::kafka_code) |
//!
//! # Topic properties
//!
//! All of Kafka 3.9 and 4.x are accepted with Kafka's defaults, but for `segment.bytes`, which is 64 MiB, and
//! `file.delete.delay.ms`, which is 0.
//! [`ConfigEntry::effect`](crate::ConfigEntry) tells of each which of three it is:
//!
//! | in force | kept, not acted upon by this version | without meaning here |
//! | --- | --- | --- |
//! | `cleanup.policy` | `compression.lz4.level` | `follower.replication.throttled.replicas` |
//! | `max.message.bytes` | | `leader.replication.throttled.replicas` |
//! | `message.timestamp.after.max.ms` | | `local.retention.bytes` |
//! | `message.timestamp.before.max.ms` | `errors.deadletterqueue.group.enable` | `local.retention.ms` |
//! | `message.timestamp.type`, `file.delete.delay.ms` | | `message.downconversion.enable` |
//! | `segment.bytes` | `flush.messages`, `flush.ms` | `message.format.version` |
//! | `segment.index.bytes`, `index.interval.bytes` | `min.insync.replicas` | `remote.log.copy.disable` |
//! | `segment.ms`, `segment.jitter.ms`, `compression.type`, `compression.gzip.level`, `compression.zstd.level` | `preallocate` | `remote.log.delete.on.disable` |
//! | `min.cleanable.dirty.ratio`, `min.compaction.lag.ms`, `max.compaction.lag.ms`, `delete.retention.ms`, `retention.bytes`, `retention.ms` | `unclean.leader.election.enable` | `remote.storage.enable` |
//!
//! Of the broker's properties these have a place in [`StoreBuilder`](crate::StoreBuilder): `log.cleaner.enable`,
//! `log.cleaner.backoff.ms`, `log.cleaner.io.max.bytes.per.second`, `log.cleaner.dedupe.buffer.size`,
//! `log.retention.check.interval.ms`. One thread cleans (`log.cleaner.threads`).
//!
//! ```
//! use ottla::{ConfigEffect, Store, TopicConfig};
//!
//! let store = Store::temporary()?;
//! let config = TopicConfig::new().set("retention.ms", "3600000")?.set("segment.ms", "60000")?;
//! let description = store.create_topic("orders", config)?.describe()?;
//! let effect = |name| description.config(name).map(|entry| entry.effect);
//! assert_eq!(effect("segment.ms"), Some(ConfigEffect::InForce));
//! assert_eq!(effect("flush.messages"), Some(ConfigEffect::KeptOnly)); // durability is the producer's
//! assert_eq!(effect("remote.storage.enable"), Some(ConfigEffect::NoNetwork));
//! # Ok::<(), ottla::Error>(())
//! ```
//!
//! # Different on purpose
//!
//! * Retention by time goes by a segment's greatest timestamp or the date of its file, whichever is later. Kafka deletes
//!   what was sent with old timestamps minutes after it was written. A deleted segment's files go at once unless
//!   `file.delete.delay.ms` says otherwise, and if all of a log is deleted, so does its last segment. Files of deleted
//!   topics go at once in any case.
//! * A segment is closed by `segment.ms` though nothing is appended, also one that an earlier life of the process left. In
//!   Kafka only an append closes it, so what a quiet topic holds is never compacted.
//! * A delivery completes after an `fdatasync`. Kafka's acknowledgement means that other machines have the record
//!   in memory; there are no other machines here.
//! * A send appends before it returns, and has an offset at once. There is no buffer between, unless a linger is set.
//! * Topics are created explicitly; a send or an assignment never makes one.
//! * A consumer that is not told otherwise begins at the earliest record, in Kafka at the latest.
//! * Where a group begins is settled when it subscribes, for each topic; partitions that are added later are read from
//!   their beginning. In Kafka it is settled when a partition is read first, and what came before may be skipped.
//! * A commit is durable when it returns, and what lies below it is durable before. Commits are explicit unless set
//!   otherwise, and expire never.
//! * A slow member is not thrown out, and nobody waits three seconds for a group to form.
//! * Deleting a topic is done when the call returns.
//! * Segments have 64 MiB and are closed by age even while nothing is appended.
//! * Recovery cuts only what was torn. Kafka cuts a log at the first bad batch and deletes what follows; here damage
//!   in front of whole batches is an error for those who read it, and the rest stays. See
//!   [`guarantees`](crate::documentation::guarantees).
//! * A disk error latches one partition. It never halts the process.
//! * An epoch counts the unclean openings of a directory, since there is one leader only.
//! * Names of partitions are numbers: `u32`; Kafka's are signed.
//!
//! # A directory of Kafka's
//!
//! Stop the broker, then open its log directory. Topics are found by their directories and get entries in
//! `ottla.topics`, with the ids they had and default properties: Kafka keeps properties elsewhere. Groups go
//! on where `__consumer_offsets` says that Kafka's consumers stopped, commits within transactions included; Kafka's other
//! internal topics are topics like others. Batches of all producers are read: compressed ones are unpacked into memory of
//! their own, if the feature named like the codec is on (`gzip`, `lz4`, `snappy` in both of its framings, `zstd`).
//! Otherwise they are [`Error::UnsupportedCompression`](crate::Error::UnsupportedCompression), the consumer's position
//! stays in front of them, and the error says where reading can go on.
//!
//! # Leaving for a broker
//!
//! Close the store: [`Store::close`](crate::Store::close) leaves segments, indexes, producer snapshots, epochs and
//! checkpoints as Kafka does, and its marker of a clean shutdown. What a broker needs besides is not written here: a
//! `meta.properties` with its cluster and node ids, and the topics registered in its metadata log under the ids in
//! `partition.metadata`. The file `ottla.topics` may stay where it is or go; the properties in it must be set
//! again by hand. After a crash open and close the directory here first.
//!
//! The tests compare our bytes with Kafka's: files that Kafka 3.9 wrote, what its dump tool and its clients say
//! about them, and an independent codec. No test starts a broker on a directory of ours.
