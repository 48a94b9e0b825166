"""The servers that scripts/bench measures: how each is had, started, asked for its CPU time and memory, and stopped."""

import contextlib
import functools
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
# What is built for the bench, and kept: never in the source tree.
BUILT = pathlib.Path.home() / ".cache/stackroom"
PACKAGES = {
    "docker-registry": "docker-registry", "/usr/sbin/nginx": "nginx-light", "wrk": "wrk", "ab": "apache2-utils",
    "strace": "strace", "cc": "build-essential",
}
DISTRIBUTION_3 = BUILT / "distribution-3.0.0/registry"
ZOT = pathlib.Path(os.environ.get("STACKROOM_ZOT", BUILT / "zot"))
# How long a server may take to answer before it counts as hung.
PATIENCE = 120
# What tidy takes for bytes that were pushed to be measured.
LARGE = 50 << 20


def say(text):
    print(text, file=sys.stderr, flush=True)


def install():
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if not missing:
        return
    if os.geteuid() != 0:
        sys.exit(f"not root, so {' '.join(missing)} can't be installed here")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Installing starts no service: only the processes of this script are measured, and only they are stopped.
    env["RUNLEVEL"] = "1"
    subprocess.run(["apt-get", "-qq", "update"], check=True, env=env, stdout=subprocess.DEVNULL)
    command = ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *missing]
    subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)


def build_distribution_3():
    """Whether distribution 3.0 is there. It is built once, from the Go module proxy."""
    if not DISTRIBUTION_3.exists():
        module = "github.com/distribution/distribution/v3/cmd/registry@v3.0.0"
        script = 'source "$1" && from_go "$2" "$3" >&2'
        arguments = [TOP / "scripts/install.sh", DISTRIBUTION_3.parent, module]
        subprocess.run(["bash", "-c", script, "bash", *arguments], check=False)
    return DISTRIBUTION_3.exists()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A process that was started here, and will be stopped here. Each kind says how it is configured and started."""

    name = ""
    # The headers of those who push.
    auth = {}

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        folder.mkdir()
        command, env = self.command()
        self.log = folder / "log"
        self.out = open(self.log, "ab")
        # The settings of the caller's own server must not change what is measured.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("STACKROOM_")}
        self.process = subprocess.Popen(
            command, stdout=self.out, stderr=self.out, stdin=subprocess.DEVNULL, env={**clean, **env}
        )
        self.proc = pathlib.Path("/proc") / str(self.process.pid)
        self.wait()

    def command(self):
        """Writes the configuration. Returns the command, and what it needs in its environment."""
        raise NotImplementedError

    def wait(self):
        for _ in range(PATIENCE * 10):
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended at once: {self.log.read_text(errors='replace')[-2000:]}")
            # It listens before it is ready, so any answer will do, but there must be one.
            with contextlib.suppress(OSError, http.client.HTTPException):
                link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
                with contextlib.closing(link):
                    link.request("GET", "/")
                    link.getresponse().read()
                    return
            time.sleep(0.1)
        self.stop()
        raise RuntimeError(f"{self.name} does not answer")

    def cpu(self):
        """Seconds of CPU so far, of all its threads, to the nanosecond: clock_getcpuclockid(3)."""
        return time.clock_gettime(~self.process.pid << 3 | 2)

    def forget_peak(self):
        """Resets the memory peak."""
        (self.proc / "clear_refs").write_text("5")

    def memory(self, field):
        """A figure of its status in MiB, like VmHWM."""
        return int(re.search(rf"{field}:\s+(\d+)", (self.proc / "status").read_text())[1]) / 1024

    def tidy(self):
        """Frees the disk of large blobs, of which each is pushed once. Of nobody's but this server's."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path.stat().st_size > LARGE:
                path.unlink()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.out.close()


class Stackroom(Server):
    name = "stackroom"

    def __init__(self, folder, binary, level="warn", preload=None):
        self.binary, self.level, self.preload = binary, level, preload
        super().__init__(folder)

    def command(self):
        # The log goes to a file, as it would in production.
        env = {"STACKROOM_LOG": self.level, "STACKROOM_LOG_FORMAT": "json"}
        if self.preload:
            env["LD_PRELOAD"] = str(self.preload)
        listen = f"127.0.0.1:{self.port}"
        return [str(self.binary), "serve", "--data", str(self.folder / "data"), "--listen", listen], env


class Distribution(Server):
    """Debian's. In its fastest configuration: quiet, with its cache of descriptors, without passwords."""

    name = "distribution 2.8"
    program = "docker-registry"

    def command(self):
        config = self.folder / "config.yml"
        config.write_text(f"""version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  cache: {{blobdescriptor: inmemory}}
  filesystem: {{rootdirectory: {self.folder}/data}}
  delete: {{enabled: true}}
http: {{addr: '127.0.0.1:{self.port}'}}
""")
        return [self.program, "serve", str(config)], {"OTEL_TRACES_EXPORTER": "none"}


class Distribution3(Distribution):
    name = "distribution 3.0"
    program = str(DISTRIBUTION_3)


class Zot(Server):
    name = "zot"

    def command(self):
        config = self.folder / "config.json"
        config.write_text(json.dumps({
            "storage": {"rootDirectory": str(self.folder / "data"), "dedupe": True},
            "http": {"address": "127.0.0.1", "port": str(self.port)},
            "log": {"level": "error"},
        }))
        return [str(ZOT), "serve", str(config)], {}


class Nginx(Server):
    """Serves files only, at the paths that registries have them at."""

    name = "nginx"

    def command(self):
        config, folder = self.folder / "nginx.conf", self.folder
        # One process, so that all its CPU time is counted in one place.
        config.write_text(f"""daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log crit;
worker_rlimit_nofile 1024;
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000000; client_body_temp_path {folder}/b;
  proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  types {{ }} default_type application/json;
  server {{ listen 127.0.0.1:{self.port}; root {folder}/static; }}
}}
""")
        return ["/usr/sbin/nginx", "-c", str(config), "-e", str(folder / "nginx.log")], {}

    def place(self, path, pieces):
        file = self.folder / "static" / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "wb") as out:
            for piece in pieces:
                out.write(piece)


@functools.cache
def peers():
    """The registries beside ours that can be had on this machine."""
    found = [Distribution]
    if build_distribution_3():
        found.append(Distribution3)
    else:
        say("distribution 3.0 is left out: it can't be built here")
    if os.access(ZOT, os.X_OK):
        found.append(Zot)
    else:
        say(f"zot is left out: there is no program {ZOT}. Build one from its sources with `GOEXPERIMENT=jsonv2 CGO_ENABLED=0 "
            "go build -trimpath -ldflags '-s -w' ./cmd/zot`, and put it there or name it in STACKROOM_ZOT")
    return found
