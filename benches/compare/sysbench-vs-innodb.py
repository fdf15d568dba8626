#!/usr/bin/env python3
"""Side by side: Holdfast against MariaDB with InnoDB (or MyRocks), same machine, same sysbench, same run.

    apt-get install -y mariadb-server sysbench          # and mariadb-plugin-rocksdb for --engine RocksDB
    cargo build --release
    benches/compare/sysbench-vs-innodb.py

Both servers start on folders of their own, listen on TCP loopback, and sync every commit to disk before they answer.
The peer runs without binlog, which favours it. Each workload runs on the two in turn (A B A B ...), so that a machine
whose speed drifts hits both alike; the ratio is taken round by round, and the median of the rounds is printed. Tables
are made anew before each workload, keys are uniform, and a run with more than 2 % ignored errors fails.

Take the page cache of both to be --cache: innodb_buffer_pool_size here, --memory-cache there.

Exit status: 0 if every ratio reaches --bar and their geometric mean --geomean-bar, 1 if not, 2 if something could not run.
"""
import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORKLOADS = [
    "oltp_point_select",
    "select_random_ranges",
    "oltp_read_only",
    "oltp_insert",
    "oltp_update_index",
    "oltp_update_non_index",
    "oltp_delete",
    "oltp_write_only",
    "oltp_read_write",
]
# These change the number of rows, so whoever comes next starts from a table of another size.
CONSUMING = {"oltp_insert", "oltp_delete"}
PEER_PORT, OUR_PORT = 13306, 13307


class CannotRun(Exception):
    """Something outside the comparison is missing or broken."""


class Server:
    """A server under test: its process, its port, and the engine name that sysbench creates tables with."""

    def __init__(self, name, port, engine, command, log):
        self.name, self.port, self.engine, self.log = name, port, engine, log
        with open(log, "w") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)

    def sql(self, text):
        command = ["mariadb", "--protocol=tcp", "-h127.0.0.1", f"-P{self.port}", "-uroot", "-N", "-e", text]
        return subprocess.run(command, capture_output=True, text=True)

    def wait_until_it_answers(self, seconds=30):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.sql("select 1").returncode == 0:
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.2)
        raise CannotRun(f"{self.name} did not answer on port {self.port}; its log ends:\n" + self.log.read_text()[-2000:])

    def sysbench(self, options, workload, threads, seconds, action):
        return subprocess.run(
            [
                "sysbench",
                workload,
                "--db-driver=mysql",
                "--mysql-host=127.0.0.1",
                f"--mysql-port={self.port}",
                "--mysql-user=root",
                "--mysql-db=sbtest",
                f"--mysql_storage_engine={self.engine}",
                f"--tables={options.tables}",
                f"--table-size={options.rows}",
                f"--threads={threads}",
                f"--time={seconds}",
                f"--db-ps-mode={options.ps_mode}",
                "--rand-type=uniform",
                action,
            ],
            capture_output=True,
            text=True,
        )

    def load(self, options):
        """Makes the tables anew; returns the seconds that took."""
        self.sql("drop database if exists sbtest")
        created = self.sql("create database sbtest")
        if created.returncode:
            raise CannotRun(f"{self.name}: create database failed: {created.stderr}")
        began = time.monotonic()
        prepared = self.sysbench(options, "oltp_read_write", 2, 0, "prepare")
        if prepared.returncode:
            raise CannotRun(f"{self.name}: sysbench prepare failed: {(prepared.stdout + prepared.stderr)[-1500:]}")
        return time.monotonic() - began

    def measure(self, options, workload, threads):
        """One round: transactions per second and the 95th percentile in ms."""
        ran = self.sysbench(options, workload, threads, options.seconds, "run")
        rate = re.search(r"transactions:\s+(\d+)\s+\(([\d.]+) per sec", ran.stdout)
        if ran.returncode or not rate:
            raise RuntimeError(f"{self.name}: {(ran.stderr + ran.stdout)[-600:]!r}")
        # Deadlocks and lock wait timeouts, which sysbench runs again.
        ignored = re.search(r"ignored errors:\s+(\d+)", ran.stdout)
        if ignored and int(ignored.group(1)) > 0.02 * max(1, int(rate.group(1))):
            raise RuntimeError(f"{self.name}: {ignored.group(1)} ignored errors in {rate.group(1)} transactions")
        p95 = re.search(r"95th percentile:\s+([\d.]+)", ran.stdout)
        return float(rate.group(2)), float(p95.group(1)) if p95 else float("nan")

    def stop(self):
        for sig, patience in ((signal.SIGTERM, 30), (signal.SIGKILL, 10)):
            try:
                os.killpg(self.process.pid, sig)
                self.process.wait(patience)
                return
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue


def start_peer(options, work):
    folder = work / "peer"
    folder.mkdir()
    config = folder / "my.cnf"
    lines = [
        "[mysqld]",
        f"datadir={folder}/data",
        f"socket={folder}/mysqld.sock",
        f"port={PEER_PORT}",
        "bind-address=127.0.0.1",
        f"innodb_buffer_pool_size={options.cache}",
        "innodb_log_file_size=2G",
        "innodb_flush_log_at_trx_commit=1",
        "innodb_flush_method=O_DIRECT",
        "innodb_io_capacity=10000",
        "innodb_io_capacity_max=20000",
        "max_connections=500",
        "max_prepared_stmt_count=200000",
        "skip-log-bin",
    ]
    if options.engine == "RocksDB":
        lines += [
            "plugin-load-add=ha_rocksdb.so",
            "rocksdb_flush_log_at_trx_commit=1",
            f"rocksdb_block_cache_size={options.cache}",
        ]
    user = []
    if os.geteuid() == 0:  # mariadbd refuses to run as root
        lines.append("user=mysql")
        user = ["--user=mysql"]
    config.write_text("\n".join(lines) + "\n")
    if user:
        subprocess.run(["chown", "-R", "mysql", work], check=True)
        work.chmod(0o755)
    install = ["mariadb-install-db", f"--defaults-file={config}", "--auth-root-authentication-method=normal"]
    installed = subprocess.run(install + user, capture_output=True, text=True)
    if installed.returncode:
        raise CannotRun("mariadb-install-db failed: " + (installed.stdout + installed.stderr)[-1500:])
    return Server("the peer", PEER_PORT, options.engine, ["mariadbd", f"--defaults-file={config}"], folder / "log")


def start_ours(options, work):
    folder = work / "ours"
    folder.mkdir()
    command = [options.bin, "serve", "--data-dir", f"{folder}/data", "--store", options.store or f"file://{folder}/bucket"]
    command += ["--listen", f"127.0.0.1:{OUR_PORT}", "--memory-cache", options.cache] + options.extra.split()
    return Server("holdfast", OUR_PORT, "InnoDB", command, folder / "log")


def compare(peer, ours, options, workload, threads):
    """One line of the table."""
    a, b = [], []
    for _ in range(options.rounds):
        a.append(peer.measure(options, workload, threads))
        b.append(ours.measure(options, workload, threads))
    ratios = [ours_tps / peer_tps for (peer_tps, _), (ours_tps, _) in zip(a, b)]

    def middle(rounds, which):
        return statistics.median(figures[which] for figures in rounds)

    return {
        "workload": workload,
        "threads": threads,
        "peer": middle(a, 0),
        "ours": middle(b, 0),
        "ratio": statistics.median(ratios),
        "min": min(ratios),
        "max": max(ratios),
        "peer_p95": middle(a, 1),
        "ours_p95": middle(b, 1),
    }


def run(options, peer, ours):
    """Prints the table; returns its rows and whether a line failed."""
    rows, failed = [], False

    def load():
        took = [server.load(options) for server in (peer, ours)]
        time.sleep(options.settle)
        return took

    took = load()
    print(f"load: peer {took[0]:.1f} s, holdfast {took[1]:.1f} s", flush=True)
    print(
        f"{'workload':24}{'threads':>8}{options.engine + ' tps':>14}{'holdfast tps':>14}"
        f"{'ratio':>8}{'min':>7}{'max':>7}{'peer p95':>10}{'ours p95':>10}"
    )
    fresh = True
    for threads in (int(n) for n in options.threads.split(",")):
        for workload in options.workloads.split(","):
            if not fresh or workload in CONSUMING:
                load()
            fresh = False
            try:
                row = compare(peer, ours, options, workload, threads)
            except RuntimeError as error:
                print(f"{workload:24}{threads:8}  FAILED: {error}", flush=True)
                failed = True
                continue
            rows.append(row)
            print(
                f"{workload:24}{threads:8}{row['peer']:14.0f}{row['ours']:14.0f}{row['ratio']:8.2f}"
                f"{row['min']:7.2f}{row['max']:7.2f}{row['peer_p95']:10.2f}{row['ours_p95']:10.2f}",
                flush=True,
            )
    return rows, failed


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--bin", default="target/release/holdfast", help="the holdfast binary")
    add("--store", default="", help="object store URL for holdfast (default: a folder); AWS_* variables are passed on")
    add("--extra", default="", help="more flags for 'holdfast serve'")
    add("--engine", default="InnoDB", choices=["InnoDB", "RocksDB"], help="the peer's storage engine")
    add("--tables", type=int, default=4)
    add("--rows", type=int, default=100_000, help="rows per table")
    add("--cache", default="1G", help="page cache of both")
    add("--threads", default="1,16,64", help="client counts, one pass over the workloads each")
    add("--workloads", default=",".join(WORKLOADS))
    add("--seconds", type=int, default=8, help="seconds of one round")
    add("--rounds", type=int, default=3)
    add("--ps-mode", default="auto", choices=["auto", "disable"], help="prepared statements, or plain text queries")
    add("--settle", type=int, default=0, help="seconds to wait after each load, so that flushes finish")
    add("--bar", type=float, default=0.0, help="least ratio of any line")
    add("--geomean-bar", type=float, default=0.0, help="least geometric mean of the ratios")
    add("--work-dir", default="/var/tmp", help="where both keep their data; the same disk for both")
    add("--json", default="", help="also write the table here")
    return parser.parse_args()


def main():
    options = parse_options()
    missing = [tool for tool in ("mariadb", "mariadbd", "mariadb-install-db", "sysbench") if not shutil.which(tool)]
    if missing:
        raise CannotRun(f"not installed: {', '.join(missing)}\n    apt-get install -y mariadb-server sysbench")
    if not shutil.which(options.bin):
        raise CannotRun(f"{options.bin} is no program: run cargo build --release, or give --bin")
    work = Path(tempfile.mkdtemp(prefix="holdfast-compare.", dir=options.work_dir))
    servers = []
    try:
        for start in (start_peer, start_ours):
            servers.append(start(options, work))
            servers[-1].wait_until_it_answers()
        rows, failed = run(options, *servers)
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(work, ignore_errors=True)
    if not rows:
        return 1
    lowest = min(rows, key=lambda row: row["ratio"])
    mean = statistics.geometric_mean(row["ratio"] for row in rows)
    print(
        f"lowest ratio {lowest['ratio']:.2f} at {lowest['workload']} with {lowest['threads']} threads; "
        f"geometric mean {mean:.2f}"
    )
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if failed or lowest["ratio"] < options.bar or mean < options.geomean_bar else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CannotRun as error:
        print(error, file=sys.stderr)
        sys.exit(2)
