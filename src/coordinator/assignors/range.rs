//! Each topic for itself, in stretches of neighbouring partitions.

use crate::coordinator::assignors::input::Input;
use crate::coordinator::assignors::input::Place;
use crate::coordinator::assignors::layout::Layout;
use crate::coordinator::assignors::layout::NOBODY;

/// Gives every subscriber of a topic a stretch of its partitions; the first ones get one more if it does not come out
/// even.
///
/// Topics with equally many partitions and the same subscribers go together: whoever reads a number of one reads that
/// number of the others. The price: with many topics, the first members get one more of each.
pub(crate) fn range(input: &Input<'_>) -> Vec<Vec<Place>> {
    let layout = Layout::new(input);
    let mut owners = vec![NOBODY; layout.places.len()];
    for topic in layout.topics() {
        let mut spots = layout.spots(topic);
        let subscribers = layout.subscribers(topic);
        for (index, member) in subscribers.iter().enumerate() {
            // Of what is left, an equal share of those who are left, rounded up: the first ones get the rest.
            let len = spots.len().div_ceil(subscribers.len() - index);
            owners[spots.start..spots.start + len].fill(*member);
            spots.start += len;
        }
    }
    layout.by_member(&owners)
}
