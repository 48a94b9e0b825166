#!/usr/bin/env bash
# Runs the real client libraries, from the oldest to the newest, against a real server: push, pull, and each other's images. Usage: STACKROOM_BIN=… libraries.sh [NEW_DIR]
# With BUILD_ONLY=1 it builds them and stops.
source "$(dirname "$(realpath "$0")")/lib.sh"

need curl
need_go
make_work "${1:-}"
sources=$top/tests/clients/go
built=$cache/client-libraries
mkdir -p "$built"

# --- Build, once per version and source ------------------------------------------------------------------------------
recipe=$(cat "$sources"/*.go "$sources/sums" "$sources/versions" <(go env GOVERSION GOARCH) | sha256sum | cut -c1-16)
# build MODULE VERSION API DIR: one small module of its own, made of the sources and one line of `versions`.
build() {
  local module=$1 version=$2 api=$3 dir=$4
  rm -rf "$dir"; mkdir -p "$dir"
  cp "$sources"/*.go "$dir"
  sed -i "s,github.com/sylabs/scs-library-client,$module," "$dir"/*.go
  # The pinned hashes let Go verify the library even where the checksum database does not know the version.
  cp "$sources/sums" "$dir/go.sum"
  printf 'module client\n\ngo 1.21\n\nrequire %s %s\n' "$module" "$version" >"$dir/go.mod"
  # GOWORK and GOFLAGS of the machine must not affect the build.
  (
    cd "$dir"
    export GOWORK=off GOFLAGS=-mod=mod
    if ! timeout 300 go mod download "$module@$version" >build.log 2>&1; then
      # Bytes that differ from the pinned ones are not a missing module: that must not pass as a skip.
      if grep -qE 'SECURITY ERROR|checksum mismatch' build.log; then exit 1; fi
      exit 77
    fi
    timeout 600 go build -tags "$api" -o client . >build.log 2>&1
  ) || { local why=$?; rm -f "$dir/client"; return $why; }
  echo "$recipe" >"$dir/stamp"
}

names=()
declare -A program api_of
while read -r module version api product; do
  case $module in '' | '#'*) continue ;; esac
  owner=${module#github.com/}; name=${owner%%/*}-$version
  dir=$built/$name
  if [ "$(cat "$dir/stamp" 2>/dev/null)" != "$recipe" ]; then
    echo "# building $name ($product)"
    build "$module" "$version" "$api" "$dir" && why=0 || why=$?
    case $why in
      0) ;;
      77) skip "$name can't be had: $(head -n 1 "$dir/build.log" | cut -c1-200)"; continue ;;
      *) flunk "$name builds"; tail -n 15 "$dir/build.log" | sed 's/^/    | /'; continue ;;
    esac
  fi
  pass "$name is built"
  names+=("$name"); program[$name]=$dir/client; api_of[$name]=$api
done <"$sources/versions"
[ "${#names[@]}" -gt 0 ] || finish
[ -z "${BUILD_ONLY:-}" ] || finish

# --- Images: every push gets bytes of its own, so that each one really uploads ---------------------------------------
(cd "$sources/mksif" && GOWORK=off GOFLAGS='' timeout 120 go build -o "$work/mksif" main.go)
"$work/mksif" "$work/small.sif" 02 400000
"$work/mksif" "$work/big.sif" 02 70000000
# fresh FILE: the same image under a new id, which is in its header.
fresh() { dd if=/dev/urandom of="$1" bs=16 seek=3 count=1 conv=notrunc status=none; }

start_server
add_user alice 100GiB
add_user poor 300KiB
token=$(cat "$work/alice.token")
nobody=
# client NAME VERB TOKEN FILE REF
client() { timeout -k 5 150 "${program[$1]}" "$2" "$url" "$3" "$4" "$5" amd64; }

# brings_back SENTENCE ORIGINAL NAME VERB TOKEN REF
brings_back() {
  rm -f "$work/back.sif"
  if run client "$3" "$4" "$5" "$work/back.sif" "$6"; then same "$1" "$2" "$work/back.sif"; else flunk "$1 (exit $?)"; show_output; fi
}
# await_image NAME REF: a large file may still be verified when its push returns. Until then it is not found, and
# nothing else is waited for.
await_image() {
  for _ in $(seq 20); do
    if run client "$1" pull "$token" "$work/back.sif" "$2" || ! grep -q 'not found' "$out"; then return; fi
    sleep 1
  done
}

# --- Every version by itself -----------------------------------------------------------------------------------------
for name in "${names[@]}"; do
  fresh "$work/small.sif"; fresh "$work/big.sif"
  ref=alice/clients/$name
  case ${api_of[$name]} in
    api02 | api04) ok "$name pushes a small image" client "$name" push "$token" "$work/small.sif" "$ref:small" ;;
    # From 1.0 the library passes on what the server says about the quota. Without a page address, the user's terminal
    # would stay empty.
    *) prints "$name pushes a small image and is told its quota" "^quota: [1-9][0-9]* of $((100 << 30)), page: .*alice.*clients" client "$name" push "$token" "$work/small.sif" "$ref:small" ;;
  esac
  brings_back "$name pulls it back" "$work/small.sif" "$name" pull "$token" "$ref:small"
  brings_back "$name pulls it back without a token" "$work/small.sif" "$name" pull "$nobody" "$ref:small"
  before=$(uploads)
  ok "$name pushes the same bytes again under another tag" client "$name" push "$token" "$work/small.sif" "$ref:again"
  holds "$name moved no bytes for that" [ "$(uploads)" -eq "$before" ]
  brings_back "$name pulls the other tag" "$work/small.sif" "$name" pull "$token" "$ref:again"

  ok "$name pushes a large image" client "$name" push "$token" "$work/big.sif" "$ref:big"
  await_image "$name" "$ref:big"
  brings_back "$name pulls the large image back" "$work/big.sif" "$name" pull "$token" "$ref:big"

  if [ "${api_of[$name]}" = api12 ]; then
    brings_back "$name pulls the small image in several streams" "$work/small.sif" "$name" pull-multi "$token" "$ref:small"
    brings_back "$name pulls the large image in several streams" "$work/big.sif" "$name" pull-multi "$token" "$ref:big"
    brings_back "$name pulls the large image in several streams without a token" "$work/big.sif" "$name" pull-multi "$nobody" "$ref:big"
  fi

  fresh "$work/small.sif"
  refused "$name says that a push exceeds the quota" 'Upload would exceed quota' client "$name" push "$(cat "$work/poor.token")" "$work/small.sif" poor/clients/image:1
  refused "$name is refused in somebody else's entity" 'Forbidden|403' client "$name" push "$(cat "$work/poor.token")" "$work/small.sif" "$ref:small"
  refused "$name finds nothing where nothing is" 'not found' client "$name" pull "$token" "$work/back.sif" "$ref:none"
done

# --- Each other's images ---------------------------------------------------------------------------------------------
oldest=${names[0]}
newest=
for name in "${names[@]}"; do case $name in sylabs-*) newest=$name ;; esac; done
for pusher in "$oldest" "$newest"; do
  fresh "$work/small.sif"
  ref=alice/shared/by-$pusher:latest
  ok "$pusher pushes an image for all others" client "$pusher" push "$token" "$work/small.sif" "$ref"
  for name in "${names[@]}"; do
    verb=pull
    if [ "${api_of[$name]}" = api12 ]; then verb=pull-multi; fi
    brings_back "$name pulls what $pusher pushed" "$work/small.sif" "$name" "$verb" "$token" "$ref"
  done
done

server_is_well
finish
