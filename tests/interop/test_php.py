"""PHP loads its extensions with RTLD_DEEPBIND: calls of theirs that the hooks do not see leak to the next user."""
import pathlib
import shutil
import subprocess

import pytest

from support import LIBRARY, preloaded

SCRIPT = pathlib.Path(__file__).parent / "imported.php"
NONE = '{"sec":0,"usec":0}'


@pytest.mark.skipif(not shutil.which("php"), reason="needs PHP")
@pytest.mark.parametrize("library", [None, LIBRARY], ids=["plain", "shim"])
def test_a_timeout_of_the_sockets_extension_is_not_left_to_the_next_user(bench, library):
    done = subprocess.run(["php", SCRIPT, bench.server.address], env=preloaded(library, bench.server.address),
                          check=True, capture_output=True, text=True, timeout=60)
    ports, found = zip(*(line.split(" ") for line in done.stdout.splitlines()))
    assert found == (NONE, NONE)
    assert len(set(ports)) == (1 if library else 2)
