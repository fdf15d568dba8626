//! Runs seeds, each in a process of its own, as many at a time as there are processors.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    ops::Range,
    process::Command,
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use crate::{bug::Bug, entropy, trace, world};

/// Set in a child: the seed to run.
const CHILD: &str = "HOLDFAST_SIM_CHILD";
const RESULT: &str = "simulated: ";
const VIOLATION: &str = "violation: ";

/// Real time that a seed may take; it needs less than a second.
const MOST_TIME: Duration = Duration::from_secs(120);

/// Runs seeds under one of this binary's tests.
pub struct Fleet {
    test: &'static str,
    child: bool,
}

/// What became of a seed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Hash of its trace.
    pub trace: u64,
    /// Acknowledged appends.
    pub commits: u64,
    /// Reads.
    pub reads: u64,
    /// Faults.
    pub faults: u64,
    /// Terms.
    pub terms: u64,
    /// Simulated milliseconds.
    pub millis: u64,
    /// Real time.
    pub took: Duration,
    /// What went wrong.
    pub violation: Option<String>,
    /// All that the process printed.
    pub output: String,
}

/// The seeds that the environment asks for: `HOLDFAST_SIM_SEED=N`, or `HOLDFAST_SIM_SEEDS=N` or `A..B`.
pub fn asked() -> Option<Range<u64>> {
    let number = |text: &str| text.trim().parse::<u64>().unwrap_or_else(|_| panic!("not a number of seeds: {text:?}"));
    if let Ok(seed) = std::env::var("HOLDFAST_SIM_SEED") {
        let seed = number(&seed);
        return Some(seed..seed + 1);
    }
    let seeds = std::env::var("HOLDFAST_SIM_SEEDS").ok()?;
    Some(match seeds.split_once("..") {
        Some((first, end)) => number(first)..number(end),
        None => 0..number(&seeds),
    })
}

impl Fleet {
    /// The fleet of the test `test`. In a child this runs the seed at once.
    pub fn of(test: &'static str, bug: Bug) -> Self {
        let child = std::env::var(CHILD).ok();
        if let Some(seed) = &child {
            simulate(seed.parse().expect("a seed"), bug);
        }
        Self { test, child: child.is_some() }
    }

    /// Whether this process was started to run one seed, which is done.
    pub fn is_child(&self) -> bool {
        self.child
    }

    /// Runs one seed.
    pub fn one(&self, seed: u64) -> Outcome {
        let started = Instant::now();
        let program = std::env::current_exe().expect("this binary");
        let out = Command::new(program)
            .args([self.test, "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, seed.to_string())
            .output()
            .expect("a child process");
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        let found = |mark: &str| text.lines().find_map(|line| line.split_once(mark)).map(|(_, rest)| rest.to_owned());
        let mut outcome = Outcome { seed, took: started.elapsed(), ..Outcome::default() };
        match (found(VIOLATION), found(RESULT)) {
            (Some(violation), _) => outcome.violation = Some(violation),
            (None, Some(result)) if out.status.success() => {
                let numbers: Vec<u64> = result.split(' ').map(|n| n.parse().expect("a number")).collect();
                let [trace, commits, reads, faults, terms, millis] = numbers[..] else { panic!("{result}") };
                outcome = Outcome { trace, commits, reads, faults, terms, millis, ..outcome };
            }
            _ => outcome.violation = Some(format!("the process ended with {}", out.status)),
        }
        outcome.output = text;
        outcome
    }

    /// Runs seeds until `stop` answers something.
    pub fn run<T>(&self, seeds: Range<u64>, mut stop: impl FnMut(Outcome) -> Option<T>) -> Option<T> {
        let next = AtomicU64::new(seeds.start);
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            let (tx, outcomes) = mpsc::channel();
            for _ in 0..workers {
                let (tx, next) = (tx.clone(), &next);
                scope.spawn(move || {
                    loop {
                        let seed = next.fetch_add(1, Relaxed);
                        if seed >= seeds.end || tx.send(self.one(seed)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(tx);
            outcomes.into_iter().find_map(&mut stop)
        })
    }

    /// The command that runs a seed again.
    pub fn command(&self, seed: u64) -> String {
        format!("HOLDFAST_SIM_SEED={seed} tests/run.sh -E 'binary(simulation) & test(={})' --no-capture", self.test)
    }
}

/// Runs a seed in this process, which ends with a violation.
fn simulate(seed: u64, bug: Bug) {
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.payload_as_str().unwrap_or("no message").replace('\n', " ");
        for line in trace::newest() {
            println!("  {line}");
        }
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        println!("{VIOLATION}{text} ({at})");
        std::process::exit(3);
    }));
    if std::env::var_os("HOLDFAST_SIM_LOG").is_some() {
        tracing_subscriber::fmt().without_time().with_max_level(tracing::Level::DEBUG).init();
    }
    let run = move || {
        entropy::seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime");
        let report = runtime.block_on(world::run(seed, bug));
        println!(
            "{RESULT}{} {} {} {} {} {}",
            report.trace, report.commits, report.reads, report.faults, report.terms, report.millis
        );
        // What still runs has no end of its own.
        std::process::exit(0);
    };
    // A thread of its own: nothing on it has drawn randomness yet.
    let thread = std::thread::Builder::new().name("simulation".into()).spawn(run).expect("a thread");
    std::thread::sleep(MOST_TIME);
    drop(thread);
    println!("{VIOLATION}stuck: no end after {MOST_TIME:?} of real time");
    std::process::exit(4);
}

/// Sums up seeds.
#[derive(Default)]
pub struct Summary {
    all: Vec<Outcome>,
}

impl Summary {
    /// Adds one.
    pub fn add(&mut self, outcome: &Outcome) {
        if let Some(violation) = &outcome.violation {
            println!("{}seed {}: {violation}", outcome.output, outcome.seed);
        }
        self.all.push(Outcome { output: String::new(), ..outcome.clone() });
    }

    /// The seeds that failed.
    pub fn failed(&self) -> BTreeMap<u64, String> {
        self.all.iter().filter_map(|outcome| Some((outcome.seed, outcome.violation.clone()?))).collect()
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passed: Vec<_> = self.all.iter().filter(|outcome| outcome.violation.is_none()).collect();
        let spread = |of: fn(&Outcome) -> u64| {
            let all: Vec<_> = passed.iter().map(|outcome| of(outcome)).collect();
            let sum: u64 = all.iter().sum();
            let mean = sum.checked_div(all.len() as u64).unwrap_or(0);
            format!("{}/{mean}/{}", all.iter().min().unwrap_or(&0), all.iter().max().unwrap_or(&0))
        };
        write!(
            f,
            "{} passed; least/mean/most of a seed: commits {}, reads {}, faults {}, terms {}, simulated ms {}, real ms {}",
            passed.len(),
            spread(|o| o.commits),
            spread(|o| o.reads),
            spread(|o| o.faults),
            spread(|o| o.terms),
            spread(|o| o.millis),
            spread(|o| o.took.as_millis() as u64),
        )
    }
}
