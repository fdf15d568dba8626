//! Owns the path of a read: RAM, then one flight per key that tries NVMe and the origin, and what expired in between.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    Answer, Error, Freshness, Key, Origin, OriginError, Shared, Stats,
    admit::Cause,
    flight::{Joined, Ticket},
    nvme::Record,
    ram::Found,
    ttl::Deadline,
};

impl Answer {
    fn new(bytes: Bytes, past: Option<Duration>) -> Self {
        Self { bytes, freshness: past.map_or(Freshness::Fresh, |past| Freshness::Stale { past }) }
    }
}

impl Shared {
    pub(crate) async fn get(shared: &Arc<Self>, key: Key, origin: &Arc<dyn Origin>) -> Result<Answer, Error> {
        let answer = match shared.look(&key) {
            Found::Hit(bytes) => return Ok(Answer::new(bytes, None)),
            Found::Stale(bytes, past) if shared.expiry.serves_while_revalidating(past) => {
                Answer::new(bytes, Some(past))
            }
            _ => Self::join(shared, key, origin).await?,
        };
        if let Freshness::Stale { past } = answer.freshness {
            if shared.expiry.serves_while_revalidating(past) {
                shared.counters.stale_hits.add(1);
                Self::refresh(shared, key, origin);
            } else {
                shared.counters.stale_on_error.add(1);
            }
        }
        Ok(answer)
    }

    pub(crate) fn peek(&self, key: &Key) -> Option<Bytes> {
        match self.look(key) {
            Found::Hit(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn look(&self, key: &Key) -> Found {
        let found = self.ram.get(key, || self.clock.now());
        match &found {
            Found::Hit(_) => self.counters.ram_hits.add(1),
            Found::Expired => self.counters.expired.add(1),
            Found::Stale(..) | Found::Miss => {}
        }
        found
    }

    /// Joins the flight of `key`, or starts it.
    async fn join(shared: &Arc<Self>, key: Key, origin: &Arc<dyn Origin>) -> Result<Answer, Error> {
        shared.counters.ram_misses.add(1);
        let recheck = || shared.peek(&key).map(|bytes| Answer::new(bytes, None));
        let fetch = |ticket| Self::fetch(shared.clone(), key, origin.clone(), ticket);
        match shared.flights.join(key, recheck, fetch) {
            Joined::Ready(answer) => Ok(answer),
            Joined::Leads(waiter) => waiter.answer().await,
            Joined::Waits(waiter) => {
                shared.counters.coalesced.add(1);
                waiter.answer().await
            }
        }
    }

    /// Replaces an expired record in the background, unless that is under way or failed a moment ago.
    fn refresh(shared: &Arc<Self>, key: Key, origin: &Arc<dyn Origin>) {
        if shared.failures.withholds(&key, true, || shared.clock.now()).is_some() {
            return;
        }
        let recheck = || match shared.ram.get(&key, || shared.clock.now()) {
            Found::Hit(bytes) => Some(Answer::new(bytes, None)),
            _ => None,
        };
        let fetch = |ticket| Self::fetch_behind(shared.clone(), key, origin.clone(), ticket);
        // Nobody waits: whoever joins has a claim of its own.
        drop(shared.flights.join(key, recheck, fetch));
    }

    /// What the flight of a read does: the tiers below RAM, in order.
    async fn fetch(self: Arc<Self>, key: Key, origin: Arc<dyn Origin>, ticket: Arc<Ticket>) -> Result<Answer, Error> {
        let record = self.read_nvme(key).await;
        if let Some(record) = &record
            && record.past.is_none_or(|past| self.expiry.serves_while_revalidating(past))
        {
            let bytes = Bytes::copy_from_slice(record.payload());
            self.flights.store(&key, &ticket, || self.ram.insert(key, bytes.clone(), record.deadline));
            return Ok(Answer::new(bytes, record.past));
        }
        let cause = if record.is_some() { Cause::Inserted } else { Cause::Fetched };
        let spare = self.spare(&key, record);
        match self.failures.withholds(&key, spare.is_some(), || self.clock.now()) {
            Some(error) => {
                self.counters.fetches_withheld.add(1);
                spare.ok_or(Error::Origin(error))
            }
            None => match self.ask(key, &origin, &ticket, cause).await {
                Ok(bytes) => Ok(Answer::new(bytes, None)),
                Err(error) => spare.ok_or(Error::Origin(error)),
            },
        }
    }

    /// What the flight of a refresh does. Readers may have joined it that have no expired record to go on with.
    async fn fetch_behind(
        self: Arc<Self>,
        key: Key,
        origin: Arc<dyn Origin>,
        ticket: Arc<Ticket>,
    ) -> Result<Answer, Error> {
        self.counters.refreshes.add(1);
        match self.ask(key, &origin, &ticket, Cause::Inserted).await {
            Ok(bytes) => Ok(Answer::new(bytes, None)),
            Err(error) => {
                self.counters.refresh_errors.add(1);
                let record = self.read_nvme(key).await;
                self.spare(&key, record).ok_or(Error::Origin(error))
            }
        }
    }

    /// Fetches a record and stores it.
    async fn ask(
        &self,
        key: Key,
        origin: &Arc<dyn Origin>,
        ticket: &Ticket,
        cause: Cause,
    ) -> Result<Bytes, OriginError> {
        self.counters.fetches.add(1);
        let fetched = origin.fetch(key).await.inspect_err(|error| {
            self.counters.fetch_errors.add(1);
            self.flights.store(&key, ticket, || self.failures.note(key, error.clone(), self.clock.now()));
        })?;
        self.counters.fetched_bytes.add(fetched.len() as u64);
        // What was fetched may be a slice of a larger buffer, which must not live as long.
        let bytes = Bytes::copy_from_slice(&fetched);
        self.flights.store(&key, ticket, || {
            self.failures.clear(&key);
            let deadline = self.deadline(&key);
            self.ram.insert(key, bytes.clone(), deadline);
            if let Some(nvme) = &self.nvme {
                nvme.offer(key, bytes.clone(), deadline, cause);
            }
        });
        Ok(bytes)
    }

    /// The expired record that may be served if the origin fails: from RAM, or the one read from NVMe.
    fn spare(&self, key: &Key, record: Option<Record>) -> Option<Answer> {
        let in_ram = match self.ram.get(key, || self.clock.now()) {
            Found::Hit(bytes) => Some((bytes, None)),
            Found::Stale(bytes, past) => Some((bytes, Some(past))),
            Found::Expired | Found::Miss => None,
        };
        let on_nvme = || record.map(|record| (Bytes::copy_from_slice(record.payload()), record.past));
        // The tiers keep nothing past its windows.
        let (bytes, past) = in_ram.or_else(on_nvme)?;
        Some(Answer::new(bytes, past))
    }

    async fn read_nvme(&self, key: Key) -> Option<Record> {
        self.nvme.as_ref()?.read(key).await
    }

    pub(crate) fn deadline(&self, key: &Key) -> Deadline {
        self.expiry.deadline(key, || self.clock.now())
    }

    pub(crate) fn stats(&self) -> Stats {
        let counters = &self.counters;
        let mut stats = Stats {
            ram_hits: counters.ram_hits.total(),
            ram_misses: counters.ram_misses.total(),
            coalesced_waits: counters.coalesced.total(),
            fetches: counters.fetches.total(),
            fetch_errors: counters.fetch_errors.total(),
            fetched_bytes: counters.fetched_bytes.total(),
            fetches_withheld: counters.fetches_withheld.total(),
            refreshes: counters.refreshes.total(),
            refresh_errors: counters.refresh_errors.total(),
            stale_hits: counters.stale_hits.total(),
            stale_on_error: counters.stale_on_error.total(),
            expired: counters.expired.total(),
            ram_bytes: self.ram.bytes(),
            ram_capacity: self.ram.capacity(),
            ram_entries: self.ram.entries(),
            ram_evictions: self.ram.evictions(),
            ..Stats::default()
        };
        if let Some(nvme) = &self.nvme {
            nvme.fill_stats(&mut stats);
        }
        stats
    }
}
