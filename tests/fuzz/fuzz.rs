//! One program for all targets; `OTTLA_TARGET` names the one that is fuzzed.

#![no_main]

use std::sync::OnceLock;

#[allow(dead_code)]
#[path = "../it/fuzz_targets.rs"]
mod fuzz_targets;

fn chosen() -> fn(&[u8]) {
    static CHOSEN: OnceLock<fn(&[u8])> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let mut targets = ottla::fuzzed::TARGETS.iter().chain(&fuzz_targets::TARGETS);
        let name = std::env::var("OTTLA_TARGET").unwrap_or_default();
        let found = targets.find(|(target, _)| *target == name);
        found.unwrap_or_else(|| panic!("OTTLA_TARGET={name} is not a target")).1
    })
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chosen()(bytes));
