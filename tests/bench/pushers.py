"""Part `pushers` of scripts/bench: how many pushes a second there are of few and of many at a time."""

import contextlib
import functools
import itertools
import subprocess

from clients import Library, Link, Small, push_blob, push_config, put_manifest
from measure import crowd, syncs, turn_about
from report import compare, table
from servers import Stackroom, peers

SIZES = 1, 4, 16, 64
# What an honest disk takes for a sync.
DELAY_MS = 5
SHIM = f"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static int later(const char *name, int file) {{
    struct timespec delay = {{0, {DELAY_MS} * 1000000}};
    nanosleep(&delay, 0);
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return sync(file);
}}

int fsync(int file) {{ return later("fsync", file); }}
int fdatasync(int file) {{ return later("fdatasync", file); }}
"""
fresh = itertools.count()


def shim(folder):
    """A library that makes each fsync and fdatasync of a program wait first, if the program calls them through libc."""
    source, built = folder / "slow.c", folder / "slow.so"
    source.write_text(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", built, source, "-ldl"], check=True)
    return built


def manifests(server, size, shared=False):
    """Work for a crowd: each puts new manifests with new tags into a repository of its own, or all into one."""
    run, image = next(fresh), Small()
    names = [f"alice/put/r{run}-{0 if shared else number}" for number in range(size)]
    with contextlib.closing(Link(server)) as link:
        for name in set(names):
            push_blob(link, name, image)
            push_config(link, name)

    def work(link, number, turn):
        put_manifest(link, names[number], f"v{number}.{turn}", image, f"{number}.{turn}")

    return work


def images(server, size):
    """Work for a crowd: each pushes small images into a container of its own, as Apptainer does."""
    run = next(fresh)
    with contextlib.closing(Link(server)) as link:
        places = [Library(link, server.token).place(f"alice/push{run}/c{number}") for number in range(size)]

    def work(link, number, turn):
        Library(link, server.token).push(places[number], f"v{turn}", Small())

    return work


def wholes(server, size):
    """Work for a crowd: each pushes small blobs, and their manifests, into a repository of its own."""
    run = next(fresh)
    names = [f"alice/whole/r{run}-{number}" for number in range(size)]
    with contextlib.closing(Link(server)) as link:
        for name in names:
            push_config(link, name)

    def work(link, number, turn):
        image = Small()
        push_blob(link, names[number], image)
        put_manifest(link, names[number], f"v{turn}", image)

    return work


KINDS = {
    "manifest PUT": manifests,
    "manifest PUT into one repository": functools.partial(manifests, shared=True),
    "push of a blob and its manifest": wholes,
    "library push": images,
}


def able(server):
    return {kind: make for kind, make in KINDS.items() if kind != "library push" or isinstance(server, Stackroom)}


def counted(server):
    """Syncs in one push of each kind, by a server that has been pushed to before."""
    found = {}
    for kind, make in able(server).items():
        work = make(server, 1)
        with contextlib.closing(Link(server)) as link:
            work(link, 0, 0)
            found[kind] = syncs(server, lambda: work(link, 0, 1))
    return found


def pushed(bench, server, make, size):
    return crowd(server, size, bench.seconds, make(server, size))


def plan(bench, servers):
    """Kind and size → server → work."""
    things = {}
    for kind in KINDS:
        for size in SIZES:
            things[f"{kind}, {size} at once"] = {
                server.name: functools.partial(pushed, bench, server, KINDS[kind], size)
                for server in servers if kind in able(server)
            }
    return things


def run(bench):
    folder = bench.folder / "pushers"
    folder.mkdir()
    ours = bench.ours(folder / "ours")
    slow = bench.ours(folder / "slow", preload=shim(folder))
    others = [bench.start(kind, folder / kind.name) for kind in peers()]
    found = {server.name: counted(server) for server in (ours, *others)}
    result = {
        "syncs": found,
        "disk": turn_about(bench.times, plan(bench, [ours, *others])),
        "slow": turn_about(bench.times, plan(bench, [slow])),
    }
    for server in (ours, slow, *others):
        bench.stop(server)
    return {**result, "text": report(result)}


def report(result):
    kinds, found, name = list(KINDS), result["syncs"], Stackroom.name
    rows = [[server, *(counts.get(kind, "") for kind in kinds)] for server, counts in found.items()]
    none = [f"{kind} of {server}" for server, counts in found.items() for kind, count in counts.items() if count == 0]
    text = [
        table(["syncs (fsync, fdatasync) in one push", *kinds], rows),
        f"Without any sync: {', '.join(none) or 'none'}. What is acknowledged so may be lost with the power.\n",
        compare(result["disk"], ("per_second", "cpu_ms", "peak_mib")),
        f"With {DELAY_MS} ms more for each sync. Only ours can be slowed so: the peers are Go programs, which call the "
        "kernel without libc.\n",
    ]
    rows = []
    for thing, works in result["slow"].items():
        quick, slow = result["disk"][thing][name], works[name]
        rows.append([thing, f"{quick['per_second']:.0f}", f"{slow['per_second']:.0f}", f"{quick['cpu_ms']:.2f}",
                     f"{slow['cpu_ms']:.2f}", f"{slow['p99_ms']:.0f}"])
    head = [name, "pushes per second", f"with {DELAY_MS} ms", "CPU ms a push", f"with {DELAY_MS} ms", f"p99, ms, with {DELAY_MS} ms"]
    return [*text, table(head, rows)]
