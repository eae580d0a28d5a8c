//! The library as its users see it: one test binary, one module for each subject.

mod budget;
#[path = "../../src/chance.rs"]
mod chance;
mod cli;
mod cli_groups;
mod cli_requests;
mod compacting;
mod compressing;
mod consuming;
mod deleting;
mod differential;
mod disk_full;
mod errors;
mod fuzz_targets;
mod fuzzing;
mod golden;
mod groups;
mod groups_conformance;
mod groups_killed;
mod groups_model;
mod groups_papers;
mod hostile;
mod killing;
mod limits;
mod lingering;
mod lock;
mod model;
#[cfg(target_os = "linux")]
mod mounted;
mod names;
mod points;
mod privacy;
mod producing;
mod read_only;
mod reading;
mod real_disks;
mod repairing;
mod request_faults;
mod request_reply;
mod request_restart;
mod retention;
mod scale;
mod soak;
mod tidy;
mod topics;
mod waiting;
