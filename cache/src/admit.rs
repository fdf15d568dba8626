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

/// What the tier knows when a record asks for a place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances {
    /// A record of the key is there, or on its way.
    pub(crate) present: bool,
    /// Bytes that wait for the writer.
    pub(crate) queued_bytes: usize,
    /// Whether the record must push others out, and was not fetched before of late: a scan that reads each once changes
    /// nothing.
    pub(crate) first_time: bool,
}

/// What to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Store,
    /// Nothing to do: it is there already.
    Present,
    /// Not stored: it would push out something worth more, most likely.
    Decline,
    /// Not stored, because it can't be.
    Reject,
}

/// Decides on one record of `len` bytes.
pub(crate) fn admit(cause: Cause, len: usize, now: Circumstances) -> Verdict {
    let fetched = cause == Cause::Fetched;
    if fetched && now.present {
        Verdict::Present
    } else if fetched && now.first_time {
        Verdict::Decline
    } else if slot::units_for(len).is_none() || now.queued_bytes + len > QUEUE_BYTES {
        Verdict::Reject
    } else {
        Verdict::Store
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Circumstances = Circumstances { present: false, queued_bytes: 0, first_time: false };

    #[test]
    fn verdicts() {
        let present = Circumstances { present: true, ..FREE };
        let queued = |queued_bytes| Circumstances { queued_bytes, ..FREE };
        let first = Circumstances { first_time: true, ..FREE };
        assert_eq!(admit(Cause::Fetched, 100, FREE), Verdict::Store);
        assert_eq!(admit(Cause::Fetched, 100, present), Verdict::Present);
        assert_eq!(admit(Cause::Inserted, 100, present), Verdict::Store);
        assert_eq!(admit(Cause::Inserted, slot::MAX_PAYLOAD + 1, FREE), Verdict::Reject);
        assert_eq!(admit(Cause::Fetched, 100, queued(QUEUE_BYTES - 99)), Verdict::Reject);
        assert_eq!(admit(Cause::Fetched, 100, queued(QUEUE_BYTES - 100)), Verdict::Store);
        assert_eq!(admit(Cause::Fetched, 100, first), Verdict::Decline);
        assert_eq!(admit(Cause::Inserted, 100, first), Verdict::Store);
    }
}
