"""What scripts/bench measures of the built functions: their size, how long each takes to start, its memory."""

import http.server
import io
import json
import pathlib
import re
import statistics
import subprocess
import sys
import threading
import time
import zipfile

from report import table
from servers import PATIENCE


class Runtime(http.server.BaseHTTPRequestHandler):
    """Lambda's runtime API for one process: tells when it asked for work first, and gives it one event."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        state = self.server.state
        if "polled" in state:
            state["over"].wait()
            return
        state["polled"] = time.monotonic()
        state["begun"].set()
        state["go"].wait()
        body = json.dumps(state["event"]).encode()
        self.send_response(200)
        self.send_header("Lambda-Runtime-Aws-Request-Id", "1")
        self.send_header("Lambda-Runtime-Deadline-Ms", str(int((time.time() + 30) * 1000)))
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:local:0:function:bench")
        self.send_header("Lambda-Runtime-Trace-Id", "Root=1-0-0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.server.state["answer"] = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.server.state["answered"].set()


# What each answers without asking its stores. The others have nothing of that kind but a path that is not there.
ASKED = {"discovery": "/version", "keys": "/pks/lookup", "login": "/token"}


def gateway(path):
    """The event that API Gateway makes of a request."""
    call = {"method": "GET", "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "bench"}
    context = {"accountId": "0", "apiId": "api", "domainName": "api", "domainPrefix": "api", "http": call, "requestId": "1",
               "routeKey": "$default", "stage": "$default", "time": "01/Jan/2026:00:00:00 +0000", "timeEpoch": 1767225600000}
    return {"version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "", "headers": {"host": "api"},
            "requestContext": context, "isBase64Encoded": False}


def memory(process, name):
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 1024


def started(bootstrap):
    """Starts a function once. Returns the milliseconds until it asked for work, and its memory in MiB."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Runtime) as server:
        name = bootstrap.parent.name
        event = {} if name in ("sweep", "verify", "downloads", "follow") else gateway(ASKED.get(name, "/nowhere"))
        server.daemon_threads = True
        server.state = {"event": event, "begun": threading.Event(), "go": threading.Event(),
                        "answered": threading.Event(), "over": threading.Event()}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_port}", "AWS_LAMBDA_FUNCTION_NAME": name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256", "AWS_LAMBDA_FUNCTION_VERSION": "1", "AWS_REGION": "local",
            "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
            "STACKROOM_TABLE": "t", "STACKROOM_BUCKET": "b", "STACKROOM_PUBLIC_URL": "https://library.example.org",
            "STACKROOM_TOKEN_KEYS": "k:" + "ab" * 32, "STACKROOM_LOG": "error",
        }
        began = time.monotonic()
        process = subprocess.Popen([bootstrap], env=env, stdin=subprocess.DEVNULL)
        try:
            if not server.state["begun"].wait(PATIENCE):
                raise RuntimeError(f"{name} does not start")
            init, first = (server.state["polled"] - began) * 1000, memory(process, "VmRSS")
            server.state["go"].set()
            # A sweep asks the stores, which are not there.
            if name != "sweep" and not server.state["answered"].wait(PATIENCE):
                raise RuntimeError(f"{name} does not answer")
            return init, first, memory(process, "VmHWM")
        finally:
            process.kill()
            process.wait()
            server.state["over"].set()
            server.shutdown()


def zipped(path):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.write(path, "bootstrap")
    return held.tell()


def functions(folder):
    rows = []
    for bootstrap in sorted(folder.glob("*/bootstrap")):
        runs = [started(bootstrap) for _ in range(20)]
        init, first, peak = (statistics.median(run[at] for run in runs) for at in range(3))
        size, packed = bootstrap.stat().st_size / 1e6, zipped(bootstrap) / 1e6
        rows.append([bootstrap.parent.name, f"{size:.1f}", f"{packed:.1f}", f"{init:.1f}",
                     f"{min(run[0] for run in runs):.1f}", f"{first:.0f}", f"{peak:.0f}"])
    if not rows:
        sys.exit(f"{folder} has no functions; `scripts/test lambda-release` builds them")
    print(table(["function", "MB", "MB zipped", "ms to start", "at best", "MiB at start", "MiB after an answer"], rows))
