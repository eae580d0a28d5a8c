//! What changed from version to version.
//!
//! # Unreleased
//!
//! The first version. There is:
//!
//! * **The store.** Open, create, close a data directory; a lock that also excludes a Kafka broker; recovery
//!   after a crash; read-only opening beside a writer; temporary stores.
//! * **Topics.** Create, describe, alter, add partitions, delete. Every topic property of Kafka 3.9 and 4.x is
//!   accepted and kept; [`ConfigEffect`](crate::ConfigEffect) says which are acted upon.
//! * **Producing.** Single records and atomic batches; Kafka's partitioner; three levels of durability with
//!   group commit; deliveries that can be waited for or awaited.
//! * **Consuming.** Assignment with a start for each partition, poll, iterator, `recv` for tasks, seek, pause,
//!   look-up by time, wake-up; records without a copy; an isolation that shows only what is durable.
//! * **Consumer groups.** Members on any threads share a group's partitions and hand over among themselves, one by one,
//!   within their polls; Kafka's five assignors or one's own, static members, listeners; topics by name, pattern or
//!   function, noticed as they come and go. Commits by position, message or offset, by hand or by themselves; durable,
//!   and never ahead of the records below them. Groups are listed, described with their lag, reset and deleted; all of
//!   it lies in `__consumer_offsets`, in Kafka's formats, which nobody writes to by hand. `ConsumerBuilder::set` takes
//!   Kafka's consumer properties.
//! * **Request and reply.** A requester sends requests and gets each reply to the one who asked, on threads or in tasks,
//!   with as many in flight as it is allowed; a responder's group shares them, answers with a handler, and commits only
//!   what is answered durably. Spring's headers, under these or other names. A handler's error or panic is the asker's
//!   error. With an identity a requester resumes after a restart. `ottla request` and `ottla reply` do both from a shell.
//! * **Compression**: gzip, LZ4, Snappy, Zstandard; a feature each, chosen by producer or topic, with Kafka's levels. Whole
//!   batches are compressed before any lock is taken, and stored as they are if that saves nothing. Snappy is read in
//!   both of its framings. Unpacking is bounded, its buffers are used again, and what is not compressed is still not
//!   copied.
//! * **Single records.** [`TopicPartition::read`](crate::TopicPartition::read) gives the record at an offset, without a
//!   consumer.
//! * **Linger.** A producer may stage records in memory and append them batch by batch: `linger`, `batch_bytes`,
//!   `buffer_memory`, `max_block`, and Kafka's names for them.
//! * **Speed.** Space is prepared ahead of appenders, large batches are stored into it, full segments are sealed in
//!   the background and may be so far behind ([`StoreBuilder::unsynced_bytes_max`](crate::StoreBuilder::unsynced_bytes_max)),
//!   syncs of several partitions overlap, batches are verified once, sleeping consumers are woken as
//!   by a bare futex. Benchmarks of whole workloads beside the machine's raw limits, and beside eleven other crates,
//!   with JSON and plots.
//! * **Many partitions.** Any number of partitions is written with few descriptors: those that are idle are synced and
//!   let go of, and taken up again by their next append. Partitions are opened, created and closed several at a time.
//! * **Compaction.** Topics with `cleanup.policy=compact` are compacted in the background by Kafka's rules and in Kafka's
//!   files, while appends and reads go on: `min.cleanable.dirty.ratio`, `min.compaction.lag.ms`,
//!   `max.compaction.lag.ms`, `delete.retention.ms`; throttled, with a bounded key map. A crash or a failure at any moment
//!   loses nothing. [`Topic::compact`](crate::Topic::compact) and `ottla compact` do it now, with progress. Compressed
//!   batches keep their codec; markers go when nothing is left of their transactions.
//! * **Retention.** `retention.ms` and `retention.bytes` by Kafka's rules, in the background and by
//!   [`Store::apply_retention`](crate::Store::apply_retention);
//!   [`TopicPartition::delete_records`](crate::TopicPartition::delete_records); a bound for the whole store with
//!   [`StoreBuilder::bytes_max`](crate::StoreBuilder::bytes_max), which drops the oldest segments or refuses appends
//!   with a retriable error. Crash-safe at every effect. Segments are closed by
//!   `segment.ms` though nobody appends; deleted files are kept for `file.delete.delay.ms`, if that is set. [`Topic::describe`](crate::Topic::describe),
//!   [`Store::health`](crate::Store::health) and `ottla du` tell bytes, ages, what goes next, and which groups were
//!   overtaken.
//! * **Repair.** [`repair`](crate::repair) and `ottla repair` put a damaged directory in order, and first show how: what
//!   can be restored is, what cannot is kept aside, everything else stays readable at its offset.
//! * **Inspection.** [`inspect::check`](crate::inspect::check) verifies a directory, and every kind of file can be
//!   dumped.
//! * **The command** `ottla`, with the feature `cli`.
//!
//! There is not, yet:
//!
//! * idempotent producers and transactions. Those that Kafka wrote are read as `read_uncommitted` reads them:
//!   markers are passed over, records of aborted transactions are returned;
//! * replication;
//! * a way to read without mapping files, or to turn every SIGBUS into an error; those that a disk causes that cannot read
//!   what nobody has read yet are errors.
