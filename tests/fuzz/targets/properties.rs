#![no_main]

#[allow(dead_code)]
#[path = "../../it/fuzz_targets.rs"]
mod fuzz_targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_targets::properties(bytes));
