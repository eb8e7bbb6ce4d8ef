#!/bin/sh
# Fuzzes on stable Rust: make fuzz
#
#   FUZZ_SECONDS=60   for each target
#   TARGET=…          one target instead of all
#   KEEP=1            afterwards the kept corpus is made anew of it and of what was found: the fewest
#                     inputs that reach what all of them reach
#   FUZZ_ARGS=…       more options of libFuzzer, as -seed=1
#
# What is found is kept beside the build until it is merged. An input that ends a target is in
# tests/fuzz/artifacts/; to run it again: TARGET=codec INPUT=tests/fuzz/artifacts/codec-crash-… .
set -eu
cd "$(dirname "$0")/../.."

all='codec apply entries snapshot rpc h2 http arguments config'
targets=${TARGET:-$all}
seconds=${FUZZ_SECONDS:-60}
triple=x86_64-unknown-linux-gnu
CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-${CARGO_TARGET_DIR:-$PWD/target}/fuzz}
export CARGO_TARGET_DIR

# Coverage as libFuzzer reads it, by options of the compiler that are stable. The first is what
# .cargo/config.toml sets, which RUSTFLAGS replaces.
RUSTFLAGS="-Ctarget-cpu=x86-64-v2 -Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    RUSTFLAGS="$RUSTFLAGS -Cllvm-args=-sanitizer-coverage-$option"
done
RUSTFLAGS="$RUSTFLAGS --cfg fuzzing"
export RUSTFLAGS

# The state machine's targets need no RocksDB.
features=
for target in $targets; do
    case $target in
    codec | apply) ;;
    *) features=node ;;
    esac
done
if [ -n "$features" ] && [ -z "${ROCKSDB_LIB_DIR:-}" ]; then
    deploy/build/setup.sh
    ROCKSDB_LIB_DIR=$(deploy/build/rocksdb.sh)
    ROCKSDB_STATIC=1
    export ROCKSDB_LIB_DIR ROCKSDB_STATIC
fi

bins=
for target in $targets; do
    bins="$bins --bin $target"
done
# shellcheck disable=SC2086 # words on purpose
cargo build --release --locked --manifest-path tests/fuzz/Cargo.toml --target "$triple" \
    --no-default-features ${features:+--features $features} $bins

# Longest input, and the memory that the process may use, in MB: a node has caches of its own.
limits() {
    case $1 in
    apply | arguments) echo "-max_len=2048 -rss_limit_mb=1024" ;;
    config) echo "-max_len=8192 -rss_limit_mb=1024" ;;
    rpc | h2 | http) echo "-max_len=4096 -rss_limit_mb=3072" ;;
    *) echo "-max_len=4096 -rss_limit_mb=1024" ;;
    esac
}

mkdir -p tests/fuzz/artifacts
for target in $targets; do
    program=$CARGO_TARGET_DIR/$triple/release/$target
    kept=tests/fuzz/corpus/$target
    found=$CARGO_TARGET_DIR/corpus/$target
    mkdir -p "$kept" "$found"
    echo "== $target, $seconds s"
    # shellcheck disable=SC2046,SC2086 # words on purpose
    set -- -timeout=30 $(limits "$target") -artifact_prefix="tests/fuzz/artifacts/$target-" \
        ${FUZZ_ARGS:-}
    if [ -n "${INPUT:-}" ]; then
        "$program" "$@" "$INPUT"
        continue
    fi
    "$program" "$@" -max_total_time="$seconds" -print_final_stats=1 "$found" "$kept"
    if [ -n "${KEEP:-}" ]; then
        least=$CARGO_TARGET_DIR/least/$target
        rm -rf "$least"
        mkdir -p "$least"
        "$program" "$@" -merge=1 "$least" "$kept" "$found"
        rm -rf "$kept"
        cp -r "$least" "$kept"
    fi
done
