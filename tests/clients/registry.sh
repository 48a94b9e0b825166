#!/usr/bin/env bash
# Runs real registry clients against a real server: login, push, pull, tags, copies, deletion, and whatever else each of
# them can do. Usage: STACKROOM_BIN=… registry.sh [NEW_DIR]. REGISTRY=… tests another registry, see oci.sh.
# CLIENTS='docker crane' runs only these. LONG=1 also pushes and pulls a layer of 2 GiB, see below. BUILD_ONLY=1
# installs the clients and stops.
source "$(dirname "$(realpath "$0")")/lib.sh"
source "$(dirname "$(realpath "$0")")/oci.sh"
source "$(dirname "$(realpath "$0")")/get.sh"

need curl tar gzip awk:mawk flock:util-linux
all='skopeo podman buildah umoci docker ctr crane regctl oras helm cosign apptainer'
read -ra chosen <<<"${CLIENTS:-$all}"
for client in "${chosen[@]}"; do
  case " $all " in *" $client "*) ;; *) echo "there is no client \`$client\` here; there are $all" >&2; exit 2 ;; esac
done
own_mounts "$@"
make_work "${1:-}"
mkdir -p "$work/tmp" "$work/homes"

# --- Cleaning up after this run --------------------------------------------------------------------------------------
daemons=() bridge=''
stop_daemons() {
  local pid mount
  for pid in "${daemons[@]}"; do
    kill "$pid" 2>/dev/null || continue
    for _ in $(seq 200); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  daemons=()
  if [ -n "$bridge" ]; then ip link delete "$bridge" 2>/dev/null || true; bridge=; fi
  # A daemon's mounts below our folder would prevent its removal.
  while read -r mount; do umount -l "$mount" 2>/dev/null || true; done < <(awk -v top="$work/" 'index($2, top) == 1 { print $2 }' /proc/self/mounts | tac)
}
trap 'stop_daemons; uncover; cleanup' EXIT

# --- Installing the clients ------------------------------------------------------------------------------------------
get_skopeo() { debian skopeo skopeo; }
get_podman() { debian podman podman; }
get_buildah() { debian buildah buildah; }
get_umoci() { debian umoci umoci && debian skopeo skopeo; }
get_docker() { debian dockerd docker.io iptables && debian docker docker.io && debian ip iproute2; }
get_ctr() { debian containerd containerd && debian ctr containerd; }
get_crane() { newer_debian crane sid; }
get_regctl() { module regctl github.com/regclient/regclient/cmd/regctl v0.8.3; }
get_oras() { newer_debian oras trixie; }
get_helm() { module helm helm.sh/helm/v3/cmd/helm v3.18.6; }
get_cosign() { newer_debian cosign trixie && newer_debian crane sid; }
get_apptainer() {
  root=$cache/apptainer-root
  "$top/scripts/apptainer-root" "$root" >"$work/get.log" 2>&1 || { skip "apptainer can't be had: $(tail -n 1 "$work/get.log")"; return 1; }
}
# A problem with the registry is reported before anything is installed or built for it.
[ -n "${BUILD_ONLY:-}" ] || choose_registry
here=() missing=()
# scripts/test looks for this line.
close_up() { [ "${#missing[@]}" -eq 0 ] || echo "# not run: ${missing[*]}"; finish; }
for client in "${chosen[@]}"; do if "get_$client"; then here+=("$client"); else missing+=("$client"); fi; done
echo "# the clients are: ${here[*]}"
[ "${#here[@]}" -gt 0 ] || close_up
if [ -n "${BUILD_ONLY:-}" ]; then pass "the clients are there"; close_up; fi
cover

# --- Images ----------------------------------------------------------------------------------------------------------
images=$work/images
mkdir -p "$images" "$work/files/bin" "$work/files/etc"
files=$work/files
# A program is only needed inside if someone runs the image.
if [ -x "$cache/apptainer-root/usr/bin/busybox" ]; then cp "$cache/apptainer-root/usr/bin/busybox" "$files/bin/busybox"; ln -s busybox "$files/bin/sh"; fi
echo 'it is there' >"$files/etc/greeting"
echo 'it goes' >"$files/etc/goes"
head -c $((9 << 20)) /dev/urandom >"$files/random"
: >"$files/nothing"
: >"$files/.wh.goes"
tarred() { tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@1704067200 -C "$files" -cf "$work/$1" "${@:2}"; }
tarred base.tar bin etc/greeting etc/goes
# Larger than any registry would buffer in memory, and incompressible.
tarred random.tar random
# A layer that deletes a file, and adds an empty one.
tarred last.tar --transform 's,^.wh.goes,etc/.wh.goes,' .wh.goes nothing
image "$images/small" "$arch" "$work/base.tar" "$work/random.tar" "$work/last.tar"
image "$images/other" "$(other_arch)" "$work/base.tar"
image "$images/empty" "$arch"
index "$images/both" "$images/small" "$images/other"
names=(small empty both)
patience=120
# Each client that can pushes and pulls a layer of 2 GiB. Those that can't: helm accepts no file above 5 MiB and no
# chart above 100, so a chart just below that is pushed and pulled; umoci leaves the transport to skopeo; apptainer
# pushes no layers, so a SIF file of that size is pushed by oras, and the image of layers is only pulled; cosign has no
# push of its own: it saves an image that was pushed by hand to a folder, loads it into a second repository, and signs
# both.
if [ -n "${LONG:-}" ]; then
  [ "$(df -m --output=avail "$work" | tail -n 1)" -gt 20480 ] || skip_all "LONG=1 takes 20 GiB of disk, and $work has less"
  head -c $((2 << 30)) /dev/urandom >"$files/huge"
  tarred huge.tar huge
  image "$images/huge" "$arch" "$work/base.tar" "$work/huge.tar"
  rm -f "$work/huge.tar"
  names+=(huge)
  patience=1800
else
  rm -f "$files/huge"
fi

shared=$space/shared/image
for name in small empty both; do
  asking=${user:+$user:$password}
  ok "an image is pushed by hand, for all clients: $name" push_by_hand "$images/$name" "$shared" "$name"
  registry_has "it is there as it was made: $name" "$shared" "$name" "$(digest_of "$images/$name")"
done
# A client gets the URLs of its later requests from this answer alone.
if [ -n "$ours" ] && [ "${HOSTS:-1}" = 2 ]; then
  ask POST "/v2/$shared/blobs/uploads/" -H 'Content-Length: 0' >"$out"
  holds "the bytes of blobs are sent to the second host" grep -q '^http://localhost:' <<<"$(header location)"
fi
asking=
[ "$failed" -eq 0 ] || finish

# --- Assertions that all clients share -------------------------------------------------------------------------------
# at_home COMMAND…: with a home of its own, and without the caller's credentials.
at_home() {
  env -u REGISTRY_AUTH_FILE -u DOCKER_CONFIG -u DOCKER_HOST -u CONTAINERS_CONF -u CONTAINER_HOST -u BUILDAH_ISOLATION -u HELM_REGISTRY_CONFIG -u XDG_CONFIG_HOME -u XDG_DATA_HOME -u XDG_CACHE_HOME \
    HOME="$home" XDG_RUNTIME_DIR="$home/run" TMPDIR="$work/tmp" NO_COLOR=1 timeout -k 5 "$patience" "$@"
}
# typing TEXT COMMAND…: with that text on its standard input.
typing() { local text=$1; shift; printf '%s' "$text" | "$@"; }
# at WHERE COMMAND…: in another home, this time only.
at() { local home=$work/homes/$1; mkdir -p "$home/run"; shift; "$@"; }
# What clients print when a login is refused, or missing.
unauthorized='[Uu]nauthorized|UNAUTHORIZED|401|[Dd]enied|DENIED|authentication required|incorrect username|invalid username|no basic auth|credential not found|insufficient_scope|access forbidden|failed to authorize'
# docker_config FOLDER PASSWORD: the file that docker's login would write, and that most clients read.
docker_config() {
  mkdir -p "$1"
  printf '{"auths":{"%s":{"auth":"%s"}}}' "$registry" "$(printf '%s' "$user:$2" | base64 -w 0)" >"$1/config.json"
}

# logs_in CLIENT COMMAND…: the command reads the password from its standard input.
logs_in() {
  local client=$1; shift
  [ -n "$login" ] || return 0
  refused "$client is refused with a wrong password" "$unauthorized" typing wrong "$@"
  ok "$client logs in with a password" typing "$password" "$@"
  ok "$client logs in with a token in its place" typing "$token" "$@"
}
# keeps_login CLIENT PROBE COMMAND…: the same for a client that contacts no server while it logs in: the function PROBE
# shows whether it worked.
keeps_login() {
  local client=$1 probe=$2; shift 2
  [ -n "$login" ] || return 0
  typing wrong "$@" >"$out" 2>&1 || true
  refused "$client is refused with a wrong password" "$unauthorized" "$probe"
  ok "$client accepts a password" typing "$password" "$@"
  ok "$client is let in with it" "$probe"
  ok "$client accepts a token in its place" typing "$token" "$@"
  ok "$client is let in with that" "$probe"
}
# closed SENTENCE COMMAND…: without a login, that is refused. For clients that keep a login outside their home,
# $as_nobody says how to run them without one.
as_nobody=(at nobody)
closed() {
  local sentence=$1; shift
  [ -n "$login" ] || return 0
  refused "$sentence" "$unauthorized" "${as_nobody[@]}" "$@"
}
# round_trips CLIENT: uses CLIENT_push LAYOUT PLACE TAG and CLIENT_pull PLACE TAG FOLDER, which leaves the blobs of a
# layout in the folder.
round_trips() {
  local client=$1 place=$space/$1/image name back=$work/back
  for name in "${names[@]}"; do
    ok "$client pushes an image: $name" "${client}_push" "$images/$name" "$place" "$name"
    registry_has "it is what $client was given: $name" "$place" "$name" "$(digest_of "$images/$name")"
    rm -rf "$back"; mkdir "$back"
    ok "$client pulls it back: $name" "${client}_pull" "$place" "$name" "$back"
    same_image "with the same bytes: $name" "$images/$name" "$back/blobs/sha256"
  done
  for name in small both; do
    rm -rf "$back"; mkdir "$back"
    ok "$client pulls what was pushed by hand: $name" "${client}_pull" "$shared" "$name" "$back"
    same_image "with the bytes of that: $name" "$images/$name" "$back/blobs/sha256"
  done
  rm -rf "$back"
  closed "$client pulls nothing without a login" "${client}_pull" "$place" small "$work/none"
  closed "$client pushes nothing without a login" "${client}_push" "$images/small" "$place" mine
  refused "$client is told that there is no such tag" 'not found|NotFound|unknown|UNKNOWN|404' "${client}_pull" "$place" nothing "$work/none"
}
# gone SENTENCE PLACE REFERENCE
gone() {
  local status
  status=$(asking=${user:+$user:$password} ask GET "/v2/$2/manifests/$3" "${accept[@]}")
  if [ "$status" = 404 ]; then pass "$1"; else flunk "$1 (status $status)"; fi
}

# --- skopeo ----------------------------------------------------------------------------------------------------------
skopeo_() { at_home skopeo --insecure-policy "$@"; }
skopeo_login() { skopeo_ login --tls-verify=false --authfile "$home/auth.json" -u "$user" --password-stdin "$registry"; }
skopeo_copy() { skopeo_ copy --all --src-tls-verify=false --dest-tls-verify=false ${with_auth[@]+"${with_auth[@]}"} "$@"; }
skopeo_push() { skopeo_copy "oci:$1:it" "docker://$registry/$2:$3"; }
skopeo_pull() { skopeo_copy "docker://$registry/$1:$2" "oci:$3:it"; }
nobodys() { local with_auth=(); "$@"; }
with_skopeo() {
  local place=$space/skopeo/image with_auth=() back=$work/back as_nobody=(at nobody nobodys)
  logs_in skopeo skopeo_login
  if [ -n "$login" ]; then with_auth=(--authfile "$home/auth.json"); fi
  round_trips skopeo
  prints "skopeo lists the tags" '"small"' skopeo_ list-tags --tls-verify=false "${with_auth[@]}" "docker://$registry/$place"
  holds "all of them" says '"empty"'
  prints "skopeo inspects the image" "$(digest_of "$images/small")" skopeo_ inspect --tls-verify=false "${with_auth[@]}" "docker://$registry/$place:small"
  prints "skopeo copies it to a second repository" 'Writing manifest' skopeo_copy "docker://$registry/$place:small" "docker://$registry/$space/skopeo/second:small"
  registry_has "the copy is the same" "$space/skopeo/second" small "$(digest_of "$images/small")"
  # The layers are sent again in docker's format: other types, and another manifest.
  ok "skopeo pushes in docker's own format" skopeo_copy --format v2s2 "oci:$images/other:it" "docker://$registry/$place:docker"
  prints "it stays in that format" 'application/vnd.docker.distribution.manifest.v2\+json' skopeo_ inspect --raw --tls-verify=false "${with_auth[@]}" "docker://$registry/$place:docker"
  rm -rf "$back"
  ok "skopeo fetches a whole repository" skopeo_ sync --src docker --dest dir --all --src-tls-verify=false "${with_auth[@]}" "$registry/$space/skopeo/second" "$back"
  if [ -n "$login" ]; then
    docker_config "$work/homes/configured/.docker" "$password"
    ok "skopeo reads docker's file of logins" at configured nobodys skopeo_pull "$place" small "$work/configured"
    ok "skopeo takes the file of logins from the environment" at nobody env REGISTRY_AUTH_FILE="$home/auth.json" HOME="$work/homes/nobody" skopeo --insecure-policy inspect --tls-verify=false "docker://$registry/$place:small"
    ok "skopeo takes a password with the command" at nobody skopeo_ inspect --tls-verify=false --creds "$user:$password" "docker://$registry/$place:small"
    ok "skopeo takes a token with the command" at nobody skopeo_ inspect --tls-verify=false --creds "$user:$token" "docker://$registry/$place:small"
  fi
  ok "skopeo deletes" skopeo_ delete --tls-verify=false "${with_auth[@]}" "docker://$registry/$place:empty"
  gone "what skopeo deleted is gone" "$place" empty
  registry_has "what it did not is there" "$place" small "$(digest_of "$images/small")"
  registry_has "the copy, too" "$space/skopeo/second" small "$(digest_of "$images/small")"
  if [ -n "$ours" ]; then
    at bob typing "$(cat "$work/bob.token")" skopeo_ login --tls-verify=false --authfile "$work/homes/bob.json" -u bob --password-stdin "$registry" >"$out" 2>&1 || true
    with_auth=(--authfile "$work/homes/bob.json")
    ok "another user sees what was pushed" skopeo_ inspect --tls-verify=false "${with_auth[@]}" "docker://$registry/$place:small"
    refused "another user may not push there" "$unauthorized" skopeo_push "$images/empty" "$place" small
    refused "nor delete" "$unauthorized" skopeo_ delete --tls-verify=false "${with_auth[@]}" "docker://$registry/$place:small"
    registry_has "so nothing changed" "$place" small "$(digest_of "$images/small")"
  fi
}

# --- podman and buildah: they unpack what they pull, and pack it again when they push, so digests of layers may change -------------------
podman_() { at_home podman --root "$home/root" --runroot "$home/runroot" --tmpdir "$home/tmp" --storage-driver vfs --events-backend none --cgroup-manager cgroupfs "$@"; }
podman_login() { podman_ login --tls-verify=false --authfile "$home/auth.json" -u "$user" --password-stdin "$registry"; }
with_podman() {
  local place=$space/podman/image with_auth=() name id
  printf '{}' >"$home/none.json"
  logs_in podman podman_login
  if [ -n "$login" ]; then
    with_auth=(--authfile "$home/auth.json")
    prints "podman knows who is logged in" "^$user\$" podman_ login --authfile "$home/auth.json" --get-login "$registry"
  fi
  for name in "${names[@]}"; do
    if [ "$name" = both ]; then continue; fi
    id=$(config_of "$images/$name" | cut -d: -f2)
    tar -C "$images/$name" -cf "$work/layout.tar" blobs index.json oci-layout
    ok "podman takes an image from a layout: $name" podman_ load -q -i "$work/layout.tar"
    rm -f "$work/layout.tar"
    ok "podman pushes it: $name" podman_ push --tls-verify=false "${with_auth[@]}" --digestfile "$home/digest" "$id" "docker://$registry/$place:$name"
    registry_has "podman names the digest that the registry gives: $name" "$place" "$name" "$(cat "$home/digest" 2>/dev/null)"
    podman_ rmi -af >"$out" 2>&1 || true
    ok "podman pulls it back: $name" podman_ pull -q --tls-verify=false "${with_auth[@]}" "$registry/$place:$name"
    prints "it has the configuration and the layers that it had: $name" "^$id" podman_ image inspect --format '{{.Id}}' "$registry/$place:$name"
    podman_ rmi -af >"$out" 2>&1 || true
  done
  ok "podman pulls what was pushed by hand" podman_ pull -q --tls-verify=false "${with_auth[@]}" "$registry/$shared:both"
  prints "it is the image of this architecture" "^$(config_of "$images/small" | cut -d: -f2)" podman_ image inspect --format '{{.Id}}' "$registry/$shared:both"
  ok "podman pulls by digest" podman_ pull -q --tls-verify=false "${with_auth[@]}" "$registry/$shared@$(digest_of "$images/small")"
  prints "podman lists the tags" "$place +small" podman_ search --list-tags --tls-verify=false "${with_auth[@]}" "$registry/$place"
  ok "podman pushes to a second repository" podman_ push --tls-verify=false "${with_auth[@]}" --digestfile "$home/digest" "$registry/$shared:both" "docker://$registry/$space/podman/second:small"
  registry_has "it is there" "$space/podman/second" small "$(cat "$home/digest" 2>/dev/null)"
  ok "podman makes a list" podman_ manifest create list
  ok "podman adds an image to it" podman_ manifest add --tls-verify=false "${with_auth[@]}" list "docker://$registry/$shared@$(digest_of "$images/small")"
  ok "podman pushes the list with all images" podman_ manifest push --all --tls-verify=false "${with_auth[@]}" --digestfile "$home/digest" list "docker://$registry/$place:list"
  registry_has "the list is there" "$place" list "$(cat "$home/digest" 2>/dev/null)"
  if [ -n "$login" ]; then
    refused "podman pulls nothing without a login" "$unauthorized" podman_ pull -q --tls-verify=false --authfile "$home/none.json" "$registry/$place:small"
    refused "podman pushes nothing without a login" "$unauthorized" podman_ push --tls-verify=false --authfile "$home/none.json" "$registry/$shared:both" "docker://$registry/$place:mine"
    ok "podman takes a password with the command" podman_ pull -q --tls-verify=false --creds "$user:$password" "$registry/$place:small"
    ok "podman takes a token with the command" podman_ pull -q --tls-verify=false --creds "$user:$token" "$registry/$place:small"
    ok "podman takes the file of logins from the environment" env REGISTRY_AUTH_FILE="$home/auth.json" HOME="$home" TMPDIR="$work/tmp" podman --root "$home/root" --runroot "$home/runroot" --tmpdir "$home/tmp" --storage-driver vfs --events-backend none pull -q --tls-verify=false "$registry/$place:small"
    ok "podman logs out" podman_ logout --authfile "$home/auth.json" "$registry"
  fi
}

buildah_() { at_home buildah --root "$home/root" --runroot "$home/runroot" --storage-driver vfs "$@"; }
buildah_login() { buildah_ login --tls-verify=false --authfile "$home/auth.json" -u "$user" --password-stdin "$registry"; }
with_buildah() {
  local place=$space/buildah/image with_auth=() name id format container
  printf '{}' >"$home/none.json"
  logs_in buildah buildah_login
  if [ -n "$login" ]; then with_auth=(--authfile "$home/auth.json"); fi
  container=$(buildah_ from scratch 2>"$out" || true)
  ok "buildah begins with nothing" test -n "$container"
  ok "buildah commits that: an image without layers of its own" buildah_ commit -q "$container" bare
  ok "buildah copies a file" buildah_ copy "$container" "$files/random" /random
  ok "buildah sets a label" buildah_ config --label purpose=test "$container"
  ok "buildah commits a first layer" buildah_ commit -q "$container" first
  container=$(buildah_ from first 2>"$out" || true)
  ok "buildah copies another" buildah_ copy "$container" "$files/etc" /etc
  for format in oci docker; do ok "buildah commits a second layer: $format" buildah_ commit -q --format "$format" "$container" "$format"; done
  local built=(bare oci docker)
  if [ -n "${LONG:-}" ]; then
    container=$(buildah_ from scratch 2>"$out" || true)
    ok "buildah copies 2 GiB" buildah_ copy "$container" "$files/huge" /huge
    ok "buildah commits them" buildah_ commit -q --rm "$container" huge
    built+=(huge)
  fi
  for name in "${built[@]}"; do
    id=$(buildah_ inspect --type image --format '{{.FromImageID}}' "$name" 2>"$out" || true)
    ok "buildah pushes: $name" buildah_ push --tls-verify=false "${with_auth[@]}" --digestfile "$home/digest" "$name" "docker://$registry/$place:$name"
    registry_has "buildah names the digest that the registry gives: $name" "$place" "$name" "$(cat "$home/digest" 2>/dev/null)"
    buildah_ rmi "$name" >"$out" 2>&1 || true
    ok "buildah pulls it back: $name" buildah_ pull -q --policy always --tls-verify=false "${with_auth[@]}" "docker://$registry/$place:$name"
    prints "it is the same image: $name" "^${id:-none}" buildah_ inspect --type image --format '{{.FromImageID}}' "$registry/$place:$name"
    if [ "$name" = huge ]; then buildah_ rmi "$registry/$place:$name" >"$out" 2>&1 || true; fi
  done
  ok "buildah begins with what was pushed by hand" buildah_ from --tls-verify=false "${with_auth[@]}" --name based "docker://$registry/$shared:small"
  prints "its layers are applied one after the other" '^greeting$' buildah_ run --isolation chroot based -- /bin/busybox ls /etc
  holds "what the last one took away is away" lacks '^goes$'
  ok "buildah pushes to a second repository" buildah_ push --tls-verify=false "${with_auth[@]}" "$registry/$place:oci" "docker://$registry/$space/buildah/second:oci"
  if [ -n "$login" ]; then
    refused "buildah pulls nothing without a login" "$unauthorized" buildah_ pull -q --policy always --tls-verify=false --authfile "$home/none.json" "docker://$registry/$place:oci"
    refused "buildah pushes nothing without a login" "$unauthorized" buildah_ push --tls-verify=false --authfile "$home/none.json" "$registry/$place:oci" "docker://$registry/$place:mine"
    ok "buildah takes a token with the command" buildah_ pull -q --policy always --tls-verify=false --creds "$user:$token" "docker://$registry/$place:oci"
  fi
}

# --- umoci: makes layouts, and leaves the transport to skopeo ---------------------------------------------------------------------------
umoci_() { at_home umoci "$@"; }
with_umoci() {
  local place=$space/umoci/image layout=$home/layout back=$work/back with_auth=() digest
  if [ -n "$login" ]; then
    typing "$password" skopeo_login >"$out" 2>&1 || true
    with_auth=(--authfile "$home/auth.json")
  fi
  ok "umoci makes a layout" umoci_ init --layout "$layout"
  ok "umoci makes an image without layers" umoci_ new --image "$layout:it"
  ok "it is pushed" skopeo_push "$layout" "$place" bare
  registry_has "it is there as umoci made it" "$place" bare "$(digest_of "$layout")"
  ok "umoci adds a layer" umoci_ insert --rootless --image "$layout:it" "$files/etc" /etc
  ok "umoci adds a layer of one empty file" umoci_ insert --rootless --image "$layout:it" "$files/nothing" /nothing
  ok "umoci adds a large layer" umoci_ insert --rootless --image "$layout:it" "$files/random" /random
  ok "umoci sets a label" umoci_ config --image "$layout:it" --config.label purpose=test
  digest=$(digest_of "$layout")
  ok "it is pushed with three layers" skopeo_push "$layout" "$place" layers
  registry_has "it is there as umoci made it, with three layers" "$place" layers "$digest"
  rm -rf "$back"; mkdir "$back"
  ok "it is pulled back" skopeo_pull "$place" layers "$back"
  ok "umoci unpacks it" umoci_ unpack --rootless --image "$back:it" "$home/bundle"
  same "a file in it is what was put in" "$files/random" "$home/bundle/rootfs/random"
  holds "the empty file is there, and empty" test -f "$home/bundle/rootfs/nothing" -a ! -s "$home/bundle/rootfs/nothing"
  rm -rf "$back"; mkdir "$back"
  ok "what was pushed by hand is pulled" skopeo_pull "$shared" small "$back"
  ok "umoci unpacks that, too" umoci_ unpack --rootless --image "$back:it" "$home/other"
  holds "what the last layer took away is away" test -f "$home/other/rootfs/etc/greeting" -a ! -e "$home/other/rootfs/etc/goes"
}

# --- docker: a daemon of our own, on a bridge and a socket of its own, with the classic store ---------------------------------------------
docker_() { DOCKER_BUILDKIT=0 at_home docker -H "unix://$home/docker.sock" "$@"; }
docker_login() { docker_ login -u "$user" --password-stdin "$registry"; }
start_docker() {
  bridge=sr$((RANDOM % 10000))
  if ! run ip link add "$bridge" type bridge || ! run ip addr add "172.31.$((RANDOM % 250)).1/24" dev "$bridge" || ! run ip link set "$bridge" up; then
    skip "docker can't be had: no bridge can be made here: $(head -n 1 "$out")"; return 1
  fi
  # With a bridge of its own it does not disturb other daemons, and without iptables it leaves nothing behind. No
  # container is ever run.
  env HOME="$home" DOCKER_TMPDIR="$work/tmp" dockerd --host "unix://$home/docker.sock" --data-root "$home/root" --exec-root "$home/exec" --pidfile "$home/docker.pid" --config-file "$home/daemon.json" \
    --insecure-registry 127.0.0.0/8 --bridge "$bridge" --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false >"$home/daemon.log" 2>&1 </dev/null &
  daemons+=($!)
  for _ in $(seq 150); do
    if docker_ version >"$out" 2>&1; then return; fi
    kill -0 "${daemons[-1]}" 2>/dev/null || break
    sleep 0.2
  done
  skip "docker can't be had: its daemon does not start here: $(grep -vE 'level=(info|warning|debug)' "$home/daemon.log" | tail -n 1 | cut -c1-250)"; return 1
}
pushed_digest() { grep -oE 'digest: sha256:[0-9a-f]+' "$out" | tail -n 1 | cut -d' ' -f2; }
with_docker() {
  local place=$space/docker/image name id digest
  printf '{}' >"$home/daemon.json"
  start_docker || return 0
  echo "# docker $(docker_ version --format '{{.Server.Version}}, client {{.Client.Version}}, store {{.Server.Os}}' 2>/dev/null || true) $(docker_ info --format '{{.Driver}}' 2>/dev/null || true)"
  if [ -n "$login" ]; then
    refused "docker pulls nothing without a login" "$unauthorized" docker_ pull "$registry/$shared:small"
  fi
  logs_in docker docker_login
  mkdir -p "$home/build"
  cp -r "$files/etc" "$files/random" "$files/nothing" "$home/build"
  printf 'FROM scratch\nCOPY etc /etc\nCOPY random /random\nCOPY nothing /nothing\nLABEL purpose=test\n' >"$home/build/layers"
  printf 'FROM scratch\nLABEL purpose=test\n' >"$home/build/bare"
  for name in layers bare; do ok "docker builds an image: $name" docker_ build -q -t "$registry/$place:$name" -f "$home/build/$name" "$home/build"; done
  ok "docker imports a tar file as an image of one layer" docker_ import "$work/base.tar" "$registry/$place:imported"
  local built=(layers bare imported)
  if [ -n "${LONG:-}" ]; then
    tarred huge.tar huge
    ok "docker imports 2 GiB" docker_ import "$work/huge.tar" "$registry/$place:huge"
    rm -f "$work/huge.tar"
    built+=(huge)
  fi
  for name in "${built[@]}"; do
    id=$(docker_ image inspect --format '{{.Id}}' "$registry/$place:$name" 2>"$out" || true)
    prints "docker pushes: $name" 'digest: sha256:' docker_ push "$registry/$place:$name"
    digest=$(pushed_digest)
    registry_has "docker names the digest that the registry gives: $name" "$place" "$name" "$digest"
    if [ "$name" = layers ]; then
      docker_ tag "$registry/$place:$name" "$registry/$space/docker/second:$name" >"$out" 2>&1 || true
      prints "docker pushes the same to a second repository" 'digest: sha256:' docker_ push "$registry/$space/docker/second:$name"
      holds "its layers are mounted from the first" says 'Mounted from'
      registry_has "the second has them" "$space/docker/second" "$name" "$digest"
      docker_ rmi "$registry/$space/docker/second:$name" >"$out" 2>&1 || true
    fi
    ok "docker forgets it: $name" docker_ rmi -f "$registry/$place:$name"
    prints "docker pulls it back: $name" "Digest: ${digest:-none}" docker_ pull "$registry/$place:$name"
    prints "it is the same image: $name" "^${id:-none}" docker_ image inspect --format '{{.Id}}' "$registry/$place:$name"
  done
  if [ -n "$ours" ]; then
    docker_ tag "$registry/$place:layers" "$registry/single-docker:layers" >"$out" 2>&1 || true
    prints "docker pushes under a single name" 'digest: sha256:' docker_ push "$registry/single-docker:layers"
    digest=$(pushed_digest)
    registry_has "it lies below the default entity and collection" "$space/default/single-docker" layers "$digest"
    docker_ rmi "$registry/single-docker:layers" >"$out" 2>&1 || true
    prints "docker pulls a single name" "Digest: ${digest:-none}" docker_ pull "$registry/single-docker:layers"
  fi
  prints "docker pulls what was pushed by hand" "Digest: $(digest_of "$images/small")" docker_ pull "$registry/$shared:small"
  prints "it is that image" "^$(config_of "$images/small")" docker_ image inspect --format '{{.Id}}' "$registry/$shared:small"
  prints "docker pulls from an index" "Digest: $(digest_of "$images/both")" docker_ pull "$registry/$shared:both"
  prints "it is the image of this architecture" "^$(config_of "$images/small")" docker_ image inspect --format '{{.Id}}' "$registry/$shared:both"
  prints "docker pulls by digest" "Digest: $(digest_of "$images/small")" docker_ pull "$registry/$shared@$(digest_of "$images/small")"
  prints "docker pulls all tags" "$place" docker_ pull -a "$registry/$place"
  refused "docker is told that there is no such tag" 'not found|unknown' docker_ pull "$registry/$place:nothing"
  prints "docker looks at a manifest" 'schemaVersion' docker_ manifest inspect --insecure "$registry/$place:layers"
  if [ -n "$login" ]; then
    ok "docker logs out" docker_ logout "$registry"
    refused "docker pushes nothing without a login" "$unauthorized|access to the resource" docker_ push "$registry/$place:layers"
    docker_config "$home/configured" "$token"
    prints "docker reads a file of logins" 'digest: sha256:' env HOME="$home" DOCKER_CONFIG="$home/configured" timeout "$patience" docker -H "unix://$home/docker.sock" push "$registry/$place:layers"
  fi
  stop_daemons
}

# --- ctr: a containerd of our own ---------------------------------------------------------------------------------------------------------
ctr_() { at_home ctr --address "$daemon_home/containerd.sock" --namespace test "$@"; }
ctr_user=()
ctr_push() {
  tar -C "$1" -cf "$work/layout.tar" blobs index.json oci-layout
  ctr_ images import --all-platforms --no-unpack --base-name "$registry/$2" --digests=false "$work/layout.tar" || return
  rm -f "$work/layout.tar"
  if [ "$3" != it ]; then ctr_ images tag --force "$registry/$2:it" "$registry/$2:$3" || return; fi
  ctr_ images push --plain-http ${ctr_user[@]+"${ctr_user[@]}"} "$registry/$2:$3" || return
}
# Removes everything that containerd has first, so that it must fetch.
ctr_pull() {
  ctr_ images list -q | while read -r name; do ctr_ images remove --sync "$name" >/dev/null; done
  ctr_ images pull --plain-http --all-platforms --snapshotter native ${ctr_user[@]+"${ctr_user[@]}"} "$registry/$1:$2" || return
  ctr_ images export --all-platforms "$work/layout.tar" "$registry/$1:$2" || return
  mkdir -p "$3"; tar -C "$3" -xf "$work/layout.tar"; rm -f "$work/layout.tar"
}
nobodys_ctr() { local ctr_user=(); "$@"; }
with_ctr() {
  local place=$space/ctr/image daemon_home=$home as_nobody=(nobodys_ctr)
  cat >"$home/config.toml" <<TOML
version = 2
root = "$home/root"
state = "$home/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.opt"]
[grpc]
  address = "$home/containerd.sock"
[ttrpc]
  address = "$home/containerd.ttrpc"
TOML
  env HOME="$home" containerd --config "$home/config.toml" >"$home/daemon.log" 2>&1 </dev/null &
  daemons+=($!)
  for _ in $(seq 100); do
    if ctr_ version >"$out" 2>&1; then break; fi
    kill -0 "${daemons[-1]}" 2>/dev/null || break
    sleep 0.2
  done
  if ! ctr_ version >"$out" 2>&1; then skip "ctr can't be had: containerd does not start here: $(tail -n 1 "$home/daemon.log" | cut -c1-250)"; return 0; fi
  if [ -n "$login" ]; then
    ctr_user=(--user "$user:wrong")
    refused "ctr is refused with a wrong password" "$unauthorized" ctr_pull "$shared" small "$work/none"
    ctr_user=(--user "$user:$token")
    ok "ctr pulls with a token in the place of a password" ctr_pull "$shared" small "$work/with-token"
    ctr_user=(--user "$user:$password")
  fi
  round_trips ctr
  ok "ctr pulls before it pushes on" ctr_pull "$place" small "$work/again"
  ok "ctr gives it a name in a second repository" ctr_ images tag "$registry/$place:small" "$registry/$space/ctr/second:small"
  ok "ctr pushes it there" ctr_ images push --plain-http "${ctr_user[@]}" "$registry/$space/ctr/second:small"
  registry_has "it is there" "$space/ctr/second" small "$(digest_of "$images/small")"
  stop_daemons
}

# --- crane ------------------------------------------------------------------------------------------------------------------------------
crane_() { at_home crane --insecure "$@"; }
crane_probe() { crane_ digest "$registry/$shared:small"; }
crane_login() { crane_ auth login "$registry" -u "$user" --password-stdin; }
crane_push() {
  if [ "$(wc -l <"$1/manifests")" -gt 1 ]; then
    # crane pushes a layout's own index.json as the index; what must be pushed is the manifest that it names.
    rm -rf "$work/as-index"
    cp -r "$1" "$work/as-index"
    cp "$1/blobs/sha256/$(digest_of "$1" | cut -d: -f2)" "$work/as-index/index.json"
    crane_ push --index "$work/as-index" "$registry/$2:$3"
  else crane_ push "$1" "$registry/$2:$3"; fi
}
crane_pull() {
  if crane_ manifest "$registry/$1:$2" 2>&1 | grep -q '"manifests"'; then crane_ pull --format oci --platform all "$registry/$1:$2" "$3"; else crane_ pull --format oci "$registry/$1:$2" "$3"; fi
}
with_crane() {
  local place=$space/crane/image digest
  keeps_login crane crane_probe crane_login
  round_trips crane
  prints "crane lists the tags" '^small$' crane_ ls "$registry/$place"
  prints "crane names the digest" "^$(digest_of "$images/small")\$" crane_ digest "$registry/$place:small"
  ok "crane validates what is there" crane_ validate --remote "$registry/$place:small"
  prints "crane copies to a second repository, where the layers are mounted" 'mounted blob' crane_ -v copy "$registry/$place:small" "$registry/$space/crane/second:small"
  holds "it sends none of them" lacks '--> (PATCH|PUT) [^ ]*/blobs/uploads/'
  registry_has "the copy is the same" "$space/crane/second" small "$(digest_of "$images/small")"
  ok "crane copies an index" crane_ copy "$registry/$place:both" "$registry/$space/crane/second:both"
  registry_has "the copy of the index is the same" "$space/crane/second" both "$(digest_of "$images/both")"
  ok "crane sets another tag" crane_ tag "$registry/$place:small" another
  registry_has "it names the same" "$place" another "$(digest_of "$images/small")"
  gzip -n <"$work/last.tar" >"$work/last.tar.gz"
  ok "crane appends a layer to what is there" crane_ append -b "$registry/$place:small" -f "$work/last.tar.gz" -t "$registry/$place:appended"
  ok "crane appends a layer to nothing" crane_ append -f "$work/last.tar.gz" -t "$registry/$place:alone"
  ok "crane validates both" crane_ validate --remote "$registry/$place:appended"
  ok "crane sets a label" crane_ mutate -l purpose=changed "$registry/$place:alone"
  digest=$(digest_of "$images/small")
  ok "crane fetches one layer" crane_ blob "$registry/$place@$(config_of "$images/small")"
  if [ -n "$login" ]; then
    docker_config "$work/homes/configured/.docker" "$token"
    prints "crane reads docker's file of logins" "^$digest\$" at configured crane_ digest "$registry/$place:small"
    prints "also where the environment names it" "^$digest\$" at nobody env DOCKER_CONFIG="$work/homes/configured/.docker" HOME="$work/homes/nobody" crane digest "$registry/$place:small"
  fi
  ok "crane deletes a manifest" crane_ delete "$registry/$place@$(crane_ digest "$registry/$place:appended" 2>/dev/null || echo sha256:none)"
  gone "what crane deleted is gone" "$place" appended
  registry_has "the rest is there" "$place" small "$digest"
  if [ -n "$ours" ]; then oci_sif; fi
}

# What SingularityCE 4 does for an OCI-SIF under library://. It can't be installed here: it asks the library for a
# registry, a name and a password, and talks to that with go-containerregistry. crane is that module's own command.
oci_sif() {
  local place=$space/crane/oci-sif back=$work/back registry name secret as_nobody=(at nobody) sentence status
  ask GET "$url/assets/config/config.prod.json" >/dev/null
  registry=$(json registryUri); registry=${registry#*://}; registry=${registry%/}
  ask GET "$url/v1/rbac/users/current" -H "Authorization: Bearer $token" >/dev/null
  name=$(json username) secret=$(json secret)
  cp "$work/body" "$out"
  holds "the library names a registry, and the credentials for it" test -n "$registry" -a "$name" = "$user" -a -n "$secret"
  make_squashfs "$work/one.squashfs" etc
  make_squashfs "$work/two.squashfs" bin nothing
  image "$images/squashed" "$arch" "$work/one.squashfs"
  image "$images/layered" "$(other_arch)" "$work/one.squashfs" "$work/two.squashfs"
  index "$images/oci-sif" "$images/squashed" "$images/layered"
  ok "as for an OCI-SIF: login at that registry" at oci-sif typing "$secret" crane_ auth login "$registry" -u "$name" --password-stdin
  for name in squashed oci-sif; do
    sentence="layers of squashfs: $name"
    ok "$sentence: crane pushes them" at oci-sif crane_push "$images/$name" "$place" "$name"
    registry_has "$sentence: it is what crane was given" "$place" "$name" "$(digest_of "$images/$name")"
    rm -rf "$back"
    ok "$sentence: crane pulls them back" at oci-sif crane_pull "$place" "$name" "$back"
    same_image "$sentence: with the same bytes" "$images/$name" "$back/blobs/sha256"
    prints "$sentence: crane finds the image of this architecture" "^$(digest_of "$images/squashed")\$" at oci-sif crane_ digest --platform "linux/$arch" "$registry/$place:$name"
    points_to_the_registry "$sentence" "$name" "$token"
  done
  closed "layers of squashfs: nobody pulls them yet" crane_pull "$place" squashed "$work/none"
  status=$(ask GET "$url/v1/imagefile/$place:squashed?arch=$arch")
  cp "$work/body" "$out"
  holds "nor does the library say that they are there" test "$status" = 404
  ok "they are made public" "$STACKROOM_BIN" set "$place" --visibility public
  for name in squashed oci-sif; do
    sentence="public layers of squashfs: $name"
    rm -rf "$back"
    ok "$sentence: anybody pulls them" at nobody crane_pull "$place" "$name" "$back"
    same_image "$sentence: with the same bytes" "$images/$name" "$back/blobs/sha256"
    points_to_the_registry "$sentence" "$name" ''
  done
  rm -rf "$back"
  # The library can't address a path of two names, but whoever pushed there can still say who may read it.
  place=$space/flat-$RANDOM
  ok "a repository of two names: crane pushes to it" at oci-sif crane_push "$images/squashed" "$place" one
  closed "a repository of two names: nobody pulls it yet" crane_pull "$place" one "$work/none"
  ok "it is made public, too" "$STACKROOM_BIN" set "$place" --visibility public
  ok "a repository of two names: anybody pulls it" at nobody crane_pull "$place" one "$back"
  ok "its tag is frozen" "$STACKROOM_BIN" set "$place:one" --frozen true
  refused "a repository of two names: a frozen tag stays" frozen at oci-sif crane_ delete "$registry/$place:one"
  ok "its tag is frozen no more" "$STACKROOM_BIN" set "$place:one" --frozen false
  rm -rf "$back"
}
# points_to_the_registry SENTENCE TAG TOKEN: a library pull is refused with the words that tell SingularityCE to use the
# registry instead.
points_to_the_registry() {
  local route status
  for route in images imagefile; do
    status=$(ask GET "$url/v1/$route/$place:$2?arch=$arch" ${3:+-H "Authorization: Bearer $3"})
    cp "$work/body" "$out"
    holds "$1: the library points to the registry ($route)" test "$status" = 400 -a -n "$(json message | grep -F 'application/vnd.oci.image.config.v1+json')"
  done
  # The answer that would make a client contact a registry before it asked for the image is never given.
  holds "$1: and not before it is asked" test "$(ask GET "$url/v1/oci-redirect?accessTypes=pull&mapped=1&namespace=${place//\//%2F}" ${3:+-H "Authorization: Bearer $3"})" = 404
}
# json NAME: the string with that name in the last answer.
json() { grep -oE "\"$1\" *: *\"[^\"]*\"" "$work/body" | head -n 1 | sed -E 's/.*: *"(.*)"$/\1/'; }
# make_squashfs FILE NAME…: a real file system, made by this machine's mksquashfs or apptainer's; where there is
# neither, bytes that only begin like one.
make_squashfs() {
  local file=$1 options=(-quiet -no-progress -all-root -mkfs-time 1704067200 -all-time 1704067200); shift
  if command -v mksquashfs >/dev/null; then
    (cd "$files" && run mksquashfs "$@" "$file" "${options[@]}") && return
  elif [ -x "$cache/apptainer-root/usr/bin/mksquashfs" ]; then
    run env IN_ROOT_WORK="$work" "$top/scripts/in-root" "$cache/apptainer-root" /usr/bin/mksquashfs "${@/#//mnt/files/}" "/mnt/${file#"$work/"}" "${options[@]}" && return
  fi
  echo "# no mksquashfs here: the layer ${file##*/} is not a file system"
  { printf hsqs; head -c 1000000 /dev/urandom; } >"$file"
}

# --- regctl -----------------------------------------------------------------------------------------------------------------------------
regctl_() { at_home regctl "$@"; }
regctl_login() { regctl_ registry login "$registry" -u "$user" --pass-stdin; }
# In every home, regctl must be told that there is no TLS.
regctl_plain() { regctl_ registry set "$registry" --tls disabled --skip-check >/dev/null 2>&1 || regctl_ registry set "$registry" --tls disabled; }
regctl_push() { regctl_plain && regctl_ image copy "ocidir://$1:it" "$registry/$2:$3"; }
regctl_pull() { regctl_plain && regctl_ image copy "$registry/$1:$2" "ocidir://$3:it"; }
with_regctl() {
  local place=$space/regctl/image digest
  digest=$(digest_of "$images/small")
  ok "regctl is told that there is no TLS" regctl_plain
  logs_in regctl regctl_login
  round_trips regctl
  prints "regctl lists the tags" '^small$' regctl_ tag ls "$registry/$place"
  prints "regctl names the digest" "^$digest\$" regctl_ manifest head "$registry/$place:small"
  ok "regctl copies to a second repository" regctl_ -v trace image copy "$registry/$place:small" "$registry/$space/regctl/second:small"
  holds "the layers are mounted, and none is sent" lacks 'req-method=(PATCH|PUT) req-url=[^ ]*/blobs/uploads/'
  registry_has "the copy is the same" "$space/regctl/second" small "$digest"
  ok "regctl copies an index with all that refers to it" regctl_ image copy --referrers --digest-tags "$registry/$place:both" "$registry/$space/regctl/second:both"
  ok "regctl sends a blob" typing 'a blob' regctl_ blob put "$registry/$place"
  if [ -n "$login" ]; then docker_config "$work/homes/chunks/.docker" "$token"; fi
  ok "regctl is told to send small chunks" at chunks regctl_ registry set "$registry" --tls disabled --skip-check --blob-chunk 100000 --blob-max 1000
  prints "regctl sends a blob in small chunks" "sha256:$(digest "$files/random")" at chunks regctl_chunks "$place"
  holds "those are many" test "$(grep -c 'req-method=PATCH' "$out")" -gt 90
  holds "the blob is there" test "$(asking=${user:+$user:$password} ask HEAD "/v2/$place/blobs/sha256:$(digest "$files/random")")" = 200
  ok "regctl puts an artifact" typing 'an artifact' regctl_ artifact put --artifact-type application/vnd.example.test "$registry/$place:artifact"
  ok "regctl puts an artifact that refers to an image" typing 'about it' regctl_ artifact put --artifact-type application/vnd.example.about --subject "$registry/$place:small"
  prints "regctl lists what refers to the image" 'application/vnd.example.about' regctl_ artifact list "$registry/$place:small"
  prints "regctl gets it back" '^about it$' regctl_ artifact get --subject "$registry/$place:small"
  if [ -n "$login" ]; then
    docker_config "$work/homes/configured/.docker" "$token"
    at configured regctl_plain >"$out" 2>&1 || true
    prints "regctl reads docker's file of logins" "^$digest\$" at configured regctl_ manifest head "$registry/$place:small"
    prints "regctl takes a password with the command" "^$digest\$" at nobody regctl_ --host "reg=$registry,user=$user,pass=$token,tls=disabled" manifest head "$registry/$place:small"
  fi
  ok "regctl deletes a tag" regctl_ tag delete "$registry/$place:empty"
  gone "the tag that regctl deleted is gone" "$place" empty
  ok "regctl deletes a manifest" regctl_ manifest delete "$registry/$space/regctl/second@$digest"
  gone "the manifest that regctl deleted is gone" "$space/regctl/second" "$digest"
  registry_has "the first repository keeps it" "$place" small "$digest"
}
regctl_chunks() { regctl_ -v trace blob put "$registry/$1" <"$files/random"; }

# --- oras -------------------------------------------------------------------------------------------------------------------------------
oras_() { at_home oras "$@"; }
oras_login() { oras_ login --plain-http -u "$user" --password-stdin "$registry"; }
oras_push() { oras_ copy --from-oci-layout --to-plain-http "$1:it" "$registry/$2:$3"; }
oras_pull() { oras_ copy --from-plain-http --to-oci-layout "$registry/$1:$2" "$3:it"; }
oras_files() { (cd "$files" && oras_ push --plain-http --artifact-type application/vnd.example.test "$1" etc/greeting:text/plain random:application/octet-stream nothing:text/plain); }
oras_fetch() { mkdir -p "$2"; (cd "$2" && oras_ pull --plain-http "$1"); }
oras_attach() { (cd "$files" && oras_ attach --plain-http --artifact-type application/vnd.example.about "$1" etc/greeting:text/plain); }
with_oras() {
  local place=$space/oras/image
  logs_in oras oras_login
  round_trips oras
  prints "oras pushes files, also an empty one" 'Digest: sha256:' oras_files "$registry/$place:files"
  ok "oras pulls them back" oras_fetch "$registry/$place:files" "$home/back"
  same "a file that oras pulled is what was pushed" "$files/random" "$home/back/random"
  holds "the empty file is there, and empty" test -f "$home/back/nothing" -a ! -s "$home/back/nothing"
  if [ -n "$ours" ]; then
    prints "oras pushes under a single name" 'Digest: sha256:' oras_files "$registry/single-oras:files"
    ok "oras pulls a single name" oras_fetch "$registry/single-oras:files" "$home/single"
    same "a file under a single name is what was pushed" "$files/random" "$home/single/random"
    prints "oras lists the tags of a single name" '^files$' oras_ repo tags --plain-http "$registry/single-oras"
    prints "oras finds it below the default entity and collection" '^files$' oras_ repo tags --plain-http "$registry/$space/default/single-oras"
  fi
  ok "oras pushes an artifact without any file" oras_ push --plain-http --artifact-type application/vnd.example.test "$registry/$place:bare"
  prints "oras lists the tags" '^files$' oras_ repo tags --plain-http "$registry/$place"
  prints "oras attaches to an image" 'Digest: sha256:' oras_attach "$registry/$place:small"
  prints "oras discovers what is attached" 'application/vnd.example.about' oras_ discover --plain-http "$registry/$place:small"
  ok "oras attaches to an index" oras_attach "$registry/$place:both"
  ok "oras copies with what is attached to a second repository" oras_ copy -r --from-plain-http --to-plain-http "$registry/$place:small" "$registry/$space/oras/second:small"
  registry_has "the copy is the same" "$space/oras/second" small "$(digest_of "$images/small")"
  prints "the copy has it attached, too" 'application/vnd.example.about' oras_ discover --plain-http "$registry/$space/oras/second:small"
  ok "oras sets more tags" oras_ tag --plain-http "$registry/$place:small" one two
  registry_has "they name the same" "$place" two "$(digest_of "$images/small")"
  ok "oras fetches a manifest" oras_ manifest fetch --plain-http "$registry/$place:small"
  ok "oras fetches a blob" oras_ blob fetch --plain-http --output "$home/config" "$registry/$place@$(config_of "$images/small")"
  holds "with its bytes" test "sha256:$(digest "$home/config")" = "$(config_of "$images/small")"
  ok "oras pushes a blob" oras_ blob push --plain-http "$registry/$place" "$files/etc/goes"
  ok "oras deletes a blob" oras_ blob delete --plain-http --force "$registry/$place@sha256:$(digest "$files/etc/goes")"
  refused "it is gone" 'not found' oras_ blob fetch --plain-http --descriptor "$registry/$place@sha256:$(digest "$files/etc/goes")"
  if [ -n "$login" ]; then
    docker_config "$work/homes/configured" "$token"
    ok "oras reads a file of logins" at nobody oras_ manifest fetch --plain-http --registry-config "$work/homes/configured/config.json" "$registry/$place:small"
    ok "oras takes a password with the command" at nobody typing "$password" oras_ manifest fetch --plain-http -u "$user" --password-stdin "$registry/$place:small"
  fi
  ok "oras deletes a manifest" oras_ manifest delete --plain-http --force "$registry/$place:files"
  gone "what oras deleted is gone" "$place" files
  registry_has "the rest is there" "$place" small "$(digest_of "$images/small")"
}

# --- helm -------------------------------------------------------------------------------------------------------------------------------
helm_() { at_home helm "$@"; }
helm_login() { helm_ registry login --plain-http -u "$user" --password-stdin "$registry"; }
with_helm() {
  local place=$space/helm chart=$home/hello
  logs_in helm helm_login
  mkdir -p "$chart/templates" "$home/back"
  printf 'apiVersion: v2\nname: hello\nversion: 1.2.3+four\ndescription: greets politely\n' >"$chart/Chart.yaml"
  printf 'greeting: hello\n' >"$chart/values.yaml"
  printf 'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\ndata:\n  greeting: {{ .Values.greeting }}\n' >"$chart/templates/map.yaml"
  ok "helm packages a chart" helm_ package "$chart" --destination "$home"
  prints "helm pushes it" 'Digest: sha256:' helm_ push --plain-http "$home/hello-1.2.3+four.tgz" "oci://$registry/$place"
  # A plus is not allowed in a tag, so helm writes an underscore.
  registry_has "helm names the digest that the registry gives" "$place/hello" 1.2.3_four "$(grep -oE 'sha256:[0-9a-f]+' "$out" | head -n 1)"
  ok "helm pulls it back" helm_ pull --plain-http "oci://$registry/$place/hello" --version 1.2.3+four --destination "$home/back"
  same "with the same bytes" "$home/hello-1.2.3+four.tgz" "$home/back/hello-1.2.3+four.tgz"
  rm -f "$home/back"/*
  ok "helm finds the newest version by the list of tags" helm_ pull --plain-http "oci://$registry/$place/hello" --version '>=1.0.0' --destination "$home/back"
  prints "helm shows the chart" 'greets politely' helm_ show chart --plain-http "oci://$registry/$place/hello" --version 1.2.3+four
  prints "helm renders it from there" 'greeting: hello' helm_ template --plain-http greeter "oci://$registry/$place/hello" --version 1.2.3+four
  if [ -n "${LONG:-}" ]; then helm_of_its_longest; fi
  if [ -n "$login" ]; then
    docker_config "$work/homes/configured/.docker" "$token"
    ok "helm reads docker's file of logins" at configured helm_ show chart --plain-http "oci://$registry/$place/hello" --version 1.2.3+four
    docker_config "$work/homes/configured/helm" "$token"
    ok "helm reads a file of logins" at nobody helm_ show chart --plain-http --registry-config "$work/homes/configured/helm/config.json" "oci://$registry/$place/hello" --version 1.2.3+four
    refused "helm pulls nothing without a login" "$unauthorized" at nobody helm_ show chart --plain-http "oci://$registry/$place/hello" --version 1.2.3+four
    refused "helm pushes nothing without a login" "$unauthorized" at nobody helm_ push --plain-http "$home/hello-1.2.3+four.tgz" "oci://$registry/$place"
    ok "helm logs out" helm_ registry logout "$registry"
  fi
}

# helm unpacks at most 100 MiB: a chart of 96 is pushed and pulled, and one of 104 it refuses to send.
helm_of_its_longest() {
  local number
  mkdir "$chart/files"
  for number in $(seq 24); do head -c $((4 << 20)) "$files/huge" >"$chart/files/$number"; done
  sed -i 's/^version.*/version: 2.0.0/' "$chart/Chart.yaml"
  ok "helm packages a chart of 96 MiB" helm_ package "$chart" --destination "$home"
  prints "helm pushes it" 'Digest: sha256:' helm_ push --plain-http "$home/hello-2.0.0.tgz" "oci://$registry/$place"
  ok "helm pulls it back" helm_ pull --plain-http "oci://$registry/$place/hello" --version 2.0.0 --destination "$home/back"
  same "96 MiB have the same bytes" "$home/hello-2.0.0.tgz" "$home/back/hello-2.0.0.tgz"
  for number in 25 26; do cp "$chart/files/1" "$chart/files/$number"; done
  sed -i 's/^version.*/version: 3.0.0/' "$chart/Chart.yaml"
  ok "helm packages a chart of 104 MiB" helm_ package "$chart" --destination "$home"
  refused "helm itself refuses to push that" 'larger than the maximum' helm_ push --plain-http "$home/hello-3.0.0.tgz" "oci://$registry/$place"
  gone "so the registry has none" "$place/hello" 3.0.0
}

# --- cosign: with a key of our own, and no transparency log -----------------------------------------------------------------------------------
cosign_() { at_home env COSIGN_PASSWORD=secret cosign "$@"; }
cosign_login() { cosign_ login "$registry" -u "$user" --password-stdin; }
# It must ask the registry which digest the tag names.
cosign_probe() { cosign_ triangulate --allow-http-registry "$registry/$place:small"; }
cosign_sign() { cosign_ sign --key "$home/cosign.key" --tlog-upload=false --allow-http-registry --yes "$@"; }
cosign_verify() { cosign_ verify --key "$home/cosign.pub" --insecure-ignore-tlog=true --allow-http-registry "$@"; }
with_cosign() {
  local place=$space/cosign/image digest of
  digest=$(digest_of "$images/small")
  of=$registry/$place@$digest
  if [ -n "$login" ]; then typing "$token" crane_login >"$out" 2>&1 || true; fi
  ok "there is an image to sign" crane_push "$images/small" "$place" small
  if [ -n "$login" ]; then crane_ auth logout "$registry" >"$out" 2>&1 || true; fi
  keeps_login cosign cosign_probe cosign_login
  ok "cosign makes a key" cosign_ generate-key-pair --output-key-prefix "$home/cosign"
  refused "cosign finds no signature yet" 'no signatures found|no matching signatures' cosign_verify "$of"
  ok "cosign signs" cosign_sign -a purpose=test "$of"
  prints "cosign verifies" "$digest" cosign_verify "$of"
  prints "also by the tag, and what was signed with it" '"purpose": ?"test"' cosign_verify -a purpose=test "$registry/$place:small"
  refused "cosign is not content with another claim" 'no matching|missing or incorrect annotation' cosign_verify -a purpose=other "$of"
  prints "cosign shows the tree" 'Signatures' cosign_ tree --allow-http-registry "$of"
  printf '{"SPDXID":"SPDXRef-DOCUMENT","spdxVersion":"SPDX-2.3"}' >"$home/statement.json"
  ok "cosign attests" cosign_ attest --key "$home/cosign.key" --tlog-upload=false --allow-http-registry --yes --type spdxjson --predicate "$home/statement.json" "$of"
  ok "cosign verifies the attestation" cosign_ verify-attestation --key "$home/cosign.pub" --insecure-ignore-tlog=true --allow-http-registry --type spdxjson "$of"
  prints "the tree has both" 'Attestations' cosign_ tree --allow-http-registry "$of"
  # The same with the referrers of the specification instead of tags.
  ok "cosign signs as a referrer" env COSIGN_EXPERIMENTAL=1 HOME="$home" COSIGN_PASSWORD=secret timeout "$patience" cosign sign --key "$home/cosign.key" --tlog-upload=false --allow-http-registry --registry-referrers-mode=oci-1-1 --yes "$of"
  ok "cosign verifies a referrer" env COSIGN_EXPERIMENTAL=1 HOME="$home" timeout "$patience" cosign verify --key "$home/cosign.pub" --insecure-ignore-tlog=true --allow-http-registry --experimental-oci11 "$of"
  ok "cosign copies with the signatures to a second repository" cosign_ copy --force --allow-http-registry "$of" "$registry/$space/cosign/second:small"
  prints "the copy verifies" "$digest" cosign_verify "$registry/$space/cosign/second:small"
  if [ -n "$login" ]; then
    docker_config "$work/homes/configured/.docker" "$token"
    prints "cosign reads docker's file of logins" "$digest" at configured cosign_ verify --key "$work/homes/cosign/cosign.pub" --insecure-ignore-tlog=true --allow-http-registry "$of"
    refused "cosign reads nothing without a login" "$unauthorized" at nobody cosign_ verify --key "$work/homes/cosign/cosign.pub" --insecure-ignore-tlog=true --allow-http-registry "$of"
  fi
  if [ -n "${LONG:-}" ]; then
    digest=$(digest_of "$images/huge")
    ok "2 GiB are pushed by hand" push_by_hand "$images/huge" "$place" huge
    ok "cosign signs them" cosign_sign "$registry/$place@$digest"
    ok "cosign saves them with their signature" cosign_ save --timeout 30m --allow-http-registry --dir "$home/saved" "$registry/$place:huge"
    ok "cosign loads them into a repository that has nothing" cosign_ load --timeout 30m --allow-http-registry --dir "$home/saved" "$registry/$space/cosign/loaded:huge"
    registry_has "they are the same" "$space/cosign/loaded" huge "$digest"
    same_image "cosign saved the same bytes" "$images/huge" "$home/saved/blobs/sha256"
    rm -rf "$home/saved"
    prints "cosign verifies what it loaded" "$digest" cosign_verify "$registry/$space/cosign/loaded:huge"
  fi
  ok "cosign takes the signatures away" cosign_ clean --allow-http-registry --force "$of"
}

# --- apptainer: SIF files as artifacts, and images of layers turned into SIF files ------------------------------------------------------------
# In a root and a home of its own; files are in /mnt. The arguments before `--` are its environment.
apptainer_() {
  local environment=()
  while [ "$1" != -- ]; do environment+=("$1"); shift; done; shift
  env IN_ROOT_WORK="$home/mnt" IN_ROOT_HOME="$home/alice" timeout -k 5 "$patience" "$top/scripts/in-root" -u "$root" /usr/bin/env "${environment[@]}" /usr/bin/apptainer "$@"
}
apptainer_probe() { apptainer_ -- pull --force --no-https --disable-cache /mnt/probe.sif "docker://$registry/$shared:small"; }
apptainer_login() { apptainer_ -- registry login --username "$user" --password-stdin "$1://$registry"; }
with_apptainer() {
  local place=$space/apptainer/hello mnt=$home/mnt from=docker://$registry/$shared door name
  mkdir -p "$mnt/tmp" "$home/alice"
  printf 'Bootstrap: scratch\n%%setup\n  mkdir -p "${APPTAINER_ROOTFS}/bin"\n  cp /usr/bin/busybox "${APPTAINER_ROOTFS}/bin/busybox"\n  ln -s busybox "${APPTAINER_ROOTFS}/bin/sh"\n%%runscript\n  exec /bin/busybox echo "hello from here"\n' >"$mnt/hello.def"
  chown -R 1000:1000 "$mnt" "$home/alice"
  ok "apptainer builds a SIF file" apptainer_ -- build /mnt/hello.sif /mnt/hello.def
  if [ -n "$login" ]; then
    refused "apptainer pulls nothing without a login: docker" "$unauthorized" apptainer_ -- pull --no-https /mnt/none.sif "$from:small"
    refused "apptainer pushes nothing without a login: oras" "$unauthorized" apptainer_ -- push --no-https /mnt/hello.sif "oras://$registry/$place:1"
    ok "apptainer takes a login from the environment" apptainer_ "APPTAINER_DOCKER_USERNAME=$user" "APPTAINER_DOCKER_PASSWORD=$password" -- pull --no-https --disable-cache /mnt/environment.sif "$from:small"
    docker_config "$mnt/configured" "$token"
    chown -R 1000:1000 "$mnt/configured"
    ok "apptainer reads a file of logins" apptainer_ -- pull --no-https --disable-cache --authfile /mnt/configured/config.json /mnt/configured.sif "$from:small"
    for door in oras docker; do
      keeps_login "apptainer ($door)" apptainer_probe apptainer_login "$door"
      if [ "$door" = oras ]; then ok "apptainer logs out" apptainer_ -- registry logout "oras://$registry"; fi
    done
  fi
  ok "apptainer pushes a SIF file" apptainer_ -- push --no-https /mnt/hello.sif "oras://$registry/$place:1"
  ok "apptainer pulls it back" apptainer_ -- pull --no-https --disable-cache /mnt/back.sif "oras://$registry/$place:1"
  same "with the same bytes" "$mnt/hello.sif" "$mnt/back.sif"
  prints "apptainer runs it from there" 'hello from here' apptainer_ -- run --no-https "oras://$registry/$place:1"
  if [ -n "$ours" ]; then
    ok "apptainer pushes under a single name" apptainer_ -- push --no-https /mnt/hello.sif "oras://$registry/single-sif:1"
    ok "apptainer pulls a single name" apptainer_ -- pull --no-https --disable-cache /mnt/single.sif "oras://$registry/single-sif:1"
    same "a single name has the same bytes" "$mnt/hello.sif" "$mnt/single.sif"
  fi
  for name in small both; do
    rm -f "$mnt/image.sif"
    ok "apptainer pulls an image of layers: $name" apptainer_ -- pull --no-https --disable-cache /mnt/image.sif "$from:$name"
    prints "its files are there: $name" 'it is there' apptainer_ -- exec /mnt/image.sif /bin/busybox cat /etc/greeting
    refused "what the last layer took away is away: $name" 'No such file' apptainer_ -- exec /mnt/image.sif /bin/busybox cat /etc/goes
    prints "a large file has its bytes: $name" "$(digest "$files/random")" apptainer_ -- exec /mnt/image.sif /bin/busybox sha256sum /random
  done
  ok "apptainer pulls an image by its digest" apptainer_ -- pull --no-https --disable-cache /mnt/digest.sif "$from@$(digest_of "$images/small")"
  prints "apptainer runs a program from an image of layers" 'it runs' apptainer_ -- exec --no-https "$from:small" /bin/busybox echo 'it runs'
  printf 'Bootstrap: docker\nFrom: %s/%s:small\n%%labels\n  Derived yes\n' "$registry" "$shared" >"$mnt/derived.def"
  ok "apptainer builds on an image of layers" apptainer_ -- build --no-https /mnt/derived.sif /mnt/derived.def
  if [ -n "${LONG:-}" ]; then
    ln "$files/huge" "$mnt/huge"
    printf 'Bootstrap: scratch\n%%setup\n  cp /mnt/huge "${APPTAINER_ROOTFS}/huge"\n' >"$mnt/huge.def"
    ok "apptainer builds a SIF file of 2 GiB" apptainer_ -- build /mnt/huge.sif /mnt/huge.def
    rm -f "$mnt/huge"
    ok "apptainer pushes it" apptainer_ -- push --no-https /mnt/huge.sif "oras://$registry/$place:huge"
    ok "apptainer pulls it back" apptainer_ -- pull --no-https --disable-cache /mnt/huge-back.sif "oras://$registry/$place:huge"
    same "2 GiB have the same bytes" "$mnt/huge.sif" "$mnt/huge-back.sif"
    rm -f "$mnt"/huge*.sif
    ok "an image with a layer of 2 GiB is pushed by hand" push_by_hand "$images/huge" "$shared" huge
    ok "apptainer pulls that" apptainer_ -- pull --no-https --disable-cache /mnt/huge.sif "$from:huge"
    prints "its file of 2 GiB has its bytes" "$(digest "$files/huge")" apptainer_ -- exec /mnt/huge.sif /bin/busybox sha256sum /huge
  fi
}

# What a client pushed of 2 GiB is deleted from the registry before the next client starts: twelve times that could be
# more than the disk holds.
gives_back() {
  local place found
  for place in "$space/$1/image" "$space/$1/hello" "$space/$1/loaded" "$shared"; do
    if found=$(manifest_digest "$place" huge); then asking=$user:$password ask DELETE "/v2/$place/manifests/$found" >/dev/null; fi
  done
  timeout 300 "$STACKROOM_BIN" admin sweep --now || return
  [ "$(du -sm "$work/data/objects" | cut -f1)" -lt 1024 ]
}

set_password() { printf '%s\n' "$password" | timeout 30 "$STACKROOM_BIN" admin user passwd "$user"; }

# --- One after the other ------------------------------------------------------------------------------------------------------------------------
for client in "${here[@]}"; do
  home=$work/homes/$client
  mkdir -p "$home/run"
  echo "# $client"
  began=$SECONDS before=$passed/$failed/$skipped skips=$skipped
  # Each client tries wrong passwords. They are counted, and after ten no password is accepted until it is set again.
  if [ -n "$ours" ]; then ok "the password is set again" set_password; fi
  "with_$client"
  # The client was installed, but its daemon did not start.
  [ "$skipped" -eq "$skips" ] || missing+=("$client")
  stop_daemons
  echo "# $client took $((SECONDS - began)) s (passed/failed/skipped before: $before, now: $passed/$failed/$skipped)"
  # What a client keeps is not needed by the next one, and may be large.
  find "$work/tmp" -mindepth 1 -delete 2>/dev/null || true
  rm -rf "${home:?}/root" "$home/mnt" "$work/again" "$work/with-token"
  if [ -n "${LONG:-}" ] && [ -n "$ours" ]; then ok "deleted and swept, the 2 GiB are off the disk" gives_back "$client"; fi
done

if [ -n "$ours" ]; then server_is_well; fi
close_up
