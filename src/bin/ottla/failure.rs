//! Why the command fails, and what its exit code says about that.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::terminal;

/// The one error of the command.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was called wrongly.
    Usage(String),
    /// The library refused.
    Store(ottla::Error),
    /// Standard input or output failed.
    Stream(io::Error),
    /// Something else, in words.
    Other(String),
    /// The command has said itself what is wrong.
    Told,
}

impl Failure {
    /// Tells it on stderr, and gives the code to exit with.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            // Whoever read our output has enough, as `head` does.
            Failure::Stream(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return ExitCode::SUCCESS;
            }
            Failure::Told => {}
            other => terminal::tell(format_args!("ottla: {other}")),
        }
        match self {
            Failure::Usage(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) | Failure::Other(text) => f.write_str(text),
            Failure::Store(error) => error.fmt(f),
            Failure::Stream(error) => error.fmt(f),
            Failure::Told => f.write_str("failed"),
        }
    }
}

impl From<ottla::Error> for Failure {
    fn from(error: ottla::Error) -> Failure {
        Failure::Store(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Stream(error)
    }
}
