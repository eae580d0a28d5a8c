//! A first program: produce, consume, close, open again.
//!
//! `cargo run --release --example quickstart`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use ottla::Record;
use ottla::Store;
use ottla::TopicConfig;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir().join(format!("ottla-quickstart-{}", std::process::id()));

    // Produce: a send is visible at once and survives kill -9; waiting makes it survive a power cut.
    let store = Store::open(&directory)?;
    let orders = store.create_topic("orders", TopicConfig::new().partitions(3))?;
    let producer = store.producer();
    for n in 0..10 {
        let key = format!("order-{}", n % 4);
        let metadata = producer.send(&orders, Record::new("paid").key(&key))?.wait()?;
        println!(
            "sent {key} to {}-{}@{}",
            metadata.topic(),
            metadata.partition(),
            metadata.offset()
        );
    }
    drop((producer, orders));
    store.close()?;

    // Consume, in what might be another run of the program.
    let store = Store::open(&directory)?;
    let orders = store.topic("orders")?;
    let mut consumer = store.consumer().assign(orders.partitions())?;
    let mut received = 0;
    while received < 10 {
        let records = consumer.poll(Duration::from_secs(1))?;
        for message in &records {
            let key = String::from_utf8_lossy(message.key().unwrap_or_default());
            println!("received {key} from {}@{}", message.topic_partition(), message.offset());
            assert_eq!(message.value(), Some(&b"paid"[..]));
        }
        received += records.count();
    }
    assert_eq!(received, 10);
    drop((consumer, orders));
    store.close()?;

    std::fs::remove_dir_all(&directory)?;
    println!("ten orders out, ten orders in");
    Ok(())
}
