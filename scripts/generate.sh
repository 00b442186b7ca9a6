#!/usr/bin/env bash
# Make src/ratchet/wire from proto/.  `generate.sh --check` fails when the committed code is stale.
set -euo pipefail
cd "$(dirname "$0")/.."
target=src/ratchet/wire
[ "${1:-}" = "--check" ] && target=$(mktemp -d)
mkdir -p "$target"
"${PYTHON:-.venv/bin/python}" -m grpc_tools.protoc -Iproto \
  --python_out="$target" --pyi_out="$target" --grpc_python_out="$target" proto/ratchet/v1/*.proto \
  proto/ratchet/beside/v1/*.proto
# Generated imports are absolute; ours live below ratchet.wire.
sed -i -E 's/^from ratchet\.(v1|beside\.v1) import/from ratchet.wire.ratchet.\1 import/' "$target"/ratchet/*/*.py* "$target"/ratchet/*/*/*.py*
for folder in "$target" "$target/ratchet" "$target"/ratchet/{v1,beside,beside/v1}; do : > "$folder/__init__.py"; done
if [ "${1:-}" = "--check" ]; then
  diff -r --exclude=__pycache__ "$target" src/ratchet/wire && echo "wire/ is fresh"
fi
