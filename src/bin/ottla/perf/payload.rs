//! The bytes of values: random, prepared ahead, and each with a number, so that reading back proves something.

use std::collections::HashMap;
use std::ops::Range;

use ottla::Message;
use ottla::Record;

use crate::failure::Failure;

/// The values that one sender sends. They take turns; the number at the front of each is new every time, and
/// setting it is all that is done while the clock runs.
#[derive(Debug)]
pub(crate) struct Payload {
    sender: u16,
    size: usize,
    bytes: Vec<u8>,
    slot_count: usize,
    next: u64,
}

impl Payload {
    /// Prepares values of `size` bytes, at least [`NUMBER_LEN`], enough for batches of `in_batch`.
    pub(crate) fn new(sender: u16, size: usize, in_batch: usize) -> Payload {
        let slot_count = SLOT_COUNT_MIN.max(in_batch);
        let mut random = Random::new(u64::from(sender) + 1);
        let mut bytes = vec![0; slot_count * size];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
        }
        Payload { sender, size, bytes, slot_count, next: 0 }
    }

    /// Gives the next value.
    #[inline]
    pub(crate) fn next_value(&mut self) -> &[u8] {
        let slot = self.number();
        &self.bytes[slot]
    }

    /// Gives the next values as records of one batch, of no more than was said at first.
    pub(crate) fn next_batch(&mut self, count: usize) -> impl Iterator<Item = Record<'_>> {
        debug_assert!(count <= self.slot_count);
        let first = self.next;
        for _ in 0..count {
            self.number();
        }
        (first..self.next).map(|number| {
            let start = slot_of(number, self.slot_count) * self.size;
            Record::new(&self.bytes[start..start + self.size])
        })
    }

    /// Numbers the next value and tells where it is.
    #[inline]
    fn number(&mut self) -> Range<usize> {
        let start = slot_of(self.next, self.slot_count) * self.size;
        let number = u64::from(self.sender) << SENDER_SHIFT | self.next;
        self.bytes[start..start + NUMBER_LEN].copy_from_slice(&number.to_le_bytes());
        self.next += 1;
        start..start + self.size
    }
}

fn slot_of(number: u64, slot_count: usize) -> usize {
    (number % slot_count as u64) as usize
}

/// Compares what is read with what was sent.
#[derive(Debug)]
pub(crate) struct Verifier {
    senders: HashMap<u16, Sender>,
    /// The number expected at least, by sender and partition.
    at_least: HashMap<(u16, u32), u64>,
}

#[derive(Debug)]
struct Sender {
    payload: Payload,
    seen: Vec<bool>,
    seen_count: u64,
}

impl Verifier {
    /// Expects what these payloads have sent, all of it.
    pub(crate) fn new(payloads: impl IntoIterator<Item = Payload>) -> Verifier {
        let senders = payloads.into_iter().map(|payload| {
            let seen = vec![false; usize::try_from(payload.next).unwrap_or(usize::MAX)];
            (payload.sender, Sender { payload, seen, seen_count: 0 })
        });
        Verifier { senders: senders.collect(), at_least: HashMap::new() }
    }

    /// Checks that the record is one that was sent, whole, not seen before, and behind those that its sender
    /// sent to the partition earlier.
    pub(crate) fn check(&mut self, message: &Message<'_>) -> Result<(), Failure> {
        let wrong = |what: &str| {
            let (partition, offset) = (message.partition(), message.offset());
            Failure::Other(format!("read back from partition {partition}, offset {offset}: {what}"))
        };
        let value = message.value().ok_or_else(|| wrong("no value"))?;
        let number = number_of(value).ok_or_else(|| wrong("a value without number"))?;
        let id = (number >> SENDER_SHIFT) as u16;
        let number = number & ((1 << SENDER_SHIFT) - 1);
        let sender = self.senders.get_mut(&id).ok_or_else(|| wrong("from somebody else"))?;
        let seen = usize::try_from(number).ok().and_then(|number| sender.seen.get_mut(number));
        let seen = seen.ok_or_else(|| wrong("a number that was not sent"))?;
        if std::mem::replace(seen, true) {
            return Err(wrong("a record that was read before"));
        }
        sender.seen_count += 1;
        let Payload { size, bytes, slot_count, .. } = &sender.payload;
        let start = slot_of(number, *slot_count) * size;
        let sent = &bytes[start + NUMBER_LEN..start + size];
        if value[NUMBER_LEN..] != *sent {
            return Err(wrong("other bytes than were sent"));
        }
        let at_least = self.at_least.entry((id, message.partition())).or_default();
        if number < *at_least {
            return Err(wrong("a record behind one that was sent later"));
        }
        *at_least = number + 1;
        Ok(())
    }

    /// Checks that nothing is missing.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        for (id, sender) in &self.senders {
            let (seen, sent) = (sender.seen_count, sender.payload.next);
            if seen != sent {
                let reason =
                    format!("of {sent} records that sender {id} sent, {seen} were read back");
                return Err(Failure::Other(reason));
            }
        }
        Ok(())
    }
}

/// Gives the number at the front of a value, with its sender.
pub(crate) fn number_of(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|front| u64::from_le_bytes(*front))
}

/// A small generator: xorshift64*. Its bytes do not compress.
#[derive(Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Gives a number below `end`, which is not 0.
    #[inline]
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }
}

/// The bytes of the number at the front of each value.
pub(crate) const NUMBER_LEN: usize = 8;
/// Above the count: who sent it.
const SENDER_SHIFT: u32 = 48;
/// So many values differ, at least.
const SLOT_COUNT_MIN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use ottla::Store;
    use ottla::TopicConfig;

    /// Sends what `choose` makes of what was prepared, and reads it back.
    fn verified(choose: impl FnOnce(Vec<Vec<u8>>) -> Vec<Vec<u8>>) -> Result<(), String> {
        let mut payload = Payload::new(3, 20, 4);
        let mut values = Vec::new();
        // More than there are slots.
        for _ in 0..300 {
            values.push(payload.next_value().to_vec());
        }
        let store = Store::temporary().unwrap();
        let topic = store.create_topic("t", TopicConfig::new()).unwrap();
        let producer = store.producer();
        for value in choose(values) {
            producer.send(&topic, Record::new(&value)).unwrap();
        }
        producer.send_batch(&topic.partition(0).unwrap(), payload.next_batch(4)).unwrap();
        let consumer = store.consumer().max_poll_records(usize::MAX);
        let mut consumer = consumer.assign(topic.partitions()).unwrap();
        let mut verifier = Verifier::new([payload]);
        for message in &consumer.poll(Duration::ZERO).unwrap() {
            verifier.check(&message).map_err(|failure| failure.to_string())?;
        }
        verifier.finish().map_err(|failure| failure.to_string())
    }

    type Change = fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>;

    #[test]
    fn what_is_not_as_it_was_sent_is_found() {
        assert_eq!(verified(|values| values), Ok(()));
        let refused: [(&str, Change); 7] = [
            ("of 304 records", |mut values| values.split_off(1)),
            ("read before", |mut values| {
                values.push(values[7].clone());
                values
            }),
            ("behind one", |mut values| {
                values.swap(20, 21);
                values
            }),
            ("other bytes", |mut values| {
                values[299][19] ^= 1;
                values
            }),
            ("other bytes", |mut values| {
                values[0].pop();
                values
            }),
            ("not sent", |mut values| {
                values[9][1] ^= 0x80;
                values
            }),
            ("somebody else", |mut values| {
                values[9][6] ^= 1;
                values
            }),
        ];
        for (reason, change) in refused {
            let found = verified(change).unwrap_err();
            assert!(found.contains(reason), "{found}, not {reason}");
        }
    }
}
