//! Holds background requests back while the budget is used up, and says so.

use std::{
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    Limits,
    budget::{Budget, Class},
};
use crate::clock::Clock;

/// A wait looks again so often whether it has become urgent.
const LOOK: Duration = Duration::from_millis(500);
/// Least time between two lines in the log.
const SAY_EVERY: Duration = Duration::from_secs(600);

/// The governor of a store.
pub(super) struct Governor {
    /// `None`: no budget was set.
    budget: Option<Mutex<Budget>>,
    /// The budget, for people.
    what: String,
    /// Flushes make room that commits need.
    urgent: AtomicBool,
    /// Who waits now, by class.
    waiting: [AtomicU64; Class::ALL.len()],
    /// Requests that had to wait.
    held: AtomicU64,
    said: Mutex<Option<Duration>>,
}

impl Governor {
    pub(super) fn new(limits: &Limits) -> Self {
        let budget = Budget::new(limits.requests_per_second, limits.dollars_per_day);
        let requests = limits.requests_per_second.map(|most| format!("{most} requests a second"));
        let dollars = limits.dollars_per_day.map(|most| format!("{most} dollars a day"));
        Self {
            budget: (!budget.is_none()).then(|| Mutex::new(budget)),
            what: requests.into_iter().chain(dollars).collect::<Vec<_>>().join(" or "),
            urgent: AtomicBool::new(false),
            waiting: Default::default(),
            held: AtomicU64::new(0),
            said: Mutex::default(),
        }
    }

    /// Whether flushes may wait.
    pub(super) fn set_urgent(&self, urgent: bool) {
        self.urgent.store(urgent, Release);
    }

    /// Waits until a request of this class, which costs `dollars`, has its place in the budget.
    pub(super) async fn admit(&self, clock: &dyn Clock, class: Class, dollars: f64) {
        let Some(budget) = &self.budget else { return };
        let Err(wait) = budget.lock().ask(clock.now(), class, dollars) else { return };
        let _held = self.hold(clock.now(), class);
        let until = clock.now() + class.patience();
        let mut wait = wait;
        loop {
            let now = clock.now();
            if now >= until || (class == Class::Durable && self.urgent.load(Acquire)) {
                return budget.lock().take(dollars);
            }
            tokio::time::sleep(wait.min(LOOK).min(until - now)).await;
            match budget.lock().ask(clock.now(), class, dollars) {
                Ok(()) => return,
                Err(longer) => wait = longer,
            }
        }
    }

    /// Whether a request that nobody needs may be made.
    pub(super) fn has_plenty(&self) -> bool {
        self.budget.as_ref().is_none_or(|budget| !budget.lock().is_exhausted())
    }

    /// A request was made that nobody asked for.
    pub(super) fn take(&self, dollars: f64) {
        if let Some(budget) = &self.budget {
            budget.lock().take(dollars);
        }
    }

    fn hold(&self, now: Duration, class: Class) -> Held<'_> {
        self.held.fetch_add(1, Relaxed);
        let waiting = &self.waiting[class as usize];
        waiting.fetch_add(1, Relaxed);
        let mut said = self.said.lock();
        if said.is_none_or(|said| now.saturating_sub(said) >= SAY_EVERY) {
            *said = Some(now);
            tracing::warn!(budget = self.what, "the budget of requests is used up: {} wait", class.name());
        }
        Held(waiting)
    }

    /// Requests that had to wait so far.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// Requests that wait now.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.iter().map(|waiting| waiting.load(Relaxed)).sum()
    }

    /// What waits for the budget now, if anything does.
    pub(super) fn trouble(&self) -> Option<String> {
        let waits = |class: &Class| self.waiting[*class as usize].load(Relaxed) > 0;
        let waiting: Vec<_> = Class::ALL.into_iter().filter(waits).map(Class::name).collect();
        let what = &self.what;
        (!waiting.is_empty()).then(|| format!("{} wait for the budget of {what}", waiting.join(", ")))
    }
}

/// Counted as waiting until dropped.
struct Held<'a>(&'a AtomicU64);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
