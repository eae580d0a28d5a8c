//! Which transactions were aborted in a segment; read by Kafka, carried along here.
//!
//! A file of 34-byte entries: version i16, producer id i64, first offset i64, offset of the marker i64, last stable
//! offset i64.

/// Gives the entries that are left without those of some markers. What is no entry stays as it is: Kafka would refuse
/// it, and build the index anew.
pub(crate) fn without(entries: &[u8], is_gone: impl Fn(i64) -> bool) -> Vec<u8> {
    let mut left = Vec::with_capacity(entries.len());
    let mut whole = entries.chunks_exact(ENTRY_LEN);
    for entry in whole.by_ref() {
        let marker = entry[MARKER].first_chunk();
        if !marker.is_some_and(|marker| is_gone(i64::from_be_bytes(*marker))) {
            left.extend_from_slice(entry);
        }
    }
    left.extend_from_slice(whole.remainder());
    left
}

const ENTRY_LEN: usize = 34;
const MARKER: std::ops::Range<usize> = 18..26;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_markers_that_nothing_is_left_of_are_taken_out() {
        let entry = |producer: i64, first: i64, marker: i64| -> Vec<u8> {
            let fields = [producer, first, marker, first];
            let fields = fields.iter().flat_map(|field| field.to_be_bytes());
            [0, 0].into_iter().chain(fields).collect()
        };
        let entries = [entry(7, 1, 5), entry(8, 2, 6), entry(7, 8, 9)];
        let left = without(&entries.concat(), |marker| marker == 6);
        assert_eq!(left, [&entries[0][..], &entries[2]].concat());
        // A fuzzer's: an entry that was cut off behind its marker was taken out as if it were whole.
        for len in [20, 30, 33] {
            assert_eq!(without(&entries[0][..len], |_| true), entries[0][..len], "no whole entry");
        }
    }
}
