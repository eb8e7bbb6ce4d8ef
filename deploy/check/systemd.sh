#!/bin/sh
# Checks the systemd unit with systemd's own tools: that it is sound, and how much it is let do.
# systemd.sh BINARY: a program that stands where the unit expects the installed one.
set -eu
cd "$(dirname "$0")/../.."

binary=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/debug/quorate}")
command -v systemd-analyze >/dev/null 2>&1 || deploy/build/install.sh systemd
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
sed -e "s|/usr/bin/quorate|$binary|" deploy/systemd/quorate.service > "$dir/quorate.service"
systemd-analyze verify --recursive-errors=no "$dir/quorate.service" > "$dir/verify" 2>&1 || {
    cat "$dir/verify" >&2
    exit 1
}
problems=$(grep quorate.service "$dir/verify" || true)
[ -z "$problems" ] || { echo "$problems" >&2; exit 1; }
# In tenths: a service that may do everything has 96, 20 is the bound for this one.
systemd-analyze security --offline=true --threshold=20 "$dir/quorate.service" > "$dir/security" 2>&1 || {
    cat "$dir/security" >&2
    exit 1
}
tail -n 1 "$dir/security" | sed 's/.*level for/the unit is sound; exposure of/'
