//! Owns admission to the NVMe tier: which records are worth a device write. Pure.

use crate::nvme::slot;

/// Bytes that may wait for the NVMe writer. Beyond it records are not stored: a cache never makes its user wait.
pub(crate) const QUEUE_BYTES: usize = 8 << 20;

/// Why a record asks for a place on NVMe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It was just fetched from the origin.
    Fetched,
    /// It replaces what the key had: the cache's user inserted it, or it was fetched in place of an expired record.
    Inserted,
}

/// What to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Store,
    /// Nothing to do: it is there already.
    Present,
    /// Not stored, and counted.
    Reject,
}

/// Decides on one record of `len` bytes.
pub(crate) fn admit(cause: Cause, len: usize, present: bool, queued_bytes: usize) -> Verdict {
    if present && cause == Cause::Fetched {
        Verdict::Present
    } else if slot::blocks_for(len).is_none() || queued_bytes + len > QUEUE_BYTES {
        Verdict::Reject
    } else {
        Verdict::Store
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        assert_eq!(admit(Cause::Fetched, 100, false, 0), Verdict::Store);
        assert_eq!(admit(Cause::Fetched, 100, true, 0), Verdict::Present);
        assert_eq!(admit(Cause::Inserted, 100, true, 0), Verdict::Store);
        assert_eq!(admit(Cause::Inserted, slot::MAX_PAYLOAD + 1, false, 0), Verdict::Reject);
        assert_eq!(admit(Cause::Fetched, 100, false, QUEUE_BYTES - 99), Verdict::Reject);
        assert_eq!(admit(Cause::Fetched, 100, false, QUEUE_BYTES - 100), Verdict::Store);
    }
}
