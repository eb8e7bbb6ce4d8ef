#!/bin/bash
# Runs the recipes of docs/FENCING.md under a real lock: recipes.sh BINARY.
#
# For each, a holder is stopped past its time to live together with its `quorate lock run`, another gets
# the lock and writes, and then the first one's program goes on alone and writes late. That must fail and
# change nothing. Then the same without the recipe's check: the late write must get through, or the test
# would show nothing.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/../.."
binary=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/debug/quorate}")
recipes=$PWD/docs/recipes
missing=""
command -v python3 >/dev/null || missing="$missing python3"
command -v curl >/dev/null || missing="$missing curl"
command -v pgrep >/dev/null || missing="$missing procps"
# shellcheck disable=SC2086
deploy/build/install.sh $missing
dir=$(mktemp -d)
cluster="" server=""
finish() {
    kill $cluster $server 2>/dev/null || true
    # What a failure left standing still.
    [ ! -e "$dir/stopped" ] || kill -KILL $(cat "$dir/stopped") 2>/dev/null || true
    [ -z "$cluster" ] || tail --pid="$cluster" -f /dev/null
    rm -rf "$dir"
}
trap finish EXIT

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
base=$((11000 + RANDOM % 1500 * 10))
"$binary" dev --nodes 1 --base-port "$base" --data-dir "$dir/cluster" >"$dir/dev.log" 2>&1 &
cluster=$!
export QUORATE_ENDPOINTS=127.0.0.1:$base
for _ in $(seq 300); do grep -q ready "$dir/dev.log" && break; sleep 0.2; done
grep -q ready "$dir/dev.log" || { cat "$dir/dev.log" >&2; exit 1; }

# until CONDITION...: within a minute.
until_true() {
    for _ in $(seq 600); do "$@" && return 0; sleep 0.1; done
    echo "did not come true: $*" >&2
    return 1
}
descendants() {
    local child
    for child in $(pgrep -P "$1" || true); do echo "$child"; descendants "$child"; done
}

# late NAME COMMAND...: the last word of COMMAND is what is written; prints how the late write ended.
late() {
    local name=$1 key holder all writer
    shift
    key=$name-$RANDOM
    rm -f "$dir/held" "$dir/ended"
    mkfifo "$dir/go"
    # shellcheck disable=SC2016
    "$binary" lock run "$key" --ttl 1s -- sh -c 'echo $$ >"$0/held.new"; mv "$0/held.new" "$0/held"
        read -r _ <"$0/go"; "$@" late >"$0/words" 2>&1; echo $? >"$0/ended.new"; mv "$0/ended.new" "$0/ended"' \
        "$dir" "$@" 2>/dev/null &
    holder=$!
    until_true test -s "$dir/held"
    writer=$(cat "$dir/held")
    all="$holder $(descendants "$holder" | tr '\n' ' ')"
    echo "$all" >"$dir/stopped"
    kill -STOP $all
    "$binary" lock run "$key" --ttl 10s --wait 60s -- "$@" in-time >/dev/null
    kill -CONT "$writer"
    timeout 60 sh -c 'echo go >"$1"' sh "$dir/go"
    until_true test -s "$dir/ended"
    kill -CONT $all 2>/dev/null || true
    rm "$dir/stopped"
    wait "$holder" || true
    rm "$dir/go"
    cat "$dir/ended"
}

# recipe NAME READ -- COMMAND...: READ prints the value. The late write fails and changes nothing.
recipe() {
    local name=$1 read=$2 ended
    shift 3
    ended=$(late "$name" "$@")
    [ "$ended" != 0 ] || { echo "$name: the late write was taken" >&2; exit 1; }
    [[ $ended =~ ^[1-9][0-9]*$ ]] || { echo "$name: no late write has ended" >&2; exit 1; }
    [ "$($read)" = in-time ] || { echo "$name: the value is $($read), not that of the holder" >&2; exit 1; }
}
# unfenced NAME READ -- COMMAND...: without its check the late write gets through.
unfenced() {
    local name=$1 read=$2
    shift 3
    late "$name" "$@" >/dev/null
    [ "$($read)" = late ] || { echo "$name: the late write fails without the check, too" >&2; exit 1; }
    echo "$name: a late write is refused, and gets through without the check"
}
# without SED FILE: the file with its check taken out.
without() {
    sed "$1" "$recipes/$2" >"$dir/$2"
    ! cmp -s "$recipes/$2" "$dir/$2" || { echo "$2: there is no check to take out" >&2; exit 1; }
    chmod +x "$dir/$2"
}

of_sqlite() { python3 -c 'import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute("SELECT balance FROM account").fetchone()[0])' "$dir/account.db"; }
recipe sqlite of_sqlite -- python3 "$recipes/sqlite.py" "$dir/account.db"
without 's/" AND fence <= ?3"/" AND ?3 = ?3"/' sqlite.py
unfenced sqlite of_sqlite -- python3 "$dir/sqlite.py" "$dir/account.db"

of_file() { cat "$dir/report"; }
recipe file of_file -- sh "$recipes/file.sh" "$dir/report"
without 's/^\[ "$QUORATE_FENCING_TOKEN" -ge.*//' file.sh
unfenced file of_file -- sh "$dir/file.sh" "$dir/report"

of_http() { curl -sS "http://127.0.0.1:$port/"; }
serve() {
    [ -z "$server" ] || { kill "$server"; wait "$server" 2>/dev/null || true; }
    python3 "$1" "$port" &
    server=$!
    until_true curl -s -o "$dir/words" "http://127.0.0.1:$port/"
}
serve "$recipes/http_server.py"
recipe http of_http -- sh "$recipes/http.sh" "http://127.0.0.1:$port/"
without 's/if token < Value.highest/if False/' http_server.py
serve "$dir/http_server.py"
unfenced http of_http -- sh "$recipes/http.sh" "http://127.0.0.1:$port/"
