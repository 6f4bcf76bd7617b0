#!/bin/sh
# The tools of libmemcached: each is a process of its own, with one connection.
# Ends with the line ANSWERED WRONG FDS.
set -eu

directory=$(mktemp -d)
trap 'rm -r "$directory"' EXIT
answered=0
wrong=0
while [ $((answered + wrong)) -lt "$APP_OPERATIONS" ]; do
    key=key-$((answered + wrong))
    echo "value-of-$key" >"$directory/$key"
    memccp --servers="$APP_SERVER" "$directory/$key"
    if [ "$(memccat --servers="$APP_SERVER" "$key")" = "value-of-$key" ]; then
        answered=$((answered + 1))
    else
        wrong=$((wrong + 1))
    fi
done
memcstat --servers="$APP_SERVER" | grep -q total_connections
echo "$answered $wrong 0"
[ "$wrong" = 0 ]
