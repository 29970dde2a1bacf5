//! Work in parallel.

use std::{
    sync::{Condvar, Mutex, MutexGuard},
    thread,
};

/// A thread whose stack is enough for objects that are nested as deep as we read them.
pub(crate) fn thread() -> thread::Builder {
    thread::Builder::new().stack_size(32 << 20)
}

/// Calls `f` with each item, up to eight at once, and returns the results in the items' order.
///
/// `context` is a `Shell`, or what holds one: each thread gets its own.
pub(crate) fn side_by_side<C: Clone + Send, T: Sync, R: Send>(
    context: &C,
    items: &[T],
    f: impl Fn(&C, &T) -> R + Sync,
) -> Vec<R> {
    let after = vec![Vec::new(); items.len()];
    in_order(context, 8, &after, |context, index| {
        f(context, &items[index])
    })
}

/// Calls `f` with each number below `after.len()`, up to `jobs` at once. A number waits until `f` has returned for all numbers
/// that `after` lists for it; they must not wait for one another in a circle. The results are in the numbers' order.
pub(crate) fn in_order<C: Clone + Send, R: Send>(
    context: &C,
    jobs: usize,
    after: &[Vec<usize>],
    f: impl Fn(&C, usize) -> R + Sync,
) -> Vec<R> {
    let queue = &Queue::new(after);
    let f = &f;
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let contexts = (0..after.len().min(jobs)).map(|_| context.clone());
        let workers: Vec<_> = contexts
            .map(|context| {
                let worker = thread().spawn_scoped(scope, move || work(&context, queue, f));
                worker.expect("a thread can be started")
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|it| it.join().expect("a worker panicked"))
            .collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// What one thread does: it takes numbers from the queue until none is left.
fn work<C, R>(context: &C, queue: &Queue, f: &impl Fn(&C, usize) -> R) -> Vec<(usize, R)> {
    let mut results = Vec::new();
    while let Some(index) = queue.take() {
        results.push((index, f(context, index)));
        queue.finish(index);
    }
    results
}

/// Numbers that threads take from, each after those that it waits for.
struct Queue<'a> {
    after: &'a [Vec<usize>],
    state: Mutex<QueueState>,
    changed: Condvar,
}

struct QueueState {
    waiting: Vec<usize>,
    is_done: Vec<bool>,
}

impl Queue<'_> {
    fn new(after: &[Vec<usize>]) -> Queue<'_> {
        let state = QueueState {
            waiting: (0..after.len()).collect(),
            is_done: vec![false; after.len()],
        };
        Queue {
            after,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// The next number that waits for nothing any more, once there is one; `None` when all are taken.
    fn take(&self) -> Option<usize> {
        let mut state = self.lock();
        while !state.waiting.is_empty() {
            match state
                .waiting
                .iter()
                .position(|it| self.is_next(*it, &state))
            {
                Some(position) => return Some(state.waiting.remove(position)),
                None => state = self.changed.wait(state).expect("nobody panics with it"),
            }
        }
        None
    }

    fn is_next(&self, index: usize, state: &QueueState) -> bool {
        self.after[index].iter().all(|it| state.is_done[*it])
    }

    fn finish(&self, index: usize) {
        self.lock().is_done[index] = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().expect("nobody panics with it")
    }
}
