//! What fuzzers thought of before, thought of again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that fails should say where"
)]

use std::fs;
use std::path::Path;

/// A target: its name, which is also that of its corpus, and what it does.
type Target = (&'static str, fn(&[u8]));

/// Has every file of each target's corpus go through it, and nothing at all.
pub(crate) fn replay(targets: &[Target]) {
    for (name, target) in targets {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
        let entries = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
        let mut paths: Vec<_> = entries.collect();
        paths.sort();
        assert!(!paths.is_empty(), "{name} has no corpus");
        for path in paths {
            println!("{}", path.display());
            target(&fs::read(path).unwrap());
        }
        target(&[]);
    }
}
