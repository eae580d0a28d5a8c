//! The library as its users see it: one test binary, one module for each subject.

mod cli;
mod consuming;
mod differential;
mod golden;
mod lock;
mod names;
mod producing;
mod read_only;
mod topics;
mod waiting;
mod disk_full;
mod killing;
mod model;
