//! Our side of every workload.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ottla::Consumer;
use ottla::Durability;
use ottla::Producer;
use ottla::Record;
use ottla::Start;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;
use ottla::TopicPartition;

use crate::latency;
use crate::payload::Payload;
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
use crate::subject::Waiting;
use crate::subject::Work;

pub(crate) struct Ottla;

struct OttlaLog {
    store: Store,
    topic: Topic,
    partitions: Vec<TopicPartition>,
    producer: Producer,
    variant: Variant,
    _payload: Arc<Payload>,
}

impl Subject for Ottla {
    fn name(&self) -> &'static str {
        "ottla"
    }

    fn guarantee(&self) -> &'static str {
        "send: kill -9 (lingering: lost until sealed); waited for: power loss; reading: CRC-32C of each batch"
    }

    fn variants(&self, work: Work) -> Vec<Variant> {
        let plain = Variant::PLAIN;
        match work {
            Work::Linger => vec![
                Variant { label: "64 KiB batches", linger_len: 64 << 10, ..plain },
                Variant { label: "16 KiB batches", linger_len: 16 << 10, ..plain },
            ],
            Work::Scan => {
                vec![plain, Variant { label: "unchecked", checks_crcs: false, ..plain }]
            }
            Work::Tail => vec![
                plain,
                Variant { label: "spin 0", waiting: Waiting::Parked, ..plain },
                Variant { label: "spinning", waiting: Waiting::Spinning, ..plain },
            ],
            Work::Reopen => vec![
                plain,
                Variant { label: "8 MiB segments", segment_len: 8 << 20, ..plain },
                Variant { label: "1 MiB segments", segment_len: 1 << 20, ..plain },
            ],
            // A record of 900 bytes and its header fill one.
            Work::ManySegments => vec![Variant { segment_len: 1024, ..plain }],
            _ => vec![plain],
        }
    }

    fn open(&self, setup: &Setup<'_>) -> Outcome<Box<dyn Log>> {
        let durability = match setup.work {
            Work::Synced | Work::Commit => Durability::Synced,
            _ => Durability::Buffered,
        };
        let store = Store::builder(setup.dir).durability(durability).open()?;
        let mut config = TopicConfig::new().partitions(setup.partitions);
        if setup.variant.segment_len > 0 {
            config = config.segment_bytes(setup.variant.segment_len);
        }
        let topic = store.topic_or_create(TOPIC, config)?;
        let producer = producer(&store, &setup.variant);
        Ok(Box::new(OttlaLog {
            partitions: topic.partitions(),
            topic,
            producer,
            store,
            variant: setup.variant,
            _payload: Arc::clone(setup.payload),
        }))
    }

    /// What is claimed of ours is about whole workloads.
    fn patience_factor(&self) -> u32 {
        10
    }

    fn recovery_point(&self, dir: &Path) -> Option<u64> {
        // Before the first checkpoint there is no file, or no line of this partition.
        let text = fs::read_to_string(dir.join("recovery-point-offset-checkpoint"));
        let text = text.unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{TOPIC} 0 ")));
        line.map_or(Some(0), |line| line.parse().ok())
    }
}

fn producer(store: &Store, variant: &Variant) -> Producer {
    match variant.linger_len {
        0 => store.producer(),
        batch_len => store.producer_builder().linger(LINGER).batch_bytes(batch_len).build(),
    }
}

impl OttlaLog {
    fn consumer(&self) -> ottla::ConsumerBuilder {
        let checks = self.variant.checks_crcs;
        self.store.consumer().max_poll_records(POLL_RECORDS).check_crcs(checks)
    }
}

impl Log for OttlaLog {
    fn send(&self, value: &[u8]) -> Outcome {
        let _delivery = self.producer.send(&self.topic, Record::new(value))?;
        Ok(())
    }

    fn append_batch(&self, values: Values<'_>) -> Outcome {
        let _delivery = self.producer.send_batch(&self.partitions[0], values.map(Record::new))?;
        Ok(())
    }

    fn send_synced(&self, value: &[u8], _thread: u32) -> Outcome {
        self.producer.send(&self.topic, Record::new(value))?.wait()?;
        Ok(())
    }

    fn commit(&self, values: Values<'_>) -> Outcome {
        let mut deliveries = Vec::with_capacity(self.partitions.len());
        for (value, partition) in values.zip(0..) {
            let record = Record::new(value).partition(partition);
            deliveries.push(self.producer.send(&self.topic, record)?);
        }
        for delivery in deliveries {
            delivery.wait()?;
        }
        Ok(())
    }

    fn append_to_each(&self, values: Values<'_>) -> Outcome {
        for (value, partition) in values.zip(0..) {
            let _delivery =
                self.producer.send(&self.topic, Record::new(value).partition(partition))?;
        }
        Ok(())
    }

    fn finish(&self) -> Outcome {
        if self.variant.linger_len > 0 {
            self.producer.flush()?;
        }
        Ok(())
    }

    fn scan(&self) -> Outcome<Box<dyn Scan + '_>> {
        let consumer = self.consumer().assign(self.topic.partitions())?;
        Ok(Box::new(OttlaScan { consumer }))
    }

    fn points(&self) -> Outcome<Box<dyn Points + '_>> {
        Ok(Box::new(OttlaPoints { partition: self.partitions[0].clone() }))
    }

    fn tail(&self) -> Outcome<Box<dyn Tail + Send + '_>> {
        let mut builder = self.consumer().start(Start::Latest);
        if self.variant.waiting == Waiting::Parked {
            builder = builder.spin(Duration::ZERO);
        }
        let consumer = builder.assign(self.topic.partitions())?;
        let is_spinning = self.variant.waiting == Waiting::Spinning;
        Ok(Box::new(OttlaTail { consumer, is_spinning }))
    }

    fn close(self: Box<Self>) -> Outcome {
        let OttlaLog { store, topic, partitions, producer, .. } = *self;
        drop((topic, partitions, producer));
        store.close()?;
        Ok(())
    }
}

struct OttlaScan {
    consumer: Consumer,
}

impl Scan for OttlaScan {
    fn next(&mut self, touch: &mut Touch) -> Outcome<bool> {
        let records = self.consumer.poll(Duration::ZERO)?;
        if records.is_empty() {
            return Ok(false);
        }
        let mut sums = *touch;
        for message in &records {
            sums.take(message.value().unwrap_or_default());
        }
        *touch = sums;
        Ok(true)
    }
}

struct OttlaPoints {
    partition: TopicPartition,
}

impl Points for OttlaPoints {
    fn read(&mut self, index: u64, touch: &mut Touch) -> Outcome {
        let offset = i64::try_from(index)?;
        match self.partition.read(offset)? {
            Some(message) => {
                touch.take(message.value().unwrap_or_default());
                Ok(())
            }
            None => Err(Failure::Failed(format!("there is no record at offset {offset}"))),
        }
    }
}

struct OttlaTail {
    consumer: Consumer,
    is_spinning: bool,
}

impl Tail for OttlaTail {
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> Outcome {
        let records = if self.is_spinning {
            loop {
                let records = self.consumer.poll(Duration::ZERO)?;
                if !records.is_empty() {
                    break records;
                }
                std::hint::spin_loop();
            }
        } else {
            self.consumer.poll(latency::LOST_AFTER)?
        };
        if records.is_empty() {
            return Err(latency::lost());
        }
        for message in &records {
            each(message.value().unwrap_or_default());
        }
        Ok(())
    }
}

const TOPIC: &str = "t";
/// A scan takes what the bytes of one poll allow.
const POLL_RECORDS: usize = 1_000_000;
/// Long: batches are sealed because they are full.
const LINGER: Duration = Duration::from_millis(100);
