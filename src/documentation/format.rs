//! Every file in a data directory, byte by byte.
//!
//! ```text
//! data/
//! ├── .lock                                 locked while a writer has the directory
//! ├── .kafka_cleanshutdown                  only while it is closed, and was closed properly
//! ├── recovery-point-offset-checkpoint
//! ├── log-start-offset-checkpoint
//! ├── replication-offset-checkpoint
//! ├── cleaner-offset-checkpoint             once something was compacted
//! ├── ottla.topics                          ours
//! └── orders-0/                             topic, dash, number of the partition
//!     ├── 00000000000000000000.log          a segment, named by its first offset
//!     ├── 00000000000000000000.index
//!     ├── 00000000000000000000.timeindex
//!     ├── 00000000000000001200.snapshot     what Kafka knows of producers, at this offset
//!     ├── leader-epoch-checkpoint
//!     ├── partition.metadata
//!     ├── ottla.compacted                   ours: where offsets may be missing
//!     └── ottla.cut-00000000000000001200-0  ours: what recovery cut off, or a repair took out
//! ```
//!
//! All but `ottla.topics`, `ottla.compacted`, `ottla.cut-*` and `ottla.damaged-*`, a small file as it was before a
//! [repair](crate::repair), are Kafka's, in Kafka's bytes. A file that is replaced is written beside
//! as `*.tmp`, synced, renamed, and its directory synced; what a crash leaves of that is removed by the next open.
//! While a segment is compacted its files have `.cleaned`, `.swap` or `.deleted` behind their names, as Kafka's have.
//! Other files of Kafka's are left alone, `meta.properties` among them; `.txnindex` files are joined with their segments, without
//! entries of transactions of which nothing is left.
//!
//! # `.log`: batches
//!
//! A segment is batches of version 2, back to back, and nothing else. While it is being appended to, zeros may follow:
//! space that was reserved. Integers are big-endian.
//!
//! | byte | length | field |
//! | --- | --- | --- |
//! | 0 | 8 | base offset |
//! | 8 | 4 | length of what follows |
//! | 12 | 4 | leader epoch: counts unclean openings |
//! | 16 | 1 | magic, 2 |
//! | 17 | 4 | CRC-32C of everything from byte 21 on |
//! | 21 | 2 | attributes: bits 0–2 compression, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon |
//! | 23 | 4 | last offset − base offset |
//! | 27 | 8 | base timestamp, ms since 1970 |
//! | 35 | 8 | greatest timestamp |
//! | 43 | 8 | producer id, −1 |
//! | 51 | 2 | producer epoch, −1 |
//! | 53 | 4 | base sequence, −1 |
//! | 57 | 4 | number of records |
//! | 61 | | records |
//!
//! A record, with `varint` for zigzag integers of variable length:
//!
//! | field | |
//! | --- | --- |
//! | length | varint, of what follows |
//! | attributes | 1 byte, 0 |
//! | timestamp − base timestamp | varint of 64 bits |
//! | offset − base offset | varint |
//! | key | varint length, −1 for null; bytes |
//! | value | the same |
//! | headers | varint count; each: varint length and name in UTF-8; varint length, −1 for null, and value |
//!
//! ```
//! use ottla::inspect;
//! use ottla::{Record, Store, TopicConfig};
//!
//! let store = Store::temporary()?;
//! let topic = store.create_topic("orders", TopicConfig::new())?;
//! let record = Record::new("paid").key("k").timestamp(1_700_000_000_000);
//! store.producer().send(&topic, record)?.wait()?;
//!
//! let path = store.path().join("orders-0/00000000000000000000.log");
//! let mut dump = inspect::dump_log(path)?;
//! let batch = dump.next_batch()?.map(|batch| batch.header).ok_or(ottla::Error::Closed)?;
//! assert_eq!((batch.base_offset, batch.position, batch.magic), (0, 0, 2));
//! // 61 bytes of header; length, attributes, two deltas, key, value, no headers.
//! assert_eq!(batch.len, 61 + 1 + 1 + 1 + 1 + (1 + 1) + (1 + 4) + 1);
//! # Ok::<(), ottla::Error>(())
//! ```
//!
//! The checksum does not cover the first 17 bytes. Base offset and length are protected by the rule that offsets and
//! batches continue; nothing protects the leader epoch. When a batch is stored into a mapping its first 12 bytes are
//! stored last, so that a reader in another process meets zeros or a whole batch.
//!
//! # `.index` and `.timeindex`
//!
//! Both are advice: they are checked before they are used, and rebuilt from the log if they are missing or cannot be true.
//!
//! | file | entry |
//! | --- | --- |
//! | `.index` | last offset of a batch − first offset of the segment, 4 bytes; position of the batch, 4 bytes |
//! | `.timeindex` | greatest timestamp so far, 8 bytes; last offset of the batch that brought it − first offset of the segment, 4 bytes |
//!
//! An entry is made for a batch that starts more than `index.interval.bytes` behind the last one that has one; the last
//! timestamp of a closed segment is always indexed. They are written when a segment is closed, and after a crash.
//!
//! # `.snapshot`
//!
//! Kafka's state of idempotent producers: 2 bytes version (1), 4 bytes CRC-32C of the rest, 4 bytes count, then entries.
//! Our own batches have no producer id and change nothing in it, so the newest one is carried along, and an empty one is
//! written where there is none. After a recovery that met batches of idempotent producers none is written: Kafka
//! rebuilds it.
//!
//! # Checkpoints
//!
//! Text. Line 1 is the version, `0`; line 2 the number of entries; then one entry a line.
//!
//! | file | entry | written |
//! | --- | --- | --- |
//! | `recovery-point-offset-checkpoint` | topic, partition, offset below which everything was durable | at most once each checkpoint interval, after a recovery, at close |
//! | `log-start-offset-checkpoint` | topic, partition, first offset, where it is not the first segment's | before a log's beginning is deleted, at close |
//! | `replication-offset-checkpoint` | topic, partition, high watermark: the log end | at close |
//! | `cleaner-offset-checkpoint` | topic, partition, offset below which keys were compared: the next compaction begins there | after a compaction |
//! | `leader-epoch-checkpoint` | epoch, first offset of it | before the first append to a new log, and after each unclean opening |
//!
//! # `partition.metadata`
//!
//! ```text
//! version: 0
//! topic_id: C0i83-aGRiy3PKeeXzsc6g
//! ```
//!
//! Without an end to the last line. The id is 16 bytes in URL-safe base64 without padding.
//!
//! # `.kafka_cleanshutdown`
//!
//! `{"version":0,"brokerEpoch":-1}`; −1 says that no broker was there.
//!
//! # `.lock`
//!
//! Holds a record lock of the `fcntl` family, which is what a JVM takes too; on Linux an open file description lock.
//! The file is never removed. Its text is for people and for recovery: `pid=…`, and `boot=…`, the system's id of its last
//! start.
//!
//! # `ottla.topics`
//!
//! What Kafka keeps in its metadata log: names, ids, numbers of partitions, properties.
//!
//! ```text
//! ottla.topics 1
//! topic orders C0i83-aGRiy3PKeeXzsc6g 3 3 kept
//! set segment.bytes 1048576
//! topic old 8IpZNi4pRse8Cs_QxZSQIQ 1 1 deleting
//! crc32c 1a2b3c4d
//! ```
//!
//! Line 1 names the version of the format; a later one than the program knows is
//! [`Error::FormatTooNew`](crate::Error::FormatTooNew). A topic has its id, the partitions it has, those it is about to
//! have (they differ only while some are being made), and `kept` or `deleting`. `set` lines belong to the topic before.
//! The last line is the CRC-32C of everything before it, in hexadecimal digits.
//!
//! # `ottla.compacted`
//!
//! One offset, in the form of a checkpoint: version, the number 1, the offset. Below it records may be missing because
//! they were compacted away, and everything is durable. It is raised before the first file is replaced;
//! `cleaner-offset-checkpoint` is Kafka's, is written afterwards, and gaps below its offsets are no damage either.
//!
//! # `ottla.cut-<offset>-<n>`
//!
//! The bytes that recovery cut off a log whose next offset was `<offset>`, as they were. Nobody reads them again; remove
//! them when you have looked.
