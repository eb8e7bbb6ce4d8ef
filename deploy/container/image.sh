#!/bin/sh
# image.sh [BINARY [TAG]]: an image of a local build, from local files alone; nothing is pulled.
#
# The program is linked with RocksDB inside and loads the C and C++ libraries of this machine; they
# are copied beside it, so it runs anywhere that this machine's programs would. (A static program
# would need RocksDB once more for musl, and saves 6 MB.)
set -eu
cd "$(dirname "$0")/../.."

binary=${1:-${CARGO_TARGET_DIR:-target}/release/quorate}
tag=${2:-quorate:local}
engine=${ENGINE:-docker}
[ -x "$binary" ] || { echo "$binary is not there: cargo build --release -p quorate-cli" >&2; exit 1; }

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir -p "$context/root/usr/bin" "$context/root/etc/ssl/certs" "$context/data"
if command -v strip >/dev/null 2>&1; then
    strip -o "$context/root/usr/bin/quorate" "$binary"
else
    cp "$binary" "$context/root/usr/bin/quorate"
fi
chmod 0755 "$context" "$context/root/usr/bin/quorate"
# The loader and the libraries, under the names by which they are asked for.
ldd "$binary" | awk '/=> \//{print $3} $1 ~ /^\//{print $1}' | while read -r library; do
    mkdir -p "$context/root$(dirname "$library")"
    cp -L "$library" "$context/root$library"
done
printf 'quorate:x:65532:65532::/var/lib/quorate:/sbin/nologin\n' > "$context/root/etc/passwd"
printf 'quorate:x:65532:\n' > "$context/root/etc/group"
# Names of /etc/hosts first, as everywhere.
printf 'hosts: files dns\n' > "$context/root/etc/nsswitch.conf"
# For what a node asks of the world, as an object store for its backups.
authorities=/etc/ssl/certs/ca-certificates.crt
[ ! -r "$authorities" ] || cp -L "$authorities" "$context/root$authorities"

# The classic builder of Docker needs no plugin; others do not know the variable.
DOCKER_BUILDKIT=0 "$engine" build -q -f deploy/container/Containerfile -t "$tag" "$context" 2>/dev/null ||
    DOCKER_BUILDKIT=0 "$engine" build -f deploy/container/Containerfile -t "$tag" "$context"
