//! A read-only look at what lies in a data directory: [`check()`] it, or dump one file.
//!
//! Nothing here takes a lock or writes a byte, so all of it works while another process holds the directory
//! open, and on a directory that Kafka wrote. Memory is bounded by one batch, or one index.

pub(crate) mod check;
pub(crate) mod file_kind;
mod index_entries;
mod log_dump;
pub(crate) mod producer_snapshot;

pub use crate::inspect::check::check;
pub use crate::inspect::check::check_with;
pub use crate::inspect::check::report::CheckCounts;
pub use crate::inspect::check::report::CheckReport;
pub use crate::inspect::check::report::Problem;
pub use crate::inspect::check::report::Progress;
pub use crate::inspect::file_kind::FileKind;
pub use crate::inspect::index_entries::OffsetIndexEntry;
pub use crate::inspect::index_entries::TimeIndexEntry;
pub use crate::inspect::index_entries::TransactionIndexEntry;
pub use crate::inspect::index_entries::dump_offset_index;
pub use crate::inspect::index_entries::dump_time_index;
pub use crate::inspect::index_entries::dump_transaction_index;
pub use crate::inspect::log_dump::ControlRecord;
pub use crate::inspect::log_dump::DumpedBatch;
pub use crate::inspect::log_dump::DumpedHeader;
pub use crate::inspect::log_dump::DumpedRecord;
pub use crate::inspect::log_dump::DumpedRecordIter;
pub use crate::inspect::log_dump::DumpedRecords;
pub use crate::inspect::log_dump::LogDump;
pub use crate::inspect::log_dump::dump_log;
pub use crate::inspect::producer_snapshot::ProducerBatch;
pub use crate::inspect::producer_snapshot::ProducerSnapshotEntry;
pub use crate::inspect::producer_snapshot::dump_producer_snapshot;
