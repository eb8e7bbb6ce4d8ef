#!/bin/sh
# file.sh FILE WORDS: replaces a file, unless a newer holder has written it.
set -eu
exec 9>>"$1.lock"
flock 9     # the check and the write are one step for all who write by way of this script
highest=$(cat "$1.fence" 2>/dev/null || echo 0)
[ "$QUORATE_FENCING_TOKEN" -ge "$highest" ] || { echo "token $QUORATE_FENCING_TOKEN is stale: nothing was written" >&2; exit 1; }
# The token first: if we die between the two, older holders are refused already.
echo "$QUORATE_FENCING_TOKEN" >"$1.fence.new" && sync "$1.fence.new" && mv "$1.fence.new" "$1.fence"
echo "$2" >"$1.new" && sync "$1.new" && mv "$1.new" "$1"
