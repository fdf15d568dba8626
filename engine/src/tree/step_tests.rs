//! A compaction of much data is many steps.

use std::collections::BTreeSet;

use super::*;

/// Else the cache would need room for the old pages and the new ones.
#[test]
fn fresh_runs_are_merged_a_part_at_a_time() {
    block_on(async {
        let store = Store::open("memory:///", store_options()).unwrap();
        let options = TreeOptions { codec: Codec::Raw, level_bytes: 1 << 20, ..small_options() };
        let tree = Tree::open(store, cache(1 << 20), options, None).await.unwrap();
        let mut model = Model::default();
        for round in 0..3u8 {
            (0..400).for_each(|n| model.write(key(n), Some(vec![round; 40])));
            let draft = tree.flush(model.flush_input(tree.version().manifest().id)).await.unwrap();
            install(&tree, &draft).await;
            drop(draft);
            if round == 0 {
                settle(&tree, &model).await;
            }
        }
        model.floor = CommitSeq::end_of(model.index).0;
        let objects = || tree.version().manifest().objects().map(|object| object.id).collect::<BTreeSet<_>>();
        let mut steps = 0;
        loop {
            let before = objects();
            let Some(draft) = tree.compact(1, CommitSeq(model.floor)).await.unwrap() else { break };
            install(&tree, &draft).await;
            steps += 1;
            if steps == 1 {
                let gone = before.difference(&objects()).count();
                assert!(gone * 4 <= before.len(), "{gone} objects of {} were merged at once", before.len());
            }
            check(&tree, &model, model.index).await;
        }
        assert!(steps >= 5, "{steps} steps");
        assert_eq!(tree.stats().fresh_runs, 0);
    });
}
