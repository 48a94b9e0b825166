"""The clients of scripts/bench: images that cost nothing to make, and those who push and pull them."""

import contextlib
import hashlib
import http.client
import itertools
import json
import os
import re
import socket
import struct
import threading
import time
import urllib.parse

from servers import PATIENCE

MIB, GIB = 1 << 20, 1 << 30
BLOCK = os.urandom(4 * MIB)
# What the library's clients send in one PUT; above it they use parts of this size.
PART = 64 * MIB
MEDIA = "application/vnd.oci.image.manifest.v1+json"
OCI = {"Accept": MEDIA}
PLAIN = {"Content-Type": "application/octet-stream"}
# Where the partition of an image begins.
DATA = 32768


class Link:
    """A connection to a server that is kept."""

    def __init__(self, server):
        # Who pushes over it; somebody else may.
        self.server, self.auth = server, server.auth
        self.http = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)

    def ask(self, method, path, body=None, headers=None, want=range(200, 300)):
        """One request. Returns headers and body."""
        self.http.request(method, path, body, headers or {})
        answer = self.http.getresponse()
        content = answer.read()
        if answer.status not in want:
            raise RuntimeError(f"{self.server.name}: {method} {path}: {answer.status} {content[:300]!r}")
        return answer.headers, content

    def close(self):
        self.http.close()


def call(server, *request, **options):
    """One request on a connection of its own. Returns headers and body."""
    with contextlib.closing(Link(server)) as link:
        return link.ask(*request, **options)


def sif(size):
    """What an image of this size begins with, up to its partition: a squashfs for amd64, from there to the end."""
    rest = size - DATA
    head = b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + b"SIF_MAGIC\x0001\x0002\0" + b"\7" * 16
    head += struct.pack("<qqQQQQQQ", 1767225600, 1767225600, 47, 48, 4096, 48 * 585, DATA, rest)
    row = struct.pack("<iBIIIQQQqqqq", 0x4004, 1, 1, 0xF0000001, 0, DATA, rest, rest, 1767225600, 1767225600, 0, 0)
    row += bytes(128) + struct.pack("<ii3s", 1, 2, b"02\0").ljust(384, b"\0")
    return (head.ljust(4096, b"\0") + row).ljust(DATA, b"\0")


class Small:
    """An image of 32 KiB, in memory."""

    counter = itertools.count()
    head = sif(DATA + 64)

    def __init__(self):
        self.bytes = self.head + b"%064d" % next(self.counter)
        self.size = len(self.bytes)
        self.digest = hashlib.sha256(self.bytes).hexdigest()

    def put(self, link, path, headers):
        return link.ask("PUT", path, self.bytes, {**PLAIN, **headers})


class Image:
    """A SIF image of a given size. Only the last block differs between images, so hashing one costs one block."""

    count = 0
    hashes = {}
    parts = {}
    lock = threading.Lock()

    def __init__(self, size):
        assert size % len(BLOCK) == 0 and size > len(BLOCK)
        self.size = size
        with self.lock:
            Image.count += 1
            self.last = (b"%016d" % Image.count) + BLOCK[16:]
            if size not in Image.hashes:
                self.hashes[size] = hashlib.sha256()
                for piece in self.pieces(0, size - len(BLOCK)):
                    self.hashes[size].update(piece)
        whole = self.hashes[size].copy()
        whole.update(self.last)
        self.digest = whole.hexdigest()

    def pieces(self, start, end):
        for at in range(start, end, len(BLOCK)):
            if at == 0:
                yield sif(self.size) + BLOCK[DATA:]
            else:
                yield self.last if at + len(BLOCK) == self.size else BLOCK

    def part(self, number):
        """Start, end and digest of a part."""
        start, end = (number - 1) * PART, min(number * PART, self.size)
        if end == self.size:
            digest = hashlib.sha256()
            for piece in self.pieces(start, end):
                digest.update(piece)
            return start, end, digest.hexdigest()
        # All parts but the first and the last are alike.
        key = min(start, 1), self.size if start == 0 else 0
        if key not in self.parts:
            digest = hashlib.sha256()
            for piece in self.pieces(start, end):
                digest.update(piece)
            self.parts[key] = digest.hexdigest()
        return start, end, self.parts[key]

    def prepare(self):
        """Hashes the parts before the clock runs."""
        if self.size > PART:
            with self.lock:
                self.ready = [self.part(number) for number in range(1, -(-self.size // PART) + 1)]
        return self

    def put(self, link, path, headers):
        return send(link.server, "PUT", path, self, 0, self.size, {**PLAIN, **headers})


def send(server, method, path, image, start, end, headers):
    """Sends a range of an image. Returns the headers of the answer."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as link:
        lines = {"Host": f"127.0.0.1:{server.port}", "Content-Length": end - start, "Connection": "close", **headers}
        text = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        link.sendall(text.encode() + b"\r\n")
        for piece in image.pieces(start, end):
            link.sendall(piece)
        answer = http.client.HTTPResponse(link, method=method)
        answer.begin()
        content = answer.read()
        if not 200 <= answer.status < 300:
            raise RuntimeError(f"{server.name}: {method} {path}: {answer.status} {content[:300]!r}")
        return answer.headers


def receive(server, path, size):
    """Reads the body at a path to its end and discards it. Follows redirects. Fails if it has another size."""
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as link:
            link.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n\r\n".encode())
            buffer = bytearray(MIB)
            head = b""
            while b"\r\n\r\n" not in head:
                got = link.recv(65536)
                if not got:
                    raise RuntimeError(f"{server.name}: {path}: no answer")
                head += got
            head, first = head.split(b"\r\n\r\n", 1)
            status = int(head.split()[1])
            if status in (303, 307):
                path = re.search(rb"(?i)location: *https?://[^/]+(\S+)", head)[1].decode()
                continue
            if status != 200:
                raise RuntimeError(f"{server.name}: GET {path}: {head!r}")
            length = len(first)
            while got := link.recv_into(buffer):
                length += got
            if length != size:
                raise RuntimeError(f"{server.name}: GET {path}: {length} bytes instead of {size}")
            return
    raise RuntimeError(f"{server.name}: too many redirects")


def tail(url, **query):
    """The path and the query of a URL, with more in the query."""
    parts = urllib.parse.urlsplit(url)
    query = "&".join(filter(None, [parts.query, *(f"{name}={value}" for name, value in query.items())]))
    return f"{parts.path}?{query}" if query else parts.path


# ---- our library


# How clients of the library say who they are.
AGENT = {"User-Agent": "Apptainer/1.4.5 (Linux amd64) Go/1.24.6"}


class Library:
    """A user of our library API, who does what its clients do."""

    # The path of each container, by its id.
    paths = {}

    def __init__(self, link, token):
        self.link, self.auth = link, {"Authorization": f"Bearer {token}", **AGENT}

    def api(self, method, path, body=None, want=range(200, 300)):
        content = self.link.ask(method, path, None if body is None else json.dumps(body), self.auth, want)[1]
        return json.loads(content).get("data")

    def place(self, path):
        """Creates a container, and returns its id."""
        entity, collection, name = path.split("/")
        entity = self.api("POST", "/v1/entities", {"name": entity})["id"]
        collection = self.api("POST", "/v1/collections", {"name": collection, "entity": entity})["id"]
        container = self.api("POST", "/v1/containers", {"name": name, "collection": collection})["id"]
        self.paths[container] = path
        return container

    def push(self, container, tag, image):
        path = self.paths[container]
        entity, collection, _ = path.split("/")
        for there in f"entities/{entity}", f"collections/{entity}/{collection}", f"containers/{path}":
            self.api("GET", f"/v1/{there}")
        self.api("GET", f"/v1/images/{path}:sha256.{image.digest}?arch=amd64", want=(200, 404))
        made = self.api("POST", "/v1/images", {"hash": f"sha256.{image.digest}", "container": container})
        path = f"/v2/imagefile/{made['id']}"
        if image.size <= PART:
            body = {"filesize": image.size, "md5sum": "", "sha256sum": image.digest}
            url = tail(self.api("POST", path, body)["uploadURL"])
            image.put(self.link, url, {"x-amz-content-sha256": image.digest})
            self.api("PUT", f"{path}/_complete", {})
        else:
            opened = self.api("POST", f"{path}/_multipart", {"filesize": image.size})
            assert opened["partSize"] == PART, opened
            done = []
            for number, (start, end, digest) in enumerate(image.ready, 1):
                body = {"partSize": end - start, "uploadID": opened["uploadID"], "partNumber": number}
                url = tail(self.api("PUT", f"{path}/_multipart", {**body, "sha256sum": digest})["presignedURL"])
                headers = {**PLAIN, "x-amz-content-sha256": digest}
                sent = send(self.link.server, "PUT", url, image, start, end, headers)
                done.append({"partNumber": number, "token": sent["ETag"]})
            body = {"uploadID": opened["uploadID"], "completedParts": done}
            self.api("PUT", f"{path}/_multipart_complete", body)
        self.api("GET", "/version")
        self.api("GET", f"/v2/tags/{container}")
        self.api("POST", f"/v2/tags/{container}", {"Arch": "amd64", "Tag": tag, "ImageID": made["id"]})

    def pushed(self, reference):
        """Waits until an image is visible: large ones may be verified after the answer."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with contextlib.suppress(RuntimeError):
                return self.link.ask("GET", f"/v1/images/{reference}?arch=amd64")[1]
            time.sleep(0.02)
        raise RuntimeError(f"{reference} never became visible")


def user(server, name, token):
    """Adds a user to our server, whose rights the operator's token gives. Returns a token of that user."""
    with contextlib.closing(Link(server)) as link:
        operator = Library(link, token)
        operator.api("POST", "/api/users", {"name": name})
        return operator.api("POST", f"/api/users/{name}/tokens", {"name": "bench"})["token"]


# ---- any registry


CONFIG = b"{}"
CONFIG_DIGEST = hashlib.sha256(CONFIG).hexdigest()


def manifest_path(name, reference):
    return f"/v2/{name}/manifests/{reference}"


def blob_path(name, image):
    return f"/v2/{name}/blobs/sha256:{image.digest}"


def open_upload(link, name, digest):
    """Where the bytes of a blob are to be sent in one PUT, as containerd and oras do."""
    headers = {"Content-Length": "0", **link.auth}
    return tail(link.ask("POST", f"/v2/{name}/blobs/uploads/", "", headers)[0]["Location"], digest=f"sha256:{digest}")


def push_blob(link, name, image):
    image.put(link, open_upload(link, name, image.digest), link.auth)


def push_config(link, name):
    link.ask("PUT", open_upload(link, name, CONFIG_DIGEST), CONFIG, {**PLAIN, **link.auth})


def manifest(image, note=""):
    """The manifest of a SIF, as `oras` makes it. Another note makes another manifest."""
    kind = "application/vnd.sylabs.sif."
    layer = {
        "mediaType": f"{kind}layer.v1.sif", "digest": f"sha256:{image.digest}", "size": image.size,
        "annotations": {"org.opencontainers.image.title": "image.sif"},
    }
    return json.dumps({
        "schemaVersion": 2,
        "mediaType": MEDIA,
        "config": {"mediaType": f"{kind}config.v1+json", "digest": f"sha256:{CONFIG_DIGEST}", "size": len(CONFIG)},
        "layers": [layer],
        "annotations": {"org.example.note": note},
    })


def put_manifest(link, name, reference, image, note=""):
    path, headers = manifest_path(name, reference), {"Content-Type": MEDIA, **link.auth}
    return link.ask("PUT", path, manifest(image, note), headers)


def push(link, name, tag, image):
    """Pushes an image as `oras` would push a SIF: one layer, an empty configuration, a manifest."""
    push_blob(link, name, image)
    push_config(link, name)
    put_manifest(link, name, tag, image)
