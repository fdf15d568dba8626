//! How transactions that their callers named have ended (rule 12): replicated, and bounded by age and number.
//!
//! A caller that lost the answer to a commit asks for it by the id, or commits again under the same id: the first
//! outcome counts. Ids that nobody knows can't be asked for, so only named transactions are kept.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    error::{Error, Result},
    format::state::TxnOutcome,
    inner::Inner,
    limits::OUTCOMES_MAX,
    types::CommitSeq,
};

/// Outcomes older than this, by commit time, are forgotten.
const AGE_MILLIS: u64 = 15 * 60 * 1000;
/// Set in the ids that callers gave.
const NAMED: u128 = 1 << 127;

/// What became of a transaction, by the id that its caller gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxnStatus {
    /// It is committed; the commit token is for [`crate::Db::wait_for_commit`].
    Committed {
        /// Everything up to it includes the transaction.
        token: u64,
    },
    /// It was rejected, and wrote nothing.
    Rejected,
    /// No transaction of this id has ended within the last 15 minutes and the last 65,536 named ones. A commit that a
    /// leader before this one was asked for can't happen any more; commit again under the same id.
    NotFound,
}

/// The id of a transaction that its caller named.
pub(crate) fn named(id: u128) -> u128 {
    id | NAMED
}

/// Whether the id was given by a caller.
pub(crate) fn is_named(txn: u128) -> bool {
    txn & NAMED != 0
}

/// The id of a transaction that nobody will ask for.
pub(crate) fn unnamed(random: u128) -> u128 {
    random & !NAMED
}

/// The last outcomes of named transactions.
#[derive(Default)]
pub(crate) struct Outcomes {
    /// Oldest first.
    kept: VecDeque<TxnOutcome>,
    known: FxHashMap<u128, CommitSeq>,
}

impl Outcomes {
    /// These, oldest first.
    pub(crate) fn new(kept: Vec<TxnOutcome>) -> Self {
        Self { known: kept.iter().map(|outcome| (outcome.txn, outcome.seq)).collect(), kept: kept.into() }
    }

    /// All of them, oldest first.
    pub(crate) fn list(&self) -> Vec<TxnOutcome> {
        self.kept.iter().copied().collect()
    }

    /// The commit number of a transaction; zero if it was rejected.
    pub(crate) fn find(&self, txn: u128) -> Option<CommitSeq> {
        self.known.get(&txn).copied()
    }

    /// Keeps an outcome, if its transaction was named, and forgets what is too old by then.
    pub(crate) fn note(&mut self, outcome: TxnOutcome) {
        if !is_named(outcome.txn) {
            return;
        }
        self.known.insert(outcome.txn, outcome.seq);
        self.kept.push_back(outcome);
        while self.kept.len() > OUTCOMES_MAX
            || self.kept.front().is_some_and(|first| first.time + AGE_MILLIS < outcome.time)
        {
            let Some(first) = self.kept.pop_front() else { break };
            self.known.remove(&first.txn);
        }
    }
}

/// Named transactions whose commit is under way on this node.
#[derive(Default)]
pub(crate) struct UnderWay(Mutex<FxHashSet<u128>>);

impl UnderWay {
    /// Whether a commit under this id is under way.
    pub(crate) fn contains(&self, txn: u128) -> bool {
        self.0.lock().contains(&txn)
    }
}

/// A commit's claim to its id. Until it is dropped no other starts under the same: parts of two big batches would mix.
pub(crate) struct Claim {
    inner: Arc<Inner>,
    txn: u128,
}

impl Claim {
    /// Claims the id.
    ///
    /// # Errors
    /// `Retry` while another commit has it.
    pub(crate) fn take(inner: &Arc<Inner>, txn: u128) -> Result<Self> {
        if inner.under_way.0.lock().insert(txn) {
            return Ok(Self { inner: Arc::clone(inner), txn });
        }
        Err(Error::Retry("a commit under the same transaction id is under way".into()))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.inner.under_way.0.lock().remove(&self.txn);
    }
}

/// The error of a commit under an id whose first transaction was rejected.
pub(crate) fn rejected_before() -> Error {
    Error::Conflict("the commit was rejected: a transaction of the same id was rejected before".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(txn: u128, time: u64) -> TxnOutcome {
        TxnOutcome { txn, time, seq: CommitSeq(time) }
    }

    #[test]
    fn only_named_ones_are_kept_and_old_ones_go() {
        let mut outcomes = Outcomes::default();
        outcomes.note(outcome(unnamed(u128::MAX), 5));
        assert_eq!((outcomes.list().len(), outcomes.find(unnamed(u128::MAX))), (0, None));
        outcomes.note(outcome(named(7), 1000));
        outcomes.note(outcome(named(8), 1000 + AGE_MILLIS));
        assert_eq!(outcomes.find(named(7)), Some(CommitSeq(1000)));
        outcomes.note(outcome(named(9), 1001 + AGE_MILLIS));
        assert_eq!((outcomes.find(named(7)), outcomes.find(named(8)).is_some()), (None, true));
        let again = Outcomes::new(outcomes.list());
        assert_eq!((again.list(), again.find(named(9))), (outcomes.list(), outcomes.find(named(9))));
    }

    #[test]
    fn their_number_is_bounded() {
        let mut outcomes = Outcomes::default();
        (0..=OUTCOMES_MAX as u128).for_each(|id| outcomes.note(outcome(named(id), 1)));
        assert_eq!((outcomes.list().len(), outcomes.known.len()), (OUTCOMES_MAX, OUTCOMES_MAX));
        assert_eq!((outcomes.find(named(0)), outcomes.find(named(1))), (None, Some(CommitSeq(1))));
    }
}
