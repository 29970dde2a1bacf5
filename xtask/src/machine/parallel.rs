//! Work in parallel.

use std::{
    sync::{Condvar, Mutex, MutexGuard},
    thread,
};

use xshell::Shell;

/// Calls `f` with each item, up to eight at once, and returns the results in the items' order.
pub(crate) fn side_by_side<T: Sync, R: Send>(
    sh: &Shell,
    items: &[T],
    f: impl Fn(&Shell, &T) -> R + Sync,
) -> Vec<R> {
    in_order(sh, 8, &vec![Vec::new(); items.len()], |sh, index| {
        f(sh, &items[index])
    })
}

/// Calls `f` with each number below `after.len()`, up to `jobs` at once. A number waits until `f` has returned for all numbers
/// that `after` lists for it; they must not wait for one another in a circle. The results are in the numbers' order.
pub(crate) fn in_order<R: Send>(
    sh: &Shell,
    jobs: usize,
    after: &[Vec<usize>],
    f: impl Fn(&Shell, usize) -> R + Sync,
) -> Vec<R> {
    let queue = &Queue::new(after);
    let f = &f;
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let shells = (0..after.len().min(jobs)).map(|_| sh.clone());
        let workers: Vec<_> = shells
            .map(|sh| scope.spawn(move || work(&sh, queue, f)))
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
fn work<R>(sh: &Shell, queue: &Queue, f: &impl Fn(&Shell, usize) -> R) -> Vec<(usize, R)> {
    let mut results = Vec::new();
    while let Some(index) = queue.take() {
        results.push((index, f(sh, index)));
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
