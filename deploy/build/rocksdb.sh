#!/bin/sh
# Compiles RocksDB once, as a static library that every cargo profile links.
#
# Cargo compiles librocksdb-sys again for each profile: 20 to 30 CPU minutes each. This script does it
# once per version of crate, compiler and target flags, keeps the library under target/, and prints
# its directory, for:  ROCKSDB_LIB_DIR=$(deploy/build/rocksdb.sh) ROCKSDB_STATIC=1 cargo build
set -eu
cd "$(dirname "$0")/../.."

version=$(sed -n '/^name = "librocksdb-sys"$/{n;s/^version = "\(.*\)"$/\1/p;}' Cargo.lock)
key=$(printf '%s\n' "$version" "$(c++ --version | head -n 1)" "$(cat .cargo/config.toml)" \
    "${RUSTFLAGS:-}" | cksum | cut -d ' ' -f 1)
target=${CARGO_TARGET_DIR:-$PWD/target}
dir=$target/rocksdb/$version-$key

if [ ! -f "$dir/librocksdb.a" ]; then
    echo "compiling RocksDB ($version) once, about 20 CPU minutes" >&2
    build=$target/rocksdb/build
    env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC cargo build --locked --release -p librocksdb-sys --target-dir "$build" >&2
    built=$(find "$build" -name librocksdb.a | head -n 1)
    mkdir -p "$dir.new"
    cp "$built" "$dir.new/"
    rm -rf "$dir"
    mv "$dir.new" "$dir"
    rm -rf "$build"
fi
echo "$dir"
