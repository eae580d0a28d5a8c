//! What fuzzers thought of before, thought of again: every file of the corpus goes through its target.

use crate::corpus;
use crate::fuzz_targets::TARGETS;

#[test]
fn nothing_in_the_corpus_makes_its_target_fail() {
    corpus::replay(&TARGETS);
}
