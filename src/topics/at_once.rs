//! Many partitions opened, made or closed at the same time.
//!
//! What is done to one of them waits for the disk several times, and a disk that can do better than one sync at
//! a time does. The threads live as long as the call.

use std::panic::resume_unwind;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

/// Does `work` for each of `items`, several at a time if there are many, and gives what came of it in their
/// order.
pub(super) fn each<T: Sync, R: Send>(
    items: &[T],
    threads_max: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let thread_count = (items.len() / ITEMS_MIN).min(threads_max);
    let next = AtomicUsize::new(0);
    let take_turns = || {
        let mut done = Vec::new();
        // Relaxed: only the number itself is shared.
        while let Some((index, item)) = enumerated(items, next.fetch_add(1, Ordering::Relaxed)) {
            done.push((index, work(item)));
        }
        done
    };
    let mut done = thread::scope(|scope| {
        // This thread is one of them. Where the system has no other to give, it does all of it.
        let others: Vec<_> = (1..thread_count)
            .map_while(|number| {
                let name = format!("ottla-partitions-{number}");
                thread::Builder::new().name(name).spawn_scoped(scope, take_turns).ok()
            })
            .collect();
        let mut done = take_turns();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

fn enumerated<T>(items: &[T], index: usize) -> Option<(usize, &T)> {
    items.get(index).map(|item| (index, item))
}

/// Fewer for each thread are not worth one.
const ITEMS_MIN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::sync::Mutex;

    #[test]
    fn everything_is_done_once_by_several_and_comes_back_in_order() {
        let items: Vec<usize> = (0..100).collect();
        let (met, seen) = (Barrier::new(3), Mutex::new(HashSet::new()));
        let doubled = each(&items, 3, |item| {
            // Each of the first three waits for the other two: they are different threads.
            if *item < 3 {
                met.wait();
            }
            seen.lock().unwrap().insert(thread::current().id());
            2 * item
        });
        assert_eq!(doubled, (0..200).step_by(2).collect::<Vec<_>>());
        assert_eq!(seen.lock().unwrap().len(), 3);
        assert!(each(&[] as &[u8], 8, |_| ()).is_empty());
    }
}
