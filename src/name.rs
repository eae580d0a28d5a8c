//! Names that are valid once they are built.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::error::Result;

/// A topic's name by Kafka's rules: 1 to 249 of `a-z A-Z 0-9 . _ -`, and neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TopicName(Arc<str>);

impl TopicName {
    pub(crate) fn new(name: &str) -> Result<TopicName> {
        let refuse = |reason: String| Err(Error::InvalidTopic { name: shortened(name), reason });
        if name.is_empty() {
            return refuse("it is empty".into());
        }
        if name == "." || name == ".." {
            return refuse("`.` and `..` are reserved".into());
        }
        if name.len() > LEN_MAX {
            return refuse(format!("it has {} bytes, {LEN_MAX} are allowed", name.len()));
        }
        if let Some(odd) = name.chars().find(|c| !is_allowed(*c)) {
            return refuse(format!("{odd:?} is not one of a-z A-Z 0-9 . _ -"));
        }
        Ok(TopicName(name.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether Kafka would report both under one metric name, where `.` and `_` are the same.
    pub(crate) fn collides_with(&self, other: &TopicName) -> bool {
        let folded = |c: u8| if c == b'.' { b'_' } else { c };
        self != other && self.0.bytes().map(folded).eq(other.0.bytes().map(folded))
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A directory name is at most 255 bytes; this leaves room for `-` and a partition's number.
const LEN_MAX: usize = 249;

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(LEN_MAX + 1) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafkas_rules_for_topic_names_hold() {
        for good in ["a", "orders", "a.b_c-D9", "...", "__consumer_offsets", &"x".repeat(249)] {
            assert_eq!(TopicName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "../x", "a/b", "a b", "ä", "a\0", "a\n", &"x".repeat(250)] {
            assert!(matches!(TopicName::new(bad), Err(Error::InvalidTopic { .. })), "{bad:?}");
        }
    }

    #[test]
    fn dots_and_underscores_collide() {
        let name = |s| TopicName::new(s).unwrap();
        assert!(name("a.b").collides_with(&name("a_b")));
        assert!(!name("a.b").collides_with(&name("a.b")));
        assert!(!name("a.b").collides_with(&name("a-b")));
    }
}
