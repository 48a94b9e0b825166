#!/usr/bin/env bash
# Runs Hinkskalle's own command, `hinkli` 0.3.6, against a real server: login, lists, push of files and folders. Usage: STACKROOM_BIN=… hinkli.sh [NEW_DIR]
# No package registry has it: HINKLI_SOURCE names the folder with its sources, in which `hinkskalle_api` lies.
source "$(dirname "$(realpath "$0")")/lib.sh"

need curl
make_work "${1:-}"
[ -n "${HINKLI_SOURCE:-}" ] || skip_all "no registry has hinkli, and HINKLI_SOURCE names no folder with its sources" $EXCUSED
from_pypi hinkli click==8.1.8 click-log==0.4.0 humanize==4.12.3 PyYAML==6.0.2 requests==2.32.3 || skip_all "what hinkli needs can't be had from PyPI here"

server_settings=(STACKROOM_DEFAULT_ENTITY=lab)
start_server
add_user alice 100GiB
add_user bob 100GiB
password=correct-horse-$RANDOM
echo "$password" | timeout 30 "$STACKROOM_BIN" admin user passwd alice >"$out" 2>&1 || { flunk "alice gets a password"; show_output; finish; }

# hinkli ARG…: as alice. PAGER=cat shows its lists as they are.
hinkli() {
  (cd "$work" && PAGER=cat LC_ALL=C.UTF-8 HINK_API_BASE=$url HINK_API_CFG=$work/hinkli.yml PYTHONPATH=$HINKLI_SOURCE \
    timeout -k 5 150 "$cache/hinkli/bin/python3" -c 'from hinkskalle_api.cli import cli; cli()' "$@")
}
key() { sed -n 's/^hink_api_key: //p' "$work/hinkli.yml"; }

refused "hinkli says that a password is wrong" 'HINK-ERROR: wrong name, password or token' hinkli login --user alice --password wrong
# After it has stored the token, this version ends with a traceback, on every server.
run hinkli login --user alice --password "$password" || true
holds "hinkli stores the token of its login" [ "$(key | wc -c)" -gt 100 ]

prints "hinkli lists no collections at first" 'No collections' hinkli list-collections
head -c 300000 /dev/urandom >"$work/raw.bin"
mkdir -p "$work/folder"; head -c 5000 /dev/urandom >"$work/folder/one"
prints "hinkli pushes a file under the name of its README" 'Upload complete' hinkli push --no-progress raw.bin alice/runs/FAQ4711:Raw
prints "hinkli pushes a folder to its own entity" 'Upload complete' hinkli push --no-progress folder runs/FAQ4711:folder
prints "hinkli pushes the same file again" 'Upload complete' hinkli push --no-progress raw.bin runs/faq4711:again
holds "hinkli moved no bytes for that" says 'skipping upload'
prints "hinkli lists its collection with what it uses" 'usedQuota: 30[0-9]\.[0-9] kB' hinkli list-collections
prints "hinkli lists its containers with what they use" 'usedQuota: 30[0-9]\.[0-9] kB' hinkli list-containers runs
holds "hinkli names the container as it is kept" says '^- name: faq4711'
prints "hinkli lists the tags of files in their case" '^- name: Raw' hinkli list-tags runs/FAQ4711
holds "hinkli lists the other tags" says '^- name: (again|folder)'
prints "hinkli lists the containers of a named entity" 'faq4711' hinkli list-containers alice/runs

prints "hinkli pushes a private file" 'Upload complete' hinkli push --no-progress --private raw.bin runs/secret:v1
layer=sha256:$(digest "$work/raw.bin")
as() { curl -sS -o "$work/got" -w '%{http_code}' -H "Authorization: Bearer $(cat "$work/$1.token")" "$url/v2/alice/runs/$2/blobs/$layer"; }
holds "nobody else reads the private file" [ "$(as bob secret)" = 401 ]
holds "others who are logged in read the other one" [ "$(as bob faq4711)" = 200 ]
same "it is what was pushed" "$work/raw.bin" "$work/got"
head -c 1000 /dev/urandom >"$work/other.bin"
refused "hinkli is told that what exists is not private" 'HINK-ERROR: .*not private' hinkli push --no-progress --private other.bin runs/FAQ4711:v2
refused "hinkli is told that nothing expires here" 'HINK-ERROR: .expiresAt. is not known' hinkli push --no-progress -v 2w other.bin runs/FAQ4711:v2
refused "hinkli is refused in somebody else's entity" 'HINK-ERROR: not permitted' hinkli push --no-progress other.bin bob/runs/x:v1
refused "hinkli is told that a collection is not there" 'HINK-ERROR: container not found' hinkli list-containers nothing
refused "hinkli is told that somebody else's entity is not there" 'HINK-ERROR: collection not found' hinkli list-collections bob

server_is_well
finish
