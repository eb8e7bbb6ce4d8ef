#!/bin/sh
# container.sh BINARY: builds the image of a local build and runs the cluster of compose.yaml with the
# engine of this machine: it forms, serves without its leader, and keeps a lease over a restart of
# every node, one after the other. Without an engine nothing is checked, and it says so.
set -eu
cd "$(dirname "$0")/../.."

binary=${1:-${CARGO_TARGET_DIR:-target}/debug/quorate}
if ! docker version --format '{{.Server.Version}}' >/dev/null 2>&1; then
    echo "NOT RUN: the container check. There is no Docker engine here that answers." >&2
    exit 0
fi
if command -v docker-compose >/dev/null 2>&1; then
    program="docker-compose"
elif docker compose version >/dev/null 2>&1; then
    program="docker compose"
else
    echo "NOT RUN: the container check. There is an engine, and no docker-compose." >&2
    exit 0
fi

project=quorate-check-$$
QUORATE_IMAGE=$project:latest
# Any free ports of the loopback.
QUORATE_PORT=0 QUORATE_HTTP_PORT=0
export QUORATE_IMAGE QUORATE_PORT QUORATE_HTTP_PORT
compose() {
    $program -p "$project" -f deploy/container/compose.yaml "$@"
}
scratch=$(mktemp -d)
ended() {
    status=$?
    trap - EXIT
    [ "$status" = 0 ] || compose logs --tail 40 >&2 || true
    compose down -v >"$scratch/down" 2>&1 || cat "$scratch/down" >&2
    docker image rm -f "$QUORATE_IMAGE" >/dev/null 2>&1 || true
    rm -rf "$scratch"
    exit "$status"
}
trap ended EXIT
trap 'exit 1' INT TERM

# Runs quorate in the container of node N.
on() {
    node=$1
    shift
    compose exec -T "quorate-$node" /usr/bin/quorate "$@"
}
# Tries a command until it succeeds, for half a minute.
soon() {
    tries=30
    until "$@" >"$scratch/last" 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { cat "$scratch/last" >&2; echo "not in time: $*" >&2; return 1; }
        sleep 1
    done
}
voters() {
    [ "$(on "$1" -o json member list | grep -o '"voter":true' | wc -l)" = "$2" ]
}
leads() {
    on "$1" -o json status | tr '{' '\n' | grep "\"name\":\"quorate-$1\"" | grep -q '"role":"leader"'
}
token() {
    on "$1" -o json lease get ship/42 | grep -o '"fencing_token":"[0-9]*"'
}

deploy/container/image.sh "$binary" "$QUORATE_IMAGE" >/dev/null
compose up -d >"$scratch/up" 2>&1 || { cat "$scratch/up" >&2; exit 1; }
soon voters 1 3
soon on 1 health
on 1 lease claim ship/42 --owner captain --ttl 1h >/dev/null
granted=$(token 1)
[ -n "$granted" ] || { echo "the lease that was granted has no token" >&2; exit 1; }

leader=""
for n in 1 2 3; do
    if leads "$n"; then leader=$n; fi
done
[ -n "$leader" ] || { echo "no node says that it leads" >&2; exit 1; }
other=$((leader % 3 + 1))
compose kill "quorate-$leader" >/dev/null 2>&1
soon on "$other" lease claim ship/43 --owner mate --ttl 1h
compose start "quorate-$leader" >/dev/null 2>&1
soon on "$leader" health

for n in 1 2 3; do
    compose restart -t 60 "quorate-$n" >/dev/null 2>&1
    soon on "$n" health
done
[ "$(token 2)" = "$granted" ] || { echo "the lease has another token: $(token 2)" >&2; exit 1; }
on 3 verify >/dev/null
id=$(compose ps -q quorate-1)
marked() { [ "$(docker inspect -f '{{.State.Health.Status}}' "$id")" = healthy ]; }
soon marked
echo "the image is sound: a cluster formed, served without its leader, and kept a lease over restarts"
