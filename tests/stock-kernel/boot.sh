#!/bin/sh
# The first process of the virtual machine: runs the tests beside it and turns the machine off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
# What the kernel's own builds allow: refused here is a failure.
export TRUELINE_TEST_HOOKS=1
mountpoint -q /sys || mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
mountpoint -q /run || mount -t tmpfs -o mode=1777 tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t securityfs securityfs /sys/kernel/security
ip link set lo up
echo "stock-kernel: $(uname -r), security modules $(cat /sys/kernel/security/lsm)"
# shellcheck disable=SC2046
if /lab/tests --test-threads=2 $(cat /lab/arguments); then echo "stock-kernel: passed"; else echo "stock-kernel: failed"; fi
sync
echo o >/proc/sysrq-trigger
# Until it is off: the first process must not end.
while :; do sleep 1; done
