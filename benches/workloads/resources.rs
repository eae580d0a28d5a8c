//! W9: processor time and memory of a process that does nothing else.

use std::time::Instant;

use crate::machine;
use crate::payload::Touch;
use crate::report::Measured;
use crate::runner::Case;
use crate::runner::Cell;
use crate::runner::Runner;
use crate::subject::Outcome;
use crate::subject::Work;
use crate::subject::failed;

pub(crate) fn run(runner: &mut Runner<'_>) -> Outcome {
    for (id, value_len, bytes) in [("100B", 100, 256 << 20), ("1KiB", 1024, 768 << 20)] {
        let bytes = if runner.arguments.is_quick { bytes / 8 } else { bytes };
        let case = Case {
            id: format!("W9.resources.{id}"),
            title: format!(
                "one thread appends {} MiB of {id} inline, then scans them",
                bytes >> 20
            ),
            work: Work::Resources,
            value_len,
            records: bytes / value_len as u64,
            partitions: 1,
            rounds: 3,
            keeps_directory: false,
        };
        runner.run(&case, resources)?;
    }
    Ok(())
}

fn resources(cell: &Cell<'_>) -> Outcome<Measured> {
    let memory_before = machine::anonymous_len()?;
    let log = cell.open()?;
    let cpu_before = machine::cpu_seconds();
    let (count, _) = cell.append_for_a_time(PIECE_RECORDS, |values| log.append_each(values))?;
    log.finish()?;
    let appending = machine::cpu_seconds() - cpu_before;
    let mut memory = machine::anonymous_len()?;

    let mut scan = log.scan()?;
    let patience = cell.patience;
    let mut touch = Touch::default();
    let (cpu_before, begun) = (machine::cpu_seconds(), Instant::now());
    let mut is_whole = false;
    while begun.elapsed() < patience && !is_whole {
        is_whole = !scan.next(&mut touch)?;
    }
    let scanning = machine::cpu_seconds() - cpu_before;
    memory = memory.max(machine::anonymous_len()?);
    drop(scan);
    log.close()?;
    if (is_whole && touch.count != count) || touch != cell.values(0, touch.count).touch() {
        return failed("what came back is not what was appended");
    }
    let mut measured = Measured::default();
    measured.add("CPU s per million appended", appending * 1e6 / count as f64);
    measured.add("CPU s per million scanned", scanning * 1e6 / touch.count as f64);
    measured.add("anonymous MiB", memory.saturating_sub(memory_before) as f64 / f64::from(1 << 20));
    if count < cell.setup.records || !is_whole {
        measured.notes.push("stopped before the end: fewer records".to_owned());
    }
    Ok(measured)
}

const PIECE_RECORDS: u64 = 4000;
