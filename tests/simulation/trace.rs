//! What happened, in order: every event with its simulated time goes into one hash; the newest are kept as text.

use std::{
    collections::VecDeque,
    fmt::{Display, Write},
    sync::LazyLock,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Events kept for the report of a violation.
const KEPT: usize = 200;
/// So many events without the clock moving are a loop without an end.
const MOST_AT_ONCE: u64 = 20_000;

struct Trace {
    start: Option<Instant>,
    hash: u64,
    events: u64,
    /// The time of the newest event, and the number of the first that had it.
    moment: (u64, u64),
    text: String,
    newest: VecDeque<String>,
    print: bool,
}

/// One simulation a process.
static TRACE: LazyLock<Mutex<Trace>> = LazyLock::new(|| {
    let print = std::env::var_os("HOLDFAST_SIM_TRACE").is_some();
    let trace =
        Trace { start: None, hash: 0, events: 0, moment: (0, 0), text: String::new(), newest: VecDeque::new(), print };
    Mutex::new(trace)
});

/// Simulated time starts now.
pub fn start() {
    TRACE.lock().start = Some(Instant::now());
}

/// Microseconds of simulated time.
pub fn now() -> u64 {
    TRACE.lock().now()
}

impl Trace {
    fn now(&self) -> u64 {
        self.start.map_or(0, |start| start.elapsed().as_micros() as u64)
    }
}

/// Notes an event. Answers its number: the order of events is the clock that histories are checked by.
pub fn event(what: impl Display) -> u64 {
    let mut trace = TRACE.lock();
    let now = trace.now();
    let mut text = std::mem::take(&mut trace.text);
    text.clear();
    let _ = write!(text, "{:>5}.{:06} {what}", now / 1_000_000, now % 1_000_000); // a String takes everything
    for byte in text.bytes() {
        trace.hash = (trace.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3); // FNV
    }
    if trace.print {
        println!("{text}");
    }
    let mut line =
        if trace.newest.len() >= KEPT { trace.newest.pop_front().unwrap_or_default() } else { String::new() };
    line.clone_from(&text);
    trace.newest.push_back(line);
    trace.text = text;
    trace.events += 1;
    if trace.moment.0 != now {
        trace.moment = (now, trace.events);
    }
    let (events, at_once) = (trace.events, trace.events - trace.moment.1);
    drop(trace);
    assert!(at_once < MOST_AT_ONCE, "stuck: the clock stands still");
    events
}

/// The hash of all events.
pub fn sum() -> u64 {
    TRACE.lock().hash
}

/// The newest events.
pub fn newest() -> Vec<String> {
    TRACE.try_lock().map(|trace| trace.newest.iter().cloned().collect()).unwrap_or_default()
}
