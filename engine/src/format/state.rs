//! The machine's state that is not rows: keyspaces, guards, outcomes, format level, what is archived. Part of every manifest (rule 3).
//!
//! ```text
//! offset size  field (little endian)
//!      0    4  magic "HFST"
//!      4    2  version (2)
//!      6    2  0
//!      8    4  length of the body
//!     12    4  CRC-32 of bytes 0..12 and the body
//!     16    .  body, in varints and length-prefixed strings:
//!              format level, next keyspace id,
//!              keyspaces: count, then per keyspace: name, id
//!              guards: count, then per guard: guard, version
//!              outcomes, oldest first: count, then per outcome: transaction id (16), commit time, commit number (0: rejected)
//!              since version 2, what is archived: 0 nothing, or 1: up_to term and index, manifest (24), covered term and index
//! ```

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};

use super::{
    Reader,
    archive::{ArchivePoint, get_archived, put_archived},
    check_level, check_version, corrupt, put_bytes, put_varint, u16_at, u32_at,
};
use crate::{
    error::Result,
    limits::{KEYSPACES_MAX, OUTCOMES_MAX},
    types::{CommitSeq, KeyspaceId},
};

/// Bytes in front of the body.
pub const HEADER_BYTES: usize = 16;
/// Newest version that this build reads, and the one it writes.
pub const VERSION: u16 = 2;
const MAGIC: &[u8; 4] = b"HFST";

/// What became of a transaction (rule 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnOutcome {
    /// Transaction id.
    pub txn: u128,
    /// Commit time of its batch, milliseconds since 1970.
    pub time: u64,
    /// Its commit number; zero if apply rejected it.
    pub seq: CommitSeq,
}

/// The machine's state that is not rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineState {
    /// The cluster's format level (rule 9).
    pub format_level: u32,
    /// The id that the next keyspace gets.
    pub next_keyspace: KeyspaceId,
    /// Keyspaces by name.
    pub keyspaces: BTreeMap<String, KeyspaceId>,
    /// Guards that were ever set.
    pub guards: BTreeMap<u64, u64>,
    /// The last outcomes, oldest first.
    pub outcomes: Vec<TxnOutcome>,
    /// How far the log archive has come, if there is one (rule 6).
    pub archived: Option<ArchivePoint>,
}

impl MachineState {
    /// Encodes the state.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(HEADER_BYTES + 64 + self.outcomes.len() * 32);
        out.put_slice(MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(0);
        out.put_u64_le(0);
        put_varint(&mut out, u64::from(self.format_level));
        put_varint(&mut out, u64::from(self.next_keyspace));
        put_varint(&mut out, self.keyspaces.len() as u64);
        for (name, id) in &self.keyspaces {
            put_bytes(&mut out, name.as_bytes());
            put_varint(&mut out, u64::from(*id));
        }
        put_varint(&mut out, self.guards.len() as u64);
        for (guard, version) in &self.guards {
            put_varint(&mut out, *guard);
            put_varint(&mut out, *version);
        }
        put_varint(&mut out, self.outcomes.len() as u64);
        for outcome in &self.outcomes {
            out.put_u128_le(outcome.txn);
            put_varint(&mut out, outcome.time);
            put_varint(&mut out, outcome.seq.0);
        }
        put_archived(&mut out, self.archived.as_ref());
        let len = (out.len() - HEADER_BYTES) as u32;
        out[8..12].copy_from_slice(&len.to_le_bytes());
        let crc = checksum(&out);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        Bytes::from(out)
    }

    /// Decodes and verifies a state.
    pub fn decode(bytes: &Bytes) -> Result<Self> {
        if bytes.len() < HEADER_BYTES || &bytes[..4] != MAGIC {
            return Err(corrupt("machine state without its magic"));
        }
        let version = u16_at(bytes, 4).unwrap_or_default();
        check_version("machine state", version, VERSION)?;
        if u32_at(bytes, 8) != u32::try_from(bytes.len() - HEADER_BYTES).ok() {
            return Err(corrupt("machine state: length"));
        }
        if Some(checksum(bytes)) != u32_at(bytes, 12) {
            return Err(corrupt("machine state: checksum"));
        }
        let mut body = Reader::new(bytes.slice(HEADER_BYTES..), "machine state");
        let mut state = Self { format_level: body.u32()?, next_keyspace: body.u32()?, ..Self::default() };
        check_level("the machine state", state.format_level)?;
        let keyspaces = body.count(2)?;
        if keyspaces > KEYSPACES_MAX {
            return Err(corrupt(format!("machine state: {keyspaces} keyspaces")));
        }
        for _ in 0..keyspaces {
            let name = String::from_utf8(body.bytes()?.into()).map_err(|_| corrupt("machine state: keyspace name"))?;
            state.keyspaces.insert(name, body.u32()?);
        }
        for _ in 0..body.count(2)? {
            state.guards.insert(body.varint()?, body.varint()?);
        }
        let outcomes = body.count(18)?;
        if outcomes > OUTCOMES_MAX {
            return Err(corrupt(format!("machine state: {outcomes} outcomes")));
        }
        for _ in 0..outcomes {
            let (txn, time, seq) = (body.u128()?, body.varint()?, CommitSeq(body.varint()?));
            state.outcomes.push(TxnOutcome { txn, time, seq });
        }
        if version > 1 {
            state.archived = get_archived(&mut body)?;
        }
        body.finish()?;
        Ok(state)
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[HEADER_BYTES..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use holdfast_wal::LogId;

    use super::*;
    use crate::format::manifest::ManifestId;

    fn state() -> MachineState {
        MachineState {
            format_level: 1,
            next_keyspace: 3,
            keyspaces: [("a".to_owned(), 1), ("b".to_owned(), 2)].into(),
            guards: [(7, 300)].into(),
            outcomes: vec![TxnOutcome { txn: 5, time: 6, seq: CommitSeq(7) }],
            archived: None,
        }
    }

    #[test]
    fn golden_bytes() {
        let hex: String = state().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        let header = "48465354020000002100000041f17489";
        let body = "0103020161010162020107ac020105000000000000000000000000000000060700";
        assert_eq!(hex, format!("{header}{body}"));
    }

    #[test]
    fn what_is_archived_reads_back_and_the_first_version_had_none() {
        let covered = LogId { term: 1, index: 3 };
        let point =
            ArchivePoint { up_to: LogId { term: 2, index: 9 }, manifest: ManifestId { term: 1, ulid: 5 }, covered };
        let with = MachineState { archived: Some(point), ..state() };
        assert_eq!(MachineState::decode(&with.encode()), Ok(with));
        let first = "484653540100000020000000a2b57c170103020161010162020107ac0201050000000000000000000000000000000607";
        let first: Vec<u8> =
            (0..first.len()).step_by(2).map(|at| u8::from_str_radix(&first[at..at + 2], 16).unwrap()).collect();
        assert_eq!(MachineState::decode(&first.into()), Ok(state()));
    }

    #[test]
    fn reads_back_and_refuses_damage() {
        let bytes = state().encode();
        assert_eq!(MachineState::decode(&bytes).unwrap(), state());
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0x10;
            assert!(MachineState::decode(&damaged.into()).is_err(), "byte {at}");
        }
    }
}
