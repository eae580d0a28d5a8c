//! Where tests put what is gone when they are over.

#![allow(clippy::unwrap_used, reason = "a test that fails should say where")]

use std::path::Path;

/// A directory in memory where there is one: what counts is what is in the files, which may also be larger there.
pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}
