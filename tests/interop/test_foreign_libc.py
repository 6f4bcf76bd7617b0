"""Programs linked with musl that inherit the library by their environment, as children of a program
that has it preloaded: they run, and the library does nothing in them."""

import glob
import os
import re
import shutil
import subprocess

import pytest

from beside import BUILD, HERE, LIBRARY, PYTHON, run

pytestmark = pytest.mark.skipif(not shutil.which("musl-gcc"), reason="no musl-gcc here")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("foreign") / "foreign"
    subprocess.run(["musl-gcc", "-O1", "-o", path, f"{HERE}/foreign.c"], check=True)
    return path


def test_it_is_not_glibc(program):
    assert "ld-musl" in subprocess.run(["readelf", "-l", program], check=True, text=True,
                                       stdout=subprocess.PIPE).stdout


def test_it_runs_and_is_left_alone(bench, program):
    plain = bench.unnoticed([program, bench.server.port, bench.folder / "file"])
    assert plain.code == 0 and plain.out == "fork 9\nvfork 10, system 2816\n"
    assert bench.server.address not in bench.log() # its shells are glibc's and say that they start


def imports(library):
    """The symbols that the library must find to be loaded."""
    listed = subprocess.run(["nm", "-D", "--undefined-only", library], check=True, text=True,
                            stdout=subprocess.PIPE).stdout
    return set(re.findall(r"^ +U ([^@\n]+)", listed, re.MULTILINE))


@pytest.mark.parametrize("built", [".", "aarch64"])
def test_it_has_all_that_the_library_cannot_do_without(built):
    """The names in musl are the same on every machine."""
    library = os.path.join(BUILD, built, "libmcpool.so")
    if not os.path.exists(library):
        pytest.skip("not built for this machine")
    (musl,) = glob.glob("/lib/ld-musl-*.so.1")
    listed = subprocess.run(["nm", "-D", "--defined-only", musl], check=True, text=True,
                            stdout=subprocess.PIPE).stdout
    assert len(imports(library)) > 10
    assert imports(library) - {line.split()[-1] for line in listed.splitlines()} == set()


def test_a_program_runs_it_by_system(bench, program):
    """system() is glibc's; the shell is a program of glibc as well."""
    script = "import os, sys; sys.exit(os.waitstatus_to_exitcode(os.system(sys.argv[1])))"
    command = [PYTHON, "-c", script, f"{program} {bench.server.port} {bench.folder}/file"]
    assert run(command, bench.environment(LIBRARY)) == run(command, bench.environment())
    assert "pooling" in bench.log()
