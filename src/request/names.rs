//! The headers by which requests and replies find each other: their names, and what their values are.

use std::sync::Arc;

use crate::record::Header;
use crate::records::Message;

/// The names of the headers that a request and its reply carry. Both sides must use the same.
///
/// By default they are those of Spring's `ReplyingKafkaTemplate`, so that its requesters and responders are understood:
///
/// | header | on | value |
/// | --- | --- | --- |
/// | `kafka_correlationId` | both | any bytes, the same on both; ours are 16, in the form of a UUID of version 8 |
/// | `kafka_replyTopic` | requests | the topic's name, UTF-8 |
/// | `kafka_replyPartition` | requests | the partition, four bytes, the most significant first; may be missing |
/// | `ottla_replyError` | replies | why there is no answer, UTF-8; only where there is none |
///
/// Where a name is there several times the last one counts.
///
/// ```
/// let names = ottla::ReplyHeaders::new().correlation_id("x-id").error("x-error");
/// assert_eq!(names.correlation_id_name(), "x-id");
/// assert_eq!(names.reply_topic_name(), "kafka_replyTopic");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct ReplyHeaders {
    correlation_id: Arc<str>,
    reply_topic: Arc<str>,
    reply_partition: Arc<str>,
    error: Arc<str>,
}

impl Default for ReplyHeaders {
    fn default() -> ReplyHeaders {
        ReplyHeaders {
            correlation_id: "kafka_correlationId".into(),
            reply_topic: "kafka_replyTopic".into(),
            reply_partition: "kafka_replyPartition".into(),
            error: "ottla_replyError".into(),
        }
    }
}

impl ReplyHeaders {
    /// Gives the default names.
    pub fn new() -> ReplyHeaders {
        ReplyHeaders::default()
    }

    /// Sets the name of the header that pairs request and reply.
    pub fn correlation_id(mut self, name: &str) -> ReplyHeaders {
        self.correlation_id = name.into();
        self
    }

    /// Sets the name of the header that says to which topic the reply goes.
    pub fn reply_topic(mut self, name: &str) -> ReplyHeaders {
        self.reply_topic = name.into();
        self
    }

    /// Sets the name of the header that says to which partition of that topic the reply goes.
    pub fn reply_partition(mut self, name: &str) -> ReplyHeaders {
        self.reply_partition = name.into();
        self
    }

    /// Sets the name of the header that makes a reply an error.
    pub fn error(mut self, name: &str) -> ReplyHeaders {
        self.error = name.into();
        self
    }

    /// Gives the name of the header that pairs request and reply.
    pub fn correlation_id_name(&self) -> &str {
        &self.correlation_id
    }

    /// Gives the name of the header with the reply's topic.
    pub fn reply_topic_name(&self) -> &str {
        &self.reply_topic
    }

    /// Gives the name of the header with the reply's partition.
    pub fn reply_partition_name(&self) -> &str {
        &self.reply_partition
    }

    /// Gives the name of the header that makes a reply an error.
    pub fn error_name(&self) -> &str {
        &self.error
    }

    /// Reads where a request wants its reply.
    pub(crate) fn address_of<'m>(&self, request: &Message<'m>) -> Address<'m> {
        let (mut correlation_id, mut topic, mut partition) = (None, None, None);
        for header in request.headers() {
            if header.key == &*self.correlation_id {
                correlation_id = header.value;
            } else if header.key == &*self.reply_topic {
                topic = Some(header.value);
            } else if header.key == &*self.reply_partition {
                partition = Some(header.value);
            }
        }
        let Some(topic) = topic else { return Address::Nowhere };
        let topic = topic.and_then(|bytes| std::str::from_utf8(bytes).ok());
        let Some(topic) = topic.filter(|topic| !topic.is_empty()) else {
            return Address::Unclear;
        };
        let partition = match partition.map(|value| value.and_then(partition_from)) {
            None => None,
            Some(Some(number)) => Some(number),
            Some(None) => return Address::Unclear,
        };
        Address::To { topic, partition, correlation_id }
    }

    /// Reads what a reply says of itself.
    pub(crate) fn envelope_of<'m>(&self, reply: &Message<'m>) -> Envelope<'m> {
        let mut envelope = Envelope { correlation_id: None, error: None };
        for Header { key, value } in reply.headers() {
            if key == &*self.correlation_id {
                envelope.correlation_id = value;
            } else if key == &*self.error {
                envelope.error = Some(value.unwrap_or_default());
            }
        }
        envelope
    }
}

/// Where a request wants its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Address<'m> {
    /// It wants none.
    Nowhere,
    /// It wants one, and nobody can tell where.
    Unclear,
    To {
        topic: &'m str,
        /// `None`: wherever the reply's key leads.
        partition: Option<u32>,
        /// `None`: nobody will be able to tell whose reply it is.
        correlation_id: Option<&'m [u8]>,
    },
}

/// What a reply says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Envelope<'m> {
    pub(crate) correlation_id: Option<&'m [u8]>,
    /// Why there is no answer, if there is none.
    pub(crate) error: Option<&'m [u8]>,
}

/// Gives a partition's number as the header has it.
pub(crate) fn partition_bytes(partition: u32) -> [u8; 4] {
    partition.to_be_bytes()
}

/// Reads a partition's number; `None` if it is not four bytes, or negative as Kafka would read it.
pub(crate) fn partition_from(bytes: &[u8]) -> Option<u32> {
    let number = i32::from_be_bytes(bytes.try_into().ok()?);
    u32::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_four_bytes_and_not_negative() {
        for number in [0, 1, 255, 256, i32::MAX as u32] {
            assert_eq!(partition_from(&partition_bytes(number)), Some(number));
        }
        assert_eq!(partition_bytes(258), [0, 0, 1, 2]);
        for odd in [&[][..], &[0], &[0, 0, 1], &[0, 0, 0, 0, 1], &[255; 4], b"1", &[0x80, 0, 0, 0]]
        {
            assert_eq!(partition_from(odd), None, "{odd:?}");
        }
    }
}
