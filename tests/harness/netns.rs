//! Network namespaces, one for each node, on a bridge of their own: nodes that can be cut off from each other, in both
//! directions or in one, while clients and the bucket still reach them. Needs root, iproute2 and nftables.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

static MADE: AtomicU32 = AtomicU32::new(0);

/// Which packets are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What the node sends and what it would hear.
    Both,
    /// What it would hear.
    Inward,
    /// What it sends.
    Outward,
}

/// Some namespaces on one bridge; gone on drop.
pub struct Network {
    tag: String,
    subnet: String,
    nodes: u64,
}

fn run(program: &str, args: &[&str], input: &str) {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("input");
    let out = child.wait_with_output().expect("it ends");
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

fn ip(line: &str) {
    run("ip", &line.split_whitespace().collect::<Vec<_>>(), "");
}

impl Network {
    /// A bridge with namespaces for nodes 1 to `nodes`.
    pub fn new(nodes: u64) -> Self {
        let (pid, number) = (std::process::id(), MADE.fetch_add(1, Relaxed));
        // Names of links have at most 15 bytes.
        let tag = format!("h{:x}{number}", pid % 0xf_ffff);
        let subnet = format!("10.{}.{}", 64 + pid % 128, (pid / 128 + number) % 250);
        let net = Self { tag, subnet, nodes };
        ip(&format!("link add {} type bridge", net.tag));
        ip(&format!("addr add {}/24 dev {}", net.host(), net.tag));
        ip(&format!("link set {} up", net.tag));
        for id in 1..=nodes {
            let (space, outer, inner) = (net.namespace(id), format!("{}o{id}", net.tag), format!("{}i{id}", net.tag));
            ip(&format!("netns add {space}"));
            ip(&format!("link add {outer} type veth peer name {inner}"));
            ip(&format!("link set {outer} master {} up", net.tag));
            ip(&format!("link set {inner} netns {space}"));
            ip(&format!("-n {space} addr add {}/24 dev {inner}", net.address(id)));
            ip(&format!("-n {space} link set {inner} up"));
            ip(&format!("-n {space} link set lo up"));
        }
        net
    }

    /// The machine's own address on the bridge.
    pub fn host(&self) -> String {
        format!("{}.1", self.subnet)
    }

    /// A node's address.
    pub fn address(&self, id: u64) -> String {
        format!("{}.{}", self.subnet, 10 + id)
    }

    /// A node's namespace.
    pub fn namespace(&self, id: u64) -> String {
        format!("{}n{id}", self.tag)
    }

    /// Cuts node `id` off from the other nodes.
    pub fn cut(&self, id: u64, way: Way) {
        let mut rules = "table inet cut {\n".to_owned();
        for (hook, side, dropped) in [("input", "saddr", way != Way::Outward), ("output", "daddr", way != Way::Inward)]
        {
            rules += &format!("chain {hook} {{ type filter hook {hook} priority 0; policy accept;\n");
            for other in (1..=self.nodes).filter(|other| dropped && *other != id) {
                rules += &format!("ip {side} {} drop\n", self.address(other));
            }
            rules += "}\n";
        }
        run("ip", &["netns", "exec", &self.namespace(id), "nft", "-f", "-"], &(rules + "}\n"));
    }

    /// Takes the cut back.
    pub fn heal(&self, id: u64) {
        run("ip", &["netns", "exec", &self.namespace(id), "nft", "delete", "table", "inet", "cut"], "");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Whatever is left of a failed set-up goes as far as it can.
        let quiet = |args: &[&str]| drop(Command::new("ip").args(args).stderr(Stdio::null()).status());
        for id in 1..=self.nodes {
            quiet(&["netns", "del", &self.namespace(id)]);
        }
        quiet(&["link", "del", &self.tag]);
    }
}
