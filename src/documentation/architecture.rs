//! The house as it is built, for those who work on it.
//!
//! # Floors
//!
//! Every file is named after the thing it holds. A file uses its own floor and those below, never one above; on one
//! floor there are no circles. `tests/it/tidy.rs` reads the sources and holds this page to it: the tables here and
//! the files in `src/` are the same set, and every use points downwards.
//!
//! | file | holds |
//! | --- | --- |
//! | `lib.rs` | the facade: a program that runs, re-exports, which handles are `Send` and `Sync`; no code |
//!
//! **Words**: no I/O, no locks, no threads.
//!
//! | file | holds |
//! | --- | --- |
//! | `error.rs` | `Error`, `Result`: what went wrong and what the caller can do |
//! | `os_error.rs` | what the operating system means by its errors |
//! | `error_texts.rs` | what errors say where something may be known and may be not |
//! | `config.rs` | every knob with unit, default, effect; Kafka's property names |
//! | `compaction_config.rs` | whether, when and how a topic is compacted |
//! | `retention_config.rs` | how long records are kept |
//! | `client_config.rs` | what the knobs of producers and consumers have in common |
//! | `producer_config.rs` | a producer's knobs, by Kafka's names too |
//! | `consumer_config.rs` | a consumer's knobs by Kafka's names |
//! | `record.rs` | `Record`, `Header`: what a producer hands in, borrowed |
//! | `name.rs` | `TopicName`: valid once built |
//! | `clock.rs` | `Clock`: the only reader of the wall clock |
//! | `steady_clock.rs` | `SteadyClock`: a wall clock that is not believed at once when it leaps ahead |
//! | `chance.rs` | tests only: numbers that look random, the same ones for the same seed, or chosen by bytes |
//! | `schedules.rs` | where a test's scheduler chooses which thread goes on |
//! | `due.rs` | `Due`: whom the background thread calls without knowing what it is |
//!
//! **Bytes**: pure functions between values and bytes. This floor does not know that files exist.
//!
//! | file | holds |
//! | --- | --- |
//! | `format/mod.rs` | the grammar of a segment |
//! | `format/header.rs` | `BatchHeader`: the 61 bytes, positions once, read and written side by side |
//! | `format/encode.rs` | `BatchBuilder`: records in, sealed batch out |
//! | `format/decode.rs` | `Batch`: bytes in, verified batch and its records out |
//! | `format/compression/mod.rs` | `Unpacker`, `Packer`: records as one compressed block and back, within bounds |
//! | `format/compression/gzip.rs` | gzip's members; with the feature `gzip` |
//! | `format/compression/lz4.rs` | LZ4's frame; with the feature `lz4` |
//! | `format/compression/snappy.rs` | Snappy's two framings; with the feature `snappy` |
//! | `format/compression/zstandard.rs` | Zstandard's frames; with the feature `zstd` |
//! | `format/compression/tests.rs` | tests only: round trips, damage, bombs, the frames of others |
//! | `format/rewrite.rs` | `Rewriter`: a batch without some of its records |
//! | `format/varint.rs` | variable-length integers |
//! | `format/fields.rs` | what Kafka's messages are made of: texts, bytes, arrays |
//! | `format/group_records.rs` | the keys and values of `__consumer_offsets` |
//! | `format/consumer_protocol.rs` | what members of a group say to each other: subscription, assignment |
//! | `format/group_checks.rs` | tests only: what Kafka and another codec wrote, and what is not whole |
//!
//! **Files**: one kind of file each. This floor knows neither threads nor topics' contents nor what is committed.
//!
//! | file | holds |
//! | --- | --- |
//! | `storage/mod.rs` | what lies in a data directory |
//! | `storage/disk.rs` | `Disk`: the one door to the file system; tests put a script behind it |
//! | `storage/medium.rs` | `Medium`: the system calls behind that door, one each; in tests a place in memory |
//! | `storage/calls.rs` | what a call to the system did in part is done in full |
//! | `storage/memory.rs` | tests only: names and files in memory |
//! | `storage/faults.rs` | tests only: disks that fail, die, or lose what was not synced |
//! | `storage/outcomes.rs` | tests only: all that a power cut on such a disk may leave, to look for what a real one has left |
//! | `storage/planted.rs` | bugs that tests plant, to see that they are found |
//! | `storage/verified.rs` | what of a segment has been checked since it was opened |
//! | `storage/map.rs` | `Tail` and `View`: an append-only file, mapped; `unsafe` lives here |
//! | `storage/brought.rs` | what of a mapped file was brought into memory by a call that can fail |
//! | `storage/door.rs` | `Door`: how an append reaches the file, and where one that failed left it |
//! | `storage/large_pages.rs` | memory for a large table that is looked into at random |
//! | `storage/runway.rs` | the space ahead of an appender, written with zeros in pieces |
//! | `storage/front.rs` | how far that space was made ready, and in which pieces |
//! | `storage/marks.rs` | where records lie in large batches that reads of single records came to |
//! | `storage/lock.rs` | the directory's lock, which also excludes a JVM; `unsafe` lives here |
//! | `storage/file_name.rs` | every file name, spelled and parsed |
//! | `storage/gaps.rs` | `Gaps`: where offsets may be missing; the mark that says so before they are |
//! | `storage/swap.rs` | how a segment that compaction wrote takes the place of others |
//! | `storage/extent.rs` | how long a segment is, and how old |
//! | `storage/removal.rs` | how the files of segments go whose records were deleted |
//! | `storage/segment_files.rs` | the files of one segment: where they are, made, removed |
//! | `storage/segment.rs` | one segment as readers see it |
//! | `storage/look_up.rs` | where an offset or a time is in a segment |
//! | `storage/point.rs` | one record of a segment, found by its offset |
//! | `storage/damage.rs` | what is said of a damaged batch, and where its readers can go on |
//! | `storage/indexes.rs` | a segment's two indexes together: noted batch by batch, written when it ends |
//! | `storage/parked_indexes.rs` | what is kept of them while nobody appends: the front is in the files |
//! | `storage/scan.rs` | a walk over a segment through `pread` that believes nothing: for recovery and inspection |
//! | `storage/offset_index.rs` | offset → byte position |
//! | `storage/time_index.rs` | timestamp → offset |
//! | `storage/transaction_index.rs` | which transactions were aborted in a segment; carried along |
//! | `storage/checkpoint.rs` | Kafka's checkpoint text files, replaced atomically |
//! | `storage/catalog.rs` | `ottla.topics` and `partition.metadata` |
//!
//! **One log**: all order, all durability, all truth. A log does not know its topic's name, nor other logs.
//!
//! | file | holds |
//! | --- | --- |
//! | `partition/mod.rs` | `Partition`: open, append, wait, close; the latch |
//! | `partition/writer.rs` | `Writer`: what changes under the lock; the append ladder |
//! | `partition/rolling.rs` | how the last segment comes to take appends, and is followed by the next |
//! | `partition/live_tails.rs` | which logs have their tail open, and which lets go of it when there are too many |
//! | `partition/parking.rs` | how a log lets go of its tail without being closed |
//! | `partition/unsealed.rs` | the queue of segments that were followed and are not sealed yet |
//! | `partition/sealing.rs` | how a log becomes durable: segments are sealed in order, the last one is synchronised |
//! | `partition/segments.rs` | `Segments`: the snapshot that readers use |
//! | `partition/open_segments.rs` | which cold segments stay open though nobody reads them at this moment |
//! | `partition/fetch.rs` | what one read brings: whole, verified batches of one segment |
//! | `partition/fetch/packed.rs` | the same of compressed batches, from the buffer they were unpacked into |
//! | `partition/unpacking.rs` | `Memory`: where records lie that were read; buffers that are used again |
//! | `partition/walk.rs` | a walk over a whole log, control batches and damage included |
//! | `partition/point.rs` | one record of a log, found by its offset, unpacked where it is compressed |
//! | `partition/watermarks.rs` | log start, log end, durable end; the doorbells |
//! | `partition/shown.rs` | `Shown`: what is looked at again and again, in a cache line of its own |
//! | `partition/sync.rs` | `SyncGate`: group commit |
//! | `partition/recovery.rs` | facts → decision → repaired directory |
//! | `partition/leftovers.rs` | finishes what a crash interrupted among the files of a partition's directory |
//! | `partition/retention.rs` | which segments may go, by Kafka's rules: a pure function |
//! | `partition/retention_crash.rs` | tests only: deletions that fail, die or lose power at every effect; a model |
//! | `partition/retaining.rs` | what retention knows of one log, and how far it lets go of it |
//! | `partition/removed.rs` | what is left of the segments that were taken out of a log |
//! | `partition/removing.rs` | how the beginning of a log is let go of |
//! | `partition/compaction.rs` | of every key the latest record stays |
//! | `partition/compaction_plan.rs` | what a compaction is to do, and which segments become one |
//! | `partition/compaction_survey.rs` | what it finds before it changes anything |
//! | `partition/compaction_keys.rs` | what it learns of keys on the way |
//! | `partition/compaction_reading.rs` | what it reads segments with, unpacked where they are compressed |
//! | `partition/compaction_progress.rs` | how far it is; whether it may go on, and how fast |
//! | `partition/cleanable.rs` | how much of a log there is to compact, and when there will be more |
//! | `partition/throttle.rs` | how many bytes a second compaction may read and write |
//! | `partition/budget.rs` | what all logs of a store may take on the disk |
//! | `partition/charging.rs` | what one log takes of it |
//! | `partition/compacting.rs` | whose turn it is to compact, and whether it may still be done |
//! | `partition/key_hash.rs` | 128 bits that stand for a key |
//! | `partition/key_notes.rs` | what is noted of records, by the thread that walks over them or by one beside it |
//! | `partition/known_fates.rs` | which records go, known by their offsets alone |
//! | `partition/latest_offsets.rs` | key → offset of its latest record, in bounded memory |
//! | `partition/fates.rs` | what became of transactions, and where producers' sequences end |
//! | `partition/compaction_model.rs` | tests only: appends, compactions and readers at random, and all at once |
//! | `partition/compaction_crash.rs` | tests only: compactions that fail, die or lose power at every effect |
//! | `partition/producer_snapshot.rs` | the newest producer snapshot, carried along |
//! | `partition/leader_epochs.rs` | which epoch began at which offset |
//! | `partition/finding.rs` | what recovery has to tell of a log |
//! | `partition/follow.rs` | reading a log that another process appends to |
//! | `partition/following.rs` | such a log as its readers see it, though it is compacted meanwhile |
//! | `partition/unreadable.rs` | tests only: pages of segments that cannot be read when they are touched first |
//! | `partition/crash.rs` | tests only: crashes at every byte and at every effect |
//!
//! **Topics**: many logs. This floor knows neither producers nor consumers.
//!
//! | file | holds |
//! | --- | --- |
//! | `topic.rs` | `Topic`, `TopicPartition`: what users hold of a topic |
//! | `topic_state.rs` | what everyone who holds a topic shares |
//! | `topics/altering.rs` | what changes of a topic that is there |
//! | `topics/at_once.rs` | many partitions opened, made or closed at the same time |
//! | `topics/mod.rs` | `Topics`, the registry of a directory: create, open, alter, delete, close |
//! | `topics/cleaning.rs` | compaction of topics, and how far each partition was compacted |
//! | `topics/cleaning_limits.rs` | what all compactions of one store share |
//! | `topics/recording.rs` | how far partitions are durable, put on record |
//! | `topics/findings.rs` | what was found and what has failed |
//! | `topics/starts_on_record.rs` | where logs begin, as it is on record, and whether the record may say something else |
//! | `topics/log_starts.rs` | where logs begin whose beginning was deleted; `delete_records` |
//! | `topics/loading.rs` | from what lies in a directory to the registry's list |
//! | `topics/room.rs` | room in a directory that may not take more than so many bytes |
//! | `topics/retaining.rs` | retention over all logs of a directory |
//! | `topics/surroundings.rs` | what a directory says of itself when it is opened |
//!
//! **Coordinator**: who may do what. It keeps its papers in topics; this floor does not know that files exist.
//!
//! | file | holds |
//! | --- | --- |
//! | `coordinator/mod.rs` | `Coordinator`: the groups of a directory; found, made, closed |
//! | `coordinator/group.rs` | `Group`: its members' state behind a lock, what it committed, whom to ring |
//! | `coordinator/signal.rs` | `Signal`: how a member is told that it has something to do; `Polls`: when it polled last |
//! | `coordinator/group_state.rs` | `GroupState`: who holds what, who is to have what; pure |
//! | `coordinator/universe.rs` | `Universe`: the topics of a directory, as groups see them |
//! | `coordinator/assignor.rs` | `Assignor`: which algorithm, or one's own |
//! | `coordinator/subscription.rs` | `Subscription`: which topics a member wants |
//! | `coordinator/committed.rs` | `OffsetAndMetadata`; what one group has committed |
//! | `coordinator/offsets_log.rs` | `OffsetsLog`: the topic `__consumer_offsets` |
//! | `coordinator/papers.rs` | what is put on record of members, and what is made of it |
//! | `coordinator/load.rs` | from the log of papers to the groups |
//! | `coordinator/assignors/mod.rs` | which member of a group reads which partition: five pure functions |
//! | `coordinator/assignors/input.rs` | `Input`: what an assignor is told; the order of members |
//! | `coordinator/assignors/layout.rs` | `Layout`: the partitions numbered through, and who may take them |
//! | `coordinator/assignors/claims.rs` | `Claims`: who owns what, from what members say of themselves |
//! | `coordinator/assignors/range.rs` | stretches of each topic |
//! | `coordinator/assignors/round_robin.rs` | partitions in turn |
//! | `coordinator/assignors/sticky.rs` | balance and little moving, at once or in two rounds |
//! | `coordinator/assignors/sticky_mixed.rs` | the same where members subscribe to different topics |
//! | `coordinator/assignors/uniform.rs` | balance and little moving, as Kafka's broker has it |
//! | `coordinator/assignors/examples.rs` | tests only: groups as text, and what Kafka makes of them |
//! | `coordinator/assignors/properties.rs` | tests only: what holds of every assignor |
//! | `coordinator/hand_over.rs` | tests only: members on threads, their steps in every order that a scheduler thinks of |
//! | `coordinator/all_orders.rs` | tests only: a small group in every order of everything |
//! | `coordinator/crash.rs` | tests only: what groups do, on disks that fail or die at every effect of it |
//! | `coordinator/power.rs` | tests only: lives of a group that end in a power cut, one after the other |
//!
//! **Maintenance**: the background thread.
//!
//! | file | holds |
//! | --- | --- |
//! | `maintenance.rs` | a closed list of chores: sync, seal, linger, checkpoint, warm, watch, roll, retain; wakes the cleaner |
//! | `cleaner.rs` | the thread that compacts topics when nobody asks: which, and when to look again |
//! | `retainer.rs` | the thread that applies retention in the background |
//! | `sync_workers.rs` | the threads that make partitions durable in the background, several at a time |
//!
//! **Handles**: what users hold.
//!
//! | file | holds |
//! | --- | --- |
//! | `health.rs` | what a store has to tell about its state |
//! | `store.rs` | `Store`: open, find, close |
//! | `store/builder.rs` | `StoreBuilder`: how a directory is opened |
//! | `producer.rs` | `Producer`: send, send a batch, flush |
//! | `appender.rs` | from an encoded batch to the log at a producer's level; what a flush waits for |
//! | `per_partition.rs` | what a producer keeps for each partition it sends to, found without a lock |
//! | `accumulator.rs` | linger: a producer's stages, what seals them all |
//! | `stage.rs` | `Stage`: records gather in a batch, batches stand in line, one thread appends |
//! | `stage_context.rs` | what a producer's stages share: the agenda, what was refused |
//! | `buffer_pool.rs` | the memory that staged records may take; buffers used again |
//! | `delivery.rs` | `Delivery`: the pending result of a send |
//! | `partitioner.rs` | which partition a record goes to |
//! | `assignment.rs` | `Start`, `OffsetReset`, `Isolation`: what a consumer is told before it reads |
//! | `consumer_builder.rs` | `ConsumerBuilder`: limits, isolation, the group; at last the partitions |
//! | `consumer/mod.rs` | `Consumer`: poll, pause; whom to tell when partitions come and go |
//! | `consumer/positions.rs` | which partitions are read, and where it stands in each |
//! | `consumer/waiting.rs` | how it waits, as a thread or as a task |
//! | `consumer/iter.rs` | the consumer as an iterator |
//! | `consumer/membership.rs` | `Membership`: its place in a group |
//! | `consumer/member.rs` | how it joins, lets go, takes and leaves |
//! | `consumer/member_id.rs` | ids of members |
//! | `consumer/rebalance.rs` | `Rebalance`: what may be done while partitions come and go |
//! | `consumer/commits.rs` | committing, and asking for what was committed |
//! | `consumer_group.rs` | `ConsumerGroup`: a group seen from outside, and changed |
//! | `group_description.rs` | what is told of a group: its state, its members, how far it is behind |
//! | `handed_out.rs` | `HandedOut`: what of a partition is in the application's hands |
//! | `spin.rs` | `Spin`: whether to look again for a moment before sleeping, learnt from how it went |
//! | `wakeup.rs` | `Wakeup`: what ends a consumer's wait from another thread |
//! | `records.rs` | `Records`, `Message`: what a poll returns, borrowed |
//! | `point_read.rs` | `TopicPartition::read`: one record by its offset, without a consumer |
//! | `request/mod.rs` | request and reply over topics: the path of a request |
//! | `request/requester.rs` | `Requester`: send a request; what has come of them; how far an identity has come |
//! | `request/requester_builder.rs` | `RequesterBuilder`: where replies go, who it is, how much may be in flight |
//! | `request/claims.rs` | which identities and reply partitions the requesters of a store have |
//! | `request/names.rs` | `ReplyHeaders`: the headers' names, and what their values are |
//! | `request/correlation.rs` | what requests are called: sixteen bytes that say whose they are |
//! | `request/pending.rs` | `Pending`: the reply that is not there yet |
//! | `request/pending_table.rs` | who waits for which reply; bounded |
//! | `request/inbox.rs` | where replies arrive: read, matched, handed to who waits |
//! | `request/vigil.rs` | who reads what arrives, when nobody is there only to read |
//! | `request/turn.rs` | work that one thread does for all who call for it |
//! | `request/failing.rs` | tests only: a responder whose replies cannot be appended, for a while or for good |
//! | `request/power.rs` | tests only: requests and replies in lives that end in a power cut |
//! | `request/resumed.rs` | `Resumed`: replies to earlier lives of an identity |
//! | `request/responder.rs` | `Responder`: start, wait until idle, end; what it has done |
//! | `request/responder_state.rs` | what the threads of a responder share with its handle |
//! | `request/answering.rs` | a responder's thread: read, handle, append, commit later |
//! | `request/progress.rs` | how far it has come, and what of it may be committed |
//! | `request/reply.rs` | `Reply`: what a handler answers |
//! | `request/pending_model.rs` | tests only: askers, sleepers and appenders in every order that a scheduler thinks of |
//! | `inspect/mod.rs` | a read-only look at a directory |
//! | `inspect/check/mod.rs` | verify everything |
//! | `inspect/check/segment.rs` | verify one segment with its indexes |
//! | `inspect/check/index_walk.rs` | indexes, entry by entry, beside the log they are about |
//! | `inspect/check/report.rs` | what a check found |
//! | `inspect/file_kind.rs` | which files can be dumped, told by their names |
//! | `inspect/log_dump.rs` | a walk over the batches of one segment |
//! | `inspect/index_entries.rs` | the entries of the three kinds of index |
//! | `inspect/producer_snapshot.rs` | the entries of a producer snapshot |
//! | `repair/mod.rs` | puts a damaged directory in order: shows what it would do, or does it |
//! | `repair/steps.rs` | what a repair is at: each step is told, and done only if it is to be |
//! | `repair/known.rs` | what is known of a partition before its directory is looked at |
//! | `repair/root_look.rs` | what the small files of the data root say, as far as they can be read |
//! | `repair/log_look.rs` | which segments of a log are to be changed; where it has to go on |
//! | `repair/segment_look.rs` | what of a segment is whole, what can be made whole, what has to go |
//! | `repair/epochs_look.rs` | whether batches and leader epochs agree, and which are believed |
//! | `repair/producers.rs` | producer snapshots and transaction indexes, derived from the log |
//! | `repair/mend.rs` | how a log is put in order, step by step |
//! | `repair/kept.rs` | bytes that are taken out of a file, kept in one beside it |
//! | `repair/report.rs` | what a repair does, or would do |
//! | `repair/crash.rs` | tests only: repairs that die at every effect |
//! | `explorer.rs` | tests only: what crashes may leave of a whole store, explored by lives that end anywhere |
//! | `explorer/lineage.rs` | tests only: one machine's lives, how they end, and what is found afterwards |
//! | `explorer/known.rs` | tests only: what is known from outside, and the check of what is found |
//! | `explorer/conformance.rs` | tests only: lives on real file systems that are shut down, whose states the simulated disk must know |
//! | `explorer/found_out.rs` | tests only: bugs that are planted, and after how many recoveries they are found |
//! | `fuzzed.rs` | tests only: what is fuzzed in memory, and histories that a fuzzer thinks of |
//!
//! Above all of them, on the public face only: the command line in `bin/ottla/`, and these pages in `documentation/`.
//!
//! A foreign crate has one address, where that can be: `memmap2` in `storage/map.rs`, and for memory
//! without a file in `storage/large_pages.rs`; `crc32c` in `format/`, and where a small file carries a checksum of its own; `libc` and `rustix` at the two doors to the system, and two error numbers in
//! `os_error.rs`; `thiserror` in
//! `error.rs`; `crossbeam-channel` where partitions speak to the background thread.
//!
//! # The path of a record
//!
//! ```text
//! producer.rs        the partition is chosen, the timestamp checked
//! format/encode.rs   the record is encoded and checksummed into a buffer that the thread keeps
//! appender.rs        the records are compressed, if the topic or the producer says so and it makes them shorter
//! partition/mod.rs   the lock is taken; is the log latched, is the segment full?
//! partition/writer.rs  base offset and epoch are stamped; they lie outside the checksum
//! storage/map.rs     the bytes go behind the end, by a store into the mapping or by `pwrite`
//! storage/indexes.rs   the sparse indexes take note, in memory
//! partition/watermarks.rs  the log end is published: one release store; waiting consumers are rung
//! delivery.rs        the caller has its offset, and may wait:
//! partition/sync.rs  the first who waits syncs for all
//!
//! ```
//!
//! Where the producer stages, four rooms stand in front of the partition's:
//!
//! ```text
//! accumulator.rs     the stage of the record's partition is found
//! stage.rs           under the stage's lock the record is encoded into the open batch; that is all, most times
//! buffer_pool.rs     a new batch takes its memory, and a buffer that was used before
//! stage.rs           a full batch is sealed and stands in line; without the lock it is checksummed, and
//! appender.rs        appended by the thread that sealed it, unless another is at it already
//! ```
//!
//! And out again:
//!
//! ```text
//! consumer.rs        partitions take turns
//! partition/fetch.rs   a cursor knows its place in the file, even within a batch; if it does not:
//! partition/segments.rs  which segment holds the offset: a search in a snapshot, without a lock
//! partition/open_segments.rs  is it open? else it is mapped, and one that was not read for long let go
//! storage/segment.rs   one look-up in the index, a short walk over headers
//! partition/fetch.rs   continuity of every batch; checksum and structure,
//! storage/verified.rs  unless this opening of the segment has seen them checked
//! records.rs         iterating borrows from the mapping and cannot fail
//! ```
//!
//! Where the consumer is a member of a group, it looks first whether its group wants something of it: two loads of
//! atomics, most times.
//!
//! ```text
//! consumer/member.rs     lets go of what is to go, takes what is to come, tells the application
//! coordinator/group.rs   the group's lock for each step; whoever has something to do is rung
//! coordinator/group_state.rs   who may hold what
//! consumer/commits.rs    what was dealt with: first everything below it is made durable,
//! coordinator/offsets_log.rs   then it is appended to `__consumer_offsets`,
//! partition/sync.rs      and made durable by one sync for all who commit
//! ```
//!
//! A request and its reply:
//!
//! ```text
//! request/requester.rs      the request is entered in the table, then sent like any record, with three headers
//! request/answering.rs      a responder's thread, a member of a group, reads it and calls the handler,
//! request/responder.rs      with nothing but its own thread's locks; appends the reply where the headers say
//! request/inbox.rs          the reply is read: by one who waits for any reply and is awake, or, if all sleep,
//! request/vigil.rs          by the thread whose append rang the bell
//! request/pending_table.rs  who waits for it is taken out of the table, and woken
//! request/progress.rs       later: what was answered durably is committed
//! ```
//!
//! A single record by its offset:
//!
//! ```text
//! point_read.rs      the handle's partition, found once
//! partition/segments.rs  which segment holds the offset
//! storage/point.rs   one look-up in the index, a short walk over headers; where anything is out of order,
//! storage/segment.rs   the careful walk; then checksum and structure, unless they were checked
//! storage/marks.rs   where in a large batch the record lies, about; a short walk over records
//! partition/point.rs   a compressed batch is unpacked, unless the thread has just done so, and checked
//! ```
//!
//! [`Records`](crate::Records) own what they point into. They outlive the next poll, the consumer and the segment's
//! file, and they keep the directory locked: another writer might cut what they show.
//!
//! # The append ladder
//!
//! The order of effects is the argument for correctness.
//!
//! | rung | effect | if it fails |
//! | --- | --- | --- |
//! | 1 | take the lock, *then* ask whether the partition is latched | nothing happened |
//! | 2 | check the batch's size and the room for offsets | nothing happened; the caller's error |
//! | 3 | roll when full: create the next segment's files; the old segment is sealed in the background | nothing visible; out of space may be tried again |
//! | 4 | write the bytes behind the log end | nothing visible; space that could not be reserved leaves the file as it was, anything else latches |
//! | 5 | index entries, in memory | rebuilt from the log anyway |
//! | 6 | publish the log end | cannot fail |
//! | 7 | unlock, ring the doorbells | cannot fail |
//! | 8 | the delivery waits at the gate, if its level asks for it | visible, not acknowledged: latched |
//!
//! Rung 3, the first opening of a segment for appending, and closing work on files, and do so without the lock: the
//! writer is marked busy, appends wait, readers do not.
//!
//! # Deletion
//!
//! ```text
//! partition/retention.rs      which segments may go: a pure function of their lengths and ages
//! partition/retaining.rs      lengths and ages, from files or from memory; rolls if all is to go
//! topics/room.rs              or: the largest logs' oldest segments, because the store may not take more
//! topics/log_starts.rs        on record where logs will begin: one replaced file for all of them
//! partition/watermarks.rs     readers see it
//! partition/segments.rs       the segments leave the list; who opens one of them late gets the first that is left
//! storage/removal.rs          the files are renamed, then removed
//! ```
//!
//! What a crash leaves of files below a start that is on record the next open removes before recovery looks, so it does
//! not matter in which order their names went.
//!
//! # Compaction
//!
//! ```text
//! cleaner.rs                  which log: the dirtiest of those that are due; Topic::compact names one
//! partition/cleanable.rs      how dirty: from the sizes of segments and the ends of their time indexes
//! topics/cleaning.rs          where keys were compared up to, from Kafka's checkpoint; noted there afterwards
//! partition/compaction_survey.rs all sealed segments are looked at: old enough, whole, readable, transactions ended?
//! partition/compaction_keys.rs keys are noted on the way, those of transactions on a way of their own
//! partition/key_notes.rs      beside the walk, if it is long and somebody waits for it
//! partition/latest_offsets.rs keys and their latest offsets, as many as fit; what did not is for another pass
//! partition/compaction_plan.rs neighbours that fit one segment
//! format/rewrite.rs           batch by batch: copied, rewritten, emptied, dropped
//! storage/gaps.rs             before the first swap: offsets below here may be missing
//! storage/swap.rs             new files in the place of old ones, each step durable before the next
//! partition/segments.rs       readers find the new segment; who is in an old one stays there
//! ```
//!
//! No append waits for it, and no reader. A reader that stands in a segment that was replaced reads it to its end if
//! it is still open, and otherwise looks for its offset in the new one.
//!
//! # Types that keep numbers apart
//!
//! An *offset* counts records and is an `i64`, as in Kafka. A *position* counts bytes of a file and is a `u64`. A
//! *partition's number* is a `u32`, an *epoch* an `i32`, a *len* a `usize` or `u64` of bytes. Mixing two of them does
//! not compile without a conversion that can be seen. `end` and `upto` are exclusive, `last` is inclusive, ranges are
//! half-open. `_ms` and `_bytes` in a name are units.
//!
//! # Threads
//!
//! | thread | how many | ends |
//! | --- | --- | --- |
//! | the caller's | any | |
//! | `ottla-maintenance` | one for each store, read-only ones included | at close, or when the registry is gone |
//! | `ottla-cleaner` | one for each store that is open for writing, once it has a compacted topic other than `__consumer_offsets` | with the maintenance thread, which ends the compaction at hand |
//! | `ottla-compact` | one while `__consumer_offsets` is being compacted | when it is |
//! | `ottla-keys` | while [`Topic::compact`](crate::Topic::compact) looks at 8 MiB or more, and there is a second processor | when it has |
//! | `ottla-retention` | one, once there is something to look at | with the maintenance thread |
//! | `ottla-sync-0` to `-7` | as many as had something to sync at the same time | with the maintenance thread |
//! | `ottla-respond-0` and on | as many as each responder was told | when it is closed or dropped, or the store is closed |
//! | `ottla-partitions-1` to `-7` | while many partitions are opened, made or closed | with that call |
//!
//! The background thread holds the registry weakly. A chore that panics is caught, and shows in
//! [`Store::health`](crate::Store::health). The library prints nothing.
//!
//! A consumer that waits resets its bell, arms the doorbells of its partitions, looks once more, then sleeps; an
//! appender publishes, then looks whether anybody armed. A sequentially consistent fence on either side sees to it
//! that not both miss the other: one for all partitions of the consumer, one for each append, which costs some 5 ns
//! and is all that an append pays while nobody sleeps. What a consumer looks at again and again lies in one cache
//! line of the partition, apart from what appends write; what its records hold is counted where no appender counts.
//!
//! A group has no thread. Whoever changes it, by joining, leaving, letting go or creating a topic, has it assigned
//! anew on its own thread and rings those members that have something to do; these do it within their polls. A
//! member that waits is woken by the same bell as for records. What one may have to do though nobody rings (commit by
//! itself, put out another that does not poll) bounds its wait.
//!
//! A requester has no thread. One who waits for a reply reads what has come, for itself and for all others, stays awake
//! for a moment if that was of use lately, and then sleeps. While anybody sleeps, or a task waits, the bell in front of the
//! reply partition is armed, and what it wakes is not a thread but the reading itself: the thread that appended the reply,
//! or made it durable, reads it and wakes whom it concerns. So there are as many wake-ups as over a channel, none is
//! spent on one who only hands on, and nobody looks at anything while nothing comes. The price is that a responder
//! spends a little of its time on the readings of sleepers. The alternative, a thread for each requester, costs a wake-up
//! more for each reply, some microseconds, and a thread.
//!
//! A producer that stages has an agenda: which of its stages is to be looked at, and when. It tells the background
//! thread the earliest time, and tells it again only if an earlier one comes up, which with a constant linger is
//! only after a pause. Called, the thread seals and appends what is due. Stages it finds with a younger batch, because
//! the one that was listed has been sealed since, stay listed with that batch's time. So a busy producer wakes the
//! thread once in a linger, and an idle one never. An append on the background thread must not wait for the
//! background thread.
//!
//! The appender's role in a stage is a flag, not a lock, and is held during an append, syncs included if a segment
//! has to be closed. Flushes, closes and those who wait for a delivery wait for it, with no lock but those of rank 1.
//! Those who send do not: they stage further batches, up to the producer's memory. When two batches or more are in
//! front of one's own, a send waits a little for its turn all the same, so that those who encode do not fill the
//! memory with what the one who appends finds cold.
//!
//! # Locks and their ranks
//!
//! Taken in ascending order; none is held while a user's code runs, and none but those of ranks 1
//! and 3 during a sync, and a file's own, which lets those who synchronise it take turns.
//!
//! | rank | lock | held for |
//! | --- | --- | --- |
//! | 1 | `Topics::changes` | one change to the list of topics, its syncs included; the close |
//! | 1 | `Topics::lets_go` | what has to go by retention, or because the store is full: planned, put on record, removed |
//! | 1, within it | the catalog, the recovery points, the cleaner's offsets | one replacement of their file, its syncs included |
//! | 1, within it | `Topics::list` | one look, one replacement |
//! | 1 | `Accumulators::registered`, `PerPartition::making` | one entry, one stage |
//! | 1 | `Coordinator::groups` | one look or entry; once, the reading of all papers |
//! | 1, within it or alone | `Group::papers` | one append to `__consumer_offsets` and what follows from it in memory |
//! | 1, within it | `OffsetsLog::topic` | one look; once, the creation of the topic |
//! | 2 | `Stage::staging` | the encoding of one record, one change of the line |
//! | 2 | `Group::shared` | one step of a group's state, one look |
//! | 3 | `Coordinator::universe` | one look; the listing of the topics when they have changed |
//! | 3 | `StageContext::agenda` | one entry |
//! | 3 | the turn of `Compacting` | one compaction, or one removal of segments, syncs included; a close or a deletion ends it and waits for that |
//! | 3, within it | the turn of `Unsealed` | the sealing of segments, syncs included; only those take it who wait for durability, close, or roll with too much unsealed |
//! | 3, within it | the record of `Cleaning` | one look, one entry and its file |
//! | 4 | `Throttle::paid_at` | one look |
//! | 4 | `Partition::writer` | one append |
//! | 5 | the queue of `Unsealed` | one look |
//! | 5 | `Segments::list` | one clone, one replacement |
//! | 5 | a cold segment's own lock | one look; opening and mapping the file, once |
//! | 5 | `Removed` | one look at what is left of removed segments |
//! | 6 | `Charged` | one grant of space, one change to what a log is charged; with the writer's lock held or without |
//! | 6 | `OpenSegments` | when a segment was opened: one addition, one search for another to let go |
//! | 6 | `Doorbells` | one clone of the list of bells, one change to it; bells ring without it |
//! | 7 | `SyncGate` | one look; a sync runs without it |
//! | 7 | `Doorbell::sleeper` | one look; the sleep runs without it |
//! | 6 | `LiveTails::logs` | when a tail is opened: one look at a few logs; nothing is closed under it |
//! | 7 | `Runway::front` | one look; pieces of zeros are written without it, and an append may wait for one |
//! | 8 | `HandedOut::hands` | one entry, one look |
//! | 8 | `PendingTable::entries` | one entry taken in or out; who waits for room sleeps without it |
//! | 8 | `Inbox::reader`, `Inbox::panicked`, `ResponderState::ends`, a responder's `Progress` | one look, one entry; who reads replies has taken the reader out |
//! | 9 | `Claims::taken` | one look, one entry |
//! | 9 | `Inbox::spin` | never waited for; a moment of one who is awake for a reply |
//! | 8 | `StageContext::failures`, a staged batch's tasks, `Topics::findings`, `Topics::steady_clock` | one look, one entry |
//! | 9 | `BufferPool`, a topic's settings and partitions, a producer's stages of further topics | one look, one replacement |
//!
//! Nobody who reads waits for a lock that is held during a sync, unless the system has no descriptor or mapping left
//! and an idle log is parked for it. Nobody who appends does, unless `unsynced_bytes_max` or 64 segments of the log are unsealed,
//! its tail is being parked, or another log's is, to make room for its own.
//!
//! Every atomic says who stores, who loads and which orderings pair, where it is declared or used.
//!
//! # Invariants
//!
//! Comments and tests refer to these by name. Each stands at the top of the file it belongs to.
//!
//! | name | where | says |
//! | --- | --- | --- |
//! | frozen | `storage/map.rs` | bytes below a published end are never written nor cut while they are mapped |
//! | backed | `storage/map.rs` | a view ends at or below a published end, which is never behind the file's end |
//! | latched | `partition/mod.rs` | after a write or sync of unknown outcome nothing is appended and nobody is told "durable" |
//! | sealed in order | `partition/sealing.rs` | nothing in a segment is called durable before those before it are sealed |
//! | few tails | `partition/live_tails.rs` | a store has no more tails open than its share of descriptors, as long as one can be parked |
//! | no circle | `partition/live_tails.rs` | who makes room never waits for another log's writer |
//! | shown | `partition/segments.rs` | of a file that may grow readers see no more than the end that its segment shows |
//! | told to all | `storage/disk.rs` | after a sync of an open file that failed, every later one fails |
//! | sealed shows | `partition/sealing.rs` | a segment's index files are empty on disk until it is durable, and its successor's name |
//! | ahead | `storage/runway.rs` | zeros written ahead of an appender never hit a batch |
//! | honest | `partition/sync.rs` | a waiter is told "durable" by a sync that began after its record was in the file |
//! | once | `partition/sync.rs` | a failed sync is never repeated |
//! | no resurrection | `partition/recovery.rs` | what was cut is durably gone before the first append |
//! | repeatable | `partition/recovery.rs` | every step of recovery can be cut short and done again |
//! | bounded unpacking | `format/compression/mod.rs` | no batch is unpacked to more than a bound, whatever it says of itself |
//! | verified | `format/decode.rs` | records are handed out only of a batch whose structure was checked; safety does not rest on it |
//! | marked | `storage/marks.rs` | a batch with marks passed every check at exactly its position, through this opening of the segment |
//! | unpacked here | `partition/point.rs` | a batch that a thread keeps unpacked for reads of single records passed every check at its position, through the same opening |
//! | brought first | `storage/brought.rs` | what a segment held when it was opened is touched through its mapping only once it was brought into memory by a call that can fail |
//! | checked once | `storage/verified.rs` | what counts as checked was checked through this opening of the segment, or appended by it |
//! | deleted stays deleted | `partition/removing.rs` | a log's new start is durable before anybody sees it, and what is below was durable |
//! | latest stays | `partition/compaction.rs` | what compaction leaves out was superseded, or may go |
//! | one swap | `storage/swap.rs` | an open can tell an unfinished swap from a whole one |
//! | gaps foretold | `storage/gaps.rs` | that offsets may be missing is durable before one is |
//! | one file | `partition/segments.rs` | a segment stands for one file, though its name comes to stand for another |
//! | bounded | `partition/open_segments.rs` | a store holds no more than 1,024 segments open, none of a deleted topic, none once closed |
//! | order | `partition/watermarks.rs` | log start ≤ log end, durable end ≤ log end |
//! | bounded | `buffer_pool.rs` | what a producer stages never takes more than its memory |
//! | in line | `stage.rs` | batches are opened, sealed and appended in one order, and none stands in line with nobody at it |
//! | one outcome | `stage.rs` | every batch that was opened gets an outcome, and a refusal is told |
//! | nothing left behind | `accumulator.rs` | what was staged is appended, or refused with an error, before a close returns |
//! | no lost wake-up | `partition/watermarks.rs` | an appender and a waiter cannot both miss the other |
//! | one reader | `coordinator/assignors/mod.rs` | every partition somebody subscribes to is given to exactly one subscriber |
//! | downhill | `coordinator/assignors/sticky_mixed.rs` | a partition moves only to one who has at least two fewer, so moving ends |
//! | never idle | `spin.rs` | a consumer stays awake for a moment only after it read something, and seldom in vain |
//! | one owner | `coordinator/group_state.rs` | at every moment a partition is held by at most one member of a group |
//! | comes to rest | `coordinator/group_state.rs` | once each member has done what it can, each holds what it is to have, and nothing moves |
//! | no needless move | `coordinator/group_state.rs` | what a member holds and is to keep it never lets go of |
//! | told | `coordinator/group.rs` | a member that goes to sleep unmarked has nothing to do |
//! | one order | `coordinator/group.rs` | what is on record of a group stands in memory in the order of the log |
//! | never ahead | `coordinator/group.rs` | a commit is appended only after everything below it is durable |
//! | kept until done | `consumer/member.rs` | a partition is let go of only when the application has done with it |
//! | finished | `handed_out.rs` | below what is finished, no record is in anybody's hands |
//! | done after | `request/turn.rs` | behind every call all of the work is done at least once by somebody |
//! | armed | `request/vigil.rs` | while somebody sleeps and nobody reads, the bell is armed and was looked past |
//! | once | `request/pending_table.rs` | every request leaves the table once, and who took it out tells the one who waits |
//! | bounded | `request/pending_table.rs` | no more are in flight than was said, and none once the table has ended |
//! | holds nothing open | `request/inbox.rs` | a thread of the store's own is never the last to hold the store |
//! | answered first | `request/progress.rs` | an offset is committed only once all replies below it are durable |
//! | roll back, roll on | `topics/mod.rs` | an unfinished creation is undone, an unfinished deletion finished |
//! | nothing twice | `repair/mend.rs` | no step takes away what tells a later repair that an offset was given out |
//! | one cause, one problem | `inspect/check/mod.rs` | what follows from reported damage is not reported again |
//!
//! # Tests
//!
//! | what | where |
//! | --- | --- |
//! | words, bytes, files | at the bottom of each file |
//! | crashes: cut at every byte, flipped bits, every effect failing, death at every effect | `partition/crash.rs` |
//! | crashes of a whole store, on a disk that fails, and loses what was not synced | `explorer.rs`; prints the seed of what fails, takes it back from `OTTLA_SEED`; `.ci/explore` plays as many as one likes |
//! | that the simulated disk forbids nothing a real one does | `explorer/conformance.rs`; root, ext4 and XFS; `OTTLA_CUTS` sets how many lineages |
//! | that the explorer finds bugs: those that are planted | `explorer/found_out.rs` |
//! | writes, reads and reservations that come short, or are interrupted, at every effect and at random | `partition/crash.rs`, `repair/crash.rs`, `explorer.rs` |
//! | pages that cannot be read, at every stretch and through every way to read | `partition/unreadable.rs` |
//! | what no test reaches | `.ci/coverage` prints it |
//! | what a test reaches and does not notice | `.ci/mutants` prints it |
//! | the tests, watched by AddressSanitizer or ThreadSanitizer | `.ci/sanitize` runs them, but for some that it names |
//! | real file systems: full, shut down, limited, unreadable; every call to the system failing | `tests/it/real_disks.rs`, skipped where that needs root or a program |
//! | real file systems after power cuts, on devices whose every write is on record, `tests/it/block_log.rs` | `tests/it/real_disks_recorded.rs`, skipped in the same way; `OTTLA_CUTS` sets how many, `OTTLA_SEED` where |
//! | groups on disks that fail or die at every effect of a commit, a join, a deletion, a compaction, an open | `coordinator/crash.rs` |
//! | groups in power cuts: commits in every way there is, members, rolls, compaction, a topic made anew | `coordinator/power.rs`; the same variables, and `OTTLA_LIVES` |
//! | compaction: death, failure and power cuts at every effect; a model; threads | `partition/compaction_crash.rs`, `partition/compaction_model.rs`; the same variables |
//! | compaction of topics: when, what is left, limits, restarts against a map, another decoder | `tests/it/compacting.rs` |
//! | deletion: death, failure and power cuts at every effect; a model | `partition/retention_crash.rs`; the same variables |
//! | a fixed space for minutes: disk, memory, descriptors, mappings | `tests/it/soak.rs`, ignored unless asked for |
//! | what users see, through the public face only | `tests/it/`, a module for each subject |
//! | real processes, really killed | `tests/it/killing.rs` |
//! | the same with everything going on at once | `tests/it/kill_storm.rs`; prints its seed; `OTTLA_KILLS` sets how often |
//! | stores into mapped memory, and views of it, under Miri | `storage/map.rs`; `.ci/miri` runs it |
//! | whatever bytes a fuzzer thinks of | `fuzzed.rs` in memory, `tests/it/fuzz_targets.rs` in files; `.ci/fuzz` runs them, `tests/fuzz/` has what was thought of |
//! | random operations and crashes against a model | `tests/it/model.rs`; prints its seed, takes it back from `OTTLA_SEED` |
//! | groups: random joins, leaves, deaths, slow members and topics against a model | `tests/it/groups_model.rs`; the same |
//! | consumers and groups, line by line of what Kafka's clients do | `tests/it/groups_conformance.rs` |
//! | groups whose process is really killed, over many lives | `tests/it/groups_killed.rs`; prints its seed; `OTTLA_KILLS` sets how often |
//! | the hand-over: every state of a small group; threads in thousands of orders | `coordinator/all_orders.rs`, `coordinator/hand_over.rs`; `OTTLA_SCHEDULES` sets how many |
//! | requests: every way to ask, every fault; kills between each pair of steps | `tests/it/request_reply.rs`, `tests/it/request_faults.rs`, `tests/it/request_restart.rs` |
//! | requests in power cuts, at every level; a disk that is full for a while, or fails for good | `request/power.rs`, `request/failing.rs`; the same variables |
//! | the table of requests, sleepers and readers in thousands of orders | `request/pending_model.rs`; fixed seeds, `OTTLA_SCHEDULES` sets how many |
//! | what groups have on record: Kafka's, an independent decoder, every byte flipped, papers nobody understands | `tests/it/groups_papers.rs` |
//! | directories that Kafka wrote | `tests/golden/`, `tests/it/golden.rs` |
//! | an independent codec | `tests/it/differential.rs` |
//! | this page | `tests/it/tidy.rs` |
