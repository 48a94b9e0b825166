# Installs registry clients, and keeps what they write apart from this machine. Sourced after lib.sh, never run.
# shellcheck shell=bash
# They come from this machine's own Debian, from a newer one, or from the Go module proxy. What is unpacked or built is
# kept in $got. $work is the folder of the run.

got=$cache/registry-clients
mkdir -p "$got/bin"
# Daemons and some helpers are in folders that an ordinary user's PATH does not include.
export PATH=$got/bin:$PATH:/usr/sbin:/sbin
why_not() { grep -E '^(E:|go:|dpkg|.*[Ee]rror)' "$work/get.log" | head -n 1 | cut -c1-250; }

# debian COMMAND PACKAGE…: from this machine's own Debian, installed if missing.
debian() {
  local command=$1; shift
  if command -v "$command" >/dev/null; then return; fi
  echo "# installing $*"
  install_packages "$@" 2>"$work/get.log" || { skip "$command can't be had: $(tail -n 1 "$work/get.log")"; return 1; }
}

# newer_debian COMMAND SUITE: from the package of that name in a newer Debian, unpacked and never installed. It must
# need only the C library.
newer_debian() {
  local command=$1 suite=$2 apt=$work/apt mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  if [ -x "$got/bin/$command" ]; then return; fi
  if [ ! -r "$keyring" ] || ! command -v dpkg-deb >/dev/null; then skip "$command can't be had: this is no Debian machine with debian-archive-keyring"; return 1; fi
  echo "# unpacking $command of Debian $suite"
  # A private apt, as in scripts/apptainer-root: neither the lists nor the packages of this machine change.
  private_apt() {
    timeout 600 apt-get -qq -o Dir::Etc="$apt/etc" -o Dir::State="$apt" -o Dir::State::status="$apt/status" -o Dir::State::lists="$apt/lists" \
      -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
      -o Acquire::Check-Valid-Until=false -o Acquire::Retries=2 -o APT::Update::Error-Mode=any "$@" >"$work/get.log" 2>&1
  }
  if [ ! -e "$apt/fresh" ]; then
    mirror=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 2>/dev/null | awk -F'|' '$1 == "Debian" && $2 == "Debian" && $3 ~ /^https?:/ && !found { print $3; found = 1 }')
    [ -n "$mirror" ] || { skip "$command can't be had: apt names no Debian mirror on this machine"; return 1; }
    mkdir -p "$apt"/etc/{apt.conf.d,preferences.d} "$apt"/lists/partial "$apt"/cache/archives/partial
    : >"$apt/status"
    printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$mirror" trixie "$keyring" "$mirror" sid >"$apt/etc/sources.list"
    private_apt update || { skip "$command can't be had: the Debian mirror can't be reached: $(why_not)"; return 1; }
    touch "$apt/fresh"
  fi
  rm -rf "$work/unpack"; mkdir "$work/unpack"
  if ! (cd "$work/unpack" && private_apt download "$command/$suite" && dpkg-deb -x ./*.deb . && install -m 755 "usr/bin/$command" "$got/bin/$command"); then
    skip "$command can't be had: Debian $suite does not give it: $(why_not)"; return 1
  fi
}

# module COMMAND MODULE VERSION: a Go program.
module() {
  local command=$1 module=$2 version=$3
  from_go "$got/$command-$version" "$module@$version" 2>"$work/get.log"
  case $? in
    0) ln -sfn "../$command-$version/$command" "$got/bin/$command" ;;
    "$SKIP") skip "$command can't be had: $(why_not)"; return 1 ;;
    *) flunk "$command $version matches the checksum database"; tail -n 5 "$work/get.log"; return 1 ;;
  esac
}

# own_mounts ARG…: runs the script again in a mount namespace of its own: no mount outlives it, and folders that clients
# write to outside their homes can be covered.
own_mounts() {
  if [ -z "${REGISTRY_MOUNTS:-}" ] && [ "$(id -u)" = 0 ] && unshare -m --propagation private true 2>/dev/null; then
    REGISTRY_MOUNTS=own exec unshare -m --propagation private "$(realpath "$0")" "$@"
  fi
}
covered=()
# Folders that some client writes to, wherever its home is: keys, caches, locks. Those that had to be created are
# removed by the last run that uses them.
cover() {
  local folder
  [ -n "${REGISTRY_MOUNTS:-}" ] || return 0
  exec 8>"$got/covers.lock"
  flock -s 8
  for folder in /etc/docker /etc/cni/net.d /opt/containerd /run/docker /run/containers /var/lib/containers; do
    if [ ! -d "$folder" ]; then mkdir -p "$folder"; echo "$folder" >>"$got/covers.made"; fi
    mkdir -p "$work/covered$folder"
    mount --bind "$work/covered$folder" "$folder"
    covered+=("$folder")
  done
}
uncover() {
  local folder
  for folder in "${covered[@]}"; do umount -l "$folder" || true; done
  if [ "${#covered[@]}" -gt 0 ] && flock -n -x 8 && [ -e "$got/covers.made" ]; then
    while read -r folder; do rmdir -p --ignore-fail-on-non-empty "$folder" 2>/dev/null || true; done <"$got/covers.made"
    rm -f "$got/covers.made"
  fi
  covered=()
}
