#!/bin/sh
# Checks the alert rules, the dashboard and the scrape configuration with Prometheus' own tools, and
# lets a real Prometheus scrape a real node. Where Prometheus cannot be installed it says what was not
# checked. monitoring.sh BINARY
set -eu
cd "$(dirname "$0")/../.."

binary=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/debug/quorate}")
reference=docs/reference/metrics.md
rules=deploy/monitoring/alerts.yml
tests=deploy/monitoring/alerts_test.yml
dashboard=deploy/monitoring/dashboard.json

fail() {
    echo "$*" >&2
    exit 1
}

# Every metric that is named is one of ours.
for name in $(cat "$rules" "$dashboard" | grep -oE '\b(quorate|process|tokio)_[a-z0-9_]+' | sort -u); do
    base=$(echo "$name" | sed -E 's/_(bucket|sum|count)$//')
    grep -q -e "^| \`$name\` |" -e "^| \`$base\` | histogram |" "$reference" ||
        fail "$name is in the rules or the dashboard, but not in $reference"
done
# Every alert has its section, and no section is of an alert that is gone.
alerts=$(sed -n 's/^ *- alert: //p' "$rules" | sort)
sections=$(sed -n 's/^## //p' docs/operations/alerts.md | sort)
[ "$alerts" = "$sections" ] || fail "the sections of docs/operations/alerts.md are not the alerts"
# Every alert is seen to fire by a test.
for alert in $alerts; do
    grep -q "^ *alertname: $alert\$" "$tests" || fail "no test in $tests expects $alert to fire"
done

if ! command -v promtool >/dev/null 2>&1 && ! deploy/build/install.sh prometheus; then
    echo "NOT RUN: Prometheus' own check of the rules, and its scrape of a node. It is not installed." >&2
    exit 0
fi
# Prints what it says only when it is not content.
quietly() {
    said=$("$@" 2>&1) || fail "$said"
}
quietly promtool check rules "$rules"
quietly promtool check config deploy/monitoring/prometheus.yml
quietly promtool test rules "$tests"

# A real node, and a real Prometheus that scrapes it.
dir=$(mktemp -d)
pids=""
stop() {
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    for pid in $pids; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$dir"
}
trap stop EXIT
trap 'exit 1' INT TERM
base=$((20000 + $$ % 9000))
http=127.0.0.1:$((base + 2))
web=127.0.0.1:$((base + 3))
"$binary" serve --bootstrap --data-dir "$dir/node" --listen-client "127.0.0.1:$base" \
    --listen-peer "127.0.0.1:$((base + 1))" --listen-http "$http" 2>"$dir/node.log" &
pids="$!"
cp "$rules" "$dir/alerts.yml"
sed -e "s/targets: .*/targets: [\"$http\"]/" -e 's/15s/1s/' deploy/monitoring/prometheus.yml >"$dir/prometheus.yml"
prometheus --config.file="$dir/prometheus.yml" --storage.tsdb.path="$dir/data" \
    --web.listen-address="$web" 2>"$dir/prometheus.log" &
pids="$pids $!"
ask() { promtool query instant "http://$web" "$1" 2>/dev/null || true; }
tries=0
until ask 'quorate_server_is_leader{job="quorate"} == 1' | grep -q '=> 1 '; do
    tries=$((tries + 1))
    if [ "$tries" -gt 120 ]; then
        cat "$dir/node.log" "$dir/prometheus.log" >&2
        fail "Prometheus has not scraped the node in a minute"
    fi
    sleep 0.5
done
ask 'scrape_samples_scraped{job="quorate"}' | grep -q '=> [1-9]' || fail "the scrape has no samples"
scraped=$(ask 'count({job="quorate",__name__=~"quorate_.+"})' | sed -E 's/.*=> ([0-9]+).*/\1/')
# The expressions of the dashboard are what Prometheus understands.
python3 - "$dashboard" >"$dir/expressions" <<'END'
import json, sys
for panel in json.load(open(sys.argv[1]))["panels"]:
    for target in panel.get("targets", []):
        expression = target["expr"].replace("$__rate_interval", "1m")
        print(expression.replace("$instance", ".*"))
END
while read -r expression; do
    said=$(promtool query instant "http://$web" "$expression" 2>&1) || fail "$expression: $said"
done <"$dir/expressions"
echo "the rules hold, $(wc -l <"$dir/expressions") expressions of the dashboard are valid," \
    "$scraped series of a node were scraped"
