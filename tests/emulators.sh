#!/usr/bin/env bash
# Runs a command beside AWS's DynamoDB Local and an S3, in a network namespace of its own without access to any other
# network. Usage: emulators.sh DYNAMODB_LOCAL_DIR S3 COMMAND…; S3 is the program `ministack`, or `versitygw`.
set -uo pipefail
source "$(dirname "$0")/../scripts/install.sh"
if [ "${IN_A_NETWORK_OF_ITS_OWN:-}" != yes ]; then
  # DynamoDB Local listens on every address, which can't be configured, so there must be none but loopback.
  unshare --net true 2>/dev/null || { echo "SKIPPED emulators: the kernel does not allow a network namespace (CAP_SYS_ADMIN)" >&2; exit "$EXCUSED"; }
  IN_A_NETWORK_OF_ITS_OWN=yes exec unshare --net "$0" "$@"
fi
dynamodb_local=$(realpath "$1") s3=$(realpath -s "$2"); shift 2
ip link set lo up || exit 1

work=$(mktemp -d) pids=()
stop() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
  for pid in "${pids[@]}"; do timeout 10 tail --pid="$pid" -f /dev/null || kill -9 "$pid"; done
  rm -rf "$work"
}
trap stop EXIT

(
  cd "$work" || exit
  exec timeout 10800 java "-Djava.library.path=$dynamodb_local/DynamoDBLocal_lib" -jar "$dynamodb_local/DynamoDBLocal.jar" \
    -inMemory -disableTelemetry -port 8000
) >"$work/dynamodb-local.log" 2>&1 &
pids+=($!)
mkdir "$work/s3" "$work/attributes"
case $(basename "$s3") in
  ministack)
    AUTH=true SERVICES=s3,dynamodb,iam,sts BIND_HOST=127.0.0.1 GATEWAY_PORT=4566 S3_DATA_DIR=$work/s3 LOG_LEVEL=WARNING \
      timeout 3600 "$s3" >"$work/s3.log" 2>&1 & ;;
  versitygw)
    # Beside the files, since not every file system keeps attributes of them.
    ROOT_ACCESS_KEY=test ROOT_SECRET_KEY=test timeout 10800 "$s3" --port 127.0.0.1:4566 --quiet \
      posix --sidecar "$work/attributes" "$work/s3" >"$work/s3.log" 2>&1 & ;;
  *) echo "emulators.sh knows no S3 of the name $(basename "$s3")" >&2; exit 1 ;;
esac
pids+=($!)

# answers PORT: waits until something listens there.
answers() {
  local try
  for try in {1..240}; do
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
    sleep 0.25
  done
  echo "nothing answers on port $1 after a minute" >&2
  tail -n 20 "$work"/*.log >&2
  return 1
}
answers 8000 && answers 4566 || exit 1

case $(basename "$s3") in
  ministack)
    export STACKROOM_TEST_STORES="DynamoDB-Local+ministack http://127.0.0.1:8000 http://127.0.0.1:4566 false
ministack http://127.0.0.1:4566 http://127.0.0.1:4566 false" ;;
  versitygw) export STACKROOM_TEST_STORES="DynamoDB-Local+versitygw http://127.0.0.1:8000 http://127.0.0.1:4566 header" ;;
esac
"$@"
