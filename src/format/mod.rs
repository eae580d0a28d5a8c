//! Pure functions between values and Kafka's bytes.
//!
//! A segment file is record batches of version 2, back to back, and nothing else:
//!
//! ```text
//! segment  = batch*
//! batch    = header(61 bytes) records
//! header   = base offset i64 · length i32 · leader epoch i32 · magic i8 = 2 · checksum u32 ·
//!            attributes i16 · last offset delta i32 · base timestamp i64 · max timestamp i64 ·
//!            producer id i64 · producer epoch i16 · base sequence i32 · record count i32
//! record   = length varint · attributes i8 = 0 · timestamp delta varlong · offset delta varint ·
//!            key · value · header count varint · header*
//! key      = length varint (−1 = null) bytes          value = the same
//! header   = name length varint · name UTF-8 · length varint (−1 = null) bytes
//! ```
//!
//! Fixed-width integers are big-endian; the checksum is CRC-32C from the attributes to the end of the
//! batch, so base offset and leader epoch can be stamped without touching it.
//!
//! What the records of Kafka's internal topics hold stands in files of its own: `group_records.rs`,
//! `consumer_protocol.rs`.

pub(crate) mod compression;
pub(crate) mod consumer_protocol;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod fields;
#[cfg(test)]
mod group_checks;
pub(crate) mod group_records;
pub(crate) mod header;
pub(crate) mod rewrite;
pub(crate) mod varint;
