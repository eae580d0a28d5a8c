//! Who owns what, from what members say of themselves.
//!
//! A member that was away may still claim what was given to another since. The claim of the higher generation holds;
//! between equal ones nobody can tell, and neither does.

use crate::coordinator::assignors::input::Input;
use crate::coordinator::assignors::layout::Layout;
use crate::coordinator::assignors::layout::NOBODY;

/// What the members of one [`Input`] claim, spot by spot.
#[derive(Debug)]
pub(crate) struct Claims {
    /// The member whose claim holds. It may have ended its subscription.
    pub(crate) owners: Vec<u32>,
    /// Somebody who claims the spot, whether it holds or not.
    somebody: Vec<u32>,
    /// Whether more than one member claims it.
    is_by_several: Vec<bool>,
}

impl Claims {
    pub(crate) fn new(layout: &Layout, input: &Input<'_>) -> Claims {
        let spot_count = layout.places.len();
        let mut owners = vec![NOBODY; spot_count];
        let mut somebody = vec![NOBODY; spot_count];
        let mut is_by_several = vec![false; spot_count];
        // The highest generation of those who claim it.
        let mut generations = vec![i32::MIN; spot_count];
        for (member, said) in (0_u32..).zip(input.members) {
            for spot in said.owned.iter().filter_map(|place| layout.spot(*place)) {
                if somebody[spot] == member {
                    continue; // It says so twice.
                }
                is_by_several[spot] = somebody[spot] != NOBODY;
                somebody[spot] = member;
                if !is_by_several[spot] || said.generation > generations[spot] {
                    owners[spot] = member;
                    generations[spot] = said.generation;
                } else if said.generation == generations[spot] {
                    owners[spot] = NOBODY;
                }
            }
        }
        Claims { owners, somebody, is_by_several }
    }

    /// Gives those owners that may still read what they own.
    pub(crate) fn owners_subscribed(&self, layout: &Layout) -> Vec<u32> {
        let mut owners = self.owners.clone();
        if !layout.is_one_subscription() {
            for (owner, place) in owners.iter_mut().zip(&layout.places) {
                if *owner != NOBODY && !layout.is_subscriber(place.topic, *owner) {
                    *owner = NOBODY;
                }
            }
        }
        owners
    }

    /// Tells whether anybody but `member` claims the spot.
    pub(crate) fn is_claimed_beside(&self, spot: usize, member: u32) -> bool {
        self.is_by_several[spot] || ![member, NOBODY].contains(&self.somebody[spot])
    }
}
