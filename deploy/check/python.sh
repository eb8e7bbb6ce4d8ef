#!/bin/bash
# python.sh BINARY: a program in Python, made from nothing but rpc/proto, takes a lock on a cluster of
# this binary, renews it, sees in a watch who gets it next, and releases it; it takes over a lease, works
# on a queue, and reports as a process. What it needs of PyPI stays in a virtual environment in the target
# directory.
set -euo pipefail
cd "$(dirname "$0")/../.."
binary=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/debug/quorate}")
venv=${CARGO_TARGET_DIR:-target}/python-check
dir=$(mktemp -d)
cluster=""
finish() {
    [ -z "$cluster" ] || { kill "$cluster" 2>/dev/null || true; tail --pid="$cluster" -f /dev/null; }
    rm -rf "$dir"
}
trap finish EXIT

python3 -c 'import ensurepip, venv' 2>/dev/null || deploy/build/install.sh python3 python3-venv
if ! "$venv/bin/python" -c 'import grpc_tools, grpc_status' 2>/dev/null; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check grpcio-tools==1.85.1 grpcio-status==1.85.3
fi
"$venv/bin/python" -m grpc_tools.protoc -I rpc/proto --python_out="$dir" --grpc_python_out="$dir" \
    rpc/proto/quorate/v1/{types,cluster,coordination,leases,locks,processes,queues,watch}.proto

base=$((11000 + RANDOM % 1500 * 10))
"$binary" dev --nodes 1 --base-port "$base" --data-dir "$dir/cluster" >"$dir/dev.log" 2>&1 &
cluster=$!
for _ in $(seq 300); do grep -q ready "$dir/dev.log" && break; sleep 0.1; done
grep -q ready "$dir/dev.log" || { cat "$dir/dev.log" >&2; exit 1; }
PYTHONPATH=$dir PYTHONDONTWRITEBYTECODE=1 \
    "$venv/bin/python" deploy/check/python_client.py "127.0.0.1:$base"
