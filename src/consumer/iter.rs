//! A consumer as an iterator over records as they come.

use std::time::Instant;

use crate::consumer::Consumer;
use crate::error::Result;
use crate::records::OwnedMessage;

impl<'c> IntoIterator for &'c mut Consumer {
    type Item = Result<OwnedMessage>;
    type IntoIter = ConsumerIter<'c>;

    fn into_iter(self) -> ConsumerIter<'c> {
        ConsumerIter { consumer: self }
    }
}

/// Iterates over records as they come, waiting for more.
///
/// Ends when nothing came for [`iterator_timeout`](crate::ConsumerBuilder::iterator_timeout); by default it does
/// not end. Errors are items, and iterating may go on after them.
#[derive(Debug)]
pub struct ConsumerIter<'c> {
    consumer: &'c mut Consumer,
}

impl Iterator for ConsumerIter<'_> {
    type Item = Result<OwnedMessage>;

    fn next(&mut self) -> Option<Result<OwnedMessage>> {
        let timeout = self.consumer.settings.iterator_timeout;
        let _polling = self.consumer.polling();
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            match self.consumer.next_buffered() {
                Ok(Some(message)) => return Some(Ok(message)),
                Err(error) => return Some(Err(error)),
                Ok(None) => {}
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return None;
            }
            self.consumer.wait(deadline);
        }
    }
}
