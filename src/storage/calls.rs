//! Work that a call to the system may do in part, or not at all because a signal came, done in full.

use std::io;
use std::io::IoSlice;
use std::ops::Range;

/// Calls until all of `0..len` is done, with what is left of it; tells how much was done. That is less than all only if a
/// call did nothing, as at the end of a file.
pub(super) fn in_full(
    len: usize,
    mut call: impl FnMut(Range<usize>) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut done = 0;
    while done < len {
        match call(done..len) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Calls, with a position and a length, until a whole range is done by calls that do all or nothing. Where signals come
/// so fast that all at once never gets done, the pieces become smaller.
pub(super) fn in_pieces(
    range: Range<u64>,
    mut call: impl FnMut(u64, u64) -> io::Result<()>,
) -> io::Result<()> {
    let (mut position, mut piece_len) = (range.start, range.end - range.start);
    while position < range.end {
        let len = piece_len.min(range.end - position);
        match call(position, len) {
            Ok(()) => position += len,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                piece_len = (len / 2).max(PIECE_LEN_MIN);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

const PIECE_LEN_MIN: u64 = 64 << 10;

/// Gives so many zeros, for one call.
pub(super) fn zeros(len: usize) -> Vec<IoSlice<'static>> {
    let lens = (0..len).step_by(ZEROS.len()).map(|from| (len - from).min(ZEROS.len()));
    lens.map(|len| IoSlice::new(&ZEROS[..len])).collect()
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_in_part_is_done_in_full() {
        let mut asked = Vec::new();
        let outcomes = [Err(io::ErrorKind::Interrupted), Ok(3), Ok(1), Ok(6)];
        let mut outcomes = outcomes.into_iter();
        let done = in_full(10, |rest| {
            asked.push(rest);
            outcomes.next().unwrap().map_err(io::Error::from)
        });
        assert_eq!(done.unwrap(), 10);
        assert_eq!(asked, [0..10, 0..10, 3..10, 4..10]);
        assert_eq!(in_full(10, |rest| Ok(usize::from(rest.start < 7))).unwrap(), 7);
        let error = in_full(10, |rest| match rest.start {
            0 => Ok(4),
            _ => Err(io::ErrorKind::StorageFull.into()),
        });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_range_is_done_in_smaller_pieces_where_large_ones_are_interrupted() {
        let mut done = Vec::new();
        let call = |position, len| {
            if len > 100 << 10 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            done.push((position, len));
            Ok(())
        };
        in_pieces(7..7 + (300 << 10), call).unwrap();
        let end = done.iter().fold(7, |end, (position, len)| {
            assert_eq!(*position, end);
            end + len
        });
        assert_eq!((end, done.len()), (7 + (300 << 10), 4));
        let full = in_pieces(0..10, |_, _| Err(io::ErrorKind::StorageFull.into()));
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn zeros_are_as_many_as_are_asked_for() {
        for len in [0, 1, 65_536, 65_537, 1 << 20] {
            assert_eq!(zeros(len).iter().map(|slice| slice.len()).sum::<usize>(), len);
        }
    }
}
