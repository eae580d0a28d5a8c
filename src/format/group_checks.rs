//! Tests only: group records that Kafka wrote, that another codec writes, and that are not whole.

use bytes::Bytes;
use bytes::BytesMut;
use kafka_protocol::messages::ConsumerProtocolAssignment;
use kafka_protocol::messages::ConsumerProtocolSubscription;
use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::consumer_protocol_assignment;
use kafka_protocol::messages::consumer_protocol_subscription;
use kafka_protocol::protocol::Decodable;
use kafka_protocol::protocol::Encodable;
use kafka_protocol::protocol::StrBytes;
use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::format::consumer_protocol::MemberAssignment;
use crate::format::consumer_protocol::MemberSubscription;
use crate::format::consumer_protocol::TopicPartitions;
use crate::format::consumer_protocol::decode_assignment;
use crate::format::consumer_protocol::decode_subscription;
use crate::format::consumer_protocol::encode_assignment;
use crate::format::consumer_protocol::encode_subscription;
use crate::format::decode::Batch;
use crate::format::group_records::GroupKey;
use crate::format::group_records::GroupValue;
use crate::format::group_records::GroupValueMember;
use crate::format::group_records::OffsetValue;
use crate::format::group_records::decode_group_value;
use crate::format::group_records::decode_key;
use crate::format::group_records::decode_offset_value;
use crate::format::group_records::encode_group_key;
use crate::format::group_records::encode_group_value;
use crate::format::group_records::encode_offset_key;
use crate::format::group_records::encode_offset_value;
use crate::format::group_records::group_partition;
use crate::format::group_records::java_string_hash;

/// A segment that a broker of version 3.9 wrote.
const GOLDEN: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/golden/kafka-3.9/clean/__consumer_offsets-0/00000000000000000000.log"
));

/// Its records, without the transactions' markers.
fn golden_records() -> Vec<(&'static [u8], &'static [u8])> {
    let mut rest = GOLDEN;
    let mut records = Vec::new();
    while !rest.is_empty() {
        let batch = Batch::verify(rest).unwrap();
        if !batch.header().attributes.is_control() {
            records.extend(batch.records().map(|r| (r.key.unwrap(), r.value.unwrap())));
        }
        rest = &rest[batch.header().len()..];
    }
    records
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes);
    bytes
}

#[test]
fn what_kafka_wrote_is_read_and_written_again_byte_for_byte() {
    let mut seen = Vec::new();
    for (key, value) in golden_records() {
        match decode_key(key).unwrap() {
            GroupKey::Offset { group, topic, partition } => {
                let offset = decode_offset_value(value).unwrap();
                assert_eq!(written(|b| encode_offset_key(b, group, topic, partition)), key);
                assert_eq!(written(|b| encode_offset_value(b, &offset)), value);
                assert_eq!((offset.metadata, offset.expire_timestamp_ms), ("", None));
                assert!(offset.commit_timestamp_ms > 1_700_000_000_000);
                let epoch = offset.leader_epoch;
                seen.push(format!("{group} {topic}-{partition} {} {epoch}", offset.offset));
            }
            GroupKey::Group { group } => {
                let state = decode_group_value(value).unwrap();
                assert_eq!(written(|b| encode_group_key(b, group)), key);
                assert_eq!(written(|b| encode_group_value(b, &state)), value);
                assert_eq!(state.protocol_type, "consumer");
                assert!(state.state_timestamp_ms > 1_700_000_000_000);
                let protocol = state.protocol.as_deref();
                seen.push(format!("{group} {} {protocol:?}", state.generation));
                for member in &state.members {
                    assert_eq!(state.leader.as_ref(), Some(&member.member_id));
                    assert_eq!(
                        (&*member.client_id, &*member.client_host),
                        ("rdkafka", "/127.0.0.1")
                    );
                    assert_eq!(member.rebalance_timeout_ms, 300_000);
                    assert_eq!(member.session_timeout_ms, 45_000);
                    let subscription = decode_subscription(&member.subscription).unwrap();
                    assert_eq!(
                        written(|b| encode_subscription(b, &subscription)),
                        member.subscription
                    );
                    let assignment = decode_assignment(&member.assignment).unwrap();
                    assert_eq!(written(|b| encode_assignment(b, &assignment)), member.assignment);
                    let given = &assignment.given[0];
                    let topics = subscription.topics.join(" ");
                    seen.push(format!("[{topics}] {}-{:?}", given.topic, given.partitions));
                }
            }
            GroupKey::Other { version } => panic!("version {version}"),
        }
    }
    let wanted = [
        "g1 1 Some(\"range\")",
        "[plain] plain-[0, 1]",
        "g1 plain-0 500 0",
        "g1 plain-1 500 0",
        "g1 plain-0 77 -1",
        "g1 2 None",
        "g2 plain-1 42 -1",
    ];
    assert_eq!(seen, wanted);
}

#[test]
fn keys_of_other_versions_are_passed_over() {
    for version in [-1_i16, 3, 8, 11, i16::MAX] {
        let bytes = [version.to_be_bytes().as_slice(), &[1, 2, 3]].concat();
        assert_eq!(decode_key(&bytes), Ok(GroupKey::Other { version }));
    }
    // The first version had the fields of the second.
    let mut bytes = written(|b| encode_offset_key(b, "g", "t", 7));
    bytes[1] = 0;
    assert_eq!(decode_key(&bytes), Ok(GroupKey::Offset { group: "g", topic: "t", partition: 7 }));
    for version in [-1_i16, 5] {
        let bytes = [version.to_be_bytes().as_slice(), &[0; 40]].concat();
        assert_eq!(decode_offset_value(&bytes), Err("its version is not known"));
        assert_eq!(decode_group_value(&bytes), Err("its version is not known"));
    }
}

#[test]
fn texts_that_are_not_utf_8_are_refused() {
    let refused = "a text is not UTF-8";
    let mut key = written(|b| encode_group_key(b, "g"));
    key[4] = 0xff;
    assert_eq!(decode_key(&key), Err(refused));
    let value = OffsetValue { metadata: "m", ..OFFSET };
    let mut value = written(|b| encode_offset_value(b, &value));
    value[16] = 0xff;
    assert_eq!(decode_offset_value(&value), Err(refused));
    let mut group = written(|b| encode_group_value(b, &group_of_two()));
    group[4] = 0xff;
    assert_eq!(decode_group_value(&group), Err(refused));
}

#[test]
fn a_hash_is_javas_and_a_group_has_its_partition() {
    // As a Java machine printed them.
    for (text, hash, partition) in [
        ("", 0, 0),
        ("hello", 99_162_322, 22),
        ("orders", -1_008_770_331, 31),
        ("consumer-group", -1_738_392_088, 38),
        ("grüße", 98_768_023, 23),
        ("\u{10000}", 1_770_496, 46),
        ("polygenelubricants", i32::MIN, 0),
    ] {
        assert_eq!(java_string_hash(text), hash, "{text}");
        assert_eq!(group_partition(text, 50), partition, "{text}");
    }
    assert_eq!(group_partition("g", 1), 0);
    assert_eq!(group_partition("g", 0), 0);
}

const OFFSET: OffsetValue<'static> = OffsetValue {
    offset: 42,
    leader_epoch: 3,
    metadata: "",
    commit_timestamp_ms: 1_700_000_000_000,
    expire_timestamp_ms: None,
};

fn group_of_two() -> GroupValue {
    let member = GroupValueMember {
        member_id: "m-1".to_owned(),
        instance_id: Some("i".to_owned()),
        client_id: "c".to_owned(),
        client_host: "/h".to_owned(),
        rebalance_timeout_ms: 300_000,
        session_timeout_ms: 45_000,
        subscription: vec![1, 2, 3],
        assignment: Vec::new(),
    };
    let second = GroupValueMember {
        member_id: "m-2".to_owned(),
        instance_id: None,
        assignment: vec![7; 200],
        ..member.clone()
    };
    GroupValue {
        protocol_type: "consumer".to_owned(),
        generation: 5,
        protocol: Some("range".to_owned()),
        leader: Some("m-1".to_owned()),
        state_timestamp_ms: 1_700_000_000_000,
        members: vec![member, second],
    }
}

/// Writes every version, by hand and field by field: the other codec has no such records.
struct Longhand {
    bytes: Vec<u8>,
    version: i16,
}

impl Longhand {
    fn new(version: i16) -> Longhand {
        Longhand { bytes: version.to_be_bytes().to_vec(), version }
    }

    fn i32(&mut self, value: i32) {
        self.bytes.extend(value.to_be_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.bytes.extend(value.to_be_bytes());
    }

    fn unsigned(&mut self, value: usize) {
        assert!(value < 1 << 14);
        match (value & 0x7f, value >> 7) {
            (low, 0) => self.bytes.push(low as u8),
            (low, high) => self.bytes.extend([low as u8 | 0x80, high as u8]),
        }
    }

    fn text(&mut self, text: Option<&str>) {
        match (self.version, text) {
            (4, None) => self.bytes.push(0),
            (4, Some(text)) => self.unsigned(text.len() + 1),
            (_, None) => self.bytes.extend([0xff, 0xff]),
            (_, Some(text)) => self.bytes.extend((text.len() as u16).to_be_bytes()),
        }
        self.bytes.extend(text.unwrap_or("").as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.bytes.extend(bytes);
    }

    fn count(&mut self, count: usize) {
        match self.version {
            4 => self.unsigned(count + 1),
            _ => self.i32(count as i32),
        }
    }

    /// Tagged fields that nobody knows, as many as are said.
    fn tags(&mut self, count: usize) {
        if self.version == 4 {
            self.unsigned(count);
            for tag in 0..count {
                self.unsigned(300 + tag);
                self.unsigned(tag);
                self.bytes.extend(vec![9; tag]);
            }
        }
    }

    fn offset(version: i16, value: &OffsetValue<'_>, tag_count: usize) -> Vec<u8> {
        let mut longhand = Longhand::new(version);
        longhand.i64(value.offset);
        if version >= 3 {
            longhand.i32(value.leader_epoch);
        }
        longhand.text(Some(value.metadata));
        longhand.i64(value.commit_timestamp_ms);
        if version == 1 {
            longhand.i64(value.expire_timestamp_ms.unwrap_or(-1));
        }
        longhand.tags(tag_count);
        longhand.bytes
    }

    fn group(version: i16, value: &GroupValue, tag_count: usize) -> Vec<u8> {
        let mut longhand = Longhand::new(version);
        longhand.text(Some(&value.protocol_type));
        longhand.i32(value.generation);
        longhand.text(value.protocol.as_deref());
        longhand.text(value.leader.as_deref());
        if version >= 2 {
            longhand.i64(value.state_timestamp_ms);
        }
        longhand.count(value.members.len());
        for member in &value.members {
            longhand.text(Some(&member.member_id));
            if version >= 3 {
                longhand.text(member.instance_id.as_deref());
            }
            longhand.text(Some(&member.client_id));
            longhand.text(Some(&member.client_host));
            if version >= 1 {
                longhand.i32(member.rebalance_timeout_ms);
            }
            longhand.i32(member.session_timeout_ms);
            longhand.bytes(&member.subscription);
            longhand.bytes(&member.assignment);
            longhand.tags(tag_count);
        }
        longhand.tags(tag_count);
        longhand.bytes
    }
}

/// What is left of an offset in a version.
fn offset_in<'a>(version: i16, value: &OffsetValue<'a>) -> OffsetValue<'a> {
    OffsetValue {
        leader_epoch: if version >= 3 { value.leader_epoch } else { -1 },
        expire_timestamp_ms: value.expire_timestamp_ms.filter(|_| version == 1),
        ..*value
    }
}

/// What is left of a group in a version.
fn group_in(version: i16, value: &GroupValue) -> GroupValue {
    let mut value = value.clone();
    if version < 2 {
        value.state_timestamp_ms = -1;
    }
    for member in &mut value.members {
        member.instance_id = member.instance_id.take().filter(|_| version >= 3);
        if version == 0 {
            member.rebalance_timeout_ms = member.session_timeout_ms;
        }
    }
    value
}

/// Bytes, with what reads them and tells whether it could.
type Sample = (Vec<u8>, fn(&[u8]) -> bool);

/// Bytes of every kind.
fn samples() -> Vec<Sample> {
    let mut samples: Vec<Sample> = vec![
        (written(|b| encode_offset_key(b, "group", "topic", 3)), |b| decode_key(b).is_ok()),
        (written(|b| encode_group_key(b, "group")), |b| decode_key(b).is_ok()),
    ];
    let offset = OffsetValue { metadata: "mö", expire_timestamp_ms: Some(7), ..OFFSET };
    for version in 0..=4 {
        let (offset, group) =
            (Longhand::offset(version, &offset, 2), Longhand::group(version, &group_of_two(), 2));
        samples.push((offset, |b| decode_offset_value(b).is_ok()));
        samples.push((group, |b| decode_group_value(b).is_ok()));
    }
    let listed = vec![
        TopicPartitions { topic: "x", partitions: vec![0, 1, 2] },
        TopicPartitions { topic: "y", partitions: vec![] },
    ];
    let subscription = MemberSubscription {
        topics: vec!["x", "y", "z"],
        user_data: Some(&[1, 2]),
        owned: listed.clone(),
        generation: 3,
        rack: Some("r"),
    };
    samples.push((written(|b| encode_subscription(b, &subscription)), |b| {
        decode_subscription(b).is_ok()
    }));
    let assignment = MemberAssignment { given: listed, user_data: Some(&[1]) };
    samples
        .push((written(|b| encode_assignment(b, &assignment)), |b| decode_assignment(b).is_ok()));
    samples
}

#[test]
fn whatever_is_cut_off_is_refused_and_no_bit_makes_it_panic() {
    for (bytes, is_read) in samples() {
        assert!(is_read(&bytes), "{bytes:02x?}");
        for len in 0..bytes.len() {
            assert!(!is_read(&bytes[..len]), "{len} of {bytes:02x?}");
        }
        for position in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[position] ^= 1 << bit;
                is_read(&flipped);
            }
        }
    }
}

#[test]
fn what_is_longer_than_it_should_be_is_refused_unless_a_later_version_may_add_to_it() {
    for (bytes, is_read) in samples() {
        let longer = [bytes.as_slice(), &[0]].concat();
        let is_protocol = decode_subscription(&bytes).is_ok() || decode_assignment(&bytes).is_ok();
        assert_eq!(is_read(&longer), is_protocol && is_read(&bytes), "{bytes:02x?}");
    }
    let mut later = written(|b| {
        let topics = vec!["t"];
        let plain = MemberSubscription {
            topics,
            user_data: None,
            owned: Vec::new(),
            generation: 9,
            rack: None,
        };
        encode_subscription(b, &plain);
    });
    later[1] = 9;
    later.extend_from_slice(&[1, 2, 3]);
    assert_eq!(decode_subscription(&later).unwrap().generation, 9);
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zö\u{10000}]{0,8}", "[a-z]{120,140}"]
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![prop::collection::vec(any::<u8>(), 0..8), Just(vec![7; 130])]
}

fn any_listed() -> impl Strategy<Value = Vec<(String, Vec<i32>)>> {
    prop::collection::vec((any_text(), prop::collection::vec(any::<i32>(), 0..5)), 0..4)
}

prop_compose! {
    fn any_group_member()(
        (member_id, client_id, client_host) in (any_text(), any_text(), any_text()),
        instance_id in prop::option::of(any_text()),
        (rebalance_timeout_ms, session_timeout_ms) in any::<(i32, i32)>(),
        (subscription, assignment) in (any_bytes(), any_bytes()),
    ) -> GroupValueMember {
        GroupValueMember {
            member_id,
            instance_id,
            client_id,
            client_host,
            rebalance_timeout_ms,
            session_timeout_ms,
            subscription,
            assignment,
        }
    }
}

prop_compose! {
    fn any_group_value()(
        protocol_type in any_text(),
        (generation, state_timestamp_ms) in any::<(i32, i64)>(),
        (protocol, leader) in (prop::option::of(any_text()), prop::option::of(any_text())),
        members in prop::collection::vec(any_group_member(), 0..4),
    ) -> GroupValue {
        GroupValue { protocol_type, generation, protocol, leader, state_timestamp_ms, members }
    }
}

fn listed(listed: &[(String, Vec<i32>)]) -> Vec<TopicPartitions<'_>> {
    let listed = listed.iter();
    listed.map(|(topic, p)| TopicPartitions { topic, partitions: p.clone() }).collect()
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

proptest! {
    #![proptest_config(Config { cases: 500, failure_persistence: None, ..Config::default() })]

    #[test]
    fn offsets_of_every_version_are_read(
        (offset, leader_epoch, commit_timestamp_ms) in any::<(i64, i32, i64)>(),
        metadata in any_text(),
        expire_timestamp_ms in prop::option::of(0..i64::MAX),
        tag_count in 0..4_usize,
    ) {
        let metadata = metadata.as_str();
        let value =
            OffsetValue { offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms };
        for version in 0..=4 {
            let bytes = Longhand::offset(version, &value, tag_count);
            prop_assert_eq!(decode_offset_value(&bytes), Ok(offset_in(version, &value)));
        }
        let ours = written(|b| encode_offset_value(b, &value));
        prop_assert_eq!(ours, Longhand::offset(3, &value, 0));
    }

    #[test]
    fn groups_of_every_version_are_read(
        value in any_group_value(),
        tag_count in 0..4_usize,
    ) {
        for version in 0..=4 {
            let bytes = Longhand::group(version, &value, tag_count);
            prop_assert_eq!(decode_group_value(&bytes), Ok(group_in(version, &value)));
        }
        prop_assert_eq!(written(|b| encode_group_value(b, &value)), Longhand::group(3, &value, 0));
    }

    #[test]
    fn keys_make_the_round_trip(
        group in any_text(),
        topic in any_text(),
        partition in any::<i32>(),
    ) {
        let bytes = written(|b| encode_offset_key(b, &group, &topic, partition));
        let key = GroupKey::Offset { group: &group, topic: &topic, partition };
        prop_assert_eq!(decode_key(&bytes), Ok(key));
        let mut longhand = Longhand::new(1);
        longhand.text(Some(&group));
        longhand.text(Some(&topic));
        longhand.i32(partition);
        prop_assert_eq!(&bytes, &longhand.bytes);
        let bytes = written(|b| encode_group_key(b, &group));
        prop_assert_eq!(decode_key(&bytes), Ok(GroupKey::Group { group: &group }));
    }

    #[test]
    fn subscriptions_agree_with_the_other_codec(
        topics in prop::collection::vec(any_text(), 0..4),
        user_data in prop::option::of(any_bytes()),
        owned in any_listed(),
        generation in any::<i32>(),
        rack in prop::option::of(any_text()),
    ) {
        let ours = MemberSubscription {
            topics: topics.iter().map(String::as_str).collect(),
            user_data: user_data.as_deref(),
            owned: listed(&owned),
            generation,
            rack: rack.as_deref(),
        };
        let owned = owned.iter().map(|(topic, partitions)| {
            consumer_protocol_subscription::TopicPartition::default()
                .with_topic(TopicName(text(topic)))
                .with_partitions(partitions.clone())
        });
        let theirs = ConsumerProtocolSubscription::default()
            .with_topics(topics.iter().map(|topic| text(topic)).collect())
            .with_user_data(user_data.clone().map(Bytes::from))
            .with_owned_partitions(owned.collect())
            .with_generation_id(generation)
            .with_rack_id(rack.as_deref().map(text));
        for version in 0..=3_i16 {
            let mut bytes = BytesMut::from(version.to_be_bytes().as_slice());
            theirs.encode(&mut bytes, version).unwrap();
            let mut wanted = ours.clone();
            if version < 3 {
                wanted.rack = None;
            }
            if version < 2 {
                wanted.generation = -1;
            }
            if version < 1 {
                wanted.owned.clear();
            }
            prop_assert_eq!(decode_subscription(&bytes), Ok(wanted));
        }
        let mut bytes = Bytes::from(written(|b| encode_subscription(b, &ours)));
        prop_assert_eq!(&bytes.split_to(2)[..], &[0, 3]);
        prop_assert_eq!(ConsumerProtocolSubscription::decode(&mut bytes, 3).unwrap(), theirs);
        prop_assert!(bytes.is_empty());
    }

    #[test]
    fn assignments_agree_with_the_other_codec(
        given in any_listed(),
        user_data in prop::option::of(any_bytes()),
    ) {
        let ours = MemberAssignment { given: listed(&given), user_data: user_data.as_deref() };
        let given = given.iter().map(|(topic, partitions)| {
            consumer_protocol_assignment::TopicPartition::default()
                .with_topic(TopicName(text(topic)))
                .with_partitions(partitions.clone())
        });
        let theirs = ConsumerProtocolAssignment::default()
            .with_assigned_partitions(given.collect())
            .with_user_data(user_data.clone().map(Bytes::from));
        for version in 0..=3_i16 {
            let mut bytes = BytesMut::from(version.to_be_bytes().as_slice());
            theirs.encode(&mut bytes, version).unwrap();
            prop_assert_eq!(decode_assignment(&bytes), Ok(ours.clone()));
        }
        let mut bytes = Bytes::from(written(|b| encode_assignment(b, &ours)));
        prop_assert_eq!(&bytes.split_to(2)[..], &[0, 0]);
        prop_assert_eq!(ConsumerProtocolAssignment::decode(&mut bytes, 0).unwrap(), theirs);
        prop_assert!(bytes.is_empty());
    }

    #[test]
    fn whatever_bytes_say_reading_them_ends(
        version in 0..6_u8,
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            // Small numbers make lengths that fit, and so longer walks.
            prop::collection::vec(prop_oneof![4 => Just(0_u8), 2 => 0..6_u8, 1 => any::<u8>()], 0..300),
        ],
    ) {
        let bytes = [&[0, version], body.as_slice()].concat();
        for bytes in [&bytes, &body] {
            // A key or an offset holds less than what it was read from.
            if let Ok(GroupKey::Offset { group, topic, .. }) = decode_key(bytes) {
                prop_assert!(group.len() + topic.len() < bytes.len());
            }
            if let Ok(offset) = decode_offset_value(bytes) {
                prop_assert!(offset.metadata.len() < bytes.len());
            }
            if let Ok(group) = decode_group_value(bytes) {
                prop_assert!(group.members.len() <= bytes.len() / 15);
            }
            if let Ok(subscription) = decode_subscription(bytes) {
                prop_assert!(subscription.topics.len() + subscription.owned.len() <= bytes.len() / 2);
            }
            if let Ok(assignment) = decode_assignment(bytes) {
                prop_assert!(assignment.given.len() <= bytes.len() / 6);
            }
        }
    }
}
