//! As even as possible, and as much as possible where it is: what Kafka's broker does by itself.

use crate::coordinator::assignors::claims::Claims;
use crate::coordinator::assignors::input::Input;
use crate::coordinator::assignors::input::Place;
use crate::coordinator::assignors::layout::Layout;
use crate::coordinator::assignors::layout::NOBODY;

/// How often all topics are gone through in search of balance. Members that subscribe to the same topics are balanced
/// after the first; chains of members that share topics two by two may take more, and may stop unfinished.
const PASSES_MAX: usize = 16;

/// Gives each member as many partitions as any other, one more or less, and takes away no more than that needs.
///
/// If members subscribe to different topics, those who share a topic end up within one of each other as far as that
/// topic's partitions can bring it about.
pub(crate) fn uniform(input: &Input<'_>) -> Vec<Vec<Place>> {
    let layout = Layout::new(input);
    let claims = Claims::new(&layout, input);
    let owners = claims.owners_subscribed(&layout);
    let owners = if layout.is_one_subscription() {
        of_one_subscription(&layout, owners)
    } else {
        of_several(&layout, owners)
    };
    layout.by_member(&owners)
}

fn of_one_subscription(layout: &Layout, mut owners: Vec<u32>) -> Vec<u32> {
    let member_count = layout.member_count;
    if member_count == 0 {
        return owners;
    }
    let min = owners.len() / member_count;
    // How many members get one more than the others, of those still to come.
    let mut extra = owners.len() % member_count;
    let mut vacant: Vec<usize> = (0..owners.len()).filter(|spot| owners[*spot] == NOBODY).collect();
    let mut unfilled = Vec::new();
    for (index, owned) in layout.by_member(&owners).into_iter().enumerate() {
        let mut gets_extra = extra > 0;
        let quota = min + usize::from(gets_extra);
        let kept = owned.len().min(quota);
        for spot in owned[kept..].iter().filter_map(|place| layout.spot(*place)) {
            owners[spot] = NOBODY;
            vacant.push(spot);
        }
        let mut wanted = quota - kept;
        // One who would have to be given the extra leaves it to somebody who may have it already, while there are
        // enough to take it.
        if wanted > 0 && gets_extra && member_count - index > extra {
            wanted -= 1;
            gets_extra = false;
        }
        if wanted > 0 {
            unfilled.push((index as u32, wanted));
        }
        extra -= usize::from(gets_extra);
    }
    // Quotas add up to all spots, so what is vacant is what is wanted.
    let takers =
        unfilled.into_iter().flat_map(|(member, wanted)| std::iter::repeat_n(member, wanted));
    for (spot, member) in vacant.into_iter().zip(takers) {
        owners[spot] = member;
    }
    owners
}

fn of_several(layout: &Layout, mut owners: Vec<u32>) -> Vec<u32> {
    let mut counts = layout.counts(&owners);
    // Topics that burden their subscribers most come first, then those with the fewest.
    let share =
        |topic: &u32| (layout.spots(*topic).len() as u64, layout.subscribers(*topic).len() as u64);
    let mut topics: Vec<u32> =
        layout.topics().filter(|topic| !layout.spots(*topic).is_empty()).collect();
    topics.sort_by(|a, b| {
        let ((a_spots, a_members), (b_spots, b_members)) = (share(a), share(b));
        let by_burden = (b_spots * a_members).cmp(&(a_spots * b_members));
        by_burden.then(a_members.cmp(&b_members))
    });
    for topic in &topics {
        for spot in layout.spots(*topic).filter(|spot| owners[*spot] == NOBODY).collect::<Vec<_>>()
        {
            let of_topic = layout.subscribers(*topic).iter().copied();
            if let Some(member) = of_topic.min_by_key(|member| counts[*member as usize]) {
                owners[spot] = member;
                counts[member as usize] += 1;
            }
        }
    }
    topics.retain(|topic| layout.subscribers(*topic).len() >= 2);
    // How many topics in a row were found balanced; when it is all of them, nothing can change any more.
    let mut balanced_count = 0;
    for topic in std::iter::repeat_n(&topics, PASSES_MAX).flatten() {
        if balanced_count == topics.len() {
            break;
        }
        let is_changed = balance(layout, *topic, &mut owners, &mut counts);
        balanced_count = if is_changed { 0 } else { balanced_count + 1 };
    }
    owners
}

/// Moves partitions of a topic from the subscriber that has most to the one that has least, the highest numbers first,
/// until they differ by one at most. Tells whether any moved.
fn balance(layout: &Layout, topic: u32, owners: &mut [u32], counts: &mut [usize]) -> bool {
    let subscribers = layout.subscribers(topic);
    let mut is_changed = false;
    // What each subscriber can still give; those who got something never come to give.
    let mut held: Vec<Vec<usize>> = vec![Vec::new(); subscribers.len()];
    for spot in layout.spots(topic) {
        if let Ok(index) = subscribers.binary_search(&owners[spot]) {
            held[index].push(spot);
        }
    }
    loop {
        let givers = (0..subscribers.len()).filter(|index| !held[*index].is_empty());
        let giver = givers.max_by_key(|index| counts[subscribers[*index] as usize]);
        let taker = subscribers.iter().copied().min_by_key(|member| counts[*member as usize]);
        let (Some(giver), Some(taker)) = (giver, taker) else { break };
        let source = subscribers[giver];
        if counts[source as usize] <= counts[taker as usize] + 1 {
            break;
        }
        let Some(spot) = held[giver].pop() else { break };
        owners[spot] = taker;
        counts[source as usize] -= 1;
        counts[taker as usize] += 1;
        is_changed = true;
    }
    is_changed
}
