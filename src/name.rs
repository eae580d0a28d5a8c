//! Names that are valid once they are built.

use std::cmp::Ordering;
use std::fmt;
use std::hash::Hash;
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::OnceLock;

use crate::error::Error;
use crate::error::Result;

/// A topic's name by Kafka's rules: 1 to 249 of `a-z A-Z 0-9 . _ -`, and neither `.` nor `..`.
#[derive(Clone)]
pub(crate) struct TopicName(Text);

#[derive(Clone)]
enum Text {
    Counted(Arc<str>),
    /// Stays as long as the process: nobody counts.
    Kept(&'static str),
}

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
        Ok(TopicName(Text::Counted(name.into())))
    }

    /// Gives the name in a form that costs nothing to clone: as long as the process lives, it keeps the first few
    /// names for which this is asked. All others are as they were.
    pub(crate) fn kept(self) -> TopicName {
        for place in &KEPT {
            let name = place.get_or_init(|| self.as_str().into());
            if **name == *self.as_str() {
                return TopicName(Text::Kept(name));
            }
        }
        self
    }

    #[inline]
    pub(crate) fn as_str(&self) -> &str {
        match &self.0 {
            Text::Counted(name) => name,
            Text::Kept(name) => name,
        }
    }

    /// Tells whether Kafka would report both under one metric name, where `.` and `_` are the same.
    pub(crate) fn collides_with(&self, other: &TopicName) -> bool {
        let folded = |c: u8| if c == b'.' { b'_' } else { c };
        self != other && self.as_str().bytes().map(folded).eq(other.as_str().bytes().map(folded))
    }

    /// See [`is_internal`].
    pub(crate) fn is_internal(&self) -> bool {
        is_internal(self.as_str())
    }
}

/// Tells whether a topic is one in which Kafka's coordinators keep their papers.
pub(crate) fn is_internal(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state")
}

/// Refuses what only coordinators do.
///
/// # Errors
///
/// * [`Error::InternalTopic`].
pub(crate) fn refuse_internal(name: &str) -> Result<()> {
    match is_internal(name) {
        true => Err(Error::InternalTopic { name: name.to_owned() }),
        false => Ok(()),
    }
}

impl PartialEq for TopicName {
    fn eq(&self, other: &TopicName) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for TopicName {}

impl Hash for TopicName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl PartialOrd for TopicName {
    fn partial_cmp(&self, other: &TopicName) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TopicName {
    fn cmp(&self, other: &TopicName) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A directory name is at most 255 bytes; this leaves room for `-` and a partition's number.
const LEN_MAX: usize = 249;

/// Who works with more topics than this pays for counting, and nobody keeps more than 16 KiB for good.
const KEPT_COUNT: usize = 64;
static KEPT: [OnceLock<Box<str>>; KEPT_COUNT] = [const { OnceLock::new() }; KEPT_COUNT];

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
    fn a_name_is_the_same_kept_or_not() {
        let names: Vec<String> = (0..2 * KEPT_COUNT).map(|n| format!("name-{n}")).collect();
        for name in names.iter().chain(&names) {
            let name = TopicName::new(name).unwrap();
            assert_eq!(name.clone().kept(), name);
        }
        // Other tests may have taken some of the places.
        assert!(KEPT.iter().all(|place| place.get().is_some()));
        let is_kept = |name: &String| {
            matches!(TopicName::new(name).unwrap().kept(), TopicName(Text::Kept(_)))
        };
        assert!(names.iter().filter(|name| is_kept(name)).count() <= KEPT_COUNT);
    }

    #[test]
    fn dots_and_underscores_collide() {
        let name = |s| TopicName::new(s).unwrap();
        assert!(name("a.b").collides_with(&name("a_b")));
        assert!(!name("a.b").collides_with(&name("a.b")));
        assert!(!name("a.b").collides_with(&name("a-b")));
    }
}
