#!/bin/sh
# Two minutes of make chaos: chaos.sh PROGRAM DIR. Where there are no network namespaces to be had it
# says so, and that nothing was tried.
set -eu
if ! unshare --net true 2>/dev/null || ! [ -c /dev/net/tun ]; then
    echo "chaos: not tried: it needs root, network namespaces and /dev/net/tun" >&2
    exit 0
fi
exec "$1" --minutes 2 --seed 1 --dir "$2"
