"""Becomes a program under a seccomp filter.

filtered.py only ACTION FILE PROGRAM...     what FILE does not name is met with ACTION
filtered.py refuse LEVEL OPTION PROGRAM...  getsockopt() of this option is EPERM
"""

import errno
import os
import sys

import seccomp

ACTIONS = {"kill": seccomp.KILL_PROCESS, "EPERM": seccomp.ERRNO(errno.EPERM)}


def only(action, path):
    """Calls that this machine does not have are skipped: one list is for several machines."""
    rules = seccomp.SyscallFilter(ACTIONS[action])
    with open(path, encoding="ascii") as file:
        names = [name for line in file if line[0] != "#" for name in line.split()]
    for name in names:
        if seccomp.resolve_syscall(seccomp.Arch(), name) >= 0:
            rules.add_rule(seccomp.ALLOW, name)
    if "clone3" not in names:
        # As Docker and all others do, so that libc falls back on clone().
        rules.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    return rules


def refuse(level, option):
    rules = seccomp.SyscallFilter(seccomp.ALLOW)
    rules.add_rule(seccomp.ERRNO(errno.EPERM), "getsockopt",
                   seccomp.Arg(1, seccomp.EQ, int(level)), seccomp.Arg(2, seccomp.EQ, int(option)))
    return rules


kind, first, second, *program = sys.argv[1:]
{"only": only, "refuse": refuse}[kind](first, second).load()
os.execv(program[0], program)
