//! Settings of a cluster, as flags say them and as the engine wants them.

use std::net::SocketAddr;

use holdfast::cluster::{ClusterOptions, Network, NodeInfo, Peer};

use super::secure;
use crate::cli::ClusterFlags;

/// Port for other nodes, where `--peers` names hosts without one.
const RAFT_PORT: u16 = 3390;

/// Refuses flags that contradict each other, before anything is opened.
pub fn check(flags: &ClusterFlags) -> Result<(), String> {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    options(flags, nowhere, nowhere).map(|_| ())
}

/// What the engine is told; `None` for a database of one node. `mysql` and `admin` are where this node serves.
pub fn options(flags: &ClusterFlags, mysql: SocketAddr, admin: SocketAddr) -> Result<Option<ClusterOptions>, String> {
    if flags.raft_listen.is_none() && flags.peers.is_none() {
        if flags.raft_tls_ca.is_some() {
            return Err("--raft-tls-ca: TLS between nodes also needs --peers, or --raft-listen to join some".to_owned());
        }
        return match flags.node_id {
            None | Some(1) => Ok(None),
            Some(id) => {
                Err(format!("--node-id {id}: a node of a cluster also needs --peers, or --raft-listen to join one"))
            }
        };
    }
    let Some(node) = flags.node_id.filter(|id| *id > 0) else {
        return Err(
            "--peers and --raft-listen need --node-id: this node's number, which is never used again".to_owned()
        );
    };
    let voters = flags.peers.as_deref().map(peers).transpose()?.unwrap_or_default();
    let own = voters.iter().find(|peer| peer.id == node).map(|peer| peer.addr.clone());
    let listen = match (&flags.raft_listen, &own) {
        (Some(listen), _) => with_port(listen, "--raft-listen")?,
        (None, Some(own)) => own.clone(),
        (None, None) => {
            return Err(format!("--peers does not name node {node}: give --raft-listen to join that cluster"));
        }
    };
    let address = own.unwrap_or_else(|| listen.clone());
    let info = NodeInfo {
        sql: reachable(mysql, &address),
        admin: reachable(admin, &address),
        release: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let network = Network::Tcp { listen, tls: secure::load(flags)? };
    Ok(Some(ClusterOptions { node, network, address, voters, info }))
}

/// Reads `1=host:port,2=host:port`.
fn peers(text: &str) -> Result<Vec<Peer>, String> {
    let bad = |part: &str| format!("--peers: `{part}` is not NUMBER=HOST:PORT");
    text.split(',')
        .map(str::trim)
        .map(|part| {
            let (id, addr) = part.split_once('=').ok_or_else(|| bad(part))?;
            let id = id.trim().parse().ok().filter(|id| *id > 0).ok_or_else(|| bad(part))?;
            Ok(Peer { id, addr: with_port(addr.trim(), "--peers")? })
        })
        .collect()
}

fn with_port(addr: &str, flag: &str) -> Result<String, String> {
    match addr.rsplit_once(':') {
        _ if addr.is_empty() => Err(format!("{flag}: an address is empty")),
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(addr.to_owned()),
        Some(_) => Err(format!("{flag}: `{addr}` is not HOST:PORT")),
        None => Ok(format!("{addr}:{RAFT_PORT}")),
    }
}

/// Where others reach a port of this node: one that listens everywhere is reached where the node itself is.
fn reachable(listens: SocketAddr, node: &str) -> String {
    match node.rsplit_once(':') {
        Some((host, _)) if listens.ip().is_unspecified() => format!("{host}:{}", listens.port()),
        _ => listens.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(node_id: Option<u64>, listen: Option<&str>, peers: Option<&str>) -> Result<Option<ClusterOptions>, String> {
        let flags = ClusterFlags {
            node_id,
            raft_listen: listen.map(str::to_owned),
            peers: peers.map(str::to_owned),
            ..ClusterFlags::default()
        };
        options(&flags, "0.0.0.0:3306".parse().unwrap(), "127.0.0.1:3380".parse().unwrap())
    }

    #[test]
    fn a_node_listens_where_its_peers_reach_it() {
        let two = of(Some(2), None, Some("1=a:1, 2=b, 3=c:3")).unwrap().unwrap();
        assert_eq!((two.node, &two.address[..], two.voters.len()), (2, "b:3390", 3));
        assert!(matches!(two.network, Network::Tcp { ref listen, tls: None } if listen == "b:3390"));
        assert_eq!((&two.info.sql[..], &two.info.admin[..]), ("b:3306", "127.0.0.1:3380"));
        let behind = of(Some(2), Some("0.0.0.0:9"), Some("1=a:1,2=b:2")).unwrap().unwrap();
        assert!(matches!(behind.network, Network::Tcp { ref listen, .. } if listen == "0.0.0.0:9"));
        assert_eq!(behind.address, "b:2");
        let joins = of(Some(4), Some("d:4"), None).unwrap().unwrap();
        assert_eq!((&joins.address[..], joins.voters.len()), ("d:4", 0));
        assert!(of(None, None, None).unwrap().is_none() && of(Some(1), None, None).unwrap().is_none());
    }

    #[test]
    fn wrong_settings_say_what_is_wrong() {
        for (node, listen, peers, expected) in [
            (Some(2), None, None, "also needs --peers"),
            (None, None, Some("1=a:1"), "need --node-id"),
            (Some(0), None, Some("1=a:1"), "need --node-id"),
            (Some(4), None, Some("1=a:1"), "does not name node 4"),
            (Some(1), None, Some("1:a"), "`1:a` is not NUMBER=HOST:PORT"),
            (Some(1), None, Some("x=a:1"), "`x=a:1` is not NUMBER=HOST:PORT"),
            (Some(1), None, Some("1=a:x"), "`a:x` is not HOST:PORT"),
            (Some(1), Some(":5"), Some("1=a:1"), "--raft-listen: `:5` is not HOST:PORT"),
        ] {
            let error = of(node, listen, peers).err().unwrap();
            assert!(error.contains(expected), "{error}");
        }
    }
}
