//! `cargo xtask peer`: random sequences of commands, done by qemu-img in one folder and by rimg in
//! another, must print the same, end the same and leave the same disks.
//!
//! A sequence that shows a difference is made as short as possible before it is shown. Differences
//! that are meant stand in `differential/meant.rs`, with the reason for each.

mod draw;
mod meant;
mod options;
mod pair;
mod same;
mod shrink;
mod step;

use crate::Result;
use draw::draw;
use options::Options;
use pair::{Outcome, Pair};
use rimg_testkit::Rng;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

/// How many steps a sequence has: long enough for one to build on what others left.
const SEQUENCE_STEPS: u64 = 16;

pub(crate) fn run(args: &[String]) -> Result {
    let Some(options) = Options::parse(args)? else { return Ok(()) };
    let start = Instant::now();
    let tally = Tally::default();
    let sequences = options.steps.div_ceil(SEQUENCE_STEPS);
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let failed: Result = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let (options, tally, next) = (&options, &tally, &next);
                scope.spawn(move || -> std::result::Result<(), String> {
                    let pair = Pair::new(options, worker).map_err(|error| error.to_string())?;
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= sequences || tally.stop.load(Ordering::Relaxed) {
                            return Ok(());
                        }
                        let seed = options.seed.wrapping_add(number);
                        one(&pair, seed, options, tally).map_err(|error| error.to_string())?;
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().map_err(|_| "a thread panicked")??;
        }
        Ok(())
    });
    failed?;
    tally.report(start.elapsed().as_secs_f64())
}

/// Draws a sequence, runs it, and shows what differs.
fn one(pair: &Pair, seed: u64, options: &Options, tally: &Tally) -> Result {
    let steps = draw(&mut Rng::new(seed), SEQUENCE_STEPS, &options.formats);
    tally.steps.fetch_add(SEQUENCE_STEPS, Ordering::Relaxed);
    let mut meant = Vec::new();
    let outcome = pair.run(&steps, &mut meant)?;
    tally.note_meant(&meant);
    let Outcome::Different(difference) = outcome else { return Ok(()) };
    let (steps, difference) = shrink::shrink(pair, steps, difference)?;
    let mut script = String::new();
    for step in &steps {
        script.push_str(&format!("    {step}\n"));
    }
    let _one_at_a_time = tally.shown.lock();
    println!("seed {seed}:\n{script}{difference}");
    let count = tally.different.fetch_add(1, Ordering::Relaxed) + 1;
    if count >= options.most {
        tally.stop.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// What has happened so far.
#[derive(Default)]
struct Tally {
    steps: AtomicU64,
    different: AtomicU64,
    /// Enough was seen.
    stop: AtomicBool,
    /// How often each meant difference was met.
    meant: Mutex<std::collections::BTreeMap<&'static str, u64>>,
    shown: Mutex<()>,
}

impl Tally {
    fn note_meant(&self, reasons: &[&'static str]) {
        if let Ok(mut meant) = self.meant.lock() {
            for why in reasons {
                *meant.entry(why).or_default() += 1;
            }
        }
    }

    fn report(&self, seconds: f64) -> Result {
        let steps = self.steps.load(Ordering::Relaxed);
        let different = self.different.load(Ordering::Relaxed);
        println!("{steps} steps in {seconds:.1} s");
        for (why, count) in self.meant.lock().map_err(|_| "a thread panicked")?.iter() {
            println!("  meant, {count} times: {why}");
        }
        match different {
            0 => Ok(()),
            some => Err(format!("{some} sequences differ").into()),
        }
    }
}
