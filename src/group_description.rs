//! What is told of a group: its state, its members, how far it is behind.

use crate::coordinator::committed::OffsetAndMetadata;
use crate::coordinator::papers;
use crate::format::group_records::GroupValueMember;

/// What a group is like at this moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupDescription {
    /// The group's id.
    pub group: String,
    /// What it is up to.
    pub status: GroupStatus,
    /// How its partitions are shared out; `None` if it has no members and had none in this life of the store, but
    /// for static ones.
    pub assignor: Option<String>,
    /// Counts what members and assignments went through; 0 if it never had a member.
    pub generation: i32,
    /// Its members.
    pub members: Vec<MemberDescription>,
    /// Every partition that it committed something of, or that a member reads: by topic and number.
    pub partitions: Vec<GroupPartitionDescription>,
}

/// What a group is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupStatus {
    /// It has no members.
    Empty,
    /// Partitions are on their way from one member to another.
    Reconciling,
    /// Every member has what it is to have.
    Stable,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberDescription {
    /// Its id, new for each.
    pub member_id: String,
    /// Its instance id, if it is static.
    pub instance_id: Option<String>,
    /// The name that its consumer was given.
    pub client_id: String,
    /// The topics it wants, as far as they exist.
    pub topics: Vec<String>,
    /// What it reads: topics and partitions.
    pub assignment: Vec<(String, u32)>,
}

/// How far a group is in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupPartitionDescription {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// What was committed.
    pub committed: Option<OffsetAndMetadata>,
    /// When it was committed, in milliseconds since 1970.
    pub commit_timestamp_ms: Option<i64>,
    /// The first offset that can be read; `None` if there is no such partition any more.
    pub log_start: Option<i64>,
    /// The offset the next record will get.
    pub log_end: Option<i64>,
    /// How many offsets lie between the first record that the group has yet to read and the end: 0 if there is no
    /// such record, whatever else lies behind what was committed. `None` if nothing was committed.
    pub lag: Option<i64>,
    /// How many offsets were deleted before the group had read them: those between what it committed and the log's
    /// start. `None` if nothing was committed. A member that begins there gets its reset policy.
    pub deleted_unread: Option<i64>,
    /// The timestamp of the first record that the group has yet to read, in milliseconds since 1970.
    pub oldest_unread_ms: Option<i64>,
    /// The member that reads it.
    pub member_id: Option<String>,
}

impl GroupPartitionDescription {
    pub(crate) fn nothing(topic: &str, partition: u32) -> GroupPartitionDescription {
        GroupPartitionDescription {
            topic: topic.to_owned(),
            partition,
            committed: None,
            commit_timestamp_ms: None,
            log_start: None,
            log_end: None,
            lag: None,
            deleted_unread: None,
            oldest_unread_ms: None,
            member_id: None,
        }
    }
}

impl MemberDescription {
    pub(crate) fn on_record(member: &GroupValueMember) -> MemberDescription {
        // Checked when it was read.
        let held = papers::assignment_of(member).unwrap_or_default();
        let topics = papers::topics_of(member).unwrap_or_default();
        MemberDescription {
            topics,
            member_id: member.member_id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            assignment: held.into_iter().map(|(t, number)| (t.to_string(), number)).collect(),
        }
    }
}
