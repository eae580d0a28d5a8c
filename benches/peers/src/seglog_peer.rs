//! seglog: one preallocated segment with a buffer of 16 KiB in user space; what is not committed is not recovered.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use seglog::read::ReadHint;
use seglog::read::Reader;
use seglog::write::Writer;

use crate::payload::Touch;
use crate::payload::Values;
use crate::subject::Log;
use crate::subject::Outcome;
use crate::subject::Points;
use crate::subject::Scan;
use crate::subject::Setup;
use crate::subject::Subject;
use crate::subject::Variant;
use crate::subject::Work;
use crate::subject::failed;
use crate::subject::unsupported;

pub(crate) struct Seglog;

struct SeglogLog {
    state: Mutex<State>,
    path: PathBuf,
}

struct State {
    writer: Writer<0>,
    /// Where each record begins, where somebody will ask: the caller has to know.
    positions: Vec<u64>,
    keeps_positions: bool,
    is_recovered: bool,
    count: u64,
}

impl Subject for Seglog {
    fn name(&self) -> &'static str {
        "seglog"
    }

    fn guarantee(&self) -> &'static str {
        "append: nothing; commit (fdatasync): power loss; reading: CRC-32C of each record"
    }

    fn variants(&self, work: Work) -> Vec<Variant> {
        match work {
            // It is measured where it belongs, as a buffer in user space.
            Work::Inline | Work::Commit => vec![],
            _ => vec![Variant::PLAIN],
        }
    }

    fn open(&self, setup: &Setup<'_>) -> Outcome<Box<dyn Log>> {
        match setup.work {
            Work::Tail => {
                return unsupported(
                    "shows readers only what was synchronised, has nothing to wait with",
                );
            }
            Work::Threads => return unsupported("an append is in user space only"),
            _ => {}
        }
        let path = setup.dir.join("segment");
        let record_len = setup.payload.value_len() as u64 + HEAD_LEN;
        // Every durable record has a marker behind it; a child that is killed appends on.
        let factor = match setup.work {
            Work::Synced => 2,
            Work::Kill => 9,
            _ => 1,
        };
        let len = usize::try_from(setup.records * record_len * factor)? + (64 << 20);
        let is_recovered = path.exists();
        let writer = if is_recovered {
            Writer::open(&path, len, 0)?
        } else {
            Writer::create(&path, len, 0)?
        };
        let keeps_positions = setup.work == Work::Points;
        let mut state =
            State { writer, positions: Vec::new(), keeps_positions, is_recovered, count: 0 };
        if keeps_positions && setup.dir.join(COUNTED).exists() {
            state.positions = (0..setup.records).map(|index| index * record_len).collect();
        }
        Ok(Box::new(SeglogLog { state: Mutex::new(state), path }))
    }
}

impl State {
    #[inline]
    fn append(&mut self, value: &[u8]) -> Outcome {
        let (position, _) = self.writer.append_data(value)?;
        self.count += 1;
        if self.keeps_positions {
            self.positions.push(position);
        }
        Ok(())
    }
}

impl SeglogLog {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for SeglogLog {
    fn send(&self, value: &[u8]) -> Outcome {
        self.lock().append(value)
    }

    fn append_each(&self, values: Values<'_>) -> Outcome {
        let mut state = self.lock();
        for value in values {
            state.append(value)?;
        }
        Ok(())
    }

    fn append_batch(&self, values: Values<'_>) -> Outcome {
        self.append_each(values)
    }

    fn send_synced(&self, value: &[u8], _thread: u32) -> Outcome {
        let mut state = self.lock();
        state.append(value)?;
        let count = state.count;
        state.writer.commit(count)?;
        Ok(())
    }

    fn finish(&self) -> Outcome {
        self.lock().writer.flush_writer()?;
        Ok(())
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        self.finish()?;
        let mut state = self.lock();
        // Behind what was recovered are the remains of what was not.
        let flushed = if state.is_recovered {
            let count = state.count;
            state.writer.commit(count)?;
            Some(state.writer.flushed_offset())
        } else {
            None
        };
        Ok(Box::new(SeglogScan {
            reader: Reader::open_read_only(&self.path, flushed)?,
            position: 0,
        }))
    }

    fn points(&self) -> Outcome<Box<dyn Points + '_>> {
        Ok(Box::new(SeglogPoints {
            reader: Reader::open_read_only(&self.path, None)?,
            positions: self.lock().positions.clone(),
        }))
    }

    fn close(self: Box<Self>) -> Outcome {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut writer = state.writer;
        writer.commit(state.count)?;
        writer.close()?;
        if state.keeps_positions {
            std::fs::write(self.path.with_file_name(COUNTED), [])?;
        }
        Ok(())
    }
}

struct SeglogScan {
    reader: Reader<0>,
    position: u64,
}

impl Scan for SeglogScan {
    fn next(&mut self, touch: &mut Touch) -> Outcome<bool> {
        let mut records = self.reader.iter(self.position);
        let mut sums = *touch;
        for _ in 0..PIECE_RECORDS {
            let Some(record) = records.next_record()? else {
                *touch = sums;
                return Ok(false);
            };
            sums.take(&record.data);
            self.position = record.offset + record.len as u64;
        }
        *touch = sums;
        Ok(true)
    }
}

struct SeglogPoints {
    reader: Reader<0>,
    positions: Vec<u64>,
}

impl Points for SeglogPoints {
    fn read(&mut self, index: u64, touch: &mut Touch) -> Outcome {
        let Some(position) = self.positions.get(usize::try_from(index)?) else {
            return failed(format!("there is no record {index}"));
        };
        touch.take(&self.reader.read_record(*position, ReadHint::Random)?.data);
        Ok(())
    }
}

const HEAD_LEN: u64 = 8;
const PIECE_RECORDS: usize = 4096;
/// Says that the records of a closed segment are at known positions.
const COUNTED: &str = "counted";
