#!/usr/bin/env python3
"""through.py URL TOKEN CERTIFICATE DATA SPOOL…: pushes and pulls 100 MiB through a proxy, as clients do, and watches.

DATA is the server's folder: while a client pauses in the middle of a blob, what it sent must be there. The folders
SPOOL are where the proxy would keep bodies: nothing large may come there. Prints one line for each thing that holds.
"""

import hashlib
import http.client
import json
import pathlib
import ssl
import sys
import time
import urllib.parse

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(TOP / "tests/bench"))

from clients import Image, tail

URL, TOKEN, CERTIFICATE, DATA, *SPOOLS = sys.argv[1:]
HOST = urllib.parse.urlsplit(URL)
TLS = ssl.create_default_context(cafile=CERTIFICATE)
AUTH = {"Authorization": f"Bearer {pathlib.Path(TOKEN).read_text().strip()}"}
MIB = 1 << 20


def connect():
    # From an address that is not the proxy's own, so that the server's log shows whose it took.
    return http.client.HTTPSConnection("127.0.0.1", HOST.port, timeout=120, context=TLS, source_address=("127.0.0.2", 0))


def ask(method, path, body=None, headers=None, wanted=(200, 201, 202)):
    """One request. Returns the headers and the body of the answer."""
    link = connect()
    link.request(method, path, body, {"Host": HOST.netloc, **(headers or {})})
    answer = link.getresponse()
    content = answer.read()
    assert answer.status in wanted, f"{method} {path}: {answer.status} {content[:300]!r}"
    return answer.headers, content


def api(method, path, body=None):
    content = ask(method, path, None if body is None else json.dumps(body), AUTH)[1]
    return json.loads(content).get("data") if content else None


def sizes(folders):
    """The sizes of all files in some folders."""
    files = (path for folder in folders for path in pathlib.Path(folder).rglob("*"))
    found = []
    for path in files:
        try:
            found.append(path.stat().st_size if path.is_file() else 0)
        except FileNotFoundError:
            pass
    return found


def unspooled(what):
    kept = max(sizes(SPOOLS), default=0)
    assert kept < MIB, f"{what}: the proxy keeps {kept} bytes"


def digest(answer):
    """The SHA-256 of a body, after a pause in which a proxy could have read it all."""
    whole = hashlib.sha256(answer.read(MIB))
    time.sleep(1)
    unspooled("a download")
    while piece := answer.read(MIB):
        whole.update(piece)
    return whole.hexdigest()


def library(image):
    """Pushes and pulls an image as Apptainer does: parts to the object store, behind the same proxy."""
    entity = api("POST", "/v1/entities", {"name": "alice"})["id"]
    collection = api("POST", "/v1/collections", {"name": "tools", "entity": entity})["id"]
    container = api("POST", "/v1/containers", {"name": "hello", "collection": collection})["id"]
    made = api("POST", "/v1/images", {"hash": f"sha256.{image.digest}", "container": container})
    path = f"/v2/imagefile/{made['id']}"
    opened = api("POST", f"{path}/_multipart", {"filesize": image.size})
    done = []
    for number, (start, end, part) in enumerate(image.ready, 1):
        body = {"partSize": end - start, "uploadID": opened["uploadID"], "partNumber": number, "sha256sum": part}
        url = api("PUT", f"{path}/_multipart", body)["presignedURL"]
        assert url.startswith(f"{URL}/objects/"), url
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(end - start), "x-amz-content-sha256": part}
        sent = ask("PUT", tail(url), b"".join(image.pieces(start, end)), headers)[0]
        done.append({"partNumber": number, "token": sent["ETag"]})
        unspooled("a part")
    api("PUT", f"{path}/_multipart_complete", {"uploadID": opened["uploadID"], "completedParts": done})
    api("POST", f"/v2/tags/{container}", {"Arch": "amd64", "Tag": "1.0", "ImageID": made["id"]})
    print(f"ok - an image of {image.size // MIB} MiB is pushed in parts")
    # Old clients send both, and the path is theirs to spell.
    for spelled in ["/v1/images/alice/tools/hello:1.0", "//v1/images//alice/tools/hello%3A1.0"]:
        found = api("GET", f"{spelled}?arch=amd64")
        assert found["hash"] == f"sha256.{image.digest}", found
    print("ok - a lookup with `//` and `%3A` finds it")
    place = ask("GET", "/v1/imagefile/alice/tools/hello:1.0?arch=amd64", None, AUTH, (303,))[0]["Location"]
    assert place.startswith(f"{URL}/"), place
    link = connect()
    link.request("GET", tail(place), None, {"Host": HOST.netloc})
    answer = link.getresponse()
    assert answer.status == 200 and digest(answer) == image.digest
    print("ok - it is pulled through the proxy")
    link = connect()
    link.request("GET", tail(place), None, {"Host": HOST.netloc, "Range": f"bytes={image.size - 10}-"})
    answer = link.getresponse()
    assert answer.status == 206 and len(answer.read()) == 10, answer.status
    print("ok - and a range of it")


def registry(image):
    """Pushes a layer as Docker does, in one PATCH of unknown length, with a pause in it; and pulls it."""
    scope = "repository:alice/tools/layers:pull,push"
    query = urllib.parse.urlencode({"service": HOST.netloc, "scope": scope})
    login = ask("GET", f"/token?{query}", None, AUTH)[1]
    auth = {"Authorization": f"Bearer {json.loads(login)['token']}"}
    challenge = ask("GET", "/v2/", None, {}, (401,))[0]["WWW-Authenticate"]
    assert f'realm="{URL}/token"' in challenge, challenge
    place = ask("POST", "/v2/alice/tools/layers/blobs/uploads/", b"", auth)[0]["Location"]
    before = sum(sizes([DATA]))

    def pieces():
        for at in range(0, image.size, 4 * MIB):
            yield from image.pieces(at, min(at + 4 * MIB, image.size))
            if at == 48 * MIB:
                until = time.monotonic() + 20
                while sum(sizes([DATA])) < before + 32 * MIB and time.monotonic() < until:
                    time.sleep(0.1)
                arrived = sum(sizes([DATA])) - before
                assert arrived >= 32 * MIB, f"the proxy holds back what the client sends: {arrived} bytes arrived"
                unspooled("a blob")

    link = connect()
    link.request("PATCH", tail(urllib.parse.urljoin(URL, place)), pieces(),
                 {**auth, "Host": HOST.netloc, "Content-Type": "application/octet-stream", "Transfer-Encoding": "chunked"}, encode_chunked=True)
    answer = link.getresponse()
    content = answer.read()
    assert answer.status == 202, f"{answer.status} {content!r}"
    place = tail(urllib.parse.urljoin(URL, answer.headers["Location"]))
    ask("PUT", tail(place, digest=f"sha256:{image.digest}"), b"", auth)
    print(f"ok - a layer of {image.size // MIB} MiB arrives while it is sent")
    link = connect()
    link.request("GET", f"/v2/alice/tools/layers/blobs/sha256:{image.digest}", None, {"Host": HOST.netloc, **auth})
    answer = link.getresponse()
    assert answer.status == 200 and digest(answer) == image.digest, answer.status
    print("ok - it is pulled through the proxy")


registry(Image(100 * MIB))
library(Image(100 * MIB).prepare())
