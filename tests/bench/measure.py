"""How scripts/bench measures: what a server spends while something is done to it."""

import os
import pathlib
import re
import resource
import signal
import statistics
import subprocess
import tempfile
import threading
import time

from clients import GIB, Link
from servers import PATIENCE, say

TICK = os.sysconf("SC_CLK_TCK")

# wrk asks for one path after the other.
TURNS = """
local paths, at = {}, 0
for path in io.lines("%s") do paths[#paths + 1] = path end
request = function()
  at = at %% #paths + 1
  return wrk.format("GET", paths[at])
end
"""


def busy():
    """CPU seconds that all processors together have been busy."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:8])) / TICK


def own():
    """CPU seconds of this process and of those that it waited for."""
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def seconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60}[unit]


def load(server, paths, headers=None, duration=5, connections=16, head=False):
    """Requests paths in turn, as fast as possible. `others` is the load of everything else here, in processors."""
    address = f"http://127.0.0.1:{server.port}"
    # wrk waits for the body that an answer to HEAD announces; ab doesn't.
    asking = ["ab", "-i", "-k", "-q", f"-c{connections}", f"-t{duration}", "-n100000000"]
    command = asking if head else ["wrk", "-t1", f"-c{connections}", f"-d{duration}s", f"--timeout={PATIENCE}s", "--latency"]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    with tempfile.TemporaryDirectory() as folder:
        if len(paths) > 1:
            listed, turns = pathlib.Path(folder) / "paths", pathlib.Path(folder) / "turns.lua"
            listed.write_text("".join(f"{path}\n" for path in paths))
            turns.write_text(TURNS % listed)
            command += ["-s", str(turns)]
        server.forget_peak()
        cpu, all_busy, mine, began = server.cpu(), busy(), own(), time.monotonic()
        run = subprocess.run([*command, address + paths[0]], check=True, capture_output=True, text=True)
    spent, took = server.cpu() - cpu, time.monotonic() - began
    others = (busy() - all_busy - spent - (own() - mine)) / took
    text = run.stdout
    failed = re.search(r"Failed requests: +([1-9]\d*)", text)
    if "Non-2xx" in text or "Socket errors" in text or failed:
        raise RuntimeError(f"{server.name}: {paths[0]}: {text}")
    count = int(re.search(r"Complete requests: +(\d+)|(\d+) requests in", text).group(1 if head else 2))
    latency = dict(re.findall(r"(\d+)%\s+([\d.]+(?:[a-z]+)?)", text))
    latency = {share: time if time[-1].isalpha() else f"{time}ms" for share, time in latency.items()}
    return {
        "rps": count / took,
        "per_cpu": count / spent,
        "us": spent / count * 1e6,
        "p50_ms": seconds(latency["50"]) * 1000,
        "p99_ms": seconds(latency["99"]) * 1000,
        "peak_mib": server.memory("VmHWM"),
        "others": max(others, 0),
    }


def transfer(server, size, work):
    """Moves `size` bytes, once the kernel has written what others left to it: who syncs nothing would burden the next."""
    os.sync()
    server.forget_peak()
    cpu, began = server.cpu(), time.monotonic()
    work()
    took, spent = time.monotonic() - began, server.cpu() - cpu
    return {"mb_s": size / took / 1e6, "cpu_gib": spent * GIB / size, "peak_mib": server.memory("VmHWM")}


def at_once(number, work):
    """Does something in several threads at a time."""
    with Crowd(None, number, lambda link, number, turn: work(), once=True):
        pass


class Crowd:
    """Threads that do `work(link, number, turn)` again and again until told to stop, or once, each on its own link."""

    def __init__(self, server, size, work, once=False):
        self.server, self.work, self.once = server, work, once
        self.over, self.failed, self.took = threading.Event(), None, []
        self.threads = [threading.Thread(target=self.run, args=(number,), daemon=True) for number in range(size)]

    def run(self, number):
        try:
            link, turn = self.server and Link(self.server), 0
            while not self.over.is_set():
                began = time.monotonic()
                self.work(link, number, turn)
                self.took.append(time.monotonic() - began)
                turn += 1
                if self.once:
                    break
        except Exception as error:  # Reported by the thread that measures.
            self.failed = error
            self.over.set()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        if not self.once:
            self.over.set()
        for thread in self.threads:
            thread.join()
        if self.failed:
            raise RuntimeError("what was done at the same time failed") from self.failed


def crowd(server, size, duration, work):
    """What a server does for a crowd, for some seconds."""
    server.forget_peak()
    cpu, began = server.cpu(), time.monotonic()
    with Crowd(server, size, work) as people:
        people.over.wait(duration)
    took, spent, count = time.monotonic() - began, server.cpu() - cpu, len(people.took)
    return {
        "per_second": count / took,
        "cpu_ms": spent / count * 1000,
        "p50_ms": share(people.took, 50) * 1000,
        "p99_ms": share(people.took, 99) * 1000,
        "peak_mib": server.memory("VmHWM"),
    }


def share(times, percent):
    return sorted(times)[min(len(times) * percent // 100, len(times) - 1)]


def syncs(server, work):
    """How often a server calls fsync and fdatasync while something is done once."""
    file = server.folder / "strace"
    command = ["strace", "-f", "-c", "-e", "trace=fsync,fdatasync", "-o", str(file), "-p", str(server.process.pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        said = strace.stderr.readline()
        if "attached" not in said:
            raise RuntimeError(f"strace can't watch {server.name}: {said}")
        work()
        # What it does after it has answered counts too.
        time.sleep(0.3)
        strace.send_signal(signal.SIGINT)
        strace.wait(PATIENCE)
    return sum(int(calls) for calls in re.findall(r"(?m)^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s.*sync$", file.read_text()))


def median(runs):
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def turn_about(times, things, after=lambda: None):
    """Does things of several servers by turns, in each round beginning with another server: medians.

    `things` is name → server → work, and `after` tidies up after a round.
    """
    runs = {}
    for turn in range(times):
        for thing, works in things.items():
            names = list(works)
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                seen = works[name]()
                runs.setdefault(thing, {}).setdefault(name, []).append(seen)
                say(f"  {thing}, {name}: " + ", ".join(f"{key} {value:.1f}" for key, value in seen.items()))
        after()
    return {thing: {name: median(runs[thing][name]) for name in works} for thing, works in things.items()}
