#!/bin/sh
# Installs what a build needs and the machine lacks: a C++ compiler, and libclang for the bindings of
# RocksDB.
set -eu

missing=""
command -v c++ >/dev/null 2>&1 || missing="$missing g++"
# libclang-cpp.so is another library: many machines have it without the one that is needed.
find /usr/lib /usr/local/lib "${LIBCLANG_PATH:-/usr/lib}" \
    \( -name 'libclang.so*' -o -name 'libclang-[0-9]*.so*' \) 2>/dev/null \
    | grep -q . || missing="$missing libclang-dev"

# shellcheck disable=SC2086
"$(dirname "$0")/install.sh" $missing

if ! command -v cargo >/dev/null 2>&1; then
    echo "missing: a Rust toolchain (cargo); see https://rustup.rs" >&2
    exit 1
fi
