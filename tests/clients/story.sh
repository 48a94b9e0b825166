#!/usr/bin/env bash
# The pages of docs/user as a story: each step is one of their sentences, and real clients show that it is so. Usage:
# STACKROOM_BIN=… story.sh [NEW_DIR]
#
# alice, bob, carol and small have accounts, ci is a robot, and nobody has none and is not logged in. Each works in a
# folder of their own, where the file `token` is. The commands are those of the pages. What TLS and ports would spare is
# added below: the address of the server, and the options that permit plain HTTP.
source "$(dirname "$(realpath "$0")")/lib.sh"
source "$(dirname "$(realpath "$0")")/get.sh"

need curl tar flock:util-linux
own_mounts "$@"
make_work "${1:-}"
trap 'uncover; cleanup' EXIT
root=$cache/apptainer-root
"$top/scripts/apptainer-root" "$root"
# Without both of these, what only they can show is left out. scripts/test looks for the line.
have=yes
debian podman podman || { have=; echo '# not run: podman'; }
newer_debian oras trixie || { have=; echo '# not run: oras'; }
# No proxy is in front: the address of a connection is that of its client.
server_settings=(STACKROOM_PROXIES=)
start_server
cover
host=${url#http://}

# --- The people, and what they type ----------------------------------------------------------------------------------
password='correct horse battery staple'
mkdir -p "$work/tmp"
for who in alice bob carol small operator ci nobody; do
  mkdir -p "$work/of-$who/tmp" "$work/home-$who/run"
  printf '{}' >"$work/home-$who/logins.json"
  case $who in
    nobody | ci) ;;
    operator) cp "$work/data/admin.token" "$work/of-$who/token" ;;
    small) add_user small 100KiB ;;
    *) add_user "$who" 10GiB ;;
  esac
  case $who in nobody | operator | ci) ;; *) mv "$work/$who.token" "$work/of-$who/token" ;; esac
done

# as WHO COMMAND…: in the folder of that person. `reading FILE COMMAND…` is `COMMAND… < FILE`.
as() {
  local who=$1 command=$2 file=/dev/null; shift 2
  if [ "$command" = reading ]; then file=$work/of-$who/$1 command=$2; shift 2; fi
  "type_$command" "$who" "$@" <"$file"
}
# own WHO COMMAND…: with their folder, their home, and nobody else's settings.
own() {
  local who=$1; shift
  (cd "$work/of-$who" && exec env -i PATH="$PATH" LC_ALL=C NO_COLOR=1 HOME="$work/home-$who" XDG_RUNTIME_DIR="$work/home-$who/run" TMPDIR="$work/tmp" \
    REGISTRY_AUTH_FILE="$work/home-$who/logins.json" STACKROOM_URL="$url" STACKROOM_TOKEN="$(cat token 2>/dev/null)" timeout -k 5 120 "$@")
}
type_stackroom() { own "$1" "$STACKROOM_BIN" "${@:2}"; }
type_curl() { own "$1" curl -sS -f "${@:2}"; }
type_apptainer() {
  local who=$1 http=(); shift
  case "$1 $*" in push*oras://* | pull*oras://* | pull*docker://*) http=(--no-https) ;; esac
  chown -R 1000:1000 "$work/of-$who" "$work/home-$who"
  env IN_ROOT_WORK="$work/of-$who" IN_ROOT_HOME="$work/home-$who" timeout -k 5 120 "$top/scripts/in-root" -u "$root" \
    /usr/bin/busybox sh -c 'cd /mnt && exec /usr/bin/apptainer "$@"' apptainer "$1" "${http[@]}" "${@:2}"
}
type_podman() {
  local who=$1 http=(); shift
  case $1 in login | push | pull) http=(--tls-verify=false) ;; esac
  own "$who" podman --root "$work/home-$who/images" --runroot "$work/home-$who/run/images" --tmpdir "$work/home-$who/run/tmp" \
    --storage-driver vfs --events-backend none --cgroup-manager cgroupfs "$1" "${http[@]}" "${@:2}"
}
type_oras() { own "$1" oras "$2" --plain-http "${@:3}"; }
# bearer WHO [FILE]: the header that the pages write as "Authorization: Bearer $(cat token)".
bearer() { echo "Authorization: Bearer $(cat "$work/of-$1/${2:-token}")"; }

# --- Steps -----------------------------------------------------------------------------------------------------------
# step SENTENCE: begins the next step. It has passed when all that follows it, up to the next one, was as expected.
sentence='' shown=0 broken=''
step() { end_step; sentence=$1 shown=0 broken=; }
end_step() {
  [ -n "$sentence" ] || return 0
  if [ -n "$broken" ]; then flunk "$sentence"
  elif [ "$shown" = 0 ]; then flunk "$sentence (nothing shows it)"
  else pass "$sentence"; fi
  sentence=
}
# skip_step: nothing of this step can be shown without the clients that can't be had.
skip_step() { skip "$sentence"; sentence=; }
breaks() { broken=yes; echo "# $*"; show_output; }
# can WHO COMMAND…
can() {
  shown=$((shown + 1))
  if ! run as "$@"; then breaks "$1 can not: ${*:2}"; fi
}
# cannot WHO REASON COMMAND…: it fails, and what it prints matches.
cannot() {
  local who=$1 reason=$2; shift 2
  shown=$((shown + 1))
  if run as "$who" "$@"; then breaks "$who can: $*"
  elif ! grep -qE -- "$reason" "$out"; then breaks "$who can not, and for another reason than /$reason/: $*"; fi
}
# sees WHO PATTERN COMMAND…: it succeeds, and what it prints matches.
sees() {
  local who=$1 pattern=$2; shift 2
  shown=$((shown + 1))
  if ! run as "$who" "$@" || ! grep -qE -- "$pattern" "$out"; then breaks "$who does not see /$pattern/: $*"; fi
}
# has WHO FILE ORIGINAL: the file of theirs has the bytes of one of alice's.
has() {
  shown=$((shown + 1))
  if [ ! -s "$work/of-$1/$2" ] || ! cmp -s "$work/of-$1/$2" "$work/of-alice/$3"; then breaks "$1 has not $3 as $2"; fi
}
# that TEST…
that() {
  shown=$((shown + 1))
  if ! "$@"; then breaks "this is not so: $*"; fi
}
# What clients say: there is no such image; that may not be done there; log in first.
missing='does not exist|not found|404'
forbidden='403|[Ff]orbidden|not permitted|may not be used'
unauthorized='401|[Uu]nauthorized|UNAUTHORIZED|authentication required|denied|DENIED'
# used ENTITY: its bytes, as the page on quotas says to ask for them.
used() { curl -sS -f -H "$(bearer operator)" "$url/v1/entities/$1" | sed -nE 's/.*"size": *([0-9]+).*/\1/p'; }
objects() { find "$work/data/objects" -type f | wc -l; }

# --- Files to push: some images, and a table -------------------------------------------------------------------------
for name in hello other third fourth; do
  printf 'Bootstrap: scratch\n%%setup\n  mkdir -p "${APPTAINER_ROOTFS}/bin"\n  cp /usr/bin/busybox "${APPTAINER_ROOTFS}/bin/busybox"\n%%runscript\n  exec /bin/busybox echo "%s"\n' "$name" >"$work/of-alice/$name.def"
  ok "an image is built: $name" as alice apptainer build "$name.sif" "$name.def"
  for who in bob carol small; do cp "$work/of-alice/$name.sif" "$work/of-$who"; done
done
head -c 100000 /dev/urandom >"$work/of-alice/data.csv"
mkdir "$work/box"
echo 'it is there' >"$work/box/greeting"
tar -C "$work/box" -cf "$work/of-alice/box.tar" greeting
echo "$password" >"$work/of-alice/password"

# The first lines of push.md.
for who in alice bob carol small; do
  ok "$who adds the library" as "$who" stackroom connect "$url"
  ok "$who logs in" as "$who" apptainer remote login --tokenfile token stackroom
done
ok "nobody adds the library too" as nobody stackroom connect "$url"

# --- docs/user/push.md -----------------------------------------------------------------------------------------------
step 'A push makes the collection and the container if they are not there.'
cannot alice "$missing" curl -H "$(bearer alice)" "$url/v1/collections/alice/tools"
can alice apptainer push -U hello.sif library://alice/tools/hello:1.0
sees alice '"name": *"tools"' curl -H "$(bearer alice)" "$url/v1/collections/alice/tools"

step 'A push can set several tags at once.'
can alice apptainer push -U -D 'greets politely' hello.sif library://alice/tools/hello:1.0,latest
for tag in 1.0 latest; do
  can alice apptainer pull --disable-cache --force "$tag.sif" "library://alice/tools/hello:$tag"
  has alice "$tag.sif" hello.sif
done

step 'An image that is in one of your entities already is not uploaded again when you push it to a second place.'
before=$(objects)/$(uploads)
can alice apptainer push -U hello.sif library://alice/copies/hello:1.0
that [ "$(objects)/$(uploads)" = "$before" ]
can nobody apptainer pull --disable-cache copy.sif library://alice/copies/hello:1.0
has nobody copy.sif hello.sif

step 'A push under a tag that is there moves the tag; the image that had it stays, and can be pulled by its hash.'
can alice apptainer push -U other.sif library://alice/tools/hello:latest
can alice apptainer pull --disable-cache --force latest.sif library://alice/tools/hello:latest
has alice latest.sif other.sif
can alice apptainer pull --disable-cache --force hash.sif "library://alice/tools/hello:sha256.$(digest "$work/of-alice/hello.sif")"
has alice hash.sif hello.sif

step "A frozen tag can't be moved, and its image can't be deleted."
can alice stackroom set alice/tools/hello:1.0 --frozen true
cannot alice 'frozen|403' apptainer push -U third.sif library://alice/tools/hello:1.0
cannot alice 'frozen|403' apptainer delete --force library://alice/tools/hello:1.0
can alice apptainer pull --disable-cache --force frozen.sif library://alice/tools/hello:1.0
has alice frozen.sif hello.sif
can alice stackroom set alice/tools/hello:1.0 --frozen false

step 'A read-only container takes no pushes and no deletions.'
can alice stackroom set alice/tools/hello --read-only true
cannot alice 'read-only|403' apptainer push -U third.sif library://alice/tools/hello:3.0
cannot alice 'read-only|403' apptainer delete --force library://alice/tools/hello:1.0
can alice stackroom set alice/tools/hello --read-only false

step '**What is no SIF image** goes through the registry: images of layers with `docker`, `podman` and the like, other files with `oras`.'
if [ -z "$have" ]; then skip_step; else
  can alice reading token podman login -u alice --password-stdin "$host"
  can alice podman import box.tar "$host/alice/tools/box:1"
  can alice podman push "$host/alice/tools/box:1"
  can alice podman rmi -a -f
  can alice podman pull "$host/alice/tools/box:1"
  can alice reading token oras login -u alice --password-stdin "$host"
  can alice oras push "$host/alice/files/data:1" data.csv:text/csv
  can bob reading token oras login -u bob --password-stdin "$host"
  can bob oras pull "$host/alice/files/data:1"
  has bob data.csv data.csv
fi

step '`apptainer delete` takes the image with all of its tags, for one architecture.'
can alice apptainer push -U third.sif library://alice/tools/hello:a,b
can alice apptainer delete --force library://alice/tools/hello:a
for tag in a b; do cannot alice "$missing" apptainer pull --disable-cache --force gone.sif "library://alice/tools/hello:$tag"; done
can alice apptainer pull --disable-cache --force still.sif library://alice/tools/hello:1.0

# --- docs/user/pull.md -----------------------------------------------------------------------------------------------
step 'A pull without a tag takes `latest`.'
can bob apptainer pull --disable-cache library://alice/tools/hello
has bob hello_latest.sif other.sif

step 'A hash names exactly these bytes, whatever becomes of the tags.'
can bob apptainer pull --disable-cache exact.sif "library://alice/tools/hello:sha256.$(digest "$work/of-alice/hello.sif")"
has bob exact.sif hello.sif

step 'Names are read in any case: `library://ALICE/Tools/hello` is `library://alice/tools/hello`.'
can bob apptainer pull --disable-cache case.sif library://ALICE/Tools/hello:1.0
has bob case.sif hello.sif

step 'A SIF image that was pushed through the library can be pulled through the registry, and the other way round.'
can nobody apptainer pull --disable-cache registry.sif "oras://$host/alice/tools/hello:1.0"
has nobody registry.sif hello.sif
can alice reading token apptainer registry login -u alice --password-stdin "oras://$host"
can alice apptainer push third.sif "oras://$host/alice/tools/hello:2.0"
can nobody apptainer pull --disable-cache library.sif library://alice/tools/hello:2.0
has nobody library.sif third.sif

step '`-C -` continues a download that was interrupted.'
can nobody curl -L -o hello.sif "$url/v1/imagefile/alice/tools/hello:1.0"
has nobody hello.sif hello.sif
truncate -s 1000 "$work/of-nobody/hello.sif"
sees nobody '^206$' curl -w '%{http_code}\n' -L -C - -o hello.sif "$url/v1/imagefile/alice/tools/hello:1.0"
has nobody hello.sif hello.sif

# --- docs/user/permissions.md ----------------------------------------------------------------------------------------
step 'A container that a push through the library makes is public.'
can alice apptainer push -U hello.sif library://alice/public/hello:1.0
can nobody apptainer pull --disable-cache public.sif library://alice/public/hello:1.0

step 'Everybody can pull from a public container by its path, without a login.'
can nobody apptainer pull --disable-cache --force public.sif library://alice/public/hello:1.0
has nobody public.sif hello.sif
can nobody apptainer pull --disable-cache --force public.sif "oras://$host/alice/public/hello:1.0"
has nobody public.sif hello.sif
can nobody curl -L -o curl.sif "$url/v1/imagefile/alice/public/hello:1.0"
has nobody curl.sif hello.sif
can bob apptainer pull --disable-cache --force public.sif library://alice/public/hello:1.0
has bob public.sif hello.sif

step 'Nobody browses what belongs to others: lists and searches show only where you have a role.'
sees alice 'library://alice/tools/hello' apptainer search hello
for who in bob nobody; do
  sees "$who" 'No container images found' apptainer search hello
done
cannot bob "$missing" curl -H "$(bearer bob)" "$url/v1/collections?entity=alice"
cannot nobody "$missing" curl "$url/v1/collections?entity=alice"
sees bob '"name": *"bob"' curl -H "$(bearer bob)" "$url/v1/entities"
that lacks '"name": *"alice"'

step 'Only members pull from a private container; for everybody else it is not there.'
can alice stackroom set alice/public/hello --visibility private
can alice apptainer pull --disable-cache --force private.sif library://alice/public/hello:1.0
for who in bob nobody; do
  cannot "$who" "$missing" apptainer pull --disable-cache --force private.sif library://alice/public/hello:1.0
done
cannot bob "$missing" curl -L -o private.sif -H "$(bearer bob)" "$url/v1/imagefile/alice/public/hello:1.0"

step 'It is the same for all clients: what is private for `library://` is private for `oras://`, `docker` and `curl`.'
can alice apptainer pull --disable-cache --force private.sif "oras://$host/alice/public/hello:1.0"
has alice private.sif hello.sif
can bob reading token apptainer registry login -u bob --password-stdin "oras://$host"
for who in bob nobody; do
  cannot "$who" "$unauthorized" apptainer pull --disable-cache --force private.sif "oras://$host/alice/public/hello:1.0"
done
cannot nobody 404 curl -L -o private.sif "$url/v1/imagefile/alice/public/hello:1.0"

step 'New containers in a private collection are private, and so are all new ones in a private entity.'
can alice apptainer push -U hello.sif library://alice/secret/before:1.0
can alice stackroom set alice/secret --private true
can alice apptainer push -U hello.sif library://alice/secret/after:1.0
cannot bob "$missing" apptainer pull --disable-cache --force secret.sif library://alice/secret/after:1.0
can bob stackroom set bob --private true
can bob apptainer push -U hello.sif library://bob/any/hello:1.0
cannot alice "$missing" apptainer pull --disable-cache --force secret.sif library://bob/any/hello:1.0
can bob apptainer pull --disable-cache --force secret.sif library://bob/any/hello:1.0

step 'Containers that are there already stay as they are.'
can nobody apptainer pull --disable-cache --force before.sif library://alice/secret/before:1.0

step 'A container that a push through the registry makes is internal: whoever is logged in can pull from it.'
can alice apptainer push third.sif "oras://$host/alice/registry/third:1"
can bob apptainer pull --disable-cache --force internal.sif "oras://$host/alice/registry/third:1"
has bob internal.sif third.sif
can bob apptainer pull --disable-cache --force internal.sif library://alice/registry/third:1
cannot nobody "$unauthorized" apptainer pull --disable-cache --force internal.sif "oras://$host/alice/registry/third:1"
cannot nobody "$missing" apptainer pull --disable-cache --force internal.sif library://alice/registry/third:1
if [ -n "$have" ]; then
  can bob reading token podman login -u bob --password-stdin "$host"
  can bob podman pull "$host/alice/tools/box:1"
  cannot nobody "$unauthorized" podman pull "$host/alice/tools/box:1"
fi

step 'You push into your own entity and where you are a contributor or an admin, and nowhere else.'
can bob apptainer push -U other.sif library://bob/tools/other:1.0
cannot bob "$forbidden" apptainer push -U other.sif library://alice/tools/hello:bobs
cannot bob "$forbidden" apptainer push -U other.sif library://alice/new/hello:1.0
cannot bob "$forbidden" apptainer push -U other.sif library://carol/tools/hello:1.0
cannot bob "$unauthorized" apptainer push other.sif "oras://$host/alice/tools/hello:bobs"
cannot nobody 'no authentication token' apptainer push -U public.sif library://alice/tools/hello:mine
cannot nobody "$unauthorized" apptainer push public.sif "oras://$host/alice/tools/hello:mine"
if [ -n "$have" ]; then
  can bob podman tag "$host/alice/tools/box:1" "$host/bob/tools/box:1"
  can bob podman push "$host/bob/tools/box:1"
  cannot bob "$unauthorized" podman push "$host/alice/tools/box:1"
fi
cannot alice "$missing" apptainer pull --disable-cache --force none.sif library://alice/tools/hello:bobs

# --- docs/user/groups.md ---------------------------------------------------------------------------------------------
step 'A group is an entity that several people use: its images lie under its name, like `library://acme/tools/hello`.'
can alice stackroom group make acme --private
can alice apptainer push -U hello.sif library://acme/tools/hello:1.0
cannot bob "$missing" apptainer pull --disable-cache --force acme.sif library://acme/tools/hello:1.0

step 'A reader browses the group and pulls what is private.'
can alice stackroom group add acme carol --role reader
can carol apptainer pull --disable-cache --force acme.sif library://acme/tools/hello:1.0
has carol acme.sif hello.sif
sees carol 'library://acme/tools/hello' apptainer search hello
cannot carol "$forbidden" apptainer push -U other.sif library://acme/tools/hello:carols
cannot carol "$forbidden" apptainer delete --force library://acme/tools/hello:1.0

step 'A contributor also makes collections, pushes, tags, and deletes what they pushed themselves.'
can alice stackroom group add acme bob --role contributor
can bob apptainer push -U other.sif library://acme/new/other:1.0,stable
can carol apptainer pull --disable-cache --force other.sif library://acme/new/other:stable
cannot bob "$forbidden" apptainer delete --force library://acme/tools/hello:1.0
cannot bob "$forbidden" stackroom set acme/new/other --visibility public
cannot bob "$forbidden" stackroom group add acme small --role reader
can bob apptainer delete --force library://acme/new/other:1.0

step 'An admin also changes settings and members, and deletes everything.'
can bob apptainer push -U other.sif library://acme/new/other:1.0
can alice stackroom set acme/new/other --visibility public
can nobody apptainer pull --disable-cache --force other.sif library://acme/new/other:1.0
can alice apptainer delete --force library://acme/new/other:1.0
sees alice 'bob +contributor' stackroom group members acme

step 'A role that is given or taken away counts from the next request on.'
can alice stackroom group remove acme carol
cannot carol "$missing" apptainer pull --disable-cache --force acme.sif library://acme/tools/hello:1.0

step 'A role on a collection or a container counts there and on everything under it, and nowhere else.'
can bob apptainer push -U third.sif library://acme/data/third:1.0
can alice stackroom group add acme carol --role reader --on tools
can carol apptainer pull --disable-cache --force acme.sif library://acme/tools/hello:1.0
cannot carol "$missing" apptainer pull --disable-cache --force third.sif library://acme/data/third:1.0

step 'A link brings in one person within a week, unless its maker says otherwise.'
can alice stackroom group invite acme --role reader
invitation=$(grep -oE "$url/join#[^ ]+" "$out" || true)
can small stackroom group join "$invitation"
can small apptainer pull --disable-cache --force acme.sif library://acme/tools/hello:1.0
cannot carol "$missing" stackroom group join "$invitation"

step 'An admin of the group sees every change: who made it, when, with which token, from which address, and what it was.'
sees alice "^$(date -u +%Y-%m-%d)" stackroom log acme --since 1h
that says 'bob.*push'
that says 'bob +127\.0\.0\.1'
sees alice '"token":"[0-9a-f]+"' stackroom log acme --actor bob --json
cannot bob "$forbidden" stackroom log acme

step 'A robot is an account for jobs, with tokens and without a password.'
can alice stackroom group robot make acme ci --role contributor
can alice stackroom group robot token acme ci --expires 52w
cp "$out" "$work/of-ci/token"
cp "$work/of-alice/third.sif" "$work/of-ci"
can ci stackroom connect "$url"
can ci apptainer remote login --tokenfile token stackroom
can ci apptainer push -U third.sif library://acme/jobs/third:1.0

step 'It reads nothing internal or private elsewhere, joins nothing, manages nothing, and makes no tokens.'
can ci apptainer pull --disable-cache --force public.sif library://alice/tools/hello:1.0
cannot ci "$missing" apptainer pull --disable-cache --force internal.sif library://alice/registry/third:1
cannot ci "$forbidden" apptainer push -U third.sif library://alice/jobs/third:1.0
cannot ci "$forbidden" stackroom group add acme carol --role reader
cannot ci "$forbidden" stackroom admin token acme+ci --name more
can alice stackroom group robot remove acme ci
cannot ci "401|$unauthorized" apptainer push -U third.sif library://acme/jobs/third:2.0

# --- docs/user/shares.md ---------------------------------------------------------------------------------------------
# link WHO ARG…: makes a share, and keeps its URL in $share.
link() {
  local who=$1; shift
  can "$who" stackroom share make "$@"
  share=$(grep -oE "$url/dl/[^ ]+" "$out" || true)
}
step 'A share is a URL that lets anybody who has it download one image, without an account.'
link alice acme/tools/hello:1.0 --uses 1
cannot nobody "$missing" curl -L -o shared.sif "$url/v1/imagefile/acme/tools/hello:1.0"
can nobody curl -LO "$share"
has nobody hello_1.0.sif hello.sif

step '`--uses` limits how many times it can be used; without it there is no limit.'
cannot nobody 410 curl -L -o again.sif "$share"
link alice acme/tools/hello:1.0
for _ in 1 2 3; do can nobody curl -L -o again.sif "$share"; done
has nobody again.sif hello.sif

step 'A day, unless `--expires` says otherwise, and at most as long as the operator permits, which is 30 days by default.'
# The number of hours from now to the end of the last share.
hours() { echo $((($(date -d "$(sed -nE 's/.*valid until ([^;]+);.*/\1/p' "$out")" +%s) - $(date +%s) + 1800) / 3600)); }
link alice acme/tools/hello:1.0
that [ "$(hours)" = 24 ]
link alice acme/tools/hello:1.0 --expires 30d
that [ "$(hours)" = 720 ]
cannot alice '400|2592000|30 days|at most' stackroom share make acme/tools/hello:1.0 --expires 31d

step 'The makers of shares list and revoke their own; whoever manages the repository lists and revokes all of them.'
link bob acme/data/third:1.0
sees bob 'third_1.0.sif' stackroom share list acme/data/third
sees alice 'third_1.0.sif +bob' stackroom share list acme/data/third
can alice stackroom share revoke "$share"
cannot nobody 404 curl -L -o revoked.sif "$share"

# --- docs/user/tokens.md ---------------------------------------------------------------------------------------------
# token WHO FILE ARG…: a new token in a file, as `stackroom admin token … > FILE` makes it.
token() {
  local who=$1 file=$2; shift 2
  can "$who" stackroom admin token "$who" --name "$file" "$@"
  cp "$out" "$work/of-$who/$file"
}
imagefile() { can "$1" curl -L -o token.sif -H "$(bearer "$1" "$2")" "$url/v1/imagefile/$3"; }
no_imagefile() { cannot "$1" "$4" curl -L -o token.sif -H "$(bearer "$1" "$2")" "$url/v1/imagefile/$3"; }

step 'A token with the scope `pull` pulls, and neither pushes nor deletes.'
token alice cluster --expires 30d --scope pull
imagefile alice cluster alice/secret/after:1.0
has alice token.sif hello.sif
cp "$work/of-alice/cluster" "$work/of-alice/kept"
mv "$work/of-alice/token" "$work/of-alice/all"; mv "$work/of-alice/kept" "$work/of-alice/token"
can alice apptainer remote login --tokenfile token stackroom
can alice apptainer pull --disable-cache --force token.sif library://alice/secret/after:1.0
cannot alice "$forbidden" apptainer push -U third.sif library://alice/tools/hello:scope
cannot alice "$forbidden" apptainer delete --force library://alice/tools/hello:1.0

step 'A token makes no token that has more rights than itself, or that lasts longer.'
cannot alice "$forbidden" stackroom admin token alice --name more
mv "$work/of-alice/all" "$work/of-alice/token"
can alice apptainer remote login --tokenfile token stackroom
token alice manager --expires 1h --scope pull,manage
cp "$work/of-alice/token" "$work/of-alice/all"; cp "$work/of-alice/manager" "$work/of-alice/token"
cannot alice 'more rights' stackroom admin token alice --name more --expires 1m --scope pull,push
cannot alice 'outlives' stackroom admin token alice --name longer --expires 2h --scope pull
can alice stackroom admin token alice --name less --expires 1m --scope pull
mv "$work/of-alice/all" "$work/of-alice/token"

step 'A token for one place reaches nothing elsewhere but what is public.'
token alice place --expires 1h --scope pull@alice/secret/after
imagefile alice place alice/secret/after:1.0
no_imagefile alice place alice/public/hello:1.0 404
imagefile alice place alice/tools/hello:1.0
has alice token.sif hello.sif

step 'A revoked token is refused from the next request on, and so are the uploads and [shares](shares.md) that it began.'
token alice short
cp "$work/of-alice/token" "$work/of-alice/all"; cp "$work/of-alice/short" "$work/of-alice/token"
link alice alice/secret/after:1.0
cp "$work/of-alice/all" "$work/of-alice/token"
imagefile alice short alice/secret/after:1.0
sees alice 'short' stackroom admin tokens alice
id=$(awk '$2 == "short" { print $1 }' "$out")
can alice stackroom admin revoke alice "$id"
no_imagefile alice short alice/secret/after:1.0 401
cannot nobody '404|410' curl -L -o short.sif "$share"

step 'Apptainer and Singularity log in with one; registry clients take a token in the place of a password.'
can alice reading password stackroom admin user passwd alice
sees alice 'Verified' apptainer remote login --tokenfile token stackroom
if [ -n "$have" ]; then
  cannot alice "$unauthorized|incorrect|invalid" reading data.csv podman login -u alice --password-stdin "$host"
  can alice reading password podman login -u alice --password-stdin "$host"
  can alice podman pull "$host/alice/tools/box:1"
  can alice reading token podman login -u alice --password-stdin "$host"
  can alice podman pull "$host/alice/tools/box:1"
fi

step 'A name and a password get a token for a day there.'
sees alice '"token": *"[^"]{200,}"' curl -d "{\"username\":\"alice\",\"password\":\"$password\"}" "$url/v1/get-token"
sed -nE 's/.*"token": *"([^"]+)".*/\1/p' "$out" >"$work/of-alice/day"
ends=$(sed -nE 's/.*"expiresAt": *"([^"]+)".*/\1/p' "$out")
that [ $((($(date -d "$ends" +%s) - $(date +%s) + 1800) / 3600)) = 24 ]
imagefile alice day alice/secret/after:1.0

# --- docs/user/quotas.md ---------------------------------------------------------------------------------------------
step 'A push that uploads an image through the library ends by saying how much of it is used.'
sees alice 'Library storage: using .* out of 10.00 GiB' apptainer push -U fourth.sif library://alice/quota/fourth:1.0
sees alice '"quota": *10737418240' curl -H "$(bearer alice)" "$url/v1/entities/alice"
sees alice '"usedQuota": *[1-9]' curl -H "$(bearer alice)" "$url/v1/collections/alice"
sees alice '"usedQuota": *[1-9]' curl -H "$(bearer alice)" "$url/v1/containers/alice/tools"

step 'The same bytes count once in an entity, however many containers and tags have them.'
before=$(used alice)
that [ "$before" -gt 0 ]
can alice apptainer push -U fourth.sif library://alice/quota/second:1.0,2.0
can alice apptainer push -U hello.sif library://alice/quota/hello:1.0
that [ "$(used alice)" = "$before" ]

step 'A push is paid by the entity that it goes into, not by whoever pushes.'
before=$(used bob) acme=$(used acme)
can bob apptainer push -U other.sif library://acme/quota/other:1.0
that [ "$(used bob)" = "$before" ]
that [ "$(used acme)" = $((acme + $(stat -c %s "$work/of-bob/other.sif"))) ]

step 'A push of an image that does not fit is refused before its bytes are sent.'
before=$(objects)
cannot small 'Upload would exceed quota' apptainer push -U hello.sif library://small/tools/hello:1.0
that [ "$(objects)" = "$before" ]
that [ "$(used small)" = 0 ]

step 'What is deleted is free again at once.'
before=$(used acme)
can bob apptainer delete --force library://acme/quota/other:1.0
that [ "$(used acme)" = $((before - $(stat -c %s "$work/of-bob/other.sif"))) ]

end_step
server_is_well
finish
