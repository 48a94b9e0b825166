# Shared by the client tests: a real server of their own, counted assertions, and the summary. Sourced, never run.
# shellcheck shell=bash
# Expects STACKROOM_BIN (the built `stackroom`); the first argument, a folder for everything that the run writes, is
# optional. STACKROOM_SERVER is another program to serve with: `cloud` puts functions in the place of the one process.
set -euo pipefail
export LC_ALL=C

# $top and $cache, and functions that install what is missing.
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/install.sh"
passed=0 failed=0 skipped=0
server_pid=
server_settings=()

pass() { passed=$((passed + 1)); echo "ok - $1"; }
flunk() { failed=$((failed + 1)); echo "not ok - $1"; }
skip() { skipped=$((skipped + 1)); echo "SKIPPED - $1"; }
finish() {
  echo "$passed passed, $failed failed$([ "$skipped" -eq 0 ] || echo ", $skipped skipped")"
  [ "$failed" -eq 0 ] || exit 1
  # That nothing ran does not mean that nothing is wrong.
  [ "$passed" -gt 0 ] || exit "${1:-$SKIP}"
  exit 0
}
# skip_all SENTENCE [STATUS]: skips everything. The reason is printed and counted, and it never passes for success.
skip_all() { skip "$1"; finish "${2:-$SKIP}"; }

# $out holds what a command printed until the next one, and is shown when its assertion fails.
show_output() { tail -n 15 "$out" | sed 's/^/    | /'; }
run() { "$@" >"$out" 2>&1 </dev/null; }
# ok SENTENCE CMD…: the command succeeds.
ok() {
  local sentence=$1; shift
  if run "$@"; then pass "$sentence"; else flunk "$sentence (exit $?)"; show_output; fi
}
# prints SENTENCE PATTERN CMD…: it succeeds, and its output matches.
prints() {
  local sentence=$1 pattern=$2; shift 2
  if run "$@" && grep -qE -- "$pattern" "$out"; then pass "$sentence"; else flunk "$sentence (wanted success and /$pattern/)"; show_output; fi
}
# refused SENTENCE PATTERN CMD…: it fails for the expected reason: a crash or a timeout is not a refusal.
refused() {
  local sentence=$1 pattern=$2; shift 2
  if run "$@"; then flunk "$sentence (it succeeded)"; show_output
  elif grep -qE -- "$pattern" "$out"; then pass "$sentence"
  else flunk "$sentence (wanted failure and /$pattern/)"; show_output; fi
}
# same SENTENCE FILE FILE: both exist and hold the same bytes.
same() {
  if [ -s "$2" ] && [ -s "$3" ] && [ "$(digest "$2")" = "$(digest "$3")" ]; then pass "$1"; else flunk "$1 (the bytes differ)"; fi
}
# holds SENTENCE TEST…: a test of the last output, or of the server's log; it leaves $out as it is.
holds() {
  local sentence=$1; shift
  if "$@" >/dev/null 2>&1; then pass "$sentence"; else flunk "$sentence"; show_output; fi
}
says() { grep -qE -- "$1" "$out"; }
lacks() { ! grep -qE -- "$1" "$out"; }
digest() { sha256sum <"$1" | cut -d' ' -f1; }

cleanup() {
  # Only the server that this run started is stopped, by its process id.
  if [ -n "$server_pid" ] && kill "$server_pid" 2>/dev/null; then
    for _ in $(seq 50); do kill -0 "$server_pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$server_pid" 2>/dev/null || true
    wait "$server_pid" 2>/dev/null || true
  fi
  if [ -n "${work_is_ours:-}" ]; then rm -rf "$work"; fi
}

# make_work [DIR]: a given folder is kept for inspection, one of our own is removed.
make_work() {
  if [ -n "${1:-}" ]; then
    mkdir -p "$1"; work=$(realpath "$1")
    [ -z "$(ls -A "$work")" ] || { echo "$work is not empty; give a new folder" >&2; exit 2; }
  else
    work=$(mktemp -d); work_is_ours=yes
  fi
  out=$work/output
  : >"$out"
  trap cleanup EXIT
  trap 'exit 130' INT TERM
}

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# start_server: on return $url answers, and STACKROOM_URL and STACKROOM_TOKEN are those of the first admin.
start_server() {
  [ -x "${STACKROOM_BIN:-}" ] || { echo "STACKROOM_BIN must name the built stackroom program" >&2; exit 2; }
  local port name
  for _ in $(seq 20); do
    port=$((20000 + RANDOM % 12000))
    if port_is_free "$port"; then break; fi
  done
  url=http://127.0.0.1:$port
  log=$work/server.log
  # Settings from the caller's shell must not reach the server under test.
  local unset=()
  for name in $(compgen -e STACKROOM_ || true); do
    # Where the functions of `cloud` are is no setting of a server.
    case $name in STACKROOM_UNDER | STACKROOM_FUNCTIONS*) ;; *) unset+=(-u "$name") ;; esac
  done
  env "${unset[@]}" STACKROOM_LOG=info STACKROOM_LOG_FORMAT=json ${server_settings[@]+"${server_settings[@]}"} "${STACKROOM_SERVER:-$STACKROOM_BIN}" serve --listen "127.0.0.1:$port" --data "$work/data" >"$work/server.out" 2>"$log" </dev/null &
  server_pid=$!
  for _ in $(seq 150); do
    kill -0 "$server_pid" 2>/dev/null || break
    if curl -fsS -m 2 -o /dev/null "$url/version" 2>/dev/null && [ -s "$work/data/admin.token" ]; then
      STACKROOM_TOKEN=$(cat "$work/data/admin.token")
      export STACKROOM_URL=$url STACKROOM_TOKEN
      echo "# the server answers at $url"
      return
    fi
    sleep 0.2
  done
  flunk "the server starts, answers /version and leaves an admin token"
  tail -n 20 "$work/server.out" "$log" >&2
  finish
}

# add_user NAME QUOTA: adds a user and writes a token of theirs to $work/NAME.token.
add_user() {
  if echo "password-of-$1-$RANDOM$RANDOM" | timeout 30 "$STACKROOM_BIN" admin user add "$1" --quota "$2" --password-stdin >"$out" 2>&1 &&
    timeout 30 "$STACKROOM_BIN" admin token "$1" --name laptop >"$work/$1.token" 2>>"$out" && [ -s "$work/$1.token" ]; then return; fi
  flunk "the command line adds user $1 with a token"; show_output
  finish
}

# How many requests so far opened an upload or sent one, by the server's own log. A line may be written a moment after
# its answer.
uploads() { sleep 0.2; grep -E 'PUT|POST' "$log" | grep -cE 'imagefile|objects' || true; }

# The server's own view of the whole run: 507 is the only 5xx that is not an error of the server.
server_is_well() {
  if kill -0 "$server_pid" 2>/dev/null; then pass "the server is still running"; else flunk "the server is still running"; fi
  if grep -E '"status":[[:space:]]*5[0-9][0-9]|panicked' "$log" | grep -vE '"status":[[:space:]]*507' >"$out"; then
    flunk "no request ended in a server error"; show_output
  else pass "no request ended in a server error"; fi
}
