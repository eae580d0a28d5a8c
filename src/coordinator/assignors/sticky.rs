//! As even as possible, and as much as possible where it is.
//!
//! Here for members that subscribe to the same topics; `sticky_mixed.rs` has it for others.

use std::collections::VecDeque;

use crate::coordinator::assignors::claims::Claims;
use crate::coordinator::assignors::input::Input;
use crate::coordinator::assignors::input::Place;
use crate::coordinator::assignors::input::id_ranks;
use crate::coordinator::assignors::layout::Layout;
use crate::coordinator::assignors::layout::NOBODY;
use crate::coordinator::assignors::sticky_mixed;

/// Gives each member as many partitions as any other, one more or less, and takes away no more than that needs.
pub(crate) fn sticky(input: &Input<'_>) -> Vec<Vec<Place>> {
    let layout = Layout::new(input);
    let claims = Claims::new(&layout, input);
    layout.by_member(&assigned(&layout, &claims, input))
}

/// Gives what [`sticky`] gives, except for partitions that another member still claims: those go to nobody, until
/// their owners have let go and the question is put again.
///
/// Nobody has to stop reading what it keeps, and no partition has two readers in between.
pub(crate) fn cooperative_sticky(input: &Input<'_>) -> Vec<Vec<Place>> {
    let layout = Layout::new(input);
    let claims = Claims::new(&layout, input);
    let mut owners = assigned(&layout, &claims, input);
    for (spot, owner) in owners.iter_mut().enumerate() {
        // Whoever claims beside one whose claim holds has been replaced and is not waited for.
        let keeps = claims.owners[spot] == *owner;
        if !keeps && claims.is_claimed_beside(spot, *owner) {
            *owner = NOBODY;
        }
    }
    layout.by_member(&owners)
}

fn assigned(layout: &Layout, claims: &Claims, input: &Input<'_>) -> Vec<u32> {
    if layout.is_one_subscription() {
        of_one_subscription(layout, claims, input)
    } else {
        sticky_mixed::assigned(layout, claims, input)
    }
}

fn of_one_subscription(layout: &Layout, claims: &Claims, input: &Input<'_>) -> Vec<u32> {
    let mut owners = vec![NOBODY; layout.places.len()];
    if layout.member_count == 0 {
        return owners;
    }
    let min = owners.len() / layout.member_count;
    let over_wanted = owners.len() % layout.member_count;
    let max = min + usize::from(over_wanted > 0);

    let mut over = 0;
    let mut counts = vec![0; layout.member_count];
    // Those that need more, and those that get one more if that does not yet give `over_wanted` of them.
    let mut under = Vec::new();
    let mut exact = Vec::new();
    for (member, mut owned) in (0_u32..).zip(layout.by_member(&claims.owners)) {
        let count = &mut counts[member as usize];
        if owned.len() < min {
            *count = owned.len();
            under.push(member);
        } else if owned.len() >= max && over < over_wanted {
            *count = max;
            over += 1;
        } else {
            *count = min;
            exact.push(member);
        }
        if *count < owned.len() {
            // What is kept is spread over the topics.
            owned.sort_unstable_by_key(|place| (place.number, place.topic));
        }
        for spot in owned[..*count].iter().filter_map(|place| layout.spot(*place)) {
            owners[spot] = member;
        }
    }

    let ranks = id_ranks(input.members);
    under.sort_by_key(|member| ranks[*member as usize]);
    exact.sort_by_key(|member| ranks[*member as usize]);
    let (mut under, mut exact) = (VecDeque::from(under), VecDeque::from(exact));
    for owner in owners.iter_mut().filter(|owner| **owner == NOBODY) {
        let needs_more = under.pop_front();
        // Whoever takes from `exact` has its maximum. There is always somebody: the shares add up to all spots.
        let Some(member) = needs_more.or_else(|| exact.pop_front()) else { break };
        *owner = member;
        counts[member as usize] += 1;
        if needs_more.is_some() {
            let is_filled = counts[member as usize] == min;
            if is_filled { &mut exact } else { &mut under }.push_back(member);
        }
    }
    owners
}
