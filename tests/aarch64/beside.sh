#!/bin/sh
# The tests of inside.sh that do not count connections at the server. They disturb none that do.
result=0
LD_PRELOAD=/srv/build/stressed/libmcpool.so build/stressed/stopped 11211 || result=1
/usr/bin/python3 tests/faults/run.py build/faults/libmcpool.so build/faults/scenes 10 || result=1
# shellcheck disable=SC2046 # the names of programs in C; other interpreters are not there
/usr/bin/python3 tests/transparency/transparency.py build/libmcpool.so build/tests/programs \
    $(build/tests/programs --list | cut -d " " -f 1) || result=1
build/tests/unit --jobs 2 || result=1
exit "$result"
