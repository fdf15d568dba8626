//! Checks what is stored, from the manifest down to every entry of every page (`admin fsck`). Reads past the cache.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    format::{
        manifest::ManifestId,
        object::{self, Tail},
        page::{self, Cell, Leaf},
    },
    store::Cause,
    table::Table,
    tree::{Tree, read_manifest},
    types::CommitSeq,
};

/// Pages read in one request.
const PAGES_PER_READ: u32 = 64;
/// Faults described; the rest are counted.
const FAULTS_MAX: usize = 100;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Objects read.
    pub objects: u64,
    /// Pages read and verified.
    pub pages: u64,
    /// Entries read and found in order.
    pub entries: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Faults found.
    pub faults: u64,
    /// The first of them, each with its object and page.
    pub details: Vec<String>,
}

impl CheckReport {
    fn fault(&mut self, what: String) {
        self.faults += 1;
        if self.details.len() < FAULTS_MAX {
            self.details.push(what);
        }
    }
}

impl Tree {
    /// Reads everything in force and checks it. Corruption and missing objects are faults in the report; an error means
    /// that the check could not go on.
    pub async fn check(&self) -> Result<CheckReport> {
        let version = self.version();
        let mut report = CheckReport::default();
        if version.manifest().id != ManifestId::default() {
            let inner = self.inner();
            match read_manifest(&inner.io, &inner.options.owner, version.manifest().id).await {
                Ok(stored) if stored != **version.manifest() => {
                    report.fault(format!("manifest {} differs from the one in memory", stored.id));
                }
                Ok(_) => {}
                Err(error) => note(&mut report, error)?,
            }
        }
        for table in version.tables() {
            report.objects += 1;
            report.bytes += table.meta.bytes;
            if let Err(error) = check_table(table, &mut report).await {
                note(&mut report, error)?;
            }
        }
        Ok(report)
    }
}

/// Corruption and loss are what a check looks for; anything else ends it.
fn note(report: &mut CheckReport, error: Error) -> Result<()> {
    match error {
        Error::Corrupt(why) | Error::Store(why) => {
            report.fault(why);
            Ok(())
        }
        error => Err(error),
    }
}

/// The order of entries, carried from page to page.
struct Walk {
    last: Option<(Vec<u8>, CommitSeq)>,
    entries: u64,
    tombstones: u64,
}

pub(crate) async fn check_table(table: &Arc<Table>, report: &mut CheckReport) -> Result<()> {
    let tail = table.read_tail(Cause::Check).await?;
    let pages = u32::try_from(tail.pages().len()).unwrap_or(u32::MAX);
    let mut leaves = tail.leaves().iter().enumerate().peekable();
    let mut walk = Walk { last: None, entries: 0, tombstones: 0 };
    for start in (0..pages).step_by(PAGES_PER_READ as usize) {
        let range = start..pages.min(start + PAGES_PER_READ);
        let stored = table.read_pages(&tail, range.clone(), Cause::Check).await?;
        for (number, stored) in range.zip(stored) {
            report.pages += 1;
            let page = match table.verify(&tail, number, stored) {
                Ok(page) => page,
                Err(error) => {
                    note(report, error)?;
                    leaves.next_if(|(_, leaf)| leaf.page == number);
                    continue;
                }
            };
            let checked = match leaves.next_if(|(_, leaf)| leaf.page == number) {
                Some((slot, _)) => check_leaf(table, &tail, slot, &table.leaf(page)?, &mut walk),
                None => page::overflow_piece(&page).map(|_| ()),
            };
            if let Err(error) = checked {
                report.fault(format!("{} page {number}: {error}", table.key()));
            }
        }
        tokio::task::yield_now().await;
    }
    report.entries += walk.entries;
    let meta = &table.meta;
    if (walk.entries, walk.tombstones) != (meta.entries, meta.tombstones) || tail.entries() != meta.entries {
        report.fault(format!("{} has {} entries, the manifest says {}", table.key(), walk.entries, meta.entries));
    }
    Ok(())
}

fn check_leaf(table: &Table, tail: &Tail, slot: usize, leaf: &Leaf, walk: &mut Walk) -> Result<()> {
    let meta = &table.meta;
    let wrong = |what: &str| Err(Error::Corrupt(what.to_owned()));
    for number in 0..leaf.count() {
        let entry = leaf.entry(number)?;
        let key = leaf.key(&entry);
        if let Some((last, seq)) = &walk.last
            && last[..].cmp(key).then(entry.seq.cmp(seq)).is_ge()
        {
            return wrong("entries are out of order");
        }
        let inside = meta.first <= key && key <= &meta.last[..] && (meta.min_seq..=meta.max_seq).contains(&entry.seq);
        if !inside {
            return wrong("an entry is outside what the manifest says of its object");
        }
        if number == 0 && tail.leaves().get(slot).is_none_or(|at| at.key[..] != *key || at.seq != entry.seq) {
            return wrong("its first entry is not the one that the index names");
        }
        if !tail.may_contain(object::hash(key)) {
            return wrong("the filter denies a key that is there");
        }
        match leaf.cell(&entry)? {
            Cell::Overflow(extent) => {
                let end = extent.first_page.checked_add(extent.pages).map(|end| end as usize);
                if end.is_none_or(|end| end > tail.pages().len()) {
                    return wrong("a value's overflow pages are outside the object");
                }
            }
            Cell::Delete => walk.tombstones += 1,
            Cell::Put(_) => {}
        }
        walk.entries += 1;
        walk.last = Some((key.to_vec(), entry.seq));
    }
    Ok(())
}
