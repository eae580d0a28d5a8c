//! What a compaction finds when it looks at a log, before it changes anything: which segments take part, and what
//! became of the transactions in them.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;
use crate::format::decode;
use crate::format::decode::Batch;
use crate::partition::cleanable;
use crate::partition::compaction_keys::Keys;
use crate::partition::compaction_plan::Compaction;
use crate::partition::compaction_plan::Extent;
use crate::partition::compaction_progress::Amount;
use crate::partition::compaction_reading::Next;
use crate::partition::compaction_reading::Reading;
use crate::partition::fates::Fates;
use crate::partition::segments::Segment;
use crate::storage::file_name::OffsetFile;
use crate::storage::scan::Scanned;

/// What was found.
pub(super) struct Survey {
    /// The segments that take part, in order.
    pub(super) inputs: Vec<Input>,
    /// Where they end.
    pub(super) end: i64,
    pub(super) fates: Fates,
    /// What is left as it is.
    pub(super) left: Vec<Left>,
    /// What was learned of keys on the way; `None` if that is not what takes part.
    pub(super) keys: Option<Keys>,
}

/// A segment that takes part.
pub(super) struct Input {
    pub(super) segment: Arc<Segment>,
    pub(super) extent: Extent,
    pub(super) records: u64,
    /// It holds nothing but records that stay if nothing supersedes them: no markers, no transactions, no batches
    /// without records.
    pub(super) is_plain: bool,
}

/// A segment that a compaction left as it is, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) path: PathBuf,
    pub(crate) position: u64,
    pub(crate) why: WhyLeft,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhyLeft {
    /// It is compressed, with this codec, which this build does not have.
    Compressed(&'static str),
    /// It is damaged; nothing from here on was compacted.
    Damaged(&'static str),
    /// What would stay does not fit the file it would be in.
    TooLarge,
}

impl Survey {
    /// Looks at everything that may take part, up to what may not.
    pub(super) fn of(how: &Compaction, reading: &mut Reading<'_>) -> Result<Survey> {
        let partition = reading.partition;
        let list = partition.segments().snapshot();
        let mut survey = Survey {
            inputs: Vec::new(),
            end: list[0].base_offset(),
            fates: Fates::default(),
            left: Vec::new(),
            keys: None,
        };
        let start = list[0].base_offset();
        let dirty = if how.first_dirty > partition.watermarks().log_end() {
            // It was not about this log.
            start
        } else {
            how.first_dirty.max(start)
        };
        let may_be_beside = how.keys_beside_from < u64::MAX;
        let len = if may_be_beside { dirty_len(reading, &list, dirty)? } else { 0 };
        let mut keys = Keys::of_log(how, dirty, len);
        for pair in list.windows(2) {
            let (segment, next) = (&pair[0], pair[1].base_offset());
            // What was rolled since the seal is for the next compaction.
            if segment.live_open().is_some() {
                break;
            }
            let is_dirty = segment.base_offset() >= how.first_dirty;
            if is_dirty && how.lag_min_ms > 0 {
                let latest_ms = cleanable::latest_ms(partition, segment.base_offset())?;
                if latest_ms > how.now_ms.saturating_sub(how.lag_min_ms) {
                    break;
                }
            }
            if !survey.look_at(segment, next, &mut keys, reading)? {
                break;
            }
            survey.end = next;
        }
        if survey.first_open().is_some() {
            let from = list.partition_point(|segment| segment.base_offset() < survey.end);
            for segment in &list[from..] {
                survey.look_for_markers(segment, reading)?;
            }
        }
        let mut is_shortened = false;
        if let Some(first_open) = survey.first_open() {
            while survey.inputs.last().is_some_and(|input| input.extent.next > first_open) {
                is_shortened = true;
                let last = survey.inputs.pop();
                survey.end = last.map_or(survey.end, |input| input.extent.base_offset);
            }
        }
        let is_what_takes_part = survey.left.is_empty() && !is_shortened;
        survey.keys = Some(keys).filter(|_| is_what_takes_part);
        Ok(survey)
    }

    fn first_open(&self) -> Option<i64> {
        self.fates.first_open().filter(|first| *first < self.end)
    }

    /// Looks at one segment, and lets it take part if it is whole.
    fn look_at(
        &mut self,
        segment: &Arc<Segment>,
        next: i64,
        keys: &mut Keys,
        reading: &mut Reading<'_>,
    ) -> Result<bool> {
        let base_offset = segment.base_offset();
        let file = reading.log_file(base_offset)?;
        let mut extent = Extent {
            base_offset,
            next,
            len: file.len()?,
            index_len: index_len(reading, base_offset, OffsetFile::OffsetIndex)?,
            time_index_len: index_len(reading, base_offset, OffsetFile::TimeIndex)?,
            is_readable: true,
        };
        let (mut records, mut is_plain) = (0, true);
        let mut scan = reading.scan(&file, base_offset)?;
        let path = file.path().to_path_buf();
        let left = |position, why| Left { path: path.clone(), position, why };
        let damage = loop {
            let batch = match reading.next(&mut scan)? {
                Next::Batch(batch) => batch,
                Next::Locked { position, batch, codec } => {
                    if extent.is_readable {
                        self.left.push(left(position, WhyLeft::Compressed(codec)));
                    }
                    extent.is_readable = false;
                    batch
                }
                Next::Damage { position, reason } => break Some((position, reason)),
                Next::End => break None,
            };
            records += u64::from(batch.header().record_count.unsigned_abs());
            if let Err(reason) = self.fates.note(&batch) {
                let len = batch.header().len() as u64;
                break Some((scan.position() - len, reason));
            }
            let attributes = batch.header().attributes;
            is_plain &= !attributes.is_control() && !attributes.is_transactional();
            is_plain &= batch.header().record_count > 0;
            keys.note_early(&batch);
        };
        let expected = scan.expected();
        let ends_well =
            expected <= next && (expected == next || next <= reading.partition.gaps_below());
        let damage = damage.or_else(|| {
            (!ends_well).then_some((extent.len, "it does not end where the next segment begins"))
        });
        if let Some((position, reason)) = damage {
            self.left.push(left(position, WhyLeft::Damaged(reason)));
            return Ok(false);
        }
        self.inputs.push(Input { segment: Arc::clone(segment), extent, records, is_plain });
        Ok(true)
    }

    /// Looks for the ends of transactions in a segment that does not take part.
    fn look_for_markers(&mut self, segment: &Segment, reading: &Reading<'_>) -> Result<()> {
        let log_end = reading.partition.watermarks().log_end();
        let file = reading.log_file(segment.base_offset())?;
        let mut scan = reading.scan(&file, segment.base_offset())?;
        while scan.expected() < log_end {
            reading.pace.go_on()?;
            let Scanned::Batch { header, bytes, .. } = scan.next()? else {
                return Ok(());
            };
            reading.pace.read(bytes.len())?;
            if header.attributes.is_control() && decode::check_structure(&header, bytes).is_ok() {
                if let Some(Err(_)) = Batch::verified(bytes).map(|b| self.fates.note_marker(&b)) {
                    // It stays open, and what it is in does not take part.
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl Input {
    pub(super) fn amount(&self) -> Amount {
        Amount { segments: 1, bytes: self.extent.len, records: self.records }
    }
}

/// Gives what lies in some segments.
pub(super) fn amount(inputs: &[Input]) -> Amount {
    inputs.iter().fold(Amount::default(), |sum, input| {
        let one = input.amount();
        Amount {
            segments: sum.segments + one.segments,
            bytes: sum.bytes + one.bytes,
            records: sum.records + one.records,
        }
    })
}

/// Gives how many bytes of a log there are in closed segments that reach beyond an offset.
fn dirty_len(reading: &Reading<'_>, list: &[Arc<Segment>], from: i64) -> Result<u64> {
    let context = &reading.partition.context;
    let dirty = list.windows(2).filter(|pair| pair[1].base_offset() > from);
    dirty.map(|pair| context.disk.len(&context.log_path(pair[0].base_offset()))).sum()
}

fn index_len(reading: &Reading<'_>, base_offset: i64, kind: OffsetFile) -> Result<u64> {
    let context = &reading.partition.context;
    match context.disk.len(&kind.path(&context.directory, base_offset)) {
        Err(error) if error.is_not_found() => Ok(0),
        len => len,
    }
}
