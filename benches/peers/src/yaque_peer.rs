//! yaque: a queue of segment files, one sender, one receiver that inotify wakes.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use tokio::runtime::Builder;
use tokio::runtime::Runtime;
use yaque::QueueIter;
use yaque::Receiver;
use yaque::Sender;
use yaque::SenderBuilder;
use yaque::TrySendError;

use crate::latency;
use crate::payload::Touch;
use crate::payload::Values;
use crate::subject::Failure;
use crate::subject::Log;
use crate::subject::Outcome;
use crate::subject::Scan;
use crate::subject::Setup;
use crate::subject::Subject;
use crate::subject::Tail;
use crate::subject::Variant;
use crate::subject::Work;
use crate::subject::unsupported;

pub(crate) struct Yaque;

struct YaqueLog {
    sender: Mutex<Sender>,
    dir: PathBuf,
}

impl Subject for Yaque {
    fn name(&self) -> &'static str {
        "yaque"
    }

    fn guarantee(&self) -> &'static str {
        "send: kill -9; never power loss, it has no sync; reading: parity of each length, no checksum"
    }

    fn variants(&self, work: Work) -> Vec<Variant> {
        match work {
            Work::Linger | Work::Commit => vec![],
            _ => vec![Variant::PLAIN],
        }
    }

    fn open(&self, setup: &Setup<'_>) -> Outcome<Box<dyn Log>> {
        match setup.work {
            Work::Synced => return unsupported("cannot make an append durable"),
            Work::Points => return unsupported("is a queue: no reads by position"),
            _ => {}
        }
        let dir = setup.dir.to_path_buf();
        if dir.join("send.lock").exists() {
            // What it leaves behind when it was killed.
            yaque::recovery::recover(&dir)?;
        }
        let sender = Mutex::new(SenderBuilder::new().segment_size(64 << 20).open(&dir)?);
        Ok(Box::new(YaqueLog { sender, dir }))
    }
}

impl YaqueLog {
    fn lock(&self) -> MutexGuard<'_, Sender> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sent<T>(ended: Result<(), TrySendError<T>>) -> Outcome {
    match ended {
        Ok(()) => Ok(()),
        Err(TrySendError::Io(error)) => Err(error.into()),
        Err(TrySendError::QueueFull { .. }) => Err(Failure::Failed("the queue is full".to_owned())),
    }
}

impl Log for YaqueLog {
    fn send(&self, value: &[u8]) -> Outcome {
        sent(self.lock().try_send(value))
    }

    fn append_each(&self, values: Values<'_>) -> Outcome {
        let mut sender = self.lock();
        for value in values {
            sent(sender.try_send(value))?;
        }
        Ok(())
    }

    fn append_batch(&self, values: Values<'_>) -> Outcome {
        sent(self.lock().try_send_batch(values))
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        Ok(Box::new(YaqueScan { iter: QueueIter::open(&self.dir)? }))
    }

    fn tail(&self) -> Outcome<Box<dyn Tail + Send + '_>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Box::new(YaqueTail { runtime, receiver: Receiver::open(&self.dir)? }))
    }

    fn close(self: Box<Self>) -> Outcome {
        Ok(())
    }
}

struct YaqueScan {
    iter: QueueIter,
}

impl Scan for YaqueScan {
    fn next(&mut self, touch: &mut Touch) -> Outcome<bool> {
        for _ in 0..PIECE_RECORDS {
            match self.iter.next() {
                Some(value) => touch.take(&value?),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

struct YaqueTail {
    runtime: Runtime,
    receiver: Receiver,
}

impl Tail for YaqueTail {
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> Outcome {
        self.runtime.block_on(async {
            let next = tokio::time::timeout(latency::LOST_AFTER, self.receiver.recv());
            let value = next.await.map_err(|_| latency::lost())??;
            each(&value);
            value.commit()?;
            Ok(())
        })
    }
}

const PIECE_RECORDS: usize = 4096;
