#!/bin/bash
# mixed.sh OLD NEW: upgrades a cluster of three from one build's program to another's, member by member.
#
# At each step every verb of a small round is done by way of each endpoint, so that nodes of both builds
# pass commands on to leaders of both; a lease that was claimed in the beginning must keep its token to the
# end; the states of all members must agree; and the cluster's version must rise only with the last member.
set -euo pipefail
old=$(realpath "$1") new=$(realpath "$2")
dir=$(mktemp -d)
base=$((11000 + RANDOM % 1900 * 10))
declare -a pids=(0 0 0)
finish() {
    status=$?
    for pid in "${pids[@]}"; do
        [ "$pid" = 0 ] || { kill -9 "$pid" && wait "$pid"; } 2>/dev/null || true
    done
    [ "$status" = 0 ] || tail -n 15 "$dir"/n?.log >&2 || true
    rm -rf "$dir"
}
trap finish EXIT

addr() { echo "127.0.0.1:$((base + 3 * $1 + $2))"; }
all="$(addr 0 0),$(addr 1 0),$(addr 2 0)"
# start PROGRAM NODE [FLAG]
start() {
    local program=$1 node=$2
    shift 2
    "$program" serve --name "n$node" --data-dir "$dir/n$node" --listen-client "$(addr "$node" 0)" \
        --listen-peer "$(addr "$node" 1)" --listen-http "$(addr "$node" 2)" "$@" >>"$dir/n$node.log" 2>&1 &
    pids[node]=$!
}
soon() {
    for _ in $(seq 300); do "$@" >"$dir/last" 2>&1 && return 0; sleep 0.1; done
    cat "$dir/last" >&2
    echo "not in time: $*" >&2
    return 1
}
ready() { curl -sf "http://$(addr "$1" 2)/readyz"; }
# say ENDPOINTS ARGS...: the new program is the client of both builds.
say() { "$new" --endpoints "$1" --timeout 20s "${@:2}"; }

round=0
works() {
    local at item node
    round=$((round + 1))
    for node in 0 1 2; do
        at=$(addr "$node" 0)
        say "$at" lease claim "r$round/$node" --owner mixed --ttl 10m >/dev/null
        say "$all" lease get "r$round/$node" -o name >/dev/null
        say "$at" queue push jobs --payload "work $round $node" >/dev/null
        say "$at" process register "p/$round/$node" >/dev/null
        say "$at" process append "p/$round/$node" --type step --payload 1 >/dev/null
        item=$(say "$at" lock run "l/$round" --ttl 10s --wait 20s -- echo held)
        [ "$item" = held ]
    done
    [ "$(token "$all")" = "$kept" ] || { echo "the lease changed" >&2; exit 1; }
    say "$all" verify >/dev/null
}

start "$old" 0 --bootstrap
soon ready 0
for node in 1 2; do
    start "$old" "$node"
    soon "$old" member add "n$node" --peer "$(addr "$node" 1)" --client "$(addr "$node" 0)" \
        --http "$(addr "$node" 2)" --promote --endpoints "$(addr 0 0)" --timeout 30s
    soon ready "$node"
done
say "$all" lease claim kept --owner mixed --ttl 60m >/dev/null
token() { say "$1" lease get kept -o json | grep -o '"fencing_token":[^,}]*'; }
kept=$(token "$all")
works
echo "three members of the old build work"
for node in 0 1 2; do
    ! say "$all" upgrade hold >"$dir/last" 2>&1 || { echo "a new command was taken" >&2; exit 1; }
    grep -q -e "needs cluster version" -e "is unknown to this build" "$dir/last" || { cat "$dir/last" >&2; exit 1; }
    kill "${pids[node]}"
    tail --pid="${pids[node]}" -f /dev/null
    start "$new" "$node"
    soon ready "$node"
    works
    say "$all" member transfer-leader >/dev/null
    works
    echo "member n$node runs the new build: the cluster works, whoever leads"
done
risen() { [ "$(say "$all" upgrade status | grep -c ' ok$')" = 3 ]; }
soon risen
say "$all" upgrade hold
say "$all" upgrade resume
works
say "$all" upgrade status
