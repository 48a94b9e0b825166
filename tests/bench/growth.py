"""Part `growth` of scripts/bench: what requests cost when there is more on the server, or in one container."""

import contextlib
import os
import time

from clients import AGENT, OCI, Library, Link, Small, manifest_path, push_blob, push_config, put_manifest, user
from measure import Crowd, load, share
from report import table
from servers import say

IMAGES, FEW_IMAGES = (1000, 10_000, 50_000), (300, 1000, 3000)
TAGS = 10, 100, 1000, 10_000
# How many push while the server is filled, each as a user with containers of this size.
PUSHERS, EACH = 8, 100
# Tags of one image where a container has many, and how many of them are set at once.
TAGS_AT_ONCE = 10
# Requests at a time while something is measured, and how many different ones.
READERS, PATHS = 4, 2000
WHAT = {
    "lookup": "library lookup by tag, of one image after the other",
    "manifest": "manifest GET by tag, of one after the other",
    "container": "container GET of a client that pushes",
    "tags": "GET /v2/tags of a client that pushes",
    "list": "tags/list, n=100",
    "search": "search that finds one image, of the user's own",
    "push": "library push of an image, whole",
    "untag": "DELETE of a tag",
    "delete": "DELETE of an image",
    "peak": "peak memory then, MiB",
    "filling": "peak memory while it is filled, MiB",
}


class Filled:
    """A server, and what is on it."""

    def __init__(self, server):
        self.server, self.count, self.references = server, 0, []
        self.users = [f"user{number}" for number in range(PUSHERS)]
        self.tokens = [user(server, name, server.operator) for name in self.users]

    def fill(self, images):
        """Pushes until there are so many images: half of them as Apptainer does, half through the registry."""
        first, last, places = self.count, images, {}

        def work(link, number, _):
            for at in range(first + number, last, PUSHERS):
                someone = Library(link, self.tokens[number])
                link.auth = someone.auth
                name = f"{self.users[number]}/c/c{at // PUSHERS // EACH}"
                if name not in places:
                    places[name] = someone.place(name)
                    push_config(link, name)
                # No tag is a part of another one.
                image, tag = Small(), f"v{at}e"
                if at // PUSHERS % 2:
                    someone.push(places[name], tag, image)
                else:
                    push_blob(link, name, image)
                    put_manifest(link, name, tag, image)
                self.references.append((name, tag))

        with Crowd(self.server, PUSHERS, work, once=True):
            pass
        self.count = images
        self.settle()

    def settle(self):
        """Waits until the server does nothing more of what filling it left to do, and the disk neither."""
        os.sync()
        until = time.monotonic() + 60
        while time.monotonic() < until:
            before = self.server.cpu()
            time.sleep(1)
            if self.server.cpu() - before < 0.02:
                return

    def some(self):
        """References of images that lie everywhere."""
        return self.references[::max(1, len(self.references) // PATHS)]

    def searches(self):
        """What the first user searches for: each finds one image."""
        own = [tag for name, tag in self.references if name.startswith("user0/") and int(tag[1:-1]) // PUSHERS % 2]
        return [f"/v1/search?value={tag}&arch=amd64" for tag in own[::max(1, len(own) // PATHS)]]


def tagged(server, tags):
    """A container with so many tags, of which each image has ten. Returns its name and its id."""
    name, tagged = f"alice/tags/t{tags}", [f"v{tag}" for tag in range(tags)]
    with contextlib.closing(Link(server)) as link:
        place = Library(link, server.token).place(name)
        push_config(link, name)
        for first in range(0, tags, TAGS_AT_ONCE):
            image = Small()
            push_blob(link, name, image)
            also = "&".join(f"tag={tag}" for tag in tagged[first + 1:first + TAGS_AT_ONCE])
            put_manifest(link, name, f"{tagged[first]}?{also}", image)
    return name, place


def measured(bench, server, references, container):
    """What requests cost: kind → CPU µs and p99 in ms. `references` are read, and the container is changed."""
    name, place = container
    paths = {
        "lookup": [f"/v1/images/{name}:{tag}?arch=amd64" for name, tag in references],
        "manifest": [manifest_path(name, tag) for name, tag in references],
        "container": [f"/v1/containers/{name}"],
        "tags": [f"/v2/tags/{place}"],
        "list": [f"/v2/{name}/tags/list?n=100"],
    }
    headers = {**OCI, **AGENT}
    found = {kind: load(server, some, headers, bench.seconds, READERS) for kind, some in paths.items()}
    most = max(seen["peak_mib"] for seen in found.values())
    found |= changed(server, container, 30 if bench.options.quick else 200)
    found["peak"] = {"mib": max(most, server.memory("VmHWM"))}
    return found


def changed(server, container, times):
    """Pushes an image, untags it, deletes it, again and again, so that the container keeps its size."""
    name, place = container
    spent = {"push": [], "untag": [], "delete": []}
    with contextlib.closing(Link(server)) as link:
        alice = Library(link, server.token)
        for turn in range(times):
            image, tag = Small(), f"new{turn}"
            works = {
                "push": lambda: alice.push(place, tag, image),
                "untag": lambda: link.ask("DELETE", manifest_path(name, tag), None, alice.auth),
                "delete": lambda: alice.api("DELETE", f"/v1/images/{name}:sha256.{image.digest}?arch=amd64"),
            }
            for kind, work in works.items():
                cpu, began = server.cpu(), time.monotonic()
                work()
                spent[kind].append((server.cpu() - cpu, time.monotonic() - began))
    return {
        kind: {"us": sum(cpu for cpu, _ in seen) / times * 1e6, "p99_ms": share([took for _, took in seen], 99) * 1000}
        for kind, seen in spent.items()
    }


def run(bench):
    server = bench.ours(bench.folder / "growth")
    filled, images, tags = Filled(server), {}, {}
    container = tagged(server, TAGS[0])
    for size in FEW_IMAGES if bench.options.quick else IMAGES:
        server.forget_peak()
        began, before = time.monotonic(), filled.count
        filled.fill(size)
        took, peak = time.monotonic() - began, server.memory("VmHWM")
        say(f"  {size} images: {(size - before) / took:.0f} pushed a second")
        images[size] = measured(bench, server, filled.some(), container) | {"filling": {"mib": peak}}
        own = {"Authorization": f"Bearer {filled.tokens[0]}", **AGENT}
        images[size]["search"] = load(server, filled.searches(), own, bench.seconds, READERS)
    for size in TAGS:
        name, place = tagged(server, size) if size != TAGS[0] else container
        say(f"  {size} tags")
        references = [(name, f"v{tag}") for tag in range(0, size, max(1, size // PATHS))]
        tags[size] = measured(bench, server, references, (name, place))
    bench.stop(server)
    result = {"images": images, "tags": tags}
    return {**result, "text": report(result)}


def report(result):
    text = [
        f"Images on the server, asked for by {READERS} at a time, in a container with {TAGS[0]} tags; "
        f"and tags in one container, on a server with {max(result['images'])} images.\n"
    ]
    for over, sizes in result.items():
        rows = []
        for kind, title in WHAT.items():
            seen = [found[kind] for found in sizes.values() if kind in found]
            if "us" in (seen or [{}])[0]:
                cells = [f"{figures['us']:.0f} ({figures['p99_ms']:.1f})" for figures in seen]
                times = [f"{seen[-1][figure] / seen[0][figure]:.1f}" for figure in ("us", "p99_ms")]
                rows.append([title, *cells, f"{times[0]} ({times[1]})"])
            elif seen:
                cells = [f"{figures['mib']:.0f}" for figures in seen]
                rows.append([title, *cells, f"{seen[-1]['mib'] / seen[0]['mib']:.1f}"])
        head = [f"{size} {over}" for size in sizes]
        text.append(table(["CPU µs of a request (p99, ms)", *head, "largest ÷ smallest"], rows))
    return text
