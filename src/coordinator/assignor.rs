//! Which algorithm says what each member of a group is to have.

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::str::FromStr;
use std::sync::Arc;

use crate::coordinator::assignors;
use crate::coordinator::assignors::Place;
use crate::coordinator::group_state::Question;
use crate::error::Error;

/// How the partitions of a group are shared out among its members
/// (`partition.assignment.strategy`, `group.remote.assignor`).
///
/// Whatever the assignor, partitions move one by one: a member goes on reading what it is to keep, and a partition
/// that is to move is read by nobody else until its holder has let go of it.
///
/// ```
/// use ottla::Assignor;
/// assert_eq!("cooperative-sticky".parse::<Assignor>()?, Assignor::CooperativeSticky);
/// assert_eq!(Assignor::default().name(), "uniform");
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Assignor {
    /// As evenly as can be, and whoever has something keeps it (KIP-848's default).
    #[default]
    Uniform,
    /// Topic by topic, contiguous ranges: the same numbers of all topics go to the same member.
    Range,
    /// One by one, in turns, over all topics.
    RoundRobin,
    /// As evenly as can be with the fewest moves.
    Sticky,
    /// As `Sticky`; what moves is first let go of and given in a second round (KIP-429).
    CooperativeSticky,
    /// One's own: see [`custom`](Self::custom).
    Custom(CustomAssignor),
}

/// An assignor of the application's.
#[derive(Clone)]
pub struct CustomAssignor {
    name: Arc<str>,
    assign: Arc<Assign>,
}

type Assign = dyn Fn(&AssignmentRequest<'_>) -> Vec<Given> + Send + Sync;

/// A partition and whom it is given to: the member's and the topic's index in the request, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// The index of the member in [`AssignmentRequest::members`].
    pub member: usize,
    /// The index of the topic in [`AssignmentRequest::topics`].
    pub topic: usize,
    /// The number of the partition.
    pub partition: u32,
}

/// What an assignor of one's own is asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AssignmentRequest<'r> {
    /// The topics that anybody subscribes to, by name, and their numbers of partitions.
    pub topics: Vec<(&'r str, u32)>,
    /// The members: those with an instance id first, each kind in the order of its ids.
    pub members: Vec<AssignmentMember<'r>>,
}

/// A member, as an assignor of one's own sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AssignmentMember<'r> {
    /// Its member id.
    pub id: &'r str,
    /// Its instance id, if it is static.
    pub instance_id: Option<&'r str>,
    /// The indexes of the topics it subscribes to.
    pub topics: Vec<usize>,
    /// What it has now, or had in its former life: topic indexes and numbers.
    pub owned: Vec<(usize, u32)>,
}

impl Assignor {
    /// Makes an assignor of a function. All members of a group must name the same.
    ///
    /// The function runs on the thread of whoever caused the change, under no lock. What it gives to a member that
    /// does not subscribe, what does not exist and what it gives a second time is left out, and what it gives to
    /// nobody nobody reads. If it panics, nobody keeps more or gets less than [`Uniform`](Self::Uniform) says.
    ///
    /// ```
    /// use ottla::{Assignor, Given, Store, TopicConfig};
    ///
    /// // Everything to the first member; the others stand by.
    /// let standby = Assignor::custom("standby", |request| {
    ///     let all = |(topic, (_, count)): (usize, &(&str, u32))| {
    ///         let given = move |partition| Given { member: 0, topic, partition };
    ///         (0..*count).map(given).collect::<Vec<_>>()
    ///     };
    ///     request.topics.iter().enumerate().flat_map(all).collect()
    /// });
    /// let store = Store::temporary()?;
    /// let topic = store.create_topic("t", TopicConfig::new().partitions(4))?;
    /// let builder = store.consumer().assignor(standby);
    /// let mut first = builder.clone().instance_id("a").subscribe("g", &topic)?;
    /// let mut second = builder.instance_id("b").subscribe("g", &topic)?;
    /// first.poll(std::time::Duration::ZERO)?;
    /// second.poll(std::time::Duration::ZERO)?;
    /// assert_eq!((first.assignment().count(), second.assignment().count()), (4, 0));
    /// # Ok::<(), ottla::Error>(())
    /// ```
    pub fn custom(
        name: &str,
        assign: impl Fn(&AssignmentRequest<'_>) -> Vec<Given> + Send + Sync + 'static,
    ) -> Assignor {
        Assignor::Custom(CustomAssignor { name: name.into(), assign: Arc::new(assign) })
    }

    /// Gives Kafka's name for it, or one's own.
    pub fn name(&self) -> &str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
            Assignor::RoundRobin => "roundrobin",
            Assignor::Sticky => "sticky",
            Assignor::CooperativeSticky => "cooperative-sticky",
            Assignor::Custom(custom) => &custom.name,
        }
    }

    pub(crate) fn is_same_as(&self, other: &Assignor) -> bool {
        match (self, other) {
            (Assignor::Custom(one), Assignor::Custom(other)) => one.name == other.name,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }

    /// Answers for each member of the question what it is to have.
    pub(crate) fn answer(&self, question: &Question) -> Vec<Vec<Place>> {
        let somebody_is_back = question.members.iter().any(|member| !member.home.is_empty());
        let mut answer = question.ask(|input| match self {
            // What moves is let go of first: which that is, is known only once everybody is at home.
            Assignor::CooperativeSticky if somebody_is_back => assignors::sticky(input),
            Assignor::Uniform => assignors::uniform(input),
            Assignor::Range => assignors::range(input),
            Assignor::RoundRobin => assignors::round_robin(input),
            Assignor::Sticky => assignors::sticky(input),
            Assignor::CooperativeSticky => assignors::cooperative_sticky(input),
            Assignor::Custom(custom) => {
                let asked = catch_unwind(AssertUnwindSafe(|| custom.answer(input)));
                asked.unwrap_or_else(|_| assignors::uniform(input))
            }
        });
        if !somebody_is_back {
            return answer;
        }
        let homes: Vec<_> = question.members.iter().map(|member| &member.home[..]).collect();
        let subscribed: Vec<_> = question.members.iter().map(|m| &m.subscribed[..]).collect();
        match self {
            Assignor::Uniform | Assignor::Sticky => {
                go_home(&homes, &subscribed, &HashMap::new(), &mut answer);
            }
            Assignor::CooperativeSticky => {
                let owners = question.members.iter().enumerate();
                let owners =
                    owners.flat_map(|(m, member)| member.owned.iter().map(move |p| (*p, m)));
                let owners: HashMap<Place, usize> = owners.collect();
                go_home(&homes, &subscribed, &owners, &mut answer);
                for (member, places) in answer.iter_mut().enumerate() {
                    places.retain(|place| owners.get(place).is_none_or(|owner| *owner == member));
                }
            }
            // These say by the members' order who gets what; there, who comes back gets what it had anyhow.
            Assignor::Range | Assignor::RoundRobin | Assignor::Custom(_) => {}
        }
        answer
    }
}

/// Lets static members that are back exchange what they were given for what they had: nobody gets more or less than
/// it was given, and nobody gives away what it had itself. Nor is anybody given what it would have to wait for because
/// one of the `owners`, a third, has it.
fn go_home(
    homes: &[&[Place]],
    subscribed: &[&[u32]],
    owners: &HashMap<Place, usize>,
    answer: &mut [Vec<Place>],
) {
    for (member, home) in homes.iter().enumerate() {
        for wanted in *home {
            if answer[member].contains(wanted) || !subscribed[member].contains(&wanted.topic) {
                continue;
            }
            let has_it = |other: &usize| answer[*other].contains(wanted);
            let Some(other) = (0..answer.len()).find(has_it) else { continue };
            let is_fair = |given: &&Place| {
                let is_at_hand = owners.get(given).is_none_or(|owner| *owner == other);
                is_at_hand && !home.contains(given) && subscribed[other].contains(&given.topic)
            };
            let given = answer[member].iter().find(is_fair).copied();
            if let Some(given) = given.filter(|_| !homes[other].contains(wanted)) {
                let exchange = |places: &mut Vec<Place>, from: Place, to: Place| {
                    places.retain(|place| *place != from);
                    places.push(to);
                };
                exchange(&mut answer[member], given, *wanted);
                exchange(&mut answer[other], *wanted, given);
            }
        }
    }
}

impl CustomAssignor {
    fn answer(&self, input: &assignors::Input<'_>) -> Vec<Vec<Place>> {
        let topics = input.topics.iter().map(|topic| (topic.name, topic.partition_count));
        let request = AssignmentRequest {
            topics: topics.collect(),
            members: input.members.iter().map(AssignmentMember::of).collect(),
        };
        let mut answer = vec![Vec::new(); request.members.len()];
        let mut seen = std::collections::HashSet::new();
        for given in (self.assign)(&request) {
            let Some(member) = request.members.get(given.member) else { continue };
            let Some((_, count)) = request.topics.get(given.topic) else { continue };
            let is_his = member.topics.contains(&given.topic) && given.partition < *count;
            let place = Place { topic: given.topic as u32, number: given.partition };
            if is_his && seen.insert(place) {
                answer[given.member].push(place);
            }
        }
        answer
    }
}

impl<'r> AssignmentMember<'r> {
    fn of(member: &assignors::MemberInput<'r>) -> AssignmentMember<'r> {
        AssignmentMember {
            id: member.id,
            instance_id: member.instance_id,
            topics: member.subscribed.iter().map(|topic| *topic as usize).collect(),
            owned: member.owned.iter().map(|p| (p.topic as usize, p.number)).collect(),
        }
    }
}

impl FromStr for Assignor {
    type Err = Error;

    /// Reads Kafka's name for an assignor.
    ///
    /// # Errors
    ///
    /// * [`Error::InvalidConfig`] if there is none of this name.
    fn from_str(name: &str) -> Result<Assignor, Error> {
        Ok(match name {
            "uniform" => Assignor::Uniform,
            "range" => Assignor::Range,
            "roundrobin" => Assignor::RoundRobin,
            "sticky" => Assignor::Sticky,
            "cooperative-sticky" => Assignor::CooperativeSticky,
            other => {
                let reason =
                    "it is not one of uniform, range, roundrobin, sticky, cooperative-sticky";
                return Err(Error::InvalidConfig {
                    key: "group.remote.assignor".to_owned(),
                    value: other.to_owned(),
                    reason: reason.to_owned(),
                });
            }
        })
    }
}

impl PartialEq for Assignor {
    /// Two are equal if their names are.
    fn eq(&self, other: &Assignor) -> bool {
        self.is_same_as(other)
    }
}

impl Eq for Assignor {}

impl fmt::Debug for Assignor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for CustomAssignor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
