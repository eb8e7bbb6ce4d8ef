#!/bin/sh
# Installs what a build needs and the machine lacks: a C++ compiler, and libclang for the bindings of
# RocksDB. Uses apt, as root or through sudo; says what to install by hand where it cannot.
set -eu

missing=""
command -v c++ >/dev/null 2>&1 || missing="$missing g++"
# libclang-cpp.so is another library: many machines have it without the one that is needed.
find /usr/lib /usr/local/lib "${LIBCLANG_PATH:-/usr/lib}" \
    \( -name 'libclang.so*' -o -name 'libclang-[0-9]*.so*' \) 2>/dev/null \
    | grep -q . || missing="$missing libclang-dev"

if [ -n "$missing" ]; then
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
fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "missing: a Rust toolchain (cargo); see https://rustup.rs" >&2
    exit 1
fi
