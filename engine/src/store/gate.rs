//! The gate in front of the bucket: requests over the window's limit wait here, foreground first.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::window::{Side, Window};

/// The gate. Who finds it open takes a lock for a moment, and nothing else.
#[derive(Default)]
pub(super) struct Gate(Mutex<State>);

#[derive(Default)]
struct State {
    window: Window,
    foreground: VecDeque<oneshot::Sender<Place>>,
    background: VecDeque<oneshot::Sender<Place>>,
    /// Requests that had to wait.
    waited: u64,
    throttled: u64,
}

/// What the gate shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) limit: usize,
    pub(super) in_flight: usize,
    pub(super) waiting: usize,
    pub(super) waited: u64,
    pub(super) throttled: u64,
}

/// A place in flight, given back on drop.
pub(super) struct Place {
    /// Gone when it was never used.
    gate: Option<Arc<Gate>>,
    side: Side,
}

impl Place {
    /// The request was answered.
    pub(super) fn succeeded(&self, now: Duration) {
        if let Some(gate) = &self.gate {
            gate.0.lock().window.succeeded(now);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            gate.leave(self.side);
        }
    }
}

impl State {
    fn admits(&self, side: Side) -> bool {
        let (own, other) = match side {
            Side::Foreground => (&self.foreground, &self.background),
            Side::Background => (&self.background, &self.foreground),
        };
        own.is_empty() && self.window.admits(side, !other.is_empty())
    }

    /// The next who may go, if anyone may.
    fn next(&mut self) -> Option<(Side, oneshot::Sender<Place>)> {
        // Who was cancelled while waiting needs no place, and keeps none from others.
        while self.foreground.front().is_some_and(oneshot::Sender::is_closed) {
            self.foreground.pop_front();
        }
        while self.background.front().is_some_and(oneshot::Sender::is_closed) {
            self.background.pop_front();
        }
        let waits = (!self.foreground.is_empty(), !self.background.is_empty());
        if waits.0 && self.window.admits(Side::Foreground, waits.1) {
            return self.foreground.pop_front().map(|waiter| (Side::Foreground, waiter));
        }
        if waits.1 && self.window.admits(Side::Background, waits.0) {
            return self.background.pop_front().map(|waiter| (Side::Background, waiter));
        }
        None
    }
}

impl Gate {
    /// Waits for a place.
    pub(super) async fn enter(self: &Arc<Self>, side: Side) -> Place {
        let waiting = {
            let mut state = self.0.lock();
            if state.admits(side) {
                state.window.enter(side);
                return Place { gate: Some(self.clone()), side };
            }
            state.waited += 1;
            let (send, receive) = oneshot::channel();
            match side {
                Side::Foreground => state.foreground.push_back(send),
                Side::Background => state.background.push_back(send),
            }
            receive
        };
        // The gate lives as long as this: the sender is dropped only with it.
        waiting.await.unwrap_or(Place { gate: None, side })
    }

    /// A place, if there is one that nobody waits for and the bucket is not strained.
    pub(super) fn try_enter(self: &Arc<Self>, side: Side, now: Duration) -> Option<Place> {
        let mut state = self.0.lock();
        if !state.admits(side) || state.window.is_strained(now) {
            return None;
        }
        state.window.enter(side);
        Some(Place { gate: Some(self.clone()), side })
    }

    /// The bucket throttled a request; whether fewer may be in flight for it.
    pub(super) fn throttled(&self, now: Duration) -> bool {
        let mut state = self.0.lock();
        state.throttled += 1;
        state.window.throttled(now)
    }

    pub(super) fn figures(&self) -> Figures {
        let state = self.0.lock();
        Figures {
            limit: state.window.limit(),
            in_flight: state.window.in_flight(),
            waiting: state.foreground.len() + state.background.len(),
            waited: state.waited,
            throttled: state.throttled,
        }
    }

    fn leave(self: Arc<Self>, side: Side) {
        let mut state = self.0.lock();
        state.window.leave(side);
        while let Some((side, waiter)) = state.next() {
            state.window.enter(side);
            if let Err(mut place) = waiter.send(Place { gate: Some(self.clone()), side }) {
                // Cancelled at this moment; dropping the place here would lock again.
                place.gate = None;
                state.window.leave(side);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn filled() -> (Arc<Gate>, Vec<Place>) {
        let gate = Arc::new(Gate::default());
        for second in 0..3 {
            assert!(gate.throttled(Duration::from_secs(second)));
        }
        assert_eq!(gate.figures().limit, 8);
        let places = (0..8).map(|_| gate.enter(Side::Foreground).now_or_never().unwrap()).collect();
        (gate, places)
    }

    #[test]
    fn who_waits_goes_on_in_turn_foreground_first() {
        let (gate, mut places) = filled();
        let mut waiters = [Side::Background, Side::Background, Side::Foreground].map(|side| Box::pin(gate.enter(side)));
        assert!(waiters.iter_mut().all(|waiter| waiter.as_mut().now_or_never().is_none()));
        assert_eq!((gate.figures().in_flight, gate.figures().waiting, gate.figures().waited), (8, 3, 3));
        // One of eight is kept for background, which has none.
        places.pop();
        let [first, second, reader] = &mut waiters;
        let first = first.as_mut().now_or_never().unwrap();
        assert!(reader.as_mut().now_or_never().is_none());
        places.pop();
        let reader = reader.as_mut().now_or_never().unwrap();
        assert!(second.as_mut().now_or_never().is_none());
        places.pop();
        drop((second.as_mut().now_or_never().unwrap(), first, reader, places));
        assert_eq!((gate.figures().in_flight, gate.figures().waiting), (0, 0));
    }

    #[test]
    fn who_is_cancelled_takes_no_place_with_it() {
        let (gate, mut places) = filled();
        let mut cancelled = Box::pin(gate.enter(Side::Foreground));
        let mut given = Box::pin(gate.enter(Side::Foreground));
        let mut last = Box::pin(gate.enter(Side::Foreground));
        for waiter in [&mut cancelled, &mut given, &mut last] {
            assert!(waiter.as_mut().now_or_never().is_none());
        }
        drop(cancelled);
        places.pop();
        // It has its place and does not know yet.
        drop(given);
        drop(last.as_mut().now_or_never().expect("the place of the one that was cancelled"));
        drop(places);
        assert_eq!((gate.figures().in_flight, gate.figures().waiting), (0, 0));
    }

    #[test]
    fn nobody_tries_past_those_who_wait_or_while_the_bucket_is_strained() {
        let gate = Arc::new(Gate::default());
        assert!(gate.try_enter(Side::Foreground, Duration::ZERO).is_some());
        gate.throttled(Duration::from_secs(1));
        assert!(gate.try_enter(Side::Foreground, Duration::from_secs(2)).is_none());
        assert!(gate.try_enter(Side::Foreground, Duration::from_secs(20)).is_some());
        assert_eq!(gate.figures().throttled, 1);
    }
}
