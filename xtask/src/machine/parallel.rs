//! Work that is done side by side.

use std::{
    sync::{Condvar, Mutex},
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

/// Calls `f` with each number below `after.len()`, up to `jobs` at once, and with each one only when it has returned for
/// those that `after` names, which must not name one another in a circle. The results are in the numbers' order.
pub(crate) fn in_order<R: Send>(
    sh: &Shell,
    jobs: usize,
    after: &[Vec<usize>],
    f: impl Fn(&Shell, usize) -> R + Sync,
) -> Vec<R> {
    struct Queue {
        waiting: Vec<usize>,
        done: Vec<bool>,
    }
    let queue = Queue {
        waiting: (0..after.len()).collect(),
        done: vec![false; after.len()],
    };
    let (queue, changed) = (Mutex::new(queue), Condvar::new());
    let lock = || queue.lock().expect("nobody panics with it");
    let take = || {
        let mut queue = lock();
        while !queue.waiting.is_empty() {
            let is_next = |it: &usize| after[*it].iter().all(|it| queue.done[*it]);
            match queue.waiting.iter().position(is_next) {
                Some(position) => return Some(queue.waiting.remove(position)),
                None => queue = changed.wait(queue).expect("nobody panics with it"),
            }
        }
        None
    };
    let work = |sh: Shell| {
        let mut results = Vec::new();
        while let Some(index) = take() {
            results.push((index, f(&sh, index)));
            lock().done[index] = true;
            changed.notify_all();
        }
        results
    };
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let shells = (0..after.len().min(jobs)).map(|_| sh.clone());
        let workers: Vec<_> = shells
            .map(|sh| {
                let work = &work;
                scope.spawn(move || work(sh))
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
