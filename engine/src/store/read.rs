//! Reads of objects. A reader that waits for one has a bound, whatever the attempts, and hears at once of a bucket that is
//! known to be down.

use std::{ops::Range, pin::pin};

use futures::future::Either;

use super::{Cause, Down, Failure, Got, Inner, Kind, Store, gate::Place, request::Ask, window::Side};
use crate::error::{Error, Result};

impl Store {
    /// Reads an object or a range of it, whose length is `len`, if it is there.
    pub(super) async fn get_if_there(
        &self,
        key: &str,
        range: Option<Range<u64>>,
        len: u64,
        cause: Cause,
    ) -> Result<Option<Got>> {
        if !cause.is_foreground() {
            return self.get_patiently(key, range, len, cause).await;
        }
        tokio::select! {
            biased;
            got = self.get_patiently(key, range, len, cause) => got,
            error = self.patience_ends(key) => Err(error),
        }
    }

    /// As many attempts as the retry policy has.
    async fn get_patiently(&self, key: &str, range: Option<Range<u64>>, len: u64, cause: Cause) -> Result<Option<Got>> {
        for attempt in 0.. {
            if cause.is_foreground() {
                self.0.outage.is_up().await;
            }
            let ask = Ask { kind: Kind::Get, cause, bytes: len, attempt };
            match self.attempt(ask, key, range.clone()).await {
                Ok(got) => {
                    self.0.counts.add_bytes(Kind::Get, cause, got.bytes.len() as u64);
                    return Ok(Some(got));
                }
                Err(Failure::NotFound) => return Ok(None),
                Err(failure) => self.pause(key, attempt, failure).await?,
            }
        }
        unreachable!("pause ends the attempts")
    }

    /// One attempt. If a page that a reader waits for is late, it is asked for once more, and the first answer counts.
    async fn attempt(&self, ask: Ask, key: &str, range: Option<Range<u64>>) -> Result<Got, Failure> {
        let hedges = &self.0.hedges;
        let first = self.request(ask, self.0.bucket.get(key, range.clone()));
        if !matches!(ask.cause, Cause::Page | Cause::Tail) {
            return first.await;
        }
        let (began, delay) = (self.clock().now(), hedges.begin(ask.bytes));
        let mut first = pin!(first);
        let in_time = match delay {
            Some(delay) => tokio::time::timeout(delay, first.as_mut()).await.ok(),
            None => Some(first.as_mut().await),
        };
        let answer = match in_time {
            Some(answer) => answer,
            None => match self.place_for_hedge() {
                None => first.await,
                Some(place) => {
                    let second = pin!(self.request_at(ask, self.0.bucket.get(key, range), Some(place)));
                    match futures::future::select(first, second).await {
                        Either::Left((Err(failure), second)) if failure != Failure::NotFound => second.await,
                        Either::Right((Err(failure), first)) if failure != Failure::NotFound => first.await,
                        Either::Left((answer, _)) => answer,
                        Either::Right((answer, _)) => {
                            hedges.won();
                            answer
                        }
                    }
                }
            },
        };
        if answer.is_ok() {
            hedges.answered(ask.bytes, self.clock().now().saturating_sub(began));
        }
        answer
    }

    /// A place for a second request, if there is room for what nobody needs, and the share of such requests is not used up.
    fn place_for_hedge(&self) -> Option<Place> {
        let Inner { gate, governor, hedges, options, .. } = &*self.0;
        let place = gate.as_ref()?.try_enter(Side::Foreground, self.clock().now())?;
        if !governor.has_plenty() || !hedges.spend() {
            return None;
        }
        governor.take(options.limits.prices.request(Kind::Get));
        Some(place)
    }

    /// Ends with what a foreground read is told: when it has taken too long, or a moment after it is known that the bucket
    /// is down.
    async fn patience_ends(&self, key: &str) -> Error {
        let bound = async {
            match self.0.options.limits.read_timeout {
                Some(bound) => tokio::time::sleep(bound).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.0.outage.is_hopeless() => {}
            () = bound => {}
        }
        let at = format!("{}/{key}", self.url());
        match self.down() {
            Some(down) => self.fails_fast(&at, &down),
            None => {
                let bound = self.0.options.limits.read_timeout.unwrap_or_default();
                Error::Retry(format!("{at}: no answer within {bound:?}; what is cached can still be read"))
            }
        }
    }

    fn fails_fast(&self, at: &str, down: &Down) -> Error {
        self.0.outage.note_failed_fast();
        Error::Retry(format!("{at}: {down}"))
    }
}
