//! `ottla offsets`: where partitions begin and end, and which offset belongs to a time.

use std::io::Write;
use std::path::Path;

use ottla::Store;

use crate::args::OffsetTime;
use crate::args::OffsetsArgs;
use crate::failure::Failure;
use crate::terminal;

pub(crate) fn run(root: &Path, args: &OffsetsArgs) -> Result<(), Failure> {
    let store = Store::open_read_only(root)?;
    let topic = store.topic(&args.topic)?;
    let mut out = terminal::output();
    for partition in topic.partitions() {
        let (start, end) = partition.watermarks()?;
        let offset = match args.time {
            OffsetTime::Earliest => start,
            OffsetTime::Latest => end,
            OffsetTime::At(time) => {
                partition.offset_for_time(time)?.map_or(NO_OFFSET, |(offset, _)| offset)
            }
        };
        writeln!(out, "{}:{}:{offset}", topic.name(), partition.partition())?;
    }
    out.flush()?;
    Ok(())
}

/// Printed where no record matches.
const NO_OFFSET: i64 = -1;
