#!/bin/sh
# Runs the integration tests: run.sh LIBRARY TESTS [BEFORE [COMMAND...]]. Starts the memcacheds that they
# use. BEFORE is a library that must be preloaded before LIBRARY; COMMAND runs the program. With the variable
# SUITES, as in SUITES="waits|life", it runs only these, each in its environment.
set -eu
library=${3:+$3:}$(realpath "$1")
tests=$(realpath "$2")
shift 2
[ $# -eq 0 ] || shift
command=$*
here=$(dirname "$(realpath "$0")")

work=$(mktemp -d)
servers=
# shellcheck disable=SC2317 # the trap calls it
finish() {
    for server in $servers; do kill "$server" 2>/dev/null || true; done
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM
chmod 755 "$work"

# A free port below the ephemeral ports.
TEST_PORT=$(/usr/bin/python3 -c "
import sys
sys.path.insert(0, '$here/..')
from support import free_port
print(free_port())")
TEST_PATH=$work/socket
export TEST_PORT TEST_PATH

addresses=127.0.0.1
if [ -e /proc/net/if_inet6 ]; then addresses=$addresses,::1; fi
memcached -u nobody -l "$addresses" -p "$TEST_PORT" -U 0 -t 1 &
servers=$!
mkdir "$work/owned"
chown nobody "$work/owned" 2>/dev/null || true
TEST_PATH=$work/owned/socket
memcached -u nobody -s "$TEST_PATH" -a 0777 -t 1 &
servers="$servers $!"
tries=0
until [ -S "$TEST_PATH" ] && /usr/bin/python3 -c "
import socket
socket.create_connection(('127.0.0.1', $TEST_PORT)).close()" 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || { echo "memcached does not start" >&2; exit 1; }
    sleep 0.1
done

TEST_EARLY=$(dirname "$tests")/early.so
TEST_PLUGINS=$(dirname "$tests")/plugins
export TEST_EARLY TEST_PLUGINS

# The directory of the counters, with the modes that the package gives it.
stats=$work/stats
mkdir -m 1777 "$stats"

# wanted FILTER: the suites of it that are to run, as a filter.
wanted() {
    found=
    for suite in $(echo "$1" | tr -c 'a-z_\n' ' '); do
        case "|${SUITES:-$suite}|" in *"|$suite|"*) found="$found|$suite" ;; esac
    done
    [ -z "$found" ] || echo "@(${found#|})/*"
}

# preloaded FILTER [VARIABLE=VALUE...]: runs the tests of one environment, one at a time, because they
# count the connections at the server.
result=0
jobs=1
preloaded() {
    filter=$(wanted "$1")
    [ -n "$filter" ] || return 0
    shift
    rm -f "$work/log" # a process may have the pid of one that wrote there before
    # shellcheck disable=SC2086 # the words of a command
    env MCPOOL_SERVERS='*' MCPOOL_LOG="$work/log" MCPOOL_LOG_LEVEL=debug MCPOOL_STATS="$stats" "$@" \
        LD_PRELOAD="$library" $command "$tests" --jobs "$jobs" --filter "$filter" || result=1
}

# A suite that is in no filter below would silently never run.
for suite in $("$tests" --list | sed -n 's/: [0-9]* tests*$//p'); do
    grep -q "^preloaded '.*\\b$suite\\b" "$0" || {
        echo "[FAIL] the suite $suite is in no filter of run.sh"
        result=1
    }
done

preloaded '@(family|family_bounds|family_identity|family_queues|family_taken|reasons_kernel|reasons_program|reasons_wire|fds|install|epoll|families|unix_sockets|sandbox|children|threads|quits|draining|swaps|deepbind|spares|strangers|reused|reused_sending|receiving|stats|places|pending|duplicates|ring)/*'
preloaded 'policy/*'
preloaded 'full/*'
# These tests sleep. Where everything takes longer they would wake each other too late.
if [ "${TEST_SLOWNESS:-1}" = 1 ]; then
    jobs=12 keepalive=1s
else
    jobs=4 keepalive=3s
fi
preloaded '@(waits|waiters)/*'
preloaded 'life/*' MCPOOL_KEEPALIVE="$keepalive"
jobs=1
preloaded 'two_idle/*' MCPOOL_MAX_IDLE=2
preloaded 'two_in_all/*' MCPOOL_MAX_IDLE_TOTAL=2
preloaded 'short_idle/*' MCPOOL_IDLE_TIMEOUT=200ms
preloaded 'short_life/*' MCPOOL_MAX_LIFETIME=200ms
preloaded 'other_deepbind/*' MCPOOL_DEEPBIND=other.so
preloaded 'dry_run/*' MCPOOL_DRY_RUN=on
preloaded 'rare/*' MCPOOL_LOG_LEVEL=info
preloaded 'dry_stats/*' MCPOOL_DRY_RUN=on
preloaded 'no_stats/*' MCPOOL_STATS="$work/missing"
preloaded 'disabled/*' MCPOOL_DISABLE=1
preloaded 'unix_rules/*' MCPOOL_SERVERS="$TEST_PATH,127.0.0.1:$TEST_PORT,!/elsewhere"
preloaded 'bad_config/*' MCPOOL_MAX_IDLE=many MCPOOL_NONSENSE=1

exit "$result"
