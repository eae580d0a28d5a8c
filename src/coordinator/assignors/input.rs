//! What an assignor is told: topics, members, what they own; and the order in which members stand.

use std::cmp::Ordering;

/// A partition among those to be assigned: the topic is an index into [`Input::topics`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) topic: u32,
    pub(crate) number: u32,
}

/// A topic among those to be assigned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TopicShape<'a> {
    pub(crate) name: &'a str,
    pub(crate) partition_count: u32,
}

/// One question to an assignor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a> {
    /// Topics in the order of their names; only those somebody subscribes to.
    pub(crate) topics: &'a [TopicShape<'a>],
    /// Members in the order that [`member_order`] says; results come in the same order.
    pub(crate) members: &'a [MemberInput<'a>],
}

/// A member of the group that partitions are assigned to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemberInput<'a> {
    pub(crate) id: &'a str,
    pub(crate) instance_id: Option<&'a str>,
    /// Indexes of the topics it subscribes to, ascending.
    pub(crate) subscribed: &'a [u32],
    /// What it owns now or owned last, ascending.
    pub(crate) owned: &'a [Place],
    /// The generation in which it was given `owned`; −1 if unknown.
    pub(crate) generation: i32,
}

/// Compares two members, each an id and an instance id, as Kafka does: those with an instance id come first, by that
/// id; then the others by their member id.
pub(crate) fn member_order(a: (&str, Option<&str>), b: (&str, Option<&str>)) -> Ordering {
    match (a.1, b.1) {
        (Some(a_instance), Some(b_instance)) => text_order(a_instance, b_instance),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => text_order(a.0, b.0),
    }
}

/// Compares texts as Java does, by their UTF-16 units.
pub(crate) fn text_order(a: &str, b: &str) -> Ordering {
    // The only difference to the order of bytes: what takes two units, and begins with the bytes F0 to F4, comes
    // before U+E000 to U+FFFF, which begin with EE and EF.
    let weight = |byte: u8| if byte == 0xee || byte == 0xef { byte + 0x10 } else { byte };
    a.bytes().map(weight).cmp(b.bytes().map(weight))
}

/// Gives the rank of each member in the order of their ids alone, which decides ties under the sticky assignors.
pub(crate) fn id_ranks(members: &[MemberInput<'_>]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..members.len() as u32).collect();
    order.sort_by(|a, b| text_order(members[*a as usize].id, members[*b as usize].id));
    let mut ranks = vec![0; order.len()];
    for (rank, member) in order.into_iter().enumerate() {
        ranks[member as usize] = rank as u32;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::Config;

    use super::*;

    #[test]
    fn instance_ids_come_first_then_member_ids() {
        let mut members =
            [("b", None), ("z", Some("2")), ("a", None), ("y", Some("10")), ("ab", None)];
        members.sort_by(|a, b| member_order(*a, *b));
        let ids: Vec<&str> = members.iter().map(|member| member.0).collect();
        assert_eq!(ids, ["y", "z", "a", "ab", "b"]);
    }

    #[test]
    fn a_character_of_two_units_comes_before_the_last_ones_of_one() {
        // U+FF5E takes one unit, U+10000 two of which the first is D800.
        assert_eq!(text_order("a\u{10000}", "a\u{ff5e}"), Ordering::Less);
        assert_eq!("a\u{10000}".cmp("a\u{ff5e}"), Ordering::Greater);
        assert_eq!(text_order("a\u{10000}", "a\u{d7ff}"), Ordering::Greater);
    }

    proptest! {
        #![proptest_config(Config { cases: 1_000, failure_persistence: None, ..Config::default() })]

        #[test]
        fn texts_stand_in_the_order_of_their_units(
            a in "[a\u{7f}\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}]{0,4}",
            b in "[a\u{7f}\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}]{0,4}",
        ) {
            prop_assert_eq!(text_order(&a, &b), a.encode_utf16().cmp(b.encode_utf16()));
        }
    }
}
