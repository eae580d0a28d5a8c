//! What Kafka keeps of idempotent producers and aborted transactions, derived from the log.
//!
//! A snapshot at an offset says what is known of every producer from the batches below it; a segment's transaction
//! index has an entry for each marker in it that aborts. Both are what Kafka itself derives when it loads a log whose
//! snapshots are gone.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::format::compression::Unpacked;
use crate::format::compression::Unpacker;
use crate::format::decode::Batch;
use crate::inspect::producer_snapshot;
use crate::inspect::producer_snapshot::KnownProducer;
use crate::storage::disk::Access;
use crate::storage::file_name::OffsetFile;
use crate::storage::scan::Continuity;
use crate::storage::scan::Depth;
use crate::storage::scan::Scan;
use crate::storage::scan::Scanned;
use crate::storage::segment_files::SegmentContext;

/// Everything that batches say of producers, up to some offset.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    known: BTreeMap<i64, KnownProducer>,
    /// The entries of transaction indexes, by the segments that their markers lie in.
    aborted: BTreeMap<i64, Vec<u8>>,
}

impl Producers {
    /// Walks the batches below `upto` of a log that is in order.
    pub(crate) fn below(
        context: &SegmentContext,
        base_offsets: &[i64],
        upto: i64,
    ) -> Result<Producers> {
        let mut producers = Producers::default();
        let (mut unpacker, mut unpacked) = (Unpacker::default(), Unpacked::default());
        for base_offset in base_offsets {
            let path = OffsetFile::Log.path(&context.directory, *base_offset);
            let file = context.disk.open(&path, Access::Read)?;
            let continuity = Continuity { expected: *base_offset, gaps_below: i64::MAX };
            let mut scan = Scan::new(&file, 0, continuity, Depth::Checksums)?;
            while let Scanned::Batch { header, bytes, .. } = scan.next()? {
                if header.base_offset >= upto {
                    return Ok(producers);
                }
                if header.producer_id < 0 {
                    continue;
                }
                if header.attributes.is_control() {
                    unpacked.clear();
                    if let Ok(batch) = unpacker.verify(bytes, &mut unpacked) {
                        producers.take_marker(*base_offset, &batch);
                    }
                    continue;
                }
                let producer = producers.of(header.producer_id, header.producer_epoch);
                producer.last_sequence = header.last_sequence();
                producer.last_offset = header.last_offset();
                producer.offset_delta = header.last_offset_delta;
                producer.last_timestamp_ms = header.max_timestamp_ms;
                if header.attributes.is_transactional() && producer.open_from < 0 {
                    producer.open_from = header.base_offset;
                }
            }
        }
        Ok(producers)
    }

    /// Gives the bytes of a snapshot.
    pub(crate) fn snapshot(&self) -> Vec<u8> {
        producer_snapshot::to_bytes(self.known.values())
    }

    /// Gives the bytes of a segment's transaction index.
    pub(crate) fn aborted_in(&self, base_offset: i64) -> &[u8] {
        self.aborted.get(&base_offset).map_or(&[], |entries| entries)
    }

    fn of(&mut self, id: i64, epoch: i16) -> &mut KnownProducer {
        let producer = self.known.entry(id).or_insert_with(|| KnownProducer::new(id, epoch));
        if producer.epoch != epoch {
            // Sequences begin anew with an epoch; what the coordinator did stays.
            let (coordinator_epoch, open_from) = (producer.coordinator_epoch, producer.open_from);
            *producer =
                KnownProducer { coordinator_epoch, open_from, ..KnownProducer::new(id, epoch) };
        }
        producer
    }

    /// Takes up the end of a transaction.
    fn take_marker(&mut self, base_offset: i64, batch: &Batch<'_>) {
        let header = *batch.header();
        let Some(record) = batch.records().next() else {
            return;
        };
        // A control record's key is a version and a type, 0 for abort and 1 for commit; its value a version and the
        // coordinator's epoch.
        let kind = record.key.and_then(|key| key.first_chunk::<4>()).map(|key| key[3]);
        let Some(kind @ (0 | 1)) = kind else {
            return;
        };
        let epoch = record.value.and_then(|value| value.get(2..6)?.first_chunk::<4>());
        let timestamp_ms = record.timestamp_ms;
        let producer = self.of(header.producer_id, header.producer_epoch);
        producer.coordinator_epoch = epoch.map_or(-1, |bytes| i32::from_be_bytes(*bytes));
        producer.last_timestamp_ms = timestamp_ms;
        let first_offset = std::mem::replace(&mut producer.open_from, -1);
        if kind == 1 || first_offset < 0 {
            return;
        }
        let open = self.known.values().map(|producer| producer.open_from);
        let first_open = open.filter(|offset| *offset >= 0).min();
        let last_offset = header.base_offset;
        let entries = self.aborted.entry(base_offset).or_default();
        entries.extend_from_slice(&0_i16.to_be_bytes());
        for field in
            [header.producer_id, first_offset, last_offset, first_open.unwrap_or(last_offset + 1)]
        {
            entries.extend_from_slice(&field.to_be_bytes());
        }
    }
}
