//! Runs a case: every subject in turn, round after round, each cell in a directory and a process of its own.
//!
//! **Invariant (nothing is left over).** No subject's threads, memory, open files or panics outlive its cell: some peers
//! never end their threads, and keep every file they ever opened.
//!
//! **Invariant (interleaving).** Round `n` of all subjects is over before round `n + 1` of any begins, so that whatever
//! else the machine does hits all alike; and each round begins with another subject, so that none always comes behind
//! the same one.
//!
//! **Invariant (alike).** Each cell finds a disk that has nothing to write any more, and memory that was touched a moment
//! ago. A virtual machine's host takes free memory back and gives it again at its first touch, at half a gigabyte a second
//! where this was measured: the first to fill the page cache would pay for all behind it.

use std::fs;
use std::panic;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::arguments::Arguments;
use crate::arguments::CellArguments;
use crate::machine;
use crate::payload::Payload;
use crate::payload::Touch;
use crate::payload::Values;
use crate::process;
use crate::report;
use crate::report::CaseReport;
use crate::report::Measured;
use crate::report::Row;
use crate::subject::Failure;
use crate::subject::Log;
use crate::subject::Outcome;
use crate::subject::Scan;
use crate::subject::Setup;
use crate::subject::Subject;
use crate::subject::Variant;
use crate::subject::Work;
use crate::subject::failed;

pub(crate) struct Runner<'s> {
    pub(crate) arguments: &'s Arguments,
    subjects: &'s [&'s dyn Subject],
    cases: Vec<CaseReport>,
}

/// What is measured, and how.
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) work: Work,
    pub(crate) value_len: usize,
    pub(crate) records: u64,
    pub(crate) partitions: u32,
    pub(crate) rounds: usize,
    /// Whether a subject finds in each round what it left in the one before.
    pub(crate) keeps_directory: bool,
}

/// One subject in one round.
pub(crate) struct Cell<'c> {
    pub(crate) subject: &'c dyn Subject,
    pub(crate) setup: Setup<'c>,
    pub(crate) round: usize,
    pub(crate) is_last_round: bool,
    pub(crate) seed: u64,
    /// How long it may take before it is stopped and what it did is counted.
    pub(crate) patience: Duration,
}

struct Contestant<'s> {
    subject: &'s dyn Subject,
    variant: Variant,
    row: Row,
}

impl<'s> Runner<'s> {
    pub(crate) fn new(arguments: &'s Arguments, subjects: &'s [&'s dyn Subject]) -> Runner<'s> {
        Runner { arguments, subjects, cases: Vec::new() }
    }

    pub(crate) fn into_cases(self) -> Vec<CaseReport> {
        self.cases
    }

    /// Runs the case unless the arguments leave it out, and prints its table.
    pub(crate) fn run(
        &mut self,
        case: &Case,
        cell: impl Fn(&Cell<'_>) -> Outcome<Measured>,
    ) -> Outcome {
        if !self.arguments.wants(&case.id) {
            return Ok(());
        }
        let rounds = self.arguments.rounds.unwrap_or(case.rounds).max(1);
        let mut contestants = self.contestants(case);
        if let Some(asked) = &self.arguments.cell {
            let wanted = contestants.iter().find(|contestant| contestant.row.name == asked.name);
            let Some(contestant) = wanted else { return failed("no such subject") };
            return process::report(&self.run_cell(case, rounds, contestant, asked, cell), asked);
        }
        let root = self.arguments.data_dir();
        fs::create_dir_all(&root)?;
        for round in 0..rounds {
            let count = contestants.len();
            for number in (0..count).map(|turn| (turn + round) % count) {
                let contestant = &mut contestants[number];
                if contestant.row.absence.is_some() {
                    continue;
                }
                let asked = CellArguments {
                    case: case.id.clone(),
                    name: contestant.row.name.clone(),
                    round,
                    dir: root.join(number.to_string()),
                };
                if !case.keeps_directory {
                    remove(&asked.dir)?;
                }
                fs::create_dir_all(&asked.dir)?;
                if !case.keeps_directory {
                    machine::settle(2 * case.records * case.value_len as u64)?;
                }
                let ended = if self.arguments.is_in_process {
                    self.run_cell(case, rounds, contestant, &asked, &cell)
                } else {
                    process::run(self.arguments, &asked)
                };
                match ended {
                    Ok(measured) => contestant.row.take(measured),
                    Err(Failure::Unsupported(reason)) => {
                        contestant.row.absence = Some(reason.into_owned());
                    }
                    Err(Failure::Failed(what)) => {
                        contestant.row.absence = Some(format!("FAILED in round {round}: {what}"));
                    }
                }
                if !case.keeps_directory {
                    remove(&asked.dir)?;
                }
            }
        }
        remove(&root)?;
        let rows = contestants.into_iter().map(|contestant| contestant.row).collect();
        let report = CaseReport { id: case.id.clone(), title: case.title.clone(), rows };
        report.print();
        self.cases.push(report);
        // After each case: a run that is broken off has not been for nothing.
        match &self.arguments.json {
            Some(path) => report::write_json(path, self.arguments, &self.cases),
            None => Ok(()),
        }
    }

    fn run_cell(
        &self,
        case: &Case,
        rounds: usize,
        contestant: &Contestant<'_>,
        asked: &CellArguments,
        cell: impl Fn(&Cell<'_>) -> Outcome<Measured>,
    ) -> Outcome<Measured> {
        let payload = Arc::new(Payload::new(self.arguments.seed, case.value_len));
        let cell_of_round = Cell {
            subject: contestant.subject,
            setup: Setup {
                dir: &asked.dir,
                payload: &payload,
                records: case.records,
                work: case.work,
                partitions: case.partitions,
                variant: contestant.variant,
            },
            round: asked.round,
            is_last_round: asked.round + 1 == rounds,
            seed: self.arguments.seed,
            patience: self.arguments.patience * contestant.subject.patience_factor(),
        };
        // A peer that panics has failed this case; the others go on.
        let ended = panic::catch_unwind(AssertUnwindSafe(|| cell(&cell_of_round)));
        ended.unwrap_or_else(|_| failed("it panicked"))
    }

    fn contestants(&self, case: &Case) -> Vec<Contestant<'s>> {
        let mut contestants = Vec::new();
        for subject in self.subjects {
            for variant in subject.variants(case.work) {
                let label = variant.label;
                let row = Row {
                    name: match label {
                        "" => subject.name().to_owned(),
                        label => format!("{}, {label}", subject.name()),
                    },
                    guarantee: subject.guarantee(),
                    samples: Vec::new(),
                    notes: Vec::new(),
                    absence: None,
                };
                contestants.push(Contestant { subject: *subject, variant, row });
            }
        }
        contestants
    }
}

impl Cell<'_> {
    /// Gives the setup for another directory.
    pub(crate) fn setup_in<'d>(&'d self, dir: &'d Path) -> Setup<'d> {
        Setup { dir, ..self.setup }
    }

    pub(crate) fn open(&self) -> Outcome<Box<dyn Log>> {
        self.subject.open(&self.setup)
    }

    /// Gives values as the subject will have written them.
    pub(crate) fn values(&self, begin: u64, end: u64) -> Values<'_> {
        let payload = self.setup.payload;
        payload.repeating(begin, end, self.subject.period(payload.value_len()))
    }

    /// Appends with `append`, piece by piece, up to the case's records or the end of the subject's patience;
    /// gives how many records there are and how long it took.
    pub(crate) fn append_for_a_time(
        &self,
        piece_len: u64,
        mut append: impl FnMut(Values<'_>) -> Outcome,
    ) -> Outcome<(u64, Duration)> {
        let payload = self.setup.payload;
        let patience = self.patience;
        let begun = Instant::now();
        let mut done = 0;
        while done < self.setup.records && begun.elapsed() < patience {
            let end = (done + piece_len).min(self.setup.records);
            append(payload.values(done, end))?;
            done = end;
        }
        Ok((done, begun.elapsed()))
    }

    /// Notes for later rounds how many records the directory has been filled with.
    pub(crate) fn note_filled(&self, count: u64) -> Outcome {
        Ok(fs::write(self.filled_path(), count.to_string())?)
    }

    /// Tells how many records the directory has been filled with; fewer than asked for are remarked upon.
    pub(crate) fn filled(&self, measured: &mut Measured) -> Outcome<u64> {
        let count = fs::read_to_string(self.filled_path())?.parse()?;
        if count < self.setup.records {
            measured.notes.push(format!("a smaller data set, as writing is slow: {count} records"));
        }
        Ok(count)
    }

    /// Beside the directory, for what is in it is the subject's.
    fn filled_path(&self) -> PathBuf {
        self.setup.dir.with_extension("filled")
    }

    /// Reads the log from the beginning, and compares it with the first `count` values; what does not come
    /// within the subject's patience is left out and noted.
    pub(crate) fn verify(
        &self,
        log: &dyn Log,
        count: u64,
        measured: &mut Measured,
    ) -> Outcome<Duration> {
        let mut scan = log.scan()?;
        let first = scan.first();
        let (touch, took, is_whole) = self.read_for(&mut *scan, self.patience / 3)?;
        let found = first + touch.count;
        if is_whole && found != count {
            return failed(format!("{count} records were appended, {found} came back"));
        }
        if !is_whole {
            measured.notes.push(format!("only the first {found} records were read back"));
        }
        if touch != self.values(first, found).touch() {
            return failed("what came back is not what was appended");
        }
        Ok(took)
    }

    /// Reads until the end or the end of patience.
    pub(crate) fn read(&self, scan: &mut dyn Scan) -> Outcome<(Touch, Duration, bool)> {
        self.read_for(scan, self.patience)
    }

    fn read_for(
        &self,
        scan: &mut dyn Scan,
        patience: Duration,
    ) -> Outcome<(Touch, Duration, bool)> {
        let mut touch = Touch::default();
        let begun = Instant::now();
        let mut is_whole = false;
        while begun.elapsed() < patience {
            if !scan.next(&mut touch)? {
                is_whole = true;
                break;
            }
        }
        Ok((touch, begun.elapsed(), is_whole))
    }
}

fn remove(dir: &Path) -> Outcome {
    match fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}
