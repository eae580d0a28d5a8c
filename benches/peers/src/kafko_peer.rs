//! kafko: Kafka's words in one process, asynchronous, one task per partition.
//!
//! Driven as suits it best: one `block_on` around each loop, on a current-thread runtime where one thread appends, and on
//! one with two workers where several do. Its reader reads the rest of the segment for every record, so what is read
//! back gets segments of 1 MiB; what is only appended keeps the default of 1 GiB.

use bytes::Bytes;
use kafko::LogConfig;
use kafko::Producer;
use kafko::Topic;
use std::sync::Arc;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;

use crate::latency;
use crate::payload::Touch;
use crate::payload::Values;
use crate::subject::Failure;
use crate::subject::Log;
use crate::subject::Outcome;
use crate::subject::Points;
use crate::subject::Scan;
use crate::subject::Setup;
use crate::subject::Subject;
use crate::subject::Tail;
use crate::subject::Variant;
use crate::subject::Work;
use crate::subject::failed;

pub(crate) struct Kafko;

struct KafkoLog {
    runtime: Runtime,
    broker: kafko::Kafko,
    topic: Arc<Topic>,
    producer: Producer,
}

impl Subject for Kafko {
    fn name(&self) -> &'static str {
        "kafko"
    }

    fn guarantee(&self) -> &'static str {
        "send: kill -9; send + sync: power loss, but directories are never synced; reading: CRC-32 of each record"
    }

    fn variants(&self, work: Work) -> Vec<Variant> {
        match work {
            Work::Linger | Work::Commit => vec![],
            _ => vec![Variant::PLAIN],
        }
    }

    fn open(&self, setup: &Setup<'_>) -> Outcome<Box<dyn Log>> {
        let runtime = match setup.work {
            Work::Threads | Work::Synced | Work::Tail => {
                Builder::new_multi_thread().worker_threads(2).enable_all().build()?
            }
            _ => Builder::new_current_thread().enable_all().build()?,
        };
        let mut config = LogConfig::default();
        if !matches!(setup.work, Work::Inline | Work::Batches | Work::Threads) {
            config.segment_size_threshold = 1 << 20;
        }
        let (broker, topic, producer) = runtime.block_on(async {
            let broker = kafko::Kafko::open_with_config(setup.dir, config).await?;
            if !broker.has_topic(TOPIC).await {
                broker.create_topic(TOPIC).await?;
            }
            let topic = broker.topic(TOPIC).await;
            let producer = broker.producer_for(TOPIC).await?;
            kafko::Result::Ok((broker, topic, producer))
        })?;
        let Some(topic) = topic else { return failed("the topic is not there") };
        Ok(Box::new(KafkoLog { runtime, broker, topic, producer }))
    }
}

impl KafkoLog {
    fn partition(&self) -> Outcome<&Arc<kafko::Partition>> {
        match self.topic.partition(0) {
            Some(partition) => Ok(partition),
            None => failed("the partition is not there"),
        }
    }
}

impl Log for KafkoLog {
    fn send(&self, value: &[u8]) -> Outcome {
        self.runtime.block_on(self.producer.send(None, Bytes::copy_from_slice(value)))?;
        Ok(())
    }

    fn append_each(&self, values: Values<'_>) -> Outcome {
        self.runtime.block_on(async {
            for value in values {
                self.producer.send(None, Bytes::copy_from_slice(value)).await?;
            }
            Ok(())
        })
    }

    fn append_batch(&self, values: Values<'_>) -> Outcome {
        let now_ms =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
        let now_ms = i64::try_from(now_ms)?;
        let records =
            values.map(|value| kafko::Record::new(now_ms, None, Bytes::copy_from_slice(value)));
        self.runtime.block_on(self.partition()?.append_batch(records.collect()))?;
        Ok(())
    }

    fn send_synced(&self, value: &[u8], _thread: u32) -> Outcome {
        let partition = self.partition()?;
        self.runtime.block_on(async {
            self.producer.send(None, Bytes::copy_from_slice(value)).await?;
            partition.sync().await
        })?;
        Ok(())
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        Ok(Box::new(KafkoScan { log: self, next: 0 }))
    }

    fn points(&self) -> Outcome<Box<dyn Points + '_>> {
        Ok(Box::new(KafkoScan { log: self, next: 0 }))
    }

    fn tail(&self) -> Outcome<Box<dyn Tail + Send + '_>> {
        let consumer = self.runtime.block_on(self.broker.consumer_for(TOPIC))?;
        Ok(Box::new(KafkoTail { log: self, consumer }))
    }

    fn close(self: Box<Self>) -> Outcome {
        let KafkoLog { runtime, broker, topic, producer } = *self;
        drop((topic, producer));
        runtime.block_on(broker.shutdown())?;
        Ok(())
    }
}

struct KafkoScan<'l> {
    log: &'l KafkoLog,
    next: u64,
}

impl Scan for KafkoScan<'_> {
    fn next(&mut self, touch: &mut Touch) -> Outcome<bool> {
        let partition = self.log.partition()?;
        self.log.runtime.block_on(async {
            for _ in 0..PIECE_RECORDS {
                let Some(record) = partition.read_record_at(self.next).await? else {
                    return Ok(false);
                };
                touch.take(record.value());
                self.next += 1;
            }
            Ok(true)
        })
    }
}

impl Points for KafkoScan<'_> {
    fn read(&mut self, index: u64, touch: &mut Touch) -> Outcome {
        let partition = self.log.partition()?;
        match self.log.runtime.block_on(partition.read_record_at(index))? {
            Some(record) => touch.take(record.value()),
            None => return failed(format!("there is no record {index}")),
        }
        Ok(())
    }
}

struct KafkoTail<'l> {
    log: &'l KafkoLog,
    consumer: kafko::Consumer,
}

impl Tail for KafkoTail<'_> {
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> Outcome {
        self.log.runtime.block_on(async {
            let next = tokio::time::timeout(latency::LOST_AFTER, self.consumer.next_record());
            let record = next.await.map_err(|_| latency::lost())?.map_err(Failure::from)?;
            each(record.value());
            Ok(())
        })
    }
}

const TOPIC: &str = "t";
/// Few: one may take milliseconds.
const PIECE_RECORDS: u64 = 8;
