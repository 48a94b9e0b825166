#!/usr/bin/env bash
# Runs the OCI conformance program against a real server: for the released and for the coming specification, and
# read-only without a login. Usage: STACKROOM_BIN=… conformance.sh [NEW_DIR]. REGISTRY=… tests another registry, see
# oci.sh. CONFORMANCE_BIN names a built program, for use where the module can't be downloaded. BUILD_ONLY=1 builds it
# and stops. Of an exchange, the last EXCHANGE_LINES lines are shown.
source "$(dirname "$(realpath "$0")")/lib.sh"
source "$(dirname "$(realpath "$0")")/oci.sh"

need curl awk:mawk
make_work "${1:-}"
sources=$top/tests/clients/conformance
program=${CONFORMANCE_BIN:-$cache/conformance/conformance}

# --- Build, once per pin ---------------------------------------------------------------------------------------------
build() {
  local dir=$1
  rm -rf "$dir"; mkdir -p "$dir"
  cp "$sources/go.mod" "$sources/go.sum" "$dir"
  (
    cd "$dir"
    # GOWORK and GOFLAGS of the machine must not affect the build; the pinned hashes decide.
    export GOWORK=off GOFLAGS=-mod=readonly
    if ! timeout 300 go mod download github.com/opencontainers/distribution-spec/conformance >build.log 2>&1; then
      # Bytes that differ from the pinned ones are not a missing module: that must not pass as a skip.
      if grep -qE 'SECURITY ERROR|checksum mismatch' build.log; then exit 1; fi
      exit 77
    fi
    timeout 600 go build -o conformance github.com/opencontainers/distribution-spec/conformance >build.log 2>&1
  ) || { local why=$?; rm -f "$dir/conformance"; return $why; }
  echo "$recipe" >"$dir/stamp"
}
if [ -n "${CONFORMANCE_BIN:-}" ]; then
  echo "# the program is $CONFORMANCE_BIN, and nothing proves which version it is"
else
  need_go
  recipe=$(cat "$sources/go.mod" "$sources/go.sum" <(go env GOVERSION GOARCH) | sha256sum | cut -c1-16)
  if [ "$(cat "$cache/conformance/stamp" 2>/dev/null)" != "$recipe" ]; then
    echo "# building the conformance program"
    build "$cache/conformance" && why=0 || why=$?
    case $why in
      0) ;;
      77)
        # A program built elsewhere from the same commit, in a place where nothing else is.
        commit=$(sed -n 's/.*conformance v0.0.0-[0-9]*-\([0-9a-f]*\).*/\1/p' "$sources/go.mod")
        program=${XDG_CACHE_HOME:-$HOME/.cache}/stackroom/conformance-$commit
        # If the proxy answers and refuses, no installation would help.
        if grep -qE ': 4(03|04|10) ' "$cache/conformance/build.log"; then why=$EXCUSED; else why=$SKIP; fi
        [ -x "$program" ] || skip_all "the conformance program can't be had: $(grep -m 1 . "$cache/conformance/build.log" | cut -c1-300)" "$why"
        echo "# the module can't be had; the program is $program, and nothing but its name says which version it is" ;;
      *) flunk "the conformance program builds"; tail -n 15 "$cache/conformance/build.log" | sed 's/^/    | /'; finish ;;
    esac
  fi
fi
ok "there is a conformance program to run" test -x "$program"
[ "$failed" -eq 0 ] || finish
[ -z "${BUILD_ONLY:-}" ] || finish

choose_registry
one=$space/conf/one two=$space/conf/two shown=$space/conf/shown

# --- One run, and what it found --------------------------------------------------------------------------------------
# tests_of FILE: one line for each test in a junit.xml: its status, its name, its errors and its exchange. Escaped line
# ends stay escaped.
tests_of() {
  awk '
    function attribute(name) { return match($0, name "=\"[^\"]*\"") ? substr($0, RSTART + length(name) + 2, RLENGTH - length(name) - 3) : "" }
    /<testcase / { name = attribute("name"); status = attribute("status"); errors = exchange = ""; inside = 1 }
    inside && /<system-out>/ { errors = $0; gsub(/^ *<system-out>|<\/system-out>.*$/, "", errors) }
    inside && /<system-err>/ { exchange = $0; gsub(/^ *<system-err>|<\/system-err>.*$/, "", exchange) }
    /<\/testcase>/ { inside = 0; gsub(/\t/, " ", errors); print status "\t" name "\t" errors "\t" exchange }
  ' "$1"
}
plain() { sed -e 's/&#xA;/\n/g; s/&#xD;//g; s/&#x9;/\t/g; s/&#34;/"/g; s/&#39;/'"'"'/g; s/&lt;/</g; s/&gt;/>/g; s/&amp;/\&/g' <<<"$1"; }

# conforms NAME SETTING…: runs the program with these settings. Shows what failed with the requests and answers, and
# what was skipped by name.
conforms() {
  local run=$1 results=$work/$1 status=0 setting good=0 off=0 counted; shift
  mkdir -p "$results"
  # Settings from the caller's shell must have no effect, nor an oci-conformance.yaml in the current folder.
  local settings=(-u OCI_CONFIGURATION)
  for setting in $(compgen -e OCI_ || true); do settings+=(-u "$setting"); done
  echo "# $run"
  (cd "$results" && timeout -k 5 900 env "${settings[@]}" OCI_REGISTRY="$registry" OCI_TLS=disabled OCI_RESULTS_DIR="$results" "$@" "$program") >"$results/printed" 2>&1 </dev/null || status=$?
  # The program also exits with 0 when it could not start.
  if [ ! -s "$results/junit.xml" ] || [ ! -s "$results/results.yaml" ]; then
    flunk "$run: it runs and leaves results (exit $status)"; tail -n 15 "$results/printed" | sed 's/^/    | /'; return
  fi
  local result name errors exchange failures=0
  while IFS=$'\t' read -r result name errors exchange; do
    name=${name#OCI Conformance Test/}
    case $result in
      passed) good=$((good + 1)) ;;
      skipped)
        # What was switched off is not reported; what the registry does not support is.
        if [[ $errors$exchange == *'is disabled in the configuration'* ]]; then off=$((off + 1)); echo "$name" >>"$results/off"
        else skip "$run: $name: $(plain "${errors:-$exchange}" | head -n 3 | tr '\n' ' ')"; fi ;;
      *)
        failures=$((failures + 1))
        flunk "$run: $name: $(plain "$errors" | head -n 3 | cut -c1-400 | tr '\n' ' ')"
        plain "$exchange" | grep -vE '^[=-]+$' | tail -n "${EXCHANGE_LINES:-120}" | cut -c1-300 | sed 's/^/    | /' ;;
    esac
  done < <(tests_of "$results/junit.xml")
  passed=$((passed + good))
  [ "$good" -eq 0 ] || echo "ok - $run: $good tests pass"
  [ "$off" -eq 0 ] || echo "# $run: switched off, and not run: $(sort "$results/off" | uniq -c | awk '{ n = $1; $1 = ""; printf("%s%s%s", before, substr($0, 2), (n > 1) ? " (" n ")" : ""); before = "; " }')"
  # The program's own verdict and count must agree with what was read here.
  counted=$(grep -m 1 -oE '<testsuite [^>]*>' "$results/junit.xml")
  holds "$run: there are tests that passed" test "$good" -gt 0
  if [ "$failures" -eq 0 ]; then
    holds "$run: the program says so, too" test "$status" -eq 0
    holds "$run: it counts no failure and no error of its own" grep -qE 'failures="0" errors="0"' <<<"$counted"
  fi
  echo "# $run: by its own count $(grep -oE '(tests|failures|errors|disabled|skipped|time)="[0-9.]+"' <<<"$counted" | tr '\n' ' ')"
}

# Once with the password and once with a token in its place.
with_password=() with_token=()
if [ -n "$login" ]; then
  with_password=("OCI_USERNAME=$user" "OCI_PASSWORD=$password")
  with_token=("OCI_USERNAME=$user" "OCI_PASSWORD=$token")
fi
conforms stable OCI_VERSION=stable OCI_REPO1="$one" OCI_REPO2="$two" "${with_password[@]}"
conforms dev OCI_VERSION=dev OCI_REPO1="$one" OCI_REPO2="$two" "${with_token[@]}"

# --- Without a login -------------------------------------------------------------------------------------------------
# Anonymous callers may not write, so this run only reads what was pushed before. It covers the ping; the tag list, also
# starting after a tag; HEAD and GET of every tag, manifest and blob, where only the status 200 is checked; a valid list
# of referrers; 404 for what never existed. It compares no bytes, types, lengths or ranges, since the program does not
# know what was pushed. That is checked by hand below, and so is that writes are refused.
mkdir "$work/files"
printf 'one\n' >"$work/files/one"; tar -C "$work/files" -cf "$work/one.tar" one
head -c 300000 /dev/urandom >"$work/files/two"; tar -C "$work/files" -cf "$work/two.tar" two
image "$work/image" "$arch" "$work/one.tar" "$work/two.tar"
image "$work/other" "$(other_arch)" "$work/one.tar"
index "$work/both" "$work/image" "$work/other"
subject=$(digest_of "$work/image")
mkdir -p "$work/referrer/blobs/sha256"
printf '{}' >"$work/referrer/part"
nothing=$(keep "$work/referrer" "$work/referrer/part")
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.example.test","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:%s","size":2},"layers":[{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:%s","size":2}],"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%s}}' \
  "$nothing" "$nothing" "$subject" "$(stat -c %s "$work/image/blobs/sha256/${subject#sha256:}")" >"$work/referrer/part"
seal "$work/referrer" application/vnd.oci.image.manifest.v1+json ''
for name in image both referrer; do ok "what is read without a login is pushed with one: $name" push_by_hand "$work/$name" "$shown" "$name"; done

asking=
if [ -n "$ours" ]; then
  holds "nobody sees it yet without a login" test "$(ask GET "/v2/$shown/tags/list")" = 401
  ok "its owner makes it public" env STACKROOM_TOKEN="$token" timeout 30 "$STACKROOM_BIN" set "$shown" --visibility public
fi
# anonymously METHOD PLACE [CURL…]: as a caller without name and password, who does fetch a token when told to.
anonymously() { asking=: ask "$@"; }
if [ "$(anonymously GET "/v2/$shown/tags/list")" != 200 ]; then
  if [ -n "$ours" ]; then flunk "a public repository is read without a login (status $(anonymously GET "/v2/$shown/tags/list"))"
  else skip "this registry shows nothing without a login, so there is no run without one"; fi
else
  manifests=$(cat "$work"/{image,both,referrer}/manifests | sort -u | sed 's/^/sha256:/' | tr '\n' ' ')
  blobs=$(for layout in image both referrer; do
    for blob in "$work/$layout"/blobs/sha256/*; do echo "sha256:${blob##*/}"; done
  done | sort -u | grep -vxFf <(tr ' ' '\n' <<<"$manifests" | grep .) | tr '\n' ' ')
  # The program's check for Docker-Content-Digest on manifests can't succeed in a read-only run: it loses the answer. It
  # is done by hand below. The program also crashes before it writes its results when it meets tests of uploads, or is
  # given something to read and a filter that excludes it. So each part runs by itself.
  reading=(OCI_VERSION=dev OCI_REPO1="$shown" OCI_REPO2="$two" OCI_API_PUSH=false OCI_API_MANIFESTS_DIGEST_HEADER=false
    OCI_API_BLOBS_DELETE=false OCI_API_BLOBS_UPLOAD_CANCEL=false OCI_API_MANIFESTS_DELETE=false OCI_API_TAGS_DELETE=false)
  for part in ping empty missing-manifest invalid-digest-format; do conforms "nobody-$part" "${reading[@]}" OCI_FILTER_TEST="OCI Conformance Test/$part"; done
  conforms nobody "${reading[@]}" OCI_FILTER_TEST="OCI Conformance Test/read-only" \
    OCI_RO_DATA_TAGS='image both referrer' OCI_RO_DATA_MANIFESTS="${manifests% }" OCI_RO_DATA_BLOBS="${blobs% }" OCI_RO_DATA_REFERRERS="$subject"
  for digest in $manifests; do
    holds "nobody gets the manifest $digest" test "$(anonymously GET "/v2/$shown/manifests/$digest" "${accept[@]}")" = 200
    holds "with its bytes, and its digest in the header" test "sha256:$(digest "$work/body") $(header docker-content-digest)" = "$digest $digest"
  done
  for digest in $blobs; do
    holds "nobody gets the blob $digest" test "$(anonymously GET "/v2/$shown/blobs/$digest" -L)" = 200
    holds "with its bytes" test "sha256:$(digest "$work/body")" = "$digest"
  done
fi
if [ -z "$login" ]; then
  skip "this registry takes writes without a login, so none is refused"
else
  printf '{}' >"$work/empty.json"
  image=$work/image/blobs/sha256/${subject#sha256:}
  type='Content-Type: application/vnd.oci.image.manifest.v1+json'
  for place in "$shown" "$space/conf/new"; do
    holds "nobody opens an upload in $place" test "$(anonymously POST "/v2/$place/blobs/uploads/" -H 'Content-Length: 0')" = 401
    holds "nobody sends a blob at once to $place" test "$(anonymously POST "/v2/$place/blobs/uploads/?digest=sha256:$nothing" --data-binary "@$work/empty.json")" = 401
    holds "nobody mounts a blob into $place" test "$(anonymously POST "/v2/$place/blobs/uploads/?mount=sha256:$nothing&from=$shown" -H 'Content-Length: 0')" = 401
    holds "nobody pushes a manifest to $place" test "$(anonymously PUT "/v2/$place/manifests/mine" -H "$type" --data-binary "@$image")" = 401
  done
  holds "nobody deletes a tag" test "$(anonymously DELETE "/v2/$shown/manifests/image")" = 401
  holds "nobody deletes a manifest" test "$(anonymously DELETE "/v2/$shown/manifests/$subject")" = 401
  holds "nobody deletes a blob" test "$(anonymously DELETE "/v2/$shown/blobs/sha256:$nothing")" = 401
  registry_has "after all this the image is there" "$shown" image "$subject"
fi

if [ -n "$ours" ]; then server_is_well; fi
finish
