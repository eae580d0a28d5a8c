//! W9: processor time and memory, measured in a process of its own.

use crate::child;
use crate::report::Measured;
use crate::runner::Case;
use crate::runner::Cell;
use crate::runner::Runner;
use crate::subject::Outcome;
use crate::subject::Work;

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
        runner.run(&case, |cell: &Cell<'_>| -> Outcome<Measured> { child::measured(cell) })?;
    }
    Ok(())
}
