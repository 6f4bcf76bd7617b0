"""A program in Go with cgo: C in it calls libc, but Go makes its system calls itself."""

import os
import shutil
import subprocess

import pytest

from beside import HERE

pytestmark = pytest.mark.skipif(not shutil.which("go"), reason="no go here")


@pytest.fixture(scope="module", params=["", "-s -w -buildid="])
def program(request, tmp_path_factory):
    """Also when everything is stripped that names Go."""
    path = tmp_path_factory.mktemp("go") / "duplicates"
    subprocess.run(["go", "build", f"-ldflags={request.param}", "-o", path, "."], check=True,
                   cwd=f"{HERE}/golang", env={**os.environ, "CGO_ENABLED": "1",
                                              "GOTOOLCHAIN": "local", "GOFLAGS": ""})
    return path


def test_nothing_is_pooled(bench, program):
    assert bench.unnoticed([program, bench.server.port]).out == "done\n"
    assert ": not kept: GO_PROGRAM " in bench.log()
    assert "pooling nothing (GO_PROGRAM)" in bench.log()
