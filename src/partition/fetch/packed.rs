//! What one read brings of compressed batches: they are unpacked, checked, and handed out from the buffer.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::format::compression::Unpacked;
use crate::format::compression::Unpacker;
use crate::format::decode;
use crate::format::decode::BatchFault;
use crate::format::header::BatchHeader;
use crate::partition::fetch::Fetched;
use crate::partition::fetch::Place;
use crate::partition::fetch::Request;
use crate::partition::fetch::Rest;
use crate::partition::fetch::Run;
use crate::partition::fetch::Standing;
use crate::partition::unpacking::Memory;
use crate::partition::unpacking::Unpacking;
use crate::storage::map::View;
use crate::storage::scan::Continuity;
use crate::storage::segment::OpenSegment;

/// A batch that was unpacked and handed out in part.
#[derive(Clone, Debug)]
pub(super) struct Held {
    buffer: Arc<Unpacked>,
    range: Range<usize>,
}

impl Place {
    /// As [`fetch`](Self::fetch), of compressed batches, from one such on.
    ///
    /// What they unpack to counts towards the limits. A batch that was handed out in part stays unpacked until the
    /// reader has had all of it.
    pub(super) fn fetch_packed(
        &mut self,
        open: &OpenSegment,
        view: &View,
        position: &mut i64,
        request: &Request,
        unpacking: &mut Unpacking,
    ) -> Result<Option<Fetched>> {
        if let (Some(held), Some(_)) = (self.unpacked.take(), self.rest) {
            return Ok(self.fetch_held(view, position, request, held));
        }
        let first_wanted = *position;
        let mut run = Run::begin(open, request.checks, self.byte_position);
        let mut continuity = Continuity { expected: self.expected, gaps_below: request.gaps_below };
        let mut buffer = unpacking.take();
        let mut first: Option<(usize, Rest)> = None;
        let mut record_count = 0;
        let mut end = 0;
        // Where the last batch lies, if only a part of it was asked for.
        let mut partly = None;
        let mut len_before = 0;
        let (mut failed, mut unreadable) = (None, None);
        loop {
            let bytes = view.from(self.byte_position);
            if bytes.is_empty() || record_count == request.limits.records {
                break;
            }
            if let Err(error) = run.bring(view, self.byte_position, self.standing) {
                unreadable = Some(error);
                break;
            }
            let checked = decode::header_at(bytes).map_err(BatchFault::Header).and_then(|header| {
                run.check(self.byte_position, bytes, &header, &continuity, self.standing)?;
                Ok(header)
            });
            let header = match checked {
                Ok(header) if !header.is_packed() || header.attributes.is_control() => break,
                Ok(header) => header,
                Err(fault) => {
                    failed = Some(fault);
                    break;
                }
            };
            // Unpacking is dear: a batch that will hardly fit, judged by the one before, is not tried.
            let taken = end - first.map_or(end, |(start, _)| start);
            let is_full = taken + header.len().max(len_before) > request.limits.bytes
                // One that would be handed out in part comes whole with the next read, if it is not the first: what is
                // unpacked is near then, and is walked over once.
                || record_count + header.record_count as usize > request.limits.records;
            if header.last_offset() >= request.bound || (record_count > 0 && is_full) {
                break;
            }
            let start = buffer.len();
            let unpacked = run.unpack(&header, self, bytes, &mut unpacking.unpacker, &mut buffer);
            let unpacked = match unpacked {
                Ok(unpacked) => unpacked,
                Err(fault) => {
                    failed = Some(fault);
                    break;
                }
            };
            len_before = unpacked.len();
            let batch_end = self.byte_position + header.len() as u64;
            if let Some(rest) = self.rest_of(&unpacked, &buffer.bytes()[start..], first_wanted) {
                if first.is_some_and(|(first, _)| buffer.len() - first > request.limits.bytes) {
                    break;
                }
                first.get_or_insert((start, rest));
                end = buffer.len();
                let room = request.limits.records - record_count;
                if rest.count > room {
                    record_count += room;
                    run.end = batch_end;
                    *position = self.pass(unpacked, &buffer.bytes()[start..], rest, room);
                    partly = Some(start..end);
                    break;
                }
                record_count += rest.count;
            }
            run.end = batch_end;
            continuity.advance(&header);
            *position = header.last_offset() + 1;
            self.byte_position = batch_end;
            self.expected = *position;
            self.rest = None;
            self.standing = Standing::Walked;
        }
        run.note();
        let Some((start, first)) = first.filter(|_| record_count > 0) else {
            unpacking.put_back(buffer);
            // What was met before a fault is brought first; the next read meets it again.
            return match (failed, unreadable) {
                (Some(fault), _) => {
                    Err(open.fault_error(self.byte_position, fault, continuity.expected))
                }
                (None, Some(error)) => Err(error),
                (None, None) => Ok(None),
            };
        };
        buffer.truncate(end);
        let buffer = unpacking.hand_out(buffer);
        self.unpacked = partly.map(|range| Held { buffer: Arc::clone(&buffer), range });
        Ok(Some(Fetched {
            memory: Memory::Unpacked(buffer),
            range: start..end,
            first,
            record_count,
            next_offset: *position,
        }))
    }

    /// Brings more of the batch here, which is unpacked already.
    fn fetch_held(
        &mut self,
        view: &View,
        position: &mut i64,
        request: &Request,
        held: Held,
    ) -> Option<Fetched> {
        let packed = decode::header_at(view.from(self.byte_position)).ok()?;
        let bytes = held.buffer.bytes().get(held.range.clone())?;
        let unpacked = decode::header_at(bytes).ok()?;
        let first = self.rest_of(&unpacked, bytes, *position)?;
        let record_count = first.count.min(request.limits.records);
        if record_count < first.count {
            *position = self.pass(unpacked, bytes, first, record_count);
            self.unpacked = Some(held.clone());
        } else {
            *position = packed.last_offset() + 1;
            self.byte_position += packed.len() as u64;
            self.expected = *position;
            self.rest = None;
            self.standing = Standing::Walked;
        }
        Some(Fetched {
            memory: Memory::Unpacked(held.buffer),
            range: held.range,
            first,
            record_count,
            next_offset: *position,
        })
    }
}

impl Run<'_> {
    /// Unpacks the batch at the front of `bytes` that [`check`](Self::check) let pass, and checks what came out as far
    /// as that is not known.
    fn unpack(
        &self,
        packed: &BatchHeader,
        place: &Place,
        bytes: &[u8],
        unpacker: &mut Unpacker,
        into: &mut Unpacked,
    ) -> Result<BatchHeader, BatchFault> {
        let start = into.len();
        unpacker.unpack(packed, bytes, into)?;
        let unpacked = &into.bytes()[start..];
        let header = decode::header_at(unpacked).map_err(BatchFault::Header)?;
        if !self.is_known(place.byte_position, place.standing) {
            decode::check_structure(&header, unpacked)?;
        }
        Ok(header)
    }
}
