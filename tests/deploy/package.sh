#!/usr/bin/env bash
# Packs the server for Debian, installs the package in a root of its own, runs what it installed, and checks the services in it.
# shellcheck source=tests/clients/lib.sh
source "$(dirname "$0")/../clients/lib.sh"

need strip:binutils dpkg-deb:dpkg systemd-analyze:systemd curl strace || exit
make_work "${1:-}"
root=$work/root
mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates"
: >"$root/var/lib/dpkg/status"

if package=$(DEB_COMPRESSION=none "$top/scripts/deb" "$STACKROOM_BIN" "$work" 2>"$out"); then pass "the server is packed"; else
  flunk "the server is packed"; show_output; finish
fi
prints "it depends on the C library that the binary was built with, or a newer one" 'libc6 \(>= 2\.[0-9]+\), libgcc-s1' \
  dpkg-deb --field "$package" Depends
# The root is empty, so what the package depends on is not in it.
ok "dpkg installs it" dpkg --root="$root" --force-depends --force-not-root --force-script-chrootless --install "$package"
prints "what is installed runs" '^stackroom [0-9.]+$' "$root/usr/bin/stackroom" --version
prints "dpkg knows the settings as a file of the operator" environment dpkg-query --root="$root" --showformat='${Conffiles}' --show stackroom
echo 'STACKROOM_PUBLIC_URL=https://changed.example.org' >"$root/etc/stackroom/environment"
ok "dpkg installs it again" dpkg --root="$root" --force-depends --force-not-root --force-script-chrootless --force-confold --install "$package"
ok "and leaves the operator's settings alone" grep -q changed "$root/etc/stackroom/environment"

for unit in "$root"/lib/systemd/system/*.service; do
  name=$(basename "$unit" .service)
  # Only the place of the program differs from where it will be.
  sed "s|/usr/bin/|$root/usr/bin/|" "$unit" >"$work/$name.service"
  ok "$name: systemd finds no mistake" systemd-analyze verify --man=no "$work/$name.service"
  if run systemd-analyze security --offline=true --threshold=15 "$work/$name.service"; then
    pass "$name: $(tail -n 1 "$out" | sed 's/.*level for [^:]*: //')"
  else flunk "$name: it is as closed as it can be"; show_output; fi
done

# What the service may call, as systemd lists it, and what the server calls.
calls() {
  systemd-analyze syscall-filter "$1" | sed -n 's/^    //p' | while read -r call; do
    case $call in @*) calls "$call" ;; '#'*) ;; *) echo "$call" ;; esac
  done
}
# The filter is a list of sets, each taken away with `~`, and read in this order.
allowed() {
  local line word
  : >"$work/allowed"
  while read -r line; do
    for word in ${line#\~}; do case $word in @*) calls "$word" ;; *) echo "$word" ;; esac; done | sort -u >"$work/set"
    case $line in
      \~*) comm -23 "$work/allowed" "$work/set" >"$work/rest" ;;
      *) sort -u "$work/allowed" "$work/set" >"$work/rest" ;;
    esac
    mv "$work/rest" "$work/allowed"
  done < <(calls @default | paste -sd ' '; sed -n 's/^SystemCallFilter=//p' "$root/lib/systemd/system/stackroom.service")
}
if strace -o "$out" true 2>/dev/null; then
  allowed
  binary=$STACKROOM_BIN
  printf '#!/bin/sh\nexec strace -f -qq -o %s %s "$@"\n' "$work/trace" "$root/usr/bin/stackroom" >"$work/traced"
  chmod 755 "$work/traced"
  STACKROOM_BIN=$work/traced start_server
  STACKROOM_BIN=$binary add_user alice 1GiB
  head -c 3000000 /dev/urandom >"$work/blob"
  auth="Authorization: Bearer $(curl -sS -u "alice:$(cat "$work/alice.token")" "$url/token?scope=repository:alice/a/b:pull,push" | sed -nE 's/.*"token" *: *"([^"]+)".*/\1/p')"
  place=$(curl -sS -D - -o /dev/null -X POST -H "$auth" "$url/v2/alice/a/b/blobs/uploads/" | sed -nE 's/^location: *(.*[^[:space:]])[[:space:]]*$/\1/Ip')
  case $place in /*) place=$url$place ;; esac
  prints "a traced server takes a blob" 201 curl -sS -o /dev/null -w '%{http_code}' -T "$work/blob" -H "$auth" -H 'Content-Type: application/octet-stream' \
    "$place&digest=sha256:$(digest "$work/blob")"
  kill "$(pgrep -P "$server_pid" -f "$root/usr/bin/stackroom" || echo "$server_pid")" 2>/dev/null || true
  sleep 1
  sed -nE 's/^[0-9]+ +([a-z0-9_]+)\(.*/\1/p' "$work/trace" | sort -u >"$work/called"
  [ "$(wc -l <"$work/called")" -gt 30 ] || flunk "the server was traced"
  # SQLite does this one only as root, which the service is not.
  comm -23 "$work/called" "$work/allowed" | grep -vx fchown >"$out" || true
  if [ ! -s "$out" ]; then
    pass "stackroom: the service may call all $(wc -l <"$work/called") of the calls that the server makes"
  else flunk "stackroom: the service may not call these"; show_output; fi
else
  skip "stackroom: the calls of the server against those that the service may make (no tracing here)"
fi
finish
