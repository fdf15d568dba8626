//! What the simulation knows of frames between nodes: enough to describe them in a trace, and to falsify them for `bug`.

use bytes::Bytes;

/// Offset of the body: header, cluster, sender, and an empty report.
const BODY: usize = 16 + 16 + 8 + 4;
/// Bytes of a vote: term, node, committed.
const VOTE: usize = 17;

/// An append.
pub const APPEND: u8 = 1;
/// An append's answer.
pub const APPEND_ANSWER: u8 = 2;
/// A request for a vote.
pub const VOTE_REQUEST: u8 = 3;
const PRE_VOTE: u8 = 4;
/// The answer to either.
pub const VOTE_ANSWER: u8 = 5;

/// The frame's kind.
pub fn kind(frame: &[u8]) -> u8 {
    frame[5]
}

fn number(frame: &[u8], at: usize) -> u64 {
    frame.get(at..at + 8).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

/// A frame in a few words; the checksum stands for the rest.
pub fn describe(frame: &[u8]) -> String {
    let name = match kind(frame) {
        APPEND => "append",
        APPEND_ANSWER => "append's answer",
        VOTE_REQUEST => "vote?",
        PRE_VOTE => "pre-vote?",
        VOTE_ANSWER => "vote",
        6 => "snapshot",
        7 => "snapshot's answer",
        8 => "transfer",
        9 => "transfer's answer",
        10 => "read index?",
        _ => "read index",
    };
    let checksum = u32::from_le_bytes(frame[12..16].try_into().expect("four bytes"));
    let detail = match kind(frame) {
        APPEND => {
            let append = Append::of(frame);
            let id = |id: Option<(u64, u64)>| id.map_or("-".into(), |(term, index)| format!("{term}.{index}"));
            format!(
                "term {} prev {} commit {} last {}",
                append.term,
                id(append.prev),
                id(append.commit),
                id(append.last)
            )
        }
        APPEND_ANSWER => ["done", "partly", "conflict", "higher vote"][usize::from(frame[BODY])].into(),
        VOTE_ANSWER => format!("term {} granted {}", number(frame, BODY), frame[BODY + VOTE]),
        VOTE_REQUEST | PRE_VOTE => format!("term {}", number(frame, BODY)),
        _ => String::new(),
    };
    format!("{name} {detail} {checksum:08x}")
}

fn seal(mut frame: Vec<u8>) -> Bytes {
    let len = (frame.len() - 16) as u32;
    frame[8..12].copy_from_slice(&len.to_le_bytes());
    frame[12..16].fill(0);
    let checksum = crc32fast::hash(&frame);
    frame[12..16].copy_from_slice(&checksum.to_le_bytes());
    frame.into()
}

/// What an append says; ids are term and index.
pub struct Append {
    /// The leader's term.
    pub term: u64,
    /// The entry before the first.
    pub prev: Option<(u64, u64)>,
    /// What is committed.
    pub commit: Option<(u64, u64)>,
    /// The last entry.
    pub last: Option<(u64, u64)>,
    /// The last entry of an older term than the leader's, how many of those there are, and where they end.
    old: Option<((u64, u64), u32, usize)>,
    /// Where the commit id stands, with its flag.
    commit_at: std::ops::Range<usize>,
}

impl Append {
    /// Reads an append.
    pub fn of(frame: &[u8]) -> Self {
        let optional = |at: usize| match frame[at] {
            0 => (None, at + 1),
            _ => (Some((number(frame, at + 1), number(frame, at + 9))), at + 17),
        };
        let (prev, at) = optional(BODY + VOTE);
        let (commit, end) = optional(at);
        let commit_at = at..end;
        let count = u32::from_le_bytes(frame[end..end + 4].try_into().expect("four bytes"));
        let mut entry = end + 4;
        let term = number(frame, BODY);
        let (mut last, mut old) = (None, None);
        for i in 1..=count {
            let id = (number(frame, entry), number(frame, entry + 8));
            let len = u32::from_le_bytes(frame[entry + 17..entry + 21].try_into().expect("four bytes"));
            entry += 21 + len as usize;
            last = Some(id);
            if id.0 < term {
                old = Some((id, i, entry));
            }
        }
        Self { term, prev, commit, last, old, commit_at }
    }

    /// The frame with another commit id.
    pub fn with_commit(&self, frame: &[u8], commit: (u64, u64)) -> Bytes {
        let mut out = self.until_commit(frame, commit);
        out.extend(&frame[self.commit_at.end..]);
        seal(out)
    }

    /// The frame without the entries of the leader's own term, and all others committed. `None`: there are no others.
    pub fn old_committed(&self, frame: &[u8]) -> Option<Bytes> {
        let (commit, count, end) = self.old?;
        let mut out = self.until_commit(frame, commit);
        out.extend(count.to_le_bytes());
        out.extend(&frame[self.commit_at.end + 4..end]);
        Some(seal(out))
    }

    fn until_commit(&self, frame: &[u8], (term, index): (u64, u64)) -> Vec<u8> {
        let mut out = frame[..self.commit_at.start].to_vec();
        out.push(1);
        out.extend(term.to_le_bytes());
        out.extend(index.to_le_bytes());
        out
    }
}

/// The vote's answer that grants what `request` asks for.
pub fn granted(request: &[u8], answer: &[u8]) -> Bytes {
    let mut out = answer.to_vec();
    out[BODY..BODY + VOTE].copy_from_slice(&request[BODY..BODY + VOTE]);
    out[BODY + VOTE] = 1;
    seal(out)
}

/// Whether a vote's answer grants it.
pub fn grants(answer: &[u8]) -> bool {
    answer[BODY + VOTE] == 1
}

/// An append's answer that says done.
pub fn done(sender: u64, request: &[u8]) -> Bytes {
    let mut out = request[..BODY].to_vec();
    out[5] = APPEND_ANSWER;
    out[32..40].copy_from_slice(&sender.to_le_bytes());
    out.push(0);
    seal(out)
}
