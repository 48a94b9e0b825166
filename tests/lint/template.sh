#!/usr/bin/env bash
# Checks template.yaml with AWS's linters, shows that they see a mistake, and has `sam build` say what it would build.
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/install.sh

from_pypi sam --no-deps --require-hashes -r tests/lint/requirements.txt || exit
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# No telemetry, no account, nothing of this user's.
export HOME=$work SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=us-east-1 AWS_EC2_METADATA_DISABLED=true
sam=$cache/sam/bin/sam lint=$cache/sam/bin/cfn-lint

"$lint" template.yaml infra/deploy/ingest.yaml
"$sam" validate --lint --template template.yaml >"$work/said" 2>&1 || { cat "$work/said"; exit 1; }

# What tests/tests/template.rs leaves to them.
broken() {
  sed "$1" template.yaml >"$work/template.yaml"
  ! cmp -s template.yaml "$work/template.yaml" || { echo "not ok - the template has no $1 to break"; exit 1; }
  ! "$lint" "$work/template.yaml" >"$work/said" 2>&1 || { echo "not ok - cfn-lint does not mind $1"; exit 1; }
  grep -q "$2" "$work/said" || { echo "not ok - cfn-lint says of $1: $(cat "$work/said")"; exit 1; }
}
broken 's/BillingMode:/BilingMode:/' BilingMode
broken 's/SSEAlgorithm: AES256/SSEAlgorithm: AES/' AES
broken 's/!If \[LimitsLogins, 1,/!If [LimitLogins, 1,/' LimitLogins

# `stackroom ingest` does a part of what the function `Oci` does, and may do the same.
actions() { grep -o 'Action: \[[^]]*\]'; }
diff <(sed -n '/^  Oci:/,/^  Login:/p' template.yaml | actions) <(actions <infra/deploy/ingest.yaml) ||
  { echo "not ok - infra/deploy/ingest.yaml allows other actions than the function Oci has"; exit 1; }

# `sam build` with a cargo that only writes down how it was called: which folder, which binary, which processor.
mkdir "$work/bin"
cat >"$work/bin/cargo" <<'END'
#!/usr/bin/env bash
# Writes down how `sam build` calls cargo lambda, and leaves what it looks for.
set -euo pipefail
if [ "$1" = metadata ]; then
  echo '{"target_directory": "'"$CALLS"'/target", "packages": []}'
else
  echo "${PWD##*/} $*" >>"$CALLS/calls"
  mkdir -p "$CALLS/target/lambda/${PWD##*/}" && echo built >"$CALLS/target/lambda/${PWD##*/}/bootstrap"
fi
END
cp "$work/bin/cargo" "$work/bin/cargo-lambda"
chmod 755 "$work/bin"/*
for folder in functions/*/; do
  name=$(basename "$folder")
  echo "$name lambda build --release --arm64 --bin $name"
done | sort >"$work/expected"
CALLS=$work PATH=$work/bin:$PATH "$sam" build --template template.yaml --build-dir "$work/built" >"$work/said" 2>&1 ||
  { cat "$work/said"; exit 1; }
diff "$work/expected" <(sort "$work/calls") || { echo "not ok - sam build calls cargo in another way"; exit 1; }
sed 's/ --arm64//' "$work/expected" >"$work/x86_64" && rm "$work/calls"
CALLS=$work PATH=$work/bin:$PATH "$sam" build --template template.yaml --build-dir "$work/built" \
  --parameter-overrides Architecture=x86_64 >"$work/said" 2>&1 || { cat "$work/said"; exit 1; }
diff "$work/x86_64" <(sort "$work/calls") || { echo "not ok - sam build does not build for x86-64"; exit 1; }
echo "ok - template.yaml: cfn-lint, sam validate, sam build; infra/deploy/ingest.yaml: cfn-lint"
