//! FORMAT: frames between nodes. One frame asks, one answers; a frame is self-delimiting and carries its own checksum.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `HFRM` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | kind |
//! | 6 | 2 | reserved, 0 |
//! | 8 | 4 | length of what follows the header |
//! | 12 | 4 | CRC-32 of the frame with this field zero |
//! | 16 | 16 | cluster |
//! | 32 | 8 | sending node |
//! | 40 | 4 + n | the sender's report (rule 8: its oldest snapshot and manifest), opaque here |
//! | | | body, by kind |
//!
//! Bodies, little-endian; `id` is term (8), index (8); `id?` is a flag (1) and an id; `vote` is term (8), node (8), committed (1):
//!
//! | kind | body |
//! |---|---|
//! | 1 append | vote, previous id?, commit id?, count (4), entries: id, kind (1), length (4), payload |
//! | 2 append's answer | 0 done / 1 done up to: id? / 2 conflict / 3 higher vote: vote |
//! | 3 vote, 4 pre-vote | vote, last id?, transfer (1) |
//! | 5 vote's answer | vote, granted (1), last id? |
//! | 6 snapshot | vote, last id?, membership id?, length (4), membership, length (4), pointer |
//! | 7 snapshot's answer | vote |
//! | 8 transfer leader | vote, to node (8), last id? |
//! | 9 transfer's answer | 0 done / 1 vote changed: vote, vote / 2 not flushed: id?, id? |
//! | 10 read index | |
//! | 11 read index's answer | 0: id / 1 does not lead: flag (1), leader (8) / 2 can't tell: length (4), why |

use bytes::{BufMut, Bytes, BytesMut};
use openraft::{
    EntryPayload,
    entry::RaftEntry as _,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};

use super::{
    codec::{DecodeError, Reader, Write},
    membership,
    types::{Data, RaftEntry, RaftLogId, RaftSnapshot, RaftVote, SnapshotMeta, StoredMembership, TypeConfig},
};
use crate::NodeId;

const MAGIC: u32 = u32::from_le_bytes(*b"HFRM");
const VERSION: u8 = 1;
const HEADER: usize = 16;
/// Bytes of the largest frame: an append carries at most 4 MiB of payload, or one entry.
pub(crate) const MAX_FRAME: usize = 16 << 20;

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// What a frame says.
#[derive(Debug)]
pub(crate) enum Message {
    Append(AppendEntriesRequest<TypeConfig>),
    AppendAnswer(AppendEntriesResponse<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    VoteAnswer(VoteResponse<TypeConfig>),
    Snapshot(RaftVote, RaftSnapshot),
    SnapshotAnswer(SnapshotResponse<TypeConfig>),
    Transfer(TransferLeaderRequest<TypeConfig>),
    TransferAnswer(TransferLeaderResponse<TypeConfig>),
    /// A follower asks what is committed now; the leader answers once a quorum has confirmed it.
    ReadIndex,
    ReadIndexAnswer(ReadIndexAnswer),
}

/// What a node knows of what is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadIndexAnswer {
    /// Everything that was committed anywhere when it was asked stands at or before this entry.
    Index(RaftLogId),
    /// The node does not lead.
    NotLeader(Option<NodeId>),
    /// It could not be found out.
    Unavailable(String),
}

/// A frame: who speaks, for which cluster, and what.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) cluster: u128,
    pub(crate) from: NodeId,
    pub(crate) report: Bytes,
    pub(crate) message: Message,
}

impl Frame {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(256);
        out.put_u32_le(MAGIC);
        out.put_u8(VERSION);
        out.put_u8(kind(&self.message));
        out.put_u16_le(0);
        out.put_u64_le(0);
        out.put_u128_le(self.cluster);
        out.put_u64_le(self.from);
        out.put_blob(&self.report);
        put_body(&mut out, &self.message);
        let len = u32::try_from(out.len() - HEADER).unwrap_or(u32::MAX);
        if let Some(field) = out.get_mut(8..12) {
            field.copy_from_slice(&len.to_le_bytes());
        }
        let crc = crc32fast::hash(&out);
        if let Some(field) = out.get_mut(12..16) {
            field.copy_from_slice(&crc.to_le_bytes());
        }
        out.freeze()
    }

    /// The frame in `bytes`, which must hold exactly one.
    pub(crate) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes.clone());
        if r.u32()? != MAGIC {
            return Err(DecodeError::Bad { what: "magic", at: 0 });
        }
        let version = r.u8()?;
        let kind = r.u8()?;
        let reserved = r.u16()?;
        let len = r.u32()? as usize;
        let crc = r.u32()?;
        if len > MAX_FRAME || HEADER + len != bytes.len() {
            return Err(DecodeError::Bad { what: "length", at: 8 });
        }
        if checksum(&bytes) != crc {
            return Err(DecodeError::Checksum);
        }
        if version > VERSION {
            return Err(DecodeError::Newer(version, VERSION));
        }
        if version == 0 || reserved != 0 {
            return Err(DecodeError::Bad { what: "version", at: 4 });
        }
        let cluster = r.u128()?;
        let from = r.u64()?;
        let report = r.bytes()?;
        let message = get_body(&mut r, kind)?;
        r.end()?;
        Ok(Self { cluster, from, report, message })
    }
}

fn checksum(frame: &[u8]) -> u32 {
    let (head, rest) = frame.split_at(frame.len().min(HEADER));
    let mut h = crc32fast::Hasher::new();
    h.update(head.get(..12).unwrap_or(head));
    h.update(&[0; 4]);
    h.update(rest);
    h.finalize()
}

fn kind(message: &Message) -> u8 {
    match message {
        Message::Append(_) => 1,
        Message::AppendAnswer(_) => 2,
        Message::Vote(_) => 3,
        Message::PreVote(_) => 4,
        Message::VoteAnswer(_) => 5,
        Message::Snapshot(..) => 6,
        Message::SnapshotAnswer(_) => 7,
        Message::Transfer(_) => 8,
        Message::TransferAnswer(_) => 9,
        Message::ReadIndex => 10,
        Message::ReadIndexAnswer(_) => 11,
    }
}

fn put_body(out: &mut BytesMut, message: &Message) {
    match message {
        Message::Append(m) => {
            out.put_vote(&m.vote);
            out.put_option_log_id(m.prev_log_id.as_ref());
            out.put_option_log_id(m.leader_commit.as_ref());
            out.put_u32_le(u32::try_from(m.entries.len()).unwrap_or(u32::MAX));
            out.reserve(m.entries.iter().map(entry_len).sum());
            for entry in &m.entries {
                put_entry(out, entry);
            }
        }
        Message::AppendAnswer(m) => match m {
            AppendEntriesResponse::Success => out.put_u8(0),
            AppendEntriesResponse::PartialSuccess(id) => {
                out.put_u8(1);
                out.put_option_log_id(id.as_ref());
            }
            AppendEntriesResponse::Conflict => out.put_u8(2),
            AppendEntriesResponse::HigherVote(vote) => {
                out.put_u8(3);
                out.put_vote(vote);
            }
        },
        Message::Vote(m) | Message::PreVote(m) => {
            out.put_vote(&m.vote);
            out.put_option_log_id(m.last_log_id.as_ref());
            out.put_u8(m.leadership_transfer.into());
        }
        Message::VoteAnswer(m) => {
            out.put_vote(&m.vote);
            out.put_u8(m.vote_granted.into());
            out.put_option_log_id(m.last_log_id.as_ref());
        }
        Message::Snapshot(vote, snapshot) => {
            let meta = &snapshot.meta;
            out.put_vote(vote);
            out.put_option_log_id(meta.last_log_id.as_ref());
            out.put_option_log_id(meta.last_membership.log_id().as_ref());
            out.put_blob(&membership::encode(meta.last_membership.membership()));
            out.put_blob(&snapshot.snapshot);
        }
        Message::SnapshotAnswer(m) => out.put_vote(&m.vote),
        Message::Transfer(m) => {
            out.put_vote(m.from_leader());
            out.put_u64_le(*m.to_node_id());
            out.put_option_log_id(m.last_log_id());
        }
        Message::TransferAnswer(m) => match m {
            Ok(()) => out.put_u8(0),
            Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                out.put_u8(1);
                out.put_vote(expected);
                out.put_vote(actual);
            }
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                out.put_u8(2);
                out.put_option_log_id(expected.as_ref());
                out.put_option_log_id(actual.as_ref());
            }
        },
        Message::ReadIndex => {}
        Message::ReadIndexAnswer(answer) => put_read_index(out, answer),
    }
}

fn put_read_index(out: &mut BytesMut, answer: &ReadIndexAnswer) {
    match answer {
        ReadIndexAnswer::Index(id) => {
            out.put_u8(0);
            out.put_log_id(id);
        }
        ReadIndexAnswer::NotLeader(leader) => {
            out.put_u8(1);
            out.put_u8(leader.is_some().into());
            out.put_u64_le(leader.unwrap_or_default());
        }
        ReadIndexAnswer::Unavailable(why) => {
            out.put_u8(2);
            out.put_blob(why.as_bytes());
        }
    }
}

fn get_read_index(r: &mut Reader) -> Result<ReadIndexAnswer, DecodeError> {
    let at = r.at();
    Ok(match r.u8()? {
        0 => ReadIndexAnswer::Index(r.log_id()?),
        1 => {
            let (known, leader) = (r.bool()?, r.u64()?);
            ReadIndexAnswer::NotLeader(known.then_some(leader))
        }
        2 => ReadIndexAnswer::Unavailable(r.string()?),
        _ => return Err(DecodeError::Bad { what: "answer", at }),
    })
}

fn entry_len(entry: &RaftEntry) -> usize {
    21 + match &entry.payload {
        EntryPayload::Normal(Data(bytes)) => bytes.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

fn put_entry(out: &mut BytesMut, entry: &RaftEntry) {
    out.put_log_id(&entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => {
            out.put_u8(BLANK);
            out.put_blob(&[]);
        }
        EntryPayload::Normal(Data(bytes)) => {
            out.put_u8(NORMAL);
            out.put_blob(bytes);
        }
        EntryPayload::Membership(m) => {
            out.put_u8(MEMBERSHIP);
            out.put_blob(&membership::encode(m));
        }
    }
}

fn get_entry(r: &mut Reader) -> Result<RaftEntry, DecodeError> {
    let id = r.log_id()?;
    let at = r.at();
    let kind = r.u8()?;
    let bytes = r.bytes()?;
    let payload = match kind {
        BLANK if bytes.is_empty() => EntryPayload::Blank,
        NORMAL => EntryPayload::Normal(Data(bytes)),
        MEMBERSHIP => EntryPayload::Membership(membership::decode(bytes)?),
        _ => return Err(DecodeError::Bad { what: "entry kind", at }),
    };
    Ok(RaftEntry::new(id, payload))
}

fn get_body(r: &mut Reader, kind: u8) -> Result<Message, DecodeError> {
    let at = r.at();
    Ok(match kind {
        1 => Message::Append(AppendEntriesRequest {
            vote: r.vote()?,
            prev_log_id: r.option_log_id()?,
            leader_commit: r.option_log_id()?,
            entries: (0..r.count(21)?).map(|_| get_entry(r)).collect::<Result<_, _>>()?,
        }),
        2 => Message::AppendAnswer(match r.u8()? {
            0 => AppendEntriesResponse::Success,
            1 => AppendEntriesResponse::PartialSuccess(r.option_log_id()?),
            2 => AppendEntriesResponse::Conflict,
            3 => AppendEntriesResponse::HigherVote(r.vote()?),
            _ => return Err(DecodeError::Bad { what: "answer", at }),
        }),
        3 => Message::Vote(get_vote_request(r)?),
        4 => Message::PreVote(get_vote_request(r)?),
        5 => Message::VoteAnswer(VoteResponse {
            vote: r.vote()?,
            vote_granted: r.bool()?,
            last_log_id: r.option_log_id()?,
        }),
        6 => {
            let vote = r.vote()?;
            let last_log_id = r.option_log_id()?;
            let membership_id = r.option_log_id()?;
            let last_membership = StoredMembership::new(membership_id, membership::decode(r.bytes()?)?);
            Message::Snapshot(
                vote,
                RaftSnapshot { meta: SnapshotMeta { last_log_id, last_membership }, snapshot: r.bytes()? },
            )
        }
        7 => Message::SnapshotAnswer(SnapshotResponse { vote: r.vote()? }),
        8 => Message::Transfer(TransferLeaderRequest::new(r.vote()?, r.u64()?, r.option_log_id()?)),
        9 => Message::TransferAnswer(match r.u8()? {
            0 => Ok(()),
            1 => Err(TransferLeaderError::VoteChanged { expected: r.vote()?, actual: r.vote()? }),
            2 => Err(TransferLeaderError::LogNotFlushed { expected: r.option_log_id()?, actual: r.option_log_id()? }),
            _ => return Err(DecodeError::Bad { what: "answer", at }),
        }),
        10 => Message::ReadIndex,
        11 => Message::ReadIndexAnswer(get_read_index(r)?),
        _ => return Err(DecodeError::Bad { what: "kind", at: 5 }),
    })
}

fn get_vote_request(r: &mut Reader) -> Result<VoteRequest<TypeConfig>, DecodeError> {
    Ok(VoteRequest { vote: r.vote()?, last_log_id: r.option_log_id()?, leadership_transfer: r.bool()? })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::BasicNode;
    use proptest::prelude::*;

    use super::{super::types::*, *};
    use crate::LogId;

    fn id(term: u64, index: u64) -> RaftLogId {
        to_raft(LogId { term, index })
    }

    fn frame(message: Message) -> Frame {
        Frame { cluster: 0xC1, from: 2, report: Bytes::from_static(b"r"), message }
    }

    fn samples() -> Vec<Message> {
        let members = BTreeMap::from([(1, BasicNode::new("a:1")), (2, BasicNode::new("b:2"))]);
        let membership = RaftMembership::new(vec![BTreeSet::from([1, 2])], members).unwrap();
        let entries = vec![
            RaftEntry::new(id(3, 8), EntryPayload::Blank),
            RaftEntry::new(id(3, 9), EntryPayload::Normal(Data(Bytes::from_static(b"payload")))),
            RaftEntry::new(id(3, 10), EntryPayload::Membership(membership.clone())),
        ];
        let append = AppendEntriesRequest {
            vote: vote(3, 1, true),
            prev_log_id: Some(id(2, 7)),
            leader_commit: Some(id(2, 6)),
            entries,
        };
        let meta = SnapshotMeta {
            last_log_id: Some(id(3, 9)),
            last_membership: StoredMembership::new(Some(id(1, 1)), membership),
        };
        let v = vote(4, 2, false);
        let request = VoteRequest { vote: v, last_log_id: Some(id(3, 9)), leadership_transfer: true };
        vec![
            Message::Append(append),
            Message::AppendAnswer(AppendEntriesResponse::Success),
            Message::AppendAnswer(AppendEntriesResponse::PartialSuccess(Some(id(1, 2)))),
            Message::AppendAnswer(AppendEntriesResponse::Conflict),
            Message::AppendAnswer(AppendEntriesResponse::HigherVote(v)),
            Message::Vote(request.clone()),
            Message::PreVote(request),
            Message::VoteAnswer(VoteResponse { vote: v, vote_granted: true, last_log_id: None }),
            Message::Snapshot(v, RaftSnapshot { meta, snapshot: Bytes::from_static(b"manifest") }),
            Message::SnapshotAnswer(SnapshotResponse { vote: v }),
            Message::Transfer(TransferLeaderRequest::new(v, 3, Some(id(3, 9)))),
            Message::TransferAnswer(Ok(())),
            Message::TransferAnswer(Err(TransferLeaderError::VoteChanged { expected: v, actual: vote(5, 1, true) })),
            Message::TransferAnswer(Err(TransferLeaderError::LogNotFlushed { expected: Some(id(3, 9)), actual: None })),
            Message::ReadIndex,
            Message::ReadIndexAnswer(ReadIndexAnswer::Index(id(3, 9))),
            Message::ReadIndexAnswer(ReadIndexAnswer::NotLeader(Some(3))),
            Message::ReadIndexAnswer(ReadIndexAnswer::NotLeader(None)),
            Message::ReadIndexAnswer(ReadIndexAnswer::Unavailable("no quorum".into())),
        ]
    }

    #[test]
    fn golden() {
        let request = VoteRequest { vote: vote(4, 2, false), last_log_id: Some(id(3, 9)), leadership_transfer: false };
        let bytes = frame(Message::Vote(request)).encode();
        let body = [
            &0xC1u128.to_le_bytes()[..],
            &2u64.to_le_bytes(),
            &[1, 0, 0, 0, b'r'],
            &[4, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0],
            &[1, 3, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0],
            &[0],
        ]
        .concat();
        assert_eq!(&bytes[..12], [b'H', b'F', b'R', b'M', 1, 3, 0, 0, 64, 0, 0, 0]);
        assert_eq!(bytes[12..16], [185, 143, 145, 126]);
        assert_eq!(&bytes[16..], &body[..]);
    }

    #[test]
    fn every_message_comes_back() {
        for message in samples() {
            let text = format!("{message:?}");
            let bytes = frame(message).encode();
            let back = Frame::decode(bytes).unwrap();
            assert_eq!((back.cluster, back.from, &back.report[..]), (0xC1, 2, &b"r"[..]));
            assert_eq!(format!("{:?}", back.message), text);
        }
    }

    #[test]
    fn every_cut_and_every_flip_is_an_error() {
        for message in samples() {
            let bytes = frame(message).encode();
            for cut in 0..bytes.len() {
                assert!(Frame::decode(bytes.slice(..cut)).is_err(), "cut at {cut}");
            }
            for at in 0..bytes.len() {
                let mut bad = bytes.to_vec();
                bad[at] ^= 0x10;
                assert!(Frame::decode(bad.into()).is_err(), "flip at {at}");
            }
        }
    }

    #[test]
    fn a_newer_version_says_so() {
        let mut bytes = frame(Message::AppendAnswer(AppendEntriesResponse::Success)).encode().to_vec();
        bytes[4] = 2;
        bytes[12..16].fill(0);
        let crc = crc32fast::hash(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Frame::decode(bytes.into()).unwrap_err(), DecodeError::Newer(2, 1));
    }

    proptest! {
        /// Garbage whose frame is whole reaches the body decoders; none may panic.
        #[test]
        fn garbage_bodies_never_panic(kind in 0u8..14, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut r = Reader::new(body.into());
            let _ = get_body(&mut r, kind);
        }
    }
}
