//! Request and reply over topics.
//!
//! A request is a record with three headers: what it is called, and where its reply is wanted. A responder is a group
//! that reads requests and appends replies; a requester reads the replies and gives each to the one who asked.
//!
//! ```text
//! requester.rs      the request is entered in the table, then sent
//! pending_table.rs  who waits for which reply, bounded
//! answering.rs      a responder's thread: reads, has the request handled, appends the reply, commits later
//! progress.rs       what may be committed: requests whose replies are durable
//! inbox.rs          the reply is read and matched: by one who waits and is awake, or else by the thread that appended it
//! pending.rs        the one who asked has it
//! ```

mod answering;
pub(crate) mod claims;
mod correlation;
#[cfg(test)]
mod failing;
mod inbox;
pub(crate) mod names;
pub(crate) mod pending;
#[cfg(test)]
pub(crate) mod pending_model;
mod pending_table;
#[cfg(test)]
mod power;
mod progress;
pub(crate) mod reply;
pub(crate) mod requester;
pub(crate) mod requester_builder;
pub(crate) mod responder;
mod responder_state;
pub(crate) mod resumed;
mod turn;
mod vigil;
