//! Who may do what: the coordination of those who share topics. It keeps its papers in topics, not in files.

pub(crate) mod assignors;
