//! What a handler answers.

use std::fmt;

use crate::record::Header;
use crate::record::Record;
use crate::record::Unshown;

/// What a responder's handler answers: a value, and if wanted a key and headers.
///
/// The correlation id is added by the responder. Without a key of its own the reply has the request's.
///
/// ```
/// let reply = ottla::Reply::new("12.50").header("currency", "EUR");
/// assert_eq!(reply.value_bytes(), Some(&b"12.50"[..]));
/// assert_eq!(ottla::Reply::null().value_bytes(), None);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Reply {
    value: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("value", &Unshown::of(self.value.as_deref()))
            .field("key", &Unshown::of(self.key.as_deref()))
            .field("header_count", &self.headers.len())
            .finish()
    }
}

impl Reply {
    /// Makes a reply with a value.
    pub fn new(value: impl Into<Vec<u8>>) -> Reply {
        Reply { value: Some(value.into()), ..Reply::default() }
    }

    /// Makes a reply whose value is null.
    pub fn null() -> Reply {
        Reply::default()
    }

    /// Sets the key, instead of the request's.
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Reply {
        self.key = Some(key.into());
        self
    }

    /// Adds a header behind those already there.
    pub fn header(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Reply {
        self.headers.push((key.into(), Some(value.into())));
        self
    }

    /// Gives the value, if it is not null.
    pub fn value_bytes(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    /// Gives the record to be appended, but for what only the request knows.
    pub(crate) fn record<'r>(&'r self, request_key: Option<&'r [u8]>) -> Record<'r> {
        let headers = self.headers.iter();
        Record {
            key: self.key.as_deref().or(request_key),
            value: self.value.as_deref(),
            headers: headers.map(|(key, value)| Header { key, value: value.as_deref() }).collect(),
            timestamp_ms: None,
            partition: None,
        }
    }
}
