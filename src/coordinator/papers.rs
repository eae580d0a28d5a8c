//! What is put on record of a group's members, and what is made of it in the next life.
//!
//! Kafka's own record of a group, written when the group has come to rest: so another process can see who has
//! what, a real Kafka finds a group it understands, and static members find what they had.

use crate::coordinator::assignor::Assignor;
use crate::coordinator::group_state::GroupState;
use crate::format::consumer_protocol;
use crate::format::consumer_protocol::MemberAssignment;
use crate::format::consumer_protocol::MemberSubscription;
use crate::format::consumer_protocol::TopicPartitions;
use crate::format::group_records;
use crate::format::group_records::GroupValue;
use crate::format::group_records::GroupValueMember;
use crate::name::TopicName;

/// Encodes a group's members and what they hold.
pub(crate) fn encode(state: &GroupState, assignor: Option<&Assignor>, since_ms: i64) -> Vec<u8> {
    let mut members: Vec<GroupValueMember> = state
        .members()
        .map(|(_, member)| {
            let (wanted, held) = (state.wanted_by(member), state.held_by(member));
            let topics = wanted.iter().map(TopicName::as_str).collect();
            GroupValueMember {
                member_id: member.id.to_string(),
                instance_id: member.instance_id.as_ref().map(ToString::to_string),
                client_id: member.client_id.to_string(),
                ..member_of(topics, held.iter().map(|p| (p.topic.as_str(), p.place.number)))
            }
        })
        .collect();
    // Static members that are away: what they had is theirs when they are back.
    for (instance_id, had) in state.remembered() {
        let mut topics: Vec<&str> = had.iter().map(|(topic, _)| topic.as_str()).collect();
        topics.dedup();
        members.push(GroupValueMember {
            member_id: format!("{instance_id}{AWAY}"),
            instance_id: Some(instance_id.to_string()),
            ..member_of(topics, had.iter().map(|(topic, number)| (topic.as_str(), *number)))
        });
    }
    let leader = members.first().map(|member| member.member_id.clone());
    let protocol = assignor.filter(|_| !members.is_empty());
    let value = GroupValue {
        protocol_type: "consumer".to_owned(),
        generation: state.generation(),
        protocol: protocol.map(|assignor| assignor.name().to_owned()),
        leader,
        state_timestamp_ms: since_ms,
        members,
    };
    let mut encoded = Vec::new();
    group_records::encode_group_value(&mut encoded, &value);
    encoded
}

/// Makes a member on record that has no name yet.
fn member_of<'t>(
    topics: Vec<&'t str>,
    held: impl Iterator<Item = (&'t str, u32)>,
) -> GroupValueMember {
    let wanted = MemberSubscription {
        topics,
        user_data: None,
        owned: Vec::new(),
        generation: -1,
        rack: None,
    };
    let has = MemberAssignment { given: by_topic(held), user_data: None };
    let (mut subscription, mut assignment) = (Vec::new(), Vec::new());
    consumer_protocol::encode_subscription(&mut subscription, &wanted);
    consumer_protocol::encode_assignment(&mut assignment, &has);
    GroupValueMember {
        member_id: String::new(),
        instance_id: None,
        client_id: String::new(),
        client_host: CLIENT_HOST.to_owned(),
        rebalance_timeout_ms: TIMEOUT_MS,
        session_timeout_ms: TIMEOUT_MS,
        subscription,
        assignment,
    }
}

/// Tells whether a member on record was away when the record was written.
pub(crate) fn is_away(member: &GroupValueMember) -> bool {
    member.member_id.ends_with(AWAY)
}

/// Gives the topics that a member on record wanted.
///
/// # Errors
///
/// * What is wrong with the record.
pub(crate) fn topics_of(member: &GroupValueMember) -> Result<Vec<String>, &'static str> {
    if member.subscription.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = consumer_protocol::decode_subscription(&member.subscription)?;
    Ok(wanted.topics.into_iter().map(str::to_owned).collect())
}

/// Gives what a member on record had.
///
/// # Errors
///
/// * What is wrong with the record.
pub(crate) fn assignment_of(
    member: &GroupValueMember,
) -> Result<Vec<(TopicName, u32)>, &'static str> {
    if member.assignment.is_empty() {
        return Ok(Vec::new());
    }
    let mut had = Vec::new();
    for TopicPartitions { topic, partitions } in
        consumer_protocol::decode_assignment(&member.assignment)?.given
    {
        let topic = TopicName::new(topic).map_err(|_| "an assignment of what is no topic")?;
        let numbers = partitions.into_iter().filter_map(|number| u32::try_from(number).ok());
        had.extend(numbers.map(|number| (topic.clone(), number)));
    }
    Ok(had)
}

/// Gathers partitions by topic.
fn by_topic<'p>(partitions: impl Iterator<Item = (&'p str, u32)>) -> Vec<TopicPartitions<'p>> {
    let mut gathered: Vec<TopicPartitions<'_>> = Vec::new();
    for (topic, number) in partitions {
        match gathered.iter_mut().find(|known| known.topic == topic) {
            Some(known) => known.partitions.push(number as i32),
            None => gathered.push(TopicPartitions { topic, partitions: vec![number as i32] }),
        }
    }
    gathered
}

/// There is no network: members are in this process.
const CLIENT_HOST: &str = "/127.0.0.1";
/// For a Kafka that takes the directory over: how long it waits for a member to come back.
const TIMEOUT_MS: i32 = 45_000;
/// Ends the member id of one that is away.
const AWAY: &str = "-away";
