#!/usr/bin/env python3
"""Three nodes against one: the same build, the same bucket server, the same machine, sysbench through the leader.

    tests/setup.sh                       # fetches SeaweedFS and sysbench
    cargo build --release
    benches/compare/three-nodes.py

Starts a real S3 server, a single node and a cluster of three on loopback, runs the workload on both in turn (A B A B
...), and prints transactions per second, their ratio round by round, and the latency of durable single-row commits
(p50, p99; insert, one client) on both.

Exit status: 0 if the median ratio reaches --bar, 1 if not, 2 if something could not run.
"""
import argparse
import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("compare", HERE / "sysbench-vs-innodb.py")
compare = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compare)

S3, MASTER, VOLUME, FILER = 18333, 18933, 18080, 18888
SINGLE = 13410
KEY, SECRET = "holdfast", "holdfast-secret"


def answers(port):
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def start_s3(work):
    """SeaweedFS with a bucket named holdfast, as tests/setup.sh fetched it."""
    cache = Path(os.environ.get("HOLDFAST_TEST_CACHE", Path.home() / ".cache/holdfast-tests"))
    weed = cache / "weed-4.47/weed"
    if not weed.exists():
        raise compare.CannotRun(f"{weed} is missing: run tests/setup.sh")
    config = work / "s3.json"
    credentials = [{"accessKey": KEY, "secretKey": SECRET}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    config.write_text(json.dumps({"identities": [{"name": "all", "credentials": credentials, "actions": actions}]}))
    (work / "s3").mkdir()
    command = [weed, "-logtostderr=true", "server", f"-dir={work}/s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]
    command += ["-s3.iam=false", f"-s3.port={S3}", f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += [f"-master.port={MASTER}", f"-volume.port={VOLUME}", f"-filer.port={FILER}", "-volume.max=0"]
    # So many volumes of those that deleted objects fill are given back at a time: it looks for more only ten seconds later.
    # With dozens the file system holds up every sync of the log for a second.
    command += ["-master.volumeSizeLimitMB=256", "-master.telemetry=false", "-master.maxParallelVacuumPerServer=4"]
    with open(work / "s3.log", "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    shell = [weed, "shell", f"-master=127.0.0.1:{MASTER}", f"-filer=127.0.0.1:{FILER}"]
    deadline, bucket = time.monotonic() + 60, False
    while time.monotonic() < deadline:
        if not bucket:
            made = subprocess.run(shell, input="s3.bucket.create -name holdfast\nexit\n", capture_output=True, text=True)
            bucket = "error" not in made.stdout + made.stderr
        if bucket and answers(S3):
            return process
        time.sleep(0.5)
    raise compare.CannotRun("SeaweedFS did not come up; its log: " + str(work / "s3.log"))


@contextlib.contextmanager
def on_s3(name, folder=None):
    """A running S3 server, the environment that leads to it, and a folder that goes with both."""
    os.environ.update(AWS_ENDPOINT_URL=f"http://127.0.0.1:{S3}", AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET)
    os.environ.update(AWS_REGION="us-east-1")
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=folder) as work:
        s3 = start_s3(Path(work))
        try:
            yield Path(work)
        finally:
            os.killpg(s3.pid, signal.SIGKILL)
            s3.wait()


def serve(options, work, name, port, flags):
    command = [options.bin, "serve", "--data-dir", f"{work}/{name}", "--memory-cache", options.cache]
    command += ["--listen", f"127.0.0.1:{port}", "--admin-listen", f"127.0.0.1:{port + 100}"] + flags
    return compare.Server(name, port, "InnoDB", command, work / f"{name}.log")


def start_cluster(options, work):
    """Three nodes; answers the leader's and all of them."""
    peers = ",".join(f"{n}=127.0.0.1:{SINGLE + 300 + n}" for n in (1, 2, 3))
    nodes = []
    for n in (1, 2, 3):
        flags = ["--store", "s3://holdfast/three", "--node-id", str(n), "--peers", peers]
        nodes.append(serve(options, work, f"node{n}", SINGLE + n, flags))
    for node in nodes:
        node.wait_until_it_answers(60)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for node in nodes:
            if node.sql("select @@read_only").stdout.strip() == "0":
                return node, nodes
        time.sleep(0.2)
    raise compare.CannotRun("no node takes writes")


def commit_latency(server, options):
    """p50 and p99 of single-row inserts by one client, in ms."""
    percentiles = []
    for percentile in (50, 99):
        command = ["sysbench", "oltp_insert", "--db-driver=mysql", "--mysql-host=127.0.0.1", f"--mysql-port={server.port}"]
        command += ["--mysql-user=root", "--mysql-db=sbtest", f"--tables={options.tables}", f"--table-size={options.rows}"]
        command += ["--threads=1", f"--time={options.seconds}", f"--percentile={percentile}", "run"]
        ran = subprocess.run(command, capture_output=True, text=True)
        found = re.search(rf"{percentile}th percentile:\s+([\d.]+)", ran.stdout)
        if ran.returncode or not found:
            raise compare.CannotRun(f"{server.name}: {(ran.stderr + ran.stdout)[-600:]}")
        percentiles.append(float(found.group(1)))
    return percentiles


def run(options, single, leader):
    for server in (single, leader):
        print(f"load of {server.name}: {server.load(options):.1f} s", flush=True)
    ratios = []
    for number in range(1, options.rounds + 1):
        one, one_p95 = single.measure(options, options.workload, options.threads)
        three, three_p95 = leader.measure(options, options.workload, options.threads)
        ratios.append(three / one)
        print(
            f"round {number}: {options.workload} at {options.threads} threads: one node {one:.0f} tps (p95 {one_p95:.2f} ms), "
            f"three {three:.0f} tps (p95 {three_p95:.2f} ms), ratio {three / one:.2f}",
            flush=True,
        )
    for server in (single, leader):
        p50, p99 = commit_latency(server, options)
        print(f"durable commit on {server.name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    middle = statistics.median(ratios)
    print(f"median ratio {middle:.2f} (bar {options.bar})")
    return middle >= options.bar


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--bin", default=str(HERE.parents[1] / "target/release/holdfast"))
    add("--workload", default="oltp_read_write")
    add("--threads", type=int, default=16)
    add("--seconds", type=int, default=5)
    add("--rounds", type=int, default=3)
    add("--tables", type=int, default=4)
    add("--rows", type=int, default=25000)
    add("--cache", default="256M")
    add("--ps-mode", default="auto", choices=["auto", "disable"])
    add("--bar", type=float, default=0.5)
    return parser.parse_args()


def main():
    options = parse_options()
    for program in (options.bin, "sysbench", "mariadb"):
        if shutil.which(program) is None:
            raise compare.CannotRun(f"{program} is missing")
    with on_s3("three-nodes") as work:
        running = []
        try:
            single = serve(options, work, "single", SINGLE, ["--store", "s3://holdfast/one"])
            running.append(single)
            single.wait_until_it_answers(60)
            leader, nodes = start_cluster(options, work)
            running += nodes
            return run(options, single, leader)
        finally:
            for server in running:
                server.stop()


if __name__ == "__main__":
    try:
        sys.exit(0 if main() else 1)
    except compare.CannotRun as why:
        print(f"cannot run: {why}", file=sys.stderr)
        sys.exit(2)
