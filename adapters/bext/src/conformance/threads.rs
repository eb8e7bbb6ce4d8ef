//! Many threads on few keys, undisturbed and disturbed.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use bext_plugin_api::locking::LockHandle;

use super::bench::{Bench, Check, LONG, ensure, release, try_lock};
use super::contest::Contest;

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("one_of_many_threads_wins_a_race", race),
    ("threads_never_hold_a_lock_together", never_together),
];

const RACES: usize = 20;

/// Grants that a contest waits for, before a disturbance and after it.
const GRANTS: usize = 100;

/// A disturbed holder keeps its lock for a few TTLs of the suite at most, and a lock whose grant
/// nobody heard of ends with its TTL; so the contest's TTL is not much longer.
const DISTURBED_TTLS: u32 = 3;

fn race(bench: &Bench) -> Result<(), String> {
    for _ in 0..RACES {
        let key = bench.key("race");
        let winners = race_for(bench, &key)?;
        ensure!(winners.len() == 1, "{} threads won one race", winners.len());
        for handle in winners {
            release(&*bench.ours, handle)?;
        }
    }
    Ok(())
}

/// Handles of the threads that got the lock; half of the threads are of another host.
fn race_for(bench: &Bench, key: &str) -> Result<Vec<LockHandle>, String> {
    let start = Barrier::new(bench.threads);
    let run = |number: usize| {
        start.wait();
        let plugins = [&bench.ours, &bench.theirs];
        try_lock(&**plugins[number % 2], key, LONG)
    };
    let tried: Vec<_> = thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..bench.threads)
            .map(|number| scope.spawn(move || run(number)))
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|tried| tried.unwrap_or_else(|_| Err("try_lock panicked".to_owned())))
            .collect()
    });
    let tried: Vec<Option<LockHandle>> = tried.into_iter().collect::<Result<_, _>>()?;
    Ok(tried.into_iter().flatten().collect())
}

fn never_together(bench: &Bench) -> Result<(), String> {
    let contest = Contest::new(bench, LONG);
    contest.run(GRANTS, || {})?;
    let errors = contest.errors();
    ensure!(errors.is_empty(), "calls failed: {}", errors.join("; "));
    Ok(())
}

pub(super) fn disturbed(bench: &Bench, hurt: &dyn Fn()) -> Result<(), String> {
    let ttl = (bench.ttl * DISTURBED_TTLS).max(Duration::from_millis(500));
    let contest = Contest::new(bench, ttl);
    contest.run(GRANTS, hurt)?;
    let wordless = contest
        .errors()
        .iter()
        .filter(|words| words.is_empty())
        .count();
    ensure!(wordless == 0, "{wordless} calls failed without a word");
    Ok(())
}
