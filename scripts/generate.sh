#!/usr/bin/env bash
# Make src/ratchet/wire from proto/.  `generate.sh --check` fails when the committed code is stale.
set -euo pipefail
cd "$(dirname "$0")/.."
target=src/ratchet/wire
[ "${1:-}" = "--check" ] && target=$(mktemp -d)
mkdir -p "$target"
"${PYTHON:-.venv/bin/python}" -m grpc_tools.protoc -Iproto \
  --python_out="$target" --pyi_out="$target" --grpc_python_out="$target" proto/ratchet/v1/*.proto
# Generated imports are absolute; ours live below ratchet.wire.
sed -i 's/^from ratchet\.v1 import/from ratchet.wire.ratchet.v1 import/' "$target"/ratchet/v1/*.py*
for folder in "$target" "$target/ratchet" "$target/ratchet/v1"; do : > "$folder/__init__.py"; done
if [ "${1:-}" = "--check" ]; then
  diff -r --exclude=__pycache__ "$target" src/ratchet/wire && echo "wire/ is fresh"
fi
