//! `ottla perf open`: opening a directory that was closed cleanly.

use std::time::Instant;

use ottla::Store;

use crate::args::PerfArgs;
use crate::failure::Failure;
use crate::perf::place::Place;
use crate::perf::report::Report;

pub(crate) fn measure(
    place: &Place<'_>,
    args: &PerfArgs,
    report: &mut Report,
) -> Result<(), Failure> {
    let field = place.enter()?;
    drop(field.fill_if_empty(args, args.records.unwrap_or(RECORDS), args.batch)?);
    let records = field.offset_count()?;
    field.leave()?;
    let (mut opened, mut closed) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let begun = Instant::now();
        let store = Store::open(place.directory())?;
        opened.push(begun.elapsed().as_secs_f64() * MS_PER_SECOND);
        let begun = Instant::now();
        store.close()?;
        closed.push(begun.elapsed().as_secs_f64() * MS_PER_SECOND);
    }
    let field = place.enter()?;
    let now = field.offset_count()?;
    field.leave()?;
    if now != records {
        return Err(Failure::Other(format!("{records} records became {now}")));
    }
    report.put("records", records);
    report.series("open_ms", opened);
    report.series("close_ms", closed);
    Ok(())
}

const RECORDS: u64 = 1_000_000;
const MS_PER_SECOND: f64 = 1000.0;
