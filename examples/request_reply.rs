//! A pricing service: three responders share the questions; one panics now and then, one is killed and started again.
//!
//! `cargo run --release --example request_reply`
//!
//! Shops ask what things cost, each with a few questions in flight. Three responders of one group answer. The first
//! has a bug that makes it panic on every hundredth question it gets: the shop hears of it as an error, and asks again.
//! The second is dropped in the middle of its work: the others take over. Later it is started again, and takes its
//! part. At the end every question was answered, with the right price.

#![allow(clippy::print_stdout, clippy::panic, reason = "an example shows what it does")]

use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ottla::Durability;
use ottla::Error;
use ottla::Message;
use ottla::Record;
use ottla::Reply;
use ottla::Requester;
use ottla::Responder;
use ottla::Store;
use ottla::Topic;
use ottla::TopicConfig;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const SHOPS: usize = 4;
const QUESTIONS_EACH: usize = 2_500;
const IN_FLIGHT: usize = 8;
/// Nobody needs as long as this.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Outcome<()> {
    let store = Store::builder_temporary().durability(Durability::Buffered).open()?;
    let questions = store.create_topic("questions", TopicConfig::new().partitions(6))?;
    // The panics are part of the show: one line for each instead of a report.
    std::panic::set_hook(Box::new(|_| println!("the careless one panicked")));

    let asked = AtomicU64::new(0);
    let careless = store.responder(&questions, "pricing").start(move |question| {
        match asked.fetch_add(1, Ordering::Relaxed) % 100 {
            99 => panic!("the careless one has a bug"),
            _ => price(question),
        }
    })?;
    let unlucky = start_reliable(&store, &questions)?;
    let steady = start_reliable(&store, &questions)?;

    let requester = store.requester(&questions).build()?;
    let done = AtomicUsize::new(0);
    let (times, failures, before, after) = thread::scope(|scope| {
        let (requester, done) = (&requester, &done);
        let shops: Vec<_> =
            (0..SHOPS).map(|shop| scope.spawn(move || ask(requester, shop, done))).collect();

        wait_for(done, SHOPS * QUESTIONS_EACH / 4);
        let before = unlucky.status().answered;
        drop(unlucky);
        println!("the unlucky one was dropped after {before} answers; two are left");

        wait_for(done, SHOPS * QUESTIONS_EACH / 2);
        let again = start_reliable(&store, &questions)?;
        println!("it is back");

        let (mut times, mut failures) = (Vec::new(), 0);
        for shop in shops {
            let (of_shop, failed) = shop.join().map_err(|_| "a shop panicked")??;
            times.extend(of_shop);
            failures += failed;
        }
        assert!(again.wait_idle(PATIENCE)?, "something was left unanswered");
        let after = again.status().answered;
        again.close()?;
        Outcome::Ok((times, failures, before, after))
    })?;

    // Every question was answered, those that met the bug when they were asked again …
    assert_eq!(times.len(), SHOPS * QUESTIONS_EACH);
    let (careless_did, steady_did) = (careless.status(), steady.status());
    assert_eq!(careless_did.panicked, failures);
    assert!(failures > 0, "the careless one should have panicked");
    // … all of them had a part in it …
    assert!(before > 0 && after > 0 && steady_did.answered > 0 && careless_did.answered > 0);
    // … and nothing is left behind: every request was answered once, and nobody waits.
    let status = requester.status();
    assert_eq!((status.in_flight, status.late), (0, 0));
    assert_eq!(status.answered, times.len() as u64);
    assert_eq!(status.refused, failures);
    let group = store.group("pricing")?.describe()?;
    assert!(group.partitions.iter().all(|partition| partition.lag == Some(0)));

    println!(
        "{} questions answered; by the careless one {}, the steady one {}, the unlucky one {before} \
         and {after}; {failures} were asked again",
        times.len(),
        careless_did.answered,
        steady_did.answered,
    );
    report(times);
    careless.close()?;
    steady.close()?;
    Ok(())
}

/// What a thing costs: a cent for each letter.
fn price(question: &Message<'_>) -> Outcome<Reply> {
    let thing = question.value().ok_or("what thing?")?;
    Ok(Reply::new(format!("0.{:02}", thing.len())).header("currency", "EUR"))
}

fn start_reliable(store: &Store, questions: &Topic) -> ottla::Result<Responder> {
    store.responder(questions, "pricing").start(price)
}

/// Asks, keeping a few questions in flight; asks again where the answer is an error. Gives how long each answer took,
/// and how many were errors.
fn ask(requester: &Requester, shop: usize, done: &AtomicUsize) -> Outcome<(Vec<Duration>, u64)> {
    let (mut times, mut failures) = (Vec::new(), 0);
    let mut left: Vec<String> =
        (0..QUESTIONS_EACH).map(|n| format!("{} of shop {shop}", "x".repeat(n % 50))).collect();
    while !left.is_empty() {
        let some = left.split_off(left.len().saturating_sub(IN_FLIGHT));
        let send = |thing: String| {
            let begun = Instant::now();
            let pending = requester.request(Record::new(&thing).key(&thing))?;
            Ok((thing, begun, pending))
        };
        let asked = some.into_iter().map(send).collect::<ottla::Result<Vec<_>>>()?;
        for (thing, begun, mut pending) in asked {
            match pending.wait_timeout(PATIENCE) {
                Ok(answer) => {
                    times.push(begun.elapsed());
                    let expected = format!("0.{:02}", thing.len());
                    assert_eq!(answer.value(), Some(expected.as_bytes()));
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Err(Error::RequestFailed { .. }) => {
                    failures += 1;
                    left.push(thing);
                }
                Err(other) => return Err(other.into()),
            }
        }
    }
    Ok((times, failures))
}

fn wait_for(done: &AtomicUsize, count: usize) {
    while done.load(Ordering::Relaxed) < count {
        thread::sleep(Duration::from_millis(1));
    }
}

fn report(mut times: Vec<Duration>) {
    times.sort();
    let at = |permille: usize| times[(times.len() - 1) * permille / 1000];
    println!(
        "an answer takes {:?} (p50), {:?} (p90), {:?} (p99), {:?} (p99.9)",
        at(500),
        at(900),
        at(990),
        at(999)
    );
}
