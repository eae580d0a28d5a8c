//! Long-form pages. Their examples are compiled and run as tests.
//!
//! * [`guarantees`]: what an acknowledgement means, and what happens after a crash.
//! * [`found`]: what was found wrong, by whom, and which test looks for it since.
//! * [`kafka`]: where Kafka's words are found here, and what differs on purpose.
//! * [`tuning`]: the knobs, and what each costs.
//! * [`format`](mod@format): every file, byte by byte.
//! * [`architecture`]: the house as it is built, for those who work on it.
//! * [`changelog`]: what is there.

pub mod architecture;
pub mod changelog;
pub mod format;
pub mod found;
pub mod guarantees;
pub mod kafka;
pub mod tuning;

/// The front page's program is compiled and run, too.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
