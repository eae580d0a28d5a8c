//! The library as its users see it: one test binary, one module for each subject.

mod cli;
mod cli_groups;
mod compacting;
mod compressing;
mod consuming;
mod differential;
mod disk_full;
mod errors;
mod golden;
mod groups;
mod groups_model;
mod groups_papers;
mod killing;
mod limits;
mod lingering;
mod lock;
mod model;
mod names;
mod points;
mod producing;
mod read_only;
mod reading;
mod scale;
mod tidy;
mod topics;
mod waiting;
