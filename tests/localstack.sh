#!/usr/bin/env bash
# Runs a command where testcontainers can start an emulator. Usage: localstack.sh COMMAND…
# AWS_ENDPOINT_URL names one that runs. Otherwise a Docker engine is needed: the one that answers, or else one that is
# started here as root, and ends with the command. Where it can't have LocalStack's image, one is built from packages: a
# Debian with ministack, another emulator, which STACKROOM_LOCALSTACK_IMAGE then names.
set -uo pipefail
source "$(dirname "$0")/../scripts/install.sh"

[ -z "${AWS_ENDPOINT_URL:-}" ] || { echo "# on $AWS_ENDPOINT_URL" >&2; exec "$@"; }
work=$(mktemp -d) daemon='' bridge='' built=''
stop() {
  if [ -n "$built" ]; then engine 30 rmi "$built" >/dev/null 2>&1; fi
  if [ -n "$daemon" ]; then
    kill "$daemon" 2>/dev/null
    timeout 30 tail --pid="$daemon" -f /dev/null || kill -9 -- "-$daemon"
    wait "$daemon" 2>/dev/null
  fi
  if [ -n "$bridge" ]; then ip link delete "$bridge"; fi
  rm -rf "$work"
}
trap stop EXIT
skipped() { echo "SKIPPED localstack: $1" >&2; exit "${2:-$SKIP}"; }
# engine SECONDS COMMAND…: asks the engine.
engine() { timeout "$1" docker "${@:2}"; }
answers() { engine 10 version --format '{{.Server.Version}}' >"$work/version" 2>/dev/null; }

# An engine of our own, on a socket, a bridge and in a folder of its own. Without iptables it leaves nothing behind;
# published ports are on loopback only, and nothing in a container reaches any other network.
start_engine() {
  need dockerd:docker.io docker:docker.io iptables ip:iproute2 || skipped "there is no Docker engine" $?
  bridge=srls$((RANDOM % 10000))
  if ! { ip link add "$bridge" type bridge && ip addr add "172.31.$((RANDOM % 250)).1/24" dev "$bridge" && ip link set "$bridge" up; } 2>"$work/log"; then
    bridge=; skipped "no Docker engine can be started, since no bridge can be made here: $(head -n 1 "$work/log")" "$EXCUSED"
  fi
  # Its mounts are its own, and end with it.
  unshare --mount --propagation private true 2>/dev/null || skipped "no Docker engine can be started: the kernel allows no mounts (CAP_SYS_ADMIN)" "$EXCUSED"
  printf '{}' >"$work/daemon.json"
  DOCKER_TMPDIR=$work timeout 86400 unshare --mount --propagation private dockerd --host "unix://$work/docker.sock" --data-root "$work/root" \
    --exec-root "$work/exec" --pidfile "$work/docker.pid" --config-file "$work/daemon.json" --bridge "$bridge" --ip 127.0.0.1 \
    --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false >"$work/daemon.log" 2>&1 </dev/null &
  daemon=$!
  export DOCKER_HOST=unix://$work/docker.sock
  local try
  for try in {1..150}; do
    ! answers || return 0
    kill -0 "$daemon" 2>/dev/null || break
    sleep 0.2
  done
  skipped "no Docker engine starts here: $(grep -vE 'level=(info|warning|debug)' "$work/daemon.log" | tail -n 1 | cut -c1-250)" "$EXCUSED"
}

# An image of Debian's packages and PyPI's, kept in .cache as a layer.
build_image() {
  local dir=$cache/localstack list=$top/tests/localstack.txt base=$work/base
  if ! cmp -s "$list" "$dir/has"; then
    [ "$(id -u)" = 0 ] || skipped "the image can't be had, and only root can build another one"
    need mmdebstrap || skipped "the image can't be had, and no other one be built" $?
    python3 -c 'import ensurepip' 2>/dev/null || install_packages python3 python3-venv || skipped "there is no pip" $?
    echo '# building an image' >&2
    rm -rf "$dir"; mkdir -p "$dir" "$work/app"
    { python3 -m venv "$work/pip" && timeout 600 "$work/pip/bin/pip" --quiet install --target "$work/app" --only-binary=:all: --require-hashes \
      --python-version 3.11 --implementation cp --platform "manylinux2014_$(uname -m)" --platform "manylinux_2_28_$(uname -m)" -r "$list"; } >&2 ||
      skipped "$(grep -o '^ministack==[^ ]*' "$list") can't be had from PyPI here"
    timeout 900 mmdebstrap --quiet --variant=essential --include=python3,ca-certificates --dpkgopt='path-exclude=/usr/share/doc/*' \
      --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' bookworm "$base" >&2 || skipped "no Debian can be unpacked here"
    mkdir "$base/app" && cp -r "$work/app/." "$base/app" && tar -C "$base" --numeric-owner -cf "$dir/image.tar" . && cp "$list" "$dir/has" || exit 1
    rm -rf "$base" "$work/app" "$work/pip"
  fi
  built=stackroom-ministack:$$
  engine 300 import --change 'ENV PYTHONPATH=/app' --change 'ENV GATEWAY_PORT=4566' --change 'EXPOSE 4566' \
    --change 'CMD ["python3", "-m", "ministack"]' "$dir/image.tar" "$built" >/dev/null || { built=; exit 1; }
  export STACKROOM_LOCALSTACK_IMAGE=$built
}

command -v docker >/dev/null && answers || start_engine
image=${STACKROOM_LOCALSTACK_IMAGE:-$(sed -n 's/^pub const IMAGE: &str = "\(.*\)";$/\1/p' "$top/tests/src/localstack.rs")}
if ! engine 30 image inspect "$image" >/dev/null 2>&1 && ! engine 600 pull --quiet "$image" >"$work/pull" 2>&1; then
  # Whoever names an image wants that one.
  [ -z "${STACKROOM_LOCALSTACK_IMAGE:-}" ] || skipped "$image can't be had: $(tail -n 1 "$work/pull")"
  echo "# $image can't be had: $(tail -n 1 "$work/pull")" >&2
  build_image
fi
echo "# Docker $(cat "$work/version" 2>/dev/null), ${STACKROOM_LOCALSTACK_IMAGE:-$image}" >&2
"$@"
