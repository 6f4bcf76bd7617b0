"""Processes without an environment at the moment the library starts."""

import os

import pytest

from beside import LIBRARIES, SCENES

LIBC = f"{LIBRARIES}/libc.so.6"
LOADER = next(path for path in ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1", LIBC)
              if os.path.exists(path))


@pytest.mark.parametrize("command", [[LIBC], [LOADER, "--version"]], ids=["libc", "ld.so"])
def test_shared_object_run_as_a_program(bench, command):
    """libc is not initialised then: environ is NULL."""
    assert bench.unnoticed(command).code == 0
    assert bench.log() == ""


def test_cleared_by_an_earlier_constructor(bench, built):
    """The variables are unknown, so the library does nothing and logs nothing."""
    clearing = built("cleared.c", flags=("-shared", "-fPIC"))
    assert bench.unnoticed([SCENES, bench.server.port], after=[clearing]).code == 0
    assert bench.log() == ""
