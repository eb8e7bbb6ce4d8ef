#!/bin/sh
# http.sh URL WORDS: puts a value, unless a newer holder has put one.
exec curl -sS --fail-with-body -X PUT -H "Quorate-Fencing-Token: $QUORATE_FENCING_TOKEN" --data "$2" "$1"
