//! Which member of a group reads which partition: Kafka's five answers, as pure functions.
//!
//! | function | gives | as Kafka's |
//! | --- | --- | --- |
//! | [`range`] | per topic, neighbouring partitions to one member; equal topics go together | `RangeAssignor` |
//! | [`round_robin`] | partitions in turn | `RoundRobinAssignor` |
//! | [`sticky`] | balance, then as little moving as possible | `StickyAssignor` |
//! | [`cooperative_sticky`] | the same, but what moves is given to nobody until its owner let go | `CooperativeStickyAssignor` |
//! | [`uniform`] | balance, then as little moving as possible | the broker's `uniform` |
//!
//! All of them believe nothing: what a member says it owns may be gone, out of range, or claimed by another as well.
//! Each member's partitions come in ascending order, so that they can be handed in again as what it owns. Where
//! Kafka follows the order of a hash table, the members' order decides.
//!
//! **Invariant (one reader).** Every partition of a topic that somebody subscribes to is given to exactly one member,
//! who subscribes to the topic; under `cooperative_sticky` to at most one, and to none only while another claims it.
//! It holds by construction: an assignment is one owner for each partition, until it is divided by members.

pub(crate) mod claims;
pub(crate) mod input;
pub(crate) mod layout;
pub(crate) mod range;
pub(crate) mod round_robin;
pub(crate) mod sticky;
pub(crate) mod sticky_mixed;
pub(crate) mod uniform;

#[cfg(test)]
pub(crate) mod examples;
#[cfg(test)]
mod properties;

pub(crate) use crate::coordinator::assignors::input::Input;
pub(crate) use crate::coordinator::assignors::input::MemberInput;
pub(crate) use crate::coordinator::assignors::input::Place;
pub(crate) use crate::coordinator::assignors::input::TopicShape;
pub(crate) use crate::coordinator::assignors::input::member_order;
pub(crate) use crate::coordinator::assignors::range::range;
pub(crate) use crate::coordinator::assignors::round_robin::round_robin;
pub(crate) use crate::coordinator::assignors::sticky::cooperative_sticky;
pub(crate) use crate::coordinator::assignors::sticky::sticky;
pub(crate) use crate::coordinator::assignors::uniform::uniform;
