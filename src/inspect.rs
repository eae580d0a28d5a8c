//! A read-only look at what lies in a data directory.
