#!/usr/bin/env python3
"""How warm the page cache stays: over kill -9 and restart, and through compactions.

    tests/setup.sh                       # fetches SeaweedFS
    cargo build --release
    benches/compare/hit-rate.py restart      # 5 GB on NVMe; hit rate of the last minute before and of the first after
    benches/compare/hit-rate.py compaction   # Zipf reads, then the same with Zipf updates that keep compaction busy

A server on a real S3 server on loopback, `holdfast bench` as its load. The hit rate is the share of statements, each of which
reads or updates one row, that fetched no page from the bucket; by the server's own counters, second by second. (The share of
pages alone would fall when updates begin: popular rows are then in RAM without their pages.)

Exit status: 0 if the bar holds (restart: at most 5 points lost; compaction: at most 5 points), 1 if not, 2 if something could
not run.
"""
import argparse
import importlib.util
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("three", HERE / "three-nodes.py")
three = importlib.util.module_from_spec(spec)
spec.loader.exec_module(three)

DEFAULTS = {
    "restart": {"rows": 5_600_000, "seconds": 60, "memtable": "32M", "nvme": "7G"},
    "compaction": {"rows": 600_000, "seconds": 180, "memtable": "4M", "nvme": "320M"},
}
PORT, ADMIN = 13450, 13451
# Reads and updates are of one table: both by rows in key order, of which the popular ones lie apart.
READS, UPDATES = ["point-select", "--distribution=zipfian"], ["update", "--distribution=zipfian"]
STATEMENTS = "commands_total{command=\"execute\"}"
FIGURES = [STATEMENTS, "cache_ram_hits", "cache_nvme_hits", "cache_fetches", "cache_nvme_bytes", "cache_nvme_entries", "compactions", "flushes"]


class Server:
    """A server whose start is timed, and whose counters are read."""

    def __init__(self, options, work):
        command = [options.bin, "serve", "--data-dir", str(work / "data"), "--store", "s3://holdfast/warm"]
        command += ["--listen", f"127.0.0.1:{PORT}", "--admin-listen", f"127.0.0.1:{ADMIN}"]
        command += ["--memory-cache", options.cache, "--nvme-cache", options.nvme, "--memtable-size", options.memtable]
        began = time.monotonic()
        with open(work / "server.log", "a") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        line = self.process.stdout.readline()
        self.ready = time.monotonic() - began
        if not line.startswith("holdfast ready"):
            raise three.compare.CannotRun("the server did not start; its log: " + (work / "server.log").read_text()[-2000:])

    def figures(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found = {}
        for name in FIGURES:
            match = re.search(rf"^holdfast_{re.escape(name)} ([\d.e+]+)$", text, re.MULTILINE)
            found[name] = float(match.group(1)) if match else 0.0
        return found

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def bench(options, workload, seconds, threads, *flags):
    command = [options.bin, "bench", *workload, "--addr", f"127.0.0.1:{PORT}", f"--rows={options.rows}", f"--seconds={seconds}"]
    command += [f"--threads={threads}", f"--value-size={options.value_size}", *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def done(process):
    out = process.communicate()[0]
    if process.returncode:
        raise three.compare.CannotRun("the bench failed: " + out[-1000:])
    return out


def watch(server, seconds):
    """The counters of each second, as differences."""
    samples = [server.figures()]
    for _ in range(seconds):
        time.sleep(1)
        samples.append(server.figures())
    return [{name: after[name] - before[name] for name in FIGURES} for before, after in zip(samples, samples[1:])]


def rate(seconds):
    statements, fetches = (sum(second[name] for second in seconds) for name in (STATEMENTS, "cache_fetches"))
    return 100 * (1 - fetches / max(1.0, statements))


def reads(options, server, seconds):
    """Zipf reads for so long; the counters of each second, without the first and the last."""
    load = bench(options, READS, seconds + 3, options.threads, "--skip-load")
    time.sleep(1)
    seen = watch(server, seconds)
    out = done(load)
    throughput = re.search(r"throughput\s+([\d,]+)", out)
    return seen, throughput.group(1) if throughput else "?"


def restart(options, work):
    server = Server(options, work)
    try:
        done(bench(options, READS, options.warm, options.threads))
        before, at_rate = reads(options, server, options.seconds)
        held = server.figures()
        print(f"before: hit rate of {len(before)} s {rate(before):.2f} %, {at_rate} reads/s, {held['cache_nvme_bytes'] / 2**30:.2f} GiB and {held['cache_nvme_entries']:.0f} pages on NVMe", flush=True)
        server.kill()
        server = Server(options, work)
        back = server.figures()
        print(f"after kill -9: ready after {server.ready:.2f} s, {back['cache_nvme_bytes'] / 2**30:.2f} GiB and {back['cache_nvme_entries']:.0f} pages on NVMe", flush=True)
        after, at_rate = reads(options, server, options.seconds)
        print(f"after: hit rate of the first {len(after)} s {rate(after):.2f} %, {at_rate} reads/s; of the first 10 s {rate(after[:10]):.2f} %")
        return rate(before) - rate(after) <= 5
    finally:
        server.kill()


def compaction(options, work):
    server = Server(options, work)
    try:
        done(bench(options, READS, options.warm, options.threads))
        quiet, _ = reads(options, server, min(options.seconds, 60))
        updates = bench(options, UPDATES, options.seconds + 6, options.writers, "--skip-load")
        time.sleep(1)
        busy, _ = reads(options, server, options.seconds)
        done(updates)
        compactions = sum(second["compactions"] for second in busy)
        if not compactions:
            raise three.compare.CannotRun("nothing was compacted: smaller --memtable or more --seconds")
        while_compacting = [second for second in busy if second["compactions"]]
        windows = [rate(busy[at : at + 5]) for at in range(len(busy) - 4)]
        if options.each:
            for at, second in enumerate(busy):
                print(f"second {at}: {rate([second]):.2f} %", *(f"{name} {second[name]:.0f}" for name in FIGURES))
        flushes = sum(second["flushes"] for second in busy)
        print(f"reads alone: hit rate {rate(quiet):.2f} %; with updates, {compactions:.0f} compactions and {flushes:.0f} flushes: {rate(busy):.2f} %")
        print(f"seconds in which a compaction ended ({len(while_compacting)}): {rate(while_compacting):.2f} %; worst 5 s {min(windows):.2f} % (from second {windows.index(min(windows))} on), median {statistics.median(windows):.2f} %")
        return rate(quiet) - min(windows) < 5
    finally:
        server.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("what", choices=["restart", "compaction"])
    add("--bin", default=str(HERE.parents[1] / "target/release/holdfast"))
    add("--rows", type=int, help="5,600,000 for the restart, 600,000 for compaction")
    add("--value-size", type=int, default=1000)
    add("--threads", type=int, default=16)
    add("--writers", type=int, default=8, help="clients that update rows, for compaction")
    add("--warm", type=int, default=60, help="seconds of reads before the measurement")
    add("--seconds", type=int, help="of the measurement; 60 for the restart, 180 for compaction, which rests while commits come")
    add("--each", action="store_true", help="print the figures of each second, too")
    add("--cache", default="128M")
    add("--nvme", help="7G for the restart, 320M, half of the rows, for compaction")
    add("--memtable", help="32M for the restart, 4M for compaction")
    add("--dir", help="where the data lies; the system's folder for temporary files")
    options = parser.parse_args()
    for name, value in DEFAULTS[options.what].items():
        setattr(options, name, getattr(options, name) or value)
    if shutil.which(options.bin) is None:
        raise three.compare.CannotRun(f"{options.bin} is missing")
    with three.on_s3("hit-rate", options.dir) as work:
        return {"restart": restart, "compaction": compaction}[options.what](options, work)


if __name__ == "__main__":
    try:
        sys.exit(0 if main() else 1)
    except three.compare.CannotRun as why:
        print(f"cannot run: {why}", file=sys.stderr)
        sys.exit(2)
