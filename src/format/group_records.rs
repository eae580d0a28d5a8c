//! What `__consumer_offsets` is made of: the keys and values of committed offsets and of groups.
//!
//! ```text
//! key of an offset    version i16 = 0, 1 · group text · topic text · partition i32
//! key of a group      version i16 = 2 · group text
//! offset              version i16 = 0 … 4 · offset i64 · leader epoch i32 (3+) · metadata text ·
//!                     commit time i64 · expiry time i64 (1 only)
//! group               version i16 = 0 … 4 · protocol type text · generation i32 · protocol text or null ·
//!                     leader text or null · time of its state i64 (2+) · array of members
//! member              id text · instance id text or null (3+) · client id text · client host text ·
//!                     rebalance timeout i32 (1+) · session timeout i32 · subscription bytes · assignment bytes
//! ```
//!
//! Values of version 4 are in the flexible style of `fields.rs`, all else in the old one. Written are keys of
//! versions 1 and 2, and values of version 3, as Kafka 3.9 does. A record whose value is null deletes; that is for
//! those who read records.

use crate::format::fields::Fields;
use crate::format::fields::Read;
use crate::format::fields::put_bytes;
use crate::format::fields::put_count;
use crate::format::fields::put_text;
use crate::format::fields::put_text_or_null;

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum GroupKey<'a> {
    /// The offset that a group committed for a partition.
    Offset { group: &'a str, topic: &'a str, partition: i32 },
    /// A group with its members.
    Group { group: &'a str },
    /// Something of a version that is not known here, to be passed over.
    Other { version: i16 },
}

/// A committed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetValue<'a> {
    pub(crate) offset: i64,
    /// −1 if it is not known.
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: &'a str,
    pub(crate) commit_timestamp_ms: i64,
    /// When the offset is forgotten, where that was said with the commit: in version 1 only.
    pub(crate) expire_timestamp_ms: Option<i64>,
}

/// A group as it stood after a rebalance, or when its last member left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupValue {
    /// `consumer`, or empty.
    pub(crate) protocol_type: String,
    pub(crate) generation: i32,
    /// The assignor's name; `None` if the group is empty.
    pub(crate) protocol: Option<String>,
    /// The leader's member id; `None` if the group is empty.
    pub(crate) leader: Option<String>,
    /// −1 if it is not known.
    pub(crate) state_timestamp_ms: i64,
    pub(crate) members: Vec<GroupValueMember>,
}

/// A member of a [`GroupValue`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupValueMember {
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    /// See `consumer_protocol.rs`.
    pub(crate) subscription: Vec<u8>,
    /// See `consumer_protocol.rs`. Empty if the member was not given any.
    pub(crate) assignment: Vec<u8>,
}

/// Reads a key; an error says what is wrong with it.
pub(crate) fn decode_key(bytes: &[u8]) -> Read<GroupKey<'_>> {
    let mut fields = Fields::new(bytes);
    let key = match fields.i16()? {
        0 | 1 => GroupKey::Offset {
            group: fields.text()?,
            topic: fields.text()?,
            partition: fields.i32()?,
        },
        2 => GroupKey::Group { group: fields.text()? },
        version => return Ok(GroupKey::Other { version }),
    };
    fields.end()?;
    Ok(key)
}

/// Writes the key of a committed offset. The texts have [`TEXT_LEN_MAX`](crate::format::fields::TEXT_LEN_MAX) bytes
/// at most.
pub(crate) fn encode_offset_key(into: &mut Vec<u8>, group: &str, topic: &str, partition: i32) {
    into.extend_from_slice(&1_i16.to_be_bytes());
    put_text(into, group);
    put_text(into, topic);
    into.extend_from_slice(&partition.to_be_bytes());
}

/// Writes the key of a group, whose name has [`TEXT_LEN_MAX`](crate::format::fields::TEXT_LEN_MAX) bytes at most.
pub(crate) fn encode_group_key(into: &mut Vec<u8>, group: &str) {
    into.extend_from_slice(&2_i16.to_be_bytes());
    put_text(into, group);
}

/// Reads a committed offset; an error says what is wrong with it.
pub(crate) fn decode_offset_value(bytes: &[u8]) -> Read<OffsetValue<'_>> {
    let mut fields = Fields::new(bytes);
    let version = value_version(&mut fields)?;
    let mut fields = fields.flexible_if(version >= 4);
    let value = OffsetValue {
        offset: fields.i64()?,
        leader_epoch: if version >= 3 { fields.i32()? } else { -1 },
        metadata: fields.text()?,
        commit_timestamp_ms: fields.i64()?,
        expire_timestamp_ms: match version {
            1 => Some(fields.i64()?).filter(|time| *time != -1),
            _ => None,
        },
    };
    fields.tags()?;
    fields.end()?;
    Ok(value)
}

/// Writes a committed offset. The version it is written in has no expiry time.
pub(crate) fn encode_offset_value(into: &mut Vec<u8>, value: &OffsetValue<'_>) {
    into.extend_from_slice(&3_i16.to_be_bytes());
    into.extend_from_slice(&value.offset.to_be_bytes());
    into.extend_from_slice(&value.leader_epoch.to_be_bytes());
    put_text(into, value.metadata);
    into.extend_from_slice(&value.commit_timestamp_ms.to_be_bytes());
}

/// Reads a group; an error says what is wrong with it.
pub(crate) fn decode_group_value(bytes: &[u8]) -> Read<GroupValue> {
    let mut fields = Fields::new(bytes);
    let version = value_version(&mut fields)?;
    let mut fields = fields.flexible_if(version >= 4);
    let value = GroupValue {
        protocol_type: fields.text()?.to_owned(),
        generation: fields.i32()?,
        protocol: fields.text_or_null()?.map(str::to_owned),
        leader: fields.text_or_null()?.map(str::to_owned),
        state_timestamp_ms: if version >= 2 { fields.i64()? } else { -1 },
        members: fields.elements(MEMBER_LEN_MIN, |fields| decode_member(fields, version))?,
    };
    fields.tags()?;
    fields.end()?;
    Ok(value)
}

/// A member in the flexible style: three texts, one that may be null, two times, two pieces of bytes, the tags.
const MEMBER_LEN_MIN: usize = 4 + 2 * 4 + 2 + 1;

fn decode_member(fields: &mut Fields<'_>, version: i16) -> Read<GroupValueMember> {
    let member_id = fields.text()?.to_owned();
    let instance_id = if version >= 3 { fields.text_or_null()? } else { None };
    let client_id = fields.text()?.to_owned();
    let client_host = fields.text()?.to_owned();
    let timeout_ms = fields.i32()?;
    let member = GroupValueMember {
        member_id,
        instance_id: instance_id.map(str::to_owned),
        client_id,
        client_host,
        // Before there were two, one timeout stood for both.
        rebalance_timeout_ms: timeout_ms,
        session_timeout_ms: if version >= 1 { fields.i32()? } else { timeout_ms },
        subscription: fields.bytes()?.to_vec(),
        assignment: fields.bytes()?.to_vec(),
    };
    fields.tags()?;
    Ok(member)
}

/// Writes a group. Its texts have [`TEXT_LEN_MAX`](crate::format::fields::TEXT_LEN_MAX) bytes at most.
pub(crate) fn encode_group_value(into: &mut Vec<u8>, value: &GroupValue) {
    into.extend_from_slice(&3_i16.to_be_bytes());
    put_text(into, &value.protocol_type);
    into.extend_from_slice(&value.generation.to_be_bytes());
    put_text_or_null(into, value.protocol.as_deref());
    put_text_or_null(into, value.leader.as_deref());
    into.extend_from_slice(&value.state_timestamp_ms.to_be_bytes());
    put_count(into, value.members.len());
    for member in &value.members {
        put_text(into, &member.member_id);
        put_text_or_null(into, member.instance_id.as_deref());
        put_text(into, &member.client_id);
        put_text(into, &member.client_host);
        into.extend_from_slice(&member.rebalance_timeout_ms.to_be_bytes());
        into.extend_from_slice(&member.session_timeout_ms.to_be_bytes());
        put_bytes(into, &member.subscription);
        put_bytes(into, &member.assignment);
    }
}

fn value_version(fields: &mut Fields<'_>) -> Read<i16> {
    let version = fields.i16()?;
    if (0..=4).contains(&version) { Ok(version) } else { Err("its version is not known") }
}

/// Gives what Java's `String.hashCode` gives.
pub(crate) fn java_string_hash(text: &str) -> i32 {
    let hash = |hash: i32, unit: u16| hash.wrapping_mul(31).wrapping_add(i32::from(unit));
    text.encode_utf16().fold(0, hash)
}

/// Gives the partition of `__consumer_offsets` that a group's records are in. One of none is 0.
pub(crate) fn group_partition(group: &str, partition_count: u32) -> u32 {
    // The lowest number has no positive counterpart and counts as 0.
    let hash = java_string_hash(group).checked_abs().unwrap_or(0);
    hash.unsigned_abs() % partition_count.max(1)
}
