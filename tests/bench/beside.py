"""Part `beside` of scripts/bench: how long lookups take while the server is busy with something that takes long."""

import contextlib
import json
import re
import subprocess
import time

import pushers
from clients import AGENT, MIB, Image, Library, Link, blob_path, push_blob
from growth import Filled, tagged
from measure import Crowd, load, turn_about
from report import table
from servers import PATIENCE, say

# Images on the server, and tags in the container that is listed.
IMAGES, FEW_IMAGES, TAGS = 10_000, 500, 10_000
# Who lists and who pushes at a time; who pulls at a time, and how much each.
MANY, HERD, SIZE = 16, 1000, 52 * MIB
# Slow enough that the lookups alone saturate no server.
READERS = 4


class Beside:
    """Our server with much on it, and what it may be busy with."""

    def __init__(self, bench):
        self.bench = bench
        self.server = bench.ours(bench.folder / "beside")
        filled = Filled(self.server)
        filled.fill(FEW_IMAGES if bench.options.quick else IMAGES)
        self.paths = [f"/v1/images/{name}:{tag}?arch=amd64" for name, tag in filled.some()]
        name, place = tagged(self.server, FEW_IMAGES if bench.options.quick else TAGS)
        self.lists = f"/v2/{name}/tags/list", f"/v1/containers/{name}", f"/v2/tags/{place}", "/v1/search?value=user"
        image = Image(SIZE)
        with contextlib.closing(Link(self.server)) as link:
            Library(link, self.server.token).place("alice/herd/one")
            push_blob(link, "alice/herd/one", image)
        self.blob = blob_path("alice/herd/one", image)

    @contextlib.contextmanager
    def quiet(self):
        yield

    @contextlib.contextmanager
    def listers(self):
        def work(link, number, turn):
            link.ask("GET", self.lists[(number + turn) % len(self.lists)])

        with Crowd(self.server, MANY, work):
            yield

    @contextlib.contextmanager
    def sweeps(self):
        operator = {"Authorization": f"Bearer {self.server.operator}", **AGENT}

        def work(link, number, turn):
            link.ask("POST", "/api/sweep", json.dumps({}), operator)

        with Crowd(self.server, 1, work):
            yield

    @contextlib.contextmanager
    def herd(self):
        with self.pulling():
            # Until all have come: one that finds the queue of new connections full tries again after a second.
            time.sleep(5)
            yield

    @contextlib.contextmanager
    def pushers(self):
        with Crowd(self.server, MANY, pushers.images(self.server, MANY)):
            yield

    def pulling(self):
        """As many as the herd, again and again, until it is told to stop."""
        url = f"http://127.0.0.1:{self.server.port}{self.blob}"
        command = ["wrk", "-t1", f"-c{HERD}", "-d1h", f"--timeout={PATIENCE}s", url]
        return Pulling(subprocess.Popen(command, stdout=subprocess.DEVNULL))

    def looked_up(self, meanwhile):
        with meanwhile():
            seen = load(self.server, self.paths, AGENT, self.bench.seconds * 2, connections=READERS)
        return {key: seen[key] for key in ("p50_ms", "p99_ms", "rps", "peak_mib")}

    def herd_alone(self):
        """All of the herd pull once, and read everything."""
        self.server.forget_peak()
        before, cpu = self.server.memory("VmRSS"), self.server.cpu()
        url = f"http://127.0.0.1:{self.server.port}{self.blob}"
        command = ["ab", "-q", "-c", str(HERD), "-n", str(HERD), "-s", str(PATIENCE), url]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        whole = int(re.search(r"Complete requests: +(\d+)", text)[1])
        moved = int(re.search(r"HTML transferred: +(\d+)", text)[1])
        if whole != HERD or moved != HERD * SIZE or not re.search(r"Failed requests: +0\b", text):
            raise RuntimeError(f"not all of the herd had everything: {text}")
        took = float(re.search(r"Time taken for tests: +([\d.]+)", text)[1])
        spent, peak = self.server.cpu() - cpu, self.server.memory("VmHWM")
        moved_gib = moved / (1 << 30)
        return {"mb_s": moved / took / 1e6, "cpu_gib": spent / moved_gib, "before_mib": before, "peak_mib": peak}


class Pulling:
    """wrk, until it is told to stop."""

    def __init__(self, process):
        self.process = process

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(PATIENCE)


def run(bench):
    beside = Beside(bench)
    busy = {
        "nothing else": beside.quiet,
        f"{MANY} who list": beside.listers,
        "sweeps, one after the other": beside.sweeps,
        f"{HERD} who pull {SIZE // MIB} MiB each": beside.herd,
        f"{MANY} who push images": beside.pushers,
    }

    def works(meanwhile):
        return {beside.server.name: lambda: beside.looked_up(meanwhile)}

    found = turn_about(bench.times, {kind: works(meanwhile) for kind, meanwhile in busy.items()})
    result = {"lookups": {kind: seen[beside.server.name] for kind, seen in found.items()}}
    say("  the herd alone")
    result["herd"] = beside.herd_alone()
    bench.stop(beside.server)
    return {**result, "text": report(result)}


def report(result):
    seen, herd = result["lookups"], result["herd"]
    quiet = next(iter(seen.values()))["p99_ms"]
    rows = [
        [kind, f"{figures['rps']:.0f}", f"{figures['p50_ms']:.2f}", f"{figures['p99_ms']:.2f}",
         f"{figures['p99_ms'] / quiet:.1f}", f"{figures['peak_mib']:.0f}"]
        for kind, figures in seen.items()
    ]
    head = [f"lookups by {READERS} at a time, beside", "lookups/s", "p50, ms", "p99, ms", "times quiet", "peak memory, MiB"]
    most = 128 + HERD / 16
    return [
        table(head, rows),
        f"{HERD} pulls of {SIZE // MIB} MiB at once: {herd['mb_s']:.0f} MB/s, {herd['cpu_gib']:.2f} CPU seconds per GiB, "
        f"{herd['before_mib']:.0f} MiB before and {herd['peak_mib']:.0f} MiB at most (goal: {most:.0f}).\n",
    ]
