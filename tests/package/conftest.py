"""The packages of this source, built once for all tests here."""

import glob
import os
import subprocess

import pytest

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def quiet_environment(**more):
    """The environment, without the variables of an outer make."""
    return {name: value for name, value in os.environ.items()
            if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "V", "B", "DESTDIR", "PREFIX")} | more


def read_makefiles():
    texts = []
    for name in ("Makefile", "tests/tests.mk", "bench/bench.mk", "packaging/packaging.mk"):
        with open(os.path.join(TOP, name), encoding="utf-8") as file:
            texts.append(file.read())
    return "".join(texts)


def make(kind, behind_name):
    """The files that `make KIND` builds, without debugging symbols, by package."""
    # The unit tests are a stage of their own.
    done = subprocess.run(["make", "-C", TOP, kind], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
                          env=quiet_environment(DEB_BUILD_OPTIONS="nocheck"))
    assert done.returncode == 0, done.stdout[-3000:]
    found = glob.glob(os.path.join(TOP, "build", kind, "**", f"*.{kind}"), recursive=True)
    names = {path: os.path.basename(path).split(behind_name)[0] for path in found}
    return {name: os.path.abspath(path) for path, name in names.items()
            if not name.endswith(("-dbgsym", "-debuginfo", "-debugsource"))}


@pytest.fixture(scope="session")
def debs():
    return make("deb", "_")


@pytest.fixture(scope="session")
def rpms():
    return make("rpm", "-0")
