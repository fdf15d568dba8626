#!/usr/bin/env python3
"""Random updates at the highest rate for a long time: is every second as good as the median one?

    tests/setup.sh                       # fetches SeaweedFS
    cargo build --release
    benches/compare/steady.py --minutes 20 --png steady.png

Runs `holdfast bench update` embedded, on a real S3 server on loopback, and prints throughput per second (median, slowest),
latency, write amplification (bytes put into the bucket and the log per byte of rows written), space amplification (bytes in
the bucket at the end per byte of live rows) and read amplification (GETs per update). With --png the seconds are plotted,
which wants matplotlib.

The S3 server shares our machine here, and takes a whole core while objects come in, which no bucket of others would do. So
it gets the last core, and the database the others; --together leaves that to the scheduler. Left alone, the kernel keeps
gigabytes of its objects in RAM and writes them out in bursts that hold up every sync of the log for a second. So they are
written out all the time; --bursts leaves that to the kernel.

How fast the machine itself was is measured beside, by a fixed loop that takes a hundredth of the database's core: a second
can't be like the others when a neighbour has half of the core. The bar does not know of it.

Exit status: 0 if no second is below --bar of the median, 1 if one is, 2 if something could not run.
"""
import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("three", HERE / "three-nodes.py")
three = importlib.util.module_from_spec(spec)
spec.loader.exec_module(three)


@contextlib.contextmanager
def written_out(folder):
    """Writes out what the S3 server has put into its volumes, five times a second."""
    stop = threading.Event()

    def run():
        while not stop.wait(0.2):
            for volume in folder.glob("**/*.dat"):
                with contextlib.suppress(FileNotFoundError), open(volume, "rb") as file:
                    os.fdatasync(file.fileno())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Speed:
    """How fast the core of the calling thread is, second by second."""

    def __init__(self):
        self.took, self.seconds = [], []
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            before = time.thread_time()
            for _ in range(20_000):
                pass
            self.took.append(time.thread_time() - before)
            time.sleep(0.1)

    def second(self):
        """A second is over."""
        took, self.took = self.took, []
        self.seconds.append(len(took) / sum(took) if took else 0)


def bench(options, work, speed):
    command = [options.bin, "bench", "update", "--store", "s3://holdfast/steady", "--data-dir", str(work / "data")]
    command += [f"--rows={options.rows}", f"--value-size={options.value_size}", f"--threads={options.threads}"]
    command += [f"--seconds={int(options.minutes * 60)}", "--warmup=30", "--flush-after-load", "--json", f"--memory-cache={options.cache}"]
    command += [f"--memtable-size={options.memtable}", f"--nvme-cache={options.nvme}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ran:
        for line in ran.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            if line.startswith("run: "):
                speed.second()
        report = ran.stdout.read()
    if ran.returncode:
        raise three.compare.CannotRun(f"the bench ended with {ran.returncode}")
    return json.loads(report)


def of_the_machine(seconds, speeds, bar):
    """How fast the machine was in the seconds below the bar."""
    median, usual = statistics.median(seconds), statistics.median(speeds)
    pairs = list(zip(seconds, speeds))
    below = [f"{100 * second / median:.0f} % at {100 * speed / usual:.0f} %" for second, speed in pairs if second < bar * median]
    own = sum(second / median < bar * min(1, speed / usual) for second, speed in pairs)
    text = f"the machine's speed, second by second: slowest {100 * min(speeds) / usual:.0f} % of its median, fastest {100 * max(speeds) / usual:.0f} %"
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
    add("--threads", type=int, default=16)
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
        with contextlib.nullcontext() if options.bursts else written_out(work / "s3"):
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
    print(of_the_machine(seconds, speed.seconds[: len(seconds)], options.bar))
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
