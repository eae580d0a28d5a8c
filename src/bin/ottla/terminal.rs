//! Standard output and standard error.

use std::fmt;
use std::io;
use std::io::BufWriter;
use std::io::IsTerminal;
use std::io::StdoutLock;
use std::io::Write;

use indicatif::ProgressBar;
use indicatif::ProgressDrawTarget;

/// Gives standard output, buffered; flush it at the end, errors show then.
pub(crate) fn output() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(64 << 10, io::stdout().lock())
}

/// Writes a line to standard error.
pub(crate) fn tell(line: fmt::Arguments<'_>) {
    // If that fails there is nobody left to be told.
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// Makes a progress bar; it stays invisible unless standard error is a terminal.
pub(crate) fn progress_bar(len: u64) -> ProgressBar {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    ProgressBar::with_draw_target(Some(len), target)
}
