#!/usr/bin/env bash
# Runs the examples of nginx and Caddy in front of a server, with a certificate of our own, and pushes and pulls through them.
# Then the same where the proxy sends the files of objects itself.
# shellcheck source=tests/clients/lib.sh
source "$(dirname "$0")/../clients/lib.sh"

need openssl /usr/sbin/nginx:nginx-light caddy python3 curl || exit
make_work "${1:-}"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
  -keyout "$work/key.pem" -out "$work/certificate.pem" 2>"$out"

proxy_pid=
stop_proxy() {
  [ -z "$proxy_pid" ] || { kill "$proxy_pid" 2>/dev/null && wait "$proxy_pid" 2>/dev/null || true; }
  proxy_pid=
}
trap 'stop_proxy; cleanup' EXIT

free_port() {
  local port
  while port=$((10000 + RANDOM % 9000)); ! port_is_free "$port"; do :; done
  echo "$port"
}

# The example with the name, the ports and the certificate of this test in it, and nothing else changed.
nginx_here() {
  mkdir -p "$work/nginx/spool"
  {
    # Its workers read the files of objects by their group alone.
    [ "$(id -u)" != 0 ] || echo "user nobody $(id -gn);"
    echo "daemon off; pid $work/nginx/pid; error_log $work/nginx/error.log; events {}"
    echo "http {"
    for kind in client_body proxy fastcgi uwsgi scgi; do echo "${kind}_temp_path $work/nginx/spool/$kind;"; done
    sed -e "s|listen 443 |listen 127.0.0.1:$port |" -e "s|library.example.org;|localhost;|" \
      -e "s|ssl_certificate .*|ssl_certificate $work/certificate.pem;|" \
      -e "s|ssl_certificate_key .*|ssl_certificate_key $work/key.pem;|" \
      -e "s|/var/log/nginx/error.log|$work/nginx/error.log|" -e "s|/var/lib/stackroom/objects|$work/data/objects|" -e "s|http://127.0.0.1:8080|$behind|" "$top/infra/deploy/nginx.conf"
    echo "}"
  } >"$work/nginx/nginx.conf"
  /usr/sbin/nginx -c "$work/nginx/nginx.conf" -e "$work/nginx/error.log" 2>"$work/nginx/said" &
  proxy_pid=$!
}
caddy_here() {
  mkdir -p "$work/caddy/spool"
  {
    sed -e '0,/^{$/s/^{$/{\n    admin off\n    auto_https disable_redirects\n    default_sni localhost/' -e "s|^library.example.org {|https://localhost:$port {\n    tls $work/certificate.pem $work/key.pem|" \
      -e "s|127.0.0.1:8080|${behind#http://}|" -e "s|/var/lib/stackroom/objects|$work/data/objects|" "$top/infra/deploy/Caddyfile"
  } >"$work/caddy/Caddyfile"
  XDG_DATA_HOME=$work/caddy XDG_CONFIG_HOME=$work/caddy TMPDIR=$work/caddy/spool \
    caddy run --adapter caddyfile --config "$work/caddy/Caddyfile" 2>"$work/caddy/said" &
  proxy_pid=$!
}

for case in "nginx ourselves" "caddy ourselves" "nginx itself" "caddy itself"; do
  read -r proxy sends <<<"$case"
  port=$(free_port)
  public=https://localhost:$port
  server_settings=("STACKROOM_PUBLIC_URL=$public")
  [ "$sends" != itself ] || server_settings+=("STACKROOM_PROXY_SENDS=/object-files/")
  rm -rf "$work/data" "$work/$proxy"
  start_server
  # The group of the object files passes through, and reads nothing else.
  chmod g+x "$work" "$work/data"
  behind=$url
  add_user alice 10GiB
  "${proxy}_here"
  for _ in $(seq 100); do
    kill -0 "$proxy_pid" 2>/dev/null || break
    if curl -fsS -m 2 --cacert "$work/certificate.pem" -o "$out" "$public/version" 2>/dev/null; then break; fi
    sleep 0.1
  done
  if [ "$sends" = itself ]; then
    if python3 "$top/tests/deploy/sends.py" "$public" "$work/alice.token" "$work/certificate.pem" "$work/data/objects" "$server_pid" \
      >"$out" 2>&1; then
      pass "$proxy: it sends the files of objects itself"
    else
      flunk "$proxy: it sends the files of objects itself"; show_output; cat "$work/$proxy/said"
    fi
  elif python3 "$top/tests/deploy/through.py" "$public" "$work/alice.token" "$work/certificate.pem" "$work/data/objects" \
    "$work/$proxy/spool" >"$out" 2>&1; then
    pass "$proxy: what clients send and fetch passes it, and stays nowhere"
  else
    flunk "$proxy: what clients send and fetch passes it"; show_output; cat "$work/$proxy/said"
  fi
  sed "s/^ok - /    $proxy: /" "$out"
  # The limits for an address count the clients', and the log shows them, because the proxy names them.
  [ "$sends" = itself ] || ok "$proxy: an event names the client's address" grep -q 127.0.0.2 <(STACKROOM_URL=$url timeout 30 "$STACKROOM_BIN" log alice --json)
  ok "$proxy: and its own log has no secret of a URL" sh -c '! grep -rlE "_s=|X-Amz-Signature|/dl/" "$0" "$1"' "$work/$proxy" "$log"
  server_is_well
  stop_proxy
  cleanup_keep=$work; work_is_ours='' cleanup; work_is_ours=yes work=$cleanup_keep server_pid=
done
finish
