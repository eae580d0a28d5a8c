//! The benchmark's arguments.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::subject::Outcome;
use crate::subject::failed;

#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    /// Beginnings of the names of the cases that are run; all if empty.
    pub(crate) only: Vec<String>,
    /// Names of the subjects that take part beside ours; all if empty.
    pub(crate) subjects: Vec<String>,
    pub(crate) is_quick: bool,
    pub(crate) rounds: Option<usize>,
    pub(crate) patience: Duration,
    pub(crate) seed: u64,
    pub(crate) dir: PathBuf,
    pub(crate) json: Option<PathBuf>,
    /// Runs everything in this process, for a profiler.
    pub(crate) is_in_process: bool,
    /// The one cell that this process runs, for another.
    pub(crate) cell: Option<CellArguments>,
}

/// One subject's turn at one case.
#[derive(Clone, Debug)]
pub(crate) struct CellArguments {
    pub(crate) case: String,
    /// The name of the row.
    pub(crate) name: String,
    pub(crate) round: usize,
    pub(crate) dir: PathBuf,
}

impl Arguments {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Outcome<Arguments> {
        let mut arguments = Arguments {
            only: Vec::new(),
            subjects: Vec::new(),
            is_quick: false,
            rounds: None,
            patience: Duration::from_secs(10),
            seed: 1,
            dir: std::env::temp_dir(),
            json: None,
            is_in_process: false,
            cell: None,
        };
        while let Some(word) = words.next() {
            let mut value = || match words.next() {
                Some(value) => Ok(value),
                None => failed(format!("{word} needs a value\n{USAGE}")),
            };
            match word.as_str() {
                "--only" => arguments.only = listed(&value()?),
                "--peers" | "--subjects" => arguments.subjects = listed(&value()?),
                "--quick" => arguments.is_quick = true,
                "--rounds" => arguments.rounds = Some(value()?.parse()?),
                "--patience" => arguments.patience = Duration::from_secs_f64(value()?.parse()?),
                "--seed" => arguments.seed = value()?.parse()?,
                "--dir" => arguments.dir = std::path::absolute(value()?)?,
                "--json" => arguments.json = Some(std::path::absolute(value()?)?),
                "--in-process" => arguments.is_in_process = true,
                CELL => {
                    arguments.cell = Some(CellArguments {
                        case: value()?,
                        name: value()?,
                        round: value()?.parse()?,
                        dir: PathBuf::from(value()?),
                    });
                }
                // Cargo adds it.
                "--bench" => {}
                _ => return failed(format!("unknown argument {word}\n{USAGE}")),
            }
        }
        Ok(arguments)
    }

    pub(crate) fn wants(&self, case: &str) -> bool {
        if let Some(cell) = &self.cell {
            return cell.case == case;
        }
        let begins = |only: &String| case.starts_with(only.as_str());
        self.only.is_empty() || self.only.iter().any(begins)
    }

    /// Chooses between the full and the quick size.
    pub(crate) fn sized(&self, full: u64, quick: u64) -> u64 {
        if self.is_quick { quick } else { full }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        Path::join(&self.dir, format!("ottla-workloads-{}", std::process::id()))
    }
}

fn listed(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Before the arguments of a single cell.
pub(crate) const CELL: &str = "--cell";
const USAGE: &str = "\
--only W1,W5.warm   only cases whose names begin like this
--peers a,b         of the others only these (raw limits are named raw-…)
--quick             small sizes
--rounds N          how often each cell is measured
--patience SECONDS  after which a cell is stopped and what it did is counted; default 10
--seed N            of the random payload; default 1
--dir DIR           where the data go; default the system's temporary directory
--json FILE         write every sample there
--in-process        all cells in this process, for a profiler";
