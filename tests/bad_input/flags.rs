//! Bad flags and config values, and a certificate or password file that is none: one line that names the setting.

use std::net::TcpListener;

use holdfast_tests::serve::{Serve, run};

use crate::fails;

#[test]
fn flags() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let cases: &[(&[&str], &[&str])] = &[
        (&["--lisen", "x"], &["--lisen", "--listen"]),
        (&["--memory-cache", "lots"], &["--memory-cache", "`lots` is no size"]),
        (&["--memory-cache", "1K"], &["--memory-cache must be at least 1M"]),
        (&["--nvme-cache", "100K"], &["--nvme-cache must be at least 16M"]),
        (&["--memtable-size", "1K"], &["--memtable-size must be at least 64K"]),
        (&["--max-allowed-packet", "5"], &["--max-allowed-packet must be between 1K and 1G"]),
        (&["--max-connections", "0"], &["--max-connections", "1..=100000"]),
        (&["--worker-threads", "0"], &["--worker-threads", "1..=1024"]),
        (&["--log-level", "loud"], &["--log-level", "loud", "debug"]),
        (&["--store", "bucket"], &["bucket", "file:///path", "s3://bucket/prefix"]),
        (&["--store", "ftp://x/y"], &["ftp://x/y", "file, s3 or memory"]),
        (&["--store", "s3:///prefix"], &["s3:///prefix", "bucket name is missing"]),
        (&["--store", "file://relative"], &["file://relative", "absolute"]),
        (&["--config", "/nowhere/h.toml"], &["/nowhere/h.toml", "No such file"]),
        (&["--root-password-file", "/nowhere/pw"], &["--root-password-file /nowhere/pw", "No such file"]),
        (&["--tls-cert", "/nowhere/cert"], &["--tls-key"]),
        (&["--tls-cert", "/nowhere/cert", "--tls-key", "/nowhere/key"], &["/nowhere/cert", "No such file"]),
        (&["--node-id", "2"], &["--node-id 2", "--peers", "--raft-listen"]),
        (&["--peers", "1=a:1"], &["--peers", "--node-id"]),
        (&["--node-id", "1", "--peers", "1=a:x"], &["--peers", "`a:x` is not HOST:PORT"]),
        (&["--node-id", "1", "--peers", "1:a:1"], &["--peers", "`1:a:1` is not NUMBER=HOST:PORT"]),
        (&["--node-id", "4", "--peers", "1=a:1"], &["does not name node 4", "--raft-listen"]),
        (&["--raft-tls-ca", "/nowhere/ca"], &["--raft-tls-cert", "--raft-tls-key"]),
        (
            &["--raft-tls-ca", "/nowhere/ca", "--raft-tls-cert", "/nowhere/c", "--raft-tls-key", "/nowhere/k"],
            &["--raft-tls-ca", "--peers", "--raft-listen"],
        ),
        (
            &["--node-id=1", "--peers=1=a:1", "--raft-tls-ca=/nowhere/ca", "--raft-tls-cert=c", "--raft-tls-key=k"],
            &["--raft-tls-ca /nowhere/ca", "No such file"],
        ),
    ];
    for (flags, parts) in cases {
        let exit = Serve::new(&data).args(*flags).refused();
        fails(&format!("serve {}", flags.join(" ")), &exit, parts);
    }
}

#[test]
fn files_that_flags_name() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("file"));
    let path = file.to_str().unwrap();
    for (text, parts) in [
        ("lisen = \"127.0.0.1:1\"", &["unknown setting `lisen`; the nearest one is `listen`"][..]),
        ("memory-cache = \"12Q\"", &["`12Q` is no size"]),
        ("log-level = [1]", &["`log-level` must be a single value"]),
        ("listen = ", &["line 1"]),
        ("[s3]\nregoin = \"x\"", &["in [s3]: unknown setting `regoin`"]),
        ("\u{0}\u{1}", &["line 1"]),
    ] {
        std::fs::write(&file, text).unwrap();
        let exit = Serve::new(&data).args(["--config", path]).refused();
        fails(&format!("a config file that says {text:?}"), &exit, &[&[path], parts].concat());
    }
    std::fs::write(&file, [0xff, 0xfe, 0x00]).unwrap();
    let exit = Serve::new(&data).args(["--config", path]).refused();
    fails("a config file of binary bytes", &exit, &[path, "UTF-8"]);
    let exit = Serve::new(&data).args(["--tls-cert", path, "--tls-key", path]).refused();
    fails("a certificate of binary bytes", &exit, &[path]);
    std::fs::write(&file, "\n").unwrap();
    let exit = Serve::new(&data).args(["--root-password-file", path]).refused();
    fails("an empty password file", &exit, &[path, "first line is empty"]);
    let exit = Serve::new(&data).args(["--config", folder.path().to_str().unwrap()]).refused();
    fails("a folder as config file", &exit, &[folder.path().to_str().unwrap(), "directory"]);
    assert_eq!(Serve::new(&data).start().terminate(), Some(0));
    for name in ["tls/cert.pem", "tls/key.pem", "tls/password-rsa.der"] {
        let kept = data.join(name);
        let intact = std::fs::read(&kept).unwrap();
        std::fs::write(&kept, "garbage").unwrap();
        fails(&format!("{name} overwritten with garbage"), &Serve::new(&data).refused(), &[kept.to_str().unwrap()]);
        std::fs::write(&kept, intact).unwrap();
    }
    assert_eq!(Serve::new(&data).start().terminate(), Some(0));
}

#[test]
fn addresses() {
    let folder = tempfile::tempdir().unwrap();
    for address in ["nonsense", "203.0.113.9:1", "127.0.0.1:99999"] {
        let data = folder.path().join("data");
        let args =
            ["serve", "--data-dir", data.to_str().unwrap(), "--admin-listen", "127.0.0.1:0", "--listen", address];
        fails(&format!("--listen {address}"), &run(args, Vec::new()), &[address, "--listen"]);
    }
}

#[test]
fn a_port_that_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    for flag in ["--listen", "--admin-listen"] {
        let data = folder.path().join("data");
        let other = if flag == "--listen" { "--admin-listen" } else { "--listen" };
        let args = ["serve", "--data-dir", data.to_str().unwrap(), flag, &address, other, "127.0.0.1:0"];
        let exit = run(args, Vec::new());
        fails(&format!("{flag} on a port that is taken"), &exit, &[&address, "taken by another process", flag]);
    }
}

#[test]
fn other_verbs() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let cases: &[(&[&str], &[&str])] = &[
        (&["srve"], &["srve", "serve"]),
        (&["admin", "status", "--addr", &closed], &[&closed, "--addr", "refused"]),
        (&["admin", "failover", "--addr", &closed], &[&closed, "--addr"]),
        (&["admin", "add-node", "--id", "4", "--node-addr", "nonsense"], &["`nonsense` is not HOST:PORT"]),
        (&["admin", "nonsense"], &["nonsense"]),
        (&["store", "probe", "nonsense"], &["nonsense", "file:///path"]),
        (&["bench", "nonsense", "--store", "memory:///"], &["nonsense", "ycsb-a"]),
        (&["bench", "ycsb-a", "--addr", &closed], &[&closed]),
        (&["bench", "ycsb-a", "--store", "nonsense"], &["nonsense"]),
    ];
    for (args, parts) in cases {
        fails(&format!("holdfast {}", args.join(" ")), &run(*args, Vec::new()), parts);
    }
}
