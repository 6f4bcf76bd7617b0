"""What the tests here share: a program is run twice, without the shim and with it."""

import collections
import os
import re
import subprocess
import sys
import sysconfig

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.join(HERE, "..")
sys.path[:0] = [TESTS, os.path.join(TESTS, "symbols")]
from support import BUILD, LIBRARY, PYTHON, die_with_parent, preloaded

LIBRARIES = f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}"
SCENES = os.path.abspath(os.path.join(BUILD, "faults/scenes"))

Outcome = collections.namedtuple("Outcome", "code out err")


def run(command, environment, said=None):
    """The outcome of COMMAND, whose input is SAID."""
    given = {"stdin": subprocess.DEVNULL} if said is None else {"input": said}
    done = subprocess.run([str(word) for word in command], env=environment, timeout=60, capture_output=True,
                          text=True, check=False, preexec_fn=die_with_parent, **given)
    return Outcome(done.returncode, done.stdout, done.stderr)


class Bench:
    """A memcached, and a place for the shim's log."""

    def __init__(self, server, folder):
        self.server = server
        self.folder = folder
        self.log_path = folder / "log"

    def environment(self, *preload, **more):
        return preloaded(":".join(map(str, preload)), None,
                         MCPOOL_SERVERS=self.server.address, MCPOOL_LOG=str(self.log_path),
                         MCPOOL_LOG_LEVEL="debug", MCPOOL_STATS=str(self.folder),
                         **more)

    def log(self):
        return self.log_path.read_text() if self.log_path.exists() else ""

    def unnoticed(self, command, before=(), after=(), told=lambda outcome: outcome, **more):
        """The outcome of COMMAND without the shim. It must be the same with the shim between the libraries
        BEFORE and AFTER it. TOLD removes from an outcome what differs from run to run."""
        plain = told(run(command, self.environment(*before, *after, **more)))
        assert self.log() == ""
        assert told(run(command, self.environment(*before, LIBRARY, *after, **more))) == plain
        return plain

    def pools_unnoticed(self, command, **more):
        plain = self.unnoticed(command, **more)
        assert plain.code == 0, plain
        assert "reused as" in self.log()
        return plain


def may_mount():
    return subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL,
                          check=False).returncode == 0


needs_mounts = pytest.mark.skipif(not may_mount(), reason="no mount namespace may be made here")


def run_among_mounts(script, *arguments, environment):
    """Runs a shell script in a mount namespace of its own, which ends with it; returns how it ends."""
    return run(["unshare", "--mount", "sh", "-euc", script, "sh", *arguments], environment)


def without_numbers(text):
    """TEXT without addresses and pids, which differ in every run."""
    return re.sub(r"0x[0-9a-f]+|process \d+|==\d+==", "N", text)
