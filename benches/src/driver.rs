//! Owns the phases of a run: load, warm-up, run, final check; and the clients that work through them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    Error, Progress, ProgressSink,
    acked::RowCounter,
    check::Checker,
    client::Client,
    dist::Chooser,
    latency::Latencies,
    options::BenchOptions,
    row,
    target::{Failure, Row, Target},
    workload::Stream,
};

/// Bytes of values that one load statement carries.
const LOAD_BYTES: usize = 256 << 10;
/// Clients of the load; more would only queue behind the log.
const LOADERS: u64 = 8;
/// How often an operation is run again before the run gives up.
const ATTEMPTS: u32 = 1000;

/// Runs an operation until it meets no conflict any more; leaves the function with the error that is no conflict. A
/// macro, because a closure would have to lend the session to futures that must be `Send`.
macro_rules! again {
    ($shared:expr, $operation:expr) => {{
        let mut failures = 0;
        loop {
            match $operation {
                Ok(done) => break done,
                Err(failure) => $shared.failed(failure, &mut failures).await?,
            }
        }
    }};
}
pub(crate) use again;

/// What all clients share.
pub(crate) struct Shared {
    pub(crate) options: BenchOptions,
    pub(crate) target: Target,
    pub(crate) rows: RowCounter,
    pub(crate) checker: Option<Checker>,
    /// Operations done, for progress and for --operations.
    pub(crate) done: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) stop: AtomicBool,
}

/// What a phase measured.
pub(crate) struct Measured {
    pub(crate) latencies: Latencies,
    pub(crate) operations: u64,
    pub(crate) retries: u64,
    pub(crate) took: Duration,
    /// Operations done in each whole second.
    pub(crate) each_second: Vec<u64>,
}

/// What was done in each second so far. A look that came late covers more than one, and counts for each of them alike.
#[derive(Default)]
struct Seconds {
    each: Vec<u64>,
    counted: u64,
}

impl Seconds {
    /// After `since` so many operations are done.
    fn look(&mut self, since: Duration, done: u64) {
        let whole = since.as_secs().saturating_sub(self.each.len() as u64);
        if let Some(each) = done.saturating_sub(self.counted).checked_div(whole) {
            self.each.extend(std::iter::repeat_n(each, whole as usize));
            self.counted = done;
        }
    }
}

impl Shared {
    pub(crate) fn new(options: BenchOptions, target: Target) -> Arc<Self> {
        let rows = RowCounter::new(options.rows);
        let checker = options.check.then(|| Checker::new(options.workload, options.rows, options.value_size()));
        let (done, retries, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { options, target, rows, checker, done, retries, stop })
    }

    /// Loads all rows, and says how long that took.
    pub(crate) async fn load(self: &Arc<Self>, progress: &ProgressSink<'_>) -> Result<Duration, Error> {
        let begun = Instant::now();
        let next = Arc::new(AtomicU64::new(0));
        let loaders = LOADERS.min(self.options.threads.into());
        let mut tasks = JoinSet::new();
        for _ in 0..loaders {
            tasks.spawn(load_rows(self.clone(), next.clone()));
        }
        let total = self.options.rows;
        let report = |_: Duration| progress(&Progress::Load { rows: self.done.load(Relaxed).min(total), total });
        self.finish(tasks, None, report).await?;
        self.done.store(0, Relaxed);
        if self.options.flush_after_load {
            self.target.checkpoint().await?;
        }
        Ok(begun.elapsed())
    }

    /// Looks whether the rows of an earlier run are there, under this workload's keys: an update of a row that is not
    /// would change nothing and be fast.
    pub(crate) async fn find_rows(&self) -> Result<(), Error> {
        let mut session = self.target.session().await?;
        for row in [0, self.options.rows.saturating_sub(1)] {
            let key = self.options.workload.key(row);
            if again!(self, session.read(key).await).is_none() {
                let like = "load without --skip-load as many --rows by a workload with the same keys";
                return Err(Error::Wrong(format!("row {row} of {}, key {key}, is missing: {like}", self.options.rows)));
            }
        }
        Ok(())
    }

    /// Runs all clients for a time, or for a number of operations.
    pub(crate) async fn run(
        self: &Arc<Self>,
        seconds: u64,
        operations: Option<u64>,
        measured: bool,
        progress: &ProgressSink<'_>,
    ) -> Result<Measured, Error> {
        self.stop.store(false, Relaxed);
        self.done.store(0, Relaxed);
        self.retries.store(0, Relaxed);
        let chooser = Chooser::new(self.options.distribution(), self.rows.readable());
        let phase = u64::from(measured) << 32;
        let mut sessions = Vec::new();
        for _ in 0..self.options.threads {
            sessions.push(self.target.session().await?);
        }
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for (n, session) in sessions.into_iter().enumerate() {
            let options = &self.options;
            let length = options.scan_length as usize;
            let stream = Stream::new(options.workload, chooser.clone(), length, options.seed, phase | n as u64);
            tasks.spawn(Client::new(self.clone(), session)?.run(stream, operations));
        }
        let limit = operations.is_none().then(|| Duration::from_secs(seconds));
        let mut seconds_done = Seconds::default();
        let report = |since: Duration| {
            let operations = self.done.load(Relaxed);
            seconds_done.look(since, operations);
            progress(&Progress::Run { measured, seconds: since.as_secs_f64(), operations });
        };
        let mut latencies = Latencies::new().map_err(|error| Error::Options(error.to_string()))?;
        for of_client in self.finish(tasks, limit, report).await? {
            latencies.add(&of_client);
        }
        let (operations, retries) = (self.done.load(Relaxed), self.retries.load(Relaxed));
        Ok(Measured { latencies, operations, retries, took: begun.elapsed(), each_second: seconds_done.each })
    }

    /// Reads all rows once more and verifies them; how many that were.
    pub(crate) async fn verify_all(&self) -> Result<u64, Error> {
        let Some(checker) = &self.checker else { return Ok(0) };
        let mut session = self.target.session().await?;
        checker.verify_all(&mut session, self.rows.readable()).await
    }

    /// Counts a failed attempt of an operation: an error if it is not worth another one.
    pub(crate) async fn failed(&self, failure: Failure, failures: &mut u32) -> Result<(), Error> {
        match failure {
            Failure::Fatal(error) => return Err(error),
            Failure::Again => *failures += 1,
        }
        if *failures >= ATTEMPTS {
            return Err(Error::NoProgress(ATTEMPTS));
        }
        self.retries.fetch_add(1, Relaxed);
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Waits for the tasks, reporting every second; stops them at the limit, and all of them at the first error.
    async fn finish<T: Send + 'static>(
        &self,
        mut tasks: JoinSet<Result<T, Error>>,
        limit: Option<Duration>,
        mut report: impl FnMut(Duration),
    ) -> Result<Vec<T>, Error> {
        let begun = Instant::now();
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        seconds.tick().await;
        let end = tokio::time::sleep(limit.unwrap_or(Duration::MAX));
        tokio::pin!(end);
        let mut results = Vec::new();
        loop {
            tokio::select! {
                biased;
                finished = tasks.join_next() => match finished {
                    Some(Ok(Ok(result))) => results.push(result),
                    Some(Ok(Err(error))) => return Err(error),
                    Some(Err(error)) => return Err(Error::Client(error.to_string())),
                    None => {
                        report(begun.elapsed());
                        return Ok(results);
                    }
                },
                () = &mut end, if !self.stop.load(Relaxed) => self.stop.store(true, Relaxed),
                _ = seconds.tick() => report(begun.elapsed()),
            }
        }
    }
}

/// One loader: takes runs of rows until none are left.
async fn load_rows(shared: Arc<Shared>, next: Arc<AtomicU64>) -> Result<(), Error> {
    let (options, size) = (&shared.options, shared.options.value_size());
    let run = (LOAD_BYTES / size.max(1)).clamp(1, 1000) as u64;
    let mut session = shared.target.session().await?;
    loop {
        let first = next.fetch_add(run, Relaxed);
        if first >= options.rows {
            return Ok(());
        }
        let rows: Vec<Row> = (first..options.rows.min(first + run))
            .map(|row| options.workload.key(row))
            .map(|key| (key, row::value(key, 0, size)))
            .collect();
        again!(shared, session.load(&rows).await);
        shared.done.fetch_add(rows.len() as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_look_counts_for_the_seconds_it_missed() {
        let mut seconds = Seconds::default();
        for (millis, done) in [(3, 0), (1004, 100), (2005, 250), (4010, 450), (4500, 490)] {
            seconds.look(Duration::from_millis(millis), done);
        }
        assert_eq!(seconds.each, [100, 150, 100, 100], "half a second at the end is no second");
    }
}
