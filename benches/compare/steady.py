#!/usr/bin/env python3
"""Random updates at the highest rate for a long time: is every second as good as the median one?

    tests/setup.sh                       # fetches SeaweedFS
    cargo build --release
    benches/compare/steady.py --minutes 20 --png steady.png

Runs `holdfast bench update` embedded, on a real S3 server on loopback, and prints throughput per second (median, slowest),
latency, write amplification (bytes put into the bucket and the log per byte of rows written), space amplification (bytes in
the bucket at the end per byte of live rows) and read amplification (GETs per update). With --png the seconds are plotted,
which wants matplotlib.

The highest rate takes many clients: sixteen wait for each other's syncs, give two thirds of it, and have a bad second whenever
the disk has one.

The S3 server shares our machine here, and takes a whole core while objects come in, which no bucket of others would do. So
it gets the last core, and the database the others; --together leaves that to the scheduler. Left alone, the kernel keeps
gigabytes of its objects in RAM and writes them out in bursts that hold up every sync of the log for a second. So they are
written out all the time; --bursts leaves that to the kernel.

How fast the machine itself was is measured beside, by a fixed loop that takes a hundredth of the database's core, and by the
time that the hypervisor gave to others: a second can't be like the others when a neighbour has half of the core. The bar does
not know of it.

Exit status: 0 if no second is below --bar of the median, 1 if one is, 2 if something could not run.
"""
import argparse
import contextlib
import ctypes
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("three", HERE / "three-nodes.py")
three = importlib.util.module_from_spec(spec)
spec.loader.exec_module(three)

# As in Linux's <linux/fs.h>.
SYNC_FILE_RANGE_WRITE = 2


@contextlib.contextmanager
def written_out(folder):
    """Has the kernel write out what the S3 server has put into its volumes, five times a second. That is no fsync, for which
    the disk would have to empty its own cache while the log waits."""
    libc, stop = ctypes.CDLL(None), threading.Event()
    libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]

    def run():
        while not stop.wait(0.2):
            for volume in folder.glob("**/*.dat"):
                with contextlib.suppress(FileNotFoundError), open(volume, "rb") as file:
                    libc.sync_file_range(file.fileno(), 0, 0, SYNC_FILE_RANGE_WRITE)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def given_back():
    """Has the S3 server give back what deleted objects take of its volumes, which it does four times an hour by itself: the
    disk would be full by then."""
    stop, url = threading.Event(), f"http://127.0.0.1:{three.MASTER}/vol/vacuum?garbageThreshold=0.5"

    def run():
        while not stop.wait(10):
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=600) as answer:
                answer.read()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()


class Speed:
    """How fast the database's cores are, second by second: a fixed loop's pace, less what the hypervisor gave to others."""

    def __init__(self):
        self.took, self.seconds, self.stolen = [], [], []
        self.before = self.ticks()
        threading.Thread(target=self.run, daemon=True).start()

    @staticmethod
    def ticks():
        """Of these cores up to now: stolen, and all."""
        cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        with open("/proc/stat") as lines:
            counts = [[int(count) for count in line.split()[1:9]] for line in lines if line.split()[0] in cores]
        return sum(core[7] for core in counts), sum(map(sum, counts))

    def run(self):
        while True:
            before = time.thread_time()
            for _ in range(20_000):
                pass
            self.took.append(time.thread_time() - before)
            time.sleep(0.1)

    def heard(self, line):
        """The bench said that a second of its run is over, or something of what came before."""
        took, self.took = self.took, []
        before, self.before = self.before, self.ticks()
        if line.startswith("run: "):
            stolen = (self.before[0] - before[0]) / max(1, self.before[1] - before[1])
            self.stolen.append(stolen)
            self.seconds.append((1 - stolen) * len(took) / sum(took) if took else 0)


def bench(options, work, speed):
    command = [options.bin, "bench", "update", "--store", "s3://holdfast/steady", "--data-dir", str(work / "data")]
    command += [f"--rows={options.rows}", f"--value-size={options.value_size}", f"--threads={options.threads}"]
    command += [f"--seconds={int(options.minutes * 60)}", "--warmup=30", "--flush-after-load", "--json", f"--memory-cache={options.cache}"]
    command += [f"--memtable-size={options.memtable}", f"--nvme-cache={options.nvme}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ran:
        for line in ran.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            speed.heard(line)
        report = ran.stdout.read()
    if ran.returncode:
        raise three.compare.CannotRun(f"the bench ended with {ran.returncode}")
    return json.loads(report)


def of_the_machine(seconds, speed, bar):
    """How fast the machine was in the seconds below the bar."""
    speeds, stolen = speed.seconds[: len(seconds)], speed.stolen[: len(seconds)]
    median, usual = statistics.median(seconds), statistics.median(speeds)
    pairs = list(zip(seconds, speeds))
    below = [f"{100 * second / median:.0f} % at {100 * speed / usual:.0f} %" for second, speed in pairs if second < bar * median]
    own = sum(second / median < bar * min(1, speed / usual) for second, speed in pairs)
    text = f"the machine's speed, second by second: slowest {100 * min(speeds) / usual:.0f} % of its median, fastest {100 * max(speeds) / usual:.0f} %; stolen from it: mean {100 * statistics.mean(stolen):.1f} %, most {100 * max(stolen):.0f} %"
    if below:
        text += f"; seconds below (throughput at machine): {', '.join(below)}; {own} of them are below by more than the machine was"
    return text


def plot(report, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    seconds = report["each_second"]
    figure, axes = pyplot.subplots(figsize=(12, 4))
    axes.plot(range(1, len(seconds) + 1), seconds, linewidth=0.8)
    axes.axhline(statistics.median(seconds) / 2, color="red", linewidth=0.8, label="half of the median")
    axes.set(xlabel="second", ylabel="updates per second", ylim=(0, None))
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--bin", default=str(HERE.parents[1] / "target/release/holdfast"))
    add("--minutes", type=float, default=20)
    add("--rows", type=int, default=1_000_000)
    add("--value-size", type=int, default=1000)
    add("--threads", type=int, default=256)
    add("--cache", default="256M")
    add("--nvme", default="2G")
    add("--memtable", default="64M")
    add("--png")
    add("--dir", help="where the data lies; the system's folder for temporary files")
    add("--bursts", action="store_true", help="leave it to the kernel when the S3 server's objects are written out")
    add("--together", action="store_true", help="leave it to the scheduler where the S3 server and the database run")
    add("--bar", type=float, default=0.5)
    options = parser.parse_args()
    if shutil.which(options.bin) is None:
        raise three.compare.CannotRun(f"{options.bin} is missing")
    cores = sorted(os.sched_getaffinity(0))
    apart = not options.together and len(cores) > 1
    if apart:
        # Threads and children inherit it: what is started now runs there.
        os.sched_setaffinity(0, cores[-1:])
    with three.on_s3("steady", options.dir) as work:
        with given_back(), contextlib.nullcontext() if options.bursts else written_out(work / "s3"):
            if apart:
                os.sched_setaffinity(0, cores[:-1])
            speed = Speed()
            report = bench(options, work, speed)
    if options.png:
        plot(report, options.png)
    seconds = report["each_second"]
    median, worst = statistics.median(seconds), min(seconds)
    below = sum(second < options.bar * median for second in seconds)
    written = report["operations"] * options.value_size
    commits, engine = report["commits"], report["engine"]
    puts, gets = engine["requests"].get("put", {}), engine["requests"].get("get", {})
    print(f"{len(seconds)} s, {report['operations']} updates; each second: median {median:.0f}, slowest {worst}")
    print(f"{below} seconds below {options.bar} of the median")
    print(of_the_machine(seconds, speed, options.bar))
    print(f"durable commit: p50 {commits['p50_us'] / 1e3:.2f} ms, p99 {commits['p99_us'] / 1e3:.2f} ms, max {commits['max_us'] / 1e3:.0f} ms")
    print(f"bytes put into the bucket per byte of rows: {puts.get('bytes', 0) / written:.2f}, the archive of the log included")
    print(f"GETs per update: {gets.get('requests', 0) / report['operations']:.4f}, {engine['dollars_per_million_operations']:.4f} $ per million")
    print(f"bytes in objects per byte of live rows: {engine['stored_bytes'] / (options.rows * options.value_size):.2f}")
    return below == 0


if __name__ == "__main__":
    try:
        sys.exit(0 if main() else 1)
    except three.compare.CannotRun as why:
        print(f"cannot run: {why}", file=sys.stderr)
        sys.exit(2)
