#!/bin/sh
# The tests in the machine that boot.py boots.
# Criterion names the tests that it begins: boot.py ends a machine that is silent for too long.
export TEST_SLOWNESS=10 CRITERION_VERBOSITY_LEVEL=1
result=0

# passes NAME COMMAND...: a test of its own.
passes() {
    name=$1
    shift
    if "$@"; then
        echo "1 passed, 0 failed"
    else
        echo "FAILED $name"
        echo "0 passed, 1 failed"
        result=1
    fi
}

# How many connections sixty uses of a real client open at the server, twice per use without us.
opened_by() {
    before=$accepted
    accepted=$("$@" /usr/bin/python3 tests/oldest/loop.py)
    opened=$((accepted - before))
    echo "python-memcached opened $opened connections" >&2
}

pools() {
    accepted=0
    opened_by env
    [ "$opened" -ge 120 ] || return 1
    opened_by build/mcpool run --
    [ "$opened" -le 5 ]
}

memcached -u nobody -l 127.0.0.1 -U 0 -c 8192 &
sleep 1
export MCPOOL_LIBRARY=/srv/build/libmcpool.so
passes pools pools
passes threads env LD_PRELOAD=/srv/build/stressed/libmcpool.so build/stressed/stress 11211 30 1
# The integration tests use one processor. The others run on the other one, and are shown after them.
nice -n 19 sh tests/aarch64/beside.sh >/tmp/beside 2>&1 &
beside=$!
tests/integration/run.sh build/libmcpool.so build/tests/integration_tests || result=1
wait "$beside" || result=1
cat /tmp/beside
echo "the machine's tests end with $result"
