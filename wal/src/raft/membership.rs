//! FORMAT: the membership payload, as it stands in log entries, manifests and snapshot frames.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1 |
//! | 4 | number of voter sets (1; 2 while a change is under way) |
//! | 4 + 8 n | each: number of voters, their ids |
//! | 4 | number of nodes |
//! | 8 + 4 + n | each: id, length of the address, address |
//!
//! Integers are little-endian. Integrity is the container's: record, manifest object and frame have a checksum.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use openraft::BasicNode;

use super::{
    codec::{DecodeError, Reader, Write},
    types::RaftMembership,
};
use crate::transport::Peer;

const VERSION: u8 = 1;

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The membership's bytes.
pub(crate) fn encode(membership: &RaftMembership) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    let configs = membership.get_joint_config();
    out.put_u32_le(count(configs.len()));
    for config in configs {
        out.put_u32_le(count(config.len()));
        for id in config {
            out.put_u64_le(*id);
        }
    }
    let nodes: Vec<_> = membership.nodes().collect();
    out.put_u32_le(count(nodes.len()));
    for (id, node) in nodes {
        out.put_u64_le(*id);
        out.put_blob(node.addr.as_bytes());
    }
    out.freeze()
}

/// The payload of a membership with these voters and no other member: what a machine that was rebuilt from the bucket
/// gives back in [`crate::Restored`], so that the new cluster is theirs.
pub fn membership_of(voters: &[Peer]) -> Bytes {
    let ids = voters.iter().map(|peer| peer.id).collect::<BTreeSet<_>>();
    let nodes: BTreeMap<_, _> = voters.iter().map(|p| (p.id, BasicNode { addr: p.addr.clone() })).collect();
    // It refuses a voter without a node only, and each has one.
    encode(&RaftMembership::new(vec![ids], nodes).unwrap_or_default())
}

/// See [`encode`]. Refuses what openraft would refuse: a voter without a node, no voter at all.
pub(crate) fn decode(bytes: Bytes) -> Result<RaftMembership, DecodeError> {
    let mut r = Reader::new(bytes);
    match r.u8()? {
        VERSION => {}
        0 => return Err(DecodeError::Bad { what: "membership version", at: 0 }),
        newer => return Err(DecodeError::Newer(newer, VERSION)),
    }
    let mut configs = Vec::new();
    for _ in 0..r.count(4)? {
        let mut voters = BTreeSet::new();
        for _ in 0..r.count(8)? {
            voters.insert(r.u64()?);
        }
        configs.push(voters);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..r.count(12)? {
        nodes.insert(r.u64()?, BasicNode { addr: r.string()? });
    }
    let at = r.at();
    r.end()?;
    if configs.is_empty() && nodes.is_empty() {
        return Ok(RaftMembership::default());
    }
    RaftMembership::new(configs, nodes).map_err(|_| DecodeError::Bad { what: "membership", at })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> RaftMembership {
        let nodes = BTreeMap::from([(1, BasicNode::new("a:1")), (2, BasicNode::new(""))]);
        RaftMembership::new(vec![BTreeSet::from([1])], nodes).unwrap()
    }

    #[test]
    fn golden() {
        let bytes = encode(&sample());
        let golden = [
            &[1][..],
            &[1, 0, 0, 0],
            &[1, 0, 0, 0],
            &[1, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0],
            &[1, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0],
            b"a:1",
            &[2, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(&bytes[..], &golden[..]);
        assert_eq!(decode(bytes).unwrap(), sample());
    }

    #[test]
    fn a_membership_of_voters() {
        let peer = |id, addr: &str| Peer { id, addr: addr.to_owned() };
        let decoded = decode(membership_of(&[peer(2, "b:1"), peer(1, "a:1")])).unwrap();
        assert_eq!(decoded.voter_ids().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(decoded.get_node(&2).map(|node| node.addr.as_str()), Some("b:1"));
    }

    #[test]
    fn every_cut_is_an_error() {
        let bytes = encode(&sample());
        for cut in 0..bytes.len() {
            assert!(decode(bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn newer_version_says_so() {
        assert_eq!(decode(Bytes::from_static(&[2, 0])), Err(DecodeError::Newer(2, 1)));
    }

    #[test]
    fn a_voter_without_a_node_is_refused() {
        let bytes = [&[1u8, 1, 0, 0, 0, 1, 0, 0, 0][..], &[5, 0, 0, 0, 0, 0, 0, 0], &[0; 4]].concat();
        assert!(matches!(decode(bytes.into()), Err(DecodeError::Bad { what: "membership", .. })));
    }
}
