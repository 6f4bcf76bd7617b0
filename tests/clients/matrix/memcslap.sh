#!/bin/sh
# memcslap reads in threads of its own and fails when a key is missing.
# Ends with the line ANSWERED WRONG FDS.
set -eu

memcslap --servers="$APP_SERVER" --concurrency="$APP_CONCURRENCY" --test=get \
    --execute-number=$((APP_OPERATIONS / APP_CONCURRENCY)) --initial-load="$APP_OPERATIONS" >&2
echo "$APP_OPERATIONS 0 0"
