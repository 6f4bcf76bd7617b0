#!/bin/sh
# The first process of the machine that boot.py boots: runs the tests on an aarch64 kernel, then switches it off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LC_ALL=C.UTF-8
mkdir -p /proc /sys /dev /tmp /run /var/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm
for folder in /dev/shm /tmp /run; do mount -t tmpfs -o mode=1777 tmpfs $folder; done
ln -s /proc/self/fd /dev/fd
busybox ip link set lo up
cd /srv
uname -srm
setsid sh -c '
MODE
tests/integration/run.sh build/libmcpool.so build/tests/integration_tests
build/tests/unit --jobs 2
' </dev/null
echo "arm64: exit code $?"
busybox poweroff -f
