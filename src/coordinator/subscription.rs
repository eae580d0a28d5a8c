//! Which topics a member of a group wants.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::name::TopicName;
use crate::topic::Topic;

/// Which topics a member of a group reads: some by name, or all whose name fits.
///
/// A topic that does not exist yet is read as soon as it is created, a partition as soon as it is added.
///
/// ```
/// use std::time::Duration;
/// use ottla::{Store, Subscription, TopicConfig};
///
/// let store = Store::temporary()?;
/// let logs = Subscription::matching(|name| name.starts_with("log-"));
/// let mut consumer = store.consumer().subscribe("archive", logs)?;
/// let topic = store.create_topic("log-web", TopicConfig::new())?;
/// store.producer().send(&topic, "GET /")?.wait()?;
/// assert_eq!(consumer.poll(Duration::from_secs(5))?.count(), 1);
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone)]
pub struct Subscription {
    wanted: Wanted,
}

#[derive(Clone)]
enum Wanted {
    Named(BTreeSet<TopicName>),
    #[cfg(feature = "regex")]
    Pattern {
        text: Arc<str>,
        regex: Arc<regex_lite::Regex>,
    },
    Fitting(Arc<dyn Fn(&str) -> bool + Send + Sync>),
}

impl Subscription {
    /// Wants the topics of these names. They need not exist yet; a typing error therefore shows only in that
    /// nothing comes: where a [`Topic`] is at hand, subscribe to that.
    ///
    /// # Errors
    ///
    /// * [`Error::InvalidTopic`](crate::Error::InvalidTopic) if one is no topic's name by Kafka's rules.
    ///
    /// ```
    /// use ottla::Subscription;
    /// assert!(Subscription::named(["orders", "payments"]).is_ok());
    /// assert!(Subscription::named(["no/topic"]).is_err());
    /// ```
    pub fn named<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> Result<Subscription> {
        let names = names.into_iter().map(|name| TopicName::new(name.as_ref()));
        Ok(Subscription { wanted: Wanted::Named(names.collect::<Result<_>>()?) })
    }

    /// Wants every topic whose whole name matches a regular expression, but for internal ones. Those that are
    /// created later are read at once.
    ///
    /// # Errors
    ///
    /// * [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the expression cannot be understood (Kafka's error 128).
    ///
    /// ```
    /// use ottla::Subscription;
    /// assert!(Subscription::pattern("orders-.*").is_ok());
    /// assert!(Subscription::pattern("orders-(").is_err());
    /// ```
    #[cfg(feature = "regex")]
    pub fn pattern(pattern: &str) -> Result<Subscription> {
        let refuse = |_| {
            let reason = "it is not a regular expression";
            crate::error::Error::InvalidArgument { argument: "pattern", reason }
        };
        // By itself first: only a whole expression may be put in brackets.
        regex_lite::Regex::new(pattern).map_err(refuse)?;
        let regex = regex_lite::Regex::new(&format!("^(?:{pattern})$")).map_err(refuse)?;
        Ok(Subscription {
            wanted: Wanted::Pattern { text: pattern.into(), regex: Arc::new(regex) },
        })
    }

    /// Wants every topic whose name fits, but for internal ones. The function is asked once for each name, on
    /// whichever thread notices the topic, and under no lock.
    pub fn matching(fits: impl Fn(&str) -> bool + Send + Sync + 'static) -> Subscription {
        Subscription { wanted: Wanted::Fitting(Arc::new(fits)) }
    }

    pub(crate) fn wants(&self, name: &TopicName, is_internal: bool) -> bool {
        match &self.wanted {
            Wanted::Named(names) => names.contains(name),
            #[cfg(feature = "regex")]
            Wanted::Pattern { regex, .. } => !is_internal && regex.is_match(name.as_str()),
            Wanted::Fitting(fits) => !is_internal && fits(name.as_str()),
        }
    }

    /// Tells whether nothing can ever be wanted.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.wanted, Wanted::Named(names) if names.is_empty())
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.wanted {
            Wanted::Named(names) => f.debug_set().entries(names).finish(),
            #[cfg(feature = "regex")]
            Wanted::Pattern { text, .. } => write!(f, "/{text}/"),
            Wanted::Fitting(_) => f.write_str("a function"),
        }
    }
}

impl From<&Topic> for Subscription {
    fn from(topic: &Topic) -> Subscription {
        [topic].into()
    }
}

impl<const N: usize> From<[&Topic; N]> for Subscription {
    fn from(topics: [&Topic; N]) -> Subscription {
        topics[..].into()
    }
}

impl From<&[&Topic]> for Subscription {
    fn from(topics: &[&Topic]) -> Subscription {
        topics.iter().copied().collect()
    }
}

impl From<&[Topic]> for Subscription {
    fn from(topics: &[Topic]) -> Subscription {
        topics.iter().collect()
    }
}

impl From<&Vec<Topic>> for Subscription {
    fn from(topics: &Vec<Topic>) -> Subscription {
        topics.iter().collect()
    }
}

impl<'t> FromIterator<&'t Topic> for Subscription {
    fn from_iter<I: IntoIterator<Item = &'t Topic>>(topics: I) -> Subscription {
        let names = topics.into_iter().map(|topic| topic.state.name.clone());
        Subscription { wanted: Wanted::Named(names.collect()) }
    }
}
