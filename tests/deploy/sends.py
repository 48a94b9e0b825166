#!/usr/bin/env python3
"""sends.py URL TOKEN CERTIFICATE OBJECTS PID: blobs and their ranges, where the proxy sends the files itself.

OBJECTS is the server's folder of object files, and PID its process, whose CPU time is counted. Prints one line for each
thing that holds.
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

URL, TOKEN, CERTIFICATE, OBJECTS, PID = sys.argv[1:]
HOST = urllib.parse.urlsplit(URL)
TLS = ssl.create_default_context(cafile=CERTIFICATE)
AUTH = {"Authorization": f"Bearer {pathlib.Path(TOKEN).read_text().strip()}"}
MIB = 1 << 20
# What a client sees of an object, whoever sends it.
DESCRIBED = [
    "Accept-Ranges", "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Length", "Content-Range",
    "Content-Security-Policy", "Content-Type", "ETag", "Last-Modified", "X-Content-Type-Options",
]
REPOSITORY = "alice/tools/layers"


def ask(method, path, body=None, headers=None, wanted=(200, 201, 202)):
    """One request. Returns the headers of its answer, and its body, or the digest of a long one."""
    link = http.client.HTTPSConnection("127.0.0.1", HOST.port, timeout=120, context=TLS)
    link.request(method, path, body, {"Host": HOST.netloc, **(headers or {})})
    answer = link.getresponse()
    assert answer.status in wanted, f"{method} {path}: {answer.status} {answer.read(300)!r}"
    whole, content = hashlib.sha256(), b""
    while piece := answer.read(MIB):
        whole.update(piece)
        content = content + piece if len(content) < MIB else content
    link.close()
    return answer.headers, content if len(content) < MIB else whole.hexdigest()


def described(headers):
    return {name: headers.get_all(name) for name in DESCRIBED}


def spent():
    """Seconds of CPU of the server."""
    return time.clock_gettime(~int(PID) << 3 | 2)


def largest():
    return max((path for path in pathlib.Path(OBJECTS).glob("??/*")), key=lambda path: path.stat().st_size)


image = Image(100 * MIB)
query = urllib.parse.urlencode({"service": HOST.netloc, "scope": f"repository:{REPOSITORY}:pull,push"})
auth = {"Authorization": f"Bearer {json.loads(ask('GET', f'/token?{query}', None, AUTH)[1])['token']}"}
place = ask("POST", f"/v2/{REPOSITORY}/blobs/uploads/", b"", auth)[0]["Location"]
place = tail(urllib.parse.urljoin(URL, place), digest=f"sha256:{image.digest}")
ask("PUT", place, image.pieces(0, image.size), {**auth, "Content-Length": str(image.size)})
place = ask("GET", f"/v2/{REPOSITORY}/blobs/sha256:{image.digest}", None, auth, (307,))[0]["Location"]
assert place.startswith(f"{URL}/objects/"), place
place = tail(place)

# It came in parts, so the server sends it, and makes one file of it meanwhile.
assert largest().stat().st_size < image.size
assert ask("GET", place)[1] == image.digest
until = time.monotonic() + 60
while largest().stat().st_size < image.size:
    assert time.monotonic() < until, "the files of the object stay apart"
    time.sleep(0.1)
time.sleep(0.5)
files = [path for path in pathlib.Path(OBJECTS).glob("??/*") if path.stat().st_size >= MIB]
assert len(files) == 1, files
print("ok - an object that came in parts is one file once it was asked for, and its parts are gone")

# What has a condition is the server's own to answer.
unlike = {"If-None-Match": '"another"'}
ranged = {"Range": f"bytes={40 * MIB}-{40 * MIB + 9}"}
ours, content = ask("GET", place, None, unlike)
assert content == image.digest
before = ask("GET", place, None, {**unlike, **ranged}, (206,))
first = spent()
for _ in range(5):
    theirs, content = ask("GET", place)
    assert content == image.digest
took = (spent() - first) * 1024 / 500
assert described(theirs) == described(ours), f"{described(theirs)} instead of {described(ours)}"
print("ok - its bytes and what describes them are the same as from the server")
assert took < 0.1, f"the server spends {took:.2f} s of CPU for each GiB"
print(f"ok - the server spends {took:.3f} s of CPU for each GiB")

after = ask("GET", place, None, ranged, (206,))
# That it has ranges need not be said with one of them.
for headers in (before[0], after[0]):
    del headers["Accept-Ranges"]
assert (described(after[0]), after[1]) == (described(before[0]), before[1]), f"{after[0]} instead of {before[0]}"
print("ok - a range is the same")
again = ask("GET", place, None, {**ranged, "If-Range": ours["ETag"]}, (200, 206))
assert again[1] in (before[1], image.digest), again[0]
again = ask("GET", place, None, {**ranged, "If-Range": '"another"'}, (200,))
assert again[1] == image.digest, again[0]
ask("GET", place, None, {"Range": f"bytes={image.size}-"}, (416,))
ask("GET", place, None, {"If-None-Match": ours["ETag"]}, (304,))
print("ok - and so are conditions")

file = largest()
inside = f"/object-files/{file.parent.name}/{file.name}"
for path in [inside, f"/{inside}", f"/x/..{inside}", inside.replace("-", "%2D")]:
    ask("GET", path, None, AUTH, (404,))
wrong = place.replace("X-Amz-Signature=", "X-Amz-Signature=0", 1)
assert wrong != place
ask("GET", wrong, None, {}, (403,))
print("ok - nobody gets at the files without a URL that was signed")

assert file.stat().st_mode & 0o777 == 0o640, oct(file.stat().st_mode)
file.chmod(0o600)
assert ask("GET", place)[1] == image.digest
print("ok - a file from before is sent as well")
file.unlink()
ask("GET", place, None, {}, (404,))
print("ok - a file that is gone is a 404")
