//! What a subject of the benchmark can do, and what it promises while doing it.
//!
//! A [`Subject`] is ours, a peer, or a raw limit of the machine; it opens [`Log`]s. A workload calls whole loops where
//! a record costs nanoseconds, so that no virtual call is measured with it. Whatever a subject cannot do is
//! [`Failure::Unsupported`] with the reason, and shows as "-".

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use hdrhistogram::Histogram;

use crate::payload::Payload;
use crate::payload::Touch;
use crate::payload::Values;

pub(crate) trait Subject: Sync {
    fn name(&self) -> &'static str;

    /// What an appended record survives, and what reading checks, by the subject's own documentation.
    fn guarantee(&self) -> &'static str;

    /// The ways in which the subject does this work; none if it takes no part in it.
    fn variants(&self, work: Work) -> Vec<Variant>;

    /// Opens the log in the directory, making it if it is not there.
    fn open(&self, setup: &Setup<'_>) -> Outcome<Box<dyn Log>>;

    /// After how many records the content repeats, if the subject writes buffers that were made before.
    fn period(&self, _value_len: usize) -> Option<u64> {
        None
    }

    /// How much longer than others it may take before it is stopped and what it did is counted.
    fn patience_factor(&self) -> u32 {
        1
    }

    /// Up to which record the directory says that nothing has to be recovered.
    fn recovery_point(&self, _dir: &Path) -> Option<u64> {
        None
    }
}

/// An open log. Loops run on the caller's thread; all methods may be called by several threads.
pub(crate) trait Log: Send + Sync {
    /// Appends one record.
    fn send(&self, value: &[u8]) -> Outcome;

    /// Appends records with one call each; holds what lock there is only once.
    fn append_each(&self, values: Values<'_>) -> Outcome {
        for value in values {
            self.send(value)?;
        }
        Ok(())
    }

    /// Appends records with one call each, while other threads do the same, and times each call.
    fn append_shared(&self, values: Values<'_>, timings: Option<&mut Histogram<u64>>) -> Outcome {
        let Some(timings) = timings else {
            for value in values {
                self.send(value)?;
            }
            return Ok(());
        };
        let mut before = Instant::now();
        for value in values {
            self.send(value)?;
            let after = Instant::now();
            timings.saturating_record(nanos(after - before));
            before = after;
        }
        Ok(())
    }

    /// Appends all of the values with one call.
    fn append_batch(&self, _values: Values<'_>) -> Outcome {
        unsupported("has no batches")
    }

    /// Appends one record and waits until it is on stable storage; `thread` tells the callers apart.
    fn send_synced(&self, _value: &[u8], _thread: u32) -> Outcome {
        unsupported("makes no single append durable")
    }

    /// Appends one record to each partition, then waits until all are on stable storage.
    fn commit(&self, _values: Values<'_>) -> Outcome {
        unsupported("has no partitions that are committed together")
    }

    /// Appends one record to each partition, and waits for nothing.
    fn append_to_each(&self, _values: Values<'_>) -> Outcome {
        unsupported("has no partitions")
    }

    /// Hands over what is staged, so that a scan sees it.
    fn finish(&self) -> Outcome {
        Ok(())
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>>;

    fn points(&self) -> Outcome<Box<dyn Points + '_>> {
        unsupported("has no random reads")
    }

    /// Gives a reader of what is appended from now on.
    fn tail(&self) -> Outcome<Box<dyn Tail + Send + '_>> {
        unsupported("has nothing to wait for a record with")
    }

    fn close(self: Box<Self>) -> Outcome;
}

/// Reads a log from its beginning.
pub(crate) trait Scan {
    /// Takes the next piece, of whatever size suits the subject; false at the end.
    fn next(&mut self, touch: &mut Touch) -> Outcome<bool>;

    /// The number of the first record there is; only rings in memory forget.
    fn first(&self) -> u64 {
        0
    }
}

/// Reads single records.
pub(crate) trait Points {
    fn read(&mut self, index: u64, touch: &mut Touch) -> Outcome;
}

/// Waits for records.
pub(crate) trait Tail {
    /// Blocks until there is at least one, and hands out what there is.
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> Outcome;
}

/// What a log is opened for.
pub(crate) struct Setup<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) payload: &'a Arc<Payload>,
    /// About how many records there will be.
    pub(crate) records: u64,
    pub(crate) work: Work,
    pub(crate) partitions: u32,
    pub(crate) variant: Variant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// One record per call, handed to the kernel on return.
    Inline,
    /// One record per call, staged in user space.
    Linger,
    Batches,
    Threads,
    Synced,
    Commit,
    Scan,
    ColdScan,
    Tail,
    Points,
    Reopen,
    Kill,
    Resources,
    ManyPartitions,
    ManySegments,
}

/// One way of doing a work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variant {
    /// What is added to the subject's name.
    pub(crate) label: &'static str,
    pub(crate) linger_len: usize,
    pub(crate) checks_crcs: bool,
    pub(crate) waiting: Waiting,
    /// The length of a segment file; 0 is the subject's default.
    pub(crate) segment_len: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// As the subject does it by default.
    Default,
    /// Sleeps at once.
    Parked,
    /// Never sleeps.
    Spinning,
}

impl Variant {
    pub(crate) const PLAIN: Variant = Variant {
        label: "",
        linger_len: 0,
        checks_crcs: true,
        waiting: Waiting::Default,
        segment_len: 0,
    };
}

#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// Not something this subject can do, and why.
    Unsupported(Cow<'static, str>),
    /// It should have, and did not.
    Failed(String),
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Failed(error.to_string())
    }
}

/// Says why a subject cannot do it.
pub(crate) fn unsupported<T>(reason: &'static str) -> Outcome<T> {
    Err(Failure::Unsupported(Cow::Borrowed(reason)))
}

/// Says what went wrong where no error did.
pub(crate) fn failed<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Failure::Failed(what.into()))
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Makes a histogram of nanoseconds up to a minute.
pub(crate) fn timings() -> Outcome<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}
