//! Partitions in turn.

use crate::coordinator::assignors::input::Input;
use crate::coordinator::assignors::input::Place;
use crate::coordinator::assignors::layout::Layout;
use crate::coordinator::assignors::layout::NOBODY;

/// Gives partition after partition of topic after topic to the next member that subscribes to the topic.
pub(crate) fn round_robin(input: &Input<'_>) -> Vec<Vec<Place>> {
    let layout = Layout::new(input);
    let mut owners = vec![NOBODY; layout.places.len()];
    // Whose turn it is. A turn that a member cannot use, because it does not subscribe, is lost.
    let mut turn = 0_u32;
    for topic in layout.topics() {
        let subscribers = layout.subscribers(topic);
        for spot in layout.spots(topic) {
            // Spots exist only where there are subscribers.
            let at = subscribers.partition_point(|member| *member < turn);
            let member = subscribers.get(at).copied().unwrap_or(subscribers[0]);
            owners[spot] = member;
            turn = member + 1;
        }
    }
    layout.by_member(&owners)
}
