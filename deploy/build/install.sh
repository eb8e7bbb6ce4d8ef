#!/bin/sh
# install.sh PACKAGE...: installs Debian packages with apt, as root or through sudo; says what to
# install by hand where it cannot. Nothing to do without arguments.
set -eu
[ $# -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "missing: $* (Debian's names); install them with this system's packages" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1; then
    as_root="sudo"
else
    echo "missing: $*; install as root: apt-get install --no-install-recommends $*" >&2
    exit 1
fi
echo "installing $*" >&2
$as_root apt-get update -q >&2
# The setting must be in the command that sudo runs: sudo clears the environment.
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@" >&2
