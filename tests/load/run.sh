#!/bin/sh
# Measures Quorate, etcd and PostgreSQL side by side on this machine and writes docs/PERFORMANCE.md: make bench.
#
#   SECONDS_PER_POINT=3 ROUNDS=3 CLIENTS="1 16 64 256" TESTS="lock renew renew-spread append queue read"
#   LOCKS=1         also hand-overs of one lock by CONTENDERS="64" clients, and NAMES=1000000 lock names
#   PROCESSES=1     also lash's process registry by TASKS="16 64", beside lash's own on PostgreSQL
#   SESSIONS=1      also lash's session stores by TASKS="16 64", beside lash's own on PostgreSQL and
#                   SQLite
#   SCALE=1         also memory, restart and claims with up to LEASES="1000 100000 1000000" leases
#   DOCUMENT=…      the document whose tables are written; empty for stdout only
#   QUORATE=…       a program that was built already, instead of a release build of this tree
#
# Nothing else should run meanwhile. A machine that is busy before the run makes it a noisy one, and
# the tables say so.
set -eu
cd "$(dirname "$0")/../.."

seconds=${SECONDS_PER_POINT:-3}
rounds=${ROUNDS:-3}
clients=${CLIENTS:-1 16 64 256}
tests=${TESTS-lock renew renew-spread append queue read}
leases=${LEASES:-1000 100000 1000000}
contenders=${CONTENDERS:-64}
names=${NAMES:-1000000}
tasks=${TASKS:-16 64}
document=${DOCUMENT-docs/PERFORMANCE.md}
target=${CARGO_TARGET_DIR:-$PWD/target}
load_target=${LOAD_TARGET_DIR:-$target/load}
data=$target/bench
results=$data/results.jsonl

deploy/build/setup.sh
tests/load/setup.sh
commit=$(git describe --always --dirty --abbrev=12)
if [ -n "${QUORATE:-}" ]; then
    commit="unknown: a program built elsewhere"
else
    ROCKSDB_LIB_DIR=$(deploy/build/rocksdb.sh)
    ROCKSDB_STATIC=1
    export ROCKSDB_LIB_DIR ROCKSDB_STATIC
    cargo build --release --locked -p quorate-cli
fi
cargo build --release --locked --manifest-path tests/load/Cargo.toml --target-dir "$load_target"
quorate=${QUORATE:-$target/release/quorate}
load=$load_target/release/load

busy=$(awk -v cores="$(nproc)" '$1 > cores { print $1 }' /proc/loadavg)
if [ -n "$busy" ]; then
    echo "warning: the load average is $busy on $(nproc) cores: this will be a noisy run" >&2
fi

rm -rf "$data"
mkdir -p "$data"
"$load" conditions --commit "$commit" --date "$(date -u +%F)" \
    --seconds "$seconds" --rounds "$rounds" --data-dir "$data" --out "$results"
if [ -n "$tests" ]; then
    "$load" compare --program "$quorate" --data-dir "$data" --out "$results" \
        --tests "$tests" --clients "$clients" --seconds "$seconds" --rounds "$rounds"
fi
if [ "${LOCKS:-1}" = 1 ]; then
    "$load" contend --program "$quorate" --data-dir "$data" --out "$results" \
        --clients "$contenders" --seconds "$seconds" --rounds "$rounds" --names "$names"
fi
if [ "${PROCESSES:-1}" = 1 ]; then
    "$load" processes --program "$quorate" --data-dir "$data" --out "$results" \
        --tasks "$tasks" --seconds "$seconds" --rounds "$rounds"
fi
if [ "${SESSIONS:-1}" = 1 ]; then
    "$load" sessions --program "$quorate" --data-dir "$data" --out "$results" \
        --sessions "$tasks" --seconds "$seconds" --rounds "$rounds"
fi
if [ "${SCALE:-1}" = 1 ]; then
    "$load" scale --program "$quorate" --data-dir "$data" --out "$results" \
        --leases "$leases" --seconds "$seconds"
fi

echo "records: $results" >&2
"$load" table "$results"
if [ -n "$document" ]; then
    "$load" table "$results" --document "$document"
    echo "written: $document" >&2
fi
