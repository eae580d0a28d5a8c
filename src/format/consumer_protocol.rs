//! What members of a group say to each other: the bytes of a subscription and of an assignment.
//!
//! ```text
//! subscription   version i16 · array of topic texts · user data, bytes or null ·
//!                array of owned (1+) · generation i32 (2+) · rack text or null (3+)
//! assignment     version i16 · array of given · user data, bytes or null
//! owned, given   topic text · array of partitions i32
//! ```
//!
//! All in the old style of `fields.rs`. Later versions only add at the end, so one that is not known is read as the
//! last that is, and what follows is passed over, as Kafka does.

use crate::format::fields::Fields;
use crate::format::fields::Read;
use crate::format::fields::put_bytes_or_null;
use crate::format::fields::put_count;
use crate::format::fields::put_text;
use crate::format::fields::put_text_or_null;

/// Some partitions of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicPartitions<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partitions: Vec<i32>,
}

/// What a member wants, and what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberSubscription<'a> {
    pub(crate) topics: Vec<&'a str>,
    pub(crate) user_data: Option<&'a [u8]>,
    pub(crate) owned: Vec<TopicPartitions<'a>>,
    /// The generation in which it was given `owned`; −1 if it is not known.
    pub(crate) generation: i32,
    pub(crate) rack: Option<&'a str>,
}

/// What a member is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberAssignment<'a> {
    pub(crate) given: Vec<TopicPartitions<'a>>,
    pub(crate) user_data: Option<&'a [u8]>,
}

/// Reads a subscription of any version; an error says what is wrong with it.
pub(crate) fn decode_subscription(bytes: &[u8]) -> Read<MemberSubscription<'_>> {
    let mut fields = Fields::new(bytes);
    let version = version(&mut fields)?;
    Ok(MemberSubscription {
        topics: fields.elements(2, Fields::text)?,
        user_data: fields.bytes_or_null()?,
        owned: if version >= 1 { topic_partitions(&mut fields)? } else { Vec::new() },
        generation: if version >= 2 { fields.i32()? } else { -1 },
        rack: if version >= 3 { fields.text_or_null()? } else { None },
    })
}

/// Writes a subscription, as version 3.
pub(crate) fn encode_subscription(into: &mut Vec<u8>, subscription: &MemberSubscription<'_>) {
    into.extend_from_slice(&3_i16.to_be_bytes());
    put_count(into, subscription.topics.len());
    for topic in &subscription.topics {
        put_text(into, topic);
    }
    put_bytes_or_null(into, subscription.user_data);
    put_topic_partitions(into, &subscription.owned);
    into.extend_from_slice(&subscription.generation.to_be_bytes());
    put_text_or_null(into, subscription.rack);
}

/// Reads an assignment of any version; an error says what is wrong with it. That of a member that was not given any
/// is no bytes at all, which is not for this function.
pub(crate) fn decode_assignment(bytes: &[u8]) -> Read<MemberAssignment<'_>> {
    let mut fields = Fields::new(bytes);
    version(&mut fields)?;
    Ok(MemberAssignment {
        given: topic_partitions(&mut fields)?,
        user_data: fields.bytes_or_null()?,
    })
}

/// Writes an assignment, as version 0: those that followed changed nothing.
pub(crate) fn encode_assignment(into: &mut Vec<u8>, assignment: &MemberAssignment<'_>) {
    into.extend_from_slice(&0_i16.to_be_bytes());
    put_topic_partitions(into, &assignment.given);
    put_bytes_or_null(into, assignment.user_data);
}

fn version(fields: &mut Fields<'_>) -> Read<i16> {
    let version = fields.i16()?;
    if version >= 0 { Ok(version) } else { Err("its version is not known") }
}

fn topic_partitions<'a>(fields: &mut Fields<'a>) -> Read<Vec<TopicPartitions<'a>>> {
    fields.elements(2 + 4, |fields| {
        let topic = fields.text()?;
        Ok(TopicPartitions { topic, partitions: fields.elements(4, Fields::i32)? })
    })
}

fn put_topic_partitions(into: &mut Vec<u8>, listed: &[TopicPartitions<'_>]) {
    put_count(into, listed.len());
    for TopicPartitions { topic, partitions } in listed {
        put_text(into, topic);
        put_count(into, partitions.len());
        for partition in partitions {
            into.extend_from_slice(&partition.to_be_bytes());
        }
    }
}
