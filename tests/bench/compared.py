"""The parts of scripts/bench that compare ours with peers: reads, manifest PUTs, blobs, lookups while others push."""

import base64
import contextlib
import functools
import json
import time

import pushers
from clients import GIB, MIB, OCI, Image, Library, Link, blob_path, call, manifest, manifest_path, push, push_blob
from clients import receive
from measure import Crowd, at_once, crowd, load, transfer, turn_about
from servers import Nginx, peers

HELLO, BLOBS = "alice/tools/hello", "alice/bytes/blobs"
LOOKUP = f"/v1/images/{HELLO}:1.0?arch=amd64"
SIZES = {"100 MiB": 100 * MIB, "1 GiB": GIB}
# How many clients pull a blob at a time, and put manifests.
PULLS, PUTS = 16, 8


class Compared:
    """Our server, another one of ours that logs as it does by default, the peers, and a server of files."""

    def __init__(self, bench):
        self.bench, folder = bench, bench.folder
        self.ours = bench.ours(folder / "ours")
        self.chatty = bench.ours(folder / "chatty", level="info")
        self.registries = [self.ours, *(bench.start(kind, folder / kind.name) for kind in peers())]
        self.nginx = bench.start(Nginx, folder / "nginx")
        self.alice = Library(Link(self.ours), self.ours.token)
        # The blobs that were pushed to ours, and are there.
        self.blobs = []
        # Everybody may read these; a repository that is made by pushing is its owner's.
        for server in (self.ours, self.chatty):
            for name in (HELLO, BLOBS):
                Library(Link(server), server.token).place(name)
        image = Image(8 * MIB)
        for server in (self.chatty, *self.registries):
            with contextlib.closing(Link(server)) as link:
                push(link, HELLO, "1.0", image)
        self.digest = call(self.ours, "HEAD", manifest_path(HELLO, "1.0"), None, OCI)[0]["Docker-Content-Digest"]
        for reference in ("1.0", self.digest):
            self.nginx.place(manifest_path(HELLO, reference), [manifest(image).encode()])

    def stop(self):
        for server in (*self.registries, self.chatty, self.nginx):
            self.bench.stop(server)

    def registry_token(self, server):
        """A registry token, which lives for five minutes."""
        basic = base64.b64encode(f"alice:{server.token}".encode()).decode()
        asked = f"/token?service=bench&scope=repository:{HELLO}:pull"
        given = json.loads(call(server, "GET", asked, None, {"Authorization": f"Basic {basic}"})[1])
        return {"Authorization": f"Bearer {given['token']}"}

    # ---- reads

    def reads(self):
        def read(server, path, head=False, token=None):
            headers = {**OCI, **(token(server) if token else {})}
            return load(server, [path], headers, self.bench.seconds, head=head)

        def ours(server, *arguments, **options):
            return {self.ours.name: functools.partial(read, server, *arguments, **options)}

        things = {}
        for name, reference, head in (
            ("manifest HEAD", "1.0", True), ("manifest GET by tag", "1.0", False), ("manifest GET by digest", self.digest, False),
        ):
            path = manifest_path(HELLO, reference)
            servers = [*self.registries, self.nginx]
            things[name] = {server.name: functools.partial(read, server, path, head) for server in servers}
            things[f"{name}, token"] = ours(self.ours, path, head, self.registry_token)
            things[f"{name}, log at info"] = ours(self.chatty, path, head)
            things[f"{name}, token, log at info"] = ours(self.chatty, path, head, self.registry_token)
        for name, path in (
            ("library lookup by tag", LOOKUP), ("library download by tag", f"/v1/imagefile/{HELLO}:1.0?arch=amd64"),
        ):
            things[name] = ours(self.ours, path)
            things[f"{name}, token"] = ours(self.ours, path, token=lambda server: server.auth)
            things[f"{name}, log at info"] = ours(self.chatty, path)
            things[f"{name}, token, log at info"] = ours(self.chatty, path, token=lambda server: server.auth)
        return turn_about(self.bench.times, things)

    # ---- manifests

    def puts(self):
        def put(server):
            return crowd(server, PUTS, self.bench.seconds, pushers.manifests(server, PUTS))

        works = {server.name: functools.partial(put, server) for server in self.registries}
        return turn_about(self.bench.times, {f"manifest PUT, {PUTS} at once": works})

    # ---- bytes

    def blobs_of(self, label, size):
        images = {}

        def push_one(server):
            images[server.name] = image = Image(size)
            if server is self.ours:
                self.blobs.append(blob_path(BLOBS, image))
            with contextlib.closing(Link(server)) as link:
                return transfer(server, size, lambda: push_blob(link, BLOBS, image))

        def pull(server, number):
            path = blob_path(BLOBS, images[server.name])
            return transfer(server, size * number, lambda: at_once(number, lambda: receive(server, path, size)))

        static = images[self.nginx.name] = Image(size)
        self.nginx.place(blob_path(BLOBS, static), static.pieces(0, size))
        readers = [*self.registries, self.nginx]
        things = {
            f"push a blob of {label}": {server.name: functools.partial(push_one, server) for server in self.registries},
            f"pull a blob of {label}": {server.name: functools.partial(pull, server, 1) for server in readers},
        }
        if size < GIB or not self.bench.options.quick:
            many = {server.name: functools.partial(pull, server, PULLS) for server in readers}
            things[f"{PULLS} pulls at once of a blob of {label}"] = many
        return things

    def images_of(self, label, size):
        name, ours, latest = "alice/images/one", self.ours, []
        place = self.alice.place(name)

        def push_one():
            image = Image(size).prepare()
            latest[:] = [image]

            def work():
                self.alice.push(place, "latest", image)
                self.alice.pushed(f"{name}:latest")

            return transfer(ours, size, work)

        def known():
            """The same bytes into another container: none of them are sent."""
            again = self.alice.place(f"alice/known/c{Image.count}")
            body = {"hash": f"sha256.{latest[0].digest}", "container": again}

            def work():
                if not self.alice.api("POST", "/v1/images", body)["uploaded"]:
                    raise RuntimeError("known bytes would have to be sent again")

            return transfer(ours, size, work)

        path = f"/v1/imagefile/{name}:latest?arch=amd64"
        return {
            f"library push of {label}": {ours.name: push_one},
            f"library pull of {label}": {ours.name: lambda: transfer(ours, size, lambda: receive(ours, path, size))},
            f"library push of known bytes, {label}": {ours.name: known},
        }

    def bytes(self):
        things = {}
        for label, size in SIZES.items():
            things |= self.blobs_of(label, size) | self.images_of(label, size)
        return turn_about(self.bench.times, things, self.tidy)

    def tidy(self):
        """Frees the disk of what was pushed: ours by its own means, the peers' by deleting large files."""
        for server in self.registries:
            if server is not self.ours:
                server.tidy()
        for path in self.blobs:
            call(self.ours, "DELETE", path, None, self.ours.auth)
        self.blobs.clear()
        for collection in ("images", "load", "known"):
            found = self.alice.api("GET", f"/v1/containers?collection=alice/{collection}", want=(200, 404))
            for container in found or []:
                path = f"/v1/images/alice/{collection}/{container['name']}:latest?arch=amd64"
                self.alice.api("DELETE", path, want=(200, 404))
        Library(self.alice.link, self.ours.operator).api("POST", "/api/sweep", {"now": True})

    # ---- lookups while others push

    def pushing(self):
        places = [self.alice.place(f"alice/load/c{number}") for number in range(4)]

        def push_one(link, number, turn):
            image = Image(100 * MIB).prepare()
            if link.server is self.ours:
                Library(link, self.ours.token).push(places[number], "latest", image)
            else:
                push(link, f"alice/load/c{number}", "latest", image)

        def looked_up(server):
            path = LOOKUP if server is self.ours else manifest_path(HELLO, "1.0")
            began = time.monotonic()
            with Crowd(server, len(places), push_one) as people:
                time.sleep(1)
                # Slow enough that the lookups alone saturate no server.
                seen = load(server, [path], OCI, self.bench.seconds * 2, connections=4)
            pushed = len(people.took) * 100 * MIB / (time.monotonic() - began) / 1e6
            self.tidy()
            return {"p99_ms": seen["p99_ms"], "push_mb_s": pushed, "peak_mib": seen["peak_mib"]}

        works = {server.name: functools.partial(looked_up, server) for server in self.registries}
        return turn_about(self.bench.times, {"lookups by tag while four push 100 MiB each": works})
