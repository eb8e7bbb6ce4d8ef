#!/bin/sh
# console.sh BINARY [SCREENSHOT]: the web console in a real browser, on a cluster of three: a lease is
# seen to appear, to run down, to expire and to be explained, and every table is seen filled. Needs
# Chromium, which is 124 MB to fetch; so `make console` runs it and `make test` does not.
set -eu
cd "$(dirname "$0")/../.."

binary=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/debug/quorate}")
command -v chromium >/dev/null 2>&1 || deploy/build/install.sh chromium
command -v python3 >/dev/null 2>&1 || deploy/build/install.sh python3-minimal
dir=$(mktemp -d)
port=${BASE_PORT:-17500}
pids=""
ended() {
    status=$?
    trap - EXIT
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    wait
    [ "$status" = 0 ] || cat "$dir/dev" >&2
    rm -rf "$dir"
    exit "$status"
}
trap ended EXIT
trap 'exit 1' INT TERM

"$binary" dev --nodes 3 --base-port "$port" --data-dir "$dir/data" >"$dir/dev" 2>&1 &
pids="$!"
q() {
    "$binary" --endpoints "127.0.0.1:$port" "$@" >"$dir/last" 2>&1 || { cat "$dir/last" >&2; return 1; }
}
tries=60
until grep -qw ready "$dir/dev"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { echo "the cluster is not ready" >&2; exit 1; }
    sleep 0.5
done

for key in billing/close-month billing/invoices index/rebuild; do
    q lease claim "$key" --owner "worker-${#key}" --ttl 30m
done
# Held, and waited for.
for owner in web-1 web-2 web-3; do
    "$binary" --endpoints "127.0.0.1:$port" lock run deploy/web --owner "$owner" --wait 5m -- sleep 300 \
        >"$dir/lock-$owner" 2>&1 &
    pids="$pids $!"
done
q process register build-7
q process append build-7 --type compiled --payload '{"crates":412}'
q process append build-7 --type tested --payload '{"passed":1290}'
q queue push mail --payload '{"text":"hello"}'
q queue push mail --payload '{"text":"good bye"}' --delay 1h
python3 deploy/check/console.py "$binary" "127.0.0.1:$port" "http://127.0.0.1:$((port + 2))/console/" ${2:+"$2"}
