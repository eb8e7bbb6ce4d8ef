#!/bin/sh
# Installs what a comparison needs and the machine lacks: etcd, and for its Rust client protoc with
# the standard protobuf files; PostgreSQL for lash's own store.
set -eu

missing=""
command -v etcd >/dev/null 2>&1 || missing="$missing etcd-server"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
command -v protoc >/dev/null 2>&1 || missing="$missing protobuf-compiler"
find /usr/include /usr/local/include "${PROTOC_INCLUDE:-/usr/include}" \
    -path '*/google/protobuf/descriptor.proto' 2>/dev/null | grep -q . \
    || missing="$missing libprotobuf-dev"
# shellcheck disable=SC2086
exec "$(dirname "$0")/../../deploy/build/install.sh" $missing
