//! One cell in a process of its own: the same program with the same arguments and a `--cell` more.

use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::arguments::Arguments;
use crate::arguments::CELL;
use crate::arguments::CellArguments;
use crate::report::Measured;
use crate::subject::Failure;
use crate::subject::Outcome;
use crate::subject::failed;

/// Runs the cell and gives what it measured.
pub(crate) fn run(arguments: &Arguments, asked: &CellArguments) -> Outcome<Measured> {
    let result = result_path(&asked.dir);
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(CELL).args([&asked.case, &asked.name, &asked.round.to_string()]).arg(&asked.dir);
    command.args(["--seed", &arguments.seed.to_string()]);
    command.args(["--patience", &arguments.patience.as_secs_f64().to_string()]);
    if arguments.is_quick {
        command.arg("--quick");
    }
    if let Some(rounds) = arguments.rounds {
        command.args(["--rounds", &rounds.to_string()]);
    }
    // Some peers print.
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            return failed(format!("it did not end within {} s", PATIENCE.as_secs()));
        }
        thread::sleep(Duration::from_millis(5));
    };
    let Ok(text) = fs::read_to_string(&result) else {
        return failed(format!("its process ended without a result: {status}"));
    };
    fs::remove_file(&result)?;
    understood(&serde_json::from_str(&text)?)
}

/// Leaves the result of this process's cell where [`run`] looks for it.
pub(crate) fn report(ended: &Outcome<Measured>, asked: &CellArguments) -> Outcome {
    let document = match ended {
        Ok(measured) => json!({ "numbers": measured.numbers, "notes": measured.notes }),
        Err(Failure::Unsupported(reason)) => json!({ "unsupported": reason }),
        Err(Failure::Failed(what)) => json!({ "failed": what }),
    };
    fs::write(result_path(&asked.dir), document.to_string())?;
    Ok(())
}

fn understood(document: &Value) -> Outcome<Measured> {
    if let Some(reason) = document["unsupported"].as_str() {
        return Err(Failure::Unsupported(Cow::Owned(reason.to_owned())));
    }
    if let Some(what) = document["failed"].as_str() {
        return failed(what);
    }
    Ok(Measured {
        numbers: serde_json::from_value(document["numbers"].clone())?,
        notes: serde_json::from_value(document["notes"].clone())?,
    })
}

/// Beside the directory: some subjects do not suffer a foreign file in it.
fn result_path(dir: &Path) -> PathBuf {
    dir.with_extension("result")
}

/// Longer than any cell that is bounded as it should be.
const PATIENCE: Duration = Duration::from_secs(300);
