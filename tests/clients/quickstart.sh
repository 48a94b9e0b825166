#!/usr/bin/env bash
# Runs the quick start of README.md as it is, with the real Apptainer, and checks the results. Usage: STACKROOM_BIN=…
# quickstart.sh [NEW_DIR]
#
# The lines are the README's own, letter by letter. Only their surroundings are prepared:
# - a folder that stands in for the checkout, where target/release/stackroom is STACKROOM_BIN, so nothing is built in
#   release mode;
# - `cargo run --release -- ARGS` runs STACKROOM_BIN ARGS and, like cargo, stays in the foreground;
# - `apptainer` is Debian's own, run inside the folder made by scripts/apptainer-root, as the ordinary user with the id
#   1000. The shell of the quick start is root here, since only root can enter that folder, so that user is made the
#   owner of its files first;
# - a network of its own, so that port 8080 is free and nobody else is reached; where that is not possible, port 8080
#   must be free.
source "$(dirname "$(realpath "$0")")/lib.sh"

readonly PORT=8080
root=$cache/apptainer-root
if [ -z "${QUICKSTART_NETWORK:-}" ]; then
  "$top/scripts/apptainer-root" "$root"
  export QUICKSTART_NETWORK=shared
  if unshare -n "$root/usr/bin/busybox" ip link set lo up 2>/dev/null; then
    QUICKSTART_NETWORK=own exec unshare -n "$(realpath "$0")" "$@"
  fi
fi
if [ "$QUICKSTART_NETWORK" = own ]; then "$root/usr/bin/busybox" ip link set lo up; fi
make_work "${1:-}"
[ -x "${STACKROOM_BIN:-}" ] || { echo "STACKROOM_BIN must name the built stackroom program" >&2; exit 2; }
port_is_free "$PORT" || skip_all "port $PORT is taken on this machine, which the quick start uses"

# --- The surroundings of the quick start -----------------------------------------------------------------------------
checkout=$work/checkout
log=$work/server.log
mkdir -p "$checkout/target/release" "$checkout/tmp" "$work/bin" "$work/home"
ln -s "$(realpath "$STACKROOM_BIN")" "$checkout/target/release/stackroom"
chmod 755 "$work"

cat >"$work/bin/cargo" <<END
#!/bin/sh
# Stands in for cargo: runs the program that was built before.
[ "\$1 \$2 \$3" = "run --release --" ] || { echo "cargo is not expected to be run like this: \$*" >&2; exit 2; }
shift 3
echo \$\$ >"$work/server.pid"
exec "$checkout/target/release/stackroom" "\$@"
END
cat >"$work/bin/apptainer" <<END
#!/bin/sh
# Stands in for the installed Apptainer, and runs the real one.
chown -R 1000:1000 "$work/home"
find "$checkout" -maxdepth 1 ! -name data ! -name target -exec chown 1000:1000 {} +
IN_ROOT_WORK="$checkout" IN_ROOT_HOME="$work/home" exec timeout -k 5 120 "$top/scripts/in-root" -u "$root" \\
  /usr/bin/busybox sh -c 'cd /mnt && exec /usr/bin/apptainer "\$@"' apptainer "\$@"
END
chmod 755 "$work/bin/cargo" "$work/bin/apptainer"

# block NAME: the fenced block of README.md that follows the comment with that name.
block() {
  awk -v mark="<!-- quickstart: $1 -->" '
    $0 == mark { marked = 1; next }
    marked && $0 == "```sh" { inside = 1; next }
    inside && $0 == "```" { exit }
    inside' "$top/README.md"
}
for part in first second; do block "$part terminal" >"$work/$part"; done
holds "README.md has both blocks of the quick start" test -s "$work/first" -a -s "$work/second"

# A terminal is a new shell in the checkout. It stops at the first line that fails, and shows every line.
# Settings from the caller's shell must not reach the quick start.
unset=()
for name in $(compgen -e STACKROOM_ || true); do unset+=(-u "$name"); done
terminal=(env "${unset[@]}" HOME="$work/home" PATH="$work/bin:$PATH" timeout -k 5 300 bash -euxo pipefail)
first() { cd "$checkout" && exec "${terminal[@]}" "$work/first"; }
second() { (cd "$checkout" && "${terminal[@]}" "$work/second"); }

# --- The first terminal ----------------------------------------------------------------------------------------------
(first) >"$work/server.out" 2>"$log" </dev/null &
terminal_pid=$!
for _ in $(seq 150); do
  if grep -q "^Stackroom serves http://127.0.0.1:$PORT" "$log" || ! kill -0 "$terminal_pid" 2>/dev/null; then break; fi
  sleep 0.2
done
# Stopped by its id when this script ends.
server_pid=$(cat "$work/server.pid" 2>/dev/null || true)
serves="the first terminal serves at the address that the second one uses"
if grep -q "^Stackroom serves http://127.0.0.1:$PORT" "$log"; then pass "$serves"; else
  flunk "$serves"; tail -n 20 "$log"
  finish
fi
holds "the first start leaves the site admin's token" test -s "$checkout/data/admin.token"

# --- The second terminal ---------------------------------------------------------------------------------------------
ok "the second terminal: every line succeeds" second
holds "the client says that the login is good" says '^INFO: +Access Token Verified'
holds "the search names the image by its path and tag" says '^[[:space:]]+library://alice/tools/hello:.*1\.0'
same "the pulled image holds the bytes that were pushed" "$checkout/hello.sif" "$checkout/hello_1.0.sif"
holds "the token is for its owner's eyes only" test "$(stat -c %a "$checkout/token")" = 600
holds "the client's list has the remote, active" grep -q '^Active: stackroom$' "$work/home/.apptainer/remote.yaml"
refused "after the delete there is nothing to pull" 'image does not exist in the library' \
  env HOME="$work/home" "$work/bin/apptainer" pull --force --disable-cache again.sif library://alice/tools/hello:1.0
prints "the deleted bytes are given back to the quota" '^alice +- +- +0 B +0 B +10\.0 GiB +free$' \
  env STACKROOM_DATA="$checkout/data" timeout 30 "$STACKROOM_BIN" admin user list
refused "no server calls itself by an address that nobody can reach" 'give an address that they can reach with --public-url' \
  env "${unset[@]}" timeout 20 "$STACKROOM_BIN" serve --listen 0.0.0.0:0 --data "$work/unspecified"

server_is_well
finish
