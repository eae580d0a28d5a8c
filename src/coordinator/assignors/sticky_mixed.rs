//! The sticky assignment for members that subscribe to different topics.
//!
//! Owners keep what they may keep, what is left goes to those who have least, and then partitions move, one at a
//! time, to members that have at least two fewer, until there are none.
//!
//! **Invariant (downhill).** Each move leaves one member with one fewer, and one that had at least two fewer with one
//! more. So each makes the sum of squares of the members' counts smaller, so moving ends; and each makes the sum of all
//! differences between members smaller, so what comes out is never less balanced than what was. Kafka compares
//! scores and goes back if need be; here there is no need.

use crate::coordinator::assignors::claims::Claims;
use crate::coordinator::assignors::input::Input;
use crate::coordinator::assignors::input::id_ranks;
use crate::coordinator::assignors::layout::Layout;
use crate::coordinator::assignors::layout::NOBODY;

/// Gives an owner to every spot.
pub(crate) fn assigned(layout: &Layout, claims: &Claims, input: &Input<'_>) -> Vec<u32> {
    let owners = claims.owners_subscribed(layout);
    let is_revoking = owners != claims.owners;

    // Topics that few may take come first: they leave the least choice.
    let mut topics: Vec<u32> = layout.topics().collect();
    topics.sort_by_key(|topic| layout.subscribers(*topic).len());
    let spots: Vec<usize> = topics.iter().flat_map(|topic| layout.spots(*topic)).collect();
    let vacant: Vec<usize> = spots.iter().copied().filter(|spot| owners[*spot] == NOBODY).collect();

    let counts = layout.counts(&owners);
    let ranks = id_ranks(input.members);
    let mut board = Board { layout, counts, ranks, begun: Vec::new(), owners };
    for spot in &vacant {
        let member = board.least_loaded(*spot);
        board.owners[*spot] = member;
        board.counts[member as usize] += 1;
    }
    board.begun.clone_from(&board.owners);

    let previous = previous_owners(layout, input);
    if !is_revoking {
        // Nothing has to be taken from anybody, perhaps: at first only what had no owner moves.
        while board.pass(&vacant, &previous) {}
    }
    while board.pass(&spots, &previous) {}
    board.owners
}

/// Gives for each spot the last of those who owned it in a generation that is over, if it may take it again.
fn previous_owners(layout: &Layout, input: &Input<'_>) -> Vec<u32> {
    let newest = input.members.iter().map(|member| member.generation).max().unwrap_or(-1);
    let mut previous = vec![NOBODY; layout.places.len()];
    let mut generations = vec![i32::MIN; layout.places.len()];
    for (member, said) in (0_u32..).zip(input.members) {
        if said.generation == newest {
            continue;
        }
        for place in said.owned {
            let Some(spot) = layout.spot(*place) else { continue };
            let is_later = previous[spot] == NOBODY || said.generation > generations[spot];
            if is_later && layout.is_subscriber(place.topic, member) {
                previous[spot] = member;
                generations[spot] = said.generation;
            }
        }
    }
    previous
}

/// An assignment that is being balanced.
struct Board<'a> {
    layout: &'a Layout,
    /// How many spots each member has.
    counts: Vec<usize>,
    /// Which of two members that have equally many comes first.
    ranks: Vec<u32>,
    /// The owners when balancing began: who differs from it has been moved.
    begun: Vec<u32>,
    owners: Vec<u32>,
}

impl Board<'_> {
    /// Offers each of `spots` to its previous owner and to the member that has least. Tells whether any moved.
    fn pass(&mut self, spots: &[usize], previous: &[u32]) -> bool {
        let mut is_changed = false;
        for spot in spots {
            let owner = self.owners[*spot];
            let returns = previous[*spot] != NOBODY && self.is_downhill(owner, previous[*spot]);
            let target = if returns { previous[*spot] } else { self.least_loaded(*spot) };
            if self.is_downhill(owner, target) {
                self.shift(*spot, target);
                is_changed = true;
            }
        }
        is_changed
    }

    /// Moves the spot to `target`. If another of its topic went from there to where this one began, both go home
    /// instead: every member has as many as it would have, and two members never end up with each other's partitions.
    ///
    /// Where the spot has been moved before, Kafka sends home only the other one, uphill if need be.
    fn shift(&mut self, spot: usize, target: u32) {
        let (source, origin) = (self.owners[spot], self.begun[spot]);
        self.owners[spot] = target;
        if origin != target {
            let mut spots = self.layout.spots(self.layout.places[spot].topic);
            let other = spots.find(|s| self.begun[*s] == target && self.owners[*s] == origin);
            if let Some(other) = other {
                self.owners[other] = target;
                self.owners[spot] = origin;
            }
        }
        self.counts[source as usize] -= 1;
        self.counts[target as usize] += 1;
    }

    fn is_downhill(&self, source: u32, target: u32) -> bool {
        self.counts[source as usize] > self.counts[target as usize] + 1
    }

    /// The first of those who have least among those who may take the spot.
    fn least_loaded(&self, spot: usize) -> u32 {
        let of_topic = self.layout.subscribers(self.layout.places[spot].topic).iter().copied();
        let load = |member: &u32| (self.counts[*member as usize], self.ranks[*member as usize]);
        of_topic.min_by_key(load).expect("a spot exists only where there are subscribers")
    }
}
