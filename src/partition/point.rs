//! One record of a log, found by its offset.

use crate::error::Result;
use crate::partition::Partition;
use crate::storage;

/// The answer to a read of one record.
#[derive(Debug)]
pub(crate) enum Point {
    Found(storage::point::Point),
    /// No record has the offset: not yet, not any more, or it is not for readers.
    Nothing,
    /// The offset is below the log's start.
    OutOfRange {
        start: i64,
        end: i64,
    },
}

impl Partition {
    /// Finds the record at `offset`, durable or not.
    ///
    /// # Errors
    ///
    /// * As [`OpenSegment::point`](storage::segment::OpenSegment::point), and if the segment cannot be opened.
    pub(crate) fn point(&self, offset: i64) -> Result<Point> {
        self.despite_compaction(|| self.point_at_once(offset))
    }

    fn point_at_once(&self, offset: i64) -> Result<Point> {
        let marks = self.watermarks();
        let out_of_range = || Point::OutOfRange { start: marks.log_start(), end: marks.log_end() };
        if offset < marks.log_start() {
            return Ok(out_of_range());
        }
        // Asked before the list of segments: what lies below this end lies in one of them.
        if offset >= marks.log_end() {
            return Ok(Point::Nothing);
        }
        let open = self.segments().open_holding(offset, &self.context);
        match open.and_then(|open| open.point(offset)) {
            Ok(Some(found)) => Ok(Point::Found(found)),
            // The log's beginning was deleted meanwhile.
            _ if offset < marks.log_start() => Ok(out_of_range()),
            Ok(None) => Ok(Point::Nothing),
            Err(error) => Err(error),
        }
    }
}
