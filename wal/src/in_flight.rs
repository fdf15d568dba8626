//! The bounds on proposals in flight.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{Error, Limits, Result};

/// What is proposed and not yet answered.
#[derive(Default)]
pub(crate) struct InFlight {
    proposals: AtomicU64,
    bytes: AtomicU64,
}

impl InFlight {
    /// How many proposals.
    pub(crate) fn proposals(&self) -> u64 {
        self.proposals.load(Ordering::Relaxed)
    }
}

/// A proposal's share of the bounds; given back when it has its answer.
pub(crate) struct Share {
    of: Arc<InFlight>,
    bytes: u64,
}

impl Share {
    /// Takes a share, or says which bound it would break.
    pub(crate) fn take(of: &Arc<InFlight>, bytes: u64, limits: &Limits) -> Result<Self> {
        let share = Self { of: of.clone(), bytes };
        let proposals = of.proposals.fetch_add(1, Ordering::Relaxed) + 1;
        let all = of.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // A refused share gives itself back on drop.
        if proposals > limits.proposals {
            return Err(Error::Busy { what: "proposals", limit: limits.proposals });
        }
        if all > limits.bytes {
            return Err(Error::Busy { what: "bytes of proposals", limit: limits.bytes });
        }
        Ok(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.proposals.fetch_sub(1, Ordering::Relaxed);
        self.of.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
