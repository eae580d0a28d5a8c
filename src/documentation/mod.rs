//! Long-form pages.

pub mod guarantees;
