#!/bin/sh
# Compiles RocksDB once per machine, as a static library that every cargo profile links.
#
# Cargo compiles librocksdb-sys again for each profile: 20 to 30 CPU minutes each. This script does it
# once per version of crate, compiler and target flags, keeps the library in the user's cache (or in
# QUORATE_CACHE_DIR), where every checkout finds it, and prints its directory, for:
#   ROCKSDB_LIB_DIR=$(deploy/build/rocksdb.sh) ROCKSDB_STATIC=1 cargo build
set -eu
cd "$(dirname "$0")/../.."

version=$(sed -n '/^name = "librocksdb-sys"$/{n;s/^version = "\(.*\)"$/\1/p;}' Cargo.lock)
key=$(printf '%s\n' "$version" "$(c++ --version | head -n 1)" "$(cat .cargo/config.toml)" \
    "${RUSTFLAGS:-}" | cksum | cut -d ' ' -f 1)
target=${CARGO_TARGET_DIR:-$PWD/target}
cache=${QUORATE_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-$target}/.cache}/quorate}
dir=$cache/rocksdb/$version-$key

if [ ! -f "$dir/librocksdb.a" ]; then
    echo "compiling RocksDB ($version) once, about 20 CPU minutes" >&2
    build=$target/rocksdb-build
    env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC cargo build --locked --release -p librocksdb-sys --target-dir "$build" >&2
    built=$(find "$build" -name librocksdb.a | head -n 1)
    new=$dir.new.$$
    mkdir -p "$new"
    cp "$built" "$new/"
    # Another checkout may have been faster; its library is the same.
    mv -T "$new" "$dir" 2>/dev/null || rm -rf "$new"
    rm -rf "$build"
fi
echo "$dir"
