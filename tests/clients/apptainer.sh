#!/usr/bin/env bash
# Runs the unmodified Apptainer command line against a real server: login, push, pull, sign, search, delete, quota. Usage: STACKROOM_BIN=… apptainer.sh [NEW_DIR]
source "$(dirname "$(realpath "$0")")/lib.sh"

need curl
make_work "${1:-}"
root=$cache/apptainer-root
"$top/scripts/apptainer-root" "$root"
start_server
add_user alice 10GiB
add_user bob 10GiB
add_user small 100KiB
add_user medium 100MiB

case $(dpkg --print-architecture) in
  arm64) here=arm64 there=amd64 there_code=2 ;;
  *) here=amd64 there=arm64 there_code=4 ;;
esac
mnt=$work/mnt
mkdir -p "$mnt/tmp"
cp "$work"/*.token "$mnt"

# Everybody has a home of their own, with a remote.yaml written by hand: `remote add` can't take a port.
for who in alice bob small medium anyone; do
  mkdir -p "$work/home-$who/.apptainer"
  if [ "$who" = bob ]; then continue; fi
  printf 'Active: here\nRemotes:\n  here:\n    URI: %s\n    System: false\n    Insecure: true\n' "$url" >"$work/home-$who/.apptainer/remote.yaml"
  chmod 600 "$work/home-$who/.apptainer/remote.yaml"
done
chown -R 1000:1000 "$mnt" "$work"/home-*

# apptainer_as WHO ARGS…: with that user's home; files are in /mnt.
command_of() { client=(env IN_ROOT_WORK="$mnt" IN_ROOT_HOME="$work/home-$1" timeout -k 5 120 "$top/scripts/in-root" -u "$root" /usr/bin/apptainer); }
apptainer_as() { command_of "$1"; shift; "${client[@]}" "$@"; }
alice() { apptainer_as alice "$@"; }
bob() { apptainer_as bob "$@"; }
small() { apptainer_as small "$@"; }
medium() { apptainer_as medium "$@"; }
anyone() { apptainer_as anyone "$@"; }

# used: the bytes of the line "Library storage: using 1.06 MiB out of …" that the last push printed.
used() { sed -nE 's/.*Library storage: using ([0-9.]+) ?([KMGT]?i?B) .*/\1\2/p' "$out" | sed 's/B$//' | numfmt --from=auto | head -1; }
shrank() {
  if [ -n "$2" ] && [ -n "$3" ] && [ "$3" -lt "$2" ]; then pass "$1"; else flunk "$1 (before ${2:-unknown}, after ${3:-unknown})"; fi
}

# --- Images, built on the spot ---------------------------------------------------------------------------------------
# definition NAME [LINE]: a scratch image whose only program is busybox.
definition() {
  cat >"$mnt/$1.def" <<END
Bootstrap: scratch
%setup
  mkdir -p "\${APPTAINER_ROOTFS}/bin"
  cp /usr/bin/busybox "\${APPTAINER_ROOTFS}/bin/busybox"
  ln -s busybox "\${APPTAINER_ROOTFS}/bin/sh"
  ${2:-true}
%labels
  Purpose $1
%runscript
  exec /bin/busybox echo "hello from $1"
END
}
definition hello
# Small enough for the smallest quota: a file system with one line in it, never run.
printf 'Bootstrap: scratch\n%%setup\n  echo tiny >"${APPTAINER_ROOTFS}/tiny"\n' >"$mnt/tiny.def"
definition raced
head -c 83886080 /dev/urandom >"$mnt/random"
definition big 'cp /mnt/random "${APPTAINER_ROOTFS}/random"'
for name in hello tiny raced big; do ok "an image is built from scratch: $name" alice build "/mnt/$name.sif" "/mnt/$name.def"; done
rm -f "$mnt/random"
holds "the big image is larger than the 64 MiB from which clients upload in parts" [ "$(stat -c %s "$mnt/big.sif")" -gt 67108864 ]

# The same file system under another architecture: what counts is what the SIF header and its partition say.
partition=$(alice sif list /mnt/hello.sif 2>/dev/null | awk '/Squashfs/ { print $1 }' || true)
alice sif dump "$partition" /mnt/hello.sif >"$mnt/partition" || true
ok "an empty SIF file is made" alice sif new /mnt/other.sif
ok "it gets a system partition for $there" alice sif add --datatype 4 --parttype 2 --partfs 1 --partarch "$there_code" /mnt/other.sif /mnt/partition

# `connect` edits such a file for those who don't want to.
ok "stackroom connect writes the remote for the client" "$STACKROOM_BIN" connect "$url" --name here --file "$work/home-bob/.apptainer/remote.yaml"
chown -R 1000:1000 "$work/home-bob"

# --- Login -----------------------------------------------------------------------------------------------------------
prints "remote status before login: logged out, every service there" 'logged out' alice remote status
printf 'x%.0s' $(seq 300) >"$mnt/wrong.token"
refused "login with a token that was never issued" 'Invalid Credentials' alice remote login --tokenfile /mnt/wrong.token here
for who in alice bob small medium; do prints "$who logs in with a token file" 'Verified' apptainer_as "$who" remote login --tokenfile "/mnt/$who.token" here; done
prints "remote status says who is logged in" 'Logged in as: alice' alice remote status
prints "remote status finds the token valid" 'Access Token Verified' alice remote status
holds "remote status gets a version from every service" lacks 'N/A'

# --- Push ------------------------------------------------------------------------------------------------------------
hello=library://alice/tools/hello
refused "push of an unsigned image without -U is refused by the client" 'unable to verify signature' alice push /mnt/hello.sif $hello:1.0
before=$(uploads)
prints "push of an unsigned image, with a description" 'Library storage: using .* out of 10.00 GiB' alice push -U -D 'greets politely' /mnt/hello.sif $hello:1.0
holds "the server's log shows that upload" [ "$(uploads)" -gt "$before" ]
ok "push with two tags at once" alice push -U /mnt/tiny.sif library://alice/tools/tiny:v1,stable
ok "push of $there under the tag that $here has" alice push -U /mnt/other.sif $hello:1.0
before=$(uploads)
prints "push of bytes that the container has sends none" 'already present in the library - not uploading' alice --debug push -U /mnt/hello.sif $hello:1.0,again
prints "push of the same bytes to a second container sends none" 'already present in the library - not uploading' alice --debug push -U /mnt/hello.sif library://alice/copies/hello:1.0
holds "the server's log shows no upload for either" [ "$(uploads)" -eq "$before" ]

# pushes_at_once: two pushes of the same new bytes race for the same names.
pushes_at_once() {
  local first second
  raced=library://alice/raced/raced
  alice push -U /mnt/raced.sif "$raced:one" & first=$!
  alice push -U /mnt/raced.sif "$raced:two" & second=$!
  wait "$first" && wait "$second"
}
ok "two pushes of the same new image at once" pushes_at_once

# --- Signed images ---------------------------------------------------------------------------------------------------
ok "a key is made" alice key newpair --name Alice --email alice@example.org --comment test --password '' --push=false -b 2048
cp -p "$mnt/hello.sif" "$mnt/signed.sif"
ok "the image is signed" alice sign /mnt/signed.sif
ok "push of a signed image needs no -U" alice push -D 'signed greeting' /mnt/signed.sif library://alice/tools/signed:1.0

# --- Pull ------------------------------------------------------------------------------------------------------------
hash=sha256.$(digest "$mnt/hello.sif")
pulls() { # pulls SENTENCE ORIGINAL WHO ARGS…
  local sentence=$1 original=$2 who=$3; shift 3
  rm -f "$mnt/pulled.sif"
  ok "pull $sentence" apptainer_as "$who" pull "${@:1:$#-1}" /mnt/pulled.sif "${@: -1}"
  same "the bytes of the pull $sentence are those that were pushed" "$mnt/$original.sif" "$mnt/pulled.sif"
}
pulls "by tag into an empty cache" hello alice $hello:1.0
prints "pull of a cached image downloads nothing" 'Using cached image' alice pull --force /mnt/pulled.sif $hello:1.0
pulls "by tag without a cache" hello alice --disable-cache $hello:1.0
pulls "by the first of two tags" tiny alice --disable-cache library://alice/tools/tiny:v1
pulls "by the second of two tags" tiny alice --disable-cache library://alice/tools/tiny:stable
pulls "by a tag that a push of known bytes set" hello alice --disable-cache $hello:again
pulls "from the second container" hello alice --disable-cache library://alice/copies/hello:1.0
pulls "by hash" hello alice --disable-cache "$hello:$hash"
pulls "for $here" hello alice --disable-cache --arch "$here" $hello:1.0
pulls "for $there" other alice --disable-cache --arch "$there" $hello:1.0
pulls "of a public image by somebody without a login" hello anyone $hello:1.0
pulls "of a public image by another user" hello bob $hello:1.0
pulls "with --library instead of the remote" hello anyone --disable-cache --library "$url" $hello:1.0
pulls "in another case" hello anyone --disable-cache library://ALICE/Tools/Hello:1.0
refused "pull of an architecture that was never pushed" 'image does not exist in the library' alice pull --force --arch "$there" /mnt/pulled.sif library://alice/tools/signed:1.0
refused "pull of a tag that was never pushed" 'image does not exist in the library' alice pull --force /mnt/pulled.sif $hello:2.0
pulls "of the signed image" signed alice --disable-cache library://alice/tools/signed:1.0
prints "the pulled image verifies with the local key" 'Verified signature' alice verify --local /mnt/pulled.sif

jobs=()
for n in 1 2 3 4; do
  alice pull --disable-cache "/mnt/parallel-$n.sif" $hello:1.0 >"$work/parallel-$n.log" 2>&1 </dev/null &
  jobs+=($!)
done
for job in "${jobs[@]}"; do wait "$job" || flunk "four pulls at once (one failed)"; done
for n in 1 2 3 4; do same "four pulls at once: number $n has the right bytes" "$mnt/hello.sif" "$mnt/parallel-$n.sif"; done

# --- Use -------------------------------------------------------------------------------------------------------------
prints "exec straight from the library" 'it runs' bob exec $hello:1.0 /bin/busybox echo 'it runs'
prints "run straight from the library" 'hello from hello' bob run $hello:1.0
printf 'Bootstrap: library\nFrom: alice/tools/hello:1.0\n%%labels\n  Derived yes\n' >"$mnt/derived.def"
ok "a build whose base is in the library" bob build /mnt/derived.sif /mnt/derived.def
prints "what was built has its labels" 'Derived: yes' bob inspect /mnt/derived.sif

# --- Search ----------------------------------------------------------------------------------------------------------
prints "search by name shows the path, the tags and the description" 'greets politely' alice search --arch "$here" hello
holds "search names the image by its path and tag" says 'library://alice/tools/hello:.*1\.0'
prints "search for $there finds the image of $there" 'library://alice/tools/hello' alice search --arch "$there" hello
prints "search for signed images shows who signed" 'Signed by: [0-9A-F]{40}' alice search --arch "$here" --signed tools
holds "search for signed images leaves out unsigned ones" lacks 'tools/hello'
prints "search for what is not there finds nothing" 'No container images found' alice search nosuchthing

# --- Large images: uploaded in parts, downloaded in parts ----------------------------------------------------------
prints "push of an image over 64 MiB" 'Library storage: using' alice push -U /mnt/big.sif library://alice/large/big:1.0
with_big=$(used)
rm -f "$mnt/pulled.sif"
# A large file may still be verified when its push returns. Until then it does not exist, and nothing else is waited
# for.
for _ in $(seq 20); do
  if run alice pull --force --disable-cache /mnt/pulled.sif library://alice/large/big:1.0 || ! grep -q 'does not exist' "$out"; then break; fi
  sleep 1
done
holds "it was uploaded in parts, by the server's log" grep -q '_multipart' "$log"
same "the large image comes back with the same bytes" "$mnt/big.sif" "$mnt/pulled.sif"

# --- What is not permitted -------------------------------------------------------------------------------------------
refused "a stranger may not push into somebody's entity" '\(403 Forbidden\)' bob push -U /mnt/tiny.sif $hello:mine
refused "a stranger may not make a container in it either" '\(403 Forbidden\)' bob push -U /mnt/tiny.sif library://alice/new/thing:1.0
refused "a stranger may not delete" '\(403 Forbidden\)' bob delete --force --arch "$here" $hello:1.0
refused "a push without a login stops at once" 'no authentication token' anyone push -U /mnt/tiny.sif $hello:mine
refused "a delete without a login is refused" '\(401 Unauthorized\)' anyone delete --force --arch "$here" $hello:1.0
pulls "after all these refusals" hello alice --disable-cache $hello:1.0
refused "what was refused is not there" 'image does not exist in the library' alice pull --force /mnt/pulled.sif $hello:mine

# --- A push that is killed -------------------------------------------------------------------------------------------
# It is killed while its bytes are in transit. Its quota has room for the image once, so the retry works only if the
# killed push does not count as well.
parts_begun() { grep PUT "$log" | grep -c '_multipart"' || true; }
uploads_completed() { grep -c '_multipart_complete"' "$log" || true; }
begun=$(parts_begun) completed=$(uploads_completed)
command_of medium
"${client[@]}" push -U /mnt/big.sif library://medium/large/big:1.0 >"$work/killed.log" 2>&1 </dev/null &
victim=$!
disown "$victim"
for _ in $(seq 500); do
  if [ "$(parts_begun)" -gt "$begun" ] || ! kill -0 "$victim" 2>/dev/null; then break; fi
  sleep 0.02
done
# `timeout` leads a process group of its own, which contains only this client.
kill -9 -- "-$victim" 2>/dev/null || true
for _ in $(seq 50); do kill -0 "$victim" 2>/dev/null || break; sleep 0.1; done
holds "a large push is killed while a part of it is in transit" [ "$(parts_begun)" -gt "$begun" ]
holds "so it never completed" [ "$(uploads_completed)" -eq "$completed" ]
refused "what the killed push left can't be pulled" 'image does not exist in the library' medium pull --force --disable-cache /mnt/pulled.sif library://medium/large/big:1.0
prints "the same push again succeeds inside the same quota" 'Library storage: using .* out of 100.00 MiB' medium push -U /mnt/big.sif library://medium/large/big:1.0

# --- Quota and delete ------------------------------------------------------------------------------------------------
refused "a push over the quota says so" 'Upload would exceed quota \(507' small push -U /mnt/hello.sif library://small/tools/hello:1.0
refused "a large push over the quota says so" 'Upload would exceed quota \(507' small push -U /mnt/big.sif library://small/tools/big:1.0
refused "nothing of it can be pulled" 'image does not exist in the library' small pull --force /mnt/pulled.sif library://small/tools/hello:1.0
# These bytes are in Alice's entity already. Somebody without a role there has to send them all the same, and learns
# nothing.
prints "a push that fits the small quota, of bytes known only elsewhere, is uploaded" 'Library storage: using .* out of 100.00 KiB' small push -U /mnt/tiny.sif library://small/tools/tiny:1.0
ok "delete" alice delete --force --arch "$here" library://alice/large/big:1.0
refused "a pull after the delete finds nothing" 'image does not exist in the library' alice pull --force --disable-cache /mnt/pulled.sif library://alice/large/big:1.0
refused "a second delete finds nothing" 'not found' alice delete --force --arch "$here" library://alice/large/big:1.0
definition last
ok "an image is built from scratch: last" alice build /mnt/last.sif /mnt/last.def
prints "a push after the delete" 'Library storage: using' alice push -U /mnt/last.sif library://alice/tools/last:1.0
shrank "the delete gave its bytes back to the quota" "$with_big" "$(used)"
ok "delete of one architecture" alice delete --force --arch "$there" $hello:1.0
pulls "of the architecture that stayed" hello alice --disable-cache --arch "$here" $hello:1.0
refused "the other architecture is gone" 'image does not exist in the library' alice pull --force --disable-cache --arch "$there" /mnt/pulled.sif $hello:1.0

server_is_well
finish
