//! One request: counted, under its deadline, learned from; and the pause before it is made again.

use std::time::Duration;

use super::{Answer, Cause, Failure, Kind, Store, budget::Class, gate::Place, window::Side};
use crate::error::{Error, Result};

/// A request that is dropped unanswered after so long counts as a failure.
const GIVEN_UP: Duration = Duration::from_secs(2);

/// What one request is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) kind: Kind,
    pub(super) cause: Cause,
    /// Bytes of the body that is sent or expected.
    pub(super) bytes: u64,
    /// Requests that were made before it for the same purpose.
    pub(super) attempt: u32,
}

impl Ask {
    /// Whether a reader waits for it.
    pub(super) fn is_foreground(self) -> bool {
        self.kind == Kind::Get && self.cause.is_foreground()
    }

    /// How long it can wait. Commits wait for the owner record.
    fn class(self) -> Class {
        match self.cause {
            Cause::Page | Cause::Tail | Cause::Owner | Cause::Probe => Class::Foreground,
            Cause::Manifest if self.kind == Kind::Get => Class::Foreground,
            Cause::Manifest | Cause::Flush | Cause::Archive | Cause::Check | Cause::Spill => Class::Durable,
            Cause::Compaction | Cause::Warm => Class::Compaction,
            Cause::Gc => Class::Garbage,
        }
    }
}

/// A request under way. Whoever gives it up after a while has learned something as well.
struct Sent<'a> {
    store: &'a Store,
    at: Duration,
    answered: bool,
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if !self.answered && self.store.clock().now().saturating_sub(self.at) >= GIVEN_UP {
            self.store.learn::<()>(self.at, &Err(Failure::Transient("no answer in time".to_owned())));
        }
    }
}

impl Store {
    /// One counted request under its deadline, once the budget has room and the gate a place for it.
    pub(super) async fn request<T>(&self, ask: Ask, answer: Answer<'_, T>) -> Result<T, Failure> {
        let class = ask.class();
        let dollars = self.0.options.limits.prices.request(ask.kind);
        self.0.governor.admit(&**self.clock(), class, dollars).await;
        let side = if class == Class::Foreground { Side::Foreground } else { Side::Background };
        let place = match &self.0.gate {
            Some(gate) => Some(gate.enter(side).await),
            None => None,
        };
        self.request_at(ask, answer, place).await
    }

    /// As [`Self::request`], by someone who has a place or needs none.
    pub(super) async fn request_at<T>(
        &self,
        ask: Ask,
        answer: Answer<'_, T>,
        place: Option<Place>,
    ) -> Result<T, Failure> {
        let Ask { kind, cause, bytes, .. } = ask;
        let (patience, counts) = (self.patience(ask), &self.0.counts);
        counts.add_request(kind, cause);
        if kind == Kind::Put {
            counts.add_bytes(kind, cause, bytes);
        }
        let mut sent = Sent { store: self, at: self.clock().now(), answered: false };
        let answer = match tokio::time::timeout(patience, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Transient(format!("no answer within {patience:?}"))),
        };
        sent.answered = true;
        self.learn(sent.at, &answer);
        let (now, failed) = (self.clock().now(), !matches!(answer, Ok(_) | Err(Failure::NotFound | Failure::Exists)));
        if let (Err(Failure::Throttled(why)), Some(gate)) = (&answer, &self.0.gate)
            && gate.throttled(now)
        {
            let most = gate.figures().limit;
            tracing::debug!(store = self.url(), why, most, "the bucket throttles: fewer requests in flight");
        }
        if failed {
            counts.add_error(kind, cause);
        } else if let Some(place) = &place {
            place.succeeded(now);
        }
        answer
    }

    /// How long the request may take.
    fn patience(&self, ask: Ask) -> Duration {
        let first = self.0.options.retry.first_timeout;
        let first = match self.0.options.limits.read_timeout {
            // So that there is time for a second attempt.
            Some(bound) if ask.is_foreground() => first.min(bound / 3),
            _ => first,
        };
        (first + Duration::from_micros(ask.bytes)) * 2u32.pow(ask.attempt.min(5))
    }

    /// Waits before the next attempt, or gives up with the error that the caller gets.
    pub(super) async fn pause(&self, key: &str, attempt: u32, failure: Failure) -> Result<()> {
        let retry = &self.0.options.retry;
        let at = format!("{}/{key}", self.url());
        match failure {
            Failure::Transient(_) | Failure::Throttled(_) | Failure::Exists if attempt + 1 < retry.attempts => {
                let pause = (retry.first_pause * 2u32.pow(attempt.min(10))).min(retry.pause_max);
                // Jitter, so that clients that failed together do not return together.
                let jitter = (self.0.options.entropy.next_u64() >> 32) as u32;
                let pause = pause / 2 + (pause / 2).mul_f64(f64::from(jitter) / f64::from(u32::MAX));
                // One failure or two are everyday; a third in a row is worth a line, and who gives up says so.
                match attempt {
                    2 => tracing::warn!(%at, %failure, "a store request failed three times, trying on"),
                    _ => tracing::debug!(%at, attempt, %failure, ?pause, "store request failed, trying again"),
                }
                tokio::time::sleep(pause).await;
                Ok(())
            }
            Failure::Transient(why) | Failure::Throttled(why) => {
                Err(Error::Retry(format!("{at}: {why} (after {} attempts)", attempt + 1)))
            }
            Failure::Denied(why) => Err(Error::Store(format!("{at}: access denied: {why}"))),
            Failure::NoBucket(why) => Err(Error::Store(format!("{}: the bucket does not exist: {why}", self.url()))),
            failure => Err(Error::Store(format!("{at}: {failure}"))),
        }
    }
}
