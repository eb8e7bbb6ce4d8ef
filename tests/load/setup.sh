#!/bin/sh
# Installs what a comparison needs and the machine lacks: etcd, and for its Rust client protoc with
# the standard protobuf files. Uses apt, as root or through sudo; says what to install by hand where
# it cannot.
set -eu

missing=""
command -v etcd >/dev/null 2>&1 || missing="$missing etcd-server"
command -v protoc >/dev/null 2>&1 || missing="$missing protobuf-compiler"
find /usr/include /usr/local/include "${PROTOC_INCLUDE:-/usr/include}" \
    -path '*/google/protobuf/descriptor.proto' 2>/dev/null | grep -q . \
    || missing="$missing libprotobuf-dev"
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "missing:$missing (Debian's names); install them with this system's packages" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1; then
    as_root="sudo"
else
    echo "missing:$missing; install as root: apt-get install --no-install-recommends$missing" >&2
    exit 1
fi
echo "installing$missing" >&2
$as_root apt-get update -q >&2
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -qy --no-install-recommends $missing >&2
