import os
import subprocess

import pytest

pytest.register_assert_rewrite("beside")

from beside import HERE, Bench
from support import Memcached


@pytest.fixture(scope="session")
def server():
    with Memcached() as running:
        yield running


@pytest.fixture
def bench(server, tmp_path):
    return Bench(server, tmp_path)


@pytest.fixture
def stats(tmp_path):
    """A folder for counters that every user may write."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    place = tmp_path / "stats"
    place.mkdir()
    place.chmod(0o1777)
    return {"MCPOOL_STATS": str(place)}


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A function that compiles C files of the tests, each set once."""
    made = {}

    def build(*sources, flags=(), compiler="gcc"):
        key = sources, flags, compiler
        if key not in made:
            made[key] = tmp_path_factory.mktemp("built") / "program.so"
            subprocess.run([compiler, "-D_GNU_SOURCE", f"-I{HERE}/../../shim", "-O1", "-g", "-Wall",
                            "-Werror", "-pthread",
                            *flags, *(os.path.join(HERE, source) for source in sources),
                            "-o", made[key]], check=True)
        return made[key]
    return build
