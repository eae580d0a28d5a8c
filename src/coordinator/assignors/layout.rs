//! The partitions to be assigned, numbered through, and who may take them.
//!
//! A partition's number in a layout is its *spot*; spots ascend as [`Place`]s do. An assignment that is being made is
//! one owner for each spot, so that no partition is ever given twice, and nothing has to be looked up by name.

use crate::coordinator::assignors::input::Input;
use crate::coordinator::assignors::input::Place;

/// The owner of a spot that has none.
pub(crate) const NOBODY: u32 = u32::MAX;

/// The spots of one [`Input`].
#[derive(Debug)]
pub(crate) struct Layout {
    /// Every partition that somebody may take.
    pub(crate) places: Vec<Place>,
    /// For each topic the members that subscribe to it, ascending.
    pub(crate) subscribers: Vec<Vec<u32>>,
    pub(crate) member_count: usize,
    /// For each topic its first spot, and at last the number of all spots.
    firsts: Vec<usize>,
}

impl Layout {
    pub(crate) fn new(input: &Input<'_>) -> Layout {
        debug_assert!(input.topics.is_sorted_by(|a, b| a.name < b.name));
        let mut subscribers: Vec<Vec<u32>> = vec![Vec::new(); input.topics.len()];
        for (member, said) in (0_u32..).zip(input.members) {
            for topic in said.subscribed {
                if let Some(of_topic) = subscribers.get_mut(*topic as usize) {
                    if of_topic.last() != Some(&member) {
                        of_topic.push(member);
                    }
                }
            }
        }
        let mut places = Vec::new();
        let mut firsts = Vec::with_capacity(input.topics.len() + 1);
        for (topic, (shape, of_topic)) in (0_u32..).zip(input.topics.iter().zip(&subscribers)) {
            firsts.push(places.len());
            if !of_topic.is_empty() {
                places.extend((0..shape.partition_count).map(|number| Place { topic, number }));
            }
        }
        firsts.push(places.len());
        Layout { places, subscribers, member_count: input.members.len(), firsts }
    }

    /// Gives the spot of a place; `None` if there is no such partition, or nobody subscribes to its topic.
    pub(crate) fn spot(&self, place: Place) -> Option<usize> {
        let topic = place.topic as usize;
        let (first, end) = (*self.firsts.get(topic)?, *self.firsts.get(topic + 1)?);
        let spot = first + place.number as usize;
        (spot < end).then_some(spot)
    }

    /// Gives the spots of a topic.
    pub(crate) fn spots(&self, topic: u32) -> std::ops::Range<usize> {
        self.firsts[topic as usize]..self.firsts[topic as usize + 1]
    }

    pub(crate) fn topics(&self) -> std::ops::Range<u32> {
        0..self.subscribers.len() as u32
    }

    pub(crate) fn subscribers(&self, topic: u32) -> &[u32] {
        &self.subscribers[topic as usize]
    }

    pub(crate) fn is_subscriber(&self, topic: u32, member: u32) -> bool {
        self.subscribers(topic).binary_search(&member).is_ok()
    }

    /// Tells whether every member may take every partition.
    pub(crate) fn is_one_subscription(&self) -> bool {
        self.subscribers
            .iter()
            .all(|of_topic| of_topic.is_empty() || of_topic.len() == self.member_count)
    }

    /// Counts what each member owns.
    pub(crate) fn counts(&self, owners: &[u32]) -> Vec<usize> {
        let mut counts = vec![0; self.member_count];
        for owner in owners.iter().filter(|owner| **owner != NOBODY) {
            counts[*owner as usize] += 1;
        }
        counts
    }

    /// Divides an assignment by members; each one's places ascend.
    pub(crate) fn by_member(&self, owners: &[u32]) -> Vec<Vec<Place>> {
        let counts = self.counts(owners);
        let mut divided: Vec<Vec<Place>> = counts.into_iter().map(Vec::with_capacity).collect();
        for (place, owner) in self.places.iter().zip(owners) {
            if *owner != NOBODY {
                divided[*owner as usize].push(*place);
            }
        }
        divided
    }
}
