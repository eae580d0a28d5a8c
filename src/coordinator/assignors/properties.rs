//! Tests only: what holds of every assignor, whatever it is asked.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::coordinator::assignors::Place;
use crate::coordinator::assignors::cooperative_sticky;
use crate::coordinator::assignors::examples::Assignor;
use crate::coordinator::assignors::examples::Group;
use crate::coordinator::assignors::examples::Member;
use crate::coordinator::assignors::range;
use crate::coordinator::assignors::round_robin;
use crate::coordinator::assignors::sticky;
use crate::coordinator::assignors::uniform;

const ALL: [(&str, Assignor); 5] = [
    ("range", range),
    ("round_robin", round_robin),
    ("sticky", sticky),
    ("cooperative_sticky", cooperative_sticky),
    ("uniform", uniform),
];

/// Every partition of a topic that somebody subscribes to, with those who may take it.
fn takers(group: &Group) -> BTreeMap<Place, Vec<usize>> {
    let mut takers = BTreeMap::new();
    for (topic, (_, count)) in (0..).zip(&group.topics) {
        let who = group.members.iter().enumerate();
        let who = who.filter(|(_, member)| member.subscribed.contains(&topic));
        let who: Vec<usize> = who.map(|(index, _)| index).collect();
        if !who.is_empty() {
            takers.extend((0..*count).map(|number| (Place { topic, number }, who.clone())));
        }
    }
    takers
}

fn counts(given: &[Vec<Place>]) -> Vec<usize> {
    given.iter().map(Vec::len).collect()
}

fn spread(given: &[Vec<Place>]) -> usize {
    let counts = counts(given);
    counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0)
}

/// Each partition to exactly one who may take it, in ascending order; under `cooperative_sticky` one that somebody
/// else claims may wait.
fn check_one_reader(name: &str, group: &Group, given: &[Vec<Place>]) {
    assert_eq!(given.len(), group.members.len(), "{name}");
    let takers = takers(group);
    let mut owner = BTreeMap::new();
    for (index, places) in given.iter().enumerate() {
        assert!(places.is_sorted(), "{name}: {places:?}");
        for place in places {
            assert_eq!(owner.insert(*place, index), None, "{name}: {place:?} is given twice");
            assert!(takers.get(place).is_some_and(|who| who.contains(&index)), "{name}: {place:?}");
        }
    }
    for place in takers.keys().filter(|place| !owner.contains_key(place)) {
        assert_eq!(name, "cooperative_sticky", "{place:?} is given to nobody");
        assert!(group.members.iter().any(|member| member.owned.contains(place)), "{place:?}");
    }
}

/// No partition could go to somebody who has at least two fewer than its owner.
fn check_balanced(name: &str, group: &Group, given: &[Vec<Place>]) {
    let takers = takers(group);
    for (owner, places) in given.iter().enumerate() {
        for place in places {
            let least = takers[place].iter().map(|taker| given[*taker].len()).min().unwrap();
            assert!(places.len() <= least + 1, "{name}: {place:?} of {owner} in {given:?}");
        }
    }
}

/// What `index` owned before and after: how many it lost to others, how many it gained.
fn moves(before: &[Place], after: &[Place]) -> (usize, usize) {
    let (before, after): (BTreeSet<_>, BTreeSet<_>) =
        (before.iter().copied().collect(), after.iter().copied().collect());
    (before.difference(&after).count(), after.difference(&before).count())
}

prop_compose! {
    fn any_member(topic_count: u32)(
        // Those who subscribe to everything are what most groups are made of.
        subscribed in prop_oneof![
            Just((0..topic_count).collect::<Vec<u32>>()),
            prop::collection::vec(0..topic_count + 1, 0..=topic_count as usize + 1),
        ],
        owned in prop::collection::vec((0..topic_count + 2, 0..14_u32), 0..20),
        generation in prop_oneof![Just(-1), 0..4, any::<i32>()],
        is_neat in any::<bool>(),
    ) -> Member {
        let mut subscribed = subscribed;
        let mut owned: Vec<Place> =
            owned.into_iter().map(|(topic, number)| Place { topic, number }).collect();
        if is_neat {
            subscribed.sort_unstable();
            subscribed.dedup();
            owned.sort_unstable();
            owned.dedup();
        }
        Member { id: String::new(), subscribed, owned, generation }
    }
}

prop_compose! {
    /// Topics and members that may say anything of themselves.
    fn any_group()(counts in prop::collection::vec(0..12_u32, 0..6))(
        members in prop::collection::vec(any_member(counts.len() as u32), 0..9),
        counts in Just(counts),
    ) -> Group {
        let topics = counts.into_iter().enumerate().map(|(index, count)| (format!("t{index}"), count));
        let mut group = Group { topics: topics.collect(), members };
        for (index, member) in group.members.iter_mut().enumerate() {
            member.id = format!("m{index}");
        }
        group
    }
}

prop_compose! {
    /// Topics and members that all subscribe to all of them, and own nothing yet.
    fn even_group()(
        counts in prop::collection::vec(0..30_u32, 1..6),
        member_count in 1..9_usize,
    ) -> Group {
        let all: Vec<u32> = (0..counts.len() as u32).collect();
        let topics = counts.into_iter().enumerate().map(|(index, count)| (format!("t{index}"), count));
        let members = (0..member_count).map(|index| Member {
            id: format!("m{index}"),
            subscribed: all.clone(),
            owned: Vec::new(),
            generation: -1,
        });
        Group { topics: topics.collect(), members: members.collect() }
    }
}

proptest! {
    #![proptest_config(Config { cases: 3_000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_partition_has_one_reader_whatever_members_say(group in any_group()) {
        for (name, assignor) in ALL {
            check_one_reader(name, &group, &group.ask(assignor));
        }
    }

    #[test]
    fn whatever_members_say_the_outcome_is_balanced(group in any_group()) {
        check_balanced("sticky", &group, &group.ask(sticky));
        let mut uniformly = group.clone();
        // Balance between members that share topics two by two may take more than one call.
        for _ in 0..50 {
            uniformly.adopt(&uniformly.ask(uniform));
        }
        check_balanced("uniform", &uniformly, &uniformly.ask(uniform));
        for topic in 0..group.topics.len() as u32 {
            let of_topic = |member: &Vec<Place>| member.iter().filter(|p| p.topic == topic).count();
            let counts: Vec<usize> = group
                .ask(range)
                .iter()
                .zip(&group.members)
                .filter(|(_, member)| member.subscribed.contains(&topic))
                .map(|(given, _)| of_topic(given))
                .collect();
            prop_assert!(counts.is_sorted_by(|a, b| a >= b));
            prop_assert!(counts.first().unwrap_or(&0) - counts.last().unwrap_or(&0) <= 1);
        }
    }

    #[test]
    fn asked_again_nobody_moves(group in any_group()) {
        for (name, assignor) in ALL {
            let mut group = group.clone();
            // Those that go round by round may take a while where members subscribe to different topics.
            let rounds = match name {
                "uniform" => 50,
                "cooperative_sticky" => 10,
                _ => 1,
            };
            for _ in 0..rounds {
                group.adopt(&group.ask(assignor));
            }
            let again = group.ask(assignor);
            let before: Vec<Vec<Place>> = group.members.iter().map(|m| m.owned.clone()).collect();
            prop_assert_eq!(again, before, "{}", name);
            if name == "cooperative_sticky" {
                prop_assert_eq!(group.ask(sticky), group.ask(cooperative_sticky));
            }
        }
    }

    #[test]
    fn cooperative_sticky_takes_nothing_that_sticky_leaves(group in any_group()) {
        let (at_once, in_rounds) = (group.ask(sticky), group.ask(cooperative_sticky));
        for (at_once, in_rounds) in at_once.iter().zip(&in_rounds) {
            prop_assert!(in_rounds.iter().all(|place| at_once.contains(place)));
        }
    }

    #[test]
    fn equal_members_get_equally_much_and_cooperate_in_two_rounds(
        group in even_group(),
        claims in prop::collection::vec(prop::collection::vec((0..6_u32, 0..30_u32), 0..40), 9),
        generations in prop::collection::vec(0..3, 9),
    ) {
        let mut group = group;
        for (name, assignor) in ALL {
            if name != "range" {
                prop_assert!(spread(&group.ask(assignor)) <= 1, "{}", name);
            }
        }
        for ((member, owned), generation) in group.members.iter_mut().zip(claims).zip(generations) {
            member.owned = owned.into_iter().map(|(topic, number)| Place { topic, number }).collect();
            member.generation = generation;
        }
        prop_assert!(spread(&group.ask(sticky)) <= 1);
        prop_assert!(spread(&group.ask(uniform)) <= 1);
        group.adopt(&group.ask(cooperative_sticky));
        let second = group.ask(cooperative_sticky);
        check_one_reader("sticky", &group, &second);
        prop_assert!(spread(&second) <= 1);
    }

    #[test]
    fn two_members_do_not_swap_partitions_of_a_topic(
        group in any_group(),
        owners in prop::collection::vec(0..1_000_usize, 6 * 12),
    ) {
        let mut group = group;
        for member in &mut group.members {
            member.owned.clear();
            member.generation = 1;
        }
        for ((place, takers), owner) in takers(&group).into_iter().zip(owners) {
            group.members[takers[owner % takers.len()]].owned.push(place);
        }
        let given = group.ask(sticky);
        let mut went = BTreeSet::new();
        for (source, member) in group.members.iter().enumerate() {
            for place in &member.owned {
                let target = given.iter().position(|given| given.contains(place)).unwrap();
                if source != target {
                    went.insert((place.topic, source, target));
                }
            }
        }
        let swapped = went.iter().find(|(topic, a, b)| went.contains(&(*topic, *b, *a)));
        prop_assert_eq!(swapped, None, "{:?}", given);
    }

    #[test]
    fn whoever_joins_only_takes_and_whoever_leaves_only_gives(
        group in even_group(),
        joining in "m[0-9a-z]{1,2}",
        leaving in any::<prop::sample::Index>(),
    ) {
        for assignor in [sticky, uniform] {
            let mut group = group.clone();
            group.adopt(&group.ask(assignor));
            let names: Vec<&str> = group.topics.iter().map(|topic| topic.0.as_str()).collect();
            let joined = group.clone().leave(&joining).join(&joining, &names.join(" "));
            if joined.members.len() > group.members.len() {
                let given = joined.ask(assignor);
                prop_assert!(spread(&given) <= 1);
                for (member, after) in joined.members.iter().zip(&given) {
                    let (_, gained) = moves(&member.owned, after);
                    prop_assert!(gained == 0 || member.id == joining, "{:?} -> {:?}", joined, given);
                }
            }
            let gone = group.members[leaving.index(group.members.len())].id.clone();
            let left = group.clone().leave(&gone);
            let given = left.ask(assignor);
            prop_assert!(spread(&given) <= 1);
            for (member, after) in left.members.iter().zip(&given) {
                let (lost, _) = moves(&member.owned, after);
                prop_assert_eq!(lost, 0, "{:?} -> {:?}", left, given);
            }
        }
    }
}

#[test]
fn nothing_to_give_and_nobody_to_take_it() {
    let nothing = Group::of("");
    let nobody = Group::of("t:3");
    let all_idle = Group::of("t:3").join("A", "").join("B", "");
    for (name, assignor) in ALL {
        assert_eq!(nothing.ask(assignor), Vec::<Vec<Place>>::new(), "{name}");
        assert_eq!(nobody.ask(assignor), Vec::<Vec<Place>>::new(), "{name}");
        assert_eq!(counts(&all_idle.ask(assignor)), [0, 0], "{name}");
        assert_eq!(counts(&nothing.clone().join("A", "").ask(assignor)), [0], "{name}");
    }
}

/// How long an assignor takes, to be read: `cargo test --release -- --ignored --nocapture how_long`.
#[test]
#[ignore = "measures, and asserts nothing about time"]
fn how_long_an_assignment_takes() {
    use std::fmt::Write;
    use std::time::Instant;
    let topics: String = (0..10).map(|index| format!("t{index}:100 ")).collect();
    let names: Vec<String> = (0..10).map(|index| format!("t{index}")).collect();
    let mut report = String::new();
    for mixed in [false, true] {
        for (name, assignor) in ALL {
            let mut group = Group::of(&topics);
            for index in 0..100 {
                let subscribed = if mixed { names[index % 3..].join(" ") } else { names.join(" ") };
                group = group.join(&format!("consumer-{index:03}-0b1c9d52"), &subscribed);
            }
            for what in ["fresh", "again", "one left"] {
                let mut times: Vec<u128> = (0..200)
                    .map(|_| {
                        let begun = Instant::now();
                        std::hint::black_box(group.ask(assignor));
                        begun.elapsed().as_nanos()
                    })
                    .collect();
                times.sort_unstable();
                let (median, max) = (times[100] as f64 / 1e3, times[199] as f64 / 1e3);
                let kind = if mixed { "mixed" } else { "equal" };
                writeln!(report, "{kind} {name:18} {what:8} {median:8.1} us, at most {max:.1}")
                    .unwrap();
                group.adopt(&group.ask(assignor));
                if what == "again" {
                    group = group.leave("consumer-050-0b1c9d52");
                }
            }
        }
    }
    std::io::Write::write_all(&mut std::io::stderr(), report.as_bytes()).unwrap();
}
