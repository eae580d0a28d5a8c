//! A device that measures all the time, is offline for long, and has little disk: two buffers on it, each bounded.
//!
//! Measurements may be lost, the oldest first: their store drops old segments. Alarms must not be lost unnoticed: their
//! store refuses more when it is full, and the device keeps the latest alarm's state itself until there is room. Once the
//! link is up again, both are uploaded from where the uploader stopped, and what was uploaded is deleted.
//!
//! ```text
//! cargo run --release --example iot_buffer
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use ottla::BudgetPolicy;
use ottla::Durability;
use ottla::Error;
use ottla::OffsetReset;
use ottla::Record;
use ottla::Start;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;

/// What each of the two may take on the disk.
const DISK: u64 = 1 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let measurements = buffer(&directory.path().join("measurements"), BudgetPolicy::DropOldest)?;
    let alarms = buffer(&directory.path().join("alarms"), BudgetPolicy::BackPressure)?;

    // Offline: ten times as many measurements as there is room for, and more alarms than that.
    let written = 80_000_u64;
    let mut most_on_disk = 0;
    for n in 0..written {
        measure(&measurements, n)?;
        if n % 1000 == 0 {
            most_on_disk = most_on_disk.max(on_disk(measurements.0.path())?);
        }
    }
    let mut raised = 0_u64;
    let refused = loop {
        match alarms.0.producer().send(&alarms.1, Record::new(&alarm(raised))) {
            Ok(_) => raised += 1,
            Err(full @ Error::StoreFull { .. }) => break full,
            Err(other) => return Err(other.into()),
        }
    };
    assert!(refused.is_retriable(), "the device may try again once there is room");
    println!(
        "{written} measurements, at most {most_on_disk} bytes on the disk; {raised} alarms, then: {refused}"
    );
    // On top of the budget come indexes and files that are just being removed.
    assert!(most_on_disk < DISK + DISK / 4, "{most_on_disk} bytes were on the disk");
    assert!(on_disk(alarms.0.path())? < DISK + DISK / 8);

    // Online again. Of the measurements the latest are there, without a gap from the first one that is left.
    let mut first = None;
    let uploaded = upload(&measurements, |payload| {
        let n = number(payload);
        let expected = *first.get_or_insert(n);
        first = Some(expected + 1);
        assert_eq!(n, expected, "a gap among those that are left");
    })?;
    assert_eq!(first, Some(written), "the latest one is there");
    assert!(uploaded > written / 40 && uploaded < written / 8, "{uploaded} were kept");

    // Of the alarms all that were taken, from the first one on.
    let mut next = 0;
    let all = upload(&alarms, |payload| {
        assert_eq!(number(payload), next);
        next += 1;
    })?;
    assert_eq!((all, next), (raised, raised), "every alarm that was taken is there");
    // What was uploaded made room: the one that was refused is taken now.
    alarms.0.producer().send(&alarms.1, Record::new(&alarm(raised)))?.wait()?;

    let health = alarms.0.health();
    assert!(health.is_good() && health.overtaken.is_empty());
    println!("{uploaded} measurements and {all} alarms uploaded; {} bytes are left", health.bytes);
    Ok(())
}

fn buffer(path: &Path, policy: BudgetPolicy) -> Result<(Store, Topic), Error> {
    let store = Store::builder(path)
        // A power cut takes what a second has brought, at the most.
        .durability(Durability::Every(Duration::from_secs(1)))
        .bytes_max(DISK, policy)
        .open()?;
    // Segments are what is dropped, so they are a small part of the budget.
    let topic = store.topic_or_create("outbox", TopicConfig::new().segment_bytes(64 << 10))?;
    Ok((store, topic))
}

fn measure((store, topic): &(Store, Topic), n: u64) -> Result<(), Error> {
    let value = format!("{n} temperature=21.{} humidity=4{} pressure=1013.{n}", n % 10, n % 7);
    // Taken, or an error: nothing waits for the disk.
    store.producer().send(topic, Record::new(&value))?;
    Ok(())
}

fn alarm(n: u64) -> String {
    format!("{n} {}", "door open; ".repeat(20))
}

fn number(payload: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(payload);
    text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(u64::MAX)
}

/// Uploads what the uploader has not uploaded yet, then deletes it. Gives how many records that were.
fn upload(
    (store, topic): &(Store, Topic),
    mut send: impl FnMut(&[u8]),
) -> Result<u64, Box<dyn std::error::Error>> {
    // Whoever was overtaken by the bound goes on with the oldest that is left.
    let builder = store.consumer().start(Start::Earliest).reset(OffsetReset::Earliest);
    let mut uploader = builder.subscribe("uploader", [topic])?;
    let partition = topic.partition(0)?;
    let end = partition.watermarks()?.1;
    let mut count = 0;
    let mut next = 0;
    while next < end {
        for message in &uploader.poll(Duration::from_secs(10))? {
            send(message.value().ok_or("a record without a value")?);
            next = message.offset() + 1;
            count += 1;
        }
        uploader.commit()?;
        partition.delete_records(next)?;
    }
    Ok(count)
}

/// The bytes that the files of the topic take on the disk.
fn on_disk(root: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(root.join("outbox-0"))? {
        // One that goes meanwhile takes nothing.
        bytes += entry?.metadata().map_or(0, |metadata| metadata.blocks() * 512);
    }
    Ok(bytes)
}
