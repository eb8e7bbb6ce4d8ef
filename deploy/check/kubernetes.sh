#!/bin/sh
# kubernetes.sh [--write]: renders the chart with Helm's own code, checks every object by the schemas of
# Kubernetes, and that deploy/kubernetes/quorate.yaml is what the chart gives (--write: makes it so).
# No cluster is contacted. The two packages stay in a directory of the user's cache.
set -eu
cd "$(dirname "$0")/../.."

packages="helm-python-sdk==0.2.2 kubernetes-validate==1.37.0"
venv=${XDG_CACHE_HOME:-$HOME/.cache}/quorate/venv-$(echo "$packages" | cksum | cut -d ' ' -f 1)
if [ ! -e "$venv/complete" ]; then
    python3 -c 'import ensurepip' >/dev/null 2>&1 || deploy/build/install.sh python3-venv
    rm -rf "$venv"
    python3 -m venv "$venv"
    # shellcheck disable=SC2086 # two words
    "$venv/bin/pip" install -q --disable-pip-version-check $packages
    touch "$venv/complete"
fi
exec "$venv/bin/python" deploy/check/chart.py "$@"
