#!/usr/bin/env bash
# Runs both commands of README.md in a fresh Debian 12 with a C compiler, make, git and Rust and nothing else. Usage:
# bare.sh [COMMAND…]. With a COMMAND, runs that instead of the two, in the clone: bare.sh scripts/test fsync. What is
# tested is the last commit.
#
# The root folder is in .cache and is removed at the end. What runs inside has one process namespace and one mount
# namespace, so no process and no mount is left over, however it ends. The network is the machine's own. Besides Rust,
# it is given what this machine needs to reach the package registries: the mirror, certificates, the settings of package
# clients and proxies. And the conformance program if this machine has one, since not every module proxy serves it.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh

excused() { echo "SKIPPED bare: $1" >&2; exit "$EXCUSED"; }
[ "$(id -u)" = 0 ] || { echo "SKIPPED bare: only root can make and enter a root folder" >&2; exit "$SKIP"; }
unshare --mount --pid --fork true 2>/dev/null || excused "the kernel gives no right to mount and process namespaces (CAP_SYS_ADMIN)"
rust=$(rustc --print sysroot)
[ -x "$rust/bin/cargo" ] && [ "$rust" != /usr ] || { echo "SKIPPED bare: Rust lies among this machine's own files, and can't be lent; take rustup's" >&2; exit "$SKIP"; }
need mmdebstrap

dir=$cache/bare root=$cache/bare/root home=/root inside=
mkdir -p "$dir"
exec 9>"$dir/lock"
flock -n 9 || { echo "another run of this suite holds $dir/lock" >&2; exit 1; }
leave() {
  # It takes everything that runs inside with it.
  if [ -n "$inside" ]; then kill -KILL "$inside" 2>/dev/null || true; wait "$inside" 2>/dev/null || true; fi
  rm -rf --one-file-system "$root"
}
trap leave EXIT
trap 'exit 130' INT TERM
rm -rf --one-file-system "$root"

# --- A bare Debian, made once a week ---------------------------------------------------------------------------------
find "$dir" -name 'base-*.tar' -mtime +7 -delete
mirror_of_this_machine() {
  apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 2>/dev/null |
    awk -F'|' '$1 == "Debian" && $2 == "Debian" && $3 ~ /^https?:/ && !found { print $3; found = 1 }'
}
mirror=$(mirror_of_this_machine)
[ -n "$mirror" ] || { timeout 300 apt-get -qq update || true; mirror=$(mirror_of_this_machine); }
[ -n "$mirror" ] || { echo "SKIPPED bare: apt names no reachable Debian mirror on this machine" >&2; exit "$SKIP"; }
includes=gcc,libc6-dev,make,git,ca-certificates
apt-config dump | grep -E '^Acquire::(http|https|Check-|ForceIPv|Retries)' >"$dir/apt.conf" || true
base=$dir/base-$(cat "$dir/apt.conf" <(echo "$mirror $includes") | sha256sum | cut -c1-16).tar
if [ ! -s "$base" ]; then
  echo "# making a bare Debian 12"
  timeout 1200 mmdebstrap --quiet --variant=minbase --include="$includes" --aptopt="$dir/apt.conf" bookworm "$base.part" "$mirror" --format=tar
  mv "$base.part" "$base"
fi
mkdir "$root"
tar -C "$root" --numeric-owner -xf "$base"

# --- What it is given ------------------------------------------------------------------------------------------------
# take FILE PLACE: a copy of what this machine has, if it has it.
take() { if [ -e "$1" ]; then mkdir -p "$root$(dirname "$2")"; cp -rL "$1" "$root$2"; fi; }
take /etc/resolv.conf /etc/resolv.conf
take /etc/hosts /etc/hosts
for file in /etc/pip.conf /etc/npmrc; do take "$file" "$file"; done
for file in .npmrc .pip/pip.conf .config/pip/pip.conf .config/go/env; do take "$HOME/$file" "$home/$file"; done
take "${CARGO_HOME:-$HOME/.cargo}/config.toml" "$home/.cargo/config.toml"
for program in "${XDG_CACHE_HOME:-$HOME/.cache}"/stackroom/conformance-*; do take "$program" "$home/.cache/stackroom/${program##*/}"; done
if [ -d /usr/local/share/ca-certificates ]; then
  cp -rL /usr/local/share/ca-certificates "$root/usr/local/share/"
  chroot "$root" update-ca-certificates >/dev/null 2>&1
fi
settings=()
for name in $(compgen -e); do
  case $name in
    [Hh][Tt][Tt][Pp]_[Pp][Rr][Oo][Xx][Yy] | [Hh][Tt][Tt][Pp][Ss]_[Pp][Rr][Oo][Xx][Yy] | [Aa][Ll][Ll]_[Pp][Rr][Oo][Xx][Yy] | [Nn][Oo]_[Pp][Rr][Oo][Xx][Yy]) ;;
    PIP_* | NPM_CONFIG_* | npm_config_* | CARGO_HTTP_* | CARGO_NET_* | CARGO_REGISTR* | CARGO_SOURCE_*) ;;
    GOPROXY | GOSUMDB | GONOSUMDB | GONOPROXY | GOPRIVATE | GOINSECURE | GOTOOLCHAIN) ;;
    SSL_CERT_FILE | SSL_CERT_DIR | *_CA_BUNDLE | *_CA_CERTS | *_SSL_CAINFO) ;;
    *) continue ;;
  esac
  settings+=("$name=${!name}")
  # A certificate that such a setting names must be present too.
  if [ -f "${!name}" ] && [ ! -e "$root${!name}" ]; then take "${!name}" "${!name}"; fi
done
mkdir -p "$root/opt/rust"
git clone --quiet --no-hardlinks . "$root$home/stackroom"
[ -z "$(git status --porcelain)" ] || echo "# what is not committed here is not tested"

# --- What runs inside ------------------------------------------------------------------------------------------------
cat >"$root$home/both" <<'INSIDE'
set -uo pipefail
cd ~/stackroom || exit
# Not as the last command: bash must stay as the first process, and reap what others leave behind.
if [ $# -gt 0 ]; then timeout -k 30 9000 "$@"; exit $?; fi

# serve: the first command. Only the port differs, since 8080 may be taken.
serve() {
  local port=$((20000 + RANDOM % 12000)) server status=1
  echo "# cargo run --release -- serve"
  timeout -k 10 5400 cargo build --release || return
  STACKROOM_LISTEN=127.0.0.1:$port cargo run --release -- serve >~/serve.log 2>&1 </dev/null &
  server=$!
  for _ in {1..300}; do
    # There is no curl yet.
    if (exec 3<>"/dev/tcp/127.0.0.1/$port" && printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3 && timeout 5 head -n 1 <&3 | grep ' 200 ') 2>/dev/null; then status=0; break; fi
    kill -0 "$server" 2>/dev/null || break
    sleep 0.2
  done
  kill "$server" 2>/dev/null; wait "$server"
  if [ $status = 0 ]; then echo "# it is ready, $SECONDS s after the command"; else echo "nothing is ready:"; tail -n 20 ~/serve.log; fi
  return $status
}
serve || exit 1
echo "# scripts/test"
timeout -k 30 9000 scripts/test --complete
exit $?
INSIDE

# It ends with this script, even if that is killed, and so does everything that runs in it.
export BARE_ROOT=$root BARE_RUST=$rust
setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --propagation private bash -euc '
  exec 9>&-
  mount --bind "$BARE_ROOT" "$BARE_ROOT"
  mount -t proc proc "$BARE_ROOT/proc"
  for part in sys dev; do mount --rbind "/$part" "$BARE_ROOT/$part"; done
  mount --bind "$BARE_RUST" "$BARE_ROOT/opt/rust"
  mount -o remount,bind,ro "$BARE_ROOT/opt/rust"
  cd "$BARE_ROOT"
  pivot_root . .
  umount -l .
  exec env -i "$@"
' bare "${settings[@]}" HOME="$home" LANG=C.UTF-8 TERM=dumb PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  bash "$home/both" "$@" </dev/null &
inside=$!
status=0
wait "$inside" || status=$?
inside=
exit $status
