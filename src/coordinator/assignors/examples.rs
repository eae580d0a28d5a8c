//! Tests only: groups written as text, and what Kafka makes of them (line 19 of the conformance list).

use crate::coordinator::assignors::Input;
use crate::coordinator::assignors::MemberInput;
use crate::coordinator::assignors::Place;
use crate::coordinator::assignors::TopicShape;
use crate::coordinator::assignors::cooperative_sticky;
use crate::coordinator::assignors::range;
use crate::coordinator::assignors::round_robin;
use crate::coordinator::assignors::sticky;
use crate::coordinator::assignors::uniform;

pub(crate) type Assignor = fn(&Input<'_>) -> Vec<Vec<Place>>;

/// A group that lives on: what an assignor gives becomes what its members own.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) topics: Vec<(String, u32)>,
    pub(crate) members: Vec<Member>,
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) subscribed: Vec<u32>,
    pub(crate) owned: Vec<Place>,
    pub(crate) generation: i32,
}

impl Group {
    /// A group of topics such as `t0:3 t1:3`, without members.
    pub(crate) fn of(topics: &str) -> Group {
        let topics = topics.split_whitespace().map(|topic| {
            let (name, count) = topic.split_once(':').unwrap();
            (name.to_owned(), count.parse().unwrap())
        });
        Group { topics: topics.collect(), members: Vec::new() }
    }

    /// Adds a member that owns nothing and subscribes to the topics named.
    pub(crate) fn join(mut self, id: &str, topics: &str) -> Group {
        let mut subscribed: Vec<u32> = topics.split_whitespace().map(|t| self.topic(t)).collect();
        subscribed.sort_unstable();
        let member = Member { id: id.to_owned(), subscribed, owned: Vec::new(), generation: -1 };
        let at = self.members.partition_point(|other| other.id < member.id);
        self.members.insert(at, member);
        self
    }

    pub(crate) fn leave(mut self, id: &str) -> Group {
        self.members.retain(|member| member.id != id);
        self
    }

    /// Has a member say that it owns partitions such as `t-0 t-1`.
    pub(crate) fn owning(mut self, id: &str, generation: i32, places: &str) -> Group {
        let places = places.split_whitespace().map(|place| {
            let (topic, number) = place.rsplit_once('-').unwrap();
            Place { topic: self.topic(topic), number: number.parse().unwrap() }
        });
        let mut owned: Vec<Place> = places.collect();
        owned.sort_unstable();
        let member = self.members.iter_mut().find(|member| member.id == id).unwrap();
        (member.owned, member.generation) = (owned, generation);
        self
    }

    pub(crate) fn ask(&self, assignor: Assignor) -> Vec<Vec<Place>> {
        let topics: Vec<TopicShape<'_>> = self
            .topics
            .iter()
            .map(|(name, count)| TopicShape { name, partition_count: *count })
            .collect();
        let members: Vec<MemberInput<'_>> = self
            .members
            .iter()
            .map(|member| MemberInput {
                id: &member.id,
                instance_id: None,
                subscribed: &member.subscribed,
                owned: &member.owned,
                generation: member.generation,
            })
            .collect();
        assignor(&Input { topics: &topics, members: &members })
    }

    /// Asks, says what comes out as `A t-0 t-1; B t-2`, and hands it to the members as a new generation.
    pub(crate) fn round(&mut self, assignor: Assignor) -> String {
        let given = self.ask(assignor);
        self.adopt(&given);
        let texts = self.members.iter().map(|member| {
            let names = member
                .owned
                .iter()
                .map(|place| format!(" {}-{}", self.topics[place.topic as usize].0, place.number));
            format!("{}{}", member.id, names.collect::<String>())
        });
        texts.collect::<Vec<_>>().join("; ")
    }

    pub(crate) fn adopt(&mut self, given: &[Vec<Place>]) {
        let newest = self.members.iter().map(|member| member.generation).max().unwrap_or(-1);
        for (member, given) in self.members.iter_mut().zip(given) {
            member.owned.clone_from(given);
            member.generation = newest.saturating_add(1);
        }
    }

    fn topic(&self, name: &str) -> u32 {
        self.topics.iter().position(|topic| topic.0 == name).unwrap() as u32
    }
}

fn abc() -> Group {
    Group::of("t:7").join("A", "t").join("B", "t").join("C", "t")
}

#[test]
fn range_gives_stretches_and_the_first_get_more() {
    let mut group = Group::of("t:7").join("C1", "t").join("C2", "t").join("C3", "t");
    assert_eq!(group.round(range), "C1 t-0 t-1 t-2; C2 t-3 t-4; C3 t-5 t-6");
    let mut group = Group::of("t:2").join("A", "t").join("B", "t").join("C", "t");
    assert_eq!(group.round(range), "A t-0; B t-1; C");
}

#[test]
fn range_keeps_equal_topics_together_and_looks_at_each_topic_alone() {
    let mut group = Group::of("x:3 y:3 z:2").join("A", "x y").join("B", "x y z");
    assert_eq!(group.round(range), "A x-0 x-1 y-0 y-1; B x-2 y-2 z-0 z-1");
}

#[test]
fn round_robin_goes_on_from_topic_to_topic() {
    let mut group = Group::of("t0:3 t1:3").join("C0", "t0 t1").join("C1", "t0 t1");
    assert_eq!(group.round(round_robin), "C0 t0-0 t0-2 t1-1; C1 t0-1 t1-0 t1-2");
}

#[test]
fn round_robin_passes_over_those_who_do_not_subscribe() {
    let group = Group::of("t0:1 t1:2 t2:3").join("C0", "t0").join("C1", "t0 t1");
    let mut group = group.join("C2", "t0 t1 t2");
    assert_eq!(group.round(round_robin), "C0 t0-0; C1 t1-0; C2 t1-1 t2-0 t2-1 t2-2");
}

#[test]
fn sticky_fresh_then_one_joins() {
    let mut group = abc();
    assert_eq!(group.round(sticky), "A t-0 t-3 t-6; B t-1 t-4; C t-2 t-5");
    let mut group = group.join("D", "t");
    assert_eq!(group.round(sticky), "A t-0 t-3; B t-1 t-4; C t-2 t-5; D t-6");
}

#[test]
fn sticky_fresh_then_one_leaves() {
    let mut group = abc();
    group.round(sticky);
    let mut group = group.leave("B");
    assert_eq!(group.round(sticky), "A t-0 t-3 t-4 t-6; C t-1 t-2 t-5");
}

#[test]
fn sticky_fresh_over_two_topics() {
    let mut group = Group::of("x:3 y:3").join("A", "x y").join("B", "x y");
    assert_eq!(group.round(sticky), "A x-0 x-2 y-1; B x-1 y-0 y-2");
}

#[test]
fn sticky_keeps_the_lowest_numbers_of_all_topics() {
    let group = Group::of("x:2 y:2").join("A", "x y").join("B", "x y");
    let mut group = group.owning("A", 3, "x-0 x-1 y-0 y-1");
    assert_eq!(group.round(sticky), "A x-0 y-0; B x-1 y-1");
}

#[test]
fn cooperative_sticky_moves_in_two_rounds() {
    let mut group = abc();
    assert_eq!(group.round(cooperative_sticky), "A t-0 t-3 t-6; B t-1 t-4; C t-2 t-5");
    let mut group = group.join("D", "t");
    assert_eq!(group.round(cooperative_sticky), "A t-0 t-3; B t-1 t-4; C t-2 t-5; D");
    assert_eq!(group.round(cooperative_sticky), "A t-0 t-3; B t-1 t-4; C t-2 t-5; D t-6");
    assert_eq!(group.round(cooperative_sticky), "A t-0 t-3; B t-1 t-4; C t-2 t-5; D t-6");
}

#[test]
fn what_two_claim_in_one_generation_nobody_keeps() {
    let group = Group::of("t:3").join("A", "t").join("B", "t");
    let group = group.owning("A", 4, "t-0 t-1").owning("B", 4, "t-1 t-2");
    assert_eq!(group.clone().round(sticky), "A t-0 t-1; B t-2");
    // A keeps what only it claims, and is given the contested one once both have let go.
    let mut group = group;
    assert_eq!(group.round(cooperative_sticky), "A t-0; B t-2");
    assert_eq!(group.round(cooperative_sticky), "A t-0 t-1; B t-2");
}

#[test]
fn the_claim_of_the_later_generation_holds() {
    let group = Group::of("t:4").join("A", "t").join("B", "t");
    let group = group.owning("A", 3, "t-0 t-1 t-2 t-3").owning("B", 4, "t-0 t-1");
    // Nobody waits for A to let go of what B was given after it.
    assert_eq!(group.clone().round(cooperative_sticky), "A t-2 t-3; B t-0 t-1");
    assert_eq!(group.clone().round(sticky), "A t-2 t-3; B t-0 t-1");
    assert_eq!(group.clone().round(uniform), "A t-2 t-3; B t-0 t-1");
}

#[test]
fn sticky_with_different_subscriptions_begins_with_the_topics_of_few() {
    let group = Group::of("t0:1 t1:2 t2:3").join("C0", "t0").join("C1", "t0 t1");
    let mut group = group.join("C2", "t0 t1 t2");
    assert_eq!(group.round(sticky), "C0 t0-0; C1 t1-0 t1-1; C2 t2-0 t2-1 t2-2");
}

#[test]
fn sticky_with_different_subscriptions_moves_what_is_needed_for_balance() {
    let mut group = Group::of("x:2 y:4").join("A", "x y").join("B", "y");
    assert_eq!(group.round(sticky), "A x-0 x-1 y-2; B y-0 y-1 y-3");
    let mut group = group.join("C", "y");
    assert_eq!(group.round(sticky), "A x-0 x-1; B y-1 y-3; C y-0 y-2");
}

#[test]
fn sticky_takes_away_what_is_no_longer_subscribed_to() {
    let group = Group::of("x:2 y:2").join("A", "x").join("B", "x y");
    let group = group.owning("A", 1, "x-0 y-0").owning("B", 1, "x-1 y-1");
    assert_eq!(group.clone().round(sticky), "A x-0 x-1; B y-0 y-1");
    let mut group = group;
    assert_eq!(group.round(cooperative_sticky), "A x-0; B y-1");
    assert_eq!(group.round(cooperative_sticky), "A x-0 x-1; B y-0 y-1");
}

#[test]
fn a_partition_goes_back_to_whom_it_was_taken_from() {
    // C was away while A was given what it had. B has least, and yet C gets its own back.
    let group = Group::of("x:4 y:1").join("A", "x").join("B", "x").join("C", "x y");
    let group = group.owning("A", 2, "x-0 x-1 x-2 x-3");
    assert_eq!(group.clone().round(sticky), "A x-2 x-3; B x-0 x-1; C y-0");
    let mut group = group.owning("C", 1, "x-0");
    assert_eq!(group.round(sticky), "A x-2 x-3; B x-1; C x-0 y-0");
}

#[test]
fn uniform_fresh_then_one_joins() {
    let mut group = abc();
    assert_eq!(group.round(uniform), "A t-0 t-1; B t-2 t-3; C t-4 t-5 t-6");
    let mut group = group.join("D", "t");
    assert_eq!(group.round(uniform), "A t-0 t-1; B t-2 t-3; C t-4 t-5; D t-6");
}

#[test]
fn uniform_leaves_the_extra_with_one_who_has_it() {
    let group = Group::of("t:3").join("A", "t").join("B", "t");
    let mut group = group.owning("B", 0, "t-0 t-1");
    assert_eq!(group.round(uniform), "A t-2; B t-0 t-1");
}

#[test]
fn uniform_with_different_subscriptions() {
    // Topic y burdens its one subscriber most and comes first; x then goes to those who have nothing.
    let group = Group::of("x:4 y:3").join("A", "x").join("B", "x").join("C", "x y");
    let mut group = group;
    assert_eq!(group.round(uniform), "A x-0 x-2; B x-1 x-3; C y-0 y-1 y-2");
    let mut group = group.leave("B");
    assert_eq!(group.round(uniform), "A x-0 x-1 x-2 x-3; C y-0 y-1 y-2");
    // The highest number goes from the one who has most to the one who has least.
    let mut group = group.join("B", "x");
    assert_eq!(group.round(uniform), "A x-0 x-1; B x-2 x-3; C y-0 y-1 y-2");
}
