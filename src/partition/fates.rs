//! What became of the transactions in a log, as its control batches tell.
//!
//! A transaction is a run of batches of one producer that are marked as transactional, up to the producer's next
//! control batch, which says whether it was committed or aborted. Whether the records count is known only there.

use std::collections::HashMap;
use std::ops::Range;

use crate::format::decode::Batch;
use crate::format::header::BatchHeader;

/// What is known of transactions and of producers, from batches that were met in order.
#[derive(Debug, Default)]
pub(crate) struct Fates {
    producers: HashMap<i64, Producer>,
    /// The offsets of markers in front of which nothing of their transaction is left, ascending.
    lone_markers: Vec<i64>,
}

#[derive(Debug, Default)]
struct Producer {
    /// The first offset of a transaction that has not ended yet.
    open_from: Option<i64>,
    /// From the first offset to the marker of each transaction that was aborted.
    aborted: Vec<Range<i64>>,
    /// Where its last batch of data ends.
    last_offset: Option<i64>,
    last_marker: Option<i64>,
}

impl Fates {
    /// Notes a batch whose structure was checked.
    ///
    /// `Err` names a control batch that cannot be understood: nothing is known of its transaction then.
    pub(crate) fn note(&mut self, batch: &Batch<'_>) -> Result<(), &'static str> {
        let header = batch.header();
        if header.producer_id < 0 {
            return Ok(());
        }
        if header.attributes.is_control() {
            return self.note_marker(batch);
        }
        let producer = self.producers.entry(header.producer_id).or_default();
        producer.last_offset = Some(header.last_offset());
        if header.attributes.is_transactional() {
            producer.open_from.get_or_insert(header.base_offset);
        }
        Ok(())
    }

    /// Notes the end of a transaction, if the batch is one.
    pub(crate) fn note_marker(&mut self, batch: &Batch<'_>) -> Result<(), &'static str> {
        let header = batch.header();
        let producer = self.producers.entry(header.producer_id).or_default();
        let aborts = match batch.records().next() {
            // One that was emptied by an earlier compaction, when nothing was left of its transaction.
            None => false,
            Some(record) => match record.key.and_then(|key| key.first_chunk::<4>()) {
                Some([0, _, 0, 0]) => true,
                Some([0, _, 0, 1]) => false,
                _ => return Err("a control record of an unknown kind"),
            },
        };
        producer.last_marker = Some(header.base_offset);
        match producer.open_from.take() {
            None => self.lone_markers.push(header.base_offset),
            Some(from) if aborts => producer.aborted.push(from..header.base_offset),
            Some(_) => {}
        }
        Ok(())
    }

    /// Tells whether nothing was left of the transaction that the marker at an offset ended.
    pub(crate) fn is_lone_marker(&self, offset: i64) -> bool {
        self.lone_markers.binary_search(&offset).is_ok()
    }

    /// Tells whether the records of a batch were taken back. Asked once every transaction below the end of what
    /// is compacted has ended.
    pub(crate) fn is_aborted(&self, header: &BatchHeader) -> bool {
        if !header.attributes.is_transactional() || header.attributes.is_control() {
            return false;
        }
        let Some(producer) = self.producers.get(&header.producer_id) else {
            return false;
        };
        let after = producer.aborted.partition_point(|range| range.start <= header.base_offset);
        let range = after.checked_sub(1).map(|index| &producer.aborted[index]);
        range.is_some_and(|range| range.contains(&header.base_offset))
    }

    /// Tells whether a batch holds the last sequence of its producer, as far as batches were met; of a producer of
    /// which there are only markers, whether it is the last of them, which holds its epoch.
    pub(crate) fn is_last_of_producer(&self, header: &BatchHeader) -> bool {
        let producer = self.producers.get(&header.producer_id);
        producer.is_some_and(|producer| match producer.last_offset {
            Some(last) => last == header.last_offset(),
            None => producer.last_marker == Some(header.base_offset),
        })
    }

    /// Tells whether no batch was met that says which producer it is of.
    pub(crate) fn know_no_producer(&self) -> bool {
        self.producers.is_empty()
    }

    /// Gives the first offset of all transactions that have not ended.
    pub(crate) fn first_open(&self) -> Option<i64> {
        self.producers.values().filter_map(|producer| producer.open_from).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TimestampType;
    use crate::format::encode::BatchBuilder;
    use crate::format::header;
    use crate::record::Record;

    /// A batch of one record, of a producer, with attribute bits.
    pub(crate) fn batch(offset: i64, producer_id: i64, attributes: i16, key: &[u8]) -> Vec<u8> {
        let mut builder = BatchBuilder::default();
        builder.push(&Record::new("v").key(key), 1).unwrap();
        let mut encoded = builder.seal(TimestampType::CreateTime);
        encoded.stamp(offset, 0);
        let mut bytes = encoded.bytes().to_vec();
        bytes[header::field::PRODUCER_ID].copy_from_slice(&producer_id.to_be_bytes());
        bytes[header::field::ATTRIBUTES].copy_from_slice(&attributes.to_be_bytes());
        bytes
    }

    const DATA: i16 = 0x10;
    const MARKER: i16 = 0x30;
    const ABORT: &[u8] = &[0, 0, 0, 0];
    const COMMIT: &[u8] = &[0, 0, 0, 1];

    #[test]
    fn transactions_end_with_their_producers_next_marker() {
        let log = [
            (0, 7, DATA, b"k".as_slice()),
            (1, 8, DATA, b"k"),
            (2, 7, MARKER, ABORT),
            (3, 7, DATA, b"k"),
            (4, 8, MARKER, COMMIT),
            (5, 7, MARKER, COMMIT),
            (6, 9, 0, b"k"),
            (7, 8, DATA, b"k"),
        ];
        let batches: Vec<_> = log.iter().map(|(o, p, a, k)| batch(*o, *p, *a, k)).collect();
        let mut fates = Fates::default();
        for bytes in &batches {
            fates.note(&Batch::verified(bytes).unwrap()).unwrap();
        }
        let headers: Vec<_> =
            batches.iter().map(|b| *Batch::verified(b).unwrap().header()).collect();
        let aborted: Vec<i64> =
            headers.iter().filter(|h| fates.is_aborted(h)).map(|h| h.base_offset).collect();
        assert_eq!(aborted, [0]);
        let last: Vec<i64> = headers
            .iter()
            .filter(|h| fates.is_last_of_producer(h))
            .map(|h| h.base_offset)
            .collect();
        assert_eq!(last, [3, 6, 7]);
        assert_eq!(fates.first_open(), Some(7));
    }

    #[test]
    fn a_marker_of_an_unknown_kind_is_not_taken_for_a_commit() {
        let mut fates = Fates::default();
        for (bytes, is_known) in [
            (batch(0, 7, DATA, b"k"), true),
            (batch(1, 7, MARKER, &[0, 0, 0, 9]), false),
            (batch(2, 7, MARKER, b"k"), false),
            (batch(3, 7, MARKER, ABORT), true),
        ] {
            assert_eq!(fates.note(&Batch::verified(&bytes).unwrap()).is_ok(), is_known);
        }
    }
}
