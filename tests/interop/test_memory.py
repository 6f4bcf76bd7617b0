"""What the library takes of the limits of memory: address space that it may never touch counts."""
import os
import re
import subprocess

import pytest

from support import LIBRARY, preloaded

MLOCK_DEFAULT = 8 << 20   # bytes; what Debian 12 gives to every user


def kilobytes(library):
    """The address space of a small program."""
    text = subprocess.run(["cat", "/proc/self/status"], env=preloaded(library, "*"), check=True,
                          capture_output=True, text=True).stdout
    return int(re.search(r"^VmSize:\s+(\d+) kB$", text, re.M)[1])


def test_one_megabyte_of_address_space_at_load():
    assert kilobytes(LIBRARY) - kilobytes(None) <= 1024


def run(bench, program, kind, library):
    command = [program, str(bench.server.port), kind]
    if os.getuid() == 0:
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                   "--bounding-set=-all", "--inh-caps=-all", *command]
    return subprocess.run(["prlimit", f"--memlock={MLOCK_DEFAULT}", *command],
                          env=preloaded(library, bench.server.address), capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("kind", ["mlockall", "address-space"])
@pytest.mark.parametrize("library", [None, LIBRARY], ids=["plain", "shim"])
def test_a_limit_of_memory_is_met_no_earlier(bench, built, tmp_path, kind, library):
    program = tmp_path / "locked"
    program.write_bytes(built("locked.c").read_bytes())
    program.chmod(0o755)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    done = run(bench, program, kind, library)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n400\n", "")
