//! Who waits for whom. Only transactions that wait have edges, so any cycle is a deadlock.

use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use super::Owner;

/// The wait-for graph.
#[derive(Default)]
pub struct WaitGraph {
    edges: FxHashMap<Owner, SmallVec<[Owner; 4]>>,
}

impl WaitGraph {
    /// `owner` waits for all of `blockers`.
    pub fn block(&mut self, owner: Owner, blockers: SmallVec<[Owner; 4]>) {
        self.edges.insert(owner, blockers);
    }

    /// `owner` no longer waits.
    pub fn unblock(&mut self, owner: Owner) {
        self.edges.remove(&owner);
    }

    /// Whether `owner` waits for itself, over any number of others.
    pub fn closes_cycle(&self, owner: Owner) -> bool {
        let mut seen = FxHashSet::default();
        let mut stack: SmallVec<[Owner; 16]> = SmallVec::new();
        stack.push(owner);
        while let Some(next) = stack.pop() {
            for blocker in self.edges.get(&next).into_iter().flatten() {
                if *blocker == owner {
                    return true;
                }
                if seen.insert(*blocker) {
                    stack.push(*blocker);
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;

    #[test]
    fn cycles_of_any_length_are_found_and_chains_are_not() {
        let mut graph = WaitGraph::default();
        graph.block(1, smallvec![2]);
        graph.block(2, smallvec![3, 4]);
        assert!(!graph.closes_cycle(1) && !graph.closes_cycle(2));
        graph.block(4, smallvec![1]);
        assert!(graph.closes_cycle(4) && graph.closes_cycle(1));
        graph.unblock(2);
        assert!(!graph.closes_cycle(4));
    }
}
