//! Lets the library be compiled with what its tests see of it: simulated disks, models, `fuzzed.rs`.

use std::path::Path;

fn main() {
    println!("cargo::rustc-cfg=test");
    // Where the library's tests look for files.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    println!("cargo::rustc-env=CARGO_MANIFEST_DIR={}", root.unwrap_or(Path::new("/")).display());
    println!("cargo::rerun-if-changed=build.rs");
}
