#!/usr/bin/env bash
# Runs two servers behind nginx with the settings of infra/deploy/servers: clients of the registry use both, then one of
# them alone after the other's `kill -9`, and then both again. Usage: STACKROOM_BIN=… servers.sh [NEW_DIR], beside a table and a
# bucket: tests/emulators.sh starts them.
# shellcheck source=tests/clients/lib.sh
source "$(dirname "$0")/../clients/lib.sh"

need /usr/sbin/nginx:nginx-light openssl curl || exit
make_work "${1:-}"
example=$top/infra/deploy/servers
read -r _ table bucket _ <<<"${STACKROOM_TEST_STORES:?tests/emulators.sh starts the stores}"

pids=() nginx_pid=
stop_all() {
  local pid
  for pid in "${pids[@]}" $nginx_pid; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
}
trap 'stop_all; cleanup' EXIT

free_port() {
  local port
  while port=$((10000 + RANDOM % 9000)); ! port_is_free "$port"; do :; done
  echo "$port"
}
balancer=$(free_port) one=$(free_port) two=$(free_port)
url=http://127.0.0.1:$balancer
(umask 077; echo "k1:$(openssl rand -hex 32)" >"$work/keys")

# The settings of the example, with the addresses of this test in them, and nothing else changed.
mapfile -t settings < <(grep -v '^#' "$example/environment" | sed -e "s|^STACKROOM_PUBLIC_URL=.*|STACKROOM_PUBLIC_URL=$url|" \
  -e "s|^STACKROOM_PROXIES=.*|STACKROOM_PROXIES=127.0.0.1|" -e "s|/run/secrets/keys|$work/keys|" \
  -e "s|http://table:8000|$table|" -e "s|http://bucket:7070|$bucket|" -e "s|http://127.0.0.1:7070|$bucket|" \
  -e 's|^AWS_ACCESS_KEY_ID=.*|AWS_ACCESS_KEY_ID=test|' -e 's|^AWS_SECRET_ACCESS_KEY=.*|AWS_SECRET_ACCESS_KEY=test|')
settings+=(STACKROOM_DEFAULT_ENTITY=alice)
unset_all=()
for name in $(compgen -e STACKROOM_ || true); do unset_all+=(-u "$name"); done
# serve NUMBER PORT: starts a server and waits until it answers.
serve() {
  env "${unset_all[@]}" "${settings[@]}" STACKROOM_LISTEN="127.0.0.1:$2" STACKROOM_LOG=info STACKROOM_LOG_FORMAT=json \
    "$STACKROOM_BIN" serve --create >>"$work/$1.out" 2>>"$work/$1.log" </dev/null &
  pids[$1]=$!
  for _ in $(seq 300); do
    if curl -fsS -m 2 -o /dev/null "http://127.0.0.1:$2/readyz" 2>/dev/null; then return; fi
    kill -0 "${pids[$1]}" 2>/dev/null || break
    sleep 0.1
  done
  flunk "server $1 answers"; tail -n 5 "$work/$1.log"; finish
}
serve 1 "$one"
serve 2 "$two"
mkdir -p "$work/nginx"
{
  echo "daemon off; pid $work/nginx/pid; error_log $work/nginx/error.log; events {}"
  echo "http {"
  for kind in client_body proxy fastcgi uwsgi scgi; do echo "${kind}_temp_path $work/nginx/$kind;"; done
  sed -e "s|one:8080|127.0.0.1:$one|" -e "s|two:8080|127.0.0.1:$two|" -e "s|listen 8080|listen 127.0.0.1:$balancer|" \
    -e "s|/var/log/nginx/error.log|$work/nginx/error.log|" "$example/balancer.conf"
  echo "}"
} >"$work/nginx/nginx.conf"
/usr/sbin/nginx -c "$work/nginx/nginx.conf" -e "$work/nginx/error.log" 2>"$work/nginx/said" &
nginx_pid=$!
for _ in $(seq 100); do ! curl -fsS -m 2 -o /dev/null "$url/version" 2>/dev/null || break; sleep 0.1; done
ok "the balancer of the example answers" curl -fsS -m 5 "$url/version"

STACKROOM_TOKEN=$(echo "the first password" | env "${unset_all[@]}" "${settings[@]}" timeout 60 "$STACKROOM_BIN" admin bootstrap --password-stdin 2>"$out" || true)
export STACKROOM_URL=$url STACKROOM_TOKEN
holds "the first administrator is made, and has a token" [ -n "$STACKROOM_TOKEN" ]
add_user alice 10GiB

# Real clients, all of them.
clients() { REGISTRY=${url#http://} REGISTRY_USER=alice REGISTRY_PASSWORD=$(cat "$work/alice.token") CLIENTS='skopeo oras' "$top/tests/clients/registry.sh" && ! grep -q "^# not run" "$out"; }
if clients >"$out" 2>&1; then pass "skopeo and oras push, pull, copy and delete through both"; else flunk "skopeo and oras through both"; show_output; fi
for number in 1 2; do
  holds "server $number answered some of it" [ "$(grep -c '"status"' "$work/$number.log")" -gt 20 ]
done
kill -9 "${pids[1]}"; wait "${pids[1]}" 2>/dev/null || true
for number in 1 2 3 4 5 6; do ok "without one of them, request $number is answered" curl -fsS -m 10 "$url/version"; done
if clients >"$out" 2>&1; then pass "skopeo and oras do all that with the other one alone"; else flunk "skopeo and oras with one server"; show_output; fi
serve 1 "$one"
before=$(grep -c '"status"' "$work/1.log")
sleep 6
if clients >"$out" 2>&1; then pass "and with both again"; else flunk "skopeo and oras with both again"; show_output; fi
holds "the one that came back answers its part" [ "$(grep -c '"status"' "$work/1.log")" -gt $((before + 20)) ]
grep -hE '"status":[[:space:]]*5[0-9][0-9]|panicked' "$work/1.log" "$work/2.log" >"$out" || true
holds "no request ended in a server error" [ ! -s "$out" ]
finish
