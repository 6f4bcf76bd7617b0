"""The wheels: what is in them, and the README's line in a fresh virtual environment, as an ordinary user."""

import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import pytest

from conftest import TOP, quiet_environment
from test_paths import AT_A_TIME, EXAMPLES, POOLED, VISITS, readme_section

sys.path[:0] = [os.path.join(TOP, "tests"), os.path.join(TOP, "tests", "symbols")]
from support import PYTHON, Memcached, Process, free_port, load, preloaded, stats_of
from symbols import newer_than_supported

MACHINES = {"x86_64": 62, "aarch64": 183}  # and their numbers in an ELF header
USER = 64321


@pytest.fixture(scope="module")
def wheels():
    """What `make wheel` leaves: processor -> path, and "source"."""
    done = subprocess.run(["make", "-C", TOP, "wheel"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", check=False, env=quiet_environment())
    assert done.returncode == 0, done.stdout[-3000:]
    paths = glob.glob(os.path.join(TOP, "build", "wheel", "mcpool-*"))
    return {next((machine for machine in MACHINES if path.endswith(f"_{machine}.whl")), "source"):
            os.path.abspath(path) for path in paths}


@pytest.fixture(scope="module")
def folder():
    """One that an ordinary user can read, unlike pytest's."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o755)
        yield path


@pytest.fixture(scope="module")
def environment(wheels, folder):
    """A fresh virtual environment with the wheel, installed by the README's line. The application's packages are
    the machine's."""
    path = os.path.join(folder, "environment")
    subprocess.run([PYTHON, "-m", "venv", "--system-site-packages", path], check=True)
    downloads = os.path.join(folder, "downloads")
    os.mkdir(downloads)
    shutil.copy(wheels[os.uname().machine], downloads)
    with open(os.path.join(TOP, "README.md"), encoding="utf-8") as file:
        [line] = re.findall(r"`(pip install [^`]*)`", file.read())
    assert line.startswith("pip install ./")
    subprocess.run(["sh", "-euc", f". {path}/bin/activate; {line} --no-index --quiet"], cwd=downloads, check=True)
    return path


def version():
    with open(os.path.join(TOP, "Makefile"), encoding="utf-8") as file:
        return re.search(r"^VERSION := (.*)$", file.read(), re.M).group(1)


def test_names(wheels):
    assert {kind: os.path.basename(path) for kind, path in wheels.items()} == {
        machine: f"mcpool-{version()}-py3-none-manylinux_2_28_{machine}.whl" for machine in MACHINES} | {
            "source": f"mcpool-{version()}.tar.gz"}


@pytest.mark.parametrize("machine", MACHINES)
def test_contents(wheels, machine, tmp_path):
    with zipfile.ZipFile(wheels[machine]) as wheel:
        wheel.extractall(tmp_path)
        names = {name.split("/", 2)[-1] if ".data/" in name else os.path.basename(name) for name in wheel.namelist()}
    manuals = {f"share/man/man{path[-1]}/{os.path.basename(path)}"
               for path in glob.glob(os.path.join(TOP, "shim", "man", "*"))}
    assert names == manuals | {
        "bin/mcpool", "lib/libmcpool.so", "share/doc/mcpool/grafana.json", "share/bash-completion/completions/mcpool",
        "share/zsh/site-functions/_mcpool", "METADATA", "WHEEL", "RECORD", "LICENSE"}
    for name in ("bin/mcpool", "lib/libmcpool.so"):
        [path] = tmp_path.glob(f"*.data/data/{name}")
        assert path.read_bytes()[18:20] == MACHINES[machine].to_bytes(2, "little")
        assert newer_than_supported(str(path)) == set()
        dynamic = subprocess.run(["readelf", "-dW", path], stdout=subprocess.PIPE, text=True, check=True).stdout
        assert set(re.findall(r"\(NEEDED\).*\[(.*?)\]", dynamic)) <= {"libc.so.6", "ld-linux-aarch64.so.1"}


def test_source_makes_the_same_wheel(wheels, environment, tmp_path):
    """It has all that is needed, and any folder gives the same bytes. The machine itself may have no pip."""
    with tarfile.open(wheels["source"]) as archive:
        archive.extractall(tmp_path)
    [source] = tmp_path.iterdir()
    subprocess.run([f"{environment}/bin/pip", "wheel", "--quiet", "--no-index", "--no-build-isolation", "--wheel-dir", tmp_path,
                    source], check=True, env=quiet_environment(), stdout=subprocess.DEVNULL)
    [made] = tmp_path.glob("*.whl")
    with open(wheels[os.uname().machine], "rb") as file:
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(made.read_bytes()).digest()


def test_readme_line_pools(environment, folder):
    """Without root: by a user who cannot write where the wheel is."""
    [_, line] = readme_section("gunicorn")[0]
    command = line.split(" #")[0].strip()
    assert command.startswith("mcpool run -- gunicorn ")
    shutil.copy(os.path.join(EXAMPLES, "app.py"), folder)
    stats = os.path.join(folder, "stats")
    os.makedirs(stats, exist_ok=True)
    os.chmod(stats, 0o1777)

    def opened(command):
        with Memcached() as server:
            port = free_port()
            variables = preloaded(None, "", PATH=f"{environment}/bin:/usr/bin:/bin", HOME=folder,
                                  MEMCACHED=f"127.0.0.1:{server.port}", MCPOOL_SERVERS=str(server.port),
                                  MCPOOL_STATS=stats, GUNICORN_CMD_ARGS=f"-b 127.0.0.1:{port}",
                                  PYTHONDONTWRITEBYTECODE="1")
            as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if os.geteuid() == 0 else []
            with Process([*as_user, "sh", "-euc", f"exec {command}"], port, variables, folder):
                assert load(port, VISITS, AT_A_TIME, 0) == (VISITS, 0, 0)
                told = subprocess.run(["mcpool", "stat"], capture_output=True, text=True, env=variables, check=False)
                return int(stats_of(server.port)["total_connections"]) - 1, told.stdout

    assert opened(command.removeprefix("mcpool run -- "))[0] >= VISITS
    accepted, told = opened(command)
    assert accepted <= POOLED
    assert f"libmcpool {version()}" in told


def test_it_can_be_taken_away(environment):
    before = glob.glob(f"{environment}/**/*mcpool*", recursive=True)
    assert f"{environment}/bin/mcpool" in before and f"{environment}/lib/libmcpool.so" in before
    subprocess.run([f"{environment}/bin/pip", "uninstall", "--yes", "--quiet", "mcpool"], check=True)
    assert glob.glob(f"{environment}/**/*mcpool*", recursive=True) in ([], [f"{environment}/share/doc/mcpool"])
