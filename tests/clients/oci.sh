# Shared by the registry tests: which registry, images to push, and requests by curl. Sourced after lib.sh, never run.
# shellcheck shell=bash
# REGISTRY=host:port tests a registry that is already running (http, on loopback) instead of a server of its own. With
# it go REGISTRY_USER and REGISTRY_PASSWORD if it requires a login, REGISTRY_TOKEN if it accepts a token as a password,
# and REGISTRY_SPACE, the first name of all repositories.

# choose_registry: on return $registry is its host:port, pushing below $space/ is allowed, and $password and $token both
# log $user in. $ours says that it is a Stackroom of this run, $login that it requires a login.
choose_registry() {
  ours='' login='' user='' password='' token=''
  if [ -n "${REGISTRY:-}" ]; then
    registry=$REGISTRY user=${REGISTRY_USER:-} password=${REGISTRY_PASSWORD:-}
    token=${REGISTRY_TOKEN:-$password}
    space=${REGISTRY_SPACE:-${user:-alice}}
    case $(curl -sS -m 10 -o /dev/null -w '%{http_code}' "http://$registry/v2/" 2>"$out" || true) in
      200) ;;
      401) login=yes; [ -n "$user" ] || { echo "$registry wants a login: set REGISTRY_USER and REGISTRY_PASSWORD" >&2; exit 2; } ;;
      *) flunk "a registry answers at $registry"; show_output; finish ;;
    esac
    return
  fi
  # A repository of one name lies below the default entity.
  # shellcheck disable=SC2034
  server_settings=(STACKROOM_DEFAULT_ENTITY=alice)
  # With HOSTS=2 the bytes of blobs are sent to a second host, which is this server too.
  if [ "${HOSTS:-1}" = 2 ]; then
    local second=$((10000 + RANDOM % 20000))
    server_settings+=("STACKROOM_INGEST_URL=http://localhost:$second" "STACKROOM_INGEST_LISTEN=127.0.0.1:$second")
    echo "# blobs are sent to http://localhost:$second"
  fi
  start_server
  # One setting per line: these are read by the scripts that source this one.
  # shellcheck disable=SC2034
  ours=yes login=yes
  registry=${url#http://}
  user=alice space=alice
  add_user alice 100GiB
  add_user bob 10GiB
  token=$(cat "$work/alice.token")
  # Every character that a Basic header can carry, since that is how all clients send it.
  password='correct horse:battery/staple+1%'
  if ! printf '%s\n' "$password" | timeout 30 "$STACKROOM_BIN" admin user passwd alice >"$out" 2>&1; then
    flunk "alice has a password"; show_output; finish
  fi
}

# --- Requests without any client: curl -------------------------------------------------------------------------------
# ask METHOD PLACE [CURL…]: prints the status; the answer's headers are in $work/head and its body in $work/body. It
# authenticates as $asking, which is user:password or nothing, but only when challenged.
ask() {
  local method=$1 place=$2 request=(-sS -m 300 -D "$work/head" -o "$work/body" -w '%{http_code}') status; shift 2
  case $place in http://*) ;; *) place=http://$registry$place ;; esac
  case $method in HEAD) request+=(--head "$place") ;; *) request+=(-X "$method" "$place") ;; esac
  : >"$work/head"; : >"$work/body"
  status=$(curl "${request[@]}" "$@" 2>"$work/curl.log") || true
  if [ "$status" = 401 ] && [ -n "$asking" ] && answer_challenge; then
    : >"$work/body"
    status=$(curl "${request[@]}" "${answer[@]}" "$@" 2>"$work/curl.log") || true
  fi
  echo "$status"
}
asking=
# header NAME: of the last answer.
header() { sed -nE "s/^$1: *(.*[^[:space:]])[[:space:]]*$/\1/Ip" "$work/head" | tail -n 1; }
answer_challenge() {
  local challenge realm service scope bearer
  challenge=$(header www-authenticate)
  case $challenge in
    [Bb]asic*) answer=(-u "$asking"); return ;;
    [Bb]earer*) ;;
    *) return 1 ;;
  esac
  realm=$(sed -nE 's/.*realm="([^"]*)".*/\1/p' <<<"$challenge")
  service=$(sed -nE 's/.*service="([^"]*)".*/\1/p' <<<"$challenge")
  scope=$(sed -nE 's/.*scope="([^"]*)".*/\1/p' <<<"$challenge")
  bearer=$(curl -sS -m 30 -u "$asking" -G --data-urlencode "service=$service" ${scope:+--data-urlencode "scope=$scope"} "$realm" 2>"$work/curl.log" |
    sed -nE 's/.*"(access_)?token" *: *"([^"]+)".*/\2/p')
  [ -n "$bearer" ] || return 1
  answer=(-H "Authorization: Bearer $bearer")
}

accept=(-H 'Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json')
# manifest_digest REPOSITORY REFERENCE: the digest of the bytes that the registry returns, computed here.
manifest_digest() {
  [ "$(asking=${user:+$user:$password} ask GET "/v2/$1/manifests/$2" "${accept[@]}")" = 200 ] || return 1
  echo "sha256:$(digest "$work/body")"
}
# registry_has SENTENCE REPOSITORY REFERENCE DIGEST: it returns exactly that manifest, says so in its header, and has
# everything that the manifest names.
registry_has() {
  local found named size
  if ! found=$(manifest_digest "$2" "$3"); then flunk "$1 (asked by hand, the registry does not give $2 $3)"; return; fi
  if [ "$found" != "$4" ]; then flunk "$1 (it is $found, wanted $4)"; return; fi
  if [ "$(header docker-content-digest)" != "$4" ]; then flunk "$1 (Docker-Content-Digest is \`$(header docker-content-digest)\`)"; return; fi
  # An index names manifests. Whoever pushes one checks those too.
  for named in $(tr ',{' '\n' <"$work/body" | grep -oE '"digest" *: *"sha256:[0-9a-f]+"' | grep -oE 'sha256:[0-9a-f]+' | sort -u); do
    if [ "$(asking=${user:+$user:$password} ask HEAD "/v2/$2/blobs/$named")" = 200 ]; then
      size=$(header content-length)
      [ -n "$size" ] || { flunk "$1 (no length for $named)"; return; }
    elif [ "$(asking=${user:+$user:$password} ask HEAD "/v2/$2/manifests/$named" "${accept[@]}")" != 200 ]; then
      flunk "$1 ($named is not there)"; return
    fi
  done
  pass "$1"
}

# upload REPOSITORY FILE: one blob, in one piece.
upload() {
  local place
  [ "$(ask POST "/v2/$1/blobs/uploads/" -H 'Content-Length: 0')" = 202 ] || return 1
  place=$(header location)
  case $place in *\?*) place="$place&" ;; *) place="$place?" ;; esac
  [ "$(ask PUT "${place}digest=sha256:$(digest "$2")" -H 'Content-Type: application/octet-stream' -T "$2")" = 201 ]
}
# push_by_hand LAYOUT REPOSITORY TAG: the image or index of a layout that `image` or `index` made.
push_by_hand() {
  local asking=${user:+$user:$password} layout=$1 blob main type
  main=$(digest_of "$layout")
  for blob in "$layout"/blobs/sha256/*; do
    # Manifests are sent last, and the one that gets the tag after all others.
    if grep -qxF "${blob##*/}" "$layout/manifests"; then continue; fi
    upload "$2" "$blob" || return 1
  done
  for blob in $(cat "$layout/manifests"); do
    type=$(sed -nE 's/.*^\{"schemaVersion":2,"mediaType":"([^"]+)".*/\1/p' "$layout/blobs/sha256/$blob")
    [ "$(ask PUT "/v2/$2/manifests/sha256:$blob" -H "Content-Type: $type" --data-binary "@$layout/blobs/sha256/$blob")" = 201 ] || return 1
  done
  [ "$(ask PUT "/v2/$2/manifests/$3" -H "Content-Type: $type" --data-binary "@$layout/blobs/sha256/${main#sha256:}")" = 201 ]
}

# --- Images: OCI layouts, written without any client -----------------------------------------------------------------
# `dpkg` and OCI use the same names for architectures.
arch=$(dpkg --print-architecture 2>/dev/null || echo amd64)
# keep LAYOUT FILE: puts a file among the blobs and prints its digest without the algorithm.
keep() {
  local hex
  hex=$(digest "$2")
  mv "$2" "$1/blobs/sha256/$hex"
  echo "$hex"
}
digest_of() { grep -oE 'sha256:[0-9a-f]+' "$1/index.json" | head -n 1; }
config_of() { grep -oE 'sha256:[0-9a-f]+' "$1/blobs/sha256/$(digest_of "$1" | cut -d: -f2)" | head -n 1; }
# image LAYOUT ARCH FILE…: an image with those layers under the tag `it`: tar files, which are gzipped here, and
# squashfs files as they are.
image() {
  local layout=$1 of=$2 tar hex layers='' diffs='' history='' part=$1/part config type; shift 2
  mkdir -p "$layout/blobs/sha256"
  for tar in "$@"; do
    diffs+="${diffs:+,}\"sha256:$(digest "$tar")\""
    history+="${history:+,}{\"created\":\"2024-01-01T00:00:00Z\",\"created_by\":\"$(basename "$tar")\"}"
    case $tar in
      *.squashfs) type=application/vnd.sylabs.image.layer.v1.squashfs; cp "$tar" "$part" ;;
      *) type=application/vnd.oci.image.layer.v1.tar+gzip; gzip -1 -n <"$tar" >"$part" ;;
    esac
    hex=$(keep "$layout" "$part")
    layers+="${layers:+,}{\"mediaType\":\"$type\",\"digest\":\"sha256:$hex\",\"size\":$(stat -c %s "$layout/blobs/sha256/$hex")}"
  done
  printf '{"created":"2024-01-01T00:00:00Z","architecture":"%s","os":"linux","config":{"Labels":{"purpose":"test %s"}},"rootfs":{"type":"layers","diff_ids":[%s]},"history":[%s]}' \
    "$of" "$(basename "$layout")" "$diffs" "$history" >"$part"
  config=$(keep "$layout" "$part")
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[%s]}' \
    "$config" "$(stat -c %s "$layout/blobs/sha256/$config")" "$layers" >"$part"
  seal "$layout" application/vnd.oci.image.manifest.v1+json ''
}
# index LAYOUT LAYOUT…: an index of the images of those layouts: the first for this machine's architecture, the second
# for another.
index() {
  local layout=$1 other entries='' hex of=$arch part=$1/part before=''; shift
  mkdir -p "$layout/blobs/sha256"
  for other in "$@"; do
    cp "$other"/blobs/sha256/* "$layout/blobs/sha256/"
    hex=$(digest_of "$other" | cut -d: -f2)
    before+="$hex "
    entries+="${entries:+,}{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"sha256:$hex\",\"size\":$(stat -c %s "$layout/blobs/sha256/$hex"),\"platform\":{\"architecture\":\"$of\",\"os\":\"linux\"}}"
    of=$(other_arch)
  done
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s]}' "$entries" >"$part"
  seal "$layout" application/vnd.oci.image.index.v1+json "$before"
}
other_arch() { if [ "$arch" = amd64 ]; then echo arm64; else echo amd64; fi; }
# seal LAYOUT TYPE OTHERS: makes the file `part` the content of the layout; `manifests` lists all manifests in it.
seal() {
  local hex
  hex=$(keep "$1" "$1/part")
  printf '{"imageLayoutVersion":"1.0.0"}' >"$1/oci-layout"
  printf '{"schemaVersion":2,"manifests":[{"mediaType":"%s","digest":"sha256:%s","size":%s,"annotations":{"org.opencontainers.image.ref.name":"it"}}]}' \
    "$2" "$hex" "$(stat -c %s "$1/blobs/sha256/$hex")" >"$1/index.json"
  printf '%s\n' $3 "$hex" >"$1/manifests"
}
# same_image SENTENCE LAYOUT FOLDER: every blob of the layout is in the folder, under its digest and with its bytes.
same_image() {
  local blob name
  for blob in "$2"/blobs/sha256/*; do
    name=${blob##*/}
    if [ ! -f "$3/$name" ] || [ "$(digest "$3/$name")" != "$name" ]; then flunk "$1 (of $name, $3 has $(ls "$3" 2>/dev/null | head -n 20 | tr '\n' ' '))"; return; fi
  done
  pass "$1"
}
