//! The knobs, and what each costs.
//!
//! The defaults are meant to be kept. Measure on the machine that counts: `ottla perf produce`, `ottla perf
//! consume` and `ottla perf latency` do so (see `ottla perf --help`). This page names what costs what; it has no
//! figures, since they would be those of another machine.
//!
//! # Durability
//!
//! [`Durability`](crate::Durability) is set for a store and may differ for each producer.
//!
//! * Waiting for a delivery under `Synced` costs an `fdatasync`, which everyone who waits at the same time for the
//!   same partition shares. More threads that wait make each sync serve more records. One thread that sends and
//!   waits in turn gets no more than one record for each sync.
//! * Send first, wait later: keep the [`Delivery`](crate::Delivery)s of some records, or call
//!   [`Producer::flush`](crate::Producer::flush) once, and one sync covers all of them.
//! * A partition is synced by itself. Records spread over many partitions need as many syncs;
//!   [`Producer::flush`](crate::Producer::flush) and [`Store::sync`](crate::Store::sync) have up to eight of them overlap.
//! * `Every(d)` and `Buffered` never make the sender wait. They differ in how much a power cut may take.
//! * A full segment is synced whatever the level, in the background. The append that finds it full waits only if more
//!   than [`unsynced_bytes_max`](crate::StoreBuilder::unsynced_bytes_max) of the partition is not synced yet, or if an
//!   earlier life of the store had begun the segment. Less of it means that a power cut takes less, that a killed process
//!   is recovered sooner, and that producers who are faster than the disk go at the disk's pace sooner.
//! * With a linger, records share a batch: see [`ProducerBuilder::linger`](crate::ProducerBuilder::linger). It is for
//!   records that nobody waits for, and what is staged is lost with the process.
//!
//! A producer under `Synced` appends with `pwrite`; others store into the mapping where the file system allows it
//! (ext4, tmpfs), a batch of 4 KiB or more only where the background thread has made the space ready, and otherwise
//! with `pwrite`. A page that was stored to costs more to sync than one that was written, a store costs no system
//! call. With large batches the background thread so takes a part of a second processor, if there is one.
//!
//! ```
//! use ottla::{Durability, Record, Store, TopicConfig};
//!
//! let store = Store::temporary()?;
//! let orders = store.create_topic("orders", TopicConfig::new())?;
//! let producer = store.producer(); // Synced
//! let mut deliveries = Vec::new();
//! for n in 0..100 {
//!     deliveries.push(producer.send(&orders, &format!("order {n}"))?);
//! }
//! // The first wait syncs for all; the others find it done.
//! for delivery in deliveries {
//!     delivery.wait()?;
//! }
//! let description = orders.describe()?;
//! assert_eq!(description.partitions[0].durable_end, 100);
//!
//! let careless = store.producer_builder().durability(Durability::Buffered).build();
//! assert_eq!(careless.send(&orders, Record::new("a metric"))?.wait()?.offset(), 100);
//! # Ok::<(), ottla::Error>(())
//! ```
//!
//! # Batches
//!
//! A record that is sent alone is a batch of its own, with a header of 61 bytes.
//! [`Producer::send_batch`](crate::Producer::send_batch) shares one header, one checksum, one lock and one append
//! among all its records, and makes them appear together. A producer with a
//! [`linger`](crate::ProducerBuilder::linger) gathers records of single sends into batches, in memory.
//!
//! # Segments
//!
//! * `segment.bytes` (64 MiB): the space that is mapped for a partition that is being appended to, and the unit of
//!   everything that is done with whole files. Smaller segments mean more files and more syncs at their ends, larger
//!   ones a longer scan where an index is missing. A batch must fit a segment.
//! * Disk space is reserved ahead of the writer in steps that begin at 64 KiB and double up to 8 MiB, and is given
//!   back when the segment is closed. So a partition with little in it takes little.
//! * `segment.ms` (7 days): a segment older than that is closed, also while nothing is appended. Its age is told by
//!   the timestamps of its records, as in Kafka.
//! * `index.interval.bytes` (4096): how many bytes a look-up by offset or time walks at most behind what the index
//!   says, one batch more if batches are larger. Less makes larger indexes.
//! * `segment.index.bytes` (10 MiB): a segment whose index would outgrow it is closed.
//!
//! A changed property that shapes segments applies from the next segment on.
//!
//! # Compaction
//!
//! Each compaction of a log goes over all of it that is closed: once to check everything, once over what is new for its
//! keys, and once to copy what stays. So what it costs for each record appended falls with `min.cleanable.dirty.ratio`
//! (0.5): at 0.5 a log is up to twice as long as it need be and each byte that stays is copied about once for every one
//! that is appended; at 0.9 it is up to ten times as long and a ninth is copied.
//!
//! * `segment.bytes`: the segment that is appended to takes no part, so a topic with few or small records wants small
//!   segments, or a `segment.ms`, or a `max.compaction.lag.ms`, which closes segments, too.
//! * `max.compaction.lag.ms`: how long a superseded record may stay at the most. `min.compaction.lag.ms`: for how long
//!   every record can be read. `delete.retention.ms` (a day): for how long a reader that goes through the whole log may
//!   take until it has reached the end; less makes tombstones go sooner.
//! * [`cleaner_io_max_bytes_per_second`](crate::StoreBuilder::cleaner_io_max_bytes_per_second): where appends and reads
//!   suffer while the background reads and writes. The thread takes a second processor, if there is one. Somebody who
//!   waits for [`Topic::compact`](crate::Topic::compact) has two while keys are noted.
//! * [`cleaner_dedupe_buffer_size`](crate::StoreBuilder::cleaner_dedupe_buffer_size) (128 MiB): 16 bytes for each key that
//!   was appended since the last compaction, and a third more. With less the log is gone over several times.
//! * [`cleaner_backoff`](crate::StoreBuilder::cleaner_backoff) (15 s): how soon what was closed is looked at. An idle store
//!   looks never.
//!
//! # Checkpoints
//!
//! [`StoreBuilder::checkpoint_interval`](crate::StoreBuilder::checkpoint_interval) (one second) bounds three things:
//! how long any append stays unsynced, whatever its producer's level; how often recovery points are put on record;
//! so how much the next open scans after a crash. What was sent under `Synced` is synced some 10 ms after, waited for
//! or not. A partition that collects 64 MiB of unsynced bytes is synced
//! earlier. Shorter intervals sync more often in the background.
//!
//! # Consumers
//!
//! * [`spin`](crate::ConsumerBuilder::spin) (20 µs): how long a poll that follows one with records looks again before
//!   it sleeps. It takes processor time of the consumer and saves the producer the wake-up of a sleeping thread. 0
//!   sleeps at once; on a machine with one processor nothing else makes sense.
//! * [`max_poll_records`](crate::ConsumerBuilder::max_poll_records) (500),
//!   [`fetch_max_bytes`](crate::ConsumerBuilder::fetch_max_bytes) (50 MiB) and
//!   [`max_partition_fetch_bytes`](crate::ConsumerBuilder::max_partition_fetch_bytes) (1 MiB) bound one poll. Records
//!   are borrowed, so large limits cost address space, not memory of the process's own; they bound how long one poll
//!   verifies checksums before it returns. A batch that is larger than a limit comes whole.
//! * [`Isolation::Durable`](crate::Isolation::Durable) sees a record only after its sync: with an idle or `Buffered`
//!   producer up to a checkpoint interval later.
//! * Compression pays for batches of many records: set a linger, or send batches. LZ4 costs the least, Zstandard makes
//!   the smallest files. What a thread's codecs need they keep until the thread ends. gzip and Zstandard have Kafka's
//!   levels; LZ4 has the fast one only, since the crate that does it knows no other: `compression.lz4.level` is kept.
//! * [`unpacked_batch_bytes_max`](crate::ConsumerBuilder::unpacked_batch_bytes_max) (128 MiB): the memory that one
//!   compressed batch may take of a reader that does not trust who writes.
//! * Compressed batches are unpacked by the poll that brings them, into buffers that the consumer uses again once nobody
//!   holds the records; what they unpack to counts towards the limits. A batch that does not fit into what a poll has
//!   room for is left to the next one, so a poll may bring fewer records than there are; of one that is larger than
//!   the limits the rest stays unpacked for the next.
//! * `poll` borrows; the iterator and `recv` make each message one of its own, which counts references.
//!   [`Records`](crate::Records) and messages keep the whole segment mapped until they are dropped.
//!
//! ```
//! use std::time::Duration;
//! use ottla::{Store, TopicConfig};
//!
//! let store = Store::temporary()?;
//! let config = TopicConfig::new().segment_bytes(1 << 20).max_message_bytes(64 << 10);
//! let topic = store.create_topic("small", config)?;
//! let consumer =
//!     store.consumer().spin(Duration::ZERO).max_poll_records(10).assign(topic.partitions())?;
//! assert_eq!(consumer.lag(&topic.partition(0)?)?, 0);
//! # Ok::<(), ottla::Error>(())
//! ```
//!
//! # Single records
//!
//! [`TopicPartition::read`](crate::TopicPartition::read) is for records whose offsets are known: 1.2 to 1.3 times as
//! fast as `seek` and `poll` where records are batches of their own, 20 times in batches of 64 KiB, and allocates nothing
//! in the long run. `index.interval.bytes` bounds the headers it walks over. In
//! batches of 8 KiB and more the first read leaves marks, some 4 bytes for each KiB, so that later ones sum nothing and
//! walk a KiB. They count with the indexes of segments held open, and go with them. Smaller batches that an index leads
//! to are summed each time. Of a compressed batch all is unpacked for one record, unless it is the one that the thread
//! read last: where single records are what is read, small batches or none compressed are faster.
//!
//! # Many partitions
//!
//! A partition that nobody uses costs no descriptor and no mapping, and a few KiB of memory. The first append opens one
//! descriptor and maps `segment.bytes` of address space. A store keeps so many of them open as are a quarter of the
//! descriptors that the process may have when the store is opened, at least 8 and at most 4,096. One more is opened only
//! after another is *parked*, one that was not appended to for long: its bytes are synced, its reserved space is given
//! back, descriptor and mapping are closed. The next append to it opens it again where it was, without reading the
//! segment. So partitions that take turns cost a sync for each turn once there are more of them than may be open; a
//! higher limit on open files helps. Segments that were followed by others and are not sealed yet count too, and no more
//! than 64 of one partition wait for it. If the system has no descriptor or no room for a mapping left all the same,
//! idle ones are let go of at once, and only if that does not help there is an error.
//!
//! Segments that are only read stay mapped, at most 1,024 of them for each store, those read last. Many partitions are
//! opened, created and closed several at a time.
//!
//! # Retention
//!
//! * `retention.bytes` and `retention.ms` let whole segments go, so a partition takes up to a segment more than
//!   `retention.bytes`: with a tight disk, set `segment.bytes` to a tenth of it or less. For the active segment to be
//!   closed by age though nothing is appended, `segment.ms` is to be a part of `retention.ms`; otherwise records stay until
//!   the last of the segment's is old enough.
//! * [`retention_check_interval`](crate::StoreBuilder::retention_check_interval) (five minutes) is how late records may go by
//!   age. By size they go when a segment is full. A look costs some system calls for each segment that was not looked
//!   at before, and one for each partition that is appended to; what is to go is put on record with one sync for all
//!   partitions together. It happens on a thread of its own; no append waits for it.
//! * `file.delete.delay.ms` (0; a minute in Kafka): for how long the files of deleted and of compacted segments are kept, with
//!   `.deleted` behind their names, for a person to copy them. What is deleted meanwhile takes space on top.
//! * [`bytes_max`](crate::StoreBuilder::bytes_max) bounds the store. `DropOldest` begins to let segments go when a sixteenth
//!   of the bound is left, so that appends seldom meet it; the largest partition loses first. Space is granted to a
//!   partition in steps of a 4,096th of the bound, 4 KiB to 1 MiB. Under a bound, space is reserved in steps no larger than
//!   that.
//! * Who holds [`Records`](crate::Records) for long holds the space of their segments on the disk.
//!
//! ```
//! use std::time::Duration;
//! use ottla::{BudgetPolicy, Store, TopicConfig};
//!
//! let store = Store::builder_temporary()
//!     .bytes_max(256 << 20, BudgetPolicy::DropOldest)
//!     .retention_check_interval(Duration::from_secs(60))
//!     .open()?;
//! let config = TopicConfig::new()
//!     .segment_bytes(4 << 20)
//!     .segment_ms(3_600_000)
//!     .retention_ms(24 * 3_600_000)
//!     .retention_bytes(64 << 20);
//! let topic = store.create_topic("readings", config)?;
//! assert_eq!(topic.describe()?.partitions[0].retention.due_segments, 0);
//! assert_eq!(store.health().budget_bytes, Some(256 << 20));
//! # Ok::<(), ottla::Error>(())
//! ```
//!
//! # Measured and kept, measured and left
//!
//! On two shared virtual cores with ext4, `ottla perf produce`, one thread, buffered, runs interleaved, medians; ratios
//! are what carries over.
//!
//! * Writing zeros ahead of the appender, in pieces of 1 MiB into reserved space: kept. The pages are then present, and
//!   large ones. 1.2 times the throughput at 100 bytes, 1.7 times at 1 KiB over making the pages present one by one.
//! * Sealing a full segment in the background: kept. With it, and the next, 1.3 times at 100 bytes and 1.9 times at
//!   1 KiB; the longest stall of 4,096 sends falls from 45 ms to 2.3 ms.
//! * Unmapping the stored-to pages in one go before a sync: kept. Otherwise the sync interrupts the other processors once
//!   for each page, and sealing in the background costs half the throughput of the appender.
//! * A send that takes partition, rules and time without a lock: kept, 1.8 times at 100 bytes.
//! * An appender that overtakes the zeros makes the next piece present instead of waiting: kept, 1.4 times over 4 GiB.
//!   That it writes zeros as well: left, since two writes to one file take turns.
//! * Batches of 4 KiB and more are written, not stored, where the space is not ready: kept. 2.4 times at 64 KiB.
//! * Such batches are stored where the background thread has been ahead: kept where there is a second processor. The
//!   sending thread's time falls to 0.65 for 1,000 records of 100 bytes, to 0.75 with a linger. Written a mebibyte at
//!   a time, zeros cost so little that the process needs no more time than before with 100 bytes; with batches of 1
//!   MiB it needs 1.3 times as much. With both threads on one processor a linger is no slower, but batches of 1,000
//!   records are (0.8 to 0.9 times), so nothing is made ready for them there.
//! * No result as large as an error travels through a send, nothing is read in one piece right after it was written in
//!   several, a header is written again only where it differs: kept, 1.4 times at 100 bytes. With a linger 1.3 times,
//!   on top of the line before.
//! * A delivery with nothing to wait for counts no references: kept.
//! * The value is asked for before the clock is: kept with a linger, 1.15 times where values are not in the nearest
//!   cache; left without one, no difference.
//! * A batch builder that keeps its buffer up to 1 MiB instead of 256 KiB: kept, 2.6 times for batches of 1 MiB.
//! * Checksums in pieces of 6 KiB instead of stretches of 24 KiB: kept, 1.4 times where the bytes lie in memory, none where
//!   their pages are mapped for the first time, which then costs as much as the sum.
//! * Large pages for a segment that is read from its beginning: kept, 1.3 to 1.7 times the cold scan, which then keeps up
//!   with reading the files in pieces of 1 MiB, or nearly. Asking for 4 to 32 MiB ahead (`MADV_WILLNEED`): left, 0.6 to 0.8
//!   times, since what is asked for so comes in small pages. `MADV_SEQUENTIAL`: left, no difference that shows.
//! * `MADV_POPULATE_READ` for every stretch of 128 KiB before the first scan touches it: kept, though the scan of what is in
//!   memory is then 0.8 to 0.9 times as fast, since what the disk cannot read is an error by it and not a signal. Asking
//!   which pages are in memory first (`mincore`), and touching each page through a write to a file in memory: left, both
//!   cost as much, some 100 ns a page (the second was measured beside other load). Bringing one page for each 64 KiB, which
//!   maps its neighbours, and asking `mincore` then: left, half the cost, but for files of another owner `mincore` says yes
//!   to everything. Pages written in pieces of 1 MiB are mapped about eight times as fast as those
//!   written in pieces of 64 KiB.
//! * Fetching ahead by instruction while summing: left, 0.5 to 0.9 times.
//! * Compaction's table of keys in large pages, and what was read ahead of a batch not read again: kept, 1.17 times; an
//!   eighth of the time was faults. What compaction writes is begun to be written out at once, so that the sync in the end
//!   waits for less: kept, 1.08 times. Of what is left the survey takes 70 % (the table of keys 42 %), reading 20 %, removing
//!   the replaced files 7 %; what waits for syncs is not in these.
//! * Keys noted by a second thread for [`Topic::compact`](crate::Topic::compact), and segments of which nothing stays not
//!   read again: kept, 1.1 to 1.3 times with 100,000 keys superseded; with 1,000 no difference that shows. The second
//!   thread takes some 50 ns for each record, a tenth of them hashing: most is waiting for memory, where keys are new.
//!   Where few keys come again and again it waits for the walk, and where each is new the walk waits for it: with 1,000
//!   keys, which are half of the log, each of the two is idle for a quarter of the time.
//! * A table of keys that grows where it lies, in memory that is as long as it may become: kept, no difference in time that
//!   shows. 6.3 million keys fit the default memory, before it was 3.4, and half as much memory is touched.
//! * Removing what a compaction has replaced by a thread of its own while the next segments are copied: left, 1.03 times
//!   with 1,000 keys, less than runs differ. Removing takes up to 9 ms for 32 MiB, and nothing follows the last of it.
//! * Noting keys in a walk that predicts lengths, as the one that checks records does: left, no difference that shows.
//! * Searches in the table of keys that begin where a cache line does, and room made once every other slot is in use: kept,
//!   0.9 of that thread's time.
//! * A poll that ends in front of a compressed batch it has no room for, instead of handing out a part of it: kept, 0.95 of
//!   the time for 256 records of some 120 bytes in a batch, LZ4 and Snappy, 500 records in a poll; 4 ns for each
//!   record are the walk over them.
//! * LZ4's unpacking in a function that is not inlined: kept, scans are 1.2 times as fast (0.71 to 0.85 of the crate alone,
//!   unpacking into memory it keeps). Inlined, the crate's copies of fixed length became calls. The same around packing:
//!   left, no difference.
//! * Snappy and LZ4 in smaller blocks than 32 and 64 KiB: left, 1.05 times at 8 KiB with Snappy for a tenth more bytes, no
//!   difference with LZ4.
//! * LZ4's blocks packed and unpacked by code of our own, in safe Rust, copies being looked for by five bytes instead of
//!   four: left, though it produces such batches in 0.88 of the time and scans them in 0.72. A codec is not what a log is
//!   for: a crate that many use and test is worth more.
//! * Producing batches of 256 records of some 120 bytes with LZ4, which is 0.72 times as fast as its crate alone over the
//!   same bytes (Snappy 0.71): of the time the crate takes 72 to 75 % (Snappy 67 %), copying the values into the batch 11 %
//!   (13 %), the rest of encoding 9 %, the send's own loop 3 %, storing into the log 1.6 %, the checksum 1 %. A buffer that is
//!   packed into and stored from, without a copy between: left, 0.3 % at the most. Fetching eight values ahead, and
//!   encoding without working out lengths first: left, no difference that shows.
//! * Stepping over batches that compaction drops, without reading them: left, no difference that shows where they are
//!   cached, and where they are not many small reads take the place of few long ones.
//! * Zeros written 2 MiB a call, where a large page of the processor's begins, for batches of 4 KiB or more: kept. Where the
//!   file system keeps such a piece together it is mapped by one entry: the first scan of what was so written is 1.4 times
//!   as fast with values of 1 KiB, 1.1 to 1.2 times with 100 bytes, appends of 1 MiB 1.1 to 1.3 times, of 16 KiB and of 1,000 records of 100 bytes no
//!   difference that shows. What is no whole large page is written 128 KiB a call: at 1 MiB a call, mapped page by page,
//!   batches of 1 MiB took 3 times as long over 4 GiB. Single records stay at 1 MiB a call: 128 KiB was 0.75 times as fast
//!   with 1 KiB, 2 MiB made no difference with 100 bytes and 0.8 times with 1 KiB. An appender that writes for itself once
//!   it outruns the zeros: left, bursts of batches of 16 KiB at half the rate.
//! * A lingering send of 100 bytes, values in a near cache, takes some 60 ns: 20 of them staging (locks 4, lengths and the
//!   rest of encoding 16), copying into the batch and from there into the log 10, the caller's side with the delivery 13,
//!   the clock 6, the checksum 5, what is left in the system. Inlining all of it into the caller: left, no difference.
//! * A thread that finds the partition's lock held gives up its processor ten times before it sleeps: kept, 1.1 times with
//!   eight threads on two processors, no difference with two or four. A hundred times: left, no gain.
//! * An index is searched from a guessed place, not from its middle: kept, 1.2 times the random reads of single records of
//!   100 bytes, 1.1 times of 1 KiB, no difference in batches of 64 KiB.
//! * A batch's header is not passed on as a result while batches are checked: kept, 1.3 times the first scan where each record
//!   is a batch of its own.
//! * Having the processor fetch the lines behind the end of the log after each append: left, no difference.
//! * A background sync every 8 MiB instead of every 64 MiB: left, 0.8 times (before sealing was in the background).
